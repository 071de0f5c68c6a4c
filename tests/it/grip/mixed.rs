//! One channel, published to by GRIP items, on a stream whose backend recovers and on a push route, which pushbridge
//! resumes itself.

use super::{ALL, Stage};
use crate::support::client::within;
use crate::support::client::{Http, Stream, get, open, send};
use crate::support::held::{Body, EventStream, SseEvent};

async fn next(events: &mut EventStream) -> SseEvent {
    loop {
        let event = within("an event", events.next()).await.expect("it goes on").expect("it goes on");
        if !event.data.is_empty() {
            return event;
        }
    }
}

/// A client of a push route.
async fn pushed(stage: &Stage, http: Http, path: &str, cursor: Option<&str>) -> (EventStream, Option<String>) {
    let at = stage.at(http);
    let cursor: Vec<_> = cursor.map(|cursor| ("last-event-id", cursor)).into_iter().collect();
    let fields = [&[("accept", "text/event-stream")], &cursor[..]].concat();
    let response = open(http, at, get(at, path, &fields)).await;
    assert_eq!(response.status(), 200);
    let resumed = response.headers().get("pushbridge-resumed").map(|value| value.to_str().expect("text").to_owned());
    let mut events = EventStream::new(Body::H1(response.into_body()));
    // Its opening says where it begins.
    within("an opening", events.next()).await.expect("an opening").expect("an opening");
    (events, resumed)
}

#[tokio::test]
async fn a_last_event_id_is_the_backends_on_its_stream_and_ours_on_a_push_route() {
    let mut stage = Stage::new().await;
    for (number, http) in ALL.into_iter().enumerate() {
        let channel = format!("mixed{number}");
        let path = format!("/pushed/{channel}");
        let (mut events, resumed) = pushed(&stage, http, &path, None).await;
        assert_eq!(resumed, None);
        stage.send_id(&channel, "1", "0", "id: test:1\ndata: 1\n\n").await;
        let first = next(&mut events).await;
        assert_eq!(first.data, "1");
        let cursor = first.id.expect("a cursor");
        assert_ne!(cursor, "test:1");
        drop(events);
        for (id, prev_id) in [("2", "1"), ("3", "2")] {
            stage.send_id(&channel, id, prev_id, &format!("id: test:{id}\ndata: {id}\n\n")).await;
        }
        // The push route replays from its own history, and asks nobody.
        let (mut events, resumed) = pushed(&stage, http, &path, Some(&cursor)).await;
        assert_eq!(resumed.as_deref(), Some("true"));
        for data in ["2", "3"] {
            assert_eq!(next(&mut events).await.data, data);
        }
        assert!(stage.backend.is_quiet());
        let at = stage.at(http);
        let fields = [("accept", "text/event-stream"), ("last-event-id", "test:1")];
        assert_eq!(send(http, at, get(at, &path, &fields)).await.status, 400, "the backend's ids are no cursors");

        // On the stream of the backend its own id comes to it, and what it answers is all that the client gets.
        let held = format!("{channel}; prev-id=3");
        let hold = [("content-type", "text/event-stream"), ("grip-hold", "stream"), ("grip-channel", &held)];
        let response = stage
            .ask(http, "/events", &[("last-event-id", "test:2")], |asked| {
                assert_eq!(asked.field("last-event-id"), "test:2");
                asked.answer(200, &hold, "id: test:3\ndata: recovered\n\n");
            })
            .await;
        let mut stream = Stream::of(response);
        stage.send_id(&channel, "4", "3", "id: test:4\ndata: 4\n\n").await;
        let both = "id: test:3\ndata: recovered\n\nid: test:4\ndata: 4\n\n";
        assert_eq!(stream.until("4\n\n").await, both);
        assert_eq!(next(&mut events).await.data, "4");
        assert!(stage.backend.is_quiet());
    }
}
