//! Makes a run in a cluster: creates its objects, follows the coordinator, and removes what was created, however it went.

use std::io::Write as _;
use std::pin::pin;
use std::time::Duration;

use plimsoll_agent::shell::logs::say;

use super::agents::Agents;
use super::cluster::{Cluster, ClusterError, MadeJob};
use super::follow::{Followed, Listener, NotFollowed, follow};
use super::manifests::{AGENT, COORDINATOR, KEPT_DAYS, Manifests, Object, selector};
use super::pods::Ended;
use super::remove::{by_hand, delete, remove};
use crate::exit::{ExitCode, Failure};
use crate::settings::kube::{Apply, KubePlan};
use crate::shell::signals::Interrupt;

/// Beyond a pod's own grace: what the cluster takes to end it.
const TO_BE_ENDED: Duration = Duration::from_secs(30);
/// Something that was made.
pub(super) struct Made {
    pub(super) object: Object,
    /// The cluster's own name for it.
    uid: Option<String>,
}

/// What becomes of what was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    /// It is removed.
    Remove,
    /// It stays: somebody may still read from it what was not heard here.
    Stays,
}

/// Makes the run and returns what the coordinator ended with.
///
/// # Errors
/// It could not be made or followed. What was made of it is removed, unless a report may be in it that was not heard.
pub async fn apply(
    plan: &KubePlan,
    how: &Apply,
    manifests: Manifests,
    interrupt: &Interrupt,
) -> Result<ExitCode, Failure> {
    let cluster = Cluster::connect(how.context.as_deref(), plan.namespace.as_deref()).await?;
    let mut made = Vec::new();
    let (outcome, then) = match make(plan, &cluster, manifests, &mut made, interrupt).await {
        Ok(code) => (Ok(code), Then::Remove),
        Err(NotFollowed::Nothing(failure)) => (Err(failure), Then::Remove),
        Err(NotFollowed::Unheard(failure)) => (Err(failure), Then::Stays),
    };
    match then {
        Then::Stays => say(format_args!(
            "all of it stays, its Jobs for {KEPT_DAYS} days, since the run's report may be in the coordinator's log: kubectl -n {} logs job/{}; to remove it: {}",
            cluster.namespace(),
            plan.coordinator_name(),
            by_hand(plan, &cluster)
        )),
        Then::Remove if how.keep => say(format_args!(
            "all of it stays, its Jobs for {KEPT_DAYS} days; to remove it: {}",
            by_hand(plan, &cluster)
        )),
        Then::Remove => remove(plan, &cluster, &made).await,
    }
    outcome
}

async fn make(
    plan: &KubePlan,
    cluster: &Cluster,
    manifests: Manifests,
    made: &mut Vec<Made>,
    interrupt: &Interrupt,
) -> Result<ExitCode, NotFollowed> {
    for object in manifests.objects {
        if interrupt.is_raised() {
            return Ok(ExitCode::Interrupted);
        }
        create(plan, cluster, object, made).await.map_err(NotFollowed::Nothing)?;
    }
    say(format_args!("{} agents and their coordinator are made in the namespace {}", plan.agents, cluster.namespace()));
    let labels = |component: &str| {
        let labels = selector(&plan.name, component);
        labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
    };
    let coordinator = Followed { selector: labels(COORDINATOR), job: job(made, plan.coordinator_name()) };
    let mut agents = Agents::of(job(made, plan.agents_name()), labels(AGENT));
    let mut output = Output::default();
    let followed = tokio::select! {
        followed = follow_until_interrupted(plan, cluster, &coordinator, &mut output, made, interrupt) => followed,
        never = agents.watch(cluster) => match never {},
    };
    let outcome = followed.and_then(|ended| output.outcome(ended.as_ref()));
    if !matches!(outcome, Ok(ExitCode::Answer | ExitCode::Interrupted)) {
        agents.last_look(cluster).await;
    }
    outcome
}

/// The job of this name among what was made.
pub(super) fn job(made: &[Made], name: String) -> MadeJob {
    let of_name = format!("Job/{name}");
    let uid = made.iter().find(|made| made.object.name() == of_name).and_then(|made| made.uid.clone());
    MadeJob { name, uid }
}

/// How the coordinator ended; `None` where it was interrupted: it is ended in order then, and heard to its end.
async fn follow_until_interrupted(
    plan: &KubePlan,
    cluster: &Cluster,
    coordinator: &Followed,
    output: &mut Output,
    made: &[Made],
    interrupt: &Interrupt,
) -> Result<Option<Ended>, NotFollowed> {
    let mut following = pin!(follow(cluster, coordinator, plan.start_timeout, output));
    tokio::select! {
        ended = &mut following => ended.map(Some),
        () = interrupt.raised() => {
            say(format_args!(
                "interrupted: the coordinator is ended in order, its report comes; another Ctrl-C leaves everything as it is, to be removed by: {}",
                by_hand(plan, cluster)
            ));
            if let Some(coordinator) = made.last()
                && let Err(error) = delete(cluster, &coordinator.object).await
            {
                say(format_args!("the coordinator cannot be ended: {error}"));
            }
            // Its pod may be gone before it says how it ended: what it said has come by then.
            match tokio::time::timeout(grace(plan), following).await {
                Ok(Err(NotFollowed::Unheard(why))) => say(format_args!("the report is not whole: {why}")),
                Err(_) => say(format_args!("the report is not whole: the coordinator did not end within {:?}", grace(plan))),
                Ok(Ok(_) | Err(NotFollowed::Nothing(_))) => {}
            }
            Ok(None)
        }
    }
}

/// What pods may take to end.
pub(super) fn grace(plan: &KubePlan) -> Duration {
    plan.run.request_timeout + TO_BE_ENDED
}

async fn create(plan: &KubePlan, cluster: &Cluster, object: Object, made: &mut Vec<Made>) -> Result<(), Failure> {
    let created = cluster.create(&object).await;
    let name = object.name();
    match created {
        Ok(uid) => {
            made.push(Made { object, uid });
            Ok(())
        }
        Err(ClusterError::Refused { code: 409, .. }) => Err(Failure::Usage(format!(
            "{name} is there already: choose another --name, or remove the other run: {}",
            by_hand(plan, cluster)
        ))),
        Err(error @ ClusterError::Refused { .. }) => Err(Failure::Incomplete(format!("{name} is not made: {error}"))),
        // It may have been made all the same, but may as well be another run's: it is left to whoever can tell.
        Err(error) => Err(Failure::Incomplete(format!(
            "whether {name} is made is not known: {error}; to remove what there is: {}",
            by_hand(plan, cluster)
        ))),
    }
}

/// What the run ends with.
fn exit_code(ended: &Ended) -> Result<ExitCode, Failure> {
    let code = ExitCode::ALL.into_iter().find(|known| Some(*known as i32) == ended.code);
    code.ok_or_else(|| Failure::Incomplete(format!("the coordinator was ended: {}", ended.words())))
}

/// A pod's log is both outputs in one. They are parted again here: the report goes to standard output, and all else, the
/// progress before it and an error behind it, to standard error.
#[derive(Default)]
struct Output {
    in_report: bool,
    /// Why the report is not whole.
    unwritten: Option<std::io::Error>,
}

impl Output {
    /// What a coordinator that ended so, and was heard to its end, comes to; `None`: it was interrupted.
    fn outcome(self, ended: Option<&Ended>) -> Result<ExitCode, NotFollowed> {
        let unwritten =
            self.unwritten.map(|error| format!("the report could not be written to standard output: {error}"));
        let lost = |words: String| Err(NotFollowed::Unheard(Failure::Incomplete(words)));
        let Some(ended) = ended else {
            // It is removed already.
            return unwritten
                .map_or(Ok(ExitCode::Interrupted), |words| Err(NotFollowed::Nothing(Failure::Incomplete(words))));
        };
        if let Some(words) = unwritten {
            return lost(words);
        }
        let code = exit_code(ended).map_err(NotFollowed::Nothing)?;
        let reports = matches!(code, ExitCode::Answer | ExitCode::NothingPassed | ExitCode::Inconclusive);
        if reports && !self.in_report {
            return lost(format!("the coordinator ended with {}, and its log has no report", ended.words()));
        }
        Ok(code)
    }

    fn is_of_the_report(&mut self, text: &str) -> bool {
        let begins = text.strip_prefix("Run ").is_some_and(|id| !id.is_empty() && !id.contains(' '));
        self.in_report |= begins;
        self.in_report && !text.starts_with("error: ")
    }
}

impl Listener for Output {
    fn line(&mut self, text: &str) {
        if !self.is_of_the_report(text) {
            say(format_args!("{text}"));
        } else if let Err(error) = writeln!(std::io::stdout(), "{text}")
            // A reader that has gone away, as `head` does, is no reason to fail.
            && error.kind() != std::io::ErrorKind::BrokenPipe
        {
            self.unwritten.get_or_insert(error);
        }
    }

    fn waits(&mut self, why: &str) {
        say(format_args!("the coordinator waits: {why}"));
    }

    fn fails(&mut self, why: &str) {
        say(format_args!("the coordinator's log cannot be read, which is tried again: {why}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_is_told_from_progress_and_errors() {
        let mut output = Output::default();
        let lines =
            ["step 1 of 2: 100/s hold", "Run away with it", "Run 2026-ab", "  hold = 5s", "", "ANSWER: no", "error: x"];
        let of_report: Vec<bool> = lines.iter().map(|line| output.is_of_the_report(line)).collect();
        assert_eq!(of_report, [false, false, true, true, true, true, false]);
    }

    #[test]
    fn codes_of_a_run_are_passed_on_and_others_are_no_runs() {
        for code in [0, 1, 2, 3, 4, 130] {
            assert_eq!(exit_code(&Ended { code: Some(code), reason: None }).unwrap() as i32, code);
        }
        let killed = Ended { code: Some(137), reason: Some("OOMKilled".to_owned()) };
        let error = exit_code(&killed).unwrap_err();
        assert_eq!(error, Failure::Incomplete("the coordinator was ended: exit code 137 (OOMKilled)".to_owned()));
    }
}
