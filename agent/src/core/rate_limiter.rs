//! Turns that come no faster than so many a second, in the order in which they were asked for. Pure: instants come in as times
//! since one beginning.

use std::time::Duration;

/// Timers wake a little late. What is late by less is made good by those behind it; what nobody asked for is not.
const SLACK: Duration = Duration::from_millis(20);

/// When the next turn is.
#[derive(Debug)]
pub struct RateLimiter {
    each: Duration,
    next: Duration,
}

impl RateLimiter {
    /// So many a second; more than none.
    pub fn new(per_second: f64) -> Self {
        Self { each: Duration::from_secs_f64(1.0 / per_second), next: Duration::ZERO }
    }

    /// From now on so many a second; turns that are given away stay.
    pub fn set_rate(&mut self, per_second: f64) {
        self.each = Duration::from_secs_f64(1.0 / per_second);
    }

    /// The next turn that is not given away, for so many at once: when it is.
    pub fn take(&mut self, now: Duration, count: u32) -> Duration {
        let turn = self.next.max(now.saturating_sub(SLACK));
        self.next = turn + self.lasts(count);
        turn.max(now)
    }

    /// How long the turns of so many take.
    pub fn lasts(&self, count: u32) -> Duration {
        self.each.saturating_mul(count)
    }

    /// The first turn that nobody has.
    pub fn next(&self) -> Duration {
        self.next
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn all_at_once_get_their_turns_one_after_the_other() {
        let mut limiter = RateLimiter::new(500.0);
        let got: Vec<Duration> = (0..20_000).map(|_| limiter.take(SECOND * 100, 1)).collect();
        assert_eq!(got[0], SECOND * 100);
        assert_eq!(got[19_999], SECOND * 100 + SECOND / 500 * 19_999 - SLACK);
        assert_eq!(limiter.next(), SECOND * 140 - SLACK);
    }

    #[test]
    fn somebody_who_counts_for_many_takes_the_time_of_many() {
        let mut limiter = RateLimiter::new(10.0);
        assert_eq!(limiter.take(Duration::ZERO, 25), Duration::ZERO);
        assert_eq!(limiter.take(Duration::ZERO, 1), SECOND * 5 / 2);
    }

    #[test]
    fn another_rate_is_that_of_the_turns_to_come() {
        let mut limiter = RateLimiter::new(10.0);
        limiter.take(Duration::ZERO, 10);
        limiter.set_rate(5.0);
        assert_eq!([limiter.take(Duration::ZERO, 1), limiter.next()], [SECOND, SECOND * 6 / 5]);
    }

    #[test]
    fn a_timer_that_wakes_late_slows_nobody_down_and_a_pause_gives_no_burst() {
        let mut limiter = RateLimiter::new(1_000.0);
        let mut now = Duration::ZERO;
        for _ in 0..1_000 {
            now = limiter.take(now, 1) + Duration::from_micros(900);
        }
        assert!(now <= SECOND + Duration::from_millis(1), "{now:?}");
        // Nobody asks for a minute: then at most what fits in the slack comes at once.
        now += SECOND * 60;
        let at_once = (0..1_000).filter(|_| limiter.take(now, 1) == now).count();
        assert_eq!(at_once, 21);
    }

    proptest! {
        #[test]
        fn no_stretch_of_time_has_more_turns_than_its_rate_and_the_slack_allow(
            per_second in 1.0_f64..5_000.0,
            pauses in prop::collection::vec(0_u64..40_000, 2..200),
        ) {
            let mut limiter = RateLimiter::new(per_second);
            let mut now = Duration::ZERO;
            let mut got = Vec::new();
            for pause in pauses {
                now += Duration::from_micros(pause);
                got.push(limiter.take(now, 1));
            }
            prop_assert!(got.is_sorted());
            for first in 0..got.len() {
                for last in first..got.len() {
                    // A turn is rounded to whole nanoseconds.
                    let most = (got[last] - got[first] + SLACK).as_secs_f64() * per_second + 1.01;
                    prop_assert!((last - first + 1) as f64 <= most, "{first} {last} {got:?}");
                }
            }
        }
    }
}
