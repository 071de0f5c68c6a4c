//! One channel's task: live messages into the hub, and a look at the stream where something may be missing.

use crate::bus::health::Health;
use crate::bus::nats::follow::{Follow, Live, View};
use crate::bus::nats::journal::{self, Journal, PUBLISHED_AT};
use crate::hub::channel::Channel;
use crate::hub::{Hub, clock};
use crate::model::channel::ChannelName;
use async_nats::Subscriber;
use futures_util::{FutureExt, StreamExt};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::time::Instant;

/// How long a look may take.
const LOOK_TIMEOUT: Duration = Duration::from_secs(8);
/// A look follows soon after the first, after a message that came twice, and after a failure.
const SOON: Duration = Duration::from_secs(1);
/// A look without any cause: it finds what was lost behind the last live message.
const AUDIT_EVERY: Duration = Duration::from_secs(30);

/// Who waits until the channel is current.
pub type Ask = oneshot::Sender<Result<(), String>>;

/// The task of one channel.
pub struct Follower {
    /// The hub.
    pub hub: Arc<Hub>,
    /// The stream.
    pub journal: Arc<Journal>,
    /// The state of the bus.
    pub health: Arc<Health>,
    /// Looks at once, over all channels.
    pub looks: Arc<Semaphore>,
    /// Counts connections; another one puts everything in doubt.
    pub connection: watch::Receiver<u64>,
    /// The connection under which the channel became current.
    pub current: Arc<AtomicU64>,
    /// The channel; the follower does not keep it open.
    pub channel: Weak<Channel>,
    /// Its name.
    pub name: ChannelName,
    /// Who asks for a look.
    pub asks: mpsc::Receiver<Ask>,
}

/// What a task knows.
struct State {
    follow: Follow,
    live: Option<Subscriber>,
    /// Nothing live is taken until the next look: it may be of another life of the stream.
    in_doubt: bool,
    waiting: Vec<Ask>,
    next_look: Instant,
}

impl Follower {
    /// Runs until nobody can ask any more.
    pub async fn run(mut self) {
        let mut state = State {
            follow: Follow::default(),
            live: None,
            in_doubt: true,
            waiting: Vec::new(),
            next_look: Instant::now() + AUDIT_EVERY,
        };
        loop {
            tokio::select! {
                biased;
                changed = self.connection.changed() => match changed {
                    Ok(()) => {
                        state.in_doubt = true;
                        self.health.metrics().resubscribed(1);
                    }
                    Err(_) => return,
                },
                ask = self.asks.recv() => match ask {
                    Some(ask) => state.waiting.push(ask),
                    None => return,
                },
                message = next(&mut state.live) => {
                    if !self.take(&mut state, message) {
                        continue;
                    }
                }
                () = tokio::time::sleep_until(state.next_look) => {}
            }
            self.look_and_tell(&mut state).await;
        }
    }

    /// Takes a live message; whether the stream has to be looked at.
    fn take(&self, state: &mut State, message: Option<async_nats::Message>) -> bool {
        let Some(message) = message else {
            state.live = None;
            return true;
        };
        if state.in_doubt {
            return false;
        }
        let number_of = |field: &str| -> Option<u64> { message.headers.as_ref()?.get(field)?.as_str().parse().ok() };
        let (Some(number), Some(before)) = (number_of("Nats-Sequence"), number_of("Nats-Last-Sequence")) else {
            return false;
        };
        let Some(channel) = self.channel.upgrade() else { return false };
        let lag_ms = number_of(PUBLISHED_AT).map_or(0, |at_ms| clock::unix_ms().saturating_sub(at_ms));
        self.health.metrics().received(lag_ms * 1000);
        let Some(decoded) = journal::decode(&self.name, &message.payload) else { return true };
        match state.follow.live(&self.hub, &channel, number, before, decoded) {
            Live::Appended => false,
            Live::Known => {
                // Twice, or of another life of the stream, which began without a loss of the connection.
                state.next_look = state.next_look.min(Instant::now() + SOON);
                false
            }
            Live::Hole => true,
        }
    }

    async fn look_and_tell(&mut self, state: &mut State) {
        while let Ok(ask) = self.asks.try_recv() {
            state.waiting.push(ask);
        }
        let connection = *self.connection.borrow_and_update();
        let first = state.follow.is_new();
        let looked = match tokio::time::timeout(LOOK_TIMEOUT, self.look(state)).await {
            Ok(looked) => looked,
            Err(_) => Err("it takes too long".to_owned()),
        };
        let pause = match &looked {
            Ok(()) => {
                state.in_doubt = false;
                self.current.store(connection, Ordering::Release);
                if first { SOON } else { AUDIT_EVERY / 2 + AUDIT_EVERY * (self.name.hash32() % 1024) / 1024 }
            }
            Err(error) => {
                self.health.metrics().error();
                tracing::debug!(channel = %self.name, %error, "a channel could not be looked at");
                SOON
            }
        };
        state.next_look = Instant::now() + pause;
        for ask in state.waiting.drain(..) {
            // Who asked may have gone.
            let _ = ask.send(looked.clone());
        }
    }

    /// Brings the channel up to what the stream holds.
    async fn look(&self, state: &mut State) -> Result<(), String> {
        let _turn = self.looks.acquire().await.map_err(|error| error.to_string())?;
        let Some(channel) = self.channel.upgrade() else { return Ok(()) };
        // Before the stream is asked, so that whatever is stored later comes live.
        if state.live.is_none() {
            let subject = self.journal.live_subject(&self.name);
            state.live = Some(self.journal.client().subscribe(subject).await.map_err(|error| error.to_string())?);
        }
        // What came so far is in the stream.
        while let Some(Some(_)) = next(&mut state.live).now_or_never() {}
        let facts = self.journal.facts().await?;
        let after = state.follow.resume_after(facts.epoch, facts.last);
        let newest = self.journal.newest(&self.name).await?;
        let mut view = View {
            epoch: facts.epoch,
            end: facts.last,
            first: 0,
            per_channel_max: facts.per_channel_max,
            too_old: (0, 0),
            messages: Vec::new(),
        };
        if newest.is_none_or(|newest| newest > after) {
            if let Some(newest) = newest {
                let history = self.journal.read(&self.name, after, newest, &channel.policy()).await?;
                (view.messages, view.too_old) = (history.messages, history.passed_over);
                if after > 0 {
                    self.health.metrics().repaired();
                }
            }
            let later = self.journal.facts().await?;
            if later.epoch != facts.epoch {
                return Err("the stream was made anew meanwhile".to_owned());
            }
            view.first = later.first;
        }
        if state.follow.view(&self.hub, &channel, view) {
            self.health.metrics().history_missed();
        }
        Ok(())
    }
}

/// The next live message; never, without a subscription.
async fn next(live: &mut Option<Subscriber>) -> Option<async_nats::Message> {
    match live {
        Some(live) => live.next().await,
        None => std::future::pending().await,
    }
}
