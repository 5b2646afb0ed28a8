//! The run's figures as Prometheus text, for whoever watches it from elsewhere.

use std::fmt::Write as _;
use std::net::SocketAddr;

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::live::{Live, Now};
use crate::core::roster::Asked;

/// Serves until it is dropped.
#[derive(Debug)]
pub struct MetricsPage(JoinHandle<()>);

impl MetricsPage {
    /// Listens and serves; levels are what is said here.
    ///
    /// # Errors
    /// The address cannot be listened on; for people.
    pub async fn serve(address: SocketAddr, live: Live, levels: Asked) -> Result<Self, String> {
        let listener = TcpListener::bind(address).await;
        let listener = listener.map_err(|error| {
            format!("--metrics-listen: cannot listen on {address}: {error}; choose a free address of this host")
        })?;
        let page = move || {
            let text = live.get().map_or(String::new(), |now| render(&now, levels));
            async move { ([(CONTENT_TYPE, "text/plain; version=0.0.4")], text) }
        };
        let app = Router::new().route("/metrics", get(page));
        Ok(Self(tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, app).await {
                tracing::warn!(%error, "the metrics page ended");
            }
        })))
    }
}

impl Drop for MetricsPage {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn render(now: &Now, levels: Asked) -> String {
    let mut text = String::new();
    let mut gauge = |name: &str, help: &str, samples: Vec<(String, f64)>| {
        if samples.is_empty() {
            return;
        }
        writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge").expect("a String takes every line");
        for (labels, value) in samples {
            writeln!(text, "{name}{labels} {value}").expect("a String takes every line");
        }
    };
    let plain = |value: f64| vec![(String::new(), value)];
    gauge("plimsoll_step", "Step of the run, from 1.", plain(now.step.0 as f64));
    gauge("plimsoll_steps", "Steps of the run; 0: a search, which knows no number.", plain(now.step.1 as f64));
    gauge("plimsoll_trial", "Trial of the step, from 1.", plain(f64::from(now.trial)));
    let phase = format!("{{phase=\"{}\"}}", now.phase.word());
    gauge("plimsoll_phase", "1 for the phase under way.", vec![(phase, 1.0)]);
    let optional = |value: Option<f64>| value.map_or(Vec::new(), plain);
    match levels {
        Asked::Rate => {
            gauge("plimsoll_target_rate", "Requests per second asked of the fleet.", plain(now.target.as_f64()));
            gauge("plimsoll_achieved_rate", "Attempted requests per second.", optional(now.achieved));
        }
        Asked::Users => {
            gauge("plimsoll_target_users", "Users asked of the fleet.", plain(now.target.as_f64()));
            let online = now.online.map(|users| users as f64);
            gauge("plimsoll_online_users", "Users online of those, in each agent's newest block.", optional(online));
        }
    }
    gauge("plimsoll_error_rate", "Failed and lost of the attempted requests.", optional(now.error_rate));
    let p99 = now
        .p99
        .iter()
        .filter_map(|(series, p99)| Some((format!("{{series=\"{series}\"}}"), p99.as_ref()?.as_secs_f64())));
    gauge("plimsoll_latency_p99_seconds", "99th percentile of the hold so far.", p99.collect());
    let backlog = now.backlog.iter().filter_map(|(name, total)| {
        let labels = format!("{{stream=\"{}\",durable=\"{}\"}}", name.stream, name.durable);
        Some((labels, (*total)? as f64))
    });
    gauge("plimsoll_backlog_messages", "Messages a durable still has to do.", backlog.collect());
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::backlog::DurableName;
    use crate::core::ramp::NextTrial;
    use crate::shell::live::Phase;
    use plimsoll_common::plan::TrialId;
    use std::time::Duration;

    fn samples(now: &Now, levels: Asked) -> Vec<String> {
        render(now, levels).lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
    }

    fn idle() -> Now {
        let next = NextTrial { trial: TrialId { step: 0, trial: 0 }, level: "500".parse().unwrap() };
        Now::idle(next, 2, Phase::Hold, Duration::from_secs(10))
    }

    #[test]
    fn users_are_no_requests_per_second() {
        let levels = |now: &Now| samples(now, Asked::Users).split_off(4);
        assert_eq!(levels(&idle()), ["plimsoll_target_users 500"]);
        // Attempted of what was due is a part of the level, and no number of users.
        let now = Now { achieved: Some(499.5), online: Some(498), ..idle() };
        assert_eq!(levels(&now), ["plimsoll_target_users 500", "plimsoll_online_users 498"]);
    }

    #[test]
    fn the_page_shows_what_is_known_and_nothing_else() {
        let now = Now {
            p99: vec![("E1".into(), Some(Duration::from_millis(4))), ("E2".into(), None)],
            backlog: vec![(DurableName { stream: "S".into(), durable: "d".into() }, Some(7))],
            ..idle()
        };
        assert_eq!(
            samples(&now, Asked::Rate),
            [
                "plimsoll_step 1",
                "plimsoll_steps 2",
                "plimsoll_trial 1",
                "plimsoll_phase{phase=\"hold\"} 1",
                "plimsoll_target_rate 500",
                "plimsoll_latency_p99_seconds{series=\"E1\"} 0.004",
                "plimsoll_backlog_messages{stream=\"S\",durable=\"d\"} 7",
            ]
        );
    }
}
