use std::collections::HashMap;

use proptest::prelude::*;

use plimsoll_common::contract::daily::DailyPreset;
use plimsoll_common::units::Rate;
use plimsoll_common::workload::WorkloadPlan as _;

use super::*;

const TRIAL: TrialId = TrialId { step: 0, trial: 0 };

fn day(hold: u64) -> Day {
    Day::new(None, Duration::from_secs(60), Duration::from_secs(hold))
}

/// Acts in the hold.
fn held(seed: u64, trial: TrialId, users: std::ops::Range<u32>, day: Day) -> Vec<(u32, Act)> {
    Crowd::new(seed, trial, users, day).filter(|(_, act)| act.at_ns as f64 >= day.warmup * 1e9).collect()
}

#[test]
fn a_thousand_people_do_their_whole_day_in_a_hold_within_three_per_cent_of_every_budget() {
    for (hold, trials) in [(180, 60), (20, 60)] {
        let mut done: HashMap<Action, u64> = HashMap::new();
        // Pooled until the rarest have their 10,000: 0.2 a day for 1,000 people is 200 in a hold, of which chance alone makes
        // anything from 160 to 240.
        let mut off: Vec<f64> = Vec::new();
        for trial in 0..trials {
            let acts = held(42, TrialId { step: 0, trial }, 0..1_000, day(hold));
            off.push(acts.len() as f64 / 93_900.0 - 1.0);
            acts.iter().for_each(|(_, act)| *done.entry(act.action).or_default() += 1);
        }
        for action in Action::ALL {
            let budget = f64::from(action.tenths_per_day()) * 100.0 * f64::from(trials);
            let off = done[&action] as f64 / budget - 1.0;
            assert!(off.abs() < 0.03, "{action:?} over holds of {hold} s: {:+.1} %", off * 100.0);
        }
        // The sum of all actions of a single hold scatters too, by who is active when: a person's sum has a variance of some
        // 1,500, 94 of them by Poisson's law and the rest by the bursts, so that of 1,000 people has a standard deviation of
        // 1.3 %. Hence the mean of all holds is within 1 % by six of its own (0.17 %), nine in ten holds are within 3 % (2.3
        // standard deviations: 98 in 100), and none is beyond 6 %.
        let mean = off.iter().sum::<f64>() / f64::from(trials);
        let spread = (off.iter().map(|off| (off - mean).powi(2)).sum::<f64>() / f64::from(trials)).sqrt();
        assert!(mean.abs() < 0.01 && (0.008..0.02).contains(&spread), "{mean} ± {spread}");
        let near = off.iter().filter(|off| off.abs() < 0.03).count();
        assert!(near >= 54 && off.iter().all(|off| off.abs() < 0.06), "{near}: {off:?}");
    }
}

/// The workload of so many people with a day of so many seconds.
fn a_thousand(day_s: u64, at_peak: bool) -> DailyWorkload {
    DailyWorkload {
        preset: DailyPreset::Light,
        site_id: "s".into(),
        users: 1_000,
        max_direct_users: 1,
        multiplex_pool_size: 1,
        max_connections: 1,
        activation_rate: Rate::per_second(1).unwrap(),
        day: Some(Duration::from_secs(day_s)),
        at_peak,
        presence: false,
    }
}

#[test]
fn how_many_acts_people_have_on_average_is_known_before() {
    let secs = Duration::from_secs;
    let workload = |at_peak| a_thousand(180, at_peak);
    // The whole day in the hold, a slice of it, and one that stands still.
    for (day, whole) in [
        (day(180), Some(93.9)),
        (Day::new(Some(secs(600)), secs(30), secs(120)), None),
        (Day::of(&workload(true), secs(20), secs(40)), None),
    ] {
        let (warmup, hold) = day.acts_of_each();
        assert!(whole.is_none_or(|whole| (hold - whole).abs() < 0.01), "{hold}");
        let mut done = (0, 0);
        for trial in 0..4 {
            let of_trial = acts_due(42, TrialId { step: 0, trial }, 0..2_000, &day);
            done = (done.0 + of_trial.0, done.1 + of_trial.1);
        }
        let off = |done: u64, mean: f64| done as f64 / (8_000.0 * mean) - 1.0;
        // A sum of 8,000 people scatters by less than 1 %, as that of 1,000 by 1.3 %, and in shorter parts by more.
        let (warmup_off, hold_off) = (off(done.0, warmup), off(done.1, hold));
        assert!(warmup_off.abs() < 0.06 && hold_off.abs() < 0.04, "{day:?}: {warmup_off} {hold_off}");
    }
}

#[test]
fn acts_follow_the_days_envelope_and_each_hold_begins_it_anew() {
    for step in [0, 5] {
        let mut tenths = [0_f64; 10];
        for trial in 0..10 {
            for (_, act) in held(7, TrialId { step, trial }, 0..1_000, day(100)) {
                tenths[((act.at_ns as f64 / 1e9 - 60.0) / 10.0) as usize] += 1.0;
            }
        }
        let sum: f64 = tenths.iter().sum();
        for (at, acts) in tenths.iter().enumerate() {
            let mean: f64 = (0..100).map(|i| envelope((at as f64 + f64::from(i) / 100.0) / 10.0)).sum::<f64>() / 100.0;
            let expected = sum * mean / (10.0 * envelope_mean());
            assert!((acts / expected - 1.0).abs() < 0.03, "tenth {at}: {acts} against {expected}");
        }
    }
}

#[test]
fn warmup_is_as_busy_as_the_beginning_of_the_hold() {
    let day = Day::new(None, Duration::from_secs(50), Duration::from_secs(100));
    let (warmup, _) = acts_due(3, TRIAL, 0..5_000, &day);
    let expected = 5_000.0 * 93.9 * 0.5 * envelope(0.0) / envelope_mean();
    assert!((warmup as f64 / expected - 1.0).abs() < 0.03, "{warmup} against {expected}");
}

#[test]
fn a_longer_day_has_the_hold_at_its_peak() {
    let day = Day::new(Some(Duration::from_secs(8 * 3600)), Duration::from_secs(10), Duration::from_secs(180));
    let (_, hold) = acts_due(3, TRIAL, 0..200_000, &day);
    let expected = 200_000.0 * 93.9 * 180.0 / (8.0 * 3600.0) / envelope_mean();
    assert!((hold as f64 / expected - 1.0).abs() < 0.03, "{hold} against {expected}");
}

#[test]
fn a_quarter_of_the_people_is_active_and_acts_come_in_bursts() {
    let day = Day::new(None, Duration::ZERO, Duration::from_secs(180));
    let mut active = 0_u32;
    for user in 0..20_000 {
        let mut person = Person::new(11, TRIAL, user, &day);
        // Before the middle of the day comes the state that it is in then.
        let (middle, mut state) = (90.0, person.active);
        while person.until < middle {
            state = !person.active;
            person.at = person.until;
            person.active = state;
            person.until += (1.0 + person.ticks_left()) * day.tick();
        }
        active += u32::from(state);
    }
    assert!((4_700..5_300).contains(&active), "{active} of 20,000");
    // Counts in a second of the hold vary more than a Poisson process's would.
    let counts: Vec<f64> = (0..4_000)
        .map(|user| {
            held(5, TRIAL, user..user + 1, day).iter().filter(|(_, act)| act.at_ns / 10_000_000_000 == 6).count() as f64
        })
        .collect();
    let mean = counts.iter().sum::<f64>() / counts.len() as f64;
    let variance = counts.iter().map(|n| (n - mean).powi(2)).sum::<f64>() / counts.len() as f64;
    assert!(variance > 3.0 * mean, "mean {mean} variance {variance}");
}

#[test]
fn people_act_only_between_becoming_active_and_becoming_idle() {
    let day = Day::new(None, Duration::from_secs(2), Duration::from_secs(60));
    for user in 0..50 {
        let mut flips = Flips::new(5, TRIAL, [user], day);
        let mut state = flips.due(0).map(|(_, flip)| flip.active).unwrap();
        for (_, act) in Crowd::new(5, TRIAL, [user], day) {
            while let Some((_, flip)) = flips.due(act.at_ns) {
                assert_ne!(flip.active, state);
                state = flip.active;
            }
            assert!(state);
        }
    }
}

#[test]
fn streams_of_users_have_nothing_to_do_with_each_other() {
    // Acts per second of neighbouring users, less what the envelope makes of them all, over 1,000 pairs.
    let day = day(180);
    let series = |user: u32| {
        let mut seconds = vec![0_f64; 180];
        held(9, TRIAL, user..user + 1, day)
            .iter()
            .for_each(|(_, act)| seconds[(act.at_ns / 1_000_000_000 - 60) as usize] += 1.0);
        seconds
    };
    let users: Vec<Vec<f64>> = (0..2_000).map(series).collect();
    let mean: Vec<f64> = (0..180).map(|at| users.iter().map(|user| user[at]).sum::<f64>() / 2_000.0).collect();
    let correlation = |a: &[f64], b: &[f64]| {
        let (mut ab, mut aa, mut bb) = (0.0, 0.0, 0.0);
        for at in 0..180 {
            let (x, y) = (a[at] - mean[at], b[at] - mean[at]);
            (ab, aa, bb) = (ab + x * y, aa + x * x, bb + y * y);
        }
        ab / (aa * bb).sqrt()
    };
    for lag in [1, 2, 1_000] {
        let pairs = 2_000 - lag;
        let sum: f64 = (0..pairs).map(|user| correlation(&users[user], &users[user + lag])).sum();
        // A single pair scatters by some 0.15; the mean of a thousand by 0.005.
        assert!((sum / pairs as f64).abs() < 0.025, "lag {lag}: {}", sum / pairs as f64);
    }
    // The same second of the same user in another trial, step or seed is another draw.
    let acts = |seed, trial| held(seed, trial, 0..50, day);
    let first = acts(9, TRIAL);
    assert_eq!(first, acts(9, TRIAL));
    for other in [acts(10, TRIAL), acts(9, TrialId { step: 1, trial: 0 }), acts(9, TrialId { step: 0, trial: 1 })] {
        let same = first.iter().filter(|act| other.contains(act)).count();
        assert_eq!(same, 0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(30))]

    #[test]
    fn a_crowd_is_all_its_people_in_the_order_of_their_acts(seed: u64, users in 1_u32..60, hold in 1_u64..60) {
        let day = Day::new(None, Duration::from_secs(3), Duration::from_secs(hold));
        let all: Vec<(u32, Act)> = Crowd::new(seed, TRIAL, 0..users, day).collect();
        prop_assert!(all.is_sorted_by_key(|(_, act)| act.at_ns));
        prop_assert!(all.iter().all(|(_, act)| (act.at_ns as f64) < (3 + hold) as f64 * 1e9));
        for user in 0..users {
            let alone: Vec<(u32, Act)> = Crowd::new(seed, TRIAL, [user], day).collect();
            let among: Vec<(u32, Act)> = all.iter().copied().filter(|(who, _)| *who == user).collect();
            prop_assert_eq!(alone, among);
        }
        let (warmup, held) = acts_due(seed, TRIAL, 0..users, &day);
        prop_assert_eq!(warmup + held, all.len() as u64);
    }

    #[test]
    fn every_user_has_one_agent_and_every_agent_its_number(counts in prop::collection::vec(0_u64..300, 1..12)) {
        let owners = owners(&counts);
        for (agent, &count) in counts.iter().enumerate() {
            prop_assert_eq!(owners.iter().filter(|&&owner| usize::from(owner) == agent).count() as u64, count);
            prop_assert_eq!(users_of(agent, &counts).len() as u64, count);
        }
    }

    #[test]
    fn users_stay_with_their_agents_when_more_come(agents in 1_u64..9, before in 1_u64..500, more in 0_u64..500) {
        let even = |users: u64| -> Vec<u64> { (0..agents).map(|agent| users / agents + u64::from(agent < users % agents)).collect() };
        let (few, many) = (owners(&even(before)), owners(&even(before + more)));
        prop_assert_eq!(&few[..], &many[..few.len()]);
    }
}

#[test]
fn a_day_that_stands_still_at_its_peak_makes_the_same_load_in_a_hold_of_any_length() {
    let daily = a_thousand(100, true);
    let expected = daily.rate(Rate::per_second(1_000).unwrap(), Duration::ZERO).as_f64();
    for hold in [5_u64, 60, 200] {
        let day = Day::of(&daily, Duration::from_millis(500), Duration::from_secs(hold));
        let acts: usize =
            (0..1_000 / hold as u32).map(|trial| held(3, TrialId { step: 9, trial }, 0..1_000, day).len()).sum();
        let rate = acts as f64 / (1_000 / hold * hold) as f64;
        assert!((rate / expected - 1.0).abs() < 0.02, "over holds of {hold} s {rate} and not {expected} a second");
    }
}
