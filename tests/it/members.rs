//! Which users are on a channel, over all instances, and joins and leaves as messages.

use crate::support::bridge_backend::{BridgeBackend, control};
use crate::support::client::{Http, Stream, get, open, send};
use crate::support::figures::wait_for_figure;
use crate::support::kafka::Kafka;
use crate::support::nats_server::NatsServer;
use crate::support::proxy::Proxy;
use crate::support::redis::Redis;
use crate::support::socket::Socket;
use crate::support::websocket::WebSocket;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const YAML: &str = r#"
listeners: [{ name: http, address: "127.0.0.1:0" }]
upstreams: { plain: { servers: ["http://{backend}"] } }
routes:
  - { name: pushed, match: { path: "/pushed/{channel}" }, push: { channels: ["{channel}"] } }
  - { name: socket, match: { path: /socket }, websocket: { upstream: plain } }
  - { name: app, match: { path: "/**" }, proxy: { upstream: plain, grip: true } }
channels:
  - { match: "quiet", presence: members }
  - { match: "room", presence: { leave_after: 2s } }
  - { match: "slow", presence: { leave_after: 60s } }
drain: { settle: 0s, spread: 0s }
"#;

const V1: [(&str, &str); 1] = [("sec-websocket-protocol", "pushbridge.v1.json")];
/// How long anything may take; a lease ends in 20 s.
const PATIENCE: Duration = Duration::from_secs(90);

/// A pushbridge and its backend.
struct Stage {
    proxy: Proxy,
    backend: BridgeBackend,
}

impl Stage {
    async fn on(bus: &str) -> Self {
        let backend = BridgeBackend::start().await;
        let yaml = format!("{YAML}bus: {{ {bus} }}\n").replace("{backend}", &backend.address.to_string());
        Self { proxy: Proxy::start(&yaml), backend }
    }

    /// An event stream that the backend holds on a channel, for a user.
    async fn stream(&mut self, channel: &str, user: &str) -> Stream {
        let at = self.proxy.address("http");
        let meta = format!("user=\"{user}\"");
        let fields = [
            ("content-type", "text/event-stream"),
            ("grip-hold", "stream"),
            ("grip-channel", channel),
            ("grip-set-meta", meta.as_str()),
        ];
        let asking = open(Http::H2c, at, get(at, "/stream", &[]));
        let (response, ()) = tokio::join!(asking, async {
            self.backend.asked().await.answer(200, &fields, "data: hello\n\n");
        });
        let mut stream = Stream::of(response);
        stream.until("hello\n\n").await;
        stream
    }

    /// A WebSocket that the backend puts on a channel, for a user.
    async fn socket(&mut self, channel: &str, user: &str) -> Socket {
        let opening = Socket::open(Http::H1, self.proxy.address("http"), "/socket", &[]);
        let (socket, ()) = tokio::join!(opening, async {
            let asked = self.backend.expect("OPEN\r\n").await;
            let subscribe = control(&json!({ "type": "subscribe", "channel": channel }).to_string());
            let fields = [("sec-websocket-extensions", "grip"), ("set-meta-user", user)];
            asked.answer(200, &fields, format!("OPEN\r\n{subscribe}"));
        });
        socket
    }

    /// A push client of a channel, from a cursor if there is one.
    async fn listener(&self, channel: &str, cursor: &str) -> Listener {
        let path = match cursor {
            "" => format!("/pushed/{channel}"),
            cursor => format!("/pushed/{channel}?last_event_id={cursor}"),
        };
        let mut socket = WebSocket::open(Http::H1, self.proxy.address("http"), &path, &V1).await;
        let welcome = socket.json().await;
        assert_eq!(socket.json().await["type"], "subscribed");
        Listener { socket, cursor: welcome["cursor"].as_str().expect("a cursor").to_owned() }
    }

    async fn presence(&self, path: &str) -> Value {
        let to = self.proxy.address("publish");
        let answer = send(Http::H1, to, get(to, &format!("/v1/channels/{path}"), &[])).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    }

    /// Waits until these users are told, with their sessions.
    #[track_caller]
    fn until_members<'a>(&'a self, channel: &'a str, expected: &'a [(&str, u64)]) -> impl Future<Output = Value> + 'a {
        let caller = std::panic::Location::caller();
        async move {
            let deadline = Instant::now() + PATIENCE;
            loop {
                let told = self.presence(&format!("{channel}/presence")).await;
                let members = told["members"].as_array().expect("members");
                let found: Vec<_> = members
                    .iter()
                    .map(|one| (one["user"].as_str().expect("a user"), one["sessions"].as_u64().expect("a count")))
                    .collect();
                if found == expected {
                    assert_eq!(told["users"], expected.len());
                    return told;
                }
                assert!(Instant::now() < deadline, "{caller}: still {told}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

/// A push client that hears of joins and leaves.
struct Listener {
    socket: WebSocket,
    cursor: String,
}

impl Listener {
    /// The next event.
    async fn next(&mut self) -> (String, String) {
        let event = tokio::time::timeout(PATIENCE, async {
            loop {
                let said = self.socket.any().await;
                if let Ok(text) = said.to_text()
                    && let Ok(event) = serde_json::from_str::<Value>(text)
                {
                    return event;
                }
            }
        });
        let event = event.await.expect("an event in time");
        assert_eq!(event["type"], "event", "{event}");
        self.cursor = event["id"].as_str().expect("a cursor").to_owned();
        let user = event["data"]["user"].as_str().unwrap_or_default();
        (event["event"].as_str().unwrap_or_default().to_owned(), user.to_owned())
    }

    #[track_caller]
    fn expect<'a>(&'a mut self, event: &'a str, user: &'a str) -> impl Future<Output = ()> + 'a {
        let caller = std::panic::Location::caller();
        async move {
            let found = self.next().await;
            assert_eq!((found.0.as_str(), found.1.as_str()), (event, user), "{caller}");
        }
    }
}

fn on(redis: &Redis) -> String {
    format!("redis: {{ url: \"redis://127.0.0.1:{}\", prefix: p }}", redis.port())
}

#[tokio::test]
async fn users_are_told_by_name_with_their_sessions() {
    let mut stage = Stage::on("memory: {}").await;
    let _bob = (stage.stream("quiet", "bob").await, stage.socket("quiet", "bob").await);
    let eve = stage.socket("quiet", "eve ü").await;
    let anonymous = stage.listener("quiet", "").await;
    let told = stage.until_members("quiet", &[("bob", 2), ("eve ü", 1)]).await;
    assert_eq!(told["sessions"], 4, "who has no name is counted");
    let bob = &told["members"][0];
    assert_eq!(bob["instances"].as_array().map(Vec::len), Some(1));
    assert!(bob["since_ms"].as_u64().is_some_and(|since_ms| since_ms > 1_700_000_000_000), "{bob}");
    assert_eq!(told["members_within_ms"], 20_000);
    // By pages.
    let first = stage.presence("quiet/presence?limit=1").await;
    assert_eq!(
        (&first["members"][0]["user"], &first["next"], &first["users"]),
        (&json!("bob"), &json!("bob"), &json!(2))
    );
    let second = stage.presence("quiet/presence?limit=1&after=bob").await;
    assert_eq!((&second["members"][0]["user"], &second["next"]), (&json!("eve ü"), &Value::Null));
    let none = stage.presence("quiet/presence?after=eve%20%C3%BC").await;
    assert_eq!(none["members"], json!([]));
    // A channel that does not know its members says nothing of them.
    let other = stage.presence("other/presence").await;
    assert_eq!((other.get("members"), &other["sessions"]), (None, &json!(0)));
    drop(eve);
    stage.backend.expect("DISCONNECT\r\n").await.grip("");
    stage.until_members("quiet", &[("bob", 2)]).await;
    wait_for_figure(&stage.proxy, "pushbridge_presence_users", &[], 1.0).await;
    // Nothing was published.
    let told = stage.presence("quiet").await;
    assert_eq!((&told["position"], &told["history_messages"]), (&Value::Null, &json!(0)));
    drop(anonymous);
}

#[tokio::test]
async fn joins_and_leaves_are_messages_of_the_channel() {
    let mut stage = Stage::on("memory: {}").await;
    let mut listener = stage.listener("room", "").await;
    let start = listener.cursor.clone();
    let bob = stage.stream("room", "bob").await;
    listener.expect("presence.join", "bob").await;
    let eve = stage.socket("room", "eve").await;
    listener.expect("presence.join", "eve").await;
    // A second session is no second join, and that the first ends no leave.
    let again = stage.stream("room", "bob").await;
    drop(bob);
    stage.until_members("room", &[("bob", 1), ("eve", 1)]).await;
    drop(eve);
    stage.backend.expect("DISCONNECT\r\n").await.grip("");
    listener.expect("presence.leave", "eve").await;
    drop(again);
    listener.expect("presence.leave", "bob").await;
    // They are history as any other message is.
    let mut late = stage.listener("room", &start).await;
    for (event, user) in [("join", "bob"), ("join", "eve"), ("leave", "eve"), ("leave", "bob")] {
        late.expect(&format!("presence.{event}"), user).await;
    }
    for (event, count) in [("join", 2.0), ("leave", 2.0)] {
        wait_for_figure(&stage.proxy, "pushbridge_presence_announced_total", &[("event", event)], count).await;
    }
    // Others on a stream see them as events.
    let mut eve = stage.stream("room", "eve").await;
    let seen = eve.until("}\n\n").await;
    assert!(seen.starts_with("event: presence.join\ndata: {\"") && seen.contains("\"user\":\"eve\""), "{seen}");
}

#[tokio::test]
async fn a_user_who_changes_its_name_is_another() {
    let mut stage = Stage::on("memory: {}").await;
    let mut listener = stage.listener("room", "").await;
    let mut socket = stage.socket("room", "bob").await;
    listener.expect("presence.join", "bob").await;
    socket.send(crate::support::socket::TEXT, "i am eve").await;
    let asked = stage.backend.expect("TEXT 8\r\ni am eve\r\n").await;
    asked.answer(200, &[("sec-websocket-extensions", "grip"), ("set-meta-user", "eve")], "TEXT 4\r\nm:ok\r\n");
    listener.expect("presence.join", "eve").await;
    listener.expect("presence.leave", "bob").await;
    stage.until_members("room", &[("eve", 1)]).await;
}

#[tokio::test]
async fn a_killed_instances_users_leave_once_and_nobody_is_announced_twice() {
    let redis = Redis::start();
    let (mut a, mut b, c) = (Stage::on(&on(&redis)).await, Stage::on(&on(&redis)).await, Stage::on(&on(&redis)).await);
    let mut listeners = [a.listener("room", "").await, b.listener("room", "").await, c.listener("room", "").await];
    let _bob = b.socket("room", "bob").await;
    let mut joined = Vec::new();
    listeners[1].expect("presence.join", "bob").await;
    // On both, and one of them is killed: she stays.
    let (_here, _there) = (a.stream("room", "eve").await, b.stream("room", "eve").await);
    listeners[1].expect("presence.join", "eve").await;
    for stage in [&a, &b, &c] {
        let told = stage.until_members("room", &[("bob", 1), ("eve", 2)]).await;
        assert_eq!(told["members"][1]["instances"].as_array().map(Vec::len), Some(2));
    }
    b.proxy.signal("KILL");
    for at in [0, 2] {
        for expected in [("join", "bob"), ("join", "eve"), ("leave", "bob")] {
            listeners[at].expect(&format!("presence.{}", expected.0), expected.1).await;
        }
        joined.push(listeners[at].cursor.clone());
    }
    assert_eq!(joined[0], joined[1], "it is one message");
    for stage in [&a, &c] {
        stage.until_members("room", &[("eve", 1)]).await;
    }
    drop(_here);
    for at in [0, 2] {
        listeners[at].expect("presence.leave", "eve").await;
    }
    assert_eq!(a.presence("room").await["history_messages"], 4);
}

#[tokio::test]
async fn a_rolling_deploy_is_no_leave() {
    let redis = Redis::start();
    let mut old = Stage::on(&on(&redis)).await;
    let mut listener = old.listener("slow", "").await;
    let mut socket = old.socket("slow", "bob").await;
    assert!(socket.next().await.is_some(), "its own join");
    listener.expect("presence.join", "bob").await;
    let mut cursor = listener.cursor.clone();
    let mut held = (socket, listener);
    for _ in 0..2 {
        let mut new = Stage::on(&on(&redis)).await;
        let Stage { proxy, mut backend } = old;
        let (status, ()) = tokio::join!(tokio::task::spawn_blocking(move || proxy.terminate()), async {
            held.0.expect_close(1012).await;
            backend.expect("DISCONNECT\r\n").await.grip("");
        });
        assert_eq!(status.expect("waited").code(), Some(0));
        let listener = new.listener("slow", &cursor).await;
        let socket = new.socket("slow", "bob").await;
        new.until_members("slow", &[("bob", 1)]).await;
        cursor.clone_from(&listener.cursor);
        held = (socket, listener);
        old = new;
    }
    // Somebody else, whose join comes after whatever there was to say of the first.
    let _eve = old.stream("slow", "eve").await;
    held.1.expect("presence.join", "eve").await;
    assert_eq!(old.presence("slow").await["history_messages"], 2);
}

/// Whatever the bus is.
async fn two_instances_know_each_others_users(bus: &str) {
    let (mut a, mut b) = tokio::join!(Stage::on(bus), Stage::on(bus));
    let mut listener = a.listener("room", "").await;
    let bob = b.stream("room", "bob").await;
    listener.expect("presence.join", "bob").await;
    let eve = a.stream("room", "eve").await;
    listener.expect("presence.join", "eve").await;
    for stage in [&a, &b] {
        stage.until_members("room", &[("bob", 1), ("eve", 1)]).await;
    }
    drop(bob);
    listener.expect("presence.leave", "bob").await;
    b.until_members("room", &[("eve", 1)]).await;
    drop(eve);
    listener.expect("presence.leave", "eve").await;
}

#[tokio::test]
async fn over_nats_two_instances_know_each_others_users() {
    let nats = NatsServer::start();
    two_instances_know_each_others_users(&format!("nats: {{ url: \"nats://{}\" }}", nats.address())).await;
}

#[tokio::test]
async fn over_kafka_two_instances_know_each_others_users() {
    let kafka = Kafka::start();
    two_instances_know_each_others_users(&format!("kafka: {{ brokers: [\"{}\"] }}", kafka.address())).await;
}

#[tokio::test]
async fn while_the_bus_is_away_nobody_leaves_and_then_all_is_known_again() {
    let mut redis = Redis::with(&["--appendonly", "yes", "--appendfsync", "always"]);
    let (mut a, mut b) = (Stage::on(&on(&redis)).await, Stage::on(&on(&redis)).await);
    let mut listener = a.listener("room", "").await;
    let (_bob, eve) = (a.stream("room", "bob").await, b.stream("room", "eve").await);
    a.until_members("room", &[("bob", 1), ("eve", 1)]).await;
    for _ in 0..2 {
        listener.next().await;
    }
    redis.kill();
    wait_for_figure(&a.proxy, "pushbridge_bus_connected", &[], 0.0).await;
    wait_for_figure(&b.proxy, "pushbridge_bus_connected", &[], 0.0).await;
    drop(eve);
    redis.restart();
    listener.expect("presence.leave", "eve").await;
    for stage in [&a, &b] {
        stage.until_members("room", &[("bob", 1)]).await;
    }
    assert_eq!(a.presence("room").await["history_messages"], 3);
}
