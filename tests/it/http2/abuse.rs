//! Hostile clients: whatever they send costs bounded memory and their own connection at most; others are served.

use super::{OPEN, SSE, mirrored};
use crate::support::backend::{Backend, answer};
use crate::support::client::{DEADLINE, Http, get as request_of, publish, send, within};
use crate::support::frames::{
    self, CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PADDED, PING, PRIORITY, frame,
};
use crate::support::hpack::{literal, remembered, request};
use crate::support::http2::{
    ENHANCE_YOUR_CALM, Event, HEADER_TABLE_SIZE, Http2, INITIAL_WINDOW_SIZE, Outcome, PREFACE, get, post, reset,
    settings, window_update,
};
use crate::support::metrics::reaches;
use crate::support::proxy::Proxy;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpSocket, TcpStream};

/// The bytes of each turn of a flood.
type Turn = Box<dyn Fn(u32) -> Vec<u8> + Send>;

const BOTH: u8 = END_STREAM | END_HEADERS;
/// What a flood may make the process grow by: far less than what was sent, or asked for.
const GROWTH_KIB_MAX: u64 = 64 * 1024;

/// Whether a client reads what it is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reading {
    All,
    Nothing,
}

/// How a flood ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flood {
    /// The server closed the connection.
    Closed,
    /// The server took it all.
    Taken,
    /// The server reads no more of it.
    Stalled,
}

/// Writes what `bytes` makes of 0, 1, …, `turns`; meanwhile others are served and the process stays small.
async fn flood(
    proxy: &Proxy,
    tcp: TcpStream,
    reading: Reading,
    turns: u32,
    bytes: impl Fn(u32) -> Vec<u8> + Send + 'static,
) -> Flood {
    let before = proxy.resident_kib();
    let (mut reader, mut writer) = tcp.into_split();
    let written = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&written);
    let writing = tokio::spawn(async move {
        let mut turn = 0;
        while turn < turns {
            let batch: Vec<u8> = (turn..turns.min(turn + 64)).flat_map(&bytes).collect();
            if writer.write_all(&batch).await.is_err() {
                return Flood::Closed;
            }
            turn += 64;
            counted.fetch_add(1, Ordering::Relaxed);
        }
        // Its end would close this direction: the server is to see that in the end only.
        writer.forget();
        Flood::Taken
    });
    let mut held = None;
    let draining = match reading {
        Reading::All => Some(tokio::spawn(async move { while frames::next(&mut reader).await.is_some() {} })),
        Reading::Nothing => {
            held = Some(reader);
            None
        }
    };
    let until = Instant::now() + DEADLINE;
    let (mut seen, mut moved) = (0, Instant::now());
    // A second in which others are served and this one is not read is a stall.
    while !writing.is_finished() && moved.elapsed() < Duration::from_secs(1) {
        is_served(proxy).await;
        let grown = proxy.resident_kib().saturating_sub(before);
        assert!(grown < GROWTH_KIB_MAX, "grown by {grown} KiB");
        assert!(Instant::now() < until, "the flood goes on");
        let now = written.load(Ordering::Relaxed);
        if now != seen {
            (seen, moved) = (now, Instant::now());
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let end = match writing.is_finished() {
        true => writing.await.expect("no panic"),
        false => {
            writing.abort();
            Flood::Stalled
        }
    };
    is_served(proxy).await;
    drop(held);
    if let Some(draining) = draining {
        draining.abort();
    }
    end
}

/// Another connection's request is answered.
async fn is_served(proxy: &Proxy) {
    let to = proxy.address("http");
    let answer = send(Http::H2c, to, request_of(to, "/other", &[])).await;
    assert_eq!(answer.status, 200, "others are served");
}

/// A proxy before a backend that answers only `/other`.
async fn silent() -> (Proxy, Backend) {
    let backend = Backend::http(|request| async move {
        if request.uri().path() != "/other" {
            std::future::pending::<()>().await;
        }
        answer(200, &[], "other")
    })
    .await;
    (Proxy::start(&backend.config("")), backend)
}

async fn connect(proxy: &Proxy) -> TcpStream {
    frames::connect(proxy.address("http")).await
}

/// As [`connect`], with little room for what is not read.
async fn narrow(proxy: &Proxy) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4096).expect("a socket option");
    let mut tcp = within("a connection", socket.connect(proxy.address("http"))).await.expect("a connection");
    tcp.write_all(&[PREFACE, &settings(&[])].concat()).await.expect("written");
    tcp
}

/// CVE-2023-44487.
#[tokio::test]
async fn rapid_resets_of_proxied_requests_cost_their_own_connection() {
    let (proxy, _backend) = silent().await;
    let opened = |turn: u32| [get(2 * turn + 1, "/x"), reset(2 * turn + 1, 8)].concat();
    for reading in [Reading::All, Reading::Nothing] {
        flood(&proxy, connect(&proxy).await, reading, 50_000, opened).await;
    }
    reaches(&proxy, OPEN, 0.0).await;
    is_served(&proxy).await;
}

#[tokio::test]
async fn rapid_resets_of_event_streams_leave_no_session() {
    let (proxy, _backend) = silent().await;
    let mut neighbour = Http2::open(proxy.address("http")).await;
    neighbour.get(1, "/events/n").await;
    assert_eq!(neighbour.status(1).await, 200);
    let opened = |turn: u32| [get(2 * turn + 1, "/events/x"), reset(2 * turn + 1, 8)].concat();
    flood(&proxy, connect(&proxy).await, Reading::All, 50_000, opened).await;
    reaches(&proxy, SSE, 1.0).await;
    publish(proxy.address("publish"), r#"{"channel":"n","data":"on"}"#).await;
    let mut text = Vec::new();
    neighbour
        .until(|event| {
            let Event::Data { content, .. } = event else { return None };
            text.extend_from_slice(content);
            String::from_utf8_lossy(&text).contains("data: on\n").then_some(())
        })
        .await;
}

/// Streams that the server resets, for errors of the client: as rapid, and made of the server's own frames.
#[tokio::test]
async fn errors_without_end_cost_their_own_connection() {
    let (proxy, _backend) = silent().await;
    let upper = request("GET", "/x", &[("X-Upper", "a")]);
    let floods: Vec<(&str, Turn)> = vec![
        ("malformed", Box::new(move |turn| frame(HEADERS, BOTH, 2 * turn + 1, &upper))),
        ("DATA after the end", {
            Box::new(|turn| [get(2 * turn + 1, "/x"), frame(DATA, 0, 2 * turn + 1, b"x")].concat())
        }),
        ("a window of nothing", {
            Box::new(|turn| [get(2 * turn + 1, "/x"), window_update(2 * turn + 1, 0)].concat())
        }),
        ("a window too large", {
            Box::new(|turn| [get(2 * turn + 1, "/x"), window_update(2 * turn + 1, u32::MAX >> 1)].concat())
        }),
    ];
    for (name, turn) in floods {
        let reading = if name == "malformed" { Reading::Nothing } else { Reading::All };
        let end = flood(&proxy, connect(&proxy).await, reading, 60_000, turn).await;
        assert_ne!(end, Flood::Taken, "{name}: the server resets streams for ever");
    }
    reaches(&proxy, OPEN, 0.0).await;
}

/// CVE-2024-27316.
#[tokio::test]
async fn endless_lists_of_fields_cost_their_own_connection() {
    let (proxy, _backend) = silent().await;
    let start = frame(HEADERS, END_STREAM, 1, &request("GET", "/x", &[]));
    for (name, part) in [
        ("small", literal("x-a", "b")),
        ("empty", Vec::new()),
        ("full", literal("x-a", "y".repeat(16_000))),
        ("remembered", remembered("x-a", "y".repeat(1000)).repeat(10)),
        ("references", vec![0x82; 16_000]),
    ] {
        let part = frame(CONTINUATION, 0, 1, &part);
        let start = start.clone();
        let turns = if part.len() > 1000 { 20_000 } else { 200_000 };
        let tcp = connect(&proxy).await;
        let end = flood(&proxy, tcp, Reading::All, turns, move |turn| match turn {
            0 => start.clone(),
            _ => part.clone(),
        });
        assert_eq!(end.await, Flood::Closed, "{name}");
    }
    reaches(&proxy, OPEN, 0.0).await;
}

/// Frames that ask for an answer, of a client that reads none of them: CVE-2019-9512, 9515, 9518 and their like.
#[tokio::test]
async fn floods_of_frames_cost_no_memory() {
    let (proxy, _backend) = silent().await;
    // What is to be answered each time is not taken for ever, since the answers are not.
    let answered: [(&str, Turn); 3] = [
        ("PING", Box::new(|turn| frame(PING, 0, 0, &u64::from(turn).to_be_bytes()))),
        ("SETTINGS", Box::new(|_| settings(&[]))),
        ("SETTINGS that change", {
            Box::new(|turn| settings(&[(INITIAL_WINDOW_SIZE, turn % 1000), (HEADER_TABLE_SIZE, turn % 100)]))
        }),
    ];
    for (name, turn) in answered {
        let end = flood(&proxy, narrow(&proxy).await, Reading::Nothing, 8_000_000, turn).await;
        assert_ne!(end, Flood::Taken, "{name}");
    }
    let opened = |turn: u32, first: Vec<u8>, then: Vec<u8>| if turn == 0 { first } else { then };
    let others: [Turn; 7] = [
        Box::new(move |turn| opened(turn, post(1, "/x"), frame(DATA, 0, 1, b""))),
        Box::new(move |turn| opened(turn, post(1, "/x"), frame(DATA, PADDED, 1, &[0]))),
        Box::new(|turn| frame(PRIORITY, 0, 2 * turn + 1, &[0, 0, 0, 0, 9])),
        Box::new(move |turn| opened(turn, get(1, "/x"), window_update(1, 1))),
        Box::new(|_| window_update(0, 1)),
        Box::new(|_| frame(0x77, 0, 0, b"?")),
        Box::new(|_| frame(PING, 1, 0, &[7; 8])),
    ];
    // These may be taken, or be too much; what they cost is what counts.
    for turn in others {
        flood(&proxy, narrow(&proxy).await, Reading::Nothing, 400_000, turn).await;
    }
    reaches(&proxy, OPEN, 0.0).await;
}

/// A small block that stands for a large list: an entry of the table, referred to again and again.
#[tokio::test]
async fn a_bomb_of_references_is_refused_at_no_cost() {
    let (proxy, _backend) = mirrored("").await;
    let before = proxy.resident_kib();
    for _ in 0..5 {
        let mut http2 = Http2::open(proxy.address("http")).await;
        let filled = [request("GET", "/x", &[]), remembered("x-bomb", "y".repeat(4000))].concat();
        http2.write(frame(HEADERS, BOTH, 1, &filled)).await;
        assert_eq!(http2.outcome(1).await.status(), 200);
        // 16000 times 4 KB, by one frame.
        let bomb = [request("GET", "/x", &[]), vec![0xbe; 16_000]].concat();
        for stream in (3..100).step_by(2) {
            http2.write(frame(HEADERS, BOTH, stream, &bomb)).await;
            let outcome = http2.outcome(stream).await;
            let refused = match outcome {
                Outcome::Answered { status, .. } => status == 431,
                Outcome::Reset(_) => true,
                Outcome::Closed(_) => break,
            };
            assert!(refused, "{outcome:?}");
        }
        is_served(&proxy).await;
        let grown = proxy.resident_kib().saturating_sub(before);
        assert!(grown < GROWTH_KIB_MAX, "grown by {grown} KiB");
    }
}

#[tokio::test]
async fn a_list_over_the_limit_is_refused_and_the_table_stays_right() {
    let (proxy, _backend) = mirrored("limits: { request_header_bytes: 8KiB }").await;
    let mut http2 = Http2::open(proxy.address("http")).await;
    http2.get(1, "/events/held").await;
    assert_eq!(http2.status(1).await, 200);
    let start = [request("GET", "/x", &[]), remembered("x-kept", "before")].concat();
    let parts = [literal("x-a", "y".repeat(9000)), remembered("x-kept", "after")].concat();
    for stream in [3, 5] {
        let head = frame(HEADERS, END_STREAM, stream, &start);
        http2.write([head, frame(CONTINUATION, END_HEADERS, stream, &parts)].concat()).await;
        let outcome = http2.outcome(stream).await;
        let refused = matches!(outcome, Outcome::Answered { status: 431, .. } | Outcome::Reset(1 | ENHANCE_YOUR_CALM));
        assert!(refused, "{outcome:?}");
    }
    // Both entries of the refused lists are in the table (RFC 9113 §4.3), the newest first.
    http2.write(frame(HEADERS, BOTH, 7, &[request("GET", "/x", &[]), vec![0xbe, 0xbf]].concat())).await;
    let told: serde_json::Value = serde_json::from_slice(&http2.outcome(7).await.body()).expect("JSON");
    assert_eq!(told["fields"]["x-kept"], "after | before");
    publish(proxy.address("publish"), r#"{"channel":"held","data":"on"}"#).await;
    let mut text = Vec::new();
    http2
        .until(|event| {
            let Event::Data { stream: 1, content, .. } = event else { return None };
            text.extend_from_slice(content);
            String::from_utf8_lossy(&text).contains("data: on\n").then_some(())
        })
        .await;
}

/// A list in many small fields is bounded by what it costs, not by what it takes on the wire.
#[tokio::test]
async fn many_small_fields_are_refused() {
    let (proxy, _backend) = mirrored("").await;
    // One octet each, and 60 in the list (RFC 9113 §6.5.2): 42 KB, then 960 KB.
    for count in [700, 16_000] {
        let mut http2 = Http2::open(proxy.address("http")).await;
        let block = [request("GET", "/x", &[]), vec![0x90; count]].concat();
        http2.write(frame(HEADERS, BOTH, 1, &block)).await;
        match http2.outcome(1).await {
            Outcome::Answered { status: 431, .. } | Outcome::Reset(_) => {
                http2.get(3, "/other").await;
                assert_eq!(http2.outcome(3).await.status(), 200);
            }
            // Far over the limit it is an attack.
            Outcome::Closed(Some(ENHANCE_YOUR_CALM)) if count > 1000 => {}
            other => panic!("{count}: {other:?}"),
        }
    }
}

/// Answers that nobody reads wait at their backends, not in memory.
#[tokio::test]
async fn answers_that_are_not_read_cost_bounded_memory() {
    let backend = Backend::http(|request| async move {
        match request.uri().path() {
            "/other" => answer(200, &[], "other"),
            _ => answer(200, &[], vec![b'x'; 4 << 20]),
        }
    })
    .await;
    let proxy = Proxy::start(&backend.config(""));
    let before = proxy.resident_kib();
    let mut held = Vec::new();
    for _ in 0..4 {
        // All windows are wide open; only TCP holds it back.
        let mut http2 = Http2::with(proxy.address("http"), &[(INITIAL_WINDOW_SIZE, u32::MAX >> 1)]).await;
        http2.open_window(0, 1 << 30).await;
        http2.write((1..100).step_by(2).flat_map(|stream| get(stream, "/large")).collect::<Vec<_>>()).await;
        held.push(http2);
    }
    for _ in 0..50 {
        is_served(&proxy).await;
        // 800 MiB are asked for; each stream may have a piece in each buffer on its way.
        let grown = proxy.resident_kib().saturating_sub(before);
        assert!(grown < 2 * GROWTH_KIB_MAX, "grown by {grown} KiB");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    drop(held);
    reaches(&proxy, OPEN, 0.0).await;
}

/// Large answers to polls, which are made here, are not made without bound for who opens no window.
#[tokio::test]
async fn answers_that_no_window_is_opened_for_are_bounded() {
    const POLLS: u32 = 150;
    let (proxy, _backend) = mirrored("").await;
    let mut first = Http2::open(proxy.address("http")).await;
    let poll = |more: &[(&str, &str)]| request("GET", "/events/s", &[&[("accept", "application/json")], more].concat());
    first.write(frame(HEADERS, BOTH, 1, &poll(&[("prefer", "wait=0")]))).await;
    let Outcome::Answered { status: 204, fields, .. } = first.outcome(1).await else { panic!("nothing is there yet") };
    let etag = fields.into_iter().find(|(name, _)| name == "etag").expect("a cursor").1;
    for _ in 0..18 {
        let event = format!(r#"{{"channel":"s","data":"{}"}}"#, "x".repeat(50_000));
        assert_eq!(publish(proxy.address("publish"), &event).await.status, 200);
    }
    let before = proxy.resident_kib();
    let mut http2 = Http2::with(proxy.address("http"), &[(INITIAL_WINDOW_SIZE, 0)]).await;
    let block = poll(&[("if-none-match", &etag)]);
    http2.write((0..POLLS).flat_map(|n| frame(HEADERS, BOTH, 2 * n + 1, &block)).collect::<Vec<_>>()).await;
    let (mut answered, mut refused) = (Vec::new(), 0);
    while answered.len() < POLLS as usize {
        match http2.event().await.expect("the connection stays") {
            Event::Head { stream, .. } => answered.push(stream),
            Event::Reset { code: ENHANCE_YOUR_CALM, .. } => refused += 1,
            other => assert!(!matches!(other, Event::Goaway { .. }), "{other:?}"),
        }
    }
    for event in http2.round_trip(b"no more?").await {
        refused += usize::from(matches!(event, Event::Reset { code: ENHANCE_YOUR_CALM, .. }));
    }
    assert!(refused > 50, "{refused} of {POLLS} were refused, {} begun", answered.len());
    let grown = proxy.resident_kib().saturating_sub(before);
    assert!(grown < 2 * GROWTH_KIB_MAX, "grown by {grown} KiB");
    // The first is there whole for who takes it.
    http2.open_window(1, 2 << 20).await;
    http2.open_window(0, 2 << 20).await;
    http2.until(|event| matches!(event, Event::Data { stream: 1, is_last: true, .. }).then_some(())).await;
}
