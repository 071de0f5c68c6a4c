//! The channels that a backend subscribed its client to, and what it said about them.

use crate::hub::HubError;
use crate::model::channel::ChannelName;
use crate::proto::websocket_over_http::control::{Filter, Subscribe};
use crate::session::websocket_over_http::seams::Feed;

/// A session's channels with their filters.
///
/// Filters are kept for messages that carry meta; those published natively carry none, so that every filter lets them
/// pass as they are.
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

    /// The filters of a channel, in their order.
    pub fn filters(&self, channel: &ChannelName) -> &[Filter] {
        self.filters.iter().find(|(known, _)| known == channel).map_or(&[], |(_, filters)| filters)
    }
}
