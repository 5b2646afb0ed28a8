use plimsoll_common::contract::daily::{Band, DailyPreset};
use plimsoll_common::contract::ids::Sender;
use plimsoll_common::plan::{AgentPlan, Arrivals, More, Target, TrialId, Workload as AnyWorkload};
use plimsoll_common::units::Rate;
use plimsoll_common::workload::daily::RECIPIENTS_REACHED;
use rand::SeedableRng as _;

use super::*;
mod choices;
mod signs;

use crate::core::ledger::Release;
use crate::workload::Part;
use crate::workload::fixture::{ledger, ledger_from};

fn plan() -> DailyWorkload {
    DailyWorkload {
        preset: DailyPreset::Light,
        site_id: "s".into(),
        users: 1_000,
        max_direct_users: 30,
        multiplex_pool_size: 4,
        max_connections: 1_000,
        activation_rate: Rate::per_second(500).unwrap(),
        day: None,
        at_peak: false,
        presence: false,
    }
}

/// The first 100 users on one worker, 30 of them with a connection each, all online.
fn daily() -> (Daily, Ledger) {
    worker_of(0, (0, 1))
}

/// What the agent of this index is told.
fn run(agent_index: u16, plan: DailyWorkload) -> AgentPlan {
    AgentPlan {
        agent_index,
        run_nonce: 7,
        seed: 42,
        target: Target { url: "nats://nowhere".into(), credentials: None },
        workload: AnyWorkload::Daily(plan),
        request_timeout: Duration::from_secs(5),
        series: Vec::new(),
        max_lateness: Duration::from_millis(100),
    }
}

fn setup<'a>(
    run: &'a AgentPlan,
    part: &'a Part,
    (worker, workers): (u8, u8),
    exchange: &'a Arc<Exchange>,
    chance: &'a mut ChaCha8Rng,
) -> Setup<'a> {
    let ids = IdCodec::new(Sender::new(7, run.agent_index, worker));
    let exchange = Some(exchange);
    Setup { plan: run, fixtures: None, part, worker, workers, exchange, inbox: "_INBOX.test", ids, chance }
}

/// The same people on a worker of an agent.
fn worker_of(agent_index: u16, of_workers: (u8, u8)) -> (Daily, Ledger) {
    let part = Part::of_users(&(0..100).collect::<Vec<_>>(), 30, 4, 1).remove(0);
    worker_with(agent_index, of_workers, &part, Exchange::desks(1)[0].exchange())
}

/// A worker of an agent with these people, all online.
pub(crate) fn worker_with(
    agent_index: u16,
    of_workers: (u8, u8),
    part: &Part,
    exchange: &Arc<Exchange>,
) -> (Daily, Ledger) {
    let run = run(agent_index, plan());
    let mut chance = ChaCha8Rng::seed_from_u64(1 + u64::from(agent_index));
    let mut daily = Daily::new(&plan(), setup(&run, part, of_workers, exchange, &mut chance)).unwrap();
    for wanted in daily.lines().unwrap() {
        daily.line_changed(wanted.line, true);
    }
    daily.begin(&order()).unwrap();
    let ledger = ledger(&daily, &run.workload);
    (daily, ledger)
}

/// The book of a further trial, whose operations are numbered from here on.
pub(crate) fn begin_again(daily: &mut Daily, first: u64) -> Ledger {
    daily.begin(&order()).unwrap();
    ledger_from(daily, &AnyWorkload::Daily(plan()), first)
}

fn order() -> StepOrder {
    StepOrder {
        trial: TrialId { step: 0, trial: 0 },
        share: Rate::per_second(100).unwrap(),
        start_boottime_ns: 0,
        warmup: Duration::ZERO,
        hold: Duration::from_secs(10),
        arrivals: Arrivals::Poisson,
        max_in_flight: 10_000,
        more: More::default(),
    }
}

/// The lines of this worker on which a message in a room comes, with the subscription that brings it and to how many of its users
/// each comes: of a channel all who listen to it, of a direct message its members' own.
pub(crate) fn lines_of(daily: &Daily, room: u32) -> Vec<(u32, u64, u32)> {
    let members = daily.fixtures.members(room);
    let brings = |tag: u64| match Tag::unpack(tag) {
        Tag::Room(channel) => channel == room,
        Tag::User(user) => daily.fixtures.band(room) == Band::Dm && members.contains(&user),
        _ => false,
    };
    let lines = daily.lines().unwrap().into_iter();
    let brought = lines.flat_map(|wanted| wanted.tags.into_iter().map(move |tag| (wanted.line, tag)));
    let came_to = |(line, tag)| match Tag::unpack(tag) {
        Tag::Room(room) => (line, tag, daily.users.in_room_on(line, room)),
        _ => (line, tag, 1),
    };
    brought.filter(|&(_, tag)| brings(tag)).map(came_to).collect()
}

/// The next message to a room of this band.
pub(crate) fn send_to(daily: &mut Daily, ledger: &mut Ledger, band: Band) -> (u64, u32) {
    loop {
        let (sequence, choice, _) = next(daily, ledger, Action::Send);
        if daily.fixtures.band(choice.place) == band {
            return (sequence, choice.place);
        }
    }
}

/// A large room that one of a sibling's users is in.
pub(crate) fn large_room_of(daily: &Daily, user: u32) -> u32 {
    let large = |room: &u32| daily.fixtures.band(*room) == Band::Large;
    daily.fixtures.rooms_of(user).into_iter().find(large).expect("everybody is in one")
}

/// How many a message of this worker's in a room is expected to reach.
pub(crate) fn expected_in(daily: &Daily, room: u32) -> u32 {
    daily.users.recipients(0, room).expected
}

/// Who of the first hundred users is in a room.
pub(crate) fn members_here(daily: &Daily, room: u32) -> u32 {
    daily.fixtures.members(room).iter().filter(|&&user| user < 100).count() as u32
}

/// The next operation of this kind, with its message.
pub(crate) fn next(daily: &mut Daily, ledger: &mut Ledger, wanted: Action) -> (u64, Choice, Outgoing) {
    let mut chance = ChaCha8Rng::seed_from_u64(2);
    loop {
        daily.next_due().expect("people act on");
        let choice = daily.choose(&mut chance);
        if action(choice) != wanted {
            continue;
        }
        let Release::Released(sequence) = ledger.due(1, 1, || choice) else { panic!("not released") };
        let outgoing = daily.message(sequence, choice);
        ledger.sent(sequence);
        return (sequence, choice, outgoing);
    }
}

pub(crate) fn heard<'a>(subject: &'a str, payload: &'a [u8]) -> Heard<'a> {
    Heard { subject, payload, status: None }
}

pub(crate) fn broadcast(daily: &Daily, sequence: u64) -> String {
    let id = String::from_utf8(daily.ids.message_id(sequence).to_vec()).unwrap();
    format!("{{\"type\":\"new_message\",\"roomId\":\"r\",\"lastMsgId\":\"{id}\",\"message\":{{}}}}")
}

#[test]
fn users_have_a_line_each_or_share_one_and_listen_to_their_rooms_once() {
    let (daily, _) = daily();
    let lines = daily.lines().unwrap();
    assert_eq!((lines.len(), lines.iter().map(|line| line.users).sum::<u32>()), (34, 100));
    for wanted in &lines {
        let subjects: Vec<String> = wanted.tags.iter().map(|&tag| daily.line_subject(tag)).collect();
        let unique: std::collections::HashSet<&String> = subjects.iter().collect();
        assert_eq!(unique.len(), subjects.len());
        if wanted.users == 1 {
            // Seventeen channels, the answers, the user's own copies, and the inbox.
            assert_eq!(subjects.len(), 20);
            assert!(subjects.contains(&subjects::response_wildcard(&account(wanted.line))));
        }
    }
    assert_eq!(daily.users_online(), Some(100));
}

#[test]
fn nobody_posts_where_the_rules_refuse_it_and_everybody_acts_in_their_own_rooms() {
    let (mut daily, _) = daily();
    let mut chance = ChaCha8Rng::seed_from_u64(3);
    let mut acts = 0;
    while daily.next_due().is_some() {
        let choice = daily.choose(&mut chance);
        let (user, room, fixtures) = (daily.users.id(choice.actor), choice.place, daily.fixtures.clone());
        assert!(fixtures.has_member(room, user));
        match action(choice) {
            Action::Send => assert!(fixtures.may_post(room, user)),
            Action::ThreadReply => assert_ne!(fixtures.band(room), Band::Dm),
            Action::MemberAdd => assert!(matches!(fixtures.band(room), Band::Small | Band::Medium)),
            _ => {}
        }
        acts += 1;
    }
    assert!(acts > 8_000, "{acts}");
}

#[test]
fn a_message_is_whole_when_its_last_recipient_here_has_it() {
    let (mut daily, mut ledger) = daily();
    let (sequence, room) = send_to(&mut daily, &mut ledger, Band::Medium);
    let here = members_here(&daily, room);
    let body = broadcast(&daily, sequence);
    let (mut reached, mut answers) = (0, Vec::new());
    for (line, tag, came_to) in lines_of(&daily, room) {
        let mut aside = Aside::default();
        let incoming = daily.heard(line, tag, &heard("chat.room.x.event", body.as_bytes()), &ledger, &mut aside);
        // The same once more, as a service that stumbles sends it: no recipient besides.
        let mut beside = Aside::default();
        let again = daily.heard(line, tag, &heard("chat.room.x.event", body.as_bytes()), &ledger, &mut beside);
        assert_eq!(again, Incoming::Answer { sequence, series: series::E2, outcome: Outcome::Sample });
        assert!(beside.observed.is_empty() && beside.also.is_empty());
        reached += came_to;
        if let Incoming::Answer { series, .. } = incoming {
            answers.push((series, reached));
        }
        answers.extend(aside.also.iter().map(|(_, series, _)| (*series, reached)));
    }
    assert_eq!(reached, here);
    assert_eq!(answers.first().map(|answer| answer.0), Some(series::E2));
    assert_eq!(answers.last(), Some(&(series::E2_LAST, here)));
    assert_eq!(answers.len(), 2);
}

#[test]
fn a_line_that_comes_back_after_a_message_set_out_is_none_of_its_recipients() {
    let (mut daily, mut ledger) = daily();
    let shared = daily.lines().unwrap().into_iter().find(|wanted| wanted.users > 1).expect("some share a line");
    let line = shared.line;
    daily.line_changed(line, false);
    // To a room of which some are on that line, and written by somebody who is not.
    let (sequence, room, away) = loop {
        let (sequence, choice, _) = next(&mut daily, &mut ledger, Action::Send);
        let lines = lines_of(&daily, choice.place);
        let away = lines.iter().copied().find(|&(way, ..)| way == line);
        if let Some(away) = away.filter(|_| lines.len() > 3 && daily.line_of(choice) != Some(line)) {
            break (sequence, choice.place, away);
        }
    };
    let body = broadcast(&daily, sequence);
    let hear = |daily: &mut Daily, (line, tag, _): (u32, u64, u32)| {
        let mut aside = Aside::default();
        let incoming = daily.heard(line, tag, &heard("chat.room.x.event", body.as_bytes()), &ledger, &mut aside);
        (incoming, aside.observed.iter().filter(|seen| seen.0 == RECIPIENTS_REACHED).map(|seen| seen.1).sum::<u64>())
    };
    // While its subscriptions are not confirmed, and once it is online.
    assert_eq!(hear(&mut daily, away), (Incoming::NotForUs, 0));
    daily.line_changed(line, true);
    assert_eq!(hear(&mut daily, away), (Incoming::NotForUs, 0));
    let others: Vec<_> = lines_of(&daily, room).into_iter().filter(|&(way, ..)| way != line).collect();
    let answers: Vec<(Incoming, u64)> = others.iter().map(|&copy| hear(&mut daily, copy)).collect();
    let of = |series| Incoming::Answer { sequence, series, outcome: Outcome::Sample };
    assert_eq!(answers.first().map(|answer| &answer.0), Some(&of(series::E2)));
    assert_eq!(answers.last().map(|answer| &answer.0), Some(&of(series::E2_LAST)));
    let reached: u64 = answers.iter().map(|answer| answer.1).sum();
    assert_eq!(reached, u64::from(members_here(&daily, room) - away.2));
    // The next message is for those on the line, too.
    assert_eq!(daily.users.recipients(0, room).expected, members_here(&daily, room));
}

#[test]
fn what_the_service_says_of_itself_is_nobodys_load() {
    let (mut daily, ledger) = daily();
    let room = daily.fixtures.rooms_in(Band::Small).start;
    let room = (room..).find(|&room| !lines_of(&daily, room).is_empty()).unwrap();
    let (line, tag, _) = lines_of(&daily, room)[0];
    let of = |kind: &str| {
        format!(
            "{{\"type\":\"new_message\",\"roomId\":\"r\",\"lastMsgId\":\"0aZ9kLmN3pQrS7tUvWxY\",\
             \"message\":{{\"id\":\"0aZ9kLmN3pQrS7tUvWxY\"{kind}}}}}"
        )
    };
    for (kind, expected) in [
        (",\"type\":\"members_added\",\"sysMsgData\":\"e30=\"", Incoming::NotForUs),
        (",\"type\":\"\"", Incoming::Foreign),
        ("", Incoming::Foreign),
    ] {
        let body = of(kind);
        let incoming =
            daily.heard(line, tag, &heard("chat.room.x.event", body.as_bytes()), &ledger, &mut Aside::default());
        assert_eq!(incoming, expected, "{body}");
    }
}

#[test]
fn what_answers_an_action_is_told_from_what_refuses_it() {
    let accepted = br#"{"status":"accepted"}"#;
    let envelope = br#"{"code":"forbidden","error":"only room members can perform this action"}"#;
    let empty_list = br#"{"subscriptions":[],"total":0}"#;
    let list = br#"{"subscriptions":[{"roomId":"x"}],"total":1}"#;
    let page = br#"{"messages":[{"createdAt":"2026-06-28T03:29:14.123Z"}]}"#;
    for (wanted, payload, series, outcome) in [
        (Action::MarkRead, &accepted[..], series::MARK_READ, Outcome::Sample),
        (Action::MarkRead, envelope, series::MARK_READ, Outcome::Refused),
        (Action::RefreshRoomList, list, series::REFRESH_ROOM_LIST, Outcome::Sample),
        (Action::RefreshRoomList, empty_list, series::REFRESH_ROOM_LIST, Outcome::Unreadable),
        (Action::ScrollHistory, page, series::SCROLL_HISTORY, Outcome::Sample),
        (Action::ScrollHistory, envelope, series::SCROLL_HISTORY, Outcome::Refused),
        (Action::MemberAdd, accepted, series::MEMBER_ADD, Outcome::Sample),
        (Action::RoomCreate, accepted, series::ROOM_CREATE, Outcome::Sample),
        (Action::MuteToggle, br#"{"status":"ok","muted":true}"#, series::MUTE_TOGGLE, Outcome::Sample),
    ] {
        let (mut daily, mut ledger) = daily();
        let (sequence, choice, outgoing) = next(&mut daily, &mut ledger, wanted);
        let reply = outgoing.reply.expect("requests are answered").to_string();
        let line = daily.line_of(choice).unwrap();
        let tag = daily.lines().unwrap().into_iter().find(|wanted| wanted.line == line).unwrap().tags[0];
        assert!(reply.starts_with(daily.line_subject(tag).trim_end_matches('*')), "{reply}");
        let mut aside = Aside::default();
        let incoming = daily.heard(line, tag, &heard(&reply, payload), &ledger, &mut aside);
        assert_eq!(incoming, Incoming::Answer { sequence, series, outcome }, "{wanted:?}");
        let nobody = Heard { status: Some(503), ..heard(&reply, b"") };
        let incoming = daily.heard(line, tag, &nobody, &ledger, &mut aside);
        assert_eq!(incoming, Incoming::Answer { sequence, series, outcome: Outcome::NoResponders });
    }
}

#[test]
fn a_refused_send_and_a_failed_job_are_failures() {
    let (mut daily, mut ledger) = daily();
    for (wanted, payload, series) in [
        (Action::Send, &br#"{"code":"forbidden","error":"not subscribed"}"#[..], series::E1),
        (
            Action::MemberAdd,
            br#"{"operation":"room.member.add","status":"error","error":"no"}"#,
            series::MEMBER_ADD_DONE,
        ),
    ] {
        let (sequence, choice, _) = next(&mut daily, &mut ledger, wanted);
        let user = daily.users.id(choice.actor);
        let id = String::from_utf8(daily.ids.request_id(sequence).to_vec()).unwrap();
        let (subject, mut aside) = (subjects::response(&account(user), &id), Aside::default());
        let line = daily.line_of(choice).unwrap();
        let wanted = daily.lines().unwrap().into_iter().find(|wanted| wanted.line == line).unwrap();
        let of_user = |tag: &u64| Tag::unpack(*tag) == Tag::Responses(user);
        let tag = wanted.tags.into_iter().find(of_user).unwrap();
        let incoming = daily.heard(line, tag, &heard(&subject, payload), &ledger, &mut aside);
        assert_eq!(incoming, Incoming::Answer { sequence, series, outcome: Outcome::Refused });
    }
}

#[test]
fn who_is_added_is_known_no_member_and_nobody_twice() {
    let (mut daily, mut ledger) = daily();
    let mut added = std::collections::HashSet::new();
    for at in 0..80 {
        if at == 40 {
            // Dealt anew, as for every step.
            let (mut dealt, begun) = self::daily();
            dealt.inherit(&mut daily);
            (daily, ledger) = (dealt, begun);
        }
        let (_, choice, outgoing) = next(&mut daily, &mut ledger, Action::MemberAdd);
        let body: serde_json::Value = serde_json::from_slice(&outgoing.payload).unwrap();
        let name = body["users"][0].as_str().unwrap();
        let user = plimsoll_common::contract::fixtures::user_of_account(name).unwrap();
        assert!(user < 1_000 && !daily.fixtures.has_member(choice.place, user));
        assert!(added.insert((choice.place, user)));
    }
}

/// Adds so many, nobody twice: who was added to which room is kept over workers.
fn add((daily, ledger): &mut (Daily, Ledger), times: usize, added: &mut std::collections::HashSet<(u32, u32)>) {
    for _ in 0..times {
        let (_, choice, outgoing) = next(daily, ledger, Action::MemberAdd);
        let body: serde_json::Value = serde_json::from_slice(&outgoing.payload).unwrap();
        let user = plimsoll_common::contract::fixtures::user_of_account(body["users"][0].as_str().unwrap()).unwrap();
        assert!(user < 1_000 && !daily.fixtures.has_member(choice.place, user));
        assert!(added.insert((choice.place, user)), "{user} is added to room {} a second time", choice.place);
    }
}

#[test]
fn nobody_is_added_twice_whatever_agents_are_lost_or_join() {
    let mut added = std::collections::HashSet::new();
    // Three boxes of one, two and three workers, of which the second is lost; then one joins, of two workers.
    let of_box = |agent: u16, workers: u8| -> Vec<(Daily, Ledger)> {
        (0..workers).map(|worker| worker_of(agent, (worker, workers))).collect()
    };
    let mut fleet = vec![(0, of_box(0, 1)), (1, of_box(1, 2)), (2, of_box(2, 3))];
    for change in 0..3 {
        for worker in fleet.iter_mut().flat_map(|(_, workers)| workers) {
            add(worker, 12, &mut added);
        }
        match change {
            0 => drop(fleet.remove(1)),
            _ => fleet.push((2 + change, of_box(2 + change, 2))),
        }
        for (agent, workers) in &mut fleet {
            let dealt = of_box(*agent, workers.len() as u8);
            for (worker, (mut dealt, begun)) in workers.iter_mut().zip(dealt) {
                dealt.inherit(&mut worker.0);
                *worker = (dealt, begun);
            }
        }
    }
}

#[test]
fn a_pool_that_is_smaller_than_the_workers_is_no_larger_for_it() {
    let users: Vec<u32> = (0..100).collect();
    for (pool, workers) in [(1, 4), (3, 4), (4, 4), (5, 2), (7, 3), (200, 2)] {
        for (of_users, direct) in [(100, 30), (100, 0), (31, 30), (10, 30), (33, 30)] {
            let plan = DailyWorkload { multiplex_pool_size: pool, max_direct_users: direct, ..plan() };
            let users = &users[..of_users];
            let parts = Part::of_users(users, direct as usize, pool, workers);
            let fixtures = plan.daily_fixtures(42);
            let mut lines = std::collections::HashSet::new();
            let mut dealt = Vec::<u32>::new();
            let together: f64 =
                parts.iter().filter(|part| !part.users.is_empty()).map(|part| part.part_of_users(500.0)).sum();
            assert!((together - 500.0).abs() < 1e-9, "{together}");
            // However unevenly they split, nobody takes longer than one worker with all of them would.
            let seconds = |part: &Part| part.users.len() as f64 / part.part_of_users(500.0);
            assert!(parts.iter().all(|part| seconds(part) < of_users as f64 / 500.0 + 1e-9));
            for (worker, part) in parts.iter().enumerate() {
                let (run, mut chance) = (run(0, plan.clone()), ChaCha8Rng::seed_from_u64(1));
                let desks = Exchange::desks(workers as u8);
                let setup = setup(&run, part, (worker as u8, workers as u8), desks[0].exchange(), &mut chance);
                let wanted = Users::new(&plan, &setup, &fixtures).lines();
                // No two workers number one alike: copies are told apart by the line that they came by.
                lines.extend(wanted.iter().map(|wanted| wanted.line));
                dealt.extend(&part.users);
            }
            let needed = plan.connections(of_users as u64);
            assert_eq!(lines.len() as u64, needed, "{of_users} users, {direct} of them direct, {pool} on {workers}");
            dealt.sort_unstable();
            assert_eq!(dealt, users);
        }
    }
}

#[test]
fn users_who_are_offline_neither_act_nor_are_waited_for() {
    let (mut daily, _) = daily();
    let line = daily.lines().unwrap()[0].line;
    daily.line_changed(line, false);
    daily.line_changed(line, false);
    assert_eq!(daily.users_online(), Some(99));
    assert!(!daily.users.who_are_online().contains(&line));
    let room =
        daily.fixtures.rooms_of(line).into_iter().find(|&room| daily.fixtures.band(room) == Band::Medium).unwrap();
    let here = daily.fixtures.members(room).into_iter().filter(|&user| user < 100 && user != line);
    let here: Vec<u32> = here.collect();
    if let Some(&other) = here.first() {
        assert_eq!(daily.users.recipients(daily.users.index(other), room).expected, here.len() as u32);
    }
}
