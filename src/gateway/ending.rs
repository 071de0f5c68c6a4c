//! What a backend holds open without an end of its own: tunnels and event streams. Each is a session to the drain, with
//! a moment at which it ends.

use crate::hub::shard::{Delivery, Shard, Start, Subscription};
use crate::model::session::SessionKind;
use crate::server::Response;
use crate::server::body::{Body, BodyError};
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::response;
use http_body::{Body as HttpBody, Frame};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

/// A session without channels: all it hears of is its end.
#[derive(Debug, Default)]
pub(in crate::gateway) struct Ending(Option<Subscription>);

impl Ending {
    /// One of a route.
    pub(in crate::gateway) fn new(shard: &Rc<Shard>, route: &str) -> Self {
        // Only channels can be too many.
        let mut subscription = shard.subscribe(&[], None, Start::Now).ok();
        if let Some(subscription) = &mut subscription {
            subscription.label(SessionKind::Proxied, route);
        }
        Self(subscription)
    }

    /// Ready when it is to end.
    pub(in crate::gateway) fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(subscription) = &mut self.0 else { return Poll::Pending };
        if subscription.is_cut() || matches!(subscription.next(), Some(Delivery::End(_))) {
            return Poll::Ready(());
        }
        subscription.poll_wait(cx)
    }
}

/// Whether a response goes on for as long as the client listens.
pub(in crate::gateway) fn is_endless(head: &response::Parts) -> bool {
    let media_type = head.headers.get(CONTENT_TYPE).map_or(&b""[..], |value| value.as_bytes());
    let media_type = media_type.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    media_type.eq_ignore_ascii_case(crate::proto::sse::MEDIA_TYPE.as_bytes())
        && !head.headers.contains_key(CONTENT_LENGTH)
}

/// The response, whose body ends cleanly at `ending`: an event stream's client drops an event that is not whole, and
/// comes back with its last id.
pub(in crate::gateway) fn until(response: Response, ending: Ending) -> Response {
    response.map(|body| Body::boxed(Until { body, ending }))
}

struct Until {
    body: Body,
    ending: Ending,
}

impl HttpBody for Until {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        if this.ending.poll_end(cx).is_ready() {
            return Poll::Ready(None);
        }
        Pin::new(&mut this.body).poll_frame(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(fields: &[(&str, &str)], endless: bool) {
        let mut response = http::Response::builder();
        for (name, value) in fields {
            response = response.header(*name, *value);
        }
        let (head, ()) = response.body(()).expect("a response").into_parts();
        assert_eq!(is_endless(&head), endless, "{fields:?}");
    }

    #[test]
    fn event_streams_without_a_length_are_endless() {
        check(&[("content-type", "text/event-stream")], true);
        check(&[("content-type", "Text/Event-Stream ; charset=utf-8")], true);
        check(&[("content-type", "text/event-stream"), ("content-length", "7")], false);
        check(&[("content-type", "text/html")], false);
        check(&[], false);
    }
}
