//! Tests of the handler, with a bus that remembers what it was given.

mod fake;
mod streams;
mod webhooks;

use fake::{FakeBus, World};
use http::header::{ACCEPT, ALLOW, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};

const JSON: (&str, &str) = ("content-type", "application/json");

#[track_caller]
fn results(expected: &[(&str, &str, bool)]) -> Value {
    let results: Vec<_> = expected
        .iter()
        .map(|(channel, position, duplicate)| {
            json!({"channel": channel, "position": position, "duplicate": duplicate, "local_sessions": 3})
        })
        .collect();
    json!({ "results": results })
}

async fn post(world: &World, fields: &[(&str, &str)], body: &str) -> (StatusCode, HeaderMap, Value) {
    let response = world.send("POST", "/v1/events", fields, body.to_owned().into()).await;
    let (head, body) = fake::read(response).await;
    (head.status, head.headers, serde_json::from_slice(&body).expect("JSON"))
}

/// Posts and checks that a problem with `status` came that says `text`, and that nothing was published.
async fn check_refused(world: &World, fields: &[(&str, &str)], body: &str, status: u16, text: &str) -> Value {
    let before = world.bus.published().len();
    let (found, headers, problem) = post(world, fields, body).await;
    assert_eq!(found.as_u16(), status, "{fields:?} {body}: {problem}");
    assert_eq!(headers[CONTENT_TYPE], "application/problem+json");
    assert_eq!(problem["status"], status);
    assert!(problem["request_id"].is_string());
    let detail = problem["detail"].as_str().expect("a detail");
    assert!(detail.contains(text), "{detail} has no {text:?}");
    assert_eq!(world.bus.published().len(), before);
    problem
}

#[tokio::test]
async fn one_event_is_published_and_answered() {
    let world = World::new();
    let (status, headers, answer) = post(&world, &[JSON], r#"{"channel":"a","id":"1","data":"x"}"#).await;
    assert_eq!((status, answer), (StatusCode::OK, results(&[("a", "1-1", false)])));
    assert_eq!(headers[CONTENT_TYPE], "application/json");
    let (_, _, answer) = post(&world, &[JSON], r#"{"channels":["b","a"],"id":"1","event":"e","data":[1]}"#).await;
    assert_eq!(answer, results(&[("b", "1-1", false), ("a", "1-1", true)]));
    assert_eq!(world.bus.published(), ["a:x", "b:[1]"]);
}

#[tokio::test]
async fn an_array_is_answered_in_order_and_paced_before_each_event() {
    let world = World::new();
    let body = r#"[{"channel":"a","data":1},{"channels":["b","c"],"data":2},{"channel":"a","data":3}]"#;
    let (_, _, answer) = post(&world, &[JSON], body).await;
    assert_eq!(answer, results(&[("a", "1-1", false), ("b", "1-1", false), ("c", "1-1", false), ("a", "1-2", false)]));
    assert_eq!(world.bus.paced(), ["a", "b", "c", "a"]);
    assert_eq!(post(&world, &[JSON], "[]").await.2, results(&[]));
}

#[tokio::test]
async fn an_array_with_one_bad_event_publishes_nothing() {
    let world = World::new();
    let problem =
        check_refused(&world, &[JSON], r#"[{"channel":"a","data":1},{"channel":"b","dat":2}]"#, 400, "did you mean")
            .await;
    assert_eq!((&problem["index"], &problem["field"]), (&json!(1), &json!("dat")));
    let large = format!(r#"[{{"channel":"a","data":1}},{{"channel":"small","data":"{}"}}]"#, "x".repeat(11));
    let problem = check_refused(&world, &[JSON], &large, 413, "event 1: 11 bytes of data are over the 10").await;
    assert_eq!((&problem["index"], &problem["max_bytes"]), (&json!(1), &json!(10)));
}

#[tokio::test]
async fn a_bus_that_fails_in_the_middle_tells_what_was_published() {
    let world = World::new();
    world.bus.fail_after(2);
    let body = r#"[{"channel":"a","data":1},{"channel":"b","data":2},{"channel":"c","data":3}]"#;
    let (status, headers, problem) = post(&world, &[JSON], body).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(headers[RETRY_AFTER], "1");
    assert_eq!(problem["results"], results(&[("a", "1-1", false), ("b", "1-1", false)])["results"]);
    assert!(problem["detail"].as_str().expect("a detail").starts_with("the bus is down: fake"), "{problem}");
    let (status, _, problem) = post(&world, &[JSON], r#"{"channel":"a","data":1}"#).await;
    assert_eq!((status.as_u16(), &problem["results"]), (503, &json!([])));
}

#[tokio::test]
async fn a_bus_that_is_down_refuses_before_the_body_is_read() {
    let world = World::new();
    world.bus.go_down();
    // A body that is no event would be refused otherwise.
    let (status, headers, problem) = post(&world, &[JSON], "{").await;
    assert_eq!((status.as_u16(), &headers[RETRY_AFTER]), (503, &http::HeaderValue::from_static("1")));
    assert!(problem["detail"].as_str().expect("a detail").starts_with("the bus is down: fake"), "{problem}");
    assert!(world.bus.published().is_empty());
}

#[tokio::test]
async fn a_condition_publishes_only_if_the_channel_has_not_moved() {
    let world = World::new();
    let event = r#"{"channel":"a","data":1}"#;
    let with = |value: &'static str| [JSON, ("if-match", value)];
    assert_eq!(post(&world, &with("\"0\""), event).await.2, results(&[("a", "1-1", false)]));
    assert_eq!(post(&world, &with("\"1-1\""), &format!("[{event}]")).await.2, results(&[("a", "1-2", false)]));
    let problem = check_refused(&world, &with("1-1"), event, 412, "the channel has moved").await;
    assert_eq!(problem["position"], "1-2");
    let problem = check_refused(&world, &with("1-1"), r#"{"channel":"new","data":1}"#, 412, "moved").await;
    assert_eq!(problem["position"], "0");
    check_refused(&world, &with("\"x\""), event, 400, "If-Match takes one position").await;
    check_refused(&world, &with("1-2"), &format!("[{event},{event}]"), 400, "has 2 messages").await;
    check_refused(&world, &with("1-2"), r#"{"channels":["a","b"],"data":1}"#, 400, "has 2 messages").await;
    check_refused(&world, &with("1-2"), "[]", 400, "has 0 messages").await;
    check_refused(&world, &[("content-type", "application/x-ndjson"), ("if-match", "1-2")], event, 400, "ndjson").await;
}

#[tokio::test]
async fn cloudevents_come_in_three_modes() {
    let world = World::new();
    let event = r#"{"specversion":"1.0","id":"7","source":"/s","type":"t","channel":"c","data":{"a": 1}}"#;
    let structured = [("content-type", "application/cloudevents+json; charset=utf-8")];
    assert_eq!(post(&world, &structured, event).await.2, results(&[("c", "1-1", false)]));
    assert_eq!(post(&world, &structured, event).await.2, results(&[("c", "1-1", true)]));
    let batch = [("content-type", "application/cloudevents-batch+json")];
    let other = event.replace("\"7\"", "\"8\"");
    assert_eq!(
        post(&world, &batch, &format!("[{event},{other}]")).await.2,
        results(&[("c", "1-1", true), ("c", "1-2", false)])
    );
    let binary = [
        ("content-type", "text/plain"),
        ("ce-specversion", "1.0"),
        ("ce-id", "9"),
        ("ce-source", "/s"),
        ("ce-type", "t"),
        ("ce-subject", "d"),
    ];
    assert_eq!(post(&world, &binary, "hello").await.2, results(&[("d", "1-1", false)]));
    assert_eq!(world.bus.published(), [r#"c:{"a":1}"#, r#"c:{"a":1}"#, "d:hello"]);
    check_refused(&world, &binary[..4], "hello", 400, "\"type\" is missing").await;
    let problem = check_refused(&world, &batch, &format!("[{event},{{}}]"), 400, "event 1: \"specversion\"").await;
    assert_eq!(problem["index"], 1);
}

#[tokio::test]
async fn what_is_wrong_gets_its_status_and_a_remedy() {
    let world = World::new();
    let event = r#"{"channel":"a","data":1}"#;
    check_refused(&world, &[], event, 415, "without Content-Type").await;
    check_refused(&world, &[("content-type", "text/plain")], event, 415, "\"text/plain\" is not taken").await;
    check_refused(&world, &[JSON, ("content-encoding", "gzip")], event, 415, "compressed").await;
    check_refused(&world, &[JSON], "", 400, "the text ends where a value should follow").await;
    check_refused(&world, &[JSON], "{\"channel\":\"a\",\"id\":\"a\\nb\",\"data\":1}", 400, "\"id\" holds a CR").await;
    let large = format!(r#"{{"channel":"a","data":"{}"}}"#, "x".repeat(1000));
    let problem = check_refused(&world, &[JSON], &large, 413, "publish.max_body").await;
    assert_eq!(problem["max_bytes"], 1000);
    let problem =
        check_refused(&world, &[JSON], r#"{"channel":"small","data":"12345678901"}"#, 413, "max_message").await;
    assert_eq!((&problem["channel"], &problem["index"]), (&json!("small"), &Value::Null));
    let (_, headers, _) = post(&world, &[], event).await;
    assert!(headers[ACCEPT].to_str().expect("text").contains("application/x-ndjson"));
}

#[tokio::test]
async fn other_paths_and_methods_say_what_is_there() {
    let world = World::new();
    let send = async |method: &str, path: &str| {
        let response = world.send(method, path, &[JSON], "{}".to_owned().into()).await;
        let (head, body) = fake::read(response).await;
        (head.status.as_u16(), head.headers, String::from_utf8(body).expect("text"))
    };
    for method in ["GET", "PUT", "OPTIONS", "DELETE"] {
        let (status, headers, body) = send(method, "/v1/events").await;
        assert_eq!((status, headers[ALLOW].as_bytes()), (405, b"POST".as_slice()), "{body}");
    }
    assert_eq!(send("POST", "/").await.1[ALLOW], "GET, HEAD");
    assert_eq!(send("GET", "/hooks/none").await.1[ALLOW], "POST");
    for path in ["/v1/event", "/v1/events/", "/hooks"] {
        let (status, _, body) = send("POST", path).await;
        assert_eq!(status, 404);
        assert!(body.contains("POST events to /v1/events"), "{body}");
    }
    let (status, headers, body) = send("GET", "/").await;
    assert_eq!((status, headers[CONTENT_TYPE].as_bytes()), (200, b"text/plain; charset=utf-8".as_slice()));
    assert!(body.contains("curl"), "{body}");
    assert_eq!(send("HEAD", "/").await.2, "");
}

#[tokio::test]
async fn a_token_is_asked_for_before_the_body_is_read() {
    let world = World::with_tokens(&["one", "two"]);
    let event = r#"{"channel":"a","data":1}"#;
    check_refused(&world, &[JSON], "{", 401, "Authorization: Bearer").await;
    check_refused(&world, &[JSON, ("authorization", "Bearer three")], "{", 401, "no token that is accepted").await;
    assert_eq!(post(&world, &[JSON], event).await.1[WWW_AUTHENTICATE], "Bearer realm=\"pushbridge\"");
    let (status, ..) = post(&world, &[JSON, ("authorization", "Bearer two")], event).await;
    assert_eq!(status, StatusCode::OK);
}

#[tokio::test]
async fn bodies_are_read_in_pieces_and_within_bounds() {
    let world = World::new();
    let body = format!(r#"{{"channel":"a","data":"{}"}}"#, "x".repeat(900));
    let pieces: Vec<_> = body.as_bytes().chunks(7).map(<[u8]>::to_vec).collect();
    let response = world.send("POST", "/v1/events", &[JSON], fake::pieces(pieces)).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(world.bus.published(), [format!("a:{}", "x".repeat(900))]);
    let endless = fake::pieces(std::iter::repeat_with(|| vec![b' '; 100]).take(11));
    let response = world.send("POST", "/v1/events", &[JSON], endless).await;
    assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn a_body_that_stalls_or_breaks_off_ends() {
    let world = World::impatient();
    let (pieces, body) = fake::channel();
    pieces.send(Ok("{".into())).await.expect("room");
    let response = world.send("POST", "/v1/events", &[JSON], body).await;
    assert_eq!(response.status(), StatusCode::REQUEST_TIMEOUT);
    let (pieces, body) = fake::channel();
    pieces.send(Err("reset".into())).await.expect("room");
    let (status, problem) = fake::problem(world.send("POST", "/v1/events", &[JSON], body).await).await;
    assert_eq!((status, problem["detail"].as_str()), (400, Some("the body broke off: reset")));
}

#[tokio::test]
async fn settings_are_read_anew_for_each_request() {
    let world = World::new();
    let event = r#"{"channel":"a","data":1}"#;
    assert_eq!(post(&world, &[JSON], event).await.0, StatusCode::OK);
    world.require_token("one");
    check_refused(&world, &[JSON], event, 401, "credential").await;
}

#[test]
fn the_fake_bus_is_a_bus() {
    let _: std::sync::Arc<dyn crate::bus::Bus> = std::sync::Arc::new(FakeBus::default());
}
