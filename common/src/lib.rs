//! What both sides of Plimsoll speak. No network, no clock, no randomness that is not seeded.
//!
//! Read in this order: [`units`] (rates, step lists), [`workload`] (the vocabulary of what can be driven), [`plan`] (what an
//! agent is told), [`credentials`] (what opens the target's door), [`deal`] (which rooms and users belong to whom), [`histogram`] and [`snapshot`] (what an agent measured), [`wire`] (all of these to and from the
//! protocol), and [`contract`] (the chat system's subjects, payloads, presets and fixtures).

pub mod calibration;
pub mod contract;
pub mod credentials;
pub mod deal;
pub mod histogram;
pub mod plan;
pub mod snapshot;
pub mod units;
pub mod wire;
pub mod workload;
