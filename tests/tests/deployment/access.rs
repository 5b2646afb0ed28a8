//! Who reaches whom in manifests, and what agents may drive: nobody and nothing but what the run needs.

use std::collections::BTreeSet;

use anyhow::{Context as _, bail, ensure};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::api::networking::v1::{NetworkPolicyIngressRule, NetworkPolicySpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use plimsoll_tests::harness::processes::Program;

use super::objects::{Brought, Labels, Objects, is_selected, labels, match_labels, port_of};

const COMPONENT: &str = "app.kubernetes.io/component";

impl Objects {
    /// What an agent may drive is what the plan has it drive, and nothing else.
    pub(super) fn agents_may_drive_the_target(&self) -> anyhow::Result<()> {
        let plans = self.config_maps.values().filter_map(|map| map.data.as_ref()?.get("plan.toml"));
        for plan in plans {
            let plan: toml::Table = toml::from_str(plan)?;
            let driven = plan.get("nats-url").and_then(toml::Value::as_str).context("a plan without nats-url")?;
            let driven: BTreeSet<&str> = driven.split(',').collect();
            for (name, _, container) in self.containers()? {
                if container.command.as_deref() != Some(&["plimsoll-agent".to_owned()]) {
                    continue;
                }
                let arguments = container.args.iter().flatten();
                let allowed: BTreeSet<&str> =
                    arguments.filter_map(|argument| argument.strip_prefix("--allow-target=")).collect();
                ensure!(allowed == driven, "{name} may drive {allowed:?}, and the plan has it drive {driven:?}");
            }
        }
        Ok(())
    }

    /// Where a plan waits for a number of agents, so many are made, each of which may fail alone, and on so many nodes where no two
    /// share one.
    pub(super) fn agents_are_as_many_as_are_waited_for(&self) -> anyhow::Result<()> {
        let plans = self.config_maps.values().filter_map(|map| map.data.as_ref()?.get("plan.toml"));
        let agents = |name: &str| name.ends_with("-agents");
        for plan in plans {
            let plan: toml::Table = toml::from_str(plan)?;
            let waited =
                plan.get("wait-agents").and_then(toml::Value::as_str).context("a plan that waits for nobody")?;
            let waited: i32 = waited.parse().with_context(|| format!("wait-agents: {waited}"))?;
            let mut made = Vec::new();
            for spec in self.jobs.iter().filter(|(name, _)| agents(name)).filter_map(|(_, job)| job.spec.as_ref()) {
                made.extend([spec.completions, spec.parallelism, spec.max_failed_indexes]);
            }
            let sets = self.stateful_sets.iter().filter(|(name, _)| agents(name));
            made.extend(sets.filter_map(|(_, set)| set.spec.as_ref()).map(|spec| spec.replicas));
            ensure!(!made.is_empty(), "no agents are made");
            for (_, template) in self.templates().into_iter().filter(|(name, _)| agents(name)) {
                let spread = template.spec.iter().flat_map(|pod| pod.topology_spread_constraints.iter().flatten());
                made.extend(spread.filter(|spread| spread.min_domains.is_some()).map(|spread| spread.min_domains));
            }
            ensure!(made.iter().all(|many| *many == Some(waited)), "{waited} are waited for, and {made:?} are made");
        }
        Ok(())
    }

    /// The pods of agents take connections from the coordinator's alone, at the port for it; both show metrics to a namespace, if to
    /// anybody.
    pub(super) fn only_coordinators_reach_agents(&self) -> anyhow::Result<()> {
        for (name, template) in self.templates() {
            let Some(component) = labels(template.metadata.as_ref()).get(COMPONENT) else { continue };
            let own = labels(template.metadata.as_ref());
            let of_ingress =
                |spec: &&NetworkPolicySpec| spec.policy_types.iter().flatten().any(|kind| kind == "Ingress");
            let policies = self.policies.values().filter_map(|policy| policy.spec.as_ref()).filter(of_ingress);
            let mut guarding = policies.filter(|spec| {
                let selector = spec.pod_selector.as_ref().and_then(|selector| selector.match_labels.as_ref());
                selector.is_some_and(|selector| is_selected(own, selector))
            });
            // Rules of several would add up.
            let (Some(policy), None) = (guarding.next(), guarding.next()) else {
                bail!("{name} is guarded by none, or by several");
            };
            let mut serves_coordinator = false;
            for rule in policy.ingress.iter().flatten() {
                let ports =
                    rule.ports.iter().flatten().map(|port| port_of(template, port.port.as_ref().context("all ports")?));
                let ports = ports.collect::<anyhow::Result<BTreeSet<i32>>>()?;
                for peer in rule.from.iter().flatten() {
                    let Some(pods) = &peer.pod_selector else {
                        let only_metrics =
                            ports == BTreeSet::from([port_of(template, &IntOrString::String("metrics".into()))?]);
                        ensure!(
                            peer.namespace_selector.is_some() && only_metrics,
                            "{name} lets {peer:?} in at {ports:?}"
                        );
                        continue;
                    };
                    ensure!(component == "agent" && peer.namespace_selector.is_none(), "{name} lets {peer:?} in");
                    let let_in = self.selected(match_labels(pods)?);
                    let of = |template: &&PodTemplateSpec| labels(template.metadata.as_ref()).get(COMPONENT).cloned();
                    let let_in: BTreeSet<Option<String>> = let_in.iter().map(of).collect();
                    ensure!(let_in == BTreeSet::from([Some("coordinator".to_owned())]), "{name} lets {let_in:?} in");
                    ensure!(
                        ports == BTreeSet::from([port_of(template, &IntOrString::String("grpc".into()))?]),
                        "{name} is reached at {ports:?}"
                    );
                    serves_coordinator = true;
                }
            }
            ensure!(serves_coordinator == (component == "agent"), "{name} is reached by the wrong one, or by nobody");
        }
        Ok(())
    }
}

#[test]
fn who_else_may_reach_an_agent_or_be_driven_by_it_is_found() -> anyhow::Result<()> {
    let kube = ["kube", "--agents=2", "--image=i:1", "--metrics-from=monitoring", "--image-pull-secret=registry", "--"];
    let run = ["max-rps", "--preset=small", "--nats-url=nats://chat:4222"];
    let rendered = Program::Cli.run([&kube[..], &run].concat())?.stdout;
    let brought = Brought { secrets: &["registry"], claims: &[] };
    let check = |change: &dyn Fn(&mut Objects)| -> Result<(), String> {
        let mut objects = Objects::parse(&rendered).map_err(|error| error.to_string())?;
        change(&mut objects);
        objects.agree(&brought).map_err(|error| format!("{error:#}"))
    };
    assert_eq!(check(&|_| {}), Ok(()));
    let unknown = Objects::parse(&rendered)?.agree(&Brought::default()).map_err(|error| error.to_string());
    assert!(unknown.is_err_and(|error| error.contains("no Secret/registry to pull its image with")));
    let with_rule = |change: fn(&mut NetworkPolicyIngressRule)| {
        check(&|objects: &mut Objects| {
            let policy = objects.policies.get_mut("plimsoll-agents").and_then(|policy| policy.spec.as_mut());
            change(&mut policy.and_then(|spec| spec.ingress.as_mut()).expect("rules")[0]);
        })
    };
    for (what, found) in [
        ("agents reach agents", with_rule(|rule| peer(rule).insert(COMPONENT.into(), "agent".into()).map_or((), drop))),
        ("all of the run reach agents", with_rule(|rule| peer(rule).remove(COMPONENT).map_or((), drop))),
        ("every port", with_rule(|rule| rule.ports = None)),
        (
            "the metrics too",
            with_rule(|rule| {
                let mut more = rule.ports.as_ref().expect("ports")[0].clone();
                more.port = Some(IntOrString::Int(9700));
                rule.ports.as_mut().expect("ports").push(more);
            }),
        ),
        (
            "more agents than are waited for",
            check(&|objects| {
                let job = objects.jobs.get_mut("plimsoll-agents").and_then(|job| job.spec.as_mut()).expect("agents");
                (job.completions, job.parallelism) = (Some(8), Some(8));
            }),
        ),
        ("no policy", check(&|objects| drop(objects.policies.remove("plimsoll-agents")))),
        (
            "another target",
            check(&|objects| {
                let plan =
                    objects.config_maps.get_mut("plimsoll-plan").and_then(|map| map.data.as_mut()).expect("a plan");
                plan.values_mut().for_each(|text| *text = text.replace("nats://chat:4222", "nats://other:4222"));
            }),
        ),
    ] {
        assert!(found.is_err(), "{what} was taken");
    }
    Ok(())
}

/// Labels of whom a rule lets in.
fn peer(rule: &mut NetworkPolicyIngressRule) -> &mut Labels {
    let peer = rule.from.as_mut().and_then(|from| from[0].pod_selector.as_mut());
    peer.and_then(|selector| selector.match_labels.as_mut()).expect("labels of a peer")
}
