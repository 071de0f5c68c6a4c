//! The endpoints that GRIP libraries publish to: their paths, answers and refusals.

use super::Stage;
use crate::support::client::{Answer, Http, post, raw, request, send};
use serde_json::json;

const JSON: (&str, &str) = ("accept", "application/json");
const VERSIONS: [Http; 2] = [Http::H1, Http::H2c];

impl Stage {
    async fn post(&self, http: Http, path: &str, fields: &[(&str, &str)], body: &str) -> Answer {
        let at = self.proxy.address("publish");
        send(http, at, post(at, path, fields, body.to_owned())).await
    }
}

fn item(content: &str) -> String {
    json!({"items": [{"channel": "a", "http-stream": {"content": content}}]}).to_string()
}

#[tokio::test]
async fn both_paths_take_items_however_they_are_sent() {
    let mut stage = Stage::new().await;
    let mut stream = stage.stream(Http::H1, "/events", &[("grip-channel", "a")], "begin\n").await;
    for http in VERSIONS {
        for path in ["/publish", "/publish/"] {
            let types = [
                &[][..],
                &[("content-type", "application/x-www-form-urlencoded")],
                &[("content-type", "application/json")],
            ];
            for fields in types {
                let answer = stage.post(http, path, fields, &item("x\n")).await;
                assert_eq!((answer.status.as_u16(), answer.text()), (200, "Published\n"));
                assert_eq!(answer.field("content-type"), "text/plain; charset=utf-8");
                assert_eq!(stream.until("\n").await, "x\n");
            }
            let answer = stage.post(http, path, &[JSON], &item("y\n")).await;
            assert_eq!((answer.status.as_u16(), answer.field("content-type")), (200, "application/json"));
            let mut answer = answer.json();
            let position = answer["results"][0]["position"].take();
            assert!(position.is_string(), "{position}");
            let result = json!({"channel": "a", "result": "published", "position": null, "local_sessions": 1});
            assert_eq!(answer, json!({"message": "Published", "results": [result]}));
            assert_eq!(stream.until("\n").await, "y\n");
            assert_eq!(stage.post(http, path, &[JSON], r#"{"items":[]}"#).await.json()["results"], json!([]));
        }
    }
    // Two on one connection, the first of them in chunks.
    let (first, second) = (item("1\n"), item("2\n"));
    let requests = format!(
        "POST /publish/ HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{first}\r\n0\r\n\r\n\
         POST /publish/ HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{second}",
        first.len(),
        second.len(),
    );
    let answers = raw(stage.proxy.address("publish"), requests.as_bytes(), "").await;
    assert_eq!(answers.matches("HTTP/1.1 200 OK\r\n").count(), 2, "{answers}");
    assert_eq!(stream.until("2\n").await, "1\n2\n");
}

#[tokio::test]
async fn one_bad_item_and_nothing_is_published() {
    let mut stage = Stage::new().await;
    let mut stream = stage.stream(Http::H1, "/events", &[("grip-channel", "a")], "begin\n").await;
    let bad = json!({"items": [
        {"channel": "a", "http-stream": {"content": "never\n"}},
        {"channel": "a", "http-stream": {"content": 5}},
    ]});
    let large = json!({"items": [
        {"channel": "a", "http-stream": {"content": "never\n"}},
        {"channel": "a", "http-stream": {"content": "x".repeat(64 * 1024 + 1)}},
    ]});
    let whole = format!(r#"{{"items":[{}]}}"#, " ".repeat(1024 * 1024));
    let cases = [
        (bad.to_string(), 400, "item 1", Some(1)),
        (large.to_string(), 413, "max_message", Some(1)),
        (whole, 413, "publish.max_body", None),
        ("{".to_owned(), 400, "no JSON", None),
        ("{}".to_owned(), 400, "items", None),
    ];
    for http in VERSIONS {
        for (body, status, said, index) in &cases {
            let answer = stage.post(http, "/publish/", &[], body).await;
            assert_eq!((answer.status.as_u16(), answer.field("content-type")), (*status, "text/plain; charset=utf-8"));
            assert!(answer.text().contains(said) && answer.text().ends_with('\n'), "{}", answer.text());
            let answer = stage.post(http, "/publish", &[JSON], body).await;
            assert_eq!((answer.status.as_u16(), answer.field("content-type")), (*status, "application/problem+json"));
            assert_eq!(answer.json()["index"].as_u64(), *index, "{}", answer.text());
        }
    }
    stage.send("a", "marker\n").await;
    assert_eq!(stream.until("marker\n").await, "marker\n");
}

#[tokio::test]
async fn other_methods_are_told_what_is_there() {
    let stage = Stage::new().await;
    let at = stage.proxy.address("publish");
    for http in VERSIONS {
        for path in ["/publish", "/publish/", "/recover"] {
            for method in ["GET", "PUT", "OPTIONS"] {
                let answer = send(http, at, request(method, at, path, &[], "")).await;
                assert_eq!((answer.status.as_u16(), answer.field("allow")), (405, "POST"), "{method} {path}");
                assert_eq!(answer.field("content-type"), "text/plain; charset=utf-8");
            }
        }
        let answer = send(http, at, request("GET", at, "/", &[], "")).await;
        assert_eq!((answer.status.as_u16(), answer.field("content-type")), (200, "text/plain; charset=utf-8"));
        let answer = stage.post(http, "/recover", &[JSON], "").await;
        assert_eq!((answer.status.as_u16(), answer.json()), (200, json!({"message": "Updated"})));
        // A page of a browser can send a form anywhere.
        let page = [("origin", "https://evil.example"), ("content-type", "text/plain")];
        for path in ["/publish/", "/recover"] {
            assert_eq!(stage.post(http, path, &page, &item("x")).await.status, 415, "{path}");
        }
    }
}

#[tokio::test]
async fn only_who_has_the_key_publishes_and_recovers() {
    let auth = "publish: { address: \"127.0.0.1:0\", auth: [{ grip_sig: { key_file: grip.key } }] }\n";
    let mut stage = Stage::with(auth).await;
    let mut stream = stage.stream(Http::H1, "/events", &[("grip-channel", "a")], "begin\n").await;
    let sign = |key: &[u8], now_secs| {
        let key = pushbridge::upstream::signature::Key::parse(key).expect("a key");
        key.sign("edge", now_secs, &aws_lc_rs::rand::SystemRandom::new()).expect("a token")
    };
    let now_secs = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a time").as_secs();
    let (good, forged, old) =
        (sign(b"changeme", now_secs), sign(b"guessed", now_secs), sign(b"changeme", now_secs - 7200));
    for http in VERSIONS {
        for path in ["/publish/", "/publish", "/recover"] {
            for refused in ["".to_owned(), format!("Bearer {forged}"), format!("Bearer {old}"), "Bearer x".to_owned()] {
                let fields: &[(&str, &str)] = if refused.is_empty() { &[] } else { &[("authorization", &refused)] };
                let answer = stage.post(http, path, fields, &item("never\n")).await;
                assert_eq!(answer.status, 401, "{path}: {}", answer.text());
            }
            let fields = [("authorization", &*format!("Bearer {good}"))];
            assert_eq!(stage.post(http, path, &fields, &item("good\n")).await.status, 200);
            if path != "/recover" {
                assert_eq!(stream.until("\n").await, "good\n");
            }
        }
    }
}
