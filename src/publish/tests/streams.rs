//! NDJSON: lines in, lines out.

use super::fake::{self, World};
use bytes::Bytes;
use http::StatusCode;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use std::convert::Infallible;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::LocalSet;

const NDJSON: [(&str, &str); 1] = [("content-type", "application/x-ndjson")];

/// Posts all of `pieces` and reads the answers.
async fn stream(world: &World, pieces: &[&str]) -> Vec<Value> {
    let pieces: Vec<_> = pieces.iter().map(|piece| piece.as_bytes().to_vec()).collect();
    let answers = async {
        let response = world.send("POST", "/v1/events", &NDJSON, fake::pieces(pieces)).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["content-type"], "application/x-ndjson");
        fake::read(response).await.1
    };
    let answers = String::from_utf8(LocalSet::new().run_until(answers).await).expect("text");
    assert!(answers.is_empty() || answers.ends_with('\n'));
    answers.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

fn accepted(channel: &str, position: &str) -> Value {
    json!({"results": [{"channel": channel, "position": position, "duplicate": false, "local_sessions": 3}]})
}

#[track_caller]
fn check_error(answer: &Value, line: u64, status: u16, text: &str) {
    assert_eq!((&answer["line"], &answer["status"]), (&json!(line), &json!(status)), "{answer}");
    let error = answer["error"].as_str().expect("an error");
    assert!(error.contains(text), "{error} has no {text:?}");
}

#[tokio::test]
async fn each_line_is_answered_before_the_next_one_comes() {
    let world = World::new();
    let answers = async {
        let (pieces, body) = fake::channel();
        let mut answers = world.send("POST", "/v1/events", &NDJSON, body).await.into_body();
        for number in 1..=3 {
            let line = Bytes::from(format!("{{\"channel\":\"a\",\"data\":{number}}}\n"));
            pieces.send(Ok(line)).await.expect("room");
            let frame = answers.frame().await.expect("an answer").expect("no error");
            let answer: Value = serde_json::from_slice(&frame.into_data().expect("data")).expect("JSON");
            assert_eq!(answer, accepted("a", &format!("1-{number}")));
        }
        drop(pieces);
        assert!(answers.frame().await.is_none());
    };
    LocalSet::new().run_until(answers).await;
    assert_eq!(world.bus.published(), ["a:1", "a:2", "a:3"]);
    assert_eq!(world.bus.paced(), ["a", "a", "a"]);
}

#[tokio::test]
async fn lines_are_answered_over_http_while_the_request_is_sent() {
    let world = World::new();
    let (mut client, server) = tokio::io::duplex(4096);
    let service = hyper::service::service_fn(async |request: http::Request<hyper::body::Incoming>| {
        Ok::<_, Infallible>(
            world.handle(request.map(|body| crate::server::body::Body::boxed(body.map_err(Into::into)))).await,
        )
    });
    let connection =
        hyper::server::conn::http1::Builder::new().serve_connection(hyper_util::rt::TokioIo::new(server), service);
    let exchange = async {
        let head = "POST /v1/events HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\
            Content-Type: application/x-ndjson\r\n\r\n";
        client.write_all(head.as_bytes()).await.expect("a server");
        let mut answer = String::new();
        let mut piece = [0; 1024];
        for number in 1..=3 {
            let chunk = format!("19\r\n{{\"channel\":\"a\",\"data\":{number}}}\n\r\n");
            client.write_all(chunk.as_bytes()).await.expect("a server");
            let position = format!("\"position\":\"1-{number}\"");
            while !answer.contains(&position) {
                let read = client.read(&mut piece).await.expect("a server");
                assert_ne!(read, 0, "{answer}");
                answer.push_str(std::str::from_utf8(&piece[..read]).expect("text"));
            }
        }
        client.write_all(b"0\r\n\r\n").await.expect("a server");
        client.read_to_string(&mut answer).await.expect("a server");
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n0\r\n\r\n"), "{answer}");
    };
    let (served, ()) = LocalSet::new().run_until(async { tokio::join!(connection, exchange) }).await;
    served.expect("a clean end");
}

#[tokio::test]
async fn broken_lines_are_named_and_the_rest_goes_on() {
    let world = World::new();
    let answers = stream(
        &world,
        &[
            "{\"channel\":\"a\",\"da",
            "ta\":1}\n{\"channel\":\n\n  \r\n{\"channel\":\"small\",\"data\":\"12345678901\"}\r\n[]\n",
            "{\"channels\":[\"a\",\"b\"],\"data\":2}",
        ],
    )
    .await;
    assert_eq!(answers.len(), 5);
    assert_eq!(answers[0], accepted("a", "1-1"));
    check_error(&answers[1], 2, 400, "the text ends");
    check_error(&answers[2], 5, 413, "\"small\" takes");
    check_error(&answers[3], 6, 400, "an array is no event");
    assert_eq!(answers[4]["results"].as_array().map(Vec::len), Some(2));
    assert_eq!(world.bus.published(), ["a:1", "a:2", "b:2"]);
}

#[tokio::test]
async fn nothing_is_answered_with_nothing() {
    let world = World::new();
    assert_eq!(stream(&world, &[]).await, Vec::<Value>::new());
    assert_eq!(stream(&world, &["\n\n \n"]).await, Vec::<Value>::new());
}

#[tokio::test]
async fn a_line_that_is_too_long_is_skipped() {
    let world = World::new();
    let good = "{\"channel\":\"a\",\"data\":1}\n";
    let long = "x".repeat(700);
    // Over the bound while it comes, over it at its line feed, and over it at the end.
    let whole = "y".repeat(1001) + "\n";
    let answers = stream(&world, &[good, &long, &long, &long, "\n", good, &whole, good, &long, &long]).await;
    assert_eq!(answers.len(), 6);
    check_error(&answers[1], 2, 413, "the line is over 1000 bytes");
    assert_eq!(answers[2], accepted("a", "1-2"));
    check_error(&answers[3], 4, 413, "the line is over");
    assert_eq!(answers[4], accepted("a", "1-3"));
    check_error(&answers[5], 6, 413, "the line is over");
}

#[tokio::test]
async fn a_line_that_the_bus_does_not_take_tells_what_was_published() {
    let world = World::new();
    world.bus.fail_after(1);
    let answers = stream(&world, &["{\"channels\":[\"a\",\"b\"],\"data\":1}\n{\"channel\":\"c\",\"data\":1}\n"]).await;
    check_error(&answers[0], 1, 503, "the bus is down");
    assert_eq!(answers[0]["results"], accepted("a", "1-1")["results"]);
    check_error(&answers[1], 2, 503, "the bus is down");
    assert_eq!(answers[1]["results"], json!([]));
}

#[tokio::test]
async fn a_stream_that_stalls_ends_with_an_error() {
    let world = World::impatient();
    let answers = async {
        let (pieces, body) = fake::channel();
        pieces.send(Ok("{\"channel\":\"a\",\"data\":1}\n{".into())).await.expect("room");
        let answers = fake::read(world.send("POST", "/v1/events", &NDJSON, body).await).await.1;
        (pieces, String::from_utf8(answers).expect("text"))
    };
    let (_pieces, answers) = LocalSet::new().run_until(answers).await;
    let last: Value = serde_json::from_str(answers.lines().last().expect("a line")).expect("JSON");
    check_error(&last, 2, 408, "nothing more of the body came");
}

#[tokio::test]
async fn a_client_that_goes_ends_the_reading() {
    let world = World::new();
    let done = async {
        let (pieces, body) = fake::channel();
        drop(world.send("POST", "/v1/events", &NDJSON, body).await);
        pieces.closed().await;
    };
    LocalSet::new().run_until(done).await;
}

#[tokio::test]
async fn a_client_that_takes_no_answers_is_given_up() {
    let world = World::impatient();
    let done = async {
        let (pieces, body) = fake::channel();
        let _response = world.send("POST", "/v1/events", &NDJSON, body).await;
        // More lines than answers may wait: at some point the reader stops to take them, and then ends.
        let line = Bytes::from("{\"channel\":\"a\",\"data\":1}\n".repeat(100));
        while pieces.send(Ok(line.clone())).await.is_ok() {}
    };
    LocalSet::new().run_until(done).await;
    assert!(world.bus.published().len() < 1000);
}

#[tokio::test]
async fn a_body_that_breaks_off_publishes_no_half_line() {
    let world = World::new();
    let answers = async {
        let (pieces, body) = fake::channel();
        pieces.send(Ok("{\"channel\":\"a\",\"data\":1}".into())).await.expect("room");
        pieces.send(Err("reset".into())).await.expect("room");
        fake::read(world.send("POST", "/v1/events", &NDJSON, body).await).await.1
    };
    let answers = LocalSet::new().run_until(answers).await;
    check_error(&serde_json::from_slice(&answers).expect("JSON"), 1, 400, "broke off");
    assert!(world.bus.published().is_empty());
}

/// A bus elsewhere has several lines at a time, but one of each channel; what is refused here keeps its place.
#[tokio::test]
async fn lines_of_several_channels_are_under_way_together() {
    let world = World::new();
    let gate = world.bus.close_gate();
    let lines = ["a", "b", "?", "a", "c", "c"].iter().zip(1..);
    let body: String =
        lines.map(|(channel, number)| format!("{{\"channel\":\"{channel}\",\"data\":{number}}}\n")).collect();
    let body = body.replace("{\"channel\":\"?\",\"data\":3}", "nonsense");
    let at_gate = || {
        let mut channels = world.bus.at_gate();
        channels.sort();
        channels
    };
    let wait_for = async |channels: &[&str]| {
        while at_gate() != channels {
            tokio::task::yield_now().await;
        }
        // What else would come, comes.
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        assert_eq!(at_gate(), channels);
    };
    let answers = async {
        let response = world.send("POST", "/v1/events", &NDJSON, fake::pieces([body.into_bytes()])).await;
        wait_for(&["a", "b"]).await;
        gate.add_permits(1);
        wait_for(&["a", "a", "b", "c"]).await;
        gate.add_permits(2);
        // The next line of c waits for the first, which is behind a.
        wait_for(&["a", "a", "b", "c"]).await;
        gate.add_permits(2);
        fake::read(response).await.1
    };
    let answers = LocalSet::new().run_until(tokio::time::timeout(std::time::Duration::from_secs(20), answers)).await;
    let answers = String::from_utf8(answers.expect("in time")).expect("text");
    let answers: Vec<Value> = answers.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    check_error(&answers[2], 3, 400, "");
    let accepted = [(0, "a", "1-1"), (1, "b", "1-1"), (3, "a", "1-2"), (4, "c", "1-1"), (5, "c", "1-2")];
    for (at, channel, position) in accepted {
        assert_eq!(answers[at], self::accepted(channel, position));
    }
    let mut published = world.bus.published();
    published.sort();
    assert_eq!(published, ["a:1", "a:4", "b:2", "c:5", "c:6"]);
}
