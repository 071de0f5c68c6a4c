//! What instances tell each other of who is on a channel: JSON texts on its companion.

use crate::model::position::Position;
use crate::proto::presence::is_user;
use serde::{Deserialize, Serialize};

/// The most users of one note.
pub const USERS_MAX: usize = 200;
/// The longest name of an instance, in bytes.
const INSTANCE_BYTES_MAX: usize = 64;

/// A note and who wrote it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// The instance.
    pub from: Box<str>,
    /// What it says.
    #[serde(flatten)]
    pub word: Word,
}

/// What a note says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Word {
    /// The writer lives.
    Beat(u64),
    /// The writer ends.
    Left(u64),
    /// Some of the writer's users on the channel.
    Roster(Part),
    /// The writer has no record any more.
    Bye(u64),
    /// Another instance's record is taken out.
    Bury(Bury),
    /// Users are announced, or announced to be gone.
    Tell(Tell),
    /// What was announced up to there is published.
    Done(Done),
}

/// Users of one instance.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Part {
    /// How often the writer has begun to tell all.
    pub round: u64,
    /// Whether all of the round are told now: who was told in earlier rounds only is not there.
    pub whole: bool,
    /// The users.
    pub users: Vec<User>,
}

/// A user on one instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// The name.
    pub user: Box<str>,
    /// How many sessions; 0 if it has none any more.
    pub sessions: u32,
    /// Since when, in Unix milliseconds.
    pub since_ms: u64,
    /// Whether it was announced, as far as the writer knew: for those who begin to read here.
    pub told: bool,
}

/// Takes a record out, if it has not changed since.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bury {
    /// Whose.
    pub instance: Box<str>,
    /// The last note of it that the writer knew.
    #[serde(with = "text")]
    pub last: Position,
    /// Whether it said good-bye: then its users may come back elsewhere before they count as gone.
    pub left: bool,
}

/// What is to be announced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tell {
    /// Users that are there.
    pub joins: Vec<Box<str>>,
    /// Users that are gone, if they still are since the same note.
    pub leaves: Vec<Gone>,
    /// When it was written, in Unix milliseconds.
    pub at_ms: u64,
}

/// What is published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// The note that announced the last of it.
    #[serde(with = "text")]
    pub note: Position,
    /// Which part of that note.
    pub index: usize,
}

/// A user that is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gone {
    /// The name.
    pub user: Box<str>,
    /// The note by which it went.
    #[serde(with = "text")]
    pub since: Position,
}

impl Note {
    /// The note as JSON text.
    pub fn encode(&self) -> String {
        // Neither of its types can fail.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Reads what [`Note::encode`] wrote; `None` for anything else, such as a word of a newer release.
    pub fn decode(text: &[u8]) -> Option<Self> {
        let note: Self = serde_json::from_slice(text).ok()?;
        let named = |name: &str| !name.is_empty() && name.len() <= INSTANCE_BYTES_MAX;
        let fits = match &note.word {
            Word::Beat(_) | Word::Left(_) | Word::Bye(_) | Word::Done(_) => true,
            Word::Roster(part) => part.users.len() <= USERS_MAX && part.users.iter().all(|user| is_user(&user.user)),
            Word::Bury(bury) => named(&bury.instance),
            Word::Tell(tell) => {
                tell.joins.len() + tell.leaves.len() <= USERS_MAX
                    && tell.joins.iter().chain(tell.leaves.iter().map(|gone| &gone.user)).all(|user| is_user(user))
            }
        };
        (fits && named(&note.from)).then_some(note)
    }
}

/// A position as its text.
mod text {
    use crate::model::position::Position;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(position: &Position, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(position)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Position, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(word: Word) {
        let note = Note { from: "a".into(), word };
        assert_eq!(Note::decode(note.encode().as_bytes()), Some(note));
    }

    #[test]
    fn a_note_survives_its_text() {
        let position = Position { epoch: 7, offset: 3 };
        check(Word::Beat(1));
        check(Word::Left(0));
        check(Word::Bye(0));
        let user = User { user: "bob \"é".into(), sessions: 2, since_ms: 5, told: true };
        check(Word::Roster(Part { round: 3, whole: true, users: vec![user] }));
        check(Word::Bury(Bury { instance: "b".into(), last: position, left: false }));
        check(Word::Done(Done { note: position, index: 7 }));
        let gone = Gone { user: "eve".into(), since: position };
        check(Word::Tell(Tell { joins: vec!["bob".into()], leaves: vec![gone], at_ms: 9 }));
    }

    #[test]
    fn what_no_instance_writes_is_passed_over() {
        let long = "x".repeat(256);
        for text in [
            "",
            "{}",
            "null",
            r#"{"from":"a"}"#,
            r#"{"from":"a","dance":1}"#,
            r#"{"from":"","beat":1}"#,
            r#"{"from":"a","bury":{"instance":"b","last":"x","left":true}}"#,
            r#"{"from":"a","tell":{"joins":["a\nb"],"leaves":[],"at_ms":1}}"#,
            &format!(r#"{{"from":"a","tell":{{"joins":["{long}"],"leaves":[],"at_ms":1}}}}"#),
        ] {
            assert_eq!(Note::decode(text.as_bytes()), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_passed_over(text in ".{0,200}") {
            let _ = Note::decode(text.as_bytes());
        }
    }
}
