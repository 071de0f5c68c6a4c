//! Holds (GRIP): a plain backend that the test plays, clients of both HTTP versions, and what is published to them.

mod held;
mod hostile;
mod libraries;
mod mixed;
mod polls;
mod publishing;
mod recover;
mod shared;
mod stalled;
mod streams;
mod websockets;

use crate::support::bridge_backend::{Asked, BridgeBackend};
use crate::support::client::{Answer, Http, Stream, get, open, post, send};
use crate::support::metrics;
use crate::support::proxy::Proxy;
use http::Response;
use hyper::body::Incoming;
use serde_json::Value;
use std::net::SocketAddr;

const ALL: [Http; 4] = [Http::H1, Http::H1Tls, Http::H2c, Http::H2Tls];

const YAML: &str = r#"
listeners:
  - { name: http, address: "127.0.0.1:0" }
  - name: https
    address: "127.0.0.1:0"
    tls: { certificates: [{ cert_file: tls.crt, key_file: tls.key }] }
limits: { subscriptions_per_session: 3 }
upstreams:
  plain: { servers: ["http://{backend}"] }
  signed: { servers: ["http://{backend}"], grip: { issuer: edge, key_file: grip.key } }
routes:
  - { name: rooms, match: { path: "/rooms/{room}" }, proxy: { upstream: plain, grip: { channel_prefix: "p-", channels: ["room.{room}"] } } }
  - { name: pushed, match: { path: "/pushed/{channel}" }, push: { channels: ["{channel}"] } }
  - { name: socket, match: { path: /socket }, websocket: { upstream: signed } }
  - { name: bare, match: { path: "/bare/**" }, proxy: { upstream: plain } }
  - { name: app, match: { path: "/**" }, proxy: { upstream: signed, grip: true } }
"#;

/// A pushbridge and its backend.
struct Stage {
    proxy: Proxy,
    backend: BridgeBackend,
}

impl Stage {
    async fn new() -> Self {
        Self::with("").await
    }

    /// With more of the configuration.
    async fn with(more: &str) -> Self {
        let backend = BridgeBackend::start().await;
        let folder = tempfile::TempDir::new().expect("a folder");
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        for (name, text) in [
            ("tls.crt", made.cert.pem()),
            ("tls.key", made.signing_key.serialize_pem()),
            ("grip.key", "changeme".into()),
        ] {
            std::fs::write(folder.path().join(name), text).expect("written");
        }
        let yaml = format!("{YAML}{more}").replace("{backend}", &backend.address.to_string());
        Self { proxy: Proxy::start_in(folder, &yaml), backend }
    }

    fn at(&self, http: Http) -> SocketAddr {
        self.proxy.address(match http {
            Http::H1 | Http::H2c => "http",
            Http::H1Tls | Http::H2Tls => "https",
        })
    }

    /// Asks for `path`; the backend answers by `answer`.
    async fn ask(
        &mut self,
        http: Http,
        path: &str,
        fields: &[(&str, &str)],
        answer: impl FnOnce(Asked),
    ) -> Response<Incoming> {
        let at = self.at(http);
        let asking = open(http, at, get(at, path, fields));
        let (response, ()) = tokio::join!(asking, async { answer(self.backend.asked().await) });
        response
    }

    /// A stream that its backend holds with these fields, and its body; read to the body's end.
    async fn stream(&mut self, http: Http, path: &str, fields: &[(&str, &str)], body: &str) -> Stream {
        let held = [&[("content-type", "text/event-stream"), ("grip-hold", "stream")], fields].concat();
        let response = self.ask(http, path, &[], |asked| asked.answer(200, &held, body.to_owned())).await;
        assert_eq!(response.status(), 200);
        let mut stream = Stream::of(response);
        if !body.is_empty() {
            stream.until(body).await;
        }
        stream
    }

    /// Publishes items.
    async fn publish(&self, items: &Value) -> Answer {
        let at = self.proxy.address("publish");
        let body = serde_json::json!({ "items": items }).to_string();
        let answer = send(Http::H1, at, post(at, "/publish/", &[("accept", "application/json")], body)).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer
    }

    /// Publishes more of a stream.
    async fn send(&self, channel: &str, content: &str) {
        self.publish(&serde_json::json!([{"channel": channel, "http-stream": {"content": content}}])).await;
    }

    /// Publishes more of a stream, with an id.
    async fn send_id(&self, channel: &str, id: &str, prev_id: &str, content: &str) -> Answer {
        let item = serde_json::json!([{
            "channel": channel, "id": id, "prev-id": prev_id, "formats": {"http-stream": {"content": content}}}]);
        self.publish(&item).await
    }

    /// Waits until no session is left, and asserts that nothing is under way.
    async fn is_clean(&self) {
        for transport in ["sse", "long_poll", "websocket"] {
            metrics::reaches(&self.proxy, &format!("pushbridge_hub_sessions_open{{transport=\"{transport}\"}}"), 0.0)
                .await;
        }
    }
}
