//! A backend's answer that speaks GRIP: it holds its client, as a stream or as a response, or sends it on to a next page.
//!
//! ```text
//! answer ─▶ instruct ─┬─ hold: response ─▶ waits (without its connection's HTTP machinery)
//!                     │                      └─▶ released · its time is over · asked again ─▶ answer …
//!                     ├─ hold: stream, or a next link ─▶ a session that owns the stream
//!                     └─ neither ─▶ the response, without its Grip-* fields
//! ```

mod fetches;
mod links;
mod read;

use crate::drain::Phase;
use crate::gateway::Inner;
use crate::gateway::forward::{self, Forwarded, pass_back};
use crate::gateway::respond::ClientError;
use crate::gateway::settings::{GripRoute, ProxyRoute};
use crate::hub::shard::{Start, Subscription};
use crate::model::channel::ChannelName;
use crate::model::session::{SessionKind, Transport};
use crate::proto::grip::holding::{Holding, StreamKind};
use crate::proto::grip::instruct::{self, Inner as HeldResponse, Instruct, Mode};
use crate::proto::grip::kept::Kept;
use crate::proto::grip::release::Held;
use crate::proto::grip::{FEATURE, FEATURES, LAST, SIGNATURE};
use crate::proto::sse;
use crate::server::body::Body;
use crate::server::{Answer, Hold, Request, Response};
use crate::session::grip::response::{self, Again, Outcome, Waiting};
use crate::session::grip::stream::{self, Stream};
use crate::session::grip::{Gone, Page, Source};
use crate::telemetry::metrics::{GripPage, GripRefusal};
use crate::upstream::settings::UpstreamSettings;
use aws_lc_rs::rand::SystemRandom;
use http::header::{ACCEPT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, StatusCode, request};
use http_body::Body as _;
use links::Links;
use read::Read;
use std::rc::Rc;
use std::sync::Arc;

pub(in crate::gateway) use crate::proto::grip::strip;
pub(in crate::gateway) use fetches::Fetches;
pub use read::GripError;

/// The longest that a response is held which comes while the instance settles.
const SETTLE_WAIT_MS_MAX: u64 = 500;
/// How often a backend is asked again for one held response, at most.
const ROUNDS_MAX: u32 = 100;
/// The wait before a backend is asked again for the second time, in milliseconds; then it doubles.
const AGAIN_PAUSE_MS: u64 = 500;
/// The longest such wait, in milliseconds.
const AGAIN_PAUSE_MS_MAX: u64 = 8000;

/// The request that a backend answered, to be made again.
pub(in crate::gateway) struct Original {
    method: Method,
    target: PathAndQuery,
    fields: Kept,
    again: Again,
}

impl Original {
    /// The request as the backend gets it, without a signature. What a backend compresses can't go on with what is
    /// published, so that it is not asked to.
    pub(in crate::gateway) fn of(parts: &mut request::Parts, body: &Body) -> Self {
        parts.headers.remove(ACCEPT_ENCODING);
        let target = forward::path_and_query(&parts.uri);
        Self {
            method: parts.method.clone(),
            target,
            fields: Kept::new(&parts.headers),
            again: if body.is_end_stream() { Again::Possible } else { Again::Impossible },
        }
    }
}

/// Whether a response asks for a hold, or for anything else of GRIP.
pub(in crate::gateway) fn speaks(response: &Response) -> bool {
    instruct::is_instruct(response.headers())
}

/// Says that GRIP is spoken here, and signs a request where its upstream has a key.
pub(in crate::gateway) fn sign(fields: &mut HeaderMap, upstream: &UpstreamSettings) {
    fields.insert(FEATURE, FEATURES);
    let Some(settings) = &upstream.grip else { return };
    let now_secs = crate::clock::unix_ms() / 1000;
    let token = settings.key.as_ref().and_then(|key| key.sign(&settings.issuer, now_secs, &SystemRandom::new()));
    fields.extend(token.and_then(|token| HeaderValue::try_from(token).ok()).map(|token| (SIGNATURE, token)));
}

/// What a hold is made with.
pub(in crate::gateway) struct Holder {
    pub(in crate::gateway) inner: Rc<Inner>,
    pub(in crate::gateway) route: Arc<ProxyRoute>,
    /// The route's name.
    pub(in crate::gateway) name: Arc<str>,
    /// The route's own channels.
    pub(in crate::gateway) implicit: Vec<ChannelName>,
    pub(in crate::gateway) original: Original,
}

/// How far a backend's answer has led.
enum Step {
    Answer(Answer),
    Wait(Box<Waiting>),
}

impl From<Response> for Step {
    fn from(response: Response) -> Self {
        Self::Answer(response.into())
    }
}

impl Holder {
    /// Does what a response asks for.
    ///
    /// # Errors
    /// When it can't be done.
    pub(in crate::gateway) async fn answer(self, response: Response) -> Result<Forwarded, ClientError> {
        let mut gone = None;
        Ok(match self.follow(response, 0, &mut gone).await? {
            Step::Answer(answer) => {
                is_answered(&mut gone);
                Forwarded::Answer(answer)
            }
            Step::Wait(waiting) => Forwarded::Waiting(Box::pin(self.wait(waiting, gone))),
        })
    }

    /// Waits for the end of a held response. A client that goes first takes this future with it, and its backend is told.
    async fn wait(self, waiting: Box<Waiting>, mut gone: Option<Gone>) -> Result<Answer, ClientError> {
        let answer = self.wait_for_end(waiting, &mut gone).await;
        is_answered(&mut gone);
        answer
    }

    /// Waits for the end of a held response, and of those that come when the backend is asked again.
    async fn wait_for_end(&self, mut waiting: Box<Waiting>, gone: &mut Option<Gone>) -> Result<Answer, ClientError> {
        let mut round = 0;
        loop {
            let last = match waiting.await {
                Outcome::Answer(answer) => return Ok(released(answer).into()),
                Outcome::Ask(last) => last,
            };
            round += 1;
            // Boxed: what waits is not to have room for what asks.
            match Box::pin(self.ask_again(last, round, gone)).await? {
                Step::Answer(answer) => return Ok(answer),
                Step::Wait(next) => waiting = next,
            }
        }
    }

    async fn ask_again(
        &self,
        last: Vec<HeaderValue>,
        round: u32,
        gone: &mut Option<Gone>,
    ) -> Result<Step, ClientError> {
        let asked = self.ask(last).await;
        self.inner.parts.metrics.grip_page(if asked.is_ok() { GripPage::Arrived } else { GripPage::Failed });
        let response = asked?;
        if speaks(&response) { self.follow(response, round, gone).await } else { Ok(response.into()) }
    }

    async fn follow(&self, response: Response, round: u32, gone: &mut Option<Gone>) -> Result<Step, ClientError> {
        let is_head = self.original.method == Method::HEAD;
        if is_head && instruct::is_json(response.headers()) {
            return Ok(read::without_instruct(response).into());
        }
        let read = read::instruct(response).await.map_err(|error| self.refused(error))?;
        let (instruct, mode) = (&read.instruct, read.instruct.hold);
        if gone.is_none() && mode.is_some() && !is_head {
            *gone = Some(Gone { told: instruct.gone.clone().map(|link| (self.source(), link)) });
        }
        match mode {
            Some(Mode::Response) if !is_head => self.hold(read, round).await,
            Some(Mode::Stream) if !is_head => self.stream(read, gone.take()).await.map(Step::Answer),
            None if !is_head && instruct.next.is_some() => self.stream(read, gone.take()).await.map(Step::Answer),
            _ => Ok(read.into_response().into()),
        }
    }

    fn grip(&self) -> Option<&GripRoute> {
        self.route.grip.as_ref()
    }

    fn source(&self) -> Rc<dyn Source> {
        Rc::new(Links {
            inner: Rc::clone(&self.inner),
            route: Arc::clone(&self.route),
            name: Arc::clone(&self.name),
            implicit: self.implicit.as_slice().into(),
            base: self.original.target.clone(),
            fields: self.original.fields.clone(),
        })
    }

    fn holding(&self, instruct: &Instruct) -> Result<Holding, ClientError> {
        read::holding(instruct, &self.implicit, self.grip()).map_err(|error| self.refused(error))
    }

    fn refused(&self, error: GripError) -> ClientError {
        self.inner.parts.metrics.grip_refused(error.kind());
        ClientError::Grip { upstream: Arc::clone(&self.route.upstream.name), error: Box::new(error) }
    }

    /// A session's place, in no channel yet. The channels are followed for as long as the second is held.
    async fn place(
        &self,
        holding: &Holding,
        kind: SessionKind,
    ) -> Result<(Subscription, crate::bus::Attached), ClientError> {
        let channels: Vec<ChannelName> = holding.channels().cloned().collect();
        let attached = self.inner.parts.bus.attach(&channels, None).await?;
        let mut subscription = self.inner.parts.shard.subscribe(&[], None, Start::Now)?;
        subscription.label(kind, &self.name);
        Ok((subscription, attached))
    }

    async fn stream(&self, read: Read, gone: Option<Gone>) -> Result<Answer, ClientError> {
        self.inner.takes_sessions()?;
        self.note_unknown_filters(&read.instruct);
        let holds = read.instruct.hold.is_some();
        let holding = if holds { self.holding(&read.instruct)? } else { read::words(&read.instruct, self.grip()) };
        let Read { head, instruct, body, is_empty } = read.begin_stream().await.map_err(|error| self.refused(error))?;
        let content_type = head.headers.get(CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
        let content_type = content_type.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
        let kind = match content_type.eq_ignore_ascii_case(sse::MEDIA_TYPE.as_bytes()) {
            true => StreamKind::Events,
            false => StreamKind::Bytes,
        };
        let (subscription, attached) = self.place(&holding, SessionKind::Push(Transport::Sse)).await?;
        let arrived = crate::proto::grip::pages::Arrived { holds, is_empty, next: instruct.next.clone() };
        let has_next = arrived.next.is_some();
        let stream = Stream::join(stream::Start {
            subscription,
            page: Page { arrived, holding, keep_alive: instruct.keep_alive, body: bytes::Bytes::new(), attached },
            body,
            kind,
            source: has_next.then(|| self.source()),
            gone: gone.unwrap_or(Gone { told: None }),
            metrics: Rc::clone(&self.inner.parts.metrics),
        });
        let stream = stream.map_err(|error| match error {
            stream::StartError::Hub(error) => ClientError::Hub(error),
            stream::StartError::Over(over) => self.refused(GripError::Over(over)),
        })?;
        let mut held = http::Response::from_parts(head, ());
        held.headers_mut().remove(CONTENT_LENGTH);
        Ok(Answer::Hold(Hold { head: held, session: Box::new(stream) }))
    }

    async fn hold(&self, read: Read, round: u32) -> Result<Step, ClientError> {
        self.note_unknown_filters(&read.instruct);
        let holding = self.holding(&read.instruct)?;
        let (timeout_ms, expose) = (read.instruct.timeout_ms, read.instruct.expose.clone());
        let held = read.hold_response(&holding).await.map_err(|error| self.refused(error))?;
        let phase = self.inner.parts.drain.phase();
        if !phase.takes_sessions() {
            return Ok(released(held).into());
        }
        let wait_ms = if phase == Phase::Serving { timeout_ms } else { timeout_ms.min(SETTLE_WAIT_MS_MAX) };
        let (subscription, _attached) = self.place(&holding, SessionKind::Push(Transport::LongPoll)).await?;
        let pause_ms = match round {
            0 => 0,
            round => AGAIN_PAUSE_MS.saturating_mul(1 << (round - 1).min(16)).min(AGAIN_PAUSE_MS_MAX),
        };
        let waiting = Waiting::join(response::Start {
            subscription,
            holding,
            held: Held::new(&held),
            expose,
            wait_ms,
            pause_ms,
            again: if round < ROUNDS_MAX { self.original.again } else { Again::Impossible },
            metrics: Rc::clone(&self.inner.parts.metrics),
        });
        Ok(Step::Wait(Box::new(waiting?)))
    }

    /// Makes the client's request again, with what its session has seen.
    async fn ask(&self, last: Vec<HeaderValue>) -> Result<Response, ClientError> {
        let upstream = self.inner.current(&self.route.upstream);
        let mut request = Request::new(Body::empty());
        *request.method_mut() = self.original.method.clone();
        *request.uri_mut() = self.original.target.clone().into();
        let mut fields = self.original.fields.fields();
        fields.extend(last.into_iter().map(|value| (LAST, value)));
        sign(&mut fields, &upstream);
        *request.headers_mut() = fields;
        let _permit = self.inner.fetches.permit(&upstream.name).await;
        let response = self.inner.parts.upstreams.send(&upstream, request).await.map_err(ClientError::Upstream)?;
        Ok(pass_back(response))
    }

    fn note_unknown_filters(&self, instruct: &Instruct) {
        for channel in instruct.channels.iter().filter(|channel| channel.unknown_filters > 0) {
            self.inner.parts.metrics.grip_refused(GripRefusal::Filter);
            let upstream = &*self.route.upstream.name;
            tracing::warn!(upstream, channel = %channel.name, "a filter of a hold is unknown; the hold goes on without it");
        }
    }
}

impl Inner {
    /// An upstream under the settings in force: a session may outlive many reloads, and follows its upstream by name.
    fn current(&self, upstream: &Arc<UpstreamSettings>) -> Arc<UpstreamSettings> {
        let settings = self.settings();
        let current = settings.upstreams.iter().find(|current| current.name == upstream.name);
        Arc::clone(current.unwrap_or(upstream))
    }
}

/// The client has its answer: that it is no longer held is no sign that it is gone.
fn is_answered(gone: &mut Option<Gone>) {
    if let Some(gone) = gone {
        gone.is_known();
    }
}

/// The response of a held one's end.
fn released(held: HeldResponse) -> Response {
    let HeldResponse { status, mut fields, body } = held;
    fields.remove(CONTENT_LENGTH);
    let body = match status {
        StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED => Body::empty(),
        _ => Body::full(body),
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = fields;
    response
}
