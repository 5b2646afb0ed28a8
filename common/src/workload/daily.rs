//! People who use the chat as their daily messenger: levels are numbers of users, and what each does follows from their day.

use std::time::Duration;

use super::{
    BadSetting, Entry, Given, HISTORY_SERVICE, NOBODY, ObservationKind, ObservationSpec, ROOM_SERVICE, SITE_ID,
    SeedProbe, ServiceProbe, SettingDefault, SettingKind, Workload, WorkloadPlan, WorkloadSetting, preset,
};
use crate::contract::daily::behaviour::{Action, envelope_mean, tenths_per_day};
use crate::contract::daily::fixtures::DailyFixtures;
use crate::contract::daily::{Band, CONTENT_BYTES, DailyPreset, FEWEST_USERS, MOST_USERS};
use crate::contract::fixtures::account;
use crate::contract::subjects;
use crate::units::{Rate, parse_duration};

pub(super) const ENTRY: Entry = Entry {
    name: "daily",
    summary: "people who use the chat as their daily messenger; levels are users",
    settings: &[
        preset("Fixtures to use: daily-light, daily-heavy or daily-power"),
        USERS,
        MAX_DIRECT_USERS,
        MULTIPLEX_POOL_SIZE,
        MAX_CONNECTIONS,
        ACTIVATION_RATE,
        DAY,
        AT_PEAK,
        PRESENCE,
        SITE_ID,
    ],
    defaults: &[
        ("steps", "1k,2k,5k,10k,20k,50k,100k"),
        ("warmup", "60s"),
        ("hold", "180s"),
        ("cooldown", "30s"),
        ("slo-p95", "500ms"),
        ("slo-p99", "1s"),
    ],
    observations: &[
        ObservationSpec { name: "recipients_expected", words: "recipients per message", kind: ObservationKind::Size },
        ObservationSpec { name: "recipients_reached", words: "copies received", kind: ObservationKind::Event },
        ObservationSpec { name: "history_rows", words: "messages per page of history", kind: ObservationKind::Size },
        ObservationSpec { name: "rooms_listed", words: "bytes per list of rooms", kind: ObservationKind::Size },
        ObservationSpec {
            name: "presence_us",
            words: "microseconds until a change of presence shows",
            kind: ObservationKind::Size,
        },
        ObservationSpec {
            name: "presence_lost",
            words: "changes of presence that did not show",
            kind: ObservationKind::Event,
        },
        ObservationSpec {
            name: "empty_pages",
            words: "pages of history beyond a room's first message",
            kind: ObservationKind::Event,
        },
        ObservationSpec { name: "presence_said", words: "changes of presence said", kind: ObservationKind::Event },
    ],
    read,
};

/// Indices into the observations.
pub const RECIPIENTS_EXPECTED: u8 = 0;
/// See [`RECIPIENTS_EXPECTED`].
pub const RECIPIENTS_REACHED: u8 = 1;
/// See [`RECIPIENTS_EXPECTED`].
pub const HISTORY_ROWS: u8 = 2;
/// See [`RECIPIENTS_EXPECTED`].
pub const ROOMS_LISTED: u8 = 3;
/// See [`RECIPIENTS_EXPECTED`].
pub const PRESENCE_US: u8 = 4;
/// See [`RECIPIENTS_EXPECTED`].
pub const PRESENCE_LOST: u8 = 5;
/// See [`RECIPIENTS_EXPECTED`].
pub const EMPTY_PAGES: u8 = 6;
/// See [`RECIPIENTS_EXPECTED`].
pub const PRESENCE_SAID: u8 = 7;

const fn setting(
    name: &'static str,
    variable: &'static str,
    value: &'static str,
    default: SettingDefault,
    help: &'static str,
) -> WorkloadSetting {
    WorkloadSetting { name, variable, native: None, value, default, kind: SettingKind::One, help }
}

const USERS: WorkloadSetting = setting(
    "users",
    "PLIMSOLL_USERS",
    "COUNT",
    SettingDefault::Text("10k"),
    "How many users the target was seeded with; no step may have more",
);
const MAX_DIRECT_USERS: WorkloadSetting = setting(
    "max-direct-users",
    "PLIMSOLL_MAX_DIRECT_USERS",
    "COUNT",
    SettingDefault::Text("20k"),
    "Most users per agent with a connection each; the others share connections",
);
const MULTIPLEX_POOL_SIZE: WorkloadSetting = setting(
    "multiplex-pool-size",
    "PLIMSOLL_MULTIPLEX_POOL_SIZE",
    "COUNT",
    SettingDefault::Text("200"),
    "Connections per agent that the users beyond --max-direct-users share",
);
const MAX_CONNECTIONS: WorkloadSetting = setting(
    "max-connections",
    "PLIMSOLL_MAX_CONNECTIONS",
    "COUNT",
    SettingDefault::Text("25k"),
    "Most connections per agent; a step that needs more is refused",
);
const ACTIVATION_RATE: WorkloadSetting = setting(
    "activation-rate",
    "PLIMSOLL_ACTIVATION_RATE",
    "RATE",
    SettingDefault::Text("500"),
    "How many users each agent brings online per second",
);
const DAY: WorkloadSetting = setting(
    "day",
    "PLIMSOLL_DAY",
    "TIME",
    SettingDefault::Nothing,
    "How long the 8-hour working day takes, at least a hold: with 8h people act at their real pace, and the hold is a slice \
     at the day's peak; by default the day is as long as the hold",
);

const AT_PEAK: WorkloadSetting = WorkloadSetting {
    kind: SettingKind::Switch,
    ..setting(
        "at-peak",
        "PLIMSOLL_AT_PEAK",
        "",
        SettingDefault::Nothing,
        "The day stands still at its peak, where people do most: each hold makes the same load, however long it is",
    )
};

const PRESENCE: WorkloadSetting = WorkloadSetting {
    kind: SettingKind::Switch,
    ..setting(
        "presence",
        "PLIMSOLL_PRESENCE",
        "",
        SettingDefault::Nothing,
        "Users also report their presence, every 30 s and when they become active or idle; observed, never judged",
    )
};

/// People who use the chat as their daily messenger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DailyWorkload {
    /// The fixtures.
    pub preset: DailyPreset,
    /// A literal token in subjects and stream names.
    pub site_id: String,
    /// Who share the fixtures' rooms.
    pub users: u32,
    /// Per agent: so many have a connection each.
    pub max_direct_users: u32,
    /// Per agent: connections that the others share.
    pub multiplex_pool_size: u32,
    /// Per agent: no step may need more.
    pub max_connections: u32,
    /// How many users each agent brings online per second.
    pub activation_rate: Rate,
    /// How long the working day takes; `None`: as long as the hold.
    pub day: Option<Duration>,
    /// Whether the day stands still at its peak.
    pub at_peak: bool,
    /// Whether they say that they are there.
    pub presence: bool,
}

fn read(given: &Given<'_>) -> Result<Workload, BadSetting> {
    let count = |name, lowest: u32, highest: u32| {
        let rate: Rate = given.parsed(name, "a whole number")?;
        let whole = rate.milli() / 1000;
        let fits = rate.milli().is_multiple_of(1000) && (u64::from(lowest)..=u64::from(highest)).contains(&whole);
        let takes = || format!("a whole number from {lowest} to {highest}");
        if fits { Ok(whole as u32) } else { Err(BadSetting::takes(name, rate, takes())) }
    };
    let max_direct_users = match given.optional("max-direct-users").as_deref() {
        Some("0") => 0,
        _ => count("max-direct-users", 0, MOST_USERS)?,
    };
    Ok(Workload::Daily(DailyWorkload {
        preset: given.parsed("preset", "daily-light, daily-heavy or daily-power")?,
        site_id: given.token("site-id")?,
        users: count("users", FEWEST_USERS, MOST_USERS)?,
        max_direct_users,
        multiplex_pool_size: count("multiplex-pool-size", 1, 60_000)?,
        max_connections: count("max-connections", 1, MOST_USERS)?,
        activation_rate: given.parsed("activation-rate", "users per second, such as 500")?,
        day: given.optional("day").map(|text| day(&text)).transpose()?,
        at_peak: switch(given, "at-peak")?,
        presence: switch(given, "presence")?,
    }))
}

fn switch(given: &Given<'_>, name: &'static str) -> Result<bool, BadSetting> {
    match given.optional(name).as_deref() {
        Some("true" | "1") => Ok(true),
        None | Some("false" | "0") => Ok(false),
        Some(other) => Err(BadSetting::takes(name, other, "true or false")),
    }
}

/// The day's length: as it travels, whole milliseconds.
fn day(text: &str) -> Result<Duration, BadSetting> {
    let within = |length: &Duration| {
        let longest = Duration::from_secs(7 * 86_400);
        (Duration::from_secs(1)..=longest).contains(length) && length.subsec_nanos().is_multiple_of(1_000_000)
    };
    let takes = "a length from 1s to 168h, such as 8h, 30m or 180s";
    parse_duration(text).filter(within).ok_or_else(|| BadSetting::takes("day", text, takes))
}

impl DailyWorkload {
    /// Who is in which room.
    pub fn daily_fixtures(&self, seed: u64) -> DailyFixtures {
        DailyFixtures::build(self.preset, self.users, seed).expect("the number of users was checked where it was read")
    }

    /// How long the working day takes where holds are this long.
    pub fn day_length(&self, hold: Duration) -> Duration {
        self.day.unwrap_or(hold)
    }

    /// Connections that an agent needs for so many users, beside its workers' own.
    pub fn connections(&self, users: u64) -> u64 {
        let direct = users.min(u64::from(self.max_direct_users));
        direct + (users - direct).min(u64::from(self.multiplex_pool_size))
    }
}

/// Requests of a person about rooms, by series, with their limits in milliseconds.
const REQUESTS: [(&str, u64, u64); 6] = [
    ("mark_read", 100, 250),
    ("refresh_room_list", 200, 500),
    ("scroll_history", 500, 1_500),
    ("member_add", 200, 500),
    ("room_create", 500, 1_500),
    ("mute_toggle", 100, 250),
];

impl WorkloadPlan for DailyWorkload {
    fn service_probes(&self) -> Vec<ServiceProbe> {
        let site = &self.site_id;
        let of_room = |operation, service| ServiceProbe::about_room(operation, site, service);
        let (list, create) = (subjects::LIST_ROOMS, "create");
        vec![
            of_room(subjects::LOAD_HISTORY, HISTORY_SERVICE),
            of_room(subjects::MARK_READ, ROOM_SERVICE),
            of_room(subjects::ADD_MEMBERS, ROOM_SERVICE),
            of_room(subjects::TOGGLE_MUTE, ROOM_SERVICE),
            ServiceProbe { operation: create, subject: subjects::create_room(NOBODY, site), service: ROOM_SERVICE },
            ServiceProbe {
                operation: list,
                subject: subjects::user_request(NOBODY, site, list),
                service: "user service",
            },
        ]
    }

    fn settings(&self) -> Vec<(&'static str, String)> {
        let mut settings = vec![
            ("preset", self.preset.to_string()),
            ("site-id", self.site_id.clone()),
            ("users", self.users.to_string()),
            ("max-direct-users", self.max_direct_users.to_string()),
            ("multiplex-pool-size", self.multiplex_pool_size.to_string()),
            ("max-connections", self.max_connections.to_string()),
            ("activation-rate", self.activation_rate.to_string()),
        ];
        for (name, is_on) in [("at-peak", self.at_peak), ("presence", self.presence)] {
            settings.extend(is_on.then(|| (name, "true".to_owned())));
        }
        settings.extend(self.day.map(|day| ("day", format!("{}ms", day.as_millis()))));
        settings
    }

    fn series(&self) -> Vec<String> {
        let pipeline = ["E1", "E2", "E2_last", "thread_reply", "thread_reply_E2"];
        let requests = REQUESTS.iter().map(|(name, ..)| *name);
        let jobs = ["member_add_done", "room_create_done"];
        pipeline.into_iter().chain(requests).chain(jobs).map(str::to_owned).collect()
    }

    fn limits(&self, series: &str) -> Option<(Option<Duration>, Option<Duration>)> {
        let request = REQUESTS.iter().find(|(name, ..)| *name == series);
        let limit = |millis| Some(Duration::from_millis(millis));
        match request {
            Some(&(_, p95, p99)) => Some((limit(p95), limit(p99))),
            None if series.ends_with("_done") => Some((None, None)),
            None => None,
        }
    }

    fn part_ppm(&self, series: &str) -> u32 {
        let action = match series {
            "E1" | "E2" | "E2_last" => Some(Action::Send),
            "thread_reply_E2" => Some(Action::ThreadReply),
            series => {
                let name = series.strip_suffix("_done").unwrap_or(series);
                Action::ALL.into_iter().find(|action| action.name() == name)
            }
        };
        action.map_or(1_000_000, |action| action.tenths_per_day() * 1_000_000 / tenths_per_day())
    }

    fn preset(&self) -> String {
        self.preset.to_string()
    }

    fn streams(&self) -> Vec<(String, u64)> {
        let mean_bytes = u64::from((CONTENT_BYTES.start() + CONTENT_BYTES.end()) / 2);
        let site = &self.site_id;
        vec![
            (subjects::messages_stream(site), mean_bytes),
            (subjects::canonical_stream(site), mean_bytes),
            (subjects::rooms_stream(site), JOB_BYTES),
        ]
    }

    fn messages(&self, series: &str) -> Vec<(String, u32)> {
        let site = &self.site_id;
        let [messages, canonical, rooms] =
            [subjects::messages_stream(site), subjects::canonical_stream(site), subjects::rooms_stream(site)];
        match series {
            "E1" | "thread_reply" => vec![(messages, 1), (canonical, 1)],
            // A job, and what the service says of it in the room: that somebody was added, or that the room was made too.
            "member_add" => vec![(rooms, 1), (canonical, 1)],
            "room_create" => vec![(rooms, 1), (canonical, 2)],
            // An event that tells others of it.
            "mute_toggle" => vec![(rooms, 1)],
            _ => Vec::new(),
        }
    }

    fn durables(&self) -> Vec<String> {
        let workers = [
            subjects::GATEKEEPER,
            subjects::MESSAGE_WORKER,
            subjects::BROADCAST_WORKER,
            subjects::ROOM_WORKER,
            subjects::NOTIFICATION_WORKER,
        ];
        workers.map(str::to_owned).to_vec()
    }

    fn may_grow(&self, durable: &str) -> bool {
        durable == subjects::NOTIFICATION_WORKER
    }

    fn stream_of(&self, durable: &str) -> Option<String> {
        Some(match durable {
            subjects::ROOM_WORKER => subjects::rooms_stream(&self.site_id),
            _ => super::messages::pipeline_stream(durable, &self.site_id),
        })
    }

    fn seed_probes(&self, seed: u64, nonce: u64) -> Vec<SeedProbe> {
        let fixtures = self.daily_fixtures(seed);
        // Of channels up to medium ones, whose members may all post; memberships depend on the number of users too, so that
        // a target that was seeded for another number knows few of them.
        let channels = fixtures.rooms_in(Band::Small).start..fixtures.rooms_in(Band::Medium).end;
        let count = SEED_PROBES.min(channels.len() as u32);
        (0..count)
            .map(|number| {
                let at = u64::from(number) * channels.len() as u64 / u64::from(count);
                let room = channels.start + at as u32;
                let members = fixtures.members(room);
                let member = account(members[number as usize % members.len()]);
                super::messages::seed_probe(&fixtures.room_id(room), &member, &self.site_id, nonce, number as usize)
            })
            .collect()
    }

    fn rate(&self, level: Rate, hold: Duration) -> Rate {
        // At the day's peak; what is planned for more than happens does no harm.
        let per_user = f64::from(tenths_per_day()) / 10.0 / envelope_mean() / self.day_length(hold).as_secs_f64();
        Rate::try_from(level.as_f64() * per_user).unwrap_or(level)
    }

    fn daily(&self) -> Option<&DailyWorkload> {
        Some(self)
    }
}

/// What a job of a person takes in its stream: two accounts, a room, and some words.
const JOB_BYTES: u64 = 350;
/// Memberships that are asked for.
const SEED_PROBES: u32 = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_one_per_direct_user_and_the_pool_for_the_rest() {
        let value = |name: &str| {
            let given = [
                ("preset", "daily-light"),
                ("site-id", "s"),
                ("users", "100k"),
                ("max-direct-users", "20k"),
                ("multiplex-pool-size", "200"),
                ("max-connections", "25k"),
                ("activation-rate", "500"),
            ];
            given.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        };
        let Ok(Workload::Daily(daily)) = Workload::read("daily", &Given::new(&value)) else { panic!("no workload") };
        let needed: Vec<u64> = [1, 20_000, 20_001, 20_300, 50_000].map(|users| daily.connections(users)).to_vec();
        assert_eq!(needed, [1, 20_000, 20_001, 20_200, 20_200]);
    }

    #[test]
    fn a_day_is_a_length_with_its_unit() {
        assert_eq!(day("8h"), Ok(Duration::from_secs(28_800)));
        assert_eq!(day("1500ms"), Ok(Duration::from_millis(1_500)));
        for wrong in ["8", "0s", "h", "-1s", "9999h", "1500500us", ""] {
            assert!(day(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn at_the_peak_of_a_day_of_180_seconds_a_thousand_users_do_some_700_things_a_second() {
        let daily = DailyWorkload {
            preset: DailyPreset::Light,
            site_id: "s".into(),
            users: 1_000,
            max_direct_users: 1,
            multiplex_pool_size: 1,
            max_connections: 1,
            activation_rate: Rate::per_second(1).unwrap(),
            day: None,
            at_peak: false,
            presence: false,
        };
        let rate = daily.rate(Rate::per_second(1_000).unwrap(), Duration::from_secs(180));
        // 93.9 a day, the mean of the envelope being 0.730 of its peak.
        assert!((714.0..716.0).contains(&rate.as_f64()), "{rate}");
    }
}
