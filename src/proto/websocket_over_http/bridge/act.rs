//! What the machine does at each event of its backend, and at a publisher's word.

use super::{Action, Backend, Bridge, Client, SUBSCRIPTION_META_MAX};
use crate::model::session::CloseReason;
use crate::proto::websocket_over_http::Ignored;
use crate::proto::websocket_over_http::close::Close;
use crate::proto::websocket_over_http::control::Control;
use crate::proto::websocket_over_http::event::Event;
use crate::proto::websocket_over_http::extension::Meaning;
use crate::proto::websocket_over_http::scheduled::Frame;

impl Bridge {
    /// The name that the backend gave the session.
    pub fn session_name(&self) -> Option<&str> {
        self.session_name.as_deref()
    }

    /// The words about the session that filters look at.
    pub fn subscription_meta(&self) -> &[(Box<str>, Box<str>)] {
        &self.subscription_meta
    }

    /// Has the backend asked as soon as no request is under way, also where there is nothing to tell it.
    pub fn refresh(&mut self) {
        self.refresh = true;
    }

    /// Closes the client, as a publisher asked; the backend gets DISCONNECT.
    pub fn close_by_publisher(&mut self, close: Close) {
        self.say_disconnect();
        self.close_client(close, CloseReason::Backend);
    }

    pub(super) fn act_on(&mut self, event: Event, now_ms: u64) {
        match event {
            Event::Close(_) | Event::Disconnect => {
                self.backend = Backend::Done;
                self.pending.clear();
                if !self.events.is_empty() {
                    let rest = format!("{} events after {}", self.events.len(), event.name());
                    self.ignore(Ignored::OutOfPlace, rest);
                    self.events.clear();
                }
                let closed_first = matches!(self.client, Client::ClosedFirst { .. });
                let reason = if closed_first { CloseReason::Done } else { CloseReason::Backend };
                match event {
                    Event::Close(close) => self.close_client(close, reason),
                    _ => self.cut_client(reason),
                }
            }
            _ if matches!(self.client, Client::Done) => {}
            Event::Text(_) | Event::Binary(_) => self.act_on_message(&event, now_ms),
            Event::Ping(content) => {
                self.backend_ping = Some(content.clone());
                self.send(Frame::Ping(content), now_ms);
            }
            Event::Pong(content) => self.send(Frame::Pong(content), now_ms),
            Event::Open => self.ignore(Ignored::OutOfPlace, "OPEN after the first".to_owned()),
        }
    }

    fn act_on_message(&mut self, event: &Event, now_ms: u64) {
        match self.extension.meaning(event) {
            Meaning::Data(content) if matches!(event, Event::Text(_)) => self.send(Frame::Text(content), now_ms),
            Meaning::Data(content) => self.send(Frame::Binary(content), now_ms),
            Meaning::Control(json) => match Control::decode(&json) {
                Ok(control) => self.obey(control, now_ms),
                Err(error) => self.ignore(Ignored::BadControl, error.to_string()),
            },
            Meaning::Unknown => self.ignore(Ignored::UnknownPrefix, format!("a {} of the backend", event.name())),
        }
    }

    fn obey(&mut self, control: Control, now_ms: u64) {
        match control {
            Control::Subscribe(subscribe) => {
                if subscribe.unknown_filters > 0 {
                    let text = format!("{} of channel {:?}", subscribe.unknown_filters, subscribe.channel);
                    self.ignore(Ignored::UnknownFilter, text);
                }
                self.actions.push_back(Action::Subscribe(subscribe));
            }
            Control::Unsubscribe(channel) => self.actions.push_back(Action::Unsubscribe(channel)),
            Control::Detach => {
                self.backend = Backend::Done;
                self.pending.clear();
            }
            Control::Session(name) => self.session_name = Some(name),
            Control::SetMeta(name, value) => self.set_subscription_meta(name, value),
            Control::KeepAlive(beat) => self.scheduled.set_beat(beat, now_ms),
            Control::SendDelayed(frame, wait_ms) => {
                if let Some(earlier) = self.scheduled.delay(frame, wait_ms, now_ms) {
                    self.send(earlier, now_ms);
                }
            }
            Control::FlushDelayed => {
                if let Some(frame) = self.scheduled.flush() {
                    self.send(frame, now_ms);
                }
            }
        }
    }

    fn set_subscription_meta(&mut self, name: Box<str>, value: Option<Box<str>>) {
        let known = self.subscription_meta.iter().position(|(known, _)| *known == name);
        match (known, value) {
            (Some(at), Some(value)) => self.subscription_meta[at].1 = value,
            (Some(at), None) => drop(self.subscription_meta.swap_remove(at)),
            (None, None) => {}
            (None, Some(value)) if self.subscription_meta.len() < SUBSCRIPTION_META_MAX => {
                self.subscription_meta.push((name, value));
            }
            (None, Some(_)) => self.ignore(Ignored::MetaOverBounds, format!("over {SUBSCRIPTION_META_MAX} set-meta")),
        }
    }
}
