//! What two workers of one agent hear for each other.

use plimsoll_common::contract::daily::Band;
use plimsoll_common::contract::daily::behaviour::Action;
use plimsoll_common::snapshot::{SeriesHistograms, Stall};
use plimsoll_common::workload::daily::{RECIPIENTS_EXPECTED, RECIPIENTS_REACHED};
use rand::SeedableRng as _;

use super::*;
use crate::core::exchange::Exchange;
use crate::core::recorder::WorkerBlock;
use crate::workload::Part;
use crate::workload::daily::Daily;
use crate::workload::daily::tests::{
    begin_again, broadcast, expected_in, heard, large_room_of, lines_of, members_here, next, send_to, worker_with,
};

const E2: usize = 1;
const E2_LAST: usize = 2;
const MS: u64 = 1_000_000;

/// The first hundred users, thirty with a connection each, on two workers in a trial.
fn siblings() -> [State<Daily>; 2] {
    let parts = Part::of_users(&(0..100).collect::<Vec<_>>(), 30, 4, 2);
    let mut desks = Exchange::desks(2).into_iter();
    [0, 1].map(|worker| {
        let mut desk = desks.next().unwrap();
        let part = &parts[usize::from(worker)];
        let (daily, ledger) = worker_with(0, (worker, 2), part, desk.exchange());
        desk.begin(0);
        State {
            workload: Some(daily),
            trial: Some(trial(ledger)),
            lines: None,
            desk: Some(desk),
            next_sequence: 0,
            queue: VecDeque::new(),
            replies: VecDeque::new(),
            aside: Aside::default(),
            fence: 0,
            confirmations: Confirmations::default(),
            write_blocked_us: 0,
            flush_began_ns: None,
        }
    })
}

fn trial(ledger: Ledger) -> Trial {
    Trial { ledger, schedule: Times::Workload(0), next_due_ns: None, chance: ChaCha8Rng::seed_from_u64(3) }
}

impl State<Daily> {
    fn daily(&self) -> &Daily {
        self.workload.as_ref().unwrap()
    }

    /// The next message to a room of this band that comes by so many lines at least to either worker: its number and its room.
    fn send(&mut self, band: Band, sibling: &Self, lines: usize) -> (u64, u32) {
        loop {
            let ledger = &mut self.trial.as_mut().unwrap().ledger;
            let (sequence, room) = send_to(self.workload.as_mut().unwrap(), ledger, band);
            if [&*self, sibling].iter().all(|state| lines_of(state.daily(), room).len() >= lines) {
                self.handed_over(sequence);
                return (sequence, room);
            }
        }
    }

    fn hears(&mut self, (line, tag, _): (u32, u64, u32), body: &str, at_ns: u64) {
        self.hear(line, tag, &heard("chat.x", body.as_bytes()), at_ns);
    }

    fn close(&mut self) -> WorkerBlock {
        self.trial.as_mut().unwrap().ledger.close_block(0, Stall::Bounded(0))
    }
}

/// When the only sample of a series came, in whole milliseconds.
fn only_ms(series: &SeriesHistograms) -> Option<u64> {
    (series.latency.len() == 1).then(|| (series.latency.max_us().unwrap() + 500) / 1000)
}

/// How many recipients were expected and how many reached.
fn recipients(block: &WorkerBlock) -> (u64, u64) {
    let sum = |observation: u8| block.observed[usize::from(observation)].sum;
    (sum(RECIPIENTS_EXPECTED), sum(RECIPIENTS_REACHED))
}

#[test]
fn a_message_is_whole_when_everybody_on_the_agent_has_it() {
    for band in [Band::Medium, Band::Small, Band::Dm] {
        let [mut own, mut sibling] = siblings();
        let (sequence, room) = own.send(band, &sibling, 1);
        let (body, everybody) = (broadcast(own.daily(), sequence), u64::from(members_here(own.daily(), room)));
        let (owns, siblings) = (lines_of(own.daily(), room), lines_of(sibling.daily(), room));
        let mut reached = 0;
        for (at, &copy) in (1..).zip(&siblings) {
            sibling.hears(copy, &body, at * MS);
            reached += u64::from(copy.2);
            own.take_copies(at * MS);
        }
        let block = own.close();
        assert_eq!((only_ms(&block.series[E2]), recipients(&block)), (Some(1), (everybody, reached)), "{band:?}");
        assert!(block.series[E2_LAST].latency.is_empty() && reached < everybody, "{band:?}");
        let last_ms = 100 + owns.len() as u64;
        for (at, &copy) in (101..).zip(&owns) {
            own.hears(copy, &body, at * MS);
        }
        let block = own.close();
        assert_eq!((only_ms(&block.series[E2_LAST]), recipients(&block)), (Some(last_ms), (0, everybody - reached)));
        assert_eq!((block.strays.duplicate, block.strays.late, block.strays.foreign), (0, 0, 0), "{band:?}");
        let of_sibling = sibling.close();
        assert_eq!((recipients(&of_sibling), of_sibling.strays.foreign), ((0, 0), 0), "{band:?}");
    }
}

#[test]
fn what_sets_out_is_expected_although_nobody_hears_of_it_again() {
    let [mut own, sibling] = siblings();
    let (_, room) = own.send(Band::Medium, &sibling, 1);
    own.trial.as_mut().unwrap().ledger.age(6_000 * MS);
    let block = own.close();
    assert_eq!(recipients(&block), (u64::from(members_here(own.daily(), room)), 0));
    assert!(block.blocks[0].counters.failed.timeout > 0);
}

#[test]
fn first_and_last_go_by_when_copies_were_heard_and_not_by_when_they_are_known() {
    let [mut own, mut sibling] = siblings();
    let (sequence, room) = own.send(Band::Medium, &sibling, 3);
    let body = broadcast(own.daily(), sequence);
    let (owns, siblings) = (lines_of(own.daily(), room), lines_of(sibling.daily(), room));
    // The sibling heard it first, and another after this worker's first but before that is read.
    sibling.hears(siblings[0], &body, 20 * MS);
    sibling.hears(siblings[1], &body, 31 * MS);
    own.hears(owns[0], &body, 30 * MS);
    let block = own.close();
    assert_eq!(only_ms(&block.series[E2]), Some(20));
    // What was heard at 31 ms is not yet taken at 30.
    assert_eq!(recipients(&block).1, u64::from(siblings[0].2 + owns[0].2));
    // All of its own come, the last at 90 ms, before it is told of what the sibling heard.
    for &copy in &owns[1..] {
        own.hears(copy, &body, 90 * MS);
    }
    for &copy in &siblings[2..] {
        sibling.hears(copy, &body, 60 * MS);
    }
    own.take_copies(100 * MS);
    let block = own.close();
    assert_eq!(only_ms(&block.series[E2_LAST]), Some(90));
}

#[test]
fn a_copy_that_a_sibling_hears_twice_reaches_nobody_else() {
    let [mut own, mut sibling] = siblings();
    let (sequence, room) = own.send(Band::Medium, &sibling, 3);
    let body = broadcast(own.daily(), sequence);
    let (owns, siblings) = (lines_of(own.daily(), room), lines_of(sibling.daily(), room));
    for &copy in &siblings {
        sibling.hears(copy, &body, MS);
        sibling.hears(copy, &body, 2 * MS);
    }
    own.hears(owns[0], &body, 3 * MS);
    own.hears(owns[0], &body, 3 * MS);
    let block = own.close();
    let reached: u32 = siblings.iter().map(|copy| copy.2).sum::<u32>() + owns[0].2;
    assert_eq!(recipients(&block), (u64::from(members_here(own.daily(), room)), u64::from(reached)));
    assert_eq!((block.strays.duplicate, block.strays.late), (siblings.len() as u64 + 1, 0));
    assert!(block.series[E2_LAST].latency.is_empty());
}

#[test]
fn copies_that_never_come_are_missing_from_those_expected() {
    let [mut own, mut sibling] = siblings();
    let (sequence, room) = own.send(Band::Medium, &sibling, 3);
    let body = broadcast(own.daily(), sequence);
    let mut missing = 0;
    for (at, copy) in lines_of(sibling.daily(), room).into_iter().enumerate() {
        if at % 3 == 0 {
            missing += u64::from(copy.2);
        } else {
            sibling.hears(copy, &body, MS);
        }
    }
    for copy in lines_of(own.daily(), room) {
        own.hears(copy, &body, MS);
    }
    own.trial.as_mut().unwrap().ledger.age(6_000 * MS);
    let block = own.close();
    let (expected, reached) = recipients(&block);
    assert_eq!((expected, expected - reached), (u64::from(members_here(own.daily(), room)), missing));
    assert!(missing > 0);
    // What comes after that is late.
    let late = lines_of(sibling.daily(), room)[0];
    sibling.hears(late, &body, 6_001 * MS);
    own.take_copies(6_001 * MS);
    let block = own.close();
    assert_eq!((block.strays.late, recipients(&block)), (1, (0, 0)));
}

#[test]
fn a_copy_of_an_earlier_trial_is_late_and_a_sample_of_no_trial() {
    let [mut own, mut sibling] = siblings();
    let (sequence, room) = own.send(Band::Medium, &sibling, 3);
    let body = broadcast(own.daily(), sequence);
    let copies = lines_of(sibling.daily(), room);
    // Told before the trial's end and never taken in it.
    sibling.hears(copies[0], &body, MS);
    own.desk.as_mut().unwrap().end();
    let before = own.trial.take().unwrap();
    // Between trials nobody waits for it.
    sibling.hears(copies[1], &body, MS);
    let ledger = begin_again(own.workload.as_mut().unwrap(), before.ledger.next_sequence());
    own.trial = Some(trial(ledger));
    own.desk.as_mut().unwrap().begin(1_000 * MS);
    own.take_copies(1_001 * MS);
    let block = own.close();
    assert_eq!((block.strays.late, block.strays.foreign, recipients(&block)), (1, 0, (0, 0)));
    assert!(block.series.iter().all(|series| series.latency.is_empty()));
}

#[test]
fn a_sibling_that_is_through_goes_on_hearing() {
    let [mut own, mut sibling] = siblings();
    let (sequence, room) = own.send(Band::Medium, &sibling, 3);
    let body = broadcast(own.daily(), sequence);
    sibling.desk.as_mut().unwrap().end();
    sibling.trial = None;
    for copy in lines_of(sibling.daily(), room) {
        sibling.hears(copy, &body, 7 * MS);
    }
    own.take_copies(8 * MS);
    let block = own.close();
    let here: u32 = lines_of(sibling.daily(), room).iter().map(|copy| copy.2).sum();
    assert_eq!((only_ms(&block.series[E2]), recipients(&block).1), (Some(7), u64::from(here)));
}

#[test]
fn who_follows_a_thread_on_another_worker_answers_no_reply() {
    let [mut own, mut sibling] = siblings();
    let ledger = &mut own.trial.as_mut().unwrap().ledger;
    let (sequence, choice, _) = next(own.workload.as_mut().unwrap(), ledger, Action::ThreadReply);
    let body = broadcast(own.daily(), sequence);
    for copy in lines_of(sibling.daily(), choice.place) {
        sibling.hears(copy, &body, MS);
    }
    own.take_copies(2 * MS);
    let block = own.close();
    assert!(block.series.iter().all(|series| series.latency.is_empty()));
    assert_eq!((block.strays.late, block.strays.foreign, block.strays.duplicate), (0, 0, 0));
}

#[test]
fn a_siblings_users_are_expected_while_they_are_online() {
    let [own, mut sibling] = siblings();
    let mut expected = Vec::new();
    let line = sibling.daily().lines().unwrap()[0].line;
    let room = large_room_of(own.daily(), line);
    for change in 0..3 {
        match change {
            0 => {}
            1 => sibling.workload.as_mut().unwrap().line_changed(line, false),
            // Dealt anew, as when the fleet changes.
            _ => sibling.workload = None,
        }
        expected.push(expected_in(own.daily(), room));
    }
    let here = members_here(own.daily(), room);
    let owns: u32 = lines_of(own.daily(), room).iter().map(|copy| copy.2).sum();
    assert_eq!(expected, [here, here - 1, owns]);
}
