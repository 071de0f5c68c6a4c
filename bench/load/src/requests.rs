//! Requests on some keep-alive connections, each sent when the one before it is answered.

use crate::fan_out::pids;
use crate::histogram::Histogram;
use crate::http1::{Body, Head};
use crate::machine::{Usage, now_ns};
use crate::options::Options;
use crate::url::Url;
use crate::wire::{Scratch, Wire, tls_config};
use mio::{Events, Interest, Poll, Token};
use rustls::ClientConfig;
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// The command's options.
pub const OPTIONS: &[&str] =
    &["url", "header", "body", "repeat-body", "connections", "requests", "server-pid", "patience-s"];

struct Connection {
    wire: Wire,
    buffer: Vec<u8>,
    body: Option<(Head, Body)>,
    sent_ns: u64,
}

struct Load {
    url: Url,
    request: Vec<u8>,
    tls: Option<Arc<ClientConfig>>,
    poll: Poll,
    connections: Vec<Connection>,
    patience: Duration,
    latency: Histogram,
    statuses: BTreeMap<u16, u64>,
}

/// Runs a measurement, prints its report.
pub fn run(options: &Options) -> Result<(), String> {
    let url = Url::parse(options.needed("url")?)?;
    let lines: usize = options.number("repeat-body", 1)?;
    let requests: usize = options.number("requests", 10_000)?;
    let pids = pids(options)?;
    let mut load = Load {
        request: request(&url, options.all("header"), options.text("body"), lines),
        tls: url.is_tls.then(|| tls_config("http/1.1")),
        url,
        poll: Poll::new().map_err(|error| error.to_string())?,
        connections: Vec::new(),
        patience: Duration::from_secs_f64(options.number("patience-s", 20.0)?),
        latency: Histogram::default(),
        statuses: BTreeMap::new(),
    };
    let fresh = Usage::of(&pids);
    load.connect(options.number("connections", 50)?)?;
    load.run(requests / 10)?;
    load.latency = Histogram::default();
    load.statuses.clear();
    let me = [std::process::id() as i32];
    let (before, client_before) = (Usage::of(&pids), Usage::of(&me));
    load.run(requests)?;
    let (after, client_after) = (Usage::of(&pids), Usage::of(&me));
    let count = load.latency.count().max(1) as f64;
    let wall_us = (after.at_ns - before.at_ns) as f64 / 1e3;
    let good: u64 =
        load.statuses.iter().filter(|(status, _)| (200..300).contains(*status)).map(|(_, count)| count).sum();
    let report = json!({
        "requests": load.latency.count(), "units": load.latency.count() * lines as u64, "connections": load.connections.len(),
        "request_cpu_us": after.cpu_us_since(&before) / count, "unit_cpu_us": after.cpu_us_since(&before) / count / lines as f64,
        "requests_per_s": count / wall_us * 1e6, "units_per_s": count * lines as f64 / wall_us * 1e6,
        "latency_ms": load.latency.summary_ms(), "failed": load.latency.count() - good, "statuses": load.statuses,
        "rss_fresh_bytes": fresh.rss_bytes, "rss_bytes": after.rss_bytes,
        "server_busy": after.cpu_us_since(&before) / wall_us,
        "client_cpu_us": client_after.cpu_us_since(&client_before) / count,
        "client_busy": client_after.cpu_us_since(&client_before) / wall_us,
    });
    println!("{report}");
    Ok(())
}

fn request(url: &Url, headers: &[String], body: Option<&str>, repeat: usize) -> Vec<u8> {
    let fields: String = headers.iter().map(|line| format!("{line}\r\n")).collect();
    let Some(body) = body else {
        return format!("GET {} HTTP/1.1\r\nHost: {}\r\n{fields}\r\n", url.path, url.address).into_bytes();
    };
    let body = vec![body; repeat].join("\n");
    let length = body.len();
    format!("POST {} HTTP/1.1\r\nHost: {}\r\n{fields}Content-Length: {length}\r\n\r\n{body}", url.path, url.address)
        .into_bytes()
}

fn open(url: &Url, tls: Option<&Arc<ClientConfig>>, poll: &Poll, token: Token) -> Result<Wire, String> {
    let mut wire = Wire::connect(url, tls, None)?;
    let registered = poll.registry().register(&mut wire.socket, token, Interest::READABLE);
    registered.map_err(|error| error.to_string())?;
    Ok(wire)
}

impl Load {
    fn connect(&mut self, count: usize) -> Result<(), String> {
        for at in 0..count {
            let wire = open(&self.url, self.tls.as_ref(), &self.poll, Token(at))?;
            self.connections.push(Connection { wire, buffer: Vec::new(), body: None, sent_ns: 0 });
        }
        Ok(())
    }

    fn run(&mut self, requests: usize) -> Result<(), String> {
        let mut events = Events::with_capacity(256);
        let mut scratch = Scratch::default();
        let (mut sent, mut answered) = (0, 0);
        for connection in &mut self.connections {
            if sent < requests {
                connection.sent_ns = now_ns();
                connection.wire.send(&self.request)?;
                sent += 1;
            }
        }
        while answered < requests {
            match self.poll.poll(&mut events, Some(self.patience)) {
                Err(error) if error.kind() != std::io::ErrorKind::Interrupted => return Err(error.to_string()),
                _ => {}
            }
            if events.is_empty() {
                return Err(format!("{} of {requests} requests were never answered", requests - answered));
            }
            for event in &events {
                let connection = &mut self.connections[event.token().0];
                let Connection { wire, buffer, body, sent_ns } = connection;
                let mut finished = None;
                wire.receive(&mut scratch, &mut |bytes| {
                    let mut bytes = bytes;
                    if body.is_none() {
                        let had = buffer.len();
                        buffer.extend_from_slice(bytes);
                        let Some((head, used)) = Head::read(buffer) else { return Ok(()) };
                        bytes = &bytes[used - had..];
                        buffer.clear();
                        let framing = head.body();
                        *body = Some((head, framing));
                    }
                    if let Some((head, framing)) = body {
                        framing.feed(bytes, &mut |_| {})?;
                        if framing.is_done() {
                            finished = Some((head.status(), head.closes()));
                        }
                    }
                    Ok(())
                })?;
                if let Some((status, closes)) = finished {
                    *body = None;
                    answered += 1;
                    let now = now_ns();
                    self.latency.record(now - *sent_ns);
                    *self.statuses.entry(status).or_default() += 1;
                    if closes {
                        *wire = open(&self.url, self.tls.as_ref(), &self.poll, event.token())?;
                    }
                    if sent < requests {
                        *sent_ns = now;
                        wire.send(&self.request)?;
                        sent += 1;
                    }
                }
            }
        }
        Ok(())
    }
}
