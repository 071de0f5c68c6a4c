//! The start of a held stream: the backend's body on its way to the client.

use crate::proto::chunk::Chunk;
use crate::proto::grip::holding::Holding;
use crate::proto::grip::template::whole_len;
use crate::server::Link;
use crate::server::body::{Body, BodyError};
use http_body::Body as _;
use std::pin::Pin;
use std::task::{Context, Poll};

/// A body that is passed on piece by piece.
pub(super) struct Opening {
    body: Body,
    /// What content filters can't make before more is there; `None` where nothing is made.
    open: Option<Vec<u8>>,
}

/// How far the opening is.
pub(super) enum Progress {
    /// The backend has sent no more yet.
    Pending,
    /// The link takes no more for now.
    Full,
    /// A piece was queued.
    Sent,
    /// All of it was queued.
    Done,
    /// It broke off, or can't be made.
    Broken(BodyError),
}

impl Opening {
    /// A body that is passed on as it is.
    pub(super) fn plain(body: Body) -> Self {
        Self { body, open: None }
    }

    /// A body that content filters make.
    pub(super) fn made(body: Body) -> Self {
        Self { body, open: Some(Vec::new()) }
    }

    /// Queues the next piece.
    pub(super) fn poll(&mut self, link: &mut Link, holding: &Holding, cx: &mut Context<'_>) -> Progress {
        if !link.has_room() {
            return Progress::Full;
        }
        let data = match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Pending => return Progress::Pending,
            Poll::Ready(None) => {
                let rest = self.open.take().unwrap_or_default();
                return match make(holding, &rest) {
                    Ok(made) => {
                        push(link, &made);
                        Progress::Done
                    }
                    Err(error) => Progress::Broken(error),
                };
            }
            Poll::Ready(Some(Err(error))) => return Progress::Broken(error),
            Poll::Ready(Some(Ok(frame))) => frame.into_data().unwrap_or_default(),
        };
        let Some(open) = &mut self.open else {
            push(link, &data);
            return Progress::Sent;
        };
        open.extend_from_slice(&data);
        let whole = whole_len(open);
        match make(holding, &open[..whole]) {
            Ok(made) => push(link, &made),
            Err(error) => return Progress::Broken(error),
        }
        open.drain(..whole);
        Progress::Sent
    }
}

fn make(holding: &Holding, content: &[u8]) -> Result<Vec<u8>, BodyError> {
    Ok(holding.body(content)?.into_owned())
}

fn push(link: &mut Link, content: &[u8]) {
    if !content.is_empty() {
        link.push(&Chunk::framed_from(content));
    }
}
