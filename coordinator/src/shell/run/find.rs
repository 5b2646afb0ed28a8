//! A run that searches: asks the search for its next trial, has the fleet hold it, and tells what it showed.

use std::time::Duration;

use plimsoll_common::plan::TrialId;
use plimsoll_common::units::Rate;
use tokio::time::{Instant, sleep};

use super::{Measured, Run};
use crate::core::answer::Ending;
use crate::core::backlog::Fate;
use crate::core::budget::Short;
use crate::core::non_empty::NonEmpty;
use crate::core::ramp::{JudgedTrial, NextTrial};
use crate::core::roster::Occasion;
use crate::core::search::measured::{self, Due};
use crate::core::search::outcome::TrialOutcome;
use crate::core::search::plan::{Lengths, Levels, PROBE_OPEN, SHOWS_BOXES, SearchPlan};
use crate::core::search::slope::{longest_undisturbed, slope};
use crate::core::search::trail::{self, TrailRecord, Why};
use crate::core::search::{Search, Step};
use crate::core::verdict::{Verdict, alone, judge, judge_as_one, no_pass};
use crate::report::search::trail_line;
use crate::report::words;
use crate::settings::{FindPlan, Phases};
use crate::shell::{Stop, users};

impl Run<'_> {
    /// Holds trial after trial until the search is over.
    pub(super) async fn find(&mut self, find: &FindPlan) -> Ending {
        self.warn_of_deviation();
        // One that was taken over from a saved run goes on where its trail ends.
        if self.search.is_none() {
            let search = Search::new(self.search_plan(find));
            self.keep(&TrailRecord::Plan(Box::new(search.plan().clone())));
            self.search = Some(search);
        }
        loop {
            let next = match self.search.as_ref().map(Search::next) {
                Some(Step::Hold(trial)) => *trial,
                _ => return Ending::Completed,
            };
            let phases = Phases { warmup: next.settle, hold: next.hold, cooldown: Duration::ZERO };
            if let Some(Short { needed, left, .. }) = self.short_of(&[next.level], phases) {
                self.keep(&TrailRecord::UsedUp { needed, left });
                self.search.as_mut().expect("a search is under way").use_up(needed, left);
                continue;
            }
            let (began, recorded) = (Instant::now(), self.recorded());
            if let Err(stop) = self.try_level(next).await {
                if let Some(ending) = self.end_unless_others_go_on(stop) {
                    return ending;
                }
                if self.recorded() == recorded {
                    let took = began.elapsed();
                    self.keep(&TrailRecord::NotHeld { took });
                    self.search.as_mut().expect("a search is under way").not_held(took);
                }
            }
        }
    }

    /// How many trials the search has the outcome of.
    fn recorded(&self) -> usize {
        self.search.as_ref().map_or(0, |search| search.trail().len())
    }

    fn search_plan(&self, find: &FindPlan) -> SearchPlan {
        let (levels, highest) = users::levels_to_search(self.plan, &self.crew.fleet.capacities());
        let slo = &self.plan.slo;
        // Requests of people have limits of their own, and it is messages that an overload shows in.
        let shows = if levels == Levels::Rates { slo.tightest_limit() } else { slo.slowest_tightest_limit() };
        let lengths = Lengths::for_limit(shows, find.precision);
        SearchPlan {
            from: find.from,
            highest,
            precision: find.precision,
            confidence: find.confidence,
            max_time: find.max_time,
            limits: measured::limits(&self.plan.slo, &self.plan.target.durables),
            frontier: find.frontier,
            lengths: Lengths { soak: lengths.soak.min(whole_seconds(find.max_time / 4)), ..lengths },
            levels,
        }
    }

    async fn try_level(&mut self, next: trail::NextTrial) -> Result<(), Stop> {
        let began = Instant::now();
        let trial = NextTrial { trial: TrialId { step: next.number, trial: 0 }, level: next.level };
        // A level is this search's step: while it is held again nobody joins.
        let before = if self.level_before.replace(next.level) == Some(next.level) {
            Occasion::Repeat
        } else {
            Occasion::NewStep
        };
        self.muster(before).await?;
        // Who is left when others are lost may not carry what all did.
        let (_, highest) = users::levels_to_search(self.plan, &self.crew.fleet.declared());
        if let Some(highest) = highest.filter(|&highest| next.level > highest) {
            self.keep(&TrailRecord::Highest { highest });
            self.search.as_mut().expect("a search is under way").lower_highest(highest);
            return Ok(());
        }
        let shares = self.shares(next.level)?;
        self.deal_for(&shares).await?;
        let recovery = self.recover(trial).await?;
        let phases = Phases { warmup: next.settle, hold: next.hold, cooldown: Duration::ZERO };
        let open = matches!(next.why, Why::Probe).then_some(PROBE_OPEN);
        let measured = self.hold(trial, &shares, &recovery, phases, open).await?;
        let verdict = self.judge_level(next.level, &measured);
        let shows_boxes = measured.stopped.is_none() && next.hold >= SHOWS_BOXES;
        let (verdict, capped) = if shows_boxes { self.learn(&measured.step, verdict) } else { (verdict, Vec::new()) };
        let mut outcome = self.outcome(&next, &measured);
        if let Some((_, doubt)) = verdict.astray().first() {
            outcome.fault.get_or_insert_with(|| words::doubt(doubt));
        }
        outcome.lost_an_agent = self.let_go(&verdict, next.level) || verdict.lost_an_agent();
        let judged = JudgedTrial { trial: trial.trial, level: next.level, verdict };
        // Where the others cannot carry the level either, another trial of it shows no more.
        outcome.boxes_get_less =
            !capped.is_empty() && self.plan.split(next.level, &self.crew.fleet.capacities()).is_ok();
        if measured.stopped.is_some() {
            self.let_it_drain(&next, &outcome).await?;
        }
        outcome.took = began.elapsed();
        let Measured { step, reads, started_at, .. } = measured;
        self.write_down(judged, step, reads, started_at, &recovery)?;
        self.cap(capped);
        self.keep(&TrailRecord::Outcome(Box::new(outcome.clone())));
        let search = self.search.as_mut().expect("a search is under way");
        search.record(&outcome);
        let line = search.trail().last().map(|entry| trail_line(entry, search.plan()));
        self.progress.say(&line.unwrap_or_default());
        self.crew.fleet.first_gone().map_or(Ok(()), |lost| Err(lost.into()))
    }

    /// Says what a trial shows of its level. Also of one that was stopped, for what agents alone saw broken.
    fn judge_level(&self, level: Rate, measured: &Measured) -> Verdict {
        let (step, slo) = (&measured.step, &self.plan.slo);
        if self.excused.contains(&level) {
            return judge_as_one(step, slo);
        }
        match judge(step, slo) {
            Verdict::Inconclusive(doubts) if measured.stopped.is_some() => {
                Verdict::Inconclusive(alone(step, slo).into_iter().fold(doubts, NonEmpty::and))
            }
            verdict => verdict,
        }
    }

    fn keep(&mut self, record: &TrailRecord) {
        let Some(saved) = &mut self.saved else { return };
        if let Err(words) = saved.trail(record) {
            self.progress.say(&format!("warning: {words}"));
        }
    }

    fn outcome(&self, next: &trail::NextTrial, measured: &Measured) -> TrialOutcome {
        let slo = &self.plan.slo;
        let load = self.search.as_ref().and_then(Search::steady_load);
        let whole = || {
            let due = load.and_then(|load| Due::at(load, &measured.step.blocks));
            let durables = measured.reads.durables.iter();
            let reads = durables.map(|durable| measured::reads(&durable.reads, next.hold, due.as_ref()));
            measured::showing(&measured.step, slo, reads.collect())
        };
        let showing = measured.stopped.clone().unwrap_or_else(whole);
        let vanished =
            |backlog: &crate::core::backlog::DurableBacklog| matches!(backlog.fate, Fate::Gone | Fate::Recreated);
        let held = match &measured.stopped {
            Some(showing) => plimsoll_common::plan::BLOCK * showing.blocks.len() as u32,
            None => next.hold,
        };
        // A durable that falls behind does what came in less what stayed.
        let slopes = &self.search.as_ref().expect("a search is under way").plan().limits.slopes;
        let limiting = (0..slopes.len()).filter(|&durable| slopes[durable].is_limit());
        let behind = limiting.filter_map(|durable| slope(longest_undisturbed(&showing, durable))).fold(0.0, f64::max);
        let is_rate = self.plan.workload.daily().is_none();
        let kept_up = |completed: f64| match next.why {
            Why::Probe => completed - behind,
            _ => completed.min(next.level.as_f64() - behind),
        };
        TrialOutcome {
            // What people do together says nothing of how many messages of theirs are carried.
            served: measured.completed_per_second.filter(|_| is_rate).map(kept_up).filter(|served| *served > 0.0),
            behind: measured::behind(&showing, &measured.ended),
            boxes_get_less: false,
            lost_an_agent: false,
            vanished: (0..measured.step.backlog.len()).filter(|&i| vanished(&measured.step.backlog[i])).collect(),
            fault: measured::fault(&measured.step, slo, measured.stopped.is_some()),
            // A probe asks for all that there is, and whatever leaves is what it shows.
            unproved: match next.why {
                Why::Probe => None,
                _ => no_pass(&measured.step, slo).map(|doubt| words::doubt(&doubt)),
            },
            load: next.settle + held,
            took: Duration::ZERO,
            showing,
        }
    }

    /// What a stopped trial left at the service shows in no backlog where it waits in front of the first stream: it gets
    /// the time that it needs at the rate that the service showed.
    async fn let_it_drain(&self, next: &trail::NextTrial, outcome: &TrialOutcome) -> Result<(), Stop> {
        let excess = outcome.served.map_or(1.0, |served| (next.level.as_f64() / served - 1.0).max(0.0));
        let needed = outcome.load.mul_f64(excess.min(4.0)) + Duration::from_millis(200);
        tokio::select! {
            biased;
            () = self.interrupt.raised() => Err(Stop::Interrupted),
            () = sleep(needed.min(self.rest.within)) => Ok(()),
        }
    }
}

fn whole_seconds(length: Duration) -> Duration {
    Duration::from_secs(length.as_secs().max(1))
}
