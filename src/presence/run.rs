//! The thread's loop: reads companions, writes notes, announces, and answers who asks.

mod followed;

use crate::bus::thread::Stopped;
use crate::bus::{Attached, Bus, BusError};
use crate::clock::unix_ms;
use crate::hub::Hub;
use crate::hub::roster::Changes;
use crate::model::channel::ChannelName;
use crate::model::message::{Data, Message};
use crate::presence::{Ask, Members, event};
use crate::proto::presence::lives::{BEAT_EVERY_MS, Lives};
use crate::proto::presence::note::{Note, Word};
use crate::proto::presence::room::{Event, Kind, Now};
use crate::telemetry::metrics::PresenceMetrics;
use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use followed::{Follow, Followed, Reading};
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// Requests to the bus that are under way at once.
const JOBS_MAX: usize = 64;
/// How long the bus may take for one.
const JOB_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a companion that could not be followed waits for the next attempt.
const RETRY_MS: u64 = 1_000;
/// How long a companion is followed after somebody asked.
const ASKED_MS: u64 = 30_000;
/// How often it is looked whether a channel has sessions still.
const ATTENDED_MS: u64 = 30_000;
const FAREWELL_TIMEOUT: Duration = Duration::from_millis(800);

/// What came of a request to the bus.
enum Done {
    Followed(ChannelName, Result<Attached, BusError>),
    Wrote(ChannelName, Result<(), BusError>),
    Announced(ChannelName, Vec<Event>, usize),
    Beat,
}

struct Run {
    bus: Arc<dyn Bus>,
    hub: Arc<Hub>,
    metrics: Arc<PresenceMetrics>,
    me: Arc<str>,
    lives: Lives,
    /// Those that did not live when it was last looked.
    gone: HashSet<Arc<str>>,
    /// Where beats are read; followed from the first need on.
    beats: Reading,
    /// When this instance beats next; `None` before the first need.
    beat_ms: Option<u64>,
    rooms: HashMap<ChannelName, Followed>,
    due: BTreeSet<(u64, ChannelName)>,
    jobs: FuturesUnordered<BoxFuture<'static, Done>>,
}

/// Runs until `stopped`.
pub(super) async fn run(
    bus: Arc<dyn Bus>,
    hub: Arc<Hub>,
    metrics: Arc<PresenceMetrics>,
    mut asks: mpsc::Receiver<Ask>,
    mut stopped: Stopped,
) {
    let Some(me) = fresh_name() else {
        return tracing::error!("the system gives no random numbers, so that nobody learns who is on a channel");
    };
    let mut run = Run {
        bus,
        hub: Arc::clone(&hub),
        metrics,
        lives: Lives::new(Arc::clone(&me)),
        me,
        gone: HashSet::new(),
        beats: Reading::Not { since_ms: 0 },
        beat_ms: None,
        rooms: HashMap::new(),
        due: BTreeSet::new(),
        jobs: FuturesUnordered::new(),
    };
    loop {
        let wait = Duration::from_millis(run.next_ms().saturating_sub(run.now().ms));
        tokio::select! {
            changes = poll_fn(|cx| hub.roster().poll_changes(cx)) => run.take(changes),
            Some(ask) = asks.recv() => run.ask(ask),
            Some(done) = run.jobs.next(), if !run.jobs.is_empty() => run.finish(done),
            () = tokio::time::sleep(wait) => {}
            () = stopped.wait() => return run.farewell().await,
        }
        run.work();
    }
}

impl Run {
    fn now(&self) -> Now {
        Now { ms: self.hub.clock().now_us() / 1000, unix_ms: unix_ms() }
    }

    /// When something is due by time alone.
    fn next_ms(&self) -> u64 {
        let far_ms = self.now().ms + ATTENDED_MS;
        // What is due waits for a request that ends.
        let room_ms = self.due.first().map_or(far_ms, |(due_ms, _)| *due_ms);
        let room_ms = if self.jobs.len() < JOBS_MAX { room_ms } else { far_ms };
        room_ms.min(self.beat_ms.unwrap_or(far_ms)).min(far_ms)
    }

    fn take(&mut self, changes: Changes) {
        for (channel, users) in changes.users {
            self.follow(&channel);
            let Some(followed) = self.rooms.get_mut(&channel) else { continue };
            for user in users {
                followed.room.set(&user, self.hub.roster().member(&channel, &user));
            }
            self.touch(&channel);
        }
        for moved in changes.moved {
            match moved.companion_of() {
                Some(channel) => {
                    self.read(&channel);
                    self.touch(&channel);
                }
                None => self.hear(),
            }
        }
        self.metrics.set_users(self.hub.roster().users());
    }

    fn ask(&mut self, ask: Ask) {
        let channel = ask.channel.clone();
        self.follow(&channel);
        let until_ms = self.now().ms + ASKED_MS;
        if let Some(followed) = self.rooms.get_mut(&channel) {
            followed.asked_until_ms = until_ms;
            // Whoever does not wait any more is not answered.
            followed.asks.retain(|ask| !ask.tell.is_closed());
            followed.asks.push(ask);
            self.touch(&channel);
        }
    }

    /// Begins to follow a channel's companion, if that is not done.
    fn follow(&mut self, channel: &ChannelName) {
        if self.beat_ms.is_none() {
            self.beat_ms = Some(self.now().ms);
        }
        if !self.rooms.contains_key(channel) {
            let mut followed = Followed::new(Arc::clone(&self.me));
            for (user, member) in self.hub.roster().members(channel) {
                followed.room.set(&user, Some(member));
            }
            self.rooms.insert(channel.clone(), followed);
            self.metrics.set_channels(self.rooms.len());
        }
    }

    /// The channel is looked at in this turn.
    fn touch(&mut self, channel: &ChannelName) {
        let Some(followed) = self.rooms.get_mut(channel) else { return };
        self.due.remove(&(followed.due_ms, channel.clone()));
        followed.due_ms = 0;
        self.due.insert((0, channel.clone()));
    }

    fn finish(&mut self, done: Done) {
        let now = self.now();
        match done {
            Done::Followed(own, attached) => {
                let found = self.hub.find(own.as_str());
                let reading = match (attached, found) {
                    (Ok(attached), Some(channel)) => Reading::Open(Follow::new(attached, channel)),
                    (attached, _) => {
                        self.failed(attached.err());
                        Reading::Not { since_ms: now.ms + RETRY_MS }
                    }
                };
                match own.companion_of() {
                    None => {
                        self.beats = reading;
                        self.hear();
                        // Who waits for it is answered.
                        let all: Vec<_> = self.rooms.keys().cloned().collect();
                        all.iter().for_each(|channel| self.touch(channel));
                    }
                    Some(channel) => {
                        if let Some(followed) = self.rooms.get_mut(&channel) {
                            followed.reading = reading;
                        }
                        self.read(&channel);
                        self.touch(&channel);
                    }
                }
            }
            Done::Wrote(channel, result) => {
                if let Some(followed) = self.rooms.get_mut(&channel) {
                    followed.writes = false;
                    if result.is_err() {
                        followed.room.failed(now);
                    }
                }
                self.failed(result.err());
                self.touch(&channel);
            }
            Done::Announced(channel, due, done) => {
                if let Some(followed) = self.rooms.get_mut(&channel) {
                    followed.announces = false;
                    followed.room.published(&due[..done], due.len(), now);
                }
                self.touch(&channel);
            }
            Done::Beat => {}
        }
    }

    fn failed(&self, error: Option<BusError>) {
        if let Some(error) = error {
            self.metrics.failed();
            // The bus itself says when it is lost and back.
            tracing::debug!(%error, "a note of who is there was not written");
        }
    }

    fn read(&mut self, channel: &ChannelName) {
        let now = self.now();
        if let Some(followed) = self.rooms.get_mut(channel) {
            followed.read(&mut self.lives, now);
        }
    }

    /// Reads the beats. Where somebody is dead now, or back, all channels are looked at.
    fn hear(&mut self) {
        let Reading::Open(follow) = &mut self.beats else { return };
        for (note, _, _) in follow.read().notes {
            match note.word {
                Word::Beat(_) => self.lives.beat(&note.from),
                Word::Left(_) => self.lives.leave(&note.from),
                _ => {}
            }
        }
        let gone: HashSet<_> = self.lives.gone().cloned().collect();
        if gone != self.gone {
            for instance in gone.difference(&self.gone) {
                tracing::info!(instance = &**instance, "an instance is gone");
            }
            self.gone = gone;
            let all: Vec<_> = self.rooms.keys().cloned().collect();
            all.iter().for_each(|channel| self.touch(channel));
        }
    }

    /// Does what is due.
    fn work(&mut self) {
        let now = self.now();
        if let Some(beat_ms) = self.beat_ms
            && beat_ms <= now.ms
        {
            self.beat_ms = Some(now.ms + BEAT_EVERY_MS);
            if self.beats.begin(now) {
                self.attach(ChannelName::of_instances());
            }
            let beat = self.publish(ChannelName::of_instances(), &self.note(Word::Beat(0)));
            self.jobs.push(Box::pin(async move {
                // The next one comes soon.
                let _ = beat.await;
                Done::Beat
            }));
        }
        while self.jobs.len() < JOBS_MAX
            && let Some((due_ms, _)) = self.due.first()
            && *due_ms <= now.ms
            && let Some((_, channel)) = self.due.pop_first()
        {
            self.look(channel, now);
        }
    }

    /// Looks at one channel: what is to be written, announced or answered there.
    fn look(&mut self, channel: ChannelName, now: Now) {
        let Some(mut followed) = self.rooms.remove(&channel) else { return };
        let presence = self.hub.policy(&channel).presence;
        let is_attended = || self.hub.find(channel.as_str()).is_some_and(|channel| channel.sessions() > 0);
        followed.room.announce(presence.leave_after_ms());
        followed.room.attend(presence.leave_after_ms().is_some() && is_attended());
        if followed.reading.begin(now) {
            self.attach(channel.companion());
        }
        if matches!(followed.reading, Reading::Open(_)) {
            if !followed.writes
                && let Some(note) = followed.room.write(now, &self.lives)
            {
                followed.writes = true;
                self.write(channel.clone(), &note);
            }
            if !followed.announces {
                let due = followed.room.due(now, &self.lives);
                if !due.is_empty() {
                    followed.announces = true;
                    self.announce(channel.clone(), due);
                }
            }
            // Who lives is known once the beats are read.
            if matches!(self.beats, Reading::Open(_)) {
                followed.answer(&self.lives);
            }
        }
        if followed.is_idle(now) {
            self.metrics.set_channels(self.rooms.len());
            return;
        }
        followed.due_ms = followed.next_ms(now).min(now.ms + ATTENDED_MS);
        self.due.insert((followed.due_ms, channel.clone()));
        self.rooms.insert(channel, followed);
    }

    fn attach(&self, own: ChannelName) {
        let bus = Arc::clone(&self.bus);
        self.jobs.push(Box::pin(async move {
            let attached = timed(bus.attach(std::slice::from_ref(&own), None)).await;
            Done::Followed(own, attached)
        }));
    }

    fn write(&self, channel: ChannelName, note: &Note) {
        let publish = self.publish(channel.companion(), note);
        self.metrics.wrote();
        self.jobs.push(Box::pin(async move { Done::Wrote(channel, publish.await) }));
    }

    fn publish(&self, own: ChannelName, note: &Note) -> BoxFuture<'static, Result<(), BusError>> {
        let data = Data::Json(note.encode().into());
        let message = Message { channel: own, id: None, event: None, data, cloudevent: None, grip: None };
        let bus = Arc::clone(&self.bus);
        Box::pin(async move { timed(bus.publish(message, None)).await.map(drop) })
    }

    /// Publishes joins and leaves one after the other, until one fails.
    fn announce(&self, channel: ChannelName, due: Vec<Event>) {
        let (bus, metrics) = (Arc::clone(&self.bus), Arc::clone(&self.metrics));
        self.jobs.push(Box::pin(async move {
            let mut done = 0;
            for event in &due {
                if let Some(message) = event::message(&channel, event) {
                    bus.paced(&channel).await;
                    match timed(bus.publish(message, None)).await {
                        Ok(published) if published.duplicate => {}
                        Ok(_) => metrics.announced(event.kind == Kind::Join),
                        Err(error) => {
                            metrics.failed();
                            tracing::debug!(%error, channel = %channel, "a join or leave is announced later");
                            break;
                        }
                    }
                }
                done += 1;
            }
            Done::Announced(channel, due, done)
        }));
    }

    fn note(&self, word: Word) -> Note {
        Note { from: (&*self.me).into(), word }
    }

    /// Others need not wait for this instance's lease to end.
    async fn farewell(&mut self) {
        if self.beat_ms.is_some() {
            let left = self.publish(ChannelName::of_instances(), &self.note(Word::Left(0)));
            let _ = tokio::time::timeout(FAREWELL_TIMEOUT, left).await;
        }
    }
}

async fn timed<T>(request: impl Future<Output = Result<T, BusError>>) -> Result<T, BusError> {
    let answered = tokio::time::timeout(JOB_TIMEOUT, request).await;
    answered.unwrap_or_else(|_| Err(BusError::Down("it takes too long".to_owned())))
}

impl Followed {
    /// Answers who asked.
    fn answer(&mut self, lives: &Lives) {
        for ask in std::mem::take(&mut self.asks) {
            let mut page = self.room.members(&ask.after, ask.limit + 1, lives);
            let more = page.len() > ask.limit;
            page.truncate(ask.limit);
            // Whoever asked may be gone.
            let _ = ask.tell.send(Members { users: self.room.users(lives), page, more });
        }
    }
}

/// A name for this instance that no other has.
fn fresh_name() -> Option<Arc<str>> {
    let mut bytes = [0; 8];
    SystemRandom::new().fill(&mut bytes).ok()?;
    Some(format!("{:016x}", u64::from_be_bytes(bytes)).into())
}
