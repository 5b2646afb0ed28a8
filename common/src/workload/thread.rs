//! Thread replies through the front door.

use super::messages::{memberships, pipeline_stream};
use super::{
    BadSetting, Entry, Given, SITE_ID, SeedProbe, SettingDefault, SettingKind, Workload, WorkloadPlan, WorkloadSetting,
    preset,
};
use crate::contract::fixtures::Fixtures;
use crate::contract::presets::MessagesPreset;
use crate::contract::subjects;

pub(super) const ENTRY: Entry = Entry {
    name: "thread",
    summary: "replies in threads through the chat's pipeline: E1 their reply, E2 the sender's own copy of the broadcast",
    settings: &[preset("Fixtures to use: small, medium, large or realistic"), PARENTS, SITE_ID],
    defaults: &[],
    observations: &[],
    read,
};

const PARENTS: WorkloadSetting = WorkloadSetting {
    name: "parents-per-room",
    variable: "PLIMSOLL_PARENTS_PER_ROOM",
    native: None,
    value: "COUNT",
    default: SettingDefault::Text("8"),
    kind: SettingKind::One,
    help: "Messages seeded in each room as parents of threads, 1 to 1000",
};

/// Thread replies: send, reply, broadcast.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ThreadWorkload {
    /// The fixtures.
    pub preset: MessagesPreset,
    /// A literal token in subjects and stream names.
    pub site_id: String,
    /// Parents of threads in every room.
    pub parents_per_room: u16,
}

fn read(given: &Given<'_>) -> Result<Workload, BadSetting> {
    Ok(Workload::Thread(ThreadWorkload {
        preset: given.parsed("preset", "small, medium, large or realistic")?,
        site_id: given.token("site-id")?,
        parents_per_room: given.number("parents-per-room", 1, 1000)? as u16,
    }))
}

impl WorkloadPlan for ThreadWorkload {
    fn seed_probes(&self, seed: u64, nonce: u64) -> Vec<SeedProbe> {
        memberships(&Fixtures::build(self.preset, seed, &self.site_id), &self.site_id, nonce)
    }

    fn settings(&self) -> Vec<(&'static str, String)> {
        vec![
            ("preset", self.preset.to_string()),
            ("site-id", self.site_id.clone()),
            ("parents-per-room", self.parents_per_room.to_string()),
        ]
    }

    fn series(&self) -> Vec<String> {
        vec!["E1".to_owned(), "E2".to_owned()]
    }

    fn preset(&self) -> String {
        self.preset.to_string()
    }

    fn streams(&self) -> Vec<(String, u64)> {
        let content = self.preset.shape().content_bytes;
        let mean_bytes = u64::from((content.start() + content.end()) / 2);
        [subjects::messages_stream(&self.site_id), subjects::canonical_stream(&self.site_id)]
            .map(|stream| (stream, mean_bytes))
            .to_vec()
    }

    fn durables(&self) -> Vec<String> {
        [subjects::MESSAGE_WORKER, subjects::BROADCAST_WORKER].map(str::to_owned).to_vec()
    }

    fn stream_of(&self, durable: &str) -> Option<String> {
        Some(pipeline_stream(durable, &self.site_id))
    }

    fn fixtures(&self, seed: u64) -> Option<Fixtures> {
        Some(Fixtures::build(self.preset, seed, &self.site_id))
    }
}
