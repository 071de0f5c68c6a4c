//! One accepted connection: its permit, its TLS handshake, and which HTTP it speaks.

use crate::proto::http2::PREFACE;
use crate::proto::problem::{MEDIA_TYPE, Problem};
use crate::server::io::Io;
use crate::server::limits::{ConnectionCount, Leave, Permit, Place, Refused, ServerLimits};
use crate::server::listener::{Endpoint, ListenerSettings, Protocol};
use crate::server::request_id::RequestId;
use crate::server::tls::stream::TlsStream;
use crate::server::{Handler, Peer, Trust, h1, h2};
use crate::telemetry::metrics::{ConnectionGuard, Refusal, WorkerMetrics};
use arc_swap::ArcSwap;
use bytes::{Bytes, BytesMut};
use http::StatusCode;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;

/// What the first look at a cleartext connection takes at most.
const FIRST_READ_BYTES: usize = 1024;

/// How long a connection that gets no place may take to hear so.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(1);

/// What every connection of a worker shares.
pub struct Server {
    /// The worker's number.
    pub worker: usize,
    /// Answers the requests.
    pub handler: Rc<dyn Handler>,
    /// The bounds in force.
    pub limits: Arc<ArcSwap<ServerLimits>>,
    /// The connections of all workers.
    pub count: Arc<ConnectionCount>,
    /// Whether clients are asked to go.
    pub leave: watch::Receiver<Leave>,
    /// The worker's metrics.
    pub metrics: Rc<WorkerMetrics>,
}

impl Server {
    /// Whether clients are asked to go, now.
    pub(in crate::server) fn leave(&self) -> Leave {
        *self.leave.borrow()
    }
}

/// Serves one accepted connection to its end.
pub(in crate::server) async fn serve(
    server: Rc<Server>,
    endpoint: Arc<Endpoint>,
    mut tcp: TcpStream,
    from: SocketAddr,
    place: Place,
) {
    let Some(permit) = admit(&server, &endpoint, &mut tcp, from, place).await else { return };
    let limits = server.limits.load_full();
    let peer = Peer {
        address: from,
        local: local(&tcp, endpoint.settings.address),
        listener: Arc::clone(&endpoint.settings.name),
        is_tls: endpoint.tls.is_some(),
        trusted: trust(&endpoint.settings, from),
    };
    let (io, unread, protocol) = match &endpoint.tls {
        Some(config) => {
            let accepting = Box::pin(TlsStream::accept(Arc::clone(config), tcp));
            let handshake = tokio::time::timeout(limits.tls_handshake_timeout, accepting).await;
            let Ok(Ok(tls)) = handshake else { return server.metrics.refused(Refusal::TlsHandshake) };
            let protocol = match (tls.alpn_protocol(), &*endpoint.settings.protocols.0) {
                // A client that names no protocol speaks the only one that there is (prior knowledge).
                (Some(b"h2"), _) | (None, [Protocol::H2]) => Protocol::H2,
                _ => Protocol::Http1,
            };
            (Io::Tls(Box::new(tls)), Bytes::new(), protocol)
        }
        None => {
            let offered = &endpoint.settings.protocols.0;
            let detected = tokio::time::timeout(limits.request_header_timeout, detect(&mut tcp, offered)).await;
            match detected {
                Ok(Ok((protocol, unread))) => (Io::Tcp(tcp), unread, protocol),
                Ok(Err(_)) => return,
                Err(_) => return server.metrics.refused(Refusal::HeaderTimeout),
            }
        }
    };
    let peer = Rc::new(peer);
    let version = match protocol {
        Protocol::H2 => "h2",
        Protocol::Http1 => "http/1.1",
    };
    let open = Open { _permit: permit, _counted: server.metrics.connection_opened(&endpoint.settings.name, version) };
    // A connection may live for days; what it began with may not.
    drop((endpoint, limits));
    match protocol {
        // A task of its own: what accepting a connection takes is not kept for as long as it is open.
        Protocol::H2 => {
            tokio::task::spawn_local(h2::serve(server, io, unread, peer, open));
        }
        Protocol::Http1 => Box::pin(h1::serve(server, io, unread, peer, open)).await,
    }
}

/// What an open connection holds until it has ended.
pub(in crate::server) struct Open {
    _permit: Permit,
    _counted: ConnectionGuard,
}

/// A place among the open connections, or the refusal told to the client. On TLS the connection is only closed: a
/// handshake would cost what the limit is there to save.
async fn admit(
    server: &Server,
    endpoint: &Endpoint,
    tcp: &mut TcpStream,
    from: SocketAddr,
    place: Place,
) -> Option<Permit> {
    let refused = match server.count.admit(place, from.ip(), &server.limits.load()) {
        Ok(permit) => return Some(permit),
        Err(refused) => refused,
    };
    let (reason, status, detail) = match refused {
        Refused::Connections => (
            Refusal::Connections,
            StatusCode::SERVICE_UNAVAILABLE,
            "too many connections (limits.connections); try later",
        ),
        Refused::PerIp => (
            Refusal::ConnectionsPerIp,
            StatusCode::TOO_MANY_REQUESTS,
            "too many connections from this address (limits.connections_per_ip)",
        ),
    };
    server.metrics.refused(reason);
    if endpoint.tls.is_none() {
        // Boxed: a connection that gets a place is not to have room for the refusal.
        let refusing = Box::pin(async {
            let _ = tcp.read(&mut [0; 1024]).await?;
            tcp.write_all(refusal(status, detail, RequestId::next()).as_bytes()).await?;
            tcp.shutdown().await?;
            // Reading all of the request keeps the close from discarding the answer.
            while tcp.read(&mut [0; 1024]).await? > 0 {}
            io::Result::Ok(())
        });
        let _ = tokio::time::timeout(REFUSAL_TIMEOUT, refusing).await;
    }
    None
}

/// The whole answer to a connection that gets no place.
fn refusal(status: StatusCode, detail: &str, request_id: RequestId) -> String {
    let body = Problem::new(status, detail).to_json(&request_id.to_string());
    format!(
        "HTTP/1.1 {} {}\r\nretry-after: 5\r\nconnection: close\r\ncontent-type: {MEDIA_TYPE}\r\ncontent-length: {}\r\n\r\n{body}",
        status.as_u16(),
        status.canonical_reason().unwrap_or_default(),
        body.len()
    )
}

/// Where a connection arrived; the system is asked only if the listener's address does not say it.
fn local(tcp: &TcpStream, listener: SocketAddr) -> SocketAddr {
    match listener.ip().is_unspecified() || listener.port() == 0 {
        true => tcp.local_addr().unwrap_or(listener),
        false => listener,
    }
}

fn trust(settings: &ListenerSettings, from: SocketAddr) -> Trust {
    let ip = from.ip().to_canonical();
    if settings.trusted_proxies.iter().any(|net| net.contains(&ip)) { Trust::Proxy } else { Trust::Client }
}

/// Which HTTP a cleartext connection speaks, and what was read to find out.
async fn detect(tcp: &mut TcpStream, offered: &[Protocol]) -> io::Result<(Protocol, Bytes)> {
    match offered {
        [only] => return Ok((*only, Bytes::new())),
        _ if !offered.contains(&Protocol::H2) => return Ok((Protocol::Http1, Bytes::new())),
        _ => {}
    }
    // Most heads come whole with the first read: the HTTP machine then needs none of its own.
    let mut read = BytesMut::with_capacity(FIRST_READ_BYTES);
    loop {
        let len = tcp.read_buf(&mut read).await?;
        if read.starts_with(PREFACE) {
            return Ok((Protocol::H2, read.freeze()));
        }
        if !PREFACE.starts_with(&read) {
            return Ok((Protocol::Http1, read.freeze()));
        }
        if len == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_a_whole_answer() {
        let text = refusal(StatusCode::SERVICE_UNAVAILABLE, "try later", RequestId::next());
        let (head, body) = text.split_once("\r\n\r\n").expect("a head");
        assert_eq!(
            head,
            format!(
                "HTTP/1.1 503 Service Unavailable\r\nretry-after: 5\r\nconnection: close\r\n\
                 content-type: application/problem+json\r\ncontent-length: {}",
                body.len()
            )
        );
        let json: serde_json::Value = serde_json::from_str(body).expect("JSON");
        assert_eq!((&json["status"], &json["detail"]), (&503.into(), &"try later".into()));
        assert!(json["request_id"].is_string(), "{json}");
    }
}
