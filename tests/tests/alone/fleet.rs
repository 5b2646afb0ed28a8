//! How a fleet scales: what four small boxes carry of four times one's, and what many agents cost their coordinator.

use std::time::Duration;

use plimsoll_tests::harness::exclusive::Pair;
use plimsoll_tests::harness::fleet::{many, scale};
use plimsoll_tests::harness::prove;

#[test]
fn many_agents_cost_their_coordinator_little_and_four_carry_what_one_cannot() -> anyhow::Result<()> {
    let _pair = Pair::acquire()?;
    if prove::whole() {
        scale()?;
        many(200, Duration::from_secs(120))
    } else {
        many(20, Duration::from_secs(8))
    }
}
