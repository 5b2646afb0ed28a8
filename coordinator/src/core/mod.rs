//! The decisions, as pure functions over plain values: no I/O, no clock, no async.
//!
//! In the order of a run: [`slo`] (what must hold), [`ramp`] (which level is next), [`split`] (who carries which share),
//! [`budget`] (whether there is enough of what operations use up),
//! [`clock_offset`] (when everybody starts), [`merge`] (snapshots into one [`measurement`]), [`backlog`] (whether the
//! service's queues grew), [`verdict`] (what that says of the level), [`answer`] (what all levels say).

pub mod answer;
pub mod backlog;
pub mod budget;
pub mod ceilings;
pub mod clock_offset;
pub mod compare;
pub mod encoding;
#[cfg(test)]
pub mod fixture;
#[cfg(test)]
mod fleet_simulation;
pub mod headroom;
pub mod intervals;
pub mod measurement;
pub mod merge;
pub mod non_empty;
pub mod ramp;
pub mod roster;
pub mod search;
#[cfg(test)]
pub mod simulated;
pub mod slo;
pub mod split;
pub mod verdict;
