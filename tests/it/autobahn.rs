//! The Autobahn TestSuite's WebSocket cases, driven by kosoku, against a `websocket` route whose backend echoes.
//!
//! `scripts/autobahn` installs kosoku and runs this. Cases with messages over a megabyte are left out: an answer of a
//! backend may not be that large (docs/websocket-over-http.md). Compression (12, 13) is not negotiated.

use crate::support::proxy::Proxy;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use tokio::net::TcpListener;
use tokio::process::Command;

const KOSOKU: &str = "target/autobahn/venv/bin/kosoku";
const REPORT: &str = "target/autobahn/report";
const LEFT_OUT: [&str; 14] = [
    "9.1.3", "9.1.4", "9.1.5", "9.1.6", "9.2.3", "9.2.4", "9.2.5", "9.2.6", "9.3.*", "9.4.*", "9.5.*", "9.6.*", "12.*",
    "13.*",
];

#[tokio::test]
#[ignore = "takes a tool from PyPI; run scripts/autobahn"]
async fn the_autobahn_cases_pass() {
    assert!(Path::new(KOSOKU).exists(), "{KOSOKU} is missing; run scripts/autobahn, which installs it");
    let backend = start_echo().await;
    let proxy = Proxy::start(&format!(
        "
upstreams: {{ echo: {{ servers: [\"http://{backend}\"] }} }}
routes:
  - name: echo
    match: {{ path: \"/**\" }}
    websocket: {{ upstream: echo, max_message: 1MiB, allowed_origins: [\"*\"] }}
"
    ));
    let address = format!("ws://{}", proxy.address("http"));
    let mut kosoku = Command::new(KOSOKU);
    kosoku.args(["-p", "4", "-o", REPORT, &address]).args(LEFT_OUT.iter().flat_map(|case| ["-x", case]));
    let ran = kosoku.output().await.expect("kosoku runs");
    let index = std::fs::read(format!("{REPORT}/index.json"));
    let index = index.unwrap_or_else(|error| panic!("{error}; {}", String::from_utf8_lossy(&ran.stderr)));
    let index: Value = serde_json::from_slice(&index).expect("JSON");
    let cases = index.as_object().and_then(|agents| agents.values().next()).and_then(Value::as_object);
    let cases = cases.expect("the cases of one server");
    let bad = cases.iter().filter(|(_, case)| !is_good(&case["behavior"]) || !is_good(&case["behaviorClose"]));
    let bad: Vec<_> = bad.map(|(id, case)| format!("{id}: {} / {}", case["behavior"], case["behaviorClose"])).collect();
    assert!(bad.is_empty(), "see {REPORT}/index.html:\n  {}", bad.join("\n  "));
    assert!(cases.len() >= 240, "only {} cases were run", cases.len());
}

fn is_good(behavior: &Value) -> bool {
    matches!(behavior.as_str(), Some("OK" | "NON-STRICT" | "INFORMATIONAL"))
}

/// A backend whose answer has the events that it was sent.
async fn start_echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a socket");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            tokio::spawn(
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(tcp), service_fn(echo)),
            );
        }
    });
    address
}

async fn echo(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    // A connection that is gone expects nothing.
    let answer = if body.ends_with(b"DISCONNECT\r\n") { Bytes::new() } else { body };
    let response = Response::builder().header("content-type", "application/websocket-events");
    Ok(response.body(Full::new(answer)).expect("a response"))
}
