//! One trial over the whole fleet: armed, held, drained, and stopped everywhere at once when anything goes wrong.

use std::time::{Duration, SystemTime};

use plimsoll_agent::clock::boottime_ns;
use plimsoll_common::plan::{More, StepOrder};
use plimsoll_common::snapshot::StepEnd;
use plimsoll_common::units::Rate;
use plimsoll_proto::v1::coordinator_message::Message as ToAgent;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};

use super::Stop;
use super::backlog::BacklogWatch;
use super::fleet::{Fleet, FleetError, NotArmed};
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
use crate::core::split;
use crate::settings::{Goal, Phases, RunPlan};

/// Between the order and the start: time for the order to arrive and for every agent to say that it is armed.
const LEAD: Duration = Duration::from_millis(300);
/// And so many round trips of the slowest agent.
const LEAD_ROUND_TRIPS: u32 = 4;
/// So many starts are tried before whoever hears of them too late is lost, each with twice the time of the one before.
const MOST_STARTS: u32 = 4;
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
    let started = tokio::select! {
        biased;
        () = interrupt.raised() => {
            fleet.stop(order.next.trial);
            return Err(Stop::Interrupted);
        }
        started = start(fleet, order, progress) => started?,
    };
    let Started { merge, started_at, start_ns } = started;
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

/// A trial that every agent is armed for.
struct Started {
    merge: TrialMerge,
    started_at: SystemTime,
    start_ns: u64,
}

/// Has every agent armed for one instant. Where one hears of it too late (its network lost what was sent, its box is busy) all
/// are armed anew, for an instant that is twice as far away.
async fn start(fleet: &mut Fleet, order: &TrialOrder<'_>, progress: &Progress) -> Result<Started, Stop> {
    let of_users = users::due(order.plan, order.next.trial, order.shares, order.phases).await;
    let due = of_users.unwrap_or_else(|| {
        let due = |window| split::due(order.next.level, order.shares, window);
        due(order.phases.warmup).into_iter().zip(due(order.phases.hold)).collect()
    });
    let mut attempt = 1;
    loop {
        let clocks = fleet.clocks(order.plan.lease_timeout).await?;
        let slowest = clocks.iter().map(|clock| clock.error * 2).max().unwrap_or_default();
        let least = LEAD + slowest * LEAD_ROUND_TRIPS + users::time_to_begin(order.plan, order.shares);
        let lead = lead(least, attempt);
        let start_ns = boottime_ns() + nanos(lead);
        let started_at = SystemTime::now() + lead;
        let merge = TrialMerge::new(trial_plan(fleet, order, &clocks, due.clone(), start_ns));
        arm(fleet, order, &clocks, start_ns)?;
        let late = match fleet.armed(order.next.trial, lead, STOP_LIMIT).await {
            Ok(()) => return Ok(Started { merge, started_at, start_ns }),
            Err(NotArmed::Trouble(troubles)) => return Err(fleet.not_done(&troubles).into()),
            Err(NotArmed::TooLate(late)) => late,
        };
        let names: Vec<&str> = late.iter().map(|&agent| fleet.name(agent)).collect();
        let words = format!("heard too late of a start that was {} away", humantime::format_duration(whole_ms(lead)));
        if attempt == MOST_STARTS {
            let why = format!("it {words}, {MOST_STARTS} times in a row");
            late.iter().for_each(|&agent| fleet.give_up_on(agent, why.clone()));
            let lost = fleet.first_gone().expect("somebody was just given up");
            return Err(lost.into());
        }
        progress.say(&format!("warning: {} {words}: all are given twice the time", names.join(", ")));
        attempt += 1;
    }
}

/// The time to the instant of this attempt, of which the first is 1.
fn lead(least: Duration, attempt: u32) -> Duration {
    least * 2_u32.pow(attempt - 1)
}

fn whole_ms(length: Duration) -> Duration {
    Duration::from_millis(u64::try_from(length.as_millis()).unwrap_or(u64::MAX))
}

fn nanos(length: Duration) -> u64 {
    u64::try_from(length.as_nanos()).unwrap_or(u64::MAX)
}

fn trial_plan(
    fleet: &Fleet,
    order: &TrialOrder,
    clocks: &[ClockOffset],
    due: Vec<(u64, u64)>,
    start_boottime_ns: u64,
) -> TrialPlan {
    let part = |(index, (&share, &clock)): (usize, (&Rate, &ClockOffset))| AgentPart {
        agent: fleet.name(index).to_owned(),
        share,
        clock: Some(clock),
        due: Some(due[index]),
        server: fleet.server(index).map(str::to_owned),
    };
    TrialPlan {
        trial: order.next.trial,
        target: order.next.level,
        warmup: order.phases.warmup,
        hold: order.phases.hold,
        start_boottime_ns,
        limits: order.plan.slo.limits(),
        observations: order.plan.workload.observations().iter().map(|observed| observed.name.to_owned()).collect(),
        max_lateness: order.plan.max_lateness,
        minutes: (order.plan.goal == Goal::Soak).then_some(order.plan.request_timeout),
        agents: order.shares.iter().zip(clocks).enumerate().map(part).collect(),
    }
}

/// Gives every agent its share and the same start, each in its own clock.
fn arm(fleet: &mut Fleet, order: &TrialOrder<'_>, clocks: &[ClockOffset], start_ns: u64) -> Result<(), FleetError> {
    let (plan, trial) = (order.plan, order.next.trial);
    let starts: Vec<Option<u64>> = clocks.iter().map(|clock| clock.to_agent(start_ns)).collect();
    if let Some(index) = starts.iter().position(Option::is_none) {
        let why = "its clock lies before its own start".to_owned();
        fleet.give_up_on(index, why.clone());
        return Err(FleetError::Lost { agent: fleet.name(index).to_owned(), why });
    }
    let more = |window| {
        let due = split::due(order.next.level, order.shares, window);
        // Where levels are users, agents find out themselves what is due.
        let beyond =
            |(due, share): (u64, &Rate)| if plan.workload.daily().is_some() { 0 } else { due - share.due_in(window) };
        due.into_iter().zip(order.shares).map(beyond).collect::<Vec<u64>>()
    };
    let (in_warmup, in_hold) = (more(order.phases.warmup), more(order.phases.hold));
    for (index, (&share, start_boottime_ns)) in order.shares.iter().zip(starts.into_iter().flatten()).enumerate() {
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
            more: More { warmup: in_warmup[index] as u32, hold: in_hold[index] as u32 },
        };
        fleet.send(index, ToAgent::StartStep((&start).into()));
    }
    Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_start_has_twice_the_time_of_the_one_before() {
        let least = LEAD + Duration::from_millis(100);
        let leads: Vec<u128> = (1..=MOST_STARTS).map(|attempt| lead(least, attempt).as_millis()).collect();
        assert_eq!(leads, [400, 800, 1600, 3200]);
    }
}
