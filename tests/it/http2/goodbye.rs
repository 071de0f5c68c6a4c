//! How connections end: GOAWAY first, what is under way last, and deadlines for clients that stop in the middle.

use super::{OPEN, SSE, mirrored};
use crate::support::backend::{Backend, answer};
use crate::support::client::{dial, within};
use crate::support::frames::{CONTINUATION, END_STREAM, HEADERS, PING, frame};
use crate::support::hpack::{literal, request};
use crate::support::http2::{Event, Http2, NO_ERROR, Outcome, PREFACE, get, settings};
use crate::support::metrics::reaches;
use crate::support::proxy::Proxy;
use std::sync::Arc;
use tokio::sync::{Notify, mpsc};

/// A proxy before a backend that tells of each request, and answers once it is allowed to.
async fn gated(more: &str) -> (Proxy, Backend, mpsc::UnboundedReceiver<()>, Arc<Notify>) {
    let (tell, told) = mpsc::unbounded_channel();
    let gate = Arc::new(Notify::new());
    let of_backend = Arc::clone(&gate);
    let backend = Backend::http(move |_| {
        let (tell, gate) = (tell.clone(), Arc::clone(&of_backend));
        async move {
            let _ = tell.send(());
            gate.notified().await;
            answer(200, &[], "late")
        }
    })
    .await;
    let proxy = Proxy::start(&format!("{}\n{more}\n", backend.config("")));
    (proxy, backend, told, gate)
}

/// Waits for a GOAWAY without an error.
async fn goodbye(http2: &mut Http2) -> u32 {
    http2
        .until(|event| match event {
            Event::Goaway { last, code } => {
                assert_eq!(*code, NO_ERROR);
                Some(*last)
            }
            _ => None,
        })
        .await
}

#[tokio::test]
async fn a_drain_says_goodbye_and_finishes_what_is_under_way() {
    let (proxy, _backend, mut told, gate) = gated("").await;
    let mut http2 = Http2::open(proxy.address("http")).await;
    http2.get(1, "/late").await;
    within("the request at the backend", told.recv()).await;
    let mut held = Http2::open(proxy.address("http")).await;
    held.get(1, "/events/x").await;
    assert_eq!(held.status(1).await, 200);
    let mut idle = Http2::open(proxy.address("http")).await;
    idle.round_trip(b"is there").await;
    reaches(&proxy, OPEN, 3.0).await;
    proxy.stop();
    assert!(goodbye(&mut http2).await >= 1, "the request is one that is served");
    gate.notify_one();
    assert_eq!(http2.outcome(1).await.body(), b"late");
    // With nothing to do the connection is closed, by a server that waits for no more than a PING.
    let mut last = None;
    while let Some(event) = http2.event().await {
        match &event {
            Event::Ping(payload) => http2.write(frame(PING, 1, 0, payload)).await,
            Event::Goaway { last: stream, code } => {
                assert_eq!(*code, NO_ERROR);
                last = Some(*stream);
            }
            Event::Head { .. } | Event::Data { .. } | Event::Reset { .. } => panic!("{event:?}"),
            _ => {}
        }
    }
    assert!(last.is_none_or(|last| last >= 1), "{last:?}");
    // A session ends with its stream, cleanly.
    let end = held.until(|event| match event {
        Event::Data { stream: 1, is_last: true, .. } => Some(NO_ERROR),
        Event::Reset { stream: 1, code } => Some(*code),
        _ => None,
    });
    assert_eq!(end.await, NO_ERROR);
    while let Some(event) = idle.event().await {
        assert!(!matches!(event, Event::Goaway { code: 1.., .. }), "{event:?}");
    }
    assert!(proxy.wait().success());
}

#[tokio::test]
async fn a_request_that_crosses_the_goodbye_is_served_or_refused() {
    let (proxy, _backend, mut told, gate) = gated("").await;
    let mut http2 = Http2::open(proxy.address("http")).await;
    http2.get(1, "/late").await;
    within("the request at the backend", told.recv()).await;
    proxy.stop();
    let last = goodbye(&mut http2).await;
    http2.get(3, "/events/x?crossed").await;
    // Over the last stream that is served nothing is promised but that the others are.
    if last >= 3 {
        let outcome = http2.until(|event| match event {
            Event::Head { stream: 3, .. } => Some(true),
            Event::Reset { stream: 3, code } => Some(*code == crate::support::http2::REFUSED_STREAM),
            Event::Goaway { last, .. } => (*last < 3).then_some(true),
            _ => None,
        });
        assert!(outcome.await, "neither served nor refused");
    }
    gate.notify_one();
    assert_eq!(http2.outcome(1).await.body(), b"late");
    assert!(proxy.terminate().success());
}

#[tokio::test]
async fn the_end_of_a_connection_ends_all_that_it_carries() {
    let (proxy, _backend) = mirrored("").await;
    let mut many = Vec::new();
    for _ in 0..3 {
        let mut http2 = Http2::open(proxy.address("http")).await;
        http2.write((1..80).step_by(2).flat_map(|stream| get(stream, "/events/x")).collect::<Vec<_>>()).await;
        many.push(http2);
    }
    reaches(&proxy, SSE, 120.0).await;
    // By a close, by a reset of TCP, by an error.
    let mut broken = many.pop().expect("a connection");
    broken.write(frame(PING, 0, 0, &[0; 3])).await;
    reaches(&proxy, SSE, 80.0).await;
    let tcp = many.pop().expect("a connection").into_tcp();
    tcp.set_zero_linger().expect("a socket option");
    drop(tcp);
    reaches(&proxy, SSE, 40.0).await;
    drop(many);
    reaches(&proxy, SSE, 0.0).await;
    drop(broken);
    reaches(&proxy, OPEN, 0.0).await;
}

/// A client that stops in the middle of something holds its place for a bounded time.
#[tokio::test]
async fn what_does_not_go_on_is_closed() {
    let (proxy, _backend) = mirrored("limits: { request_header_timeout: 200ms, idle_timeout: 300ms }").await;
    let hello = [PREFACE.to_vec(), settings(&[])].concat();
    let after = |bytes: &[u8]| [&hello[..], bytes].concat();
    let head = frame(HEADERS, END_STREAM, 1, &request("GET", "/", &[]));
    let mut waiting = tokio::task::JoinSet::new();
    for (name, bytes) in [
        ("the preface alone", PREFACE.to_vec()),
        ("half a frame's head", after(&[0, 0, 8, 6])),
        ("half a frame", after(&frame(PING, 0, 0, &[0; 8])[..13])),
        ("settings and nothing", after(&[])),
        ("half a list of fields", after(&head)),
        ("half a list of fields that went on", {
            after(&[head.clone(), frame(CONTINUATION, 0, 1, &literal("x-a", "b"))].concat())
        }),
        ("half a HEADERS", after(&head[..20])),
    ] {
        let tcp = dial(proxy.address("http")).await;
        waiting.spawn(async move {
            let mut http2 = Http2::bare(tcp);
            http2.write(bytes).await;
            assert!(matches!(http2.outcome(1).await, Outcome::Closed(_)), "{name}");
        });
    }
    while let Some(ended) = waiting.join_next().await {
        ended.expect("a close");
    }
    reaches(&proxy, OPEN, 0.0).await;
}

/// It is not idle while it has a session, however long nothing is said.
#[tokio::test]
async fn an_idle_connection_is_told_and_a_held_one_stays() {
    let (proxy, _backend) = mirrored("limits: { idle_timeout: 200ms }").await;
    let mut held = Http2::open(proxy.address("http")).await;
    held.get(1, "/events/x").await;
    assert_eq!(held.status(1).await, 200);
    for _ in 0..2 {
        let mut idle = Http2::open(proxy.address("http")).await;
        idle.get(1, "/").await;
        assert_eq!(idle.outcome(1).await.status(), 200);
        goodbye(&mut idle).await;
        while let Some(event) = idle.event().await {
            if let Event::Ping(payload) = event {
                idle.write(frame(PING, 1, 0, &payload)).await;
            }
        }
    }
    let events = held.round_trip(b"still on").await;
    assert!(!events.iter().any(|event| matches!(event, Event::Goaway { .. })), "{events:?}");
}
