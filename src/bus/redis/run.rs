//! The thread of the bus: connects, follows, keeps time, and begins anew when the connection is lost.

use crate::bus::redis::Shared;
use crate::bus::redis::connect::{Connection, Link};
use crate::bus::redis::lease;
use crate::bus::redis::script::{self, PAGE_ENTRIES_MAX};
use crate::bus::thread::Stopped;
use crate::hub::clock;
use crate::model::channel::ChannelName;
use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use futures_util::StreamExt;
use futures_util::stream::{self, FuturesUnordered};
use redis::{PushInfo, PushKind, RedisError, Value};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;

/// Live messages that wait to be taken, at most; what does not fit is read from the history.
const PUSHES_MAX: usize = 16 * 1024;
/// Channels that are subscribed to by one command.
const SUBSCRIBES_MAX: usize = 256;
/// Histories that are read at once.
const READS_MAX: usize = 64;
const PING_EVERY: Duration = Duration::from_secs(2);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(8);
const BACKOFF_MS_MIN: u64 = 100;
const BACKOFF_MS_MAX: u64 = 5_000;
/// Each channel is looked at this often without any cause: it is then remembered longer, and lost data is found.
const DOUBT_EVERY_TICKS: usize = 300;
/// How long what an instance told of a channel is remembered without another word; it counts while the instance's own
/// lease runs.
const REMEMBERED_MS: u64 = 90_000;
const PRESENCE_STALE_US: u64 = 30_000_000;
/// How old the counts of a channel's sessions may be: changes are told within a second or two, a lease ends in 15 s, and
/// what Redis lost is told anew in this time.
pub const COUNTED_WITHIN: Duration = Duration::from_micros(PRESENCE_STALE_US);
const PRESENCE_MAX: usize = 2_000;
const FAREWELL_TIMEOUT: Duration = Duration::from_millis(800);

/// Runs until `stopped`.
pub async fn run(shared: Arc<Shared>, mut stopped: Stopped) {
    let mut attempt = 0;
    loop {
        let (send, pushes) = mpsc::channel(PUSHES_MAX);
        let overflow = Arc::new(AtomicBool::new(false));
        let full = Arc::clone(&overflow);
        let on_push = Arc::new(move |push: PushInfo| {
            if send.try_send(push).is_err() {
                full.store(true, Ordering::Release);
            }
        });
        let opened = tokio::select! {
            opened = tokio::time::timeout(CONNECT_TIMEOUT, Link::open(&shared.settings, on_push)) => opened,
            () = stopped.wait() => return,
        };
        let reason = match opened {
            Ok(Ok(link)) => {
                attempt = 0;
                shared.link.store(Some(Arc::new(link.clone())));
                shared.health.up();
                let reason = tokio::select! {
                    reason = serve(&shared, &link, pushes, &overflow) => reason,
                    () = stopped.wait() => return farewell(&shared, &link).await,
                };
                // First, so that whoever asks from now on is refused at once.
                shared.link.store(None);
                shared.follows.lose();
                reason
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => "it does not answer".to_owned(),
        };
        shared.health.down(&reason);
        tokio::select! {
            () = tokio::time::sleep(pause(attempt)) => {}
            () = stopped.wait() => return,
        }
        attempt += 1;
    }
}

/// Works while the connection stands; why it does not any more.
async fn serve(shared: &Shared, link: &Link, pushes: mpsc::Receiver<PushInfo>, overflow: &AtomicBool) -> String {
    let channels = shared.follows.resume();
    shared.health.metrics().resubscribed(channels as u64);
    tokio::select! {
        reason = receive(shared, link, pushes, overflow) => reason,
        error = follow(shared, link) => error.to_string(),
        error = beat(shared, link) => error.to_string(),
        error = keep_time(shared, link) => error.to_string(),
        error = lease::keep(shared, link) => error.to_string(),
    }
}

/// Takes live messages.
async fn receive(shared: &Shared, link: &Link, mut pushes: mpsc::Receiver<PushInfo>, overflow: &AtomicBool) -> String {
    while let Some(push) = pushes.recv().await {
        if overflow.swap(false, Ordering::AcqRel) {
            shared.health.metrics().repaired();
            shared.follows.doubt();
        }
        match (push.kind, push.data.as_slice()) {
            (PushKind::Message | PushKind::SMessage, [Value::BulkString(live), Value::BulkString(payload)]) => {
                let Some((name, (epoch, stored))) = shared.keys.channel_of(live).zip(script::parse_live(payload))
                else {
                    shared.health.metrics().error();
                    continue;
                };
                shared.health.metrics().received(clock::unix_ms().saturating_sub(stored.taken_ms).saturating_mul(1000));
                shared.follows.live(&name, epoch, stored);
            }
            (PushKind::SUnsubscribe, [Value::BulkString(live), ..]) => {
                // The slot went to another node.
                if let Some(name) = shared.keys.channel_of(live) {
                    shared.follows.doubt_one(&name, Some(()));
                }
            }
            (PushKind::Disconnection, _) => match link.commands {
                Connection::One(_) => return "the connection was closed".to_owned(),
                // The library connects to the node anew, and subscribes.
                Connection::Cluster(_) => shared.follows.doubt(),
            },
            _ => {}
        }
    }
    "the connection was closed".to_owned()
}

/// Subscribes and reads what is wanted.
async fn follow(shared: &Shared, link: &Link) -> RedisError {
    let mut reads = FuturesUnordered::new();
    loop {
        let work = shared.follows.work(SUBSCRIBES_MAX, READS_MAX - reads.len());
        let more = !work.subscribe.is_empty() || !work.read.is_empty();
        if !work.subscribe.is_empty() {
            let live: Vec<_> = work.subscribe.iter().map(|name| shared.keys.of(name).live).collect();
            if let Err(error) = link.subscribe(&live).await {
                return error;
            }
            shared.follows.subscribed(&work.subscribe);
        }
        reads.extend(work.read.into_iter().map(|name| read(shared, link, name)));
        if more && reads.len() < READS_MAX {
            continue;
        }
        tokio::select! {
            Some(read) = reads.next() => if let Err(error) = read {
                return error;
            },
            () = shared.follows.worked_up(), if reads.len() < READS_MAX => {}
        }
    }
}

/// Reads what a channel's log does not have yet.
async fn read(shared: &Shared, link: &Link, name: ChannelName) -> Result<(), RedisError> {
    let (keys, policy) = (shared.keys.of(&name), shared.follows.hub().policy(&name));
    let Some((reading, mut place)) = shared.follows.begin(&name) else { return Ok(()) };
    loop {
        let from = place.position.map_or(0, |position| position.offset);
        let page = shared
            .scripts
            .read(link, &keys, place, from, &policy)
            .await
            .inspect_err(|_| shared.health.metrics().error())?;
        let full = page.entries.len() >= PAGE_ENTRIES_MAX;
        shared.follows.page(&name, reading, page);
        match shared.follows.known(&name, reading) {
            Some(next) if full => place = next,
            _ => break,
        }
    }
    shared.follows.finish(&name, reading);
    Ok(())
}

/// Looks whether the connections live, every now and then and when somebody had trouble.
async fn beat(shared: &Shared, link: &Link) -> RedisError {
    loop {
        if let Err(error) = link.ping().await {
            return error;
        }
        let _ = tokio::time::timeout(PING_EVERY, shared.trouble.notified()).await;
    }
}

/// Stops following what nobody needs, renews what is followed, and tells who is here.
async fn keep_time(shared: &Shared, link: &Link) -> RedisError {
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (mut turn, mut doubted) = (0, Vec::new());
    let clock = shared.follows.hub().clock();
    loop {
        ticks.tick().await;
        let mut gone = Vec::new();
        for _ in 0..shared.follows.hub().partitions() / 4 {
            gone.extend(shared.follows.retire(turn, clock.now_us()));
            turn += 1;
        }
        gone.extend(shared.follows.forget_forgotten());
        for gone in gone.chunks(SUBSCRIBES_MAX) {
            let live: Vec<_> = gone.iter().map(|name| shared.keys.of(name).live).collect();
            if let Err(error) = link.unsubscribe(&live).await {
                return error;
            }
            for name in gone {
                // Somebody may have come since, and have been subscribed before that.
                shared.follows.doubt_one(name, Some(()));
                let _ = tell(shared, link, name, 0).await;
            }
        }
        if doubted.is_empty() {
            doubted = shared.follows.names();
        }
        let share = (doubted.len() / DOUBT_EVERY_TICKS).max(usize::from(turn.is_multiple_of(DOUBT_EVERY_TICKS)));
        for name in doubted.drain(..share.min(doubted.len())) {
            shared.follows.doubt_one(&name, None);
        }
        let here = shared.follows.presence(clock.now_us(), PRESENCE_STALE_US, PRESENCE_MAX);
        let tells = stream::iter(here).map(|(name, sessions)| async move { tell(shared, link, &name, sessions).await });
        let told: Vec<_> = tells.buffer_unordered(READS_MAX).collect().await;
        if let Some(error) = told.into_iter().find_map(Result::err) {
            return error;
        }
    }
}

/// Other instances need not wait for the end of this one's leases.
async fn farewell(shared: &Shared, link: &Link) {
    shared.link.store(None);
    let _ = tokio::time::timeout(FAREWELL_TIMEOUT, lease::end(shared, link)).await;
    let told = shared.follows.told();
    let tells = stream::iter(told).map(|name| async move { tell(shared, link, &name, 0).await });
    let all = tells.buffer_unordered(READS_MAX).for_each(|_| std::future::ready(()));
    let _ = tokio::time::timeout(FAREWELL_TIMEOUT, all).await;
}

async fn tell(shared: &Shared, link: &Link, name: &ChannelName, sessions: usize) -> Result<(), RedisError> {
    shared.scripts.here(link, &shared.keys.of(name), &shared.instance, sessions, REMEMBERED_MS).await
}

/// Doubles with each attempt; a random half of it, so that instances do not come all at once.
fn pause(attempt: u32) -> Duration {
    let longest_ms = BACKOFF_MS_MIN.saturating_mul(1 << attempt.min(16)).min(BACKOFF_MS_MAX);
    let mut byte = [0x80];
    let _ = SystemRandom::new().fill(&mut byte);
    Duration::from_millis(longest_ms / 2 + longest_ms / 2 * u64::from(byte[0]) / 255)
}
