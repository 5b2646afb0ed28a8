//! The end-to-end suite's parts: [`standin`] is the chat backend whose capacity a test sets, [`harness`] starts real
//! servers and processes around it, and [`simulation`] is a queue in virtual time for the search.

pub mod harness;
pub mod simulation;
pub mod standin;
