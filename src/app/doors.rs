//! The sockets of all listeners: which a configuration wants, which are open, and each worker's part of them.
//!
//! ```text
//! configuration ─▶ Plan: keeps what stays, binds what is new (may fail) ─▶ commit ─▶ watch ─▶ each worker opens, closes
//! ```

use crate::app::StartError;
use crate::config::Config;
use crate::server::connection::Server;
use crate::server::lanes::Lanes;
use crate::server::listener::{self, Endpoint, ListenerSettings, Protocol, Protocols};
use crate::server::tls;
use arc_swap::ArcSwap;
use parking_lot::Mutex;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use tokio::sync::watch;
use tokio::task::{JoinHandle, spawn_local};

/// Who answers behind a door.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The gateway.
    Clients,
    /// The publish listener.
    Publish,
    /// The admin listener.
    Admin,
}

/// A bound address: a socket for each worker, and what becomes of its connections.
pub struct Door {
    /// Who answers.
    pub role: Role,
    /// The address of the configuration, whose port may be 0.
    configured: SocketAddr,
    /// The address that it has.
    pub address: SocketAddr,
    /// What the next connection meets.
    pub endpoint: Arc<ArcSwap<Endpoint>>,
    /// The workers' sockets, until each has taken its own.
    sockets: Mutex<Vec<Option<std::net::TcpListener>>>,
    /// What one worker accepted and another is to serve.
    lanes: Arc<Lanes>,
}

/// All doors of a configuration.
pub type Doors = Arc<[Arc<Door>]>;

/// What a configuration makes of the doors. Its sockets are bound and nothing else is changed yet: dropping it takes all
/// of it back.
pub struct Plan {
    /// All doors, in the order of the configuration.
    doors: Vec<Arc<Door>>,
    /// Doors that stay, and what their next connections meet.
    stay: Vec<(Arc<Door>, Endpoint)>,
    /// Doors that were not there before.
    opened: Vec<Arc<Door>>,
}

impl Plan {
    /// Binds what `config` wants and `current` has not.
    ///
    /// # Errors
    /// What can't be bound, or which TLS settings the library refuses.
    pub fn make(config: &Config, current: &[Arc<Door>], workers: usize) -> Result<Self, StartError> {
        let mut plan = Self { doors: Vec::new(), stay: Vec::new(), opened: Vec::new() };
        for (role, settings) in wanted(config) {
            let known = current.iter().find(|door| door.fits(role, &settings));
            let before = known.map(|door| door.endpoint.load_full());
            let tls = tls_config(&settings, before.as_deref())?;
            let endpoint = Endpoint { settings, tls };
            let door = match known {
                Some(door) => {
                    plan.stay.push((Arc::clone(door), endpoint));
                    Arc::clone(door)
                }
                None => {
                    let door = Door::open(role, endpoint, workers)?;
                    plan.opened.push(Arc::clone(&door));
                    door
                }
            };
            plan.doors.push(door);
        }
        Ok(plan)
    }

    /// Puts it in force: from now on connections meet the new endpoints. The doors are for the workers.
    pub fn commit(self) -> Doors {
        for (door, endpoint) in self.stay {
            door.endpoint.store(Arc::new(endpoint));
        }
        for door in &self.opened {
            tracing::info!(listener = %door.name(), address = %door.address, "listening");
        }
        self.doors.into()
    }
}

impl Door {
    fn open(role: Role, endpoint: Endpoint, workers: usize) -> Result<Arc<Self>, StartError> {
        let settings = &endpoint.settings;
        let failed = |reason: io::Error| StartError::Bind {
            what: format!("listener {}", settings.name),
            address: settings.address,
            remedy: match reason.kind() {
                io::ErrorKind::AddrInUse => "another process listens there: stop it, or choose another port",
                io::ErrorKind::PermissionDenied => {
                    "choose a port from 1024 on, or allow the process to bind lower ones"
                }
                io::ErrorKind::AddrNotAvailable => {
                    "this machine has no such address: use 0.0.0.0, [::] or one of its own"
                }
                _ => "check the address",
            },
            reason,
        };
        let configured = settings.address;
        let sockets = listener::bind(configured, workers).map_err(failed)?;
        let address = sockets.first().map_or(Ok(configured), std::net::TcpListener::local_addr).map_err(failed)?;
        let sockets = Mutex::new(sockets.into_iter().map(Some).collect());
        let endpoint = Arc::new(ArcSwap::from_pointee(endpoint));
        Ok(Arc::new(Self { role, configured, address, endpoint, sockets, lanes: Lanes::new(workers) }))
    }

    /// Whether it can go on as this listener: on the same address, whatever its name; on a free port, by its name.
    fn fits(&self, role: Role, settings: &ListenerSettings) -> bool {
        let named = || self.endpoint.load().settings.name == settings.name;
        self.role == role && self.configured == settings.address && (self.configured.port() != 0 || named())
    }

    /// Its name.
    pub fn name(&self) -> Arc<str> {
        Arc::clone(&self.endpoint.load().settings.name)
    }

    fn take_socket(&self, worker: usize) -> Option<std::net::TcpListener> {
        self.sockets.lock().get_mut(worker).and_then(Option::take)
    }
}

/// Keeps a worker's sockets as `doors` says until dropped; `changed` is called after each change.
pub async fn keep(
    worker: usize,
    server: impl Fn(Role) -> Rc<Server>,
    mut doors: watch::Receiver<Doors>,
    changed: impl Fn(),
) {
    let mut open: Vec<Open> = Vec::new();
    loop {
        let wanted = Arc::clone(&doors.borrow_and_update());
        let stays = |open: &mut Open| wanted.iter().any(|door| Arc::ptr_eq(door, &open.door));
        open.extract_if(.., |open| !stays(open)).for_each(Open::close);
        for door in wanted.iter() {
            // Each socket is taken once: what is open already has none left.
            let Some(socket) = door.take_socket(worker) else { continue };
            match Open::start(door, server(door.role), socket) {
                Ok(one) => open.push(one),
                Err(error) => tracing::error!(%error, address = %door.address, "can't listen"),
            }
        }
        changed();
        if doors.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

/// An open socket of a worker; dropping it stops the accepts. Its connections go on.
struct Open {
    door: Arc<Door>,
    server: Rc<Server>,
    socket: Rc<tokio::net::TcpListener>,
    accepting: JoinHandle<()>,
    taking: JoinHandle<()>,
}

impl Open {
    fn start(door: &Arc<Door>, server: Rc<Server>, socket: std::net::TcpListener) -> io::Result<Self> {
        let socket = Rc::new(tokio::net::TcpListener::from_std(socket)?);
        let endpoint = Arc::clone(&door.endpoint);
        let lanes = || Arc::clone(&door.lanes);
        let taking = spawn_local(listener::take(Rc::clone(&server), Arc::clone(&endpoint), lanes()));
        let accepting = spawn_local(listener::accept(Rc::clone(&server), endpoint, Rc::clone(&socket), lanes()));
        Ok(Self { door: Arc::clone(door), server, socket, accepting, taking })
    }

    /// Closes it for good. The accepts end first: what they hold of the socket would keep it open, and clients would come whom nobody
    /// accepts.
    fn close(mut self) {
        self.accepting.abort();
        self.taking.abort();
        spawn_local(async move {
            let _ = (&mut self.accepting).await;
            let _ = (&mut self.taking).await;
            listener::accept_waiting(&self.server, &self.door.endpoint, &self.socket);
            listener::take_waiting(&self.server, &self.door.endpoint, &self.door.lanes);
        });
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.accepting.abort();
        self.taking.abort();
        self.door.lanes.close(self.server.worker);
    }
}

/// The listeners that a configuration wants.
fn wanted(config: &Config) -> Vec<(Role, ListenerSettings)> {
    let clients = config.listeners.iter().map(|settings| (Role::Clients, settings.clone()));
    let publish = (Role::Publish, private("publish", config.publish.address));
    clients.chain([publish, (Role::Admin, private("admin", config.admin))]).collect()
}

/// A listener that is not for clients: cleartext HTTP/1.1 and HTTP/2.
fn private(name: &str, address: SocketAddr) -> ListenerSettings {
    ListenerSettings {
        name: name.into(),
        address,
        protocols: Protocols(vec![Protocol::H2, Protocol::Http1]),
        trusted_proxies: Vec::new(),
        tls: None,
    }
}

/// What TLS needs to know of a listener: what it was before if nothing of it changed, so that clients can resume their TLS sessions.
fn tls_config(
    settings: &ListenerSettings,
    before: Option<&Endpoint>,
) -> Result<Option<Arc<rustls::ServerConfig>>, StartError> {
    let Some(wanted) = &settings.tls else { return Ok(None) };
    if let Some(Endpoint { settings: old, tls: Some(config) }) = before
        && old.protocols == settings.protocols
        && old.tls.as_ref().is_some_and(|old| old.is_like(wanted))
    {
        return Ok(Some(Arc::clone(config)));
    }
    let made = tls::server_config(wanted, &settings.protocols);
    made.map(Some).map_err(|reason| StartError::Tls { listener: Arc::clone(&settings.name), reason: Box::new(reason) })
}
