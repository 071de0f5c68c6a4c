//! `GET /v1/channels/{channel}` and `GET /v1/channels/{channel}/presence`: what is known of a channel, over all
//! instances.

use crate::bus::{BusError, ChannelInfo};
use crate::hub::policy::Presence;
use crate::model::channel::ChannelName;
use crate::presence::{KNOWN_WITHIN, Members};
use crate::proto::presence::room::Listed;
use crate::publish::respond::{self, PublishError};
use crate::publish::settings::PublishSettings;
use crate::publish::{Room, auth};
use crate::server::Response;
use http::request::Parts;
use percent_encoding::percent_decode_str;
use serde_json::json;
use std::borrow::Cow;
use std::time::Duration;

/// Where channels are asked for; the name follows, percent-encoded.
pub(super) const CHANNELS_PATH: &str = "/v1/channels/";

/// How long the bus may take.
const DESCRIBE_TIMEOUT: Duration = Duration::from_secs(5);
/// Users or instances of one answer, unless `limit` says otherwise, and the most that it may say.
const LIMIT: usize = 100;
const LIMIT_MAX: usize = 1000;

/// What is asked of a channel.
#[derive(Debug, PartialEq, Eq)]
enum Question<'a> {
    /// Where it is, what it keeps, how many are there.
    Channel,
    /// Who is there: users, or instances, after this one, so many at most.
    Presence { after: Cow<'a, str>, limit: usize },
}

/// Answers one request; `rest` is what follows [`CHANNELS_PATH`].
pub(super) async fn answer(
    room: &Room,
    settings: &PublishSettings,
    head: &Parts,
    rest: &str,
) -> Result<Response, PublishError> {
    auth::authorize(&settings.auth, &head.headers, (room.now_secs)())?;
    let (channel, question) = read(rest, head.uri.query().unwrap_or_default())?;
    let info = timed(room.bus.describe(&channel)).await?;
    let answer = match question {
        Question::Channel => of_channel(&channel, &info),
        Question::Presence { after, limit } if room.policies.load().of(&channel).presence == Presence::Counts => {
            of_presence(&channel, info, &after, limit)
        }
        Question::Presence { after, limit } => {
            let members = timed(room.presence.members(&channel, &after, limit)).await?;
            of_members(of_presence(&channel, info, "", LIMIT_MAX), &members)
        }
    };
    Ok(respond::json(&answer))
}

async fn timed<T>(asked: impl Future<Output = Result<T, BusError>>) -> Result<T, PublishError> {
    let answered = tokio::time::timeout(DESCRIBE_TIMEOUT, asked).await;
    answered.unwrap_or_else(|_| Err(BusError::Down("it takes too long".to_owned()))).map_err(PublishError::Undescribed)
}

fn read<'a>(rest: &str, query: &'a str) -> Result<(ChannelName, Question<'a>), PublishError> {
    let not_found = || PublishError::NotFound(format!("{CHANNELS_PATH}{rest}").chars().take(128).collect());
    let (name, presence) = match rest.split_once('/') {
        None => (rest, false),
        Some((name, "presence")) => (name, true),
        Some(_) => return Err(not_found()),
    };
    let name =
        percent_decode_str(name).decode_utf8().map_err(|_| PublishError::Channel("it is no UTF-8".to_owned()))?;
    let channel = ChannelName::new(&name).map_err(|error| PublishError::Channel(error.to_string()))?;
    if !presence {
        return Ok((channel, Question::Channel));
    }
    let parameter = |name: &str| query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
    let limit = match parameter("limit") {
        None => LIMIT,
        Some(text) => {
            text.parse().ok().filter(|limit| (1..=LIMIT_MAX).contains(limit)).ok_or(PublishError::Limit(LIMIT_MAX))?
        }
    };
    let after = percent_decode_str(parameter("after").unwrap_or_default()).decode_utf8_lossy();
    Ok((channel, Question::Presence { after, limit }))
}

fn of_channel(channel: &ChannelName, info: &ChannelInfo) -> serde_json::Value {
    json!({
        "channel": channel.as_str(),
        "position": info.position.map(|position| position.to_string()),
        "history_messages": info.history_messages,
        "sessions": sessions(info),
        "instances": info.instances.len(),
        "counted_within_ms": counted_within_ms(info),
    })
}

fn of_presence(channel: &ChannelName, mut info: ChannelInfo, after: &str, limit: usize) -> serde_json::Value {
    info.instances.sort();
    let from = info.instances.partition_point(|(instance, _)| **instance <= *after);
    let page = &info.instances[from..info.instances.len().min(from.saturating_add(limit))];
    let more = from + page.len() < info.instances.len();
    let instances: Vec<_> =
        page.iter().map(|(instance, sessions)| json!({ "instance": &**instance, "sessions": sessions })).collect();
    json!({
        "channel": channel.as_str(),
        "sessions": sessions(&info),
        "instances": instances,
        "next": page.last().filter(|_| more).map(|(instance, _)| &**instance),
        "counted_within_ms": counted_within_ms(&info),
    })
}

/// The users of a channel, beside what is told of its instances.
fn of_members(mut presence: serde_json::Value, members: &Members) -> serde_json::Value {
    let member = |listed: &Listed| {
        let instances: Vec<_> = listed
            .instances
            .iter()
            .map(|(instance, member)| json!({ "instance": &**instance, "sessions": member.sessions }))
            .collect();
        json!({
            "user": &*listed.user,
            "sessions": listed.instances.iter().map(|(_, member)| u64::from(member.sessions)).sum::<u64>(),
            "since_ms": listed.instances.iter().map(|(_, member)| member.since_ms).min(),
            "instances": instances,
        })
    };
    presence["users"] = json!(members.users);
    presence["members"] = members.page.iter().map(member).collect();
    presence["next"] = json!(members.page.last().filter(|_| members.more).map(|last| &*last.user));
    presence["members_within_ms"] = json!(KNOWN_WITHIN.as_millis() as u64);
    presence
}

fn sessions(info: &ChannelInfo) -> usize {
    info.instances.iter().map(|(_, sessions)| sessions).sum()
}

fn counted_within_ms(info: &ChannelInfo) -> u64 {
    u64::try_from(info.counted_within.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(rest: &str, query: &'static str, expected: Option<(&str, Question<'_>)>) {
        let found = read(rest, query).ok();
        let expected = expected.map(|(name, question)| (ChannelName::new(name).expect("a name"), question));
        assert_eq!(found, expected, "{rest} {query}");
    }

    #[test]
    fn a_path_names_a_channel() {
        let presence = |after: &'static str, limit| Question::Presence { after: after.into(), limit };
        check("prices.ACME", "", Some(("prices.ACME", Question::Channel)));
        check("a%2Fpresence", "", Some(("a/presence", Question::Channel)));
        check("a%20%C3%BC", "limit=x", Some(("a ü", Question::Channel)));
        check("a/presence", "", Some(("a", presence("", 100))));
        check("a/presence", "limit=7&after=b", Some(("a", presence("b", 7))));
        check("a/presence", "after=%C3%BC%20b", Some(("a", presence("ü b", 100))));
        check("a/presence", "limit=1000", Some(("a", presence("", 1000))));
        for wrong in ["", "/presence", "a/", "a/b", "a/presence/", "%ff", "%00", &"x".repeat(513)] {
            check(wrong, "", None);
        }
        for wrong in ["limit=0", "limit=1001", "limit=", "limit=-1", "limit=x"] {
            check("a/presence", wrong, None);
        }
    }

    #[test]
    fn instances_are_paged() {
        let instances = ["c", "a", "b"].into_iter().zip(1..).map(|(name, sessions)| (name.into(), sessions)).collect();
        let info = ChannelInfo { instances, ..ChannelInfo::default() };
        let channel = ChannelName::new("x").expect("a name");
        let mut seen = Vec::new();
        let mut after = String::new();
        for _ in 0..3 {
            let page = of_presence(&channel, info.clone(), &after, 1);
            assert_eq!(page["sessions"], 6, "of all");
            seen.push(page["instances"][0].clone());
            let Some(next) = page["next"].as_str() else { break };
            next.clone_into(&mut after);
        }
        let expected = [("a", 2), ("b", 3), ("c", 1)].map(|(name, n)| json!({ "instance": name, "sessions": n }));
        assert_eq!(seen, expected);
        assert_eq!(of_presence(&channel, info, "c", 5)["next"], serde_json::Value::Null);
    }
}
