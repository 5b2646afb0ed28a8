//! What happens to a stage at a set time.

use std::time::Duration;

use anyhow::Context as _;

use super::Stage;
use super::parse::duration;

/// Something that happens to a stage at a set time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Incident {
    /// One stage, or all of them.
    pub stage: Option<Stage>,
    /// How long after the trigger.
    pub after: Duration,
    pub what: Mishap,
}

/// What can happen to a stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mishap {
    /// It serves nothing for so long.
    Stall(Duration),
    /// Its durable is deleted, and made anew so long after, if ever.
    Vanish { back_after: Option<Duration> },
}

/// From when incidents count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Trigger {
    /// From when the durables exist.
    Ready,
    /// From the stage's own first message.
    FirstMessage,
}

impl Incident {
    /// `STAGE:LENGTH@AFTER` such as `message-worker:1s@5s`; the stage may be `all`.
    ///
    /// # Errors
    /// Says which part is wrong.
    pub fn parse_stall(given: &str) -> anyhow::Result<Self> {
        let (what, after) = given.split_once('@').context("a stall is written STAGE:LENGTH@AFTER")?;
        let (stage, length) = what.split_once(':').context("a stall is written STAGE:LENGTH@AFTER")?;
        let stage = if stage == "all" { None } else { Some(stage.parse()?) };
        Ok(Self { stage, after: duration(after)?, what: Mishap::Stall(duration(length)?) })
    }

    /// `STAGE@AFTER` or `STAGE@AFTER+BACK` such as `message-worker@5s+2s`.
    ///
    /// # Errors
    /// Says which part is wrong.
    pub fn parse_vanish(given: &str) -> anyhow::Result<Self> {
        let (stage, when) = given.split_once('@').context("a vanishing is written STAGE@AFTER or STAGE@AFTER+BACK")?;
        let (after, back) = match when.split_once('+') {
            Some((after, back)) => (after, Some(duration(back)?)),
            None => (when, None),
        };
        let what = Mishap::Vanish { back_after: back };
        Ok(Self { stage: Some(stage.parse()?), after: duration(after)?, what })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn incidents_are_read() {
        let stall = Incident::parse_stall("message-worker:1s@5s").unwrap();
        assert_eq!(stall.stage, Some(Stage::MessageWorker));
        assert_eq!((stall.after, stall.what), (5_000 * MS, Mishap::Stall(1_000 * MS)));
        assert_eq!(Incident::parse_stall("all:1s@5s").unwrap().stage, None);
        let vanish = Incident::parse_vanish("broadcast-worker@5s+2s").unwrap();
        assert_eq!(vanish.what, Mishap::Vanish { back_after: Some(2_000 * MS) });
        for wrong in ["worker:1s@5s", "message-worker:1s", "message-worker@5s", "all:x@1s"] {
            assert!(Incident::parse_stall(wrong).is_err(), "{wrong}");
        }
    }
}
