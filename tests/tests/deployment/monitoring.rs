//! Dashboards and alerts name only what agent and coordinator serve, and Prometheus looks where Compose puts it.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, ensure};
use serde_json::Value;

use super::in_checkout;

const DASHBOARD: &str = "deploy/monitoring/grafana/dashboards/plimsoll.json";

/// Names of metrics, each with its labels and their values.
type Served = BTreeMap<String, BTreeMap<String, BTreeSet<String>>>;

fn dashboard() -> anyhow::Result<Value> {
    Ok(serde_json::from_str(&std::fs::read_to_string(in_checkout(DASHBOARD))?)?)
}

fn yaml(path: &str) -> anyhow::Result<Value> {
    Ok(serde_saphyr::from_str(&std::fs::read_to_string(in_checkout(path))?)?)
}

/// Every expression of the dashboard and the alerts.
fn expressions() -> anyhow::Result<Vec<String>> {
    let (dashboard, rules) = (dashboard()?, yaml("deploy/monitoring/rules.yml")?);
    let of = |value: &Value, key: &str| value[key].as_array().cloned().unwrap_or_default();
    let panels = of(&dashboard, "panels").iter().flat_map(|panel| of(panel, "targets")).collect::<Vec<_>>();
    let alerts = of(&rules, "groups").iter().flat_map(|group| of(group, "rules")).collect::<Vec<_>>();
    ensure!(panels.len() >= 15 && alerts.len() >= 3, "{} panels, {} alerts", panels.len(), alerts.len());
    let text =
        |with: &Value| with["expr"].as_str().map(str::to_owned).with_context(|| format!("no expression: {with}"));
    panels.iter().chain(&alerts).map(text).collect()
}

fn is_of_a_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// What pages serve: `name{key="value"} 1` per line.
fn served(pages: &[&str]) -> Served {
    let mut served = Served::new();
    for line in pages.iter().flat_map(|page| page.lines()).filter(|line| !line.starts_with('#')) {
        let sample = line.rsplit_once(' ').map_or(line, |(sample, _)| sample);
        let (name, rest) = sample.split_once('{').unwrap_or((sample, ""));
        let labels = served.entry(name.to_owned()).or_default();
        for pair in rest.trim_end_matches('}').split(',').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            labels.entry(key.to_owned()).or_default().insert(value.trim_matches('"').to_owned());
        }
    }
    served
}

/// What the dashboard lets its reader choose: labels that Prometheus gives pods, by the variables for them.
const CHOSEN: [(&str, &str); 2] = [("namespace", "~\"$namespace\""), ("run_name", "~\"$run\"")];

/// The metrics of an expression, each with its matchers: labels, and what stands behind `=`.
fn selectors(expression: &str) -> Vec<(&str, Vec<(&str, &str)>)> {
    let starts = expression.match_indices("plimsoll_").map(|(at, _)| at);
    let starts = starts.filter(|&at| !expression[..at].ends_with(is_of_a_name));
    let selector = |at: usize| {
        let rest = &expression[at..];
        let name = &rest[..rest.find(|c| !is_of_a_name(c)).unwrap_or(rest.len())];
        let within = rest[name.len()..].strip_prefix('{').and_then(|rest| rest.split_once('}'));
        let matchers = within.into_iter().flat_map(|(within, _)| within.split(',').map(str::trim));
        (name, matchers.map(|matcher| matcher.split_once('=').unwrap_or((matcher, ""))).collect())
    };
    starts.map(selector).collect()
}

/// What of an expression nobody serves.
fn unknown(expression: &str, served: &Served) -> Vec<String> {
    let mut unknown = Vec::new();
    for (name, matchers) in selectors(expression) {
        let Some(labels) = served.get(name) else {
            unknown.push(name.to_owned());
            continue;
        };
        for (key, values) in matchers.into_iter().filter(|matcher| !CHOSEN.contains(matcher)) {
            for value in values.trim_start_matches('~').trim_matches('"').split('|') {
                if !labels.get(key).is_some_and(|known| known.contains(value)) {
                    unknown.push(format!("{name}{{{key}={value}}}"));
                }
            }
        }
        // Grouping is by labels of this metric, or by where it was scraped.
        for grouping in expression.split(" by (").skip(1).filter_map(|rest| rest.split_once(')')) {
            let keys = grouping.0.split(',').map(str::trim).filter(|key| *key != "instance");
            unknown.extend(keys.filter(|key| !labels.contains_key(*key)).map(|key| format!("{name} by {key}")));
        }
    }
    unknown
}

/// Fails where dashboards or alerts name what these pages, of agents and coordinators in a hold, do not serve.
pub fn name_only_what_is_served(pages: &[&str]) -> anyhow::Result<()> {
    let served = served(pages);
    for expression in expressions()? {
        let unknown = unknown(&expression, &served);
        ensure!(unknown.is_empty(), "{expression}: nobody serves {unknown:?} of {served:#?}");
    }
    let named: String = expressions()?.concat();
    let shown = |name: &&String| named.contains(name.trim_end_matches("_sum").trim_end_matches("_count"));
    let hidden: Vec<&String> = served.keys().filter(|name| !shown(name)).collect();
    ensure!(hidden == ["plimsoll_trial"], "served, and nowhere shown: {hidden:?}");
    Ok(())
}

#[test]
fn what_nobody_serves_is_found() {
    let served = served(&["# HELP x\nplimsoll_a{kind=\"x\"} 1\nplimsoll_a{kind=\"y\"} 1\nplimsoll_b 2\n"]);
    assert!(unknown("sum by (instance, kind) (rate(plimsoll_a{kind=~\"x|y\"}[1m])) / plimsoll_b", &served).len() == 1);
    assert!(unknown("sum by (kind) (plimsoll_a{kind=\"x\"})", &served).is_empty());
    assert_eq!(unknown("plimsoll_c", &served), ["plimsoll_c"]);
    assert_eq!(unknown("plimsoll_a{kind=\"z\"}", &served), ["plimsoll_a{kind=z}"]);
    assert_eq!(unknown("sum by (who) (plimsoll_b)", &served), ["plimsoll_b by who"]);
}

#[test]
fn the_dashboard_is_whole() -> anyhow::Result<()> {
    let dashboard = dashboard()?;
    let panels = dashboard["panels"].as_array().context("panels")?;
    let ids: BTreeSet<u64> = panels.iter().filter_map(|panel| panel["id"].as_u64()).collect();
    assert_eq!(ids.len(), panels.len(), "every panel has an id of its own");
    let variables = dashboard["templating"]["list"].as_array().context("variables")?;
    let names: Vec<&Value> = variables.iter().map(|variable| &variable["name"]).collect();
    assert_eq!(names, ["datasource", "namespace", "run"]);
    for panel in panels.iter().filter(|panel| panel["type"] != "row") {
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{panel}");
        assert!(panel["targets"].as_array().is_some_and(|targets| !targets.is_empty()), "{panel}");
    }
    // They lie side by side and never over each other.
    let area = |panel: &Value| ["x", "y", "w", "h"].map(|key| panel["gridPos"][key].as_u64().unwrap_or(u64::MAX));
    for (index, one) in panels.iter().enumerate() {
        let [x, y, w, h] = area(one);
        assert!(x + w <= 24, "{one}");
        for other in &panels[index + 1..] {
            let [ox, oy, ow, oh] = area(other);
            let overlap = x < ox + ow && ox < x + w && y < oy + oh && oy < y + h;
            assert!(!overlap, "{} lies over {}", one["title"], other["title"]);
        }
    }
    Ok(())
}

/// Metrics of an expression that are those of all runs, whatever run was chosen.
fn of_all_runs(expression: &str) -> Vec<&str> {
    let selectors = selectors(expression).into_iter();
    let of_all = selectors.filter(|(_, matchers)| !CHOSEN.iter().all(|chosen| matchers.contains(chosen)));
    of_all.map(|(name, _)| name).collect()
}

#[test]
fn panels_show_the_run_that_was_chosen_and_where_there_is_none_to_choose_all() -> anyhow::Result<()> {
    let dashboard = dashboard()?;
    let panels = dashboard["panels"].as_array().context("panels")?;
    for target in panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten() {
        let expression = target["expr"].as_str().context("an expression")?;
        assert_eq!(of_all_runs(expression), Vec::<&str>::new(), "{expression}");
    }
    let scraped = yaml("deploy/monitoring/prometheus-kubernetes.yml")?;
    let given = scraped["scrape_configs"][0]["relabel_configs"].as_array().context("labels of pods")?;
    let variables = dashboard["templating"]["list"].as_array().context("variables")?;
    for (label, matcher) in CHOSEN {
        assert!(given.iter().any(|rule| rule["target_label"] == label), "pods get no {label}");
        let of_label = |variable: &&Value| {
            variable["query"]["query"].as_str().is_some_and(|query| query.ends_with(&format!(", {label})")))
        };
        let variable = variables.iter().find(of_label).with_context(|| format!("no variable of {label}"))?;
        assert_eq!(matcher, format!("~\"${}\"", variable["name"].as_str().unwrap_or_default()));
        // In Compose and on boxes nothing has these labels: `.+`, or a list of what there is, would show nothing there.
        assert_eq!((&variable["includeAll"], &variable["allValue"]), (&Value::Bool(true), &".*".into()), "{variable}");
        assert_eq!(variable["current"]["value"], "$__all", "{variable}");
    }
    assert_eq!(of_all_runs("plimsoll_a / plimsoll_b{run_name=~\"$run\", namespace=~\"$namespace\"}"), ["plimsoll_a"]);
    assert_eq!(of_all_runs("plimsoll_a{namespace=~\"$namespace\", run_name=~\"x\"}"), ["plimsoll_a"]);
    Ok(())
}

/// What of a panel shows something else than it should at another scrape interval, or once what it shows is over.
fn depends_on_when_it_is_looked_at(panel: &Value) -> Vec<String> {
    let mut wrong = Vec::new();
    for target in panel["targets"].as_array().into_iter().flatten() {
        let expression = target["expr"].as_str().unwrap_or_default();
        let ranges = expression.split('[').skip(1).filter_map(|rest| rest.split(']').next());
        // A fixed one has too few samples in it where Prometheus scrapes less often than here.
        wrong.extend(ranges.filter(|range| *range != "$__rate_interval").map(|range| format!("[{range}]")));
        // Over a range, one value for each label that there ever was is shown.
        let by_label = target["legendFormat"].as_str().is_some_and(|legend| legend.contains("{{"));
        if panel["type"] == "stat" && by_label && target["instant"] != true {
            wrong.push(format!("{expression} over a range"));
        }
    }
    wrong
}

#[test]
fn panels_show_the_same_at_any_scrape_interval_and_no_phase_that_is_over() -> anyhow::Result<()> {
    let dashboard = dashboard()?;
    let panels = dashboard["panels"].as_array().context("panels")?;
    for panel in panels {
        assert_eq!(depends_on_when_it_is_looked_at(panel), Vec::<String>::new(), "{}", panel["title"]);
    }
    assert!(panels.iter().any(|panel| panel.to_string().contains("[$__rate_interval]")));
    let with = |kind: &str, expr: &str| {
        let target = serde_json::json!({"expr": expr, "legendFormat": "{{phase}}"});
        depends_on_when_it_is_looked_at(&serde_json::json!({"type": kind, "targets": [target]}))
    };
    assert_eq!(with("timeseries", "rate(a[10s]) / rate(b[$__rate_interval])"), ["[10s]"]);
    assert_eq!(with("stat", "a"), ["a over a range"]);
    Ok(())
}

#[test]
fn prometheus_and_grafana_look_where_compose_puts_things() -> anyhow::Result<()> {
    let compose = yaml("deploy/compose.yaml")?;
    let prometheus = yaml("deploy/monitoring/prometheus.yml")?;
    for job in prometheus["scrape_configs"].as_array().context("jobs")? {
        let found = &job["dns_sd_configs"][0];
        let (name, port) = (found["names"][0].as_str().context("a name")?, found["port"].as_u64().context("a port")?);
        let command = compose["services"][name]["command"].as_array().with_context(|| format!("no service {name}"))?;
        let listens = format!("--metrics-listen=0.0.0.0:{port}");
        assert!(command.iter().any(|argument| *argument == listens.as_str()), "{name}: {command:?}");
    }
    let source = yaml("deploy/monitoring/grafana/provisioning/datasources/prometheus.yaml")?;
    assert_eq!(source["datasources"][0]["url"], "http://prometheus:9090");
    let provider = yaml("deploy/monitoring/grafana/provisioning/dashboards/plimsoll.yaml")?;
    let path = provider["providers"][0]["options"]["path"].as_str().context("a path")?;
    let volumes = compose["services"]["grafana"]["volumes"].as_array().context("volumes")?;
    let mounted = volumes.iter().filter_map(Value::as_str).find(|volume| volume.contains(&format!(":{path}:")));
    let from = mounted.and_then(|volume| volume.split(':').next()).context("the dashboards are mounted")?;
    assert!(in_checkout("deploy").join(from).join("plimsoll.json").exists());
    Ok(())
}
