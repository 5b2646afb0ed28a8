//! Who makes the load: agents join, are lost, and may come back between steps. Says whether a run goes on without those who
//! are gone, and who may join it when.

use plimsoll_common::plan::{MAX_AGENTS, TrialId};
use plimsoll_common::units::Rate;
use serde::{Deserialize, Serialize};

/// What the loss of an agent does to a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnAgentLoss {
    /// Its step is held again by the others.
    Retry,
    /// The run ends with what was measured so far.
    Abort,
}

/// Whether work can be dealt anew when the fleet changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hands {
    /// As often as needed.
    Anew,
    /// Once: operations use up what was dealt, and what an agent that is gone has used nobody knows.
    Once,
}

/// What a plan says of lost agents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LossPolicy {
    /// With fewer the run ends.
    pub min_agents: usize,
    /// What a loss does.
    pub on_loss: OnAgentLoss,
    /// Whether the others can be dealt what it had.
    pub hands: Hands,
}

/// A change of the fleet between two trials, for the report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FleetChange {
    /// It takes part from the next trial on.
    Joined {
        /// Its name.
        agent: String,
    },
    /// It is asked for no more than this from the next trial on.
    Capped {
        /// Its name.
        agent: String,
        /// What it could not carry.
        share: Rate,
        /// What it is asked for at most.
        ceiling: Rate,
        /// What both are: a rate, or users.
        #[serde(default)]
        of: Asked,
    },
    /// It takes part no more.
    Lost {
        /// Its name.
        agent: String,
        /// For people.
        why: String,
    },
}

/// What an agent is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Asked {
    /// Operations per second.
    #[default]
    Rate,
    /// Users to drive.
    Users,
}

impl Asked {
    /// What stands behind the number.
    pub const fn unit(self) -> &'static str {
        match self {
            Self::Rate => "/s",
            Self::Users => " users",
        }
    }
}

/// Whether a run goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// With who is there.
    GoOn,
    /// It ends, since this agent was lost.
    End {
        /// The first that was lost since the run last went on.
        agent: String,
        /// Why it was lost.
        why: String,
        /// Why the run does not go on without it.
        because: Because,
    },
}

/// Why a run does not go on without a lost agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Because {
    /// There is nobody.
    #[error("no agent is left")]
    NobodyLeft,
    /// The plan says so.
    #[error("--on-agent-loss abort ends the run")]
    Plan,
    /// Fewer are left than the plan asks for.
    #[error("{left} of at least {min} agents are left (--min-agents)")]
    TooFew {
        /// Who is left.
        left: usize,
        /// Who must be.
        min: usize,
    },
    /// Its part cannot be dealt to the others.
    #[error(
        "what this workload uses up is dealt once, and the part of a lost agent cannot be dealt again: seed the target anew"
    )]
    DealtOnce,
}

/// Everybody who ever had a part in a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Roster {
    policy: LossPolicy,
    /// By agent index. An index is given once only: the ids of operations carry it.
    members: Vec<Member>,
    /// The first loss that the run has not gone on from.
    lost: Option<(String, String)>,
    changes: Vec<FleetChange>,
    /// Names that do not come back in this run.
    shut_out: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Member {
    name: String,
    is_there: bool,
}

impl Roster {
    /// A fleet before its first trial: indices, ascending, and names. Indices that are left out are nobody's.
    pub fn new(policy: LossPolicy, agents: impl IntoIterator<Item = (usize, String)>) -> Self {
        let mut roster = Self { policy, members: Vec::new(), lost: None, changes: Vec::new(), shut_out: Vec::new() };
        for (index, name) in agents {
            roster.members.resize(index, Member { name: String::new(), is_there: false });
            roster.members.push(Member { name, is_there: true });
        }
        roster
    }

    /// How many are there.
    pub fn present(&self) -> usize {
        self.members.iter().filter(|member| member.is_there).count()
    }

    /// Whether an agent of this name is wanted: it is not there, and was not shut out.
    pub fn wants(&self, name: &str) -> bool {
        let is_there = self.members.iter().any(|member| member.is_there && member.name == name);
        !is_there && !self.shut_out.iter().any(|out| out == name)
    }

    /// An agent that was there but could not take its part does not come back: before the same trial it would fail again, and no
    /// trial would ever be held.
    pub fn shut_out(&mut self, name: String) {
        self.shut_out.push(name);
    }

    /// Whether agents may join before this trial: between steps, where they can be dealt a part. Within a step nobody comes
    /// back, so that it is held no more often than there are agents to lose.
    pub fn may_join(&self, before: TrialId) -> bool {
        before.trial == 0 && self.policy.hands == Hands::Anew && self.next_index().is_some()
    }

    /// The index of whoever joins next; `None`: all have been given.
    pub fn next_index(&self) -> Option<usize> {
        (self.members.len() < MAX_AGENTS).then_some(self.members.len())
    }

    /// So many may join yet.
    pub fn room(&self) -> usize {
        MAX_AGENTS - self.members.len().min(MAX_AGENTS)
    }

    /// An agent was claimed and prepared under [`Self::next_index`].
    pub fn joined(&mut self, name: String) {
        self.changes.push(FleetChange::Joined { agent: name.clone() });
        self.members.push(Member { name, is_there: true });
    }

    /// An index was given to an agent that then could not take part.
    pub fn spoil_index(&mut self, name: String) {
        self.members.push(Member { name, is_there: false });
    }

    /// The agent with this index is gone. Who is gone already stays so.
    pub fn lose(&mut self, index: usize, why: String) {
        let Some(member) = self.members.get_mut(index).filter(|member| member.is_there) else { return };
        member.is_there = false;
        self.lost.get_or_insert_with(|| (member.name.clone(), why.clone()));
        self.changes.push(FleetChange::Lost { agent: member.name.clone(), why });
    }

    /// A box has shown that it cannot carry this.
    pub fn cap(&mut self, agent: String, share: Rate, ceiling: Rate, of: Asked) {
        self.changes.push(FleetChange::Capped { agent, share, ceiling, of });
    }

    /// Whether the run goes on. One that does has taken its losses: the same loss is not asked about again.
    pub fn decide(&mut self) -> Next {
        let Some((agent, why)) = self.lost.take() else { return Next::GoOn };
        let LossPolicy { min_agents, on_loss, hands } = self.policy;
        let left = self.present();
        let because = match () {
            () if left == 0 => Because::NobodyLeft,
            () if on_loss == OnAgentLoss::Abort => Because::Plan,
            () if left < min_agents => Because::TooFew { left, min: min_agents },
            () if hands == Hands::Once => Because::DealtOnce,
            () => return Next::GoOn,
        };
        Next::End { agent, why, because }
    }

    /// What changed since this was last asked.
    pub fn take_changes(&mut self) -> Vec<FleetChange> {
        std::mem::take(&mut self.changes)
    }
}

#[cfg(test)]
mod tests;
