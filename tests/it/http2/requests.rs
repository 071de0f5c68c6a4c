//! Requests that are malformed (RFC 9113 §8), which no backend gets to see and no other stream gets to feel.

use super::mirrored;
use crate::support::backend::{Backend, answer};
use crate::support::frames::{DATA, END_HEADERS, END_STREAM, HEADERS, frame};
use crate::support::hpack::{block, literal, request};
use crate::support::http2::{Http2, Outcome, PROTOCOL_ERROR, get, post};
use crate::support::proxy::Proxy;
use std::sync::{Arc, Mutex};

const BOTH: u8 = END_STREAM | END_HEADERS;
const METHOD: (&str, &str) = (":method", "GET");
const SCHEME: (&str, &str) = (":scheme", "http");
const PATH: (&str, &str) = (":path", "/x");
const HOST: (&str, &str) = (":authority", "a");

/// Each a list of fields that is whole, with END_STREAM.
fn malformed_heads() -> Vec<(&'static str, Vec<u8>)> {
    let with = |name: &str, value: &str| request("GET", "/x", &[(name, value)]);
    let of = |fields: &[(&str, &str)]| block(fields);
    vec![
        ("a zero in a path", request("GET", "/\0", &[])),
        ("a line break in a path", request("GET", "/\r\nx: y", &[])),
        ("a space in a path", request("GET", "/a b", &[])),
        ("a pseudo-field of answers", of(&[METHOD, SCHEME, PATH, HOST, (":status", "200")])),
        ("a pseudo-field after a field", of(&[METHOD, SCHEME, HOST, ("x-a", "b"), PATH])),
        ("no :method", of(&[SCHEME, PATH, HOST])),
        ("no :scheme", of(&[METHOD, PATH, HOST])),
        ("no :path", of(&[METHOD, SCHEME, HOST])),
        ("no fields at all", Vec::new()),
        ("an empty :path", of(&[METHOD, SCHEME, (":path", ""), HOST])),
        ("a :path without a slash", of(&[METHOD, SCHEME, (":path", "x"), HOST])),
        (":method twice", of(&[METHOD, METHOD, SCHEME, PATH, HOST])),
        (":scheme twice", of(&[METHOD, SCHEME, SCHEME, PATH, HOST])),
        (":path twice", of(&[METHOD, SCHEME, PATH, PATH, HOST])),
        (":authority twice", of(&[METHOD, SCHEME, PATH, HOST, HOST])),
        (":protocol of a GET", of(&[METHOD, SCHEME, PATH, HOST, (":protocol", "websocket")])),
        ("userinfo in :authority", of(&[METHOD, SCHEME, PATH, (":authority", "u:p@a")])),
        ("another host", with("host", "other.example")),
        ("connection", with("connection", "close")),
        ("keep-alive", with("keep-alive", "timeout=5")),
        ("proxy-connection", with("proxy-connection", "close")),
        ("transfer-encoding", with("transfer-encoding", "chunked")),
        ("upgrade", with("upgrade", "h2c")),
        ("te", with("te", "gzip")),
        ("te with more than trailers", with("te", "trailers, deflate")),
        ("content without DATA", with("content-length", "5")),
        ("a length that is no number", with("content-length", "x")),
        ("a length with a sign", with("content-length", "+0")),
        ("two lengths", request("GET", "/x", &[("content-length", "0"), ("content-length", "1")])),
    ]
}

/// As above, but these make no fields at all: a server may give up on the connection (RFC 9113 §5.4.1).
fn unreadable_heads() -> Vec<(&'static str, Vec<u8>)> {
    let with = |name: &str, value: &str| request("GET", "/x", &[(name, value)]);
    let of = |fields: &[(&str, &str)]| block(fields);
    vec![
        ("an upper-case name", with("X-Upper", "a")),
        ("one upper-case letter", with("x-uppeR", "a")),
        ("an empty name", with("", "a")),
        ("a space in a name", with("x a", "b")),
        ("a colon in a name", with("x:a", "b")),
        ("a control character in a name", with("x\x01", "b")),
        ("a line break in a value", with("x-a", "b\r\nx-b: c")),
        ("a line feed in a value", with("x-a", "b\nc")),
        ("a return in a value", with("x-a", "b\rc")),
        ("a zero in a value", with("x-a", "b\0c")),
        ("a space in a method", request("GE T", "/x", &[])),
        ("an unknown pseudo-field", of(&[METHOD, SCHEME, PATH, HOST, (":unknown", "x")])),
        ("an empty :method", of(&[(":method", ""), SCHEME, PATH, HOST])),
    ]
}

/// Each everything of stream 1.
fn malformed_bodies() -> Vec<(&'static str, Vec<u8>)> {
    let of = |len: &str| frame(HEADERS, END_HEADERS, 1, &request("POST", "/x", &[("content-length", len)]));
    let data = |content: &[u8]| frame(DATA, 0, 1, content);
    let last = |content: &[u8]| frame(DATA, END_STREAM, 1, content);
    let trailers = |fields: &[(&str, &str)]| [post(1, "/x"), data(b"abc"), frame(HEADERS, BOTH, 1, &block(fields))];
    vec![
        ("less than the length", [of("5"), last(b"abc")].concat()),
        ("nothing of the length", [of("5"), last(b"")].concat()),
        ("more than the length", [of("3"), last(b"abcdef")].concat()),
        ("more than the length, later", {
            // The backend has had all that it was promised by then.
            let ok = frame(HEADERS, END_HEADERS, 1, &request("POST", "/ok", &[("content-length", "3")]));
            [ok, data(b"abc"), last(b"d")].concat()
        }),
        ("something of no length", [of("0"), last(b"a")].concat()),
        ("trailers before the length is there", {
            [of("5"), data(b"abc"), frame(HEADERS, BOTH, 1, &literal("x-a", "b"))].concat()
        }),
        ("a pseudo-field of answers in trailers", trailers(&[("x-a", "b"), (":status", "200")]).concat()),
        ("trailers that do not end the stream", {
            [post(1, "/x"), data(b"abc"), frame(HEADERS, END_HEADERS, 1, &literal("x-a", "b"))].concat()
        }),
        ("a second list of fields that does not end the stream", {
            [post(1, "/x"), frame(HEADERS, END_HEADERS, 1, &request("POST", "/y", &[])), last(b"abc")].concat()
        }),
    ]
}

/// A backend that notes what it was asked for before it reads, and whether the content came whole.
async fn noting() -> (Backend, Arc<Mutex<Vec<String>>>) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&seen);
    let backend = Backend::http(move |request| {
        let noted = Arc::clone(&noted);
        async move {
            let target = request.uri().to_string();
            let whole = http_body_util::BodyExt::collect(request.into_body()).await.is_ok();
            if whole {
                noted.lock().expect("the notes").push(target);
            }
            answer(200, &[], "seen")
        }
    })
    .await;
    (backend, seen)
}

/// Sends each on a connection of its own: it is refused, the connection goes on, and the backend sees nothing.
async fn each_is_refused(cases: Vec<(&'static str, Vec<u8>)>) {
    let (backend, seen) = noting().await;
    let proxy = Proxy::start(&backend.config(""));
    let mut wrong = Vec::new();
    for (name, bytes) in cases {
        let mut http2 = Http2::open(proxy.address("http")).await;
        http2.write(bytes).await;
        let outcome = http2.outcome(1).await;
        match outcome {
            Outcome::Reset(PROTOCOL_ERROR) | Outcome::Answered { status: 400, .. } => {}
            _ => wrong.push(format!("{name}: {outcome:?}")),
        }
        http2.get(3, "/ok").await;
        let after = http2.outcome(3).await;
        if !matches!(after, Outcome::Answered { status: 200, .. }) {
            wrong.push(format!("the request after {name}: {after:?}"));
        }
    }
    let seen: Vec<_> = seen.lock().expect("the notes").iter().filter(|target| *target != "/ok").cloned().collect();
    assert!(seen.is_empty(), "the backend has seen {seen:?}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn with_end(heads: Vec<(&'static str, Vec<u8>)>) -> Vec<(&'static str, Vec<u8>)> {
    heads.into_iter().map(|(name, block)| (name, frame(HEADERS, BOTH, 1, &block))).collect()
}

#[tokio::test]
async fn a_malformed_head_is_refused_and_the_connection_goes_on() {
    each_is_refused(with_end(malformed_heads())).await;
}

#[tokio::test]
async fn an_unreadable_head_is_refused_and_the_connection_goes_on() {
    each_is_refused(with_end(unreadable_heads())).await;
}

#[tokio::test]
async fn malformed_content_is_refused_and_the_connection_goes_on() {
    each_is_refused(malformed_bodies()).await;
}

#[tokio::test]
async fn an_unreadable_trailer_is_refused_and_the_connection_goes_on() {
    let bytes = [post(1, "/x"), frame(DATA, 0, 1, b"abc"), frame(HEADERS, BOTH, 1, &literal("X-A", "b"))].concat();
    each_is_refused(vec![("an upper-case name in trailers", bytes)]).await;
}

/// What comes on a stream that was refused may have been under way.
#[tokio::test]
async fn content_of_a_refused_request_is_ignored() {
    let (proxy, _backend) = mirrored("").await;
    let mut http2 = Http2::open(proxy.address("http")).await;
    let malformed = frame(HEADERS, END_HEADERS, 1, &request("POST", "/x", &[("connection", "close")]));
    let content = [frame(DATA, 0, 1, b"abc"), frame(DATA, END_STREAM, 1, b"def")].concat();
    http2.write([malformed, content, get(3, "/ok")].concat()).await;
    let mut outcomes = (None, None);
    while outcomes.0.is_none() || outcomes.1.is_none() {
        use crate::support::http2::Event;
        match http2.event().await.expect("both come to an end") {
            Event::Reset { stream: 1, code } => outcomes.0 = outcomes.0.or(Some(code)),
            Event::Head { stream: 1, fields, .. } => outcomes.0 = Some(fields[0].1.parse().expect("a status")),
            Event::Head { stream: 3, fields, .. } => outcomes.1 = Some(fields[0].1.clone()),
            _ => {}
        }
    }
    assert!(matches!(outcomes.0, Some(PROTOCOL_ERROR | 400)), "{outcomes:?}");
    assert_eq!(outcomes.1.as_deref(), Some("200"));
}

#[tokio::test]
async fn what_looks_strange_but_is_right_is_served() {
    let (proxy, _backend) = mirrored("").await;
    let mut http2 = Http2::open(proxy.address("http")).await;
    let mut stream = 1;
    for (name, block) in [
        ("te: trailers", request("GET", "/x", &[("te", "trailers")])),
        ("the same host", request("GET", "/x", &[("host", "a")])),
        ("host in place of :authority", block(&[METHOD, SCHEME, PATH, ("host", "a")])),
        ("pseudo-fields in another order", block(&[HOST, PATH, SCHEME, METHOD])),
        ("an empty value", request("GET", "/x", &[("x-a", "")])),
        ("a method of one's own", request("PURGE", "/x", &[])),
        ("a length of nothing", request("GET", "/x", &[("content-length", "0")])),
        ("a query alone", request("GET", "/?", &[])),
        ("cookies one by one", request("GET", "/x", &[("cookie", "a=b"), ("cookie", "c=d")])),
    ] {
        http2.write(frame(HEADERS, BOTH, stream, &block)).await;
        let outcome = http2.outcome(stream).await;
        let Outcome::Answered { status: 200, body, .. } = outcome else { panic!("{name}: {outcome:?}") };
        let told: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
        if name.starts_with("cookies") {
            // Joined for HTTP/1.1 (RFC 9113 §8.2.3).
            assert_eq!(told["fields"]["cookie"], "a=b; c=d");
        }
        stream += 2;
    }
    // Content with its length, and with trailers.
    let head = frame(HEADERS, END_HEADERS, 101, &request("POST", "/x", &[("content-length", "6")]));
    http2.write([head, frame(DATA, 0, 101, b"abc"), frame(DATA, END_STREAM, 101, b"def")].concat()).await;
    let told: serde_json::Value = serde_json::from_slice(&http2.outcome(101).await.body()).expect("JSON");
    assert_eq!(told["body"], "abcdef");
    let trailers = frame(HEADERS, BOTH, 103, &literal("x-after", "all"));
    let announced = request("POST", "/x", &[("trailer", "x-after")]);
    http2.write([frame(HEADERS, END_HEADERS, 103, &announced), frame(DATA, 0, 103, b"abc"), trailers].concat()).await;
    let told: serde_json::Value = serde_json::from_slice(&http2.outcome(103).await.body()).expect("JSON");
    assert_eq!((&told["body"], &told["trailers"]["x-after"]), (&"abc".into(), &"all".into()));
}

#[tokio::test]
async fn connect_is_for_websockets_only() {
    let (proxy, _backend) = mirrored("").await;
    let to = proxy.address("http");
    let version = ("sec-websocket-version", "13");
    let connect = (":method", "CONNECT");
    let on = (":path", "/events/x");
    let websocket = (":protocol", "websocket");
    for (name, fields) in [
        ("a tunnel", &[connect, HOST][..]),
        ("a tunnel without an authority", &[connect]),
        ("a tunnel with a path", &[connect, SCHEME, on, HOST]),
        ("an unknown protocol", &[connect, (":protocol", "tea"), SCHEME, on, HOST, version]),
        ("no :scheme", &[connect, websocket, on, HOST, version]),
        ("no :path", &[connect, websocket, SCHEME, HOST, version]),
        (":protocol twice", &[connect, websocket, websocket, SCHEME, on, HOST, version]),
    ] {
        let mut http2 = Http2::open(to).await;
        http2.write(frame(HEADERS, END_HEADERS, 1, &block(fields))).await;
        let refused = http2.until(|event| {
            use crate::support::http2::Event;
            match event {
                Event::Head { stream: 1, fields, .. } => Some(fields[0].1.parse::<u32>().expect("a status") >= 400),
                Event::Reset { stream: 1, .. } => Some(true),
                _ => None,
            }
        });
        assert!(refused.await, "{name}");
        http2.get(3, "/ok").await;
        assert_eq!(http2.outcome(3).await.status(), 200, "{name}");
    }
    let mut http2 = Http2::open(to).await;
    let fields = block(&[connect, websocket, SCHEME, on, HOST, version]);
    http2.write(frame(HEADERS, END_HEADERS, 1, &fields)).await;
    assert_eq!(http2.status(1).await, 200);
    // A masked ping of the WebSocket, in two frames of HTTP/2.
    http2.write([frame(DATA, 0, 1, b"\x89\x82\0\0"), frame(DATA, 0, 1, b"\0\0hi")].concat()).await;
    let mut heard = Vec::new();
    http2
        .until(|event| {
            if let crate::support::http2::Event::Data { stream: 1, content, .. } = event {
                heard.extend_from_slice(content);
            }
            heard.windows(4).any(|four| four == b"\x8a\x02hi").then_some(())
        })
        .await;
}
