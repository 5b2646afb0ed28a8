//! What the program's flags say of endpoints and faults.

use std::num::NonZeroU64;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use plimsoll_common::units::parse_duration;

use super::{Endpoint, Latency, Refusal};

/// `N:REASON` such as `10:not_subscribed`.
///
/// # Errors
/// Says which part is wrong.
pub fn parse_reject(given: &str) -> anyhow::Result<(NonZeroU64, Refusal)> {
    let Some((every, reason)) = given.split_once(':') else { bail!("a rejection is written N:REASON") };
    Ok((every.parse().with_context(|| format!("{every:?} is no positive number"))?, reason.parse()?))
}

/// An endpoint by its short name, and the rest after its colon.
fn endpoint(given: &str) -> anyhow::Result<(Endpoint, &str)> {
    const NAMES: [&str; Endpoint::ALL.len()] =
        ["history", "thread", "mark-read", "read-receipt", "member-add", "room-list", "room-create", "mute"];
    let (name, rest) = given.split_once(':').context("begin with an endpoint and a colon")?;
    let at = NAMES.iter().position(|known| *known == name);
    let at = at.with_context(|| format!("unknown endpoint {name:?}: there are {}", NAMES.join(", ")))?;
    Ok((Endpoint::ALL[at], rest))
}

/// `history:800`.
///
/// # Errors
/// Says which part is wrong.
pub fn parse_endpoint_capacity(given: &str) -> anyhow::Result<(Endpoint, f64)> {
    let (endpoint, rate) = endpoint(given)?;
    Ok((endpoint, rate.parse().with_context(|| format!("{rate:?} is no number"))?))
}

/// `thread:exp:5ms`.
///
/// # Errors
/// Says which part is wrong.
pub fn parse_endpoint_latency(given: &str) -> anyhow::Result<(Endpoint, Latency)> {
    let (endpoint, latency) = endpoint(given)?;
    Ok((endpoint, latency.parse()?))
}

/// `history:10:internal`.
///
/// # Errors
/// Says which part is wrong.
pub fn parse_endpoint_reject(given: &str) -> anyhow::Result<(Endpoint, (NonZeroU64, Refusal))> {
    let (endpoint, reject) = endpoint(given)?;
    Ok((endpoint, parse_reject(reject)?))
}

/// `0.1` or `10%`.
///
/// # Errors
/// If it is not within 0 to 1.
pub fn parse_fraction(given: &str) -> anyhow::Result<f64> {
    let number =
        |text: &str| text.parse::<f64>().with_context(|| format!("{given:?} is no fraction such as 0.1 or 10%"));
    let fraction = match given.strip_suffix('%') {
        Some(percent) => number(percent)? / 100.0,
        None => number(given)?,
    };
    ensure!((0.0..=1.0).contains(&fraction), "{given} is not within 0 to 1");
    Ok(fraction)
}

pub(super) fn duration(given: &str) -> anyhow::Result<Duration> {
    parse_duration(given).with_context(|| format!("{given:?} is no duration such as 5ms or 1s"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_read() {
        assert_eq!(parse_endpoint_capacity("history:800").unwrap(), (Endpoint::LoadHistory, 800.0));
        assert_eq!(
            parse_endpoint_latency("thread:5ms").unwrap(),
            (Endpoint::GetThread, Latency::Fixed(Duration::from_millis(5)))
        );
        let (endpoint, (every, refusal)) = parse_endpoint_reject("mark-read:10:internal").unwrap();
        assert_eq!((endpoint, every.get(), refusal), (Endpoint::MarkRead, 10, Refusal::Internal));
        let error = parse_endpoint_capacity("read:1").unwrap_err().to_string();
        assert!(error.contains("read-receipt"), "{error}");
    }

    #[test]
    fn fractions_are_read() {
        assert_eq!((parse_fraction("10%").unwrap(), parse_fraction("0.1").unwrap()), (0.1, 0.1));
        assert!(["", "x", "101%", "-1", "nan"].iter().all(|wrong| parse_fraction(wrong).is_err()));
    }

    #[test]
    fn rejections_are_read_and_an_unknown_reason_lists_all() {
        assert_eq!(parse_reject("10:not_subscribed").unwrap(), (NonZeroU64::new(10).unwrap(), Refusal::NotSubscribed));
        assert!(parse_reject("0:internal").is_err());
        let error = parse_reject("3:bad").unwrap_err().to_string();
        assert!(error.contains("large_room_post_restricted"), "{error}");
    }
}
