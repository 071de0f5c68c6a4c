//! Clients that stay on their instances whatever happens to the bus, and a publisher that tries until it is taken.

use crate::support::client::{DEADLINE, Http, post, send, within};
use crate::support::held::{Body, EventStream, Said, Shared, Socket};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;

const TRY_AGAIN: Duration = Duration::from_millis(20);

/// Numbers from 1 on, each with its id, to one instance after the other.
pub struct Publisher {
    to: Vec<SocketAddr>,
    channel: &'static str,
    last: u64,
    refused: usize,
}

impl Publisher {
    /// Publishes to these instances.
    pub fn new(to: Vec<SocketAddr>, channel: &'static str) -> Self {
        Self { to, channel, last: 0, refused: 0 }
    }

    /// The last number that was taken.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// How often one was refused.
    pub fn refused(&self) -> usize {
        self.refused
    }

    /// Publishes the next `count` numbers, each until it is taken.
    pub async fn publish(&mut self, count: u64) {
        for _ in 0..count {
            let event = format!(r#"{{"channel":"{0}","id":"{1}","data":{1}}}"#, self.channel, self.last + 1);
            within("a publish that is taken", self.until_taken(&event)).await;
            self.last += 1;
        }
    }

    async fn until_taken(&mut self, event: &str) {
        loop {
            self.to.rotate_left(1);
            if self.is_taken(event).await {
                return;
            }
            self.refused += 1;
            tokio::time::sleep(TRY_AGAIN).await;
        }
    }

    async fn is_taken(&self, event: &str) -> bool {
        let json = [("content-type", "application/json")];
        let answer = send(Http::H1, self.to[0], post(self.to[0], "/v1/events", &json, event.to_owned())).await;
        if answer.status == 200 {
            return true;
        }
        assert_eq!(answer.status, 503, "{}", answer.text());
        assert_eq!(answer.field("content-type"), "application/problem+json");
        assert!(answer.field("retry-after").parse::<u64>().is_ok_and(|secs| secs >= 1));
        false
    }
}

/// What one client was told, in order.
#[derive(Debug, Default)]
pub struct Seen {
    /// The highest number so far.
    pub highest: u64,
    /// How many different numbers.
    pub count: u64,
    /// The reasons of the gaps.
    pub gaps: Vec<String>,
    /// Since the last gap no new number came: an epoch's history may begin with what is known.
    behind_gap: bool,
}

impl Seen {
    fn take(&mut self, number: u64) {
        if number <= self.highest {
            assert!(self.behind_gap, "{number} came again after {}, and no gap: {:?}", self.highest, self.gaps);
            return;
        }
        let next = number == self.highest + 1;
        assert!(next || self.behind_gap, "{number} after {} and no gap was announced", self.highest);
        self.behind_gap = false;
        self.highest = number;
        self.count += 1;
    }

    fn take_gap(&mut self, reason: &str) {
        self.gaps.push(reason.to_owned());
        self.behind_gap = true;
    }
}

/// Clients of all transports that hold a connection.
pub struct Crowd {
    clients: Vec<JoinHandle<Seen>>,
    last: watch::Sender<Option<u64>>,
}

#[derive(Clone)]
struct Place {
    to: SocketAddr,
    path: String,
    opened: watch::Sender<usize>,
    last: watch::Receiver<Option<u64>>,
}

impl Crowd {
    /// So many clients on a channel, on these instances by turns; all of them listen.
    pub async fn gather(instances: &[SocketAddr], channel: &str, count: usize) -> Self {
        let last = watch::Sender::new(None);
        let opened = watch::Sender::new(0);
        let clients = (0..count).map(|n| {
            let to = instances[n % instances.len()];
            let place =
                Place { to, path: format!("/events/{channel}"), opened: opened.clone(), last: last.subscribe() };
            // Each instance gets each transport.
            match n / instances.len() % 4 {
                0 => tokio::spawn(stream(place, Http::H1)),
                1 => tokio::spawn(socket(place, Http::H1)),
                2 => tokio::spawn(stream(place, Http::H2c)),
                _ => tokio::spawn(socket(place, Http::H2c)),
            }
        });
        let clients: Vec<_> = clients.collect();
        let mut listening = opened.subscribe();
        within("a crowd", listening.wait_for(|open| *open == count)).await.expect("open");
        Self { clients, last }
    }

    /// Waits until everybody has seen the last number; what each was told.
    pub async fn see(self, last: u64) -> Vec<Seen> {
        self.last.send_replace(Some(last));
        let all = futures_util::future::join_all(self.clients);
        let seen = tokio::time::timeout(DEADLINE, all).await.expect("all see the last number");
        seen.into_iter().map(|seen| seen.expect("a client that saw what it should")).collect()
    }

    /// Everybody has seen everything, once, on the connection that they had from the start, and heard of no gap.
    pub async fn check_whole(self, last: u64) {
        for seen in self.see(last).await {
            assert_eq!((seen.count, seen.highest, seen.gaps.len()), (last, last, 0), "{seen:?}");
        }
    }
}

impl Place {
    fn open(&self) {
        self.opened.send_modify(|open| *open += 1);
    }

    fn is_last(&self, seen: &Seen) -> bool {
        *self.last.borrow() == Some(seen.highest)
    }

    /// Waits until what was seen last is the last.
    async fn until_last(&mut self, seen: &Seen) {
        let highest = seen.highest;
        let _ = self.last.wait_for(|last| *last == Some(highest)).await;
    }
}

async fn stream(mut place: Place, http: Http) -> Seen {
    let fields = [("accept", "text/event-stream")];
    // The connection goes when its last handle does.
    let (shared, body) = loop {
        let (shared, (status, _, body)) = match http {
            Http::H2c => {
                let shared = Shared::connect(place.to).await.expect("a connection");
                let answer = shared.get(&place.path, &fields).await.expect("an answer");
                (Some(shared), answer)
            }
            _ => (None, Body::get(place.to, &place.path, &fields).await),
        };
        if status == 200 {
            break (shared, body);
        }
        // A bus that is slow for a moment turns clients away, and they come back.
        assert_eq!(status, 503);
        tokio::time::sleep(TRY_AGAIN).await;
    };
    let (mut events, mut seen) = (EventStream::new(body), Seen::default());
    events.next().await.expect("an opening").expect("an opening");
    place.open();
    while !place.is_last(&seen) {
        let next = tokio::select! {
            () = async { place.until_last(&seen).await } => break,
            next = events.next() => next,
        };
        let event = next.expect("the stream goes on").expect("the connection stays");
        match event.event.as_str() {
            "gap" => {
                let gap: serde_json::Value = serde_json::from_str(&event.data).expect("JSON");
                seen.take_gap(gap["reason"].as_str().expect("a reason"));
            }
            _ if event.data.is_empty() => {}
            _ => seen.take(event.data.parse().expect("a number")),
        }
    }
    drop(shared);
    seen
}

async fn socket(mut place: Place, http: Http) -> Seen {
    let (shared, mut socket) = loop {
        let (shared, opened) = match http {
            Http::H2c => {
                let shared = Shared::connect(place.to).await.expect("a connection");
                let opened = shared.websocket(&place.path, "pushbridge.v1.json").await;
                (Some(shared), opened)
            }
            _ => (None, Socket::connect(place.to, &place.path, "pushbridge.v1.json").await),
        };
        match opened {
            Ok(socket) => break (shared, socket),
            Err(error) if error.to_string().contains("503") => tokio::time::sleep(TRY_AGAIN).await,
            Err(error) => panic!("no WebSocket: {error}"),
        }
    };
    let mut seen = Seen::default();
    while !place.is_last(&seen) {
        let next = tokio::select! {
            () = async { place.until_last(&seen).await } => break,
            next = socket.next() => next,
        };
        let Said::Text(text) = next else { panic!("the WebSocket ended: {next:?}") };
        let said: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        match said["type"].as_str() {
            Some("subscribed") => place.open(),
            Some("event") => seen.take(said["data"].as_u64().expect("a number")),
            Some("gap") => seen.take_gap(said["reason"].as_str().expect("a reason")),
            _ => {}
        }
    }
    drop(shared);
    seen
}
