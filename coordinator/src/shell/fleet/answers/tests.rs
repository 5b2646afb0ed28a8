use plimsoll_proto::v1::coordinator_message::Message as ToAgent;
use plimsoll_proto::v1::{CoordinatorMessage, Dealt};
use tokio::sync::mpsc;

use plimsoll_common::calibration::{Calibration, CalibrationOrder};
use plimsoll_common::snapshot::{Counters, StepEnd, StepTotals, Strays};

use super::super::tests::Scene;
use super::*;
use plimsoll_common::units::Rate;

impl Scene {
    fn dealt(&self, agent: usize, deal: u32) {
        self.says(agent, AgentEvent::Dealt(Dealt { deal, rooms: deal, ..Dealt::default() }));
    }

    async fn deal(&mut self) -> Result<u64, Vec<FleetError>> {
        let shares = vec![Rate::per_second(100).unwrap(); self.fleet.len()];
        let dealt = self.fleet.deal(&shares, Duration::ZERO, Patience::UntilAll).await;
        dealt.map(|dealt| dealt.summary.rooms).map_err(Vec::from)
    }

    /// The number of the deal that an agent was sent last.
    fn newest_deal(&mut self, agent: usize) -> Option<u32> {
        let mut newest = None;
        while let Ok(CoordinatorMessage { message }) = self.orders[agent].try_recv() {
            if let Some(ToAgent::Deal(deal)) = message {
                newest = Some(deal.deal);
            }
        }
        newest
    }
}

fn lost(why: &str) -> AgentEvent {
    AgentEvent::Lost(why.to_owned())
}

fn unreachable(words: &str) -> AgentEvent {
    AgentEvent::Refused { words: words.to_owned(), kind: Refusal::Unreachable }
}

#[tokio::test(start_paused = true)]
async fn a_deal_that_loses_an_agent_is_over_with_the_others_before_the_next_one_begins() {
    let mut scene = Scene::of(3);
    scene.says(1, lost("reset"));
    let others = async {
        tokio::time::sleep(Duration::from_secs(40)).await;
        scene.events.send((0, AgentEvent::Dealt(Dealt::default()))).await.unwrap();
        tokio::time::sleep(Duration::from_secs(10)).await;
        scene.events.send((2, unreachable("no way"))).await.unwrap();
    };
    let began = Instant::now();
    let shares = vec![Rate::per_second(100).unwrap(); 3];
    let (dealt, ()) = tokio::join!(scene.fleet.deal(&shares, Duration::ZERO, Patience::UntilAll), others);
    let troubles: Vec<String> = dealt.unwrap_err().iter().map(ToString::to_string).collect();
    assert_eq!(
        troubles,
        ["agent box-1 was lost: reset", "agent box-2 cannot subscribe to what its share needs: no way"]
    );
    assert_eq!(began.elapsed(), Duration::from_secs(50), "it was waited for all");
    assert_eq!(scene.newest_deal(0), Some(0));

    // The next one has another number: what comes late of the first is no answer to it.
    scene.fleet.give_up_on(2, "no way".to_owned());
    assert_eq!(scene.fleet.take_gone().len(), 2);
    scene.dealt(0, 0);
    scene.dealt(0, 1);
    assert_eq!((scene.deal().await, scene.newest_deal(0)), (Ok(1), Some(1)));
}

#[tokio::test(start_paused = true)]
async fn who_does_not_end_a_broken_deal_in_its_time_is_given_up_with_who_broke_it() {
    let mut scene = Scene::of(3);
    scene.dealt(0, 0);
    scene.says(1, lost("reset"));
    let troubles = scene.deal().await.unwrap_err();
    assert!(matches!(&troubles[..], [FleetError::Lost { .. }, FleetError::NoAnswer { agent, .. }] if agent == "box-2"));
    assert!(troubles.iter().all(FleetError::is_a_loss));
    let gone: Vec<String> = scene.fleet.take_gone().into_iter().map(|gone| gone.agent).collect();
    assert_eq!(gone, ["box-1", "box-2"]);
}

#[tokio::test(start_paused = true)]
async fn before_a_run_what_was_asked_wrongly_is_told_at_once_and_nobody_is_given_up() {
    let mut scene = Scene::of(3);
    scene.says(0, unreachable("no way"));
    scene.says(1, AgentEvent::Refused { words: "no such subject".to_owned(), kind: Refusal::Order });
    let began = Instant::now();
    let shares = vec![Rate::per_second(100).unwrap(); 3];
    let troubles = scene.fleet.deal(&shares, Duration::ZERO, Patience::UntilWrong).await.unwrap_err();
    assert_eq!(began.elapsed(), Duration::ZERO);
    let decides = scene.fleet.not_done(&troubles).to_string();
    assert!(decides.ends_with("no such subject"), "{decides}");
    assert_eq!(scene.fleet.first_gone(), None);
}

#[tokio::test(start_paused = true)]
async fn before_a_run_whoever_is_lost_is_named_and_the_others_are_ready() {
    let mut scene = Scene::of(4);
    let found = |per_second| {
        let rate = Rate::per_second(per_second).unwrap();
        let lateness = plimsoll_common::histogram::LatencyHistogram::new();
        AgentEvent::Calibrated(Box::new(Calibration { ceiling: rate, paced: rate, due: 1, released: 1, lateness }))
    };
    scene.says(0, found(500));
    scene.says(1, lost("killed"));
    scene.says(2, AgentEvent::Refused { words: "no port".to_owned(), kind: Refusal::Box });
    scene.says(3, found(900));
    let order = CalibrationOrder { request_bytes: 1, reply_bytes: 1, max_lateness: LEAD };
    let (measured, troubles) = scene.fleet.calibrate(&order).await;
    assert_eq!(measured.iter().map(|(name, _)| &**name).collect::<Vec<_>>(), ["box-0", "box-3"]);
    assert_eq!(troubles.len(), 2, "{troubles:?}");
    scene.fleet.not_done(&NonEmpty::new(troubles).unwrap());
    let gone: Vec<(String, String)> = scene.fleet.take_gone().into_iter().map(|gone| (gone.agent, gone.why)).collect();
    let pair = |agent: &str, why: &str| (agent.to_owned(), why.to_owned());
    assert_eq!(gone, [pair("box-1", "killed"), pair("box-2", "no port")]);
    let ceilings: Vec<_> = scene.fleet.capacities().iter().map(|capacity| capacity.ceiling).collect();
    assert_eq!(ceilings, [Rate::per_second(500), Rate::per_second(900)], "what was measured stays whose it is");
}

const TRIAL: TrialId = TrialId { step: 1, trial: 0 };
const LEAD: Duration = Duration::from_millis(400);
const LIMIT: Duration = Duration::from_secs(2);

fn too_late() -> AgentEvent {
    AgentEvent::Refused { words: "the start instant is already past".to_owned(), kind: Refusal::TooLate }
}

fn totals() -> AgentEvent {
    AgentEvent::Totals(Box::new(StepTotals {
        trial: TRIAL,
        snapshots: 0,
        counters: Counters::default(),
        series: Vec::new(),
        samples: Vec::new(),
        strays: Strays::default(),
        warmup: Counters::default(),
        started_boottime_ns: 0,
        end: StepEnd::Stopped,
        observed: Vec::new(),
    }))
}

#[tokio::test(start_paused = true)]
async fn whoever_hears_of_a_start_too_late_is_named_once_the_others_have_ended_it() {
    let mut scene = Scene::of(3);
    let events = scene.events.clone();
    let others = async {
        let says = |agent, event| events.try_send((agent, event)).unwrap();
        says(0, AgentEvent::Armed(TRIAL));
        says(1, too_late());
        // The third has not heard of it by the time that it is stopped, but it does then.
        tokio::time::sleep(LEAD).await;
        says(2, AgentEvent::Armed(TRIAL));
        says(2, totals());
        tokio::time::sleep(LEAD).await;
        says(0, totals());
    };
    let began = Instant::now();
    let (armed, ()) = tokio::join!(scene.fleet.armed(TRIAL, LEAD, LIMIT), others);
    assert_eq!((armed, began.elapsed()), (Err(NotArmed::TooLate(vec![1, 2])), LEAD * 2));
    assert_eq!(scene.fleet.first_gone(), None, "nobody is lost for that");
    let stopped = |orders: &mut mpsc::Receiver<CoordinatorMessage>| {
        matches!(orders.try_recv(), Ok(CoordinatorMessage { message: Some(ToAgent::StopStep(_)) }))
    };
    assert!(scene.orders.iter_mut().all(stopped));

    // Armed in time, all of them: nobody is told to stop.
    (0..3).for_each(|agent| scene.says(agent, AgentEvent::Armed(TRIAL)));
    assert_eq!(scene.fleet.armed(TRIAL, LEAD, LIMIT).await, Ok(()));
    assert!(!scene.orders.iter_mut().any(stopped));
}

#[tokio::test(start_paused = true)]
async fn who_says_nothing_of_a_start_or_of_its_end_is_lost() {
    let mut scene = Scene::of(3);
    scene.says(0, AgentEvent::Armed(TRIAL));
    scene.says(0, totals());
    scene.says(1, too_late());
    let Err(NotArmed::Trouble(troubles)) = scene.fleet.armed(TRIAL, LEAD, LIMIT).await else { panic!("it was armed") };
    let words: Vec<String> = troubles.iter().map(ToString::to_string).collect();
    // The totals came before the stop: whose they are nobody knows.
    assert_eq!(words.len(), 2, "{words:?}");
    assert_eq!(words[1], "agent box-2 did not start the step within 2.4s");
    assert_eq!(scene.fleet.take_gone().len(), 2);
}
