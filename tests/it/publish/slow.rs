//! Clients that stop reading while much is published, and their neighbours.

use crate::support::client::{Http, within};
use crate::support::duplex::Duplex;
use crate::support::events::Events;
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
    let mut neighbours = Vec::new();
    for version in [Http::H1, Http::H2c] {
        let mut events = Events::open(version, http, &format!("/events/{channel}"), &[]).await;
        neighbours.push(tokio::spawn(async move {
            for n in 0..EVENTS {
                let data = events.data(1).await.remove(0);
                assert!(data.starts_with(&format!("{{\"n\":{n},")), "{n}: {}", &data[..40]);
            }
        }));
    }
    let duplex = Duplex::post(Http::H1, at, "application/x-ndjson").await;
    let padding = "x".repeat(4000);
    for n in 0..EVENTS {
        let key = n % KEYS;
        let mut line = String::new();
        writeln!(line, r#"{{"channel":"{channel}","event":"{key}","data":{{"n":{n},"key":{key},"p":"{padding}"}}}}"#)
            .expect("a text takes it");
        duplex.send(line);
    }
    let (request, answers) = duplex.stream().await;
    drop(request);
    assert_eq!(answers.rest().await.lines().filter(|line| line.starts_with("{\"results\":[")).count(), EVENTS);
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
    let gaps: Vec<_> = seen.iter().enumerate().filter(|(_, text)| text.starts_with("gap ")).collect();
    let [(at, gap)] = gaps.as_slice() else { panic!("{} gaps", gaps.len()) };
    assert_eq!(gap.as_str(), r#"gap {"channels":["gap"],"reason":"slow"}"#);
    let (before, after) = (numbers(&seen[..*at]), numbers(&seen[at + 1..]));
    assert!(before.iter().copied().eq(0..before.len()) && !before.is_empty());
    let from = after[0];
    assert!(from > before.len() && after.iter().copied().eq(from..EVENTS), "from {from}, {} events", after.len());
}

#[tokio::test]
async fn a_stalled_client_is_closed_where_the_channel_says_so() {
    let proxy = Proxy::start(YAML);
    let client = stalled(proxy.address("http"), "/events/close").await;
    flood(&proxy, "close").await;
    let admin = proxy.address("admin");
    crate::support::metrics::until(
        admin,
        "pushbridge_hub_sessions_closed_total{transport=\"sse\",reason=\"slow\"}",
        1.0,
    )
    .await;
    let seen = numbers(&read_on(client, EVENTS - 1).await);
    assert!(seen.len() < EVENTS && seen.iter().copied().eq(0..seen.len()), "{} events", seen.len());
}

#[tokio::test]
async fn a_stalled_client_gets_the_newest_of_each_key() {
    let proxy = Proxy::start(YAML);
    for channel in ["event", "pointer"] {
        let client = stalled(proxy.address("http"), &format!("/events/{channel}")).await;
        flood(&proxy, channel).await;
        let seen = read_on(client, EVENTS - 1).await;
        assert!(!seen.iter().any(|text| text.starts_with("gap ")), "conflation is no gap");
        let numbers = numbers(&seen);
        assert_eq!(numbers.len(), seen.len());
        assert!(numbers.is_sorted() && numbers.len() < EVENTS, "{} events", numbers.len());
        // Left out is only what a newer one of its key stands for: after each hole, each key's next value comes.
        let newest: std::collections::BTreeSet<usize> = numbers.iter().rev().take(KEYS).map(|n| n % KEYS).collect();
        assert_eq!(newest.len(), KEYS, "the newest of each key");
    }
    let conflated =
        crate::support::metrics::value(proxy.address("admin"), "pushbridge_hub_messages_conflated_total").await;
    assert!(conflated > 0.0);
}
