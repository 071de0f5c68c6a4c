//! `POST /v1/events`.

use crate::proto::{cloudevents, events};
use crate::publish::condition::{self, ConditionError};
use crate::publish::media::Form;
use crate::publish::respond::{self, PublishError};
use crate::publish::settings::PublishSettings;
use crate::publish::{Room, auth, body, ndjson, send};
use crate::server::Response;
use crate::server::body::Body;
use http::request::Parts;
use std::rc::Rc;

/// Answers one request.
pub(super) async fn answer(
    room: &Rc<Room>,
    settings: &PublishSettings,
    head: &Parts,
    body: Body,
) -> Result<Response, PublishError> {
    auth::authorize(&settings.auth, &head.headers, (room.now_secs)())?;
    let form = Form::of(&head.headers)?;
    let if_match = condition::read(&head.headers)?;
    send::ready(room)?;
    if form == Form::Ndjson {
        return match if_match {
            None => Ok(ndjson::answer(room, settings.body_bytes_max, body)),
            Some(_) => Err(PublishError::Condition(ConditionError::Stream)),
        };
    }
    let body = body::whole(body, settings.body_bytes_max, room.waits).await?;
    let events = match form {
        Form::CloudEvent => vec![cloudevents::decode_structured(&body)?],
        Form::CloudEventBatch => cloudevents::decode_batch(&body)?,
        Form::CloudEventBinary => vec![cloudevents::decode_binary(&head.headers, &body)?],
        Form::Json | Form::Ndjson => events::decode(&body)?,
    };
    drop(body);
    let outcomes = send::all(room, events, if_match).await?;
    Ok(respond::accepted(&outcomes))
}
