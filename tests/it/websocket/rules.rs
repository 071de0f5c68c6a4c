//! The rules of RFC 6455: what breaks them, how a session ends, and what a client may do that few do.

use super::{ROUTE, at, start};
use crate::support::client::{Http, publish};
use crate::support::figures::wait_for_close;
use crate::support::websocket::{ALL, Frames, WebSocket, masked, unmasked};
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

const V1: [(&str, &str); 1] = [("sec-websocket-protocol", "pushbridge.v1.json")];

fn close(code: u16, reason: &str) -> Vec<u8> {
    [&code.to_be_bytes(), reason.as_bytes()].concat()
}

/// Reads frames up to the close frame and the clean end; the code.
async fn close_code(frames: &mut Frames) -> Option<u16> {
    let payload = loop {
        if let (0x88, payload) = frames.next().await.expect("a close frame before the end") {
            break payload;
        }
    };
    assert_eq!(frames.next().await, None, "the end after a close frame");
    payload.get(..2).map(|code| u16::from_be_bytes([code[0], code[1]]))
}

#[tokio::test]
async fn broken_frames_end_the_session_with_their_code() {
    let proxy = start(ROUTE);
    let too_big = vec![b'x'; 64 * 1024 + 1];
    for http in ALL {
        for (what, bytes, code) in [
            ("invalid UTF-8", masked(0x81, b"a\xff"), 1007),
            ("UTF-8 that ends too early", masked(0x81, b"\xe2\x82"), 1007),
            ("invalid UTF-8 in a fragment", masked(0x01, b"\xc0\xaf"), 1007),
            ("an unmasked frame", unmasked(0x81, b"hello"), 1002),
            ("a reserved bit", masked(0xc1, b"x"), 1002),
            ("a reserved opcode", masked(0x83, b"x"), 1002),
            ("a fragmented ping", masked(0x09, b"x"), 1002),
            ("a long ping", masked(0x89, &[b'x'; 126]), 1002),
            ("a continuation of nothing", masked(0x80, b"x"), 1002),
            ("a text within a text", [masked(0x01, b"x"), masked(0x81, b"y")].concat(), 1002),
            ("a message that is too big", masked(0x81, &too_big), 1009),
            ("fragments that are too big", [masked(0x02, &too_big[1..]), masked(0x80, b"x")].concat(), 1009),
            ("a close of one byte", masked(0x88, b"\x03"), 1002),
            ("a close with a code that is none", masked(0x88, &close(1005, "")), 1002),
            ("a close with a broken reason", masked(0x88, b"\x03\xe8\xff"), 1007),
        ] {
            let mut frames = Frames::open(http, at(&proxy, http), "/events/c", &[]).await;
            frames.write(&bytes).await;
            assert_eq!(close_code(&mut frames).await, Some(code), "{http:?}: {what}");
        }
    }
    for reason in ["bad_utf8", "protocol", "too_big"] {
        wait_for_close(&proxy, "websocket", reason).await;
    }
}

#[tokio::test]
async fn fragments_with_pings_between_are_one_command() {
    let proxy = start(ROUTE);
    for http in ALL {
        let mut frames = Frames::open(http, at(&proxy, http), "/events/c", &V1).await;
        let welcome = frames.next().await.expect("a frame");
        assert_eq!(welcome.0, 0x81);
        assert_eq!(frames.next().await.map(|frame| frame.0), Some(0x81));
        let command = r#"{"type":"ping","ref":"é€😀"}"#.as_bytes();
        let mut bytes = Vec::new();
        // Cut anywhere, also within a character.
        for (n, part) in command.chunks(3).enumerate() {
            bytes.extend(masked(if n == 0 { 0x01 } else { 0x00 }, part));
            bytes.extend(masked(0x89, &[n as u8]));
        }
        bytes.extend(masked(0x80, b""));
        // And each byte may come alone.
        for part in bytes.chunks(7) {
            frames.write(part).await;
        }
        for n in 0..command.len().div_ceil(3) {
            assert_eq!(frames.next().await, Some((0x8a, vec![n as u8])), "{http:?}");
        }
        let pong = frames.next().await.expect("a frame");
        let pong = (pong.0, serde_json::from_slice::<serde_json::Value>(&pong.1).expect("JSON"));
        assert_eq!(pong, (0x81, json!({"type": "pong", "ref": "é€😀"})));
        frames.write(&masked(0x88, &close(1000, ""))).await;
        assert_eq!(close_code(&mut frames).await, Some(1000));
    }
}

#[tokio::test]
async fn what_comes_ahead_of_the_answer_is_heard() {
    let proxy = start(ROUTE);
    let ping = masked(0x89, b"early");
    for http in ALL {
        // A whole frame and half of the next.
        let next = masked(0x89, &[b'x'; 100]);
        let ahead = [&ping[..], &next[..50]].concat();
        let mut frames = Frames::open_ahead(http, at(&proxy, http), "/events/c", &[], &ahead).await;
        assert_eq!(frames.next().await, Some((0x8a, b"early".to_vec())), "{http:?}");
        frames.write(&next[50..]).await;
        assert_eq!(frames.next().await, Some((0x8a, vec![b'x'; 100])));
    }
}

#[tokio::test]
async fn what_raw_clients_say_is_not_taken() {
    let proxy = start(ROUTE);
    for http in [Http::H1, Http::H2Tls] {
        let mut socket = WebSocket::open(http, at(&proxy, http), "/events/quiet", &[]).await;
        socket.send("hello").await;
        socket.send(vec![1, 2, 3]).await;
        let sent = publish(proxy.address("publish"), r#"{"channel":"quiet","data":"alone"}"#).await;
        assert_eq!(sent.json()["results"][0]["local_sessions"], 1);
        assert_eq!(socket.text().await, "alone");
    }
}

#[tokio::test]
async fn a_clients_close_is_answered_with_its_code() {
    let proxy = start(ROUTE);
    for http in ALL {
        for (payload, answer) in [
            (close(1000, "bye"), Some(1000)),
            (close(1001, ""), Some(1001)),
            (close(4999, "x"), Some(4999)),
            (vec![], None),
        ] {
            let mut frames = Frames::open(http, at(&proxy, http), "/events/c", &[]).await;
            // What follows a close frame means nothing.
            frames.write(&[masked(0x88, &payload), masked(0x81, b"\xff")].concat()).await;
            assert_eq!(close_code(&mut frames).await, answer, "{http:?} {payload:?}");
        }
    }
    wait_for_close(&proxy, "websocket", "done").await;
}

#[tokio::test]
async fn a_client_that_vanishes_is_counted_as_gone() {
    for http in ALL {
        let proxy = start(ROUTE);
        let socket = WebSocket::open(http, at(&proxy, http), "/events/c", &[]).await;
        socket.vanish();
        wait_for_close(&proxy, "websocket", "client_gone").await;
        let sent = publish(proxy.address("publish"), r#"{"channel":"c","data":1}"#).await;
        assert_eq!(sent.json()["results"][0]["local_sessions"], 0, "{http:?}");
    }
}

#[tokio::test]
async fn an_end_without_a_close_frame_is_a_client_that_is_gone() {
    for http in [Http::H1, Http::H1Tls, Http::H2c] {
        let proxy = start(ROUTE);
        let mut frames = Frames::open(http, at(&proxy, http), "/events/c", &[]).await;
        frames.shutdown().await;
        wait_for_close(&proxy, "websocket", "client_gone").await;
    }
}

#[tokio::test]
async fn who_sends_too_fast_is_told_and_then_closed() {
    let limit = "limits: { client_messages_per_second: 1 }\n";
    let proxy = start(&format!("{ROUTE}{limit}"));
    for http in [Http::H1, Http::H2c] {
        let mut socket = WebSocket::v1(http, at(&proxy, http), "/events/own").await;
        for n in 0..300 {
            // The end may come while it is being said.
            if socket.try_send(&format!("{{\"type\":\"ping\",\"ref\":{n}}}")).await.is_err() {
                break;
            }
        }
        let (mut answered, mut told) = (0, 0);
        loop {
            match socket.next().await {
                Some(Ok(Message::Text(text))) if text.contains("pong") => answered += 1,
                Some(Ok(Message::Text(text))) => {
                    assert!(text.contains("\"code\":\"rate\""), "{text}");
                    told += 1;
                }
                Some(Ok(Message::Close(Some(frame)))) => {
                    assert_eq!((u16::from(frame.code), frame.reason.as_str()), (4429, "rate"), "{http:?}");
                    break;
                }
                other => panic!("{other:?}"),
            }
        }
        assert!((10..100).contains(&answered) && told >= 100, "{answered} answered, {told} told");
    }
}
