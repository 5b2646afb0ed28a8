//! What a search is asked for, and how long its trials are.

use std::time::Duration;

use plimsoll_common::plan::BLOCK;
use plimsoll_common::units::Rate;
use serde::{Deserialize, Serialize};

use super::grid::round;
use super::outcome::{FractionLimit, Limits, Signal};

/// What a search is asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SearchPlan {
    /// Where the climb begins; `None`: where a probe of a second says.
    pub from: Option<Rate>,
    /// The highest level that the fleet can offer; `None`: no limit is known.
    pub highest: Option<Rate>,
    /// By how much the level that trips may lie above the one that passes: 0.05 is 5 %.
    pub precision: f64,
    /// That of the interval: 0.95.
    pub confidence: f64,
    /// Everything together.
    pub max_time: Duration,
    /// What a level is judged by.
    pub limits: Limits,
    /// The largest level of every other limit is looked for too.
    pub frontier: bool,
    /// How long trials are.
    pub lengths: Lengths,
    /// What levels are.
    #[serde(default)]
    pub levels: Levels,
}

/// What the levels of a search are.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Levels {
    /// Requests per second.
    #[default]
    Rates,
    /// Whole users.
    Users(Users),
}

/// Levels that are numbers of users.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Users {
    /// Operations per second that each makes.
    pub operations: f64,
    /// So many come online in a second, over the whole fleet.
    pub activation: f64,
    /// No level is lower.
    pub fewest: u64,
    /// What the highest level follows from.
    pub bound: Bound,
}

/// What keeps a search of users from going higher.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    /// So many the target was seeded for.
    Seeded,
    /// More would take more connections than they may have.
    Connections,
    /// More would do more than the agents can by themselves.
    Fleet,
}

impl Levels {
    /// A level as people write it; users are whole.
    pub fn round(&self, level: f64) -> Rate {
        match self {
            Self::Rates => round(level),
            Self::Users(users) => {
                let whole = (round(level).milli().saturating_add(500) / 1000).max(users.fewest.max(1));
                Rate::per_second(whole).expect("at least one, and no more than a rate may be")
            }
        }
    }

    /// Nothing is looked for below this.
    pub fn lowest(&self) -> f64 {
        match self {
            Self::Rates => LOWEST,
            Self::Users(users) => users.fewest.max(1) as f64,
        }
    }

    /// Operations per second that a level makes.
    pub fn operations(&self, level: f64) -> f64 {
        match self {
            Self::Rates => level,
            Self::Users(users) => level * users.operations,
        }
    }

    /// How long it takes until a level is there after another one: users come one after the other, and go at once.
    fn coming(&self, from: Option<Rate>, to: Rate) -> Duration {
        match self {
            Self::Rates => Duration::ZERO,
            Self::Users(users) => {
                let more = (to.as_f64() - from.map_or(0.0, |from| from.as_f64())).max(0.0);
                Duration::from_secs_f64(more / users.activation.max(1e-3))
            }
        }
    }

    /// What stands behind a level.
    pub fn unit(&self) -> &'static str {
        match self {
            Self::Rates => "/s",
            Self::Users(_) => " users",
        }
    }
}

/// Nothing is looked for below this, in requests per second.
const LOWEST: f64 = 0.1;

/// How long the trials of a search are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lengths {
    /// Load before each hold, which counts for nothing.
    pub settle: Duration,
    /// A step of the climb, at most.
    pub climb: Duration,
    /// A trial of the bisection, at most.
    pub probe: Duration,
    /// A visit of the lower of two levels that are compared.
    pub visit: Duration,
    /// A visit of the upper one: what it shows begins once a queue is full up to the limit.
    pub visit_above: Duration,
    /// The hold before an answer.
    pub soak: Duration,
    /// A level's visits together, before the search looks elsewhere.
    pub patience: Duration,
}

/// The rate of the probe that looks for where to begin; what is not sent for lack of room among [`PROBE_OPEN`] counts for
/// nothing.
pub const PROBE_RATE: u64 = 50_000;
/// Operations that the probe has open at once: so few that no service has to queue them.
pub const PROBE_OPEN: u64 = 8;
/// How long the probe lasts.
pub const PROBE_HOLD: Duration = Duration::from_secs(1);
/// A trial as long as this says whether a box can carry its share; what a second or two show of it is chance.
pub const SHOWS_BOXES: Duration = Duration::from_secs(5);

/// The hold before an answer.
pub const SOAK: Duration = Duration::from_secs(60);
/// Lower is not looked first: it would be the lower level of a pair whose upper one passes too.
const LEAST_UTILIZATION: f64 = 0.97;
/// The time over a limit that shows it as broken, and from which filling time on a visit is sized by it: where a queue fills in
/// less, several short visits show as much.
const TELLING: Duration = Duration::from_secs(10);
const LONG_FILL: Duration = Duration::from_secs(2);
/// A longer visit would leave no time for a second one.
const LONGEST_VISIT: Duration = Duration::from_secs(30);

impl Lengths {
    /// For latencies judged by this limit or larger ones, and this precision. An overload of w/2 takes T ÷ (w/2) to fill a
    /// queue up to T, so what is to tell the levels apart lasts longer than that.
    pub fn for_limit(tightest: Option<Duration>, precision: f64) -> Self {
        let fill = tightest.unwrap_or_default().div_f64(precision / 2.0);
        let at_least = |seconds: u64, length: Duration| whole_blocks(length.max(Duration::from_secs(seconds)));
        let visit = at_least(5, fill.mul_f64(1.5)).min(LONGEST_VISIT);
        Self {
            settle: BLOCK,
            climb: at_least(1, tightest.unwrap_or_default() * 4).min(LONGEST_VISIT),
            probe: at_least(2, fill.mul_f64(0.75)).min(LONGEST_VISIT / 2),
            visit,
            visit_above: if fill < LONG_FILL {
                visit
            } else {
                at_least(0, fill.mul_f64(1.25) + TELLING).min(LONGEST_VISIT)
            },
            soak: SOAK,
            patience: Duration::from_secs(120),
        }
    }
}

fn whole_blocks(length: Duration) -> Duration {
    BLOCK * u32::try_from(length.as_millis().div_ceil(BLOCK.as_millis())).unwrap_or(u32::MAX / 1000)
}

/// Blocks of a length.
pub fn blocks(length: Duration) -> usize {
    (length.as_millis() / BLOCK.as_millis()) as usize
}

impl SearchPlan {
    /// The level of the first trial: where the climb begins, or the probe's.
    pub fn first_level(&self) -> Rate {
        let first = self.from.unwrap_or_else(|| Rate::per_second(PROBE_RATE).expect("a rate"));
        self.highest.map_or(first, |highest| first.min(highest))
    }

    /// How long a level takes to be there after this one.
    pub fn coming(&self, from: Option<Rate>, to: Rate) -> Duration {
        self.levels.coming(from, to)
    }

    /// How far a service can be used before its percentiles break their limits, as a part of what it carries per second: of
    /// one queue with exponential service, p of the operations take longer than t where what is left over is ln(1/p)/t
    /// (Kleinrock, Queueing Systems I, 3.2). Never less than [`LEAST_UTILIZATION`]: services are many queues, or drift.
    /// Of the limits that were broken, by position, or of all where that is not known: a backlog alone is no matter of
    /// percentiles, and breaks where no more is carried.
    pub fn utilization(&self, served: f64, broken: &[usize]) -> f64 {
        let left_over = |fraction: &FractionLimit| match &fraction.signal {
            Signal::Percentile { limit, .. } => -fraction.allowed.ln() / limit.as_secs_f64().max(1e-9),
            _ => 0.0,
        };
        let counts = |(limit, _): &(usize, &FractionLimit)| broken.is_empty() || broken.contains(limit);
        let fractions = self.limits.fractions.iter().enumerate().filter(counts);
        let most = fractions.map(|(_, fraction)| left_over(fraction)).fold(0.0, f64::max);
        (1.0 - most / served.max(1.0)).max(LEAST_UTILIZATION)
    }

    /// The probability of a wrong decision: an answer rests on five (two levels, a soak, and two that may have been sent
    /// back).
    pub fn alpha(&self) -> f64 {
        (1.0 - self.confidence) / 5.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_whole_come_one_by_one_and_go_at_once() {
        let users = Levels::Users(Users { operations: 0.5, activation: 100.0, fewest: 2, bound: Bound::Seeded });
        let rounded = |level: f64| users.round(level).to_string();
        assert_eq!([976.4, 1.2, 0.0, 19_026.3, 149.5].map(rounded), ["976", "2", "2", "19030", "150"]);
        let rate = |users: u64| Rate::per_second(users).unwrap();
        assert_eq!(users.coming(Some(rate(300)), rate(500)), Duration::from_secs(2));
        assert_eq!(users.coming(None, rate(500)), Duration::from_secs(5));
        assert_eq!(users.coming(Some(rate(500)), rate(300)), Duration::ZERO);
        assert_eq!((users.operations(500.0), Levels::Rates.operations(500.0)), (250.0, 500.0));
    }

    #[test]
    fn trials_are_long_enough_for_an_overload_to_show() {
        let seconds = |limit: Option<u64>, precision| {
            let lengths = Lengths::for_limit(limit.map(Duration::from_millis), precision);
            [lengths.climb, lengths.probe, lengths.visit, lengths.visit_above].map(|length| length.as_secs_f64())
        };
        assert_eq!(seconds(None, 0.05), [1.0, 2.0, 5.0, 5.0]);
        assert_eq!(seconds(Some(5), 0.05), [1.0, 2.0, 5.0, 5.0]);
        assert_eq!(seconds(Some(100), 0.05), [1.0, 3.0, 6.0, 15.0]);
        assert_eq!(seconds(Some(400), 0.05), [2.0, 12.0, 24.0, 30.0]);
        assert_eq!(seconds(Some(400), 0.1), [2.0, 6.0, 12.0, 20.0]);
        assert_eq!(seconds(Some(10_000), 0.05), [30.0, 15.0, 30.0, 30.0]);
    }
}
