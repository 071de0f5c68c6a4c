//! How a session ends, and who hears of it.

use super::*;

#[tokio::test(flavor = "local")]
async fn ends_from_here_have_a_code_and_give_the_backend_disconnect() {
    let gap = Gap { channels: Vec::new(), reason: GapReason::Evicted };
    for (delivery, code, reason) in [
        (Delivery::End(CloseReason::Drain), 1012, "drain"),
        (Delivery::End(CloseReason::Slow), 4413, "slow"),
        (Delivery::Gap(gap), 4001, "gap"),
    ] {
        let mut stage = Stage::new();
        let session = stage.start("").await;
        stage.hub.deliver(delivery);
        assert_eq!(stage.client.frame().await, closed(code, reason));
        stage.expect("DISCONNECT\r\n").await.answer("");
        assert!(!session.is_finished(), "the client's close is awaited");
        stage.client.say("frames before it are too late");
        stage.client.send(8, &code.to_be_bytes());
        within(session).await.expect("no panic");
        assert!(stage.client.0.is_finished.get() && stage.asked.try_recv().is_err());
    }
}

#[tokio::test(flavor = "local")]
async fn a_client_that_breaks_the_protocol_is_closed_with_the_reason() {
    let send_bad_text = |client: &TestClient| client.send(1, b"\xff");
    let send_big = |client: &TestClient| client.send(2, &vec![0; 300_001]);
    let send_unknown = |client: &TestClient| client.send(3, b"");
    type Case<'a> = (&'a dyn Fn(&TestClient), u16);
    let cases: [Case<'_>; 3] = [(&send_bad_text, 1007), (&send_big, 1009), (&send_unknown, 1002)];
    for (send, code) in cases {
        let mut stage = Stage::new();
        let session = stage.start("").await;
        stage.client.say("1");
        send(&stage.client);
        let (opcode, payload) = stage.client.frame().await;
        assert_eq!((opcode, &payload[..2]), (8, &code.to_be_bytes()[..]));
        stage.client.go();
        stage.expect("TEXT 1\r\n1\r\n").await.answer("");
        stage.expect("DISCONNECT\r\n").await.answer("");
        within(session).await.expect("no panic");
    }
}

#[tokio::test(flavor = "local")]
async fn a_lost_client_gives_the_backend_disconnect() {
    let mut stage = Stage::new();
    let session = stage.start("").await;
    stage.client.go();
    stage.expect("DISCONNECT\r\n").await.answer("");
    within(session).await.expect("no panic");
}

#[tokio::test(flavor = "local")]
async fn a_session_that_is_dropped_gives_the_backend_disconnect() {
    let mut stage = Stage::new();
    let session = stage.start("").await;
    stage.client.say("1");
    let asked = stage.expect("TEXT 1\r\n1\r\n").await;
    session.abort();
    assert!(within(session).await.is_err(), "the future is dropped");
    asked.answer("TEXT 3\r\nm:x\r\n");
    stage.expect("DISCONNECT\r\n").await;
}

#[tokio::test(flavor = "local")]
async fn the_backend_closes_the_client() {
    let mut stage = Stage::new();
    let session = stage.start("").await;
    stage.client.say("1");
    stage.asked().await.answer("CLOSE 4\r\n\x0f\u{21}hi\r\n");
    assert_eq!(stage.client.frame().await, closed(3873, "hi"));
    stage.client.send(8, &3873u16.to_be_bytes());
    within(session).await.expect("no panic");
    assert!(stage.asked.try_recv().is_err(), "the backend closed it itself");
}

#[tokio::test(flavor = "local")]
async fn the_backend_drops_the_client() {
    let mut stage = Stage::new();
    let session = stage.start("").await;
    stage.client.say("1");
    stage.asked().await.answer("DISCONNECT\r\n");
    within(session).await.expect("no panic");
    stage.client.assert_quiet();
    assert!(!stage.client.0.is_finished.get(), "no clean end");
}

#[tokio::test(flavor = "local")]
async fn a_failing_backend_closes_the_client() {
    let mut stage = Stage::new();
    let session = stage.start("").await;
    stage.client.say("1");
    stage.asked().await.answer_with(500, &[], "oops");
    assert_eq!(stage.client.frame().await, closed(1011, "the backend failed"));
    stage.client.go();
    stage.expect("DISCONNECT\r\n").await.answer("");
    within(session).await.expect("no panic");
}

#[tokio::test(flavor = "local")]
async fn a_silent_client_is_asked_and_then_closed() {
    let mut stage = Stage::new();
    stage.settings.keep_alive = Duration::from_millis(300);
    stage.leave_ms = 30;
    let session = stage.start("").await;
    assert_eq!(stage.client.frame().await, (9, Vec::new()));
    stage.client.send(10, b"");
    assert_eq!(stage.client.frame().await, (9, Vec::new()), "it was heard");
    assert_eq!(stage.client.frame().await, closed(4408, "no sign of life"));
    stage.expect("DISCONNECT\r\n").await.answer("");
    // It never closes its side, and is not awaited for ever.
    within(session).await.expect("no panic");
}

#[tokio::test(flavor = "local")]
async fn a_client_that_floods_and_reads_nothing_is_given_up() {
    let mut stage = Stage::new();
    stage.settings.keep_alive = Duration::from_millis(300);
    stage.leave_ms = 30;
    let session = stage.start("").await;
    stage.client.say("1");
    let asked = stage.expect("TEXT 1\r\n1\r\n").await;
    for _ in 0..5 {
        stage.client.send(2, &[b'x'; 50_000]);
    }
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    stage.client.set_stuck(true);
    asked.answer("TEXT 3\r\nm:a\r\n");
    let asked = stage.asked().await;
    assert!(asked.body.ends_with(b"DISCONNECT\r\n"), "{} bytes", asked.body.len());
    asked.answer("");
    within(session).await.expect("no panic");
    assert_eq!(stage.client.frame().await, (9, Vec::new()));
    assert_eq!(stage.client.frame().await, closed(4408, "no sign of life"));
    stage.client.assert_quiet();
}

#[tokio::test(flavor = "local")]
async fn a_client_that_is_not_listened_to_is_not_given_up() {
    let mut stage = Stage::new();
    stage.settings.keep_alive = Duration::from_millis(500);
    stage.start("").await;
    stage.client.say("1");
    let asked = stage.expect("TEXT 1\r\n1\r\n").await;
    for _ in 0..5 {
        stage.client.send(2, &[b'x'; 50_000]);
    }
    // The backend takes longer than a silent client would live.
    let until = tokio::time::Instant::now() + Duration::from_millis(1200);
    while tokio::time::Instant::now() < until {
        tokio::task::yield_now().await;
    }
    stage.client.assert_quiet();
    asked.answer("TEXT 3\r\nm:a\r\n");
    assert_eq!(stage.client.frame().await, text("a"));
}

#[tokio::test(flavor = "local")]
async fn the_pong_to_our_ping_costs_the_backend_nothing() {
    let mut stage = Stage::new();
    stage.settings.keep_alive = Duration::from_millis(500);
    stage.settings.pings = Pings::PassedThrough;
    stage.start("").await;
    assert_eq!(stage.client.frame().await, (9, Vec::new()));
    stage.client.send(10, b"");
    stage.client.send(10, b"beat");
    stage.expect("PONG 4\r\nbeat\r\n").await;
}
