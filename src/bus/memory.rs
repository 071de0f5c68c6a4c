//! The embedded bus of a single instance: the hub's own logs are its storage.

mod ids;

use crate::bus::{Attached, Bus, BusError, ChannelInfo, IfMatch, Published, paced_by};
use crate::hub::channel::Channel;
use crate::hub::{Hub, Moved};
use crate::model::channel::ChannelName;
use crate::model::cursor::Cursor;
use crate::model::message::Message;
use futures_util::future::BoxFuture;
use ids::{RECENT_IDS_MAX, RecentIds};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

const PARTITIONS: usize = 64;

/// Publishes into the hub of this process. What it accepted lives as long as the process, within each channel's
/// history.
#[derive(Debug)]
pub struct MemoryBus {
    hub: Arc<Hub>,
    ids: Vec<Mutex<RecentIds>>,
    /// Which partition forgets next.
    turn: AtomicUsize,
}

impl MemoryBus {
    /// A bus that remembers ids for `window`.
    pub fn new(hub: Arc<Hub>, window: Duration) -> Self {
        let (window_us, count) = (window.as_micros() as u64, Arc::default());
        let partition = || Mutex::new(RecentIds::new(window_us, Arc::clone(&count), RECENT_IDS_MAX));
        Self { hub, ids: (0..PARTITIONS).map(|_| partition()).collect(), turn: AtomicUsize::new(0) }
    }

    fn publish_now(&self, message: Message, if_match: Option<IfMatch>) -> Result<Published, BusError> {
        let channel = self.hub.open(&message.channel)?;
        let Some(id) = message.id.clone() else { return self.append(&channel, message, if_match) };
        let partition = message.channel.hash32() as usize % PARTITIONS;
        // Held over the append: of two publishes of one id, one is the first.
        let mut ids = self.ids[partition].lock();
        let now_us = self.hub.clock().now_us();
        if let Some(position) = ids.find(&message.channel, &id, now_us) {
            return Ok(Published { position, duplicate: true, local_sessions: channel.sessions() });
        }
        let published = self.append(&channel, message, if_match)?;
        ids.insert(channel.name.clone(), id, published.position, now_us);
        drop(ids);
        // Partitions without publishes forget, too: each in turn, at each publish of any.
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % PARTITIONS;
        if let Some(mut ids) = self.ids[turn].try_lock() {
            ids.forget(now_us);
        }
        Ok(published)
    }

    fn append(&self, channel: &Channel, message: Message, if_match: Option<IfMatch>) -> Result<Published, BusError> {
        // Before the append: a long poll that it answers is no session any more by the time that it returns.
        let local_sessions = channel.sessions();
        let position = self
            .hub
            .append(channel, message, if_match)
            .map_err(|Moved(last)| BusError::Moved { position: (last.offset > 0).then_some(last) })?;
        Ok(Published { position, duplicate: false, local_sessions })
    }
}

impl Bus for MemoryBus {
    fn publish(&self, message: Message, if_match: Option<IfMatch>) -> BoxFuture<'_, Result<Published, BusError>> {
        Box::pin(std::future::ready(self.publish_now(message, if_match)))
    }

    fn attach<'a>(
        &'a self,
        channels: &'a [ChannelName],
        _cursor: Option<&'a Cursor>,
    ) -> BoxFuture<'a, Result<Attached, BusError>> {
        // The logs are here: a channel is current as soon as it is open.
        let opened: Result<Vec<_>, _> = channels.iter().map(|channel| self.hub.open(channel)).collect();
        Box::pin(std::future::ready(opened.map(Attached::new).map_err(BusError::from)))
    }

    fn paced<'a>(&'a self, channel: &'a ChannelName) -> BoxFuture<'a, ()> {
        paced_by(&self.hub, channel)
    }

    fn describe<'a>(&'a self, channel: &'a ChannelName) -> BoxFuture<'a, Result<ChannelInfo, BusError>> {
        let info = self.hub.find(channel.as_str()).map_or_else(ChannelInfo::default, |channel| {
            let (last, sessions) = (channel.last(), channel.sessions());
            ChannelInfo {
                position: (last.offset > 0).then_some(last),
                history_messages: channel.messages(),
                instances: if sessions > 0 { vec![("local".into(), sessions)] } else { Vec::new() },
                counted_within: Duration::ZERO,
            }
        });
        Box::pin(std::future::ready(Ok(info)))
    }

    fn health(&self) -> Result<(), BusError> {
        Ok(())
    }

    /// Ids that are remembered already, too.
    fn set_window(&self, window: Duration) {
        self.ids.iter().for_each(|ids| ids.lock().set_window(window.as_micros() as u64));
    }

    fn shutdown(&self, _: Duration) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::tests::conformance::{self, Factory};
    use crate::clock::Clock;
    use crate::hub::HubLimits;
    use crate::model::message::{Data, Label};

    fn bus() -> MemoryBus {
        MemoryBus::new(Hub::new(1, Clock::start(), HubLimits::default(), Arc::default()), Duration::from_secs(300))
    }

    fn message(id: Option<&str>) -> Message {
        Message {
            channel: ChannelName::new("c").expect("a name"),
            id: id.map(|id| Label::new(id).expect("an id")),
            event: None,
            data: Data::Text("x".into()),
            cloudevent: None,
            grip: None,
        }
    }

    /// One hub, whose workers stand for instances.
    struct OneHub {
        hub: Arc<Hub>,
        bus: Arc<MemoryBus>,
        workers: AtomicUsize,
    }

    impl Factory for OneHub {
        fn bus(&self, _: &Arc<Hub>) -> Arc<dyn Bus> {
            Arc::<MemoryBus>::clone(&self.bus)
        }

        fn hub(&self) -> (Arc<Hub>, usize) {
            (Arc::clone(&self.hub), self.workers.fetch_add(1, Ordering::Relaxed))
        }

        fn follows(&self) -> bool {
            false
        }
    }

    #[test]
    fn memory_keeps_what_every_bus_promises() {
        let hub = conformance::hub(64);
        let bus = Arc::new(MemoryBus::new(Arc::clone(&hub), Duration::from_secs(300)));
        conformance::run(conformance::all(&OneHub { hub, bus, workers: AtomicUsize::new(0) }));
    }

    #[test]
    fn an_id_is_published_once() {
        let bus = bus();
        let first = bus.publish_now(message(Some("1")), None).expect("published");
        let other = bus.publish_now(message(Some("2")), None).expect("published");
        let again = bus.publish_now(message(Some("1")), None).expect("answered");
        assert!(!first.duplicate && !other.duplicate && again.duplicate);
        assert_eq!(again.position, first.position);
        assert_eq!(other.position.offset, 2);
        assert_eq!(bus.publish_now(message(None), None).map(|p| p.position.offset), Ok(3));
    }

    #[test]
    fn if_match_publishes_only_where_the_channel_stands() {
        let bus = bus();
        let first = bus.publish_now(message(None), Some(IfMatch::Empty)).expect("nothing yet");
        assert_eq!(
            bus.publish_now(message(None), Some(IfMatch::Empty)),
            Err(BusError::Moved { position: Some(first.position) })
        );
        let second = bus.publish_now(message(None), Some(IfMatch::At(first.position))).expect("unmoved");
        assert_eq!(
            bus.publish_now(message(None), Some(IfMatch::At(first.position))),
            Err(BusError::Moved { position: Some(second.position) })
        );
    }
}
