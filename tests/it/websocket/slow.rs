//! Clients that stop reading while much is published: a gap or a close, and no memory without bound.

use super::{at, start};
use crate::support::client::{Http, Stream, get, open, open_over, post, send};
use crate::support::figures::{resident_kib, wait_for_close};
use crate::support::proxy::Proxy;
use crate::support::websocket::{WebSocket, ask_over};
use serde_json::json;
use std::net::SocketAddr;
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::tungstenite::Message;

const V1: [(&str, &str); 1] = [("sec-websocket-protocol", "pushbridge.v1.json")];
const SSE: [(&str, &str); 1] = [("accept", "text/event-stream")];

const YAML: &str = "
routes:
  - name: events
    match: { path: \"/events/{topic}\" }
    push: { channels: [\"{topic}\"] }
channels:
  - { match: \"strict.*\", slow_consumer: close }
";

/// More than the kernel takes for one connection.
const MESSAGES: usize = 256;
const MESSAGE_BYTES: usize = 60_000;

/// A connection that takes little.
async fn narrow(to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(16 * 1024).expect("a socket option");
    socket.connect(to).await.expect("a connection")
}

/// Publishes numbered messages.
async fn flood(proxy: &Proxy, channel: &str) {
    let to = proxy.address("publish");
    let padding = "x".repeat(MESSAGE_BYTES);
    for batch in (0..MESSAGES).collect::<Vec<_>>().chunks(16) {
        let events: Vec<_> =
            batch.iter().map(|n| json!({"channel": channel, "data": {"n": n, "p": padding}})).collect();
        let fields = [("content-type", "application/json")];
        let answer = send(Http::H1, to, post(to, "/v1/events", &fields, json!(events).to_string())).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
}

/// Reads texts up to the close frame, and to the end.
async fn close_after_messages(mut socket: WebSocket) -> (u16, String) {
    let mut close = None;
    while let Some(Ok(message)) = socket.next().await {
        match message {
            Message::Close(frame) => close = frame,
            other => assert!(other.is_text() && close.is_none(), "{other:?}"),
        }
    }
    let close = close.expect("a close frame with a code");
    (close.code.into(), close.reason.as_str().to_owned())
}

#[tokio::test]
async fn a_slow_v1_session_hears_of_the_gap_and_goes_on() {
    let proxy = start(YAML);
    for http in [Http::H1, Http::H2c] {
        let opened = ask_over(http, narrow(at(&proxy, http)).await, "/events/c", &V1).await;
        let mut socket = WebSocket::of(opened).await;
        flood(&proxy, "c").await;
        let (mut last, mut gaps) = (None::<u64>, 0);
        while last != Some(MESSAGES as u64 - 1) {
            let said = socket.json().await;
            match said["type"].as_str() {
                Some("event") => {
                    let n = said["data"]["n"].as_u64().expect("a number");
                    assert!(last.is_none_or(|last| n == last + 1), "{http:?}: {n} after {last:?} and no gap");
                    last = Some(n);
                }
                Some("gap") => {
                    assert_eq!((&said["channels"], &said["reason"]), (&json!(["c"]), &json!("slow")));
                    assert!(said["id"].is_string());
                    (last, gaps) = (None, gaps + 1);
                }
                _ => {}
            }
        }
        assert!(gaps > 0, "{http:?}: all of it fitted somewhere");
        socket.close().await;
    }
}

#[tokio::test]
async fn a_slow_raw_session_is_closed_for_the_gap() {
    let proxy = start(YAML);
    for http in [Http::H1, Http::H2Tls] {
        let opened = ask_over(http, narrow(at(&proxy, http)).await, "/events/c", &[]).await;
        let socket = WebSocket::of(opened).await;
        flood(&proxy, "c").await;
        assert_eq!(close_after_messages(socket).await, (4001, "gap".to_owned()), "{http:?}");
    }
}

#[tokio::test]
async fn a_slow_stream_hears_of_the_gap_and_goes_on() {
    let proxy = start(YAML);
    for http in [Http::H1, Http::H2c] {
        let to = at(&proxy, http);
        let mut stream = Stream::of(open_over(http, narrow(to).await, get(to, "/events/c", &SSE)).await);
        stream.until("\n\n").await;
        flood(&proxy, "c").await;
        let (mut last, mut gaps) = (None::<usize>, 0);
        while last != Some(MESSAGES - 1) {
            let block = stream.until("\n\n").await;
            if block.contains("event: gap\n") {
                assert!(block.contains("data: {\"channels\":[\"c\"],\"reason\":\"slow\"}\n"), "{block}");
                (last, gaps) = (None, gaps + 1);
            } else if let Some((_, data)) = block.split_once("data: {\"n\":") {
                let n = data.split(',').next().and_then(|n| n.parse().ok()).expect("a number");
                assert!(last.is_none_or(|last| n == last + 1), "{http:?}: {n} after {last:?} and no gap");
                last = Some(n);
            }
        }
        assert!(gaps > 0, "{http:?}: all of it fitted somewhere");
    }
}

#[tokio::test]
async fn a_slow_session_is_closed_where_the_channel_says_so() {
    for http in [Http::H1, Http::H2c] {
        let proxy = start(YAML);
        let to = at(&proxy, http);
        let socket = WebSocket::of(ask_over(http, narrow(to).await, "/events/strict.c", &V1).await).await;
        let stream = open_over(http, narrow(to).await, get(to, "/events/strict.c", &SSE)).await;
        flood(&proxy, "strict.c").await;
        // The client that reads again finds the reason.
        assert_eq!(close_after_messages(socket).await, (4413, "slow".to_owned()), "{http:?}");
        wait_for_close(&proxy, "websocket", "slow").await;
        // One that does not is cut off all the same.
        wait_for_close(&proxy, "sse", "slow").await;
        drop(stream);
    }
}

#[tokio::test]
async fn clients_that_do_not_read_cost_no_memory_without_bound() {
    let proxy = start(YAML);
    let mut sockets = Vec::new();
    let mut streams = Vec::new();
    for _ in 0..8 {
        for http in [Http::H1, Http::H2c] {
            let to = at(&proxy, http);
            sockets.push(ask_over(http, narrow(to).await, "/events/c", &[]).await);
            sockets.push(ask_over(http, narrow(to).await, "/events/c", &V1).await);
            streams.push(open_over(http, narrow(to).await, get(to, "/events/c", &SSE)).await);
        }
    }
    let before_kib = resident_kib(&proxy);
    for _ in 0..2 {
        flood(&proxy, "c").await;
    }
    let after_kib = resident_kib(&proxy);
    // Kept without bound it would be 48 times 30 MB.
    assert!(after_kib < before_kib + 100 * 1024, "{before_kib} KiB, then {after_kib} KiB");
    let to = at(&proxy, Http::H1);
    assert_eq!(open(Http::H1, to, get(to, "/events/c", &SSE)).await.status(), 200, "others are served");
    drop((sockets, streams));
}
