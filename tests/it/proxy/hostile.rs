//! Requests by which a client could make two parsers disagree, and other nonsense: each is refused or read in one way,
//! and nobody else notices.

use crate::support::backend::{Backend, answer};
use crate::support::client::{DEADLINE, Http, Stream, dial, get, open, publish, raw, within};
use crate::support::metrics;
use crate::support::proxy::Proxy;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// A backend that notes each request line it sees, before it reads the body.
async fn noting() -> (Backend, Arc<Mutex<Vec<String>>>) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&seen);
    let backend = Backend::http(move |request| {
        noted.lock().expect("the notes").push(format!("{} {}", request.method(), request.uri()));
        async move {
            let _ = http_body_util::BodyExt::collect(request.into_body()).await;
            answer(200, &[], "from the backend")
        }
    })
    .await;
    (backend, seen)
}

/// What comes back until the server closes.
async fn exchange(proxy: &Proxy, request: &[u8]) -> String {
    raw(proxy.address("http"), request, "").await
}

#[tokio::test]
async fn smuggling_shapes_are_refused_and_the_connection_closed() {
    let (backend, seen) = noting().await;
    let proxy = Proxy::start(&backend.config(""));
    let mut neighbour = {
        let to = proxy.address("http");
        Stream::of(open(Http::H2c, to, get(to, "/events/n", &[("accept", "text/event-stream")])).await)
    };
    let behind = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    let chunk = format!("{:x}\r\n{behind}\r\n0\r\n\r\n", behind.len());
    let heads = [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        "Content-Length: 0\r\nContent-Length: 46\r\n\r\n",
        "Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
        "Content-Length: 3, 3\r\n\r\nabc",
        "Content-Length: +3\r\n\r\nabc",
        "Content-Length: 0x3\r\n\r\nabc",
        "Content-Length: -1\r\n\r\n",
        "Content-Length: 99999999999999999999\r\n\r\n",
        "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding: identity\r\n\r\n",
        "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
        "X-A: b\r\n Transfer-Encoding: chunked\r\n\r\n",
        " Transfer-Encoding: chunked\r\n\r\n",
        "X-A: b\rContent-Length: 3\r\n\r\nabc",
        "X-A: b\0c\r\n\r\n",
        "X A: b\r\n\r\n",
        ": b\r\n\r\n",
        "X-A\r\n\r\n",
        "Connection: close, Content-Length\r\nContent-Length: 3\r\n\r\nabc",
    ];
    let mut refused = 0.0;
    for head in heads {
        let text = exchange(&proxy, format!("POST / HTTP/1.1\r\nHost: a\r\n{head}{behind}").as_bytes()).await;
        assert!(text.starts_with("HTTP/1.1 400 ") || text.starts_with("HTTP/1.1 501 "), "{head:?}: {text}");
        assert_eq!(text.matches("HTTP/1.1 ").count(), 1, "{head:?}: {text}");
        // Whoever refuses it says why.
        assert!(
            text.contains("content-type: application/problem+json") && text.contains("request_id"),
            "{head:?}: {text}"
        );
        refused += 1.0;
    }
    let lines = seen.lock().expect("the notes").clone();
    assert!(lines.is_empty(), "{lines:?}");
    metrics::reaches(&proxy, &metrics::refusals("bad_request"), refused).await;
    // In a body it is a body.
    let text = exchange(
        &proxy,
        format!("POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}")
            .as_bytes(),
    )
    .await;
    assert!(text.starts_with("HTTP/1.1 200 "), "{text}");
    assert_eq!(*seen.lock().expect("the notes"), ["POST /"]);
    publish(proxy.address("publish"), r#"{"channel":"n","data":"still here"}"#).await;
    neighbour.until("data: still here\n").await;
}

#[tokio::test]
async fn targets_hosts_and_methods_that_nobody_serves_are_refused() {
    let (backend, seen) = noting().await;
    let proxy = Proxy::start(&backend.config(""));
    for (request, status) in [
        ("GET http://other.example/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET http://a/ HTTP/1.1\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a@b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost:\r\n\r\n", 400),
        ("GET a HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET /%00 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET / HTTP/3.0\r\nHost: a\r\n\r\n", 400),
        ("GET / HTTP/1.1 \r\nHost: a\r\n\r\n", 400),
        ("GET /\r\n\r\n", 400),
        ("\x16\x03\x01\x02\0\x01\0\x01", 400),
        ("PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", 400),
        ("CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", 501),
        ("TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", 501),
        ("GET / HTTP/1.1\r\nHost: a\r\nExpect: tea\r\n\r\n", 417),
    ] {
        let text = exchange(&proxy, request.as_bytes()).await;
        assert!(text.starts_with(&format!("HTTP/1.1 {status} ")), "{request:?}: {text}");
    }
    let lines = seen.lock().expect("the notes").clone();
    assert!(lines.is_empty(), "{lines:?}");
}

#[tokio::test]
async fn heads_over_the_bounds_are_refused() {
    let (backend, _) = noting().await;
    let config = format!("{}\nlimits: {{ request_header_bytes: 16KiB }}\n", backend.config(""));
    let proxy = Proxy::start(&config);
    let large = format!("GET / HTTP/1.1\r\nHost: a\r\nX-Large: {}\r\n\r\n", "x".repeat(20_000));
    let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(500));
    let endless = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(200_000));
    for (request, status) in [(&large, "431"), (&many, "431"), (&endless, "4")] {
        let text = exchange(&proxy, request.as_bytes()).await;
        assert!(text.starts_with(&format!("HTTP/1.1 {status}")), "{}: {text}", &request[..40]);
    }
    metrics::reaches(&proxy, &metrics::refusals("bad_request"), 3.0).await;
    let fits = format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX-Large: {}\r\n\r\n", "x".repeat(10_000));
    assert!(exchange(&proxy, fits.as_bytes()).await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn broken_chunks_end_the_request_at_the_backend_too() {
    let (backend, _) = noting().await;
    let proxy = Proxy::start(&backend.config(""));
    for chunks in [
        "x\r\nabc\r\n0\r\n\r\n",
        "-1\r\nabc\r\n0\r\n\r\n",
        "3\nabc\r\n0\r\n\r\n",
        "3\r\nabcd\r\n0\r\n\r\n",
        "fffffffffffffffff\r\nabc\r\n0\r\n\r\n",
        "3 x\r\nabc\r\n0\r\n\r\n",
        "0x3\r\nabc\r\n0\r\n\r\n",
    ] {
        let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        let text =
            exchange(&proxy, format!("{head}{chunks}GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).await;
        assert!(text.starts_with("HTTP/1.1 400 ") || text.is_empty(), "{chunks:?}: {text}");
        assert!(!text.contains("from the backend"), "{chunks:?}: {text}");
    }
}

#[tokio::test]
async fn pipelined_requests_are_all_answered_in_order() {
    let backend = Backend::http(|request| async move {
        // The earlier ones take longer.
        let number: u64 = request.uri().path()[1..].parse().expect("a number");
        tokio::time::sleep(std::time::Duration::from_millis(20 - number)).await;
        answer(200, &[], format!("<{number}>"))
    })
    .await;
    let proxy = Proxy::start(&backend.config(""));
    let mut requests = String::new();
    for number in 0..20 {
        let (method, body) = if number % 2 == 0 { ("GET", "") } else { ("POST", "Content-Length: 3\r\n") };
        let close = if number == 19 { "Connection: close\r\n" } else { "" };
        let content = if number % 2 == 0 { "" } else { "abc" };
        requests += &format!("{method} /{number} HTTP/1.1\r\nHost: a\r\n{close}{body}\r\n{content}");
    }
    let text = exchange(&proxy, requests.as_bytes()).await;
    let order: Vec<_> = text.split('<').skip(1).map(|rest| rest.split('>').next().expect("a number")).collect();
    assert_eq!(order, (0..20).map(|number| number.to_string()).collect::<Vec<_>>());
}

#[tokio::test]
async fn what_is_sent_while_a_request_is_answered_waits_its_turn() {
    let (asked, mut heard) = tokio::sync::mpsc::channel(64);
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let held = Arc::clone(&gate);
    let backend = Backend::http(move |request| {
        let (asked, held) = (asked.clone(), Arc::clone(&held));
        async move {
            let path = request.uri().path().to_owned();
            let _ = http_body_util::BodyExt::collect(request.into_body()).await;
            asked.send(()).await.expect("the test listens");
            held.acquire().await.expect("open until the end").forget();
            answer(200, &[], format!("<{path}>"))
        }
    })
    .await;
    let proxy = Proxy::start(&backend.config(""));
    for first in ["GET /0 HTTP/1.1\r\nHost: a\r\n\r\n", "POST /0 HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab"] {
        let mut tcp = dial(proxy.address("http")).await;
        tcp.write_all(first.as_bytes()).await.expect("written");
        within("the first request", heard.recv()).await;
        // More than one read takes, and in pieces that end within a head.
        let long = "x".repeat(700);
        let mut rest: String =
            (1..8).map(|number| format!("GET /{number} HTTP/1.1\r\nHost: a\r\nX-L: {long}\r\n\r\n")).collect();
        rest += "GET /8 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
        let (piece, others) = rest.split_at(1000);
        tcp.write_all(piece.as_bytes()).await.expect("written");
        // By now the proxy has had time to read it; whether it did changes nothing.
        assert_eq!(
            exchange(&proxy, b"GET /a%00b HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await[..12],
            *"HTTP/1.1 400"
        );
        tcp.write_all(others.as_bytes()).await.expect("written");
        gate.add_permits(9);
        let mut text = String::new();
        within("all answers", tcp.read_to_string(&mut text)).await.expect("text");
        let order: Vec<_> = text.split("</").skip(1).map(|rest| rest.split('>').next().expect("a number")).collect();
        assert_eq!(order, (0..9).map(|number| number.to_string()).collect::<Vec<_>>(), "{first:?}");
        while heard.try_recv().is_ok() {}
    }
}

#[tokio::test]
async fn a_head_that_does_not_come_to_its_end_times_out() {
    let (backend, _) = noting().await;
    let proxy = Proxy::start(&format!(
        "{}\nlimits: {{ request_header_timeout: 200ms, idle_timeout: 400ms }}\n",
        backend.config("")
    ));
    let to = proxy.address("http");
    let mut neighbour = Stream::of(open(Http::H1, to, get(to, "/events/n", &[("accept", "text/event-stream")])).await);
    let started = std::time::Instant::now();
    for start in ["", "G", "PRI * HT", "GET / HTTP/1.1\r\nHost: a\r\nX-Slow: "] {
        raw(to, start.as_bytes(), "").await;
    }
    // To keep a connection for later is no fault, though it is closed all the same.
    assert!(raw(to, b"GET /kept HTTP/1.1\r\nHost: a\r\n\r\n", "").await.starts_with("HTTP/1.1 200 "));
    // A drop now and then buys no more time.
    let mut tcp = dial(to).await;
    tcp.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nX-Slow: ").await.expect("written");
    let (mut reader, mut writer) = tcp.into_split();
    let dripping = tokio::spawn(async move {
        while writer.write_all(b"x").await.is_ok() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    });
    let mut rest = Vec::new();
    let _ = within("a close", reader.read_to_end(&mut rest)).await;
    dripping.abort();
    assert!(started.elapsed() < DEADLINE / 2);
    metrics::reaches(&proxy, &metrics::refusals("header_timeout"), 5.0).await;
    publish(proxy.address("publish"), r#"{"channel":"n","data":"still here"}"#).await;
    neighbour.until("data: still here\n").await;
}

#[tokio::test]
async fn a_connection_may_rest_longer_than_a_head_may_take() {
    let (backend, _) = noting().await;
    let proxy = Proxy::start(&format!("{}\nlimits: {{ request_header_timeout: 200ms }}\n", backend.config("")));
    let to = proxy.address("http");
    let mut kept = dial(to).await;
    let mut answer = [0; 4096];
    kept.write_all(b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\n").await.expect("written");
    assert!(within("an answer", kept.read(&mut answer)).await.expect("read") > 0);
    // Another connection's head times out meanwhile, as the next one of this connection does.
    raw(to, b"GET / HTTP/1.1\r\nHost: a\r\n", "").await;
    kept.write_all(b"GET /2 HTTP/1.1\r\nHost: a\r\n\r\n").await.expect("written");
    assert!(within("an answer", kept.read(&mut answer)).await.expect("read") > 0);
    kept.write_all(b"GET /3 HTTP/1.1\r\nHo").await.expect("written");
    assert_eq!(within("a close", kept.read(&mut answer)).await.ok(), Some(0));
    metrics::reaches(&proxy, &metrics::refusals("header_timeout"), 2.0).await;
}

#[tokio::test]
async fn requests_that_http_2_forbids_are_refused() {
    let (backend, seen) = noting().await;
    let proxy = Proxy::start(&backend.config(""));
    let to = proxy.address("http");
    for (fields, status) in [
        (&[("content-length", "5"), ("content-length", "6")][..], 400),
        (&[("host", "other.example")], 400),
        (&[("expect", "tea")], 417),
    ] {
        let (send, connection) = h2::client::handshake(dial(to).await).await.expect("a handshake");
        tokio::spawn(connection);
        let mut request = http::Request::get(format!("http://{to}/"));
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let mut send = send.ready().await.expect("ready");
        let (response, _) = send.send_request(request.body(()).expect("a request"), true).expect("sent");
        match within("an answer", response).await {
            Ok(response) => assert_eq!(response.status(), status, "{fields:?}"),
            Err(error) => assert!(error.is_reset(), "{fields:?}: {error}"),
        }
    }
    let lines = seen.lock().expect("the notes").clone();
    assert!(lines.is_empty(), "{lines:?}");
}
