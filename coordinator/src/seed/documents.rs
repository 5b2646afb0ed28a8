//! The documents of MongoDB, field by field as the chat's services write them.

use mongodb::bson::spec::BinarySubtype;
use mongodb::bson::{Binary, Bson, DateTime, Document, doc};
use plimsoll_common::contract::fixtures::{RoomKind, account, chinese_name, eng_name, room_key, user_id};

use super::dataset::{Dataset, Message, SeedRoom};
use super::spec::Content;

/// Rooms with more members than this are closed to posts of plain members.
const LARGE_ROOM: usize = 500;

/// A document of `users`.
pub fn user(dataset: &Dataset, user: u32) -> Document {
    doc! {
        "_id": user_id(user),
        "account": account(user),
        "siteId": &dataset.spec.site,
        "sectId": "",
        "sectName": "",
        "sectTCName": "",
        "deptId": "",
        "deptName": "",
        "deptTCName": "",
        "engName": eng_name(user),
        "chineseName": chinese_name(user),
        "employeeId": "",
        "statusIsShow": false,
        "statusText": "",
    }
}

/// A document of `rooms`, with the key of its broadcasts if it is a channel.
pub fn room(dataset: &Dataset, room: &SeedRoom) -> Document {
    let made = date(dataset.made_ms());
    let mut document = doc! {
        "_id": &room.id,
        "name": if room.kind == RoomKind::Dm { "" } else { &room.name },
        "type": kind(room),
        "siteId": &dataset.spec.site,
        "userCount": count(room.members.len()),
        "appCount": 0_i32,
    };
    let last = dataset.last_message_ms(room);
    if let Some(last) = last {
        document.insert("lastMsgAt", date(last));
    }
    document.insert("lastMsgId", dataset.newest(room).map(|message| message.id).unwrap_or_default());
    if let Some(floor) = dataset.floor_ms(room) {
        document.insert("minUserLastSeenAt", date(floor));
    }
    document.insert("createdAt", made);
    document.insert("updatedAt", made);
    match room.kind {
        RoomKind::Channel => {
            let key = room_key(dataset.spec.seed, room.index).to_vec();
            let key = Binary { subtype: BinarySubtype::Generic, bytes: key };
            document.insert("encKey", doc! { "priv": key, "ver": 0_i32 });
        }
        RoomKind::Dm => {
            let pair = pair(room);
            document.insert("uids", pair.iter().map(|&user| user_id(user)).collect::<Vec<_>>());
            document.insert("accounts", pair.iter().map(|&user| account(user)).collect::<Vec<_>>());
        }
    }
    document
}

/// A document of `subscriptions`: the member at this position of a room.
pub fn subscription(dataset: &Dataset, room: &SeedRoom, position: usize) -> Document {
    let user = room.members[position];
    let mut document = doc! {
        "_id": subscription_id(room, user),
        "u": { "_id": user_id(user), "account": account(user), "isBot": false },
        "roomId": &room.id,
        "siteId": &dataset.spec.site,
        "roles": roles(dataset.content, room, position),
        "name": subscription_name(room, user),
        "roomType": kind(room),
        "joinedAt": date(dataset.made_ms()),
    };
    if let Some(seen) = dataset.last_seen_ms(room, position) {
        document.insert("lastSeenAt", date(seen));
    }
    for flag in ["hasMention", "alert", "muted", "favorite", "hasGroupMention", "hasUnread"] {
        document.insert(flag, false);
    }
    document
}

/// `sub-room-000002-u-000007`
pub fn subscription_id(room: &SeedRoom, user: u32) -> String {
    format!("sub-{}-{}", room.id, user_id(user))
}

/// A document of `thread_rooms`; none for a message without replies.
pub fn thread_room(dataset: &Dataset, room: &SeedRoom, message: &Message) -> Option<Document> {
    let thread = message.thread.as_ref()?;
    // Who is told of the next reply: the message's author too.
    let followers: Vec<String> = thread.followers(message.author).into_iter().map(account).collect();
    let newest = thread.newest();
    Some(doc! {
        "_id": &thread.room_id,
        "parentMessageId": &message.id,
        "threadParentCreatedAt": date(message.created_ms),
        "roomId": &room.id,
        "siteId": &dataset.spec.site,
        "lastMsgAt": date(newest.created_ms),
        "lastMsgId": &newest.id,
        "replyAccounts": followers,
        "createdAt": date(thread.replies[0].created_ms),
        "updatedAt": date(newest.created_ms),
    })
}

/// The documents of `thread_subscriptions`, one for each who follows the message's thread.
pub fn thread_subscriptions(dataset: &Dataset, room: &SeedRoom, message: &Message) -> Vec<Document> {
    let Some(thread) = &message.thread else { return Vec::new() };
    let first = date(thread.replies[0].created_ms);
    let follower = |user: u32| {
        doc! {
            "_id": format!("tsub-{}-{}", thread.room_id, user_id(user)),
            "parentMessageId": &message.id,
            "roomId": &room.id,
            "threadRoomId": &thread.room_id,
            "userId": user_id(user),
            "userAccount": account(user),
            "siteId": &dataset.spec.site,
            "lastSeenAt": Bson::Null,
            "hasMention": false,
            "createdAt": first,
            "updatedAt": first,
        }
    };
    thread.followers(message.author).into_iter().map(follower).collect()
}

fn date(ms: i64) -> DateTime {
    DateTime::from_millis(ms)
}

fn kind(room: &SeedRoom) -> &'static str {
    match room.kind {
        RoomKind::Channel => "channel",
        RoomKind::Dm => "dm",
    }
}

fn count(members: usize) -> i32 {
    i32::try_from(members).unwrap_or(i32::MAX)
}

/// The first member owns the room; in one that is closed to plain members everybody else is an admin, so that they may post.
/// People of the daily presets keep to the rule, and only read there.
fn roles(content: Content, room: &SeedRoom, position: usize) -> Bson {
    match room.kind {
        RoomKind::Dm => Bson::Null,
        RoomKind::Channel if position == 0 => Bson::from(vec!["owner"]),
        RoomKind::Channel if room.members.len() > LARGE_ROOM && content != Content::Week => {
            Bson::from(vec!["member", "admin"])
        }
        RoomKind::Channel => Bson::from(vec!["member"]),
    }
}

/// A direct message is called by whom it is with.
fn subscription_name(room: &SeedRoom, user: u32) -> String {
    match room.kind {
        RoomKind::Channel => room.name.clone(),
        RoomKind::Dm => {
            room.members.iter().find(|&&other| other != user).map(|&other| account(other)).unwrap_or_default()
        }
    }
}

/// The two of a direct message, sorted by the text of their ids.
fn pair(room: &SeedRoom) -> Vec<u32> {
    let mut pair = room.members.clone();
    pair.sort_by_key(|&user| user_id(user));
    pair
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed::fixture::dataset;

    fn json(document: Document) -> String {
        document.to_string()
    }

    #[test]
    fn documents_are_the_same_for_ever() {
        let realistic = dataset("messages", "realistic");
        let (channel, dm) = (&realistic.room(2), &realistic.room(99));
        insta::assert_snapshot!(json(user(&realistic, 7)));
        insta::assert_snapshot!(json(room(&realistic, channel)));
        insta::assert_snapshot!(json(room(&realistic, dm)));
        insta::assert_snapshot!(json(subscription(&realistic, channel, 1)));
        insta::assert_snapshot!(json(subscription(&realistic, dm, 0)));
        let history = dataset("read-receipt", "history-medium");
        let parent_room = &history.room(1);
        let parent = history.messages(parent_room).find(|message| message.thread.is_some()).unwrap();
        insta::assert_snapshot!(json(room(&history, parent_room)));
        insta::assert_snapshot!(json(subscription(&history, parent_room, 0)));
        insta::assert_snapshot!(json(thread_room(&history, parent_room, &parent).unwrap()));
        insta::assert_snapshot!(json(thread_subscriptions(&history, parent_room, &parent).remove(0)));
    }

    /// Every byte of every document, folded into one number.
    fn bytes_of(dataset: &Dataset, rooms: std::ops::Range<u32>) -> u64 {
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        let mut fold = |document: &Document| {
            for byte in mongodb::bson::serialize_to_vec(document).unwrap() {
                hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
            }
        };
        (0..dataset.users()).for_each(|at| fold(&user(dataset, at)));
        for at in rooms {
            let at = &dataset.room(at);
            fold(&room(dataset, at));
            (0..at.members.len()).for_each(|position| fold(&subscription(dataset, at, position)));
            for message in dataset.messages(at).filter(|message| message.thread.is_some()) {
                thread_room(dataset, at, &message).iter().for_each(&mut fold);
                thread_subscriptions(dataset, at, &message).iter().for_each(&mut fold);
            }
        }
        hash
    }

    #[test]
    fn every_byte_of_a_seeding_is_the_same_on_any_machine() {
        let hashes =
            [("messages", "realistic"), ("room-read", "medium"), ("thread", "small"), ("members", "members-small")]
                .map(|(workload, preset)| dataset(workload, preset))
                .map(|all| format!("{:016x}", bytes_of(&all, 0..all.rooms())));
        insta::assert_snapshot!(hashes.join(" "));
        let medium = dataset("read-receipt", "history-medium");
        insta::assert_snapshot!(format!("{:016x}", bytes_of(&medium, 0..5)));
    }

    #[test]
    fn people_of_the_daily_presets_are_seeded_as_the_contract_has_it() {
        let daily = dataset("daily", "daily-heavy");
        let [dm, small, _, large] = <[SeedRoom; 4]>::try_from(daily.sample(4)).unwrap();
        insta::assert_snapshot!(json(room(&daily, &dm)));
        insta::assert_snapshot!(json(room(&daily, &small)));
        insta::assert_snapshot!(json(subscription(&daily, &dm, 0)));
        insta::assert_snapshot!(json(subscription(&daily, &small, 1)));
        insta::assert_snapshot!(format!("{:016x}", bytes_of(&daily, 0..daily.rooms())));
        let crowd = SeedRoom { members: (0..501).collect(), ..large };
        assert_eq!(roles(daily.content, &crowd, 1), Bson::from(vec!["member"]));
        assert_eq!(roles(daily.content, &crowd, 0), Bson::from(vec!["owner"]));
    }

    #[test]
    fn every_room_has_one_owner_and_who_may_not_post_otherwise_is_an_admin() {
        let mut large = dataset("messages", "small").room(0);
        large.members = (0..501).collect();
        let roles = |large: &SeedRoom, at| roles(Content::Nothing, large, at);
        let admins = (1..501).filter(|&at| roles(&large, at) == Bson::from(vec!["member", "admin"])).count();
        assert_eq!((roles(&large, 0), admins), (Bson::from(vec!["owner"]), 500));
        large.members.pop();
        assert_eq!(roles(&large, 499), Bson::from(vec!["member"]));
    }

    #[test]
    fn ids_are_unique() {
        let history = dataset("history", "history-medium");
        let mut ids = std::collections::HashSet::new();
        for at in &[0, 1, 2].map(|at| history.room(at)) {
            for message in history.messages(at) {
                for document in
                    thread_subscriptions(&history, at, &message).iter().chain(&thread_room(&history, at, &message))
                {
                    assert!(ids.insert(document.get_str("_id").unwrap().to_owned()), "{document}");
                }
            }
        }
        assert!(ids.len() > 1_000);
    }
}
