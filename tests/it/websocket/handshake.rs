//! Opening: who may, how, and what is refused.

use super::{ROUTE, at, say, start};
use crate::support::client::{Http, get, open, request, send};
use crate::support::figures::figure;
use crate::support::websocket::{ALL, H2Connection, WebSocket, ask};
use serde_json::json;

const V1: (&str, &str) = ("sec-websocket-protocol", "pushbridge.v1.json");

#[tokio::test]
async fn a_subprotocol_that_is_known_is_chosen() {
    let proxy = start(ROUTE);
    for http in ALL {
        for (offered, chosen) in [
            ("pushbridge.v1.json", Some("pushbridge.v1.json")),
            ("chat, cloudevents.json", Some("cloudevents.json")),
            ("cloudevents.json, pushbridge.v1.json", Some("pushbridge.v1.json")),
            ("chat", None),
        ] {
            let fields = [("sec-websocket-protocol", offered)];
            let socket = WebSocket::open(http, at(&proxy, http), "/events/c", &fields).await;
            let given = socket.fields.get("sec-websocket-protocol").map(|value| value.to_str().expect("text"));
            assert_eq!(given, chosen, "{http:?} {offered}");
            assert!(!socket.fields.contains_key("sec-websocket-extensions"));
        }
    }
}

#[tokio::test]
async fn an_offer_of_compression_is_declined() {
    let proxy = start(ROUTE);
    for http in [Http::H1, Http::H2c] {
        let fields = [("sec-websocket-extensions", "permessage-deflate; client_max_window_bits")];
        let socket = WebSocket::open(http, at(&proxy, http), "/events/c", &fields).await;
        assert!(!socket.fields.contains_key("sec-websocket-extensions"));
    }
}

#[tokio::test]
async fn another_version_is_answered_426() {
    let proxy = start(ROUTE);
    for http in ALL {
        for version in ["", "8", "13, 8"] {
            let refused = ask(http, at(&proxy, http), "/events/c", &[("sec-websocket-version", version)]).await;
            assert_eq!(refused.status, 426, "{http:?} {version:?}");
            assert_eq!(refused.fields["sec-websocket-version"], "13");
            let is_h1 = matches!(http, Http::H1 | Http::H1Tls);
            assert_eq!(refused.fields.contains_key("upgrade"), is_h1, "{:?}", refused.fields);
            assert_eq!(refused.problem().await["status"], 426);
        }
    }
}

#[tokio::test]
async fn broken_openings_are_answered_400() {
    let proxy = start(ROUTE);
    for fields in [
        [("sec-websocket-key", "")],
        [("sec-websocket-key", "c2hvcnQ=")],
        [("connection", "keep-alive")],
        [("sec-websocket-protocol", "a b")],
        [("last-event-id", "nonsense")],
    ] {
        let refused = ask(Http::H1, proxy.address("http"), "/events/c", &fields).await;
        assert_eq!(refused.status, 400, "{fields:?}");
        assert_eq!(refused.problem().await["status"], 400);
    }
    for path in ["/events/c?last_event_id=nonsense", "/events/a%0Ab"] {
        for http in [Http::H1, Http::H2c] {
            let refused = ask(http, proxy.address("http"), path, &[V1]).await;
            assert_eq!((refused.status.as_u16(), refused.problem().await["status"].as_u64()), (400, Some(400)));
        }
    }
    // Nothing of it is left behind.
    let bad = [("reason", "bad_subscribe")];
    crate::support::figures::wait_for_figure(&proxy, "pushbridge_server_refusals_total", &bad, 9.0).await;
    assert_eq!(figure(&proxy, "pushbridge_hub_sessions_opened_total", &[]).await, 0.0);
}

#[tokio::test]
async fn another_protocol_is_answered_501() {
    let proxy = start(ROUTE);
    let mut connection = H2Connection::open(proxy.address("http")).await;
    connection.protocol = "connect-udp";
    let refused = connection.ask("/events/c", &[]).await;
    assert_eq!((refused.status.as_u16(), refused.problem().await["status"].as_u64()), (501, Some(501)));
}

#[tokio::test]
async fn a_route_without_websockets_answers_406() {
    let proxy = start(
        "
routes:
  - name: streams
    match: { path: \"/streams/{topic}\" }
    push: { channels: [\"{topic}\"], transports: [long_poll, sse] }
",
    );
    for http in ALL {
        let refused = ask(http, at(&proxy, http), "/streams/c", &[]).await;
        assert_eq!(refused.status, 406, "{http:?}");
        assert_eq!(refused.problem().await["transports"], json!(["long_poll", "sse"]));
    }
}

#[tokio::test]
async fn only_welcome_pages_open_sockets() {
    let proxy = start(
        "
routes:
  - name: same
    match: { path: /same }
    push: { channels: [c] }
  - name: listed
    match: { path: /listed }
    push: { channels: [c], allowed_origins: [\"https://shop.example\"] }
  - name: any
    match: { path: /any }
    push: { channels: [c], allowed_origins: [\"*\"] }
",
    );
    for http in ALL {
        let to = at(&proxy, http);
        let (own, listed, other) = (format!("http://{to}"), "https://shop.example", "https://evil.example");
        for (path, origin, welcome) in [
            ("/same", "", true),
            ("/same", own.as_str(), true),
            ("/same", other, false),
            ("/same", "null", false),
            ("/same", "http://127.0.0.1:1", false),
            ("/listed", listed, true),
            ("/listed", "https://shop.example:444", false),
            ("/listed", "http://shop.example", false),
            ("/listed", other, false),
            ("/any", other, true),
        ] {
            let asked = ask(http, to, path, &[("origin", origin)]).await;
            if welcome {
                assert!(matches!(asked.status.as_u16(), 101 | 200), "{http:?} {path} {origin}: {}", asked.status);
            } else {
                assert_eq!(asked.status, 403, "{http:?} {path} {origin}");
                assert_eq!(asked.problem().await["status"], 403);
            }
        }
    }
}

#[tokio::test]
async fn the_default_port_is_no_part_of_an_origin() {
    let proxy = start(ROUTE);
    for (host, origin, status) in [
        ("shop.example", "https://shop.example", 101),
        ("shop.example:443", "https://shop.example", 101),
        ("shop.example:80", "http://shop.example", 101),
        ("shop.example:80", "https://shop.example", 403),
        ("shop.example:8443", "https://shop.example", 403),
        ("SHOP.example", "https://shop.example", 101),
    ] {
        let asked = ask(Http::H1, proxy.address("http"), "/events/c", &[("host", host), ("origin", origin)]).await;
        assert_eq!(asked.status, status, "{host} {origin}");
    }
}

const CORS: &str = "
routes:
  - name: shared
    match: { path: \"/shared/{topic}\" }
    push: { channels: [\"{topic}\"], long_poll_timeout: 1s, cors: { origins: [\"https://shop.example\"], credentials: true } }
  - name: open
    match: { path: \"/open/{topic}\" }
    push: { channels: [\"{topic}\"], cors: { origins: [\"*\"] } }
  - name: closed
    match: { path: \"/closed/{topic}\" }
    push: { channels: [\"{topic}\"] }
";

#[tokio::test]
async fn preflights_are_answered_for_welcome_pages() {
    let proxy = start(CORS);
    for http in ALL {
        let to = at(&proxy, http);
        let preflight = |path: &str, origin| {
            let fields = [
                ("origin", origin),
                ("access-control-request-method", "GET"),
                ("access-control-request-headers", "last-event-id, if-none-match, prefer"),
            ];
            request("OPTIONS", to, path, &fields, "")
        };
        let answer = send(http, to, preflight("/shared/c", "https://shop.example")).await;
        assert_eq!(answer.status, 204);
        assert_eq!(answer.field("access-control-allow-origin"), "https://shop.example");
        assert_eq!(answer.field("access-control-allow-credentials"), "true");
        assert!(answer.field("access-control-allow-methods").contains("GET"));
        for name in ["last-event-id", "if-none-match", "prefer"] {
            assert!(answer.field("access-control-allow-headers").contains(name), "{name}");
        }
        let answer = send(http, to, preflight("/shared/c", "https://evil.example")).await;
        assert_eq!(answer.field("access-control-allow-origin"), "");
        let answer = send(http, to, preflight("/open/c", "https://evil.example")).await;
        assert_eq!(answer.field("access-control-allow-origin"), "*");
        assert_eq!(answer.field("access-control-allow-credentials"), "");
        let answer = send(http, to, preflight("/closed/c", "https://shop.example")).await;
        assert_eq!(answer.field("access-control-allow-origin"), "");
        let plain = send(http, to, request("OPTIONS", to, "/closed/c", &[], "")).await;
        assert_eq!(plain.field("allow"), "GET, HEAD, OPTIONS");
    }
}

#[tokio::test]
async fn streams_polls_and_errors_can_be_read_by_welcome_pages() {
    let proxy = start(CORS);
    let shop = ("origin", "https://shop.example");
    for http in ALL {
        let to = at(&proxy, http);
        let fields = [shop, ("accept", "text/event-stream")];
        let response = open(http, to, get(to, "/shared/c", &fields)).await;
        let check = |fields: &http::HeaderMap| {
            assert_eq!(fields["access-control-allow-origin"], "https://shop.example", "{http:?}");
            let exposed = fields["access-control-expose-headers"].to_str().expect("text").to_ascii_lowercase();
            for name in ["etag", "pushbridge-resumed", "pushbridge-session"] {
                assert!(exposed.contains(name), "{exposed}");
            }
            let vary: Vec<_> = fields.get_all("vary").iter().filter_map(|value| value.to_str().ok()).collect();
            assert!(vary.join(",").to_ascii_lowercase().contains("origin"), "{vary:?}");
        };
        check(response.headers());
        let fields = [shop, ("accept", "application/json"), ("prefer", "wait=0")];
        let poll = send(http, to, get(to, "/shared/c", &fields)).await;
        assert_eq!(poll.status, 204);
        check(&poll.fields);
        let fields = [shop, ("last-event-id", "nonsense")];
        let error = send(http, to, get(to, "/shared/c", &fields)).await;
        assert_eq!(error.status, 400);
        check(&error.fields);
    }
    say(&proxy, json!({"channel": "c", "data": 1})).await;
}
