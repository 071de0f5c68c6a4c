//! A session takes an HTTP/1.1 connection over: what came before is answered whole, what comes behind is not lost.

use crate::support::backend::{Backend, answer};
use crate::support::certificates;
use crate::support::client::{dial, publish, tls, within};
use crate::support::proxy::Proxy;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

const LISTENERS: [&str; 2] = ["http", "https"];

trait Bytes: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Bytes for T {}

async fn start(large: usize) -> (Backend, Proxy) {
    let backend = Backend::http(move |request| async move {
        let body = if request.uri().path() == "/large" { "L".repeat(large) } else { "small".to_owned() };
        answer(200, &[], body)
    })
    .await;
    let config = format!(
        "{}
listeners:
  - {{ name: http, address: \"127.0.0.1:0\" }}
  - {{ name: https, address: \"127.0.0.1:0\", tls: {{ certificates: [{{ cert_file: localhost.crt, key_file: localhost.key }}] }} }}
",
        backend.config("")
    );
    let proxy = Proxy::start_in(certificates::folder(&["localhost"]), &config);
    (backend, proxy)
}

async fn connect(proxy: &Proxy, listener: &str) -> Box<dyn Bytes> {
    connect_by(dial(proxy.address(listener)).await, listener).await
}

async fn connect_by(tcp: TcpStream, listener: &str) -> Box<dyn Bytes> {
    match listener {
        "http" => Box::new(tcp),
        _ => Box::new(tls(tcp, b"http/1.1", "localhost").await),
    }
}

/// A connection whose receive buffer is small.
async fn narrow(to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(16 * 1024).expect("a socket option");
    within("a connection", socket.connect(to)).await.expect("a connection")
}

/// Reads until the text has `end`.
async fn read_until(io: &mut Box<dyn Bytes>, end: &str) -> String {
    let mut read = Vec::new();
    let reading = async {
        let mut part = vec![0; 1 << 16];
        while !String::from_utf8_lossy(&read[read.len().saturating_sub(end.len() + part.len())..]).contains(end) {
            let len = io.read(&mut part).await.expect("bytes");
            assert!(len > 0, "ended before {end:?}: {:?}", String::from_utf8_lossy(&read));
            read.extend_from_slice(&part[..len]);
        }
    };
    within("bytes of a connection", reading).await;
    String::from_utf8(read).expect("text")
}

/// The rest, to the end of the connection.
async fn read_rest(io: &mut Box<dyn Bytes>) -> Vec<u8> {
    let mut rest = Vec::new();
    // TLS may end without a goodbye.
    let _ = within("the end", io.read_to_end(&mut rest)).await;
    rest
}

#[tokio::test]
async fn answers_to_earlier_requests_come_first_and_whole() {
    let (_backend, proxy) = start(100_000).await;
    for listener in LISTENERS {
        let mut io = connect(&proxy, listener).await;
        io.write_all(
            b"GET /a HTTP/1.1\r\nHost: a\r\n\r\nGET /large HTTP/1.1\r\nHost: a\r\n\r\nHEAD /events/t HTTP/1.1\r\nHost: a\r\n\r\n\
              GET /events/t HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n\r\n",
        )
        .await
        .expect("written");
        let text = read_until(&mut io, "retry: ").await;
        let heads: Vec<_> = text.match_indices("HTTP/1.1 200 OK\r\n").map(|(at, _)| at).collect();
        assert_eq!(heads.len(), 4, "{listener}");
        assert!(text[..heads[1]].ends_with("\r\n\r\nsmall"), "{listener}");
        assert!(text[..heads[2]].ends_with(&format!("\r\n\r\n{}", "L".repeat(100_000))), "{listener}");
        assert!(text[heads[3]..].contains("transfer-encoding: chunked\r\n"), "{listener}: {}", &text[heads[3]..]);
        let at = proxy.address("publish");
        publish(at, r#"{"channel":"t","data":"first"}"#).await;
        assert!(read_until(&mut io, "data: first\n").await.contains("data: first\n"));
    }
}

#[tokio::test]
async fn a_slow_reader_gets_the_earlier_answer_before_the_session() {
    // More than the sockets' buffers hold, so that the answer is stuck when the session wants to begin.
    let large = 4_000_000;
    let (_backend, proxy) = start(large).await;
    for listener in LISTENERS {
        let mut io = connect_by(narrow(proxy.address(listener)).await, listener).await;
        io.write_all(
            b"GET /large HTTP/1.1\r\nHost: a\r\n\r\nGET /events/slow HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n\r\n",
        )
        .await
        .expect("written");
        // Nothing is read for a while: the proxy meets a full socket, in the middle of the answer and at its end.
        tokio::time::sleep(Duration::from_millis(100)).await;
        let mut left = large;
        let mut part = vec![0; 1 << 16];
        let head = read_until(&mut io, "LLLL").await;
        left -= head.matches('L').count();
        while left > 0 {
            let len = within("a part", io.read(&mut part)).await.expect("bytes");
            assert!(len > 0, "{listener}: ended with {left} bytes to come");
            // Slower than the backend: the socket is full when the answer's last bytes are written.
            tokio::time::sleep(Duration::from_micros(len as u64 / 16)).await;
            let of_answer = part[..len].iter().take_while(|byte| **byte == b'L').count();
            left -= of_answer;
            assert!(of_answer == len || left == 0, "{listener}: something in the middle");
            if of_answer < len {
                assert!(part[of_answer..len].starts_with(b"HTTP/1.1 200 OK\r\n"), "{listener}");
            }
        }
        let sessions = || async { publish(proxy.address("publish"), r#"{"channel":"slow","data":"x"}"#).await.json() };
        let reading = read_until(&mut io, "data: x\n");
        let publishing = async {
            while sessions().await["results"][0]["local_sessions"] == 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::join!(reading, within("a session", publishing));
        drop(io);
        within("the session to end", async {
            while sessions().await["results"][0]["local_sessions"] != 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
    }
}

#[tokio::test]
async fn a_request_with_a_body_gets_no_session() {
    let (_backend, proxy) = start(0).await;
    let upgrade = "Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    for listener in LISTENERS {
        for more in ["Accept: text/event-stream\r\n", upgrade] {
            for body in ["Content-Length: 5\r\n\r\nhello", "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"] {
                let mut io = connect(&proxy, listener).await;
                let request = format!("GET /events/t HTTP/1.1\r\nHost: a\r\n{more}{body}");
                io.write_all(request.as_bytes()).await.expect("written");
                let text = read_until(&mut io, "request_id").await;
                assert!(text.starts_with("HTTP/1.1 400 "), "{text}");
            }
        }
    }
}

#[tokio::test]
async fn a_client_that_closes_its_side_ends_its_session() {
    let (_backend, proxy) = start(0).await;
    for listener in LISTENERS {
        let mut io = connect(&proxy, listener).await;
        io.write_all(b"GET /events/half HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n\r\n")
            .await
            .expect("written");
        read_until(&mut io, "retry: ").await;
        io.shutdown().await.expect("half closed");
        read_rest(&mut io).await;
        let event = r#"{"channel":"half","data":"x"}"#;
        assert_eq!(publish(proxy.address("publish"), event).await.json()["results"][0]["local_sessions"], 0);
    }
}

#[tokio::test]
async fn frames_sent_ahead_of_the_101_are_heard() {
    let (_backend, proxy) = start(0).await;
    for listener in LISTENERS {
        let mut io = connect(&proxy, listener).await;
        let mut ahead = b"GET /events/t HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".to_vec();
        // A masked ping with the payload "ping", and a masked close with 1000; the mask is zero.
        // Between them a pong whose bytes would make a bad request line.
        ahead.extend_from_slice(b"\x89\x84\0\0\0\0ping\x8a\x83\0\0\0\0#\r\n\x88\x82\0\0\0\0\x03\xe8");
        io.write_all(&ahead).await.expect("written");
        let rest = read_rest(&mut io).await;
        let end = rest.windows(4).position(|four| four == b"\r\n\r\n").expect("a head") + 4;
        let head = String::from_utf8_lossy(&rest[..end]);
        assert!(head.starts_with("HTTP/1.1 101 ") && head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{head}");
        let frames = &rest[end..];
        assert!(frames.windows(6).any(|six| six == b"\x8a\x04ping"), "{frames:?}");
        assert!(frames.ends_with(b"\x88\x02\x03\xe8"), "{frames:?}");
    }
}

#[tokio::test]
async fn an_http_1_0_client_gets_a_stream_that_ends_with_the_connection() {
    let (_backend, proxy) = start(0).await;
    for listener in LISTENERS {
        let mut io = connect(&proxy, listener).await;
        io.write_all(b"GET /events/old HTTP/1.0\r\nConnection: keep-alive\r\nAccept: text/event-stream\r\n\r\n")
            .await
            .expect("written");
        let text = read_until(&mut io, "id: ").await;
        let (head, body) = text.split_once("\r\n\r\n").expect("a head");
        assert!(head.starts_with("HTTP/1.1 200 OK") && !head.contains("transfer-encoding"), "{head}");
        assert!(head.contains("connection: close"), "{head}");
        assert!(body.starts_with("retry: ") || body.starts_with(':'), "{body:?}");
        publish(proxy.address("publish"), r#"{"channel":"old","data":"x"}"#).await;
        assert!(read_until(&mut io, "data: x\n\n").await.ends_with("data: x\n\n"));
    }
}

#[tokio::test]
async fn what_follows_a_stream_is_neither_answered_nor_passed_on() {
    let (backend, proxy) = start(0).await;
    let mut tcp: TcpStream = dial(proxy.address("http")).await;
    tcp.write_all(
        b"GET /events/t HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n\r\nGET /behind HTTP/1.1\r\nHost: a\r\n\r\n",
    )
    .await
    .expect("written");
    let mut io: Box<dyn Bytes> = Box::new(tcp);
    read_until(&mut io, "retry: ").await;
    publish(proxy.address("publish"), r#"{"channel":"t","data":"on"}"#).await;
    let text = read_until(&mut io, "data: on\n").await;
    assert!(!text.contains("HTTP/1.1"), "{text}");
    assert_eq!(backend.connections(), 0);
}
