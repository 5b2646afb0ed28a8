//! How values stand in a saved run where serde's own way would not do: lengths of time as whole nanoseconds, histograms as
//! HdrHistogram's readers know them.

use std::io::{Read as _, Write as _};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::read::ZlibDecoder;
use flate2::write::ZlibEncoder;
use plimsoll_common::histogram::{HistogramError, LatencyHistogram};

/// The cookie of the compressed V2 encoding: this, a length, and the zlib stream of the plain encoding.
const COMPRESSED_V2_COOKIE: u32 = 0x1c84_9304 | 0x10;

/// Larger than any encoding of our bounds: 17,408 buckets of at most 9 bytes and the header.
const MOST_BYTES: u64 = 1 << 18;

/// Why a text is no histogram.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HistogramTextError {
    /// Not base64, not the compressed encoding, or a stream that breaks off.
    #[error("no compressed V2 histogram in base64: {0}")]
    Text(String),
    /// Its content.
    #[error(transparent)]
    Histogram(#[from] HistogramError),
}

/// The text that HdrHistogram's log readers take: the compressed V2 encoding in base64, without what was clipped; nothing
/// for an empty histogram.
pub fn to_text(histogram: &LatencyHistogram) -> String {
    let plain = histogram.to_v2();
    if plain.is_empty() {
        return String::new();
    }
    let mut zlib = ZlibEncoder::new(Vec::new(), Compression::default());
    zlib.write_all(&plain).expect("a Vec takes every byte");
    let zlib = zlib.finish().expect("a Vec takes every byte");
    let length = u32::try_from(zlib.len()).expect("a histogram is smaller than a gigabyte");
    let bytes: Vec<u8> =
        COMPRESSED_V2_COOKIE.to_be_bytes().into_iter().chain(length.to_be_bytes()).chain(zlib).collect();
    STANDARD.encode(bytes)
}

/// Reads what [`to_text`] wrote.
///
/// # Errors
/// It is something else.
pub fn from_text(text: &str) -> Result<LatencyHistogram, HistogramTextError> {
    let broken = |words: &str| HistogramTextError::Text(words.to_owned());
    if text.is_empty() {
        return Ok(LatencyHistogram::new());
    }
    let bytes = STANDARD.decode(text).map_err(|error| HistogramTextError::Text(error.to_string()))?;
    let (cookie, rest) = bytes.split_first_chunk::<4>().ok_or_else(|| broken("too short"))?;
    let (length, zlib) = rest.split_first_chunk::<4>().ok_or_else(|| broken("too short"))?;
    if u32::from_be_bytes(*cookie) != COMPRESSED_V2_COOKIE || u32::from_be_bytes(*length) as usize != zlib.len() {
        return Err(broken("another cookie or length"));
    }
    let mut plain = Vec::new();
    let read = ZlibDecoder::new(zlib).take(MOST_BYTES + 1).read_to_end(&mut plain);
    read.map_err(|error| HistogramTextError::Text(error.to_string()))?;
    if plain.len() as u64 > MOST_BYTES {
        return Err(broken("larger than any histogram of these bounds"));
    }
    Ok(LatencyHistogram::from_v2(plain)?)
}

/// A [`Duration`](std::time::Duration) as whole nanoseconds; fields say so in their names.
pub mod nanos {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use std::time::Duration;

    pub(super) fn count(length: &Duration) -> u64 {
        u64::try_from(length.as_nanos()).unwrap_or(u64::MAX)
    }

    /// Writes it.
    ///
    /// # Errors
    /// The serializer's.
    pub fn serialize<S: Serializer>(length: &Duration, to: S) -> Result<S::Ok, S::Error> {
        count(length).serialize(to)
    }

    /// Reads it.
    ///
    /// # Errors
    /// Not a number of nanoseconds.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        u64::deserialize(from).map(Duration::from_nanos)
    }

    /// The same where there may be none.
    pub mod optional {
        use super::*;

        /// Writes it.
        ///
        /// # Errors
        /// The serializer's.
        pub fn serialize<S: Serializer>(length: &Option<Duration>, to: S) -> Result<S::Ok, S::Error> {
            length.as_ref().map(count).serialize(to)
        }

        /// Reads it.
        ///
        /// # Errors
        /// Neither a number of nanoseconds nor null.
        pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
            Ok(Option::<u64>::deserialize(from)?.map(Duration::from_nanos))
        }
    }
}

/// A histogram with what it clipped.
pub mod histogram {
    use plimsoll_common::histogram::LatencyHistogram;
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

    #[derive(Serialize, Deserialize)]
    struct Saved {
        hdr: String,
        #[serde(default, skip_serializing_if = "is_zero")]
        clipped: u64,
    }

    fn is_zero(count: &u64) -> bool {
        *count == 0
    }

    /// Writes it.
    ///
    /// # Errors
    /// The serializer's.
    pub fn serialize<S: Serializer>(histogram: &LatencyHistogram, to: S) -> Result<S::Ok, S::Error> {
        Saved { hdr: super::to_text(histogram), clipped: histogram.clipped() }.serialize(to)
    }

    /// Reads it.
    ///
    /// # Errors
    /// Something else than a histogram of our bounds.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<LatencyHistogram, D::Error> {
        let Saved { hdr, clipped } = Saved::deserialize(from)?;
        let mut histogram = super::from_text(&hdr).map_err(D::Error::custom)?;
        histogram.add_clipped(clipped);
        Ok(histogram)
    }

    /// One per series.
    pub mod list {
        use super::*;

        #[derive(Serialize, Deserialize)]
        struct One(#[serde(with = "super")] LatencyHistogram);

        /// Writes them.
        ///
        /// # Errors
        /// The serializer's.
        pub fn serialize<S: Serializer>(histograms: &[LatencyHistogram], to: S) -> Result<S::Ok, S::Error> {
            to.collect_seq(histograms.iter().cloned().map(One))
        }

        /// Reads them.
        ///
        /// # Errors
        /// As of one.
        pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<LatencyHistogram>, D::Error> {
            Ok(Vec::<One>::deserialize(from)?.into_iter().map(|One(histogram)| histogram).collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_empty_histogram_survives_and_nonsense_is_refused() {
        assert!(from_text(&to_text(&LatencyHistogram::new())).unwrap().is_empty());
        for text in ["HIST", "no base64!", "AAAAAAAAAAAA", "HISTFAAAAAB4nA=="] {
            assert!(from_text(text).is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn what_was_recorded_is_read_again(values in prop::collection::vec(0_u64..70_000_000, 0..300)) {
            let mut histogram = LatencyHistogram::new();
            values.iter().for_each(|&value| histogram.record(value));
            let read = from_text(&to_text(&histogram)).unwrap();
            prop_assert_eq!(read.len(), histogram.len());
            prop_assert_eq!(read.to_v2(), histogram.to_v2());
        }

        #[test]
        fn no_text_makes_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = from_text(&STANDARD.encode(&bytes));
        }
    }
}
