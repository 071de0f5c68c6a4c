//! What a proxy takes out of a head and adds to it: hop-by-hop fields, `Forwarded`, `X-Forwarded-*`, `Via`, `Host`.

use crate::proto::decimal::push_ip;
use http::header::{CONNECTION, COOKIE, EXPECT, Entry, FORWARDED, HOST, TE, VIA};
use http::{HeaderMap, HeaderName, HeaderValue, Uri, Version, request, response};
use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};

/// The name in `Via` (RFC 9110 §7.6.3), behind the version that a message was received in.
const VIA_10: HeaderValue = HeaderValue::from_static("1.0 pushbridge");
const VIA_11: HeaderValue = HeaderValue::from_static("1.1 pushbridge");
const VIA_20: HeaderValue = HeaderValue::from_static("2.0 pushbridge");
const VIA_30: HeaderValue = HeaderValue::from_static("3.0 pushbridge");

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");

/// Whether a field is meant for the next hop alone (RFC 9110 §7.6.1, and those that older peers use so).
fn is_hop_by_hop(name: &HeaderName) -> bool {
    let name = name.as_str();
    // By length first: each name of each head is asked.
    match name.len() {
        2 => name == "te",
        7 => name == "upgrade",
        10 => name == "connection" || name == "keep-alive",
        14 => name == "http2-settings",
        16 => name == "proxy-connection",
        17 => name == "transfer-encoding",
        18 => name == "proxy-authenticate",
        19 => name == "proxy-authorization",
        25 => name == "proxy-authentication-info",
        _ => false,
    }
}

/// Where a request came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hop {
    /// The other end of the connection.
    pub client: IpAddr,
    /// What the connection carries.
    pub scheme: HopScheme,
    /// What becomes of the forwarding fields that came.
    pub before: Before,
}

/// What a connection carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HopScheme {
    /// Cleartext.
    Http,
    /// TLS.
    Https,
}

impl HopScheme {
    fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    fn port(self) -> &'static str {
        match self {
            Self::Http => "80",
            Self::Https => "443",
        }
    }
}

/// What becomes of the forwarding fields that came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Before {
    /// They are dropped: anybody may have written them.
    Dropped,
    /// They are kept and extended: a trusted proxy wrote them.
    Kept,
}

/// Makes a client's request head the head for an upstream.
///
/// The target keeps its path and query; its authority (h2's `:authority`, an absolute target's) becomes `Host`. `Expect`
/// goes: this proxy answers it itself by reading the body. Cookies that came in crumbs are joined (RFC 9113 §8.2.3).
/// `X-Forwarded-Port` is the port that the client named in `Host`, else its scheme's.
pub fn request_head(parts: &mut request::Parts, hop: &Hop) {
    if let Some(host) = parts.uri.authority().and_then(|authority| HeaderValue::from_str(authority.as_str()).ok()) {
        parts.headers.insert(HOST, host);
    }
    if let Some(path) = parts.uri.path_and_query().cloned().filter(|_| parts.uri.authority().is_some()) {
        parts.uri = Uri::from(path);
    }
    // Room for what is added, at once.
    parts.headers.reserve(ADDED_MAX);
    let named = Named::of(&parts.headers);
    let trailers = named.te && accepts_trailers(&parts.headers);
    strip_hop_by_hop(&mut parts.headers);
    if named.expect {
        parts.headers.remove(EXPECT);
    }
    if trailers {
        parts.headers.insert(TE, HeaderValue::from_static("trailers"));
        parts.headers.insert(CONNECTION, HeaderValue::from_static("te"));
    }
    if named.cookie {
        join(&mut parts.headers, &COOKIE, "; ");
    }
    drop_forwarding(&mut parts.headers, hop.before);
    add_forwarding(&mut parts.headers, hop);
    add_via(&mut parts.headers, parts.version);
}

/// The fields that are added to a request here, and its id.
const ADDED_MAX: usize = 8;

/// Which of some rare fields a head has: one look at each name costs less than a hash for each of them.
#[derive(Default)]
struct Named {
    te: bool,
    expect: bool,
    cookie: bool,
}

impl Named {
    fn of(headers: &HeaderMap) -> Self {
        headers.keys().fold(Self::default(), |named, name| Self {
            te: named.te || *name == TE,
            expect: named.expect || *name == EXPECT,
            cookie: named.cookie || *name == COOKIE,
        })
    }
}

/// Makes an upstream's response head the head for a client.
pub fn response_head(parts: &mut response::Parts) {
    strip_hop_by_hop(&mut parts.headers);
    add_via(&mut parts.headers, parts.version);
}

/// Removes the fields of a hop, and those that `Connection` names (RFC 9110 §7.6.1).
///
/// One look at each name that there is: to search for each name that there may be costs ten hashes a head.
pub fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let mut gone: Vec<HeaderName> = headers.keys().filter(|name| is_hop_by_hop(name)).cloned().collect();
    if gone.contains(&CONNECTION) {
        // `keep-alive` is the usual one, and is among the names already.
        let is_new = |token: &&str| !token.eq_ignore_ascii_case("keep-alive");
        gone.extend(tokens(headers, &CONNECTION).filter(is_new).filter_map(|name| name.parse::<HeaderName>().ok()));
    }
    for name in gone {
        headers.remove(name);
    }
}

/// Whether `Connection` lists this option, given in lower case (RFC 9110 §7.6.1).
pub fn connection_has(headers: &HeaderMap, option: &str) -> bool {
    tokens(headers, &CONNECTION).any(|token| token.eq_ignore_ascii_case(option))
}

fn accepts_trailers(headers: &HeaderMap) -> bool {
    tokens(headers, &TE).any(|coding| coding.eq_ignore_ascii_case("trailers"))
}

fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).filter(|token| !token.is_empty())
}

/// Drops what came, or only its look-alikes: gateway interfaces such as CGI and WSGI read `X_Forwarded_For` as the real one.
fn drop_forwarding(headers: &mut HeaderMap, before: Before) {
    let is_forwarding = |name: &str| name == "forwarded" || name == "x-real-ip" || name.starts_with("x-forwarded-");
    let goes = |name: &HeaderName| match name.as_str() {
        name if name.as_bytes().contains(&b'_') => is_forwarding(&name.replace('_', "-")),
        name => before == Before::Dropped && is_forwarding(name),
    };
    let names: Vec<HeaderName> = headers.keys().filter(|name| goes(name)).cloned().collect();
    for name in names {
        headers.remove(name);
    }
}

fn add_forwarding(headers: &mut HeaderMap, hop: &Hop) {
    let client = hop.client.to_canonical();
    let named = headers.get(HOST).filter(|host| host.to_str().is_ok()).cloned();
    let host = named.as_ref().and_then(|host| host.to_str().ok()).unwrap_or_default();
    // None is left where what came was dropped.
    if hop.before == Before::Kept && !headers.contains_key(FORWARDED) {
        // A proxy that speaks only the older fields: its chain is not lost (RFC 7239 §7.4).
        if let Some(chain) = chain_of_older(headers).and_then(|chain| HeaderValue::try_from(chain).ok()) {
            headers.insert(FORWARDED, chain);
        }
    }
    let mut address = String::with_capacity(ADDRESS_BYTES);
    push_ip(&mut address, client);
    let mut element = String::with_capacity(ELEMENT_BYTES + host.len());
    push_element(&mut element, client, &address, host, hop.scheme.as_str());
    append_text(headers, &FORWARDED, element);
    append_text(headers, &X_FORWARDED_FOR, address);
    set_if_missing(headers, X_FORWARDED_PROTO, || Some(HeaderValue::from_static(hop.scheme.as_str())));
    set_if_missing(headers, X_FORWARDED_PORT, || match port_of(host) {
        Some(port) => HeaderValue::from_str(port).ok(),
        None => Some(HeaderValue::from_static(hop.scheme.port())),
    });
    if !host.is_empty() {
        set_if_missing(headers, X_FORWARDED_HOST, || named.clone());
    }
}

/// Room for most addresses.
const ADDRESS_BYTES: usize = 24;
/// Room for an element of `Forwarded` beside its host.
const ELEMENT_BYTES: usize = ADDRESS_BYTES + 32;

/// One element of `Forwarded` (RFC 7239 §4); `address` is the client's as text, `proto` is a token.
fn push_element(out: &mut String, client: IpAddr, address: &str, host: &str, proto: &str) {
    out.push_str("for=");
    push_node(out, client, address);
    if !host.is_empty() {
        out.push_str(";host=");
        push_quoted(out, host);
    }
    out.push_str(";proto=");
    out.push_str(proto);
}

/// An address, and its text, as a node; IPv6 stands in brackets and quotes (RFC 7239 §6).
fn push_node(out: &mut String, client: IpAddr, address: &str) {
    let (before, after) = if client.is_ipv6() { ("\"[", "]\"") } else { ("", "") };
    for part in [before, address, after] {
        out.push_str(part);
    }
}

/// A token as it is, other text as a quoted string (RFC 9110 §5.6.4).
fn push_quoted(out: &mut String, text: &str) {
    let plain = |byte: u8| {
        byte.is_ascii_alphanumeric()
            || matches!(
                byte,
                b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
            )
    };
    if !text.is_empty() && text.bytes().all(plain) {
        return out.push_str(text);
    }
    if !text.bytes().any(|byte| matches!(byte, b'"' | b'\\')) {
        out.push('"');
        out.push_str(text);
        return out.push('"');
    }
    out.push('"');
    for piece in text.split_inclusive(['"', '\\']) {
        match piece.char_indices().next_back() {
            Some((at, last @ ('"' | '\\'))) => {
                out.push_str(&piece[..at]);
                out.push('\\');
                out.push(last);
            }
            _ => out.push_str(piece),
        }
    }
    out.push('"');
}

/// `X-Forwarded-For` as elements of `Forwarded`; the first has the host and scheme that the client used.
fn chain_of_older(headers: &HeaderMap) -> Option<String> {
    let address = |text: &str| {
        let bare = text.trim_start_matches('[').trim_end_matches(']');
        bare.parse().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|socket| socket.ip()))
    };
    let first = |name: &HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let mut chain = String::new();
    for (at, client) in tokens(headers, &X_FORWARDED_FOR).enumerate() {
        chain.push_str(if at == 0 { "for=" } else { ", for=" });
        match address(client) {
            Some(address) => push_node(&mut chain, address, &address.to_string()),
            None => chain.push_str("unknown"),
        }
        if at > 0 {
            continue;
        }
        for (parameter, name) in [("host", &X_FORWARDED_HOST), ("proto", &X_FORWARDED_PROTO)] {
            if let Some(value) = first(name) {
                let _ = write!(chain, ";{parameter}=");
                push_quoted(&mut chain, value);
            }
        }
    }
    Some(chain).filter(|chain| !chain.is_empty())
}

fn port_of(host: &str) -> Option<&str> {
    let (_, port) = host.rsplit_once(':')?;
    (!port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit())).then_some(port)
}

fn add_via(headers: &mut HeaderMap, received: Version) {
    let via = match received {
        Version::HTTP_09 | Version::HTTP_10 => VIA_10,
        Version::HTTP_2 => VIA_20,
        Version::HTTP_3 => VIA_30,
        _ => VIA_11,
    };
    append(headers, &VIA, via);
}

fn set_if_missing(headers: &mut HeaderMap, name: HeaderName, value: impl FnOnce() -> Option<HeaderValue>) {
    if let Entry::Vacant(place) = headers.entry(name)
        && let Some(value) = value()
    {
        place.insert(value);
    }
}

fn append_text(headers: &mut HeaderMap, name: &HeaderName, text: String) {
    if let Ok(value) = HeaderValue::try_from(text) {
        append(headers, name, value);
    }
}

/// Makes one line of all there are, and of `value`.
fn append(headers: &mut HeaderMap, name: &HeaderName, value: HeaderValue) {
    let more = match headers.entry(name) {
        Entry::Vacant(place) => {
            place.insert(value);
            false
        }
        Entry::Occupied(mut place) => {
            place.append(value);
            true
        }
    };
    if more {
        join(headers, name, ", ");
    }
}

/// Makes one line of several; empty ones are left out.
fn join(headers: &mut HeaderMap, name: &HeaderName, between: &str) {
    let values = headers.get_all(name);
    if values.iter().nth(1).is_none() {
        return;
    }
    let full: Vec<&[u8]> = values.iter().map(HeaderValue::as_bytes).filter(|value| !value.is_empty()).collect();
    if let Ok(joined) = HeaderValue::from_bytes(&full.join(between.as_bytes())) {
        headers.insert(name, joined);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CLIENT: Hop = Hop {
        client: IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7)),
        scheme: HopScheme::Https,
        before: Before::Dropped,
    };
    const PROXY: Hop = Hop { before: Before::Kept, scheme: HopScheme::Http, ..CLIENT };

    fn request(uri: &str, version: Version, fields: &[(&str, &str)]) -> request::Parts {
        let mut request = http::Request::builder().uri(uri).version(version);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.body(()).expect("a request").into_parts().0
    }

    /// Checks the whole head that goes to the upstream, sorted by name.
    #[track_caller]
    fn check(hop: &Hop, uri: &str, version: Version, fields: &[(&str, &str)], expected: &[(&str, &str)]) {
        let mut parts = request(uri, version, fields);
        request_head(&mut parts, hop);
        let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        let mut sent: Vec<_> = parts.headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect();
        sent.sort();
        let expected: Vec<_> = expected.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        assert_eq!(sent, expected);
        assert_eq!(parts.uri.authority(), None);
    }

    #[test]
    fn a_clients_own_claims_are_replaced() {
        check(
            &CLIENT,
            "/a?b",
            Version::HTTP_11,
            &[
                ("host", "a.example:8443"),
                ("x-forwarded-for", "10.0.0.1"),
                ("x-forwarded-user", "root"),
                ("x-real-ip", "10.0.0.1"),
                ("forwarded", "for=10.0.0.1"),
                ("expect", "100-continue"),
                ("accept", "*/*"),
            ],
            &[
                ("accept", "*/*"),
                ("forwarded", "for=192.0.2.7;host=\"a.example:8443\";proto=https"),
                ("host", "a.example:8443"),
                ("via", "1.1 pushbridge"),
                ("x-forwarded-for", "192.0.2.7"),
                ("x-forwarded-host", "a.example:8443"),
                ("x-forwarded-port", "8443"),
                ("x-forwarded-proto", "https"),
            ],
        );
    }

    #[test]
    fn a_trusted_proxys_claims_are_extended() {
        check(
            &PROXY,
            "/",
            Version::HTTP_11,
            &[
                ("host", "a.example"),
                ("x-forwarded-for", "2001:db8::1, 10.0.0.1:99"),
                ("x-forwarded-for", "nonsense"),
                ("x-forwarded-proto", "https"),
                ("x-forwarded-host", "b.example"),
                ("x_forwarded_for", "10.0.0.2"),
                ("via", "2.0 edge"),
            ],
            &[
                (
                    "forwarded",
                    "for=\"[2001:db8::1]\";host=b.example;proto=https, for=10.0.0.1, for=unknown, \
                     for=192.0.2.7;host=a.example;proto=http",
                ),
                ("host", "a.example"),
                ("via", "2.0 edge, 1.1 pushbridge"),
                ("x-forwarded-for", "2001:db8::1, 10.0.0.1:99, nonsense, 192.0.2.7"),
                ("x-forwarded-host", "b.example"),
                ("x-forwarded-port", "80"),
                ("x-forwarded-proto", "https"),
            ],
        );
    }

    #[test]
    fn h2_authority_becomes_host_and_cookie_crumbs_one_cookie() {
        check(
            &Hop { client: "::ffff:192.0.2.9".parse().expect("an address"), ..CLIENT },
            "https://a.example/x",
            Version::HTTP_2,
            &[("cookie", "a=1"), ("cookie", "b=2"), ("te", "trailers"), ("trailer", "x-sum")],
            &[
                ("connection", "te"),
                ("cookie", "a=1; b=2"),
                ("forwarded", "for=192.0.2.9;host=a.example;proto=https"),
                ("host", "a.example"),
                ("te", "trailers"),
                ("trailer", "x-sum"),
                ("via", "2.0 pushbridge"),
                ("x-forwarded-for", "192.0.2.9"),
                ("x-forwarded-host", "a.example"),
                ("x-forwarded-port", "443"),
                ("x-forwarded-proto", "https"),
            ],
        );
    }

    #[test]
    fn hop_by_hop_fields_go_in_both_directions() {
        let fields = [
            ("connection", "close, X-One"),
            ("connection", "x-two,,"),
            ("x-one", "1"),
            ("x-two", "2"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("proxy-authenticate", "Basic"),
            ("proxy-authorization", "Basic x"),
            ("te", "gzip"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("http2-settings", "x"),
            ("server", "origin"),
        ];
        let mut response = http::Response::builder();
        for (name, value) in fields {
            response = response.header(name, value);
        }
        let (mut parts, ()) = response.body(()).expect("a response").into_parts();
        assert!(connection_has(&parts.headers, "close") && !connection_has(&parts.headers, "upgrade"));
        response_head(&mut parts);
        let left: Vec<_> = parts.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
        assert_eq!(left, [("server", &b"origin"[..]), ("via", b"1.1 pushbridge")]);
    }

    proptest! {
        #[test]
        fn a_client_can_say_nothing_in_the_chain(
            came in proptest::collection::vec(("(x[-_]forwarded[-_][a-z]{1,8}|x_real-ip|forwarded|x-real-ip|connection|te|via)", "[ -~]{0,20}"), 0..8),
        ) {
            let fields: Vec<_> = came.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            let mut parts = request("https://a.example/", Version::HTTP_2, &fields);
            request_head(&mut parts, &CLIENT);
            prop_assert_eq!(&parts.headers["forwarded"], "for=192.0.2.7;host=a.example;proto=https");
            prop_assert_eq!(&parts.headers["x-forwarded-for"], "192.0.2.7");
            let forwarding = parts.headers.keys().filter(|name| name.as_str().starts_with("x") && name.as_str().contains("forwarded")).count();
            prop_assert_eq!(forwarding, 4);
            prop_assert!(!parts.headers.contains_key("x-real-ip"));
            prop_assert_eq!(parts.headers.get_all("via").iter().count(), 1);
        }

        #[test]
        fn a_quoted_text_is_read_back(text in "[ -~]{0,30}") {
            let mut quoted = String::new();
            push_quoted(&mut quoted, &text);
            let read = match quoted.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
                Some(inner) => {
                    let mut characters = inner.chars();
                    let mut read = String::new();
                    while let Some(character) = characters.next() {
                        read.push(if character == '\\' { characters.next().expect("escaped") } else { character });
                    }
                    read
                }
                None => quoted.clone(),
            };
            prop_assert_eq!(read, text);
        }
    }
}
