//! Redis as the bus: a stream for each channel's history, pub/sub for what is live.
//!
//! ```text
//! publish ──▶ script: id? condition? position, XADD, trim, PUBLISH ──▶ every instance that follows the channel
//! attach  ──▶ subscribe ─▶ read the history ─▶ merge what came meanwhile
//! ```
//!
//! Workers send their commands themselves, over one connection that all share; a thread of its own connects, follows
//! channels and keeps time. It does not know sessions: it feeds the hub.

mod connect;
mod follow;
mod keys;
mod lease;
mod run;
mod script;
pub mod store;
#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "these rules keep the workers fast; a test is no worker")]
mod tests;

use crate::bus::health::Health;
use crate::bus::settings::RedisSettings;
use crate::bus::thread::BusThread;
use crate::bus::{Attached, Bus, BusError, ChannelInfo, IfMatch, Published, envelope, paced_by};
use crate::hub::Hub;
use crate::model::channel::ChannelName;
use crate::model::cursor::Cursor;
use crate::model::message::Message;
use arc_swap::ArcSwapOption;
use connect::Link;
use follow::{Follows, Wanted};
use futures_util::future::BoxFuture;
use keys::Keys;
use script::{Outcome, Publish, Scripts};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::Notify;

/// How long a channel may take to become current.
const ATTACH_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an attempt is remembered that the library may send again.
const ATTEMPT_MS: u64 = 30_000;

/// A bus on Redis. Dropping it stops its thread.
pub struct RedisBus {
    shared: Arc<Shared>,
    window_ms: AtomicU64,
    thread: BusThread,
}

/// What the bus and its thread share.
struct Shared {
    settings: RedisSettings,
    keys: Keys,
    scripts: Scripts,
    follows: Follows,
    health: Health,
    /// There while connected.
    link: ArcSwapOption<Link>,
    /// Somebody's command failed: the connection should be looked at.
    trouble: Notify,
    instance: String,
}

impl RedisBus {
    /// Starts the thread of the bus, which connects; ids are remembered for `window`.
    ///
    /// # Errors
    /// When the system gives no thread or no runtime.
    pub fn start(settings: RedisSettings, hub: Arc<Hub>, window: Duration, health: Health) -> io::Result<Arc<Self>> {
        let shared = Arc::new(Shared {
            keys: Keys::new(&settings.prefix),
            scripts: Scripts::new(),
            follows: Follows::new(hub, Arc::clone(health.metrics())),
            health,
            link: ArcSwapOption::empty(),
            trouble: Notify::new(),
            instance: format!("{:012x}", script::fresh()),
            settings,
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let of_thread = Arc::clone(&shared);
        let thread = BusThread::start("bus", runtime, |stopped| run::run(of_thread, stopped))?;
        Ok(Arc::new(Self { shared, window_ms: AtomicU64::new(window.as_millis() as u64), thread }))
    }

    fn link(&self) -> Result<Arc<Link>, BusError> {
        self.shared.link.load_full().ok_or_else(|| BusError::Down("Redis is not connected".to_owned()))
    }

    fn failed(&self, error: &redis::RedisError) -> BusError {
        self.shared.health.metrics().error();
        self.shared.trouble.notify_one();
        down(error)
    }

    async fn publish_message(&self, message: Message, if_match: Option<IfMatch>) -> Result<Published, BusError> {
        let link = self.link()?;
        let keys = self.shared.keys.of(&message.channel);
        let hub = self.shared.follows.hub();
        let policy = hub.policy(&message.channel);
        let window_ms = self.window_ms.load(Ordering::Relaxed);
        let id = match &message.id {
            Some(id) => Some((keys.id(id.as_str()), window_ms)),
            None if link.may_repeat() => {
                Some((keys.attempt(&format!("{:x}{:x}", script::fresh(), script::fresh())), ATTEMPT_MS))
            }
            None => None,
        };
        let has_id = message.id.is_some();
        let envelope = envelope::encode(&message);
        let publish = Publish { envelope: &envelope, id, if_match, policy: &policy };
        let outcome = self.shared.scripts.publish(&link, &keys, publish).await;
        let local_sessions = || hub.find(message.channel.as_str()).map_or(0, |channel| channel.sessions());
        let (position, duplicate) = match outcome.map_err(|error| self.failed(&error))? {
            Outcome::Published(position) => (position, false),
            Outcome::Duplicate(position) => (position, has_id),
            Outcome::Moved(position) => {
                return Err(BusError::Moved { position: (position.offset > 0).then_some(position) });
            }
        };
        if !duplicate {
            self.shared.health.metrics().published();
        }
        Ok(Published { position, duplicate, local_sessions: local_sessions() })
    }

    async fn attach_all(&self, channels: &[ChannelName], cursor: Option<&Cursor>) -> Result<Attached, BusError> {
        self.link()?;
        let (mut opened, mut soon) = (Vec::with_capacity(channels.len()), Vec::new());
        for name in channels {
            let channel = self.shared.follows.hub().open(name)?;
            match self.shared.follows.want(&channel, cursor.and_then(|cursor| cursor.position(name))) {
                Wanted::Current => {}
                Wanted::Soon(told) => soon.push(told),
                Wanted::Crowded => return Err(BusError::Down("too many wait for Redis".to_owned())),
            }
            opened.push(channel);
        }
        let all = futures_util::future::try_join_all(soon);
        match tokio::time::timeout(ATTACH_TIMEOUT, all).await {
            Ok(Ok(_)) => Ok(Attached::new(opened)),
            Ok(Err(_)) => Err(BusError::Down("Redis was lost".to_owned())),
            Err(_) => {
                self.shared.trouble.notify_one();
                Err(BusError::Down("Redis takes too long".to_owned()))
            }
        }
    }

    async fn describe_channel(&self, channel: &ChannelName) -> Result<ChannelInfo, BusError> {
        let link = self.link()?;
        let keys = self.shared.keys.of(channel);
        let mut info = self.shared.scripts.describe(&link, &keys).await.map_err(|error| self.failed(&error))?;
        // What this instance has now is better known here.
        info.instances.retain(|(instance, _)| **instance != *self.shared.instance);
        let living = lease::living(&link, &self.shared.keys, info.instances).await;
        info.instances = living.map_err(|error| self.failed(&error))?;
        let own = self.shared.follows.hub().find(channel.as_str()).map_or(0, |channel| channel.sessions());
        if own > 0 {
            info.instances.push((self.shared.instance.as_str().into(), own));
        }
        Ok(info)
    }
}

impl Bus for RedisBus {
    fn publish(&self, message: Message, if_match: Option<IfMatch>) -> BoxFuture<'_, Result<Published, BusError>> {
        Box::pin(self.publish_message(message, if_match))
    }

    fn attach<'a>(
        &'a self,
        channels: &'a [ChannelName],
        cursor: Option<&'a Cursor>,
    ) -> BoxFuture<'a, Result<Attached, BusError>> {
        Box::pin(self.attach_all(channels, cursor))
    }

    fn paced<'a>(&'a self, channel: &'a ChannelName) -> BoxFuture<'a, ()> {
        paced_by(self.shared.follows.hub(), channel)
    }

    fn describe<'a>(&'a self, channel: &'a ChannelName) -> BoxFuture<'a, Result<ChannelInfo, BusError>> {
        Box::pin(self.describe_channel(channel))
    }

    fn health(&self) -> Result<(), BusError> {
        self.link().map(drop)
    }

    fn set_window(&self, window: Duration) {
        self.window_ms.store(window.as_millis() as u64, Ordering::Relaxed);
    }

    fn shutdown(&self, patience: Duration) {
        self.thread.stop(patience);
    }
}

/// What a publisher is told.
fn down(error: &redis::RedisError) -> BusError {
    if error.is_timeout() {
        return BusError::Down("Redis did not answer in time, so it may still be published".to_owned());
    }
    BusError::Down(format!("Redis: {error}"))
}
