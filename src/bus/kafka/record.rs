//! How a message stands in the topic: a record of Kafka.
//!
//! Key: the channel. Value: the [envelope](crate::bus::envelope). Header `pushbridge`: the [`Stamp`], a line of text, from
//! which every reader judges alike whether the record counts. A record without a stamp was written by something else.

use crate::bus::envelope;
use crate::model::channel::ChannelName;
use crate::model::message::Message;
use rskafka::chrono::DateTime;
use rskafka::record::{Record, RecordAndOffset};
use std::collections::BTreeMap;

const HEADER: &str = "pushbridge";
/// The form of the stamp, its first word.
const VERSION: &str = "1";

/// What a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A message of the channel that is its key.
    Message,
    /// The beginning of another life of the partition.
    Epoch,
}

/// What the writer of a record knew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// What the record is.
    pub kind: Kind,
    /// The life of the partition that the writer wrote into, or that begins.
    pub epoch: u64,
    /// The number of the newest record that the writer had read: in the same life, this one stands after it.
    pub after: u64,
    /// How many partitions the topic had.
    pub partitions: u32,
    /// Which instance wrote it.
    pub instance: u64,
    /// Which of that instance's records in the partition it is; one that is sent again keeps its number.
    pub serial: u64,
}

/// A record as it was read.
#[derive(Debug, Clone)]
pub struct Incoming {
    /// Its number in the partition: Kafka's offset and one, since 0 is the place before the first.
    pub number: u64,
    /// When it was written, in milliseconds since 1970.
    pub at_ms: u64,
    /// What its writer knew.
    pub stamp: Stamp,
    /// The message, of a record that is one.
    pub message: Option<Message>,
}

/// The number of the record at an offset.
pub fn number_of(offset: i64) -> u64 {
    u64::try_from(offset).unwrap_or(0) + 1
}

/// The offset of the record after this number.
pub fn offset_after(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A record for a message, or for the beginning of a life.
pub fn encode(stamp: Stamp, message: Option<&Message>, now_ms: u64) -> Record {
    let kind = match stamp.kind {
        Kind::Message => "message",
        Kind::Epoch => "epoch",
    };
    let Stamp { epoch, after, partitions, instance, serial, .. } = stamp;
    let line = format!("{VERSION} {kind} {epoch} {after} {partitions} {instance:x} {serial}");
    Record {
        key: message.map(|message| message.channel.as_str().as_bytes().to_vec()),
        value: message.map(envelope::encode),
        headers: BTreeMap::from([(HEADER.to_owned(), line.into_bytes())]),
        timestamp: DateTime::from_timestamp_millis(i64::try_from(now_ms).unwrap_or(0)).unwrap_or_default(),
    }
}

/// Reads what [`encode`] wrote; `None` of what was written by something else.
pub fn decode(read: &RecordAndOffset) -> Option<Incoming> {
    let stamp = parse(read.record.headers.get(HEADER)?)?;
    let message = match stamp.kind {
        Kind::Epoch => None,
        Kind::Message => {
            let channel = ChannelName::new(std::str::from_utf8(read.record.key.as_deref()?).ok()?).ok()?;
            Some(envelope::decode(channel, read.record.value.as_deref()?).ok()?)
        }
    };
    let at_ms = u64::try_from(read.record.timestamp.timestamp_millis()).unwrap_or(0);
    Some(Incoming { number: number_of(read.offset), at_ms, stamp, message })
}

fn parse(line: &[u8]) -> Option<Stamp> {
    let mut words = std::str::from_utf8(line).ok()?.split(' ');
    if words.next()? != VERSION {
        return None;
    }
    let kind = match words.next()? {
        "message" => Kind::Message,
        "epoch" => Kind::Epoch,
        _ => return None,
    };
    let stamp = Stamp {
        kind,
        epoch: words.next()?.parse().ok()?,
        after: words.next()?.parse().ok()?,
        partitions: words.next()?.parse().ok()?,
        instance: u64::from_str_radix(words.next()?, 16).ok()?,
        serial: words.next()?.parse().ok()?,
    };
    words.next().is_none().then_some(stamp)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::message::Data;
    use proptest::prelude::*;

    fn message() -> Message {
        Message {
            channel: ChannelName::new("a b").expect("a name"),
            id: None,
            event: None,
            data: Data::Text("x".into()),
            cloudevent: None,
        }
    }

    proptest! {
        #[test]
        fn a_record_survives(epoch: u64, after: u64, partitions: u32, instance: u64, serial: u64, offset in 0..i64::MAX) {
            let stamp = Stamp { kind: Kind::Message, epoch, after, partitions, instance, serial };
            let record = encode(stamp, Some(&message()), 7);
            let read = decode(&RecordAndOffset { record, offset }).expect("one of ours");
            prop_assert_eq!((read.stamp, read.message, read.at_ms), (stamp, Some(message()), 7));
            prop_assert_eq!(offset_after(read.number), offset + 1);
        }

        #[test]
        fn any_header_is_read_or_refused(line in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = parse(&line);
        }
    }

    #[test]
    fn what_others_wrote_is_told_from_ours() {
        let stamp = Stamp { kind: Kind::Epoch, epoch: 1, after: 2, partitions: 3, instance: 4, serial: 5 };
        let ours = encode(stamp, None, 7);
        assert_eq!(decode(&RecordAndOffset { record: ours.clone(), offset: 0 }).map(|read| read.stamp), Some(stamp));
        let mut without_stamp = ours.clone();
        without_stamp.headers.clear();
        let message = Stamp { kind: Kind::Message, ..stamp };
        let mut without_value = encode(message, Some(&self::message()), 7);
        without_value.value = None;
        for record in [without_stamp, without_value] {
            assert!(decode(&RecordAndOffset { record, offset: 0 }).is_none());
        }
        for line in ["", "2 epoch 1 2 3 4 5", "1 other 1 2 3 4 5", "1 epoch 1 2 3 4", "1 epoch 1 2 3 4 5 6"] {
            assert_eq!(parse(line.as_bytes()), None, "{line}");
        }
    }
}
