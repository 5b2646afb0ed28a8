//! Whom a worker adds to rooms: people who are not in them, and whom nobody else of the run adds, whatever agents join or are
//! lost meanwhile. All of them, and those whom other runs add, are of one set per room that the seed draws, so that no room ever
//! grows to where its members may not post any more.

use std::collections::HashMap;

use plimsoll_common::contract::daily::fixtures::DailyFixtures;

use super::users::splitmix64;

/// Numbers that are one worker's alone: every `stride`-th from `first` on.
///
/// Agents get classes of numbers by a prefix code of their index (exponential Golomb, of order 2), read from the lowest bit:
/// no code begins another, so no number is of two classes, however many agents there come to be. Each of the first four has
/// an eighth of all numbers, each of the next eight a thirty-second, and so on. An agent's workers take turns in its class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Lane {
    first: u64,
    stride: u64,
}

impl Lane {
    fn new(agent: u16, worker: u8, workers: u8) -> Self {
        let value = u64::from(agent) + 4;
        let digits = value.ilog2();
        let ones = digits - 2;
        let class = ((1 << ones) - 1) | (value - (1 << digits)) << (ones + 1);
        let classes = 1 << (ones + 1 + digits);
        Self { first: class + classes * u64::from(worker), stride: classes * u64::from(workers.max(1)) }
    }

    fn number(self, nth: u64) -> u64 {
        self.first + nth * self.stride
    }
}

/// The candidates of a worker.
pub(super) struct Candidates {
    /// Another run begins elsewhere.
    nonce: u64,
    lane: Lane,
    /// By room: how many this worker has added.
    added: HashMap<u32, u64>,
}

/// Whether people can be added to such a room at all: one with space for more, and somebody to come.
pub(super) fn takes_members(fixtures: &DailyFixtures, room: u32) -> bool {
    fixtures.openings(room) > 0
}

impl Candidates {
    pub(super) fn new(nonce: u64, agent: u16, (worker, workers): (u8, u8)) -> Self {
        Self { nonce, lane: Lane::new(agent, worker, workers), added: HashMap::new() }
    }

    /// Whom the run has added already is not added again.
    pub(super) fn inherit(&mut self, before: &mut Self) {
        self.added = std::mem::take(&mut before.added);
    }

    /// Whether there is somebody left to be added here.
    pub(super) fn has(&self, fixtures: &DailyFixtures, room: u32) -> bool {
        self.next(room) < u64::from(fixtures.openings(room))
    }

    fn next(&self, room: u32) -> u64 {
        self.lane.number(self.added.get(&room).copied().unwrap_or(0))
    }

    /// The next candidate of a room, as [`DailyFixtures::stranger`] counts them. Once all of this worker's were taken it may
    /// be somebody who was added before.
    pub(super) fn take(&mut self, room: u32) -> u64 {
        let next = self.next(room);
        *self.added.entry(room).or_default() += 1;
        splitmix64(self.nonce ^ u64::from(room) << 40) % (1 << 40) + next
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use plimsoll_common::contract::daily::{Band, DailyPreset, LARGE_ROOM_THRESHOLD};
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn rooms_never_grow_to_where_members_may_not_post_however_many_runs_add_to_them() {
        let fixtures = DailyFixtures::build(DailyPreset::Light, 2_000, 42).unwrap();
        for room in [Band::Small, Band::Medium].map(|band| fixtures.rooms_in(band).start) {
            let mut added = HashSet::new();
            for (run, agent) in (0..10).flat_map(|run| (0..6).map(move |agent| (run, agent))) {
                for worker in 0..2 {
                    let mut candidates = Candidates::new(splitmix64(run), agent, (worker, 2));
                    // More than there are: also those who are added once more are of the same.
                    added.extend((0..200).map(|_| fixtures.stranger(room, candidates.take(room)).unwrap()));
                }
            }
            let people = fixtures.size(room) + added.len() as u32;
            // Nobody is left to be added, and still everybody may post.
            assert_eq!(people, LARGE_ROOM_THRESHOLD, "{room}");
            assert!(fixtures.members(room).into_iter().all(|user| fixtures.may_post(room, user)));
        }
    }

    #[test]
    fn the_first_agents_have_an_eighth_of_all_candidates_each_and_later_ones_less() {
        let part = |agent| 1_000_000 / Lane::new(agent, 0, 1).stride;
        assert_eq!(
            [0, 3, 4, 11, 12, 27, 28, 4095].map(part),
            [125_000, 125_000, 31_250, 31_250, 7_812, 7_812, 1_953, 0]
        );
        // Eight workers of four boxes, in a room of ten of a hundred users: five or six each.
        for (agent, worker) in (0..4).flat_map(|agent| [0, 1].map(|worker| (agent, worker))) {
            let lane = Lane::new(agent, worker, 2);
            let left = (0..).take_while(|&nth| lane.number(nth) < 90).count();
            assert!((5..=6).contains(&left), "{left} of agent {agent}, worker {worker}");
        }
    }

    proptest! {
        #[test]
        fn no_number_is_of_two_workers(
            one in (0_u16..4096, 1_u8..=64, 0_u8..64), other in (0_u16..4096, 1_u8..=64, 0_u8..64), number in 0_u64..1 << 40,
        ) {
            let lane = |(agent, workers, worker): (u16, u8, u8)| Lane::new(agent, worker % workers, workers);
            let (one_is, other_is) = ((one.0, one.2 % one.1), (other.0, other.2 % other.1));
            // The workers of an agent are as many throughout.
            prop_assume!(one_is != other_is && (one.0 != other.0 || one.1 == other.1));
            let has = |lane: Lane, number: u64| number >= lane.first && (number - lane.first).is_multiple_of(lane.stride);
            let (one, other) = (lane(one), lane(other));
            let of_one = one.number(number / one.stride);
            prop_assert!(has(one, of_one) && !has(other, of_one));
        }
    }
}
