//! The `websocket.cloudevents` section of a route.

use super::Resolver;
use crate::config::defaults;
use crate::config::file::{CloudEvents, Pings, WebSocket, WebSocketProtocol};
use crate::config::problem::Spot;
use crate::config::read::{Field, Given, quote};
use crate::gateway::settings::BridgeProtocol;
use crate::model::secret::Secret;
use crate::session::settings::CloudEventsSettings;
use std::sync::Arc;

/// The longest hub name, in bytes.
const HUB_BYTES_MAX: usize = 128;
/// The longest path, in bytes, before `{event}` is filled in.
const PATH_BYTES_MAX: usize = 1024;

impl Resolver<'_> {
    /// How the backend of a route of this name is spoken to.
    pub(super) fn bridge_protocol(&mut self, websocket: &Given<WebSocket>, route: &str) -> Option<BridgeProtocol> {
        let shape = &websocket.value;
        match shape.protocol.value() {
            Some(WebSocketProtocol::CloudEvents) => {
                if let Some(pings) = shape.pings.given().filter(|given| matches!(given.value, Pings::Pass)) {
                    let text = "pass can't be with protocol: cloudevents, which has no event for pings; remove it";
                    self.problems.add(&pings.spot, text);
                }
                let given = shape.cloudevents.value().cloned().unwrap_or_default();
                let spot = shape.cloudevents.given().map_or(&websocket.spot, |given| &given.spot);
                Some(BridgeProtocol::CloudEvents(Arc::new(self.cloudevents(&given, spot, route)?)))
            }
            Some(WebSocketProtocol::Grip) | None => {
                if let Some(given) = shape.cloudevents.given() {
                    let text = "does nothing without protocol: cloudevents; add that, or remove this";
                    self.problems.add(&given.spot, text);
                }
                Some(BridgeProtocol::Grip)
            }
        }
    }

    fn cloudevents(&mut self, shape: &CloudEvents, spot: &Spot, route: &str) -> Option<CloudEventsSettings> {
        let hub = match shape.hub.given() {
            Some(given) => self.hub(given)?,
            None => route.to_owned(),
        };
        let path = match shape.path.given() {
            Some(given) => self.event_path(given, &hub)?,
            None => defaults::CLOUDEVENTS_PATH.replace("{hub}", &hub),
        };
        let origin = match shape.origin.given() {
            Some(given) => self.event_origin(given)?,
            None => defaults::CLOUDEVENTS_ORIGIN.to_owned(),
        };
        let primary = self.key(spot, ("key_file", &shape.key_file), ("key_env", &shape.key_env));
        let file = ("secondary_key_file", &shape.secondary_key_file);
        let secondary = self.key(spot, file, ("secondary_key_env", &shape.secondary_key_env));
        if primary.is_none() && secondary.is_some() && shape.key_file.is_absent() && shape.key_env.is_absent() {
            self.problems.add(spot, "has a secondary key without a primary one; write that one as key_file or key_env");
        }
        let keys = primary.into_iter().chain(secondary).collect();
        Some(CloudEventsSettings { hub: hub.into(), path: path.into(), origin: origin.into(), keys })
    }

    fn key(&mut self, spot: &Spot, file: (&str, &Field<String>), env: (&str, &Field<String>)) -> Option<Secret> {
        let is_there = !file.1.is_absent() || !env.1.is_absent();
        if is_there { self.secret(spot, file, env).map(|given| given.value) } else { None }
    }

    fn hub(&mut self, given: &Given<String>) -> Option<String> {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let name = &given.value;
        if name.is_empty() || name.len() > HUB_BYTES_MAX || !name.chars().all(plain) {
            let text = format!("is no hub; write 1 to {HUB_BYTES_MAX} of a-z, A-Z, 0-9, `-`, `_` and `.`");
            self.problems.add(&given.spot, format!("{} {text}", quote(name)));
            return None;
        }
        Some(name.clone())
    }

    fn event_path(&mut self, given: &Given<String>, hub: &str) -> Option<String> {
        let path = given.value.replace("{hub}", hub);
        let whole = path.replace("{event}", "disconnected");
        let plain = |b: u8| {
            b.is_ascii_graphic() && !matches!(b, b'#' | b'{' | b'}' | b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'|')
        };
        let is_path = whole.starts_with('/') && whole.bytes().all(plain) && whole.parse::<http::Uri>().is_ok();
        if !is_path || path.len() > PATH_BYTES_MAX {
            let text = "is no path for events; write such as /eventhandler or /api/{hub}/{event}";
            self.problems.add(&given.spot, format!("{} {text}", quote(&given.value)));
            return None;
        }
        Some(path)
    }

    fn event_origin(&mut self, given: &Given<String>) -> Option<String> {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':');
        let origin = &given.value;
        if origin.is_empty() || origin.len() > 255 || !origin.chars().all(plain) {
            let text = "is no host name; write such as push.example, without a scheme";
            self.problems.add(&given.spot, format!("{} {text}", quote(origin)));
            return None;
        }
        Some(origin.clone())
    }
}
