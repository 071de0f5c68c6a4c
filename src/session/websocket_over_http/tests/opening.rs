//! OPEN, and what may be answered to it.

use super::*;

#[tokio::test(flavor = "local")]
async fn the_handshake_carries_the_backends_fields() {
    let mut stage = Stage::new();
    let client = [
        ("host", "h"),
        ("cookie", "a=1"),
        ("sec-websocket-key", "k"),
        ("grip-sig", "forged"),
        ("sec-websocket-protocol", "x, y"),
    ];
    let (head, start) = stage
        .open_with(&client, |asked| {
            assert_eq!(asked.fields.get("cookie").map(HeaderValue::as_bytes), Some(&b"a=1"[..]));
            assert_eq!(asked.fields.get("connection-id").map(HeaderValue::len), Some(36));
            assert!(!asked.fields.contains_key("grip-sig") && !asked.fields.contains_key("sec-websocket-key"));
            let fields = [
                ("content-type", "application/websocket-events"),
                ("sec-websocket-protocol", "y"),
                ("set-cookie", "s=1"),
                ("set-meta-user", "bob"),
            ];
            Stage::expect_body(asked, "OPEN\r\n").answer_with(200, &fields, "OPEN\r\n");
        })
        .await
        .expect("opened");
    assert_eq!(head.status(), StatusCode::SWITCHING_PROTOCOLS);
    assert_eq!(head.headers().get("sec-websocket-protocol").map(HeaderValue::as_bytes), Some(&b"y"[..]));
    assert!(head.headers().contains_key("set-cookie") && head.headers().len() == 2, "{head:?}");
    tokio::task::spawn_local(run(start, stage.client.clone()));
    stage.client.say("1");
    let asked = stage.expect("TEXT 1\r\n1\r\n").await;
    assert_eq!(asked.fields.get("meta-user").map(HeaderValue::as_bytes), Some(&b"bob"[..]));
}

#[tokio::test(flavor = "local")]
async fn the_backends_refusal_reaches_the_client_as_it_is() {
    let mut stage = Stage::new();
    let fields = [("content-type", "text/plain"), ("www-authenticate", "Basic"), ("set-meta-a", "b")];
    let refused = stage.open_with(&[], |asked| asked.answer_with(401, &fields, "who are you")).await.err();
    let response = refused.expect("refused").response(RequestId::next());
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert!(response.headers().contains_key("www-authenticate") && !response.headers().contains_key("set-meta-a"));
    let body = crate::server::body::read_whole(response.into_body(), 100).await.expect("a body");
    assert_eq!(&body[..], b"who are you");
}

#[tokio::test(flavor = "local")]
async fn what_is_no_answer_to_open_is_a_bad_gateway() {
    const EVENTS: (&str, &str) = ("content-type", "application/websocket-events");
    type Case = (u16, &'static [(&'static str, &'static str)], &'static str, &'static str);
    let cases: [Case; 6] = [
        (200, &[("content-type", "text/html")], "OPEN\r\n", "application/websocket-events"),
        (200, &[EVENTS], "TEXT 1\r\na\r\n", "begin with OPEN"),
        (200, &[EVENTS], "OPEN\r\nTEXT zz\r\na\r\n", "at byte 11"),
        (204, &[], "", "204"),
        (200, &[EVENTS, ("sec-websocket-extensions", "x")], "OPEN\r\n", "only `grip`"),
        (200, &[EVENTS, ("sec-websocket-protocol", "z")], "OPEN\r\n", "Sec-WebSocket-Protocol"),
    ];
    for (status, fields, body, detail) in cases {
        let mut stage = Stage::new();
        let refused = stage.open_with(&[], |asked| asked.answer_with(status, fields, body)).await.err();
        let response = refused.expect("refused").response(RequestId::next());
        assert_eq!(response.status(), StatusCode::BAD_GATEWAY);
        let text = crate::server::body::read_whole(response.into_body(), 10_000).await.expect("a body");
        assert!(String::from_utf8_lossy(&text).contains(detail), "{detail}: {}", text.escape_ascii());
        if status == 200 {
            stage.expect("DISCONNECT\r\n").await;
        }
    }
}

#[tokio::test(flavor = "local")]
async fn an_answer_over_its_bound_is_refused() {
    let mut stage = Stage::new();
    let fields = [("content-type", "application/websocket-events")];
    let body = format!("OPEN\r\nTEXT 13d620\r\n{}\r\n", "x".repeat(1_300_000));
    let refused = stage.open_with(&[], |asked| asked.answer_with(200, &fields, &body)).await.err();
    assert!(refused.expect("refused").to_string().contains("over 1300000 bytes"));
    stage.expect("DISCONNECT\r\n").await;
}

#[tokio::test(flavor = "local")]
async fn no_answer_is_told_apart_by_its_cause() {
    let cases = [
        (BackendError::NotProcessed("refused".into()), StatusCode::SERVICE_UNAVAILABLE),
        (BackendError::TimedOut("slow".into()), StatusCode::GATEWAY_TIMEOUT),
        (BackendError::Broken("reset".into()), StatusCode::BAD_GATEWAY),
    ];
    for (error, status) in cases {
        let is_unknown = !matches!(error, BackendError::NotProcessed(_));
        let mut stage = Stage::new();
        let refused = stage.open_with(&[], |asked| drop(asked.answer.send(Err(error)))).await.err();
        assert_eq!(refused.expect("refused").response(RequestId::next()).status(), status);
        if is_unknown {
            stage.expect("DISCONNECT\r\n").await;
        }
    }
}

#[tokio::test(flavor = "local")]
async fn a_client_that_goes_while_opening_gives_the_backend_disconnect() {
    let mut stage = Stage::new();
    let opening = tokio::task::spawn_local(stage.opening(HeaderMap::new()));
    let asked = stage.asked().await;
    opening.abort();
    assert!(within(opening).await.is_err(), "the future is dropped");
    asked.answer("OPEN\r\n");
    stage.expect("DISCONNECT\r\n").await;

    let opening = tokio::task::spawn_local(stage.opening(HeaderMap::new()));
    let asked = stage.asked().await;
    opening.abort();
    assert!(within(opening).await.is_err(), "the future is dropped");
    asked.answer_with(403, &[], "");
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert!(stage.asked.try_recv().is_err(), "it never opened");
}

#[tokio::test(flavor = "local")]
async fn a_session_that_never_runs_gives_the_backend_disconnect() {
    let mut stage = Stage::new();
    let opened = stage.open_with(&[], |asked| asked.answer("OPEN\r\n")).await.expect("opened");
    drop(opened);
    stage.expect("DISCONNECT\r\n").await;
}

#[tokio::test(flavor = "local", start_paused = true)]
async fn an_answer_whose_body_does_not_come_is_given_up() {
    let mut stage = Stage::new();
    let opening = tokio::task::spawn_local(stage.opening(HeaderMap::new()));
    let asked = stage.asked().await;
    // Its length says more than what comes, and the connection stands.
    let frames = futures_util::stream::pending::<Result<http_body::Frame<Bytes>, crate::server::body::BodyError>>();
    let body = Body::boxed(http_body_util::StreamBody::new(frames));
    let _ = asked.answer.send(Ok(http::Response::new(body)));
    let refused = opening.await.expect("no panic").err().expect("refused");
    assert_eq!(refused.status(), StatusCode::GATEWAY_TIMEOUT);
    stage.expect("DISCONNECT\r\n").await;
}
