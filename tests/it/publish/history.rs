//! What a channel keeps, and what a client that comes late gets of it.

use super::{JSON, post_as};
use crate::support::client::{Http, get, publish, send};
use crate::support::events::Events;
use crate::support::proxy::Proxy;
use std::net::SocketAddr;

const YAML: &str = "
routes:
  - name: last
    match: { path: \"/last/{topic}\" }
    push: { channels: [\"{topic}\"], start: { last: 3 } }
  - name: events
    match: { path: \"/events/{topic}\" }
    push: { channels: [\"{topic}\"] }
channels:
  - match: few
    history: { messages: 70 }
  - match: young
    history: { max_age: 300ms }
  - match: light
    history: { max_bytes: 1000 }
    max_message: 500
  - match: none
    history: { messages: 1 }
";

async fn publish_numbers(at: SocketAddr, channel: &str, count: usize, width: usize) {
    let events: Vec<_> = (0..count).map(|n| format!(r#"{{"channel":"{channel}","data":"{n:0width$}"}}"#)).collect();
    assert_eq!(post_as(Http::H1, at, JSON, format!("[{}]", events.join(","))).await.status, 200);
}

/// Checks what a client with this cursor gets: whether with a gap, and from which number on.
async fn check(http: SocketAddr, at: SocketAddr, channel: &str, cursor: &str, gap: Option<&str>, from: usize) {
    let path = format!("/events/{channel}");
    let fields = [("accept", "application/json"), ("last-event-id", cursor), ("prefer", "wait=0")];
    let answer = send(Http::H1, http, get(http, &path, &fields)).await;
    assert_eq!(answer.field("pushbridge-resumed"), if gap.is_some() { "false" } else { "true" }, "{channel}");
    let mut stream = Events::open(Http::H2c, http, &path, &[("last-event-id", cursor)]).await;
    if let Some(reason) = gap {
        let expected = serde_json::json!({ "channels": [channel], "reason": reason });
        assert_eq!(answer.json()["gap"], expected);
        let frame = stream.next().await;
        let told: serde_json::Value = serde_json::from_str(&frame.data).expect("JSON");
        assert_eq!((frame.event.as_str(), told), ("gap", expected));
        assert!(!frame.id.is_empty(), "who leaves after the gap does not hear of it again");
    }
    publish(at, &format!(r#"{{"channel":"{channel}","data":"end"}}"#)).await;
    let mut numbers = Vec::new();
    loop {
        let data = stream.data(1).await.remove(0);
        if data == "end" {
            break;
        }
        numbers.push(data.parse::<usize>().expect("a number"));
    }
    assert!(numbers.iter().copied().eq(from..from + numbers.len()), "{channel}: {numbers:?}");
    assert_eq!(numbers.first().copied().unwrap_or(from), from);
    let polled = answer.status == 200 && answer.json()["events"].as_array().is_some_and(|events| !events.is_empty());
    assert_eq!(polled, !numbers.is_empty(), "{channel}: both transports see the same");
}

#[tokio::test]
async fn history_is_bounded_by_messages_and_bytes() {
    let proxy = Proxy::start(YAML);
    let (http, at) = (proxy.address("http"), proxy.address("publish"));
    let few = Events::open(Http::H1, http, "/events/few", &[]).await.cursor;
    publish_numbers(at, "few", 69, 1).await;
    check(http, at, "few", &few, None, 0).await;
    publish_numbers(at, "few", 1, 1).await;
    let light = Events::open(Http::H1, http, "/events/light", &[]).await.cursor;
    publish_numbers(at, "light", 30, 100).await;
    check(http, at, "light", &light, Some("evicted"), 20).await;
    // A live window is kept where there is no history, for who is a moment behind.
    let none = Events::open(Http::H1, http, "/events/none", &[]).await.cursor;
    publish_numbers(at, "none", 63, 1).await;
    check(http, at, "none", &none, None, 0).await;
    publish_numbers(at, "none", 100, 1).await;
    check(http, at, "none", &none, Some("evicted"), 36).await;
}

#[tokio::test]
async fn history_grows_old() {
    let proxy = Proxy::start(YAML);
    let (http, at) = (proxy.address("http"), proxy.address("publish"));
    let cursor = Events::open(Http::H1, http, "/events/young", &[]).await.cursor;
    publish_numbers(at, "young", 3, 1).await;
    let fields = [("accept", "application/json"), ("last-event-id", cursor.as_str()), ("prefer", "wait=0")];
    let gone = async {
        loop {
            let answer = send(Http::H1, http, get(http, "/events/young", &fields)).await;
            let json = answer.json();
            if json["gap"] == serde_json::json!({ "channels": ["young"], "reason": "evicted" })
                && json["events"] == serde_json::json!([])
            {
                return;
            }
            assert_eq!(answer.status, 200);
            tokio::task::yield_now().await;
        }
    };
    crate::support::client::within("the messages' end", gone).await;
    check(http, at, "young", &cursor, Some("evicted"), 3).await;
}

#[tokio::test]
async fn a_client_without_a_cursor_starts_with_the_newest() {
    let proxy = Proxy::start(YAML);
    let (http, at) = (proxy.address("http"), proxy.address("publish"));
    let mut early = Events::open(Http::H1, http, "/last/c", &[]).await;
    publish_numbers(at, "c", 2, 1).await;
    assert_eq!(early.data(2).await, ["0", "1"]);
    let mut two = Events::open(Http::H2c, http, "/last/c", &[]).await;
    assert_eq!(two.data(2).await, ["0", "1"]);
    publish_numbers(at, "c", 10, 1).await;
    let mut three = Events::open(Http::H1, http, "/last/c", &[]).await;
    publish(at, r#"{"channel":"c","data":"live"}"#).await;
    assert_eq!(three.data(4).await, ["7", "8", "9", "live"]);
    let answer = send(Http::H1, http, get(http, "/last/c", &[("accept", "application/json")])).await;
    let newest: Vec<_> =
        answer.json()["events"].as_array().expect("events").iter().map(|event| event["data"].clone()).collect();
    assert_eq!(newest, ["8", "9", "live"]);
    // A cursor goes before `start`; a malformed one is no cursor.
    let mut resumed = Events::open(Http::H1, http, "/last/c", &[("last-event-id", &early.cursor)]).await;
    assert_eq!(resumed.data(1).await, ["0"]);
    let fields = [("accept", "text/event-stream"), ("last-event-id", "!")];
    assert_eq!(send(Http::H1, http, get(http, "/last/c", &fields)).await.status, 400);
}
