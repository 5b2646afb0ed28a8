//! What a NATS server says to a client, cut from the bytes that have come, and what a client says to it. Pure: no socket.
//!
//! The client library keeps a channel of its own per subscription, some six kilobytes each: a box could not hold the thirty
//! subscriptions of twenty thousand people. This is the part of the protocol that a person's client needs.

use std::fmt::Write as _;

use bytes::{BufMut as _, BytesMut};

/// A message that arrived on one of a connection's subscriptions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heard<'a> {
    /// Where it was sent.
    pub subject: &'a str,
    /// What it says.
    pub payload: &'a [u8],
    /// A status in place of a reply: 503 where nobody listens.
    pub status: Option<u16>,
}

/// One thing that a server said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word<'a> {
    /// A message on the subscription with this number.
    Message(u64, Heard<'a>),
    /// It wants a sign of life.
    Ping,
    /// The answer to one of our pings.
    Pong,
    /// What the server is, as JSON.
    Info(&'a str),
    /// An error, in its words.
    Error(&'a str),
    /// Says nothing that matters.
    Ok,
}

/// What came is not what a NATS server says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("NATS sent what is not its protocol: {0}")]
pub struct Unreadable(String);

/// A line of a server is its INFO at most, which names the servers of its cluster.
const LONGEST_LINE: usize = 64 * 1024;
/// The largest payload that any server can be set to.
const LARGEST_PAYLOAD: usize = 64 * 1024 * 1024;

/// The first word in these bytes and how many of them it takes; `None`: it has not come whole.
///
/// # Errors
/// The bytes are no words of a NATS server.
pub fn next_word(bytes: &[u8]) -> Result<Option<(Word<'_>, usize)>, Unreadable> {
    let Some(end) = memchr::memchr(b'\n', bytes) else {
        return if bytes.len() > LONGEST_LINE { Err(unreadable(bytes)) } else { Ok(None) };
    };
    let line = bytes[..end].strip_suffix(b"\r").unwrap_or(&bytes[..end]);
    let line = std::str::from_utf8(line).map_err(|_| unreadable(bytes))?;
    let (verb, rest) = line.split_once([' ', '\t']).unwrap_or((line, ""));
    let word = match verb {
        "MSG" => return message(bytes, end + 1, rest, false),
        "HMSG" => return message(bytes, end + 1, rest, true),
        "PING" => Word::Ping,
        "PONG" => Word::Pong,
        "+OK" => Word::Ok,
        "INFO" => Word::Info(rest.trim()),
        "-ERR" => Word::Error(rest.trim().trim_matches('\'')),
        _ => return Err(unreadable(bytes)),
    };
    Ok(Some((word, end + 1)))
}

fn unreadable(bytes: &[u8]) -> Unreadable {
    Unreadable(String::from_utf8_lossy(&bytes[..bytes.len().min(40)]).into_owned())
}

/// `subject sid [reply] [header bytes] bytes`, and behind the line the bytes themselves and a line end.
fn message<'a>(
    bytes: &'a [u8],
    body: usize,
    arguments: &'a str,
    has_headers: bool,
) -> Result<Option<(Word<'a>, usize)>, Unreadable> {
    let wrong = || unreadable(bytes);
    let mut words = [""; 5];
    let mut count = 0;
    for word in arguments.split_ascii_whitespace() {
        *words.get_mut(count).ok_or_else(wrong)? = word;
        count += 1;
    }
    let lengths = if has_headers { 2 } else { 1 };
    if !(2 + lengths..=3 + lengths).contains(&count) {
        return Err(wrong());
    }
    let number = |word: &str| word.parse::<usize>().map_err(|_| wrong());
    let sid = words[1].parse::<u64>().map_err(|_| wrong())?;
    let total = number(words[count - 1])?;
    let headers = if has_headers { number(words[count - 2])? } else { 0 };
    if headers > total || total > LARGEST_PAYLOAD {
        return Err(wrong());
    }
    let Some(content) = bytes.get(body..body + total + 2) else { return Ok(None) };
    if &content[total..] != b"\r\n" {
        return Err(wrong());
    }
    let status = if has_headers { status(&content[..headers]) } else { None };
    let heard = Heard { subject: words[0], payload: &content[headers..total], status };
    Ok(Some((Word::Message(sid, heard), body + total + 2)))
}

/// `NATS/1.0 503` and what else stands on the headers' first line.
fn status(headers: &[u8]) -> Option<u16> {
    let digits = headers.strip_prefix(b"NATS/1.0 ")?.get(..3)?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Appends a subscription.
pub fn subscribe(out: &mut BytesMut, subject: &str, sid: u64) {
    put(out, format_args!("SUB {subject} {sid}\r\n"));
}

/// Appends a message without a header.
pub fn publish_bare(out: &mut BytesMut, subject: &str, payload: &[u8]) {
    put(out, format_args!("PUB {subject} {}\r\n", payload.len()));
    out.reserve(payload.len() + 2);
    out.put_slice(payload);
    out.put_slice(b"\r\n");
}

/// Appends a message with one header.
pub fn publish(out: &mut BytesMut, subject: &str, reply: Option<&str>, header: (&str, &str), payload: &[u8]) {
    let (name, value) = header;
    // `NATS/1.0`, the header's line, and the empty one.
    let headers = 10 + name.len() + 2 + value.len() + 2 + 2;
    let (reply, gap) = reply.map_or(("", ""), |reply| (reply, " "));
    put(
        out,
        format_args!(
            "HPUB {subject} {reply}{gap}{headers} {}\r\nNATS/1.0\r\n{name}: {value}\r\n\r\n",
            headers + payload.len()
        ),
    );
    out.reserve(payload.len() + 2);
    out.put_slice(payload);
    out.put_slice(b"\r\n");
}

fn put(out: &mut BytesMut, words: std::fmt::Arguments<'_>) {
    out.reserve(256);
    // Writing to memory does not fail: the buffer grows.
    let _ = out.write_fmt(words);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(bytes: &[u8]) -> Result<Option<(Word<'_>, usize)>, Unreadable> {
        next_word(bytes)
    }

    #[test]
    fn each_word_of_a_server_is_read() {
        let heard = |subject, payload: &'static [u8], status| Heard { subject, payload, status };
        for (bytes, word) in [
            (&b"PING\r\n"[..], Word::Ping),
            (b"PONG\r\n", Word::Pong),
            (b"+OK\r\n", Word::Ok),
            (b"INFO {\"nonce\":\"x y\"}\r\n", Word::Info("{\"nonce\":\"x y\"}")),
            (b"-ERR 'Authorization Violation'\r\n", Word::Error("Authorization Violation")),
            (b"MSG a.b 7 2\r\nhi\r\n", Word::Message(7, heard("a.b", b"hi", None))),
            (b"MSG a.b 7 reply.to 0\r\n\r\n", Word::Message(7, heard("a.b", b"", None))),
            (b"HMSG a 1 22 24\r\nNATS/1.0\r\nA: bcdef\r\n\r\nhi\r\n", Word::Message(1, heard("a", b"hi", None))),
            (b"HMSG a 1 r 16 16\r\nNATS/1.0 503\r\n\r\n\r\n", Word::Message(1, heard("a", b"", Some(503)))),
        ] {
            assert_eq!(read(bytes), Ok(Some((word, bytes.len()))), "{}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn what_is_no_word_is_refused() {
        for bytes in [
            &b"HELLO\r\n"[..],
            b"MSG a 1\r\n",
            b"MSG a x 1\r\n",
            b"MSG a 1 b c 1\r\n",
            b"MSG a 1 2\r\nhixx",
            b"HMSG a 1 9 3\r\nhi!\r\n",
            b"MSG a 1 99999999999\r\n",
            b"\xff\xfe\r\n",
        ] {
            assert!(read(bytes).is_err(), "{}", String::from_utf8_lossy(bytes));
        }
        assert!(read(&vec![b'x'; LONGEST_LINE + 1]).is_err());
    }

    proptest! {
        #[test]
        fn a_word_that_has_not_come_whole_waits_for_the_rest(payload in prop::collection::vec(any::<u8>(), 0..200), cut: prop::sample::Index) {
            let mut whole = format!("MSG chat.room.x.event 12 {}\r\n", payload.len()).into_bytes();
            whole.extend_from_slice(&payload);
            whole.extend_from_slice(b"\r\n");
            let cut = cut.index(whole.len());
            prop_assert_eq!(read(&whole[..cut]), Ok(None));
            let heard = Heard { subject: "chat.room.x.event", payload: &payload, status: None };
            prop_assert_eq!(read(&whole), Ok(Some((Word::Message(12, heard), whole.len()))));
        }

        #[test]
        fn any_bytes_are_words_or_none(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(Some((_, taken))) = read(&bytes) {
                prop_assert!(taken <= bytes.len());
            }
        }

        #[test]
        fn headers_that_lie_about_their_length_are_no_panic(headers in 0_usize..50, total in 0_usize..50, body in prop::collection::vec(any::<u8>(), 0..60)) {
            let mut bytes = format!("HMSG a 1 {headers} {total}\r\n").into_bytes();
            bytes.extend_from_slice(&body);
            let _ = read(&bytes);
        }
    }

    #[test]
    fn what_is_said_is_what_a_server_reads() {
        let mut out = BytesMut::new();
        subscribe(&mut out, "a.*", 3);
        publish(&mut out, "a.b", Some("r.1"), ("X-Request-ID", "id"), b"hi");
        publish(&mut out, "a.b", None, ("X-Request-ID", "id"), b"");
        publish_bare(&mut out, "a.b", b"hi");
        assert_eq!(
            String::from_utf8_lossy(&out),
            "SUB a.* 3\r\nHPUB a.b r.1 30 32\r\nNATS/1.0\r\nX-Request-ID: id\r\n\r\nhi\r\n\
             HPUB a.b 30 30\r\nNATS/1.0\r\nX-Request-ID: id\r\n\r\n\r\nPUB a.b 2\r\nhi\r\n"
        );
    }
}
