//! The clients of these tests: whatever the transport, messages are numbers.

use super::Over;
use crate::support::client::{Http, dial, get, open_over, within};
use crate::support::held::{Body, EventStream};
use crate::support::websocket::{WebSocket, ask_over};
use bytes::Bytes;
use serde_json::{Value, json};
use std::net::SocketAddr;
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::tungstenite::Message;

/// What the system keeps for a client that does not read.
const RECEIVE_BYTES: u32 = 16 * 1024;
/// HTTP/2: of a stream, and of its connection, which one stalled stream must not use up.
const STREAM_WINDOW_BYTES: u32 = 64 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 16 * 1024 * 1024;

/// What a client hears.
#[derive(Debug, PartialEq, Eq)]
pub enum Heard {
    /// A message with this number.
    Message(usize),
    /// That something is missing.
    Gap,
    /// Its end, and how it ended.
    End(String),
}

/// A subscribed client, which reads only when it is asked to.
pub enum Client {
    Events(EventStream),
    Socket(Box<WebSocket>),
}

/// Opens clients of a channel, one after the other.
pub struct Clients {
    over: Over,
    to: SocketAddr,
    path: String,
    shared: Option<h2::client::SendRequest<Bytes>>,
    is_first: bool,
}

/// Clients of a channel, of which the first is the slow one.
pub async fn open(over: Over, to: SocketAddr, channel: &str, count: usize) -> Clients {
    let shared = if over == Over::SharedSse {
        let mut builder = h2::client::Builder::new();
        builder.initial_window_size(STREAM_WINDOW_BYTES).initial_connection_window_size(CONNECTION_WINDOW_BYTES);
        builder.initial_max_send_streams(count);
        let (sender, driver) = within("a handshake", builder.handshake(dial(to).await)).await.expect("a handshake");
        tokio::spawn(driver);
        Some(sender)
    } else {
        None
    };
    Clients { over, to, path: format!("/events/{channel}"), shared, is_first: true }
}

impl Clients {
    /// The next client, once it is subscribed.
    pub async fn next(&mut self) -> Client {
        let narrow = std::mem::take(&mut self.is_first);
        let (to, path) = (self.to, self.path.as_str());
        let sse = [("accept", "text/event-stream")];
        match self.over {
            Over::Sse => {
                let tcp = if narrow { connect_narrow(to).await } else { dial(to).await };
                let response = open_over(Http::H1, tcp, get(to, path, &sse)).await;
                assert_eq!(response.status(), 200);
                Client::events(Body::H1(response.into_body())).await
            }
            Over::SharedSse => {
                let request = http::Request::get(format!("http://{to}{path}")).header(sse[0].0, sse[0].1);
                let sender = self.shared.clone().expect("a connection");
                let mut sender = within("a connection", sender.ready()).await.expect("a connection");
                let sent = sender.send_request(request.body(()).expect("a request"), true);
                let response = within("an answer", sent.expect("a stream").0).await.expect("an answer");
                assert_eq!(response.status(), 200);
                Client::events(Body::H2(response.into_body())).await
            }
            Over::V1 | Over::Raw => {
                let tcp = if narrow { connect_narrow(to).await } else { dial(to).await };
                let v1 = [("sec-websocket-protocol", "pushbridge.v1.json")];
                let fields = if self.over == Over::V1 { &v1[..] } else { &[] };
                let mut socket = WebSocket::of(ask_over(Http::H1, tcp, path, fields).await).await;
                if self.over == Over::V1 {
                    assert_eq!(socket.json().await["type"], "welcome");
                    assert_eq!(socket.json().await["type"], "subscribed");
                }
                Client::Socket(Box::new(socket))
            }
        }
    }
}

impl Client {
    async fn events(body: Body) -> Self {
        let mut events = EventStream::new(body);
        let opening = within("an opening", events.next()).await.expect("an opening").expect("an opening");
        assert_eq!((opening.event.as_str(), opening.data.as_str()), ("", ""));
        Self::Events(events)
    }

    /// The next thing it hears; comments and pings are none.
    pub async fn next(&mut self) -> Heard {
        match self {
            Self::Events(events) => loop {
                match within("an event", events.next()).await {
                    None => return Heard::End("clean".to_owned()),
                    Some(Err(error)) => return Heard::End(error.to_string()),
                    Some(Ok(event)) if event.event == "gap" => {
                        let gap: Value = serde_json::from_str(&event.data).expect("JSON");
                        assert_eq!(gap, json!({"channels": ["gap"], "reason": "slow"}));
                        return Heard::Gap;
                    }
                    Some(Ok(event)) if event.data.is_empty() => {}
                    Some(Ok(event)) => return Heard::Message(number(&event.data)),
                }
            },
            Self::Socket(socket) => match socket.next().await {
                Some(Ok(Message::Text(text))) if text.starts_with(r#"{"type":"gap""#) => {
                    let gap: Value = serde_json::from_str(&text).expect("JSON");
                    assert_eq!((&gap["channels"], &gap["reason"]), (&json!(["gap"]), &json!("slow")));
                    Heard::Gap
                }
                Some(Ok(Message::Text(text))) => Heard::Message(number(&text)),
                Some(Ok(Message::Close(Some(frame)))) => {
                    Heard::End(format!("{} {}", u16::from(frame.code), frame.reason.as_str()))
                }
                other => Heard::End(format!("{other:?}")),
            },
        }
    }
}

/// The number of a message, with or without an envelope.
fn number(text: &str) -> usize {
    let (_, rest) = text.split_once(r#"{"n":"#).unwrap_or_else(|| panic!("no number: {}", &text[..text.len().min(99)]));
    let (number, _) = rest.split_once(',').expect("more after the number");
    number.parse().expect("a number")
}

/// A connection that takes little before it is read.
async fn connect_narrow(to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(RECEIVE_BYTES).expect("a socket option");
    within("a connection", socket.connect(to)).await.expect("a connection")
}
