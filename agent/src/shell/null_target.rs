//! A null target: as much of a NATS server as one client needs to send requests and read their replies, and nothing behind
//! it. A thread per connection, which reads, answers everything that is complete, and writes once.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// Bytes asked for at once: some hundred requests.
const READ: usize = 256 * 1024;
/// No control line is longer: what comes is our own client's.
const MAX_LINE: usize = 16 * 1024;
/// Between two looks for a connection.
const ACCEPT_INTERVAL: Duration = Duration::from_millis(2);

/// A null target that listens on loopback until it is dropped.
#[derive(Debug)]
pub struct NullTarget {
    address: SocketAddr,
    over: Arc<AtomicBool>,
    connections: Arc<Mutex<Vec<TcpStream>>>,
    accepting: Option<JoinHandle<()>>,
}

impl NullTarget {
    /// Listens; every request gets a reply of so many bytes.
    ///
    /// # Errors
    /// No port or no thread is to be had.
    pub fn start(reply_bytes: usize) -> std::io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let (over, connections) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let accepting = {
            let (over, connections) = (over.clone(), connections.clone());
            let accept = move || accept(&listener, &over, &connections, reply_bytes);
            std::thread::Builder::new().name("null-target".to_owned()).spawn(accept)?
        };
        Ok(Self { address, over, connections, accepting: Some(accepting) })
    }

    /// Where clients connect to.
    pub fn url(&self) -> String {
        format!("nats://{}", self.address)
    }
}

impl Drop for NullTarget {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
        for connection in self.connections.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            // The client may have gone before.
            let _ = connection.shutdown(Shutdown::Both);
        }
    }
}

fn accept(listener: &TcpListener, over: &AtomicBool, connections: &Mutex<Vec<TcpStream>>, reply_bytes: usize) {
    let port = listener.local_addr().map_or(0, |address| address.port());
    while !over.load(Ordering::Relaxed) {
        let Ok((socket, _)) = listener.accept() else {
            std::thread::sleep(ACCEPT_INTERVAL);
            continue;
        };
        let Ok(kept) = socket.try_clone() else { continue };
        connections.lock().unwrap_or_else(PoisonError::into_inner).push(kept);
        let serve = move || serve(socket, port, reply_bytes);
        if let Err(error) = std::thread::Builder::new().name("null-target".to_owned()).spawn(serve) {
            tracing::warn!(%error, "the null target cannot serve a connection");
        }
    }
}

/// Until the client or the target is gone; a socket's error is the same.
fn serve(mut socket: TcpStream, port: u16, reply_bytes: usize) {
    let info = format!(
        "INFO {{\"server_id\":\"null\",\"server_name\":\"null\",\"version\":\"2.10.0\",\"go\":\"\",\"host\":\"127.0.0.1\",\
         \"port\":{port},\"headers\":true,\"max_payload\":{},\"proto\":1}}\r\n",
        plimsoll_common::calibration::MOST_BYTES
    );
    let is_ready = socket.set_nonblocking(false).and_then(|()| socket.set_nodelay(true));
    if is_ready.and_then(|()| socket.write_all(info.as_bytes())).is_err() {
        return;
    }
    let mut session = Session::new(reply_bytes);
    let (mut buffer, mut filled) = (Vec::new(), 0);
    loop {
        if buffer.len() < filled + READ {
            buffer.resize(filled + READ, 0);
        }
        match socket.read(&mut buffer[filled..]) {
            Ok(0) => return,
            Ok(read) => filled += read,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(_) => return,
        }
        let Some(consumed) = session.take(&buffer[..filled]) else { return };
        buffer.copy_within(consumed..filled, 0);
        filled -= consumed;
        if socket.write_all(&session.out).is_err() {
            return;
        }
        session.out.clear();
    }
}

/// The protocol, without its socket.
struct Session {
    /// The subject up to its wildcard, whether it has one, and the subscription's id.
    subscriptions: Vec<(Vec<u8>, bool, Vec<u8>)>,
    reply: Vec<u8>,
    out: Vec<u8>,
}

impl Session {
    fn new(reply_bytes: usize) -> Self {
        Self { subscriptions: Vec::new(), reply: vec![b'.'; reply_bytes], out: Vec::with_capacity(READ) }
    }

    /// Understands as much of the input as is complete and says how many bytes that is; answers are left in `out`. `None`:
    /// it is not NATS.
    fn take(&mut self, input: &[u8]) -> Option<usize> {
        let mut at = 0;
        while let Some(length) = input[at..].iter().position(|&byte| byte == b'\n') {
            let line = input[at..at + length].trim_ascii_end();
            let body = at + length + 1;
            let mut words = line.split(|&byte| byte == b' ').filter(|word| !word.is_empty());
            at = match words.next().unwrap_or_default() {
                b"PUB" | b"HPUB" => {
                    let has_headers = line.starts_with(b"H");
                    let words: Vec<&[u8]> = words.collect();
                    let fixed = if has_headers { 3 } else { 2 };
                    let size: usize = std::str::from_utf8(words.last()?).ok()?.parse().ok()?;
                    let end = body.checked_add(size)?.checked_add(2)?;
                    if end > input.len() {
                        return Some(at);
                    }
                    let reply = if words.len() > fixed { words.get(1).copied() } else { None };
                    self.publish(words.first()?, reply);
                    end
                }
                b"SUB" => {
                    let (subject, sid) = (words.next()?, words.next_back()?);
                    let prefix = subject.strip_suffix(b"*").unwrap_or(subject);
                    self.subscriptions.push((prefix.to_vec(), prefix.len() < subject.len(), sid.to_vec()));
                    body
                }
                b"PING" => {
                    self.out.extend_from_slice(b"PONG\r\n");
                    body
                }
                b"CONNECT" | b"PONG" | b"UNSUB" | b"" => body,
                _ => return None,
            };
        }
        (input.len() - at <= MAX_LINE + READ + self.reply.len()).then_some(at)
    }

    /// What a client publishes to itself comes back, and what it asks is answered.
    fn publish(&mut self, subject: &[u8], reply: Option<&[u8]>) {
        self.deliver(subject, false);
        if let Some(reply) = reply {
            self.deliver(reply, true);
        }
    }

    fn deliver(&mut self, subject: &[u8], with_reply: bool) {
        let matches = |(prefix, is_wild, _): &&(Vec<u8>, bool, Vec<u8>)| {
            subject.strip_prefix(prefix.as_slice()).is_some_and(|rest| rest.is_empty() != *is_wild)
        };
        let Some((_, _, sid)) = self.subscriptions.iter().find(matches) else { return };
        let payload = if with_reply { self.reply.as_slice() } else { &[] };
        let size = payload.len().to_string();
        for part in [b"MSG ", subject, b" ", sid, b" ", size.as_bytes(), b"\r\n", payload, b"\r\n"] {
            self.out.extend_from_slice(part);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const INPUT: &[u8] = b"CONNECT {}\r\nSUB _INBOX.a.r.* 7\r\nSUB _INBOX.a.fence.* 8\r\nPING\r\n\
        PUB plimsoll.null _INBOX.a.r.2f 3\r\nabc\r\nPUB _INBOX.a.fence.1 0\r\n\r\nPUB nobody 1\r\nx\r\n";

    #[test]
    fn a_request_is_answered_and_what_is_sent_to_oneself_comes_back() {
        let mut session = Session::new(2);
        assert_eq!(session.take(INPUT), Some(INPUT.len()));
        let out = String::from_utf8(session.out).unwrap();
        assert_eq!(out, "PONG\r\nMSG _INBOX.a.r.2f 7 2\r\n..\r\nMSG _INBOX.a.fence.1 8 0\r\n\r\n");
    }

    #[test]
    fn what_is_not_nats_ends_the_connection() {
        assert_eq!(Session::new(2).take(b"GET / HTTP/1.1\r\n"), None);
        assert_eq!(Session::new(2).take(b"PUB a b\r\n"), None);
    }

    proptest! {
        #[test]
        fn where_a_read_ends_changes_nothing(cuts in prop::collection::vec(1_usize..40, 1..12)) {
            let mut whole = Session::new(2);
            whole.take(INPUT);
            let mut parts = Session::new(2);
            let (mut held, mut from) = (Vec::new(), 0);
            for cut in cuts.into_iter().chain([INPUT.len()]) {
                let to = INPUT.len().min(from + cut);
                held.extend_from_slice(&INPUT[from..to]);
                from = to;
                let consumed = parts.take(&held).unwrap();
                held.drain(..consumed);
            }
            prop_assert_eq!((parts.out, held.len()), (whole.out, 0));
        }

        #[test]
        fn garbage_never_panics(bytes: Vec<u8>, line in "(PUB|HPUB|SUB) [a-z. 0-9]{0,30}\r\n.{0,20}") {
            let _ = Session::new(2).take(&bytes);
            let _ = Session::new(2).take(line.as_bytes());
        }
    }
}
