//! The channels that a backend subscribed its client to, and what it said about them.

use crate::hub::HubError;
use crate::model::channel::ChannelName;
use crate::model::grip::WebSocketForm;
use crate::model::message::{Data, Message};
use crate::proto::grip::filters::{self, Dropped, Subscriber};
use crate::proto::websocket_over_http::close::Close;
use crate::proto::websocket_over_http::control::{Filter, Subscribe};
use crate::proto::websocket_over_http::scheduled::Frame;
use crate::session::websocket_over_http::seams::Feed;
use bytes::Bytes;
use std::borrow::Cow;

/// A session's channels with their filters.
///
/// Filters are for what is published as GRIP items. What is published natively has no meta, so that every filter lets it
/// pass as it is.
pub struct Subscriptions<F> {
    /// Where messages come from.
    pub feed: F,
    filters: Vec<(ChannelName, Vec<Filter>)>,
    max: usize,
}

/// Why a subscription is passed over.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubscribeError {
    /// The session has as many as it may.
    #[error("the session has {0} channels, the most allowed (limits.subscriptions_per_session)")]
    TooMany(usize),
    /// The hub has.
    #[error(transparent)]
    Hub(#[from] HubError),
}

impl<F: Feed> Subscriptions<F> {
    /// No channels yet, `max` at most.
    pub fn new(feed: F, max: usize) -> Self {
        Self { feed, filters: Vec::new(), max }
    }

    /// Joins a channel from now on, or changes the filters of one.
    ///
    /// # Errors
    /// When there are too many, of the session or of the hub.
    pub fn subscribe(&mut self, subscribe: Subscribe) -> Result<(), SubscribeError> {
        if let Some((_, filters)) = self.filters.iter_mut().find(|(channel, _)| *channel == subscribe.channel) {
            *filters = subscribe.filters;
            return Ok(());
        }
        if self.filters.len() >= self.max {
            return Err(SubscribeError::TooMany(self.max));
        }
        self.feed.add(&subscribe.channel)?;
        self.filters.push((subscribe.channel, subscribe.filters));
        Ok(())
    }

    /// Leaves a channel.
    pub fn unsubscribe(&mut self, channel: &ChannelName) {
        self.filters.retain(|(known, _)| known != channel);
        self.feed.remove(channel);
    }

    /// Leaves all channels, and gives the place back.
    pub fn leave(mut self) -> F {
        for (channel, _) in &self.filters {
            self.feed.remove(channel);
        }
        self.feed
    }

    /// The session as filters see it, with its `set-meta` words.
    pub fn subscriber<'a>(&'a self, meta: &'a [(Box<str>, Box<str>)]) -> Words<'a> {
        Words { filters: &self.filters, meta }
    }
}

/// What filters know of a session.
pub struct Words<'a> {
    filters: &'a [(ChannelName, Vec<Filter>)],
    meta: &'a [(Box<str>, Box<str>)],
}

/// What a client gets of a message.
#[derive(Debug, PartialEq, Eq)]
pub enum Part<'a> {
    /// This data, as every client of the channel that has no filters of content.
    Shared(&'a Data),
    /// A frame of its own.
    Own(Frame),
    /// The end.
    Close(Close),
    /// Nothing: its backend is to be asked now.
    Refresh,
}

impl Words<'_> {
    /// What the session gets of a message.
    ///
    /// # Errors
    /// Why it gets nothing.
    pub fn part<'a>(&self, message: &'a Message) -> Result<Part<'a>, Dropped> {
        let Some(grip) = &message.grip else { return Ok(Part::Shared(&message.data)) };
        let own = self.filters.iter().find(|(known, _)| *known == message.channel);
        let filters = own.map_or(&[][..], |(_, filters)| filters);
        filters::choose(filters, grip, self)?;
        match grip.websocket.as_ref().ok_or(Dropped::NoForm)? {
            WebSocketForm::Send { data, filters: asked } => {
                match filters::content(filters, asked, data.as_bytes(), self)? {
                    Cow::Borrowed(_) => Ok(Part::Shared(data)),
                    Cow::Owned(made) => match data {
                        Data::Binary(_) => Ok(Part::Own(Frame::Binary(made.into()))),
                        // What was put in is text, and so is what it was put into.
                        Data::Text(_) | Data::Json(_) => Ok(Part::Own(Frame::Text(made.into()))),
                    },
                }
            }
            WebSocketForm::Ping(content) => Ok(Part::Own(Frame::Ping(Bytes::copy_from_slice(content)))),
            WebSocketForm::Pong(content) => Ok(Part::Own(Frame::Pong(Bytes::copy_from_slice(content)))),
            WebSocketForm::Close(code, reason) => Ok(Part::Close(Close::new(code.unwrap_or(0), reason))),
            WebSocketForm::Refresh => Ok(Part::Refresh),
        }
    }
}

impl Subscriber for Words<'_> {
    fn meta(&self, name: &str) -> Option<&str> {
        self.meta.iter().find(|(known, _)| **known == *name).map(|(_, value)| &**value)
    }

    fn has_channel(&self, name: &str) -> bool {
        self.filters.iter().any(|(known, _)| known.as_str() == name)
    }

    /// A WebSocket has no order by ids.
    fn last_id(&self, _: &str) -> Option<&str> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::grip::items;

    #[track_caller]
    fn check(filters: &[Filter], format: &serde_json::Value, expected: Result<Part<'_>, Dropped>) {
        let json = serde_json::json!({"items": [{"channel": "a", "meta": {"sender": "bob"}, "ws-message": format}]});
        let message = items::decode(json.to_string().as_bytes()).expect("an item").pop().expect("one");
        let channel = ChannelName::new("a").expect("a name");
        let meta = [("user".into(), "bob".into())];
        let words = Words { filters: &[(channel, filters.to_vec())], meta: &meta };
        assert_eq!(words.part(&message), expected);
    }

    #[test]
    fn a_client_gets_its_part() {
        let text = |text: &str| serde_json::json!({ "content": text });
        check(&[], &text("%(user)s"), Ok(Part::Shared(&Data::Text("%(user)s".into()))));
        check(&[Filter::VarSubst], &text("hi %(user)s"), Ok(Part::Own(Frame::Text("hi bob".into()))));
        check(&[Filter::SkipSelf], &text("x"), Err(Dropped::SkipSelf));
        check(&[Filter::BuildId], &text("%I"), Err(Dropped::Content));
        check(&[], &serde_json::json!({"type": "ping", "content": "p"}), Ok(Part::Own(Frame::Ping("p".into()))));
        let close = serde_json::json!({"action": "close", "code": "1001", "reason": "bye"});
        check(&[], &close, Ok(Part::Close(Close::new(1001, "bye"))));
        check(&[], &serde_json::json!({"action": "refresh"}), Ok(Part::Refresh));
    }
}
