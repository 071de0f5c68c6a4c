//! Many small worlds, each from a seed: instances with their real hubs and [`Follows`] on a Redis that is a model.
//!
//! Live messages are lost, doubled and reordered; instances lose their connections, their subscriptions and their lives;
//! Redis is restarted with what it had, with an older copy, or with nothing. Whatever happens, each client gets every
//! channel's messages in order, once, and without a hole that was not announced; whoever had a message that Redis lost
//! hears of a gap; and where Redis lost nothing, nobody hears of one.

mod redis;

use self::redis::{Known, Redis};
use crate::bus::envelope;
use crate::bus::redis::follow::{Follows, LINGER_US, Reading, Wanted};
use crate::bus::redis::script::{Page, Stored};
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
use crate::model::position::Position;
use crate::model::session::{CloseReason, GapReason, Selector};
use arc_swap::ArcSwap;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Waker};
use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;

const STEPS: usize = 200;
const CHANNELS: usize = 3;
const INSTANCES: usize = 3;
const CLIENTS: usize = 5;
/// Entries of a page, and reads at once: few, so that both bounds are met.
const PAGE_ENTRIES_MAX: usize = 3;
const READS_MAX: usize = 3;
/// So many earlier epochs are remembered: a cursor of an older one is a gap, though nothing was lost.
const EPOCHS_MAX: usize = 8;

#[test]
fn whatever_happens_clients_get_all_in_order_or_hear_of_a_gap() {
    simulation::run("redis::tests::simulation", |seed| World::new(seed).run());
}

/// What comes over the connection.
enum Push {
    Live(usize, u64, Stored),
    /// Redis ended the subscription: the channel went to another node.
    Unsubscribed(usize),
}

/// A history that is being read.
struct Read {
    channel: usize,
    reading: Reading,
    place: Known,
    answer: Option<Page>,
}

/// A running instance.
struct Instance {
    hub: Arc<Hub>,
    shard: Rc<Shard>,
    follows: Follows,
    connected: bool,
    subscribed: [bool; CHANNELS],
    reads: Vec<Read>,
    pushes: VecDeque<Push>,
    /// Pushes came that had no room.
    overflow: bool,
}

impl Instance {
    fn new(history: usize) -> Self {
        let policy = ChannelPolicy { history_messages_max: history, ..ChannelPolicy::default() };
        let all = ChannelPattern::new("**").expect("a pattern");
        let policies = Arc::new(ArcSwap::from_pointee(ChannelPolicies::new(vec![(all, policy)])));
        let hub = Hub::new(1, Clock::start(), HubLimits::default(), policies);
        Self {
            shard: Shard::new(&hub, 0),
            follows: Follows::new(Arc::clone(&hub), Arc::default()),
            hub,
            connected: true,
            subscribed: [false; CHANNELS],
            reads: Vec::new(),
            pushes: VecDeque::new(),
            overflow: false,
        }
    }

    /// As `run::run` when `serve` is over.
    fn lose(&mut self) {
        self.connected = false;
        self.subscribed = [false; CHANNELS];
        self.reads.clear();
        self.pushes.clear();
        self.overflow = false;
        self.follows.lose();
    }

    fn connect(&mut self) {
        if !self.connected {
            self.connected = true;
            self.follows.resume();
        }
    }
}

/// A client: what it knows, and what it was told.
#[derive(Default)]
struct Client {
    session: Option<(usize, Subscription)>,
    attaching: Option<Attaching>,
    cursor: Option<Cursor>,
    channels: Vec<Told>,
}

/// A request that waits until its channels are current.
struct Attaching {
    instance: usize,
    /// Held, so that the hub does not forget them.
    _channels: Vec<Arc<Channel>>,
    soon: Vec<oneshot::Receiver<()>>,
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
    redis: Redis,
    /// What a replica has, that may take Redis's place.
    copy: Redis,
    instances: Vec<Instance>,
    clients: Vec<Client>,
    restarts: usize,
    now_us: u64,
    history: usize,
    /// Nothing in it is ever dropped, so that nothing may be announced as a gap.
    gentle: bool,
    /// Live messages come, once and in order.
    calm: bool,
    totals: Totals,
}

fn name(channel: usize) -> ChannelName {
    ChannelName::new(&format!("c{channel}")).expect("a name")
}

fn numbered(channel: &ChannelName) -> usize {
    channel.as_str()[1..].parse().expect("a number")
}

fn envelope(channel: usize, index: usize) -> Vec<u8> {
    envelope::encode(&Message {
        channel: name(channel),
        id: None,
        event: None,
        data: Data::Text(index.to_string().into()),
        cloudevent: None,
        grip: None,
    })
}

impl World {
    fn new(seed: u64) -> Self {
        let mut dice = Dice(seed);
        let gentle = dice.one_in(3);
        let kept_max = if gentle { 1000 } else { 2 + dice.below(20) };
        let history = if gentle { 1000 } else { dice.below(100) };
        let redis = Redis::new(kept_max);
        Self {
            dice,
            copy: redis.clone(),
            redis,
            instances: (0..INSTANCES).map(|_| Instance::new(history)).collect(),
            clients: (0..CLIENTS).map(|_| Client::default()).collect(),
            restarts: 0,
            now_us: 0,
            history,
            gentle,
            calm: false,
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
        let (instance, client, channel) =
            (self.dice.below(INSTANCES), self.dice.below(CLIENTS), self.dice.below(CHANNELS));
        match self.dice.below(125) {
            0..24 => self.publish(),
            24..42 => self.deliver(instance),
            42..66 => self.work(instance),
            66..80 => self.read(client),
            80..93 => self.connect(client, instance),
            93..96 => self.clients[client].session = None,
            120..125 => self.move_on(client, instance),
            96..98 => self.instances[instance].follows.doubt_one(&name(channel), None),
            98..100 => self.instances[instance].lose(),
            100..107 => self.instances[instance].connect(),
            107..109 => self.keep_time(instance),
            109 => self.end_subscription(instance, channel),
            110 => self.overflow(instance),
            111 => self.drain(instance),
            112 => self.kill(instance),
            113..115 => self.copy = self.redis.clone(),
            115..117 => self.restart(),
            117 if !self.gentle => self.fail_over(),
            118 if !self.gentle => {
                self.redis.forget();
                self.restart();
                self.copy = self.redis.clone();
            }
            119 if !self.gentle => self.redis.age(channel, self.dice.below(6)),
            _ => {}
        }
    }

    fn publish(&mut self) {
        for _ in 0..=self.dice.below(3) {
            let channel = self.dice.below(CHANNELS);
            self.publish_on(channel);
        }
    }

    fn publish_on(&mut self, channel: usize) {
        let (epoch, stored) = self.redis.publish(channel);
        self.fan_out(channel, epoch, &stored);
    }

    fn fan_out(&mut self, channel: usize, epoch: u64, stored: &Stored) {
        for instance in self.instances.iter_mut().filter(|instance| instance.subscribed[channel]) {
            let copies = match self.dice.below(10) {
                _ if self.calm => 1,
                0 => 0,
                1 => 2,
                _ => 1,
            };
            for _ in 0..copies {
                let end = instance.pushes.len();
                let at = if !self.calm && self.dice.one_in(8) { self.dice.below(end + 1) } else { end };
                instance.pushes.insert(at, Push::Live(channel, epoch, stored.clone()));
            }
        }
    }

    /// As `run::receive`.
    fn deliver(&mut self, instance: usize) {
        for _ in 0..=self.dice.below(16) {
            let instance = &mut self.instances[instance];
            let Some(push) = instance.pushes.pop_front() else { break };
            if std::mem::take(&mut instance.overflow) {
                instance.follows.doubt();
            }
            match push {
                Push::Live(channel, epoch, stored) => {
                    let last = instance.hub.find(name(channel).as_str()).map(|channel| channel.last());
                    let is_hole = |last: Position| last.epoch == epoch && stored.offset > last.offset + 1;
                    self.totals.holes += u64::from(last.is_some_and(is_hole));
                    instance.follows.live(&name(channel), epoch, stored);
                }
                Push::Unsubscribed(channel) => instance.follows.doubt_one(&name(channel), Some(())),
            }
        }
    }

    /// As `run::follow` and `run::read`, one small part.
    fn work(&mut self, at: usize) {
        if !self.instances[at].connected {
            return;
        }
        let free = READS_MAX - self.instances[at].reads.len();
        let work = self.instances[at].follows.work(2, free);
        for name in &work.subscribe {
            self.instances[at].subscribed[numbered(name)] = true;
        }
        if !work.subscribe.is_empty() {
            if self.dice.one_in(3) {
                self.publish();
            }
            self.instances[at].follows.subscribed(&work.subscribe);
        }
        for name in &work.read {
            self.begin_to_read(at, name);
        }
        for _ in 0..self.dice.below(5) {
            if !self.instances[at].reads.is_empty() {
                let turn = self.dice.below(self.instances[at].reads.len());
                self.go_on_reading(at, turn);
            }
        }
        for client in 0..CLIENTS {
            if self.clients[client].attaching.as_ref().is_some_and(|attaching| attaching.instance == at) {
                self.attached(client);
            }
        }
    }

    fn begin_to_read(&mut self, at: usize, name: &ChannelName) {
        let Instance { follows, reads, .. } = &mut self.instances[at];
        if let Some((reading, place)) = follows.begin(name) {
            reads.push(Read { channel: numbered(name), reading, place, answer: None });
        }
    }

    /// Redis answers, or its answer is taken.
    fn go_on_reading(&mut self, at: usize, turn: usize) {
        let Instance { reads, follows, .. } = &mut self.instances[at];
        let Read { channel, reading, place, answer } = &mut reads[turn];
        let (channel, reading) = (*channel, *reading);
        let Some(page) = answer.take() else {
            let (page, news) = self.redis.read(channel, *place, PAGE_ENTRIES_MAX);
            *answer = Some(page);
            if let Some((epoch, stored)) = news {
                self.fan_out(channel, epoch, &stored);
            }
            return;
        };
        let is_full = page.entries.len() >= PAGE_ENTRIES_MAX;
        follows.page(&name(channel), reading, page);
        match follows.known(&name(channel), reading).filter(|_| is_full) {
            Some(next) => *place = next,
            None => {
                reads.swap_remove(turn);
                follows.finish(&name(channel), reading);
            }
        }
    }

    /// As `run::keep_time`, after a while; somebody may come before a subscription is ended.
    fn keep_time(&mut self, at: usize) {
        self.now_us += LINGER_US * 2 / 3;
        let Instance { hub, follows, connected, .. } = &self.instances[at];
        if !connected {
            return;
        }
        let mut gone = follows.forget_forgotten();
        for turn in 0..hub.partitions() {
            gone.extend(follows.retire(turn, self.now_us));
        }
        if self.dice.one_in(2) {
            let client = self.dice.below(CLIENTS);
            self.connect(client, at);
            self.work(at);
        }
        let Instance { follows, subscribed, .. } = &mut self.instances[at];
        for name in &gone {
            subscribed[numbered(name)] = false;
            follows.doubt_one(name, Some(()));
        }
    }

    fn end_subscription(&mut self, instance: usize, channel: usize) {
        let instance = &mut self.instances[instance];
        if std::mem::take(&mut instance.subscribed[channel]) {
            instance.pushes.push_back(Push::Unsubscribed(channel));
        }
    }

    /// Some of what came had no room.
    fn overflow(&mut self, instance: usize) {
        let keep = self.dice.below(4) + 1;
        let Instance { pushes, overflow, .. } = &mut self.instances[instance];
        // What tells of a subscription's end has its room.
        if pushes.len() > keep && pushes.iter().all(|push| matches!(push, Push::Live(..))) {
            pushes.truncate(keep);
            *overflow = true;
        }
    }

    /// All connections break.
    fn restart(&mut self) {
        if self.gentle && self.restarts == EPOCHS_MAX - 1 {
            return;
        }
        self.restarts += 1;
        self.redis.begin_life();
        self.instances.iter_mut().for_each(Instance::lose);
    }

    /// A replica takes Redis's place, which may lack what came last.
    fn fail_over(&mut self) {
        self.redis.become_copy(&self.copy);
        self.restart();
        self.copy = self.redis.clone();
    }

    /// As `RedisBus::attach` and a gateway do.
    fn connect(&mut self, client: usize, instance: usize) {
        if self.clients[client].session.is_some() {
            return;
        }
        if self.clients[client].attaching.is_some() {
            return self.attached(client);
        }
        if !self.instances[instance].connected {
            return;
        }
        if self.clients[client].channels.is_empty() {
            let (first, count) = (self.dice.below(CHANNELS), 1 + self.dice.below(2));
            let told = |step| Told {
                channel: (first + step) % CHANNELS,
                from: usize::MAX,
                last: None,
                gap: false,
                again: false,
            };
            self.clients[client].channels = (0..count).map(told).collect();
        }
        let Client { cursor, channels, attaching, .. } = &mut self.clients[client];
        let Instance { hub, follows, .. } = &self.instances[instance];
        let (mut held, mut soon) = (Vec::new(), Vec::new());
        for told in channels.iter() {
            let (name, channel) = (name(told.channel), hub.open(&name(told.channel)).expect("room"));
            match follows.want(&channel, cursor.as_ref().and_then(|cursor| cursor.position(&name))) {
                Wanted::Current => {}
                Wanted::Soon(told) => soon.push(told),
                Wanted::Crowded => panic!("{CLIENTS} clients are no crowd"),
            }
            held.push(channel);
        }
        *attaching = Some(Attaching { instance, _channels: held, soon });
        self.attached(client);
    }

    /// A client goes to another instance, which may not have heard yet of what it has.
    fn move_on(&mut self, client: usize, instance: usize) {
        let Some((from, _)) = self.clients[client].session else { return };
        if self.dice.one_in(2) {
            self.publish();
            while !self.instances[from].pushes.is_empty() {
                self.deliver(from);
            }
        }
        self.read(client);
        self.clients[client].session = None;
        self.connect(client, instance);
    }

    /// Looks whether a client's channels are current; then it has a session.
    fn attached(&mut self, client: usize) {
        let Some(mut attaching) = self.clients[client].attaching.take() else { return };
        let asked: Vec<_> = attaching.soon.iter_mut().map(oneshot::Receiver::try_recv).collect();
        if asked.contains(&Err(TryRecvError::Closed)) {
            return;
        }
        let mut asked = asked.into_iter();
        attaching.soon.retain(|_| asked.next() == Some(Err(TryRecvError::Empty)));
        if !attaching.soon.is_empty() {
            self.clients[client].attaching = Some(attaching);
            return;
        }
        let Client { session, cursor, channels, .. } = &mut self.clients[client];
        let names: Vec<_> = channels.iter().map(|told| name(told.channel)).collect();
        let subscription = self.instances[attaching.instance].shard.subscribe(&names, cursor.as_ref(), Start::Now);
        let subscription = subscription.expect("room");
        if cursor.is_none() {
            *cursor = Some(subscription.cursor());
            channels.iter_mut().for_each(|told| told.from = self.redis.published(told.channel));
        }
        *session = Some((attaching.instance, subscription));
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
                    let text = std::str::from_utf8(entry.message.data.as_bytes()).expect("text");
                    self.tell(client, &entry.message.channel, text.parse().expect("a number"));
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
        let redis = &self.redis;
        let told = self.clients[client].channels.iter_mut().find(|told| name(told.channel) == *channel);
        let told = told.unwrap_or_else(|| panic!("client {client} never joined {channel}"));
        match told.last {
            Some(last) if index <= last => assert!(told.again, "client {client}: {index} after {last}: {told:?}"),
            Some(last) => {
                let is_next = (last + 1..index).all(|between| redis.has_lost(told.channel, between));
                assert!(told.gap || is_next, "client {client}: {index} after {last}: {told:?}");
                let was_lost = redis.has_lost(told.channel, last) && !redis.has_lost(told.channel, index);
                assert!(told.gap || !was_lost, "client {client} had {last}, which is lost; {index} came: {told:?}");
            }
            None => {
                let is_next = (told.from..index).all(|between| redis.has_lost(told.channel, between));
                assert!(told.gap || is_next, "client {client}: {index} is first: {told:?}");
            }
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
        self.kill(instance);
    }

    /// Its sessions break; then another process takes its place.
    fn kill(&mut self, instance: usize) {
        for client in &mut self.clients {
            client.session.take_if(|(on, _)| *on == instance);
            client.attaching.take_if(|attaching| attaching.instance == instance);
        }
        self.instances[instance] = Instance::new(self.history);
    }

    /// All is well again: the next message of each channel tells whoever missed one, and everybody has everything.
    fn settle(&mut self) {
        self.calm = true;
        self.instances.iter_mut().for_each(Instance::connect);
        for _ in 0..3 {
            (0..INSTANCES).for_each(|instance| self.finish_work(instance));
            // An attempt that was turned away is made again.
            for client in 0..CLIENTS {
                let instance = self.dice.below(INSTANCES);
                self.connect(client, instance);
            }
        }
        (0..CHANNELS).for_each(|channel| self.publish_on(channel));
        (0..INSTANCES).for_each(|instance| self.finish_work(instance));
        for client in 0..CLIENTS {
            assert!(self.clients[client].session.is_some(), "client {client} waits in vain");
            for _ in 0..200 {
                self.read(client);
            }
            for told in &self.clients[client].channels {
                let newest = (0..self.redis.published(told.channel))
                    .rev()
                    .find(|index| !self.redis.has_lost(told.channel, *index));
                let all = match (told.last, newest) {
                    (_, None) => true,
                    (None, Some(newest)) => newest < told.from,
                    (Some(last), Some(newest)) => last == newest,
                };
                assert!(all || told.gap, "client {client}: {newest:?} is the newest, but {told:?}");
            }
        }
    }

    /// Everything that an instance has to do, until there is nothing left.
    fn finish_work(&mut self, at: usize) {
        loop {
            while !self.instances[at].pushes.is_empty() {
                self.deliver(at);
            }
            let work = self.instances[at].follows.work(CHANNELS, CHANNELS);
            for name in &work.subscribe {
                self.instances[at].subscribed[numbered(name)] = true;
            }
            self.instances[at].follows.subscribed(&work.subscribe);
            work.read.iter().for_each(|name| self.begin_to_read(at, name));
            while let Some(turn) = self.instances[at].reads.len().checked_sub(1) {
                self.go_on_reading(at, turn);
            }
            if work.subscribe.is_empty() && work.read.is_empty() && self.instances[at].pushes.is_empty() {
                return;
            }
        }
    }
}
