//! How a message stands in the topic: a record of Kafka.
//!
//! Key: the channel. Value: the [envelope](crate::bus::envelope). Header `pushbridge`: the [`Stamp`], a line of text, from
//! which every reader judges alike whether the record counts. A record without a stamp was written by something else.
//! Notes have other keys and values, and a stamp alike.

use crate::bus::envelope;
use crate::bus::kafka::note::Note;
use crate::model::channel::ChannelName;
use crate::model::message::Message;
use rskafka::chrono::DateTime;
use rskafka::record::{Record, RecordAndOffset};
use std::collections::BTreeMap;

const HEADER: &str = "pushbridge";
/// The form of the stamp, its first word.
const VERSION: &str = "1";

/// What a record is.
#[derive(Debug, Clone, Copy)]
pub enum Kind<'a> {
    /// A message of the channel that is its key.
    Message(&'a Message),
    /// The beginning of another life of the partition.
    Epoch,
    /// Neither.
    Note(&'a Note),
}

/// What the writer of a record knew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Read {
    /// A message, or the beginning of a life.
    Incoming(Incoming),
    /// A note.
    Note(Noted),
}

/// A note as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Noted {
    /// Its number in the partition.
    pub number: u64,
    /// When it was written, in milliseconds since 1970.
    pub at_ms: u64,
    /// What its writer knew.
    pub stamp: Stamp,
    /// What it says.
    pub note: Note,
}

/// A message, or the beginning of a life, as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
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

/// A record.
pub fn encode(stamp: Stamp, kind: Kind<'_>, now_ms: u64) -> Record {
    let (word, key, value) = match kind {
        Kind::Message(message) => ("message", Some(message.channel.as_str()), Some(envelope::encode(message))),
        Kind::Epoch => ("epoch", None, None),
        Kind::Note(note) => (note.word(), Some(note.key()), note.value()),
    };
    let Stamp { epoch, after, partitions, instance, serial } = stamp;
    let line = format!("{VERSION} {word} {epoch} {after} {partitions} {instance:x} {serial}");
    Record {
        key: key.map(|key| key.as_bytes().to_vec()),
        value,
        headers: BTreeMap::from([(HEADER.to_owned(), line.into_bytes())]),
        timestamp: DateTime::from_timestamp_millis(i64::try_from(now_ms).unwrap_or(0)).unwrap_or_default(),
    }
}

/// Reads what [`encode`] wrote; `None` of what was written by something else.
pub fn decode(read: &RecordAndOffset) -> Option<Read> {
    let (word, stamp) = parse(read.record.headers.get(HEADER)?)?;
    let (number, at_ms) =
        (number_of(read.offset), u64::try_from(read.record.timestamp.timestamp_millis()).unwrap_or(0));
    let message = match word {
        "epoch" => None,
        "message" => {
            let channel = ChannelName::of_bus(std::str::from_utf8(read.record.key.as_deref()?).ok()?).ok()?;
            Some(envelope::decode(channel, read.record.value.as_deref()?).ok()?)
        }
        word => {
            let key = std::str::from_utf8(read.record.key.as_deref()?).ok()?;
            let note = Note::parse(word, key, read.record.value.as_deref())?;
            return Some(Read::Note(Noted { number, at_ms, stamp, note }));
        }
    };
    Some(Read::Incoming(Incoming { number, at_ms, stamp, message }))
}

fn parse(line: &[u8]) -> Option<(&str, Stamp)> {
    let mut words = std::str::from_utf8(line).ok()?.split(' ');
    if words.next()? != VERSION {
        return None;
    }
    let word = words.next()?;
    let stamp = Stamp {
        epoch: words.next()?.parse().ok()?,
        after: words.next()?.parse().ok()?,
        partitions: words.next()?.parse().ok()?,
        instance: u64::from_str_radix(words.next()?, 16).ok()?,
        serial: words.next()?.parse().ok()?,
    };
    words.next().is_none().then_some((word, stamp))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::message::Data;
    use crate::model::session_token::SessionToken;
    use proptest::prelude::*;

    fn message() -> Message {
        Message {
            channel: ChannelName::new("a b").expect("a name"),
            id: None,
            event: None,
            data: Data::Text("x".into()),
            cloudevent: None,
            grip: None,
        }
    }

    fn stamp() -> Stamp {
        Stamp { epoch: 1, after: 2, partitions: 3, instance: 4, serial: 5 }
    }

    fn read_back(record: Record) -> Option<Read> {
        decode(&RecordAndOffset { record, offset: 0 })
    }

    proptest! {
        #[test]
        fn a_record_survives(epoch: u64, after: u64, partitions: u32, instance: u64, serial: u64, offset in 0..i64::MAX) {
            let stamp = Stamp { epoch, after, partitions, instance, serial };
            let record = encode(stamp, Kind::Message(&message()), 7);
            let number = number_of(offset);
            let expected = Incoming { number, at_ms: 7, stamp, message: Some(message()) };
            prop_assert_eq!(decode(&RecordAndOffset { record, offset }), Some(Read::Incoming(expected)));
            prop_assert_eq!(offset_after(number), offset + 1);
        }

        #[test]
        fn any_header_is_read_or_refused(line in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = parse(&line);
        }

        #[test]
        fn any_note_is_read_or_refused(word in "put|take|back|who|here", key in ".{0,50}", value in proptest::option::of(".{0,20}")) {
            let _ = Note::parse(&word, &key, value.as_deref().map(str::as_bytes));
        }
    }

    #[test]
    fn a_note_survives() {
        let (channel, key) = (message().channel, SessionToken::from_random([7; 16]).key("r", &[]));
        let notes = [
            Note::Put(key.clone(), b"{}".as_slice().into()),
            Note::Take(key.clone()),
            Note::Back(key, b"{}".as_slice().into()),
            Note::Who(channel.clone()),
            Note::Here(channel, 7),
        ];
        for note in notes {
            let read = read_back(encode(stamp(), Kind::Note(&note), 7));
            assert_eq!(read, Some(Read::Note(Noted { number: 1, at_ms: 7, stamp: stamp(), note })));
        }
    }

    #[test]
    fn what_others_wrote_is_told_from_ours() {
        let ours = encode(stamp(), Kind::Epoch, 7);
        let expected = Incoming { number: 1, at_ms: 7, stamp: stamp(), message: None };
        assert_eq!(read_back(ours.clone()), Some(Read::Incoming(expected)));
        let mut without_stamp = ours.clone();
        without_stamp.headers.clear();
        let mut without_value = encode(stamp(), Kind::Message(&message()), 7);
        without_value.value = None;
        let mut of_later = ours;
        of_later.headers.insert(HEADER.to_owned(), b"1 other 1 2 3 4 5".to_vec());
        for record in [without_stamp, without_value, of_later] {
            assert_eq!(read_back(record), None);
        }
        for line in ["", "2 epoch 1 2 3 4 5", "1 epoch 1 2 3 4", "1 epoch 1 2 3 4 5 6"] {
            assert_eq!(parse(line.as_bytes()), None, "{line}");
        }
    }
}
