//! Bodies that pass through as they come, both ways, over every HTTP version.

use crate::support::backend::{AnyBody, Backend, answer, full, piecewise};
use crate::support::client::{Http, Stream, dial, get, open, post, request, send, within};
use crate::support::proxy::Proxy;
use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::{Frame, Incoming};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::{Mutex, mpsc};

const ALL: [(Http, &str); 4] =
    [(Http::H1, "http"), (Http::H2c, "http"), (Http::H1Tls, "https"), (Http::H2Tls, "https")];

fn data(text: &str) -> Result<Frame<Bytes>, std::io::Error> {
    Ok(Frame::data(Bytes::copy_from_slice(text.as_bytes())))
}

fn upload(to: SocketAddr, path: &str, fields: &[(&str, &str)], body: AnyBody) -> Request<AnyBody> {
    request("POST", to, path, fields, "").map(|_| body)
}

/// How the proxy speaks to the backend.
const UPSTREAMS: [&str; 2] = ["", ", protocol: h2"];

/// A proxy with a cleartext and a TLS listener in front of `backend`.
fn both_listeners(backend: &Backend, upstream: &str) -> Proxy {
    let folder = crate::support::certificates::folder(&["localhost"]);
    let listeners = "
listeners:
  - { name: http, address: \"127.0.0.1:0\" }
  - { name: https, address: \"127.0.0.1:0\", tls: { certificates: [{ cert_file: localhost.crt, key_file: localhost.key }] } }
";
    Proxy::start_in(folder, &format!("{}{listeners}", backend.config(upstream)))
}

#[tokio::test]
async fn an_answer_passes_piece_by_piece() {
    let (hand, handed) = mpsc::unbounded_channel();
    let backend = Backend::http(move |_| {
        let (pieces, body) = piecewise();
        hand.send(pieces).expect("the test listens");
        async move { Response::builder().header("content-type", "text/event-stream").body(body).expect("a response") }
    })
    .await;
    let handed = Arc::new(Mutex::new(handed));
    for upstream in UPSTREAMS {
        let proxy = both_listeners(&backend, upstream);
        for (version, listener) in ALL {
            let to = proxy.address(listener);
            let mut stream = Stream::of(open(version, to, get(to, "/", &[])).await);
            let pieces = handed.lock().await.recv().await.expect("a request");
            for n in 0..3 {
                // The next piece is written only when the one before was seen.
                pieces.send(data(&format!("data: {n}\n\n"))).await.expect("the body is read");
                assert_eq!(stream.until("\n\n").await, format!("data: {n}\n\n"), "{version:?}");
            }
            drop(pieces);
            assert_eq!(stream.rest().await, "");
        }
    }
}

#[tokio::test]
async fn a_request_passes_piece_by_piece() {
    let (hand, mut handed) = mpsc::unbounded_channel();
    let backend = Backend::http(move |request: Request<Incoming>| {
        let hand = hand.clone();
        async move {
            let mut body = request.into_body();
            while let Some(Ok(frame)) = body.frame().await {
                if let Ok(piece) = frame.into_data()
                    && !piece.is_empty()
                {
                    hand.send(piece).expect("the test listens");
                }
            }
            answer(200, &[], "done")
        }
    })
    .await;
    for upstream in UPSTREAMS {
        let proxy = both_listeners(&backend, upstream);
        for (version, listener) in ALL {
            let to = proxy.address(listener);
            let (pieces, body) = piecewise();
            let answered = tokio::spawn(send(version, to, upload(to, "/", &[], body)));
            for n in 0..3 {
                pieces.send(data(&format!("piece {n}"))).await.expect("the body is read");
                let piece = within("a piece", handed.recv()).await.expect("a piece");
                assert_eq!(piece, format!("piece {n}"), "{version:?}");
            }
            drop(pieces);
            assert_eq!(answered.await.expect("no panic").text(), "done");
        }
    }
}

#[tokio::test]
async fn trailers_pass_both_ways() {
    let backend = Backend::http(|request: Request<Incoming>| async move {
        let collected = request.into_body().collect().await.expect("a whole body");
        let sum = collected.trailers().and_then(|trailers| trailers.get("x-sum").cloned());
        let (pieces, body) = piecewise();
        tokio::spawn(async move {
            let _ = pieces.send(data("body")).await;
            let mut trailers = HeaderMap::new();
            trailers.insert("x-sum", sum.unwrap_or("missing".parse().expect("a value")));
            let _ = pieces.send(Ok(Frame::trailers(trailers))).await;
        });
        Response::builder().header("trailer", "x-sum").body(body).expect("a response")
    })
    .await;
    for upstream in UPSTREAMS {
        let proxy = both_listeners(&backend, upstream);
        for (version, listener) in ALL {
            let to = proxy.address(listener);
            let (pieces, body) = piecewise();
            let fields = [("te", "trailers"), ("trailer", "x-sum")];
            let answered = tokio::spawn(send(version, to, upload(to, "/", &fields, body)));
            pieces.send(data("up")).await.expect("read");
            let mut trailers = HeaderMap::new();
            trailers.insert("x-sum", "42".parse().expect("a value"));
            pieces.send(Ok(Frame::trailers(trailers))).await.expect("read");
            drop(pieces);
            let answer = answered.await.expect("no panic");
            let got = answer.trailers.as_ref().and_then(|trailers| trailers.get("x-sum")).cloned();
            assert_eq!(got.as_ref().map(|sum| sum.as_bytes()), Some(&b"42"[..]), "{version:?}");
        }
    }
}

#[tokio::test]
async fn large_bodies_pass_whole_both_ways() {
    let backend = Backend::http(|request: Request<Incoming>| async move {
        let bytes = request.into_body().collect().await.expect("a whole body").to_bytes();
        answer(200, &[], bytes)
    })
    .await;
    for upstream in UPSTREAMS {
        let proxy = both_listeners(&backend, upstream);
        let sent: Bytes = (0..5_000_000_u32).map(|at| (at % 251) as u8).collect::<Vec<_>>().into();
        for (version, listener) in ALL {
            let to = proxy.address(listener);
            let answer = send(version, to, upload(to, "/", &[], full(sent.clone()))).await;
            assert!(answer.status == 200 && answer.body == sent, "{version:?}: {} bytes", answer.body.len());
        }
    }
}

#[tokio::test]
async fn a_client_that_reads_nothing_holds_no_memory() {
    let backend = Backend::raw(|mut tcp| async move {
        let _ = tcp.read(&mut [0; 4096]).await;
        let _ = tcp.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 300000000\r\n\r\n").await;
        let piece = vec![7; 1 << 16];
        while tcp.write_all(&piece).await.is_ok() {}
    })
    .await;
    let proxy = both_listeners(&backend, "");
    let to = proxy.address("http");
    let before = resident_bytes(proxy.id());
    let mut held = Vec::new();
    for version in [Http::H1, Http::H2c] {
        held.push(open(version, to, get(to, "/", &[])).await);
    }
    // Enough for the backend to fill whatever takes it: 300 MB would come within this time.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let grown = resident_bytes(proxy.id()).saturating_sub(before);
    assert!(grown < 30_000_000, "{grown} bytes more");
    drop(held);
}

fn resident_bytes(process: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{process}/statm")).expect("it runs");
    text.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).expect("pages") * 4096
}

#[tokio::test]
async fn a_client_that_goes_cancels_the_backends_request() {
    let (hand, mut handed) = mpsc::unbounded_channel();
    let backend = Backend::http(move |_| {
        let (pieces, body) = piecewise();
        hand.send(pieces).expect("the test listens");
        async move { Response::new(body) }
    })
    .await;
    for upstream in UPSTREAMS {
        let proxy = both_listeners(&backend, upstream);
        for (version, listener) in ALL {
            let to = proxy.address(listener);
            let mut stream = Stream::of(open(version, to, get(to, "/", &[])).await);
            let pieces = handed.recv().await.expect("a request");
            pieces.send(data("x")).await.expect("read");
            stream.until("x").await;
            drop(stream);
            within("the backend to see it", pieces.closed()).await;
        }
    }
}

#[tokio::test]
async fn a_client_that_goes_before_the_answer_cancels_too() {
    let (hand, mut handed) = mpsc::unbounded_channel();
    let backend = Backend::raw(move |mut tcp| {
        let hand = hand.clone();
        async move {
            let mut asked = Vec::new();
            let end = |asked: &[u8]| if asked.starts_with(b"POST") { "\r\n\r\nbody" } else { "\r\n\r\n" };
            while !asked.ends_with(end(&asked).as_bytes()) {
                assert!(tcp.read_buf(&mut asked).await.expect("a request") > 0);
            }
            hand.send("asked").expect("the test listens");
            let ended = tcp.read(&mut [0; 4096]).await;
            assert!(!matches!(ended, Ok(1..)), "more bytes");
            hand.send("gone").expect("the test listens");
        }
    })
    .await;
    let proxy = both_listeners(&backend, "");
    for (version, listener) in ALL {
        let to = proxy.address(listener);
        for request in [get(to, "/", &[]), post(to, "/", &[], "body")] {
            let asking = tokio::spawn(open(version, to, request));
            assert_eq!(within("a request", handed.recv()).await, Some("asked"));
            asking.abort();
            assert_eq!(within("a close", handed.recv()).await, Some("gone"), "{version:?}");
        }
    }
}

#[tokio::test]
async fn a_client_that_expects_100_gets_it_when_its_body_is_wanted() {
    let backend = Backend::mirror().await;
    let proxy = both_listeners(&backend, "");
    let mut tcp = dial(proxy.address("http")).await;
    tcp.write_all(
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n",
    )
    .await
    .expect("written");
    let mut interim = [0; 25];
    within("100", tcp.read_exact(&mut interim)).await.expect("an interim answer");
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    tcp.write_all(b"hello").await.expect("written");
    let mut rest = String::new();
    within("an answer", tcp.read_to_string(&mut rest)).await.expect("text");
    assert!(rest.starts_with("HTTP/1.1 200 OK\r\n") && rest.contains("\"body\":\"hello\""), "{rest}");
    assert!(!rest.contains("\"expect\""), "{rest}");
}

#[tokio::test]
async fn an_early_answer_reaches_a_client_that_still_uploads() {
    // One backend reads on, one leaves the rest unread and closes.
    let patient = Backend::raw(|mut tcp| async move {
        let _ = tcp.read(&mut [0; 1000]).await;
        let _ = tcp.write_all(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 5\r\n\r\nlarge").await;
        let mut rest = vec![0; 1 << 16];
        while let Ok(1..) = tcp.read(&mut rest).await {}
    })
    .await;
    let stubborn = Backend::raw(|mut tcp| async move {
        let _ = tcp.read(&mut [0; 1000]).await;
        let _ = tcp.write_all(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 5\r\n\r\nlarge").await;
        std::future::pending::<()>().await;
    })
    .await;
    for backend in [patient, stubborn] {
        let proxy = both_listeners(&backend, "");
        for (version, listener) in ALL {
            let to = proxy.address(listener);
            let (pieces, body) = piecewise();
            let sending = tokio::spawn(async move {
                while pieces.send(Ok(Frame::data(Bytes::from_static(&[7; 1 << 14])))).await.is_ok() {}
            });
            let response = open(version, to, upload(to, "/", &[], body)).await;
            assert_eq!(response.status(), 413, "{version:?}");
            let text = within("the answer's body", response.into_body().collect()).await.expect("a whole body");
            assert_eq!(text.to_bytes(), "large", "{version:?}");
            sending.abort();
        }
    }
}

#[tokio::test]
async fn the_answer_to_an_unwanted_upload_is_not_lost_in_a_reset() {
    let backend = Backend::raw(|mut tcp| async move {
        let _ = tcp.read(&mut [0; 1000]).await;
        let _ = tcp.write_all(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 5\r\n\r\nlarge").await;
        std::future::pending::<()>().await;
    })
    .await;
    let proxy = both_listeners(&backend, "");
    let mut tcp = dial(proxy.address("http")).await;
    // The client writes all it has before it reads; more than sockets buffer would block it, less is lost by a reset.
    tcp.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n").await.expect("written");
    for _ in 0..20 {
        tcp.write_all(&[7; 10_000]).await.expect("the connection stands");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mut text = String::new();
    within("an answer", tcp.read_to_string(&mut text)).await.expect("no reset");
    assert!(text.starts_with("HTTP/1.1 413 ") && text.ends_with("large"), "{text}");
}

#[tokio::test]
async fn bodies_that_break_off_have_no_clean_end() {
    let (hand, mut handed) = mpsc::unbounded_channel();
    let (tell, mut told) = mpsc::unbounded_channel();
    let backend = Backend::http(move |request: Request<Incoming>| {
        let tell = tell.clone();
        let (pieces, body) = piecewise();
        hand.send(pieces).expect("the test listens");
        tokio::spawn(async move {
            let whole = request.into_body().collect().await.is_ok();
            tell.send(whole).expect("the test listens");
        });
        async move { Response::new(body) }
    })
    .await;
    for upstream in UPSTREAMS {
        let proxy = both_listeners(&backend, upstream);
        for (version, listener) in ALL {
            let to = proxy.address(listener);
            // The backend's body breaks.
            let mut body = open(version, to, get(to, "/", &[])).await.into_body();
            assert_eq!(within("the request's end", told.recv()).await, Some(true));
            let pieces = handed.recv().await.expect("a request");
            pieces.send(data("half")).await.expect("read");
            let half = within("half", body.frame()).await.expect("a frame").expect("data");
            assert_eq!(half.data_ref().map(|data| &data[..]), Some(&b"half"[..]));
            pieces.send(Err(std::io::ErrorKind::Other.into())).await.expect("read");
            let rest = within("the body's end", body.collect()).await;
            assert!(rest.is_err(), "{version:?} {upstream}: a clean end");
            // The client's body breaks.
            let (up, body) = piecewise();
            let sending = tokio::spawn(open(version, to, upload(to, "/", &[], body)));
            up.send(data("half")).await.expect("read");
            let _response = sending.await.expect("no panic");
            let _pieces = handed.recv().await.expect("a request");
            up.send(Err(std::io::ErrorKind::Other.into())).await.expect("read");
            assert_eq!(within("the request's end", told.recv()).await, Some(false), "{version:?} {upstream}");
        }
    }
}
