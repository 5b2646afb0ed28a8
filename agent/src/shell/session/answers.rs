//! What the workers answer, and what of it the coordinator is told.

use plimsoll_common::plan::TrialId;
use plimsoll_proto::v1::{self, agent_message};

use super::refusal::kind_of_worker;
use super::workers::{Awaited, Workers};
use super::{Session, SessionEnd};
use crate::shell::aggregate::Aggregate;
use crate::shell::clock::boottime_ns;
use crate::shell::worker::WorkerEvent;
use crate::workload::Part;

impl Session {
    pub(super) fn on_event(&mut self, worker: u8, event: WorkerEvent) -> Result<(), SessionEnd> {
        match event {
            WorkerEvent::Refused(refusal) => {
                self.workers = None;
                self.config.metrics.idle();
                self.refuse(kind_of_worker(&refusal), refusal.to_string())
            }
            WorkerEvent::Panicked(words) => Err(SessionEnd::Panicked { worker, words }),
            WorkerEvent::Connected(server) => self.on_ready(Some(server)),
            WorkerEvent::Dealt(budget) => {
                if let Some(Workers { awaited: Awaited::Deal { budgets, .. }, .. }) = &mut self.workers {
                    budgets[usize::from(worker)] = budget;
                }
                self.on_ready(None)
            }
            WorkerEvent::Block(trial, block, health) => {
                let Some(running) = self.running(trial) else { return Ok(()) };
                running.block(worker, *block, health);
                self.report()
            }
            WorkerEvent::Finished(trial, finish) => {
                let Some(running) = self.running(trial) else { return Ok(()) };
                running.finish(worker, *finish);
                self.report()
            }
        }
    }

    fn running(&mut self, trial: TrialId) -> Option<&mut Aggregate> {
        self.workers.as_mut()?.running.as_mut().filter(|running| running.trial() == trial)
    }

    fn on_ready(&mut self, server: Option<String>) -> Result<(), SessionEnd> {
        let Some(prepared) = &mut self.workers else { return Ok(()) };
        let (Awaited::Connections { left } | Awaited::Deal { left, .. }) = &mut prepared.awaited else { return Ok(()) };
        *left -= 1;
        if *left > 0 {
            return Ok(());
        }
        let message = match std::mem::replace(&mut prepared.awaited, Awaited::Nothing) {
            Awaited::Deal { answer, budgets, .. } => {
                let budgets: Option<Vec<u64>> = budgets.into_iter().collect();
                let operations_left = budgets.map(|budgets| Part::most(budgets.into_iter(), &prepared.parts));
                agent_message::Message::Dealt(v1::Dealt { operations_left, ..answer })
            }
            _ => agent_message::Message::Prepared(v1::Prepared { server: server.unwrap_or_default() }),
        };
        self.send(message)
    }

    fn report(&mut self) -> Result<(), SessionEnd> {
        let Some(running) = self.workers.as_mut().and_then(|prepared| prepared.running.as_mut()) else { return Ok(()) };
        let mut snapshots = Vec::new();
        while let Some(snapshot) = running.next_snapshot(|| self.box_watch.look(boottime_ns())) {
            snapshots.push(snapshot);
        }
        let totals = running.totals();
        let series = self.workers.as_ref().map(|prepared| prepared.plan.series.as_slice()).unwrap_or_default();
        for snapshot in &snapshots {
            self.config.metrics.record(snapshot, series);
            self.send(agent_message::Message::Snapshot(snapshot.into()))?;
        }
        if let Some(totals) = totals {
            if let Some(prepared) = &mut self.workers {
                prepared.running = None;
            }
            self.config.metrics.idle();
            self.send(agent_message::Message::StepTotals((&totals).into()))?;
        }
        Ok(())
    }
}
