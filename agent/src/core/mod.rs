//! The decisions of an agent, pure: when operations are due, which is drawn, and what is counted. No clock, no network.

pub mod admission;
pub mod alias;
pub mod certificate;
pub mod confirmations;
pub mod exchange;
pub mod held_runs;
pub mod host;
pub mod ledger;
pub mod limits;
pub mod nats_words;
pub mod people;
pub mod pings;
pub mod rate_limiter;
pub mod recorder;
pub mod schedule;
pub mod splitmix;
