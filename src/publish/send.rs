//! Checked events to the bus, in order.

use crate::bus::{BusError, IfMatch, Published};
use crate::hub::policy::ChannelPolicies;
use crate::model::channel::ChannelName;
use crate::model::message::Message;
use crate::proto::events::Event;
use crate::publish::Room;
use crate::publish::condition::ConditionError;
use crate::publish::respond::PublishError;
use crate::telemetry::metrics::PublishResult;
use futures_util::future::join_all;

/// What became of a message that the bus took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Outcome {
    /// Where it was published.
    pub(super) channel: ChannelName,
    /// Its place.
    pub(super) published: Published,
}

/// Refuses before a body is read, let alone kept, while the bus is down.
pub(super) fn ready(room: &Room) -> Result<(), PublishError> {
    room.bus.health().map_err(|cause| {
        room.metrics.published(PublishResult::Unavailable, 0);
        PublishError::Unavailable { cause, accepted: Vec::new() }
    })
}

/// Publishes all events of a request, or none if one does not fit its channel or the condition does not apply.
///
/// Dropped in the middle, it has published the first of them.
pub(super) async fn all(
    room: &Room,
    events: Vec<Event>,
    if_match: Option<IfMatch>,
) -> Result<Vec<Outcome>, PublishError> {
    let count: usize = events.iter().map(|event| event.channels.count()).sum();
    if if_match.is_some() && count != 1 {
        return Err(PublishError::Condition(ConditionError::Several(count)));
    }
    check_sizes(&room.policies.load(), &events)?;
    let mut outcomes = Vec::with_capacity(count);
    for event in events {
        // Before the first as well: many publishers of one event each are as fast as one of many.
        pace(room, &event).await;
        each(room, event, if_match, &mut outcomes).await?;
    }
    Ok(outcomes)
}

/// Publishes one event of a stream, behind others.
pub(super) async fn next(room: &Room, event: Event) -> Result<Vec<Outcome>, PublishError> {
    check_sizes(&room.policies.load(), std::slice::from_ref(&event))?;
    pace(room, &event).await;
    let mut outcomes = Vec::with_capacity(event.channels.count());
    each(room, event, None, &mut outcomes).await?;
    Ok(outcomes)
}

/// Lets the sessions of the event's channels keep up, and this worker's other tasks have their turn.
async fn pace(room: &Room, event: &Event) {
    let mut paces = event.channels.iter().map(|channel| room.bus.paced(channel));
    match (event.channels.count(), paces.next()) {
        // Most events have one channel, and need nothing to join.
        (1, Some(pace)) => pace.await,
        (_, first) => _ = join_all(first.into_iter().chain(paces)).await,
    }
    tokio::task::consume_budget().await;
}

async fn each(
    room: &Room,
    event: Event,
    if_match: Option<IfMatch>,
    outcomes: &mut Vec<Outcome>,
) -> Result<(), PublishError> {
    for message in event.into_messages() {
        match one(room, message, if_match).await {
            Ok(outcome) => outcomes.push(outcome),
            Err(BusError::Moved { position }) => return Err(PublishError::Moved(position)),
            Err(cause @ BusError::NoConditions) => return Err(PublishError::NoConditions(cause)),
            Err(cause) => return Err(PublishError::Unavailable { cause, accepted: std::mem::take(outcomes) }),
        }
    }
    Ok(())
}

async fn one(room: &Room, message: Message, if_match: Option<IfMatch>) -> Result<Outcome, BusError> {
    let channel = message.channel.clone();
    let bytes = message.data.as_bytes().len();
    let published = room.bus.publish(message, if_match).await;
    let result = match &published {
        Err(BusError::NoConditions) => return Err(BusError::NoConditions),
        Ok(Published { duplicate: false, .. }) => PublishResult::Accepted,
        Ok(Published { duplicate: true, .. }) => PublishResult::Duplicate,
        Err(BusError::Moved { .. }) => PublishResult::Moved,
        Err(BusError::Hub(_) | BusError::Down(_)) => PublishResult::Unavailable,
    };
    room.metrics.published(result, bytes);
    Ok(Outcome { channel, published: published? })
}

fn check_sizes(policies: &ChannelPolicies, events: &[Event]) -> Result<(), PublishError> {
    for (number, event) in events.iter().enumerate() {
        let bytes = event.data.as_bytes().len();
        for channel in event.channels.iter() {
            let bytes_max = policies.of(channel).message_bytes_max;
            if bytes > bytes_max {
                let index = (events.len() > 1).then_some(number);
                return Err(PublishError::MessageTooLarge { index, channel: channel.clone(), bytes, bytes_max });
            }
        }
    }
    Ok(())
}
