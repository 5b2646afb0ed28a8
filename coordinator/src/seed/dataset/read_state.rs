//! When a room was written to last, and when its members last looked into it.

use super::{DAY_MS, Dataset, MINUTE_MS, SeedRoom};
use crate::seed::spec::Content;

/// How far `lastMsgAt` of a room to be marked as read lies ahead of its seeding: who reads such a room after it is through at
/// once, and a run would find a service far faster than it is.
pub const UNREAD_AHEAD_MS: i64 = DAY_MS;
/// The longest that somebody has not looked into such a room.
const UNREAD_MINUTES: u64 = 10_080;
/// The same of a room of a daily preset: long enough to be worth marking as read, and no longer ago than people are in it.
const UNREAD_MINUTES_OF_WEEK: u64 = 1_440;

impl Dataset {
    /// When the last message of a room came, as its document says.
    pub fn last_message_ms(&self, room: &SeedRoom) -> Option<i64> {
        match self.content {
            Content::Unread => Some(self.renewed_ms + UNREAD_AHEAD_MS),
            Content::Week => self.times(room).last(),
            _ => self.newest(room).map(|message| message.created_ms),
        }
    }

    /// When the member at this position last looked into the room.
    pub fn last_seen_ms(&self, room: &SeedRoom, position: usize) -> Option<i64> {
        // Spread by a multiplication that leaves no pattern; the same on any machine.
        let looked_before = |most_minutes: u64| {
            let mixed = (u64::from(room.members[position]) << 32 | u64::from(room.index))
                .wrapping_add(self.spec.seed)
                .wrapping_mul(0x9e37_79b9_7f4a_7c15);
            Some(self.last_message_ms(room)? - (1 + (mixed >> 33) % most_minutes) as i64 * MINUTE_MS)
        };
        match self.content {
            Content::Unread => looked_before(UNREAD_MINUTES),
            Content::Week => looked_before(UNREAD_MINUTES_OF_WEEK),
            Content::History { read_per_mille, .. } => {
                let readers = (room.members.len() * read_per_mille as usize).div_ceil(1000);
                let newest = (position < readers).then(|| self.last_message_ms(room)).flatten()?;
                Some(newest + 1)
            }
            Content::Nothing | Content::Parents { .. } => None,
        }
    }

    /// Since when everybody has read everything; `None` as soon as one member never looked.
    pub fn floor_ms(&self, room: &SeedRoom) -> Option<i64> {
        let seen: Option<Vec<i64>> = (0..room.members.len()).map(|at| self.last_seen_ms(room, at)).collect();
        seen?.into_iter().min()
    }
}
