use std::collections::HashMap;
use std::time::Duration;

use super::commands::LoadCommand;
use super::*;
use crate::core::roster::OnAgentLoss;

fn read_with(flags: &str, variables: &[(&str, &str)]) -> Result<Invocation, InvocationError> {
    let variables: HashMap<&str, &str> = variables.iter().copied().collect();
    let arguments = std::iter::once("plimsoll").chain(flags.split_whitespace()).map(Into::into);
    read(arguments, &|name| variables.get(name).map(|value| (*value).to_owned()))
}

fn plan(flags: &str) -> RunPlan {
    plan_with(flags, &[])
}

fn plan_with(flags: &str, variables: &[(&str, &str)]) -> RunPlan {
    match read_with(flags, variables).unwrap() {
        Invocation::Load(plan) | Invocation::DryRun(plan) => *plan,
        other => panic!("{other:?}"),
    }
}

fn error(flags: &str) -> String {
    error_with(flags, &[])
}

fn error_with(flags: &str, variables: &[(&str, &str)]) -> String {
    read_with(flags, variables).map(drop).unwrap_err().to_string()
}

fn plan_file(text: &str) -> tempfile::NamedTempFile {
    use std::io::Write as _;
    let mut file = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

#[test]
fn the_nearest_source_wins() {
    let file = plan_file("preset = \"small\"\nsite-id = \"from-file\"\n");
    let with_file = format!("max-rps --plan {}", file.path().display());
    let with_flag = format!("{with_file} --site-id from-flag");
    let (own, native) = (("PLIMSOLL_SITE_ID", "from-own"), ("SITE_ID", "from-native"));
    let no_file = "max-rps --preset small";
    let at_line_2 = format!("{}:2", file.path().display());
    for (flags, variables, site, source) in [
        (with_flag.as_str(), vec![own, native], "from-flag", "flag"),
        (&with_file, vec![own, native], "from-own", "PLIMSOLL_SITE_ID"),
        (&with_file, vec![native], "from-native", "SITE_ID"),
        (&with_file, vec![], "from-file", at_line_2.as_str()),
        (&with_file, vec![("SITE_ID", "")], "from-file", &at_line_2),
        (no_file, vec![], "site-local", "default"),
    ] {
        let plan = plan_with(flags, &variables);
        let applied = plan.applied.iter().find(|applied| applied.setting == "site-id").unwrap();
        assert_eq!((applied.value.as_str(), applied.source.as_str()), (site, source), "{flags} {variables:?}");
        assert!(plan.workload.settings().contains(&("site-id", site.to_owned())));
    }
}

#[test]
fn defaults_are_the_documented_ones() {
    let RunPlan { steps, phases, request_timeout, slo, seed, trials, target, lease_timeout, .. } =
        plan("max-rps --preset medium");
    let ms = std::time::Duration::from_millis;
    assert_eq!(steps.to_string(), "500,1000,2000,5000,10000");
    assert_eq!((phases.warmup, phases.hold, phases.cooldown), (ms(10_000), ms(30_000), ms(5_000)));
    assert_eq!((request_timeout, lease_timeout), (ms(5_000), ms(3_000)));
    assert!(slo.series.iter().all(|series| (series.p95, series.p99) == (Some(ms(100)), Some(ms(250)))));
    assert_eq!((slo.error_rate.to_string(), slo.rate_tolerance.to_string()), ("0.001".into(), "0.05".into()));
    assert_eq!((slo.pending_growth, seed, trials.get()), (1000, 42, 3));
    assert_eq!(slo.max_skew, ms(100));
    let durables: Vec<String> = target.durables.iter().map(ToString::to_string).collect();
    assert_eq!(
        durables,
        ["MESSAGES_CANONICAL_site-local/message-worker", "MESSAGES_CANONICAL_site-local/broadcast-worker"]
    );
}

#[test]
fn durables_replace_add_and_name_their_stream() {
    let watched = |flag: &str| {
        let plan = plan(&format!("max-rps --preset small {flag}"));
        plan.target.durables.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
    };
    let both = "MESSAGES_CANONICAL_site-local/message-worker MESSAGES_CANONICAL_site-local/broadcast-worker";
    assert_eq!(watched("--durable other"), "MESSAGES_CANONICAL_site-local/other");
    assert_eq!(watched("--durable +message-gatekeeper"), format!("{both} MESSAGES_site-local/message-gatekeeper"));
    assert_eq!(
        watched("--durable +ROOMS_x/room-worker --durable +a"),
        format!("{both} ROOMS_x/room-worker MESSAGES_CANONICAL_site-local/a")
    );
    assert_eq!(watched("--durable none"), "");
}

#[test]
fn a_limit_of_one_series_replaces_the_one_of_all() {
    let slo = plan("max-rps --preset small --slo E2:p99=400ms,E1:p95=50ms --slo-p99 none").slo;
    let gates: Vec<String> = slo
        .series
        .iter()
        .flat_map(|series| {
            series.gates().into_iter().map(|gate| format!("{} {} {:?}", series.series, gate.quantile, gate.limit))
        })
        .collect();
    assert_eq!(gates, ["E1 p95 50ms", "E2 p95 100ms", "E2 p99 400ms"]);
}

#[test]
fn the_stronger_of_agents_and_local_makes_the_fleet() {
    let variables = [("PLIMSOLL_AGENTS", "a:1,b:2")];
    let remote = FleetChoice::Remote(agents::sources("a:1,b:2").unwrap());
    assert_eq!(plan_with("max-rps --preset small", &variables).fleet, remote);
    assert_eq!(plan_with("max-rps --preset small --local 3", &variables).fleet, FleetChoice::Local(3));
}

#[test]
fn the_in_flight_cap_follows_from_share_and_timeout() {
    let cap = |flags: &str, share: &str| {
        plan(&format!("max-rps --preset small {flags}")).in_flight_cap(share.parse().unwrap())
    };
    assert_eq!(cap("", "1k"), 6000);
    assert_eq!(cap("", "0.5"), 64);
    assert_eq!(cap("--request-timeout 1s", "333.333"), 400);
    assert_eq!(cap("--max-in-flight 10", "1k"), 10);
}

#[test]
fn an_unknown_workload_is_told_the_known_ones_and_users_their_own_command() {
    let names = plimsoll_common::workload::names().into_iter().filter(|name| *name != "daily");
    let known = names.collect::<Vec<_>>().join(", ");
    assert_eq!(
        error("max-rps --preset small --workload weekly"),
        format!("--workload: got 'weekly', expected {known}")
    );
    assert_eq!(
        error("max-rps --preset daily-light --workload daily"),
        format!("--workload: got 'daily', expected {known}; its levels are users: `plimsoll daily`")
    );
}

#[test]
fn steps_of_users_are_whole_and_end_where_the_seeded_users_do() {
    let steps = |flags: &str| plan(&format!("daily --preset daily-light {flags}")).steps.to_string();
    assert_eq!(steps(""), "1000,2000,5000,10000");
    assert_eq!(steps("--users 100k"), "1000,2000,5000,10000,20000,50000,100000");
    assert_eq!(steps("--users 500"), "500");
    assert_eq!(steps("--users 500 --steps 100,200"), "100,200");
    let daily = |flags: &str| error(&format!("daily --preset daily-light {flags}"));
    assert!(daily("--steps 1k,20k").contains("got 20000 users, and the target was seeded for 10000"));
    assert!(daily("--steps 1.5").contains("got 1.5, expected whole users"));
    assert!(daily("--users 50").contains("expected a whole number from 100 to 1000000"));
    assert!(daily("--day 30s").contains("expected at least the --hold, which is 3m"));
    assert!(error("daily --preset small").contains("unknown preset"));
    assert!(daily("--max-connections 5.5").contains("expected a whole number"));
}

#[test]
fn the_defaults_of_users_are_a_days_and_requests_have_limits_of_their_own() {
    let plan = plan("daily --preset daily-heavy --slo mark_read:p95=80ms");
    let seconds = |length: std::time::Duration| length.as_secs();
    let phases = plan.phases;
    assert_eq!((seconds(phases.warmup), seconds(phases.hold), seconds(phases.cooldown)), (60, 180, 30));
    let ms = |series: &str| {
        let slo = plan.slo.series.iter().find(|slo| slo.series == series).unwrap();
        [slo.p95, slo.p99].map(|limit| limit.map(|limit| limit.as_millis()))
    };
    assert_eq!(ms("E2"), [Some(500), Some(1000)]);
    assert_eq!(ms("mark_read"), [Some(80), Some(250)]);
    assert_eq!(ms("member_add"), [Some(200), Some(500)]);
    assert_eq!(ms("member_add_done"), [None, None]);
    assert_eq!(plan.slo.may_grow, ["notification-worker"]);
    assert!(plan.target.durables.iter().any(|durable| durable.durable == "notification-worker"));
}

#[test]
fn a_search_of_users_begins_at_a_part_of_them_and_its_day_stands_still() {
    let found = |flags: &str| {
        let plan = plan(&format!("daily --preset daily-heavy --find {flags}"));
        let daily = plan.workload.daily().unwrap().clone();
        let shown = |name: &str| plan.applied.iter().find(|row| row.setting == name).map(|row| row.value.clone());
        let from = plan.find.unwrap().from.unwrap().to_string();
        (from, daily.day.map(|day| day.as_secs()), daily.at_peak, shown("day"), shown("at-peak"))
    };
    let shown = |text: &str| Some(text.to_owned());
    assert_eq!(found(""), ("156".into(), Some(180), true, shown("3m"), shown("true")));
    assert_eq!(found("--users 100 --day 20s"), ("10".into(), Some(20), true, shown("20s"), shown("true")));
    assert_eq!(found("--users 2k --from 500 --at-peak").0, "500");
    assert!(!plan("daily --preset daily-heavy").workload.daily().unwrap().at_peak);
    assert!(plan("daily --preset daily-heavy --at-peak --day 10s").workload.daily().unwrap().at_peak);
    for (flags, words) in [
        ("--find --from 10.5", "--from: got 10.5, expected whole users"),
        (
            "--find --users 1k --from 2k",
            "--from: got 2000 users, and the target was seeded for 1000: expected at most that",
        ),
        ("--find --at-peak=false", "--at-peak: a search compares holds of several lengths"),
        ("--find --steps 5", "--steps: --find chooses its own rates and lengths"),
        ("--precision 5%", "--precision: only a search uses it"),
        ("--day 10s", "--day: got '10s', expected at least the --hold"),
    ] {
        let error = error(&format!("daily --preset daily-heavy {flags}"));
        assert!(error.starts_with(words), "{error}");
    }
}

#[test]
fn the_help_of_a_command_names_the_presets_of_what_it_drives_and_no_others() {
    let preset = |command| {
        let help = help(command).split_whitespace().collect::<Vec<_>>().join(" ");
        let (_, rest) = help.split_once("--preset <").unwrap();
        rest.split_once("[env: PLIMSOLL_PRESET]").unwrap().0.to_owned()
    };
    let of_daily = preset(LoadCommand::Daily);
    assert!(
        of_daily.contains("daily-heavy") && !of_daily.contains("realistic") && !of_daily.contains("history"),
        "{of_daily}"
    );
    for command in [LoadCommand::MaxRps, LoadCommand::Run] {
        let others = preset(command);
        assert!(others.contains("history-large") && !others.contains("daily-"), "{others}");
    }
    assert!(preset(LoadCommand::Seed).contains("daily-heavy") && preset(LoadCommand::Seed).contains("members-small"));
}

#[test]
fn settings_and_defaults_depend_on_the_workload() {
    let reads = plan("max-rps --workload history --preset history-medium --mix history:1,thread:1");
    assert_eq!(reads.steps.to_string(), "200,500,1000,2000,5000");
    assert_eq!(reads.target.durables, []);
    let series: Vec<&str> = reads.slo.series.iter().map(|series| &*series.series).collect();
    assert_eq!(series, ["history", "thread"]);
    let shown = |name: &str| reads.applied.iter().any(|applied| applied.setting == name);
    assert!(shown("mix") && shown("page-limit") && !shown("inject") && !shown("parents-per-room"));
    for (flags, words) in [
        (
            "max-rps --preset small --mix history:1,thread:1",
            "--mix: the workload messages does not take it: only history",
        ),
        (
            "max-rps --workload history --preset small",
            "--preset: unknown preset \"small\": this workload knows history-",
        ),
        (
            "max-rps --workload history --preset history-small --mix history:0,thread:1",
            "--mix: got 'history:0,thread:1', expected",
        ),
        (
            "max-rps --workload history --preset history-small --page-limit 101",
            "--page-limit: got '101', expected a whole number",
        ),
        ("max-rps --workload thread", "--preset is missing"),
    ] {
        assert!(error(flags).starts_with(words), "{}", error(flags));
    }
    // A variable that other tools know too is no setting of this run; one of ours is meant.
    let other = error_with("max-rps --preset small", &[("PLIMSOLL_MIX", "history:1,thread:0")]);
    assert!(other.starts_with("--mix (from PLIMSOLL_MIX): the workload messages does not take it"), "{other}");
}

#[test]
fn a_plan_must_fit_the_pool_that_its_operations_use_up() {
    let members = plan("max-rps --workload members --preset members-medium");
    assert_eq!(members.steps.to_string(), "100,200,500,1000");
    assert_eq!(
        members.target.durables.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["ROOMS_site-local/room-worker"]
    );
    for (flags, words) in [
        (
            "max-rps --workload members --preset members-small",
            "--steps: the plan needs 72000 operations, and members-small has 50 candidates in each of 5 rooms, 1 per \
             operation: enough for 250; what would fit: --steps 6, or --preset members-medium",
        ),
        (
            "max-rps --workload members --preset members-medium --users-per-add 10 --steps 50,100,200",
            "--steps: the plan needs 14000 operations, and members-medium has 900 candidates in each of 100 rooms, 10 per \
             operation: enough for 9000; what would fit: --steps 50,100, or --hold 15s, or --preset members-heavy",
        ),
        (
            "run --workload members --preset members-medium --rate 500 --duration 10m --warmup 0s",
            "--rate: the plan needs 300000 operations, and members-medium has 900 candidates in each of 100 rooms, 1 per \
             operation: enough for 90000; what would fit: --rate 150, or --duration 3m, or --preset members-heavy",
        ),
        (
            "max-rps --workload members --preset members-small --find --from 1k",
            "--from: the plan needs 1500 operations, and members-small has 50 candidates in each of 5 rooms, 1 per \
             operation: enough for 250; what would fit: --from 166, or --preset members-capacity",
        ),
        (
            "max-rps --workload members --preset medium",
            "--preset: unknown preset \"medium\": this workload knows members-small, members-medium",
        ),
    ] {
        assert!(error(flags).starts_with(words), "{}", error(flags));
    }
}

#[test]
fn every_bad_value_is_one_error_naming_the_flag_what_it_got_and_what_it_takes() {
    for (flags, expected) in [
        ("--steps 500,,1k", "--steps: step 2 of '500,,1k' is empty: give rates such as 500,1k,2k"),
        ("--steps 1k,500", "--steps: steps must be strictly ascending: 500 follows 1000 in '1k,500'"),
        (
            "--steps 0",
            "--steps: step 1 of '0': '0' is no rate: give a positive number of requests per second, such as 500, 2.5 or 2k",
        ),
        (
            "--steps 500,1k,abc",
            "--steps: step 3 of '500,1k,abc': 'abc' is no rate: give a positive number of requests per second, such as 500, 2.5 or 2k",
        ),
        (
            "--preset huge",
            "--preset: unknown preset \"huge\": the messages workload knows small, medium, large and realistic",
        ),
        ("--inject backdoor", "--inject: 'backdoor' is no way to inject: give frontdoor or canonical"),
        ("--arrivals bursty", "--arrivals: got 'bursty', expected poisson or uniform"),
        ("--hold 30", "--hold: got '30', expected a time with its unit from 1s to 1day, such as 30s"),
        ("--hold 500ms", "--hold: got '500ms', expected a time with its unit from 1s to 1day, such as 30s"),
        ("--warmup=-5s", "--warmup: got '-5s', expected a time with its unit from 0s to 1day, such as 30s"),
        ("--max-skew 0s", "--max-skew: got '0s', expected a time with its unit from 1us to 7days, such as 30s"),
        (
            "--max-skew 2001ms --hold 2s",
            "--max-skew: got '2001ms', expected at most the hold, which is 2s: holds further apart do not overlap",
        ),
        (
            "--find --max-skew 1001ms",
            "--max-skew: got '1001ms', expected at most the shortest trial of --find, which is 1s: holds further apart do not overlap",
        ),
        ("--slo-p95 0s", "--slo-p95: got '0s', expected a time with its unit from 1us to 1m, such as 30s"),
        ("--slo E3:p99=1s", "--slo: no series 'E3' in this workload: it has E1, E2"),
        ("--slo E2:p50=1s", "--slo: 'p50' is no percentile that can be gated: give p95 or p99"),
        ("--slo E2=1s", "--slo: got 'E2=1s', expected SERIES:PERCENTILE=TIME, such as E2:p99=400ms"),
        (
            "--slo-error-rate 1.5",
            "--slo-error-rate: '1.5' is no fraction: give a number from 0 to 1 with at most nine decimals, such as 0.001",
        ),
        (
            "--rate-tolerance x",
            "--rate-tolerance: 'x' is no fraction: give a number from 0 to 1 with at most nine decimals, such as 0.001",
        ),
        (
            "--slo-pending-growth many",
            "--slo-pending-growth: got 'many', expected a whole number from 0 to 1099511627776",
        ),
        ("--trials 4", "--trials: got '4', expected a whole number from 1 to 3"),
        ("--max-in-flight 0", "--max-in-flight: got '0', expected a whole number from 1 to 4294967296"),
        (
            "--request-timeout 250ms",
            "--request-timeout: got '250ms', expected a time above the largest limit, which is 250ms: what is given up must be slower than every limit",
        ),
        (
            "--agents box-1",
            "--agents: got 'box-1', expected addresses such as box-1:7700,box-2:7700, dns:NAME:PORT for all addresses of a name, or file:PATH (or @PATH) for a file with one of these per line",
        ),
        (
            "--agents box-1:0",
            "--agents: got 'box-1:0', expected addresses such as box-1:7700,box-2:7700, dns:NAME:PORT for all addresses of a name, or file:PATH (or @PATH) for a file with one of these per line",
        ),
        ("--agents a:1,b:1,a:1", "--agents: a:1 is named twice: name each agent once"),
        ("--agents A:1,a:1", "--agents: a:1 is named twice: name each agent once"),
        ("--agents [::1]:1,[0::1]:1", "--agents: [0::1]:1 is named twice: name each agent once"),
        (
            "--agents a:1 --local 1",
            "--local: agents in this process and --agents exclude each other: give only one of the two",
        ),
        ("--local 0", "--local: got '0', expected a whole number from 1 to 64"),
        (
            "--lease-timeout 100ms",
            "--lease-timeout: got '100ms', expected a time with its unit from 500ms to 1m, such as 30s",
        ),
        (
            "--site-id a.b",
            "--site-id: got 'a.b', expected one token of a subject: 1 to 128 characters without '.', '*', '>' or space",
        ),
        (
            "--durable a/b/c.d",
            "--durable: got 'a/b/c.d', expected names of durables, +NAME to add one, STREAM/NAME for another stream, or none",
        ),
        (
            "--jsz-url 127.0.0.1:8222",
            "--jsz-url: got '127.0.0.1:8222', expected a URL such as http://127.0.0.1:8222/jsz",
        ),
        (
            "--metrics-listen 9400",
            "--metrics-listen: got '9400', expected an address and a port, such as 127.0.0.1:9400",
        ),
        ("--seed=-1", "--seed: got '-1', expected a whole number from 0 to 18446744073709551615"),
        ("--dry-run=perhaps", "--dry-run: got 'perhaps', expected true or false"),
    ] {
        let flags = if flags.contains("--preset") { flags.to_owned() } else { format!("--preset small {flags}") };
        assert_eq!(error(&format!("max-rps {flags}")), expected);
    }
}

#[test]
fn errors_say_where_a_value_that_is_no_flag_came_from() {
    assert_eq!(
        error_with("max-rps", &[("PLIMSOLL_PRESET", "small"), ("SITE_ID", "a b")]),
        "--site-id (from SITE_ID): got 'a b', expected one token of a subject: 1 to 128 characters without '.', '*', '>' or space"
    );
    let file = plan_file("preset = \"small\"\n\nhold = 30\n");
    let path = file.path().display();
    assert_eq!(
        error(&format!("max-rps --plan {path}")),
        format!(
            "--hold (from {path}, line 3, key hold): got '30', expected a time with its unit from 1s to 1day, such as 30s"
        )
    );
    assert_eq!(
        error("max-rps"),
        "--preset is missing: expected small, medium, large or realistic (or set PLIMSOLL_PRESET, or `preset` in a plan file)"
    );
}

#[test]
fn passwords_are_never_shown() {
    let words = error("max-rps --preset small --nats-url nats://anna:secret@[bad");
    assert!(words.starts_with("--nats-url: got 'nats://***@[bad'"), "{words}");
    for forgotten in ["nats://anna:secret", "anna:secret", "nats://127.0.0.1:4222,nats://anna:secret"] {
        let words = error(&format!("max-rps --preset small --nats-url {forgotten}"));
        assert!(words.starts_with("--nats-url: expected addresses such as ") && !words.contains("secret"), "{words}");
    }
    let words = error("max-rps --preset small --nats-url nats://host:99999");
    assert!(words.starts_with("--nats-url: got 'nats://host:99999'"), "{words}");
    let plan = plan("max-rps --preset small --nats-url nats://anna:secret@host:4222");
    assert!(plan.applied.iter().all(|applied| !applied.value.contains("secret")));
    let printed = format!("{plan:?}");
    assert!(printed.contains("nats://***@host:4222") && !printed.contains("secret"), "{printed}");
    let given = layers::Given { value: "http://anna:secret@host:8222/jsz".to_owned(), source: layers::Source::Flag };
    assert!(
        !format!("{given:?} {:?}", crate::shell::monitor::Monitor::Jsz(given.value.as_str().into())).contains("secret")
    );
    assert!(!dry_run::describe(&plan).unwrap().contains("secret"));
}

#[test]
fn a_dry_run_shows_the_plan_its_sources_and_every_agents_part() {
    let flags =
        "max-rps --preset medium --steps 500,1k --agents a:1,b:2,c:3 --hold 20s --nats-creds /no/such.creds --dry-run";
    let plan = match read_with(flags, &[("NATS_URL", "nats://u:p@chat:4222")]).unwrap() {
        Invocation::DryRun(plan) => plan,
        other => panic!("asked for a dry run: {other:?}"),
    };
    insta::assert_snapshot!(dry_run::describe(&plan).unwrap());
}

#[test]
fn what_others_put_into_the_streams_of_people_is_told_from_ours() {
    use plimsoll_agent::core::people::{Crowd, Day};
    use plimsoll_common::contract::daily::behaviour::Action;
    use plimsoll_common::histogram::LatencyHistogram;
    use plimsoll_common::plan::TrialId;
    use plimsoll_common::snapshot::SeriesCounts;

    use crate::core::backlog::{StreamGrowth, StreamLoad};
    use crate::core::measurement::SeriesMeasurement;

    let plan = plan("daily --preset daily-light --users 1k --steps 1k --site-id s");
    let (warmup, hold) = (plan.phases.warmup, plan.phases.hold);
    let day = Day::of(plan.workload.daily().unwrap(), warmup, hold);
    for trial in 0..12 {
        // How often each thing was done, in the warmup and in the hold.
        let (mut before, mut held) = ([0_u64; 8], [0_u64; 8]);
        for (_, act) in Crowd::new(42, TrialId { step: 0, trial }, 0..1_000, day) {
            let of = if u128::from(act.at_ns) < warmup.as_nanos() { &mut before } else { &mut held };
            of[act.action as usize] += 1;
        }
        let series = |(name, action): &(&str, Action)| SeriesMeasurement {
            series: (*name).to_owned(),
            limits_us: Vec::new(),
            counts: SeriesCounts { n: held[*action as usize], ..SeriesCounts::zero(0) },
            latency: LatencyHistogram::new(),
            service_time: LatencyHistogram::new(),
        };
        let owed = [
            ("E1", Action::Send),
            ("E2", Action::Send),
            ("thread_reply", Action::ThreadReply),
            ("member_add", Action::MemberAdd),
            ("member_add_done", Action::MemberAdd),
            ("room_create", Action::RoomCreate),
            ("mute_toggle", Action::MuteToggle),
        ];
        let mut step = crate::core::fixture::measurement();
        step.series = owed.iter().map(series).collect();
        (step.warmup.attempted, step.counters.attempted) = (before.iter().sum(), held.iter().sum());
        let sent = step.warmup.attempted + step.counters.attempted;
        let done = |action: Action| before[action as usize] + held[action as usize];
        let messages = done(Action::Send) + done(Action::ThreadReply);
        let said = done(Action::MemberAdd) + 2 * done(Action::RoomCreate);
        let jobs = done(Action::MemberAdd) + done(Action::RoomCreate) + done(Action::MuteToggle);
        for (stream, ours) in [("MESSAGES_s", messages), ("MESSAGES_CANONICAL_s", messages + said), ("ROOMS_s", jobs)] {
            let most = plan.slo.most_messages_of(stream, &step).unwrap();
            let took =
                |messages| StreamLoad::new(&StreamGrowth { stream: stream.into(), messages }, sent).is_foreign(most);
            assert!(!took(ours), "{stream}: {ours} of ours, at most {most}");
            // Jobs are few, so that the warmup's are known less well.
            let others = if stream == "ROOMS_s" { ours / 5 } else { ours / 50 };
            assert!(took(ours + others), "{stream}: {ours} of ours and {others} of others, at most {most}");
        }
    }
    // Where every operation enters every stream, those are counted.
    let (rates, step) = (self::plan("max-rps --preset small"), crate::core::fixture::measurement());
    assert_eq!(rates.slo.most_messages_of("MESSAGES_site-local", &step), None);
}

#[test]
fn a_dry_run_refuses_what_the_run_would() {
    let dry_run_of =
        |flags: &str| match read_with(&format!("daily --preset daily-light --dry-run {flags}"), &[]).unwrap() {
            Invocation::DryRun(plan) => dry_run::describe(&plan),
            other => panic!("asked for a dry run: {other:?}"),
        };
    assert_eq!(
        dry_run_of("--max-connections 500").unwrap_err(),
        "--max-connections: got '500', and 1000 users take 1001 connections on one agent: raise it, lower \
         --max-direct-users so that more users share connections, or add agents"
    );
    let shared = "--max-connections 500 --max-direct-users 300 --multiplex-pool-size 100";
    assert!(dry_run_of(shared).unwrap().contains("10000 users on 400 connections"));
    assert!(dry_run_of("--max-connections 100 --find").unwrap_err().starts_with("--max-connections: got '100'"));
}

fn help(command: LoadCommand) -> String {
    let mut all = command_line::command();
    all.find_subcommand_mut(command.name()).unwrap().render_help().to_string()
}

#[test]
fn the_help_shows_every_flag_of_the_command_with_its_variable_and_default() {
    for command in LoadCommand::ALL {
        let help = help(command).split_whitespace().collect::<Vec<_>>().join(" ");
        for setting in table::SETTINGS.iter() {
            let flag = help.contains(&format!("--{} ", setting.name)) || help.contains(&format!("--{}[", setting.name));
            assert_eq!(flag, command.takes(setting), "{} {}", command.name(), setting.name);
            let variable = [format!("[env: {}]", setting.variable), format!("[env: {},", setting.variable)];
            assert_eq!(variable.iter().any(|variable| help.contains(variable)), command.takes(setting), "{variable:?}");
        }
        let is_load = matches!(command, LoadCommand::MaxRps | LoadCommand::Run);
        assert!(!is_load || help.contains("[default: 100ms]"), "{help}");
        assert!(help.contains("Examples:"));
    }
}

#[test]
fn the_examples_of_the_help_are_read_without_an_error() {
    let file = plan_file("preset = \"small\"\n");
    let databases = plan_file("mongo-uri = \"mongodb://chat-db:27017\"\ncassandra-hosts = \"chat-db:9042\"\n");
    for command in LoadCommand::ALL {
        let examples: Vec<String> = help(command)
            .lines()
            .filter_map(|line| line.trim().strip_prefix("plimsoll "))
            .map(|line| line.replace("nightly.toml", &file.path().display().to_string()))
            .map(|line| line.replace("databases.toml", &databases.path().display().to_string()))
            .collect();
        assert_eq!(examples.len(), command.examples().len());
        for example in &examples {
            read_with(example, &[]).unwrap_or_else(|error| panic!("{example}: {error}"));
        }
    }
}

#[test]
fn a_soak_is_one_step_that_is_held_once() {
    let RunPlan { goal, steps, phases, trials, .. } = plan("run --preset small --rate 1.5k --duration 3days");
    assert_eq!((goal, steps.to_string(), trials.get()), (Goal::Soak, "1500".into(), 1));
    assert_eq!((phases.hold.as_secs(), phases.cooldown), (3 * 24 * 3600, std::time::Duration::ZERO));
    assert_eq!(plan("max-rps --preset small").goal, Goal::MaxRps);
    for (flags, expected) in [
        (
            "--duration 1m",
            "--rate is missing: expected a rate such as 500 or 2k (or set PLIMSOLL_RATE, or `rate` in a plan file)",
        ),
        (
            "--rate 1",
            "--duration is missing: expected a time with its unit, such as 30s (or set PLIMSOLL_DURATION, or `duration` in a plan file)",
        ),
        (
            "--rate 1 --duration 8days",
            "--duration: got '8days', expected a time with its unit from 1s to 7days, such as 30s",
        ),
    ] {
        assert_eq!(error(&format!("run --preset small {flags}")), expected);
    }
    assert!(error("run --preset small --rate 1 --duration 1m --steps 1").contains("unexpected argument '--steps'"));
}

#[test]
fn a_run_is_saved_unless_told_otherwise_and_its_settings_hold_no_secret() {
    let default = plan("max-rps --preset small --local 2 --nats-url nats://anna:secret@host:4222");
    assert_eq!(default.results, Some("results".into()));
    assert_eq!(plan("max-rps --preset small --results none").results, None);
    assert_eq!(plan("max-rps --preset small --results /var/runs").results, Some("/var/runs".into()));
    assert_eq!(default.settings["nats-url"], "nats://***@host:4222");
    assert_eq!((default.settings["local"].as_str(), default.settings.get("agents")), ("2", None));
    let remote = plan("max-rps --preset small --agents a:1,b:2");
    assert_eq!((remote.settings["agents"].as_str(), remote.settings.get("local")), ("a:1,b:2", None));
}

#[test]
fn a_run_waits_for_as_many_agents_as_it_can_have() {
    let gather = |flags: &str| plan(&format!("max-rps --preset small {flags}")).gather;
    assert_eq!(gather("--agents a:1,b:1"), None);
    let eight = GatherPlan { agents: 8, timeout: std::time::Duration::from_secs(120) };
    assert_eq!(gather("--agents dns:lab:7700 --wait-agents 8"), Some(eight));
    let two = GatherPlan { agents: 2, timeout: std::time::Duration::from_secs(5) };
    assert_eq!(gather("--agents a:1,b:1,c:1 --wait-agents 2 --wait-timeout 5s"), Some(two));
    for (flags, words) in [
        (
            "--agents a:1,b:1 --wait-agents 3",
            "--wait-agents: got '3', expected at most the number of agents that --agents names, which is 2",
        ),
        ("--agents a:1 --wait-timeout 5s", "--wait-timeout: it says for how long to wait: add --wait-agents"),
        ("--local 2 --wait-agents 2", "--wait-agents: agents in this process are there at once: add --agents"),
    ] {
        assert_eq!(error(&format!("max-rps --preset small {flags}")), words);
    }
}

#[test]
fn what_a_lost_agent_does_is_asked_for_by_flags_and_a_soak_always_ends() {
    let default = plan("max-rps --preset small");
    assert_eq!((default.on_agent_loss, default.min_agents), (OnAgentLoss::Retry, 1));
    let strict = plan("max-rps --preset small --on-agent-loss abort --min-agents 3");
    assert_eq!((strict.on_agent_loss, strict.min_agents), (OnAgentLoss::Abort, 3));
    assert_eq!(plan("run --preset small --rate 5 --duration 1h").on_agent_loss, OnAgentLoss::Abort);
    assert_eq!(
        error("max-rps --preset small --on-agent-loss ignore"),
        "--on-agent-loss: got 'ignore', expected retry or abort"
    );
    let none = error("max-rps --preset small --min-agents 0");
    assert!(none.starts_with("--min-agents: got '0', expected a whole number from 1"), "{none}");
}

#[test]
fn ceilings_are_those_of_the_run_s_workload_and_of_agents_at_addresses() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ceilings.toml");
    let shown = path.display();
    std::fs::write(&path, "workload = \"messages\"\n[ceilings]\n\"a:1\" = \"5k\"\n").unwrap();
    let of = |flags: &str| format!("max-rps --preset small --ceilings {shown} {flags}");
    let ceilings = plan(&of("--agents a:1")).ceilings.unwrap();
    assert_eq!(ceilings.agents["a:1"], "5k".parse().unwrap());
    assert_eq!(plan("max-rps --preset small --agents a:1").ceilings, None);
    assert_eq!(
        error(&format!("max-rps --workload history --preset history-small --agents a:1 --ceilings {shown}")),
        format!(
            "--ceilings: got '{shown}', expected the path of a file that `plimsoll calibrate` wrote: its ceilings are for messages, \
             and this run is of history"
        )
    );
    assert_eq!(
        error(&of("--local 2")),
        "--ceilings: agents in this process have no ceilings of their own: add --agents"
    );
    let missing = error("max-rps --preset small --agents a:1 --ceilings /nowhere.toml");
    assert!(missing.starts_with("--ceilings: got '/nowhere.toml', expected the path of a file"), "{missing}");
}

#[test]
fn a_calibration_is_asked_for_by_agents_and_a_file() {
    let calibrate = |flags: &str| match read_with(flags, &[]).unwrap() {
        Invocation::Calibrate(command) => command,
        other => panic!("{other:?}"),
    };
    let default = calibrate("calibrate --agents a:1,b:2");
    assert_eq!((default.reach.sources.len(), default.reply_bytes, &*default.workload), (2, 64, "messages"));
    assert_eq!(default.save, std::path::PathBuf::from("ceilings.toml"));
    let history = calibrate("calibrate --agents a:1 --workload history --reply-bytes 9000 --save h.toml");
    assert_eq!((history.request_bytes, history.reply_bytes), (64, 9000));
    assert!(error("calibrate --agents a:1 --workload chat").starts_with("--workload: got 'chat', expected "));
    assert!(error("calibrate").starts_with("--agents: it is missing: expected addresses"));
}

#[test]
fn a_saved_run_is_asked_for_by_its_directory() {
    let report = |flags: &str| match read_with(flags, &[]).unwrap() {
        Invocation::Saved(saved::SavedCommand::Report(report)) => report,
        other => panic!("{other:?}"),
    };
    let json = report("report results/r --format json");
    assert_eq!((json.dir.to_str(), json.format), (Some("results/r"), saved::Format::Json));
    assert_eq!(report("report r").format, saved::Format::Text);
    assert!(error("report").contains("<DIR>"));
    assert!(error("report r --format pdf").contains("text, csv, json, markdown"));
}

fn again(flags: &str, resume: &str, variables: &[(&str, &str)]) -> Result<RunPlan, String> {
    let ask = match read_with(&format!("resume r {resume}"), &[]).unwrap() {
        Invocation::Saved(saved::SavedCommand::Resume(ask)) => ask,
        other => panic!("{other:?}"),
    };
    let variables: HashMap<&str, &str> = variables.iter().copied().collect();
    let environment = |name: &str| variables.get(name).map(|value| (*value).to_owned());
    saved::plan_again(LoadCommand::MaxRps, &plan(flags).settings, &ask, &environment).map_err(|error| error.to_string())
}

#[test]
fn a_resumed_run_has_the_plan_of_the_saved_one() {
    let flags = "max-rps --preset small --steps 500,1.5k --hold 7s --slo E2:p99=400ms --no-stop-on-trip --local 3";
    let (was, is) =
        (plan(flags), again(flags, "", &[("PLIMSOLL_HOLD", "99s"), ("NATS_URL", "nats://other:1")]).unwrap());
    assert_eq!(RunPlan { applied: was.applied.clone(), ..is }, was);
}

#[test]
fn a_run_saved_before_a_setting_was_there_is_resumed_with_its_default() {
    let was = plan("max-rps --preset small --max-skew 7ms");
    assert_eq!(was.slo.max_skew, Duration::from_millis(7));
    let mut settings = was.settings.clone();
    assert_eq!(settings.remove("max-skew").as_deref(), Some("7ms"));
    let ask = match read_with("resume r", &[]).unwrap() {
        Invocation::Saved(saved::SavedCommand::Resume(ask)) => ask,
        other => panic!("{other:?}"),
    };
    let is = saved::plan_again(LoadCommand::MaxRps, &settings, &ask, &|_| None).unwrap();
    assert_eq!(is.slo.max_skew, Duration::from_millis(100));
}

#[test]
fn starts_may_be_no_further_apart_than_a_hold_is_long_whatever_is_held() {
    let skew = |command: &str| plan(command).slo.max_skew;
    assert_eq!(skew("run --preset small --rate 10 --duration 2s --max-skew 2s"), Duration::from_secs(2));
    assert_eq!(skew("daily --preset daily-light --users 100 --steps 100 --max-skew 5ms"), Duration::from_millis(5));
    assert_eq!(skew("max-rps --preset small --find --max-skew 1s"), Duration::from_secs(1));
    assert_eq!(
        error("run --preset small --rate 10 --duration 2s --max-skew 3s"),
        "--max-skew: got '3s', expected at most the hold, which is 2s: holds further apart do not overlap"
    );
    let file = plan_file("preset = \"small\"\nmax-skew = \"20ms\"\n");
    let of_file = plan_with(&format!("max-rps --plan {}", file.path().display()), &[]);
    let of_variable = plan_with("max-rps --preset small", &[("PLIMSOLL_MAX_SKEW", "30ms")]);
    assert_eq!(
        (of_file.slo.max_skew, of_variable.slo.max_skew),
        (Duration::from_millis(20), Duration::from_millis(30))
    );
}

#[test]
fn a_resumed_run_asks_for_secrets_again_and_stays_with_its_target() {
    let flags = "max-rps --preset small --nats-url nats://anna:secret@host:4222";
    let missing = again(flags, "", &[]).unwrap_err();
    assert!(missing.contains("--nats-url: the run's nats://***@host:4222 is not saved with its secret"), "{missing}");
    for (resume, variables) in [
        ("--nats-url nats://anna:new@host:4222", vec![]),
        ("", vec![("PLIMSOLL_NATS_URL", "nats://anna:new@host:4222")]),
        ("", vec![("NATS_URL", "nats://anna:new@host:4222")]),
    ] {
        assert_eq!(again(flags, resume, &variables).unwrap().target.nats_url, "nats://anna:new@host:4222");
    }
    let other = again(flags, "--nats-url nats://anna:secret@elsewhere:4222", &[]).unwrap_err();
    assert!(!other.contains("secret"), "{other}");
    assert!(other.contains("the run to resume is one of nats://***@host:4222"), "{other}");
    let moved = again("max-rps --preset small --local 2", "--agents a:1,b:2", &[]).unwrap();
    assert_eq!(moved.fleet, FleetChoice::Remote(agents::sources("a:1,b:2").unwrap()));
}

#[test]
fn a_described_workload_is_what_its_file_said_when_the_run_began() {
    let operation = |more: &str| {
        format!("name = \"x\"\n[[operation]]\nname = \"get\"\nkind = \"request\"\nsubject = \"a.b\"\n{more}")
    };
    let file = plan_file(&operation("timeout = \"2s\""));
    let flags = format!("max-rps --workload custom --scenario {} --slo get:p99=90ms", file.path().display());
    let was = plan(&flags);
    assert_eq!((was.workload.series(), was.workload.preset()), (vec!["get".to_owned()], "x".to_owned()));
    let settings = was.settings.clone();
    std::fs::write(file.path(), operation("weight = 0")).unwrap();
    let ask = saved::Resume {
        mongo_uri: None,
        dir: "r".into(),
        nats_url: None,
        nats_creds: None,
        jsz_url: None,
        agents: None,
        ignore_config: false,
    };
    let is = saved::plan_again(LoadCommand::MaxRps, &settings, &ask, &|_| None).unwrap();
    assert_eq!(is.workload, was.workload);
    let path = file.path().display();
    assert!(error(&flags).starts_with(&format!("--scenario: {path}: line 6: weight: got '0'")), "{}", error(&flags));
    for (timeout, request_timeout) in [("100ms", "5s"), ("9s", "5s")] {
        std::fs::write(file.path(), operation(&format!("timeout = \"{timeout}\""))).unwrap();
        let words = error(&format!("{flags} --request-timeout {request_timeout}"));
        let expected =
            format!("--request-timeout: the operation 'get' has a timeout of {timeout}: expected at least that here");
        assert!(words.starts_with(&expected), "{words}");
    }
    assert!(error("max-rps --workload custom").starts_with("--scenario is missing: expected the path of a TOML file"));
    assert!(error(&format!("{flags} --preset small")).contains("the workload custom does not take it: only messages"));
}

#[test]
fn one_thing_proves_who_we_are_and_a_secret_given_in_place_of_its_file_is_not_repeated() {
    let run = "max-rps --preset small";
    let login = |flags: &str, variables: &[(&str, &str)]| plan_with(&format!("{run} {flags}"), variables).target.login;
    assert_eq!(login("", &[]), None);
    assert_eq!(login("--nats-token env:T", &[("PLIMSOLL_NATS_CREDS", "a.creds")]), Some(Login::Token("env:T".into())));
    assert_eq!(
        login("--nats-creds a.creds", &[("NATS_NKEY", "env:N")]),
        Some(Login::CredentialsFile("a.creds".into()))
    );
    assert_eq!(login("", &[("NATS_NKEY", "env:N")]), Some(Login::NkeySeed("env:N".into())));
    let both = error(&format!("{run} --nats-creds a.creds --nats-token env:T"));
    assert_eq!(both, "--nats-token: it and --nats-creds exclude each other: give only one of the two");
    for flag in ["nats-token", "nats-nkey"] {
        let itself = error(&format!("{run} --{flag} SECRET"));
        assert!(itself.starts_with(&format!("--{flag}: expected the path of a file, or env:NAME")), "{itself}");
        assert!(!itself.contains("SECRET"), "{itself}");
    }
    let half = error(&format!("{run} --nats-tls-cert c.pem"));
    assert_eq!(half, "--nats-tls-cert: a certificate is shown with its key: add --nats-tls-key");
}

#[test]
fn agents_at_addresses_are_reached_over_tls_and_those_of_this_process_are_not() {
    let files = "--tls-cert c.pem --tls-key c.key --tls-ca ca.pem";
    let over_tls = plan(&format!("max-rps --preset small --agents a:1 {files}")).tls.unwrap();
    assert_eq!(
        (over_tls.cert.to_str(), over_tls.key.to_str(), over_tls.ca.to_str()),
        (Some("c.pem"), Some("c.key"), Some("ca.pem"))
    );
    let local = error(&format!("max-rps --preset small --local 1 {files}"));
    assert_eq!(local, "--tls-cert: agents in this process are not reached over TLS: add --agents");
    let variables = [("PLIMSOLL_TLS_CERT", "c.pem"), ("PLIMSOLL_TLS_KEY", "c.key"), ("PLIMSOLL_TLS_CA", "ca.pem")];
    assert_eq!(plan_with("max-rps --preset small --local 1", &variables).tls, None);
    assert!(plan_with("max-rps --preset small --agents a:1", &variables).tls.is_some());
    let half = error("max-rps --preset small --agents a:1 --tls-cert c.pem --tls-key c.key");
    assert_eq!(half, "--tls-cert: TLS also needs --tls-ca");
}

#[test]
fn a_run_may_take_as_long_as_all_its_steps_or_its_search() {
    let flags = "max-rps --preset small --steps 1,2,3 --warmup 1s --hold 10s --cooldown 2s";
    assert_eq!(plan(flags).longest(), Duration::from_secs(37));
    assert_eq!(plan("max-rps --preset small --find --max-time 7m").longest(), Duration::from_secs(420));
    // Four times what is open ends and what is behind drains, and one step once more.
    let pauses = |flags: &str| plan(&format!("{flags} --request-timeout 5s --recovery-limit 20s")).pauses();
    assert_eq!(pauses(flags), Duration::from_secs(4 * 25 + 11));
    assert_eq!(pauses("max-rps --preset small --find --max-time 7m"), Duration::from_secs(5));
    assert_eq!(pauses("run --preset small --rate 10 --duration 1h"), Duration::from_secs(5));
}
