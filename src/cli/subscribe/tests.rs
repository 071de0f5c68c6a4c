//! Each transport against a server that the test plays.

use super::*;
use bytes::Bytes;
use clap::Parser as _;
use futures_util::{SinkExt as _, StreamExt as _};
use http_body_util::Full;
use proptest::prelude::*;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject as _;
use std::cell::RefCell;
use std::rc::Rc;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

#[derive(clap::Parser)]
struct Command {
    #[command(flatten)]
    args: SubscribeArgs,
}

fn block_on<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default());
    let limited = async { tokio::time::timeout(Duration::from_secs(30), test).await.expect("the test ends in time") };
    runtime.expect("a runtime").block_on(limited)
}

/// Runs the command with `arguments` and gives its result, output and error output.
async fn subscribe_with(url: &str, arguments: &[&str]) -> (anyhow::Result<()>, String, String) {
    let command = Command::try_parse_from(["subscribe", url].iter().chain(arguments)).expect("arguments are right");
    let (mut out, mut notes) = (Vec::new(), Vec::new());
    let result = subscribe(&command.args, &mut out, &mut notes).await;
    (result, String::from_utf8(out).expect("text"), String::from_utf8(notes).expect("text"))
}

/// Answers one connection after the other with the scripted bytes (`LENGTH` is the body's), then closes it; remembers the request heads.
async fn serve(script: &'static [&'static str]) -> (String, Rc<RefCell<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}/prices/ACME?a=b", listener.local_addr().expect("an address"));
    let requests = Rc::new(RefCell::new(Vec::new()));
    let seen = Rc::clone(&requests);
    tokio::task::spawn_local(async move {
        for answer in script {
            let (mut socket, _) = listener.accept().await.expect("a client");
            for part in answer.split("<next request>") {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(socket.read_u8().await.expect("a request"));
                }
                seen.borrow_mut().push(String::from_utf8(head).expect("text"));
                let length = part.split_once("\r\n\r\n").map_or(0, |(_, body)| body.len());
                let part = part.replace("LENGTH", &length.to_string());
                socket.write_all(part.as_bytes()).await.expect("written");
            }
        }
    });
    (url, requests)
}

#[test]
fn a_lost_stream_goes_on_from_its_cursor() {
    block_on(async {
        let (url, requests) = serve(&[
            "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n\r\nretry: 1\nid: c0\n\nevent: price\nid: c1\ndata: one\n\nid: c2\ndata: cut",
            "HTTP/1.1 503 Busy\r\nRetry-After: 0\r\nContent-Length: LENGTH\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\nid: c2\ndata: two\n\n",
        ])
        .await;
        let (result, out, notes) = subscribe_with(&url, &["--count", "2", "--header", "X-A: b"]).await;
        assert!(result.is_ok(), "{result:?}");
        assert_eq!(out, "one\ntwo\n");
        assert!(notes.contains("lost: the stream ended; trying again in 0.0 s"), "{notes}");
        assert!(notes.contains("lost: the server answered 503"), "{notes}");
        let requests = requests.borrow();
        assert!(requests[0].starts_with("GET /prices/ACME?a=b HTTP/1.1\r\n"), "{}", requests[0]);
        for field in ["accept: text/event-stream\r\n", "x-a: b\r\n", "host: 127.0.0.1:"] {
            assert!(requests[0].contains(field), "{}", requests[0]);
        }
        assert!(!requests[0].contains("last-event-id"));
        assert!(requests[1].contains("last-event-id: c1\r\n") && requests[2].contains("last-event-id: c1\r\n"));
    });
}

#[test]
fn a_gap_is_told_and_is_no_event() {
    block_on(async {
        let (url, requests) = serve(&["HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n\
            event: gap\nid: c5\ndata: {\"channels\":[\"prices.ACME\"],\"reason\":\"evicted\"}\n\nid: c6\ndata: {\"p\":1}\n\n"])
        .await;
        let (result, out, notes) = subscribe_with(&url, &["--count", "1", "--json", "--last-event-id", "c0"]).await;
        assert!(result.is_ok(), "{result:?}");
        assert_eq!(out, "{\"id\":\"c6\",\"event\":null,\"data\":{\"p\":1}}\n");
        assert_eq!(notes, "pushbridge: gap: events of prices.ACME are lost (evicted)\n");
        assert!(requests.borrow()[0].contains("last-event-id: c0\r\n"));
    });
}

#[track_caller]
fn check_ends(answer: &'static [&'static str], arguments: &[&str], text: &str) {
    block_on(async {
        let (url, _) = serve(answer).await;
        let (result, out, _) = subscribe_with(&url, arguments).await;
        let error = format!("{:#}", result.expect_err("it is refused"));
        assert!(error.contains(text), "{error}");
        assert_eq!(out, "");
    });
}

#[test]
fn a_refusal_ends_it_with_the_reason() {
    check_ends(
        &["HTTP/1.1 404 Not Found\r\nContent-Length: LENGTH\r\n\r\n{\"detail\":\"no route for this\"}"],
        &[],
        "the server answered 404 Not Found: no route for this",
    );
    check_ends(
        &["HTTP/1.1 302 Found\r\nLocation: /b\r\nContent-Length: LENGTH\r\n\r\n"],
        &[],
        "subscribe to /b instead",
    );
    check_ends(
        &["HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: LENGTH\r\n\r\n"],
        &[],
        "\"text/html\", not text/event-stream",
    );
    check_ends(
        &["HTTP/1.1 200 OK\r\nContent-Length: LENGTH\r\n\r\n{}"],
        &["--transport", "long-poll"],
        "is this the URL of a push route?",
    );
    check_ends(
        &["HTTP/1.1 403 Forbidden\r\nContent-Length: LENGTH\r\n\r\n{\"title\":\"not yours\"}"],
        &["--transport", "websocket"],
        "the server answered 403 Forbidden",
    );
    check_ends(&["HTTP/1.1 503 Busy\r\nContent-Length: LENGTH\r\n\r\n"], &[], "the server answered 503");
}

#[test]
fn a_server_that_is_not_there_is_named() {
    block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}/", listener.local_addr().expect("an address"));
        drop(listener);
        let (result, ..) = subscribe_with(&url, &[]).await;
        let error = format!("{:#}", result.expect_err("nobody listens"));
        assert!(error.starts_with(&url) && error.contains("can't connect"), "{error}");
        let (result, ..) = subscribe_with("ftp://localhost/", &[]).await;
        assert!(format!("{:#}", result.expect_err("no HTTP")).contains("no http:// or https:// URL"));
    });
}

#[test]
fn long_polls_follow_each_other_on_one_connection() {
    block_on(async {
        let (url, requests) = serve(&["HTTP/1.1 204 No Content\r\nETag: \"c0\"\r\n\r\n<next request>\
            HTTP/1.1 200 OK\r\nContent-Length: LENGTH\r\n\r\n\
            {\"events\":[{\"id\":\"c1\",\"channel\":\"a\",\"event\":\"e\",\"data\":{\"n\":1.50}},{\"id\":\"c2\",\"channel\":\"a\",\"data\":\"two\"}],\"next\":\"c2\",\"gap\":null}<next request>\
            HTTP/1.1 200 OK\r\nContent-Length: LENGTH\r\n\r\n\
            {\"events\":[{\"id\":\"c9\",\"channel\":\"a\",\"event\":\"e\",\"data_base64\":\"AAE=\"}],\"next\":\"c9\",\"gap\":{\"channels\":[\"a\"],\"reason\":\"evicted\"}}"])
        .await;
        let (result, out, notes) = subscribe_with(&url, &["--transport", "long-poll", "--count", "3"]).await;
        assert!(result.is_ok(), "{result:?}");
        assert_eq!(out, "{\"n\":1.50}\ntwo\nAAE=\n");
        assert_eq!(notes, "pushbridge: gap: events of a are lost (evicted)\n");
        let requests = requests.borrow();
        assert!(requests[0].contains("accept: application/json\r\n") && requests[0].contains("prefer: wait=25\r\n"));
        assert!(!requests[0].contains("last-event-id"));
        assert!(requests[1].contains("last-event-id: c0\r\n") && requests[2].contains("last-event-id: c2\r\n"));
    });
}

#[test]
fn a_websocket_that_is_told_to_reconnect_goes_on_from_its_cursor() {
    use tokio_tungstenite::tungstenite::Message as Frame;
    use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
    block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}/prices", listener.local_addr().expect("an address"));
        let cursors = Rc::new(RefCell::new(Vec::new()));
        let seen = Rc::clone(&cursors);
        tokio::task::spawn_local(async move {
            let first = [
                r#"{"type":"welcome","session":"s","cursor":"c0","resumed":false}"#,
                r#"{"type":"subscribed","channel":"a"}"#,
                r#"{"type":"event","channel":"a","id":"c1","event":"e","data":"one"}"#,
                r#"{"type":"gap","channels":["a"],"reason":"slow","id":"c4"}"#,
                r#"{"type":"reconnect","after_ms":1,"cursor":"c5"}"#,
            ];
            let second = [r#"{"type":"event","channel":"a","id":"c6","data":{"n":2}}"#];
            for frames in [&first[..], &second[..]] {
                let (socket, _) = listener.accept().await.expect("a client");
                #[expect(clippy::result_large_err, reason = "the library's signature")]
                let look = |request: &Request, mut response: Response| {
                    assert_eq!(request.headers()["sec-websocket-protocol"], SUBPROTOCOL);
                    seen.borrow_mut().push(request.headers().get("last-event-id").cloned());
                    response.headers_mut().insert("sec-websocket-protocol", SUBPROTOCOL.parse().expect("a value"));
                    Ok(response)
                };
                let mut socket = tokio_tungstenite::accept_hdr_async(socket, look).await.expect("a handshake");
                for frame in frames {
                    socket.send(Frame::text(*frame)).await.expect("sent");
                }
                socket.close(None).await.expect("closed");
                while socket.next().await.is_some() {}
            }
        });
        let (result, out, notes) = subscribe_with(&url, &["--transport", "websocket", "--count", "2"]).await;
        assert!(result.is_ok(), "{result:?}");
        assert_eq!(out, "one\n{\"n\":2}\n");
        assert!(notes.contains("gap: events of a are lost (slow)"), "{notes}");
        assert!(notes.contains("trying again in 0.0 s"), "{notes}");
        assert_eq!(*cursors.borrow(), [None, Some("c5".parse().expect("a value"))]);
    });
}
const SUBPROTOCOL: &str = "pushbridge.v1.json";

#[test]
fn over_tls_http2_is_used_and_the_certificate_is_checked() {
    block_on(async {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        let key = PrivateKeyDer::from_pem_slice(made.signing_key.serialize_pem().as_bytes()).expect("a key");
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let builder = rustls::ServerConfig::builder_with_provider(provider.into());
        let builder = builder.with_safe_default_protocol_versions().expect("versions").with_no_client_auth();
        let mut config = builder.with_single_cert(vec![made.cert.der().clone()], key).expect("a pair");
        config.alpn_protocols = vec![b"h2".to_vec()];
        let acceptor = tokio_rustls::TlsAcceptor::from(std::sync::Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("https://localhost:{}/", listener.local_addr().expect("an address").port());
        tokio::task::spawn_local(async move {
            loop {
                let (socket, _) = listener.accept().await.expect("a client");
                let Ok(socket) = acceptor.accept(socket).await else { continue };
                let service = hyper::service::service_fn(|request: http::Request<hyper::body::Incoming>| async move {
                    assert_eq!(request.version(), http::Version::HTTP_2);
                    let body = Full::new(Bytes::from_static(b"data: over h2\n\n"));
                    http::Response::builder().header("content-type", "text/event-stream").body(body)
                });
                let server = hyper::server::conn::http2::Builder::new(hyper_util::rt::TokioExecutor::new());
                drop(server.serve_connection(hyper_util::rt::TokioIo::new(socket), service).await);
            }
        });
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("ca.pem");
        std::fs::write(&file, made.cert.pem()).expect("written");
        let file = file.to_str().expect("text");
        for arguments in [&["--count", "1", "--insecure"][..], &["--count", "1", "--ca-file", file][..]] {
            let (result, out, _) = subscribe_with(&url, arguments).await;
            assert!(result.is_ok(), "{result:?}");
            assert_eq!(out, "over h2\n");
        }
        let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        std::fs::write(file, other.cert.pem()).expect("written");
        let (result, ..) = subscribe_with(&url, &["--ca-file", file]).await;
        assert!(format!("{:#}", result.expect_err("not trusted")).contains("no TLS connection (--insecure"));
        std::fs::write(file, "nothing").expect("written");
        let (result, ..) = subscribe_with(&url, &["--ca-file", file]).await;
        assert!(format!("{:#}", result.expect_err("no certificate")).contains("holds no certificate"));
    });
}

#[test]
fn arguments_are_checked() {
    let parse = |arguments: &[&str]| Command::try_parse_from(["subscribe"].iter().chain(arguments)).is_ok();
    assert!(parse(&["http://a/", "--header", "A: b", "--header", "C:d"]));
    assert!(!parse(&["http://a/", "--header", "no colon"]));
    assert!(!parse(&["http://a/", "--header", "bad name: b"]));
    assert!(!parse(&["http://a/", "--count", "0"]));
    assert!(!parse(&["http://a/", "--insecure", "--ca-file", "x"]));
    assert!(!parse(&[]));
}

proptest! {
    #[test]
    fn pauses_grow_and_stay_bounded(retry_ms in 0u64..4_000_000, failures: u32, random: u64) {
        let retry = Duration::from_millis(retry_ms);
        let pause = backoff(retry, failures, random);
        prop_assert!(pause >= retry.mul_f64(0.5).min(BACKOFF_MAX));
        prop_assert!(pause <= BACKOFF_MAX.max(retry));
    }
}
