//! Reads one partition from a while back to its end, and on from there; and looks back for a channel's history.

use crate::bus::kafka::connect::ANSWER_TIMEOUT;
use crate::bus::kafka::knowledge::{Backlog, ID_DISTANCE_MAX};
use crate::bus::kafka::lane::Lane;
use crate::bus::kafka::record::{self, Incoming, Read, number_of, offset_after};
use crate::clock::unix_ms;
use crate::hub::channel::Channel;
use crate::model::channel::ChannelName;
use crate::model::message::Message;
use rskafka::chrono::DateTime;
use rskafka::client::error::{Error, ProtocolError};
use rskafka::client::partition::{OffsetAt, PartitionClient};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

/// What one answer holds at most.
const FETCH_BYTES: Range<i32> = 1..4 * 1024 * 1024;
/// What one answer holds at most that serves a single channel.
const LOOK_BYTES: Range<i32> = 1..256 * 1024;
/// How long reading one channel's history may take.
const LOOK_TIMEOUT: Duration = Duration::from_secs(4);

/// Reads until something fails; `ready` hears when the end is reached for the first time.
///
/// # Errors
/// It ends with one only.
pub async fn read(
    lane: &Lane,
    client: &PartitionClient,
    window_ms: u64,
    wait: Duration,
    mut ready: impl FnMut(),
) -> Result<(), String> {
    if lane.read() == 0 {
        begin(lane, client, window_ms).await?;
    }
    let mut is_told = false;
    loop {
        let offset = offset_after(lane.read());
        let wait_ms = wait.as_millis() as i32;
        let fetched = tokio::time::timeout(wait + ANSWER_TIMEOUT, client.fetch_records(offset, FETCH_BYTES, wait_ms));
        match fetched.await {
            Err(_) => return Err("a broker does not answer".to_owned()),
            Ok(Ok((records, end))) => {
                lane.take(&records)?;
                if !is_told && offset_after(lane.read()) >= end && lane.catch_up() {
                    is_told = true;
                    ready();
                }
            }
            Ok(Err(Error::ServerError { protocol_error: ProtocolError::OffsetOutOfRange, .. })) => {
                find_place(lane, client, window_ms).await?;
            }
            Ok(Err(error)) => return Err(error.to_string()),
        }
    }
}

/// Begins a while before the end: ids count for `window_ms`, and those of the first such stretch are only looked at. The
/// sessions that are kept are read, too.
async fn begin(lane: &Lane, client: &PartitionClient, window_ms: u64) -> Result<(), String> {
    let now_ms = unix_ms();
    let oldest = ask(client, OffsetAt::Earliest).await?;
    let end = ask(client, OffsetAt::Latest).await?;
    let since_ms = i64::try_from(now_ms.saturating_sub((2 * window_ms).max(lane.sessions_ttl_ms()))).unwrap_or(0);
    let since = ask(client, OffsetAt::Timestamp(DateTime::from_timestamp_millis(since_ms).unwrap_or_default())).await?;
    // Without a record that new the answer is none.
    let by_time = if since >= 0 { since } else { oldest };
    let by_count = end - i64::try_from(2 * ID_DISTANCE_MAX).unwrap_or(i64::MAX);
    let start = oldest.max(by_time).max(by_count);
    lane.begin(u64::try_from(start).unwrap_or(0), now_ms.saturating_sub(window_ms));
    Ok(())
}

/// The place where reading should go on is not there: what stood there was removed, or the partition's end was lost.
async fn find_place(lane: &Lane, client: &PartitionClient, window_ms: u64) -> Result<(), String> {
    let oldest = ask(client, OffsetAt::Earliest).await?;
    if oldest > offset_after(lane.read()) {
        lane.miss(u64::try_from(oldest).unwrap_or(0));
        return Ok(());
    }
    begin(lane, client, window_ms).await
}

async fn ask(client: &PartitionClient, at: OffsetAt) -> Result<i64, String> {
    match tokio::time::timeout(ANSWER_TIMEOUT, client.get_offset(at)).await {
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(_) => Err("a broker does not answer".to_owned()),
    }
}

/// Waits until what a cursor from elsewhere may have seen has been read here, too.
///
/// # Errors
/// When the broker can't be asked.
pub async fn reach(lane: &Lane, number: u64) -> Result<(), String> {
    let Some(client) = lane.history.load_full() else { return Err("no broker can be reached".to_owned()) };
    let end = ask(&client, OffsetAt::Latest).await?;
    // A cursor may claim anything; beyond the end there is nothing to wait for.
    lane.reach(number.min(u64::try_from(end).unwrap_or(0))).await;
    Ok(())
}

/// Reads a channel's history, until it is current or that fails.
pub async fn fill(lane: Arc<Lane>, channel: Arc<Channel>, looks: Arc<Semaphore>) {
    let filled = async {
        let _turn = looks.acquire().await.map_err(|error| error.to_string())?;
        // What was published before belongs to the history, also where it has not been read here yet.
        reach(&lane, u64::MAX).await?;
        loop {
            let Some(mut backlog) = lane.backlog(&channel) else { return Err("the topic lost data".to_owned()) };
            let messages = look_back(&lane, &channel.name, &mut backlog).await?;
            if lane.fill(&channel, &backlog, messages) {
                return Ok(());
            }
        }
    };
    let filled = tokio::time::timeout(LOOK_TIMEOUT, filled).await;
    if let Err(error) = filled.unwrap_or_else(|_| Err("reading the history takes too long".to_owned())) {
        tracing::debug!(channel = %channel.name, %error, "a channel's history could not be read");
        lane.fail_fill(&channel.name, &error);
    }
}

/// Reads the messages with the backlog's numbers. Where one is gone, the backlog begins after it.
async fn look_back(lane: &Lane, name: &ChannelName, backlog: &mut Backlog) -> Result<Vec<(u64, Message)>, String> {
    let mut messages = Vec::with_capacity(backlog.numbers.len());
    let mut wanted = backlog.numbers.iter().copied().peekable();
    if wanted.peek().is_none() {
        return Ok(messages);
    }
    let client = lane.history.load_full().ok_or_else(|| "no broker can be reached".to_owned())?;
    let mut gone = backlog.after;
    while let Some(&number) = wanted.peek() {
        let fetched = client.fetch_records(offset_after(number - 1), LOOK_BYTES, 0).await;
        let records = match fetched {
            Ok((records, _)) => records,
            Err(Error::ServerError { protocol_error: ProtocolError::OffsetOutOfRange, .. }) => {
                let oldest = u64::try_from(ask(&client, OffsetAt::Earliest).await?).unwrap_or(0);
                while let Some(number) = wanted.next_if(|number| *number <= oldest) {
                    gone = number;
                }
                if oldest < number {
                    return Err("the partition's end was lost".to_owned());
                }
                continue;
            }
            Err(error) => return Err(error.to_string()),
        };
        let Some(last) = records.last().map(|read| number_of(read.offset)) else {
            return Err("a broker gave nothing where something stands".to_owned());
        };
        let mut records = records.iter().peekable();
        while let Some(number) = wanted.next_if(|number| *number <= last) {
            while records.next_if(|read| number_of(read.offset) < number).is_some() {}
            let read = records.next_if(|read| number_of(read.offset) == number).and_then(record::decode);
            match read {
                Some(Read::Incoming(Incoming { message: Some(message), .. })) if message.channel == *name => {
                    messages.push((number, message));
                }
                _ => gone = number,
            }
        }
    }
    messages.retain(|(number, _)| *number > gone);
    backlog.after = gone;
    Ok(messages)
}
