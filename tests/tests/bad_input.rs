//! Bad input: one error that says what, where and how to fix it, exit code 2 (3 where it may go the next time), nothing on
//! stdout, and nothing started.

use plimsoll_proto::v1::agent_server::{Agent as AgentService, AgentServer};
use plimsoll_proto::v1::{AgentMessage, Claim, CoordinatorMessage, Hello, agent_message::Message};
use plimsoll_proto::{PROTOCOL_VERSION, v1};
use plimsoll_tests::harness::driver::Driver;
use plimsoll_tests::harness::nats::{NatsOptions, NatsServer, NatsUser};
use plimsoll_tests::harness::processes::{Agent, AgentOptions, Ended, Program};
use plimsoll_tests::standin::{Stage, Standin, StandinConfig};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, Streaming};

/// What every run here would be, if it were one.
const SHORT: [&str; 8] = ["max-rps", "--preset", "small", "--warmup", "0s", "--hold", "1s", "--steps=50,200"];

/// Runs the CLI off the runtime, on which servers of the test may have to answer it.
async fn run(arguments: &[&str]) -> anyhow::Result<Ended> {
    let arguments: Vec<String> = SHORT.iter().chain(arguments).map(|&argument| argument.to_owned()).collect();
    tokio::task::spawn_blocking(move || Program::Cli.run(arguments)).await?
}

/// Exit 2, nothing on stdout, and one line on stderr that has all these parts.
#[track_caller]
fn check(ended: &Ended, parts: &[&str]) {
    check_code(ended, 2, parts);
}

fn check_code(ended: &Ended, code: i32, parts: &[&str]) {
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(code), ""), "{ended:?}");
    let mut lines = ended.stderr.lines();
    let error = lines.next().unwrap_or_default();
    assert!(error.starts_with("error: ") && lines.next().is_none(), "not one error: {ended:?}");
    for part in parts {
        assert!(error.contains(part), "no {part:?} in {error}");
    }
}

/// A target with all its streams and durables.
async fn target(options: NatsOptions) -> anyhow::Result<(NatsServer, Standin)> {
    let user = options.users.first().cloned();
    let server = NatsServer::start(options)?;
    let standin = Standin::start(StandinConfig::new(user.map_or(server.url(), |user| server.url_of(&user)))).await?;
    Ok((server, standin))
}

fn never_leased(agent: &Agent) -> bool {
    !agent.process.stderr().contains("leased")
}

#[test]
fn a_bad_setting_is_named_before_anything_is_contacted() -> anyhow::Result<()> {
    let server = NatsServer::start(NatsOptions::default())?;
    let agent = Agent::start(&AgentOptions::default())?;
    let dir = tempfile::tempdir()?;
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).map(|()| path.display().to_string())
    };
    let unknown_key = file("unknown.toml", "preset = \"small\"\n\nholt = \"30s\"\n")?;
    let wrong_type = file("type.toml", "# a plan\nhold = true\n")?;
    let wrong_value = file("value.toml", "hold = \"30\"\n")?;
    let broken = file("broken.toml", "preset = \"small\"\nhold = \n")?;
    let no_creds = file("no.creds", "a secret that is none\n")?;
    let csv = file("kept.csv", "an earlier run\n")?;
    let taken = std::net::TcpListener::bind("127.0.0.1:0")?;
    let taken = taken.local_addr()?.to_string();
    let many = (1..=1001).map(|step| step.to_string()).collect::<Vec<_>>().join(",");
    let twice = format!("--agents={0},{0}", agent.address);
    let line = |path: &str, line: usize| format!("{path}: line {line}: ");
    let (many, in_dir) = (format!("--steps={many}"), dir.path().display().to_string());
    let (unknown_at, type_at, broken_at) = (line(&unknown_key, 3), line(&wrong_type, 2), line(&broken, 2));
    let value_at = format!("--hold (from {wrong_value}, line 1, key hold): got '30', expected");
    let rate = "is no rate: give a positive number of requests per second, such as 500, 2.5 or 2k";
    let empty = "is empty: give rates such as 500,1k,2k";
    let ascending = "--steps: steps must be strictly ascending: ";
    let cases: Vec<(Vec<&str>, Vec<&str>)> = vec![
        (vec!["--steps="], vec!["--steps: step 1 of '' ", empty]),
        (vec!["--steps= "], vec!["--steps: step 1 of ' ' ", empty]),
        (vec!["--steps=500,,1k"], vec!["--steps: step 2 of '500,,1k' ", empty]),
        (vec!["--steps=500,"], vec!["--steps: step 2 of '500,' ", empty]),
        (vec!["--steps=,500"], vec!["--steps: step 1 of ',500' ", empty]),
        (vec!["--steps=1k,500"], vec![ascending, "500 follows 1000"]),
        (vec!["--steps=500,500"], vec![ascending, "500 follows 500"]),
        (vec!["--steps=1k,1000"], vec![ascending, "1000 follows 1000"]),
        (vec!["--steps=0"], vec!["--steps: step 1 of '0': '0' ", rate]),
        (vec!["--steps=0,500"], vec!["--steps: step 1 of '0,500': '0' ", rate]),
        (vec!["--steps=-5"], vec!["--steps: step 1 of '-5': '-5' ", rate]),
        (vec!["--steps=500,abc"], vec!["--steps: step 2 of '500,abc': 'abc' ", rate]),
        (vec!["--steps=500 1k"], vec!["'500 1k' ", rate]),
        (vec!["--steps=500;1k"], vec!["'500;1k' ", rate]),
        (vec!["--steps=k"], vec!["'k' ", rate]),
        (vec!["--steps=1m"], vec!["'1m' ", rate]),
        (vec!["--steps=1e3"], vec!["'1e3' ", rate]),
        (vec!["--steps=1k5"], vec!["'1k5' ", rate]),
        (vec!["--steps=500/s"], vec!["'500/s' ", rate]),
        (vec!["--steps=NaN"], vec!["'NaN' ", rate]),
        (vec!["--steps=inf"], vec!["'inf' ", rate]),
        (vec!["--steps=0.0001"], vec!["'0.0001' ", rate]),
        (vec!["--steps=99999999999999999999"], vec![rate]),
        (vec![many.as_str()], vec!["--steps: ", "1001 steps are too many: give at most 1000"]),
        (vec!["--preset=huge"], vec!["--preset: ", "unknown preset \"huge\"", "small, medium, large and realistic"]),
        (vec!["--workload=dayly"], vec!["--workload: got 'dayly', expected messages"]),
        (vec!["--hold=30"], vec!["--hold: got '30', expected a time with its unit"]),
        (vec!["--request-timeout=250ms"], vec!["--request-timeout: got '250ms'", "largest limit, which is 250ms"]),
        (vec!["--request-timeout=1s", "--slo=E2:p99=1s"], vec!["--request-timeout: ", "largest limit, which is 1s"]),
        (vec![twice.as_str()], vec!["--agents: ", "is named twice: name each agent once"]),
        (vec!["--agents=box-1"], vec!["--agents: got 'box-1', expected addresses such as box-1:7700"]),
        (vec!["--csv=/nonexistent/trials.csv"], vec!["--csv: got '/nonexistent/trials.csv'", "No such file"]),
        (vec!["--csv", &in_dir], vec!["--csv: got ", "can be written: Is a directory"]),
        (vec!["--metrics-listen", &taken], vec!["--metrics-listen: cannot listen on", "Address already in use"]),
        (vec!["--plan", &unknown_key], vec!["--plan: ", &unknown_at, "unknown key 'holt': expected workload, preset,"]),
        (vec!["--plan", &wrong_type], vec!["--plan: ", &type_at, "key 'hold' is true or false, expected a text"]),
        (vec!["--plan", &broken], vec!["--plan: ", &broken_at]),
        (vec!["--plan=/nonexistent/plan.toml"], vec!["--plan: /nonexistent/plan.toml: No such file"]),
        (vec!["--nats-url=http://127.0.0.1:4222"], vec!["--nats-url: got 'http://127.0.0.1:4222', expected addresses"]),
        (vec!["--nats-creds=/nonexistent/a.creds"], vec!["--nats-creds: got '/nonexistent/a.creds'", "No such file"]),
        (vec!["--nats-creds", &no_creds], vec!["--nats-creds: no credentials file of NATS"]),
    ];
    let before = server.connections_ever()?;
    let (url, address) = (server.url(), agent.address.to_string());
    for (bad, parts) in cases {
        let good = [("--nats-url", url.as_str()), ("--agents", &address), ("--csv", &csv)];
        let good = good.into_iter().filter(|(flag, _)| !bad.iter().any(|argument| argument.starts_with(flag)));
        let mut arguments: Vec<&str> = SHORT.into_iter().chain(good.flat_map(|(flag, value)| [flag, value])).collect();
        let flag = bad[0].split('=').next().unwrap_or_default();
        arguments.retain(|argument| !(argument.starts_with("--steps") && flag == "--steps"));
        if let Some(at) = arguments.iter().position(|&argument| argument == flag) {
            arguments.drain(at..=at + 1);
        }
        check(&Program::Cli.run(arguments.into_iter().chain(bad))?, &parts);
    }
    // Whatever the flags say is stronger than the file, which has to hold what it is to be blamed for.
    let ended = Program::Cli.run(["max-rps", "--preset=small", "--nats-url", &url, "--plan", &wrong_value])?;
    check(&ended, &[&value_at]);
    check(&Program::Cli.run(["max-rps", "--nats-url", &url])?, &["--preset is missing: expected small, medium"]);
    assert_eq!(server.connections_ever()?, before);
    assert!(never_leased(&agent), "{}", agent.process.stderr());
    assert_eq!(
        std::fs::read_to_string(&csv)?,
        "an earlier run\n",
        "a run that never starts leaves the last one's rows"
    );
    Ok(())
}

#[test]
fn a_command_line_that_is_none_is_refused_with_the_way_to_help() -> anyhow::Result<()> {
    for (arguments, part) in [
        (&["max-rps", "--preset=small", "--stepz=5"][..], "unexpected argument '--stepz' found"),
        (&["max-rps", "--preset=small", "5k"], "unexpected argument '5k' found"),
        (&["max-rsp"], "unrecognized subcommand 'max-rsp'"),
        (&["max-rps", "--preset"], "a value is required for '--preset <NAME>'"),
    ] {
        let ended = Program::Cli.run(arguments)?;
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(2), ""), "{ended:?}");
        assert!(ended.stderr.starts_with(&format!("error: {part}")), "{ended:?}");
        assert!(ended.stderr.contains("try '--help'"), "{ended:?}");
    }
    Ok(())
}

#[test]
fn an_agent_that_cannot_be_as_asked_does_not_start() -> anyhow::Result<()> {
    let taken = std::net::TcpListener::bind("127.0.0.1:0")?;
    let taken = taken.local_addr()?.to_string();
    for (arguments, part) in [
        (vec!["--listen=0.0.0.0:0"], "--listen 0.0.0.0:0 is not loopback: whoever reaches it could make this box send"),
        (vec!["--listen=[::]:0"], "or --insecure if the network is yours alone"),
        (vec!["--listen=127.0.0.1:0", "--workers=0"], "--workers: got '0', expected 1 to 255"),
        (vec!["--listen=127.0.0.1:0", "--workers=256"], "--workers: got '256', expected 1 to 255"),
    ] {
        check(&Program::Agent.run(arguments)?, &[part]);
    }
    // These may go the next time.
    for (arguments, part) in [
        (vec!["--listen", &taken], "Address already in use"),
        (vec!["--listen=127.0.0.1:0", "--metrics-listen", &taken], "--metrics-listen: cannot listen on 127.0.0.1:"),
    ] {
        check_code(&Program::Agent.run(arguments)?, 3, &[part]);
    }
    for (arguments, part) in [
        (["--listen=7700"], "invalid value '7700' for '--listen <ADDRESS>'"),
        (["--max-rate=0"], "'0' is no rate: give a positive number of requests per second"),
    ] {
        let ended = Program::Agent.run(arguments)?;
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(2), ""), "{ended:?}");
        assert!(ended.stderr.starts_with("error: ") && ended.stderr.contains(part), "{ended:?}");
    }
    Ok(())
}

#[tokio::test]
async fn agents_that_cannot_be_used_are_named_and_the_others_let_go() -> anyhow::Result<()> {
    let (server, standin) = target(NatsOptions::default()).await?;
    let good = Agent::start(&AgentOptions::default())?;
    let slow = Agent::start(&AgentOptions { arguments: vec!["--max-rate=100".into()], ..AgentOptions::default() })?;
    let (newer, older) = (other_release(Release::Newer).await?, other_release(Release::Older).await?);
    let nats = server.url().replace("nats://", "");
    let port = good.address.port();
    let (spoken, own) = (PROTOCOL_VERSION + 1, PROTOCOL_VERSION.to_string());
    for (agents, parts) in [
        (format!("{},127.0.0.1:1", good.address), vec!["agent 127.0.0.1:1 cannot be reached", "Connection refused"]),
        ("nowhere.invalid:7700".into(), vec!["agent nowhere.invalid:7700 cannot be reached", "check --agents"]),
        (format!("{},{nats}", good.address), vec!["agent ", nats.as_str(), " cannot be reached", "check --agents"]),
        (format!("127.0.0.1:{port},localhost:{port}"), vec!["--agents: 127.0.0.1:", " and localhost:", "same agent"]),
        (
            format!("{},{newer}", good.address),
            vec!["agent ", &newer.to_string(), &format!("speaks protocol {spoken} (build 9.9.9)"), &own, "one release"],
        ),
        (
            format!("{older}"),
            vec!["agent ", &older.to_string(), "refuses: this agent (0.0.1) speaks protocol 0", "one release"],
        ),
        (
            slow.address.to_string(),
            vec![
                "--steps: 200/s is 100/s more than the fleet carries",
                &format!("{} at most 100/s", slow.address),
                "add 1 more box",
            ],
        ),
    ] {
        let ended = run(&["--nats-url", &server.url(), "--agents", &agents]).await?;
        check(&ended, &parts);
    }
    let seen = server.agents_seen()?;
    assert!(seen.open.is_empty() && seen.closed.is_empty(), "no agent may have connected to the target: {seen:?}");
    Driver::claim_once_free(good.address).await?.cut();
    standin.shutdown().await
}

#[tokio::test]
async fn an_agent_of_another_coordinator_is_refused_with_its_holder_and_since_when() -> anyhow::Result<()> {
    let (server, standin) = target(NatsOptions::default()).await?;
    let agent = Agent::start(&AgentOptions::default())?;
    let mut holder = Driver::claim(agent.address, Duration::from_secs(30)).await?;
    let ended = run(&["--nats-url", &server.url(), "--agents", &agent.address.to_string()]).await?;
    let holds = format!("is leased to driver pid {} (127.0.0.1:", std::process::id());
    check(&ended, &[&format!("agent {} refuses: ", agent.address), &holds, " s: one coordinator at a time"]);
    // The holder has noticed nothing: a second claim in its own stream is answered as ever.
    holder.send(v1::coordinator_message::Message::Deal(v1::Deal { deal: 0, share_milli_per_s: vec![1] }));
    assert!(matches!(holder.next().await?, Message::Refused(_)), "dealt before it was prepared");
    holder.cut();
    standin.shutdown().await
}

#[tokio::test]
async fn a_coordinator_of_another_release_is_refused_with_both_versions() -> anyhow::Result<()> {
    let agent = Agent::start(&AgentOptions::default())?;
    let claim = Claim {
        protocol_version: PROTOCOL_VERSION + 1,
        build: "9.9.9".into(),
        coordinator: "test".into(),
        run_id: "test".into(),
        lease_timeout_ms: 3000,
    };
    let words = Driver::claim_as(agent.address, claim).await.map(drop).expect_err("another release").to_string();
    let versions = format!("speaks protocol {PROTOCOL_VERSION} and the coordinator (9.9.9) {}", PROTOCOL_VERSION + 1);
    assert!(words.contains(&versions) && words.ends_with("run one release on both"), "{words}");
    assert!(never_leased(&agent));
    Ok(())
}

#[tokio::test]
async fn a_target_that_cannot_be_used_is_named_with_what_to_do() -> anyhow::Result<()> {
    let (server, standin) = target(NatsOptions::default()).await?;
    let agent = Agent::start(&AgentOptions::default())?;
    let bare = NatsServer::start(NatsOptions { without_jetstream: true, ..NatsOptions::default() })?;
    let (url, bare, address) = (server.url(), bare.url(), agent.address.to_string());
    standin.vanish(Stage::MessageWorker).await?;
    for (arguments, parts) in [
        (&["--nats-url=nats://127.0.0.1:1"][..], &["NATS at nats://127.0.0.1:1 cannot be reached", "refused"][..]),
        (&["--nats-url=nats://nowhere.invalid"], &["NATS at nats://nowhere.invalid cannot be reached", "--nats-url"]),
        (&["--nats-url", &bare], &["preflight: JetStream is not enabled for this account"]),
        (
            &["--nats-url", &url, "--site-id=elsewhere", "--inject=canonical"],
            &["preflight: the target has no stream MESSAGES_CANONICAL_elsewhere: "],
        ),
        (
            &["--nats-url", &url],
            &["preflight: the stream MESSAGES_CANONICAL_site-local has no durable message-worker: start the service"],
        ),
        (
            &["--nats-url", &url, "--durable=broadcast-worker,nobody"],
            &["preflight: the stream MESSAGES_CANONICAL_site-local has no durable nobody: ", "--durable"],
        ),
        (
            &["--nats-url", &url, "--jsz-url=http://127.0.0.1:1"],
            &["preflight: http://127.0.0.1:1/jsz: ", "Connection refused", "check --jsz-url"],
        ),
    ] {
        let ended = run(&[arguments, &["--agents", &address]].concat()).await?;
        check(&ended, parts);
    }
    // Everything that is missing is told, but for what is missing with it.
    let missing = |what: &str| format!("error: preflight: the {what}: ");
    for (flag, lines) in [
        (
            "--site-id=elsewhere",
            [
                missing("target has no stream MESSAGES_elsewhere"),
                missing("target has no stream MESSAGES_CANONICAL_elsewhere"),
            ],
        ),
        (
            "--durable=nobody,broadcast-worker,noone",
            [
                missing("stream MESSAGES_CANONICAL_site-local has no durable nobody"),
                missing("stream MESSAGES_CANONICAL_site-local has no durable noone"),
            ],
        ),
    ] {
        let ended = run(&["--nats-url", &url, flag, "--agents", &address]).await?;
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(2), ""), "{ended:?}");
        let told: Vec<&str> = ended.stderr.lines().collect();
        let is_told = told.len() == lines.len() && told.iter().zip(&lines).all(|(told, line)| told.starts_with(line));
        assert!(is_told, "{ended:?}");
    }
    assert!(never_leased(&agent), "{}", agent.process.stderr());
    standin.shutdown().await
}

#[tokio::test]
async fn every_service_that_is_not_there_is_told_at_once() -> anyhow::Result<()> {
    let server = NatsServer::start(NatsOptions::default())?;
    let url = server.url();
    let verify = ["verify", "--workload=daily", "--preset=daily-light", "--users=100", "--nats-url"];
    let arguments: Vec<String> = verify.into_iter().chain([url.as_str()]).map(str::to_owned).collect();
    let ended = tokio::task::spawn_blocking(move || Program::Cli.run(arguments)).await??;
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(2), ""), "{ended:?}");
    let lines = |begin: &str| -> Vec<String> {
        let lines = ended.stderr.lines().filter_map(|line| line.strip_prefix(begin));
        lines.map(|rest| rest.split([':', ',']).next().unwrap_or_default().to_owned()).collect()
    };
    let services = lines("error: preflight: nobody answers ");
    assert_eq!(
        services,
        ["msg.history", "message.read", "member.add", "mute.toggle", "create", "subscription.list"],
        "{ended:?}"
    );
    let streams = lines("error: preflight: the target has no stream ");
    assert_eq!(streams, ["MESSAGES_site-local", "MESSAGES_CANONICAL_site-local", "ROOMS_site-local"], "{ended:?}");
    assert_eq!(ended.stderr.lines().count(), services.len() + streams.len(), "{ended:?}");
    Ok(())
}

#[tokio::test]
async fn credentials_that_are_refused_are_an_error_without_the_secret() -> anyhow::Result<()> {
    let user = NatsUser { name: "ann".into(), password: "pass-word".into(), ..NatsUser::default() };
    let (server, standin) = target(NatsOptions { users: vec![user.clone()], ..NatsOptions::default() }).await?;
    let agent = Agent::start(&AgentOptions::default())?;
    let wrong = server.url_of(&NatsUser { password: "no-such-secret".into(), ..user });
    let dir = tempfile::tempdir()?;
    let creds = dir.path().join("other.creds");
    std::fs::write(&creds, OTHER_CREDS)?;
    let creds = creds.display().to_string();
    let (url, address) = (server.url(), agent.address.to_string());
    for arguments in [&["--nats-url", &wrong][..], &["--nats-url", &url], &["--nats-url", &url, "--nats-creds", &creds]]
    {
        let ended = run(&[arguments, &["--agents", &address]].concat()).await?;
        check(&ended, &["NATS at nats://", " refuses the credentials: authorization violation", "check --nats-creds"]);
        for secret in ["no-such-secret", SEED] {
            assert!(!ended.stderr.contains(secret), "{ended:?}");
        }
    }
    assert!(never_leased(&agent), "{}", agent.process.stderr());
    standin.shutdown().await
}

#[tokio::test]
async fn a_denied_subject_is_an_error_in_the_servers_words() -> anyhow::Result<()> {
    let user = |name: &str| NatsUser { name: name.into(), password: "pw".into(), ..NatsUser::default() };
    let no_publish = |name: &str, deny: &str| NatsUser { publish_deny: vec![deny.into()], ..user(name) };
    let no_subscribe = |name: &str, deny: &str| NatsUser { subscribe_deny: vec![deny.into()], ..user(name) };
    let cases = [
        (
            no_publish("api", "$JS.API.>"),
            "Publish to \"$JS.API.STREAM.INFO.MESSAGES_site-local\"; where the credentials",
        ),
        (no_publish("one", "$JS.API.CONSUMER.INFO.*.broadcast-worker"), "_site-local.broadcast-worker\"; where"),
        (no_publish("send", "chat.user.*.room.>"), "Publish to \"chat.user."),
        (no_publish("self", "_INBOX.>"), "Publish to \"_INBOX."),
        (no_subscribe("inbox", "_INBOX.>"), "Subscription to \"_INBOX."),
        (no_subscribe("response", "chat.user.*.response.>"), "Subscription to \"chat.user.user-"),
        (no_subscribe("room", "chat.room.>"), "Subscription to \"chat.room.room-"),
    ];
    let canonical = no_publish("canonical", "chat.msg.>");
    let users =
        [user("all"), canonical.clone()].into_iter().chain(cases.iter().map(|(user, _)| user.clone())).collect();
    let (server, standin) = target(NatsOptions { users, ..NatsOptions::default() }).await?;
    for (user, part) in &cases {
        let ended = run(&["--nats-url", &server.url_of(user)]).await?;
        check(&ended, &["Permissions Violation for ", part]);
    }
    let ended = run(&["--nats-url", &server.url_of(&canonical), "--inject=canonical"]).await?;
    check(&ended, &["Permissions Violation for Publish to \"chat.msg.canonical.site-local.created\""]);
    // Past preflight it is the agent that meets the denial.
    let inbox = server.url_of(&cases[4].0);
    let ended = run(&["--nats-url", &inbox, "--skip-preflight"]).await?;
    check(&ended, &["agent local-1 cannot ", "NATS denies what this workload needs", "Subscription to \"_INBOX."]);
    // Preflight's questions after memberships are refused by the gatekeeper, and all that ever enters the target.
    let stored = messages_stored(&server.url_of(&user("all"))).await?;
    assert!(stored <= 32 * (cases.len() as u64 + 2), "load was sent: {stored} messages");
    standin.shutdown().await
}

#[tokio::test]
async fn a_denied_request_is_an_error_in_the_servers_words_whatever_is_requested() -> anyhow::Result<()> {
    let user = |name: &str| NatsUser { name: name.into(), password: "pw".into(), ..NatsUser::default() };
    let asks = NatsUser { publish_deny: vec!["chat.user.*.request.>".into()], ..user("asks") };
    let hears = NatsUser { subscribe_deny: vec!["_INBOX.>".into()], ..user("hears") };
    let users = vec![user("all"), asks.clone(), hears.clone()];
    let (server, standin) = target(NatsOptions { users, ..NatsOptions::default() }).await?;
    for (user, denied) in
        [(&asks, "Publish to \"chat.user.plimsoll-probe.request."), (&hears, "Subscription to \"_INBOX.")]
    {
        let url = server.url_of(user);
        for (arguments, operation) in REQUESTS {
            let arguments = [arguments, &["--warmup=0s", "--hold=1s", "--steps=50", "--nats-url", &url]];
            let arguments: Vec<String> = arguments.concat().into_iter().map(str::to_owned).collect();
            let ended = tokio::task::spawn_blocking(move || Program::Cli.run(arguments)).await??;
            assert_eq!((ended.code, ended.stdout.as_str()), (Some(2), ""), "{ended:?}");
            let told = ended
                .stderr
                .lines()
                .find(|line| line.contains(&format!("preflight: NATS denies {operation}, asked at ")));
            let told = told.unwrap_or_else(|| panic!("no word of {operation} in {ended:?}"));
            assert!(told.contains("the server says: ") && told.contains("Permissions Violation for "), "{told}");
            assert!(
                told.contains(denied) && told.ends_with("let the user do this, or pass --skip-preflight"),
                "{told}"
            );
        }
    }
    standin.shutdown().await
}

/// Runs that make requests, and one of the operations of each.
const REQUESTS: [(&[&str], &str); 7] = [
    (&["max-rps", "--workload=history", "--preset=history-small"], "msg.history"),
    (&["max-rps", "--workload=members", "--preset=members-small"], "member.add"),
    (&["daily", "--preset=daily-light", "--users=100"], "message.read"),
    (&["daily", "--preset=daily-light", "--users=100"], "mute.toggle"),
    (&["daily", "--preset=daily-light", "--users=100"], "subscription.list"),
    (&["max-rps", "--workload=room-read", "--preset=small"], "message.read"),
    (&["max-rps", "--workload=read-receipt", "--preset=history-small"], "message.read-receipt"),
];

/// What both streams of the site have taken so far.
async fn messages_stored(url: &str) -> anyhow::Result<u64> {
    let (user, password) = ("all".to_owned(), "pw".to_owned());
    let client = async_nats::ConnectOptions::with_user_and_password(user, password).connect(url).await?;
    let context = async_nats::jetstream::new(client);
    let mut stored = 0;
    for name in ["MESSAGES_site-local", "MESSAGES_CANONICAL_site-local"] {
        stored += context.get_stream(name).await?.get_info().await?.state.last_sequence;
    }
    Ok(stored)
}

/// Another release's agent, as far as a claim gets.
#[derive(Debug, Clone, Copy)]
enum Release {
    /// It answers, and leaves the check to the coordinator.
    Newer,
    /// It refuses.
    Older,
}

async fn other_release(release: Release) -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    // It ends with the test's runtime.
    tokio::spawn(
        tonic::transport::Server::builder()
            .add_service(AgentServer::new(release))
            .serve_with_incoming(TcpListenerStream::new(listener)),
    );
    Ok(address)
}

#[tonic::async_trait]
impl AgentService for Release {
    type SessionStream = ReceiverStream<Result<AgentMessage, Status>>;

    async fn describe(&self, _: Request<v1::DescribeRequest>) -> Result<Response<v1::Description>, Status> {
        Err(Status::unimplemented("it only claims"))
    }

    async fn session(
        &self,
        _: Request<Streaming<CoordinatorMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let hello = match self {
            Self::Newer => Hello { protocol_version: PROTOCOL_VERSION + 1, build: "9.9.9".into(), ..Hello::default() },
            Self::Older => {
                return Err(Status::failed_precondition(
                    "this agent (0.0.1) speaks protocol 0 and the coordinator 1: run one release on both",
                ));
            }
        };
        let (sender, stream) = tokio::sync::mpsc::channel(1);
        let hello = AgentMessage { message: Some(Message::Hello(hello)) };
        sender.send(Ok(hello)).await.map_err(|_| Status::internal("a new channel has room"))?;
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

/// A user's key that this test made up, with a token that no server has issued.
const SEED: &str = "SUAAOCAJBIFQYDIOB4IBCEQTCQKRMFYYDENBWHA5DYPSAIJCEMSCKJR2OM";
const OTHER_CREDS: &str = "-----BEGIN NATS USER JWT-----
eyJ0eXAiOiJKV1QiLCJhbGciOiJlZDI1NTE5LW5rZXkifQ.eyJqdGkiOiJYIiwic3ViIjoiVSJ9.c2ln
------END NATS USER JWT------

-----BEGIN USER NKEY SEED-----
SUAAOCAJBIFQYDIOB4IBCEQTCQKRMFYYDENBWHA5DYPSAIJCEMSCKJR2OM
------END USER NKEY SEED------
";
