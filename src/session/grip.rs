//! A client that its backend holds (GRIP): as a stream that goes on with what is published, or as a response that waits
//! for it.
//!
//! ```text
//! gateway ─▶ the backend's answer is a hold ─┬─ stream ───▶ its body ─▶ what is published ⇄ next pages (Source)
//!                                            └─ response ─▶ what is published, or the time is over
//! ```
//!
//! [`crate::proto::grip`] knows what is said and when; this folder keeps the hub, the link and the clock around it. It
//! does not know which upstream a [`Source`] is, nor how a request is signed.

pub mod response;
pub mod stream;

use crate::bus::Attached;
use crate::hub::HubError;
use crate::hub::ids::Standing;
use crate::hub::shard::Subscription;
use crate::proto::grip::filters::Subscriber as _;
use crate::proto::grip::holding::Holding;
use crate::proto::grip::keep_alive::KeepAlive;
use crate::proto::grip::link::LinkError;
use crate::proto::grip::pages::Arrived;
use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use http::HeaderValue;
use std::rc::Rc;

/// The backend of one held stream: where its next pages come from.
pub trait Source {
    /// Asks for a page. `last` is what the session has seen (`Grip-Last`), where it has to recover. Whoever implements it
    /// sets the time limit. Dropping the future cancels the request.
    fn page(&self, link: &str, last: Vec<HeaderValue>) -> LocalBoxFuture<'static, Result<Rc<Page>, SourceError>>;

    /// Tells the backend that the client is gone, as well as it goes.
    fn gone(&self, link: &str);
}

/// A page that came.
#[derive(Debug)]
pub struct Page {
    /// Whether it holds, and where it goes on.
    pub arrived: Arrived,
    /// Its channels and words; without a hold, what its content is made with.
    pub holding: Holding,
    /// What is sent in silence, if it says so.
    pub keep_alive: Option<KeepAlive>,
    /// Its content.
    pub body: Bytes,
    /// Its channels are followed.
    pub attached: Attached,
}

/// Why a page could not be had.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SourceError {
    /// A link that is not followed.
    #[error("its Grip-Link is refused: {0}")]
    Refused(LinkError),
    /// An answer that can't be used; the next would be no better.
    #[error("{0}")]
    Unusable(Rc<str>),
    /// No answer, or a failure that may pass.
    #[error("{0}")]
    Failed(Rc<str>),
}

/// Whether a session that has joined its channels knows all of what lies before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Joined {
    Whole,
    /// Something may be missing: its backend has to be asked.
    Behind,
}

/// Joins the channels of a hold and leaves all others. On a channel with a prev-id the session goes on right after it,
/// where the channel's log knows the place.
fn join(subscription: &mut Subscription, holding: &Holding) -> Result<Joined, HubError> {
    let hub = Rc::clone(subscription.shard());
    let hub = hub.hub();
    subscription.name(holding.meta("user"));
    let mut joined = Joined::Whole;
    for channel in holding.channels() {
        let position = match holding.seen(channel) {
            None => None,
            Some(seen) => {
                // What is published from here on is read, whatever is known of what was before.
                let now = hub.open(channel)?.last();
                Some(match hub.standing(channel, seen) {
                    Standing::After(position) => position,
                    Standing::Unknown => now,
                    Standing::Behind => {
                        joined = Joined::Behind;
                        now
                    }
                })
            }
        };
        subscription.go_on(channel, position)?;
    }
    for channel in subscription.channels() {
        if !holding.channels().any(|held| *held == channel) {
            subscription.remove(&channel);
        }
    }
    Ok(joined)
}

/// Tells the backend when it is dropped that the client is gone.
pub struct Gone {
    /// Who is told, and by which link.
    pub told: Option<(Rc<dyn Source>, Box<str>)>,
}

impl Gone {
    /// There is nothing to tell: the backend ended the hold itself, or the client has its answer.
    pub fn is_known(&mut self) {
        self.told = None;
    }
}

impl Drop for Gone {
    fn drop(&mut self) {
        // Outside of a runtime the process is ending, and nobody can be told.
        if let Some((source, link)) = self.told.take()
            && tokio::runtime::Handle::try_current().is_ok()
        {
            source.gone(&link);
        }
    }
}
