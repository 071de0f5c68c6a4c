//! Messages both ways, and of channels.

use super::*;

#[tokio::test(flavor = "local")]
async fn messages_go_through_the_backend_and_back() {
    let mut stage = Stage::new();
    let session = stage.start("TEXT 9\r\nm:welcome\r\n").await;
    assert_eq!(stage.client.frame().await, text("welcome"));
    stage.client.say("1");
    let asked = stage.expect("TEXT 1\r\n1\r\n").await;
    stage.client.say("2");
    stage.client.send(2, b"3");
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    asked.answer("TEXT 3\r\nm:a\r\nBINARY 3\r\nm:b\r\n");
    assert_eq!(stage.client.frame().await, text("a"));
    assert_eq!(stage.client.frame().await, (2, b"b".to_vec()));
    stage.expect("TEXT 1\r\n2\r\nBINARY 1\r\n3\r\n").await.answer("");
    stage.client.send(8, b"\x03\xe8");
    let asked = stage.asked().await;
    assert_eq!(&asked.body[..], b"CLOSE 2\r\n\x03\xe8\r\n");
    asked.answer("CLOSE\r\n");
    assert_eq!(stage.client.frame().await, (8, Vec::new()));
    within(session).await.expect("no panic");
    assert!(stage.client.0.is_finished.get());
    assert!(stage.asked.try_recv().is_err(), "the backend knows");
}

#[tokio::test(flavor = "local")]
async fn large_messages_fragments_and_pings_between_them_arrive() {
    let mut stage = Stage::new();
    stage.start("").await;
    let large = "é".repeat(100_000);
    stage.client.say(&large);
    let asked = stage.asked().await;
    assert_eq!(asked.body, format!("TEXT 30d40\r\n{large}\r\n"));
    asked.answer(&format!("TEXT 30d42\r\nm:{large}\r\n"));
    assert_eq!(stage.client.frame().await, text(&large));

    // A text in two fragments, cut within a character, and a ping between them.
    stage.client.0.to_read.borrow_mut().extend_from_slice(&[0x01, 0x81, 0, 0, 0, 0, 0xc3]);
    stage.client.send(9, b"p");
    stage.client.0.to_read.borrow_mut().extend_from_slice(&[0x80, 0x81, 0, 0, 0, 0, 0xa9]);
    stage.client.wake();
    assert_eq!(stage.client.frame().await, (10, b"p".to_vec()));
    assert_eq!(stage.asked().await.body, "TEXT 2\r\né\r\n");
}

#[tokio::test(flavor = "local")]
async fn a_client_that_floods_is_not_read_until_its_backend_answers() {
    let mut stage = Stage::new();
    stage.start("").await;
    stage.client.say("1");
    let asked = stage.expect("TEXT 1\r\n1\r\n").await;
    let part = vec![b'x'; 50_000];
    for _ in 0..20 {
        stage.client.send(2, &part);
    }
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
    let left = stage.client.0.to_read.borrow().len();
    assert!(left > 700_000, "{left} bytes are still the client's");
    asked.answer("");
    let (mut frames, mut bytes) = (0, 0);
    while frames < 20 {
        let asked = stage.asked().await;
        assert!(asked.body.len() < 200_000 + part.len() + 1000, "{}", asked.body.len());
        let events = crate::proto::websocket_over_http::event::decode(&asked.body).expect("events");
        frames += events.len();
        bytes += asked.body.len();
        asked.answer("");
    }
    assert_eq!(frames, 20, "{bytes} bytes, none lost");
}

#[tokio::test(flavor = "local")]
async fn a_client_that_does_not_read_asks_its_backend_nothing_more() {
    let mut stage = Stage::new();
    stage.start("").await;
    stage.client.say("1");
    let asked = stage.expect("TEXT 1\r\n1\r\n").await;
    stage.client.say("2");
    stage.client.set_stuck(true);
    asked.answer("TEXT 3\r\nm:a\r\n");
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert!(stage.asked.try_recv().is_err());
    stage.client.assert_quiet();
    stage.client.set_stuck(false);
    assert_eq!(stage.client.frame().await, text("a"));
    stage.expect("TEXT 1\r\n2\r\n").await;
}

#[tokio::test(flavor = "local")]
async fn messages_of_subscribed_channels_reach_the_client() {
    let mut stage = Stage::new();
    stage.start(&[subscribe("a"), subscribe("b"), subscribe("c"), subscribe("a"), subscribe("full")].concat()).await;
    assert_eq!(*stage.hub.0.channels.borrow(), ["a", "b"], "two at most, each once");
    let entry = stage.hub.publish(Data::Json("{\"p\":1}".into()));
    assert_eq!(stage.client.frame().await, text("{\"p\":1}"));
    assert_eq!(entry.websocket.get().map(|frame| &frame[..]), Some(&b"\x81\x07{\"p\":1}"[..]), "made once for all");
    stage.hub.publish(Data::Text("t".into()));
    assert_eq!(stage.client.frame().await, text("t"));
    stage.hub.publish(Data::Binary((*b"\x00\xff").into()));
    assert_eq!(stage.client.frame().await, (2, vec![0, 255]));
    stage.client.say("leave");
    let leave = control(r#"{"type":"unsubscribe","channel":"a"}"#) + "TEXT 4\r\nm:ok\r\n";
    stage.asked().await.answer(&leave);
    assert_eq!(stage.client.frame().await, text("ok"));
    assert_eq!(*stage.hub.0.channels.borrow(), ["b"]);
}

#[tokio::test(flavor = "local")]
async fn a_channel_is_joined_before_the_handshake_is_answered() {
    let mut stage = Stage::new();
    let fields = [("content-type", "application/websocket-events"), ("sec-websocket-extensions", "grip")];
    let body = format!("OPEN\r\nTEXT 3\r\nm:1\r\n{}", subscribe("a"));
    let (_, start) = stage.open_with(&[], |asked| asked.answer_with(200, &fields, &body)).await.expect("opened");
    assert_eq!(*stage.hub.0.channels.borrow(), ["a"]);
    stage.hub.publish(Data::Text("2".into()));
    tokio::task::spawn_local(run(start, stage.client.clone()));
    assert_eq!(stage.client.frame().await, text("1"));
    assert_eq!(stage.client.frame().await, text("2"));
}

#[tokio::test(flavor = "local")]
async fn a_session_whose_channel_the_bus_can_not_follow_ends() {
    let mut stage = Stage::new();
    stage.start(&[subscribe("a").as_str(), "TEXT 3\r\nm:1\r\n"].concat()).await;
    assert_eq!(stage.client.frame().await, text("1"));
    stage.client.say("join");
    stage.asked().await.answer(&[subscribe("b").as_str(), "TEXT 3\r\nm:3\r\n", &subscribe("down")].concat());
    // In their order, also where the bus takes a moment.
    assert_eq!(stage.client.frame().await, text("3"));
    assert_eq!(stage.client.frame().await, closed(1011, "the bus is down"));
    assert_eq!(*stage.hub.0.channels.borrow(), ["a", "b"]);
    stage.expect("DISCONNECT\r\n").await.answer("");
}
