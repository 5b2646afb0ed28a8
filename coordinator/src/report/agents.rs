//! The table of `plimsoll agents`.

use std::time::Duration;

use plimsoll_common::calibration::Calibration;
use plimsoll_common::units::Rate;

use super::table::{Shape, lines};
use super::words;
use crate::core::clock_offset::ClockOffset;

/// What an agent says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// Its release.
    pub release: String,
    /// Its box.
    pub hostname: String,
    /// Processors it may use.
    pub cores: u32,
    /// Threads that make load.
    pub workers: u32,
    /// Its share is never above this.
    pub ceiling: Option<Rate>,
    /// Its clock against ours, each counted from its box's boot.
    pub clock: Option<ClockOffset>,
    /// Who holds it.
    pub leased: Option<Leased>,
}

/// Who holds an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leased {
    /// For people.
    pub coordinator: String,
    /// The run's name, where the agent says it.
    pub run_id: Option<String>,
    /// For how long.
    pub since: Duration,
}

/// An agent that was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AgentState {
    /// It answered.
    There(Box<Description>),
    /// It did not; why.
    Unreachable(String),
    /// It is no agent for this coordinator; why.
    Unfit(String),
}

/// One row per agent, those that did not answer with the reason.
pub fn render(agents: &[(String, AgentState)]) -> String {
    let header = ["agent", "health", "release", "box", "cores", "workers", "ceiling/s", "clock offset", "lease"];
    let rows = agents.iter().map(|(name, state)| row(name, state)).collect();
    lines(Shape::Text, &header.map(str::to_owned), &[0, 1, 2, 3, 8], rows).join("\n") + "\n"
}

fn row(name: &str, state: &AgentState) -> Vec<String> {
    let none = || "-".to_owned();
    match state {
        AgentState::There(description) => vec![
            name.to_owned(),
            if description.leased.is_some() { "leased" } else { "ready" }.to_owned(),
            description.release.clone(),
            description.hostname.clone(),
            description.cores.to_string(),
            description.workers.to_string(),
            description.ceiling.map_or_else(none, |ceiling| ceiling.to_string()),
            description.clock.map_or_else(none, clock),
            description.leased.as_ref().map_or_else(none, lease),
        ],
        AgentState::Unreachable(why) => failed(name, "unreachable", why),
        AgentState::Unfit(why) => failed(name, "unfit", why),
    }
}

fn failed(name: &str, health: &str, why: &str) -> Vec<String> {
    let mut row = vec![name.to_owned(), health.to_owned()];
    row.extend(std::iter::repeat_n("-".to_owned(), 6));
    row.push(why.to_owned());
    row
}

/// One row per agent that was calibrated: what it is asked for at most, and how it came to that.
pub fn render_calibration(agents: &[(String, Calibration, Rate)]) -> String {
    let header =
        ["agent", "asked for at most/s", "by processor time/s", "held/s", "released in time", "lateness p50", "p99"];
    let row = |(name, found, ceiling): &(String, Calibration, Rate)| {
        let late = |part: f64| {
            found.lateness.quantile_us(part).map_or("-".to_owned(), |us| words::duration(Duration::from_micros(us)))
        };
        let whole = |rate: Rate| (rate.milli() / 1000).to_string();
        vec![
            name.clone(),
            ceiling.to_string(),
            whole(found.ceiling),
            whole(found.paced),
            format!("{} of {}", found.released, found.due),
            late(0.5),
            late(0.99),
        ]
    };
    lines(Shape::Text, &header.map(str::to_owned), &[0], agents.iter().map(row).collect()).join("\n") + "\n"
}

/// `+12.3s ±1.2ms`: the agent's box booted earlier.
fn clock(clock: ClockOffset) -> String {
    let sign = if clock.offset_ns < 0 { "-" } else { "+" };
    let offset = Duration::from_nanos(clock.offset_ns.unsigned_abs());
    format!("{sign}{} ±{}", words::duration(offset), words::duration(clock.error))
}

fn lease(leased: &Leased) -> String {
    let run = leased.run_id.as_ref().map_or(String::new(), |run_id| format!(", run {run_id},"));
    format!("{}{run} for {} s", leased.coordinator, leased.since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_agent_has_a_row_and_who_did_not_answer_says_why() {
        let ready = Description {
            release: "0.1.0".into(),
            hostname: "box-1".into(),
            cores: 4,
            workers: 3,
            ceiling: None,
            clock: Some(ClockOffset { offset_ns: -12_300_000_000, error: Duration::from_micros(240) }),
            leased: None,
        };
        let held = Leased {
            coordinator: "anna@control-1 pid 4711".into(),
            run_id: Some("nightly".into()),
            since: Duration::from_millis(61_900),
        };
        let leased = Description {
            ceiling: "20k".parse().ok(),
            clock: Some(ClockOffset { offset_ns: 1_500, error: Duration::from_micros(90) }),
            leased: Some(held),
            ..ready.clone()
        };
        let agents = [
            ("box-1:7700".to_owned(), AgentState::There(Box::new(ready))),
            ("box-2:7700".to_owned(), AgentState::There(Box::new(leased))),
            ("box-3:7700".to_owned(), AgentState::Unreachable("connection refused".into())),
            ("box-4:7700".to_owned(), AgentState::Unfit("another release".into())),
        ];
        insta::assert_snapshot!(render(&agents), @r"
         agent        health        release   box     cores   workers   ceiling/s    clock offset   lease
        -------------------------------------------------------------------------------------------------------------------------------------------
         box-1:7700   ready         0.1.0     box-1       4         3           -   -12.3s ±240us   -
         box-2:7700   leased        0.1.0     box-1       4         3       20000      +1us ±90us   anna@control-1 pid 4711, run nightly, for 61 s
         box-3:7700   unreachable   -         -           -         -           -               -   connection refused
         box-4:7700   unfit         -         -           -         -           -               -   another release
        ");
    }
}
