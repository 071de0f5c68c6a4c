//! Bounds on connections, streams and heads: what is over them is refused, told and counted, and all places come back.

use crate::support::backend::{Backend, answer};
use crate::support::certificates;
use crate::support::client::{Http, Stream, dial, dial_tls, get, open, publish, raw, send, within};
use crate::support::frames::{
    self, CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, RST_STREAM, frame,
};
use crate::support::metrics::{self, reaches, refusals};
use crate::support::proxy::Proxy;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const ROUTES: &str = "
routes:
  - { name: events, match: { path: \"/events/{topic}\" }, push: { channels: [\"{topic}\"], transports: [sse] } }
";

const OPEN_H1: &str = "pushbridge_server_connections_open{listener=\"http\",protocol=\"http/1.1\"}";
const OPEN_H2: &str = "pushbridge_server_connections_open{listener=\"http\",protocol=\"h2\"}";
const SSE: &str = "pushbridge_hub_sessions_open{transport=\"sse\"}";

fn start(limits: &str) -> Proxy {
    Proxy::start(&format!("{ROUTES}\nlimits: {{ {limits} }}\n"))
}

/// A connection on which a request was answered: it has its place.
async fn placed(proxy: &Proxy) -> TcpStream {
    let mut tcp = dial(proxy.address("http")).await;
    tcp.write_all(b"GET /nothing HTTP/1.1\r\nHost: a\r\n\r\n").await.expect("written");
    let mut status = [0; 12];
    within("an answer", tcp.read_exact(&mut status)).await.expect("an answer");
    assert_eq!(&status, b"HTTP/1.1 404");
    tcp
}

/// Waits until a new connection has a place again.
async fn place_is_free(proxy: &Proxy) {
    let to = proxy.address("http");
    let asking = async {
        while send(Http::H1, to, get(to, "/nothing", &[])).await.status != 404 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    within("a free place", asking).await;
}

#[tokio::test]
async fn connections_over_a_limit_are_told_and_closed() {
    for (limit, status, title, reason) in [
        ("connections: 3", 503, "Service Unavailable", "connections"),
        ("connections_per_ip: 3", 429, "Too Many Requests", "connections_per_ip"),
    ] {
        let proxy = start(limit);
        let mut held = Vec::new();
        for _ in 0..3 {
            held.push(placed(&proxy).await);
        }
        let large = format!("GET / HTTP/1.1\r\nHost: a\r\nX-Large: {}\r\n\r\n", "x".repeat(20_000));
        for request in ["GET / HTTP/1.1\r\nHost: a\r\n\r\n", &large] {
            let text = raw(proxy.address("http"), request.as_bytes(), "").await;
            assert!(text.starts_with(&format!("HTTP/1.1 {status} {title}\r\n")), "{text}");
            assert!(text.contains("\r\nretry-after: ") && text.contains("\"request_id\":"), "{text}");
            assert!(text.contains(limit.split(':').next().expect("a key")), "{text}");
        }
        reaches(&proxy, &refusals(reason), 2.0).await;
        // Who is inside goes on, and who leaves makes place.
        held[0].write_all(b"GET /nothing HTTP/1.1\r\nHost: a\r\n\r\n").await.expect("written");
        held.pop();
        place_is_free(&proxy).await;
        drop(held);
        reaches(&proxy, OPEN_H1, 0.0).await;
        // The private listeners have places of their own.
        assert_eq!(publish(proxy.address("publish"), r#"{"channel":"a","data":1}"#).await.status, 200);
    }
}

#[tokio::test]
async fn over_tls_a_connection_over_the_limit_is_only_closed() {
    let yaml = format!(
        "listeners: [{{ name: https, address: \"127.0.0.1:0\", tls: {{ certificates: [{{ cert_file: localhost.crt, key_file: localhost.key }}] }} }}]\n{ROUTES}\nlimits: {{ connections: 1 }}\n"
    );
    let proxy = Proxy::start_in(certificates::folder(&["localhost"]), &yaml);
    let to = proxy.address("https");
    let held = dial_tls(to, b"http/1.1", "localhost").await;
    assert_eq!(raw(to, b"", "").await, "");
    reaches(&proxy, &refusals("connections"), 1.0).await;
    drop(held);
    let free = async {
        loop {
            let mut tcp = dial(to).await;
            // A place: the server waits for the handshake.
            if tokio::time::timeout(Duration::from_millis(100), tcp.read(&mut [0])).await.is_err() {
                return;
            }
        }
    };
    within("a free place", free).await;
}

#[tokio::test]
async fn streams_over_the_limit_are_refused_and_the_others_go_on() {
    let proxy = start("streams_per_connection: 3");
    let mut tcp = frames::connect(proxy.address("http")).await;
    let settings = frames::next(&mut tcp).await.expect("settings");
    assert!(settings.payload.chunks(6).any(|setting| setting == [0, 3, 0, 0, 0, 3]), "{settings:?}");
    for stream in [1, 3, 5, 7, 9] {
        let head = frame(HEADERS, END_STREAM | END_HEADERS, stream, &frames::get("/events/s"));
        tcp.write_all(&head).await.expect("written");
    }
    let (mut opened, mut refused) = (Vec::new(), Vec::new());
    while opened.len() < 3 || refused.len() < 2 {
        let next = frames::next(&mut tcp).await.expect("a frame");
        match next.kind {
            HEADERS => opened.push(next.stream),
            RST_STREAM => {
                assert_eq!(next.payload, [0, 0, 0, 7], "not REFUSED_STREAM");
                refused.push(next.stream);
            }
            GOAWAY => panic!("{next:?}"),
            _ => {}
        }
    }
    assert_eq!((opened, refused), (vec![1, 3, 5], vec![7, 9]));
    publish(proxy.address("publish"), r#"{"channel":"s","data":"on"}"#).await;
    let mut heard = Vec::new();
    while heard.len() < 3 {
        let next = frames::next(&mut tcp).await.expect("a frame");
        if next.kind == DATA && String::from_utf8_lossy(&next.payload).contains("data: on\n") {
            heard.push(next.stream);
        }
    }
    // A stream that ends makes place for another.
    tcp.write_all(&frame(RST_STREAM, 0, 1, &[0, 0, 0, 8])).await.expect("written");
    tcp.write_all(&frame(HEADERS, END_STREAM | END_HEADERS, 11, &frames::get("/events/s"))).await.expect("written");
    loop {
        let next = frames::next(&mut tcp).await.expect("a frame");
        if next.stream == 11 {
            assert_eq!(next.kind, HEADERS);
            break;
        }
    }
    reaches(&proxy, SSE, 3.0).await;
    drop(tcp);
    reaches(&proxy, SSE, 0.0).await;
    reaches(&proxy, OPEN_H2, 0.0).await;
}

/// Writes `bytes` again and again until the server closes the connection; panics when it never does.
async fn flood(tcp: TcpStream, bytes: impl Fn(u32) -> Vec<u8> + Send + 'static) -> Option<frames::Frame> {
    let (mut reader, mut writer) = tcp.into_split();
    let writing = tokio::spawn(async move {
        for turn in 0..200_000 {
            if writer.write_all(&bytes(turn)).await.is_err() {
                return true;
            }
        }
        false
    });
    let mut last = None;
    while let Some(next) = frames::next(&mut reader).await {
        if next.kind == GOAWAY {
            last = Some(next);
        }
    }
    drop(reader);
    assert!(within("the flood's end", writing).await.expect("no panic"), "the server took it all");
    last
}

#[tokio::test]
async fn floods_end_their_own_connection_only() {
    let backend = Backend::http(|_| async {
        std::future::pending::<()>().await;
        answer(200, &[], "")
    })
    .await;
    let proxy = Proxy::start(&backend.config(""));
    let to = proxy.address("http");
    let mut neighbour = Stream::of(open(Http::H2c, to, get(to, "/events/n", &[("accept", "text/event-stream")])).await);
    neighbour.until("\n\n").await;
    // Rapid reset (CVE-2023-44487).
    flood(frames::connect(to).await, |turn| {
        let stream = 2 * turn + 1;
        let head = frame(HEADERS, END_STREAM | END_HEADERS, stream, &frames::get("/x"));
        [head, frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])].concat()
    })
    .await;
    // Endless CONTINUATION (CVE-2024-27316), of fields and of nothing.
    for field in [frames::field("x-a", &"y".repeat(100)).repeat(20), Vec::new()] {
        flood(frames::connect(to).await, move |turn| match turn {
            0 => frame(HEADERS, END_STREAM, 1, &frames::get("/x")),
            _ => frame(CONTINUATION, 0, 1, &field),
        })
        .await;
    }
    // Errors that this end has to reset: DATA on a stream that has ended.
    flood(frames::connect(to).await, |turn| {
        let stream = 2 * turn + 1;
        let head = frame(HEADERS, END_STREAM | END_HEADERS, stream, &frames::get("/x"));
        [head, frame(DATA, 0, stream, b"more")].concat()
    })
    .await;
    // No HTTP/2 at all.
    flood(frames::connect(to).await, |_| frame(PING, 0, 1, &[0; 3])).await;
    reaches(&proxy, OPEN_H2, 1.0).await;
    reaches(&proxy, &refusals("bad_request"), 5.0).await;
    publish(proxy.address("publish"), r#"{"channel":"n","data":"still here"}"#).await;
    neighbour.until("data: still here\n").await;
    // What the floods asked of the backend was taken back.
    drop(neighbour);
    reaches(&proxy, OPEN_H2, 0.0).await;
    reaches(&proxy, SSE, 0.0).await;
}

#[tokio::test]
async fn a_head_over_the_limit_is_refused_on_its_stream() {
    let proxy = start("request_header_bytes: 8KiB");
    let mut tcp = frames::connect(proxy.address("http")).await;
    let large = [frames::get("/nothing"), frames::field("x-a", &"y".repeat(100)).repeat(100)].concat();
    tcp.write_all(&frame(HEADERS, END_STREAM | END_HEADERS, 1, &large)).await.expect("written");
    tcp.write_all(&frame(HEADERS, END_STREAM | END_HEADERS, 3, &frames::get("/nothing"))).await.expect("written");
    let mut heads = Vec::new();
    while heads.len() < 2 {
        let next = frames::next(&mut tcp).await.expect("a frame");
        assert_ne!(next.kind, GOAWAY);
        if next.kind == HEADERS {
            heads.push((next.stream, String::from_utf8_lossy(&next.payload).into_owned()));
        }
    }
    let to = proxy.address("http");
    let refused = send(Http::H2c, to, get(to, "/nothing", &[("x-a", &"y".repeat(10_000))])).await;
    assert_eq!((refused.status.as_u16(), refused.field("content-type")), (431, "application/problem+json"));
    assert!(refused.text().contains("limits.request_header_bytes"), "{}", refused.text());
    assert_eq!(send(Http::H2c, to, get(to, "/nothing", &[("x-a", &"y".repeat(5_000))])).await.status, 404);
}

#[tokio::test]
async fn connections_are_spread_evenly_over_the_workers_and_all_are_served() {
    let proxy = Proxy::start(&format!("{ROUTES}\nruntime: {{ workers: 3 }}\n"));
    let to = proxy.address("http");
    let mut held = Vec::new();
    for _ in 0..90 {
        held.push(Stream::of(open(Http::H1, to, get(to, "/events/m", &[("accept", "text/event-stream")])).await));
    }
    let of = |worker: usize| format!("pushbridge_server_worker_connections{{worker=\"{worker}\"}}");
    let counted = async {
        loop {
            let mut open = Vec::new();
            for worker in 0..3 {
                open.push(metrics::value(&proxy, &of(worker)).await);
            }
            if open.iter().sum::<f64>() == 90.0 {
                return open;
            }
        }
    };
    let open = within("90 connections", counted).await;
    let (least, most) = open.iter().fold((f64::MAX, 0.0_f64), |(least, most), one| (least.min(*one), most.max(*one)));
    assert!(most - least <= 9.0, "{open:?}");
    let event = publish(proxy.address("publish"), r#"{"channel":"m","data":"all"}"#).await;
    assert_eq!(event.json()["results"][0]["local_sessions"], 90);
    for stream in &mut held {
        stream.until("data: all\n").await;
    }
    drop(held);
    for worker in 0..3 {
        reaches(&proxy, &of(worker), 0.0).await;
    }
}

#[tokio::test]
async fn many_connections_leave_nothing_behind() {
    let proxy = start("connections: 2000, connections_per_ip: 2000");
    let files = || std::fs::read_dir(format!("/proc/{}/fd", proxy.id())).expect("it runs").count();
    // What the program opens for itself (to watch its files, say) is open after the first crowd.
    crowd_comes_and_goes(&proxy).await;
    crate::support::wait_for("files to be closed", || (files() < 100).then_some(()));
    let before = files();
    crowd_comes_and_goes(&proxy).await;
    crate::support::wait_for("files to be closed", || (files() <= before + 4).then_some(()));
    assert_eq!(metrics::value(&proxy, &refusals("connections")).await, 0.0);
}

/// 200 connections of all kinds, which end without a word.
async fn crowd_comes_and_goes(proxy: &Proxy) {
    let to = proxy.address("http");
    let mut held = Vec::new();
    for turn in 0..200 {
        match turn % 4 {
            0 => held.push(dial(to).await),
            1 => held.push(placed(proxy).await),
            2 => held.push(frames::connect(to).await),
            _ => {
                let mut tcp = dial(to).await;
                let request = b"GET /events/m HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n\r\n";
                tcp.write_all(request).await.expect("written");
                held.push(tcp);
            }
        }
    }
    reaches(proxy, SSE, 50.0).await;
    reaches(proxy, OPEN_H1, 100.0).await;
    reaches(proxy, OPEN_H2, 50.0).await;
    let event = publish(proxy.address("publish"), r#"{"channel":"m","data":1}"#).await;
    assert_eq!(event.json()["results"][0]["local_sessions"], 50);
    drop(held);
    for gauge in [SSE, OPEN_H1, OPEN_H2] {
        reaches(proxy, gauge, 0.0).await;
    }
}
