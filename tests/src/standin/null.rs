//! A null gatekeeper: no streams, no checks; every send is answered at once.
//!
//! It is the ruler for a load generator's own speed, and must cost next to nothing beside nats-server on the same cores:
//! one thread, one socket, the NATS protocol by hand, parsed where it lies, and one write per read.

use super::counters::Counter;
use anyhow::{Context as _, anyhow, bail, ensure};
use memchr::{memchr, memmem};
use plimsoll_common::contract::subjects;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::thread::JoinHandle;

/// What benchmarks ask an echo for, described in TOML: as large as a message of the chat.
pub const ECHO_SCENARIO: &str = r#"
[[operation]]
name = "echo"
kind = "request"
subject = "svc.echo"
payload = '{"id":"{{id}}","content":"{{text:200}}","requestId":"{{uuid}}"}'
success = "non-empty"
"#;

/// Bytes asked for at once: some hundred sends.
const READ: usize = 256 * 1024;

/// The longest control line that is waited for; a server's INFO is the longest there is.
const MAX_LINE: usize = 64 * 1024;

/// A running null gatekeeper. Dropping it stops it.
#[derive(Debug)]
pub struct NullGatekeeper {
    answered: Arc<Counter>,
    socket: TcpStream,
    thread: Option<JoinHandle<anyhow::Result<()>>>,
}

/// What a null gatekeeper does with a send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NullAnswers {
    /// It replies on the sender's response subject.
    Reply,
    /// It also broadcasts: to the channel's subject, or as the sender's own copy of a direct message.
    ReplyAndBroadcast,
    /// No gatekeeper: what comes on [`ECHO`] goes back as it is, to where its sender awaits it.
    Echo,
}

/// The subject of an echo.
pub const ECHO: &str = "svc.echo";

impl NullGatekeeper {
    /// Subscribes to all sends of the site and returns when the server has confirmed it.
    ///
    /// # Errors
    /// If the server cannot be reached or refuses.
    pub fn start(nats_url: &str, site: &str, answers: NullAnswers) -> anyhow::Result<Self> {
        ensure!(subjects::is_token(site), "site {site:?} is not one token of a subject");
        let address: async_nats::ServerAddr =
            nats_url.parse().with_context(|| format!("{nats_url:?} is no URL of a NATS server"))?;
        let mut socket = TcpStream::connect((address.host(), address.port()))
            .with_context(|| format!("connecting to {nats_url}"))?;
        socket.set_nodelay(true)?;
        socket.write_all(&hello(&address, site, answers))?;
        let mut session = Session::new(answers);
        let answered = Arc::clone(&session.answered);
        let mut inbound = Inbound::default();
        while !session.confirmed {
            if !inbound.turn(&mut socket, &mut session)? {
                bail!("{nats_url} closed the connection at once");
            }
        }
        let mut reader = socket.try_clone()?;
        let thread = std::thread::Builder::new().name("null-gatekeeper".to_owned()).spawn(move || {
            while inbound.turn(&mut reader, &mut session)? {}
            Ok(())
        })?;
        Ok(Self { answered, socket, thread: Some(thread) })
    }

    /// Sends answered so far.
    pub fn answered(&self) -> u64 {
        self.answered.get()
    }

    /// Whether the connection has ended; [`shutdown`](Self::shutdown) then says why.
    pub fn has_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Stops it.
    ///
    /// # Errors
    /// What had gone wrong before.
    pub fn shutdown(mut self) -> anyhow::Result<()> {
        // The server may have closed it already.
        let _ = self.socket.shutdown(Shutdown::Both);
        self.join()
    }

    fn join(&mut self) -> anyhow::Result<()> {
        match self.thread.take() {
            Some(thread) => thread.join().map_err(|_| anyhow!("the null gatekeeper panicked"))?,
            None => Ok(()),
        }
    }
}

impl Drop for NullGatekeeper {
    fn drop(&mut self) {
        let _ = self.socket.shutdown(Shutdown::Both);
        let _ = self.join();
    }
}

fn hello(address: &async_nats::ServerAddr, site: &str, answers: NullAnswers) -> Vec<u8> {
    let mut connect = serde_json::json!({
        "verbose": false, "pedantic": false, "headers": true, "lang": "rust", "version": env!("CARGO_PKG_VERSION"),
        "name": "plimsoll-standin/null",
    });
    if let Some(user) = address.username() {
        connect["user"] = user.into();
        connect["pass"] = address.password().unwrap_or_default().into();
    }
    let sends = if answers == NullAnswers::Echo { ECHO.to_owned() } else { subjects::send_wildcard(site) };
    format!("CONNECT {connect}\r\nSUB {sends} 1\r\nPING\r\n").into_bytes()
}

/// What has been read and not been understood yet.
#[derive(Debug, Default)]
struct Inbound {
    buffer: Vec<u8>,
    filled: usize,
}

impl Inbound {
    /// Reads once, answers everything that is complete, writes once. False when the connection has ended.
    fn turn(&mut self, socket: &mut TcpStream, session: &mut Session) -> anyhow::Result<bool> {
        if self.buffer.len() < self.filled + READ {
            self.buffer.resize(self.filled + READ, 0);
        }
        let read = match socket.read(&mut self.buffer[self.filled..]) {
            Ok(0) => return Ok(false),
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(true),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(false),
            Err(error) => return Err(error).context("reading from nats-server"),
        };
        self.filled += read;
        let consumed = session.take(&self.buffer[..self.filled])?;
        self.buffer.copy_within(consumed..self.filled, 0);
        self.filled -= consumed;
        if !session.out.is_empty() {
            let written = socket.write_all(&session.out);
            session.out.clear();
            match written {
                Err(error) if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => {
                    return Ok(false);
                }
                other => other.context("writing to nats-server")?,
            }
        }
        Ok(true)
    }
}

/// The protocol, without its socket.
#[derive(Debug)]
struct Session {
    answers: NullAnswers,
    out: Vec<u8>,
    /// Counted before the answer is written: whoever has an answer finds it counted.
    answered: Arc<Counter>,
    /// The server has seen the subscription.
    confirmed: bool,
}

impl Session {
    fn new(answers: NullAnswers) -> Self {
        Self { answers, out: Vec::with_capacity(READ), answered: Arc::default(), confirmed: false }
    }

    /// Understands as much of the input as is complete, and says how many bytes that is. Answers are left in `out`.
    fn take(&mut self, input: &[u8]) -> anyhow::Result<usize> {
        let mut at = 0;
        while let Some(end) = memchr(b'\n', &input[at..]) {
            let line = input[at..at + end].trim_ascii_end();
            let body = at + end + 1;
            at = match line {
                [b'M', b'S', b'G', b' ', rest @ ..] => {
                    let (subject, size) = message_line(rest).context("a MSG line without a subject or a size")?;
                    let Some(payload) = input.get(body..body + size) else { return Ok(at) };
                    if input.len() < body + size + 2 {
                        return Ok(at);
                    }
                    self.take_message(subject, reply_of(rest, 4), payload);
                    body + size + 2
                }
                [b'H', b'M', b'S', b'G', b' ', rest @ ..] => {
                    let (subject, size) = message_line(rest).context("an HMSG line without a subject or a size")?;
                    let headers = header_size(rest).context("an HMSG line without the size of its headers")?;
                    ensure!(headers <= size, "headers of {headers} bytes in a message of {size}");
                    let Some(payload) = input.get(body + headers..body + size) else { return Ok(at) };
                    if input.len() < body + size + 2 {
                        return Ok(at);
                    }
                    self.take_message(subject, reply_of(rest, 5), payload);
                    body + size + 2
                }
                b"PING" => {
                    self.out.extend_from_slice(b"PONG\r\n");
                    body
                }
                b"PONG" => {
                    self.confirmed = true;
                    body
                }
                [b'-', b'E', b'R', b'R', ..] => bail!("nats-server: {}", String::from_utf8_lossy(line)),
                // INFO, +OK.
                _ => body,
            };
        }
        ensure!(input.len() - at <= MAX_LINE || input[at..].starts_with(b"MSG"), "a line of nats-server has no end");
        Ok(at)
    }

    fn take_message(&mut self, subject: &[u8], reply: Option<&[u8]>, payload: &[u8]) {
        match (self.answers, reply) {
            (NullAnswers::Echo, Some(reply)) => {
                self.answered.add(1);
                self.publish(&[reply], &[payload]);
            }
            (NullAnswers::Echo, None) => {}
            (NullAnswers::Reply | NullAnswers::ReplyAndBroadcast, _) => self.answer(subject, payload),
        }
    }

    /// A send without an account or a request id cannot be answered, as with the real gatekeeper.
    fn answer(&mut self, subject: &[u8], payload: &[u8]) {
        let (Some(to), Some(id), Some(request)) =
            (Recipient::of(subject), field(payload, b"\"id\":\""), field(payload, b"\"requestId\":\""))
        else {
            return;
        };
        let Recipient { account, room } = to;
        self.answered.add(1);
        self.publish(
            &[b"chat.user.", account, b".response.", request],
            &[
                b"{\"id\":\"",
                id,
                b"\",\"roomId\":\"",
                room,
                b"\",\"userId\":\"u-000000\",\"userAccount\":\"",
                account,
                b"\",\"content\":\"\",\"createdAt\":\"2026-01-01T00:00:00Z\"}",
            ],
        );
        if self.answers == NullAnswers::ReplyAndBroadcast {
            let body: [&[u8]; 5] = [
                b"{\"type\":\"new_message\",\"roomId\":\"",
                room,
                b"\",\"timestamp\":0,\"roomType\":\"channel\",\"lastMsgId\":\"",
                id,
                b"\"}",
            ];
            // The id of a direct message's room is made of user ids.
            if room.starts_with(b"u-") {
                self.publish(&[b"chat.user.", account, b".event.room"], &body);
            } else {
                self.publish(&[b"chat.room.", room, b".event"], &body);
            }
        }
    }

    fn publish(&mut self, subject: &[&[u8]], body: &[&[u8]]) {
        self.out.extend_from_slice(b"PUB ");
        for part in subject {
            self.out.extend_from_slice(part);
        }
        self.out.push(b' ');
        let size: usize = body.iter().map(|part| part.len()).sum();
        // The bodies here have some hundred bytes; more digits than a usize has are never needed.
        let mut digits = [0_u8; 20];
        let (mut start, mut rest) = (digits.len(), size);
        loop {
            start -= 1;
            digits[start] = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        self.out.extend_from_slice(&digits[start..]);
        self.out.extend_from_slice(b"\r\n");
        for part in body {
            self.out.extend_from_slice(part);
        }
        self.out.extend_from_slice(b"\r\n");
    }
}

/// Subject and total size of a message: the first and the last word of its line.
fn message_line(rest: &[u8]) -> Option<(&[u8], usize)> {
    let subject = &rest[..memchr(b' ', rest)?];
    let size = &rest[memchr::memrchr(b' ', rest)? + 1..];
    Some((subject, number(size)?))
}

/// Where the answer goes: the third word of a line that has `words` with it.
fn reply_of(rest: &[u8], words: usize) -> Option<&[u8]> {
    let mut all = rest.split(|&byte| byte == b' ');
    let reply = all.nth(2)?;
    (all.count() + 3 == words).then_some(reply)
}

/// Size of the headers: the last word but one.
fn header_size(rest: &[u8]) -> Option<usize> {
    let rest = &rest[..memchr::memrchr(b' ', rest)?];
    number(&rest[memchr::memrchr(b' ', rest)? + 1..])
}

/// A message's size: a server allows no more than 64 MiB.
fn number(digits: &[u8]) -> Option<usize> {
    if digits.is_empty() || digits.len() > 9 {
        return None;
    }
    digits.iter().try_fold(0, |sum, digit| digit.is_ascii_digit().then(|| sum * 10 + usize::from(digit - b'0')))
}

/// Who sent, and to which room.
struct Recipient<'a> {
    account: &'a [u8],
    room: &'a [u8],
}

impl<'a> Recipient<'a> {
    /// From `chat.user.{account}.room.{room}.{site}.msg.send`.
    fn of(subject: &'a [u8]) -> Option<Self> {
        let rest = subject.strip_prefix(b"chat.user.")?;
        let (account, rest) = rest.split_at_checked(memchr(b'.', rest)?)?;
        let rest = rest.strip_prefix(b".room.")?;
        let room = &rest[..memchr(b'.', rest)?];
        Some(Self { account, room })
    }
}

/// The text behind a key, unescaped: ids have nothing to escape.
fn field<'a>(payload: &'a [u8], key: &[u8]) -> Option<&'a [u8]> {
    let from = memmem::find(payload, key)? + key.len();
    let text = &payload[from..];
    let text = &text[..memchr(b'"', text)?];
    // In a subject anything else would break the protocol.
    text.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-').then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use plimsoll_common::contract::payload::{Ack, broadcast_message_id, classify_ack};
    use proptest::prelude::*;

    const SEND: &str = "{\"id\":\"0aZ9\",\"content\":\"x\",\"requestId\":\"01980a2b-7c3d\"}";

    fn input() -> Vec<u8> {
        let subject = subjects::send("user-7", "room-000002", "s");
        let size = SEND.len();
        format!(
            "INFO {{}}\r\nPONG\r\nMSG {subject} 1 {size}\r\n{SEND}\r\nPING\r\n\
             HMSG {subject} 1 _INBOX.x 12 {}\r\nNATS/1.0\r\n\r\n{SEND}\r\nMSG {subject} 1 2\r\n{{}}\r\n",
            size + 12
        )
        .into_bytes()
    }

    #[test]
    fn sends_are_answered_with_and_without_headers() {
        let mut session = Session::new(NullAnswers::ReplyAndBroadcast);
        let input = input();
        assert_eq!(session.take(&input).unwrap(), input.len());
        assert_eq!((session.answered.get(), session.confirmed), (2, true));
        let out = String::from_utf8(session.out).unwrap();
        let lines: Vec<&str> = out.split_terminator("\r\n").collect();
        assert_eq!(lines.len(), 9, "{out}");
        let reply = lines[0].strip_prefix("PUB chat.user.user-7.response.01980a2b-7c3d ").unwrap();
        assert_eq!(reply.parse(), Ok(lines[1].len()));
        assert_eq!(classify_ack(lines[1].as_bytes()), Ack::Accepted);
        assert!(lines[2].starts_with("PUB chat.room.room-000002.event "), "{out}");
        assert_eq!(broadcast_message_id(lines[3].as_bytes()), Some(&b"0aZ9"[..]));
        assert_eq!(lines[4], "PONG");
    }

    #[test]
    fn an_echo_goes_to_whoever_awaits_it_as_it_came() {
        let mut session = Session::new(NullAnswers::Echo);
        let input = b"MSG svc.echo 1 _INBOX.a.1 2\r\nhi\r\nMSG svc.echo 1 2\r\nno\r\n\
                      HMSG svc.echo 1 _INBOX.a.2 12 14\r\nNATS/1.0\r\n\r\nho\r\n";
        assert_eq!(session.take(input).unwrap(), input.len());
        assert_eq!(String::from_utf8(session.out).unwrap(), "PUB _INBOX.a.1 2\r\nhi\r\nPUB _INBOX.a.2 2\r\nho\r\n");
        assert_eq!(session.answered.get(), 2);
    }

    proptest! {
        #[test]
        fn where_a_read_ends_changes_nothing(cuts in prop::collection::vec(1_usize..60, 1..20)) {
            let input = input();
            let mut whole = Session::new(NullAnswers::Reply);
            whole.take(&input).unwrap();
            let mut parts = Session::new(NullAnswers::Reply);
            let (mut held, mut from) = (Vec::new(), 0);
            for cut in cuts.into_iter().chain([input.len()]) {
                let to = input.len().min(from + cut);
                held.extend_from_slice(&input[from..to]);
                from = to;
                let consumed = parts.take(&held).unwrap();
                held.drain(..consumed);
            }
            prop_assert_eq!((parts.out, held.len()), (whole.out, 0));
        }

        #[test]
        fn garbage_never_panics(bytes: Vec<u8>, payload in "MSG [a-z. 0-9]{0,30}\r\n.{0,20}") {
            let _ = Session::new(NullAnswers::Reply).take(&bytes);
            let _ = Session::new(NullAnswers::ReplyAndBroadcast).take(payload.as_bytes());
            let _ = Session::new(NullAnswers::Echo).take(payload.as_bytes());
        }
    }
}
