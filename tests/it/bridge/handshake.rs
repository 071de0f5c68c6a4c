//! Opening: what the backend is asked, and how its answer becomes the client's.

use super::{ALL, BOTH, Fields, Stage, assert_works};
use crate::support::client::{Http, get, open, request, send};
use crate::support::socket::{Socket, TEXT};
use http_body_util::BodyExt as _;

#[tokio::test]
async fn the_backend_sees_a_plain_post_with_the_clients_fields() {
    let mut stage = Stage::new().await;
    for http in ALL {
        let to = stage.at(http);
        let fields = [
            ("cookie", "a=1"),
            ("x-own", "kept"),
            ("sec-websocket-protocol", "v2, v1"),
            ("sec-websocket-extensions", "permessage-deflate"),
            ("accept-encoding", "gzip"),
            ("meta-user", "forged"),
            ("connection-id", "forged"),
            ("grip-sig", "forged"),
        ];
        let opening = Socket::open(http, to, "/chat/a%20b?c=d", &fields);
        let (mut socket, id) = tokio::join!(opening, async {
            let asked = stage.backend.expect("OPEN\r\n").await;
            assert_eq!((asked.method.as_str(), asked.target.to_string().as_str()), ("POST", "/chat/a%20b?c=d"));
            assert_eq!(asked.field("host"), to.to_string(), "{http:?}");
            assert_eq!((asked.field("cookie"), asked.field("x-own")), ("a=1", "kept"));
            assert_eq!(asked.field("sec-websocket-protocol"), "v2, v1");
            assert_eq!(asked.field("sec-websocket-extensions"), "grip");
            assert_eq!(asked.field("content-type"), "application/websocket-events");
            assert_eq!(asked.field("accept"), "application/websocket-events");
            assert_eq!(asked.field("content-length"), "6");
            let is_tls = matches!(http, Http::H1Tls | Http::H2Tls);
            assert_eq!(asked.field("x-forwarded-proto"), if is_tls { "https" } else { "http" });
            assert_eq!(
                (asked.field("x-forwarded-for"), asked.field("x-forwarded-host")),
                ("127.0.0.1", &*to.to_string())
            );
            assert!(asked.field("forwarded").contains("for=127.0.0.1"), "{}", asked.field("forwarded"));
            assert_eq!(asked.field("x-request-id").len(), 16);
            for name in ["sec-websocket-key", "sec-websocket-version", "upgrade", "connection", "accept-encoding"] {
                assert_eq!(asked.field(name), "", "{http:?}: {name}");
            }
            for name in ["meta-user", "grip-sig", ":protocol", "transfer-encoding"] {
                assert!(asked.fields.iter().all(|(found, _)| found.as_str() != name), "{http:?}: {name}");
            }
            let id = asked.field("connection-id").to_owned();
            assert_eq!(id.len(), 36);
            let answer =
                [("sec-websocket-extensions", "grip"), ("sec-websocket-protocol", "v1"), ("set-cookie", "s=1")];
            asked.answer(200, &answer, "OPEN\r\n");
            id
        });
        assert_eq!(socket.fields["sec-websocket-protocol"], "v1");
        assert_eq!(socket.fields["set-cookie"], "s=1");
        for name in ["sec-websocket-extensions", "content-type", "content-length"] {
            assert!(!socket.fields.contains_key(name), "{http:?}: {name}");
        }
        socket.send(TEXT, "x").await;
        let asked = stage.backend.expect("TEXT 1\r\nx\r\n").await;
        assert_eq!((asked.field("connection-id"), asked.field("cookie")), (&*id, "a=1"));
        asked.grip("CLOSE\r\n");
    }
}

#[tokio::test]
async fn a_refusal_of_the_backend_is_the_clients_answer() {
    let mut stage = Stage::new().await;
    for http in ALL {
        let fields =
            [("content-type", "text/plain"), ("www-authenticate", "Basic realm=x"), ("keep-alive-interval", "20")];
        let answer = stage.refused(http, "/chat/x", &[], |asked| asked.answer(403, &fields, "not you")).await;
        assert_eq!((answer.status.as_u16(), answer.text()), (403, "not you"), "{http:?}");
        assert_eq!((answer.field("content-type"), answer.field("www-authenticate")), ("text/plain", "Basic realm=x"));
        assert_eq!(answer.field("keep-alive-interval"), "");
        let fields = [("content-type", "text/plain"), ("location", "/login")];
        let answer = stage.refused(http, "/chat/x", &[], |asked| asked.answer(302, &fields, "x".repeat(300_000))).await;
        assert_eq!((answer.status.as_u16(), answer.field("location"), answer.body.len()), (302, "/login", 300_000));
    }
    // None of them was opened, so that the next to be asked is no DISCONNECT.
    stage.open(Http::H1, "").await;
    stage.wait_for_metric("pushbridge_hub_sessions_opened_total{transport=\"websocket\"} 1").await;
}

#[tokio::test]
async fn what_is_no_answer_to_open_is_a_bad_gateway() {
    let mut stage = Stage::new().await;
    let events = ("content-type", "application/websocket-events");
    let cases: [(u16, Fields<'_>, &str, &str); 6] = [
        (200, &[("content-type", "text/html")], "OPEN\r\n", "is no application/websocket-events"),
        (200, &[events], "TEXT 1\r\nx\r\n", "does not begin with OPEN"),
        (200, &[events], "", "does not begin with OPEN"),
        (200, &[events], "OPEN\r\nTEXT zz\r\n", "at byte 11 of the body"),
        (200, &[events, ("sec-websocket-extensions", "other")], "OPEN\r\n", "only `grip` was offered"),
        (200, &[events, ("sec-websocket-protocol", "v1")], "OPEN\r\n", "the client did not offer"),
    ];
    for (status, fields, body, said) in cases {
        for http in BOTH {
            let answer = stage.refused(http, "/chat/x", &[], |asked| asked.answer(status, fields, body)).await;
            assert_eq!((answer.status.as_u16(), answer.field("content-type")), (502, "application/problem+json"));
            assert!(answer.text().contains(said), "{body:?}: {}", answer.text());
            assert!(answer.json()["request_id"].is_string());
            // It may think that the connection stands.
            stage.backend.expect("DISCONNECT\r\n").await.grip("");
        }
    }
    let answer = stage.refused(Http::H1, "/chat/x", &[], |asked| asked.answer(202, &[], "")).await;
    assert_eq!(answer.status, 502);
    // The backend said by its status that it opened nothing.
    let answer = stage.refused(Http::H1, "/chat/x", &[], drop).await;
    assert_eq!(answer.status, 502);
    stage.backend.expect("DISCONNECT\r\n").await.grip("");
}

#[tokio::test]
async fn a_backend_that_is_down_or_slow_is_told_apart() {
    let mut stage = Stage::new().await;
    for http in BOTH {
        let answer = Socket::try_open(http, stage.at(http), "/down", &[]).await.err().expect("refused");
        assert_eq!((answer.status.as_u16(), answer.field("content-type")), (503, "application/problem+json"));
        assert!(!answer.text().contains("127.0.0.1"), "{}", answer.text());
        let mut asked = None;
        let answer = stage.refused(http, "/slow", &[], |late| asked = Some(late)).await;
        assert_eq!(answer.status, 504);
        stage.backend.expect("DISCONNECT\r\n").await.grip("");
        drop(asked);
    }
}

#[tokio::test]
async fn pages_of_other_origins_may_not_open() {
    let mut stage = Stage::new().await;
    for http in BOTH {
        let to = stage.at(http);
        for (path, origin) in [
            ("/chat/x", "https://evil.example"),
            ("/chat/x", "null"),
            ("/pages", "https://evil.example"),
            ("/pages", &format!("http://{to}")),
        ] {
            let answer = Socket::try_open(http, to, path, &[("origin", origin)]).await.err().expect("refused");
            assert_eq!(answer.status, 403, "{path} {origin}");
        }
        assert!(stage.backend.is_quiet());
        let own = format!("http://{to}");
        let mut socket = stage.open_on(http, "/chat/x", &[("origin", &own)], "").await;
        assert_works(&mut stage, &mut socket).await;
        let mut listed = stage.open_on(http, "/pages", &[("origin", "https://shop.example")], "").await;
        assert_works(&mut stage, &mut listed).await;
        for socket in [socket, listed] {
            drop(socket);
            stage.backend.expect("DISCONNECT\r\n").await.grip("");
        }
    }
}

#[tokio::test]
async fn what_is_no_websocket_is_asked_to_upgrade() {
    let mut stage = Stage::new().await;
    let to = stage.at(Http::H1);
    let answer = send(Http::H1, to, get(to, "/chat/x", &[])).await;
    assert_eq!((answer.status.as_u16(), answer.field("upgrade")), (426, "websocket"));
    assert_eq!(answer.field("connection").to_ascii_lowercase(), "upgrade");
    let answer = send(Http::H2c, to, get(to, "/chat/x", &[])).await;
    assert_eq!((answer.status.as_u16(), answer.field("upgrade"), answer.field("connection")), (426, "", ""));
    let answer = send(Http::H1, to, request("POST", to, "/chat/x", &[], "OPEN\r\n")).await;
    assert_eq!(answer.status, 426);
    let response = open(Http::H1, to, request("HEAD", to, "/chat/x", &[], "")).await;
    assert_eq!(response.status(), 426);
    assert_eq!(response.into_body().collect().await.expect("no body").to_bytes().len(), 0);
    // A handshake that is malformed.
    let upgrade = [("upgrade", "websocket"), ("connection", "upgrade")];
    let old =
        [upgrade[0], upgrade[1], ("sec-websocket-version", "8"), ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")];
    let answer = send(Http::H1, to, get(to, "/chat/x", &old)).await;
    assert_eq!((answer.status.as_u16(), answer.field("sec-websocket-version")), (426, "13"));
    let answer =
        send(Http::H1, to, get(to, "/chat/x", &[upgrade[0], upgrade[1], ("sec-websocket-version", "13")])).await;
    assert_eq!(answer.status, 400);
    assert!(stage.backend.is_quiet());
    let mut socket = stage.open(Http::H1, "").await;
    assert_works(&mut stage, &mut socket).await;
}

#[tokio::test]
async fn a_client_that_goes_while_opening_gives_the_backend_disconnect() {
    let mut stage = Stage::new().await;
    for http in ALL {
        let to = stage.at(http);
        let opening = tokio::spawn(Socket::try_open(http, to, "/chat/x", &[]));
        let asked = stage.backend.expect("OPEN\r\n").await;
        let id = asked.field("connection-id").to_owned();
        opening.abort();
        let _ = opening.await;
        asked.grip("OPEN\r\n");
        let asked = stage.backend.expect("DISCONNECT\r\n").await;
        assert_eq!(asked.field("connection-id"), id, "{http:?}");
        asked.grip("");
    }
}
