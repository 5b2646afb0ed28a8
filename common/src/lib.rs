//! What both sides of Plimsoll speak. No network, no clock, no randomness that is not seeded.
//!
//! Read in this order: [`units`] (rates, step lists), [`limits`] (what is judged), [`plan`] (what an agent is told),
//! [`schedule`] (how many operations are due), [`deal`] (which rooms and users belong to whom), [`snapshot`] (what an agent
//! measured), [`wire`] (all of these to and from the protocol), and [`contract`] (the chat system's subjects, payloads,
//! presets and fixtures).

pub mod contract;
