//! Which rooms and users belong to whom, so that every agent receives only what answers its own operations.
//!
//! Every room has an owner and every user a home; an operation takes an owned room and a member whose home is its owner.
//! Each room first gets one anchor (a member who lives with its owner), so that every room has a sender; any other user
//! lives where most of their rooms are. Rooms are dealt whole where their weights can follow the shares within 2 %; where
//! they cannot (many owners, few rooms) they are laid on a line that is cut where the shares end, so that a room may have
//! several owners, each with an anchor of its own; where too many of them meet in a small room, they are cut apart. The same rule deals an agent's rooms to its workers, which then get
//! shares by the weight of what they were dealt.

/// Whole rooms may miss the shares by this much, relatively, before rooms are cut.
const WHOLE_ROOM_TOLERANCE: f64 = 0.02;

/// Pieces below this part of a room would need an anchor for next to no traffic.
const SLIVER: f64 = 1e-6;

/// A room's part in the hands of one owner.
#[derive(Debug, Clone, PartialEq)]
pub struct Piece {
    /// Index of the room.
    pub room: u32,
    /// The part of the room's weight: all of it where the room has one owner.
    pub weight: f64,
    /// Where in the room's weight that part begins: 0 where the room has one owner. The pieces of a room neither overlap nor
    /// leave a gap.
    pub start: f64,
    /// The member that lives with the owner for this room's sake.
    pub anchor: u32,
}

/// What one owner was dealt.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Assignment {
    /// The rooms, ascending.
    pub pieces: Vec<Piece>,
    /// For each piece: the members of its room that live with this owner, ascending, at least the anchor.
    pub senders: Vec<Vec<u32>>,
}

impl Assignment {
    /// Sum of the pieces' weights.
    pub fn weight(&self) -> f64 {
        self.pieces.iter().map(|piece| piece.weight).sum()
    }

    /// Pairs of a room and a sender that an operation can take.
    pub fn pairs(&self) -> u64 {
        self.senders.iter().map(|senders| senders.len() as u64).sum()
    }

    /// How many different users send.
    pub fn sender_count(&self) -> u32 {
        let mut users: Vec<u32> = self.senders.iter().flatten().copied().collect();
        users.sort_unstable();
        users.dedup();
        users.len() as u32
    }
}

/// What everybody was dealt.
#[derive(Debug, Clone, PartialEq)]
pub struct Deal {
    /// One per owner, in the order of the shares; an owner whose share is zero has an empty one.
    pub assignments: Vec<Assignment>,
    /// The largest relative deviation of a room's rate from its weight.
    pub largest_deviation: f64,
}

/// Why rooms cannot be dealt.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DealError {
    /// More owners than rooms can be cut for.
    #[error("{rooms} rooms and {users} users cannot feed {owners} agents: take a larger preset or fewer agents")]
    TooManyOwners {
        /// Owners with a share.
        owners: usize,
        /// Rooms in the fixtures.
        rooms: usize,
        /// Users in the fixtures.
        users: u32,
    },
}

/// Deals rooms to agents by their shares (any unit; zero for an agent that sits out). A room's part of the traffic is its
/// weight, in any unit and above zero.
///
/// # Errors
/// When there are not enough rooms and members for every owner to have a sender of its own.
pub fn deal_to_agents(members: &[&[u32]], weights: &[f64], users: u32, shares: &[u64]) -> Result<Deal, DealError> {
    let whole: Vec<WeightedRoom> =
        (0..).zip(weights).map(|(room, &weight)| WeightedRoom { room, weight, start: 0.0 }).collect();
    let mut parts = deal_whole(&whole, shares);
    let mut anchored = None;
    if deviation_of_owners(&parts, shares) <= WHOLE_ROOM_TOLERANCE {
        anchored = anchors(&parts, members, users);
    } else {
        for cut in [cut, cut_apart] {
            parts = cut(&whole, shares);
            anchored = anchors(&parts, members, users);
            if anchored.is_some() {
                break;
            }
        }
    }
    let anchors = anchored.ok_or(DealError::TooManyOwners {
        owners: shares.iter().filter(|&&share| share > 0).count(),
        rooms: members.len(),
        users,
    })?;
    let assignments = with_senders(parts, anchors, members, users);
    let largest_deviation = largest_deviation(&assignments, weights, shares);
    Ok(Deal { assignments, largest_deviation })
}

/// Deals one agent's assignment on to its workers: whole pieces, as evenly as they go; the anchors are those of the pieces, and
/// only users whose home the agent is take part. A worker may go without.
pub fn deal_to_workers(assignment: &Assignment, members: &[&[u32]], users: u32, workers: usize) -> Vec<Assignment> {
    let piece = |(room, piece): (u32, &Piece)| WeightedRoom { room, weight: piece.weight, start: piece.start };
    let pieces: Vec<WeightedRoom> = (0..).zip(&assignment.pieces).map(piece).collect();
    let parts = deal_whole(&pieces, &vec![1; workers]);
    // The pieces' indices stand in for rooms while they are dealt; here they become rooms again.
    let anchors: Vec<Vec<u32>> = parts
        .iter()
        .map(|part| part.iter().map(|dealt| assignment.pieces[dealt.room as usize].anchor).collect())
        .collect();
    let parts: Vec<Vec<WeightedRoom>> = parts
        .into_iter()
        .map(|part| {
            let room =
                |dealt: WeightedRoom| WeightedRoom { room: assignment.pieces[dealt.room as usize].room, ..dealt };
            part.into_iter().map(room).collect()
        })
        .collect();
    let mut at_home = vec![false; users as usize];
    assignment.senders.iter().flatten().for_each(|&user| at_home[user as usize] = true);
    let locals: Vec<Vec<u32>> =
        members.iter().map(|room| room.iter().copied().filter(|&user| at_home[user as usize]).collect()).collect();
    let locals: Vec<&[u32]> = locals.iter().map(Vec::as_slice).collect();
    with_senders(parts, anchors, &locals, users)
}

#[derive(Debug, Clone, Copy)]
struct WeightedRoom {
    room: u32,
    weight: f64,
    /// Of the weight, within that of the whole room.
    start: f64,
}

/// Heaviest room first, each to the owner that lacks most of its share (longest processing time first).
fn deal_whole(rooms: &[WeightedRoom], shares: &[u64]) -> Vec<Vec<WeightedRoom>> {
    let total: f64 = rooms.iter().map(|room| room.weight).sum();
    let sum: f64 = shares.iter().map(|&share| share as f64).sum();
    let mut missing: Vec<f64> = shares.iter().map(|&share| total * share as f64 / sum).collect();
    let mut order: Vec<&WeightedRoom> = rooms.iter().collect();
    order.sort_by(|a, b| b.weight.total_cmp(&a.weight).then(a.room.cmp(&b.room)));
    let mut parts = vec![Vec::new(); shares.len()];
    for room in order {
        let owners = (0..shares.len()).filter(|&owner| shares[owner] > 0);
        let Some(owner) = owners.max_by(|&a, &b| missing[a].total_cmp(&missing[b]).then(b.cmp(&a))) else { break };
        missing[owner] -= room.weight;
        parts[owner].push(*room);
    }
    parts.iter_mut().for_each(|part: &mut Vec<WeightedRoom>| part.sort_by_key(|room| room.room));
    parts
}

fn deviation_of_owners(parts: &[Vec<WeightedRoom>], shares: &[u64]) -> f64 {
    let total: f64 = parts.iter().flatten().map(|room| room.weight).sum();
    let sum: f64 = shares.iter().map(|&share| share as f64).sum();
    parts
        .iter()
        .zip(shares)
        .filter(|(_, share)| **share > 0)
        .map(|(part, &share)| {
            let dealt: f64 = part.iter().map(|room| room.weight).sum();
            // Of the owner's rooms: their rate is the share spread over what was dealt.
            ((share as f64 / sum) / (dealt / total) - 1.0).abs()
        })
        .fold(0.0, f64::max)
}

/// Lays the rooms on a line and cuts it where the shares end (McNaughton's wrap-around rule).
fn cut(rooms: &[WeightedRoom], shares: &[u64]) -> Vec<Vec<WeightedRoom>> {
    let total: f64 = rooms.iter().map(|room| room.weight).sum();
    let sum: f64 = shares.iter().map(|&share| share as f64).sum();
    let mut parts = vec![Vec::new(); shares.len()];
    let mut left = rooms.iter().copied();
    let mut current = left.next();
    for (owner, &share) in shares.iter().enumerate() {
        let mut wanted = total * share as f64 / sum;
        while let Some(room) = current {
            if wanted <= room.weight * SLIVER {
                break;
            }
            let taken = if room.weight - wanted <= room.weight * SLIVER { room.weight } else { wanted };
            parts[owner].push(WeightedRoom { weight: taken, ..room });
            wanted -= taken;
            current = if taken < room.weight {
                Some(WeightedRoom { weight: room.weight - taken, start: room.start + taken, ..room })
            } else {
                left.next()
            };
        }
    }
    parts
}

/// Cuts rooms so that small owners meet in as few of them as can be: each, the smallest first, takes from the rooms that were
/// cut least, and the largest owner has what is left of all. On the line of [`cut`] the owners of small shares would lie
/// side by side in one room, which may have fewer members than that.
fn cut_apart(rooms: &[WeightedRoom], shares: &[u64]) -> Vec<Vec<WeightedRoom>> {
    let total: f64 = rooms.iter().map(|room| room.weight).sum();
    let sum: f64 = shares.iter().map(|&share| share as f64).sum();
    let mut parts: Vec<Vec<WeightedRoom>> = vec![Vec::new(); shares.len()];
    // What is left of each room, and how often it was cut.
    let mut left: Vec<(WeightedRoom, u32)> = rooms.iter().map(|&room| (room, 0)).collect();
    let mut owners: Vec<usize> = (0..shares.len()).filter(|&owner| shares[owner] > 0).collect();
    owners.sort_by_key(|&owner| (shares[owner], owner));
    let Some(largest) = owners.pop() else { return parts };
    for owner in owners {
        let mut wanted = total * shares[owner] as f64 / sum;
        while let Some(at) = (0..left.len()).min_by(|&a, &b| {
            left[a].1.cmp(&left[b].1).then(left[b].0.weight.total_cmp(&left[a].0.weight)).then(a.cmp(&b))
        }) {
            let (room, cuts) = &mut left[at];
            if wanted <= room.weight * SLIVER {
                break;
            }
            if room.weight - wanted <= room.weight * SLIVER {
                wanted -= room.weight;
                parts[owner].push(left.swap_remove(at).0);
            } else {
                parts[owner].push(WeightedRoom { weight: wanted, ..*room });
                (room.start, room.weight, *cuts) = (room.start + wanted, room.weight - wanted, *cuts + 1);
                break;
            }
        }
    }
    parts[largest].extend(left.into_iter().map(|(room, _)| room));
    parts.iter_mut().for_each(|part| part.sort_by_key(|room| room.room));
    parts
}

/// One member per piece such that no user is an anchor twice: a bipartite matching by augmenting paths (Kuhn), the
/// pieces of the smallest rooms first. `None` when there is none, or when an owner with rooms would be left without one.
fn anchors(parts: &[Vec<WeightedRoom>], members: &[&[u32]], users: u32) -> Option<Vec<Vec<u32>>> {
    let mut pieces: Vec<(usize, usize)> =
        parts.iter().enumerate().flat_map(|(owner, part)| (0..part.len()).map(move |at| (owner, at))).collect();
    let room_of = |&(owner, at): &(usize, usize)| members[parts[owner][at].room as usize];
    pieces.sort_by_key(|piece| (room_of(piece).len(), *piece));
    let rooms: Vec<&[u32]> = pieces.iter().map(room_of).collect();
    let mut piece_of_user: Vec<Option<usize>> = vec![None; users as usize];
    let mut visited = vec![usize::MAX; users as usize];
    for piece in 0..pieces.len() {
        if !augment(piece, piece, &rooms, &mut piece_of_user, &mut visited) {
            return None;
        }
    }
    let mut anchors: Vec<Vec<u32>> = parts.iter().map(|part| vec![0; part.len()]).collect();
    for (user, piece) in (0..).zip(piece_of_user) {
        if let Some(piece) = piece {
            let (owner, at) = pieces[piece];
            anchors[owner][at] = user;
        }
    }
    Some(anchors)
}

/// Finds `piece` a member, moving earlier pieces to other members where that helps. Iterative, since a path may be as
/// long as there are rooms. `round` marks the users seen in this search.
fn augment(
    piece: usize,
    round: usize,
    rooms: &[&[u32]],
    piece_of_user: &mut [Option<usize>],
    visited: &mut [usize],
) -> bool {
    // Each frame: a piece that needs a member, and the next of its room's members to try.
    let mut path: Vec<(usize, usize)> = vec![(piece, 0)];
    while let Some(&(piece, next)) = path.last() {
        let members = rooms[piece];
        let free = members.iter().find(|&&user| piece_of_user[user as usize].is_none());
        if let Some(&user) = free {
            // Hand down the path: each piece takes the user it was trying, the last one the free user.
            let mut user = user;
            while let Some((piece, next)) = path.pop() {
                piece_of_user[user as usize] = Some(piece);
                let Some(&(parent, tried)) = path.last() else { break };
                debug_assert!(next <= rooms[piece].len());
                user = rooms[parent][tried - 1];
            }
            return true;
        }
        match members.get(next) {
            None => drop(path.pop()),
            Some(&user) => {
                path.last_mut().expect("just looked at").1 += 1;
                if visited[user as usize] != round {
                    visited[user as usize] = round;
                    let holder = piece_of_user[user as usize].expect("no member is free, so this one is held");
                    path.push((holder, 0));
                }
            }
        }
    }
    false
}

/// Gives every user a home (the anchors first, then where most of their rooms' weight is) and lists each piece's senders.
fn with_senders(
    parts: Vec<Vec<WeightedRoom>>,
    anchors: Vec<Vec<u32>>,
    members: &[&[u32]],
    users: u32,
) -> Vec<Assignment> {
    let mut home: Vec<Option<u32>> = vec![None; users as usize];
    for (owner, anchors) in (0..).zip(&anchors) {
        anchors.iter().for_each(|&anchor| home[anchor as usize] = Some(owner));
    }
    // (owner, weight) of every piece that a user is a member of, gathered per user.
    let mut claims: Vec<Vec<(u32, f64)>> = vec![Vec::new(); users as usize];
    for (owner, part) in (0..).zip(&parts) {
        for piece in part {
            let whole = members[piece.room as usize].len().max(1) as f64;
            for &user in members[piece.room as usize] {
                claims[user as usize].push((owner, piece.weight / whole));
            }
        }
    }
    for (home, claims) in home.iter_mut().zip(&mut claims) {
        if home.is_none() {
            *home = most_claimed(claims);
        }
    }
    let mut assignments = Vec::with_capacity(parts.len());
    for ((owner, part), anchors) in (0..).zip(parts).zip(anchors) {
        let lives_here = |user: &u32| home[*user as usize] == Some(owner);
        let senders: Vec<Vec<u32>> = part
            .iter()
            .map(|piece| members[piece.room as usize].iter().copied().filter(lives_here).collect())
            .collect();
        let pieces = part.into_iter().zip(anchors);
        let piece = |(dealt, anchor): (WeightedRoom, u32)| {
            let WeightedRoom { room, weight, start } = dealt;
            Piece { room, weight, start, anchor }
        };
        let pieces = pieces.map(piece).collect();
        assignments.push(Assignment { pieces, senders });
    }
    assignments
}

fn most_claimed(claims: &mut [(u32, f64)]) -> Option<u32> {
    claims.sort_by_key(|&(owner, _)| owner);
    let sums = claims.chunk_by(|a, b| a.0 == b.0).map(|run| (run[0].0, run.iter().map(|claim| claim.1).sum::<f64>()));
    sums.fold(None, |best: Option<(u32, f64)>, next| match best {
        Some(best) if best.1 >= next.1 => Some(best),
        _ => Some(next),
    })
    .map(|(owner, _)| owner)
}

/// A room's rate is the sum over its owners of share × piece ÷ assignment; it should be its weight's part of all weights.
fn largest_deviation(assignments: &[Assignment], weights: &[f64], shares: &[u64]) -> f64 {
    let total: f64 = weights.iter().sum();
    let sum: f64 = shares.iter().map(|&share| share as f64).sum();
    let mut rates = vec![0.0; weights.len()];
    for (assignment, &share) in assignments.iter().zip(shares) {
        let weight = assignment.weight();
        for piece in &assignment.pieces {
            rates[piece.room as usize] += share as f64 / sum * piece.weight / weight;
        }
    }
    let deviation = |(rate, weight): (&f64, &f64)| (rate / (weight / total) - 1.0).abs();
    rates.iter().zip(weights).map(deviation).fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::fixtures::Fixtures;
    use crate::contract::presets::MessagesPreset;
    use proptest::prelude::*;
    use std::collections::HashMap;

    fn dealt(preset: MessagesPreset, shares: &[u64]) -> Result<(Fixtures, Deal), DealError> {
        let fixtures = Fixtures::build(preset, 42, "site-local");
        let members: Vec<&[u32]> = fixtures.rooms.iter().map(|room| room.members.as_slice()).collect();
        let weights: Vec<f64> = fixtures.rooms.iter().map(|room| room.weight() as f64).collect();
        let deal = deal_to_agents(&members, &weights, fixtures.users, shares)?;
        Ok((fixtures, deal))
    }

    fn check(fixtures: &Fixtures, assignments: &[Assignment], whole: f64) {
        let mut homes: HashMap<u32, usize> = HashMap::new();
        let mut weights: HashMap<u32, f64> = HashMap::new();
        for (owner, assignment) in assignments.iter().enumerate() {
            for (piece, senders) in assignment.pieces.iter().zip(&assignment.senders) {
                *weights.entry(piece.room).or_default() += piece.weight;
                assert!(senders.contains(&piece.anchor));
                for sender in senders {
                    assert!(fixtures.rooms[piece.room as usize].has_member(*sender));
                    assert_eq!(*homes.entry(*sender).or_insert(owner), owner, "user {sender} has two homes");
                }
            }
        }
        let sum: f64 = weights.values().sum();
        assert!((sum - whole).abs() < 1e-6 * whole, "{sum} of {whole}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn every_room_is_dealt_whole_every_user_has_one_home_and_rates_follow_weights(
            shares in prop::collection::vec(1_u64..1000, 1..9),
            preset in prop::sample::select(vec![MessagesPreset::Medium, MessagesPreset::Large, MessagesPreset::Realistic]),
            workers in 1_usize..5,
        ) {
            let (fixtures, deal) = dealt(preset, &shares).unwrap();
            check(&fixtures, &deal.assignments, fixtures.subscriptions() as f64);
            prop_assert!(deal.largest_deviation <= WHOLE_ROOM_TOLERANCE + 1e-9, "{}", deal.largest_deviation);
            let members: Vec<&[u32]> = fixtures.rooms.iter().map(|room| room.members.as_slice()).collect();
            for assignment in &deal.assignments {
                let workers = deal_to_workers(assignment, &members, fixtures.users, workers);
                check(&fixtures, &workers, assignment.weight());
                prop_assert_eq!(workers.iter().map(Assignment::sender_count).sum::<u32>(), assignment.sender_count());
            }
        }
    }

    proptest! {
        #[test]
        fn a_few_small_rooms_feed_a_few_agents_whatever_their_shares(shares in prop::collection::vec(1_u64..10_000, 1..5)) {
            let (fixtures, deal) = dealt(MessagesPreset::Small, &shares).unwrap();
            check(&fixtures, &deal.assignments, 10.0);
            prop_assert!(deal.largest_deviation <= WHOLE_ROOM_TOLERANCE + 1e-9, "{}", deal.largest_deviation);
        }
    }

    #[test]
    fn a_share_two_per_cent_above_its_rooms_is_above_the_tolerance() {
        // Measured the other way round, by rooms over share, this deal was within 2 %, and its rooms' rates were not.
        let (_, deal) = dealt(MessagesPreset::Large, &[760, 708, 235, 91, 704, 983, 366, 31]).unwrap();
        assert!(deal.largest_deviation <= WHOLE_ROOM_TOLERANCE, "{}", deal.largest_deviation);
    }

    #[test]
    fn few_rooms_are_cut_for_many_agents() {
        let (fixtures, deal) = dealt(MessagesPreset::Small, &[1, 1, 1, 1]).unwrap();
        check(&fixtures, &deal.assignments, 10.0);
        assert!(deal.largest_deviation < 1e-9);
        assert!(deal.assignments.iter().any(|assignment| assignment.pieces.iter().any(|piece| piece.weight < 2.0)));
        for room in 0..5 {
            let pieces =
                deal.assignments.iter().flat_map(|assignment| &assignment.pieces).filter(|piece| piece.room == room);
            let mut pieces: Vec<(f64, f64)> = pieces.map(|piece| (piece.start, piece.start + piece.weight)).collect();
            pieces.sort_by(|a, b| a.0.total_cmp(&b.0));
            assert_eq!(pieces[0].0, 0.0);
            assert!(pieces.windows(2).all(|pair| pair[0].1 == pair[1].0), "{pieces:?}");
            assert!((pieces.last().unwrap().1 - 2.0).abs() < 1e-9);
        }
    }

    #[test]
    fn one_agent_uses_every_pair() {
        let (fixtures, deal) = dealt(MessagesPreset::Realistic, &[7]).unwrap();
        assert_eq!(deal.assignments[0].pairs(), fixtures.subscriptions() as u64);
        assert_eq!(deal.largest_deviation, 0.0);
    }

    #[test]
    fn an_agent_without_a_share_gets_nothing() {
        let (_, deal) = dealt(MessagesPreset::Medium, &[1, 0, 1]).unwrap();
        assert_eq!(deal.assignments[1], Assignment::default());
    }

    #[test]
    fn more_agents_than_the_rooms_can_feed_is_an_error_with_the_way_out() {
        let error = dealt(MessagesPreset::Small, &[1; 40]).map(drop);
        let words = "5 rooms and 10 users cannot feed 40 agents: take a larger preset or fewer agents";
        assert_eq!(error.map_err(|error| error.to_string()), Err(words.to_owned()));
    }
}
