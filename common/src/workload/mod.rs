//! The vocabulary of workloads: what each is called, what it takes, which series it has and what it needs of the target.
//! Coordinator and agents read the same entries, so a workload is an entry here and a file in the agent.

pub mod custom;
pub mod daily;
mod history;
mod members;
mod messages;
mod read_receipt;
mod room_read;
mod thread;

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

pub use self::custom::CustomWorkload;
pub use self::daily::DailyWorkload;
pub use self::history::{BeforeMode, HistoryWorkload, Mix};
pub use self::members::MembersWorkload;
pub use self::messages::{Inject, InjectError, MessagesWorkload};
pub use self::read_receipt::ReadReceiptWorkload;
pub use self::room_read::RoomReadWorkload;
pub use self::thread::ThreadWorkload;
use crate::contract::fixtures::{Fixtures, Room};
use crate::contract::subjects;
use crate::units::Rate;

/// A setting that only some workloads take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkloadSetting {
    /// The flag without its dashes, and the key in a plan file.
    pub name: &'static str,
    /// The variable that stands for the flag.
    pub variable: &'static str,
    /// A variable that other tools know too; weaker than [`Self::variable`].
    pub native: Option<&'static str>,
    /// What stands for the value in the help.
    pub value: &'static str,
    /// What applies where nothing was given.
    pub default: SettingDefault,
    /// How it is given.
    pub kind: SettingKind,
    /// What it does for this workload.
    pub help: &'static str,
}

/// What applies where nothing was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SettingDefault {
    /// Something has to be given.
    Required,
    /// The text a flag would take.
    Text(&'static str),
    /// Nothing: what it stands for is not done.
    Nothing,
}

/// How a workload's setting is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SettingKind {
    /// One value.
    One,
    /// Values separated by commas.
    List,
    /// The path of a file whose text is the value: agents are told the text.
    File,
    /// On or off.
    Switch,
}

/// One workload of the vocabulary.
#[derive(Clone, Copy)]
pub struct Entry {
    /// As flags and the protocol know it.
    pub name: &'static str,
    /// One clause for the help: what it drives.
    pub summary: &'static str,
    /// Settings that other workloads may not take.
    pub settings: &'static [WorkloadSetting],
    /// Defaults of settings that every workload takes, where they differ: ("steps", "200,500,1k").
    pub defaults: &'static [(&'static str, &'static str)],
    /// What it observes beside latency, in the order of the snapshots' lists.
    pub observations: &'static [ObservationSpec],
    /// Makes the workload from its settings.
    pub read: fn(&Given<'_>) -> Result<Workload, BadSetting>,
}

impl Entry {
    /// Its setting of this name.
    pub fn setting(&self, name: &str) -> Option<&'static WorkloadSetting> {
        self.settings.iter().find(|setting| setting.name == name)
    }

    /// The default that it has in place of the general one.
    pub fn default_of(&self, setting: &str) -> Option<&'static str> {
        self.defaults.iter().find(|(name, _)| *name == setting).map(|(_, text)| *text)
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Entry({})", self.name)
    }
}

/// The entry of this name.
pub fn entry(name: &str) -> Option<&'static Entry> {
    VOCABULARY.iter().find(|entry| entry.name == name)
}

/// The names of all workloads.
pub fn names() -> Vec<&'static str> {
    VOCABULARY.iter().map(|entry| entry.name).collect()
}

/// The values that a workload is made of, by the names of its settings.
pub struct Given<'a> {
    value: &'a dyn Fn(&str) -> Option<String>,
}

/// A setting that makes no workload.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadSetting {
    /// Nothing was given where something has to be.
    #[error("{name} is missing: expected {takes}")]
    Missing {
        /// The setting's name.
        name: &'static str,
        /// What it takes.
        takes: &'static str,
    },
    /// A value that it does not take.
    #[error("{name}: {problem}")]
    Value {
        /// The setting's name.
        name: &'static str,
        /// What it got and what it takes.
        problem: String,
    },
}

impl BadSetting {
    /// A value that the setting of this name does not take.
    pub fn value(name: &'static str, problem: impl fmt::Display) -> Self {
        Self::Value { name, problem: problem.to_string() }
    }

    /// The same in the words that every such error has.
    pub fn takes(name: &'static str, got: impl fmt::Display, takes: impl fmt::Display) -> Self {
        Self::value(name, format_args!("got '{got}', expected {takes}"))
    }
}

impl<'a> Given<'a> {
    /// Values that this looks up; defaults have been filled in.
    pub fn new(value: &'a dyn Fn(&str) -> Option<String>) -> Self {
        Self { value }
    }

    /// A value, where there is one.
    pub fn optional(&self, name: &'static str) -> Option<String> {
        (self.value)(name)
    }

    /// A value.
    ///
    /// # Errors
    /// There is none.
    pub fn required(&self, name: &'static str, takes: &'static str) -> Result<String, BadSetting> {
        self.optional(name).ok_or(BadSetting::Missing { name, takes })
    }

    /// A value whose own error says what it got and takes.
    ///
    /// # Errors
    /// There is none, or it is no `T`.
    pub fn parsed<T: FromStr<Err: fmt::Display>>(
        &self,
        name: &'static str,
        takes: &'static str,
    ) -> Result<T, BadSetting> {
        self.required(name, takes)?.parse().map_err(|error| BadSetting::value(name, error))
    }

    /// A whole number within bounds.
    ///
    /// # Errors
    /// There is none, or it lies outside.
    pub fn number(&self, name: &'static str, lowest: u64, highest: u64) -> Result<u64, BadSetting> {
        let text = self.required(name, "a whole number")?;
        let number = text.trim().parse::<u64>().ok().filter(|number| (lowest..=highest).contains(number));
        let takes = || format!("a whole number from {lowest} to {highest}");
        number.ok_or_else(|| BadSetting::takes(name, &text, takes()))
    }

    /// One token of a subject.
    ///
    /// # Errors
    /// There is none, or it is more than a token.
    pub fn token(&self, name: &'static str) -> Result<String, BadSetting> {
        const TAKES: &str = "one token of a subject: 1 to 128 characters without '.', '*', '>' or space";
        let text = self.required(name, TAKES)?;
        if is_subject_token(&text) { Ok(text) } else { Err(BadSetting::takes(name, text, TAKES)) }
    }
}

/// Whether a text can stand as one token of a NATS subject: 1 to 128 printable characters without `.`, `*`, `>` or space.
pub fn is_subject_token(text: &str) -> bool {
    let fits = |c: char| !c.is_whitespace() && !c.is_control() && !matches!(c, '.' | '*' | '>');
    (1..=128).contains(&text.len()) && text.chars().all(fits)
}

/// What coordinator and session must know of any workload. The data plane is the agent's.
pub trait WorkloadPlan {
    /// The settings that make this workload again, by name: what agents are told.
    fn settings(&self) -> Vec<(&'static str, String)>;

    /// The names of its series, at most 32, in the order that plan, snapshots and report share.
    fn series(&self) -> Vec<String>;

    /// What the report calls the data it runs on: "medium".
    fn preset(&self) -> String;

    /// The streams that its messages enter, and the bytes that each message takes there beside what every stored message takes.
    fn streams(&self) -> Vec<(String, u64)> {
        Vec::new()
    }

    /// How many messages each operation that owes this series a sample puts into streams, at most. Of each operation one series
    /// says so. None of any series: every operation puts one message into each of the streams.
    fn messages(&self, _series: &str) -> Vec<(String, u32)> {
        Vec::new()
    }

    /// The durables that are watched where nothing else was asked for, as `--durable` takes them.
    fn durables(&self) -> Vec<String> {
        Vec::new()
    }

    /// The stream of a durable that was named without one; `None`: the stream has to be named.
    fn stream_of(&self, _durable: &str) -> Option<String> {
        None
    }

    /// Users and rooms, which are dealt over agents and workers; `None`: there are none, and every worker does its share of
    /// the same.
    fn fixtures(&self, _seed: u64) -> Option<Fixtures> {
        None
    }

    /// Questions whose answers tell whether the target was seeded with these fixtures, and of which it keeps nothing that
    /// others see. `nonce` makes their ids the run's own. None where the service can be asked nothing of the kind.
    fn seed_probes(&self, _seed: u64, _nonce: u64) -> Vec<SeedProbe> {
        Vec::new()
    }

    /// A request of each kind that operations make of a service, which refuses it: it shows that the service is there, and
    /// changes nothing. What goes into streams has durables that are looked at.
    fn service_probes(&self) -> Vec<ServiceProbe> {
        Vec::new()
    }

    /// What operations use up, so that a run can make only so many of them; `None`: nothing. Rooms are dealt once for such a
    /// run, whose agents say how many operations they have left.
    fn pool(&self) -> Option<Pool> {
        None
    }

    /// Operations that may not stay open for as long as others, by name. None is above the run's request timeout.
    fn timeouts(&self) -> Vec<(String, Duration)> {
        Vec::new()
    }

    /// The percentile limits of a series that has others than most, p95 and p99; `None`: those of all series.
    fn limits(&self, _series: &str) -> Option<(Option<Duration>, Option<Duration>)> {
        None
    }

    /// The part of all operations that owe a series a sample, in millionths.
    fn part_ppm(&self, _series: &str) -> u32 {
        1_000_000
    }

    /// Whether a watched durable's backlog may grow as it likes. It may not vanish.
    fn may_grow(&self, _durable: &str) -> bool {
        false
    }

    /// Operations per second that a level or a share of it makes at most, where holds are this long.
    fn rate(&self, level: Rate, _hold: Duration) -> Rate {
        level
    }

    /// The workload whose levels are users; `None`: levels are operations per second.
    fn daily(&self) -> Option<&DailyWorkload> {
        None
    }

    /// A room's part of the traffic, in any unit: its subscriptions, unless the workload draws rooms otherwise.
    fn room_weight(&self, room: &Room) -> f64 {
        room.weight() as f64
    }
}

/// A part of all in millionths, to the nearest, and at least one.
fn part_ppm(part: u64, all: u64) -> u32 {
    let ppm = (u128::from(part) * 1_000_000 + u128::from(all) / 2) / u128::from(all.max(1));
    u32::try_from(ppm.clamp(1, 1_000_000)).expect("no more than a million")
}

/// A question that a target without our fixtures answers with `not_subscribed`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeedProbe {
    /// For people: "user-7 in room-000002".
    pub membership: String,
    /// Where it goes.
    pub subject: String,
    /// What it says.
    pub payload: String,
    /// Where its answer comes.
    pub answer: String,
}

/// A request without a body that a service refuses whoever asks, and it is somebody who is in no room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceProbe {
    /// What the service is asked to do: `msg.history`.
    pub operation: &'static str,
    /// Where it goes.
    pub subject: String,
    /// Who answers it.
    pub service: &'static str,
}

/// Nobody of this name, and no room.
const NOBODY: &str = "plimsoll-probe";
const HISTORY_SERVICE: &str = "history service";
const ROOM_SERVICE: &str = "room service";

impl ServiceProbe {
    /// About a room that there is not.
    pub fn about_room(operation: &'static str, site: &str, service: &'static str) -> Self {
        Self { operation, subject: subjects::room_request(NOBODY, NOBODY, site, operation), service }
    }
}

/// What operations use up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    /// Operations that it lasts for.
    pub operations: u64,
    /// What it is, for people.
    pub words: String,
    /// Settings with which it would last longer, and for how many operations; the shortest first.
    pub larger: Vec<(String, u64)>,
}

/// Something that a workload observes beside latency: how often, what in sum, and the largest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ObservationSpec {
    /// As columns are called: "reply_bytes".
    pub name: &'static str,
    /// In the words of the report: "bytes per reply".
    pub words: &'static str,
    /// Whether only how often it happened says anything.
    pub kind: ObservationKind,
}

/// What an observation says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ObservationKind {
    /// How often it happened.
    Event,
    /// A size, of which the mean and the largest are shown.
    Size,
}

macro_rules! vocabulary {
    ($($(#[$doc:meta])* $variant:ident($plan:ty) = $entry:path),* $(,)?) => {
        /// What is driven against the target.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub enum Workload {
            $($(#[$doc])* $variant($plan)),*
        }

        /// Every workload.
        pub const VOCABULARY: &[Entry] = &[$($entry),*];

        impl Workload {
            /// Its entry in the vocabulary.
            pub fn entry(&self) -> &'static Entry {
                const { assert!(!VOCABULARY.is_empty()) };
                match self {
                    $(Self::$variant(_) => &$entry),*
                }
            }
        }

        impl std::ops::Deref for Workload {
            type Target = dyn WorkloadPlan;

            fn deref(&self) -> &Self::Target {
                match self {
                    $(Self::$variant(plan) => plan),*
                }
            }
        }
    };
}

vocabulary! {
    /// The chat's message pipeline.
    Messages(MessagesWorkload) = messages::ENTRY,
    /// Replies in threads.
    Thread(ThreadWorkload) = thread::ENTRY,
    /// Pages of history and of threads.
    History(HistoryWorkload) = history::ENTRY,
    /// Rooms marked as read.
    RoomRead(RoomReadWorkload) = room_read::ENTRY,
    /// Who has read one's own messages.
    ReadReceipt(ReadReceiptWorkload) = read_receipt::ENTRY,
    /// Users added to rooms.
    Members(MembersWorkload) = members::ENTRY,
    /// People who use the chat as their daily messenger.
    Daily(DailyWorkload) = daily::ENTRY,
    /// Any service, described in a file.
    Custom(CustomWorkload) = custom::ENTRY,
}

impl Workload {
    /// The workload's name.
    pub fn name(&self) -> &'static str {
        self.entry().name
    }

    /// What it observes beside latency, in the order of the snapshots' lists.
    pub fn observations(&self) -> &'static [ObservationSpec] {
        self.entry().observations
    }

    /// Makes a workload from its name and settings.
    ///
    /// # Errors
    /// No workload has that name, or it does not take the settings.
    pub fn read(name: &str, settings: &Given<'_>) -> Result<Self, BadSetting> {
        let entry = entry(name).ok_or_else(|| BadSetting::takes("workload", name, names().join(", ")))?;
        (entry.read)(settings)
    }
}

/// Reads are slower than sends: the steps begin and end lower.
const READ_STEPS: (&str, &str) = ("steps", "200,500,1k,2k,5k");

/// The size of what the service answers.
const REPLY_BYTES: ObservationSpec =
    ObservationSpec { name: "reply_bytes", words: "bytes per reply", kind: ObservationKind::Size };

/// The site in the subjects and streams of every chat workload.
const SITE_ID: WorkloadSetting = WorkloadSetting {
    name: "site-id",
    variable: "PLIMSOLL_SITE_ID",
    native: Some("SITE_ID"),
    value: "TOKEN",
    default: SettingDefault::Text("site-local"),
    kind: SettingKind::One,
    help: "The site in subjects and stream names",
};

/// The fixtures; `help` names the presets.
const fn preset(help: &'static str) -> WorkloadSetting {
    WorkloadSetting {
        name: "preset",
        variable: "PLIMSOLL_PRESET",
        native: None,
        value: "NAME",
        default: SettingDefault::Required,
        kind: SettingKind::One,
        help,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_reads_its_own_settings_back() {
        for (name, given) in [
            ("messages", vec![("preset", "realistic"), ("inject", "canonical"), ("site-id", "s1")]),
            (
                "history",
                vec![
                    ("preset", "history-medium"),
                    ("mix", "thread:1,history:3"),
                    ("before-mode", "open:0,scrollback:1"),
                    ("scrollback-pages", "7"),
                    ("page-limit", "50"),
                    ("site-id", "s1"),
                ],
            ),
            ("thread", vec![("preset", "small"), ("parents-per-room", "3"), ("site-id", "s1")]),
            ("room-read", vec![("preset", "small"), ("site-id", "s1")]),
            ("read-receipt", vec![("preset", "history-small"), ("site-id", "s1")]),
            ("members", vec![("preset", "members-heavy"), ("users-per-add", "10"), ("site-id", "s1")]),
            (
                "daily",
                vec![
                    ("preset", "daily-heavy"),
                    ("site-id", "s1"),
                    ("users", "20000"),
                    ("max-direct-users", "0"),
                    ("multiplex-pool-size", "7"),
                    ("max-connections", "9"),
                    ("activation-rate", "2.5"),
                    ("day", "28800000ms"),
                    ("presence", "true"),
                ],
            ),
            ("custom", vec![("scenario", "[[operation]]\nname = \"a\"\nkind = \"request\"\nsubject = \"a.b\"")]),
        ] {
            let value = |name: &str| given.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
            let workload = Workload::read(name, &Given::new(&value)).unwrap();
            let again = workload.settings();
            let value = |name: &str| again.iter().find(|(key, _)| *key == name).map(|(_, value)| value.clone());
            assert_eq!(workload.name(), name);
            assert_eq!(Workload::read(name, &Given::new(&value)), Ok(workload));
            assert!(again.iter().all(|(key, _)| entry(name).unwrap().setting(key).is_some()), "{again:?}");
        }
    }

    #[test]
    fn names_and_variables_of_the_vocabulary_are_consistent() {
        for entry in VOCABULARY {
            for setting in entry.settings {
                let expected = format!("PLIMSOLL_{}", setting.name.replace('-', "_").to_uppercase());
                assert_eq!(setting.variable, expected);
                // One name is one flag, whichever workload it is for.
                for other in VOCABULARY.iter().filter_map(|other| other.setting(setting.name)) {
                    assert_eq!((setting.native, setting.value, setting.kind), (other.native, other.value, other.kind));
                }
            }
        }
    }

    #[test]
    fn an_unknown_workload_is_told_the_known_ones() {
        let error = Workload::read("mesages", &Given::new(&|_| None)).unwrap_err().to_string();
        assert!(error.starts_with("workload: got 'mesages', expected messages"), "{error}");
    }
}
