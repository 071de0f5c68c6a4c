//! Who is in a channel, over all instances, as the publish listener tells it.

use crate::support::client::{Http, get, publish, send};
use crate::support::proxy::Proxy;
use crate::support::redis::Redis;
use crate::support::websocket::WebSocket;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const ROUTES: &str = "
routes:
  - name: events
    match: { path: \"/events/{topic}\" }
    push: { channels: [\"{topic}\"] }
";

/// How long counts may take to be what they should be; a lease ends in 15 s.
const PATIENCE: Duration = Duration::from_secs(60);

fn start(redis: &Redis) -> Proxy {
    let bus = format!("bus: {{ redis: {{ url: \"redis://127.0.0.1:{}\", prefix: p }} }}\n", redis.port());
    Proxy::start(&format!("{ROUTES}{bus}"))
}

async fn ask(proxy: &Proxy, path: &str) -> (u16, Value) {
    let to = proxy.address("publish");
    let answer = send(Http::H1, to, get(to, path, &[])).await;
    (answer.status.as_u16(), answer.json())
}

async fn sockets(proxy: &Proxy, topic: &str, count: usize) -> Vec<WebSocket> {
    let mut sockets = Vec::new();
    for _ in 0..count {
        sockets.push(WebSocket::open(Http::H1, proxy.address("http"), &format!("/events/{topic}"), &[]).await);
    }
    sockets
}

/// Asks until so many sessions are told.
#[track_caller]
fn until_sessions<'a>(proxy: &'a Proxy, path: &'a str, expected: u64) -> impl Future<Output = Value> + 'a {
    let caller = std::panic::Location::caller();
    async move {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let (status, told) = ask(proxy, path).await;
            assert_eq!(status, 200, "{caller}: {told}");
            if told["sessions"] == expected {
                return told;
            }
            assert!(Instant::now() < deadline, "{caller}: still {told}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

#[tokio::test]
async fn a_channel_is_told_with_its_position_history_and_sessions() {
    let proxy = Proxy::start(ROUTES);
    let (status, empty) = ask(&proxy, "/v1/channels/news").await;
    let nothing = json!({
        "channel": "news", "position": null, "history_messages": 0, "sessions": 0, "instances": 0, "counted_within_ms": 0,
    });
    assert_eq!((status, empty), (200, nothing));
    let held = sockets(&proxy, "news", 3).await;
    let published = publish(proxy.address("publish"), r#"{"channel":"news","data":1}"#).await.json();
    let (_, told) = ask(&proxy, "/v1/channels/news").await;
    assert_eq!(told["position"], published["results"][0]["position"]);
    assert_eq!((&told["history_messages"], &told["sessions"], &told["instances"]), (&json!(1), &json!(3), &json!(1)));
    let (_, presence) = ask(&proxy, "/v1/channels/news/presence").await;
    assert_eq!((&presence["sessions"], &presence["instances"][0]["sessions"]), (&json!(3), &json!(3)));
    assert_eq!(presence["next"], Value::Null);
    for socket in held {
        socket.close().await;
    }
    until_sessions(&proxy, "/v1/channels/news", 0).await;
    // Nobody makes a channel by asking for it, and a name may hold anything printable.
    let (status, slash) = ask(&proxy, "/v1/channels/a%2Fb%20%C3%BC").await;
    assert_eq!((status, &slash["channel"]), (200, &json!("a/b ü")));
}

#[tokio::test]
async fn what_can_not_be_asked_is_refused() {
    let proxy = Proxy::start(ROUTES);
    for (path, status) in [
        ("/v1/channels/", 400),
        ("/v1/channels/%00", 400),
        ("/v1/channels/%ff", 400),
        ("/v1/channels/a/b", 404),
        ("/v1/channels/a/presence?limit=0", 400),
        ("/v1/channels/a/presence?limit=1001", 400),
    ] {
        let (found, problem) = ask(&proxy, path).await;
        assert_eq!((found, &problem["status"]), (status, &json!(status)), "{path}");
    }
    let to = proxy.address("publish");
    let posted = crate::support::client::post(to, "/v1/channels/a", &[], "");
    let refused = send(Http::H1, to, posted).await;
    assert_eq!((refused.status.as_u16(), refused.field("allow")), (405, "GET, HEAD"));
}

#[tokio::test]
async fn who_may_not_publish_may_not_ask() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("token"), "hunter2").expect("written");
    let publish = "publish: { address: \"127.0.0.1:0\", auth: [{ bearer: { token_file: token } }] }\n";
    let proxy = Proxy::start_in(folder, &format!("{ROUTES}\n{publish}"));
    let to = proxy.address("publish");
    for path in ["/v1/channels/a", "/v1/channels/a/presence", "/v1/channels/%00"] {
        assert_eq!(ask(&proxy, path).await.0, 401, "{path}");
        let wrong = get(to, path, &[("authorization", "Bearer hunter3")]);
        assert_eq!(send(Http::H1, to, wrong).await.status, 401, "{path}");
    }
    let allowed = send(Http::H1, to, get(to, "/v1/channels/a", &[("authorization", "Bearer hunter2")])).await;
    assert_eq!((allowed.status.as_u16(), allowed.field("cache-control")), (200, "no-store"));
}

#[tokio::test]
async fn every_instance_counts_all_and_a_killed_one_no_more() {
    let redis = Redis::start();
    let (a, b, c) = (start(&redis), start(&redis), start(&redis));
    let (_on_a, _on_b, _on_c) =
        (sockets(&a, "room", 2).await, sockets(&b, "room", 3).await, sockets(&c, "room", 4).await);
    for proxy in [&a, &b, &c] {
        let told = until_sessions(proxy, "/v1/channels/room/presence", 9).await;
        let mut counts: Vec<_> = told["instances"].as_array().expect("a list").iter().collect();
        assert_eq!(counts.len(), 3);
        counts.sort_by_key(|one| one["sessions"].as_u64());
        assert_eq!(counts.iter().map(|one| one["sessions"].as_u64()).collect::<Vec<_>>(), [Some(2), Some(3), Some(4)]);
        assert!(told["counted_within_ms"].as_u64().is_some_and(|ms| ms >= 15_000));
    }
    // By pages, each once.
    let mut seen = Vec::new();
    let mut after = String::new();
    loop {
        let (_, page) = ask(&a, &format!("/v1/channels/room/presence?limit=1&after={after}")).await;
        let one = page["instances"].as_array().expect("a list");
        assert!(one.len() <= 1);
        seen.extend(one.iter().map(|one| one["sessions"].as_u64().expect("a count")));
        let Some(next) = page["next"].as_str() else { break };
        next.clone_into(&mut after);
    }
    seen.sort_unstable();
    assert_eq!(seen, [2, 3, 4]);
    let killed = Instant::now();
    b.signal("KILL");
    for proxy in [&a, &c] {
        until_sessions(proxy, "/v1/channels/room", 6).await;
    }
    // Within its lease, of 15 s, and no sooner than its connections could tell.
    assert!(killed.elapsed() < PATIENCE);
    // One that ends in order is gone at once, and so are its sessions.
    assert_eq!(tokio::task::spawn_blocking(move || c.terminate()).await.expect("waited").code(), Some(0));
    let (_, told) = ask(&a, "/v1/channels/room").await;
    assert_eq!(told["sessions"], 2);
}

#[tokio::test]
async fn while_the_bus_is_down_nothing_is_told() {
    let mut redis = Redis::start();
    let proxy = start(&redis);
    let _held = sockets(&proxy, "room", 1).await;
    until_sessions(&proxy, "/v1/channels/room", 1).await;
    redis.kill();
    let deadline = Instant::now() + PATIENCE;
    while ask(&proxy, "/v1/channels/room").await.0 != 503 {
        assert!(Instant::now() < deadline, "it is told still");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    redis.restart();
    let deadline = Instant::now() + PATIENCE;
    while ask(&proxy, "/v1/channels/room").await.0 != 200 {
        assert!(Instant::now() < deadline, "it is not told again");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    until_sessions(&proxy, "/v1/channels/room", 1).await;
}
