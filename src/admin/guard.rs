//! Which requests may change something.
//!
//! The admin listener asks for no credentials: who reaches it may. A browser on the same machine reaches it too, and
//! would do as any page says. A page can't keep `Origin` off a POST (WHATWG Fetch §3.2), and can't make its own host
//! name look like an address (DNS rebinding).

use crate::proto::problem::Problem;
use http::header::{HOST, ORIGIN};
use http::{HeaderMap, StatusCode, Uri};
use std::net::IpAddr;

/// Lets a request pass that no page of a browser can have sent.
///
/// # Errors
/// The answer to one that may come from a page.
pub(super) fn check(uri: &Uri, fields: &HeaderMap) -> Result<(), Problem> {
    let detail = if fields.contains_key(ORIGIN) {
        "requests of pages can't change anything here; send it without Origin"
    } else if !host(uri, fields).is_some_and(is_plain) {
        "Host must be an IP address or localhost here; connect to the address itself"
    } else {
        return Ok(());
    };
    Err(Problem::new(StatusCode::FORBIDDEN, detail))
}

/// The one host of a request.
fn host<'a>(uri: &'a Uri, fields: &'a HeaderMap) -> Option<&'a str> {
    if let Some(authority) = uri.authority() {
        return Some(authority.host());
    }
    let mut fields = fields.get_all(HOST).iter();
    let host = fields.next()?.to_str().ok()?;
    if fields.next().is_some() {
        return None;
    }
    let authority = host.rsplit_once(':').filter(|(_, port)| port.bytes().all(|b| b.is_ascii_digit()));
    // An IPv6 address without a port ends in a bracket, not in digits.
    Some(authority.map_or(host, |(host, _)| host))
}

/// Whether a host is an address, or a name that no one else can own.
fn is_plain(host: &str) -> bool {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    host.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::body::Body;

    #[track_caller]
    fn passes(uri: &str, fields: &[(&str, &str)], expected: bool) {
        let mut request = http::Request::post(uri).body(Body::empty()).expect("a request");
        for (name, value) in fields {
            let name: http::HeaderName = name.parse().expect("a name");
            request.headers_mut().append(name, value.parse().expect("a value"));
        }
        assert_eq!(check(request.uri(), request.headers()).is_ok(), expected, "{uri} {fields:?}");
    }

    #[test]
    fn only_what_no_page_can_send_passes() {
        passes("/reload", &[("host", "127.0.0.1:9901")], true);
        passes("/reload", &[("host", "[::1]:9901")], true);
        passes("/reload", &[("host", "[::1]")], true);
        passes("/reload", &[("host", "LOCALHOST")], true);
        passes("http://10.1.2.3:9901/reload", &[], true);
        passes("/reload", &[], false);
        passes("/reload", &[("host", "evil.example:9901")], false);
        passes("/reload", &[("host", "localhost.evil.example")], false);
        passes("/reload", &[("host", "127.0.0.1"), ("host", "evil.example")], false);
        passes("http://evil.example/reload", &[("host", "127.0.0.1")], false);
        passes("/reload", &[("host", "127.0.0.1"), ("origin", "http://127.0.0.1")], false);
        passes("/reload", &[("host", "127.0.0.1"), ("origin", "null")], false);
    }
}
