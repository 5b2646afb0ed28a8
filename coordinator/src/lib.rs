pub mod core;
pub mod report;
pub mod settings;
