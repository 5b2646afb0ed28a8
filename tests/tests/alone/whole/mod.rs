//! Proofs that need all of the box. Their names come last, so that none of them keeps waiting while those that share it in pairs go
//! on one at a time.

mod daily_find;
mod weak_find;
