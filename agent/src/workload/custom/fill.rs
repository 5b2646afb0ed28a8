//! Templates, compiled: filling one in is copying, and drawing from a state of one word. Nothing is looked up or allocated but the
//! chunk that messages are cut from.

use std::fmt::Write as _;
use std::ops::RangeInclusive;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::{BufMut as _, Bytes, BytesMut};
use plimsoll_common::contract::ids::IdCodec;
use plimsoll_common::contract::time::write_rfc3339;
use plimsoll_common::workload::custom::template::{MOST_RANDOM_BYTES, Piece, Template, TimeUnit};
use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;

/// Messages are cut from chunks of this size.
const CHUNK_BYTES: usize = 256 * 1024;
/// Random texts and bytes begin at one of so many places of their pool.
const POOL_PLACES: usize = 64 * 1024;
const LETTERS: &[u8; 64] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789ab";

/// What a worker fills templates with.
pub struct Filler {
    ids: IdCodec,
    worker: String,
    run: String,
    users: u32,
    rooms: u32,
    /// What random texts are cut from.
    letters: Vec<u8>,
    /// What random bytes are cut from.
    bytes: Vec<u8>,
    chunk: BytesMut,
}

/// A template ready to be filled in.
#[derive(Debug)]
pub struct Compiled {
    parts: Vec<Part>,
    /// Where it is the same for every operation.
    constant: Option<Bytes>,
    most_bytes: usize,
}

#[derive(Debug)]
enum Part {
    Text(Vec<u8>),
    Sequence,
    Id,
    Uuid,
    User,
    Room,
    Int { low: i64, span: u64 },
    Letters(Lengths),
    Bytes(Lengths),
    Choice(Vec<Vec<u8>>),
    Timestamp(TimeUnit),
}

#[derive(Debug, Clone, Copy)]
struct Lengths {
    low: u32,
    span: u64,
}

impl Compiled {
    /// What it always is, where it is always the same.
    pub fn constant(&self) -> Option<&Bytes> {
        self.constant.as_ref()
    }

    /// What it may be, for what is tried before there are operations.
    pub fn sample(&self, filler: &Filler) -> String {
        // An id that no operation has.
        const NEVER: u64 = (1 << 59) - 1;
        let mut filling = filler.begin(NEVER, NEVER);
        let mut sample = BytesMut::new();
        self.parts.iter().for_each(|part| filler.put(&mut sample, part, &mut filling));
        String::from_utf8_lossy(&sample).into_owned()
    }
}

/// What one operation's templates share.
#[derive(Debug, Clone)]
pub struct Filling {
    sequence: u64,
    state: u64,
    user: u32,
    room: u32,
}

impl Filler {
    /// For a worker with these ids; `worker` and `run` stand for themselves.
    pub fn new(ids: IdCodec, worker: String, run: String, users: u32, rooms: u32) -> Self {
        Self { ids, worker, run, users, rooms, letters: Vec::new(), bytes: Vec::new(), chunk: BytesMut::new() }
    }

    /// Makes a template ready, with what random texts it needs.
    pub fn compile(&mut self, template: &Template, chance: &mut ChaCha8Rng) -> Compiled {
        let mut parts: Vec<Part> = Vec::new();
        for piece in &template.pieces {
            let part = self.part(piece);
            match (parts.last_mut(), part) {
                (Some(Part::Text(before)), Part::Text(more)) => before.extend(more),
                (_, part) => parts.push(part),
            }
        }
        let pool = POOL_PLACES + MOST_RANDOM_BYTES as usize;
        if self.letters.is_empty() && parts.iter().any(|part| matches!(part, Part::Letters(_))) {
            self.letters = (0..pool).map(|_| LETTERS[chance.random_range(0..LETTERS.len())]).collect();
        }
        if self.bytes.is_empty() && parts.iter().any(|part| matches!(part, Part::Bytes(_))) {
            self.bytes = (0..pool).map(|_| chance.random()).collect();
        }
        let constant = match parts.as_slice() {
            [] => Some(Bytes::new()),
            [Part::Text(text)] => Some(Bytes::from(text.clone())),
            _ => None,
        };
        let own = (self.worker.len() + self.run.len()) * template.pieces.len();
        Compiled { parts, constant, most_bytes: template.most_bytes() as usize + own }
    }

    fn part(&self, piece: &Piece) -> Part {
        let lengths = |range: &RangeInclusive<u32>| Lengths {
            low: *range.start(),
            span: u64::from(*range.end()) - u64::from(*range.start()) + 1,
        };
        match piece {
            Piece::Text(text) => Part::Text(text.clone().into_bytes()),
            Piece::Worker => Part::Text(self.worker.clone().into_bytes()),
            Piece::Run => Part::Text(self.run.clone().into_bytes()),
            Piece::Sequence => Part::Sequence,
            Piece::Id => Part::Id,
            Piece::Uuid => Part::Uuid,
            Piece::User => Part::User,
            Piece::Room => Part::Room,
            // Zero stands for all 2^64.
            Piece::Int(range) => {
                Part::Int { low: *range.start(), span: range.end().wrapping_sub(*range.start()).wrapping_add(1) as u64 }
            }
            Piece::Letters(range) => Part::Letters(lengths(range)),
            Piece::Bytes(range) => Part::Bytes(lengths(range)),
            Piece::Choice(options) => Part::Choice(options.iter().map(|one| one.clone().into_bytes()).collect()),
            Piece::Timestamp(unit) => Part::Timestamp(*unit),
        }
    }

    /// Begins with an operation: `content` is what was drawn for it.
    #[inline]
    pub fn begin(&self, sequence: u64, content: u64) -> Filling {
        let mut filling = Filling { sequence, state: content, user: 0, room: 0 };
        filling.user = filling.below(u64::from(self.users)) as u32;
        filling.room = filling.below(u64::from(self.rooms)) as u32;
        filling
    }

    /// Fills a template in.
    pub fn fill(&mut self, template: &Compiled, filling: &mut Filling) -> Bytes {
        if let Some(constant) = &template.constant {
            return constant.clone();
        }
        if self.chunk.capacity() < template.most_bytes {
            // The old chunk lives on in the messages cut from it.
            self.chunk = BytesMut::with_capacity(CHUNK_BYTES.max(template.most_bytes));
        }
        let mut chunk = std::mem::take(&mut self.chunk);
        for part in &template.parts {
            self.put(&mut chunk, part, filling);
        }
        self.chunk = chunk;
        self.chunk.split().freeze()
    }

    fn put(&self, chunk: &mut BytesMut, part: &Part, filling: &mut Filling) {
        // Writing to memory does not fail.
        let _ = match part {
            Part::Text(text) => return chunk.put_slice(text),
            Part::Id => return chunk.put_slice(&self.ids.message_id(filling.sequence)),
            Part::Uuid => return chunk.put_slice(&self.ids.request_id(filling.sequence)),
            Part::Choice(options) => {
                return chunk.put_slice(&options[filling.below(options.len() as u64) as usize]);
            }
            Part::Letters(lengths) => return chunk.put_slice(filling.cut(&self.letters, *lengths)),
            Part::Bytes(lengths) => return chunk.put_slice(filling.cut(&self.bytes, *lengths)),
            Part::Sequence => write!(chunk, "{}", filling.sequence),
            Part::User => write!(chunk, "user-{}", filling.user),
            Part::Room => write!(chunk, "room-{}", filling.room),
            Part::Int { low, span: 0 } => write!(chunk, "{}", low.wrapping_add(filling.next() as i64)),
            Part::Int { low, span } => write!(chunk, "{}", low.wrapping_add(filling.below(*span) as i64)),
            Part::Timestamp(unit) => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                match unit {
                    TimeUnit::Rfc3339 => write_rfc3339(chunk, now.as_nanos() as u64),
                    TimeUnit::Seconds => write!(chunk, "{}", now.as_secs()),
                    TimeUnit::Millis => write!(chunk, "{}", now.as_millis()),
                    TimeUnit::Nanos => write!(chunk, "{}", now.as_nanos()),
                }
            }
        };
    }
}

impl Filling {
    /// SplitMix64 (Steele, Lea and Flood, 2014): one word of state, which the operation remembers.
    #[inline]
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut bits = self.state;
        bits = (bits ^ bits >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bits = (bits ^ bits >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        bits ^ bits >> 31
    }

    #[inline]
    fn below(&mut self, n: u64) -> u64 {
        super::below(self.next(), n)
    }

    #[inline]
    fn cut<'a>(&mut self, pool: &'a [u8], lengths: Lengths) -> &'a [u8] {
        let length = lengths.low as usize + self.below(lengths.span) as usize;
        let start = self.below(POOL_PLACES as u64) as usize;
        &pool[start..start + length]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use plimsoll_common::contract::ids::{Owner, Sender};
    use plimsoll_common::workload::custom::template::Role;
    use rand::SeedableRng as _;

    fn filler() -> Filler {
        Filler::new(IdCodec::new(Sender::new(7, 1, 2)), "1-2".into(), "7".into(), 50, 3)
    }

    fn filled(text: &str, sequence: u64, content: u64) -> String {
        let mut filler = filler();
        let template = Template::parse(text, Role::Payload).unwrap();
        let compiled = filler.compile(&template, &mut ChaCha8Rng::seed_from_u64(1));
        let mut filling = filler.begin(sequence, content);
        String::from_utf8(filler.fill(&compiled, &mut filling).to_vec()).unwrap()
    }

    #[test]
    fn what_stands_for_the_worker_and_the_operation_is_theirs() {
        assert_eq!(filled("a {{worker}} of {{run}}: {{sequence}}", 9, 0), "a 1-2 of 7: 9");
        let ids = IdCodec::new(Sender::new(7, 1, 2));
        assert_eq!(ids.owner_of_request(filled("{{uuid}}", 123, 0).as_bytes()), Owner::Mine(123));
        assert_eq!(ids.owner_of_message(filled("{{id}}", 123, 0).as_bytes()), Owner::Mine(123));
    }

    #[test]
    fn what_is_drawn_stays_within_its_bounds_and_reaches_both_ends() {
        let mut seen = std::collections::BTreeSet::new();
        let (mut shortest, mut longest) = (usize::MAX, 0);
        for content in 0..2000 {
            let text = filled("{{int:-2..2}} {{choice:a|b}} {{user}} {{room}} {{text:3..5}}", 0, content);
            let parts: Vec<&str> = text.split(' ').collect();
            seen.insert(parts[0].to_owned());
            let user: u32 = parts[2].strip_prefix("user-").unwrap().parse().unwrap();
            let room: u32 = parts[3].strip_prefix("room-").unwrap().parse().unwrap();
            assert!(user < 50 && room < 3 && matches!(parts[1], "a" | "b"), "{text}");
            assert!(parts[4].bytes().all(|byte| byte.is_ascii_alphanumeric()));
            (shortest, longest) = (shortest.min(parts[4].len()), longest.max(parts[4].len()));
        }
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), ["-1", "-2", "0", "1", "2"]);
        assert_eq!((shortest, longest), (3, 5));
    }

    #[test]
    fn the_whole_range_of_numbers_can_be_drawn() {
        let text = format!("{{{{int:{}..{}}}}}", i64::MIN, i64::MAX);
        let numbers: Vec<i64> = (0..100).map(|content| filled(&text, 0, content).parse().unwrap()).collect();
        assert!(numbers.iter().any(|number| *number < 0) && numbers.iter().any(|number| *number > 0));
    }

    #[test]
    fn user_and_room_are_the_same_all_through_an_operation_and_the_rest_is_not() {
        let text = filled("{{user}} {{user}} {{room}} {{room}} {{int:0..1000000000}} {{int:0..1000000000}}", 0, 5);
        let parts: Vec<&str> = text.split(' ').collect();
        assert_eq!((parts[0], parts[2]), (parts[1], parts[3]));
        assert_ne!(parts[4], parts[5]);
        assert_eq!(
            text,
            filled("{{user}} {{user}} {{room}} {{room}} {{int:0..1000000000}} {{int:0..1000000000}}", 1, 5)
        );
    }

    #[test]
    fn instants_are_written_as_asked() {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        for (unit, digits) in [("s", 10), ("ms", 13), ("ns", 19)] {
            let text = filled(&format!("{{{{timestamp:{unit}}}}}"), 0, 0);
            assert_eq!((text.len(), &text[..6]), (digits, &now.as_secs().to_string()[..6]), "{unit}");
        }
        assert!(filled("{{timestamp}}", 0, 0).ends_with('Z'));
    }

    #[test]
    fn chunks_run_out_without_mixing_messages() {
        let mut filler = filler();
        let template = Template::parse("{{sequence}}:{{bytes:0..9000}}", Role::Payload).unwrap();
        let compiled = filler.compile(&template, &mut ChaCha8Rng::seed_from_u64(1));
        let mut lengths = std::collections::BTreeSet::new();
        let messages: Vec<Bytes> = (0..1000)
            .map(|sequence| {
                let mut filling = filler.begin(sequence, sequence.wrapping_mul(0x9E37_79B9));
                filler.fill(&compiled, &mut filling)
            })
            .collect();
        for (sequence, message) in messages.iter().enumerate() {
            assert!(message.starts_with(format!("{sequence}:").as_bytes()));
            lengths.insert(message.len());
        }
        assert!(lengths.len() > 500);
    }
}
