//! WebSockets (and other upgrades) of a backend's own, through a proxy route, from HTTP/1.1 and HTTP/2 clients.

use crate::support::backend::{AnyBody, Backend, answer, full};
use crate::support::certificates;
use crate::support::client::{Http, dial, dial_tls, get, send, within};
use crate::support::proxy::Proxy;
use bytes::Bytes;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// A backend that echoes bytes after an upgrade until its client closes its side, and then says `bye`.
async fn echo() -> Backend {
    Backend::http(|mut request: Request<Incoming>| async move {
        let Some(upgrade) = request.headers().get("upgrade").cloned() else { return answer(200, &[], "plain") };
        if request.uri().path() == "/refused" {
            return answer(403, &[], "not you");
        }
        let key = request.headers().get("sec-websocket-key").cloned();
        let switching = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let mut io = TokioIo::new(switching.await.expect("an upgrade"));
            let mut part = vec![0; 1 << 16];
            loop {
                match io.read(&mut part).await {
                    Ok(0) => break,
                    Ok(len) => io.write_all(&part[..len]).await.expect("written"),
                    Err(_) => return,
                }
            }
            let _ = io.write_all(b"bye").await;
            let _ = io.shutdown().await;
        });
        let mut response: Response<AnyBody> = Response::builder()
            .status(101)
            .header("connection", "upgrade")
            .header("upgrade", upgrade)
            .body(full(""))
            .expect("a response");
        if let Some(key) = key {
            let accept = derive_accept_key(key.as_bytes()).parse().expect("a value");
            response.headers_mut().insert("sec-websocket-accept", accept);
        }
        response
    })
    .await
}

fn start(backend: &Backend) -> Proxy {
    let listeners = "
listeners:
  - { name: http, address: \"127.0.0.1:0\" }
  - { name: https, address: \"127.0.0.1:0\", tls: { certificates: [{ cert_file: localhost.crt, key_file: localhost.key }] } }
";
    Proxy::start_in(certificates::folder(&["localhost"]), &format!("{}{listeners}", backend.config("")))
}

fn upgrade(path: &str) -> Vec<u8> {
    format!(
        "GET {path} HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n"
    )
    .into_bytes()
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at % 251) as u8).collect()
}

#[tokio::test]
async fn an_h1_tunnel_passes_large_data_bytes_sent_ahead_and_half_close() {
    let backend = echo().await;
    let proxy = start(&backend);
    for listener in ["http", "https"] {
        let to = proxy.address(listener);
        let io: Box<dyn Duplex> = match listener {
            "http" => Box::new(dial(to).await),
            _ => Box::new(dial_tls(to, b"http/1.1", "localhost").await),
        };
        let (mut reader, mut writer) = tokio::io::split(io);
        let sent = pattern(2_000_000);
        // The first bytes come in one packet with the request.
        writer.write_all(&[&upgrade("/ws")[..], &sent[..100]].concat()).await.expect("written");
        let rest = sent.clone();
        let writing = tokio::spawn(async move {
            writer.write_all(&rest[100..]).await.expect("written");
            writer.shutdown().await.expect("half closed");
        });
        let mut read = Vec::new();
        within("the tunnel's end", reader.read_to_end(&mut read)).await.expect("a clean end");
        writing.await.expect("no panic");
        let end = read.windows(4).position(|four| four == b"\r\n\r\n").expect("a head") + 4;
        let head = String::from_utf8_lossy(&read[..end]).into_owned();
        assert!(head.starts_with("HTTP/1.1 101 ") && head.contains(&derive_accept_key(KEY.as_bytes())), "{head}");
        assert!(read[end..] == [&sent[..], b"bye"].concat(), "{listener}: {} bytes", read.len() - end);
    }
}

trait Duplex: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin {}

impl<T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin> Duplex for T {}

/// An extended CONNECT over a new HTTP/2 connection.
async fn connect(
    proxy: &Proxy,
    listener: &str,
    path: &str,
    protocol: &'static str,
) -> (Response<h2::RecvStream>, h2::SendStream<Bytes>) {
    let to = proxy.address(listener);
    let io: Box<dyn Duplex> = match listener {
        "http" => Box::new(dial(to).await),
        _ => Box::new(dial_tls(to, b"h2", "localhost").await),
    };
    let (send, mut connection) = h2::client::handshake(io).await.expect("a handshake");
    let mut ping = connection.ping_pong().expect("pings");
    tokio::spawn(connection);
    // After a ping the server's settings are known.
    within("a pong", ping.ping(h2::Ping::opaque())).await.expect("a pong");
    let mut send = send.ready().await.expect("ready");
    assert!(send.is_extended_connect_protocol_enabled());
    let mut request = Request::builder()
        .method("CONNECT")
        .uri(format!("https://a.example{path}"))
        .header("sec-websocket-version", "13")
        .body(())
        .expect("a request");
    request.extensions_mut().insert(h2::ext::Protocol::from_static(protocol));
    let (response, stream) = send.send_request(request, false).expect("sent");
    (within("an answer", response).await.expect("an answer"), stream)
}

async fn read_all(body: &mut h2::RecvStream) -> Vec<u8> {
    let mut read = Vec::new();
    while let Some(data) = within("data", body.data()).await {
        let data = data.expect("a clean end");
        let _ = body.flow_control().release_capacity(data.len());
        read.extend_from_slice(&data);
    }
    read
}

async fn write_all(stream: &mut h2::SendStream<Bytes>, mut data: Bytes) {
    while !data.is_empty() {
        stream.reserve_capacity(data.len());
        let capacity = within("room", std::future::poll_fn(|cx| stream.poll_capacity(cx))).await;
        let capacity = capacity.expect("open").expect("open");
        stream.send_data(data.split_to(capacity.min(data.len())), false).expect("sent");
    }
}

#[tokio::test]
async fn an_h2_websocket_passes_large_data_and_half_close() {
    let backend = echo().await;
    let proxy = start(&backend);
    for listener in ["http", "https"] {
        let (response, mut stream) = connect(&proxy, listener, "/ws", "websocket").await;
        assert_eq!(response.status(), 200);
        assert!(!response.headers().contains_key("sec-websocket-accept"));
        let sent = pattern(2_000_000);
        let rest = Bytes::from(sent.clone());
        let writing = tokio::spawn(async move {
            write_all(&mut stream, rest).await;
            stream.send_data(Bytes::new(), true).expect("half closed");
            stream
        });
        let read = read_all(&mut response.into_body()).await;
        writing.await.expect("no panic");
        assert!(read == [&sent[..], b"bye"].concat(), "{listener}: {} bytes", read.len());
    }
}

#[tokio::test]
async fn refusals_of_a_tunnel_are_ordinary_answers() {
    let backend = echo().await;
    let proxy = start(&backend);
    let (response, _stream) = connect(&proxy, "http", "/refused", "websocket").await;
    assert_eq!(response.status(), 403);
    assert_eq!(read_all(&mut response.into_body()).await, b"not you");
    let (response, _stream) = connect(&proxy, "http", "/ws", "connect-udp").await;
    assert_eq!(response.status(), 501);
    let text = crate::support::client::raw(proxy.address("http"), &upgrade("/refused"), "not you").await;
    assert!(text.starts_with("HTTP/1.1 403 "), "{text}");
    // An upgrade without the Connection option is none.
    let plain =
        send(Http::H1, proxy.address("http"), get(proxy.address("http"), "/ws", &[("upgrade", "websocket")])).await;
    assert_eq!(plain.text(), "plain");
}

#[tokio::test]
async fn a_client_that_breaks_its_tunnel_frees_the_backend() {
    let (hand, mut handed) = tokio::sync::mpsc::unbounded_channel();
    let backend = Backend::raw(move |mut tcp| {
        let hand = hand.clone();
        async move {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(tcp.read_u8().await.expect("a head"));
            }
            let head = String::from_utf8(head).expect("text");
            let key = head.lines().find_map(|line| line.strip_prefix("sec-websocket-key: ")).expect("a key");
            let accept = derive_accept_key(key.as_bytes());
            let head = format!("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {accept}\r\n\r\n");
            tcp.write_all(head.as_bytes()).await.expect("written");
            let ended = tcp.read(&mut [0; 16]).await;
            hand.send(ended.unwrap_or(0)).expect("the test listens");
        }
    })
    .await;
    let proxy = start(&backend);
    let mut tcp = dial(proxy.address("http")).await;
    tcp.write_all(&upgrade("/ws")).await.expect("written");
    let mut head = [0; 12];
    within("101", tcp.read_exact(&mut head)).await.expect("a head");
    assert_eq!(&head, b"HTTP/1.1 101");
    drop(tcp);
    assert_eq!(within("the end", handed.recv()).await, Some(0));
    let (response, mut stream) = connect(&proxy, "http", "/ws", "websocket").await;
    assert_eq!(response.status(), 200);
    stream.send_reset(h2::Reason::CANCEL);
    assert_eq!(within("the end", handed.recv()).await, Some(0));
}
