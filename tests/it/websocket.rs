//! WebSocket sessions on push routes, as clients see them.

mod handshake;
mod liveness;
mod rules;
mod shared;
mod slow;
mod v1;

use crate::support::client::{Http, publish};
use crate::support::proxy::Proxy;
use crate::support::tls::certified_folder;
use crate::support::websocket::{ALL, WebSocket};
use serde_json::Value;
use std::net::SocketAddr;
use tokio_tungstenite::tungstenite::Message;

const LISTENERS: &str = "
listeners:
  - { name: http, address: \"127.0.0.1:0\" }
  - { name: https, address: \"127.0.0.1:0\", tls: { certificates: [{ cert_file: tls.crt, key_file: tls.key }] } }
";

const ROUTE: &str = "
routes:
  - name: events
    match: { path: \"/events/{topic}\" }
    push: { channels: [\"{topic}\"] }
";

const CLOUDEVENTS: [(&str, &str); 1] = [("sec-websocket-protocol", "cloudevents.json")];

/// A pushbridge with a cleartext and a TLS listener.
fn start(yaml: &str) -> Proxy {
    Proxy::start_in(certified_folder(), &format!("{LISTENERS}{yaml}"))
}

/// Where this HTTP is spoken.
fn at(proxy: &Proxy, http: Http) -> SocketAddr {
    proxy.address(if matches!(http, Http::H1Tls | Http::H2Tls) { "https" } else { "http" })
}

/// Publishes an event that must be accepted.
async fn say(proxy: &Proxy, event: Value) -> Value {
    let answer = publish(proxy.address("publish"), &event.to_string()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

#[tokio::test]
async fn raw_sockets_get_the_data_alone() {
    let proxy = start(ROUTE);
    for (n, http) in ALL.into_iter().enumerate() {
        let topic = format!("raw{n}");
        let mut socket = WebSocket::open(http, at(&proxy, http), &format!("/events/{topic}"), &[]).await;
        assert!(!socket.fields.contains_key("sec-websocket-protocol"));
        let text = serde_json::json!({"channel": topic, "event": "e", "data": "a\nb"});
        assert_eq!(say(&proxy, text).await["results"][0]["local_sessions"], 1);
        let spaced = format!(r#"{{"channel":"{topic}","data":{{ "b" : [1.0, 2] }}}}"#);
        assert_eq!(publish(proxy.address("publish"), &spaced).await.status, 200);
        say(&proxy, serde_json::json!({"channel": topic, "data_base64": "AP8B"})).await;
        assert_eq!(socket.text().await, "a\nb", "{http:?}");
        assert_eq!(socket.text().await, r#"{"b":[1.0,2]}"#);
        let binary = socket.next().await.expect("a message").expect("a message");
        assert_eq!(binary, Message::binary(vec![0, 255, 1]));
        socket.close().await;
    }
}

#[tokio::test]
async fn a_message_of_each_length_form_comes_whole() {
    let proxy = start(ROUTE);
    for http in [Http::H1, Http::H2Tls] {
        let mut socket = WebSocket::open(http, at(&proxy, http), "/events/long", &[]).await;
        for len in [0, 125, 126, 65_535, 65_536] {
            say(&proxy, serde_json::json!({"channel": "long", "data": "x".repeat(len)})).await;
            assert_eq!(socket.text().await.len(), len);
        }
    }
}

#[tokio::test]
async fn cloudevents_are_sent_as_they_came_or_made_up() {
    let proxy = start(ROUTE);
    for (n, http) in [Http::H1, Http::H2c].into_iter().enumerate() {
        let topic = format!("ce{n}");
        let mut socket = WebSocket::open(http, at(&proxy, http), &format!("/events/{topic}"), &CLOUDEVENTS).await;
        assert_eq!(socket.fields["sec-websocket-protocol"], "cloudevents.json");
        say(&proxy, serde_json::json!({"channel": topic, "event": "price", "data": {"n": 1}})).await;
        let made = socket.json().await;
        assert_eq!((&made["specversion"], &made["type"]), (&"1.0".into(), &"price".into()), "{made}");
        assert_eq!(made["data"], serde_json::json!({"n": 1}));
        assert!(made["id"].is_string() && made["source"].is_string(), "{made}");
        let published = crate::support::client::post(
            proxy.address("publish"),
            "/v1/events",
            &[("content-type", "application/cloudevents+json")],
            format!(
                r#"{{"specversion":"1.0","id":"7","source":"/s","type":"t","subject":"{topic}","later":"x","data":[1]}}"#
            ),
        );
        let answer = crate::support::client::send(Http::H1, proxy.address("publish"), published).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let kept = socket.json().await;
        assert_eq!((&kept["id"], &kept["source"], &kept["later"]), (&"7".into(), &"/s".into(), &"x".into()), "{kept}");
        assert_eq!((&kept["type"], &kept["data"]), (&"t".into(), &serde_json::json!([1])));
    }
}

#[tokio::test]
async fn a_client_without_a_cursor_starts_where_the_route_says() {
    let proxy = start(
        "
routes:
  - name: newest
    match: { path: \"/newest/{topic}\" }
    push: { channels: [\"{topic}\"], start: { last: 2 } }
  - name: now
    match: { path: \"/now/{topic}\" }
    push: { channels: [\"{topic}\"] }
",
    );
    for n in 1..=4 {
        say(&proxy, serde_json::json!({"channel": "c", "data": n})).await;
    }
    for http in ALL {
        let to = at(&proxy, http);
        let mut socket = WebSocket::v1(http, to, "/newest/c").await;
        let events = [socket.json().await, socket.json().await];
        assert_eq!([&events[0]["data"], &events[1]["data"]], [3, 4], "{http:?}");
        let cursor = events[0]["id"].as_str().expect("an id");
        let mut raw = WebSocket::open(http, to, "/newest/c", &[("last-event-id", cursor)]).await;
        assert_eq!(raw.text().await, "4", "a cursor counts more than the start");
        let mut now = WebSocket::open(http, to, "/now/c", &[]).await;
        say(&proxy, serde_json::json!({"channel": "c", "data": "new"})).await;
        assert_eq!(now.text().await, "new");
        // Leaves the channel as it was for the next.
        for n in 3..=4 {
            say(&proxy, serde_json::json!({"channel": "c", "data": n})).await;
        }
    }
}

#[tokio::test]
async fn sockets_end_with_1012_when_the_process_is_stopped() {
    let proxy = start(ROUTE);
    let mut raw = Vec::new();
    let mut v1 = Vec::new();
    for http in ALL {
        raw.push(WebSocket::open(http, at(&proxy, http), "/events/c", &[]).await);
        v1.push(WebSocket::v1(http, at(&proxy, http), "/events/c").await);
    }
    let ended = tokio::task::spawn_blocking(move || proxy.terminate());
    for mut socket in v1 {
        let reconnect = socket.json().await;
        assert_eq!(reconnect["type"], "reconnect");
        assert!(reconnect["after_ms"].is_u64() && reconnect["cursor"].is_string(), "{reconnect}");
        assert_eq!(socket.closed().await, (1012, "drain".to_owned()));
    }
    for socket in raw {
        assert_eq!(socket.closed().await, (1012, "drain".to_owned()));
    }
    assert_eq!(ended.await.expect("waited").code(), Some(0));
}
