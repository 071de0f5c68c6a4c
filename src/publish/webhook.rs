//! JSON webhooks of others, each at its own path: read raw, verified, and only then parsed and mapped.

use crate::model::channel::ChannelName;
use crate::model::message::Label;
use crate::proto::cloudevents::idempotency_id;
use crate::proto::events::{Channels, Event, EventError};
use crate::proto::json::Json;
use crate::proto::json_pointer::Pointer;
use crate::proto::webhook::signature::{self, SignatureError, StandardWebhook};
use crate::proto::webhook::{self, FillError, Template, stripe};
use crate::publish::respond::{self, PublishError};
use crate::publish::settings::{HmacAlgorithm, HmacSettings, PublishSettings, SignatureEncoding};
use crate::publish::settings::{WebhookSettings, WebhookVerify};
use crate::publish::{Room, body, media, send};
use crate::server::Response;
use crate::server::body::Body;
use aws_lc_rs::hmac;
use http::HeaderMap;

/// Why a delivery is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum VerifyError {
    /// A field that must be there once is missing, or there twice.
    #[error("the field {0} must be there, once")]
    Field(String),
    /// What is in the fields.
    #[error(transparent)]
    Signature(#[from] SignatureError),
}

/// Answers one delivery.
pub(super) async fn answer(
    room: &Room,
    settings: &PublishSettings,
    hook: &WebhookSettings,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, PublishError> {
    media::plain_coding(headers)?;
    if matches!(hook.verify, WebhookVerify::None) && !media::is_json(headers) {
        return Err(PublishError::WebhookMediaType);
    }
    let body = body::whole(body, settings.body_bytes_max, room.waits).await?;
    if let Err(error) = verify(&hook.verify, headers, &body, (room.now_secs)()) {
        tracing::warn!(path = &*hook.path, %error, "webhook did not verify");
        return Err(error.into());
    }
    let event = map(hook, headers, &body).inspect_err(|error| {
        tracing::warn!(path = &*hook.path, %error, "webhook does not fit its templates");
    })?;
    let outcomes = send::all(room, vec![event], None).await?;
    Ok(respond::accepted(&outcomes))
}

fn verify(verify: &WebhookVerify, headers: &HeaderMap, body: &[u8], now_secs: u64) -> Result<(), VerifyError> {
    match verify {
        WebhookVerify::None => Ok(()),
        WebhookVerify::StandardWebhooks { secret, tolerance } => {
            let delivery = StandardWebhook {
                id: field(headers, "webhook-id")?,
                timestamp: field(headers, "webhook-timestamp")?,
                signatures: field(headers, "webhook-signature")?,
            };
            Ok(delivery.verify(secret.expose(), body, now_secs, *tolerance)?)
        }
        WebhookVerify::Stripe { secret, tolerance } => {
            let header = field(headers, stripe::STRIPE_SIGNATURE)?;
            Ok(stripe::verify_delivery(header, secret.expose(), body, now_secs, *tolerance)?)
        }
        WebhookVerify::Hmac(settings) => verify_hmac(settings, headers, body, now_secs),
    }
}

fn verify_hmac(settings: &HmacSettings, headers: &HeaderMap, body: &[u8], now_secs: u64) -> Result<(), VerifyError> {
    let given = field(headers, settings.header.as_str())?;
    let given = given.strip_prefix(settings.prefix.as_bytes()).ok_or(SignatureError::Unknown)?;
    let given = match settings.encoding {
        SignatureEncoding::Hex => signature::decode_hex(given)?,
        SignatureEncoding::Base64 => signature::decode_base64(given)?,
    };
    let algorithm = match settings.algorithm {
        HmacAlgorithm::Sha256 => hmac::HMAC_SHA256,
        HmacAlgorithm::Sha512 => hmac::HMAC_SHA512,
    };
    let key = settings.secret.expose();
    match &settings.timestamp {
        None => signature::verify(algorithm, key, &[body], &given)?,
        Some((header, tolerance)) => {
            let timestamp = field(headers, header.as_str())?;
            signature::check_time(timestamp, now_secs, *tolerance)?;
            signature::verify(algorithm, key, &[timestamp, b".", body], &given)?;
        }
    }
    Ok(())
}

fn field<'a>(headers: &'a HeaderMap, name: &str) -> Result<&'a [u8], VerifyError> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => Ok(value.as_bytes()),
        _ => Err(VerifyError::Field(name.to_owned())),
    }
}

/// The event that a verified delivery becomes.
fn map(hook: &WebhookSettings, headers: &HeaderMap, body: &[u8]) -> Result<Event, PublishError> {
    let json = Json::parse(body).map_err(EventError::whole)?;
    let channel = text("channel", &hook.channel, json)?;
    let channel = ChannelName::new(&channel).map_err(|error| EventError::of("channel", error))?;
    let event = match &hook.event {
        Some(template) => {
            let event = text("event", template, json)?;
            Some(Label::new(&event).map_err(|error| EventError::of("event", error))?)
        }
        None => None,
    };
    let data = hook.data.as_ref().map_or_else(|| webhook::body_data(json), |template| template.data(json));
    let data = data.map_err(|error| PublishError::Fill { field: "data", error })?;
    Ok(Event { channels: Channels::one(channel), id: delivery_id(hook, headers, json), event, data, cloudevent: None })
}

/// What stays the same when a delivery is repeated: Standard Webhooks' `webhook-id`, and the `id` of Stripe's events.
fn delivery_id(hook: &WebhookSettings, headers: &HeaderMap, body: Json<'_>) -> Option<Label> {
    match hook.verify {
        WebhookVerify::StandardWebhooks { .. } => {
            let id = headers.get("webhook-id")?;
            idempotency_id(&String::from_utf8_lossy(id.as_bytes())).ok()
        }
        WebhookVerify::Stripe { .. } => {
            let id = Pointer::parse("/id").ok()?.find(body)?.string()?.ok()?;
            idempotency_id(&id).ok()
        }
        WebhookVerify::None | WebhookVerify::Hmac(_) => None,
    }
}

fn text(field: &'static str, template: &Template, body: Json<'_>) -> Result<String, PublishError> {
    template.text(body).map_err(|error: FillError| PublishError::Fill { field, error })
}
