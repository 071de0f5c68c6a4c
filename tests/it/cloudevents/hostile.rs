//! Backends that answer wrongly, slowly or without end, and clients that say too much.

use super::{Fields, JSON, Stage, TEXT_PLAIN, assert_works, proxy_of, wait_for_metric};
use crate::support::client::Http;
use crate::support::proxy::Proxy;
use crate::support::raw_backend::{RawBackend, Say, Told};
use crate::support::socket::{Socket, TEXT};

#[tokio::test]
async fn a_message_that_fails_closes_its_client() {
    let mut stage = Stage::validated().await;
    let huge = "x".repeat(10_000_000);
    let state = "s".repeat(9000);
    let cases: [(u16, Fields<'_>, &str); 8] = [
        (400, &[TEXT_PLAIN], "no"),
        (401, &[TEXT_PLAIN], ""),
        (500, &[TEXT_PLAIN], "trace"),
        (302, &[("location", "/")], ""),
        (200, &[("content-type", "text/html")], "<p>"),
        (200, &[TEXT_PLAIN], &huge),
        (204, &[("ce-connectionState", &state)], ""),
        (204, &[("ce-connectionState", "a"), ("ce-connectionState", "b")], ""),
    ];
    for (status, fields, body) in cases {
        let mut socket = stage.open(Http::H1, "").await;
        socket.send(TEXT, "x").await;
        let asked = stage.message("x").await;
        socket.send(TEXT, "never sent").await;
        asked.answer(status, fields, body.to_owned());
        assert_eq!(socket.expect_close(1011).await, "the backend failed", "{status} {fields:?}");
        let next = stage.backend.asked().await;
        // An answer over its bound is a failure of the exchange.
        let next = if next.method == "OPTIONS" {
            next.answer(200, &[("webhook-allowed-origin", "*")], "");
            stage.backend.asked().await
        } else {
            next
        };
        assert_eq!((next.field("ce-eventname"), &next.body[..]), ("disconnected", &br#"{"reason":"upstream"}"#[..]));
        next.answer(200, &[], "");
    }
    let mut socket = stage.open(Http::H1, "").await;
    socket.send(TEXT, b"bytes").await;
    stage.message("bytes").await.answer(200, &[TEXT_PLAIN], &b"\xff"[..]);
    socket.expect_close(1011).await;
    stage.disconnected("upstream").await;
    // The log is read a moment after it was written.
    crate::support::wait_for("each failure's line", || {
        (stage.proxy.logged("bridged backend failed").len() == 9).then_some(())
    });
}

#[tokio::test]
async fn a_slow_backend_is_given_up() {
    let mut stage = Stage::new().await;
    let opening = Socket::try_open(Http::H1, stage.at(Http::H1), "/slow", &[]);
    let (opened, asked) = tokio::join!(opening, async {
        stage.validate("*").await;
        stage.event("connect").await
    });
    assert_eq!(opened.err().expect("refused").status, 504);
    drop(asked);
    // It may have let the client in.
    stage.validate("*").await;
    stage.disconnected("upstream").await;
    let opening = Socket::open(Http::H1, stage.at(Http::H1), "/slow", &[]);
    let (mut socket, ()) = tokio::join!(opening, async { stage.event("connect").await.answer(200, &[JSON], "") });
    // `connected` is given up, and the message behind it is sent.
    socket.send(TEXT, "x").await;
    let connected = stage.event("connected").await;
    stage.validate("*").await;
    let message = stage.message("x").await;
    socket.expect_close(1011).await;
    drop((connected, message));
    stage.validate("*").await;
    stage.disconnected("upstream").await;
}

#[tokio::test]
async fn a_flood_waits_in_the_client() {
    let mut stage = Stage::validated().await;
    let mut socket = stage.open(Http::H1, "").await;
    socket.send(TEXT, "0").await;
    let first = stage.message("0").await;
    let before_kib = stage.proxy.resident_kib();
    // Far more than the sockets between hold: 400 MB.
    let flood = tokio::spawn(async move {
        let text = "x".repeat(40_000);
        for _ in 0..10_000 {
            if socket.try_send(TEXT, &text).await.is_err() {
                return;
            }
        }
    });
    wait_until_stuck(&stage.proxy).await;
    let grown_kib = stage.proxy.resident_kib().saturating_sub(before_kib);
    assert!(grown_kib < 50_000, "{grown_kib} KiB");
    assert!(stage.backend.is_quiet(), "one event at a time");
    // Others are served meanwhile.
    first.answer(204, &[], "");
    stage.event("message").await.answer(500, &[TEXT_PLAIN], "");
    stage.disconnected("upstream").await;
    flood.abort();
    let mut other = stage.open(Http::H1, "").await;
    assert_works(&mut stage, &mut other).await;
}

/// Waits until the process reads no more: its memory and its CPU stand still.
async fn wait_until_stuck(proxy: &Proxy) {
    let busy = || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", proxy.id())).expect("its status");
        let fields: Vec<u64> =
            stat.rsplit(") ").next().expect("fields").split(' ').filter_map(|f| f.parse().ok()).collect();
        fields[10] + fields[11]
    };
    let mut before = busy();
    for _ in 0..600 {
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        let now = busy();
        if now == before {
            return;
        }
        before = now;
    }
    panic!("the process never rests");
}

/// What an event can be answered with that no event handler would say, and what the log says of it.
fn wrongs() -> Vec<(&'static str, Say, &'static str)> {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\nwebhook-allowed-origin: *\r\n";
    let said = |rest: &str| format!("{head}{rest}").into_bytes();
    let huge = [said("content-length: 10000000\r\n\r\n"), vec![b'x'; 10_000_000]].concat();
    let endless = Say::Endless(said("transfer-encoding: chunked\r\n\r\n"), b"3\r\nand\r\n".to_vec());
    vec![
        ("an answer of 10 MB", Say::Bytes(huge), "bytes"),
        ("a body without end", endless, "bytes"),
        ("a body that is cut", Say::Last(said("content-length: 100\r\n\r\nhal")), "broke off"),
        ("a chunk that is cut", Say::Last(said("transfer-encoding: chunked\r\n\r\nff\r\nhal")), "broke off"),
        ("two lengths", Say::Last(said("content-length: 1\r\ncontent-length: 2\r\n\r\nx")), "upstream plain"),
        ("no HTTP", Say::Last(b"SSH-2.0-hello\r\n\r\n".to_vec()), "upstream plain"),
        ("nothing", Say::Last(Vec::new()), "upstream plain"),
        ("a head without end", Say::Endless(head.into(), b"x-endless: and so on\r\n".to_vec()), "upstream plain"),
    ]
}

fn name(told: &Told) -> &str {
    if told.head.starts_with("options ") { "OPTIONS" } else { told.field("ce-eventname") }
}

/// Answers this event wrongly, and takes all others. Connections end after `disconnected`, and where the answer is wrong.
async fn backend(wrong: &'static str, say: Say) -> RawBackend {
    let taken = "HTTP/1.1 200 OK\r\nwebhook-allowed-origin: *\r\ncontent-length: 0\r\n";
    RawBackend::start(move |told| match name(told) {
        name if name == wrong => say.clone(),
        "disconnected" => Say::Last(format!("{taken}connection: close\r\n\r\n").into()),
        _ => Say::Bytes(format!("{taken}\r\n").into()),
    })
    .await
}

async fn are_told(backend: &mut RawBackend, events: &[&str], what: &str) {
    for event in events {
        assert_eq!(name(&backend.told().await), *event, "{what}");
    }
}

fn has_warned(proxy: &Proxy, message: &str, text: &str) {
    crate::support::wait_for(&format!("a warning {message:?} with {text:?}"), || {
        let lines = proxy.logged(message);
        lines.iter().any(|line| line["level"] == "WARN" && line.to_string().contains(text)).then_some(())
    });
}

#[tokio::test]
async fn a_wrong_answer_to_a_message_closes_its_client_and_leaves_nothing() {
    for (what, say, logged) in wrongs() {
        let mut backend = backend("message", say).await;
        let proxy = proxy_of(backend.address);
        for (http, first) in [(Http::H1, &["OPTIONS"][..]), (Http::H2c, &[])] {
            let mut socket = Socket::open(http, proxy.address("http"), "/chat/x", &[]).await;
            socket.send(TEXT, "x").await;
            assert_eq!(socket.expect_close(1011).await, "the backend failed", "{what}");
            are_told(&mut backend, first, what).await;
            // Perhaps another server answers there by now, which has to be asked before it is told of the end.
            are_told(&mut backend, &["connect", "connected", "message", "OPTIONS", "disconnected"], what).await;
        }
        has_warned(&proxy, "bridged backend failed", logged);
        wait_for_metric(&proxy, "pushbridge_hub_sessions_open{transport=\"websocket\"} 0").await;
        backend.is_left().await;
    }
}

#[tokio::test]
async fn a_wrong_answer_to_connect_is_a_bad_gateway_and_leaves_nothing() {
    for (what, say, logged) in wrongs() {
        let mut backend = backend("connect", say).await;
        let proxy = proxy_of(backend.address);
        for (http, first) in [(Http::H1, &["OPTIONS"][..]), (Http::H2c, &[])] {
            let refused = Socket::try_open(http, proxy.address("http"), "/chat/x", &[]).await.err().expect("refused");
            assert_eq!(refused.status, 502, "{what}");
            are_told(&mut backend, first, what).await;
            are_told(&mut backend, &["connect", "OPTIONS", "disconnected"], what).await;
        }
        has_warned(&proxy, "bridged websocket refused", logged);
        wait_for_metric(&proxy, "pushbridge_hub_sessions_open{transport=\"websocket\"} 0").await;
        backend.is_left().await;
    }
}

#[tokio::test]
async fn a_wrong_answer_to_the_first_question_is_a_bad_gateway() {
    // The body of that answer says nothing, so that what is wrong with it does not matter.
    for (what, say, logged) in wrongs().into_iter().filter(|(.., logged)| *logged == "upstream plain") {
        let mut backend = backend("OPTIONS", say).await;
        let proxy = proxy_of(backend.address);
        for http in [Http::H1, Http::H2c] {
            let refused = Socket::try_open(http, proxy.address("http"), "/chat/x", &[]).await.err().expect("refused");
            assert_eq!(refused.status, 502, "{what}");
            are_told(&mut backend, &["OPTIONS"], what).await;
        }
        has_warned(&proxy, "bridged websocket refused", logged);
        backend.is_left().await;
    }
}
