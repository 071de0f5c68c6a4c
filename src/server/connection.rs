//! One accepted connection: its permit, its TLS handshake, and which HTTP it speaks.

use crate::server::io::Io;
use crate::server::limits::{ConnectionCount, Leave, Permit, Refused, ServerLimits};
use crate::server::listener::{ListenerSettings, Protocol};
use crate::server::{Handler, Peer, TlsPeer, Trust, h1, h2};
use crate::telemetry::metrics::{ConnectionGuard, Refusal, WorkerMetrics};
use arc_swap::ArcSwap;
use bytes::{Bytes, BytesMut};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

/// The first bytes of an HTTP/2 connection with prior knowledge (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What every connection of a worker shares.
pub struct Server {
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

/// What the connections of one listener share.
pub(in crate::server) struct Endpoint {
    pub(in crate::server) settings: ListenerSettings,
    pub(in crate::server) tls: Option<TlsAcceptor>,
}

/// Serves one accepted connection to its end.
pub(in crate::server) async fn serve(server: Rc<Server>, endpoint: Rc<Endpoint>, mut tcp: TcpStream, from: SocketAddr) {
    let Some(permit) = admit(&server, &endpoint, &mut tcp, from).await else { return };
    let limits = server.limits.load_full();
    let mut peer = Peer {
        address: from,
        local: tcp.local_addr().unwrap_or(endpoint.settings.address),
        listener: Arc::clone(&endpoint.settings.name),
        tls: None,
        trusted: trust(&endpoint.settings, from),
    };
    let (io, unread, protocol) = match &endpoint.tls {
        Some(acceptor) => {
            let handshake = tokio::time::timeout(limits.tls_handshake_timeout, acceptor.accept(tcp)).await;
            let Ok(Ok(tls)) = handshake else { return server.metrics.refused(Refusal::TlsHandshake) };
            let (_, session) = tls.get_ref();
            peer.tls = Some(TlsPeer { server_name: session.server_name().map(str::to_owned) });
            let protocol = match session.alpn_protocol() {
                Some(b"h2") => Protocol::H2,
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
    match protocol {
        Protocol::H2 => Box::pin(h2::serve(server, Rewound { io, unread }, peer)).await,
        Protocol::Http1 => return Box::pin(h1::serve(server, io, unread, peer, open)).await,
    }
    drop(open);
}

/// What an open connection holds until it has ended.
pub(in crate::server) struct Open {
    _permit: Permit,
    _counted: ConnectionGuard,
}

/// A place among the open connections, or the refusal told to the client. On TLS the connection is only closed: a
/// handshake would cost what the limit is there to save.
async fn admit(server: &Server, endpoint: &Endpoint, tcp: &mut TcpStream, from: SocketAddr) -> Option<Permit> {
    let refused = match server.count.admit(from.ip(), &server.limits.load()) {
        Ok(permit) => return Some(permit),
        Err(refused) => refused,
    };
    let (reason, status, detail) = match refused {
        Refused::Connections => {
            (Refusal::Connections, "503 Service Unavailable", "too many connections (limits.connections); try later")
        }
        Refused::PerIp => (
            Refusal::ConnectionsPerIp,
            "429 Too Many Requests",
            "too many connections from this address (limits.connections_per_ip)",
        ),
    };
    server.metrics.refused(reason);
    if endpoint.tls.is_none() {
        let _ = tokio::time::timeout(std::time::Duration::from_secs(1), async {
            // Reading the request first keeps the close from discarding the answer.
            let _ = tcp.read(&mut [0; 1024]).await;
            let _ = tcp.write_all(refusal(status, detail).as_bytes()).await;
            let _ = tcp.shutdown().await;
        })
        .await;
    }
    None
}

/// The whole answer to a connection that gets no place.
fn refusal(status: &str, detail: &str) -> String {
    let (code, title) = status.split_once(' ').unwrap_or((status, ""));
    let body = format!("{{\"title\":\"{title}\",\"status\":{code},\"detail\":\"{detail}\"}}\n");
    format!(
        "HTTP/1.1 {status}\r\nretry-after: 5\r\nconnection: close\r\ncontent-type: {}\r\ncontent-length: {}\r\n\r\n{body}",
        crate::proto::problem::MEDIA_TYPE,
        body.len()
    )
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
    let mut read = BytesMut::with_capacity(PREFACE.len());
    loop {
        let mut part = [0; PREFACE.len()];
        let len = tcp.read(&mut part[..PREFACE.len() - read.len()]).await?;
        read.extend_from_slice(&part[..len]);
        if !PREFACE.starts_with(&read) {
            return Ok((Protocol::Http1, read.freeze()));
        }
        if read.len() == PREFACE.len() {
            return Ok((Protocol::H2, read.freeze()));
        }
        if len == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// A connection whose first bytes were read already.
#[derive(Debug)]
struct Rewound {
    io: Io,
    unread: Bytes,
}

impl AsyncRead for Rewound {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.unread.is_empty() {
            return Pin::new(&mut this.io).poll_read(cx, buf);
        }
        let part = this.unread.split_to(this.unread.len().min(buf.remaining()));
        buf.put_slice(&part);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Rewound {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_a_whole_answer() {
        assert_eq!(
            refusal("503 Service Unavailable", "try later"),
            "HTTP/1.1 503 Service Unavailable\r\nretry-after: 5\r\nconnection: close\r\n\
             content-type: application/problem+json\r\ncontent-length: 66\r\n\r\n\
             {\"title\":\"Service Unavailable\",\"status\":503,\"detail\":\"try later\"}\n"
        );
    }
}
