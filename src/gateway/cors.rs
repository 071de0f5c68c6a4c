//! Which pages may read a push route (WHATWG Fetch §3.3) or open its WebSocket (RFC 6455 §10.2).

use crate::gateway::settings::{AllowedOrigins, Cors, Credentials};
use crate::server::Response;
use crate::server::body::Body;
use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ALLOW, HOST, ORIGIN, VARY,
};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, StatusCode};

/// The methods of a push route.
pub const METHODS: &str = "GET, HEAD, OPTIONS";

/// Adds the fields by which a page of `origin` may read the answer, if it may.
pub fn allow(fields: &mut HeaderMap, cors: Option<&Cors>, origin: &HeaderValue) {
    let Some(cors) = cors else { return };
    fields.append(VARY, HeaderValue::from_static("origin"));
    let listed = cors.origins.iter().any(|known| known.as_bytes() == origin.as_bytes());
    let any = cors.origins.iter().any(|known| &**known == "*");
    if !listed && !any {
        return;
    }
    // `*` does not go with credentials (Fetch §3.3.5): the origin itself is named then.
    let value = match (&cors.credentials, listed) {
        (Credentials::Omitted, false) => HeaderValue::from_static("*"),
        _ => origin.clone(),
    };
    fields.insert(ACCESS_CONTROL_ALLOW_ORIGIN, value);
    if cors.credentials == Credentials::Allowed {
        fields.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
    }
    let exposed = HeaderValue::from_static("etag, pushbridge-resumed, pushbridge-session");
    fields.insert(ACCESS_CONTROL_EXPOSE_HEADERS, exposed);
}

/// The answer to `OPTIONS`: also a preflight's. [`allow`] adds the rest.
pub fn options() -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let fields = response.headers_mut();
    fields.insert(ALLOW, HeaderValue::from_static(METHODS));
    fields.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(METHODS));
    let allowed =
        HeaderValue::from_static("accept, authorization, last-event-id, if-none-match, prefer, cache-control");
    fields.insert(ACCESS_CONTROL_ALLOW_HEADERS, allowed);
    fields.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("7200"));
    response
}

/// Whether the page that opens a WebSocket may. Without `Origin` it is no page.
pub fn may_open(parts: &Parts, allowed: &AllowedOrigins) -> bool {
    let mut origins = parts.headers.get_all(ORIGIN).iter();
    let Some(origin) = origins.next() else { return true };
    if origins.next().is_some() {
        return false;
    }
    match allowed {
        AllowedOrigins::List(list) => list.iter().any(|known| &**known == "*" || known.as_bytes() == origin.as_bytes()),
        AllowedOrigins::Same => {
            let host = parts.uri.authority().map(|authority| authority.as_str().as_bytes());
            let host = host.or_else(|| parts.headers.get(HOST).map(HeaderValue::as_bytes)).unwrap_or_default();
            origin.to_str().ok().and_then(|origin| origin.split_once("://")).is_some_and(|(scheme, of_origin)| {
                without_default_port(host, scheme).eq_ignore_ascii_case(of_origin.as_bytes())
            })
        }
    }
}

/// A `Host` as an origin of this scheme would have it: browsers leave the scheme's own port out (RFC 6454 §6.2). Which
/// scheme the page's request had is not known here, where TLS may have ended before.
fn without_default_port<'a>(host: &'a [u8], scheme: &str) -> &'a [u8] {
    let port: &[u8] = match scheme {
        "https" => b":443",
        "http" => b":80",
        _ => return host,
    };
    host.strip_suffix(port).unwrap_or(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cors(origins: &[&str], credentials: Credentials) -> Cors {
        Cors { origins: origins.iter().map(|origin| (*origin).into()).collect(), credentials }
    }

    #[track_caller]
    fn check(cors: &Cors, origin: &'static str, expected: Option<&str>) {
        let mut fields = HeaderMap::new();
        allow(&mut fields, Some(cors), &HeaderValue::from_static(origin));
        let allowed = fields.get(ACCESS_CONTROL_ALLOW_ORIGIN).and_then(|value| value.to_str().ok());
        assert_eq!(allowed, expected);
    }

    #[test]
    fn listed_origins_may_read() {
        let shop = cors(&["https://shop.example"], Credentials::Allowed);
        check(&shop, "https://shop.example", Some("https://shop.example"));
        check(&shop, "https://evil.example", None);
        check(&cors(&["*"], Credentials::Omitted), "https://any.example", Some("*"));
        check(&cors(&["*"], Credentials::Allowed), "https://any.example", Some("https://any.example"));
    }

    #[track_caller]
    fn check_open(origin: Option<&str>, host: &str, allowed: &AllowedOrigins, expected: bool) {
        let mut request = http::Request::get("/x").header("host", host);
        if let Some(origin) = origin {
            request = request.header("origin", origin);
        }
        let (parts, ()) = request.body(()).expect("a request").into_parts();
        assert_eq!(may_open(&parts, allowed), expected, "{origin:?} {host}");
    }

    #[test]
    fn pages_open_websockets_of_their_own_host() {
        check_open(None, "a.example", &AllowedOrigins::Same, true);
        check_open(Some("https://a.example:8443"), "a.example:8443", &AllowedOrigins::Same, true);
        check_open(Some("https://A.example"), "a.example", &AllowedOrigins::Same, true);
        check_open(Some("https://a.example"), "a.example:443", &AllowedOrigins::Same, true);
        check_open(Some("http://a.example"), "a.example:443", &AllowedOrigins::Same, false);
        check_open(Some("https://[::1]"), "[::1]:443", &AllowedOrigins::Same, true);
        check_open(Some("https://b.example"), "a.example", &AllowedOrigins::Same, false);
        check_open(Some("null"), "a.example", &AllowedOrigins::Same, false);
        let list = AllowedOrigins::List(vec!["https://shop.example".into()]);
        check_open(Some("https://shop.example"), "a.example", &list, true);
        check_open(Some("https://a.example"), "a.example", &list, false);
        check_open(Some("https://a.example"), "a.example", &AllowedOrigins::List(vec!["*".into()]), true);
    }
}
