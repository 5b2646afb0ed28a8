//! Counts documents: all of them, or where that takes longer than a run's own check may, some, and about how many there are.

use mongodb::bson::{Document, doc};

use super::dataset::SeedRoom;
use super::ownership::{rooms, user_range};
use super::progress::grouped;
use super::spec::prefixed;
use super::verify::{Check, Depth, MESSAGE_SAMPLE, SAMPLE};

/// Documents of a kind that a run's own check counts one by one: those of a million take longer than it may.
const MANY: u64 = 50_000;
/// So many too many are counted, to say how many there are.
const SLACK: u64 = 1_000;

impl Check<'_> {
    /// Counts users, rooms and who is in them.
    pub async fn people(&mut self) -> Result<(), String> {
        let totals = self.dataset.people_totals();
        let users = doc! { "_id": user_range(0..self.dataset.users()), "siteId": &self.dataset.spec.site };
        let (rooms, members) = (self.of_rooms("_id"), self.of_rooms("roomId"));
        let all = [
            ("users", vec![users], totals.users),
            ("rooms", rooms, totals.rooms),
            ("subscriptions", members, totals.subscriptions),
        ];
        for (collection, filters, wanted) in all {
            match self.depth == Depth::Quick && wanted > MANY {
                true => self.about(collection, wanted).await?,
                false => self.count(collection, "", filters, wanted).await?,
            }
        }
        if self.depth == Depth::Quick && totals.subscriptions > MANY {
            let rooms = self.dataset.sample(SAMPLE);
            let wanted = rooms.iter().map(|room| room.members.len() as u64).sum();
            let ids: Vec<&str> = rooms.iter().map(|room| room.id.as_str()).collect();
            let filter = doc! { "roomId": { "$in": ids }, "siteId": &self.dataset.spec.site };
            self.count("subscriptions", &format!(", in {} of its rooms", rooms.len()), vec![filter], wanted).await?;
        }
        Ok(())
    }

    /// Filters that meet what is in the seeded rooms, by this field.
    pub fn of_rooms(&self, field: &str) -> Vec<Document> {
        rooms(self.dataset).into_iter().map(|ids| doc! { field: ids, "siteId": &self.dataset.spec.site }).collect()
    }

    /// Whether there can be as many: to count so many takes longer than a run's own check may.
    async fn about(&mut self, collection: &str, wanted: u64) -> Result<(), String> {
        let about = self.mongo.about(collection).await?;
        match too_few(collection, about, wanted, &self.dataset.spec.preset) {
            Some(words) => self.findings.wrong(words),
            None => self.findings.say(
                &format!("mongodb {collection}"),
                format!(
                    "about {} in all, {} of them to be ours: not counted one by one",
                    grouped(about),
                    grouped(wanted)
                ),
            ),
        }
        Ok(())
    }

    /// `of`: which part of the site's documents these are, in words; none: all.
    pub async fn count(
        &mut self,
        collection: &str,
        of: &str,
        filters: Vec<Document>,
        wanted: u64,
    ) -> Result<(), String> {
        let found = self.found(collection, &filters, wanted).await?;
        let site = &self.dataset.spec.site;
        if found == wanted {
            self.findings.say(&format!("mongodb {collection}"), format!("{} for {site}{of}", grouped(found)));
            return Ok(());
        }
        let words = format!(
            "MongoDB has {} documents of {} in {collection} for the site {site}{of}, and has to have {}",
            if self.is_cut(found, wanted) { format!("{} or more", grouped(found)) } else { grouped(found) },
            self.dataset.spec.preset,
            grouped(wanted)
        );
        // Seeding again takes away what runs have added, and spares whatever has ids like ours.
        let stays = match ours_in(collection) {
            _ if found < wanted => false,
            None => collection == "rooms",
            Some(prefix) => {
                let like_ours = |filter: Document| doc! { "$and": [filter, { "_id": prefixed(prefix) }] };
                let filters: Vec<Document> = filters.into_iter().map(like_ours).collect();
                self.found(collection, &filters, wanted).await? > wanted
            }
        };
        if stays {
            self.findings.too_much(words)
        } else {
            self.findings.wrong(words)
        }
        Ok(())
    }

    /// How many documents these filters meet; in a run's own check no more are counted than tell that there are too many.
    async fn found(&self, collection: &str, filters: &[Document], wanted: u64) -> Result<u64, String> {
        let mut found = 0;
        for filter in filters {
            found += match self.depth {
                Depth::Full => self.mongo.count(collection, filter.clone()).await?,
                Depth::Quick if self.is_cut(found, wanted) => break,
                Depth::Quick => self.mongo.count_to(collection, filter.clone(), wanted + 1 + SLACK - found).await?,
            };
        }
        Ok(found)
    }

    fn is_cut(&self, found: u64, wanted: u64) -> bool {
        self.depth == Depth::Quick && found > wanted + SLACK
    }

    /// Counts the threads of some rooms, and who follows them, by keys that are indexed: there may be millions of all.
    pub async fn threads_of_some(&mut self) -> Result<(), String> {
        let site = self.dataset.spec.site.clone();
        let rooms = self.dataset.sample(MESSAGE_SAMPLE);
        let of_rooms = |key: &str| -> Vec<Document> {
            let of_room = |room: &SeedRoom| doc! { key: prefixed(&format!("tr-{}-", room.id)), "siteId": &site };
            rooms.iter().map(of_room).collect()
        };
        let (mut threads, mut followers) = (0, 0);
        for room in &rooms {
            let totals = self.dataset.totals_of(room.index..room.index + 1);
            threads += totals.thread_rooms;
            followers += totals.thread_subscriptions;
        }
        let (of_threads, of_followers) = (of_rooms("_id"), of_rooms("threadRoomId"));
        let of = format!(", in {} of its rooms", rooms.len());
        self.count("thread_rooms", &of, of_threads, threads).await?;
        self.count("thread_subscriptions", &of, of_followers, followers).await
    }
}

/// How ids begin of what is seeded into a collection that runs add to.
fn ours_in(collection: &str) -> Option<&'static str> {
    match collection {
        "subscriptions" => Some("sub-"),
        "thread_rooms" => Some("tr-"),
        "thread_subscriptions" => Some("tsub-"),
        _ => None,
    }
}

/// What is wrong with a collection that has about so many documents in all.
fn too_few(collection: &str, about: u64, wanted: u64, preset: &str) -> Option<String> {
    (about < wanted).then(|| {
        format!(
            "MongoDB has about {} documents in {collection}, and has to have {} of {preset} alone",
            grouped(about),
            grouped(wanted)
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_collection_that_is_smaller_than_what_was_seeded_lacks_some() {
        assert_eq!(too_few("subscriptions", 8_300_000, 8_300_000, "daily-power"), None);
        assert_eq!(
            too_few("subscriptions", 8_299_999, 8_300_000, "daily-power").unwrap(),
            "MongoDB has about 8,299,999 documents in subscriptions, and has to have 8,300,000 of daily-power alone"
        );
    }
}
