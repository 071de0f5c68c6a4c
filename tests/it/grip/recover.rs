//! Reliable streams: pages, order, recovery, and readers that fall behind.

use super::{ALL, Stage};
use crate::support::bridge_backend::Asked;
use crate::support::client::{Http, Stream, post, send};
use crate::support::metrics;
use serde_json::json;

const EVENTS: (&str, &str) = ("content-type", "text/event-stream");
const NEXT: (&str, &str) = ("grip-link", "</next?from=here>; rel=next");

/// Answers a request for a page.
fn page(asked: Asked, fields: &[(&str, &str)], body: &str) {
    asked.answer(200, &[&[EVENTS], fields].concat(), body.to_owned());
}

#[tokio::test]
async fn pages_come_one_after_the_other_until_a_hold() {
    let mut stage = Stage::new().await;
    for http in ALL {
        let first = [EVENTS, ("grip-link", "<?page=2>; rel=next")];
        let response = stage
            .ask(http, "/events?page=1", &[("cookie", "a=1"), ("last-event-id", "1")], |asked| {
                asked.answer(200, &first, "1\n")
            })
            .await;
        let mut stream = Stream::of(response);
        let asked = stage.backend.asked().await;
        assert_eq!((asked.target.to_string().as_str(), asked.field("cookie")), ("/events?page=2", "a=1"));
        assert!(asked.field("grip-last").is_empty() && !asked.field("grip-sig").is_empty());
        // The link says itself where it begins.
        assert!(asked.field("last-event-id").is_empty());
        let host = asked.field("host").to_owned();
        page(asked, &[("grip-link", &format!("<http://{host}/three>; rel=next"))], "2\n");
        let asked = stage.backend.asked().await;
        assert_eq!(asked.target, "/three");
        page(asked, &[("grip-hold", "stream"), ("grip-channel", "a")], "3\n");
        assert_eq!(stream.until("3\n").await, "1\n2\n3\n");
        stage.send("a", "4\n").await;
        assert_eq!(stream.until("4\n").await, "4\n");
        stage.publish(&json!([{"channel": "a", "http-stream": {"action": "close"}}])).await;
        assert_eq!(stream.rest().await, "");
    }
    let response = stage.ask(Http::H1, "/whole", &[], |asked| page(asked, &[NEXT], "a")).await;
    page(stage.backend.asked().await, &[], "b");
    assert_eq!(Stream::of(response).rest().await, "ab");
    stage.is_clean().await;
}

#[tokio::test]
async fn ids_out_of_order_and_repeated_come_out_in_order() {
    let mut stage = Stage::new().await;
    let fields = [("grip-channel", "a; prev-id=0"), NEXT];
    let mut stream = stage.stream(Http::H2c, "/events", &fields, "0\n").await;
    for (id, prev_id, result) in
        [("1", "0", "published"), ("3", "2", "waits"), ("2", "1", "published"), ("3", "2", "duplicate")]
    {
        let answer = stage.send_id("a", id, prev_id, &format!("{id}\n")).await;
        assert_eq!(answer.json()["results"][0]["result"], result, "{id}");
    }
    assert_eq!(stream.until("3\n").await, "1\n2\n3\n");
    assert!(stage.backend.is_quiet());
}

#[tokio::test]
async fn an_item_whose_predecessor_never_comes_is_published_in_the_end() {
    let mut stage = Stage::new().await;
    let mut stream = stage.stream(Http::H1, "/events", &[("grip-channel", "a")], "0\n").await;
    stage.send_id("a", "1", "0", "1\n").await;
    assert_eq!(stage.send_id("a", "3", "2", "3\n").await.json()["results"][0]["result"], "waits");
    stage.send_id("a", "4", "3", "4\n").await;
    stage.send("a", "meanwhile\n").await;
    assert_eq!(stream.until("4\n").await, "1\nmeanwhile\n3\n4\n");
}

#[tokio::test]
async fn what_never_came_is_had_from_the_backend() {
    let mut stage = Stage::new().await;
    for (http, channel) in ALL.into_iter().zip(["a", "b", "c", "d"]) {
        let held = format!("{channel}; prev-id=1");
        let fields = [("grip-channel", held.as_str()), NEXT];
        let mut stream = stage.stream(http, "/events", &fields, "1\n").await;
        // Nothing is known of 2: 3 is the first that the channel sees, and goes out at once.
        stage.send_id(channel, "3", "2", "3\n").await;
        let asked = stage.backend.asked().await;
        assert_eq!(asked.target.to_string(), "/next?from=here");
        assert_eq!(asked.field("grip-last"), format!("{channel}; last-id=1"));
        // What is published during the fetch waits, and goes on after the new prev-id.
        stage.send_id(channel, "4", "3", "4\n").await;
        let held = format!("{channel}; prev-id=3");
        page(asked, &[("grip-hold", "stream"), ("grip-channel", &held), NEXT], "2\n3\n");
        assert_eq!(stream.until("4\n").await, "2\n3\n4\n");
        stage.send_id(channel, "5", "4", "5\n").await;
        assert_eq!(stream.until("5\n").await, "5\n");
        assert!(stage.backend.is_quiet());
    }
}

#[tokio::test]
async fn a_channel_that_moved_on_is_caught_up_from_its_history() {
    let mut stage = Stage::new().await;
    for (id, prev_id) in [("1", "0"), ("2", "1"), ("3", "2")] {
        stage.send_id("a", id, prev_id, &format!("{id}\n")).await;
    }
    let mut stream = stage.stream(Http::H1, "/events", &[("grip-channel", "a; prev-id=1"), NEXT], "1\n").await;
    assert_eq!(stream.until("3\n").await, "2\n3\n");
    assert!(stage.backend.is_quiet());
    // What the history does not know has to come from the backend.
    let held = [EVENTS, ("grip-hold", "stream"), ("grip-channel", "a; prev-id=x"), NEXT];
    let response = stage.ask(Http::H1, "/events", &[], |asked| asked.answer(200, &held, "x\n")).await;
    let asked = stage.backend.asked().await;
    assert_eq!(asked.field("grip-last"), "a; last-id=x");
    page(asked, &[("grip-hold", "stream"), ("grip-channel", "a; prev-id=3")], "all\n");
    assert_eq!(Stream::of(response).until("all\n").await, "x\nall\n");
}

#[tokio::test]
async fn without_a_link_what_is_missing_ends_the_stream() {
    let mut stage = Stage::new().await;
    let stream = stage.stream(Http::H1, "/events", &[("grip-channel", "a; prev-id=1")], "1\n").await;
    stage.send_id("a", "3", "2", "3\n").await;
    assert_eq!(stream.rest().await, "");
    metrics::reaches(&stage.proxy, "pushbridge_hub_sessions_closed_total{transport=\"sse\",reason=\"gap\"}", 1.0).await;
}

#[tokio::test]
async fn recover_makes_reliable_sessions_ask() {
    let mut stage = Stage::new().await;
    let mut reliable = stage.stream(Http::H1, "/events", &[("grip-channel", "a; prev-id=1"), NEXT], "1\n").await;
    let mut other = stage.stream(Http::H1, "/events", &[("grip-channel", "b"), NEXT], "b\n").await;
    let at = stage.proxy.address("publish");
    let answer = send(Http::H1, at, post(at, "/recover", &[], "")).await;
    assert_eq!((answer.status.as_u16(), answer.text()), (200, "Updated\n"));
    let asked = stage.backend.asked().await;
    assert_eq!(asked.field("grip-last"), "a; last-id=1");
    page(asked, &[("grip-hold", "stream"), ("grip-channel", "a; prev-id=2"), NEXT], "2\n");
    assert_eq!(reliable.until("2\n").await, "2\n");
    stage.send("b", "more\n").await;
    assert_eq!(other.until("more\n").await, "more\n");
    assert!(stage.backend.is_quiet());
}

#[tokio::test]
async fn a_hint_and_silence_ask_for_the_next_page() {
    let mut stage = Stage::new().await;
    let fields = [("grip-channel", "a; prev-id=1"), ("grip-link", "</next>; rel=next; timeout=1")];
    let mut stream = stage.stream(Http::H1, "/events", &fields, "1\n").await;
    let asked = stage.backend.asked().await;
    assert_eq!(asked.field("grip-last"), "a; last-id=1");
    page(asked, &[("grip-hold", "stream"), ("grip-channel", "a; prev-id=2"), NEXT], "2\n");
    assert_eq!(stream.until("2\n").await, "2\n");
    stage.publish(&json!([{"channel": "a", "http-stream": {"action": "hint"}}])).await;
    let asked = stage.backend.asked().await;
    assert_eq!(asked.field("grip-last"), "a; last-id=2");
    page(asked, &[("grip-hold", "stream"), ("grip-channel", "a; prev-id=3"), NEXT], "3\n");
    assert_eq!(stream.until("3\n").await, "3\n");
}

#[tokio::test]
async fn a_backend_that_is_down_for_a_moment_is_asked_again() {
    let mut stage = Stage::new().await;
    let mut stream = stage.stream(Http::H1, "/events", &[("grip-channel", "a; prev-id=1"), NEXT], "1\n").await;
    stage.send_id("a", "3", "2", "3\n").await;
    stage.backend.asked().await.answer(503, &[("content-type", "text/plain")], "down");
    let asked = stage.backend.asked().await;
    page(asked, &[("grip-hold", "stream"), ("grip-channel", "a; prev-id=3")], "2\n3\n");
    assert_eq!(stream.until("3\n").await, "2\n3\n");
    metrics::reaches(&stage.proxy, "pushbridge_grip_pages_total{result=\"failed\"}", 1.0).await;
}

#[tokio::test]
async fn sessions_that_miss_the_same_ask_once() {
    let mut stage = Stage::with("runtime: { workers: 1 }\n").await;
    let mut streams = Vec::new();
    for _ in 0..20 {
        streams.push(stage.stream(Http::H1, "/events", &[("grip-channel", "a; prev-id=1"), NEXT], "1\n").await);
    }
    stage.send_id("a", "3", "2", "3\n").await;
    let asked = stage.backend.asked().await;
    page(asked, &[("grip-hold", "stream"), ("grip-channel", "a; prev-id=3"), NEXT], "2\n3\n");
    for stream in &mut streams {
        assert_eq!(stream.until("3\n").await, "2\n3\n");
    }
    assert!(stage.backend.is_quiet());
}
