//! How a `pushbridge.v1.json` client's commands are carried out.

use crate::bus::BusError;
use crate::model::channel::ChannelName;
use crate::model::message::Message;
use crate::model::pattern::ChannelPattern;
use crate::model::session::CloseReason;
use crate::proto::presence;
use crate::proto::v1::{Command, ErrorCode, Reference, Rejected, Reply};
use crate::proto::websocket::Event;
use crate::session::websocket::machine::{Core, Publish, Turn};
use crate::session::websocket::subprotocol::Subprotocol;

/// Malformed commands in a row that close a session.
const MALFORMED_MAX: u8 = 3;
/// Messages over the rate, one after the other, that a session survives.
const OVER_MAX: u8 = 100;

/// A subscribe whose channels the bus has to follow first; no more commands are read until then.
#[derive(Debug)]
pub(super) struct Join {
    reference: Option<Reference>,
    /// All that were asked for.
    channels: Vec<ChannelName>,
    /// Those that the session is not on.
    pub(super) fresh: Vec<ChannelName>,
}

impl Join {
    fn tell(&self, turn: &mut Turn<'_>) {
        for channel in &self.channels {
            turn.out.push(Reply::Subscribed { reference: self.reference.as_ref(), channel }.frame());
        }
    }
}

impl Core {
    /// Carries a command out; the reason if the session is to be closed for it.
    pub(super) fn on_command(&mut self, text: &str, turn: &mut Turn<'_>) -> Option<CloseReason> {
        let command = match Command::parse(text) {
            Ok(command) => command,
            Err(rejected) => return self.on_malformed(rejected, turn),
        };
        self.malformed_in_row = 0;
        let result = match command {
            Command::Subscribe { reference, channels } => self.subscribe(reference, &channels, turn),
            Command::Unsubscribe { reference, channels } => self.unsubscribe(reference, &channels, turn),
            Command::Publish { reference, channel, event, data } => {
                let message = Message { channel, id: None, event, data, cloudevent: None, grip: None };
                self.publish(Publish { reference, message })
            }
            Command::Ping { reference } => {
                turn.out.push(Reply::Pong { reference: reference.as_ref() }.frame());
                Ok(())
            }
        };
        if let Err(rejected) = result {
            turn.out.push(Reply::Error(&rejected).frame());
        }
        None
    }

    /// Answers what is no command; the third in a row ends the session.
    pub(super) fn on_malformed(&mut self, rejected: Rejected, turn: &mut Turn<'_>) -> Option<CloseReason> {
        turn.out.push(Reply::Error(&rejected).frame());
        self.malformed_in_row += 1;
        (self.malformed_in_row == MALFORMED_MAX).then_some(CloseReason::Malformed)
    }

    /// Refuses what comes too fast; the reason if the session is to be closed for it. Who can be told is told, and closed
    /// only if it goes on.
    pub(super) fn on_too_fast(&mut self, event: Event<'_>, turn: &mut Turn<'_>) -> Option<CloseReason> {
        if self.subprotocol != Subprotocol::V1 {
            return Some(CloseReason::Rate);
        }
        self.over_in_row += 1;
        if self.over_in_row > OVER_MAX {
            return Some(CloseReason::Rate);
        }
        let reference = match event {
            Event::Text(text) => Command::parse(text).map_or_else(|wrong| wrong.reference, Command::into_reference),
            Event::Binary(_) => None,
            Event::Ping(_) | Event::Pong(_) | Event::Close(_) => return None,
        };
        let max = self.settings.messages_per_second_max;
        let message =
            format!("over {max} messages a second (limits.client_messages_per_second); wait, then say it again");
        turn.out.push(Reply::Error(&Rejected { reference, code: ErrorCode::Rate, message }).frame());
        None
    }

    /// Begins to join all of `channels` or none. One that the session is on already is answered like the others.
    fn subscribe(
        &mut self,
        reference: Option<Reference>,
        channels: &[ChannelName],
        turn: &mut Turn<'_>,
    ) -> Result<(), Rejected> {
        let refused = |code, message| Rejected { reference: reference.clone(), code, message };
        let max = self.settings.subscriptions_max;
        let too_many = || {
            let message = format!("a session may have {max} channels at most (limits.subscriptions_per_session)");
            refused(ErrorCode::TooManySubscriptions, message)
        };
        if channels.len() > max {
            return Err(too_many());
        }
        let allowed = |channel| self.own.contains(channel) || covered(&self.settings.client_subscribe, channel);
        if let Some(channel) = channels.iter().find(|channel| !allowed(channel)) {
            let message = format!("this route does not allow to subscribe to {channel:?} (push.client_subscribe)");
            return Err(refused(ErrorCode::NotAllowed, message));
        }
        let present = turn.place.channels();
        let fresh: Vec<ChannelName> = channels.iter().filter(|channel| !present.contains(channel)).cloned().collect();
        if present.len() + fresh.len() > max {
            return Err(too_many());
        }
        let join = Join { reference, channels: channels.to_vec(), fresh };
        match join.fresh.is_empty() {
            true => join.tell(turn),
            false => self.join = Some(Box::new(join)),
        }
        Ok(())
    }

    /// Goes on with a subscribe, now that the bus follows its channels, or why it does not.
    pub(super) fn joined(&mut self, join: Join, attached: Result<(), BusError>, turn: &mut Turn<'_>) {
        let joined = attached.map_err(|error| match error {
            BusError::Hub(error) => (ErrorCode::TooManySubscriptions, error.to_string()),
            error => (ErrorCode::BusDown, format!("not joined, try again later: {error}")),
        });
        let joined = joined.and_then(|()| {
            for (count, channel) in join.fresh.iter().enumerate() {
                if let Err(error) = turn.place.add(channel) {
                    for channel in &join.fresh[..count] {
                        turn.place.remove(channel);
                    }
                    return Err((ErrorCode::TooManySubscriptions, error.to_string()));
                }
            }
            Ok(())
        });
        match joined {
            Ok(()) => {
                self.channels += join.fresh.len();
                self.changed = true;
                join.tell(turn);
            }
            Err((code, message)) => {
                let rejected = Rejected { reference: join.reference, code, message };
                turn.out.push(Reply::Error(&rejected).frame());
            }
        }
    }

    /// Leaves `channels`. One that the session is not on is answered like the others.
    fn unsubscribe(
        &mut self,
        reference: Option<Reference>,
        channels: &[ChannelName],
        turn: &mut Turn<'_>,
    ) -> Result<(), Rejected> {
        let max = self.settings.subscriptions_max;
        if channels.len() > max {
            let message = format!("a session may have {max} channels at most, so it can't leave {}", channels.len());
            return Err(Rejected { reference, code: ErrorCode::TooManySubscriptions, message });
        }
        for channel in channels {
            if turn.place.remove(channel) {
                self.channels = self.channels.saturating_sub(1);
                self.changed = true;
            }
            turn.out.push(Reply::Unsubscribed { reference: reference.as_ref(), channel }.frame());
        }
        Ok(())
    }

    /// Queues a message for the bus.
    fn publish(&mut self, publish: Publish) -> Result<(), Rejected> {
        let Message { channel, data, event, .. } = &publish.message;
        let refused = |code, message| Rejected { reference: publish.reference.clone(), code, message };
        if !covered(&self.settings.client_publish, channel) {
            let message = format!("this route does not allow to publish to {channel:?} (push.client_publish)");
            return Err(refused(ErrorCode::NotAllowed, message));
        }
        if event.as_ref().is_some_and(|event| presence::is_announcement(event.as_str())) {
            let message = "events presence.join and presence.leave are not for clients to publish".to_owned();
            return Err(refused(ErrorCode::NotAllowed, message));
        }
        let (bytes, max) = (data.as_bytes().len(), self.policies.of(channel).message_bytes_max);
        if bytes > max {
            let message = format!("data of {bytes} bytes is over the {max} that {channel:?} takes (max_message)");
            return Err(refused(ErrorCode::TooBig, message));
        }
        self.publishes_bytes += publish.message.size_bytes();
        self.publishes.push_back(publish);
        Ok(())
    }
}

fn covered(patterns: &[ChannelPattern], channel: &ChannelName) -> bool {
    patterns.iter().any(|pattern| pattern.matches(channel.as_str()))
}
