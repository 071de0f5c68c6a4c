//! `pushbridge subscribe`: a client that prints events as they come, over any of the three transports.
//!
//! ```text
//!   dial (TCP, TLS) ─▶ sse | websocket | long_poll ─▶ Reader: cursor, count, print
//!        ▲                                               │ lost
//!        └────────── backoff, cursor given back ◀────────┘
//! ```

mod dial;
mod long_poll;
mod print;
mod request;
mod sse;
mod websocket;
mod wire;

use crate::cli::subscribe::dial::Dialer;
use crate::cli::subscribe::print::{Format, Reader};
use anyhow::Context as _;
use std::convert::Infallible;
use std::hash::{BuildHasher as _, Hasher as _};
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

const EXAMPLES: &str = "\
Examples:
  pushbridge subscribe https://shop.example/prices/ACME
  pushbridge subscribe --insecure --json https://localhost:8443/prices
  pushbridge subscribe --transport long-poll --count 1 http://localhost:8080/events/news";

/// Prints the events of a push route as they come
///
/// Connects to URL, prints each event's data, and reconnects when the connection is lost: with backoff, and from the
/// last cursor, so that nothing is missed. What can't be replayed is announced on the error output as a gap.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct SubscribeArgs {
    /// The route, http:// or https:// (over TLS, HTTP/2 is used where the server has it)
    #[arg(value_name = "URL", value_parser = parse_url)]
    pub url: http::Uri,
    /// How events come: the same URL serves all three
    #[arg(long, value_enum, default_value_t = Transport::Sse)]
    pub transport: Transport,
    /// Where to go on from: an id, `next` or ETag that a client got before, on any transport
    #[arg(long, value_name = "CURSOR")]
    pub last_event_id: Option<String>,
    /// Prints each event as a line of JSON: {"id", "event", "data"}; data that is a JSON object or array is put in as
    /// such, all other data as a string
    #[arg(long)]
    pub json: bool,
    /// Accepts any certificate; for tests with self-signed ones only
    #[arg(long, conflicts_with = "ca_file")]
    pub insecure: bool,
    /// Trusts these certificates (PEM) instead of the system's
    #[arg(long, value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
    /// Ends after so many events
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
    /// Sends this field too, such as 'Authorization: Bearer abc'; can be given again
    #[arg(long = "header", value_name = "FIELD", value_parser = parse_field)]
    pub headers: Vec<(http::HeaderName, http::HeaderValue)>,
}

/// How events come to the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Transport {
    /// Server-sent events (EventSource in browsers)
    Sse,
    /// A WebSocket with the subprotocol pushbridge.v1.json
    Websocket,
    /// One request after the other, each held until something is there
    LongPoll,
}

/// Why one connection ended.
#[derive(Debug)]
enum Ended {
    /// All wanted events are printed, or nobody reads them any more.
    Done,
    /// The connection is gone; the next may go on from the cursor, after a time if the server named one.
    Lost { reason: String, after: Option<Duration> },
    /// Trying again would bring the same answer.
    ForGood(anyhow::Error),
}

impl Ended {
    fn lost(reason: impl std::fmt::Display) -> Self {
        Ended::Lost { reason: reason.to_string(), after: None }
    }
}

const BACKOFF_MAX: Duration = Duration::from_secs(30);

/// Subscribes and prints until the wanted count is reached, or for ever.
///
/// # Errors
/// When the URL is unusable, the first connection fails, or the server refuses for good.
pub fn run(args: SubscribeArgs) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default())?;
    runtime.block_on(subscribe(&args, &mut std::io::stdout(), &mut std::io::stderr()))
}

async fn subscribe(args: &SubscribeArgs, out: &mut dyn Write, notes: &mut dyn Write) -> anyhow::Result<()> {
    let dialer = Dialer::new(args)?;
    let format = if args.json { Format::Json } else { Format::Data };
    let mut reader = Reader::new(args.last_event_id.clone().unwrap_or_default(), format, args.count, out, notes);
    let mut failures = 0;
    loop {
        let connected_before = reader.connections();
        let ended = match args.transport {
            Transport::Sse => sse::attempt(&dialer, &mut reader).await,
            Transport::Websocket => websocket::attempt(&dialer, &mut reader).await,
            Transport::LongPoll => long_poll::attempt(&dialer, &mut reader).await,
        };
        let (reason, after) = match ended {
            Err(Ended::Done) => return Ok(()),
            Err(Ended::ForGood(error)) => return Err(error).with_context(|| args.url.to_string()),
            Err(Ended::Lost { reason, after }) => (reason, after),
            Ok(never) => match never {},
        };
        if reader.connections() == 0 {
            return Err(anyhow::anyhow!(reason)).with_context(|| args.url.to_string());
        }
        failures = if reader.connections() > connected_before { 0 } else { failures + 1 };
        let pause = after.unwrap_or_else(|| backoff(reader.retry(), failures, random()));
        reader.note(format_args!("lost: {reason}; trying again in {:.1} s", pause.as_secs_f32()));
        tokio::time::sleep(pause).await;
    }
}

/// The pause doubles with each failure in a row; a random part of it spreads many clients that lost their server at
/// the same moment.
fn backoff(retry: Duration, failures: u32, random: u64) -> Duration {
    let longest = retry.saturating_mul(1 << failures.min(10)).min(BACKOFF_MAX.max(retry));
    let part = (random % 1000) as f64 / 1000.0;
    longest.mul_f64(0.5 + part / 2.0)
}

fn random() -> u64 {
    std::hash::RandomState::new().build_hasher().finish()
}

fn parse_url(text: &str) -> Result<http::Uri, String> {
    match text.parse::<http::Uri>() {
        Ok(url) if url.scheme().is_some() => Ok(url),
        _ if text.contains("://") => Err("a URL is such as http://localhost:8080/events/news".to_owned()),
        _ => Err(format!("a URL starts with http:// or https://, such as http://{}", text.trim_start_matches('/'))),
    }
}

fn parse_field(text: &str) -> Result<(http::HeaderName, http::HeaderValue), String> {
    let (name, value) = text.split_once(':').ok_or("a field is 'Name: value'")?;
    let name = name.trim().parse().map_err(|_| format!("{:?} is no field name", name.trim()))?;
    let value = value.trim().parse().map_err(|_| "the value has characters that a field can't hold".to_owned())?;
    Ok((name, value))
}

/// What an attempt gives: it goes on until it [`Ended`].
type Attempt = Result<Infallible, Ended>;

#[cfg(test)]
mod tests;
