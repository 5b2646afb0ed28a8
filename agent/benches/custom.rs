//! What a described workload costs per operation inside the agent: `cargo bench -p plimsoll-agent --bench custom`.
//!
//! Budget: templates add at most 1 us to an operation. `constant` has none, `templates` fills in all that an ordinary request has;
//! the difference is what templates add. `answer` is what a success test by JSON pointer adds to a reply.

use std::time::Duration;

use divan::Bencher;
use divan::counter::ItemsCount;
use plimsoll_agent::core::ledger::{Kind, Ledger, Terms, Window};
use plimsoll_agent::workload::custom::Custom;
use plimsoll_agent::workload::{Aside, Incoming, Part, Setup, Workload as _};
use plimsoll_common::contract::ids::{IdCodec, Sender};
use plimsoll_common::plan::{AgentPlan, CustomWorkload, SeriesLimits, Target, Workload};
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;

const OPERATIONS: u64 = 10_000;
const S: u64 = 1_000_000_000;

fn main() {
    divan::main();
}

fn custom(payload: &str, subject: &str) -> Custom {
    let text = format!(
        "[[operation]]\nname = \"a\"\nkind = \"request\"\nsubject = \"{subject}\"\npayload = '{payload}'\n\
         success = {{ pointer = \"/id\" }}\n"
    );
    let plan = CustomWorkload::parse(&text).expect("a description");
    let run = AgentPlan {
        agent_index: 0,
        run_nonce: 7,
        seed: 42,
        target: Target { url: "nats://127.0.0.1:4222".into(), credentials: None },
        workload: Workload::Custom(plan.clone()),
        request_timeout: Duration::from_secs(5),
        series: vec![],
        max_lateness: Duration::from_millis(100),
    };
    let mut chance = ChaCha8Rng::seed_from_u64(1);
    let setup = Setup {
        plan: &run,
        fixtures: None,
        part: &Part::equal(1)[0],
        worker: 0,
        workers: 1,
        exchange: None,
        inbox: "_INBOX.bench",
        ids: IdCodec::new(Sender::new(7, 0, 0)),
        chance: &mut chance,
    };
    Custom::new(&plan, setup).expect("a workload")
}

fn message(bencher: Bencher, payload: &str, subject: &str) {
    let mut custom = custom(payload, subject);
    let mut chance = ChaCha8Rng::seed_from_u64(2);
    bencher.counter(ItemsCount::new(OPERATIONS)).bench_local(|| {
        for sequence in 0..OPERATIONS {
            let choice = custom.choose(&mut chance);
            divan::black_box(custom.message(sequence, choice));
        }
    });
}

/// The same message every time.
#[divan::bench]
fn constant(bencher: Bencher) {
    message(bencher, r#"{"id":"0aZ9kLmN3p0000000001","at":1700000000000,"room":"room-1","n":5}"#, "svc.room-1.get");
}

/// An id, an instant, a number, a room in payload and subject, and a text.
#[divan::bench]
fn templates(bencher: Bencher) {
    const PAYLOAD: &str =
        r#"{"id":"{{uuid}}","at":{{timestamp:ms}},"room":"{{room}}","n":{{int:1..100}},"text":"{{text:50..500}}"}"#;
    message(bencher, PAYLOAD, "svc.{{room}}.get");
}

/// A reply that is told by a JSON pointer.
#[divan::bench]
fn answer(bencher: Bencher) {
    let mut custom = custom("{{uuid}}", "svc.get");
    let terms = Terms {
        series: vec![SeriesLimits { series: "a".into(), limits_us: vec![100_000] }],
        kinds: vec![Kind::replied(&[0], 0)],
        observations: vec![],
        request_timeout_ns: 5 * S,
        max_lateness_ns: S,
    };
    let window = Window { start_ns: S, hold_start_ns: S, hold_end_ns: 31 * S };
    let mut ledger = Ledger::new(terms, window, 0, 1000, u64::MAX);
    let mut chance = ChaCha8Rng::seed_from_u64(2);
    ledger.due(2 * S, 2 * S, || custom.choose(&mut chance));
    let reply = async_nats::Message {
        subject: "_INBOX.bench.r.0".into(),
        reply: None,
        payload: format!("{{\"text\":\"{}\",\"id\":\"0aZ9kLmN3p0000000001\"}}", "x".repeat(200)).into(),
        headers: None,
        status: None,
        description: None,
        length: 0,
    };
    let mut aside = Aside::default();
    bencher.counter(ItemsCount::new(OPERATIONS)).bench_local(|| {
        for _ in 0..OPERATIONS {
            let incoming = custom.incoming(0, &reply, &ledger, &mut aside);
            assert!(matches!(divan::black_box(incoming), Incoming::Answer { .. }));
        }
    });
}
