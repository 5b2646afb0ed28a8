//! A search in words: its answer, what the answer rests on, and the trail that led there.

use std::fmt::Write as _;
use std::time::Duration;

use super::words;
use crate::core::answer::Ending;
use crate::core::search::Search;
use crate::core::search::conclusion::{Broken, Conclusion, FrontierEntry, SearchDoubt, Thin};
use crate::core::search::estimate::Estimate;
use crate::core::search::evidence::Judgement;
use crate::core::search::hint::Hint;
use crate::core::search::outcome::{Limits, Signal};
use crate::core::search::plan::{Bound as HighestBy, Levels, PROBE_OPEN, SearchPlan};
use crate::core::search::trail::{Bound, Bounds, Outcome, TrailEntry, Why};

/// The last lines of a report of a search: the ANSWER, what it rests on, and what limits it.
pub fn answer_lines(search: &Search, of: &str, ending: &Ending) -> String {
    let Some(conclusion) = &search.concluded() else { return unfinished(search, of, ending) };
    let mut lines = vec![answer(search, conclusion, of)];
    lines.extend(why_not(search, conclusion));
    lines.extend(conclusion.passed.map(|passed| {
        let (held, rarer) = (words::duration(passed.held), words::duration(passed.cannot_exclude()));
        format!("Held: {} for {held}; what comes more rarely than once in {rarer} may not have come", passed.level)
    }));
    lines.extend(thin(conclusion));
    if let Some(tripped) = &conclusion.tripped {
        let broke: Vec<String> = tripped.broke.iter().map(broken).collect();
        lines.push(format!("Next limit: {} at {}", broke.join("; "), tripped.level));
    }
    if conclusion.contradictions > 0 {
        lines.push(format!("Contradictions: {}, each visited again", conclusion.contradictions));
    }
    lines.extend(conclusion.frontier.iter().map(frontier));
    if search.conclusion().is_none() {
        lines.push(format!("Frontier: {}", ended_early(ending)));
    }
    lines.join("\n")
}

/// What too few operations leave open; the worst first.
fn thin(conclusion: &Conclusion) -> Option<String> {
    const NAMED: usize = 3;
    let mut thin = conclusion.thin.clone();
    thin.sort_by(|a, b| b.at_most.total_cmp(&a.at_most));
    let word = |thin: &Thin| {
        format!(
            "{} of {}, up to {} may be",
            signal(&thin.signal),
            thin.operations,
            percent((thin.at_most * 1000.0).ceil() / 1000.0)
        )
    };
    let mut words: Vec<String> = thin.iter().take(NAMED).map(word).collect();
    words.extend((thin.len() > NAMED).then(|| format!("{} more", thin.len() - NAMED)));
    (!words.is_empty()).then(|| format!("Too few to show that they hold, though none broke: {}", words.join("; ")))
}

fn answer(search: &Search, conclusion: &Conclusion, of: &str) -> String {
    let confidence = percent(search.plan().confidence);
    let what = what(search);
    let ends = (conclusion.passed.map(|passed| passed.level), conclusion.tripped.as_ref().map(|tripped| tripped.level));
    let inconclusive = if conclusion.is_conclusive() { "" } else { "INCONCLUSIVE, " };
    match ends {
        (Some(passed), Some(tripped)) if conclusion.is_conclusive() => {
            format!("ANSWER: {what} = {passed} (between {passed} and {tripped} at {confidence}, {of})")
        }
        (Some(passed), Some(tripped)) => {
            format!("ANSWER: {what} >= {passed} ({inconclusive}between {passed} and {tripped} at {confidence}, {of})")
        }
        (Some(passed), None) => {
            format!("ANSWER: {what} >= {passed} ({inconclusive}nothing above it was shown to trip, {of})")
        }
        (None, Some(tripped)) => {
            format!("ANSWER: no level passed ({inconclusive}below {tripped} at {confidence}, {of})")
        }
        (None, None) => format!("ANSWER: no level passed ({inconclusive}nothing was shown, {of})"),
    }
}

/// What is looked for.
fn what(search: &Search) -> &'static str {
    match search.plan().levels {
        Levels::Rates => "max RPS",
        Levels::Users(_) => "N",
    }
}

fn why_not(search: &Search, conclusion: &Conclusion) -> Option<String> {
    let doubt = conclusion.doubt.as_ref()?;
    let (precision, unit) = (percent(search.plan().precision), search.plan().levels.unit());
    let more = match conclusion.estimate {
        Estimate::More(more) if more > Duration::ZERO => {
            format!("; {precision} would take about {} more", rough(more))
        }
        Estimate::More(_) | Estimate::Unknown => String::new(),
    };
    Some(format!(
        "Why: {}",
        match doubt {
            SearchDoubt::OutOfTime => {
                format!("--max-time {} was up{more}", humantime::format_duration(search.plan().max_time))
            }
            SearchDoubt::TooCoarse => format!("the time was too short for --precision {precision}{more}"),
            SearchDoubt::FleetTooSmall { highest } => {
                format!("nothing tripped up to {highest}{unit}, {}", highest_words(search.plan()))
            }
            SearchDoubt::UsedUp { needed, left } => format!(
                "there is too little left of what operations use up: the next trial takes {needed} operations of an agent that has \
                 {left} left; take a larger --preset, a coarser --precision or a higher --from"
            ),
            SearchDoubt::NothingPasses { lowest } => format!("over a limit at {lowest}{unit} already"),
            SearchDoubt::NotTrusted { why } => format!("trial after trial could not be used: {why}"),
            SearchDoubt::Boxes { level } => {
                format!(
                    "at {level}{unit} stalls of load boxes hide what the service does, or what never left: add boxes, quieter ones, \
                     or raise --max-in-flight where that was reached"
                )
            }
        }
    ))
}

/// What the highest level of a search is.
fn highest_words(plan: &SearchPlan) -> &'static str {
    match plan.levels {
        Levels::Rates => "the most that these agents can or may send: add agents",
        Levels::Users(users) => match users.bound {
            HighestBy::Seeded => {
                "all that the target was seeded for: seed it for more and pass their number as --users"
            }
            HighestBy::Connections => {
                "the most that --max-connections, or the agents' own, allow: raise it, or add agents"
            }
            HighestBy::Fleet => "the most that these agents can drive: add agents",
        },
    }
}

fn unfinished(search: &Search, of: &str, ending: &Ending) -> String {
    let word = ended_early(ending);
    match search.bounds() {
        Bounds { below: Some(Bound { level, confirmed: true }), .. } => {
            format!("ANSWER: {} >= {level} ({word}: a lower bound, {of})", what(search))
        }
        _ => format!("ANSWER: no level passed ({word} before one was held long enough, {of})"),
    }
}

fn ended_early(ending: &Ending) -> &'static str {
    if *ending == Ending::Aborted { "ABORTED" } else { "not completed" }
}

fn signal(signal: &Signal) -> String {
    match signal {
        Signal::Percentile { series, quantile, limit } => format!("{series} {quantile} {}", words::duration(*limit)),
        Signal::ErrorRate => "error rate".to_owned(),
        Signal::Backlog(name) => format!("{} pending", name.durable),
    }
}

fn broken(broken: &Broken) -> String {
    match &broken.signal {
        Signal::Percentile { series, quantile, limit } => format!(
            "{series} {quantile}: {} above {} > {}",
            percent(broken.observed),
            words::duration(*limit),
            percent(broken.allowed)
        ),
        Signal::ErrorRate => format!("errors {} > {}", percent(broken.observed), percent(broken.allowed)),
        Signal::Backlog(name) => {
            format!("{} pending {:+.1}/s > +{:.1}/s", name.durable, broken.observed, broken.allowed)
        }
    }
}

fn frontier(entry: &FrontierEntry) -> String {
    let level = |level: Option<plimsoll_common::units::Rate>| level.map_or("?".to_owned(), |level| level.to_string());
    let coarse = if entry.is_precise { "" } else { " (not to the asked precision)" };
    format!(
        "Frontier: {} holds at {}, breaks at {}{coarse}",
        signal(&entry.signal),
        level(entry.holds),
        level(entry.breaks)
    )
}

/// `5%`, `0.1%`.
pub fn percent(part: f64) -> String {
    let text = format!("{:.3}", part * 100.0);
    format!("{}%", text.trim_end_matches('0').trim_end_matches('.'))
}

fn rough(length: Duration) -> String {
    let seconds = length.as_secs();
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds.div_ceil(60)),
        _ => format!("{}h", seconds.div_ceil(3600)),
    }
}

/// Every trial: why it was chosen, what it showed, and the bounds after it.
pub fn trail_lines(search: &Search) -> Vec<String> {
    search.trail().iter().map(|entry| trail_line(entry, search.plan())).collect()
}

/// One trial of the trail.
pub fn trail_line(entry: &TrailEntry, plan: &SearchPlan) -> String {
    let limits = &plan.limits;
    let mut line = format!(
        "trial {} {}{} {} ({})",
        entry.trial.number + 1,
        entry.trial.level,
        plan.levels.unit(),
        words::duration(entry.held),
        why(&entry.trial.why)
    );
    let shown = |(limit, value): (usize, &Option<f64>)| {
        let value = (*value)?;
        let is_slope = limit >= limits.fractions.len();
        let value = if is_slope { format!("{value:+.1}/s") } else { percent(value) };
        Some(format!("{} {value}", signal(&limits.signal(limit))))
    };
    // What a probe leaves out for lack of room says nothing of the service.
    let entry_showed = if entry.trial.why == Why::Probe { &[][..] } else { &entry.showed };
    let showed: Vec<String> = entry_showed.iter().enumerate().filter_map(shown).collect();
    let colon = if showed.is_empty() { "" } else { ": " };
    let _ = write!(line, "{colon}{} -> {}", showed.join(", "), result(&entry.result, limits));
    if entry.blocks.1 > 0 {
        let _ = write!(line, ", {} of {} blocks void", entry.blocks.1, entry.blocks.0);
    }
    if let Some(fault) = &entry.fault {
        let _ = write!(line, ", not used: {fault}");
    }
    if !entry.sent_back.is_empty() {
        let levels: Vec<String> = entry.sent_back.iter().map(ToString::to_string).collect();
        let _ = write!(line, ", contradicting each other and visited again: {}", levels.join(", "));
    }
    let _ = write!(line, "; now {}", bounds(entry.bounds));
    line
}

fn why(why: &Why) -> String {
    match why {
        Why::Probe => format!("probe with {PROBE_OPEN} operations open at once: where to begin?"),
        Why::First => "where to begin".to_owned(),
        Why::Climb => "nothing over a limit before, so higher".to_owned(),
        Why::Descend => "nothing under every limit yet, so half".to_owned(),
        Why::Capacity { served } => format!("overloaded, the service carried {served:.0}/s"),
        Why::Bisect => "between a level under every limit and one over".to_owned(),
        Why::Low(pair) => format!("lower of {} and {}: does it pass?", pair.low, pair.high),
        Why::High(pair) => format!("upper of {} and {}: does it trip?", pair.low, pair.high),
        Why::Soak => "soak before it may be the answer".to_owned(),
    }
}

fn judgement(judgement: Judgement) -> &'static str {
    match judgement {
        Judgement::Pass => "PASS",
        Judgement::Trip => "TRIP",
        Judgement::Undecided => "undecided",
    }
}

fn result(result: &Outcome, limits: &Limits) -> String {
    match result {
        Outcome::Nothing => "nothing".to_owned(),
        Outcome::Begin(from) => format!("begin at {from}/s"),
        Outcome::Hint(Hint::Under) => "hint: under every limit".to_owned(),
        Outcome::Hint(Hint::Behind(part)) => {
            format!("hint: under every limit yet, but {:.1}% of what came in was left undone", part * 100.0)
        }
        Outcome::Hint(Hint::Unclear) => "hint: unclear, the load boxes stalled".to_owned(),
        Outcome::Hint(Hint::Over(over)) => {
            let names: Vec<String> = over.iter().map(|&limit| signal(&limits.signal(limit))).collect();
            format!("hint: over {}", names.join(", "))
        }
        Outcome::Judged(judged) => judgement(*judged).to_owned(),
        Outcome::Soaked { held, judged } => {
            format!("soak {}, {}", if *held { "held" } else { "failed" }, judgement(*judged))
        }
    }
}

fn bounds(bounds: Bounds) -> String {
    let bound = |bound: Option<Bound>, none: &str| match bound {
        None => none.to_owned(),
        Some(Bound { level, confirmed: true }) => level.to_string(),
        Some(Bound { level, confirmed: false }) => format!("{level} (hint)"),
    };
    format!("between {} and {}", bound(bounds.below, "nothing"), bound(bounds.above, "anything"))
}
