//! One body type for both directions and both HTTP versions.

use crate::server::{h1, h2};
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// Why a body broke off.
pub type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// A request's or response's body.
pub struct Body(Inner);

enum Inner {
    Empty,
    Full(Bytes),
    H1(h1::wire::Reader),
    H2(h2::stream::Reader),
    Boxed(Pin<Box<dyn HttpBody<Data = Bytes, Error = BodyError>>>),
}

impl Body {
    /// No body.
    pub fn empty() -> Self {
        Inner::Empty.into()
    }

    /// A whole body.
    pub fn full(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        if bytes.is_empty() { Inner::Empty } else { Inner::Full(bytes) }.into()
    }

    /// Any other body.
    pub fn boxed(body: impl HttpBody<Data = Bytes, Error = BodyError> + 'static) -> Self {
        Inner::Boxed(Box::pin(body)).into()
    }
}

impl From<Inner> for Body {
    fn from(inner: Inner) -> Self {
        Self(inner)
    }
}

impl From<h1::wire::Reader> for Body {
    fn from(body: h1::wire::Reader) -> Self {
        Inner::H1(body).into()
    }
}

impl From<h2::stream::Reader> for Body {
    fn from(body: h2::stream::Reader) -> Self {
        if body.is_at_end() { Inner::Empty } else { Inner::H2(body) }.into()
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut self.get_mut().0 {
            Inner::Empty => Poll::Ready(None),
            inner @ Inner::Full(_) => match std::mem::replace(inner, Inner::Empty) {
                Inner::Full(bytes) => Poll::Ready(Some(Ok(Frame::data(bytes)))),
                _ => Poll::Ready(None),
            },
            Inner::H1(body) => body.poll_frame(cx),
            Inner::H2(body) => Poll::Ready(match ready!(body.poll_data(cx)) {
                Some(data) => Some(data.map(Frame::data).map_err(Into::into)),
                None => body.take_trailers().map(|trailers| Ok(Frame::trailers(trailers))),
            }),
            Inner::Boxed(body) => body.as_mut().poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Inner::Empty => true,
            Inner::Full(_) => false,
            Inner::H1(body) => body.is_at_end(),
            Inner::H2(body) => body.is_at_end(),
            Inner::Boxed(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Inner::Empty => SizeHint::with_exact(0),
            Inner::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Inner::H1(body) => body.size_hint(),
            Inner::H2(_) => SizeHint::default(),
            Inner::Boxed(body) => body.size_hint(),
        }
    }
}

/// Why a body could not be read whole.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// More than the bound.
    #[error("the body is over {0} bytes")]
    TooLarge(usize),
    /// It broke off.
    #[error("the body broke off: {0}")]
    Broken(BodyError),
}

/// Reads a body whole, `bytes_max` at most. The caller sets the time limit.
///
/// # Errors
/// When it is larger, or breaks off.
pub async fn read_whole(body: Body, bytes_max: usize) -> Result<Bytes, ReadError> {
    let mut body = std::pin::pin!(body);
    let mut first: Option<Bytes> = None;
    let mut rest: Vec<u8> = Vec::new();
    while let Some(frame) = std::future::poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
        let Ok(data) = frame.map_err(ReadError::Broken)?.into_data() else { continue };
        let before = first.as_ref().map_or(0, Bytes::len) + rest.len();
        if before + data.len() > bytes_max {
            return Err(ReadError::TooLarge(bytes_max));
        }
        if first.is_none() {
            first = Some(data);
        } else {
            rest.extend_from_slice(&data);
        }
    }
    let first = first.unwrap_or_default();
    Ok(if rest.is_empty() { first } else { [first.as_ref(), &rest].concat().into() })
}
