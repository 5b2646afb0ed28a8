//! The consumers of the pipeline, and how fast each is.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use plimsoll_common::contract::subjects;

use super::parse::duration;

/// A consumer of the pipeline, or of what is to be done to rooms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    Gatekeeper,
    MessageWorker,
    BroadcastWorker,
    NotificationWorker,
    RoomWorker,
}

impl Stage {
    pub const ALL: [Self; 5] =
        [Self::Gatekeeper, Self::MessageWorker, Self::BroadcastWorker, Self::NotificationWorker, Self::RoomWorker];

    /// Those that every message passes.
    pub const PIPELINE: [Self; 4] =
        [Self::Gatekeeper, Self::MessageWorker, Self::BroadcastWorker, Self::NotificationWorker];

    /// The name of the stage and of its durable.
    pub const fn durable(self) -> &'static str {
        match self {
            Self::Gatekeeper => subjects::GATEKEEPER,
            Self::MessageWorker => subjects::MESSAGE_WORKER,
            Self::BroadcastWorker => subjects::BROADCAST_WORKER,
            Self::NotificationWorker => subjects::NOTIFICATION_WORKER,
            Self::RoomWorker => subjects::ROOM_WORKER,
        }
    }

    /// The stream that the durable reads.
    pub fn stream(self, site: &str) -> String {
        match self {
            Self::Gatekeeper => subjects::messages_stream(site),
            Self::RoomWorker => subjects::rooms_stream(site),
            _ => subjects::canonical_stream(site),
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.durable())
    }
}

impl FromStr for Stage {
    type Err = anyhow::Error;

    fn from_str(given: &str) -> anyhow::Result<Self> {
        Self::ALL
            .into_iter()
            .find(|stage| stage.durable() == given)
            .with_context(|| format!("unknown stage {given:?}: there are {}", Self::ALL.map(Stage::durable).join(", ")))
    }
}

/// How fast a stage is. By default as fast as it can, without a delay.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct StageConfig {
    /// Messages per second; none for as fast as the box allows.
    pub capacity: Option<f64>,
    /// Added after the service, to each message alone: it takes no capacity.
    pub latency: Latency,
}

/// A delay that a stage adds to each message.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Latency {
    #[default]
    None,
    Fixed(Duration),
    Uniform(Duration, Duration),
    /// With this mean.
    Exponential(Duration),
}

impl FromStr for Latency {
    type Err = anyhow::Error;

    /// `5ms`, `uniform:1ms..9ms` or `exp:5ms`.
    fn from_str(given: &str) -> anyhow::Result<Self> {
        let parsed = if let Some(range) = given.strip_prefix("uniform:") {
            let (from, to) = range.split_once("..").context("a range is written 1ms..9ms")?;
            let (from, to) = (duration(from)?, duration(to)?);
            ensure!(from <= to, "the range {range} ends before it starts");
            Self::Uniform(from, to)
        } else if let Some(mean) = given.strip_prefix("exp:") {
            Self::Exponential(duration(mean)?)
        } else {
            Self::Fixed(duration(given)?)
        };
        Ok(parsed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn latencies_are_read() {
        assert_eq!("5ms".parse::<Latency>().unwrap(), Latency::Fixed(5 * MS));
        assert_eq!("uniform:1ms..9ms".parse::<Latency>().unwrap(), Latency::Uniform(MS, 9 * MS));
        assert_eq!("exp:5ms".parse::<Latency>().unwrap(), Latency::Exponential(5 * MS));
        for wrong in ["", "5", "uniform:5ms", "uniform:9ms..1ms", "exp:"] {
            assert!(wrong.parse::<Latency>().is_err(), "{wrong}");
        }
    }
}
