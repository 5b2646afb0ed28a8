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
    /// Half of the round trip: the offset is wrong by at most this, and by up to half of the path's asymmetry.
    pub error: Duration,
}

/// Round trips that are kept: at ten pings per lease timeout of 3 s this is the newest 20 s, and clocks drift by
/// microseconds in that time.
const WINDOW: usize = 64;

/// The newest round trips of one agent.
#[derive(Debug, Clone, Default)]
pub struct ClockEstimator {
    newest: VecDeque<ClockOffset>,
}

impl ClockEstimator {
    /// Adds a round trip; one whose echo came before its ping, or which no clock could show, is ignored.
    pub fn add(&mut self, trip: RoundTrip) {
        let Some(offset) = offset_of(trip) else { return };
        if self.newest.len() == WINDOW {
            self.newest.pop_front();
        }
        self.newest.push_back(offset);
    }

    /// The offset by the quickest of the round trips kept, the newest of equals; `None` before the first.
    pub fn estimate(&self) -> Option<ClockOffset> {
        self.newest.iter().rev().min_by_key(|offset| offset.error).copied()
    }
}

fn offset_of(trip: RoundTrip) -> Option<ClockOffset> {
    let round_trip = trip.received_ns.checked_sub(trip.sent_ns)?;
    let middle = trip.sent_ns + round_trip / 2;
    let offset_ns = i64::try_from(i128::from(middle) - i128::from(trip.coordinator_ns)).ok()?;
    Some(ClockOffset { offset_ns, error: Duration::from_nanos(round_trip.div_ceil(2)) })
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

    fn trip(sent_ns: u64, coordinator_ns: u64, received_ns: u64) -> RoundTrip {
        RoundTrip { sent_ns, coordinator_ns, received_ns }
    }

    fn estimate(trips: &[RoundTrip]) -> Option<ClockOffset> {
        let mut estimator = ClockEstimator::default();
        trips.iter().for_each(|&trip| estimator.add(trip));
        estimator.estimate()
    }

    #[test]
    fn the_quickest_round_trip_wins() {
        let offset = estimate(&[trip(0, 5_000, 9_000), trip(10_000, 15_100, 10_200), trip(20_000, 29_000, 21_000)]);
        assert_eq!(offset, Some(ClockOffset { offset_ns: -5_000, error: Duration::from_nanos(100) }));
    }

    #[test]
    fn nothing_is_known_before_the_first_round_trip_and_from_nonsense() {
        assert_eq!(estimate(&[]), None);
        assert_eq!(estimate(&[trip(10, 5, 9), trip(u64::MAX, 0, u64::MAX)]), None);
    }

    #[test]
    fn old_round_trips_are_forgotten() {
        let mut trips = vec![trip(0, 0, 2)];
        trips.extend((0..WINDOW as u64).map(|i| trip(i * 1000, i * 1000, i * 1000 + 100)));
        assert_eq!(estimate(&trips).map(|offset| offset.error), Some(Duration::from_nanos(50)));
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
