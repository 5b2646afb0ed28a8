//! Adding members to rooms.

use super::{
    BadSetting, Entry, Given, Pool, ROOM_SERVICE, SITE_ID, ServiceProbe, SettingDefault, SettingKind, Workload,
    WorkloadPlan, WorkloadSetting, preset,
};
use crate::contract::fixtures::Fixtures;
use crate::contract::members::MembersPreset;
use crate::contract::subjects;

pub(super) const ENTRY: Entry = Entry {
    name: "members",
    summary: "members add users to rooms, each candidate once: E1 the reply, E2 the room's member event",
    settings: &[
        preset(
            "Fixtures to use: members-small, members-medium, members-heavy, members-capacity or members-capacity-xl",
        ),
        USERS_PER_ADD,
        SITE_ID,
    ],
    // What the pool of members-medium carries.
    defaults: &[("steps", "100,200,500,1k")],
    observations: &[],
    read,
};

const PRESETS: &str = "members-small, members-medium, members-heavy, members-capacity or members-capacity-xl";

const USERS_PER_ADD: WorkloadSetting = WorkloadSetting {
    name: "users-per-add",
    variable: "PLIMSOLL_USERS_PER_ADD",
    native: None,
    value: "COUNT",
    default: SettingDefault::Text("1"),
    kind: SettingKind::One,
    help: "Users added per request, 1 to 50; the more, the sooner the preset's candidates run out",
};

/// What a stored job takes: the request, and what the room service adds to it.
const JOB_BYTES: u64 = 300;
/// What each user takes in it.
const ACCOUNT_BYTES: u64 = 16;

/// Members add users to rooms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MembersWorkload {
    /// The fixtures.
    pub preset: MembersPreset,
    /// A literal token in subjects and stream names.
    pub site_id: String,
    /// Users that a request adds.
    pub users_per_add: u32,
}

impl MembersWorkload {
    /// Requests that a room's candidates last for.
    pub fn adds_per_room(&self) -> u32 {
        self.preset.shape().candidates / self.users_per_add
    }

    fn operations(&self) -> u64 {
        u64::from(self.preset.shape().rooms) * u64::from(self.adds_per_room())
    }
}

fn read(given: &Given<'_>) -> Result<Workload, BadSetting> {
    Ok(Workload::Members(MembersWorkload {
        preset: given.parsed("preset", PRESETS)?,
        site_id: given.token("site-id")?,
        users_per_add: given.number("users-per-add", 1, 50)? as u32,
    }))
}

impl WorkloadPlan for MembersWorkload {
    fn service_probes(&self) -> Vec<ServiceProbe> {
        vec![ServiceProbe::about_room(subjects::ADD_MEMBERS, &self.site_id, ROOM_SERVICE)]
    }

    fn settings(&self) -> Vec<(&'static str, String)> {
        vec![
            ("preset", self.preset.to_string()),
            ("site-id", self.site_id.clone()),
            ("users-per-add", self.users_per_add.to_string()),
        ]
    }

    fn series(&self) -> Vec<String> {
        vec!["E1".to_owned(), "E2".to_owned()]
    }

    fn preset(&self) -> String {
        self.preset.to_string()
    }

    fn streams(&self) -> Vec<(String, u64)> {
        let bytes = JOB_BYTES + ACCOUNT_BYTES * u64::from(self.users_per_add);
        vec![(subjects::rooms_stream(&self.site_id), bytes)]
    }

    fn durables(&self) -> Vec<String> {
        vec![subjects::ROOM_WORKER.to_owned()]
    }

    fn stream_of(&self, durable: &str) -> Option<String> {
        match durable {
            subjects::ROOM_WORKER => Some(subjects::rooms_stream(&self.site_id)),
            // The system message of every addition goes through the pipeline.
            _ => Some(super::messages::pipeline_stream(durable, &self.site_id)),
        }
    }

    fn fixtures(&self, seed: u64) -> Option<Fixtures> {
        Some(self.preset.fixtures(seed, &self.site_id))
    }

    fn pool(&self) -> Option<Pool> {
        let shape = self.preset.shape();
        let mut larger: Vec<(String, u64)> = MembersPreset::ALL
            .into_iter()
            .map(|preset| (format!("--preset {preset}"), Self { preset, ..self.clone() }.operations()))
            .collect();
        if self.users_per_add > 1 {
            larger.push(("--users-per-add 1".to_owned(), Self { users_per_add: 1, ..self.clone() }.operations()));
        }
        larger.retain(|(_, operations)| *operations > self.operations());
        larger.sort_by_key(|(_, operations)| *operations);
        Some(Pool {
            operations: self.operations(),
            words: format!(
                "{} has {} candidates in each of {} rooms, {} per operation",
                self.preset, shape.candidates, shape.rooms, self.users_per_add
            ),
            larger,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pool_says_what_would_carry_more() {
        let workload = |preset, users_per_add| MembersWorkload { preset, site_id: "s".into(), users_per_add };
        let pool = workload(MembersPreset::Medium, 10).pool().unwrap();
        assert_eq!(pool.operations, 9_000);
        assert_eq!(pool.words, "members-medium has 900 candidates in each of 100 rooms, 10 per operation");
        let larger: Vec<(&str, u64)> = pool.larger.iter().map(|(what, count)| (what.as_str(), *count)).collect();
        assert_eq!(larger, [("--preset members-heavy", 69_300), ("--users-per-add 1", 90_000)]);
        // What is left over of a room is too little for a request.
        assert_eq!(workload(MembersPreset::Small, 20).pool().unwrap().operations, 10);
        assert!(workload(MembersPreset::Heavy, 1).pool().unwrap().larger.is_empty());
    }
}
