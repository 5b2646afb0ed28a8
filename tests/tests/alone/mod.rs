//! Proofs that need the box to themselves: they measure near a capacity, near the box's own limit, or how evenly it is woken.
//! `make test` holds those that need all of it (`Exclusive`) one after the other, those that need a steady box and little of it
//! (`Pair`) two at a time, and the tests elsewhere, which mostly wait, six at a time.

mod answer;
pub mod find;
mod fleet;
mod weak_box;
mod whole;
