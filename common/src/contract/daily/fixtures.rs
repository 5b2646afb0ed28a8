//! Who is in which room. A person's rooms and a room's people are computed alone, so that an agent keeps only what its own
//! users need: whoever is in `k` rooms of a band is in one room of each of the band's `k` *layers*, and a layer is all users in an
//! order of its own, cut into rooms. Direct messages pair users at fixed distances around a ring.

use std::ops::Range;

use super::super::permutation::{Permutation, Purpose, below, stream};
use super::{Band, DailyPreset, FEWEST_USERS, LARGE_ROOM_THRESHOLD, MOST_USERS};

/// All users and rooms of a preset for so many users. Rooms have indices from 0: direct messages first, then small, medium and
/// large ones.
#[derive(Debug, Clone)]
pub struct DailyFixtures {
    preset: DailyPreset,
    seed: u64,
    users: u32,
    pairs: Pairs,
    layers: Vec<Layer>,
    /// The first room of each band, and behind the last.
    bands: [u32; 5],
}

/// A number of users that the presets do not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("got '{users}', expected a whole number from {FEWEST_USERS} to {MOST_USERS}")]
pub struct UsersOutOfRange {
    users: u32,
}

/// A message that a room is seeded with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SeededMessage {
    /// 20 characters of base62, so that replies may name it as their parent.
    pub id: [u8; 20],
    /// Who wrote it: a member.
    pub author: u32,
    /// When it was written, in milliseconds before the instant of the seeding; strictly falling with its index.
    pub age_ms: u64,
}

/// The seeded messages of a room were written over so long.
const SEEDED_OVER_MS: u64 = SEEDED_OVER_DAYS as u64 * 86_400_000;
/// The same in days.
pub const SEEDED_OVER_DAYS: u32 = 7;
/// The length of a seeded message.
const SEEDED_TEXT_BYTES: usize = 200;
const LETTERS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// One room per user: all users in an order of its own, cut into rooms.
#[derive(Debug, Clone)]
struct Layer {
    /// Index of its first room.
    first_room: u32,
    order: Permutation,
    /// Where each room begins in the order, and the number of users.
    starts: Vec<u32>,
}

/// Direct messages: users on a ring in an order of their own, paired at each of these distances, and where everybody has an odd
/// number of them also the first with the second, the third with the fourth, ….
#[derive(Debug, Clone)]
struct Pairs {
    users: u32,
    order: Permutation,
    distances: Vec<u32>,
    neighbours: bool,
}

impl DailyFixtures {
    /// The fixtures of a preset for so many users.
    ///
    /// # Errors
    /// The bands do not fit so few or so many.
    pub fn build(preset: DailyPreset, users: u32, seed: u64) -> Result<Self, UsersOutOfRange> {
        if !(FEWEST_USERS..=MOST_USERS).contains(&users) {
            return Err(UsersOutOfRange { users });
        }
        let pairs = Pairs::new(users, preset.rooms_per_user(Band::Dm), seed);
        let mut bands = [0; 5];
        let mut next = pairs.rooms();
        let mut layers = Vec::new();
        for (band, first) in Band::ALL.into_iter().skip(1).zip(1..) {
            bands[first] = next;
            let per_user = preset.rooms_per_user(band);
            let mean = u64::from(band.mean_size());
            let rooms = ((u64::from(users) * u64::from(per_user)).div_ceil(mean) as u32).max(per_user);
            for layer in 0..per_user {
                let count = rooms / per_user + u32::from(layer < rooms % per_user);
                layers.push(Layer::new(users, band, next, count, seed));
                next += count;
            }
        }
        bands[4] = next;
        Ok(Self { preset, seed, users, pairs, layers, bands })
    }

    /// The preset.
    pub fn preset(&self) -> DailyPreset {
        self.preset
    }

    /// Users, with indices from 0.
    pub fn users(&self) -> u32 {
        self.users
    }

    /// The seed.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Rooms, with indices from 0.
    pub fn rooms(&self) -> u32 {
        self.bands[4]
    }

    /// The rooms of a band.
    pub fn rooms_in(&self, band: Band) -> Range<u32> {
        let at = band as usize;
        self.bands[at]..self.bands[at + 1]
    }

    /// A room's band.
    ///
    /// # Panics
    /// There is no room of this index.
    pub fn band(&self, room: u32) -> Band {
        let found = Band::ALL.into_iter().find(|&band| self.rooms_in(band).contains(&room));
        found.unwrap_or_else(|| panic!("room {room} of {}", self.rooms()))
    }

    /// The room's id on the wire, which is its name too: `room-small-000002`.
    pub fn room_id(&self, room: u32) -> String {
        let band = self.band(room);
        format!("room-{}-{:06}", band.name(), room - self.rooms_in(band).start)
    }

    /// How many people are in a room.
    pub fn size(&self, room: u32) -> u32 {
        match self.layer(room) {
            Some((layer, at)) => layer.starts[at + 1] - layer.starts[at],
            None => 2,
        }
    }

    /// The people of a room, each once; the first of a channel is its owner.
    pub fn members(&self, room: u32) -> Vec<u32> {
        match self.layer(room) {
            Some((layer, at)) => {
                (layer.starts[at]..layer.starts[at + 1]).map(|position| layer.user_at(position)).collect()
            }
            None => self.pairs.members(room).to_vec(),
        }
    }

    /// Somebody in a room who is not this member, each equally likely if the number is; none where nobody else is in it.
    pub fn companion(&self, room: u32, member: u32, number: u64) -> Option<u32> {
        let others = self.size(room).checked_sub(1).filter(|&others| others > 0)?;
        let at = |nth: u32| match self.layer(room) {
            Some((layer, at)) => layer.user_at(layer.starts[at] + nth),
            None => self.pairs.members(room)[nth as usize],
        };
        let drawn = at((number % u64::from(others)) as u32);
        // The last one stands in for the member, who is drawn as often as any other.
        Some(if drawn == member { at(others) } else { drawn })
    }

    /// Who owns a channel and may post whatever its size; none for a direct message.
    pub fn owner(&self, room: u32) -> Option<u32> {
        self.layer(room).map(|(layer, at)| layer.user_at(layer.starts[at]))
    }

    /// Whether the chat's rules let a member post a message of its own, whoever was added meanwhile: in large rooms only the
    /// owner.
    pub fn may_post(&self, room: u32, user: u32) -> bool {
        self.size(room) <= LARGE_ROOM_THRESHOLD || self.owner(room) == Some(user)
    }

    /// A person's rooms, each once: direct messages, then small, medium and large rooms.
    pub fn rooms_of(&self, user: u32) -> Vec<u32> {
        let mut rooms = self.pairs.rooms_of(user);
        rooms.extend(self.layers.iter().map(|layer| layer.room_of(user)));
        rooms
    }

    /// Whether a person is in a room.
    pub fn has_member(&self, room: u32, user: u32) -> bool {
        match self.layer(room) {
            Some((layer, _)) => layer.room_of(user) == room,
            None => self.pairs.members(room).contains(&user),
        }
    }

    /// How many people can ever be added to a room, by this run and all others of this seed: so many that nobody who may post in
    /// it as it was seeded is refused afterwards. None in direct messages and in large rooms.
    pub fn openings(&self, room: u32) -> u32 {
        if !matches!(self.band(room), Band::Small | Band::Medium) {
            return 0;
        }
        let size = self.size(room);
        LARGE_ROOM_THRESHOLD.min(self.users).saturating_sub(size)
    }

    /// Somebody who is not in a channel and may be added to it, in an order that names each of its [openings](Self::openings)
    /// once before it begins anew, always with the same people; none where there is no opening.
    pub fn stranger(&self, room: u32, nth: u64) -> Option<u32> {
        let nth = nth.checked_rem(u64::from(self.openings(room)))? as u32;
        let (layer, at) = self.layer(room)?;
        Some(layer.user_at((layer.starts[at + 1] + nth) % self.users))
    }

    /// Message `index` of those that a room is seeded with, of which [`Band::seeded_messages`] says how many there are; the
    /// oldest is number 0.
    pub fn seeded_message(&self, room: u32, index: u32) -> SeededMessage {
        let mut chance = stream(self.seed, Purpose::DailyMessages, u64::from(room) << 32 | u64::from(index));
        let id = std::array::from_fn(|_| LETTERS[below(&mut chance, 62) as usize]);
        let author = match self.layer(room) {
            Some((layer, at)) => {
                let size = layer.starts[at + 1] - layer.starts[at];
                layer.user_at(layer.starts[at] + below(&mut chance, u64::from(size)) as u32)
            }
            None => self.pairs.members(room)[(index % 2) as usize],
        };
        let gap = SEEDED_OVER_MS / u64::from(self.band(room).seeded_messages());
        let age_ms = u64::from(self.band(room).seeded_messages() - index) * gap - below(&mut chance, gap - 1);
        SeededMessage { id, author, age_ms }
    }

    /// What the seeded message says: letters and digits, as long as those of the histories' presets.
    pub fn seeded_text(&self, room: u32, index: u32) -> String {
        let mut chance = stream(self.seed, Purpose::DailyTexts, u64::from(room) << 32 | u64::from(index));
        (0..SEEDED_TEXT_BYTES).map(|_| char::from(LETTERS[below(&mut chance, 62) as usize])).collect()
    }

    /// The layer of a channel, and the room's position in it.
    fn layer(&self, room: u32) -> Option<(&Layer, usize)> {
        assert!(room < self.rooms(), "room {room} of {}", self.rooms());
        let at = self.layers.partition_point(|layer| layer.first_room <= room).checked_sub(1)?;
        let layer = &self.layers[at];
        Some((layer, (room - layer.first_room) as usize))
    }
}

impl Layer {
    fn new(users: u32, band: Band, first_room: u32, rooms: u32, seed: u64) -> Self {
        let order = Permutation::new(u64::from(users), &mut stream(seed, Purpose::DailyOrder, u64::from(first_room)));
        let mut starts = Vec::with_capacity(rooms as usize + 1);
        let mut start = 0;
        for size in sizes(users, band, first_room, rooms, seed) {
            starts.push(start);
            start += size;
        }
        starts.push(start);
        debug_assert_eq!(start, users);
        Self { first_room, order, starts }
    }

    fn user_at(&self, position: u32) -> u32 {
        self.order.at(u64::from(position)) as u32
    }

    fn room_of(&self, user: u32) -> u32 {
        let position = self.order.position_of(u64::from(user)) as u32;
        self.first_room + (self.starts.partition_point(|&start| start <= position) - 1) as u32
    }
}

/// Sizes of `rooms` rooms that hold all users: each within the band, the mean below which and above which sizes are equally
/// likely being that of all. Where there are fewer users than the smallest room takes, it is one room of everybody.
fn sizes(users: u32, band: Band, first_room: u32, rooms: u32, seed: u64) -> Vec<u32> {
    const CERTAIN: u64 = 1 << 32;
    if rooms == 1 {
        return vec![users];
    }
    let (least, most) = band.sizes();
    let mean = f64::from(users) / f64::from(rooms);
    // Below the mean with this probability and above it otherwise, the expected size is the mean.
    let below_mean = ((f64::from(most) - mean) / f64::from(most - least) * CERTAIN as f64) as u64;
    let mut sizes: Vec<u32> = (0..rooms)
        .map(|room| {
            let mut chance = stream(seed, Purpose::DailySizes, u64::from(first_room + room));
            let (from, to) = if below(&mut chance, CERTAIN) < below_mean {
                (least, mean as u32)
            } else {
                (mean.ceil() as u32, most)
            };
            from + below(&mut chance, u64::from(to - from) + 1) as u32
        })
        .collect();
    // What the draws miss is spread over the rooms by the room that each has left in its band.
    let drawn: u64 = sizes.iter().map(|&size| u64::from(size)).sum();
    let (users, short) = (u64::from(users), drawn < u64::from(users));
    let missing = users.abs_diff(drawn);
    let slack = |size: u32| u64::from(if short { most - size } else { size - least });
    let total: u64 = sizes.iter().map(|&size| slack(size)).sum();
    let mut seen = 0_u64;
    for size in &mut sizes {
        let before = missing * seen / total.max(1);
        seen += slack(*size);
        let part = (missing * seen / total.max(1) - before) as u32;
        if short { *size += part } else { *size -= part }
    }
    sizes
}

impl Pairs {
    fn new(users: u32, per_user: u32, seed: u64) -> Self {
        let mut chance = stream(seed, Purpose::DailyPairs, 0);
        let order = Permutation::new(u64::from(users), &mut chance);
        // Distances below half of the ring give different pairs; 1 is kept for neighbours.
        let candidates = u64::from((users - 1) / 2 - 1);
        let drawn = Permutation::new(candidates, &mut chance);
        let distances = (0..u64::from(per_user / 2)).map(|at| drawn.at(at) as u32 + 2).collect();
        Self { users, order, distances, neighbours: per_user % 2 == 1 }
    }

    fn rooms(&self) -> u32 {
        self.distances.len() as u32 * self.users + if self.neighbours { self.users / 2 } else { 0 }
    }

    fn members(&self, room: u32) -> [u32; 2] {
        let (turn, at) = (room / self.users, room % self.users);
        let positions = match self.distances.get(turn as usize) {
            Some(distance) => [at, (at + distance) % self.users],
            None => [2 * at, 2 * at + 1],
        };
        positions.map(|position| self.order.at(u64::from(position)) as u32)
    }

    fn rooms_of(&self, user: u32) -> Vec<u32> {
        let position = self.order.position_of(u64::from(user)) as u32;
        let mut rooms: Vec<u32> = (0..)
            .zip(&self.distances)
            .flat_map(|(turn, distance)| {
                let first = turn * self.users;
                [first + position, first + (position + self.users - distance) % self.users]
            })
            .collect();
        // Of an odd number of users the last one has no neighbour left.
        if self.neighbours && position / 2 < self.users / 2 {
            rooms.push(self.distances.len() as u32 * self.users + position / 2);
        }
        rooms
    }
}

#[cfg(test)]
mod tests;
