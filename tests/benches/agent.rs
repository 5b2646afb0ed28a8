//! The agent's speed, against a null gatekeeper with nats-server on the same cores.
//!
//! `cargo bench -p plimsoll-tests --bench agent -- throughput|custom|lateness|memory|all [runs]`
//!
//! Figures of one run are compared with a bare loop of the same run, since machines are noisy; the median of the runs is
//! printed last.

use std::io::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use bytes::{BufMut as _, BytesMut};
use futures::StreamExt as _;
use plimsoll_agent::clock::boottime_ns;
use plimsoll_agent::{Agent, AgentConfig};
use plimsoll_common::contract::fixtures::{Fixtures, account};
use plimsoll_common::contract::presets::MessagesPreset;
use plimsoll_common::contract::subjects;
use plimsoll_common::histogram::LatencyHistogram;
use plimsoll_common::plan::{AgentPlan, CustomWorkload, Inject, MessagesWorkload, SeriesLimits, Target, Workload};
use plimsoll_common::units::Rate;
use plimsoll_tests::harness::driver::{Driven, Driver, Load};
use plimsoll_tests::harness::nats::{NatsOptions, NatsServer};
use plimsoll_tests::standin::null::{ECHO, ECHO_SCENARIO, NullAnswers, NullGatekeeper};

const SITE: &str = "site-local";
const TIMEOUT: Duration = Duration::from_secs(5);

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let what = arguments.next().unwrap_or_else(|| "all".into());
    let runs: usize = arguments.next().map_or(Ok(3), |runs| runs.parse())?;
    let all = what == "all";
    if all || what == "throughput" {
        throughput(NullAnswers::Reply, 100_000, runs)?;
        throughput(NullAnswers::ReplyAndBroadcast, 60_000, runs)?;
    }
    if all || what == "custom" {
        throughput(NullAnswers::Echo, 100_000, runs)?;
    }
    if all || what == "lateness" {
        lateness(runs)?;
    }
    if all || what == "memory" {
        memory()?;
    }
    Ok(())
}

/// An agent on a thread of its own, as the daemon runs it.
fn start_agent() -> anyhow::Result<SocketAddr> {
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || -> anyhow::Result<()> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        runtime.block_on(async {
            let agent =
                Agent::bind("127.0.0.1:0".parse()?, AgentConfig { workers: Some(1), ..AgentConfig::default() }).await?;
            sender.send(agent.local_addr())?;
            agent.serve(std::future::pending(), std::future::pending()).await?;
            Ok(())
        })
    });
    receiver.recv().context("the agent did not start")
}

/// What is driven against a null gatekeeper that answers like this.
fn workload(answers: NullAnswers) -> anyhow::Result<Workload> {
    Ok(match answers {
        NullAnswers::Echo => Workload::Custom(CustomWorkload::parse(ECHO_SCENARIO)?),
        NullAnswers::Reply | NullAnswers::ReplyAndBroadcast => Workload::Messages(MessagesWorkload {
            preset: MessagesPreset::Medium,
            site_id: SITE.into(),
            inject: Inject::Frontdoor,
        }),
    })
}

fn plan(url: String, workload: Workload) -> anyhow::Result<AgentPlan> {
    let limits = |series: &str| SeriesLimits { series: series.into(), limits_us: vec![100_000, 250_000] };
    Ok(AgentPlan {
        agent_index: 0,
        run_nonce: boottime_ns() % (1 << 39),
        seed: 42,
        target: Target { url, credentials: None },
        series: workload.series().iter().map(|series| limits(series)).collect(),
        workload,
        request_timeout: TIMEOUT,
        max_lateness: Duration::from_millis(100),
    })
}

fn drive(url: String, answers: NullAnswers, loads: &[Load]) -> anyhow::Result<Vec<Driven>> {
    let agent = start_agent()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut driver = Driver::claim(agent, Duration::from_secs(10)).await?;
        driver.prepare(&plan(url, workload(answers)?)?).await?;
        let mut driven = Vec::new();
        for load in loads {
            driven.push(driver.hold(*load).await?);
        }
        Ok(driven)
    })
}

fn load(rate: u64, hold: u64) -> anyhow::Result<Load> {
    let max_in_flight = rate * TIMEOUT.as_secs() * 6 / 5;
    let rate = Rate::per_second(rate).context("a rate")?;
    Ok(Load { rate, warmup: Duration::from_secs(1), hold: Duration::from_secs(hold), max_in_flight })
}

fn throughput(answers: NullAnswers, asked: u64, runs: usize) -> anyhow::Result<()> {
    const HOLD: u64 = 10;
    println!("# throughput, {answers:?}: asked {asked}/s for {HOLD} s");
    println!(
        "run  achieved/s  E1-answered/s  saturated  underrun  p50/p99 E1 us  cpu-cores  bare/s  achieved/bare  best/s  best/bare"
    );
    let mut ratios = Vec::new();
    for run in 1..=runs {
        let server = NatsServer::start(NatsOptions { without_jetstream: true, ..NatsOptions::default() })?;
        let gatekeeper = NullGatekeeper::start(&server.url(), SITE, answers)?;
        let bare = bare_loop(&server.url(), answers, Duration::from_secs(5))?;
        let driven = drive(server.url(), answers, &[load(asked, HOLD)?])?;
        let one = &driven[0];
        let mut best = 0.0_f64;
        // Above what was asked: the highest rate of which nothing is saturated, underrun or short of answers.
        for percent in [120, 145, 170, 200, 240, 290] {
            let rate = asked * percent / 100;
            let driven = drive(server.url(), answers, &[load(rate, 4)?])?;
            let c = driven[0].totals.counters;
            let answered = e1(&driven[0]).count_up_to_us(1_000_000);
            if c.never_left() > 0 || (answered as f64) < 0.99 * c.due as f64 {
                break;
            }
            best = c.attempted as f64 / 4.0;
        }
        let c = one.totals.counters;
        let achieved = c.attempted as f64 / HOLD as f64;
        best = best.max(achieved);
        let answered = e1(one).count_up_to_us(1_000_000);
        let cpu: u32 = one.snapshots.iter().map(|snapshot| snapshot.health.process_cpu_milli).sum();
        println!(
            "{run}  {achieved:.0}  {:.0}  {}  {}  {}/{}  {:.2}  {bare:.0}  {:.2}  {best:.0}  {:.2}",
            answered as f64 / HOLD as f64,
            c.saturated,
            c.underrun,
            e1(one).quantile_us(0.5).unwrap_or(0),
            e1(one).quantile_us(0.99).unwrap_or(0),
            f64::from(cpu) / 1000.0 / one.snapshots.len() as f64,
            achieved / bare,
            best / bare,
        );
        ratios.push(best / bare);
        gatekeeper.shutdown()?;
    }
    println!("median best/bare: {:.2} (wanted: 0.60)\n", median(&mut ratios));
    Ok(())
}

fn e1(driven: &Driven) -> LatencyHistogram {
    let mut all = LatencyHistogram::new();
    driven.snapshots.iter().for_each(|snapshot| all.add(&snapshot.series[0].latency));
    all
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// As fast as one connection goes with a hand-made correlation: 1,024 open requests, each answer starts the next. The
/// subjects are the workload's own, all users of the preset in turn, so that nats-server does the same work for both.
fn bare_loop(url: &str, answers: NullAnswers, length: Duration) -> anyhow::Result<f64> {
    const OPEN: u64 = 1024;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let client = async_nats::connect(url).await?;
        let inbox = client.new_inbox();
        let echo = answers == NullAnswers::Echo;
        let replies = if echo { format!("{inbox}.*") } else { "chat.user.*.response.>".to_owned() };
        let mut answers = client.subscribe(replies).await?;
        // Broadcasts, where there are any, arrive here too.
        let mut broadcasts = client.subscribe("chat.room.*.event").await?;
        tokio::spawn(async move { while broadcasts.next().await.is_some() {} });
        let fixtures = Fixtures::build(MessagesPreset::Medium, 42, SITE);
        let pairs = fixtures.rooms.iter().flat_map(|room| room.members.iter().map(|&user| (user, room.id())));
        let subjects: Vec<async_nats::Subject> =
            pairs.map(|(user, room)| subjects::send(&account(user), &room, SITE).into()).collect();
        let content = "x".repeat(200);
        let mut chunk = BytesMut::new();
        let mut slots = vec![0_u64; OPEN as usize];
        let mut send = async |sequence: u64| -> anyhow::Result<()> {
            if chunk.capacity() < 512 {
                chunk = BytesMut::with_capacity(256 * 1024);
            }
            let mut body = (&mut chunk).writer();
            write!(
                body,
                "{{\"id\":\"0aZ9kLmN3p{sequence:010}\",\"content\":\"{content}\",\
                 \"requestId\":\"01980a2b-7c3d-7e4f-8a5b-{sequence:012x}\"}}"
            )?;
            let payload = chunk.split().freeze();
            if echo {
                let reply = format!("{inbox}.{sequence:012x}");
                client.publish_with_reply(ECHO, reply, payload).await?;
            } else {
                let subject = subjects[sequence as usize % subjects.len()].clone();
                client.publish(subject, payload).await?;
            }
            Ok(())
        };
        for sequence in 0..OPEN {
            slots[sequence as usize] = sequence;
            send(sequence).await?;
        }
        let (mut next, mut done) = (OPEN, 0_u64);
        let began = boottime_ns();
        while boottime_ns() - began < length.as_nanos() as u64 {
            let message = answers.next().await.context("the subscription ended")?;
            let token = message.subject.as_str();
            let sequence = u64::from_str_radix(&token[token.len() - 12..], 16)?;
            let slot = (sequence % OPEN) as usize;
            if slots[slot] == sequence {
                done += 1;
                slots[slot] = next;
                send(next).await?;
                // Slots are taken in the order of answers, which one connection keeps.
                next += 1;
            }
        }
        Ok(done as f64 / ((boottime_ns() - began) as f64 / 1e9))
    })
}

fn lateness(runs: usize) -> anyhow::Result<()> {
    println!(
        "# lateness in us, against a bare clock_nanosleep loop of the same run: before the load, and beside the same load"
    );
    println!("rate/s  run  p50  p99  max  bare-p50  bare-p99  p99/bare  beside-p50  beside-p99  p99/beside");
    for rate in [1_000, 10_000, 50_000] {
        let (mut p50s, mut ratios, mut ratios_beside) = (Vec::new(), Vec::new(), Vec::new());
        for run in 1..=runs {
            let server = NatsServer::start(NatsOptions { without_jetstream: true, ..NatsOptions::default() })?;
            let gatekeeper = NullGatekeeper::start(&server.url(), SITE, NullAnswers::ReplyAndBroadcast)?;
            let bare = bare_sleep(rate, Duration::from_secs(5));
            let beside = std::thread::spawn(move || {
                std::thread::sleep(Duration::from_secs(3));
                bare_sleep(rate, Duration::from_secs(5))
            });
            drive(server.url(), NullAnswers::ReplyAndBroadcast, &[load(rate, 10)?])?;
            let beside = beside.join().map_err(|_| anyhow::anyhow!("the bare loop died"))?;
            let driven = drive(server.url(), NullAnswers::ReplyAndBroadcast, &[load(rate, 10)?])?;
            let lateness = driven[0].lateness();
            let of = |histogram: &LatencyHistogram, quantile| histogram.quantile_us(quantile).unwrap_or(0);
            let ratio = of(&lateness, 0.99) as f64 / of(&bare, 0.99) as f64;
            let ratio_beside = of(&lateness, 0.99) as f64 / of(&beside, 0.99) as f64;
            println!(
                "{rate}  {run}  {}  {}  {}  {}  {}  {ratio:.2}  {}  {}  {ratio_beside:.2}",
                of(&lateness, 0.5),
                of(&lateness, 0.99),
                lateness.max_us().unwrap_or(0),
                of(&bare, 0.5),
                of(&bare, 0.99),
                of(&beside, 0.5),
                of(&beside, 0.99),
            );
            p50s.push(of(&lateness, 0.5) as f64);
            ratios.push(ratio);
            ratios_beside.push(ratio_beside);
            gatekeeper.shutdown()?;
        }
        println!(
            "median at {rate}/s: p50 {} us (wanted: 150), p99/bare {:.2}, p99/beside {:.2} (wanted: 1.50)",
            median(&mut p50s),
            median(&mut ratios),
            median(&mut ratios_beside)
        );
    }
    println!();
    Ok(())
}

/// Wakes at every intended time of a uniform schedule with clock_nanosleep on an own thread, and does nothing else.
fn bare_sleep(rate: u64, length: Duration) -> LatencyHistogram {
    let mut lateness = LatencyHistogram::new();
    let began = boottime_ns();
    let interval = 1_000_000_000 / rate;
    for due in 1..=length.as_secs() * rate {
        let at = began + due * interval;
        if boottime_ns() < at {
            let until = libc::timespec { tv_sec: (at / 1_000_000_000) as i64, tv_nsec: (at % 1_000_000_000) as i64 };
            // SAFETY: the pointer is to a local, and no remaining time is asked for.
            unsafe {
                libc::clock_nanosleep(libc::CLOCK_BOOTTIME, libc::TIMER_ABSTIME, &raw const until, std::ptr::null_mut())
            };
        }
        lateness.record((boottime_ns().saturating_sub(at)) / 1000);
    }
    lateness
}

/// 100,000 operations a second, of which the broadcasts never come: every operation stays open for the whole timeout,
/// which is a hundred times harder than one in a hundred never answered.
fn memory() -> anyhow::Result<()> {
    println!("# memory at 100,000/s with a 5 s timeout, no broadcast ever comes");
    let server = NatsServer::start(NatsOptions { without_jetstream: true, ..NatsOptions::default() })?;
    let gatekeeper = NullGatekeeper::start(&server.url(), SITE, NullAnswers::Reply)?;
    let seconds: u64 = std::env::var("PLIMSOLL_BENCH_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(300);
    let sampler = std::thread::spawn(move || {
        let began = boottime_ns();
        let mut samples = Vec::new();
        while boottime_ns() - began < seconds * 1_000_000_000 {
            std::thread::sleep(Duration::from_secs(seconds.div_ceil(10)));
            samples.push(resident_mib());
        }
        samples
    });
    let driven = drive(server.url(), NullAnswers::Reply, &[load(100_000, seconds)?])?;
    let samples = sampler.join().map_err(|_| anyhow::anyhow!("the sampler died"))?;
    let c = driven[0].totals.counters;
    println!("resident MiB of agent, driver and null gatekeeper together: {samples:.0?} (wanted: at most 300, flat)");
    println!("attempted {} saturated {} underrun {}\n", c.attempted, c.saturated, c.underrun);
    gatekeeper.shutdown()?;
    Ok(())
}

fn resident_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<f64>().ok()).unwrap_or(0.0) / 1024.0
}
