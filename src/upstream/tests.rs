//! Upstreams against small backends over real sockets.

#![expect(clippy::disallowed_methods, reason = "what a test backend tells is bounded by the test")]

pub(super) mod name_server;

use super::*;
use crate::server::body::{Body, BodyError, read_whole};
use crate::telemetry::metrics::Metrics;
use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode};
use http_body::{Body as HttpBody, Frame};
use name_server::NameServer;
use settings::{Balance, ServerAddress};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(10);

/// Runs a test on a worker's kind of runtime.
fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    tokio::task::LocalSet::new().block_on(&runtime, async { timeout(SOON * 3, test).await.expect("the test ends") });
}

fn upstreams() -> Upstreams {
    Upstreams::new(Metrics::new().worker())
}

fn settings(ports: &[u16]) -> UpstreamSettings {
    UpstreamSettings {
        name: "shop".into(),
        servers: ports.iter().map(|port| ServerAddress { host: "127.0.0.1".into(), port: *port }).collect(),
        balance: Balance::RoundRobin,
        protocol: UpstreamProtocol::Http1,
        connect_timeout: SOON,
        response_timeout: SOON,
        retry_attempts_max: 2,
        grip: None,
    }
}

fn one(port: u16) -> Arc<UpstreamSettings> {
    Arc::new(settings(&[port]))
}

async fn listen() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    (listener, port)
}

/// A port that nobody listens on.
async fn refusing() -> u16 {
    listen().await.1
}

/// Reads a request head, byte by byte so that nothing of the body is lost; `None` at the end of the connection.
async fn read_head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    Some(String::from_utf8(head).expect("a text head"))
}

/// A backend that answers each request of each connection with what `answer` makes of its head, and tells the heads.
async fn backend(answer: fn(usize) -> &'static str) -> (u16, mpsc::UnboundedReceiver<(usize, String)>) {
    let (listener, port) = listen().await;
    let (tell, told) = mpsc::unbounded_channel();
    tokio::task::spawn_local(async move {
        for connection in 0.. {
            let Ok((mut stream, _)) = listener.accept().await else { return };
            let tell = tell.clone();
            tokio::task::spawn_local(async move {
                while let Some(head) = read_head(&mut stream).await {
                    let _ = tell.send((connection, head));
                    let _ = stream.write_all(answer(connection).as_bytes()).await;
                }
            });
        }
    });
    (port, told)
}

fn get(path: &str) -> Request {
    http::Request::builder().uri(path).header("host", "shop.example").body(Body::empty()).expect("a request")
}

fn post(body: Body) -> Request {
    let request = http::Request::builder().method(Method::POST).uri("/orders").header("host", "shop.example");
    request.body(body).expect("a request")
}

async fn text(response: Response) -> String {
    let bytes = read_whole(response.into_body(), 1 << 20).await.expect("a whole body");
    String::from_utf8(bytes.to_vec()).expect("text")
}

/// A body that a test feeds.
struct Fed(mpsc::Receiver<Result<Frame<Bytes>, BodyError>>);

fn fed() -> (mpsc::Sender<Result<Frame<Bytes>, BodyError>>, Body) {
    let (sender, receiver) = mpsc::channel(1);
    (sender, Body::boxed(Fed(receiver)))
}

impl HttpBody for Fed {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.get_mut().0.poll_recv(cx)
    }
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[test]
fn a_connection_is_used_again() {
    run(async {
        let (port, mut told) = backend(|_| OK).await;
        let (upstreams, shop) = (upstreams(), one(port));
        for _ in 0..3 {
            let response = upstreams.send(&shop, get("/a?b=c")).await.expect("a response");
            assert_eq!(text(response).await, "ok");
            let (connection, head) = told.recv().await.expect("a request");
            assert_eq!(connection, 0);
            assert_eq!(head, "GET /a?b=c HTTP/1.1\r\nhost: shop.example\r\n\r\n");
        }
    });
}

#[test]
fn a_reload_keeps_the_connections_of_servers_that_stay() {
    run(async {
        let (port, mut told) = backend(|_| OK).await;
        let upstreams = upstreams();
        for _ in 0..2 {
            text(upstreams.send(&one(port), get("/")).await.expect("a response")).await;
            assert_eq!(told.recv().await.expect("a request").0, 0);
        }
        upstreams.keep_only(&[]);
        text(upstreams.send(&one(port), get("/")).await.expect("a response")).await;
        assert_eq!(told.recv().await.expect("a request").0, 1);
    });
}

#[test]
fn a_short_keep_alive_of_the_server_is_respected() {
    run(async {
        let (port, mut told) = backend(|_| "HTTP/1.1 204 No Content\r\nKeep-Alive: max=3, timeout=1\r\n\r\n").await;
        let (upstreams, shop) = (upstreams(), one(port));
        for expected in 0..2 {
            upstreams.send(&shop, get("/")).await.expect("a response");
            assert_eq!(told.recv().await.expect("a request").0, expected);
        }
    });
}

#[test]
fn a_stale_idle_connection_is_replaced_even_for_a_post() {
    run(async {
        let (listener, port) = listen().await;
        let (upstreams, shop) = (upstreams(), one(port));
        let server = tokio::task::spawn_local(async move {
            let (mut first, _) = listener.accept().await.expect("a connection");
            read_head(&mut first).await.expect("a request");
            first.write_all(OK.as_bytes()).await.expect("written");
            drop(first);
            let (mut second, _) = listener.accept().await.expect("a second connection");
            let head = read_head(&mut second).await.expect("a request");
            second.write_all(OK.as_bytes()).await.expect("written");
            head
        });
        text(upstreams.send(&shop, get("/")).await.expect("a response")).await;
        let response = upstreams.send(&shop, post(Body::full("x"))).await.expect("a response on a new connection");
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(text(response).await, "ok");
        assert!(server.await.expect("no panic").starts_with("POST /orders"));
    });
}

#[test]
fn a_processed_post_is_never_sent_again() {
    run(async {
        let (listener, port) = listen().await;
        let requests = Rc::new(Cell::new(0));
        let seen = Rc::clone(&requests);
        tokio::task::spawn_local(async move {
            loop {
                let Ok((mut stream, _)) = listener.accept().await else { return };
                read_head(&mut stream).await.expect("a request");
                seen.set(seen.get() + 1);
            }
        });
        let error = upstreams().send(&one(port), post(Body::full("x"))).await.err().expect("no response");
        assert!(matches!(error, UpstreamError::Broken { .. }), "{error}");
        assert_eq!(requests.get(), 1);
    });
}

#[test]
fn a_server_that_refuses_is_passed_over_and_then_avoided() {
    run(async {
        let (port, mut told) = backend(|_| OK).await;
        let shop = Arc::new(settings(&[refusing().await, port]));
        let upstreams = upstreams();
        for _ in 0..3 {
            text(upstreams.send(&shop, post(Body::full("x"))).await.expect("a response")).await;
            told.recv().await.expect("a request");
        }
        let none = Arc::new(UpstreamSettings { retry_attempts_max: 0, ..settings(&[refusing().await]) });
        let error = upstreams.send(&none, get("/")).await.err().expect("no server");
        assert!(matches!(&error, UpstreamError::Connect { upstream, .. } if &**upstream == "shop"), "{error}");
    });
}

#[test]
fn without_retries_a_refused_connection_is_the_end() {
    run(async {
        let (port, _told) = backend(|_| OK).await;
        let shop = UpstreamSettings { retry_attempts_max: 0, ..settings(&[refusing().await, port]) };
        let error = upstreams().send(&Arc::new(shop), get("/")).await.err().expect("refused");
        assert!(matches!(error, UpstreamError::Connect { .. }), "{error}");
        let shop = UpstreamSettings { servers: Vec::new(), ..settings(&[]) };
        let error = upstreams().send(&Arc::new(shop), get("/")).await.err().expect("nowhere to go");
        assert!(matches!(error, UpstreamError::NoServer { .. }), "{error}");
    });
}

#[test]
fn a_name_that_does_not_exist_is_told_apart() {
    run(async {
        let server = ServerAddress { host: "no-such-host.invalid".into(), port: 80 };
        let shop = UpstreamSettings { servers: vec![server], ..settings(&[]) };
        let error = upstreams().send(&Arc::new(shop), get("/")).await.err().expect("no address");
        assert!(matches!(error, UpstreamError::Dns { .. }), "{error}");
    });
}

#[test]
fn a_silent_server_times_out() {
    run(async {
        let (port, _told) = backend(|_| "").await;
        let shop = UpstreamSettings { response_timeout: Duration::from_millis(50), ..settings(&[port]) };
        let error = upstreams().send(&Arc::new(shop), get("/")).await.err().expect("too late");
        assert!(matches!(error, UpstreamError::ResponseTimeout { .. }), "{error}");
    });
}

#[test]
fn a_client_that_stops_sending_is_told_apart_from_a_slow_server() {
    run(async {
        let (port, _told) = backend(|_| "").await;
        let shop = Arc::new(UpstreamSettings { response_timeout: Duration::from_millis(100), ..settings(&[port]) });
        let (feed, body) = fed();
        feed.send(Ok(Frame::data("some".into()))).await.expect("taken");
        let error = upstreams().send(&shop, post(body)).await.err().expect("stalled");
        assert!(matches!(error, UpstreamError::RequestStalled { .. }), "{error}");
        drop(feed);

        let (feed, body) = fed();
        feed.send(Err("gone".into())).await.expect("taken");
        let error = upstreams().send(&shop, post(body)).await.err().expect("broken off");
        assert!(matches!(error, UpstreamError::RequestBroken { .. }), "{error}");
    });
}

#[test]
fn an_upload_that_moves_is_not_cut_by_the_response_timeout() {
    run(async {
        let (listener, port) = listen().await;
        tokio::task::spawn_local(async move {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            let head = read_head(&mut stream).await.expect("a request");
            assert!(head.contains("transfer-encoding: chunked"), "{head}");
            let mut body = Vec::new();
            while !body.ends_with(b"0\r\n\r\n") {
                body.push(stream.read_u8().await.expect("the body"));
            }
            stream.write_all(OK.as_bytes()).await.expect("written");
        });
        let limit = Duration::from_millis(600);
        let shop = Arc::new(UpstreamSettings { response_timeout: limit, ..settings(&[port]) });
        let (feed, body) = fed();
        let started = Instant::now();
        tokio::task::spawn_local(async move {
            for _ in 0..12 {
                // The client's pace is what is tested: slower than the limit in all, never for one piece.
                tokio::time::sleep(limit / 8).await;
                feed.send(Ok(Frame::data("piece".into()))).await.expect("taken");
            }
        });
        let response = upstreams().send(&shop, post(body)).await.expect("not cut");
        assert_eq!(text(response).await, "ok");
        assert!(started.elapsed() > limit);
    });
}

#[test]
fn garbage_and_wrong_answers_are_told_apart_from_silence() {
    #[track_caller]
    fn check(answer: fn(usize) -> &'static str, broken: bool) {
        run(async move {
            let (port, _told) = backend(answer).await;
            let error = upstreams().send(&one(port), get("/")).await.err().expect("no answer");
            match error {
                UpstreamError::Broken { .. } => assert!(broken, "{error}"),
                UpstreamError::BadResponse { .. } => assert!(!broken, "{error}"),
                other => panic!("{other}"),
            }
        });
    }
    check(|_| "SSH-2.0-OpenSSH_9.2\r\n\r\n", true);
    check(|_| "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc", true);
    check(|_| "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", false);
    check(|_| "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nx", false);
    check(|_| "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", false);
    check(|_| "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", false);
    check(|_| "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", false);
}

#[test]
fn interim_responses_are_skipped_and_a_cut_body_is_an_error() {
    run(async {
        let (listener, port) = listen().await;
        tokio::task::spawn_local(async move {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            read_head(&mut stream).await.expect("a request");
            let answer =
                "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\ncut";
            stream.write_all(answer.as_bytes()).await.expect("written");
        });
        let response = upstreams().send(&one(port), get("/")).await.expect("a head");
        assert_eq!(response.status(), StatusCode::OK);
        assert!(read_whole(response.into_body(), 100).await.is_err());
    });
}

#[test]
fn trailers_pass_both_ways() {
    run(async {
        let (listener, port) = listen().await;
        let server = tokio::task::spawn_local(async move {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            read_head(&mut stream).await.expect("a request");
            let mut body = Vec::new();
            while !body.ends_with(b"\r\n\r\n") {
                body.push(stream.read_u8().await.expect("the body"));
            }
            let answer = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nx-sum: 7\r\n\r\n";
            stream.write_all(answer.as_bytes()).await.expect("written");
            String::from_utf8(body).expect("text")
        });
        let (feed, body) = fed();
        tokio::task::spawn_local(async move {
            feed.send(Ok(Frame::data("hi".into()))).await.expect("taken");
            let trailers = [("x-digest".parse().expect("a name"), HeaderValue::from_static("1"))].into_iter().collect();
            feed.send(Ok(Frame::trailers(trailers))).await.expect("taken");
        });
        let mut request = post(body);
        request.headers_mut().insert("trailer", HeaderValue::from_static("x-digest"));
        let response = upstreams().send(&one(port), request).await.expect("a response");
        assert!(!response.headers().contains_key("content-length"));
        let mut body = response.into_body();
        let mut trailers = None;
        while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            trailers = frame.expect("unbroken").into_trailers().ok();
        }
        assert_eq!(trailers.expect("trailers")["x-sum"], "7");
        assert_eq!(server.await.expect("no panic"), "2\r\nhi\r\n0\r\nx-digest: 1\r\n\r\n");
    });
}

#[test]
fn a_client_that_leaves_cancels_the_request_before_and_after_the_head() {
    run(async {
        let (listener, port) = listen().await;
        let (upstreams, shop) = (upstreams(), one(port));
        let reached = async {
            let mut stream = listener.accept().await.expect("a connection").0;
            read_head(&mut stream).await.expect("a request");
            stream
        };
        let mut stream = tokio::select! {
            stream = reached => stream,
            _ = upstreams.send(&shop, get("/never")) => panic!("nobody answered"),
        };
        let end = timeout(SOON, stream.read(&mut [0; 16])).await.expect("noticed");
        assert!(matches!(end, Ok(0) | Err(_)));

        let server = async {
            let mut stream = listener.accept().await.expect("a connection").0;
            read_head(&mut stream).await.expect("a request");
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\ndata: 1\n\n").await.expect("written");
            stream
        };
        let (mut stream, response) = tokio::join!(server, upstreams.send(&shop, get("/events")));
        drop(response.expect("a head"));
        let end = timeout(SOON, stream.read(&mut [0; 16])).await.expect("noticed");
        assert!(matches!(end, Ok(0) | Err(_)));
        assert_eq!(upstreams.backend(&shop).roster.servers()[0].in_flight(), 0);
    });
}

#[test]
fn least_requests_counts_until_the_body_ends() {
    run(async {
        let (first, mut at_first) = backend(|_| "HTTP/1.1 200 OK\r\n\r\nopen").await;
        let (second, mut at_second) = backend(|_| OK).await;
        let shop = Arc::new(UpstreamSettings { balance: Balance::LeastRequests, ..settings(&[first, second]) });
        let upstreams = upstreams();
        let held = upstreams.send(&shop, get("/held")).await.expect("a head");
        at_first.recv().await.expect("the first goes to the first");
        for _ in 0..3 {
            text(upstreams.send(&shop, get("/")).await.expect("a response")).await;
            at_second.recv().await.expect("the others to the idle one");
        }
        drop(held);
        assert_eq!(upstreams.backend(&shop).roster.servers()[0].in_flight(), 0);
    });
}

#[test]
fn large_bodies_stream_both_ways_with_back_pressure() {
    const PIECE: usize = 64 * 1024;
    const PIECES: usize = 512;
    run(async {
        let (listener, port) = listen().await;
        let (go, wait) = tokio::sync::oneshot::channel::<()>();
        tokio::task::spawn_local(async move {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            let head = read_head(&mut stream).await.expect("a request");
            assert!(head.contains(&format!("content-length: {}", PIECE * PIECES)), "{head}");
            wait.await.expect("the word");
            let mut buffer = vec![0; PIECE];
            let mut left = PIECE * PIECES;
            while left > 0 {
                left -= stream.read(&mut buffer).await.expect("the body");
            }
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", PIECE * PIECES);
            stream.write_all(head.as_bytes()).await.expect("written");
            for _ in 0..PIECES {
                stream.write_all(&buffer).await.expect("written");
            }
            read_head(&mut stream).await;
        });
        let (feed, body) = fed();
        let fed_pieces = Rc::new(Cell::new(0));
        let counter = Rc::clone(&fed_pieces);
        tokio::task::spawn_local(async move {
            for _ in 0..PIECES {
                feed.send(Ok(Frame::data(vec![7; PIECE].into()))).await.expect("taken");
                counter.set(counter.get() + 1);
            }
        });
        let watcher = async {
            // While the backend does not read, the feed comes to rest far from its end: nothing piles up here.
            let mut before = usize::MAX;
            while before != fed_pieces.get() {
                before = fed_pieces.get();
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            assert!(before < PIECES / 2, "{before} pieces were taken");
            go.send(()).expect("the backend waits");
        };
        let mut request = post(body);
        request.headers_mut().insert("content-length", HeaderValue::from(PIECE * PIECES));
        let (upstreams, shop) = (upstreams(), one(port));
        let (response, ()) = tokio::join!(upstreams.send(&shop, request), watcher);
        let mut body = response.expect("a response").into_body();
        let mut total = 0;
        while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            total += frame.expect("unbroken").into_data().expect("data").len();
        }
        assert_eq!(total, PIECE * PIECES);
        assert_eq!(upstreams.backend(&shop).roster.servers()[0].idle_len(), 1);
    });
}

#[test]
fn a_response_that_nobody_reads_stays_with_the_backend() {
    const PIECES: usize = 512;
    run(async {
        let (listener, port) = listen().await;
        let written = Rc::new(Cell::new(0));
        let counter = Rc::clone(&written);
        tokio::task::spawn_local(async move {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            read_head(&mut stream).await.expect("a request");
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.expect("written");
            while counter.get() < PIECES && stream.write_all(&[7; 64 * 1024]).await.is_ok() {
                counter.set(counter.get() + 1);
            }
        });
        let response = upstreams().send(&one(port), get("/")).await.expect("a head");
        let mut before = usize::MAX;
        while before != written.get() {
            before = written.get();
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        assert!(before < PIECES / 2, "{before} pieces were written");
        let mut body = response.into_body();
        while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            frame.expect("unbroken");
        }
        assert_eq!(written.get(), PIECES);
    });
}

#[test]
fn a_response_that_overtakes_its_request_ends_the_upload() {
    run(async {
        let (port, _told) = backend(|_| "HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\n\r\n").await;
        let (feed, body) = fed();
        feed.send(Ok(Frame::data("part".into()))).await.expect("taken");
        let (upstreams, shop) = (upstreams(), one(port));
        let response = upstreams.send(&shop, post(body)).await.expect("an early response");
        assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
        timeout(SOON, feed.closed()).await.expect("the client's body is let go");
        assert_eq!(upstreams.backend(&shop).roster.servers()[0].idle_len(), 0);
    });
}

#[test]
fn an_upgrade_takes_the_connection_over_with_what_came_early() {
    run(async {
        let (listener, port) = listen().await;
        let server = tokio::task::spawn_local(async move {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            let head = read_head(&mut stream).await.expect("a request");
            let answer = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: upgrade\r\n\r\nearly";
            stream.write_all(answer.as_bytes()).await.expect("written");
            let mut said = String::new();
            stream.read_to_string(&mut said).await.expect("text");
            stream.write_all(b" late").await.expect("half open");
            (head, said)
        });
        let mut request = get("/ws");
        request.headers_mut().insert("upgrade", HeaderValue::from_static("echo"));
        request.headers_mut().insert("connection", HeaderValue::from_static("upgrade"));
        let (upstreams, shop) = (upstreams(), one(port));
        let Upgraded::Switched { head, mut io } = upstreams.upgrade(&shop, request).await.expect("an answer") else {
            panic!("not switched");
        };
        assert_eq!(
            (head.status(), &head.headers()["upgrade"]),
            (StatusCode::SWITCHING_PROTOCOLS, &"echo".parse().expect(""))
        );
        assert_eq!(upstreams.backend(&shop).roster.servers()[0].in_flight(), 1);
        io.write_all(b"hello").await.expect("written");
        io.shutdown().await.expect("half closed");
        let mut heard = String::new();
        io.read_to_string(&mut heard).await.expect("text");
        assert_eq!(heard, "early late");
        let (head, said) = server.await.expect("no panic");
        assert!(head.contains("upgrade: echo"), "{head}");
        assert_eq!(said, "hello");
        drop(io);
        assert_eq!(upstreams.backend(&shop).roster.servers()[0].in_flight(), 0);
    });
}

#[test]
fn a_refused_upgrade_is_an_ordinary_response() {
    run(async {
        let (port, _told) = backend(|_| "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno").await;
        let mut request = get("/ws");
        request.headers_mut().insert("upgrade", HeaderValue::from_static("websocket"));
        request.headers_mut().insert("connection", HeaderValue::from_static("upgrade"));
        let (upstreams, shop) = (upstreams(), one(port));
        let Upgraded::Answered(response) = upstreams.upgrade(&shop, request).await.expect("an answer") else {
            panic!("switched");
        };
        assert_eq!((response.status(), text(response).await.as_str()), (StatusCode::FORBIDDEN, "no"));
        assert_eq!(upstreams.backend(&shop).roster.servers()[0].idle_len(), 1);
    });
}

/// An HTTP/2 backend; `serve` answers each stream.
async fn h2_backend<F>(
    streams_max: u32,
    serve: fn(http::Request<h2::RecvStream>, h2::server::SendResponse<Bytes>) -> F,
) -> u16
where
    F: Future<Output = ()> + 'static,
{
    let (listener, port) = listen().await;
    tokio::task::spawn_local(async move {
        loop {
            let Ok((stream, _)) = listener.accept().await else { return };
            tokio::task::spawn_local(async move {
                let mut builder = h2::server::Builder::new();
                let mut connection =
                    builder.max_concurrent_streams(streams_max).handshake(stream).await.expect("a preface");
                while let Some(Ok((request, respond))) = connection.accept().await {
                    tokio::task::spawn_local(serve(request, respond));
                }
            });
        }
    });
    port
}

fn h2_settings(port: u16) -> Arc<UpstreamSettings> {
    Arc::new(UpstreamSettings { protocol: UpstreamProtocol::H2, ..settings(&[port]) })
}

async fn echo(request: http::Request<h2::RecvStream>, mut respond: h2::server::SendResponse<Bytes>) {
    let uri = request.uri().to_string();
    let mut body = request.into_body();
    let head = http::Response::builder().header("x-uri", uri).body(()).expect("a head");
    let mut out = respond.send_response(head, false).expect("open");
    while let Some(Ok(data)) = body.data().await {
        let _ = body.flow_control().release_capacity(data.len());
        let _ = out.send_data(data, false);
    }
    let trailers = [("x-sum".parse().expect("a name"), HeaderValue::from_static("7"))].into_iter().collect();
    let _ = out.send_trailers(trailers);
}

#[test]
fn h2_streams_share_one_connection() {
    run(async {
        let shop = h2_settings(h2_backend(100, echo).await);
        let upstreams = upstreams();
        let exchanges = (0..20).map(|_| async {
            let response = upstreams.send(&shop, post(Body::full("hello"))).await.expect("a response");
            assert_eq!(response.headers()["x-uri"], "http://shop.example/orders");
            let mut body = response.into_body();
            let (mut data, mut trailers) = (Vec::new(), None);
            while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
                match frame.expect("unbroken").into_data() {
                    Ok(bytes) => data.extend_from_slice(&bytes),
                    Err(frame) => trailers = frame.into_trailers().ok(),
                }
            }
            assert_eq!(data, b"hello");
            assert_eq!(trailers.expect("trailers")["x-sum"], "7");
        });
        futures_util::future::join_all(exchanges).await;
        assert_eq!(upstreams.backend(&shop).roster.servers()[0].shared_len(), 1);
        assert_eq!(upstreams.backend(&shop).roster.servers()[0].in_flight(), 0);
    });
}

#[test]
fn an_h2_connection_that_the_server_closed_is_replaced() {
    run(async {
        let (listener, port) = listen().await;
        let server = tokio::task::spawn_local(async move {
            let mut authorities = Vec::new();
            for _ in 0..2 {
                let stream = listener.accept().await.expect("a connection").0;
                let mut connection = h2::server::handshake(stream).await.expect("a preface");
                let (request, mut respond) = connection.accept().await.expect("a stream").expect("unbroken");
                authorities.push(request.uri().authority().map(ToString::to_string));
                respond.send_response(http::Response::new(()), true).expect("open");
                connection.graceful_shutdown();
                while connection.accept().await.is_some() {}
            }
            authorities
        });
        let (upstreams, shop) = (upstreams(), h2_settings(port));
        for _ in 0..2 {
            let response = upstreams.send(&shop, post(Body::full("x"))).await.expect("a response");
            assert_eq!(response.status(), StatusCode::OK);
        }
        assert_eq!(server.await.expect("no panic"), [Some("shop.example".into()), Some("shop.example".into())]);
    });
}

async fn hold(_: http::Request<h2::RecvStream>, mut respond: h2::server::SendResponse<Bytes>) {
    let mut out = respond.send_response(http::Response::new(()), false).expect("open");
    let _ = std::future::poll_fn(|cx| out.poll_reset(cx)).await;
}

#[test]
fn h2_opens_another_connection_when_streams_run_out() {
    run(async {
        let shop = h2_settings(h2_backend(2, hold).await);
        let upstreams = upstreams();
        let mut held = Vec::new();
        for _ in 0..5 {
            held.push(upstreams.send(&shop, get("/")).await.expect("a head"));
        }
        assert_eq!(upstreams.backend(&shop).roster.servers()[0].shared_len(), 3);
        drop(held);
        assert_eq!(upstreams.backend(&shop).roster.servers()[0].in_flight(), 0);
    });
}

thread_local! {
    static RESETS: RefCell<Option<mpsc::UnboundedSender<Option<h2::Reason>>>> = const { RefCell::new(None) };
}

async fn tell_reset(request: http::Request<h2::RecvStream>, mut respond: h2::server::SendResponse<Bytes>) {
    let tell = RESETS.with_borrow(Clone::clone).expect("a listener");
    let _ = tell.send(None);
    let reason = if request.uri().path() == "/silent" {
        std::future::poll_fn(|cx| respond.poll_reset(cx)).await
    } else {
        let mut out = respond.send_response(http::Response::new(()), false).expect("open");
        std::future::poll_fn(|cx| out.poll_reset(cx)).await
    };
    let _ = tell.send(Some(reason.expect("a reset")));
}

#[test]
fn h2_resets_a_stream_that_nobody_waits_for() {
    run(async {
        let (tell, mut told) = mpsc::unbounded_channel();
        RESETS.set(Some(tell));
        let shop = h2_settings(h2_backend(100, tell_reset).await);
        let upstreams = upstreams();
        let mut arrived = async || assert_eq!(timeout(SOON, told.recv()).await.expect("noticed"), Some(None));
        tokio::select! {
            () = arrived() => {}
            _ = upstreams.send(&shop, get("/silent")) => panic!("nobody answered"),
        }
        let mut told = async || timeout(SOON, told.recv()).await.expect("noticed").flatten();
        assert_eq!(told().await, Some(h2::Reason::CANCEL));
        // With its request body still on the way.
        let (_feed, body) = fed();
        drop(upstreams.send(&shop, post(body)).await.expect("a head"));
        assert_eq!((told().await, told().await.is_some()), (None, true));
        drop(upstreams.send(&shop, get("/open")).await.expect("a head"));
        assert_eq!((told().await, told().await), (None, Some(h2::Reason::CANCEL)));
        assert_eq!(upstreams.backend(&shop).roster.servers()[0].shared_len(), 1);
    });
}

thread_local! {
    static REFUSALS: Cell<u32> = const { Cell::new(0) };
}

async fn refuse_first(request: http::Request<h2::RecvStream>, mut respond: h2::server::SendResponse<Bytes>) {
    if REFUSALS.replace(REFUSALS.get() + 1) == 0 {
        return respond.send_reset(h2::Reason::REFUSED_STREAM);
    }
    drop(request);
    respond.send_response(http::Response::new(()), true).expect("open");
}

#[test]
fn h2_sends_a_refused_stream_again_if_it_has_no_body() {
    run(async {
        let shop = h2_settings(h2_backend(100, refuse_first).await);
        REFUSALS.set(0);
        let response = upstreams().send(&shop, get("/")).await.expect("at the second try");
        assert_eq!(response.status(), StatusCode::OK);
        REFUSALS.set(0);
        let error = upstreams().send(&shop, post(Body::full("x"))).await.err().expect("its body is gone");
        assert!(matches!(error, UpstreamError::Broken { .. }), "{error}");
        REFUSALS.set(0);
        let request = http::Request::builder().uri("/ws").body(Body::empty()).expect("a request");
        let error = upstreams().upgrade(&shop, request).await.err().expect("no upgrades");
        assert!(matches!(error, UpstreamError::NoUpgrade { .. }), "{error}");
    });
}

#[test]
fn a_name_is_reached_at_whichever_address_takes_connections() {
    run(async {
        let (port, _told) = backend(|_| "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
        let mut settings = settings(&[port]);
        // Its other address, ::1, refuses; that is no retry.
        settings.servers[0].host = "localhost".into();
        settings.retry_attempts_max = 0;
        let (upstreams, settings) = (upstreams(), Arc::new(settings));
        for _ in 0..4 {
            let response = upstreams.send(&settings, get("/")).await.expect("an answer");
            assert_eq!(response.status(), StatusCode::OK);
        }
        assert!(upstreams.backend(&settings).roster.servers().iter().all(|server| server.socket().is_some()));
    });
}

#[test]
fn requests_to_a_name_are_spread_over_its_addresses() {
    run(async {
        let (first, port) = listen().await;
        let second = TcpListener::bind(("127.0.0.2", port)).await.expect("all of 127.0.0.0/8 is this machine's");
        let (tell, mut told) = mpsc::unbounded_channel();
        for (name, listener) in [("first", first), ("second", second)] {
            tokio::task::spawn_local(tell_of_requests(listener, name, tell.clone()));
        }
        let (upstreams, settings) = (upstreams(), one(port));
        let roster = Rc::clone(&upstreams.backend(&settings).roster);
        let found = [1, 2].map(|last| std::net::SocketAddr::from(([127, 0, 0, last], port)));
        roster.apply(&settings.servers[0], &found);
        for _ in 0..4 {
            upstreams.send(&settings, get("/")).await.expect("an answer");
        }
        let mut took = [told.recv().await, told.recv().await, told.recv().await, told.recv().await];
        took.sort_unstable();
        assert_eq!(took, [Some("first"), Some("first"), Some("second"), Some("second")]);
    });
}

#[test]
fn a_service_is_followed_as_its_records_change() {
    run(async {
        let dns = NameServer::start("nameserver 127.0.0.1\n").await;
        let (tell, mut told) = mpsc::unbounded_channel();
        let mut ports = Vec::new();
        for name in ["first", "second"] {
            let (listener, port) = listen().await;
            tokio::task::spawn_local(tell_of_requests(listener, name, tell.clone()));
            ports.push(port);
        }
        let names_port = |port: u16| format!("SRV 0 1 1 {port} pod.shop.test.");
        dns.set("pod.shop.test.", &["A 0 127.0.0.1"]);
        dns.set("_http._tcp.shop.test.", &[&names_port(ports[0])]);
        let mut settings = settings(&[]);
        settings.servers.push(ServerAddress { host: "_http._tcp.shop.test.".into(), port: 0 });
        let settings = Arc::new(settings);
        let upstreams = Rc::new(Upstreams::with_names(Metrics::new().worker(), dns.names()));
        // Those that come together all wait for the first look.
        let together = (0..3).map(|_| upstreams.send(&settings, get("/")));
        for response in futures_util::future::join_all(together).await {
            assert_eq!(response.expect("an answer").status(), StatusCode::OK);
            assert_eq!(told.recv().await, Some("first"));
        }
        // The pod goes, and another one comes: no request fails, and soon the new one gets them.
        dns.set("_http._tcp.shop.test.", &[&names_port(ports[1])]);
        loop {
            upstreams.send(&settings, get("/")).await.expect("an answer");
            if told.recv().await == Some("second") {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        // What can't be looked up any more stays as it was.
        dns.answer_garbage();
        let asked = dns.asked();
        while dns.asked() < asked + 2 {
            upstreams.send(&settings, get("/")).await.expect("an answer");
            assert_eq!(told.recv().await, Some("second"));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
}

#[test]
fn a_service_that_nobody_knows_is_an_error_that_says_so() {
    run(async {
        let dns = NameServer::start("nameserver 127.0.0.1\n").await;
        let mut settings = settings(&[]);
        settings.servers.push(ServerAddress { host: "_http._tcp.none.test.".into(), port: 0 });
        let upstreams = Upstreams::with_names(Metrics::new().worker(), dns.names());
        let error = upstreams.send(&Arc::new(settings), get("/")).await.err().expect("no such service");
        assert!(error.to_string().contains("_http._tcp.none.test."), "{error}");
        assert!(matches!(&error, UpstreamError::Dns { source, .. } if source.to_string().contains("SRV")), "{error}");
    });
}

/// Answers each request, and says who did.
async fn tell_of_requests(listener: TcpListener, name: &'static str, tell: mpsc::UnboundedSender<&'static str>) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let tell = tell.clone();
        tokio::task::spawn_local(async move {
            while read_head(&mut stream).await.is_some() {
                let _ = tell.send(name);
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
            }
        });
    }
}
