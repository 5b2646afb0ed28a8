//! What an agent does not do, whoever asks: its own limits, and flags that would leave its door open.

use plimsoll_common::contract::daily::DailyPreset;
use plimsoll_common::plan::{AgentPlan, DailyWorkload, SeriesLimits, Workload};
use plimsoll_common::units::Rate;
use plimsoll_proto::v1::agent_message::Message as FromAgent;
use plimsoll_proto::v1::coordinator_message::Message as ToAgent;
use plimsoll_proto::v1::{self, RefusedKind};
use plimsoll_tests::harness::certificates::Certificates;
use plimsoll_tests::harness::driver::{Driver, Load};
use plimsoll_tests::harness::exclusive::Shared;
use plimsoll_tests::harness::messages;
use plimsoll_tests::harness::nats::{NatsOptions, NatsServer};
use plimsoll_tests::harness::processes::{Agent, AgentOptions, Process, Program};
use plimsoll_tests::harness::run::Run;
use plimsoll_tests::standin::{DailyConfig, Standin, StandinConfig};
use std::time::Duration;

fn agent(arguments: &[&str]) -> anyhow::Result<Agent> {
    let arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
    Agent::start(&AgentOptions { arguments, ..AgentOptions::default() })
}

fn plan(url: &str) -> AgentPlan {
    messages::plan(url, 78)
}

fn load(hold: Duration) -> Load {
    Load { rate: Rate::per_second(200).expect("a rate"), warmup: Duration::ZERO, hold, max_in_flight: 1000 }
}

#[tokio::test]
async fn a_run_beyond_an_agents_limits_ends_before_it_begins_with_agent_limit_and_flag() -> anyhow::Result<()> {
    let server = NatsServer::start(NatsOptions::default())?;
    let standin = Standin::start(StandinConfig::new(server.url())).await?;
    for (arguments, parts) in [
        (
            &["--allow-target=*.example.com,10.0.0.0/8"][..],
            ["--allow-target does not allow nats://127.0.0.1:", "it allows *.example.com, 10.0.0.0/8"],
        ),
        (&["--max-rate=100"], ["--steps: 200/s is 100/s more than the fleet carries", "at most 100/s"]),
        (
            &["--max-run=2s"],
            ["accepts runs of at most 2s (its --max-run), and this one may take 4s", "shorten the run"],
        ),
    ] {
        let agent = agent(arguments)?;
        let (url, address) = (server.url(), agent.address.to_string());
        let run = ["max-rps", "--preset=small", "--steps=50,200", "--warmup=0s", "--hold=2s", "--cooldown=0s"];
        let to = ["--results=none", "--nats-url", &url, "--agents", &address];
        let run: Vec<String> = run.iter().chain(&to).map(|&argument| argument.to_owned()).collect();
        let ended = tokio::task::spawn_blocking(move || Program::Cli.run(run)).await??;
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(2), ""), "{ended:?}");
        assert_eq!(ended.stderr.lines().count(), 1, "{ended:?}");
        for part in parts.iter().copied().chain([address.as_str()]) {
            assert!(ended.stderr.contains(part), "no {part:?} in {ended:?}");
        }
    }
    let seen = server.agents_seen()?;
    assert!(seen.open.is_empty() && seen.closed.is_empty(), "{seen:?}");
    standin.shutdown().await
}

#[tokio::test]
async fn people_beyond_an_agents_limits_are_refused_before_any_load_whichever_step_they_come_in() -> anyhow::Result<()>
{
    let server = NatsServer::start(NatsOptions::default())?;
    for (arguments, words) in [
        (
            &["--max-connections=50"][..],
            "200 users take 201 connections to the target there, and its --max-connections is 50",
        ),
        // Of a day of 100 s a user does 1.286 things a second at its peak.
        (&["--max-rate=100"], "--steps: 200 users are 123 more than the fleet carries ("),
    ] {
        let agent = agent(arguments)?;
        let run =
            Run::daily(&server.url(), "daily-light", 1_000).steps(&[20.0, 200.0]).agents(std::slice::from_ref(&agent));
        let run = run.flag("--day", "100s").hold(Duration::from_secs(1)).switch("--skip-preflight");
        let ended = tokio::task::spawn_blocking(move || run.finish()).await??;
        assert_eq!((ended.code(), ended.trials.len()), (Some(2), 0), "{ended}");
        let told = ended.ended.stderr.lines().find(|line| line.starts_with("error: ")).unwrap_or_default();
        assert!(told.contains(words) && told.contains(&agent.address.to_string()), "{ended}");
    }
    let seen = server.agents_seen()?;
    assert!(seen.open.is_empty() && seen.closed.is_empty(), "{seen:?}");
    Ok(())
}

#[tokio::test]
async fn an_agent_holds_to_its_limits_when_the_coordinator_does_not() -> anyhow::Result<()> {
    let _shared = Shared::acquire()?;
    let server = NatsServer::start(NatsOptions::default())?;
    let standin = Standin::start(StandinConfig::new(server.url())).await?;
    let port = server.url().rsplit(':').next().unwrap_or_default().to_owned();
    let agent = agent(&["--max-rate=200", "--max-run=6s", &format!("--allow-target=nats://127.0.0.1:{port}")])?;
    let mut driver = Driver::claim(agent.address, Duration::from_secs(3)).await?;
    assert_eq!(driver.hello.max_run_us, Some(6_000_000));
    for url in [
        format!("nats://127.0.0.1:{port}@10.0.0.1:4222"),
        format!("{},nats://127.0.0.1:1", server.url()),
        "nats://localhost:4222".into(),
    ] {
        driver.send(ToAgent::Prepare((&plan(&url)).into()));
        let FromAgent::Refused(refused) = driver.next().await? else { anyhow::bail!("{url} was not refused") };
        assert_eq!(refused.kind(), RefusedKind::Denied, "{refused:?}");
        assert!(refused.message.starts_with("its --allow-target does not allow nats://"), "{refused:?}");
    }
    driver.prepare(&plan(&server.url())).await?;
    let too_fast = Load { rate: Rate::per_second(201).expect("a rate"), ..load(Duration::from_secs(1)) };
    for (load, words) in [
        (too_fast, "a share of 201/s is above its --max-rate of 200/s"),
        (load(Duration::from_secs(6)), " s, and its --max-run is 6 s"),
    ] {
        let refused = driver.start(load).await.unwrap_err().to_string();
        assert!(refused.contains(words), "{refused}");
    }
    // A hold that fits, and a drain or a coordinator that dawdles: the session ends when its time is over.
    driver.hold(load(Duration::from_secs(1))).await?;
    let why = loop {
        if let Err(why) = driver.next().await {
            break why.to_string();
        }
    };
    assert_eq!(why, "the run has held this agent for its --max-run of 6 s");
    // Nothing is left of the run's time, and another one has all of it.
    let again = Driver::claim_once_free(agent.address).await?;
    assert_eq!(again.hello.max_run_us, Some(0));
    again.cut();
    let seen = server.wait_for_silence(Duration::from_secs(10))?;
    assert!(seen.messages > 0, "{seen:?}");
    Driver::claim_once_free(agent.address).await?.cut();
    standin.shutdown().await
}

#[tokio::test]
async fn an_agent_holds_people_to_its_limits_by_those_it_was_dealt_whatever_a_step_says() -> anyhow::Result<()> {
    let _shared = Shared::acquire()?;
    let server = NatsServer::start(NatsOptions::default())?;
    let mut config = StandinConfig::new(server.url());
    config.daily = Some(DailyConfig { preset: DailyPreset::Light, users: 1_000 });
    let standin = Standin::start(config).await?;
    let agent = agent(&["--max-rate=100", "--max-connections=250"])?;
    let mut driver = Driver::claim(agent.address, Duration::from_secs(3)).await?;
    let second = Duration::from_secs(1);
    // Of a day of 100 s a user does 1.286 things a second at its peak.
    driver.prepare_as_one_of(&daily_plan(&server.url()), vec![200_000]).await?;
    let load = |users| Load { rate: Rate::per_second(users).expect("a rate"), ..load(second) };
    for (users, words) in [
        (1, "a step of 1 users where 200 were dealt"),
        (77, "a step of 77 users where 200 were dealt"),
        (200, "/s is above its --max-rate of 100/s"),
    ] {
        let refused = driver.start(load(users)).await.unwrap_err().to_string();
        assert!(refused.contains(words), "{refused}");
    }
    // More connections than it may open are refused before any is.
    driver.send(ToAgent::Deal(v1::Deal { deal: 1, share_milli_per_s: vec![300_000] }));
    let FromAgent::Refused(refused) = driver.next().await? else { anyhow::bail!("not refused") };
    assert_eq!(refused.kind(), RefusedKind::Ceiling, "{refused:?}");
    assert!(
        refused.message.ends_with(" connections to the target here, and its --max-connections is 250"),
        "{refused:?}"
    );
    // Those whom it may drive it drives.
    driver.send(ToAgent::Deal(v1::Deal { deal: 2, share_milli_per_s: vec![70_000] }));
    let FromAgent::Dealt(dealt) = driver.next().await? else { anyhow::bail!("not dealt") };
    assert_eq!(dealt.senders, 70);
    let driven = driver.hold(load(70)).await?;
    assert!(driven.totals.counters.due > 0, "{:?}", driven.totals);
    driver.cut();
    let seen = server.wait_for_silence(Duration::from_secs(10))?;
    assert!(seen.messages > 0, "{seen:?}");
    standin.shutdown().await
}

fn daily_plan(url: &str) -> AgentPlan {
    let workload = Workload::Daily(DailyWorkload {
        preset: DailyPreset::Light,
        site_id: "site-local".into(),
        users: 1_000,
        max_direct_users: 1_000,
        multiplex_pool_size: 10,
        max_connections: 1_000,
        activation_rate: Rate::per_second(500).expect("a rate"),
        day: Some(Duration::from_secs(100)),
        at_peak: false,
        presence: false,
    });
    let limits = |series| SeriesLimits { series, limits_us: vec![400_000, 800_000] };
    AgentPlan { series: workload.series().into_iter().map(limits).collect(), workload, ..plan(url) }
}

#[test]
fn an_agent_with_flags_that_do_not_go_together_says_which_and_does_not_start() -> anyhow::Result<()> {
    let certificates = Certificates::make()?;
    let [cert, key, ca] = certificates.flags("box");
    let [other_cert, other_key, _] = certificates.flags("plimsoll-coordinator");
    for (arguments, words) in [
        (
            vec!["--listen=0.0.0.0:0"],
            "give --tls-cert, --tls-key and --tls-ca (`plimsoll certs` makes them), or --insecure",
        ),
        (vec![&cert, &ca], "--tls-key is missing"),
        (vec![&cert, &key], "--tls-ca is missing"),
        (vec![&ca], "--tls-cert is missing"),
        (vec![&cert, &key, &ca, "--insecure"], "--insecure and --tls-cert exclude each other"),
        (vec![&cert, &other_key, &ca], "--tls-cert and --tls-key do not go together"),
        (vec![&other_cert, &other_key, &ca], "the certificate is not for an agent"),
        (vec!["--allow-coordinator=ops"], "--allow-coordinator: only certificates have names"),
        (vec![&cert, &key, &ca, "--allow-coordinator="], "--allow-coordinator: got '', expected a name"),
        (vec!["--allow-target=http//x y"], "expected [SCHEME://]HOST[:PORT] such as nats://chat.example.com:4222"),
        (
            vec!["--workers=2", "--max-connections=1"],
            "--max-connections: got '1', and 2 workers need one connection each",
        ),
        (vec!["--max-connections=0"], "'--max-connections <COUNT>'"),
        (vec!["--max-run=5"], "expected a time with its unit, at least 1s, such as 30m"),
    ] {
        let mut command = Program::Agent.command()?;
        command.args(&arguments);
        if !arguments.iter().any(|argument| argument.starts_with("--listen")) {
            command.arg("--listen=127.0.0.1:0");
        }
        let ended = Process::spawn(command)?.wait(Duration::from_secs(20))?;
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(2), ""), "{arguments:?}: {ended:?}");
        assert!(ended.stderr.starts_with("error: ") && ended.stderr.contains(words), "{words}: {ended:?}");
    }
    Ok(())
}
