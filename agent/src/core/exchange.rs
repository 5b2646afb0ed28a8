//! What the workers of one agent tell each other where levels are users: whose users are online, which copies of a sibling's
//! messages a worker's users have heard, and how long the box held any of them up. Nothing here waits: copies go through a
//! bounded queue per worker, and all else are single words but for who is online, which is asked once per message.

mod online;
mod stalls;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

pub use self::online::Online;
pub use self::stalls::Stalls;

/// Copies that wait for all workers of an agent together, and for each of them at least.
const MOST_COPIES: usize = 1 << 17;
const FEWEST_COPIES: usize = 1 << 12;
/// A worker looks up every 10 ms. One that has not for so much longer is being held up.
const LOOKS_UP_NS: u64 = 10_000_000;
const GAP_NS: u64 = 20_000_000;

/// A copy of a worker's message that a user of a sibling has heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CopyHeard {
    /// The operation, by its number on the worker that sent it.
    pub sequence: u64,
    /// By which way it came, such as a line: no two workers of an agent have the same.
    pub way: u32,
    /// To how many users it came.
    pub came_to: u32,
    /// The arrival ([`Online::come`]) with which they came online.
    pub since: u64,
    /// When, on the clock that all workers share.
    pub heard_ns: u64,
}

/// What the workers of an agent share in a run.
#[derive(Debug)]
pub struct Exchange {
    online: Online,
    stalls: Arc<Stalls>,
    posts: Vec<Post>,
}

/// What others see of a worker. Trials are told apart by when they begin, plus one; zero is none.
#[derive(Debug)]
struct Post {
    copies: SyncSender<CopyHeard>,
    /// Copies for which there was no room.
    lost: AtomicU64,
    trial: AtomicU64,
    /// The newest trial of which everything of its own has ended.
    settled: AtomicU64,
    awake: Awake,
}

/// When a worker last looked up: apart from what others read for every copy, since it is written all the time.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Awake(AtomicU64);

/// A worker's own end of it.
#[derive(Debug)]
pub struct Desk {
    exchange: Arc<Exchange>,
    worker: usize,
    inbox: Receiver<CopyHeard>,
    capacity: usize,
    /// In the order in which they were heard.
    gathered: VecDeque<CopyHeard>,
    trial: u64,
}

impl Exchange {
    /// The desks of so many workers, by their positions, who share one exchange.
    pub fn desks(workers: u8) -> Vec<Desk> {
        let capacity = match workers {
            // There is nobody to tell it anything.
            0 | 1 => 1,
            several => (MOST_COPIES / usize::from(several)).max(FEWEST_COPIES),
        };
        let (copies, inboxes): (Vec<_>, Vec<_>) = (0..workers).map(|_| sync_channel(capacity)).unzip();
        let post = |copies| Post {
            copies,
            lost: AtomicU64::new(0),
            trial: AtomicU64::new(0),
            settled: AtomicU64::new(0),
            awake: Awake::default(),
        };
        let posts = copies.into_iter().map(post).collect();
        let exchange = Arc::new(Self { online: Online::default(), stalls: Arc::default(), posts });
        let desk = |(worker, inbox)| Desk {
            exchange: exchange.clone(),
            worker,
            inbox,
            capacity,
            gathered: VecDeque::new(),
            trial: 0,
        };
        inboxes.into_iter().enumerate().map(desk).collect()
    }

    /// Who is online on this agent.
    pub fn online(&self) -> &Online {
        &self.online
    }

    /// Tells a worker of a copy that it waits for; outside a trial it waits for none. Returns whether there is such a worker.
    pub fn tell(&self, worker: u8, copy: CopyHeard) -> bool {
        let Some(post) = self.posts.get(usize::from(worker)) else { return false };
        if post.trial.load(Relaxed) != 0 && post.copies.try_send(copy).is_err() {
            post.lost.fetch_add(1, Relaxed);
        }
        true
    }
}

impl Desk {
    /// What this worker shares with its siblings.
    pub fn exchange(&self) -> &Arc<Exchange> {
        &self.exchange
    }

    /// What holds any worker up, for all: `None` where a worker is alone.
    pub fn stalls(&self) -> Option<Arc<Stalls>> {
        (self.exchange.posts.len() > 1).then(|| self.exchange.stalls.clone())
    }

    fn own(&self) -> &Post {
        &self.exchange.posts[self.worker]
    }

    fn others(&self) -> impl Iterator<Item = &Post> {
        let all = self.exchange.posts.iter().enumerate();
        all.filter(|&(worker, _)| worker != self.worker).map(|(_, post)| post)
    }

    /// A trial begins at this instant: from now on copies are waited for.
    pub fn begin(&mut self, start_ns: u64) {
        self.trial = start_ns + 1;
        self.looks_up(start_ns);
        self.own().trial.store(self.trial, Relaxed);
    }

    /// The trial is over here.
    pub fn end(&mut self) {
        self.settle();
        self.own().trial.store(0, Relaxed);
    }

    /// Everything of its own has ended; it goes on hearing copies for its siblings.
    pub fn settle(&self) {
        self.own().settled.store(self.trial, Relaxed);
    }

    /// Whether its siblings have nothing left that waits for a copy.
    pub fn others_settled(&self) -> bool {
        self.others().all(|post| post.settled.load(Relaxed) >= self.trial)
    }

    /// The worker runs at this instant.
    pub fn looks_up(&self, now_ns: u64) {
        self.own().awake.0.store(now_ns, Relaxed);
    }

    /// For how long the sibling that has been held up longest has not run, in nanoseconds: what that costs it will only be
    /// known when it runs again.
    pub fn others_held_up_ns(&self, now_ns: u64) -> u64 {
        let under_way = self.others().filter(|post| post.trial.load(Relaxed) == self.trial);
        let delays = under_way.map(|post| now_ns.saturating_sub(post.awake.0.load(Relaxed) + LOOKS_UP_NS));
        delays.max().filter(|&delay_ns| delay_ns > GAP_NS).unwrap_or(0)
    }

    /// Gathers what its siblings have told it since, for [`Self::next_until`].
    pub fn gather(&mut self) {
        let before = self.gathered.len();
        // Others go on telling meanwhile.
        self.gathered.extend(self.inbox.try_iter().take(self.capacity));
        if self.gathered.len() > before.max(1) {
            self.gathered.make_contiguous().sort_by_key(|copy| copy.heard_ns);
        }
    }

    /// The next gathered copy, if it was heard by then.
    pub fn next_until(&mut self, until_ns: u64) -> Option<CopyHeard> {
        let next = *self.gathered.front()?;
        if next.heard_ns > until_ns {
            return None;
        }
        self.gathered.pop_front()
    }

    /// How many copies were lost since the last call, since they came faster than they were gathered.
    pub fn take_lost(&self) -> u64 {
        self.own().lost.swap(0, Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copy(sequence: u64, heard_ns: u64) -> CopyHeard {
        CopyHeard { sequence, way: 1, came_to: 1, since: 1, heard_ns }
    }

    fn drain(desk: &mut Desk, until_ns: u64) -> Vec<u64> {
        desk.gather();
        std::iter::from_fn(|| desk.next_until(until_ns)).map(|copy| copy.sequence).collect()
    }

    #[test]
    fn copies_come_in_the_order_in_which_they_were_heard_and_none_ahead_of_its_time() {
        let mut desks = Exchange::desks(3);
        desks[0].begin(5);
        let exchange = desks[0].exchange().clone();
        for (sequence, heard_ns) in [(1, 30), (2, 10), (3, 40), (4, 20)] {
            assert!(exchange.tell(0, copy(sequence, heard_ns)));
        }
        assert_eq!(drain(&mut desks[0], 30), [2, 4, 1]);
        exchange.tell(0, copy(5, 35));
        assert_eq!(drain(&mut desks[0], u64::MAX), [5, 3]);
        assert!(drain(&mut desks[0], u64::MAX).is_empty());
        assert!(!exchange.tell(3, copy(1, 1)));
    }

    #[test]
    fn what_nobody_takes_is_bounded_and_counted_and_nobody_is_told_anything_outside_a_trial() {
        let mut desks = Exchange::desks(255);
        let exchange = desks[9].exchange().clone();
        exchange.tell(9, copy(0, 0));
        assert!(drain(&mut desks[9], u64::MAX).is_empty());
        desks[9].begin(5);
        for sequence in 0..FEWEST_COPIES as u64 + 3 {
            exchange.tell(9, copy(sequence, 7));
        }
        assert_eq!((desks[9].take_lost(), desks[9].take_lost()), (3, 0));
        assert_eq!(drain(&mut desks[9], u64::MAX).len(), FEWEST_COPIES);
        // What was told before its end is there in the trial after it.
        exchange.tell(9, copy(1, 8));
        desks[9].end();
        exchange.tell(9, copy(2, 9));
        desks[9].begin(20);
        assert_eq!(drain(&mut desks[9], u64::MAX), [1]);
    }

    #[test]
    fn a_trial_is_over_when_everything_of_all_has_ended() {
        let mut desks = Exchange::desks(2);
        assert!(Exchange::desks(1).remove(0).others_settled());
        for start_ns in [0, 1_000] {
            desks.iter_mut().for_each(|desk| desk.begin(start_ns));
            desks[0].settle();
            assert_eq!([desks[0].others_settled(), desks[1].others_settled()], [false, true]);
            // One that is stopped has nothing left to wait for either.
            desks[1].end();
            assert!(desks[0].others_settled());
        }
    }

    #[test]
    fn a_sibling_that_does_not_run_is_seen_while_it_does_not() {
        const MS: u64 = 1_000_000;
        let mut desks = Exchange::desks(3);
        desks[..2].iter_mut().for_each(|desk| desk.begin(100 * MS));
        desks[1].looks_up(200 * MS);
        assert_eq!(desks[0].others_held_up_ns(225 * MS), 0);
        assert_eq!(desks[0].others_held_up_ns(500 * MS), 290 * MS);
        desks[1].looks_up(490 * MS);
        assert_eq!(desks[0].others_held_up_ns(500 * MS), 0);
        desks[1].end();
        assert_eq!(desks[0].others_held_up_ns(900 * MS), 0);
    }
}
