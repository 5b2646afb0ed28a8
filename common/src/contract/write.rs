//! Bodies written from their parts, without a serializer and without allocating.

use bytes::{BufMut, BytesMut};

/// Appends the body of a send. The parts are written as they are: `id` and `request_id` have no character that JSON
/// escapes, and `content` is already escaped.
pub fn write_send_request(buf: &mut BytesMut, id: &[u8], request_id: &[u8], content: &[u8]) {
    put(buf, &[b"{\"id\":\"", id, b"\",\"content\":\"", content, b"\",\"requestId\":\"", request_id, b"\"}"]);
}

/// Appends the body of a send that replies in the thread of the message `parent`, under the same conditions.
pub fn write_thread_reply(buf: &mut BytesMut, id: &[u8], request_id: &[u8], parent: &[u8], content: &[u8]) {
    put(
        buf,
        &[
            b"{\"id\":\"",
            id,
            b"\",\"content\":\"",
            content,
            b"\",\"requestId\":\"",
            request_id,
            b"\",\"threadParentMessageId\":\"",
            parent,
            b"\"}",
        ],
    );
}

/// Appends the body of a canonical `created` event. The parts are written as they are, so they must already be JSON-safe.
/// `timestamp_ms` is in Unix milliseconds.
#[expect(clippy::too_many_arguments, reason = "one argument per field; a struct of slices would only rename them")]
pub fn write_canonical_event(
    buf: &mut BytesMut,
    id: &[u8],
    room_id: &[u8],
    user_id: &[u8],
    account: &[u8],
    content: &[u8],
    created_at_rfc3339: &[u8],
    site: &[u8],
    timestamp_ms: u64,
) {
    put(
        buf,
        &[
            b"{\"event\":\"created\",\"message\":{\"id\":\"",
            id,
            b"\",\"roomId\":\"",
            room_id,
            b"\",\"userId\":\"",
            user_id,
            b"\",\"userAccount\":\"",
            account,
            b"\",\"content\":\"",
            content,
            b"\",\"createdAt\":\"",
            created_at_rfc3339,
            b"\"},\"siteId\":\"",
            site,
            b"\",\"timestamp\":",
        ],
    );
    put_decimal(buf, timestamp_ms);
    buf.put_u8(b'}');
}

fn put(buf: &mut BytesMut, parts: &[&[u8]]) {
    buf.reserve(parts.iter().map(|part| part.len()).sum());
    for part in parts {
        buf.put_slice(part);
    }
}

fn put_decimal(buf: &mut BytesMut, mut value: u64) {
    // A u64 has at most 20 digits.
    let mut digits = [0_u8; 20];
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    buf.put_slice(&digits[start..]);
}

#[cfg(test)]
mod tests {
    use super::super::payload::{CanonicalEvent, SendRequest};
    use super::*;
    use proptest::prelude::*;

    /// The text as it stands between the quotes of a JSON string.
    fn escaped(text: &str) -> String {
        let quoted = serde_json::to_string(text).unwrap();
        quoted[1..quoted.len() - 1].to_owned()
    }

    proptest! {
        #[test]
        fn a_written_send_reads_back(id in "[0-9A-Za-z]{20}", request in "[0-9a-f-]{36}", content in "\\PC{0,300}") {
            let mut buf = BytesMut::new();
            write_send_request(&mut buf, id.as_bytes(), request.as_bytes(), escaped(&content).as_bytes());
            let read: SendRequest = serde_json::from_slice(&buf).unwrap();
            let (thread_parent_message_id, quoted_parent_message_id) = (None, None);
            let sent = SendRequest { id: id.into(), content: content.into(), request_id: request.into(), thread_parent_message_id, quoted_parent_message_id };
            prop_assert_eq!(&read, &sent);
            let mut buf = BytesMut::new();
            let (id, request) = (sent.id.as_bytes(), sent.request_id.as_bytes());
            write_thread_reply(&mut buf, id, request, b"0aZ9kLmN3pQrS7tUvWxY", escaped(&sent.content).as_bytes());
            let read: SendRequest = serde_json::from_slice(&buf).unwrap();
            let parent = Some("0aZ9kLmN3pQrS7tUvWxY".into());
            prop_assert_eq!(read, SendRequest { thread_parent_message_id: parent, ..sent.clone() });
        }

        #[test]
        fn a_written_canonical_event_reads_back(id in "[0-9A-Za-z]{20}", content in "\\PC{0,300}", timestamp: u64) {
            let mut buf = BytesMut::from(&b"before"[..]);
            write_canonical_event(
                &mut buf, id.as_bytes(), b"room-000002", b"u-000007", b"user-7", escaped(&content).as_bytes(),
                b"2026-06-28T03:29:14Z", b"site-local", timestamp,
            );
            let read: CanonicalEvent = serde_json::from_slice(&buf[6..]).unwrap();
            prop_assert_eq!(serde_json::to_vec(&read).unwrap(), &buf[6..]);
            prop_assert_eq!(&*read.message.content, content);
            prop_assert_eq!((&*read.message.id, &*read.event, read.timestamp), (&*id, "created", timestamp));
        }
    }
}
