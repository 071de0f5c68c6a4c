//! Silence: keep-alives of all transports, and clients that answer nothing.

use super::{at, start};
use crate::support::client::{Http, Stream, get, open};
use crate::support::figures::wait_for_close;
use crate::support::websocket::{Frames, WebSocket, masked};
use tokio_tungstenite::tungstenite::Message;

const YAML: &str = "
routes:
  - name: events
    match: { path: \"/events/{topic}\" }
    push: { channels: [\"{topic}\"], keep_alive: 1s }
";

#[tokio::test]
async fn silence_is_broken_by_comments_and_pings() {
    let proxy = start(YAML);
    let mut all = Vec::new();
    for http in [Http::H1, Http::H2Tls] {
        let to = at(&proxy, http);
        all.push(tokio::spawn(async move {
            let response = open(http, to, get(to, "/events/c", &[("accept", "text/event-stream")])).await;
            let mut stream = Stream::of(response);
            stream.until("\n\n").await;
            for _ in 0..2 {
                assert!(stream.until("\n\n").await.starts_with(':'));
            }
        }));
        all.push(tokio::spawn(async move {
            let mut socket = WebSocket::open(http, to, "/events/c", &[]).await;
            // tungstenite answers the pings. If it did not, a close would come in place of the third.
            for _ in 0..3 {
                assert!(matches!(socket.any().await, Message::Ping(_)), "{http:?}");
            }
            socket.close().await;
        }));
    }
    for one in all {
        one.await.expect("as it should be");
    }
}

#[tokio::test]
async fn a_client_that_answers_no_pings_is_idle() {
    let proxy = start(YAML);
    let all = [Http::H1, Http::H2c].map(|http| {
        let to = at(&proxy, http);
        tokio::spawn(async move {
            let mut frames = Frames::open(http, to, "/events/c", &[]).await;
            let mut pings = 0;
            let close = loop {
                match frames.next().await.expect("a frame") {
                    (0x89, _) => pings += 1,
                    other => break other,
                }
            };
            assert!(pings >= 1);
            assert_eq!(close, (0x88, [&4408u16.to_be_bytes()[..], b"idle"].concat()), "{http:?}");
            frames.write(&masked(0x88, &close.1)).await;
            assert_eq!(frames.next().await, None);
        })
    });
    for one in all {
        one.await.expect("as it should be");
    }
    wait_for_close(&proxy, "websocket", "idle").await;
}

#[tokio::test]
async fn pings_of_clients_are_answered_with_their_bytes() {
    let proxy = start(YAML);
    for http in [Http::H1Tls, Http::H2c] {
        let mut frames = Frames::open(http, at(&proxy, http), "/events/c", &[]).await;
        for payload in [&b""[..], b"abc", &[7; 125]] {
            frames.write(&masked(0x89, payload)).await;
            let pong = loop {
                let frame = frames.next().await.expect("a frame");
                if frame.0 != 0x89 {
                    break frame;
                }
            };
            assert_eq!(pong, (0x8a, payload.to_vec()), "{http:?}");
        }
    }
}
