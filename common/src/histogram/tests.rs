use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer, V2Serializer};
use proptest::prelude::*;

use super::*;

fn of(values: &[u64]) -> LatencyHistogram {
    let mut histogram = LatencyHistogram::new();
    values.iter().for_each(|&value| histogram.record(value));
    histogram
}

/// The same samples in the crate that others use, each value with how often it comes.
fn reference(samples: &[(u64, u64)]) -> Histogram<u64> {
    let mut histogram = Histogram::new_with_bounds(LOWEST_US, HIGHEST_US, DIGITS).unwrap();
    samples.iter().for_each(|&(value, count)| histogram.saturating_record_n(value.clamp(LOWEST_US, HIGHEST_US), count));
    histogram
}

fn reference_v2(histogram: &Histogram<u64>) -> Vec<u8> {
    let mut bytes = Vec::new();
    V2Serializer::new().serialize(histogram, &mut bytes).unwrap();
    bytes
}

fn read_by_reference(bytes: &[u8]) -> Histogram<u64> {
    Deserializer::new().deserialize(&mut &*bytes).unwrap()
}

/// The crate reads the top bucket as its end, 60.031 s, where ours ends at 60 s; all else is the same to the bit.
fn check_against(reference: &Histogram<u64>, ours: &LatencyHistogram) {
    assert_eq!(ours.len(), reference.len());
    assert_eq!(ours.max_us(), (!reference.is_empty()).then(|| reference.max().min(HIGHEST_US)));
    for quantile in [0.0, 1e-9, 0.1, 0.25, 0.5, 0.9, 0.95, 0.99, 0.999, 0.9999, 1.0] {
        let expected = reference.value_at_quantile(quantile).min(HIGHEST_US);
        assert_eq!(ours.quantile_us(quantile), (!reference.is_empty()).then_some(expected), "quantile {quantile}");
    }
}

/// Values of every magnitude, and more than their part at the ends.
fn value() -> impl Strategy<Value = u64> {
    let magnitude = (0_u32..26, any::<u64>()).prop_map(|(bits, noise)| (1 << bits) + noise % (1 << bits));
    prop_oneof![4 => magnitude, 2 => 1_u64..=HIGHEST_US, 2 => 0_u64..3_000, 1 => 59_900_000_u64..70_000_000]
}

fn values() -> impl Strategy<Value = Vec<u64>> {
    prop::collection::vec(prop_oneof![value(), 4_990_u64..5_010], 0..300)
}

/// A header of ours before any payload.
fn with_payload(payload: &[u8]) -> Vec<u8> {
    let mut bytes = of(&[1]).to_v2();
    bytes.truncate(40);
    bytes[4..8].copy_from_slice(&(payload.len() as u32).to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

#[test]
fn an_empty_histogram_has_no_percentiles() {
    let empty = LatencyHistogram::new();
    assert_eq!((empty.quantile_us(0.99), empty.max_us(), empty.to_v2()), (None, None, Vec::new()));
}

#[test]
fn what_lies_above_a_minute_is_clipped_and_counted() {
    let histogram = of(&[70_000_000, 10]);
    assert_eq!((histogram.clipped(), histogram.len()), (1, 2));
    assert!(histogram.max_us() >= Some(HIGHEST_US));
}

#[test]
fn other_bounds_are_refused() {
    let mut other = Histogram::<u64>::new_with_bounds(1, 60_000_000, 2).unwrap();
    other.record(5).unwrap();
    let bytes = reference_v2(&other);
    assert!(matches!(LatencyHistogram::new().add_v2(&bytes), Err(HistogramError::Bounds { digits: 2, .. })));
}

#[test]
fn samples_are_counted_up_to_the_end_of_a_bucket() {
    let histogram = of(&[10, 10, 5_000, 5_001, 70_000_000]);
    let received = LatencyHistogram::from_v2(histogram.to_v2()).unwrap();
    for (bound_us, count) in
        [(0, 0), (9, 0), (10, 2), (4_999, 2), (5_000, 4), (5_004, 4), (59_000_000, 4), (u64::MAX, 5)]
    {
        assert_eq!(
            (histogram.count_up_to_us(bound_us), received.count_up_to_us(bound_us)),
            (count, count),
            "{bound_us}"
        );
    }
    assert_eq!(LatencyHistogram::new().count_up_to_us(HIGHEST_US), 0);
}

#[test]
fn buckets_behind_a_minute_count_as_a_minute() {
    let mut other = reference(&[(5, 1)]);
    other.record_n(60_100_000, 2).unwrap();
    other.record_n(67_108_863, 3).unwrap();
    let mut histogram = LatencyHistogram::new();
    assert_eq!(histogram.add_v2(&reference_v2(&other)), Ok(6));
    assert_eq!(histogram, of(&[5, HIGHEST_US, HIGHEST_US, HIGHEST_US, HIGHEST_US, HIGHEST_US]));
}

#[test]
fn counts_that_overflow_are_refused_on_the_wire_and_saturate_in_memory() {
    let half = reference_v2(&reference(&[(7, i64::MAX as u64)]));
    let mut histogram = LatencyHistogram::new();
    assert_eq!((histogram.add_v2(&half), histogram.add_v2(&half)), (Ok(i64::MAX as u64), Ok(i64::MAX as u64)));
    assert_eq!(histogram.add_v2(&half), Err(HistogramError::Overflow));
    assert_eq!(histogram.len(), u64::MAX - 1);
    histogram.add(&histogram.clone());
    (0..3).for_each(|_| histogram.record(7));
    assert_eq!((histogram.len(), histogram.quantile_us(1.0)), (u64::MAX, Some(7)));
    assert_eq!(read_by_reference(&histogram.to_v2()).len(), i64::MAX as u64);
}

#[test]
fn empty_buckets_at_the_end_of_a_payload_add_nothing() {
    let cases: [(&[u8], u64); 5] =
        [(&[], 0), (&[0, 0], 0), (&[5], 0), (&[0, 4, 0, 0, 9], 2), (&[0, 4, 0, 0, 9, 0, 0, 0, 0, 0, 0], 2)];
    for (payload, samples) in cases {
        let mut histogram = LatencyHistogram::new();
        assert_eq!(histogram.add_v2(&with_payload(payload)), Ok(samples), "{payload:?}");
        assert_eq!(histogram, of(&vec![1; samples as usize]), "{payload:?}");
    }
}

#[test]
fn a_broken_payload_names_its_byte() {
    let run_to_the_end = [0xff, 0x8f, 0x02];
    let cases: [(&[u8], usize); 4] = [
        (&[2, 2, 0x80], 2),
        (&[run_to_the_end.as_slice(), &[2]].concat(), 3),
        (&[run_to_the_end.as_slice(), &[0; 20]].concat(), 3),
        (&[2, 2, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2], 2),
    ];
    for (payload, at) in cases {
        let mut histogram = of(&[3]);
        assert_eq!(histogram.add_v2(&with_payload(payload)), Err(HistogramError::Payload { at }), "{payload:?}");
        assert_eq!(histogram, of(&[3]));
    }
    assert_eq!(LatencyHistogram::new().add_v2(&with_payload(&run_to_the_end)), Ok(0));
}

proptest! {
    #[test]
    fn samples_and_encoding_are_those_of_hdrhistogram(values in values()) {
        let ours = of(&values);
        let reference = reference(&values.iter().map(|&value| (value, 1)).collect::<Vec<_>>());
        check_against(&reference, &ours);
        let received = LatencyHistogram::from_v2(ours.to_v2()).unwrap();
        check_against(&reference, &received);
        prop_assert_eq!(ours.mean_us(), (!values.is_empty()).then(|| reference.mean().min(HIGHEST_US as f64)));
        prop_assert_eq!(ours.clipped(), values.iter().filter(|&&value| value > HIGHEST_US).count() as u64);
        if !values.is_empty() {
            let bytes = ours.to_v2();
            prop_assert_eq!(&bytes, &reference_v2(&reference));
            let read = read_by_reference(&bytes);
            check_against(&read, &ours);
            prop_assert_eq!(ours.mean_us(), Some(read.mean().min(HIGHEST_US as f64)));
        }
    }

    #[test]
    fn counts_of_every_size_are_read_and_written(
        samples in prop::collection::vec((value(), 0_u32..54, any::<u64>()), 1..200),
    ) {
        let samples: Vec<_> = samples.into_iter().map(|(value, bits, noise)| (value, (1 << bits) + noise % (1 << bits))).collect();
        let reference = reference(&samples);
        let mut ours = LatencyHistogram::new();
        prop_assert_eq!(ours.add_v2(&reference_v2(&reference)), Ok(reference.len()));
        // Beyond, a rank is no exact floating-point number, and the crate answers 0 for one that it does not find.
        if reference.len() < 1 << 53 {
            check_against(&reference, &ours);
        }
        prop_assert_eq!(ours.to_v2(), reference_v2(&reference));
    }

    #[test]
    fn adding_equals_recording_all_in_any_order(left in values(), right in values()) {
        let (mut sum, mut reversed) = (of(&left), of(&right));
        sum.add(&of(&right));
        reversed.add(&of(&left));
        let all = of(&[left, right].concat());
        prop_assert_eq!(&sum, &all);
        prop_assert_eq!(&reversed, &all);
        prop_assert_eq!(sum.to_v2(), all.to_v2());
        prop_assert_eq!(all.clone().to_v2(), all.to_v2());
    }

    #[test]
    fn a_received_histogram_is_as_one_that_was_recorded(left in values(), right in values()) {
        let clamped = |values: &[u64]| of(&values.iter().map(|&value| value.min(HIGHEST_US)).collect::<Vec<_>>());
        let (left, right) = (clamped(&left), clamped(&right));
        let received = LatencyHistogram::from_v2(left.to_v2()).unwrap();
        prop_assert_eq!(&received, &left);
        prop_assert_eq!((received.to_v2(), received.mean_us()), (left.to_v2(), left.mean_us()));

        let check = |change: &dyn Fn(&mut LatencyHistogram)| {
            let (mut received, mut recorded) = (received.clone(), left.clone());
            change(&mut received);
            change(&mut recorded);
            assert_eq!(received, recorded);
        };
        check(&|histogram| histogram.record(77));
        check(&|histogram| histogram.add(&right));
        check(&|histogram| histogram.add(&LatencyHistogram::from_v2(right.to_v2()).unwrap()));
        check(&|histogram| assert_eq!(histogram.add_v2(&right.to_v2()), Ok(right.len())));
        check(&|histogram| histogram.clear());
    }

    #[test]
    fn a_cleared_histogram_is_as_new(before in values(), after in values()) {
        let mut histogram = of(&before);
        histogram.clear();
        prop_assert_eq!(&histogram, &LatencyHistogram::new());
        after.iter().for_each(|&value| histogram.record(value));
        prop_assert_eq!(&histogram, &of(&after));
        prop_assert_eq!(histogram.to_v2(), of(&after).to_v2());
    }

    #[test]
    fn a_payload_that_is_read_is_read_as_hdrhistogram_does(
        payload in prop::collection::vec(prop_oneof![20 => 0_u8..0x80, 1 => any::<u8>()], 0..400),
    ) {
        let bytes = with_payload(&payload);
        let mut ours = LatencyHistogram::new();
        if ours.add_v2(&bytes).is_ok() {
            check_against(&read_by_reference(&bytes), &ours);
            prop_assert_eq!(LatencyHistogram::from_v2(bytes), Ok(ours));
        } else {
            prop_assert_eq!(ours, LatencyHistogram::new());
            prop_assert!(LatencyHistogram::from_v2(bytes).is_err());
        }
    }

    #[test]
    fn decoding_and_adding_equals_adding(
        left in prop::collection::vec(1_u64..=HIGHEST_US, 0..300),
        right in prop::collection::vec(1_u64..=HIGHEST_US, 0..300),
    ) {
        let mut decoded = of(&left);
        let added = decoded.add_v2(&of(&right).to_v2());
        prop_assert_eq!(added, Ok(right.len() as u64));
        let all = of(&[left, right].concat());
        prop_assert_eq!(decoded.len(), all.len());
        for quantile in [0.0, 0.1, 0.5, 0.9, 0.95, 0.99, 0.999, 1.0] {
            prop_assert_eq!(decoded.quantile_us(quantile), all.quantile_us(quantile));
        }
    }

    #[test]
    fn any_bytes_are_refused_or_read(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = LatencyHistogram::new().add_v2(&bytes);
    }

    #[test]
    fn a_broken_histogram_adds_nothing(
        values in prop::collection::vec(1_u64..=HIGHEST_US, 1..100),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let mut bytes = of(&values).to_v2();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let mut histogram = LatencyHistogram::new();
        if histogram.add_v2(&bytes).is_err() {
            prop_assert!(histogram.is_empty());
        }
    }
}
