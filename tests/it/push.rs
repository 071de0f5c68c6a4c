//! Push routes: SSE and long poll over both HTTP versions, cursors, resume, errors.

use crate::support::client::{Http, Stream, get, open, publish, request, send};
use crate::support::proxy::Proxy;

const YAML: &str = "
routes:
  - name: events
    match: { path: \"/events/{topic}\" }
    push: { channels: [\"{topic}\"], transports: [sse, websocket, long_poll], long_poll_timeout: 2s }
";

const SSE: [(&str, &str); 1] = [("accept", "text/event-stream")];
const JSON: [(&str, &str); 1] = [("accept", "application/json")];

#[tokio::test]
async fn a_published_event_reaches_an_event_stream_over_both_versions() {
    let proxy = Proxy::start(YAML);
    let (http, at) = (proxy.address("http"), proxy.address("publish"));
    for (version, topic) in [(Http::H1, "one"), (Http::H2c, "two")] {
        let response = open(version, http, get(http, &format!("/events/{topic}"), &SSE)).await;
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        assert_eq!(response.headers()["cache-control"], "no-store");
        assert_eq!(response.headers()["x-accel-buffering"], "no");
        let mut stream = Stream::of(response);
        let opening = stream.until("\n\n").await;
        assert!(opening.contains("retry: 2000\n") && opening.contains("\nid: "), "{opening}");
        let answer = publish(at, &format!(r#"{{"channel":"{topic}","event":"greet","data":"two\nlines"}}"#)).await;
        assert_eq!(answer.json()["results"][0]["local_sessions"], 1, "{}", answer.text());
        let event = stream.until("\n\n").await;
        assert!(event.starts_with("id: ") && event.ends_with("\nevent: greet\ndata: two\ndata: lines\n\n"), "{event}");
    }
}

#[tokio::test]
async fn one_cursor_serves_event_streams_and_long_polls() {
    let proxy = Proxy::start(YAML);
    let (http, at) = (proxy.address("http"), proxy.address("publish"));
    let first = send(Http::H1, http, get(http, "/events/c", &[JSON[0], ("prefer", "wait=0")])).await;
    assert_eq!(first.status, 204);
    let cursor = first.field("etag").to_owned();
    for n in 1..=3 {
        publish(at, &format!(r#"{{"channel":"c","data":{{"n":{n}}}}}"#)).await;
    }
    let polled = send(Http::H2c, http, get(http, "/events/c", &[JSON[0], ("if-none-match", &cursor)])).await;
    let json = polled.json();
    assert_eq!(polled.field("pushbridge-resumed"), "true");
    assert_eq!(json["gap"], serde_json::Value::Null);
    let numbers: Vec<_> =
        json["events"].as_array().expect("events").iter().map(|event| event["data"]["n"].clone()).collect();
    assert_eq!(numbers, [1, 2, 3]);
    let second_id = json["events"][1]["id"].as_str().expect("an id");
    let resumed = [SSE[0], ("last-event-id", second_id)];
    let mut stream = Stream::of(open(Http::H1, http, get(http, "/events/c", &resumed)).await);
    stream.until("\n\n").await;
    assert!(stream.until("\n\n").await.ends_with("data: {\"n\":3}\n\n"));
    assert_eq!(polled.field("etag"), format!("\"{}\"", json["next"].as_str().expect("next")));
}

#[tokio::test]
async fn a_held_long_poll_is_answered_by_the_next_event() {
    let proxy = Proxy::start(YAML);
    let (http, at) = (proxy.address("http"), proxy.address("publish"));
    let poll = tokio::spawn(async move { send(Http::H1, http, get(http, "/events/c", &JSON)).await });
    loop {
        let answer = publish(at, r#"{"channel":"c","data":1}"#).await;
        if answer.json()["results"][0]["local_sessions"] == 1 {
            break;
        }
    }
    let answer = poll.await.expect("an answer");
    assert_eq!((answer.status.as_u16(), &answer.json()["events"][0]["data"]), (200, &1.into()));
}

#[tokio::test]
async fn what_a_push_route_can_not_do_is_said() {
    let proxy = Proxy::start(YAML);
    let http = proxy.address("http");
    let answer = send(Http::H1, http, get(http, "/events/c", &[("accept", "image/png")])).await;
    assert_eq!(answer.status, 406);
    assert_eq!(answer.field("content-type"), "application/problem+json");
    assert_eq!(answer.json()["transports"], serde_json::json!(["sse", "websocket", "long_poll"]));
    let answer = send(Http::H2c, http, request("POST", http, "/events/c", &[], "x")).await;
    assert_eq!((answer.status.as_u16(), answer.field("allow")), (405, "GET, HEAD, OPTIONS"));
    let answer = send(Http::H1, http, get(http, "/events/c", &[("last-event-id", "nonsense")])).await;
    assert_eq!(answer.status, 400);
    let answer = send(Http::H1, http, get(http, "/events/a%0Ab", &[])).await;
    assert_eq!(answer.status, 400);
    let answer = send(Http::H1, http, get(http, "/nowhere", &[])).await;
    assert_eq!(answer.status, 404);
    assert_eq!(answer.json()["request_id"].as_str().map(str::len), Some(16));
    let answer = send(Http::H1, http, request("HEAD", http, "/events/c", &[], "")).await;
    assert_eq!((answer.status.as_u16(), answer.field("content-type")), (200, "text/event-stream"));
}

#[tokio::test]
async fn sessions_end_cleanly_when_the_process_is_stopped() {
    let proxy = Proxy::start(YAML);
    let http = proxy.address("http");
    let mut streams = Vec::new();
    for version in [Http::H1, Http::H2c] {
        let mut stream = Stream::of(open(version, http, get(http, "/events/c", &SSE)).await);
        stream.until("\n\n").await;
        streams.push(stream);
    }
    let ended = tokio::task::spawn_blocking(move || proxy.terminate());
    for stream in streams {
        let rest = stream.rest().await;
        assert!(rest.starts_with("retry: ") && rest.ends_with("\n\n"), "{rest}");
    }
    assert_eq!(ended.await.expect("waited").code(), Some(0));
}
