//! One trial over the whole fleet: armed, held, drained, and stopped everywhere at once when anything goes wrong.

use std::time::{Duration, SystemTime};

use plimsoll_agent::clock::boottime_ns;
use plimsoll_common::plan::StepOrder;
use plimsoll_common::snapshot::StepEnd;
use plimsoll_common::units::Rate;
use plimsoll_proto::v1::coordinator_message::Message as ToAgent;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};

use super::Stop;
use super::backlog::BacklogWatch;
use super::fleet::{Fleet, FleetError};
use super::live::{Now, Phase};
use super::minutes::MinuteLog;
use super::progress::Progress;
use super::session::AgentEvent;
use super::signals::Interrupt;
use super::users;
use crate::core::clock_offset::ClockOffset;
use crate::core::merge::{AgentPart, TrialMerge, TrialPlan};
use crate::core::ramp::NextTrial;
use crate::core::search::Search;
use crate::core::search::measured::{self, Due};
use crate::core::search::outcome::Showing;
use crate::settings::{Goal, Phases, RunPlan};

/// Between the order and the start: time for the order to arrive and for every agent to say that it is armed.
const LEAD: Duration = Duration::from_millis(300);
/// And so many round trips of the slowest agent.
const LEAD_ROUND_TRIPS: u32 = 4;
/// What an agent may take beyond warmup, hold and request timeout to send its totals.
const TOTALS_GRACE: Duration = Duration::from_secs(5);
/// How long the totals of a stopped step are waited for.
const STOP_LIMIT: Duration = Duration::from_secs(2);
/// Between two updates of what is shown; snapshots come as often.
const TICK: Duration = Duration::from_millis(500);

/// What a trial is to do.
#[derive(Debug)]
pub struct TrialOrder<'a> {
    /// The run's plan.
    pub plan: &'a RunPlan,
    /// Which trial, at which level.
    pub next: NextTrial,
    /// By agent index.
    pub shares: &'a [Rate],
    /// How long its parts are.
    pub phases: Phases,
    /// Operations open at once over the whole fleet, at least one on each worker; `None`: as the plan says.
    pub most_open: Option<u64>,
    /// Whether it need not go on, where somebody asks.
    pub search: Option<&'a Search>,
}

/// A trial that is over.
#[derive(Debug)]
pub struct Held {
    /// What the agents sent.
    pub merge: TrialMerge,
    /// When the warmup started.
    pub started_at: SystemTime,
    /// The start of the hold on our clock.
    pub hold_start_ns: u64,
    /// What it had shown when it needed not go on.
    pub stopped: Option<Showing>,
    /// By agent index: operations that it released, warmup included; `None`: it did not say.
    pub released: Vec<Option<u64>>,
    /// Somebody interrupted it after so much of a soak that it says something.
    pub interrupted: bool,
}

/// Holds a trial.
///
/// # Errors
/// Somebody interrupted it (but see [`Held::interrupted`]), or it could not start. Every agent is silent then.
pub async fn hold(
    fleet: &mut Fleet,
    order: &TrialOrder<'_>,
    watch: &BacklogWatch,
    progress: &mut Progress,
    interrupt: &Interrupt,
    minutes: &mut MinuteLog<'_>,
) -> Result<Held, Stop> {
    let due = users::due(order.plan, order.next.trial, order.shares, order.phases).await;
    let clocks = fleet.clocks(order.plan.lease_timeout).await?;
    let slowest = clocks.iter().map(|clock| clock.error * 2).max().unwrap_or_default();
    let lead = LEAD + slowest * LEAD_ROUND_TRIPS + users::time_to_begin(order.plan, order.shares);
    let start_ns = boottime_ns() + nanos(lead);
    let started_at = SystemTime::now() + lead;
    let merge = TrialMerge::new(trial_plan(fleet, order, &clocks, due, start_ns));
    if let Err(error) = arm(fleet, order, &clocks, start_ns, lead).await {
        fleet.stop(order.next.trial);
        if matches!(error, FleetError::Lost { .. } | FleetError::NoAnswer { .. }) {
            fleet.settle(order.next.trial, STOP_LIMIT).await;
        }
        return Err(error.into());
    }
    let (released, gone) = (vec![None; fleet.len()], vec![false; fleet.len()]);
    let hold_start = HoldStart { at: started_at + order.phases.warmup, told: false };
    let mut under_way = UnderWay { order, start_ns, hold_start, merge, released, gone, spoiled: false, stopped: None };
    let ended = under_way.follow(fleet, watch, progress, interrupt, minutes).await;
    let UnderWay { mut merge, spoiled, stopped, hold_start, released, .. } = under_way;
    let of_soak = order.plan.goal == Goal::Soak && !merge.reported().is_zero();
    let interrupted = of_soak && ended == Err(Stop::Interrupted);
    if !interrupted {
        ended?;
    }
    if of_soak && (interrupted || spoiled) {
        merge.cut();
    }
    let last = merge.take_last_minutes();
    minutes.write(last, hold_start.at, &watch.newest(), progress).map_err(Stop::Failed)?;
    Ok(Held { merge, started_at, hold_start_ns: start_ns + nanos(order.phases.warmup), stopped, interrupted, released })
}

fn nanos(length: Duration) -> u64 {
    u64::try_from(length.as_nanos()).unwrap_or(u64::MAX)
}

fn trial_plan(
    fleet: &Fleet,
    order: &TrialOrder,
    clocks: &[ClockOffset],
    due: Option<Vec<(u64, u64)>>,
    start_boottime_ns: u64,
) -> TrialPlan {
    let part = |(index, (&share, &clock)): (usize, (&Rate, &ClockOffset))| AgentPart {
        agent: fleet.name(index).to_owned(),
        share,
        clock: Some(clock),
        due: due.as_ref().map(|due| due[index]),
    };
    TrialPlan {
        trial: order.next.trial,
        target: order.next.level,
        warmup: order.phases.warmup,
        hold: order.phases.hold,
        start_boottime_ns,
        limits: order.plan.slo.limits(),
        observations: order.plan.workload.observations().iter().map(|observed| observed.name.to_owned()).collect(),
        minutes: (order.plan.goal == Goal::Soak).then_some(order.plan.request_timeout),
        agents: order.shares.iter().zip(clocks).enumerate().map(part).collect(),
    }
}

/// Gives every agent its share and the same start, each in its own clock.
async fn arm(
    fleet: &mut Fleet,
    order: &TrialOrder<'_>,
    clocks: &[ClockOffset],
    start_ns: u64,
    lead: Duration,
) -> Result<(), FleetError> {
    let (plan, trial) = (order.plan, order.next.trial);
    for (index, (&share, clock)) in order.shares.iter().zip(clocks).enumerate() {
        let Some(start_boottime_ns) = clock.to_agent(start_ns) else {
            let why = "its clock lies before its own start".to_owned();
            fleet.give_up_on(index, why.clone());
            return Err(FleetError::Lost { agent: fleet.name(index).to_owned(), why });
        };
        let start = StepOrder {
            trial,
            share,
            start_boottime_ns,
            warmup: order.phases.warmup,
            hold: order.phases.hold,
            arrivals: plan.arrivals(index, order.shares.len()),
            max_in_flight: match order.most_open {
                Some(open) => (open / order.shares.len() as u64).max(1),
                None => plan.in_flight_cap(share),
            },
        };
        fleet.send(index, ToAgent::StartStep((&start).into()));
    }
    let armed = |event| matches!(event, AgentEvent::Armed(armed) if armed == trial).then_some(());
    fleet.answers("start the step", lead, armed).await.map(drop)
}

struct UnderWay<'a> {
    order: &'a TrialOrder<'a>,
    start_ns: u64,
    hold_start: HoldStart,
    merge: TrialMerge,
    /// By agent index, once its totals came.
    released: Vec<Option<u64>>,
    /// By agent position: it was lost.
    gone: Vec<bool>,
    /// Somebody was lost whose part was not whole.
    spoiled: bool,
    stopped: Option<Showing>,
}

/// When the hold starts, and whether those who write minutes know what backlogs were then.
struct HoldStart {
    at: SystemTime,
    told: bool,
}

impl UnderWay<'_> {
    /// Merges what comes until every agent has ended.
    async fn follow(
        &mut self,
        fleet: &mut Fleet,
        watch: &BacklogWatch,
        progress: &mut Progress,
        interrupt: &Interrupt,
        minutes: &mut MinuteLog<'_>,
    ) -> Result<(), Stop> {
        let Phases { warmup, hold, .. } = self.order.phases;
        let left = Duration::from_nanos(self.start_ns.saturating_sub(boottime_ns()));
        let mut deadline = Instant::now() + left + warmup + hold + self.order.plan.request_timeout + TOTALS_GRACE;
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        while !self.merge.is_complete() {
            tokio::select! {
                biased;
                () = interrupt.raised() => {
                    self.stop_all(fleet).await;
                    return Err(Stop::Interrupted);
                }
                (agent, event) = fleet.next_event() => {
                    let whole_before = !self.spoiled;
                    self.take(fleet, agent, event);
                    if let Err(words) = self.tell_minutes(minutes, watch, progress) {
                        self.stop_all(fleet).await;
                        return Err(Stop::Failed(words));
                    }
                    let just_lost = whole_before && self.spoiled;
                    if just_lost || (self.stopped.is_none() && self.need_not_go_on(watch)) {
                        fleet.stop(self.order.next.trial);
                        deadline = deadline.min(Instant::now() + STOP_LIMIT);
                    }
                }
                _ = ticks.tick() => progress.update(self.now(watch)),
                () = sleep_until(deadline) => {
                    fleet.stop(self.order.next.trial);
                    self.give_up(fleet);
                }
            }
        }
        Ok(())
    }

    /// Writes the minutes that are over by now.
    fn tell_minutes(
        &mut self,
        minutes: &mut MinuteLog<'_>,
        watch: &BacklogWatch,
        progress: &Progress,
    ) -> Result<(), String> {
        if !self.hold_start.told && !self.merge.reported().is_zero() {
            self.hold_start.told = true;
            minutes.begin(watch.newest());
        }
        let ended = self.merge.take_minutes();
        if ended.is_empty() { Ok(()) } else { minutes.write(ended, self.hold_start.at, &watch.newest(), progress) }
    }

    /// Whether the outcome is clear by now; what shows it is kept.
    fn need_not_go_on(&mut self, watch: &BacklogWatch) -> bool {
        let Some(search) = self.order.search else { return false };
        let reported = self.merge.reported();
        if reported.is_zero() || reported >= self.order.phases.hold {
            return false;
        }
        let blocks = measured::blocks(self.merge.blocks(), &self.order.plan.slo, Some(reported));
        let due = search.steady_load().and_then(|load| Due::at(load, &self.merge.blocks()[..blocks.len()]));
        let reads = watch.since(self.start_ns + nanos(self.order.phases.warmup));
        let hold = self.order.phases.hold;
        let reads = reads.iter().map(|reads| measured::reads(reads, hold, due.as_ref())).collect();
        let showing = Showing { blocks, reads };
        let stops = search.may_stop(&showing);
        if stops {
            self.stopped = Some(showing);
        }
        stops
    }

    fn take(&mut self, fleet: &mut Fleet, agent: usize, event: AgentEvent) {
        match event {
            AgentEvent::Snapshot(snapshot) => self.merge.add_snapshot(agent, &snapshot),
            AgentEvent::Totals(totals) => {
                self.released[agent] = Some(totals.warmup.attempted + totals.counters.attempted);
                self.spoiled |= totals.end == StepEnd::ShutDown;
                self.merge.add_totals(agent, *totals);
            }
            AgentEvent::Refused { words: why, .. } | AgentEvent::Lost(why) => self.lose(fleet, agent, why),
            AgentEvent::Calibrated(_) | AgentEvent::Prepared(_) | AgentEvent::Dealt(_) | AgentEvent::Armed(_) => {
                self.lose(fleet, agent, "answered what it was not asked".to_owned());
            }
        }
    }

    /// An agent that is lost after its totals came has done its part: the trial is as whole as it would be without that.
    fn lose(&mut self, fleet: &mut Fleet, agent: usize, why: String) {
        if std::mem::replace(&mut self.gone[agent], true) {
            return;
        }
        self.spoiled |= self.released[agent].is_none();
        self.merge.agent_lost(agent, self.elapsed(), why.clone());
        let after = self.elapsed().as_secs_f64();
        fleet.give_up_on(
            agent,
            format!("{why}, {after:.1} s after the start of step {}", self.order.next.trial.step + 1),
        );
    }

    /// Whoever has not sent its totals by now is lost.
    fn give_up(&mut self, fleet: &mut Fleet) {
        let missing: Vec<usize> = (0..fleet.len()).filter(|&agent| self.released[agent].is_none()).collect();
        missing.into_iter().for_each(|agent| self.lose(fleet, agent, "its totals did not come in time".to_owned()));
    }

    /// Every agent is silent when this returns, or has been told so and is out of reach.
    async fn stop_all(&mut self, fleet: &mut Fleet) {
        fleet.stop(self.order.next.trial);
        let ended = async {
            while !self.merge.is_complete() {
                let (agent, event) = fleet.next_event().await;
                self.take(fleet, agent, event);
            }
        };
        if timeout(STOP_LIMIT, ended).await.is_err() {
            tracing::warn!("not every agent confirmed that it stopped; their leases end with this process");
        }
    }

    fn elapsed(&self) -> Duration {
        Duration::from_nanos(boottime_ns().saturating_sub(self.start_ns))
    }

    fn now(&self, watch: &BacklogWatch) -> Now {
        let Phases { warmup, hold, .. } = self.order.phases;
        let elapsed = self.elapsed();
        let (phase, since, length) = if elapsed < warmup {
            (Phase::Warmup, Duration::ZERO, warmup)
        } else if elapsed < warmup + hold {
            (Phase::Hold, warmup, hold)
        } else {
            (Phase::Drain, warmup + hold, self.order.plan.request_timeout)
        };
        let idle = Now::idle(self.order.next, self.order.plan.steps_to_hold(), phase, length);
        Now { elapsed: elapsed - since, ..idle }.measured(&self.merge.progress(), watch.newest())
    }
}
