//! Marking rooms as read.

use super::{
    BadSetting, Entry, Given, READ_STEPS, ROOM_SERVICE, SITE_ID, ServiceProbe, Workload, WorkloadPlan, preset,
};
use crate::contract::fixtures::Fixtures;
use crate::contract::presets::MessagesPreset;
use crate::contract::subjects;

pub(super) const ENTRY: Entry = Entry {
    name: "room-read",
    summary: "members mark rooms as read",
    settings: &[preset("Fixtures to use: small, medium, large or realistic"), SITE_ID],
    defaults: &[READ_STEPS],
    observations: &[],
    read,
};

/// Members mark rooms as read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomReadWorkload {
    /// The fixtures.
    pub preset: MessagesPreset,
    /// A literal token in subjects.
    pub site_id: String,
}

fn read(given: &Given<'_>) -> Result<Workload, BadSetting> {
    let preset = given.parsed("preset", "small, medium, large or realistic")?;
    Ok(Workload::RoomRead(RoomReadWorkload { preset, site_id: given.token("site-id")? }))
}

impl WorkloadPlan for RoomReadWorkload {
    fn service_probes(&self) -> Vec<ServiceProbe> {
        vec![ServiceProbe::about_room(subjects::MARK_READ, &self.site_id, ROOM_SERVICE)]
    }

    fn settings(&self) -> Vec<(&'static str, String)> {
        vec![("preset", self.preset.to_string()), ("site-id", self.site_id.clone())]
    }

    fn series(&self) -> Vec<String> {
        vec!["room-read".to_owned()]
    }

    fn preset(&self) -> String {
        self.preset.to_string()
    }

    fn fixtures(&self, seed: u64) -> Option<Fixtures> {
        Some(Fixtures::build(self.preset, seed, &self.site_id))
    }
}
