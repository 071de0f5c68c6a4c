//! The reverse proxy: routing, heads both ways, failures of the backend. Its streams, tunnels and enemies: below.

mod hostile;
mod hostile_backend;
mod streaming;
mod take_over;
mod tunnel;

use crate::support::backend::{Backend, answer, full, piecewise};
use crate::support::client::{Answer, Http, dial, get, open, post, raw, request, send, within};
use crate::support::proxy::Proxy;
use http_body_util::BodyExt as _;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

const BOTH: [Http; 2] = [Http::H1, Http::H2c];

/// A problem document with all its members.
#[track_caller]
fn check_problem(answer: &Answer, status: u16) {
    assert_eq!(answer.status, status, "{}", answer.text());
    assert_eq!(answer.field("content-type"), "application/problem+json");
    let json = answer.json();
    assert_eq!(json["status"], status);
    assert_eq!(json["request_id"].as_str().map(str::len), Some(16), "{json}");
    assert!(json["title"].is_string() && json["detail"].is_string(), "{json}");
}

#[tokio::test]
async fn routes_are_found_by_host_path_method_and_fields() {
    let (shop, other) = (named("shop").await, named("other").await);
    let proxy = Proxy::start(&format!(
        "
upstreams:
  shop: {{ servers: [\"http://{}\"] }}
  other: {{ servers: [\"http://{}\"] }}
routes:
  - {{ name: exact, match: {{ host: a.example, path: /x }}, proxy: {{ upstream: shop }} }}
  - {{ name: wild, match: {{ host: \"*.b.example\", path: \"/**\" }}, proxy: {{ upstream: shop }} }}
  - {{ name: field, match: {{ path: /f, headers: {{ x-beta: \"1\" }} }}, proxy: {{ upstream: shop }} }}
  - {{ name: parameter, match: {{ path: \"/p/{{id}}/end\" }}, proxy: {{ upstream: shop }} }}
  - {{ name: below, match: {{ path: \"/t/**\", methods: [GET, PUT] }}, proxy: {{ upstream: shop }} }}
  - {{ name: beside, match: {{ path: /f }}, proxy: {{ upstream: other }} }}
",
        shop.address(),
        other.address()
    ));
    let to = proxy.address("http");
    for version in BOTH {
        let check = async |path: &str, fields: &[(&str, &str)], expected: &str| {
            let answer = send(version, to, hosted(version, to, "GET", path, fields)).await;
            let seen = if answer.status == 200 { answer.text().to_owned() } else { answer.status.as_u16().to_string() };
            assert_eq!(seen, expected, "{version:?} {path} {fields:?}");
        };
        check("/x", &[("host", "a.example")], "shop").await;
        check("/x", &[("host", "A.Example:8080")], "shop").await;
        check("/x", &[("host", "b.example")], "404").await;
        check("/any", &[("host", "sub.b.example")], "shop").await;
        check("/any", &[("host", "deep.sub.b.example")], "404").await;
        check("/f", &[("x-beta", "1")], "shop").await;
        check("/f", &[("x-beta", "2")], "other").await;
        check("/f", &[], "other").await;
        check("/p/1/end", &[], "shop").await;
        check("/p/a%2Fb/end", &[], "shop").await;
        check("/p//end", &[], "404").await;
        check("/p/1/2/end", &[], "404").await;
        for below in ["/t", "/t/", "/t/a/b?c=/d"] {
            check(below, &[], "shop").await;
        }
        check("/tea", &[], "404").await;
        for dots in ["/t/../x", "/t/%2e%2E/x", "/t/.", "/t/%2e", "/t/a/.%2e"] {
            check(dots, &[], "400").await;
        }
        let refused = send(version, to, request("POST", to, "/t/a", &[], "")).await;
        check_problem(&refused, 405);
        assert_eq!(refused.field("allow"), "GET, PUT");
        check_problem(&send(version, to, get(to, "/nothing", &[])).await, 404);
    }
}

/// A backend that answers with its name.
async fn named(name: &'static str) -> Backend {
    Backend::http(move |_| async move { answer(200, &[], name) }).await
}

/// A request whose `host` field becomes the authority on HTTP/2.
fn hosted(
    version: Http,
    to: SocketAddr,
    method: &str,
    path: &str,
    fields: &[(&str, &str)],
) -> http::Request<http_body_util::Full<bytes::Bytes>> {
    let mut made = request(method, to, path, fields, "");
    if version == Http::H2c
        && let Some(host) = made.headers_mut().remove("host")
    {
        *made.uri_mut() = format!("http://{}{path}", host.to_str().expect("text")).parse().expect("a URI");
    }
    made
}

#[tokio::test]
async fn a_request_reaches_the_backend_as_it_was_and_with_its_origin() {
    let backend = Backend::mirror().await;
    let proxy = Proxy::start(&backend.config(""));
    let to = proxy.address("http");
    for version in BOTH {
        let fields = [
            ("x-forwarded-for", "6.6.6.6"),
            ("forwarded", "for=6.6.6.6"),
            ("x-forwarded-host", "evil.example"),
            ("x-request-id", "mine"),
            ("cookie", "a=1"),
            ("cookie", "b=2"),
            ("x-own", "kept"),
            ("te", "trailers"),
        ];
        let path = "/a%20b/%7Euser//c;d=1?q=%2F&r=%e2%82%ac";
        let seen = send(version, to, post(to, path, &fields, "body")).await.json();
        assert_eq!((&seen["method"], &seen["target"], &seen["body"]), (&"POST".into(), &path.into(), &"body".into()));
        let got = &seen["fields"];
        assert_eq!(got["host"], to.to_string());
        assert_eq!(got["x-forwarded-for"], "127.0.0.1");
        assert_eq!(got["x-forwarded-proto"], "http");
        assert_eq!(got["x-forwarded-host"], to.to_string());
        assert_eq!(got["forwarded"], format!("for=127.0.0.1;host=\"{to}\";proto=http"));
        assert_eq!(got["via"], if version == Http::H1 { "1.1 pushbridge" } else { "2.0 pushbridge" });
        assert_eq!(got["cookie"], "a=1; b=2");
        assert_eq!(got["x-own"], "kept");
        assert_eq!(got["content-length"], "4");
        assert_eq!(got["x-request-id"].as_str().map(str::len), Some(16), "{got}");
    }
}

#[tokio::test]
async fn fields_of_one_hop_go_no_further() {
    let backend = Backend::http(|request| async move {
        let named: Vec<_> = request.headers().keys().map(|name| name.as_str().to_owned()).collect();
        let hop = [("connection", "x-inner"), ("x-inner", "1"), ("keep-alive", "timeout=9"), ("x-outer", "1")];
        answer(200, &hop, named.join(" "))
    })
    .await;
    let proxy = Proxy::start(&backend.config(""));
    let to = proxy.address("http");
    let text = raw(
        to,
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: 5\r\nProxy-Connection: x\r\n\
          Proxy-Authorization: secret\r\nUpgrade: h2c\r\nHTTP2-Settings: AAA\r\nX-End: 1\r\n\r\n",
        "",
    )
    .await;
    let (head, seen) = text.split_once("\r\n\r\n").expect("a head");
    for gone in ["x-hop", "keep-alive", "proxy-", "upgrade", "http2-settings"] {
        assert!(!seen.contains(gone), "{seen}");
    }
    assert!(seen.contains("x-end"), "{seen}");
    assert!(head.contains("x-outer: 1") && !head.contains("x-inner") && !head.contains("keep-alive"), "{head}");
    let h2 = send(Http::H2c, to, get(to, "/", &[])).await;
    assert_eq!((h2.field("connection"), h2.field("keep-alive"), h2.field("x-outer")), ("", "", "1"));
}

#[tokio::test]
async fn a_trusted_proxys_forwarding_is_extended() {
    let backend = Backend::mirror().await;
    let listener = "\nlisteners: [{ name: http, address: \"127.0.0.1:0\", trusted_proxies: [127.0.0.0/8] }]\n";
    let proxy = Proxy::start(&format!("{}{listener}", backend.config("")));
    let to = proxy.address("http");
    let fields = [
        ("x-forwarded-for", "192.0.2.1"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "shop.example"),
        ("forwarded", "for=192.0.2.1;proto=https"),
        ("via", "1.1 edge"),
    ];
    let seen = send(Http::H1, to, get(to, "/", &fields)).await.json();
    let got = &seen["fields"];
    assert_eq!(got["x-forwarded-for"], "192.0.2.1, 127.0.0.1");
    assert_eq!((&got["x-forwarded-proto"], &got["x-forwarded-host"]), (&"https".into(), &"shop.example".into()));
    assert!(got["forwarded"].as_str().expect("text").starts_with("for=192.0.2.1;proto=https, for=127.0.0.1"), "{got}");
    assert_eq!(got["via"], "1.1 edge, 1.1 pushbridge");
}

#[tokio::test]
async fn answers_without_a_body_keep_their_fields() {
    let backend = Backend::raw(|mut tcp| async move {
        let mut head = vec![0; 4096];
        while let Ok(len @ 1..) = tcp.read(&mut head).await {
            let head = String::from_utf8_lossy(&head[..len]).into_owned();
            let answer: &[u8] = match head.split(' ').nth(1).expect("a target") {
                "/head" => b"HTTP/1.1 200 OK\r\nContent-Length: 12345\r\nETag: \"h\"\r\n\r\n",
                "/head-chunked" => b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
                "/204" => b"HTTP/1.1 204 No Content\r\nX-A: 1\r\n\r\n",
                "/304" => b"HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\nContent-Length: 99\r\n\r\n",
                _ => b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            };
            tcp.write_all(answer).await.expect("written");
        }
    })
    .await;
    let proxy = Proxy::start(&backend.config(""));
    let to = proxy.address("http");
    for version in BOTH {
        let head = send(version, to, request("HEAD", to, "/head", &[], "")).await;
        assert_eq!((head.status.as_u16(), head.field("content-length"), head.body.len()), (200, "12345", 0));
        let head = send(version, to, request("HEAD", to, "/head-chunked", &[], "")).await;
        assert_eq!((head.status.as_u16(), head.field("content-length")), (200, ""), "{version:?}");
        let none = send(version, to, get(to, "/204", &[])).await;
        assert_eq!((none.status.as_u16(), none.field("content-length"), none.field("x-a")), (204, "", "1"));
        let same = send(version, to, get(to, "/304", &[])).await;
        assert_eq!((same.status.as_u16(), same.field("etag"), same.body.len()), (304, "\"x\"", 0));
        let empty = send(version, to, get(to, "/", &[])).await;
        assert_eq!((empty.status.as_u16(), empty.field("content-length")), (200, "0"));
    }
    // The bodiless answers left the connections in step.
    let text = raw(
        to,
        b"HEAD /head HTTP/1.1\r\nHost: a\r\n\r\nGET /304 HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        "",
    )
    .await;
    let heads: Vec<_> = text.matches("HTTP/1.1 ").collect();
    assert_eq!(heads.len(), 3, "{text}");
    assert_eq!(text.matches("\r\n\r\n").count(), 3, "{text}");
}

#[tokio::test]
async fn backend_connections_are_used_again() {
    let backend = Backend::mirror().await;
    let proxy = Proxy::start(&format!("{}\nruntime: {{ workers: 1 }}\n", backend.config("")));
    let to = proxy.address("http");
    for turn in 0..10 {
        let answer = send(BOTH[turn % 2], to, post(to, "/", &[], "x".repeat(1000 * turn))).await;
        assert_eq!(answer.status, 200);
    }
    assert_eq!(backend.connections(), 1);
}

#[tokio::test]
async fn failures_of_the_backend_are_problems() {
    let garbage = Backend::raw(|mut tcp| async move {
        let _ = tcp.read(&mut [0; 4096]).await;
        let _ = tcp.write_all(b"220 mail.example ESMTP\r\n").await;
    })
    .await;
    let silent = Backend::raw(|tcp| async move {
        let _held = tcp;
        std::future::pending().await
    })
    .await;
    let down = TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("an address");
    let proxy = Proxy::start(&format!(
        "
upstreams:
  down: {{ servers: [\"http://{down}\"] }}
  garbage: {{ servers: [\"http://{}\"] }}
  slow: {{ servers: [\"http://{}\"], timeouts: {{ response: 200ms }} }}
routes:
  - {{ name: down, match: {{ path: /down }}, proxy: {{ upstream: down }} }}
  - {{ name: garbage, match: {{ path: /garbage }}, proxy: {{ upstream: garbage }} }}
  - {{ name: slow, match: {{ path: /slow }}, proxy: {{ upstream: slow }} }}
",
        garbage.address(),
        silent.address()
    ));
    let to = proxy.address("http");
    for version in BOTH {
        for (path, status) in [("/down", 503), ("/garbage", 502), ("/slow", 504)] {
            let answer = send(version, to, get(to, path, &[])).await;
            check_problem(&answer, status);
            assert_eq!(answer.json()["upstream"], path[1..]);
            assert!(!answer.text().contains("127.0.0.1"), "{}", answer.text());
        }
    }
}

#[tokio::test]
async fn a_body_that_the_backend_breaks_off_has_no_clean_end() {
    let backend = Backend::raw(|mut tcp| async move {
        let mut head = [0; 4096];
        let len = tcp.read(&mut head).await.expect("a head");
        let chunked = String::from_utf8_lossy(&head[..len]).starts_with("GET /chunked");
        let answer: &[u8] = match chunked {
            true => b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
            false => b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello",
        };
        tcp.write_all(answer).await.expect("written");
    })
    .await;
    let proxy = Proxy::start(&backend.config(""));
    let to = proxy.address("http");
    for version in BOTH {
        for path in ["/chunked", "/length"] {
            let response = open(version, to, get(to, path, &[])).await;
            assert_eq!(response.status(), 200);
            let broken = response.into_body().collect().await;
            assert!(broken.is_err(), "{version:?} {path}: a clean end");
        }
    }
    let text = raw(to, b"GET /chunked HTTP/1.1\r\nHost: a\r\n\r\n", "").await;
    assert!(text.contains("hello") && !text.ends_with("0\r\n\r\n"), "{text}");
    // An HTTP/1.0 client knows the end by the close alone, so it must not be an ordinary one.
    let mut tcp = dial(to).await;
    tcp.write_all(b"GET /chunked HTTP/1.0\r\n\r\n").await.expect("written");
    let ended = within("the end", tcp.read_to_end(&mut Vec::new())).await;
    assert!(ended.is_err(), "a clean end");
}

#[tokio::test]
async fn old_and_odd_clients_are_understood() {
    let (hand, mut handed) = tokio::sync::mpsc::unbounded_channel();
    let backend = Backend::http(move |request| {
        let (pieces, body) = piecewise();
        hand.send((request.uri().to_string(), pieces)).expect("the test listens");
        async move { http::Response::new(body) }
    })
    .await;
    let proxy = Proxy::start(&backend.config(""));
    let to = proxy.address("http");
    for (request, target) in [
        ("GET /old HTTP/1.0\r\n\r\n", "/old"),
        ("GET http://A.example:80/absolute?q HTTP/1.0\r\nHost: a.example\r\n\r\n", "/absolute?q"),
        ("\r\n\r\nGET /late HTTP/1.0\r\n\r\n", "/late"),
        ("GET /upper HTTP/1.0\r\nHOST: a\r\nTE:trailers\r\nX-Empty:\r\nX-Tab:\t1\t\r\n\r\n", "/upper"),
    ] {
        let reading = tokio::spawn(async move { raw(to, request.as_bytes(), "").await });
        let (seen, pieces) = within("a request", handed.recv()).await.expect("a request");
        assert_eq!(seen, target);
        for piece in ["one ", "two"] {
            pieces.send(Ok(hyper::body::Frame::data(piece.into()))).await.expect("read");
        }
        drop(pieces);
        let text = reading.await.expect("no panic");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head");
        assert!(head.starts_with("HTTP/1.1 200 OK"), "{head}");
        assert!(!head.contains("transfer-encoding"), "{head}");
        assert_eq!(body, "one two");
    }
    // Asking for the server itself is asking for no route.
    let text = raw(to, b"OPTIONS * HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "").await;
    assert!(text.starts_with("HTTP/1.1 404 "), "{text}");
}

#[tokio::test]
async fn a_neighbour_is_answered_while_another_request_waits() {
    let backend = Backend::http(|request| async move {
        if request.uri().path() == "/wait" {
            std::future::pending::<()>().await;
        }
        http::Response::new(full("ok"))
    })
    .await;
    let proxy = Proxy::start(&backend.config(""));
    let to = proxy.address("http");
    let mut stuck = tokio::net::TcpStream::connect(to).await.expect("a connection");
    stuck.write_all(b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n").await.expect("written");
    for version in BOTH {
        assert_eq!(send(version, to, get(to, "/", &[])).await.text(), "ok");
    }
}
