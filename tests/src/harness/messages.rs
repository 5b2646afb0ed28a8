//! What a coordinator that knows its trade sends first: for tests that drive an agent themselves.

use std::time::Duration;

use plimsoll_common::contract::presets::MessagesPreset;
use plimsoll_common::plan::{AgentPlan, SeriesLimits, Target};
use plimsoll_common::workload::{Inject, MessagesWorkload, Workload};
use plimsoll_proto::PROTOCOL_VERSION;
use plimsoll_proto::v1;

/// A claim that is granted; its lease is 3 s.
pub fn claim() -> v1::Claim {
    v1::Claim {
        protocol_version: PROTOCOL_VERSION,
        build: "test".into(),
        coordinator: "anna@control-1 pid 4711".into(),
        run_id: "run-1".into(),
        lease_timeout_ms: 3000,
    }
}

/// The messages workload with the preset small, limits of 400 and 800 ms, and a timeout of 2 s. Runs against one target have
/// nonces of their own.
pub fn plan(url: &str, run_nonce: u64) -> AgentPlan {
    let limits = |series: &str| SeriesLimits { series: series.into(), limits_us: vec![400_000, 800_000] };
    AgentPlan {
        agent_index: 0,
        run_nonce,
        seed: 42,
        target: Target { url: url.into(), credentials: None },
        workload: Workload::Messages(MessagesWorkload {
            preset: MessagesPreset::Small,
            site_id: "site-local".into(),
            inject: Inject::Frontdoor,
        }),
        request_timeout: Duration::from_secs(2),
        series: vec![limits("E1"), limits("E2")],
        max_lateness: Duration::from_millis(100),
    }
}
