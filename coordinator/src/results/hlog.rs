//! The HdrHistogram log of a run: an interval per trial and series, as the readers of the HdrHistogram project take it.
//! Pure: text out, no I/O.

use std::fmt::Write as _;
use std::time::Duration;

use plimsoll_common::histogram::LatencyHistogram;

use crate::core::encoding;
use crate::core::measurement::SeriesMeasurement;
use crate::report::TrialReport;

/// The first lines. `since_epoch`: when the run began.
pub fn head(since_epoch: Duration) -> String {
    format!(
        "#[Logged by plimsoll {}; values are microseconds, an interval is the hold of a trial]\n\
         #[Histogram log format version 1.3]\n\
         #[StartTime: {:.3} (seconds since epoch)]\n\
         \"StartTimestamp\",\"Interval_Length\",\"Interval_Max\",\"Interval_Compressed_Histogram\"\n",
        env!("CARGO_PKG_VERSION"),
        since_epoch.as_secs_f64()
    )
}

/// The lines of a trial whose hold began at `since_epoch`: `E1` for the latency of that series, `E1.service` for its
/// service time. A series without samples has none.
pub fn trial(trial: &TrialReport, since_epoch: Duration) -> String {
    let hold = trial.measurement.hold;
    let mut lines = String::new();
    for SeriesMeasurement { series, latency, service_time, .. } in &trial.measurement.series {
        lines.push_str(&line(series, since_epoch, hold, latency));
        lines.push_str(&line(&format!("{series}.service"), since_epoch, hold, service_time));
    }
    lines
}

fn line(tag: &str, since_epoch: Duration, hold: Duration, histogram: &LatencyHistogram) -> String {
    let mut line = String::new();
    let Some(max_us) = histogram.max_us() else { return line };
    // A tag ends at a comma, and a line at its end; readers show the largest value in milliseconds.
    let tag: String = tag.chars().map(|c| if c == ',' || c.is_whitespace() { '_' } else { c }).collect();
    let (start, length, max) = (since_epoch.as_secs_f64(), hold.as_secs_f64(), max_us as f64 / 1000.0);
    writeln!(line, "Tag={tag},{start:.3},{length:.3},{max:.3},{}", encoding::to_text(histogram))
        .expect("a String takes every line");
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixture::pass;
    use hdrhistogram::Histogram;
    use hdrhistogram::serialization::Deserializer;
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

    #[test]
    fn an_independent_reader_finds_every_series_of_every_trial_with_its_counts() {
        let start = Duration::from_millis(1_700_000_000_123);
        let mut empty = pass(1);
        empty.measurement.series[1].latency = LatencyHistogram::new();
        let text = head(start) + &trial(&pass(0), start) + &trial(&empty, start + Duration::from_secs(60));
        let mut found = Vec::new();
        for entry in IntervalLogIterator::new(text.as_bytes()) {
            match entry.expect("a line that the reader takes") {
                LogEntry::StartTime(time) => assert_eq!(time, start),
                LogEntry::BaseTime(time) => panic!("no base time was written, read {time:?}"),
                LogEntry::Interval(interval) => {
                    use base64::Engine as _;
                    let text = interval.encoded_histogram();
                    let bytes = base64::engine::general_purpose::STANDARD.decode(text).unwrap();
                    let histogram: Histogram<u64> = Deserializer::new().deserialize(&mut bytes.as_slice()).unwrap();
                    assert_eq!(interval.duration(), Duration::from_secs(10));
                    let tag = interval.tag().unwrap().as_str().to_owned();
                    found.push((tag, interval.start_timestamp().as_secs(), histogram));
                }
            }
        }
        let names: Vec<(&str, u64)> = found.iter().map(|(tag, start, _)| (tag.as_str(), start % 1000)).collect();
        assert_eq!(
            names,
            [
                ("E1", 0),
                ("E1.service", 0),
                ("E2", 0),
                ("E2.service", 0),
                ("E1", 60),
                ("E1.service", 60),
                ("E2.service", 60)
            ]
        );
        let ours = &pass(0).measurement.series[1].latency;
        let theirs = &found[2].2;
        assert_eq!(theirs.len(), ours.len());
        for quantile in [0.0, 0.5, 0.95, 0.99, 0.999, 1.0] {
            assert_eq!(Some(theirs.value_at_quantile(quantile)), ours.quantile_us(quantile), "{quantile}");
        }
    }
}
