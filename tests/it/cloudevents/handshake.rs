//! Opening: whether the URL takes events, what `connect` says, and what the backend chooses.

use super::{ALL, Fields, JSON, Stage, TEXT_PLAIN, assert_works};
use crate::support::client::Http;
use crate::support::socket::{Socket, TEXT};
use serde_json::{Value, json};

#[tokio::test]
async fn the_backend_is_asked_who_connects_and_chooses() {
    let mut stage = Stage::validated().await;
    for http in ALL {
        let to = stage.at(http);
        let fields = [("cookie", "a=1"), ("sec-websocket-protocol", "v2, v1"), ("ce-userid", "forged")];
        let opening = Socket::open(http, to, "/chat/a%20b?user=b%C3%A9&user=2&x", &fields);
        let (mut socket, id) = tokio::join!(opening, async {
            let asked = stage.event("connect").await;
            assert_eq!(asked.target, "/api/webpubsub/hubs/chat/");
            assert_eq!(asked.field("ce-type"), "azure.webpubsub.sys.connect");
            assert_eq!((asked.field("ce-specversion"), asked.field("ce-awpsversion")), ("1.0", "1.0"));
            assert_eq!((asked.field("ce-hub"), asked.field("ce-id")), ("chat", "0"));
            assert_eq!(asked.field("webhook-request-origin"), "push.example");
            assert_eq!(asked.field("content-type"), "application/json; charset=utf-8");
            for name in ["ce-userid", "ce-subprotocol", "ce-connectionstate", "cookie", "sec-websocket-protocol"] {
                assert_eq!(asked.field(name), "", "{http:?}: {name}");
            }
            let id = asked.field("ce-connectionid").to_owned();
            assert_eq!(id.len(), 36);
            assert_eq!(asked.field("ce-source"), format!("/hubs/chat/client/{id}"));
            let time = asked.field("ce-time");
            assert!(time.len() >= 20 && time.as_bytes()[10] == b'T' && time.ends_with('Z'), "{time}");
            let signature = asked.field("ce-signature");
            let hashes: Vec<_> = signature.split(',').map(|one| one.strip_prefix("sha256=").expect("a hash")).collect();
            assert_eq!(hashes, [hash(b"Jefe", &id), hash(b"other", &id)]);
            let body: Value = serde_json::from_slice(&asked.body).expect("JSON");
            assert_eq!(body["query"], json!({ "user": ["bé", "2"], "x": [""] }));
            assert_eq!(body["subprotocols"], json!(["v2", "v1"]));
            assert_eq!((&body["claims"], &body["clientCertificates"]), (&json!({}), &json!([])));
            assert_eq!(body["headers"]["cookie"], json!(["a=1"]));
            assert_eq!(body["headers"]["x-forwarded-for"], json!(["127.0.0.1"]));
            let chosen = json!({ "userId": "Zoë", "groups": ["room"], "roles": ["r"], "subprotocol": "v1" });
            asked.answer(200, &[JSON, ("ce-connectionState", "czE="), ("set-cookie", "s=1")], chosen.to_string());
            id
        });
        assert_eq!(socket.fields["sec-websocket-protocol"], "v1");
        assert!(!socket.fields.contains_key("set-cookie") && !socket.fields.contains_key("ce-connectionstate"));
        let asked = stage.event("connected").await;
        assert_eq!(&asked.body[..], b"{}");
        for (name, value) in [
            ("ce-type", "azure.webpubsub.sys.connected"),
            ("ce-connectionid", &id),
            ("ce-id", "1"),
            ("ce-userid", "Zo%C3%AB"),
            ("ce-subprotocol", "v1"),
            ("ce-connectionstate", "czE="),
        ] {
            assert_eq!(asked.field(name), value, "{http:?}: {name}");
        }
        asked.answer(200, &[TEXT_PLAIN], "");
        // Groups, the user and the connection are channels.
        for channel in ["room", "chat.user.Zoë", &format!("chat.connection.{id}")] {
            assert_eq!(stage.publish(channel, channel).await, 1);
            socket.expect(TEXT, channel).await;
        }
        assert_works(&mut stage, &mut socket).await;
        drop(socket);
        stage.disconnected("client_gone").await;
    }
}

fn hash(key: &[u8], text: &str) -> String {
    use aws_lc_rs::hmac;
    let hash = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes());
    hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn the_backends_refusal_is_the_clients_answer() {
    let mut stage = Stage::validated().await;
    for status in [401, 403, 302, 500] {
        let fields = [TEXT_PLAIN, ("www-authenticate", "Basic"), ("ce-connectionState", "s")];
        let answer = stage.refused(&[], |asked| asked.answer(status, &fields, "who are you?")).await;
        assert_eq!((answer.status.as_u16(), answer.text()), (status, "who are you?"));
        assert_eq!((answer.field("www-authenticate"), answer.field("ce-connectionstate")), ("Basic", ""));
    }
    // Nobody was let in, so that nobody is said to have left.
    let mut socket = stage.open(Http::H1, "").await;
    assert_works(&mut stage, &mut socket).await;
}

#[tokio::test]
async fn a_choice_that_does_not_fit_is_a_bad_gateway_and_taken_back() {
    let mut stage = Stage::validated().await;
    let long = format!(r#"{{"userId":"{}"}}"#, "x".repeat(300));
    let cases: [(&str, &str); 10] = [
        ("<html>", "is no JSON"),
        ("[1]", "no JSON object"),
        (r#"{"userId":5}"#, "has a userId that is no string"),
        (&long, "userId with control characters, or over 255 bytes"),
        (r#"{"groups":["a\nb"]}"#, "can't be a channel"),
        (r#"{"groups":["a","b","c","d"]}"#, "too many groups"),
        (r#"{"groups":["a","b","c"],"userId":"u"}"#, "too many groups"),
        (r#"{"subprotocol":"v3"}"#, "did not offer"),
        (r#"{"subprotocol":"v1\r\nx: y"}"#, "did not offer"),
        (r#"{"subprotocol":"json.webpubsub.azure.v1"}"#, "is not spoken here"),
    ];
    for (answer, detail) in cases {
        let offer = [("sec-websocket-protocol", "v1, json.webpubsub.azure.v1")];
        let refused = stage.refused(&offer, |asked| asked.answer(200, &[JSON], answer.to_owned())).await;
        assert_eq!(refused.status, 502, "{answer}");
        let shown = refused.json()["detail"].as_str().expect("a detail").to_owned();
        assert!(shown.contains(detail), "{answer}: {shown}");
        stage.disconnected("upstream").await;
    }
    let answer =
        stage.refused(&[], |asked| asked.answer(200, &[JSON, ("ce-connectionState", &"s".repeat(9000))], "")).await;
    assert_eq!(answer.status, 502);
    assert!(answer.text().contains("ce-connectionState of 9000 bytes"), "{}", answer.text());
    stage.disconnected("upstream").await;
}

#[tokio::test]
async fn a_url_is_asked_once_before_its_first_event_and_again_after_a_failure() {
    let mut stage = Stage::new().await;
    let to = stage.at(Http::H1);
    // Many at once wait for one answer.
    let mut opening = tokio::task::JoinSet::new();
    for _ in 0..5 {
        opening.spawn(Socket::open(Http::H1, to, "/events", &[]));
    }
    let asked = stage.backend.asked().await;
    assert_eq!((asked.method.as_str(), asked.target.to_string().as_str()), ("OPTIONS", "/other/validate?code=1"));
    assert_eq!((asked.field("webhook-request-origin"), asked.field("ce-awpsversion")), ("pushbridge", "1.0"));
    assert_eq!((asked.field("ce-signature"), asked.field("content-length")), ("", ""));
    asked.answer(204, &[("webhook-allowed-origin", "a.example, Pushbridge")], "");
    let (mut sockets, mut connecting) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        let asked = stage.event("connect").await;
        assert_eq!((asked.target.to_string().as_str(), asked.field("ce-hub")), ("/other/connect?code=1", "other"));
        connecting.push(asked);
    }
    // None before all have come: what follows an answer may overtake another's beginning.
    for asked in connecting {
        asked.answer(204, &[], "");
    }
    for _ in 0..5 {
        let asked = stage.event("connected").await;
        assert_eq!(asked.target, "/other/connected?code=1");
        asked.answer(204, &[], "");
    }
    while let Some(socket) = opening.join_next().await {
        sockets.push(socket.expect("opened"));
    }
    let mut socket = sockets.pop().expect("five");
    socket.send(TEXT, "x").await;
    let asked = stage.message("x").await;
    assert_eq!(asked.target, "/other/message?code=1");
    // Broken off.
    drop(asked);
    socket.expect_close(1011).await;
    let asked = stage.backend.asked().await;
    assert_eq!(asked.method, "OPTIONS");
    asked.answer(200, &[("webhook-allowed-origin", "*")], "");
    stage.disconnected("upstream").await;
}

#[tokio::test]
async fn a_backend_that_takes_no_events_gets_none() {
    let mut stage = Stage::new().await;
    let denials: [(u16, Fields<'_>, &str); 4] = [
        (200, &[], "has no WebHook-Allowed-Origin"),
        (200, &[("webhook-allowed-origin", "other.example")], "\"other.example\""),
        (404, &[("webhook-allowed-origin", "*")], "404 Not Found"),
        (302, &[("location", "/"), ("webhook-allowed-origin", "*")], "302 Found"),
    ];
    for (status, fields, detail) in denials {
        let opening = Socket::try_open(Http::H1, stage.at(Http::H1), "/chat/x", &[]);
        let (opened, ()) = tokio::join!(opening, async {
            let asked = stage.backend.asked().await;
            assert_eq!(asked.method, "OPTIONS");
            asked.answer(status, fields, "");
        });
        let answer = opened.err().expect("refused");
        assert_eq!(answer.status, 502);
        let shown = answer.json()["detail"].as_str().expect("a detail").to_owned();
        assert!(shown.contains(detail), "{shown}");
    }
    // The log is read a moment after it was written.
    crate::support::wait_for("each denial's line", || {
        (stage.proxy.logged("backend takes no events").len() == denials.len()).then_some(())
    });
    // Who gives no answer is asked again, too, and was told nothing.
    let opening = Socket::try_open(Http::H1, stage.at(Http::H1), "/slow", &[]);
    let (opened, asked) = tokio::join!(opening, stage.backend.asked());
    assert_eq!((asked.method.as_str(), opened.err().expect("refused").status.as_u16()), ("OPTIONS", 504));
    let refused = Socket::try_open(Http::H1, stage.at(Http::H1), "/down", &[]).await;
    let answer = refused.err().expect("refused");
    assert_eq!(answer.status, 503);
    assert!(!answer.text().contains("127.0.0.1"), "{}", answer.text());
    let opening = Socket::open(Http::H1, stage.at(Http::H1), "/chat/x", &[]);
    let (mut socket, ()) = tokio::join!(opening, async {
        stage.validate("push.example").await;
        stage.event("connect").await.answer(200, &[JSON], "");
    });
    stage.event("connected").await.answer(200, &[TEXT_PLAIN], "");
    assert_works(&mut stage, &mut socket).await;
}

#[tokio::test]
async fn only_websockets_of_allowed_pages_reach_the_backend() {
    let mut stage = Stage::new().await;
    let refused =
        Socket::try_open(Http::H1, stage.at(Http::H1), "/chat/x", &[("origin", "https://evil.example")]).await;
    assert_eq!(refused.err().expect("refused").status, 403);
    let to = stage.at(Http::H1);
    let answer = crate::support::client::send(Http::H1, to, crate::support::client::get(to, "/chat/x", &[])).await;
    assert_eq!(answer.status, 426);
    assert!(stage.backend.is_quiet());
    let opening = Socket::try_open(Http::H1, to, "/chat/x", &[]);
    let (_, ()) = tokio::join!(opening, async {
        stage.validate("*").await;
        stage.event("connect").await.answer(401, &[TEXT_PLAIN], "");
    });
}
