//! What a backend that speaks GRIP can ask for: channels, meta, delayed messages, detaching.

use super::{ALL, BOTH, Stage, assert_works};
use crate::support::bridge_backend::{control, event};
use crate::support::client::{Http, publish};
use crate::support::socket::{BINARY, PING, PONG, TEXT};

#[tokio::test]
async fn a_published_event_reaches_the_clients_that_were_subscribed() {
    let mut stage = Stage::new().await;
    let at = stage.proxy.address("publish");
    for (number, http) in ALL.into_iter().enumerate() {
        let room = format!("room{number}");
        let subscribe = control(&format!(r#"{{"type":"subscribe","channel":"{room}"}}"#));
        let mut first = stage.open(http, &subscribe).await;
        let mut second = stage.open(http, "").await;
        second.send(TEXT, "join").await;
        stage.backend.expect("TEXT 4\r\njoin\r\n").await.grip(&[subscribe, event("TEXT", "m:joined")].concat());
        second.expect(TEXT, "joined").await;
        let answer = publish(at, &format!(r#"{{"channel":"{room}","event":"e","data":"hi"}}"#)).await;
        assert_eq!(answer.json()["results"][0]["local_sessions"], 2, "{}", answer.text());
        publish(at, &format!(r#"{{"channel":"{room}","data":{{"a":1}}}}"#)).await;
        publish(at, &format!(r#"{{"channel":"{room}","data_base64":"AP8="}}"#)).await;
        for socket in [&mut first, &mut second] {
            socket.expect(TEXT, "hi").await;
            socket.expect(TEXT, r#"{"a":1}"#).await;
            socket.expect(BINARY, [0, 255]).await;
        }
        second.send(TEXT, "leave").await;
        let unsubscribe = control(&format!(r#"{{"type":"unsubscribe","channel":"{room}"}}"#));
        stage.backend.expect("TEXT 5\r\nleave\r\n").await.grip(&[unsubscribe, event("TEXT", "m:left")].concat());
        second.expect(TEXT, "left").await;
        let answer = publish(at, &format!(r#"{{"channel":"{room}","data":"more"}}"#)).await;
        assert_eq!(answer.json()["results"][0]["local_sessions"], 1, "{}", answer.text());
        first.expect(TEXT, "more").await;
        // Were it still subscribed, the event would stand before the pong.
        second.send(PING, "").await;
        second.expect(PONG, "").await;
        assert!(stage.backend.is_quiet());
        for socket in [first, second] {
            drop(socket);
            stage.backend.expect("DISCONNECT\r\n").await.grip("");
        }
    }
    stage.wait_for_metric("pushbridge_hub_messages_delivered_total{transport=\"websocket\"} 28").await;
}

#[tokio::test]
async fn channels_over_the_limit_are_passed_over() {
    let mut stage = Stage::new().await;
    let channels = ["a", "b", "c"].map(|name| control(&format!(r#"{{"type":"subscribe","channel":"{name}"}}"#)));
    let mut socket = stage.open(Http::H1, &channels.concat()).await;
    stage.wait_for_metric("pushbridge_bridge_ignored_total{what=\"too_many_subscriptions\"} 1").await;
    let at = stage.proxy.address("publish");
    for channel in ["c", "b"] {
        publish(at, &format!(r#"{{"channel":"{channel}","data":"{channel}"}}"#)).await;
    }
    socket.expect(TEXT, "b").await;
    assert_works(&mut stage, &mut socket).await;
}

#[tokio::test]
async fn what_the_backend_gives_to_keep_comes_back() {
    let mut stage = Stage::new().await;
    for http in BOTH {
        let opening = crate::support::socket::Socket::open(http, stage.at(http), "/chat/x", &[]);
        let (mut socket, ()) = tokio::join!(opening, async {
            let grip = ("sec-websocket-extensions", "grip");
            let meta = [grip, ("set-meta-user", "bob"), ("Set-Meta-Room", "1")];
            stage.backend.expect("OPEN\r\n").await.answer(200, &meta, "OPEN\r\n");
        });
        assert!(socket.fields.keys().all(|name| !name.as_str().contains("meta")), "{:?}", socket.fields);
        socket.send(TEXT, "1").await;
        let asked = stage.backend.expect("TEXT 1\r\n1\r\n").await;
        assert_eq!((asked.field("meta-user"), asked.field("meta-room")), ("bob", "1"));
        asked.answer(200, &[("set-meta-user", ""), ("set-meta-room", "2")], "");
        socket.send(TEXT, "2").await;
        let asked = stage.backend.expect("TEXT 1\r\n2\r\n").await;
        assert_eq!((asked.fields.contains_key("meta-user"), asked.field("meta-room")), (false, "2"));
        asked.grip("");
        drop(socket);
        let asked = stage.backend.expect("DISCONNECT\r\n").await;
        assert_eq!(asked.field("meta-room"), "2");
        asked.grip("");
    }
}

#[tokio::test]
async fn a_detached_client_is_pushbridges_alone() {
    let mut stage = Stage::new().await;
    let at = stage.proxy.address("publish");
    for http in BOTH {
        let events = [control(r#"{"type":"subscribe","channel":"d"}"#), control(r#"{"type":"detach"}"#)].concat();
        let mut socket = stage.open(http, &events).await;
        socket.send(TEXT, "nobody hears this").await;
        socket.send(PING, "p").await;
        socket.expect(PONG, "p").await;
        publish(at, r#"{"channel":"d","data":"hi"}"#).await;
        socket.expect(TEXT, "hi").await;
        socket.close(3000, "done").await;
        assert_eq!(socket.expect_close_after_own(3000).await, "done");
        let mut vanishing = stage.open(http, &events).await;
        vanishing.send(PING, "q").await;
        vanishing.expect(PONG, "q").await;
    }
    stage.wait_for_metric("pushbridge_bridge_ignored_total{what=\"client_frame_after_detach\"} 2").await;
    stage.wait_for_metric("pushbridge_hub_sessions_open{transport=\"websocket\"} 0").await;
    // The next that is asked is of a new connection: neither frames nor DISCONNECT came before.
    stage.open(Http::H1, "").await;
}

#[tokio::test]
async fn delayed_messages_wait_for_their_time_or_the_flush() {
    let mut stage = Stage::new().await;
    let delayed = |json: &str| control(&format!(r#"{{"type":"send-delayed",{json}}}"#));
    let flush = control(r#"{"type":"flush-delayed"}"#);
    let long = delayed(r#""content":"flushed","timeout":3600"#);
    let mut socket = stage.open(Http::H1, &[long, event("TEXT", "m:now")].concat()).await;
    socket.expect(TEXT, "now").await;
    socket.send(TEXT, "flush").await;
    let soon = delayed(r#""content-bin":"AAE=","timeout":"1""#);
    let beat = control(r#"{"type":"keep-alive","content":"beat","timeout":1,"mode":"interval"}"#);
    stage.backend.expect("TEXT 5\r\nflush\r\n").await.grip(&[flush.clone(), soon].concat());
    socket.expect(TEXT, "flushed").await;
    socket.expect(BINARY, [0, 1]).await;
    socket.send(TEXT, "beat").await;
    stage.backend.expect("TEXT 4\r\nbeat\r\n").await.grip(&[flush, beat].concat());
    socket.expect(TEXT, "beat").await;
    socket.expect(TEXT, "beat").await;
    assert!(stage.backend.is_quiet());
}

#[tokio::test]
async fn what_another_instance_publishes_reaches_the_clients_that_were_subscribed() {
    let redis = crate::support::redis::Redis::start();
    let bus = format!("bus: {{ redis: {{ url: \"redis://127.0.0.1:{}\" }} }}\n", redis.port());
    let (mut stage, other) = (Stage::on(&bus).await, Stage::on(&bus).await);
    let say = async |channel: &str, data: &str| {
        let event = format!(r#"{{"channel":"{channel}","data":"{data}"}}"#);
        assert_eq!(publish(other.proxy.address("publish"), &event).await.status, 200);
    };
    for http in BOTH {
        // With the answer to OPEN, and later.
        let mut socket = stage.open(http, &control(r#"{"type":"subscribe","channel":"first"}"#)).await;
        say("first", "1").await;
        socket.expect(TEXT, "1").await;
        socket.send(TEXT, "join").await;
        let join = control(r#"{"type":"subscribe","channel":"second"}"#);
        stage.backend.expect("TEXT 4\r\njoin\r\n").await.grip(&[join, event("TEXT", "m:joined")].concat());
        socket.expect(TEXT, "joined").await;
        say("second", "2").await;
        socket.expect(TEXT, "2").await;
        drop(socket);
        stage.backend.expect("DISCONNECT\r\n").await.grip("");
    }
}
