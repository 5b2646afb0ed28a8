//! The pings of a lease: which ones an echo may be of, and how long an echo makes the lease last.

use std::collections::VecDeque;
use std::time::Duration;

/// Pings per lease timeout: several may be lost before the lease is.
const PER_LEASE: u32 = 10;
/// In the beginning, until so many echoes have shown how far the clocks are apart, there are more.
const PER_LEASE_AT_FIRST: u32 = 50;
const FIRST_ECHOES: u32 = 32;
/// Pings whose echoes may still come: the lease has ended before an older one's could help.
const REMEMBERED: usize = 2 * PER_LEASE_AT_FIRST as usize;

/// The newest pings of a lease.
#[derive(Debug, Clone)]
pub struct Pings {
    timeout: Duration,
    /// Of the first.
    echoes: u32,
    /// When they were sent, in nanoseconds, oldest first.
    sent: VecDeque<u64>,
}

impl Pings {
    /// None sent yet, of a lease that ends `timeout` after the sending of the newest ping that was echoed.
    pub fn new(timeout: Duration) -> Self {
        Self { timeout, echoes: 0, sent: VecDeque::with_capacity(REMEMBERED) }
    }

    /// The time from one to the next.
    pub fn interval(&self) -> Duration {
        self.timeout / if self.echoes < FIRST_ECHOES { PER_LEASE_AT_FIRST } else { PER_LEASE }
    }

    /// One is sent now.
    pub fn sent(&mut self, now_ns: u64) {
        if self.sent.len() == REMEMBERED {
            self.sent.pop_front();
        }
        self.sent.push_back(now_ns);
    }

    /// The end of the lease, in nanoseconds, by the echo of the ping that was sent then; whenever the echo itself comes.
    /// `None`: no such ping was sent. Echoes come in the order of their pings, so that where the lease holds, a real one is
    /// never older than all that are remembered.
    pub fn echoed(&mut self, ping_sent_ns: u64) -> Option<u64> {
        let was_sent = self.sent.contains(&ping_sent_ns);
        self.echoes = self.echoes.saturating_add(u32::from(was_sent));
        was_sent.then(|| ping_sent_ns.saturating_add(self.timeout.as_nanos() as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_echo_counts_from_the_sending_of_its_ping_and_only_if_there_was_one() {
        let mut pings = Pings::new(Duration::from_micros(1));
        pings.sent(5);
        pings.sent(105);
        assert_eq!((pings.echoed(5), pings.echoed(105), pings.echoed(6)), (Some(1005), Some(1105), None));
        (2..=100).for_each(|n| pings.sent(n * 100 + 5));
        assert_eq!(pings.echoed(5), None, "as many are remembered as two leases have");
        assert_eq!(pings.echoed(105), Some(1105));
    }

    #[test]
    fn pings_are_frequent_until_enough_have_come_back() {
        let mut pings = Pings::new(Duration::from_secs(1));
        for n in 0..32 {
            assert_eq!(pings.interval(), Duration::from_millis(20));
            pings.sent(n);
            assert_eq!(pings.echoed(1000), None, "no such ping was sent: it counts for nothing");
            assert!(pings.echoed(n).is_some());
        }
        assert_eq!(pings.interval(), Duration::from_millis(100));
    }
}
