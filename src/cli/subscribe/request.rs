//! One GET at a time over HTTP/1.1 or HTTP/2, on a connection that is kept for the next.

use crate::cli::subscribe::Ended;
use crate::cli::subscribe::dial::{Dialer, Socket, Version};
use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::time::Duration;
use tokio::time;

const PROBLEM_BYTES_MAX: usize = 64 * 1024;
const PROBLEM_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection on which GETs are sent.
pub enum Connection {
    /// HTTP/1.1.
    Http1(http1::SendRequest<Empty<Bytes>>),
    /// HTTP/2.
    H2(http2::SendRequest<Empty<Bytes>>),
}

impl Connection {
    /// Connects, with HTTP/2 where the server has it.
    pub async fn open(dialer: &Dialer) -> Result<Self, Ended> {
        let dialled = dialer.connect(&[Version::H2, Version::Http1]).await;
        let (socket, version) = dialled.map_err(|error| Ended::lost(format_args!("{error:#}")))?;
        let socket: TokioIo<Socket> = TokioIo::new(socket);
        match version {
            Version::Http1 => {
                let (sender, driver) = http1::handshake(socket).await.map_err(Ended::lost)?;
                // What goes wrong on the connection is also said by the request.
                tokio::task::spawn_local(async move { drop(driver.await) });
                Ok(Connection::Http1(sender))
            }
            Version::H2 => {
                let mut builder = http2::Builder::new(LocalExecutor);
                builder.timer(TokioTimer::new()).keep_alive_interval(Duration::from_secs(30));
                let (sender, driver) = builder.handshake(socket).await.map_err(Ended::lost)?;
                tokio::task::spawn_local(async move { drop(driver.await) });
                Ok(Connection::H2(sender))
            }
        }
    }

    /// Whether no further request can be sent.
    pub fn is_closed(&self) -> bool {
        match self {
            Connection::Http1(sender) => sender.is_closed(),
            Connection::H2(sender) => sender.is_closed(),
        }
    }

    /// Sends a GET that accepts `media_type` and gives back `cursor`; waits `timeout` for the response's head.
    pub async fn get(
        &mut self,
        dialer: &Dialer,
        media_type: &'static str,
        cursor: &str,
        extra: &[(header::HeaderName, &'static str)],
        timeout: Duration,
    ) -> Result<Response<Incoming>, Ended> {
        let request = self.request(dialer, media_type, cursor, extra).map_err(Ended::ForGood)?;
        let sending = async {
            match self {
                Connection::Http1(sender) => {
                    sender.ready().await?;
                    sender.send_request(request).await
                }
                Connection::H2(sender) => {
                    sender.ready().await?;
                    sender.send_request(request).await
                }
            }
        };
        let in_time = time::timeout(timeout, sending).await;
        in_time.map_err(|_| Ended::lost(format_args!("no answer within {} s", timeout.as_secs())))?.map_err(Ended::lost)
    }

    fn request(
        &self,
        dialer: &Dialer,
        media_type: &'static str,
        cursor: &str,
        extra: &[(header::HeaderName, &'static str)],
    ) -> anyhow::Result<Request<Empty<Bytes>>> {
        let mut request = Request::new(Empty::new());
        match self {
            Connection::Http1(_) => {
                *request.uri_mut() = dialer.path.clone().into();
                request.headers_mut().insert(header::HOST, dialer.authority.as_str().parse()?);
            }
            Connection::H2(_) => {
                *request.uri_mut() = http::Uri::builder()
                    .scheme(dialer.scheme.clone())
                    .authority(dialer.authority.clone())
                    .path_and_query(dialer.path.clone())
                    .build()?;
            }
        }
        let fields = request.headers_mut();
        fields.insert(header::ACCEPT, media_type.parse()?);
        for (name, value) in extra {
            fields.insert(name, value.parse()?);
        }
        add_fields(fields, dialer, cursor)?;
        Ok(request)
    }
}

/// Adds the cursor and the user's own fields.
///
/// # Errors
/// When the cursor can't stand in a field.
pub fn add_fields(fields: &mut HeaderMap, dialer: &Dialer, cursor: &str) -> anyhow::Result<()> {
    if !cursor.is_empty() {
        let value = header::HeaderValue::from_bytes(cursor.as_bytes());
        let value =
            value.map_err(|_| anyhow::anyhow!("{cursor:?} can be no cursor; give back an id just as it came"))?;
        fields.insert("last-event-id", value);
    }
    for (name, value) in &dialer.headers {
        fields.append(name, value.clone());
    }
    Ok(())
}

/// What an answer that is not the wanted one means: a try later, or the end.
pub async fn refused(response: Response<Incoming>) -> Ended {
    let (status, fields) = (response.status(), response.headers().clone());
    let body = Limited::new(response.into_body(), PROBLEM_BYTES_MAX).collect();
    let body = match time::timeout(PROBLEM_TIMEOUT, body).await {
        Ok(Ok(body)) => body.to_bytes(),
        _ => Bytes::new(),
    };
    judge(status, &fields, &body)
}

/// The judgement of [`refused`], from the parts of the answer.
pub fn judge(status: StatusCode, fields: &HeaderMap, body: &[u8]) -> Ended {
    let reason = match problem(body) {
        Some(detail) => format!("the server answered {status}: {detail}"),
        None => format!("the server answered {status}"),
    };
    if status.is_redirection()
        && let Some(place) = fields.get(header::LOCATION).and_then(|value| value.to_str().ok())
    {
        return Ended::ForGood(anyhow::anyhow!("{reason}; subscribe to {place} instead"));
    }
    match status {
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS => {}
        _ if status.is_server_error() => {}
        _ => return Ended::ForGood(anyhow::anyhow!(reason)),
    }
    let seconds =
        fields.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()).and_then(|text| text.parse().ok());
    Ended::Lost { reason, after: seconds.map(Duration::from_secs) }
}

/// The `detail` (or the `title`) of a problem (RFC 9457).
fn problem(body: &[u8]) -> Option<String> {
    let problem: serde_json::Value = serde_json::from_slice(body).ok()?;
    let text = problem.get("detail").or_else(|| problem.get("title"))?.as_str()?;
    Some(text.chars().filter(|c| !c.is_control()).take(500).collect())
}

/// Runs hyper's tasks on this thread's runtime.
#[derive(Debug, Clone, Copy)]
struct LocalExecutor;

impl<F: Future<Output: 'static> + 'static> hyper::rt::Executor<F> for LocalExecutor {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}
