//! Backends that answer in ways by which two readers could come to disagree, or that stop half way: no client gets another's
//! answer, and no connection serves on whose state is not sure.

use super::check_problem;
use crate::support::backend::Backend;
use crate::support::client::{Answer, Http, dial, get, open, post, send, within};
use crate::support::proxy::Proxy;
use http_body_util::BodyExt as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

const GOOD: &str = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood";
const SMUGGLED: &str = "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nsmuggled";

/// Reads a request head; `None` when the connection ends.
async fn read_head(tcp: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(tcp.read_u8().await.ok()?);
    }
    Some(String::from_utf8(head).expect("text"))
}

/// A backend that answers `/good`, and everything else with what `answer` says; tells when the proxy has ended such a
/// connection.
async fn backend(answer: Arc<Mutex<String>>) -> (Backend, mpsc::UnboundedReceiver<()>) {
    let (tell, told) = mpsc::unbounded_channel();
    let backend = Backend::raw(move |mut tcp| {
        let (answer, tell) = (Arc::clone(&answer), tell.clone());
        async move {
            while let Some(head) = read_head(&mut tcp).await {
                if head.starts_with("GET /good ") {
                    let _ = tcp.write_all(GOOD.as_bytes()).await;
                    continue;
                }
                let text = answer.lock().expect("the answer").clone();
                let _ = tcp.write_all(text.as_bytes()).await;
                while let Ok(1..) = tcp.read(&mut [0; 1000]).await {}
                let _ = tell.send(());
                return;
            }
        }
    })
    .await;
    (backend, told)
}

async fn asked(proxy: &Proxy, path: &str) -> Answer {
    let to = proxy.address("http");
    send(Http::H1, to, get(to, path, &[])).await
}

/// A request to the same proxy gets its own answer.
async fn check_good(proxy: &Proxy) {
    let good = asked(proxy, "/good").await;
    assert_eq!((good.status.as_u16(), good.text()), (200, "good"));
}

#[tokio::test]
async fn answers_that_can_be_read_in_two_ways_are_refused_and_their_connection_closed() {
    let answer = Arc::new(Mutex::new(String::new()));
    let (backend, mut ended) = backend(Arc::clone(&answer)).await;
    let proxy = Proxy::start(&backend.config(""));
    for head in [
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nContent-Length: 46\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 0, 46\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: +0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 0x0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n0\r\n\r\n",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX-A: b\r\n Content-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX-A: b\rContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX-A: b\0c\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX A: b\r\n\r\n",
        "HTTP/1.1 200 OK\r\n: b\r\n\r\n",
        "HTTP/1.1 20 OK\r\n\r\n",
        "HTTP/2.0 200 OK\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
        "\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        "SSH-2.0-x\r\n\r\n",
        "220 mail.example ESMTP\r\n\r\n",
    ] {
        *answer.lock().expect("the answer") = format!("{head}{SMUGGLED}");
        check_problem(&asked(&proxy, "/bad").await, 502);
        within("the connection's end", ended.recv()).await.expect("the backend runs");
        check_good(&proxy).await;
    }
}

#[tokio::test]
async fn heads_without_an_end_are_refused() {
    let answer = Arc::new(Mutex::new(String::new()));
    let (backend, mut ended) = backend(Arc::clone(&answer)).await;
    let proxy = Proxy::start(&backend.config(""));
    let large = format!("HTTP/1.1 200 OK\r\nX-Large: {}", "x".repeat(1_000_000));
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "X: y\r\n".repeat(1000));
    let interim = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n".repeat(10_000);
    let reason = format!("HTTP/1.1 200 {}", "x".repeat(1_000_000));
    for head in [large, many, interim, reason] {
        *answer.lock().expect("the answer") = head;
        check_problem(&asked(&proxy, "/bad").await, 502);
        within("the connection's end", ended.recv()).await.expect("the backend runs");
    }
    let interim = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n".repeat(10);
    *answer.lock().expect("the answer") = format!("{interim}HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\nnone");
    let answered = asked(&proxy, "/interim").await;
    assert_eq!((answered.status.as_u16(), answered.text(), answered.field("link")), (404, "none", ""));
}

#[tokio::test]
async fn bodies_that_are_cut_or_malformed_have_no_clean_end() {
    let answer = Arc::new(Mutex::new(String::new()));
    let (backend, mut ended) = backend(Arc::clone(&answer)).await;
    let proxy = Proxy::start(&backend.config(""));
    let to = proxy.address("http");
    for chunks in [
        "4\r\npart\r\nx\r\n",
        "4\r\npart\r\n-1\r\n",
        "4\r\npart\r\n0x4\r\nmore\r\n",
        "4\r\npart\r\n4 4\r\nmore\r\n",
        "4\r\npart\r\n4\nmore\r\n",
        "4\r\npart\r\n4;a\rb\r\nmore\r\n",
        "4\r\npartial\r\n",
        "4\r\npart\r\nfffffffffffffffff\r\n",
        "4\r\npart\r\n0\r\nno field\r\n\r\n",
        "4\r\npart\r\n0\r\nX : y\r\n\r\n",
    ] {
        for version in [Http::H1, Http::H2c] {
            let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
            *answer.lock().expect("the answer") = format!("{head}{chunks}{SMUGGLED}");
            let mut body = open(version, to, get(to, "/bad", &[])).await.into_body();
            let mut text = String::new();
            let broken = loop {
                match within("the body", body.frame()).await {
                    Some(Ok(frame)) => {
                        text += std::str::from_utf8(frame.data_ref().map_or(&[], |data| data)).expect("text");
                    }
                    Some(Err(_)) => break true,
                    None => break false,
                }
            };
            assert!(broken && "part".starts_with(&text), "{chunks:?}: {text:?}, broken: {broken}");
            within("the connection's end", ended.recv()).await.expect("the backend runs");
            check_good(&proxy).await;
        }
    }
}

#[tokio::test]
async fn a_body_that_ends_with_its_connection_half_way_is_no_whole_one() {
    let backend = Backend::raw(|mut tcp| async move {
        let head = read_head(&mut tcp).await.expect("a request");
        let answer = match head.split(' ').nth(1) {
            Some("/length") => "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\npart",
            Some("/size") => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n",
            Some("/chunk") => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\npart",
            Some("/end") => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n0\r\n",
            Some("/close") => "HTTP/1.1 200 OK\r\n\r\npart",
            _ => "HTTP/1.1 200 OK\r\nContent-",
        };
        tcp.write_all(answer.as_bytes()).await.expect("written");
    })
    .await;
    let proxy = Proxy::start(&backend.config(""));
    let to = proxy.address("http");
    for path in ["/length", "/size", "/chunk", "/end"] {
        let body = open(Http::H1, to, get(to, path, &[])).await.into_body();
        assert!(within("the body's end", body.collect()).await.is_err(), "{path}: a clean end");
    }
    assert_eq!(asked(&proxy, "/close").await.text(), "part");
    check_problem(&asked(&proxy, "/head").await, 502);
}

#[tokio::test]
async fn what_a_server_says_unasked_is_nobodys_answer() {
    let answer = Arc::new(Mutex::new(String::new()));
    // Behind the answer, in the same piece.
    let (backend, mut ended) = backend(Arc::clone(&answer)).await;
    let proxy = Proxy::start(&backend.config(""));
    for first in [GOOD, "HTTP/1.1 204 No Content\r\nContent-Length: 45\r\n\r\n", "HTTP/1.1 304 Not Modified\r\n\r\n"] {
        *answer.lock().expect("the answer") = format!("{first}{SMUGGLED}");
        let answered = asked(&proxy, "/bad").await;
        assert!(!answered.text().contains("smuggled"), "{}", answered.text());
        within("the connection's end", ended.recv()).await.expect("the backend runs");
        check_good(&proxy).await;
    }
}

#[tokio::test]
async fn a_connection_that_speaks_while_it_lies_idle_is_closed() {
    let (tell, mut ended) = mpsc::unbounded_channel();
    let (speak, go) = mpsc::unbounded_channel::<()>();
    let go = Arc::new(tokio::sync::Mutex::new(go));
    let backend = Backend::raw(move |mut tcp| {
        let (tell, go) = (tell.clone(), Arc::clone(&go));
        async move {
            read_head(&mut tcp).await.expect("a request");
            tcp.write_all(GOOD.as_bytes()).await.expect("written");
            go.lock().await.recv().await.expect("the word");
            tcp.write_all(SMUGGLED.as_bytes()).await.expect("written");
            while let Ok(1..) = tcp.read(&mut [0; 1000]).await {}
            let _ = tell.send(());
        }
    })
    .await;
    let proxy = Proxy::start(&backend.config(""));
    check_good(&proxy).await;
    speak.send(()).expect("the backend waits");
    within("the connection's end", ended.recv()).await.expect("the backend runs");
    check_good(&proxy).await;
    assert_eq!(backend.connections(), 2);
}

#[tokio::test]
async fn a_kept_connection_that_closes_at_a_request_loses_only_what_may_be_processed() {
    let posts = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&posts);
    let backend = Backend::raw(move |mut tcp| {
        let posts = Arc::clone(&counted);
        async move {
            let first = read_head(&mut tcp).await.expect("a request");
            posts.fetch_add(usize::from(first.starts_with("POST")), Ordering::Relaxed);
            tcp.write_all(GOOD.as_bytes()).await.expect("written");
            if let Some(second) = read_head(&mut tcp).await {
                posts.fetch_add(usize::from(second.starts_with("POST")), Ordering::Relaxed);
            }
        }
    })
    .await;
    let config = format!("{}\nruntime: {{ workers: 1 }}\n", backend.config(""));
    let proxy = Proxy::start(&config);
    let to = proxy.address("http");
    check_good(&proxy).await;
    // Meets the close of the connection that was kept, and is asked again on another.
    check_good(&proxy).await;
    assert_eq!(backend.connections(), 2);
    check_problem(&send(Http::H1, to, post(to, "/good", &[], "")).await, 502);
    assert_eq!((backend.connections(), posts.load(Ordering::Relaxed)), (2, 1));
}

#[tokio::test]
async fn a_server_that_stalls_in_its_head_is_given_up() {
    let backend = Backend::raw(|mut tcp| async move {
        read_head(&mut tcp).await.expect("a request");
        let mut head = "HTTP/1.1 200 OK\r\nX-Slow: ".bytes().chain(std::iter::repeat(b'x'));
        // A byte now and then is no progress.
        while tcp.write_all(&[head.next().unwrap_or_default()]).await.is_ok() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    })
    .await;
    let proxy = Proxy::start(&backend.config(", timeouts: { response: 1s }"));
    check_problem(&asked(&proxy, "/").await, 504);
}

#[tokio::test]
async fn an_upload_and_an_early_answer_do_not_wait_for_each_other() {
    const BYTES: usize = 16 << 20;
    // It answers with more than sockets hold while it reads, and ends its answer only when it has read everything.
    let backend = Backend::raw(|mut tcp| async move {
        read_head(&mut tcp).await.expect("a request");
        let (mut reading, mut writing) = tcp.split();
        let (read, wait) = tokio::sync::oneshot::channel();
        let read_all = async {
            let (mut left, mut buffer) = (BYTES, vec![0; 1 << 16]);
            while left > 0 {
                left -= reading.read(&mut buffer).await.expect("the body");
            }
            read.send(()).expect("the writer waits");
        };
        let write_all = async {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", BYTES + 3);
            writing.write_all(head.as_bytes()).await.expect("written");
            for _ in 0..BYTES >> 16 {
                writing.write_all(&[7; 1 << 16]).await.expect("written");
            }
            wait.await.expect("the reader ends");
            writing.write_all(b"end").await.expect("written");
        };
        tokio::join!(read_all, write_all);
    })
    .await;
    let proxy = Proxy::start(&backend.config(""));
    let mut tcp = dial(proxy.address("http")).await;
    let head = format!("POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {BYTES}\r\n\r\n");
    tcp.write_all(head.as_bytes()).await.expect("written");
    // The client reads nothing before it has sent everything.
    let upload = async {
        for _ in 0..BYTES >> 16 {
            tcp.write_all(&[7; 1 << 16]).await.expect("written");
        }
    };
    within("the upload", upload).await;
    let mut answer = Vec::new();
    within("the answer", tcp.read_to_end(&mut answer)).await.expect("a clean end");
    assert!(answer.starts_with(b"HTTP/1.1 200 OK\r\n") && answer.ends_with(b"end"));
    assert!(answer.len() > BYTES);
}
