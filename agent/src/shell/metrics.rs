//! The agent's own metrics as Prometheus text (exposition format 0.0.4), fed from the snapshots it sends.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::http::header;
use axum::routing::get;
use plimsoll_common::histogram::LatencyHistogram;
use plimsoll_common::plan::SeriesLimits;
use plimsoll_common::snapshot::{Counters, Snapshot, Strays};
use tokio::net::TcpListener;

/// Upper bounds of the exported buckets, in microseconds.
const BUCKETS_US: [u64; 14] =
    [100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 5_000_000];

/// Runs name their series: a daemon that serves many must not keep every name it ever heard.
const MOST_SERIES: usize = 256;

/// Totals since the daemon began.
#[derive(Debug, Clone)]
pub struct Metrics(Arc<Mutex<Totals>>);

#[derive(Debug)]
struct Totals {
    /// Warmup and hold together: what was really sent.
    counters: Counters,
    strays: Strays,
    /// By name, in the order in which they came.
    series: Vec<(String, LatencyHistogram)>,
    lateness: LatencyHistogram,
    in_flight_max: u64,
    process_cpu_milli: u32,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Nothing counted yet.
    pub fn new() -> Self {
        let totals = Totals {
            counters: Counters::default(),
            strays: Strays::default(),
            series: Vec::new(),
            lateness: LatencyHistogram::new(),
            in_flight_max: 0,
            process_cpu_milli: 0,
        };
        Self(Arc::new(Mutex::new(totals)))
    }

    /// Adds a block of a run with these series.
    pub fn record(&self, snapshot: &Snapshot, series: &[SeriesLimits]) {
        let mut totals = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        totals.counters.add(&snapshot.warmup);
        snapshot.blocks.iter().for_each(|block| totals.counters.add(&block.counters));
        totals.strays.add(&snapshot.strays);
        for (name, series) in series.iter().map(|series| &series.series).zip(&snapshot.series) {
            totals.add_series(name, &series.latency);
        }
        totals.lateness.add(&snapshot.health.lateness);
        totals.in_flight_max = snapshot.health.in_flight_max;
        totals.process_cpu_milli = snapshot.health.process_cpu_milli;
    }

    /// No trial is under way any more, and no newest block: what is counted stays.
    pub fn idle(&self) {
        let mut totals = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (totals.in_flight_max, totals.process_cpu_milli) = (0, 0);
    }

    /// The text of a scrape.
    pub fn render(&self) -> String {
        let totals = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut text = String::new();
        totals.write(&mut text).expect("writing to memory does not fail");
        text
    }

    /// Serves `/metrics` and `/healthz` until the listener breaks.
    ///
    /// # Errors
    /// Those of the listener.
    pub async fn serve(self, listener: TcpListener) -> std::io::Result<()> {
        let scrape = move || {
            let text = self.render();
            async move { ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text) }
        };
        let router = Router::new().route("/metrics", get(scrape)).route("/healthz", get(|| async { "ok\n" }));
        axum::serve(listener, router).await
    }
}

impl Totals {
    fn add_series(&mut self, name: &str, latency: &LatencyHistogram) {
        let known = self.series.iter().position(|(known, _)| known == name);
        match known {
            Some(index) => self.series[index].1.add(latency),
            None if self.series.len() < MOST_SERIES => self.series.push((name.to_owned(), latency.clone())),
            None => {}
        }
    }

    fn write(&self, text: &mut String) -> std::fmt::Result {
        let c = &self.counters;
        let operations = [
            ("due", c.due),
            ("attempted", c.attempted),
            ("sent", c.sent),
            ("completed", c.completed),
            ("saturated", c.saturated),
            ("underrun", c.underrun),
        ];
        help(
            text,
            "plimsoll_agent_operations_total",
            "counter",
            "Operations by what became of them, warmup included.",
        )?;
        for (state, count) in operations {
            writeln!(text, "plimsoll_agent_operations_total{{state=\"{state}\"}} {count}")?;
        }
        let failures = [
            ("timeout", c.failed.timeout),
            ("refused", c.failed.refused),
            ("bad_reply", c.failed.bad_reply),
            ("no_responders", c.failed.no_responders),
            ("publish", c.failed.publish),
            ("lost", c.lost),
        ];
        help(text, "plimsoll_agent_failures_total", "counter", "Failed and lost operations by kind, warmup included.")?;
        for (kind, count) in failures {
            writeln!(text, "plimsoll_agent_failures_total{{kind=\"{kind}\"}} {count}")?;
        }
        let strays =
            [("foreign", self.strays.foreign), ("duplicate", self.strays.duplicate), ("late", self.strays.late)];
        help(text, "plimsoll_agent_strays_total", "counter", "Messages that changed nothing else.")?;
        for (kind, count) in strays {
            writeln!(text, "plimsoll_agent_strays_total{{kind=\"{kind}\"}} {count}")?;
        }
        help(text, "plimsoll_agent_in_flight", "gauge", "Most operations open at once in a trial's newest block.")?;
        writeln!(text, "plimsoll_agent_in_flight {}", self.in_flight_max)?;
        help(text, "plimsoll_agent_cpu_cores", "gauge", "Cores that the process used in a trial's newest block.")?;
        writeln!(text, "plimsoll_agent_cpu_cores {:.3}", f64::from(self.process_cpu_milli) / 1000.0)?;
        help(text, "plimsoll_agent_lateness_seconds", "histogram", "Release minus intended time: what the box adds.")?;
        write_histogram(text, "plimsoll_agent_lateness_seconds", "", &self.lateness)?;
        let words = "Latency from the intended time, of operations of holds.";
        help(text, "plimsoll_agent_latency_seconds", "histogram", words)?;
        for (name, histogram) in &self.series {
            write_histogram(text, "plimsoll_agent_latency_seconds", &format!("series=\"{name}\""), histogram)?;
        }
        Ok(())
    }
}

fn help(text: &mut String, name: &str, kind: &str, words: &str) -> std::fmt::Result {
    writeln!(text, "# HELP {name} {words}\n# TYPE {name} {kind}")
}

fn write_histogram(text: &mut String, name: &str, labels: &str, histogram: &LatencyHistogram) -> std::fmt::Result {
    let comma = if labels.is_empty() { "" } else { "," };
    for bound in BUCKETS_US {
        let (seconds, count) = (bound as f64 / 1e6, histogram.count_up_to_us(bound));
        writeln!(text, "{name}_bucket{{{labels}{comma}le=\"{seconds}\"}} {count}")?;
    }
    let count = histogram.len();
    let sum = histogram.mean_us().unwrap_or(0.0) * count as f64 / 1e6;
    let braces = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
    writeln!(text, "{name}_bucket{{{labels}{comma}le=\"+Inf\"}} {count}")?;
    writeln!(text, "{name}_sum{braces} {sum}\n{name}_count{braces} {count}")
}
