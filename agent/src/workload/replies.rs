//! Correlating replies: one wildcard subscription per connection, and a reply subject whose last token is the operation's
//! sequence number. The inbox is the connection's alone, so the token says all.

use async_nats::Subject;
use bytes::{BufMut as _, BytesMut};

use super::Subscription;

/// Reply subjects are cut from chunks of this size.
const CHUNK_BYTES: usize = 64 * 1024;
/// A u64 has at most 16 hexadecimal digits.
const DIGITS: usize = 16;

/// Writes reply subjects and reads them back.
#[derive(Debug)]
pub struct Replies {
    prefix: String,
    chunk: BytesMut,
}

impl Replies {
    /// Replies to this connection's inbox under a token of their own.
    pub fn new(inbox: &str, token: &str) -> Self {
        Self { prefix: format!("{inbox}.{token}."), chunk: BytesMut::new() }
    }

    /// The subscription on which all replies arrive.
    pub fn subscription(&self, tag: u32) -> Subscription {
        Subscription { subject: format!("{}*", self.prefix), tag }
    }

    /// Where the reply to an operation goes.
    pub fn subject(&mut self, sequence: u64) -> Subject {
        let needed = self.prefix.len() + DIGITS;
        if self.chunk.capacity() < needed {
            // The old chunk lives on in the subjects cut from it.
            self.chunk = BytesMut::with_capacity(CHUNK_BYTES.max(needed));
        }
        self.chunk.put_slice(self.prefix.as_bytes());
        let mut digits = [0_u8; DIGITS];
        let mut start = DIGITS;
        let mut rest = sequence;
        loop {
            start -= 1;
            digits[start] = b"0123456789abcdef"[(rest & 15) as usize];
            rest >>= 4;
            if rest == 0 {
                break;
            }
        }
        self.chunk.put_slice(&digits[start..]);
        Subject::from_utf8(self.chunk.split().freeze()).expect("a prefix of text and digits are text")
    }

    /// The operation that a reply subject names; `None`: it is none that [`Self::subject`] writes.
    pub fn sequence(&self, subject: &str) -> Option<u64> {
        let token = subject.strip_prefix(&*self.prefix)?;
        let canonical = !token.is_empty()
            && token.len() <= DIGITS
            && (token == "0" || !token.starts_with('0'))
            && token.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if canonical { u64::from_str_radix(token, 16).ok() } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn reply_subjects_lead_back_to_their_operation(sequence: u64) {
            let mut replies = Replies::new("_INBOX.abc", "r");
            let subject = replies.subject(sequence);
            prop_assert_eq!(replies.sequence(&subject), Some(sequence));
        }

        #[test]
        fn what_is_read_is_what_would_be_written(token in "[0-9a-fA-F+ .]{0,18}") {
            let mut replies = Replies::new("_INBOX.abc", "r");
            let subject = format!("_INBOX.abc.r.{token}");
            if let Some(sequence) = replies.sequence(&subject) {
                let written = replies.subject(sequence);
                prop_assert_eq!(written.as_str(), subject);
            }
        }
    }

    #[test]
    fn chunks_run_out_without_mixing_subjects() {
        let mut replies = Replies::new("_INBOX.abc", "r");
        let subjects: Vec<Subject> = (0..10_000).map(|sequence| replies.subject(sequence)).collect();
        assert!((0..).zip(&subjects).all(|(sequence, subject)| replies.sequence(subject) == Some(sequence)));
    }
}
