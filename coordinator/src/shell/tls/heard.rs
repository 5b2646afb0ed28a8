//! What a connection said before it broke. gRPC's client dials again by itself and then knows only that it could not.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;

/// Shared by the connection, which notes, and whoever explains.
#[derive(Debug, Clone, Default)]
pub struct Heard(Arc<watch::Sender<Option<First>>>);

/// The first thing that was heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum First {
    /// HTTP/2, or something like it.
    Bytes,
    /// A record of TLS, in answer to what was none.
    TlsRecord,
    /// The connection broke, in these words.
    Broke(String),
}

/// The type of a TLS record that carries an alert, and the version that follows it.
const ALERT_RECORD: [u8; 2] = [0x15, 0x03];

impl Heard {
    /// What was heard first, if anything.
    pub fn first(&self) -> Option<First> {
        self.0.borrow().clone()
    }

    /// Waits until something was heard: what is sent earlier may break the connection before its last words are read.
    pub async fn something(&self) {
        // The sender lives as long as we do.
        let _ = self.0.subscribe().wait_for(Option::is_some).await;
    }

    fn note(&self, first: First) {
        self.0.send_if_modified(|noted| noted.is_none() && noted.replace(first).is_none());
    }
}

/// A connection that notes what it hears first.
pub struct Listening<S> {
    inner: S,
    heard: Heard,
    noted: bool,
}

impl<S> Listening<S> {
    /// Listens to this connection.
    pub fn to(inner: S, heard: Heard) -> Self {
        Self { inner, heard, noted: false }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Listening<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.inner).poll_read(cx, buffer);
        if !self.noted
            && let Poll::Ready(outcome) = &read
        {
            self.noted = true;
            self.heard.note(match outcome {
                Err(error) => First::Broke(error.to_string()),
                Ok(()) if buffer.filled()[before..].starts_with(&ALERT_RECORD) => First::TlsRecord,
                Ok(()) if buffer.filled().len() == before => First::Broke("it hung up".to_owned()),
                Ok(()) => First::Bytes,
            });
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Listening<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
