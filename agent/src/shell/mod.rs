//! What talks: the session with the coordinator, the workers with their connections and pacers, and the box's health.

pub mod abort;
pub mod aggregate;
pub mod calibrate;
pub mod clock;
pub mod files;
pub mod health;
pub mod health_page;
pub mod host;
pub mod lease;
pub mod lines;
pub mod logs;
pub mod manual;
pub mod metrics;
pub mod nats_target;
pub mod null_target;
pub mod panics;
pub mod priority;
pub mod server;
pub mod session;
pub mod timer;
pub mod title;
pub mod tls;
pub mod usage;
pub mod worker;
