//! Which servers an upstream has now: names become addresses, again and again.
//!
//! A name with several addresses (a headless Service, a round-robin record) is a server for each, so that the balance sees
//! them all. Who asks waits for the first look only; later ones run beside the requests. A look that fails changes
//! nothing. The system's resolver tells no TTL, so [`LOOK_AGAIN_AFTER`] stands for it.
//!
//! ```text
//! shop:3000 ── not looked up yet: one server, which resolves as it connects
//!     └─ looked up ─▶ 10.0.0.7:3000, 10.0.0.8:3000: each a server; its own address is tried first, then the others
//! ```

use crate::upstream::pool::Server;
use crate::upstream::settings::ServerAddress;
use std::cell::{Cell, RefCell};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;
use tokio::net::lookup_host;
use tokio::time::{Instant, timeout_at};

/// Names are looked up again after this long, if there are requests: the TTL that Kubernetes gives its Services.
const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(5);
/// A look takes no longer than this once there is something to go on with.
const LOOK_TIMEOUT: Duration = Duration::from_secs(5);
/// Addresses of one name that are servers.
const ADDRESSES_MAX: usize = 256;

/// The servers of one upstream, as of the last look.
pub(super) struct Roster {
    addresses: Vec<ServerAddress>,
    servers: RefCell<Rc<[Rc<Server>]>>,
    next_look: Cell<Option<Instant>>,
}

impl Roster {
    /// Begins with the servers of `before` for addresses that stay.
    pub(super) fn new(addresses: &[ServerAddress], before: Option<&Self>) -> Rc<Self> {
        let before = before.map(Self::servers);
        let before = before.as_deref().unwrap_or_default();
        let servers = addresses.iter().flat_map(|address| {
            let kept: Vec<_> = before.iter().filter(|server| server.address == *address).map(Rc::clone).collect();
            if kept.is_empty() { vec![Server::new(address.clone())] } else { kept }
        });
        let servers = RefCell::new(servers.collect());
        Rc::new(Self { addresses: addresses.to_vec(), servers, next_look: Cell::new(None) })
    }

    /// The servers now.
    pub(super) fn servers(&self) -> Rc<[Rc<Server>]> {
        Rc::clone(&self.servers.borrow())
    }

    /// The servers for a request; the first one waits, `patience` at most, until the names are looked up.
    pub(super) async fn current(self: &Rc<Self>, patience: Duration) -> Rc<[Rc<Server>]> {
        if !self.addresses.iter().any(is_name) {
            return self.servers();
        }
        let now = Instant::now();
        match self.next_look.get() {
            Some(next) if now < next => {}
            // Those that come while the first one waits go on at once; their servers resolve as they connect.
            None => {
                self.next_look.set(Some(now + LOOK_AGAIN_AFTER));
                self.look(now + patience.min(LOOK_TIMEOUT)).await;
            }
            Some(_) => {
                self.next_look.set(Some(now + LOOK_AGAIN_AFTER));
                let roster = Rc::clone(self);
                tokio::task::spawn_local(async move { roster.look(now + LOOK_TIMEOUT).await });
            }
        }
        self.servers()
    }

    async fn look(&self, deadline: Instant) {
        for address in self.addresses.iter().filter(|address| is_name(address)) {
            match timeout_at(deadline, lookup_host((&*address.host, address.port))).await {
                Ok(Ok(found)) => self.apply(address, &found.take(ADDRESSES_MAX).collect::<Vec<_>>()),
                Ok(Err(error)) => tracing::debug!(server = %address, %error, "a name can't be resolved"),
                Err(_) => tracing::debug!(server = %address, "a name was not resolved in time"),
            }
        }
    }

    /// Takes `found` as the addresses of `address`; servers that stay keep their connections. None found changes nothing.
    pub(super) fn apply(&self, address: &ServerAddress, found: &[SocketAddr]) {
        if found.is_empty() {
            return;
        }
        let before = self.servers();
        let mut sockets = found.to_vec();
        sockets.sort_unstable();
        sockets.dedup();
        let servers = self.addresses.iter().flat_map(|own| {
            if own != address {
                return before.iter().filter(|server| server.address == *own).map(Rc::clone).collect::<Vec<_>>();
            }
            let of_name = (0..sockets.len()).map(|at| {
                let known = before.iter().find(|server| server.address == *own && server.socket() == Some(sockets[at]));
                let server = known.map_or_else(|| Server::new(own.clone()), Rc::clone);
                // Its own address first, then the others in turn.
                server.set_sockets([&sockets[at..], &sockets[..at]].concat());
                server
            });
            of_name.collect()
        });
        let servers: Rc<[Rc<Server>]> = servers.collect();
        *self.servers.borrow_mut() = servers;
    }
}

fn is_name(address: &ServerAddress) -> bool {
    address.host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().is_err()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(host: &str) -> ServerAddress {
        ServerAddress { host: host.into(), port: 80 }
    }

    fn sockets(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| format!("{text}:80").parse().expect("an address")).collect()
    }

    #[track_caller]
    fn check(roster: &Roster, expected: &[Option<&str>]) {
        let found: Vec<_> = roster.servers().iter().map(|server| server.socket().map(|at| at.to_string())).collect();
        let expected: Vec<_> = expected.iter().map(|ip| ip.map(|ip| format!("{ip}:80"))).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn a_name_is_a_server_for_each_address_and_what_stays_keeps_its_connections() {
        let roster = Roster::new(&[address("shop"), address("10.0.0.1")], None);
        check(&roster, &[None, None]);
        roster.apply(&address("shop"), &sockets(&["10.1.0.2", "10.1.0.1", "10.1.0.2"]));
        check(&roster, &[Some("10.1.0.1"), Some("10.1.0.2"), None]);
        let stays = Rc::clone(&roster.servers()[1]);
        roster.apply(&address("shop"), &sockets(&["10.1.0.3", "10.1.0.2"]));
        check(&roster, &[Some("10.1.0.2"), Some("10.1.0.3"), None]);
        assert!(Rc::ptr_eq(&stays, &roster.servers()[0]));
        roster.apply(&address("shop"), &[]);
        check(&roster, &[Some("10.1.0.2"), Some("10.1.0.3"), None]);
    }

    #[test]
    fn a_reload_keeps_the_servers_of_names_that_stay() {
        let before = Roster::new(&[address("shop"), address("old")], None);
        before.apply(&address("shop"), &sockets(&["10.1.0.1", "10.1.0.2"]));
        let after = Roster::new(&[address("new"), address("shop")], Some(&before));
        check(&after, &[None, Some("10.1.0.1"), Some("10.1.0.2")]);
        assert!(Rc::ptr_eq(&before.servers()[0], &after.servers()[1]));
    }
}
