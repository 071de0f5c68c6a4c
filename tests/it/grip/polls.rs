//! Held responses: what releases them, and what they are then.

use super::{ALL, Stage};
use crate::support::client::{Answer, Http, get, publish, send, within};
use crate::support::metrics;
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

impl Stage {
    /// A held response: the client waits when this returns.
    async fn poll(&mut self, http: Http, fields: &[(&str, &str)], body: &str) -> tokio::task::JoinHandle<Answer> {
        let at = self.at(http);
        let before = metrics::value(&self.proxy, "pushbridge_hub_sessions_opened_total{transport=\"long_poll\"}").await;
        let polling = tokio::spawn(send(http, at, get(at, "/poll?x", &[("cookie", "a=1")])));
        let held = [&[("grip-hold", "response")], fields].concat();
        self.backend.asked().await.answer(200, &held, body.to_owned());
        metrics::reaches(&self.proxy, "pushbridge_hub_sessions_opened_total{transport=\"long_poll\"}", before + 1.0)
            .await;
        polling
    }
}

#[tokio::test]
async fn what_is_published_is_the_response() {
    let mut stage = Stage::new().await;
    for http in ALL {
        let fields = [
            ("content-type", "application/json"),
            ("grip-channel", "a, b"),
            ("grip-expose-headers", "content-type, x-kept"),
            ("x-kept", "1"),
            ("x-own", "2"),
        ];
        let polling = stage.poll(http, &fields, "{}").await;
        let response = json!({"code": 201, "headers": {"X-More": "3"}, "body": "[1]"});
        stage
            .publish(&json!([
                {"channel": "b", "http-stream": {"content": "not for polls"}},
                {"channel": "b", "http-response": response},
            ]))
            .await;
        let answer = polling.await.expect("an answer");
        assert_eq!((answer.status.as_u16(), answer.text()), (201, "[1]"));
        let fields = ["content-type", "x-kept", "x-more", "x-own"].map(|name| answer.field(name));
        assert_eq!(fields, ["application/json", "1", "3", ""]);
    }
    let polling =
        stage.poll(Http::H1, &[("grip-channel", "a"), ("content-type", "application/json")], r#"{"n":1}"#).await;
    let patch = json!([{"op": "add", "path": "/m", "value": 2}]);
    stage.publish(&json!([{"channel": "a", "http-response": {"body-patch": patch}}])).await;
    assert_eq!(polling.await.expect("an answer").json(), json!({"n": 1, "m": 2}));
    let polling = stage.poll(Http::H1, &[("grip-channel", "a"), ("content-type", "text/plain")], "").await;
    publish(stage.proxy.address("publish"), r#"{"channel":"a","data":{"n":1}}"#).await;
    let answer = polling.await.expect("an answer");
    assert_eq!(
        (answer.status.as_u16(), answer.text(), answer.field("content-type")),
        (200, r#"{"n":1}"#, "text/plain")
    );
    stage.is_clean().await;
}

#[tokio::test]
async fn when_its_time_is_over_a_held_response_is_its_own() {
    let mut stage = Stage::new().await;
    let fields = [("grip-channel", "a"), ("grip-timeout", "1"), ("grip-status", "304"), ("etag", "\"1\"")];
    let polling = stage.poll(Http::H2c, &fields, "").await;
    let answer = polling.await.expect("an answer");
    assert_eq!((answer.status.as_u16(), answer.field("etag"), answer.body.len()), (304, "\"1\"", 0));
    let fields = [("grip-channel", "a"), ("grip-timeout", "1"), ("content-type", "text/plain")];
    assert_eq!(stage.poll(Http::H1, &fields, "later").await.await.expect("an answer").text(), "later");
    metrics::reaches(
        &stage.proxy,
        "pushbridge_hub_sessions_closed_total{transport=\"long_poll\",reason=\"done\"}",
        2.0,
    )
    .await;
}

#[tokio::test]
async fn a_hint_and_a_missing_message_ask_the_backend_again() {
    let mut stage = Stage::new().await;
    let fields = [("grip-channel", "a; prev-id=1")];
    let polling = stage.poll(Http::H1, &fields, "").await;
    stage
        .publish(&json!([{"channel": "a", "id": "3", "prev-id": "2", "no-seq": false, "http-response": {"body": "3"}}]))
        .await;
    let again = stage.backend.asked().await;
    assert_eq!((again.target.to_string().as_str(), again.field("cookie")), ("/poll?x", "a=1"));
    assert_eq!(again.field("grip-last"), "a; last-id=1");
    again.answer(200, &[("grip-hold", "response"), ("grip-channel", "a; prev-id=3")], "");
    metrics::reaches(&stage.proxy, "pushbridge_hub_sessions_opened_total{transport=\"long_poll\"}", 2.0).await;
    stage.publish(&json!([{"channel": "a", "http-response": {"action": "hint"}}])).await;
    let again = stage.backend.asked().await;
    assert_eq!(again.field("grip-last"), "a; last-id=3");
    again.answer(200, &[("content-type", "text/plain")], "ready");
    assert_eq!(polling.await.expect("an answer").text(), "ready");
    stage.is_clean().await;
}

#[tokio::test]
async fn a_client_that_goes_is_not_waited_for() {
    let mut stage = Stage::new().await;
    for http in ALL {
        let at = stage.at(http);
        let polling = tokio::spawn(send(http, at, get(at, "/poll", &[])));
        let held = [("grip-hold", "response"), ("grip-channel", "a"), ("grip-link", "</gone>; rel=gone")];
        stage.backend.asked().await.answer(200, &held, "");
        metrics::reaches(&stage.proxy, "pushbridge_hub_sessions_open{transport=\"long_poll\"}", 1.0).await;
        polling.abort();
        let _ = polling.await;
        let told = stage.backend.asked().await;
        assert_eq!((told.method.as_str(), told.target.path()), ("POST", "/gone"));
        told.answer(200, &[], "");
        stage.is_clean().await;
    }
}

#[tokio::test]
async fn forty_first_polls_under_publishing_lose_none() {
    let mut stage = Stage::with("channels: [{ match: a, history: { messages: 100000, max_bytes: 64MiB } }]\n").await;
    let (publishing, _) = publish_without_pause(&stage, vec!["a".to_owned()]);
    // Each client begins where the one before it ended: what any of them lost would be a hole.
    let mut last = 0u32;
    for _ in 0..40 {
        let http = stage.at(Http::H1);
        let polling = tokio::spawn(send(Http::H1, http, get(http, "/poll", &[])));
        let channel = format!("a; prev-id={last}");
        stage.backend.asked().await.answer(200, &[("grip-hold", "response"), ("grip-channel", &channel)], "");
        let answer = polling.await.expect("an answer");
        let next: u32 = answer.text().parse().expect("a number");
        assert_eq!(next, last + 1);
        last = next;
    }
    // Clients that know no id begin with what comes next.
    for _ in 0..40 {
        let http = stage.at(Http::H1);
        let polling = tokio::spawn(send(Http::H1, http, get(http, "/poll", &[])));
        stage.backend.asked().await.answer(200, &[("grip-hold", "response"), ("grip-channel", "a")], "");
        let next: u32 = polling.await.expect("an answer").text().parse().expect("a number");
        assert!(next > last);
        last = next;
    }
    publishing.abort();
    assert!(stage.backend.is_quiet());
}

/// Publishes to all of these channels without pause, for ever: ids 1, 2, 3 … Says which id was answered 200 last.
fn publish_without_pause(stage: &Stage, channels: Vec<String>) -> (tokio::task::JoinHandle<()>, Arc<AtomicU32>) {
    let (at, published) = (stage.proxy.address("publish"), Arc::new(AtomicU32::new(0)));
    let last = Arc::clone(&published);
    let publishing = tokio::spawn(async move {
        for n in 1u32.. {
            let item = |channel| {
                json!({"channel": channel, "id": n.to_string(), "prev-id": (n - 1).to_string(),
                    "http-response": {"body": n.to_string()}})
            };
            let items = json!({"items": channels.iter().map(item).collect::<Vec<_>>()}).to_string();
            let answer = send(Http::H1, at, crate::support::client::post(at, "/publish/", &[], items)).await;
            assert_eq!(answer.status, 200);
            last.store(n, Ordering::SeqCst);
        }
    });
    (publishing, published)
}

#[tokio::test]
async fn forty_clients_that_come_at_once_miss_nothing_of_busy_channels() {
    let mut stage = Stage::with("channels: [{ match: \"busy*\", history: { messages: 100000 } }]\n").await;
    let (publishing, published) = publish_without_pause(&stage, (0..40).map(|n| format!("busy{n}")).collect());
    let first = async {
        while published.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
    };
    within("a first message of each", first).await;
    let mut polls = tokio::task::JoinSet::new();
    for n in 0..40 {
        let http = ALL[n % ALL.len()];
        let at = stage.at(http);
        polls.spawn(async move { (n, send(http, at, get(at, &format!("/poll?{n}"), &[])).await) });
    }
    // Each is the first subscriber of its channel, and knows what the backend knew when it answered.
    let mut known = [0; 40];
    for _ in 0..40 {
        let asked = stage.backend.asked().await;
        let n: usize = asked.target.query().and_then(|n| n.parse().ok()).expect("a number");
        assert!(asked.field("grip-last").is_empty(), "a second request of {n}");
        known[n] = published.load(Ordering::SeqCst);
        let channel = format!("busy{n}; prev-id={}", known[n]);
        asked.answer(200, &[("grip-hold", "response"), ("grip-channel", &channel)], "");
    }
    while let Some(answered) = polls.join_next().await {
        let (n, answer) = answered.expect("an answer");
        assert_eq!(answer.text().parse(), Ok(known[n] + 1), "busy{n}");
    }
    assert!(!publishing.is_finished() && stage.backend.is_quiet());
    publishing.abort();
    stage.is_clean().await;
}

#[tokio::test]
async fn forty_first_subscribers_get_the_one_message_of_their_channel() {
    let mut stage = Stage::new().await;
    let (publishing, _) = publish_without_pause(&stage, vec!["other".to_owned()]);
    let mut polls = Vec::new();
    for n in 0..40 {
        let channel = format!("quiet{n}");
        // Its client waits, so that nothing that is published from now on may pass it by.
        polls.push(stage.poll(ALL[n % ALL.len()], &[("grip-channel", &channel)], "").await);
    }
    for n in 0..40 {
        let item = json!([{"channel": format!("quiet{n}"), "http-response": {"body": n.to_string()}}]);
        assert_eq!(stage.publish(&item).await.json()["results"][0]["local_sessions"], 1, "quiet{n}");
    }
    for (n, poll) in polls.into_iter().enumerate() {
        assert_eq!(poll.await.expect("an answer").text(), n.to_string());
    }
    assert!(!publishing.is_finished());
    publishing.abort();
}

#[tokio::test]
async fn what_follows_a_held_response_on_its_connection_is_answered() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stage = Stage::new().await;
    let mut client = tokio::net::TcpStream::connect(stage.at(Http::H1)).await.expect("connected");
    let requests = "GET /held HTTP/1.1\r\nhost: a\r\n\r\nGET /next HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    client.write_all(requests.as_bytes()).await.expect("sent");
    let held = [("grip-hold", "response"), ("grip-channel", "follow")];
    stage.backend.asked().await.answer(200, &held, "late".to_owned());
    let open = "pushbridge_hub_sessions_open{transport=\"long_poll\"}";
    crate::support::metrics::reaches(&stage.proxy, open, 1.0).await;
    stage.publish(&serde_json::json!([{"channel": "follow", "http-response": {"body": "first"}}])).await;
    stage.backend.asked().await.answer(200, &[], "second".to_owned());
    let mut answers = String::new();
    let reading = client.read_to_string(&mut answers);
    tokio::time::timeout(std::time::Duration::from_secs(10), reading).await.expect("in time").expect("read");
    assert_eq!(answers.matches("HTTP/1.1 200 OK\r\n").count(), 2, "{answers}");
    let (first, second) = (answers.find("\r\n\r\nfirst"), answers.find("\r\n\r\nsecond"));
    assert!(first.is_some() && first < second, "{answers}");
    stage.is_clean().await;
}
