//! Backends that answer wrongly, slowly or without end, and clients that say too much.

use super::{Fields, JSON, Stage, TEXT_PLAIN, assert_works, proxy_of, wait_for_metric};
use crate::support::client::Http;
use crate::support::proxy::Proxy;
use crate::support::socket::{Socket, TEXT};
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

#[tokio::test]
async fn a_message_that_fails_closes_its_client() {
    let mut stage = Stage::validated().await;
    let huge = "x".repeat(10_000_000);
    let state = "s".repeat(9000);
    let cases: [(u16, Fields<'_>, &str); 8] = [
        (400, &[TEXT_PLAIN], "no"),
        (401, &[TEXT_PLAIN], ""),
        (500, &[TEXT_PLAIN], "trace"),
        (302, &[("location", "/")], ""),
        (200, &[("content-type", "text/html")], "<p>"),
        (200, &[TEXT_PLAIN], &huge),
        (204, &[("ce-connectionState", &state)], ""),
        (204, &[("ce-connectionState", "a"), ("ce-connectionState", "b")], ""),
    ];
    for (status, fields, body) in cases {
        let mut socket = stage.open(Http::H1, "").await;
        socket.send(TEXT, "x").await;
        let asked = stage.message("x").await;
        socket.send(TEXT, "never sent").await;
        asked.answer(status, fields, body.to_owned());
        assert_eq!(socket.expect_close(1011).await, "the backend failed", "{status} {fields:?}");
        let next = stage.backend.asked().await;
        // An answer over its bound is a failure of the exchange.
        let next = if next.method == "OPTIONS" {
            next.answer(200, &[("webhook-allowed-origin", "*")], "");
            stage.backend.asked().await
        } else {
            next
        };
        assert_eq!((next.field("ce-eventname"), &next.body[..]), ("disconnected", &br#"{"reason":"upstream"}"#[..]));
        next.answer(200, &[], "");
    }
    let mut socket = stage.open(Http::H1, "").await;
    socket.send(TEXT, b"bytes").await;
    stage.message("bytes").await.answer(200, &[TEXT_PLAIN], &b"\xff"[..]);
    socket.expect_close(1011).await;
    stage.disconnected("upstream").await;
    assert_eq!(stage.proxy.logged("bridged backend failed").len(), 9);
}

#[tokio::test]
async fn a_slow_backend_is_given_up() {
    let mut stage = Stage::new().await;
    let opening = Socket::try_open(Http::H1, stage.at(Http::H1), "/slow", &[]);
    let (opened, asked) = tokio::join!(opening, async {
        stage.validate("*").await;
        stage.event("connect").await
    });
    assert_eq!(opened.err().expect("refused").status, 504);
    drop(asked);
    // It may have let the client in.
    stage.validate("*").await;
    stage.disconnected("upstream").await;
    let opening = Socket::open(Http::H1, stage.at(Http::H1), "/slow", &[]);
    let (mut socket, ()) = tokio::join!(opening, async { stage.event("connect").await.answer(200, &[JSON], "") });
    // `connected` is given up, and the message behind it is sent.
    socket.send(TEXT, "x").await;
    let connected = stage.event("connected").await;
    stage.validate("*").await;
    let message = stage.message("x").await;
    socket.expect_close(1011).await;
    drop((connected, message));
    stage.validate("*").await;
    stage.disconnected("upstream").await;
}

#[tokio::test]
async fn a_flood_waits_in_the_client() {
    let mut stage = Stage::validated().await;
    let mut socket = stage.open(Http::H1, "").await;
    socket.send(TEXT, "0").await;
    let first = stage.message("0").await;
    let before_kib = stage.proxy.resident_kib();
    // Far more than the sockets between hold: 400 MB.
    let flood = tokio::spawn(async move {
        let text = "x".repeat(40_000);
        for _ in 0..10_000 {
            if socket.try_send(TEXT, &text).await.is_err() {
                return;
            }
        }
    });
    wait_until_stuck(&stage.proxy).await;
    let grown_kib = stage.proxy.resident_kib().saturating_sub(before_kib);
    assert!(grown_kib < 50_000, "{grown_kib} KiB");
    assert!(stage.backend.is_quiet(), "one event at a time");
    // Others are served meanwhile.
    first.answer(204, &[], "");
    stage.event("message").await.answer(500, &[TEXT_PLAIN], "");
    stage.disconnected("upstream").await;
    flood.abort();
    let mut other = stage.open(Http::H1, "").await;
    assert_works(&mut stage, &mut other).await;
}

/// Waits until the process reads no more: its memory and its CPU stand still.
async fn wait_until_stuck(proxy: &Proxy) {
    let busy = || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", proxy.id())).expect("its status");
        let fields: Vec<u64> =
            stat.rsplit(") ").next().expect("fields").split(' ').filter_map(|f| f.parse().ok()).collect();
        fields[10] + fields[11]
    };
    let mut before = busy();
    for _ in 0..600 {
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        let now = busy();
        if now == before {
            return;
        }
        before = now;
    }
    panic!("the process never rests");
}

#[tokio::test]
async fn broken_answers_close_the_client_and_leak_nothing() {
    let answers: [(&str, Answering); 4] = [
        (
            "cut in the middle",
            Answering::Bytes("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 100\r\n\r\nhal"),
        ),
        ("cut in a chunk", Answering::Bytes("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nff\r\nhal")),
        ("no HTTP", Answering::Bytes("SSH-2.0-hello\r\n")),
        ("endless fields", Answering::EndlessFields),
    ];
    for (what, answering) in answers {
        let mut backend = HostileBackend::start(answering).await;
        let proxy = proxy_of(backend.address);
        let mut socket = Socket::open(Http::H1, proxy.address("http"), "/chat/x", &[]).await;
        socket.send(TEXT, "x").await;
        assert_eq!(socket.expect_close(1011).await, "the backend failed", "{what}");
        for event in ["OPTIONS", "connect", "connected", "message", "OPTIONS", "disconnected"] {
            assert_eq!(backend.told.recv().await.as_deref(), Some(event), "{what}");
        }
        wait_for_metric(&proxy, "pushbridge_hub_sessions_open{transport=\"websocket\"} 0").await;
    }
}

/// What a message is answered by.
#[derive(Debug, Clone, Copy)]
enum Answering {
    Bytes(&'static str),
    EndlessFields,
}

/// A backend that is sockets, so that it can answer what no library would: messages only, all else it takes.
struct HostileBackend {
    address: SocketAddr,
    told: mpsc::UnboundedReceiver<String>,
    accepting: JoinHandle<()>,
}

impl HostileBackend {
    async fn start(answering: Answering) -> Self {
        let socket = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = socket.local_addr().expect("an address");
        let (tell, told) = mpsc::unbounded_channel();
        let accepting = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((tcp, _)) = socket.accept().await {
                connections.spawn(serve(tcp, answering, tell.clone()));
            }
        });
        Self { address, told, accepting }
    }
}

impl Drop for HostileBackend {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn serve(mut tcp: TcpStream, answering: Answering, tell: mpsc::UnboundedSender<String>) {
    const TAKEN: &[u8] = b"HTTP/1.1 200 OK\r\nwebhook-allowed-origin: *\r\ncontent-length: 0\r\n\r\n";
    let mut read = Vec::new();
    loop {
        while request(&read).is_none() {
            if tcp.read_buf(&mut read).await.unwrap_or(0) == 0 {
                return;
            }
        }
        let (name, len) = request(&read).expect("a request");
        read.drain(..len);
        let is_message = name == "message";
        let _ = tell.send(name);
        match answering {
            Answering::Bytes(bytes) if is_message => {
                let _ = tcp.write_all(bytes.as_bytes()).await;
                return;
            }
            Answering::EndlessFields if is_message => {
                let _ = tcp.write_all(b"HTTP/1.1 200 OK\r\n").await;
                while tcp.write_all(b"x-endless: and so on\r\n").await.is_ok() {}
                return;
            }
            _ => {
                if tcp.write_all(TAKEN).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// The event of the first whole request, and its length.
fn request(bytes: &[u8]) -> Option<(String, usize)> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
    let field =
        |name: &str| head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).map(str::to_owned);
    let len: usize = field("content-length").map_or(0, |len| len.parse().expect("a length"));
    let name =
        if head.starts_with("options ") { "OPTIONS".to_owned() } else { field("ce-eventname").expect("an event") };
    (bytes.len() >= end + len).then_some((name, end + len))
}
