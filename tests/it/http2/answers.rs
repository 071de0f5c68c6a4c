//! Answers: what of a backend's HTTP/1.1 is not HTTP/2, and how their ends look.

use crate::support::client::within;
use crate::support::frames::{END_HEADERS, END_STREAM, HEADERS, frame};
use crate::support::hpack::request;
use crate::support::http2::{CANCEL, Event, Http2, Outcome, reset};
use crate::support::proxy::Proxy;
use crate::support::raw_backend::{RawBackend, Say};

const BOTH: u8 = END_STREAM | END_HEADERS;

/// A proxy before a backend that is asked by the first word of the path.
async fn answering() -> (Proxy, RawBackend) {
    let backend = RawBackend::start(|told| {
        let path = told.head.split(' ').nth(1).expect("a target").to_owned();
        let say = |text: &str| Say::Bytes(text.as_bytes().to_vec());
        let last = |text: &str| Say::Last(text.as_bytes().to_vec());
        match path.as_str() {
            "/hops" => say(
                "HTTP/1.1 200 OK\r\nConnection: keep-alive, x-hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nProxy-Connection: close\r\nX-Upper: Kept\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
            ),
            "/large" => {
                let fields: String = (0..3).map(|n| format!("x-large-{n}: {}\r\n", "x".repeat(8000))).collect();
                say(&format!("HTTP/1.1 200 OK\r\n{fields}content-length: 3\r\n\r\nabc"))
            }
            "/head" => say("HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n"),
            "/none" => say("HTTP/1.1 204 No Content\r\n\r\n"),
            "/unchanged" => say("HTTP/1.1 304 Not Modified\r\netag: \"a\"\r\n\r\n"),
            "/until-close" => last("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nall of it"),
            "/short" => last("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc"),
            "/chunks" => last("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n"),
            "/trailers" => say(
                "HTTP/1.1 200 OK\r\ntrailer: x-sum\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 6\r\n\r\n",
            ),
            _ => say(""),
        }
    })
    .await;
    let yaml = format!(
        "upstreams: {{ raw: {{ servers: [\"http://{}\"] }} }}\nroutes: [{{ name: all, match: {{ path: \"/**\" }}, proxy: {{ upstream: raw }} }}]\n",
        backend.address
    );
    (Proxy::start(&yaml), backend)
}

#[tokio::test]
async fn fields_of_a_connection_stay_on_it() {
    let (proxy, _backend) = answering().await;
    let mut http2 = Http2::open(proxy.address("http")).await;
    http2.get(1, "/hops").await;
    let Outcome::Answered { status: 200, fields, body } = http2.outcome(1).await else { panic!("an answer") };
    assert_eq!(body, b"abc");
    // The reader refuses upper-case names.
    assert!(fields.contains(&("x-upper".to_owned(), "Kept".to_owned())), "{fields:?}");
    let forbidden = ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade", "x-hop"];
    assert!(!fields.iter().any(|(name, _)| forbidden.contains(&name.as_str())), "{fields:?}");
    let pseudo = fields.iter().filter(|(name, _)| name.starts_with(':')).count();
    assert_eq!(pseudo, 1, "{fields:?}");
}

#[tokio::test]
async fn a_head_larger_than_a_frame_goes_on() {
    let (proxy, _backend) = answering().await;
    let mut http2 = Http2::open(proxy.address("http")).await;
    http2.get(1, "/large").await;
    let Outcome::Answered { status: 200, fields, body } = http2.outcome(1).await else { panic!("an answer") };
    assert_eq!(fields.iter().filter(|(name, value)| name.starts_with("x-large-") && value.len() == 8000).count(), 3);
    assert_eq!(body, b"abc");
}

#[tokio::test]
async fn answers_without_content_end_with_their_head() {
    let (proxy, _backend) = answering().await;
    let mut http2 = Http2::open(proxy.address("http")).await;
    for (stream, method, path, status) in
        [(1, "HEAD", "/head", 200), (3, "GET", "/none", 204), (5, "GET", "/unchanged", 304)]
    {
        http2.write(frame(HEADERS, BOTH, stream, &request(method, path, &[]))).await;
        let Outcome::Answered { status: told, fields, body } = http2.outcome(stream).await else { panic!("{path}") };
        assert_eq!((told, body.len()), (status, 0), "{path}");
        let len = fields.iter().find(|(name, _)| name == "content-length").map(|(_, value)| value.as_str());
        assert_eq!(len, (method == "HEAD").then_some("1000"), "{path}");
    }
}

#[tokio::test]
async fn content_that_breaks_off_looks_like_none_that_ended() {
    let (proxy, _backend) = answering().await;
    let mut http2 = Http2::open(proxy.address("http")).await;
    http2.get(1, "/until-close").await;
    assert_eq!(http2.outcome(1).await.body(), b"all of it");
    for (stream, path) in [(3, "/short"), (5, "/chunks")] {
        http2.get(stream, path).await;
        let outcome = http2.outcome(stream).await;
        assert!(matches!(outcome, Outcome::Reset(1..)), "{path}: {outcome:?}");
    }
    http2.get(7, "/until-close").await;
    assert_eq!(http2.outcome(7).await.body(), b"all of it");
}

#[tokio::test]
async fn trailers_end_the_stream() {
    let (proxy, _backend) = answering().await;
    let mut http2 = Http2::open(proxy.address("http")).await;
    http2.write(frame(HEADERS, BOTH, 1, &request("GET", "/trailers", &[("te", "trailers")]))).await;
    assert_eq!(http2.status(1).await, 200);
    let mut content = Vec::new();
    let trailers = http2.until(|event| match event {
        Event::Data { content: part, is_last, .. } => {
            assert!(!is_last, "trailers follow");
            content.extend_from_slice(part);
            None
        }
        Event::Head { fields, is_last, .. } => Some((fields.clone(), *is_last)),
        _ => None,
    });
    let (fields, is_last) = trailers.await;
    assert_eq!((fields, is_last), (vec![("x-sum".to_owned(), "6".to_owned())], true));
    assert_eq!(content, b"abc");
}

#[tokio::test]
async fn a_reset_takes_the_request_back_from_the_backend() {
    let (proxy, mut backend) = answering().await;
    let mut http2 = Http2::open(proxy.address("http")).await;
    http2.get(1, "/never").await;
    backend.told().await;
    http2.write(reset(1, CANCEL)).await;
    within("the end at the backend", backend.is_left()).await;
    http2.get(3, "/hops").await;
    assert_eq!(http2.outcome(3).await.status(), 200);
}
