//! The chat system's wire contract: subjects, payloads, presets and deterministic fixtures.
