//! Joins and leaves, as they are published.

use crate::model::channel::ChannelName;
use crate::model::message::{Data, Label, Message};
use crate::proto::presence::room::{Event, Kind};
use crate::proto::presence::{JOIN, LEAVE};

/// The message that announces `event` on `channel`. Whoever makes it makes the same, under the same id.
pub(super) fn message(channel: &ChannelName, event: &Event) -> Option<Message> {
    let name = match event.kind {
        Kind::Join => JOIN,
        Kind::Leave => LEAVE,
    };
    let id = format!("presence:{}:{}", event.note, event.index);
    let data = serde_json::json!({ "user": &*event.user, "at_ms": event.at_ms });
    Some(Message {
        channel: channel.clone(),
        id: Some(Label::new(&id).ok()?),
        event: Some(Label::new(name).ok()?),
        data: Data::Json(data.to_string().into()),
        cloudevent: None,
        grip: None,
    })
}
