//! Long polls: one, or many that follow each other on a connection.
//!
//! A client that polls sends the same head again and again but for its cursor. What the first one led to (route, channels,
//! fields of the answer) is kept while the settings are the same, so that a further one is a new subscription and a write.

use crate::drain::Phase;
use crate::gateway::push::RESUMED;
use crate::gateway::settings::{Action, GatewaySettings, PushRoute};
use crate::gateway::{Inner, Seen, Told};
use crate::hub::shard::Subscription;
use crate::model::channel::ChannelName;
use crate::model::cursor::Cursor;
use crate::model::session::{SessionKind, Transport};
use crate::proto::http1::push_fields;
use crate::proto::repeated_head::RepeatedHead;
use crate::route::Route;
use crate::server::turns::Next;
use crate::server::{Later, Peer, Response, Turns};
use crate::session::long_poll::{self, Answered};
use futures_util::future::LocalBoxFuture;
use http::header::CONNECTION;
use http::{HeaderMap, HeaderValue};
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;

const RESUMED_TRUE: &[u8] = b"pushbridge-resumed: true\r\n";
const RESUMED_FALSE: &[u8] = b"pushbridge-resumed: false\r\n";
const CLOSE: &[u8] = b"connection: close\r\n";

/// What a client polls, over and over.
pub(in crate::gateway) struct Polled {
    pub(in crate::gateway) inner: Rc<Inner>,
    /// The settings that the route is of.
    pub(in crate::gateway) settings: Arc<GatewaySettings>,
    pub(in crate::gateway) route: Arc<Route<Action>>,
    pub(in crate::gateway) channels: Vec<ChannelName>,
    pub(in crate::gateway) peer: Rc<Peer>,
    /// What the access log tells of each.
    pub(in crate::gateway) seen: Option<Seen>,
    /// The cursor's text as it stands in the first head.
    pub(in crate::gateway) cursor: Option<Box<[u8]>>,
    pub(in crate::gateway) wait_ms: u64,
    /// The fields that all answers have.
    pub(in crate::gateway) fields: HeaderMap,
}

/// A poll that waits.
pub(in crate::gateway) struct Polls {
    pub(in crate::gateway) polled: Polled,
    pub(in crate::gateway) subscription: Subscription,
    pub(in crate::gateway) told: Told,
}

impl Later for Polls {
    fn respond(self: Box<Self>) -> LocalBoxFuture<'static, Response> {
        let Self { polled, subscription, told } = *self;
        Box::pin(async move {
            let resumed = subscription.resumed();
            let answered = polled.wait(subscription).await;
            polled.tell(&answered, told);
            let mut response = answered.into_response();
            if let Some(resumed) = resumed {
                let resumed = HeaderValue::from_static(if resumed { "true" } else { "false" });
                response.headers_mut().insert(RESUMED, resumed);
            }
            if polled.is_last() {
                // HTTP/2, which has a GOAWAY for this, leaves the field out.
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            response.headers_mut().extend(polled.fields);
            response
        })
    }

    fn take_turns(self: Box<Self>, turns: Turns) -> LocalBoxFuture<'static, Option<Turns>> {
        let Self { polled, subscription, told } = *self;
        Box::pin(take_turns(polled, subscription, told, turns))
    }
}

async fn take_turns(
    mut polled: Polled,
    mut subscription: Subscription,
    mut told: Told,
    mut turns: Turns,
) -> Option<Turns> {
    // What is kept for hours has the form in which it is needed, and no other.
    let head = turns.take_head().zip(polled.cursor.take());
    let head = head.and_then(|(head, cursor)| RepeatedHead::new(&head, &cursor));
    let mut fields = Vec::new();
    push_fields(&mut fields, &std::mem::take(&mut polled.fields));
    fields.shrink_to_fit();
    loop {
        let counted = turns.request();
        let resumed = match subscription.resumed() {
            None => &b""[..],
            Some(true) => RESUMED_TRUE,
            Some(false) => RESUMED_FALSE,
        };
        let answered = turns.link().unless_gone(polled.wait(subscription)).await?;
        let last = turns.is_last() || polled.is_last();
        let answer = answered.encode(&[&fields, resumed, if last { CLOSE } else { b"" }]);
        turns.link().push_raw(answer);
        let flushed = turns.flush().await;
        polled.tell(&answered, told);
        drop(counted);
        match flushed {
            false => return None,
            true if last => {
                turns.close().await;
                return None;
            }
            true => {}
        }
        let cursor = match turns.next(head.as_ref()).await {
            Next::Ended => return None,
            Next::Other => return Some(turns),
            Next::Alike(cursor) => cursor,
        };
        told = polled.inner.begin();
        let Some(next) = polled.subscribe(&cursor).await else {
            // Whoever answers it finds the same, and says so.
            if let Some(head) = &head {
                turns.link().put_back(&head.with(&cursor));
            }
            return Some(turns);
        };
        subscription = next;
    }
}

impl Polled {
    fn wait(&self, subscription: Subscription) -> impl Future<Output = Answered> + use<> {
        long_poll::wait(subscription, self.wait_ms, Rc::clone(&self.inner.parts.metrics))
    }

    /// Whether the client is to go elsewhere with its next poll. The drain says so before it ends any poll; the server may
    /// hear of it a moment later.
    fn is_last(&self) -> bool {
        self.inner.parts.drain.phase() != Phase::Serving
    }

    fn tell(&self, answered: &Answered, told: Told) {
        self.inner.tell(self.seen.as_ref(), &self.peer, Some(&self.route), answered.status(), told);
    }

    fn push(&self) -> Option<&PushRoute> {
        match &self.route.action {
            Action::Push(push) => Some(push),
            Action::WebSocket(_) | Action::Proxy(_) => None,
        }
    }

    /// The subscription of a further poll; `None` if that takes more than a look at its cursor.
    async fn subscribe(&self, cursor: &[u8]) -> Option<Subscription> {
        let inner = &self.inner;
        if !Arc::ptr_eq(&self.settings, &inner.settings()) || self.is_last() {
            return None;
        }
        let cursor = Cursor::decode(cursor).ok()?;
        let push = self.push()?;
        let mut subscription = inner.subscribe(&self.channels, Some(&cursor), &push.session).await.ok()?;
        subscription.label(SessionKind::Push(Transport::LongPoll), &self.route.name);
        Some(subscription)
    }
}
