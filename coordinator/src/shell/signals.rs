//! SIGINT and SIGTERM: the first ends the run in order, a second ends the process at once.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use crate::exit::ExitCode;

/// Whether somebody asked the run to end.
#[derive(Debug, Clone)]
pub struct Interrupt(watch::Receiver<bool>);

impl Interrupt {
    /// Listens for signals from now on.
    ///
    /// # Errors
    /// The system's.
    pub fn listen() -> std::io::Result<Self> {
        let signals = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        let (raise, raised) = watch::channel(false);
        // Owned by nobody on purpose: it lives as long as the process, to end it.
        tokio::spawn(wait(signals, raise));
        Ok(Self(raised))
    }

    /// An interrupt that whoever holds the other end raises.
    pub fn by(raised: watch::Receiver<bool>) -> Self {
        Self(raised)
    }

    /// Whether it was raised.
    pub fn is_raised(&self) -> bool {
        *self.0.borrow()
    }

    /// Returns once it is raised.
    pub async fn raised(&self) {
        let mut raised = self.0.clone();
        if raised.wait_for(|raised| *raised).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

async fn wait(mut signals: (Signal, Signal), raise: watch::Sender<bool>) {
    let mut any = async || tokio::select! { _ = signals.0.recv() => (), _ = signals.1.recv() => () };
    any().await;
    raise.send_replace(true);
    any().await;
    // The agents see their sessions break and are silent by themselves.
    std::process::exit(ExitCode::Interrupted as i32);
}
