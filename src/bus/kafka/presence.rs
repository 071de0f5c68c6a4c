//! Which instances have sessions on a channel: they are asked in the topic, and those that live answer there.

use crate::bus::BusError;
use crate::bus::kafka::down;
use crate::bus::kafka::lane::Lane;
use crate::bus::kafka::note::Note;
use crate::bus::kafka::queue::{Content, Queued};
use crate::model::channel::ChannelName;
use std::collections::HashMap;
use std::time::Duration;
use tokio::sync::broadcast::error::RecvError;

/// How long answers are waited for.
pub const PATIENCE: Duration = Duration::from_millis(500);
/// A question that is older than this is answered no more: who asked has gone.
pub const QUESTION_MS_MAX: u64 = 10_000;
/// Answers that are read at most.
const INSTANCES_MAX: usize = 1000;

/// What an instance said.
#[derive(Debug, Clone)]
pub struct Here {
    /// Of which channel.
    pub channel: ChannelName,
    /// Which instance.
    pub instance: u64,
    /// How many sessions it has there.
    pub sessions: usize,
}

/// The sessions on the channel, by instance.
pub async fn ask(lane: &Lane, channel: &ChannelName) -> Result<Vec<(Box<str>, usize)>, BusError> {
    let mut answers = lane.here.subscribe();
    let question = Queued { content: Content::Note(Note::Who(channel.clone())), told: None };
    lane.queue.try_send(question).map_err(|_| down("too many messages wait to be written"))?;
    let mut instances = HashMap::new();
    let own = lane.hub.find(channel.as_str()).map_or(0, |channel| channel.sessions());
    if own > 0 {
        instances.insert(lane.instance, own);
    }
    let collect = async {
        while instances.len() < INSTANCES_MAX {
            match answers.recv().await {
                Ok(here) if here.channel == *channel && here.instance != lane.instance => {
                    instances.insert(here.instance, here.sessions);
                }
                // Answers about channels that others asked for may push some out.
                Ok(_) | Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => break,
            }
        }
    };
    // There is no last answer: the time decides.
    let _ = tokio::time::timeout(PATIENCE, collect).await;
    Ok(instances.into_iter().map(|(instance, sessions)| (format!("{instance:016x}").into(), sessions)).collect())
}

/// Answers another instance's question, if there is something to say.
pub fn answer(lane: &Lane, channel: ChannelName) {
    let sessions = lane.hub.find(channel.as_str()).map_or(0, |channel| channel.sessions());
    if sessions > 0
        && lane.queue.try_send(Queued { content: Content::Note(Note::Here(channel, sessions)), told: None }).is_err()
    {
        tracing::debug!(partition = lane.index, "a question of another instance was not answered");
    }
}
