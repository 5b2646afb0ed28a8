//! Workloads and messages for the tests of the workloads.

use std::sync::Arc;

use async_nats::Message;
use bytes::Bytes;
use plimsoll_common::contract::ids::{IdCodec, Sender};
use plimsoll_common::deal::{deal_to_agents, deal_to_workers};
use plimsoll_common::plan::{AgentPlan, Target, Workload as AnyWorkload};
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;
use std::time::Duration;

use super::{Part, Setup, Workload};
use crate::core::ledger::{Ledger, Terms, Window};

/// The workload as every worker of a fleet drives it: so many equal agents of so many workers.
pub(crate) fn fleet<W: Workload>(plan: &W::Plan, any: &AnyWorkload, agents: usize, workers: usize) -> Vec<W> {
    let fixtures = Arc::new(any.fixtures(42).expect("a workload with rooms"));
    let members: Vec<&[u32]> = fixtures.rooms.iter().map(|room| room.members.as_slice()).collect();
    let weights: Vec<f64> = fixtures.rooms.iter().map(|room| any.room_weight(room)).collect();
    let dealt = deal_to_agents(&members, &weights, fixtures.users, &vec![1; agents]).expect("rooms enough");
    let mut fleet = Vec::new();
    for (agent, assignment) in (0..).zip(&dealt.assignments) {
        let parts = Part::of_assignments(deal_to_workers(assignment, &members, fixtures.users, workers));
        let run = AgentPlan {
            agent_index: agent,
            run_nonce: 7,
            seed: 42,
            target: Target { url: "nats://nowhere".into(), credentials: None },
            workload: any.clone(),
            request_timeout: Duration::from_secs(5),
            series: Vec::new(),
            max_lateness: Duration::from_millis(100),
        };
        for (worker, part) in (0..).zip(&parts) {
            let setup = Setup {
                plan: &run,
                fixtures: Some(&fixtures),
                part,
                worker,
                workers: workers as u8,
                exchange: None,
                inbox: "_INBOX.test",
                ids: IdCodec::new(Sender::new(7, agent, worker)),
                chance: &mut ChaCha8Rng::seed_from_u64(u64::from(agent) << 8 | u64::from(worker)),
            };
            fleet.push(W::new(plan, setup).expect("a part that does"));
        }
    }
    fleet
}

/// A book in which every operation counts.
pub(crate) fn ledger<W: Workload>(workload: &W, any: &AnyWorkload) -> Ledger {
    ledger_from(workload, any, 0)
}

/// The same of a later trial, whose operations are numbered from here on.
pub(crate) fn ledger_from<W: Workload>(workload: &W, any: &AnyWorkload, first: u64) -> Ledger {
    let limits = |series| plimsoll_common::plan::SeriesLimits { series, limits_us: Vec::new() };
    let terms = Terms {
        series: any.series().into_iter().map(limits).collect(),
        kinds: workload.kinds(),
        observations: super::observations(any),
        request_timeout_ns: 5_000_000_000,
        max_lateness_ns: 100_000_000,
    };
    Ledger::new(terms, Window { start_ns: 0, hold_start_ns: 0, hold_end_ns: 1_000_000_000 }, first, 1 << 12, 1 << 12)
}

/// A message that arrives.
pub(crate) fn message(subject: &str, payload: impl Into<Bytes>) -> Message {
    let payload = payload.into();
    let length = payload.len();
    Message { subject: subject.into(), reply: None, payload, headers: None, status: None, description: None, length }
}
