//! The side of the backend: the machine and its one event in flight.

use crate::model::session::CloseReason;
use crate::proto::websocket_cloudevents::connect::Accept;
use crate::proto::websocket_cloudevents::identity::Identity;
use crate::proto::websocket_cloudevents::machine::{AnswerError, Machine, Request, Step};
use crate::proto::websocket_cloudevents::state::CONNECTION_STATE;
use crate::proto::websocket_over_http::bridge::{Action, FromClient, Outcome};
use crate::proto::websocket_over_http::close::Close;
use crate::proto::websocket_over_http::meta::Meta;
use crate::proto::websocket_over_http::{ANSWER_BYTES_MAX, Ignored, fields};
use crate::server::Response;
use crate::server::body::Body;
use crate::session::settings::CloudEventsSettings;
use crate::session::websocket_cloudevents::Refused;
use crate::session::websocket_cloudevents::handler::Handler;
use crate::session::websocket_cloudevents::validations::{Refusal, Url, Validations, path_of};
use crate::session::websocket_over_http::BackendError;
use crate::session::websocket_over_http::dialect::{Dialect, Timeline};
use crate::session::websocket_over_http::exchange::{NoRandomness, Reply, jitter, read};
use crate::telemetry::metrics::WorkerMetrics;
use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use http::Method;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::time::Instant;

/// A machine, its backend and its event in flight.
pub struct Exchange {
    inner: Option<Box<Inner>>,
}

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

struct Inner {
    machine: Machine,
    identity: Identity,
    connection_id: Box<str>,
    /// The body of `connect`, until it is sent.
    connect: Bytes,
    url: Url,
    handler: Rc<dyn Handler>,
    validations: Rc<Validations>,
    asked: Option<LocalBoxFuture<'static, Result<Reply, SendError>>>,
    answer_bytes_max: usize,
    timeline: Timeline,
    metrics: Rc<WorkerMetrics>,
}

impl Exchange {
    /// An exchange that has said nothing yet.
    ///
    /// # Errors
    /// When the system gives no random bytes for the connection's id.
    pub fn new(parts: Parts) -> Result<Self, NoRandomness> {
        let mut random = [0; 16];
        SystemRandom::new().fill(&mut random).map_err(|_| NoRandomness)?;
        let connection_id = fields::connection_id(random);
        let settings = &parts.settings;
        let keys = settings.keys.iter().map(|key| key.expose());
        let inner = Inner {
            machine: Machine::new(),
            identity: Identity::new(&settings.hub, &settings.origin, &connection_id, keys),
            connection_id: connection_id.into(),
            connect: parts.connect,
            url: Url {
                upstream: parts.handler.upstream(),
                path: settings.path.clone(),
                origin: settings.origin.clone(),
            },
            handler: parts.handler,
            validations: parts.validations,
            asked: None,
            answer_bytes_max: ANSWER_BYTES_MAX.saturating_add(parts.message_bytes_max),
            timeline: Timeline::start(),
            metrics: parts.metrics,
        };
        Ok(Self { inner: Some(Box::new(inner)) })
    }

    /// The connection's id.
    pub fn id(&self) -> &str {
        self.inner.as_ref().map_or("", |inner| &inner.connection_id)
    }

    /// Sends `connect`: what the backend chose, or its refusal for the client.
    ///
    /// # Errors
    /// When it gives no answer, or a wrong one.
    pub async fn connect(&mut self) -> Result<Result<Accept, Box<Response>>, Refused> {
        let Some(inner) = self.inner.as_mut() else { return Ok(Ok(Accept::default())) };
        let _ = inner.next();
        let reply = std::future::poll_fn(|cx| inner.poll_reply(cx)).await;
        let result = inner.take_in(&reply);
        match (result, reply) {
            (_, Err(error)) => Err(error.into()),
            (Err(AnswerError::Status { .. }), Ok(reply)) if !reply.status.is_informational() => {
                Ok(Err(Box::new(for_client(reply))))
            }
            (Err(error), Ok(_)) => Err(error.into()),
            (Ok(()), Ok(_)) => Ok(Ok(inner.machine.take_accept().unwrap_or_default())),
        }
    }

    /// Takes back that the client is let in: the backend's choice does not fit.
    pub fn refuse(&mut self) {
        self.client_gone(CloseReason::Upstream);
    }

    /// Has later events name what the backend chose.
    pub fn name(&mut self, accept: &Accept) {
        let Some(inner) = self.inner.as_mut() else { return };
        if let Some(user_id) = &accept.user_id {
            inner.identity.name_user(user_id);
        }
        if let Some(subprotocol) = &accept.subprotocol {
            inner.identity.name_subprotocol(subprotocol);
        }
    }
}

impl Dialect for Exchange {
    fn connection_id(&self) -> &str {
        self.id()
    }

    fn timeline(&self) -> Timeline {
        self.inner.as_ref().map_or_else(Timeline::start, |inner| inner.timeline)
    }

    fn next_action(&mut self) -> Option<Action> {
        self.inner.as_mut()?.next()
    }

    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(inner) = self.inner.as_mut() else { return Poll::Pending };
        let reply = std::task::ready!(inner.poll_reply(cx));
        let result = inner.take_in(&reply);
        let cause = reply.err().map(|error| error.to_string());
        let session = &*inner.connection_id;
        match (result, cause) {
            (Err(error), cause) => {
                tracing::warn!(session.id = session, %error, cause, "bridged backend failed");
            }
            (Ok(()), Some(cause)) => tracing::debug!(session.id = session, cause, "bridged request is tried again"),
            (Ok(()), None) => {}
        }
        Poll::Ready(())
    }

    fn wants_client(&self) -> bool {
        self.inner.as_ref().is_some_and(|inner| inner.machine.wants_client())
    }

    fn client_said(&mut self, frame: FromClient) {
        if let Some(inner) = self.inner.as_mut() {
            let now_ms = inner.timeline.now_ms();
            inner.machine.client_said(frame, now_ms);
        }
    }

    fn client_gone(&mut self, reason: CloseReason) {
        if let Some(inner) = self.inner.as_mut() {
            let now_ms = inner.timeline.now_ms();
            inner.machine.client_gone(reason, now_ms);
        }
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
        if let Some(inner) = self.inner.as_mut() {
            let now_ms = inner.timeline.now_ms();
            inner.machine.close_by_publisher(close, now_ms);
        }
    }

    /// The backend is told of events, never asked.
    fn refresh(&mut self) {}

    fn deadline_ms(&self) -> Option<u64> {
        self.inner.as_ref()?.machine.deadline_ms()
    }

    fn finish(&mut self) -> LocalBoxFuture<'_, ()> {
        self.client_gone(CloseReason::ClientGone);
        Box::pin(async {
            if let Some(inner) = self.inner.as_mut() {
                inner.finish().await;
            }
        })
    }
}

impl Inner {
    /// The next action for the client. What was given up is counted here, since it may be after the client's end.
    fn next(&mut self) -> Option<Action> {
        loop {
            match self.machine.next(self.timeline.now_ms())? {
                Step::Send(request) => self.send(&request),
                Step::Act(Action::Ignore(what, detail)) => self.ignore(what, &detail),
                Step::Act(action) => return Some(action),
            }
        }
    }

    fn ignore(&self, what: Ignored, detail: &str) {
        self.metrics.bridge_ignored(what);
        tracing::debug!(session.id = &*self.connection_id, what = what.as_str(), detail, "event was given up");
    }

    fn send(&mut self, request: &Request) {
        let unix_ms = crate::clock::unix_ms();
        let (fields, body) = self.identity.request(request, unix_ms, self.machine.state(), &self.connect);
        // Asked for once, and large.
        self.connect = Bytes::new();
        let path = path_of(&self.url.path, request.event.name());
        let (url, handler, validations) = (self.url.clone(), Rc::clone(&self.handler), Rc::clone(&self.validations));
        let bytes_max = self.answer_bytes_max;
        self.asked = Some(Box::pin(async move {
            validations.ensure(&url, &handler, Instant::now()).await?;
            let sent = async {
                let (head, body) = handler.send(Method::POST, &path, fields, body).await?.into_parts();
                let (content, unread) = match head.status.is_success() {
                    true => (read(body, bytes_max).await?, Body::empty()),
                    false => (Bytes::new(), body),
                };
                Ok(Reply { status: head.status, fields: head.headers, content, unread })
            };
            sent.await.map_err(|error| {
                // Perhaps another server answers there by now.
                validations.forget(&url);
                SendError::Backend(error)
            })
        }));
    }

    fn poll_reply(&mut self, cx: &mut Context<'_>) -> Poll<Result<Reply, SendError>> {
        let Some(asked) = &mut self.asked else { return Poll::Pending };
        let reply = std::task::ready!(asked.as_mut().poll(cx));
        self.asked = None;
        Poll::Ready(reply)
    }

    fn take_in(&mut self, reply: &Result<Reply, SendError>) -> Result<(), AnswerError> {
        let outcome = match reply {
            Ok(reply) => Outcome::Answered(reply.status, &reply.fields, &reply.content),
            Err(SendError::Refused(_) | SendError::Backend(BackendError::NotProcessed(_))) => Outcome::NotProcessed,
            Err(SendError::Backend(BackendError::TimedOut(_) | BackendError::Broken(_))) => Outcome::Failed,
        };
        let now_ms = self.timeline.now_ms();
        self.machine.answered(outcome, jitter(), now_ms)
    }

    async fn finish(&mut self) {
        loop {
            // What is for the client has nowhere to go.
            while self.next().is_some() {}
            if self.machine.is_over() {
                return;
            }
            let reply = if self.asked.is_some() {
                std::future::poll_fn(|cx| self.poll_reply(cx)).await
            } else if let Some(at_ms) = self.machine.deadline_ms() {
                tokio::time::sleep_until(self.timeline.instant(at_ms)).await;
                continue;
            } else {
                return;
            };
            if let Err(error) = self.take_in(&reply) {
                let cause = reply.err().map(|error| error.to_string());
                tracing::debug!(session.id = %self.connection_id, %error, cause, "could not tell a backend of an end");
            }
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.client_gone(CloseReason::ClientGone);
        let Some(mut inner) = self.inner.take() else { return };
        // Outside of a runtime the process is ending, and nobody can be told.
        if !inner.machine.is_over() && tokio::runtime::Handle::try_current().is_ok() {
            tokio::task::spawn_local(async move { inner.finish().await });
        }
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
