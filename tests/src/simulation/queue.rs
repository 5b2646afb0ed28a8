//! One first-in-first-out server in virtual time: Poisson arrivals, exponential service, a capacity that may drift, and
//! stalls (Lindley's recursion, one step per message).

use plimsoll::core::search::outcome::{Block, Count, FractionLimit, Limits, Showing, Signal};
use plimsoll::core::slo::Quantile;
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use std::collections::VecDeque;
use std::time::Duration;

/// Messages per second that the server can do on average while it is not stalled.
pub const CAPACITY: f64 = 20_000.0;
/// The limit of the 99th percentile, in seconds.
pub const LIMIT: f64 = 0.005;
/// Half a second, as blocks are.
const BLOCK: f64 = 0.5;
/// How often the capacity moves, in seconds.
const DRIFT_STEP: f64 = 0.01;
/// Arming a trial and reading backlogs, in seconds.
const OVERHEAD: f64 = 0.5;

/// How a server behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Regime {
    /// As it is.
    Clean,
    /// Its capacity drifts: an AR(1) process of 1.5 % with a time constant of 20 s.
    Drift,
    /// Stalls of 10 ms on average, every 2 s on average.
    Stalls,
    /// Stalls of 40 ms every 15 s, and a drift of 1 %.
    RareStalls,
}

impl Regime {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Clean, Self::Drift, Self::Stalls, Self::RareStalls];

    /// For tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Clean => "clean",
            Self::Drift => "drift",
            Self::Stalls => "stalls 10 ms/2 s",
            Self::RareStalls => "stalls 40 ms/15 s",
        }
    }

    /// Standard deviation of the capacity's logarithm.
    fn drift(self) -> f64 {
        match self {
            Self::Clean | Self::Stalls => 0.0,
            Self::Drift => 0.015,
            Self::RareStalls => 0.01,
        }
    }

    /// Mean length and mean distance of stalls, in seconds.
    fn stalls(self) -> Option<(f64, f64)> {
        match self {
            Self::Clean | Self::Drift => None,
            Self::Stalls => Some((0.010, 2.0)),
            Self::RareStalls => Some((0.040, 15.0)),
        }
    }
}

/// Time constant of the drift, in seconds.
const DRIFT_TIME: f64 = 20.0;

/// The 99th percentile below [`LIMIT`].
pub fn limits() -> Limits {
    let limit = Duration::from_secs_f64(LIMIT);
    let signal = Signal::Percentile { series: "E1".into(), quantile: Quantile::P99, limit };
    Limits { fractions: vec![FractionLimit { signal, allowed: 0.01, rare: false }], slopes: Vec::new() }
}

/// The server, now.
#[derive(Debug)]
pub struct Queue {
    rng: SmallRng,
    regime: Regime,
    now: f64,
    /// When the server has done all that has arrived.
    free: f64,
    drift: f64,
    drift_next: f64,
    capacity: f64,
    stall_at: f64,
}

/// What a hold showed.
#[derive(Debug, Clone, PartialEq)]
pub struct Held {
    /// Its blocks.
    pub showing: Showing,
    /// Seconds of load, the settle included.
    pub load: f64,
    /// Per second, where the server had more to do than it could.
    pub served: Option<f64>,
}

impl Queue {
    /// An idle server.
    pub fn new(regime: Regime, seed: u64) -> Self {
        let mut queue = Self {
            rng: SmallRng::seed_from_u64(seed),
            regime,
            now: 0.0,
            free: 0.0,
            drift: 0.0,
            drift_next: 0.0,
            capacity: CAPACITY,
            stall_at: f64::INFINITY,
        };
        queue.drift = queue.normal() * regime.drift();
        queue.stall_at = regime.stalls().map_or(f64::INFINITY, |(_, gap)| queue.exponential() * gap);
        queue
    }

    /// Seconds since its start.
    pub fn now(&self) -> f64 {
        self.now
    }

    fn exponential(&mut self) -> f64 {
        // Uniform in (0, 1]: the upper 53 bits of a word, and one.
        let uniform = ((self.rng.next_u64() >> 11) + 1) as f64 / (1_u64 << 53) as f64;
        -uniform.ln()
    }

    fn normal(&mut self) -> f64 {
        let (radius, turn) = (self.exponential(), self.exponential());
        // Box and Muller, with a second uniform from a second exponential.
        (2.0 * radius).sqrt() * (std::f64::consts::TAU * (-turn).exp()).cos()
    }

    /// Loads the server for `settle` seconds and then for so many blocks, or until `stop` says that they are enough. An
    /// operation that arrives at `at` is released at `release(at)`; `None`: never.
    pub fn load(&mut self, rate: f64, settle: f64, blocks: usize, mut stop: impl FnMut(&Showing) -> bool) -> Held {
        let (begin, start) = (self.now, self.now + settle);
        let mut at = self.now;
        let mut showing = Showing::default();
        let mut served = 0_u64;
        let mut count = Count::default();
        let mut block_end = start + BLOCK;
        let mean_gap = 1.0 / rate;
        loop {
            at += self.exponential() * mean_gap;
            while at >= block_end {
                showing.blocks.push(Block { counts: vec![std::mem::take(&mut count)], void: false });
                if showing.blocks.len() == blocks || stop(&showing) {
                    self.now = block_end;
                    let held = block_end - start;
                    let overloaded = self.free - block_end > 0.02;
                    let carried = served as f64 / (self.free - begin);
                    return Held { showing, load: settle + held, served: overloaded.then_some(carried) };
                }
                block_end += BLOCK;
            }
            let latency = self.serve(at);
            served += 1;
            if at >= start {
                count.n += 1;
                if latency > LIMIT {
                    count.above += 1;
                    count.anyway += 1;
                }
            }
        }
    }

    /// Keeps so many operations open for so many seconds, and returns how many a second were done.
    pub fn closed_loop(&mut self, open: usize, seconds: f64) -> f64 {
        let end = self.now + seconds;
        let mut ends = VecDeque::from(vec![self.now; open]);
        let mut done = 0_u64;
        // First in, first out: they end in the order in which they began.
        while let Some(at) = ends.pop_front().filter(|&at| at < end) {
            ends.push_back(at + self.serve(at));
            done += 1;
        }
        self.now = end;
        done as f64 / seconds
    }

    /// The latency of what arrives now.
    pub fn serve(&mut self, at: f64) -> f64 {
        self.advance(at);
        while self.stall_at <= self.free.max(at) {
            let (length, gap) = self.regime.stalls().expect("a server without stalls has none to come");
            self.free = self.free.max(self.stall_at) + self.exponential() * length;
            self.stall_at += self.exponential() * gap;
        }
        self.free = self.free.max(at) + self.exponential() / self.capacity;
        self.free - at
    }

    fn advance(&mut self, at: f64) {
        let deviation = self.regime.drift();
        if deviation == 0.0 {
            return;
        }
        if at - self.drift_next > 60.0 * DRIFT_TIME {
            self.drift_next = at;
        }
        while self.drift_next <= at {
            let keep = (-DRIFT_STEP / DRIFT_TIME).exp();
            self.drift = keep * self.drift + deviation * (1.0 - keep * keep).sqrt() * self.normal();
            self.capacity = CAPACITY * (1.0 + self.drift);
            self.drift_next += DRIFT_STEP;
        }
    }

    /// Waits until everything is done, and for what a trial costs beside its load. Returns the seconds.
    pub fn drain(&mut self) -> f64 {
        let took = (self.free - self.now).max(0.0) + OVERHEAD;
        self.now += took;
        took
    }
}
