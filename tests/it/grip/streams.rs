//! Held streams: their start, what is published, and their end.

use super::{ALL, Stage};
use crate::support::client::{Http, Stream, get, open, publish, send};
use crate::support::metrics;
use serde_json::json;

#[tokio::test]
async fn a_stream_goes_on_with_what_is_published() {
    let mut stage = Stage::new().await;
    for (number, http) in ALL.into_iter().enumerate() {
        let channel = format!("news{number}");
        let held = [
            ("content-type", "text/event-stream"),
            ("grip-hold", "stream"),
            ("grip-channel", channel.as_str()),
            ("grip-status", "203 Other"),
            ("x-kept", "1"),
        ];
        let response = stage
            .ask(
                http,
                "/events?a=b",
                &[("grip-sig", "forged"), ("last-event-id", "7"), ("accept-encoding", "gzip")],
                |asked| {
                    assert_eq!((asked.method.as_str(), asked.target.to_string().as_str()), ("GET", "/events?a=b"));
                    assert_eq!((asked.field("last-event-id"), asked.field("accept-encoding")), ("7", ""));
                    assert!(asked.field("grip-feature").contains("link:next, link:gone"));
                    let key = pushbridge::upstream::signature::Key::parse(b"changeme").expect("a key");
                    let claims = key.verify(asked.field("grip-sig"), 1).expect("signed");
                    assert_eq!(claims["iss"], "edge");
                    asked.answer(200, &held, "event: start\n\n");
                },
            )
            .await;
        assert_eq!(response.status(), 203);
        assert_eq!(response.headers()["x-kept"], "1");
        assert!(!response.headers().contains_key("content-length"));
        assert!(!response.headers().keys().any(|name| name.as_str().starts_with("grip-")));
        let mut stream = Stream::of(response);
        assert_eq!(stream.until("\n\n").await, "event: start\n\n");
        let answer = stage.publish(&json!([{"channel": channel, "http-stream": {"content": "data: 1\n\n"}}])).await;
        assert_eq!(answer.json()["results"][0]["local_sessions"], 1, "{}", answer.text());
        assert_eq!(stream.until("\n\n").await, "data: 1\n\n");
        let native = format!(r#"{{"channel":"{channel}","event":"e","data":"50%"}}"#);
        publish(stage.proxy.address("publish"), &native).await;
        assert_eq!(stream.until("\n\n").await, "event: e\ndata: 50%\n\n");
        stage
            .publish(&json!([
                {"channel": channel, "ws-message": {"content": "not for streams"}},
                {"channel": channel, "http-stream": {"content-bin": "ZGF0YTogMgoK"}},
                {"channel": channel, "formats": {"http-stream": {"action": "close"}}},
            ]))
            .await;
        assert_eq!(stream.rest().await, "data: 2\n\n");
    }
    metrics::reaches(&stage.proxy, "pushbridge_grip_dropped_total{reason=\"no_form\"}", 4.0).await;
    let closed = "pushbridge_hub_sessions_closed_total{transport=\"sse\",reason=\"backend\"}";
    metrics::reaches(&stage.proxy, closed, 4.0).await;
    stage.is_clean().await;
}

#[tokio::test]
async fn a_stream_that_is_no_event_stream_gets_native_data_as_lines() {
    let mut stage = Stage::new().await;
    let json = r#"{"hold": {"mode": "stream", "channels": [{"name": "a"}]},
        "response": {"code": 201, "headers": {"Content-Type": "text/plain"}, "body": "hi\n"}}"#;
    let instruct = [("content-type", "application/grip-instruct")];
    let response = stage.ask(Http::H1, "/lines", &[], |asked| asked.answer(200, &instruct, json)).await;
    assert_eq!(
        (response.status().as_u16(), &response.headers()["content-type"]),
        (201, &"text/plain".parse().expect("a value"))
    );
    let mut stream = Stream::of(response);
    assert_eq!(stream.until("\n").await, "hi\n");
    publish(stage.proxy.address("publish"), r#"{"channel":"a","data":{"n":1}}"#).await;
    assert_eq!(stream.until("\n").await, "{\"n\":1}\n");
}

#[tokio::test]
async fn a_route_has_a_prefix_and_channels_of_its_own() {
    let mut stage = Stage::new().await;
    let mut stream = stage.stream(Http::H2c, "/rooms/x", &[("grip-channel", "a")], "").await;
    stage.send("a", "no\n").await;
    stage.send("p-a", "prefixed\n").await;
    stage.send("room.x", "own\n").await;
    assert_eq!(stream.until("own\n").await, "prefixed\nown\n");
}

#[tokio::test]
async fn on_a_route_without_grip_the_fields_pass() {
    let mut stage = Stage::new().await;
    let held = [("grip-hold", "stream"), ("grip-channel", "a")];
    let response = stage
        .ask(Http::H1, "/bare/x", &[("grip-sig", "mine")], |asked| {
            assert_eq!(asked.field("grip-sig"), "mine");
            asked.answer(200, &held, "whole");
        })
        .await;
    assert_eq!(response.headers()["grip-hold"], "stream");
    assert_eq!(Stream::of(response).rest().await, "whole");
}

#[tokio::test]
async fn silence_is_filled_as_the_backend_says() {
    let mut stage = Stage::new().await;
    let fields = [("grip-channel", "a"), ("grip-keep-alive", r"event: ka\ndata:\n\n; format=cstring; timeout=1")];
    for http in [Http::H1, Http::H2c] {
        let mut stream = stage.stream(http, "/events", &fields, "").await;
        assert_eq!(stream.until("\n\n").await, "event: ka\ndata:\n\n");
        stage.send("a", "x\n\n").await;
        assert_eq!(stream.until("x\n\n").await.replace("event: ka\ndata:\n\n", ""), "x\n\n");
        assert_eq!(stream.until("\n\n").await, "event: ka\ndata:\n\n");
    }
}

#[tokio::test]
async fn filters_choose_and_make() {
    let mut stage = Stage::new().await;
    let of = |user: &str| {
        [
            ("grip-channel".to_owned(), "a; prev-id=1; filter=skip-self; filter=build-id; filter=new".to_owned()),
            ("grip-set-meta".to_owned(), format!("user=\"{user}\", id_format=\"n:%(a)s\"")),
        ]
    };
    let mut streams = Vec::new();
    for user in ["bob", "eve"] {
        let fields = of(user);
        let fields: Vec<_> = fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let held = [&[("content-type", "text/event-stream"), ("grip-hold", "stream")], &fields[..]].concat();
        let response = stage.ask(Http::H1, "/events", &[], |asked| asked.answer(200, &held, "id: %I\n100%%\n\n")).await;
        let mut stream = Stream::of(response);
        assert_eq!(stream.until("\n\n").await, "id: n:1\n100%\n\n");
        streams.push(stream);
    }
    let formats = json!({"http-stream": {"content": "id: %I\ntwo%%\n\n", "content-filters": ["build-id"]}});
    stage
        .publish(&json!([
            {"channel": "a", "id": "2", "prev-id": "1", "meta": {"sender": "bob"}, "formats": formats},
            {"channel": "a", "id": "3", "prev-id": "2", "http-stream": {"content": "plain", "content-filters": []}},
            {"channel": "a", "id": "4", "prev-id": "3", "formats": formats},
        ]))
        .await;
    assert_eq!(streams[0].until("\n\n").await, "id: n:4\ntwo%\n\n");
    assert_eq!(streams[1].until("n:4\ntwo%\n\n").await, "id: n:2\ntwo%\n\nid: n:4\ntwo%\n\n");
    metrics::reaches(&stage.proxy, "pushbridge_grip_dropped_total{reason=\"skip_self\"}", 1.0).await;
    metrics::reaches(&stage.proxy, "pushbridge_grip_dropped_total{reason=\"content_filters\"}", 2.0).await;
    metrics::reaches(&stage.proxy, "pushbridge_grip_refused_total{what=\"filter\"}", 2.0).await;
}

#[tokio::test]
async fn a_backend_hears_that_its_client_is_gone() {
    let mut stage = Stage::new().await;
    for http in ALL {
        let fields = [("grip-channel", "a"), ("grip-link", "</gone/1?x=y>; rel=gone")];
        let stream = stage.stream(http, "/events", &fields, "data: 1\n\n").await;
        drop(stream);
        let told = stage.backend.asked().await;
        assert_eq!((told.method.as_str(), told.target.to_string().as_str()), ("POST", "/gone/1?x=y"));
        assert!(!told.field("grip-sig").is_empty() && told.body.is_empty());
        told.answer(200, &[], "");
    }
    stage.is_clean().await;
}

#[tokio::test]
async fn a_drain_ends_streams_cleanly_and_answers_held_responses() {
    let mut stage = Stage::with("drain: { settle: 0s, spread: 0s, margin: 20s }\n").await;
    let mut streams = Vec::new();
    for http in ALL {
        streams.push(stage.stream(http, "/events", &[("grip-channel", "a")], "data: 1\n\n").await);
    }
    let at = stage.at(Http::H1);
    let polling = tokio::spawn(send(Http::H1, at, get(at, "/poll", &[])));
    let held = [("grip-hold", "response"), ("grip-channel", "a"), ("content-type", "text/plain")];
    stage.backend.asked().await.answer(200, &held, "nothing yet");
    metrics::reaches(&stage.proxy, "pushbridge_hub_sessions_open{transport=\"long_poll\"}", 1.0).await;
    stage.proxy.stop();
    for stream in streams {
        let rest = stream.rest().await;
        assert!(rest.starts_with("retry: ") && rest.ends_with("\n\n"), "{rest}");
    }
    assert_eq!(polling.await.expect("an answer").text(), "nothing yet");
    assert!(stage.proxy.wait().success());
}

#[tokio::test]
async fn head_is_answered_and_not_held() {
    let mut stage = Stage::new().await;
    let at = stage.at(Http::H1);
    let asking = open(Http::H1, at, crate::support::client::request("HEAD", at, "/events", &[], ""));
    let (response, ()) = tokio::join!(asking, async {
        let held = [("grip-hold", "stream"), ("grip-channel", "a"), ("content-type", "text/event-stream")];
        stage.backend.asked().await.answer(200, &held, "");
    });
    assert_eq!(response.status(), 200);
    stage.is_clean().await;
}

#[tokio::test]
async fn a_push_routes_clients_get_items_in_the_form_that_fits() {
    let stage = Stage::new().await;
    let http = stage.at(Http::H1);
    let mut events = crate::support::held::event_stream(http, "/pushed/a").await;
    let mut socket = crate::support::held::Socket::connect(http, "/pushed/a", "").await.expect("a WebSocket");
    stage
        .publish(&json!([
            {"channel": "a", "http-stream": {"content": "event: e\nid: 9\ndata: one\ndata: two\n\n"}},
            {"channel": "a", "ws-message": {"content": "for sockets"}},
            {"channel": "a", "http-response": {"body": "a body"}, "ws-message": {"content": "again"}},
        ]))
        .await;
    let event = events.until("\n\n").await;
    assert!(event.ends_with("\nevent: e\ndata: one\ndata: two\n\n") && !event.contains("id: 9"), "{event}");
    assert!(events.until("\n\n").await.ends_with("\ndata: a body\n\n"));
    for text in ["for sockets", "again"] {
        assert_eq!(socket.next().await, crate::support::held::Said::Text(text.to_owned()));
    }
}
