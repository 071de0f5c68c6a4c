//! The machine between one client's WebSocket and the POSTs to its backend.
//!
//! ```text
//!            OPEN answered              client CLOSE                 CLOSE answered, or 10 s
//! client: Opening ──────────▶ Open ──────────────────▶ ClosedFirst ─────────────────────────▶ Done
//!                              └─ backend CLOSE or DISCONNECT, failure, client lost ───────────▶ Done
//!
//!                 Post                answer
//! backend: Idle ───────▶ Asked ──────────────────▶ Idle     … CLOSE, DISCONNECT, detach, given up ─▶ Done
//!                          └ surely not processed ▶ Waiting ─ time ─▶ Asked
//! ```
//!
//! The two halves end on their own: a client may be done while its backend still has to be told. [`Bridge::next`] is
//! pulled, so that nothing is asked of the backend while the client takes nothing: a client that sends but does not
//! read stops itself. Time is an argument (milliseconds of any steady clock), and so is randomness.

mod act;

use crate::model::channel::ChannelName;
use crate::model::session::CloseReason;
use crate::proto::websocket_over_http::close::Close;
use crate::proto::websocket_over_http::control::Subscribe;
use crate::proto::websocket_over_http::event::{Event, EventError, decode};
use crate::proto::websocket_over_http::extension::{Extension, ExtensionError};
use crate::proto::websocket_over_http::fields::{KEEP_ALIVE_INTERVAL, is_events};
use crate::proto::websocket_over_http::meta::Meta;
use crate::proto::websocket_over_http::retry::{Jitter, wait_ms};
use crate::proto::websocket_over_http::scheduled::{Frame, Scheduled};
use crate::proto::websocket_over_http::{Ignored, PENDING_BYTES_MAX};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode};
use std::collections::VecDeque;

/// How long a client that closed first waits for its backend's CLOSE, in milliseconds.
pub const CLOSE_WAIT_MS: u64 = 10_000;
/// The shortest `Keep-Alive-Interval`, in seconds; less is taken as this.
pub const KEEP_ALIVE_SECS_MIN: u64 = 20;
/// The longest `Keep-Alive-Interval`, in seconds; more is taken as this.
pub const KEEP_ALIVE_SECS_MAX: u64 = 24 * 60 * 60;
/// The most words of `set-meta` that are kept.
pub const SUBSCRIPTION_META_MAX: usize = 32;

/// Who answers a client's pings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pings {
    /// This end does.
    Answered,
    /// Each costs the backend a request.
    PassedThrough,
}

/// What a client sent: whole messages and control frames.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromClient {
    /// A text message: UTF-8.
    Text(Bytes),
    /// A binary message.
    Binary(Bytes),
    /// A ping.
    Ping(Bytes),
    /// A pong.
    Pong(Bytes),
    /// A close frame.
    Close(Close),
}

/// What became of a request.
#[derive(Debug, Clone, Copy)]
pub enum Outcome<'a> {
    /// The backend answered.
    Answered(StatusCode, &'a HeaderMap, &'a Bytes),
    /// The backend surely has not seen the request.
    NotProcessed,
    /// Anything else: no one knows whether it was processed.
    Failed,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Send this body to the backend, with [`Bridge::meta`]; then tell [`Bridge::answered`].
    Post(Bytes),
    /// Send the client a frame.
    Send(Frame),
    /// Messages of a channel are to reach the client.
    Subscribe(Subscribe),
    /// No longer.
    Unsubscribe(ChannelName),
    /// Send the client a close frame, then end its connection. Nothing else is for the client after it.
    Close(Close, CloseReason),
    /// End the client's connection without a close frame. Nothing else is for the client after it.
    Cut(CloseReason),
    /// Log and count what was passed over. The text holds no payload.
    Ignore(Ignored, String),
}

/// Why an answer, or the lack of one, ended the connection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// A status that has no events.
    #[error("the backend answered {0} to WebSocket events; it has to answer 200")]
    Status(StatusCode),
    /// Another media type.
    #[error("the backend's answer is no application/websocket-events; set its Content-Type")]
    NotEvents,
    /// The events are malformed.
    #[error("the backend's events are malformed: {0}")]
    Malformed(#[from] EventError),
    /// OPEN was answered by something else.
    #[error("the backend's answer to OPEN does not begin with OPEN")]
    NotOpened,
    /// The extension can't be followed.
    #[error(transparent)]
    Extension(#[from] ExtensionError),
    /// No answer, and the request may have been processed.
    #[error("the request to the backend failed and may have been processed, so that it can't be sent again")]
    Failed,
    /// No answer after all tries.
    #[error("the backend could not be reached")]
    GaveUp,
}

/// One bridged WebSocket.
#[derive(Debug)]
pub struct Bridge {
    pings: Pings,
    client: Client,
    backend: Backend,
    /// Events for the next request, encoded.
    pending: BytesMut,
    /// What ends `pending`.
    farewell: Farewell,
    /// What is left of the last answer.
    events: VecDeque<Event>,
    actions: VecDeque<Action>,
    extension: Extension,
    meta: Meta,
    scheduled: Scheduled,
    keep_alive_ms: Option<u64>,
    /// The last ping of the backend, whose pong it waits for.
    backend_ping: Option<Bytes>,
    session_name: Option<Box<str>>,
    subscription_meta: Vec<(Box<str>, Box<str>)>,
    /// Whether the backend is to be asked although nothing waits.
    refresh: bool,
}

#[derive(Debug)]
enum Client {
    Opening,
    Open,
    ClosedFirst { close: Close, until_ms: u64 },
    Done,
}

#[derive(Debug)]
enum Backend {
    Idle { since_ms: u64 },
    Asked(Request),
    Waiting { request: Request, until_ms: u64 },
    Done,
}

#[derive(Debug)]
struct Request {
    body: Bytes,
    tries: usize,
    opens: bool,
    farewell: Farewell,
}

/// The last word of this end to the backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Farewell {
    None,
    Close,
    Disconnect,
}

impl Bridge {
    /// A connection whose first action is to post OPEN, with `meta` if it was elsewhere before.
    pub fn new(pings: Pings, meta: Meta) -> Self {
        let mut pending = BytesMut::new();
        Event::Open.encode(&mut pending);
        Self {
            pings,
            client: Client::Opening,
            backend: Backend::Idle { since_ms: 0 },
            pending,
            farewell: Farewell::None,
            events: VecDeque::new(),
            actions: VecDeque::new(),
            extension: Extension::Plain,
            meta,
            scheduled: Scheduled::default(),
            keep_alive_ms: None,
            backend_ping: None,
            session_name: None,
            subscription_meta: Vec::new(),
            refresh: false,
        }
    }

    /// The next thing to do, if there is any at this moment. Pulled only while the client takes what it is sent, or is
    /// gone.
    pub fn next(&mut self, now_ms: u64) -> Option<Action> {
        loop {
            if let Some(action) = self.actions.pop_front() {
                return Some(action);
            }
            if let Some(event) = self.events.pop_front() {
                if self.events.is_empty() {
                    // An idle connection keeps no memory of its last answer.
                    self.events = VecDeque::new();
                }
                self.act_on(event, now_ms);
                continue;
            }
            match &self.client {
                Client::Open => {
                    if let Some(frame) = self.scheduled.due(now_ms) {
                        self.send(frame, now_ms);
                        continue;
                    }
                }
                Client::ClosedFirst { close, until_ms }
                    if *until_ms <= now_ms || matches!(self.backend, Backend::Done) =>
                {
                    let close = close.clone();
                    self.close_client(close, CloseReason::Done);
                    continue;
                }
                _ => {}
            }
            return self.next_post(now_ms).map(Action::Post);
        }
    }

    /// When [`Bridge::next`] has something because of time alone.
    pub fn deadline_ms(&self) -> Option<u64> {
        let client = match &self.client {
            Client::Open => self.scheduled.deadline_ms(),
            Client::ClosedFirst { until_ms, .. } => Some(*until_ms),
            _ => None,
        };
        let backend = match &self.backend {
            Backend::Waiting { until_ms, .. } => Some(*until_ms),
            Backend::Idle { since_ms } if matches!(self.client, Client::Open) => {
                self.keep_alive_ms.map(|every| since_ms.saturating_add(every))
            }
            _ => None,
        };
        client.into_iter().chain(backend).min()
    }

    /// Whether the client is to be read: false while [`PENDING_BYTES_MAX`] wait for the backend, and after the end.
    pub fn wants_client(&self) -> bool {
        matches!(self.client, Client::Open) && self.pending.len() < PENDING_BYTES_MAX
    }

    /// Whether there is nothing left to do for either side.
    pub fn is_over(&self) -> bool {
        let is_told = matches!(self.backend, Backend::Done) && self.actions.is_empty();
        is_told && matches!(self.client, Client::Done)
    }

    /// What the backend asked to have echoed.
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// Takes in what the client sent. One message may go over [`PENDING_BYTES_MAX`]; then [`Bridge::wants_client`] is
    /// false.
    pub fn client_said(&mut self, frame: FromClient, now_ms: u64) {
        if !matches!(self.client, Client::Open) {
            return;
        }
        let is_detached = matches!(self.backend, Backend::Done);
        let event = match frame {
            FromClient::Ping(content) if is_detached || self.pings == Pings::Answered => {
                self.actions.push_back(Action::Send(Frame::Pong(content)));
                return;
            }
            FromClient::Close(close) if is_detached => return self.close_client(close, CloseReason::Done),
            FromClient::Pong(content) => {
                // A pong that nobody asked for is a heartbeat (RFC 6455 §5.5.3) and needs no answer.
                let is_awaited = self.backend_ping.take_if(|ping| *ping == content).is_some();
                if is_detached || !is_awaited && self.pings == Pings::Answered {
                    return;
                }
                Event::Pong(content)
            }
            FromClient::Text(_) | FromClient::Binary(_) if is_detached => {
                return self.ignore(Ignored::ClientFrameAfterDetach, "the backend detached".to_owned());
            }
            FromClient::Text(content) => Event::Text(content),
            FromClient::Binary(content) => Event::Binary(content),
            FromClient::Ping(content) => Event::Ping(content),
            FromClient::Close(close) => {
                self.farewell = Farewell::Close;
                let until_ms = now_ms.saturating_add(CLOSE_WAIT_MS);
                self.client = Client::ClosedFirst { close: close.clone(), until_ms };
                Event::Close(close)
            }
        };
        event.encode(&mut self.pending);
    }

    /// Notes that the client is gone without a close, or that its session was ended from here: the backend gets what
    /// the client had sent, then DISCONNECT.
    pub fn client_gone(&mut self) {
        let was = std::mem::replace(&mut self.client, Client::Done);
        self.actions.clear();
        match was {
            Client::Open => self.say_disconnect(),
            // Never asked: the backend knows nothing.
            Client::Opening if matches!(self.backend, Backend::Idle { .. }) => {
                self.pending.clear();
                self.backend = Backend::Done;
            }
            // A CLOSE is said already, or the answer to OPEN decides.
            Client::Opening | Client::ClosedFirst { .. } | Client::Done => {}
        }
    }

    /// Notes that a channel's message went to the client.
    pub fn delivered(&mut self, now_ms: u64) {
        self.scheduled.sent(now_ms);
    }

    /// Takes in what became of the request.
    ///
    /// # Errors
    /// Why the connection ends. The machine knows it already: for OPEN, the error is the client's answer; later, the
    /// next action is its close.
    pub fn answered(&mut self, outcome: Outcome<'_>, jitter: Jitter, now_ms: u64) -> Result<(), AnswerError> {
        let request = match std::mem::replace(&mut self.backend, Backend::Done) {
            Backend::Asked(request) => request,
            other => {
                // Nothing was asked: nothing changes.
                self.backend = other;
                return Ok(());
            }
        };
        match outcome {
            Outcome::Answered(status, fields, body) => {
                self.backend = Backend::Idle { since_ms: now_ms };
                self.take_in(&request, status, fields, body).inspect_err(|error| self.fail(&request, error))?;
                if request.farewell != Farewell::None {
                    self.backend = Backend::Done;
                }
                Ok(())
            }
            Outcome::NotProcessed if !request.opens => match wait_ms(request.tries, jitter) {
                Some(wait) => {
                    let request = Request { tries: request.tries + 1, ..request };
                    self.backend = Backend::Waiting { request, until_ms: now_ms.saturating_add(wait) };
                    Ok(())
                }
                None => {
                    self.fail(&request, &AnswerError::GaveUp);
                    Err(AnswerError::GaveUp)
                }
            },
            Outcome::NotProcessed => {
                self.fail(&request, &AnswerError::GaveUp);
                Err(AnswerError::GaveUp)
            }
            Outcome::Failed => {
                self.fail(&request, &AnswerError::Failed);
                Err(AnswerError::Failed)
            }
        }
    }

    fn take_in(
        &mut self,
        request: &Request,
        status: StatusCode,
        fields: &HeaderMap,
        body: &Bytes,
    ) -> Result<(), AnswerError> {
        let has_events = request.opens || !body.is_empty();
        if status != StatusCode::OK && (has_events || status != StatusCode::NO_CONTENT) {
            return Err(AnswerError::Status(status));
        }
        if has_events && !is_events(fields) {
            return Err(AnswerError::NotEvents);
        }
        let mut events = VecDeque::from(decode(body)?);
        if request.opens {
            if events.pop_front() != Some(Event::Open) {
                return Err(AnswerError::NotOpened);
            }
            self.extension = Extension::negotiated(fields)?;
            if matches!(self.client, Client::Opening) {
                self.client = Client::Open;
            } else {
                self.say_disconnect();
            }
        }
        for full in self.meta.learn(fields) {
            self.ignore(Ignored::MetaOverBounds, full.to_string());
        }
        self.learn_keep_alive(fields);
        self.events = events;
        Ok(())
    }

    fn learn_keep_alive(&mut self, fields: &HeaderMap) {
        let Some(value) = fields.get(KEEP_ALIVE_INTERVAL) else { return };
        match value.to_str().ok().and_then(|text| text.trim().parse::<u64>().ok()) {
            Some(0) => self.keep_alive_ms = None,
            Some(secs) => self.keep_alive_ms = Some(secs.clamp(KEEP_ALIVE_SECS_MIN, KEEP_ALIVE_SECS_MAX) * 1000),
            None => self.ignore(Ignored::BadKeepAliveInterval, "give whole seconds".to_owned()),
        }
    }

    fn next_post(&mut self, now_ms: u64) -> Option<Bytes> {
        let request = match std::mem::replace(&mut self.backend, Backend::Done) {
            Backend::Waiting { request, until_ms } if until_ms <= now_ms => request,
            Backend::Idle { since_ms } => {
                let is_due =
                    self.refresh || self.keep_alive_ms.is_some_and(|every| since_ms.saturating_add(every) <= now_ms);
                if self.pending.is_empty() && !(is_due && matches!(self.client, Client::Open)) {
                    self.backend = Backend::Idle { since_ms };
                    return None;
                }
                let opens = matches!(self.client, Client::Opening);
                self.refresh = false;
                Request { body: std::mem::take(&mut self.pending).freeze(), tries: 0, opens, farewell: self.farewell }
            }
            other => {
                self.backend = other;
                return None;
            }
        };
        let body = request.body.clone();
        self.backend = Backend::Asked(request);
        Some(body)
    }

    fn send(&mut self, frame: Frame, now_ms: u64) {
        self.scheduled.sent(now_ms);
        self.actions.push_back(Action::Send(frame));
    }

    fn ignore(&mut self, what: Ignored, detail: String) {
        self.actions.push_back(Action::Ignore(what, detail));
    }

    fn close_client(&mut self, close: Close, reason: CloseReason) {
        if !matches!(std::mem::replace(&mut self.client, Client::Done), Client::Done) {
            self.actions.push_back(Action::Close(close.for_wire(), reason));
        }
    }

    fn cut_client(&mut self, reason: CloseReason) {
        if !matches!(std::mem::replace(&mut self.client, Client::Done), Client::Done) {
            self.actions.push_back(Action::Cut(reason));
        }
    }

    /// Ends the client's side, and says DISCONNECT if the backend may think that the connection stands.
    fn fail(&mut self, request: &Request, error: &AnswerError) {
        self.events.clear();
        if request.opens {
            self.client = Client::Done;
        } else {
            let code = CloseReason::Upstream.close_code();
            self.close_client(Close::new(code, "the backend failed"), CloseReason::Upstream);
        }
        let never_opened = request.opens && matches!(error, AnswerError::Status(_));
        if never_opened || matches!(error, AnswerError::GaveUp) || request.farewell != Farewell::None {
            self.backend = Backend::Done;
            self.pending.clear();
            return;
        }
        self.backend = Backend::Idle { since_ms: 0 };
        if self.farewell == Farewell::None {
            self.pending.clear();
            self.say_disconnect();
        }
    }

    fn say_disconnect(&mut self) {
        if !matches!(self.backend, Backend::Done) {
            self.farewell = Farewell::Disconnect;
            Event::Disconnect.encode(&mut self.pending);
        }
    }
}

#[cfg(test)]
mod tests;
