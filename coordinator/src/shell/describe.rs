//! `plimsoll agents`: asks every agent what it is, without taking its lease.

use std::time::Duration;

use futures::future::join_all;
use plimsoll_agent::clock::boottime_ns;
use plimsoll_common::units::Rate;
use plimsoll_common::wire::{MAX_NAME, printable};
use plimsoll_proto::PROTOCOL_VERSION;
use plimsoll_proto::v1;
use tokio::time::timeout;

use super::fleet::FleetError;
use super::muster::look_up;
use super::session::{AgentAddress, Asked, Secrets, connect, denied};
use super::tls::Wire;
use crate::core::clock_offset::{ClockEstimator, ClockOffset, RoundTrip};
use crate::exit::{ExitCode, Failure};
use crate::report::agents::{AgentState, Description, Leased, render};
use crate::settings::agents::Reach;

/// How long an agent may take for each answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(3);
/// Questions to an agent, whose clock is read off them.
const QUESTIONS: usize = 10;

/// Every agent as a row of a table, and what the command ends with.
///
/// # Errors
/// A name cannot be looked up.
pub async fn list(command: &Reach) -> Result<(String, ExitCode), Failure> {
    let (agents, failed) = look_up(&command.sources).await;
    if let Some(error) = failed {
        return Err(Failure::Usage(error.to_string()));
    }
    let wire = Wire::of(command.tls.as_ref()).map_err(|error| Failure::Usage(error.to_string()))?;
    let described: Vec<(String, AgentState)> = join_all(agents.iter().map(|agent| describe(agent, &wire))).await;
    let all = described.iter().all(|(_, state)| matches!(state, AgentState::There(_)));
    Ok((render(&described), if all { ExitCode::Answer } else { ExitCode::NothingPassed }))
}

async fn describe(agent: &AgentAddress, wire: &Wire) -> (String, AgentState) {
    let state = match ask(agent, wire).await {
        Ok(description) => AgentState::There(Box::new(description)),
        Err(FleetError::Unreachable { why, .. }) => AgentState::Unreachable(why),
        Err(FleetError::Denied { words, .. }) => AgentState::Unfit(words),
        Err(error) => AgentState::Unfit(error.to_string()),
    };
    (agent.name.clone(), state)
}

async fn ask(agent: &AgentAddress, wire: &Wire) -> Result<Description, FleetError> {
    let unreachable = |why: String| FleetError::Unreachable { agent: agent.address.clone(), why };
    let unfit = |words: &str| FleetError::Denied { agent: agent.address.clone(), words: words.to_owned() };
    let Asked { mut client, heard } = connect(agent, wire, Secrets::None).await?;
    let mut clock = ClockEstimator::default();
    let mut newest = None;
    for _ in 0..QUESTIONS {
        let sent_ns = boottime_ns();
        let answer = timeout(ANSWER_LIMIT, client.describe(v1::DescribeRequest {})).await;
        let answer = answer.map_err(|_| unreachable(format!("no answer within {ANSWER_LIMIT:?}")))?;
        let answer = answer.map_err(|status| match status.code() {
            tonic::Code::Unimplemented => unfit("another release: it cannot be asked"),
            _ => denied(agent, &status, &heard),
        })?;
        let answer = answer.into_inner();
        // Seen from here: our clock around an instant of the agent's.
        clock.add(RoundTrip { sent_ns, coordinator_ns: answer.boottime_ns, received_ns: boottime_ns() });
        newest = Some(answer);
    }
    let answer = newest.ok_or_else(|| unfit("it was not asked"))?;
    let hello = answer.hello.ok_or_else(|| unfit("it does not say what it is"))?;
    if hello.protocol_version != PROTOCOL_VERSION {
        return Err(unfit(&format!(
            "it speaks protocol {} and this release {PROTOCOL_VERSION}: run one release on both",
            hello.protocol_version
        )));
    }
    let printable = |text: &str| printable(text, MAX_NAME);
    Ok(Description {
        release: printable(&hello.build),
        hostname: printable(&hello.hostname),
        cores: hello.cores,
        workers: hello.workers,
        ceiling: hello.max_rate_milli_per_s.and_then(Rate::from_milli),
        clock: clock.estimate().map(reversed),
        leased: answer.holder.map(|holder| Leased {
            coordinator: printable(&holder.coordinator),
            run_id: Some(printable(&holder.run_id)).filter(|run_id| !run_id.is_empty()),
            since: Duration::from_millis(holder.held_ms),
        }),
    })
}

/// Which process an agent is, and who holds it.
#[derive(Debug)]
pub struct Holding {
    /// As in its Hello.
    pub instance: String,
    /// If anybody does.
    pub holder: Option<v1::LeaseHolder>,
}

/// What an agent says of who holds it; `None`: it says nothing.
pub async fn holding(agent: &AgentAddress, wire: &Wire) -> Option<Holding> {
    let Asked { mut client, .. } = connect(agent, wire, Secrets::None).await.ok()?;
    let answer = timeout(ANSWER_LIMIT, client.describe(v1::DescribeRequest {})).await.ok()?.ok()?;
    let v1::Description { hello, holder, .. } = answer.into_inner();
    Some(Holding { instance: hello?.instance, holder })
}

/// The agent's clock against ours, from ours against the agent's.
fn reversed(clock: ClockOffset) -> ClockOffset {
    ClockOffset { offset_ns: clock.offset_ns.saturating_neg(), error: clock.error }
}
