//! Writes one partition: what waits goes out together, one batch after the other, so that the order holds.
//!
//! Every in-sync replica has to have a batch (`acks=all`). A batch whose answer is lost is sent again; readers count it
//! once, by the serial numbers in its records.

use crate::bus::kafka::connect::ANSWER_TIMEOUT;
use crate::bus::kafka::lane::Lane;
use crate::bus::kafka::queue::Queued;
use rskafka::client::error::{Error, ProtocolError};
use rskafka::client::partition::{Compression, PartitionClient};
use rskafka::record::Record;
use std::time::Duration;

/// Messages of a batch.
const BATCH_MESSAGES_MAX: usize = 512;
/// Bytes of a batch, unless it is one message: Kafka's default bound is 1 MiB.
const BATCH_BYTES_MAX: usize = 512 * 1024;
/// How often it is looked whether the partition's life has to be begun.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Writes until something fails.
///
/// # Errors
/// It ends with one only.
pub async fn write(lane: &Lane, client: &PartitionClient) -> Result<(), String> {
    let mut queued = lane.queued.lock().await;
    let mut next: Option<Queued> = None;
    loop {
        let first = match next.take() {
            Some(first) => first,
            None => match queued.recv().await {
                Some(first) => first,
                None => return Err("the bus was stopped".to_owned()),
            },
        };
        let mut bytes = 0;
        let mut batch = Vec::new();
        let mut candidate = Some(first);
        while let Some(message) = candidate {
            if message.is_wanted() {
                bytes += message.size_bytes();
                if !batch.is_empty() && bytes > BATCH_BYTES_MAX {
                    next = Some(message);
                    break;
                }
                batch.push(message);
            }
            candidate = if batch.len() < BATCH_MESSAGES_MAX { queued.try_recv().ok() } else { None };
        }
        let records = lane.stamp(batch);
        if !records.is_empty() {
            send(lane, client, records).await?;
        }
    }
}

async fn send(lane: &Lane, client: &PartitionClient, records: Vec<Record>) -> Result<(), String> {
    match tokio::time::timeout(ANSWER_TIMEOUT * 2, client.produce(records, Compression::NoCompression)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(Error::ServerError { protocol_error: ProtocolError::MessageTooLarge, .. })) => {
            lane.refuse_pending(
                "the message is over the topic's max.message.bytes; raise that, or lower max_message_bytes",
            );
            Ok(())
        }
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("a broker does not answer".to_owned()),
    }
}

/// Begins the partition's life, where nothing tells of one.
///
/// # Errors
/// It ends with one only.
pub async fn begin_lives(lane: &Lane, client: &PartitionClient) -> Result<(), String> {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        if !lane.is_caught_up() {
            continue;
        }
        if let Some(record) = lane.stamp_epoch() {
            send(lane, client, vec![record]).await?;
            // It is read soon; another one would begin nothing, but stay in the log.
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}
