use super::room_messages::MOST_PARENTS;
use super::*;
use crate::seed::fixture::dataset;

#[test]
fn totals_are_what_the_messages_make() {
    for (workload, preset) in
        [("history", "history-small"), ("history", "history-medium"), ("thread", "small"), ("daily", "daily-light")]
    {
        let dataset = dataset(workload, preset);
        let mut counted = Totals { rooms: 3, ..Totals::default() };
        for room in (0..3).map(|at| dataset.room(at)) {
            counted.subscriptions += room.members.len() as u64;
            for message in dataset.messages(&room) {
                counted.messages += 1;
                if let Some(thread) = &message.thread {
                    counted.thread_rooms += 1;
                    counted.thread_subscriptions += thread.followers(message.author).len() as u64;
                    counted.replies += thread.replies.len() as u64;
                }
            }
        }
        assert_eq!(dataset.totals_of(0..3), counted, "{workload}");
        let room = dataset.room(1);
        let parents = dataset.some_parents(&room, 3);
        assert_eq!(parents.is_empty(), counted.thread_rooms == 0, "{workload}");
        assert!(parents.iter().all(|parent| parent.thread.is_some()));
        let some = dataset.some_messages(&room, 2);
        let ends = [dataset.messages(&room).next(), dataset.messages(&room).last()];
        assert!(some.into_iter().map(Some).eq(ends), "{workload}");
        let all_ids: Vec<String> = dataset.messages(&room).map(|message| message.id).collect();
        assert_eq!(dataset.some_ids(&room, usize::MAX), all_ids, "{workload}");
        assert_eq!(dataset.some_ids(&room, 2), [all_ids[0].clone(), all_ids[all_ids.len() - 1].clone()]);
        let (all, people) = (dataset.totals(), dataset.people_totals());
        let of = |totals: Totals| (totals.users, totals.rooms, totals.subscriptions);
        assert_eq!(of(all), of(people), "{workload}");
    }
}

#[test]
fn large_is_as_large_as_the_contract_says() {
    let dataset = dataset("history", "history-large");
    let totals = dataset.totals_of(0..10);
    assert_eq!((totals.messages, dataset.rooms()), (500_000, 1_000));
    assert!((145_000..155_000).contains(&totals.replies), "{totals:?}");
}

#[test]
fn rooms_are_older_than_their_messages_and_those_rise() {
    for (workload, preset) in [("history", "history-medium"), ("thread", "small"), ("daily", "daily-power")] {
        let dataset = dataset(workload, preset);
        let room = &dataset.room(dataset.rooms() - 1);
        let times: Vec<i64> = dataset.messages(room).map(|message| message.created_ms).collect();
        assert!(dataset.times(room).eq(times.iter().copied()));
        assert!(times.is_sorted_by(|a, b| a < b) && times[0] > dataset.made_ms());
        assert!(*times.last().unwrap() < dataset.anchor_ms);
        assert_eq!(dataset.last_message_ms(room), times.last().copied());
    }
}

#[test]
fn more_parents_are_later_and_leave_the_others_where_they_were() {
    let eight = dataset("thread", "small");
    let of = |per_room: u32| {
        let spec = Spec { parents_per_room: per_room, ..eight.spec.clone() };
        let dataset = Dataset::build(spec, eight.anchor_ms).unwrap();
        let room = dataset.room(0);
        dataset.messages(&room).collect::<Vec<Message>>()
    };
    let (three, most) = (of(3), of(MOST_PARENTS));
    assert_eq!(most[..3], three);
    assert_eq!(most[..8], of(8));
    assert!(most.is_sorted_by(|a, b| a.created_ms < b.created_ms));
    assert_eq!(most.last().map(|last| last.created_ms), Some(eight.anchor_ms - 1000));
    assert!(three[0].created_ms > eight.made_ms());
}

#[test]
fn seven_of_ten_have_read_everything_and_nobody_all_of_what_is_to_be_read() {
    let receipts = dataset("read-receipt", "history-small");
    let room = &receipts.room(0);
    let newest = receipts.last_message_ms(room).unwrap();
    let seen: Vec<Option<i64>> = (0..10).map(|at| receipts.last_seen_ms(room, at)).collect();
    assert_eq!(seen, [vec![Some(newest + 1); 7], vec![None; 3]].concat());
    assert_eq!(receipts.floor_ms(room), None);
    let unread = dataset("room-read", "small");
    for (dataset, minutes) in [(unread, 10_080), (dataset("daily", "daily-light"), 1_440)] {
        for room in dataset.sample(32) {
            let last = dataset.last_message_ms(&room).unwrap();
            let seen: Vec<i64> = (0..room.members.len()).map(|at| dataset.last_seen_ms(&room, at).unwrap()).collect();
            assert!(seen.iter().all(|&seen| (MINUTE_MS..=minutes * MINUTE_MS).contains(&(last - seen))), "{seen:?}");
            let joined = |&seen: &i64| seen > dataset.made_ms() || dataset.content == Content::Unread;
            assert!(seen.iter().all(joined), "{seen:?}");
            assert_eq!(dataset.floor_ms(&room), seen.iter().min().copied());
        }
    }
}

#[test]
fn what_lies_ahead_moves_with_a_later_seeding_and_nothing_else_does() {
    let first = dataset("room-read", "small");
    let later = Dataset { renewed_ms: first.anchor_ms + 3 * DAY_MS, ..first.clone() };
    for room in first.sample(3) {
        assert_eq!(first.last_message_ms(&room), Some(first.anchor_ms + DAY_MS));
        assert_eq!(later.last_message_ms(&room), Some(first.anchor_ms + 4 * DAY_MS));
        let moved = |at| later.last_seen_ms(&room, at).zip(first.last_seen_ms(&room, at));
        assert!((0..room.members.len()).all(|at| moved(at).is_some_and(|(later, first)| later - first == 3 * DAY_MS)));
    }
    assert_eq!(later.made_ms(), first.made_ms());
}

#[test]
fn a_sample_is_spread_from_first_to_last_and_over_all_sizes() {
    assert_eq!(spread(5, 32), [0, 1, 2, 3, 4]);
    assert_eq!(spread(1000, 4), [0, 333, 666, 999]);
    assert_eq!((spread(1, 4), spread(0, 4)), (vec![0], vec![]));
    let daily = dataset("daily", "daily-heavy");
    let ids: Vec<String> = daily.sample(4).into_iter().map(|room| room.id).collect();
    assert_eq!(ids, ["room-dm-000000", "room-small-000000", "room-medium-000000", "room-large-000000"]);
}
