//! The end-to-end suite's parts: [`standin`] is the chat backend whose capacity a test sets, [`harness`] starts real
//! servers and processes around it.

pub mod harness;
pub mod standin;
