//! The answer is right: the stand-in's capacity is known, and the whole system must find it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use plimsoll_tests::harness::exclusive::Exclusive;
use plimsoll_tests::harness::nats::{NatsOptions, NatsServer};
use plimsoll_tests::harness::run::Run;
use plimsoll_tests::standin::{Standin, StandinConfig};

#[tokio::test]
async fn smoke() {
    let _exclusive = Exclusive::acquire().unwrap();
    let server = NatsServer::start(NatsOptions::default()).unwrap();
    let mut config = StandinConfig::new(server.url());
    config.broadcast_worker.capacity = Some(1000.0);
    let _standin = Standin::start(config).await.unwrap();
    let outcome = Run::new(&server.url(), "small").steps(&[600.0, 1300.0]).finish().unwrap();
    println!("{outcome}\n{:?}", outcome.trials);
}
