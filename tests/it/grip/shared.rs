//! Two instances on one bus: an item that is published to one reaches what another holds.

use super::Stage;
use crate::support::client::Http;
use crate::support::nats_server::NatsServer;
use crate::support::redis::Redis;
use serde_json::json;

/// Each instance has a backend of its own, which holds what that instance asks for.
async fn items_reach_the_other_instance(bus: &str) {
    let bus = format!("bus: {{ {bus} }}\n");
    let (mut holding, other) = tokio::join!(Stage::with(&bus), Stage::with(&bus));
    let mut stream = holding.stream(Http::H1, "/stream", &[("grip-channel", "c")], "data: 0\n\n").await;
    let mut events = holding.stream(Http::H2c, "/more", &[("grip-channel", "c")], "data: 0\n\n").await;
    other.send_id("c", "1", "", "data: 1\n\n").await;
    // It came too early, and nobody here listens: what is missing may be waited for elsewhere.
    other.send_id("c", "3", "2", "data: 3\n\n").await;
    other.send_id("c", "2", "1", "data: 2\n\n").await;
    let form = json!([{"channel": "c", "ws-message": {"content": "no stream's"}}]);
    other.publish(&form).await;
    other.send("c", "data: last\n\n").await;
    for stream in [&mut stream, &mut events] {
        assert_eq!(stream.until("last\n\n").await, "data: 1\n\ndata: 2\n\ndata: 3\n\ndata: last\n\n");
    }
    other.publish(&json!([{"channel": "c", "formats": {"http-stream": {"action": "close"}}}])).await;
    assert_eq!(stream.rest().await, "");
    holding.is_clean().await;
}

#[tokio::test]
async fn over_redis_items_reach_the_other_instance() {
    let redis = Redis::start();
    items_reach_the_other_instance(&format!("redis: {{ url: \"redis://127.0.0.1:{}\" }}", redis.port())).await;
}

#[tokio::test]
async fn over_nats_items_reach_the_other_instance() {
    let nats = NatsServer::start();
    items_reach_the_other_instance(&format!("nats: {{ url: \"nats://{}\" }}", nats.address())).await;
}
