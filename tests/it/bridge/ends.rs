//! How a bridged WebSocket ends, and who is told.

use super::{ALL, BOTH, Stage, assert_works};
use crate::support::bridge_backend::{Asked, control, event};
use crate::support::client::{Http, publish};
use crate::support::socket::{BINARY, CLOSE, PING, TEXT};

#[tokio::test]
async fn the_backend_closes_the_client() {
    let mut stage = Stage::new().await;
    for http in ALL {
        let mut socket = stage.open(http, "").await;
        socket.send(TEXT, "x").await;
        let close = [event("TEXT", "m:last"), "CLOSE 5\r\n\x0f\x6bwhy\r\n".to_owned()].concat();
        stage.backend.expect("TEXT 1\r\nx\r\n").await.grip(&close);
        socket.expect(TEXT, "last").await;
        assert_eq!(socket.expect_close(3947).await, "why", "{http:?}");
        // Codes that may not appear on the wire.
        for code in [&b"\x00\x00"[..], b"\x03\xed", b"\x03\xee"] {
            let mut socket = stage.open(http, "").await;
            socket.send(TEXT, "x").await;
            let body = [b"CLOSE 2\r\n", code, b"\r\n"].concat();
            stage.backend.expect("TEXT 1\r\nx\r\n").await.answer(200, &[], body);
            socket.expect(CLOSE, "").await;
            socket.send(CLOSE, "").await;
            assert!(socket.next().await.is_none());
        }
        // At once, with the answer to OPEN.
        let mut socket = stage.open(http, "CLOSE 2\r\n\x0f\x6b\r\n").await;
        socket.expect_close(3947).await;
        let mut socket = stage.open(http, "DISCONNECT\r\n").await;
        assert!(socket.next().await.is_none(), "{http:?}: no close frame");
    }
    // The backend was told nothing of ends that it made.
    stage.open(Http::H1, "").await;
    stage.wait_for_metric("pushbridge_hub_sessions_closed_total{transport=\"websocket\",reason=\"backend\"} 24").await;
}

#[tokio::test]
async fn the_client_closes_and_gets_the_backends_answer() {
    let mut stage = Stage::new().await;
    for http in ALL {
        let mut socket = stage.open(http, "").await;
        socket.send(TEXT, "x").await;
        socket.close(3947, "bye").await;
        let asked = stage.backend.asked().await;
        let close = "CLOSE 5\r\n\x0f\x6bbye\r\n";
        let rest = match String::from_utf8_lossy(&asked.body).into_owned() {
            both if both.ends_with(close) => {
                assert_eq!(both, format!("TEXT 1\r\nx\r\n{close}"));
                asked
            }
            text => {
                assert_eq!(text, "TEXT 1\r\nx\r\n");
                asked.grip("");
                stage.backend.expect(close).await
            }
        };
        rest.grip(&[event("TEXT", "m:last"), "CLOSE 4\r\n\x0f\x6cok\r\n".to_owned()].concat());
        socket.expect(TEXT, "last").await;
        assert_eq!(socket.expect_close_after_own(3948).await, "ok", "{http:?}");
        // Without a code, and an answer that says nothing.
        let mut socket = stage.open(http, "").await;
        socket.send(CLOSE, "").await;
        stage.backend.expect("CLOSE\r\n").await.grip("");
        socket.expect(CLOSE, "").await;
        assert!(socket.next().await.is_none());
        let mut socket = stage.open(http, "").await;
        socket.close(1001, "").await;
        stage.backend.expect("CLOSE 2\r\n\x03\u{fffd}\r\n").await.answer(500, &[], "");
        socket.expect_close_after_own(1011).await;
    }
    stage.open(Http::H1, "").await;
}

#[tokio::test]
async fn a_client_that_vanishes_gives_the_backend_disconnect() {
    let mut stage = Stage::new().await;
    for http in ALL {
        let socket = stage.open(http, "").await;
        drop(socket);
        stage.backend.expect("DISCONNECT\r\n").await.grip("");
        // In the middle of a request, with a message that waits.
        let mut socket = stage.open(http, "").await;
        socket.send(TEXT, "1").await;
        let asked = stage.backend.expect("TEXT 1\r\n1\r\n").await;
        socket.send(TEXT, "2").await;
        socket.send(PING, "").await;
        socket.next().await;
        drop(socket);
        stage.wait_for_metric("pushbridge_hub_sessions_open{transport=\"websocket\"} 0").await;
        asked.grip("TEXT 3\r\nm:x\r\n");
        stage.backend.expect("TEXT 1\r\n2\r\nDISCONNECT\r\n").await.grip("");
    }
    stage
        .wait_for_metric("pushbridge_hub_sessions_closed_total{transport=\"websocket\",reason=\"client_gone\"} 8")
        .await;
    stage.wait_for_metric("pushbridge_hub_sessions_open{transport=\"websocket\"} 0").await;
}

#[tokio::test]
async fn a_client_that_breaks_the_protocol_is_told_how() {
    let mut stage = Stage::new().await;
    for http in BOTH {
        for (code, opcode, payload) in [
            (1007, TEXT, vec![0xff]),
            (1002, 3, Vec::new()),
            (1009, BINARY, vec![0; 64 * 1024 + 1]),
            (1002, PING, vec![0; 126]),
        ] {
            let mut socket = stage.open(http, "").await;
            socket.send(opcode, &payload).await;
            socket.expect_close(code).await;
            stage.backend.expect("DISCONNECT\r\n").await.grip("");
        }
        let mut socket = stage.open(http, "").await;
        socket.send_raw(b"\x81\x01x").await;
        socket.expect_close(1002).await;
        stage.backend.expect("DISCONNECT\r\n").await.grip("");
    }
}

#[tokio::test]
async fn a_backend_that_fails_in_the_middle_closes_the_client() {
    let mut stage = Stage::new().await;
    let events = ("content-type", "application/websocket-events");
    let answers: [&dyn Fn(Asked); 6] = [
        &|asked| asked.answer(200, &[events], "nonsense"),
        &|asked| asked.answer(200, &[events], "TEXT 5\r\nm:x\r\n"),
        &|asked| asked.answer(200, &[("content-type", "text/html")], "TEXT 3\r\nm:x\r\n"),
        &|asked| asked.answer(500, &[events], "TEXT 3\r\nm:x\r\n"),
        &|asked| asked.answer(200, &[events], "x".repeat(1_100_000)),
        &drop,
    ];
    for http in BOTH {
        for answer in answers {
            let mut socket = stage.open(http, "").await;
            socket.send(TEXT, "x").await;
            answer(stage.backend.expect("TEXT 1\r\nx\r\n").await);
            socket.expect_close(1011).await;
            stage.backend.expect("DISCONNECT\r\n").await.grip("");
        }
    }
    stage.wait_for_metric("pushbridge_hub_sessions_closed_total{transport=\"websocket\",reason=\"upstream\"} 12").await;
}

#[tokio::test]
async fn a_backend_that_restarts_is_asked_again() {
    let mut stage = Stage::new().await;
    let mut socket = stage.open(Http::H1, "").await;
    stage.backend.go_down().await;
    socket.send(TEXT, "x").await;
    stage.wait_for_metric("pushbridge_upstream_requests_total{upstream=\"plain\",result=\"connect_failed\"} 1").await;
    stage.backend.come_up().await;
    stage.backend.expect("TEXT 1\r\nx\r\n").await.grip(&event("TEXT", "m:here"));
    socket.expect(TEXT, "here").await;
    assert_works(&mut stage, &mut socket).await;
}

#[tokio::test]
async fn a_client_that_shows_no_sign_of_life_is_closed() {
    let mut stage = Stage::new().await;
    let mut sockets = Vec::new();
    for http in BOTH {
        sockets.push(stage.open_on(http, "/quick", &[], "").await);
    }
    for mut socket in sockets {
        socket.expect(PING, "").await;
        socket.expect_close(4408).await;
        stage.backend.expect("DISCONNECT\r\n").await.grip("");
    }
}

#[tokio::test]
async fn sessions_are_counted() {
    let mut stage = Stage::new().await;
    let mut sockets = Vec::new();
    for http in ALL {
        sockets.push(stage.open(http, &control(r#"{"type":"subscribe","channel":"n"}"#)).await);
    }
    stage.wait_for_metric("pushbridge_hub_sessions_open{transport=\"websocket\"} 4").await;
    stage.wait_for_metric("pushbridge_hub_sessions_opened_total{transport=\"websocket\"} 4").await;
    stage.wait_for_metric("pushbridge_gateway_requests_total{route=\"chat\",status_class=\"1xx\"} 2").await;
    stage.wait_for_metric("pushbridge_gateway_requests_total{route=\"chat\",status_class=\"2xx\"} 2").await;
    stage.wait_for_metric("pushbridge_upstream_requests_total{upstream=\"plain\",result=\"ok\"} 4").await;
    for mut socket in sockets {
        socket.close(1000, "").await;
        stage.backend.asked().await.grip("");
        socket.expect_close_after_own(1000).await;
    }
    stage.wait_for_metric("pushbridge_hub_sessions_closed_total{transport=\"websocket\",reason=\"done\"} 4").await;
    let answer = publish(stage.proxy.address("publish"), r#"{"channel":"n","data":1}"#).await;
    assert_eq!(answer.json()["results"][0]["local_sessions"], 0, "{}", answer.text());
}

#[tokio::test]
async fn the_end_of_the_process_is_told_to_both_sides() {
    let mut stage = Stage::new().await;
    let mut sockets = Vec::new();
    for http in ALL {
        sockets.push(stage.open(http, "").await);
    }
    // One with a request under way.
    sockets[0].send(TEXT, "x").await;
    let asked = stage.backend.expect("TEXT 1\r\nx\r\n").await;
    let Stage { proxy, mut backend } = stage;
    let ended = tokio::task::spawn_blocking(move || proxy.terminate());
    let mut first = sockets.remove(0);
    for mut socket in sockets {
        socket.expect_close(1012).await;
        backend.expect("DISCONNECT\r\n").await.grip("");
    }
    first.expect_close(1012).await;
    asked.grip("");
    backend.expect("DISCONNECT\r\n").await.grip("");
    assert_eq!(ended.await.expect("waited").code(), Some(0));
}
