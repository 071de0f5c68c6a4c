//! Many small worlds, each from a seed: instances with their real hubs and followers on a stream that is a model.
//!
//! Live messages are lost, doubled and reordered; instances are cut off, drained and killed; the stream is restarted,
//! ages, drops the oldest of full channels and loses everything. Whatever happens, each client gets every channel's
//! messages in order, once, and without a hole that was not announced. A world that breaks this says its seed;
//! `PUSHBRIDGE_SEED=…` runs that one alone.

use crate::bus::nats::follow::{Follow, Live, View};
use crate::bus::tests::simulation::{self, Dice, Totals};
use crate::hub::channel::Channel;
use crate::hub::clock::Clock;
use crate::hub::policy::{ChannelPolicies, ChannelPolicy};
use crate::hub::shard::{Delivery, EndOrder, NoCarrier, Shard, Start, Subscription};
use crate::hub::{Hub, HubLimits};
use crate::model::channel::ChannelName;
use crate::model::cursor::Cursor;
use crate::model::message::{Data, Message};
use crate::model::pattern::ChannelPattern;
use crate::model::session::{CloseReason, GapReason, Selector};
use arc_swap::ArcSwap;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Waker};

const STEPS: usize = 120;
const CHANNELS: usize = 3;
const INSTANCES: usize = 3;
const CLIENTS: usize = 5;

#[test]
fn whatever_happens_clients_get_all_in_order_or_hear_of_a_gap() {
    simulation::run("nats::tests::simulation", |seed| World::new(seed).run());
}

/// A message as the stream has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stored {
    number: u64,
    /// The channel's message before it, 0 if there was none.
    before: u64,
    /// `None` for a mark.
    channel: Option<usize>,
    /// Which of all that was ever published on the channel.
    index: usize,
}

/// The model of the stream.
struct Stream {
    epoch: u64,
    last: u64,
    kept: Vec<Stored>,
    per_channel_max: usize,
    /// By publisher's id.
    ids: HashMap<u64, u64>,
}

impl Stream {
    fn new(epoch: u64, per_channel_max: usize) -> Self {
        // The first message is a mark.
        let mark = Stored { number: 1, before: 0, channel: None, index: 0 };
        Self { epoch, last: 1, kept: vec![mark], per_channel_max, ids: HashMap::new() }
    }

    fn first(&self) -> u64 {
        self.kept.first().map_or(self.last + 1, |stored| stored.number)
    }

    fn of(&self, channel: usize) -> impl DoubleEndedIterator<Item = &Stored> {
        self.kept.iter().filter(move |stored| stored.channel == Some(channel))
    }

    fn append(&mut self, channel: usize, index: usize) -> Stored {
        let before = self.of(channel).next_back().map_or(0, |stored| stored.number);
        self.last += 1;
        let stored = Stored { number: self.last, before, channel: Some(channel), index };
        self.kept.push(stored);
        let numbers: Vec<u64> = self.of(channel).map(|stored| stored.number).collect();
        if numbers.len() > self.per_channel_max {
            self.kept.retain(|stored| stored.number != numbers[0]);
        }
        stored
    }

    fn age(&mut self, upto: u64) {
        self.kept.retain(|stored| stored.number > upto);
    }
}

/// A running instance.
struct Instance {
    hub: Arc<Hub>,
    shard: Rc<Shard>,
    followed: Vec<Option<Followed>>,
    cut_off: bool,
}

struct Followed {
    channel: Arc<Channel>,
    follow: Follow,
    in_doubt: bool,
    live: Vec<Stored>,
}

impl Instance {
    fn new(history: usize) -> Self {
        let policy = ChannelPolicy { history_messages_max: history, ..ChannelPolicy::default() };
        let all = ChannelPattern::new("**").expect("a pattern");
        let policies = Arc::new(ArcSwap::from_pointee(ChannelPolicies::new(vec![(all, policy)])));
        let hub = Hub::new(1, Clock::start(), HubLimits::default(), policies);
        Self { shard: Shard::new(&hub, 0), hub, followed: (0..CHANNELS).map(|_| None).collect(), cut_off: false }
    }

    fn doubt(&mut self) {
        self.followed.iter_mut().flatten().for_each(|followed| followed.in_doubt = true);
    }
}

/// A client: what it knows, and what it was told.
#[derive(Default)]
struct Client {
    session: Option<(usize, Subscription)>,
    cursor: Option<Cursor>,
    channels: Vec<Told>,
}

/// What a client was told of one channel.
#[derive(Debug, Clone, Copy)]
struct Told {
    channel: usize,
    /// Everything from this on has to come.
    from: usize,
    /// The last that came.
    last: Option<usize>,
    /// A gap was announced since.
    gap: bool,
    /// What came before may come again: the cursor was of another life.
    again: bool,
}

struct World {
    dice: Dice,
    stream: Stream,
    instances: Vec<Instance>,
    clients: Vec<Client>,
    /// How many messages were published on each channel.
    published: [usize; CHANNELS],
    history: usize,
    /// Nothing more is published.
    over: bool,
    /// Nothing in it is ever dropped, so that nothing may be announced as a gap.
    gentle: bool,
    totals: Totals,
}

fn name(channel: usize) -> ChannelName {
    ChannelName::new(&format!("c{channel}")).expect("a name")
}

fn message(stored: &Stored) -> Message {
    let channel = name(stored.channel.expect("no mark"));
    Message {
        channel,
        id: None,
        event: None,
        data: Data::Text(stored.index.to_string().into()),
        cloudevent: None,
        grip: None,
    }
}

impl World {
    fn new(seed: u64) -> Self {
        let mut dice = Dice(seed);
        let gentle = dice.one_in(4);
        let per_channel_max = if gentle { 1000 } else { 2 + dice.below(20) };
        let history = if gentle { 1000 } else { dice.below(100) };
        Self {
            dice,
            stream: Stream::new(1, per_channel_max),
            instances: (0..INSTANCES).map(|_| Instance::new(history)).collect(),
            clients: (0..CLIENTS).map(|_| Client::default()).collect(),
            published: [0; CHANNELS],
            history,
            over: false,
            gentle,
            totals: Totals::default(),
        }
    }

    fn run(mut self) -> Totals {
        for _ in 0..STEPS {
            self.step();
        }
        self.settle();
        self.totals
    }

    fn step(&mut self) {
        let (instance, client) = (self.dice.below(INSTANCES), self.dice.below(CLIENTS));
        match self.dice.below(100) {
            0..30 => self.publish(),
            30..50 => self.deliver(instance),
            50..68 => self.read(client),
            68..78 => self.connect(client, instance),
            78..84 => self.disconnect(client),
            84..88 => self.audit(instance),
            88..91 => self.cut_or_mend(instance),
            91..93 => self.drain(instance),
            93..95 => self.kill(instance),
            95..97 => self.restart_stream(),
            97..99 if !self.gentle => {
                let upto = (self.stream.first() + self.dice.below(8) as u64).min(self.stream.last);
                // An hour goes by, in which who is connected looks many times.
                (0..INSTANCES).for_each(|instance| self.audit(instance));
                self.stream.age(upto);
            }
            99 if !self.gentle => {
                self.stream = Stream::new(self.stream.epoch + 1, self.stream.per_channel_max);
                self.restart_stream();
            }
            _ => {}
        }
    }

    /// One or more publishes; some are tried twice, since the first answer was lost.
    fn publish(&mut self) {
        for _ in 0..=self.dice.below(3) {
            let (channel, id) = (self.dice.below(CHANNELS), self.dice.roll());
            for _ in 0..if self.dice.one_in(5) { 2 } else { 1 } {
                if self.stream.ids.contains_key(&id) {
                    continue;
                }
                let stored = self.stream.append(channel, self.published[channel]);
                self.published[channel] += 1;
                self.stream.ids.insert(id, stored.number);
                self.fan_out(channel, stored);
            }
        }
    }

    fn fan_out(&mut self, channel: usize, stored: Stored) {
        for instance in self.instances.iter_mut().filter(|instance| !instance.cut_off) {
            let Some(followed) = &mut instance.followed[channel] else { continue };
            let copies = match self.dice.below(10) {
                0 => 0,
                1 => 2,
                _ => 1,
            };
            for _ in 0..copies {
                let end = followed.live.len();
                let at = if self.dice.one_in(8) { self.dice.below(end + 1) } else { end };
                followed.live.insert(at, stored);
            }
        }
    }

    /// An instance takes some of its live messages.
    fn deliver(&mut self, instance: usize) {
        for channel in 0..CHANNELS {
            for _ in 0..=self.dice.below(4) {
                let Instance { hub, followed, cut_off, .. } = &mut self.instances[instance];
                let Some(followed) = followed[channel].as_mut().filter(|followed| !followed.live.is_empty()) else {
                    break;
                };
                let stored = followed.live.remove(0);
                if followed.in_doubt {
                    continue;
                }
                let message = message(&stored);
                let live = followed.follow.live(hub, &followed.channel, stored.number, stored.before, message);
                if live == Live::Hole {
                    self.totals.holes += 1;
                    if *cut_off {
                        continue;
                    }
                    self.look(instance, channel);
                }
            }
        }
    }

    /// As `Follower::look`; publishes come in between.
    fn look(&mut self, instance: usize, channel: usize) {
        if let Some(followed) = &mut self.instances[instance].followed[channel] {
            followed.live.clear();
        }
        let (epoch, end) = (self.stream.epoch, self.stream.last);
        if !self.over && self.dice.one_in(3) {
            self.publish();
        }
        let newest = self.stream.of(channel).next_back().map(|stored| stored.number);
        let Some(after) = self.instances[instance].followed[channel]
            .as_ref()
            .map(|followed| followed.follow.resume_after(epoch, end))
        else {
            return;
        };
        let mut view = View {
            epoch,
            end,
            first: 0,
            per_channel_max: Some(self.stream.per_channel_max as u64),
            too_old: (0, 0),
            messages: vec![],
        };
        if newest.is_none_or(|newest| newest > after) {
            let messages = self.stream.of(channel).filter(|stored| stored.number > after);
            view.messages = messages.map(|stored| (stored.number, message(stored))).collect();
            // An instance may keep less than the stream.
            let keep = self.history.max(8);
            while view.messages.len() > keep {
                view.too_old = (view.too_old.0 + 1, view.messages.remove(0).0);
            }
            if !self.over && self.dice.one_in(3) {
                self.publish();
            }
            view.first = self.stream.first();
        }
        let Instance { hub, followed, .. } = &mut self.instances[instance];
        if let Some(followed) = &mut followed[channel] {
            followed.follow.view(hub, &followed.channel, view);
            followed.in_doubt = false;
        }
    }

    fn audit(&mut self, instance: usize) {
        if !self.instances[instance].cut_off {
            (0..CHANNELS).for_each(|channel| self.look(instance, channel));
        }
    }

    fn cut_or_mend(&mut self, instance: usize) {
        let instance = &mut self.instances[instance];
        instance.cut_off = !instance.cut_off;
        if !instance.cut_off {
            instance.doubt();
        }
    }

    /// All connections break and come back.
    fn restart_stream(&mut self) {
        for instance in &mut self.instances {
            instance.cut_off = false;
            instance.doubt();
        }
    }

    /// As `NatsBus::attach` and a gateway do.
    fn connect(&mut self, client: usize, instance: usize) {
        if self.clients[client].session.is_some() || self.instances[instance].cut_off {
            return;
        }
        if self.clients[client].channels.is_empty() {
            let first = self.dice.below(CHANNELS);
            let count = 1 + self.dice.below(2);
            self.clients[client].channels = (0..count)
                .map(|step| Told {
                    channel: (first + step) % CHANNELS,
                    from: usize::MAX,
                    last: None,
                    gap: false,
                    again: false,
                })
                .collect();
        }
        let channels: Vec<usize> = self.clients[client].channels.iter().map(|told| told.channel).collect();
        for channel in &channels {
            let position = self.clients[client].cursor.as_ref().and_then(|cursor| cursor.position(&name(*channel)));
            let Instance { hub, followed, .. } = &mut self.instances[instance];
            let followed = followed[*channel].get_or_insert_with(|| Followed {
                channel: hub.open(&name(*channel)).expect("room"),
                follow: Follow::default(),
                in_doubt: true,
                live: Vec::new(),
            });
            let last = followed.channel.last();
            let reaches = position.is_none_or(|at| at.epoch == last.epoch && at.offset <= last.offset);
            if followed.in_doubt || !reaches {
                self.look(instance, *channel);
            }
        }
        let names: Vec<_> = channels.iter().map(|channel| name(*channel)).collect();
        let cursor = self.clients[client].cursor.clone();
        let session = self.instances[instance].shard.subscribe(&names, cursor.as_ref(), Start::Now).expect("room");
        let client = &mut self.clients[client];
        if client.cursor.is_none() {
            client.cursor = Some(session.cursor());
            client.channels.iter_mut().for_each(|told| told.from = self.published[told.channel]);
        }
        client.session = Some((instance, session));
    }

    fn disconnect(&mut self, client: usize) {
        self.clients[client].session = None;
    }

    fn read(&mut self, client: usize) {
        let count = 1 + self.dice.below(20);
        let Some((instance, _)) = &self.clients[client].session else { return };
        let pumped =
            self.instances[*instance].shard.poll_pump(&mut Context::from_waker(Waker::noop()), |_| {}, &mut NoCarrier);
        assert!(pumped.is_pending());
        for _ in 0..count {
            let Client { session: Some((_, session)), .. } = &mut self.clients[client] else { return };
            let Some(delivery) = session.next() else { return };
            let cursor = session.cursor();
            match delivery {
                Delivery::Message(entry) => {
                    let index =
                        std::str::from_utf8(entry.message.data.as_bytes()).expect("text").parse().expect("a number");
                    self.tell(client, &entry.message.channel, index);
                }
                Delivery::Gap(gap) => self.tell_gap(client, &gap.channels, gap.reason),
                Delivery::Conflated(_) => panic!("nothing is conflated here"),
                Delivery::End(reason) => {
                    assert_eq!(reason, CloseReason::Drain);
                    self.clients[client].cursor = Some(cursor);
                    self.clients[client].session = None;
                    return;
                }
            }
            self.clients[client].cursor = Some(cursor);
        }
    }

    /// A client got a message: is it the right one?
    fn tell(&mut self, client: usize, channel: &ChannelName, index: usize) {
        self.totals.delivered += 1;
        let told = self.clients[client].channels.iter_mut().find(|told| name(told.channel) == *channel);
        let told = told.unwrap_or_else(|| panic!("client {client} never joined {channel}"));
        match told.last {
            Some(last) if index <= last => assert!(told.again, "client {client}: {index} after {last}: {told:?}"),
            Some(last) => assert!(told.gap || index == last + 1, "client {client}: {index} after {last}: {told:?}"),
            None => assert!(told.gap || index <= told.from, "client {client}: {index} is first: {told:?}"),
        }
        (told.last, told.gap, told.again) = (Some(index), false, false);
    }

    fn tell_gap(&mut self, client: usize, channels: &[ChannelName], reason: GapReason) {
        self.totals.gaps += 1;
        assert!(!self.gentle, "client {client}: a gap ({}) where nothing was lost", reason.as_str());
        for told in &mut self.clients[client].channels {
            if channels.contains(&name(told.channel)) {
                told.gap = true;
                // Everything that is still there comes then, also what the client has.
                told.again |= reason == GapReason::Epoch;
            }
        }
    }

    /// Its sessions are ended in order; then another process takes its place.
    fn drain(&mut self, instance: usize) {
        let all = EndOrder { selector: Selector::All, reason: CloseReason::Drain, window_us: 0, seed: 0 };
        self.instances[instance].shard.end_sessions(&all);
        for client in 0..CLIENTS {
            while self.clients[client].session.as_ref().is_some_and(|(on, _)| *on == instance) {
                self.read(client);
            }
        }
        self.instances[instance] = Instance::new(self.history);
    }

    /// Its sessions break; then another process takes its place.
    fn kill(&mut self, instance: usize) {
        for client in &mut self.clients {
            client.session.take_if(|(on, _)| *on == instance);
        }
        self.instances[instance] = Instance::new(self.history);
    }

    /// All is well again: what has every client heard in the end?
    fn settle(&mut self) {
        self.restart_stream();
        for client in 0..CLIENTS {
            let instance = self.dice.below(INSTANCES);
            self.connect(client, instance);
        }
        // Nothing happens any more.
        self.over = true;
        for instance in 0..INSTANCES {
            self.audit(instance);
        }
        for client in 0..CLIENTS {
            for _ in 0..200 {
                self.read(client);
            }
            for told in &self.clients[client].channels {
                let published = self.published[told.channel];
                let all = told.last.map_or(told.from >= published, |last| last + 1 == published);
                assert!(all || told.gap, "client {client}: of {published} the end is missing: {told:?}");
            }
        }
    }
}
