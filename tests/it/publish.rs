//! `POST /v1/events`: every form over both HTTP versions and what arrives of it, conditions, refusals.

mod history;
mod order;
mod slow;
mod stream;

use crate::support::client::{Answer, Http, dial, post, publish, raw, request, send};
use crate::support::events::{Events, Polls};
use crate::support::proxy::Proxy;
use serde_json::{Value, json};
use std::net::SocketAddr;
use tokio::io::AsyncWriteExt as _;

const YAML: &str = "
routes:
  - name: events
    match: { path: \"/events/{topic}\" }
    push: { channels: [\"{topic}\"], long_poll_timeout: 2s }
  - name: pair
    match: { path: /pair }
    push: { channels: [a, b], long_poll_timeout: 2s }
  - name: twins
    match: { path: \"/twins/{x}\" }
    push: { channels: [\"{x}.a\", \"{x}.b\"] }
channels:
  - match: small
    max_message: 10
";

const JSON: &str = "application/json";
const CLOUD_EVENT: &str = "application/cloudevents+json";
const BATCH: &str = "application/cloudevents-batch+json";
const VERSIONS: [Http; 2] = [Http::H1, Http::H2c];

/// Posts a body to `/v1/events`.
async fn post_as(version: Http, to: SocketAddr, content_type: &str, body: impl Into<bytes::Bytes>) -> Answer {
    send(version, to, post(to, "/v1/events", &[("content-type", content_type)], body)).await
}

/// Publishes `body` on channel `c` and checks what an event stream and a long poll get of it.
async fn check(proxy: &Proxy, fields: &[(&str, &str)], body: &str, event: &str, data: &str, json: &str) {
    let (http, at) = (proxy.address("http"), proxy.address("publish"));
    for version in VERSIONS {
        let mut stream = Events::open(version, http, "/events/c", &[]).await;
        let mut polls = Polls::begin(version, http, "/events/c").await;
        let answer = send(version, at, post(at, "/v1/events", fields, body.to_owned())).await;
        assert_eq!(answer.status, 200, "{body}: {}", answer.text());
        assert_eq!(answer.field("content-type"), JSON);
        let result = &answer.json()["results"][0];
        assert_eq!((&result["channel"], &result["duplicate"]), (&json!("c"), &json!(false)), "{body}");
        assert!(result["local_sessions"].as_u64() >= Some(1), "{body}");
        let frame = stream.next().await;
        assert_eq!((frame.event.as_str(), frame.data.as_str()), (event, data), "{body}");
        let (text, answer) = polls.next().await;
        assert!(text.contains(json), "{body}: no {json} in {text}");
        assert_eq!(answer["events"][0]["event"].as_str().unwrap_or(""), event, "{body}");
        assert_eq!(answer["events"][0]["id"], frame.id.as_str(), "both have the same cursor");
        assert_eq!(answer["events"].as_array().map(Vec::len), Some(1), "{text}");
    }
}

#[tokio::test]
async fn data_arrives_as_it_was_written() {
    let proxy = Proxy::start(YAML);
    for (body, data, json) in [
        (r#"{"channel":"c","data":"a\nb\r\nc\rd"}"#, "a\nb\nc\nd", r#""data":"a\nb\r\nc\rd""#),
        (r#"{"channel":"c","data":""}"#, "", r#""data":"""#),
        (r#"{"channel":"c","data":"\u00e9\ud83d\ude00\u0000"}"#, "é😀\0", r#""data":"é😀\u0000""#),
        (
            r#"{"channel":"c","data": { "z" : 1.0, "a" : [ 1e3, 12345678901234567890 ], "z2": "\u00e9\/" } }"#,
            r#"{"z":1.0,"a":[1e3,12345678901234567890],"z2":"\u00e9\/"}"#,
            r#""data":{"z":1.0,"a":[1e3,12345678901234567890],"z2":"\u00e9\/"}"#,
        ),
        (r#"{"channel":"c","data":null}"#, "null", r#""data":null"#),
        (r#"{"channel":"c","data":-0.50}"#, "-0.50", r#""data":-0.50"#),
        (r#"{"channel":"c","id":null,"event":null,"channels":null,"data":true}"#, "true", r#""data":true"#),
        (r#"{"channel":"c","data_base64":"/wAB"}"#, "/wAB", r#""data_base64":"/wAB""#),
        (r#"{"channel":"c","data_base64":"AQ"}"#, "AQ==", r#""data_base64":"AQ==""#),
        (r#"{"data":{"channel":"d"},"channel":"\u0063"}"#, r#"{"channel":"d"}"#, r#""data":{"channel":"d"}"#),
    ] {
        check(&proxy, &[("content-type", "application/json; charset=utf-8")], body, "", data, json).await;
    }
    let body = r#"[{"channel":"c","event":"naïve price","data":1}]"#;
    check(&proxy, &[("content-type", JSON)], body, "naïve price", "1", r#""event":"naïve price","data":1"#).await;
}

#[tokio::test]
async fn cloud_events_arrive_in_all_three_modes() {
    let proxy = Proxy::start(YAML);
    for (n, version) in [1, 2, 3, 4].into_iter().zip([Http::H1; 4]) {
        // Each time with another id: a CloudEvent's source and id are its idempotency key.
        let at = proxy.address("publish");
        let mut stream = Events::open(version, proxy.address("http"), "/events/c", &[]).await;
        let attributes = format!(r#""specversion":"1.0","id":"{n}","source":"/shop","type":"order.paid""#);
        let structured = format!(r#"{{{attributes},"subject":"other","channel":"c","data":{{"n": {n}.0}}}}"#);
        let batch = format!(r#"[{{{attributes},"subject":"c","data":{{"n":{n}.0}}}}]"#);
        let id = n.to_string();
        let binary = [
            ("content-type", JSON),
            ("ce-specversion", "1.0"),
            ("ce-id", &id),
            ("ce-source", "/shop"),
            ("ce-type", "order.paid"),
            ("ce-channel", "c"),
        ];
        let answer = match n {
            1 => post_as(version, at, CLOUD_EVENT, structured).await,
            2 => post_as(Http::H2c, at, BATCH, batch).await,
            3 => send(version, at, post(at, "/v1/events", &binary, format!("{{ \"n\":{n}.0}}"))).await,
            _ => send(Http::H2c, at, post(at, "/v1/events", &binary, format!("{{\"n\":{n}.0 }}"))).await,
        };
        assert_eq!(answer.status, 200, "{}", answer.text());
        let frame = stream.next().await;
        assert_eq!((frame.event, frame.data), ("order.paid".to_owned(), format!("{{\"n\":{n}.0}}")));
    }
    let again = r#"{"specversion":"1.0","id":"1","source":"/shop","type":"order.paid","channel":"c"}"#;
    let answer = post_as(Http::H1, proxy.address("publish"), CLOUD_EVENT, again).await;
    assert_eq!(answer.json()["results"][0]["duplicate"], true);
    let empty = post_as(Http::H1, proxy.address("publish"), BATCH, "[]").await;
    assert_eq!((empty.status.as_u16(), empty.json()), (200, json!({ "results": [] })));
}

#[tokio::test]
async fn several_channels_and_arrays_are_answered_in_order() {
    let proxy = Proxy::start(YAML);
    let (http, at) = (proxy.address("http"), proxy.address("publish"));
    for (version, x) in VERSIONS.into_iter().zip(["h1", "h2"]) {
        let mut both = Events::open(version, http, &format!("/twins/{x}"), &[]).await;
        let mut one = Events::open(version, http, &format!("/events/{x}.b"), &[]).await;
        let body = format!(
            r#"[{{"channels":["{x}.a","{x}.b"],"data":1}},{{"channel":"{x}.b","data":2}},{{"channels":["x"],"data":3}}]"#
        );
        let answer = post_as(version, at, JSON, body).await.json();
        let results: Vec<_> = answer["results"]
            .as_array()
            .expect("results")
            .iter()
            .map(|r| (r["channel"].as_str().expect("a name"), r["local_sessions"].as_u64().expect("a number")))
            .collect();
        let (a, b) = (format!("{x}.a"), format!("{x}.b"));
        assert_eq!(results, [(a.as_str(), 1), (b.as_str(), 2), (b.as_str(), 2), ("x", 0)]);
        assert_eq!(one.data(2).await, ["1", "2"]);
        let mut all = both.data(3).await;
        all.sort_unstable();
        assert_eq!(all, ["1", "1", "2"]);
    }
    let positions: Vec<String> = publish(at, r#"{"channels":["p","q"],"data":1}"#).await.json()["results"]
        .as_array()
        .expect("results")
        .iter()
        .map(|result| result["position"].as_str().expect("a position").to_owned())
        .collect();
    for position in positions {
        assert!(!position.is_empty() && position.bytes().all(|b| b.is_ascii_graphic() && b != b'"'), "{position}");
    }
}

#[tokio::test]
async fn an_array_with_one_bad_event_publishes_nothing() {
    let proxy = Proxy::start(YAML);
    let (http, at) = (proxy.address("http"), proxy.address("publish"));
    let mut stream = Events::open(Http::H1, http, "/pair", &[]).await;
    for (bad, status, index) in [
        (r#"{"channel":"b"}"#, 400, 2),
        (r#"{"channel":"b","data":1,"dat":2}"#, 400, 2),
        (r#"{"channel":"small","data":"0123456789a"}"#, 413, 2),
        (r#"{"channels":["b","small"],"data":"0123456789a"}"#, 413, 2),
        ("7", 400, 2),
    ] {
        let body =
            format!(r#"[{{"channel":"a","data":1}},{{"channel":"b","data":2}},{bad},{{"channel":"a","data":3}}]"#);
        let answer = post_as(Http::H2c, at, JSON, body).await;
        assert_eq!((answer.status.as_u16(), &answer.json()["index"]), (status, &json!(index)), "{}", answer.text());
    }
    publish(at, r#"{"channel":"a","data":"first"}"#).await;
    assert_eq!(stream.data(1).await, ["first"]);
}

#[tokio::test]
async fn one_of_many_publishes_of_an_id_is_delivered() {
    let proxy = Proxy::start(YAML);
    let (http, at) = (proxy.address("http"), proxy.address("publish"));
    let mut stream = Events::open(Http::H1, http, "/events/c", &[]).await;
    let tasks: Vec<_> = (0..40)
        .map(|n| {
            let event = format!(r#"{{"channel":"c","id":"same","data":{n}}}"#);
            tokio::spawn(async move { post_as(VERSIONS[n % 2], at, JSON, event).await.json() })
        })
        .collect();
    let (mut first, mut positions) = (Vec::new(), Vec::new());
    for (n, task) in tasks.into_iter().enumerate() {
        let answer = task.await.expect("an answer");
        if answer["results"][0]["duplicate"] == false {
            first.push(n);
        }
        positions.push(answer["results"][0]["position"].clone());
    }
    assert_eq!(first.len(), 1, "{first:?}");
    positions.dedup();
    assert_eq!(positions.len(), 1, "duplicates tell the first one's position");
    // The same id on another channel, and another id, are other events.
    let other = publish(at, r#"{"channel":"d","id":"same","data":1}"#).await;
    assert_eq!(other.json()["results"][0]["duplicate"], false);
    publish(at, r#"{"channel":"c","id":"other","data":"next"}"#).await;
    assert_eq!(stream.data(2).await, [first[0].to_string(), "next".to_owned()]);
}

#[tokio::test]
async fn one_of_many_conditional_publishes_wins() {
    let proxy = Proxy::start(YAML);
    let (http, at) = (proxy.address("http"), proxy.address("publish"));
    let mut stream = Events::open(Http::H2c, http, "/events/c", &[]).await;
    let mut position = "0".to_owned();
    for round in 0..3 {
        let tasks: Vec<_> = (0..20)
            .map(|n| {
                let quoted = if n % 3 == 0 { position.clone() } else { format!("\"{position}\"") };
                tokio::spawn(async move {
                    let fields = [("content-type", JSON), ("if-match", quoted.as_str())];
                    let event = format!(r#"{{"channel":"c","data":"{round} {n}"}}"#);
                    send(VERSIONS[n % 2], at, post(at, "/v1/events", &fields, event)).await
                })
            })
            .collect();
        let (mut winners, mut losers) = (Vec::new(), Vec::new());
        for (n, task) in tasks.into_iter().enumerate() {
            let answer = task.await.expect("an answer");
            match answer.status.as_u16() {
                200 => winners.push((n, answer.json()["results"][0]["position"].clone())),
                412 => losers.push(answer.json()["position"].clone()),
                other => panic!("{other}: {}", answer.text()),
            }
        }
        let [(n, won)] = winners.as_slice() else { panic!("{winners:?}") };
        assert!(losers.iter().all(|position| position == won), "losers are told where the channel is: {losers:?}");
        won.as_str().expect("a position").clone_into(&mut position);
        assert_eq!(stream.data(1).await, [format!("{round} {n}")]);
    }
}

#[tokio::test]
async fn conditions_that_can_not_be_are_refused() {
    let proxy = Proxy::start(YAML);
    let at = proxy.address("publish");
    let first = publish(at, r#"{"channel":"c","data":1}"#).await.json()["results"][0]["position"].clone();
    let first = format!("\"{}\"", first.as_str().expect("a position"));
    for (position, content_type, body, status) in [
        ("*", JSON, r#"{"channel":"c","data":1}"#, 400),
        ("nonsense", JSON, r#"{"channel":"c","data":1}"#, 400),
        (&first, JSON, r#"{"channels":["c","d"],"data":1}"#, 400),
        (&first, JSON, r#"[{"channel":"c","data":1},{"channel":"c","data":2}]"#, 400),
        (&first, JSON, "[]", 400),
        (&first, "application/x-ndjson", "{\"channel\":\"c\",\"data\":1}\n", 400),
        ("\"0\"", JSON, r#"{"channel":"c","data":1}"#, 412),
        (&first, JSON, r#"[{"channel":"c","data":1}]"#, 200),
        (&first, JSON, r#"{"channel":"c","data":1}"#, 412),
        (&first, JSON, r#"{"channel":"new","data":1}"#, 412),
        ("0", JSON, r#"{"channel":"new","data":1}"#, 200),
    ] {
        let fields = [("content-type", content_type), ("if-match", position)];
        let answer = send(Http::H1, at, post(at, "/v1/events", &fields, body)).await;
        assert_eq!(answer.status, status, "{position} {body}: {}", answer.text());
    }
    let fields = [("content-type", JSON), ("if-match", first.as_str())];
    let answer = send(Http::H1, at, post(at, "/v1/events", &fields, r#"{"channel":"none","data":1}"#)).await;
    assert_eq!(answer.json()["position"], "0", "nothing was ever published there");
}

#[track_caller]
fn refused(answer: &Answer, status: u16, detail: &str) -> Value {
    assert_eq!(answer.status, status, "{}", answer.text());
    assert_eq!(answer.field("content-type"), "application/problem+json");
    let problem = answer.json();
    assert_eq!(problem["status"], status);
    assert_eq!(problem["request_id"].as_str().map(str::len), Some(16));
    assert!(problem["detail"].as_str().is_some_and(|text| text.contains(detail)), "no {detail:?} in {problem}");
    problem
}

#[tokio::test]
async fn malformed_events_are_refused_with_what_is_wrong() {
    let proxy = Proxy::start(YAML);
    let at = proxy.address("publish");
    let deep = format!(r#"{{"channel":"c","data":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    let many = format!("[{}]", vec![r#"{"channel":"c","data":1}"#; 10_001].join(","));
    let channels =
        format!(r#"{{"channels":[{}],"data":1}}"#, (0..101).map(|n| format!("\"{n}\"")).collect::<Vec<_>>().join(","));
    for (body, detail, field) in [
        ("", "JSON", Value::Null),
        ("{", "JSON", Value::Null),
        ("{} {}", "JSON", Value::Null),
        ("\"x\"", "no event", Value::Null),
        (r#"{"channel":"c"}"#, "no data is given", Value::Null),
        (r#"{"data":1}"#, "no channel is named", Value::Null),
        (r#"{"channel":"","data":1}"#, "channel", json!("channel")),
        (r#"{"channel":"a\nb","data":1}"#, "channel", json!("channel")),
        (r#"{"channel":7,"data":1}"#, "must be a string", json!("channel")),
        (r#"{"chanel":"c","data":1}"#, "did you mean \"channel\"?", json!("chanel")),
        (r#"{"channel":"c","payload":1}"#, "did you mean \"data\"?", json!("payload")),
        (r#"{"channel":"c","channel":"d","data":1}"#, "given twice", json!("channel")),
        (r#"{"channel":"c","channels":["d"],"data":1}"#, "leave one out", Value::Null),
        (r#"{"channels":["d","d"],"data":1}"#, "twice", json!("channels")),
        (r#"{"channels":[],"data":1}"#, "empty", json!("channels")),
        (r#"{"channel":"c","data":1,"data_base64":"AQ=="}"#, "leave one out", Value::Null),
        (r#"{"channel":"c","data_base64":"*"}"#, "base64", json!("data_base64")),
        (r#"{"channel":"c","id":"a\nb","data":1}"#, "id", json!("id")),
        (r#"{"channel":"c","event":"a\rb","data":1}"#, "event", json!("event")),
        (r#"{"channel":"c","event":"a\u0000b","data":1}"#, "event", json!("event")),
        (r#"{"channel":"c","data":"\ud83d"}"#, "surrogate", json!("data")),
        (&deep, "128", Value::Null),
        (&many, "10000 events", Value::Null),
        (&channels, "100 channels", json!("channels")),
    ] {
        let shown = &body[..body.len().min(80)];
        for version in VERSIONS {
            let answer = post_as(version, at, JSON, body.to_owned()).await;
            let problem = refused(&answer, 400, detail);
            assert_eq!(problem["field"], field, "{shown}: {problem}");
            assert!(answer.body.len() < 1000, "{shown}: a problem stays short");
        }
    }
    for body in [&b"{\"channel\":\"c\",\"data\":\"\xff\"}"[..], b"\xef\xbb\xbf{\"channel\":\"c\",\"data\":1}", b"\x80"]
    {
        refused(&post_as(Http::H1, at, JSON, body.to_vec()).await, 400, "");
    }
}

#[tokio::test]
async fn other_requests_are_refused_by_status() {
    let proxy = Proxy::start(YAML);
    let at = proxy.address("publish");
    let event = r#"{"channel":"c","data":1}"#;
    for version in VERSIONS {
        for content_type in ["text/plain", "application/x-www-form-urlencoded", "application/json; charset=latin1", ""]
        {
            let answer = post_as(version, at, content_type, event).await;
            refused(&answer, 415, "is not taken");
            assert!(answer.field("accept").starts_with("application/json, "), "{}", answer.field("accept"));
        }
        let answer = send(version, at, post(at, "/v1/events", &[], event)).await;
        refused(&answer, 415, "not taken");
        let fields = [("content-type", JSON), ("content-encoding", "gzip")];
        refused(&send(version, at, post(at, "/v1/events", &fields, event)).await, 415, "Content-Encoding");
        let answer = send(version, at, request("GET", at, "/v1/events", &[], "")).await;
        refused(&answer, 405, "POST");
        assert_eq!(answer.field("allow"), "POST");
        refused(&send(version, at, post(at, "/v1/event", &[("content-type", JSON)], event)).await, 404, "/v1/events");
        let large = format!(r#"{{"channel":"c","data":"{}"}}"#, "x".repeat(64 * 1024 + 1));
        let problem = refused(&post_as(version, at, JSON, large).await, 413, "max_message");
        assert_eq!((&problem["max_bytes"], &problem["channel"]), (&json!(65536), &json!("c")));
        let fits = format!(r#"{{"channel":"c","data":"{}"}}"#, "x".repeat(64 * 1024));
        assert_eq!(post_as(version, at, JSON, fits).await.status, 200);
        let huge = format!("[{}]", vec![event; 60_000].join(","));
        assert!(huge.len() > 1024 * 1024);
        let problem = refused(&post_as(version, at, JSON, huge).await, 413, "publish.max_body");
        assert_eq!(problem["max_bytes"], 1024 * 1024);
    }
    let welcome = send(Http::H1, at, request("GET", at, "/", &[], "")).await;
    assert_eq!(welcome.status, 200);
    assert!(welcome.text().contains("/v1/events"));
}

#[tokio::test]
async fn a_bearer_token_is_asked_for() {
    let folder = tempfile::TempDir::new().expect("a folder");
    std::fs::write(folder.path().join("token"), "s3cret\n").expect("written");
    let yaml = "publish: { address: \"127.0.0.1:0\", auth: [{ bearer: { token_file: token } }] }";
    let proxy = Proxy::start_in(folder, &format!("{YAML}\n{yaml}\n"));
    let at = proxy.address("publish");
    for (authorization, status, challenge) in [
        (None, 401, "Bearer realm=\"pushbridge\""),
        (Some("Bearer wrong"), 401, "Bearer realm=\"pushbridge\", error=\"invalid_token\""),
        (Some("Basic czNjcmV0"), 401, "Bearer realm=\"pushbridge\", error=\"invalid_token\""),
        (Some("Bearer s3cret"), 200, ""),
        (Some("bearer s3cret"), 200, ""),
    ] {
        for version in VERSIONS {
            let mut fields = vec![("content-type", JSON)];
            fields.extend(authorization.map(|value| ("authorization", value)));
            let answer = send(version, at, post(at, "/v1/events", &fields, r#"{"channel":"c","data":1}"#)).await;
            assert_eq!((answer.status.as_u16(), answer.field("www-authenticate")), (status, challenge));
            assert!(!answer.text().contains("s3cret"));
        }
    }
}

#[tokio::test]
async fn a_body_counts_when_it_is_whole() {
    let proxy = Proxy::start(YAML);
    let (http, at) = (proxy.address("http"), proxy.address("publish"));
    let mut stream = Events::open(Http::H1, http, "/events/c", &[]).await;
    let head = "POST /v1/events HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n";
    // The connection closes within the body: nothing is published.
    for (framing, part) in [
        ("content-length: 25\r\n\r\n", r#"{"channel":"c","data":1}"#),
        ("transfer-encoding: chunked\r\n\r\n", "18\r\n{\"channel\":\"c\",\"data\":1}\r\n"),
    ] {
        let mut tcp = dial(at).await;
        tcp.write_all(format!("{head}{framing}{part}").as_bytes()).await.expect("written");
        tcp.shutdown().await.expect("shut down");
        let mut rest = Vec::new();
        let _ = tokio::io::AsyncReadExt::read_to_end(&mut tcp, &mut rest).await;
        assert!(!String::from_utf8_lossy(&rest).contains("200 OK"), "{}", String::from_utf8_lossy(&rest));
    }
    // Byte by byte, in chunks of one.
    let body: String = r#"{"channel":"c","data":2}"#.chars().map(|c| format!("1\r\n{c}\r\n")).collect();
    let mut tcp = dial(at).await;
    tcp.write_all(format!("{head}transfer-encoding: chunked\r\nconnection: close\r\n\r\n").as_bytes())
        .await
        .expect("written");
    for byte in format!("{body}0\r\n\r\n").bytes() {
        tcp.write_all(&[byte]).await.expect("written");
    }
    let mut answer = String::new();
    tokio::io::AsyncReadExt::read_to_string(&mut tcp, &mut answer).await.expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert_eq!(stream.data(1).await, ["2"]);
    // A client that asks first is told to go on, or not to.
    let expecting = format!("{head}expect: 100-continue\r\ncontent-length: 24\r\n\r\n");
    assert!(raw(at, expecting.as_bytes(), "\r\n\r\n").await.starts_with("HTTP/1.1 100 Continue\r\n"));
    let expecting = format!("{head}expect: 100-continue\r\ncontent-length: 99999999\r\n\r\n");
    assert!(raw(at, expecting.as_bytes(), "\r\n\r\n").await.starts_with("HTTP/1.1 413 "));
}

#[tokio::test]
async fn a_refused_client_that_is_still_sending_can_read_why() {
    let proxy = Proxy::start(YAML);
    let at = proxy.address("publish");
    for _ in 0..5 {
        let mut tcp = dial(at).await;
        let head =
            "POST /v1/events HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: 8000000\r\n\r\n";
        tcp.write_all(head.as_bytes()).await.expect("written");
        // A simple client writes all before it reads.
        tcp.write_all(&vec![b' '; 8_000_000]).await.expect("the server takes what is sent, to tell why it refuses it");
        let mut answer = [0; 12];
        tokio::io::AsyncReadExt::read_exact(&mut tcp, &mut answer).await.expect("an answer");
        assert_eq!(String::from_utf8_lossy(&answer), "HTTP/1.1 413");
    }
}
