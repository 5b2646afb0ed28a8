//! What the suite runs against: real servers and processes, ended with the test that started them.

pub mod cassandra_proxy;
pub mod certificates;
pub mod databases;
pub mod driver;
pub mod exclusive;
pub mod failing_calls;
pub mod fleet;
pub mod hosts;
pub mod http;
pub mod messages;
pub mod mongo_proxy;
pub mod nats;
pub mod ports;
pub mod processes;
pub mod prove;
pub mod run;
pub mod signals;
