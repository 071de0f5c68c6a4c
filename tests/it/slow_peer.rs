//! One of many clients stops reading while much is published: the others get all of it, in order; the slow one is told
//! of a gap, closed or conflated, as its channel says; and what it has not read costs no memory.
//!
//! ```text
//! slow one subscribes ─▶ 16 MB, which nobody takes ─▶ the others come ─▶ more than the log keeps, for all ─▶ it reads on
//! ```
//!
//! Nothing here depends on how fast anything is: a publisher never runs further ahead of the readers than the channel
//! keeps messages.

mod client;

use crate::support::client::{Http, post, send, within};
use crate::support::duplex::Readers;
use crate::support::figures::{figure, wait_for_figure};
use crate::support::metrics;
use crate::support::proxy::Proxy;
use client::{Client, Heard};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::ops::Range;

const YAML: &str = "
routes:
  - name: events
    match: { path: \"/events/{topic}\" }
    push: { channels: [\"{topic}\"] }
channels:
  - { match: gap, history: { max_bytes: 512KiB }, slow_consumer: gap }
  - { match: close, history: { max_bytes: 512KiB }, slow_consumer: close }
  - { match: conflate, history: { max_bytes: 512KiB }, slow_consumer: { conflate_by: event } }
";

/// Clients of a channel, the slow one among them.
const CLIENTS: usize = 200;
/// What the channel keeps, in bytes; as much again is kept where it conflates.
const LOG_BYTES_MAX: f64 = 512.0 * 1024.0;
const MESSAGE_BYTES: usize = 8000;
/// Messages of one publish request: a quarter of what the channel keeps.
const BATCH: usize = 16;
/// 16 MB, far more than the system takes for a connection that is not read.
const ALONE: usize = 2048;
/// Half as much again as the channel keeps.
const TOGETHER: usize = 96;
/// What the process may grow by while 16 MB are published that nobody takes, and in all once it serves all clients.
const GROWTH_ALONE_KIB_MAX: u64 = 10 * 1024;
const GROWTH_TOGETHER_KIB_MAX: u64 = 14 * 1024;
const KEYS: usize = 7;

/// How clients are connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Over {
    /// Event streams, each on an HTTP/1.1 connection of its own.
    Sse,
    /// Event streams of one HTTP/2 connection.
    SharedSse,
    /// WebSockets that speak `pushbridge.v1.json`.
    V1,
    /// WebSockets without a subprotocol.
    Raw,
}

/// Publishes messages of these numbers; checks what the channel keeps of them.
async fn publish(proxy: &Proxy, channel: &str, numbers: Range<usize>) {
    let to = proxy.address("publish");
    let padding = "x".repeat(MESSAGE_BYTES);
    let mut lines = String::new();
    for n in numbers.clone() {
        let key = n % KEYS;
        writeln!(lines, r#"{{"channel":"{channel}","event":"{key}","data":{{"n":{n},"p":"{padding}"}}}}"#)
            .expect("a text takes it");
    }
    let answer = send(Http::H1, to, post(to, "/v1/events", &[("content-type", "application/x-ndjson")], lines)).await;
    let accepted = answer.text().lines().filter(|line| line.starts_with("{\"results\":[")).count();
    assert_eq!((answer.status.as_u16(), accepted), (200, numbers.len()), "{}", answer.text());
}

/// Fails when the channels' logs hold more than the channel may.
async fn check_log(proxy: &Proxy, channel: &str) {
    let kept = figure(proxy, "pushbridge_hub_log_bytes", &[]).await;
    let bound = if channel == "conflate" { 2.0 * LOG_BYTES_MAX } else { LOG_BYTES_MAX };
    assert!(kept <= bound, "{kept} bytes are kept");
}

/// What the slow client of such a channel hears when it reads on.
async fn slow_one_among_many(over: Over, channel: &'static str) -> (Proxy, Vec<Heard>) {
    let proxy = Proxy::start(YAML);
    let mut clients = client::open(over, proxy.address("http"), channel, CLIENTS).await;
    let slow = clients.next().await;
    let before_kib = proxy.resident_kib();
    for first in (0..ALONE).step_by(BATCH) {
        publish(&proxy, channel, first..first + BATCH).await;
        if first % 512 == 0 {
            check_log(&proxy, channel).await;
        }
    }
    wait_for_figure(&proxy, "pushbridge_hub_log_bytes", &[], LOG_BYTES_MAX / 2.0).await;
    check_log(&proxy, channel).await;
    let alone_kib = proxy.resident_kib();
    assert!(alone_kib < before_kib + GROWTH_ALONE_KIB_MAX, "{before_kib} KiB, then {alone_kib} KiB");

    let (mut others, mut readers) = (Vec::new(), Readers::default());
    for _ in 1..CLIENTS {
        let other = clients.next().await;
        let read = readers.add();
        others.push(tokio::spawn(all_in_order(other, read)));
    }
    for first in (ALONE..ALONE + TOGETHER).step_by(BATCH) {
        publish(&proxy, channel, first..first + BATCH).await;
        readers.have_read(first + BATCH).await;
        check_log(&proxy, channel).await;
    }
    let together_kib = proxy.resident_kib();
    assert!(together_kib < before_kib + GROWTH_TOGETHER_KIB_MAX, "{before_kib} KiB, then {together_kib} KiB");
    // They stay until the slow one has read on.
    let mut kept = Vec::new();
    for other in others {
        kept.push(within("another client", other).await.expect("another client that gets everything"));
    }
    (proxy, heard(slow).await)
}

/// Reads every message from the first one after those that came before it.
async fn all_in_order(mut client: Client, read: tokio::sync::watch::Sender<usize>) -> Client {
    for n in ALONE..ALONE + TOGETHER {
        assert_eq!(client.next().await, Heard::Message(n));
        read.send_replace(n + 1);
    }
    client
}

/// All that a client still hears, to the last message or its end.
async fn heard(mut client: Client) -> Vec<Heard> {
    let mut heard = Vec::new();
    loop {
        let next = client.next().await;
        let is_last = matches!(next, Heard::Message(n) if n + 1 == ALONE + TOGETHER) || matches!(next, Heard::End(_));
        heard.push(next);
        if is_last {
            return heard;
        }
    }
}

/// The numbers of the messages.
fn numbers(heard: &[Heard]) -> Vec<usize> {
    heard.iter().filter_map(|heard| if let Heard::Message(n) = heard { Some(*n) } else { None }).collect()
}

#[track_caller]
fn is_told_of_each_gap(heard: &[Heard]) -> usize {
    let (mut next, mut told, mut gaps) = (0, false, 0);
    for heard in heard {
        match heard {
            Heard::Message(n) => {
                assert!(*n == next || told && *n > next, "{n} after {next} and no gap");
                (next, told) = (n + 1, false);
            }
            Heard::Gap => (told, gaps) = (true, gaps + 1),
            Heard::End(how) => panic!("it ended after {next}: {how}"),
        }
    }
    assert!(next == ALONE + TOGETHER && gaps > 0, "{gaps} gaps, then {next}");
    gaps
}

async fn check_gap(over: Over) {
    let (proxy, heard) = slow_one_among_many(over, "gap").await;
    let gaps = is_told_of_each_gap(&heard);
    metrics::reaches(&proxy, "pushbridge_hub_gaps_total{reason=\"slow\"}", gaps as f64).await;
}

async fn check_close(over: Over, end: &str) {
    let (proxy, heard) = slow_one_among_many(over, "close").await;
    let numbers = numbers(&heard);
    assert!(numbers.len() < ALONE && numbers.iter().copied().eq(0..numbers.len()), "{} messages", numbers.len());
    assert_eq!(heard.len(), numbers.len() + 1, "nothing else but its end");
    assert!(matches!(heard.last(), Some(Heard::End(how)) if how.starts_with(end)), "{:?}", heard.last());
    let transport = if matches!(over, Over::V1 | Over::Raw) { "websocket" } else { "sse" };
    let closed = format!("pushbridge_hub_sessions_closed_total{{transport=\"{transport}\",reason=\"slow\"}}");
    metrics::reaches(&proxy, &closed, 1.0).await;
}

async fn check_conflation(over: Over) {
    let (proxy, heard) = slow_one_among_many(over, "conflate").await;
    let numbers = numbers(&heard);
    assert_eq!(numbers.len(), heard.len(), "conflation is no gap, and no end");
    assert!(numbers.is_sorted_by(|a, b| a < b) && numbers.len() < ALONE, "{} messages", numbers.len());
    let newest: BTreeSet<usize> = numbers.iter().rev().take(KEYS).map(|n| n % KEYS).collect();
    assert_eq!(newest.len(), KEYS, "the newest of each key");
    let left_out = (ALONE + TOGETHER - numbers.len()) as f64;
    metrics::reaches(&proxy, "pushbridge_hub_messages_conflated_total", left_out).await;
}

#[tokio::test]
async fn a_slow_event_stream_hears_of_the_gap() {
    check_gap(Over::Sse).await;
}

#[tokio::test]
async fn a_slow_event_stream_is_closed() {
    check_close(Over::Sse, "").await;
}

#[tokio::test]
async fn a_slow_event_stream_is_conflated() {
    check_conflation(Over::Sse).await;
}

#[tokio::test]
async fn a_stream_stalled_by_flow_control_hears_of_the_gap() {
    check_gap(Over::SharedSse).await;
}

#[tokio::test]
async fn a_stream_stalled_by_flow_control_is_closed() {
    check_close(Over::SharedSse, "").await;
}

#[tokio::test]
async fn a_stream_stalled_by_flow_control_is_conflated() {
    check_conflation(Over::SharedSse).await;
}

#[tokio::test]
async fn a_slow_v1_websocket_hears_of_the_gap() {
    check_gap(Over::V1).await;
}

#[tokio::test]
async fn a_slow_websocket_is_closed() {
    check_close(Over::Raw, "4413 slow").await;
}

#[tokio::test]
async fn a_slow_websocket_is_conflated() {
    check_conflation(Over::Raw).await;
}

#[tokio::test]
async fn a_slow_raw_websocket_is_closed_where_a_gap_has_no_place() {
    let (_proxy, heard) = slow_one_among_many(Over::Raw, "gap").await;
    let numbers = numbers(&heard);
    assert!(numbers.len() < ALONE && numbers.iter().copied().eq(0..numbers.len()), "{} messages", numbers.len());
    assert_eq!(heard.last(), Some(&Heard::End("4001 gap".to_owned())));
}
