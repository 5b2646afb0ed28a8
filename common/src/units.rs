//! Rates, lists of steps and lengths of time, as people write them; rates also as shares add up.

use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;
use std::time::Duration;

/// Thousandths of a request per second, at least one: a share of nothing is no share. In JSON it is a number of requests per
/// second, which a double holds exactly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct Rate(NonZeroU64);

/// Above this, a thousandth of a request per second times the longest run would not fit in 64 bits.
const MAX_MILLI: u64 = 1_000_000_000_000;

impl Rate {
    /// A rate in thousandths of a request per second; `None` for zero and above 1,000,000,000 requests per second.
    pub fn from_milli(milli_per_s: u64) -> Option<Self> {
        if milli_per_s > MAX_MILLI {
            return None;
        }
        NonZeroU64::new(milli_per_s).map(Self)
    }

    /// A whole number of requests per second, within the same bounds.
    pub fn per_second(requests: u64) -> Option<Self> {
        requests.checked_mul(1000).and_then(Self::from_milli)
    }

    /// Thousandths of a request per second.
    pub fn milli(self) -> u64 {
        self.0.get()
    }

    /// Requests per second.
    pub fn as_f64(self) -> f64 {
        self.milli() as f64 / 1000.0
    }

    /// Operations due in a window at this rate: share × length, rounded down. The agent's schedule releases exactly this
    /// many, and the coordinator computes it too.
    pub fn due_in(self, window: Duration) -> u64 {
        let due = u128::from(self.milli()) * window.as_micros() / 1_000_000_000;
        u64::try_from(due).unwrap_or(u64::MAX)
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, milli) = (self.milli() / 1000, self.milli() % 1000);
        if milli == 0 {
            return write!(f, "{whole}");
        }
        write!(f, "{whole}.{}", format!("{milli:03}").trim_end_matches('0'))
    }
}

impl From<Rate> for f64 {
    fn from(rate: Rate) -> Self {
        rate.as_f64()
    }
}

impl TryFrom<f64> for Rate {
    type Error = RateError;

    fn try_from(requests: f64) -> Result<Self, RateError> {
        let milli = (requests * 1000.0).round();
        let in_range = (1.0..=MAX_MILLI as f64).contains(&milli);
        Some(milli as u64)
            .filter(|_| in_range)
            .and_then(Self::from_milli)
            .ok_or_else(|| RateError { got: requests.to_string() })
    }
}

/// Why a text is no rate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{got}' is no rate: give a positive number of requests per second, such as 500, 2.5 or 2k")]
pub struct RateError {
    got: String,
}

impl FromStr for Rate {
    type Err = RateError;

    /// `500`, `2.5`, `1k`, `1.5K`: at most three decimals survive, k and K are thousands.
    fn from_str(text: &str) -> Result<Self, RateError> {
        let error = || RateError { got: text.to_owned() };
        let trimmed = text.trim();
        let (digits, scale) = match trimmed.strip_suffix(['k', 'K']) {
            Some(digits) => (digits, 1000_u64),
            None => (trimmed, 1),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
        let numeric = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        if !numeric(whole) || !numeric(fraction) || fraction.len() > 6 {
            return Err(error());
        }
        // Millionths of the written number: six decimals at most, so this is exact.
        let fraction_millionths = fraction.parse::<u64>().map_err(|_| error())? * 10_u64.pow(6 - fraction.len() as u32);
        let millionths = whole
            .parse::<u64>()
            .ok()
            .and_then(|whole| whole.checked_mul(1_000_000))
            .and_then(|whole| whole.checked_add(fraction_millionths))
            .and_then(|millionths| millionths.checked_mul(scale))
            .ok_or_else(error)?;
        if millionths % 1000 != 0 {
            return Err(error());
        }
        Self::from_milli(millionths / 1000).ok_or_else(error)
    }
}

/// The levels of a run in the order in which they are held: strictly ascending, at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Steps(Vec<Rate>);

/// Why a text is no list of steps.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StepsError {
    /// Nothing between the commas.
    #[error("step {position} of '{list}' is empty: give rates such as 500,1k,2k")]
    Empty {
        /// Counted from 1.
        position: usize,
        /// The whole list as given.
        list: String,
    },
    /// Not a number, zero, or too large.
    #[error("step {position} of '{list}': {source}")]
    Rate {
        /// Counted from 1.
        position: usize,
        /// The whole list as given.
        list: String,
        /// What is wrong with it; shown in the text, so not chained.
        source: RateErrorText,
    },
    /// Not above the step before it.
    #[error("steps must be strictly ascending: {this} follows {before} in '{list}'")]
    NotAscending {
        /// The step before.
        before: Rate,
        /// The step that is not above it.
        this: Rate,
        /// The whole list as given.
        list: String,
    },
    /// More than anybody can wait for.
    #[error("{count} steps are too many: give at most {MAX_STEPS}")]
    TooMany {
        /// How many were given.
        count: usize,
    },
}

/// A [`RateError`] that prints its text in place instead of being chained as a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RateErrorText(RateError);

impl fmt::Display for RateErrorText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for RateErrorText {}

/// A list longer than this is a mistake: at the shortest hold it would still run for hours.
const MAX_STEPS: usize = 1000;

impl Steps {
    /// The rates, strictly ascending, never empty.
    pub fn rates(&self) -> &[Rate] {
        &self.0
    }
}

/// A single step.
impl From<Rate> for Steps {
    fn from(rate: Rate) -> Self {
        Self(vec![rate])
    }
}

impl fmt::Display for Steps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, rate) in self.0.iter().enumerate() {
            let comma = if position == 0 { "" } else { "," };
            write!(f, "{comma}{rate}")?;
        }
        Ok(())
    }
}

impl FromStr for Steps {
    type Err = StepsError;

    fn from_str(list: &str) -> Result<Self, StepsError> {
        let parts: Vec<&str> = list.split(',').collect();
        if parts.len() > MAX_STEPS {
            return Err(StepsError::TooMany { count: parts.len() });
        }
        let mut rates: Vec<Rate> = Vec::with_capacity(parts.len());
        for (index, part) in parts.iter().enumerate() {
            let position = index + 1;
            if part.trim().is_empty() {
                return Err(StepsError::Empty { position, list: list.to_owned() });
            }
            let rate: Rate = part.parse().map_err(|error| StepsError::Rate {
                position,
                list: list.to_owned(),
                source: RateErrorText(error),
            })?;
            if let Some(&before) = rates.last().filter(|&&before| before >= rate) {
                return Err(StepsError::NotAscending { before, this: rate, list: list.to_owned() });
            }
            rates.push(rate);
        }
        Ok(Self(rates))
    }
}

/// Splits `total` over `weights` so that the parts add up exactly, by the largest remainder: each part is
/// `total × weight ÷ Σ weights` rounded down, and what is left goes, one by one, to the largest remainders (the first
/// of equals). A weight of zero gets nothing unless all are zero, when nobody does.
pub fn split_largest_remainder(total: u64, weights: &[u64]) -> Vec<u64> {
    let sum: u128 = weights.iter().map(|&weight| u128::from(weight)).sum();
    if sum == 0 {
        return vec![0; weights.len()];
    }
    let product = |weight: u64| u128::from(total) * u128::from(weight);
    let mut parts: Vec<u64> = weights.iter().map(|&weight| (product(weight) / sum) as u64).collect();
    let mut order: Vec<usize> = (0..weights.len()).filter(|&i| weights[i] > 0).collect();
    order.sort_by_key(|&i| (std::cmp::Reverse(product(weights[i]) % sum), i));
    let left = total - parts.iter().sum::<u64>();
    for &i in order.iter().take(left as usize) {
        parts[i] += 1;
    }
    parts
}

/// A length of time with its unit, such as `500ms`, `30s` or `1h 30m`; nothing finer than a microsecond.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let length = humantime::parse_duration(text.trim()).ok()?;
    (length.subsec_nanos() % 1000 == 0).then_some(length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn milli(text: &str) -> Option<u64> {
        text.parse::<Rate>().ok().map(Rate::milli)
    }

    #[test]
    fn lengths_of_time_are_read_as_people_write_them() {
        let ms = |text: &str| parse_duration(text).map(|length| length.as_millis());
        assert_eq!([" 500ms ", "30s", "1h 30m"].map(ms), [Some(500), Some(30_000), Some(5_400_000)]);
        assert_eq!(parse_duration("1us"), Some(Duration::from_micros(1)));
        for wrong in ["", "5", "s", "-1s", "1ns", "1s1ns", "soon"] {
            assert_eq!(parse_duration(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn rates_are_read_as_people_write_them() {
        for (text, expected) in [
            ("500", Some(500_000)),
            ("1k", Some(1_000_000)),
            ("2K", Some(2_000_000)),
            ("1.5k", Some(1_500_000)),
            ("0.001", Some(1)),
            (" 10 ", Some(10_000)),
            ("0", None),
            ("0k", None),
            ("-5", None),
            ("+5", None),
            ("1e3", None),
            ("k", None),
            ("", None),
            ("1kk", None),
            ("1.", None),
            (".5", None),
            ("0.0001", None),
            ("99999999999999999999", None),
            ("1000000001", None),
        ] {
            assert_eq!(milli(text), expected, "{text:?}");
        }
    }

    #[test]
    fn a_rate_prints_as_it_is_read() {
        for text in ["500", "2.5", "0.001", "10000"] {
            assert_eq!(text.parse::<Rate>().map(|rate| rate.to_string()), Ok(text.to_owned()));
        }
    }

    #[test]
    fn a_rate_survives_json_exactly_and_nonsense_does_not() {
        for text in ["500", "2.5", "0.001", "12345.678", "1000000000"] {
            let rate: Rate = text.parse().unwrap();
            let json = serde_json::to_string(&rate).unwrap();
            assert_eq!(serde_json::from_str::<Rate>(&json).unwrap(), rate, "{json}");
        }
        for json in ["0", "-1", "0.0001", "1e10", "\"500\"", "null"] {
            assert!(serde_json::from_str::<Rate>(json).is_err(), "{json}");
        }
    }

    #[test]
    fn bad_step_lists_name_the_step_and_what_is_wrong() {
        for (list, words) in [
            ("", "step 1 of '' is empty"),
            ("500,,1k", "step 2 of '500,,1k' is empty"),
            ("500,", "step 2 of '500,' is empty"),
            ("500,abc", "step 2 of '500,abc': 'abc' is no rate"),
            ("0,500", "'0' is no rate"),
            ("500,-1", "'-1' is no rate"),
            ("1k,500", "500 follows 1000"),
            ("500,500", "500 follows 500"),
            ("500;1k", "'500;1k' is no rate"),
            ("1k,1000", "1000 follows 1000"),
        ] {
            let error = list.parse::<Steps>().map_err(|error| error.to_string());
            assert!(matches!(&error, Err(text) if text.contains(words)), "{list:?}: {error:?}");
        }
        assert_eq!("500,1k,2K".parse::<Steps>().map(|steps| steps.to_string()), Ok("500,1000,2000".to_owned()));
    }

    proptest! {
        #[test]
        fn parts_add_up_and_differ_from_the_exact_split_by_less_than_one(
            total in 0_u64..1_000_000_000_000,
            weights in prop::collection::vec(0_u64..1_000_000, 1..50),
        ) {
            let parts = split_largest_remainder(total, &weights);
            let sum: u64 = weights.iter().sum();
            prop_assume!(sum > 0);
            prop_assert_eq!(parts.iter().sum::<u64>(), total);
            for (part, weight) in parts.iter().zip(&weights) {
                let exact = total as f64 * *weight as f64 / sum as f64;
                prop_assert!((*part as f64 - exact).abs() < 1.001, "{} against {}", part, exact);
                prop_assert!(*weight > 0 || *part == 0);
            }
        }

        #[test]
        fn any_text_is_a_list_of_steps_or_an_error(text in ".{0,40}") {
            if let Ok(steps) = text.parse::<Steps>() {
                prop_assert!(steps.rates().windows(2).all(|pair| pair[0] < pair[1]));
                prop_assert!(!steps.rates().is_empty());
            }
        }
    }
}
