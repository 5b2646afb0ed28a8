//! A whole run: asks the core which level comes next, has the fleet hold it, has it judged, and writes it down.

mod dealing;
mod find;
mod saving;

use std::fs::File;
use std::time::SystemTime;

use plimsoll_agent::clock::boottime_ns;
use plimsoll_agent::shell::{logs, panics};
use plimsoll_common::units::Rate;
use tokio::time::sleep;

use self::dealing::planned;
use super::Stop;
use super::backlog::{BacklogWatch, Recovery, Rest, wait_for_recovery};
use super::fleet::Admission;
use super::identity::RunIdentity;
use super::live::{Live, Now, Phase};
use super::local_agents::LocalAgents;
use super::losses::Crew;
use super::metrics::MetricsPage;
use super::minutes::MinuteLog;
use super::monitor::Monitor;
use super::muster::Muster;
use super::preflight::{Seen, streams_entered};
use super::progress::Progress;
pub use super::setup::Before;
use super::setup::{Dealt, Ready, dismiss, set_up};
use super::signals::Interrupt;
use super::trial::{Held, TrialOrder, hold};
use crate::core::answer::Ending;
use crate::core::backlog::{READ_DEADLINE, StreamGrowth};
use crate::core::measurement::StepMeasurement;
use crate::core::merge::ServiceReads;
use crate::core::ramp::{Astray, NextTrial, Ramp};
use crate::core::roster::{Next, Occasion, Strays};
use crate::core::search::Search;
use crate::core::search::outcome::Showing;
use crate::core::verdict::{Doubt, Verdict, judge, judge_as_one};
use crate::exit::Failure;
use crate::report::csv::CsvReport;
use crate::report::soak::Soak;
use crate::report::{Applied, RunReport, TrialReport, render, words};
use crate::results::write::RunWriter;
use crate::settings::{Goal, Phases, RunPlan};

/// Runs a plan to its end, whichever that is.
///
/// # Errors
/// It could not be set up; no load was started.
pub async fn run(plan: &RunPlan, before: Option<Before>, interrupt: Interrupt) -> Result<RunReport, Failure> {
    let mut identity = RunIdentity::draw().map_err(Failure::Incomplete)?;
    if let Some(before) = &before {
        // Its name stays, its nonce does not: an id that was used before would be taken for a duplicate.
        identity.run_id.clone_from(&before.run.header.run_id);
    }
    let live = Live::default();
    let mut crew = Crew::nobody(plan);
    let ready = tokio::select! {
        biased;
        () = interrupt.raised() => None,
        ready = set_up(plan, before.as_ref(), &identity, &live, &mut crew) => Some(ready?),
    };
    let Some(ready) = ready else {
        dismiss(plan, &identity, crew).await;
        return Ok(aborted(plan, before.as_ref(), &identity));
    };
    let mut run = Run::new(plan, crew, ready, Progress::on_stderr(live, plan.unit()), interrupt);
    match &before {
        Some(before) => run.take_over(before)?,
        None => run.save_head(&identity)?,
    }
    let ending = match &plan.find {
        None => run.climb().await,
        Some(find) => run.find(find).await,
    };
    let Closed { seen, trials, mut saved, search } = run.close().await;
    let mut report = RunReport { search, ..report(plan, &identity, seen, trials, ending) };
    if let Some(before) = before {
        report.applied = before.run.header.applied;
    }
    if let Some(saved) = &mut saved {
        match saved.end(&report.ending, &render(&report)) {
            Ok(()) if saved.is_whole() => logs::say(format_args!("saved in {}", saved.dir().display())),
            Ok(()) => {
                logs::say(format_args!("warning: {} holds no more than the run's beginning", saved.dir().display()))
            }
            Err(words) => logs::say(format_args!("warning: {words}")),
        }
    }
    Ok(report)
}

/// Interrupted before anything started.
fn aborted(plan: &RunPlan, before: Option<&Before>, identity: &RunIdentity) -> RunReport {
    match before {
        Some(before) => RunReport { ending: Ending::Aborted, ..before.run.report() },
        None => report(plan, identity, Vec::new(), Vec::new(), Ending::Aborted),
    }
}

fn report(
    plan: &RunPlan,
    identity: &RunIdentity,
    seen: Vec<Applied>,
    trials: Vec<TrialReport>,
    ending: Ending,
) -> RunReport {
    RunReport {
        run_id: identity.run_id.clone(),
        workload: plan.workload.name().to_owned(),
        preset: plan.workload.preset(),
        applied: plan.applied.iter().cloned().chain(seen).collect(),
        slo: plan.slo.clone(),
        trials,
        ending,
        search: None,
        explain: plan.find.as_ref().is_some_and(|find| find.explain),
        soak: (plan.goal == Goal::Soak).then(|| Soak { length: plan.phases.hold, minutes: Vec::new() }),
    }
}

struct Run<'a> {
    plan: &'a RunPlan,
    ramp: Ramp,
    crew: Crew,
    muster: Muster,
    local: Option<LocalAgents>,
    monitor: Monitor,
    csv: Option<CsvReport<File>>,
    _metrics: Option<MetricsPage>,
    dealt: Dealt,
    /// The backlogs before the first trial; what every later one must come back to.
    rest: Rest,
    progress: Progress,
    interrupt: Interrupt,
    seen: Seen,
    saved: Option<RunWriter>,
    trials: Vec<TrialReport>,
    search: Option<Search>,
    /// Of the trial of a search that was begun last, held or not.
    level_before: Option<Rate>,
    /// Levels at which somebody was let go for what it alone saw. Not kept for a run that is resumed: whom it let go is back there.
    excused: Vec<Rate>,
}

impl<'a> Run<'a> {
    fn new(plan: &'a RunPlan, crew: Crew, ready: Ready, progress: Progress, interrupt: Interrupt) -> Self {
        let Ready { muster, local, monitor, csv, metrics, dealt, seen, saved } = ready;
        let rest = Rest {
            durables: plan.target.durables.clone(),
            baselines: vec![None; plan.target.durables.len()],
            may_grow: plan.slo.may_grow.clone(),
            growth_limit: plan.slo.pending_growth,
            within: plan.find.as_ref().map_or(plan.target.recovery_limit, |find| find.drain_limit),
            flag: if plan.find.is_some() { "--drain-limit" } else { "--recovery-limit" },
        };
        // Hours of a soak are not held again for a moment that one agent was cut off.
        let astray = match plan.goal {
            Goal::MaxRps if plan.workload.pool().is_none() => Astray::LetGo,
            Goal::MaxRps | Goal::Soak => Astray::Stay,
        };
        let ramp = Ramp::new(&plan.steps, plan.on_trip, plan.trials, astray);
        let trials = Vec::new();
        Self {
            plan,
            ramp,
            crew,
            muster,
            local,
            monitor,
            csv,
            _metrics: metrics,
            dealt,
            rest,
            progress,
            interrupt,
            seen,
            saved,
            trials,
            search: None,
            level_before: None,
            excused: Vec::new(),
        }
    }

    /// Holds trial after trial until the ramp is over.
    async fn climb(&mut self) -> Ending {
        self.warn_of_deviation();
        while let Some(next) = self.next_affordable() {
            if let Err(stop) = self.hold_and_judge(next).await
                && let Some(ending) = self.end_unless_others_go_on(stop)
            {
                return ending;
            }
        }
        Ending::Completed
    }

    /// How the run ends; `None`: it goes on without those who were lost.
    fn end_unless_others_go_on(&mut self, stop: Stop) -> Option<Ending> {
        let words = match stop {
            Stop::Interrupted => return Some(Ending::Aborted),
            Stop::Failed(why) => return Some(Ending::Failed(why)),
            Stop::Lost(error) => error.to_string(),
        };
        // Whoever is left works in the process that a bug of ours has just shown itself in.
        if panics::first().is_some() {
            return Some(Ending::Failed(words));
        }
        let Some(next) = self.crew.take_lost(|words| self.progress.say(words)) else {
            return Some(Ending::Failed(words));
        };
        // What was dealt was dealt to somebody else.
        self.dealt.shares.clear();
        match next {
            Next::GoOn => None,
            Next::End { agent, why, because } => {
                Some(Ending::Failed(format!("agent {agent} was lost: {why}; {because}")))
            }
        }
    }

    /// Takes in who is wanted and was not there for the last step.
    async fn muster(&mut self, before: Occasion) -> Result<(), Stop> {
        if !self.crew.roster.may_join(before) {
            return Ok(());
        }
        let asked = tokio::select! {
            biased;
            () = self.interrupt.raised() => return Err(Stop::Interrupted),
            asked = self.muster.rejoin(&mut self.crew.fleet, &mut self.crew.roster) => asked,
        };
        for (agent, admission) in asked {
            match admission {
                Admission::Joined => {
                    self.progress.say(&format!("agent {agent} joined"));
                    self.dealt.shares.clear();
                }
                Admission::Unfit(why) => self
                    .progress
                    .say(&format!("warning: agent {agent} does not join, and is not asked again in this run: {why}")),
                Admission::Absent => {}
            }
        }
        Ok(())
    }

    /// The next trial; not a repeat that would leave too little for the steps to come.
    fn next_affordable(&mut self) -> Option<NextTrial> {
        let next = self.ramp.next_trial()?;
        if next.trial.trial == 0 || self.can_hold(&self.ramp.to_come(), self.plan.phases) {
            return Some(next);
        }
        self.progress.say(&format!(
            "warning: {}/s is not repeated: what the workload {} uses up lasts for the other steps only",
            next.level,
            self.plan.workload.name()
        ));
        self.ramp.repeat_no_more();
        self.ramp.next_trial()
    }

    async fn hold_and_judge(&mut self, next: NextTrial) -> Result<(), Stop> {
        self.muster(Occasion::before(next.trial)).await?;
        let shares = self.shares(next.level)?;
        self.deal_for(&shares).await?;
        let recovery = self.recover(next).await?;
        let measured = self.hold(next, &shares, &recovery, self.plan.phases, None).await?;
        let Measured { step, reads, started_at, interrupted, .. } = measured;
        let judge = if self.excused.contains(&next.level) { judge_as_one } else { judge };
        let (verdict, capped) = self.learn(&step, judge(&step, &self.plan.slo));
        self.ramp.record(verdict);
        let judged = self.ramp.trials().last().expect("a verdict was just recorded").clone();
        self.let_go(&judged.verdict, next.level);
        self.write_down(judged, step, reads, started_at, &recovery)?;
        self.cap(capped);
        if interrupted {
            return Err(Stop::Interrupted);
        }
        if let Some(lost) = self.crew.fleet.first_gone() {
            return Err(lost.into());
        }
        if self.ramp.next_trial().is_some() {
            self.cool_down(next).await?;
        }
        Ok(())
    }

    /// Holds agents for lost that alone did not reach the target as the others did. Whether there are any.
    fn let_go(&mut self, verdict: &Verdict, level: Rate) -> bool {
        let astray = self.ramp.to_let_go(verdict);
        for (agent, doubt) in &astray {
            let names = self.crew.fleet.names();
            let Some(position) = names.iter().position(|(_, name)| name == agent) else { continue };
            self.crew.fleet.give_up_on(position, words::doubt(doubt));
            let is_slow = matches!(doubt, Doubt::SlowAlone { .. });
            self.crew.roster.strays(agent, if is_slow { Strays::Slow } else { Strays::CutOff });
            if is_slow {
                self.excused.push(level);
            }
        }
        !astray.is_empty()
    }

    /// Waits until nobody who was lost can send any more, and the service's backlogs are back at what they were before the first
    /// trial.
    async fn recover(&mut self, next: NextTrial) -> Result<Recovery, Stop> {
        let steps = self.plan.steps_to_hold();
        self.progress.update(Now::idle(next, steps, Phase::Recovery, self.rest.within));
        let silent_in = self.crew.silent_in(boottime_ns());
        let recovery = tokio::select! {
            biased;
            () = self.interrupt.raised() => return Err(Stop::Interrupted),
            lost = self.crew.fleet.lost() => return Err(lost.into()),
            recovery = async {
                sleep(silent_in).await;
                wait_for_recovery(&self.monitor, &self.rest).await
            } => recovery.map_err(Stop::Failed)?,
        };
        for (baseline, state) in self.rest.baselines.iter_mut().zip(&recovery.states) {
            let total = || state.as_ref()?.backlog().map(|backlog| backlog.total());
            // What was still draining as the run began is no rest.
            *baseline = [*baseline, total()].into_iter().flatten().min();
        }
        Ok(recovery)
    }

    async fn hold(
        &mut self,
        next: NextTrial,
        shares: &[Rate],
        recovery: &Recovery,
        phases: Phases,
        most_open: Option<u64>,
    ) -> Result<Measured, Stop> {
        let streams = streams_entered(&self.plan.workload);
        let before = self.last_sequences(&streams).await;
        let durables = self.plan.target.durables.clone();
        let watch = BacklogWatch::start(self.monitor.clone(), durables, phases.hold);
        let order = TrialOrder { plan: self.plan, next, shares, phases, most_open, search: self.search.as_ref() };
        let mut minutes = MinuteLog::new(self.csv.as_mut(), self.saved.as_mut());
        let Held { merge, started_at, hold_start_ns, stopped, interrupted, released } =
            hold(&mut self.crew.fleet, &order, &watch, &mut self.progress, &self.interrupt, &mut minutes).await?;
        if let Some(budget) = &mut self.dealt.budget {
            let planned: Vec<u64> = planned(next.level, shares, phases).collect();
            match stopped {
                Some(_) => budget.take_of_stopped(&planned, &released),
                None => budget.take(&planned),
            }
        }
        let after = self.last_sequences(&streams).await;
        let growth = |((stream, before), after): ((String, Option<u64>), Option<u64>)| {
            Some(StreamGrowth { stream, messages: after?.saturating_sub(before?) })
        };
        let reads = ServiceReads {
            durables: watch.finish(&recovery.states, hold_start_ns),
            streams: streams.into_iter().zip(before).zip(after).filter_map(growth).collect(),
        };
        let (completed_per_second, ended) = (merge.completed_per_second(), merge.ended_per_block().to_vec());
        let step = merge.finish(&reads);
        Ok(Measured { step, reads, started_at, stopped, interrupted, completed_per_second, ended })
    }

    /// The number of each stream's newest message; `None` where it cannot be read, which only costs a note.
    async fn last_sequences(&self, streams: &[String]) -> Vec<Option<u64>> {
        let (streams, _) = self.monitor.look(streams, &[], READ_DEADLINE).await;
        streams.into_iter().map(|stream| Some(stream.ok()??.state.last_seq)).collect()
    }

    async fn cool_down(&mut self, next: NextTrial) -> Result<(), Stop> {
        let cooldown = self.plan.phases.cooldown;
        self.progress.update(Now::idle(next, self.plan.steps_to_hold(), Phase::Cooldown, cooldown));
        tokio::select! {
            biased;
            () = self.interrupt.raised() => Err(Stop::Interrupted),
            lost = self.crew.fleet.lost() => Err(lost.into()),
            () = sleep(cooldown) => Ok(()),
        }
    }

    /// Lets the agents go. What the report needs is left.
    async fn close(self) -> Closed {
        self.progress.finish();
        self.crew.fleet.release().await;
        if let Some(local) = self.local {
            local.stop().await;
        }
        Closed { seen: self.seen.applied, trials: self.trials, saved: self.saved, search: self.search }
    }
}

/// What is left of a run whose agents are gone.
struct Closed {
    seen: Vec<Applied>,
    trials: Vec<TrialReport>,
    saved: Option<RunWriter>,
    search: Option<Search>,
}

/// A trial of which everything is known but the verdict.
struct Measured {
    step: StepMeasurement,
    reads: ServiceReads,
    started_at: SystemTime,
    /// What it had shown when it was stopped early on purpose.
    stopped: Option<Showing>,
    /// By SIGINT or SIGTERM, in a soak.
    interrupted: bool,
    completed_per_second: Option<f64>,
    /// Operations that completed in each block, whenever they set out.
    ended: Vec<u64>,
}
