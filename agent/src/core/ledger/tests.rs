use std::time::Duration;

use plimsoll_common::plan::SeriesLimits;
use plimsoll_common::snapshot::{Counters, Failed, SeriesCounts, Stall, Strays};
use proptest::prelude::*;

use super::*;
use crate::core::recorder::{BLOCK_NS, WorkerTotals};

const MS: u64 = 1_000_000;
const S: u64 = 1_000 * MS;
/// The step begins here, so that nothing works by starting at zero.
const START: u64 = 7_777 * S;
const HOLD: u64 = START + S;
const TIMEOUT: u64 = 5 * S;
const E1: u32 = 0;
const E2: u32 = 1;

/// One second of warmup, ten of hold; p95 ≤ 100 ms and p99 ≤ 250 ms on both series; 100 in flight.
fn ledger() -> Ledger {
    let limits = |series: &str| SeriesLimits { series: series.into(), limits_us: vec![100_000, 250_000] };
    let terms = Terms {
        series: vec![limits("E1"), limits("E2")],
        kinds: vec![Kind::replied(&[E1, E2], E1)],
        observations: vec![],
        request_timeout_ns: TIMEOUT,
        max_lateness_ns: 100 * MS,
    };
    let window = Window { start_ns: START, hold_start_ns: HOLD, hold_end_ns: HOLD + 10 * S };
    Ledger::new(terms, window, 5, 100_000, 100)
}

/// Releases an operation on time.
fn release(ledger: &mut Ledger, intended_ns: u64) -> u64 {
    match ledger.due(intended_ns, intended_ns, Choice::default) {
        Release::Released(sequence) => {
            assert_eq!(ledger.sent(sequence), None);
            sequence
        }
        other => panic!("{other:?}"),
    }
}

/// Closes all blocks with the stalls given by wall block (zero elsewhere) and returns what was counted.
fn close(ledger: &mut Ledger, stalls: &[(u32, Stall)]) -> WorkerTotals {
    close_from(ledger, 0, stalls)
}

fn close_from(ledger: &mut Ledger, first: u32, stalls: &[(u32, Stall)]) -> WorkerTotals {
    for number in first..40 {
        let stall = stalls.iter().find(|(block, _)| *block == number).map_or(Stall::Bounded(0), |(_, stall)| *stall);
        ledger.close_block(number, stall);
    }
    ledger.recorder().totals()
}

fn both_answers(ledger: &mut Ledger, sequence: u64, at_ns: u64) {
    ledger.answer(sequence, E1, Outcome::Sample, at_ns);
    ledger.answer(sequence, E2, Outcome::Sample, at_ns);
}

fn counts(n: u64, above: [u64; 2], above_anyway: [u64; 2]) -> SeriesCounts {
    SeriesCounts { n, above: above.to_vec(), above_anyway: above_anyway.to_vec(), ..SeriesCounts::default() }
}

/// So many that failed, by nobody's doing but the service's: refused, and given up.
fn failing(refused: u64, given_up: u64, counts: SeriesCounts) -> SeriesCounts {
    SeriesCounts { refused, given_up, failed_anyway: refused + given_up, ..counts }
}

#[test]
fn a_value_at_its_limit_is_not_above_it_and_a_nanosecond_more_is() {
    let mut ledger = ledger();
    for late_ns in [0, 1] {
        let sequence = release(&mut ledger, HOLD);
        both_answers(&mut ledger, sequence, HOLD + 100 * MS + late_ns);
    }
    let totals = close(&mut ledger, &[]);
    assert_eq!(totals.series, [counts(2, [1, 0], [1, 0]), counts(2, [1, 0], [1, 0])]);
    assert_eq!(totals.counters.completed, 2);
}

#[test]
fn what_never_answers_enters_every_series_above_every_limit() {
    let mut ledger = ledger();
    release(&mut ledger, HOLD + S);
    ledger.age(HOLD + S + TIMEOUT - 1);
    assert_eq!(ledger.open(), 1);
    ledger.age(HOLD + S + TIMEOUT);
    let totals = close(&mut ledger, &[]);
    assert_eq!(totals.series, [(); 2].map(|()| failing(0, 1, counts(1, [1, 1], [1, 1]))));
    let failed = Failed { timeout: 1, ..Failed::default() };
    let expected = Counters { due: 1, attempted: 1, sent: 1, failed, failed_anyway: 1, ..Counters::default() };
    assert_eq!(totals.counters, expected);
}

#[test]
fn a_reply_without_its_broadcast_is_lost_and_owes_one_sample() {
    let mut ledger = ledger();
    let sequence = release(&mut ledger, HOLD);
    ledger.answer(sequence, E1, Outcome::Sample, HOLD + MS);
    ledger.age(HOLD + TIMEOUT);
    let totals = close(&mut ledger, &[]);
    assert_eq!(totals.series, [counts(1, [0, 0], [0, 0]), failing(0, 1, counts(1, [1, 1], [1, 1]))]);
    assert_eq!((totals.counters.lost, totals.counters.failed.total(), totals.counters.completed), (1, 0, 0));
    assert!(totals.counters.add_up());
}

#[test]
fn an_error_reply_is_a_failure_and_no_sample_and_every_series_that_was_owed_one_says_so() {
    let mut ledger = ledger();
    let refused = release(&mut ledger, HOLD);
    ledger.answer(refused, E1, Outcome::Refused, HOLD + MS);
    let unreadable = release(&mut ledger, HOLD);
    ledger.answer(unreadable, E1, Outcome::Unreadable, HOLD + MS);
    // A job that fails after it was accepted.
    let accepted = release(&mut ledger, HOLD);
    ledger.answer(accepted, E1, Outcome::Sample, HOLD + MS);
    ledger.answer(accepted, E2, Outcome::Refused, HOLD + MS);
    let totals = close(&mut ledger, &[]);
    let none = || counts(0, [0, 0], [0, 0]);
    assert_eq!(totals.series, [failing(2, 0, counts(1, [0, 0], [0, 0])), failing(3, 0, none())]);
    assert_eq!((totals.series[0].ended(), totals.series[0].errors(), totals.series[1].ended()), (3, 2, 3));
    assert_eq!((totals.counters.failed.refused, totals.counters.failed.bad_reply), (2, 1));
    assert_eq!(totals.counters.failed_anyway, 3);
    assert!(totals.counters.add_up());
}

#[test]
fn what_the_client_does_not_take_fails_as_publish_and_as_if_it_had_been_waited_for() {
    let mut ledger = ledger();
    let refused = release(&mut ledger, HOLD);
    ledger.publish_failed(refused, HOLD + MS, HOLD + MS);
    // Released, but the client has not accepted it when its time is over.
    assert!(matches!(ledger.due(HOLD, HOLD, Choice::default), Release::Released(_)));
    ledger.age(HOLD + TIMEOUT);
    let block = ledger.close_block(0, Stall::Bounded(0));
    assert!(block.series[0].latency.quantile_us(0.01) >= Some(4_900_000), "what dies improves no percentile");
    let totals = close_from(&mut ledger, 1, &[]);
    assert_eq!((totals.counters.failed.publish, totals.counters.sent), (2, 1));
    assert_eq!(totals.counters.failed_anyway, 2);
    assert_eq!(totals.series[1], failing(0, 2, counts(2, [2, 2], [2, 2])));
    assert!(totals.counters.add_up());
}

/// Where a connection breaks at `since_ns` and an operation due at `due_ns` finds it so, with these stalls: failed anyway or not.
fn failed_anyway(since_ns: u64, due_ns: u64, stalls: &[(u32, Stall)]) -> u64 {
    let mut ledger = ledger();
    let sequence = release(&mut ledger, due_ns);
    ledger.publish_failed(sequence, since_ns, due_ns + MS);
    let totals = close(&mut ledger, stalls);
    assert_eq!((totals.counters.failed.publish, totals.series[0].above[0]), (1, 1));
    assert_eq!(totals.series[0].above_anyway[1], totals.counters.failed_anyway);
    assert_eq!((totals.series[0].failed_anyway, totals.series[0].given_up), (totals.counters.failed_anyway, 1));
    totals.counters.failed_anyway
}

#[test]
fn a_connection_that_the_target_breaks_fails_what_it_was_for_whatever_small_stalls_the_box_has() {
    // The trial's wall blocks are of half a second, from a second before the hold.
    let small: Vec<(u32, Stall)> = (0..40).map(|block| (block, Stall::Bounded(30_000))).collect();
    for (broke_ns, due_ns) in [(HOLD, HOLD + MS), (HOLD + S, HOLD + 9 * S), (START - 60 * S, HOLD + 9 * S)] {
        assert_eq!(failed_anyway(broke_ns, due_ns, &[]), 1);
        assert_eq!(failed_anyway(broke_ns, due_ns, &small), 1);
    }
}

#[test]
fn a_box_that_stood_still_while_its_connection_broke_is_to_blame_for_that() {
    let still = |block| [(block, Stall::Bounded(4_900_000))];
    let (broke_ns, due_ns) = (HOLD + S, HOLD + 8 * S);
    // It broke in block 4, the operation is of block 18; what was between them has broken nothing.
    for (block, anyway) in [(2, 1), (3, 0), (4, 0), (5, 1), (16, 1), (17, 0), (18, 0), (19, 1)] {
        assert_eq!(failed_anyway(broke_ns, due_ns, &still(block)), anyway, "{block}");
    }
    // One after the other, the blocks of both are subtracted once.
    let twice = [(17, Stall::Bounded(2_400_000)), (18, Stall::Bounded(2_300_000))];
    assert_eq!(failed_anyway(due_ns, due_ns, &twice), 1);
    assert_eq!(failed_anyway(HOLD, HOLD, &[(1, Stall::Unbounded)]), 0);
    // How the box did before the trial is not known: block 0 is none of it.
    assert_eq!(failed_anyway(START - S, due_ns, &still(0)), 1);
}

#[test]
fn strays_change_nothing_else() {
    let mut ledger = ledger();
    let done = release(&mut ledger, HOLD);
    both_answers(&mut ledger, done, HOLD + MS);
    let expected = {
        let given_up = release(&mut ledger, HOLD);
        ledger.age(HOLD + TIMEOUT);
        let series = close(&mut ledger, &[]).series;
        ledger.answer(given_up, E2, Outcome::Sample, HOLD + TIMEOUT + MS);
        series
    };
    ledger.answer(done, E2, Outcome::Sample, HOLD + 2 * MS);
    ledger.answer(1_000_000, E1, Outcome::Sample, HOLD + 2 * MS);
    ledger.foreign();
    ledger.close_block(40, Stall::Bounded(0));
    let totals = ledger.recorder().totals();
    assert_eq!(totals.strays, Strays { foreign: 2, duplicate: 1, late: 1 });
    assert_eq!(totals.series, expected);
}

#[test]
fn the_cap_and_the_latest_release_keep_their_own_counters() {
    let mut ledger = ledger();
    for _ in 0..101 {
        ledger.due(HOLD, HOLD + 100 * MS, Choice::default);
    }
    assert_eq!(ledger.due(HOLD, HOLD + 100 * MS + 1, Choice::default), Release::Underrun);
    let totals = close(&mut ledger, &[]);
    let c = totals.counters;
    assert_eq!((c.due, c.attempted, c.saturated, c.underrun), (102, 100, 1, 1));
}

#[test]
fn warmup_is_counted_apart_and_enters_no_histogram() {
    let mut ledger = ledger();
    let sequence = release(&mut ledger, START + MS);
    both_answers(&mut ledger, sequence, HOLD + S);
    let totals = close(&mut ledger, &[]);
    assert_eq!((totals.warmup.completed, totals.counters, totals.samples), (1, Counters::default(), vec![0, 0]));
}

#[test]
fn what_the_box_held_up_is_above_but_not_above_anyway() {
    // Intended in wall block 4, ended 120 ms later in block 4; the box stood still for 30 ms.
    let cases = [
        (&[][..], [1, 0]),
        (&[(4, Stall::Bounded(30_000))][..], [0, 0]),
        (&[(3, Stall::Bounded(30_000))][..], [0, 0]),
        (&[(2, Stall::Bounded(30_000))][..], [1, 0]),
        (&[(5, Stall::Bounded(30_000))][..], [1, 0]),
        (&[(3, Stall::Bounded(15_000)), (4, Stall::Bounded(4_999))][..], [1, 0]),
        (&[(4, Stall::Unbounded)][..], [0, 0]),
    ];
    for (stalls, anyway) in cases {
        let mut ledger = ledger();
        let intended = START + 4 * BLOCK_NS + MS;
        let sequence = release(&mut ledger, intended);
        both_answers(&mut ledger, sequence, intended + 120 * MS);
        assert_eq!(close(&mut ledger, stalls).series[0], counts(1, [1, 0], anyway), "{stalls:?}");
    }
}

#[test]
fn small_stalls_of_every_block_do_not_excuse_a_slow_service() {
    // 300 ms where 100 and 250 are allowed, on a box that stands still for 20 ms in every block. What ends in the block in
    // which it began (two of five) has two stalls to subtract, the rest three: 260 ms or 240 ms remain.
    let mut ledger = ledger_without_cap();
    for n in 0..1_000 {
        let sequence = release(&mut ledger, HOLD + n * 10 * MS);
        both_answers(&mut ledger, sequence, HOLD + n * 10 * MS + 300 * MS);
    }
    let stalls: Vec<(u32, Stall)> = (0..40).map(|block| (block, Stall::Bounded(20_000))).collect();
    assert_eq!(close(&mut ledger, &stalls).series[0], counts(1_000, [1_000, 1_000], [1_000, 400]));
}

#[test]
fn a_second_in_which_the_box_stood_still_excuses_what_overlaps_it_and_nothing_else() {
    // 100/s for 10 s against a service that takes 400 ms. The box stands still from 3 s to 4 s of the hold: what is due
    // then never leaves, what came back meanwhile is read at its end, in wall block 10.
    let mut ledger = ledger_without_cap();
    let (from, to) = (HOLD + 3 * S, HOLD + 4 * S);
    for n in 0..1_000 {
        let intended = HOLD + n * 10 * MS;
        let released = if (from..to).contains(&intended) { to } else { intended };
        if let Release::Released(sequence) = ledger.due(intended, released, Choice::default) {
            let back = released + 400 * MS;
            both_answers(&mut ledger, sequence, if (from..to).contains(&back) { to } else { back });
        }
    }
    let totals = close(&mut ledger, &[]);
    let (n, anyway) = (totals.series[0].n, totals.series[0].above_anyway[0]);
    assert_eq!((totals.counters.underrun, n), (90, 910));
    // Excused: due in the last 100 ms before the gap (what was due earlier has more than 100 ms left without it), in its
    // last 100 ms, and in the two blocks from its end on.
    assert_eq!(anyway, 910 - 10 - 10 - 100);
}

#[test]
fn a_late_release_counts_as_a_stall_of_its_block() {
    let mut ledger = ledger();
    let Release::Released(sequence) = ledger.due(HOLD, HOLD + 60 * MS, Choice::default) else { panic!() };
    both_answers(&mut ledger, sequence, HOLD + 110 * MS);
    assert_eq!(close(&mut ledger, &[]).series[0], counts(1, [1, 0], [0, 0]));
}

#[test]
fn open_operations_past_a_limit_are_overdue_before_the_first_timeout() {
    let mut ledger = ledger();
    let sequences: Vec<u64> = (0..3).map(|_| release(&mut ledger, HOLD)).collect();
    ledger.age(HOLD + 150 * MS);
    assert_eq!(ledger.close_block(0, Stall::Bounded(0)).overdue, [[3, 0], [3, 0]]);
    both_answers(&mut ledger, sequences[0], HOLD + 160 * MS);
    ledger.answer(sequences[1], E1, Outcome::Sample, HOLD + 160 * MS);
    ledger.age(HOLD + 300 * MS);
    assert_eq!(ledger.close_block(1, Stall::Bounded(0)).overdue, [[1, 1], [2, 2]]);
    ledger.age(HOLD + TIMEOUT);
    assert_eq!(ledger.close_block(2, Stall::Bounded(0)).overdue, [[0, 0], [0, 0]]);
}

#[test]
fn a_stall_of_one_second_in_ten_is_paid_for_in_the_percentiles() {
    // 1,000/s for 10 s against a service that answers after 1 ms, but stands still from 3 s to 4 s.
    let mut ledger = ledger_without_cap();
    let mut histogram = plimsoll_common::histogram::LatencyHistogram::new();
    for n in 0..10_000 {
        let intended = HOLD + n * MS;
        let stalled = (HOLD + 3 * S..HOLD + 4 * S).contains(&intended);
        let sequence = release(&mut ledger, intended);
        both_answers(&mut ledger, sequence, if stalled { HOLD + 4 * S } else { intended + MS });
    }
    for number in 0..40 {
        histogram.add(&ledger.close_block(number, Stall::Bounded(0)).series[0].latency);
    }
    let quantile_ms = |quantile| histogram.quantile_us(quantile).unwrap() / 1000;
    assert!((495..=505).contains(&quantile_ms(0.95)), "{}", quantile_ms(0.95));
    assert!((895..=905).contains(&quantile_ms(0.99)), "{}", quantile_ms(0.99));
}

#[test]
fn each_kind_expires_by_its_own_timeout_and_never_later_than_all() {
    let mut ledger = ledger();
    let short = Kind::replied(&[E1], E1).within(Some(S));
    ledger.terms.kinds = vec![short, Kind::replied(&[E2], E2), Kind::taken(&[E1, E2], E1).within(Some(99 * S))];
    let mut ledger = Ledger::new(ledger.terms, ledger.window, 5, 100_000, 100);
    let mut of_kind = |kind: u8, at: u64| {
        let Release::Released(sequence) = ledger.due(at, at, || Choice { kind, ..Choice::default() }) else { panic!() };
        if let Some(series) = ledger.sent(sequence) {
            ledger.answer(sequence, series, Outcome::Sample, at + MS);
        }
    };
    (0..3).for_each(|kind| of_kind(kind, HOLD));
    of_kind(0, HOLD + S);
    ledger.age(HOLD + S);
    let totals = |ledger: &mut Ledger| {
        ledger.close_block(ledger.recorder.closed_blocks(), Stall::Bounded(0));
        let totals = ledger.recorder().totals();
        (totals.counters.failed.timeout, totals.counters.lost, totals.series.iter().map(|s| s.n).collect::<Vec<_>>())
    };
    // The publish had its sample when the server had taken it.
    assert_eq!((totals(&mut ledger), ledger.open()), ((1, 0, vec![2, 0]), 3));
    ledger.age(HOLD + 2 * S);
    assert_eq!((totals(&mut ledger), ledger.open()), ((2, 0, vec![3, 0]), 2));
    ledger.age(HOLD + TIMEOUT);
    assert_eq!((totals(&mut ledger), ledger.open()), ((3, 1, vec![3, 2]), 0));
}

#[test]
fn what_the_client_took_and_the_server_did_not_times_out_above_every_limit() {
    let mut ledger = ledger();
    ledger.terms.kinds = vec![Kind::taken(&[E1], E1)];
    let mut ledger = Ledger::new(ledger.terms, ledger.window, 5, 100_000, 100);
    let Release::Released(sequence) = ledger.due(HOLD, HOLD, Choice::default) else { panic!() };
    assert_eq!(ledger.sent(sequence), Some(E1));
    ledger.age(HOLD + TIMEOUT);
    ledger.close_block(0, Stall::Bounded(0));
    let totals = ledger.recorder().totals();
    assert_eq!((totals.counters.completed, totals.counters.failed.timeout, totals.counters.lost), (0, 1, 0));
    let e1 = &totals.series[E1 as usize];
    assert!(e1.n == 1 && e1.above.iter().all(|&above| above == 1), "{e1:?}");
}

fn ledger_without_cap() -> Ledger {
    let mut ledger = ledger();
    ledger.max_in_flight = u64::MAX;
    ledger
}

#[derive(Debug, Clone)]
enum Act {
    Due { late: Duration },
    Answer { back: u64, series: u32, outcome: Outcome },
    PublishFailed { back: u64 },
    Wait { ms: u64 },
}

fn acts() -> impl Strategy<Value = Act> {
    let outcome = prop::sample::select(vec![Outcome::Sample, Outcome::Sample, Outcome::Refused, Outcome::Unreadable]);
    prop_oneof![
        4 => (0_u64..150).prop_map(|ms| Act::Due { late: Duration::from_millis(ms) }),
        6 => (0_u64..40, 0_u32..2, outcome).prop_map(|(back, series, outcome)| Act::Answer { back, series, outcome }),
        1 => (0_u64..40).prop_map(|back| Act::PublishFailed { back }),
        3 => (1_u64..400).prop_map(|ms| Act::Wait { ms }),
    ]
}

proptest! {
    #[test]
    fn whatever_happens_every_due_operation_ends_in_exactly_one_counter(acts in prop::collection::vec(acts(), 0..400)) {
        let mut ledger = ledger();
        let (mut now, mut intended) = (START, START);
        let mut histogram_samples = [0, 0];
        let mut number = 0;
        let mut close = |ledger: &mut Ledger, samples: &mut [u64; 2]| {
            let block = ledger.close_block(number, Stall::Bounded(0));
            number += 1;
            samples.iter_mut().zip(&block.series).for_each(|(sum, series)| *sum += series.latency.len());
        };
        for act in acts {
            match act {
                Act::Due { late } => {
                    intended = intended.max(now.saturating_sub(late.as_nanos() as u64)).min(HOLD + 10 * S - 1);
                    if let Release::Released(sequence) = ledger.due(intended, now.max(intended), Choice::default) {
                        assert_eq!(ledger.sent(sequence), None);
                    }
                }
                Act::Answer { back, series, outcome } => {
                    let sequence = ledger.next_sequence().saturating_sub(back);
                    ledger.answer(sequence, series, outcome, now);
                }
                Act::PublishFailed { back } => {
                    let since = now.saturating_sub(back * 100 * MS);
                    ledger.publish_failed(ledger.next_sequence().saturating_sub(back), since, now);
                }
                Act::Wait { ms } => {
                    now += ms * MS;
                    ledger.age(now);
                    while now >= START + u64::from(number_of(&ledger) + 1) * BLOCK_NS && number_of(&ledger) < 60 {
                        close(&mut ledger, &mut histogram_samples);
                    }
                }
            }
        }
        ledger.age(now.max(HOLD + 10 * S) + TIMEOUT);
        prop_assert_eq!(ledger.open(), 0);
        for _ in 0..80 {
            close(&mut ledger, &mut histogram_samples);
        }
        let totals = ledger.recorder().totals();
        prop_assert!(totals.counters.add_up() && totals.warmup.add_up(), "{:?}", totals);
        prop_assert_eq!(totals.samples, histogram_samples);
        for series in &totals.series {
            prop_assert!(series.above.iter().zip(&series.above_anyway).all(|(above, anyway)| anyway <= above));
            prop_assert!(series.above.iter().all(|&above| above <= series.n));
            // Every operation owes every series here.
            prop_assert_eq!(series.ended(), totals.counters.attempted);
            prop_assert!(series.given_up <= series.n && series.failed_anyway <= series.errors());
            prop_assert!(series.errors() <= totals.counters.errors() && series.failed_anyway <= totals.counters.failed_anyway);
        }
    }
}

/// How many blocks were closed.
fn number_of(ledger: &Ledger) -> u32 {
    ledger.recorder.closed_blocks()
}
