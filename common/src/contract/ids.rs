//! Message and request ids that say who asked: run, agent, worker and operation, so that an answer is routed or rejected
//! without a table that workers share, and no id is ever used twice.
//!
//! An id is two numbers below 2^59: the *sender* (run nonce 39 bits, agent 12, worker 8) and the *sequence* (the worker's
//! operation counter; its low bits are the slot, the rest the slot's generation). A message id is both in base62, ten
//! characters each (62^10 > 2^59), which is the 20-character form the chat demands; a request id is both in a UUID of
//! version 8 (RFC 9562 section 5.8: free bits for the application).

use crate::plan::{MAX_AGENTS, MAX_WORKERS, RUN_NONCE_LIMIT};

/// Characters of a message id.
pub const MESSAGE_ID_BYTES: usize = 20;
/// Characters of a request id.
pub const REQUEST_ID_BYTES: usize = 36;

const HALF: usize = MESSAGE_ID_BYTES / 2;
const BITS: u32 = 59;
const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const HEX: &[u8; 16] = b"0123456789abcdef";

/// Who sends: one worker of one agent in one run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Sender(u64);

impl Sender {
    /// # Panics
    /// When a part does not fit its bits; the protocol refuses such plans.
    pub fn new(run_nonce: u64, agent: u16, worker: u8) -> Self {
        assert!(run_nonce < RUN_NONCE_LIMIT && usize::from(agent) < MAX_AGENTS, "checked where the plan arrives");
        const { assert!(MAX_WORKERS == 256) };
        Self(run_nonce << 20 | u64::from(agent) << 8 | u64::from(worker))
    }

    fn run_nonce(self) -> u64 {
        self.0 >> 20
    }

    /// Run and agent.
    fn agent(self) -> u64 {
        self.0 >> 8
    }

    fn worker(self) -> u8 {
        self.0 as u8
    }
}

/// Whose an id is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// The asking worker's own, with the operation's sequence number.
    Mine(u64),
    /// Another worker's of the same agent and run.
    Sibling {
        /// Its position on the agent.
        worker: u8,
        /// The operation's sequence number there.
        sequence: u64,
    },
    /// Another agent's of the same run.
    OtherOwner,
    /// Of no worker of this run.
    Foreign,
}

/// Writes and reads the ids of one worker.
#[derive(Debug, Clone)]
pub struct IdCodec {
    sender: Sender,
    message_prefix: [u8; HALF],
    request_template: [u8; REQUEST_ID_BYTES],
}

impl IdCodec {
    /// The codec of one worker.
    pub fn new(sender: Sender) -> Self {
        let mut codec = Self { sender, message_prefix: base62(sender.0), request_template: [b'-'; REQUEST_ID_BYTES] };
        codec.request_template = uuid(sender.0, 0);
        codec
    }

    /// The message id of operation `sequence` (below 2^59).
    pub fn message_id(&self, sequence: u64) -> [u8; MESSAGE_ID_BYTES] {
        let mut id = [0; MESSAGE_ID_BYTES];
        id[..HALF].copy_from_slice(&self.message_prefix);
        id[HALF..].copy_from_slice(&base62(sequence));
        id
    }

    /// The request id of operation `sequence` (below 2^59).
    pub fn request_id(&self, sequence: u64) -> [u8; REQUEST_ID_BYTES] {
        let mut id = self.request_template;
        write_low(&mut id, sequence);
        id
    }

    /// Whose a message id is.
    pub fn owner_of_message(&self, id: &[u8]) -> Owner {
        let Some((sender, sequence)) = id.split_at_checked(HALF).filter(|_| id.len() == MESSAGE_ID_BYTES) else {
            return Owner::Foreign;
        };
        if sender == self.message_prefix {
            return unbase62(sequence).map_or(Owner::Foreign, Owner::Mine);
        }
        self.other(unbase62(sender), || unbase62(sequence))
    }

    /// Whose a request id is.
    pub fn owner_of_request(&self, id: &[u8]) -> Owner {
        match un_uuid(id) {
            Some((sender, sequence)) if sender == self.sender.0 => Owner::Mine(sequence),
            Some((sender, sequence)) => self.other(Some(sender), || Some(sequence)),
            None => Owner::Foreign,
        }
    }

    fn other(&self, sender: Option<u64>, sequence: impl FnOnce() -> Option<u64>) -> Owner {
        match sender.map(Sender) {
            Some(sender) if sender.agent() == self.sender.agent() => {
                sequence().map_or(Owner::Foreign, |sequence| Owner::Sibling { worker: sender.worker(), sequence })
            }
            Some(sender) if sender.run_nonce() == self.sender.run_nonce() => Owner::OtherOwner,
            _ => Owner::Foreign,
        }
    }
}

fn base62(mut value: u64) -> [u8; HALF] {
    let mut digits = [b'0'; HALF];
    for digit in digits.iter_mut().rev() {
        *digit = ALPHABET[(value % 62) as usize];
        value /= 62;
    }
    digits
}

/// Characters' values in base62, 255 for what is none.
const VALUES: [u8; 256] = {
    let mut values = [255; 256];
    let mut i = 0;
    while i < ALPHABET.len() {
        values[ALPHABET[i] as usize] = i as u8;
        i += 1;
    }
    values
};

fn unbase62(digits: &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for &digit in digits {
        match VALUES[digit as usize] {
            255 => return None,
            digit => value = value * 62 + u64::from(digit),
        }
    }
    Some(value).filter(|value| value >> BITS == 0)
}

/// Where the 32 hex digits stand among the 36 characters.
const HEX_POSITIONS: [usize; 32] = {
    let mut positions = [0; 32];
    let (mut digit, mut at) = (0, 0);
    while at < REQUEST_ID_BYTES {
        if at != 8 && at != 13 && at != 18 && at != 23 {
            positions[digit] = at;
            digit += 1;
        }
        at += 1;
    }
    positions
};

// The digits of a UUID: 12 of the sender, the version, 3 of the sender (15 × 4 = 60 bits), then the variant digit,
// whose low 2 bits are free and stay 0, and 15 of the sequence.
fn uuid(sender: u64, sequence: u64) -> [u8; REQUEST_ID_BYTES] {
    let mut id = [b'-'; REQUEST_ID_BYTES];
    for digit in 0..12 {
        id[HEX_POSITIONS[digit]] = HEX[(sender >> (56 - 4 * digit) & 15) as usize];
    }
    id[HEX_POSITIONS[12]] = b'8';
    for digit in 12..15 {
        id[HEX_POSITIONS[digit + 1]] = HEX[(sender >> (56 - 4 * digit) & 15) as usize];
    }
    id[HEX_POSITIONS[16]] = b'8';
    write_low(&mut id, sequence);
    id
}

fn write_low(id: &mut [u8; REQUEST_ID_BYTES], sequence: u64) {
    for digit in 0..15 {
        id[HEX_POSITIONS[17 + digit]] = HEX[(sequence >> (56 - 4 * digit) & 15) as usize];
    }
}

fn un_uuid(id: &[u8]) -> Option<(u64, u64)> {
    if id.len() != REQUEST_ID_BYTES || [8, 13, 18, 23].iter().any(|&at| id[at] != b'-') {
        return None;
    }
    let digit = |position: usize| match id[HEX_POSITIONS[position]] {
        c @ b'0'..=b'9' => Some(u64::from(c - b'0')),
        c @ b'a'..=b'f' => Some(u64::from(c - b'a') + 10),
        c @ b'A'..=b'F' => Some(u64::from(c - b'A') + 10),
        _ => None,
    };
    if digit(12)? != 8 || digit(16)? != 8 {
        return None;
    }
    let (mut sender, mut sequence) = (0, 0);
    for position in (0..12).chain(13..16) {
        sender = sender << 4 | digit(position)?;
    }
    for position in 17..32 {
        sequence = sequence << 4 | digit(position)?;
    }
    (sender >> BITS == 0 && sequence >> BITS == 0).then_some((sender, sequence))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn codecs() -> impl Strategy<Value = (u64, u16, u8)> {
        (0..RUN_NONCE_LIMIT, 0..MAX_AGENTS as u16, any::<u8>())
    }

    proptest! {
        #[test]
        fn ids_lead_back_to_their_operation((nonce, agent, worker) in codecs(), sequence in 0_u64..1 << BITS) {
            let codec = IdCodec::new(Sender::new(nonce, agent, worker));
            let (message, request) = (codec.message_id(sequence), codec.request_id(sequence));
            prop_assert!(message.iter().all(u8::is_ascii_alphanumeric));
            prop_assert_eq!(codec.owner_of_message(&message), Owner::Mine(sequence));
            prop_assert_eq!(codec.owner_of_request(&request), Owner::Mine(sequence));
            prop_assert_eq!(codec.owner_of_request(&request.to_ascii_uppercase()), Owner::Mine(sequence));
        }

        #[test]
        fn whose_an_id_is_is_told_by_worker_agent_and_run(
            (nonce, agent, worker) in codecs(), other_worker in any::<u8>(), sequence in 0_u64..1 << BITS,
        ) {
            let mine = IdCodec::new(Sender::new(nonce, agent, worker));
            let other_agent = (agent + 1) % MAX_AGENTS as u16;
            let sibling = match other_worker {
                own if own == worker => Owner::Mine(sequence),
                worker => Owner::Sibling { worker, sequence },
            };
            for (other, owner) in [
                (Sender::new(nonce, agent, other_worker), sibling),
                (Sender::new(nonce, other_agent, other_worker), Owner::OtherOwner),
                (Sender::new((nonce + 1) % RUN_NONCE_LIMIT, agent, other_worker), Owner::Foreign),
            ] {
                let other = IdCodec::new(other);
                prop_assert_eq!(mine.owner_of_message(&other.message_id(sequence)), owner);
                prop_assert_eq!(mine.owner_of_request(&other.request_id(sequence)), owner);
            }
        }

        #[test]
        fn a_siblings_id_that_is_broken_is_nobodys((nonce, agent, worker) in codecs(), at in HALF..MESSAGE_ID_BYTES) {
            let mine = IdCodec::new(Sender::new(nonce, agent, worker));
            let mut id = IdCodec::new(Sender::new(nonce, agent, worker.wrapping_add(1))).message_id(7);
            id[at] = b'-';
            prop_assert_eq!(mine.owner_of_message(&id), Owner::Foreign);
        }

        #[test]
        fn any_bytes_are_somebodys_or_nobodys(bytes in prop::collection::vec(any::<u8>(), 0..50)) {
            let codec = IdCodec::new(Sender::new(1, 2, 3));
            let _ = (codec.owner_of_message(&bytes), codec.owner_of_request(&bytes));
        }
    }

    #[test]
    fn a_request_id_is_a_uuid_of_version_8() {
        let id = IdCodec::new(Sender::new(RUN_NONCE_LIMIT - 1, 4095, 255)).request_id(12_345);
        assert_eq!(std::str::from_utf8(&id), Ok("7fffffff-ffff-8fff-8000-000000003039"));
    }
}
