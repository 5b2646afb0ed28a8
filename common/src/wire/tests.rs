use plimsoll_proto::v1;
use proptest::prelude::*;

use super::*;
use crate::histogram::{HIGHEST_US, LatencyHistogram};
use crate::plan::*;
use crate::snapshot::*;

fn snapshot() -> Snapshot {
    let mut latency = LatencyHistogram::new();
    [5, 900, 70_000_000].iter().for_each(|&us| latency.record(us));
    let counters = Counters {
        due: 9,
        attempted: 7,
        sent: 6,
        saturated: 1,
        underrun: 1,
        completed: 2,
        failed: Failed { timeout: 1, refused: 1, bad_reply: 1, publish: 1, no_responders: 0 },
        lost: 1,
        failed_anyway: 3,
    };
    let (above, above_anyway) = (vec![3, 1], vec![2, 0]);
    let counts = SeriesCounts { n: 5, refused: 4, given_up: 3, failed_anyway: 6, above, above_anyway };
    Snapshot {
        trial: TrialId { step: 2, trial: 1 },
        number: 7,
        blocks: vec![BlockDelta { block: 3, counters, series: vec![counts.clone(), counts] }],
        series: vec![SeriesHistograms { latency: latency.clone(), service_time: LatencyHistogram::new() }],
        overdue: vec![vec![1, 2], vec![]],
        strays: Strays { foreign: 1, duplicate: 2, late: 3 },
        warmup: counters,
        health: Health {
            stall: Stall::Unbounded,
            lateness: latency,
            client_errors: vec!["slow consumer".into()],
            users: Some(UsersOnline { online: 12, connections: 5 }),
            ..Health::default()
        },
        open_time_us: 11,
        observed: vec![Observed { name: "rows".into(), count: 2, sum: 30, max: 20 }],
    }
}

#[test]
fn a_snapshot_survives_the_wire() {
    let sent = snapshot();
    let received = Snapshot::try_from(v1::Snapshot::from(&sent)).unwrap();
    let (sent_max, received_max) = (sent.series[0].latency.max_us(), received.series[0].latency.max_us());
    assert!(sent_max >= received_max && received_max >= Some(HIGHEST_US * 999 / 1000));
    assert_eq!(received.series[0].latency.len(), 3);
    assert_eq!(received.series[0].latency.clipped(), 1);
    assert_eq!((received.blocks, received.strays, received.overdue), (sent.blocks, sent.strays, sent.overdue));
    assert_eq!((received.health.stall, received.warmup), (sent.health.stall, sent.warmup));
    assert_eq!(received.observed, sent.observed);
}

#[test]
fn no_agent_writes_lines_of_its_own_into_a_report() {
    let mut sent = v1::Snapshot::from(&snapshot());
    let forged = "x\n\nANSWER: max RPS = 90000\u{1b}[2J";
    sent.health.as_mut().unwrap().client_errors = vec![forged.to_owned(), "y".repeat(2 * MAX_TEXT)];
    sent.observed[0].name = forged[..20].to_owned();
    let received = Snapshot::try_from(sent).unwrap();
    let errors = received.health.client_errors;
    assert_eq!(errors, ["xANSWER: max RPS = 90000[2J".to_owned(), "y".repeat(MAX_TEXT)]);
    assert_eq!(received.observed[0].name, "xANSWER: max RPS =");
}

#[test]
fn what_must_be_set_is_refused_when_unset() {
    let cases: [(&str, Result<(), WireError>); 4] = [
        ("Snapshot.warmup is not set", Snapshot::try_from(v1::Snapshot::default()).map(drop)),
        ("Prepare.target is not set", AgentPlan::try_from(v1::Prepare::default()).map(drop)),
        ("StartStep.share_milli_per_s is 0", StepOrder::try_from(v1::StartStep::default()).map(drop)),
        ("StepTotals.end is not set", StepTotals::try_from(v1::StepTotals::default()).map(drop)),
    ];
    for (words, result) in cases {
        assert!(matches!(&result, Err(error) if error.to_string().contains(words)), "{words}: {result:?}");
    }
}

#[test]
fn a_target_survives_the_wire_and_is_refused_where_it_contradicts_itself() {
    let identity = || Some(TlsIdentity { certificates: "cert".into(), key: "key".into() });
    let target = |login, tls_ca: Option<&str>, tls_identity| Target {
        url: "nats://a:b@chat:4222".into(),
        credentials: Some(Credentials { login, tls_ca: tls_ca.map(str::to_owned), tls_identity }),
    };
    for sent in [
        Target { url: "nats://chat:4222".into(), credentials: None },
        target(Some(Login::CredentialsFile("creds".into())), None, None),
        target(Some(Login::NkeySeed("seed".into())), Some("ca"), identity()),
        target(Some(Login::Token("token".into())), Some("ca"), None),
        target(None, None, identity()),
    ] {
        assert_eq!(Target::try_from(v1::Target::from(&sent)), Ok(sent));
    }
    let text = |text: &str| Some(text.to_owned());
    for (message, words) in [
        (v1::Target { nkey: text("SECRET"), token: text("SECRET"), ..v1::Target::default() }, "expected one of"),
        (v1::Target { tls_key: text("SECRET"), ..v1::Target::default() }, "Target.tls_cert is not set"),
        (v1::Target { tls_cert: text("SECRET"), ..v1::Target::default() }, "Target.tls_key is not set"),
        (v1::Target { token: Some("SECRET".repeat(MAX_SECRET)), ..v1::Target::default() }, "at most 1 MiB"),
    ] {
        let error = Target::try_from(message).unwrap_err().to_string();
        assert!(error.contains(words) && !error.contains("SECRET"), "{words}: {error}");
    }
}

proptest! {
    #[test]
    fn any_bytes_from_a_peer_are_refused_or_read(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        use plimsoll_proto::v1::{AgentMessage, CoordinatorMessage, agent_message, coordinator_message};
        if let Ok(message) = <AgentMessage as prost::Message>::decode(bytes.as_slice()) {
            match message.message {
                Some(agent_message::Message::Snapshot(m)) => drop(Snapshot::try_from(m)),
                Some(agent_message::Message::StepTotals(m)) => drop(StepTotals::try_from(m)),
                Some(agent_message::Message::Calibrated(m)) => drop(crate::calibration::Calibration::try_from(m)),
                _ => {}
            }
        }
        if let Ok(message) = <CoordinatorMessage as prost::Message>::decode(bytes.as_slice()) {
            match message.message {
                Some(coordinator_message::Message::Prepare(m)) => drop(AgentPlan::try_from(m)),
                Some(coordinator_message::Message::StartStep(m)) => drop(StepOrder::try_from(m)),
                _ => {}
            }
        }
    }
}

#[test]
fn a_peers_text_does_nothing_to_who_shows_it() {
    assert_eq!(printable("box\u{1b}[2J-1\r\n\u{9b}31m\u{7f}", MAX_NAME), "box[2J-131m");
    assert_eq!(printable(&"\u{e4}\n".repeat(2 * MAX_NAME), MAX_NAME), "\u{e4}".repeat(MAX_NAME));
}
