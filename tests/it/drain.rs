//! The end of an instance: every client is told, each at its own moment, and nothing is lost on the way.

mod crowd;

use crate::support::client::{Answer, Http, get, open, post, publish, send, within};
use crate::support::held::{Body, Said, Shared, Socket, event_stream, silent_websocket};
use crate::support::proxy::Proxy;
use crate::support::wait_for;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

const ROUTES: &str = "
routes:
  - name: events
    match: { path: \"/events/{topic}\" }
    push: { channels: [\"{topic}\"] }
  - name: others
    match: { path: \"/others/{topic}\" }
    push: { channels: [\"{topic}\"] }
";
const JSON: [(&str, &str); 1] = [("accept", "application/json")];

fn start(drain: &str) -> Proxy {
    Proxy::start(&format!("{ROUTES}\ndrain: {{ {drain} }}\n"))
}

async fn ask(admin: SocketAddr, query: &str) -> Answer {
    send(Http::H1, admin, post(admin, &format!("/drain{query}"), &[], "")).await
}

async fn status(admin: SocketAddr) -> serde_json::Value {
    send(Http::H1, admin, get(admin, "/drain", &[])).await.json()
}

async fn readiness(admin: SocketAddr) -> u16 {
    send(Http::H1, admin, get(admin, "/readyz", &[])).await.status.as_u16()
}

async fn until_phase(admin: SocketAddr, phase: &str) {
    within("a phase", async {
        while status(admin).await["phase"] != phase {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

#[track_caller]
fn exits_with_0(proxy: Proxy) -> impl Future<Output = ()> {
    let waiting = tokio::task::spawn_blocking(move || proxy.wait());
    async move { assert_eq!(waiting.await.expect("waited").code(), Some(0)) }
}

#[tokio::test]
async fn a_requested_drain_is_shown_repeated_and_taken_back() {
    let proxy = start("settle: 20s, spread: 1s, margin: 1s");
    let (http, admin) = (proxy.address("http"), proxy.address("admin"));
    let mut stream = event_stream(http, "/events/c").await;
    let settling = serde_json::json!({
        "phase": "settle", "sessions": 1, "settle_ms": 20_000, "spread_ms": 1000, "margin_ms": 1000
    });
    let waiting = tokio::spawn(async move { ask(admin, "?wait").await });
    until_phase(admin, "settle").await;
    for _ in 0..3 {
        let answer = ask(admin, "").await;
        assert_eq!((answer.status.as_u16(), answer.json()), (202, settling.clone()));
    }
    within("unready", async {
        while readiness(admin).await != 503 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    // New sessions are taken; answers ask to connect anew.
    let late = event_stream(http, "/events/c").await;
    let answer = send(Http::H1, http, get(http, "/nowhere", &[])).await;
    assert_eq!((answer.status.as_u16(), answer.field("connection")), (404, "close"));
    let began = Instant::now();
    let poll = send(Http::H1, http, get(http, "/events/c", &JSON)).await;
    assert!(poll.status == 204 && !poll.field("etag").is_empty());
    assert!(began.elapsed() < Duration::from_secs(5), "a poll of a drain waited for {:?}", began.elapsed());
    let answer = ask(admin, "?cancel").await;
    assert_eq!((answer.status.as_u16(), answer.json()["phase"].as_str()), (200, Some("serving")));
    within("the drain's end", async {
        while readiness(admin).await != 200 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    assert_eq!(waiting.await.expect("an answer").status, 409, "whoever waited hears of it");
    let answer = send(Http::H1, http, get(http, "/nowhere", &[])).await;
    assert_eq!(answer.field("connection"), "");
    publish(proxy.address("publish"), r#"{"channel":"c","data":"still here"}"#).await;
    assert!(stream.until("\n\n").await.ends_with("data: still here\n\n"));
    drop(late);
}

#[tokio::test]
async fn drained_by_request_it_answers_plain_requests_until_a_signal() {
    let mut proxy = start("settle: 50ms, spread: 300ms, margin: 5s");
    let (http, admin) = (proxy.address("http"), proxy.address("admin"));
    let stream = event_stream(http, "/events/c").await;
    let waiting = tokio::spawn(async move { ask(admin, "?wait").await });
    assert!(stream.rest().await.starts_with("retry: "));
    let answer = waiting.await.expect("an answer");
    assert_eq!((answer.status.as_u16(), answer.json()["phase"].as_str()), (200, Some("drained")));
    assert_eq!(answer.json()["sessions"], 0);
    assert!(proxy.is_running());
    let answer = send(Http::H1, http, get(http, "/nowhere", &[])).await;
    assert_eq!((answer.status.as_u16(), answer.field("connection")), (404, "close"));
    for (version, fields) in [(Http::H1, &JSON[..]), (Http::H2c, &[])] {
        let refused = send(version, http, get(http, "/events/c", fields)).await;
        assert_eq!((refused.status.as_u16(), refused.field("content-type")), (503, "application/problem+json"));
        let secs: u64 = refused.field("retry-after").parse().expect("a number");
        assert!((1..=5).contains(&secs), "{secs}");
    }
    assert!(Socket::connect(http, "/events/c", "").await.is_err());
    assert_eq!(ask(admin, "?cancel").await.status, 409);
    assert_eq!(ask(admin, "").await.json()["phase"], "drained");
    proxy.stop();
    exits_with_0(proxy).await;
}

#[tokio::test]
async fn a_signal_during_a_requested_drain_says_exit_when_done() {
    let mut proxy = start("settle: 400ms, spread: 200ms, margin: 5s");
    let (http, admin) = (proxy.address("http"), proxy.address("admin"));
    let stream = event_stream(http, "/events/c").await;
    ask(admin, "").await;
    proxy.stop();
    let asked = wait_for("the signal is heard", || proxy.logged("stopping").pop());
    assert_eq!(asked["signal"], "SIGTERM");
    assert!(proxy.is_running() && status(admin).await["phase"] == "settle");
    assert_eq!(ask(admin, "?cancel").await.status, 409);
    assert!(stream.rest().await.starts_with("retry: "));
    exits_with_0(proxy).await;
}

#[tokio::test]
async fn a_second_signal_forces() {
    let proxy = start("settle: 30s, spread: 30s, margin: 30s");
    let (http, admin) = (proxy.address("http"), proxy.address("admin"));
    let _stream = event_stream(http, "/events/c").await;
    proxy.stop();
    until_phase(admin, "settle").await;
    let began = Instant::now();
    proxy.stop();
    exits_with_0(proxy).await;
    assert!(began.elapsed() < Duration::from_secs(20), "it took {:?}", began.elapsed());
}

#[tokio::test]
async fn who_does_not_answer_its_close_is_forced_at_the_margin_and_counted() {
    let proxy = start("settle: 0s, spread: 0s, margin: 300ms");
    let (http, admin) = (proxy.address("http"), proxy.address("admin"));
    let silent = silent_websocket(http, "/events/c").await;
    ask(admin, "?wait").await;
    let page = send(Http::H1, admin, get(admin, "/metrics", &[])).await;
    for line in [
        "pushbridge_drain_forced_total{transport=\"websocket\"} 1\n",
        "pushbridge_drain_forced_total{transport=\"sse\"} 0\n",
        "pushbridge_drain_phase{phase=\"drained\"} 1\n",
        "pushbridge_drain_phase{phase=\"margin\"} 0\n",
    ] {
        assert!(page.text().contains(line), "no {line} in {}", page.text());
    }
    assert_eq!(proxy.logged("drained")[0]["forced"], 1, "{:?}", proxy.logged("drained"));
    drop(silent);
    proxy.stop();
    exits_with_0(proxy).await;
}

#[tokio::test]
async fn readiness_fails_at_the_start_or_after_settle() {
    for (when, during_settle) in [("at_start", 503), ("after_settle", 200)] {
        let proxy = start(&format!("settle: 500ms, spread: 60s, margin: 0s, fail_readiness: {when}"));
        let (http, admin) = (proxy.address("http"), proxy.address("admin"));
        // It would be drained at once without a session.
        let _stream = event_stream(http, "/events/c").await;
        assert_eq!(readiness(admin).await, 200);
        ask(admin, "").await;
        wait_for("the drain begins", || proxy.logged("drain begins").pop());
        let ready = readiness(admin).await;
        assert!(ready == during_settle || status(admin).await["phase"] != "settle", "{when}: {ready}");
        until_phase(admin, "spread").await;
        within("unready", async {
            while readiness(admin).await != 503 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    }
}

#[tokio::test]
async fn an_operator_closes_the_sessions_of_a_route_or_channel() {
    let proxy = start("settle: 0s, spread: 0s, margin: 1s");
    let (http, admin) = (proxy.address("http"), proxy.address("admin"));
    let shared = Shared::connect(http).await.expect("a connection");
    let mut of_route = shared.websocket("/others/a", "").await.expect("a WebSocket");
    let mut of_channel = Socket::connect(http, "/events/b", "pushbridge.v1.json").await.expect("a WebSocket");
    let mut stays = event_stream(http, "/events/c").await;
    let close = |query: &'static str| send(Http::H1, admin, post(admin, &format!("/sessions/close{query}"), &[], ""));
    let answer = close("?route=others&window=100ms").await;
    assert_eq!((answer.status.as_u16(), answer.json()), (202, serde_json::json!({"sessions": 1, "window_ms": 100})));
    assert_eq!(within("a close", of_route.next()).await, Said::Close(1012, "operator".to_owned()));
    assert_eq!(close("?channel=b&window=0s").await.json()["sessions"], 1);
    let mut said = Vec::new();
    loop {
        match within("a close", of_channel.next()).await {
            Said::Text(text) => said.push(text),
            end => {
                assert_eq!(end, Said::Close(1012, "operator".to_owned()));
                break;
            }
        }
    }
    let last: serde_json::Value = serde_json::from_str(said.last().expect("texts")).expect("JSON");
    assert!(last["type"] == "reconnect" && last["after_ms"].is_u64() && last["cursor"].is_string(), "{last}");
    publish(proxy.address("publish"), r#"{"channel":"c","data":"on"}"#).await;
    assert!(stays.until("\n\n").await.ends_with("data: on\n\n"));
    for (fields, status) in [(&[("origin", "http://127.0.0.1")][..], 403), (&[("host", "evil.example")], 403)] {
        let refused = send(Http::H1, admin, post(admin, "/drain", fields, "")).await;
        assert_eq!(refused.status, status);
    }
    assert_eq!(status(admin).await["phase"], "serving");
}

#[tokio::test]
async fn a_connection_of_http2_is_asked_to_go_and_its_streams_go_on() {
    let proxy = start("settle: 60s, spread: 1s, margin: 1s");
    let (http, admin) = (proxy.address("http"), proxy.address("admin"));
    let shared = Shared::connect(http).await.expect("a connection");
    let mut socket = shared.websocket("/events/c", "").await.expect("a WebSocket");
    ask(admin, "").await;
    // The final GOAWAY comes a round trip after the first; then nothing new begins on this connection.
    within("a GOAWAY", async { while shared.get("/nowhere", &[]).await.is_ok() {} }).await;
    publish(proxy.address("publish"), r#"{"channel":"c","data":"on"}"#).await;
    assert_eq!(within("a message", socket.next()).await, Said::Text("on".to_owned()));
    let other = open(Http::H2c, http, get(http, "/events/c", &[])).await;
    assert_eq!(other.status(), 200, "a new connection is served while the instance settles");
}

#[tokio::test]
async fn the_command_waits_and_shows_how_it_goes() {
    let proxy = start("settle: 100ms, spread: 100ms, margin: 1s");
    let (http, admin) = (proxy.address("http"), proxy.address("admin"));
    let stream = event_stream(http, "/events/c").await;
    let run = |arguments: Vec<String>| async move {
        let program = tokio::process::Command::new(env!("CARGO_BIN_EXE_pushbridge")).args(arguments).output();
        let output = within("the command", program).await.expect("it runs");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let url = format!("http://{admin}");
    let (code, said, _) = run(vec!["drain".into(), "--admin".into(), url.clone()]).await;
    assert!(said.starts_with("settle: 1 sessions\n") && said.ends_with("drained: 0 sessions\n"), "{said}");
    assert_eq!(code, Some(0));
    assert!(stream.rest().await.starts_with("retry: "));
    let (code, _, complaint) = run(vec!["drain".into(), "--cancel".into(), "--admin".into(), url]).await;
    assert!(code == Some(75) && complaint.contains("past settle"), "{complaint}");
    proxy.stop();
    exits_with_0(proxy).await;
    let (code, _, complaint) = run(vec!["drain".into(), "--admin".into(), format!("http://{admin}")]).await;
    assert!(code == Some(69) && complaint.contains("no admin listener"), "{complaint}");
}

#[tokio::test]
async fn streams_over_tls_end_cleanly() {
    let folder = tempfile::TempDir::new().expect("a folder");
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    std::fs::write(folder.path().join("cert.pem"), made.cert.pem()).expect("written");
    std::fs::write(folder.path().join("key.pem"), made.signing_key.serialize_pem()).expect("written");
    let listener = "
listeners:
  - name: https
    address: \"127.0.0.1:0\"
    tls: { certificates: [{ cert_file: cert.pem, key_file: key.pem }] }
drain: { settle: 0s, spread: 200ms, margin: 5s }
";
    let proxy = Proxy::start_in(folder, &format!("{ROUTES}{listener}"));
    let https = proxy.address("https");
    let mut streams = Vec::new();
    for version in [Http::H1Tls, Http::H2Tls] {
        let request = get(https, "/events/c", &[("accept", "text/event-stream")]);
        let mut stream = crate::support::client::Stream::of(open(version, https, request).await);
        stream.until("\n\n").await;
        streams.push(stream);
    }
    publish(proxy.address("publish"), r#"{"channel":"c","data":"last"}"#).await;
    proxy.stop();
    for stream in streams {
        let rest = stream.rest().await;
        assert!(rest.contains("data: last\n\nretry: "), "{rest}");
    }
    exits_with_0(proxy).await;
}

/// A backend of an event stream without an end, a WebSocket without a word, a slow answer, and WebSocket over HTTP.
struct Backend {
    address: SocketAddr,
    heard: std::sync::Arc<std::sync::Mutex<String>>,
}

impl Backend {
    async fn start() -> Self {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let (address, heard) = (listener.local_addr().expect("bound"), std::sync::Arc::default());
        let log: std::sync::Arc<std::sync::Mutex<String>> = std::sync::Arc::clone(&heard);
        tokio::spawn(async move {
            while let Ok((mut tcp, _)) = listener.accept().await {
                let log = std::sync::Arc::clone(&log);
                tokio::spawn(async move {
                    let mut text = String::new();
                    let mut part = [0; 4096];
                    while let Ok(len @ 1..) = tcp.read(&mut part).await {
                        let new = String::from_utf8_lossy(&part[..len]).into_owned();
                        log.lock().expect("the log").push_str(&new);
                        text.push_str(&new);
                        let answer = match &text {
                            text if text.starts_with("GET /stream") => {
                                "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: one\n\n"
                            }
                            text if text.starts_with("GET /tunnel") => {
                                "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                                 sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
                            }
                            text if text.starts_with("GET /slow") => {
                                tokio::time::sleep(Duration::from_millis(700)).await;
                                "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nslow"
                            }
                            text if text.contains("OPEN\r\n") => {
                                "HTTP/1.1 200 OK\r\ncontent-type: application/websocket-events\r\n\
                                 sec-websocket-extensions: grip\r\ncontent-length: 6\r\n\r\nOPEN\r\n"
                            }
                            text if text.contains("DISCONNECT\r\n") => {
                                "HTTP/1.1 200 OK\r\ncontent-type: application/websocket-events\r\ncontent-length: 0\r\n\r\n"
                            }
                            _ => continue,
                        };
                        text.clear();
                        let _ = tcp.write_all(answer.as_bytes()).await;
                    }
                });
            }
        });
        Self { address, heard }
    }
}

#[tokio::test]
async fn what_is_open_to_backends_ends_too() {
    let backend = Backend::start().await;
    let proxy = Proxy::start(&format!(
        "
upstreams: {{ back: {{ servers: [\"http://{}\"] }} }}
routes:
  - {{ name: chat, match: {{ path: /chat }}, websocket: {{ upstream: back }} }}
  - {{ name: rest, match: {{}}, proxy: {{ upstream: back }} }}
drain: {{ settle: 50ms, spread: 300ms, margin: 10s }}
",
        backend.address
    ));
    let (http, admin) = (proxy.address("http"), proxy.address("admin"));
    let sse = [("accept", "text/event-stream")];
    let mut h1 = crate::support::held::EventStream::new(Body::get(http, "/stream", &sse).await.2);
    let shared = Shared::connect(http).await.expect("a connection");
    let mut h2 = crate::support::held::EventStream::new(shared.get("/stream", &sse).await.expect("a stream").2);
    for stream in [&mut h1, &mut h2] {
        assert_eq!(within("an event", stream.next()).await.expect("no end").expect("an event").data, "one");
    }
    let mut tunnel = silent_websocket(http, "/tunnel").await;
    let mut bridged = Socket::connect(http, "/chat", "").await.expect("a WebSocket");
    assert_eq!(status(admin).await["sessions"], 4);
    let slow = tokio::spawn(async move { send(Http::H1, http, get(http, "/slow", &[])).await });
    wait_until(|| backend.heard.lock().expect("the log").contains("GET /slow")).await;
    proxy.stop();
    assert_eq!(within("a close", bridged.next()).await, Said::Close(1012, "drain".to_owned()));
    for stream in [&mut h1, &mut h2] {
        assert!(within("a clean end", stream.next()).await.is_none());
    }
    let mut rest = Vec::new();
    let read = tokio::io::AsyncReadExt::read_to_end(&mut tunnel, &mut rest);
    let _ = within("the tunnel's end", read).await;
    assert_eq!(slow.await.expect("an answer").text(), "slow", "a request in flight is finished");
    exits_with_0(proxy).await;
    assert!(backend.heard.lock().expect("the log").contains("DISCONNECT\r\n"));
}

async fn wait_until(mut is_so: impl FnMut() -> bool) {
    within("something", async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}
