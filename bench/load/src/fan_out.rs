//! One measurement of deliveries: start the shards, connect, publish, look at the server, report.

use crate::account::Order;
use crate::histogram::Histogram;
use crate::machine::{Usage, now_ns};
use crate::options::Options;
use crate::publisher::{Batch, Item, Publisher};
use crate::shard::{self, Mode, Spec};
use crate::url::Url;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

/// Files a shard may have, with some to spare under the usual limit of 20,000.
const CONNECTIONS_A_SHARD: usize = 19_900;

/// The command's options.
pub const OPTIONS: &[&str] = &[
    "mode",
    "url",
    "accept",
    "subscribers",
    "bystanders",
    "stalled",
    "per-connection",
    "connect-rate",
    "channels",
    "shards",
    "publish-url",
    "publish-header",
    "publish-body",
    "payload",
    "messages",
    "warm-up",
    "burst",
    "batch",
    "rate",
    "gap-ms",
    "settle-s",
    "patience-s",
    "server-pid",
    "shard",
];

enum Told {
    Ready,
    Failed,
    Done(u32, u32),
    Report(Value),
    Ended,
}

struct Run<'o> {
    options: &'o Options,
    spec: Spec,
    publisher: Publisher,
    told: Receiver<Told>,
    /// For each message under way, when it was sent and how many shards have not told that it is done.
    under_way: HashMap<Item, (u64, u32)>,
    shards_of: Vec<u32>,
    sent: Vec<u32>,
    fan_out: Histogram,
    calls: Histogram,
    patience: Duration,
    reports: Vec<Value>,
}

/// Runs a measurement, prints its report.
pub fn run(options: &Options) -> Result<(), String> {
    let spec = spec(options)?;
    if let Some(number) = options.text("shard") {
        return shard::run(spec, number.parse().map_err(|_| "--shard: not a number")?);
    }
    let pids = pids(options)?;
    let settle = Duration::from_secs_f64(options.number("settle-s", 3.0)?);
    let batch = match options.text("batch") {
        None | Some("pipelined") => Batch::Pipelined,
        Some("lines") => Batch::Lines,
        Some(other) => return Err(format!("--batch {other}: neither pipelined nor lines")),
    };
    let patience = Duration::from_secs_f64(options.number("patience-s", 20.0)?);
    let publisher = Publisher::new(
        Url::parse(options.needed("publish-url")?)?,
        options.all("publish-header"),
        options.text("publish-body").unwrap_or("{payload}"),
        &spec.channel_prefix,
        options.number("payload", 100)?,
        batch,
        patience,
    );
    let fresh = Usage::of(&pids);
    let (sender, told) = channel();
    let mut children = Vec::new();
    for number in 0..spec.shards {
        children.push(start(number, &spec.channel_prefix, sender.clone())?);
    }
    drop(sender);
    let mut run = Run {
        options,
        publisher,
        told,
        under_way: HashMap::new(),
        shards_of: spec.shards_of(),
        sent: vec![0; spec.channels_all()],
        fan_out: Histogram::default(),
        calls: Histogram::default(),
        patience,
        reports: Vec::new(),
        spec,
    };
    let begun = now_ns();
    let (ready, failed) = run.connect();
    let connect_s = (now_ns() - begun) as f64 / 1e9;
    let connected = Usage::of(&pids);
    std::thread::sleep(settle);
    let idle = Usage::of(&pids);
    let warm_up = run.spec.order.warm_up;
    let mut errors: Vec<String> = run.publish(0..warm_up).err().into_iter().collect();
    run.fan_out = Histogram::default();
    run.calls = Histogram::default();
    let me = [std::process::id() as i32];
    let (before, client_before) = (Usage::of(&pids), Usage::of(&me));
    let messages: usize = options.number("messages", 100)?;
    errors.extend(run.publish(warm_up..warm_up + messages).err());
    std::thread::sleep(Duration::from_millis(200));
    let (after, client_after) = (Usage::of(&pids), Usage::of(&me));
    run.end(children)?;

    let sum = |name: &str| run.reports.iter().filter_map(|report| report[name].as_u64()).sum::<u64>();
    let (mut latency, mut connect) = (Histogram::default(), Histogram::default());
    for report in &run.reports {
        latency.add_json(&report["latency"]);
        connect.add_json(&report["connect"]);
    }
    let last_ns = run.reports.iter().filter_map(|report| report["last_ns"].as_u64()).max().unwrap_or(0);
    let seconds = last_ns.saturating_sub(before.at_ns).max(1) as f64 / 1e9;
    let (deliveries, subscribers) = (latency.count().max(1) as f64, f64::from(ready.max(1)));
    let causes: Vec<_> = run.reports.iter().map(|report| report["errors"].clone()).collect();
    let report = json!({
        "subscribers": ready, "failed": failed, "connections": (ready as usize).div_ceil(run.spec.per_connection),
        "connect_s": connect_s, "connect_ms": connect.summary_ms(),
        "connect_cpu_us": connected.cpu_us_since(&fresh) / subscribers,
        "idle_cpu_percent": idle.cpu_us_since(&connected) / 1e4 / settle.as_secs_f64().max(0.001),
        "rss_bytes": after.rss_bytes,
        "idle_bytes": idle.grown_bytes(&fresh) / subscribers, "after_bytes": after.grown_bytes(&fresh) / subscribers,
        "rss_fresh_bytes": fresh.rss_bytes,
        "deliveries": latency.count(), "delivery_cpu_us": after.cpu_us_since(&before) / deliveries,
        // With one runtime a core, what the busiest of them spent bounds the rate.
        "busiest_cpu_us": after.busiest_us_since(&before) / deliveries,
        "server_busy": after.cpu_us_since(&before) / ((after.at_ns - before.at_ns) as f64 / 1e3),
        "deliveries_per_s": deliveries / seconds, "latency_ms": latency.summary_ms(), "fan_out_ms": run.fan_out.summary_ms(),
        "publish_ms": run.calls.summary_ms(), "publishes": run.calls.count(),
        "publish_cpu_us": after.cpu_us_since(&before) / run.calls.count().max(1) as f64,
        "expected": sum("received") + sum("lost"), "lost": sum("lost"), "clients_with_loss": sum("clients_with_loss"),
        "duplicates": sum("duplicates"), "reordered": sum("reordered"), "stale": sum("stale"),
        "polls": sum("polls"), "polls_refused": sum("polls_refused"), "incomplete": run.under_way.len(),
        "client_cpu_us": client_after.cpu_us_since(&client_before) / deliveries,
        "client_busy": client_after.cpu_us_since(&client_before) / ((client_after.at_ns - client_before.at_ns) as f64 / 1e3),
        "errors": errors, "causes": causes,
    });
    println!("{report}");
    Ok(())
}

/// The processes to look at.
pub fn pids(options: &Options) -> Result<Vec<i32>, String> {
    let parse = |text: &String| text.parse().map_err(|_| format!("--server-pid {text}: not a number"));
    options.all("server-pid").iter().map(parse).collect()
}

fn spec(options: &Options) -> Result<Spec, String> {
    let mut spec = Spec {
        mode: Mode::parse(options.needed("mode")?)?,
        urls: options.all("url").iter().map(|url| Url::parse(url)).collect::<Result<_, _>>()?,
        accept: options.text("accept").map(str::to_owned),
        // Channels of their own for each run; shards are told.
        channel_prefix: std::env::var("LOAD_PREFIX").unwrap_or_else(|_| format!("r{:x}-", now_ns() / 1_000_000)),
        order: Order { channels: options.number("channels", 1)?, warm_up: options.number("warm-up", 3)? },
        subscribers: options.number("subscribers", 1)?,
        bystanders: options.number("bystanders", 0)?,
        stalled: options.number("stalled", 0)?,
        per_connection: options.number("per-connection", 1)?,
        connect_per_s: options.number("connect-rate", 5000.0)?,
        shards: options.number("shards", 1)?,
    };
    if spec.urls.is_empty() {
        return Err("--url is needed".into());
    }
    if spec.order.channels == 0 || spec.subscribers < spec.order.channels || spec.per_connection == 0 {
        return Err("needs a channel, a subscriber on each, and one on each connection".into());
    }
    if spec.mode != Mode::SseH2 && spec.per_connection != 1 {
        return Err("--per-connection is for sse-h2".into());
    }
    let connections = (spec.subscribers + spec.bystanders).div_ceil(spec.per_connection);
    spec.shards = spec.shards.max(connections.div_ceil(CONNECTIONS_A_SHARD));
    Ok(spec)
}

/// Starts this program again with the same arguments, as a shard.
fn start(number: usize, prefix: &str, sender: Sender<Told>) -> Result<(Child, ChildStdin), String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut command = Command::new(program);
    command.args(std::env::args().skip(1)).args(["--shard", &number.to_string()]).env("LOAD_PREFIX", prefix);
    let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let mut child = child.map_err(|error| format!("a shard can't be started: {error}"))?;
    let (input, output) = (child.stdin.take(), child.stdout.take());
    let (Some(input), Some(output)) = (input, output) else { return Err("a shard has no pipes".into()) };
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            let mut words = line.split(' ');
            let number = |words: &mut std::str::Split<'_, char>| words.next().and_then(|text| text.parse().ok());
            let told = match words.next() {
                Some("r") => Told::Ready,
                Some("f") => Told::Failed,
                Some("d") => match (number(&mut words), number(&mut words)) {
                    (Some(channel), Some(seq)) => Told::Done(channel, seq),
                    _ => continue,
                },
                Some("=") => Told::Report(serde_json::from_str(&line[2..]).unwrap_or(Value::Null)),
                _ => continue,
            };
            if sender.send(told).is_err() {
                return;
            }
        }
        let _ = sender.send(Told::Ended);
    });
    Ok((child, input))
}

impl Run<'_> {
    /// Waits for all subscribers; how many are ready, how many failed.
    fn connect(&mut self) -> (u32, u32) {
        let wanted = (self.spec.subscribers + self.spec.bystanders) as u32;
        let (mut ready, mut failed) = (0, 0);
        while ready + failed < wanted {
            match self.told.recv_timeout(self.patience) {
                Ok(Told::Ready) => ready += 1,
                Ok(Told::Failed) => failed += 1,
                Ok(_) => {}
                Err(_) => break,
            }
        }
        (ready, failed)
    }

    fn publish(&mut self, messages: std::ops::Range<usize>) -> Result<(), String> {
        let burst: usize = self.options.number("burst", 1)?;
        let rate: f64 = self.options.number("rate", 0.0)?;
        let gap = Duration::from_millis(self.options.number("gap-ms", 0)?);
        let channels = self.spec.order.channels;
        let (begun, from) = (now_ns(), messages.start);
        let mut refused = Ok(());
        for start in messages.clone().step_by(burst.max(1)) {
            if rate > 0.0 {
                let due = begun + ((start - from) as f64 / rate * 1e9) as u64;
                std::thread::sleep(Duration::from_nanos(due.saturating_sub(now_ns())));
            }
            let group = start..messages.end.min(start + burst.max(1));
            let items: Vec<Item> =
                group.map(|message| ((message % channels) as u32, (message / channels) as u32)).collect();
            match self.publisher.publish(&items) {
                Ok(sent_ns) => {
                    self.calls.record(now_ns() - sent_ns);
                    for item in items {
                        self.sent[item.0 as usize] += 1;
                        self.under_way.entry(item).or_insert((sent_ns, 0)).1 += self.shards_of[item.0 as usize];
                    }
                }
                Err(why) => {
                    refused = Err(why);
                    break;
                }
            }
            if rate > 0.0 {
                while let Ok(told) = self.told.try_recv() {
                    self.note(told);
                }
            } else {
                self.wait();
            }
            std::thread::sleep(gap);
        }
        self.wait();
        refused
    }

    /// Waits until what is under way is done, or nothing has moved for long.
    fn wait(&mut self) {
        while !self.under_way.is_empty() {
            match self.told.recv_timeout(self.patience) {
                Ok(told) => self.note(told),
                Err(_) => {
                    // Those that never complete cost the whole patience once.
                    self.patience = self.patience.min(Duration::from_secs(1));
                    return;
                }
            }
        }
    }

    fn note(&mut self, told: Told) {
        match told {
            Told::Done(channel, seq) => {
                // Word may come before the publish call's answer has been noted, which cannot be here: both are of one
                // thread. It may come for a message given up.
                let Some((sent_ns, left)) = self.under_way.get_mut(&(channel, seq)) else { return };
                *left = left.saturating_sub(1);
                if *left == 0 {
                    self.fan_out.record(now_ns().saturating_sub(*sent_ns));
                    self.under_way.remove(&(channel, seq));
                }
            }
            Told::Report(report) => self.reports.push(report),
            _ => {}
        }
    }

    fn end(&mut self, children: Vec<(Child, ChildStdin)>) -> Result<(), String> {
        let count = children.len();
        let sent: Vec<_> = self.sent.iter().map(u32::to_string).collect();
        let line = sent.join(" ") + "\n";
        for (mut child, mut input) in children {
            input.write_all(line.as_bytes()).map_err(|error| format!("a shard died: {error}"))?;
            drop(input);
            while let Ok(told) = self.told.recv_timeout(Duration::from_secs(30)) {
                if matches!(told, Told::Ended) {
                    break;
                }
                self.note(told);
            }
            let _ = child.wait();
        }
        if self.reports.len() < count { Err("a shard died before its report".into()) } else { Ok(()) }
    }
}
