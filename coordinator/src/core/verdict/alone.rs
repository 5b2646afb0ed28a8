//! Load boxes that alone see an objective broken, while everybody else's operations hold all of them: a slow link, a far site, a box
//! behind a faulty switch. What such a box measures is its own way to the target, and no limit of the service.
//!
//! Rooms are owned by agents, so a service that fails some rooms only can look the same. Who holds the level again without
//! the box deals its rooms to the others: if these are slow too, it was the service.

use std::time::Duration;

use plimsoll_common::snapshot::SeriesCounts;

use super::reason::{Alone, Objective};
use super::{Breach, Doubt, Errors, backlog_breach, counts_of, errors, gates_of, is_broken};
use crate::core::measurement::{AgentMeasurement, StepMeasurement};
use crate::core::slo::Slo;

/// Of fewer operations a box's own part says nothing.
const ENOUGH: u64 = 20;

/// What one box saw of an objective that the whole fleet sees broken.
struct Seen<'a> {
    agent: &'a AgentMeasurement,
    bad: u64,
    of: u64,
    is_broken: bool,
}

/// The boxes that alone break the trial's objectives, each with what it shows most of; none where others do too, or where the
/// service has shown by a backlog that it is behind.
pub fn alone(step: &StepMeasurement, slo: &Slo) -> Vec<Doubt> {
    let behind = step.backlog.iter().any(|durable| backlog_breach(durable, slo).is_some());
    if behind || step.agents.len() < 2 {
        return Vec::new();
    }
    let disturbing = slo.tightest_limit().unwrap_or(Duration::MAX) / 10;
    let is_blocked = |agent: &AgentMeasurement| agent.health.write_blocked > disturbing;
    let mut found: Vec<(&AgentMeasurement, Alone)> = Vec::new();
    for (what, seen) in broken(step, slo) {
        let is_apart = |seen: &&Seen| {
            let mostly = seen.bad.saturating_mul(2) >= seen.of;
            seen.of >= ENOUGH && (mostly || (is_blocked(seen.agent) && seen.is_broken))
        };
        let (all_bad, all) = seen.iter().fold((0, 0), |(bad, of), seen| (bad + seen.bad, of + seen.of));
        for apart in seen.iter().filter(is_apart) {
            if found.iter().all(|(agent, _)| agent.agent != apart.agent.agent) {
                let alone = Alone {
                    objective: what.clone(),
                    bad: apart.bad,
                    of: apart.of,
                    others_bad: all_bad - apart.bad,
                    others: all - apart.of,
                    write_blocked: apart.agent.health.write_blocked,
                };
                found.push((apart.agent, alone));
            }
        }
    }
    let is_apart = |agent: &AgentMeasurement| found.iter().any(|(apart, _)| apart.agent == agent.agent);
    let (apart, rest): (Vec<&AgentMeasurement>, Vec<&AgentMeasurement>) =
        step.agents.iter().partition(|agent| is_apart(agent));
    let is_excused = !apart.is_empty()
        && apart.len() <= rest.len()
        && hold(step, slo, &rest)
        // Where all who talk to one server of the target are slow, that server is.
        && apart.iter().all(|slow| rest.iter().any(|other| other.server == slow.server))
        && rest.iter().all(|other| !is_blocked(other) || apart.iter().all(|slow| !is_blocked(slow)));
    let doubt = |(agent, alone): (&AgentMeasurement, Alone)| Doubt::SlowAlone { agent: agent.agent.clone(), alone };
    if is_excused { found.into_iter().map(doubt).collect() } else { Vec::new() }
}

/// What the whole fleet sees broken, by the counts that no box's stalls have spoiled, and what each box saw of it.
fn broken<'a>(step: &'a StepMeasurement, slo: &'a Slo) -> Vec<(Objective, Vec<Seen<'a>>)> {
    let percentiles = gates_of(step, slo).filter_map(|(_, series, gate)| {
        let above = |counts: &SeriesCounts| counts.above_anyway[gate.above_index];
        is_broken(&gate, above(&series.counts), series.counts.n).then(|| {
            let seen = |agent| {
                let counts = counts_of(agent, &series.series, step)?;
                let (bad, of) = (above(counts), counts.n);
                Some(Seen { agent, bad, of, is_broken: is_broken(&gate, bad, of) })
            };
            let what = Objective::Limit { series: series.series.clone(), limit: gate.limit };
            (what, step.agents.iter().filter_map(seen).collect())
        })
    });
    let of_series = super::errors::breaches(step, slo).into_iter().filter_map(|breach| {
        let Breach::SeriesErrors { series, errors } = breach else { return None };
        let seen = |agent| {
            let counts = counts_of(agent, &series, step)?;
            let own = Errors { errors: counts.failed_anyway, attempted: counts.ended(), ..errors };
            Some(Seen { agent, bad: own.errors, of: own.attempted, is_broken: !own.hold() })
        };
        Some((Objective::ErrorsOf(series.clone()), step.agents.iter().filter_map(seen).collect()))
    });
    let anyway = Errors { errors: step.counters.failed_anyway, ..errors(step, slo) };
    let rate = (!anyway.hold()).then(|| {
        let seen = |agent: &'a AgentMeasurement| {
            let (bad, of) = (agent.counters.failed_anyway, agent.counters.attempted);
            Seen { agent, bad, of, is_broken: !Errors { errors: bad, attempted: of, ..anyway }.hold() }
        };
        (Objective::Errors, step.agents.iter().map(seen).collect())
    });
    percentiles.chain(of_series).chain(rate).collect()
}

/// Whether these agents' operations hold every objective, their boxes' stalls included, and are as many as were due.
fn hold(step: &StepMeasurement, slo: &Slo, agents: &[&AgentMeasurement]) -> bool {
    let sum = |of: &dyn Fn(&AgentMeasurement) -> u64| agents.iter().map(|agent| of(agent)).sum::<u64>();
    let (due, never_left) = (sum(&|agent| agent.counters.due), sum(&|agent| agent.counters.never_left()));
    let (attempted, failed) = (sum(&|agent| agent.counters.attempted), sum(&|agent| agent.counters.errors()));
    let sent = attempted >= ENOUGH && slo.rate_tolerance.holds(never_left, due);
    let percentiles = gates_of(step, slo).all(|(objective, series, gate)| {
        let of = |count: fn(&SeriesCounts, usize) -> u64| {
            sum(&|agent| counts_of(agent, &series.series, step).map_or(0, |counts| count(counts, gate.above_index)))
        };
        let (n, above) = (of(|counts, _| counts.n), of(|counts, index| counts.above[index]));
        let refused = Errors { errors: of(|c, _| c.errors()), attempted: of(|c, _| c.ended()), limit: slo.error_rate };
        !is_broken(&gate, above, n) && !super::errors::is_broken_by(objective, refused, attempted)
    });
    sent && percentiles && slo.error_rate.holds(failed, attempted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::fixture::{measurement, slo};
    use crate::core::verdict::{Verdict, judge, judge_as_one};

    /// Four boxes of 5,000 operations each that hold everything.
    fn fleet() -> StepMeasurement {
        let mut step = measurement();
        let more: Vec<AgentMeasurement> = ["box-c", "box-d"]
            .into_iter()
            .map(|name| AgentMeasurement { agent: name.into(), ..step.agents[0].clone() })
            .collect();
        step.agents.extend(more);
        let as_many = step.counters;
        step.counters.add(&as_many);
        step.series.iter_mut().for_each(|series| series.counts.n *= 2);
        step
    }

    /// So many of an agent's operations in E1 are above 100 ms.
    fn slow(step: &mut StepMeasurement, agent: usize, above: u64) {
        for counts in [&mut step.series[0].counts, &mut step.agents[agent].series[0]] {
            counts.above[0] += above;
            counts.above_anyway[0] += above;
        }
    }

    fn names(verdict: &Verdict) -> String {
        let Verdict::Inconclusive(doubts) = verdict else { return verdict.word().to_owned() };
        let name = |doubt: &Doubt| match doubt {
            Doubt::SlowAlone { agent, alone } => {
                format!("{agent} {}/{} others {}/{}", alone.bad, alone.of, alone.others_bad, alone.others)
            }
            other => format!("{other:?}"),
        };
        doubts.iter().map(name).collect::<Vec<_>>().join(", ")
    }

    fn judged(change: impl FnOnce(&mut StepMeasurement)) -> String {
        let mut step = fleet();
        change(&mut step);
        names(&judge(&step, &slo()))
    }

    #[test]
    fn a_box_that_alone_is_slow_trips_nobody_and_is_named() {
        assert_eq!(judged(|_| {}), "PASS");
        assert_eq!(judged(|step| slow(step, 1, 2_500)), "box-b 2500/5000 others 0/15000");
        assert_eq!(
            judged(|step| (0..2).for_each(|i| slow(step, i, 5_000))),
            "box-a 5000/5000 others 5000/15000, box-b 5000/5000 others 5000/15000"
        );
        // Where it is held again as one fleet, it is the service.
        let mut step = fleet();
        slow(&mut step, 1, 5_000);
        assert_eq!(judge_as_one(&step, &slo()).word(), "TRIP");
    }

    #[test]
    fn a_service_that_is_slow_to_more_than_one_box_trips() {
        // The others do not hold either.
        assert_eq!(
            judged(|step| {
                slow(step, 1, 5_000);
                slow(step, 2, 751);
            }),
            "TRIP"
        );
        // Most boxes are slow: who is alone is the fast one.
        assert_eq!(judged(|step| (0..3).for_each(|i| slow(step, i, 5_000))), "TRIP");
        // Most of what it did was as fast as that of the others.
        assert_eq!(judged(|step| slow(step, 1, 2_499)), "TRIP");
        // The others did not make their load.
        assert_eq!(
            judged(|step| {
                slow(step, 1, 5_000);
                for counters in [&mut step.counters, &mut step.agents[0].counters] {
                    counters.attempted -= 1_000;
                    counters.underrun += 1_000;
                }
            }),
            "TRIP"
        );
        // The service is behind.
        assert_eq!(
            judged(|step| {
                slow(step, 1, 5_000);
                step.backlog[0] = crate::core::fixture::durable("message-worker", 1_001);
            }),
            "TRIP"
        );
        let mut alone = measurement();
        alone.agents.truncate(1);
        slow(&mut alone, 0, 5_000);
        assert_eq!(judge(&alone, &slo()).word(), "TRIP");
    }

    #[test]
    fn a_server_of_the_target_that_is_slow_to_all_who_talk_to_it_trips() {
        let with = |servers: [&str; 4]| {
            judged(|step| {
                slow(step, 1, 5_000);
                step.agents.iter_mut().zip(servers).for_each(|(agent, server)| agent.server = Some(server.into()));
            })
        };
        assert_eq!(with(["n1", "n2", "n1", "n1"]), "TRIP");
        assert_eq!(with(["n1", "n2", "n1", "n2"]), "box-b 5000/5000 others 0/15000");
    }

    #[test]
    fn of_a_box_whose_writes_alone_are_blocked_a_broken_objective_is_enough() {
        let blocked = |step: &mut StepMeasurement, agent: usize| {
            step.agents[agent].health.write_blocked = Duration::from_millis(11);
        };
        let few = 1_500;
        assert_eq!(judged(|step| slow(step, 1, few)), "TRIP");
        assert_eq!(
            judged(|step| {
                slow(step, 1, few);
                blocked(step, 1);
            }),
            "box-b 1500/5000 others 0/15000"
        );
        // A target that takes nothing in blocks everybody.
        assert_eq!(
            judged(|step| {
                slow(step, 1, few);
                (0..4).for_each(|agent| blocked(step, agent));
            }),
            "TRIP"
        );
    }

    #[test]
    fn a_box_whose_operations_alone_fail_trips_nobody() {
        let failing = |failed: u64| {
            judged(|step| {
                for counters in [&mut step.counters, &mut step.agents[1].counters] {
                    counters.completed -= failed;
                    counters.failed.timeout += failed;
                    counters.failed_anyway += failed;
                }
            })
        };
        assert_eq!(failing(2_500), "box-b 2500/5000 others 0/15000");
        assert_eq!(failing(2_499), "TRIP");
    }
}
