//! Messages and control frames in both directions.

use super::{ALL, BOTH, Fields, Stage, assert_works};
use crate::support::bridge_backend::event;
use crate::support::client::Http;
use crate::support::socket::{BINARY, PING, PONG, TEXT};
use bytes::Bytes;

#[tokio::test]
async fn texts_and_binaries_of_all_sizes_come_back() {
    let stage = Stage::new().await;
    let to = ALL.map(|http| (http, stage.at(http)));
    let Stage { proxy, backend } = stage;
    let echoing = backend.echo();
    for (http, to) in to {
        let mut socket = crate::support::socket::Socket::open(http, to, "/chat/x", &[]).await;
        for len in [0, 1, 125, 126, 60_000, 65_536] {
            let content: String = "é€x".chars().cycle().take(len / 3).collect();
            socket.send(TEXT, &content).await;
            socket.expect(TEXT, &content).await;
            let content: Vec<u8> = (0..len).map(|at| (at % 251) as u8).collect();
            socket.send(BINARY, &content).await;
            socket.expect(BINARY, &content).await;
        }
        // In three frames, one of them empty, with a ping between them.
        socket.send_part(TEXT, "caf\u{e9}".as_bytes().get(..4).expect("half a letter")).await;
        socket.send(PING, "there?").await;
        socket.expect(PONG, "there?").await;
        socket.send_part(0, "").await;
        socket.send(0, &"caf\u{e9}!".as_bytes()[4..]).await;
        socket.expect(TEXT, "café!").await;
        socket.close(1000, "bye").await;
        assert_eq!(socket.expect_close_after_own(1000).await, "bye", "{http:?}");
    }
    drop(proxy);
    echoing.abort();
}

#[tokio::test]
async fn what_comes_while_a_request_is_under_way_goes_together_in_the_next() {
    let mut stage = Stage::new().await;
    for http in ALL {
        let mut socket = stage.open(http, "").await;
        socket.send(TEXT, "1").await;
        let first = stage.backend.expect("TEXT 1\r\n1\r\n").await;
        socket.send(TEXT, "2").await;
        socket.send(BINARY, [0, 255]).await;
        socket.send(TEXT, "").await;
        // The pong tells that what was before it has been read.
        socket.send(PING, "read").await;
        socket.expect(PONG, "read").await;
        assert!(stage.backend.is_quiet());
        first.grip("TEXT 4\r\nm:1!\r\nTEXT 4\r\nm:1?\r\n");
        socket.expect(TEXT, "1!").await;
        socket.expect(TEXT, "1?").await;
        let second = stage.backend.asked().await;
        assert_eq!(second.body, &b"TEXT 1\r\n2\r\nBINARY 2\r\n\x00\xff\r\nTEXT 0\r\n\r\n"[..], "{http:?}");
        second.grip("");
        assert_works(&mut stage, &mut socket).await;
        socket.close(1000, "").await;
        stage.backend.asked().await.grip("");
        socket.expect_close_after_own(1000).await;
    }
}

#[tokio::test]
async fn any_number_of_small_messages_that_wait_can_be_echoed() {
    const MESSAGES: usize = 30_000;
    let mut stage = Stage::new().await;
    for http in BOTH {
        let mut socket = stage.open(http, "").await;
        socket.send(TEXT, "").await;
        let first = stage.backend.expect("TEXT 0\r\n\r\n").await;
        // Over what may wait: the client is read no further until there is an answer, and nothing is lost.
        let message = [0x81, 0x80, 0, 0, 0, 0];
        socket.send_raw(&message.repeat(MESSAGES)).await;
        first.grip(&event("TEXT", "m:first"));
        socket.expect(TEXT, "first").await;
        let (mut asked, mut echoed) = (0, 0);
        while echoed < MESSAGES {
            let batch = stage.backend.asked().await;
            let count = batch.body.len() / b"TEXT 0\r\n\r\n".len();
            assert!(batch.body.len() <= 200_000 && count > 0, "{} bytes", batch.body.len());
            batch.grip(&event("TEXT", "m:").repeat(count));
            for _ in 0..count {
                socket.expect(TEXT, "").await;
            }
            (asked, echoed) = (asked + 1, echoed + count);
        }
        assert!(echoed == MESSAGES && asked < MESSAGES / 10, "{asked} requests for {echoed}");
        drop(socket);
        stage.backend.expect("DISCONNECT\r\n").await.grip("");
    }
}

#[tokio::test]
async fn pings_cost_the_backend_nothing_unless_it_wants_them() {
    let mut stage = Stage::new().await;
    for http in BOTH {
        let mut socket = stage.open(http, "").await;
        socket.send(PING, "").await;
        socket.expect(PONG, "").await;
        // A heartbeat that nobody asked for.
        socket.send(PONG, "beat").await;
        socket.send(PING, "x").await;
        socket.expect(PONG, "x").await;
        assert_works(&mut stage, &mut socket).await;
        // A ping of the backend, and the pong to it.
        socket.send(TEXT, "a").await;
        stage.backend.expect("TEXT 1\r\na\r\n").await.grip("PING 2\r\nhi\r\nPONG 2\r\nho\r\n");
        socket.expect(PING, "hi").await;
        socket.expect(PONG, "ho").await;
        socket.send(PONG, "hi").await;
        stage.backend.expect("PONG 2\r\nhi\r\n").await.grip("");
        drop(socket);
        stage.backend.expect("DISCONNECT\r\n").await.grip("");

        let mut passing = stage.open_on(http, "/pings", &[], "").await;
        passing.send(PING, "p").await;
        stage.backend.expect("PING 1\r\np\r\n").await.grip("PONG 1\r\nq\r\n");
        passing.expect(PONG, "q").await;
        drop(passing);
        stage.backend.expect("DISCONNECT\r\n").await.grip("");
    }
}

#[tokio::test]
async fn the_backend_may_choose_its_prefix_or_speak_no_grip() {
    let mut stage = Stage::new().await;
    let events = "OPEN\r\nTEXT 3\r\nc:x\r\nTEXT 4\r\nm: a\r\n";
    let cases: [(Fields<'_>, &[&str]); 3] = [
        (&[], &["c:x", "m: a"]),
        (&[("sec-websocket-extensions", "grip; message-prefix=\"\"")], &["m: a"]),
        (&[("sec-websocket-extensions", "grip; message-prefix=\"m: \"")], &["a"]),
    ];
    for (fields, expected) in cases {
        let opening = crate::support::socket::Socket::open(Http::H1, stage.at(Http::H1), "/chat/x", &[]);
        let (mut socket, ()) = tokio::join!(opening, async {
            stage.backend.expect("OPEN\r\n").await.answer(200, fields, events);
        });
        for text in expected {
            socket.expect(TEXT, text).await;
        }
        drop(socket);
        stage.backend.expect("DISCONNECT\r\n").await.grip("");
    }
    stage.wait_for_metric("pushbridge_bridge_ignored_total{what=\"bad_control\"} 2").await;
}

#[tokio::test]
async fn what_the_backend_says_wrongly_is_passed_over_and_counted() {
    let mut stage = Stage::new().await;
    let mut socket = stage.open(Http::H1, "TEXT 1\r\nx\r\nBINARY 3\r\nc:{\r\nTEXT 4\r\nm:ok\r\nOPEN\r\n").await;
    socket.expect(TEXT, "ok").await;
    socket.send(TEXT, "a").await;
    let fields = [("sec-websocket-extensions", "grip"), ("keep-alive-interval", "soon")];
    let unknown = r#"{"type":"subscribe","channel":"a","filters":["skip-self","new"]}"#;
    let body = [event("TEXT", &format!("c:{unknown}")), event("TEXT", "c:{}"), event("TEXT", "m:still")].concat();
    stage.backend.expect("TEXT 1\r\na\r\n").await.answer(200, &fields, Bytes::from(body));
    socket.expect(TEXT, "still").await;
    for line in [
        "{what=\"unknown_prefix\"} 2",
        "{what=\"out_of_place\"} 1",
        "{what=\"bad_keep_alive_interval\"} 1",
        "{what=\"unknown_filter\"} 1",
        "{what=\"bad_control\"} 1",
    ] {
        stage.wait_for_metric(&format!("pushbridge_bridge_ignored_total{line}")).await;
    }
    assert!(stage.proxy.has_logged("bridged backend was passed over"));
    assert_works(&mut stage, &mut socket).await;
}
