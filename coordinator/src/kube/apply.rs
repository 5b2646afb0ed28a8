//! Makes a run in a cluster: creates its objects, follows the coordinator, and removes what was created, however it went.

use std::io::Write as _;
use std::pin::pin;
use std::time::Duration;

use plimsoll_agent::shell::logs::say;

use super::cluster::{Cluster, ClusterError};
use super::follow::{Listener, follow};
use super::manifests::{AGENT, COORDINATOR, Manifests, Object, selector};
use super::pods::{Ended, not_running};
use crate::exit::{ExitCode, Failure};
use crate::settings::kube::{Apply, KubePlan};
use crate::shell::signals::Interrupt;

/// Beyond a pod's own grace: what the cluster takes to end it.
const TO_BE_ENDED: Duration = Duration::from_secs(30);

/// Makes the run and returns what the coordinator ended with.
///
/// # Errors
/// It could not be made or followed; what was made of it is removed.
pub async fn apply(
    plan: &KubePlan,
    how: &Apply,
    manifests: Manifests,
    interrupt: &Interrupt,
) -> Result<ExitCode, Failure> {
    let cluster = Cluster::connect(how.context.as_deref(), plan.namespace.as_deref()).await?;
    let mut made = Vec::new();
    let outcome = make(plan, &cluster, manifests, &mut made, interrupt).await;
    if how.keep {
        say(format_args!("all of it stays; to remove it: {}", by_hand(plan, &cluster)));
    } else {
        remove(plan, &cluster, &made).await;
    }
    outcome
}

/// The command that removes a run.
fn by_hand(plan: &KubePlan, cluster: &Cluster) -> String {
    format!(
        "kubectl -n {} delete job,service,configmap,secret,networkpolicy -l app.kubernetes.io/instance={},app.kubernetes.io/managed-by=plimsoll",
        cluster.namespace(),
        plan.name
    )
}

async fn make(
    plan: &KubePlan,
    cluster: &Cluster,
    manifests: Manifests,
    made: &mut Vec<Object>,
    interrupt: &Interrupt,
) -> Result<ExitCode, Failure> {
    for object in manifests.objects {
        if interrupt.is_raised() {
            return Ok(ExitCode::Interrupted);
        }
        create(plan, cluster, object, made).await?;
    }
    say(format_args!("{} agents and their coordinator are made in the namespace {}", plan.agents, cluster.namespace()));
    let labels = |component: &str| {
        let labels = selector(&plan.name, component);
        labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
    };
    let (mut output, of_coordinator) = (Output::default(), labels(COORDINATOR));
    let followed = follow_until_interrupted(plan, cluster, &of_coordinator, &mut output, made, interrupt).await;
    let outcome = followed.and_then(|ended| ended.map_or(Ok(ExitCode::Interrupted), |ended| exit_code(&ended)));
    if !matches!(outcome, Ok(ExitCode::Answer | ExitCode::Interrupted)) {
        let agents = cluster.pods(&labels(AGENT)).await.unwrap_or_default();
        not_running(&agents, AGENT).iter().for_each(say);
    }
    match output.unwritten {
        Some(error) => Err(Failure::Incomplete(format!("the report could not be written to standard output: {error}"))),
        None => outcome,
    }
}

/// How the coordinator ended; `None` where it was interrupted: it is ended in order then, and heard to its end.
async fn follow_until_interrupted(
    plan: &KubePlan,
    cluster: &Cluster,
    of_coordinator: &str,
    output: &mut Output,
    made: &[Object],
    interrupt: &Interrupt,
) -> Result<Option<Ended>, Failure> {
    let mut following = pin!(follow(cluster, of_coordinator, plan.start_timeout, output));
    tokio::select! {
        ended = &mut following => ended.map(Some),
        () = interrupt.raised() => {
            say("interrupted: the coordinator is ended in order, its report comes; another Ctrl-C leaves everything as it is");
            if let Some(coordinator) = made.last()
                && let Err(error) = cluster.delete(coordinator).await
            {
                say(format_args!("the coordinator cannot be ended: {error}"));
            }
            let grace = plan.run.request_timeout + TO_BE_ENDED;
            // Its pod may be gone before it says how it ended: what it said has come by then.
            drop(tokio::time::timeout(grace, following).await);
            Ok(None)
        }
    }
}

async fn create(plan: &KubePlan, cluster: &Cluster, object: Object, made: &mut Vec<Object>) -> Result<(), Failure> {
    let created = cluster.create(&object).await;
    let name = object.name();
    match created {
        Ok(()) => {
            made.push(object);
            Ok(())
        }
        Err(ClusterError::Refused { code: 409, .. }) => Err(Failure::Usage(format!(
            "{name} is there already: takes another --name, or remove the other run: {}",
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
    let known = [
        ExitCode::Answer,
        ExitCode::NothingPassed,
        ExitCode::Usage,
        ExitCode::Incomplete,
        ExitCode::Inconclusive,
        ExitCode::Interrupted,
    ];
    let code = known.into_iter().find(|known| Some(*known as i32) == ended.code);
    code.ok_or_else(|| Failure::Incomplete(format!("the coordinator was ended: {}", ended.words())))
}

/// The other way round than it was made.
async fn remove(plan: &KubePlan, cluster: &Cluster, made: &[Object]) {
    let mut left = Vec::new();
    for object in made.iter().rev() {
        if let Err(error) = cluster.delete(object).await {
            left.push(format!("{} ({error})", object.name()));
        }
    }
    if !left.is_empty() {
        say(format_args!("{} could not be removed: {}", left.join(", "), by_hand(plan, cluster)));
    }
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
