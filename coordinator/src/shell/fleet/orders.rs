//! What every agent is told, and what comes of it: to calibrate, to prepare the run, to take its part of a deal, to stop.

use std::time::Duration;

use futures::future::join_all;
use plimsoll_common::calibration::{Calibration, CalibrationOrder};
use plimsoll_common::plan::{AgentPlan, TrialId};
use plimsoll_common::units::Rate;
use plimsoll_proto::v1;
use plimsoll_proto::v1::coordinator_message::Message as ToAgent;
use tokio::time::Instant;

use super::answers::{Heard, Patience};
use super::{Fleet, FleetError, Member};
use crate::core::clock_offset::ClockOffset;
use crate::core::non_empty::NonEmpty;
use crate::report::DealSummary;
use crate::shell::session::{AgentEvent, Session};

/// Fixtures of the largest preset and connections to a slow target take seconds, not minutes.
pub(super) const PREPARE_LIMIT: Duration = Duration::from_secs(60);
pub(super) const PREPARE: &str = "prepare the run";
const CALIBRATE: &str = "measure what its box can do";
/// A calibration takes about two seconds, on a crowded box some more.
const CALIBRATE_LIMIT: Duration = Duration::from_secs(30);
/// Every subscription of the largest preset has to be known at the server.
const DEAL_LIMIT: Duration = Duration::from_secs(60);

/// What came of a deal.
#[derive(Debug, Clone)]
pub struct FleetDeal {
    /// For the report.
    pub summary: DealSummary,
    /// By agent index: operations that each can still make; `None`: nothing is used up.
    pub operations_left: Option<Vec<u64>>,
}

impl Fleet {
    /// Has every agent measure what its box can do; no share is above that from then on. What each found, by its name, and why
    /// the others have found nothing.
    pub async fn calibrate(&mut self, order: &CalibrationOrder) -> (Vec<(String, Calibration)>, Vec<FleetError>) {
        for session in self.sessions() {
            session.send(ToAgent::Calibrate(order.into()));
        }
        let calibrated = |event| match event {
            AgentEvent::Calibrated(found) => Some(*found),
            _ => None,
        };
        let deadline = Instant::now() + CALIBRATE_LIMIT;
        let heard = self.hear(0, CALIBRATE, deadline, Patience::UntilAll, calibrated).await;
        let (mut measured, mut troubles) = (Vec::new(), Vec::new());
        for (agent, heard) in heard.into_iter().enumerate() {
            match heard {
                Some(Ok(found)) => measured.push((self.name(agent).to_owned(), found)),
                Some(Err(trouble)) => troubles.push(trouble),
                None => troubles.push(self.no_answer(agent, CALIBRATE, CALIBRATE_LIMIT)),
            }
        }
        self.keep_measured(measured.iter().map(|(name, found)| (name.clone(), found.ceiling)));
        (measured, troubles)
    }

    /// Tells every agent about the run: connect to the target, build the fixtures.
    ///
    /// # Errors
    /// Every agent that cannot, or is lost; the others are prepared, unless what was asked is wrong.
    pub async fn prepare(&mut self, plan: &AgentPlan) -> Result<(), NonEmpty<FleetError>> {
        let heard = self.ask_to_prepare(0, plan, Patience::UntilWrong).await;
        self.every(0, heard, PREPARE, PREPARE_LIMIT, Patience::UntilWrong).map(drop)
    }

    /// Tells the agents from this position on.
    pub(super) async fn ask_to_prepare(
        &mut self,
        position: usize,
        plan: &AgentPlan,
        patience: Patience,
    ) -> Vec<Heard<String>> {
        for Member { index, session, .. } in &self.members[position..] {
            let agent_index = u16::try_from(*index).expect("indices are below the most agents that there can be");
            let plan = AgentPlan { agent_index, ..plan.clone() };
            session.send(ToAgent::Prepare((&plan).into()));
        }
        let prepared = |event| match event {
            AgentEvent::Prepared(server) => Some(server),
            _ => None,
        };
        let heard = self.hear(position, PREPARE, Instant::now() + PREPARE_LIMIT, patience, prepared).await;
        for (member, heard) in self.members[position..].iter_mut().zip(&heard) {
            if let Some(Ok(server)) = heard {
                member.server = (!server.is_empty()).then(|| server.clone());
            }
        }
        heard
    }

    /// Deals rooms and users for these shares. Where users come online one after the other, that may take so much more.
    ///
    /// # Errors
    /// Every agent that cannot, or is lost; with [`Patience::UntilAll`] no other is in the middle of the deal any more.
    pub async fn deal(
        &mut self,
        shares: &[Rate],
        more: Duration,
        patience: Patience,
    ) -> Result<FleetDeal, NonEmpty<FleetError>> {
        if let Some(gone) = self.first_gone() {
            return Err(NonEmpty::one(gone));
        }
        let deal = self.deals;
        self.deals += 1;
        // By index: who is gone, and whose index was never used, sits out.
        let mut share_milli_per_s = vec![0; self.members.last().map_or(0, |last| last.index + 1)];
        for (member, share) in self.members.iter().zip(shares) {
            share_milli_per_s[member.index] = share.milli();
        }
        for session in self.sessions() {
            session.send(ToAgent::Deal(v1::Deal { deal, share_milli_per_s: share_milli_per_s.clone() }));
        }
        let (what, within) = ("subscribe to what its share needs", DEAL_LIMIT + more);
        let heard = self
            .hear(0, what, Instant::now() + within, patience, |event| match event {
                AgentEvent::Dealt(dealt) if dealt.deal == deal => Some(dealt),
                _ => None,
            })
            .await;
        let dealt = self.every(0, heard, what, within, patience)?;
        let summary = DealSummary {
            rooms: dealt.iter().map(|dealt| u64::from(dealt.rooms)).sum(),
            senders: dealt.iter().map(|dealt| u64::from(dealt.senders)).sum(),
            pairs: dealt.iter().fold(0, |sum, dealt| sum.saturating_add(dealt.pairs)),
            largest_deviation_ppm: dealt.iter().map(|dealt| dealt.largest_deviation_ppm).max().unwrap_or(0),
        };
        Ok(FleetDeal { summary, operations_left: dealt.iter().map(|dealt| dealt.operations_left).collect() })
    }

    /// Every agent's clock against ours, by its newest round trips.
    ///
    /// # Errors
    /// An agent's clock is not known in time.
    pub async fn clocks(&mut self, within: Duration) -> Result<Vec<ClockOffset>, FleetError> {
        let clock = async |session: &Session| session.clock(within).await;
        let clocks = join_all(self.sessions().map(clock)).await;
        match clocks.iter().position(Option::is_none) {
            None => Ok(clocks.into_iter().flatten().collect()),
            Some(silent) => Err(self.no_answer(silent, "show its clock by a ping", within)),
        }
    }

    /// Queues an order for one agent.
    pub fn send(&self, agent: usize, message: ToAgent) {
        self.members[agent].session.send(message);
    }

    /// Asks every agent to be silent at once.
    pub fn stop(&self, trial: TrialId) {
        let stop = v1::StopStep { step: trial.step, trial: trial.trial };
        self.sessions().for_each(|session| session.send(ToAgent::StopStep(stop)));
    }
}
