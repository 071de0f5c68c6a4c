//! The `upstreams` section.

use super::{Resolver, TIMEOUT_RANGE};
use crate::config::defaults;
use crate::config::file::{self, File, Upstream};
use crate::config::problem::Spot;
use crate::config::read::{Given, quote};
use crate::upstream::settings::{Balance, GripUpstream, ServerAddress, UpstreamProtocol, UpstreamSettings};
use std::sync::Arc;
use std::time::Duration;

/// More tries than this are a retry storm.
const RETRY_ATTEMPTS_MAX: u64 = 10;
/// Ids may be remembered from a second to a day: they are held in memory.
const ID_CACHE_RANGE: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(24 * 3600);

impl Resolver<'_> {
    pub(super) fn upstreams(&mut self, file: &File) -> Vec<(Spot, Arc<UpstreamSettings>)> {
        let named = file.upstreams.value().map(|named| named.0.as_slice()).unwrap_or_default();
        named.iter().map(|(name, given)| (given.spot.clone(), Arc::new(self.upstream(name, given)))).collect()
    }

    fn upstream(&mut self, name: &str, given: &Given<Upstream>) -> UpstreamSettings {
        let shape = &given.value;
        let remedy = "list at least one, such as http://127.0.0.1:3000";
        let mut servers = Vec::new();
        if let Some(list) = self.required(&shape.servers, &given.spot, "servers", remedy) {
            if list.value.is_empty() {
                self.problems.add(&list.spot, format!("empty; {remedy}"));
            }
            for server in &list.value {
                match server_address(&server.value) {
                    Ok(address) => servers.push(address),
                    Err(text) => self.problems.add(&server.spot, format!("{} {text}", quote(&server.value))),
                }
            }
        }
        let timeouts = shape.timeouts.value().cloned().unwrap_or_default();
        let retries = shape.retries.value().cloned().unwrap_or_default();
        let attempts =
            self.count(&retries.attempts, 0..=RETRY_ATTEMPTS_MAX).and_then(|count| u32::try_from(count).ok());
        UpstreamSettings {
            name: name.into(),
            servers,
            balance: match shape.balance.value() {
                Some(file::Balance::RoundRobin) => Balance::RoundRobin,
                Some(file::Balance::LeastRequests) => Balance::LeastRequests,
                None => defaults::BALANCE,
            },
            protocol: match shape.protocol.value() {
                Some(file::UpstreamProtocol::Http1) => UpstreamProtocol::Http1,
                Some(file::UpstreamProtocol::H2) => UpstreamProtocol::H2,
                None => defaults::UPSTREAM_PROTOCOL,
            },
            connect_timeout: self.span(&timeouts.connect, TIMEOUT_RANGE, defaults::CONNECT_TIMEOUT),
            response_timeout: self.span(&timeouts.response, TIMEOUT_RANGE, defaults::RESPONSE_TIMEOUT),
            retry_attempts_max: attempts.unwrap_or(defaults::RETRY_ATTEMPTS_MAX),
            grip: shape.grip.given().map(|grip| Arc::new(self.grip_upstream(grip))),
        }
    }

    fn grip_upstream(&mut self, given: &Given<file::GripUpstream>) -> GripUpstream {
        let shape = &given.value;
        let is_signed = !shape.key_file.is_absent() || !shape.key_env.is_absent();
        let key = if is_signed { self.grip_key(&given.spot, &shape.key_file, &shape.key_env) } else { None };
        let key = key.and_then(|key| {
            key.for_signing().map_err(|error| self.problems.add(&given.spot, format!("key_file: {error}"))).ok()
        });
        GripUpstream {
            issuer: shape.issuer.value().map_or(defaults::GRIP_ISSUER, String::as_str).into(),
            key,
            id_cache: self.span(&shape.id_cache, ID_CACHE_RANGE, defaults::GRIP_ID_CACHE),
        }
    }
}

/// Reads `http://host:port`; the port may be left out, and is then 80. `http+srv://name` names a service, and
/// `http+kube://service.namespace:port` one of Kubernetes.
fn server_address(text: &str) -> Result<ServerAddress, &'static str> {
    const SHAPE: &str = "is no server; write http://host:port";
    if let Some(name) = text.strip_prefix("http+srv://") {
        return service_name(name.strip_suffix('/').unwrap_or(name));
    }
    if let Some(name) = text.strip_prefix("http+kube://") {
        return kubernetes_service(name.strip_suffix('/').unwrap_or(name));
    }
    let Some(authority) = text.strip_prefix("http://") else {
        return Err(match text.split_once("://") {
            Some(("https", _)) => "speaks TLS, which backends can't yet; write http://",
            _ => SHAPE,
        });
    };
    let authority = authority.strip_suffix('/').unwrap_or(authority);
    if authority.contains(['/', '?', '#']) {
        return Err("has a path, but the request's own is passed on; leave it out");
    }
    if authority.contains('@') {
        return Err("has a user name, which is not sent; leave it out");
    }
    let authority: http::uri::Authority = authority.parse().map_err(|_| SHAPE)?;
    let host = authority.host();
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let port = match authority.port_u16() {
        Some(0) => return Err("has port 0; write the port it listens on"),
        Some(port) => port,
        None if authority.as_str().len() > authority.host().len() => return Err(SHAPE),
        None => 80,
    };
    if host.is_empty() {
        return Err(SHAPE);
    }
    Ok(ServerAddress { host: host.into(), port })
}

/// Reads `_service._protocol.domain` (RFC 2782).
fn service_name(name: &str) -> Result<ServerAddress, &'static str> {
    let mut labels = name.split('.');
    let is_marked = |label: Option<&str>| label.is_some_and(|label| label.len() > 1 && label.starts_with('_'));
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if !is_marked(labels.next()) || !is_marked(labels.next()) || labels.next().is_none_or(str::is_empty) {
        return Err("is no name of SRV records; write http+srv://_http._tcp.name");
    }
    if !name.bytes().all(is_word) || name.len() > 253 {
        return Err("is no name of SRV records, which have the ports too; write http+srv://_http._tcp.name");
    }
    Ok(ServerAddress { host: name.into(), port: 0 })
}

/// Reads `service.namespace:port`, the port by its name or number.
fn kubernetes_service(name: &str) -> Result<ServerAddress, &'static str> {
    if !cfg!(feature = "kube") {
        return Err("needs a build with the feature `kube`; write http+srv://_port._tcp.service.namespace.svc");
    }
    // RFC 1123 labels: all that a Service, a namespace and a port may be called.
    let is_label = |label: &str| {
        let is_word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        (1..=63).contains(&label.len())
            && label.bytes().all(is_word)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let parts = name.split_once(':').and_then(|(name, port)| Some((name.split_once('.')?, port)));
    match parts {
        Some(((service, namespace), port)) if [service, namespace, port].into_iter().all(is_label) => {
            Ok(ServerAddress { host: name.into(), port: 0 })
        }
        _ => Err("is no Service of Kubernetes; write http+kube://service.namespace:port"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Result<(&str, u16), &str>) {
        let found = server_address(text);
        let found = found.as_ref().map(|server| (&*server.host, server.port)).map_err(|text| *text);
        assert_eq!(found, expected, "{text}");
    }

    #[test]
    fn servers_are_hosts_and_ports() {
        check("http://127.0.0.1:3000", Ok(("127.0.0.1", 3000)));
        check("http://shop", Ok(("shop", 80)));
        check("http://shop:8080/", Ok(("shop", 8080)));
        check("http://[::1]:3000", Ok(("::1", 3000)));
        check("http+srv://_http._tcp.shop.web.svc", Ok(("_http._tcp.shop.web.svc", 0)));
        check("http+srv://_http._tcp.shop/", Ok(("_http._tcp.shop", 0)));
        let srv = "is no name of SRV records; write http+srv://_http._tcp.name";
        for wrong in ["http+srv://", "http+srv://shop", "http+srv://_http._tcp", "http+srv://_._tcp.shop"] {
            check(wrong, Err(srv));
        }
        let srv = "is no name of SRV records, which have the ports too; write http+srv://_http._tcp.name";
        for wrong in ["http+srv://_http._tcp.shop:80", "http+srv://_http._tcp.shop/base", "http+srv://_http._tcp.a b"] {
            check(wrong, Err(srv));
        }
        let kube = "is no Service of Kubernetes; write http+kube://service.namespace:port";
        let no_kube = "needs a build with the feature `kube`; write http+srv://_port._tcp.service.namespace.svc";
        let with_kube = |found| if cfg!(feature = "kube") { found } else { Err(no_kube) };
        check("http+kube://shop.web:http", with_kube(Ok(("shop.web:http", 0))));
        check("http+kube://shop.web:8080/", with_kube(Ok(("shop.web:8080", 0))));
        for wrong in ["shop.web", "shop:80", "shop.web.svc:80", "Shop.web:80", "shop.-web:80", "shop.web:a?b", "..:"] {
            check(&format!("http+kube://{wrong}"), with_kube(Err(kube)));
        }
        check("shop:80", Err("is no server; write http://host:port"));
        check("http://", Err("is no server; write http://host:port"));
        check("http://shop:", Err("is no server; write http://host:port"));
        check("http://shop:99999", Err("is no server; write http://host:port"));
        check("http://shop:0", Err("has port 0; write the port it listens on"));
        check("https://shop", Err("speaks TLS, which backends can't yet; write http://"));
        check("http://shop/base", Err("has a path, but the request's own is passed on; leave it out"));
        check("http://a:b@shop", Err("has a user name, which is not sent; leave it out"));
    }
}
