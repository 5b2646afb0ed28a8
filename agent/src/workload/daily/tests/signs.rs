//! What users say of their presence, when, and what becomes of it.

use std::collections::HashMap;

use plimsoll_common::contract::fixtures::user_of_account;
use plimsoll_common::workload::daily::{PRESENCE_LOST, PRESENCE_SAID, PRESENCE_US};

use super::*;
use crate::core::people::Flips;

const MS: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MS;
/// When a trial begins here.
const STARTS: u64 = 1_000 * SECOND;

/// The first hundred users on one worker, thirty with a connection each, nobody online yet.
fn people() -> Daily {
    let plan = DailyWorkload { presence: true, day: Some(Duration::from_secs(60)), ..plan() };
    let part = Part::of_users(&(0..100).collect::<Vec<_>>(), 30, 4, 1).remove(0);
    let run = run(0, plan.clone());
    let desks = Exchange::desks(1);
    let mut chance = ChaCha8Rng::seed_from_u64(1);
    Daily::new(&plan, setup(&run, &part, (0, 1), desks[0].exchange(), &mut chance)).unwrap()
}

fn all_come(daily: &mut Daily) {
    for wanted in daily.lines().unwrap() {
        daily.line_changed(wanted.line, true);
    }
}

fn order_of(trial: u32) -> StepOrder {
    StepOrder {
        trial: TrialId { step: 0, trial },
        start_boottime_ns: STARTS,
        warmup: Duration::from_secs(2),
        hold: Duration::from_secs(20),
        ..order()
    }
}

/// Who says what, and whether it is of being away.
type Word = (u32, String, bool);

/// What is said at an instant, of a trial or between trials, and what is observed.
fn said(daily: &mut Daily, now_ns: u64, in_trial: bool) -> (Vec<Word>, Vec<(u8, u64)>) {
    let (mut aside, mut words) = (Aside { now_ns, ..Aside::default() }, Vec::new());
    daily.beside(in_trial.then(|| now_ns - STARTS), &mut aside, &mut words);
    let read = |(line, subject, body): (u32, String, Bytes)| {
        let tokens: Vec<&str> = subject.split('.').collect();
        assert_eq!(tokens[3..6], ["event", "presence", "s"], "{subject}");
        let user = user_of_account(tokens[2]).unwrap();
        assert_eq!(line, daily.users.line(daily.users.index(user)));
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["connId"], format!("c-{}", tokens[2]));
        assert!(body["timestamp"].is_u64() && body["away"].is_boolean() == (tokens[6] == "activity"), "{body}");
        (user, tokens[6].to_owned(), body["away"] == true)
    };
    (words.into_iter().map(read).collect(), aside.observed)
}

#[test]
fn who_comes_online_says_hello_then_and_gives_signs_of_life_every_half_minute_over_deals_and_between_trials() {
    let mut daily = people();
    let mut heard: HashMap<u32, Vec<(u64, String)>> = HashMap::new();
    let mut came: HashMap<u32, u64> = HashMap::new();
    let lines: Vec<u32> = daily.lines().unwrap().iter().map(|wanted| wanted.line).collect();
    for tick in 0..1_000 {
        let now_ns = tick * 100 * MS;
        // Two lines in a tick: as fast as they come online, and no faster.
        for &line in lines.iter().skip(2 * tick as usize).take(2) {
            daily.line_changed(line, true);
            came.extend(daily.users.on(line).map(|user| (user, now_ns)));
        }
        if tick == 400 {
            // Dealt anew, as for every step: those who are online stay so.
            let mut dealt = people();
            dealt.inherit(&mut daily);
            daily = dealt;
        }
        if tick == 402 {
            all_come(&mut daily);
        }
        let (words, observed) = said(&mut daily, now_ns, false);
        assert!(observed.is_empty());
        words.into_iter().for_each(|(user, what, _)| heard.entry(user).or_default().push((now_ns, what)));
    }
    assert_eq!((came.len(), heard.len()), (100, 100));
    for (user, words) in &heard {
        let what: Vec<&str> = words.iter().map(|(_, what)| what.as_str()).collect();
        assert_eq!(what, ["hello", "ping", "ping", "ping"], "{user}");
        let times: Vec<u64> = words.iter().map(|(at, _)| at - came[user]).collect();
        assert_eq!(times, [0, 30, 60, 90].map(|at| at * SECOND), "{user}");
    }
}

#[test]
fn whose_connection_is_gone_says_nothing_until_it_is_back_and_then_hello() {
    let mut daily = people();
    all_come(&mut daily);
    assert_eq!(said(&mut daily, 0, false).0.len(), 100);
    daily.line_changed(7, false);
    let (words, _) = said(&mut daily, 30 * SECOND, false);
    assert_eq!((words.len(), words.iter().any(|word| word.0 == 7)), (99, false));
    daily.line_changed(7, true);
    assert_eq!(said(&mut daily, 31 * SECOND, false).0, [(7, "hello".to_owned(), false)]);
    // The sign of life of before is no more.
    assert_eq!(said(&mut daily, 60 * SECOND, false).0.len(), 99);
    assert_eq!(said(&mut daily, 61 * SECOND, false).0, [(7, "ping".to_owned(), false)]);
    // Users whose connection is opened anew for a deal say it as soon as it is.
    let mut dealt = people();
    dealt.inherit(&mut daily);
    assert_eq!(said(&mut dealt, 92 * SECOND, false).0, []);
    all_come(&mut dealt);
    let (words, _) = said(&mut dealt, 93 * SECOND, false);
    assert!(words.len() == 100 && words.iter().all(|(_, what, _)| what == "ping"), "{words:?}");
}

#[test]
fn people_tell_what_they_are_only_where_they_have_said_otherwise_and_not_all_at_once() {
    let mut daily = people();
    all_come(&mut daily);
    said(&mut daily, STARTS - SECOND, false);
    let mut away: HashMap<u32, bool> = HashMap::new();
    for trial in 0..3 {
        let order = order_of(trial);
        daily.begin(&order).unwrap();
        let day = Day::of(&daily.plan, order.warmup, order.hold);
        let mut flips = Flips::new(42, order.trial, 0..100, day);
        let mut is_active: HashMap<u32, bool> = HashMap::new();
        let mut changes = 0;
        for tick in 0..2_400 {
            let since_ns = tick * 10 * MS;
            while let Some((user, flip)) = flips.due(since_ns) {
                is_active.insert(user, flip.active);
            }
            let (words, _) = said(&mut daily, STARTS + since_ns, true);
            assert!(words.len() < 15, "{} at once", words.len());
            for (user, what, is_away) in words.into_iter().filter(|word| word.1 != "ping") {
                assert_eq!((what.as_str(), away.insert(user, is_away).unwrap_or(false)), ("activity", !is_away));
                changes += 1;
            }
            // From the warmup's end on everybody's is known.
            if since_ns >= 2 * SECOND {
                assert!(is_active.iter().all(|(user, active)| away.get(user).unwrap_or(&false) != active));
            }
        }
        assert!(changes > 200, "{changes}");
        // Between trials nobody changes.
        let (words, _) = said(&mut daily, STARTS + 25 * SECOND, false);
        assert!(words.iter().all(|(_, what, _)| what == "ping"), "{words:?}");
    }
}

#[test]
fn every_change_of_the_hold_is_shown_or_lost_also_where_the_next_one_or_the_end_comes_first() {
    let mut daily = people();
    all_come(&mut daily);
    said(&mut daily, STARTS - SECOND, false);
    let mut changes = 0_u64;
    let run = run(0, daily.plan.clone());
    for (trial, drop_every, lag_ms) in [(0, 4, 20), (1, 2, 700), (2, u64::MAX, 20)] {
        daily.begin(&order_of(trial)).unwrap();
        let ledger = ledger(&daily, &run.workload);
        let mut counts = [0_u64; 8];
        let (mut in_hold, mut dropped) = (0_u64, 0_u64);
        // What the service tells, and when.
        let mut tells: std::collections::VecDeque<(u64, u32, bool)> = std::collections::VecDeque::new();
        for tick in 0..2_800 {
            let now_ns = STARTS + tick * 10 * MS;
            while let Some((_, user, away)) = tells.pop_front_if(|told| told.0 <= now_ns) {
                let mut aside = Aside { now_ns, ..Aside::default() };
                let body = format!("{{\"account\":\"x\",\"status\":\"{}\"}}", if away { "away" } else { "online" });
                let line = daily.users.line(daily.users.index(user));
                let wanted = daily.lines().unwrap().into_iter().find(|wanted| wanted.line == line).unwrap();
                let tag = wanted.tags.into_iter().find(|&tag| Tag::unpack(tag) == Tag::Presence(user)).unwrap();
                let incoming = daily.heard(line, tag, &heard("chat.x", body.as_bytes()), &ledger, &mut aside);
                assert_eq!(incoming, Incoming::Seen);
                aside.observed.iter().for_each(|&(observation, _)| counts[usize::from(observation)] += 1);
                let slow = aside.observed.iter().find(|seen| seen.0 == PRESENCE_US).map_or(0, |seen| seen.1);
                assert!(drop_every < u64::MAX || slow <= lag_ms * 1_000, "{slow}");
            }
            let (words, observed) = said(&mut daily, now_ns, true);
            observed.iter().for_each(|&(observation, _)| counts[usize::from(observation)] += 1);
            for (user, _, away) in words.into_iter().filter(|word| word.1 == "activity") {
                changes += 1;
                let counts = (STARTS + 2 * SECOND..STARTS + 22 * SECOND).contains(&now_ns);
                in_hold += u64::from(counts);
                if counts && changes.is_multiple_of(drop_every) {
                    dropped += 1;
                } else {
                    tells.push_back((now_ns + lag_ms * MS, user, away));
                }
            }
        }
        let [shown, lost, told] = [PRESENCE_US, PRESENCE_LOST, PRESENCE_SAID].map(|at| counts[usize::from(at)]);
        assert_eq!((told, shown + lost), (in_hold, in_hold), "{counts:?}");
        assert_eq!(lost, dropped, "of {told}");
        assert!(in_hold > 200 && (dropped > 50 || drop_every == u64::MAX), "{dropped} of {in_hold}");
    }
}
