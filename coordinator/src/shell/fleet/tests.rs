//! Fleets whose agents are the test.

use std::time::Duration;

use plimsoll_common::plan::{AgentPlan, Target};
use plimsoll_common::units::Rate;
use plimsoll_proto::v1::CoordinatorMessage;
use tokio::sync::mpsc;

use super::*;
use crate::core::split::Capacity;
use crate::settings::{Invocation, read};
use crate::shell::local_agents::LocalAgents;
use crate::shell::session::{AgentAddress, Claim, Secrets};
use crate::shell::tls::Wire;

/// A fleet whose agents are the test.
pub(crate) struct Scene {
    pub(crate) fleet: Fleet,
    pub(super) orders: Vec<mpsc::Receiver<CoordinatorMessage>>,
    pub(super) events: mpsc::Sender<(usize, AgentEvent)>,
}

impl Scene {
    pub(crate) fn of(agents: usize) -> Self {
        let fleet = Fleet::nobody();
        let events = fleet.events_in.clone();
        let mut scene = Self { fleet, orders: Vec::new(), events };
        for index in 0..agents {
            let member = scene.member(index, &format!("box-{index}"));
            scene.fleet.members.push(member);
        }
        scene
    }

    fn member(&mut self, index: usize, name: &str) -> Member {
        let (session, received) = Session::with_a_test(name);
        self.orders.push(received);
        Member::new(index, session)
    }

    pub(super) fn says(&self, agent: usize, event: AgentEvent) {
        self.events.try_send((agent, event)).unwrap();
    }
}

fn rate(per_second: u64) -> Rate {
    Rate::per_second(per_second).unwrap()
}

fn plan() -> AgentPlan {
    let arguments = "plimsoll daily --preset daily-light --find".split_whitespace().map(Into::into);
    let workload = match read(arguments, &|_| None) {
        Ok(Invocation::Load(plan)) => plan.workload,
        other => panic!("{other:?}"),
    };
    AgentPlan {
        agent_index: 0,
        run_nonce: 1,
        seed: 1,
        target: Target { url: "nats://nowhere".to_owned(), credentials: None },
        workload,
        request_timeout: Duration::from_secs(5),
        series: Vec::new(),
        max_lateness: Duration::from_secs(1),
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_cannot_be_prepared_keeps_nobody_else_out() {
    let mut scene = Scene::of(2);
    let refused = |words: &str| AgentEvent::Refused { words: words.to_owned(), kind: Refusal::Unreachable };
    let prepared = || AgentEvent::Prepared("nats 2.10".to_owned());
    let names = ["good", "bad", "away", "odd", "mute", "fine"];
    let mut opened: Vec<Option<Member>> =
        (2..).zip(names).map(|(index, name)| Some(scene.member(index, name))).collect();
    opened[2] = None;
    opened[3].as_mut().unwrap().session.hello.workloads = vec!["weather".to_owned()];
    scene.says(2, prepared());
    scene.says(3, refused("no way to the target"));
    scene.says(7, prepared());
    let admissions = scene.fleet.admit_opened(opened, "messages", Duration::from_secs(60), &plan()).await;
    let unfit = |words: &str| Admission::Unfit(words.to_owned());
    assert_eq!(
        admissions,
        [
            Admission::Joined,
            unfit("agent bad cannot prepare the run: no way to the target"),
            Admission::Absent,
            unfit("agent odd does not know the workload messages: it knows weather"),
            unfit("agent mute did not prepare the run within 60s"),
            Admission::Joined,
        ]
    );
    let there: Vec<(usize, String)> = scene.fleet.names();
    let name = |index: usize, name: &str| (index, name.to_owned());
    assert_eq!(there, [name(0, "box-0"), name(1, "box-1"), name(2, "good"), name(7, "fine")]);
    assert_eq!(scene.fleet.first_gone(), None, "who was never in is not lost either");
}

#[tokio::test]
async fn a_box_that_comes_back_can_do_no_more_than_it_was_measured_to() {
    let mut scene = Scene::of(2);
    scene.fleet.members[0].session.hello.ceiling = Some(rate(300));
    scene.fleet.keep_measured([("box-0".to_owned(), rate(500)), ("box-1".to_owned(), rate(900))]);
    scene.fleet.cap(1, rate(700));
    let ceilings = |fleet: &Fleet| {
        let of = |capacities: Vec<Capacity>| capacities.iter().map(|capacity| capacity.ceiling).collect::<Vec<_>>();
        (of(fleet.capacities()), of(fleet.declared()))
    };
    let known = (vec![Some(rate(300)), Some(rate(700))], vec![Some(rate(300)), Some(rate(900))]);
    assert_eq!(ceilings(&scene.fleet), known);
    scene.fleet.give_up_on(1, "reset".to_owned());
    scene.fleet.take_gone();
    let back = scene.member(2, "box-1");
    scene.fleet.members.push(back);
    assert_eq!(ceilings(&scene.fleet), known);
    assert!(scene.fleet.boxes()[1].1.ends_with(", at most 900/s"), "{:?}", scene.fleet.boxes());
    scene.fleet.members[1].server = Some("n2 2.10.22".to_owned());
    assert!(
        scene.fleet.boxes()[1].1.ends_with(", at most 900/s, connected to n2 2.10.22"),
        "{:?}",
        scene.fleet.boxes()
    );
}

#[tokio::test]
async fn who_holds_an_agent_is_told_from_an_earlier_process_of_ours_and_from_ourselves() {
    let agents = LocalAgents::start(2).await.unwrap();
    let claim = |run_id: &str| Claim {
        coordinator: "anna@control-1 pid 1".to_owned(),
        run_id: run_id.to_owned(),
        lease_timeout: Duration::from_secs(30),
        secrets: Secrets::None,
        wire: Wire::Clear,
        ceilings: None,
    };
    let within = Duration::from_secs(20);
    let [first, second] = &agents.addresses[..] else { panic!("two were started") };
    let before = Fleet::connect(std::slice::from_ref(second), &claim("before"), "messages").await.unwrap();
    // Waiting, it is one that may come; at once, it is no second name of the first one.
    let mut fleet = Fleet::nobody();
    let missing = fleet.claim_absent(&agents.addresses, &claim("now"), "messages", within).await.unwrap();
    let held_before = |agent: &AgentAddress| FleetError::HeldBefore {
        agent: agent.address.clone(),
        coordinator: "anna@control-1 pid 1".to_owned(),
        run_id: "before".to_owned(),
    };
    assert_eq!((fleet.len(), &missing), (1, &vec![held_before(second)]));
    assert!(!missing[0].is_of_another() && !missing[0].is_usage() && missing[0].may_pass());
    let at_once = Fleet::connect(std::slice::from_ref(second), &claim("now"), "messages").await;
    assert_eq!(at_once.err(), Some(held_before(second)));
    // A daemon under two names, of which one is held already.
    let twin = AgentAddress { name: "twin".to_owned(), ..first.clone() };
    let twice = fleet.claim_absent(&[first.clone(), twin.clone()], &claim("now"), "messages", within).await;
    let same = FleetError::SameAgent { first: first.name.clone(), second: "twin".to_owned() };
    assert_eq!(twice, Err(same.clone()));
    // And both asked at once, whichever of them is the faster.
    fleet.release().await;
    before.release().await;
    let second_twin = AgentAddress { name: "twin".to_owned(), ..second.clone() };
    let twice = Fleet::nobody().claim_absent(&[second.clone(), second_twin], &claim("now"), "messages", within).await;
    assert_eq!(twice, Err(FleetError::SameAgent { first: second.name.clone(), second: "twin".to_owned() }));
    agents.stop().await;
}
