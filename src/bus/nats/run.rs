//! The thread of the bus: connects, keeps watch over the connection, and lets channels go that nobody is on.

use crate::bus::nats::journal::{Journal, MARK_EVERY_MS, Wanted};
use crate::bus::nats::{Shared, connect, presence};
use async_nats::Event;
use async_nats::connection::State;
use futures_util::StreamExt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};

/// How often the server is asked whether it works, beside its signs of life.
const WATCH_EVERY: Duration = Duration::from_millis(1000);
/// How often it is asked while it does not.
const RETRY_EVERY: Duration = Duration::from_millis(100);
/// A channel without sessions is followed a while longer: its clients may come back.
const LINGER_US: u64 = 10_000_000;
const EVENTS_MAX: usize = 64;

/// Runs until it is dropped.
pub async fn run(shared: &Arc<Shared>) {
    let (send, mut events) = mpsc::channel(EVENTS_MAX);
    let journal = loop {
        match open(shared, send.clone()).await {
            Ok(journal) => break Arc::new(journal),
            Err(error) => {
                shared.health.down(&error);
                tokio::time::sleep(WATCH_EVERY).await;
            }
        }
    };
    let _ = shared.journal.set(Arc::clone(&journal));
    tokio::join!(watch(shared, &journal, &mut events), answer(shared, &journal));
}

async fn open(shared: &Shared, events: mpsc::Sender<Event>) -> Result<Journal, String> {
    let client = connect::connect(&shared.settings, events).await?;
    let wanted = Wanted::of(&shared.hub.policies(), shared.window);
    Journal::new(client, &shared.settings, wanted).await
}

/// Says whether the bus is up, and begins anew after each loss.
async fn watch(shared: &Shared, journal: &Journal, events: &mut mpsc::Receiver<Event>) {
    let mut marked: Option<Instant> = None;
    let mut adjusted = false;
    let mut tidied = Instant::now();
    loop {
        let pause = if shared.health.is_up() { WATCH_EVERY } else { RETRY_EVERY };
        let event = tokio::time::timeout(pause, events.recv()).await;
        match &event {
            // What followed on the old connection is in doubt, even if the loss was never seen here.
            Ok(Some(Event::Connected | Event::SlowConsumer(_))) => renew(shared),
            Ok(Some(Event::Disconnected)) => shared.health.down("the connection was lost"),
            Ok(Some(Event::ServerError(error))) => tracing::debug!(%error, "NATS"),
            Ok(Some(Event::ClientError(error))) => shared.health.down(&error.to_string()),
            _ => {}
        }
        if journal.client().connection_state() != State::Connected {
            shared.health.down("no server answers");
            tokio::time::sleep(RETRY_EVERY).await;
            continue;
        }
        if let Err(error) = check(journal, &mut adjusted, &mut marked).await {
            shared.health.down(&error);
        } else if !shared.health.is_up() {
            renew(shared);
            shared.health.up();
        }
        if tidied.elapsed() >= WATCH_EVERY {
            tidied = Instant::now();
            retire(shared);
        }
    }
}

fn renew(shared: &Shared) {
    shared.connection.send_modify(|count| *count += 1);
}

/// Asks the stream for a sign of life, and does what is due.
async fn check(journal: &Journal, adjusted: &mut bool, marked: &mut Option<Instant>) -> Result<(), String> {
    if !*adjusted {
        journal.adjust().await?;
        *adjusted = true;
    }
    if marked.is_none_or(|at| at.elapsed() >= Duration::from_millis(MARK_EVERY_MS)) {
        journal.mark().await?;
        *marked = Some(Instant::now());
    }
    journal.facts().await.map(drop)
}

/// Ends the tasks of channels that nobody has been on for a while.
fn retire(shared: &Shared) {
    let now_us = shared.hub.clock().now_us();
    for turn in 0..shared.hub.partitions() {
        shared.hub.retire(turn, |channel| {
            let mut followers = shared.followers.lock();
            let Some(followed) = followers.get_mut(&channel.name) else { return true };
            let since_us = *followed.idle_since_us.get_or_insert(now_us);
            let over = now_us.saturating_sub(since_us) >= LINGER_US;
            if over {
                followers.remove(&channel.name);
                shared.health.metrics().set_channels(followers.len());
            }
            over
        });
    }
    // Those whose channel the hub forgot by itself.
    shared.followers.lock().retain(|_, followed| followed.channel.strong_count() > 0);
}

/// Answers other instances.
async fn answer(shared: &Shared, journal: &Journal) {
    let mut pause = tokio::time::interval(WATCH_EVERY);
    pause.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        match journal.client().subscribe(presence::subject(shared)).await {
            Ok(mut questions) => {
                while let Some(question) = questions.next().await {
                    presence::answer(shared, journal, question).await;
                }
            }
            Err(error) => tracing::debug!(%error, "other instances can't ask"),
        }
        pause.tick().await;
    }
}
