//! CloudEvents as a dialect: the machine of [`crate::proto::websocket_cloudevents`], and the events that it sends.

use crate::model::session::CloseReason;
use crate::proto::websocket_cloudevents::connect::Accept;
use crate::proto::websocket_cloudevents::identity::Identity;
use crate::proto::websocket_cloudevents::machine::{AnswerError, Machine, Request, Step};
use crate::proto::websocket_cloudevents::state::CONNECTION_STATE;
use crate::proto::websocket_over_http::bridge::{Action, FromClient, Outcome};
use crate::proto::websocket_over_http::close::Close;
use crate::proto::websocket_over_http::meta::Meta;
use crate::proto::websocket_over_http::retry::Jitter;
use crate::proto::websocket_over_http::{ANSWER_BYTES_MAX, Ignored, fields};
use crate::server::Response;
use crate::session::settings::CloudEventsSettings;
use crate::session::websocket_cloudevents::Refused;
use crate::session::websocket_cloudevents::handler::Handler;
use crate::session::websocket_cloudevents::validations::{Refusal, Url, Validations, path_of};
use crate::session::websocket_over_http::BackendError;
use crate::session::websocket_over_http::conversation::{
    Asked, Conversation, Next, NoRandomness, Reply, Speaker, new_connection_id,
};
use crate::session::websocket_over_http::dialect::{Dialect, Timeline};
use crate::telemetry::metrics::WorkerMetrics;
use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use http::{Method, StatusCode};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::time::Instant;

/// A machine, its backend and its event in flight.
pub struct Exchange(Conversation<Sender>);

/// What an exchange is made of.
pub struct Parts {
    /// The body of `connect`.
    pub connect: Bytes,
    /// How the backend is spoken to.
    pub settings: Arc<CloudEventsSettings>,
    /// Who answers.
    pub handler: Rc<dyn Handler>,
    /// Which URLs take events.
    pub validations: Rc<Validations>,
    /// The largest message of the client; whatever it sends can be echoed.
    pub message_bytes_max: usize,
    /// What is counted.
    pub metrics: Rc<WorkerMetrics>,
}

/// Why an event has no answer.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// It was not sent: its URL takes no events, or does not say so.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// It did not reach the backend, or the answer did not come.
    #[error(transparent)]
    Backend(#[from] BackendError),
}

/// Sends the events of its machine.
struct Sender {
    machine: Machine,
    identity: Identity,
    connection_id: Box<str>,
    /// The body of `connect`, until it is sent.
    connect: Bytes,
    url: Url,
    handler: Rc<dyn Handler>,
    validations: Rc<Validations>,
    answer_bytes_max: usize,
    metrics: Rc<WorkerMetrics>,
}

impl Exchange {
    /// An exchange that has said nothing yet.
    ///
    /// # Errors
    /// When the system gives no random bytes for the connection's id.
    pub fn new(parts: Parts) -> Result<Self, NoRandomness> {
        let connection_id = new_connection_id()?;
        let settings = &parts.settings;
        let keys = settings.keys.iter().map(|key| key.expose());
        Ok(Self(Conversation::new(Sender {
            machine: Machine::new(),
            identity: Identity::new(&settings.hub, &settings.origin, &connection_id, keys),
            connection_id,
            connect: parts.connect,
            url: Url {
                upstream: parts.handler.upstream(),
                path: settings.path.clone(),
                origin: settings.origin.clone(),
            },
            handler: parts.handler,
            validations: parts.validations,
            answer_bytes_max: ANSWER_BYTES_MAX.saturating_add(parts.message_bytes_max),
            metrics: parts.metrics,
        })))
    }

    /// The connection's id.
    pub fn id(&self) -> &str {
        self.0.connection_id()
    }

    /// Sends `connect`: what the backend chose, or its refusal for the client.
    ///
    /// # Errors
    /// When it gives no answer, or a wrong one.
    pub async fn connect(&mut self) -> Result<Result<Accept, Box<Response>>, Refused> {
        let _ = self.0.next_action();
        let reply = std::future::poll_fn(|cx| self.0.poll_reply(cx)).await;
        let result = self.0.take_in(&reply);
        match (result, reply) {
            (_, Err(error)) => Err(error.into()),
            (Err(AnswerError::Status { .. }), Ok(reply)) if !reply.status.is_informational() => {
                Ok(Err(Box::new(for_client(reply))))
            }
            (Err(error), Ok(_)) => Err(error.into()),
            (Ok(()), Ok(_)) => {
                let mut accept = None;
                self.0.tell(|sender, _| accept = sender.machine.take_accept());
                Ok(Ok(accept.unwrap_or_default()))
            }
        }
    }

    /// Takes back that the client is let in: the backend's choice does not fit.
    pub fn refuse(&mut self) {
        self.client_gone(CloseReason::Upstream);
    }

    /// Has later events name what the backend chose.
    pub fn name(&mut self, accept: &Accept) {
        self.0.tell(|sender, _| {
            if let Some(user_id) = &accept.user_id {
                sender.identity.name_user(user_id);
            }
            if let Some(subprotocol) = &accept.subprotocol {
                sender.identity.name_subprotocol(subprotocol);
            }
        });
    }
}

impl Dialect for Exchange {
    fn connection_id(&self) -> &str {
        self.id()
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
        self.0.speaker().is_some_and(|sender| sender.machine.wants_client())
    }

    fn client_said(&mut self, frame: FromClient) {
        self.0.tell(|sender, now_ms| sender.machine.client_said(frame, now_ms));
    }

    fn client_gone(&mut self, reason: CloseReason) {
        self.0.tell(|sender, now_ms| sender.client_gone(reason, now_ms));
    }

    fn delivered(&mut self) {}

    /// Its state is the connection's, and ends with it.
    fn meta(&self) -> Option<&Meta> {
        None
    }

    /// CloudEvents have none.
    fn subscription_meta(&self) -> &[(Box<str>, Box<str>)] {
        &[]
    }

    fn close_by_publisher(&mut self, close: Close) {
        self.0.tell(|sender, now_ms| sender.machine.close_by_publisher(close, now_ms));
    }

    /// The backend is told of events, never asked.
    fn refresh(&mut self) {}

    fn deadline_ms(&self) -> Option<u64> {
        self.0.deadline_ms()
    }

    fn finish(&mut self) -> LocalBoxFuture<'_, ()> {
        Box::pin(self.0.finish())
    }
}

impl Speaker for Sender {
    type Failure = SendError;
    type Fault = AnswerError;

    fn connection_id(&self) -> &str {
        &self.connection_id
    }

    fn upstream(&self) -> Arc<str> {
        Arc::clone(&self.url.upstream)
    }

    /// What was given up is counted here, since it may be after the client's end.
    fn next(&mut self, now_ms: u64) -> Option<Next<SendError>> {
        loop {
            match self.machine.next(now_ms)? {
                Step::Send(request) => return Some(Next::Ask(self.send(&request))),
                Step::Act(Action::Ignore(what, detail)) => self.ignore(what, &detail),
                Step::Act(action) => return Some(Next::Act(action)),
            }
        }
    }

    fn answered(&mut self, reply: &Result<Reply, SendError>, jitter: Jitter, now_ms: u64) -> Result<(), AnswerError> {
        let outcome = match reply {
            Ok(reply) => Outcome::Answered(reply.status, &reply.fields, &reply.content),
            Err(SendError::Refused(_) | SendError::Backend(BackendError::NotProcessed(_))) => Outcome::NotProcessed,
            Err(SendError::Backend(BackendError::TimedOut(_) | BackendError::Broken(_))) => Outcome::Failed,
        };
        self.machine.answered(outcome, jitter, now_ms)
    }

    fn client_gone(&mut self, reason: CloseReason, now_ms: u64) {
        self.machine.client_gone(reason, now_ms);
    }

    fn is_over(&self) -> bool {
        self.machine.is_over()
    }

    fn deadline_ms(&self) -> Option<u64> {
        self.machine.deadline_ms()
    }
}

impl Sender {
    fn ignore(&self, what: Ignored, detail: &str) {
        self.metrics.bridge_ignored(what);
        tracing::debug!(session.id = &*self.connection_id, what = what.as_str(), detail, "event was given up");
    }

    fn send(&mut self, request: &Request) -> Asked<SendError> {
        let unix_ms = crate::clock::unix_ms();
        let (fields, body) = self.identity.request(request, unix_ms, self.machine.state(), &self.connect);
        // Asked for once, and large.
        self.connect = Bytes::new();
        let path = path_of(&self.url.path, request.event.name());
        let (url, handler, validations) = (self.url.clone(), Rc::clone(&self.handler), Rc::clone(&self.validations));
        let bytes_max = self.answer_bytes_max;
        Box::pin(async move {
            validations.ensure(&url, &handler, Instant::now()).await?;
            let sent = async {
                let response = handler.send(Method::POST, &path, fields, body).await?;
                Reply::read(response, StatusCode::is_success, bytes_max).await
            };
            sent.await.map_err(|error| {
                // Perhaps another server answers there by now.
                validations.forget(&url);
                SendError::Backend(error)
            })
        })
    }
}

/// A refusal as the client gets it.
fn for_client(reply: Reply) -> Response {
    let mut response = http::Response::new(reply.unread);
    *response.status_mut() = reply.status;
    *response.headers_mut() = fields::for_response(&reply.fields);
    response.headers_mut().remove(CONNECTION_STATE);
    response
}
