//! Proofs that need the box to themselves: they measure near a capacity, near the box's own limit, or how evenly it is woken.
//! `make test` holds them one after the other, and the others four at a time.

mod answer;
mod daily_find;
mod find;
mod fleet;
mod weak_box;
mod weak_find;
