//! What a stand-in backend is told: where it lives, how fast each stage is, and what it does wrong.

use anyhow::{Context as _, bail, ensure};
use plimsoll_common::contract::daily::DailyPreset;
use plimsoll_common::contract::history::HistoryPreset;
use plimsoll_common::contract::members::MembersPreset;
use plimsoll_common::contract::presets::MessagesPreset;
use plimsoll_common::contract::subjects;
use std::fmt;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// Everything a stand-in backend is told. Start from [`StandinConfig::new`] and change what a test is about.
#[derive(Debug, Clone)]
pub struct StandinConfig {
    pub nats_url: String,
    /// A credentials file, as `NATS_CREDS_FILE` names it.
    pub creds: Option<PathBuf>,
    pub preset: MessagesPreset,
    pub seed: u64,
    pub site: String,
    pub storage: Storage,
    /// Deletes the site's streams before it creates them.
    pub purge: bool,
    pub gatekeeper: StageConfig,
    pub message_worker: StageConfig,
    pub broadcast_worker: StageConfig,
    pub notification_worker: StageConfig,
    pub room_worker: StageConfig,
    /// Plain members may not post to rooms with more members than this.
    pub large_room_threshold: u64,
    /// Channels broadcast under their room's key.
    pub encrypted: bool,
    /// Tells the whole room of each reply in a channel's thread, as the chat does.
    pub thread_metadata: bool,
    pub gate_faults: GateFaults,
    pub broadcast_faults: BroadcastFaults,
    /// What the room worker does wrong with member events.
    pub member_event_faults: BroadcastFaults,
    pub incidents: Vec<Incident>,
    pub incidents_from: Trigger,
    /// Seeded parents of threads in every room of the preset.
    pub parents_per_room: u32,
    /// The rooms whose history is read, beside those of the preset.
    pub history: HistoryPreset,
    /// The rooms to which members are added, beside those.
    pub members: MembersPreset,
    /// The rooms of a daily preset in place of those of `preset`.
    pub daily: Option<DailyConfig>,
    /// Copies per second that the broadcast worker makes, in place of its capacity in messages.
    pub fan_out_capacity: Option<f64>,
    /// Keeps every n-th change of presence to itself.
    pub presence_drop_every: Option<NonZeroU64>,
    /// How the request services behave, by [`Endpoint`].
    pub endpoints: [EndpointConfig; Endpoint::ALL.len()],
    /// Where histories, threads and readers are read; what preset and seed make, if none.
    pub databases: Option<Databases>,
}

/// The databases behind the chat.
#[derive(Clone)]
pub struct Databases {
    pub mongo_uri: String,
    pub mongo_db: String,
    pub cassandra_hosts: Vec<String>,
    pub cassandra_keyspace: String,
    pub cassandra_username: Option<String>,
    pub cassandra_password: String,
    /// The length of a bucket of messages.
    pub bucket_hours: u32,
}

impl std::fmt::Debug for Databases {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Databases({}, {:?})", self.mongo_db, self.cassandra_hosts)
    }
}

/// Which daily preset, and for how many users.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DailyConfig {
    pub preset: DailyPreset,
    pub users: u32,
}

/// A request that the history, the room or the user service answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Endpoint {
    LoadHistory,
    GetThread,
    MarkRead,
    ReadReceipt,
    AddMembers,
    ListRooms,
    CreateRoom,
    ToggleMute,
}

impl Endpoint {
    pub const ALL: [Self; 8] = [
        Self::LoadHistory,
        Self::GetThread,
        Self::MarkRead,
        Self::ReadReceipt,
        Self::AddMembers,
        Self::ListRooms,
        Self::CreateRoom,
        Self::ToggleMute,
    ];

    /// The end of its subjects.
    pub const fn operation(self) -> &'static str {
        match self {
            Self::LoadHistory => subjects::LOAD_HISTORY,
            Self::GetThread => subjects::GET_THREAD,
            Self::MarkRead => subjects::MARK_READ,
            Self::ReadReceipt => subjects::READ_RECEIPT,
            Self::AddMembers => subjects::ADD_MEMBERS,
            Self::ListRooms => subjects::LIST_ROOMS,
            Self::CreateRoom => "create",
            Self::ToggleMute => subjects::TOGGLE_MUTE,
        }
    }

    /// The queue group of the service that answers it.
    pub const fn service(self) -> &'static str {
        match self {
            Self::LoadHistory | Self::GetThread => "history-service",
            Self::MarkRead | Self::ReadReceipt | Self::AddMembers | Self::CreateRoom | Self::ToggleMute => {
                "room-service"
            }
            Self::ListRooms => "user-service",
        }
    }

    /// All its requests at a site.
    pub fn wildcard(self, site: &str) -> String {
        match self {
            Self::ListRooms => subjects::user_request("*", site, self.operation()),
            Self::CreateRoom => subjects::create_room("*", site),
            _ => subjects::room_request_wildcard(site, self.operation()),
        }
    }
}

/// How an endpoint behaves. "Every n-th" counts the requests that it answers, from the first.
#[derive(Debug, Clone, Default)]
pub struct EndpointConfig {
    /// How fast it is.
    pub speed: StageConfig,
    /// Answers every n-th request with an error envelope.
    pub reject: Option<(NonZeroU64, Refusal)>,
    /// Does not answer every n-th request.
    pub skip_every: Option<NonZeroU64>,
    /// Says something that is no JSON instead of every n-th answer.
    pub garbage_every: Option<NonZeroU64>,
    /// Sends every n-th answer twice.
    pub duplicate_every: Option<NonZeroU64>,
    /// With every n-th answer, answers a request that nobody made, to the same inbox.
    pub foreign_every: Option<NonZeroU64>,
}

impl StandinConfig {
    /// How an endpoint behaves, to be changed.
    pub fn endpoint_mut(&mut self, endpoint: Endpoint) -> &mut EndpointConfig {
        &mut self.endpoints[endpoint as usize]
    }

    /// How an endpoint behaves.
    pub fn endpoint(&self, endpoint: Endpoint) -> &EndpointConfig {
        &self.endpoints[endpoint as usize]
    }

    /// A healthy backend without limits: preset small, seed 42, site `site-local`, streams in memory.
    pub fn new(nats_url: impl Into<String>) -> Self {
        Self {
            nats_url: nats_url.into(),
            creds: None,
            preset: MessagesPreset::Small,
            seed: 42,
            site: "site-local".to_owned(),
            storage: Storage::Memory,
            purge: false,
            gatekeeper: StageConfig::default(),
            message_worker: StageConfig::default(),
            broadcast_worker: StageConfig::default(),
            notification_worker: StageConfig::default(),
            room_worker: StageConfig::default(),
            large_room_threshold: 500,
            encrypted: false,
            thread_metadata: false,
            gate_faults: GateFaults::default(),
            broadcast_faults: BroadcastFaults::default(),
            member_event_faults: BroadcastFaults::default(),
            incidents: Vec::new(),
            incidents_from: Trigger::Ready,
            parents_per_room: 8,
            history: HistoryPreset::Small,
            members: MembersPreset::Small,
            daily: None,
            fan_out_capacity: None,
            presence_drop_every: None,
            endpoints: Default::default(),
            databases: None,
        }
    }

    /// How one stage behaves.
    pub fn stage(&self, stage: Stage) -> StageConfig {
        match stage {
            Stage::Gatekeeper => self.gatekeeper,
            Stage::MessageWorker => self.message_worker,
            Stage::BroadcastWorker => {
                let capacity = self.fan_out_capacity.or(self.broadcast_worker.capacity);
                StageConfig { capacity, ..self.broadcast_worker }
            }
            Stage::NotificationWorker => self.notification_worker,
            Stage::RoomWorker => self.room_worker,
        }
    }

    /// As [`stage`](Self::stage), to be changed.
    pub fn stage_mut(&mut self, stage: Stage) -> &mut StageConfig {
        match stage {
            Stage::Gatekeeper => &mut self.gatekeeper,
            Stage::MessageWorker => &mut self.message_worker,
            Stage::BroadcastWorker => &mut self.broadcast_worker,
            Stage::NotificationWorker => &mut self.notification_worker,
            Stage::RoomWorker => &mut self.room_worker,
        }
    }

    /// # Errors
    /// Names the first setting that makes no sense.
    pub fn check(&self) -> anyhow::Result<()> {
        ensure!(subjects::is_token(&self.site), "site {:?} is not one token of a subject", self.site);
        for stage in Stage::ALL {
            if let Some(capacity) = self.stage(stage).capacity {
                check_capacity(capacity).with_context(|| format!("capacity of {stage}"))?;
            }
        }
        for endpoint in Endpoint::ALL {
            if let Some(capacity) = self.endpoint(endpoint).speed.capacity {
                check_capacity(capacity).with_context(|| format!("capacity of {}", endpoint.operation()))?;
            }
        }
        for faults in [&self.broadcast_faults, &self.member_event_faults] {
            let fraction = faults.drop_fraction;
            ensure!((0.0..=1.0).contains(&fraction), "fraction of broadcasts to drop: {fraction} is not within 0 to 1");
        }
        Ok(())
    }
}

/// # Errors
/// If it is not a rate between 0.001 and 10 million messages per second.
pub(super) fn check_capacity(capacity: f64) -> anyhow::Result<()> {
    ensure!((0.001..=1e7).contains(&capacity), "{capacity} is not within 0.001 and 10,000,000 messages per second");
    Ok(())
}

/// Where the streams keep their messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Storage {
    File,
    Memory,
}

/// A consumer of the pipeline, or of what is to be done to rooms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    Gatekeeper,
    MessageWorker,
    BroadcastWorker,
    NotificationWorker,
    RoomWorker,
}

impl Stage {
    pub const ALL: [Self; 5] =
        [Self::Gatekeeper, Self::MessageWorker, Self::BroadcastWorker, Self::NotificationWorker, Self::RoomWorker];

    /// Those that every message passes.
    pub const PIPELINE: [Self; 4] =
        [Self::Gatekeeper, Self::MessageWorker, Self::BroadcastWorker, Self::NotificationWorker];

    /// The name of the stage and of its durable.
    pub const fn durable(self) -> &'static str {
        match self {
            Self::Gatekeeper => subjects::GATEKEEPER,
            Self::MessageWorker => subjects::MESSAGE_WORKER,
            Self::BroadcastWorker => subjects::BROADCAST_WORKER,
            Self::NotificationWorker => subjects::NOTIFICATION_WORKER,
            Self::RoomWorker => subjects::ROOM_WORKER,
        }
    }

    /// The stream that the durable reads.
    pub fn stream(self, site: &str) -> String {
        match self {
            Self::Gatekeeper => subjects::messages_stream(site),
            Self::RoomWorker => subjects::rooms_stream(site),
            _ => subjects::canonical_stream(site),
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.durable())
    }
}

impl FromStr for Stage {
    type Err = anyhow::Error;

    fn from_str(given: &str) -> anyhow::Result<Self> {
        Self::ALL
            .into_iter()
            .find(|stage| stage.durable() == given)
            .with_context(|| format!("unknown stage {given:?}: there are {}", Self::ALL.map(Stage::durable).join(", ")))
    }
}

/// How fast a stage is. By default as fast as it can, without a delay.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct StageConfig {
    /// Messages per second; none for as fast as the box allows.
    pub capacity: Option<f64>,
    /// Added after the service, to each message alone: it takes no capacity.
    pub latency: Latency,
}

/// A delay that a stage adds to each message.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Latency {
    #[default]
    None,
    Fixed(Duration),
    Uniform(Duration, Duration),
    /// With this mean.
    Exponential(Duration),
}

impl FromStr for Latency {
    type Err = anyhow::Error;

    /// `5ms`, `uniform:1ms..9ms` or `exp:5ms`.
    fn from_str(given: &str) -> anyhow::Result<Self> {
        let parsed = if let Some(range) = given.strip_prefix("uniform:") {
            let (from, to) = range.split_once("..").context("a range is written 1ms..9ms")?;
            let (from, to) = (duration(from)?, duration(to)?);
            ensure!(from <= to, "the range {range} ends before it starts");
            Self::Uniform(from, to)
        } else if let Some(mean) = given.strip_prefix("exp:") {
            Self::Exponential(duration(mean)?)
        } else {
            Self::Fixed(duration(given)?)
        };
        Ok(parsed)
    }
}

/// What the gatekeeper does wrong. "Every n-th" counts the sends that it looks at, from the first.
#[derive(Debug, Clone, Default)]
pub struct GateFaults {
    /// Refuses every n-th valid send.
    pub reject: Option<(NonZeroU64, Refusal)>,
    /// Accepts every n-th and does not say so.
    pub skip_reply_every: Option<NonZeroU64>,
    /// Says something that is no JSON instead of every n-th reply.
    pub garbage_reply_every: Option<NonZeroU64>,
    /// Sends every n-th reply twice.
    pub duplicate_reply_every: Option<NonZeroU64>,
    /// After every n-th reply, answers a request that nobody made, on the same account's response subject.
    pub foreign_reply_every: Option<NonZeroU64>,
}

/// What the broadcast worker does wrong, or the room worker with member events.
#[derive(Debug, Clone, Default)]
pub struct BroadcastFaults {
    /// Keeps every n-th message to itself; 1 drops all.
    pub drop_every: Option<NonZeroU64>,
    /// Keeps this fraction of messages to itself, drawn from the seed; 0 to 1.
    pub drop_fraction: f64,
    /// Broadcasts every n-th message twice.
    pub duplicate_every: Option<NonZeroU64>,
    /// After every n-th, broadcasts a message that nobody sent, to the same room.
    pub foreign_every: Option<NonZeroU64>,
}

/// A reason for which a service refuses, with the chat's own words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    NotSubscribed,
    LargeRoom,
    ContentEmpty,
    ContentTooLong,
    MessageId,
    Unmarshal,
    Unavailable,
    Internal,
    ParentId,
    ParentNotFound,
    NotRoomMember,
    UserNotFound,
    AlreadyMember,
}

impl Refusal {
    pub const ALL: [Self; 13] = [
        Self::NotSubscribed,
        Self::LargeRoom,
        Self::ContentEmpty,
        Self::ContentTooLong,
        Self::MessageId,
        Self::Unmarshal,
        Self::Unavailable,
        Self::Internal,
        Self::ParentId,
        Self::ParentNotFound,
        Self::NotRoomMember,
        Self::UserNotFound,
        Self::AlreadyMember,
    ];

    /// Code, reason and text of the envelope.
    pub const fn envelope(self) -> (&'static str, Option<&'static str>, &'static str) {
        match self {
            Self::NotSubscribed => ("forbidden", Some("not_subscribed"), "not subscribed"),
            Self::LargeRoom => (
                "forbidden",
                Some("large_room_post_restricted"),
                "posting is restricted to owners and admins in this room",
            ),
            Self::ContentEmpty => ("bad_request", None, "content must not be empty"),
            Self::ContentTooLong => ("bad_request", None, "content exceeds maximum size of 20480 bytes"),
            Self::MessageId => ("bad_request", None, "invalid message ID: must be a 20-char base62 string"),
            Self::Unmarshal => ("bad_request", None, "unmarshal send message request"),
            Self::Unavailable => ("unavailable", None, "fetch quoted parent message"),
            Self::Internal => ("internal", None, "internal error"),
            Self::ParentId => {
                ("bad_request", None, "invalid thread parent message ID: must be a 20-char base62 string")
            }
            Self::ParentNotFound => ("not_found", None, "message not found"),
            Self::NotRoomMember => ("forbidden", Some("not_room_member"), "only room members can perform this action"),
            Self::UserNotFound => ("not_found", Some("user_not_found"), "user not found"),
            Self::AlreadyMember => ("conflict", Some("already_member"), "user is already a member of the room"),
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::NotSubscribed => "not_subscribed",
            Self::LargeRoom => "large_room_post_restricted",
            Self::ContentEmpty => "content_empty",
            Self::ContentTooLong => "content_too_long",
            Self::MessageId => "message_id",
            Self::Unmarshal => "unmarshal",
            Self::Unavailable => "unavailable",
            Self::Internal => "internal",
            Self::ParentId => "parent_id",
            Self::ParentNotFound => "parent_not_found",
            Self::NotRoomMember => "not_room_member",
            Self::UserNotFound => "user_not_found",
            Self::AlreadyMember => "already_member",
        }
    }
}

impl FromStr for Refusal {
    type Err = anyhow::Error;

    fn from_str(given: &str) -> anyhow::Result<Self> {
        Self::ALL
            .into_iter()
            .find(|refusal| refusal.name() == given)
            .with_context(|| format!("unknown reason {given:?}: there are {}", Self::ALL.map(Refusal::name).join(", ")))
    }
}

/// Something that happens to a stage at a set time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Incident {
    /// One stage, or all of them.
    pub stage: Option<Stage>,
    /// How long after the trigger.
    pub after: Duration,
    pub what: Mishap,
}

/// What can happen to a stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mishap {
    /// It serves nothing for so long.
    Stall(Duration),
    /// Its durable is deleted, and made anew so long after, if ever.
    Vanish { back_after: Option<Duration> },
}

/// From when incidents count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Trigger {
    /// From when the durables exist.
    Ready,
    /// From the stage's own first message.
    FirstMessage,
}

impl Incident {
    /// `STAGE:LENGTH@AFTER` such as `message-worker:1s@5s`; the stage may be `all`.
    ///
    /// # Errors
    /// Says which part is wrong.
    pub fn parse_stall(given: &str) -> anyhow::Result<Self> {
        let (what, after) = given.split_once('@').context("a stall is written STAGE:LENGTH@AFTER")?;
        let (stage, length) = what.split_once(':').context("a stall is written STAGE:LENGTH@AFTER")?;
        let stage = if stage == "all" { None } else { Some(stage.parse()?) };
        Ok(Self { stage, after: duration(after)?, what: Mishap::Stall(duration(length)?) })
    }

    /// `STAGE@AFTER` or `STAGE@AFTER+BACK` such as `message-worker@5s+2s`.
    ///
    /// # Errors
    /// Says which part is wrong.
    pub fn parse_vanish(given: &str) -> anyhow::Result<Self> {
        let (stage, when) = given.split_once('@').context("a vanishing is written STAGE@AFTER or STAGE@AFTER+BACK")?;
        let (after, back) = match when.split_once('+') {
            Some((after, back)) => (after, Some(duration(back)?)),
            None => (when, None),
        };
        let what = Mishap::Vanish { back_after: back };
        Ok(Self { stage: Some(stage.parse()?), after: duration(after)?, what })
    }
}

/// `N:REASON` such as `10:not_subscribed`.
///
/// # Errors
/// Says which part is wrong.
pub fn parse_reject(given: &str) -> anyhow::Result<(NonZeroU64, Refusal)> {
    let Some((every, reason)) = given.split_once(':') else { bail!("a rejection is written N:REASON") };
    Ok((every.parse().with_context(|| format!("{every:?} is no positive number"))?, reason.parse()?))
}

/// An endpoint by its short name, and the rest after its colon.
fn endpoint(given: &str) -> anyhow::Result<(Endpoint, &str)> {
    const NAMES: [&str; Endpoint::ALL.len()] =
        ["history", "thread", "mark-read", "read-receipt", "member-add", "room-list", "room-create", "mute"];
    let (name, rest) = given.split_once(':').context("begin with an endpoint and a colon")?;
    let at = NAMES.iter().position(|known| *known == name);
    let at = at.with_context(|| format!("unknown endpoint {name:?}: there are {}", NAMES.join(", ")))?;
    Ok((Endpoint::ALL[at], rest))
}

/// `history:800`.
///
/// # Errors
/// Says which part is wrong.
pub fn parse_endpoint_capacity(given: &str) -> anyhow::Result<(Endpoint, f64)> {
    let (endpoint, rate) = endpoint(given)?;
    Ok((endpoint, rate.parse().with_context(|| format!("{rate:?} is no number"))?))
}

/// `thread:exp:5ms`.
///
/// # Errors
/// Says which part is wrong.
pub fn parse_endpoint_latency(given: &str) -> anyhow::Result<(Endpoint, Latency)> {
    let (endpoint, latency) = endpoint(given)?;
    Ok((endpoint, latency.parse()?))
}

/// `history:10:internal`.
///
/// # Errors
/// Says which part is wrong.
pub fn parse_endpoint_reject(given: &str) -> anyhow::Result<(Endpoint, (NonZeroU64, Refusal))> {
    let (endpoint, reject) = endpoint(given)?;
    Ok((endpoint, parse_reject(reject)?))
}

/// `0.1` or `10%`.
///
/// # Errors
/// If it is not within 0 to 1.
pub fn parse_fraction(given: &str) -> anyhow::Result<f64> {
    let number =
        |text: &str| text.parse::<f64>().with_context(|| format!("{given:?} is no fraction such as 0.1 or 10%"));
    let fraction = match given.strip_suffix('%') {
        Some(percent) => number(percent)? / 100.0,
        None => number(given)?,
    };
    ensure!((0.0..=1.0).contains(&fraction), "{given} is not within 0 to 1");
    Ok(fraction)
}

fn duration(given: &str) -> anyhow::Result<Duration> {
    humantime::parse_duration(given).with_context(|| format!("{given:?} is no duration such as 5ms or 1s"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn latencies_are_read() {
        assert_eq!("5ms".parse::<Latency>().unwrap(), Latency::Fixed(5 * MS));
        assert_eq!("uniform:1ms..9ms".parse::<Latency>().unwrap(), Latency::Uniform(MS, 9 * MS));
        assert_eq!("exp:5ms".parse::<Latency>().unwrap(), Latency::Exponential(5 * MS));
        for wrong in ["", "5", "uniform:5ms", "uniform:9ms..1ms", "exp:"] {
            assert!(wrong.parse::<Latency>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn incidents_are_read() {
        let stall = Incident::parse_stall("message-worker:1s@5s").unwrap();
        assert_eq!(stall.stage, Some(Stage::MessageWorker));
        assert_eq!((stall.after, stall.what), (5_000 * MS, Mishap::Stall(1_000 * MS)));
        assert_eq!(Incident::parse_stall("all:1s@5s").unwrap().stage, None);
        let vanish = Incident::parse_vanish("broadcast-worker@5s+2s").unwrap();
        assert_eq!(vanish.what, Mishap::Vanish { back_after: Some(2_000 * MS) });
        for wrong in ["worker:1s@5s", "message-worker:1s", "message-worker@5s", "all:x@1s"] {
            assert!(Incident::parse_stall(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn endpoints_are_read() {
        assert_eq!(parse_endpoint_capacity("history:800").unwrap(), (Endpoint::LoadHistory, 800.0));
        assert_eq!(parse_endpoint_latency("thread:5ms").unwrap(), (Endpoint::GetThread, Latency::Fixed(5 * MS)));
        let (endpoint, (every, refusal)) = parse_endpoint_reject("mark-read:10:internal").unwrap();
        assert_eq!((endpoint, every.get(), refusal), (Endpoint::MarkRead, 10, Refusal::Internal));
        let error = parse_endpoint_capacity("read:1").unwrap_err().to_string();
        assert!(error.contains("read-receipt"), "{error}");
    }

    #[test]
    fn fractions_are_read() {
        assert_eq!((parse_fraction("10%").unwrap(), parse_fraction("0.1").unwrap()), (0.1, 0.1));
        assert!(["", "x", "101%", "-1", "nan"].iter().all(|wrong| parse_fraction(wrong).is_err()));
    }

    #[test]
    fn rejections_are_read_and_an_unknown_reason_lists_all() {
        assert_eq!(parse_reject("10:not_subscribed").unwrap(), (NonZeroU64::new(10).unwrap(), Refusal::NotSubscribed));
        assert!(parse_reject("0:internal").is_err());
        let error = parse_reject("3:bad").unwrap_err().to_string();
        assert!(error.contains("large_room_post_restricted"), "{error}");
    }
}
