//! Bridged sessions that go on at another instance, with what their backend gave to keep and where they were.

use super::{BOTH, Stage};
use crate::support::bridge_backend::control;
use crate::support::client::{Http, publish};
use crate::support::figures::{figure, wait_for_figure};
use crate::support::redis::Redis;
use crate::support::socket::{Socket, TEXT};

const SUBSCRIBE: &str = r#"{"type":"subscribe","channel":"room"}"#;

/// Two instances on one Redis, each with a backend of its own.
async fn two(redis: &Redis) -> (Stage, Stage) {
    let more = format!(
        "bus: {{ redis: {{ url: \"redis://127.0.0.1:{}\", prefix: p }} }}\n\
         channels: [{{ match: room, history: {{ messages: 64 }} }}]\n\
         telemetry: {{ log: {{ level: \"info,pushbridge=trace\" }}, access_log: true }}\n",
        redis.port()
    );
    (Stage::on(&more).await, Stage::on(&more).await)
}

/// Opens a WebSocket, whose backend gets `user` back and subscribes it to the room.
async fn open(stage: &mut Stage, http: Http, path: &str, user: Option<&str>) -> Socket {
    let opening = Socket::open(http, stage.at(http), path, &[]);
    let (socket, ()) = tokio::join!(opening, async {
        let asked = stage.backend.expect("OPEN\r\n").await;
        let kept = asked.fields.get("meta-user").map(|user| user.to_str().expect("text"));
        assert_eq!(kept, user, "{path}");
        let fields = [("sec-websocket-extensions", "grip"), ("set-meta-user", "bob")];
        asked.answer(200, &fields, format!("OPEN\r\n{}", control(SUBSCRIBE)));
    });
    socket
}

fn token(socket: &Socket) -> String {
    socket.fields["pushbridge-session"].to_str().expect("text").to_owned()
}

fn resumed(socket: &Socket) -> Option<&str> {
    socket.fields.get("pushbridge-resumed").map(|value| value.to_str().expect("text"))
}

async fn say(stage: &Stage, data: &str) {
    let event = format!(r#"{{"channel":"room","data":"{data}"}}"#);
    let answer = publish(stage.proxy.address("publish"), &event).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
}

/// The client is lost without a word, and its session kept as it was.
async fn lose(stage: &mut Stage, socket: Socket) {
    let labels = [("transport", "websocket"), ("reason", "client_gone")];
    let before = figure(&stage.proxy, "pushbridge_hub_sessions_closed_total", &labels).await;
    drop(socket);
    stage.backend.expect("DISCONNECT\r\n").await.grip("");
    wait_for_figure(&stage.proxy, "pushbridge_hub_sessions_closed_total", &labels, before + 1.0).await;
}

#[tokio::test]
async fn a_client_goes_on_at_another_instance_with_its_meta_and_misses_nothing() {
    let redis = Redis::start();
    let (mut a, mut b) = two(&redis).await;
    let mut tokens = Vec::new();
    for http in BOTH {
        let mut socket = open(&mut a, http, "/chat/x", None).await;
        assert_eq!(resumed(&socket), None);
        say(&b, "1").await;
        socket.expect(TEXT, "1").await;
        let first = token(&socket);
        lose(&mut a, socket).await;
        say(&b, "2").await;
        // Elsewhere it finds nothing and is not used up.
        let mut other = open(&mut b, http, &format!("/chat/y?session={first}"), None).await;
        assert_eq!(resumed(&other), Some("false"));
        let mut again = open(&mut b, http, &format!("/chat/x?session={first}"), Some("bob")).await;
        assert_eq!(resumed(&again), Some("true"));
        say(&a, "3").await;
        again.expect(TEXT, "2").await;
        again.expect(TEXT, "3").await;
        other.expect(TEXT, "3").await;
        // It counts once.
        let mut late = open(&mut a, http, &format!("/chat/x?session={first}"), None).await;
        say(&a, "4").await;
        late.expect(TEXT, "4").await;
        assert_eq!(resumed(&late), Some("false"));
        tokens.extend([first, token(&again), token(&other), token(&late)]);
        lose(&mut a, late).await;
        lose(&mut b, other).await;
        lose(&mut b, again).await;
    }
    tokens.sort_unstable();
    tokens.dedup();
    assert_eq!(tokens.len(), 8, "each session has its own");
    let log = format!("{:?}{:?}", a.proxy.log().lock().expect("the log"), b.proxy.log().lock().expect("the log"));
    assert!(log.contains("/chat/x"), "requests are logged");
    let stored = redis.cli(&["keys", "*"]);
    for token in tokens {
        assert!(!log.contains(&token) && !stored.contains(&token));
    }
}

#[tokio::test]
async fn a_drained_client_is_at_home_elsewhere_at_once() {
    let redis = Redis::start();
    let (mut a, mut b) = two(&redis).await;
    let mut socket = open(&mut a, Http::H1, "/chat/x", None).await;
    say(&b, "1").await;
    socket.expect(TEXT, "1").await;
    let Stage { proxy, mut backend } = a;
    let ended = tokio::task::spawn_blocking(move || proxy.terminate());
    let path = format!("/chat/x?session={}", token(&socket));
    socket.expect_close(1012).await;
    say(&b, "2").await;
    let mut again = open(&mut b, Http::H1, &path, Some("bob")).await;
    // Not the first once more: it was kept as it was before the client was told.
    again.expect(TEXT, "2").await;
    backend.expect("DISCONNECT\r\n").await.grip("");
    assert_eq!(ended.await.expect("waited").code(), Some(0));
}

#[tokio::test]
async fn a_client_of_a_killed_instance_has_its_meta_elsewhere() {
    let redis = Redis::start();
    let (mut a, mut b) = two(&redis).await;
    let mut socket = open(&mut a, Http::H1, "/chat/x", None).await;
    wait_for_figure(&a.proxy, "pushbridge_session_puts_total", &[("result", "kept")], 1.0).await;
    say(&b, "1").await;
    socket.expect(TEXT, "1").await;
    a.proxy.signal("KILL");
    say(&b, "2").await;
    let mut again = open(&mut b, Http::H1, &format!("/chat/x?session={}", token(&socket)), Some("bob")).await;
    // As it was put last: rather twice than never.
    again.expect(TEXT, "1").await;
    again.expect(TEXT, "2").await;
}

#[tokio::test]
async fn what_can_not_be_replayed_closes_the_client_and_its_next_token_goes_on_after_that() {
    let redis = Redis::start();
    let (mut a, mut b) = two(&redis).await;
    let socket = open(&mut a, Http::H1, "/chat/x", None).await;
    let first = token(&socket);
    lose(&mut a, socket).await;
    for n in 0..70 {
        say(&b, &n.to_string()).await;
    }
    let mut gone = open(&mut b, Http::H1, &format!("/chat/x?session={first}"), Some("bob")).await;
    let second = token(&gone);
    gone.expect_close(4001).await;
    b.backend.expect("DISCONNECT\r\n").await.grip("");
    let mut again = open(&mut a, Http::H1, &format!("/chat/x?session={second}"), Some("bob")).await;
    for n in 6..70 {
        again.expect(TEXT, n.to_string()).await;
    }
}

#[tokio::test]
async fn a_client_that_closes_leaves_no_session() {
    let mut stage = Stage::new().await;
    let mut socket = open(&mut stage, Http::H1, "/chat/x", None).await;
    let path = format!("/chat/x?session={}", token(&socket));
    socket.close(1000, "").await;
    stage.backend.asked().await.grip("");
    socket.expect_close_after_own(1000).await;
    wait_for_figure(&stage.proxy, "pushbridge_hub_sessions_open", &[("transport", "websocket")], 0.0).await;
    let again = open(&mut stage, Http::H1, &path, None).await;
    assert_eq!(resumed(&again), Some("false"));
}

#[tokio::test]
async fn a_client_that_is_refused_may_come_back_with_the_same_token() {
    let redis = Redis::start();
    let (mut a, mut b) = two(&redis).await;
    for http in BOTH {
        let socket = open(&mut a, http, "/chat/x", None).await;
        let path = format!("/chat/x?session={}", token(&socket));
        lose(&mut a, socket).await;
        say(&a, "1").await;
        // Refused by its backend, and once without an answer at all.
        let refused = b.refused(http, &path, &[], |asked| asked.answer(503, &[("retry-after", "1")], "busy")).await;
        assert_eq!((refused.status.as_u16(), refused.text()), (503, "busy"));
        assert_eq!(b.refused(http, &path, &[], drop).await.status, 502);
        b.backend.expect("DISCONNECT\r\n").await.grip("");
        // A client that goes while its backend is asked has it again, too.
        let opening = tokio::spawn({
            let (at, path) = (b.at(http), path.clone());
            async move { Socket::try_open(http, at, &path, &[]).await.map(drop).map_err(drop) }
        });
        let asked = b.backend.expect("OPEN\r\n").await;
        assert_eq!(asked.fields["meta-user"], "bob");
        opening.abort();
        let _ = opening.await;
        let sees = async {
            // Its session is looked for until it is there; what finds none is refused, which uses nothing up.
            loop {
                let opening = Socket::try_open(http, a.at(http), &path, &[]);
                let (opened, ()) = tokio::join!(opening, async {
                    let asked = a.backend.expect("OPEN\r\n").await;
                    match asked.fields.contains_key("meta-user") {
                        true => asked.answer(
                            200,
                            &[("sec-websocket-extensions", "grip")],
                            format!("OPEN\r\n{}", control(SUBSCRIBE)),
                        ),
                        false => asked.answer(403, &[], ""),
                    }
                });
                if let Ok(socket) = opened {
                    return socket;
                }
            }
        };
        let mut again = tokio::time::timeout(std::time::Duration::from_secs(60), sees).await.expect("it is back");
        drop(asked);
        b.backend.expect("DISCONNECT\r\n").await.grip("");
        assert_eq!(resumed(&again), Some("true"));
        again.expect(TEXT, "1").await;
        // Once it has its session, the token is used up.
        let other = open(&mut b, http, &path, None).await;
        assert_eq!(resumed(&other), Some("false"));
        lose(&mut a, again).await;
        lose(&mut b, other).await;
    }
}
