//! In what two runs differ before anything was measured.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// One thing that is not the same in both runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// "stream S: max_age".
    pub what: String,
    /// In the first run.
    pub before: String,
    /// In the second.
    pub after: String,
}

/// Settings of a consumer that are drawn anew each time it is made, and change no answer.
const DRAWN: [&str; 3] = ["deliver_subject", "opt_start_seq", "opt_start_time"];

/// The differences between two setups, which name things and their settings. What only one of them looked at differs.
pub fn differences(
    before: &BTreeMap<String, Map<String, Value>>,
    after: &BTreeMap<String, Map<String, Value>>,
) -> Vec<Difference> {
    let mut things: Vec<&String> = before.keys().chain(after.keys()).collect();
    things.sort_unstable();
    things.dedup();
    things.into_iter().flat_map(|thing| of_thing(thing, before.get(thing), after.get(thing))).collect()
}

fn of_thing(thing: &str, before: Option<&Map<String, Value>>, after: Option<&Map<String, Value>>) -> Vec<Difference> {
    let (Some(one), Some(other)) = (before, after) else {
        let words =
            |there: Option<&Map<String, Value>>| if there.is_some() { "there" } else { "not looked at" }.to_owned();
        return vec![Difference { what: thing.to_owned(), before: words(before), after: words(after) }];
    };
    let mut names: Vec<&String> =
        one.keys().chain(other.keys()).filter(|name| !DRAWN.contains(&name.as_str())).collect();
    names.sort_unstable();
    names.dedup();
    let words = |value: Option<&Value>| value.map_or("not set".to_owned(), Value::to_string);
    let differs = names.into_iter().filter(|&name| one.get(name) != other.get(name));
    differs
        .map(|name| Difference {
            what: format!("{thing}: {name}"),
            before: words(one.get(name)),
            after: words(other.get(name)),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn setup(things: &[(&str, Value)]) -> BTreeMap<String, Map<String, Value>> {
        things.iter().map(|(thing, value)| ((*thing).to_owned(), value.as_object().unwrap().clone())).collect()
    }

    fn words(before: &[(&str, Value)], after: &[(&str, Value)]) -> Vec<String> {
        let differences = differences(&setup(before), &setup(after));
        differences.into_iter().map(|d| format!("{} {} {}", d.what, d.before, d.after)).collect()
    }

    #[test]
    fn every_setting_that_differs_is_named_with_both_values() {
        let stream = |replicas: u32| ("stream S", json!({"num_replicas": replicas, "storage": "file"}));
        let durable = |inbox: &str| ("durable S/D", json!({"max_ack_pending": 1000, "deliver_subject": inbox}));
        assert!(words(&[stream(1), durable("_INBOX.a")], &[stream(1), durable("_INBOX.b")]).is_empty());
        assert_eq!(words(&[stream(1)], &[stream(3)]), ["stream S: num_replicas 1 3"]);
        assert_eq!(words(&[stream(1), durable("x")], &[stream(1)]), ["durable S/D there not looked at"]);
        assert_eq!(
            words(
                &[("server", json!({"version": "2.14.0"}))],
                &[("server", json!({"version": "2.14.1", "cluster": "c"}))]
            ),
            ["server: cluster not set \"c\"", "server: version \"2.14.0\" \"2.14.1\""]
        );
    }
}
