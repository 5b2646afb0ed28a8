//! Messages to ourselves, by which a worker knows how far the server and its own reading have come.

use std::time::Duration;

use futures::StreamExt as _;

use super::Worker;
use super::orders::WorkerRefusal;
use super::writer::{BURST, connections};
use crate::workload::Workload;

/// However long the fence takes, expiry waits no longer than this for it.
pub(super) const FENCE_LIMIT_NS: u64 = 1_000_000_000;
/// Subscriptions and their fence must be through by then; a server takes some 100,000 subscriptions a second.
pub(super) const FENCE_TIMEOUT: Duration = Duration::from_secs(15);

impl<W: Workload> Worker<W> {
    pub(super) async fn listen_for_fences(&self) -> Result<(), WorkerRefusal> {
        let subject = format!("{}.fence.*", self.inbox);
        let mut subscriber =
            self.client.subscribe(subject).await.map_err(|error| WorkerRefusal::Box(error.to_string()))?;
        let (client, state, events) = (self.client.clone(), self.state.clone(), self.client_events.clone());
        tokio::task::spawn_local(async move {
            while let Some(message) = subscriber.next().await {
                let token = message.subject.rsplit('.').next().unwrap_or_default();
                let mut state = state.borrow_mut();
                match token.strip_prefix(BURST) {
                    // The server answers for the connection, not for a message: where it denies one, it vouches for none.
                    Some(_) if events.denial().is_some() => {}
                    Some(burst) => state.confirm(burst.parse().unwrap_or(0), connections(&client)),
                    None => state.fence = state.fence.max(token.parse().unwrap_or(0)),
                }
            }
        });
        Ok(())
    }

    /// Sends a message to ourselves. When it is back, the server has handled all that was sent before it, and all that
    /// it sent us before it has been read. Returns the fence's number.
    pub(super) fn raise_fence(&mut self) -> u64 {
        self.fences += 1;
        let (client, subject) = (self.client.clone(), format!("{}.fence.{}", self.inbox, self.fences));
        tokio::task::spawn_local(async move { client.publish(subject, bytes::Bytes::new()).await });
        self.fences
    }
}
