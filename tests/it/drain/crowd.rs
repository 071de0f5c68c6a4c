//! Seven hundred clients of all transports while messages flow: SIGTERM, and what each of them sees.

use crate::support::client::{Http, get, publish, send};
use crate::support::held::{Body, EventStream, Said, Shared, Socket};
use crate::support::proxy::Proxy;
use futures_util::future::join_all;
use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::task::LocalSet;

const YAML: &str = "
routes:
  - name: events
    match: { path: \"/events/{topic}\" }
    push: { channels: [\"{topic}\"], long_poll_timeout: 60s }
drain: { settle: 500ms, spread: 3s, margin: 5s }
runtime: { workers: 2 }
telemetry: { access_log: false }
";
const SPREAD: Duration = Duration::from_secs(3);
const EACH: usize = 150;
const POLLS: usize = 100;
const STREAMS_PER_CONNECTION: usize = 50;
const PUBLISH_EVERY: Duration = Duration::from_millis(100);

/// What a session saw.
struct Seen {
    numbers: Vec<u64>,
    end: String,
    at: Instant,
    /// The newest number whose publish was answered when the client saw the end.
    published: u64,
}

#[derive(Clone, Default)]
struct Board {
    open: Rc<Cell<usize>>,
    published: Rc<Cell<u64>>,
}

impl Board {
    fn seen(&self, numbers: Vec<u64>, end: String) -> Seen {
        Seen { numbers, end, at: Instant::now(), published: self.published.get() }
    }
}

async fn watch_stream(body: Body, board: Board) -> Seen {
    let (mut events, mut numbers, mut retry) = (EventStream::new(body), Vec::new(), false);
    loop {
        match events.next().await {
            Some(Ok(event)) if !event.data.is_empty() => numbers.push(event.data.parse().expect("a number")),
            Some(Ok(event)) if !numbers.is_empty() && event.retry_ms.is_some() => retry = true,
            // The opening.
            Some(Ok(_)) => board.open.set(board.open.get() + 1),
            Some(Err(error)) => return board.seen(numbers, format!("broken: {error}")),
            None => return board.seen(numbers, if retry { "retry, clean" } else { "clean, no retry" }.to_owned()),
        }
    }
}

async fn watch_socket(mut socket: Socket, board: Board) -> Seen {
    board.open.set(board.open.get() + 1);
    let (mut numbers, mut reconnect) = (Vec::new(), "");
    loop {
        match socket.next().await {
            Said::Text(text) => match text.parse() {
                Ok(number) => numbers.push(number),
                Err(_) => {
                    let said: serde_json::Value = serde_json::from_str(&text).expect("JSON");
                    match said["type"].as_str() {
                        Some("event") => numbers.push(said["data"].as_u64().expect("a number")),
                        Some("reconnect") => reconnect = "reconnect, ",
                        _ => {}
                    }
                }
            },
            Said::Close(code, text) => return board.seen(numbers, format!("{reconnect}{code} {text}")),
            Said::Lost(error) => return board.seen(numbers, format!("lost: {error}")),
        }
    }
}

async fn poll(http: SocketAddr, board: Board) -> (u16, bool, Duration) {
    board.open.set(board.open.get() + 1);
    let began = Instant::now();
    let answer = send(Http::H1, http, get(http, "/events/quiet", &[("accept", "application/json")])).await;
    (answer.status.as_u16(), !answer.field("etag").is_empty(), began.elapsed())
}

/// Numbers from 1 on, until `stop`.
async fn keep_publishing(at: SocketAddr, board: Board, stop: Rc<Cell<bool>>) {
    for number in 1.. {
        if stop.get() {
            return;
        }
        let answer = publish(at, &format!(r#"{{"channel":"c","data":{number}}}"#)).await;
        assert_eq!(answer.status, 200);
        board.published.set(number);
        tokio::time::sleep(PUBLISH_EVERY).await;
    }
}

#[tokio::test]
async fn every_one_of_a_crowd_is_told_at_its_own_moment_and_misses_nothing() {
    LocalSet::new().run_until(Box::pin(crowd())).await;
}

async fn crowd() {
    let proxy = Proxy::start(YAML);
    let (http, publish_at) = (proxy.address("http"), proxy.address("publish"));
    let board = Board::default();
    let spawn = |watch| tokio::task::spawn_local(watch);
    let (mut streams, mut sockets) = (Vec::new(), Vec::new());
    let sse = [("accept", "text/event-stream")];
    let mut shared = Shared::connect(http).await.expect("a connection");
    for n in 0..EACH {
        let (_, _, body) = Body::get(http, "/events/c", &sse).await;
        streams
            .push(spawn(Box::pin(watch_stream(body, board.clone())) as std::pin::Pin<Box<dyn Future<Output = Seen>>>));
        let subprotocol = if n % 2 == 0 { "" } else { "pushbridge.v1.json" };
        let socket = Socket::connect(http, "/events/c", subprotocol).await.expect("a WebSocket");
        sockets.push(spawn(Box::pin(watch_socket(socket, board.clone()))));
        if n % (STREAMS_PER_CONNECTION / 2) == 0 {
            shared = Shared::connect(http).await.expect("a connection");
        }
        let (_, _, body) = shared.get("/events/c", &sse).await.expect("a stream");
        streams.push(spawn(Box::pin(watch_stream(body, board.clone()))));
        let socket = shared.websocket("/events/c", subprotocol).await.expect("a WebSocket");
        sockets.push(spawn(Box::pin(watch_socket(socket, board.clone()))));
    }
    drop(shared);
    let polls: Vec<_> = (0..POLLS).map(|_| tokio::task::spawn_local(poll(http, board.clone()))).collect();
    while board.open.get() < 4 * EACH + POLLS || held(&proxy).await < 4 * EACH + POLLS {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let stop = Rc::new(Cell::new(false));
    let publishing = tokio::task::spawn_local(keep_publishing(publish_at, board.clone(), Rc::clone(&stop)));
    while board.published.get() < 3 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    proxy.stop();
    let began = Instant::now();
    for (status, has_cursor, _) in join_all(polls).await.into_iter().map(|poll| poll.expect("an answer")) {
        assert!(status == 204 && has_cursor, "a poll was answered {status}");
    }
    let polled = began.elapsed();
    let streams: Vec<Seen> = join_all(streams).await.into_iter().map(|seen| seen.expect("watched")).collect();
    let sockets: Vec<Seen> = join_all(sockets).await.into_iter().map(|seen| seen.expect("watched")).collect();
    // The last message may still be on its way to an instance that goes.
    stop.set(true);
    publishing.abort();
    let ended = tokio::task::spawn_blocking(move || proxy.wait()).await.expect("waited");
    assert_eq!(ended.code(), Some(0));
    assert!(polled < Duration::from_secs(3), "polls were answered after {polled:?}");
    for seen in &streams {
        assert_eq!(seen.end, "retry, clean");
    }
    for (n, seen) in sockets.iter().enumerate() {
        let expected = if n / 2 % 2 == 0 { "1012 drain" } else { "reconnect, 1012 drain" };
        assert_eq!(seen.end, expected, "socket {n}");
    }
    let all: Vec<Seen> = streams.into_iter().chain(sockets).collect();
    check_numbers(&all);
    check_spread(&all);
}

/// How many sessions the instance holds.
async fn held(proxy: &Proxy) -> usize {
    let admin = proxy.address("admin");
    let status = send(Http::H1, admin, get(admin, "/drain", &[])).await.json();
    status["sessions"].as_u64().expect("a number") as usize
}

/// No hole, and nothing missing at the end but what was published while the end was on its way to the client.
fn check_numbers(all: &[Seen]) {
    const ON_ITS_WAY: u64 = 10;
    for seen in all {
        let whole: Vec<u64> = (1..=seen.numbers.len() as u64).collect();
        assert_eq!(seen.numbers, whole, "a hole");
        let last = seen.numbers.len() as u64;
        assert!(last + ON_ITS_WAY >= seen.published, "{last} was the last of {}", seen.published);
    }
}

fn check_spread(all: &[Seen]) {
    const BINS: usize = 12;
    let first = all.iter().map(|seen| seen.at).min().expect("some");
    let mut histogram = [0; BINS + 4];
    for seen in all {
        let bin = (seen.at - first).as_millis() * BINS as u128 / SPREAD.as_millis();
        histogram[(bin as usize).min(BINS + 3)] += 1;
    }
    let last = all.iter().map(|seen| seen.at).max().expect("some");
    let took = last - first;
    let mean = all.len() / BINS;
    assert!(
        took > SPREAD * 8 / 10 && histogram.iter().all(|count| *count < 3 * mean),
        "{} closes over {took:?}, by quarters of a second: {histogram:?}",
        all.len()
    );
}
