//! Subjects, streams and durables of the message pipeline.
//!
//! An account, a room id and a site are one subject token each; [`is_token`] says what that is.

/// The durable that checks sends and answers them.
pub const GATEKEEPER: &str = "message-gatekeeper";
/// The durable that stores messages.
pub const MESSAGE_WORKER: &str = "message-worker";
/// The durable that broadcasts messages.
pub const BROADCAST_WORKER: &str = "broadcast-worker";
/// The durable that carries out what was asked of rooms.
pub const ROOM_WORKER: &str = "room-worker";
/// The durable that notifies devices.
pub const NOTIFICATION_WORKER: &str = "notification-worker";

/// Carries the request id of a broadcast, which its JSON does not have. The key is case-sensitive.
pub const REQUEST_ID_HEADER: &str = "X-Request-ID";
/// Carries the id by which a stream drops what it has already stored.
pub const DEDUP_HEADER: &str = "Nats-Msg-Id";

/// Whether the text can be one token of a subject: not empty, and free of dots, wildcards, white space and controls.
pub fn is_token(text: &str) -> bool {
    !text.is_empty() && !text.chars().any(|c| matches!(c, '.' | '*' | '>') || c.is_whitespace() || c.is_control())
}

/// Where a user sends a message to a room.
pub fn send(account: &str, room: &str, site: &str) -> String {
    format!("chat.user.{account}.room.{room}.{site}.msg.send")
}

/// Every send of a site.
pub fn send_wildcard(site: &str) -> String {
    format!("chat.user.*.room.*.{site}.msg.send")
}

/// Where the answer to one request goes.
pub fn response(account: &str, request_id: &str) -> String {
    format!("chat.user.{account}.response.{request_id}")
}

/// Every answer to a user.
pub fn response_wildcard(account: &str) -> String {
    format!("chat.user.{account}.response.>")
}

/// What stands before the request id in [`response`], with its dot.
pub fn response_prefix(account: &str) -> String {
    format!("chat.user.{account}.response.")
}

/// Broadcasts of a channel.
pub fn room_event(room: &str) -> String {
    format!("chat.room.{room}.event")
}

/// A user's own copies of broadcasts: direct messages.
pub fn user_event(account: &str) -> String {
    format!("chat.user.{account}.event.room")
}

/// Accepted messages of a site.
pub fn canonical_created(site: &str) -> String {
    format!("chat.msg.canonical.{site}.created")
}

/// Where a user asks something of a room: `operation` is `msg.history`, `message.read`, …
pub fn room_request(account: &str, room: &str, site: &str, operation: &str) -> String {
    format!("chat.user.{account}.request.room.{room}.{site}.{operation}")
}

/// Every request of one operation at a site.
pub fn room_request_wildcard(site: &str, operation: &str) -> String {
    format!("chat.user.*.request.room.*.{site}.{operation}")
}

/// Reads a page of a room's history.
pub const LOAD_HISTORY: &str = "msg.history";
/// Reads the replies of a thread.
pub const GET_THREAD: &str = "msg.thread";
/// Marks a room as read.
pub const MARK_READ: &str = "message.read";
/// Asks who has read one's own message.
pub const READ_RECEIPT: &str = "message.read-receipt";
/// Adds members to a room.
pub const ADD_MEMBERS: &str = "member.add";

/// Mutes a room for its member, or no longer.
pub const TOGGLE_MUTE: &str = "mute.toggle";

/// Where a user asks something about all of its own: `operation` is `subscription.list`, ….
pub fn user_request(account: &str, site: &str, operation: &str) -> String {
    format!("chat.user.{account}.request.user.{site}.{operation}")
}

/// Lists the rooms of a user.
pub const LIST_ROOMS: &str = "subscription.list";

/// Where a user makes a room.
pub fn create_room(account: &str, site: &str) -> String {
    format!("chat.user.{account}.request.room.{site}.create")
}

/// Where a user's client says that it is there: `what` is `hello`, `ping`, `activity` or `bye`.
pub fn presence(account: &str, site: &str, what: &str) -> String {
    format!("chat.user.{account}.event.presence.{site}.{what}")
}

/// What changes of a user's presence, for all who look.
pub fn presence_state(account: &str) -> String {
    format!("chat.user.presence.state.{account}")
}

/// What happens to the membership of a room.
pub fn member_event(room: &str) -> String {
    format!("chat.room.{room}.event.member")
}

/// Where accepted requests to add members go.
pub fn add_members_job(site: &str) -> String {
    format!("chat.room.canonical.{site}.member.add")
}

/// The stream of what is to be done to rooms.
pub fn rooms_stream(site: &str) -> String {
    format!("ROOMS_{site}")
}

/// What the stream of what is to be done to rooms captures.
pub fn rooms_stream_subjects(site: &str) -> Vec<String> {
    vec![format!("chat.room.canonical.{site}.>")]
}

/// The account and the room of a request of this operation.
pub fn parse_room_request<'a>(subject: &'a str, site: &str, operation: &str) -> Option<(&'a str, &'a str)> {
    let (account, rest) = subject.strip_prefix("chat.user.")?.split_once('.')?;
    let (room, rest) = rest.strip_prefix("request.room.")?.split_once('.')?;
    let rest = rest.strip_prefix(site)?.strip_prefix('.')?;
    (rest == operation && is_token(account) && is_token(room)).then_some((account, room))
}

/// The stream of sends.
pub fn messages_stream(site: &str) -> String {
    format!("MESSAGES_{site}")
}

/// What the stream of sends captures.
pub fn messages_stream_subjects(site: &str) -> Vec<String> {
    vec![format!("chat.user.*.room.*.{site}.msg.>")]
}

/// The stream of accepted messages.
pub fn canonical_stream(site: &str) -> String {
    format!("MESSAGES_CANONICAL_{site}")
}

/// What the stream of accepted messages captures.
pub fn canonical_stream_subjects(site: &str) -> Vec<String> {
    vec![format!("chat.msg.canonical.{site}.>")]
}

/// The parts of a send's subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SendSubject<'a> {
    pub account: &'a str,
    pub room: &'a str,
    pub site: &'a str,
}

/// Takes a send's subject apart; none if it is not one.
pub fn parse_send(subject: &str) -> Option<SendSubject<'_>> {
    let (account, rest) = subject.strip_prefix("chat.user.")?.split_once('.')?;
    let (room, rest) = rest.strip_prefix("room.")?.split_once('.')?;
    let site = rest.strip_suffix(".msg.send")?;
    [account, room, site].into_iter().all(is_token).then_some(SendSubject { account, room, site })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn subjects_are_those_of_the_contract() {
        assert_eq!(
            send("user-7", "room-000002", "site-local"),
            "chat.user.user-7.room.room-000002.site-local.msg.send"
        );
        assert_eq!(send_wildcard("s"), "chat.user.*.room.*.s.msg.send");
        assert_eq!(response("user-7", "0198"), "chat.user.user-7.response.0198");
        assert_eq!(response_wildcard("user-7"), "chat.user.user-7.response.>");
        assert_eq!(response_prefix("user-7"), "chat.user.user-7.response.");
        assert_eq!(room_event("room-000002"), "chat.room.room-000002.event");
        assert_eq!(user_event("user-7"), "chat.user.user-7.event.room");
        assert_eq!(canonical_created("s"), "chat.msg.canonical.s.created");
        assert_eq!((messages_stream("s"), canonical_stream("s")), ("MESSAGES_s".into(), "MESSAGES_CANONICAL_s".into()));
        assert_eq!(
            room_request("user-7", "hroom-000002", "s", LOAD_HISTORY),
            "chat.user.user-7.request.room.hroom-000002.s.msg.history"
        );
        let read = room_request("user-7", "hroom-000002", "s", MARK_READ);
        assert_eq!(parse_room_request(&read, "s", MARK_READ), Some(("user-7", "hroom-000002")));
        assert_eq!(parse_room_request(&read, "s", READ_RECEIPT), None);
        assert_eq!(messages_stream_subjects("s"), ["chat.user.*.room.*.s.msg.>"]);
        assert_eq!(canonical_stream_subjects("s"), ["chat.msg.canonical.s.>"]);
        assert_eq!(
            (rooms_stream("s"), rooms_stream_subjects("s").concat()),
            ("ROOMS_s".into(), "chat.room.canonical.s.>".into())
        );
        assert_eq!(add_members_job("s"), "chat.room.canonical.s.member.add");
        assert_eq!(user_request("user-7", "s", LIST_ROOMS), "chat.user.user-7.request.user.s.subscription.list");
        assert_eq!(create_room("user-7", "s"), "chat.user.user-7.request.room.s.create");
        assert_eq!(presence("user-7", "s", "hello"), "chat.user.user-7.event.presence.s.hello");
        assert_eq!(presence_state("user-7"), "chat.user.presence.state.user-7");
        assert_eq!(member_event("mroom-000001"), "chat.room.mroom-000001.event.member");
    }

    proptest! {
        #[test]
        fn a_send_subject_comes_apart_as_it_was_made(a in "[a-z0-9_-]{1,9}", r in "[a-zA-Z0-9-]{1,9}", s in "[a-z-]{1,9}") {
            let subject = send(&a, &r, &s);
            prop_assert_eq!(parse_send(&subject), Some(SendSubject { account: &a, room: &r, site: &s }));
        }

        #[test]
        fn what_is_no_send_subject_is_refused_without_a_panic(subject in "(chat\\.user\\.)?[a-z.*>é ]{0,40}(\\.msg\\.send)?") {
            if let Some(found) = parse_send(&subject) {
                prop_assert_eq!(send(found.account, found.room, found.site), subject);
            }
        }
    }
}
