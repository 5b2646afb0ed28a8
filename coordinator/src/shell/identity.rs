//! What tells this run from every other: its name, its nonce, and who we are.

use std::time::SystemTime;

use plimsoll_common::plan::RUN_NONCE_LIMIT;
use rand::TryRng as _;
use rand::rngs::SysRng;

/// What tells a run from every other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunIdentity {
    /// When it began and something random: `20260801-101112-3f9a`.
    pub run_id: String,
    /// Part of every id that the run sends. From the system's entropy, since two runs with one seed must differ here.
    pub nonce: u64,
    /// For people: `anna@control-1 pid 4711`.
    pub coordinator: String,
}

impl RunIdentity {
    /// The part of its name that says when it began: `20260801-101112`.
    pub fn began(&self) -> &str {
        self.run_id.rsplit_once('-').map_or(&*self.run_id, |(began, _)| began)
    }

    /// A new one.
    ///
    /// # Errors
    /// The system gives no entropy.
    pub fn draw() -> Result<Self, String> {
        let random = || SysRng.try_next_u64().map_err(|error| format!("no entropy from the system: {error}"));
        let began = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
        let digits: String = began.chars().filter(|c| c.is_ascii_digit()).collect();
        let (date, time) = digits.split_at(8);
        Ok(Self {
            run_id: format!("{date}-{time}-{:04x}", random()? & 0xffff),
            nonce: random()? % RUN_NONCE_LIMIT,
            coordinator: coordinator(),
        })
    }
}

fn coordinator() -> String {
    let user = std::env::var("USER").unwrap_or_else(|_| {
        // SAFETY: getuid takes nothing and cannot fail.
        format!("uid-{}", unsafe { libc::getuid() })
    });
    let name: String = format!("{user}@{}", hostname()).chars().filter(|c| !c.is_control()).take(40).collect();
    format!("{name} pid {}", std::process::id())
}

fn hostname() -> String {
    let mut name = [0_u8; 256];
    // SAFETY: the pointer and the length are those of a buffer that lives for the call.
    let result = unsafe { libc::gethostname(name.as_mut_ptr().cast(), name.len()) };
    let end = name.iter().position(|&byte| byte == 0).unwrap_or(name.len());
    if result == 0 { String::from_utf8_lossy(&name[..end]).into_owned() } else { "unknown".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_runs_differ_and_both_fit_the_protocol() {
        let (one, other) = (RunIdentity::draw().unwrap(), RunIdentity::draw().unwrap());
        assert_ne!(one.nonce, other.nonce);
        for identity in [one, other] {
            assert!(identity.nonce < RUN_NONCE_LIMIT);
            let fits = |c: char| c.is_ascii_alphanumeric() || c == '-';
            assert!(identity.run_id.chars().all(fits) && identity.run_id.len() == 20, "{}", identity.run_id);
            assert!(identity.coordinator.len() <= 256);
        }
    }
}
