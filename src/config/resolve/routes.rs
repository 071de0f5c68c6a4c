//! The `routes` section.

use super::Resolver;
use crate::config::file::{self, File, Match as MatchShape, Push, WebSocket};
use crate::config::problem::Spot;
use crate::config::read::{Field, Given, WordOr, quote};
use crate::config::{HubLimits, defaults};
use crate::gateway::settings::{
    Action, AllowedOrigins, Cors, Credentials, GripRoute, Pings, ProxyRoute, PushRoute, WebSocketRoute,
};
use crate::hub::shard::Start;
use crate::model::channel::ChannelName;
use crate::model::pattern::ChannelPattern;
use crate::model::session::Transport;
use crate::route::{HostPattern, Match, PathPattern, Route, RouteTable, Template};
use crate::session::settings::PushSettings;
use crate::upstream::settings::UpstreamSettings;
use http::{HeaderName, HeaderValue, Method};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

/// Below a second keep-alives are a load, above an hour they keep nothing alive.
const KEEP_ALIVE_RANGE: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3600);
/// Long polls wait from a second to ten minutes.
const LONG_POLL_RANGE: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(600);
/// A client's message of up to 64 MiB.
const MESSAGE_BYTES_RANGE: RangeInclusive<u64> = 1..=64 << 20;
/// `start: { last }` reads the history, which may be no larger.
const START_LAST_RANGE: RangeInclusive<u64> = 1..=10_000_000;

type Upstreams = [(Spot, Arc<UpstreamSettings>)];

impl Resolver<'_> {
    pub(super) fn routes(
        &mut self,
        file: &File,
        top: &Spot,
        upstreams: &Upstreams,
        limits: HubLimits,
    ) -> RouteTable<Action> {
        let remedy = "list at least one, with a name, match, and one of push, websocket, proxy";
        let Some(given) = self.required(&file.routes, top, "routes", remedy) else {
            return RouteTable::new(Vec::new());
        };
        if given.value.is_empty() {
            self.problems.add(&given.spot, format!("empty; {remedy}"));
        }
        let mut names: Vec<Given<String>> = Vec::new();
        let mut routes: Vec<Route<Action>> = Vec::new();
        for route in &given.value {
            let name = self.name(&route.value.name, &route.spot, "route");
            if let Some(name) = &name {
                self.not_named_twice(name, &names);
                names.push(name.clone());
            }
            let matcher = self.required(&route.value.r#match, &route.spot, "match", "write such as { path: /** }");
            let matcher = matcher.and_then(|given| Some((self.matcher(&given.value)?, given)));
            let path = matcher.as_ref().map(|(matcher, _)| &matcher.path);
            let action = self.action(route, path, upstreams, limits);
            let (Some(name), Some((matcher, given)), Some(action)) = (name, matcher, action) else { continue };
            self.warn_of_preflights(&route.value);
            if let Some(earlier) = routes.iter().find(|earlier| earlier.matcher.covers(&matcher)) {
                let text = format!("never matches, since {} before it takes all of it", quote(&earlier.name));
                self.warnings.add(&given.spot, format!("{text}; remove it or move it up"));
            }
            routes.push(Route { name: name.value.into(), matcher, action });
        }
        self.warn_of_unused(&given.value, upstreams);
        RouteTable::new(routes)
    }

    /// A push route with CORS must get the browsers' OPTIONS, too.
    fn warn_of_preflights(&mut self, route: &file::Route) {
        let cors = route.push.value().is_some_and(|push| !push.cors.is_absent());
        let methods = route.r#match.value().and_then(|shape| shape.methods.given());
        if let Some(methods) = methods.filter(|_| cors)
            && !methods.value.iter().any(|method| method.value == Method::OPTIONS.as_str())
        {
            let text = "leave out OPTIONS, so that CORS preflights never reach this route; add it";
            self.warnings.add(&methods.spot, text);
        }
    }

    fn warn_of_unused(&mut self, routes: &[Given<file::Route>], upstreams: &Upstreams) {
        let used: Vec<&str> = routes
            .iter()
            .flat_map(|route| {
                let proxy = route.value.proxy.value().and_then(|proxy| proxy.upstream.value());
                let websocket = route.value.websocket.value().and_then(|websocket| websocket.upstream.value());
                proxy.into_iter().chain(websocket).map(String::as_str)
            })
            .collect();
        for (spot, upstream) in upstreams.iter().filter(|(_, upstream)| !used.contains(&&*upstream.name)) {
            let text = format!("{} is used by no route; remove it", quote(&upstream.name));
            self.warnings.add(spot, text);
        }
    }

    fn matcher(&mut self, shape: &MatchShape) -> Option<Match> {
        let before = self.problems.found.len();
        let host = shape.host.given().and_then(|given| {
            HostPattern::parse(&given.value).map_err(|error| self.problems.add(&given.spot, error.to_string())).ok()
        });
        let path = match shape.path.given() {
            Some(given) => {
                PathPattern::parse(&given.value).map_err(|error| self.problems.add(&given.spot, error.to_string())).ok()
            }
            None if shape.path.is_absent() => PathPattern::parse(defaults::MATCH_PATH).ok(),
            None => None,
        };
        let methods = self.methods(shape);
        let headers = self.headers(shape);
        let path = path?;
        (self.problems.found.len() == before).then_some(Match { host, path, methods, headers })
    }

    fn methods(&mut self, shape: &MatchShape) -> Vec<Method> {
        const KNOWN: [Method; 7] =
            [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::DELETE, Method::PATCH, Method::OPTIONS];
        let Some(given) = shape.methods.given() else { return Vec::new() };
        let mut methods = Vec::new();
        for one in &given.value {
            let upper = one.value.to_ascii_uppercase();
            match Method::from_bytes(one.value.as_bytes()) {
                Ok(_) if one.value != upper && KNOWN.iter().any(|known| known.as_str() == upper) => {
                    let text = format!("{} is no method, since they are upper case; write {upper}", quote(&one.value));
                    self.problems.add(&one.spot, text);
                }
                Ok(method) => methods.push(method),
                Err(_) => {
                    self.problems.add(&one.spot, format!("{} is no method; write such as GET", quote(&one.value)));
                }
            }
        }
        if methods.len() == given.value.len() {
            self.check_list(&given.spot, &methods);
        }
        methods
    }

    fn headers(&mut self, shape: &MatchShape) -> Vec<(HeaderName, HeaderValue)> {
        let mut headers = Vec::new();
        for (name, given) in shape.headers.value().map(|named| named.0.as_slice()).unwrap_or_default() {
            let name = self.field_name(name, &given.spot);
            match given.value.parse() {
                Ok(value) => headers.extend(name.map(|name| (name, value))),
                Err(_) => {
                    let text = format!("{} is no field value; write printable characters", quote(&given.value));
                    self.problems.add(&given.spot, text);
                }
            }
        }
        headers
    }

    fn action(
        &mut self,
        route: &Given<file::Route>,
        path: Option<&PathPattern>,
        upstreams: &Upstreams,
        limits: HubLimits,
    ) -> Option<Action> {
        let file::Route { push, websocket, proxy, .. } = &route.value;
        let keys = [("push", !push.is_absent()), ("websocket", !websocket.is_absent()), ("proxy", !proxy.is_absent())];
        let one = self.exactly_one(&route.spot, &keys);
        // Each is checked also where there are several, so that every problem is told at once.
        let push = push.given().and_then(|given| self.push(given, path, limits)).map(Action::Push);
        let subscriptions_max = limits.subscriptions_per_session_max;
        let name = route.value.name.value().map_or("", String::as_str);
        let websocket = websocket.given().and_then(|given| self.websocket(given, name, upstreams, subscriptions_max));
        let proxy = proxy.given().and_then(|given| {
            let upstream = self.upstream_of(&given.value.upstream, &given.spot, upstreams)?;
            let grip = self.grip_route(&given.value.grip, path, subscriptions_max);
            Some(Action::Proxy(Arc::new(ProxyRoute { upstream, grip })))
        });
        if one { push.or(websocket).or(proxy) } else { None }
    }

    fn upstream_of(&mut self, field: &Field<String>, owner: &Spot, all: &Upstreams) -> Option<Arc<UpstreamSettings>> {
        let given = self.required(field, owner, "upstream", "name one of upstreams")?;
        let found = all.iter().find(|(_, known)| *known.name == *given.value);
        if found.is_none() {
            let known: Vec<&str> = all.iter().map(|(_, known)| &*known.name).collect();
            self.undefined(given, &known, "upstreams");
        }
        found.map(|(_, upstream)| Arc::clone(upstream))
    }

    fn push(&mut self, push: &Given<Push>, path: Option<&PathPattern>, limits: HubLimits) -> Option<Arc<PushRoute>> {
        let shape = &push.value;
        let channels = self.push_channels(push, path, limits.subscriptions_per_session_max);
        let transports = self.transports(shape);
        let start = match shape.start.value() {
            Some(WordOr::Keys(last)) => {
                let spot = shape.start.given().map_or(&push.spot, |given| &given.spot);
                let _ = self.required(&last.last, spot, "last", "write how many, such as 1");
                Start::Last(self.count_usize(&last.last, START_LAST_RANGE, 1))
            }
            Some(WordOr::Word(file::Now::Now)) | None => Start::Now,
        };
        let session = PushSettings {
            transports,
            keep_alive: self.span(&shape.keep_alive, KEEP_ALIVE_RANGE, defaults::KEEP_ALIVE),
            long_poll_timeout: self.span(&shape.long_poll_timeout, LONG_POLL_RANGE, defaults::LONG_POLL_TIMEOUT),
            start,
            client_subscribe: self.patterns(&shape.client_subscribe),
            client_publish: self.patterns(&shape.client_publish),
            subscriptions_max: limits.subscriptions_per_session_max,
            messages_per_second_max: limits.client_messages_per_second_max,
        };
        Some(Arc::new(PushRoute {
            channels,
            session: Arc::new(session),
            cors: shape.cors.given().map(|cors| self.cors(cors)),
            allowed_origins: self.allowed_origins(&shape.allowed_origins),
        }))
    }

    fn grip_route(
        &mut self,
        field: &Field<WordOr<bool, file::GripRoute>>,
        path: Option<&PathPattern>,
        subscriptions_max: usize,
    ) -> Option<GripRoute> {
        let plain = GripRoute { subscriptions_max, ..GripRoute::default() };
        let given = field.given()?;
        let shape = match &given.value {
            WordOr::Word(true) => return Some(plain),
            WordOr::Word(false) => return None,
            WordOr::Keys(shape) => shape,
        };
        let prefix = shape.channel_prefix.given();
        let channel_prefix = prefix.map_or_else(Box::default, |given| {
            if let Err(error) = ChannelName::new(&given.value) {
                self.problems.add(&given.spot, error.to_string());
            }
            given.value.as_str().into()
        });
        let channels = self.templates(&shape.channels, path);
        if let Some(given) = shape.channels.given().filter(|_| channels.len() > subscriptions_max) {
            let text = format!("{} channels are over limits.subscriptions_per_session", channels.len());
            self.problems.add(&given.spot, format!("{text} ({subscriptions_max}); list fewer or raise it"));
        }
        Some(GripRoute { channel_prefix, channels, subscriptions_max })
    }

    /// Channel names with parameters that the path must have.
    fn templates(&mut self, field: &Field<Vec<Given<String>>>, path: Option<&PathPattern>) -> Vec<Template> {
        let mut templates = Vec::new();
        for channel in field.value().into_iter().flatten() {
            match Template::parse(&channel.value) {
                Ok(template) => {
                    self.check_parameters(channel, &template, path);
                    templates.push(template);
                }
                Err(error) => self.problems.add(&channel.spot, error.to_string()),
            }
        }
        templates
    }

    fn check_parameters(&mut self, channel: &Given<String>, template: &Template, path: Option<&PathPattern>) {
        for name in template.parameters() {
            let Some(path) = path.filter(|path| !path.parameters().any(|known| known == name)) else { continue };
            let known: Vec<_> = path.parameters().collect();
            let advice = crate::config::problem::advice(name, &known, "its parameters are");
            let advice = if known.is_empty() { format!("; add {{{name}}} to it") } else { advice };
            let text = format!("{{{name}}} is no parameter of the path {}{advice}", quote(path.as_str()));
            self.problems.add(&channel.spot, text);
        }
    }

    fn push_channels(
        &mut self,
        push: &Given<Push>,
        path: Option<&PathPattern>,
        subscriptions_max: usize,
    ) -> Vec<Template> {
        let remedy = "list at least one, such as \"prices.{symbol}\"";
        let Some(given) = self.required(&push.value.channels, &push.spot, "channels", remedy) else {
            return Vec::new();
        };
        if given.value.is_empty() {
            self.problems.add(&given.spot, format!("empty; {remedy}"));
        }
        if given.value.len() > subscriptions_max {
            let text = format!("{} channels are over limits.subscriptions_per_session", given.value.len());
            self.problems.add(&given.spot, format!("{text} ({subscriptions_max}); list fewer or raise it"));
        }
        let templates = self.templates(&push.value.channels, path);
        if templates.len() == given.value.len() && !templates.is_empty() {
            self.check_list(&given.spot, &templates);
        }
        for name in path.iter().flat_map(|path| path.parameters()).filter(|name| !name.starts_with('_')) {
            if !templates.iter().any(|template| template.parameters().any(|used| used == name)) {
                let text = format!("the path's {{{name}}} is used by no channel; name it {{_{name}}} if that is meant");
                self.warnings.add(&given.spot, text);
            }
        }
        templates
    }

    fn transports(&mut self, shape: &Push) -> Vec<Transport> {
        let Some(given) = shape.transports.given() else { return defaults::TRANSPORTS.to_vec() };
        let transports: Vec<_> = given
            .value
            .iter()
            .map(|transport| match transport.value {
                file::Transport::Sse => Transport::Sse,
                file::Transport::WebSocket => Transport::WebSocket,
                file::Transport::LongPoll => Transport::LongPoll,
            })
            .collect();
        self.check_list(&given.spot, &transports);
        transports
    }

    fn patterns(&mut self, field: &Field<Vec<Given<String>>>) -> Vec<ChannelPattern> {
        field.value().into_iter().flatten().filter_map(|given| self.pattern(given)).collect()
    }

    fn cors(&mut self, cors: &Given<file::Cors>) -> Cors {
        let remedy = "list origins such as https://shop.example, or \"*\"";
        let mut origins = Vec::new();
        if let Some(given) = self.required(&cors.value.origins, &cors.spot, "origins", remedy) {
            if given.value.is_empty() {
                self.problems.add(&given.spot, format!("empty; {remedy}"));
            }
            origins = self.origins(&given.value);
        }
        let credentials = cors.value.credentials.given();
        if let Some(given) = credentials.filter(|given| given.value)
            && origins.iter().any(|origin| &**origin == "*")
        {
            let text = "true can't go with the origin \"*\" (WHATWG Fetch §3.3.5); list the origins";
            self.problems.add(&given.spot, text);
        }
        let credentials = match credentials.map(|given| given.value) {
            Some(true) => Credentials::Allowed,
            Some(false) | None => Credentials::Omitted,
        };
        Cors { origins, credentials }
    }

    fn allowed_origins(&mut self, field: &Field<Vec<Given<String>>>) -> AllowedOrigins {
        match field.given() {
            Some(given) => {
                if given.value.is_empty() {
                    self.problems.add(&given.spot, "empty; list origins, or remove the key for the own origin");
                }
                AllowedOrigins::List(self.origins(&given.value))
            }
            None => AllowedOrigins::Same,
        }
    }

    fn origins(&mut self, list: &[Given<String>]) -> Vec<Box<str>> {
        let mut origins = Vec::new();
        for given in list {
            if given.value == "*" || is_origin(&given.value) {
                origins.push(given.value.as_str().into());
            } else {
                let text = "is no origin; write scheme and host in lower case, without a path: https://shop.example";
                self.problems.add(&given.spot, format!("{} {text}", quote(&given.value)));
            }
        }
        origins
    }

    fn websocket(
        &mut self,
        websocket: &Given<WebSocket>,
        name: &str,
        upstreams: &Upstreams,
        subscriptions_max: usize,
    ) -> Option<Action> {
        let shape = &websocket.value;
        let upstream = self.upstream_of(&shape.upstream, &websocket.spot, upstreams);
        let max_message = self.size(&shape.max_message, MESSAGE_BYTES_RANGE, defaults::WEBSOCKET_MESSAGE_BYTES_MAX);
        let protocol = self.bridge_protocol(websocket, name);
        let route = WebSocketRoute {
            protocol: protocol?,
            allowed_origins: self.allowed_origins(&shape.allowed_origins),
            keep_alive: self.span(&shape.keep_alive, KEEP_ALIVE_RANGE, defaults::KEEP_ALIVE),
            message_bytes_max: max_message,
            pings: match shape.pings.value() {
                Some(file::Pings::Answer) => Pings::Answered,
                Some(file::Pings::Pass) => Pings::PassedThrough,
                None => defaults::PINGS,
            },
            subscriptions_max,
            upstream: upstream?,
        };
        Some(Action::WebSocket(Arc::new(route)))
    }
}

/// Whether a text is an origin as browsers send it (RFC 6454 §6.2): lower case, no path, no default port.
fn is_origin(text: &str) -> bool {
    let Some((scheme, host)) = text.split_once("://") else { return false };
    let default_port = match scheme {
        "https" => ":443",
        "http" => ":80",
        _ => ":",
    };
    let plain =
        |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, b'.' | b'-' | b'_' | b':' | b'[' | b']');
    !scheme.is_empty()
        && scheme.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'+' | b'-' | b'.'))
        && !host.is_empty()
        && host.bytes().all(plain)
        && !host.ends_with(default_port)
        && host.parse::<http::uri::Authority>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_as_browsers_send_them() {
        for origin in ["https://shop.example", "http://localhost:3000", "http://[::1]:8080", "chrome-extension://abc"] {
            assert!(is_origin(origin), "{origin}");
        }
        for text in [
            "shop.example",
            "https://",
            "https://Shop.example",
            "https://a/",
            "https://a:443",
            "http://a:80",
            "https://*.a",
            "null",
            "https://a:b:c",
        ] {
            assert!(!is_origin(text), "{text}");
        }
    }
}
