//! The bus that is configured, and what stands beside it on the same servers. There is no second choice: what can't be
//! made ends the start.

use crate::app::StartError;
use crate::bus::Bus;
use crate::bus::health::Health;
use crate::bus::kafka::KafkaBus;
use crate::bus::kafka::store::KafkaStore;
use crate::bus::memory::MemoryBus;
use crate::bus::nats::NatsBus;
use crate::bus::nats::store::NatsStore;
use crate::bus::redis::RedisBus;
use crate::bus::redis::store::RedisStore;
use crate::bus::settings::{BusSettings, SessionSettings};
use crate::bus::store::SessionStore;
use crate::bus::store::memory::MemoryStore;
use crate::hub::Hub;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::readiness::Readiness;
use std::sync::Arc;
use std::time::Duration;

/// What instances share.
pub struct Engine {
    /// Messages, positions and ids.
    pub bus: Arc<dyn Bus>,
    /// Sessions that wait for their clients.
    pub sessions: Arc<dyn SessionStore>,
}

/// What the engine works with.
pub struct Around<'a> {
    /// What it feeds.
    pub hub: &'a Arc<Hub>,
    /// What it counts.
    pub metrics: &'a Metrics,
    /// Whom it tells that it is not there yet, or no more.
    pub readiness: &'a Readiness,
    /// How long ids are remembered.
    pub window: Duration,
    /// What sessions that are lost may expect.
    pub sessions: SessionSettings,
}

/// Makes the bus and its stores. A shared bus connects by itself: until it has, the instance is `starting`.
///
/// # Errors
/// When the system gives no thread.
pub fn make(settings: BusSettings, around: &Around<'_>) -> Result<Engine, StartError> {
    let &Around { hub, metrics, readiness, window, sessions } = around;
    let health = |kind| Health::new(kind, readiness.clone(), Arc::clone(metrics.bus()));
    match settings {
        BusSettings::Memory => Ok(Engine {
            bus: Arc::new(MemoryBus::new(Arc::clone(hub), window)),
            sessions: Arc::new(MemoryStore::new(hub.clock(), sessions.ttl)),
        }),
        BusSettings::Redis(settings) => {
            let bus =
                RedisBus::start(*settings, Arc::clone(hub), window, health("redis")).map_err(StartError::Thread)?;
            let sessions = Arc::new(RedisStore::new(Arc::clone(&bus), sessions.ttl));
            Ok(Engine { bus, sessions })
        }
        BusSettings::Nats(settings) => {
            let bus = NatsBus::start(*settings, Arc::clone(hub), window, health("nats")).map_err(StartError::Thread)?;
            let sessions = Arc::new(NatsStore::new(Arc::clone(&bus), sessions.ttl));
            Ok(Engine { bus, sessions })
        }
        BusSettings::Kafka(settings) => {
            let bus = KafkaBus::start(*settings, Arc::clone(hub), window, sessions.ttl, health("kafka"))
                .map_err(StartError::Thread)?;
            let sessions = Arc::new(KafkaStore::new(Arc::clone(&bus)));
            Ok(Engine { bus, sessions })
        }
    }
}
