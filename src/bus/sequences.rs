//! GRIP items on their way to the bus: repeated ids are dropped, and messages that come too early wait for the ones
//! before them ([`crate::proto::grip::sequence`]).
//!
//! The order is of this instance's publishers: of two instances each puts in order what is published to it.

use crate::bus::{Bus, BusError, Published};
use crate::hub::Hub;
use crate::model::channel::ChannelName;
use crate::model::message::Message;
use crate::proto::grip::sequence::{Fate, Sequencer, Subscribed};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How long an id is remembered unless an upstream says otherwise.
pub const ID_CACHE_DEFAULT: Duration = Duration::from_secs(60);
/// Channels whose order is known; beyond them those without recent messages are forgotten.
const CHANNELS_MAX: usize = 100_000;

/// The order of every channel that GRIP items with ids are published to; shared by all workers.
#[derive(Debug)]
pub struct Sequences {
    hub: Arc<Hub>,
    audience: Audience,
    id_cache_ms: AtomicU64,
    channels: Mutex<HashMap<ChannelName, Arc<Order>>>,
    /// How many channels there may be before some are forgotten.
    sweep_at: AtomicU64,
}

type Order = tokio::sync::Mutex<Sequencer>;

/// Where the sessions may be that an item is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// At this instance alone: its hub knows whether there is one.
    Here,
    /// At others too, so that somebody may always wait for what is missing.
    Everywhere,
}

/// What became of an item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Taken {
    /// It was published.
    Published(Published),
    /// It waits for its predecessor.
    Parked,
    /// Its id was there a short while ago.
    Repeated,
}

impl Sequences {
    /// No channel yet.
    pub fn new(hub: Arc<Hub>, audience: Audience) -> Arc<Self> {
        Arc::new(Self {
            hub,
            audience,
            id_cache_ms: AtomicU64::new(ID_CACHE_DEFAULT.as_millis() as u64),
            channels: Mutex::default(),
            sweep_at: AtomicU64::new(1024),
        })
    }

    /// Says how long ids are remembered.
    pub fn set_id_cache(&self, time: Duration) {
        self.id_cache_ms.store(time.as_millis() as u64, Ordering::Relaxed);
    }

    /// Publishes a GRIP item, in its place. Once begun, it is done also when the caller goes.
    ///
    /// # Errors
    /// When the bus does not take it; its id is then as if it had never come.
    pub async fn publish(self: &Arc<Self>, bus: &Arc<dyn Bus>, message: Message) -> Result<Taken, BusError> {
        if message.grip.as_ref().is_none_or(|grip| grip.id.is_none()) {
            return bus.publish(message, None).await.map(Taken::Published);
        }
        let (sequences, bus) = (Arc::clone(self), Arc::clone(bus));
        let task = tokio::task::spawn_local(async move { sequences.publish_in_order(&bus, message).await });
        task.await.unwrap_or_else(|error| Err(BusError::Down(format!("the publish was cut off: {error}"))))
    }

    /// Forgets the last ids, and makes every reliable session ask its backend again.
    pub async fn recover(&self) {
        let channels: Vec<_> = self.channels.lock().values().cloned().collect();
        for channel in channels {
            channel.lock().await.reset();
        }
        self.hub.forget_ids();
    }

    async fn publish_in_order(self: &Arc<Self>, bus: &Arc<dyn Bus>, message: Message) -> Result<Taken, BusError> {
        let order = self.order(&message.channel);
        let mut sequencer = order.lock().await;
        let now_ms = self.now_ms();
        let sessions_here = || self.hub.find(message.channel.as_str()).map_or(0, |channel| channel.sessions());
        let subscribed = match self.audience == Audience::Here && sessions_here() == 0 {
            true => Subscribed::Nobody,
            false => Subscribed::Somebody,
        };
        match sequencer.offer(message, subscribed, self.id_cache_ms.load(Ordering::Relaxed), now_ms) {
            Fate::Repeated => Ok(Taken::Repeated),
            Fate::Parked(passed) => {
                let _ = pass(bus, &mut sequencer, passed).await;
                self.release_later(bus, &order, &sequencer);
                Ok(Taken::Parked)
            }
            Fate::Passed(passed) => pass(bus, &mut sequencer, passed).await.map(Taken::Published),
        }
    }

    fn release_later(self: &Arc<Self>, bus: &Arc<dyn Bus>, order: &Arc<Order>, sequencer: &Sequencer) {
        let (sequences, bus, order) = (Arc::clone(self), Arc::clone(bus), Arc::clone(order));
        // The newest waits longest; each that is parked has a task, so that none is overlooked.
        let Some(until_ms) = sequencer.last_deadline_ms() else { return };
        tokio::task::spawn_local(async move {
            tokio::time::sleep(Duration::from_millis(until_ms.saturating_sub(sequences.now_ms()))).await;
            let mut sequencer = order.lock().await;
            let late = sequencer.release(sequences.now_ms().max(until_ms));
            let _ = pass(&bus, &mut sequencer, late).await;
        });
    }

    fn order(&self, channel: &ChannelName) -> Arc<Order> {
        let mut channels = self.channels.lock();
        if let Some(order) = channels.get(channel) {
            return Arc::clone(order);
        }
        if channels.len() as u64 >= self.sweep_at.load(Ordering::Relaxed) {
            let (id_cache_ms, now_ms) = (self.id_cache_ms.load(Ordering::Relaxed), self.now_ms());
            channels.retain(|_, order| {
                Arc::strong_count(order) > 1
                    || order.try_lock().is_ok_and(|mut order| !order.is_idle(id_cache_ms, now_ms))
            });
            if channels.len() >= CHANNELS_MAX {
                // Their last ids are still in their logs; what is lost is that a repeated id is known.
                channels.retain(|_, order| Arc::strong_count(order) > 1);
            }
            self.sweep_at.store((2 * channels.len() as u64).max(1024), Ordering::Relaxed);
        }
        Arc::clone(channels.entry(channel.clone()).or_default())
    }

    fn now_ms(&self) -> u64 {
        self.hub.clock().now_us() / 1000
    }
}

/// Publishes in order, and gives what became of the first. What fails can come again.
async fn pass(bus: &Arc<dyn Bus>, sequencer: &mut Sequencer, passed: Vec<Message>) -> Result<Published, BusError> {
    let mut first = None;
    for message in passed {
        let id = message.grip.as_ref().and_then(|grip| grip.id.clone());
        let published = bus.publish(message, None).await;
        if let (Err(error), Some(id)) = (&published, &id) {
            sequencer.withdraw(id);
            tracing::debug!(%error, "an item was not published");
        }
        first.get_or_insert(published);
    }
    first.unwrap_or_else(|| Err(BusError::Down("nothing was published".to_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::memory::MemoryBus;
    use crate::clock::Clock;
    use crate::hub::HubLimits;
    use crate::hub::shard::{Delivery, NoCarrier, Shard, Start, Subscription};
    use crate::proto::grip::items;

    struct Stage {
        sequences: Arc<Sequences>,
        bus: Arc<dyn Bus>,
        subscription: Subscription,
    }

    impl Stage {
        fn new() -> Self {
            let hub = Hub::new(1, Clock::start(), HubLimits::default(), Arc::default());
            let bus = Arc::new(MemoryBus::new(Arc::clone(&hub), Duration::from_secs(300)));
            let channel = ChannelName::new("a").expect("a name");
            let subscription = Shard::new(&hub, 0).subscribe(&[channel], None, Start::Now).expect("a place");
            Self { sequences: Sequences::new(hub, Audience::Here), bus, subscription }
        }

        async fn publish(&self, id: &str, prev_id: &str) -> Taken {
            let json = serde_json::json!({"items": [
                {"channel": "a", "id": id, "prev-id": prev_id, "http-stream": {"content": id}}]});
            let message = items::decode(json.to_string().as_bytes()).expect("an item").pop().expect("one");
            self.sequences.publish(&self.bus, message).await.expect("taken")
        }

        /// The ids that came since the last look.
        fn ids(&mut self) -> Vec<String> {
            let noop = std::task::Waker::noop();
            let _ =
                self.subscription.shard().poll_pump(&mut std::task::Context::from_waker(noop), |_| (), &mut NoCarrier);
            let mut ids = Vec::new();
            while let Some(Delivery::Message(entry)) = self.subscription.next() {
                let id = entry.message.grip.as_ref().and_then(|grip| grip.id.as_ref());
                ids.extend(id.map(|id| id.as_str().to_owned()));
            }
            ids
        }
    }

    fn run(test: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        tokio::task::LocalSet::new().block_on(&runtime.expect("a runtime"), test);
    }

    #[test]
    fn items_reach_the_hub_in_their_order() {
        run(async {
            let mut stage = Stage::new();
            assert!(matches!(stage.publish("1", "").await, Taken::Published(_)));
            assert_eq!(stage.publish("3", "2").await, Taken::Parked);
            assert_eq!(stage.ids(), ["1"]);
            assert!(matches!(stage.publish("2", "1").await, Taken::Published(_)));
            assert_eq!(stage.publish("3", "2").await, Taken::Repeated);
            assert_eq!(stage.ids(), ["2", "3"]);
        });
    }

    #[test]
    fn after_a_recovery_any_id_is_in_order() {
        run(async {
            let mut stage = Stage::new();
            stage.publish("1", "").await;
            stage.sequences.recover().await;
            assert!(matches!(stage.publish("9", "8").await, Taken::Published(_)));
            assert_eq!(stage.ids(), ["1", "9"]);
            assert_eq!(stage.subscription.shard().recoveries(), 1);
        });
    }
}
