//! NDJSON: answers come while the request is still open.

use super::{VERSIONS, YAML};
use crate::support::client::{Http, Stream, publish};
use crate::support::duplex::Duplex;
use crate::support::events::Events;
use crate::support::proxy::Proxy;
use serde_json::Value;

const NDJSON: &str = "application/x-ndjson";

async fn line(stream: &mut Stream) -> Value {
    serde_json::from_str(&stream.until("\n").await).expect("a line of JSON")
}

#[tokio::test]
async fn each_line_is_answered_while_the_request_is_open() {
    let proxy = Proxy::start(YAML);
    let (http, at) = (proxy.address("http"), proxy.address("publish"));
    for version in VERSIONS {
        let mut events = Events::open(version, http, "/events/c", &[]).await;
        let duplex = Duplex::post(version, at, NDJSON).await;
        duplex.send("{\"channel\":\"c\",\"data\":1}\n");
        let (request, mut answers) = duplex.stream().await;
        assert_eq!(line(&mut answers).await["results"][0]["channel"], "c");
        assert_eq!(events.data(1).await, ["1"]);
        // Lines in pieces, several in one piece, empty ones, bad ones.
        request.send("{\"channel\":\"c\",");
        request.send("\"data\":2}\r");
        request.send("\n\n  \n{\"channel\":\"c\"}\n{\"channels\":[\"c\",\"d\"],\"data\":3}\n[]\n");
        assert!(line(&mut answers).await["results"][0]["local_sessions"].as_u64() >= Some(1));
        let bad = line(&mut answers).await;
        assert_eq!((&bad["line"], &bad["status"]), (&5.into(), &400.into()));
        assert!(bad["error"].as_str().expect("a text").contains("no data"), "{bad}");
        assert_eq!(line(&mut answers).await["results"].as_array().map(Vec::len), Some(2));
        assert_eq!(line(&mut answers).await["line"], 7);
        assert_eq!(events.data(2).await, ["2", "3"]);
        // A line over the limit is skipped, and a last line needs no line feed.
        let large = "x".repeat(700_000);
        request.send(format!("{{\"channel\":\"c\",\"data\":\"{large}"));
        request.send(format!("{large}\"}}\n"));
        let bad = line(&mut answers).await;
        assert_eq!((&bad["line"], &bad["status"]), (&8.into(), &413.into()));
        request.send("{\"channel\":\"c\",\"data\":4}");
        drop(request);
        assert_eq!(line(&mut answers).await["results"][0]["duplicate"], false);
        assert_eq!(answers.rest().await, "");
        assert_eq!(events.data(1).await, ["4"]);
    }
}

#[tokio::test]
async fn a_stream_that_breaks_off_has_published_its_whole_lines() {
    let proxy = Proxy::start(YAML);
    let (http, at) = (proxy.address("http"), proxy.address("publish"));
    let mut events = Events::open(Http::H1, http, "/events/c", &[]).await;
    for version in VERSIONS {
        let duplex = Duplex::post(version, at, NDJSON).await;
        duplex.send("{\"channel\":\"c\",\"data\":1}\n{\"channel\":\"c\",\"data\":2");
        let (request, mut answers) = duplex.stream().await;
        line(&mut answers).await;
        // The client goes: its answer's end first, then its request.
        drop(answers);
        drop(request);
        assert_eq!(events.data(1).await, ["1"]);
        publish(at, r#"{"channel":"c","data":"then"}"#).await;
        let next = events.data(1).await;
        // Over HTTP/1.1 the library ends the chunked body as it closes, which makes the rest a line; else it is lost.
        assert!(next == ["then"], "{next:?}");
    }
}
