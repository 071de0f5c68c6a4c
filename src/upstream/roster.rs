//! Which servers an upstream has now: names become addresses, again and again.
//!
//! A name with several addresses (a headless Service, a round-robin record, SRV records) is a server for each, so that the
//! balance sees them all. The first requests wait for the first look; later looks run beside the requests, as often as the
//! records' TTL says. A look that fails changes nothing.
//!
//! ```text
//! shop:3000 ── not looked up yet: one server, which resolves as it connects
//!     └─ looked up ─▶ 10.0.0.7:3000, 10.0.0.8:3000: each a server; its own address is tried first, then the others
//! ```

use crate::upstream::names::Names;
use crate::upstream::pool::Server;
use crate::upstream::settings::ServerAddress;
use futures_util::future::join_all;
use std::cell::{Cell, RefCell};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::OnceCell;
use tokio::time::{Instant, timeout, timeout_at};

/// However short a TTL is: names are not looked up more often.
const LOOK_AGAIN_AFTER_MIN: Duration = Duration::from_secs(1);
/// However long a TTL is: what has changed against its promise is seen by then.
const LOOK_AGAIN_AFTER_MAX: Duration = Duration::from_secs(60);
/// A name that could not be looked up is tried again then.
const TRY_AGAIN_AFTER: Duration = Duration::from_secs(1);
/// A look takes no longer than this.
const LOOK_TIMEOUT: Duration = Duration::from_secs(10);
/// Other addresses of a name that a server may try.
const OTHERS_MAX: usize = 7;

/// The servers of one upstream, as of the last look.
pub(super) struct Roster {
    addresses: Vec<ServerAddress>,
    /// Whether there is anything to look up.
    has_names: bool,
    servers: RefCell<Rc<[Rc<Server>]>>,
    names: Rc<Names>,
    first_look: OnceCell<()>,
    next_look: Cell<Instant>,
    is_looking: Cell<bool>,
}

impl Roster {
    /// Begins with the servers of `before` for addresses that stay.
    pub(super) fn new(addresses: &[ServerAddress], names: &Rc<Names>, before: Option<&Self>) -> Rc<Self> {
        let has_looked = before.is_some_and(|before| {
            before.first_look.initialized() && addresses.iter().all(|address| before.addresses.contains(address))
        });
        let before = before.map(Self::servers);
        let before = before.as_deref().unwrap_or_default();
        let servers = addresses.iter().flat_map(|address| {
            let kept: Vec<_> = before.iter().filter(|server| server.address == *address).map(Rc::clone).collect();
            if kept.is_empty() { vec![Server::new(address.clone())] } else { kept }
        });
        Rc::new(Self {
            addresses: addresses.to_vec(),
            has_names: addresses.iter().any(is_name),
            servers: RefCell::new(servers.collect()),
            names: Rc::clone(names),
            first_look: OnceCell::new_with(has_looked.then_some(())),
            next_look: Cell::new(Instant::now()),
            is_looking: Cell::new(false),
        })
    }

    /// The servers now.
    pub(super) fn servers(&self) -> Rc<[Rc<Server>]> {
        Rc::clone(&self.servers.borrow())
    }

    /// The servers for a request; the first ones wait, `patience` at most, until the names are looked up.
    pub(super) async fn current(self: &Rc<Self>, patience: Duration) -> Rc<[Rc<Server>]> {
        if !self.has_names {
            return self.servers();
        }
        if !self.first_look.initialized() {
            // Whose patience ends goes on with servers that resolve as they connect.
            let _ = Box::pin(timeout(patience, self.first_look.get_or_init(|| self.look()))).await;
        } else if Instant::now() >= self.next_look.get() && !self.is_looking.replace(true) {
            let roster = Rc::clone(self);
            tokio::task::spawn_local(async move {
                roster.look().await;
                roster.is_looking.set(false);
            });
        }
        self.servers()
    }

    /// Looks all names up at once, and fixes when to do so again.
    async fn look(&self) {
        let deadline = Instant::now() + LOOK_TIMEOUT;
        let looks = self.addresses.iter().filter(|address| is_name(address)).map(|address| async move {
            match timeout_at(deadline, self.names.look(address)).await {
                Ok(Ok(found)) => {
                    self.apply(address, &found.sockets);
                    return found.ttl.clamp(LOOK_AGAIN_AFTER_MIN, LOOK_AGAIN_AFTER_MAX);
                }
                Ok(Err(error)) => tracing::debug!(server = %address, %error, "a name can't be resolved"),
                Err(_) => tracing::debug!(server = %address, "a name was not resolved in time"),
            }
            TRY_AGAIN_AFTER
        });
        let again = join_all(looks).await.into_iter().min().unwrap_or(LOOK_AGAIN_AFTER_MAX);
        self.next_look.set(Instant::now() + again);
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
                // Its own address first, then others in turn.
                let others = sockets.len().min(1 + OTHERS_MAX);
                server.set_sockets(sockets.iter().cycle().skip(at).take(others).copied().collect());
                server
            });
            of_name.collect()
        });
        let servers: Rc<[Rc<Server>]> = servers.collect();
        *self.servers.borrow_mut() = servers;
    }
}

fn is_name(address: &ServerAddress) -> bool {
    address.is_service() || address.host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().is_err()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(host: &str) -> ServerAddress {
        ServerAddress { host: host.into(), port: 80 }
    }

    fn roster(addresses: &[ServerAddress], before: Option<&Roster>) -> Rc<Roster> {
        Roster::new(addresses, &Rc::new(Names::new("/none".into(), "/none".into(), 9)), before)
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
        let roster = roster(&[address("shop"), address("10.0.0.1")], None);
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
        let before = roster(&[address("shop"), address("old")], None);
        before.apply(&address("shop"), &sockets(&["10.1.0.1", "10.1.0.2"]));
        let after = roster(&[address("new"), address("shop")], Some(&before));
        check(&after, &[None, Some("10.1.0.1"), Some("10.1.0.2")]);
        assert!(Rc::ptr_eq(&before.servers()[0], &after.servers()[1]));
    }
}
