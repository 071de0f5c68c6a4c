//! What instances tell each other in the topic beside messages: sessions that are kept and taken, and who has sessions on
//! a channel.
//!
//! All instances read notes in one order, as they do messages. So of two that take a session the one whose note stands
//! first gets it, and both know.

use crate::model::channel::ChannelName;
use crate::model::session_token::SessionKey;

/// A note. A session's stands in the partition that its key chooses, the others in their channel's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    /// A session is kept, as this text.
    Put(SessionKey, Box<[u8]>),
    /// A session is taken by its client.
    Take(SessionKey),
    /// A session that was taken waits again, as this text: its client was refused.
    Back(SessionKey, Box<[u8]>),
    /// Who has sessions on the channel?
    Who(ChannelName),
    /// The writer has so many.
    Here(ChannelName, usize),
}

impl Note {
    /// The word for it in a record's stamp.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Put(..) => "put",
            Self::Take(_) => "take",
            Self::Back(..) => "back",
            Self::Who(_) => "who",
            Self::Here(..) => "here",
        }
    }

    /// The key of its record.
    pub fn key(&self) -> &str {
        match self {
            Self::Put(key, _) | Self::Take(key) | Self::Back(key, _) => key.as_str(),
            Self::Who(channel) | Self::Here(channel, _) => channel.as_str(),
        }
    }

    /// The value of its record.
    pub fn value(&self) -> Option<Vec<u8>> {
        match self {
            Self::Put(_, text) | Self::Back(_, text) => Some(text.to_vec()),
            Self::Here(_, sessions) => Some(sessions.to_string().into_bytes()),
            Self::Take(_) | Self::Who(_) => None,
        }
    }

    /// Reads a note from its record; `None` if it is none.
    pub fn parse(word: &str, key: &str, value: Option<&[u8]>) -> Option<Self> {
        Some(match word {
            "put" => Self::Put(SessionKey::parse(key)?, value?.into()),
            "back" => Self::Back(SessionKey::parse(key)?, value?.into()),
            "take" => Self::Take(SessionKey::parse(key)?),
            "who" => Self::Who(ChannelName::of_bus(key).ok()?),
            "here" => Self::Here(ChannelName::of_bus(key).ok()?, std::str::from_utf8(value?).ok()?.parse().ok()?),
            _ => return None,
        })
    }
}
