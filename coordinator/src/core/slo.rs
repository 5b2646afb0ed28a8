//! Service-level objectives: what a step must hold, kept exact so that a value at its limit passes.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use plimsoll_common::plan::SeriesLimits;
use serde::{Deserialize, Serialize};

use super::measurement::StepMeasurement;

/// What a step must hold to pass.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slo {
    /// One per series of the workload, in its order.
    pub series: Vec<SeriesSlo>,
    /// Largest share of the attempted operations that may fail or be lost.
    pub error_rate: Fraction,
    /// Largest growth of a watched durable's backlog over the hold, in messages.
    pub pending_growth: u64,
    /// Share of the due operations that may stay unattempted.
    pub rate_tolerance: Fraction,
    /// The most that the agents' holds may begin apart, by the estimated clocks.
    #[serde(rename = "max_skew_ns", default = "default_max_skew", with = "crate::core::encoding::nanos")]
    pub max_skew: Duration,
    /// Durables whose backlog may grow as it likes; none may vanish.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub may_grow: Vec<String>,
}

/// The limits of one series, in whole microseconds; without any it is measured and not judged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeriesSlo {
    /// The series' name.
    pub series: String,
    /// 95 of 100 operations are not slower than this.
    #[serde(rename = "p95_ns", with = "crate::core::encoding::nanos::optional")]
    pub p95: Option<Duration>,
    /// 99 of 100 operations are not slower than this.
    #[serde(rename = "p99_ns", with = "crate::core::encoding::nanos::optional")]
    pub p99: Option<Duration>,
    /// The part of all operations that owe it a sample, in millionths.
    #[serde(default = "whole", skip_serializing_if = "is_whole")]
    pub part_ppm: u32,
    /// How many messages each of them puts into streams at most, where operations differ in that; see [`Slo::messages_of`].
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub makes: BTreeMap<String, u32>,
}

/// What is asked of starts where nothing else is, and of runs that were saved before it was a setting.
fn default_max_skew() -> Duration {
    Duration::from_millis(100)
}

/// All of it, in millionths.
pub const WHOLE_PPM: u32 = 1_000_000;

fn whole() -> u32 {
    WHOLE_PPM
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_whole(part_ppm: &u32) -> bool {
    *part_ppm == WHOLE_PPM
}

/// A percentile that can be gated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Quantile {
    /// 95 of 100.
    P95,
    /// 99 of 100.
    P99,
}

/// A limit for a series that the workload does not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no series '{got}' in this workload: it has {}", known.join(", "))]
pub struct UnknownSeries {
    got: String,
    known: Vec<String>,
}

impl Slo {
    /// The same percentile limits for every series.
    pub fn for_every_series(names: &[impl AsRef<str>], p95: Option<Duration>, p99: Option<Duration>) -> Vec<SeriesSlo> {
        let of =
            |name: &str| SeriesSlo { series: name.to_owned(), p95, p99, part_ppm: WHOLE_PPM, makes: BTreeMap::new() };
        names.iter().map(|name| of(name.as_ref())).collect()
    }

    /// How many messages so many operations put into a stream: one each where no series says otherwise.
    pub fn messages_of(&self, stream: &str, operations: u64) -> u64 {
        let made = self.makers().map(|(series, makes)| {
            let each = makes.get(stream).copied().unwrap_or(0);
            series.part_of(operations).saturating_mul(u64::from(each))
        });
        made.reduce(u64::saturating_add).unwrap_or(operations)
    }

    /// As many messages as a trial's operations can have put into a stream: those of the hold, of which it is known how many
    /// owed each series a sample (where it was stopped, of the open ones as many as on average), and those of the warmup, of which
    /// it is drawn for each; beyond four standard deviations above the mean is one trial in 30,000. `None`: one each.
    pub fn most_messages_of(&self, stream: &str, step: &StepMeasurement) -> Option<u64> {
        self.makers().next()?;
        let (mut counted, mut mean, mut square) = (0_u64, 0.0, 0.0);
        for (slo, makes) in self.makers() {
            let each = u64::from(makes.get(stream).copied().unwrap_or(0));
            let of_series = step.series.iter().find(|series| series.series == slo.series);
            counted = counted.saturating_add(of_series.map_or(0, |series| series.counts.n.saturating_mul(each)));
            let (part, each) = (f64::from(slo.part_ppm) / f64::from(WHOLE_PPM), each as f64);
            (mean, square) = (mean + part * each, square + part * each * each);
        }
        let (hold, warmup) = (step.counters.attempted as f64, step.warmup.attempted as f64);
        let of_warmup = warmup * mean + 4.0 * (warmup * (square - mean * mean).max(0.0)).sqrt();
        Some(counted.max((hold * mean) as u64).saturating_add(of_warmup.ceil() as u64))
    }

    fn makers(&self) -> impl Iterator<Item = (&SeriesSlo, &BTreeMap<String, u32>)> {
        self.series.iter().filter(|series| !series.makes.is_empty()).map(|series| (series, &series.makes))
    }

    /// Replaces one limit of one series.
    ///
    /// # Errors
    /// The workload has no such series.
    pub fn set_limit(&mut self, series: &str, quantile: Quantile, limit: Duration) -> Result<(), UnknownSeries> {
        let known = || self.series.iter().map(|slo| slo.series.clone()).collect();
        let Some(index) = self.series.iter().position(|slo| slo.series == series) else {
            return Err(UnknownSeries { got: series.to_owned(), known: known() });
        };
        match quantile {
            Quantile::P95 => self.series[index].p95 = Some(limit),
            Quantile::P99 => self.series[index].p99 = Some(limit),
        }
        Ok(())
    }

    /// What travels with the plan: per series the distinct limits, ascending, in microseconds.
    pub fn limits(&self) -> Vec<SeriesLimits> {
        self.series.iter().map(SeriesSlo::limits).collect()
    }

    /// The smallest limit of any series; `None` when none is gated.
    pub fn tightest_limit(&self) -> Option<Duration> {
        self.series.iter().flat_map(SeriesSlo::gates).map(|gate| gate.limit).min()
    }

    /// The largest of what each series is held to at its tightest: where series have limits of their own, an overload shows in
    /// the slowest of them last. `None` when none is gated.
    pub fn slowest_tightest_limit(&self) -> Option<Duration> {
        let tightest = |series: &SeriesSlo| series.gates().into_iter().map(|gate| gate.limit).min();
        self.series.iter().filter_map(tightest).max()
    }

    /// The largest limit of any series, which the request timeout must exceed; `None` when none is gated.
    pub fn largest_limit(&self) -> Option<Duration> {
        self.series.iter().flat_map(SeriesSlo::gates).map(|gate| gate.limit).max()
    }
}

/// One percentile and its limit, with the place of the limit in every `above` list of its series.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gate {
    /// Which percentile.
    pub quantile: Quantile,
    /// What it must not exceed.
    pub limit: Duration,
    /// Index into `above` and `above_anyway`.
    pub above_index: usize,
}

impl SeriesSlo {
    /// How many of so many operations owe it a sample, to the nearest.
    pub fn part_of(&self, operations: u64) -> u64 {
        let part = u128::from(operations) * u128::from(self.part_ppm);
        u64::try_from((part + u128::from(WHOLE_PPM / 2)) / u128::from(WHOLE_PPM)).unwrap_or(u64::MAX)
    }

    /// The distinct limits, ascending, in microseconds.
    pub fn limits(&self) -> SeriesLimits {
        let mut limits_us: Vec<u64> = [self.p95, self.p99].into_iter().flatten().map(micros).collect();
        limits_us.sort_unstable();
        limits_us.dedup();
        SeriesLimits { series: self.series.clone(), limits_us }
    }

    /// The gated percentiles, p95 before p99.
    pub fn gates(&self) -> Vec<Gate> {
        let limits_us = self.limits().limits_us;
        let gate = |quantile, limit: Option<Duration>| {
            let limit = limit?;
            let above_index = limits_us.iter().position(|&us| us == micros(limit))?;
            Some(Gate { quantile, limit, above_index })
        };
        [gate(Quantile::P95, self.p95), gate(Quantile::P99, self.p99)].into_iter().flatten().collect()
    }
}

fn micros(limit: Duration) -> u64 {
    u64::try_from(limit.as_micros()).unwrap_or(u64::MAX)
}

impl Quantile {
    /// In hundredths.
    pub fn percent(self) -> u64 {
        match self {
            Self::P95 => 95,
            Self::P99 => 99,
        }
    }

    /// Operations of `n` that may lie above a limit while this percentile holds it: n − ⌈q·n⌉.
    pub fn allowed_above(self, n: u64) -> u64 {
        let at_or_below = (u128::from(n) * u128::from(self.percent())).div_ceil(100);
        n - u64::try_from(at_or_below).expect("a part of n fits where n fits")
    }

    /// As a fraction, for a histogram.
    pub fn as_f64(self) -> f64 {
        self.percent() as f64 / 100.0
    }
}

impl fmt::Display for Quantile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "p{}", self.percent())
    }
}

/// Why a text is no percentile that can be gated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{got}' is no percentile that can be gated: give p95 or p99")]
pub struct QuantileError {
    got: String,
}

impl FromStr for Quantile {
    type Err = QuantileError;

    fn from_str(text: &str) -> Result<Self, QuantileError> {
        match text {
            "p95" => Ok(Self::P95),
            "p99" => Ok(Self::P99),
            _ => Err(QuantileError { got: text.to_owned() }),
        }
    }
}

/// A number from 0 to 1 in parts per billion, so that comparing with it is exact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct Fraction {
    parts_per_billion: u64,
}

const BILLION: u64 = 1_000_000_000;

/// As JSON holds it: a billion parts survive a double exactly.
impl From<Fraction> for f64 {
    fn from(fraction: Fraction) -> Self {
        fraction.as_f64()
    }
}

impl TryFrom<f64> for Fraction {
    type Error = FractionError;

    fn try_from(number: f64) -> Result<Self, FractionError> {
        let parts = (number * BILLION as f64).round();
        let in_range = (0.0..=BILLION as f64).contains(&parts);
        Some(parts as u64)
            .filter(|_| in_range)
            .and_then(Self::from_parts_per_billion)
            .ok_or_else(|| FractionError { got: number.to_string() })
    }
}

impl Fraction {
    /// `None` above one.
    pub fn from_parts_per_billion(parts_per_billion: u64) -> Option<Self> {
        (parts_per_billion <= BILLION).then_some(Self { parts_per_billion })
    }

    /// Whether `part` of `whole` is at most this fraction; nothing of nothing is.
    pub fn holds(self, part: u64, whole: u64) -> bool {
        u128::from(part) * u128::from(BILLION) <= u128::from(whole) * u128::from(self.parts_per_billion)
    }

    /// For display.
    pub fn as_f64(self) -> f64 {
        self.parts_per_billion as f64 / BILLION as f64
    }
}

impl fmt::Display for Fraction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, parts) = (self.parts_per_billion / BILLION, self.parts_per_billion % BILLION);
        if parts == 0 {
            return write!(f, "{whole}");
        }
        write!(f, "{whole}.{}", format!("{parts:09}").trim_end_matches('0'))
    }
}

/// Why a text is no fraction.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{got}' is no fraction: give a number from 0 to 1 with at most nine decimals, such as 0.001")]
pub struct FractionError {
    got: String,
}

impl FromStr for Fraction {
    type Err = FractionError;

    fn from_str(text: &str) -> Result<Self, FractionError> {
        let error = || FractionError { got: text.to_owned() };
        let (whole, decimals) = text.trim().split_once('.').unwrap_or((text.trim(), "0"));
        let numeric = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        if !numeric(whole) || !numeric(decimals) || decimals.len() > 9 {
            return Err(error());
        }
        let parts: u64 = format!("{decimals:0<9}").parse().map_err(|_| error())?;
        let whole: u64 = whole.parse().map_err(|_| error())?;
        let total = whole.checked_mul(BILLION).and_then(|whole| whole.checked_add(parts)).ok_or_else(error)?;
        Self::from_parts_per_billion(total).ok_or_else(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn limits_are_distinct_and_ascending_and_every_gate_knows_its_place() {
        let slo = |p95: Option<u64>, p99: Option<u64>| SeriesSlo {
            series: "E1".into(),
            p95: p95.map(ms),
            p99: p99.map(ms),
            part_ppm: WHOLE_PPM,
            makes: BTreeMap::new(),
        };
        for (p95, p99, limits_us, places) in [
            (Some(100), Some(250), vec![100_000, 250_000], vec![0, 1]),
            (Some(300), Some(250), vec![250_000, 300_000], vec![1, 0]),
            (Some(100), Some(100), vec![100_000], vec![0, 0]),
            (None, Some(250), vec![250_000], vec![0]),
            (None, None, vec![], vec![]),
        ] {
            let slo = slo(p95, p99);
            assert_eq!(slo.limits().limits_us, limits_us);
            assert_eq!(slo.gates().iter().map(|gate| gate.above_index).collect::<Vec<_>>(), places);
        }
    }

    #[test]
    fn one_series_can_have_its_own_limit() {
        let fraction = "0.001".parse().unwrap();
        let series = Slo::for_every_series(&["E1", "E2"], Some(ms(100)), Some(ms(250)));
        let (max_skew, may_grow) = (default_max_skew(), Vec::new());
        let mut slo =
            Slo { series, error_rate: fraction, pending_growth: 1000, rate_tolerance: fraction, max_skew, may_grow };
        slo.set_limit("E2", Quantile::P99, ms(400)).unwrap();
        assert_eq!((slo.series[0].p99, slo.series[1].p99), (Some(ms(250)), Some(ms(400))));
        assert_eq!((slo.tightest_limit(), slo.largest_limit()), (Some(ms(100)), Some(ms(400))));
        let error = slo.set_limit("E3", Quantile::P95, ms(1)).unwrap_err();
        assert_eq!(error.to_string(), "no series 'E3' in this workload: it has E1, E2");
    }

    #[test]
    fn what_was_saved_before_starts_were_limited_is_read_with_the_default() {
        let saved = r#"{"series":[],"error_rate":0.001,"pending_growth":1000,"rate_tolerance":0.05}"#;
        let slo: Slo = serde_json::from_str(saved).unwrap();
        assert_eq!(slo.max_skew, ms(100));
        let narrow = Slo { max_skew: Duration::from_micros(1), ..slo };
        assert_eq!(serde_json::from_str::<Slo>(&serde_json::to_string(&narrow).unwrap()).unwrap(), narrow);
    }

    #[test]
    fn fractions_are_read_exactly_and_print_as_they_are_read() {
        for (text, parts) in [
            ("0.001", Some(1_000_000)),
            ("0", Some(0)),
            ("1", Some(BILLION)),
            ("0.05", Some(50_000_000)),
            ("0.000000001", Some(1)),
            ("1.000000001", None),
            ("0.0000000001", None),
            ("-0.1", None),
            ("5%", None),
            ("1e-3", None),
            ("", None),
            (".5", None),
        ] {
            let fraction = text.parse::<Fraction>().ok();
            assert_eq!(fraction.map(|f| f.parts_per_billion), parts, "{text:?}");
            assert!(fraction.is_none_or(|f| f.to_string() == text), "{text:?}");
        }
    }

    #[test]
    fn a_share_exactly_at_the_fraction_holds() {
        let thousandth: Fraction = "0.001".parse().unwrap();
        assert!(thousandth.holds(10, 10_000) && thousandth.holds(0, 0));
        assert!(!thousandth.holds(11, 10_000) && !thousandth.holds(10, 9_999));
    }

    #[test]
    fn the_operations_that_a_percentile_lets_lie_above() {
        for (quantile, n, allowed) in [
            (Quantile::P95, 100, 5),
            (Quantile::P99, 100, 1),
            (Quantile::P99, 99, 0),
            (Quantile::P99, 199, 1),
            (Quantile::P99, 200, 2),
            (Quantile::P95, 19, 0),
            (Quantile::P95, 20, 1),
            (Quantile::P95, 0, 0),
            (Quantile::P99, u64::MAX, 184_467_440_737_095_516),
        ] {
            assert_eq!(quantile.allowed_above(n), allowed, "{quantile} of {n}");
        }
    }

    proptest! {
        #[test]
        fn a_percentile_by_counting_agrees_with_the_nearest_rank(
            mut values in prop::collection::vec(1_u64..1000, 1..200),
            limit in 1_u64..1000,
        ) {
            values.sort_unstable();
            for quantile in [Quantile::P95, Quantile::P99] {
                let rank = (values.len() as u64 * quantile.percent()).div_ceil(100);
                let nearest_rank = values[rank as usize - 1];
                let above = values.iter().filter(|&&value| value > limit).count() as u64;
                prop_assert_eq!(above <= quantile.allowed_above(values.len() as u64), nearest_rank <= limit);
            }
        }
    }
}
