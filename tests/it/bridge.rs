//! Bridged WebSockets: clients of both HTTP versions, and a plain backend that the test plays.

mod channels;
mod ends;
mod handshake;
mod hostile;
mod messages;
mod moving;

use crate::support::bridge_backend::{Asked, BridgeBackend};
use crate::support::client::{Http, get, send};
use crate::support::proxy::Proxy;
use crate::support::socket::Socket;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Fields of a request or answer.
type Fields<'a> = &'a [(&'a str, &'a str)];

const ALL: [Http; 4] = [Http::H1, Http::H1Tls, Http::H2c, Http::H2Tls];
const BOTH: [Http; 2] = [Http::H1, Http::H2c];

const YAML: &str = r#"
listeners:
  - { name: http, address: "127.0.0.1:0" }
  - name: https
    address: "127.0.0.1:0"
    tls: { certificates: [{ cert_file: tls.crt, key_file: tls.key }] }
limits: { subscriptions_per_session: 2 }
upstreams:
  plain: { servers: ["http://{backend}"] }
  slow: { servers: ["http://{backend}"], timeouts: { response: 200ms } }
  down: { servers: ["http://127.0.0.1:1"] }
routes:
  - { name: chat, match: { path: "/chat/**" }, websocket: { upstream: plain } }
  - { name: pages, match: { path: /pages }, websocket: { upstream: plain, allowed_origins: ["https://shop.example"] } }
  - { name: pings, match: { path: /pings }, websocket: { upstream: plain, pings: pass } }
  - { name: quick, match: { path: /quick }, websocket: { upstream: plain, keep_alive: 1s } }
  - { name: slow, match: { path: /slow }, websocket: { upstream: slow } }
  - { name: down, match: { path: /down }, websocket: { upstream: down } }
"#;

/// A pushbridge and its backend.
struct Stage {
    proxy: Proxy,
    backend: BridgeBackend,
}

impl Stage {
    async fn new() -> Self {
        Self::on("").await
    }

    /// With more in its configuration, such as a bus.
    async fn on(more: &str) -> Self {
        let backend = BridgeBackend::start().await;
        let folder = tempfile::TempDir::new().expect("a folder");
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        std::fs::write(folder.path().join("tls.crt"), made.cert.pem()).expect("written");
        std::fs::write(folder.path().join("tls.key"), made.signing_key.serialize_pem()).expect("written");
        let proxy =
            Proxy::start_in(folder, &format!("{}{more}", YAML.replace("{backend}", &backend.address.to_string())));
        Self { proxy, backend }
    }

    fn at(&self, http: Http) -> SocketAddr {
        self.proxy.address(match http {
            Http::H1 | Http::H2c => "http",
            Http::H1Tls | Http::H2Tls => "https",
        })
    }

    /// Opens a WebSocket on `/chat/x`; the backend answers OPEN with OPEN and `events`.
    async fn open(&mut self, http: Http, events: &str) -> Socket {
        self.open_on(http, "/chat/x", &[], events).await
    }

    async fn open_on(&mut self, http: Http, path: &str, fields: &[(&str, &str)], events: &str) -> Socket {
        let opening = Socket::open(http, self.at(http), path, fields);
        let (socket, ()) = tokio::join!(opening, async {
            self.backend.expect("OPEN\r\n").await.grip(&format!("OPEN\r\n{events}"));
        });
        socket
    }

    /// Asks for a WebSocket; the backend answers OPEN by `answer`, and the client is refused.
    async fn refused(
        &mut self,
        http: Http,
        path: &str,
        fields: &[(&str, &str)],
        answer: impl FnOnce(Asked),
    ) -> crate::support::client::Answer {
        let opening = Socket::try_open(http, self.at(http), path, fields);
        let (opened, ()) = tokio::join!(opening, async { answer(self.backend.expect("OPEN\r\n").await) });
        opened.err().expect("refused")
    }

    /// Waits until a line of the metrics is there.
    async fn wait_for_metric(&self, line: &str) {
        let admin = self.proxy.address("admin");
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
}

/// What the client says over a WebSocket reaches the backend, and its answer the client.
async fn assert_works(stage: &mut Stage, socket: &mut Socket) {
    socket.send(crate::support::socket::TEXT, "still there?").await;
    stage.backend.expect("TEXT c\r\nstill there?\r\n").await.grip("TEXT 5\r\nm:yes\r\n");
    socket.expect(crate::support::socket::TEXT, "yes").await;
}
