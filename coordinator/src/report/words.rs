//! Durations, reasons and stray remarks in words.

use std::time::Duration;

use plimsoll_common::snapshot::{Stall, StepEnd};

use crate::core::measurement::{Fault, Mismatch, SumOf};
use crate::core::slo::{Fraction, Gate, Slo};
use crate::core::verdict::{Alone, BoxAtFault, Breach, Doubt, Errors, Objective, Percentile, Shortfall, Verdict};

/// Digits of a duration that a reader takes in.
const DIGITS: u32 = 3;
/// Enough for a microsecond in a week.
const EVERY_DIGIT: u32 = 12;

/// `850us`, `143ms`, `1.24s`: three significant digits, or fewer where they say the same.
pub fn duration(length: Duration) -> String {
    let us = micros(length);
    show(round(us, DIGITS), DIGITS)
}

fn micros(length: Duration) -> u64 {
    u64::try_from(length.as_micros()).unwrap_or(u64::MAX / 2)
}

/// The unit of a length and its name.
fn unit(us: u64) -> (u64, &'static str) {
    match us {
        0..1_000 => (1, "us"),
        1_000..1_000_000 => (1_000, "ms"),
        _ => (1_000_000, "s"),
    }
}

/// The smallest step that `digits` significant digits show of a length; never more than its unit.
fn grain(us: u64, digits: u32) -> u64 {
    let (unit, _) = unit(us);
    let whole_digits = (us / unit).checked_ilog10().map_or(1, |log| log + 1);
    let decimals = digits.saturating_sub(whole_digits).min(unit.ilog10());
    unit / 10_u64.pow(decimals)
}

fn round(us: u64, digits: u32) -> u64 {
    let grain = grain(us, digits);
    (us + grain / 2) / grain * grain
}

fn show(us: u64, digits: u32) -> String {
    let (unit, name) = unit(us);
    let grain = grain(us, digits);
    let width = (unit / grain).ilog10() as usize;
    if us.is_multiple_of(unit) {
        return format!("{}{name}", us / unit);
    }
    let decimals = format!("{:0width$}", us % unit / grain);
    format!("{}.{}{name}", us / unit, decimals.trim_end_matches('0'))
}

/// A length above a limit, with as many digits as it takes to show that it is, and the limit itself.
fn above(observed: Duration, limit: Duration) -> (String, String) {
    let (observed_us, limit_us) = (micros(observed), micros(limit));
    let digits = (DIGITS..EVERY_DIGIT).find(|&digits| round(observed_us, digits) > limit_us).unwrap_or(EVERY_DIGIT);
    (show(round(observed_us, digits), digits), show(limit_us, EVERY_DIGIT))
}

/// A part of a whole in per cent, two decimals at least, and as many as it takes to show that it is above a limit.
fn percent_above(part: u64, whole: u64, limit: Fraction) -> String {
    let percent = part as f64 * 100.0 / whole.max(1) as f64;
    let limit = limit.as_f64() * 100.0;
    let shown = |decimals: usize| format!("{percent:.decimals$}");
    let is_above = |text: &String| text.parse::<f64>().is_ok_and(|shown| shown > limit);
    (2..=9).map(shown).find(is_above).unwrap_or_else(|| shown(9))
}

/// `0.1` for a thousandth.
pub fn percent(fraction: Fraction) -> String {
    let text = format!("{:.7}", fraction.as_f64() * 100.0);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// `E1 p95 100ms, E1 p99 250ms, errors 0.1%, pending +1000, short 5%`: what a trial has to hold.
pub fn objectives(slo: &Slo) -> String {
    let gates = slo.series.iter().flat_map(|series| {
        let words =
            |gate: Gate| format!("{} {} {}", series.series, gate.quantile, show(micros(gate.limit), EVERY_DIGIT));
        series.gates().into_iter().map(words).collect::<Vec<_>>()
    });
    let rest = [
        format!("errors {}%", percent(slo.error_rate)),
        format!("pending +{}", slo.pending_growth),
        format!("short {}%", percent(slo.rate_tolerance)),
    ];
    gates.chain(rest).collect::<Vec<_>>().join(", ")
}

/// `E2 p95=143ms > 100ms`, `broadcast-worker pending +1240 > +1000`.
pub fn breach(breach: &Breach) -> String {
    match breach {
        Breach::Percentile(percentile) => percentile_words(percentile),
        Breach::ErrorRate(errors) => error_words(errors),
        Breach::SeriesErrors { series, errors } => format!("{series} {}", error_words(errors)),
        Breach::BacklogGrowth { durable, growth, limit } => {
            format!("{} pending {growth:+} > +{limit}", durable.durable)
        }
        Breach::DurableGone { durable } => format!("{} is gone from stream {}", durable.durable, durable.stream),
        Breach::DurableRecreated { durable } => {
            format!("{} of stream {} was deleted and created anew", durable.durable, durable.stream)
        }
    }
}

fn percentile_words(percentile: &Percentile) -> String {
    let (observed, limit) = above(percentile.observed, percentile.limit);
    format!("{} {}={observed} > {limit}", percentile.series, percentile.quantile)
}

fn error_words(errors: &Errors) -> String {
    let observed = percent_above(errors.errors, errors.attempted, errors.limit);
    format!("errors {observed}% > {}% ({} of {})", percent(errors.limit), errors.errors, errors.attempted)
}

/// Why a trial proves nothing, with the box and the knob.
pub fn doubt(doubt: &Doubt) -> String {
    match doubt {
        Doubt::Fault(fault) => self::fault(fault),
        Doubt::NothingAttempted => "no operation was released".to_owned(),
        Doubt::FewUsers { online, users } => {
            format!("only {online} of {users} users were online throughout the hold, 95% are needed")
        }
        Doubt::NoSamples { series } => format!("{series} has no samples although operations completed"),
        Doubt::SlowAlone { agent, alone } => alone_words(agent, alone),
        Doubt::PercentileByBoxes { percentile, boxes } => {
            format!("{} only with stalls of load boxes: {}", percentile_words(percentile), boxes_words(boxes))
        }
        Doubt::ErrorRateByBoxes { errors, boxes } => {
            format!("{} only with stalls of load boxes: {}", error_words(errors), boxes_words(boxes))
        }
        Doubt::SeriesErrorsByBoxes { series, errors, boxes } => {
            format!("{series} {} only with stalls of load boxes: {}", error_words(errors), boxes_words(boxes))
        }
        Doubt::BacklogUnreadable { durable, reads_at_ends: (first, last) } => format!(
            "{} backlog unreadable: {first} reads in the first sixth of the hold and {last} in the last, 3 needed",
            durable.durable
        ),
        Doubt::BacklogNotStationary { durable, growth, limit } => {
            format!(
                "{} pending {growth:+} within +{limit} but rising throughout: a longer --hold decides",
                durable.durable
            )
        }
        Doubt::BacklogStands { durable, above, limit } => format!(
            "{} pending stands {above} above rest > +{limit} and no longer grows: a limit of its stream may throw messages away",
            durable.durable
        ),
        Doubt::NeverLeft { series, quantile, limit, shortfall } => format!(
            "{series} {quantile} above {} if what never left counts as slower: {}",
            show(micros(*limit), EVERY_DIGIT),
            shortfall_words(shortfall)
        ),
        Doubt::StartsApart { last, skew, limit } => {
            let (skew, limit) = above(*skew, *limit);
            format!("the agents' holds began {skew} apart > {limit} (--max-skew), {last} last: they are not one window")
        }
        Doubt::NoHeadroom { level, carries, more_boxes } => format!(
            "{level}/s is more than the load boxes carry, {carries}/s by what they showed: it takes {more_boxes} more like the \
             largest"
        ),
        Doubt::NoHeadroomForUsers { users, carries, more_boxes } => format!(
            "{users} users are more than the load boxes carry, {carries} by what they showed: it takes {more_boxes} more like \
             the largest"
        ),
        Doubt::RateShort { due, attempted, tolerance, shortfall } => format!(
            "attempted {attempted} of {due} due, {}% short > {}%: {}",
            percent_above(due - attempted, *due, *tolerance),
            percent(*tolerance),
            shortfall_words(shortfall)
        ),
    }
}

fn alone_words(agent: &str, alone: &Alone) -> String {
    let Alone { objective, bad, of, others_bad, others, write_blocked } = alone;
    let (of_series, are) = match objective {
        Objective::Limit { series, limit } => {
            (format!("{series} operations"), format!("are above {}", show(micros(*limit), EVERY_DIGIT)))
        }
        Objective::ErrorsOf(series) => (format!("{series} operations"), "failed".to_owned()),
        Objective::Errors => ("operations".to_owned(), "failed".to_owned()),
    };
    let blocked = match write_blocked.is_zero() {
        true => String::new(),
        false => format!(", a write of it was blocked for {}", duration(*write_blocked)),
    };
    format!(
        "{bad} of agent {agent}'s {of} {of_series} {are}, and {others_bad} of the others' {others}: its link, its box or its \
         distance from the target, not the service{blocked}"
    )
}

fn shortfall_words(shortfall: &Shortfall) -> String {
    let Shortfall { saturated, underrun, capped, late } = shortfall;
    let saturated = (*saturated > 0).then(|| {
        format!("{saturated} saturated, the in-flight cap was reached (--max-in-flight): {}", boxes_words(capped))
    });
    let underrun = (*underrun > 0)
        .then(|| format!("{underrun} underrun, load boxes woke too late (add boxes): {}", boxes_words(late)));
    [saturated, underrun].into_iter().flatten().collect::<Vec<_>>().join("; ")
}

/// Boxes beyond this many are counted only.
const NAMED: usize = 3;

fn boxes_words(boxes: &[BoxAtFault]) -> String {
    let mut words: Vec<String> = boxes.iter().take(NAMED).map(box_words).collect();
    if boxes.len() > NAMED {
        words.push(format!("{} more", boxes.len() - NAMED));
    }
    words.join(", ")
}

fn box_words(spoiler: &BoxAtFault) -> String {
    let BoxAtFault { agent, operations, worst_stall, void_blocks } = spoiler;
    format!("{agent} ({operations} operations, worst stall {}, {void_blocks} void blocks)", stall(*worst_stall))
}

/// `120ms`, or that it has no bound.
pub fn stall(stall: Stall) -> String {
    match stall {
        Stall::Bounded(us) => duration(Duration::from_micros(us)),
        Stall::Unbounded => "unbounded (its client dropped replies)".to_owned(),
    }
}

/// Why a trial's figures cannot be trusted.
pub fn fault(fault: &Fault) -> String {
    match fault {
        Fault::AgentLost { agent, after, why } => {
            format!("agent {agent} was lost {} after the warmup's start: {why}", duration(*after))
        }
        Fault::CutOff { agent, length, one_of_many: false } => format!(
            "agent {agent} heard nothing from the target for {} while others were answered: its way there is cut, or the \
             server that it talks to is gone",
            duration(*length)
        ),
        Fault::CutOff { agent, length, one_of_many: true } => format!(
            "agent {agent} heard nothing from the target for {} while others were answered, as did all who talk to its server, \
             or most agents: that may be the target, or the network",
            duration(*length)
        ),
        Fault::EndedEarly { agent, end } => {
            let how = match end {
                StepEnd::Finished => "finished",
                StepEnd::Stopped => "was stopped",
                StepEnd::ShutDown => "was shut down",
                StepEnd::TargetGone => "lost its connections to the target for good",
            };
            format!("agent {agent} {how} before the trial's end")
        }
        Fault::DoesNotAddUp { agent, mismatch } => {
            format!("what agent {agent} sent does not add up: {}", mismatch_words(mismatch))
        }
    }
}

fn mismatch_words(mismatch: &Mismatch) -> String {
    match mismatch {
        Mismatch::Trial { expected, got } => format!(
            "it is of step {} trial {}, not of step {} trial {}",
            got.step, got.trial, expected.step, expected.trial
        ),
        Mismatch::Numbering { expected, got } => format!("snapshot {got} came where {expected} was next"),
        Mismatch::Shape => "a snapshot has other series or limits than the plan".to_owned(),
        Mismatch::Block { block, blocks } => format!("block {block} of a hold of {blocks}"),
        Mismatch::Implausible => "more operations than its share can be".to_owned(),
        Mismatch::NoTotals => "its totals did not come".to_owned(),
        Mismatch::AfterTotals => "more came after its totals".to_owned(),
        Mismatch::Snapshots { sent, received } => format!("{sent} snapshots sent, {received} received"),
        Mismatch::Sum { of } => {
            let part = match of {
                SumOf::Counters => "counters",
                SumOf::Warmup => "warmup counters",
                SumOf::Series => "series",
                SumOf::Strays => "foreign, duplicate and late messages",
                SumOf::Observed => "observations",
            };
            format!("the snapshots' {part} are not those of its totals")
        }
        Mismatch::Unaccounted => "operations are missing, or ended twice".to_owned(),
        Mismatch::Due { expected, got } => format!("{got} due where the schedule has {expected}"),
        Mismatch::Samples { series, counted, recorded } => {
            format!("{series} counts {counted} operations and has {recorded} samples")
        }
    }
}

/// Reasons beyond this many are counted only: a thousand lost agents are one event.
const REASONS: usize = 8;

/// The reasons of a verdict; none for a PASS.
pub fn reasons(verdict: &Verdict) -> Vec<String> {
    let mut reasons: Vec<String> = match verdict {
        Verdict::Pass => Vec::new(),
        Verdict::Trip(breaches) => breaches.iter().map(breach).collect(),
        Verdict::Inconclusive(doubts) => doubts.iter().map(doubt).collect(),
    };
    if reasons.len() > REASONS {
        let more = reasons.len() - REASONS;
        reasons.truncate(REASONS);
        reasons.push(format!("{more} more reasons"));
    }
    reasons
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::backlog::DurableName;
    use crate::core::slo::Quantile;
    use proptest::prelude::*;

    fn percentile(observed_us: u64, limit_us: u64) -> String {
        let (observed, limit) = (Duration::from_micros(observed_us), Duration::from_micros(limit_us));
        let (series, quantile) = ("E2".to_owned(), Quantile::P95);
        breach(&Breach::Percentile(Percentile { series, quantile, observed, limit, above: 9, n: 99 }))
    }

    #[test]
    fn durations_have_three_digits_and_the_unit_that_fits() {
        for (us, text) in [
            (0, "0us"),
            (850, "850us"),
            (999, "999us"),
            (1_000, "1ms"),
            (1_240, "1.24ms"),
            (1_249, "1.25ms"),
            (14_320, "14.3ms"),
            (143_000, "143ms"),
            (143_499, "143ms"),
            (999_400, "999ms"),
            (999_600, "1s"),
            (1_240_000, "1.24s"),
            (1_005_000, "1.01s"),
            (12_000_000, "12s"),
            (125_400_000, "125s"),
            (3_600_000_000, "3600s"),
        ] {
            assert_eq!(duration(Duration::from_micros(us)), text);
        }
    }

    #[test]
    fn a_percentile_just_above_its_limit_never_reads_as_equal_to_it() {
        assert_eq!(percentile(143_000, 100_000), "E2 p95=143ms > 100ms");
        assert_eq!(percentile(100_001, 100_000), "E2 p95=100.001ms > 100ms");
        assert_eq!(percentile(100_031, 100_000), "E2 p95=100.03ms > 100ms");
        assert_eq!(percentile(100_420, 100_400), "E2 p95=100.42ms > 100.4ms");
        assert_eq!(percentile(1_000_001, 1_000_000), "E2 p95=1.000001s > 1s");
        assert_eq!(percentile(1_000_400, 999_900), "E2 p95=1s > 999.9ms");
    }

    #[test]
    fn errors_and_backlogs_in_words() {
        let limit: Fraction = "0.001".parse().unwrap();
        let errors = |errors, attempted| breach(&Breach::ErrorRate(Errors { errors, attempted, limit }));
        assert_eq!(errors(1234, 10_000), "errors 12.34% > 0.1% (1234 of 10000)");
        let half =
            Breach::SeriesErrors { series: "room_create".into(), errors: Errors { errors: 1, attempted: 2, limit } };
        assert_eq!(breach(&half), "room_create errors 50.00% > 0.1% (1 of 2)");
        assert_eq!(errors(1001, 1_000_000), "errors 0.1001% > 0.1% (1001 of 1000000)");
        let durable = DurableName { stream: "CANONICAL".into(), durable: "broadcast-worker".into() };
        let growth = Breach::BacklogGrowth { durable: durable.clone(), growth: 1240, limit: 1000 };
        assert_eq!(breach(&growth), "broadcast-worker pending +1240 > +1000");
        let gone = Breach::DurableGone { durable };
        assert_eq!(breach(&gone), "broadcast-worker is gone from stream CANONICAL");
    }

    #[test]
    fn doubts_name_the_box_and_the_knob() {
        let spoiler = |agent: &str| BoxAtFault {
            agent: agent.into(),
            operations: 34,
            worst_stall: Stall::Bounded(120_000),
            void_blocks: 12,
        };
        let boxes: Vec<BoxAtFault> = ["a", "b", "c", "d", "e"].map(spoiler).into();
        let shortfall =
            Shortfall { saturated: 2000, underrun: 1000, capped: vec![spoiler("a")], late: vec![spoiler("b")] };
        let tolerance = "0.05".parse().unwrap();
        insta::assert_snapshot!(doubt(&Doubt::RateShort { due: 10_000, attempted: 7_000, tolerance, shortfall }),
            @"attempted 7000 of 10000 due, 30.00% short > 5%: 2000 saturated, the in-flight cap was reached (--max-in-flight): a (34 operations, worst stall 120ms, 12 void blocks); 1000 underrun, load boxes woke too late (add boxes): b (34 operations, worst stall 120ms, 12 void blocks)");
        let limit = "0.001".parse().unwrap();
        let errors = Errors { errors: 20, attempted: 10_000, limit };
        insta::assert_snapshot!(doubt(&Doubt::ErrorRateByBoxes { errors, boxes }),
            @"errors 0.20% > 0.1% (20 of 10000) only with stalls of load boxes: a (34 operations, worst stall 120ms, 12 void blocks), b (34 operations, worst stall 120ms, 12 void blocks), c (34 operations, worst stall 120ms, 12 void blocks), 2 more");
        let lost = Fault::AgentLost { agent: "a".into(), after: Duration::from_millis(12_345), why: "reset".into() };
        insta::assert_snapshot!(doubt(&Doubt::Fault(lost)), @"agent a was lost 12.3s after the warmup's start: reset");
    }

    proptest! {
        #[test]
        fn what_is_above_its_limit_reads_so(limit_us in 1_u64..60_000_000, above_us in 1_u64..1_000_000) {
            let text = percentile(limit_us + above_us, limit_us);
            let (observed, limit) = text.trim_start_matches("E2 p95=").split_once(" > ").unwrap();
            let read = |text: &str| humantime::parse_duration(text).ok();
            let read = |text: &str| match text.split_once('.') {
                None => read(text),
                Some((whole, rest)) => {
                    let unit: String = rest.chars().skip_while(char::is_ascii_digit).collect();
                    let digits = rest.trim_end_matches(|c: char| !c.is_ascii_digit());
                    let part = read(&format!("1{unit}"))? * digits.parse().ok()? / 10_u32.pow(digits.len() as u32);
                    Some(read(&format!("{whole}{unit}"))? + part)
                }
            };
            prop_assert_eq!(read(limit), Some(Duration::from_micros(limit_us)));
            prop_assert!(read(observed) > read(limit), "{}", text);
        }
    }
}
