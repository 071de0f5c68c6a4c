//! Webhooks by path.

use super::fake::{self, NOW_SECS, World, webhook};
use super::results;
use crate::model::message::Data;
use crate::model::secret::Secret;
use crate::publish::settings::{HmacAlgorithm, HmacSettings, SignatureEncoding, WebhookVerify};
use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::time::Duration;

const BODY: &str = r#"{"type":"order.paid","data": {"customer_id": 42, "total": 1.50}}"#;
const KEY: &[u8] = b"a key of some length";

fn sign(algorithm: hmac::Algorithm, text: &str) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(algorithm, KEY), text.as_bytes()).as_ref().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn standard() -> WebhookVerify {
    WebhookVerify::StandardWebhooks { secret: Secret::new(KEY), tolerance: Duration::from_secs(300) }
}

fn keyed(algorithm: HmacAlgorithm, encoding: SignatureEncoding, timestamp: Option<&'static str>) -> WebhookVerify {
    WebhookVerify::Hmac(HmacSettings {
        secret: Secret::new(KEY),
        header: http::HeaderName::from_static("x-signature"),
        prefix: "sha=".into(),
        algorithm,
        encoding,
        timestamp: timestamp.map(|name| (http::HeaderName::from_static(name), Duration::from_secs(60))),
    })
}

/// Delivers and gives the status and the answer.
async fn deliver(verify: WebhookVerify, fields: &[(&str, &str)], body: &str) -> (World, u16, serde_json::Value) {
    let world = World::with_webhooks(vec![webhook("/hooks/orders", verify)]);
    let response = world.send("POST", "/hooks/orders", fields, body.to_owned().into()).await;
    let (status, answer) = fake::problem(response).await;
    assert_eq!(status == 200, !world.bus.published().is_empty(), "{answer}");
    (world, status, answer)
}

async fn check_refused(verify: WebhookVerify, fields: &[(&str, &str)], body: &str, status: u16, text: &str) {
    let (_, found, answer) = deliver(verify, fields, body).await;
    assert_eq!(found, status, "{answer}");
    assert!(answer["detail"].as_str().expect("a detail").contains(text), "{answer} has no {text:?}");
}

#[tokio::test]
async fn a_standard_webhook_is_verified_and_mapped() {
    let timestamp = NOW_SECS.to_string();
    let signature = sign(hmac::HMAC_SHA256, &format!("msg_1.{timestamp}.{BODY}"));
    let signature = format!("v1,AAAA v1,{}", STANDARD.encode(signature));
    let fields = [("webhook-id", "msg_1"), ("webhook-timestamp", &*timestamp), ("webhook-signature", &signature)];
    let (world, status, answer) = deliver(standard(), &fields, BODY).await;
    assert_eq!((status, answer), (200, results(&[("customers.42", "1-1", false)])));
    let message = world.bus.last();
    assert_eq!(message.data, Data::Json(r#"{"customer_id":42,"total":1.50}"#.into()));
    assert_eq!(message.event.as_ref().map(|event| event.as_str()), Some("order.paid"));
    assert_eq!(message.id.as_ref().map(|id| id.as_str()), Some("msg_1"));
    let again = world.send("POST", "/hooks/orders", &fields, BODY.to_owned().into()).await;
    assert_eq!(fake::problem(again).await.1, results(&[("customers.42", "1-1", true)]));

    check_refused(standard(), &fields, &BODY.replace("42", "43"), 401, "does not match").await;
    check_refused(standard(), &fields[..2], BODY, 401, "the field webhook-signature must be there").await;
    check_refused(standard(), &[fields[0], fields[0], fields[1], fields[2]], BODY, 401, "webhook-id").await;
    let late = [fields[0], ("webhook-timestamp", "1614265000"), fields[2]];
    check_refused(standard(), &late, BODY, 401, "the time stamp is 330 s off, 300 s at most").await;
    // What does not verify is not parsed: the answer says nothing of the body.
    check_refused(standard(), &fields, "{", 401, "does not match").await;
}

#[tokio::test]
async fn a_keyed_hash_is_verified_in_its_forms() {
    use HmacAlgorithm::{Sha256, Sha512};
    use SignatureEncoding::{Base64, Hex};
    let sha256 = format!("sha={}", hex(&sign(hmac::HMAC_SHA256, BODY)));
    assert_eq!(deliver(keyed(Sha256, Hex, None), &[("x-signature", &sha256)], BODY).await.1, 200);
    let sha512 = format!("sha={}", STANDARD.encode(sign(hmac::HMAC_SHA512, BODY)));
    assert_eq!(deliver(keyed(Sha512, Base64, None), &[("x-signature", &sha512)], BODY).await.1, 200);
    check_refused(keyed(Sha512, Hex, None), &[("x-signature", &sha256)], BODY, 401, "does not match").await;
    check_refused(keyed(Sha256, Hex, None), &[("x-signature", &sha256[4..])], BODY, 401, "no signature in a form")
        .await;
    check_refused(keyed(Sha256, Hex, None), &[("x-signature", "sha=zz")], BODY, 401, "no signature in a form").await;
    check_refused(keyed(Sha256, Hex, None), &[], BODY, 401, "the field x-signature").await;

    let timed = || keyed(Sha256, Hex, Some("x-time"));
    let time = (NOW_SECS + 60).to_string();
    let signature = format!("sha={}", hex(&sign(hmac::HMAC_SHA256, &format!("{time}.{BODY}"))));
    let fields = [("x-time", &*time), ("x-signature", &*signature)];
    assert_eq!(deliver(timed(), &fields, BODY).await.1, 200);
    let late = (NOW_SECS - 61).to_string();
    check_refused(timed(), &[("x-time", &late), fields[1]], BODY, 401, "61 s off").await;
    check_refused(timed(), &[fields[1]], BODY, 401, "the field x-time").await;
    check_refused(timed(), &[("x-time", &time), ("x-signature", &sha256)], BODY, 401, "does not match").await;
}

#[tokio::test]
async fn an_unverified_webhook_must_say_that_it_is_json() {
    let json = [("content-type", "application/json; charset=utf-8")];
    assert_eq!(deliver(WebhookVerify::None, &json, BODY).await.1, 200);
    check_refused(WebhookVerify::None, &[("content-type", "text/plain")], BODY, 415, "application/json").await;
    check_refused(WebhookVerify::None, &[], BODY, 415, "application/json").await;
}

#[tokio::test]
async fn a_webhook_that_does_not_fit_says_where() {
    let json = [("content-type", "application/json")];
    let refused = async |body: &str, status, text| check_refused(WebhookVerify::None, &json, body, status, text).await;
    refused("{", 400, "the text ends").await;
    refused(r#"{"type":"t"}"#, 400, "webhook channel: the body has nothing at /data/customer_id").await;
    refused(r#"{"type":"a\nb","data":{"customer_id":1}}"#, 400, "\"event\" holds a CR, LF or NUL").await;
    refused(r#"{"type":"t","data":{"customer_id":"a\nb"}}"#, 400, "\"channel\" is no channel name").await;
    refused(&" ".repeat(1001), 413, "publish.max_body").await;
}
