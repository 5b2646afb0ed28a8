//! Reading pages of rooms' history and of threads. A scroll is a chain of requests: when the reply to one is here and was a
//! full page, the next one is ready and asks for what lies before it. The schedule decides when it leaves.

use std::collections::VecDeque;
use std::io::Write as _;

use async_nats::Message;
use bytes::{BufMut as _, BytesMut};
use plimsoll_common::contract::history::{RoomHistory, message_id};
use plimsoll_common::contract::read::{Page, read_page};
use plimsoll_common::contract::subjects;
use plimsoll_common::plan::HistoryWorkload;
use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;

use super::replies::Replies;
use super::room_requests::{Askers, below, is_open, status};
use super::{Aside, Incoming, Outgoing, Probe, Setup, Subscription, Workload};
use crate::core::ledger::{Choice, Kind, Ledger, Outcome};

/// Kinds of operation, and the place of their subjects.
const HISTORY: u8 = 0;
const THREAD: u8 = 1;

/// Observations, in the order of the vocabulary.
const REPLY_BYTES: u8 = 0;
const ROWS: u8 = 1;
const EMPTY: u8 = 2;
const FALLBACK: u8 = 3;

/// Scrolls that wait for their next request; beyond it the oldest is dropped, as a user who lost interest.
const MOST_SCROLLS: usize = 4096;
const CHUNK_BYTES: usize = 64 * 1024;
/// `{"before":…,"limit":…}`, or a thread's.
const MOST_BODY_BYTES: usize = 160;

// The content of a choice. History: when the page ends, in Unix milliseconds (44 bits, 0: now), which page of its scroll it is
// (8 bits, 0: of none), and whether it stands for a thread that its room does not have. Thread: the parent's index.
const PAGE_SHIFT: u32 = 44;
const FELL_BACK: u64 = 1 << 63;

/// Where a scroll goes on.
#[derive(Debug, Clone, Copy)]
struct Scroll {
    place: u32,
    actor: u32,
    before_ms: u64,
    page: u8,
}

/// Pages of history and of threads.
pub struct History {
    plan: HistoryWorkload,
    askers: Askers,
    replies: Replies,
    /// Per place: the messages that have a thread.
    threads: Vec<Vec<u32>>,
    ready: VecDeque<Scroll>,
    chunk: BytesMut,
}

impl History {
    fn open(&self, chance: &mut ChaCha8Rng, page: u8, flags: u64) -> Choice {
        let (place, actor) = self.askers.draw(chance);
        Choice { place, actor, content: u64::from(page) << PAGE_SHIFT | flags, kind: HISTORY }
    }

    fn history(&mut self, chance: &mut ChaCha8Rng) -> Choice {
        let mode = self.plan.before_mode;
        if below(chance.random(), u64::from(mode.open) + u64::from(mode.scrollback)) < u64::from(mode.open) {
            return self.open(chance, 0, 0);
        }
        match self.ready.pop_front() {
            Some(Scroll { place, actor, before_ms, page }) => {
                Choice { place, actor, content: u64::from(page) << PAGE_SHIFT | before_ms, kind: HISTORY }
            }
            None => self.open(chance, 1, 0),
        }
    }

    fn thread(&mut self, chance: &mut ChaCha8Rng) -> Choice {
        loop {
            let (place, actor) = self.askers.draw(chance);
            let threads = &self.threads[place as usize];
            if !threads.is_empty() {
                let parent = threads[below(chance.random(), threads.len() as u64) as usize];
                return Choice { place, actor, content: u64::from(parent), kind: THREAD };
            }
            // Where no history is read there is no series to fall back to: another room.
            if self.plan.reads_history() {
                return Choice { place, actor, content: FELL_BACK, kind: HISTORY };
            }
        }
    }

    /// A full page of a scroll makes the next one ready.
    fn go_on(&mut self, choice: Choice, page: &Page) {
        let number = (choice.content >> PAGE_SHIFT) as u8;
        let full = page.rows == u64::from(self.plan.page_limit);
        let Some(before_ms) = page.oldest_ms.filter(|_| full && number > 0 && number < self.plan.scrollback_pages)
        else {
            return;
        };
        if self.ready.len() == MOST_SCROLLS {
            self.ready.pop_front();
        }
        self.ready.push_back(Scroll { place: choice.place, actor: choice.actor, before_ms, page: number + 1 });
    }

    /// Whether a page has what it must: every room is seeded with messages and every parent with replies, so that only what lies
    /// before a room's first message is empty.
    fn is_plausible(choice: Choice, page: &Page) -> bool {
        let reads_before = choice.kind == HISTORY && choice.content & ((1 << PAGE_SHIFT) - 1) != 0;
        page.rows > 0 || reads_before
    }

    fn observe(&mut self, choice: Choice, page: &Page, bytes: usize, aside: &mut Aside) {
        aside.observed.extend([(REPLY_BYTES, bytes as u64), (ROWS, page.rows)]);
        if page.rows == 0 {
            aside.observed.push((EMPTY, 0));
        }
        if choice.kind == HISTORY {
            if choice.content & FELL_BACK != 0 {
                aside.observed.push((FALLBACK, 0));
            }
            self.go_on(choice, page);
        }
    }

    /// The series of a kind: those that are read, in their order.
    fn series(&self, kind: u8) -> u32 {
        u32::from(kind == THREAD && self.plan.reads_history())
    }
}

impl Workload for History {
    type Plan = HistoryWorkload;

    fn new(plan: &HistoryWorkload, setup: Setup<'_>) -> Result<Self, String> {
        let askers = Askers::new(&setup, &plan.site_id, &[subjects::LOAD_HISTORY, subjects::GET_THREAD]);
        let seed = setup.dealt().seed;
        let threads =
            |room| if plan.reads_threads() { RoomHistory::new(plan.preset, seed, room).threads() } else { vec![] };
        let threads: Vec<Vec<u32>> = askers.places().iter().map(|place| threads(place.room)).collect();
        if !plan.reads_history() && !threads.is_empty() && threads.iter().all(Vec::is_empty) {
            return Err("no room here has a thread: take fewer agents or a mix with history".to_owned());
        }
        Ok(Self {
            threads,
            replies: Replies::new(setup.inbox, "r"),
            plan: plan.clone(),
            ready: VecDeque::new(),
            chunk: BytesMut::new(),
            askers,
        })
    }

    fn kinds(&self) -> Vec<Kind> {
        let kind = |kind| {
            let series = self.series(kind);
            Kind::replied(&[series], series)
        };
        vec![kind(HISTORY), kind(THREAD)]
    }

    fn subscriptions(&self) -> Vec<Subscription> {
        vec![self.replies.subscription(0)]
    }

    fn probes(&self) -> Vec<Probe> {
        let probes = self.askers.probes("start the history service, and check --site-id");
        let read = [self.plan.reads_history(), self.plan.reads_threads()];
        probes.into_iter().zip(read).filter(|(_, read)| *read).map(|(probe, _)| probe).collect()
    }

    fn choose(&mut self, chance: &mut ChaCha8Rng) -> Choice {
        let mix = self.plan.mix;
        if below(chance.random(), u64::from(mix.history) + u64::from(mix.thread)) < u64::from(mix.history) {
            self.history(chance)
        } else {
            self.thread(chance)
        }
    }

    fn message(&mut self, sequence: u64, choice: Choice) -> Outgoing {
        if self.chunk.capacity() < MOST_BODY_BYTES {
            // The old chunk lives on in the bodies cut from it.
            self.chunk = BytesMut::with_capacity(CHUNK_BYTES);
        }
        let limit = self.plan.page_limit;
        let mut body = (&mut self.chunk).writer();
        // Writing to memory does not fail.
        let _ = if choice.kind == THREAD {
            let parent = message_id(&self.askers.place(choice).room_id, choice.content as u32);
            write!(body, "{{\"threadMessageId\":\"{parent}\",\"limit\":{limit}}}")
        } else {
            match choice.content & ((1 << PAGE_SHIFT) - 1) {
                0 => write!(body, "{{\"limit\":{limit}}}"),
                before_ms => write!(body, "{{\"before\":{before_ms},\"limit\":{limit}}}"),
            }
        };
        Outgoing {
            subject: self.askers.subject(choice, usize::from(choice.kind)),
            reply: Some(self.replies.subject(sequence)),
            headers: None,
            payload: self.chunk.split().freeze(),
        }
    }

    fn incoming(&mut self, _: u32, message: &Message, ledger: &Ledger, aside: &mut Aside) -> Incoming {
        let Some(sequence) = self.replies.sequence(&message.subject) else { return Incoming::Foreign };
        let Some(choice) = ledger.choice_ever(sequence) else {
            // Long given up, or never sent: the ledger says which.
            return Incoming::Answer { sequence, series: 0, outcome: Outcome::Unreadable };
        };
        let outcome = status(message).unwrap_or_else(|| {
            let (answer, page) = read_page(&message.payload);
            if let Some(page) = page.filter(|_| is_open(ledger, sequence)) {
                self.observe(choice, &page, message.payload.len(), aside);
            }
            match page {
                Some(page) if !Self::is_plausible(choice, &page) => Outcome::Unreadable,
                _ => answer.into(),
            }
        });
        Incoming::Answer { sequence, series: self.series(choice.kind), outcome }
    }
}

#[cfg(test)]
mod tests {
    use plimsoll_common::contract::time::write_rfc3339;
    use plimsoll_common::plan::Workload as AnyWorkload;
    use rand::SeedableRng as _;

    use super::super::fixture::{fleet, ledger, message};
    use super::*;
    use crate::core::ledger::Release;

    /// One worker that does everything, with these weights of history to thread and of open to scrollback.
    fn history(preset: &str, mix: &str, before_mode: &str) -> (History, Ledger) {
        let plan = HistoryWorkload {
            preset: preset.parse().unwrap(),
            site_id: "s".into(),
            mix: mix.parse().unwrap(),
            before_mode: before_mode.parse().unwrap(),
            scrollback_pages: 3,
            page_limit: 2,
        };
        let any = AnyWorkload::History(plan.clone());
        let history = fleet::<History>(&plan, &any, 1, 1).pop().unwrap();
        let ledger = ledger(&history, &any);
        (history, ledger)
    }

    /// Scrolls only, each operation answered at once by `answer`, which is told its body. Who asked where, and the body.
    fn scroll(requests: usize, mut answer: impl FnMut(&str) -> String) -> Vec<(String, String)> {
        let (mut history, mut ledger) = history("history-medium", "history:1,thread:0", "open:0,scrollback:1");
        let mut chance = ChaCha8Rng::seed_from_u64(1);
        let mut asked = Vec::new();
        for at in 0..requests as u64 {
            let choice = history.choose(&mut chance);
            let Release::Released(sequence) = ledger.due(at, at, || choice) else { panic!("there is room") };
            let outgoing = history.message(sequence, choice);
            let body = String::from_utf8(outgoing.payload.to_vec()).unwrap();
            let reply = message(outgoing.reply.as_ref().unwrap(), answer(&body));
            let incoming = history.incoming(0, &reply, &ledger, &mut Aside::default());
            let Incoming::Answer { outcome, .. } = incoming else { panic!("{incoming:?}") };
            ledger.answer(sequence, 0, outcome, at);
            asked.push((outgoing.subject.to_string(), body));
        }
        asked
    }

    /// A page with rows of these times, in Unix milliseconds.
    fn page(times_ms: &[u64]) -> String {
        let row = |ms: &u64| {
            let mut time = String::new();
            write_rfc3339(&mut time, ms * 1_000_000).unwrap();
            format!("{{\"createdAt\":\"{time}\"}}")
        };
        format!("{{\"messages\":[{}]}}", times_ms.iter().map(row).collect::<Vec<_>>().join(","))
    }

    #[test]
    fn an_empty_page_is_no_success_unless_it_lies_before_a_rooms_first_message() {
        let (mut history, mut ledger) = history("history-medium", "history:1,thread:1", "open:1,scrollback:0");
        let place = u32::try_from(history.threads.iter().position(|threads| !threads.is_empty()).unwrap()).unwrap();
        let parent = u64::from(history.threads[place as usize][0]);
        let cases = [
            (HISTORY, 0, page(&[]), Outcome::Unreadable),
            (HISTORY, FELL_BACK, page(&[]), Outcome::Unreadable),
            (HISTORY, 1 << PAGE_SHIFT, page(&[]), Outcome::Unreadable),
            (HISTORY, 2 << PAGE_SHIFT | 5_000, page(&[]), Outcome::Sample),
            (HISTORY, 0, page(&[7_000]), Outcome::Sample),
            (THREAD, parent, page(&[]), Outcome::Unreadable),
            (THREAD, parent, page(&[7_000]), Outcome::Sample),
        ];
        for (at, (kind, content, answer, expected)) in cases.into_iter().enumerate() {
            let choice = Choice { place, actor: 0, content, kind };
            let Release::Released(sequence) = ledger.due(at as u64, at as u64, || choice) else { panic!("room") };
            let outgoing = history.message(sequence, choice);
            let mut aside = Aside::default();
            let reply = message(outgoing.reply.as_ref().unwrap(), answer.clone());
            let incoming = history.incoming(0, &reply, &ledger, &mut aside);
            let Incoming::Answer { outcome, .. } = incoming else { panic!("{incoming:?}") };
            assert_eq!(outcome, expected, "{kind} {content} {answer}");
            // It is counted all the same.
            assert_eq!(aside.observed.contains(&(EMPTY, 0)), answer == page(&[]), "{kind} {content}");
        }
    }

    fn bodies(asked: &[(String, String)]) -> Vec<&str> {
        asked.iter().map(|(_, body)| body.as_str()).collect()
    }

    const OPEN: &str = "{\"limit\":2}";

    #[test]
    fn a_scroll_goes_on_from_the_reply_before_and_ends_after_its_pages() {
        let mut newest = 1_782_617_354_123;
        let asked = scroll(5, |_| {
            newest -= 10;
            page(&[newest, newest - 5])
        });
        let second = "{\"before\":1782617354108,\"limit\":2}";
        let third = "{\"before\":1782617354098,\"limit\":2}";
        let again = "{\"before\":1782617354078,\"limit\":2}";
        assert_eq!(bodies(&asked), [OPEN, second, third, OPEN, again]);
        // The same member goes on in the same room; the next scroll is somebody else's.
        assert!(asked[0].0 == asked[1].0 && asked[1].0 == asked[2].0, "{asked:?}");
        assert!(asked[3].0 == asked[4].0 && asked[2].0 != asked[3].0, "{asked:?}");
    }

    #[test]
    fn a_page_that_is_empty_short_or_an_error_ends_its_scroll() {
        let refused = r#"{"code":"internal","error":"internal error"}"#;
        for end in [page(&[]), page(&[1_782_617_354_123]), refused.to_owned(), "junk".to_owned()] {
            let asked = scroll(4, |body| if body == OPEN { page(&[7_000, 5_000]) } else { end.clone() });
            assert_eq!(bodies(&asked), [OPEN, "{\"before\":5000,\"limit\":2}", OPEN, "{\"before\":5000,\"limit\":2}"]);
            let at_once = scroll(3, |_| end.clone());
            assert_eq!(bodies(&at_once), [OPEN; 3]);
        }
    }

    #[test]
    fn requests_are_mixed_as_asked() {
        const DRAWS: u32 = 50_000;
        for (mix, threads, before_mode, scrolls) in [
            ("history:80,thread:20", 0.2, "open:70,scrollback:30", 0.3),
            ("history:1,thread:3", 0.75, "open:1,scrollback:9", 0.9),
            ("history:1,thread:0", 0.0, "open:1,scrollback:0", 0.0),
            ("history:0,thread:1", 1.0, "open:0,scrollback:1", 1.0),
        ] {
            let (mut history, _) = history("history-medium", mix, before_mode);
            let mut chance = ChaCha8Rng::seed_from_u64(3);
            let choices: Vec<Choice> = (0..DRAWS).map(|_| history.choose(&mut chance)).collect();
            // A thread request of a room without one is a history request that fell back.
            let is_thread = |choice: &&Choice| choice.kind == THREAD || choice.content & FELL_BACK != 0;
            let asked = choices.iter().filter(is_thread).count() as u32;
            // Five standard deviations of so many draws.
            let near = |count: u32, of: u32, share: f64| {
                let spread = 5.0 * (share * (1.0 - share) * f64::from(of)).sqrt();
                (f64::from(count) - share * f64::from(of)).abs() <= spread
            };
            assert!(near(asked, DRAWS, threads), "{mix}: {asked} of {DRAWS}");
            let scrolling = choices.iter().filter(|choice| !is_thread(choice) && choice.content >> PAGE_SHIFT == 1);
            let scrolling = scrolling.count() as u32;
            assert!(near(scrolling, DRAWS - asked, scrolls), "{before_mode}: {scrolling} of {}", DRAWS - asked);
        }
    }

    #[test]
    fn thread_requests_fall_back_where_a_room_has_no_thread_and_are_told_apart() {
        let (mut history, mut ledger) = history("history-small", "history:1,thread:1", "open:1,scrollback:0");
        let mut chance = ChaCha8Rng::seed_from_u64(3);
        let (mut fell_back, mut observed) = (0, 0);
        for at in 0..1_000 {
            let choice = history.choose(&mut chance);
            assert_eq!(choice.kind, HISTORY);
            fell_back += usize::from(choice.content & FELL_BACK != 0);
            let Release::Released(sequence) = ledger.due(at, at, || choice) else { panic!("there is room") };
            let outgoing = history.message(sequence, choice);
            assert_eq!(&outgoing.payload[..], OPEN.as_bytes());
            let (mut aside, empty) = (Aside::default(), page(&[]));
            let reply = message(outgoing.reply.as_ref().unwrap(), empty.clone());
            history.incoming(0, &reply, &ledger, &mut aside);
            let length = empty.len() as u64;
            assert_eq!(aside.observed[..3], [(REPLY_BYTES, length), (ROWS, 0), (EMPTY, 0)]);
            observed += usize::from(aside.observed.get(3) == Some(&(FALLBACK, 0)));
        }
        assert!((420..580).contains(&fell_back), "{fell_back}");
        assert_eq!(observed, fell_back);
    }
}
