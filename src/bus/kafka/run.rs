//! The thread of the bus: connects, reads and writes all partitions, and lets channels go that nobody is on.

use crate::bus::kafka::connect::Link;
use crate::bus::kafka::{Lanes, Shared, fresh_number, reader, writer};
use futures_util::future::{BoxFuture, try_join_all};
use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How often channels are looked after.
const TIDY_EVERY: Duration = Duration::from_secs(1);
/// How often the topic's partitions are counted.
const COUNT_EVERY: Duration = Duration::from_secs(60);
/// A channel without sessions is followed a while longer: its clients may come back.
const LINGER_US: u64 = 10_000_000;
const BACKOFF_MS_MIN: u64 = 50;
const BACKOFF_MS_MAX: u64 = 5_000;

/// Runs until it is dropped.
pub async fn run(shared: &Arc<Shared>) {
    let mut attempts = 0;
    loop {
        let reason = match Link::open(&shared.settings).await {
            Ok(link) => {
                attempts = 0;
                serve(shared, &link).await
            }
            Err(reason) => reason,
        };
        shared.health.down(&reason);
        shared.health.metrics().error();
        if let Some(lanes) = shared.lanes.load_full() {
            for lane in &lanes.all {
                lane.history.store(None);
                lane.fail_pending(&reason);
            }
        }
        tokio::time::sleep(pause(attempts, fresh_number())).await;
        attempts += 1;
    }
}

/// Serves over one connection, until something fails: why.
async fn serve(shared: &Arc<Shared>, link: &Link) -> String {
    let lanes = shared.lanes_of(link.partitions.len());
    let waiting = Cell::new(lanes.all.len());
    let window_ms = shared.window_ms();
    let mut tasks: Vec<LocalTask<'_>> = Vec::new();
    for (lane, clients) in lanes.all.iter().zip(&link.partitions) {
        lane.history.store(Some(Arc::clone(&clients.history)));
        let ready = || {
            waiting.set(waiting.get() - 1);
            if waiting.get() == 0 {
                shared.health.metrics().resubscribed(lanes.all.iter().map(|lane| lane.tidy() as u64).sum());
                shared.health.up();
            }
        };
        tasks.push(Box::pin(reader::read(lane, &clients.read, window_ms, shared.wait, ready)));
        tasks.push(Box::pin(writer::write(lane, &clients.write)));
        tasks.push(Box::pin(writer::begin_lives(lane, &clients.write)));
    }
    tasks.push(Box::pin(look_after(shared, &lanes, link)));
    match try_join_all(tasks).await {
        Err(reason) => reason,
        Ok(_) => "the bus was stopped".to_owned(),
    }
}

type LocalTask<'a> = std::pin::Pin<Box<dyn Future<Output = Result<(), String>> + 'a>>;

/// What is due from time to time.
async fn look_after(shared: &Arc<Shared>, lanes: &Arc<Lanes>, link: &Link) -> Result<(), String> {
    let mut counted = Instant::now();
    loop {
        tokio::time::sleep(TIDY_EVERY).await;
        retire(shared, lanes);
        if shared.health.is_up() {
            shared.adopt_orphans(lanes);
        }
        if counted.elapsed() >= COUNT_EVERY {
            counted = Instant::now();
            if link.count(&shared.settings).await? as usize != lanes.all.len() {
                return Err("the topic has got more partitions".to_owned());
            }
        }
    }
}

/// Ends the following of channels that nobody has been on for a while.
fn retire(shared: &Shared, lanes: &Lanes) {
    let now_us = shared.hub.clock().now_us();
    for turn in 0..shared.hub.partitions() {
        shared.hub.retire(turn, |channel| lanes.of(&channel.name).retire(&channel.name, now_us, LINGER_US));
    }
    shared.health.metrics().set_channels(lanes.all.iter().map(|lane| lane.tidy()).sum());
}

/// Doubles from attempt to attempt; instances that lost the brokers together come back one after the other.
fn pause(attempts: u32, dice: u64) -> Duration {
    let most_ms = (BACKOFF_MS_MIN << attempts.min(10)).min(BACKOFF_MS_MAX);
    Duration::from_millis(most_ms / 2 + dice % (most_ms / 2 + 1))
}

/// Follows channels that were followed before, and have sessions: `BoxFuture` so that it can be spawned.
pub fn refollow(
    shared: Arc<Shared>,
    lanes: Arc<Lanes>,
    name: crate::model::channel::ChannelName,
) -> BoxFuture<'static, ()> {
    Box::pin(async move {
        let Some(channel) = shared.hub.find(name.as_str()) else { return };
        if shared.follow(&lanes, &channel).await.is_err() {
            shared.orphans.lock().push(name);
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound_and_differ() {
        for attempts in [0, 1, 5, 20, u32::MAX] {
            let pauses: Vec<_> = (0..20).map(|dice| pause(attempts, dice * 7919).as_millis() as u64).collect();
            assert!(pauses.iter().all(|ms| (BACKOFF_MS_MIN / 2..=BACKOFF_MS_MAX).contains(ms)), "{pauses:?}");
            assert!(pauses.windows(2).any(|pair| pair[0] != pair[1]), "{pauses:?}");
        }
    }
}
