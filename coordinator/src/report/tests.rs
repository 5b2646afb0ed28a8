use plimsoll_common::histogram::LatencyHistogram;
use plimsoll_common::snapshot::{SeriesCounts, Stall, Strays};

use super::csv::{CsvReport, Rows};
use super::fixture::{inconclusive, pass, report, trial, trip};
use super::*;
use crate::core::backlog::{Fate, StreamLoad};
use crate::core::fixture::DUE;
use crate::core::measurement::{Fault, LittleCheck};

fn answer_of(trials: Vec<TrialReport>, ending: Ending) -> String {
    answer_lines(&report(trials, ending))
}

#[test]
fn a_whole_report() {
    let mut again = inconclusive(1, 0);
    again.measurement.agents[0].health.worst_stall = Stall::Bounded(320_000);
    again.measurement.agents[0].health.void_blocks = 2;
    again.measurement.blocks[3].void = true;
    let mut repeated = trial(1, 1, |_| {});
    repeated.recovery = Some(Duration::from_millis(2_500));
    let trials = vec![pass(0), again, repeated, trip(2)];
    insta::assert_snapshot!(render(&report(trials, Ending::Completed)), @r"
        Run r1
          hold = 10s (flag)
          seed = 42 (default)

        Trials
               target/s   achieved/s   completed/s   E1 p50   E1 p95   E1 p99   E1 max   E2 p50   E2 p95   E2 p99   E2 max    err%   worst backlog            verdict
        ----------------------------------------------------------------------------------------------------------------------------------------------------------------------------------------------------------
                   1000       1000.0        1000.0   4.49ms   4.94ms   4.98ms   4.99ms   19.5ms     20ms     20ms     20ms   0.000   message-worker +2        PASS (not excluded: stalls rarer than one in 3.34s)
                   2000        900.0         900.0   4.49ms   4.94ms   4.98ms   4.99ms   19.5ms     20ms     20ms     20ms   0.000   message-worker +2        INCONCLUSIVE
            attempted 9000 of 10000 due, 10.00% short > 5%: 1000 underrun, load boxes woke too late (add boxes): box-a (1000 operations, worst stall 2.3ms, 0 void blocks)
         2000 (trial 2)       1000.0        1000.0   4.49ms   4.94ms   4.98ms   4.99ms   19.5ms     20ms     20ms     20ms   0.000   message-worker +2        PASS (not excluded: stalls rarer than one in 3.34s)
                   4000       1000.0        1000.0   4.49ms   4.94ms   4.98ms   4.99ms     30ms    312ms    312ms    312ms   0.000   broadcast-worker +1240   TRIP
            E2 p95=312ms > 100ms
            E2 p99=312ms > 250ms
            broadcast-worker pending +1240 > +1000

        Percentiles
               target/s   series      p50      95 % interval      p95      95 % interval      p99      95 % interval
        -------------------------------------------------------------------------------------------------------------
                   1000   E1       4.49ms    4.49ms to 4.5ms   4.94ms   4.94ms to 4.95ms   4.98ms   4.98ms to 4.99ms
                   1000   E2       19.5ms   19.5ms to 19.5ms     20ms       20ms to 20ms     20ms       20ms to 20ms
                   2000   E1       4.49ms    4.49ms to 4.5ms   4.94ms   4.94ms to 4.95ms   4.98ms   4.98ms to 4.99ms
                   2000   E2       19.5ms   19.5ms to 19.5ms     20ms       20ms to 20ms     20ms       20ms to 20ms
         2000 (trial 2)   E1       4.49ms    4.49ms to 4.5ms   4.94ms   4.94ms to 4.95ms   4.98ms   4.98ms to 4.99ms
         2000 (trial 2)   E2       19.5ms   19.5ms to 19.5ms     20ms       20ms to 20ms     20ms       20ms to 20ms
                   4000   E1       4.49ms    4.49ms to 4.5ms   4.94ms   4.94ms to 4.95ms   4.98ms   4.98ms to 4.99ms
                   4000   E2         30ms       30ms to 30ms    312ms     312ms to 312ms    312ms     312ms to 312ms

        Load boxes
               target/s   agent   share/s   achieved/s   lateness p50     p99     max   CPU%   box CPU%   steal%   max in flight   void
        --------------------------------------------------------------------------------------------------------------------------------
                   1000   box-a       500        500.0           61us   420us   2.3ms     21         40        0              31      0
                   1000   box-b       500        500.0           61us   420us   2.3ms     21         40        0              31      0
                   2000   box-a       500        400.0           61us   420us   2.3ms     21         40        0              31      2
                   2000   box-b       500        500.0           61us   420us   2.3ms     21         40        0              31      0
         2000 (trial 2)   box-a       500        500.0           61us   420us   2.3ms     21         40        0              31      0
         2000 (trial 2)   box-b       500        500.0           61us   420us   2.3ms     21         40        0              31      0
                   4000   box-a       500        500.0           61us   420us   2.3ms     21         40        0              31      0
                   4000   box-b       500        500.0           61us   420us   2.3ms     21         40        0              31      0

        Backlog
               target/s   stream                          durable              pending   ack pending   growth
        ------------------------------------------------------------------------------------------------------
                   1000   MESSAGES_CANONICAL_site-local   message-worker        0 -> 2      10 -> 12       +2
                   1000   MESSAGES_CANONICAL_site-local   broadcast-worker      0 -> 0      10 -> 12       -5
                   2000   MESSAGES_CANONICAL_site-local   message-worker        0 -> 2      10 -> 12       +2
                   2000   MESSAGES_CANONICAL_site-local   broadcast-worker      0 -> 0      10 -> 12       -5
         2000 (trial 2)   MESSAGES_CANONICAL_site-local   message-worker        0 -> 2      10 -> 12       +2
         2000 (trial 2)   MESSAGES_CANONICAL_site-local   broadcast-worker      0 -> 0      10 -> 12       -5
                   4000   MESSAGES_CANONICAL_site-local   message-worker        0 -> 2      10 -> 12       +2
                   4000   MESSAGES_CANONICAL_site-local   broadcast-worker   0 -> 1240      10 -> 12    +1240

        Notes
          2000: 1 of 20 blocks are void, a load box stalled in them for over a tenth of the tightest limit; worst: box-a, 320ms
          2000: 1000 of 10000 due never left: 0 saturated, 1000 underrun
          2000 (trial 2): the backlog took 2.5s to come back to its baseline before this trial
          agents started at most 0us apart, +/- 300us
          a durable that falls behind by less than 100.0/s does not show: +1000 over a hold of 10s

        ANSWER: max RPS = 2000 (workload=messages, preset=medium)
        Next limit: E2 p95=312ms > 100ms; E2 p99=312ms > 250ms; broadcast-worker pending +1240 > +1000 at 4000
        ");
}

#[test]
fn the_answer_and_what_limits_it() {
    insta::assert_snapshot!(answer_of(vec![pass(0), trip(1)], Ending::Completed), @r"
        ANSWER: max RPS = 1000 (workload=messages, preset=medium)
        Next limit: E2 p95=312ms > 100ms; E2 p99=312ms > 250ms; broadcast-worker pending +1240 > +1000 at 2000
        ");
    insta::assert_snapshot!(answer_of(vec![pass(0), pass(1)], Ending::Completed), @r"
        ANSWER: max RPS >= 2000 (workload=messages, preset=medium; nothing tripped: a lower bound)
        Next limit: none found; give higher --steps
        ");
    insta::assert_snapshot!(answer_of(vec![trip(0)], Ending::Completed), @r"
        ANSWER: no step passed (workload=messages, preset=medium)
        Next limit: E2 p95=312ms > 100ms; E2 p99=312ms > 250ms; broadcast-worker pending +1240 > +1000 at 1000
        ");
    insta::assert_snapshot!(answer_of(vec![pass(0), inconclusive(1, 0), trip(2)], Ending::Completed), @r"
        ANSWER: max RPS = 1000 (workload=messages, preset=medium)
        Gap: INCONCLUSIVE at 2000, so the limit may lie there already
        Next limit: E2 p95=312ms > 100ms; E2 p99=312ms > 250ms; broadcast-worker pending +1240 > +1000 at 4000
        ");
    insta::assert_snapshot!(answer_of(vec![inconclusive(0, 0)], Ending::Completed), @r"
        ANSWER: no step passed (workload=messages, preset=medium)
        Gap: INCONCLUSIVE at 1000, so the limit may lie there already
        Next limit: attempted 9000 of 10000 due, 10.00% short > 5%: 1000 underrun, load boxes woke too late (add boxes): box-a (1000 operations, worst stall 2.3ms, 0 void blocks) at 1000
        ");
}

#[test]
fn a_run_that_did_not_complete_says_so() {
    insta::assert_snapshot!(render(&report(vec![], Ending::Aborted)), @r"
        Run r1
          hold = 10s (flag)
          seed = 42 (default)

        ABORTED: this report covers the trials that were finished

        ANSWER: no step passed (workload=messages, preset=medium)
        Next limit: nothing was measured
        ");
    insta::assert_snapshot!(answer_of(vec![pass(0)], Ending::Aborted), @r"
        ANSWER: max RPS >= 1000 (workload=messages, preset=medium; ABORTED before anything tripped: a lower bound)
        Next limit: none found; the run got no further
        ");
    insta::assert_snapshot!(ending(&report(vec![], Ending::Failed("all agents were lost".into()))), @"NOT COMPLETED: all agents were lost; this report covers the trials that were finished");
}

#[test]
fn an_empty_series_is_no_data_and_a_durable_can_be_gone() {
    let trial = trial(0, 0, |measurement| {
        measurement.series[1].latency = LatencyHistogram::new();
        measurement.series[1].counts = SeriesCounts::zero(2);
        measurement.backlog[0].fate = Fate::Gone;
        measurement.fail(DUE, 0);
    });
    insta::assert_snapshot!(table::trials(&[trial], Shape::Text), @r"
         target/s   achieved/s   completed/s   E1 p50   E1 p95   E1 p99   E1 max    E2 p50   E2 p95   E2 p99   E2 max      err%   worst backlog         verdict
        --------------------------------------------------------------------------------------------------------------------------------------------------------
             1000       1000.0           0.0   4.49ms   4.94ms   4.98ms   4.99ms   no data        -        -        -   100.000   message-worker gone   TRIP
            errors 100.00% > 0.1% (10000 of 10000)
            message-worker is gone from stream MESSAGES_CANONICAL_site-local
        ");
}

#[test]
fn notes_say_what_is_odd() {
    let mut trial = trial(0, 0, |measurement| {
        measurement.strays = Strays { foreign: 1, duplicate: 2, late: 3 };
        measurement.little = Some(LittleCheck { in_flight: 31.2, expected: 28.0 });
        measurement.streams = vec![StreamLoad { stream: "MESSAGES".into(), grew: 12_000, sent: 10_000 }];
        measurement.agents[1].health.client_errors = vec!["slow consumer".into()];
        measurement.agents[1].health.worst_stall = Stall::Unbounded;
        measurement.agents[0].health.throttled = Duration::from_millis(1_200);
        measurement.agents[0].health.write_blocked = Duration::from_millis(110);
        measurement.blocks[0].void = true;
        measurement.series[0].latency.record(70_000_000);
    });
    trial.deal = Some(DealSummary { rooms: 500, senders: 800, pairs: 4_000, largest_deviation_ppm: 13_000 });
    insta::assert_snapshot!(notes::notes(&report(vec![trial], Ending::Completed)).join("\n"), @r"
        1000: 1 of 20 blocks are void, a load box stalled in them for over a tenth of the tightest limit; worst: box-b, unbounded (its client dropped replies)
        1000: 1 foreign, 2 duplicate and 3 late messages, which changed nothing else
        1000: 1 samples above 60s are shown as 60s
        1000: Little's law is off: 31.2 operations in flight where rate and time make 28.0: a queue that grows, or something is not what it says
        1000: 500 rooms, 800 senders and 4000 pairs of them in use; a room's rate is off its weight by at most 1.30%
        1000: stream MESSAGES took 12000 messages and we sent 10000: somebody else drives this target
        1000: box-a was held back by a CPU quota for 1.2s
        1000: a write of box-a was blocked for 110ms
        1000: the NATS client of box-b reported: slow consumer
        agents started at most 0us apart, +/- 300us
        a durable that falls behind by less than 100.0/s does not show: +1000 over a hold of 10s
        ");
}

#[test]
fn a_thousand_agents_are_not_a_thousand_lines() {
    let trial = trial(0, 0, |measurement| {
        let agent = measurement.agents[0].clone();
        measurement.agents = vec![agent; 1000];
        let lost = Fault::AgentLost { agent: "x".into(), after: Duration::ZERO, why: "y".into() };
        measurement.faults = vec![lost; 1000];
    });
    assert_eq!(table::trials(std::slice::from_ref(&trial), Shape::Text).lines().count(), 2 + 1 + 9);
    let text = table::agents(std::slice::from_ref(&trial), Shape::Text);
    assert_eq!(text.lines().count(), 2 + 16 + 1);
    assert!(text.ends_with("984 more, all less late"), "{text}");
}

#[test]
fn csv_has_one_row_per_trial_under_a_stable_header() {
    let mut bytes = Vec::new();
    let mut csv = CsvReport::start(&mut bytes, Rows::Trials, &["E1", "E2"], &[]).unwrap();
    csv.row(&pass(0)).unwrap();
    csv.row(&trip(1)).unwrap();
    drop(csv);
    insta::assert_snapshot!(String::from_utf8(bytes).unwrap(), @r"
        step,trial,target_rate,achieved_rate,completion_rate,due,attempted,sent,completed,saturated,underrun,failed_timeout,failed_refused,failed_bad_reply,failed_publish,failed_no_responders,lost,failed_anyway,error_rate,E1_n,E1_p50_ms,E1_p95_ms,E1_p99_ms,E1_max_ms,E2_n,E2_p50_ms,E2_p95_ms,E2_p99_ms,E2_max_ms,clipped,worst_durable,worst_growth,foreign,duplicate,late,void_blocks,verdict,reasons,started_at,E1_p50_low_ms,E1_p50_high_ms,E1_p95_low_ms,E1_p95_high_ms,E1_p99_low_ms,E1_p99_high_ms,E2_p50_low_ms,E2_p50_high_ms,E2_p95_low_ms,E2_p95_high_ms,E2_p99_low_ms,E2_p99_high_ms,not_excluded_s,E1_failed,E2_failed
        1,1,1000,1000.000,1000.000,10000,10000,10000,10000,0,0,0,0,0,0,0,0,0,0.000000000,10000,4.491,4.943,4.983,4.991,10000,19.503,19.951,19.983,19.999,0,MESSAGES_CANONICAL_site-local/message-worker,2,0,0,0,0,PASS,,2026-01-02T03:04:05Z,4.491,4.503,4.943,4.951,4.983,4.991,19.503,19.503,19.951,19.951,19.983,19.999,3.338,0,0
        2,1,2000,1000.000,1000.000,10000,10000,10000,10000,0,0,0,0,0,0,0,0,0,0.000000000,10000,4.491,4.943,4.983,4.991,10000,30.015,312.063,312.063,312.063,0,MESSAGES_CANONICAL_site-local/broadcast-worker,1240,0,0,0,0,TRIP,E2 p95=312ms > 100ms; E2 p99=312ms > 250ms; broadcast-worker pending +1240 > +1000,2026-01-02T03:04:05Z,4.491,4.503,4.943,4.951,4.983,4.991,30.015,30.015,312.063,312.063,312.063,312.063,,0,0
        ");
}

#[test]
fn a_csv_row_is_on_disk_before_the_next_trial() {
    #[derive(Clone, Default)]
    struct Disk(std::rc::Rc<std::cell::RefCell<Vec<u8>>>);
    impl std::io::Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.borrow_mut().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let disk = Disk::default();
    let lines = || disk.0.borrow().iter().filter(|&&byte| byte == b'\n').count();
    let mut csv = CsvReport::start(disk.clone(), Rows::Trials, &["E1", "E2"], &[]).unwrap();
    assert_eq!(lines(), 1);
    csv.row(&pass(0)).unwrap();
    assert_eq!(lines(), 2);
}
