//! Merges what the agents send during a trial, as it comes: counts and histograms are added, never averaged, and
//! everything that does not fit together is kept as a fault.

mod agent;
mod health;
mod minutes;
mod reach;
mod spoilt;

use std::time::Duration;

use plimsoll_common::histogram::LatencyHistogram;
use plimsoll_common::plan::{BLOCK, SeriesLimits, TrialId};
use plimsoll_common::snapshot::{Counters, Observed, SeriesCounts, Snapshot, StepEnd, StepTotals, Strays};
use plimsoll_common::units::Rate;
use serde::{Deserialize, Serialize};

use self::agent::AgentMerge;
use self::health::Window;
use self::minutes::Minutes;
pub use self::minutes::{MINUTE, Minute};
use self::reach::{Reach, cut_off};
use super::backlog::{self, DurableReads, StreamGrowth, StreamLoad};
use super::clock_offset::ClockOffset;
use super::measurement::{Batch, Fault, FleetBlock, LittleCheck, SeriesMeasurement, StepMeasurement};

/// What the coordinator knows of a trial before its first snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrialPlan {
    /// Which trial of which step.
    pub trial: TrialId,
    /// What the step asks of the fleet.
    pub target: Rate,
    /// Before the hold.
    pub warmup: Duration,
    /// The window whose operations count.
    pub hold: Duration,
    /// The start of the warmup in the coordinator's CLOCK_BOOTTIME, in nanoseconds.
    pub start_boottime_ns: u64,
    /// As they went out with the plan, in the workload's order.
    pub limits: Vec<SeriesLimits>,
    /// The names of what the workload observes beside latency, in its order.
    pub observations: Vec<String>,
    /// What is later than this is never sent.
    pub max_lateness: Duration,
    /// The request timeout, where the hold is to be told minute by minute.
    pub minutes: Option<Duration>,
    /// By agent index.
    pub agents: Vec<AgentPart>,
}

/// One agent's part of a trial.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentPart {
    /// Its name.
    pub agent: String,
    /// Its part of the target rate.
    pub share: Rate,
    /// Its clock against the coordinator's, if known.
    pub clock: Option<ClockOffset>,
    /// Operations due in the warmup and in the hold by its users' own schedule; `None`: by its share, a rate.
    pub due: Option<(u64, u64)>,
    /// What the target's server that it is connected to says of itself.
    pub server: Option<String>,
}

/// What the coordinator itself saw of the service during a trial.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceReads {
    /// One per watched durable.
    pub durables: Vec<DurableReads>,
    /// One per stream that our messages enter.
    pub streams: Vec<StreamGrowth>,
}

/// A trial's merge under way. Its size depends on the fleet alone, not on how many operations or snapshots come nor, beyond an
/// hour, on how long the hold is.
#[derive(Debug, Clone)]
pub struct TrialMerge {
    plan: TrialPlan,
    window: Window,
    agents: Vec<AgentMerge>,
    blocks: Vec<FleetBlock>,
    /// Of all series, batch by batch.
    latency: Vec<Vec<LatencyHistogram>>,
    service_time: Vec<LatencyHistogram>,
    /// By block of wall time: operations that ended in it, warmup's included. Only what a search looks at, which holds no trial
    /// for so long.
    ended: Vec<u64>,
    minutes: Option<Minutes>,
}

/// An hour of blocks.
const MOST_ENDED: usize = 7200;

/// What is known of a trial while it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// Of the hold so far.
    pub counters: Counters,
    /// Of the warmup so far.
    pub warmup: Counters,
    /// One per series.
    pub series: Vec<SeriesProgress>,
    /// Users online, by the newest block of each agent that is there; `None`: levels are no users, or nobody has sent one.
    pub online: Option<u64>,
}

/// One series while its trial runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeriesProgress {
    /// Its name.
    pub series: String,
    /// Of what has ended so far; `None`: nothing has.
    pub p99: Option<Duration>,
    /// Per limit: operations open and already older than it, by each agent's newest snapshot. A total stall shows here
    /// before the first timeout.
    pub overdue: Vec<u64>,
}

impl TrialMerge {
    /// Nothing received yet.
    pub fn new(plan: TrialPlan) -> Self {
        let window = Window::new(&plan);
        let limits: Vec<usize> = plan.limits.iter().map(|limits| limits.limits_us.len()).collect();
        let empty =
            FleetBlock { series: limits.iter().map(|&n| SeriesCounts::zero(n)).collect(), ..Default::default() };
        Self {
            agents: plan.agents.iter().map(|part| AgentMerge::new(part, &plan, &limits)).collect(),
            blocks: vec![empty; window.kept_blocks() as usize],
            latency: vec![vec![LatencyHistogram::new(); limits.len()]; window.batches()],
            service_time: vec![LatencyHistogram::new(); limits.len()],
            ended: vec![
                0;
                ((plan.warmup + plan.hold).as_micros().div_ceil(BLOCK.as_micros()) as usize).min(MOST_ENDED)
            ],
            minutes: plan.minutes.map(|request_timeout| Minutes::new(&plan, request_timeout)),
            window,
            plan,
        }
    }

    /// Adds one snapshot of the agent with this index. One that cannot belong to the trial changes nothing but the
    /// faults.
    ///
    /// # Panics
    /// When the plan has no such agent.
    pub fn add_snapshot(&mut self, agent: usize, snapshot: &Snapshot) {
        if !self.agents[agent].add_snapshot(&self.window, snapshot) {
            return;
        }
        if let Some(ended) = self.ended.get_mut(snapshot.number as usize) {
            let completed = snapshot.blocks.iter().map(|delta| delta.counters.completed);
            *ended += completed.sum::<u64>() + snapshot.warmup.completed;
        }
        for delta in &snapshot.blocks {
            let block = &mut self.blocks[self.window.kept(delta.block)];
            block.counters.add(&delta.counters);
            block.series.iter_mut().zip(&delta.series).for_each(|(sum, counts)| sum.add(counts));
        }
        let batch = &mut self.latency[self.window.batch_of(snapshot.number)];
        for (index, series) in snapshot.series.iter().enumerate() {
            batch[index].add(&series.latency);
            self.service_time[index].add(&series.service_time);
        }
        if let Some(minutes) = &mut self.minutes {
            minutes.add(snapshot);
        }
        let stall = snapshot.health.stall;
        for index in self.window.hold_blocks(snapshot.number) {
            let block = &mut self.blocks[self.window.kept(index)];
            block.stall = block.stall.max(stall);
            block.void |= self.window.voids(stall);
        }
    }

    /// Takes the totals of the agent with this index.
    ///
    /// # Panics
    /// When the plan has no such agent.
    pub fn add_totals(&mut self, agent: usize, totals: StepTotals) {
        self.agents[agent].add_totals(totals);
    }

    /// Notes that an agent's session ended; where its totals had not come, it is lost and later messages are ignored.
    ///
    /// # Panics
    /// When the plan has no such agent.
    pub fn agent_lost(&mut self, agent: usize, after: Duration, why: String) {
        self.agents[agent].lose(after, why);
    }

    /// Whether every agent has sent its totals or is lost.
    pub fn is_complete(&self) -> bool {
        self.agents.iter().all(AgentMerge::has_ended)
    }

    /// What is known so far.
    pub fn progress(&self) -> Progress {
        let series = self.plan.limits.iter().enumerate().map(|(index, limits)| SeriesProgress {
            series: limits.series.clone(),
            p99: self.latency(index).quantile_us(0.99).map(Duration::from_micros),
            overdue: (0..limits.limits_us.len()).map(|limit| self.overdue(index, limit)).collect(),
        });
        Progress {
            counters: self.counters(),
            warmup: self.warmup(),
            series: series.collect(),
            online: self.agents.iter().filter_map(AgentMerge::users_now).reduce(u64::saturating_add),
        }
    }

    /// Of the whole hold so far.
    fn latency(&self, series: usize) -> LatencyHistogram {
        let mut sum = LatencyHistogram::new();
        self.latency.iter().for_each(|batch| sum.add(&batch[series]));
        sum
    }

    /// One per block of the hold, as far as is known; of a hold of more than an hour, several in one.
    pub fn blocks(&self) -> &[FleetBlock] {
        &self.blocks
    }

    /// How much of the hold every agent has reported.
    pub fn reported(&self) -> Duration {
        self.reported_of_all().saturating_sub(self.plan.warmup)
    }

    /// The same since the start of the warmup.
    fn reported_of_all(&self) -> Duration {
        BLOCK * self.agents.iter().map(AgentMerge::reported).min().unwrap_or(0)
    }

    /// Minutes of the hold that are over and were not taken before; none where none were asked for.
    pub fn take_minutes(&mut self) -> Vec<Minute> {
        let reported = self.reported_of_all();
        self.minutes.as_mut().map_or_else(Vec::new, |minutes| minutes.take_ended(reported))
    }

    /// Those that are left when nothing comes any more.
    pub fn take_last_minutes(&mut self) -> Vec<Minute> {
        let hold = self.plan.hold;
        self.minutes.as_mut().map_or_else(Vec::new, |minutes| minutes.take_all(hold))
    }

    /// Takes what was reported for the whole hold: it was ended early.
    pub fn cut(&mut self) {
        let reported = self.reported();
        if reported < self.plan.hold {
            self.plan.hold = reported;
            self.window = self.window.cut(reported);
            self.blocks.truncate(self.window.kept_blocks() as usize);
            self.latency.truncate(self.window.batches());
        }
    }

    /// Operations that completed per second of wall time, without the first block, in which they only set out; `None`
    /// where too little was reported.
    pub fn completed_per_second(&self) -> Option<f64> {
        let blocks = self.agents.iter().map(AgentMerge::reported).min().unwrap_or(0) as usize;
        let ended = self.ended.get(1..blocks.min(self.ended.len()))?;
        (!ended.is_empty()).then(|| ended.iter().sum::<u64>() as f64 / (BLOCK * ended.len() as u32).as_secs_f64())
    }

    /// Operations that completed in each block of wall time of the hold, whenever they set out. The warmup is whole blocks.
    pub fn ended_per_block(&self) -> &[u64] {
        let warmup = (self.plan.warmup.as_micros() / BLOCK.as_micros()) as usize;
        self.ended.get(warmup..).unwrap_or_default()
    }

    fn overdue(&self, series: usize, limit: usize) -> u64 {
        self.agents.iter().map(|agent| agent.overdue(series, limit)).fold(0, u64::saturating_add)
    }

    fn counters(&self) -> Counters {
        sum(self.agents.iter().map(|agent| &agent.counters))
    }

    fn warmup(&self) -> Counters {
        sum(self.agents.iter().map(|agent| &agent.warmup))
    }

    /// Checks that everything adds up, and reads off the measurement.
    pub fn finish(mut self, service: &ServiceReads) -> StepMeasurement {
        let (counters, warmup) = (self.counters(), self.warmup());
        let hold = self.plan.hold;
        let mut strays = Strays::default();
        self.agents.iter().for_each(|agent| strays.add(&agent.strays));
        let sent = counters.attempted + warmup.attempted;
        StepMeasurement {
            trial: self.plan.trial,
            target: self.plan.target,
            hold,
            max_lateness: Some(self.plan.max_lateness),
            counters,
            warmup,
            strays,
            series: self.series(),
            observed: self.observed(),
            little: self.little(&counters),
            faults: self.faults(),
            agents: self
                .agents
                .iter()
                .zip(&self.plan.agents)
                .map(|(a, part)| a.measurement(&self.plan, part))
                .collect(),
            backlog: service.durables.iter().map(|reads| backlog::measure(reads, hold)).collect(),
            // What a lost agent sent nobody knows, so nor whether the rest is somebody else's.
            streams: match self.agents.iter().any(AgentMerge::is_lost) {
                true => Vec::new(),
                false => service.streams.iter().map(|stream| StreamLoad::new(stream, sent)).collect(),
            },
            batches: self.batches(),
            blocks: self.blocks,
        }
    }

    /// An agent that was lost comes first: it is why the others were stopped.
    fn faults(&self) -> Vec<Fault> {
        let parts = self.agents.iter().zip(&self.plan.agents);
        let mut faults: Vec<Fault> = parts.flat_map(|(agent, part)| agent.faults(&self.plan, part)).collect();
        let reaches: Vec<&Reach> = self.agents.iter().map(|agent| &agent.reach).collect();
        let lengths: Vec<Option<Duration>> =
            (0..reaches.len()).map(|which| cut_off(&reaches, which, self.window.hold_in_wall_blocks())).collect();
        faults.extend(self.cut_off(&lengths));
        let why_the_others_ended =
            |fault: &Fault| matches!(fault, Fault::AgentLost { .. } | Fault::EndedEarly { end: StepEnd::ShutDown, .. });
        faults.sort_by_key(|fault| !why_the_others_ended(fault));
        faults
    }

    /// Of those who were cut off, by agent, each with how long.
    fn cut_off(&self, lengths: &[Option<Duration>]) -> Vec<Fault> {
        let parts = &self.plan.agents;
        let are_most = lengths.iter().flatten().count() * 2 > lengths.len();
        let is_whole_server = |part: &AgentPart| {
            let is_there = |other: &AgentPart| part.server.is_some() && other.server == part.server;
            let (there, elsewhere): (Vec<_>, Vec<_>) =
                parts.iter().zip(lengths).partition(|(other, _)| is_there(other));
            // The silence of a server's only agent is taken for the agent's own.
            let is_many = there.len() > 1 && there.iter().all(|(_, cut)| cut.is_some());
            is_many && elsewhere.iter().any(|(_, cut)| cut.is_none())
        };
        let fault = |(part, length): (&AgentPart, &Option<Duration>)| {
            let one_of_many = are_most || is_whole_server(part);
            Some(Fault::CutOff { agent: part.agent.clone(), length: (*length)?, one_of_many })
        };
        parts.iter().zip(lengths).filter_map(fault).collect()
    }

    /// Packed: a run keeps those of every trial.
    fn batches(&self) -> Vec<Batch> {
        let per_batch = self.window.kept_per_batch() as usize;
        let blocks = self.blocks.chunks(per_batch);
        let batch = |(blocks, latency): (&[FleetBlock], &Vec<LatencyHistogram>)| Batch {
            blocks: blocks.len() as u32 * self.window.blocks_per_kept(),
            void: blocks.iter().any(|block| block.void),
            latency: latency.iter().map(LatencyHistogram::packed).collect(),
        };
        blocks.zip(&self.latency).map(batch).collect()
    }

    fn observed(&self) -> Vec<Observed> {
        let mut observed: Vec<Observed> = self.plan.observations.iter().map(Observed::new).collect();
        for agent in &self.agents {
            observed.iter_mut().zip(&agent.observed).for_each(|(sum, more)| sum.add(more));
        }
        observed
    }

    fn series(&mut self) -> Vec<SeriesMeasurement> {
        let service_time = std::mem::take(&mut self.service_time);
        let limits = self.plan.limits.iter().enumerate();
        limits
            .zip(service_time)
            .map(|((index, limits), service_time)| {
                let mut counts = SeriesCounts::zero(limits.limits_us.len());
                self.agents.iter().for_each(|agent| counts.add(&agent.series[index]));
                SeriesMeasurement {
                    series: limits.series.clone(),
                    limits_us: limits.limits_us.clone(),
                    counts,
                    latency: self.latency(index),
                    service_time,
                }
            })
            .collect()
    }

    /// Little's law, where every agent sampled what was in flight and there is enough of it to compare.
    fn little(&self, counters: &Counters) -> Option<LittleCheck> {
        // Independent arrivals scatter the sum of the samples by its root: below this, by more than 2 %.
        const FEWEST: u64 = 2_500;
        let in_flight = self.agents.iter().map(AgentMerge::mean_in_flight).sum::<Option<f64>>()?;
        let seen = self.agents.iter().map(|agent| agent.in_flight_sum()).fold(0, u64::saturating_add);
        let ended = counters.completed + counters.errors();
        if seen < FEWEST || ended == 0 || self.plan.hold.is_zero() {
            return None;
        }
        let open_seconds = self.agents.iter().map(|agent| agent.open_time_us as f64 / 1e6).sum::<f64>();
        let rate = counters.attempted as f64 / self.plan.hold.as_secs_f64();
        Some(LittleCheck { in_flight, expected: rate * open_seconds / ended as f64 })
    }
}

fn sum<'a>(parts: impl Iterator<Item = &'a Counters>) -> Counters {
    let mut total = Counters::default();
    parts.for_each(|part| total.add(part));
    total
}

#[cfg(test)]
mod tests;
