//! The search for the largest level, as a state machine: it says which trial to hold, is told what that showed, and ends
//! with an interval that was measured at both ends. It is deterministic: the same outcomes lead to the same trials.
//!
//! In order: [`bracket`] climbs and bisects by the [`hint`]s of short trials, [`confirm`] compares two levels on a [`grid`]
//! until one passes and the other trips, by the [`evidence`] [`pool`]ed over their visits (with [`statistics`],
//! [`episodes`] and [`slope`]), a soak has the last word, and [`conclusion`] says what it came to. The [`trail`] keeps it all.

pub mod behind;
pub mod bracket;
pub mod conclusion;
pub mod confirm;
pub mod episodes;
pub mod estimate;
pub mod evidence;
pub mod grid;
pub mod hint;
pub mod measured;
pub mod outcome;
pub mod plan;
pub mod pool;
pub mod slope;
pub mod statistics;
pub mod trail;

use std::time::Duration;

use plimsoll_common::plan::BLOCK;
use plimsoll_common::units::Rate;

use self::bracket::{Bracket, Look, begin_below};
use self::conclusion::{Broken, Conclusion, FrontierEntry, PassedLevel, SearchDoubt, Thin, TrippedLevel};
use self::confirm::{Confirm, Judge, Move, implied, is_promising};
use self::estimate::{Estimate, time_to_precision};
use self::evidence::{Judgement, PASS_BLOCKS};
use self::grid::Pair;
use self::hint::{Hint, cannot_pass, hint, is_hopeless};
use self::outcome::{Showing, TrialOutcome};
use self::plan::{Levels, PROBE_HOLD, SearchPlan, blocks};
use self::pool::{Pool, Soak};
use self::statistics::Quantiles;
use self::trail::{Bound, Bounds, NextTrial, Outcome, TrailEntry, TrailRecord, Why};

/// A search under way.
#[derive(Debug, Clone, PartialEq)]
pub struct Search {
    plan: SearchPlan,
    quantiles: Quantiles,
    pool: Pool,
    stage: Stage,
    /// The stages behind this one, each a limit of its own.
    to_come: Vec<usize>,
    frontier: Vec<FrontierEntry>,
    main: Option<Conclusion>,
    /// Set while the level that looked best is soaked although the search is over: why it is.
    last_soak: Option<SearchDoubt>,
    contradictions: u32,
    /// Trials in a row that could not be trusted.
    faults: u32,
    spent: Duration,
    load: Duration,
    trail: Vec<TrailEntry>,
    next: Step,
}

/// What to do now.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Hold this trial.
    Hold(NextTrial),
    /// The search is over.
    Done(Box<Conclusion>),
}

/// The search for one set of limits.
#[derive(Debug, Clone, PartialEq)]
struct Stage {
    /// By position.
    focus: Vec<usize>,
    bracket: Bracket,
    confirm: Option<Confirm>,
    /// The answer is soaked: not on the frontier.
    soaks: bool,
}

/// Trials in a row that may not be trusted, those apart in which agents were lost: who is left goes on without them.
const MOST_FAULTS: u32 = 3;
/// The last hold of a search that is short of time: enough for a PASS at a level that was not visited, and for a void second or two.
const SHORTEST_LAST: Duration = Duration::from_secs(PASS_BLOCKS as u64 / 2 + 2);
/// What a trial costs beside its load: arming, drain, and reading the backlog twice.
const OVERHEAD: Duration = Duration::from_secs(1);

impl Search {
    /// A search before its first trial.
    pub fn new(plan: SearchPlan) -> Self {
        let focus: Vec<usize> = (0..plan.limits.len()).collect();
        let stage = Stage { focus, bracket: Bracket::default(), confirm: None, soaks: true };
        let (why, hold) = match plan.from {
            Some(_) => (Why::First, plan.lengths.climb),
            None => (Why::Probe, PROBE_HOLD),
        };
        let first = NextTrial { number: 0, level: plan.first_level(), why, settle: plan.lengths.settle, hold };
        Self {
            quantiles: Quantiles::new(plan.alpha()),
            pool: Pool::default(),
            stage,
            to_come: Vec::new(),
            frontier: Vec::new(),
            main: None,
            last_soak: None,
            contradictions: 0,
            faults: 0,
            spent: Duration::ZERO,
            load: Duration::ZERO,
            trail: Vec::new(),
            next: Step::Hold(first),
            plan,
        }
    }

    /// A search that has come as far as its records say; `None` where they do not begin with a plan, or say more than the
    /// search asked for.
    pub fn replay(records: impl IntoIterator<Item = TrailRecord>) -> Option<Self> {
        let mut records = records.into_iter();
        let TrailRecord::Plan(plan) = records.next()? else { return None };
        let mut search = Self::new(*plan);
        for record in records {
            match (record, &search.next) {
                (TrailRecord::Outcome(outcome), Step::Hold(_)) => search.record(&outcome),
                (TrailRecord::NotHeld { took }, Step::Hold(_)) => search.not_held(took),
                (TrailRecord::Highest { highest }, Step::Hold(_)) => search.lower_highest(highest),
                (TrailRecord::UsedUp { needed, left }, Step::Hold(_)) => search.use_up(needed, left),
                _ => return None,
            }
        }
        Some(search)
    }

    /// What to do now. Says the same until an outcome is recorded.
    pub fn next(&self) -> &Step {
        &self.next
    }

    /// What was asked.
    pub fn plan(&self) -> &SearchPlan {
        &self.plan
    }

    /// Every trial so far.
    pub fn trail(&self) -> &[TrailEntry] {
        &self.trail
    }

    /// What it came to, once it is over.
    pub fn conclusion(&self) -> Option<&Conclusion> {
        match &self.next {
            Step::Hold(_) => None,
            Step::Done(conclusion) => Some(conclusion),
        }
    }

    /// What the search for the answer itself came to, also while the frontier is still looked for, which is then as far as it is
    /// known.
    pub fn concluded(&self) -> Option<Conclusion> {
        let so_far = || {
            let main = self.main.clone()?;
            Some(Conclusion { frontier: self.frontier.clone(), load: self.load, spent: self.spent, ..main })
        };
        self.conclusion().cloned().or_else(so_far)
    }

    /// How often levels contradicted each other so far.
    pub fn contradictions(&self) -> u32 {
        self.contradictions
    }

    /// Load that was sent so far.
    pub fn load(&self) -> Duration {
        self.load
    }

    /// All the time that it took so far.
    pub fn spent(&self) -> Duration {
        self.spent
    }

    /// Every level that was visited.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Whether the trial under way need not go on, by what it has shown so far.
    pub fn may_stop(&self, so_far: &Showing) -> bool {
        let Step::Hold(trial) = &self.next else { return true };
        let (limits, focus) = (&self.plan.limits, &self.stage.focus);
        let planned = blocks(trial.hold);
        match trial.why {
            Why::First | Why::Climb | Why::Descend | Why::Capacity { .. } | Why::Bisect => {
                is_hopeless(so_far, limits, focus, planned, self.plan.levels.operations(trial.level.as_f64()))
            }
            Why::Soak => cannot_pass(so_far, limits, focus, planned),
            // A visit is worth its whole length: blocks that are chosen by what they show prove nothing.
            Why::Probe | Why::Low(_) | Why::High(_) => false,
        }
    }

    /// Operations per second that the trial that [`Self::next`] named brings in the long run; `None` where what it brings
    /// follows from more than its level.
    pub fn steady_load(&self) -> Option<f64> {
        match (&self.next, self.plan.levels) {
            (Step::Hold(trial), Levels::Rates) if trial.why != Why::Probe => Some(trial.level.as_f64()),
            _ => None,
        }
    }

    /// Takes the outcome of the trial that [`Self::next`] named.
    ///
    /// # Panics
    /// When the search is over.
    pub fn record(&mut self, outcome: &TrialOutcome) {
        let Step::Hold(trial) = self.next else { panic!("an outcome needs a trial that was asked for") };
        let outcome = &TrialOutcome { fault: self.why_unusable(&trial, outcome), ..outcome.clone() };
        self.spent += outcome.took;
        self.load += outcome.load;
        let result = if outcome.fault.is_some() { Outcome::Nothing } else { self.take(&trial, outcome) };
        self.faults = match result {
            // Whoever holds trials sees to it that agents are not lost for ever.
            Outcome::Nothing if outcome.lost_an_agent => self.faults,
            Outcome::Nothing => self.faults + 1,
            _ => 0,
        };
        let judge = judge(&self.plan, &self.stage, &self.quantiles);
        let sent_back = self.pool.send_back_contradictions(judge.limits, judge.focus, judge.quantiles);
        self.contradictions += u32::from(!sent_back.is_empty());
        let entry = self.entry(trial, outcome, result, sent_back);
        self.trail.push(entry);
        self.next = self.decide(&trial, outcome);
    }

    /// The trial that [`Self::next`] named was begun, and nothing of it was measured: only its time counts.
    pub fn not_held(&mut self, took: Duration) {
        self.spent += took;
        if let Step::Hold(NextTrial { level, why, hold, .. }) = self.next {
            self.next = self.hold(level, why, hold);
        }
    }

    /// The fleet has become smaller: no level above this one can be offered any more.
    pub fn lower_highest(&mut self, highest: Rate) {
        let highest = self.plan.highest.map_or(highest, |before| before.min(highest));
        self.plan.highest = Some(highest);
        match self.next {
            Step::Hold(trial) if trial.level > highest => {
                self.next = match trial.why {
                    Why::Probe | Why::First => Step::Hold(NextTrial { level: self.plan.first_level(), ..trial }),
                    _ => self.go_on(None),
                };
            }
            Step::Hold(_) | Step::Done(_) => {}
        }
    }

    /// What operations use up does not last for the trial that [`Self::next`] named: the search ends with what was shown.
    pub fn use_up(&mut self, needed: u64, left: u64) {
        while let Step::Hold(_) = self.next {
            self.next = self.finish(Some(SearchDoubt::UsedUp { needed, left }));
        }
    }

    /// Why a trial cannot be used. What was not what the service had to do is no evidence, unless a limit was broken all the same;
    /// a short trial's hint is unclear, and the search goes on below.
    fn why_unusable(&self, trial: &NextTrial, outcome: &TrialOutcome) -> Option<String> {
        let all: Vec<usize> = (0..self.plan.limits.len()).collect();
        let is_evidence = matches!(trial.why, Why::Low(_) | Why::High(_) | Why::Soak);
        let unproved = || {
            let why = outcome.unproved.clone().filter(|_| is_evidence)?;
            let is_over = matches!(hint(&outcome.showing, &self.plan.limits, &all), Hint::Over(_));
            (!is_over).then_some(why)
        };
        outcome.fault.clone().or_else(unproved)
    }

    fn take(&mut self, trial: &NextTrial, outcome: &TrialOutcome) -> Outcome {
        let limits = &self.plan.limits;
        match trial.why {
            Why::Probe => {
                let from = begin_below(outcome.served);
                self.plan.from = Some(from);
                Outcome::Begin(from)
            }
            Why::First | Why::Climb | Why::Descend | Why::Capacity { .. } | Why::Bisect => {
                let hint = match hint(&outcome.showing, limits, &self.stage.focus) {
                    // Latencies and errors follow; a backlog elsewhere need not.
                    Hint::Under
                        if outcome.behind > 0.0
                            && self.stage.focus.iter().any(|&limit| limit < limits.fractions.len()) =>
                    {
                        Hint::Behind(outcome.behind)
                    }
                    Hint::Under if outcome.unproved.is_some() => Hint::Unclear,
                    hint => hint,
                };
                if outcome.boxes_get_less {
                    self.stage.bracket.relieve_boxes();
                }
                self.stage.bracket.take(trial.level, &hint, outcome.served);
                Outcome::Hint(hint)
            }
            Why::Low(_) | Why::High(_) => {
                self.pool.add(trial.level, outcome, limits);
                Outcome::Judged(self.judge_level(trial.level))
            }
            Why::Soak => {
                let whole = outcome.showing.blocks.len() + 2 >= blocks(trial.hold);
                let held = whole && !cannot_pass_at_most(&outcome.showing, self, blocks(trial.hold));
                self.pool.add(trial.level, outcome, limits);
                self.pool.soaked(trial.level, if held { Soak::Held } else { Soak::Failed });
                let judged = self.judge_level(trial.level);
                match self.stage.confirm.as_mut() {
                    _ if held => {}
                    Some(confirm) => confirm.step_down(),
                    // The highest level there is.
                    None => self.stage.bracket.take(trial.level, &Hint::Over(Vec::new()), outcome.served),
                }
                Outcome::Soaked { held, judged }
            }
        }
    }

    fn judge_level(&self, level: Rate) -> Judgement {
        self.pool.judge(level, &self.plan.limits, &self.stage.focus, &self.quantiles)
    }

    fn decide(&mut self, trial: &NextTrial, outcome: &TrialOutcome) -> Step {
        if let Some(why) = outcome.fault.as_ref() {
            if self.faults < MOST_FAULTS {
                return self.hold(trial.level, trial.why, trial.hold);
            }
            let doubt = SearchDoubt::NotTrusted { why: why.clone() };
            return match self.worth_a_last_soak(trial) {
                Some(level) => {
                    self.last_soak = Some(doubt);
                    self.hold(level, Why::Soak, self.plan.lengths.soak)
                }
                None => {
                    // A last soak that cannot be trusted either is over, and none of the frontier's trials.
                    self.last_soak = None;
                    self.finish(Some(doubt))
                }
            };
        }
        if let Some(doubt) = self.last_soak.take() {
            return self.finish(Some(doubt));
        }
        self.go_on(Some((trial.level, trial.why, trial.hold)))
    }

    /// The level below one that cannot be trusted that looked best, where none was soaked that could be printed.
    fn worth_a_last_soak(&self, untrusted: &NextTrial) -> Option<Rate> {
        let is_wanted = self.stage.soaks && untrusted.why != Why::Soak && self.last_soak.is_none();
        let none_yet = || self.bounds().below.is_none_or(|below| !below.confirmed);
        let best = if is_wanted && none_yet() { self.best_unsoaked() } else { None };
        let lasts = |level: Rate| {
            let lengths = self.plan.lengths;
            self.left() >= self.plan.coming(Some(untrusted.level), level) + lengths.settle + lengths.soak + OVERHEAD
        };
        best.filter(|&level| level < untrusted.level && lasts(level))
    }

    /// What comes after a trial that showed something; `again`: the trial, where it may be held once more.
    fn go_on(&mut self, again: Option<(Rate, Why, Duration)>) -> Step {
        if self.stage.confirm.is_none() {
            match self.stage.bracket.look(&self.plan, again) {
                Look::At(level, why, hold) => return self.hold(level, why, hold),
                Look::Around(centre) => {
                    let confirm = Confirm::around(centre, &self.plan, self.stage.soaks);
                    self.stage.confirm = Some(confirm);
                }
                Look::Highest(highest) => return self.at_the_highest(highest, None),
                Look::Lowest(level) if self.stage.bracket.clouded == Some(level) => {
                    return self.finish(Some(SearchDoubt::Boxes { level }));
                }
                // A short trial only hints: the lowest level is compared with the next one before nothing is said to pass.
                Look::Lowest(lowest) => {
                    self.stage.confirm = Some(Confirm::from(lowest, &self.plan, self.stage.soaks));
                }
            }
        }
        self.compare()
    }

    /// The next move of the comparison.
    fn compare(&mut self) -> Step {
        let left = self.left();
        let mut confirm = self.stage.confirm.expect("a comparison is under way");
        let judge = judge(&self.plan, &self.stage, &self.quantiles);
        let next = confirm.next(&self.pool, judge, &self.plan, left);
        let levels = self.pool.levels().iter().map(|level| level.rate);
        let lowest = levels.take_while(|level| level.as_f64() <= self.plan.levels.lowest()).last();
        let nothing_passes = lowest.filter(|&lowest| implied(&self.pool, judge, lowest) == Judgement::Trip);
        self.stage.confirm = Some(confirm);
        if let Some(lowest) = nothing_passes {
            return self.finish(Some(SearchDoubt::NothingPasses { lowest }));
        }
        let lengths = self.plan.lengths;
        match next {
            Move::Settled(_) => {
                let is_precise = confirm.width() <= self.plan.precision;
                self.finish((!is_precise).then_some(SearchDoubt::TooCoarse))
            }
            Move::Soak(pair) | Move::VisitLow(pair) if self.plan.highest.is_some_and(|highest| pair.low > highest) => {
                self.at_the_highest(self.plan.highest.unwrap_or(pair.low), None)
            }
            Move::Soak(pair) => self.hold(pair.low, Why::Soak, lengths.soak),
            Move::VisitLow(pair) => self.hold(pair.low, Why::Low(pair), lengths.visit),
            Move::VisitHigh(pair) => {
                if let Some(highest) = self.plan.highest.filter(|&highest| pair.high > highest) {
                    return self.at_the_highest(highest, Some(pair));
                }
                self.hold(pair.high, Why::High(pair), lengths.visit_above)
            }
        }
    }

    /// Nothing tripped up to the highest level that can be offered: a soak makes it a lower bound. `pair`: the levels that are
    /// compared.
    fn at_the_highest(&mut self, highest: Rate, pair: Option<Pair>) -> Step {
        let soak = self.pool.level(highest).map_or(Soak::Untried, |level| level.soak);
        match (soak, pair) {
            (Soak::Untried, _) if self.stage.soaks => self.hold(highest, Why::Soak, self.plan.lengths.soak),
            // It did not hold: the limit is about there, and not beyond what can be offered.
            (Soak::Failed, Some(pair)) => {
                self.hold(highest, Why::High(Pair { high: highest, ..pair }), self.plan.lengths.visit_above)
            }
            _ => self.finish(Some(SearchDoubt::FleetTooSmall { highest })),
        }
    }

    fn left(&self) -> Duration {
        self.plan.max_time.saturating_sub(self.spent)
    }

    /// A trial, or what the time that is left still allows.
    fn hold(&mut self, level: Rate, why: Why, hold: Duration) -> Step {
        let lengths = self.plan.lengths;
        let takes = |hold: Duration| lengths.settle + hold + OVERHEAD;
        let before = self.trail.last().map(|entry| entry.trial.level);
        let comes = |level: Rate| self.plan.coming(before, level);
        let trial = |level, why, hold| {
            Step::Hold(NextTrial { number: self.trail.len() as u32, level, why, settle: lengths.settle, hold })
        };
        // The last of the time goes to a level that can be printed: only one that was soaked is.
        let unsoaked = (self.stage.soaks && why != Why::Soak && self.bounds().below.is_none_or(|b| !b.confirmed))
            .then(|| self.best_unsoaked())
            .flatten();
        let last = lengths.soak.max(SHORTEST_LAST);
        let needed = comes(level) + takes(hold) + unsoaked.map_or(Duration::ZERO, |_| takes(last));
        if self.left() >= needed {
            return trial(level, why, hold);
        }
        match unsoaked.filter(|&level| self.left() >= comes(level) + takes(last)) {
            Some(level) => trial(level, Why::Soak, last),
            None => self.finish(Some(self.out_of_time())),
        }
    }

    fn out_of_time(&self) -> SearchDoubt {
        // Where the service was over a limit below, more boxes would show no more.
        let tripped = self.bounds().above.filter(|above| above.confirmed).map(|above| above.level);
        let hides = |level: &Rate| self.stage.bracket.over == Some(*level) && tripped.is_none_or(|trip| trip > *level);
        match self.stage.bracket.clouded.filter(hides) {
            Some(level) => SearchDoubt::Boxes { level },
            None => SearchDoubt::OutOfTime,
        }
    }

    /// The largest level that passes and was never soaked; where none does, the largest that has shown little over its limits,
    /// half of the smallest that was visited, or of the largest that looked good where none was.
    fn best_unsoaked(&self) -> Option<Rate> {
        let passes = |level: &&pool::LevelPool| self.judge_level(level.rate) == Judgement::Pass;
        let levels = self.pool.levels();
        let untried = levels.iter().rev().filter(|level| level.soak == Soak::Untried);
        let judge = judge(&self.plan, &self.stage, &self.quantiles);
        let promises = |level: &&pool::LevelPool| {
            let rate = level.rate;
            let room = self.plan.levels.operations(rate.as_f64()) * self.plan.precision / 2.0;
            is_promising(&self.pool, judge, level, room) && implied(&self.pool, judge, rate) != Judgement::Trip
        };
        let half = levels.first().map(|level| level.rate).or(self.stage.bracket.under);
        let half = half.map(|rate| self.plan.levels.round(rate.as_f64() / 2.0));
        untried.clone().find(passes).or(untried.clone().find(promises)).map(|level| level.rate).or(half)
    }

    /// Ends a stage, and the search with the last of them.
    fn finish(&mut self, doubt: Option<SearchDoubt>) -> Step {
        if self.main.is_none() {
            let conclusion = self.conclude(doubt);
            if self.plan.frontier {
                let broke = conclusion.tripped.iter().flat_map(|tripped| &tripped.broke);
                let binding: Vec<_> = broke.map(|broken| broken.signal.clone()).collect();
                self.to_come =
                    (0..self.plan.limits.len()).rev().filter(|&limit| self.plan.limits.is_limit(limit)).collect();
                for limit in self.to_come.clone() {
                    if binding.contains(&self.plan.limits.signal(limit)) {
                        self.to_come.retain(|&other| other != limit);
                        self.frontier.insert(0, self.frontier_entry(limit));
                    }
                }
            }
            self.main = Some(conclusion);
        } else {
            let limit = self.stage.focus[0];
            self.frontier.push(self.frontier_entry(limit));
        }
        while let Some(limit) = self.to_come.pop() {
            if self.left() < self.plan.lengths.visit * 4 {
                self.frontier.push(self.frontier_entry(limit));
                continue;
            }
            let known = self.largest_that_holds(limit).unwrap_or_else(|| self.plan.first_level());
            let bracket = Bracket::above(known, 1.0 + 2.0 * self.plan.precision);
            self.stage = Stage { focus: vec![limit], bracket, confirm: None, soaks: false };
            match self.stage.bracket.look(&self.plan, None) {
                Look::At(level, why, hold) => return self.hold(level, why, hold),
                _ => self.frontier.push(self.frontier_entry(limit)),
            }
        }
        let mut conclusion = self.main.clone().expect("the main stage was concluded first");
        let position =
            |entry: &FrontierEntry| (0..self.plan.limits.len()).find(|&l| self.plan.limits.signal(l) == entry.signal);
        self.frontier.sort_by_key(position);
        conclusion.frontier = self.frontier.clone();
        (conclusion.load, conclusion.spent) = (self.load, self.spent);
        Step::Done(Box::new(conclusion))
    }

    fn conclude(&self, doubt: Option<SearchDoubt>) -> Conclusion {
        let judge = judge(&self.plan, &self.stage, &self.quantiles);
        let levels = self.pool.levels();
        let passes =
            |level: &&pool::LevelPool| level.soak == Soak::Held && self.judge_level(level.rate) == Judgement::Pass;
        let passed = levels.iter().rev().find(passes);
        let trips = |level: &&pool::LevelPool| {
            passed.is_none_or(|passed| level.rate > passed.rate) && self.judge_level(level.rate) == Judgement::Trip
        };
        let tripped = levels.iter().find(trips);
        let estimate = match self.stage.confirm {
            Some(confirm) => {
                time_to_precision(&self.pool, confirm.pair(), judge, (self.plan.precision, self.plan.levels))
            }
            None => Estimate::Unknown,
        };
        Conclusion {
            passed: passed.map(|level| PassedLevel {
                level: level.rate,
                held: BLOCK * level.evidence.blocks() as u32,
                episodes: (0..self.plan.limits.fractions.len())
                    .map(|l| level.evidence.episodes(l).count)
                    .max()
                    .unwrap_or(0),
            }),
            thin: passed.map_or_else(Vec::new, |level| self.thin(level)),
            tripped: tripped.map(|level| TrippedLevel { level: level.rate, broke: self.broken(level.rate, judge) }),
            doubt,
            estimate,
            contradictions: self.contradictions,
            frontier: Vec::new(),
            load: self.load,
            spent: self.spent,
        }
    }

    /// Rare limits that a level was held to by too few operations.
    fn thin(&self, level: &pool::LevelPool) -> Vec<Thin> {
        let limits = &self.plan.limits;
        let thin = |(limit, fraction): (usize, &outcome::FractionLimit)| {
            let operations = level.evidence.operations(limit);
            let seen = level.evidence.episodes(limit).count;
            let at_most = (self.quantiles.poisson_upper(seen)? / operations.max(1) as f64).min(1.0);
            let is_thin = fraction.rare && at_most > fraction.allowed && limits.is_percentile(limit);
            is_thin.then(|| Thin { signal: fraction.signal.clone(), operations, at_most })
        };
        self.stage.focus.iter().filter_map(|&l| thin((l, limits.fractions.get(l)?))).collect()
    }

    fn broken(&self, level: Rate, judge: Judge) -> Vec<Broken> {
        let Judge { limits, focus, quantiles } = judge;
        let figures = |limit: usize| {
            let figures = self.pool.figures(level, limit, limits, quantiles)?;
            let observed = figures.at_least.map_or(figures.allowed, |mean| mean.mean);
            Some(Broken { signal: limits.signal(limit), observed, allowed: figures.allowed })
        };
        let mut broken: Vec<Broken> =
            self.pool.broken(level, limits, focus, quantiles).into_iter().filter_map(figures).collect();
        broken.sort_by(|a, b| (b.observed / b.allowed).total_cmp(&(a.observed / a.allowed)));
        broken
    }

    fn largest_that_holds(&self, limit: usize) -> Option<Rate> {
        let judged = |rate| self.pool.judge(rate, &self.plan.limits, &[limit], &self.quantiles);
        let levels = || self.pool.levels().iter().map(|level| level.rate);
        let lowest_trip = levels().find(|&rate| judged(rate) == Judgement::Trip);
        levels().rfind(|&rate| judged(rate) == Judgement::Pass && lowest_trip.is_none_or(|trip| rate < trip))
    }

    fn frontier_entry(&self, limit: usize) -> FrontierEntry {
        let judged = |rate| self.pool.judge(rate, &self.plan.limits, &[limit], &self.quantiles);
        let holds = self.largest_that_holds(limit);
        let above = self.pool.levels().iter().map(|level| level.rate).filter(|&rate| Some(rate) > holds);
        let breaks = above.into_iter().find(|&rate| judged(rate) == Judgement::Trip);
        let is_precise = matches!((holds, breaks), (Some(holds), Some(breaks))
            if breaks.as_f64() / holds.as_f64() <= 1.0 + self.plan.precision);
        FrontierEntry { signal: self.plan.limits.signal(limit), holds, breaks, is_precise }
    }

    /// Between which levels the limit lies, as far as is known.
    pub fn bounds(&self) -> Bounds {
        let judge = judge(&self.plan, &self.stage, &self.quantiles);
        let levels = || self.pool.levels().iter();
        let soaked = |level: &&pool::LevelPool| !self.stage.soaks || level.soak == Soak::Held;
        let is = |rate, judgement| implied(&self.pool, judge, rate) == judgement;
        let below = levels().rev().filter(soaked).map(|level| level.rate).find(|&rate| is(rate, Judgement::Pass));
        let above = levels().map(|level| level.rate).find(|&rate| is(rate, Judgement::Trip));
        let Bracket { under, over, .. } = self.stage.bracket;
        let bound = |confirmed: Option<Rate>, hint: Option<Rate>| match (confirmed, hint) {
            (Some(level), _) => Some(Bound { level, confirmed: true }),
            (None, hint) => hint.map(|level| Bound { level, confirmed: false }),
        };
        Bounds { below: bound(below, under), above: bound(above, over) }
    }

    fn entry(&self, trial: NextTrial, outcome: &TrialOutcome, result: Outcome, sent_back: Vec<Rate>) -> TrailEntry {
        let showing = &outcome.showing;
        let fractions = self.plan.limits.fractions.len();
        let showed = |limit: usize| match limit.checked_sub(fractions) {
            None => evidence::mean_at_most(&showing.blocks, limit),
            Some(durable) => showing.reads.get(durable).and_then(|reads| slope::slope(reads)),
        };
        TrailEntry {
            focus: self.stage.focus.clone(),
            held: outcome.load.saturating_sub(trial.settle),
            showed: (0..self.plan.limits.len()).map(showed).collect(),
            blocks: (showing.blocks.len(), showing.blocks.iter().filter(|block| block.void).count()),
            fault: outcome.fault.clone(),
            result,
            sent_back,
            bounds: self.bounds(),
            spent: self.spent,
            trial,
        }
    }
}

fn judge<'a>(plan: &'a SearchPlan, stage: &'a Stage, quantiles: &'a Quantiles) -> Judge<'a> {
    Judge { limits: &plan.limits, focus: &stage.focus, quantiles }
}

/// Whether a soak was over a limit by all that was counted, the load boxes' doings included.
fn cannot_pass_at_most(showing: &Showing, search: &Search, planned: usize) -> bool {
    let limits = &search.plan.limits;
    let broken = |&limit: &usize| match limits.fractions.get(limit) {
        Some(fraction) => {
            let sum: f64 = evidence::fractions_at_most(&showing.blocks, limit).iter().sum();
            sum > fraction.allowed * planned as f64
        }
        None => {
            let index = limit - limits.fractions.len();
            let slope = slope::slope(slope::longest_undisturbed(showing, index));
            slope.is_none_or(|slope| slope > limits.slopes[index].per_second)
        }
    };
    search.stage.focus.iter().any(broken)
}

#[cfg(test)]
mod tests;
