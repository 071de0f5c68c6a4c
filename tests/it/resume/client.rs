//! A client that keeps its cursor, comes by any transport, leaves in any manner, and checks what it sees.

use super::random::Random;
use crate::support::client::{DEADLINE, Http, dial, get, open_over};
use crate::support::websocket::{WebSocket, ask_over};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use serde_json::Value;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;

/// How a client comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Way {
    /// Over which HTTP.
    pub http: Http,
    /// By which transport.
    pub transport: Transport,
}

/// How it is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// An event stream.
    Sse,
    /// One poll after the other.
    LongPoll,
    /// `pushbridge.v1.json`.
    WebSocket,
}

/// How it leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leave {
    /// As one should: a WebSocket by its closing handshake.
    Cleanly,
    /// By closing the connection, whatever was still to be read.
    Abruptly,
    /// By a reset.
    Reset,
}

impl Way {
    /// Each transport over each HTTP.
    pub const ALL: [Self; 6] = {
        use Http::{H1, H2c};
        use Transport::{LongPoll, Sse, WebSocket};
        [
            Self { http: H1, transport: Sse },
            Self { http: H2c, transport: Sse },
            Self { http: H1, transport: LongPoll },
            Self { http: H2c, transport: LongPoll },
            Self { http: H1, transport: WebSocket },
            Self { http: H2c, transport: WebSocket },
        ]
    };
}

/// One client.
#[derive(Debug)]
pub struct Client {
    room: String,
    to: SocketAddr,
    random: Random,
    cursor: Option<String>,
    /// By channel: the number that was seen last.
    seen: HashMap<String, u64>,
    /// Channels with a gap announced since their last message.
    gapped: Vec<String>,
    reasons: Vec<String>,
}

impl Client {
    /// One that has seen nothing yet.
    pub fn new(room: &str, to: SocketAddr, random: Random) -> Self {
        Self {
            room: room.to_owned(),
            to,
            random,
            cursor: None,
            seen: HashMap::new(),
            gapped: Vec::new(),
            reasons: Vec::new(),
        }
    }

    /// From now on it visits another room, perhaps of another server, with the cursor that it has.
    pub fn move_to(&mut self, to: SocketAddr, room: &str) {
        self.to = to;
        room.clone_into(&mut self.room);
    }

    /// Whether it has seen so many of each channel.
    pub fn has_seen(&self, counts: [u64; 3]) -> bool {
        let channels = ["a", "b", "c"].map(|channel| format!("{}.{channel}", self.room));
        channels.iter().zip(counts).all(|(channel, count)| self.seen.get(channel).copied().unwrap_or(0) == count)
    }

    /// How many gaps were announced to it.
    pub fn gaps(&self) -> usize {
        self.reasons.len()
    }

    /// The reasons of the gaps.
    pub fn reasons(&self) -> &[String] {
        &self.reasons
    }

    /// One visit by a random way, to see `events` at most; 0 only learns the present place.
    pub async fn visit(&mut self, events: u64) {
        let way = Way::ALL[self.random.below(6) as usize];
        let few = self.random.below(40);
        Box::pin(self.visit_by(way, events.min(few))).await;
    }

    /// One visit.
    pub async fn visit_by(&mut self, way: Way, events: u64) {
        let leave = [Leave::Cleanly, Leave::Abruptly, Leave::Reset][self.random.below(3) as usize];
        let tcp = dial(self.to).await;
        if leave == Leave::Reset {
            socket2::SockRef::from(&tcp).set_linger(Some(Duration::ZERO)).expect("a socket option");
        }
        let visit = async {
            match way.transport {
                Transport::Sse => Box::pin(self.stream(way.http, tcp, events)).await,
                Transport::LongPoll => Box::pin(self.poll(way.http, tcp)).await,
                Transport::WebSocket => Box::pin(self.socket(way.http, tcp, events, leave)).await,
            }
        };
        tokio::time::timeout(DEADLINE, visit).await.expect("a visit in time");
    }

    /// How long it waits for the next event before it leaves.
    fn patience(&mut self) -> Duration {
        Duration::from_millis(1 + self.random.below(30))
    }

    async fn stream(&mut self, http: Http, tcp: TcpStream, events: u64) {
        let path = format!("/{}", self.room);
        let cursor = self.cursor.clone().unwrap_or_default();
        let fields = [("accept", "text/event-stream"), ("last-event-id", cursor.as_str())];
        let response = open_over(http, tcp, get(self.to, &path, &fields)).await;
        assert_eq!(response.status(), 200);
        self.check_resumed(response.headers());
        let (mut body, mut text) = (response.into_body(), String::new());
        let opening = self.block(&mut body, &mut text, DEADLINE).await.expect("an opening");
        self.take_block(&opening);
        for _ in 0..events {
            let patience = self.patience();
            let Some(block) = self.block(&mut body, &mut text, patience).await else { return };
            self.take_block(&block);
        }
    }

    /// The next whole block of an event stream; what is left of the next one stays in `text`.
    async fn block(&self, body: &mut Incoming, text: &mut String, patience: Duration) -> Option<String> {
        let reading = async {
            loop {
                if let Some(end) = text.find("\n\n") {
                    return text.drain(..end + 2).collect();
                }
                let frame = body.frame().await.expect("no end").expect("no error");
                text.push_str(std::str::from_utf8(frame.data_ref().expect("data")).expect("text"));
            }
        };
        tokio::time::timeout(patience, reading).await.ok()
    }

    fn take_block(&mut self, block: &str) {
        let field = |name| block.lines().find_map(|line| line.strip_prefix(name));
        if field("event: ") == Some("gap") {
            self.take_gap(&serde_json::from_str(field("data: ").expect("data")).expect("JSON"));
        } else if let Some(data) = field("data: ") {
            self.take(&serde_json::from_str(data).expect("JSON"), None);
        }
        self.cursor = field("id: ").map(str::to_owned).or(self.cursor.take());
    }

    async fn poll(&mut self, http: Http, tcp: TcpStream) {
        let path = format!("/{}", self.room);
        let tag = self.cursor.as_ref().map(|cursor| format!("\"{cursor}\"")).unwrap_or_default();
        // Without a cursor it is the first visit, which must bring one.
        let (wait, patience) = match self.cursor {
            None => ("wait=0", DEADLINE),
            Some(_) => ("wait=1", self.patience() * 4),
        };
        let mut fields = vec![("accept", "application/json"), ("prefer", wait)];
        if !tag.is_empty() {
            fields.push(("if-none-match", tag.as_str()));
        }
        let asking = async {
            let response = open_over(http, tcp, get(self.to, &path, &fields)).await;
            let (head, body) = response.into_parts();
            (head, body.collect().await.expect("a body").to_bytes())
        };
        let Ok((head, body)) = tokio::time::timeout(patience, asking).await else { return };
        self.check_resumed(&head.headers);
        let tag = head.headers["etag"].to_str().expect("text").trim_matches('"').to_owned();
        if head.status == 200 {
            let answer: Value = serde_json::from_slice(&body).expect("JSON");
            assert_eq!(answer["next"], tag);
            if !answer["gap"].is_null() {
                self.take_gap(&answer["gap"]);
            }
            for event in answer["events"].as_array().expect("events") {
                self.take(&event["data"], event["channel"].as_str());
            }
        } else {
            assert_eq!(head.status, 204);
        }
        self.cursor = Some(tag);
    }

    async fn socket(&mut self, http: Http, tcp: TcpStream, events: u64, leave: Leave) {
        let cursor = self.cursor.as_ref().map(|cursor| format!("?last_event_id={cursor}")).unwrap_or_default();
        let path = format!("/{}{cursor}", self.room);
        let opened = ask_over(http, tcp, &path, &[("sec-websocket-protocol", "pushbridge.v1.json")]).await;
        let mut socket = WebSocket::of(opened).await;
        self.check_resumed(&socket.fields);
        let welcome = socket.json().await;
        self.cursor = Some(welcome["cursor"].as_str().expect("a cursor").to_owned());
        for _ in 0..3 {
            assert_eq!(socket.json().await["type"], "subscribed");
        }
        for _ in 0..events {
            let patience = self.patience();
            let Ok(said) = tokio::time::timeout(patience, socket.next()).await else { break };
            let Some(Ok(Message::Text(text))) = said else { panic!("no text but {said:?}") };
            let said: Value = serde_json::from_str(text.as_str()).expect("JSON");
            match said["type"].as_str() {
                Some("event") => self.take(&said["data"], said["channel"].as_str()),
                Some("gap") => self.take_gap(&said),
                _ => panic!("{said}"),
            }
            self.cursor = Some(said["id"].as_str().expect("an id").to_owned());
        }
        if leave == Leave::Cleanly {
            socket.close().await;
        }
    }

    /// `Pushbridge-Resumed` is there just where a cursor was given.
    fn check_resumed(&self, fields: &http::HeaderMap) {
        assert_eq!(fields.contains_key("pushbridge-resumed"), self.cursor.is_some(), "{fields:?}");
    }

    fn take_gap(&mut self, gap: &Value) {
        self.reasons.push(gap["reason"].as_str().expect("a reason").to_owned());
        let channels = gap["channels"].as_array().expect("channels");
        assert!(!channels.is_empty());
        self.gapped.extend(channels.iter().map(|channel| channel.as_str().expect("a name").to_owned()));
    }

    /// Event streams do not say which channel an event is of, so the data has to.
    fn take(&mut self, data: &Value, channel: Option<&str>) {
        let n = data["n"].as_u64().expect("a number");
        let channel = match (data["c"].as_str(), channel) {
            (Some(said), Some(given)) => {
                assert_eq!(said, given);
                given
            }
            (Some(said), None) => said,
            (None, _) => panic!("{data} without its channel"),
        };
        let last = self.seen.get(channel).copied().unwrap_or(0);
        let gapped = self.gapped.iter().position(|gapped| gapped == channel);
        match gapped {
            None => assert_eq!(n, last + 1, "{channel}, and no gap was announced; cursor {:?}", self.cursor),
            Some(at) => {
                assert!(n > last, "{channel}: {n} after {last}, behind a gap");
                self.gapped.remove(at);
            }
        }
        self.gapped.retain(|gapped| gapped != channel);
        self.seen.insert(channel.to_owned(), n);
    }
}
