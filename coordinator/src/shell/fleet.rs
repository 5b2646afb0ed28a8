//! All agents of a run, as one: orders go to each, answers are awaited from all.

mod admission;
mod answers;
mod capacity;
mod error;
mod orders;

use std::collections::HashMap;
use std::time::Duration;

use futures::future::join_all;
use plimsoll_common::units::Rate;
use tokio::sync::mpsc;

pub use self::admission::Admission;
pub use self::answers::{NotArmed, Patience};
pub use self::error::{FleetError, Refusal};
pub use self::orders::FleetDeal;
use super::session::{AgentEvent, Session};
use crate::core::non_empty::NonEmpty;

/// An agent that has been released closes its session at once.
const RELEASE_LIMIT: Duration = Duration::from_secs(1);
/// Events that may wait: half a minute of snapshots of a thousand agents, which the coordinator reads as they come.
const EVENTS: usize = 64 * 1024;

/// Every agent of a run that is there, claimed, in the order in which they joined. Orders and answers go by an agent's
/// position, which stays until [`Fleet::take_gone`]; agents know themselves by an index, which nobody else ever gets.
#[derive(Debug)]
pub struct Fleet {
    members: Vec<Member>,
    /// What agents have shown that they carry, by their names: who is lost and comes back is no larger than it was.
    learned: HashMap<String, Rate>,
    /// What their boxes can do against a null target, by their names: a box that comes back is not measured again.
    measured: HashMap<String, Rate>,
    /// How many deals were sent, finished or not: none has another's number.
    deals: u32,
    events: mpsc::Receiver<(usize, AgentEvent)>,
    events_in: mpsc::Sender<(usize, AgentEvent)>,
}

#[derive(Debug)]
struct Member {
    /// In all deals, and in the ids of its operations.
    index: usize,
    session: Session,
    /// What the target's server that it is connected to says of itself, once it was prepared with the others.
    server: Option<String>,
    /// Why it is lost.
    gone: Option<String>,
}

impl Member {
    fn new(index: usize, session: Session) -> Self {
        Self { index, session, server: None, gone: None }
    }
}

/// An agent that was lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gone {
    /// Its index.
    pub index: usize,
    /// Its name.
    pub agent: String,
    /// For people.
    pub why: String,
    /// From this instant of our CLOCK_BOOTTIME on it sends nothing, whatever became of it.
    pub silent_at_ns: u64,
}

impl Fleet {
    /// A fleet before anybody was claimed.
    pub fn nobody() -> Self {
        let (events_in, events) = mpsc::channel(EVENTS);
        Self { members: Vec::new(), learned: HashMap::new(), measured: HashMap::new(), deals: 0, events, events_in }
    }

    /// Who is there, by index.
    pub fn names(&self) -> Vec<(usize, String)> {
        self.members.iter().map(|member| (member.index, member.session.name.clone())).collect()
    }

    fn sessions(&self) -> impl Iterator<Item = &Session> {
        self.members.iter().map(|member| &member.session)
    }

    /// How many agents there are.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// The name of the agent at this position.
    pub fn name(&self, agent: usize) -> &str {
        &self.members[agent].session.name
    }

    /// Takes out who was lost, so that the positions of the others change. Their sessions end here, and what they still send
    /// is heard no more.
    pub fn take_gone(&mut self) -> Vec<Gone> {
        let gone = |member: &Member| {
            let why = member.gone.clone()?;
            let Member { index, session, .. } = member;
            Some(Gone { index: *index, agent: session.name.clone(), why, silent_at_ns: session.silent_at_ns() })
        };
        let taken = self.members.iter().filter_map(gone).collect();
        self.members.retain(|member| member.gone.is_none());
        taken
    }

    /// Holds an agent for lost, also where its session goes on; the words replace those that it was lost with.
    pub fn give_up_on(&mut self, agent: usize, why: String) {
        self.members[agent].gone = Some(why);
    }

    /// What the target's server that an agent is connected to says of itself, where it said so.
    pub fn server(&self, agent: usize) -> Option<&str> {
        self.members[agent].server.as_deref()
    }

    fn no_answer(&mut self, agent: usize, what: &'static str, within: Duration) -> FleetError {
        self.give_up_on(agent, format!("it did not {what} within {within:?}"));
        FleetError::NoAnswer { agent: self.name(agent).to_owned(), what, within }
    }

    /// Gives up on everybody whose trouble makes it a loss, unless somebody's is of another kind; the one that decides what
    /// becomes of the run.
    pub fn not_done(&mut self, troubles: &NonEmpty<FleetError>) -> FleetError {
        if let Some(wrong) = troubles.iter().find(|trouble| !trouble.is_a_loss()) {
            return wrong.clone();
        }
        for trouble in troubles.iter() {
            if let FleetError::Refused { agent, words, .. } = trouble {
                let of_it = self.members.iter_mut().filter(|member| member.session.name == *agent);
                of_it.for_each(|member| member.gone = Some(words.clone()));
            }
        }
        troubles.first().clone()
    }

    /// The first that was lost and not yet taken out.
    pub fn first_gone(&self) -> Option<FleetError> {
        let gone =
            |member: &Member| Some(FleetError::Lost { agent: member.session.name.clone(), why: member.gone.clone()? });
        self.members.iter().find_map(gone)
    }

    /// What comes next from any agent.
    pub async fn next_event(&mut self) -> (usize, AgentEvent) {
        loop {
            let (index, event) = self.events.recv().await.expect("a sender is kept");
            // What an agent sent before it was taken out concerns nobody.
            let Some(agent) = self.members.iter().position(|member| member.index == index) else { continue };
            if let AgentEvent::Lost(why) = &event {
                self.members[agent].gone.get_or_insert_with(|| why.clone());
            }
            return (agent, event);
        }
    }

    /// Waits until an agent is lost; to be raced against what an idle fleet waits for.
    pub async fn lost(&mut self) -> FleetError {
        loop {
            if let Some(gone) = self.first_gone() {
                return gone;
            }
            self.next_event().await;
        }
    }

    /// Lets every agent go.
    pub async fn release(self) {
        let Self { members, events, .. } = self;
        drop(events);
        join_all(members.into_iter().map(|member| member.session.close(RELEASE_LIMIT))).await;
    }
}

#[cfg(test)]
impl Fleet {
    /// The agent at this position was heard last at this instant of our CLOCK_BOOTTIME.
    pub fn echoed(&self, agent: usize, at_ns: u64) {
        self.members[agent].session.echoed(at_ns);
    }
}

#[cfg(test)]
pub(super) mod tests;
