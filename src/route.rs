//! Which route a request takes.
//!
//! Routes stand in an order and the first that matches wins. This floor does not know what a route does (`A`), and
//! neither tokio nor hyper: a host, a path, a method and fields go in, a route and its path parameters come out.

pub mod host;
pub mod path;
pub mod template;

use crate::model::name_map::NameMap;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use std::borrow::Cow;
use std::sync::Arc;

pub use host::HostPattern;
pub use path::{Params, PathPattern};
pub use template::Template;

/// Routes in their order: the first match wins.
#[derive(Debug, Clone)]
pub struct RouteTable<A> {
    routes: Vec<Arc<Route<A>>>,
    /// Routes that may match a path, by its decoded first segment: those that name it, and those that take any.
    by_first: NameMap<Box<[u8]>, Vec<usize>>,
    /// Routes that take any first segment.
    any_first: Vec<usize>,
}

/// A named way to answer some requests.
#[derive(Debug)]
pub struct Route<A> {
    /// Its name in logs and metrics.
    pub name: Arc<str>,
    /// Which requests it answers.
    pub matcher: Match,
    /// What it does.
    pub action: A,
}

/// Which requests a route answers: those that fulfil every part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Match {
    /// The request's host; `None` is any.
    pub host: Option<HostPattern>,
    /// The request's path.
    pub path: PathPattern,
    /// The request's method; empty is any.
    pub methods: Vec<Method>,
    /// Fields that the request must have, each with this exact value in one of its lines.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

/// Why a request takes no route.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Miss {
    /// No route has this host, path and fields: 404.
    #[error("no route matches this host and path")]
    NoRoute,
    /// There are routes, but for other methods: 405 with these in `Allow` (RFC 9110 §15.5.6).
    #[error("no route matches this method")]
    Method {
        /// The methods of the routes that matched in all else, each once.
        allow: Vec<Method>,
    },
    /// The path has a `.` or `..` segment, plain or encoded, by which a backend could be led to a path that another
    /// route guards: 400. Clients remove them before they send (RFC 3986 §5.2.4).
    #[error("the path has a \".\" or \"..\" segment; send it without")]
    DotSegment,
}

impl<A> RouteTable<A> {
    /// A table of routes in this order.
    pub fn new(routes: Vec<Route<A>>) -> Self {
        let routes: Vec<_> = routes.into_iter().map(Arc::new).collect();
        let mut by_first: NameMap<Box<[u8]>, Vec<usize>> = NameMap::default();
        let mut any_first = Vec::new();
        for literal in routes.iter().filter_map(|route| route.matcher.path.first_literal()) {
            by_first.entry(literal.into()).or_default();
        }
        for (at, route) in routes.iter().enumerate() {
            match route.matcher.path.first_literal() {
                Some(literal) => by_first.entry(literal.into()).or_default().push(at),
                None => {
                    any_first.push(at);
                    by_first.values_mut().for_each(|candidates| candidates.push(at));
                }
            }
        }
        Self { routes, by_first, any_first }
    }

    /// Finds the first route for a request; allocates only for path parameters.
    ///
    /// `host` is the authority as it came (`Host` or `:authority`), with or without a port; `path` is the path without
    /// its query, still encoded.
    ///
    /// # Errors
    /// When no route matches, or the path has dot segments.
    pub fn find<'t, 'p>(
        &'t self,
        host: &str,
        path: &'p str,
        method: &Method,
        headers: &HeaderMap,
    ) -> Result<(&'t Arc<Route<A>>, Params<'t, 'p>), Miss> {
        if path::has_dot_segment(path) {
            return Err(Miss::DotSegment);
        }
        let host = host::without_port(host);
        let mut allow: Vec<Method> = Vec::new();
        for &at in self.candidates(path) {
            let route = &self.routes[at];
            let Some(params) = route.matcher.fits(host, path, headers) else { continue };
            if route.matcher.methods.is_empty() || route.matcher.methods.contains(method) {
                return Ok((route, params));
            }
            for other in &route.matcher.methods {
                if !allow.contains(other) {
                    allow.push(other.clone());
                }
            }
        }
        Err(if allow.is_empty() { Miss::NoRoute } else { Miss::Method { allow } })
    }

    /// The routes in their order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Arc<Route<A>>> {
        self.routes.iter()
    }

    /// Indices of the routes that may match, in order.
    fn candidates(&self, path: &str) -> &[usize] {
        let first = path.strip_prefix('/').unwrap_or(path);
        let first = first.split_once('/').map_or(first, |(first, _)| first);
        let decoded: Cow<'_, [u8]> = percent_encoding::percent_decode_str(first).into();
        self.by_first.get(&*decoded).unwrap_or(&self.any_first)
    }
}

impl Match {
    /// Whether all but the method fits; `host` without its port.
    fn fits<'t, 'p>(&'t self, host: &str, path: &'p str, headers: &HeaderMap) -> Option<Params<'t, 'p>> {
        // The path comes last, since its parameters are collected.
        let host_fits = self.host.as_ref().is_none_or(|pattern| pattern.matches(host));
        let headers_fit =
            || self.headers.iter().all(|(name, value)| headers.get_all(name).iter().any(|given| given == value));
        if host_fits && headers_fit() { self.path.matches(path) } else { None }
    }

    /// Whether every request that fulfils `other` surely fulfils this too.
    pub fn covers(&self, other: &Match) -> bool {
        let host = match (&self.host, &other.host) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(mine), Some(theirs)) => mine.covers(theirs),
        };
        let methods = self.methods.is_empty()
            || (!other.methods.is_empty() && other.methods.iter().all(|method| self.methods.contains(method)));
        host && methods
            && self.path.covers(&other.path)
            && self.headers.iter().all(|header| other.headers.contains(header))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn path(text: &str) -> PathPattern {
        PathPattern::parse(text).expect("a path")
    }

    fn route(name: &str, matcher: Match) -> Route<()> {
        Route { name: name.into(), matcher, action: () }
    }

    fn on(text: &str) -> Match {
        Match { host: None, path: path(text), methods: Vec::new(), headers: Vec::new() }
    }

    fn table() -> RouteTable<()> {
        let host = |text: &str| Some(HostPattern::parse(text).expect("a host"));
        RouteTable::new(vec![
            route("admin", Match { host: host("admin.example.com"), ..on("/**") }),
            route("tenant", Match { host: host("*.example.org"), ..on("/t/{x}") }),
            route(
                "canary",
                Match {
                    headers: vec![(HeaderName::from_static("x-canary"), HeaderValue::from_static("1"))],
                    ..on("/prices/{symbol}")
                },
            ),
            route("prices", Match { methods: vec![Method::GET], ..on("/prices/{symbol}") }),
            route("order", Match { methods: vec![Method::POST, Method::PUT], ..on("/{kind}/new") }),
            route("café", on("/café")),
            route("docs", on("/docs/**")),
        ])
    }

    #[track_caller]
    fn check(method: &Method, host: &str, path: &str, headers: &HeaderMap, expected: Result<&str, Miss>) {
        let table = table();
        let found = table.find(host, path, method, headers).map(|(route, _)| &*route.name);
        assert_eq!(found, expected, "{method} {host} {path}");
    }

    #[test]
    fn first_match_wins() {
        let none = HeaderMap::new();
        let get = |host, path, expected| check(&Method::GET, host, path, &none, expected);
        get("x", "/prices/ACME", Ok("prices"));
        get("Admin.Example.COM:8443", "/prices/ACME", Ok("admin"));
        get("a.example.org", "/t/1", Ok("tenant"));
        get("a.b.example.org", "/t/1", Err(Miss::NoRoute));
        get("x", "/caf%C3%A9", Ok("café"));
        get("x", "/docs", Ok("docs"));
        get("x", "/docs/a/b", Ok("docs"));
        get("x", "/doc", Err(Miss::NoRoute));
        get("x", "*", Err(Miss::NoRoute));
        get("x", "", Err(Miss::NoRoute));
        get("x", "/d%6fcs/a", Ok("docs"));
    }

    #[test]
    fn a_route_for_other_methods_leaves_the_rest_a_chance() {
        let none = HeaderMap::new();
        check(&Method::POST, "x", "/prices/new", &none, Ok("order"));
        check(&Method::GET, "x", "/prices/new", &none, Ok("prices"));
        check(
            &Method::DELETE,
            "x",
            "/prices/new",
            &none,
            Err(Miss::Method { allow: vec![Method::GET, Method::POST, Method::PUT] }),
        );
        check(&Method::GET, "x", "/other/new", &none, Err(Miss::Method { allow: vec![Method::POST, Method::PUT] }));
    }

    #[test]
    fn headers_are_compared_exactly_and_in_any_line() {
        let mut headers = HeaderMap::new();
        headers.append("x-canary", HeaderValue::from_static("0"));
        check(&Method::GET, "x", "/prices/A", &headers, Ok("prices"));
        headers.append("x-canary", HeaderValue::from_static("1"));
        check(&Method::GET, "x", "/prices/A", &headers, Ok("canary"));
    }

    #[test]
    fn dot_segments_are_refused() {
        for path in ["/docs/../prices/A", "/.", "/docs/%2e%2E/x", "/docs/.%2e", "/%2E/x"] {
            check(&Method::GET, "x", path, &HeaderMap::new(), Err(Miss::DotSegment));
        }
        check(&Method::GET, "x", "/docs/.well-known", &HeaderMap::new(), Ok("docs"));
        check(&Method::GET, "x", "/docs/...", &HeaderMap::new(), Ok("docs"));
        check(&Method::GET, "x", "/docs/a%2F..%2Fb", &HeaderMap::new(), Ok("docs"));
    }

    #[test]
    fn covering_is_seen() {
        let host = |text: &str| Some(HostPattern::parse(text).expect("a host"));
        let get = |m: Match| Match { methods: vec![Method::GET], ..m };
        assert!(on("/**").covers(&on("/a/{b}")));
        assert!(!on("/a/{b}").covers(&on("/**")));
        assert!(on("/a").covers(&get(on("/a"))));
        assert!(!get(on("/a")).covers(&on("/a")));
        assert!(on("/a").covers(&Match { host: host("x.y"), ..on("/a") }));
        assert!(!Match { host: host("x.y"), ..on("/a") }.covers(&on("/a")));
        assert!(Match { host: host("*.y"), ..on("/a") }.covers(&Match { host: host("x.y"), ..on("/a") }));
    }

    fn pattern() -> impl Strategy<Value = String> {
        let segment = prop_oneof!["[ab]", Just("{p}".to_owned()), Just("a%20b".to_owned())];
        (proptest::collection::vec(segment, 1..4), any::<bool>()).prop_map(|(segments, rest)| {
            let mut text = String::new();
            for (at, segment) in segments.iter().enumerate() {
                text.push('/');
                text.push_str(&segment.replace("{p}", &format!("{{p{at}}}")));
            }
            if rest { text + "/**" } else { text }
        })
    }

    proptest! {
        #[test]
        fn the_index_finds_what_a_walk_over_all_routes_finds(
            patterns in proptest::collection::vec(pattern(), 0..8),
            request in "(/(a|b|a%20b|%61|)){0,4}",
        ) {
            let table = RouteTable::new(patterns.iter().map(|text| route(text, on(text))).collect());
            let walked = table.iter().find(|route| route.matcher.path.matches(&request).is_some());
            let found = table.find("x", &request, &Method::GET, &HeaderMap::new()).ok().map(|(route, _)| route);
            prop_assert_eq!(found.map(|route| &route.name), walked.map(|route| &route.name));
        }

        #[test]
        fn what_covers_matches_all_that_is_covered(one in pattern(), other in pattern(), request in "(/(a|b|a%20b|c|)){0,4}") {
            let (one, other) = (path(&one), path(&other));
            if one.covers(&other) && other.matches(&request).is_some() {
                prop_assert!(one.matches(&request).is_some());
            }
        }

        #[test]
        fn any_request_is_answered(host in ".{0,20}", path in ".{0,40}") {
            let _ = table().find(&host, &path, &Method::GET, &HeaderMap::new());
        }
    }
}
