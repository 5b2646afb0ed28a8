//! Writing a run down as it goes, and taking over what an earlier one wrote.

use std::time::SystemTime;

use super::{Before, Run, Stop};
use crate::core::intervals::not_excluded;
use crate::core::measurement::StepMeasurement;
use crate::core::merge::ServiceReads;
use crate::core::ramp::JudgedTrial;
use crate::core::roster::FleetChange;
use crate::core::verdict::Verdict;
use crate::exit::Failure;
use crate::report::{TrialReport, words};
use crate::results::write::RunWriter;
use crate::results::{FORMAT, Header, RunKind, SavedTrial};
use crate::settings::Goal;
use crate::shell::backlog::Recovery;
use crate::shell::identity::RunIdentity;

impl Run<'_> {
    /// Writes what the run is, before its first load.
    pub(super) fn save_head(&mut self, identity: &RunIdentity) -> Result<(), Failure> {
        let Some(saved) = &mut self.saved else { return Ok(()) };
        let started = SystemTime::now();
        let header = Header {
            format: FORMAT,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            kind: match self.plan.goal {
                Goal::MaxRps if self.plan.find.is_some() => RunKind::Find,
                Goal::MaxRps => RunKind::Steps,
                Goal::Soak => RunKind::Soak,
            },
            run_id: identity.run_id.clone(),
            started_at: humantime::format_rfc3339_millis(started).to_string(),
            workload: self.plan.workload.name().to_owned(),
            preset: self.plan.workload.preset(),
            settings: self.plan.settings.clone(),
            applied: self.plan.applied.iter().chain(&self.seen.applied).cloned().collect(),
            slo: self.plan.slo.clone(),
            target: self.seen.configuration.clone(),
        };
        saved.begin(header, started).map_err(|error| Failure::Usage(format!("--results: {error}")))
    }

    /// Takes the trials that were held before as its own, and what their backlogs had to come back to.
    pub(super) fn take_over(&mut self, before: &Before) -> Result<(), Failure> {
        let trials = &before.run.trials;
        let damaged = |words: String| {
            Failure::Usage(format!("'{}' is damaged or of another release: {words}", before.dir.display()))
        };
        if self.plan.find.is_some() {
            // A trail without its plan is one of a search that had not begun.
            self.search = before.run.search();
            if self.search.is_none() && !trials.is_empty() {
                return Err(damaged("its trail does not fit its trials".into()));
            }
        } else {
            let replayed = self.ramp.replay(trials.iter().map(|trial| trial.report.judged.clone()));
            replayed.map_err(|error| damaged(error.to_string()))?;
        }
        // What boxes had shown: asked for more again, each would cost a trial again.
        for change in trials.iter().flat_map(|trial| &trial.report.fleet) {
            let FleetChange::Capped { agent, ceiling, .. } = change else { continue };
            if let Some(position) = self.crew.fleet.names().iter().position(|(_, name)| name == agent) {
                self.crew.fleet.cap(position, self.plan.rate_of(*ceiling));
            }
        }
        for (name, baseline) in self.rest.durables.iter().zip(&mut self.rest.baselines) {
            let reads = trials.iter().flat_map(|trial| &trial.reads.durables).filter(|reads| reads.name == *name);
            *baseline = reads.filter_map(|reads| Some(reads.baseline.as_ref()?.backlog()?.total())).min();
        }
        self.trials = trials.iter().map(|trial| trial.report.clone()).collect();
        let saved = self.saved.as_mut().map_or(Ok(()), RunWriter::resumed);
        saved.map_err(|error| Failure::Usage(error.to_string()))
    }

    /// At once, so that a later error loses nothing.
    pub(super) fn write_down(
        &mut self,
        judged: JudgedTrial,
        measurement: StepMeasurement,
        reads: ServiceReads,
        started_at: SystemTime,
        recovery: &Recovery,
    ) -> Result<(), Stop> {
        let passed = judged.verdict == Verdict::Pass;
        self.crew.roster.held();
        let trial = TrialReport {
            not_excluded: if passed { not_excluded(&measurement, &self.plan.slo) } else { None },
            judged,
            measurement,
            started_at: humantime::format_rfc3339_millis(started_at).to_string(),
            recovery: recovery.took,
            fleet: self.crew.roster.take_changes(),
            deal: (self.dealt.summary.rooms > 0).then_some(self.dealt.summary),
        };
        let warmup = self.search.as_ref().map_or(self.plan.phases.warmup, |search| search.plan().lengths.settle);
        if let Some(saved) = &mut self.saved {
            let trial = SavedTrial { report: trial.clone(), reads };
            if let Err(words) = saved.trial(trial, started_at + warmup) {
                self.progress.say(&format!("warning: {words}"));
            }
        }
        // After it was saved: who reads this may end the process.
        if self.search.is_none() {
            self.progress.say(&verdict_line(&trial, self.plan.steps.rates().len(), self.plan.unit()));
        }
        let row = self.csv.as_mut().map_or(Ok(()), |csv| csv.row(&trial));
        self.trials.push(trial);
        row.map_err(|error| Stop::Failed(format!("--csv: {error}")))
    }
}

fn verdict_line(trial: &TrialReport, steps: usize, unit: &str) -> String {
    let judged = &trial.judged;
    let reasons = words::reasons(&judged.verdict);
    let reasons = if reasons.is_empty() { String::new() } else { format!(": {}", reasons.join("; ")) };
    format!(
        "step {}/{steps} {}{unit} {}, achieved {:.1}/s{reasons}",
        judged.trial.step + 1,
        crate::report::table::level(trial),
        judged.verdict.word(),
        trial.measurement.achieved_rate(),
    )
}
