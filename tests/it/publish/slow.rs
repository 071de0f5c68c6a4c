//! Clients that stop reading while much is published, and their neighbours.

use crate::support::client::{Http, dial, publish, within};
use crate::support::duplex::{Duplex, Readers};
use crate::support::events::Events;
use crate::support::metrics;
use crate::support::proxy::Proxy;
use std::fmt::Write as _;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

const YAML: &str = "
routes:
  - name: events
    match: { path: \"/events/{topic}\" }
    push: { channels: [\"{topic}\"] }
channels:
  - { match: gap, slow_consumer: gap }
  - { match: close, slow_consumer: close }
  - { match: event, slow_consumer: { conflate_by: event } }
  - { match: pointer, slow_consumer: { conflate_by: /key } }
";

/// 20 MB in 5000 events.
const EVENTS: usize = 5000;
const KEYS: usize = 7;

/// A client that has sent its request and reads nothing.
async fn stalled(to: SocketAddr, path: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4096).expect("a socket option");
    let mut tcp = socket.connect(to).await.expect("a connection");
    let request = format!("GET {path} HTTP/1.1\r\nhost: a\r\naccept: text/event-stream\r\n\r\n");
    tcp.write_all(request.as_bytes()).await.expect("written");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(tcp.read_u8().await.expect("a head"));
    }
    tcp
}

/// Publishes 20 MB on the channel beside a neighbour, which must get all of it.
async fn flood(proxy: &Proxy, channel: &'static str) {
    let (http, at) = (proxy.address("http"), proxy.address("publish"));
    let (mut neighbours, mut readers) = (Vec::new(), Readers::default());
    for version in [Http::H1, Http::H2c] {
        let mut events = Events::open(version, http, &format!("/events/{channel}"), &[]).await;
        let read = readers.add();
        neighbours.push(tokio::spawn(async move {
            for n in 0..EVENTS {
                let data = events.data(1).await.remove(0);
                assert!(data.starts_with(&format!("{{\"n\":{n},")), "{n}: {}", &data[..40]);
                read.send_replace(n + 1);
            }
        }));
    }
    let duplex = Duplex::post(Http::H1, at, "application/x-ndjson").await;
    duplex.send("\n");
    let (request, answers) = duplex.stream().await;
    let answers = tokio::spawn(answers.rest());
    let padding = "x".repeat(4000);
    for n in 0..EVENTS {
        let key = n % KEYS;
        let mut line = String::new();
        writeln!(line, r#"{{"channel":"{channel}","event":"{key}","data":{{"n":{n},"key":{key},"p":"{padding}"}}}}"#)
            .expect("a text takes it");
        request.send(line);
        // The channel keeps some 250 of them.
        readers.have_read(n.saturating_sub(150)).await;
    }
    drop(request);
    let answers = answers.await.expect("the answers");
    assert_eq!(answers.lines().filter(|line| line.starts_with("{\"results\":[")).count(), EVENTS);
    for neighbour in neighbours {
        neighbour.await.expect("a neighbour that gets everything");
    }
}

/// What a stalled client reads in the end, as `event n` for each event or `gap`; to the end of the connection, or to
/// event `last`.
async fn read_on(mut tcp: TcpStream, last: usize) -> Vec<String> {
    let mut text = Vec::new();
    let end = format!("\"n\":{last},");
    let reading = async {
        let mut part = vec![0; 64 * 1024];
        loop {
            match tcp.read(&mut part).await {
                Ok(0) | Err(_) => break,
                Ok(len) => text.extend_from_slice(&part[..len]),
            }
            if memchr::memmem::find(&text, end.as_bytes()).is_some() {
                break;
            }
        }
    };
    within("the rest of a stream", reading).await;
    let text = String::from_utf8_lossy(&text);
    let mut seen = Vec::new();
    let mut event = "";
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("event: ") {
            event = name;
        } else if let Some(data) = line.strip_prefix("data: ") {
            match data.strip_prefix("{\"n\":").and_then(|rest| rest.split_once(',')) {
                Some((n, _)) => seen.push(format!("{event} {n}")),
                None => seen.push(format!("{event} {data}")),
            }
        }
    }
    seen
}

/// The numbers of the events, in order.
fn numbers(seen: &[String]) -> Vec<usize> {
    seen.iter().filter_map(|text| text.split_once(' ')?.1.parse().ok()).collect()
}

#[tokio::test]
async fn a_stalled_client_is_told_of_the_gap_and_goes_on() {
    let proxy = Proxy::start(YAML);
    let client = stalled(proxy.address("http"), "/events/gap").await;
    flood(&proxy, "gap").await;
    let seen = read_on(client, EVENTS - 1).await;
    let (mut next, mut gaps, mut told) = (0, 0, false);
    for text in &seen {
        match numbers(std::slice::from_ref(text)).as_slice() {
            [n] => {
                assert!(*n == next || told && *n > next, "{n} after {next}");
                (next, told) = (n + 1, false);
            }
            _ => {
                assert_eq!(text, r#"gap {"channels":["gap"],"reason":"slow"}"#);
                (gaps, told) = (gaps + 1, true);
            }
        }
    }
    assert!(next == EVENTS && gaps > 0 && seen.len() < EVENTS, "{} events, {gaps} gaps", seen.len());
    let gaps_counted = "pushbridge_hub_gaps_total{reason=\"slow\"}";
    metrics::reaches(&proxy, gaps_counted, f64::from(gaps)).await;
}

/// An event stream of one h2 connection, whose data is taken only when the test says so.
struct Flow {
    body: h2::RecvStream,
    text: String,
}

impl Flow {
    async fn open(connection: &mut h2::client::SendRequest<bytes::Bytes>, to: SocketAddr) -> Self {
        let request = http::Request::get(format!("http://{to}/events/gap")).header("accept", "text/event-stream");
        let (response, _) = connection.send_request(request.body(()).expect("a request"), true).expect("a stream");
        let response = within("an answer", response).await.expect("an answer");
        assert_eq!(response.status(), 200);
        let mut flow = Self { body: response.into_body(), text: String::new() };
        flow.read_until("\n\n").await;
        flow
    }

    /// Reads until `end` stands in the text.
    async fn read_until(&mut self, end: &str) {
        let reading = async {
            let mut from = 0;
            while !self.text[from..].contains(end) {
                from = self.text.len().saturating_sub(end.len());
                let data = self.body.data().await.expect("more").expect("data");
                self.body.flow_control().release_capacity(data.len()).expect("capacity");
                self.text.push_str(std::str::from_utf8(&data).expect("text"));
            }
        };
        within("data", reading).await;
    }
}

#[tokio::test]
async fn a_stalled_stream_holds_up_no_other_on_its_connection() {
    let proxy = Proxy::start(YAML);
    let (http, at) = (proxy.address("http"), proxy.address("publish"));
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(64 * 1024).initial_connection_window_size(1024 * 1024);
    let (connection, driver) = builder.handshake(dial(http).await).await.expect("a handshake");
    tokio::spawn(driver);
    let mut connection = connection.ready().await.expect("a connection");
    let mut stalled = Flow::open(&mut connection, http).await;
    let mut live = Flow::open(&mut connection, http).await;
    for n in 0..40 {
        let event = format!(r#"{{"channel":"gap","data":{{"n":{n},"p":"{}"}}}}"#, "x".repeat(60_000));
        assert_eq!(publish(at, &event).await.status, 200);
        live.read_until(&format!("{{\"n\":{n},")).await;
    }
    assert!(!live.text.contains("event: gap"));
    stalled.read_until("{\"n\":39,").await;
    // Once as a rule; again where it fell behind while it heard of the first.
    assert!(stalled.text.contains("event: gap"), "it is told what it missed");
    let last: usize = stalled.text.rsplit("event: gap").next().map_or(0, |after| after.matches("{\"n\":").count());
    assert!((1..39).contains(&last), "{last} events after the gap are what the channel kept");
}

#[tokio::test]
async fn a_stalled_client_is_closed_where_the_channel_says_so() {
    let proxy = Proxy::start(YAML);
    let client = stalled(proxy.address("http"), "/events/close").await;
    flood(&proxy, "close").await;
    metrics::reaches(&proxy, "pushbridge_hub_sessions_closed_total{transport=\"sse\",reason=\"slow\"}", 1.0).await;
    let seen = numbers(&read_on(client, EVENTS - 1).await);
    assert!(seen.len() < EVENTS && seen.iter().copied().eq(0..seen.len()), "{} events", seen.len());
}

#[tokio::test]
async fn a_stalled_client_gets_the_newest_of_each_event() {
    check_conflation("event").await;
}

#[tokio::test]
async fn a_stalled_client_gets_the_newest_of_each_value_at_a_pointer() {
    check_conflation("pointer").await;
}

async fn check_conflation(channel: &'static str) {
    let proxy = Proxy::start(YAML);
    let client = stalled(proxy.address("http"), &format!("/events/{channel}")).await;
    flood(&proxy, channel).await;
    let seen = read_on(client, EVENTS - 1).await;
    assert!(!seen.iter().any(|text| text.starts_with("gap ")), "conflation is no gap");
    let numbers = numbers(&seen);
    assert_eq!(numbers.len(), seen.len());
    assert!(numbers.is_sorted() && numbers.len() < EVENTS, "{} events", numbers.len());
    let newest: std::collections::BTreeSet<usize> = numbers.iter().rev().take(KEYS).map(|n| n % KEYS).collect();
    assert_eq!(newest.len(), KEYS, "the newest of each key");
    let conflated = "pushbridge_hub_messages_conflated_total";
    metrics::reaches(&proxy, conflated, (EVENTS - numbers.len()) as f64).await;
}
