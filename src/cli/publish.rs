//! `pushbridge publish`: events from arguments or standard input to a publish listener.

mod exchange;
#[cfg(test)]
mod tests;

use crate::proto::json::{Json, push_string};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use exchange::{Answer, Target};
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use tokio::io::{AsyncRead, AsyncReadExt};

/// The most bytes that are read from standard input for one event; the listener takes less by default.
const INPUT_BYTES_MAX: u64 = 64 * 1024 * 1024;

const EXAMPLES: &str = "\
EXAMPLES:
  A text on the channel `news`; sessions on it get it at once:
      pushbridge publish news 'hello'

  JSON, with an event name (SSE's `event:`) and an id, so that a repeat changes nothing:
      pushbridge publish prices.ACME '{\"bid\": 1.02}' --json --event price --id 2026-01-31/7

  From a file or another program:
      pushbridge publish images --binary < chart.png
      date | pushbridge publish clock

  Many events as they happen, one JSON event a line, answered line by line:
      tail -f events.ndjson | pushbridge publish --ndjson

  Only if nobody else has published since (use the position that a publish printed):
      pushbridge publish board 'your move' --if-match mbq3k2x1-42

  To a listener that asks for a token:
      pushbridge publish news hello --url http://10.0.0.7:5561 --token-file secrets/publish-token

OUTPUT:
  One line for each message: channel, position, and how many sessions of that instance are on the channel, or
  `duplicate`. With --ndjson the listener's JSON answers, one for each line.

EXIT CODES:
  0 published    1 --if-match failed    65 the listener refused the data    66 a file can't be read
  69 no listener at the URL    75 try again later    77 the token is missing or wrong";

/// Publish events to a running pushbridge.
///
/// Sends one event to the publish listener and prints where it stands in its channel. The data is the second
/// argument or, without it (or with `-`), all of standard input without its last line feed.
#[derive(Debug, Clone, clap::Args)]
#[command(after_long_help = EXAMPLES, after_help = "See --help for examples and exit codes.")]
pub struct PublishArgs {
    /// The channel to publish on, such as `prices.ACME`.
    #[arg(required_unless_present = "ndjson")]
    channel: Option<String>,
    /// The data; `-` or nothing reads standard input.
    data: Option<String>,
    /// The event's name; SSE clients get it as `event:`.
    #[arg(long, value_name = "NAME", conflicts_with = "ndjson")]
    event: Option<String>,
    /// The event's id; a second publish of it within the idempotency window changes nothing.
    #[arg(long, conflicts_with = "ndjson")]
    id: Option<String>,
    /// The data is JSON, not text.
    #[arg(long, conflicts_with = "ndjson")]
    json: bool,
    /// The data is bytes from standard input.
    #[arg(long, conflicts_with_all = ["ndjson", "json", "data"])]
    binary: bool,
    /// Standard input has one JSON event a line, each with its own channel.
    #[arg(long, conflicts_with = "channel")]
    ndjson: bool,
    /// Publish only if the channel's newest message stands at this position (`0`: if it has none).
    #[arg(long, value_name = "POSITION", conflicts_with = "ndjson")]
    if_match: Option<String>,
    /// The publish listener.
    #[arg(long, default_value = "http://127.0.0.1:5561", env = "PUSHBRIDGE_PUBLISH_URL")]
    url: String,
    /// A file with the listener's bearer token; else the environment's PUSHBRIDGE_PUBLISH_TOKEN.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// The token itself: by the environment only, since arguments show in process lists.
    #[arg(hide = true, long, env = "PUSHBRIDGE_PUBLISH_TOKEN", hide_env_values = true)]
    token: Option<String>,
}

/// Why nothing, or not all, was published.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// Something in the arguments or the input.
    #[error("{0}")]
    Data(String),
    /// A file or standard input.
    #[error("{name}: {error}")]
    Input {
        /// Which.
        name: String,
        /// Why.
        error: io::Error,
    },
    /// No answer.
    #[error("{url}: {reason}; is pushbridge running, and is this its publish listener?")]
    Unreachable {
        /// Where.
        url: String,
        /// Why.
        reason: String,
    },
    /// An answer that refuses.
    #[error("{status}: {detail}")]
    Refused {
        /// The status.
        status: http::StatusCode,
        /// What the answer says.
        detail: String,
    },
    /// Lines of a stream.
    #[error("lines that were not published: {0}")]
    Lines(u64),
    /// Standard output.
    #[error("standard output: {0}")]
    Output(#[from] io::Error),
}

impl Failure {
    /// The exit code, after BSD's sysexits where it has one.
    fn code(&self) -> u8 {
        match self {
            Failure::Data(_) | Failure::Lines(_) => 65,
            Failure::Input { .. } => 66,
            Failure::Unreachable { .. } => 69,
            Failure::Refused { status, .. } => match status.as_u16() {
                412 => 1,
                401 | 403 => 77,
                408 | 429 | 500.. => 75,
                _ => 65,
            },
            Failure::Output(_) => 74,
        }
    }
}

/// Runs the command on the process's standard streams.
pub async fn run(args: PublishArgs) -> ExitCode {
    match publish(&args, tokio::io::stdin(), &mut io::stdout()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // Nobody is left to tell if standard error is closed.
            let _ = writeln!(io::stderr(), "pushbridge publish: {failure}");
            ExitCode::from(failure.code())
        }
    }
}

async fn publish(
    args: &PublishArgs,
    input: impl AsyncRead + Send + Unpin + 'static,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let target = Target::new(&args.url, token(args)?, args.if_match.as_deref())?;
    if args.ndjson {
        let mut failed = 0;
        target.stream(input, |line| print_line(line, out, &mut failed)).await?;
        return if failed == 0 { Ok(()) } else { Err(Failure::Lines(failed)) };
    }
    let reads = matches!(args.data.as_deref(), None | Some("-"));
    if reads && io::stdin().is_terminal() {
        // Without a word, the command would seem to hang.
        let _ = writeln!(io::stderr(), "pushbridge publish: type the data, then Ctrl-D on a line of its own");
    }
    let body = event(args, input).await?;
    print_answer(&target.post(body).await?, out)
}

fn token(args: &PublishArgs) -> Result<Option<String>, Failure> {
    let Some(path) = &args.token_file else { return Ok(args.token.clone()) };
    let text = std::fs::read_to_string(path);
    let text = text.map_err(|error| Failure::Input { name: path.display().to_string(), error })?;
    Ok(Some(text.trim().to_owned()))
}

/// The event's JSON.
async fn event(args: &PublishArgs, input: impl AsyncRead + Unpin) -> Result<String, Failure> {
    let mut body = "{\"channel\":".to_owned();
    push_string(&mut body, args.channel.as_deref().unwrap_or(""));
    for (name, value) in [("id", &args.id), ("event", &args.event)] {
        if let Some(value) = value {
            body.push_str(",\"");
            body.push_str(name);
            body.push_str("\":");
            push_string(&mut body, value);
        }
    }
    match args.data.as_deref() {
        None if args.binary => {
            body.push_str(",\"data_base64\":\"");
            STANDARD.encode_string(read(input).await?, &mut body);
            body.push('"');
        }
        None | Some("-") => {
            let text = String::from_utf8(read(input).await?);
            let text = text.map_err(|_| Failure::Data("standard input is no UTF-8 text; use --binary".into()))?;
            let text = text.strip_suffix('\n').unwrap_or(&text);
            push_data(&mut body, text.strip_suffix('\r').unwrap_or(text), args)?;
        }
        Some(data) => push_data(&mut body, data, args)?,
    }
    body.push('}');
    Ok(body)
}

fn push_data(body: &mut String, text: &str, args: &PublishArgs) -> Result<(), Failure> {
    body.push_str(",\"data\":");
    if args.json {
        let json = Json::parse(text.as_bytes());
        let json = json.map_err(|error| Failure::Data(format!("the data: {error}; for text leave out --json")))?;
        json.compact_into(body);
    } else {
        push_string(body, text);
    }
    Ok(())
}

async fn read(input: impl AsyncRead + Unpin) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let read = input.take(INPUT_BYTES_MAX + 1).read_to_end(&mut bytes).await;
    read.map_err(|error| Failure::Input { name: "standard input".into(), error })?;
    if bytes.len() as u64 > INPUT_BYTES_MAX {
        return Err(Failure::Data(format!("standard input has more than {INPUT_BYTES_MAX} bytes")));
    }
    Ok(bytes)
}

fn print_answer(answer: &Answer, out: &mut impl Write) -> Result<(), Failure> {
    let results = answer.body["results"].as_array().map(Vec::as_slice).unwrap_or_default();
    for result in results {
        let text = |name: &str| result[name].as_str().unwrap_or("?");
        write!(out, "{} {}", text("channel"), text("position"))?;
        match (result["duplicate"].as_bool(), result["local_sessions"].as_u64()) {
            (Some(true), _) => writeln!(out, " duplicate")?,
            (_, Some(1)) => writeln!(out, " 1 session")?,
            (_, sessions) => writeln!(out, " {} sessions", sessions.unwrap_or_default())?,
        }
    }
    if answer.status.is_success() {
        return Ok(());
    }
    let mut detail = answer.body["detail"].as_str().unwrap_or("no problem document came with it").to_owned();
    if let Some(position) = answer.body["position"].as_str() {
        detail.push_str(&format!(" (position {position})"));
    }
    Err(Failure::Refused { status: answer.status, detail })
}

fn print_line(line: &Bytes, out: &mut impl Write, failed: &mut u64) -> Result<(), Failure> {
    let is_error = Json::parse(line).is_ok_and(|json| json.members().any(|(name, _)| name == "error"));
    *failed += u64::from(is_error);
    out.write_all(line)?;
    out.write_all(b"\n")?;
    out.flush()?;
    Ok(())
}
