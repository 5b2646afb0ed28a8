//! Asking who has read one's own messages.

use super::{
    BadSetting, Entry, Given, ObservationKind, ObservationSpec, READ_STEPS, REPLY_BYTES, ROOM_SERVICE, SITE_ID,
    ServiceProbe, Workload, WorkloadPlan, preset,
};
use crate::contract::fixtures::{Fixtures, Room};
use crate::contract::history::{HistoryPreset, room_weight};
use crate::contract::subjects;

pub(super) const ENTRY: Entry = Entry {
    name: "read-receipt",
    summary: "members ask who has read their own messages",
    settings: &[preset("Fixtures to use: history-small, history-medium or history-large"), SITE_ID],
    defaults: &[READ_STEPS],
    observations: &[
        REPLY_BYTES,
        ObservationSpec { name: "readers", words: "readers per reply", kind: ObservationKind::Size },
    ],
    read,
};

/// Members ask who has read their own messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadReceiptWorkload {
    /// The fixtures.
    pub preset: HistoryPreset,
    /// A literal token in subjects.
    pub site_id: String,
}

fn read(given: &Given<'_>) -> Result<Workload, BadSetting> {
    let preset = given.parsed("preset", "history-small, history-medium or history-large")?;
    Ok(Workload::ReadReceipt(ReadReceiptWorkload { preset, site_id: given.token("site-id")? }))
}

impl WorkloadPlan for ReadReceiptWorkload {
    fn service_probes(&self) -> Vec<ServiceProbe> {
        vec![ServiceProbe::about_room(subjects::READ_RECEIPT, &self.site_id, ROOM_SERVICE)]
    }

    fn settings(&self) -> Vec<(&'static str, String)> {
        vec![("preset", self.preset.to_string()), ("site-id", self.site_id.clone())]
    }

    fn series(&self) -> Vec<String> {
        vec!["read-receipt".to_owned()]
    }

    fn preset(&self) -> String {
        self.preset.to_string()
    }

    fn fixtures(&self, seed: u64) -> Option<Fixtures> {
        Some(self.preset.fixtures(seed, &self.site_id))
    }

    fn room_weight(&self, room: &Room) -> f64 {
        room_weight(room.index)
    }
}
