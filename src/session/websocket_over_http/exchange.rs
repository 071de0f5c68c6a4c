//! WebSocket over HTTP as a dialect: the machine of [`crate::proto::websocket_over_http`], and the POSTs that it asks for.

use crate::model::session::CloseReason;
use crate::proto::packed_fields::PackedFields;
use crate::proto::websocket_over_http::bridge::{Action, AnswerError, Bridge, FromClient, Outcome};
use crate::proto::websocket_over_http::close::Close;
use crate::proto::websocket_over_http::meta::Meta;
use crate::proto::websocket_over_http::retry::Jitter;
use crate::proto::websocket_over_http::{ANSWER_BYTES_MAX, fields};
use crate::session::settings::BridgeSettings;
use crate::session::websocket_over_http::backend::{Backend, BackendError};
use crate::session::websocket_over_http::conversation::{
    Asked, Conversation, Next, NoRandomness, Reply, Speaker, new_connection_id,
};
use crate::session::websocket_over_http::dialect::{Dialect, Timeline};
use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use http::{HeaderMap, StatusCode};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

/// A machine, its backend and its request in flight.
pub struct Exchange(Conversation<Poster>);

/// Posts what its machine says.
struct Poster {
    bridge: Bridge,
    backend: Rc<dyn Backend>,
    connection_id: Box<str>,
    /// The fields of each request, without meta.
    fields: PackedFields,
    answer_bytes_max: usize,
}

impl Exchange {
    /// An exchange that has said nothing yet. `client` are the fields of the client's handshake, `meta` is what the backend
    /// gave to keep if the session was elsewhere before.
    ///
    /// # Errors
    /// When the system gives no random bytes for the connection's id.
    pub fn new(
        backend: Rc<dyn Backend>,
        client: &HeaderMap,
        settings: BridgeSettings,
        meta: Meta,
    ) -> Result<Self, NoRandomness> {
        let connection_id = new_connection_id()?;
        let fields = fields::for_backend(client, &connection_id);
        Ok(Self(Conversation::new(Poster {
            bridge: Bridge::new(settings.pings, meta),
            backend,
            connection_id,
            fields: PackedFields::pack(&fields),
            answer_bytes_max: ANSWER_BYTES_MAX.saturating_add(settings.message_bytes_max),
        })))
    }

    /// The answer to the request in flight, which the machine has not seen; pending if there is none.
    pub fn poll_reply(&mut self, cx: &mut Context<'_>) -> Poll<Result<Reply, BackendError>> {
        self.0.poll_reply(cx)
    }

    /// Tells the machine of an answer.
    ///
    /// # Errors
    /// Why the connection ends.
    pub fn take_in(&mut self, reply: &Result<Reply, BackendError>) -> Result<(), AnswerError> {
        self.0.take_in(reply)
    }
}

impl Dialect for Exchange {
    fn connection_id(&self) -> &str {
        self.0.connection_id()
    }

    fn timeline(&self) -> Timeline {
        self.0.timeline()
    }

    fn next_action(&mut self) -> Option<Action> {
        self.0.next_action()
    }

    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.0.poll_answer(cx)
    }

    fn wants_client(&self) -> bool {
        self.0.speaker().is_some_and(|poster| poster.bridge.wants_client())
    }

    fn client_said(&mut self, frame: FromClient) {
        self.0.tell(|poster, now_ms| poster.bridge.client_said(frame, now_ms));
    }

    fn client_gone(&mut self, reason: CloseReason) {
        self.0.tell(|poster, now_ms| poster.client_gone(reason, now_ms));
    }

    fn delivered(&mut self) {
        self.0.tell(|poster, now_ms| poster.bridge.delivered(now_ms));
    }

    fn meta(&self) -> Option<&Meta> {
        self.0.speaker().map(|poster| poster.bridge.meta())
    }

    fn subscription_meta(&self) -> &[(Box<str>, Box<str>)] {
        self.0.speaker().map_or(&[], |poster| poster.bridge.subscription_meta())
    }

    fn close_by_publisher(&mut self, close: Close) {
        self.0.tell(|poster, _| poster.bridge.close_by_publisher(close));
    }

    fn refresh(&mut self) {
        self.0.tell(|poster, _| poster.bridge.refresh());
    }

    fn deadline_ms(&self) -> Option<u64> {
        self.0.deadline_ms()
    }

    fn finish(&mut self) -> LocalBoxFuture<'_, ()> {
        Box::pin(self.0.finish())
    }
}

impl Speaker for Poster {
    type Failure = BackendError;
    type Fault = AnswerError;

    fn connection_id(&self) -> &str {
        &self.connection_id
    }

    fn upstream(&self) -> Arc<str> {
        self.backend.upstream()
    }

    fn next(&mut self, now_ms: u64) -> Option<Next<BackendError>> {
        Some(match self.bridge.next(now_ms)? {
            Action::Post(body) => Next::Ask(self.post(body)),
            other => Next::Act(other),
        })
    }

    fn answered(
        &mut self,
        reply: &Result<Reply, BackendError>,
        jitter: Jitter,
        now_ms: u64,
    ) -> Result<(), AnswerError> {
        let outcome = match reply {
            Ok(reply) => Outcome::Answered(reply.status, &reply.fields, &reply.content),
            Err(BackendError::NotProcessed(_)) => Outcome::NotProcessed,
            Err(BackendError::TimedOut(_) | BackendError::Broken(_)) => Outcome::Failed,
        };
        self.bridge.answered(outcome, jitter, now_ms)
    }

    fn client_gone(&mut self, _: CloseReason, _: u64) {
        self.bridge.client_gone();
    }

    fn is_over(&self) -> bool {
        self.bridge.is_over()
    }

    fn deadline_ms(&self) -> Option<u64> {
        self.bridge.deadline_ms()
    }
}

impl Poster {
    fn post(&self, body: Bytes) -> Asked<BackendError> {
        let mut fields = self.fields.unpack();
        self.bridge.meta().echo(&mut fields);
        let post = self.backend.post(fields, body);
        let bytes_max = self.answer_bytes_max;
        Box::pin(async move { Reply::read(post.await?, |status| *status == StatusCode::OK, bytes_max).await })
    }
}
