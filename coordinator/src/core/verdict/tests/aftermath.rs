//! The burst that a load box sends after a stall, and what it does to the operations of another box.

use plimsoll_common::snapshot::{Counters, Stall};
use rand::SeedableRng as _;
use rand::distr::{Distribution as _, OpenClosed01};
use rand::rngs::StdRng;

use super::*;
use crate::core::simulated;

/// Operations per second of one queue, a limit on their p99, and what one of two boxes does in 30 s.
#[derive(Clone, Copy)]
struct Held {
    capacity: f64,
    offered: f64,
    /// Of every operation, beside the queue.
    fixed_us: u64,
    limit: Duration,
    pause: Duration,
    /// Seconds of the hold at which the first box pauses.
    pauses_at: &'static [f64],
}

const FIFO: Held = Held {
    capacity: 20_000.0,
    offered: 18_000.0,
    fixed_us: 0,
    limit: Duration::from_millis(5),
    pause: Duration::from_millis(90),
    pauses_at: &[],
};

/// What two agents, of equal shares, measure.
fn held(held: Held) -> StepMeasurement {
    const HOLD: f64 = 30.0;
    let mut random = StdRng::seed_from_u64(7);
    let mut exponential = |mean: f64| -mean * f64::ln(OpenClosed01.sample(&mut random));
    let mut coin = StdRng::seed_from_u64(8);
    let pause = held.pause.as_secs_f64();
    let mut due = 0.0;
    let mut operations = Vec::new();
    while due < HOLD {
        let pauses = coin.random::<bool>();
        let until = held.pauses_at.iter().map(|at| at + pause).find(|end| (end - pause..*end).contains(&due));
        operations.push((until.filter(|_| pauses).unwrap_or(due), due));
        due += exponential(1.0 / held.offered);
    }
    operations.sort_by(|one, other| one.0.total_cmp(&other.0));
    let limit_us = held.limit.as_micros() as u64;
    let mut of_block = vec![(Counters::default(), SeriesCounts::zero(1)); 60];
    let mut batches = vec![LatencyHistogram::new(); 60];
    let mut by_box = 0;
    let mut free_at = 0.0_f64;
    for (released, due) in operations {
        free_at = free_at.max(released) + exponential(1.0 / held.capacity);
        let latency_us = ((free_at - due) * 1e6) as u64 + held.fixed_us;
        let stall_us = if released > due { held.pause.as_micros() as u64 } else { 0 };
        let (above, anyway) = (latency_us > limit_us, latency_us.saturating_sub(stall_us) > limit_us);
        by_box += u64::from(above) - u64::from(anyway);
        let (counters, counts) = &mut of_block[(due * 2.0) as usize];
        counters.add(&Counters { due: 1, attempted: 1, sent: 1, completed: 1, ..Counters::default() });
        counts.add(&SeriesCounts {
            n: 1,
            above: vec![u64::from(above)],
            above_anyway: vec![u64::from(anyway)],
            ..SeriesCounts::default()
        });
        batches[((free_at * 2.0) as usize).min(59)].record(latency_us);
    }
    let mut step = simulated::measured(Duration::from_secs(30), limit_us, of_block, batches);
    step.agents[0].series =
        vec![SeriesCounts { n: by_box, above: vec![by_box], above_anyway: vec![0], ..SeriesCounts::default() }];
    step.agents[1].series = vec![SeriesCounts::zero(1)];
    for at in held.pauses_at {
        let block = &mut step.blocks[(at * 2.0) as usize];
        (block.void, block.stall) = (true, Stall::Bounded(held.pause.as_micros() as u64));
        let health = &mut step.agents[0].health;
        health.void_blocks += 1;
        health.lateness.as_mut().unwrap().max = held.pause;
        health.worst_stall = block.stall;
    }
    step
}

fn judged(held_as: Held) -> Verdict {
    judge(&held(held_as), &simulated::slo(held_as.limit))
}

#[test]
fn the_burst_after_a_stall_of_one_box_trips_nobody() {
    assert_eq!(judged(FIFO), Verdict::Pass, "it carries the level");
    let paused = Held { pauses_at: &[8.1, 19.3], ..FIFO };
    let step = held(paused);
    let counts = &step.series[0].counts;
    assert!(counts.above_anyway[0] * 100 > counts.n, "the other box's operations are over the limit: {counts:?}");
    let verdict = judge(&step, &simulated::slo(paused.limit));
    assert_eq!(verdict.word(), "INCONCLUSIVE", "{verdict:?}");
    assert_eq!(verdict.boxes_to_blame(), ["box-a"]);
}

#[test]
fn a_service_that_is_too_slow_trips_whatever_stalls_a_box_has() {
    // Five in a hundred are over the limit all the time; a stall now and then explains some, and not these.
    let slow = Held { offered: 19_400.0, ..FIFO };
    for (pauses_at, pause) in [(&[][..], 0), (&[8.1, 19.3], 90), (&[1.1, 3.2, 8.1, 12.4, 19.3, 25.1], 20)] {
        let verdict = judged(Held { pauses_at, pause: Duration::from_millis(pause), ..slow });
        assert_eq!(verdict.word(), "TRIP", "{pauses_at:?} of {pause} ms: {verdict:?}");
    }
    // Nothing is ever quiet in a service that answers everything too late.
    let late = Held { offered: 1_000.0, fixed_us: 5_500, ..FIFO };
    assert_eq!(judged(Held { pauses_at: &[0.1, 8.1], ..late }).word(), "TRIP");
}

#[test]
fn an_overload_trips_though_a_box_stalls_in_every_block() {
    const EVERY: &[f64] = &[0.1, 1.1, 2.1, 3.1, 4.1, 5.1, 6.1, 7.1, 8.1, 9.1, 10.1, 11.1, 12.1, 13.1, 14.1, 15.1];
    let paused = Held { pauses_at: EVERY, pause: Duration::from_millis(40), ..FIFO };
    assert_eq!(judged(Held { offered: 20_400.0, ..paused }).word(), "TRIP");
    assert_eq!(judged(paused).word(), "INCONCLUSIVE", "a level that it carries");
}

#[test]
fn what_was_never_sent_makes_no_burst() {
    // A second's pause, after which what is later than 100 ms is thrown away: the burst is no longer than after 100 ms.
    let slow = Held { offered: 500.0, fixed_us: 300_000, limit: Duration::from_millis(100), ..FIFO };
    let mut step = held(Held { pauses_at: &[5.1], ..slow });
    let one_in_forty = |counts: &mut SeriesCounts| {
        counts.above[0] /= 40;
        counts.above_anyway[0] /= 40;
    };
    step.blocks.iter_mut().for_each(|block| one_in_forty(&mut block.series[0]));
    one_in_forty(&mut step.series[0].counts);
    step.batches.clear();
    step.blocks[10].stall = Stall::Bounded(1_000_000);
    step.agents[0].health.lateness.as_mut().unwrap().max = Duration::from_secs(1);
    let judged = |step: &StepMeasurement| judge(step, &simulated::slo(slow.limit)).word();
    assert_eq!(judged(&step), "TRIP");
    step.max_lateness = Some(Duration::from_secs(1));
    assert_eq!(judged(&step), "INCONCLUSIVE", "where all of it is sent");
}
