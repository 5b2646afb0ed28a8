//! What is asked of a seeding: everything that its data follows from, but for when.

use mongodb::bson::{Document, doc};
use plimsoll_common::contract::daily::fixtures::DailyFixtures;
use plimsoll_common::contract::daily::{Band, DailyPreset};
use plimsoll_common::contract::fixtures::Fixtures;
use plimsoll_common::contract::history::HistoryPreset;
use plimsoll_common::plan::Workload;
use plimsoll_common::workload::{self, Given, SettingDefault};

/// What is to be seeded. The same spec and the same anchor make the same data on any machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    /// Whose needs are met.
    pub workload: &'static str,
    /// Users, rooms and sizes.
    pub preset: String,
    /// Of the fixtures.
    pub seed: u64,
    /// Who share the rooms of a daily preset; 0 for any other workload, whose presets say how many there are.
    pub users: u32,
    /// In every document, one token of a subject.
    pub site: String,
    /// Messages of every room that can be replied to; 0 unless the workload is `thread`.
    pub parents_per_room: u32,
    /// Per thousand of a room's members: those who have read everything; 0 unless the workload is `read-receipt`.
    pub read_per_mille: u32,
    /// The length of a bucket of `messages_by_room`.
    pub bucket_hours: u32,
}

/// What the rooms of a spec hold beside their members.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// Nothing.
    Nothing,
    /// Messages to reply to.
    Parents {
        /// So many in every room.
        per_room: u32,
    },
    /// No message, but a newest one that nobody has read.
    Unread,
    /// A history, of which some members have read everything.
    History {
        /// Its shape.
        preset: HistoryPreset,
        /// Of every thousand members.
        read_per_mille: u32,
    },
    /// Some messages of the week before, each to be replied to, the newest of which nobody has read.
    Week,
}

/// Who is in which room.
#[derive(Debug, Clone)]
pub enum People {
    /// Of a preset whose rooms are built at once.
    Rooms(Fixtures),
    /// Of a daily preset, whose rooms are made one by one.
    Daily(DailyFixtures),
}

/// Which ids the rooms of a workload have: two specs whose rooms are of one kind cannot be in a database side by side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RoomIds {
    /// `room-000002`, and pairs of user ids.
    Messages,
    /// `hroom-000002`
    History,
    /// `mroom-000002`
    Members,
    /// `room-small-000002`
    Daily,
}

impl RoomIds {
    /// As records name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Messages => "room",
            Self::History => "hroom",
            Self::Members => "mroom",
            Self::Daily => "daily",
        }
    }

    /// All of them, as filters; without direct messages where those are pairs of user ids. Names that only begin so are
    /// somebody else's.
    pub fn ranges(self) -> Vec<Document> {
        match self {
            Self::Messages => vec![numbered("room-")],
            Self::History | Self::Members => vec![numbered(&format!("{}-", self.name()))],
            Self::Daily => Band::ALL.map(|band| numbered(&format!("room-{}-", band.name()))).to_vec(),
        }
    }
}

/// Which texts are this and a number of six digits or more, as a filter that an index serves.
fn numbered(prefix: &str) -> Document {
    // Behind '9' comes ':'.
    doc! { "$gte": format!("{prefix}0"), "$lt": format!("{prefix}:"), "$regex": format!("^{prefix}([0-9]{{6}}|[1-9][0-9]{{6,}})$") }
}

/// Which texts begin with this, as a filter.
pub fn prefixed(prefix: &str) -> Document {
    let mut end = prefix.as_bytes().to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    doc! { "$gte": prefix, "$lt": String::from_utf8_lossy(&end).into_owned() }
}

impl Content {
    /// Whether some of its times lie ahead of now, and have to when a run begins.
    pub fn lies_ahead(self) -> bool {
        self == Self::Unread
    }

    /// Whether it has messages, which live in Cassandra.
    pub fn has_messages(self) -> bool {
        matches!(self, Self::Parents { .. } | Self::History { .. } | Self::Week)
    }
}

impl Spec {
    /// The spec that a run of this workload needs at least; `None`: it is none that is seeded.
    pub fn of(workload: &Workload, seed: u64, bucket_hours: u32) -> Option<Self> {
        let name = SEEDED.into_iter().find(|name| *name == workload.name())?;
        let settings = workload.settings();
        let text = |name: &str| settings.iter().find(|(key, _)| *key == name).map(|(_, value)| value.clone());
        let parents = text("parents-per-room").and_then(|text| text.parse().ok()).unwrap_or(0);
        Some(Self {
            workload: name,
            preset: workload.preset(),
            seed,
            users: workload.daily().map_or(0, |daily| daily.users),
            site: text("site-id")?,
            parents_per_room: parents,
            read_per_mille: if name == "read-receipt" { READ_PER_MILLE } else { 0 },
            bucket_hours,
        })
    }

    /// The workload with this spec's fixtures, its other settings at their defaults.
    ///
    /// # Errors
    /// Workload or preset are none of this release; for people.
    pub fn workload(&self) -> Result<Workload, String> {
        let entry = workload::entry(self.workload).ok_or_else(|| format!("unknown workload {}", self.workload))?;
        let value = |name: &str| match name {
            "preset" => Some(self.preset.clone()),
            "site-id" => Some(self.site.clone()),
            "users" => Some(self.users.to_string()),
            "parents-per-room" => Some(self.parents_per_room.to_string()),
            _ => entry.setting(name).and_then(|setting| match setting.default {
                SettingDefault::Text(text) => Some(text.to_owned()),
                SettingDefault::Required | SettingDefault::Nothing => None,
            }),
        };
        Workload::read(entry.name, &Given::new(&value)).map_err(|error| error.to_string())
    }

    /// Who is in which room.
    ///
    /// # Errors
    /// As [`Self::workload`]; or the workload has no fixtures.
    pub fn people(&self) -> Result<People, String> {
        if self.workload == DAILY {
            let preset = self.preset.parse::<DailyPreset>().map_err(|error| error.to_string())?;
            let built = DailyFixtures::build(preset, self.users, self.seed);
            return built.map(People::Daily).map_err(|error| format!("--users: {error}"));
        }
        let fixtures = self.workload()?.fixtures(self.seed).map(People::Rooms);
        fixtures.ok_or_else(|| format!("the workload {} has no users and rooms", self.workload))
    }

    /// What the rooms hold beside their members.
    ///
    /// # Errors
    /// The preset is none of a history.
    pub fn content(&self) -> Result<Content, String> {
        Ok(match self.workload {
            "thread" => Content::Parents { per_room: self.parents_per_room },
            "room-read" => Content::Unread,
            "history" | "read-receipt" => {
                let preset = self.preset.parse::<HistoryPreset>().map_err(|error| error.to_string())?;
                Content::History { preset, read_per_mille: self.read_per_mille }
            }
            DAILY => Content::Week,
            _ => Content::Nothing,
        })
    }

    /// Which ids its rooms have.
    pub fn room_ids(&self) -> RoomIds {
        room_ids(self.workload)
    }

    /// What differs from what was seeded so that a run of this spec would not find what it needs, in words: the setting,
    /// what it is here, and what it is there. Nothing: it would.
    pub fn lacks(&self, seeded: &Self) -> Vec<String> {
        let mut lacks = self.differs(seeded);
        let differ = |name: &str, here: &dyn std::fmt::Display, there: &dyn std::fmt::Display| {
            format!("{name} is {here} here and {there} there")
        };
        let serves = match self.workload {
            "thread" => seeded.parents_per_room >= self.parents_per_room,
            "read-receipt" => seeded.read_per_mille > 0,
            "room-read" => seeded.workload == self.workload,
            _ => true,
        };
        if !serves && seeded.workload == self.workload {
            lacks.push(differ("--parents-per-room", &self.parents_per_room, &seeded.parents_per_room));
        } else if !serves {
            lacks.push(differ("--workload", &self.workload, &seeded.workload));
        }
        lacks
    }

    /// What differs from what was seeded so that both cannot be in one database: preset, seed, or bucket hours.
    pub fn differs(&self, seeded: &Self) -> Vec<String> {
        let mut differs = Vec::new();
        let mut compare = |name: &str, here: String, there: String| {
            if here != there {
                differs.push(format!("{name} is {here} here and {there} there"));
            }
        };
        compare("--preset", self.preset.clone(), seeded.preset.clone());
        compare("--users", self.users.to_string(), seeded.users.to_string());
        compare("--seed", self.seed.to_string(), seeded.seed.to_string());
        let has_messages = |spec: &Self| spec.content().is_ok_and(Content::has_messages);
        if has_messages(self) && has_messages(seeded) {
            compare("--message-bucket-hours", self.bucket_hours.to_string(), seeded.bucket_hours.to_string());
        }
        differs
    }

    /// `--workload thread --preset small --seed 42 --site-id site-local`, as a command line takes it.
    pub fn flags(&self) -> String {
        let Self { workload, preset, seed, site, .. } = self;
        let seed = if *seed == 42 { String::new() } else { format!(" --seed {seed}") };
        let parents = match self.parents_per_room {
            0 | 8 => String::new(),
            parents => format!(" --parents-per-room {parents}"),
        };
        let users = if *workload == DAILY { format!(" --users {}", self.users) } else { String::new() };
        let read = match self.read_per_mille {
            0 | READ_PER_MILLE => String::new(),
            read => format!(" --read-ratio {}", f64::from(read) / 1000.0),
        };
        let hours = match self.bucket_hours {
            72 => String::new(),
            hours => format!(" --message-bucket-hours {hours}"),
        };
        format!("--workload {workload} --preset {preset}{users}{seed}{parents}{read}{hours} --site-id {site}")
    }
}

/// The workloads whose fixtures are seeded.
pub const SEEDED: [&str; 7] = ["messages", "thread", "history", "room-read", "read-receipt", "members", DAILY];
const DAILY: &str = "daily";

/// Of every thousand members of a room: those who have read everything, where nothing else is asked for.
pub const READ_PER_MILLE: u32 = 700;

/// Which ids the rooms of a workload have.
pub fn room_ids(workload: &str) -> RoomIds {
    match workload {
        "history" | "read-receipt" => RoomIds::History,
        "members" => RoomIds::Members,
        DAILY => RoomIds::Daily,
        _ => RoomIds::Messages,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(workload: &'static str, preset: &str) -> Spec {
        let is = |name| workload == name;
        Spec {
            workload,
            preset: preset.to_owned(),
            seed: 42,
            users: if is("daily") { 1_000 } else { 0 },
            site: "s".to_owned(),
            parents_per_room: if is("thread") { 8 } else { 0 },
            read_per_mille: if is("read-receipt") { 700 } else { 0 },
            bucket_hours: 72,
        }
    }

    #[test]
    fn a_spec_is_that_of_its_own_workload() {
        for (workload, preset) in [
            ("messages", "realistic"),
            ("thread", "small"),
            ("room-read", "small"),
            ("history", "history-small"),
            ("read-receipt", "history-small"),
            ("members", "members-small"),
            ("daily", "daily-heavy"),
        ] {
            let spec = spec(workload, preset);
            let read = spec.workload().unwrap();
            assert_eq!(Spec::of(&read, 42, 72).as_ref(), Some(&spec));
            assert!(spec.lacks(&spec).is_empty() && spec.content().is_ok() && spec.people().is_ok());
        }
    }

    #[test]
    fn a_run_takes_what_serves_it_and_names_what_does_not() {
        let (messages, thread) = (spec("messages", "small"), spec("thread", "small"));
        assert!(messages.lacks(&thread).is_empty());
        assert_eq!(thread.lacks(&messages), ["--workload is thread here and messages there"]);
        assert_eq!(
            Spec { parents_per_room: 9, ..thread.clone() }.lacks(&thread),
            ["--parents-per-room is 9 here and 8 there"]
        );
        assert!(Spec { parents_per_room: 3, ..thread.clone() }.lacks(&thread).is_empty());
        let (history, receipt) = (spec("history", "history-small"), spec("read-receipt", "history-small"));
        assert!(history.lacks(&receipt).is_empty());
        assert_eq!(receipt.lacks(&history), ["--workload is read-receipt here and history there"]);
        let other = Spec { preset: "medium".into(), seed: 7, bucket_hours: 24, ..thread.clone() };
        assert_eq!(
            thread.lacks(&other),
            [
                "--preset is small here and medium there",
                "--seed is 42 here and 7 there",
                "--message-bucket-hours is 72 here and 24 there"
            ]
        );
        assert_eq!(thread.flags(), "--workload thread --preset small --site-id s");
        let daily = spec("daily", "daily-heavy");
        assert_eq!(daily.flags(), "--workload daily --preset daily-heavy --users 1000 --site-id s");
        let fewer = Spec { users: 500, ..daily.clone() };
        assert_eq!(fewer.lacks(&daily), ["--users is 500 here and 1000 there"]);
        let rarely = Spec { read_per_mille: 45, bucket_hours: 24, ..receipt };
        assert_eq!(
            rarely.flags(),
            "--workload read-receipt --preset history-small --read-ratio 0.045 --message-bucket-hours 24 --site-id s"
        );
    }

    #[test]
    fn an_id_that_only_begins_like_ours_is_not_among_them() {
        let pattern = |range: &Document| range.get_str("$regex").unwrap().to_owned();
        let all: Vec<String> = [RoomIds::Messages, RoomIds::History, RoomIds::Members, RoomIds::Daily]
            .into_iter()
            .flat_map(|kind| kind.ranges().iter().map(pattern).collect::<Vec<_>>())
            .collect();
        // Six digits, or more without a zero first, to the end.
        for (begins, pattern) in
            ["room-", "hroom-", "mroom-", "room-dm-", "room-small-", "room-medium-", "room-large-"].iter().zip(&all)
        {
            assert_eq!(*pattern, format!("^{begins}([0-9]{{6}}|[1-9][0-9]{{6,}})$"));
        }
        assert_eq!(all.len(), 7);
    }

    #[test]
    fn no_id_is_of_two_kinds_of_rooms() {
        let is_in = |id: &str, kind: RoomIds| {
            let within = |range: &Document| range.get_str("$gte").unwrap() <= id && id < range.get_str("$lt").unwrap();
            kind.ranges().iter().any(within)
        };
        let ids = [
            (RoomIds::Messages, vec!["room-000002", "room-1000000", "room-999999"]),
            (RoomIds::History, vec!["hroom-000002"]),
            (RoomIds::Members, vec!["mroom-000002"]),
            (RoomIds::Daily, vec!["room-dm-000002", "room-small-1000000", "room-medium-000000", "room-large-000029"]),
        ];
        for (kind, ids) in &ids {
            for id in ids {
                assert!(is_in(id, *kind), "{id}");
                assert_eq!(ids_kinds(id, &is_in), 1, "{id}");
            }
        }
        assert_eq!(prefixed("sub-"), doc! { "$gte": "sub-", "$lt": "sub." });
    }

    fn ids_kinds(id: &str, is_in: &dyn Fn(&str, RoomIds) -> bool) -> usize {
        [RoomIds::Messages, RoomIds::History, RoomIds::Members, RoomIds::Daily]
            .into_iter()
            .filter(|&kind| is_in(id, kind))
            .count()
    }
}
