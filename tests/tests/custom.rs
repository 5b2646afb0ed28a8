//! Services that a file describes: the examples run as they stand, a capacity that is set is found, nothing flatters, and what is
//! missing or badly described is said before any load.

use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::time::Duration;

use plimsoll_tests::harness::exclusive::Shared;
use plimsoll_tests::harness::nats::{NatsOptions, NatsServer, NatsUser};
use plimsoll_tests::harness::processes::{Process, Program};
use plimsoll_tests::harness::prove;
use plimsoll_tests::harness::run::{Outcome, Run, Verdict};
use plimsoll_tests::standin::responder::{Answers, Responder, make_bucket, make_stream};

fn every(n: u64) -> Option<NonZeroU64> {
    NonZeroU64::new(n)
}

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/examples").join(name)
}

fn run(server: &NatsServer, scenario: &Path) -> Run {
    let run = Run::custom(&server.url(), scenario).steps(&[300.0]);
    run.warmup(Duration::from_millis(500)).hold(Duration::from_secs(2)).cooldown(Duration::from_millis(50))
}

/// A description in a file of its own.
fn described(text: &str) -> anyhow::Result<tempfile::NamedTempFile> {
    let file = tempfile::Builder::new().suffix(".toml").tempfile()?;
    std::fs::write(file.path(), text)?;
    Ok(file)
}

async fn finish(run: Run) -> anyhow::Result<Outcome> {
    tokio::task::spawn_blocking(move || run.finish()).await?
}

#[tokio::test]
async fn every_example_runs_as_it_stands_and_fills_its_series() -> anyhow::Result<()> {
    let _shared = Shared::acquire()?;
    let server = NatsServer::start(NatsOptions::default())?;
    let url = server.url();
    let _services = [
        Responder::echo(&url, "svc.echo", Answers::default()).await?,
        Responder::work_queue(&url, None).await?,
        Responder::relay(&url, "readings", "feed", None).await?,
    ];
    make_bucket(&url, "prices", 100).await?;
    make_stream(&url, "ORDERS", "orders.>").await?;
    let mut seen = 0;
    for (file, series) in [
        ("echo.toml", &[("echo", 1.0)][..]),
        ("work-queue.toml", &[("job", 1.0), ("job.delivery", 1.0)]),
        ("key-value.toml", &[("get", 0.8), ("put", 0.2)]),
        (
            "event-feed.toml",
            &[("reading", 0.75), ("reading.delivery", 0.75), ("order", 0.25), ("order.delivery", 0.25)],
        ),
    ] {
        let outcome = finish(run(&server, &example(file)).local(2)).await?;
        let trial = outcome.trial_at(300.0)?;
        assert_eq!(
            (trial.verdict, trial.completed, outcome.code()),
            (Verdict::Pass, trial.attempted, Some(0)),
            "{outcome}"
        );
        assert_eq!((trial.foreign, trial.duplicate), (0, 0), "{outcome}");
        for (name, part) in series {
            let n = trial.number(&format!("{name}_n")).unwrap_or_default();
            assert!((n / trial.attempted as f64 - part).abs() < 0.1, "{name}: {outcome}");
        }
        seen += 1;
    }
    assert_eq!(std::fs::read_dir(example(""))?.count(), seen, "every example is run");
    Ok(())
}

#[tokio::test]
async fn the_capacity_of_a_responder_is_found() -> anyhow::Result<()> {
    let _shared = Shared::acquire()?;
    let server = NatsServer::start(NatsOptions::default())?;
    let slow = Answers { capacity: Some(600.0), ..Answers::default() };
    let _service = Responder::echo(&server.url(), "svc.echo", slow).await?;
    let run = run(&server, &example("echo.toml")).flag("--slo-p95", "1s").flag("--slo-p99", "1500ms");
    let outcome = finish(run.steps(&[300.0, 2400.0])).await?;
    assert_eq!((outcome.max_rps(), outcome.code()), (Some(300.0), Some(0)), "{outcome}");
    assert!(outcome.trial_at(2400.0)?.reasons.contains("echo p95"), "{outcome}");
    Ok(())
}

/// The suite looks whether what the search shows in half a minute is carried; PLIMSOLL_PROVE=1 has it show the interval.
#[tokio::test]
async fn a_search_shows_what_a_described_service_carries() -> anyhow::Result<()> {
    const CAPACITY: f64 = 600.0;
    let _shared = Shared::acquire()?;
    let server = NatsServer::start(NatsOptions::default())?;
    let slow = Answers { capacity: Some(CAPACITY), ..Answers::default() };
    let _service = Responder::echo(&server.url(), "svc.echo", slow).await?;
    let mut search = Program::Cli.command()?;
    search.args([
        "max-rps",
        "--find",
        "--explain",
        "--workload",
        "custom",
        "--nats-url",
        &server.url(),
        "--results=none",
    ]);
    search.arg("--scenario").arg(example("echo.toml")).args(["--slo-p95", "none", "--slo-p99", "100ms"]);
    search.args(["--request-timeout", "2s", "--precision", "5%", "--from", "100"]);
    search.args(["--max-time", if prove::whole() { "5m" } else { "34s" }]);
    let ended = tokio::task::spawn_blocking(move || Process::spawn(search)?.wait(Duration::from_secs(400))).await??;
    let trail: Vec<&str> = ended.stdout.lines().filter(|line| line.contains("; now between ")).collect();
    let (low, high) = bounds(trail.last().unwrap_or_else(|| panic!("no trail: {ended:?}")));
    let answer = ended.stdout.lines().find(|line| line.starts_with("ANSWER: ")).unwrap_or_default();
    if prove::whole() {
        println!("{answer}");
        let holds_it = low <= CAPACITY && CAPACITY <= high && high / low <= 1.05 + 1e-9;
        assert!(ended.code == Some(0) && holds_it, "{low} to {high}: {ended:?}");
        return Ok(());
    }
    // A busy box may hide what the service carries, or show an overload where there is none; that it carries more than it can is
    // never shown, and that it has a limit always is.
    assert!(ended.code == Some(4) && high.is_finite() && high >= CAPACITY * 0.5, "{low} to {high}: {ended:?}");
    let shown = answer.strip_prefix("ANSWER: max RPS >= ").and_then(|rest| rest.split(' ').next()?.parse().ok());
    let fits = shown.is_some_and(|level: f64| (50.0..=CAPACITY).contains(&level));
    assert!(fits || answer.starts_with("ANSWER: no level passed"), "{ended:?}");
    Ok(())
}

/// The two levels of `now between A and B`, each with whether it is a hint behind it.
fn bounds(line: &str) -> (f64, f64) {
    let (low, high) =
        line.split_once("; now between ").and_then(|(_, bounds)| bounds.split_once(" and ")).expect("two");
    let level = |text: &str| text.split(' ').next().and_then(|level| level.parse().ok());
    (level(low).unwrap_or(0.0), level(high).unwrap_or(f64::INFINITY))
}

#[tokio::test]
async fn the_capacity_of_a_queues_worker_is_found_by_its_backlog_and_its_deliveries() -> anyhow::Result<()> {
    let _shared = Shared::acquire()?;
    let server = NatsServer::start(NatsOptions::default())?;
    let _worker = Responder::work_queue(&server.url(), Some(600.0)).await?;
    let steps = run(&server, &example("work-queue.toml")).steps(&[300.0, 1200.0]);
    let outcome = finish(steps.hold(Duration::from_secs(3)).flag("--slo-pending-growth", 500)).await?;
    assert_eq!((outcome.max_rps(), outcome.code()), (Some(300.0), Some(0)), "{outcome}");
    let reasons = &outcome.trial_at(1200.0)?.reasons;
    assert!(reasons.contains("job.delivery p95") && reasons.contains("worker pending +"), "{outcome}");
    assert!(!reasons.contains("job p"), "the stream itself is fast: {outcome}");
    Ok(())
}

/// Operations of equal weight, each against a responder of its own.
const FAULTS: [&str; 6] = ["sound", "refused", "failed", "skipped", "strayed", "garbage"];

#[tokio::test]
async fn what_fails_is_no_sample_of_success_and_what_is_not_ours_changes_nothing() -> anyhow::Result<()> {
    let _shared = Shared::acquire()?;
    let server = NatsServer::start(NatsOptions::default())?;
    let mut services = Vec::new();
    for name in FAULTS {
        let mut answers = Answers::default();
        match name {
            "refused" => answers.refuse_every = every(2),
            "failed" => answers.fail_every = every(2),
            "skipped" => answers.skip_every = every(2),
            "strayed" => (answers.foreign_every, answers.duplicate_every) = (every(2), every(2)),
            "garbage" => answers.garbage_every = every(2),
            _ => {}
        }
        services.push(Responder::echo(&server.url(), &format!("svc.{name}"), answers).await?);
    }
    let operation = |name: &str| {
        format!(
            "[[operation]]\nname = \"{name}\"\nkind = \"request\"\nsubject = \"svc.{name}\"\ntimeout = \"1s\"\n\
             payload = '{{\"id\":\"{{{{uuid}}}}\"}}'\nsuccess = {{ pointer = \"/error\", exists = false }}\n"
        )
    };
    let file = described(&FAULTS.map(operation).concat())?;
    let outcome = finish(run(&server, file.path()).steps(&[600.0])).await?;
    let trial = outcome.trial_at(600.0)?;
    assert_eq!(trial.verdict, Verdict::Trip, "{outcome}");
    let n = |name: &str| trial.number(&format!("{name}_n")).unwrap_or_default();
    // Every second one of each: 1,200 operations over six kinds, half of four of them fail.
    let half = |count: u64, of: f64| (count as f64 - of).abs() < of * 0.2;
    assert!(half(trial.failed_refused, n("refused") + n("failed")), "{outcome}");
    assert!(half(trial.failed_bad_reply, n("garbage")), "{outcome}");
    // What never came is a sample, at its own timeout.
    assert!(half(trial.failed_timeout, n("skipped") / 2.0), "{outcome}");
    let slowest = trial.number("skipped_max_ms").unwrap_or_default();
    assert!((1_000.0..2_500.0).contains(&slowest), "{outcome}");
    assert!(n("sound") > 100.0 && (n("sound") / n("strayed") - 1.0).abs() < 0.3, "{outcome}");
    assert!(trial.foreign > 60 && trial.duplicate > 60, "{outcome}");
    assert_eq!(
        trial.completed + trial.failed_refused + trial.failed_bad_reply + trial.failed_timeout,
        trial.attempted,
        "{outcome}"
    );
    Ok(())
}

#[tokio::test]
async fn what_the_target_lacks_is_said_before_any_load() -> anyhow::Result<()> {
    let _shared = Shared::acquire()?;
    let server = NatsServer::start(NatsOptions::default())?;
    let absent = |words: &'static str, scenario: PathBuf| {
        let run = run(&server, &scenario);
        async move {
            let outcome = finish(run).await?;
            assert!(outcome.trials.is_empty() && outcome.code() == Some(2), "{outcome}");
            assert!(outcome.ended.stderr.contains(words), "expected '{words}': {outcome}");
            anyhow::Ok(())
        }
    };
    absent("nobody listens on 'svc.echo': start the service, or correct `subject`", example("echo.toml")).await?;
    absent("preflight: the target has no stream JOBS: make it, correct `stream`", example("work-queue.toml")).await?;
    let _worker = Responder::work_queue(&server.url(), None).await?;
    let jobs = std::fs::read_to_string(example("work-queue.toml"))?;
    let other_durable = described(&jobs.replace("JOBS/worker", "JOBS/wroker"))?;
    absent("preflight: the stream JOBS has no durable wroker", other_durable.path().to_owned()).await?;
    let other_subject = described(&jobs.replace("jobs.{{choice", "tasks.{{choice"))?;
    absent("no stream takes it: correct `subject`", other_subject.path().to_owned()).await?;
    // A work queue lets nobody read beside its durable.
    let own = described(&jobs.replace("subject = \"done.jobs.>\"\npointer = \"/job\"\n", ""))?;
    absent("the deliveries of 'job' cannot be had from the stream JOBS: ", own.path().to_owned()).await?;
    Ok(())
}

#[tokio::test]
async fn a_responder_that_leaves_is_a_failure_of_its_own() -> anyhow::Result<()> {
    let _shared = Shared::acquire()?;
    let server = NatsServer::start(NatsOptions::default())?;
    let service = Responder::echo(&server.url(), "svc.echo", Answers::default()).await?;
    let running = run(&server, &example("echo.toml"));
    let running = running.hold(Duration::from_secs(4));
    let mut running = running.start()?;
    let running = tokio::task::spawn_blocking(move || running.wait_for_hold().map(|()| running)).await??;
    service.stop().await?;
    let outcome = tokio::task::spawn_blocking(move || running.finish()).await??;
    let trial = outcome.trial_at(300.0)?;
    assert_eq!(trial.verdict, Verdict::Trip, "{outcome}");
    assert!(trial.failed_no_responders > trial.attempted / 4, "{outcome}");
    Ok(())
}

#[tokio::test]
async fn a_bad_file_is_one_error_with_its_line_and_what_fits() -> anyhow::Result<()> {
    let text = std::fs::read_to_string(example("echo.toml"))?.replace("{{text:50..500}}", "{{words:50}}");
    let line = text.lines().position(|line| line.contains("words")).unwrap_or_default() + 1;
    let file = described(&text)?;
    let nobody = || Run::custom("nats://127.0.0.1:1", file.path());
    let outcome = finish(nobody()).await?;
    let path = file.path().display();
    let words = format!(
        "error: --scenario: {path}: line {line}: payload: unknown placeholder '{{{{words:50}}}}': expected {{{{sequence}}}}, "
    );
    assert!(outcome.code() == Some(2) && outcome.ended.stderr.starts_with(&words), "{outcome}");
    let slow = std::fs::read_to_string(example("echo.toml"))? + "timeout = \"9s\"\n";
    std::fs::write(file.path(), slow)?;
    let outcome = finish(nobody()).await?;
    assert!(outcome.ended.stderr.contains("the operation 'echo' has a timeout of 9s"), "{outcome}");
    let absent = finish(Run::custom("nats://127.0.0.1:1", Path::new("/nowhere.toml"))).await?;
    assert!(
        absent.ended.stderr.contains("--scenario: got '/nowhere.toml', expected the path of a text file"),
        "{absent}"
    );
    Ok(())
}

/// Nobody answers a publish: what the client took and the server never did must not pass for done.
#[tokio::test]
async fn publishes_that_the_server_never_took_are_failures() -> anyhow::Result<()> {
    let _shared = Shared::acquire()?;
    let mut server = NatsServer::start(NatsOptions::default())?;
    let scenario = described("[[operation]]\nname = \"shot\"\nkind = \"publish\"\nsubject = \"shots.{{worker}}\"")?;
    // So few that the client's queue holds all of them.
    let run = run(&server, scenario.path()).steps(&[100.0]).hold(Duration::from_secs(4)).trials(1);
    let mut running = run.flag("--request-timeout", "1s").start()?;
    running.wait_for_hold()?;
    server.kill()?;
    let outcome = tokio::task::spawn_blocking(move || running.finish()).await??;
    let trial = outcome.trial_at(100.0)?;
    assert_eq!(trial.verdict, Verdict::Trip, "{outcome}");
    assert!(trial.failed_timeout > trial.attempted / 2, "it was gone for most of the hold: {outcome}");
    assert_eq!(trial.completed + trial.failed_timeout + trial.failed_publish, trial.attempted, "{outcome}");
    Ok(())
}

#[tokio::test]
async fn publishes_that_the_server_denies_are_failures_in_its_words() -> anyhow::Result<()> {
    let _shared = Shared::acquire()?;
    let user = NatsUser {
        name: "load".into(),
        password: "secret".into(),
        publish_deny: vec!["shots.>".into()],
        ..NatsUser::default()
    };
    let server = NatsServer::start(NatsOptions { users: vec![user.clone()], ..NatsOptions::default() })?;
    let scenario = described("[[operation]]\nname = \"shot\"\nkind = \"publish\"\nsubject = \"shots.{{worker}}\"")?;
    let run = run(&server, scenario.path()).flag("--nats-url", server.url_of(&user)).flag("--request-timeout", "1s");
    let outcome = finish(run.steps(&[100.0]).trials(1)).await?;
    let trial = outcome.trial_at(100.0)?;
    assert_eq!(trial.verdict, Verdict::Trip, "{outcome}");
    assert!(trial.failed_timeout * 10 >= trial.attempted * 9, "{outcome}");
    assert!(outcome.ended.stdout.to_lowercase().contains("permissions violation"), "{outcome}");
    Ok(())
}
