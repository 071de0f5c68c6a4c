//! Backends that answer wrongly: the client gets a clean error, the log says what was wrong, and nothing stays behind.

use super::{ALL, Stage};
use crate::support::backend::Backend;
use crate::support::bridge_backend::event;
use crate::support::client::{Http, Stream, get, send};
use crate::support::metrics;
use crate::support::proxy::Proxy;
use crate::support::socket::{Socket, TEXT};
use crate::support::wait_for;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// Fields of an answer.
type Fields<'a> = &'a [(&'a str, &'a str)];

impl Stage {
    /// Waits until the log has a line with this message whose `error` or other fields hold `text`.
    fn has_logged(&self, message: &str, text: &str) {
        wait_for(&format!("a line {message:?} with {text:?}"), || {
            self.proxy.logged(message).iter().any(|line| line.to_string().contains(text)).then_some(())
        });
    }

    /// The backend is still served, and has no session.
    async fn still_works(&mut self) {
        self.is_clean().await;
        let mut stream = self.stream(Http::H1, "/events", &[("grip-channel", "works")], "data: 1\n\n").await;
        self.send("works", "data: 2\n\n").await;
        assert_eq!(stream.until("\n\n").await, "data: 2\n\n");
        drop(stream);
        self.is_clean().await;
    }
}

#[tokio::test]
async fn broken_fields_are_a_bad_gateway_that_the_log_explains() {
    let mut stage = Stage::new().await;
    let long = "x".repeat(9000);
    let too_many = "a, b, c, d";
    let cases: &[(Fields<'_>, &str, &str)] = &[
        (&[("grip-hold", "for ever"), ("grip-channel", "a")], "", "no hold"),
        (&[("grip-hold", "stream")], "", "without a channel"),
        (&[("grip-hold", "stream"), ("grip-channel", too_many)], "", "limits.subscriptions_per_session"),
        (&[("grip-hold", "stream"), ("grip-channel", "a; prev-id=\"x")], "", "is not closed"),
        (&[("grip-hold", "response"), ("grip-channel", "a"), ("grip-timeout", "soon")], "", "Grip-Timeout"),
        (&[("grip-hold", "stream"), ("grip-channel", "a"), ("grip-keep-alive", r"\q; format=cstring")], "", "escape"),
        (&[("grip-hold", "stream"), ("grip-channel", "a"), ("grip-set-meta", &long)], "", "Grip-Set-Meta"),
        (&[("grip-hold", "stream"), ("grip-channel", "a"), ("grip-status", "99")], "", "Grip-Status"),
        (&[("grip-hold", "stream"), ("grip-channel", "a"), ("grip-status", "304")], "", "which has no body"),
        (&[("grip-hold", "stream"), ("grip-channel", "a"), ("content-encoding", "gzip")], "x", "compressed"),
        (
            &[("grip-hold", "stream"), ("grip-channel", "a; filter=build-id; prev-id=1"), ("grip-link", "<")],
            "",
            "Grip-Link",
        ),
        (&[("content-type", "application/grip-instruct")], "{\"hold\": 1}", "hold is not an object"),
        (&[("content-type", "application/grip-instruct")], "nonsense", "no JSON object"),
    ];
    for (number, (fields, body, said)) in cases.iter().enumerate() {
        let http = ALL[number % ALL.len()];
        let at = stage.at(http);
        let asking = send(http, at, get(at, "/events", &[]));
        let (answer, ()) = tokio::join!(asking, async {
            stage.backend.asked().await.answer(200, fields, (*body).to_owned());
        });
        assert_eq!(answer.status, 502, "{fields:?}: {}", answer.text());
        assert_eq!(answer.field("content-type"), "application/problem+json");
        assert_eq!(answer.json()["upstream"], "signed");
        assert!(!answer.fields.keys().any(|name| name.as_str().starts_with("grip-")));
        if *said != "Grip-Link" {
            stage.has_logged("grip answer refused", said);
        }
    }
    stage.still_works().await;
}

#[tokio::test]
async fn large_instructs_and_held_bodies_are_refused_by_their_bound() {
    let mut stage = Stage::new().await;
    let large = vec![b' '; 10_000_000];
    for fields in
        [&[("content-type", "application/grip-instruct")][..], &[("grip-hold", "response"), ("grip-channel", "a")]]
    {
        let at = stage.at(Http::H1);
        let asking = send(Http::H1, at, get(at, "/poll", &[]));
        let (answer, ()) = tokio::join!(asking, async {
            stage.backend.asked().await.answer(200, fields, large.clone());
        });
        assert_eq!(answer.status, 502);
        stage.has_logged("grip answer refused", "over 100000 bytes");
    }
    metrics::reaches(&stage.proxy, "pushbridge_grip_refused_total{what=\"body\"}", 2.0).await;
    stage.still_works().await;
}

#[tokio::test]
async fn loops_and_links_that_lead_elsewhere_end_the_stream() {
    let mut stage = Stage::new().await;
    let next = [("content-type", "text/event-stream"), ("grip-link", "</next>; rel=next")];
    let response = stage.ask(Http::H2c, "/events", &[], |asked| asked.answer(200, &next, "once")).await;
    let stream = tokio::spawn(Stream::of(response).rest());
    let mut pages = 0;
    while !stream.is_finished() {
        tokio::select! {
            asked = stage.backend.asked() => {
                pages += 1;
                asked.answer(200, &next, "");
            }
            () = tokio::time::sleep(std::time::Duration::from_millis(20)) => {}
        }
    }
    assert_eq!((stream.await.expect("a clean end").as_str(), pages), ("once", 11));
    stage.has_logged("a held stream ends", "a loop of next links");
    let elsewhere = [("content-type", "text/event-stream"), ("grip-link", "<http://127.0.0.1:1/x>; rel=next")];
    let response = stage.ask(Http::H1, "/events", &[], |asked| asked.answer(200, &elsewhere, "once")).await;
    assert_eq!(Stream::of(response).rest().await, "once");
    stage.has_logged("a grip link is refused", "another server");
    metrics::reaches(&stage.proxy, "pushbridge_grip_refused_total{what=\"link\"}", 1.0).await;
    stage.still_works().await;
}

/// A pushbridge whose backend says these bytes to each request, and then closes or goes on for ever.
async fn raw(said: &'static str, endless: &'static str) -> (Proxy, Backend) {
    let backend = Backend::raw(move |mut tcp| async move {
        let mut read = [0; 4096];
        let _ = tcp.read(&mut read).await;
        let _ = tcp.write_all(said.as_bytes()).await;
        while !endless.is_empty() && tcp.write_all(endless.as_bytes()).await.is_ok() {}
    })
    .await;
    let proxy = Proxy::start(&format!(
        "upstreams: {{ raw: {{ servers: [\"http://{}\"] }} }}
routes:
  - {{ name: socket, match: {{ path: /socket }}, websocket: {{ upstream: raw }} }}
  - {{ name: app, match: {{ path: \"/**\" }}, proxy: {{ upstream: raw, grip: true }} }}
",
        backend.address()
    ));
    (proxy, backend)
}

#[tokio::test]
async fn heads_without_end_and_lying_lengths_are_a_bad_gateway() {
    let start = "HTTP/1.1 200 OK\r\nGrip-Hold: stream\r\nGrip-Channel: a\r\n";
    let cases = [
        (start, "X-More: more\r\n"),
        ("HTTP/1.1 200 OK\r\nGrip-Hold: stream\r\nGrip-Channel: a\r\nContent-Length: 100\r\n\r\nshort", ""),
        ("HTTP/1.1 200 OK\r\nGrip-Hold: response\r\nGrip-Channel: a\r\nContent-Length: 100\r\n\r\nshort", ""),
        ("HTTP/1.1 200 OK\r\nContent-Type: application/grip-instruct\r\nContent-Length: 100\r\n\r\n{\"hold\":", ""),
    ];
    for (said, endless) in cases {
        let (proxy, _backend) = raw(said, endless).await;
        let at = proxy.address("http");
        for http in [Http::H1, Http::H2c] {
            let answer = send(http, at, get(at, "/events", &[])).await;
            assert_eq!(answer.status, 502, "{said}");
            assert_eq!(answer.field("content-type"), "application/problem+json");
        }
        let refused = Socket::try_open(Http::H1, at, "/socket", &[]).await.err().expect("refused");
        assert_eq!(refused.status, 502, "{said}");
        assert!(proxy.has_logged("grip answer refused") || proxy.has_logged("upstream request failed"));
        metrics::reaches(&proxy, "pushbridge_hub_sessions_open{transport=\"sse\"}", 0.0).await;
        metrics::reaches(&proxy, "pushbridge_hub_sessions_open{transport=\"websocket\"}", 0.0).await;
    }
}

#[tokio::test]
async fn a_stream_that_breaks_off_does_not_look_whole() {
    let said = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nGrip-Hold: stream\r\nGrip-Channel: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";
    let (proxy, _backend) = raw(said, "").await;
    let at = proxy.address("http");
    for http in [Http::H1, Http::H2c] {
        let response = crate::support::client::open(http, at, get(at, "/lines", &[])).await;
        assert_eq!(response.status(), 200);
        let collected = http_body_util::BodyExt::collect(response.into_body()).await;
        assert!(collected.is_err(), "it looked whole");
    }
    assert!(proxy.has_logged("a held stream's body broke off"));
}

#[tokio::test]
async fn a_bridged_websocket_whose_backend_breaks_is_closed() {
    let mut stage = Stage::new().await;
    let control = format!("c:{{\"type\":\"subscribe\",\"channel\":\"{}\"}}", "x".repeat(10_000_000));
    let answers = [
        ("TEXT 5\r\nab".to_owned(), "malformed"),
        ("TEXT ffffffff\r\nab\r\n".to_owned(), "malformed"),
        (event("TEXT", &control), "over"),
    ];
    for (answer, said) in answers {
        for http in [Http::H1, Http::H2c] {
            let at = stage.at(http);
            let opening = Socket::open(http, at, "/socket", &[]);
            let (mut socket, ()) = tokio::join!(opening, async {
                stage.backend.expect("OPEN\r\n").await.grip("OPEN\r\n");
            });
            socket.send(TEXT, "hi").await;
            stage.backend.expect("TEXT 2\r\nhi\r\n").await.grip(&answer);
            socket.expect_close(1011).await;
            stage.backend.expect("DISCONNECT\r\n").await.grip("");
        }
        stage.has_logged("bridged backend failed", said);
    }
    stage.still_works().await;
}
