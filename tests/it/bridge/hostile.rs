//! Backends that answer with too much, too little or no HTTP at all: the client gets a clean end, the log says what was
//! wrong, and nothing stays behind.

use super::BOTH;
use crate::support::client::Http;
use crate::support::metrics;
use crate::support::proxy::Proxy;
use crate::support::raw_backend::{RawBackend, Say, Told};
use crate::support::socket::{Socket, TEXT};
use crate::support::wait_for;

/// The head of a good answer, up to its framing.
const GOOD: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: application/websocket-events\r\nsec-websocket-extensions: grip\r\n";

/// An answer that is wrong.
#[derive(Clone)]
struct Wrong {
    what: &'static str,
    say: Say,
    /// What the log says of it.
    logged: &'static str,
}

/// A whole answer with these events.
fn whole(events: &[u8]) -> Vec<u8> {
    [format!("{GOOD}content-length: {}\r\n\r\n", events.len()).as_bytes(), events].concat()
}

/// A good answer with other framing and other bytes.
fn framed(framing: &str, bytes: &[u8]) -> Vec<u8> {
    [format!("{GOOD}{framing}\r\n\r\n").as_bytes(), bytes].concat()
}

/// A control message of 10 MB, as an event.
fn huge_control() -> Vec<u8> {
    let json = format!("c:{{\"type\":\"subscribe\",\"channel\":\"{}\"}}", "x".repeat(10_000_000));
    format!("OPEN\r\nTEXT {:x}\r\n{json}\r\n", json.len()).into_bytes()
}

/// What can be wrong with an answer to any request.
fn wrongs() -> Vec<Wrong> {
    let wrong = |what, say, logged| Wrong { what, say, logged };
    vec![
        wrong("a control message of 10 MB", Say::Bytes(whole(&huge_control())), "over 1065536 bytes"),
        wrong(
            "the same in chunks",
            Say::Last(framed(
                "transfer-encoding: chunked",
                &[format!("{:x}\r\n", huge_control().len()).as_bytes(), &huge_control(), b"\r\n0\r\n\r\n"].concat(),
            )),
            "over 1065536 bytes",
        ),
        wrong(
            "a body without end",
            Say::Endless(framed("transfer-encoding: chunked", b"6\r\nOPEN\r\n\r\n"), b"8\r\nPONG 0\r\n\r\n".to_vec()),
            "over 1065536 bytes",
        ),
        wrong("an event that is cut", Say::Bytes(whole(b"OPEN\r\nTEXT 40\r\nm:half")), "malformed"),
        wrong(
            "an event's length that no memory has",
            Say::Bytes(whole(b"OPEN\r\nTEXT ffffffffffffffff\r\nm:\r\n")),
            "malformed",
        ),
        wrong("a body that is cut", Say::Last(framed("content-length: 80", b"OPEN\r\nTEXT 40\r\nm:half")), "broke off"),
        wrong(
            "a chunk that is cut",
            Say::Last(framed("transfer-encoding: chunked", b"ff\r\nOPEN\r\nTEXT")),
            "broke off",
        ),
        wrong(
            "two lengths",
            Say::Last(framed("content-length: 6\r\ncontent-length: 7", b"OPEN\r\n")),
            "upstream plain",
        ),
        wrong("no HTTP", Say::Last(b"SSH-2.0-hello\r\n\r\n".to_vec()), "upstream plain"),
        wrong("nothing", Say::Last(Vec::new()), "upstream plain"),
        wrong("a head without end", Say::Endless(GOOD.into(), b"x-endless: and so on\r\n".to_vec()), "upstream plain"),
    ]
}

/// Answers OPEN and messages; what is wrong comes where `is_wrong` says. The connection is closed after DISCONNECT, so
/// that only those stay open of which pushbridge does not know that they are broken.
async fn backend(say: Say, is_wrong: impl Fn(&Told) -> bool + Send + Sync + 'static) -> RawBackend {
    RawBackend::start(move |told| match told.text().as_str() {
        _ if is_wrong(told) => say.clone(),
        text if text.contains("DISCONNECT") => Say::Last(framed("content-length: 0\r\nconnection: close", b"")),
        "OPEN\r\n" => Say::Bytes(whole(b"OPEN\r\nTEXT 2b\r\nc:{\"type\":\"subscribe\",\"channel\":\"room\"}    \r\n")),
        _ => Say::Bytes(whole(b"TEXT 5\r\nm:yes\r\n")),
    })
    .await
}

fn proxy(backend: &RawBackend) -> Proxy {
    Proxy::start(&format!(
        "upstreams: {{ plain: {{ servers: [\"http://{}\"] }} }}
routes: [{{ name: chat, match: {{ path: /chat }}, websocket: {{ upstream: plain }} }}]
",
        backend.address
    ))
}

/// Waits until a warning has this message and this text in its fields.
#[track_caller]
fn has_warned(proxy: &Proxy, message: &str, text: &str) {
    wait_for(&format!("a warning {message:?} with {text:?}"), || {
        let lines = proxy.logged(message);
        lines.iter().any(|line| line["level"] == "WARN" && line.to_string().contains(text)).then_some(())
    });
}

/// Neither a session nor a subscription nor a connection is left.
async fn is_clean(proxy: &Proxy, backend: &RawBackend) {
    metrics::reaches(proxy, "pushbridge_hub_sessions_open{transport=\"websocket\"}", 0.0).await;
    let answer =
        crate::support::client::publish(proxy.address("publish"), r#"{"channel":"room","data":"anybody?"}"#).await;
    assert_eq!(answer.json()["results"][0]["local_sessions"], 0, "{}", answer.text());
    backend.is_left().await;
}

#[tokio::test]
async fn a_wrong_answer_to_open_is_a_bad_gateway() {
    for Wrong { what, say, logged } in wrongs() {
        let mut backend = backend(say, |told| told.text() == "OPEN\r\n").await;
        let proxy = proxy(&backend);
        for http in BOTH {
            let refused = Socket::try_open(http, proxy.address("http"), "/chat", &[]).await.err().expect("refused");
            assert_eq!(
                (refused.status.as_u16(), refused.field("content-type")),
                (502, "application/problem+json"),
                "{what}"
            );
            assert_eq!(backend.told().await.text(), "OPEN\r\n");
            // It may think that the connection stands.
            assert_eq!(backend.told().await.text(), "DISCONNECT\r\n", "{what}");
        }
        has_warned(&proxy, "bridged websocket refused", logged);
        has_warned(&proxy, "bridged websocket refused", "\"plain\"");
        is_clean(&proxy, &backend).await;
    }
}

#[tokio::test]
async fn a_wrong_answer_to_a_message_closes_its_client() {
    for Wrong { what, say, logged } in wrongs() {
        let mut backend = backend(say, |told| told.text().starts_with("TEXT")).await;
        let proxy = proxy(&backend);
        for http in BOTH {
            let mut socket = Socket::open(http, proxy.address("http"), "/chat", &[]).await;
            socket.send(TEXT, "hi").await;
            assert_eq!(socket.expect_close(1011).await, "the backend failed", "{what}");
            for told in ["OPEN\r\n", "TEXT 2\r\nhi\r\n", "DISCONNECT\r\n"] {
                assert_eq!(backend.told().await.text(), told, "{what}");
            }
        }
        has_warned(&proxy, "bridged backend failed", logged);
        has_warned(&proxy, "bridged backend failed", "\"plain\"");
        is_clean(&proxy, &backend).await;
    }
}

#[tokio::test]
async fn what_stands_behind_a_length_that_is_too_short_answers_nothing() {
    // Would it be taken for the next request's answer, one client's backend could speak to another.
    let smuggled = whole(b"TEXT a\r\nm:smuggled\r\n");
    let answer = [whole(b"OPEN\r\n"), smuggled].concat();
    let backend = backend(Say::Bytes(answer), |told| told.text() == "OPEN\r\n").await;
    let proxy = proxy(&backend);
    for http in [Http::H1, Http::H2c, Http::H1, Http::H2c] {
        let mut socket = Socket::open(http, proxy.address("http"), "/chat", &[]).await;
        socket.send(TEXT, "hi").await;
        socket.expect(TEXT, "yes").await;
        drop(socket);
    }
    metrics::reaches(&proxy, "pushbridge_hub_sessions_open{transport=\"websocket\"}", 0.0).await;
    backend.is_left().await;
}
