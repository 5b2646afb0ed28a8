//! Whether an agent holds a step that it is asked for, by what it was dealt: the order's own words are not taken for it.

use std::time::Duration;

use plimsoll_common::plan::{AgentPlan, StepOrder};
use plimsoll_common::units::Rate;

use super::ledger::{SLOT_BYTES, issued_at, slots};
use super::limits::{LimitError, Limits};

/// Slots that the books of an agent's workers have together, at most: 2 GiB.
pub const MAX_SLOTS: u64 = 1 << 25;
/// People act in bursts: in a request timeout there may be so much more than at their highest rate.
pub const BURSTS: f64 = 1.5;

/// Operations of a step, of which so many are due, that can be released within one request timeout.
pub fn issued_of(due: u64, order: &StepOrder, timeout: Duration) -> u64 {
    let window = (order.warmup + order.hold).as_secs_f64();
    issued_at(due as f64 / window, timeout).min(due.max(1))
}

/// What an agent was dealt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DealtPart {
    /// Users; 0 where levels are rates.
    pub users: u64,
    /// What each worker does of a million operations of this agent.
    pub workers_ppm: Vec<u64>,
}

/// Why a step is not held.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotHeld {
    /// Its operator does not let it.
    #[error(transparent)]
    Limit(#[from] LimitError),
    /// Whoever is online acts, whatever the order says.
    #[error("a step of {share} users where {dealt} were dealt")]
    OtherUsers {
        /// What the order says.
        share: Rate,
        /// What the deal said.
        dealt: u64,
    },
    /// Its book would grow too large.
    #[error(
        "a share of {share}/s needs a book of {slots} operations, {} MiB of memory, and an agent keeps one of {MAX_SLOTS}: lower \
         the rate or the request timeout, or add agents",
        slots.saturating_mul(SLOT_BYTES) >> 20
    )]
    Book {
        /// Operations per second.
        share: Rate,
        /// Places for operations, of all workers.
        slots: u64,
    },
}

/// Checks a step against what the agent was dealt.
///
/// # Errors
/// The first reason not to hold it.
pub fn check_step(limits: &Limits, plan: &AgentPlan, dealt: &DealtPart, order: &StepOrder) -> Result<(), NotHeld> {
    let share = order.share;
    let is_of_users = plan.workload.daily().is_some();
    if is_of_users && Some(share) != Rate::per_second(dealt.users) {
        return Err(NotHeld::OtherUsers { share, dealt: dealt.users });
    }
    let share = plan.workload.rate(share, order.hold);
    limits.check_share(share)?;
    let due = share.due_in(order.warmup).saturating_add(share.due_in(order.hold));
    let of_worker = |ppm: &u64| {
        let part = *ppm as f64 / 1e6;
        slots(match is_of_users {
            true => issued_at(share.as_f64() * part * BURSTS, plan.request_timeout),
            false => issued_of((due as f64 * part) as u64, order, plan.request_timeout),
        })
    };
    let slots = dealt.workers_ppm.iter().map(of_worker).fold(0, u64::saturating_add);
    if slots > MAX_SLOTS { Err(NotHeld::Book { share, slots }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use plimsoll_common::contract::daily::DailyPreset;
    use plimsoll_common::contract::presets::MessagesPreset;
    use plimsoll_common::plan::{Arrivals, DailyWorkload, More, RoomReadWorkload, Target, TrialId, Workload};

    use super::*;

    /// So many users, on workers that do alike.
    fn part(users: u64, workers: u64) -> DealtPart {
        DealtPart { users, workers_ppm: vec![1_000_000 / workers; workers as usize] }
    }

    fn rate(per_second: u64) -> Rate {
        Rate::per_second(per_second).unwrap()
    }

    /// People who live a day of so many seconds.
    fn plan(day_s: u64) -> AgentPlan {
        let daily = DailyWorkload {
            preset: DailyPreset::Light,
            site_id: "s".into(),
            users: 100_000,
            max_direct_users: 30,
            multiplex_pool_size: 4,
            max_connections: 1_000,
            activation_rate: rate(500),
            day: Some(Duration::from_secs(day_s)),
            at_peak: false,
            presence: false,
        };
        AgentPlan {
            agent_index: 0,
            run_nonce: 7,
            seed: 42,
            target: Target { url: "nats://nowhere".into(), credentials: None },
            workload: Workload::Daily(daily),
            request_timeout: Duration::from_secs(5),
            series: Vec::new(),
            max_lateness: Duration::from_millis(100),
        }
    }

    fn order(share: Rate) -> StepOrder {
        StepOrder {
            trial: TrialId { step: 0, trial: 0 },
            share,
            start_boottime_ns: 1,
            warmup: Duration::ZERO,
            hold: Duration::from_secs(10),
            arrivals: Arrivals::Poisson,
            max_in_flight: 1000,
            more: More::default(),
        }
    }

    #[test]
    fn users_are_held_to_the_rate_of_all_who_were_dealt_whatever_the_order_says() {
        let limits = Limits { max_rate: Some(rate(100)), ..Limits::default() };
        let check = |dealt, share| check_step(&limits, &plan(100), &part(dealt, 1), &order(rate(share)));
        // Of a day of 100 s a user does 1.286 things a second at its peak.
        assert_eq!(check(77, 77), Ok(()));
        let refused = check(78, 78).unwrap_err();
        assert!(matches!(refused, NotHeld::Limit(LimitError::Rate { .. })), "{refused}");
        for (dealt, share) in [(20_000, 1), (20_000, 77), (1, 20_000), (0, 1)] {
            let refused = check(dealt, share).unwrap_err();
            assert_eq!(refused, NotHeld::OtherUsers { share: rate(share), dealt });
        }
        assert_eq!(check(20_000, 1).unwrap_err().to_string(), "a step of 1 users where 20000 were dealt");
    }

    #[test]
    fn a_day_of_a_second_makes_no_book_that_the_box_cannot_hold() {
        let check = |day_s, users| check_step(&Limits::default(), &plan(day_s), &part(users, 1), &order(rate(users)));
        assert_eq!(check(1, 20_000), Ok(()));
        let refused = check(1, 100_000).unwrap_err();
        assert!(matches!(refused, NotHeld::Book { slots, .. } if slots > MAX_SLOTS), "{refused}");
        assert_eq!(check(100, 100_000), Ok(()));
    }

    #[test]
    fn a_book_is_as_large_as_the_workers_make_it_and_not_as_the_timeout_alone_would() {
        let rates = AgentPlan {
            workload: Workload::RoomRead(RoomReadWorkload { preset: MessagesPreset::Small, site_id: "s".into() }),
            request_timeout: Duration::from_millis(150),
            ..plan(100)
        };
        let check = |share, workers| check_step(&Limits::default(), &rates, &part(0, workers), &order(rate(share)));
        // 30 million are due within the timeout, and 530 million until the last of them must have expired: 2^29 slots.
        let refused = check(200_000_000, 1).unwrap_err();
        assert_eq!(refused, NotHeld::Book { share: rate(200_000_000), slots: 1 << 29 });
        assert!(refused.to_string().contains(" 32768 MiB of memory"), "{refused}");
        // Every worker's part is rounded up by itself.
        let most = |workers| {
            let fits = |share: &u64| check(*share, workers) == Ok(());
            (1..40).map(|n| n * 500_000).take_while(fits).last().unwrap()
        };
        assert_eq!((most(1), most(3)), (12_500_000, 9_000_000));
        assert!(matches!(check(1_000_000_000, 4), Err(NotHeld::Book { .. })));
    }
}
