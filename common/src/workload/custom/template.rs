//! Texts with placeholders: `orders.{{room}}.{{int:1..100}}`. Parsed here; agents compile and fill them in.

use std::fmt;
use std::ops::RangeInclusive;

/// Every placeholder, as the error about an unknown one lists them.
pub const PLACEHOLDERS: &[&str] = &[
    "{{sequence}}",
    "{{id}}",
    "{{uuid}}",
    "{{worker}}",
    "{{run}}",
    "{{user}}",
    "{{room}}",
    "{{int:LOW..HIGH}}",
    "{{text:LENGTH}}",
    "{{bytes:LENGTH}}",
    "{{choice:ONE|OTHER}}",
    "{{timestamp}}",
    "{{timestamp:s}}",
    "{{timestamp:ms}}",
    "{{timestamp:ns}}",
];

/// The longest random text or bytes.
pub const MOST_RANDOM_BYTES: u32 = 64 * 1024;

/// A text with placeholders, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Template {
    /// Its parts; neither of two neighbours is a text.
    pub pieces: Vec<Piece>,
}

/// A part of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// As it stands.
    Text(String),
    /// The operation's number on its worker, from 0.
    Sequence,
    /// 20 letters and digits that name run, agent, worker and operation.
    Id,
    /// A UUID that names run, agent, worker and operation.
    Uuid,
    /// Agent and worker: `0-1`.
    Worker,
    /// The run's number.
    Run,
    /// One of the users, the same all through an operation.
    User,
    /// One of the rooms, the same all through an operation.
    Room,
    /// A whole number, evenly.
    Int(RangeInclusive<i64>),
    /// Letters and digits of a length that is drawn evenly.
    Letters(RangeInclusive<u32>),
    /// Bytes of a length that is drawn evenly.
    Bytes(RangeInclusive<u32>),
    /// One of these, evenly.
    Choice(Vec<String>),
    /// When the message was written.
    Timestamp(TimeUnit),
}

/// How an instant is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeUnit {
    /// RFC 3339 in UTC.
    Rfc3339,
    /// Unix seconds.
    Seconds,
    /// Unix milliseconds.
    Millis,
    /// Unix nanoseconds.
    Nanos,
}

/// Where a template stands, which decides what it may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Where a message goes: tokens without wildcards.
    Subject,
    /// What is subscribed to: the same for a whole run of a worker, wildcards allowed.
    Filter,
    /// A header's value: one line.
    Header,
    /// A body.
    Payload,
}

impl Role {
    fn words(self) -> &'static str {
        match self {
            Self::Subject => "a subject",
            Self::Filter => "a subject to subscribe to",
            Self::Header => "a header",
            Self::Payload => "a payload",
        }
    }
}

impl Template {
    /// Reads a text in its role.
    ///
    /// # Errors
    /// A placeholder that there is not or that does not fit here; in words.
    pub fn parse(text: &str, role: Role) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("{{") {
            push_text(&mut pieces, before);
            let Some((inside, behind)) = after.split_once("}}") else {
                return Err(format!("'{{{{' without '}}}}' in '{}'", shortened(text)));
            };
            let piece = Piece::parse(inside.trim())?;
            piece.fits(role)?;
            pieces.push(piece);
            rest = behind;
        }
        push_text(&mut pieces, rest);
        let template = Self { pieces };
        match role {
            Role::Subject | Role::Filter => template.check_subject(text, role)?,
            Role::Header if text.contains(['\r', '\n']) => {
                return Err(format!("got '{}', a header's value is one line", shortened(text).escape_debug()));
            }
            Role::Header | Role::Payload => {}
        }
        Ok(template)
    }

    /// Whether an answer that carries this can be led back to its operation.
    pub fn names_operation(&self) -> bool {
        self.pieces.iter().any(|piece| matches!(piece, Piece::Id | Piece::Uuid))
    }

    /// Whether it is nothing but an id that names the operation.
    pub fn is_operation(&self) -> bool {
        matches!(self.pieces.as_slice(), [Piece::Id | Piece::Uuid])
    }

    /// The subject that all of its messages match: `jobs.{{user}}.new` is within `jobs.*.new`.
    pub fn wildcard(&self) -> String {
        let spread = self.pieces.iter().map(|piece| match piece {
            Piece::Text(text) => text.clone(),
            Piece::Worker => "{{worker}}".to_owned(),
            Piece::Run => "{{run}}".to_owned(),
            // A choice may hold tokens of its own.
            Piece::Choice(options) if options.iter().any(|option| option.contains('.')) => "\u{1}".to_owned(),
            _ => "\u{2}".to_owned(),
        });
        let subject: String = spread.collect();
        let mut tokens = Vec::new();
        for token in subject.split('.') {
            if token.contains('\u{1}') {
                tokens.push(">");
                break;
            }
            tokens.push(if token.contains('\u{2}') { "*" } else { token });
        }
        tokens.join(".")
    }

    /// The largest number of bytes that it takes, ids and numbers at their longest.
    pub fn most_bytes(&self) -> u64 {
        self.pieces.iter().map(Piece::most_bytes).sum()
    }

    fn check_subject(&self, text: &str, role: Role) -> Result<(), String> {
        let takes = |got: &str| {
            let wildcards = if role == Role::Filter { "" } else { ", '*' or '>'" };
            format!(
                "got '{}', expected tokens separated by dots, none of them empty, without spaces{wildcards}",
                shortened(got)
            )
        };
        let is_odd = |c: char| c.is_whitespace() || c.is_control() || (role == Role::Subject && matches!(c, '*' | '>'));
        let mut sample = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => sample.push_str(text),
                Piece::Choice(options) => {
                    for option in options {
                        let has_gap = option.split('.').any(str::is_empty);
                        if has_gap || option.contains(is_odd) {
                            return Err(takes(option));
                        }
                    }
                    sample.push('x');
                }
                _ => sample.push('x'),
            }
        }
        if sample.split('.').any(str::is_empty) || sample.contains(is_odd) {
            return Err(takes(text));
        }
        Ok(())
    }
}

fn push_text(pieces: &mut Vec<Piece>, text: &str) {
    if !text.is_empty() {
        pieces.push(Piece::Text(text.to_owned()));
    }
}

/// So much of a text as an error can show.
fn shortened(text: &str) -> String {
    const MOST: usize = 60;
    if text.chars().count() <= MOST { text.to_owned() } else { text.chars().take(MOST).chain("…".chars()).collect() }
}

impl Piece {
    fn parse(inside: &str) -> Result<Self, String> {
        let (name, argument) = inside.split_once(':').map_or((inside, None), |(name, rest)| (name, Some(rest)));
        let takes = |takes: &str| format!("got '{{{{{inside}}}}}', expected {takes}");
        let plain = |piece: Self| match argument {
            None => Ok(piece),
            Some(_) => Err(takes(&format!("{{{{{name}}}}}"))),
        };
        match name {
            "sequence" => plain(Self::Sequence),
            "id" => plain(Self::Id),
            "uuid" => plain(Self::Uuid),
            "worker" => plain(Self::Worker),
            "run" => plain(Self::Run),
            "user" => plain(Self::User),
            "room" => plain(Self::Room),
            "int" => {
                let range = argument.and_then(range::<i64>);
                range.map(Self::Int).ok_or_else(|| takes("{{int:LOW..HIGH}}, both included, such as {{int:1..100}}"))
            }
            "text" | "bytes" => {
                let most = i64::from(MOST_RANDOM_BYTES);
                let range = argument.and_then(range::<i64>).filter(|range| *range.start() >= 0 && *range.end() <= most);
                let lengths = range.map(|range| *range.start() as u32..=*range.end() as u32).ok_or_else(|| {
                    takes(&format!(
                        "{{{{{name}:LENGTH}}}} or {{{{{name}:LOW..HIGH}}}} of 0 to {most} bytes, such as {{{{{name}:20..200}}}}"
                    ))
                })?;
                Ok(if name == "text" { Self::Letters(lengths) } else { Self::Bytes(lengths) })
            }
            "choice" => {
                let options: Vec<String> =
                    argument.unwrap_or_default().split('|').map(str::to_owned).filter(|one| !one.is_empty()).collect();
                if options.is_empty() { Err(takes("{{choice:ONE|OTHER}}")) } else { Ok(Self::Choice(options)) }
            }
            "timestamp" => match argument {
                None => Ok(Self::Timestamp(TimeUnit::Rfc3339)),
                Some("s") => Ok(Self::Timestamp(TimeUnit::Seconds)),
                Some("ms") => Ok(Self::Timestamp(TimeUnit::Millis)),
                Some("ns") => Ok(Self::Timestamp(TimeUnit::Nanos)),
                Some(_) => {
                    Err(takes("{{timestamp}} (RFC 3339), {{timestamp:s}}, {{timestamp:ms}} or {{timestamp:ns}}"))
                }
            },
            _ => Err(format!("unknown placeholder '{{{{{inside}}}}}': expected {}", PLACEHOLDERS.join(", "))),
        }
    }

    fn fits(&self, role: Role) -> Result<(), String> {
        let fits = match self {
            Self::Bytes(_) => role == Role::Payload,
            Self::Letters(lengths) if role == Role::Subject => *lengths.start() > 0,
            Self::Text(_) | Self::Worker | Self::Run => true,
            Self::Timestamp(TimeUnit::Rfc3339) if role == Role::Subject => false,
            _ => role != Role::Filter,
        };
        if fits {
            return Ok(());
        }
        let why = match (role, self) {
            (Role::Filter, _) => "what is subscribed to stands for a whole run: use {{worker}} and {{run}}",
            (_, Self::Bytes(_)) => "bytes may be anything: use {{text:LENGTH}}",
            (_, Self::Letters(_)) => "a token cannot be empty: use a length of at least 1",
            _ => "its dots would be tokens: use {{timestamp:ms}}",
        };
        Err(format!("{self} cannot stand in {}: {why}", role.words()))
    }

    fn most_bytes(&self) -> u64 {
        match self {
            Self::Text(text) => text.len() as u64,
            Self::Letters(lengths) | Self::Bytes(lengths) => u64::from(*lengths.end()),
            Self::Choice(options) => options.iter().map(String::len).max().unwrap_or(0) as u64,
            Self::Uuid => 36,
            Self::Timestamp(TimeUnit::Rfc3339) => 30,
            _ => 20,
        }
    }
}

impl fmt::Display for Piece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Sequence => f.write_str("{{sequence}}"),
            Self::Id => f.write_str("{{id}}"),
            Self::Uuid => f.write_str("{{uuid}}"),
            Self::Worker => f.write_str("{{worker}}"),
            Self::Run => f.write_str("{{run}}"),
            Self::User => f.write_str("{{user}}"),
            Self::Room => f.write_str("{{room}}"),
            Self::Int(range) => write!(f, "{{{{int:{}..{}}}}}", range.start(), range.end()),
            Self::Letters(range) => write!(f, "{{{{text:{}..{}}}}}", range.start(), range.end()),
            Self::Bytes(range) => write!(f, "{{{{bytes:{}..{}}}}}", range.start(), range.end()),
            Self::Choice(options) => write!(f, "{{{{choice:{}}}}}", options.join("|")),
            Self::Timestamp(_) => f.write_str("{{timestamp}}"),
        }
    }
}

/// `3` or `1..5`, both ends included.
fn range<T: std::str::FromStr + PartialOrd + Copy>(text: &str) -> Option<RangeInclusive<T>> {
    let (low, high) = text.split_once("..").unwrap_or((text, text));
    let (low, high) = (low.trim().parse::<T>().ok()?, high.trim().parse::<T>().ok()?);
    (low <= high).then_some(low..=high)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn texts_and_placeholders_come_out_in_their_order() {
        let template = Template::parse(r#"{"a":{"b":{{int:-5..5}}},"c":"{{text:3}}"}"#, Role::Payload).unwrap();
        let text = |text: &str| Piece::Text(text.into());
        assert_eq!(
            template.pieces,
            [text(r#"{"a":{"b":"#), Piece::Int(-5..=5), text(r#"},"c":""#), Piece::Letters(3..=3), text(r#""}"#)]
        );
        assert!(Template::parse("", Role::Payload).unwrap().pieces.is_empty());
        assert!(Template::parse("{{ uuid }}", Role::Header).unwrap().is_operation());
    }

    #[test]
    fn what_does_not_fit_is_told_what_does() {
        for (role, text, expected) in [
            (Role::Payload, "{{usr}}", "unknown placeholder '{{usr}}': expected {{sequence}}, {{id}}, {{uuid}}"),
            (Role::Payload, "a {{uuid", "'{{' without '}}' in 'a {{uuid'"),
            (Role::Payload, "{{uuid:4}}", "got '{{uuid:4}}', expected {{uuid}}"),
            (Role::Payload, "{{int:5..1}}", "got '{{int:5..1}}', expected {{int:LOW..HIGH}}"),
            (Role::Payload, "{{int}}", "got '{{int}}', expected {{int:LOW..HIGH}}"),
            (Role::Payload, "{{text:-1}}", "got '{{text:-1}}', expected {{text:LENGTH}} or"),
            (Role::Payload, "{{bytes:65537}}", "got '{{bytes:65537}}', expected {{bytes:LENGTH}} or"),
            (Role::Payload, "{{choice:}}", "got '{{choice:}}', expected {{choice:ONE|OTHER}}"),
            (Role::Payload, "{{timestamp:us}}", "got '{{timestamp:us}}', expected {{timestamp}} (RFC 3339)"),
            (Role::Header, "{{bytes:3}}", "{{bytes:3..3}} cannot stand in a header: bytes may be anything"),
            (Role::Header, "a\nb", "got 'a\\nb', a header's value is one line"),
            (Role::Subject, "a..b", "got 'a..b', expected tokens separated by dots"),
            (Role::Subject, "", "got '', expected tokens"),
            (Role::Subject, "a.*", "got 'a.*', expected tokens"),
            (Role::Subject, "a.{{choice:b|c d}}", "got 'c d', expected tokens"),
            (Role::Subject, "a.{{text:0..3}}", "{{text:0..3}} cannot stand in a subject: a token cannot be empty"),
            (Role::Subject, "a.{{timestamp}}", "{{timestamp}} cannot stand in a subject: its dots"),
            (Role::Filter, "a.{{user}}", "{{user}} cannot stand in a subject to subscribe to: what is subscribed to"),
        ] {
            let error = Template::parse(text, role).unwrap_err();
            assert!(error.starts_with(expected), "{text}: {error}");
        }
        assert!(Template::parse("a.{{worker}}.>", Role::Filter).is_ok());
    }

    #[test]
    fn the_wildcard_of_a_subject_matches_whatever_it_becomes() {
        for (subject, wildcard) in [
            ("jobs.new", "jobs.new"),
            ("jobs.{{user}}.new", "jobs.*.new"),
            ("jobs.k-{{int:1..9}}", "jobs.*"),
            ("jobs.{{choice:a|b}}.x", "jobs.*.x"),
            ("jobs.{{choice:a|b.c}}.x", "jobs.>"),
            ("jobs.{{worker}}.x", "jobs.{{worker}}.x"),
        ] {
            assert_eq!(Template::parse(subject, Role::Subject).unwrap().wildcard(), wildcard);
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_template_or_an_error(text in "[ a-z.:|{}0-9-]{0,30}") {
            for role in [Role::Subject, Role::Filter, Role::Header, Role::Payload] {
                if let Ok(template) = Template::parse(&text, role) {
                    let texts: usize = template.pieces.iter().map(|p| if let Piece::Text(t) = p { t.len() } else { 0 }).sum();
                    prop_assert!(texts <= text.len());
                }
            }
        }
    }
}
