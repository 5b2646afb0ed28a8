//! What each agent can take: what its operator says, what its box was measured to do, and what it has shown.

use std::num::NonZeroU32;

use plimsoll_common::units::Rate;

use super::{Fleet, Member};
use crate::core::split::Capacity;
use crate::shell::session::{AgentHello, Session};

impl Fleet {
    /// What each agent can take.
    pub fn capacities(&self) -> Vec<Capacity> {
        let capacity = |session: &Session| Capacity {
            agent: session.name.clone(),
            weight: NonZeroU32::max(session.hello.workers, NonZeroU32::MIN),
            ceiling: self.declared_ceiling(session).into_iter().chain(self.learned.get(&session.name).copied()).min(),
            max_connections: session.hello.max_connections,
        };
        self.sessions().map(capacity).collect()
    }

    /// The same by what they say of themselves alone.
    pub fn declared(&self) -> Vec<Capacity> {
        let ceilings = self.sessions().map(|session| self.declared_ceiling(session));
        self.capacities()
            .into_iter()
            .zip(ceilings)
            .map(|(capacity, ceiling)| Capacity { ceiling, ..capacity })
            .collect()
    }

    /// From now on an agent is asked for no more than this.
    pub fn cap(&mut self, agent: usize, ceiling: Rate) {
        self.learned.insert(self.members[agent].session.name.clone(), ceiling);
    }

    /// One line per agent for the report: its box, its workers, and the server of the target that they are connected to.
    pub fn boxes(&self) -> Vec<(String, String)> {
        let words = |Member { session, server, .. }: &Member| {
            let ceiling =
                self.declared_ceiling(session).map_or(String::new(), |ceiling| format!(", at most {ceiling}/s"));
            let server = server.as_ref().map_or(String::new(), |server| format!(", connected to {server}"));
            let AgentHello { workers, hostname, .. } = &session.hello;
            (session.name.clone(), format!("{workers} workers on {hostname}{ceiling}{server}"))
        };
        self.members.iter().map(words).collect()
    }

    pub(super) fn keep_measured(&mut self, ceilings: impl IntoIterator<Item = (String, Rate)>) {
        self.measured.extend(ceilings);
    }

    /// What an agent is asked for at most by what its operator says and its box was measured to do.
    fn declared_ceiling(&self, session: &Session) -> Option<Rate> {
        session.hello.ceiling.into_iter().chain(self.measured.get(&session.name).copied()).min()
    }
}
