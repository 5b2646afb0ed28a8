//! Progress on stderr: a bar per step on a terminal, else a plain line about every five seconds.

use std::io::IsTerminal as _;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use plimsoll_agent::shell::logs;
use tokio::time::Instant;

use super::live::{Live, Now, Phase};
use crate::report::words;

/// Between two plain lines of one phase.
const LINE_INTERVAL: Duration = Duration::from_secs(5);

/// Where progress goes; everything shown is also set live.
#[derive(Debug)]
pub struct Progress {
    live: Live,
    shown: Shown,
    /// What stands behind a level: "/s".
    unit: &'static str,
}

#[derive(Debug)]
enum Shown {
    Bar(ProgressBar),
    Lines { last: Option<(Instant, Phase, (usize, usize), u32)> },
}

impl Progress {
    /// On stderr, as it is. `unit` stands behind levels.
    pub fn on_stderr(live: Live, unit: &'static str) -> Self {
        let shown = if std::io::stderr().is_terminal() {
            let bar = ProgressBar::with_draw_target(Some(1), ProgressDrawTarget::stderr());
            let style = ProgressStyle::with_template("{bar:20} {msg}").expect("a template that a test renders");
            bar.set_style(style);
            Shown::Bar(bar)
        } else {
            Shown::Lines { last: None }
        };
        Self { live, shown, unit }
    }

    /// Shows where the run is.
    pub fn update(&mut self, now: Now) {
        match &mut self.shown {
            Shown::Bar(bar) => {
                bar.set_length(u64::try_from(now.length.as_millis()).unwrap_or(u64::MAX).max(1));
                bar.set_position(u64::try_from(now.elapsed.min(now.length).as_millis()).unwrap_or(u64::MAX));
                bar.set_message(line(&now, self.unit));
            }
            Shown::Lines { last } => {
                let is_new = last.is_none_or(|(at, phase, step, trial)| {
                    at.elapsed() >= LINE_INTERVAL || (phase, step, trial) != (now.phase, now.step, now.trial)
                });
                if is_new {
                    logs::say(format_args!("{}", line(&now, self.unit)));
                    *last = Some((Instant::now(), now.phase, now.step, now.trial));
                }
            }
        }
        self.live.set(now);
    }

    /// A line that stays.
    pub fn say(&self, words: &str) {
        match &self.shown {
            Shown::Bar(bar) => bar.println(words),
            Shown::Lines { .. } => logs::say(format_args!("{words}")),
        }
    }

    /// Clears what does not stay.
    pub fn finish(&self) {
        if let Shown::Bar(bar) = &self.shown {
            bar.finish_and_clear();
        }
    }
}

/// `step 2/5 1000/s hold 12s/30s | achieved 999.8/s | p99 E1 4.2ms E2 8.1ms | backlog message-worker 3 | err 0%`.
fn line(now: &Now, unit: &str) -> String {
    let (step, steps) = now.step;
    let trial = if now.trial > 1 { format!(" trial {}", now.trial) } else { String::new() };
    let (elapsed, left) = (now.elapsed.min(now.length), now.length.saturating_sub(now.elapsed));
    // A search knows no number of trials.
    let place = if steps == 0 { format!("trial {step}") } else { format!("step {step}/{steps}{trial}") };
    let mut parts = vec![format!(
        "{place} {}{unit} {} {}s, {}s left",
        now.target,
        now.phase.word(),
        elapsed.as_secs(),
        left.as_secs_f64().ceil(),
    )];
    parts.extend(now.achieved.map(|achieved| format!("achieved {achieved:.1}{unit}")));
    let p99: Vec<String> =
        now.p99.iter().filter_map(|(series, p99)| Some(format!("{series} {}", words::duration((*p99)?)))).collect();
    parts.extend((!p99.is_empty()).then(|| format!("p99 {}", p99.join(" "))));
    let backlog: Vec<String> = now
        .backlog
        .iter()
        .map(|(name, total)| format!("{} {}", name.durable, total.map_or("?".to_owned(), |total| total.to_string())))
        .collect();
    parts.extend((!backlog.is_empty()).then(|| format!("backlog {}", backlog.join(" "))));
    parts.extend(now.error_rate.map(|rate| format!("err {:.3}%", rate * 100.0)));
    parts.join(" | ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::backlog::DurableName;
    use crate::core::ramp::NextTrial;
    use plimsoll_common::plan::TrialId;

    #[test]
    fn a_line_says_where_the_run_is_and_how_it_goes() {
        let next = NextTrial { trial: TrialId { step: 1, trial: 0 }, level: "1k".parse().unwrap() };
        let idle = Now::idle(next, 5, Phase::Warmup, Duration::from_secs(10));
        assert_eq!(line(&idle, "/s"), "step 2/5 1000/s warmup 0s, 10s left");
        let searching = Now { step: (7, 0), ..idle.clone() };
        assert_eq!(line(&searching, "/s"), "trial 7 1000/s warmup 0s, 10s left");
        let durable = |name: &str| DurableName { stream: "S".into(), durable: name.into() };
        let now = Now {
            trial: 2,
            phase: Phase::Hold,
            elapsed: Duration::from_millis(12_300),
            length: Duration::from_secs(30),
            achieved: Some(999.84),
            error_rate: Some(0.0012),
            p99: vec![("E1".into(), Some(Duration::from_micros(4200))), ("E2".into(), None)],
            backlog: vec![(durable("message-worker"), Some(3)), (durable("broadcast-worker"), None)],
            ..idle
        };
        insta::assert_snapshot!(line(&now, "/s"),
            @"step 2/5 trial 2 1000/s hold 12s, 18s left | achieved 999.8/s | p99 E1 4.2ms | backlog message-worker 3 broadcast-worker ? | err 0.120%");
    }

    #[test]
    fn the_bars_template_is_one() {
        assert!(ProgressStyle::with_template("{bar:20} {msg}").is_ok());
    }
}
