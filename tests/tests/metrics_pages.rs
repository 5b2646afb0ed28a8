//! What agent and coordinator show of a run while it is under way is valid Prometheus text, and it moves.

use std::collections::HashMap;
use std::num::NonZeroU64;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use plimsoll_common::contract::daily::DailyPreset;
use plimsoll_tests::harness::exclusive::Shared;
use plimsoll_tests::harness::http;
use plimsoll_tests::harness::nats::{NatsOptions, NatsServer};
use plimsoll_tests::harness::ports::free_port;
use plimsoll_tests::harness::processes::{Agent, AgentOptions};
use plimsoll_tests::harness::run::Run;
use plimsoll_tests::standin::{DailyConfig, Standin, StandinConfig};

/// Samples by name and labels.
type Page = HashMap<String, f64>;

/// Reads exposition format 0.0.4 strictly: every sample has a number, belongs to a family with a known type that was
/// announced before it, and stands once; every histogram's buckets rise to its count.
fn parse(text: &str) -> anyhow::Result<Page> {
    ensure!(text.is_empty() || text.ends_with('\n'), "the last line has no end");
    let (mut types, mut page) = (HashMap::new(), Page::new());
    let mut last_bucket: Option<(String, f64)> = None;
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').with_context(|| format!("no type: {line}"))?;
            ensure!(["counter", "gauge", "histogram"].contains(&kind), "unknown type: {line}");
            ensure!(types.insert(name.to_owned(), kind.to_owned()).is_none(), "announced twice: {line}");
            continue;
        }
        if line.starts_with("# HELP ") {
            continue;
        }
        let (sample, value) = line.rsplit_once(' ').with_context(|| format!("no sample: {line}"))?;
        let value: f64 = value.parse().with_context(|| format!("no number: {line}"))?;
        let name = sample.split('{').next().unwrap_or_default();
        let fits = |c: char| c.is_ascii_alphanumeric() || c == '_';
        ensure!(!name.is_empty() && name.chars().all(fits), "no name: {line}");
        ensure!(sample.len() == name.len() || sample.ends_with("\"}"), "labels: {line}");
        let family = ["_bucket", "_sum", "_count"]
            .iter()
            .filter_map(|suffix| name.strip_suffix(suffix))
            .find(|family| types.get(*family).is_some_and(|kind| kind == "histogram"))
            .unwrap_or(name);
        ensure!(types.contains_key(family), "not announced: {line}");
        // Not that of `durable`.
        if let Some((labels, _)) = sample.split_once("{le=\"").or_else(|| sample.split_once(",le=\"")) {
            if let Some((of, below)) = &last_bucket {
                ensure!(of != labels || *below <= value, "a bucket below the one before: {line}");
            }
            last_bucket = Some((labels.to_owned(), value));
        }
        ensure!(page.insert(sample.to_owned(), value).is_none(), "twice: {line}");
    }
    Ok(page)
}

fn free_address() -> anyhow::Result<String> {
    Ok(format!("127.0.0.1:{}", free_port()?))
}

fn value(page: &Page, sample: &str) -> anyhow::Result<f64> {
    page.get(sample).copied().with_context(|| format!("no {sample} in {page:#?}"))
}

/// Looks at a page until it shows what is waited for.
fn page_with(address: &str, what: &str, shows: impl Fn(&Page) -> bool) -> anyhow::Result<Page> {
    parse(&text_with(address, what, shows)?)
}

fn text_with(address: &str, what: &str, shows: impl Fn(&Page) -> bool) -> anyhow::Result<String> {
    for _ in 0..600 {
        let text = http::get(&format!("http://{address}/metrics"))?;
        if shows(&parse(&text)?) {
            return Ok(text);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    anyhow::bail!("{address} never showed {what}")
}

fn shown_at(address: &str) -> anyhow::Result<Agent> {
    let arguments = vec!["--metrics-listen".to_owned(), address.to_owned()];
    Agent::start(&AgentOptions { arguments, ..AgentOptions::default() })
}

/// What is served of a run whose levels are users, who are all online.
async fn page_of_users() -> anyhow::Result<String> {
    const USERS: u32 = 100;
    let server = NatsServer::start(NatsOptions::default())?;
    let mut config = StandinConfig::new(server.url());
    config.daily = Some(DailyConfig { preset: DailyPreset::Light, users: USERS });
    let standin = Standin::start(config).await?;
    let address = free_address()?;
    let run = Run::daily(&server.url(), "daily-light", USERS).flag("--day", "80s").steps(&[f64::from(USERS)]);
    let run = run.trials(1).hold(Duration::from_secs(4)).local(1).flag("--metrics-listen", &address);
    let looked = tokio::task::spawn_blocking(move || {
        let mut running = run.start()?;
        running.wait_for_hold()?;
        let online = "plimsoll_online_users";
        let text = text_with(&address, "all users online", |page| page.get(online) == Some(&f64::from(USERS)))?;
        let page = parse(&text)?;
        assert_eq!(value(&page, "plimsoll_target_users")?, f64::from(USERS));
        let rates: Vec<&String> = page.keys().filter(|name| name.ends_with("_rate")).collect();
        assert!(rates.iter().all(|name| *name == "plimsoll_error_rate"), "users are no rate: {rates:?}");
        running.finish()?;
        anyhow::Ok(text)
    });
    let page = looked.await??;
    standin.shutdown().await?;
    Ok(page)
}

#[tokio::test]
async fn the_pages_of_agents_and_runs_are_valid_and_move_and_dashboards_show_what_is_on_them() -> anyhow::Result<()> {
    let _shared = Shared::acquire()?;
    let of_users = page_of_users().await?;
    let server = NatsServer::start(NatsOptions::default())?;
    let mut config = StandinConfig::new(server.url());
    config.broadcast_faults.drop_every = NonZeroU64::new(10);
    let standin = Standin::start(config).await?;
    let (of_agent, of_run) = (free_address()?, free_address()?);
    let agents = [shown_at(&of_agent)?];
    let run = Run::new(&server.url(), "small").agents(&agents).steps(&[300.0]).trials(1);
    let run = run.flag("--request-timeout", "1s").flag("--metrics-listen", &of_run);

    let looked = tokio::task::spawn_blocking(move || {
        let mut running = run.start()?;
        running.wait_for_hold()?;
        let sent = "plimsoll_agent_operations_total{state=\"sent\"}";
        let lost = "plimsoll_agent_failures_total{kind=\"lost\"}";
        let e1 = "plimsoll_agent_latency_seconds_count{series=\"E1\"}";
        let moved = |page: &Page| page.get(e1).is_some_and(|&n| n > 0.0) && page.get(lost).is_some_and(|&n| n > 0.0);
        let first = page_with(&of_agent, "latencies and losses", moved)?;
        let later = page_with(&of_agent, "more of them", |page| page.get(e1) > first.get(e1))?;
        for sample in [sent, e1, "plimsoll_agent_lateness_seconds_count"] {
            assert!(value(&later, sample)? > value(&first, sample)?, "{sample}");
        }
        let everything = "plimsoll_agent_latency_seconds_bucket{series=\"E2\",le=\"+Inf\"}";
        assert_eq!(value(&later, everything)?, value(&later, "plimsoll_agent_latency_seconds_count{series=\"E2\"}")?);
        assert!(value(&later, "plimsoll_agent_in_flight")? > 0.0);
        assert_eq!(http::get(&format!("http://{of_agent}/healthz"))?, "ok\n");

        let page = page_with(&of_run, "an achieved rate", |page| page.contains_key("plimsoll_achieved_rate"))?;
        assert_eq!(value(&page, "plimsoll_target_rate")?, 300.0);
        assert!(
            value(&page, "plimsoll_phase{phase=\"hold\"}").is_ok()
                || value(&page, "plimsoll_phase{phase=\"drain\"}").is_ok()
        );
        page_with(&of_run, "an error rate", |page| page.get("plimsoll_error_rate").is_some_and(|&rate| rate > 0.01))?;
        let p99 = |page: &Page| page.contains_key("plimsoll_latency_p99_seconds{series=\"E1\"}");
        page_with(&of_run, "a percentile", p99)?;
        let backlog = |page: &Page| page.keys().any(|sample| sample.starts_with("plimsoll_backlog_messages{"));
        page_with(&of_run, "a backlog", backlog)?;
        let pages = [of_agent, of_run].map(|address| http::get(&format!("http://{address}/metrics")));
        let [of_agent, of_run] = pages;
        crate::deployment::monitoring::name_only_what_is_served(&[&of_agent?, &of_run?, &of_users])?;
        running.finish()
    });
    let outcome = looked.await??;
    assert!(outcome.trial_at(300.0)?.lost > 0, "{outcome}");
    standin.shutdown().await?;
    Ok(())
}

#[tokio::test]
async fn an_agent_whose_coordinator_was_killed_shows_no_load_any_more() -> anyhow::Result<()> {
    let _shared = Shared::acquire()?;
    let server = NatsServer::start(NatsOptions::default())?;
    let standin = Standin::start(StandinConfig::new(server.url())).await?;
    let address = free_address()?;
    let agents = [shown_at(&address)?];
    let run = Run::new(&server.url(), "small").agents(&agents).steps(&[300.0]).trials(1);
    let looked = tokio::task::spawn_blocking(move || {
        let gauges = ["plimsoll_agent_in_flight", "plimsoll_agent_cpu_cores"];
        let mut running = run.start()?;
        page_with(&address, "load", |page| gauges.iter().all(|gauge| page.get(*gauge).is_some_and(|&now| now > 0.0)))?;
        running.process.signal(libc::SIGKILL)?;
        let after = page_with(&address, "silence", |page| gauges.iter().all(|gauge| page.get(*gauge) == Some(&0.0)))?;
        assert!(value(&after, "plimsoll_agent_operations_total{state=\"sent\"}")? > 0.0, "what is counted stays");
        anyhow::Ok(())
    });
    looked.await??;
    standin.shutdown().await?;
    Ok(())
}

#[test]
fn the_parser_finds_what_is_wrong() {
    let announced = "# TYPE a counter\n";
    assert_eq!(parse(&format!("{announced}a{{k=\"v\"}} 7\n")).unwrap()["a{k=\"v\"}"], 7.0);
    for wrong in
        ["a 1\n", "# TYPE a counter\na\n", "# TYPE a counter\na x\n", "# TYPE a counter\na 1\na 2\n", "# TYPE a sum\n"]
    {
        assert!(parse(wrong).is_err(), "{wrong:?}");
    }
    let falling = "# TYPE h histogram\nh_bucket{le=\"1\"} 5\nh_bucket{le=\"2\"} 4\n";
    assert!(parse(falling).is_err());
    let durables = "# TYPE b gauge\nb{durable=\"x\"} 1\nb{durable=\"y\"} 0\n";
    assert!(parse(durables).is_ok(), "a durable is no bucket");
}
