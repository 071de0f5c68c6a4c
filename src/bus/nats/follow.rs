//! What this instance knows of one channel of the stream, and what it tells the hub; without I/O.
//!
//! Two things come in: live messages, each with the number of the channel's message before it, so that a hole shows at
//! once; and views, which say what the stream held when it was asked. Live messages may be lost, doubled or late; a view
//! puts everything right, or says that something is gone for good. Views come far more often than messages age away: what
//! a live message does not name as the one before it was seen, or had no time to be missed.
//!
//! ```text
//!   stream     3 · · 7 · 9 · · · 13 · ·        · = other channels
//!   live                     13 (before: 9)
//!   here       last = 9 ─▶ append;  last = 7 ─▶ a hole: ask for a view
//! ```

use crate::hub::Hub;
use crate::hub::channel::Channel;
use crate::model::message::Message;
use crate::model::position::Position;
use crate::model::session::GapReason;

/// One channel of the stream, as far as it is known here.
#[derive(Debug, Default)]
pub struct Follow {
    /// The life of the stream, and the number up to which all of the channel's messages have been passed to the hub;
    /// `None` before the first view.
    place: Option<Position>,
}

/// What became of a live message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Live {
    /// It is in the hub.
    Appended,
    /// It had come before, or is of another life of the stream.
    Known,
    /// Others have to come before it: ask for a view.
    Hole,
}

/// What the stream held of a channel.
#[derive(Debug)]
pub struct View {
    /// Which life of the stream.
    pub epoch: u64,
    /// The stream's last number before the channel was looked at: what is not here up to it does not exist.
    pub end: u64,
    /// The stream's first number after the channel was looked at: what stood before it may have aged away.
    pub first: u64,
    /// The most messages that the stream keeps of a channel; `None` where it keeps them all.
    pub per_channel_max: Option<u64>,
    /// How many messages were passed over as more, or older, than the channel keeps here, and the newest such.
    pub too_old: (u64, u64),
    /// The others after [`Follow::resume_after`], oldest first.
    pub messages: Vec<(u64, Message)>,
}

impl Follow {
    /// After which number a view has to begin, where the stream is in this life and at this end.
    pub fn resume_after(&self, epoch: u64, end: u64) -> u64 {
        match self.place {
            Some(place) if place.epoch == epoch && place.offset <= end => place.offset,
            _ => 0,
        }
    }

    /// Takes a live message: its number and that of the channel's message before it (0 if there was none).
    pub fn live(&mut self, hub: &Hub, channel: &Channel, number: u64, before: u64, message: Message) -> Live {
        let Some(place) = &mut self.place else { return Live::Hole };
        if number <= place.offset {
            return Live::Known;
        }
        if before > place.offset {
            return Live::Hole;
        }
        place.offset = number;
        hub.append_at(channel, message, *place);
        Live::Appended
    }

    /// Whether no view has come yet.
    pub fn is_new(&self) -> bool {
        self.place.is_none()
    }

    /// Takes a view that begins after [`Follow::resume_after`]; whether something is gone for good.
    pub fn view(&mut self, hub: &Hub, channel: &Channel, view: View) -> bool {
        let gone = Position { epoch: view.epoch, offset: view.gone() };
        let lost = match self.place {
            None => channel.last().offset > 0,
            Some(place) if place.epoch == view.epoch && place.offset <= view.end => gone.offset > place.offset,
            // Another life of the stream, or its end was lost.
            Some(_) => true,
        };
        if lost {
            hub.skip_to(channel, gone, GapReason::Bus);
        } else if self.place.is_none() {
            hub.start_at(channel, gone);
        }
        let mut end = view.end;
        for (number, message) in view.messages {
            let position = Position { epoch: view.epoch, offset: number };
            hub.append_at(channel, message, position);
            end = end.max(number);
        }
        let place = Position { epoch: view.epoch, offset: end };
        hub.advance_to(channel, place);
        self.place = Some(place);
        lost
    }
}

impl View {
    /// The number up to which messages may be gone for good.
    fn gone(&self) -> u64 {
        let (too_old, newest_too_old) = self.too_old;
        let count = too_old + self.messages.len() as u64;
        let before_first = self.messages.first().map_or(self.end, |(number, _)| number - 1);
        // Where the stream keeps no more of the channel than came, older ones may have had to go.
        let full = self.per_channel_max.is_some_and(|max| count >= max);
        let aged = if full { before_first } else { before_first.min(self.first.saturating_sub(1)) };
        aged.max(newest_too_old)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::HubLimits;
    use crate::hub::clock::Clock;
    use crate::hub::shard::{Delivery, NoCarrier, Shard, Start, Subscription};
    use crate::model::channel::ChannelName;
    use crate::model::cursor::Cursor;
    use crate::model::message::Data;
    use std::rc::Rc;
    use std::sync::Arc;
    use std::task::{Context, Waker};

    struct World {
        hub: Arc<Hub>,
        shard: Rc<Shard>,
        channel: Arc<Channel>,
        follow: Follow,
    }

    impl World {
        fn new() -> Self {
            let hub = Hub::new(1, Clock::start(), HubLimits::default(), Arc::default());
            let channel = hub.open(&name()).expect("room");
            Self { shard: Shard::new(&hub, 0), channel, hub, follow: Follow::default() }
        }

        fn view(&mut self, epoch: u64, first: u64, end: u64, numbers: &[u64]) {
            let messages = numbers.iter().map(|number| (*number, message(*number))).collect();
            let view = View { epoch, end, first, per_channel_max: Some(3), too_old: (0, 0), messages };
            self.follow.view(&self.hub, &self.channel, view);
        }

        fn live(&mut self, number: u64, before: u64) -> Live {
            self.follow.live(&self.hub, &self.channel, number, before, message(number))
        }

        fn join(&self, cursor: Option<Position>) -> Subscription {
            let cursor = cursor.map(|position| Cursor::one(&name(), position));
            self.shard.subscribe(&[name()], cursor.as_ref(), Start::Now).expect("room")
        }

        fn read(&self, session: &mut Subscription) -> Vec<String> {
            assert!(self.shard.poll_pump(&mut Context::from_waker(Waker::noop()), |_| (), &mut NoCarrier).is_pending());
            std::iter::from_fn(|| session.next())
                .map(|delivery| match delivery {
                    Delivery::Message(entry) => entry.position.offset.to_string(),
                    Delivery::Gap(gap) => format!("gap:{}", gap.reason.as_str()),
                    other => format!("{other:?}"),
                })
                .collect()
        }
    }

    fn name() -> ChannelName {
        ChannelName::new("c").expect("a name")
    }

    fn message(number: u64) -> Message {
        Message {
            channel: name(),
            id: None,
            event: None,
            data: Data::Text(number.to_string().into()),
            cloudevent: None,
            grip: None,
        }
    }

    fn at(epoch: u64, offset: u64) -> Option<Position> {
        Some(Position { epoch, offset })
    }

    #[test]
    fn live_messages_follow_each_other_or_show_a_hole() {
        let mut world = World::new();
        assert_eq!(world.live(5, 0), Live::Hole);
        world.view(1, 1, 7, &[5]);
        let mut session = world.join(None);
        assert_eq!(world.live(9, 5), Live::Appended);
        assert_eq!(world.live(9, 5), Live::Known);
        assert_eq!(world.live(12, 11), Live::Hole);
        assert_eq!(world.follow.resume_after(1, 12), 9);
        world.view(1, 1, 12, &[11, 12]);
        assert_eq!(world.live(12, 11), Live::Known);
        assert_eq!(world.read(&mut session), ["9", "11", "12"]);
    }

    #[test]
    fn cursors_of_other_instances_are_known() {
        let mut world = World::new();
        world.view(1, 1, 20, &[5, 8]);
        for (cursor, expected) in [(20, vec![]), (9, vec![]), (6, vec!["8"]), (4, vec!["5", "8"]), (0, vec!["5", "8"])]
        {
            assert_eq!(world.read(&mut world.join(at(1, cursor))), expected, "{cursor}");
        }
        assert_eq!(world.read(&mut world.join(at(1, 21))), ["gap:epoch", "5", "8"]);
        assert_eq!(world.read(&mut world.join(at(2, 8))), ["gap:epoch", "5", "8"]);
    }

    #[test]
    fn what_may_have_been_dropped_is_a_gap() {
        // As many as the stream keeps.
        let mut world = World::new();
        world.view(1, 1, 20, &[5, 8, 9]);
        assert_eq!(world.read(&mut world.join(at(1, 3))), ["gap:evicted", "5", "8", "9"]);
        assert_eq!(world.read(&mut world.join(at(1, 4))), ["5", "8", "9"]);
        // What is older than the whole stream.
        let mut world = World::new();
        world.view(1, 7, 20, &[8]);
        assert_eq!(world.read(&mut world.join(at(1, 5))), ["gap:evicted", "8"]);
        assert_eq!(world.read(&mut world.join(at(1, 6))), ["8"]);
    }

    #[test]
    fn a_hole_that_the_stream_can_not_fill_is_announced() {
        let mut world = World::new();
        world.view(1, 1, 4, &[4]);
        let mut session = world.join(None);
        world.view(1, 1, 30, &[10, 20, 30]);
        assert_eq!(world.read(&mut session), ["gap:bus", "10", "20", "30"]);
        world.view(1, 40, 45, &[]);
        assert_eq!(world.read(&mut session), ["gap:bus"]);
        world.view(1, 40, 50, &[]);
        assert!(world.read(&mut session).is_empty());
    }

    #[test]
    fn another_life_of_the_stream_is_announced() {
        let mut world = World::new();
        world.view(1, 1, 9, &[9]);
        let mut session = world.join(None);
        assert_eq!(world.follow.resume_after(2, 30), 0);
        world.view(2, 1, 3, &[2]);
        assert_eq!(world.live(4, 2), Live::Appended);
        assert_eq!(world.read(&mut session), ["gap:bus", "2", "4"]);
        assert_eq!(session.cursor(), Cursor::one(&name(), Position { epoch: 2, offset: 4 }));
        // The end was lost.
        assert_eq!(world.follow.resume_after(2, 3), 0);
        world.view(2, 1, 3, &[2]);
        assert_eq!(world.read(&mut session), ["gap:bus", "2"]);
    }
}
