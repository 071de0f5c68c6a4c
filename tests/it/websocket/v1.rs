//! The subprotocol `pushbridge.v1.json`.

use super::{at, say, start};
use crate::support::client::Http;
use crate::support::proxy::Proxy;
use crate::support::websocket::{ALL, WebSocket};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

const V1: [(&str, &str); 1] = [("sec-websocket-protocol", "pushbridge.v1.json")];

const YAML: &str = "
routes:
  - name: events
    match: { path: \"/events/{topic}\" }
    push:
      channels: [\"{topic}\"]
      client_subscribe: [\"open.*\"]
      client_publish: [\"inbox.*\"]
  - name: pair
    match: { path: \"/pair/{topic}\" }
    push: { channels: [\"{topic}\", \"{topic}.more\"] }
channels:
  - { match: \"inbox.small\", max_message: 100 }
limits: { subscriptions_per_session: 4 }
";

async fn open(proxy: &Proxy, http: Http, topic: &str) -> WebSocket {
    WebSocket::v1(http, at(proxy, http), &format!("/events/{topic}")).await
}

#[tokio::test]
async fn a_session_is_welcomed_and_gets_events() {
    let proxy = start(YAML);
    for (n, http) in ALL.into_iter().enumerate() {
        let topic = format!("t{n}");
        let mut socket = WebSocket::open(http, at(&proxy, http), &format!("/events/{topic}"), &V1).await;
        let welcome = socket.json().await;
        assert_eq!(welcome["type"], "welcome", "{http:?}");
        assert!(welcome["session"].as_str().is_some_and(|session| session.len() >= 16), "{welcome}");
        assert_eq!(welcome["resumed"], false);
        assert_eq!(socket.json().await, json!({"type": "subscribed", "channel": topic}));
        say(&proxy, json!({"channel": topic, "event": "e", "data": {"n": 1}})).await;
        say(&proxy, json!({"channel": topic, "data": "x"})).await;
        say(&proxy, json!({"channel": topic, "data_base64": "AP8="})).await;
        let first = socket.json().await;
        let id = first["id"].as_str().expect("an id").to_owned();
        assert_eq!(first, json!({"type": "event", "channel": topic, "id": id, "event": "e", "data": {"n": 1}}));
        let second = socket.json().await;
        assert_eq!((&second["data"], second.get("event")), (&json!("x"), None));
        let third = socket.json().await;
        assert_eq!((&third["data_base64"], third.get("data")), (&json!("AP8="), None));
        // The cursor of `welcome` is before the first event, an `id` after its own.
        for (cursor, expected) in [(welcome["cursor"].as_str().expect("a cursor"), 1), (&id, 2)] {
            let path = format!("/events/{topic}?last_event_id={cursor}");
            let mut again = WebSocket::open(http, at(&proxy, http), &path, &V1).await;
            assert_eq!(again.fields["pushbridge-resumed"], "true");
            assert_eq!(again.json().await["resumed"], true);
            assert_eq!(again.json().await["type"], "subscribed");
            let data = again.json().await["data"].clone();
            assert_eq!(data, if expected == 1 { json!({"n": 1}) } else { json!("x") });
        }
        socket.close().await;
    }
}

#[tokio::test]
async fn a_route_of_two_channels_subscribes_both() {
    let proxy = start(YAML);
    let mut socket = WebSocket::open(Http::H1, at(&proxy, Http::H1), "/pair/a", &V1).await;
    assert_eq!(socket.json().await["type"], "welcome");
    for channel in ["a", "a.more"] {
        assert_eq!(socket.json().await, json!({"type": "subscribed", "channel": channel}));
    }
    say(&proxy, json!({"channels": ["a", "a.more"], "data": 1})).await;
    let mut from = [socket.json().await, socket.json().await];
    from.sort_by_key(|event| event["channel"].to_string());
    assert_eq!((&from[0]["channel"], &from[1]["channel"]), (&json!("a"), &json!("a.more")));
}

#[tokio::test]
async fn channels_are_joined_and_left() {
    let proxy = start(YAML);
    for http in [Http::H1, Http::H2Tls] {
        let mut socket = open(&proxy, http, "own").await;
        let joined = socket.command(json!({"type": "subscribe", "ref": 7, "channels": ["open.a", "open.b"]})).await;
        assert_eq!(joined, json!({"type": "subscribed", "ref": 7, "channel": "open.a"}));
        assert_eq!(socket.json().await, json!({"type": "subscribed", "ref": 7, "channel": "open.b"}));
        for channel in ["open.b", "own", "open.a"] {
            say(&proxy, json!({"channel": channel, "data": channel})).await;
            let event = socket.json().await;
            assert_eq!((&event["channel"], &event["data"]), (&json!(channel), &json!(channel)));
        }
        for channel in ["open.a", "own"] {
            let left = socket.command(json!({"type": "unsubscribe", "ref": "x\"y", "channels": [channel]})).await;
            assert_eq!(left, json!({"type": "unsubscribed", "ref": "x\"y", "channel": channel}));
            assert_eq!(say(&proxy, json!({"channel": channel, "data": 1})).await["results"][0]["local_sessions"], 0);
        }
        say(&proxy, json!({"channel": "open.b", "data": "last"})).await;
        assert_eq!(socket.json().await["data"], "last", "nothing of what was left");
        // The route's own may be joined again, from now on.
        let rejoined = socket.command(json!({"type": "subscribe", "channels": ["own"]})).await;
        assert_eq!(rejoined, json!({"type": "subscribed", "channel": "own"}));
        say(&proxy, json!({"channel": "own", "data": "new"})).await;
        assert_eq!(socket.json().await["data"], "new");
        socket.close().await;
    }
}

#[tokio::test]
async fn what_is_published_comes_back_with_its_position() {
    let proxy = start(YAML);
    for (n, http) in [Http::H1Tls, Http::H2c].into_iter().enumerate() {
        let channel = format!("inbox.{n}");
        let mut reader = open(&proxy, http, &channel).await;
        let mut writer = open(&proxy, http, "own").await;
        let said = json!({"type": "publish", "ref": 1, "channel": channel, "event": "e", "data": {"b": 1, "a": [2]}});
        let published = writer.command(said).await;
        assert_eq!((&published["type"], &published["ref"]), (&json!("published"), &json!(1)));
        let event = reader.json().await;
        assert_eq!((&event["event"], &event["data"]), (&json!("e"), &json!({"b": 1, "a": [2]})));
        let position = published["position"].as_str().expect("a position");
        let next = json!({"type": "publish", "channel": channel, "data_base64": "AP8="});
        let second = writer.command(next).await;
        assert_eq!(second.get("ref"), None);
        assert_ne!(second["position"], position);
        assert_eq!(reader.json().await["data_base64"], "AP8=");
        // Many at once keep their order.
        for n in 0..50 {
            writer.send(json!({"type": "publish", "ref": n, "channel": channel, "data": n}).to_string().as_str()).await;
        }
        for n in 0..50 {
            assert_eq!(writer.json().await["ref"], n);
            assert_eq!(reader.json().await["data"], n);
        }
    }
}

#[track_caller]
fn check_error(answer: &Value, reference: &Value, code: &str) {
    assert_eq!((&answer["type"], &answer["ref"], &answer["code"]), (&json!("error"), reference, &json!(code)));
    assert!(answer["message"].as_str().is_some_and(|message| message.len() > 10), "{answer}");
}

#[tokio::test]
async fn what_is_not_allowed_is_said_and_nothing_is_done() {
    let proxy = start(YAML);
    for http in [Http::H1, Http::H2c] {
        let mut socket = open(&proxy, http, "own").await;
        let refused = socket.command(json!({"type": "subscribe", "ref": 1, "channels": ["open.a", "other"]})).await;
        check_error(&refused, &json!(1), "not_allowed");
        let channels = ["open.a", "open.b", "open.c", "open.d"];
        let refused = socket.command(json!({"type": "subscribe", "ref": 2, "channels": channels})).await;
        check_error(&refused, &json!(2), "too_many_subscriptions");
        let open_a = say(&proxy, json!({"channel": "open.a", "data": 1})).await;
        assert_eq!(open_a["results"][0]["local_sessions"], 0, "all or none");
        let refused = socket.command(json!({"type": "publish", "ref": 3, "channel": "own", "data": 1})).await;
        check_error(&refused, &json!(3), "not_allowed");
        let long = "x".repeat(101);
        let refused = socket.command(json!({"type": "publish", "channel": "inbox.small", "data": long})).await;
        check_error(&refused, &Value::Null, "too_big");
        let taken = socket.command(json!({"type": "publish", "channel": "inbox.small", "data": &long[1..]})).await;
        assert_eq!(taken["type"], "published");
        // Any number of such errors ends nothing.
        for n in 0..10 {
            let refused = socket.command(json!({"type": "subscribe", "ref": n, "channels": ["other"]})).await;
            check_error(&refused, &json!(n), "not_allowed");
        }
        assert_eq!(socket.command(json!({"type": "ping"})).await, json!({"type": "pong"}));
        let three = &channels[..3];
        socket.command(json!({"type": "subscribe", "channels": three})).await;
        // The next round looks who is there.
        socket.close().await;
    }
}

#[tokio::test]
async fn three_malformed_commands_in_a_row_end_the_session() {
    let proxy = start(YAML);
    for http in ALL {
        let mut socket = open(&proxy, http, "own").await;
        for wrong in ["{", r#"{"type":"dance","ref":"r"}"#] {
            socket.send(wrong).await;
            let error = socket.json().await;
            assert_eq!(error["code"], "malformed", "{error}");
        }
        // A good one between starts the count anew.
        assert_eq!(socket.command(json!({"type": "ping", "ref": 1})).await, json!({"type": "pong", "ref": 1}));
        socket.send(Message::binary(vec![1, 2])).await;
        check_error(&socket.json().await, &Value::Null, "malformed");
        socket.send(r#"{"type":"subscribe","ref":"r","channels":[]}"#).await;
        check_error(&socket.json().await, &json!("r"), "malformed");
        socket.send("[]").await;
        check_error(&socket.json().await, &Value::Null, "malformed");
        assert_eq!(socket.closed().await, (4400, "malformed".to_owned()), "{http:?}");
    }
    crate::support::figures::wait_for_close(&proxy, "websocket", "malformed").await;
}
