//! Which header fields go where: the client's to the backend, and the backend's to the client.

use crate::proto::websocket_over_http::MEDIA_TYPE;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};

/// The field that names the connection to the backend.
pub const CONNECTION_ID: HeaderName = HeaderName::from_static("connection-id");
/// The field by which a backend asks for empty requests.
pub const KEEP_ALIVE_INTERVAL: HeaderName = HeaderName::from_static("keep-alive-interval");

/// A connection's id: a UUID version 4 (RFC 9562 §5.4) of 16 random bytes, as text.
pub fn connection_id(random: [u8; 16]) -> String {
    let value = u128::from_be_bytes(random) & !(0xf << 76) & !(0x3 << 62) | 0x4 << 76 | 0x2 << 62;
    let hex = format!("{value:032x}");
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

/// The fields of each request to the backend, made of the client's handshake. `Meta-*` and a signature come later.
pub fn for_backend(client: &HeaderMap, connection_id: &str) -> HeaderMap {
    let mut fields = HeaderMap::with_capacity(client.keys_len() + 4);
    let named = named_by_connection(client);
    for (name, value) in client {
        if !is_hop_by_hop(name) && !named.contains(name) && !is_of_handshake(name) && !is_reserved(name) {
            fields.append(name.clone(), value.clone());
        }
    }
    fields.insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
    fields.insert(header::ACCEPT, HeaderValue::from_static(MEDIA_TYPE));
    fields.insert(header::SEC_WEBSOCKET_EXTENSIONS, HeaderValue::from_static("grip"));
    if let Ok(value) = HeaderValue::from_str(connection_id) {
        fields.insert(CONNECTION_ID, value);
    }
    fields
}

/// The fields of the backend's answer to OPEN that go on the client's handshake.
pub fn for_handshake(answer: &HeaderMap) -> HeaderMap {
    let mut fields = for_response(answer);
    for name in [header::CONTENT_TYPE, header::CONTENT_ENCODING, header::SEC_WEBSOCKET_EXTENSIONS] {
        fields.remove(name);
    }
    fields
}

/// The fields of an answer that goes to the client as it is, such as a 403 to OPEN.
pub fn for_response(answer: &HeaderMap) -> HeaderMap {
    let named = named_by_connection(answer);
    let mut fields = HeaderMap::with_capacity(answer.keys_len());
    for (name, value) in answer {
        let is_ours = is_reserved(name) || name.as_str().starts_with("set-meta-") || *name == KEEP_ALIVE_INTERVAL;
        let is_framing = *name == header::CONTENT_LENGTH || *name == header::SEC_WEBSOCKET_ACCEPT;
        if !is_hop_by_hop(name) && !named.contains(name) && !is_ours && !is_framing {
            fields.append(name.clone(), value.clone());
        }
    }
    fields
}

/// Whether an answer's body is `application/websocket-events`; parameters are passed over.
pub fn is_events(answer: &HeaderMap) -> bool {
    let value = answer.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = value.split_once(';').map_or(value, |(essence, _)| essence);
    essence.trim().eq_ignore_ascii_case(MEDIA_TYPE)
}

/// Whether the client offered the subprotocol that the backend chose; choosing none is always right (RFC 6455 §4.1).
pub fn is_offered_protocol(client: &HeaderMap, answer: &HeaderMap) -> bool {
    let mut chosen = answer.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter();
    let (Some(value), None) = (chosen.next(), chosen.next()) else {
        return !answer.contains_key(header::SEC_WEBSOCKET_PROTOCOL);
    };
    let offered = client.get_all(header::SEC_WEBSOCKET_PROTOCOL);
    offered.iter().any(|list| list.as_bytes().split(|&b| b == b',').any(|name| name.trim_ascii() == value.as_bytes()))
}

/// Fields of one hop (RFC 9110 §7.6.1) and of framing.
fn is_hop_by_hop(name: &HeaderName) -> bool {
    const NAMES: [&str; 10] = [
        "connection",
        "keep-alive",
        "proxy-connection",
        "proxy-authenticate",
        "proxy-authorization",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "http2-settings",
    ];
    NAMES.contains(&name.as_str())
}

fn named_by_connection(fields: &HeaderMap) -> Vec<HeaderName> {
    let values = fields.get_all(header::CONNECTION).iter();
    values
        .flat_map(|value| value.as_bytes().split(|&b| b == b','))
        .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
        .collect()
}

/// Fields of the client's handshake that mean nothing, or something else, to the backend.
fn is_of_handshake(name: &HeaderName) -> bool {
    const NAMES: [HeaderName; 8] = [
        header::SEC_WEBSOCKET_KEY,
        header::SEC_WEBSOCKET_VERSION,
        header::SEC_WEBSOCKET_EXTENSIONS,
        header::SEC_WEBSOCKET_ACCEPT,
        header::CONTENT_LENGTH,
        header::CONTENT_TYPE,
        header::ACCEPT,
        header::EXPECT,
    ];
    // Answers must not be compressed: they are read here.
    NAMES.contains(name) || *name == header::ACCEPT_ENCODING
}

/// Fields that only pushbridge and the backend may say to each other.
fn is_reserved(name: &HeaderName) -> bool {
    let name = name.as_str();
    name.starts_with("grip-") || name.starts_with("meta-") || name == "connection-id"
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn fields(pairs: &[(&str, &str)]) -> HeaderMap {
        let mut fields = HeaderMap::new();
        for (name, value) in pairs {
            let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
            fields.append(name, HeaderValue::from_str(value).expect("a value"));
        }
        fields
    }

    #[test]
    fn the_backend_gets_the_clients_fields_without_those_of_the_hop() {
        let client = fields(&[
            ("Host", "h"),
            ("Cookie", "a=1"),
            ("Cookie", "b=2"),
            ("Origin", "https://x"),
            ("Sec-WebSocket-Protocol", "chat"),
            ("Connection", "Upgrade, X-Hop"),
            ("Upgrade", "websocket"),
            ("X-Hop", "1"),
            ("TE", "trailers"),
            ("Proxy-Connection", "keep-alive"),
            ("Sec-WebSocket-Key", "k"),
            ("Sec-WebSocket-Version", "13"),
            ("Sec-WebSocket-Extensions", "permessage-deflate"),
            ("Grip-Sig", "forged"),
            ("Meta-User", "root"),
            ("Connection-Id", "forged"),
            ("Accept-Encoding", "gzip"),
            ("Content-Length", "3"),
            ("Accept", "*/*"),
        ]);
        let expected = fields(&[
            ("host", "h"),
            ("cookie", "a=1"),
            ("cookie", "b=2"),
            ("origin", "https://x"),
            ("sec-websocket-protocol", "chat"),
            ("content-type", MEDIA_TYPE),
            ("accept", MEDIA_TYPE),
            ("sec-websocket-extensions", "grip"),
            ("connection-id", "id"),
        ]);
        assert_eq!(for_backend(&client, "id"), expected);
    }

    #[test]
    fn the_client_gets_the_backends_fields_without_those_of_the_bridge() {
        let answer = fields(&[
            ("Content-Type", MEDIA_TYPE),
            ("Sec-WebSocket-Extensions", "grip"),
            ("Sec-WebSocket-Protocol", "chat"),
            ("Set-Cookie", "a"),
            ("Set-Cookie", "b"),
            ("Set-Meta-User", "bob"),
            ("Keep-Alive-Interval", "20"),
            ("Content-Length", "6"),
            ("Connection", "close, X-Hop"),
            ("X-Hop", "1"),
            ("Grip-Hold", "stream"),
            ("Sec-WebSocket-Accept", "x"),
            ("Transfer-Encoding", "chunked"),
        ]);
        let expected = fields(&[("sec-websocket-protocol", "chat"), ("set-cookie", "a"), ("set-cookie", "b")]);
        assert_eq!(for_handshake(&answer), expected);
        let refused = fields(&[("Content-Type", "text/plain"), ("WWW-Authenticate", "Basic"), ("Content-Length", "2")]);
        assert_eq!(for_response(&refused), fields(&[("content-type", "text/plain"), ("www-authenticate", "Basic")]));
    }

    #[test]
    fn only_websocket_events_are_events() {
        let is = |value: &str| is_events(&fields(&[("content-type", value)]));
        assert!(is("application/websocket-events") && is("Application/WebSocket-Events ; charset=utf-8"));
        assert!(!is("application/websocket-events2") && !is("text/plain") && !is_events(&HeaderMap::new()));
    }

    #[test]
    fn a_subprotocol_must_have_been_offered() {
        let client = fields(&[("sec-websocket-protocol", "a, b"), ("sec-websocket-protocol", "c")]);
        let chose = |name: &str| is_offered_protocol(&client, &fields(&[("sec-websocket-protocol", name)]));
        assert!(chose("a") && chose("b") && chose("c") && is_offered_protocol(&client, &HeaderMap::new()));
        assert!(!chose("d") && !chose("a, b") && !chose("A"));
        let twice = fields(&[("sec-websocket-protocol", "a"), ("sec-websocket-protocol", "b")]);
        assert!(!is_offered_protocol(&client, &twice));
    }

    proptest! {
        #[test]
        fn ids_are_version_4_uuids(random: [u8; 16]) {
            let id = connection_id(random);
            prop_assert_eq!(id.len(), 36);
            let is_right = id.char_indices().all(|(at, c)| match at {
                8 | 13 | 18 | 23 => c == '-',
                14 => c == '4',
                19 => matches!(c, '8' | '9' | 'a' | 'b'),
                _ => c.is_ascii_hexdigit(),
            });
            prop_assert!(is_right, "{}", id);
        }
    }
}
