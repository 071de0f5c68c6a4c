//! The checked `publish` section.

use crate::model::secret::Secret;
use std::net::SocketAddr;
use std::time::Duration;

/// The checked `publish` section.
#[derive(Debug, Clone)]
pub struct PublishSettings {
    /// Where it listens.
    pub address: SocketAddr,
    /// The largest request body, and the largest NDJSON line.
    pub body_bytes_max: usize,
    /// Any one that accepts is enough; empty: everybody (loopback only).
    pub auth: Vec<PublishAuth>,
    /// How long an id is remembered.
    pub idempotency_window: Duration,
    /// Webhooks of others, by path.
    pub webhooks: Vec<WebhookSettings>,
}

/// One way to prove that one may publish.
#[derive(Debug, Clone)]
pub enum PublishAuth {
    /// `Authorization: Bearer <token>` (RFC 6750 §2.1).
    Bearer(Secret),
    /// A JSON Web Token that is signed with the key, in `Authorization: Bearer` or `Grip-Sig`, as GRIP libraries send.
    GripSig(crate::upstream::signature::Key),
}

/// A webhook: where it comes in, how it is verified, what event it becomes.
#[derive(Debug, Clone)]
pub struct WebhookSettings {
    /// The exact path.
    pub path: Box<str>,
    /// How a delivery proves where it is from.
    pub verify: WebhookVerify,
    /// The channel.
    pub channel: crate::proto::webhook::Template,
    /// The event's name.
    pub event: Option<crate::proto::webhook::Template>,
    /// The data; without it the whole body.
    pub data: Option<crate::proto::webhook::Template>,
}

/// How a webhook's delivery is verified.
#[derive(Debug, Clone)]
pub enum WebhookVerify {
    /// Not at all (loopback only).
    None,
    /// Standard Webhooks: `webhook-id`, `webhook-timestamp`, `webhook-signature: v1,<base64>`.
    StandardWebhooks {
        /// The key, decoded from `whsec_…`.
        secret: Secret,
        /// How far the time stamp may be off.
        tolerance: Duration,
    },
    /// Stripe: `Stripe-Signature: t=<time>,v1=<hex>`.
    Stripe {
        /// The endpoint's secret, as it is written.
        secret: Secret,
        /// How far the time may be off.
        tolerance: Duration,
    },
    /// A keyed hash of the body in a field.
    Hmac(HmacSettings),
}

/// A generic keyed hash (`verify: { hmac: … }`).
#[derive(Debug, Clone)]
pub struct HmacSettings {
    /// The key.
    pub secret: Secret,
    /// The field with the signature.
    pub header: http::HeaderName,
    /// What stands before the signature in the field, such as `sha256=`.
    pub prefix: Box<str>,
    /// The hash.
    pub algorithm: HmacAlgorithm,
    /// How the signature is written.
    pub encoding: SignatureEncoding,
    /// A field with the Unix time in seconds that is signed as `<time>.<body>`, and how far it may be off.
    pub timestamp: Option<(http::HeaderName, Duration)>,
}

/// A hash for HMAC (RFC 2104).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HmacAlgorithm {
    /// SHA-256.
    Sha256,
    /// SHA-512.
    Sha512,
}

/// How a signature is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignatureEncoding {
    /// Hexadecimal, either case.
    Hex,
    /// Base64.
    Base64,
}
