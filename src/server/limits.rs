//! Bounds on what clients may use, shared by all workers.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// The checked `limits` section, as far as connections go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerLimits {
    /// Open connections of all public listeners together.
    pub connections_max: usize,
    /// Open connections of one client address.
    pub connections_per_ip_max: usize,
    /// Concurrent streams of one HTTP/2 connection.
    pub streams_per_connection_max: u32,
    /// From the accept, or from the first byte of a later request, to a whole request head.
    pub request_header_timeout: Duration,
    /// How long a connection is kept that has nothing to do.
    pub idle_timeout: Duration,
    /// The size of a request head.
    pub request_header_bytes_max: usize,
    /// From the accept to the end of the TLS handshake.
    pub tls_handshake_timeout: Duration,
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self {
            connections_max: 100_000,
            connections_per_ip_max: 1000,
            streams_per_connection_max: 1000,
            request_header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
            request_header_bytes_max: 32 * 1024,
            tls_handshake_timeout: Duration::from_secs(10),
        }
    }
}

/// Whether clients are asked to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Leave {
    /// Connections stay.
    Stay,
    /// Connections end after an answer: `Connection: close` (RFC 9112 §9.6), GOAWAY (RFC 9113 §6.8). What they carry
    /// is finished.
    AfterAnswer,
    /// Idle connections end, too.
    Now,
}

/// Why a connection gets no permit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// `connections_max` is reached.
    Connections,
    /// `connections_per_ip_max` is reached.
    PerIp,
}

/// Counts open connections, in all and by address, and the requests on them.
#[derive(Debug, Default)]
pub struct ConnectionCount {
    open: AtomicUsize,
    requests: AtomicUsize,
    by_ip: Mutex<HashMap<IpAddr, usize>>,
}

/// One counted connection; dropping it gives the place back.
#[derive(Debug)]
pub struct Permit {
    count: Arc<ConnectionCount>,
    ip: IpAddr,
}

impl ConnectionCount {
    /// Counts a connection from `ip`, if the limits allow it.
    ///
    /// # Errors
    /// Which limit is reached.
    pub fn admit(self: &Arc<Self>, ip: IpAddr, limits: &ServerLimits) -> Result<Permit, Refused> {
        // One client is one client, whether it came over [::] or 0.0.0.0.
        let ip = ip.to_canonical();
        if self.open.fetch_add(1, Ordering::Relaxed) >= limits.connections_max {
            self.open.fetch_sub(1, Ordering::Relaxed);
            return Err(Refused::Connections);
        }
        let mut by_ip = self.by_ip.lock();
        let of_ip = by_ip.entry(ip).or_insert(0);
        if *of_ip >= limits.connections_per_ip_max {
            drop(by_ip);
            self.open.fetch_sub(1, Ordering::Relaxed);
            return Err(Refused::PerIp);
        }
        *of_ip += 1;
        Ok(Permit { count: Arc::clone(self), ip })
    }

    /// Counts a request as under way until the guard is dropped.
    pub fn begin(self: &Arc<Self>) -> InFlight {
        self.requests.fetch_add(1, Ordering::Relaxed);
        InFlight(Arc::clone(self))
    }

    /// How many requests are under way; held responses and WebSockets are none any more.
    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }

    /// How many are open.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }
}

/// A request under way.
#[derive(Debug)]
pub struct InFlight(Arc<ConnectionCount>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.requests.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.count.open.fetch_sub(1, Ordering::Relaxed);
        let mut by_ip = self.count.by_ip.lock();
        if let Some(of_ip) = by_ip.get_mut(&self.ip) {
            *of_ip -= 1;
            if *of_ip == 0 {
                by_ip.remove(&self.ip);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_hold_and_places_come_back() {
        let count = Arc::new(ConnectionCount::default());
        let limits = ServerLimits { connections_max: 3, connections_per_ip_max: 2, ..ServerLimits::default() };
        let (a, b) = (IpAddr::from([127, 0, 0, 1]), IpAddr::from([127, 0, 0, 2]));
        let first = count.admit(a, &limits).expect("free");
        let _second = count.admit(a, &limits).expect("free");
        assert_eq!(count.admit(a, &limits).err(), Some(Refused::PerIp));
        let _third = count.admit(b, &limits).expect("free");
        assert_eq!(count.admit(b, &limits).err(), Some(Refused::Connections));
        drop(first);
        assert_eq!(count.open(), 2);
        assert!(count.admit(a, &limits).is_ok());
    }
}
