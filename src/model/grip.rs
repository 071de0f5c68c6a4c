//! The forms of a message that was published as a GRIP item: what each kind of GRIP session gets of it.
//!
//! They are wire forms of the one [`Message`](crate::model::message::Message), which has its channel and id; how they
//! are read from JSON is for `proto::grip`.

use crate::model::message::{Data, Label};

/// Words about a message or a session that filters look at: names and values.
pub type Words = Vec<(Box<str>, Box<str>)>;

/// What a GRIP item says beside its channel and id.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GripFormats {
    /// The publisher's id of the message. It is not the message's idempotency key: GRIP's rules for repeated ids count.
    pub id: Option<Label>,
    /// The id of the message before it in its channel.
    pub prev_id: Option<Label>,
    /// Whether its place in the channel's order counts.
    pub order: Order,
    /// Words about the message that filters look at.
    pub meta: Words,
    /// For streams.
    pub stream: Option<StreamForm>,
    /// For held responses.
    pub response: Option<ResponseForm>,
    /// For WebSockets.
    pub websocket: Option<WebSocketForm>,
}

/// Whether the order of a channel's messages counts for one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    /// By its `prev-id`, where it has one.
    #[default]
    Counts,
    /// `no-seq`: delivered as it comes.
    Ignored,
}

/// The content filters that a message asks for; a subscription with other ones does not get it.
pub type ContentFilters = Option<Box<[Box<str>]>>;

/// What a stream gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StreamForm {
    /// More of its body.
    Send {
        /// The bytes.
        content: Box<[u8]>,
        /// The content filters it is meant for.
        filters: ContentFilters,
    },
    /// Its next link is to be asked now.
    Hint,
    /// Its end.
    Close,
}

/// What a held response gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ResponseForm {
    /// The response.
    Send(ResponseParts),
    /// The backend is to be asked again now.
    Hint,
}

/// A response that is published; what it leaves out is the held one's.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ResponseParts {
    /// The status.
    pub code: Option<u16>,
    /// The reason phrase, which only HTTP/1.1 has.
    pub reason: Option<Box<str>>,
    /// Names in lower case, and values.
    pub headers: Vec<(Box<str>, Box<[u8]>)>,
    /// The body.
    pub body: ResponseBody,
    /// The content filters it is meant for.
    pub filters: ContentFilters,
}

/// The body of a published response.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ResponseBody {
    /// The held one's.
    #[default]
    Held,
    /// These bytes.
    Whole(Box<[u8]>),
    /// A JSON Patch (RFC 6902) of the held one's, as JSON text.
    Patch(Box<str>),
}

/// What a WebSocket gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WebSocketForm {
    /// A message: text or bytes.
    Send {
        /// The content.
        data: Data,
        /// The content filters it is meant for.
        filters: ContentFilters,
    },
    /// A ping frame with up to 125 bytes.
    Ping(Box<[u8]>),
    /// A pong frame with up to 125 bytes.
    Pong(Box<[u8]>),
    /// The end, with a close code and reason.
    Close(Option<u16>, Box<str>),
    /// Its backend is to be asked now.
    Refresh,
}

impl GripFormats {
    /// The bytes of texts and contents, for the bounds of a channel.
    pub fn size_bytes(&self) -> usize {
        let meta: usize = self.meta.iter().map(|(name, value)| name.len() + value.len()).sum();
        let ids = [&self.id, &self.prev_id].into_iter().flatten().map(|id| id.as_str().len()).sum::<usize>();
        meta + ids + self.contents().iter().sum::<usize>()
    }

    /// The bytes of the largest content: what a channel's `max_message` is about.
    pub fn content_bytes(&self) -> usize {
        self.contents().into_iter().max().unwrap_or_default()
    }

    fn contents(&self) -> [usize; 3] {
        let stream = match &self.stream {
            Some(StreamForm::Send { content, .. }) => content.len(),
            _ => 0,
        };
        let response = match &self.response {
            Some(ResponseForm::Send(parts)) => parts.size_bytes(),
            _ => 0,
        };
        let websocket = match &self.websocket {
            Some(WebSocketForm::Send { data, .. }) => data.as_bytes().len(),
            Some(WebSocketForm::Ping(content) | WebSocketForm::Pong(content)) => content.len(),
            Some(WebSocketForm::Close(_, reason)) => reason.len(),
            Some(WebSocketForm::Refresh) | None => 0,
        };
        [stream, response, websocket]
    }

    /// Whether its place in the channel's order is known and counts.
    pub fn is_ordered(&self) -> bool {
        self.id.is_some() && self.order == Order::Counts
    }

    /// A word about the message.
    pub fn meta(&self, name: &str) -> Option<&str> {
        self.meta.iter().find(|(known, _)| **known == *name).map(|(_, value)| &**value)
    }
}

impl ResponseBody {
    /// The bytes that are published, if they are.
    pub fn whole(&self) -> Option<&[u8]> {
        match self {
            Self::Whole(bytes) => Some(bytes),
            Self::Held | Self::Patch(_) => None,
        }
    }
}

impl ResponseParts {
    fn size_bytes(&self) -> usize {
        let headers: usize = self.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        let body = match &self.body {
            ResponseBody::Held => 0,
            ResponseBody::Whole(bytes) => bytes.len(),
            ResponseBody::Patch(text) => text.len(),
        };
        headers + body
    }
}
