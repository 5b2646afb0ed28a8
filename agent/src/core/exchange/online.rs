//! How many users of an agent are online in each room, whichever of its workers has their connections.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Users online by the room that they are in.
#[derive(Debug, Default)]
pub struct Online {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    by_room: HashMap<u32, u32>,
    /// How often somebody came.
    arrivals: u64,
}

impl Online {
    // Counts are right whenever the lock is let go of.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Users of these rooms are online, all at once. Where users are dealt anew, whoever gets one may say so before whoever had
    /// it says that it went: both are to say each once. Returns the number of this arrival, which is above those of all before.
    pub fn come<'a>(&self, users: impl IntoIterator<Item = &'a [u32]>) -> u64 {
        let mut state = self.state();
        for &room in users.into_iter().flatten() {
            *state.by_room.entry(room).or_default() += 1;
        }
        state.arrivals += 1;
        state.arrivals
    }

    /// Users of these rooms are online no longer.
    pub fn go<'a>(&self, users: impl IntoIterator<Item = &'a [u32]>) {
        let by_room = &mut self.state().by_room;
        for room in users.into_iter().flatten() {
            if let Some(count) = by_room.get_mut(room) {
                *count -= 1;
                if *count == 0 {
                    by_room.remove(room);
                }
            }
        }
    }

    /// How many are online of those who are in a room, and the number of the last arrival: whoever came with a higher one is not
    /// among them.
    pub fn in_room(&self, room: u32) -> (u32, u64) {
        let state = self.state();
        (state.by_room.get(&room).copied().unwrap_or(0), state.arrivals)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rooms_count_who_is_online_in_them_and_are_forgotten_with_the_last() {
        let online = Online::default();
        let counts = |rooms: [u32; 4]| rooms.map(|room| online.in_room(room).0);
        for room in [8, 9] {
            online.come([&[7, room][..]]);
        }
        assert_eq!(counts([7, 8, 9, 10]), [2, 1, 1, 0]);
        // One that moves to another worker, which is the first to know.
        online.come([&[7, 8][..]]);
        online.go([&[7, 8][..]]);
        assert_eq!(counts([7, 8, 9, 10]), [2, 1, 1, 0]);
        online.go([&[7, 8][..], &[7, 9]]);
        assert!(online.state().by_room.is_empty());
    }

    #[test]
    fn who_is_counted_is_told_from_who_came_later() {
        let online = Online::default();
        let first = online.come([&[7][..], &[7, 8]]);
        let (count, last) = online.in_room(7);
        assert_eq!((count, last), (2, first));
        // One that goes and comes again is another arrival.
        online.go([&[7][..]]);
        assert_eq!(online.in_room(7), (1, last));
        let again = online.come([&[7][..]]);
        assert!(again > last && online.in_room(7) == (2, again));
    }
}
