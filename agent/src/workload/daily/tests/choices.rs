//! What is drawn for an act: the room, the page of history, the content and whom it mentions.

use plimsoll_common::contract::daily::CONTENT_BYTES;
use plimsoll_common::contract::fixtures::user_of_account;
use plimsoll_common::contract::time::write_rfc3339;

use super::*;
use crate::workload::daily::users::splitmix64;

/// A page whose rows were written at these times, newest first, in Unix milliseconds.
fn page(times_ms: impl Iterator<Item = u64>) -> String {
    let row = |ms: u64| {
        let mut time = String::new();
        write_rfc3339(&mut time, ms * 1_000_000).unwrap();
        format!("{{\"createdAt\":\"{time}\"}}")
    };
    format!("{{\"messages\":[{}]}}", times_ms.map(row).collect::<Vec<_>>().join(","))
}

/// The next page of history that a user asks for: the room and the request; and what the answer was taken for.
fn scroll(daily: &mut Daily, ledger: &mut Ledger, user: u32, bits: u64, answer: &str) -> (u32, String, Outcome, Aside) {
    daily.acting = Some((user, Act { at_ns: 1, action: Action::ScrollHistory, bits }));
    let choice = daily.choose(&mut ChaCha8Rng::seed_from_u64(2));
    let Release::Released(sequence) = ledger.due(1, 1, || choice) else { panic!("not released") };
    let outgoing = daily.message(sequence, choice);
    ledger.sent(sequence);
    let reply = outgoing.reply.unwrap().to_string();
    let line = daily.line_of(choice).unwrap();
    let tag = daily.lines().unwrap().into_iter().find(|wanted| wanted.line == line).unwrap().tags[0];
    let mut aside = Aside::default();
    let incoming = daily.heard(line, tag, &heard(&reply, answer.as_bytes()), ledger, &mut aside);
    let Incoming::Answer { outcome, .. } = incoming else { panic!("{incoming:?}") };
    (choice.place, String::from_utf8(outgoing.payload.to_vec()).unwrap(), outcome, aside)
}

#[test]
fn a_room_without_a_message_was_not_read_and_one_that_was_read_to_its_end_may_be_empty() {
    let (mut daily, mut ledger) = daily();
    let (even, odd) = (2, 3);
    let empty = page(std::iter::empty());
    // The newest page of all, as the service sees it: no clock of this box is in it.
    let (_, asked, outcome, aside) = scroll(&mut daily, &mut ledger, 5, even, &empty);
    assert_eq!((asked.as_str(), outcome), ("{\"limit\":20}", Outcome::Unreadable));
    assert!(aside.observed.iter().all(|&(observation, _)| observation != EMPTY_PAGES));
    // A full page, and then what lies before it: in the same room, whoever reads meanwhile.
    let newest = 1_782_617_354_123;
    let full = page((0..20).map(|at| newest - at * 10));
    let (room, asked, outcome, _) = scroll(&mut daily, &mut ledger, 5, even, &full);
    assert_eq!((asked.as_str(), outcome), ("{\"limit\":20}", Outcome::Sample));
    let (_, asked, ..) = scroll(&mut daily, &mut ledger, 6, even, &full);
    assert_eq!(asked, "{\"limit\":20}");
    let (again, asked, outcome, aside) = scroll(&mut daily, &mut ledger, 5, even, &empty);
    assert_eq!((again, asked), (room, format!("{{\"before\":{},\"limit\":20}}", newest - 190)));
    assert_eq!((outcome, aside.observed), (Outcome::Sample, vec![(HISTORY_ROWS, 0), (EMPTY_PAGES, 0)]));
    // It was the room's end, and so is a page that is not full: the next one begins anew.
    let short = page((0..19).map(|at| newest - at * 10));
    for _ in 0..2 {
        let (_, asked, outcome, _) = scroll(&mut daily, &mut ledger, 5, even, &short);
        assert_eq!((asked.as_str(), outcome), ("{\"limit\":20}", Outcome::Sample));
    }
    // Half of the time somebody begins in another room although there is more in this one.
    scroll(&mut daily, &mut ledger, 7, even, &full);
    let begins = (0..40).filter(|at| scroll(&mut daily, &mut ledger, 7, odd + 2 * at, &full).1 == "{\"limit\":20}");
    assert!(begins.count() > 30);
}

#[test]
fn a_page_that_was_asked_for_as_a_further_one_stays_so_whatever_is_read_meanwhile() {
    let (mut daily, mut ledger) = daily();
    let full = page((0..20).map(|at| 9_000_000 - at * 10));
    scroll(&mut daily, &mut ledger, 5, 2, &full);
    daily.acting = Some((5, Act { at_ns: 1, action: Action::ScrollHistory, bits: 2 }));
    let choice = daily.choose(&mut ChaCha8Rng::seed_from_u64(2));
    // Before it leaves, the end of that room was read by another request.
    scroll(&mut daily, &mut ledger, 5, 2, &page(std::iter::empty()));
    let Release::Released(sequence) = ledger.due(1, 1, || choice) else { panic!("not released") };
    let outgoing = daily.message(sequence, choice);
    assert_eq!(&outgoing.payload[..], b"{\"before\":8999810,\"limit\":20}");
    assert_eq!(daily.page(choice, page(std::iter::empty()).as_bytes(), &mut Aside::default()), Outcome::Sample);
}

#[test]
fn rooms_are_drawn_by_zipfs_law_from_an_order_of_each_persons_own() {
    const DRAWS: u64 = 50_000;
    let (daily, _) = daily();
    let act = |bits| Act { at_ns: 1, action: Action::MarkRead, bits };
    let mut favourites = std::collections::HashSet::new();
    for user in [0, 41, 99] {
        let actor = daily.users.index(user);
        let mut drawn = std::collections::HashMap::<u32, f64>::new();
        for bits in 0..DRAWS {
            let room = daily.users.room_for(actor, &act(splitmix64(bits)), &daily.fixtures, &daily.candidates);
            *drawn.entry(room).or_default() += 1.0;
        }
        let mut rooms = daily.fixtures.rooms_of(user);
        rooms.sort_by(|a, b| drawn[b].total_cmp(&drawn[a]));
        let harmonic: f64 = (1..=rooms.len()).map(|rank| 1.0 / rank as f64).sum();
        for (rank, room) in (1..).zip(&rooms) {
            let part = 1.0 / f64::from(rank) / harmonic;
            // Six standard deviations, since sorting moves neighbours of nearly equal ranks.
            let spread = 6.0 * (part * (1.0 - part) * DRAWS as f64).sqrt();
            assert!((drawn[room] - part * DRAWS as f64).abs() < spread, "rank {rank} of {user}: {}", drawn[room]);
        }
        favourites.insert(rooms.iter().position(|&room| daily.fixtures.rooms_of(user)[0] == room));
    }
    // Nobody's order is that of the rooms' numbers.
    assert!(favourites.len() > 1, "{favourites:?}");
}

#[test]
fn contents_are_as_long_as_the_presets_say_and_one_in_twenty_mentions_another_member() {
    const MESSAGES: u64 = 20_000;
    let (mut daily, _) = daily();
    let (mut mentions, mut lengths) = (0_u32, Vec::new());
    let mut mentioned = std::collections::HashSet::new();
    for sequence in 0..MESSAGES {
        let bits = splitmix64(sequence);
        let (user, action) = (bits as u32 % 100, [Action::Send, Action::ThreadReply][(bits >> 40) as usize % 2]);
        daily.acting = Some((user, Act { at_ns: 1, action, bits }));
        let choice = daily.choose(&mut ChaCha8Rng::seed_from_u64(2));
        let body = daily.message(sequence, choice).payload;
        assert_eq!(daily.message(sequence, choice).payload, body);
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        let content = body["content"].as_str().unwrap();
        lengths.push(content.len() as f64);
        assert_eq!(content.matches('@').count(), usize::from(content.starts_with('@')), "{content}");
        if let Some(rest) = content.strip_prefix('@') {
            let whom = user_of_account(rest.split(' ').next().unwrap()).unwrap();
            assert!(whom != user && daily.fixtures.has_member(choice.place, whom), "{user} mentions {whom}");
            mentioned.insert(whom);
            mentions += 1;
        }
    }
    // Five standard deviations of so many draws: 154 of 1,000, and 20 bytes of 1,025.
    assert!((846..=1_154).contains(&mentions), "{mentions}");
    assert!(mentioned.len() > 300, "{}", mentioned.len());
    assert!(lengths.iter().all(|&length| CONTENT_BYTES.contains(&(length as u32))));
    let mean = lengths.iter().sum::<f64>() / MESSAGES as f64;
    assert!((mean - 1_025.0).abs() < 20.0, "{mean}");
    let (shortest, longest) = lengths.iter().fold((f64::MAX, 0.0_f64), |(a, b), &at| (a.min(at), b.max(at)));
    assert!(shortest < 55.0 && longest > 1_995.0, "{shortest} to {longest}");
}

#[test]
fn whichever_agent_drives_a_person_the_same_is_written_to_the_same_rooms() {
    // All of a hundred people on one worker of one agent; every third of them on the last of three workers of another.
    let every_third: Vec<u32> = (0..100).step_by(3).collect();
    let part = Part::of_users(&every_third, 10, 4, 1).remove(0);
    let acts = |(mut daily, _): (Daily, Ledger)| {
        let mut acts = std::collections::BTreeMap::new();
        for sequence in 1.. {
            if daily.next_due().is_none() {
                break;
            }
            let (user, act) = daily.acting.unwrap();
            let choice = daily.choose(&mut ChaCha8Rng::seed_from_u64(sequence));
            // Whom they add, and what their rooms are called, no two agents have in common.
            if every_third.contains(&user) && !matches!(act.action, Action::MemberAdd | Action::RoomCreate) {
                let Outgoing { subject, payload, .. } = daily.message(sequence, choice);
                let body: serde_json::Value = serde_json::from_slice(&payload).unwrap_or_default();
                let said = ["content", "threadParentMessageId"].map(|field| body[field].as_str().map(str::to_owned));
                acts.insert((user, act.at_ns, act.action as u8), (subject.to_string(), said));
            }
        }
        acts
    };
    let one = acts(daily());
    let other = acts(worker_with(5, (2, 3), &part, Exchange::desks(3)[2].exchange()));
    assert!(one.len() > 2_000, "{}", one.len());
    assert!(one == other, "{} and {} acts", one.len(), other.len());
}
