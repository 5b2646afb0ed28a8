pub mod core;
pub mod report;
