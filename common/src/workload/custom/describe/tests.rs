use super::*;

const GOOD: &str = r#"
name = "shop"
users = 50
durables = ["JOBS/worker"]

[[operation]]
name = "get"
kind = "request"
weight = 3
timeout = "2s"
subject = "kv.{{user}}.get"
payload = '{"id":"{{uuid}}"}'
headers = { "X-B" = "1", "X-A" = "{{id}}" }
success = { pointer = "/a~1b/0", is = "x" }

[[operation]]
name = "event"
kind = "publish"
subject = "events.{{room}}.{{id}}"
delivery = { subject = "done.{{worker}}.>", token = -1 }

[[operation]]
name = "job"
kind = "jetstream"
stream = "JOBS"
subject = "jobs.new"
[operation.delivery]
"#;

fn error(text: &str) -> String {
    Description::parse(text).unwrap_err().to_string()
}

#[test]
fn a_description_says_what_is_done_and_measured() {
    let description = Description::parse(GOOD).unwrap();
    assert_eq!((description.name.as_str(), description.users, description.rooms), ("shop", 50, 1000));
    assert_eq!(description.durables, ["JOBS/worker"]);
    assert_eq!(description.series(), ["get", "event", "event.delivery", "job", "job.delivery"]);
    let [get, event, job] = description.operations.as_slice() else { panic!("{description:?}") };
    assert_eq!((get.weight, get.timeout, get.probe), (3, Some(Duration::from_secs(2)), true));
    assert_eq!(get.headers.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["X-B", "X-A"]);
    let place = Place::Pointer(vec!["a/b".into(), "0".into()]);
    let success = Success::Test { place, expected: Expected::Is("\"x\"".into()) };
    assert_eq!(get.action, Action::Request { success });
    assert_eq!(event.delivery().unwrap().correlation, Place::Token(-1));
    let own = Delivery { from: Source::Consumer, correlation: Place::Header("Nats-Msg-Id".into()) };
    assert_eq!(job.delivery(), Some(&own));
    assert!(matches!(&job.action, Action::JetStream { dedup: Some(dedup), .. } if dedup.is_operation()));
}

/// An operation of a kind, with more lines; the first is line 4.
fn with(kind: &str, lines: &str) -> String {
    format!("[[operation]]\nname = \"a\"\nkind = \"{kind}\"\n{lines}")
}

#[test]
fn a_bad_file_is_one_error_with_its_line_what_was_found_and_what_fits() {
    for (text, expected) in [
        (String::new(), "line 1: no operation: expected one or more tables [[operation]]"),
        ("users = ".into(), "line 1: "),
        (
            "x = 1\n".into(),
            "line 1: unknown key 'x' in a description: expected name, users, rooms, durables, operation",
        ),
        ("\nusers = 0".into(), "line 2: users: got '0', expected a whole number from 1 to 10000000"),
        ("rooms = \"many\"".into(), "line 1: rooms: got 'many', expected a whole number"),
        ("operation = 3".into(), "line 1: operation: got '3', expected one or more tables [[operation]]"),
        ("operation = []".into(), "line 1: operation: got an array, expected one or more"),
        ("durables = [\n\"JOBS\"]".into(), "line 2: durables: got 'JOBS', expected a list of STREAM/NAME"),
        (
            "[[operation]]\nname = \"a\"".into(),
            "line 1: an operation without 'kind': expected request, publish or jetstream",
        ),
        (with("reqest", ""), "line 3: kind: got 'reqest', expected request, publish or jetstream"),
        (with("request", ""), "line 1: an operation without 'subject': expected a subject"),
        (with("request", "subject = 3"), "line 4: subject: got '3', expected a text"),
        (with("request", "subject = \"a b\""), "line 4: subject: got 'a b', expected tokens separated by dots"),
        (
            with("request", "subject = \"a\"\npaylod = \"\""),
            "line 5: unknown key 'paylod' in an operation of kind request: expected name,",
        ),
        (
            with("request", "subject = \"a\"\nstream = \"S\""),
            "line 5: unknown key 'stream' in an operation of kind request",
        ),
        (with("request", "subject = \"a\"\nweight = 0"), "line 5: weight: got '0', expected a whole number from 1"),
        (
            with("request", "subject = \"a\"\ntimeout = \"5\""),
            "line 5: timeout: got '5', expected a time with its unit",
        ),
        (
            with("request", "subject = \"a\"\ntimeout = \"2h\""),
            "line 5: timeout: got '2h', expected a time with its unit",
        ),
        (
            with("request", "subject = \"a\"\npayload = \"{{uid}}\""),
            "line 5: payload: unknown placeholder '{{uid}}': expected {{sequence}}, {{id}}, {{uuid}}, {{worker}}, {{run}}, \
             {{user}}, {{room}}, {{int:LOW..HIGH}}, {{text:LENGTH}}, {{bytes:LENGTH}}, {{choice:ONE|OTHER}}, {{timestamp}}",
        ),
        (with("request", "subject = \"a\"\nheaders = 1"), "line 5: headers: got '1', expected a table of headers"),
        (
            with("request", "subject = \"a\"\n[operation.headers]\n\"a b\" = \"\""),
            "line 6: headers: got 'a b', expected names of headers",
        ),
        (
            with("request", "subject = \"a\"\n[operation.headers]\nX = \"{{bytes:1}}\""),
            "line 6: X: {{bytes:1..1}} cannot stand",
        ),
        (
            with("request", "subject = \"a\"\nsuccess = \"always\""),
            "line 5: success: got 'always', expected \"any\", \"non-empty\", or",
        ),
        (
            with("request", "subject = \"a\"\nsuccess = { is = 1 }"),
            "line 5: none of header, pointer is given: expected exactly one",
        ),
        (
            with("request", "subject = \"a\"\nsuccess = { header = \"H\", pointer = \"/a\" }"),
            "line 5: header and pointer of header, pointer is given: expected exactly one",
        ),
        (
            with("request", "subject = \"a\"\nsuccess = { pointer = \"a\" }"),
            "line 5: pointer: got 'a', expected a JSON pointer",
        ),
        (
            with("request", "subject = \"a\"\nsuccess = { pointer = \"/~2\" }"),
            "line 5: pointer: got '/~2', expected a JSON pointer",
        ),
        (
            with("request", "subject = \"a\"\nsuccess = { header = \"H\", is = 1.5 }"),
            "line 5: is: got '1.5', expected a text, a whole",
        ),
        (
            with("request", "subject = \"a\"\nsuccess = { header = \"H\", is = \"x\", exists = true }"),
            "line 5: 'is' beside 'exists': give only one of the two",
        ),
        (
            with("request", "subject = \"a\"\ndelivery = {}"),
            "line 5: unknown key 'delivery' in an operation of kind request",
        ),
        (
            with("publish", "subject = \"a\"\ntimeout = \"1s\""),
            "line 5: unknown key 'timeout' in an operation of kind publish",
        ),
        (with("publish", "subject = \"a.{{id}}\"\ndelivery = { token = 1 }"), "line 5: delivery without 'subject'"),
        (
            with("publish", "subject = \"a\"\ndelivery = { subject = \"b\", token = 2 }"),
            "line 5: a delivery is led back by the {{id}} or {{uuid}} that the operation wrote",
        ),
        (
            with("publish", "subject = \"a.{{id}}\"\ndelivery = { subject = \"b.{{user}}\", token = 2 }"),
            "line 5: subject: {{user}} cannot stand in a subject to subscribe to",
        ),
        (
            with("publish", "subject = \"a.{{id}}\"\ndelivery = { subject = \"b.*\", token = 0 }"),
            "line 5: token: got '0', expected the number of a token",
        ),
        (with("jetstream", "subject = \"a\""), "line 1: an operation without 'stream': expected the name of a stream"),
        (
            with("jetstream", "subject = \"a\"\nstream = \"a.b\""),
            "line 5: stream: got 'a.b', expected the name of a stream",
        ),
        (
            with("jetstream", "subject = \"a\"\nstream = \"S\"\ndedup = \"{{user}}\""),
            "line 6: dedup: expected a text with",
        ),
        (
            with("jetstream", "subject = \"a\"\nstream = \"S\"\ndedup = true"),
            "line 6: dedup: got 'true', expected a text",
        ),
        (
            with("request", "subject = \"a\"\n") + &with("request", "subject = \"b\""),
            "line 6: a second operation 'a': name each",
        ),
        (
            "[[operation]]\nname = \"a b\"\nkind = \"request\"".into(),
            "line 2: name: got 'a b', expected 1 to 64 letters",
        ),
    ] {
        let error = error(&text);
        assert!(error.starts_with(expected), "{text}\n{error}\nexpected {expected}");
    }
}

#[test]
fn a_workload_has_no_more_series_than_an_operation_can_owe() {
    let operation = |n| format!("[[operation]]\nname = \"o{n}\"\nkind = \"request\"\nsubject = \"a\"\n");
    let many = |count| (0..count).map(operation).collect::<String>();
    assert_eq!(Description::parse(&many(32)).unwrap().series().len(), 32);
    assert!(error(&many(33)).starts_with("line 129: more than 32 series"), "{}", error(&many(33)));
}
