//! The messages that a room's history is seeded with: a function of preset, seed, room and index, of which any message can be
//! computed alone. Times are relative to an anchor, the instant at which the target was seeded.

use std::fmt;
use std::str::FromStr;

use super::fixtures::{Family, Fixtures, Room, RoomKind};
use super::permutation::{Permutation, Purpose, mix, stream};

/// A preset of the history workload, named as the chat's own tools name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HistoryPreset {
    /// 500 messages and no threads.
    Small,
    /// Half a million messages over a week, one in twenty a thread.
    Medium,
    /// Fifty million messages over a month, one in ten a thread.
    Large,
}

/// The numbers behind a preset.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HistoryShape {
    /// Users, with indices from 0.
    pub users: u32,
    /// Rooms, with indices from 0.
    pub rooms: u32,
    /// Members of every room.
    pub members: u32,
    /// Top-level messages of every room.
    pub messages: u32,
    /// How long ago, in days, the oldest was written.
    pub days: u64,
    /// Per thousand of the top-level messages: those with a thread.
    pub threads_per_mille: u32,
    /// Replies of every thread.
    pub replies: u32,
    /// Length of every content in bytes.
    pub content_bytes: u32,
}

/// The name of no preset.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown preset {given:?}: this workload knows history-small, history-medium and history-large")]
pub struct UnknownHistoryPreset {
    given: String,
}

impl HistoryPreset {
    /// Every preset, smallest first.
    pub const ALL: [Self; 3] = [Self::Small, Self::Medium, Self::Large];

    /// As flags and reports write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Small => "history-small",
            Self::Medium => "history-medium",
            Self::Large => "history-large",
        }
    }

    /// The preset's numbers, those of the chat's reference load generator.
    pub const fn shape(self) -> HistoryShape {
        let (users, rooms, members, messages, days, threads_per_mille, replies) = match self {
            Self::Small => (50, 5, 10, 100, 1, 0, 0),
            Self::Medium => (1_000, 100, 20, 5_000, 7, 50, 3),
            Self::Large => (10_000, 1_000, 30, 50_000, 30, 100, 3),
        };
        HistoryShape { users, rooms, members, messages, days, threads_per_mille, replies, content_bytes: 200 }
    }

    /// Who is in which room. The site changes no membership.
    pub fn fixtures(self, seed: u64, site: &str) -> Fixtures {
        let shape = self.shape();
        let room = |index| {
            let everybody =
                Permutation::new(u64::from(shape.users), &mut stream(seed, Purpose::HistoryMembers, u64::from(index)));
            let mut members: Vec<u32> = (0..u64::from(shape.members)).map(|at| everybody.at(at) as u32).collect();
            members.sort_unstable();
            Room { index, kind: RoomKind::Channel, family: Family::History, members }
        };
        let rooms = (0..shape.rooms).map(room).collect();
        Fixtures { seed, site: site.to_owned(), users: shape.users, rooms }
    }
}

impl fmt::Display for HistoryPreset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for HistoryPreset {
    type Err = UnknownHistoryPreset;

    fn from_str(given: &str) -> Result<Self, UnknownHistoryPreset> {
        let found = Self::ALL.into_iter().find(|preset| preset.name() == given);
        found.ok_or_else(|| UnknownHistoryPreset { given: given.to_owned() })
    }
}

/// A reply comes at most so long after its parent; a message younger than this has no thread yet.
const REPLY_WITHIN_MS: u64 = 11 * 60_000;

/// The history of one room.
#[derive(Debug, Clone, Copy)]
pub struct RoomHistory {
    shape: HistoryShape,
    /// Of seed and room.
    salt: u64,
}

impl RoomHistory {
    /// The history of the room with this index.
    pub fn new(preset: HistoryPreset, seed: u64, room: u32) -> Self {
        Self { shape: preset.shape(), salt: mix(mix(seed ^ 0x6869_7374) ^ u64::from(room)) }
    }

    /// Top-level messages, with indices from 0, oldest first.
    pub fn messages(&self) -> u32 {
        self.shape.messages
    }

    fn draw(&self, what: u64, index: u32) -> u64 {
        mix(self.salt ^ mix(what << 32 | u64::from(index)))
    }

    /// When a message was written, in milliseconds before the anchor; strictly falling with the index, so that no two share a
    /// millisecond and paging by time skips none.
    pub fn age_ms(&self, index: u32) -> u64 {
        let gap = self.gap_ms();
        let span = gap * u64::from(self.shape.messages);
        span - u64::from(index) * gap - self.draw(0, index) % gap
    }

    fn gap_ms(&self) -> u64 {
        (self.shape.days * 86_400_000 / u64::from(self.shape.messages)).max(2)
    }

    /// How many messages are at least so old: those before that index.
    pub fn older_than(&self, age_ms: u64) -> u32 {
        // Ages fall with the index: a binary search for the first that is not older.
        let (mut low, mut high) = (0, self.shape.messages);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.age_ms(middle) > age_ms {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    /// Who wrote a message: a position among the room's members.
    pub fn author(&self, index: u32) -> u32 {
        (self.draw(1, index) % u64::from(self.shape.members)) as u32
    }

    /// Whether a message has a thread.
    pub fn has_thread(&self, index: u32) -> bool {
        self.draw(2, index) % 1000 < u64::from(self.shape.threads_per_mille) && self.age_ms(index) > REPLY_WITHIN_MS
    }

    /// The messages that have a thread, ascending.
    pub fn threads(&self) -> Vec<u32> {
        if self.shape.threads_per_mille == 0 {
            return Vec::new();
        }
        (0..self.shape.messages).filter(|&index| self.has_thread(index)).collect()
    }

    /// Replies of a thread.
    pub fn replies(&self) -> u32 {
        self.shape.replies
    }

    /// When a reply was written, in milliseconds before the anchor; distinct within a thread.
    pub fn reply_age_ms(&self, index: u32, reply: u32) -> u64 {
        let replies = u64::from(self.shape.replies.max(1));
        let slot = 600_000 / replies;
        self.age_ms(index) - 30_000 - u64::from(reply) * slot - self.draw(3 + u64::from(reply), index) % slot
    }

    /// Who wrote a reply: a position among the room's members.
    pub fn reply_author(&self, index: u32, reply: u32) -> u32 {
        (self.draw(64 + u64::from(reply), index) % u64::from(self.shape.members)) as u32
    }

    /// The content of a message (`reply` none) or of a reply: letters that need no escape.
    pub fn content(&self, index: u32, reply: Option<u32>) -> String {
        const LETTERS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyzABCDEF";
        let what = 128 + reply.map_or(0, |reply| u64::from(reply) + 1);
        let mut state = self.draw(what, index);
        let mut text = String::with_capacity(self.shape.content_bytes as usize);
        while text.len() < self.shape.content_bytes as usize {
            state = mix(state);
            let left = self.shape.content_bytes as usize - text.len();
            text.extend((0..left.min(12)).map(|at| char::from(LETTERS[(state >> (5 * at) & 31) as usize])));
        }
        text
    }
}

/// `hmsg-hroom-000001-000042`
pub fn message_id(room_id: &str, index: u32) -> String {
    format!("hmsg-{room_id}-{index:06}")
}

/// `hreply-hroom-000001-000042-02`
pub fn reply_id(room_id: &str, index: u32, reply: u32) -> String {
    format!("hreply-{room_id}-{index:06}-{reply:02}")
}

/// `tr-hroom-000001-000042`
pub fn thread_room_id(room_id: &str, index: u32) -> String {
    format!("tr-{room_id}-{index:06}")
}

/// The index in the id of a message of this room.
pub fn message_index(room_id: &str, id: &str) -> Option<u32> {
    let digits = id.strip_prefix("hmsg-")?.strip_prefix(room_id)?.strip_prefix('-')?;
    digits.parse().ok().filter(|&index| message_id(room_id, index) == id)
}

/// The part of the load that room `index` gets: Zipf's law with exponent 1.1 over the rooms' order.
pub fn room_weight(index: u32) -> f64 {
    (1.0 + f64::from(index)).powf(-1.1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_are_those_of_the_contract() {
        let table: Vec<String> = HistoryPreset::ALL
            .iter()
            .map(|preset| {
                let s = preset.shape();
                let HistoryShape { users, rooms, members, messages, days, replies, .. } = s;
                format!("{preset} {users} {rooms} {members} {messages} {days} {} {replies}", s.threads_per_mille)
            })
            .collect();
        assert_eq!(
            table,
            [
                "history-small 50 5 10 100 1 0 0",
                "history-medium 1000 100 20 5000 7 50 3",
                "history-large 10000 1000 30 50000 30 100 3"
            ]
        );
    }

    #[test]
    fn threads_are_as_many_as_the_preset_says_and_none_is_too_young() {
        assert!(RoomHistory::new(HistoryPreset::Small, 42, 0).threads().is_empty());
        let history = RoomHistory::new(HistoryPreset::Medium, 42, 3);
        let threads = history.threads();
        // 5,000 draws at 5 %: 250, within five standard deviations.
        assert!((173..327).contains(&threads.len()), "{}", threads.len());
        for index in threads {
            let ages: Vec<u64> = (0..3).map(|reply| history.reply_age_ms(index, reply)).collect();
            assert!(ages.windows(2).all(|pair| pair[0] > pair[1]) && ages[0] < history.age_ms(index), "{ages:?}");
        }
    }

    #[test]
    fn a_seed_is_the_same_for_ever() {
        let fixtures = HistoryPreset::Medium.fixtures(42, "s");
        let history = RoomHistory::new(HistoryPreset::Medium, 42, 1);
        let facts = format!(
            "{} {:?} {} {} {} {} {:?} {} {}",
            fixtures.rooms[1].id(),
            &fixtures.rooms[1].members[..3],
            history.age_ms(0),
            history.author(0),
            &history.content(7, None)[..8],
            &history.content(7, Some(1))[..8],
            &history.threads()[..3],
            history.reply_age_ms(history.threads()[0], 2),
            history.reply_author(history.threads()[0], 2),
        );
        insta::assert_snapshot!(facts, @"hroom-000001 [49, 138, 205] 604703143 12 kvqDCafv zvzuozfx [4, 22, 26] 603616238 5");
    }

    #[test]
    fn ids_are_the_contracts_and_lead_back() {
        assert_eq!(message_id("hroom-000001", 42), "hmsg-hroom-000001-000042");
        assert_eq!(reply_id("hroom-000001", 42, 2), "hreply-hroom-000001-000042-02");
        assert_eq!(thread_room_id("hroom-000001", 42), "tr-hroom-000001-000042");
        assert_eq!(message_index("hroom-000001", "hmsg-hroom-000001-000042"), Some(42));
        for wrong in ["hmsg-hroom-000002-000042", "hmsg-hroom-000001-42", "hreply-hroom-000001-000042-02", ""] {
            assert_eq!(message_index("hroom-000001", wrong), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn times_fall_strictly_and_the_search_agrees(
            preset in prop::sample::select(HistoryPreset::ALL.to_vec()), seed: u64, room in 0_u32..1000, pick: prop::sample::Index,
        ) {
            let history = RoomHistory::new(preset, seed, room);
            let index = pick.index(history.messages() as usize) as u32;
            let age = history.age_ms(index);
            prop_assert!(age > 0);
            if index > 0 {
                prop_assert!(history.age_ms(index - 1) > age);
            }
            // Exclusive at its own millisecond, inclusive one later.
            prop_assert_eq!(history.older_than(age), index);
            prop_assert_eq!(history.older_than(age - 1), index + 1);
            prop_assert!(history.author(index) < preset.shape().members);
        }
    }
}
