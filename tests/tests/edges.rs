//! Everything that reads bytes from outside, given bytes that are almost right: it reads or refuses them, never panics, and
//! takes memory in proportion to what it was given. A program of its own, since it counts every allocation.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::Write as _;
use std::sync::LazyLock;

use plimsoll::settings;
use plimsoll::shell::jsz;
use plimsoll::shell::session::{AgentAddress, hello};
use plimsoll_agent::core::certificate::{Certificate, Side};
use plimsoll_agent::core::limits::TargetPattern;
use plimsoll_agent::shell::nats_target::servers;
use plimsoll_agent::workload::replies::Replies;
use plimsoll_common::calibration::{Calibration, CalibrationOrder};
use plimsoll_common::contract::ids::{IdCodec, Sender};
use plimsoll_common::contract::{read, time};
use plimsoll_common::histogram::LatencyHistogram;
use plimsoll_common::plan::{AgentPlan, Arrivals, Credentials, Login, More, StepOrder, Target, TrialId, redact_url};
use plimsoll_common::snapshot::{
    BlockDelta, Counters, Health, Observed, SeriesCounts, SeriesHistograms, Snapshot, Stall, StepEnd, StepTotals,
    Strays,
};
use plimsoll_common::units::{Rate, Steps};
use plimsoll_common::workload::custom::CustomWorkload;
use plimsoll_proto::PROTOCOL_VERSION;
use plimsoll_proto::v1::{self, AgentMessage, CoordinatorMessage, agent_message, coordinator_message};
use plimsoll_tests::harness::messages;
use proptest::prelude::*;
use proptest::sample::Index;
use prost::Message as _;
use std::time::Duration;

/// Counts what the calling thread holds.
struct Counting;

thread_local! {
    static LIVE: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

fn count(bytes: isize) {
    // A thread that is ending has nobody to count for.
    let _ = LIVE.try_with(|live| {
        live.set(live.get() + bytes);
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(live.get())));
    });
}

// SAFETY: the system's allocator does the work; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: as the caller's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: as the caller's.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Most bytes held at once by what this does, beyond what was held before.
fn peak_of(work: impl FnOnce()) -> usize {
    let before = LIVE.get();
    PEAK.set(before);
    work();
    usize::try_from(PEAK.get() - before).unwrap_or(0)
}

/// What a byte of input may cost at most: a message of two bytes becomes a structure of some hundred, in a list that grows
/// by doubling.
const PER_BYTE: usize = 512;
/// What reading costs before it reads: one table of every bucket of a histogram, or the text of an error.
const FIXED: usize = 2 << 20;

#[track_caller]
fn bounded(input: usize, work: impl FnOnce()) {
    let peak = peak_of(work);
    assert!(peak <= FIXED + PER_BYTE * input, "{peak} bytes held for {input} bytes of input");
}

/// A change to bytes that were right.
#[derive(Debug, Clone)]
enum Change {
    Flip(Index, u8),
    Cut(Index),
    Insert(Index, Vec<u8>),
    Repeat(Index, Index, u8),
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let change = prop_oneof![
        4 => (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Change::Flip(at, byte)),
        1 => any::<Index>().prop_map(Change::Cut),
        2 => (any::<Index>(), prop::collection::vec(any::<u8>(), 1..12)).prop_map(|(at, bytes)| Change::Insert(at, bytes)),
        1 => (any::<Index>(), any::<Index>(), 1..40_u8).prop_map(|(from, to, times)| Change::Repeat(from, to, times)),
    ];
    prop::collection::vec(change, 0..6)
}

fn changed(bytes: &[u8], changes: &[Change]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for change in changes {
        if bytes.is_empty() {
            break;
        }
        let length = bytes.len();
        match change {
            Change::Flip(at, byte) => bytes[at.index(length)] = *byte,
            Change::Cut(at) => bytes.truncate(at.index(length)),
            Change::Insert(at, more) => {
                let at = at.index(length);
                bytes.splice(at..at, more.iter().copied());
            }
            Change::Repeat(from, to, times) => {
                let (from, to) = (from.index(length), to.index(length));
                let part = bytes[from.min(to)..from.max(to)].repeat(usize::from(*times));
                if length + part.len() < 1 << 16 {
                    bytes.extend(part);
                }
            }
        }
    }
    bytes
}

fn text(bytes: &[u8], changes: &[Change]) -> String {
    String::from_utf8_lossy(&changed(bytes, changes)).into_owned()
}

fn histogram() -> LatencyHistogram {
    let mut histogram = LatencyHistogram::new();
    [3, 90, 1_500, 1_501, 70_000, 2_000_000, 70_000_000].iter().for_each(|&us| histogram.record(us));
    histogram
}

fn counters() -> Counters {
    Counters { due: 9, attempted: 9, sent: 9, completed: 8, lost: 1, ..Counters::default() }
}

static FROM_AGENT: LazyLock<[Vec<u8>; 4]> = LazyLock::new(|| {
    let trial = TrialId { step: 2, trial: 1 };
    let counts = SeriesCounts { n: 5, above: vec![3, 1], above_anyway: vec![2, 0], ..SeriesCounts::default() };
    let observed = vec![Observed { name: "rows".into(), count: 2, sum: 30, max: 20 }];
    let series = SeriesHistograms { latency: histogram(), service_time: histogram() };
    let snapshot = Snapshot {
        trial,
        number: 7,
        blocks: vec![BlockDelta { block: 3, counters: counters(), series: vec![counts.clone(), counts.clone()] }],
        series: vec![series.clone(), series],
        overdue: vec![vec![1, 2], vec![0, 0]],
        strays: Strays { foreign: 1, duplicate: 2, late: 3 },
        warmup: counters(),
        health: Health {
            stall: Stall::Bounded(7),
            lateness: histogram(),
            client_errors: vec!["slow".into()],
            ..Health::default()
        },
        open_time_us: 11,
        observed: observed.clone(),
    };
    let totals = StepTotals {
        trial,
        snapshots: 8,
        counters: counters(),
        series: vec![counts.clone(), counts],
        samples: vec![7, 7],
        strays: Strays { foreign: 1, duplicate: 2, late: 3 },
        warmup: counters(),
        started_boottime_ns: 5,
        end: StepEnd::Finished,
        observed,
    };
    let found = Calibration {
        ceiling: Rate::per_second(300_000).expect("a rate"),
        paced: Rate::per_second(150_000).expect("a rate"),
        due: 150_000,
        released: 149_990,
        lateness: histogram(),
    };
    let hello = v1::Hello {
        protocol_version: PROTOCOL_VERSION,
        build: "0.1.0".into(),
        instance: "5f2c".into(),
        hostname: "box-1".into(),
        cores: 4,
        workers: 3,
        max_rate_milli_per_s: Some(300_000),
        workloads: vec!["messages".into(), "history".into()],
        max_run_us: Some(1 << 40),
        max_connections: Some(5_000),
    };
    [
        agent_message::Message::Snapshot((&snapshot).into()),
        agent_message::Message::StepTotals((&totals).into()),
        agent_message::Message::Calibrated((&found).into()),
        agent_message::Message::Hello(hello),
    ]
    .map(|message| AgentMessage { message: Some(message) }.encode_to_vec())
});

static FROM_COORDINATOR: LazyLock<[Vec<u8>; 3]> = LazyLock::new(|| {
    let login = Some(Login::NkeySeed("SUA".into()));
    let credentials = Some(Credentials { login, tls_ca: Some("PEM".into()), tls_identity: None });
    let target = Target { url: "nats://ann:secret@chat:4222,nats://[::1]:4223".into(), credentials };
    let plan = AgentPlan { agent_index: 3, target, ..messages::plan("", 77) };
    let order = StepOrder {
        trial: TrialId { step: 0, trial: 0 },
        share: Rate::per_second(200).expect("a rate"),
        start_boottime_ns: 1 << 60,
        warmup: Duration::from_secs(1),
        hold: Duration::from_secs(1),
        arrivals: Arrivals::Uniform { phase_ppm: 5 },
        max_in_flight: 1000,
        more: More::default(),
    };
    let calibrate = CalibrationOrder { request_bytes: 64, reply_bytes: 64, max_lateness: Duration::from_millis(100) };
    [
        coordinator_message::Message::Prepare((&plan).into()),
        coordinator_message::Message::StartStep((&order).into()),
        coordinator_message::Message::Calibrate((&calibrate).into()),
    ]
    .map(|message| CoordinatorMessage { message: Some(message) }.encode_to_vec())
});

const ACK: &[u8] =
    br#"{"id":"018f3a5e7b2c","roomId":"room-1","content":"hello","createdAt":"2026-01-02T03:04:05.678Z"}"#;
const REFUSAL: &[u8] = br#"{"error":"no such room","code":"not_found","reason":"gone \u00e9"}"#;
const PAGE: &[u8] =
    br#"{"messages":[{"id":"a","createdAt":"2026-01-02T03:04:05Z"},{"id":"b","createdAt":"2026-01-02T03:04:04Z"}],"readers":[{},{}],"status":"ok"}"#;
const BROADCAST: &[u8] =
    br#"{"type":"new_message","roomId":"room-1","lastMsgId":"018f3a5e7b2c4d6e8f90","message":{"id":"x","content":"hi \"you\""}}"#;
/// The same in another order and spelling, which is read by a whole parse.
const BROADCAST_SPELLED: &[u8] =
    br#" {"message":{"lastMsgId":"no"},"lastMsgId":"018f3a5e7b2c4d6e8f90","type":"new_\u006dessage"}"#;
const LIST: &[u8] = br#"{"subscriptions":[{"roomId":"room-1","name":"a","unread":3},{"roomId":"room-2"}],"total":2}"#;
const JOB: &[u8] = br#"{"operation":"room.create","status":"ok","roomId":"room-1","users":["ann","bob"]}"#;
const SCENARIO: &[u8] = br#"
name = "shop"
rooms = 20
users = 50
durables = ["ORDERS/billing"]

[[operation]]
name = "get"
kind = "request"
weight = 3
timeout = "2s"
subject = "svc.get.{{user}}.{{int:0..99}}"
payload = '{"id":"{{uuid}}","at":{{timestamp:ms}},"text":"{{text:50..500}}"}'
headers = { "X-Request" = "{{id}}" }
success = { pointer = "/id" }

[[operation]]
name = "reading"
kind = "publish"
subject = "readings.{{worker}}.{{room}}"
payload = "{{bytes:64}}"
headers = { "X-Reading" = "{{id}}" }
delivery = { subject = "feed.{{worker}}.*", header = "X-Reading" }
"#;
const JSZ: &[u8] = br#"{"streams":1,"account_details":[{"name":"A","stream_detail":[{"name":"S","config":{"name":"S"},"state":{"messages":1,"bytes":2,"last_seq":3},"consumer_detail":[{"name":"d","stream_name":"S","num_pending":4,"num_ack_pending":5,"config":{}}]}]}]}"#;
const PLAN: &[u8] = b"# nightly\npreset = \"small\"\nsteps = [500, \"1k\", 2_000.5]\nslo-error-rate = 0.01\nnats-url = \"nats://a:b@h:4222\"\nno-stop-on-trip = true\nhold = '30s'\nagents = \"a:1,[::1]:2\"\nslo = [\"E1:p99=250ms\"]\nseed = 0x2a\n";
const STEPS: &[u8] = b"500,1k,2.5k,5000,1e4";
const PATTERN: &[u8] = b"nats://*.example.com:4222";
const URL: &[u8] = b"nats://ann:secret@chat:4222,tls://[::1]:4223";

static CERTIFICATE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let names: Vec<String> = ["box-1", "*.example.com", "10.0.0.7", "::1"].map(str::to_owned).into();
    let params = rcgen::CertificateParams::new(names).expect("names");
    let key = rcgen::KeyPair::generate().expect("a key");
    params.self_signed(&key).expect("a certificate").der().to_vec()
});

fn read_from_agent(bytes: &[u8]) {
    let Ok(AgentMessage { message: Some(message) }) = AgentMessage::decode(bytes) else { return };
    match message {
        agent_message::Message::Snapshot(message) => drop(Snapshot::try_from(message)),
        agent_message::Message::StepTotals(message) => drop(StepTotals::try_from(message)),
        agent_message::Message::Calibrated(message) => drop(Calibration::try_from(message)),
        message => {
            if let Ok(own) = hello(&AgentAddress::at("box-1:7700"), Some(message)) {
                let texts = own.workloads.iter().chain([&own.hostname]);
                assert!(texts.flat_map(|text| text.chars()).all(|c| !c.is_control()), "{own:?}");
            }
        }
    }
}

/// An error of what a coordinator says never repeats its secrets.
fn read_from_coordinator(bytes: &[u8]) {
    let Ok(CoordinatorMessage { message: Some(message) }) = CoordinatorMessage::decode(bytes) else { return };
    match message {
        coordinator_message::Message::Prepare(message) => {
            if let Ok(plan) = AgentPlan::try_from(message) {
                // What was read is what would be written.
                let again = AgentPlan::try_from(v1::Prepare::from(&plan)).expect("a plan that was read");
                assert_eq!(again, plan);
                let _ = servers(&plan.target.url);
            }
        }
        coordinator_message::Message::StartStep(message) => drop(StepOrder::try_from(message)),
        coordinator_message::Message::Calibrate(message) => drop(CalibrationOrder::try_from(message)),
        _ => {}
    }
}

fn read_histogram(bytes: &[u8]) {
    let mut sum = LatencyHistogram::new();
    let before = sum.len();
    match LatencyHistogram::from_v2(bytes.to_vec()) {
        Ok(histogram) => {
            assert_eq!(sum.add_v2(bytes).ok(), Some(histogram.len()));
            let _ = (histogram.quantile_us(0.99), histogram.max_us(), histogram.mean_us());
        }
        Err(_) => assert!(sum.add_v2(bytes).is_err() && sum.len() == before, "what is refused adds nothing"),
    }
}

fn read_reply(bytes: &[u8]) {
    let _ = (read::classify_ack(bytes), read::read_page(bytes), read::read_readers(bytes));
    let _ = (read::classify_status(bytes), read::classify_job(bytes), read::read_list(bytes));
    let ids = IdCodec::new(Sender::new(77, 3, 1));
    if let Some(id) = read::broadcast_message_id(bytes) {
        let _ = (ids.owner_of_message(id), ids.owner_of_request(id));
    }
    let text = String::from_utf8_lossy(bytes);
    let _ = (time::parse_rfc3339_ms(&text), Replies::new("_INBOX.a", "r").sequence(&text));
}

fn read_scenario(bytes: &[u8]) {
    // What is no text is refused where the file is read.
    let text = String::from_utf8_lossy(bytes);
    match CustomWorkload::parse(&text) {
        Ok(custom) => assert!(!custom.description.operations.is_empty()),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

fn read_plan_file(file: &mut tempfile::NamedTempFile, bytes: &[u8]) {
    file.as_file().set_len(0).expect("a file of ours");
    std::io::Seek::rewind(file).expect("a file of ours");
    file.write_all(bytes).expect("a file of ours");
    let path = file.path().display().to_string();
    let arguments = ["plimsoll", "max-rps", "--plan", &path].map(std::ffi::OsString::from);
    if let Err(error) = settings::read(arguments, &|_| None) {
        let words = error.to_string();
        assert!(words.starts_with("--"), "names no flag: {words}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn messages_of_agents(which in 0..4_usize, changes in changes()) {
        let bytes = changed(&FROM_AGENT[which], &changes);
        bounded(bytes.len(), || read_from_agent(&bytes));
    }

    #[test]
    fn messages_of_coordinators(which in 0..3_usize, changes in changes()) {
        let bytes = changed(&FROM_COORDINATOR[which], &changes);
        bounded(bytes.len(), || read_from_coordinator(&bytes));
    }

    #[test]
    fn histograms(changes in changes()) {
        let bytes = changed(&histogram().to_v2(), &changes);
        bounded(bytes.len(), || read_histogram(&bytes));
    }

    #[test]
    fn replies_and_broadcasts(which in 0..7_usize, changes in changes()) {
        let bytes = changed([ACK, REFUSAL, PAGE, BROADCAST, BROADCAST_SPELLED, LIST, JOB][which], &changes);
        bounded(bytes.len(), || read_reply(&bytes));
    }

    #[test]
    fn scenarios(changes in changes()) {
        let bytes = changed(SCENARIO, &changes);
        bounded(bytes.len(), || read_scenario(&bytes));
    }

    #[test]
    fn pages_of_the_monitoring(changes in changes()) {
        let bytes = changed(JSZ, &changes);
        bounded(bytes.len(), || drop(jsz::parse(&bytes)));
    }

    #[test]
    fn step_lists_patterns_and_addresses(changes in changes()) {
        let (steps, pattern, url) = (text(STEPS, &changes), text(PATTERN, &changes), text(URL, &changes));
        bounded(steps.len() + pattern.len() + url.len(), || {
            let _ = (steps.parse::<Steps>(), pattern.parse::<TargetPattern>(), servers(&url), redact_url(&url));
        });
    }

    #[test]
    fn certificates(changes in changes()) {
        let bytes = changed(&CERTIFICATE, &changes);
        bounded(bytes.len(), || {
            if let Ok(certificate) = Certificate::read(&bytes) {
                let _ = certificate.check(Side::Agent, 1_790_000_000);
                assert!(certificate.names.len() <= 64 && !certificate.is_of(&[]));
            }
        });
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn plan_files(changes in changes()) {
        let bytes = changed(PLAN, &changes);
        let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
        // The first look builds the table of settings and clap's commands.
        bounded(bytes.len(), || read_plan_file(&mut file, &bytes));
    }
}

/// What changes nothing is read: the samples are right, and so the changes begin at what is read.
#[test]
fn the_samples_are_right() {
    for bytes in FROM_AGENT.iter() {
        match AgentMessage::decode(bytes.as_slice()).map(|message| message.message) {
            Ok(Some(agent_message::Message::Snapshot(message))) => drop(Snapshot::try_from(message).expect("right")),
            Ok(Some(agent_message::Message::StepTotals(message))) => {
                drop(StepTotals::try_from(message).expect("right"))
            }
            Ok(Some(agent_message::Message::Calibrated(message))) => {
                drop(Calibration::try_from(message).expect("right"))
            }
            Ok(message) => drop(hello(&AgentAddress::at("box-1:7700"), message).expect("right")),
            other => panic!("{other:?}"),
        }
    }
    for bytes in FROM_COORDINATOR.iter() {
        match CoordinatorMessage::decode(bytes.as_slice()).map(|message| message.message) {
            Ok(Some(coordinator_message::Message::Prepare(message))) => {
                drop(AgentPlan::try_from(message).expect("right"))
            }
            Ok(Some(coordinator_message::Message::StartStep(message))) => {
                StepOrder::try_from(message).expect("right");
            }
            Ok(Some(coordinator_message::Message::Calibrate(message))) => {
                CalibrationOrder::try_from(message).expect("right");
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(LatencyHistogram::from_v2(histogram().to_v2()).map(|histogram| histogram.len()).ok(), Some(7));
    assert_eq!(read::classify_ack(ACK), read::Ack::Accepted);
    assert!(matches!(read::classify_ack(REFUSAL), read::Ack::Refused { .. }));
    assert_eq!(read::read_page(PAGE).1.map(|page| page.rows), Some(2));
    let id = &b"018f3a5e7b2c4d6e8f90"[..];
    assert_eq!([BROADCAST, BROADCAST_SPELLED].map(read::broadcast_message_id), [Some(id); 2]);
    assert_eq!((read::read_list(LIST), read::classify_job(JOB)), (read::Answer::Accepted, read::Answer::Accepted));
    assert_eq!(CustomWorkload::parse(&text(SCENARIO, &[])).map(|custom| custom.description.operations.len()), Ok(2));
    assert!(jsz::parse(JSZ).is_ok(), "{:?}", jsz::parse(JSZ));
    assert!(
        std::str::from_utf8(STEPS).is_ok_and(|steps| "500,1k,2.5k,5000".parse::<Steps>().is_ok() && !steps.is_empty())
    );
    assert!(text(PATTERN, &[]).parse::<TargetPattern>().is_ok());
    assert_eq!(servers(&text(URL, &[])).map(|servers| servers.len()), Ok(2));
    assert!(Certificate::read(&CERTIFICATE).is_ok_and(|certificate| certificate.names.len() >= 4));
}

/// The bound means something: what allocates from a header is caught.
#[test]
#[should_panic(expected = "bytes held for 10 bytes of input")]
fn more_memory_than_the_input_is_worth_is_found() {
    bounded(10, || drop(std::hint::black_box(Vec::<u8>::with_capacity(FIXED * 2))));
}
