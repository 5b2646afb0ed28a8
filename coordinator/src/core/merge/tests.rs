use super::*;
use crate::core::backlog::{BacklogRead, DurableName, DurableState};
use crate::core::measurement::{Fault, Mismatch, StartLag, SumOf};
use plimsoll_common::snapshot::{BlockDelta, Failed, Health, SeriesHistograms, Stall, StepEnd, UsersOnline};
use proptest::prelude::*;

const LIMITS_US: [u64; 2] = [100_000, 250_000];
const TRIAL: TrialId = TrialId { step: 1, trial: 0 };

/// One second of warmup, two of hold (blocks 0 to 3), one series, and as many due as each agent has operations.
fn plan(operations: &[usize]) -> TrialPlan {
    let agents = operations.iter().enumerate().map(|(index, &count)| AgentPart {
        due: None,
        server: None,
        agent: format!("box-{index}"),
        share: Rate::from_milli(count as u64 * 500).unwrap(),
        clock: Some(ClockOffset { offset_ns: 1_000, error: Duration::from_nanos(50) }),
    });
    TrialPlan {
        trial: TRIAL,
        target: Rate::from_milli(operations.iter().sum::<usize>() as u64 * 500).unwrap(),
        warmup: Duration::from_secs(1),
        hold: Duration::from_secs(2),
        start_boottime_ns: 5_000,
        limits: vec![SeriesLimits { series: "E1".into(), limits_us: LIMITS_US.to_vec() }],
        observations: vec!["rows".into()],
        max_lateness: Duration::from_millis(100),
        minutes: None,
        agents: agents.collect(),
    }
}

/// What an agent sends whose operations, two to a snapshot, took so long.
fn sent(latencies_us: &[u64]) -> (Vec<Snapshot>, StepTotals) {
    let snapshots: Vec<Snapshot> =
        latencies_us.chunks(2).enumerate().map(|(number, chunk)| snapshot(number as u32, chunk)).collect();
    let mut totals = StepTotals {
        trial: TRIAL,
        snapshots: snapshots.len() as u32,
        counters: Counters::default(),
        series: vec![SeriesCounts::zero(2)],
        samples: vec![latencies_us.len() as u64],
        strays: Strays::default(),
        warmup: Counters::default(),
        started_boottime_ns: 6_070,
        end: StepEnd::Finished,
        observed: vec![Observed::new("rows")],
    };
    for snapshot in &snapshots {
        totals.warmup.add(&snapshot.warmup);
        totals.strays.add(&snapshot.strays);
        totals.observed[0].add(&snapshot.observed[0]);
        for delta in &snapshot.blocks {
            totals.counters.add(&delta.counters);
            totals.series[0].add(&delta.series[0]);
        }
    }
    (snapshots, totals)
}

fn snapshot(number: u32, latencies_us: &[u64]) -> Snapshot {
    let mut latency = LatencyHistogram::new();
    latencies_us.iter().for_each(|&us| latency.record(us));
    let n = latencies_us.len() as u64;
    let above: Vec<u64> =
        LIMITS_US.iter().map(|limit| latencies_us.iter().filter(|us| *us > limit).count() as u64).collect();
    let counters = Counters { due: n, attempted: n, sent: n, completed: n, ..Counters::default() };
    Snapshot {
        trial: TRIAL,
        number,
        blocks: vec![BlockDelta {
            block: number % 4,
            counters,
            series: vec![SeriesCounts { n, above: above.clone(), above_anyway: above, ..SeriesCounts::default() }],
        }],
        series: vec![SeriesHistograms { service_time: latency.clone(), latency }],
        overdue: vec![vec![0, 0]],
        strays: Strays { foreign: 1, duplicate: 0, late: 0 },
        warmup: Counters::default(),
        health: Health { in_flight_sum: 2, in_flight_samples: 1, process_cpu_milli: 300, ..Health::default() },
        open_time_us: latencies_us.iter().sum(),
        observed: vec![Observed { name: "rows".into(), count: 1, sum: 20, max: 20 }],
    }
}

fn merged(agents: &[Vec<u64>]) -> StepMeasurement {
    let mut merge = TrialMerge::new(plan(&agents.iter().map(Vec::len).collect::<Vec<_>>()));
    for (index, latencies) in agents.iter().enumerate() {
        let (snapshots, totals) = sent(latencies);
        snapshots.iter().for_each(|snapshot| merge.add_snapshot(index, snapshot));
        merge.add_totals(index, totals);
    }
    assert!(merge.is_complete());
    merge.finish(&ServiceReads::default())
}

/// The faults of one agent of four operations in two snapshots, after `change` has been at what it sends.
fn faults(change: impl FnOnce(&mut Vec<Snapshot>, &mut StepTotals)) -> Vec<Fault> {
    let (mut snapshots, mut totals) = sent(&[10, 20, 30, 40]);
    change(&mut snapshots, &mut totals);
    let mut merge = TrialMerge::new(plan(&[4]));
    snapshots.iter().for_each(|snapshot| merge.add_snapshot(0, snapshot));
    merge.add_totals(0, totals);
    merge.finish(&ServiceReads::default()).faults
}

fn mismatches(change: impl FnOnce(&mut Vec<Snapshot>, &mut StepTotals)) -> Vec<Mismatch> {
    let mismatch = |fault| match fault {
        Fault::DoesNotAddUp { agent, mismatch } if agent == "box-0" => mismatch,
        other => panic!("{other:?}"),
    };
    faults(change).into_iter().map(mismatch).collect()
}

#[test]
fn what_adds_up_has_no_faults() {
    let step = merged(&[vec![10, 20, 120_000, 300_000], vec![50, 60]]);
    assert_eq!(step.faults, vec![]);
    assert_eq!((step.counters.attempted, step.counters.completed, step.strays.foreign), (6, 6, 3));
    assert_eq!(
        step.series[0].counts,
        SeriesCounts { n: 6, above: vec![2, 1], above_anyway: vec![2, 1], ..SeriesCounts::default() }
    );
    assert_eq!(step.blocks.iter().map(|block| block.counters.due).collect::<Vec<_>>(), [4, 2, 0, 0]);
    assert_eq!((step.achieved_rate(), step.completion_rate(), step.error_rate()), (3.0, 3.0, Some(0.0)));
}

#[test]
fn percentiles_of_the_merge_are_not_the_mean_of_the_agents() {
    let (quick, slow) = (vec![1_000; 990], vec![200_000; 10]);
    let p99 = |latencies: &[u64]| {
        sent(latencies).0.iter().fold(LatencyHistogram::new(), |mut sum, snapshot| {
            sum.add(&snapshot.series[0].latency);
            sum
        })
    };
    let mean = (p99(&quick).quantile_us(0.99).unwrap() + p99(&slow).quantile_us(0.99).unwrap()) / 2;
    assert!((100_000..101_000).contains(&mean));
    assert_eq!(merged(&[quick, slow]).series[0].latency.quantile_us(0.99), Some(1_000));
}

#[test]
fn a_difference_to_the_totals_is_named() {
    let sum = |of| vec![Mismatch::Sum { of }];
    for (what, got, expected) in [
        ("counters", mismatches(|_, totals| totals.counters.completed -= 1), sum(SumOf::Counters)),
        ("series", mismatches(|_, totals| totals.series[0].above[1] = 1), sum(SumOf::Series)),
        ("samples", mismatches(|_, totals| totals.samples[0] = 5), sum(SumOf::Series)),
        ("strays", mismatches(|_, totals| totals.strays.late = 1), sum(SumOf::Strays)),
        ("observations", mismatches(|_, totals| totals.observed[0].max = 21), sum(SumOf::Observed)),
        ("warmup", mismatches(|_, totals| totals.warmup.due = 1), sum(SumOf::Warmup)),
        ("snapshots", mismatches(|_, t| t.snapshots = 3), vec![Mismatch::Snapshots { sent: 3, received: 2 }]),
        (
            "trial",
            mismatches(|_, totals| totals.trial.step = 9),
            vec![Mismatch::Trial { expected: TRIAL, got: TrialId { step: 9, trial: 0 } }, Mismatch::NoTotals],
        ),
    ] {
        assert_eq!(got, expected, "{what}");
    }
}

#[test]
fn snapshots_are_numbered_without_gaps() {
    let first = |change: fn(&mut Vec<Snapshot>, &mut StepTotals)| mismatches(change).remove(0);
    assert_eq!(first(|snapshots, _| snapshots[1].number = 2), Mismatch::Numbering { expected: 1, got: 2 });
    assert_eq!(first(|s, _| s[1].number = u32::MAX), Mismatch::Numbering { expected: 1, got: u32::MAX });
    assert_eq!(first(|snapshots, _| drop(snapshots.remove(0))), Mismatch::Numbering { expected: 0, got: 1 });
    assert_eq!(first(|s, _| s.push(s[1].clone())), Mismatch::Numbering { expected: 2, got: 1 });
    assert_eq!(first(|snapshots, _| snapshots.swap(0, 1)), Mismatch::Numbering { expected: 0, got: 1 });
    assert_eq!(first(|snapshots, _| drop(snapshots.pop())), Mismatch::Snapshots { sent: 2, received: 1 });
}

#[test]
fn a_snapshot_that_cannot_belong_to_the_trial_changes_nothing_but_the_faults() {
    let first = |change: fn(&mut Snapshot)| mismatches(|snapshots, _| change(&mut snapshots[1])).remove(0);
    let other = TrialId { step: 1, trial: 1 };
    assert_eq!(first(|snapshot| snapshot.trial.trial = 1), Mismatch::Trial { expected: TRIAL, got: other });
    assert_eq!(first(|snapshot| snapshot.series.clear()), Mismatch::Shape);
    assert_eq!(first(|snapshot| snapshot.blocks[0].series.clear()), Mismatch::Shape);
    assert_eq!(first(|snapshot| snapshot.blocks[0].series[0].above.push(1)), Mismatch::Shape);
    assert_eq!(first(|snapshot| snapshot.overdue[0].push(1)), Mismatch::Shape);
    assert_eq!(first(|snapshot| snapshot.blocks[0].block = 4), Mismatch::Block { block: 4, blocks: 4 });
    assert_eq!(first(|snapshot| snapshot.blocks[0].counters.lost = 1 << 48), Mismatch::Implausible);
    assert_eq!(first(|snapshot| snapshot.warmup.due = 1 << 48), Mismatch::Implausible);
    assert_eq!(first(|snapshot| snapshot.blocks[0].series[0].above[0] = 1 << 48), Mismatch::Implausible);
}

#[test]
fn due_is_what_the_coordinators_own_schedule_says() {
    let got = mismatches(|snapshots, totals| {
        for counters in [&mut snapshots[0].blocks[0].counters, &mut totals.counters] {
            counters.due += 1;
            counters.underrun += 1;
        }
    });
    assert_eq!(got, [Mismatch::Due { expected: 4, got: 5 }]);
}

#[test]
fn users_who_were_not_there_as_the_trial_began_are_due_nothing_and_those_who_are_lost_later_all() {
    // Two users, of whom so many are online in each block, make so many operations of the four that are due.
    let got = |online: [u64; 2], operations: usize| {
        mismatches(|snapshots, totals| {
            (*snapshots, *totals) = sent(&[10, 20, 30, 40, 50][..operations]);
            for (snapshot, online) in snapshots.iter_mut().zip(online.into_iter().chain([1])) {
                snapshot.health.users = Some(UsersOnline { online, connections: 2 });
            }
        })
    };
    let off = |got| vec![Mismatch::Due { expected: 4, got }];
    for online in [[2, 2], [2, 0], [1, 2]] {
        assert_eq!([got(online, 3), got(online, 4), got(online, 5)], [off(3), vec![], off(5)], "{online:?}");
    }
    assert_eq!([got([1, 1], 3), got([1, 1], 4), got([1, 1], 5)], [vec![], vec![], off(5)]);
}

#[test]
fn every_attempted_operation_ends_exactly_once() {
    let got = mismatches(|snapshots, totals| {
        for counters in [&mut snapshots[0].blocks[0].counters, &mut totals.counters] {
            counters.failed = Failed { timeout: 1, ..Failed::default() };
        }
    });
    assert_eq!(got, [Mismatch::Unaccounted]);
}

#[test]
fn a_series_has_as_many_samples_as_it_counts() {
    let got = mismatches(|snapshots, totals| {
        snapshots[0].series[0].latency.record(7);
        totals.samples[0] += 1;
    });
    assert_eq!(got, [Mismatch::Samples { series: "E1".into(), counted: 4, recorded: 5 }]);
}

#[test]
fn an_agent_that_never_says_its_totals_or_is_lost_is_a_fault() {
    let mut merge = TrialMerge::new(plan(&[4, 4]));
    assert!(!merge.is_complete());
    merge.agent_lost(1, Duration::from_secs(2), "connection reset".into());
    sent(&[1, 2, 3, 4]).0.iter().for_each(|snapshot| merge.add_snapshot(1, snapshot));
    let step = merge.finish(&ServiceReads::default());
    assert_eq!(
        step.faults,
        [
            Fault::AgentLost { agent: "box-1".into(), after: Duration::from_secs(2), why: "connection reset".into() },
            Fault::DoesNotAddUp { agent: "box-0".into(), mismatch: Mismatch::NoTotals },
        ],
        "who was lost stands before whom that stopped"
    );
    assert_eq!(step.counters.attempted, 0);
}

#[test]
fn a_session_that_ends_after_its_totals_loses_nothing() {
    let mut merge = TrialMerge::new(plan(&[2]));
    let (snapshots, totals) = sent(&[1, 2]);
    merge.add_snapshot(0, &snapshots[0]);
    merge.add_totals(0, totals);
    merge.agent_lost(0, Duration::from_secs(9), "bye".into());
    assert_eq!(merge.finish(&ServiceReads::default()).faults, []);
}

#[test]
fn a_trial_that_was_stopped_ended_early() {
    let got = faults(|_, totals| totals.end = StepEnd::Stopped);
    assert_eq!(got, [Fault::EndedEarly { agent: "box-0".into(), end: StepEnd::Stopped }]);
}

#[test]
fn progress_adds_the_overdue_operations_of_the_newest_snapshots() {
    let mut merge = TrialMerge::new(plan(&[4, 4]));
    for (agent, number, overdue) in [(0, 0, [9, 9]), (0, 1, [5, 1]), (1, 0, [2, 0])] {
        let snapshot = Snapshot { overdue: vec![overdue.to_vec()], ..snapshot(number, &[10]) };
        merge.add_snapshot(agent, &snapshot);
    }
    let progress = merge.progress();
    assert_eq!(progress.series[0].overdue, [7, 1]);
    assert_eq!((progress.counters.completed, progress.series[0].p99), (3, Some(Duration::from_micros(10))));
    merge.agent_lost(1, Duration::ZERO, String::new());
    assert_eq!(merge.progress().series[0].overdue, [5, 1]);
}

#[test]
fn progress_adds_the_users_of_the_newest_blocks_of_agents_that_are_there() {
    let mut merge = TrialMerge::new(plan(&[4, 4]));
    assert_eq!(merge.progress().online, None);
    merge.add_snapshot(0, &snapshot(0, &[10]));
    assert_eq!(merge.progress().online, None, "levels are rates");
    for (agent, number, online) in [(0, 1, 3), (0, 2, 2), (1, 0, 4)] {
        let mut of_users = snapshot(number, &[10]);
        of_users.health.users = Some(UsersOnline { online, connections: 9 });
        merge.add_snapshot(agent, &of_users);
    }
    assert_eq!(merge.progress().online, Some(2 + 4));
    merge.agent_lost(1, Duration::ZERO, String::new());
    assert_eq!(merge.progress().online, Some(2));
}

#[test]
fn skew_is_between_the_earliest_and_the_latest_start_with_its_error() {
    let step = merged(&[vec![1, 2], vec![1, 2]]);
    assert_eq!(
        step.agents[0].start,
        Some(StartLag { lag_ns: 70, error: Duration::from_nanos(50), own_boottime_ns: 6_070 })
    );
    assert_eq!(step.skew(), Some((Duration::ZERO, Duration::from_nanos(100))));
}

#[test]
fn littles_law_compares_the_samples_in_flight_with_rate_and_time() {
    // 4 operations of 1 s each in a hold of 2 s: 2 in flight.
    let check = |in_flight_sum| {
        let (mut snapshots, totals) = sent(&[1_000_000; 4]);
        for snapshot in &mut snapshots {
            (snapshot.health.in_flight_sum, snapshot.health.in_flight_samples) = (in_flight_sum, 1_000);
        }
        let mut merge = TrialMerge::new(plan(&[4]));
        snapshots.iter().for_each(|snapshot| merge.add_snapshot(0, snapshot));
        merge.add_totals(0, totals);
        merge.finish(&ServiceReads::default()).little
    };
    let held = |in_flight_sum| check(in_flight_sum).map(|check| check.holds());
    assert_eq!(check(2_000), Some(LittleCheck { in_flight: 2.0, expected: 2.0 }));
    assert_eq!(
        (held(1_901), held(1_899), held(2_099), held(2_101)),
        (Some(true), Some(false), Some(true), Some(false))
    );
    assert_eq!(check(1_000), None, "too few samples to say");
}

#[test]
fn a_block_is_void_when_any_agent_stalled_in_it_for_over_a_tenth_of_the_tightest_limit() {
    let mut merge = TrialMerge::new(plan(&[4, 4]));
    // Wall block 2 is the first of the hold, after one second of warmup.
    for (agent, number, stall) in
        [(0, 2, Stall::Bounded(10_000)), (1, 3, Stall::Bounded(10_001)), (0, 5, Stall::Unbounded)]
    {
        let mut snapshot = snapshot(number, &[]);
        snapshot.health.stall = stall;
        merge.add_snapshot(agent, &snapshot);
    }
    let step = merge.finish(&ServiceReads::default());
    assert_eq!(step.blocks.iter().map(|block| block.void).collect::<Vec<_>>(), [false, true, false, true]);
    assert_eq!(step.agents.iter().map(|agent| agent.health.void_blocks).collect::<Vec<_>>(), [1, 1]);
    assert_eq!(step.agents[0].health.worst_stall, Stall::Unbounded);
}

#[test]
fn a_block_is_spoilt_by_an_agent_that_left_out_or_spoiled_more_than_one_in_a_hundred_of_it() {
    let mut merge = TrialMerge::new(plan(&[400, 400]));
    // What is left out of a block may be told after what was due in it.
    for (number, block, due, underrun) in [(2, 0, 100, 0), (3, 0, 0, 1), (4, 1, 100, 0), (5, 1, 0, 2), (6, 3, 50, 50)] {
        let mut snapshot = snapshot(number, &[]);
        let delta = &mut snapshot.blocks[0];
        delta.block = block;
        delta.counters = Counters { due, underrun, attempted: due.saturating_sub(underrun), ..Counters::default() };
        merge.add_snapshot(0, &snapshot);
    }
    // Slower than a limit by the service is no matter of the box; what its stalls alone made slower is.
    for (number, block, above, above_anyway) in [(2, 2, [50, 9], [50, 9]), (3, 3, [7, 3], [5, 3])] {
        let mut snapshot = snapshot(number, &[]);
        let delta = &mut snapshot.blocks[0];
        delta.block = block;
        delta.counters = Counters { due: 100, attempted: 100, ..Counters::default() };
        delta.series[0] =
            SeriesCounts { n: 100, above: above.into(), above_anyway: above_anyway.into(), ..SeriesCounts::default() };
        merge.add_snapshot(1, &snapshot);
    }
    let step = merge.finish(&ServiceReads::default());
    assert_eq!(step.agents.iter().map(|agent| agent.health.spoilt_blocks).collect::<Vec<_>>(), [2, 1]);
}

#[test]
fn the_services_backlog_and_streams_are_part_of_the_measurement() {
    let name = DurableName { stream: "M".into(), durable: "d".into() };
    let reads = vec![BacklogRead { at: Duration::from_secs(1), state: DurableState::Gone }];
    let service = ServiceReads {
        durables: vec![DurableReads { name, baseline: None, reads }],
        streams: vec![StreamGrowth { stream: "M".into(), messages: 10 }],
    };
    let mut merge = TrialMerge::new(plan(&[4]));
    merge.add_snapshot(0, &snapshot(0, &[1, 2]));
    let step = merge.finish(&service);
    assert_eq!((step.backlog.len(), step.streams[0].sent, step.streams[0].grew), (1, 2, 10));
}

proptest! {
    #[test]
    fn order_of_merging_agents_does_not_matter_and_the_merge_is_one_histogram_of_all_samples(
        agents in prop::collection::vec(prop::collection::vec(1_u64..70_000_000, 1..40), 1..6),
        picks in prop::collection::vec(any::<prop::sample::Index>(), 0..200),
    ) {
        let straight = merged(&agents);
        prop_assert_eq!(&straight.faults, &vec![]);

        // Interleaved: each pick sends the next snapshot of some agent; the rest follows in reverse.
        let mut merge = TrialMerge::new(plan(&agents.iter().map(Vec::len).collect::<Vec<_>>()));
        let sent: Vec<_> = agents.iter().map(|latencies| sent(latencies)).collect();
        let mut next = vec![0; agents.len()];
        let order = picks.iter().map(|pick| pick.index(agents.len())).chain((0..agents.len()).rev().flat_map(|i| [i; 20]));
        for agent in order {
            if let Some(snapshot) = sent[agent].0.get(next[agent]) {
                merge.add_snapshot(agent, snapshot);
                next[agent] += 1;
            }
        }
        sent.into_iter().enumerate().for_each(|(agent, (_, totals))| merge.add_totals(agent, totals));
        let interleaved = merge.finish(&ServiceReads::default());
        prop_assert_eq!(&straight, &interleaved);

        let mut one = LatencyHistogram::new();
        agents.iter().flatten().for_each(|&us| one.record(us));
        prop_assert_eq!(&straight.series[0].latency, &one);
        for quantile in [0.5, 0.95, 0.99, 1.0] {
            prop_assert_eq!(straight.series[0].latency.quantile_us(quantile), one.quantile_us(quantile));
        }
        let mut batches = LatencyHistogram::new();
        straight.batches.iter().for_each(|batch| batches.add(&batch.latency[0]));
        prop_assert_eq!(&batches, &one);
    }
}

#[test]
fn a_box_that_alone_hears_nothing_makes_a_trial_untrusted() {
    // Blocks 2 to 5 of wall time are the hold's.
    let silent = |number: u32, silent: bool, stall: Stall| {
        let mut sent = snapshot(number, if silent { &[] } else { &[10, 20] });
        if silent {
            (sent.blocks, sent.strays) = (vec![], Strays::default());
        }
        sent.health = Health { in_flight_max: 40, stall, ..sent.health };
        sent
    };
    let faults = |silent_blocks: std::ops::Range<u32>, stall: Stall| {
        let mut merge = TrialMerge::new(plan(&[12, 12]));
        for number in 0..6 {
            merge.add_snapshot(0, &silent(number, false, Stall::default()));
            merge.add_snapshot(1, &silent(number, silent_blocks.contains(&number), stall));
        }
        let faults = merge.finish(&ServiceReads::default()).faults;
        faults.into_iter().filter(|fault| matches!(fault, Fault::CutOff { .. })).collect::<Vec<_>>()
    };
    let cut_off = Fault::CutOff { agent: "box-1".into(), length: Duration::from_millis(1500), one_of_many: false };
    assert_eq!(faults(3..6, Stall::default()), [cut_off]);
    assert_eq!(faults(3..4, Stall::default()), [], "half a second is no accident to speak of");
    assert_eq!(faults(0..2, Stall::default()), [], "the warmup counts for nothing");
    assert_eq!(faults(3..6, Stall::Bounded(400_000)), [], "a box that stands still says so itself");
}

#[test]
fn many_who_hear_nothing_may_be_the_targets_doing() {
    // Who is silent, on which servers; who of them is one of many.
    let cut_off = |servers: [&str; 4], silent: &[usize]| {
        let mut plan = plan(&[12; 4]);
        plan.agents.iter_mut().zip(servers).for_each(|(part, server)| part.server = Some(server.into()));
        let mut merge = TrialMerge::new(plan);
        for (number, agent) in (0..6).flat_map(|number| (0..4).map(move |agent| (number, agent))) {
            let mut sent = snapshot(number, &[10, 20]);
            if silent.contains(&agent) && number >= 3 {
                (sent.blocks, sent.strays) = (vec![], Strays::default());
            }
            sent.health = Health { in_flight_max: 40, ..sent.health };
            merge.add_snapshot(agent, &sent);
        }
        let of_many = |fault: &Fault| match fault {
            Fault::CutOff { one_of_many, .. } => Some(*one_of_many),
            _ => None,
        };
        merge.finish(&ServiceReads::default()).faults.iter().filter_map(of_many).collect::<Vec<_>>()
    };
    let one = ["n1"; 4];
    assert_eq!(cut_off(one, &[1]), [false]);
    assert_eq!(cut_off(one, &[1, 2]), [false, false]);
    assert_eq!(cut_off(one, &[1, 2, 3]), [true, true, true]);
    assert_eq!(cut_off(["n1", "n1", "n2", "n2"], &[2, 3]), [true, true]);
    assert_eq!(cut_off(["n1", "n1", "n2", "n2"], &[1, 3]), [false, false]);
    assert_eq!(cut_off(["n1", "n1", "n1", "n2"], &[3]), [false]);
}

/// The samples of each batch of a hold of 2 s after a warmup of 1 s, sent as one snapshot per block.
fn batches(hold: Duration, snapshots: u32) -> Vec<(u32, u64)> {
    let mut merge = TrialMerge::new(TrialPlan { hold, ..plan(&[4]) });
    (0..snapshots).for_each(|number| merge.add_snapshot(0, &Snapshot { blocks: vec![], ..snapshot(number, &[1]) }));
    merge.finish(&ServiceReads::default()).batches.iter().map(|batch| (batch.blocks, batch.latency[0].len())).collect()
}

#[test]
fn a_batch_holds_what_ended_in_its_blocks_and_the_last_one_the_drain() {
    // Two blocks of warmup, whose samples can only be of the hold's beginning, four of the hold, three of the drain.
    assert_eq!(batches(Duration::from_secs(2), 9), [(1, 3), (1, 1), (1, 1), (1, 4)]);
    let long = batches(Duration::from_secs(301), 2);
    assert_eq!((long.len(), long[0], long[200]), (201, (3, 2), (2, 0)));
}
