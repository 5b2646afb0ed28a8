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

/// How often an agent that was lost comes back. One that was lost again before a trial was held with it never does: before the
/// same trial it would be lost once more, and none would ever be held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comebacks {
    /// As often as it has held a trial since.
    Any,
    /// Once: every loss of a search costs it a trial, and its time is bounded.
    Once,
}

/// Why an agent does not come back in a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ShutOut {
    /// It came back, and was lost again at once.
    #[error("it was lost again before a trial was held with it, and does not come back in this run")]
    HeldNothing,
    /// Its comeback is used up.
    #[error("it was lost for the second time, and does not come back in this search")]
    LostTwice,
    /// It alone was slow.
    #[error("what is slow stays slow: it does not come back in this run")]
    SlowAlone,
    /// It alone heard nothing, as before.
    #[error("its way there was cut for the second time, and it does not come back in this run")]
    CutOffTwice,
}

/// How an agent alone did not reach the target as the others did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strays {
    /// It saw objectives broken that held for everybody else.
    Slow,
    /// It heard nothing for a while.
    CutOff,
}

/// Before which trial somebody may join.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Occasion {
    /// The first of a step; in a search, one of another level than the trial before.
    NewStep,
    /// One that is held again.
    Repeat,
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
    /// Whether it comes back.
    pub comebacks: Comebacks,
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

impl Occasion {
    /// Before this trial of a ramp, whose steps count their trials.
    pub fn before(trial: TrialId) -> Self {
        if trial.trial == 0 { Self::NewStep } else { Self::Repeat }
    }
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
    /// The name of each that was lost, as often as it was.
    losses: Vec<String>,
    /// The name of each that was cut off.
    cut_off: Vec<String>,
    /// Whoever strayed and does not come back, before it is held for lost.
    astray: Vec<(String, ShutOut)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Member {
    name: String,
    is_there: bool,
    /// It may be lost before a trial was held with it and come back all the same.
    is_proven: bool,
}

impl Roster {
    /// A fleet before its first trial: indices, ascending, and names. Indices that are left out are nobody's.
    pub fn new(policy: LossPolicy, agents: impl IntoIterator<Item = (usize, String)>) -> Self {
        let (members, changes, shut_out, losses, cut_off, astray) = Default::default();
        let mut roster = Self { policy, members, lost: None, changes, shut_out, losses, cut_off, astray };
        for (index, name) in agents {
            roster.members.resize(index, Member { name: String::new(), is_there: false, is_proven: false });
            // One that is lost before the first load may come back for it, once.
            roster.members.push(Member { name, is_there: true, is_proven: true });
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

    /// An agent is about to be let go for this. Whom a moment cut off may come back, once; who is slow would be slow again.
    pub fn strays(&mut self, agent: &str, how: Strays) {
        let again = self.cut_off.iter().any(|before| before == agent);
        let out = match how {
            Strays::Slow => ShutOut::SlowAlone,
            Strays::CutOff if again => ShutOut::CutOffTwice,
            Strays::CutOff => return self.cut_off.push(agent.to_owned()),
        };
        self.astray.push((agent.to_owned(), out));
    }

    /// Whether agents may join now: between steps, where they can be dealt a part. Within a step nobody comes back, so that it is
    /// held no more often than there are agents to lose.
    pub fn may_join(&self, before: Occasion) -> bool {
        before == Occasion::NewStep && self.policy.hands == Hands::Anew && self.next_index().is_some()
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
        self.members.push(Member { name, is_there: true, is_proven: false });
    }

    /// An index was given to an agent that then could not take part.
    pub fn spoil_index(&mut self, name: String) {
        self.members.push(Member { name, is_there: false, is_proven: false });
    }

    /// A trial was held with everybody who is there, whatever became of it.
    pub fn held(&mut self) {
        self.members.iter_mut().filter(|member| member.is_there).for_each(|member| member.is_proven = true);
    }

    /// The agent with this index is gone. Who is gone already stays so. Why it does not come back, where it does not.
    pub fn lose(&mut self, index: usize, why: String) -> Option<ShutOut> {
        let member = self.members.get_mut(index).filter(|member| member.is_there)?;
        member.is_there = false;
        let (agent, is_proven) = (member.name.clone(), member.is_proven);
        self.lost.get_or_insert_with(|| (agent.clone(), why.clone()));
        self.losses.push(agent.clone());
        let losses = self.losses.iter().filter(|lost| **lost == agent).count();
        let strayed = self.astray.iter().find(|(astray, _)| *astray == agent).map(|&(_, out)| out);
        let out = match self.policy.comebacks {
            _ if strayed.is_some() => strayed,
            _ if !is_proven => Some(ShutOut::HeldNothing),
            Comebacks::Once if losses > 1 => Some(ShutOut::LostTwice),
            _ => None,
        };
        let why = out.map_or(why.clone(), |out| format!("{why}; {out}"));
        if out.is_some() {
            self.shut_out(agent.clone());
        }
        self.changes.push(FleetChange::Lost { agent, why });
        out
    }

    /// A box has shown that it cannot carry this.
    pub fn cap(&mut self, agent: String, share: Rate, ceiling: Rate, of: Asked) {
        self.changes.push(FleetChange::Capped { agent, share, ceiling, of });
    }

    /// Whether the run goes on. One that does has taken its losses: the same loss is not asked about again.
    pub fn decide(&mut self) -> Next {
        let Some((agent, why)) = self.lost.take() else { return Next::GoOn };
        let LossPolicy { min_agents, on_loss, hands, .. } = self.policy;
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
