//! What a hold is to a session: its channels with their filters, its meta, what it has seen, and what it therefore gets
//! of a message.

use crate::model::channel::{ChannelName, ChannelNameError};
use crate::model::grip::{ResponseForm, ResponseParts, StreamForm};
use crate::model::message::{Data, Label, Message};
use crate::proto::grip::filters::{self, Dropped, Filter, Subscriber};
use crate::proto::grip::instruct::Instruct;
use crate::proto::grip::last;
use crate::proto::grip::pages::Heard;
use crate::proto::grip::recovery::{Seen, Verdict};
use crate::proto::grip::template::TemplateError;
use crate::proto::sse;
use http::HeaderValue;
use std::borrow::Cow;

/// A hold as its session knows it. There is one for each session, so it is kept small.
#[derive(Debug, Clone, Default)]
pub struct Holding {
    /// What stands before the backend's names of channels.
    prefix: Box<str>,
    channels: Box<[HeldChannel]>,
    meta: Box<[(Box<str>, Box<str>)]>,
    seen: Seen,
}

#[derive(Debug, Clone)]
struct HeldChannel {
    /// As the hub knows it: with the prefix.
    name: ChannelName,
    filters: Box<[Filter]>,
    heard: bool,
}

/// Why an instruct makes no hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HoldError {
    /// No channel, neither the backend's nor the route's.
    #[error("a hold without a channel; name one by Grip-Channel, or in hold.channels")]
    NoChannel,
    /// More than a session may have.
    #[error("{0} channels; {1} at most (limits.subscriptions_per_session)")]
    TooMany(usize, usize),
    /// The prefix and the name are no name together.
    #[error("with the route's channel_prefix: {0}")]
    Name(#[from] ChannelNameError),
}

/// What a stream gets of a message.
#[derive(Debug, PartialEq, Eq)]
pub enum StreamPart<'a> {
    /// These bytes, which are the same for every stream of the same kind.
    Shared(Cow<'a, [u8]>),
    /// These bytes, for this session alone.
    Own(Cow<'a, [u8]>),
    /// Nothing: its next link is to be asked.
    Hint,
    /// Its end.
    Close,
}

/// What a held response gets of a message.
#[derive(Debug, PartialEq, Eq)]
pub enum ResponsePart<'a> {
    /// The response. The body was made for this session where there is one.
    Release(&'a ResponseParts, Option<Cow<'a, [u8]>>),
    /// Data that was published natively, as the body.
    Native(&'a Data),
    /// Nothing: the backend is to be asked again.
    Hint,
}

/// What a stream is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamKind {
    /// `text/event-stream`.
    Events,
    /// Anything else.
    Bytes,
}

impl Holding {
    /// The hold that an instruct asks for. `implicit` are the route's own channels.
    ///
    /// # Errors
    /// Why there can be none.
    pub fn new(
        instruct: &Instruct,
        implicit: &[ChannelName],
        prefix: &str,
        channels_max: usize,
    ) -> Result<Self, HoldError> {
        let mut channels: Vec<HeldChannel> = Vec::with_capacity(instruct.channels.len() + implicit.len());
        let mut seen = Vec::new();
        for channel in &instruct.channels {
            let name = match prefix {
                "" => channel.name.clone(),
                prefix => ChannelName::new(&format!("{prefix}{}", channel.name.as_str()))?,
            };
            seen.extend(channel.prev_id.clone().map(|id| (name.clone(), id)));
            channels.push(HeldChannel { name, filters: channel.filters.as_slice().into(), heard: false });
        }
        for name in implicit {
            if !channels.iter().any(|channel| channel.name == *name) {
                channels.push(HeldChannel { name: name.clone(), filters: Box::default(), heard: false });
            }
        }
        match channels.len() {
            0 => Err(HoldError::NoChannel),
            count if count > channels_max => Err(HoldError::TooMany(count, channels_max)),
            _ => Ok(Self {
                prefix: prefix.into(),
                channels: channels.into(),
                meta: instruct.meta.as_slice().into(),
                seen: Seen::new(seen),
            }),
        }
    }

    /// The channels, as the hub knows them.
    pub fn channels(&self) -> impl Iterator<Item = &ChannelName> {
        self.channels.iter().map(|channel| &channel.name)
    }

    /// The last id on a channel, if it is reliable.
    pub fn seen(&self, channel: &ChannelName) -> Option<&Label> {
        self.seen.last(channel.as_str())
    }

    /// Whether it has channels on which nothing may be missing.
    pub fn is_reliable(&self) -> bool {
        !self.seen.is_empty()
    }

    /// What the backend is told of what was seen: `Grip-Last`, once for each channel.
    pub fn last(&self) -> Vec<HeaderValue> {
        let values = self.seen.iter().filter_map(|(channel, id)| {
            last(channel.as_str().strip_prefix(&*self.prefix).unwrap_or(channel.as_str()), id.as_str())
        });
        values.collect()
    }

    /// Takes in the words of another hold of the same session; those that are not said again stay.
    pub fn inherit_meta(&mut self, before: &Self) {
        let kept = before.meta.iter().filter(|(name, _)| !self.meta.iter().any(|(known, _)| known == name));
        let kept: Vec<_> = kept.cloned().collect();
        if !kept.is_empty() {
            self.meta = self.meta.iter().cloned().chain(kept).collect();
        }
    }

    /// Whether each channel was heard since the last time that this was asked.
    pub fn take_heard(&mut self) -> Heard {
        let all = self.channels.iter().all(|channel| channel.heard);
        self.channels.iter_mut().for_each(|channel| channel.heard = false);
        if all { Heard::All } else { Heard::NotAll }
    }

    /// Takes in a message of one of its channels.
    pub fn take_in(&mut self, message: &Message) -> Verdict {
        if let Some(channel) = self.channels.iter_mut().find(|channel| channel.name == message.channel) {
            channel.heard = true;
        }
        match &message.grip {
            Some(grip) => self.seen.take_in(&message.channel, grip),
            None => Verdict::Next,
        }
    }

    /// What a stream gets.
    ///
    /// # Errors
    /// Why it gets nothing.
    pub fn stream<'a>(&self, message: &'a Message, kind: StreamKind) -> Result<StreamPart<'a>, Dropped> {
        let Some(grip) = &message.grip else {
            return Ok(StreamPart::Shared(match kind {
                StreamKind::Events => Cow::Owned(sse::event(message).content().to_vec()),
                StreamKind::Bytes => Cow::Owned([message.data.as_bytes(), b"\n"].concat()),
            }));
        };
        let filters = self.filters(&message.channel);
        filters::choose(filters, grip, self)?;
        match grip.stream.as_ref().ok_or(Dropped::NoForm)? {
            StreamForm::Send { content, filters: asked } => match filters::content(filters, asked, content, self)? {
                Cow::Borrowed(content) => Ok(StreamPart::Shared(Cow::Borrowed(content))),
                made @ Cow::Owned(_) => Ok(StreamPart::Own(made)),
            },
            StreamForm::Hint => Ok(StreamPart::Hint),
            StreamForm::Close => Ok(StreamPart::Close),
        }
    }

    /// What a held response gets.
    ///
    /// # Errors
    /// Why it gets nothing.
    pub fn response<'a>(&self, message: &'a Message) -> Result<ResponsePart<'a>, Dropped> {
        let Some(grip) = &message.grip else { return Ok(ResponsePart::Native(&message.data)) };
        let filters = self.filters(&message.channel);
        filters::choose(filters, grip, self)?;
        match grip.response.as_ref().ok_or(Dropped::NoForm)? {
            ResponseForm::Hint => Ok(ResponsePart::Hint),
            ResponseForm::Send(parts) => {
                let content = parts.body.whole();
                let made = content.map(|content| filters::content(filters, &parts.filters, content, self));
                Ok(ResponsePart::Release(parts, made.transpose()?))
            }
        }
    }

    /// The hold's own body through the content filters of its channels: `%I` in it is made of the hold's prev-ids.
    ///
    /// # Errors
    /// When the session lacks what they need.
    pub fn body<'a>(&self, content: &'a [u8]) -> Result<Cow<'a, [u8]>, TemplateError> {
        filters::apply(&self.content_filters(), content, self)
    }

    /// Whether a body has to be made for this session.
    pub fn makes_body(&self) -> bool {
        !self.content_filters().is_empty()
    }

    /// The content filters of all channels, each once.
    fn content_filters(&self) -> Vec<Filter> {
        let mut found = Vec::new();
        for filter in self.channels.iter().flat_map(|channel| &channel.filters) {
            if filter.is_of_content() && !found.contains(filter) {
                found.push(*filter);
            }
        }
        found
    }

    fn filters(&self, channel: &ChannelName) -> &[Filter] {
        self.channels.iter().find(|known| known.name == *channel).map_or(&[], |known| &known.filters)
    }

    fn is_named(&self, channel: &ChannelName, name: &str) -> bool {
        channel.as_str().strip_prefix(&*self.prefix) == Some(name) || channel.as_str() == name
    }
}

impl Subscriber for Holding {
    fn meta(&self, name: &str) -> Option<&str> {
        self.meta.iter().find(|(known, _)| **known == *name).map(|(_, value)| &**value)
    }

    fn has_channel(&self, name: &str) -> bool {
        self.channels.iter().any(|channel| self.is_named(&channel.name, name))
    }

    fn last_id(&self, channel: &str) -> Option<&str> {
        self.seen.iter().find(|(known, _)| self.is_named(known, channel)).map(|(_, id)| id.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::grip::items;
    use http::HeaderMap;

    fn holding(prefix: &str, fields: &[(&'static str, &str)]) -> Result<Holding, HoldError> {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            map.append(*name, HeaderValue::try_from(*value).expect("a value"));
        }
        let instruct = Instruct::from_fields(&map).expect("an instruct");
        Holding::new(&instruct, &[ChannelName::new("route").expect("a name")], prefix, 3)
    }

    fn item(json: &serde_json::Value) -> Message {
        let body = serde_json::json!({ "items": [json] }).to_string();
        items::decode(body.as_bytes()).expect("items").pop().expect("one")
    }

    #[test]
    fn a_hold_knows_its_channels_by_the_backends_names() {
        let mut holding =
            holding("p-", &[("grip-channel", "a; prev-id=1, b"), ("grip-set-meta", "user=bob")]).expect("a hold");
        assert!(holding.channels().map(ChannelName::as_str).eq(["p-a", "p-b", "route"]));
        assert!(holding.has_channel("a") && holding.has_channel("p-a") && holding.has_channel("route"));
        assert!(!holding.has_channel("c"));
        assert_eq!((holding.last_id("a"), holding.last_id("b"), holding.meta("user")), (Some("1"), None, Some("bob")));
        assert_eq!(holding.last(), ["a; last-id=1"]);
        assert_eq!(holding.take_heard(), Heard::NotAll);
        for channel in ["p-a", "p-b", "route"] {
            holding.take_in(&item(&serde_json::json!({"channel": channel, "ws-message": {"content": ""}})));
        }
        assert_eq!((holding.take_heard(), holding.take_heard()), (Heard::All, Heard::NotAll));
    }

    #[test]
    fn a_hold_has_channels_within_bounds() {
        assert!(matches!(holding("", &[("grip-channel", "a,b,c")]), Err(HoldError::TooMany(4, 3))));
        assert!(matches!(holding(&"x".repeat(600), &[("grip-channel", "a")]), Err(HoldError::Name(_))));
        let none = Instruct::from_fields(&HeaderMap::new()).expect("an instruct");
        assert!(matches!(Holding::new(&none, &[], "", 3), Err(HoldError::NoChannel)));
    }

    #[test]
    fn a_stream_gets_its_part() {
        #[track_caller]
        fn check(filters: &str, item_json: &serde_json::Value, expected: Result<StreamPart<'_>, Dropped>) {
            let mut holding = holding(
                "",
                &[
                    ("grip-channel", &format!("a; prev-id=1{filters}")),
                    ("grip-set-meta", "user=bob, id_format=\"%(a)s\""),
                ],
            )
            .expect("a hold");
            let message = item(item_json);
            assert_eq!(holding.take_in(&message), Verdict::Next);
            assert_eq!(holding.stream(&message, StreamKind::Events), expected);
        }
        let sent = serde_json::json!({"channel": "a", "id": "2", "prev-id": "1", "meta": {"sender": "bob"},
            "http-stream": {"content": "id: %I\n"}});
        check("", &sent, Ok(StreamPart::Shared(Cow::Borrowed(b"id: %I\n"))));
        check("; filter=build-id", &sent, Ok(StreamPart::Own(Cow::Borrowed(b"id: 2\n"))));
        check("; filter=skip-self", &sent, Err(Dropped::SkipSelf));
        check("", &serde_json::json!({"channel": "a", "http-stream": {"action": "hint"}}), Ok(StreamPart::Hint));
        check("", &serde_json::json!({"channel": "a", "http-stream": {"action": "close"}}), Ok(StreamPart::Close));
        check("", &serde_json::json!({"channel": "a", "ws-message": {"content": "x"}}), Err(Dropped::NoForm));
    }

    #[test]
    fn what_is_published_natively_has_a_form_for_each_hold() {
        let holding = holding("", &[("grip-channel", "a; filter=build-id")]).expect("a hold");
        let message = Message {
            channel: ChannelName::new("a").expect("a name"),
            id: None,
            event: Some(Label::new("e").expect("a label")),
            data: Data::Text("50%".into()),
            cloudevent: None,
            grip: None,
        };
        let shared = |text: &str| Ok(StreamPart::Shared(Cow::Owned(text.as_bytes().to_vec())));
        assert_eq!(holding.stream(&message, StreamKind::Events), shared("event: e\ndata: 50%\n\n"));
        assert_eq!(holding.stream(&message, StreamKind::Bytes), shared("50%\n"));
        assert_eq!(holding.response(&message), Ok(ResponsePart::Native(&message.data)));
    }
}
