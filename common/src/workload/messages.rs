//! The message pipeline: send, reply, broadcast.

use std::fmt;
use std::str::FromStr;

use super::{
    BadSetting, Entry, Given, SITE_ID, SeedProbe, SettingDefault, SettingKind, Workload, WorkloadPlan, WorkloadSetting,
    preset,
};
use crate::contract::fixtures::{Fixtures, Room, account};
use crate::contract::presets::MessagesPreset;
use crate::contract::subjects;

pub(super) const ENTRY: Entry = Entry {
    name: "messages",
    summary: "messages through the chat's pipeline: E1 their reply, E2 their broadcast",
    settings: &[preset("Fixtures to use: small, medium, large or realistic"), INJECT, SITE_ID],
    defaults: &[],
    observations: &[],
    read,
};

const INJECT: WorkloadSetting = WorkloadSetting {
    name: "inject",
    variable: "PLIMSOLL_INJECT",
    native: None,
    value: "WHERE",
    default: SettingDefault::Text("frontdoor"),
    kind: SettingKind::One,
    help: "Where messages enter: frontdoor (as a user sends them) or canonical (into JetStream, past the gatekeeper)",
};

/// The message pipeline: send, reply, broadcast.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessagesWorkload {
    /// The fixtures.
    pub preset: MessagesPreset,
    /// A literal token in subjects and stream names.
    pub site_id: String,
    /// Where messages enter.
    pub inject: Inject,
}

fn read(given: &Given<'_>) -> Result<Workload, BadSetting> {
    Ok(Workload::Messages(MessagesWorkload {
        site_id: given.token("site-id")?,
        preset: given.parsed("preset", "small, medium, large or realistic")?,
        inject: given.parsed("inject", "frontdoor or canonical")?,
    }))
}

impl WorkloadPlan for MessagesWorkload {
    fn settings(&self) -> Vec<(&'static str, String)> {
        vec![
            ("preset", self.preset.to_string()),
            ("site-id", self.site_id.clone()),
            ("inject", self.inject.to_string()),
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
        let canonical = (subjects::canonical_stream(&self.site_id), mean_bytes);
        match self.inject {
            Inject::Frontdoor => vec![(subjects::messages_stream(&self.site_id), mean_bytes), canonical],
            Inject::Canonical => vec![canonical],
        }
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

    fn seed_probes(&self, seed: u64, nonce: u64) -> Vec<SeedProbe> {
        // Past the gatekeeper nobody answers who is no member.
        if self.inject == Inject::Canonical {
            return Vec::new();
        }
        memberships(&Fixtures::build(self.preset, seed, &self.site_id), &self.site_id, nonce)
    }
}

/// Memberships of these fixtures, spread over their rooms.
pub(super) fn memberships(fixtures: &Fixtures, site: &str, nonce: u64) -> Vec<SeedProbe> {
    let rooms: Vec<&Room> = fixtures.rooms.iter().filter(|room| !room.members.is_empty()).collect();
    let count = rooms.len().min(SEED_PROBES);
    (0..count)
        .map(|number| {
            let room = rooms[number * rooms.len() / count];
            seed_probe(&room.id(), &account(room.members[number % room.members.len()]), site, nonce, number)
        })
        .collect()
}

/// Memberships that are asked for, spread over all rooms: presets and seeds differ in more than one of so many.
const SEED_PROBES: usize = 32;

/// A send that quotes a message which does not exist: the gatekeeper looks at the membership first and at the quote then,
/// refuses for the one or for the other, and passes nothing on.
pub(super) fn seed_probe(room_id: &str, account: &str, site: &str, nonce: u64, number: usize) -> SeedProbe {
    let message_id = format!("{nonce:012}{number:08}");
    let request_id = format!("00000000-0000-4000-8000-{:012x}", (nonce << 6 | number as u64) & 0xffff_ffff_ffff);
    SeedProbe {
        membership: format!("{account} in {room_id}"),
        subject: subjects::send(account, room_id, site),
        payload: format!(
            "{{\"id\":\"{message_id}\",\"content\":\"preflight\",\"requestId\":\"{request_id}\",\
             \"quotedParentMessageId\":\"{message_id}\"}}"
        ),
        answer: subjects::response(account, &request_id),
    }
}

/// The stream of a durable of the message pipeline: the gatekeeper reads sends, all others what it accepted.
pub(super) fn pipeline_stream(durable: &str, site: &str) -> String {
    if durable == subjects::GATEKEEPER { subjects::messages_stream(site) } else { subjects::canonical_stream(site) }
}

/// Where messages enter the pipeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inject {
    /// As a user does; E1 is the gatekeeper's reply.
    Frontdoor,
    /// Into JetStream, past the gatekeeper; E1 is the publish acknowledgement.
    Canonical,
}

/// Why a text is no way to inject.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{got}' is no way to inject: give frontdoor or canonical")]
pub struct InjectError {
    got: String,
}

impl FromStr for Inject {
    type Err = InjectError;

    fn from_str(text: &str) -> Result<Self, InjectError> {
        match text {
            "frontdoor" => Ok(Self::Frontdoor),
            "canonical" => Ok(Self::Canonical),
            _ => Err(InjectError { got: text.to_owned() }),
        }
    }
}

impl fmt::Display for Inject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Frontdoor => "frontdoor",
            Self::Canonical => "canonical",
        })
    }
}
