//! Readers of held streams that take nothing while messages of 1 kB are published: what their channel still has reaches
//! them in order, and what it has not is announced.
//!
//! The same readers of the same messages differ in what their channel keeps alone: that one of them hears of a gap shows
//! that the others stall, too.

use super::Stage;
use crate::support::client::{Http, get, open_over, within};
use crate::support::held::{Body, EventStream};
use crate::support::metrics;
use bytes::Bytes;
use serde_json::{Value, json};
use std::net::SocketAddr;
use tokio::net::{TcpSocket, TcpStream};

/// 12 MB: 3000 of them the system alone may keep for a connection.
const MESSAGES: usize = 12_000;
/// Messages of one publish request.
const BATCH: usize = 200;
/// What the system and HTTP/2 take for a client that does not read.
const WINDOW_BYTES: u32 = 16 * 1024;
const CHANNELS: &str = "
channels:
  - { match: \"all*\", history: { messages: 20000, max_bytes: 64MiB } }
  - { match: \"few*\", history: { messages: 100 } }
";

/// A connection that takes little before it is read.
async fn narrow(to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(WINDOW_BYTES).expect("a socket option");
    within("a connection", socket.connect(to)).await.expect("a connection")
}

impl Stage {
    /// A held stream that nobody read while all was published.
    async fn stalled(&mut self, http: Http, channel: &str, content_type: &str) -> Body {
        let at = self.at(http);
        let asking = async {
            let tcp = narrow(at).await;
            match http {
                Http::H1 => Body::H1(open_over(http, tcp, get(at, "/events", &[])).await.into_body()),
                _ => Body::H2(ask_h2(tcp, at).await),
            }
        };
        let held = [("grip-hold", "stream"), ("grip-channel", channel), ("content-type", content_type)];
        let (body, ()) = tokio::join!(asking, async { self.backend.asked().await.answer(200, &held, "") });
        let line = "x".repeat(1000);
        for first in (0..MESSAGES).step_by(BATCH) {
            let item = |n| json!({"channel": channel, "http-stream": {"content": format!("data: {n} {line}\n\n")}});
            self.publish(&(first..first + BATCH).map(item).collect::<Vec<_>>().into()).await;
        }
        body
    }
}

async fn ask_h2(tcp: TcpStream, at: SocketAddr) -> h2::RecvStream {
    let handshake = h2::client::Builder::new().initial_window_size(WINDOW_BYTES).handshake::<_, Bytes>(tcp);
    let (send, connection) = within("a handshake", handshake).await.expect("a handshake");
    tokio::spawn(connection);
    let mut send = within("settings", send.ready()).await.expect("ready");
    let request = http::Request::get(format!("http://{at}/events")).body(()).expect("a request");
    let (response, _) = send.send_request(request, true).expect("a stream");
    within("an answer", response).await.expect("an answer").into_body()
}

/// What a client heard: numbers, and `None` for a gap.
async fn heard(body: Body) -> Vec<Option<usize>> {
    let (mut events, mut heard) = (EventStream::new(body), Vec::new());
    while heard.last() != Some(&Some(MESSAGES - 1)) {
        let Some(event) = within("an event", events.next()).await else { break };
        let event = event.expect("a clean end");
        if event.event == "gap" {
            let gap: Value = serde_json::from_str(&event.data).expect("JSON");
            assert_eq!(gap["reason"], "slow");
            heard.push(None);
        } else {
            let number = event.data.split(' ').next().and_then(|number| number.parse().ok());
            heard.push(Some(number.expect("a numbered event")));
        }
    }
    heard
}

/// Fails where a number is missing that no gap announces, or comes again.
fn has_no_silent_hole(heard: &[Option<usize>]) {
    let (mut next, mut announced) = (0, false);
    for number in heard {
        match number {
            None => announced = true,
            Some(number) => {
                assert!(*number == next || announced && *number > next, "{number} after {next} was expected");
                (next, announced) = (number + 1, false);
            }
        }
    }
}

#[tokio::test]
async fn a_reader_that_stalls_gets_all_that_its_channel_has() {
    let mut stage = Stage::with(CHANNELS).await;
    for http in [Http::H1, Http::H2c] {
        let body = stage.stalled(http, &format!("all{http:?}"), "text/event-stream").await;
        let heard = heard(body).await;
        assert!(heard.iter().copied().eq((0..MESSAGES).map(Some)), "{http:?}: {} of {MESSAGES}", heard.len());
    }
}

#[tokio::test]
async fn a_reader_that_stalls_for_too_long_is_told_of_the_gap() {
    let mut stage = Stage::with(CHANNELS).await;
    let mut announced = 0;
    for http in [Http::H1, Http::H2c] {
        let body = stage.stalled(http, &format!("few{http:?}"), "text/event-stream").await;
        let heard = heard(body).await;
        has_no_silent_hole(&heard);
        // Where publishing takes more than a second, what found room before may end with a gap of its own.
        let gaps = heard.iter().filter(|heard| heard.is_none()).count();
        assert!(gaps > 0 && heard.last() == Some(&Some(MESSAGES - 1)), "{http:?}: {gaps}, {:?}", heard.last());
        announced += gaps;
        metrics::reaches(&stage.proxy, "pushbridge_hub_gaps_total{reason=\"slow\"}", announced as f64).await;
    }
}

#[tokio::test]
async fn a_reader_of_plain_lines_that_stalls_for_too_long_ends_before_the_gap() {
    let mut stage = Stage::with(CHANNELS).await;
    for (number, http) in [Http::H1, Http::H2c].into_iter().enumerate() {
        let body = stage.stalled(http, &format!("few{http:?}"), "text/plain").await;
        let heard = heard(body).await;
        assert!(!heard.is_empty() && heard.len() < MESSAGES, "{}", heard.len());
        assert!(heard.iter().copied().eq((0..heard.len()).map(Some)), "{http:?}");
        let ended = "pushbridge_hub_sessions_closed_total{transport=\"sse\",reason=\"gap\"}";
        metrics::reaches(&stage.proxy, ended, number as f64 + 1.0).await;
    }
}
