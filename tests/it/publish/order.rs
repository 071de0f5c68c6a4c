//! Each channel's sequence is seen whole and in order, by every kind of client, while several publishers publish.

use super::{JSON, VERSIONS, YAML, post_as};
use crate::support::client::Http;
use crate::support::duplex::{Duplex, Readers};
use crate::support::events::{Events, Polls};
use crate::support::proxy::Proxy;
use std::fmt::Write as _;
use std::net::SocketAddr;
use tokio::task::JoinHandle;

const ROUNDS: usize = 200;

/// Publishers of one channel each number their events: `publisher number`.
fn start_publishers(at: SocketAddr) -> Vec<JoinHandle<()>> {
    let mut tasks = Vec::new();
    for channel in ["a", "b"] {
        for (publisher, version) in VERSIONS.into_iter().enumerate() {
            tasks.push(tokio::spawn(async move {
                for n in (0..ROUNDS).step_by(2) {
                    let body = format!(
                        r#"[{{"channel":"{channel}","event":"{channel}","data":"{publisher} {n}"}},
                            {{"channel":"{channel}","event":"{channel}","data":"{publisher} {}"}}]"#,
                        n + 1
                    );
                    assert_eq!(post_as(version, at, JSON, body).await.status, 200);
                }
            }));
        }
    }
    tasks
}

/// Checks one client's view: of each publisher on each channel every number, in order.
#[derive(Default)]
struct Seen {
    next: std::collections::HashMap<(String, String), usize>,
    count: usize,
}

impl Seen {
    #[track_caller]
    fn see(&mut self, channel: &str, data: &str) {
        let (publisher, number) = data.split_once(' ').unwrap_or_else(|| panic!("{channel}: {data}"));
        let next = self.next.entry((channel.to_owned(), publisher.to_owned())).or_default();
        assert_eq!(number, next.to_string(), "publisher {publisher} on {channel}");
        *next += 1;
        self.count += 1;
    }
}

async fn read_stream(version: Http, http: SocketAddr, path: &'static str, wanted: usize) -> JoinHandle<()> {
    let mut events = Events::open(version, http, path, &[]).await;
    tokio::spawn(async move {
        let mut seen = Seen::default();
        while seen.count < wanted {
            let frame = events.next().await;
            seen.see(&frame.event, &frame.data);
        }
    })
}

async fn read_polls(version: Http, http: SocketAddr, path: &'static str, wanted: usize) -> JoinHandle<()> {
    let mut polls = Polls::begin(version, http, path).await;
    tokio::spawn(async move {
        let mut seen = Seen::default();
        while seen.count < wanted {
            let (_, answer) = polls.next().await;
            assert_eq!(answer["gap"], serde_json::Value::Null);
            for event in answer["events"].as_array().expect("events") {
                seen.see(event["channel"].as_str().expect("a name"), event["data"].as_str().expect("a text"));
            }
        }
    })
}

/// Reads a few events, goes, and comes back with the cursor, over the other HTTP version.
async fn read_resuming(http: SocketAddr, path: &'static str, wanted: usize) -> JoinHandle<()> {
    let mut cursor = Events::open(Http::H1, http, path, &[]).await.cursor;
    tokio::spawn(async move {
        let mut seen = Seen::default();
        for turn in 0.. {
            let mut events = Events::open(VERSIONS[turn % 2], http, path, &[("last-event-id", &cursor)]).await;
            for _ in 0..(7 + turn % 13).min(wanted - seen.count) {
                let frame = events.next().await;
                seen.see(&frame.event, &frame.data);
            }
            cursor = events.cursor;
            if seen.count == wanted {
                break;
            }
        }
    })
}

#[tokio::test]
async fn every_client_sees_every_channel_whole_and_in_order() {
    let proxy = Proxy::start(YAML);
    let (http, at) = (proxy.address("http"), proxy.address("publish"));
    let mut clients = Vec::new();
    for version in VERSIONS {
        for (path, wanted) in [("/events/a", 2 * ROUNDS), ("/events/b", 2 * ROUNDS), ("/pair", 4 * ROUNDS)] {
            clients.push(read_stream(version, http, path, wanted).await);
            clients.push(read_polls(version, http, path, wanted).await);
        }
    }
    clients.push(read_resuming(http, "/events/a", 2 * ROUNDS).await);
    clients.push(read_resuming(http, "/pair", 4 * ROUNDS).await);
    for publisher in start_publishers(at) {
        publisher.await.expect("a publisher");
    }
    for client in clients {
        client.await.expect("a client");
    }
}

#[tokio::test]
async fn a_stream_at_full_speed_leaves_nobody_behind_who_keeps_up() {
    const COUNT: usize = 10_000;
    // Two of them fit into the half of an HTTP/2 window that a client leaves open at least.
    const BURST: usize = 400;
    let proxy = Proxy::start(&format!("{YAML}  - {{ match: c, history: {{ messages: 64 }} }}\n"));
    let (http, at) = (proxy.address("http"), proxy.address("publish"));
    let (mut clients, mut readers) = (Vec::new(), Readers::default());
    for version in [Http::H1, Http::H2c, Http::H1, Http::H2c] {
        let mut events = Events::open(version, http, "/events/c", &[]).await;
        let read = readers.add();
        clients.push(tokio::spawn(async move {
            for n in 0..COUNT {
                let frame = events.next().await;
                assert_eq!((frame.event.as_str(), frame.data), ("", n.to_string()));
                read.send_replace(n + 1);
            }
        }));
    }
    let duplex = Duplex::post(Http::H1, at, "application/x-ndjson").await;
    duplex.send("\n");
    let (request, answers) = duplex.stream().await;
    let answers = tokio::spawn(answers.rest());
    // Bursts of many times what the channel keeps: the server itself must not run ahead of its sessions.
    for burst in 0..COUNT / BURST {
        let mut lines = String::new();
        for n in burst * BURST..(burst + 1) * BURST {
            writeln!(lines, "{{\"channel\":\"c\",\"data\":{n}}}").expect("a text takes it");
        }
        request.send(lines);
        readers.have_read(burst * BURST).await;
    }
    drop(request);
    let answers = answers.await.expect("the answers");
    assert_eq!(answers.lines().filter(|line| line.starts_with("{\"results\":[")).count(), COUNT);
    for client in clients {
        client.await.expect("a client that keeps up");
    }
}

#[tokio::test]
async fn many_publishers_of_one_event_each_leave_nobody_behind() {
    const PUBLISHERS: usize = 16;
    const EVENTS: usize = 50;
    let proxy = Proxy::start(&format!("{YAML}  - {{ match: c, history: {{ messages: 1 }} }}\n"));
    let (http, at) = (proxy.address("http"), proxy.address("publish"));
    let mut clients = Vec::new();
    // Streams alone: a poll that has been answered is away, and nobody waits for it to come back.
    for version in [Http::H1, Http::H2c, Http::H1, Http::H2c] {
        clients.push(read_stream(version, http, "/events/c", PUBLISHERS * EVENTS).await);
    }
    let publishers: Vec<_> = (0..PUBLISHERS)
        .map(|publisher| {
            tokio::spawn(async move {
                for n in 0..EVENTS {
                    let event = format!(r#"{{"channel":"c","event":"c","data":"{publisher} {n}"}}"#);
                    assert_eq!(post_as(VERSIONS[n % 2], at, JSON, event).await.status, 200);
                }
            })
        })
        .collect();
    for task in publishers.into_iter().chain(clients) {
        task.await.expect("everybody is content");
    }
}
