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

/// How many connections more than another a worker may have before it gives the next one away.
const UNEVEN_MAX: usize = 8;

/// Counts open connections, in all, by worker and by address, and the requests on them.
#[derive(Debug)]
pub struct ConnectionCount {
    open: AtomicUsize,
    by_worker: Box<[AtomicUsize]>,
    requests: AtomicUsize,
    by_ip: Mutex<HashMap<IpAddr, usize>>,
}

/// A connection's place among those of a worker; dropping it gives it back.
#[derive(Debug)]
pub struct Place {
    count: Arc<ConnectionCount>,
    worker: u16,
}

impl Place {
    /// Whose it is.
    pub fn worker(&self) -> usize {
        self.worker.into()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(of_worker) = self.count.by_worker.get(self.worker()) {
            of_worker.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// One counted connection; dropping it gives the place back.
#[derive(Debug)]
pub struct Permit {
    place: Place,
    ip: IpAddr,
}

impl ConnectionCount {
    /// No connections yet, for so many workers.
    pub fn new(workers: usize) -> Arc<Self> {
        Arc::new(Self {
            open: AtomicUsize::default(),
            by_worker: (0..workers).map(|_| AtomicUsize::default()).collect(),
            requests: AtomicUsize::default(),
            by_ip: Mutex::default(),
        })
    }

    /// A place for a connection that `worker` accepted: its own, unless another has clearly fewer.
    pub fn place(self: &Arc<Self>, worker: usize) -> Place {
        let (fewest, other) =
            (0..self.by_worker.len()).map(|other| (self.open_at(other), other)).min().unwrap_or_default();
        let uneven_max = UNEVEN_MAX.max(fewest / 16);
        self.place_at(if self.open_at(worker) > fewest + uneven_max { other } else { worker })
    }

    /// A place among the connections of a worker.
    pub fn place_at(self: &Arc<Self>, worker: usize) -> Place {
        if let Some(of_worker) = self.by_worker.get(worker) {
            of_worker.fetch_add(1, Ordering::Relaxed);
        }
        Place { count: Arc::clone(self), worker: worker as u16 }
    }

    /// How many connections a worker has.
    pub fn open_at(&self, worker: usize) -> usize {
        self.by_worker.get(worker).map_or(0, |of_worker| of_worker.load(Ordering::Relaxed))
    }

    /// Counts a connection from `ip` that has a place with a worker, if the limits allow it.
    ///
    /// # Errors
    /// Which limit is reached.
    pub fn admit(&self, place: Place, ip: IpAddr, limits: &ServerLimits) -> Result<Permit, Refused> {
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
        Ok(Permit { place, ip })
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
        let count = &self.place.count;
        count.open.fetch_sub(1, Ordering::Relaxed);
        let mut by_ip = count.by_ip.lock();
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
        let count = ConnectionCount::new(1);
        let limits = ServerLimits { connections_max: 3, connections_per_ip_max: 2, ..ServerLimits::default() };
        let (a, b) = (IpAddr::from([127, 0, 0, 1]), IpAddr::from([127, 0, 0, 2]));
        let admit = |ip| count.admit(count.place(0), ip, &limits);
        let first = admit(a).expect("free");
        let _second = admit(a).expect("free");
        assert_eq!(admit(a).err(), Some(Refused::PerIp));
        let _third = admit(b).expect("free");
        assert_eq!(admit(b).err(), Some(Refused::Connections));
        drop(first);
        assert_eq!(count.open(), 2);
        assert!(admit(a).is_ok());
    }

    #[test]
    fn what_is_accepted_goes_to_the_worker_with_the_fewest_once_it_is_uneven() {
        let count = ConnectionCount::new(3);
        // All are accepted by one worker.
        let places: Vec<_> = (0..300).map(|_| count.place(0)).collect();
        let open = [0, 1, 2].map(|worker| count.open_at(worker));
        assert_eq!(open.iter().sum::<usize>(), 300);
        assert!(open[0] <= open[1].min(open[2]) + UNEVEN_MAX + 1 && open[1].abs_diff(open[2]) <= 1, "{open:?}");
        drop(places);
        assert_eq!([0, 1, 2].map(|worker| count.open_at(worker)), [0; 3]);
        // A few stay where they came.
        let few: Vec<_> = (0..UNEVEN_MAX).map(|_| count.place(2).worker()).collect();
        assert_eq!(few, [2; UNEVEN_MAX]);
    }
}
