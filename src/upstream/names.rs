//! From names to addresses: the hosts file, then the name servers of resolv.conf(5). Knows nothing of servers.
//!
//! Both files are read at each look, so that a change of them needs no restart. Nothing is kept here: how long an answer
//! holds is told with it.

#[cfg(feature = "kube")]
use crate::upstream::endpoint_slices::Cluster;
use crate::upstream::settings::ServerAddress;
use futures_util::{StreamExt as _, stream};
use hickory_resolver::config::{NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::op::Query;
use hickory_resolver::proto::rr::rdata::SRV;
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use hickory_resolver::{Hosts, TokioResolver};
use std::cell::RefCell;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;
use thiserror::Error;

/// Addresses of one name that are servers.
const ADDRESSES_MAX: usize = 256;
/// Targets of SRV records that are looked up at a time, if the answer did not bring their addresses.
const TARGETS_AT_ONCE_MAX: usize = 8;
/// What resolv.conf(5) and the hosts file may have.
const FILE_BYTES_MAX: usize = 1024 * 1024;
/// The bounds that resolv.conf(5) names.
const NDOTS_MAX: u32 = 15;
const TIMEOUT_SECS_MAX: u32 = 30;
const ATTEMPTS_MAX: u32 = 5;
/// An entry of the hosts file has no TTL.
const HOSTS_TTL: Duration = Duration::from_secs(5);

/// A worker's way to addresses.
pub(super) struct Names {
    resolv_conf: PathBuf,
    hosts: PathBuf,
    /// Where name servers listen; resolv.conf(5) can't say.
    port: u16,
    asked: RefCell<Option<Rc<Asked>>>,
    #[cfg(feature = "kube")]
    cluster: Cluster,
}

/// What the files said.
struct Asked {
    texts: [Vec<u8>; 2],
    hosts: Hosts,
    resolver: TokioResolver,
}

/// The addresses of a name, without duplicates, and how long they hold; there may be none.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) sockets: Vec<SocketAddr>,
    pub(super) ttl: Duration,
}

/// Why a name has no address.
#[derive(Debug, Error)]
pub(super) enum LookError {
    /// It is none.
    #[error("it is no name of the DNS")]
    NoName,
    /// The servers did not answer, or said no.
    #[error("{0}")]
    Dns(#[source] Box<NetError>),
    /// Only pods of a cluster can ask for its Services.
    #[cfg(feature = "kube")]
    #[error("no cluster can be asked here: KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are set in pods alone")]
    NoCluster,
}

impl From<NetError> for LookError {
    fn from(error: NetError) -> Self {
        Self::Dns(Box::new(error))
    }
}

impl Names {
    /// As the system is set up.
    pub(super) fn of_the_system() -> Self {
        Self::new("/etc/resolv.conf".into(), "/etc/hosts".into(), 53)
    }

    pub(super) fn new(resolv_conf: PathBuf, hosts: PathBuf, port: u16) -> Self {
        Self {
            resolv_conf,
            hosts,
            port,
            asked: RefCell::new(None),
            #[cfg(feature = "kube")]
            cluster: Cluster::of_the_pod(),
        }
    }

    /// Looks a server's name up. Takes as long as resolv.conf(5) allows; cancel-safe.
    ///
    /// # Errors
    /// When no server has answered, or the name does not exist.
    pub(super) async fn look(&self, address: &ServerAddress) -> Result<Found, LookError> {
        #[cfg(feature = "kube")]
        if Cluster::knows(address) {
            let mut found = self.cluster.look(address).await?;
            found.sockets.truncate(ADDRESSES_MAX);
            return Ok(found);
        }
        let asked = self.asked()?;
        let name = Name::from_utf8(&address.host).map_err(|_| LookError::NoName)?;
        let mut found =
            if address.is_service() { asked.service(name).await? } else { asked.host(name, address.port).await? };
        found.sockets.sort_unstable();
        found.sockets.dedup();
        found.sockets.truncate(ADDRESSES_MAX);
        Ok(found)
    }

    /// With another cluster than the pod's own.
    #[cfg(all(test, feature = "kube"))]
    pub(super) fn with_cluster(self, cluster: Cluster) -> Self {
        Self { cluster, ..self }
    }

    /// Who is asked now, by the files as they are now.
    fn asked(&self) -> Result<Rc<Asked>, LookError> {
        let read = |path: &PathBuf| {
            let mut text = std::fs::read(path).unwrap_or_default();
            text.truncate(FILE_BYTES_MAX);
            text
        };
        let texts = [read(&self.resolv_conf), read(&self.hosts)];
        if let Some(known) = self.asked.borrow().as_ref().filter(|known| known.texts == texts) {
            return Ok(Rc::clone(known));
        }
        let mut hosts = Hosts::default();
        if let Err(error) = hosts.read_hosts_conf(&*texts[1]) {
            tracing::warn!(path = %self.hosts.display(), %error, "the hosts file can't be read");
        }
        let resolver = resolver(&texts[0], self.port)?;
        let asked = Rc::new(Asked { texts, hosts, resolver });
        *self.asked.borrow_mut() = Some(Rc::clone(&asked));
        Ok(asked)
    }
}

impl Asked {
    /// The addresses of a host.
    async fn host(&self, name: Name, port: u16) -> Result<Found, LookError> {
        let of_file = [RecordType::A, RecordType::AAAA].map(|kind| {
            let found = self.hosts.lookup_static_host(&Query::query(name.clone(), kind));
            found.map(|found| addresses(found.answers()).collect::<Vec<_>>()).unwrap_or_default()
        });
        let of_file = of_file.concat();
        if !of_file.is_empty() {
            return Ok(Found { sockets: with_port(of_file, port), ttl: HOSTS_TTL });
        }
        let found = self.resolver.lookup_ip(name).await?;
        let records = found.as_lookup().answers();
        Ok(Found { sockets: with_port(addresses(records).collect(), port), ttl: ttl(records) })
    }

    /// The hosts and ports of a service: of the SRV records with the best priority (RFC 2782). Weights are not heeded.
    async fn service(&self, name: Name) -> Result<Found, LookError> {
        let answer = self.resolver.srv_lookup(name).await?;
        let services: Vec<_> = answer.answers().iter().filter_map(service).collect();
        let best = services.iter().map(|service| service.priority).min();
        let services =
            services.into_iter().filter(|service| Some(service.priority) == best && !service.target.is_root());
        let targets = services.take(ADDRESSES_MAX).map(|service| async {
            let brought = answer.additionals().iter().filter(|record| record.name == service.target);
            let brought: Vec<_> = brought.cloned().collect();
            let known: Vec<_> = addresses(&brought).collect();
            if known.is_empty() {
                return self.host(service.target.clone(), service.port).await;
            }
            Ok(Found { sockets: with_port(known, service.port), ttl: ttl(&brought) })
        });
        let targets: Vec<_> = stream::iter(targets).buffer_unordered(TARGETS_AT_ONCE_MAX).collect().await;
        let mut all = Found { sockets: Vec::new(), ttl: ttl(answer.answers()) };
        let mut failed = None;
        for target in targets {
            match target {
                Ok(found) => {
                    all.ttl = all.ttl.min(found.ttl);
                    all.sockets.extend(found.sockets);
                }
                Err(error) => failed = Some(error),
            }
        }
        // One target that is gone must not take the others along.
        match failed {
            Some(error) if all.sockets.is_empty() => Err(error),
            _ => Ok(all),
        }
    }
}

fn service(record: &Record) -> Option<&SRV> {
    match &record.data {
        RData::SRV(service) => Some(service),
        _ => None,
    }
}

fn addresses(records: &[Record]) -> impl Iterator<Item = IpAddr> {
    records.iter().filter_map(|record| record.data.ip_addr())
}

fn with_port(addresses: Vec<IpAddr>, port: u16) -> Vec<SocketAddr> {
    addresses.into_iter().map(|ip| SocketAddr::new(ip, port)).collect()
}

/// The shortest of all, since they are asked for again together.
fn ttl(records: &[Record]) -> Duration {
    Duration::from_secs(records.iter().map(|record| record.ttl).min().unwrap_or(0).into())
}

/// A resolver as resolv.conf(5) has it; without a name server the one of this machine is asked.
fn resolver(resolv_conf: &[u8], port: u16) -> Result<TokioResolver, LookError> {
    let (mut file, errors) = resolv_conf::Config::parse_with_errors(resolv_conf);
    file.glibc_normalize();
    for error in errors {
        tracing::warn!(%error, "a line of resolv.conf can't be read");
    }
    let servers = file.get_nameservers_or_local().into_iter().map(|server| {
        let mut server = NameServerConfig::udp_and_tcp(IpAddr::from(&server));
        for connection in &mut server.connections {
            connection.port = port;
        }
        server
    });
    // Unlike names of hosts, search domains may have underscores.
    let search = file.get_last_search_or_domain().filter_map(|domain| Name::from_str_relaxed(domain).ok());
    let config = ResolverConfig::from_parts(None, search.collect(), servers.collect());
    let mut options = ResolverOpts::default();
    options.ndots = file.ndots.min(NDOTS_MAX) as usize;
    options.timeout = Duration::from_secs(file.timeout.clamp(1, TIMEOUT_SECS_MAX).into());
    options.attempts = file.attempts.clamp(1, ATTEMPTS_MAX) as usize;
    options.edns0 = file.edns0;
    options.cache_size = 0;
    options.use_hosts_file = ResolveHosts::Never;
    let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
    *builder.options_mut() = options;
    Ok(builder.build()?)
}

#[cfg(test)]
mod tests;
