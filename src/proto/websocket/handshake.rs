//! The opening handshake: checks the request, makes the answer's head (RFC 6455 §4.2; over HTTP/2: RFC 8441 §4, §5).
//!
//! Whether the page's `Origin` is welcome, and what is spoken inside, is decided elsewhere.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine;
use base64::alphabet::STANDARD as ALPHABET;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use http::header::{
    ALLOW, CONNECTION, HeaderName, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Version};

/// The only version there is.
const VERSION: HeaderValue = HeaderValue::from_static("13");
const WEBSOCKET: HeaderValue = HeaderValue::from_static("websocket");
const ACCEPT_GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// Some clients make up their keys as text, without caring for the last character's unused bits.
const KEY: GeneralPurpose =
    GeneralPurpose::new(&ALPHABET, GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true));

/// A valid opening request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handshake {
    opening: Opening,
    subprotocol: Option<&'static str>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Opening {
    /// HTTP/1.1, with the answer to the client's key.
    Upgrade(HeaderValue),
    /// HTTP/2.
    Connect,
}

/// What is wrong with an opening request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    /// RFC 6455 §4.2.1.
    #[error("a WebSocket is opened with {expected}, not with {given}")]
    Method {
        /// What the HTTP version asks for.
        expected: Method,
        /// What came.
        given: Method,
    },
    /// HTTP/1.0, or an upgrade over HTTP/2 (RFC 8441 §4 has another way).
    #[error("a WebSocket can't be opened over {0:?}; use an HTTP/1.1 upgrade or an HTTP/2 extended CONNECT")]
    HttpVersion(Version),
    /// RFC 6455 §4.2.1.
    #[error("`Upgrade: websocket` is missing")]
    Upgrade,
    /// RFC 6455 §4.2.1. A proxy between may have dropped it.
    #[error("`Connection: Upgrade` is missing; a proxy on the way has to pass `Upgrade` and `Connection` on")]
    Connection,
    /// RFC 6455 §4.2.1.
    #[error("`Sec-WebSocket-Key` has to be there once, with 16 bytes in base64")]
    Key,
    /// RFC 6455 §4.4.
    #[error("`Sec-WebSocket-Version` has to be 13")]
    SocketVersion(Over),
    /// RFC 8441 §4.
    #[error("`:protocol` {0:?} is not spoken here; the only one is \"websocket\"")]
    Protocol(String),
    /// RFC 6455 §4.1: tokens, each once.
    #[error("`Sec-WebSocket-Protocol` has to be a list of tokens, each once")]
    Subprotocols,
}

/// Which HTTP carries the WebSocket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
}

/// Whether a request means to open a WebSocket, well or badly. `protocol` is HTTP/2's `:protocol`.
pub fn is_asked_for(parts: &Parts, protocol: Option<&str>) -> bool {
    protocol.is_some() || parts.version <= Version::HTTP_11 && lists(&parts.headers, &UPGRADE, "websocket")
}

impl Handshake {
    /// Checks an opening request. `protocol` is HTTP/2's `:protocol`, which makes a CONNECT an extended one.
    ///
    /// Of the client's subprotocols, the first of `preferred` that it offers is chosen; none if it offers none of them.
    ///
    /// # Errors
    /// When the request is none of RFC 6455 §4.2.1 or RFC 8441 §4.
    pub fn check(parts: &Parts, protocol: Option<&str>, preferred: &[&'static str]) -> Result<Self, HandshakeError> {
        let opening = match protocol {
            Some(protocol) => Self::check_connect(parts, protocol)?,
            None => Self::check_upgrade(parts)?,
        };
        Ok(Self { opening, subprotocol: choose(&parts.headers, preferred)? })
    }

    fn check_upgrade(parts: &Parts) -> Result<Opening, HandshakeError> {
        if parts.version != Version::HTTP_11 {
            return Err(HandshakeError::HttpVersion(parts.version));
        }
        check_method(parts, Method::GET)?;
        let headers = &parts.headers;
        if !lists(headers, &UPGRADE, "websocket") {
            return Err(HandshakeError::Upgrade);
        }
        if !lists(headers, &CONNECTION, "upgrade") {
            return Err(HandshakeError::Connection);
        }
        check_socket_version(headers, Over::Http1)?;
        let key = only(headers, &SEC_WEBSOCKET_KEY).ok_or(HandshakeError::Key)?.as_bytes().trim_ascii();
        let mut nonce = [0; 18];
        if key.len() != 24 || KEY.decode_slice(key, &mut nonce) != Ok(16) {
            return Err(HandshakeError::Key);
        }
        Ok(Opening::Upgrade(accept(key).ok_or(HandshakeError::Key)?))
    }

    fn check_connect(parts: &Parts, protocol: &str) -> Result<Opening, HandshakeError> {
        if parts.version != Version::HTTP_2 {
            return Err(HandshakeError::HttpVersion(parts.version));
        }
        check_method(parts, Method::CONNECT)?;
        if protocol != "websocket" {
            return Err(HandshakeError::Protocol(protocol.chars().take(64).collect()));
        }
        check_socket_version(&parts.headers, Over::Http2)?;
        Ok(Opening::Connect)
    }

    /// The chosen subprotocol.
    pub fn subprotocol(&self) -> Option<&'static str> {
        self.subprotocol
    }

    /// The answer's head: 101 over HTTP/1.1 (RFC 6455 §4.2.2), 200 over HTTP/2 (RFC 8441 §5).
    pub fn head(&self) -> http::Response<()> {
        let mut head = http::Response::new(());
        let headers = head.headers_mut();
        if let Some(subprotocol) = self.subprotocol {
            headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(subprotocol));
        }
        if let Opening::Upgrade(accept) = &self.opening {
            headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
            headers.insert(UPGRADE, WEBSOCKET);
            headers.insert(SEC_WEBSOCKET_ACCEPT, accept.clone());
            *head.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        }
        head
    }
}

impl HandshakeError {
    /// The status to answer with.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Method { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Self::SocketVersion(_) => StatusCode::UPGRADE_REQUIRED,
            Self::Protocol(_) => StatusCode::NOT_IMPLEMENTED,
            _ => StatusCode::BAD_REQUEST,
        }
    }

    /// Fields that the answer needs beside its problem document (RFC 6455 §4.4, RFC 9110 §15.5.6, §15.5.22).
    pub fn fields(&self) -> HeaderMap {
        let mut fields = HeaderMap::new();
        match self {
            Self::SocketVersion(over) => {
                fields.insert(SEC_WEBSOCKET_VERSION, VERSION);
                if *over == Over::Http1 {
                    fields.insert(UPGRADE, WEBSOCKET);
                    fields.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
                }
            }
            Self::Method { expected, .. } => {
                let allowed = if *expected == Method::GET { "GET" } else { "CONNECT" };
                fields.insert(ALLOW, HeaderValue::from_static(allowed));
            }
            _ => {}
        }
        fields
    }
}

fn check_method(parts: &Parts, expected: Method) -> Result<(), HandshakeError> {
    if parts.method == expected {
        return Ok(());
    }
    Err(HandshakeError::Method { expected, given: parts.method.clone() })
}

fn check_socket_version(headers: &HeaderMap, over: Over) -> Result<(), HandshakeError> {
    match only(headers, &SEC_WEBSOCKET_VERSION) {
        Some(version) if version.as_bytes().trim_ascii() == b"13" => Ok(()),
        _ => Err(HandshakeError::SocketVersion(over)),
    }
}

/// `Sec-WebSocket-Accept` (RFC 6455 §4.2.2, step 5.4).
fn accept(key: &[u8]) -> Option<HeaderValue> {
    let sum = digest(&SHA1_FOR_LEGACY_USE_ONLY, &[key, ACCEPT_GUID].concat());
    HeaderValue::try_from(STANDARD.encode(sum)).ok()
}

fn choose(headers: &HeaderMap, preferred: &[&'static str]) -> Result<Option<&'static str>, HandshakeError> {
    let mut offered = Vec::new();
    for token in elements(headers, &SEC_WEBSOCKET_PROTOCOL) {
        let token = token.ok_or(HandshakeError::Subprotocols)?;
        if !token.bytes().all(is_token_byte) || offered.len() == 100 || offered.contains(&token) {
            return Err(HandshakeError::Subprotocols);
        }
        offered.push(token);
    }
    Ok(preferred.iter().copied().find(|name| offered.contains(name)))
}

/// The single value of a field.
fn only<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h HeaderValue> {
    let mut values = headers.get_all(name).iter();
    values.next().filter(|_| values.next().is_none())
}

/// Whether a list field has an element, in any case (RFC 9110 §5.6.1).
fn lists(headers: &HeaderMap, name: &HeaderName, element: &str) -> bool {
    elements(headers, name).flatten().any(|given| given.eq_ignore_ascii_case(element))
}

/// The elements of a list field, empty ones left out; `None` for what is no text.
fn elements<'h>(headers: &'h HeaderMap, name: &HeaderName) -> impl Iterator<Item = Option<&'h str>> {
    headers.get_all(name).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b',')).filter_map(|element| {
        let element = element.trim_ascii();
        (!element.is_empty()).then(|| std::str::from_utf8(element).ok())
    })
}

/// RFC 9110 §5.6.2.
fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PREFERRED: &[&str] = &["pushbridge.v1.json", "cloudevents.json"];

    fn upgrade() -> http::request::Builder {
        http::Request::get("/chat")
            .header("host", "server.example.com")
            .header("upgrade", "websocket")
            .header("connection", "keep-alive, Upgrade")
            .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
            .header("sec-websocket-version", "13")
    }

    fn connect() -> http::request::Builder {
        http::Request::builder()
            .method("CONNECT")
            .version(Version::HTTP_2)
            .uri("https://server.example.com/chat")
            .header("sec-websocket-version", "13")
    }

    fn parts(builder: http::request::Builder) -> Parts {
        builder.body(()).expect("a request").into_parts().0
    }

    fn without(builder: http::request::Builder, name: &str) -> Parts {
        let mut parts = parts(builder);
        parts.headers.remove(name);
        parts
    }

    #[track_caller]
    fn refused(parts: &Parts, protocol: Option<&str>, expected: &HandshakeError, status: u16) {
        let error = Handshake::check(parts, protocol, PREFERRED).expect_err("a refusal");
        assert_eq!(&error, expected);
        assert_eq!(error.status().as_u16(), status);
    }

    #[track_caller]
    fn chosen(offered: &[&str], expected: Option<&str>) {
        let builder = offered.iter().fold(upgrade(), |builder, value| builder.header("sec-websocket-protocol", *value));
        let handshake = Handshake::check(&parts(builder), None, PREFERRED).expect("a handshake");
        assert_eq!(handshake.subprotocol(), expected);
        let field = handshake.head().headers().get("sec-websocket-protocol").cloned();
        assert_eq!(field.as_ref().map(HeaderValue::as_bytes), expected.map(str::as_bytes));
    }

    #[test]
    fn the_standards_own_example_is_accepted() {
        let parts = parts(upgrade());
        assert!(is_asked_for(&parts, None));
        let head = Handshake::check(&parts, None, PREFERRED).expect("a handshake").head();
        assert_eq!(head.status(), 101);
        assert_eq!(head.headers()["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(head.headers()["upgrade"], "websocket");
        assert_eq!(head.headers()["connection"], "Upgrade");
    }

    #[test]
    fn an_extended_connect_is_answered_without_upgrade_fields() {
        let parts = parts(connect());
        assert!(is_asked_for(&parts, Some("websocket")) && !is_asked_for(&parts, None));
        let head = Handshake::check(&parts, Some("websocket"), PREFERRED).expect("a handshake").head();
        assert_eq!(head.status(), 200);
        assert!(head.headers().is_empty());
    }

    #[test]
    fn the_servers_preference_decides() {
        chosen(&[], None);
        chosen(&["chat"], None);
        chosen(&["cloudevents.json"], Some("cloudevents.json"));
        chosen(&["cloudevents.json, pushbridge.v1.json"], Some("pushbridge.v1.json"));
        chosen(&["chat ,, cloudevents.json", "other"], Some("cloudevents.json"));
        chosen(&["PUSHBRIDGE.V1.JSON"], None);
    }

    #[test]
    fn broken_upgrades_are_refused() {
        let method = HandshakeError::Method { expected: Method::GET, given: Method::POST };
        refused(&parts(upgrade().method("POST")), None, &method, 405);
        refused(&parts(upgrade().version(Version::HTTP_10)), None, &HandshakeError::HttpVersion(Version::HTTP_10), 400);
        refused(&parts(upgrade().version(Version::HTTP_2)), None, &HandshakeError::HttpVersion(Version::HTTP_2), 400);
        refused(&without(upgrade(), "upgrade"), None, &HandshakeError::Upgrade, 400);
        refused(&without(upgrade(), "connection"), None, &HandshakeError::Connection, 400);
        refused(&without(upgrade(), "sec-websocket-key"), None, &HandshakeError::Key, 400);
        refused(
            &parts(upgrade().header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")),
            None,
            &HandshakeError::Key,
            400,
        );
        for offered in ["a, a", "a b", "a/b", "é"] {
            let parts = parts(
                upgrade().header("sec-websocket-protocol", HeaderValue::from_bytes(offered.as_bytes()).expect("bytes")),
            );
            refused(&parts, None, &HandshakeError::Subprotocols, 400);
        }
    }

    #[test]
    fn keys_have_sixteen_bytes() {
        for (key, good) in [
            ("AAAAAAAAAAAAAAAAAAAAAA==", true),
            ("AAAAAAAAAAAAAAAAAAAAAB==", true),
            ("AAAAAAAAAAAAAAAAAAAAAAA=", false),
            ("AAAAAAAAAAAAAAAAAAAAAAAA", false),
            ("AAAAAAAAAAAAAAAAAAAA", false),
            ("AAAAAAAAAAAAAAAAAAAAAA", false),
            ("-AAAAAAAAAAAAAAAAAAAAA==", false),
            ("", false),
        ] {
            let mut parts = parts(upgrade());
            parts.headers.insert("sec-websocket-key", HeaderValue::from_static(key));
            assert_eq!(Handshake::check(&parts, None, &[]).is_ok(), good, "{key}");
        }
    }

    #[test]
    fn another_version_is_told_which_one_is_spoken() {
        let http1 = HandshakeError::SocketVersion(Over::Http1);
        refused(&without(upgrade(), "sec-websocket-version"), None, &http1, 426);
        refused(&parts(upgrade().header("sec-websocket-version", "8")), None, &http1, 426);
        assert_eq!(http1.fields()["sec-websocket-version"], "13");
        assert_eq!(http1.fields()["upgrade"], "websocket");
        let http2 = HandshakeError::SocketVersion(Over::Http2);
        refused(&without(connect(), "sec-websocket-version"), Some("websocket"), &http2, 426);
        assert_eq!(http2.fields().len(), 1);
    }

    #[test]
    fn broken_connects_are_refused() {
        let protocol = HandshakeError::Protocol("connect-udp".to_owned());
        refused(&parts(connect()), Some("connect-udp"), &protocol, 501);
        let method = HandshakeError::Method { expected: Method::CONNECT, given: Method::GET };
        refused(&parts(connect().method("GET")), Some("websocket"), &method, 405);
    }

    proptest! {
        #[test]
        fn any_fields_are_accepted_or_refused(key in "[ -~]{0,40}", version in "[ -~]{0,4}", offered in "[ -~]{0,40}") {
            let builder = http::Request::get("/").header("upgrade", "WebSocket").header("connection", "upgrade")
                .header("sec-websocket-key", key).header("sec-websocket-version", version)
                .header("sec-websocket-protocol", offered);
            if let Ok(handshake) = Handshake::check(&parts(builder), None, PREFERRED) {
                prop_assert_eq!(handshake.head().headers()["sec-websocket-accept"].len(), 28);
            }
        }

        #[test]
        fn the_accept_is_the_peers(key: [u8; 16]) {
            let key = STANDARD.encode(key);
            let expected = tokio_tungstenite::tungstenite::handshake::derive_accept_key(key.as_bytes());
            prop_assert_eq!(accept(key.as_bytes()).expect("a value"), expected.as_str());
        }
    }
}
