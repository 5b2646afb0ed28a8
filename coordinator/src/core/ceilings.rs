//! What each load box was found to carry against a null target, and the text that keeps it for the splits of later runs.

use std::collections::BTreeMap;

use plimsoll_common::calibration::Calibration;
use plimsoll_common::units::Rate;
use serde::{Deserialize, Serialize};

/// Of what a box can do by itself it is asked for no more than this: at its very ceiling it would be late.
const MARGIN: f64 = 0.7;
/// A box that releases less than this of what is due cannot do what its processor time promises: something holds it back.
const IN_TIME: f64 = 0.99;

/// The most that each agent is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ceilings {
    /// What it was found for.
    pub workload: String,
    /// By the agent's name, as `--agents` has it.
    pub agents: BTreeMap<String, Rate>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    workload: String,
    ceilings: BTreeMap<String, String>,
}

impl Ceilings {
    /// Reads them again.
    ///
    /// # Errors
    /// In words: where the text is no such list.
    pub fn parse(text: &str) -> Result<Self, String> {
        let kept: Kept = toml::from_str(text).map_err(|error| {
            let line = error.span().map(|span| text[..span.start].matches('\n').count() + 1);
            let place = line.map(|line| format!("line {line}: ")).unwrap_or_default();
            format!("{place}{}", error.message())
        })?;
        let rate = |(agent, rate): (String, String)| match rate.parse() {
            Ok(rate) => Ok((agent, rate)),
            Err(_) => Err(format!("the ceiling of {agent}: got '{rate}', expected a rate such as \"5000\"")),
        };
        let agents: BTreeMap<String, Rate> = kept.ceilings.into_iter().map(rate).collect::<Result<_, _>>()?;
        if agents.is_empty() {
            return Err("it has the ceiling of no agent".to_owned());
        }
        Ok(Self { workload: kept.workload, agents })
    }

    /// As a file keeps them.
    pub fn to_text(&self) -> String {
        let ceilings = self.agents.iter().map(|(agent, rate)| (agent.clone(), rate.to_string())).collect();
        let kept = Kept { workload: self.workload.clone(), ceilings };
        let toml = toml::to_string(&kept).expect("names and rates are valid TOML");
        format!("# By `plimsoll calibrate`: the most that each agent is asked for, in requests per second.\n{toml}")
    }
}

/// The most that a box is to be asked for, by what it did against a null target: a part of what its processor time promises,
/// or where it was too late for much of half of that, of what it released in time.
pub fn usable(found: &Calibration) -> Rate {
    let in_time = if found.due == 0 { 0.0 } else { found.released as f64 / found.due as f64 };
    let carries = if in_time >= IN_TIME { found.ceiling.as_f64() } else { found.paced.as_f64() * in_time };
    Rate::from_milli(((carries * MARGIN * 1000.0) as u64).max(1)).expect("at least one")
}

#[cfg(test)]
mod tests {
    use super::*;
    use plimsoll_common::histogram::LatencyHistogram;

    fn check(due: u64, released: u64) -> String {
        let rate = |per_second| Rate::per_second(per_second).unwrap();
        let found = Calibration {
            ceiling: rate(100_000),
            paced: rate(50_000),
            due,
            released,
            lateness: LatencyHistogram::new(),
        };
        usable(&found).to_string()
    }

    #[test]
    fn a_box_is_asked_for_a_part_of_what_it_did_and_not_of_what_it_promises() {
        assert_eq!(check(50_000, 50_000), "70000");
        assert_eq!(check(50_000, 49_500), "70000");
        assert_eq!(check(50_000, 49_000), "34300");
        assert_eq!(check(50_000, 1_000), "700");
        assert_eq!((check(50_000, 0), check(0, 0)), ("0.001".to_owned(), "0.001".to_owned()));
    }

    #[test]
    fn a_file_is_read_as_it_was_written_and_a_bad_one_says_where() {
        let agents = [("box-1:7700", "70000"), ("10.0.0.2:7700", "512.5")];
        let agents = agents.map(|(agent, rate)| (agent.to_owned(), rate.parse().unwrap()));
        let ceilings = Ceilings { workload: "messages".to_owned(), agents: agents.into() };
        let text = ceilings.to_text();
        insta::assert_snapshot!(text, @r#"
        # By `plimsoll calibrate`: the most that each agent is asked for, in requests per second.
        workload = "messages"

        [ceilings]
        "10.0.0.2:7700" = "512.5"
        "box-1:7700" = "70000"
        "#);
        assert_eq!(Ceilings::parse(&text), Ok(ceilings));
        for (text, words) in [
            ("workload = \"messages\"\n[ceilings]\n", "it has the ceiling of no agent"),
            (
                "workload = \"messages\"\n[ceilings]\n\"a:1\" = \"fast\"\n",
                "the ceiling of a:1: got 'fast', expected a rate",
            ),
            ("workload = \"messages\"\n[ceilings]\n\"a:1\" = 5\n", "line 3: invalid type: integer `5`"),
            ("workload = \"messages\"\nceiling = 5\n[ceilings]\n\"a:1\" = \"5\"\n", "line 2: unknown field `ceiling`"),
            ("[ceilings]\n\"a:1\" = \"5\"\n", "missing field `workload`"),
        ] {
            let error = Ceilings::parse(text).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
    }
}
