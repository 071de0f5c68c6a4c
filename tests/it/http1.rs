//! A connection of HTTP/1.1 from one request to the next: what becomes of bodies that nobody wants, and what ends it.

use crate::support::backend::{Backend, answer};
use crate::support::client::{dial, raw, within};
use crate::support::metrics;
use crate::support::proxy::Proxy;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// `/here` is answered by a backend that reads its bodies; nothing else is there, so that nobody wants its body.
async fn start() -> (Backend, Proxy) {
    let backend = Backend::http(|request| async move {
        let body = http_body_util::BodyExt::collect(request.into_body()).await.expect("a body").to_bytes();
        answer(200, &[], format!("{} bytes", body.len()))
    })
    .await;
    let proxy = Proxy::start(&format!(
        "upstreams: {{ a: {{ servers: [\"http://{}\"] }} }}
routes: [{{ name: here, match: {{ path: /here }}, proxy: {{ upstream: a }} }}]
",
        backend.address()
    ));
    (backend, proxy)
}

/// Writes, and reads until `until` came.
async fn exchange(tcp: &mut TcpStream, bytes: &[u8], until: &str) -> String {
    tcp.write_all(bytes).await.expect("written");
    let mut text = String::new();
    let reading = async {
        let mut part = [0; 4096];
        while !text.contains(until) {
            let len = tcp.read(&mut part).await.expect("bytes");
            assert!(len > 0, "ended before {until:?}: {text}");
            text += std::str::from_utf8(&part[..len]).expect("text");
        }
    };
    within("what is waited for", reading).await;
    text
}

const HERE: &[u8] = b"POST /here HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab";

#[tokio::test]
async fn a_small_body_that_nobody_wants_does_not_end_the_connection() {
    let (_backend, proxy) = start().await;
    for body in
        ["Content-Length: 9\r\n\r\nGET / HTTP", "Transfer-Encoding: chunked\r\n\r\n9\r\nGET / HTTP\r\n0\r\n\r\n"]
    {
        let body = body.replace("GET / HTTP", "GET /HTTP");
        let mut tcp = dial(proxy.address("http")).await;
        let request = format!("POST /nothing HTTP/1.1\r\nHost: a\r\n{body}");
        // The answer comes before the body does.
        let (head, rest) = request.split_at(request.find("\r\n\r\n").expect("a head") + 4);
        let text = exchange(&mut tcp, head.as_bytes(), "request_id").await;
        assert!(text.starts_with("HTTP/1.1 404 ") && !text.contains("connection: close"), "{text}");
        let text = exchange(&mut tcp, &[rest.as_bytes(), HERE].concat(), "2 bytes").await;
        assert!(text.starts_with("HTTP/1.1 200 "), "{text}");
    }
}

#[tokio::test]
async fn a_large_body_that_nobody_wants_ends_it_and_is_no_request() {
    let (_backend, proxy) = start().await;
    let behind = "GET /here HTTP/1.1\r\nHost: a\r\n\r\n".repeat(10_000);
    let length = format!("Content-Length: {}\r\n\r\n{behind}", behind.len());
    let chunked = format!("Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{behind}\r\n0\r\n\r\n", behind.len());
    for body in [length, chunked] {
        let request = format!("POST /nothing HTTP/1.1\r\nHost: a\r\n{body}");
        let text = raw(proxy.address("http"), request.as_bytes(), "").await;
        assert!(text.starts_with("HTTP/1.1 404 ") && text.ends_with('}'), "{text}");
        assert_eq!(text.matches("HTTP/1.1 ").count(), 1, "{text}");
    }
}

#[tokio::test]
async fn a_client_that_was_not_asked_for_its_body_is_told_that_the_connection_ends() {
    let (_backend, proxy) = start().await;
    let expecting = "Host: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n";
    let refused = format!("POST /nothing HTTP/1.1\r\n{expecting}");
    let text = raw(proxy.address("http"), refused.as_bytes(), "").await;
    assert!(text.starts_with("HTTP/1.1 404 ") && text.contains("connection: close\r\n"), "{text}");
    // Who sends it without waiting has the answer alone, and who is asked goes on after it.
    let mut tcp = dial(proxy.address("http")).await;
    let wanted = format!("POST /here HTTP/1.1\r\n{expecting}");
    let text = exchange(&mut tcp, format!("{wanted}hello").as_bytes(), "5 bytes").await;
    assert!(text.starts_with("HTTP/1.1 200 "), "{text}");
    exchange(&mut tcp, wanted.as_bytes(), "HTTP/1.1 100 Continue\r\n\r\n").await;
    let text = exchange(&mut tcp, &[b"hello", HERE].concat(), "2 bytes").await;
    assert_eq!(text.matches("HTTP/1.1 200 ").count(), 2, "{text}");
}

#[tokio::test]
async fn blank_lines_between_requests_begin_none() {
    let (_backend, proxy) = start().await;
    let mut tcp = dial(proxy.address("http")).await;
    for before in ["", "\r\n", "\n\r\n"] {
        exchange(&mut tcp, &[before.as_bytes(), HERE, b"\r\n"].concat(), "2 bytes").await;
    }
    // Byte by byte, with a blank line in each place where one may be.
    for byte in [b"\r\n\r\n", HERE].concat() {
        tcp.write_all(&[byte]).await.expect("written");
    }
    exchange(&mut tcp, b"\r\n", "2 bytes").await;
}

#[tokio::test]
async fn an_answer_says_whether_more_may_be_asked() {
    let (_backend, proxy) = start().await;
    for (version, field, is_last) in [
        ("1.1", "", false),
        ("1.1", "Connection: close\r\n", true),
        ("1.0", "", true),
        ("1.0", "Connection: keep-alive\r\n", false),
    ] {
        let mut tcp = dial(proxy.address("http")).await;
        let request = format!("GET /here HTTP/{version}\r\nHost: a\r\n{field}\r\n");
        let text = exchange(&mut tcp, request.as_bytes(), "0 bytes").await;
        let says = if version == "1.1" {
            text.contains("connection: close\r\n")
        } else {
            !text.contains("connection: keep-alive\r\n")
        };
        assert_eq!(says, is_last, "{version} {field:?}: {text}");
        if is_last {
            assert_eq!(within("the end", tcp.read(&mut [0; 1])).await.ok(), Some(0));
        } else {
            exchange(&mut tcp, HERE, "2 bytes").await;
        }
    }
}

const OPEN: &str = "pushbridge_server_connections_open{listener=\"http\",protocol=\"http/1.1\"}";

/// A backend that answers before it has its request, with the begin of a body that has no end.
async fn silent() -> (Backend, Proxy) {
    let backend = Backend::raw(|mut tcp| async move {
        let _ = tcp.read(&mut [0; 1000]).await;
        let _ = tcp.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n").await;
        let mut rest = vec![0; 1 << 16];
        while let Ok(1..) = tcp.read(&mut rest).await {}
    })
    .await;
    let proxy = Proxy::start(&backend.config(""));
    (backend, proxy)
}

#[tokio::test]
async fn a_client_that_goes_in_the_middle_of_its_answer_is_noticed_whatever_it_sent() {
    let (_backend, proxy) = silent().await;
    let post = "POST / HTTP/1.1\r\nHost: a\r\n";
    for (request, more) in [
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), ""),
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), "\r\n"),
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), "GET /more HTTP/1.1\r\n"),
        (format!("{post}Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n"), ""),
        (format!("{post}Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n"), "0\r\n\r\n"),
        (format!("{post}Content-Length: 5\r\n\r\nab"), ""),
        (format!("{post}Content-Length: 5\r\n\r\nab"), "cde"),
    ] {
        let mut tcp = dial(proxy.address("http")).await;
        exchange(&mut tcp, request.as_bytes(), "hello").await;
        metrics::reaches(&proxy, OPEN, 1.0).await;
        tcp.write_all(more.as_bytes()).await.expect("written");
        drop(tcp);
        metrics::reaches(&proxy, OPEN, 0.0).await;
    }
}

#[tokio::test]
async fn what_ends_with_the_connection_is_not_cut_in_silence() {
    let (_backend, proxy) = silent().await;
    let mut tcp = dial(proxy.address("http")).await;
    exchange(&mut tcp, b"GET / HTTP/1.0\r\n\r\n", "hello").await;
    // It sends no more, as `nc -N` does, and counts as gone; it may still read.
    tcp.shutdown().await.expect("half closed");
    let rest = within("the end", async move { tcp.read_to_end(&mut Vec::new()).await }).await;
    assert!(rest.is_err(), "a clean end");
}

#[tokio::test]
async fn a_handshake_with_a_body_opens_no_websocket() {
    let backend = Backend::http(|_| async { answer(200, &[], "") }).await;
    let proxy = Proxy::start(&format!(
        "upstreams: {{ a: {{ servers: [\"http://{}\"] }} }}
routes: [{{ name: ws, match: {{ path: /ws }}, websocket: {{ upstream: a }} }}]
",
        backend.address()
    ));
    let handshake = "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    for body in [
        "Transfer-Encoding: chunked\r\n\r\n8\r\n",
        "Content-Length: 8\r\nExpect: 100-continue\r\n\r\n",
        "Content-Length: 2\r\n\r\nab",
    ] {
        let text = raw(proxy.address("http"), format!("{handshake}{body}").as_bytes(), "request_id").await;
        assert!(text.starts_with("HTTP/1.1 400 "), "{text}");
    }
    assert_eq!(backend.connections(), 0);
}

#[tokio::test]
async fn a_client_whose_upload_is_stuck_at_a_backend_is_noticed_too() {
    // It answers early, and then neither reads nor says more.
    let backend = Backend::raw(|mut tcp| async move {
        let _ = tcp.read(&mut [0; 1000]).await;
        let _ = tcp.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n").await;
        std::future::pending::<()>().await;
    })
    .await;
    let proxy = Proxy::start(&format!(
        "upstreams: {{ a: {{ servers: [\"http://{}\"], timeouts: {{ response: 300ms }} }} }}
routes: [{{ name: all, match: {{ path: \"/**\" }}, proxy: {{ upstream: a }} }}]
",
        backend.address()
    ));
    let mut tcp = dial(proxy.address("http")).await;
    exchange(&mut tcp, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n", "hello").await;
    // Until all that is between the client and the backend is full.
    let full = async { while tcp.write_all(&[b'x'; 1 << 16]).await.is_ok() {} };
    let _ = tokio::time::timeout(std::time::Duration::from_millis(200), full).await;
    metrics::reaches(&proxy, OPEN, 1.0).await;
    drop(tcp);
    metrics::reaches(&proxy, OPEN, 0.0).await;
}
