//! Request heads that are refused: shapes by which a client could make two parsers disagree, and forms no route serves.
//!
//! What can't be seen here any more, because a parsed head has lost it, is refused where the bytes are read: by
//! [`super::http1::RequestReader`] for HTTP/1.1.

use http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, HOST, TE, TRANSFER_ENCODING, UPGRADE};
use http::request::Parts;
use http::uri::Scheme;
use http::{HeaderMap, Method, StatusCode, Version};

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// CONNECT that is not RFC 8441, or TRACE.
    #[error("this method is not served here; use another one")]
    Method,
    /// RFC 9112 §6.3.
    #[error("the request has both Transfer-Encoding and Content-Length; send one of them")]
    TwoFramings,
    /// RFC 9110 §8.6.
    #[error("Content-Length must be one decimal number")]
    ContentLength,
    /// RFC 9112 §6.1.
    #[error("Transfer-Encoding must be exactly `chunked`, and only in HTTP/1.1")]
    TransferEncoding,
    /// RFC 9110 §10.1.1.
    #[error("the only expectation that can be met is `Expect: 100-continue`")]
    Expect,
    /// RFC 9112 §3.2.
    #[error("the request must name one host, as `name`, `name:port` or `[IPv6]:port`")]
    Host,
    /// RFC 9112 §3.2.2, RFC 9113 §8.3.1.
    #[error("Host and the target's authority differ; send the same in both")]
    HostMismatch,
    /// RFC 9110 §7.6.1.
    #[error("Connection may not name fields that frame or route the request")]
    Connection,
    /// RFC 9113 §8.2.2.
    #[error("fields of a connection are not allowed in HTTP/2")]
    ConnectionField,
    /// RFC 9112 §3.2.
    #[error("the target must be a path that starts with `/`")]
    Target,
    /// Control characters are never part of a target (RFC 3986 §2).
    #[error("the target holds a control character; remove it")]
    TargetCharacter,
}

impl RequestError {
    /// The status that refuses it.
    pub fn status(self) -> StatusCode {
        match self {
            Self::Method => StatusCode::NOT_IMPLEMENTED,
            Self::Expect => StatusCode::EXPECTATION_FAILED,
            _ => StatusCode::BAD_REQUEST,
        }
    }
}

/// Checks a request head of any HTTP version.
///
/// Dot segments and encoded slashes are passed as they are. A fragment can't be seen here: it is dropped when the
/// target is parsed, and so never sent on.
///
/// # Errors
/// The first thing that is wrong.
pub fn check(parts: &Parts) -> Result<(), RequestError> {
    let named = Named::of(&parts.headers);
    if named.framing {
        framing(parts)?;
    }
    method(parts)?;
    if named.expectation {
        expectation(&parts.headers)?;
    }
    if named.connection || parts.version == Version::HTTP_2 {
        connection(parts)?;
    }
    host(parts)?;
    target(parts)
}

/// Which of the fields that are checked a head has: one look at each name costs less than a hash for each of them.
#[derive(Default)]
struct Named {
    framing: bool,
    expectation: bool,
    connection: bool,
}

impl Named {
    fn of(headers: &HeaderMap) -> Self {
        headers.keys().fold(Self::default(), |named, name| Self {
            framing: named.framing || *name == TRANSFER_ENCODING || *name == CONTENT_LENGTH,
            expectation: named.expectation || *name == EXPECT,
            connection: named.connection || *name == CONNECTION,
        })
    }
}

fn framing(parts: &Parts) -> Result<(), RequestError> {
    let mut codings = parts.headers.get_all(TRANSFER_ENCODING).iter();
    let mut lengths = parts.headers.get_all(CONTENT_LENGTH).iter();
    let (coding, length) = (codings.next(), lengths.next());
    if coding.is_some() && length.is_some() {
        return Err(RequestError::TwoFramings);
    }
    if let Some(length) = length {
        let digits = length.as_bytes();
        let number = digits.iter().all(u8::is_ascii_digit).then(|| length.to_str().ok()?.parse::<u64>().ok()).flatten();
        if number.is_none() || lengths.next().is_some() {
            return Err(RequestError::ContentLength);
        }
    }
    if let Some(coding) = coding {
        let chunked = coding.as_bytes().eq_ignore_ascii_case(b"chunked") && codings.next().is_none();
        if !chunked || parts.version != Version::HTTP_11 {
            return Err(RequestError::TransferEncoding);
        }
    }
    Ok(())
}

fn method(parts: &Parts) -> Result<(), RequestError> {
    // An extended CONNECT has a scheme and a path (RFC 8441 §4), a plain one has neither (RFC 9113 §8.5).
    let extended =
        parts.version == Version::HTTP_2 && parts.uri.scheme().is_some() && parts.uri.path().starts_with('/');
    match parts.method {
        Method::TRACE => Err(RequestError::Method),
        Method::CONNECT if !extended => Err(RequestError::Method),
        _ => Ok(()),
    }
}

fn expectation(headers: &HeaderMap) -> Result<(), RequestError> {
    let mut values = headers.get_all(EXPECT).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(()),
        (Some(value), None) if value.as_bytes().eq_ignore_ascii_case(b"100-continue") => Ok(()),
        _ => Err(RequestError::Expect),
    }
}

fn connection(parts: &Parts) -> Result<(), RequestError> {
    const NEVER_NAMED: [&[u8]; 5] = [b"content-length", b"transfer-encoding", b"host", b"expect", b"content-type"];
    if parts.version == Version::HTTP_2 {
        let te = parts.headers.get_all(TE).iter().any(|value| !value.as_bytes().eq_ignore_ascii_case(b"trailers"));
        let names = [CONNECTION.as_str(), UPGRADE.as_str(), "keep-alive", "proxy-connection"];
        if te || names.iter().any(|name| parts.headers.contains_key(*name)) {
            return Err(RequestError::ConnectionField);
        }
    }
    let mut options = parts.headers.get_all(CONNECTION).iter().flat_map(|value| value.as_bytes().split(|b| *b == b','));
    let is_bad = |option: &[u8]| NEVER_NAMED.iter().any(|name| option.trim_ascii().eq_ignore_ascii_case(name));
    if options.any(is_bad) { Err(RequestError::Connection) } else { Ok(()) }
}

fn host(parts: &Parts) -> Result<(), RequestError> {
    let mut hosts = parts.headers.get_all(HOST).iter();
    let (host, second) = (hosts.next(), hosts.next());
    let authority = parts.uri.authority().map(http::uri::Authority::as_str);
    if second.is_some() {
        return Err(RequestError::Host);
    }
    let host = match host {
        Some(host) => Some(host.to_str().ok().filter(|host| is_host(host)).ok_or(RequestError::Host)?),
        None => None,
    };
    if !authority.is_none_or(is_host) {
        return Err(RequestError::Host);
    }
    match (host, authority, parts.version) {
        (Some(host), Some(authority), _) => {
            let port = if parts.uri.scheme() == Some(&Scheme::HTTPS) { ":443" } else { ":80" };
            let bare = |host: &str| host.strip_suffix(port).unwrap_or(host).to_ascii_lowercase();
            if bare(host) == bare(authority) { Ok(()) } else { Err(RequestError::HostMismatch) }
        }
        (Some(_), None, _) | (None, _, Version::HTTP_09 | Version::HTTP_10) | (None, Some(_), Version::HTTP_2) => {
            Ok(())
        }
        (None, ..) => Err(RequestError::Host),
    }
}

/// Whether it is a name or address with an optional port, and nothing that could be read in two ways.
fn is_host(host: &str) -> bool {
    let (name, port) = match host.strip_prefix('[') {
        Some(rest) => {
            let Some((address, rest)) = rest.split_once(']') else { return false };
            if address.parse::<std::net::Ipv6Addr>().is_err() || !(rest.is_empty() || rest.starts_with(':')) {
                return false;
            }
            ("", rest.strip_prefix(':'))
        }
        None => match memchr::memchr(b':', host.as_bytes()) {
            Some(0) => return false,
            Some(at) => (&host[..at], Some(&host[at + 1..])),
            None if host.is_empty() => return false,
            None => (host, None),
        },
    };
    let name = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~'));
    let digits = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok();
    name && port.is_none_or(digits)
}

fn target(parts: &Parts) -> Result<(), RequestError> {
    let target = parts.uri.path_and_query().map_or("", |target| target.as_str());
    if target == "*" && parts.method == Method::OPTIONS {
        return Ok(());
    }
    if !target.starts_with('/') {
        return Err(RequestError::Target);
    }
    let bytes = target.as_bytes();
    if bytes.iter().any(|byte| *byte <= b' ' || *byte == 0x7f) || memchr::memmem::find(bytes, b"%00").is_some() {
        return Err(RequestError::TargetCharacter);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::RequestError as E;
    use super::*;
    use proptest::prelude::*;

    /// `line` is `METHOD target version`, then come `name: value` pairs.
    #[track_caller]
    fn verdict(line: &str, fields: &[(&str, &str)]) -> Result<(), RequestError> {
        let mut words = line.split(' ');
        let mut word = || words.next().expect("three words");
        let mut request = http::Request::builder().method(word()).uri(word()).version(match word() {
            "1.0" => Version::HTTP_10,
            "1.1" => Version::HTTP_11,
            _ => Version::HTTP_2,
        });
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        super::check(&request.body(()).expect("a request").into_parts().0)
    }

    #[track_caller]
    fn check(line: &str, fields: &[(&str, &str)], expected: Result<(), RequestError>) {
        assert_eq!(verdict(line, fields), expected);
    }

    const H: (&str, &str) = ("host", "a.example");

    #[test]
    fn ordinary_requests_pass() {
        check("GET / 1.1", &[H], Ok(()));
        check("GET /a/../%2e%2e/b?c=%0a#f 1.1", &[H], Ok(()));
        check("POST / 1.1", &[H, ("content-length", "3"), ("expect", "100-Continue")], Ok(()));
        check("POST / 1.1", &[H, ("transfer-encoding", "Chunked"), ("connection", "te, close")], Ok(()));
        check("GET / 1.0", &[], Ok(()));
        check("OPTIONS * 1.1", &[H], Ok(()));
        check("GET http://A.example:80/x 1.1", &[H], Ok(()));
        check("GET https://a.example/ 2", &[("te", "trailers")], Ok(()));
        check("GET https://a.example/ 2", &[("host", "a.example:443")], Ok(()));
        check("CONNECT https://a.example/ws 2", &[], Ok(()));
        check("GET / 1.1", &[("host", "[2001:db8::1]:8080")], Ok(()));
    }

    #[test]
    fn smuggling_shapes_are_refused() {
        let chunked = ("transfer-encoding", "chunked");
        check("POST / 1.1", &[H, ("content-length", "3"), chunked], Err(E::TwoFramings));
        for length in ["+3", "-1", "3, 3", "", "0x3", "3 ", "99999999999999999999"] {
            check("POST / 1.1", &[H, ("content-length", length)], Err(E::ContentLength));
        }
        check("POST / 1.1", &[H, ("content-length", "3"), ("content-length", "3")], Err(E::ContentLength));
        for coding in ["gzip", "gzip, chunked", "chunked, chunked", "identity", "xchunked", "\tchunked", ""] {
            check("POST / 1.1", &[H, ("transfer-encoding", coding)], Err(E::TransferEncoding));
        }
        check("POST / 1.1", &[H, chunked, chunked], Err(E::TransferEncoding));
        check("POST / 1.0", &[H, chunked], Err(E::TransferEncoding));
        check("POST https://a.example/ 2", &[chunked], Err(E::TransferEncoding));
        check("POST / 1.1", &[H, ("connection", "close, Content-Length")], Err(E::Connection));
        check("POST / 1.1", &[H, ("connection", "close"), ("connection", " host")], Err(E::Connection));
        check("GET https://a.example/ 2", &[("connection", "close")], Err(E::ConnectionField));
        check("GET https://a.example/ 2", &[("te", "gzip")], Err(E::ConnectionField));
    }

    #[test]
    fn hosts_that_are_missing_double_or_odd_are_refused() {
        check("GET / 1.1", &[], Err(E::Host));
        check("GET http://a.example/ 1.1", &[], Err(E::Host));
        check("GET / 2", &[], Err(E::Host));
        check("GET / 1.1", &[H, H], Err(E::Host));
        for host in
            ["", "u@a", "a b", "a/b", "a:", "a:x", "a:99999", "[::1", "[::1]x", "[a]", "a,b", "a#", ":80", "::1"]
        {
            check("GET / 1.1", &[("host", host)], Err(E::Host));
        }
        check("GET http://u:p@a.example/ 1.1", &[H], Err(E::Host));
        check("GET http://b.example/ 1.1", &[H], Err(E::HostMismatch));
        check("GET https://b.example/ 2", &[H], Err(E::HostMismatch));
        check("GET https://a.example:80/ 2", &[H], Err(E::HostMismatch));
    }

    #[test]
    fn methods_targets_and_expectations_that_nobody_serves_are_refused() {
        check("TRACE / 1.1", &[H], Err(E::Method));
        check("CONNECT a.example:443 1.1", &[("host", "a.example:443")], Err(E::Method));
        check("CONNECT a.example:443 2", &[], Err(E::Method));
        check("GET * 1.1", &[H], Err(E::Target));
        check("GET a.example 1.1", &[H], Err(E::Target));
        check("GET /a%00b 1.1", &[H], Err(E::TargetCharacter));
        check("GET / 1.1", &[H, ("expect", "200-ok")], Err(E::Expect));
        assert_eq!(
            (E::Expect.status().as_u16(), E::Method.status().as_u16(), E::Host.status().as_u16()),
            (417, 501, 400)
        );
    }

    proptest! {
        #[test]
        fn what_passes_names_one_plain_host_and_one_framing(
            host in "[a-zA-Z0-9@:/\\[\\] .,_-]{0,12}", length in "[ +0-9,x]{0,6}", coding in "(chunked|gzip|,| ){0,3}",
            with_length: bool, with_coding: bool,
        ) {
            let mut fields = vec![("host", host.as_str())];
            if with_length { fields.push(("content-length", &length)); }
            if with_coding { fields.push(("transfer-encoding", &coding)); }
            if verdict("POST / 1.1", &fields).is_ok() {
                prop_assert!(!host.is_empty() && !host.contains(['@', '/', ' ', ',']));
                prop_assert!(!(with_length && with_coding));
                prop_assert!(!with_length || length.parse::<u64>().is_ok_and(|_| !length.starts_with('+')));
                prop_assert!(!with_coding || coding == "chunked");
            }
        }
    }
}
