//! The body of `connect`, and what the backend chooses in its answer.

use crate::model::channel::{ChannelName, ChannelNameError};
use bytes::Bytes;
use http::header::{HeaderMap, SEC_WEBSOCKET_PROTOCOL};
use percent_encoding::percent_decode;
use serde_json::{Map, Value, json};

/// The longest user id, in bytes.
pub const USER_ID_BYTES_MAX: usize = 255;
/// The most groups and the most roles of an answer; a session's channels are bounded besides.
pub const LIST_MAX: usize = 1000;

/// What a backend chose for a connection that it lets in.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Accept {
    /// Who the client is.
    pub user_id: Option<Box<str>>,
    /// The channels that it is on from the start.
    pub groups: Vec<ChannelName>,
    /// One of those that the client offers.
    pub subprotocol: Option<Box<str>>,
}

/// What is wrong with an answer to `connect`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// No JSON.
    #[error("the backend's answer to connect is no JSON: {0}")]
    Json(String),
    /// Some other JSON.
    #[error("the backend's answer to connect is no JSON object")]
    NotObject,
    /// A member of another type.
    #[error("the backend's answer to connect has a {0} that is {1}")]
    Member(&'static str, &'static str),
    /// Over [`LIST_MAX`].
    #[error("the backend's answer to connect has {1} {0}; {LIST_MAX} at most are allowed")]
    TooMany(&'static str, usize),
    /// A user id that is too long or has control characters.
    #[error("the backend's answer to connect has a userId with control characters, or over {USER_ID_BYTES_MAX} bytes")]
    UserId,
    /// A group that is no channel.
    #[error("the backend's answer to connect has a group that can't be a channel: {0}")]
    Group(#[from] ChannelNameError),
}

/// The body of `connect`: what the client's handshake says. There are no claims, since nothing was checked before.
pub fn encode(query: Option<&str>, client: &HeaderMap) -> Bytes {
    let mut headers = Map::new();
    for name in client.keys() {
        let values = client.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
        headers.insert(name.as_str().to_owned(), values.collect::<Value>());
    }
    let mut parameters: Map<String, Value> = Map::new();
    for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let values = parameters.entry(decoded(name)).or_insert_with(|| Value::Array(Vec::new()));
        if let Value::Array(values) = values {
            values.push(decoded(value).into());
        }
    }
    let offered = client.get_all(SEC_WEBSOCKET_PROTOCOL).iter().flat_map(|list| list.as_bytes().split(|&b| b == b','));
    let offered = offered.map(|name| String::from_utf8_lossy(name.trim_ascii()).into_owned());
    let body = json!({
        "claims": {},
        "query": parameters,
        "headers": headers,
        "subprotocols": offered.filter(|name| !name.is_empty()).collect::<Vec<_>>(),
        "clientCertificates": [],
    });
    body.to_string().into()
}

/// Reads the body of a 2xx answer: nothing, or an object. Members that are missing, null or an empty string choose
/// nothing; others than these are passed over.
///
/// # Errors
/// The first thing that is wrong.
pub fn decode(body: &[u8]) -> Result<Accept, ConnectError> {
    if body.trim_ascii().is_empty() {
        return Ok(Accept::default());
    }
    let object = match serde_json::from_slice(body).map_err(|error| ConnectError::Json(error.to_string()))? {
        Value::Null => return Ok(Accept::default()),
        Value::Object(object) => object,
        _ => return Err(ConnectError::NotObject),
    };
    let user_id = text(&object, "userId")?;
    if user_id.is_some_and(|id| id.len() > USER_ID_BYTES_MAX || id.chars().any(char::is_control)) {
        return Err(ConnectError::UserId);
    }
    // Roles are for clients of the service's own subprotocols, which are not spoken here.
    list(&object, "roles")?;
    let groups = list(&object, "groups")?.into_iter().map(ChannelName::new).collect::<Result<_, _>>()?;
    let subprotocol = text(&object, "subprotocol")?;
    Ok(Accept { user_id: user_id.map(Into::into), groups, subprotocol: subprotocol.map(Into::into) })
}

/// Whether a subprotocol has messages of its own, which nobody here understands.
pub fn is_of_the_service(subprotocol: &str) -> bool {
    subprotocol.to_ascii_lowercase().ends_with(".webpubsub.azure.v1")
}

fn text<'a>(object: &'a Map<String, Value>, name: &'static str) -> Result<Option<&'a str>, ConnectError> {
    match object.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.as_str()).filter(|text| !text.is_empty())),
        Some(_) => Err(ConnectError::Member(name, "no string")),
    }
}

fn list<'a>(object: &'a Map<String, Value>, name: &'static str) -> Result<Vec<&'a str>, ConnectError> {
    let items = match object.get(name) {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(items)) => items,
        Some(_) => return Err(ConnectError::Member(name, "no list")),
    };
    if items.len() > LIST_MAX {
        return Err(ConnectError::TooMany(name, items.len()));
    }
    items.iter().map(|item| item.as_str().ok_or(ConnectError::Member(name, "no list of strings"))).collect()
}

fn decoded(text: &str) -> String {
    let spaced = text.replace('+', " ");
    percent_decode(spaced.as_bytes()).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderName, HeaderValue};
    use proptest::prelude::*;

    #[test]
    fn the_handshake_becomes_json() {
        let fields = [
            ("host", "h"),
            ("cookie", "a=1"),
            ("cookie", "b=2"),
            ("sec-websocket-protocol", "v2, v1"),
            ("sec-websocket-protocol", "v0"),
        ];
        let client = fields.map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        let body = encode(Some("a=1&b=x%20y+z&a=%C3%A9&&c&d=%ff=2"), &client.into_iter().collect());
        let expected = json!({
            "claims": {},
            "query": { "a": ["1", "é"], "b": ["x y z"], "c": [""], "d": ["\u{fffd}=2"] },
            "headers": { "host": ["h"], "cookie": ["a=1", "b=2"], "sec-websocket-protocol": ["v2, v1", "v0"] },
            "subprotocols": ["v2", "v1", "v0"],
            "clientCertificates": [],
        });
        assert_eq!(serde_json::from_slice::<Value>(&body).expect("JSON"), expected);
        let empty = serde_json::from_slice::<Value>(&encode(None, &HeaderMap::new())).expect("JSON");
        assert_eq!((&empty["query"], &empty["subprotocols"]), (&json!({}), &json!([])));
    }

    #[track_caller]
    fn check(body: &str, user_id: Option<&str>, groups: &[&str], subprotocol: Option<&str>) {
        let groups = groups.iter().map(|name| ChannelName::new(name).expect("a name")).collect();
        let expected = Accept { user_id: user_id.map(Into::into), groups, subprotocol: subprotocol.map(Into::into) };
        assert_eq!(decode(body.as_bytes()), Ok(expected), "{body}");
    }

    #[test]
    fn an_answer_chooses_what_it_names() {
        for body in ["", " \n", "null", "{}", r#"{"groups":null,"userId":"","roles":[],"subprotocol":"","mqtt":{}}"#] {
            check(body, None, &[], None);
        }
        let whole = r#"{"userId":"bob","groups":["a","b.c"],"roles":["webpubsub.sendToGroup"],"subprotocol":"v1"}"#;
        check(whole, Some("bob"), &["a", "b.c"], Some("v1"));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let error = |body: &str| decode(body.as_bytes()).expect_err("an error");
        assert!(matches!(error("{"), ConnectError::Json(_)) && matches!(error("<html>"), ConnectError::Json(_)));
        assert_eq!(error("[]"), ConnectError::NotObject);
        assert_eq!(error(r#"{"userId":1}"#), ConnectError::Member("userId", "no string"));
        assert_eq!(error(r#"{"subprotocol":["a"]}"#), ConnectError::Member("subprotocol", "no string"));
        assert_eq!(error(r#"{"groups":"a"}"#), ConnectError::Member("groups", "no list"));
        assert_eq!(error(r#"{"groups":[1]}"#), ConnectError::Member("groups", "no list of strings"));
        assert_eq!(error(r#"{"roles":{}}"#), ConnectError::Member("roles", "no list"));
        assert_eq!(error(r#"{"userId":"a\r\nb"}"#), ConnectError::UserId);
        assert_eq!(error(&format!(r#"{{"userId":"{}"}}"#, "x".repeat(256))), ConnectError::UserId);
        assert_eq!(error(r#"{"groups":[""]}"#), ConnectError::Group(ChannelNameError::Empty));
        let many = format!(r#"{{"groups":[{}"a"]}}"#, r#""a","#.repeat(LIST_MAX));
        assert_eq!(error(&many), ConnectError::TooMany("groups", LIST_MAX + 1));
    }

    #[test]
    fn subprotocols_of_the_service_are_known_by_their_names() {
        for name in ["json.webpubsub.azure.v1", "json.reliable.webpubsub.azure.v1", "Protobuf.WebPubSub.Azure.v1"] {
            assert!(is_of_the_service(name), "{name}");
        }
        assert!(!is_of_the_service("v1") && !is_of_the_service("webpubsub.azure.v1.mine"));
    }

    proptest! {
        #[test]
        fn any_answer_is_read_or_refused(body: Vec<u8>) {
            let _ = decode(&body);
        }

        #[test]
        fn any_query_is_json(query in ".{0,60}") {
            let body = encode(Some(&query), &HeaderMap::new());
            prop_assert!(serde_json::from_slice::<Value>(&body).is_ok());
        }
    }
}
