//! Hot reload: what changes, what goes on, and what a broken file does not do.

mod broken;
mod load;
mod volume;

use crate::support::client::{Http, Stream, dial_tls, get, open, post, publish, send, within};
use crate::support::named_backend::Backend;
use crate::support::proxy::Proxy;
use crate::support::wait_for;
use crate::support::websocket::WebSocket;
use std::net::SocketAddr;
use std::path::Path;
use tempfile::TempDir;

const SSE: [(&str, &str); 1] = [("accept", "text/event-stream")];
const ROUTE: &str =
    "\nroutes:\n  - { name: events, match: { path: /events }, push: { channels: [events], transports: [sse] } }\n";

/// What `POST /reload` answers: status and JSON.
async fn reload(proxy: &Proxy) -> (u16, serde_json::Value) {
    let admin = proxy.address("admin");
    let answer = send(Http::H1, admin, post(admin, "/reload", &[], "")).await;
    (answer.status.as_u16(), answer.json())
}

/// The value of a metric, named with its labels.
async fn metric(proxy: &Proxy, name: &str) -> f64 {
    let admin = proxy.address("admin");
    let page = send(Http::H1, admin, get(admin, "/metrics", &[])).await;
    let value = page.text().lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
    value.unwrap_or_else(|| panic!("no {name} in {}", page.text()))
}

async fn readiness(proxy: &Proxy) -> u16 {
    let admin = proxy.address("admin");
    send(Http::H1, admin, get(admin, "/readyz", &[])).await.status.as_u16()
}

/// A certificate and its key, as PEM.
struct Pair {
    cert: String,
    key: String,
    der: Vec<u8>,
}

impl Pair {
    fn new() -> Self {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        let der = made.cert.der().to_vec();
        Self { cert: made.cert.pem(), key: made.signing_key.serialize_pem(), der }
    }

    fn write(&self, folder: &Path) {
        std::fs::write(folder.join("tls.crt"), &self.cert).expect("written");
        std::fs::write(folder.join("tls.key"), &self.key).expect("written");
    }
}

const TLS: &str = "listeners:
  - { name: http, address: '127.0.0.1:0' }
  - name: https
    address: '127.0.0.1:0'
    tls: { certificates: [{ cert_file: tls.crt, key_file: tls.key }] }
";

/// The certificate that a new handshake is shown.
async fn shown(proxy: &Proxy) -> Vec<u8> {
    let tls = dial_tls(proxy.address("https"), b"http/1.1", "localhost").await;
    let (_, session) = tls.get_ref();
    session.peer_certificates().and_then(|chain| chain.first()).expect("a certificate").to_vec()
}

#[tokio::test]
async fn sessions_of_a_removed_route_end_and_others_go_on() {
    let other = "  - { name: other, match: { path: /other }, push: { channels: [other] } }\n";
    let proxy = Proxy::start(&format!("{ROUTE}{other}"));
    let (http, at) = (proxy.address("http"), proxy.address("publish"));
    let mut stays = Stream::of(open(Http::H1, http, get(http, "/events", &SSE)).await);
    stays.until("\n\n").await;
    let mut goes = Stream::of(open(Http::H2c, http, get(http, "/other", &SSE)).await);
    goes.until("\n\n").await;
    let socket = WebSocket::open(Http::H1, http, "/other", &[]).await;
    proxy.rewrite(ROUTE);
    assert_eq!(reload(&proxy).await.0, 200);
    assert_eq!(goes.rest().await, "", "a clean end");
    assert_eq!(socket.closed().await.0, 4404);
    publish(at, r#"{"channel":"events","data":"still here"}"#).await;
    stays.until("data: still here\n").await;
}

#[tokio::test]
async fn a_changed_file_comes_into_force_by_itself_and_sessions_go_on() {
    let proxy = Proxy::start(ROUTE);
    let http = proxy.address("http");
    let mut stream = Stream::of(open(Http::H1, http, get(http, "/events", &SSE)).await);
    stream.until("\n\n").await;
    let more = "  - { name: more, match: { path: /more }, push: { channels: [more], transports: [sse] } }\n";
    proxy.rewrite(&format!("{ROUTE}{more}"));
    wait_for("the reload", || (!proxy.logged("configuration reloaded").is_empty()).then_some(()));
    let line = &proxy.logged("configuration reloaded")[0];
    assert_eq!((&line["changes"], &line["trigger"]), (&"route more added".into(), &"files".into()));
    assert_eq!(open(Http::H1, http, get(http, "/more", &SSE)).await.status(), 200);
    publish(proxy.address("publish"), r#"{"channel":"events","data":"still here"}"#).await;
    assert!(stream.until("\n\n").await.ends_with("data: still here\n\n"));
    assert_eq!(metric(&proxy, "pushbridge_config_reloads_total{result=\"applied\"}").await, 1.0);
    assert_eq!(metric(&proxy, "pushbridge_gateway_requests_total{route=\"more\",status_class=\"5xx\"}").await, 0.0);
}

#[tokio::test]
async fn a_request_reloads_and_tells_what_changed() {
    let proxy = Proxy::start(ROUTE);
    let admin = proxy.address("admin");
    let (status, json) = reload(&proxy).await;
    assert_eq!((status, &json["result"]), (200, &"unchanged".into()));
    let hash = json["hash"].as_str().expect("a hash").to_owned();
    assert_eq!(metric(&proxy, &format!("pushbridge_config_info{{hash=\"{hash}\"}}")).await, 1.0);
    proxy.rewrite(&ROUTE.replace("path: /events", "path: /other"));
    let (status, json) = reload(&proxy).await;
    let keys = serde_json::json!([{ "key": "match.path", "old": "/events", "new": "/other" }]);
    let changes = serde_json::json!([{ "what": "route", "name": "events", "change": "changed", "keys": keys }]);
    assert_eq!((status, &json["result"], &json["changes"]), (200, &"applied".into(), &changes));
    assert_ne!(json["hash"], hash);
    let from_page = [("origin", "http://127.0.0.1:9901")];
    assert_eq!(send(Http::H1, admin, post(admin, "/reload", &from_page, "")).await.status, 403);
    let rebound = [("host", "evil.example")];
    assert_eq!(send(Http::H1, admin, post(admin, "/reload", &rebound, "")).await.status, 403);
    assert_eq!(send(Http::H1, admin, get(admin, "/reload", &[])).await.status, 405);
}

#[tokio::test]
async fn a_hangup_reloads_at_once() {
    let proxy = Proxy::start(ROUTE);
    proxy.signal("HUP");
    let message = "configuration is what runs already";
    wait_for("an answer to SIGHUP", || (!proxy.logged(message).is_empty()).then_some(()));
    assert_eq!(proxy.logged(message)[0]["trigger"], "SIGHUP");
}

#[tokio::test]
async fn listeners_come_and_go_while_their_connections_go_on() {
    // 127.0.0.2 is loopback, too: the publish listener moves with the last change.
    let listeners = |names: &[&str]| {
        let list: Vec<_> = names.iter().map(|name| format!("{{ name: {name}, address: '127.0.0.1:0' }}")).collect();
        let publish = if names.contains(&"one") { "127.0.0.1:0" } else { "127.0.0.2:0" };
        format!("listeners: [{}]\n{ROUTE}\npublish: {{ address: '{publish}' }}\n", list.join(", "))
    };
    let proxy = Proxy::start(&listeners(&["one"]));
    let one = proxy.address("one");
    let mut stream = Stream::of(open(Http::H1, one, get(one, "/events", &SSE)).await);
    stream.until("\n\n").await;
    proxy.rewrite(&listeners(&["one", "two"]));
    assert_eq!(reload(&proxy).await.0, 200);
    let latest = |name: &str| -> SocketAddr {
        let lines = proxy.logged("listening");
        let line = lines.iter().rfind(|line| line["listener"] == name).expect("a line");
        line["address"].as_str().expect("an address").parse().expect("an address")
    };
    let is_logged = |message: &str, name: &str| proxy.logged(message).iter().any(|line| line["listener"] == name);
    wait_for("the second listener", || is_logged("listening", "two").then_some(()));
    let two = latest("two");
    assert_eq!(open(Http::H2c, two, get(two, "/events", &SSE)).await.status(), 200);
    proxy.rewrite(&listeners(&["two"]));
    assert_eq!(reload(&proxy).await.0, 200);
    wait_for("the end of the first listener", || is_logged("no longer listening", "one").then_some(()));
    for gone in [one, proxy.address("publish")] {
        wait_for("the end of a listener", || std::net::TcpStream::connect(gone).is_err().then_some(()));
    }
    publish(latest("publish"), r#"{"channel":"events","data":"on"}"#).await;
    assert!(stream.until("\n\n").await.ends_with("data: on\n\n"));
    assert_eq!(open(Http::H1, two, get(two, "/events", &SSE)).await.status(), 200);
}

#[tokio::test]
async fn a_new_handshake_is_shown_the_new_certificate_at_once() {
    let (first, second) = (Pair::new(), Pair::new());
    let folder = TempDir::new().expect("a folder");
    first.write(folder.path());
    let proxy = Proxy::start_in(folder, &format!("{TLS}{ROUTE}"));
    let https = proxy.address("https");
    assert_eq!(shown(&proxy).await, first.der);
    let mut stream = Stream::of(open(Http::H2Tls, https, get(https, "/events", &SSE)).await);
    stream.until("\n\n").await;
    second.write(proxy.folder());
    let (status, json) = reload(&proxy).await;
    assert_eq!((status, &json["changes"][0]["what"]), (200, &"listener".into()), "{json}");
    for _ in 0..8 {
        assert_eq!(shown(&proxy).await, second.der);
    }
    publish(proxy.address("publish"), r#"{"channel":"events","data":"on"}"#).await;
    assert!(stream.until("\n\n").await.ends_with("data: on\n\n"));
}

#[tokio::test]
async fn a_request_in_flight_finishes_on_the_old_upstream() {
    let (old, new) = (Backend::held("old").await, Backend::start("new").await);
    let yaml = |backend: &Backend| {
        format!(
            "upstreams: {{ app: {{ servers: ['{}'] }} }}\nroutes: [{{ name: all, match: {{}}, proxy: {{ upstream: app }} }}]\n",
            backend.url()
        )
    };
    let proxy = Proxy::start(&yaml(&old));
    let http = proxy.address("http");
    let slow = tokio::spawn(async move { send(Http::H1, http, get(http, "/", &[])).await });
    within("a request at the backend", async {
        while old.arrived() == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    proxy.rewrite(&yaml(&new));
    assert_eq!(reload(&proxy).await.0, 200);
    assert_eq!(send(Http::H1, http, get(http, "/", &[])).await.text(), "new");
    old.release();
    let slow = slow.await.expect("an answer");
    assert_eq!((slow.status.as_u16(), slow.text()), (200, "old"));
}

#[tokio::test]
async fn limits_logs_and_publishers_follow_the_file() {
    let folder = TempDir::new().expect("a folder");
    std::fs::write(folder.path().join("token"), "one").expect("written");
    let yaml = |rest: &str| {
        format!("{ROUTE}\npublish: {{ address: '127.0.0.1:0', auth: [{{ bearer: {{ token_file: token }} }}] }}\n{rest}")
    };
    let proxy = Proxy::start_in(folder, &yaml(""));
    let (http, at) = (proxy.address("http"), proxy.address("publish"));
    let publish = |token: &'static str| async move {
        let fields = [("content-type", "application/json"), ("authorization", token)];
        let event = r#"{"channel":"events","data":1}"#;
        send(Http::H1, at, post(at, "/v1/events", &fields, event)).await.status.as_u16()
    };
    assert_eq!(publish("Bearer one").await, 200);
    std::fs::write(proxy.folder().join("token"), "two").expect("written");
    proxy.rewrite(&yaml("telemetry: { access_log: false }\nlimits: { connections: 1 }\n"));
    let (status, json) = reload(&proxy).await;
    assert_eq!(status, 200, "{json}");
    assert!(!json.to_string().contains("two"), "a secret is shown: {json}");
    assert_eq!((publish("Bearer one").await, publish("Bearer two").await), (401, 200));
    let _held = open(Http::H1, http, get(http, "/events", &SSE)).await;
    assert_eq!(send(Http::H1, http, get(http, "/events", &SSE)).await.status, 503);
    proxy.signal("HUP");
    let last = "configuration is what runs already";
    wait_for("a last line", || (!proxy.logged(last).is_empty()).then_some(()));
    assert_eq!(proxy.logged("request").len(), 0, "the access log is off");
}
