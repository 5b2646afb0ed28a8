use plimsoll_common::contract::daily::{Band, DailyPreset};
use plimsoll_common::contract::ids::Sender;
use plimsoll_common::plan::{AgentPlan, Arrivals, Target, TrialId, Workload as AnyWorkload};
use plimsoll_common::units::Rate;
use rand::SeedableRng as _;

use super::*;
use crate::core::ledger::Release;
use crate::workload::Part;
use crate::workload::fixture::ledger;

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

fn setup<'a>(run: &'a AgentPlan, part: &'a Part, (worker, workers): (u8, u8), chance: &'a mut ChaCha8Rng) -> Setup<'a> {
    let ids = IdCodec::new(Sender::new(7, run.agent_index, worker));
    Setup { plan: run, fixtures: None, part, worker, workers, inbox: "_INBOX.test", ids, chance }
}

/// The same people on a worker of an agent.
fn worker_of(agent_index: u16, of_workers: (u8, u8)) -> (Daily, Ledger) {
    let run = run(agent_index, plan());
    let part = Part::of_users(&(0..100).collect::<Vec<_>>(), 30, 4, 1).remove(0);
    let mut chance = ChaCha8Rng::seed_from_u64(1);
    let mut daily = Daily::new(&plan(), setup(&run, &part, of_workers, &mut chance)).unwrap();
    for wanted in daily.lines().unwrap() {
        daily.line_changed(wanted.line, true);
    }
    let order = StepOrder {
        trial: TrialId { step: 0, trial: 0 },
        share: Rate::per_second(100).unwrap(),
        start_boottime_ns: 0,
        warmup: Duration::ZERO,
        hold: Duration::from_secs(10),
        arrivals: Arrivals::Poisson,
        max_in_flight: 10_000,
    };
    daily.begin(&order).unwrap();
    let ledger = ledger(&daily, &run.workload);
    (daily, ledger)
}

/// The next operation of this kind, with its message.
fn next(daily: &mut Daily, ledger: &mut Ledger, wanted: Action) -> (u64, Choice, Outgoing) {
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

fn heard<'a>(subject: &'a str, payload: &'a [u8]) -> Heard<'a> {
    Heard { subject, payload, status: None }
}

fn broadcast(daily: &Daily, sequence: u64) -> String {
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
    let (sequence, choice, outgoing) = loop {
        let (sequence, choice, outgoing) = next(&mut daily, &mut ledger, Action::Send);
        if daily.fixtures.band(choice.place) == Band::Medium {
            break (sequence, choice, outgoing);
        }
    };
    assert!(outgoing.reply.is_none() && outgoing.headers.is_some());
    let members = daily.fixtures.members(choice.place);
    let here = members.iter().filter(|&&user| user < 100).count() as u32;
    let body = broadcast(&daily, sequence);
    let room = Tag::Room(choice.place);
    let tag = |daily: &Daily, line: u32| {
        let wanted = daily.lines().unwrap().into_iter().find(|wanted| wanted.line == line).unwrap();
        wanted.tags.into_iter().find(|&tag| Tag::unpack(tag) == room)
    };
    let lines: Vec<u32> = daily.lines().unwrap().iter().map(|wanted| wanted.line).collect();
    let (mut reached, mut answers) = (0, Vec::new());
    for line in lines {
        let Some(tag) = tag(&daily, line) else { continue };
        let mut aside = Aside::default();
        let incoming = daily.heard(line, tag, &heard("chat.room.x.event", body.as_bytes()), &ledger, &mut aside);
        // The same once more, as a service that stumbles sends it: no recipient besides.
        let mut beside = Aside::default();
        let again = daily.heard(line, tag, &heard("chat.room.x.event", body.as_bytes()), &ledger, &mut beside);
        assert_eq!(again, Incoming::Answer { sequence, series: series::E2, outcome: Outcome::Sample });
        assert!(beside.observed.is_empty() && beside.also.is_empty());
        reached += daily.users.in_room_on(line, choice.place);
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
            for (worker, part) in parts.iter().enumerate() {
                let (run, mut chance) = (run(0, plan.clone()), ChaCha8Rng::seed_from_u64(1));
                let setup = setup(&run, part, (worker as u8, workers as u8), &mut chance);
                let wanted = Users::new(&plan, &setup, &fixtures).lines();
                lines.extend(wanted.iter().map(|wanted| (worker, wanted.line)));
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
        assert_eq!(daily.users.recipients(daily.users.index(other), room, &daily.fixtures), here.len() as u32);
    }
}
