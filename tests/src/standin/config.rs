//! What a stand-in backend is told: where it lives, how fast each stage is, and what it does wrong.

mod endpoint;
mod faults;
mod incident;
mod parse;
mod stage;

use std::num::NonZeroU64;
use std::path::PathBuf;

use anyhow::{Context as _, ensure};
use plimsoll_common::contract::daily::DailyPreset;
use plimsoll_common::contract::history::HistoryPreset;
use plimsoll_common::contract::members::MembersPreset;
use plimsoll_common::contract::presets::MessagesPreset;
use plimsoll_common::contract::subjects;

pub use self::endpoint::{Endpoint, EndpointConfig};
pub use self::faults::{BroadcastFaults, GateFaults, Refusal};
pub use self::incident::{Incident, Mishap, Trigger};
pub use self::parse::{
    parse_endpoint_capacity, parse_endpoint_latency, parse_endpoint_reject, parse_fraction, parse_reject,
};
pub use self::stage::{Latency, Stage, StageConfig};

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
