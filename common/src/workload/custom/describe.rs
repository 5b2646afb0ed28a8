//! The description of a custom workload: a TOML file, read once and checked whole. Every error names its line, what was found
//! there and what fits.

use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::template::{Role, Template};
use super::toml_reader::{Reader, Section};
use crate::workload::is_subject_token;

/// Series of a workload, at most: what an operation owes is a bit each.
const MOST_SERIES: usize = 32;

/// What a description says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// For people; empty: none.
    pub name: String,
    /// How many users `{{user}}` is one of.
    pub users: u32,
    /// How many rooms `{{room}}` is one of.
    pub rooms: u32,
    /// Durables whose backlog is watched, as STREAM/NAME.
    pub durables: Vec<String>,
    /// At least one.
    pub operations: Vec<Operation>,
}

/// One kind of operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// Its name and its first series'.
    pub name: String,
    /// Its part of the operations, against the others'.
    pub weight: u32,
    /// How long it may stay open; `None`: as long as any.
    pub timeout: Option<Duration>,
    /// Where it goes.
    pub subject: Template,
    /// Its body.
    pub payload: Template,
    /// Its headers, in their order.
    pub headers: Vec<(String, Template)>,
    /// Whether its subject is tried before the run.
    pub probe: bool,
    /// What is done, and what of it is measured.
    pub action: Action,
}

/// What an operation does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Asks, and is answered.
    Request {
        /// What an answer must say to be no error.
        success: Success,
    },
    /// Publishes, and waits for nothing but what comes of it.
    Publish {
        /// What comes of it, where that is measured.
        delivery: Option<Delivery>,
    },
    /// Publishes into a stream that acknowledges.
    JetStream {
        /// The stream.
        stream: String,
        /// What tells a duplicate.
        dedup: Option<Template>,
        /// What comes of it, where that is measured.
        delivery: Option<Delivery>,
    },
}

/// When an answer is no error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Success {
    /// Whenever it comes.
    Any,
    /// If it has a body.
    NonEmpty,
    /// If this holds.
    Test {
        /// What is looked at.
        place: Place,
        /// What must be there.
        expected: Expected,
    },
}

/// A part of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A header's value.
    Header(String),
    /// A JSON pointer (RFC 6901) into the body, as its unescaped keys.
    Pointer(Vec<String>),
    /// A token of the subject, from 0; negative: from its end, which is -1.
    Token(i32),
}

/// What must be at a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expected {
    /// This text; for JSON, this value written as JSON.
    Is(String),
    /// Anything but nothing, null, and an empty text.
    Something,
    /// Nothing, null, or an empty text.
    Nothing,
}

/// Where what came of an operation arrives, and how it is led back to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// Where it arrives.
    pub from: Source,
    /// Where the id stands that the operation wrote.
    pub correlation: Place,
}

/// Where deliveries come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A subject that is subscribed to.
    Subject(Template),
    /// A consumer of the operation's stream, made for the run.
    Consumer,
}

/// Why a text describes no workload.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct DescriptionError {
    /// From 1.
    pub line: usize,
    /// What was found, and what fits.
    pub problem: String,
}

const TOP: &[&str] = &["name", "users", "rooms", "durables", "operation"];
const COMMON: [&str; 9] = ["name", "kind", "weight", "timeout", "subject", "payload", "headers", "probe", "delivery"];
const KINDS: &str = "request, publish or jetstream";
/// The header by which a stream tells duplicates.
pub const DEDUP_HEADER: &str = "Nats-Msg-Id";

impl Description {
    /// Reads a description.
    ///
    /// # Errors
    /// The first thing in it that does not fit.
    pub fn parse(text: &str) -> Result<Self, DescriptionError> {
        let reader = Reader::new(text);
        let table = reader.document()?;
        let top = Section::new(&reader, table.get_ref(), 1, "a description");
        top.only(TOP)?;
        let users = top.number("users", 1, 10_000_000)?.unwrap_or(1000);
        let rooms = top.number("rooms", 1, 10_000_000)?.unwrap_or(1000);
        let durables = durables(&reader, &top)?;
        let operations = operations(&reader, &top)?;
        let name = top.text("name")?.map(|(name, _)| name.to_owned()).unwrap_or_default();
        Ok(Self { name, users: users as u32, rooms: rooms as u32, durables, operations })
    }

    /// The names of its series, each operation's own and behind it that of its delivery.
    pub fn series(&self) -> Vec<String> {
        self.operations.iter().flat_map(Operation::series).collect()
    }
}

impl Operation {
    /// Its own and that of its delivery.
    pub fn series(&self) -> Vec<String> {
        let delivery = self.delivery().map(|_| format!("{}.delivery", self.name));
        std::iter::once(self.name.clone()).chain(delivery).collect()
    }

    /// What comes of it, where that is measured.
    pub fn delivery(&self) -> Option<&Delivery> {
        match &self.action {
            Action::Request { .. } => None,
            Action::Publish { delivery } | Action::JetStream { delivery, .. } => delivery.as_ref(),
        }
    }

    /// Whether a message of it can be led back to it.
    fn names_itself(&self) -> bool {
        let dedup = match &self.action {
            Action::JetStream { dedup, .. } => dedup.as_ref(),
            _ => None,
        };
        let headers = self.headers.iter().map(|(_, value)| value);
        headers.chain([&self.subject, &self.payload]).chain(dedup).any(Template::names_operation)
    }
}

fn durables(reader: &Reader, top: &Section) -> Result<Vec<String>, DescriptionError> {
    const TAKES: &str = "a list of STREAM/NAME, such as [\"JOBS/worker\"]";
    let Some((value, line)) = top.value("durables") else { return Ok(Vec::new()) };
    let DeValue::Array(items) = value.get_ref() else {
        return Err(reader.takes(line, "durables", value.get_ref(), TAKES));
    };
    let durable = |item: &Spanned<DeValue>| {
        let error = || reader.takes(reader.line(item), "durables", item.get_ref(), TAKES);
        let DeValue::String(text) = item.get_ref() else { return Err(error()) };
        let fits =
            text.split_once('/').is_some_and(|(stream, name)| is_subject_token(stream) && is_subject_token(name));
        if fits { Ok(text.to_string()) } else { Err(error()) }
    };
    items.iter().map(durable).collect()
}

fn operations(reader: &Reader, top: &Section) -> Result<Vec<Operation>, DescriptionError> {
    const TAKES: &str = "one or more tables [[operation]]";
    let Some((value, line)) = top.value("operation") else {
        return Err(DescriptionError { line: 1, problem: format!("no operation: expected {TAKES}") });
    };
    let items = match value.get_ref() {
        DeValue::Array(items) if !items.is_empty() => items,
        other => return Err(reader.takes(line, "operation", other, TAKES)),
    };
    let mut operations: Vec<Operation> = Vec::new();
    let mut series = 0;
    for item in items {
        let line = reader.line(item);
        let DeValue::Table(table) = item.get_ref() else {
            return Err(reader.takes(line, "operation", item.get_ref(), TAKES));
        };
        let section = Section::new(reader, table, line, "an operation");
        let operation = operation(&section)?;
        if let Some(same) = operations.iter().find(|other| other.name == operation.name) {
            let (_, line) = section.value("name").unwrap_or((item, line));
            return Err(DescriptionError {
                line,
                problem: format!("a second operation '{}': name each once, they are series", same.name),
            });
        }
        series += operation.series().len();
        if series > MOST_SERIES {
            let problem = format!("more than {MOST_SERIES} series: an operation has one, and one more with a delivery");
            return Err(DescriptionError { line, problem });
        }
        operations.push(operation);
    }
    Ok(operations)
}

fn operation(section: &Section) -> Result<Operation, DescriptionError> {
    let (kind, kind_line) = section.required_text("kind", KINDS)?;
    let own: &[&str] = match kind {
        "request" => &["success"],
        "publish" => &[],
        "jetstream" => &["stream", "dedup"],
        _ => return Err(section.got(kind_line, "kind", kind, KINDS)),
    };
    // A request has no delivery beside its reply, and nobody need listen to what is only published.
    let not: &[&str] = match kind {
        "request" => &["delivery"],
        "publish" => &["timeout", "probe"],
        _ => &[],
    };
    let timeout_of_delivery = kind == "publish" && section.value("delivery").is_some();
    let fits = |key: &&str| !not.contains(key) || (*key == "timeout" && timeout_of_delivery);
    let keys: Vec<&str> = COMMON.into_iter().filter(fits).chain(own.iter().copied()).collect();
    section.only(&keys)?;
    let mut operation = Operation {
        name: name(section)?,
        weight: section.number("weight", 1, 1_000_000)?.unwrap_or(1) as u32,
        timeout: section.duration("timeout")?,
        subject: section.template("subject", Role::Subject)?.ok_or_else(|| section.missing("subject", "a subject"))?,
        payload: section.template("payload", Role::Payload)?.unwrap_or_default(),
        headers: headers(section)?,
        probe: section.switch("probe")?.unwrap_or(kind != "publish"),
        action: match kind {
            "request" => Action::Request { success: success(section)? },
            "publish" => Action::Publish { delivery: None },
            _ => Action::JetStream { stream: stream(section)?, dedup: dedup(section)?, delivery: None },
        },
    };
    let found = delivery(section, &operation)?;
    match &mut operation.action {
        Action::Publish { delivery } | Action::JetStream { delivery, .. } => *delivery = found,
        Action::Request { .. } => {}
    }
    Ok(operation)
}

fn name(section: &Section) -> Result<String, DescriptionError> {
    const TAKES: &str = "1 to 64 letters, digits, '-' or '_': the name of its series";
    let (name, line) = section.required_text("name", TAKES)?;
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if (1..=64).contains(&name.len()) && name.chars().all(fits) {
        Ok(name.to_owned())
    } else {
        Err(section.got(line, "name", name, TAKES))
    }
}

fn headers(section: &Section) -> Result<Vec<(String, Template)>, DescriptionError> {
    let Some(table) = section.table("headers", "a table of headers, such as { \"X-Id\" = \"{{uuid}}\" }")? else {
        return Ok(Vec::new());
    };
    let mut headers = Vec::new();
    for (name, line) in table.keys() {
        const TAKES: &str = "names of headers: printable, without ':' or space";
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':') {
            return Err(section.got(line, "headers", name, TAKES));
        }
        let value = table.template(name, Role::Header)?.unwrap_or_default();
        headers.push((name.to_owned(), value));
    }
    // In the order of the file.
    headers.sort_by_key(|(name, _)| table.value(name).map(|(value, _)| value.span().start));
    Ok(headers)
}

fn stream(section: &Section) -> Result<String, DescriptionError> {
    const TAKES: &str = "the name of a stream";
    let (stream, line) = section.required_text("stream", TAKES)?;
    if is_subject_token(stream) { Ok(stream.to_owned()) } else { Err(section.got(line, "stream", stream, TAKES)) }
}

fn dedup(section: &Section) -> Result<Option<Template>, DescriptionError> {
    const TAKES: &str = "a text with {{id}}, {{uuid}} or {{sequence}}, or false";
    match section.value("dedup") {
        None => Ok(Some(Template::parse("{{id}}", Role::Header).expect("a placeholder of ours"))),
        Some((value, _)) if matches!(value.get_ref(), DeValue::Boolean(false)) => Ok(None),
        Some((_, line)) => {
            let template = section.template("dedup", Role::Header)?.unwrap_or_default();
            if template.names_operation() {
                return Ok(Some(template));
            }
            // A sequence alone is not unique: workers count each for themselves.
            let problem = format!("dedup: expected {TAKES}: two operations with one id would be one message");
            let has = |piece| template.pieces.contains(&piece);
            let unique = has(super::template::Piece::Sequence)
                && has(super::template::Piece::Worker)
                && has(super::template::Piece::Run);
            if unique { Ok(Some(template)) } else { Err(DescriptionError { line, problem }) }
        }
    }
}

fn success(section: &Section) -> Result<Success, DescriptionError> {
    const TAKES: &str = "\"any\", \"non-empty\", or a table such as { header = \"Status\", is = \"ok\" } or \
                         { pointer = \"/error\", exists = false }";
    let Some((value, line)) = section.value("success") else { return Ok(Success::Any) };
    match value.get_ref() {
        DeValue::String(text) if text == "any" => return Ok(Success::Any),
        DeValue::String(text) if text == "non-empty" => return Ok(Success::NonEmpty),
        DeValue::Table(_) => {}
        other => return Err(section.takes(line, "success", other, TAKES)),
    }
    let test = section.table("success", TAKES)?.expect("it is a table");
    test.only(&["header", "pointer", "is", "exists"])?;
    let place = place(&test, &["header", "pointer"])?;
    let expected = match (test.value("is"), test.switch("exists")?) {
        (Some((_, line)), Some(_)) => {
            return Err(DescriptionError { line, problem: "'is' beside 'exists': give only one of the two".into() });
        }
        (None, exists) => {
            if exists.unwrap_or(true) {
                Expected::Something
            } else {
                Expected::Nothing
            }
        }
        (Some((value, line)), None) => Expected::Is(match (value.get_ref(), &place) {
            (DeValue::String(text), Place::Header(_)) => text.to_string(),
            (DeValue::String(text), _) => serde_json::Value::from(&**text).to_string(),
            (DeValue::Integer(number), _) => number.to_string(),
            (DeValue::Boolean(on), _) => on.to_string(),
            (other, _) => return Err(test.takes(line, "is", other, "a text, a whole number, true or false")),
        }),
    };
    Ok(Success::Test { place, expected })
}

fn delivery(section: &Section, operation: &Operation) -> Result<Option<Delivery>, DescriptionError> {
    const TAKES: &str = "a table such as { subject = \"done.>\", header = \"X-Id\" }";
    let Some(table) = section.table("delivery", TAKES)? else { return Ok(None) };
    table.only(&["subject", "header", "pointer", "token"])?;
    let from = table.template("subject", Role::Filter)?.map(Source::Subject);
    let own = match &operation.action {
        Action::JetStream { dedup, .. } => {
            dedup.as_ref().filter(|dedup| dedup.is_operation()).map(|_| Place::Header(DEDUP_HEADER.into()))
        }
        _ => None,
    };
    let from = match (from, &operation.action) {
        (Some(from), _) => from,
        (None, Action::JetStream { .. }) => Source::Consumer,
        (None, _) => return Err(table.missing("subject", "the subject on which what came of it arrives")),
    };
    let keys = ["header", "pointer", "token"];
    let correlation = match own {
        Some(own) if from == Source::Consumer && keys.iter().all(|key| table.value(key).is_none()) => own,
        _ => place(&table, &keys)?,
    };
    if !operation.names_itself() {
        let problem = "a delivery is led back by the {{id}} or {{uuid}} that the operation wrote: put one into its \
                       subject, payload or headers";
        return Err(DescriptionError { line: table.line(), problem: problem.into() });
    }
    Ok(Some(Delivery { from, correlation }))
}

/// The one place that is named under these keys.
fn place(section: &Section, keys: &[&str]) -> Result<Place, DescriptionError> {
    let given: Vec<&str> = keys.iter().copied().filter(|key| section.value(key).is_some()).collect();
    let [key] = given.as_slice() else {
        let found = if given.is_empty() { "none".to_owned() } else { given.join(" and ") };
        let problem = format!("{found} of {} is given: expected exactly one", keys.join(", "));
        return Err(DescriptionError { line: section.line(), problem });
    };
    if *key == "token" {
        const TAKES: &str = "the number of a token of the subject, from 1; -1 is the last";
        let (value, line) = section.value("token").expect("it is given");
        let number = match value.get_ref() {
            DeValue::Integer(number) => number.to_string().parse::<i32>().ok(),
            _ => None,
        };
        return match number {
            Some(number @ 1..=256) => Ok(Place::Token(number - 1)),
            Some(number @ -256..=-1) => Ok(Place::Token(number)),
            _ => Err(section.takes(line, "token", value.get_ref(), TAKES)),
        };
    }
    let (text, line) = section.required_text(key, "a text")?;
    if *key == "header" {
        let takes = "the name of a header";
        return if text.is_empty() { Err(section.got(line, key, text, takes)) } else { Ok(Place::Header(text.into())) };
    }
    pointer(text).map(Place::Pointer).ok_or_else(|| section.got(line, key, text, "a JSON pointer, such as /result/id"))
}

/// The keys of a JSON pointer, unescaped.
fn pointer(text: &str) -> Option<Vec<String>> {
    if text.is_empty() {
        return Some(Vec::new());
    }
    let keys = text.strip_prefix('/')?.split('/');
    let key = |key: &str| {
        let sound = key.split('~').skip(1).all(|rest| rest.starts_with(['0', '1']));
        sound.then(|| key.replace("~1", "/").replace("~0", "~"))
    };
    keys.map(key).collect()
}

/// The document of a description, for [`Section`].
pub(super) type Document<'a> = Spanned<DeTable<'a>>;

#[cfg(test)]
mod tests;
