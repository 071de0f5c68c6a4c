//! WebSocket clients that come back with their session's token, on the same instance or another.

use crate::support::client::{Http, publish};
use crate::support::figures::{wait_for_close, wait_for_figure};
use crate::support::proxy::Proxy;
use crate::support::redis::Redis;
use crate::support::{wait_for, websocket::WebSocket};
use serde_json::{Value, json};
use tokio::task::spawn_blocking;

const V1: [(&str, &str); 1] = [("sec-websocket-protocol", "pushbridge.v1.json")];

const ROUTES: &str = "
routes:
  - name: events
    match: { path: \"/events/{topic}\" }
    push: { channels: [\"{topic}\"], client_subscribe: [\"open.*\"] }
  - name: others
    match: { path: \"/others/{topic}\" }
    push: { channels: [\"{topic}\"], client_subscribe: [\"open.*\"] }
telemetry: { log: { level: \"info,pushbridge=trace\" }, access_log: true }
";

/// An instance on a Redis, or alone.
fn start(redis: Option<&Redis>, more: &str) -> Proxy {
    let bus = redis.map_or(String::new(), |redis| {
        format!("bus: {{ redis: {{ url: \"redis://127.0.0.1:{}\", prefix: p }} }}\n", redis.port())
    });
    Proxy::start(&format!("{ROUTES}{bus}{more}"))
}

/// Waits until so many clients were lost: their sessions are kept then.
async fn wait_for_gone(proxy: &Proxy, count: f64) {
    let labels = [("transport", "websocket"), ("reason", "client_gone")];
    wait_for_figure(proxy, "pushbridge_hub_sessions_closed_total", &labels, count).await;
}

async fn say(proxy: &Proxy, channel: &str, data: impl Into<Value>) {
    let event = json!({ "channel": channel, "data": data.into() });
    let answer = publish(proxy.address("publish"), &event.to_string()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
}

/// A `pushbridge.v1.json` client's session: its token, whether it was resumed, its channels, and the socket.
struct Session {
    socket: WebSocket,
    token: String,
    resumed: bool,
    channels: Vec<String>,
}

impl Session {
    /// Opens one; `channels` of them are told at its start.
    async fn open(proxy: &Proxy, path: &str, channels: usize) -> Self {
        let mut socket = WebSocket::open(Http::H1, proxy.address("http"), path, &V1).await;
        let welcome = socket.json().await;
        assert_eq!(welcome["type"], "welcome");
        let mut joined = Vec::new();
        for _ in 0..channels {
            let subscribed = socket.json().await;
            assert_eq!(subscribed["type"], "subscribed", "{subscribed}");
            joined.push(subscribed["channel"].as_str().expect("a channel").to_owned());
        }
        let resumed = welcome["resumed"].as_bool().expect("a flag");
        let token = welcome["session"].as_str().expect("a token").to_owned();
        assert_eq!(socket.fields.get("pushbridge-session"), None, "`welcome` tells it");
        Self { socket, token, resumed, channels: joined }
    }

    async fn subscribe(&mut self, channel: &str) {
        let joined = self.socket.command(json!({"type": "subscribe", "channels": [channel]})).await;
        assert_eq!(joined, json!({"type": "subscribed", "channel": channel}));
    }

    /// The data of the next events, in order; their last id.
    async fn take(&mut self, count: usize) -> (Vec<Value>, String) {
        let (mut data, mut id) = (Vec::new(), String::new());
        for _ in 0..count {
            let event = self.socket.json().await;
            assert_eq!(event["type"], "event", "{event}");
            data.push(event["data"].clone());
            id = event["id"].as_str().expect("an id").to_owned();
        }
        (data, id)
    }
}

fn numbers(range: std::ops::Range<u64>) -> Vec<Value> {
    range.map(Value::from).collect()
}

#[tokio::test]
async fn a_client_goes_on_at_another_instance_as_it_was() {
    let redis = Redis::start();
    let (a, b) = (start(Some(&redis), ""), start(Some(&redis), ""));
    let mut session = Session::open(&a, "/events/own", 1).await;
    assert!(!session.resumed);
    session.subscribe("open.a").await;
    for n in 0..10 {
        say(if n % 2 == 0 { &a } else { &b }, if n % 3 == 0 { "own" } else { "open.a" }, n).await;
    }
    let mut seen = session.take(10).await.0;
    seen.sort_by_key(Value::as_u64);
    assert_eq!(seen, numbers(0..10));
    session.socket.vanish();
    wait_for_gone(&a, 1.0).await;
    for n in 10..20 {
        say(&b, "open.a", n).await;
    }
    // Without a cursor: from what was sent last.
    let mut again = Session::open(&b, &format!("/events/own?session={}", session.token), 2).await;
    assert!(again.resumed);
    assert_eq!(again.socket.fields["pushbridge-resumed"], "true");
    assert_eq!(again.channels, ["own", "open.a"]);
    say(&a, "open.a", 20).await;
    assert_eq!(again.take(11).await.0, numbers(10..21));
    assert_ne!(again.token, session.token);
    // A session that left the route's own channel stays without it, and may rejoin it.
    assert_eq!(again.socket.command(json!({"type": "unsubscribe", "channels": ["own"]})).await["type"], "unsubscribed");
    again.socket.vanish();
    wait_for_gone(&b, 1.0).await;
    let mut third = Session::open(&a, &format!("/events/own?session={}", again.token), 1).await;
    assert!(third.resumed);
    assert_eq!(third.channels, ["open.a"]);
    third.subscribe("own").await;
    wait_for_figure(&a, "pushbridge_session_comebacks_total", &[("result", "found")], 1.0).await;
}

#[tokio::test]
async fn a_raw_client_goes_on_by_its_field() {
    let redis = Redis::start();
    let (a, b) = (start(Some(&redis), ""), start(Some(&redis), ""));
    let mut gone = 0.0;
    for http in [Http::H1, Http::H2c] {
        let mut socket = WebSocket::open(http, a.address("http"), "/events/raw", &[]).await;
        let token = socket.fields["pushbridge-session"].to_str().expect("text").to_owned();
        say(&a, "raw", "1").await;
        assert_eq!(socket.text().await, "1");
        socket.vanish();
        gone += 1.0;
        wait_for_gone(&a, gone).await;
        say(&b, "raw", "2").await;
        let path = format!("/events/raw?session={token}");
        let mut again = WebSocket::open(http, b.address("http"), &path, &[]).await;
        assert_eq!(again.fields["pushbridge-resumed"], "true");
        say(&a, "raw", "3").await;
        assert_eq!((again.text().await, again.text().await), ("2".to_owned(), "3".to_owned()));
        again.close().await;
        // The token is used up: what the client has missed is not known, and it can only be told by a close.
        let lost = WebSocket::open(http, a.address("http"), &path, &[]).await;
        assert_eq!(lost.fields["pushbridge-resumed"], "false");
        assert_eq!(lost.closed().await, (4001, "gap".to_owned()));
    }
}

#[tokio::test]
async fn of_clients_with_one_token_one_has_the_session() {
    let redis = Redis::start();
    let (a, b) = (start(Some(&redis), ""), start(Some(&redis), ""));
    for round in 1..=10 {
        let mut session = Session::open(&a, "/events/own", 1).await;
        session.subscribe("open.a").await;
        session.socket.vanish();
        wait_for_gone(&a, f64::from(round)).await;
        let path = format!("/events/own?session={}", session.token);
        let opens = (0..6).map(|n| {
            let (proxy, path) = (if n % 2 == 0 { &a } else { &b }, &path);
            async move {
                let socket = WebSocket::open(Http::H1, proxy.address("http"), path, &V1).await;
                let resumed = socket.fields["pushbridge-resumed"] == "true";
                socket.close().await;
                resumed
            }
        });
        let resumed = futures_util::future::join_all(opens).await;
        assert_eq!(resumed.iter().filter(|resumed| **resumed).count(), 1, "{resumed:?}");
    }
}

#[tokio::test]
async fn a_token_is_bound_to_its_route_and_path() {
    let proxy = start(None, "");
    let mut session = Session::open(&proxy, "/events/own", 1).await;
    say(&proxy, "own", 1).await;
    session.take(1).await;
    session.socket.vanish();
    wait_for_gone(&proxy, 1.0).await;
    for elsewhere in ["/events/other", "/others/own"] {
        let mut other = Session::open(&proxy, &format!("{elsewhere}?session={}", session.token), 1).await;
        assert!(!other.resumed, "{elsewhere}");
        let gap = other.socket.json().await;
        assert_eq!((&gap["type"], &gap["reason"]), (&json!("gap"), &json!("epoch")), "{elsewhere}");
    }
    say(&proxy, "own", 2).await;
    let mut again = Session::open(&proxy, &format!("/events/own?session={}", session.token), 1).await;
    assert!(again.resumed, "it was not used up elsewhere");
    assert_eq!(again.take(1).await.0, [2]);
}

#[tokio::test]
async fn what_was_never_a_token_starts_anew() {
    let proxy = start(None, "");
    say(&proxy, "own", 1).await;
    let long = "x".repeat(4000);
    for guess in ["x", "AAAAAAAAAAAAAAAAAAAAAA", "AAAAAAAAAAAAAAAAAAAAAB", "%ff%fe", "..%2f..", &long] {
        let mut session = Session::open(&proxy, &format!("/events/own?session={guess}"), 1).await;
        assert!(!session.resumed, "{guess}");
        // The client believes that it was here before: what it has missed is a gap, then comes what there is.
        assert_eq!(session.socket.json().await["type"], "gap", "{guess}");
        assert_eq!(session.take(1).await.0, [1]);
    }
    let mut empty = Session::open(&proxy, "/events/own?session=", 1).await;
    say(&proxy, "own", 2).await;
    assert_eq!(empty.take(1).await.0, [2], "none is no guess");
    let labels = [("result", "unknown")];
    wait_for_figure(&proxy, "pushbridge_session_comebacks_total", &labels, 6.0).await;
}

#[tokio::test]
async fn a_token_ends_with_its_time() {
    let redis = Redis::start();
    let proxy = start(Some(&redis), "sessions: { ttl: 1s }\n");
    let session = Session::open(&proxy, "/events/own", 1).await;
    let keys = || redis.cli(&["keys", "p:session:*"]);
    wait_for("the session is kept", || (!keys().is_empty()).then_some(()));
    // It lives: so does its token, for longer than its time.
    let key = keys();
    for _ in 0..150 {
        assert_eq!(keys(), key);
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    session.socket.vanish();
    wait_for("it is forgotten", || keys().is_empty().then_some(()));
    let late = Session::open(&proxy, &format!("/events/own?session={}", session.token), 1).await;
    assert!(!late.resumed);
}

#[tokio::test]
async fn a_client_that_says_good_bye_leaves_no_session() {
    let proxy = start(None, "");
    let session = Session::open(&proxy, "/events/own", 1).await;
    session.socket.close().await;
    wait_for_close(&proxy, "websocket", "done").await;
    let again = Session::open(&proxy, &format!("/events/own?session={}", session.token), 1).await;
    assert!(!again.resumed);
}

#[tokio::test]
async fn a_drained_client_is_at_home_elsewhere_at_once() {
    let redis = Redis::start();
    let (a, b) = (start(Some(&redis), ""), start(Some(&redis), ""));
    let mut sessions = Vec::new();
    for _ in 0..20 {
        let mut session = Session::open(&a, "/events/own", 1).await;
        session.subscribe("open.a").await;
        sessions.push(session);
    }
    say(&a, "open.a", 0).await;
    a.stop();
    for n in 1..6 {
        say(&b, "open.a", n).await;
    }
    for mut session in sessions {
        let mut seen = Vec::new();
        let moved = loop {
            let said = session.socket.json().await;
            match said["type"].as_str() {
                Some("event") => seen.push(said["data"].clone()),
                _ => break said,
            }
        };
        assert_eq!(moved["type"], "reconnect");
        // At once, and without a cursor: it was kept before it was sent away.
        let mut again = Session::open(&b, &format!("/events/own?session={}", session.token), 2).await;
        assert!(again.resumed);
        let rest = 6 - seen.len();
        seen.extend(again.take(rest).await.0);
        assert_eq!(seen, numbers(0..6), "each once");
        again.socket.close().await;
    }
    let ended = spawn_blocking(move || a.wait()).await.expect("waited");
    assert_eq!(ended.code(), Some(0));
}

#[tokio::test]
async fn a_client_of_a_killed_instance_has_its_channels_elsewhere() {
    let redis = Redis::start();
    let (a, b) = (start(Some(&redis), ""), start(Some(&redis), ""));
    let mut session = Session::open(&a, "/events/own", 1).await;
    session.subscribe("open.a").await;
    let kept = || redis.cli(&["get", &redis.cli(&["keys", "p:session:*"])]);
    wait_for("its channels are kept", || kept().contains("open.a").then_some(()));
    for n in 0..5 {
        say(&a, "open.a", n).await;
    }
    let (_, id) = session.take(3).await;
    a.signal("KILL");
    for n in 5..8 {
        say(&b, "open.a", n).await;
    }
    // Its own cursor counts: what was kept is older.
    let path = format!("/events/own?session={}&last_event_id={id}", session.token);
    let mut again = Session::open(&b, &path, 2).await;
    assert!(again.resumed);
    assert_eq!(again.channels, ["own", "open.a"]);
    assert_eq!(again.take(5).await.0, numbers(3..8), "nothing lost, nothing doubled");
}

#[tokio::test]
async fn a_store_that_refuses_is_told_and_the_client_starts_anew() {
    let redis = Redis::start();
    let (a, b) = (start(Some(&redis), ""), start(Some(&redis), ""));
    let mut session = Session::open(&a, "/events/own", 1).await;
    session.subscribe("open.a").await;
    say(&a, "own", 1).await;
    let (_, id) = session.take(1).await;
    session.socket.vanish();
    wait_for_gone(&a, 1.0).await;
    say(&a, "own", 2).await;
    // Channels can be used, sessions can't.
    assert_eq!(redis.cli(&["acl", "setuser", "default", "resetkeys", "~p:{*"]), "OK");
    // The history vouches for what the client says itself.
    let path = format!("/events/own?session={}", session.token);
    let mut known = Session::open(&b, &format!("{path}&last_event_id={id}"), 1).await;
    assert!(!known.resumed, "its other channels are not there");
    assert_eq!(known.take(1).await.0, [2]);
    // Without it nothing is known.
    let mut unknown = Session::open(&b, &path, 1).await;
    assert!(!unknown.resumed);
    assert_eq!(unknown.socket.json().await["type"], "gap");
    assert_eq!(unknown.take(2).await.0, [1, 2]);
    wait_for_figure(&b, "pushbridge_session_comebacks_total", &[("result", "failed")], 2.0).await;
    assert!(b.has_logged("a session could not be looked up, so it starts anew"));
    // The sessions live on all the same; when the store is back, the token was not used up.
    say(&a, "own", 3).await;
    assert_eq!(unknown.take(1).await.0, [3]);
    assert_eq!(redis.cli(&["acl", "setuser", "default", "allkeys"]), "OK");
    let again = Session::open(&a, &path, 2).await;
    assert!(again.resumed);
}

#[tokio::test]
async fn a_refused_request_keeps_its_token() {
    let proxy = start(None, "");
    let session = Session::open(&proxy, "/events/own", 1).await;
    session.socket.vanish();
    wait_for_gone(&proxy, 1.0).await;
    let path = format!("/events/own?session={}", session.token);
    let to = proxy.address("http");
    for (path, fields, status) in [
        (path.clone(), ("sec-websocket-version", "7"), 426),
        (path.clone(), ("origin", "https://evil.example"), 403),
        (format!("{path}&last_event_id=x"), V1[0], 400),
    ] {
        let opened = crate::support::websocket::ask(Http::H1, to, &path, &[fields]).await;
        assert_eq!(opened.status, status);
    }
    assert!(Session::open(&proxy, &path, 1).await.resumed);
}

#[tokio::test]
async fn no_token_is_logged_or_stored_in_the_clear() {
    let redis = Redis::start();
    let proxy = start(Some(&redis), "");
    let session = Session::open(&proxy, "/events/own", 1).await;
    let raw = WebSocket::open(Http::H1, proxy.address("http"), "/events/own", &[]).await;
    let tokens = [session.token.clone(), raw.fields["pushbridge-session"].to_str().expect("text").to_owned()];
    session.socket.vanish();
    raw.vanish();
    wait_for_gone(&proxy, 2.0).await;
    Session::open(&proxy, &format!("/events/own?session={}", tokens[0]), 1).await.socket.close().await;
    Session::open(&proxy, &format!("/events/own?session={}", tokens[1]), 1).await.socket.close().await;
    let stored = redis.cli(&["keys", "*"]);
    assert!(stored.contains("p:session:"));
    let log = proxy.log();
    assert_eq!(spawn_blocking(move || proxy.terminate()).await.expect("waited").code(), Some(0));
    let log = format!("{:?}", log.lock().expect("the log"));
    assert!(log.contains("/events/own"), "requests are logged");
    for token in tokens {
        assert!(!log.contains(&token) && !stored.contains(&token));
    }
}
