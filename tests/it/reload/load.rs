//! Five hundred reloads while sessions are open, messages are published and requests are proxied.

use super::{Pair, SSE, TLS, metric, reload, shown};
use crate::support::client::{Http, Stream, dial, get, open, publish, send, within};
use crate::support::named_backend::Backend;
use crate::support::proxy::Proxy;
use futures_util::StreamExt as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::Duration;
use tempfile::TempDir;
use tokio::task::JoinHandle;

const RELOADS: usize = 500;
/// When memory counts as warmed up.
const WARM: usize = 100;
/// What allocators and histories may still take after that.
const GROWTH_KIB_MAX: u64 = 8 * 1024;
const END: &str = "end";

/// The configuration before reload number `n`: what is asked for stays, what stands beside it comes, goes and changes.
fn yaml(backend: &Backend, n: usize) -> String {
    let url = backend.url();
    let mut text = format!(
        "{TLS}
limits: {{ connections: {limit} }}
channels: [{{ match: events, history: {{ messages: 5000 }} }}, {{ match: '**', history: {{ messages: {history} }} }}]
upstreams:
  app: {{ servers: ['{url}'] }}
  beside-{beside}: {{ servers: ['{url}'] }}
routes:
",
        limit = 10_000 + n,
        history = 1 + n,
        beside = n % 3,
    );
    if !n.is_multiple_of(2) {
        text +=
            &format!("  - {{ name: flap-{0}, match: {{ path: /flap/{n} }}, push: {{ channels: [flap] }} }}\n", n % 7);
    }
    text + &format!(
        "  - {{ name: events, match: {{ path: /events }}, push: {{ channels: [events], keep_alive: {}s }} }}\n  \
           - {{ name: app, match: {{ path: /app }}, proxy: {{ upstream: app }} }}\n  \
           - {{ name: beside, match: {{ path: /beside }}, proxy: {{ upstream: beside-{} }} }}\n",
        5 + n % 20,
        n % 3
    )
}

/// Follows an event stream to the end marker; how many numbers it had, each one after the other from 0 on.
async fn event_stream(http: Http, to: SocketAddr) -> JoinHandle<u64> {
    let mut stream = Stream::of(open(http, to, get(to, "/events", &SSE)).await);
    stream.until("\n\n").await;
    tokio::spawn(async move {
        let mut next = 0;
        loop {
            let event = stream.until("\n\n").await;
            let Some((_, data)) = event.trim_end().rsplit_once("data: ") else { continue };
            if data == END {
                return next;
            }
            assert_eq!(data, next.to_string(), "{http:?}");
            next += 1;
        }
    })
}

/// As [`event_stream`], over a WebSocket.
async fn websocket(to: SocketAddr) -> JoinHandle<u64> {
    let opened = tokio_tungstenite::client_async(format!("ws://{to}/events"), dial(to).await);
    let (mut socket, _) = within("a WebSocket", opened).await.expect("a WebSocket");
    tokio::spawn(async move {
        let mut next = 0;
        loop {
            let message = within("a message", socket.next()).await.expect("an open WebSocket").expect("a message");
            if !message.is_text() {
                continue;
            }
            let data = message.to_text().expect("text");
            if data == END {
                return next;
            }
            assert_eq!(data, next.to_string());
            next += 1;
        }
    })
}

/// Sends requests to a proxied route until told to stop; how many were answered.
fn requests(http: Http, to: SocketAddr, stopped: &Arc<AtomicBool>) -> JoinHandle<u64> {
    let stopped = Arc::clone(stopped);
    tokio::spawn(async move {
        let mut answered = 0;
        while !stopped.load(SeqCst) {
            let answer = send(http, to, get(to, "/app", &[])).await;
            assert_eq!((answer.status.as_u16(), answer.text()), (200, "app"), "{http:?}");
            answered += 1;
        }
        answered
    })
}

/// Publishes numbers until told to stop, then the end marker.
fn publisher(at: SocketAddr, stopped: &Arc<AtomicBool>, published: &Arc<AtomicU64>) -> JoinHandle<()> {
    let (stopped, published) = (Arc::clone(stopped), Arc::clone(published));
    tokio::spawn(async move {
        while !stopped.load(SeqCst) {
            let n = published.load(SeqCst);
            let answer = publish(at, &format!(r#"{{"channel":"events","data":"{n}"}}"#)).await;
            assert_eq!(answer.status, 200, "{}", answer.text());
            published.fetch_add(1, SeqCst);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        publish(at, &format!(r#"{{"channel":"events","data":"{END}"}}"#)).await;
    })
}

#[tokio::test]
async fn five_hundred_reloads_lose_nothing() {
    let backend = Backend::start("app").await;
    let pairs = [Pair::new(), Pair::new(), Pair::new()];
    let folder = TempDir::new().expect("a folder");
    pairs[0].write(folder.path());
    let proxy = Proxy::start_in(folder, &yaml(&backend, 0));
    let (http, https) = (proxy.address("http"), proxy.address("https"));
    let mut sessions = Vec::new();
    for (version, to) in [(Http::H1, http), (Http::H2c, http), (Http::H1Tls, https), (Http::H2Tls, https)] {
        for _ in 0..5 {
            sessions.push(event_stream(version, to).await);
        }
    }
    for _ in 0..10 {
        sessions.push(websocket(http).await);
    }
    let (stopped, published) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let asking = [requests(Http::H1, http, &stopped), requests(Http::H2Tls, https, &stopped)];
    let publishing = publisher(proxy.address("publish"), &stopped, &published);
    let mut warm_kib = 0;
    for n in 1..=RELOADS {
        let pair = &pairs[n % pairs.len()];
        pair.write(proxy.folder());
        proxy.rewrite(&yaml(&backend, n));
        let (status, json) = reload(&proxy).await;
        assert_eq!(status, 200, "reload {n}: {json}");
        if n.is_multiple_of(20) {
            assert_eq!(shown(&proxy).await, pair.der, "reload {n}");
        }
        if n == WARM {
            warm_kib = proxy.resident_kib();
        }
    }
    let end_kib = proxy.resident_kib();
    stopped.store(true, SeqCst);
    within("the publisher", publishing).await.expect("every publish was answered");
    let total = published.load(SeqCst);
    assert!(total > 100, "only {total} messages were published");
    for session in sessions {
        assert_eq!(within("a session's end", session).await.expect("a whole session"), total);
    }
    for one in asking {
        assert!(within("a client's end", one).await.expect("no request failed") > 50);
    }
    let applied = metric(&proxy, "pushbridge_config_reloads_total{result=\"applied\"}").await;
    assert!(applied >= RELOADS as f64, "{applied} were applied");
    assert!(end_kib < warm_kib + GROWTH_KIB_MAX, "memory grew from {warm_kib} KiB to {end_kib} KiB");
}
