//! Many event streams on one connection: each has its own pace and its own end.

use super::{OPEN, SSE};
use crate::support::backend::{Backend, answer};
use crate::support::client::publish;
use crate::support::frames::{END_HEADERS, END_STREAM, HEADERS, RST_STREAM, frame};
use crate::support::hpack::request;
use crate::support::http2::{CANCEL, Event, Http2, INITIAL_WINDOW_SIZE, NO_ERROR, REFUSED_STREAM, get, reset};
use crate::support::metrics::{reaches, refusals};
use crate::support::proxy::Proxy;
use std::collections::HashMap;

const ROUTES: &str = "
routes:
  - { name: events, match: { path: \"/events/{topic}\" }, push: { channels: [\"{topic}\"], transports: [sse] } }
";

/// The numbers that event streams have told, by stream.
#[derive(Default)]
struct Heard(HashMap<u32, String>);

impl Heard {
    fn take(&mut self, event: &Event) {
        match event {
            Event::Data { stream, content, is_last } => {
                assert!(!is_last, "stream {stream} has ended");
                self.0.entry(*stream).or_default().push_str(std::str::from_utf8(content).expect("text"));
            }
            Event::Reset { stream, code } => panic!("stream {stream} was reset: {code}"),
            Event::Goaway { code, .. } => panic!("GOAWAY {code}"),
            _ => {}
        }
    }

    fn numbers(&self, stream: u32) -> Vec<usize> {
        let text = self.0.get(&stream).map_or("", String::as_str);
        let whole = &text[..text.rfind('\n').map_or(0, |at| at + 1)];
        whole.lines().filter_map(|line| line.strip_prefix("data: ")).map(|n| n.parse().expect("a number")).collect()
    }
}

/// Opens event streams of the channel `s` and waits until each has begun.
async fn open(http2: &mut Http2, streams: impl Iterator<Item = u32> + Clone) {
    let bytes: Vec<u8> = streams.clone().flat_map(|stream| get(stream, "/events/s")).collect();
    http2.write(bytes).await;
    let mut begun = 0;
    http2
        .until(|event| {
            if let Event::Head { fields, .. } = event {
                assert_eq!(fields[0].1, "200");
                begun += 1;
            }
            (begun == streams.clone().count()).then_some(())
        })
        .await;
}

async fn publish_numbers(proxy: &Proxy, numbers: std::ops::Range<usize>) {
    for number in numbers {
        let event = format!("{{\"channel\":\"s\",\"data\":\"{number}\"}}");
        assert_eq!(publish(proxy.address("publish"), &event).await.status, 200);
    }
}

#[tokio::test]
async fn a_closed_window_stops_its_own_stream_only() {
    let proxy = Proxy::start(ROUTES);
    let mut http2 = Http2::open(proxy.address("http")).await;
    http2.open_window(0, 1 << 24).await;
    let open_streams = (1..200).step_by(2);
    open(&mut http2, open_streams.clone()).await;
    http2.set(&[(INITIAL_WINDOW_SIZE, 0)]).await;
    open(&mut http2, std::iter::once(201)).await;
    publish_numbers(&proxy, 0..50).await;
    let mut heard = Heard::default();
    // Those that were open before lost all their window; they have what they are given.
    for stream in open_streams.clone() {
        http2.open_window(stream, 1 << 24).await;
    }
    let expected: Vec<usize> = (0..50).collect();
    while !open_streams.clone().all(|stream| heard.numbers(stream).len() >= 50) {
        heard.take(&http2.event().await.expect("the connection stays"));
    }
    for event in http2.round_trip(b"no more?").await {
        heard.take(&event);
    }
    for stream in open_streams {
        assert_eq!(heard.numbers(stream), expected, "stream {stream}");
    }
    assert_eq!(heard.0.get(&201), None, "its window is closed");
    // Opened a little, and then for all that waits.
    http2.open_window(201, 10).await;
    while heard.0.get(&201).map_or(0, String::len) < 10 {
        heard.take(&http2.event().await.expect("the connection stays"));
    }
    for event in http2.round_trip(b"only 10?").await {
        heard.take(&event);
    }
    assert_eq!(heard.0[&201].len(), 10);
    http2.open_window(201, 1 << 20).await;
    while heard.numbers(201).len() < 50 {
        heard.take(&http2.event().await.expect("the connection stays"));
    }
    publish_numbers(&proxy, 50..51).await;
    while heard.numbers(201).len() < 51 {
        heard.take(&http2.event().await.expect("the connection stays"));
    }
    assert_eq!(heard.numbers(201), (0..51).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_reset_ends_its_own_session_only() {
    let proxy = Proxy::start(ROUTES);
    let mut http2 = Http2::open(proxy.address("http")).await;
    open(&mut http2, (1..60).step_by(2)).await;
    reaches(&proxy, SSE, 30.0).await;
    // By every code, also while nothing is sent to the stream.
    for (index, code) in [CANCEL, NO_ERROR, REFUSED_STREAM, 0xffff].into_iter().enumerate() {
        http2.write(reset(2 * index as u32 + 1, code)).await;
        reaches(&proxy, SSE, 29.0 - index as f64).await;
    }
    publish_numbers(&proxy, 0..3).await;
    let mut heard = Heard::default();
    while !(9..60).step_by(2).all(|stream| heard.numbers(stream) == [0, 1, 2]) {
        heard.take(&http2.event().await.expect("the connection stays"));
    }
    for event in http2.round_trip(b"silence?").await {
        heard.take(&event);
    }
    assert!([1, 3, 5, 7].iter().all(|stream| heard.numbers(*stream).is_empty()), "{:?}", heard.0.keys());
    // A new stream has the place.
    open(&mut http2, std::iter::once(61)).await;
    reaches(&proxy, SSE, 27.0).await;
    drop(http2);
    reaches(&proxy, SSE, 0.0).await;
    reaches(&proxy, OPEN, 0.0).await;
}

#[tokio::test]
async fn a_reset_ends_a_session_whose_window_is_closed() {
    let proxy = Proxy::start(ROUTES);
    let mut http2 = Http2::with(proxy.address("http"), &[(INITIAL_WINDOW_SIZE, 0)]).await;
    open(&mut http2, [1, 3].into_iter()).await;
    publish_numbers(&proxy, 0..3).await;
    reaches(&proxy, SSE, 2.0).await;
    http2.write(reset(1, CANCEL)).await;
    reaches(&proxy, SSE, 1.0).await;
    http2.open_window(3, 1 << 20).await;
    let mut heard = Heard::default();
    while heard.numbers(3) != [0, 1, 2] {
        heard.take(&http2.event().await.expect("the connection stays"));
    }
}

#[tokio::test]
async fn a_reset_is_heard_at_once_by_a_session_that_began_with_a_replay() {
    let proxy = Proxy::start(ROUTES);
    let mut http2 = Http2::open(proxy.address("http")).await;
    open(&mut http2, std::iter::once(1)).await;
    let mut heard = Heard::default();
    publish_numbers(&proxy, 0..3).await;
    while heard.numbers(1).len() < 3 {
        heard.take(&http2.event().await.expect("the connection stays"));
    }
    let cursor =
        heard.0[&1].lines().find_map(|line| line.strip_prefix("id: ")).expect("the opening's cursor").to_owned();
    let again = request("GET", "/events/s", &[("last-event-id", &cursor)]);
    http2.write(frame(HEADERS, END_STREAM | END_HEADERS, 3, &again)).await;
    while heard.numbers(3) != [0, 1, 2] {
        heard.take(&http2.event().await.expect("the connection stays"));
    }
    reaches(&proxy, SSE, 2.0).await;
    http2.write(reset(3, CANCEL)).await;
    // Before the next keep-alive, which would find it, too.
    reaches(&proxy, SSE, 1.0).await;
}

/// Whoever downloads takes what the connection carries, but not all of it.
#[tokio::test]
async fn a_download_leaves_room_for_sessions() {
    const LARGE: usize = 48 << 20;
    let backend = Backend::http(|_| async { answer(200, &[], vec![b'x'; LARGE]) }).await;
    let proxy = Proxy::start(&backend.config(""));
    let mut http2 = Http2::with(proxy.address("http"), &[(INITIAL_WINDOW_SIZE, 1 << 30)]).await;
    http2.open_window(0, 1 << 30).await;
    open(&mut http2, std::iter::once(1)).await;
    http2.get(3, "/large").await;
    assert_eq!(http2.status(3).await, 200);
    let (mut heard, mut downloaded) = (Heard::default(), 0);
    // Nobody reads meanwhile: what the system's buffers hold of the download, far less than all, comes first.
    publish_numbers(&proxy, 0..10).await;
    while heard.numbers(1).len() < 10 {
        match http2.event().await.expect("the connection stays") {
            Event::Data { stream: 3, content, .. } => downloaded += content.len(),
            event => heard.take(&event),
        }
    }
    assert!(downloaded < LARGE, "the session waited for the download's end");
    assert_eq!(heard.numbers(1), (0..10).collect::<Vec<_>>());
}

#[tokio::test]
async fn many_streams_at_once_over_the_limit_are_refused_one_by_one() {
    let proxy = Proxy::start(&format!("{ROUTES}\nlimits: {{ streams_per_connection: 50 }}\n"));
    let mut http2 = Http2::open(proxy.address("http")).await;
    http2.write((1..600).step_by(2).flat_map(|stream| get(stream, "/events/s")).collect::<Vec<_>>()).await;
    let (mut begun, mut refused) = (Vec::new(), Vec::new());
    while begun.len() + refused.len() < 300 {
        match http2.event().await.expect("the connection stays") {
            Event::Head { stream, .. } => begun.push(stream),
            Event::Reset { stream, code: REFUSED_STREAM } => refused.push(stream),
            other => assert!(!matches!(other, Event::Reset { .. } | Event::Goaway { .. }), "{other:?}"),
        }
    }
    assert_eq!(begun.len(), 50, "kind {RST_STREAM} for the others");
    assert!(begun.iter().max() < refused.iter().min(), "the first ones have the places");
    reaches(&proxy, SSE, 50.0).await;
    reaches(&proxy, &refusals("streams_per_connection"), 250.0).await;
    // Refused is as if never sent: the client may ask again once there is a place.
    http2.write([reset(begun[7], CANCEL), get(601, "/events/s")].concat()).await;
    assert_eq!(http2.status(601).await, 200);
    reaches(&proxy, SSE, 50.0).await;
}
