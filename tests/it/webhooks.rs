//! Webhooks of others: signatures over real requests, and the events that they become.

use crate::support::client::{Answer, Http, post, send};
use crate::support::events::Events;
use crate::support::metrics;
use crate::support::proxy::Proxy;
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

const YAML: &str = "
routes:
  - name: events
    match: { path: \"/events/{topic}\" }
    push: { channels: [\"{topic}\"] }
publish:
  address: \"127.0.0.1:0\"
  auth: [{ bearer: { token_file: token } }]
  webhooks:
    - path: /hooks/orders
      verify: { standard_webhooks: { secret_file: hook } }
      channel: \"customers.{/data/customer_id}\"
      event: \"{/type}\"
      data: \"{/data}\"
    - path: /hooks/git
      verify: { github: { secret_file: github } }
      channel: \"git.{/repository/name}\"
    - path: /hooks/payments
      verify:
        hmac: { secret_file: github, header: x-signature, prefix: \"v1=\", algorithm: sha512, encoding: base64, timestamp_header: x-time }
      channel: payments
      event: \"paid {{{/currency}}\"
      data: \"{/amount} {/currency}\"
    - path: /hooks/stripe
      verify: { stripe: { secret_file: hook } }
      channel: \"{/data/object/customer}\"
      event: \"{/type}\"
    - path: /hooks/open
      verify: none
      channel: open
";

const KEY: &[u8] = b"24 bytes of a hook's key";
const GITHUB: &[u8] = b"It's a Secret to Everybody";

fn start() -> Proxy {
    let folder = tempfile::TempDir::new().expect("a folder");
    let files = [
        ("token", "token\n".to_owned()),
        ("hook", format!("whsec_{}\n", STANDARD.encode(KEY))),
        ("github", format!("{}\n", String::from_utf8_lossy(GITHUB))),
    ];
    for (name, text) in files {
        std::fs::write(folder.path().join(name), text).expect("written");
    }
    Proxy::start_in(folder, YAML)
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}

fn sign(algorithm: hmac::Algorithm, key: &[u8], text: &str) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(algorithm, key), text.as_bytes()).as_ref().to_vec()
}

/// A delivery as Standard Webhooks signs it.
async fn deliver(to: SocketAddr, key: &[u8], id: &str, time: u64, body: &str) -> Answer {
    let signature = STANDARD.encode(sign(hmac::HMAC_SHA256, key, &format!("{id}.{time}.{body}")));
    let time = time.to_string();
    // Other keys and versions may stand beside: a sender is changing its secret.
    let signatures = format!("v1a,AAAA v1,{} v1,{signature}", STANDARD.encode([0; 32]));
    let fields = [("webhook-id", id), ("webhook-timestamp", &time), ("webhook-signature", &signatures)];
    send(Http::H1, to, post(to, "/hooks/orders", &fields, body.to_owned())).await
}

const ORDER: &str = r#"{ "type": "order.paid", "data": {"total": 1.50, "customer_id": 42} }"#;

#[tokio::test]
async fn a_signed_webhook_becomes_one_event_however_often_it_comes() {
    let proxy = start();
    let (http, at) = (proxy.address("http"), proxy.address("publish"));
    let mut events = Events::open(Http::H1, http, "/events/customers.42", &[]).await;
    for (n, duplicate) in [(0, false), (1, true), (60, true)] {
        // A repeat has a new time and signature, and the same id.
        let answer = deliver(at, KEY, "msg_1", now() - n, ORDER).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.json()["results"][0]["duplicate"], duplicate);
    }
    let other = r#"{"data":{"customer_id":"42"},"type":"order.sent"}"#;
    assert_eq!(deliver(at, KEY, "msg_2", now(), other).await.status, 200);
    let first = events.next().await;
    assert_eq!((first.event.as_str(), first.data.as_str()), ("order.paid", r#"{"total":1.50,"customer_id":42}"#));
    let second = events.next().await;
    assert_eq!((second.event.as_str(), second.data.as_str()), ("order.sent", r#"{"customer_id":"42"}"#));
}

#[track_caller]
fn refused(answer: &Answer, status: u16, detail: &str) {
    let problem = answer.json();
    assert_eq!(answer.status, status, "{problem}");
    assert!(problem["detail"].as_str().is_some_and(|text| text.contains(detail)), "no {detail:?} in {problem}");
    assert_eq!(answer.field("www-authenticate").is_empty(), status != 401);
}

#[tokio::test]
async fn stripes_events_are_published_once() {
    let proxy = start();
    let (http, at) = (proxy.address("http"), proxy.address("publish"));
    let mut events = Events::open(Http::H1, http, "/events/cus_1", &[]).await;
    // The endpoint's secret is the key as it is written.
    let secret = format!("whsec_{}", STANDARD.encode(KEY));
    let deliver = async |key: &[u8], time: u64, body: &str| {
        let hex = |bytes: Vec<u8>| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let good = hex(sign(hmac::HMAC_SHA256, key, &format!("{time}.{body}")));
        let field = format!("t={time},v1={},v1={good},v0={good}", "0".repeat(64));
        send(Http::H1, at, post(at, "/hooks/stripe", &[("stripe-signature", &field)], body.to_owned())).await
    };
    let body = r#"{"id":"evt_1","type":"charge.succeeded","data":{"object":{"customer":"cus_1"}}}"#;
    for (ago, duplicate) in [(0, false), (60, true)] {
        let answer = deliver(secret.as_bytes(), now() - ago, body).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.json()["results"][0]["duplicate"], duplicate);
    }
    refused(&deliver(KEY, now(), body).await, 401, "signature");
    refused(&deliver(secret.as_bytes(), now() - 400, body).await, 401, "time");
    let bare = send(Http::H1, at, post(at, "/hooks/stripe", &[], body.to_owned())).await;
    refused(&bare, 401, "stripe-signature");
    assert_eq!(deliver(secret.as_bytes(), now(), &body.replace("evt_1", "evt_2")).await.status, 200);
    for _ in 0..2 {
        let event = events.next().await;
        assert_eq!(event.event, "charge.succeeded");
    }
}

#[tokio::test]
async fn what_does_not_verify_publishes_nothing() {
    let proxy = start();
    let (http, at) = (proxy.address("http"), proxy.address("publish"));
    let mut events = Events::open(Http::H1, http, "/events/customers.42", &[]).await;
    refused(&deliver(at, b"another key, not the one", "msg_1", now(), ORDER).await, 401, "signature");
    refused(&deliver(at, KEY, "msg_1", now() - 400, ORDER).await, 401, "time");
    refused(&deliver(at, KEY, "msg_1", now() + 400, ORDER).await, 401, "time");
    // A good signature of another body, id or time.
    let time = now().to_string();
    let signature = STANDARD.encode(sign(hmac::HMAC_SHA256, KEY, &format!("msg_1.{time}.{ORDER}")));
    let good = format!("v1,{signature}");
    for (id, time, signature, body, detail) in [
        ("msg_1", time.as_str(), good.as_str(), "{}", "signature"),
        ("msg_2", &time, &good, ORDER, "signature"),
        ("msg_1", "1", &good, ORDER, "time"),
        ("msg_1", "x", &good, ORDER, "time"),
        ("msg_1", &time, "", ORDER, "signature"),
        ("msg_1", &time, &signature, ORDER, "signature"),
        ("msg_1", &time, "v1,!!", ORDER, "signature"),
    ] {
        let fields = [("webhook-id", id), ("webhook-timestamp", time), ("webhook-signature", signature)];
        refused(&send(Http::H2c, at, post(at, "/hooks/orders", &fields, body)).await, 401, detail);
    }
    refused(&send(Http::H1, at, post(at, "/hooks/orders", &[], ORDER)).await, 401, "webhook-id");
    // The listener's own credential does not stand in for a signature.
    let token = [("authorization", "Bearer token"), ("content-type", "application/json")];
    refused(&send(Http::H1, at, post(at, "/hooks/orders", &token, ORDER)).await, 401, "webhook-id");
    // A good signature of what is no such event.
    for (body, detail) in [
        ("{", "JSON"),
        (r#"{"type":"x","data":{}}"#, "nothing at /data/customer_id"),
        (r#"{"type":["x"],"data":{"customer_id":42}}"#, "an array at /type"),
        (r#"{"type":"a\nb","data":{"customer_id":42}}"#, "event"),
        (r#"{"type":"a","data":{"customer_id":"4\n2"}}"#, "channel"),
        ("\u{0}", "JSON"),
    ] {
        refused(&deliver(at, KEY, "msg_3", now(), body).await, 400, detail);
    }
    let fields = [("content-type", "application/json")];
    let get = crate::support::client::get(at, "/hooks/orders", &fields);
    assert_eq!(send(Http::H1, at, get).await.field("allow"), "POST");
    assert_eq!(deliver(at, KEY, "msg_3", now(), ORDER).await.status, 200, "what was refused used up no id");
    assert_eq!(events.next().await.event, "order.paid");
    metrics::reaches(&proxy, &metrics::refusals("webhook_signature"), 12.0).await;
}

#[tokio::test]
async fn github_signs_the_body_alone() {
    let proxy = start();
    let (http, at) = (proxy.address("http"), proxy.address("publish"));
    let mut events = Events::open(Http::H1, http, "/events/git.octo", &[]).await;
    let body = r#"{ "action": "opened", "repository": { "name": "octo" } }"#;
    let hex: String = sign(hmac::HMAC_SHA256, GITHUB, body).iter().map(|byte| format!("{byte:02x}")).collect();
    for (signature, status) in [
        (format!("sha256={hex}"), 200),
        (format!("sha256={}", hex.to_uppercase()), 200),
        (hex.clone(), 401),
        (format!("sha1={hex}"), 401),
        (format!("sha256={}", &hex[..62]), 401),
        (format!("sha256={}00", &hex[..62]), 401),
    ] {
        let fields = [("x-hub-signature-256", signature.as_str()), ("x-github-event", "issues")];
        let answer = send(Http::H1, at, post(at, "/hooks/git", &fields, body)).await;
        assert_eq!(answer.status, status, "{signature}: {}", answer.text());
    }
    let compact = r#"{"action":"opened","repository":{"name":"octo"}}"#;
    assert_eq!(events.data(2).await, [compact, compact]);
}

#[tokio::test]
async fn a_keyed_hash_can_have_a_time() {
    let proxy = start();
    let (http, at) = (proxy.address("http"), proxy.address("publish"));
    let mut events = Events::open(Http::H1, http, "/events/payments", &[]).await;
    let body = r#"{"amount":12.30,"currency":"EUR"}"#;
    for (time, status) in [(now(), 200), (now() - 301, 401), (now() + 301, 401)] {
        let signature = STANDARD.encode(sign(hmac::HMAC_SHA512, GITHUB, &format!("{time}.{body}")));
        let (signature, time) = (format!("v1={signature}"), time.to_string());
        let fields = [("x-signature", signature.as_str()), ("x-time", &time)];
        assert_eq!(send(Http::H1, at, post(at, "/hooks/payments", &fields, body)).await.status, status);
    }
    let event = events.next().await;
    assert_eq!((event.event.as_str(), event.data.as_str()), ("paid {EUR}", "12.30 EUR"));
}

#[tokio::test]
async fn an_open_webhook_takes_only_what_web_pages_can_not_send() {
    let proxy = start();
    let (http, at) = (proxy.address("http"), proxy.address("publish"));
    let mut events = Events::open(Http::H1, http, "/events/open", &[]).await;
    for (content_type, status) in [("text/plain", 415), ("", 415), ("application/json", 200)] {
        let fields = [("content-type", content_type)];
        let answer = send(Http::H1, at, post(at, "/hooks/open", &fields, r#"{"a": 1.0}"#)).await;
        assert_eq!(answer.status, status, "{}", answer.text());
    }
    assert_eq!(events.data(1).await, [r#"{"a":1.0}"#]);
    let large = json!("x".repeat(1024 * 1024)).to_string();
    let answer = send(Http::H1, at, post(at, "/hooks/open", &[("content-type", "application/json")], large)).await;
    assert_eq!(answer.status, 413);
}
