//! Operations that use something up: whether a plan needs more of them than there are, what would fit, and how many each
//! agent has left as trials take theirs.

use std::time::Duration;

use plimsoll_common::units::Rate;
use plimsoll_common::workload::Pool;

/// What a run is to hold, each level once.
#[derive(Debug, Clone, Copy)]
pub struct Demand<'a> {
    /// The levels.
    pub levels: &'a [Rate],
    /// Before each hold.
    pub warmup: Duration,
    /// Of each level.
    pub hold: Duration,
    /// The flags by which levels and hold are given; those of a run without steps have one level.
    pub flags: Flags,
}

/// The flags by which levels and their length are given.
#[derive(Debug, Clone, Copy)]
pub struct Flags {
    /// Of the levels.
    pub levels: &'static str,
    /// Of the hold; `None`: it cannot be given.
    pub hold: Option<&'static str>,
}

/// Operations of one level.
pub fn operations(level: Rate, warmup: Duration, hold: Duration) -> u64 {
    level.due_in(warmup).saturating_add(level.due_in(hold))
}

impl Demand<'_> {
    /// Operations of all levels.
    pub fn operations(&self) -> u64 {
        self.of(self.levels)
    }

    fn of(&self, levels: &[Rate]) -> u64 {
        let each = levels.iter().map(|&level| operations(level, self.warmup, self.hold));
        each.fold(0, u64::saturating_add)
    }

    /// Why the pool is too small for this, and what would fit; `None`: it is not.
    pub fn exceeds(&self, pool: &Pool) -> Option<String> {
        let needed = self.operations();
        if needed <= pool.operations {
            return None;
        }
        let fitting = [self.lower_levels(pool.operations), self.shorter_hold(pool.operations), larger(pool, needed)];
        let fitting: Vec<String> = fitting.into_iter().flatten().collect();
        let fitting = match fitting.as_slice() {
            [] => "nothing of this length: shorten the warmup too".to_owned(),
            fitting => fitting.join(", or "),
        };
        Some(format!(
            "the plan needs {needed} operations, and {}: enough for {}; what would fit: {fitting}",
            pool.words, pool.operations
        ))
    }

    /// As many of the levels as fit, or one that does.
    fn lower_levels(&self, most: u64) -> Option<String> {
        let fit = (1..self.levels.len()).rev().find(|&count| self.of(&self.levels[..count]) <= most);
        let levels = match fit {
            Some(count) => self.levels[..count].to_vec(),
            None => vec![Rate::per_second((most as f64 / (self.warmup + self.hold).as_secs_f64()) as u64)?],
        };
        let texts: Vec<String> = levels.iter().map(Rate::to_string).collect();
        Some(format!("--{} {}", self.flags.levels, texts.join(",")))
    }

    /// The longest hold in whole seconds with which all levels fit.
    fn shorter_hold(&self, most: u64) -> Option<String> {
        let flag = self.flags.hold?;
        let seconds = (1..self.hold.as_secs())
            .rev()
            .find(|&seconds| Demand { hold: Duration::from_secs(seconds), ..*self }.operations() <= most)?;
        Some(format!(
            "--{flag} {}",
            humantime::format_duration(Duration::from_secs(seconds)).to_string().replace(' ', "")
        ))
    }
}

/// The smallest pool that is large enough.
fn larger(pool: &Pool, needed: u64) -> Option<String> {
    pool.larger.iter().find(|(_, operations)| *operations >= needed).map(|(setting, _)| setting.clone())
}

/// What each agent has left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Budget {
    left: Vec<u64>,
}

/// An agent that has not enough left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Short {
    /// Its index.
    pub agent: usize,
    /// Operations that it would need.
    pub needed: u64,
    /// Operations that it has.
    pub left: u64,
}

/// A trial that was stopped has used at most so many more than were counted, as a part and in operations: an agent's workers
/// release theirs by chance, and who had the most of them has the least left.
const STOPPED_PART: f64 = 0.05;
const STOPPED_COUNT: u64 = 100;

impl Budget {
    /// By agent index, as they say when work is dealt.
    pub fn new(left: Vec<u64>) -> Self {
        Self { left }
    }

    /// The first agent that cannot make so many operations, by agent index.
    pub fn short(&self, needed: &[u64]) -> Option<Short> {
        let pairs = needed.iter().zip(&self.left).enumerate();
        let mut shorts = pairs.filter(|(_, (needed, left))| needed > left);
        shorts.next().map(|(agent, (&needed, &left))| Short { agent, needed, left })
    }

    /// A trial was held as it was planned, by agent index.
    pub fn take(&mut self, planned: &[u64]) {
        self.left.iter_mut().zip(planned).for_each(|(left, planned)| *left = left.saturating_sub(*planned));
    }

    /// A trial was stopped when so many operations had been released, by agent index; `None`: the agent did not say.
    pub fn take_of_stopped(&mut self, planned: &[u64], released: &[Option<u64>]) {
        let at_most = |(&planned, &released): (&u64, &Option<u64>)| {
            let released = released.map(|released| released + (released as f64 * STOPPED_PART) as u64 + STOPPED_COUNT);
            released.unwrap_or(planned).min(planned)
        };
        let used: Vec<u64> = planned.iter().zip(released).map(at_most).collect();
        self.take(&used);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEPS: Flags = Flags { levels: "steps", hold: Some("hold") };

    fn exceeds(levels: &[&str], warmup: u64, hold: u64, operations: u64, larger: &[(&str, u64)]) -> Option<String> {
        let levels: Vec<Rate> = levels.iter().map(|text| text.parse().unwrap()).collect();
        let (warmup, hold) = (Duration::from_secs(warmup), Duration::from_secs(hold));
        let larger = larger.iter().map(|(setting, count)| ((*setting).to_owned(), *count)).collect();
        let words = "x has 10 in each of 5".to_owned();
        Demand { levels: &levels, warmup, hold, flags: STEPS }.exceeds(&Pool { operations, words, larger })
    }

    #[test]
    fn what_does_not_fit_is_told_what_would() {
        let larger = [("--preset y", 20_000), ("--preset z", 90_000)];
        assert_eq!(exceeds(&["100", "200"], 10, 30, 12_000, &larger), None);
        assert_eq!(
            exceeds(&["100", "200", "1k"], 10, 30, 12_000, &larger).unwrap(),
            "the plan needs 52000 operations, and x has 10 in each of 5: enough for 12000; what would fit: \
             --steps 100,200, or --preset z"
        );
        assert_eq!(
            exceeds(&["100", "200"], 0, 30, 3_000, &larger).unwrap(),
            "the plan needs 9000 operations, and x has 10 in each of 5: enough for 3000; what would fit: \
             --steps 100, or --hold 10s, or --preset y"
        );
        let words = exceeds(&["100"], 10, 30, 250, &[]).unwrap();
        assert!(words.ends_with("enough for 250; what would fit: --steps 6"), "{words}");
        let words = exceeds(&["1000000"], 3600, 3600, 250, &[]).unwrap();
        assert!(words.ends_with("what would fit: nothing of this length: shorten the warmup too"), "{words}");
    }

    #[test]
    fn what_is_said_to_fit_does() {
        for (levels, warmup, hold, pool) in [(&["100", "200", "700"][..], 3, 9, 5_000), (&["33.3", "70"], 1, 60, 2_111)]
        {
            let rates: Vec<Rate> = levels.iter().map(|text| text.parse().unwrap()).collect();
            let (warmup, hold) = (Duration::from_secs(warmup), Duration::from_secs(hold));
            let demand = Demand { levels: &rates, warmup, hold, flags: STEPS };
            let steps = demand.lower_levels(pool).unwrap();
            let steps: plimsoll_common::units::Steps = steps.strip_prefix("--steps ").unwrap().parse().unwrap();
            assert!(Demand { levels: steps.rates(), ..demand }.operations() <= pool);
            let hold = humantime::parse_duration(demand.shorter_hold(pool).unwrap().strip_prefix("--hold ").unwrap());
            let fits = |hold| Demand { hold, ..demand }.operations() <= pool;
            let hold = hold.unwrap();
            assert!(fits(hold) && !fits(hold + Duration::from_secs(1)));
        }
    }

    #[test]
    fn the_first_agent_that_is_short_is_named() {
        let mut budget = Budget::new(vec![1_000, 500]);
        assert_eq!(budget.short(&[1_000, 500]), None);
        budget.take(&[400, 200]);
        assert_eq!(budget.short(&[600, 301]), Some(Short { agent: 1, needed: 301, left: 300 }));
        // A stopped trial takes no more than it was to have, and no less than it may have had.
        budget.take_of_stopped(&[600, 300], &[Some(200), None]);
        assert_eq!(budget, Budget::new(vec![290, 0]));
    }
}
