//! How a fleet scales, on one machine: boxes that a CPU quota makes small, and many agents under one coordinator.
//!
//! `cargo bench -p plimsoll-tests --bench fleet -- scale|many|all [agents [seconds]]`

use std::time::Duration;

use plimsoll_tests::harness::fleet::{many, scale};

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let what = arguments.next().unwrap_or_else(|| "all".into());
    let agents = arguments.next().map_or(Ok(200), |agents| agents.parse())?;
    let seconds = arguments.next().map_or(Ok(60), |seconds| seconds.parse())?;
    if what == "all" || what == "scale" {
        scale()?;
    }
    if what == "all" || what == "many" {
        many(agents, Duration::from_secs(seconds))?;
    }
    Ok(())
}
