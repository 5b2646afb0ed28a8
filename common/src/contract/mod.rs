//! The chat system's wire contract: subjects, payloads, presets and deterministic fixtures.
//!
//! [`presets`] and [`fixtures`] say who talks where, [`subjects`] on which subjects, [`payload`] in which words.

pub mod daily;
pub mod fixtures;
pub mod history;
pub mod ids;
pub mod members;
pub mod payload;
mod permutation;
pub mod presets;
pub mod read;
pub mod subjects;
pub mod time;
pub mod write;
