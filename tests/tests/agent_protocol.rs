//! An agent daemon and a coordinator that does not keep to the protocol: each mistake is refused in words, and the agent
//! is as usable afterwards as before.

use std::net::SocketAddr;
use std::time::Duration;

use plimsoll_agent::clock::boottime_ns;
use plimsoll_common::plan::{AgentPlan, Arrivals, More, StepOrder, TrialId};
use plimsoll_common::snapshot::{Counters, Snapshot, StepEnd, StepTotals};
use plimsoll_common::units::Rate;
use plimsoll_proto::PROTOCOL_VERSION;
use plimsoll_proto::v1::agent_client::AgentClient;
use plimsoll_proto::v1::agent_message::Message as FromAgent;
use plimsoll_proto::v1::coordinator_message::Message as ToAgent;
use plimsoll_proto::v1::{self, RefusedKind};
use plimsoll_tests::harness::driver::{Driver, Load};
use plimsoll_tests::harness::exclusive::Shared;
use plimsoll_tests::harness::messages::{self, claim};
use plimsoll_tests::harness::nats::{NatsOptions, NatsServer};
use plimsoll_tests::harness::processes::{Agent, AgentOptions};
use plimsoll_tests::standin::{Standin, StandinConfig};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const LEASE: Duration = Duration::from_secs(3);

fn plan(url: &str) -> AgentPlan {
    messages::plan(url, 77)
}

fn order() -> StepOrder {
    StepOrder {
        trial: TrialId { step: 0, trial: 0 },
        share: Rate::per_second(200).expect("a rate above nothing"),
        start_boottime_ns: boottime_ns() + 300_000_000,
        warmup: Duration::ZERO,
        hold: Duration::from_secs(1),
        arrivals: Arrivals::Poisson,
        max_in_flight: 1000,
        more: More::default(),
    }
}

/// Opens a stream with this first message and returns the words it is refused with.
async fn refused_first(agent: SocketAddr, first: Option<ToAgent>) -> anyhow::Result<String> {
    let mut client = AgentClient::connect(format!("http://{agent}")).await?;
    let first = v1::CoordinatorMessage { message: first };
    // The stream stays open behind its first message, as a coordinator's does.
    let outbound = futures::StreamExt::chain(tokio_stream::once(first), tokio_stream::pending());
    match client.session(outbound).await {
        Ok(_) => anyhow::bail!("not refused"),
        Err(status) => Ok(status.message().to_owned()),
    }
}

/// The agent can be claimed: the last lease's end may still be under way.
async fn claimed_anew(agent: SocketAddr) -> anyhow::Result<Driver> {
    let mut refusals = 0;
    loop {
        match Driver::claim(agent, LEASE).await {
            Err(error) if error.to_string().contains("one coordinator at a time") && refusals < 500 => {
                refusals += 1;
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            claimed => return claimed,
        }
    }
}

async fn refusal(driver: &mut Driver, message: ToAgent) -> anyhow::Result<(RefusedKind, String)> {
    driver.send(message);
    match driver.next().await? {
        FromAgent::Refused(refused) => Ok((refused.kind(), refused.message)),
        other => anyhow::bail!("expected a refusal, got {other:?}"),
    }
}

/// Why the stream ends, whatever comes before.
async fn end_of(driver: &mut Driver) -> String {
    loop {
        if let Err(error) = driver.next().await {
            return error.to_string();
        }
    }
}

#[tokio::test]
async fn the_first_message_must_be_a_claim_that_makes_sense() -> anyhow::Result<()> {
    let agent = Agent::start(&AgentOptions::default())?;
    let not_a_claim = "the first message must be a claim";
    let malformed = "a claim needs a run id of 1 to 64 letters, digits and dashes";
    let with = |change: &dyn Fn(&mut v1::Claim)| {
        let mut claim = claim();
        change(&mut claim);
        Some(ToAgent::Claim(claim))
    };
    for (first, words) in [
        (None, not_a_claim),
        (Some(ToAgent::Release(v1::Release {})), not_a_claim),
        (Some(ToAgent::Echo(v1::Echo::default())), not_a_claim),
        (Some(ToAgent::Prepare((&plan("nats://127.0.0.1:1")).into())), not_a_claim),
        (with(&|claim| claim.run_id.clear()), malformed),
        (with(&|claim| claim.run_id = "a b".into()), malformed),
        (with(&|claim| claim.run_id = "x".repeat(65)), malformed),
        (with(&|claim| claim.coordinator = "x".repeat(257)), malformed),
        (with(&|claim| claim.lease_timeout_ms = 499), malformed),
        (with(&|claim| claim.lease_timeout_ms = 60_001), malformed),
    ] {
        let refused = refused_first(agent.address, first.clone()).await?;
        assert!(refused.contains(words), "{first:?}: {refused}");
    }
    claimed_anew(agent.address).await?;
    Ok(())
}

#[tokio::test]
async fn another_version_is_refused_with_both_named() -> anyhow::Result<()> {
    let agent = Agent::start(&AgentOptions::default())?;
    let theirs = PROTOCOL_VERSION + 7;
    let claim = v1::Claim { protocol_version: theirs, build: "9.9.9\n".into(), ..claim() };
    let words = refused_first(agent.address, Some(ToAgent::Claim(claim))).await?;
    let ours =
        format!("speaks protocol {PROTOCOL_VERSION} and the coordinator (9.9.9) {theirs}: run one release on both");
    assert!(words.contains(&ours), "{words}");
    Ok(())
}

#[tokio::test]
async fn a_second_coordinator_is_refused_with_who_holds_the_lease_and_since_when() -> anyhow::Result<()> {
    let agent = Agent::start(&AgentOptions::default())?;
    let mut first = Driver::claim_as(agent.address, claim()).await?;
    let words = refused_first(agent.address, Some(ToAgent::Claim(claim()))).await?;
    assert!(words.contains("leased to anna@control-1 pid 4711 (127.0.0.1:"), "{words}");
    assert!(words.contains(" s: one coordinator at a time"), "{words}");
    // The first one's lease is none the worse for it.
    let (kind, _) = refusal(&mut first, ToAgent::Deal(v1::Deal::default())).await?;
    assert_eq!(kind, RefusedKind::Invalid);
    first.cut();
    claimed_anew(agent.address).await?;
    Ok(())
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_by_its_field_and_the_lease_goes_on() -> anyhow::Result<()> {
    let _shared = Shared::acquire()?;
    let server = NatsServer::start(NatsOptions::default())?;
    let standin = Standin::start(StandinConfig::new(server.url())).await?;
    let agent = Agent::start(&AgentOptions::default())?;
    let mut driver = Driver::claim(agent.address, LEASE).await?;

    // Before Prepare nothing can be dealt or started; a stop of nothing is no mistake.
    driver.send(ToAgent::StopStep(v1::StopStep::default()));
    let early = refusal(&mut driver, ToAgent::Deal(v1::Deal { deal: 0, share_milli_per_s: vec![1000] })).await?;
    assert_eq!(early, (RefusedKind::Invalid, "dealt while not ready".into()));
    let early = refusal(&mut driver, ToAgent::StartStep((&order()).into())).await?;
    assert_eq!(early, (RefusedKind::Invalid, "started while not dealt".into()));

    // A calibration needs no target, and leaves the agent as it was.
    let calibrate = |max_lateness_us| v1::Calibrate { request_bytes: 64, reply_bytes: 64, max_lateness_us };
    let (kind, message) = refusal(&mut driver, ToAgent::Calibrate(calibrate(0))).await?;
    assert_eq!((kind, message.starts_with("Calibrate.max_lateness_us")), (RefusedKind::Invalid, true), "{message}");
    driver.send(ToAgent::Calibrate(calibrate(100_000)));
    let again = refusal(&mut driver, ToAgent::Calibrate(calibrate(100_000))).await?;
    let words = "calibrated after Prepare, or twice at once";
    assert_eq!(again, (RefusedKind::Invalid, words.into()));
    match driver.next().await? {
        FromAgent::Calibrated(found) => {
            assert!(found.ceiling_milli_per_s > 0 && found.released > 0, "{found:?}");
        }
        other => anyhow::bail!("expected a calibration, got {other:?}"),
    }

    for (change, words) in malformed_prepares() {
        let mut prepare = v1::Prepare::from(&plan(&server.url()));
        change(&mut prepare);
        let (kind, message) = refusal(&mut driver, ToAgent::Prepare(prepare)).await?;
        assert_eq!(kind, RefusedKind::Invalid, "{message}");
        assert!(message.starts_with(words), "{message}, expected {words}");
    }

    driver.prepare(&plan(&server.url())).await?;
    let again = refusal(&mut driver, ToAgent::Prepare((&plan(&server.url())).into())).await?;
    assert_eq!(again, (RefusedKind::Invalid, "prepared twice".into()));
    let late = refusal(&mut driver, ToAgent::Calibrate(calibrate(100_000))).await?;
    assert_eq!(late, (RefusedKind::Invalid, words.into()));
    for shares in [vec![], vec![0]] {
        let refused = refusal(&mut driver, ToAgent::Deal(v1::Deal { deal: 1, share_milli_per_s: shares })).await?;
        assert_eq!(refused, (RefusedKind::Invalid, "a deal without a share for this agent".into()));
    }
    let refused = refusal(&mut driver, ToAgent::Deal(v1::Deal { deal: 1, share_milli_per_s: vec![1; 4097] })).await?;
    assert_eq!(refused, (RefusedKind::Invalid, "a deal to 4097 agents, and a fleet has at most 4096".into()));
    for (change, kind, words) in malformed_starts() {
        let mut start = v1::StartStep::from(&order());
        change(&mut start);
        let refused = refusal(&mut driver, ToAgent::StartStep(start)).await?;
        assert_eq!(refused.0, kind, "{}", refused.1);
        assert!(refused.1.starts_with(words), "{}, expected {words}", refused.1);
    }

    let load = Load {
        rate: Rate::per_second(200).unwrap(),
        warmup: Duration::ZERO,
        hold: Duration::from_secs(1),
        max_in_flight: 1000,
    };
    let driven = driver.hold(load).await?;
    assert_eq!((driven.totals.counters.due, driven.totals.end), (200, StepEnd::Finished));
    assert!(driven.totals.counters.add_up(), "{:?}", driven.totals);
    standin.shutdown().await?;
    Ok(())
}

#[tokio::test]
async fn a_prepare_that_a_worker_refused_is_the_sessions_last() -> anyhow::Result<()> {
    let _shared = Shared::acquire()?;
    let server = NatsServer::start(NatsOptions::default())?;
    let agent = Agent::start(&AgentOptions { workers: 2, ..AgentOptions::default() })?;
    let mut driver = claimed_anew(agent.address).await?;
    let (kind, words) = refusal(&mut driver, ToAgent::Prepare((&plan("nats://127.0.0.1:1")).into())).await?;
    assert_eq!(kind, RefusedKind::Unreachable, "{words}");
    driver.send(ToAgent::Prepare((&plan(&server.url())).into()));
    // The other worker's refusal of the first one may come in between.
    let again = loop {
        match driver.next().await? {
            FromAgent::Refused(refused) if refused.kind() == RefusedKind::Unreachable => {}
            FromAgent::Refused(refused) => break (refused.kind(), refused.message),
            other => anyhow::bail!("expected a refusal, got {other:?}"),
        }
    };
    assert_eq!(again, (RefusedKind::Invalid, "prepared twice".into()));
    // Another session prepares as ever.
    driver.cut();
    let mut driver = claimed_anew(agent.address).await?;
    driver.send(ToAgent::Prepare((&plan(&server.url())).into()));
    let answer = driver.next().await?;
    assert!(matches!(answer, FromAgent::Prepared(_)), "{answer:?}");
    Ok(())
}

type Change<M> = fn(&mut M);

fn malformed_prepares() -> Vec<(Change<v1::Prepare>, &'static str)> {
    fn set(prepare: &mut v1::Prepare, name: &str, value: &str) {
        let settings = prepare.workload_settings.iter_mut();
        settings.filter(|setting| setting.name == name).for_each(|setting| setting.value = value.into());
    }
    vec![
        (|p| p.agent_index = 4096, "Prepare.agent_index is 4096"),
        (|p| p.run_nonce = 1 << 39, "Prepare.run_nonce is"),
        (|p| p.target = None, "Prepare.target is not set"),
        (|p| p.workload = "weather".into(), "Prepare.workload"),
        (|p| p.workload_settings.clear(), "Prepare.workload"),
        (|p| set(p, "preset", "huge"), "Prepare.workload"),
        (|p| set(p, "site-id", "a.b"), "Prepare.workload"),
        (|p| set(p, "site-id", ""), "Prepare.workload"),
        (|p| set(p, "inject", "sideways"), "Prepare.workload"),
        (|p| p.series.clear(), "Prepare.series is"),
        (|p| p.series.swap(0, 1), "Prepare.series is"),
        (|p| p.series[0].limit_us = vec![5, 5], "SeriesLimits.limit_us is [5, 5]"),
        (|p| p.series[0].limit_us = vec![0], "SeriesLimits.limit_us is [0]"),
        (|p| p.series[0].limit_us = vec![60_000_001], "SeriesLimits.limit_us is"),
        (|p| p.series[0].limit_us = (1..=17).collect(), "SeriesLimits.limit_us is"),
        (|p| p.request_timeout_us = 800_000, "Prepare.request_timeout_us is 800000, expected above the largest limit"),
        (|p| p.request_timeout_us = 3_600_000_001, "Prepare.request_timeout_us is"),
        (|p| p.request_timeout_us = u64::MAX, "Prepare.request_timeout_us is"),
        (|p| p.max_lateness_us = u64::MAX, "Prepare.max_lateness_us is"),
    ]
}

fn malformed_starts() -> Vec<(Change<v1::StartStep>, RefusedKind, &'static str)> {
    let invalid: Vec<(Change<v1::StartStep>, &'static str)> = vec![
        (|s| s.share_milli_per_s = 0, "StartStep.share_milli_per_s is 0"),
        (|s| s.share_milli_per_s = u64::MAX, "StartStep.share_milli_per_s is"),
        (|s| s.hold_us = 499_999, "StartStep.hold_us is 499999, expected at least 500000"),
        (|s| s.hold_us = u64::MAX, "StartStep.hold_us is"),
        (|s| s.warmup_us = u64::MAX, "StartStep.warmup_us is"),
        (|s| s.arrivals = None, "StartStep.arrivals is not set"),
        (
            |s| s.arrivals = Some(v1::start_step::Arrivals::Uniform(v1::Uniform { phase_ppm: 1_000_000 })),
            "Uniform.phase_ppm is 1000000",
        ),
        (|s| s.max_in_flight = 0, "StartStep.max_in_flight is 0"),
        (|s| s.more_in_hold = 2, "StartStep.more_in_hold is 2, expected 0 or 1"),
        (|s| s.max_in_flight = u64::MAX, "StartStep.max_in_flight is"),
        (|s| s.start_boottime_ns = u64::MAX, "StartStep.start_boottime_ns is 18446744073709551615, expected at most"),
        (|s| s.start_boottime_ns = boottime_ns() + 8 * 24 * 3600 * 1_000_000_000, "StartStep.start_boottime_ns is"),
    ];
    let mut starts: Vec<_> = invalid.into_iter().map(|(change, words)| (change, RefusedKind::Invalid, words)).collect();
    let past: Change<v1::StartStep> = |s| s.start_boottime_ns = boottime_ns() - 1;
    starts.push((past, RefusedKind::TooLate, "the start instant is already past"));
    starts.push((|s| s.start_boottime_ns = 0, RefusedKind::TooLate, "the start instant is already past"));
    // A thousand million a second for two seconds: no box keeps the book of so many.
    starts.push((|s| s.share_milli_per_s = 1_000_000_000_000, RefusedKind::Ceiling, "a share of"));
    starts
}

#[tokio::test]
async fn a_coordinator_that_makes_no_sense_loses_its_lease_with_the_reason() -> anyhow::Result<()> {
    let agent = Agent::start(&AgentOptions::default())?;
    let never_sent = |ping_sent_boottime_ns| ToAgent::Echo(v1::Echo { ping_sent_boottime_ns, coordinator_ns: 1 });
    for (message, words) in [
        (Some(ToAgent::Claim(claim())), "claimed twice"),
        (None, "a message without content"),
        (Some(never_sent(u64::MAX)), "an echo of a ping that was not sent"),
        (Some(never_sent(boottime_ns())), "an echo of a ping that was not sent"),
        (Some(never_sent(0)), "an echo of a ping that was not sent"),
    ] {
        let mut driver = claimed_anew(agent.address).await?;
        driver.send_raw(v1::CoordinatorMessage { message: message.clone() });
        let end = end_of(&mut driver).await;
        assert!(end.contains(words), "{message:?}: {end}");
    }
    claimed_anew(agent.address).await?;
    Ok(())
}

#[tokio::test]
async fn bytes_that_are_no_grpc_and_messages_that_are_too_long_end_their_own_connection_only() -> anyhow::Result<()> {
    let agent = Agent::start(&AgentOptions::default())?;
    let http2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice();
    for bytes in [&[0_u8; 4096][..], b"GET / HTTP/1.1\r\n\r\n", &[0xff; 70_000], &[http2, &[0xff; 100]].concat()] {
        let mut socket = TcpStream::connect(agent.address).await?;
        // The agent may hang up while we still write, which is as good as afterwards.
        let _ = socket.write_all(bytes).await;
        let _ = socket.shutdown().await;
        let mut answer = Vec::new();
        let _ = tokio::time::timeout(Duration::from_secs(10), socket.read_to_end(&mut answer)).await?;
    }
    let mut driver = claimed_anew(agent.address).await?;
    let mut prepare = v1::Prepare::from(&plan("nats://127.0.0.1:1"));
    prepare.target = Some(v1::Target { url: "x".repeat(9 << 20), ..v1::Target::default() });
    driver.send(ToAgent::Prepare(prepare));
    let end = end_of(&mut driver).await;
    assert!(end.contains("a message of the coordinator cannot be read: ") && end.contains("too large"), "{end}");
    claimed_anew(agent.address).await?;
    Ok(())
}

#[tokio::test]
async fn without_echoes_the_lease_ends_a_timeout_after_the_sending_of_the_last_ping_that_was_echoed()
-> anyhow::Result<()> {
    let _shared = Shared::acquire()?;
    let server = NatsServer::start(NatsOptions::default())?;
    let standin = Standin::start(StandinConfig::new(server.url())).await?;
    let agent = Agent::start(&AgentOptions::default())?;
    let mut driver = claimed_anew(agent.address).await?;
    driver.prepare(&plan(&server.url())).await?;
    let load = Load {
        rate: Rate::per_second(500).unwrap(),
        warmup: Duration::ZERO,
        hold: Duration::from_secs(30),
        max_in_flight: 2000,
    };
    driver.start(load).await?;
    // The first snapshot shows load; from then on nothing is echoed.
    let FromAgent::Snapshot(_) = driver.next().await? else { anyhow::bail!("no snapshot") };
    driver.echoes = false;
    let last_echoed = driver.last_echoed;
    let mut last = 0;
    let why = loop {
        match driver.next().await {
            Ok(FromAgent::Snapshot(snapshot)) => last = snapshot.number,
            Ok(_) => {}
            Err(why) => break why.to_string(),
        }
    };
    assert!(why.contains("the lease timed out"), "{why}");
    let silent_for = Duration::from_nanos(boottime_ns() - last_echoed);
    assert!(silent_for >= LEASE, "the lease ended {silent_for:?} after the last ping that was echoed");
    // A ping of ours finds an ended lease at the latest: a tenth of the timeout; the rest is room for a loaded box.
    assert!(silent_for < LEASE + Duration::from_secs(2), "{silent_for:?}");
    assert!(last < 12, "snapshots went on to number {last}");
    claimed_anew(agent.address).await?;
    standin.shutdown().await?;
    Ok(())
}

#[tokio::test]
async fn a_step_stopped_half_way_adds_up_to_its_snapshots_and_the_next_one_runs() -> anyhow::Result<()> {
    let _shared = Shared::acquire()?;
    let server = NatsServer::start(NatsOptions::default())?;
    let standin = Standin::start(StandinConfig::new(server.url())).await?;
    let agent = Agent::start(&AgentOptions { workers: 2, ..AgentOptions::default() })?;
    let mut driver = claimed_anew(agent.address).await?;
    driver.prepare(&plan(&server.url())).await?;
    let load = |hold| Load { rate: Rate::per_second(400).unwrap(), warmup: Duration::ZERO, hold, max_in_flight: 2000 };
    driver.start(load(Duration::from_secs(30))).await?;
    let mut snapshots: Vec<Snapshot> = Vec::new();
    let totals: StepTotals = loop {
        match driver.next().await? {
            FromAgent::Snapshot(snapshot) => {
                snapshots.push(snapshot.try_into()?);
                if snapshots.len() == 2 {
                    driver.send(ToAgent::StopStep(v1::StopStep { step: 0, trial: 0 }));
                }
            }
            FromAgent::StepTotals(totals) => break totals.try_into()?,
            other => anyhow::bail!("unexpected {other:?}"),
        }
    };
    assert_eq!(totals.end, StepEnd::Stopped);
    assert_eq!(totals.snapshots as usize, snapshots.len());
    let mut sum = Counters::default();
    snapshots.iter().flat_map(|snapshot| &snapshot.blocks).for_each(|block| sum.add(&block.counters));
    assert_eq!(sum, totals.counters);
    assert!((100..2_000).contains(&sum.due), "{sum:?}");
    for (index, &samples) in totals.samples.iter().enumerate() {
        let recorded: u64 = snapshots.iter().map(|snapshot| snapshot.series[index].latency.len()).sum();
        assert_eq!(recorded, samples);
    }
    let next = driver.hold(load(Duration::from_secs(1))).await?;
    assert_eq!((next.totals.end, next.totals.counters.due), (StepEnd::Finished, 400));
    standin.shutdown().await?;
    Ok(())
}
