//! `pushbridge drain`: asks a running pushbridge to drain, and shows how it goes; for preStop hooks and people.

use bytes::Bytes;
use http::header::{HOST, HeaderValue, USER_AGENT};
use http::uri::Scheme;
use http::{Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

const EXAMPLES: &str = "\
EXAMPLES:
  Before a stop, so that no client is dropped; comes back when nobody is left:
      pushbridge drain

  In a pod whose sidecar this is (the image has no shell):
      preStop: { exec: { command: [pushbridge, drain] } }

  Only begin it, or take it back while it settles:
      pushbridge drain --no-wait
      pushbridge drain --cancel

EXIT CODES:
  0 nobody is left (or it has begun, with --no-wait)    69 no admin listener at the URL
  75 the drain was taken back, or can't be";

/// How often it is asked how far it is.
const LOOK: Duration = Duration::from_millis(500);
const ANSWER_WAIT: Duration = Duration::from_secs(10);
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// sysexits.h.
const EX_UNAVAILABLE: u8 = 69;
const EX_TEMPFAIL: u8 = 75;

/// Drain a running pushbridge: send its clients elsewhere, none of them lost
///
/// New clients are served while load balancers learn of it (drain.settle), then every session ends at its own moment
/// (drain.spread). The process goes on answering plain requests; it exits at SIGTERM.
#[derive(Debug, Clone, clap::Args)]
#[command(after_long_help = EXAMPLES, after_help = "See --help for examples and exit codes.")]
pub struct DrainArgs {
    /// The admin listener
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:9901", env = "PUSHBRIDGE_ADMIN")]
    admin: String,
    /// Begin the drain, and do not wait for its end
    #[arg(long)]
    no_wait: bool,
    /// Take back a drain that still settles
    #[arg(long, conflicts_with = "no_wait")]
    cancel: bool,
}

/// Why it did not work out.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("--admin {0:?} is no URL of an admin listener; give one such as http://127.0.0.1:9901")]
    Url(String),
    #[error("no admin listener at {url}: {reason}")]
    Unreachable { url: String, reason: String },
    #[error("{0}")]
    Refused(String),
}

impl Failure {
    fn code(&self) -> ExitCode {
        match self {
            Self::Url(_) | Self::Unreachable { .. } => ExitCode::from(EX_UNAVAILABLE),
            Self::Refused(_) => ExitCode::from(EX_TEMPFAIL),
        }
    }
}

/// Asks, and waits unless told not to.
#[expect(clippy::print_stderr, reason = "the last word of a failed command")]
pub async fn run(args: DrainArgs) -> ExitCode {
    match drain(&args, &mut io::stdout().lock()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("pushbridge: {failure}");
            failure.code()
        }
    }
}

async fn drain(args: &DrainArgs, out: &mut impl Write) -> Result<(), Failure> {
    let admin = Admin::new(&args.admin)?;
    if args.cancel {
        admin.ask(Method::POST, "/drain?cancel").await?;
        say(out, "the drain is taken back");
        return Ok(());
    }
    let mut status = admin.ask(Method::POST, "/drain").await?;
    let mut said = String::new();
    loop {
        let (phase, sessions) = (status["phase"].as_str().unwrap_or_default(), &status["sessions"]);
        let line = format!("{phase}: {sessions} sessions");
        if line != said {
            say(out, &line);
            said = line;
        }
        match phase {
            "drained" => return Ok(()),
            "serving" => return Err(Failure::Refused("the drain was taken back".to_owned())),
            _ if args.no_wait => return Ok(()),
            _ => sleep(LOOK).await,
        }
        status = match admin.ask(Method::GET, "/drain").await {
            // A signal came as well, and the process has done what it was asked to.
            Err(Failure::Unreachable { .. }) => {
                say(out, "gone");
                return Ok(());
            }
            answer => answer?,
        };
    }
}

/// What can't be shown is no reason to stop.
fn say(out: &mut impl Write, line: &str) {
    let _ = writeln!(out, "{line}");
    let _ = out.flush();
}

/// An admin listener.
struct Admin {
    url: String,
    authority: http::uri::Authority,
}

impl Admin {
    fn new(url: &str) -> Result<Self, Failure> {
        let uri: Uri = url.parse().map_err(|_| Failure::Url(url.to_owned()))?;
        match uri.authority() {
            Some(authority) if uri.scheme() == Some(&Scheme::HTTP) => {
                Ok(Self { url: url.to_owned(), authority: authority.clone() })
            }
            _ => Err(Failure::Url(url.to_owned())),
        }
    }

    /// One request on a connection of its own (HTTP/1.1, cleartext); the answer's JSON.
    async fn ask(&self, method: Method, path: &str) -> Result<Value, Failure> {
        let unreachable = |reason: String| Failure::Unreachable { url: self.url.clone(), reason };
        match timeout(ANSWER_WAIT, self.exchange(method, path)).await {
            Err(_) => Err(unreachable("no answer came in time".to_owned())),
            Ok(Err(error)) => Err(unreachable(error.to_string())),
            Ok(Ok((status, answer))) if status.is_success() => Ok(answer),
            Ok(Ok((status, answer))) => {
                let detail = answer["detail"].as_str().map_or_else(|| format!("answered {status}"), str::to_owned);
                Err(Failure::Refused(detail))
            }
        }
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
    ) -> Result<(StatusCode, Value), Box<dyn std::error::Error + Send + Sync>> {
        let host = self.authority.host().trim_start_matches('[').trim_end_matches(']');
        let tcp = TcpStream::connect((host, self.authority.port_u16().unwrap_or(80))).await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(tcp)).await?;
        let mut request = Request::new(Full::new(Bytes::new()));
        *request.method_mut() = method;
        *request.uri_mut() = path.parse()?;
        let fields = request.headers_mut();
        fields.insert(HOST, HeaderValue::from_str(self.authority.as_str())?);
        fields.insert(USER_AGENT, HeaderValue::from_static(concat!("pushbridge/", env!("CARGO_PKG_VERSION"))));
        let exchange = async {
            let (head, body) = sender.send_request(request).await?.into_parts();
            let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await?.to_bytes();
            Ok((head.status, serde_json::from_slice(&body).unwrap_or_default()))
        };
        tokio::pin!(connection);
        tokio::select! {
            answer = exchange => answer,
            ended = &mut connection => {
                ended?;
                Err("the connection ended before the answer".into())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_admin_url_is_plain_http() {
        assert!(Admin::new("http://127.0.0.1:9901").is_ok());
        assert!(Admin::new("http://[::1]:9901").is_ok());
        for url in ["https://127.0.0.1", "127.0.0.1:9901", "nonsense", ""] {
            let failure = Admin::new(url).err().expect("a failure");
            assert!(failure.to_string().contains("http://127.0.0.1:9901"), "{failure}");
        }
    }
}
