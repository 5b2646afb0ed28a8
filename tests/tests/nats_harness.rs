//! The harness's nats-server: ready when started, frozen, killed and started again on demand.

use plimsoll_tests::harness::nats::{NatsOptions, NatsServer, NatsUser};
use plimsoll_tests::standin::{Standin, StandinConfig};
use std::time::Duration;

#[tokio::test]
async fn a_server_comes_up_with_streams_and_comes_back_on_the_same_port() {
    let mut server = NatsServer::start(NatsOptions::default()).unwrap();
    let url = server.url();
    let client = async_nats::connect(&url).await.unwrap();
    let context = async_nats::jetstream::new(client.clone());
    let stream = async_nats::jetstream::stream::Config { name: "S".into(), ..Default::default() };
    context.create_stream(stream).await.unwrap();

    server.kill().unwrap();
    assert!(async_nats::connect(&url).await.is_err());
    server.start_again().unwrap();
    assert_eq!(server.url(), url);
    let context = async_nats::jetstream::new(async_nats::connect(&url).await.unwrap());
    assert!(context.get_stream("S").await.is_ok());
}

#[tokio::test]
async fn a_frozen_server_answers_again_once_resumed() {
    let server = NatsServer::start(NatsOptions::default()).unwrap();
    let client = async_nats::connect(server.url()).await.unwrap();
    server.pause().unwrap();
    assert!(tokio::time::timeout(Duration::from_millis(200), client.flush()).await.is_ok(), "flush only hands over");
    assert!(tokio::time::timeout(Duration::from_millis(200), client.request("nobody", "".into())).await.is_err());
    server.resume().unwrap();
    let answered = client.request("nobody", "".into()).await.unwrap_err();
    assert_eq!(answered.kind(), async_nats::client::RequestErrorKind::NoResponders);
}

#[tokio::test]
async fn only_named_users_may_connect() {
    let user = NatsUser { name: "ann".into(), password: "secret".into(), ..NatsUser::default() };
    let options = NatsOptions { users: vec![user.clone()], ..NatsOptions::default() };
    let server = NatsServer::start(options).unwrap();
    assert!(async_nats::connect(server.url()).await.is_err());
    let known = async_nats::ConnectOptions::with_user_and_password(user.name.clone(), user.password.clone());
    assert!(known.connect(server.url()).await.is_ok());
    // A backend is told by its URL.
    let standin = Standin::start(StandinConfig::new(server.url_of(&user))).await.unwrap();
    standin.shutdown().await.unwrap();
}
