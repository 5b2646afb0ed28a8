//! The workers of a prepared run: what they were dealt, what they have yet to answer, and which trial they hold.

use std::sync::Arc;

use plimsoll_common::contract::fixtures::{Fixtures, Room};
use plimsoll_common::deal::{deal_to_agents, deal_to_workers};
use plimsoll_common::plan::{AgentPlan, Arrivals, DailyWorkload, StepOrder};
use plimsoll_proto::v1;
use tokio::sync::mpsc;

use crate::core::admission::DealtPart;
use crate::core::people::users_of;
use crate::shell::aggregate::Aggregate;
use crate::shell::worker::{WorkerCommand, WorkerOrder};
use crate::workload::Part;

/// What stands after Prepare.
pub(super) struct Workers {
    pub plan: Arc<AgentPlan>,
    /// `None`: the workload has no rooms to deal.
    pub fixtures: Option<Arc<Fixtures>>,
    pub commands: Vec<mpsc::Sender<WorkerCommand>>,
    /// One per worker once dealt.
    pub parts: Vec<Part>,
    pub awaited: Awaited,
    pub running: Option<Aggregate>,
    /// Whether the trial that runs was told to stop.
    pub stopped: bool,
}

/// What the workers have yet to answer.
pub(super) enum Awaited {
    Nothing,
    Connections { left: usize },
    Deal { left: usize, answer: v1::Dealt, budgets: Vec<Option<u64>> },
}

impl Workers {
    pub fn is_idle(&self) -> bool {
        matches!(self.awaited, Awaited::Nothing) && self.running.is_none()
    }

    /// What was dealt to it, and what of it to its workers.
    pub fn dealt_part(&self) -> DealtPart {
        let users = self.parts.iter().map(|part| part.users.len() as u64).sum();
        DealtPart { users, workers_ppm: Part::split(1_000_000, &self.parts) }
    }

    /// What each worker does of this agent's share, and what of it the coordinator is told. The error is for people.
    pub fn deal(&self, deal: u32, own: usize, shares: &[u64]) -> Result<(Vec<Part>, v1::Dealt), String> {
        let workers = self.commands.len();
        if let Some(daily) = self.plan.workload.daily() {
            return deal_users(daily, deal, own, shares, workers);
        }
        let Some(fixtures) = &self.fixtures else {
            return Ok((Part::equal(workers), v1::Dealt { deal, ..v1::Dealt::default() }));
        };
        let members: Vec<&[u32]> = fixtures.rooms.iter().map(|room| room.members.as_slice()).collect();
        let weight = |room: &Room| self.plan.workload.room_weight(room);
        let weights: Vec<f64> = fixtures.rooms.iter().map(weight).collect();
        let dealt = deal_to_agents(&members, &weights, fixtures.users, shares).map_err(|error| error.to_string())?;
        let assignment = &dealt.assignments[own];
        let answer = v1::Dealt {
            deal,
            rooms: assignment.pieces.len() as u32,
            senders: assignment.sender_count(),
            pairs: assignment.pairs(),
            largest_deviation_ppm: (dealt.largest_deviation * 1e6).round() as u64,
            operations_left: None,
        };
        Ok((Part::of_assignments(deal_to_workers(assignment, &members, fixtures.users, workers)), answer))
    }

    pub fn start(&mut self, order: &StepOrder) {
        // Where levels are users, workers find out themselves what is due.
        let rate = self.plan.workload.rate(order.share, order.hold);
        let (warmup, hold) = order.due(rate);
        let (warmup, hold) = (Part::split(warmup, &self.parts), Part::split(hold, &self.parts));
        let in_flight = Part::split(order.max_in_flight, &self.parts);
        self.running = Some(Aggregate::new(order.trial, self.commands.len()));
        self.stopped = false;
        let workers = self.commands.len() as u64;
        for (index, commands) in self.commands.iter().enumerate() {
            // Workers are staggered as agents are: (index + the agent's own phase) of the workers' interval.
            let agent_phase = match order.arrivals {
                Arrivals::Uniform { phase_ppm } => u64::from(phase_ppm),
                Arrivals::Poisson => 0,
            };
            let phase_ppm = ((index as u64 * 1_000_000 + agent_phase) / workers) as u32;
            let order = WorkerOrder {
                order: order.clone(),
                warmup_due: warmup[index],
                hold_due: hold[index],
                max_in_flight: in_flight[index].max(1),
                phase_ppm,
            };
            tell(commands, WorkerCommand::Start(order));
        }
    }

    /// Has a running trial end, once: a coordinator that says it again and again fills no queue.
    pub fn stop(&mut self) {
        if self.running.is_some() && !std::mem::replace(&mut self.stopped, true) {
            self.commands.iter().for_each(|commands| tell(commands, WorkerCommand::Stop));
        }
    }
}

/// Says it without waiting: no worker may hold up the session. One that is gone has said why.
pub(super) fn tell(commands: &mpsc::Sender<WorkerCommand>, command: WorkerCommand) {
    let told = commands.try_send(command);
    debug_assert!(!matches!(told, Err(mpsc::error::TrySendError::Full(_))), "there is room for all that can wait");
}

/// Which of an agent's users each worker drives. The error is for people.
fn deal_users(
    daily: &DailyWorkload,
    deal: u32,
    own: usize,
    shares: &[u64],
    workers: usize,
) -> Result<(Vec<Part>, v1::Dealt), String> {
    let counts: Vec<u64> = shares.iter().map(|share| share / 1000).collect();
    let all: u64 = counts.iter().fold(0, |sum, &count| sum.saturating_add(count));
    if shares.iter().any(|share| share % 1000 != 0) || all > u64::from(daily.users) {
        return Err(format!("{all} users of {} cannot be dealt in whole", daily.users));
    }
    let users = users_of(own, &counts);
    let direct_users = users.len().min(daily.max_direct_users as usize);
    let answer = v1::Dealt { deal, senders: users.len() as u32, ..v1::Dealt::default() };
    Ok((Part::of_users(&users, direct_users, daily.multiplex_pool_size, workers), answer))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use plimsoll_common::contract::presets::MessagesPreset;
    use plimsoll_common::plan::{More, RoomReadWorkload, Target, TrialId, Workload};
    use plimsoll_common::units::Rate;

    use super::*;
    use crate::shell::worker::COMMANDS;

    #[test]
    fn who_says_stop_a_thousand_times_says_it_once_for_each_trial() {
        let (commands, mut heard) = mpsc::channel(COMMANDS);
        let plan = AgentPlan {
            agent_index: 0,
            run_nonce: 0,
            seed: 0,
            target: Target { url: "nats://nowhere".to_owned(), credentials: None },
            workload: Workload::RoomRead(RoomReadWorkload { preset: MessagesPreset::Small, site_id: "s".to_owned() }),
            request_timeout: Duration::from_secs(5),
            series: Vec::new(),
            max_lateness: Duration::from_millis(100),
        };
        let (parts, commands) = (Part::equal(1), vec![commands]);
        let (fixtures, awaited, running) = (None, Awaited::Nothing, None);
        let mut workers = Workers { plan: Arc::new(plan), fixtures, commands, parts, awaited, running, stopped: false };
        let order = |trial| StepOrder {
            trial: TrialId { step: 0, trial },
            share: Rate::per_second(1).unwrap(),
            start_boottime_ns: 1,
            warmup: Duration::ZERO,
            hold: Duration::from_secs(1),
            arrivals: Arrivals::Poisson,
            max_in_flight: 1,
            more: More::default(),
        };
        workers.stop();
        assert!(heard.try_recv().is_err(), "nothing runs that could be stopped");
        for trial in 0..3 {
            workers.start(&order(trial));
            (0..1000).for_each(|_| workers.stop());
            assert!(matches!(heard.try_recv(), Ok(WorkerCommand::Start(_))));
            assert!(matches!(heard.try_recv(), Ok(WorkerCommand::Stop)));
            assert!(heard.try_recv().is_err());
        }
    }
}
