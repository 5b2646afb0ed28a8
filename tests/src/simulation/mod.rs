//! A queue in virtual time, against which the search and simpler methods are held: its true limit is known, and a search of
//! minutes takes a fraction of a second.

pub mod durable;
pub mod load_box;
pub mod methods;
pub mod queue;
pub mod table;
pub mod truth;
