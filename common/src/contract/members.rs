//! Adding members to rooms: the rooms of the members presets, who waits outside of each to be added, and the bodies.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use bytes::{BufMut as _, BytesMut};
use serde::Deserialize;

use super::fixtures::{Family, Fixtures, Room, RoomKind, account};
use super::permutation::{Permutation, Purpose, stream};

/// A preset of the members workload, named as the chat's own tools name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MembersPreset {
    /// 5 rooms of 10 with 50 candidates each.
    Small,
    /// 100 rooms of 100 with 900 candidates each.
    Medium,
    /// 700 rooms of 10 with 990 candidates each.
    Heavy,
    /// 5 rooms of their owner alone, with 990 candidates each.
    Capacity,
    /// 3 rooms of their owner alone, with 5,500 candidates each: more than the chat's default room size allows.
    CapacityXl,
}

/// The numbers behind a preset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MembersShape {
    /// Users, with indices from 0.
    pub users: u32,
    /// Rooms, with indices from 0.
    pub rooms: u32,
    /// Members of every room before anybody is added.
    pub members: u32,
    /// Users outside of every room who can be added to it.
    pub candidates: u32,
}

/// The name of no preset.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "unknown preset {given:?}: this workload knows {}",
    MembersPreset::ALL.map(MembersPreset::name).join(", ")
)]
pub struct UnknownMembersPreset {
    given: String,
}

impl MembersPreset {
    /// Every preset.
    pub const ALL: [Self; 5] = [Self::Small, Self::Medium, Self::Heavy, Self::Capacity, Self::CapacityXl];

    /// As flags and reports write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Small => "members-small",
            Self::Medium => "members-medium",
            Self::Heavy => "members-heavy",
            Self::Capacity => "members-capacity",
            Self::CapacityXl => "members-capacity-xl",
        }
    }

    /// The preset's numbers, those of the chat's reference load generator.
    pub const fn shape(self) -> MembersShape {
        let (users, rooms, members, candidates) = match self {
            Self::Small => (200, 5, 10, 50),
            Self::Medium => (5_000, 100, 100, 900),
            Self::Heavy => (5_000, 700, 10, 990),
            Self::Capacity => (12_000, 5, 1, 990),
            Self::CapacityXl => (12_000, 3, 1, 5_500),
        };
        MembersShape { users, rooms, members, candidates }
    }

    /// Who is in which room before anybody is added. The site changes no membership.
    pub fn fixtures(self, seed: u64, site: &str) -> Fixtures {
        let shape = self.shape();
        let room = |index| {
            let mut members = self.positions(seed, index, 0..shape.members);
            members.sort_unstable();
            Room { index, kind: RoomKind::Channel, family: Family::Members, members }
        };
        Fixtures { seed, site: site.to_owned(), users: shape.users, rooms: (0..shape.rooms).map(room).collect() }
    }

    /// Who can be added to a room, in the room's own order: nobody of its members, and nobody twice.
    pub fn candidates(self, seed: u64, room: u32) -> Vec<u32> {
        let MembersShape { members, candidates, .. } = self.shape();
        self.positions(seed, room, members..members + candidates)
    }

    /// All users in the room's own order begin with its members, behind whom stand its candidates.
    fn positions(self, seed: u64, room: u32, positions: std::ops::Range<u32>) -> Vec<u32> {
        let users = u64::from(self.shape().users);
        let everybody = Permutation::new(users, &mut stream(seed, Purpose::MembersRoom, u64::from(room)));
        positions.map(|at| everybody.at(u64::from(at)) as u32).collect()
    }
}

impl fmt::Display for MembersPreset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for MembersPreset {
    type Err = UnknownMembersPreset;

    fn from_str(given: &str) -> Result<Self, UnknownMembersPreset> {
        let found = Self::ALL.into_iter().find(|preset| preset.name() == given);
        found.ok_or_else(|| UnknownMembersPreset { given: given.to_owned() })
    }
}

/// Appends the body of a request to add these users to a room, who see its whole history.
pub fn write_add_members(buf: &mut BytesMut, room_id: &str, users: &[u32]) {
    buf.put_slice(b"{\"roomId\":\"");
    buf.put_slice(room_id.as_bytes());
    buf.put_slice(b"\",\"users\":[");
    for (at, &user) in users.iter().enumerate() {
        buf.put_slice(if at == 0 { b"\"" } else { b",\"" });
        buf.put_slice(account(user).as_bytes());
        buf.put_u8(b'"');
    }
    buf.put_slice(b"],\"orgs\":[],\"channels\":[],\"history\":{\"mode\":\"all\"}}");
}

/// The accounts that an event says were added to its room; `None` for events of another type and for what is no event.
pub fn added_accounts(payload: &[u8]) -> Option<Vec<Cow<'_, str>>> {
    #[derive(Deserialize)]
    struct Event<'a> {
        #[serde(rename = "type", borrow)]
        kind: Cow<'a, str>,
        #[serde(borrow)]
        accounts: Vec<Account<'a>>,
    }
    #[derive(Deserialize)]
    struct Account<'a>(#[serde(borrow)] Cow<'a, str>);
    let event: Event<'_> = serde_json::from_slice(payload).ok()?;
    (event.kind == "member_added").then(|| event.accounts.into_iter().map(|account| account.0).collect())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_are_those_of_the_contract() {
        let table: Vec<String> = MembersPreset::ALL
            .iter()
            .map(|preset| {
                let MembersShape { users, rooms, members, candidates } = preset.shape();
                assert_eq!(preset.to_string().parse(), Ok(*preset));
                format!("{preset} {users} {rooms} {members} {candidates}")
            })
            .collect();
        assert_eq!(
            table,
            [
                "members-small 200 5 10 50",
                "members-medium 5000 100 100 900",
                "members-heavy 5000 700 10 990",
                "members-capacity 12000 5 1 990",
                "members-capacity-xl 12000 3 1 5500",
            ]
        );
        let error = "small".parse::<MembersPreset>().unwrap_err().to_string();
        assert!(error.contains("members-small, members-medium"), "{error}");
    }

    #[test]
    fn a_seed_is_the_same_for_ever() {
        let room = &MembersPreset::Small.fixtures(42, "s").rooms[1];
        let candidates = MembersPreset::Small.candidates(42, 1);
        assert_eq!((room.id().as_str(), room.name().as_str()), ("mroom-000001", "mroom-1"));
        assert_eq!((&room.members[..4], &candidates[..4]), (&[59, 61, 65, 97][..], &[12, 151, 73, 42][..]));
    }

    #[test]
    fn an_event_names_whom_it_added() {
        let event = br#"{"type":"member_added","roomId":"mroom-000001","roomName":"mroom-1","roomType":"channel",
            "accounts":["user-11","user-12"],"siteId":"s","requesterAccount":"user-3","joinedAt":1,"timestamp":2}"#;
        assert_eq!(added_accounts(event).unwrap(), ["user-11", "user-12"]);
        for other in [
            &br#"{"type":"member_removed","accounts":["user-11"]}"#[..],
            br#"{"type":"member_added"}"#,
            br#"{"type":"member_added","accounts":[7]}"#,
            br#"{"accounts":["user-11"]}"#,
            b"[]",
            b"",
        ] {
            assert_eq!(added_accounts(other), None, "{}", String::from_utf8_lossy(other));
        }
    }

    #[test]
    fn the_body_is_the_contracts() {
        let mut body = BytesMut::new();
        write_add_members(&mut body, "mroom-000001", &[11, 12]);
        let written: serde_json::Value = serde_json::from_slice(&body).unwrap();
        let contract = r#"{"roomId":"mroom-000001","users":["user-11","user-12"],"orgs":[],"channels":[],"history":{"mode":"all"}}"#;
        assert_eq!(written, serde_json::from_str::<serde_json::Value>(contract).unwrap());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn nobody_is_a_candidate_twice_or_a_member_already(
            preset in prop::sample::select(MembersPreset::ALL.to_vec()), seed: u64, pick: prop::sample::Index,
        ) {
            let fixtures = preset.fixtures(seed, "s");
            let room = &fixtures.rooms[pick.index(fixtures.rooms.len())];
            let candidates = preset.candidates(seed, room.index);
            let everybody: HashSet<u32> = candidates.iter().chain(&room.members).copied().collect();
            let shape = preset.shape();
            prop_assert_eq!(everybody.len() as u32, shape.members + shape.candidates);
            prop_assert!(everybody.iter().all(|&user| user < shape.users));
        }
    }
}
