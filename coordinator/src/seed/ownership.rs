//! Which documents are ours: one answer for seeding, verifying and removing.

use std::ops::Range;

use mongodb::bson::{Document, doc};
use plimsoll_common::contract::daily::made_rooms::MadeRoom;
use plimsoll_common::contract::fixtures::{RoomKind, account, user_id};

use super::dataset::Dataset;
use super::mongo::Mongo;
use super::spec::{People, RoomIds, prefixed};

/// Ids in one filter.
const IDS: usize = 1000;
/// Rooms of runs, at most.
const MOST: i64 = 1_000_000;

/// The seeded rooms, by their ids and no other's. A direct message has the ids of its two users, as has one that two users of
/// the fixtures open in the chat, which is not ours: those are named one by one.
pub fn rooms(dataset: &Dataset) -> Vec<Document> {
    let pairs: Vec<String> = direct_messages(dataset).collect();
    dataset.spec.room_ids().ranges().into_iter().chain(any_of(&pairs)).collect()
}

/// Filters that meet these ids.
pub fn any_of(ids: &[String]) -> impl Iterator<Item = Document> {
    ids.chunks(IDS).map(|ids| doc! { "$in": ids })
}

/// Rooms whose ids are those of two users.
fn direct_messages(dataset: &Dataset) -> impl Iterator<Item = String> {
    let rooms = match &dataset.people {
        People::Rooms(fixtures) => fixtures.rooms.as_slice(),
        People::Daily(_) => &[],
    };
    rooms.iter().filter(|room| room.kind == RoomKind::Dm).map(|room| room.id())
}

/// Some users, at least one, by their ids.
pub fn user_range(users: Range<u32>) -> Document {
    // Up to the last one: the id behind a million users comes before theirs.
    // No text between two of them is one of ours but has six digits.
    doc! { "$gte": user_id(users.start), "$lte": user_id(users.end - 1), "$regex": "^u-[0-9]{6}$" }
}

/// Whether this is the site of somebody else. Rows without one are those of whoever wrote the room.
pub fn is_others(site: Option<&str>, own: &str) -> bool {
    site.is_some_and(|site| !site.is_empty() && site != own)
}

/// The rooms that runs have made beside the seeded ones, by their ids: their names are those that runs give, and their owner
/// is the user of the fixtures that the name says. What somebody else called `plimsoll-team` is not among them.
///
/// # Errors
/// They cannot be read.
pub async fn made_by_runs(mongo: &Mongo, dataset: &Dataset) -> Result<Vec<String>, String> {
    if dataset.spec.room_ids() != RoomIds::Daily {
        return Ok(Vec::new());
    }
    let site = &dataset.spec.site;
    // A member's subscription of a channel has the name of its room.
    let owners = doc! { "siteId": site, "name": prefixed(MadeRoom::PREFIX), "roles": "owner" };
    let owners = mongo.find("subscriptions", owners, MOST).await?;
    Ok(owners.iter().filter_map(|owner| made_by_run(owner, dataset.users())).collect())
}

/// The room of an owner's subscription, if a run made it.
fn made_by_run(owner: &Document, users: u32) -> Option<String> {
    let made = MadeRoom::read(owner.get_str("name").ok()?)?;
    let is_owner = owner.get_document("u").ok()?.get_str("account").ok()? == account(made.user);
    (made.user < users && is_owner).then(|| owner.get_str("roomId").ok().map(str::to_owned)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed::fixture::dataset;

    #[test]
    fn users_are_a_range_of_ids() {
        assert_eq!(user_range(0..10), doc! { "$gte": "u-000000", "$lte": "u-000009", "$regex": "^u-[0-9]{6}$" });
        assert_eq!(user_range(5..1_000_000), doc! { "$gte": "u-000005", "$lte": "u-999999", "$regex": "^u-[0-9]{6}$" });
    }

    #[test]
    fn direct_messages_are_named_one_by_one() {
        let realistic = dataset("messages", "realistic");
        let filters = rooms(&realistic);
        assert_eq!(filters.len(), 2);
        let ids = filters[1].get_array("$in").unwrap();
        assert_eq!(ids.len(), 10);
        assert!(ids.iter().all(|id| id.as_str().is_some_and(|id| id.starts_with("u-") && id.contains("u-"))));
        assert_eq!(rooms(&dataset("messages", "small")).len(), 1);
    }

    #[test]
    fn a_room_of_a_run_has_its_name_and_its_owner() {
        let owner = |name: &str, account: &str| doc! { "roomId": "r", "name": name, "u": { "account": account } };
        assert_eq!(made_by_run(&owner("plimsoll-1f-0-2a-7", "user-7"), 100).as_deref(), Some("r"));
        for (name, account, users) in [
            ("plimsoll-team", "user-7", 100),
            ("plimsoll-1f-0-2a-7", "ann", 100),
            ("plimsoll-1f-0-2a-7", "user-8", 100),
            ("plimsoll-1f-0-2a-7", "user-7", 7),
        ] {
            assert_eq!(made_by_run(&owner(name, account), users), None, "{name} {account} {users}");
        }
    }

    #[test]
    fn rows_without_a_site_are_nobody_elses() {
        assert!(is_others(Some("b"), "a"));
        assert!(!is_others(Some("a"), "a") && !is_others(Some(""), "a") && !is_others(None, "a"));
    }
}
