//! What a stand-in backend has done so far: the truth that a test compares a report with.

use super::config::{Endpoint, Stage};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A number that grows, read while it does.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    pub(super) fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }
}

/// All counters of a stand-in backend, since its start.
#[derive(Debug, Default)]
pub struct Counters {
    pub gatekeeper: StageCounters,
    pub message_worker: StageCounters,
    pub broadcast_worker: StageCounters,
    pub notification_worker: StageCounters,
    pub room_worker: StageCounters,
    /// Sends that passed every check and were stored.
    pub accepted: Counter,
    /// Sends answered with an error envelope.
    pub refused: Counter,
    /// Sends that nobody can be answered for: no account or request id to be found.
    pub unanswerable: Counter,
    /// Rooms that were told of a reply in a thread.
    pub thread_metadata: Counter,
    /// Replies published, of every kind but foreign ones.
    pub replies: Counter,
    pub replies_skipped: Counter,
    pub replies_garbage: Counter,
    pub replies_duplicated: Counter,
    pub replies_foreign: Counter,
    /// Messages broadcast, each counted once however many copies it took.
    pub broadcasts: Counter,
    pub broadcasts_dropped: Counter,
    pub broadcasts_duplicated: Counter,
    pub broadcasts_foreign: Counter,
    /// Member events published, without foreign and second ones.
    pub member_events: Counter,
    /// What users said of their presence.
    pub presence_signs: Counter,
    /// Rooms that were made.
    pub rooms_created: Counter,
    /// Requests answered as asked although they carried no id, as the chat answers them; it refused them once.
    pub unnamed: Counter,
    /// Requests answered as asked, by [`Endpoint`].
    pub answered: [Counter; Endpoint::ALL.len()],
    /// Requests answered with an error envelope, by [`Endpoint`].
    pub rejected: [Counter; Endpoint::ALL.len()],
}

impl Counters {
    pub fn stage(&self, stage: Stage) -> &StageCounters {
        match stage {
            Stage::Gatekeeper => &self.gatekeeper,
            Stage::MessageWorker => &self.message_worker,
            Stage::BroadcastWorker => &self.broadcast_worker,
            Stage::NotificationWorker => &self.notification_worker,
            Stage::RoomWorker => &self.room_worker,
        }
    }
}

/// What every stage counts.
#[derive(Debug, Default)]
pub struct StageCounters {
    /// Messages delivered to the stage, redeliveries included.
    pub received: Counter,
    pub redelivered: Counter,
    /// Messages whose service and delay have ended.
    pub served: Counter,
    /// Messages given back for another delivery.
    pub naks: Counter,
    finished_nanos: Counter,
}

impl StageCounters {
    /// The virtual time, since the stand-in's start, at which the newest served message was done.
    pub fn finished(&self) -> Duration {
        Duration::from_nanos(self.finished_nanos.get())
    }

    pub(super) fn record_served(&self, finished: Duration) {
        self.finished_nanos.set(finished.as_nanos() as u64);
        self.served.add(1);
    }
}
