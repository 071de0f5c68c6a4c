//! `POST /publish/` and `POST /recover`: what GRIP libraries publish with.

use crate::bus::sequences::Taken;
use crate::bus::{BusError, Published};
use crate::model::message::Message;
use crate::proto::grip::items;
use crate::proto::json::push_string;
use crate::publish::respond::{self, PublishError};
use crate::publish::settings::PublishSettings;
use crate::publish::{Room, auth, body, media};
use crate::server::body::Body;
use crate::server::{Request, Response};
use crate::telemetry::metrics::PublishResult;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue, ORIGIN};
use std::fmt::Write;
use std::rc::Rc;

/// Where items are POSTed.
pub(super) const PUBLISH_PATHS: [&str; 2] = ["/publish/", "/publish"];
/// Where a publisher says that it has lost count.
pub(super) const RECOVER_PATH: &str = "/recover";

/// What became of one item, for the JSON answer.
struct Outcome {
    channel: Box<str>,
    taken: Taken,
}

/// Whether errors of a request are told as text, as its clients expect.
pub(super) fn answers_plainly(request: &Request) -> bool {
    let path = request.uri().path();
    (PUBLISH_PATHS.contains(&path) || path == RECOVER_PATH) && !accepts_json(request.headers())
}

/// Publishes the items of a request, or none.
pub(super) async fn publish(
    room: &Rc<Room>,
    settings: &PublishSettings,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, PublishError> {
    auth::authorize(&settings.auth, headers, (room.now_secs)())?;
    media::plain_coding(headers)?;
    // Libraries and curl send what type they like; a page's form comes with its origin.
    if headers.contains_key(ORIGIN) && !media::is_json(headers) {
        return Err(PublishError::FormOfPage);
    }
    let body = body::whole(body, settings.body_bytes_max, room.waits).await?;
    let messages = items::decode(&body)?;
    drop(body);
    check_sizes(room, &messages)?;
    let mut outcomes = Vec::with_capacity(messages.len());
    for message in messages {
        room.bus.paced(&message.channel).await;
        tokio::task::consume_budget().await;
        outcomes.push(one(room, message).await?);
    }
    Ok(published(&outcomes, accepts_json(headers)))
}

/// Makes every reliable session ask its backend again.
pub(super) async fn recover(
    room: &Rc<Room>,
    settings: &PublishSettings,
    headers: &HeaderMap,
) -> Result<Response, PublishError> {
    auth::authorize(&settings.auth, headers, (room.now_secs)())?;
    if headers.contains_key(ORIGIN) && !media::is_json(headers) {
        return Err(PublishError::FormOfPage);
    }
    room.sequences.recover().await;
    tracing::info!("grip sessions recover, as a publisher asked");
    Ok(match accepts_json(headers) {
        true => json("{\"message\":\"Updated\"}".to_owned()),
        false => respond::text(Body::full("Updated\n")),
    })
}

async fn one(room: &Rc<Room>, message: Message) -> Result<Outcome, PublishError> {
    let channel = message.channel.as_str().into();
    let bytes = message.size_bytes();
    let taken = room.sequences.publish(&room.bus, message).await;
    room.metrics.published(
        match &taken {
            Ok(Taken::Published(Published { duplicate: false, .. }) | Taken::Parked) => PublishResult::Accepted,
            Ok(Taken::Published(_) | Taken::Repeated) => PublishResult::Duplicate,
            Err(BusError::Moved { .. }) => PublishResult::Moved,
            Err(BusError::Hub(_) | BusError::Down(_) | BusError::NoConditions) => PublishResult::Unavailable,
        },
        bytes,
    );
    match taken {
        Ok(taken) => Ok(Outcome { channel, taken }),
        Err(cause) => Err(PublishError::Unavailable { cause, accepted: Vec::new() }),
    }
}

fn check_sizes(room: &Room, messages: &[Message]) -> Result<(), PublishError> {
    let policies = room.policies.load();
    for (index, message) in messages.iter().enumerate() {
        let bytes = message.grip.as_ref().map_or(0, |grip| grip.content_bytes());
        let bytes_max = policies.of(&message.channel).message_bytes_max;
        if bytes > bytes_max {
            let channel = message.channel.clone();
            return Err(PublishError::MessageTooLarge { index: Some(index), channel, bytes, bytes_max });
        }
    }
    Ok(())
}

fn accepts_json(headers: &HeaderMap) -> bool {
    let mut fields = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    fields.any(|field| {
        field.split(',').any(|range| {
            let range = range.split(';').next().unwrap_or_default().trim();
            range.eq_ignore_ascii_case("application/json") || range.eq_ignore_ascii_case("application/problem+json")
        })
    })
}

fn published(outcomes: &[Outcome], as_json: bool) -> Response {
    if !as_json {
        return respond::text(Body::full("Published\n"));
    }
    let mut out = String::from("{\"message\":\"Published\",\"results\":[");
    for (number, outcome) in outcomes.iter().enumerate() {
        out.push_str(if number > 0 { ",{\"channel\":" } else { "{\"channel\":" });
        push_string(&mut out, &outcome.channel);
        // Writing to a String can't fail.
        let _ = match &outcome.taken {
            Taken::Published(Published { position, local_sessions, .. }) => write!(
                out,
                ",\"result\":\"published\",\"position\":\"{position}\",\"local_sessions\":{local_sessions}}}"
            ),
            Taken::Parked => write!(out, ",\"result\":\"waits\"}}"),
            Taken::Repeated => write!(out, ",\"result\":\"duplicate\"}}"),
        };
    }
    out.push_str("]}");
    json(out)
}

fn json(text: String) -> Response {
    let mut response = Response::new(Body::full(text));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
