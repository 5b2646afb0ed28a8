//! Who is in which room: a function of preset, seed and site, of which any room can be built alone.

use super::permutation::{Permutation, Purpose, below, stream};
use super::presets::{MessagesPreset, PresetShape, RoomSizes};
use rand::Rng as _;

/// All users and rooms of a preset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fixtures {
    pub seed: u64,
    /// The site's name, one subject token.
    pub site: String,
    /// Users, with indices `0..users`.
    pub users: u32,
    /// Rooms, at their index.
    pub rooms: Vec<Room>,
}

/// What kind of room it is, which decides where its broadcasts go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RoomKind {
    /// Broadcasts once, to the room's subject.
    Channel,
    /// Broadcasts a copy to each of its two members.
    Dm,
}

/// What the room was made for, which shows in its id and name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Family {
    /// `room-000002`
    Messages,
    /// `hroom-000002`
    History,
    /// `mroom-000002`
    Members,
}

impl Family {
    /// What stands before the number in a room's id.
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Messages => "room",
            Self::History => "hroom",
            Self::Members => "mroom",
        }
    }
}

/// One room and its members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Room {
    pub index: u32,
    pub kind: RoomKind,
    pub family: Family,
    /// User indices, ascending, each once; at least two, but for the rooms of some members presets.
    pub members: Vec<u32>,
}

impl Fixtures {
    /// The fixtures of a preset. `site` names subjects and streams and changes no membership.
    pub fn build(preset: MessagesPreset, seed: u64, site: &str) -> Self {
        let shape = preset.shape();
        let dm_pairs = dm_pairs(&shape, seed);
        Self {
            seed,
            site: site.to_owned(),
            users: shape.users,
            rooms: (0..shape.rooms).map(|index| draw_room(&shape, &dm_pairs, seed, index)).collect(),
        }
    }

    /// Subscriptions: pairs of a room and a member of it.
    pub fn subscriptions(&self) -> usize {
        self.rooms.iter().map(|room| room.members.len()).sum()
    }
}

impl Room {
    /// The id on the wire: `room-000002`, or for a direct message the two user ids, sorted and concatenated.
    pub fn id(&self) -> String {
        match self.kind {
            RoomKind::Channel => format!("{}-{:06}", self.family.prefix(), self.index),
            RoomKind::Dm => {
                // By their text, as the chat does: from 1,000,000 users on, that is another order than by number.
                let mut ids: Vec<String> = self.members.iter().map(|user| user_id(*user)).collect();
                ids.sort_unstable();
                ids.concat()
            }
        }
    }

    /// The name people see: `room-2`.
    pub fn name(&self) -> String {
        format!("{}-{}", self.family.prefix(), self.index)
    }

    /// The room's part of the traffic: its subscriptions, since senders are drawn evenly over subscriptions.
    pub fn weight(&self) -> u64 {
        self.members.len() as u64
    }

    /// Whether the user belongs to the room.
    pub fn has_member(&self, user: u32) -> bool {
        self.members.binary_search(&user).is_ok()
    }
}

/// Room `index` alone, equal to the one in [`Fixtures::build`].
///
/// # Panics
/// If the preset has no room of that index.
pub fn build_room(preset: MessagesPreset, seed: u64, index: u32) -> Room {
    let shape = preset.shape();
    assert!(index < shape.rooms, "preset {preset} has {} rooms, none of index {index}", shape.rooms);
    draw_room(&shape, &dm_pairs(&shape, seed), seed, index)
}

/// The AES-256 key of a room whose broadcasts are encrypted.
pub fn room_key(seed: u64, room_index: u32) -> [u8; 32] {
    let mut key = [0; 32];
    stream(seed, Purpose::RoomKey, u64::from(room_index)).fill_bytes(&mut key);
    key
}

/// The id of the message that was seeded as parent number `parent` of a thread in a room: 20 characters of base62.
pub fn thread_parent_id(seed: u64, room_index: u32, parent: u32) -> [u8; 20] {
    const LETTERS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut chance = stream(seed, Purpose::ThreadParents, u64::from(room_index) << 32 | u64::from(parent));
    std::array::from_fn(|_| LETTERS[below(&mut chance, 62) as usize])
}

/// The member of a room who wrote its parent number `parent`.
pub fn thread_parent_author(room: &Room, parent: u32) -> u32 {
    room.members[parent as usize % room.members.len()]
}

/// `u-000007`
pub fn user_id(user: u32) -> String {
    format!("u-{user:06}")
}

/// `user-7`
pub fn account(user: u32) -> String {
    format!("user-{user}")
}

/// The user index behind an account, the inverse of [`account`]; none for an account that is not of the fixtures.
pub fn user_of_account(account: &str) -> Option<u32> {
    let digits = account.strip_prefix("user-")?;
    let canonical = digits == "0" || !digits.starts_with(['0', '+']);
    if canonical { digits.parse().ok() } else { None }
}

/// The user's name in Latin letters.
pub fn eng_name(user: u32) -> &'static str {
    ["Alice Wang", "Bob Chen", "Carol Lee", "Dave Liu", "Eve Zhang"][user as usize % 5]
}

/// The user's name in Chinese letters.
pub fn chinese_name(user: u32) -> &'static str {
    ["愛麗絲", "鮑勃", "卡蘿", "戴夫", "伊芙"][user as usize % 5]
}

/// The permutation of all unordered pairs of users, from which direct messages take theirs: two rooms never share one.
fn dm_pairs(shape: &PresetShape, seed: u64) -> Permutation {
    let users = u64::from(shape.users);
    Permutation::new(users * (users - 1) / 2, &mut stream(seed, Purpose::DmPairs, 0))
}

fn draw_room(shape: &PresetShape, dm_pairs: &Permutation, seed: u64, index: u32) -> Room {
    let channels = shape.rooms - shape.dm_rooms;
    if index >= channels {
        let (low, high) = pair(dm_pairs.at(u64::from(index - channels)));
        return Room { index, kind: RoomKind::Dm, family: Family::Messages, members: vec![low, high] };
    }
    let mut members = match &shape.sizes {
        RoomSizes::Uniform => pad((index..shape.users).step_by(shape.rooms as usize).collect(), shape, seed, index),
        RoomSizes::Mixed { .. } => {
            let size = draw_size(&shape.sizes, seed, index).min(shape.users);
            let everybody = everybody(shape, seed, index);
            (0..size).map(|position| everybody.at(u64::from(position)) as u32).collect()
        }
    };
    members.sort_unstable();
    Room { index, kind: RoomKind::Channel, family: Family::Messages, members }
}

/// All users in the room's own order.
fn everybody(shape: &PresetShape, seed: u64, index: u32) -> Permutation {
    Permutation::new(u64::from(shape.users), &mut stream(seed, Purpose::RoomMembers, u64::from(index)))
}

/// Adds users in the room's own order until there are two.
fn pad(mut members: Vec<u32>, shape: &PresetShape, seed: u64, index: u32) -> Vec<u32> {
    if members.len() < 2 {
        let everybody = everybody(shape, seed, index);
        let strangers = (0..u64::from(shape.users)).map(|position| everybody.at(position) as u32);
        let missing = 2 - members.len();
        let found: Vec<u32> = strangers.filter(|user| !members.contains(user)).take(missing).collect();
        members.extend(found);
    }
    members
}

fn draw_size(sizes: &RoomSizes, seed: u64, index: u32) -> u32 {
    let RoomSizes::Mixed { usual, rare, rare_one_in } = sizes else { unreachable!("only mixed sizes are drawn") };
    let mut rng = stream(seed, Purpose::RoomSize, u64::from(index));
    let range = if below(&mut rng, u64::from(*rare_one_in)) == 0 { rare } else { usual };
    range.start() + below(&mut rng, u64::from(range.end() - range.start() + 1)) as u32
}

/// The unordered pair number `n` of users, smaller first: (0,1), (0,2), (1,2), (0,3), …
fn pair(n: u64) -> (u32, u32) {
    // high is the largest h with h(h-1)/2 <= n; the square root only starts the look, so rounding cannot spoil it.
    let mut high = ((2.0 * n as f64).sqrt() as u64).max(1);
    while high * (high - 1) / 2 > n {
        high -= 1;
    }
    while (high + 1) * high / 2 <= n {
        high += 1;
    }
    ((n - high * (high - 1) / 2) as u32, high as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    fn presets() -> impl Strategy<Value = MessagesPreset> {
        prop::sample::select(MessagesPreset::ALL.to_vec())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]

        #[test]
        fn rooms_have_at_least_two_members_of_the_preset_and_none_twice(preset in presets(), seed: u64) {
            let fixtures = Fixtures::build(preset, seed, "site-local");
            prop_assert_eq!(fixtures.rooms.len() as u32, preset.shape().rooms);
            for room in &fixtures.rooms {
                prop_assert!(room.members.len() >= 2);
                prop_assert!(room.members.is_sorted_by(|a, b| a < b));
                prop_assert!(room.members.iter().all(|user| *user < fixtures.users));
            }
        }

        #[test]
        fn direct_messages_are_two_people_and_no_two_rooms_the_same_two(seed: u64) {
            let fixtures = Fixtures::build(MessagesPreset::Realistic, seed, "s");
            let (dms, channels): (Vec<&Room>, Vec<&Room>) =
                fixtures.rooms.iter().partition(|room| room.kind == RoomKind::Dm);
            prop_assert_eq!(dms.len(), 10);
            prop_assert!(dms.iter().all(|dm| dm.index >= 90 && dm.members.len() == 2));
            let ids: HashSet<String> = dms.iter().map(|dm| dm.id()).collect();
            prop_assert_eq!(ids.len(), 10);
            prop_assert!(channels.iter().all(|room| (2..=500).contains(&room.weight())));
        }

        #[test]
        fn any_room_alone_equals_the_one_in_the_whole(preset in presets(), seed: u64, pick: prop::sample::Index) {
            let fixtures = Fixtures::build(preset, seed, "s");
            let room = &fixtures.rooms[pick.index(fixtures.rooms.len())];
            prop_assert_eq!(room, &build_room(preset, seed, room.index));
        }

        #[test]
        fn pairs_are_counted_without_gaps(n in 0_u64..1 << 40) {
            let (low, high) = pair(n);
            prop_assert!(low < high);
            prop_assert_eq!(u64::from(high) * (u64::from(high) - 1) / 2 + u64::from(low), n);
        }

        #[test]
        fn accounts_lead_back_to_their_user(user: u32, junk in "\\PC{0,12}") {
            prop_assert_eq!(user_of_account(&account(user)), Some(user));
            if let Some(found) = user_of_account(&junk) {
                prop_assert_eq!(account(found), junk);
            }
        }
    }

    #[test]
    fn uniform_presets_put_user_i_into_room_i_mod_rooms() {
        for (preset, size, subscriptions) in
            [(MessagesPreset::Small, 2, 10), (MessagesPreset::Medium, 10, 1_000), (MessagesPreset::Large, 10, 10_000)]
        {
            let fixtures = Fixtures::build(preset, 42, "site-local");
            assert_eq!(fixtures.subscriptions(), subscriptions);
            for room in &fixtures.rooms {
                assert_eq!(room.weight(), size);
                assert!(room.members.iter().all(|user| user % preset.shape().rooms == room.index));
            }
        }
    }

    #[test]
    fn a_lonely_room_is_padded_to_two() {
        let shape = PresetShape { users: 7, rooms: 7, ..MessagesPreset::Small.shape() };
        let pairs = dm_pairs(&shape, 1);
        for index in 0..7 {
            let room = draw_room(&shape, &pairs, 1, index);
            assert_eq!(room.members.len(), 2);
            assert!(room.has_member(index) && room.members[0] != room.members[1]);
        }
    }

    #[test]
    fn realistic_sizes_follow_the_rule() {
        // Over 100 seeds: about a tenth of 9,000 channels drew from 2-500, of which 480/499 are above 20.
        let sizes: Vec<u64> = (0..100)
            .flat_map(|seed| Fixtures::build(MessagesPreset::Realistic, seed, "s").rooms)
            .filter(|room| room.kind == RoomKind::Channel)
            .map(|room| room.weight())
            .collect();
        let large = sizes.iter().filter(|size| **size > 20).count();
        assert!((780..950).contains(&large), "{large} of {}", sizes.len());
        assert_eq!((sizes.iter().min(), sizes.iter().max().map(|max| *max > 480)), (Some(&2), Some(true)));
    }

    #[test]
    fn a_seed_is_the_same_for_ever() {
        let realistic = Fixtures::build(MessagesPreset::Realistic, 42, "site-local");
        let facts = format!(
            "{} {:?} {} {:02x?}",
            realistic.subscriptions(),
            realistic.rooms[0].members,
            realistic.rooms[99].id(),
            &room_key(42, 7)[..4],
        );
        insta::assert_snapshot!(facts, @"3933 [422, 693, 748, 875] u-000313u-000368 [0e, 14, 98, 36]");
        assert_eq!(realistic, Fixtures::build(MessagesPreset::Realistic, 42, "site-local"));
        assert_ne!(realistic.rooms, Fixtures::build(MessagesPreset::Realistic, 43, "site-local").rooms);
    }

    #[test]
    fn ids_and_names_have_the_contracts_patterns() {
        let channel = Room { index: 2, kind: RoomKind::Channel, family: Family::Messages, members: vec![2, 7] };
        let dm = Room { index: 99, kind: RoomKind::Dm, family: Family::Messages, members: vec![2, 7] };
        assert_eq!((channel.id().as_str(), channel.name().as_str()), ("room-000002", "room-2"));
        assert_eq!((dm.id().as_str(), dm.name().as_str()), ("u-000002u-000007", "room-99"));
        assert_eq!((user_id(7).as_str(), account(7).as_str()), ("u-000007", "user-7"));
        assert_eq!((eng_name(7), chinese_name(7)), ("Carol Lee", "卡蘿"));
    }

    #[test]
    fn thread_parents_have_ids_that_the_gatekeeper_takes_and_none_twice() {
        let ids: HashSet<[u8; 20]> =
            (0..50).flat_map(|room| (0..8).map(move |parent| thread_parent_id(42, room, parent))).collect();
        assert_eq!(ids.len(), 400);
        assert!(ids.iter().flatten().all(u8::is_ascii_alphanumeric));
        assert_eq!(thread_parent_id(42, 3, 1), thread_parent_id(42, 3, 1));
    }

    #[test]
    fn keys_differ_by_room_and_seed() {
        let keys: HashSet<[u8; 32]> = (0..100).flat_map(|room| [room_key(42, room), room_key(43, room)]).collect();
        assert_eq!(keys.len(), 200);
    }
}
