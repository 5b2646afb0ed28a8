//! One line: connected, subscribed, read and written until it is no longer wanted; opened again where it breaks.

use std::rc::Rc;
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_rustls::rustls::pki_types::ServerName;

use super::{Hub, Shared, State};
use crate::core::limits::ServerAddress;
use crate::core::nats_words::{Word, next_word};
use crate::core::splitmix::splitmix64;
use crate::shell::clock::boottime_ns;

/// A server that has not let us in by then is not reached.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// A server that has not acknowledged what was sent, or what asks whether it is there, for so long is gone without a word: a host
/// that lost its power, a route that is no more.
const SILENT_LIMIT: Duration = Duration::from_secs(15);
/// Between two attempts.
const PAUSE: Duration = Duration::from_secs(1);
/// Read at once; a line's buffer grows with its messages and is given back when it was larger than `KEPT`.
const READ_BYTES: usize = 4 * 1024;
const KEPT_BYTES: usize = 64 * 1024;

/// Opens the line, whose turn it is, and opens it again whenever it breaks.
pub(super) async fn keep_open(hub: Rc<Hub>, shared: Rc<Shared>) {
    // Another server each time: the one that let it in may be the one that is gone.
    for attempt in 0_u64.. {
        let server = server_of(shared.line, attempt, &hub.door.servers);
        let why = match timeout(CONNECT_LIMIT, connect(&hub, server)).await {
            Ok(Ok((stream, unread))) => serve(stream, unread, &hub, &shared).await,
            Ok(Err(why)) => why,
            Err(_) => "no answer in time".to_owned(),
        };
        hub.report(format!("a user's connection: {why}"));
        shared.breaks(&hub);
        sleep(PAUSE).await;
        // However many broke at once, they come back as they came: a server that has just begun again has enough to do.
        hub.turn(shared.users.get()).await;
        if !hub.lease.holds(boottime_ns()) {
            return;
        }
    }
}

/// The server that a line tries at this attempt: it begins anywhere among them, whatever the numbers of its agent's lines have in
/// common, and takes the next each time.
fn server_of(line: u32, attempt: u64, servers: &[ServerAddress]) -> &ServerAddress {
    let first = splitmix64(u64::from(line)) % servers.len() as u64;
    &servers[((first + attempt) % servers.len() as u64) as usize]
}

trait Stream: AsyncRead + AsyncWrite {}

impl<T: AsyncRead + AsyncWrite> Stream for T {}

type Open = (std::pin::Pin<Box<dyn Stream>>, BytesMut);

/// A connection that was let in, and what was read beyond that.
async fn connect(hub: &Hub, server: &ServerAddress) -> Result<Open, String> {
    let door = &hub.door;
    let address = (server.host.as_str(), server.port);
    let mut socket = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
    socket.set_nodelay(true).map_err(|error| error.to_string())?;
    notice_silence(&socket).map_err(|error| error.to_string())?;
    let mut unread = BytesMut::with_capacity(READ_BYTES);
    let info = info(&mut socket, &mut unread).await?;
    if !door.tls_required && info["tls_required"] != true {
        return enter(socket, unread, hub, &info).await;
    }
    let name = ServerName::try_from(server.host.clone()).map_err(|error| error.to_string())?;
    let secured = door.tls.connect(name, socket).await.map_err(|error| error.to_string())?;
    enter(secured, unread, hub, &info).await
}

/// Has the kernel break a connection whose server is gone without a word: the users on it would be taken to be online.
fn notice_silence(socket: &TcpStream) -> std::io::Result<()> {
    const ASKED: u32 = 3;
    let every = SILENT_LIMIT / ASKED;
    let socket = SockRef::from(socket);
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(every).with_interval(every).with_retries(ASKED - 1))?;
    // What was sent and is not acknowledged is asked for by no keepalive.
    socket.set_tcp_user_timeout(Some(SILENT_LIMIT))
}

/// What the server says of itself, first of all.
async fn info(socket: &mut TcpStream, unread: &mut BytesMut) -> Result<serde_json::Value, String> {
    loop {
        if let Some((word, taken)) = next_word(unread).map_err(|error| error.to_string())? {
            let Word::Info(text) = word else { return Err("it does not begin as NATS does".to_owned()) };
            let info = serde_json::from_str(text).map_err(|error| format!("its INFO is no JSON: {error}"))?;
            unread.advance(taken);
            return Ok(info);
        }
        read_more(socket, unread).await?;
    }
}

async fn read_more(stream: &mut (impl AsyncRead + Unpin), unread: &mut BytesMut) -> Result<(), String> {
    unread.reserve(READ_BYTES);
    match stream.read_buf(unread).await {
        Ok(0) => Err("the server closed it".to_owned()),
        Ok(_) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

/// Says who we are, and waits to be let in.
async fn enter(
    mut stream: impl Stream + Unpin + 'static,
    mut unread: BytesMut,
    hub: &Hub,
    info: &serde_json::Value,
) -> Result<Open, String> {
    let words = format!("{}PING\r\n", hub.door.connect(&hub.name, info)?);
    stream.write_all(words.as_bytes()).await.map_err(|error| error.to_string())?;
    stream.flush().await.map_err(|error| error.to_string())?;
    loop {
        while let Some((word, taken)) = next_word(&unread).map_err(|error| error.to_string())? {
            let entered = match word {
                Word::Error(words) => return Err(words.to_owned()),
                word => word == Word::Pong,
            };
            unread.advance(taken);
            if entered {
                return Ok((Box::pin(stream), unread));
            }
        }
        read_more(&mut stream, &mut unread).await?;
    }
}

/// Serves a connection until it breaks; why it did.
async fn serve(stream: std::pin::Pin<Box<dyn Stream>>, unread: BytesMut, hub: &Hub, shared: &Shared) -> String {
    let (reader, writer) = tokio::io::split(stream);
    shared.out.borrow_mut().clear();
    shared.pongs_due.set(0);
    shared.state.set(State::Subscribing);
    shared.subscribe(hub, 0);
    tokio::select! {
        why = read(reader, unread, hub, shared) => why,
        why = write(writer, hub, shared) => why,
    }
}

pub(super) async fn write(mut writer: impl AsyncWrite + Unpin, hub: &Hub, shared: &Shared) -> String {
    loop {
        shared.wakes.notified().await;
        loop {
            let words = shared.out.borrow_mut().split();
            if words.is_empty() {
                break;
            }
            let now_ns = boottime_ns();
            if !hub.lease.holds(now_ns) {
                return "the lease has ended".to_owned();
            }
            shared.writes_since_ns.set(Some(now_ns));
            if let Err(error) = writer.write_all(&words).await {
                return error.to_string();
            }
            if let Err(error) = writer.flush().await {
                return error.to_string();
            }
            shared.wrote(hub, boottime_ns());
        }
    }
}

async fn read(mut reader: impl AsyncRead + Unpin, mut unread: BytesMut, hub: &Hub, shared: &Shared) -> String {
    loop {
        let mut taken_of_all = 0;
        loop {
            match next_word(&unread[taken_of_all..]) {
                Ok(Some((word, taken))) => {
                    if let Err(why) = on_word(word, hub, shared) {
                        return why;
                    }
                    taken_of_all += taken;
                }
                Ok(None) => break,
                Err(error) => return error.to_string(),
            }
        }
        unread.advance(taken_of_all);
        if unread.is_empty() && unread.capacity() > KEPT_BYTES {
            unread = BytesMut::with_capacity(READ_BYTES);
        }
        if let Err(why) = read_more(&mut reader, &mut unread).await {
            return why;
        }
    }
}

/// # Errors
/// The connection cannot be what it should be: why, in the server's words.
pub(super) fn on_word(word: Word<'_>, hub: &Hub, shared: &Shared) -> Result<(), String> {
    match word {
        Word::Message(sid, heard) => {
            let tag = sid.checked_sub(1).and_then(|index| shared.tags.borrow().get(index as usize).copied());
            if let Some(tag) = tag {
                hub.ear.heard(shared.line, tag, &heard);
            }
        }
        Word::Ping => {
            shared.out.borrow_mut().extend_from_slice(b"PONG\r\n");
            shared.wakes.notify_one();
        }
        Word::Pong => {
            let due = shared.pongs_due.get().saturating_sub(1);
            shared.pongs_due.set(due);
            if due == 0 && shared.state.get() == State::Subscribing {
                shared.state.set(State::Online);
                hub.ear.changed(shared.line, true);
                hub.settled.notify_one();
            }
        }
        Word::Error(words) => {
            if words.to_lowercase().contains("permissions violation") {
                hub.denied.borrow_mut().get_or_insert_with(|| words.to_owned());
            } else if shared.state.get() == State::Subscribing {
                // Some servers leave it open, and answer pings: it may lack any of its subscriptions, and its users what they
                // are owed.
                return Err(words.to_owned());
            }
            hub.report(format!("a user's connection: {words}"));
        }
        Word::Info(_) | Word::Ok => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_server_that_is_gone_without_a_word_is_noticed() {
        let server = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let socket = TcpStream::connect(server.local_addr().unwrap()).await.unwrap();
        notice_silence(&socket).unwrap();
        let socket = SockRef::from(&socket);
        assert!(socket.keepalive().unwrap());
        let asked = socket.tcp_keepalive_interval().unwrap() * socket.tcp_keepalive_retries().unwrap();
        assert_eq!(socket.tcp_keepalive_time().unwrap() + asked, SILENT_LIMIT);
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(SILENT_LIMIT));
    }
}
