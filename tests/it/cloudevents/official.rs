//! The event handler of the service's own server library (`@azure/web-pubsub-express`), unchanged, under Node.

use super::proxy_of;
use crate::support::client::{Http, within};
use crate::support::socket::{BINARY, Socket, TEXT};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Stdio;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

const SERVER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/cloudevents/express/server.js");
const MODULES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/test-tools/express/node_modules");

/// The handler's process; killed when dropped.
struct Handler {
    lines: Lines<BufReader<ChildStdout>>,
    port: u16,
    _child: Child,
}

impl Handler {
    async fn start() -> Self {
        let is_there = Path::new(MODULES).exists();
        assert!(is_there, "{MODULES} is missing; `make test` installs it (scripts/install-test-tools)");
        let mut child = Command::new("node")
            .arg(SERVER)
            .env("NODE_PATH", MODULES)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("node runs; `make test` installs it");
        let lines = BufReader::new(child.stdout.take().expect("its output is piped")).lines();
        let mut handler = Self { lines, port: 0, _child: child };
        handler.port = handler.told().await["port"].as_u64().and_then(|port| port.try_into().ok()).expect("a port");
        handler
    }

    /// What the handler was told next.
    async fn told(&mut self) -> Value {
        let line = within("the handler is told", self.lines.next_line()).await.expect("output").expect("a line");
        serde_json::from_str(&line).expect("JSON")
    }
}

#[tokio::test]
async fn the_services_own_event_handler_works_unchanged() {
    let mut handler = Handler::start().await;
    let proxy = proxy_of(([127, 0, 0, 1], handler.port).into());
    let to = proxy.address("http");
    for http in [Http::H1, Http::H2c] {
        let refused = Socket::try_open(http, to, "/chat/x", &[]).await.err().expect("refused");
        assert_eq!((refused.status.as_u16(), refused.text()), (401, "who are you?"));
        let offer = [("sec-websocket-protocol", "mine, other")];
        let mut socket = Socket::open(http, to, "/chat/x?user=bob", &offer).await;
        assert_eq!(socket.fields["sec-websocket-protocol"], "mine");
        assert_eq!(handler.told().await, json!({ "connected": "bob" }));
        socket.send(TEXT, "hello").await;
        socket.expect(TEXT, "bob said hello (1)").await;
        socket.send(BINARY, b"\x01\x02\xff").await;
        socket.expect(BINARY, b"\xff\x02\x01").await;
        socket.send(TEXT, "nothing").await;
        socket.send(TEXT, "json").await;
        socket.expect(TEXT, r#"{"user":"bob","said":4}"#).await;
        for channel in ["room", "chat.user.bob"] {
            let event = json!({ "channel": channel, "data": channel }).to_string();
            let answer = crate::support::client::publish(proxy.address("publish"), &event).await;
            assert_eq!(answer.json()["results"][0]["local_sessions"], 1);
            socket.expect(TEXT, channel).await;
        }
        socket.close(1000, "").await;
        socket.expect_close_after_own(1000).await;
        assert_eq!(handler.told().await, json!({ "disconnected": "bob", "reason": "done", "said": 4 }));
        let mut socket = Socket::open(http, to, "/chat/x?user=eve", &[]).await;
        assert_eq!(handler.told().await, json!({ "connected": "eve" }));
        socket.send(TEXT, "fail").await;
        socket.expect_close(1011).await;
        assert_eq!(handler.told().await, json!({ "disconnected": "eve", "reason": "upstream", "said": 0 }));
    }
}

#[tokio::test]
async fn the_library_allows_the_origins_that_its_user_named() {
    let handler = Handler::start().await;
    let proxy = proxy_of(([127, 0, 0, 1], handler.port).into());
    // This route says that its events are from `pushbridge`.
    let refused = Socket::try_open(Http::H1, proxy.address("http"), "/slow", &[]).await.err().expect("refused");
    assert_eq!(refused.status, 502);
}
