//! The demo's backend: a plain request/response server with a thread of its own, which knows nothing of push.
//!
//! It holds no connection open for a client: it serves the page, answers each order as it comes, and POSTs what
//! happens on the market to pushbridge.

use crate::demo::market::{Market, Trade};
use crate::demo::{orders, page, publisher};
use anyhow::Context as _;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use std::cell::RefCell;
use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time;

const CONNECTIONS_MAX: usize = 512;
const ORDERS_BYTES_MAX: usize = 256 * 1024;
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
const UNPUBLISHED_EVENTS_MAX: usize = 1000;
const TICK: Duration = Duration::from_millis(200);
/// Scripts, styles and connections of the page's own host only.
const POLICY: &str = "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'";

/// A running origin; dropping it stops its thread.
#[derive(Debug)]
pub struct Origin {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Origin {
    /// Serves on `listener` and publishes to the publish listener at `publish`.
    ///
    /// # Errors
    /// When the thread or its runtime can't be started.
    pub fn start(listener: TcpListener, publish: SocketAddr) -> anyhow::Result<Self> {
        listener.set_nonblocking(true)?;
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new().name("demo-origin".into()).spawn(move || {
            if let Err(error) = serve(listener, publish, stopped) {
                tracing::error!(error = format!("{error:#}"), "demo origin failed");
            }
        })?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("demo origin panicked");
        }
    }
}

fn serve(listener: TcpListener, publish: SocketAddr, stopped: oneshot::Receiver<()>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(Default::default())
        .context("no runtime")?;
    runtime.block_on(async move {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let (events, unpublished) = mpsc::channel(UNPUBLISHED_EVENTS_MAX);
        let shop = Rc::new(Shop { run: now_ms(), market: RefCell::new(Market::new(now_ms())), events });
        tokio::task::spawn_local(publisher::run(publish, unpublished));
        tokio::task::spawn_local(run_market(Rc::clone(&shop)));
        tokio::select! {
            () = accept(listener, shop) => {}
            _ = stopped => {}
        }
        Ok(())
    })
}

/// What all requests share.
struct Shop {
    run: u64,
    market: RefCell<Market>,
    events: mpsc::Sender<Value>,
}

impl Shop {
    /// Hands an event to the publisher; when that is far behind, the event is left out, with a warning.
    fn publish(&self, event: Value) {
        if self.events.try_send(event).is_err() {
            tracing::warn!("demo publishes too slowly: an event is left out");
        }
    }

    fn publish_trade(&self, trade: &Trade) {
        self.publish(json!({
            "channel": orders::TRADES_CHANNEL,
            "id": format!("{}-{}", self.run, trade.id),
            "event": "trade",
            "data": orders::message("trade", trade),
        }));
    }
}

async fn run_market(shop: Rc<Shop>) {
    let mut clock = time::interval(TICK);
    clock.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
    loop {
        clock.tick().await;
        let prices = shop.market.borrow_mut().tick(now_ms());
        for mut event in prices {
            let symbol = event["event"].as_str().unwrap_or_default();
            event["id"] = format!("{}-{symbol}-{}", shop.run, event["data"]["sequence"]).into();
            shop.publish(event);
        }
        let trade = shop.market.borrow_mut().somebody_trades(now_ms());
        if let Some(trade) = trade {
            shop.publish_trade(&trade);
        }
    }
}

async fn accept(listener: tokio::net::TcpListener, shop: Rc<Shop>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let socket = match listener.accept().await {
            Ok((socket, _)) => socket,
            Err(error) => {
                tracing::warn!(%error, "demo origin accepts no connection");
                time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let shop = Rc::clone(&shop);
        tokio::task::spawn_local(async move {
            let service = service_fn(move |request| answer(Rc::clone(&shop), request));
            let connection =
                http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(socket), service);
            if let Err(error) = connection.await {
                tracing::debug!(%error, "demo origin connection ended");
            }
            drop(place);
        });
    }
}

async fn answer(shop: Rc<Shop>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path();
    Ok(match (request.method(), path) {
        (&Method::POST, "/orders") => match time::timeout(REQUEST_TIMEOUT, take_orders(&shop, request)).await {
            Ok(response) => response,
            Err(_) => plain(StatusCode::REQUEST_TIMEOUT, "the orders did not come in time\n"),
        },
        (&Method::GET | &Method::HEAD, "/market") => {
            let snapshot = shop.market.borrow().snapshot(now_ms());
            respond(StatusCode::OK, "application/json", snapshot.to_string())
        }
        (&Method::GET | &Method::HEAD, _) => match page::find(path) {
            Some(asset) => respond(StatusCode::OK, asset.media_type, asset.text),
            None => plain(StatusCode::NOT_FOUND, "no such page\n"),
        },
        _ => plain(StatusCode::METHOD_NOT_ALLOWED, "only GET, and POST to /orders\n"),
    })
}

/// One POST of a bridged WebSocket. GRIP is negotiated with OPEN and taken for granted afterwards.
async fn take_orders(shop: &Shop, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let field = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if field("content-type") != orders::MEDIA_TYPE {
        return plain(StatusCode::UNSUPPORTED_MEDIA_TYPE, "orders come as application/websocket-events\n");
    }
    let speaks_grip = field("sec-websocket-extensions").split([',', ';']).any(|word| word.trim() == "grip");
    let trader: String = field("connection-id").chars().take(8).collect();
    let Ok(body) = Limited::new(request.into_body(), ORDERS_BYTES_MAX).collect().await else {
        return plain(StatusCode::PAYLOAD_TOO_LARGE, "too many orders at once\n");
    };
    let body = body.to_bytes();
    if body.starts_with(b"OPEN") && !speaks_grip {
        return plain(StatusCode::BAD_REQUEST, "orders need Sec-WebSocket-Extensions: grip\n");
    }
    let answer = orders::answer(&body, &trader, &mut shop.market.borrow_mut(), now_ms());
    let answer = match answer {
        Ok(answer) => answer,
        Err(error) => return plain(StatusCode::BAD_REQUEST, error.to_string()),
    };
    answer.trades.iter().for_each(|trade| shop.publish_trade(trade));
    let mut response = respond(StatusCode::OK, orders::MEDIA_TYPE, answer.body);
    response.headers_mut().insert("sec-websocket-extensions", header::HeaderValue::from_static("grip"));
    response
}

fn plain(status: StatusCode, text: impl Into<Bytes>) -> Response<Full<Bytes>> {
    respond(status, "text/plain; charset=utf-8", text)
}

fn respond(status: StatusCode, media_type: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let fields = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_TYPE, media_type),
        (header::CACHE_CONTROL, "no-cache"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ] {
        fields.insert(name, header::HeaderValue::from_static(value));
    }
    response
}

fn now_ms() -> u64 {
    crate::clock::unix_ms()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead as _, BufReader, Read as _, Write as _};
    use std::net::TcpStream;

    /// A publish listener that hands over each request body; and an origin that publishes there.
    fn start() -> (SocketAddr, std::sync::mpsc::Receiver<Value>, Origin) {
        let publish = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let publish_address = publish.local_addr().expect("an address");
        let (bodies, published) = std::sync::mpsc::sync_channel(64);
        std::thread::spawn(move || {
            for socket in publish.incoming().flatten() {
                let mut socket = BufReader::new(socket);
                while let Some((_, body)) = read_message(&mut socket) {
                    let value = serde_json::from_slice(&body).expect("JSON was published");
                    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
                    if bodies.send(value).is_err() || socket.get_mut().write_all(answer.as_bytes()).is_err() {
                        return;
                    }
                }
            }
        });
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        (address, published, Origin::start(listener, publish_address).expect("an origin"))
    }

    fn read_message(socket: &mut BufReader<TcpStream>) -> Option<(String, Vec<u8>)> {
        let (mut head, mut line) = (String::new(), String::new());
        while !line.starts_with("\r\n") {
            line.clear();
            if socket.read_line(&mut line).ok()? == 0 {
                return None;
            }
            head.push_str(&line.to_lowercase());
        }
        let length = head.split("content-length: ").nth(1).and_then(|rest| rest.split("\r\n").next());
        let mut body = vec![0; length.map_or(0, |digits| digits.parse().expect("a number"))];
        socket.read_exact(&mut body).ok()?;
        Some((head, body))
    }

    fn ask(address: SocketAddr, request: &str) -> (String, String) {
        let mut socket = TcpStream::connect(address).expect("the origin listens");
        socket.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
        socket.write_all(request.as_bytes()).expect("written");
        let (head, body) = read_message(&mut BufReader::new(socket)).expect("an answer");
        (head, String::from_utf8(body).expect("text"))
    }

    fn post_orders(address: SocketAddr, fields: &str, body: &str) -> (String, String) {
        let length = body.len();
        ask(address, &format!("POST /orders HTTP/1.1\r\nHost: a\r\n{fields}Content-Length: {length}\r\n\r\n{body}"))
    }

    const EVENTS: &str = "Content-Type: application/websocket-events\r\nConnection-Id: 12345678-abcd\r\n";

    #[test]
    fn the_page_and_the_market_are_served_and_nothing_else() {
        let (address, _published, _origin) = start();
        let get = |path: &str| ask(address, &format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
        let (head, body) = get("/");
        assert!(head.starts_with("http/1.1 200") && head.contains("text/html"), "{head}");
        assert!(head.contains("content-security-policy: default-src 'self'"), "{head}");
        assert!(body.contains("<title>Trading desk"));
        assert!(get("/pushbridge.js").1.contains("export function connect"));
        assert!(get("/market").1.contains("\"symbol\":\"ACME\""));
        assert!(get("/../Cargo.toml").0.starts_with("http/1.1 404"));
        let (head, _) = ask(address, "DELETE / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert!(head.starts_with("http/1.1 405"), "{head}");
    }

    #[test]
    fn prices_are_published_as_events() {
        let (_address, published, _origin) = start();
        let batch = published.recv_timeout(Duration::from_secs(10)).expect("prices come by themselves");
        let price = batch
            .as_array()
            .expect("an array")
            .iter()
            .find(|event| event["channel"].as_str().is_some_and(|channel| channel.starts_with("prices.")))
            .expect("a price");
        let symbol = price["event"].as_str().expect("a name");
        assert_eq!(price["channel"], format!("prices.{symbol}"));
        assert!(price["id"].as_str().expect("an id").ends_with(&format!("-{symbol}-{}", price["data"]["sequence"])));
    }

    #[test]
    fn an_order_is_answered_in_the_answer_and_its_trade_published() {
        let (address, published, _origin) = start();
        let (head, body) = post_orders(address, &format!("{EVENTS}Sec-WebSocket-Extensions: grip\r\n"), "OPEN\r\n");
        assert!(head.contains("content-type: application/websocket-events"), "{head}");
        assert!(head.contains("sec-websocket-extensions: grip"), "{head}");
        assert!(body.starts_with("OPEN\r\nTEXT ") && body.contains("c:{"), "{body}");
        let order = r#"{"side":"sell","symbol":"LUMA","quantity":7}"#;
        let (_, body) = post_orders(address, EVENTS, &format!("TEXT {:x}\r\n{order}\r\n", order.len()));
        let confirmation: Value =
            serde_json::from_str(body.split_once("m:").expect("data").1.trim_end()).expect("a confirmation");
        assert_eq!(confirmation["type"], "confirmation");
        let trade = loop {
            let batch = published.recv_timeout(Duration::from_secs(10)).expect("the trade is published");
            let trades = batch.as_array().expect("an array").clone();
            if let Some(trade) = trades.into_iter().find(|event| event["data"]["id"] == confirmation["id"]) {
                break trade;
            }
        };
        assert_eq!(trade["channel"], "trades");
        assert_eq!(trade["data"]["type"], "trade");
        assert_eq!(trade["data"]["trader"], "12345678");
        assert_eq!(trade["data"]["filled_price"], confirmation["filled_price"]);
    }

    #[test]
    fn what_is_no_order_is_refused() {
        let (address, _published, _origin) = start();
        assert!(post_orders(address, "Content-Type: text/plain\r\n", "hi").0.starts_with("http/1.1 415"));
        assert!(post_orders(address, EVENTS, "OPEN\r\n").0.starts_with("http/1.1 400"));
        assert!(post_orders(address, EVENTS, "TEXT 99\r\n").0.starts_with("http/1.1 400"));
        let large = "x".repeat(ORDERS_BYTES_MAX + 1);
        assert!(post_orders(address, EVENTS, &large).0.starts_with("http/1.1 413"));
    }
}
