//! Held responses of every kind of client and request: old versions, bodies, HEAD, and clients that go while they wait.

use super::{ALL, Stage};
use crate::support::client::{Answer, Http, Stream, dial, get, open, post, request, send, within};
use crate::support::metrics;
use bytes::Bytes;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

const OPENED: &str = "pushbridge_hub_sessions_opened_total{transport=\"long_poll\"}";
const OPEN: &str = "pushbridge_hub_sessions_open{transport=\"long_poll\"}";
const HELD: [(&str, &str); 3] = [("grip-hold", "response"), ("grip-channel", "a"), ("content-type", "text/plain")];

impl Stage {
    /// Writes a request on a connection; the backend holds its response.
    async fn hold_raw(&mut self, client: &mut TcpStream, head: &str) {
        let before = metrics::value(&self.proxy, OPENED).await;
        client.write_all(head.as_bytes()).await.expect("written");
        self.backend.asked().await.answer(200, &HELD, "nothing yet");
        metrics::reaches(&self.proxy, OPENED, before + 1.0).await;
    }

    /// A response that is held with these fields: the client waits when this returns.
    async fn hold(&mut self, http: Http, fields: &[(&str, &str)], body: &'static str) -> JoinHandle<Answer> {
        let (at, before) = (self.at(http), metrics::value(&self.proxy, OPENED).await);
        let waiting = tokio::spawn(send(http, at, get(at, "/poll", &[])));
        self.backend.asked().await.answer(200, fields, body);
        metrics::reaches(&self.proxy, OPENED, before + 1.0).await;
        waiting
    }

    /// Publishes a response, and gives how many sessions it went to.
    async fn release(&self, body: &str) -> u64 {
        let answer = self.publish(&json!([{"channel": "a", "http-response": {"body": body}}])).await;
        answer.json()["results"][0]["local_sessions"].as_u64().expect("a count")
    }
}

/// Reads until `end` is there.
async fn read_until(client: &mut TcpStream, end: &str) -> String {
    let mut read = Vec::new();
    within("an answer", async {
        while !String::from_utf8_lossy(&read).contains(end) {
            assert!(client.read_buf(&mut read).await.expect("read") > 0, "{:?}", String::from_utf8_lossy(&read));
        }
    })
    .await;
    String::from_utf8(read).expect("text")
}

async fn read_rest(client: &mut TcpStream) -> String {
    let mut text = String::new();
    within("the end", client.read_to_string(&mut text)).await.expect("text");
    text
}

#[tokio::test]
async fn clients_of_http_1_0_are_held_and_know_their_answers_end() {
    let mut stage = Stage::new().await;
    let at = stage.at(Http::H1);
    let mut client = dial(at).await;
    stage.hold_raw(&mut client, "GET /poll HTTP/1.0\r\nhost: a\r\n\r\n").await;
    assert_eq!(stage.release("once").await, 1);
    let answer = read_rest(&mut client).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\nonce"), "{answer}");
    assert!(!answer.contains("transfer-encoding"), "{answer}");

    let mut client = dial(at).await;
    for body in ["first", "second"] {
        stage.hold_raw(&mut client, "GET /poll HTTP/1.0\r\nhost: a\r\nconnection: keep-alive\r\n\r\n").await;
        assert_eq!(stage.release(body).await, 1);
        let answer = read_until(&mut client, body).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.contains("connection: keep-alive\r\n"), "{answer}");
        assert!(answer.contains(&format!("content-length: {}\r\n", body.len())), "{answer}");
    }

    let mut client = dial(at).await;
    client.write_all(b"GET /lines HTTP/1.0\r\nhost: a\r\n\r\n").await.expect("written");
    let stream = [("grip-hold", "stream"), ("grip-channel", "a"), ("content-type", "text/plain")];
    stage.backend.asked().await.answer(200, &stream, "begin\n");
    read_until(&mut client, "\r\n\r\nbegin\n").await;
    stage
        .publish(&json!([
            {"channel": "a", "http-stream": {"content": "more\n"}},
            {"channel": "a", "http-stream": {"action": "close"}},
        ]))
        .await;
    assert_eq!(read_rest(&mut client).await, "more\n");
    drop(client);
    stage.is_clean().await;
}

#[tokio::test]
async fn a_request_with_a_body_is_held_but_not_made_again() {
    let mut stage = Stage::new().await;
    for http in ALL {
        let at = stage.at(http);
        for (seen, expected) in [("", "it"), ("; prev-id=1", "nothing yet")] {
            let before = metrics::value(&stage.proxy, OPENED).await;
            let form = [("content-type", "application/x-www-form-urlencoded")];
            let waiting = tokio::spawn(send(http, at, post(at, "/poll", &form, "x=1&y=2")));
            let asked = stage.backend.asked().await;
            assert_eq!((asked.method.as_str(), &asked.body[..]), ("POST", &b"x=1&y=2"[..]));
            let (channel, text) = (format!("{http:?}{expected}"), ("content-type", "text/plain"));
            let held = format!("{channel}{seen}");
            asked.answer(200, &[HELD[0], ("grip-channel", &held), text], "nothing yet");
            metrics::reaches(&stage.proxy, OPENED, before + 1.0).await;
            // Where ids are known, 2 is missing.
            let item = json!([{"channel": channel, "id": "3", "prev-id": "2", "http-response": {"body": "it"}}]);
            stage.publish(&item).await;
            assert_eq!(waiting.await.expect("an answer").text(), expected, "{http:?}");
            assert!(stage.backend.is_quiet());
        }
        // One that goes while it waits.
        let waiting = tokio::spawn(send(http, at, post(at, "/poll", &[], "x=1")));
        stage.backend.asked().await.answer(200, &HELD, "");
        metrics::reaches(&stage.proxy, OPEN, 1.0).await;
        waiting.abort();
        metrics::reaches(&stage.proxy, OPEN, 0.0).await;
        assert_eq!(stage.release("nobody").await, 0);
    }
    stage.is_clean().await;
}

#[tokio::test]
async fn what_was_a_held_response_may_become_a_stream() {
    let mut stage = Stage::new().await;
    for http in ALL {
        let at = stage.at(http);
        let before = metrics::value(&stage.proxy, OPENED).await;
        let asking = tokio::spawn(open(http, at, get(at, "/events", &[])));
        stage.backend.asked().await.answer(200, &HELD, "nothing yet");
        metrics::reaches(&stage.proxy, OPENED, before + 1.0).await;
        stage.publish(&json!([{"channel": "a", "http-response": {"action": "hint"}}])).await;
        let stream = [("grip-hold", "stream"), ("grip-channel", "b"), ("content-type", "text/event-stream")];
        stage.backend.asked().await.answer(200, &stream, "data: 1\n\n");
        let response = asking.await.expect("an answer");
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        metrics::reaches(&stage.proxy, OPEN, 0.0).await;
        let mut stream = Stream::of(response);
        assert_eq!(stream.until("\n\n").await, "data: 1\n\n");
        // It left the channel of the response that it was.
        assert_eq!(stage.release("for responses").await, 0);
        stage.send("b", "data: 2\n\n").await;
        assert_eq!(stream.until("\n\n").await, "data: 2\n\n");
        stage.publish(&json!([{"channel": "b", "http-stream": {"action": "close"}}])).await;
        assert_eq!(stream.rest().await, "");
    }
    stage.is_clean().await;
}

#[tokio::test]
async fn a_reset_ends_one_wait_and_leaves_its_connection() {
    let mut stage = Stage::new().await;
    let at = stage.at(Http::H2c);
    let (send, connection) = within("a handshake", h2::client::handshake(dial(at).await)).await.expect("a handshake");
    let connection = tokio::spawn(connection);
    let mut send = within("settings", send.ready()).await.expect("ready");
    let mut waiting = Vec::new();
    for number in 1..=3 {
        let get = http::Request::get(format!("http://{at}/poll")).body(()).expect("a request");
        waiting.push(send.send_request(get, true).expect("a stream"));
        stage.backend.asked().await.answer(200, &HELD, "");
        metrics::reaches(&stage.proxy, OPEN, f64::from(number)).await;
    }
    let (reset, mut stream) = waiting.remove(1);
    stream.send_reset(h2::Reason::CANCEL);
    metrics::reaches(&stage.proxy, OPEN, 2.0).await;
    let gone = "pushbridge_hub_sessions_closed_total{transport=\"long_poll\",reason=\"client_gone\"}";
    metrics::reaches(&stage.proxy, gone, 1.0).await;
    assert_eq!(stage.release("two").await, 2);
    for (answer, _) in waiting {
        let mut body = within("an answer", answer).await.expect("an answer").into_body();
        assert_eq!(within("a body", body.data()).await.expect("a body").expect("a body"), Bytes::from("two"));
    }
    assert!(reset.await.is_err());
    assert!(!connection.is_finished());
    stage.is_clean().await;
}

#[tokio::test]
async fn head_is_never_held_however_the_backend_asks() {
    let mut stage = Stage::new().await;
    let stream = [("grip-hold", "stream"), ("grip-channel", "a"), ("content-type", "text/plain"), ("x-own", "1")];
    // Who is not held does not go.
    let gone = ("grip-link", "</gone>; rel=gone");
    let response = [HELD[0], HELD[1], HELD[2], gone, ("x-own", "1")];
    let next = [("grip-link", "</next>; rel=next"), ("content-type", "text/plain"), ("x-own", "1")];
    // What it says stands in a body, which an answer to HEAD does not have.
    let instruct = [("content-type", "application/grip-instruct"), ("content-length", "99"), ("x-own", "1")];
    for http in ALL {
        let at = stage.at(http);
        for fields in [&stream[..], &response, &next, &instruct] {
            let asking = send(http, at, request("HEAD", at, "/poll", &[], ""));
            let (answer, ()) = tokio::join!(asking, async {
                let asked = stage.backend.asked().await;
                assert_eq!(asked.method, "HEAD");
                asked.answer(200, fields, "");
            });
            assert_eq!((answer.status.as_u16(), answer.field("x-own")), (200, "1"), "{http:?} {fields:?}");
            assert!(answer.body.is_empty() && !answer.field("content-type").contains("grip"), "{:?}", answer.fields);
            assert!(!answer.fields.keys().any(|name| name.as_str().starts_with("grip-")), "{:?}", answer.fields);
        }
    }
    assert!(stage.backend.is_quiet());
    for transport in ["sse", "long_poll"] {
        let opened = format!("pushbridge_hub_sessions_opened_total{{transport=\"{transport}\"}}");
        assert!(metrics::value(&stage.proxy, &opened).await == 0.0);
    }
}

#[tokio::test]
async fn a_client_that_has_its_answer_is_not_gone() {
    let mut stage = Stage::new().await;
    let gone = [HELD[0], HELD[1], ("grip-timeout", "5"), ("grip-link", "</gone>; rel=gone")];
    for http in ALL {
        let waiting = stage.hold(http, &gone, "time is over").await;
        stage.release("it").await;
        assert_eq!(waiting.await.expect("an answer").text(), "it");
        // Asked again, the backend answers at once.
        let waiting = stage.hold(http, &gone, "time is over").await;
        stage.publish(&json!([{"channel": "a", "http-response": {"action": "hint"}}])).await;
        stage.backend.asked().await.answer(200, &[], "now");
        assert_eq!(waiting.await.expect("an answer").text(), "now");
        let waiting = stage.hold(http, &gone, "time is over").await;
        assert_eq!(waiting.await.expect("an answer").text(), "time is over");
        // The next that is asked is of this client, which does go.
        let waiting = stage.hold(http, &gone, "time is over").await;
        assert!(stage.backend.is_quiet());
        waiting.abort();
        let told = stage.backend.asked().await;
        assert_eq!((told.method.as_str(), told.target.path()), ("POST", "/gone"));
        told.answer(200, &[], "");
        assert!(stage.backend.is_quiet());
    }
    stage.is_clean().await;
}

#[tokio::test]
async fn a_client_that_closes_its_half_is_gone() {
    let mut stage = Stage::new().await;
    let mut client = dial(stage.at(Http::H1)).await;
    let gone = [HELD[0], HELD[1], ("grip-link", "</gone>; rel=gone")];
    client.write_all(b"GET /poll HTTP/1.1\r\nhost: a\r\n\r\n").await.expect("written");
    stage.backend.asked().await.answer(200, &gone, "");
    metrics::reaches(&stage.proxy, OPEN, 1.0).await;
    client.shutdown().await.expect("its half is closed");
    let told = stage.backend.asked().await;
    assert_eq!((told.method.as_str(), told.target.path()), ("POST", "/gone"));
    told.answer(200, &[], "");
    assert_eq!(read_rest(&mut client).await, "");
    assert_eq!(stage.release("nobody").await, 0);
    stage.is_clean().await;
}
