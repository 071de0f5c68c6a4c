//! What one partition's records turn out to be, and what is known after them.

use super::*;
use crate::model::message::Data;
use proptest::prelude::*;

const WINDOW_MS: u64 = 1000;

fn name(text: &str) -> ChannelName {
    ChannelName::new(text).expect("a name")
}

fn knowledge() -> Knowledge {
    Knowledge::new(2, WINDOW_MS)
}

/// A message in channel `c` of instance 1, whose serial is its number.
fn record(epoch: u64, number: u64, id: Option<&str>) -> Incoming {
    let stamp = Stamp { epoch, after: number - 1, partitions: 2, instance: 1, serial: number };
    let message = Message {
        channel: name("c"),
        id: id.map(|id| Label::new(id).expect("an id")),
        event: None,
        data: Data::Text("x".into()),
        cloudevent: None,
        grip: None,
    };
    Incoming { number, at_ms: number, stamp, message: Some(message) }
}

fn beginning(epoch: u64, number: u64) -> Incoming {
    let stamp = Stamp { epoch, after: number - 1, partitions: 2, instance: 1, serial: number };
    Incoming { number, at_ms: number, stamp, message: None }
}

/// What it is, in a word, and where.
fn take(knowledge: &mut Knowledge, incoming: Incoming) -> String {
    match knowledge.take(incoming, |_| 3) {
        Judgement::Published(at, _) => format!("{}-{}", at.epoch, at.offset),
        Judgement::Duplicate(at) => format!("duplicate of {}-{}", at.epoch, at.offset),
        other => format!("{other:?}"),
    }
}

fn backlog(knowledge: &Knowledge, messages_max: usize) -> (u64, Vec<u64>) {
    let kept = Kept { messages_max, oldest_ms: 0 };
    let backlog = knowledge.backlog(&name("c"), kept).expect("a life");
    (backlog.after, backlog.numbers)
}

#[test]
fn a_life_begins_once() {
    let mut all = knowledge();
    assert_eq!(take(&mut all, beginning(5, 1)), "Began");
    // Another instance thought that it was the first.
    let mut late = beginning(6, 2);
    late.stamp.after = 0;
    assert_eq!(take(&mut all, late), "Void");
    assert_eq!(take(&mut all, record(5, 3, None)), "5-3");
    assert_eq!(backlog(&all, 10), (1, vec![3]));
}

#[test]
fn an_id_counts_within_the_window_and_is_told_where_the_first_one_stands() {
    let mut all = knowledge();
    take(&mut all, beginning(5, 1));
    assert_eq!(take(&mut all, record(5, 2, Some("a"))), "5-2");
    assert_eq!(take(&mut all, record(5, 3, Some("a"))), "duplicate of 5-2");
    assert_eq!(all.find(&name("c"), &Label::new("a").expect("an id"), 500).map(|at| at.offset), Some(2));
    assert_eq!(all.find(&name("c"), &Label::new("a").expect("an id"), 3 + WINDOW_MS), None);
    assert_eq!(take(&mut all, Incoming { at_ms: 3 + WINDOW_MS, ..record(5, 4, Some("a")) }), "5-4");
    assert_eq!(backlog(&all, 10), (1, vec![2, 4]));
}

#[test]
fn what_is_sent_twice_counts_once() {
    let mut all = knowledge();
    take(&mut all, beginning(5, 1));
    assert_eq!(take(&mut all, record(5, 2, None)), "5-2");
    let again = Incoming { number: 3, ..record(5, 2, None) };
    assert_eq!(take(&mut all, again), "Again");
}

#[test]
fn what_was_written_for_a_lost_life_counts_for_nothing() {
    let mut all = knowledge();
    take(&mut all, beginning(5, 1));
    take(&mut all, record(5, 2, None));
    // The writer had read up to 9, which is gone.
    let mut stale = record(5, 3, None);
    stale.stamp.after = 9;
    assert_eq!(take(&mut all, stale), "Void");
    assert_eq!(all.epoch(), None);
    assert_eq!(take(&mut all, record(5, 4, None)), "Void");
    assert_eq!(take(&mut all, beginning(5, 5)), "Void");
    assert_eq!(take(&mut all, beginning(6, 6)), "Began");
    assert_eq!(take(&mut all, record(5, 7, None)), "Void");
    assert_eq!(take(&mut all, record(6, 8, None)), "6-8");
    assert_eq!(backlog(&all, 10), (6, vec![8]));
}

#[test]
fn other_partitions_are_noticed() {
    let mut all = knowledge();
    take(&mut all, beginning(5, 1));
    let of = |partitions| {
        let mut record = record(5, 2, None);
        record.stamp.partitions = partitions;
        record
    };
    assert_eq!(take(&mut all, of(3)), "Outdated");
    assert_eq!(take(&mut all, of(1)), "Void");
}

#[test]
fn reading_from_the_middle_notes_nothing_before_the_ids_are_known() {
    let mut all = knowledge();
    all.begin(10, 13);
    assert_eq!(take(&mut all, record(5, 11, Some("a"))), "5-11");
    assert_eq!(take(&mut all, record(5, 12, Some("a"))), "duplicate of 5-11");
    assert_eq!(take(&mut all, record(5, 13, None)), "5-13");
    assert_eq!(backlog(&all, 10), (12, vec![13]));
    all.miss(20);
    assert_eq!(backlog(&all, 10), (20, vec![]));
}

#[test]
fn a_lost_end_ends_the_life() {
    let mut all = knowledge();
    take(&mut all, beginning(5, 1));
    take(&mut all, record(5, 2, None));
    all.begin_anew(0, 0);
    assert_eq!((all.epoch(), all.read(), all.over()), (None, 0, 5));
    assert_eq!(take(&mut all, record(5, 1, None)), "Void");
    assert_eq!(take(&mut all, beginning(6, 2)), "Began");
}

proptest! {
    /// Whatever the ids: one reader from the start and one from the middle judge alike what both know in full, and no
    /// message above a floor is missing.
    #[test]
    fn readers_judge_alike(ids in proptest::collection::vec(0u8..6, 1..60), from in 0usize..60) {
        let from = from.min(ids.len() - 1) as u64;
        let (mut all, mut some) = (Knowledge::new(2, 8), Knowledge::new(2, 8));
        take(&mut all, beginning(5, 1));
        some.begin(from + 1, from + 1 + 8);
        let mut published = Vec::new();
        for (index, id) in ids.iter().enumerate() {
            let number = index as u64 + 2;
            let record = || record(5, number, Some(&id.to_string()));
            let judged = take(&mut all, record());
            if judged == format!("5-{number}") {
                published.push(number);
            }
            if number > from + 1 {
                let other = take(&mut some, record());
                if number > from + 1 + 8 {
                    prop_assert_eq!(judged.starts_with("duplicate"), other.starts_with("duplicate"));
                }
            }
        }
        for knowledge in [&all, &some] {
            if knowledge.epoch().is_some() {
                let (after, numbers) = backlog(knowledge, 2);
                let above: Vec<_> = published.iter().copied().filter(|number| *number > after).collect();
                prop_assert_eq!(numbers, above);
            }
        }
    }
}
