//! A rolling deploy: two instances behind a balancer are replaced one after the other, and two hundred clients that
//! come back by themselves get every message once, in order.
//!
//! With `bus: memory` each instance has channels of its own, so the publisher posts to all of them with the same ids. A
//! cursor of one is of another epoch to the other: the client is told of a gap and gets the history again. What it has
//! already it knows by the publisher's number in the data. With a shared bus the publisher posts once, to any, and
//! nothing comes again.

use crate::support::client::{Http, post, send};
use crate::support::held::{Body, EventStream, Failed, Said, Shared, Socket};
use crate::support::proxy::Proxy;
use crate::support::redis::Redis;
use futures_util::future::join_all;
use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{LocalSet, spawn_blocking, spawn_local};

const YAML: &str = "
routes:
  - name: events
    match: { path: \"/events/{topic}\" }
    push: { channels: [\"{topic}\"], start: { last: 1000 }, long_poll_timeout: 1s }
drain: { settle: 300ms, spread: 1s, margin: 3s }
runtime: { workers: 2 }
telemetry: { access_log: false }
";
const STREAMS: usize = 70;
const SOCKETS: usize = 70;
const POLLERS: usize = 60;
const PUBLISH_EVERY: Duration = Duration::from_millis(50);
const BACKOFF: Duration = Duration::from_millis(20);

/// How instances share what is published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Bus {
    /// Not at all.
    #[default]
    Memory,
    /// Through the Redis on this port.
    Redis(u16),
}

/// What the whole cast shares.
#[derive(Default)]
struct Stage {
    bus: Bus,
    /// Where the balancer sends new connections.
    pool: RefCell<Vec<SocketAddr>>,
    turn: Cell<usize>,
    /// Where the publisher posts.
    publish: RefCell<Vec<SocketAddr>>,
    published: Cell<u64>,
    /// The last number, once it is known.
    last: Cell<Option<u64>>,
    listening: Cell<usize>,
    /// Streams and sockets that were ever opened.
    sessions: Cell<usize>,
}

/// One client: what it got, and what it would come back with.
#[derive(Default)]
struct Client {
    numbers: Vec<u64>,
    again: usize,
    gaps: usize,
    cursor: String,
}

impl Client {
    fn take(&mut self, number: u64) {
        if number > self.numbers.last().copied().unwrap_or(0) {
            self.numbers.push(number);
        } else {
            self.again += 1;
        }
    }

    fn is_done(&self, stage: &Stage) -> bool {
        stage.last.get().is_some_and(|last| self.numbers.last() == Some(&last))
    }
}

#[tokio::test]
async fn two_instances_are_replaced_and_no_client_misses_anything() {
    let (again, gaps) = LocalSet::new().run_until(Box::pin(deploy(Bus::Memory))).await;
    assert!(gaps > 0 && again > 0, "{gaps} gaps, {again} again: has anybody moved?");
}

#[tokio::test]
async fn on_a_shared_bus_two_instances_are_replaced_and_nothing_is_lost_or_doubled() {
    let redis = Redis::start();
    let counts = LocalSet::new().run_until(Box::pin(deploy(Bus::Redis(redis.port())))).await;
    assert_eq!(counts, (0, 0), "what came again, and gaps");
}

/// Plays it; how often something came again, and how many gaps there were.
async fn deploy(bus: Bus) -> (usize, usize) {
    let stage = Rc::new(Stage { bus, ..Stage::default() });
    let balancer = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let at = balancer.local_addr().expect("an address");
    spawn_local(balance(balancer, Rc::clone(&stage)));
    let mut old = vec![join(&stage).await, join(&stage).await];
    let publishing = spawn_local(keep_publishing(Rc::clone(&stage)));
    let mut clients = Vec::new();
    for n in 0..STREAMS + SOCKETS + POLLERS {
        let http = if n % 2 == 0 { Http::H1 } else { Http::H2c };
        let client: std::pin::Pin<Box<dyn Future<Output = Client>>> = match n {
            n if n < STREAMS => Box::pin(follow_stream(http, at, Rc::clone(&stage))),
            n if n < STREAMS + SOCKETS => Box::pin(follow_socket(http, at, Rc::clone(&stage))),
            _ => Box::pin(follow_polls(http, at, Rc::clone(&stage))),
        };
        clients.push(spawn_local(client));
    }
    while stage.listening.get() < STREAMS + SOCKETS + POLLERS {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for _ in 0..old.len() {
        let new = join(&stage).await;
        replace(&stage, old.remove(0)).await;
        old.push(new);
    }
    // The next is on its way already, perhaps.
    stage.last.set(Some(stage.published.get() + 2));
    publishing.await.expect("published");
    let last = stage.last.get().expect("a last one");
    let followed = tokio::time::timeout(Duration::from_secs(60), join_all(clients)).await.expect("all get the last");
    let whole: Vec<u64> = (1..=last).collect();
    let (mut again, mut gaps) = (0, 0);
    for (n, client) in followed.into_iter().enumerate() {
        let client = client.expect("a client");
        assert_eq!(client.numbers, whole, "client {n}: {} came again, {} gaps", client.again, client.gaps);
        again += client.again;
        gaps += client.gaps;
    }
    for instance in old {
        let ended = spawn_blocking(move || instance.terminate()).await.expect("waited");
        assert_eq!(ended.code(), Some(0));
    }
    // Both instances were replaced: whoever holds a session has moved.
    let opened = stage.sessions.get();
    assert!(opened >= 2 * (STREAMS + SOCKETS), "{opened} sessions: has everybody moved?");
    (again, gaps)
}

/// Starts an instance: it is published to at once, and then gets clients.
async fn join(stage: &Stage) -> Proxy {
    let bus = match stage.bus {
        Bus::Memory => "bus: { memory: {} }\n".to_owned(),
        Bus::Redis(port) => format!("bus: {{ redis: {{ url: \"redis://127.0.0.1:{port}\" }} }}\n"),
    };
    let proxy = spawn_blocking(move || Proxy::start(&format!("{YAML}{bus}"))).await.expect("started");
    stage.publish.borrow_mut().push(proxy.address("publish"));
    // What is on its way to the others only is over before clients come: from here on it has all.
    let now = stage.published.get();
    while now > 0 && stage.published.get() < now + 2 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    stage.pool.borrow_mut().push(proxy.address("http"));
    proxy
}

/// Takes an instance out of the balancer's pool and stops it.
async fn replace(stage: &Stage, proxy: Proxy) {
    let (http, publish) = (proxy.address("http"), proxy.address("publish"));
    stage.pool.borrow_mut().retain(|known| *known != http);
    let ended = spawn_blocking(move || proxy.terminate()).await.expect("waited");
    assert_eq!(ended.code(), Some(0));
    stage.publish.borrow_mut().retain(|known| *known != publish);
}

async fn balance(listener: TcpListener, stage: Rc<Stage>) {
    loop {
        let Ok((mut client, _)) = listener.accept().await else { continue };
        let to = {
            let pool = stage.pool.borrow();
            stage.turn.set(stage.turn.get() + 1);
            pool[stage.turn.get() % pool.len()]
        };
        spawn_local(async move {
            if let Ok(mut instance) = TcpStream::connect(to).await {
                let _ = tokio::io::copy_bidirectional(&mut client, &mut instance).await;
            }
        });
    }
}

/// Numbers from 1 on, up to the last: with a shared bus to one instance after the other, each number once; else to every
/// instance, with the same id everywhere.
async fn keep_publishing(stage: Rc<Stage>) {
    for number in 1.. {
        let event = format!(r#"{{"channel":"c","id":"{number}","data":{number}}}"#);
        let mut instances = stage.publish.borrow().clone();
        let turn = number as usize % instances.len();
        instances.rotate_left(turn);
        for to in instances {
            let taken = is_taken(to, event.clone()).await;
            if taken && stage.bus != Bus::Memory {
                break;
            }
        }
        stage.published.set(number);
        if stage.last.get() == Some(number) {
            return;
        }
        tokio::time::sleep(PUBLISH_EVERY).await;
    }
}

/// Whether the instance has answered that it took the event. One that has gone takes none; nobody is on it.
async fn is_taken(to: SocketAddr, event: String) -> bool {
    let Ok(tcp) = TcpStream::connect(to).await else { return false };
    drop(tcp);
    let request = post(to, "/v1/events", &[("content-type", "application/json")], event);
    let sent = spawn_local(async move { send(Http::H1, to, request).await.status });
    let Ok(status) = sent.await else { return false };
    assert_eq!(status, 200);
    true
}

async fn follow_stream(http: Http, at: SocketAddr, stage: Rc<Stage>) -> Client {
    let mut client = Client::default();
    let mut known = false;
    loop {
        if let Ok(mut events) = open_stream(http, at, &client.cursor).await {
            stage.sessions.set(stage.sessions.get() + 1);
            if !std::mem::replace(&mut known, true) {
                stage.listening.set(stage.listening.get() + 1);
            }
            while let Some(Ok(event)) = events.next().await {
                if let Some(id) = event.id {
                    client.cursor = id;
                }
                match event.event.as_str() {
                    "gap" => client.gaps += 1,
                    _ if event.data.is_empty() => {}
                    _ => client.take(event.data.parse().expect("a number")),
                }
                if client.is_done(&stage) {
                    return client;
                }
            }
        }
        tokio::time::sleep(BACKOFF).await;
    }
}

async fn open_stream(http: Http, at: SocketAddr, cursor: &str) -> Result<EventStream, Failed> {
    let mut fields = vec![("accept", "text/event-stream")];
    if !cursor.is_empty() {
        fields.push(("last-event-id", cursor));
    }
    let (status, _, body) = match http {
        Http::H2c => Shared::connect(at).await?.get("/events/c", &fields).await?,
        _ => Body::try_get(at, "/events/c", &fields).await?,
    };
    if status == 200 { Ok(EventStream::new(body)) } else { Err(format!("answered {status}").into()) }
}

async fn follow_socket(http: Http, at: SocketAddr, stage: Rc<Stage>) -> Client {
    let mut client = Client::default();
    let mut known = false;
    loop {
        let path = match client.cursor.as_str() {
            "" => "/events/c".to_owned(),
            cursor => format!("/events/c?last_event_id={cursor}"),
        };
        let opened = match http {
            Http::H2c => match Shared::connect(at).await {
                Ok(shared) => shared.websocket(&path, "pushbridge.v1.json").await,
                Err(error) => Err(error),
            },
            _ => Socket::connect(at, &path, "pushbridge.v1.json").await,
        };
        if let Ok(mut socket) = opened {
            stage.sessions.set(stage.sessions.get() + 1);
            if !std::mem::replace(&mut known, true) {
                stage.listening.set(stage.listening.get() + 1);
            }
            while let Said::Text(text) = socket.next().await {
                let said: serde_json::Value = serde_json::from_str(&text).expect("JSON");
                if let Some(cursor) = said["id"].as_str().or_else(|| said["cursor"].as_str()) {
                    cursor.clone_into(&mut client.cursor);
                }
                match said["type"].as_str() {
                    Some("event") => client.take(said["data"].as_u64().expect("a number")),
                    Some("gap") => client.gaps += 1,
                    _ => {}
                }
                if client.is_done(&stage) {
                    return client;
                }
            }
        }
        tokio::time::sleep(BACKOFF).await;
    }
}

async fn follow_polls(http: Http, at: SocketAddr, stage: Rc<Stage>) -> Client {
    let mut client = Client::default();
    let mut known = false;
    loop {
        match poll(http, at, &client.cursor).await {
            Ok((cursor, answer)) => {
                if !std::mem::replace(&mut known, true) {
                    stage.listening.set(stage.listening.get() + 1);
                }
                client.cursor = cursor;
                client.gaps += usize::from(answer["gap"].is_object());
                for event in answer["events"].as_array().into_iter().flatten() {
                    client.take(event["data"].as_u64().expect("a number"));
                }
                if client.is_done(&stage) {
                    return client;
                }
            }
            Err(_) => tokio::time::sleep(BACKOFF).await,
        }
    }
}

/// One poll: the cursor for the next, and the answer's JSON.
async fn poll(http: Http, at: SocketAddr, cursor: &str) -> Result<(String, serde_json::Value), Failed> {
    let mut fields = vec![("accept", "application/json")];
    if !cursor.is_empty() {
        fields.push(("if-none-match", cursor));
    }
    let (status, head, mut body) = match http {
        Http::H2c => Shared::connect(at).await?.get("/events/c", &fields).await?,
        _ => Body::try_get(at, "/events/c", &fields).await?,
    };
    let cursor = head.get("etag").and_then(|tag| tag.to_str().ok()).unwrap_or_default().to_owned();
    if cursor.is_empty() {
        return Err(format!("answered {status}").into());
    }
    let mut text = Vec::new();
    while let Some(data) = body.next().await {
        text.extend_from_slice(&data?);
    }
    let json = if text.is_empty() { serde_json::Value::Null } else { serde_json::from_slice(&text)? };
    Ok((cursor, json))
}
