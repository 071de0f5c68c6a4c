//! The EndpointSlices of one Service (`discovery.k8s.io/v1`), and which addresses they make servers. Without I/O.

use crate::upstream::endpoint_slices::ServiceName;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

/// A slice has up to 1000 addresses, and commonly 100.
const SLICES_MAX: usize = 1000;

/// The answer to a list.
#[derive(Deserialize)]
pub(super) struct List {
    metadata: ListMetadata,
    #[serde(default)]
    items: Option<Vec<EndpointSlice>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ListMetadata {
    resource_version: String,
}

/// A line of a watch.
#[derive(Deserialize)]
pub(super) struct Event {
    #[serde(rename = "type")]
    kind: String,
    object: Box<RawValue>,
}

#[derive(Deserialize)]
struct EndpointSlice {
    metadata: Metadata,
    #[serde(default)]
    endpoints: Option<Vec<Endpoint>>,
    #[serde(default)]
    ports: Option<Vec<Port>>,
}

#[derive(Deserialize)]
struct Metadata {
    name: String,
}

#[derive(Deserialize)]
struct Endpoint {
    #[serde(default)]
    addresses: Vec<String>,
    #[serde(default)]
    conditions: Option<Conditions>,
}

/// What is not said is good: the API defines it so.
#[derive(Deserialize, Default)]
struct Conditions {
    ready: Option<bool>,
    serving: Option<bool>,
    terminating: Option<bool>,
}

#[derive(Deserialize)]
struct Port {
    name: Option<String>,
    port: Option<u16>,
    protocol: Option<String>,
}

/// The slices as of the last event.
pub(super) struct Slices {
    by_name: BTreeMap<String, EndpointSlice>,
}

/// What comes after an event.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// More of them.
    Event,
    /// A new list, since the watch can't go on.
    List,
}

impl Slices {
    /// Those of a list, and the version at which a watch goes on.
    pub(super) fn of(list: List) -> (Self, String) {
        let items = list.items.unwrap_or_default().into_iter().take(SLICES_MAX);
        let by_name = items.map(|slice| (slice.metadata.name.clone(), slice)).collect();
        (Self { by_name }, list.metadata.resource_version)
    }

    /// Takes an event in.
    ///
    /// # Errors
    /// When its object is no EndpointSlice.
    pub(super) fn take(&mut self, event: &Event) -> Result<Next, serde_json::Error> {
        match event.kind.as_str() {
            "ADDED" | "MODIFIED" => {
                let slice: EndpointSlice = serde_json::from_str(event.object.get())?;
                if self.by_name.len() >= SLICES_MAX && !self.by_name.contains_key(&slice.metadata.name) {
                    tracing::debug!(slice = slice.metadata.name, "more EndpointSlices than are heeded");
                    return Ok(Next::Event);
                }
                self.by_name.insert(slice.metadata.name.clone(), slice);
            }
            "DELETED" => {
                let slice: EndpointSlice = serde_json::from_str(event.object.get())?;
                self.by_name.remove(&slice.metadata.name);
            }
            // Most often 410: the version is too old to go on from.
            "ERROR" => return Ok(Next::List),
            _ => {}
        }
        Ok(Next::Event)
    }

    /// The addresses of pods that are ready; if there are none, of those that end but serve, as kube-proxy does.
    pub(super) fn sockets(&self, name: &ServiceName) -> Vec<SocketAddr> {
        let ready = self.those(name, |conditions| conditions.ready.unwrap_or(true));
        if !ready.is_empty() {
            return ready;
        }
        let is_serving = |conditions: &Conditions| conditions.serving.unwrap_or(true);
        self.those(name, |conditions| conditions.terminating.unwrap_or(false) && is_serving(conditions))
    }

    fn those(&self, name: &ServiceName, is_meant: impl Fn(&Conditions) -> bool) -> Vec<SocketAddr> {
        let mut sockets = Vec::new();
        for slice in self.by_name.values() {
            let ports = slice.ports.as_deref().unwrap_or_default();
            let ports: Vec<u16> =
                ports.iter().filter(|port| port.is(&name.port)).filter_map(|port| port.port).collect();
            for endpoint in slice.endpoints.as_deref().unwrap_or_default() {
                if endpoint.conditions.as_ref().map_or_else(|| is_meant(&Conditions::default()), &is_meant) {
                    // Names (addressType FQDN) are no addresses.
                    let addresses = endpoint.addresses.iter().filter_map(|text| text.parse::<IpAddr>().ok());
                    sockets.extend(addresses.flat_map(|ip| ports.iter().map(move |port| SocketAddr::new(ip, *port))));
                }
            }
        }
        sockets.sort_unstable();
        sockets.dedup();
        sockets
    }
}

impl Port {
    fn is(&self, wanted: &str) -> bool {
        let is_tcp = self.protocol.as_deref().is_none_or(|protocol| protocol == "TCP");
        let is_named = self.name.as_deref() == Some(wanted);
        is_tcp && (is_named || self.port.is_some_and(|port| wanted.parse() == Ok(port)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = r#"{"kind":"EndpointSliceList","metadata":{"resourceVersion":"7"},"items":[
        {"metadata":{"name":"a"},"addressType":"IPv4","endpoints":[
            {"addresses":["10.0.0.2"],"conditions":{"ready":true}},
            {"addresses":["10.0.0.1"],"conditions":{}},
            {"addresses":["10.0.0.3"],"conditions":{"ready":false,"serving":false,"terminating":false}},
            {"addresses":["10.0.0.4"],"conditions":{"ready":false,"serving":true,"terminating":true}}],
         "ports":[{"name":"http","port":8080,"protocol":"TCP"},{"name":"http","port":53,"protocol":"UDP"},
                  {"name":"admin","port":9901}]},
        {"metadata":{"name":"b"},"addressType":"IPv6","endpoints":[{"addresses":["fd00::1"]}],
         "ports":[{"name":"http","port":8081}]},
        {"metadata":{"name":"c"},"addressType":"FQDN","endpoints":[{"addresses":["shop.example.com"]}],
         "ports":[{"name":"http","port":8081}]},
        {"metadata":{"name":"d"},"addressType":"IPv4","endpoints":null,"ports":null}]}"#;

    fn slices() -> Slices {
        let (slices, version) = Slices::of(serde_json::from_str(LIST).expect("a list"));
        assert_eq!(version, "7");
        slices
    }

    #[track_caller]
    fn check(slices: &Slices, port: &str, expected: &[&str]) {
        let name = ServiceName { service: "shop".into(), namespace: "web".into(), port: port.into() };
        let found: Vec<_> = slices.sockets(&name).iter().map(SocketAddr::to_string).collect();
        assert_eq!(found, expected);
    }

    fn take(slices: &mut Slices, text: &str) -> Next {
        slices.take(&serde_json::from_str(text).expect("an event")).expect("taken")
    }

    #[test]
    fn pods_that_are_ready_are_servers_at_the_named_port() {
        let slices = slices();
        check(&slices, "http", &["10.0.0.1:8080", "10.0.0.2:8080", "[fd00::1]:8081"]);
        check(&slices, "8081", &["[fd00::1]:8081"]);
        check(&slices, "admin", &["10.0.0.1:9901", "10.0.0.2:9901"]);
        check(&slices, "none", &[]);
        check(&slices, "53", &[]);
    }

    #[test]
    fn pods_that_end_serve_while_no_other_does() {
        let mut slices = slices();
        let deleted = r#"{"type":"DELETED","object":{"metadata":{"name":"b"}}}"#;
        assert_eq!(take(&mut slices, deleted), Next::Event);
        check(&slices, "http", &["10.0.0.1:8080", "10.0.0.2:8080"]);
        let modified = r#"{"type":"MODIFIED","object":{"metadata":{"name":"a"},"endpoints":[
            {"addresses":["10.0.0.3"],"conditions":{"ready":false}},
            {"addresses":["10.0.0.4"],"conditions":{"ready":false,"serving":true,"terminating":true}},
            {"addresses":["10.0.0.5"],"conditions":{"ready":false,"serving":false,"terminating":true}}],
            "ports":[{"name":"http","port":8080}]}}"#;
        assert_eq!(take(&mut slices, modified), Next::Event);
        check(&slices, "http", &["10.0.0.4:8080"]);
    }

    #[test]
    fn bookmarks_change_nothing_and_errors_ask_for_a_list() {
        let mut slices = slices();
        let bookmark = r#"{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"9"}}}"#;
        assert_eq!(take(&mut slices, bookmark), Next::Event);
        check(&slices, "8081", &["[fd00::1]:8081"]);
        assert_eq!(take(&mut slices, r#"{"type":"ERROR","object":{"code":410}}"#), Next::List);
        let event = serde_json::from_str(r#"{"type":"ADDED","object":{"metadata":{}}}"#).expect("an event");
        slices.take(&event).expect_err("it has no name");
    }
}
