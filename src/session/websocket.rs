//! A WebSocket client's session on a push route.
//!
//! ```text
//!            Subscription ──▶ ┌─────────┐ ──▶ Link
//!   driver:  Link (bytes) ──▶ │ Machine │ ──▶ publishes ──▶ Bus ──▶ published
//!            time         ──▶ └─────────┘ ──▶ deadline, phase
//! ```
//!
//! [`machine`] decides what is said and done, without I/O or a clock; [`socket`] is its part that any WebSocket has
//! (pings, the closing handshake); `driver` is the one future that moves bytes and messages. An idle session owns no
//! buffer: reads go through one buffer of the worker's, and frames are shared through the log. This room does not know
//! routes, or who may come in.

pub mod accept;
mod commands;
mod driver;
pub mod machine;
pub mod seam;
pub mod socket;
pub mod subprotocol;
#[cfg(test)]
mod tests;

use crate::bus::Bus;
use crate::hub::policy::ChannelPolicies;
use crate::hub::shard::{Shard, Subscription};
use crate::model::channel::ChannelName;
use crate::model::session_token::SessionToken;
use crate::server::{Held, Link};
use crate::session::keep::Keeper;
use crate::session::settings::PushSettings;
use crate::telemetry::metrics::WorkerMetrics;
use driver::{Around, Driver};
use futures_util::future::LocalBoxFuture;
use machine::Machine;
use seam::{Feed, Live};
use std::rc::Rc;
use std::sync::Arc;
use subprotocol::Subprotocol;

pub use accept::{Opening, Refused};

/// What a session is made of.
pub struct Setup {
    /// Its channels, already joined.
    pub subscription: Subscription,
    /// The shard that the subscription is of.
    pub shard: Rc<Shard>,
    /// The route's settings.
    pub settings: Arc<PushSettings>,
    /// How large a client's message may be on each channel.
    pub policies: Arc<ChannelPolicies>,
    /// Where client's messages go.
    pub bus: Arc<dyn Bus>,
    /// The worker's.
    pub metrics: Rc<WorkerMetrics>,
    /// The route's own channels.
    pub own: Vec<ChannelName>,
    /// The session's token; without one it can't be resumed.
    pub token: Option<SessionToken>,
    /// Keeps the session for its token.
    pub keeper: Option<Keeper>,
}

/// A session that has not started yet.
pub struct PushSession {
    setup: Setup,
    subprotocol: Subprotocol,
}

impl PushSession {
    /// A session that speaks `subprotocol`.
    pub fn new(setup: Setup, subprotocol: Subprotocol) -> Self {
        Self { setup, subprotocol }
    }
}

impl Held for PushSession {
    fn run(self: Box<Self>, link: Link) -> LocalBoxFuture<'static, ()> {
        let Setup { subscription, shard, settings, policies, bus, metrics, own, token, keeper } = self.setup;
        let live = Live { shard, subscription };
        let session = token.as_ref().map_or("", SessionToken::as_str);
        let machine = Machine::new(self.subprotocol, settings, policies, session, live.now_ms());
        Box::pin(Driver::start(link, live, machine, Around { bus, keeper, metrics }, session, &own))
    }
}
