//! Where clients connect: the checked listener and its accept loop.

use crate::server::connection::{self, Server};
use crate::server::lanes::{Handed, Lanes};
use crate::server::limits::Place;
use crate::server::tls::TlsSettings;
use arc_swap::ArcSwap;
use socket2::{Domain, SockRef, Socket, Type};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

/// A checked listener.
#[derive(Debug, Clone)]
pub struct ListenerSettings {
    /// Its name in logs and metrics.
    pub name: Arc<str>,
    /// Where it listens; port 0 takes a free one.
    pub address: SocketAddr,
    /// What it speaks.
    pub protocols: Protocols,
    /// Whose forwarding fields are believed.
    pub trusted_proxies: Vec<ipnet::IpNet>,
    /// TLS, or cleartext.
    pub tls: Option<Arc<TlsSettings>>,
}

/// The HTTP versions of a listener, in the order they are offered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Protocols(pub Vec<Protocol>);

/// An HTTP version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/2 (RFC 9113), ALPN `h2`.
    H2,
    /// HTTP/1.1 (RFC 9112), ALPN `http/1.1`.
    Http1,
}

/// A listener that can't accept says so once in this time.
const TELL_AGAIN_AFTER: Duration = Duration::from_secs(5);
/// How many connections the kernel keeps that are not accepted yet.
const BACKLOG: i32 = 4096;

/// A listening socket for each worker, all on one address (SO_REUSEPORT): the kernel spreads connections over them, and [`Lanes`]
/// even out what it does.
///
/// TCP_NODELAY and TCP_USER_TIMEOUT are set here and inherited by what is accepted: a dead client is noticed a minute
/// after it stopped acknowledging, without a timer of ours.
///
/// # Errors
/// When the address can't be bound, or another process listens on it.
pub fn bind(address: SocketAddr, workers: usize) -> io::Result<Vec<std::net::TcpListener>> {
    // Without SO_REUSEPORT first: otherwise another instance's listener would share its port with us unnoticed.
    let probe = socket(address, Share::Alone)?;
    let address = probe.local_addr()?.as_socket().unwrap_or(address);
    drop(probe);
    (0..workers).map(|_| socket(address, Share::AmongWorkers).map(Into::into)).collect()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Share {
    Alone,
    AmongWorkers,
}

fn socket(address: SocketAddr, share: Share) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(socket2::Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if share == Share::AmongWorkers {
        socket.set_reuse_port(true)?;
    }
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(Duration::from_secs(60)))?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

/// What a listener does with the next connection; swapped whole by a reload. Connections that stand keep theirs.
#[derive(Clone)]
pub struct Endpoint {
    /// What the configuration says.
    pub settings: ListenerSettings,
    /// Ends TLS, with the certificates of the configuration.
    pub tls: Option<Arc<rustls::ServerConfig>>,
}

/// Accepts connections until dropped; each is served in a task of its own, as the endpoint is at that moment, by this worker or by one
/// that has clearly fewer.
pub async fn accept(
    server: Rc<Server>,
    endpoint: Arc<ArcSwap<Endpoint>>,
    listener: Rc<TcpListener>,
    lanes: Arc<Lanes>,
) {
    let mut told_at: Option<Instant> = None;
    loop {
        match listener.accept().await {
            Ok((tcp, from)) => {
                let place = server.count.place(server.worker);
                if place.worker() == server.worker {
                    begin(&server, &endpoint, tcp, from, place);
                } else if let Some(Handed { tcp, from, place }) = give(&lanes, tcp, from, place) {
                    drop(place);
                    begin_handed(&server, &endpoint, tcp, from, server.count.place_at(server.worker));
                }
            }
            Err(error) => {
                // What is open goes on, and new clients wait in the kernel.
                if told_at.is_none_or(|at| at.elapsed() > TELL_AGAIN_AFTER) {
                    told_at = Some(Instant::now());
                    tell_of_failed_accept(&endpoint.load().settings.name, &error);
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Gives a connection to another worker; it comes back if that one does not take it. What breaks on the way is gone.
fn give(lanes: &Lanes, tcp: TcpStream, from: SocketAddr, place: Place) -> Option<Handed> {
    let tcp = tcp.into_std().ok()?;
    lanes.give(Handed { tcp, from, place }).err()
}

/// Serves what other workers accepted and gave to this one, until dropped.
pub async fn take(server: Rc<Server>, endpoint: Arc<ArcSwap<Endpoint>>, lanes: Arc<Lanes>) {
    lanes.open(server.worker);
    loop {
        let Handed { tcp, from, place } = lanes.next(server.worker).await;
        begin_handed(&server, &endpoint, tcp, from, place);
    }
}

/// Serves what was given to this worker before it stopped to take more.
pub fn take_waiting(server: &Rc<Server>, endpoint: &ArcSwap<Endpoint>, lanes: &Lanes) {
    for Handed { tcp, from, place } in lanes.close(server.worker) {
        begin_handed(server, endpoint, tcp, from, place);
    }
}

fn begin_handed(
    server: &Rc<Server>,
    endpoint: &ArcSwap<Endpoint>,
    tcp: std::net::TcpStream,
    from: SocketAddr,
    place: Place,
) {
    match TcpStream::from_std(tcp) {
        Ok(tcp) => begin(server, endpoint, tcp, from, place),
        Err(error) => tracing::debug!(%error, "connection failed"),
    }
}

/// Accepts what the kernel has already taken for a listener that is about to close: these clients came in time.
pub fn accept_waiting(server: &Rc<Server>, endpoint: &ArcSwap<Endpoint>, listener: &TcpListener) {
    // Past the reactor, which may not have heard of the last ones yet.
    let socket = SockRef::from(listener);
    for _ in 0..BACKLOG {
        let Ok((tcp, from)) = socket.accept() else { return };
        let Some(from) = from.as_socket() else { continue };
        let tcp = tcp.set_nonblocking(true).and_then(|()| TcpStream::from_std(tcp.into()));
        let Ok(tcp) = tcp else { continue };
        begin(server, endpoint, tcp, from, server.count.place_at(server.worker));
    }
}

/// `EMFILE` and `ENFILE` (errno(3)) mean the same on all systems that this runs on.
fn tell_of_failed_accept(listener: &str, error: &io::Error) {
    if matches!(error.raw_os_error(), Some(23 | 24)) {
        tracing::error!(
            listener,
            %error,
            "out of file descriptors, new clients have to wait: raise `ulimit -n`, or lower limits.connections"
        );
    } else {
        tracing::error!(listener, %error, "accept failed");
    }
}

fn begin(server: &Rc<Server>, endpoint: &ArcSwap<Endpoint>, tcp: TcpStream, from: SocketAddr, place: Place) {
    tokio::task::spawn_local(connection::serve(Rc::clone(server), endpoint.load_full(), tcp, from, place));
}
