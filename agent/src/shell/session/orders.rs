//! What the coordinator orders of the workers: to prepare the run, to be dealt their parts, to start a trial and to stop it.

use std::sync::Arc;
use std::time::Duration;

use plimsoll_common::plan::{AgentPlan, MAX_AGENTS, StepOrder};
use plimsoll_common::wire::MAX_PHASE;
use plimsoll_proto::v1::{self, agent_message};
use tokio::sync::mpsc;

use super::refusal::{kind_of_limit, kind_of_step};
use super::workers::{Awaited, Workers, tell};
use super::{HadRun, Session, SessionEnd};
use crate::core::admission::check_step;
use crate::core::exchange::Exchange;
use crate::shell::clock::boottime_ns;
use crate::shell::nats_target::servers;
use crate::shell::worker::{self, COMMANDS, WorkerCommand, WorkerSpec};

impl Session {
    pub(super) async fn on_prepare(&mut self, prepare: v1::Prepare) -> Result<(), SessionEnd> {
        // What workers of a Prepare that was refused still say would be taken for the next one's.
        if !self.threads.is_empty() {
            return self.refuse(v1::RefusedKind::Invalid, "prepared twice");
        }
        if !self.calibrating.is_empty() {
            return self.refuse(v1::RefusedKind::Invalid, "prepared while calibrating");
        }
        let plan = match AgentPlan::try_from(prepare) {
            Ok(plan) => Arc::new(plan),
            Err(error) => return self.refuse(v1::RefusedKind::Invalid, error.to_string()),
        };
        let limits = &self.config.limits;
        let limited = match servers(&plan.target.url) {
            Ok(servers) => limits
                .check_targets(&servers)
                .and_then(|()| limits.check_connections(u32::from(self.config.workers)))
                .map_err(|limit| (kind_of_limit(&limit), limit.to_string())),
            Err(words) => Err((v1::RefusedKind::Invalid, words)),
        };
        if let Err((kind, words)) = limited {
            return self.refuse(kind, words);
        }
        let building = plan.clone();
        let built = tokio::task::spawn_blocking(move || building.workload.fixtures(building.seed));
        let Ok(fixtures) = built.await else {
            return self.refuse(v1::RefusedKind::Fixtures, "building the fixtures failed");
        };
        let fixtures = fixtures.map(Arc::new);
        let workers = self.config.workers;
        let mut desks = plan.workload.daily().map(|_| Exchange::desks(workers)).unwrap_or_default().into_iter();
        let mut commands = Vec::new();
        for index in 0..workers {
            let desk = desks.next();
            let connection = format!("plimsoll/{}/{}", self.claim.run_id, plan.agent_index);
            let (plan, fixtures, lease) = (plan.clone(), fixtures.clone(), self.lease.clone());
            let spec = WorkerSpec { index, connection, plan, fixtures, workers, desk, lease };
            let (sender, receiver) = mpsc::channel(COMMANDS);
            let events = self.events_in.clone();
            let thread = std::thread::Builder::new().name(format!("worker-{index}"));
            match thread.spawn(move || worker::run(spec, receiver, events)) {
                Ok(thread) => self.threads.push(thread),
                Err(error) => {
                    return self.refuse(v1::RefusedKind::Box, format!("cannot start a worker thread: {error}"));
                }
            }
            commands.push(sender);
        }
        let awaited = Awaited::Connections { left: commands.len() };
        self.run = HadRun::Yes;
        self.workers =
            Some(Workers { plan, fixtures, commands, parts: Vec::new(), awaited, running: None, stopped: false });
        Ok(())
    }

    pub(super) fn on_deal(&mut self, deal: &v1::Deal) -> Result<(), SessionEnd> {
        let Some(prepared) = self.workers.as_mut().filter(|prepared| prepared.is_idle()) else {
            return self.refuse(v1::RefusedKind::Invalid, "dealt while not ready");
        };
        let shares = &deal.share_milli_per_s;
        if shares.len() > MAX_AGENTS {
            let words = format!("a deal to {} agents, and a fleet has at most {MAX_AGENTS}", shares.len());
            return self.refuse(v1::RefusedKind::Invalid, words);
        }
        let own = usize::from(prepared.plan.agent_index);
        if own >= shares.len() || shares[own] == 0 {
            return self.refuse(v1::RefusedKind::Invalid, "a deal without a share for this agent");
        }
        if let Some(daily) = prepared.plan.workload.daily() {
            let users = shares[own] / 1000;
            let needed = daily.connections(users) + u64::from(self.config.workers);
            let needed = u32::try_from(needed).unwrap_or(u32::MAX);
            if let Err(limit) = self.config.limits.check_connections(needed) {
                return self.refuse(kind_of_limit(&limit), limit.to_string());
            }
        }
        let (parts, answer) = match prepared.deal(deal.deal, own, shares) {
            Ok(dealt) => dealt,
            Err(words) => return self.refuse(v1::RefusedKind::Fixtures, words),
        };
        prepared.parts = parts;
        let budgets = vec![None; prepared.commands.len()];
        prepared.awaited = Awaited::Deal { left: prepared.commands.len(), answer, budgets };
        for (commands, part) in prepared.commands.iter().zip(&prepared.parts) {
            tell(commands, WorkerCommand::Deal(part.clone()));
        }
        Ok(())
    }

    pub(super) fn on_start(&mut self, start: v1::StartStep) -> Result<(), SessionEnd> {
        let order = match StepOrder::try_from(start) {
            Ok(order) => order,
            Err(error) => return self.refuse(v1::RefusedKind::Invalid, error.to_string()),
        };
        let now_ns = boottime_ns();
        if Duration::from_nanos(order.start_boottime_ns.saturating_sub(now_ns)) > MAX_PHASE {
            let words = format!(
                "StartStep.start_boottime_ns is {}, expected at most {} s from now",
                order.start_boottime_ns,
                MAX_PHASE.as_secs()
            );
            return self.refuse(v1::RefusedKind::Invalid, words);
        }
        let until_start = order.start_boottime_ns.saturating_sub(self.claimed_ns.min(now_ns));
        let to_the_end = Duration::from_nanos(until_start).saturating_add(order.warmup).saturating_add(order.hold);
        let limits = &self.config.limits;
        if let Err(limit) = limits.check_run(to_the_end.saturating_add(self.claim.held_before)) {
            return self.refuse(kind_of_limit(&limit), limit.to_string());
        }
        let Some(prepared) = self.workers.as_ref().filter(|prepared| prepared.is_idle() && !prepared.parts.is_empty())
        else {
            return self.refuse(v1::RefusedKind::Invalid, "started while not dealt");
        };
        if let Err(why) = check_step(limits, &prepared.plan, &prepared.dealt_part(), &order) {
            return self.refuse(kind_of_step(&why), why.to_string());
        }
        if order.start_boottime_ns <= boottime_ns() {
            return self.refuse(v1::RefusedKind::TooLate, "the start instant is already past");
        }
        if let Some(prepared) = &mut self.workers {
            prepared.start(&order);
        }
        let v1_order = v1::Armed { step: order.trial.step, trial: order.trial.trial };
        self.send(agent_message::Message::Armed(v1_order))
    }

    pub(super) fn on_stop(&mut self) -> Result<(), SessionEnd> {
        // A step that is already over has said so; its totals are on their way.
        if let Some(prepared) = &mut self.workers {
            prepared.stop();
        }
        Ok(())
    }
}
