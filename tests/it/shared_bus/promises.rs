//! What instances promise on whatever bus they share.

use super::crowd::{Crowd, Publisher};
use super::{all, instance_on, metric, until_readiness};
use crate::support::client::{Http, post, publish, send};
use crate::support::metrics;
use crate::support::proxy::Proxy;
use crate::support::websocket::WebSocket;
use serde_json::json;
use std::time::Duration;

/// How long a bus stands still.
const STANDSTILL: Duration = Duration::from_secs(20);
/// How often somebody tries to publish meanwhile.
const TRY_EVERY: Duration = Duration::from_millis(250);

/// So many instances on one bus, all of them ready.
pub async fn instances_on(bus: &str, count: usize) -> Vec<Proxy> {
    let fleet = futures_util::future::join_all((0..count).map(|_| instance_on(bus))).await;
    for instance in &fleet {
        until_readiness(instance, "ready").await;
    }
    fleet
}

/// What is published on any instance, `count` messages, is seen on all in order.
pub async fn all_see_all_in_order(fleet: &[Proxy], count: u64) {
    let crowd = Crowd::gather(&all(fleet, "http"), "c", 4 * fleet.len()).await;
    let mut publisher = Publisher::new(all(fleet, "publish"), "c");
    publisher.publish(count).await;
    assert_eq!(publisher.refused(), 0);
    crowd.check_whole(publisher.last()).await;
}

/// An id is known on every instance; the position of its message.
pub async fn an_id_counts_everywhere(fleet: &[Proxy]) -> String {
    let event = r#"{"channel":"c","id":"1","data":"x"}"#;
    let [first, again] = [0, 1].map(|n: usize| fleet[n].address("publish"));
    let (first, again) = (publish(first, event).await.json(), publish(again, event).await.json());
    assert_eq!(first["results"][0]["duplicate"], false);
    let position = &first["results"][0]["position"];
    assert_eq!((&again["results"][0]["duplicate"], &again["results"][0]["position"]), (&json!(true), position));
    position.as_str().expect("a position").to_owned()
}

/// Of two publishes at once, on two instances, with the same condition one wins; the other is told where the channel is.
pub async fn one_condition_wins(fleet: &[Proxy], position: &str) {
    let conditional = async |instance: &Proxy| {
        let at = instance.address("publish");
        let fields = [("content-type", "application/json"), ("if-match", position)];
        send(Http::H1, at, post(at, "/v1/events", &fields, r#"{"channel":"c","data":"y"}"#)).await
    };
    let (one, other) = tokio::join!(conditional(&fleet[0]), conditional(&fleet[1]));
    let mut statuses = [one.status.as_u16(), other.status.as_u16()];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 412]);
    let (won, lost) = if one.status == 200 { (one.json(), other.json()) } else { (other.json(), one.json()) };
    assert_eq!(lost["position"], won["results"][0]["position"]);
}

/// While the bus is lost, every instance says so and takes nothing.
pub async fn all_refuse_while_it_is_lost(fleet: &[Proxy]) {
    for instance in fleet {
        until_readiness(instance, "degraded").await;
        let answer = publish(instance.address("publish"), r#"{"channel":"c","data":"refused"}"#).await;
        assert_eq!((answer.status.as_u16(), answer.field("retry-after")), (503, "1"));
        assert_eq!(metric(instance, "pushbridge_bus_connected").await, 0.0);
    }
}

/// Once the bus is back, every instance says so; the loss was told once.
pub async fn all_are_back(fleet: &[Proxy]) {
    for instance in fleet {
        until_readiness(instance, "ready").await;
        assert_eq!(instance.logged("bus lost; publishes are refused until it is back").len(), 1);
    }
}

/// The bus stands still, from now on for so long: all notice, and refuse until it goes on.
pub async fn all_refuse_while_it_stands_still(fleet: &[Proxy]) {
    // It is what the test does to the bus, and no wait for something.
    let over = tokio::time::Instant::now() + STANDSTILL;
    all_refuse_while_it_is_lost(fleet).await;
    while tokio::time::Instant::now() < over {
        for instance in fleet {
            let answer = publish(instance.address("publish"), r#"{"channel":"c","data":"refused"}"#).await;
            assert_eq!(answer.status, 503, "{}", answer.text());
        }
        tokio::time::sleep(TRY_EVERY).await;
    }
    all_refuse_while_it_is_lost(fleet).await;
}

/// The first WebSocket of a fleet is lost on one instance and goes on at another, once. Its channel has no history: how much
/// of one had been sent when the loss was noticed would depend on speed.
pub async fn a_session_moves(fleet: &[Proxy]) {
    const LOST: &str = "pushbridge_hub_sessions_closed_total{transport=\"websocket\",reason=\"client_gone\"}";
    const V1: [(&str, &str); 1] = [("sec-websocket-protocol", "pushbridge.v1.json")];
    let [a, b] = [0, 1].map(|n: usize| fleet[n].address("http"));
    let mut on_a = WebSocket::open(Http::H1, a, "/events/moving", &V1).await;
    let welcome = on_a.json().await;
    let token = welcome["session"].as_str().expect("a token").to_owned();
    assert_eq!(on_a.json().await["type"], "subscribed");
    on_a.vanish();
    // Until then it would be sent to nobody.
    metrics::reaches(&fleet[0], LOST, 1.0).await;
    let missed = publish(fleet[1].address("publish"), r#"{"channel":"moving","data":"missed"}"#).await;
    assert_eq!(missed.status, 200, "{}", missed.text());
    let path = format!("/events/moving?session={token}");
    let mut on_b = WebSocket::open(Http::H1, b, &path, &V1).await;
    assert_eq!(on_b.json().await["resumed"], true);
    assert_eq!(on_b.json().await["type"], "subscribed");
    assert_eq!(on_b.json().await["data"], "missed");
    // Its token was used up.
    let mut again = WebSocket::open(Http::H1, a, &path, &V1).await;
    assert_eq!(again.json().await["resumed"], false);
}

/// A condition is refused by name, where the bus can't check any.
pub async fn a_condition_is_refused(fleet: &[Proxy], position: &str) {
    let a = fleet[0].address("publish");
    let fields = [("content-type", "application/json"), ("if-match", position)];
    let refused = send(Http::H1, a, post(a, "/v1/events", &fields, r#"{"channel":"c","data":"y"}"#)).await;
    assert_eq!(refused.status, 501, "{}", refused.text());
    assert_eq!(refused.field("content-type"), "application/problem+json");
    assert!(refused.text().contains("condition"), "{}", refused.text());
}
