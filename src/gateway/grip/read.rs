//! Reads what a backend's answer asks for, within bounds.

use crate::gateway::settings::GripRoute;
use crate::model::channel::ChannelName;
use crate::proto::grip::holding::{HoldError, Holding};
use crate::proto::grip::instruct::{self, BODY_BYTES_MAX, Inner as HeldResponse, Instruct, InstructError};
use crate::proto::grip::pages::Over;
use crate::proto::grip::strip;
use crate::proto::grip::template::TemplateError;
use crate::server::Response;
use crate::server::body::{Body, ReadError, read_whole};
use crate::telemetry::metrics::GripRefusal;
use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, StatusCode, response};
use http_body::Body as _;
use std::time::Duration;

/// How long a body that is read whole may take.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// The start of a stream up to this size is read whole, so that one which breaks off is an error rather than half a
/// stream.
const OPENING_BYTES_MAX: u64 = 64 * 1024;

/// Why a backend's answer can't be followed.
#[derive(Debug, thiserror::Error)]
pub enum GripError {
    /// Its fields or its JSON.
    #[error(transparent)]
    Instruct(#[from] InstructError),
    /// Its channels.
    #[error(transparent)]
    Hold(#[from] HoldError),
    /// Its body is too large, or broke off.
    #[error("its body: {0}")]
    Body(#[from] ReadError),
    /// Its body does not come.
    #[error("its body did not come within {BODY_TIMEOUT:?}")]
    BodyStalled,
    /// Its body is compressed, though nobody asked for that.
    #[error("a held body is compressed (Content-Encoding), so that nothing can be added to it; turn that off")]
    Compressed,
    /// A stream with a status that has no body.
    #[error("a stream with status {0}, which has no body")]
    NoBody(StatusCode),
    /// Content filters.
    #[error("its body can't be made: {0}")]
    Template(#[from] TemplateError),
    /// A stream that ends before it began.
    #[error(transparent)]
    Over(#[from] Over),
}

impl GripError {
    /// The status of the client's answer.
    pub(in crate::gateway) fn status(&self) -> StatusCode {
        match self {
            Self::BodyStalled => StatusCode::GATEWAY_TIMEOUT,
            _ => StatusCode::BAD_GATEWAY,
        }
    }

    /// How it is counted.
    pub(super) fn kind(&self) -> GripRefusal {
        match self {
            Self::Instruct(_) | Self::Over(_) => GripRefusal::Instruct,
            Self::Hold(_) => GripRefusal::Channels,
            Self::Body(_) | Self::BodyStalled | Self::Compressed | Self::NoBody(_) | Self::Template(_) => {
                GripRefusal::Body
            }
        }
    }
}

/// An answer and what it asks for.
pub(super) struct Read {
    /// For the client, without `Grip-*` fields.
    pub(super) head: response::Parts,
    pub(super) instruct: Instruct,
    pub(super) body: Body,
    /// Whether the body is known to be empty.
    pub(super) is_empty: bool,
}

/// Reads the instruct of an answer that has one.
///
/// # Errors
/// When it can't be followed.
pub(super) async fn instruct(answer: Response) -> Result<Read, GripError> {
    let (mut head, body) = answer.into_parts();
    let (instruct, body) = if instruct::is_json(&head.headers) {
        let json = whole(body, BODY_BYTES_MAX).await?;
        let mut instruct = Instruct::from_json(head.status, &head.headers, &json)?;
        let inner = instruct.response.take().unwrap_or_default();
        (head.status, head.headers) = (inner.status, inner.fields);
        (instruct, Body::full(inner.body))
    } else {
        let instruct = Instruct::from_fields(&head.headers)?;
        strip(&mut head.headers);
        (instruct, body)
    };
    if let Some(status) = instruct.status {
        head.status = status;
    }
    let is_empty = body.is_end_stream();
    let is_held = instruct.hold.is_some() || instruct.next.is_some();
    if is_held && !is_empty && head.headers.contains_key(CONTENT_ENCODING) {
        return Err(GripError::Compressed);
    }
    Ok(Read { head, instruct, body, is_empty })
}

/// The answer to a HEAD whose GET would be answered by a JSON instruct. That stands in the body, which this answer does
/// not have, so that nothing is known of the response but what its fields say.
pub(super) fn without_instruct(mut answer: Response) -> Response {
    let fields = answer.headers_mut();
    strip(fields);
    fields.remove(CONTENT_TYPE);
    fields.remove(CONTENT_LENGTH);
    answer
}

impl Read {
    /// The response as it is, for a client that is not held.
    pub(super) fn into_response(mut self) -> Response {
        if matches!(self.head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
            self.head.headers.remove(CONTENT_LENGTH);
            self.body = Body::empty();
        }
        Response::from_parts(self.head, self.body)
    }

    /// The start of a stream. A small body is whole then.
    pub(super) async fn begin_stream(self) -> Result<Self, GripError> {
        if matches!(self.head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
            return Err(GripError::NoBody(self.head.status));
        }
        match self.body.size_hint().exact() {
            Some(len) if len <= OPENING_BYTES_MAX => {
                let body = whole(self.body, OPENING_BYTES_MAX as usize).await?;
                Ok(Self { is_empty: body.is_empty(), body: Body::full(body), ..self })
            }
            _ => Ok(self),
        }
    }

    /// The held response, whole.
    pub(super) async fn hold_response(self, holding: &Holding) -> Result<HeldResponse, GripError> {
        let body = whole(self.body, BODY_BYTES_MAX).await?;
        let made = holding.body(&body)?;
        let body = match made {
            std::borrow::Cow::Borrowed(_) => body,
            std::borrow::Cow::Owned(made) => made.into(),
        };
        let mut fields: HeaderMap = self.head.headers;
        fields.remove(CONTENT_LENGTH);
        Ok(HeldResponse { status: self.head.status, fields, body })
    }
}

/// A body, whole.
pub(super) async fn whole(body: Body, bytes_max: usize) -> Result<Bytes, GripError> {
    match tokio::time::timeout(BODY_TIMEOUT, read_whole(body, bytes_max)).await {
        Ok(read) => Ok(read?),
        Err(_) => Err(GripError::BodyStalled),
    }
}

/// The hold that an instruct asks for.
pub(super) fn holding(
    instruct: &Instruct,
    implicit: &[ChannelName],
    route: Option<&GripRoute>,
) -> Result<Holding, GripError> {
    let (prefix, max) = route.map_or(("", usize::MAX), |route| (&*route.channel_prefix, route.subscriptions_max));
    Ok(Holding::new(instruct, implicit, prefix, max)?)
}

/// What the content of a page is made with that does not hold.
pub(super) fn words(instruct: &Instruct, route: Option<&GripRoute>) -> Holding {
    holding(instruct, &[], route).unwrap_or_default()
}
