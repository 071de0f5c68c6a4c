//! Long polls that follow each other on one connection of HTTP/1.1, with and without TLS: whatever way they are answered,
//! each has to get what a poll on a connection of its own gets.

use crate::support::certificates;
use crate::support::client::{Http, dial, post, publish, send, tls, within};
use crate::support::figures::figure;
use crate::support::proxy::Proxy;
use serde_json::Value;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

const LISTENERS: [&str; 2] = ["http", "https"];
const HEAD: &str = "\
listeners:
  - { name: http, address: \"127.0.0.1:0\" }
  - { name: https, address: \"127.0.0.1:0\", tls: { certificates: [{ cert_file: localhost.crt, key_file: localhost.key }] } }
";
const ROUTES: &str = "\
routes:
  - name: polls
    match: { path: \"/polls/{topic}\" }
    push: { channels: [\"{topic}\"], cors: { origins: [\"https://a.test\"] } }
";

trait Bytes: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Bytes for T {}

/// A client that polls on one connection.
struct Client {
    io: Box<dyn Bytes>,
    read: Vec<u8>,
    topic: &'static str,
}

/// One answer.
struct Answer {
    head: String,
    body: String,
}

impl Answer {
    fn status(&self) -> &str {
        &self.head["HTTP/1.1 ".len()..][..3]
    }

    fn field(&self, name: &str) -> &str {
        let found = self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        found.unwrap_or_else(|| panic!("no {name} in {}", self.head))
    }

    /// All fields but those that tell of time and place.
    fn other_fields(&self) -> Vec<&str> {
        let mut fields: Vec<_> = self.head.lines().skip(1).filter(|line| !line.is_empty()).collect();
        fields.retain(|line| !["etag: ", "date: ", "content-length: "].iter().any(|name| line.starts_with(name)));
        fields.sort_unstable();
        fields
    }

    fn data(&self) -> Vec<Value> {
        let json: Value = serde_json::from_str(&self.body).expect("JSON");
        assert_eq!(json["gap"], Value::Null, "{json}");
        assert_eq!(self.field("etag"), format!("\"{}\"", json["next"].as_str().expect("next")));
        json["events"].as_array().expect("events").iter().map(|event| event["data"].clone()).collect()
    }
}

impl Client {
    async fn connect(proxy: &Proxy, listener: &str, topic: &'static str) -> Self {
        let tcp = dial(proxy.address(listener)).await;
        let io: Box<dyn Bytes> = match listener {
            "http" => Box::new(tcp),
            _ => Box::new(tls(tcp, b"http/1.1", "localhost").await),
        };
        Self { io, read: Vec::new(), topic }
    }

    fn poll_text(&self, etag: Option<&str>, more: &str) -> String {
        let cursor = etag.map(|etag| format!("If-None-Match: {etag}\r\n")).unwrap_or_default();
        let path = format!("/polls/{}", self.topic);
        format!(
            "GET {path} HTTP/1.1\r\nHost: a\r\nAccept: application/json\r\nOrigin: https://a.test\r\n{cursor}{more}\r\n"
        )
    }

    async fn send(&mut self, text: &str) {
        within("the request to be written", self.io.write_all(text.as_bytes())).await.expect("written");
    }

    async fn poll(&mut self, etag: Option<&str>) {
        let text = self.poll_text(etag, "");
        self.send(&text).await;
    }

    /// Where the channel is now.
    async fn begin(&mut self) -> String {
        let text = self.poll_text(None, "Prefer: wait=0\r\n");
        self.send(&text).await;
        let answer = self.answer().await;
        assert_eq!(answer.status(), "204");
        answer.field("etag").to_owned()
    }

    async fn more(&mut self) -> bool {
        let mut part = [0; 4096];
        let len = within("an answer", self.io.read(&mut part)).await.unwrap_or(0);
        self.read.extend_from_slice(&part[..len]);
        len > 0
    }

    async fn answer(&mut self) -> Answer {
        let end = loop {
            if let Some(at) = self.read.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            assert!(self.more().await, "ended: {}", String::from_utf8_lossy(&self.read));
        };
        let head = String::from_utf8(self.read.drain(..end).collect()).expect("text");
        let len = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
        while self.read.len() < len {
            assert!(self.more().await, "ended in a body");
        }
        let body = String::from_utf8(self.read.drain(..len).collect()).expect("text");
        Answer { head, body }
    }

    /// The connection has to end with nothing more.
    async fn end(&mut self) {
        while self.more().await {}
        assert_eq!(String::from_utf8_lossy(&self.read), "");
    }
}

fn start() -> Proxy {
    Proxy::start_in(certificates::folder(&["localhost"]), &format!("{HEAD}{ROUTES}"))
}

async fn put(proxy: &Proxy, topic: &str, data: impl std::fmt::Display) -> Value {
    let answer = publish(proxy.address("publish"), &format!(r#"{{"channel":"{topic}","data":{data}}}"#)).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["results"][0]["local_sessions"].clone()
}

/// Waits until this many sessions are on the hub.
async fn sessions(proxy: &Proxy, count: f64) {
    within("sessions", async {
        while figure(proxy, "pushbridge_hub_sessions_open", &[]).await != count {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn each_poll_gets_what_the_one_before_it_did_not() {
    let proxy = start();
    for listener in LISTENERS {
        let mut client = Client::connect(&proxy, listener, "order").await;
        let mut etag = client.begin().await;
        let mut got = Vec::new();
        for round in 0..30 {
            // In turn: one before the poll, one while it waits, two before it.
            let before = [1, 0, 2][round % 3];
            for n in 0..before {
                put(&proxy, "order", format!("{round}.{n}1")).await;
            }
            client.poll(Some(&etag)).await;
            if before == 0 {
                sessions(&proxy, 1.0).await;
                assert_eq!(put(&proxy, "order", format!("{round}.9")).await, 1);
            }
            let answer = client.answer().await;
            assert_eq!((answer.status(), answer.field("pushbridge-resumed")), ("200", "true"), "{listener}");
            etag = answer.field("etag").to_owned();
            got.push(answer.data().len());
        }
        assert_eq!(got, [1, 1, 2].repeat(10), "{listener}");
        drop(client);
        sessions(&proxy, 0.0).await;
    }
    // Each was counted, the first ones with their 204, too.
    let counted = figure(&proxy, "pushbridge_gateway_requests_total", &[("route", "polls")]).await;
    assert_eq!(counted, 62.0);
}

#[tokio::test]
async fn all_answers_have_the_same_fields() {
    let proxy = start();
    for listener in LISTENERS {
        let mut client = Client::connect(&proxy, listener, "fields").await;
        let mut etag = client.begin().await;
        let mut first: Option<Vec<String>> = None;
        for n in 0..5 {
            put(&proxy, "fields", n).await;
            client.poll(Some(&etag)).await;
            let answer = client.answer().await;
            etag = answer.field("etag").to_owned();
            assert_eq!(answer.field("access-control-allow-origin"), "https://a.test");
            assert!(answer.field("date").ends_with(" GMT"));
            let fields: Vec<_> = answer.other_fields().into_iter().map(str::to_owned).collect();
            assert_eq!(*first.get_or_insert_with(|| fields.clone()), fields, "{listener}: answer {n}");
        }
    }
}

#[tokio::test]
async fn other_requests_in_between_are_answered_as_ever() {
    let proxy = start();
    for listener in LISTENERS {
        let mut client = Client::connect(&proxy, listener, "between").await;
        let mut etag = client.begin().await;
        for (n, (request, status)) in [
            ("GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n", "404"),
            ("OPTIONS /polls/between HTTP/1.1\r\nHost: a\r\n\r\n", "204"),
            ("POST /polls/between HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi", "405"),
            (
                "GET /polls/between HTTP/1.1\r\nHost: a\r\nAccept: application/json\r\nIf-None-Match: \"bad\"\r\n\r\n",
                "400",
            ),
        ]
        .into_iter()
        .enumerate()
        {
            // Enough polls of one kind that they are known, then the other request.
            for round in 0..4 {
                put(&proxy, "between", format!("{n}.{round}")).await;
                client.poll(Some(&etag)).await;
                let answer = client.answer().await;
                assert_eq!(answer.data().len(), 1, "{listener}: before {request}");
                etag = answer.field("etag").to_owned();
            }
            client.send(request).await;
            let answer = client.answer().await;
            assert_eq!(answer.status(), status, "{listener}: {request}: {} {}", answer.head, answer.body);
        }
    }
}

#[tokio::test]
async fn a_cursor_that_is_none_is_refused_however_often_the_head_came_before() {
    let proxy = start();
    let mut client = Client::connect(&proxy, "http", "cursor").await;
    let mut etag = client.begin().await;
    for n in 0..4 {
        put(&proxy, "cursor", n).await;
        client.poll(Some(&etag)).await;
        etag = client.answer().await.field("etag").to_owned();
    }
    client.poll(Some("\"AQnonsense\"")).await;
    let answer = client.answer().await;
    assert_eq!(answer.status(), "400", "{}", answer.head);
    assert!(answer.body.contains("malformed cursor"), "{}", answer.body);
    put(&proxy, "cursor", 4).await;
    client.poll(Some(&etag)).await;
    assert_eq!(client.answer().await.data(), [4]);
}

#[tokio::test]
async fn polls_sent_ahead_or_in_pieces_are_answered_in_their_order() {
    let proxy = start();
    for listener in LISTENERS {
        let mut client = Client::connect(&proxy, listener, "ahead").await;
        let mut etag = client.begin().await;
        for n in 0..3 {
            put(&proxy, "ahead", n).await;
            client.poll(Some(&etag)).await;
            etag = client.answer().await.field("etag").to_owned();
        }
        // Two at once, of which the first one waits.
        let two = client.poll_text(Some(&etag), "").repeat(2);
        client.send(&two).await;
        sessions(&proxy, 1.0).await;
        put(&proxy, "ahead", 7).await;
        for _ in 0..2 {
            let answer = client.answer().await;
            assert_eq!(answer.data(), [7], "{listener}");
            etag = answer.field("etag").to_owned();
        }
        // One while another waits.
        client.poll(Some(&etag)).await;
        sessions(&proxy, 1.0).await;
        client.send("GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n").await;
        put(&proxy, "ahead", 8).await;
        let answer = client.answer().await;
        assert_eq!(answer.data(), [8], "{listener}");
        etag = answer.field("etag").to_owned();
        assert_eq!(client.answer().await.status(), "404", "{listener}");
        // One in three pieces.
        put(&proxy, "ahead", 9).await;
        let text = client.poll_text(Some(&etag), "");
        for piece in [&text[..10], &text[10..60], &text[60..]] {
            client.send(piece).await;
            tokio::task::yield_now().await;
        }
        assert_eq!(client.answer().await.data(), [9], "{listener}");
    }
}

#[tokio::test]
async fn a_client_that_leaves_is_no_session_any_more() {
    let proxy = start();
    for listener in LISTENERS {
        let mut client = Client::connect(&proxy, listener, "leaves").await;
        let mut etag = client.begin().await;
        for n in 0..4 {
            put(&proxy, "leaves", n).await;
            client.poll(Some(&etag)).await;
            etag = client.answer().await.field("etag").to_owned();
        }
        assert_eq!(put(&proxy, "leaves", 5).await, 0, "{listener}: nobody polls between two polls");
        client.poll(Some(&etag)).await;
        etag = client.answer().await.field("etag").to_owned();
        client.poll(Some(&etag)).await;
        sessions(&proxy, 1.0).await;
        client.io.shutdown().await.expect("half closed");
        client.end().await;
        sessions(&proxy, 0.0).await;
    }
}

#[tokio::test]
async fn a_reload_holds_for_the_next_poll() {
    let proxy = start();
    let mut client = Client::connect(&proxy, "http", "reload").await;
    let mut etag = client.begin().await;
    for n in 0..4 {
        put(&proxy, "reload", n).await;
        client.poll(Some(&etag)).await;
        etag = client.answer().await.field("etag").to_owned();
    }
    let admin = proxy.address("admin");
    for (routes, status) in [(ROUTES.replace("/polls/", "/other/"), "404"), (ROUTES.to_owned(), "200")] {
        proxy.rewrite(&format!("{HEAD}{routes}"));
        let answer = send(Http::H1, admin, post(admin, "/reload", &[], "")).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        put(&proxy, "reload", 9).await;
        client.poll(Some(&etag)).await;
        assert_eq!(client.answer().await.status(), status);
    }
}

#[tokio::test]
async fn a_drain_ends_the_connection_after_the_answer_or_at_rest() {
    for listener in LISTENERS {
        let drain = "drain: { settle: 0s, spread: 0s, margin: 5s }\n";
        let config = format!("{HEAD}{ROUTES}{drain}");
        let proxy = Proxy::start_in(certificates::folder(&["localhost"]), &config);
        let mut clients = Vec::new();
        for topic in ["waits", "rests"] {
            let mut client = Client::connect(&proxy, listener, topic).await;
            let mut etag = client.begin().await;
            for n in 0..4 {
                put(&proxy, topic, n).await;
                client.poll(Some(&etag)).await;
                etag = client.answer().await.field("etag").to_owned();
            }
            clients.push((client, etag));
        }
        let (mut rests, _) = clients.pop().expect("a client");
        let (mut waits, etag) = clients.pop().expect("a client");
        waits.poll(Some(&etag)).await;
        sessions(&proxy, 1.0).await;
        proxy.stop();
        rests.end().await;
        let answer = waits.answer().await;
        assert_eq!((answer.status(), answer.field("connection")), ("204", "close"), "{listener}");
        waits.end().await;
        let ended = tokio::task::spawn_blocking(move || proxy.wait()).await.expect("waited");
        assert_eq!(ended.code(), Some(0), "{listener}");
    }
}

#[tokio::test]
async fn an_idle_connection_ends_after_its_time() {
    let limits = "limits: { idle_timeout: 1s }\n";
    let proxy = Proxy::start_in(certificates::folder(&["localhost"]), &format!("{HEAD}{ROUTES}{limits}"));
    let mut client = Client::connect(&proxy, "http", "idle").await;
    let mut etag = client.begin().await;
    for n in 0..4 {
        put(&proxy, "idle", n).await;
        client.poll(Some(&etag)).await;
        etag = client.answer().await.field("etag").to_owned();
    }
    // Waiting for an answer is not idle.
    client.poll(Some(&etag)).await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    put(&proxy, "idle", 5).await;
    assert_eq!(client.answer().await.data(), [5]);
    client.end().await;
}
