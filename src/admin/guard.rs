//! Who may change something: programs and people with a shell, but no web page.
//!
//! A page in a browser on this machine can send a POST to a loopback address without asking (a "simple" request). Then
//! the browser adds `Origin`. A page that made its own name resolve to this address (DNS rebinding) looks like the same
//! origin to the browser, but its `Host` is that name.

use crate::proto::problem::Problem;
use http::StatusCode;
use http::header::{HOST, HeaderValue, ORIGIN};
use http::request::Parts;
use std::net::{Ipv4Addr, Ipv6Addr};

/// Refuses what may come from a web page.
///
/// # Errors
/// With the answer.
pub(super) fn check(head: &Parts) -> Result<(), Problem> {
    if head.headers.contains_key(ORIGIN) {
        return Err(Problem::new(StatusCode::FORBIDDEN, "web pages may not change anything here: Origin is there"));
    }
    let host = head.uri.authority().map(|authority| authority.as_str());
    let host =
        host.or_else(|| head.headers.get(HOST).map(HeaderValue::to_str).and_then(Result::ok)).unwrap_or_default();
    match is_plain(host) {
        true => Ok(()),
        false => {
            let detail = "Host has to be an IP address or localhost, so that no web page can change anything here";
            Err(Problem::new(StatusCode::FORBIDDEN, detail))
        }
    }
}

/// Whether a host (with or without a port) is an IP address or `localhost`.
fn is_plain(host: &str) -> bool {
    if let Some(rest) = host.strip_prefix('[') {
        return rest.split_once(']').is_some_and(|(address, _)| address.parse::<Ipv6Addr>().is_ok());
    }
    let name = host.split(':').next().unwrap_or_default();
    name.eq_ignore_ascii_case("localhost") || name.parse::<Ipv4Addr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn is_refused(fields: &[(&str, &str)], refused: bool) {
        let mut request = http::Request::post("/drain");
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let (head, ()) = request.body(()).expect("a request").into_parts();
        assert_eq!(check(&head).is_err(), refused, "{fields:?}");
    }

    #[test]
    fn web_pages_are_refused() {
        is_refused(&[("host", "127.0.0.1:9901")], false);
        is_refused(&[("host", "[::1]:9901")], false);
        is_refused(&[("host", "LOCALHOST")], false);
        is_refused(&[("host", "evil.example:9901")], true);
        is_refused(&[("host", "127.0.0.1.evil.example")], true);
        is_refused(&[("host", "[evil]")], true);
        is_refused(&[], true);
        is_refused(&[("host", "127.0.0.1"), ("origin", "http://127.0.0.1")], true);
        is_refused(&[("host", "127.0.0.1"), ("origin", "null")], true);
    }
}
