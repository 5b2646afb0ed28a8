//! Looks into a message: a header, a token of its subject, or a place in its JSON, without building the rest of it.

use std::borrow::Cow;
use std::fmt;

use async_nats::Message;
use plimsoll_common::workload::custom::describe::{Expected, Place, Success};
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::core::ledger::Outcome;

/// By this header a NATS service says that it failed.
const SERVICE_ERROR: &str = "Nats-Service-Error-Code";

/// What is at a place.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Found<'a> {
    /// Nothing, or null.
    Nothing,
    /// A text.
    Text(Cow<'a, str>),
    /// A number, true or false, as JSON.
    Scalar(String),
    /// An array or an object.
    Structure,
}

/// A body that is no JSON.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NoJson;

/// What an answer says of its request, where it is no status.
pub(super) fn judge(message: &Message, success: &Success) -> Outcome {
    if message.headers.as_ref().is_some_and(|headers| headers.get(SERVICE_ERROR).is_some()) {
        return Outcome::Refused;
    }
    match success {
        Success::Any => Outcome::Sample,
        Success::NonEmpty if message.payload.is_empty() => Outcome::Unreadable,
        Success::NonEmpty => Outcome::Sample,
        Success::Test { place, expected } => match at(message, place) {
            Err(NoJson) => Outcome::Unreadable,
            Ok(found) if holds(&found, place, expected) => Outcome::Sample,
            Ok(_) => Outcome::Refused,
        },
    }
}

fn holds(found: &Found, place: &Place, expected: &Expected) -> bool {
    let is_nothing = match found {
        Found::Nothing => true,
        Found::Text(text) => text.is_empty(),
        Found::Scalar(_) | Found::Structure => false,
    };
    match (expected, found) {
        (Expected::Something, _) => !is_nothing,
        (Expected::Nothing, _) => is_nothing,
        (Expected::Is(wanted), Found::Text(text)) if matches!(place, Place::Header(_)) => text == wanted,
        (Expected::Is(wanted), Found::Text(text)) => {
            serde_json::from_str::<Cow<'_, str>>(wanted).is_ok_and(|wanted| wanted == *text)
        }
        (Expected::Is(wanted), Found::Scalar(scalar)) => wanted == scalar,
        (Expected::Is(_), Found::Nothing | Found::Structure) => false,
    }
}

/// What is at a place of a message.
pub(super) fn at<'a>(message: &'a Message, place: &Place) -> Result<Found<'a>, NoJson> {
    let text = |text: Option<&'a str>| text.map_or(Found::Nothing, |text| Found::Text(text.into()));
    match place {
        Place::Header(name) => {
            let headers = message.headers.as_ref();
            Ok(text(headers.and_then(|headers| headers.get(name.as_str())).map(|value| value.as_str())))
        }
        Place::Token(number @ 0..) => Ok(text(message.subject.split('.').nth(*number as usize))),
        Place::Token(number) => Ok(text(message.subject.rsplit('.').nth((-1 - number) as usize))),
        Place::Pointer(path) => in_json(&message.payload, path),
    }
}

fn in_json<'a>(payload: &'a [u8], path: &[String]) -> Result<Found<'a>, NoJson> {
    let mut json = serde_json::Deserializer::from_slice(payload);
    let found = Walk { path }.deserialize(&mut json).map_err(|_| NoJson)?;
    json.end().map_err(|_| NoJson)?;
    Ok(found)
}

/// Goes down one key after the other.
struct Walk<'p> {
    path: &'p [String],
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = Found<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Found<'de>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Walk<'_> {
    fn scalar<'de, E: serde::de::Error>(&self, value: impl fmt::Display) -> Result<Found<'de>, E> {
        Ok(if self.path.is_empty() { Found::Scalar(value.to_string()) } else { Found::Nothing })
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = Found<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Found<'de>, E> {
        Ok(Found::Nothing)
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<Found<'de>, E> {
        self.scalar(value)
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Found<'de>, E> {
        self.scalar(value)
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Found<'de>, E> {
        self.scalar(value)
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Found<'de>, E> {
        self.scalar(value)
    }

    fn visit_borrowed_str<E>(self, value: &'de str) -> Result<Found<'de>, E> {
        Ok(if self.path.is_empty() { Found::Text(Cow::Borrowed(value)) } else { Found::Nothing })
    }

    fn visit_str<E>(self, value: &str) -> Result<Found<'de>, E> {
        Ok(if self.path.is_empty() { Found::Text(Cow::Owned(value.to_owned())) } else { Found::Nothing })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Found<'de>, A::Error> {
        let mut found = if self.path.is_empty() { Found::Structure } else { Found::Nothing };
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            match self.path.split_first() {
                Some((first, path)) if *first == key => found = map.next_value_seed(Walk { path })?,
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(found)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Found<'de>, A::Error> {
        let Some((first, path)) = self.path.split_first() else {
            while seq.next_element::<IgnoredAny>()?.is_some() {}
            return Ok(Found::Structure);
        };
        let wanted: Option<usize> = first.parse().ok();
        let mut found = Found::Nothing;
        let mut index = 0;
        loop {
            if wanted == Some(index) {
                match seq.next_element_seed(Walk { path })? {
                    Some(element) => found = element,
                    None => return Ok(found),
                }
            } else if seq.next_element::<IgnoredAny>()?.is_none() {
                return Ok(found);
            }
            index = index.checked_add(1).ok_or_else(|| A::Error::custom("too long"))?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use async_nats::HeaderMap;
    use plimsoll_common::workload::custom::{Action, Description};
    use proptest::prelude::*;

    fn message(headers: &[(&str, &str)], payload: &str) -> Message {
        let mut map = HeaderMap::new();
        headers.iter().for_each(|(name, value)| map.insert(*name, *value));
        Message {
            subject: "a.b.c".into(),
            reply: None,
            payload: payload.as_bytes().to_vec().into(),
            headers: (!headers.is_empty()).then_some(map),
            status: None,
            description: None,
            length: 0,
        }
    }

    /// The test as a description says it.
    fn judged(success: &str, headers: &[(&str, &str)], payload: &str) -> Outcome {
        let text = format!("[[operation]]\nname = \"a\"\nkind = \"request\"\nsubject = \"a\"\nsuccess = {success}");
        let description = Description::parse(&text).unwrap();
        let Action::Request { success } = &description.operations[0].action else { panic!("{text}") };
        judge(&message(headers, payload), success)
    }

    #[test]
    fn an_answer_is_a_success_where_its_test_holds() {
        use Outcome::{Refused, Sample, Unreadable};
        for (success, payload, outcome) in [
            ("\"any\"", "", Sample),
            ("\"non-empty\"", "", Unreadable),
            ("\"non-empty\"", "x", Sample),
            ("{ pointer = \"/ok\", is = true }", r#"{"ok":true}"#, Sample),
            ("{ pointer = \"/ok\", is = true }", r#"{"ok":false}"#, Refused),
            ("{ pointer = \"/ok\", is = true }", r#"{"ok":"true"}"#, Refused),
            ("{ pointer = \"/ok\", is = true }", r#"{}"#, Refused),
            ("{ pointer = \"/ok\", is = true }", "true", Refused),
            ("{ pointer = \"/ok\", is = true }", r#"{"ok":true"#, Unreadable),
            ("{ pointer = \"/ok\", is = true }", r#"{"ok":true} x"#, Unreadable),
            ("{ pointer = \"/ok\", is = true }", "", Unreadable),
            ("{ pointer = \"/n/1/a\", is = -3 }", r#"{"n":[0,{"a":-3}]}"#, Sample),
            ("{ pointer = \"/s\", is = \"a\\\"b\" }", r#"{"s":"a\"b"}"#, Sample),
            ("{ pointer = \"\", is = 5 }", "5", Sample),
            ("{ pointer = \"/data\" }", r#"{"data":[]}"#, Sample),
            ("{ pointer = \"/data\" }", r#"{"data":null}"#, Refused),
            ("{ pointer = \"/error\", exists = false }", r#"{"id":1}"#, Sample),
            ("{ pointer = \"/error\", exists = false }", r#"{"error":""}"#, Sample),
            ("{ pointer = \"/error\", exists = false }", r#"{"error":{"code":4}}"#, Refused),
        ] {
            assert_eq!(judged(success, &[], payload), outcome, "{success} of {payload}");
        }
        assert_eq!(judged("{ header = \"Status\", is = \"ok\" }", &[("Status", "ok")], ""), Sample);
        assert_eq!(judged("{ header = \"Status\", is = \"ok\" }", &[("Status", "bad")], ""), Refused);
        assert_eq!(judged("{ header = \"Status\" }", &[], ""), Refused);
        assert_eq!(judged("\"any\"", &[(SERVICE_ERROR, "500")], "x"), Refused);
    }

    #[test]
    fn tokens_are_counted_from_both_ends() {
        let message = message(&[], "");
        for (token, text) in [(0, Some("a")), (2, Some("c")), (3, None), (-1, Some("c")), (-3, Some("a")), (-4, None)] {
            let found = text.map_or(Found::Nothing, |text| Found::Text(text.into()));
            assert_eq!(at(&message, &Place::Token(token)), Ok(found), "{token}");
        }
    }

    proptest! {
        #[test]
        fn what_is_found_is_what_a_full_parse_finds(key in "[ab]", json in "[\\[\\]{}:,\"ab1 ]{0,24}") {
            let path = [key.clone()];
            let parsed: Result<serde_json::Value, _> = serde_json::from_str(&json);
            match (in_json(json.as_bytes(), &path), parsed) {
                (Ok(found), Ok(value)) => {
                    let there = value.get(&key).filter(|value| !value.is_null());
                    prop_assert_eq!(found == Found::Nothing, there.is_none(), "{}", json);
                }
                (Err(NoJson), Err(_)) => {}
                (found, parsed) => prop_assert!(false, "{}: {:?} {:?}", json, found, parsed),
            }
        }
    }
}
