//! The `publish` section: who may publish, and webhooks.

use super::{Resolver, Spotted, TIMEOUT_RANGE};
use crate::config::defaults;
use crate::config::file::{self, Bearer, File, Hmac, StandardWebhooks, Verify, Webhook};
use crate::config::problem::Spot;
use crate::config::read::{Field, Given, WordOr, quote};
use crate::model::secret::Secret;
use crate::proto::webhook::Template;
use crate::publish::settings::{
    HmacAlgorithm, HmacSettings, PublishAuth, PublishSettings, SignatureEncoding, WebhookSettings, WebhookVerify,
};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderName;
use std::net::SocketAddr;
use std::time::Duration;

/// Ids may be remembered from a second to a day: all of them are held in memory.
const IDEMPOTENCY_WINDOW_RANGE: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(24 * 3600);
/// Bodies from 1 KiB to 1 GiB: one body is held in memory while it is read.
const BODY_BYTES_RANGE: std::ops::RangeInclusive<u64> = 1024..=1 << 30;
/// Paths of the publish listener that are its own.
const OWN_PATHS: [&str; 4] = ["/v1/events", "/publish/", "/publish", "/recover"];

/// Reads a webhook's template.
fn webhook_template(text: &str) -> Result<Template, String> {
    Template::parse(text).map_err(|error| error.to_string())
}

impl Resolver<'_> {
    pub(super) fn publish(&mut self, file: &File) -> Spotted<PublishSettings> {
        let shape = file.publish.value().cloned().unwrap_or_default();
        let given = shape.address.given();
        let address = given.and_then(|given| self.address(given)).unwrap_or(defaults::PUBLISH_ADDRESS);
        let auth = self.publish_auth(&shape.auth);
        if let Some(given) = given
            && !address.ip().is_loopback()
            && matches!(&shape.auth, Field::Absent)
        {
            let text = "is not loopback, so anybody could publish; add publish.auth, or write 127.0.0.1";
            self.problems.add(&given.spot, format!("{} {text}", quote(&given.value)));
        }
        let mut webhooks: Vec<WebhookSettings> = Vec::new();
        for webhook in shape.webhooks.value().into_iter().flatten() {
            if let Some(webhook) = self.webhook(webhook, address, &webhooks) {
                webhooks.push(webhook);
            }
        }
        let value = PublishSettings {
            address,
            body_bytes_max: self.size(&shape.max_body, BODY_BYTES_RANGE, defaults::PUBLISH_BODY_BYTES_MAX),
            auth,
            idempotency_window: self.span(
                &shape.idempotency_window,
                IDEMPOTENCY_WINDOW_RANGE,
                defaults::IDEMPOTENCY_WINDOW,
            ),
            webhooks,
        };
        Spotted { value, spot: given.map(|given| given.spot.clone()) }
    }

    fn publish_auth(&mut self, auth: &Field<Vec<Given<file::PublishAuth>>>) -> Vec<PublishAuth> {
        let Some(given) = auth.given() else { return Vec::new() };
        if given.value.is_empty() {
            self.problems.add(&given.spot, "empty; write one way at least, or remove the key");
        }
        let mut ways = Vec::new();
        for entry in &given.value {
            let keys = [("bearer", !entry.value.bearer.is_absent()), ("grip_sig", !entry.value.grip_sig.is_absent())];
            if !self.exactly_one(&entry.spot, &keys) {
                continue;
            }
            if let Some(given) = entry.value.grip_sig.given() {
                let file::GripSig { key_file, key_env } = &given.value;
                ways.extend(self.grip_key(&given.spot, key_file, key_env).map(PublishAuth::GripSig));
            }
            let Some(bearer) = entry.value.bearer.given() else { continue };
            let Bearer { token_file, token_env } = &bearer.value;
            if let Some(token) = self.secret(&bearer.spot, ("token_file", token_file), ("token_env", token_env)) {
                ways.push(PublishAuth::Bearer(token.value));
            }
        }
        ways
    }

    fn webhook(
        &mut self,
        webhook: &Given<Webhook>,
        address: SocketAddr,
        earlier: &[WebhookSettings],
    ) -> Option<WebhookSettings> {
        let (shape, spot) = (&webhook.value, &webhook.spot);
        let path = self.required(&shape.path, spot, "path", "write such as /hooks/orders");
        let path = path.and_then(|path| self.webhook_path(path, earlier));
        let remedy = "write standard_webhooks, hmac, github or stripe (or none, on loopback)";
        let verify = self.required(&shape.verify, spot, "verify", remedy);
        let verify = verify.and_then(|verify| self.verify(verify, address));
        let channel = self.required(&shape.channel, spot, "channel", "write such as \"orders.{/data/id}\"");
        let channel = channel.and_then(|channel| self.template(channel));
        let event = shape.event.given().map(|event| self.template(event));
        let data = shape.data.given().map(|data| self.template(data));
        Some(WebhookSettings {
            path: path?,
            verify: verify?,
            channel: channel?,
            event: event.flatten(),
            data: data.flatten(),
        })
    }

    fn template(&mut self, given: &Given<String>) -> Option<Template> {
        webhook_template(&given.value).map_err(|error| self.problems.add(&given.spot, error)).ok()
    }

    fn webhook_path(&mut self, given: &Given<String>, earlier: &[WebhookSettings]) -> Option<Box<str>> {
        let path = given.value.as_str();
        let plain = path.starts_with('/')
            && path.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'?' | b'#' | b'{' | b'}' | b'*'));
        let wrong = if !plain {
            "is no exact path; write such as /hooks/orders"
        } else if OWN_PATHS.contains(&path) {
            "is where events are published; choose another"
        } else if earlier.iter().any(|known| &*known.path == path) {
            "has a webhook already; choose another"
        } else {
            return Some(path.into());
        };
        self.problems.add(&given.spot, format!("{} {wrong}", quote(path)));
        None
    }

    fn verify(&mut self, given: &Given<WordOr<file::Nothing, Verify>>, address: SocketAddr) -> Option<WebhookVerify> {
        let verify = match &given.value {
            WordOr::Word(file::Nothing::Nothing) if address.ip().is_loopback() => return Some(WebhookVerify::None),
            WordOr::Word(file::Nothing::Nothing) => {
                let text = format!("none would let anybody publish, since publish.address is {address}");
                self.problems.add(&given.spot, format!("{text}; write standard_webhooks, hmac, github or stripe"));
                return None;
            }
            WordOr::Keys(verify) => verify,
        };
        let keys = [
            ("standard_webhooks", !verify.standard_webhooks.is_absent()),
            ("hmac", !verify.hmac.is_absent()),
            ("github", !verify.github.is_absent()),
            ("stripe", !verify.stripe.is_absent()),
        ];
        if !self.exactly_one(&given.spot, &keys) {
            return None;
        }
        if let Some(standard) = verify.standard_webhooks.given() {
            return self.standard_webhooks(standard);
        }
        if let Some(hmac) = verify.hmac.given() {
            return self.hmac(hmac);
        }
        if let Some(stripe) = verify.stripe.given() {
            let file::Stripe { secret_file, secret_env, tolerance } = &stripe.value;
            let tolerance = self.span(tolerance, TIMEOUT_RANGE, defaults::WEBHOOK_TOLERANCE);
            let secret = self.secret(&stripe.spot, ("secret_file", secret_file), ("secret_env", secret_env))?;
            return Some(WebhookVerify::Stripe { secret: secret.value, tolerance });
        }
        let github = verify.github.given()?;
        let file::Github { secret_file, secret_env } = &github.value;
        let secret = self.secret(&github.spot, ("secret_file", secret_file), ("secret_env", secret_env))?;
        Some(WebhookVerify::Hmac(HmacSettings {
            secret: secret.value,
            header: HeaderName::from_static("x-hub-signature-256"),
            prefix: "sha256=".into(),
            algorithm: HmacAlgorithm::Sha256,
            encoding: SignatureEncoding::Hex,
            timestamp: None,
        }))
    }

    fn standard_webhooks(&mut self, given: &Given<StandardWebhooks>) -> Option<WebhookVerify> {
        let StandardWebhooks { secret_file, secret_env, tolerance } = &given.value;
        let tolerance = self.span(tolerance, TIMEOUT_RANGE, defaults::WEBHOOK_TOLERANCE);
        let secret = self.secret(&given.spot, ("secret_file", secret_file), ("secret_env", secret_env))?;
        let text = secret.value.expose();
        let text = text.strip_prefix(b"whsec_").unwrap_or(text);
        match STANDARD.decode(text) {
            Ok(key) if !key.is_empty() => Some(WebhookVerify::StandardWebhooks { secret: Secret::new(key), tolerance }),
            _ => {
                let text = "the secret is none of Standard Webhooks; it must be `whsec_` and base64";
                self.problems.add(&secret.spot, text);
                None
            }
        }
    }

    fn hmac(&mut self, given: &Given<Hmac>) -> Option<WebhookVerify> {
        let shape = &given.value;
        let secret = self.secret(&given.spot, ("secret_file", &shape.secret_file), ("secret_env", &shape.secret_env));
        let header = self.required(&shape.header, &given.spot, "header", "name the field with the signature");
        let header = header.and_then(|header| self.header_name(header));
        let tolerance = self.span(&shape.tolerance, TIMEOUT_RANGE, defaults::WEBHOOK_TOLERANCE);
        let timestamp = shape.timestamp_header.given().map(|header| self.header_name(header));
        if let (Field::Absent, Some(tolerance)) = (&shape.timestamp_header, shape.tolerance.given()) {
            let text = "does nothing without timestamp_header; add that, or remove this";
            self.problems.add(&tolerance.spot, text);
        }
        let timestamp = match timestamp {
            Some(header) => Some((header?, tolerance)),
            None => None,
        };
        Some(WebhookVerify::Hmac(HmacSettings {
            secret: secret?.value,
            header: header?,
            prefix: shape.prefix.value().map(String::as_str).unwrap_or_default().into(),
            algorithm: match shape.algorithm.value() {
                Some(file::Algorithm::Sha512) => HmacAlgorithm::Sha512,
                Some(file::Algorithm::Sha256) | None => HmacAlgorithm::Sha256,
            },
            encoding: match shape.encoding.value() {
                Some(file::Encoding::Base64) => SignatureEncoding::Base64,
                Some(file::Encoding::Hex) | None => SignatureEncoding::Hex,
            },
            timestamp,
        }))
    }

    fn header_name(&mut self, given: &Given<String>) -> Option<HeaderName> {
        self.field_name(&given.value, &given.spot)
    }

    /// The name of an HTTP field.
    pub(super) fn field_name(&mut self, name: &str, spot: &Spot) -> Option<HeaderName> {
        match name.parse() {
            Ok(name) => Some(name),
            Err(_) => {
                let text = format!("{} is no field name; write such as x-signature", quote(name));
                self.problems.add(spot, text);
                None
            }
        }
    }
}
