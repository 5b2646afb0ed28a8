//! When a message is done: a server of exact capacity, then a delay. Pure: times are handed in.
//!
//! The server works by virtual finish time: a message is done at max(its arrival, when the one before it was done) + the
//! service time. Whoever drives it may wake late or in bursts: what is done late was still done at its virtual time, the
//! next message starts from there, and no capacity is lost. A server with work to do therefore serves capacity × time
//! messages, exactly.

use super::config::Latency;
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

/// Messages in service or delayed. All times count from one origin.
#[derive(Debug)]
pub struct Service<T> {
    server: Server<T>,
    latency: Latency,
    rng: ChaCha8Rng,
    delayed: BinaryHeap<Reverse<Delayed<T>>>,
    served: u64,
}

/// A message that has been served, and when it was and will be let go.
#[derive(Debug)]
pub struct Done<T> {
    /// The virtual time at which the server was done with it.
    pub finished: Duration,
    pub work: T,
}

impl<T> Service<T> {
    /// `capacity` in messages per second, none for no limit. Equal seeds give equal delays.
    pub fn new(capacity: Option<f64>, latency: Latency, seed: u64) -> Self {
        let rng = ChaCha8Rng::seed_from_u64(seed);
        Self { server: Server::new(capacity), latency, rng, delayed: BinaryHeap::new(), served: 0 }
    }

    /// A message arrives; arrivals come in order.
    pub fn arrive(&mut self, at: Duration, work: T) {
        self.arrive_costing(at, work, 1);
    }

    /// The same of a message that takes the server as long as so many.
    pub fn arrive_costing(&mut self, at: Duration, work: T, cost: u64) {
        self.server.arrive(at, work, cost);
    }

    /// The next message whose service and delay have ended by `now`.
    pub fn due(&mut self, now: Duration) -> Option<Done<T>> {
        while let Some((finished, work)) = self.server.serve(now) {
            let release = finished + self.draw_latency();
            self.served += 1;
            self.delayed.push(Reverse(Delayed { release, order: self.served, finished, work }));
        }
        if self.delayed.peek()?.0.release > now {
            return None;
        }
        self.delayed.pop().map(|Reverse(Delayed { finished, work, .. })| Done { finished, work })
    }

    /// When [`due`](Self::due) has something to do next.
    pub fn next_event(&self) -> Option<Duration> {
        let release = self.delayed.peek().map(|delayed| delayed.0.release);
        [self.server.next_finish(), release].into_iter().flatten().min()
    }

    /// Nothing is served from `now` on for `length`; what is in service is done so much later. Running delays go on.
    pub fn stall(&mut self, now: Duration, length: Duration) {
        self.server.stall(now, length);
    }

    /// Changes the capacity from the next message on.
    pub fn set_capacity(&mut self, capacity: Option<f64>) {
        self.server.set_capacity(capacity);
    }

    /// Forgets all messages; the server is idle until `now`.
    pub fn clear(&mut self, now: Duration) {
        self.server.clear(now);
        self.delayed.clear();
    }

    fn draw_latency(&mut self) -> Duration {
        match self.latency {
            Latency::None => Duration::ZERO,
            Latency::Fixed(delay) => delay,
            Latency::Uniform(from, to) => from + (to - from).mul_f64(unit(&mut self.rng)),
            Latency::Exponential(mean) => mean.mul_f64(-(1.0 - unit(&mut self.rng)).ln()),
        }
    }
}

/// Uniform in [0, 1): the upper 53 bits of a word.
pub(super) fn unit(rng: &mut ChaCha8Rng) -> f64 {
    (rng.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
}

#[derive(Debug)]
struct Delayed<T> {
    release: Duration,
    order: u64,
    finished: Duration,
    work: T,
}

impl<T> Delayed<T> {
    fn key(&self) -> (Duration, u64) {
        (self.release, self.order)
    }
}

impl<T> PartialEq for Delayed<T> {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl<T> Eq for Delayed<T> {}

impl<T> PartialOrd for Delayed<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Delayed<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key().cmp(&other.key())
    }
}

/// One server and its queue. Picoseconds, so that a capacity that divides no nanosecond is still met: at 3,000 per second
/// the service time is off by one part in 10^9. They fit 213 days.
#[derive(Debug)]
struct Server<T> {
    service: u64,
    /// When the last message was done, or the last stall ended.
    free_at: u64,
    /// Arrival, cost in messages, and work.
    queue: VecDeque<(u64, u64, T)>,
}

impl<T> Server<T> {
    fn new(capacity: Option<f64>) -> Self {
        Self { service: service_time(capacity), free_at: 0, queue: VecDeque::new() }
    }

    fn arrive(&mut self, at: Duration, work: T, cost: u64) {
        self.queue.push_back((picos(at), cost, work));
    }

    fn next_finish(&self) -> Option<Duration> {
        self.next().map(duration)
    }

    fn next(&self) -> Option<u64> {
        self.queue.front().map(|(arrival, cost, _)| self.free_at.max(*arrival) + self.service.saturating_mul(*cost))
    }

    fn serve(&mut self, now: Duration) -> Option<(Duration, T)> {
        let finish = self.next()?;
        if finish > picos(now) {
            return None;
        }
        self.free_at = finish;
        self.queue.pop_front().map(|(_, _, work)| (duration(finish), work))
    }

    fn stall(&mut self, now: Duration, length: Duration) {
        // Either a message is in service since the later of its arrival and the one before it, or the stall starts now.
        let since = self.queue.front().map_or(picos(now), |(arrival, ..)| *arrival);
        self.free_at = self.free_at.max(since) + picos(length);
    }

    fn set_capacity(&mut self, capacity: Option<f64>) {
        self.service = service_time(capacity);
    }

    fn clear(&mut self, now: Duration) {
        self.queue.clear();
        self.free_at = self.free_at.max(picos(now));
    }
}

fn service_time(capacity: Option<f64>) -> u64 {
    capacity.map_or(0, |per_second| (1e12 / per_second).round() as u64)
}

fn picos(time: Duration) -> u64 {
    (time.as_nanos() as u64).saturating_mul(1_000)
}

/// Rounded up, so that whoever waits for it does not wake before it.
fn duration(picos: u64) -> Duration {
    Duration::from_nanos(picos.div_ceil(1_000))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MS: Duration = Duration::from_millis(1);

    fn service(capacity: f64, latency: Latency) -> Service<u64> {
        Service::new(Some(capacity), latency, 1)
    }

    fn done(service: &mut Service<u64>, now: Duration) -> Vec<(Duration, u64)> {
        std::iter::from_fn(|| service.due(now)).map(|done| (done.finished, done.work)).collect()
    }

    proptest! {
        #[test]
        fn a_busy_server_serves_capacity_times_time_however_it_is_woken(
            capacity in 1.0_f64..50_000.0,
            wakes in prop::collection::vec(1_u64..40_000, 1..50),
        ) {
            let mut service = service(capacity, Latency::None);
            let end = Duration::from_micros(wakes.iter().sum());
            let expected = (end.as_secs_f64() * capacity).floor() as u64;
            for n in 0..expected + 2 {
                service.arrive(Duration::ZERO, n);
            }
            let (mut now, mut served) = (Duration::ZERO, 0);
            for wake in wakes {
                now += Duration::from_micros(wake);
                served += done(&mut service, now).len() as u64;
            }
            prop_assert!(served.abs_diff(expected) <= 1, "{served} for {expected}");
        }

        #[test]
        fn finishing_times_do_not_depend_on_when_somebody_looks(
            gaps in prop::collection::vec(0_u64..3_000, 1..100), looks in prop::collection::vec(0_u64..10_000, 0..30),
        ) {
            let arrivals: Vec<Duration> = gaps
                .iter()
                .scan(0, |at, gap| { *at += gap; Some(Duration::from_micros(*at)) })
                .collect();
            let late = Duration::from_secs(10);
            let (mut once, mut often) = (service(777.0, Latency::None), service(777.0, Latency::None));
            for (n, at) in arrivals.iter().enumerate() {
                once.arrive(*at, n as u64);
                often.arrive(*at, n as u64);
            }
            let mut seen = Vec::new();
            let mut now = Duration::ZERO;
            for look in looks {
                now += Duration::from_micros(look);
                seen.extend(done(&mut often, now));
            }
            seen.extend(done(&mut often, late));
            prop_assert_eq!(seen, done(&mut once, late));
        }
    }

    #[test]
    fn an_idle_server_saves_nothing_up() {
        let mut service = service(1_000.0, Latency::None);
        service.arrive(100 * MS, 1);
        service.arrive(100 * MS, 2);
        assert_eq!(service.next_event(), Some(101 * MS));
        assert_eq!(done(&mut service, 500 * MS), [(101 * MS, 1), (102 * MS, 2)]);
    }

    #[test]
    fn a_stall_moves_what_is_in_service_and_all_after_it() {
        let mut service = service(100.0, Latency::None);
        service.arrive(Duration::ZERO, 1);
        service.arrive(Duration::ZERO, 2);
        service.stall(4 * MS, 1_000 * MS);
        assert_eq!(done(&mut service, 2_000 * MS), [(1_010 * MS, 1), (1_020 * MS, 2)]);
        service.stall(3_000 * MS, 500 * MS);
        service.arrive(3_100 * MS, 3);
        assert_eq!(done(&mut service, 4_000 * MS), [(3_510 * MS, 3)]);
    }

    #[test]
    fn a_stage_without_capacity_still_stalls() {
        let mut service: Service<u64> = Service::new(None, Latency::None, 1);
        service.arrive(MS, 1);
        assert_eq!(done(&mut service, MS), [(MS, 1)]);
        service.stall(2 * MS, 10 * MS);
        service.arrive(3 * MS, 2);
        assert_eq!((done(&mut service, 11 * MS), service.next_event()), (vec![], Some(12 * MS)));
        assert_eq!(done(&mut service, 12 * MS), [(12 * MS, 2)]);
    }

    #[test]
    fn a_delay_takes_no_capacity() {
        let mut service = service(1_000.0, Latency::Fixed(50 * MS));
        for n in 0..10 {
            service.arrive(Duration::ZERO, n);
        }
        assert_eq!(done(&mut service, 50 * MS), []);
        assert_eq!(done(&mut service, 60 * MS).len(), 10);
    }

    #[test]
    fn delays_have_their_distribution() {
        let mean = |latency| {
            let mut service: Service<u64> = Service::new(None, latency, 7);
            let total: Duration = (0..20_000).map(|_| service.draw_latency()).sum();
            (total / 20_000).as_secs_f64() * 1e3
        };
        assert!((mean(Latency::Uniform(MS, 9 * MS)) - 5.0).abs() < 0.1);
        assert!((mean(Latency::Exponential(5 * MS)) - 5.0).abs() < 0.15);
    }

    #[test]
    fn clearing_forgets_and_gives_no_credit() {
        let mut service = service(1_000.0, Latency::Fixed(MS));
        service.arrive(Duration::ZERO, 1);
        service.clear(100 * MS);
        assert_eq!(service.next_event(), None);
        service.arrive(50 * MS, 2);
        assert_eq!(service.next_event(), Some(101 * MS));
    }
}
