//! WebSockets whose backend gets CloudEvents: clients of both HTTP versions, backends that the test plays, and the
//! event handler of the service's own server library.

mod ends;
mod handshake;
mod hostile;
mod messages;
mod official;

use crate::support::bridge_backend::{Asked, BridgeBackend};
use crate::support::client::{Answer, Http, get, publish, send};
use crate::support::proxy::Proxy;
use crate::support::socket::{Socket, TEXT};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Fields of an answer.
type Fields<'a> = &'a [(&'a str, &'a str)];

const ALL: [Http; 4] = [Http::H1, Http::H1Tls, Http::H2c, Http::H2Tls];

const TEXT_PLAIN: (&str, &str) = ("content-type", "text/plain");
const JSON: (&str, &str) = ("content-type", "application/json");

// One worker, so that each URL is asked once.
const YAML: &str = r#"
listeners:
  - { name: http, address: "127.0.0.1:0" }
  - name: https
    address: "127.0.0.1:0"
    tls: { certificates: [{ cert_file: tls.crt, key_file: tls.key }] }
limits: { subscriptions_per_session: 4 }
runtime: { workers: 1 }
upstreams:
  plain: { servers: ["http://{backend}"], grip: { issuer: edge, key_file: grip.key } }
  slow: { servers: ["http://{backend}"], timeouts: { response: 200ms } }
  down: { servers: ["http://127.0.0.1:1"] }
routes:
  - name: chat
    match: { path: "/chat/**" }
    websocket:
      upstream: plain
      protocol: cloudevents
      cloudevents: { origin: push.example, key_file: first, secondary_key_file: second }
  - name: events
    match: { path: /events }
    websocket:
      upstream: plain
      protocol: cloudevents
      max_message: 1MiB
      cloudevents: { hub: other, path: "/{hub}/{event}?code=1" }
  - { name: slow, match: { path: /slow }, websocket: { upstream: slow, protocol: cloudevents } }
  - { name: down, match: { path: /down }, websocket: { upstream: down, protocol: cloudevents } }
"#;

/// A pushbridge in front of a backend.
fn proxy_of(backend: SocketAddr) -> Proxy {
    let folder = tempfile::TempDir::new().expect("a folder");
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    std::fs::write(folder.path().join("tls.crt"), made.cert.pem()).expect("written");
    std::fs::write(folder.path().join("tls.key"), made.signing_key.serialize_pem()).expect("written");
    std::fs::write(folder.path().join("first"), "Jefe\n").expect("written");
    std::fs::write(folder.path().join("second"), "other").expect("written");
    std::fs::write(folder.path().join("grip.key"), "changeme").expect("written");
    Proxy::start_in(folder, &YAML.replace("{backend}", &backend.to_string()))
}

/// A pushbridge and its backend.
struct Stage {
    proxy: Proxy,
    backend: BridgeBackend,
}

impl Stage {
    async fn new() -> Self {
        let backend = BridgeBackend::start().await;
        Self { proxy: proxy_of(backend.address), backend }
    }

    /// One whose backend was asked whether it takes the events of `/chat/**`, and does.
    async fn validated() -> Self {
        let mut stage = Self::new().await;
        let opening = Socket::try_open(Http::H1, stage.at(Http::H1), "/chat/x", &[]);
        let (refused, ()) = tokio::join!(opening, async {
            stage.validate("*").await;
            stage.event("connect").await.answer(403, &[TEXT_PLAIN], "");
        });
        assert_eq!(refused.err().expect("refused").status, 403);
        stage
    }

    fn at(&self, http: Http) -> SocketAddr {
        self.proxy.address(match http {
            Http::H1 | Http::H2c => "http",
            Http::H1Tls | Http::H2Tls => "https",
        })
    }

    /// The backend is asked whether it takes events, and allows an origin.
    async fn validate(&mut self, origin: &str) {
        let asked = self.backend.asked().await;
        assert_eq!(asked.method, "OPTIONS");
        speaks_no_grip(&asked);
        asked.answer(200, &[TEXT_PLAIN, ("webhook-allowed-origin", origin)], "");
    }

    /// The next request, which must be this event.
    #[track_caller]
    fn event<'a>(&'a mut self, name: &'a str) -> impl Future<Output = Asked> + 'a {
        let caller = std::panic::Location::caller();
        async move {
            let asked = self.backend.asked().await;
            assert_eq!((asked.method.as_str(), asked.field("ce-eventname")), ("POST", name), "at {caller}");
            speaks_no_grip(&asked);
            asked
        }
    }

    /// The next request, which must be a text message.
    #[track_caller]
    fn message<'a>(&'a mut self, text: &'a str) -> impl Future<Output = Asked> + 'a {
        let caller = std::panic::Location::caller();
        let event = self.event("message");
        async move {
            let asked = event.await;
            assert_eq!(String::from_utf8_lossy(&asked.body), text, "at {caller}");
            assert_eq!(asked.field("content-type"), "text/plain; charset=utf-8");
            asked
        }
    }

    /// The end of a connection, which must have this reason.
    #[track_caller]
    fn disconnected<'a>(&'a mut self, reason: &'a str) -> impl Future<Output = ()> + 'a {
        let caller = std::panic::Location::caller();
        let event = self.event("disconnected");
        async move {
            let asked = event.await;
            let body: Value = serde_json::from_slice(&asked.body).expect("JSON");
            assert_eq!(body, json!({ "reason": reason }), "at {caller}");
            asked.answer(200, &[TEXT_PLAIN], "");
        }
    }

    /// Opens a WebSocket on `/chat/x`; the backend answers `connect` by this, and takes `connected`.
    async fn open(&mut self, http: Http, answer: &str) -> Socket {
        let opening = Socket::open(http, self.at(http), "/chat/x", &[]);
        let (socket, ()) = tokio::join!(opening, async {
            self.event("connect").await.answer(200, &[JSON], answer.to_owned());
        });
        self.event("connected").await.answer(200, &[TEXT_PLAIN], "");
        socket
    }

    /// Asks for a WebSocket; the backend answers `connect`, and the client is refused.
    async fn refused(&mut self, fields: &[(&str, &str)], answer: impl FnOnce(Asked)) -> Answer {
        let opening = Socket::try_open(Http::H1, self.at(Http::H1), "/chat/x", fields);
        let (opened, ()) = tokio::join!(opening, async { answer(self.event("connect").await) });
        opened.err().expect("refused")
    }

    /// Publishes, and gives how many sessions it went to.
    async fn publish(&self, channel: &str, data: &str) -> u64 {
        let event = json!({ "channel": channel, "data": data }).to_string();
        let answer = publish(self.proxy.address("publish"), &event).await;
        answer.json()["results"][0]["local_sessions"].as_u64().expect("a count")
    }
}

/// The upstream's key is for GRIP: no request of this protocol is signed with it, or says that GRIP is spoken.
#[track_caller]
fn speaks_no_grip(asked: &Asked) {
    assert_eq!((asked.field("grip-sig"), asked.field("grip-feature")), ("", ""), "{}", asked.method);
}

/// Waits until a line of the metrics is there.
async fn wait_for_metric(proxy: &Proxy, line: &str) {
    let admin = proxy.address("admin");
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        let answer = send(Http::H1, admin, get(admin, "/metrics", &[])).await;
        if answer.text().lines().any(|found| found == line) {
            return;
        }
        let name = line.split(['{', ' ']).next().expect("a name");
        let lines: Vec<_> = answer.text().lines().filter(|found| found.starts_with(name)).collect();
        assert!(Instant::now() < until, "no {line}; there is {lines:#?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// What the client says reaches the backend, and its answer the client.
async fn assert_works(stage: &mut Stage, socket: &mut Socket) {
    socket.send(TEXT, "still there?").await;
    stage.message("still there?").await.answer(200, &[TEXT_PLAIN], "yes");
    socket.expect(TEXT, "yes").await;
}
