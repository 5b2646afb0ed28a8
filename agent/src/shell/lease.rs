//! The lease as the data plane sees it: an instant after which nothing may be sent. It ends a timeout after the *sending*
//! of the newest ping that was echoed, so that an agent which was frozen cannot live on heartbeats that waited in a
//! buffer; and an ended lease is never revived.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Shared by the session, which extends it, and the workers, which look before every release.
#[derive(Debug, Clone)]
pub struct Lease(Arc<AtomicU64>);

/// The end of a lease that is over for good.
const ENDED: u64 = 0;

impl Lease {
    /// A lease until `end_ns` of CLOCK_BOOTTIME.
    pub fn until(end_ns: u64) -> Self {
        Self(Arc::new(AtomicU64::new(end_ns)))
    }

    /// Whether load may be sent at `now_ns`. A lease found past its end is ended for good.
    #[inline]
    pub fn holds(&self, now_ns: u64) -> bool {
        let end_ns = self.0.load(Ordering::Relaxed);
        if now_ns < end_ns {
            return true;
        }
        if end_ns != ENDED {
            // Only the end that was seen: an extension made meanwhile by an echo in time stands.
            return self.0.compare_exchange(end_ns, ENDED, Ordering::Relaxed, Ordering::Relaxed).is_err()
                && self.holds(now_ns);
        }
        false
    }

    /// An echo arrived at `now_ns`: the lease lasts until `end_ns` if it has not ended. Returns whether it holds.
    pub fn extend(&self, now_ns: u64, end_ns: u64) -> bool {
        self.holds(now_ns) && {
            let extended = self
                .0
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |end| (end != ENDED).then_some(end.max(end_ns)));
            extended.is_ok() && self.holds(now_ns)
        }
    }

    /// Ends it now.
    pub fn end(&self) {
        self.0.store(ENDED, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_lives_on_echoes_in_time_and_is_never_revived() {
        let lease = Lease::until(100);
        assert!(lease.holds(99) && lease.extend(99, 200) && lease.holds(199));
        assert!(!lease.holds(200), "over at its end");
        assert!(!lease.extend(150, 400), "an echo that waited in a buffer revives nothing");
        assert!(!lease.holds(150));
    }

    #[test]
    fn an_old_echo_shortens_nothing() {
        let lease = Lease::until(100);
        assert!(lease.extend(10, 50) && lease.holds(99));
    }
}
