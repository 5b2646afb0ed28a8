use super::*;

#[test]
fn what_is_kept_of_a_day_is_what_can_still_change() {
    const TIMEOUT_NS: u64 = 10 * BLOCK_NS;
    let series = [SeriesLimits { series: "E1".into(), limits_us: vec![100_000] }];
    let blocks = 24 * 3600 * 2_u64;
    let window = Window { start_ns: 0, hold_start_ns: 0, hold_end_ns: blocks * BLOCK_NS };
    let mut recorder = Recorder::new(&series, &[], window, TIMEOUT_NS);
    let mut due = 0;
    for number in 0..blocks as u32 {
        let now_ns = u64::from(number) * BLOCK_NS;
        recorder.counters(now_ns).due += 1;
        recorder.held_up(now_ns, 1_000_000);
        if let Some(long_ago) = now_ns.checked_sub(TIMEOUT_NS) {
            recorder.failed(Ending::Timeout, 1, long_ago, long_ago, now_ns);
        }
        let block = recorder.close_block(number, Stall::Bounded(0));
        due += block.blocks.iter().map(|delta| delta.counters.due).sum::<u64>();
        assert!(block.blocks.iter().all(|delta| delta.block <= number && number - delta.block <= 10));
        assert!(recorder.blocks.is_empty() && recorder.lateness_ns.is_empty() && recorder.suspects.is_empty());
        assert!(recorder.stalls_ns.len() <= recorder.most_stalls);
    }
    let totals = recorder.totals();
    assert_eq!((due, totals.counters.due, recorder.closed_blocks()), (blocks, blocks, blocks as u32));
    // A second look subtracts the stalls of twelve blocks: 5 s less 12 ms are above the limit anyway.
    assert_eq!(totals.series[0].above_anyway, [blocks - 10]);
}

#[test]
fn a_block_that_changes_late_is_told_again_and_alone() {
    let series = [SeriesLimits { series: "E1".into(), limits_us: vec![100_000] }];
    let window = Window { start_ns: 0, hold_start_ns: 0, hold_end_ns: 20 * BLOCK_NS };
    let mut recorder = Recorder::new(&series, &[], window, 20 * BLOCK_NS);
    for block in [7, 3, 5] {
        recorder.completed(block * BLOCK_NS, block * BLOCK_NS, 8 * BLOCK_NS);
    }
    let numbers = |block: &WorkerBlock| block.blocks.iter().map(|delta| delta.block).collect::<Vec<_>>();
    assert_eq!(numbers(&recorder.close_block(8, Stall::Bounded(0))), [3, 5, 7]);
    recorder.completed(4 * BLOCK_NS, 4 * BLOCK_NS, 9 * BLOCK_NS);
    assert_eq!(numbers(&recorder.close_block(9, Stall::Bounded(0))), [4]);
    assert_eq!(numbers(&recorder.close_block(10, Stall::Bounded(0))), [] as [u32; 0]);
}

/// Two workers of a trial that begins at some instant, with a limit of 100 ms, who hear answers for each other.
fn siblings() -> [Recorder; 2] {
    let series = [SeriesLimits { series: "E2".into(), limits_us: vec![100_000] }];
    let start_ns = 77_123_456_789;
    let window = Window { start_ns, hold_start_ns: start_ns, hold_end_ns: start_ns + 20 * BLOCK_NS };
    let stalls = Arc::new(Stalls::default());
    [(); 2].map(|()| {
        let mut recorder = Recorder::new(&series, &[], window, 10 * BLOCK_NS);
        recorder.share(stalls.clone());
        recorder
    })
}

/// So many blocks after the trial began.
fn at(recorder: &Recorder, blocks: f64) -> u64 {
    recorder.window.start_ns + (blocks * BLOCK_NS as f64) as u64
}

fn none() -> Stall {
    Stall::Bounded(0)
}

#[test]
fn what_was_heard_late_by_a_sibling_that_was_held_up_is_above_but_not_above_anyway() {
    let [mut own, mut sibling] = siblings();
    let (sent_ns, heard_ns) = (at(&own, 0.2), at(&own, 1.5));
    // The sibling stands still from 0.2 to 1.5: while it does, nobody knows.
    assert_eq!(own.close_block(0, none()).stall, none());
    sibling.held_up(heard_ns, heard_ns - sent_ns);
    own.sample(0, sent_ns, sent_ns, heard_ns);
    let stalled = Stall::Bounded(650_000);
    assert_eq!(own.close_block(1, none()).stall, stalled);
    // What the service is to blame for is so all the same: it took a block longer than the sibling stood still.
    own.sample(0, sent_ns, sent_ns, at(&own, 2.6));
    own.close_block(2, none());
    own.comes_to_its_end();
    own.close_block(3, none());
    let counts = &own.totals().series[0];
    assert_eq!((counts.n, &counts.above, &counts.above_anyway), (2, &vec![2], &vec![1]));
    // And what held up this one holds up its sibling.
    own.held_up(at(&own, 4.1), 70_000_000);
    for number in 0..4 {
        sibling.close_block(number, none());
    }
    assert_eq!(sibling.close_block(4, none()).stall, Stall::Bounded(70_000));
}

#[test]
fn what_a_sibling_tells_when_its_block_was_closed_still_counts() {
    let [mut own, mut sibling] = siblings();
    own.sample(0, at(&own, 0.0), at(&own, 0.0), at(&own, 0.8));
    assert_eq!(own.close_block(0, none()).stall, none());
    // That its thread had no room left a sibling knows at the end of its block alone.
    sibling.close_block(0, Stall::Bounded(500_000));
    own.close_block(1, none());
    // Heard in a block that was closed meanwhile, in which there was no stall: the next is looked at.
    own.sample(0, at(&own, 0.9), at(&own, 0.9), at(&own, 1.9));
    assert_eq!(own.totals().series[0].above_anyway, [0]);
    own.close_block(2, none());
    own.close_block(3, none());
    let counts = &own.totals().series[0];
    // The second spans the block of the stall too, as far as one is subtracted: the block before the one it was due in.
    assert_eq!((&counts.above, &counts.above_anyway), (&vec![2], &vec![0]));
    own.sample(0, at(&own, 3.0), at(&own, 3.0), at(&own, 3.9));
    assert_eq!(own.close_block(4, none()).series[0].latency.len(), 1);
    own.close_block(5, none());
    assert_eq!(own.totals().series[0].above_anyway, [1]);
}

#[test]
fn what_ended_in_the_last_block_is_looked_at_when_that_is_closed() {
    let [mut own, mut sibling] = siblings();
    own.sample(0, at(&own, 1.0), at(&own, 1.0), at(&own, 1.8));
    sibling.held_up(at(&own, 1.8), 350_000_000);
    own.close_block(0, none());
    own.comes_to_its_end();
    own.close_block(1, none());
    assert_eq!((&own.totals().series[0].above, &own.totals().series[0].above_anyway), (&vec![1], &vec![0]));
    own.sample(0, at(&own, 2.0), at(&own, 2.0), at(&own, 2.8));
    own.close_block(2, none());
    assert_eq!((&own.totals().series[0].above, &own.totals().series[0].above_anyway), (&vec![2], &vec![0]));
}
