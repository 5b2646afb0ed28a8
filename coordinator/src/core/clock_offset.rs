//! How far an agent's clock is from the coordinator's, from the round trips of its pings.

use std::collections::VecDeque;
use std::time::Duration;

/// One ping and its echo: two instants of the agent's CLOCK_BOOTTIME around one of the coordinator's, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoundTrip {
    /// When the agent sent the ping, by the agent's clock.
    pub sent_ns: u64,
    /// When the coordinator answered it, by the coordinator's clock.
    pub coordinator_ns: u64,
    /// When the agent received the echo, by the agent's clock.
    pub received_ns: u64,
}

/// Agent's clock − coordinator's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockOffset {
    /// In nanoseconds; both clocks count from their own box's boot, so any value is possible.
    pub offset_ns: i64,
    /// The offset is wrong by at most this: half of the quickest way there and back, which need not be of one round trip.
    /// What no round trip shows is how that is divided between the two ways.
    pub error: Duration,
}

/// Round trips that are kept: at ten pings per lease timeout of 3 s this is the newest 20 s.
const WINDOW: usize = 64;
/// Over a path whose delay varies so many round trips bound the offset well, and fewer where they leave it no more than that.
const MANY: usize = 24;
const CLOSE: Duration = Duration::from_millis(1);
/// Two clocks may drift apart by one part in so many: 15 µs each second, the frequency tolerance PHI of RFC 5905.
const DRIFT: u64 = 1_000_000 / 15;

/// The newest round trips of one agent.
#[derive(Debug, Clone, Default)]
pub struct ClockEstimator {
    newest: VecDeque<Bounds>,
}

/// What one round trip shows: the offset lies between the two.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    /// By the agent's clock.
    received_ns: u64,
    low_ns: i128,
    high_ns: i128,
}

impl Bounds {
    fn of(trip: RoundTrip) -> Option<Self> {
        let (low_ns, high_ns) =
            (signed(trip.sent_ns, trip.coordinator_ns), signed(trip.received_ns, trip.coordinator_ns));
        (low_ns <= high_ns).then_some(Self { received_ns: trip.received_ns, low_ns, high_ns })
    }

    /// The same some time later.
    fn at(self, now_ns: u64) -> Self {
        let drift_ns = i128::from(now_ns.saturating_sub(self.received_ns) / DRIFT);
        Self { received_ns: now_ns, low_ns: self.low_ns - drift_ns, high_ns: self.high_ns + drift_ns }
    }

    fn width(&self) -> i128 {
        self.high_ns - self.low_ns
    }

    fn and(self, other: Self) -> Self {
        Self { low_ns: self.low_ns.max(other.low_ns), high_ns: self.high_ns.min(other.high_ns), ..self }
    }

    /// The middle; `None` beyond 292 years.
    fn offset(self) -> Option<ClockOffset> {
        let offset_ns = i64::try_from(self.low_ns + self.width() / 2).ok()?;
        let error_ns = u64::try_from(self.width()).ok()?.div_ceil(2);
        Some(ClockOffset { offset_ns, error: Duration::from_nanos(error_ns) })
    }
}

fn signed(agent_ns: u64, coordinator_ns: u64) -> i128 {
    i128::from(agent_ns) - i128::from(coordinator_ns)
}

impl ClockEstimator {
    /// Adds a round trip; one whose echo came before its ping, or which no clock could show, is ignored.
    pub fn add(&mut self, trip: RoundTrip) {
        let Some(bounds) = Bounds::of(trip).filter(|bounds| bounds.offset().is_some()) else { return };
        if self.newest.len() == WINDOW {
            self.newest.pop_front();
        }
        self.newest.push_back(bounds);
    }

    /// Whether more round trips would hardly show it better.
    pub fn knows_it_well(&self) -> bool {
        let is_close = |offset: ClockOffset| offset.error <= CLOSE;
        self.newest.len() >= MANY || self.estimate().is_some_and(is_close)
    }

    /// The middle of what every round trip kept allows, which the quickest way there and the quickest way back bound, each of
    /// whichever round trip had it; `None` before the first. Where a clock went otherwise than clocks do, as that of a guest that
    /// was paused, a round trip from before contradicts those since: it says nothing any more, and neither do older ones.
    pub fn estimate(&self) -> Option<ClockOffset> {
        let newest = *self.newest.back()?;
        let older = self.newest.iter().rev().map(|bounds| bounds.at(newest.received_ns));
        let agreeing = older.scan(newest, |common, bounds| {
            *common = common.and(bounds);
            (common.width() >= 0).then_some(*common)
        });
        agreeing.last()?.offset()
    }
}

impl ClockOffset {
    /// An instant of the coordinator's clock in the agent's; `None` where the agent had not booted.
    pub fn to_agent(self, coordinator_ns: u64) -> Option<u64> {
        u64::try_from(i128::from(coordinator_ns) + i128::from(self.offset_ns)).ok()
    }

    /// How far an instant of the agent's clock lies after (or, negative, before) one of the coordinator's, in
    /// nanoseconds; beyond 292 years it is cut.
    pub fn lag_ns(self, agent_ns: u64, coordinator_ns: u64) -> i64 {
        let lag = i128::from(agent_ns) - i128::from(self.offset_ns) - i128::from(coordinator_ns);
        lag.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand::SeedableRng as _;
    use rand::rngs::StdRng;

    fn trip(sent_ns: u64, coordinator_ns: u64, received_ns: u64) -> RoundTrip {
        RoundTrip { sent_ns, coordinator_ns, received_ns }
    }

    fn estimator(trips: &[RoundTrip]) -> ClockEstimator {
        let mut estimator = ClockEstimator::default();
        trips.iter().for_each(|&trip| estimator.add(trip));
        estimator
    }

    fn estimate(trips: &[RoundTrip]) -> Option<ClockOffset> {
        estimator(trips).estimate()
    }

    #[test]
    fn the_quickest_way_there_and_the_quickest_way_back_of_any_round_trips_bound_the_offset() {
        // One clock: 100 there and 900 back, then 800 there and 200 back.
        let offset = estimate(&[trip(0, 100, 1000), trip(10_000, 10_800, 11_000)]);
        assert_eq!(offset, Some(ClockOffset { offset_ns: 50, error: Duration::from_nanos(150) }));
    }

    #[test]
    fn a_clock_that_stood_still_is_known_by_what_came_since() {
        // From the third on the agent's clock is 5,000 behind. The quickest of all is of before.
        let before = [trip(10_000, 10_050, 10_100), trip(20_000, 20_400, 20_800)];
        let since = [trip(25_000, 30_400, 25_800), trip(35_000, 40_400, 36_000)];
        let offset = estimate(&[before, since].concat());
        assert_eq!(offset, Some(ClockOffset { offset_ns: -5_000, error: Duration::from_nanos(400) }));
    }

    #[test]
    fn nothing_is_known_before_the_first_round_trip_and_from_nonsense() {
        assert_eq!(estimate(&[]), None);
        let nonsense = estimator(&[trip(10, 5, 9), trip(0, u64::MAX, 9)]);
        assert_eq!((nonsense.newest.len(), nonsense.estimate(), nonsense.knows_it_well()), (0, None, false));
    }

    #[test]
    fn few_quick_round_trips_or_many_slow_ones_show_it_well() {
        let trips = |count: u64, width_ns: u64| {
            (1..=count).map(|i| trip(i << 30, i << 30, (i << 30) + width_ns)).collect::<Vec<_>>()
        };
        let known = |count, width_ns| estimator(&trips(count, width_ns)).knows_it_well();
        assert_eq!(
            (known(1, 2_000_000), known(1, 2_000_001), known(23, 2_100_000), known(24, 2_100_000)),
            (true, false, false, true)
        );
    }

    #[test]
    fn old_round_trips_are_forgotten() {
        let mut trips = vec![trip(0, 0, 2)];
        trips.extend((0..WINDOW as u64).map(|i| trip(i * 1000, i * 1000 + 50, i * 1000 + 100)));
        assert_eq!(estimate(&trips).map(|offset| offset.error), Some(Duration::from_nanos(50)));
        assert_eq!(estimator(&trips).newest.len(), WINDOW);
    }

    #[test]
    fn an_old_round_trip_says_less_by_what_clocks_drift() {
        let second = 1_000_000_000;
        let trips = [trip(0, 0, 2), trip(10 * second, 10 * second + 500_000, 10 * second + 1_000_000)];
        // Ten seconds at 15 µs each, to either side, and no more than the newest allows.
        let Some(ClockOffset { offset_ns, error }) = estimate(&trips) else { panic!("known") };
        assert!(
            offset_ns.abs() <= 1_000 && (150_000..=151_100).contains(&(error.as_nanos() as u64)),
            "{offset_ns} {error:?}"
        );
    }

    #[test]
    fn many_round_trips_over_a_path_that_varies_show_the_offset_to_a_part_of_what_it_varies_by() {
        let mut chance = StdRng::seed_from_u64(5);
        let wrong = |_| {
            let mut way = || chance.random_range(15_000_000..=25_000_000_u64);
            let trips: Vec<RoundTrip> = (1..=MANY as u64)
                .map(|i| {
                    let (sent, there, back) = (i * 100_000_000, way(), way());
                    trip(sent, sent + there, sent + there + back)
                })
                .collect();
            estimate(&trips).map_or(i64::MAX, |offset| offset.offset_ns.abs())
        };
        let mut wrong: Vec<i64> = (0..1000).map(wrong).collect();
        wrong.sort_unstable();
        // Each way's quickest of 24 is 0.4 ms beyond 15 ms in the mean; half of their difference counts.
        assert!(wrong[500] < 200_000 && wrong[990] < 1_200_000, "{} {}", wrong[500], wrong[990]);
    }

    proptest! {
        #[test]
        fn the_error_covers_the_true_offset_however_asymmetric_the_path(
            boot in 0_u64..1_000_000_000_000,
            offset in -1_000_000_000_i64..1_000_000_000,
            paths in prop::collection::vec((0_u64..10_000_000, 0_u64..10_000_000), 1..100),
        ) {
            let agent = |coordinator: u64| (coordinator as i64 + offset) as u64;
            let base = boot + 1_000_000_000;
            let trips: Vec<RoundTrip> = paths
                .iter()
                .enumerate()
                .map(|(i, &(there, back))| {
                    let sent = base + i as u64 * 100_000_000;
                    trip(agent(sent), sent + there, agent(sent + there + back))
                })
                .collect();
            let estimate = estimate(&trips).unwrap();
            let wrong = (estimate.offset_ns - offset).unsigned_abs();
            prop_assert!(u128::from(wrong) <= estimate.error.as_nanos(), "{} beyond {:?}", wrong, estimate.error);
            prop_assert!(estimate.lag_ns(agent(base), base).unsigned_abs() == wrong);
        }
    }
}
