//! What is written, field by field, and that twice is once.

use super::{both, done, mongo_flags, plimsoll};
use plimsoll_common::contract::fixtures::{
    Fixtures, Room, RoomKind, account, chinese_name, eng_name, room_key, thread_parent_author, thread_parent_id,
    user_id,
};
use plimsoll_common::contract::history::{HistoryPreset, RoomHistory};
use plimsoll_common::contract::members::MembersPreset;
use plimsoll_common::contract::presets::MessagesPreset;
use plimsoll_tests::harness::databases::{MongoServer, collections, need_both, need_mongo, with_database};
use serde_json::{Value, json};
use std::collections::HashMap;

const SITE: &str = "site-x";
const DAY_MS: i64 = 86_400_000;

/// What is in a database, collection by collection.
fn dump(mongo: &MongoServer) -> anyhow::Result<HashMap<&'static str, Vec<Value>>> {
    let names = ["users", "rooms", "subscriptions", "thread_rooms", "thread_subscriptions", "plimsoll_seeds"];
    collections(&mongo.uri(), "chat", &names)
}

/// When the times of a seeding count from, as its record says.
fn anchor_ms(dump: &HashMap<&str, Vec<Value>>) -> i64 {
    let record = dump["plimsoll_seeds"].iter().find(|record| record["kind"] == "seed").expect("a record");
    record["anchor"]["ms"].as_i64().expect("a time")
}

fn by_id(documents: &[Value]) -> HashMap<&str, &Value> {
    documents.iter().map(|document| (document["_id"].as_str().expect("an id"), document)).collect()
}

fn user(user: u32) -> Value {
    json!({
        "_id": user_id(user), "account": account(user), "siteId": SITE, "sectId": "", "sectName": "", "sectTCName": "",
        "deptId": "", "deptName": "", "deptTCName": "", "engName": eng_name(user), "chineseName": chinese_name(user),
        "employeeId": "", "statusIsShow": false, "statusText": "",
    })
}

/// A room without messages, as the contract has it.
fn room(seed: u64, room: &Room, made_ms: i64) -> Value {
    let mut document = json!({
        "_id": room.id(), "siteId": SITE, "userCount": room.members.len(), "appCount": 0, "lastMsgId": "",
        "createdAt": {"ms": made_ms}, "updatedAt": {"ms": made_ms},
    });
    match room.kind {
        RoomKind::Channel => {
            document["name"] = json!(room.name());
            document["type"] = json!("channel");
            let key: String = room_key(seed, room.index).iter().map(|byte| format!("{byte:02x}")).collect();
            document["encKey"] = json!({"priv": {"hex": key}, "ver": 0});
        }
        RoomKind::Dm => {
            document["name"] = json!("");
            document["type"] = json!("dm");
            document["uids"] = json!(room.members.iter().map(|&user| user_id(user)).collect::<Vec<_>>());
            document["accounts"] = json!(room.members.iter().map(|&user| account(user)).collect::<Vec<_>>());
        }
    }
    document
}

fn subscription(room: &Room, position: usize, made_ms: i64) -> Value {
    let user = room.members[position];
    let other = || room.members.iter().find(|&&other| other != user).expect("two of a direct message");
    let (name, kind, roles) = match room.kind {
        RoomKind::Channel => (room.name(), "channel", json!([if position == 0 { "owner" } else { "member" }])),
        RoomKind::Dm => (account(*other()), "dm", Value::Null),
    };
    json!({
        "_id": format!("sub-{}-{}", room.id(), user_id(user)), "u": {"_id": user_id(user), "account": account(user), "isBot": false},
        "roomId": room.id(), "siteId": SITE, "roles": roles, "name": name, "roomType": kind, "joinedAt": {"ms": made_ms},
        "hasMention": false, "alert": false, "muted": false, "favorite": false, "hasGroupMention": false, "hasUnread": false,
    })
}

/// Compares users, rooms and subscriptions with the fixtures; `more` changes what a room or subscription is to be.
fn assert_is(
    dump: &HashMap<&str, Vec<Value>>,
    fixtures: &Fixtures,
    made_ms: i64,
    more_of_room: impl Fn(&Room, &mut Value),
    more_of_subscription: impl Fn(&Room, usize, &mut Value),
) {
    assert_eq!(dump["users"].len(), fixtures.users as usize);
    let users = by_id(&dump["users"]);
    for number in 0..fixtures.users {
        assert_eq!(users[user_id(number).as_str()], &user(number));
    }
    assert_eq!(dump["rooms"].len(), fixtures.rooms.len());
    assert_eq!(dump["subscriptions"].len(), fixtures.subscriptions());
    let (rooms, subscriptions) = (by_id(&dump["rooms"]), by_id(&dump["subscriptions"]));
    for at in &fixtures.rooms {
        let mut wanted = room(fixtures.seed, at, made_ms);
        more_of_room(at, &mut wanted);
        assert_eq!(rooms[at.id().as_str()], &wanted);
        for position in 0..at.members.len() {
            let mut wanted = subscription(at, position, made_ms);
            more_of_subscription(at, position, &mut wanted);
            assert_eq!(subscriptions[wanted["_id"].as_str().expect("an id")], &wanted);
        }
    }
}

#[test]
fn users_rooms_keys_and_memberships_are_the_contracts_and_twice_is_once() {
    need_mongo();
    let mongo = MongoServer::start(&Default::default()).unwrap();
    let (uri, flags) = (mongo.uri(), mongo_flags(&mongo));
    // Indexes that a service made, and one that nobody knows, are kept.
    let indexes = "db.users.create_index('account', unique=True)\n\
        db.subscriptions.create_index([('roomId', 1), ('u.account', 1)], unique=True)\n\
        db.rooms.create_index('somebody')\n\
        db.users.insert_one({'_id': 'of-somebody-else', 'account': 'x', 'siteId': 'other'})";
    with_database(&uri, "chat", indexes).unwrap();
    let seed = format!("seed --preset realistic --seed 7 --site-id {SITE}");
    let said = done(&seed, &flags).unwrap();
    assert!(
        said.starts_with("seeded 2,991 rows and documents of --workload messages --preset realistic --seed 7"),
        "{said}"
    );
    let mut first = dump(&mongo).unwrap();
    let position = first["users"].iter().position(|user| user["_id"] == "of-somebody-else").unwrap();
    first.get_mut("users").unwrap().remove(position);
    let fixtures = Fixtures::build(MessagesPreset::Realistic, 7, SITE);
    assert_is(&first, &fixtures, anchor_ms(&first) - DAY_MS, |_, _| {}, |_, _, _| {});
    // What a service changed, and what runs added, is as it was after the second time.
    let changes = "db.rooms.update_one({'_id': 'room-000003'}, {'$set': {'lastMsgId': 'x', 'userCount': 99}})\n\
        db.subscriptions.insert_one({'_id': '0198', 'roomId': 'room-000003', 'siteId': 'site-x', 'u': {'account': 'user-999'}})\n\
        db.users.delete_one({'_id': 'u-000500'})";
    with_database(&uri, "chat", changes).unwrap();
    done(&seed, &flags).unwrap();
    let mut second = dump(&mongo).unwrap();
    let position = second["users"].iter().position(|user| user["_id"] == "of-somebody-else").unwrap();
    second.get_mut("users").unwrap().remove(position);
    assert_eq!(first, second);
    let names = with_database(&uri, "chat", "out = sorted(db.rooms.index_information())").unwrap();
    assert_eq!(names, json!(["_id_", "somebody_1"]));
}

#[test]
fn rooms_to_be_read_have_a_newest_message_that_nobody_has_seen() {
    need_mongo();
    let mongo = MongoServer::start(&Default::default()).unwrap();
    done(&format!("seed --workload room-read --preset small --create-schema --site-id {SITE}"), &mongo_flags(&mongo))
        .unwrap();
    let dump = dump(&mongo).unwrap();
    let anchor = anchor_ms(&dump);
    let fixtures = Fixtures::build(MessagesPreset::Small, 42, SITE);
    let seen: HashMap<String, i64> = dump["subscriptions"]
        .iter()
        .map(|one| (one["_id"].as_str().unwrap().to_owned(), one["lastSeenAt"]["ms"].as_i64().unwrap()))
        .collect();
    let last = anchor + DAY_MS;
    assert!(seen.values().all(|seen| (1..=10_080).contains(&((last - seen) / 60_000))), "{seen:?}");
    let of = |room: &Room, user: u32| seen[&format!("sub-{}-{}", room.id(), user_id(user))];
    assert_is(
        &dump,
        &fixtures,
        anchor - DAY_MS,
        |room, wanted| {
            wanted["lastMsgAt"] = json!({"ms": last});
            let floor = room.members.iter().map(|&user| of(room, user)).min();
            wanted["minUserLastSeenAt"] = json!({"ms": floor});
        },
        |room, position, wanted| wanted["lastSeenAt"] = json!({"ms": of(room, room.members[position])}),
    );
}

#[test]
fn members_have_one_owner_and_candidates_stay_outside() {
    need_mongo();
    let mongo = MongoServer::start(&Default::default()).unwrap();
    done(
        &format!("seed --workload members --preset members-small --create-schema --site-id {SITE}"),
        &mongo_flags(&mongo),
    )
    .unwrap();
    let dump = dump(&mongo).unwrap();
    let fixtures = MembersPreset::Small.fixtures(42, SITE);
    assert_is(&dump, &fixtures, anchor_ms(&dump) - DAY_MS, |_, _| {}, |_, _, _| {});
    for room in &fixtures.rooms {
        for candidate in MembersPreset::Small.candidates(42, room.index) {
            assert!(
                dump["subscriptions"]
                    .iter()
                    .all(|one| one["roomId"] != room.id() || one["u"]["_id"] != user_id(candidate))
            );
        }
    }
}

/// `floor(ms / 72 h) × 72 h`
fn bucket(ms: i64) -> i64 {
    ms.div_euclid(259_200_000) * 259_200_000
}

fn sender(user: u32) -> Value {
    json!({"id": user_id(user), "account": account(user), "eng_name": eng_name(user)})
}

fn sorted(mut rows: Vec<Value>) -> Vec<Value> {
    rows.sort_by_key(Value::to_string);
    rows
}

#[test]
fn parents_of_threads_are_in_both_tables_and_may_be_replied_to() {
    need_both();
    let (mongo, cassandra, flags) = both("parents").unwrap();
    let seed = format!("seed --workload thread --preset small --parents-per-room 3 --create-schema --site-id {SITE}");
    done(&seed, &flags).unwrap();
    let dump = dump(&mongo).unwrap();
    let anchor = anchor_ms(&dump);
    let fixtures = Fixtures::build(MessagesPreset::Small, 42, SITE);
    let id = |room: &Room, parent: u32| String::from_utf8(thread_parent_id(42, room.index, parent).to_vec()).unwrap();
    let newest = |room: &Room, wanted: &mut Value| {
        wanted["lastMsgAt"] = json!({"ms": anchor - 998_000});
        wanted["lastMsgId"] = json!(id(room, 2));
    };
    assert_is(&dump, &fixtures, anchor - DAY_MS, newest, |_, _, _| {});
    let rows = |with_bucket: bool| -> Vec<Value> {
        let of_room = |room: &'_ Room| -> Vec<Value> {
            let row = |parent: u32| {
                // As if there were a thousand: more of them move none.
                let at = anchor - i64::from(1000 - parent) * 1000;
                let mut row = json!({
                    "room_id": room.id(), "created_at": at, "message_id": id(room, parent), "updated_at": at, "site_id": SITE,
                    "sender": sender(thread_parent_author(room, parent)), "msg": "a message to reply to",
                });
                if with_bucket {
                    row["bucket"] = json!(bucket(at));
                }
                row
            };
            (0..3).map(row).collect()
        };
        sorted(fixtures.rooms.iter().flat_map(of_room).collect())
    };
    assert_eq!(sorted(cassandra.rows("parents.messages_by_room").unwrap()), rows(true));
    assert_eq!(sorted(cassandra.rows("parents.messages_by_id").unwrap()), rows(false));
    // A run's reply leaves a count in the parent's row and a thread behind; seeding anew takes both back.
    let first = id(&fixtures.rooms[0], 0);
    cassandra.execute(&[format!("UPDATE parents.messages_by_id SET tcount = 4 WHERE message_id = '{first}'")]).unwrap();
    let thread = format!(
        "db.thread_rooms.insert_one({{'_id': '0198', 'parentMessageId': '{first}', 'roomId': 'room-000000', 'siteId': '{SITE}'}})"
    );
    with_database(&mongo.uri(), "chat", &thread).unwrap();
    done(&seed, &flags).unwrap();
    assert_eq!(sorted(cassandra.rows("parents.messages_by_id").unwrap()), rows(false));
    assert_eq!(super::contents::dump(&mongo).unwrap(), dump);
}

#[test]
fn a_history_with_threads_and_readers_is_the_contracts() {
    need_both();
    let (mongo, cassandra, flags) = both("past").unwrap();
    // Of history-medium one room: chunk 0 is the users, the others a room each.
    let seed =
        format!("seed --workload read-receipt --preset history-medium --create-schema --site-id {SITE} --shard 4/101");
    let said = done(&seed, &flags).unwrap();
    assert!(said.contains("still to be seeded: --shard 1/101, 2/101, 3/101, 5/101"), "{said}");
    let dump = dump(&mongo).unwrap();
    let anchor = anchor_ms(&dump);
    let made = anchor - 8 * DAY_MS;
    let room_at = &HistoryPreset::Medium.fixtures(42, SITE).rooms[2];
    let history = RoomHistory::new(HistoryPreset::Medium, 42, 2);
    let (room_id, at) = (room_at.id(), |age: u64| anchor - age as i64);
    let newest = at(history.age_ms(4_999));
    let mut wanted = room(42, room_at, made);
    wanted["lastMsgAt"] = json!({"ms": newest});
    wanted["lastMsgId"] = json!("hmsg-hroom-000002-004999");
    assert_eq!(dump["rooms"], [wanted]);
    // Of 20 members, 14 have read everything.
    let subscriptions = by_id(&dump["subscriptions"]);
    assert_eq!(subscriptions.len(), 20);
    for position in 0..20 {
        let mut wanted = subscription(room_at, position, made);
        if position < 14 {
            wanted["lastSeenAt"] = json!({"ms": newest + 1});
        }
        assert_eq!(subscriptions[wanted["_id"].as_str().unwrap()], &wanted);
    }
    let user = |position: u32| room_at.members[position as usize];
    let (mut by_room, mut by_id_rows, mut by_thread, mut rooms, mut followers) =
        (vec![], vec![], vec![], vec![], vec![]);
    for index in 0..5_000 {
        let (created, id) = (at(history.age_ms(index)), format!("hmsg-{room_id}-{index:06}"));
        let mut row = json!({
            "room_id": room_id, "created_at": created, "message_id": id, "sender": sender(user(history.author(index))),
            "msg": history.content(index, None), "site_id": SITE, "updated_at": created,
        });
        if history.has_thread(index) {
            let thread = format!("tr-{room_id}-{index:06}");
            let times: Vec<i64> = (0..3).map(|reply| at(history.reply_age_ms(index, reply))).collect();
            let authors: Vec<u32> = (0..3).map(|reply| user(history.reply_author(index, reply))).collect();
            row["thread_room_id"] = json!(thread);
            row["tcount"] = json!(3);
            row["thread_last_msg_at"] = json!(times[2]);
            for reply in 0..3 {
                let place = reply as usize;
                let reply_row = json!({
                    "thread_room_id": thread, "created_at": times[place], "message_id": format!("hreply-{room_id}-{index:06}-{reply:02}"),
                    "room_id": room_id, "thread_parent_id": id, "sender": sender(authors[place]),
                    "msg": history.content(index, Some(reply)), "site_id": SITE, "updated_at": times[place],
                });
                by_thread.push(reply_row.clone());
                let mut of_id = reply_row;
                of_id["thread_parent_created_at"] = json!(created);
                by_id_rows.push(of_id);
            }
            let mut accounts: Vec<String> = vec![account(user(history.author(index)))];
            authors.iter().for_each(|&user| {
                if !accounts.contains(&account(user)) {
                    accounts.push(account(user))
                }
            });
            rooms.push(json!({
                "_id": thread, "parentMessageId": id, "threadParentCreatedAt": {"ms": created}, "roomId": room_id, "siteId": SITE,
                "lastMsgAt": {"ms": times[2]}, "lastMsgId": format!("hreply-{room_id}-{index:06}-02"), "replyAccounts": accounts,
                "createdAt": {"ms": times[0]}, "updatedAt": {"ms": times[2]},
            }));
            let mut all = vec![user(history.author(index))];
            authors.iter().for_each(|&user| {
                if !all.contains(&user) {
                    all.push(user)
                }
            });
            followers.extend(all.into_iter().map(|user| json!({
                "_id": format!("tsub-{thread}-{}", user_id(user)), "parentMessageId": id, "roomId": room_id, "threadRoomId": thread,
                "userId": user_id(user), "userAccount": account(user), "siteId": SITE, "lastSeenAt": null, "hasMention": false,
                "createdAt": {"ms": times[0]}, "updatedAt": {"ms": times[0]},
            })));
        }
        by_id_rows.push(row.clone());
        row["bucket"] = json!(bucket(created));
        by_room.push(row);
    }
    assert!(by_thread.len() > 500);
    assert_eq!(dump["thread_rooms"], rooms);
    followers.sort_by_key(|one| one["_id"].as_str().unwrap().to_owned());
    assert_eq!(dump["thread_subscriptions"], followers);
    for (table, wanted) in
        [("messages_by_room", by_room), ("messages_by_id", by_id_rows), ("thread_messages_by_thread", by_thread)]
    {
        let found = sorted(cassandra.rows(&format!("past.{table}")).unwrap());
        assert!(found == sorted(wanted), "{table} is not as it should be");
    }
    let verified =
        plimsoll(&format!("verify --workload read-receipt --preset history-medium --site-id {SITE}"), &flags).unwrap();
    assert!(verified.code == Some(2) && verified.stderr.contains("is not whole: `plimsoll seed"), "{verified:?}");
}
