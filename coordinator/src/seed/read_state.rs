//! Who has looked into which room, whether the newest message of a room is still to be read when a run ends, and whether the
//! history service shows what a room has.

use std::time::Duration;

use mongodb::bson::{Bson, Document};

use super::dataset::UNREAD_AHEAD_MS;
use super::spec::Content;

/// What is wrong with a room's newest message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Behind {
    /// Seeding again mends it.
    Mended(String),
    /// No seeding does: the run is longer than seeding reaches.
    RunTooLong(String),
}

/// Whether `lastMsgAt` of all these rooms lies ahead of all of a run that begins now: who reads a room after it is through at
/// once. In words, for how long; `None`: there is no room.
pub(super) fn ahead(rooms: &[Document], now_ms: i64, run: Duration) -> Result<Option<String>, Behind> {
    const WHY: &str = "or services have next to nothing to do for those who read it";
    let run_ms = i64::try_from(run.as_millis()).unwrap_or(i64::MAX);
    if run_ms >= UNREAD_AHEAD_MS {
        return Err(Behind::RunTooLong(format!(
            "a run may take {} with these settings, and no seeding puts lastMsgAt of a room further ahead than {}, {WHY}: take \
             fewer or shorter steps, a lower --duration or --max-time",
            words(run_ms),
            words(UNREAD_AHEAD_MS)
        )));
    }
    let name = |room: &Document| room.get_str("_id").unwrap_or("?").to_owned();
    let mut nearest: Option<(i64, String)> = None;
    for room in rooms {
        let Ok(last) = room.get_datetime("lastMsgAt") else {
            let words =
                format!("MongoDB: rooms: {} has no lastMsgAt, and has to have one ahead of a run, {WHY}", name(room));
            return Err(Behind::Mended(words));
        };
        let ahead_ms = last.timestamp_millis() - now_ms;
        if nearest.as_ref().is_none_or(|(least, _)| ahead_ms < *least) {
            nearest = Some((ahead_ms, name(room)));
        }
    }
    let Some((ahead_ms, room)) = nearest else { return Ok(None) };
    if ahead_ms > run_ms {
        return Ok(Some(format!("ahead for another {}", words(ahead_ms))));
    }
    let is =
        if ahead_ms < 0 { format!("was {} ago", words(-ahead_ms)) } else { format!("is {} ahead", words(ahead_ms)) };
    Err(Behind::Mended(format!(
        "MongoDB: rooms: lastMsgAt of {room} {is}, and has to be ahead for as long as a run may take ({}), {WHY}",
        words(run_ms)
    )))
}

/// In whole minutes, but for less than one.
fn words(ms: i64) -> String {
    let seconds = ms.unsigned_abs() / 1000;
    let seconds = if seconds < 60 { seconds } else { seconds / 60 * 60 };
    humantime::format_duration(Duration::from_secs(seconds)).to_string()
}

/// What is wrong with when a member is said to have looked into a room; `wanted`: as it was seeded. Services only move it on;
/// where what is seeded lies ahead, to before it.
pub(super) fn looked(content: Content, wanted: &Document, there: &Document) -> Option<String> {
    let wanted_at = wanted.get_datetime("lastSeenAt").ok()?;
    let name = wanted.get_str("_id").unwrap_or("?");
    match there.get_datetime("lastSeenAt") {
        Err(_) => Some(format!("{name} has no lastSeenAt, and has to have one")),
        Ok(at) if at < wanted_at && !content.lies_ahead() => {
            Some(format!("{name} has lastSeenAt {at}, and has to have {wanted_at} or later"))
        }
        Ok(_) => None,
    }
}

/// What is wrong with the times of a room that services answer by: they show nothing from before it was made, nor from after
/// its newest message, and their page is empty then, which is an answer and no error. Services only move the newest one on.
pub(super) fn shown(content: Content, wanted: &Document, there: &Document) -> Option<String> {
    let name = wanted.get_str("_id").unwrap_or("?");
    let made = wanted.get_datetime("createdAt").ok()?;
    match there.get_datetime("createdAt") {
        Err(_) => return Some(format!("{name} has no createdAt, and has to have one")),
        Ok(at) if at > made => {
            return Some(format!(
                "{name} has createdAt {at}, and has to have {made} or earlier, or services show nothing of what is older"
            ));
        }
        Ok(_) => {}
    }
    // What lies ahead is looked at for itself.
    let newest = wanted.get_datetime("lastMsgAt").ok().filter(|_| !content.lies_ahead())?;
    match there.get_datetime("lastMsgAt") {
        Err(_) => Some(format!("{name} has no lastMsgAt, and has to have one, or services show none of its messages")),
        Ok(at) if at < newest => Some(format!(
            "{name} has lastMsgAt {at}, and has to have {newest} or later, or services show nothing of what is newer"
        )),
        Ok(_) => None,
    }
}

/// What is wrong with how far back a member sees into a room.
pub(super) fn sees(wanted: &Document, there: &Document) -> Option<String> {
    let since = there.get("historySharedSince").filter(|since| !matches!(since, Bson::Null))?;
    let (name, joined) = (wanted.get_str("_id").unwrap_or("?"), wanted.get_datetime("joinedAt").ok()?);
    if since.as_datetime().is_some_and(|since| since <= joined) {
        return None;
    }
    Some(format!(
        "{name} has historySharedSince {since}, and has to have none, or services show nothing of what is older"
    ))
}

#[cfg(test)]
mod tests {
    use mongodb::bson::{DateTime, doc};

    use super::*;
    use crate::seed::documents;
    use crate::seed::fixture::{ANCHOR_MS, dataset};

    const HOUR_MS: i64 = 3_600_000;
    const RUN: Duration = Duration::from_secs(600);

    #[test]
    fn a_newest_message_is_ahead_for_all_of_a_run_or_it_is_told() {
        let unread = dataset("room-read", "small");
        let rooms: Vec<Document> = unread.sample(5).iter().map(|room| documents::room(&unread, room)).collect();
        let at = |hours: i64| ahead(&rooms, ANCHOR_MS + hours * HOUR_MS, RUN);
        assert_eq!(at(0), Ok(Some("ahead for another 1day".into())));
        assert_eq!(at(23), Ok(Some("ahead for another 1h".into())));
        let told = |found: Result<Option<String>, Behind>| match found {
            Err(Behind::Mended(words)) => words,
            other => panic!("{other:?}"),
        };
        let late = told(ahead(&rooms, ANCHOR_MS + 24 * HOUR_MS - 60_000, RUN));
        assert!(
            late.contains("lastMsgAt of room-000000 is 1m ahead, and has to be ahead for as long")
                && late.contains("(10m)")
        );
        assert!(told(at(30)).contains("lastMsgAt of room-000000 was 6h ago"), "{:?}", at(30));
        // One room is enough.
        let mut one = rooms.clone();
        one[3].insert("lastMsgAt", DateTime::from_millis(ANCHOR_MS));
        assert!(told(ahead(&one, ANCHOR_MS, RUN)).contains("lastMsgAt of room-000003 is 0s ahead"));
        one[3].remove("lastMsgAt");
        assert!(told(ahead(&one, ANCHOR_MS, RUN)).contains("room-000003 has no lastMsgAt"));
        let Err(Behind::RunTooLong(words)) = ahead(&rooms, ANCHOR_MS, Duration::from_secs(86_400)) else { panic!() };
        assert!(words.contains("a run may take 1day"), "{words}");
        assert_eq!(ahead(&[], ANCHOR_MS, RUN), Ok(None));
    }

    #[test]
    fn who_has_to_have_looked_has() {
        let receipts = dataset("read-receipt", "history-small");
        let (room, content) = (receipts.room(0), receipts.content);
        let (reader, other) =
            (documents::subscription(&receipts, &room, 0), documents::subscription(&receipts, &room, 9));
        assert_eq!(looked(content, &reader, &reader), None);
        assert_eq!(looked(content, &other, &other), None, "nobody says that they have");
        let mut there = reader.clone();
        there.insert("lastSeenAt", DateTime::from_millis(receipts.last_message_ms(&room).unwrap()));
        assert!(looked(content, &reader, &there).unwrap().contains("and has to have 2026-"));
        there.insert("lastSeenAt", DateTime::from_millis(ANCHOR_MS + HOUR_MS));
        assert_eq!(looked(content, &reader, &there), None, "services move it on");
        there.remove("lastSeenAt");
        assert!(looked(content, &reader, &there).unwrap().ends_with("has no lastSeenAt, and has to have one"));
        let unread = dataset("room-read", "small");
        let wanted = documents::subscription(&unread, &unread.room(0), 0);
        let read = doc! { "lastSeenAt": DateTime::from_millis(0) };
        assert_eq!(looked(unread.content, &wanted, &read), None);
        assert!(looked(unread.content, &wanted, &doc! {}).is_some());
    }

    #[test]
    fn a_room_shows_what_was_seeded() {
        let history = dataset("history", "history-small");
        let (room, content) = (documents::room(&history, &history.room(0)), history.content);
        assert_eq!(shown(content, &room, &room), None);
        let newest = history.last_message_ms(&history.room(0)).unwrap();
        let with = |key: &str, ms: i64| {
            let mut there = room.clone();
            there.insert(key, DateTime::from_millis(ms));
            shown(content, &room, &there)
        };
        assert_eq!(with("lastMsgAt", newest + 1), None, "services move it on");
        assert_eq!(with("createdAt", 0), None);
        assert!(with("lastMsgAt", newest - 1).unwrap().contains("or later, or services show nothing of what is newer"));
        assert!(
            with("createdAt", ANCHOR_MS).unwrap().contains("or earlier, or services show nothing of what is older")
        );
        for key in ["lastMsgAt", "createdAt"] {
            let mut there = room.clone();
            there.remove(key);
            assert!(shown(content, &room, &there).unwrap().contains(&format!("has no {key}")), "{key}");
        }
        // Rooms without messages have no newest one, and what lies ahead is looked at elsewhere.
        let empty = dataset("messages", "small");
        let room = documents::room(&empty, &empty.room(0));
        assert_eq!(shown(empty.content, &room, &room), None);
        let ahead = dataset("room-read", "small");
        let room = documents::room(&ahead, &ahead.room(0));
        let there = doc! { "createdAt": room.get_datetime("createdAt").unwrap() };
        assert_eq!(shown(ahead.content, &room, &there), None);
    }

    #[test]
    fn a_member_sees_all_of_it() {
        let history = dataset("history", "history-small");
        let member = documents::subscription(&history, &history.room(0), 1);
        assert_eq!(sees(&member, &member), None);
        let since = |since: Bson| {
            let mut there = member.clone();
            there.insert("historySharedSince", since);
            sees(&member, &there)
        };
        assert_eq!(since(Bson::Null), None);
        assert_eq!(since(DateTime::from_millis(0).into()), None);
        assert!(since(DateTime::from_millis(ANCHOR_MS).into()).unwrap().contains("historySharedSince"));
        assert!(since(7.into()).is_some());
    }
}
