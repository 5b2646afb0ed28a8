//! Ports for servers that cannot be told to take any that is free, or of which somebody has to know before they listen.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::Context as _;

/// Below those that a system gives to whoever asks for any: nobody who does gets one of these in between.
const FIRST: u16 = 10_000;
const COUNT: u16 = 20_000;

/// A port at which nobody listens. No other call of this process gets it, and other processes begin elsewhere.
///
/// # Errors
/// If there is none.
pub fn free_port() -> anyhow::Result<u16> {
    static GIVEN: AtomicU16 = AtomicU16::new(0);
    let begin = std::process::id().wrapping_mul(97);
    let candidate = || {
        let at = begin.wrapping_add(u32::from(GIVEN.fetch_add(1, Ordering::Relaxed))) % u32::from(COUNT);
        FIRST + at as u16
    };
    let is_free = |port: &u16| TcpListener::bind(("0.0.0.0", *port)).is_ok();
    std::iter::repeat_with(candidate).take(usize::from(COUNT)).find(is_free).context("no port is free")
}
