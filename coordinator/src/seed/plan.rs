//! The work of a seeding, dealt out in chunks: pieces of about a thousand documents, or one room of a history. A chunk is
//! written whole before it counts, so an interrupted seeding goes on at the first that is not.

use std::ops::Range;
use std::str::FromStr;

use super::dataset::{Dataset, Totals};
use super::spec::Content;

/// Documents of a chunk, about: what one insert of MongoDB takes without being large.
const CHUNK: u32 = 1000;

/// A piece of the work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Chunk {
    /// These users.
    Users(Range<u32>),
    /// These rooms, with everything in them.
    Rooms(Range<u32>),
}

/// Which part of all chunks a seeding writes: one of several that run side by side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shard {
    /// From 1.
    pub index: u32,
    /// How many there are.
    pub of: u32,
}

impl Shard {
    /// The only one.
    pub const WHOLE: Self = Self { index: 1, of: 1 };
    /// More than this are no shards but a mistake.
    pub const MOST: u32 = 256;
}

impl std::fmt::Display for Shard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.index, self.of)
    }
}

/// What a shard is written as.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("got '{0}', expected I/N, the part of this seeding and the number of all, such as 1/4 (N at most {most})", most = Shard::MOST)]
pub struct NoShard(String);

impl FromStr for Shard {
    type Err = NoShard;

    fn from_str(text: &str) -> Result<Self, NoShard> {
        let parsed = || {
            let (index, of) = text.split_once('/')?;
            let (index, of) = (index.parse().ok()?, of.parse().ok()?);
            ((1..=Self::MOST).contains(&of) && (1..=of).contains(&index)).then_some(Self { index, of })
        };
        parsed().ok_or_else(|| NoShard(text.to_owned()))
    }
}

/// All chunks, the users first.
pub fn chunks(dataset: &Dataset) -> Vec<Chunk> {
    let (users, rooms) = (dataset.users(), dataset.rooms());
    let of_users = (0..users).step_by(CHUNK as usize);
    let mut chunks: Vec<Chunk> =
        of_users.map(|first| Chunk::Users(first..first.saturating_add(CHUNK).min(users))).collect();
    let (mut first, mut weight) = (0, 0);
    for at in 0..rooms {
        weight += match dataset.content {
            Content::History { .. } => u64::from(CHUNK),
            _ => {
                let totals = dataset.totals_of(at..at + 1);
                totals.rooms + totals.subscriptions + totals.messages
            }
        };
        if weight >= u64::from(CHUNK) || at + 1 == rooms {
            chunks.push(Chunk::Rooms(first..at + 1));
            (first, weight) = (at + 1, 0);
        }
    }
    chunks
}

/// The chunks of a shard: every n-th.
pub fn of_shard(chunks: &[Chunk], shard: Shard) -> Vec<Chunk> {
    chunks.iter().skip(shard.index as usize - 1).step_by(shard.of as usize).cloned().collect()
}

/// Documents and rows of a chunk.
pub fn totals(dataset: &Dataset, chunk: &Chunk) -> Totals {
    match chunk {
        Chunk::Users(users) => Totals { users: u64::from(users.end - users.start), ..Totals::default() },
        Chunk::Rooms(rooms) => dataset.totals_of(rooms.clone()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::seed::fixture::dataset;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(30))]
        #[test]
        fn every_user_and_room_is_in_one_chunk_of_one_shard(
            (workload, preset) in prop::sample::select(vec![
                ("messages", "realistic"), ("thread", "medium"), ("history", "history-medium"), ("members", "members-heavy"),
                ("daily", "daily-light"),
            ]),
            of in 1_u32..9,
        ) {
            let dataset = dataset(workload, preset);
            let all = chunks(&dataset);
            let mut dealt: Vec<Chunk> =
                (1..=of).flat_map(|index| of_shard(&all, Shard { index, of })).collect();
            let key = |chunk: &Chunk| match chunk {
                Chunk::Users(users) => (0, users.start),
                Chunk::Rooms(rooms) => (1, rooms.start),
            };
            dealt.sort_by_key(key);
            prop_assert_eq!(&dealt, &all);
            let (mut users, mut rooms) = (0, 0);
            for chunk in &all {
                match chunk {
                    Chunk::Users(range) => { prop_assert_eq!(range.start, users); users = range.end; }
                    Chunk::Rooms(range) => { prop_assert_eq!(range.start, rooms); rooms = range.end; }
                }
            }
            prop_assert_eq!((users, rooms), (dataset.users(), dataset.rooms()));
        }
    }

    #[test]
    fn a_shard_is_a_part_of_a_whole() {
        assert_eq!("2/4".parse(), Ok(Shard { index: 2, of: 4 }));
        for wrong in ["", "1", "0/4", "5/4", "1/0", "1/257", "-1/4", "a/b"] {
            assert!(wrong.parse::<Shard>().is_err(), "{wrong}");
        }
        assert_eq!(Shard::WHOLE.to_string(), "1/1");
    }
}
