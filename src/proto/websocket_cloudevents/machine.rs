//! The machine between one client's WebSocket and the events to its backend.
//!
//! ```text
//!            connect 2xx             client CLOSE or lost, a message failed, ended from here
//! client: Opening ────────▶ Open ─────────────────────────────────────────────────────────────▶ Done
//!
//!                 Send                answer
//! backend: Idle ───────▶ Asked ──────────────────▶ Idle     … disconnected answered or given up ─▶ Done
//!                          └ surely not processed ▶ Waiting ─ time ─▶ Asked
//! ```
//!
//! Events go one by one, in their order: `connect`, `connected`, each message, `disconnected`. Once a backend let a
//! client in, it hears of the end exactly once, and of nothing after it. [`Machine::next`] is pulled, so that nothing is
//! asked of the backend while the client takes nothing. Time is an argument (milliseconds of any steady clock), and so
//! is randomness.

use crate::model::session::CloseReason;
use crate::proto::websocket_cloudevents::connect::{self, Accept, ConnectError};
use crate::proto::websocket_cloudevents::message::{self, Payload, ReplyError};
use crate::proto::websocket_cloudevents::state::{State, StateError};
use crate::proto::websocket_cloudevents::{GONE_MS_MAX, PENDING_MESSAGES_MAX};
use crate::proto::websocket_over_http::bridge::{Action, FromClient, Outcome};
use crate::proto::websocket_over_http::close::Close;
use crate::proto::websocket_over_http::retry::{Jitter, wait_ms};
use crate::proto::websocket_over_http::scheduled::Frame;
use crate::proto::websocket_over_http::{Ignored, PENDING_BYTES_MAX};
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use std::collections::VecDeque;

/// Something that a backend is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A client asks to be let in.
    Connect,
    /// It was.
    Connected,
    /// It said something.
    Message(Payload),
    /// It is gone.
    Disconnected(CloseReason),
}

impl Event {
    /// `ce-eventName`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Connected => "connected",
            Self::Message(_) => "message",
            Self::Disconnected(_) => "disconnected",
        }
    }

    /// `ce-type`.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Connect => "azure.webpubsub.sys.connect",
            Self::Connected => "azure.webpubsub.sys.connected",
            Self::Message(_) => "azure.webpubsub.user.message",
            Self::Disconnected(_) => "azure.webpubsub.sys.disconnected",
        }
    }
}

/// An event that is to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// `ce-id`: counted up within the connection, and the same when the event is sent again.
    pub id: u64,
    /// What.
    pub event: Event,
    tries: usize,
}

impl Request {
    /// An event that was not sent yet.
    pub fn new(id: u64, event: Event) -> Self {
        Self { id, event, tries: 0 }
    }
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Send this to the backend, with [`Machine::state`]; then tell [`Machine::answered`].
    Send(Request),
    /// Do this for the client.
    Act(Action),
}

/// Why an answer, or the lack of one, is none that was hoped for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// Another status than 2xx.
    #[error("the backend answered {status} to {event}")]
    Status {
        /// The event's name.
        event: &'static str,
        /// What was answered.
        status: StatusCode,
    },
    /// What it chose can't be understood.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// What it said can't be sent to the client.
    #[error(transparent)]
    Reply(#[from] ReplyError),
    /// The state that it gave can't be kept.
    #[error("the backend's answer is not taken: {0}")]
    State(#[from] StateError),
    /// No answer, and the event may have been processed.
    #[error(
        "the backend's answer to {0} did not come, and {0} may have been processed, so that it can't be sent again"
    )]
    Failed(&'static str),
    /// No answer after all tries.
    #[error("the backend could not be reached for {0}")]
    GaveUp(&'static str),
}

/// One WebSocket.
#[derive(Debug)]
pub struct Machine {
    client: Client,
    backend: Backend,
    /// What the backend is to be told, in this order.
    pending: VecDeque<Event>,
    /// Of the messages in `pending`.
    pending_bytes: usize,
    next_id: u64,
    state: State,
    accept: Option<Accept>,
    actions: VecDeque<Action>,
    /// From when on the messages of a client that is gone are no longer sent.
    give_up_ms: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Client {
    /// The answer to `connect` decides; with a reason, the client is gone already.
    Opening(Option<CloseReason>),
    Open,
    Done,
}

#[derive(Debug)]
enum Backend {
    Idle,
    Asked(Request),
    Waiting { request: Request, until_ms: u64 },
    Done,
}

impl Default for Machine {
    fn default() -> Self {
        Self::new()
    }
}

impl Machine {
    /// A connection whose first step is to send `connect`.
    pub fn new() -> Self {
        Self {
            client: Client::Opening(None),
            backend: Backend::Idle,
            pending: VecDeque::from([Event::Connect]),
            pending_bytes: 0,
            next_id: 0,
            state: State::default(),
            accept: None,
            actions: VecDeque::new(),
            give_up_ms: u64::MAX,
        }
    }

    /// The next thing to do, if there is any at this moment. Pulled only while the client takes what it is sent, or is
    /// gone.
    pub fn next(&mut self, now_ms: u64) -> Option<Step> {
        if self.give_up_ms <= now_ms {
            self.give_up(now_ms);
        }
        if let Some(action) = self.actions.pop_front() {
            return Some(Step::Act(action));
        }
        let request = match std::mem::replace(&mut self.backend, Backend::Done) {
            Backend::Waiting { request, until_ms } if until_ms <= now_ms => request,
            Backend::Idle => {
                let Some(event) = self.pending.pop_front() else {
                    self.backend = Backend::Idle;
                    return None;
                };
                if let Event::Message(payload) = &event {
                    self.pending_bytes -= payload.bytes().len();
                }
                let id = self.next_id;
                self.next_id += 1;
                Request::new(id, event)
            }
            other => {
                self.backend = other;
                return None;
            }
        };
        self.backend = Backend::Asked(request.clone());
        Some(Step::Send(request))
    }

    /// When [`Machine::next`] has something because of time alone.
    pub fn deadline_ms(&self) -> Option<u64> {
        match &self.backend {
            Backend::Waiting { until_ms, .. } => Some(*until_ms),
            _ => None,
        }
    }

    /// Whether the client is to be read: false while [`PENDING_BYTES_MAX`] or [`PENDING_MESSAGES_MAX`] wait for the
    /// backend, and after the end.
    pub fn wants_client(&self) -> bool {
        let has_room = self.pending_bytes < PENDING_BYTES_MAX && self.pending.len() < PENDING_MESSAGES_MAX;
        self.client == Client::Open && has_room
    }

    /// Whether there is nothing left to do for either side.
    pub fn is_over(&self) -> bool {
        matches!(self.backend, Backend::Done) && self.client == Client::Done && self.actions.is_empty()
    }

    /// What the backend gave the connection to carry.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// What the backend chose, once, after it let the client in.
    pub fn take_accept(&mut self) -> Option<Accept> {
        self.accept.take()
    }

    /// Takes in what the client sent. One message may go over the bounds; then [`Machine::wants_client`] is false.
    pub fn client_said(&mut self, frame: FromClient, now_ms: u64) {
        if self.client != Client::Open {
            return;
        }
        let payload = match frame {
            FromClient::Text(content) => Payload::Text(content),
            FromClient::Binary(content) => Payload::Binary(content),
            // There are no events for these.
            FromClient::Ping(content) => return self.actions.push_back(Action::Send(Frame::Pong(content))),
            FromClient::Pong(_) => return,
            FromClient::Close(close) => return self.close_client(close, CloseReason::Done, now_ms),
        };
        self.pending_bytes += payload.bytes().len();
        self.pending.push_back(Event::Message(payload));
    }

    /// Notes that the session ends for the client: the backend gets what the client had sent, then `disconnected`.
    pub fn client_gone(&mut self, reason: CloseReason, now_ms: u64) {
        match self.client {
            // Never asked: the backend knows nothing.
            Client::Opening(_) if matches!(self.backend, Backend::Idle) => {
                self.pending.clear();
                self.client = Client::Done;
                self.backend = Backend::Done;
            }
            Client::Opening(None) => self.client = Client::Opening(Some(reason)),
            Client::Open => {
                // The session never ran: the backend's choice did not fit, or the client left during its handshake.
                if self.pending == [Event::Connected] {
                    self.pending.clear();
                }
                self.end(reason, now_ms);
            }
            Client::Opening(Some(_)) | Client::Done => {}
        }
    }

    /// Closes the client, as a publisher asked; the backend is told last.
    pub fn close_by_publisher(&mut self, close: Close, now_ms: u64) {
        self.close_client(close, CloseReason::Backend, now_ms);
    }

    /// Takes in what became of the request.
    ///
    /// # Errors
    /// What was wrong. The machine has drawn its conclusions already.
    pub fn answered(&mut self, outcome: Outcome<'_>, jitter: Jitter, now_ms: u64) -> Result<(), AnswerError> {
        let request = match std::mem::replace(&mut self.backend, Backend::Idle) {
            Backend::Asked(request) => request,
            other => {
                // Nothing was asked: nothing changes.
                self.backend = other;
                return Ok(());
            }
        };
        let may_retry = !matches!(request.event, Event::Connect) && !self.is_given_up(&request.event, now_ms);
        if matches!(outcome, Outcome::NotProcessed)
            && may_retry
            && let Some(wait) = wait_ms(request.tries, jitter)
        {
            let request = Request { tries: request.tries + 1, ..request };
            self.backend = Backend::Waiting { request, until_ms: now_ms.saturating_add(wait) };
            return Ok(());
        }
        let result = match &request.event {
            Event::Connect => self.connect_answered(outcome, now_ms),
            Event::Message(_) => self.message_answered(outcome, now_ms),
            Event::Connected | Event::Disconnected(_) => checked(&request.event, outcome).map(|_| ()),
        };
        if let Err(error) = &result
            && !matches!(request.event, Event::Connect)
        {
            self.ignore(error.to_string());
        }
        if matches!(request.event, Event::Disconnected(_)) {
            self.backend = Backend::Done;
        }
        result
    }

    fn connect_answered(&mut self, outcome: Outcome<'_>, now_ms: u64) -> Result<(), AnswerError> {
        let gone = match std::mem::replace(&mut self.client, Client::Open) {
            Client::Opening(gone) => gone,
            Client::Open | Client::Done => None,
        };
        let accept = checked(&Event::Connect, outcome).and_then(|(fields, body)| {
            self.state.learn(fields)?;
            Ok(connect::decode(body)?)
        });
        match accept {
            Ok(accept) => {
                match gone {
                    Some(reason) => self.end(reason, now_ms),
                    None => {
                        self.accept = Some(accept);
                        self.pending.push_back(Event::Connected);
                    }
                }
                Ok(())
            }
            // It let nobody in.
            Err(error @ (AnswerError::Status { .. } | AnswerError::GaveUp(_))) => {
                self.client = Client::Done;
                self.backend = Backend::Done;
                Err(error)
            }
            // It did, or may have.
            Err(error) => {
                self.end(gone.unwrap_or(CloseReason::Upstream), now_ms);
                Err(error)
            }
        }
    }

    fn message_answered(&mut self, outcome: Outcome<'_>, now_ms: u64) -> Result<(), AnswerError> {
        let reply = checked(&Event::Message(Payload::Text(Bytes::new())), outcome).and_then(|(fields, body)| {
            self.state.learn(fields)?;
            Ok(message::reply(fields, body)?)
        });
        match reply {
            Ok(Some(frame)) if self.client == Client::Open => self.actions.push_back(Action::Send(frame)),
            Ok(_) => {}
            Err(error) => {
                self.drop_messages("one before it failed");
                let close = Close::new(CloseReason::Upstream.close_code(), "the backend failed");
                self.close_client(close, CloseReason::Upstream, now_ms);
                return Err(error);
            }
        }
        Ok(())
    }

    fn give_up(&mut self, now_ms: u64) {
        self.drop_messages("its client is gone for too long");
        if let Backend::Waiting { request, .. } = &self.backend
            && self.is_given_up(&request.event, now_ms)
        {
            self.backend = Backend::Idle;
            self.ignore("a message is not sent again: its client is gone for too long".to_owned());
        }
    }

    fn is_given_up(&self, event: &Event, now_ms: u64) -> bool {
        matches!(event, Event::Message(_)) && self.client == Client::Done && self.give_up_ms <= now_ms
    }

    fn close_client(&mut self, close: Close, reason: CloseReason, now_ms: u64) {
        if self.client == Client::Open {
            self.actions.push_back(Action::Close(close.for_wire(), reason));
            self.end(reason, now_ms);
        }
    }

    /// Ends the client's side, and lets the backend know last.
    fn end(&mut self, reason: CloseReason, now_ms: u64) {
        self.client = Client::Done;
        self.give_up_ms = now_ms.saturating_add(GONE_MS_MAX);
        self.pending.push_back(Event::Disconnected(reason));
    }

    fn drop_messages(&mut self, why: &str) {
        let before = self.pending.len();
        self.pending.retain(|event| !matches!(event, Event::Message(_)));
        self.pending_bytes = 0;
        for _ in self.pending.len()..before {
            self.ignore(format!("a message is not sent: {why}"));
        }
    }

    fn ignore(&mut self, detail: String) {
        self.actions.push_back(Action::Ignore(Ignored::EventGivenUp, detail));
    }
}

/// The fields and body of an answer that is a success.
fn checked<'a>(event: &Event, outcome: Outcome<'a>) -> Result<(&'a HeaderMap, &'a Bytes), AnswerError> {
    let event = event.name();
    match outcome {
        Outcome::Answered(status, fields, body) if status.is_success() => Ok((fields, body)),
        Outcome::Answered(status, ..) => Err(AnswerError::Status { event, status }),
        Outcome::NotProcessed => Err(AnswerError::GaveUp(event)),
        Outcome::Failed => Err(AnswerError::Failed(event)),
    }
}

#[cfg(test)]
mod tests;
