//! What clients say, what the backend answers, and in which order.

use super::{ALL, JSON, Stage, TEXT_PLAIN, assert_works};
use crate::support::client::Http;
use crate::support::socket::{BINARY, PING, PONG, TEXT};

const BYTES: (&str, &str) = ("content-type", "application/octet-stream");

#[tokio::test]
async fn messages_are_events_and_answers_are_messages() {
    let mut stage = Stage::validated().await;
    for http in ALL {
        let mut socket = stage.open(http, r#"{"userId":"bob"}"#).await;
        socket.send(TEXT, "grüße").await;
        let asked = stage.message("grüße").await;
        assert_eq!(asked.field("ce-type"), "azure.webpubsub.user.message");
        assert_eq!((asked.field("ce-id"), asked.field("ce-userid")), ("2", "bob"));
        asked.answer(200, &[("content-type", "text/plain; charset=utf-8")], "GRÜSSE");
        socket.expect(TEXT, "GRÜSSE").await;
        socket.send(BINARY, b"\x00\xff").await;
        let asked = stage.event("message").await;
        assert_eq!((asked.field("content-type"), &asked.body[..]), ("application/octet-stream", &b"\x00\xff"[..]));
        asked.answer(200, &[BYTES], &b"\xff\x00"[..]);
        socket.expect(BINARY, b"\xff\x00").await;
        socket.send(TEXT, "{\"a\":1}").await;
        stage.message("{\"a\":1}").await.answer(201, &[JSON], "{\"b\": 2}");
        socket.expect(TEXT, "{\"b\": 2}").await;
        // Nothing comes back.
        for (status, fields) in [(204, &[][..]), (200, &[TEXT_PLAIN][..]), (200, &[("content-type", "text/html")][..])]
        {
            socket.send(TEXT, "").await;
            stage.message("").await.answer(status, fields, "");
        }
        socket.send(PING, "p").await;
        socket.expect(PONG, "p").await;
        assert_works(&mut stage, &mut socket).await;
        drop(socket);
        stage.disconnected("client_gone").await;
    }
}

#[tokio::test]
async fn the_state_comes_back_with_each_event() {
    let mut stage = Stage::validated().await;
    let mut socket = stage.open(Http::H1, "").await;
    let mut state = "";
    for (given, next) in [(Some("b25l"), "b25l"), (None, "b25l"), (Some("dHdv"), "dHdv"), (Some(""), "")] {
        socket.send(TEXT, "x").await;
        let asked = stage.message("x").await;
        assert_eq!(asked.field("ce-connectionstate"), state);
        let given: Vec<_> = given.map(|given| ("ce-connectionState", given)).into_iter().collect();
        asked.answer(204, &given, "");
        state = next;
    }
    socket.send(TEXT, "x").await;
    let asked = stage.message("x").await;
    assert!(!asked.fields.contains_key("ce-connectionstate"));
    asked.answer(204, &[("ce-connectionState", "bGFzdA==")], "");
    socket.close(1000, "").await;
    let asked = stage.event("disconnected").await;
    assert_eq!((asked.field("ce-connectionstate"), &asked.body[..]), ("bGFzdA==", &br#"{"reason":"done"}"#[..]));
    asked.answer(200, &[], "");
}

#[tokio::test]
async fn messages_wait_for_connected_and_for_each_other() {
    let mut stage = Stage::validated().await;
    let opening = crate::support::socket::Socket::open(Http::H1, stage.at(Http::H1), "/chat/x", &[]);
    let (mut socket, ()) = tokio::join!(opening, async { stage.event("connect").await.answer(200, &[JSON], "") });
    for text in ["1", "2", "3"] {
        socket.send(TEXT, text).await;
    }
    let connected = stage.event("connected").await;
    // What is published goes its own way meanwhile.
    let id = connected.field("ce-connectionid").to_owned();
    stage.publish(&format!("chat.connection.{id}"), "published").await;
    socket.expect(TEXT, "published").await;
    assert!(stage.backend.is_quiet());
    // Given up.
    connected.answer(500, &[TEXT_PLAIN], "");
    for text in ["1", "2", "3"] {
        let asked = stage.message(text).await;
        assert!(stage.backend.is_quiet());
        asked.answer(200, &[TEXT_PLAIN], text);
    }
    for text in ["1", "2", "3"] {
        socket.expect(TEXT, text).await;
    }
    super::wait_for_metric(&stage.proxy, "pushbridge_bridge_ignored_total{what=\"event_given_up\"} 1").await;
}

#[tokio::test]
async fn a_message_waits_for_a_backend_that_is_down() {
    let mut stage = Stage::validated().await;
    let mut socket = stage.open(Http::H1, "").await;
    // No connection is kept: what is sent on one just when it closes may have been processed, and is not sent again.
    socket.send(TEXT, "last").await;
    stage.message("last").await.answer(200, &[TEXT_PLAIN, ("connection", "close")], "");
    stage.backend.go_down().await;
    socket.send(TEXT, "patient").await;
    while stage.proxy.logged("upstream attempt failed").is_empty() && !failed_to_connect(&stage).await {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    stage.backend.come_up().await;
    // It may be another server by now.
    stage.validate("*").await;
    stage.message("patient").await.answer(200, &[TEXT_PLAIN], "here");
    socket.expect(TEXT, "here").await;
    assert_works(&mut stage, &mut socket).await;
}

async fn failed_to_connect(stage: &Stage) -> bool {
    let admin = stage.proxy.address("admin");
    let answer =
        crate::support::client::send(Http::H1, admin, crate::support::client::get(admin, "/metrics", &[])).await;
    let failed = "pushbridge_upstream_requests_total{upstream=\"plain\",result=\"connect_failed\"} ";
    answer.text().lines().any(|line| line.strip_prefix(failed).is_some_and(|count| count != "0"))
}
