//! Seeding: what a run's target holds before its first load. [`spec`] says what is asked for, [`dataset`] makes it of the
//! fixtures, [`documents`] and [`rows`] put it into the words of the two databases, [`plan`] deals it out in chunks and
//! [`manifest`] is the record that the database keeps of it. Those are pure; [`mongo`] and [`cassandra`] speak to servers,
//! [`write`] seeds, [`verify`] compares and [`teardown`] removes, all three what [`ownership`] says is ours.

pub mod cassandra;
mod claim;
mod counts;
pub mod dataset;
pub mod documents;
#[cfg(test)]
mod fixture;
pub mod manifest;
pub mod mongo;
pub mod ownership;
mod pem;
pub mod plan;
pub mod progress;
mod read_state;
mod reader;
mod remedy;
mod remove;
mod retry;
pub mod rows;
pub mod schema;
pub mod spec;
pub mod teardown;
pub mod verify;
pub mod write;
