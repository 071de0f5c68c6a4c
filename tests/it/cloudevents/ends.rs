//! How such a WebSocket ends, and that the backend hears of it last and once.

use super::{ALL, JSON, Stage, TEXT_PLAIN, assert_works, wait_for_metric};
use crate::support::client::Http;
use crate::support::socket::{BINARY, PING, PONG, Socket, TEXT};

#[tokio::test]
async fn the_client_closes() {
    let mut stage = Stage::validated().await;
    for http in ALL {
        let mut socket = stage.open(http, "").await;
        socket.send(TEXT, "last").await;
        socket.close(3947, "bye").await;
        let asked = stage.message("last").await;
        // It need not wait for the backend.
        assert_eq!(socket.expect_close_after_own(3947).await, "bye", "{http:?}");
        asked.answer(200, &[TEXT_PLAIN], "too late");
        stage.disconnected("done").await;
    }
    wait_for_metric(&stage.proxy, "pushbridge_hub_sessions_closed_total{transport=\"websocket\",reason=\"done\"} 4")
        .await;
    assert!(stage.backend.is_quiet());
}

#[tokio::test]
async fn a_client_that_vanishes_is_disconnected() {
    let mut stage = Stage::validated().await;
    for http in ALL {
        // While it waits for the answer to `connect`.
        let (to, path) = (stage.at(http), "/chat/x");
        let opening = tokio::spawn(Socket::try_open(http, to, path, &[]));
        let asked = stage.event("connect").await;
        opening.abort();
        let _ = opening.await;
        // The proxy sees the end once it reads; what it makes of an answer before that is a session that ends at once.
        asked.answer(200, &[JSON], "");
        let mut next = stage.backend.asked().await;
        if next.field("ce-eventname") == "connected" {
            next.answer(200, &[], "");
            next = stage.backend.asked().await;
        }
        assert_eq!((next.field("ce-eventname"), &next.body[..]), ("disconnected", &br#"{"reason":"client_gone"}"#[..]));
        next.answer(200, &[], "");
        // With messages under way.
        let mut socket = stage.open(http, "").await;
        socket.send(TEXT, "1").await;
        let asked = stage.message("1").await;
        socket.send(TEXT, "2").await;
        // Once the pong is there, the message before it was read.
        socket.send(PING, "").await;
        socket.expect(PONG, "").await;
        drop(socket);
        asked.answer(204, &[], "");
        stage.message("2").await.answer(200, &[TEXT_PLAIN], "nobody hears it");
        stage.disconnected("client_gone").await;
    }
    assert!(stage.backend.is_quiet());
}

#[tokio::test]
async fn a_client_that_breaks_the_rules_is_closed() {
    let mut stage = Stage::validated().await;
    let mut socket = stage.open(Http::H1, "").await;
    socket.send(BINARY, vec![0; 65 * 1024]).await;
    socket.expect_close(1009).await;
    stage.disconnected("too_big").await;
    let mut socket = stage.open(Http::H1, "").await;
    socket.send(TEXT, b"\xff").await;
    socket.expect_close(1007).await;
    stage.disconnected("bad_utf8").await;
}

#[tokio::test]
async fn the_end_of_the_process_is_told_to_both_sides() {
    let mut stage = Stage::validated().await;
    let mut sockets = Vec::new();
    for http in ALL {
        sockets.push(stage.open(http, "").await);
    }
    // One with an event under way.
    sockets[0].send(TEXT, "x").await;
    let asked = stage.message("x").await;
    let Stage { proxy, mut backend } = stage;
    let ended = tokio::task::spawn_blocking(move || proxy.terminate());
    let mut first = sockets.remove(0);
    for mut socket in sockets {
        socket.expect_close(1012).await;
        let told = backend.asked().await;
        assert_eq!((told.field("ce-eventname"), &told.body[..]), ("disconnected", &br#"{"reason":"drain"}"#[..]));
        told.answer(200, &[], "");
    }
    first.expect_close(1012).await;
    asked.answer(204, &[], "");
    let told = backend.asked().await;
    assert_eq!(told.field("ce-eventname"), "disconnected");
    told.answer(200, &[], "");
    assert_eq!(ended.await.expect("waited").code(), Some(0));
    assert!(backend.is_quiet());
}

#[tokio::test]
async fn a_forced_end_is_told_to_the_backend() {
    let mut stage = Stage::validated().await;
    let socket = stage.open(Http::H1, "").await;
    stage.proxy.stop();
    // The client does not answer the close frame; a second signal forces.
    stage.proxy.signal("TERM");
    stage.disconnected("drain").await;
    drop(socket);
    let Stage { proxy, backend } = stage;
    let ended = tokio::task::spawn_blocking(move || proxy.wait());
    assert_eq!(ended.await.expect("waited").code(), Some(0));
    assert!(backend.is_quiet());
}

#[tokio::test]
async fn sessions_are_counted_and_closed_like_all_others() {
    let mut stage = Stage::validated().await;
    let mut socket = stage.open(Http::H2c, r#"{"groups":["n"]}"#).await;
    wait_for_metric(&stage.proxy, "pushbridge_hub_sessions_open{transport=\"websocket\"} 1").await;
    assert_works(&mut stage, &mut socket).await;
    let admin = stage.proxy.address("admin");
    let close = crate::support::client::post(admin, "/sessions/close?channel=n&window=0s", &[], "");
    assert!(crate::support::client::send(Http::H1, admin, close).await.status.is_success());
    socket.expect_close(1012).await;
    stage.disconnected("operator").await;
    assert_eq!(stage.publish("n", "x").await, 0);
}
