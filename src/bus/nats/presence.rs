//! Which instances have sessions on a channel: they are asked, and those that live answer.

use crate::bus::BusError;
use crate::bus::nats::journal::Journal;
use crate::bus::nats::{Shared, down};
use crate::model::channel::ChannelName;
use async_nats::Message;
use futures_util::StreamExt;
use std::time::Duration;

/// How long answers are waited for.
pub const PATIENCE: Duration = Duration::from_millis(200);
/// Answers that are read at most.
const INSTANCES_MAX: usize = 1000;

/// Where the question is put.
pub fn subject(shared: &Shared) -> String {
    format!("{}.who", shared.settings.prefix)
}

/// The sessions on the channel, by instance.
pub async fn ask(
    shared: &Shared,
    journal: &Journal,
    channel: &ChannelName,
) -> Result<Vec<(Box<str>, usize)>, BusError> {
    let failed = |error: &dyn std::fmt::Display| down(&error.to_string());
    let client = journal.client();
    let inbox = client.new_inbox();
    let mut answers = client.subscribe(inbox.clone()).await.map_err(|error| failed(&error))?;
    let question = channel.as_str().as_bytes().to_vec().into();
    client.publish_with_reply(subject(shared), inbox, question).await.map_err(|error| failed(&error))?;
    let mut instances = Vec::new();
    let own = shared.hub.find(channel.as_str()).map_or(0, |channel| channel.sessions());
    if own > 0 {
        instances.push((shared.instance.as_str().into(), own));
    }
    let collect = async {
        while let Some(answer) = answers.next().await {
            match parse(&answer.payload) {
                Some((instance, sessions)) if *instance != *shared.instance => instances.push((instance, sessions)),
                _ => {}
            }
            if instances.len() >= INSTANCES_MAX {
                break;
            }
        }
    };
    // There is no last answer: the time decides.
    let _ = tokio::time::timeout(PATIENCE, collect).await;
    Ok(instances)
}

/// Answers another instance's question, if there is something to say.
pub async fn answer(shared: &Shared, journal: &Journal, question: Message) {
    let Some(reply) = question.reply else { return };
    let Ok(name) = std::str::from_utf8(&question.payload) else { return };
    let sessions = shared.hub.find(name).map_or(0, |channel| channel.sessions());
    if sessions > 0 {
        let text = format!("{} {sessions}", shared.instance);
        if let Err(error) = journal.client().publish(reply, text.into()).await {
            tracing::debug!(%error, "a question of another instance was not answered");
        }
    }
}

fn parse(payload: &[u8]) -> Option<(Box<str>, usize)> {
    let (instance, sessions) = std::str::from_utf8(payload).ok()?.split_once(' ')?;
    Some((instance.into(), sessions.parse().ok()?))
}
