//! From a server's address to a connection; one of HTTP/2 is driven in the background.

use crate::proto::http1::HEAD_BYTES_MAX;
use crate::upstream::pool::IdleClock;
use crate::upstream::settings::ServerAddress;
use crate::upstream::upload::Upload;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, timeout_at};

/// Addresses of one name that are tried.
const ADDRESSES_MAX: usize = 8;
/// What one HTTP/2 response may have on the way to a client that does not read.
const STREAM_WINDOW_BYTES: u32 = 64 * 1024;
/// Streams on one HTTP/2 connection; RFC 9113 §6.5.2 asks peers to allow no fewer than 100.
pub(super) const STREAMS_MAX: usize = 100;
/// Room for every stream's window, so that no client that does not read can stop the others.
const CONNECTION_WINDOW_BYTES: u32 = STREAM_WINDOW_BYTES * STREAMS_MAX as u32;
/// What waits to be sent on one HTTP/2 stream.
const SEND_BYTES_MAX: usize = 64 * 1024;
/// A silent HTTP/2 connection with open streams is asked whether it lives.
const PING_INTERVAL: Duration = Duration::from_secs(30);
/// And has this long to answer.
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// TCP asks a silent peer from then on, so that a server that vanished ends a stream within a minute and a half.
const TCP_KEEP_ALIVE_AFTER: Duration = Duration::from_secs(60);
const TCP_KEEP_ALIVE_EVERY: Duration = Duration::from_secs(10);
const TCP_KEEP_ALIVE_TRIES: u32 = 3;

/// Why there is no connection.
#[derive(Debug)]
pub(super) enum ConnectError {
    /// No address.
    Dns(io::Error),
    /// No address took the connection.
    Refused(io::Error),
    /// Not in time.
    Timeout,
}

/// A background task that ends with this value.
pub(super) struct Driver(tokio::task::AbortHandle);

impl Driver {
    pub(super) fn spawn(task: impl Future<Output = ()> + 'static) -> Self {
        Self(tokio::task::spawn_local(task).abort_handle())
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Opens an HTTP/2 connection with prior knowledge by `deadline` (RFC 9113 §3.3).
///
/// `streams_max` follows what the server allows.
pub(super) async fn h2(
    address: &ServerAddress,
    resolved: &[SocketAddr],
    deadline: Instant,
    idle: Rc<IdleClock>,
    streams_max: Rc<Cell<usize>>,
) -> Result<(http2::SendRequest<Upload>, Driver), ConnectError> {
    let stream = dial(address, resolved, deadline).await?;
    let mut builder = http2::Builder::new(LocalExecutor);
    builder
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_send_buf_size(SEND_BYTES_MAX)
        .max_header_list_size(HEAD_BYTES_MAX as u32)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT);
    let handshake = timeout_at(deadline, builder.handshake(TokioIo::new(stream)));
    let (sender, connection) = handshake
        .await
        .map_err(|_| ConnectError::Timeout)?
        .map_err(|error| ConnectError::Refused(io::Error::other(error)))?;
    let driver = Driver::spawn(async move {
        let mut connection = connection;
        let watched = poll_fn(move |cx| {
            let done = std::pin::Pin::new(&mut connection).poll(cx);
            streams_max.set(connection.current_max_send_streams().min(STREAMS_MAX));
            done
        });
        drive(watched, idle).await;
    });
    Ok((sender, driver))
}

/// Runs a connection until it ends, or was idle for too long.
async fn drive(connection: impl Future<Output = hyper::Result<()>>, idle: Rc<IdleClock>) {
    let mut connection = pin!(connection);
    let mut timer = pin!(tokio::time::sleep_until(idle.next_look()));
    poll_fn(|cx| {
        if connection.as_mut().poll(cx).is_ready() {
            return std::task::Poll::Ready(());
        }
        while timer.as_mut().poll(cx).is_ready() {
            if idle.is_over() {
                return std::task::Poll::Ready(());
            }
            timer.as_mut().reset(idle.next_look());
        }
        std::task::Poll::Pending
    })
    .await;
}

/// Opens a connection by `deadline`; `resolved` are the addresses, if the name was looked up already.
///
/// The addresses of a server are tried one after the other; each gets its share of the time that is left.
pub(super) async fn dial(
    address: &ServerAddress,
    resolved: &[SocketAddr],
    deadline: Instant,
) -> Result<TcpStream, ConnectError> {
    let addresses = match resolved {
        [] => resolve(address, deadline).await?,
        _ => resolved.iter().take(ADDRESSES_MAX).copied().collect(),
    };
    let mut failed = ConnectError::Dns(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
    for (at, socket) in addresses.iter().enumerate() {
        let now = Instant::now();
        let share = deadline.saturating_duration_since(now) / (addresses.len() - at) as u32;
        match timeout_at(now + share, TcpStream::connect(socket)).await {
            Ok(Ok(stream)) => {
                prepare(&stream);
                return Ok(stream);
            }
            Ok(Err(error)) => failed = ConnectError::Refused(error),
            Err(_) => failed = ConnectError::Timeout,
        }
    }
    Err(failed)
}

async fn resolve(address: &ServerAddress, deadline: Instant) -> Result<Vec<SocketAddr>, ConnectError> {
    if address.is_service() {
        // Only a look at its records or endpoints tells ports, and none has found any yet.
        return Err(ConnectError::Dns(io::Error::new(io::ErrorKind::NotFound, "no SRV record is known")));
    }
    let host = address.host.trim_start_matches('[').trim_end_matches(']');
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(ip, address.port)]);
    }
    let found = timeout_at(deadline, lookup_host((host, address.port))).await;
    Ok(found.map_err(|_| ConnectError::Timeout)?.map_err(ConnectError::Dns)?.take(ADDRESSES_MAX).collect())
}

/// Neither option is needed for correctness, so a system that refuses one is no reason to refuse the request.
fn prepare(stream: &TcpStream) {
    let _ = stream.set_nodelay(true);
    let keep_alive = socket2::TcpKeepalive::new()
        .with_time(TCP_KEEP_ALIVE_AFTER)
        .with_interval(TCP_KEEP_ALIVE_EVERY)
        .with_retries(TCP_KEEP_ALIVE_TRIES);
    let _ = socket2::SockRef::from(stream).set_tcp_keepalive(&keep_alive);
}

/// Spawns on the worker's own thread.
#[derive(Debug, Clone, Copy)]
struct LocalExecutor;

impl<F> hyper::rt::Executor<F> for LocalExecutor
where
    F: Future + 'static,
    F::Output: 'static,
{
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}
