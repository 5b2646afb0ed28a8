//! Every end-to-end proof, a module each. One binary, since linking one for each would take longer than most of them run.

mod agent_protocol;
mod alone;
mod bad_input;
mod command_line;
mod custom;
mod daily;
mod daily_logins;
mod deployment;
mod discovery;
mod full_disk;
mod interrupted;
mod lost;
mod members;
mod metrics_pages;
mod nats_harness;
mod reads;
mod saved_runs;
mod search;
mod security;
mod security_limits;
mod seeding;
mod soak;
mod standin;
mod standin_program;
mod wall_clock;
mod wire;
