//! A TCP relay between an instance and its bus, which can be cut, mended, and made slow.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// How bytes travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wire {
    /// At once.
    Whole,
    /// Each piece this much later.
    Slow(Duration),
    /// Not at all, and nobody is told: as a network that drops packets.
    Silent,
    /// Connections are closed, new ones at once.
    Cut,
}

/// A running relay; its connections end with it.
pub struct Relay {
    address: SocketAddr,
    wire: Arc<watch::Sender<Wire>>,
    task: tokio::task::JoinHandle<()>,
}

impl Relay {
    /// Relays to a port of this machine.
    pub async fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let wire = Arc::new(watch::Sender::new(Wire::Whole));
        let task = tokio::spawn(accept(listener, port, Arc::clone(&wire)));
        Self { address, wire, task }
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Changes how bytes travel, on connections that are there and on those to come.
    pub fn set(&self, wire: Wire) {
        self.wire.send_replace(wire);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, port: u16, wire: Arc<watch::Sender<Wire>>) {
    // Aborted with this task.
    let mut connections = JoinSet::new();
    loop {
        let Ok((near, _)) = listener.accept().await else { continue };
        if *wire.borrow() != Wire::Cut {
            connections.spawn(relay(near, port, wire.subscribe()));
        }
    }
}

async fn relay(near: TcpStream, port: u16, wire: watch::Receiver<Wire>) {
    let Ok(far) = TcpStream::connect(("127.0.0.1", port)).await else { return };
    let (near_read, near_write) = near.into_split();
    let (far_read, far_write) = far.into_split();
    let mut cut = wire.clone();
    tokio::select! {
        () = pass(near_read, far_write, wire.clone()) => {}
        () = pass(far_read, near_write, wire) => {}
        _ = cut.wait_for(|wire| *wire == Wire::Cut) => {}
    }
}

/// Passes on what comes, in order; a slow wire takes its time for each piece, so that it is slow for all that follow.
async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut wire: watch::Receiver<Wire>) {
    let mut part = vec![0; 64 * 1024];
    while let Ok(len) = from.read(&mut part).await {
        if len == 0 || wire.wait_for(|wire| *wire != Wire::Silent).await.is_err() {
            return;
        }
        let delay = match *wire.borrow() {
            Wire::Slow(delay) => delay,
            _ => Duration::ZERO,
        };
        tokio::time::sleep(delay).await;
        if to.write_all(&part[..len]).await.is_err() {
            return;
        }
    }
}
