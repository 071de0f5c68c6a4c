//! The sockets: `listeners`, `admin`, and that no two take one address.

use super::{Resolver, Spotted};
use crate::config::defaults;
use crate::config::file::{self, File, Tls};
use crate::config::problem::Spot;
use crate::config::read::{Given, quote};
use crate::publish::settings::PublishSettings;
use crate::server::listener::{ListenerSettings, Protocol, Protocols};
use crate::server::tls::{TlsSettings, TlsVersion};
use ipnet::IpNet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

impl Resolver<'_> {
    pub(super) fn listeners(&mut self, file: &File, top: &Spot) -> Vec<(ListenerSettings, Spot)> {
        let remedy = "list at least one with a name and an address";
        let Some(given) = self.required(&file.listeners, top, "listeners", remedy) else { return Vec::new() };
        if given.value.is_empty() {
            self.problems.add(&given.spot, format!("empty; {remedy}"));
        }
        let mut names: Vec<Given<String>> = Vec::new();
        let mut listeners = Vec::new();
        for listener in &given.value {
            let shape = &listener.value;
            let name = self.name(&shape.name, &listener.spot, "listener");
            if let Some(name) = &name {
                self.not_named_twice(name, &names);
                names.push(name.clone());
            }
            let remedy = "write an IP address and port, such as 0.0.0.0:8080";
            let address = self.required(&shape.address, &listener.spot, "address", remedy);
            let address = address.and_then(|address| Some((self.address(address)?, address.spot.clone())));
            let tls = shape.tls.given().and_then(|tls| self.tls(tls));
            let protocols = self.protocols(shape);
            let trusted_proxies = self.trusted_proxies(shape);
            let (Some(name), Some((address, spot))) = (name, address) else { continue };
            let name = name.value.into();
            listeners.push((ListenerSettings { name, address, protocols, trusted_proxies, tls }, spot));
        }
        listeners
    }

    /// Complains about a name that an earlier one of the list has.
    pub(super) fn not_named_twice(&mut self, name: &Given<String>, earlier: &[Given<String>]) {
        if let Some(first) = earlier.iter().find(|known| known.value == name.value) {
            let first = format!("{}, line {}", first.spot.path, first.spot.place.line);
            self.problems.add(&name.spot, format!("{} is taken ({first}); choose another name", quote(&name.value)));
        }
    }

    pub(super) fn address(&mut self, given: &Given<String>) -> Option<SocketAddr> {
        match given.value.parse() {
            Ok(address) => Some(address),
            Err(_) => {
                let meant = given.value.strip_prefix(':').and_then(|port| port.parse::<u16>().ok());
                let meant = match meant {
                    Some(port) => format!("write 0.0.0.0:{port} or [::]:{port}"),
                    None => "write an IP address and port, such as 127.0.0.1:8080 or [::]:8080".to_owned(),
                };
                self.problems.add(&given.spot, format!("{} is no address; {meant}", quote(&given.value)));
                None
            }
        }
    }

    pub(super) fn admin(&mut self, file: &File) -> Spotted<SocketAddr> {
        let given = file.admin.value().and_then(|admin| admin.address.given());
        let address = given.and_then(|given| self.address(given));
        Spotted { value: address.unwrap_or(defaults::ADMIN_ADDRESS), spot: given.map(|given| given.spot.clone()) }
    }

    /// Two sockets on one address, or one on all addresses of another's port, would take each other's clients.
    pub(super) fn no_address_twice(
        &mut self,
        listeners: &[(ListenerSettings, Spot)],
        publish: &Spotted<PublishSettings>,
        admin: &Spotted<SocketAddr>,
    ) {
        let mut taken: Vec<(SocketAddr, Option<&Spot>, String)> = vec![
            (publish.value.address, publish.spot.as_ref(), "publish.address".to_owned()),
            (admin.value, admin.spot.as_ref(), "admin.address".to_owned()),
        ];
        taken.extend(listeners.iter().map(|(one, spot)| (one.address, Some(spot), spot.path.clone())));
        for (at, (address, spot, path)) in taken.iter().enumerate() {
            let Some((_, other_spot, other_path)) = taken[..at].iter().find(|(other, ..)| overlap(*address, *other))
            else {
                continue;
            };
            // The complaint stands at the later one of the two that are written.
            let (spot, other) = match (spot, other_spot) {
                (Some(spot), Some(other)) if other.place > spot.place => (*other, path),
                (Some(spot), _) => (*spot, other_path),
                (None, Some(other)) => (*other, path),
                (None, None) => continue,
            };
            self.problems.add(spot, format!("port {} is taken by {other}; choose another", address.port()));
        }
    }

    fn protocols(&mut self, listener: &file::Listener) -> Protocols {
        let Some(given) = listener.protocols.given() else { return Protocols(defaults::PROTOCOLS.to_vec()) };
        let protocols: Vec<_> = given
            .value
            .iter()
            .map(|protocol| match protocol.value {
                file::Protocol::H2 => Protocol::H2,
                file::Protocol::Http1 => Protocol::Http1,
            })
            .collect();
        self.check_list(&given.spot, &protocols);
        Protocols(protocols)
    }

    /// Complains about a list that is empty or has something twice.
    pub(super) fn check_list<T: PartialEq>(&mut self, spot: &Spot, list: &[T]) {
        if list.is_empty() {
            self.problems.add(spot, "empty; write one at least, or remove the key");
        } else if list.iter().enumerate().any(|(at, one)| list[..at].contains(one)) {
            self.problems.add(spot, "has one twice; write each once");
        }
    }

    fn trusted_proxies(&mut self, listener: &file::Listener) -> Vec<IpNet> {
        let mut networks = Vec::new();
        for given in listener.trusted_proxies.value().into_iter().flatten() {
            let network = given.value.parse().ok().or_else(|| given.value.parse::<IpAddr>().ok().map(IpNet::from));
            match network {
                Some(network) => networks.push(network),
                None => {
                    let text = format!("{} is no network; write such as 10.0.0.0/8 or 10.1.2.3", quote(&given.value));
                    self.problems.add(&given.spot, text);
                }
            }
        }
        networks
    }

    fn tls(&mut self, tls: &Given<Tls>) -> Option<Arc<TlsSettings>> {
        let remedy = "list at least one with cert_file and key_file";
        let given = self.required(&tls.value.certificates, &tls.spot, "certificates", remedy)?;
        if given.value.is_empty() {
            self.problems.add(&given.spot, format!("empty; {remedy}"));
        }
        let mut certificates = Vec::new();
        for certificate in &given.value {
            let files = &certificate.value;
            let cert = self.required(&files.cert_file, &certificate.spot, "cert_file", "name a PEM file");
            let key = self.required(&files.key_file, &certificate.spot, "key_file", "name a PEM file");
            let (Some(cert), Some(key)) = (cert, key) else { continue };
            certificates.extend(self.certificate(cert, key));
        }
        let client_ca = tls.value.client_ca_file.given().and_then(|given| self.client_ca(given));
        let min_version = match tls.value.min_version.value() {
            Some(file::TlsVersion::Tls12) => TlsVersion::Tls12,
            Some(file::TlsVersion::Tls13) => TlsVersion::Tls13,
            None => defaults::TLS_MIN_VERSION,
        };
        Some(Arc::new(TlsSettings { certificates, min_version, client_ca }))
    }
}

fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let all = |address: SocketAddr| address.ip().is_unspecified();
    one.port() != 0 && one.port() == other.port() && (one.ip() == other.ip() || all(one) || all(other))
}
