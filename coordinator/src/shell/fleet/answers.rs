//! What agents answer to an order that each of them was given.

use std::time::Duration;

use plimsoll_common::plan::TrialId;
use tokio::time::{Instant, timeout_at};

use super::{AgentEvent, Fleet, FleetError, Refusal};
use crate::core::non_empty::NonEmpty;

/// How long others are listened to once one of them cannot do what was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// Until each has answered, or what was asked is wrong: nothing more is asked of anybody then.
    UntilWrong,
    /// Until each has answered: whoever is in the middle of an order takes no other.
    UntilAll,
}

/// An agent's answer, or why it gives none; `None`: it has not answered by now.
pub(super) type Heard<T> = Option<Result<T, FleetError>>;

/// Why a trial did not start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotArmed {
    /// These heard of it too late, by position. Nothing else is wrong.
    TooLate(Vec<usize>),
    /// Agents are missing, or refuse it.
    Trouble(NonEmpty<FleetError>),
}

impl Fleet {
    /// What each agent from this position on answers until then; what else they send meanwhile belongs to what is over and is
    /// dropped. Of the others only a loss is heard, and kept for whoever asks next.
    pub(super) async fn hear<T>(
        &mut self,
        position: usize,
        what: &'static str,
        deadline: Instant,
        patience: Patience,
        pick: impl FnMut(AgentEvent) -> Option<T>,
    ) -> Vec<Heard<T>> {
        let heard = self.members[position..].iter().map(|_| None).collect();
        self.hear_more(position, heard, what, deadline, patience, pick).await
    }

    /// The same with what was heard so far. Who is in trouble stays so, whatever it says.
    async fn hear_more<T>(
        &mut self,
        position: usize,
        mut heard: Vec<Heard<T>>,
        what: &'static str,
        deadline: Instant,
        patience: Patience,
        mut pick: impl FnMut(AgentEvent) -> Option<T>,
    ) -> Vec<Heard<T>> {
        loop {
            for (member, heard) in self.members[position..].iter().zip(&mut heard) {
                if let (Some(why), None | Some(Ok(_))) = (&member.gone, &heard) {
                    *heard = Some(Err(FleetError::Lost { agent: member.session.name.clone(), why: why.clone() }));
                }
            }
            if heard.iter().all(Option::is_some) || is_over(&heard, patience) {
                return heard;
            }
            let Ok((agent, event)) = timeout_at(deadline, self.next_event()).await else { return heard };
            let Some(place) = agent.checked_sub(position) else { continue };
            if matches!(heard[place], Some(Err(_))) {
                continue;
            }
            match event {
                AgentEvent::Refused { words, kind } => {
                    let agent = self.name(agent).to_owned();
                    heard[place] = Some(Err(FleetError::Refused { agent, what, words, kind }));
                }
                event => {
                    if let Some(answer) = pick(event) {
                        heard[place] = Some(Ok(answer));
                    }
                }
            }
        }
    }

    /// Waits until every agent says that it is armed for a trial that starts in `lead`. Where one does not in time, the trial is
    /// stopped before it begins, and over everywhere when this returns: whoever does not say so within `limit` is given up.
    ///
    /// # Errors
    /// Who heard of it too late, and otherwise does well; or every trouble of another kind.
    pub async fn armed(&mut self, trial: TrialId, lead: Duration, limit: Duration) -> Result<(), NotArmed> {
        const WHAT: &str = "start the step";
        // So early that the word to stop arrives before the start.
        let in_time = Instant::now() + lead - lead / 4;
        let armed = |event| matches!(event, AgentEvent::Armed(armed) if armed == trial).then_some(());
        let heard = self.hear(0, WHAT, in_time, Patience::UntilAll, armed).await;
        if heard.iter().all(|heard| matches!(heard, Some(Ok(())))) {
            return Ok(());
        }
        self.stop(trial);
        let silent: Vec<bool> = heard.iter().map(Option::is_none).collect();
        // Who refused has nothing to end. Who is armed says how it ended, and whoever has yet to hear of it will say one or the other.
        let begun = heard.into_iter().map(|heard| heard.filter(Result::is_err)).collect();
        let over = |event| matches!(event, AgentEvent::Totals(totals) if totals.trial == trial).then_some(());
        let ended = self.hear_more(0, begun, WHAT, Instant::now() + limit, Patience::UntilAll, over).await;
        let is_late =
            |ended: &Heard<()>| matches!(ended, Some(Err(FleetError::Refused { kind: Refusal::TooLate, .. })));
        let late = |(agent, (ended, silent)): (usize, (&Heard<()>, bool))| {
            (is_late(ended) || (silent && matches!(ended, Some(Ok(()))))).then_some(agent)
        };
        let late = ended.iter().zip(silent).enumerate().filter_map(late).collect();
        let ended = ended.into_iter().map(|ended| if is_late(&ended) { Some(Ok(())) } else { ended }).collect();
        match self.every(0, ended, WHAT, lead + limit, Patience::UntilAll) {
            Ok(_) => Err(NotArmed::TooLate(late)),
            Err(troubles) => Err(NotArmed::Trouble(troubles)),
        }
    }

    /// Every answer, or every trouble by position. Who had all the time there was and has not answered is given up.
    pub(super) fn every<T>(
        &mut self,
        position: usize,
        heard: Vec<Heard<T>>,
        what: &'static str,
        within: Duration,
        patience: Patience,
    ) -> Result<Vec<T>, NonEmpty<FleetError>> {
        let had_its_time = !is_over(&heard, patience);
        let (mut answers, mut troubles) = (Vec::new(), Vec::new());
        for (place, heard) in heard.into_iter().enumerate() {
            match heard {
                Some(Ok(answer)) => answers.push(answer),
                Some(Err(trouble)) => troubles.push(trouble),
                None if had_its_time => troubles.push(self.no_answer(position + place, what, within)),
                None => {}
            }
        }
        NonEmpty::new(troubles).map_or(Ok(answers), Err)
    }
}

/// Whether nobody is listened to any more although some have not answered.
fn is_over<T>(heard: &[Heard<T>], patience: Patience) -> bool {
    let is_wrong = |heard: &Heard<T>| matches!(heard, Some(Err(trouble)) if !trouble.is_a_loss());
    patience == Patience::UntilWrong && heard.iter().any(is_wrong)
}

#[cfg(test)]
mod tests;
