//! What feeds the client: operations as they are released, and what makes the server confirm those that nobody answers.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::atomic::Ordering;

use async_nats::Client;
use async_nats::client::PublishError;
use plimsoll_common::contract::subjects;
use tokio::sync::Notify;

use super::state::{Next, State};
use crate::shell::clock::boottime_ns;
use crate::shell::lease::Lease;
use crate::shell::lines::NotTaken;
use crate::workload::{Outgoing, Workload};

/// Marks the subjects of messages behind a burst, apart from other fences.
pub(super) const BURST: char = 'b';

/// Feeds the client from the queue.
pub(super) struct Writer {
    pub(super) client: Client,
    pub(super) inbox: String,
    pub(super) lease: Lease,
}

impl Writer {
    /// The client may make this wait; nobody else waits for it.
    pub(super) async fn write<W: Workload>(self, state: Rc<RefCell<State<W>>>, wakes: Rc<Notify>) {
        loop {
            wakes.notified().await;
            loop {
                let Some(Next { sequence, line, outgoing }) = state.borrow_mut().next_outgoing() else { break };
                if !self.lease.holds(boottime_ns()) {
                    let mut state = state.borrow_mut();
                    state.queue.clear();
                    state.replies.clear();
                    return;
                }
                let taken = match line {
                    Some(line) => to_line(&state.borrow(), line, &outgoing),
                    // The client waits for a connection that is down; what it refuses is too large, or not wanted any more.
                    None => self.hand_over(outgoing).await.map_err(|_| NotTaken { since_ns: boottime_ns() }),
                };
                let mut state = state.borrow_mut();
                if let (Ok(()), Some(sequence)) = (&taken, sequence) {
                    state.handed_over(sequence);
                }
                let (Some(trial), Some(sequence)) = (&mut state.trial, sequence) else { continue };
                if let Err(NotTaken { since_ns }) = taken {
                    trial.ledger.publish_failed(sequence, since_ns, boottime_ns());
                } else if let Some(series) = trial.ledger.sent(sequence) {
                    state.confirmations.gather(sequence, series, connections(&self.client));
                }
            }
            let burst = state.borrow_mut().confirmations.close_burst();
            if let Some(number) = burst {
                let subject = format!("{}.fence.{BURST}{number}", self.inbox);
                // What is not handed over does not come back, and what waits for it times out.
                let _ = self.client.publish(subject, bytes::Bytes::new()).await;
            }
        }
    }

    async fn hand_over(&self, outgoing: Outgoing) -> Result<(), PublishError> {
        let Outgoing { subject, reply, headers, payload } = outgoing;
        let client = &self.client;
        match (reply, headers) {
            (None, None) => client.publish(subject, payload).await,
            (None, Some(headers)) => client.publish_with_headers(subject, headers, payload).await,
            (Some(reply), None) => client.publish_with_reply(subject, reply, payload).await,
            (Some(reply), Some(headers)) => {
                client.publish_with_reply_and_headers(subject, reply, headers, payload).await
            }
        }
    }
}

/// Hands a message to a user's line.
fn to_line<W: Workload>(state: &State<W>, line: u32, outgoing: &Outgoing) -> Result<(), NotTaken> {
    let Some(lines) = &state.lines else { return Err(NotTaken { since_ns: boottime_ns() }) };
    let id = outgoing.headers.as_ref().and_then(|headers| headers.get(subjects::REQUEST_ID_HEADER));
    let header = (subjects::REQUEST_ID_HEADER, id.map_or("", |id| id.as_str()));
    lines.publish(line, &outgoing.subject, outgoing.reply.as_deref(), header, &outgoing.payload)
}

/// How many connections there have been, this one included.
pub(super) fn connections(client: &Client) -> u64 {
    client.statistics().connects.load(Ordering::Relaxed)
}

/// How long the connection takes to write out what it has been handed.
pub(super) async fn time_a_flush<W>(client: Client, state: Rc<RefCell<State<W>>>) {
    let began_ns = boottime_ns();
    state.borrow_mut().flush_began_ns = Some(began_ns);
    // A flush that fails has waited for as long as it took to fail.
    let _ = client.flush().await;
    let mut state = state.borrow_mut();
    state.flush_began_ns = None;
    state.write_blocked_us = state.write_blocked_us.max((boottime_ns() - began_ns) / 1000);
}
