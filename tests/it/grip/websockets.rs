//! Bridged WebSockets that are published to by GRIP items.

use super::Stage;
use crate::support::bridge_backend::{control, event};
use crate::support::client::{Http, publish};
use crate::support::metrics;
use crate::support::socket::{BINARY, PING, PONG, Socket, TEXT};
use serde_json::json;

impl Stage {
    /// A WebSocket whose backend answers OPEN with these events.
    async fn socket(&mut self, http: Http, events: &str) -> Socket {
        let opening = Socket::open(http, self.at(http), "/socket", &[("grip-sig", "forged")]);
        let (socket, ()) = tokio::join!(opening, async {
            let asked = self.backend.expect("OPEN\r\n").await;
            let key = pushbridge::upstream::signature::Key::parse(b"changeme").expect("a key");
            assert!(key.verify(asked.field("grip-sig"), 1).is_ok(), "{}", asked.field("grip-sig"));
            asked.grip(&format!("OPEN\r\n{events}"));
        });
        socket
    }
}

fn subscribe(filters: &[&str]) -> String {
    control(&json!({"type": "subscribe", "channel": "a", "filters": filters}).to_string())
}

#[tokio::test]
async fn items_reach_the_client_as_frames() {
    let mut stage = Stage::new().await;
    for http in [Http::H1, Http::H1Tls, Http::H2c, Http::H2Tls] {
        let mut socket = stage.socket(http, &subscribe(&[])).await;
        stage
            .publish(&json!([
                {"channel": "a", "ws-message": {"content": "text"}},
                {"channel": "a", "http-stream": {"content": "not for sockets"}},
                {"channel": "a", "formats": {"ws-message": {"type": "binary", "content-bin": "AP8="}}},
                {"channel": "a", "ws-message": {"type": "ping", "content": "p"}},
                {"channel": "a", "ws-message": {"type": "pong", "content": "q"}},
            ]))
            .await;
        publish(stage.proxy.address("publish"), r#"{"channel":"a","data":"native"}"#).await;
        socket.expect(TEXT, "text").await;
        socket.expect(BINARY, [0, 255]).await;
        socket.expect(PING, "p").await;
        socket.expect(PONG, "q").await;
        socket.expect(TEXT, "native").await;
        stage.publish(&json!([{"channel": "a", "ws-message": {"action": "refresh"}}])).await;
        stage.backend.expect("").await.grip(&event("TEXT", "m:fresh"));
        socket.expect(TEXT, "fresh").await;
        stage
            .publish(&json!([{"channel": "a", "ws-message": {"action": "close", "code": "1001", "reason": "bye"}}]))
            .await;
        assert_eq!(socket.expect_close(1001).await, "bye");
        stage.backend.expect("DISCONNECT\r\n").await.grip("");
    }
    metrics::reaches(&stage.proxy, "pushbridge_grip_dropped_total{reason=\"no_form\"}", 4.0).await;
    stage.is_clean().await;
}

#[tokio::test]
async fn filters_and_meta_choose_what_a_client_gets() {
    let mut stage = Stage::new().await;
    let meta = |user: &str| control(&json!({"type": "set-meta", "name": "user", "value": user}).to_string());
    let mut bob = stage.socket(Http::H1, &[meta("bob"), subscribe(&["skip-self", "var-subst"])].concat()).await;
    let mut eve = stage.socket(Http::H2c, &[meta("eve"), subscribe(&["skip-users"])].concat()).await;
    stage
        .publish(&json!([
            {"channel": "a", "meta": {"sender": "bob"}, "ws-message": {"content": "from bob"}},
            {"channel": "a", "meta": {"skip_users": "eve, ann"}, "ws-message": {"content": "hi %(user)s"}},
            {"channel": "a", "ws-message": {"content": "all"}},
        ]))
        .await;
    bob.expect(TEXT, "hi bob").await;
    bob.expect(TEXT, "all").await;
    eve.expect(TEXT, "from bob").await;
    eve.expect(TEXT, "all").await;
    metrics::reaches(&stage.proxy, "pushbridge_grip_dropped_total{reason=\"skip_self\"}", 1.0).await;
    metrics::reaches(&stage.proxy, "pushbridge_grip_dropped_total{reason=\"skip_users\"}", 1.0).await;
}
