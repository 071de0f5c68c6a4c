//! Frames: which ones end the connection, which ones a stream, and which ones do nothing (RFC 9113 §3 to §6).

use super::{Case, End, each_ends_its_connection, end_of, mirrored};
use crate::support::certificates;
use crate::support::client::{dial, dial_tls};
use crate::support::frames::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PADDED, PING, PRIORITY, PUSH_PROMISE,
    RST_STREAM, SETTINGS, WINDOW_UPDATE, WITH_PRIORITY, frame,
};
use crate::support::hpack::{literal, request};
use crate::support::http2::{
    ENABLE_CONNECT_PROTOCOL, ENABLE_PUSH, Event, FLOW_CONTROL_ERROR, FRAME_BYTES, FRAME_SIZE_ERROR, HEADER_TABLE_SIZE,
    Http2, INITIAL_WINDOW_SIZE, MAX_CONCURRENT_STREAMS, MAX_FRAME_SIZE, NO_ERROR, Outcome, PREFACE, PROTOCOL_ERROR,
    STREAM_CLOSED, get, post, reset, settings, window_update,
};
use crate::support::proxy::Proxy;

const BOTH: u8 = END_STREAM | END_HEADERS;
const PROTOCOL: &[u32] = &[PROTOCOL_ERROR];
const SIZE: &[u32] = &[FRAME_SIZE_ERROR];
const FLOW: &[u32] = &[FLOW_CONTROL_ERROR];
const CLOSED: &[u32] = &[STREAM_CLOSED, PROTOCOL_ERROR];
const EITHER_SIZE: &[u32] = &[FRAME_SIZE_ERROR, PROTOCOL_ERROR];

fn fields() -> Vec<u8> {
    request("GET", "/", &[])
}

/// The start of a frame that announces more than comes.
fn only_the_start(kind: u8, stream: u32, len: u32) -> Vec<u8> {
    let mut bytes = frame(kind, 0, stream, &[]);
    bytes[..3].copy_from_slice(&len.to_be_bytes()[1..]);
    bytes
}

#[tokio::test]
async fn a_connection_begins_with_settings() {
    let (proxy, _backend) = mirrored("").await;
    let to = proxy.address("http");
    let mut http2 = Http2::open(to).await;
    let Some(Event::Settings(told)) = http2.event().await else { panic!("settings come first") };
    assert!(told.contains(&(ENABLE_CONNECT_PROTOCOL, 1)), "{told:?}");
    for (id, value) in told {
        match id {
            ENABLE_PUSH => assert_eq!(value, 0, "a server that says so says no"),
            INITIAL_WINDOW_SIZE => assert!(value <= u32::MAX >> 1),
            MAX_FRAME_SIZE => assert!((16_384..1 << 24).contains(&value)),
            _ => {}
        }
    }
    http2.until(|event| (*event == Event::SettingsAck).then_some(())).await;
    // Each of the client's is acknowledged.
    for _ in 0..3 {
        http2.set(&[(MAX_CONCURRENT_STREAMS, 7), (0x7a7a, 1)]).await;
    }
    http2.get(1, "/").await;
    assert_eq!(http2.outcome(1).await.status(), 200);
}

#[tokio::test]
async fn what_is_no_preface_gets_no_http_2() {
    let backend = crate::support::backend::Backend::mirror().await;
    let listeners = "
listeners:
  - { name: http, address: \"127.0.0.1:0\" }
  - { name: only, address: \"127.0.0.1:0\", protocols: [h2] }
";
    let proxy = Proxy::start(&format!("{}{listeners}", backend.config("")));
    for start in [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\rX"[..], b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", &[0; 64]] {
        let mut http2 = Http2::bare(dial(proxy.address("only")).await);
        http2.write(start).await;
        http2.write(get(1, "/")).await;
        while let Some(event) = http2.event().await {
            assert!(matches!(event, Event::Goaway { .. } | Event::Settings(_)), "{event:?}");
        }
    }
    // The preface goes on with SETTINGS (RFC 9113 §3.4).
    let mut http2 = Http2::bare(dial(proxy.address("only")).await);
    http2.write([PREFACE, &settings(&[]), &get(1, "/")].concat()).await;
    assert_eq!(http2.outcome(1).await.status(), 200);
}

#[tokio::test]
async fn http_2_over_tls_is_the_same() {
    let backend = crate::support::backend::Backend::mirror().await;
    let listener = "listeners: [{ name: https, address: \"127.0.0.1:0\", tls: { certificates: [{ cert_file: localhost.crt, key_file: localhost.key }] } }]";
    let yaml = format!("{}\n{listener}\n", backend.config(""));
    let proxy = Proxy::start_in(certificates::folder(&["localhost"]), &yaml);
    let mut http2 = Http2::over(dial_tls(proxy.address("https"), b"h2", "localhost").await, &[]).await;
    assert!(matches!(http2.event().await, Some(Event::Settings(_))));
    http2.round_trip(b"over tls").await;
    let fields = [(":method", "GET"), (":scheme", "https"), (":path", "/"), (":authority", "localhost")];
    http2.write(frame(HEADERS, BOTH, 1, &crate::support::hpack::block(&fields))).await;
    let body = String::from_utf8(http2.outcome(1).await.body()).expect("text");
    assert!(body.contains("\"x-forwarded-proto\":\"https\""), "{body}");
    // A broken frame ends it, and TLS ends as TLS does.
    http2.write(frame(PING, 0, 0, &[0; 7])).await;
    let outcome = http2.outcome(3).await;
    assert!(matches!(outcome, Outcome::Closed(Some(code)) if SIZE.contains(&code)), "{outcome:?}");
}

fn wrong_streams() -> Vec<Case> {
    vec![
        ("DATA on stream 0", PROTOCOL, frame(DATA, 0, 0, b"x")),
        ("HEADERS on stream 0", PROTOCOL, frame(HEADERS, BOTH, 0, &fields())),
        ("HEADERS on an even stream", PROTOCOL, frame(HEADERS, BOTH, 2, &fields())),
        ("HEADERS on a lower stream", CLOSED, [get(5, "/"), get(3, "/")].concat()),
        ("PRIORITY on stream 0", PROTOCOL, frame(PRIORITY, 0, 0, &[0, 0, 0, 1, 0])),
        ("RST_STREAM on stream 0", PROTOCOL, reset(0, 8)),
        ("RST_STREAM on an idle stream", PROTOCOL, reset(1, 8)),
        ("SETTINGS on a stream", PROTOCOL, frame(SETTINGS, 0, 1, &[])),
        ("PING on a stream", PROTOCOL, frame(PING, 0, 1, &[0; 8])),
        ("GOAWAY on a stream", PROTOCOL, frame(GOAWAY, 0, 1, &[0; 8])),
        ("WINDOW_UPDATE on an idle stream", PROTOCOL, window_update(1, 1)),
        ("CONTINUATION on stream 0", PROTOCOL, frame(CONTINUATION, END_HEADERS, 0, &fields())),
        ("PUSH_PROMISE", PROTOCOL, {
            let promise = [vec![0, 0, 0, 2], fields()].concat();
            [post(1, "/"), frame(PUSH_PROMISE, END_HEADERS, 1, &promise)].concat()
        }),
    ]
}

fn wrong_sizes() -> Vec<Case> {
    let over = FRAME_BYTES as u32 + 1;
    vec![
        ("SETTINGS of 5 bytes", SIZE, frame(SETTINGS, 0, 0, &[0; 5])),
        ("an ACK of SETTINGS with a payload", SIZE, frame(SETTINGS, ACK, 0, &[0, 3, 0, 0, 0, 1])),
        ("PING of 7 bytes", SIZE, frame(PING, 0, 0, &[0; 7])),
        ("PING of 9 bytes", SIZE, frame(PING, 0, 0, &[0; 9])),
        ("an ACK of PING of 6 bytes", SIZE, frame(PING, ACK, 0, &[0; 6])),
        ("GOAWAY of 7 bytes", SIZE, frame(GOAWAY, 0, 0, &[0; 7])),
        ("RST_STREAM of 3 bytes", SIZE, [post(1, "/"), frame(RST_STREAM, 0, 1, &[0; 3])].concat()),
        ("RST_STREAM of 5 bytes", SIZE, [post(1, "/"), frame(RST_STREAM, 0, 1, &[0; 5])].concat()),
        ("WINDOW_UPDATE of 3 bytes", SIZE, frame(WINDOW_UPDATE, 0, 0, &[1; 3])),
        ("WINDOW_UPDATE of 5 bytes", SIZE, frame(WINDOW_UPDATE, 0, 0, &[1; 5])),
        ("HEADERS too short for a priority", EITHER_SIZE, frame(HEADERS, BOTH | WITH_PRIORITY, 1, &[0; 4])),
        ("HEADERS too short for padding", EITHER_SIZE, frame(HEADERS, BOTH | PADDED, 1, &[])),
        ("DATA too short for padding", EITHER_SIZE, [post(1, "/"), frame(DATA, PADDED, 1, &[])].concat()),
        ("SETTINGS over the largest frame", SIZE, only_the_start(SETTINGS, 0, over + 1)),
        ("HEADERS over the largest frame", SIZE, only_the_start(HEADERS, 1, over)),
        ("CONTINUATION over the largest frame", SIZE, {
            [frame(HEADERS, 0, 1, &fields()), only_the_start(CONTINUATION, 1, over)].concat()
        }),
        ("an unknown frame over the largest", SIZE, only_the_start(0x77, 0, over)),
        ("the largest length of all", SIZE, only_the_start(SETTINGS, 0, 0xff_fffc)),
    ]
}

fn wrong_settings_and_windows() -> Vec<Case> {
    let most = u32::MAX >> 1;
    vec![
        ("ENABLE_PUSH of 2", PROTOCOL, settings(&[(ENABLE_PUSH, 2)])),
        ("INITIAL_WINDOW_SIZE of 2^31", FLOW, settings(&[(INITIAL_WINDOW_SIZE, 1 << 31)])),
        ("INITIAL_WINDOW_SIZE of 2^32-1", FLOW, settings(&[(INITIAL_WINDOW_SIZE, u32::MAX)])),
        ("MAX_FRAME_SIZE of 16383", PROTOCOL, settings(&[(MAX_FRAME_SIZE, 16_383)])),
        ("MAX_FRAME_SIZE of 2^24", PROTOCOL, settings(&[(MAX_FRAME_SIZE, 1 << 24)])),
        ("MAX_FRAME_SIZE of 0", PROTOCOL, settings(&[(MAX_FRAME_SIZE, 0)])),
        ("a wrong value after right ones", PROTOCOL, settings(&[(MAX_CONCURRENT_STREAMS, 1), (ENABLE_PUSH, 9)])),
        ("WINDOW_UPDATE of 0", PROTOCOL, window_update(0, 0)),
        ("a connection's window over 2^31-1", FLOW, window_update(0, most)),
        ("a connection's window over 2^31-1 in steps", FLOW, {
            [window_update(0, most / 2), window_update(0, most / 2), window_update(0, 2)].concat()
        }),
        ("a stream's window over 2^31-1 by SETTINGS", FLOW, {
            [post(1, "/"), window_update(1, most - 65_535), settings(&[(INITIAL_WINDOW_SIZE, 65_536)])].concat()
        }),
    ]
}

fn wrong_orders() -> Vec<Case> {
    let open = frame(HEADERS, END_STREAM, 1, &fields());
    let after = |bytes: Vec<u8>| [open.clone(), bytes].concat();
    let whole = |bytes: Vec<u8>| [post(1, "/"), bytes].concat();
    let continuation = |stream| frame(CONTINUATION, END_HEADERS, stream, &literal("x-a", "b"));
    vec![
        ("CONTINUATION on an idle stream", PROTOCOL, continuation(1)),
        ("CONTINUATION after a whole HEADERS", PROTOCOL, whole(continuation(1))),
        ("CONTINUATION after DATA", PROTOCOL, whole([frame(DATA, 0, 1, b"x"), continuation(1)].concat())),
        ("CONTINUATION after a whole CONTINUATION", PROTOCOL, { after([continuation(1), continuation(1)].concat()) }),
        ("CONTINUATION of another stream", PROTOCOL, after(continuation(3))),
        ("HEADERS within HEADERS", PROTOCOL, after(get(3, "/"))),
        ("HEADERS twice", PROTOCOL, after(open.clone())),
        ("DATA within HEADERS", PROTOCOL, after(frame(DATA, 0, 1, b"x"))),
        ("SETTINGS within HEADERS", PROTOCOL, after(settings(&[]))),
        ("PING within HEADERS", PROTOCOL, after(frame(PING, 0, 0, &[0; 8]))),
        ("PRIORITY within HEADERS", PROTOCOL, after(frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 9]))),
        ("RST_STREAM within HEADERS", PROTOCOL, after(reset(1, 8))),
        ("WINDOW_UPDATE within HEADERS", PROTOCOL, after(window_update(0, 1))),
        ("GOAWAY within HEADERS", PROTOCOL, after(frame(GOAWAY, 0, 0, &[0; 8]))),
        ("an unknown frame within HEADERS", PROTOCOL, after(frame(0x77, 0, 0, b"?"))),
        ("padding longer than HEADERS", PROTOCOL, frame(HEADERS, BOTH | PADDED, 1, &[5, 0x82, 0x86, 0x84, 0])),
        ("padding far longer than DATA", PROTOCOL, whole(frame(DATA, PADDED, 1, &[200, 1, 2, 3]))),
        ("padding longer than DATA", PROTOCOL, whole(frame(DATA, PADDED, 1, &[4, 1, 2, 3]))),
    ]
}

#[tokio::test]
async fn frames_on_streams_that_they_do_not_belong_to_end_the_connection() {
    let (proxy, _backend) = mirrored("").await;
    each_ends_its_connection(proxy.address("http"), wrong_streams()).await;
}

#[tokio::test]
async fn frames_of_a_wrong_size_end_the_connection() {
    let (proxy, _backend) = mirrored("").await;
    let to = proxy.address("http");
    let told = Http2::open(to).await.setting(MAX_FRAME_SIZE).await.unwrap_or(FRAME_BYTES as u32);
    assert_eq!(told as usize, FRAME_BYTES, "these sizes are over what every server takes");
    each_ends_its_connection(to, wrong_sizes()).await;
}

#[tokio::test]
async fn settings_and_windows_out_of_range_end_the_connection() {
    let (proxy, _backend) = mirrored("").await;
    each_ends_its_connection(proxy.address("http"), wrong_settings_and_windows()).await;
}

#[tokio::test]
async fn frames_out_of_order_end_the_connection() {
    let (proxy, _backend) = mirrored("").await;
    each_ends_its_connection(proxy.address("http"), wrong_orders()).await;
}

/// Errors of a stream, which a server may make one of the connection (RFC 9113 §5.4.2); nothing else is right.
#[tokio::test]
async fn errors_of_a_stream_are_told() {
    let (proxy, _backend) = mirrored("").await;
    let to = proxy.address("http");
    let held = get(1, "/events/held");
    let of = |bytes: Vec<u8>| [held.clone(), bytes].concat();
    let most = u32::MAX >> 1;
    let mut wrong = Vec::new();
    for (name, codes, bytes) in [
        ("DATA on an idle stream", CLOSED, frame(DATA, 0, 1, b"x")),
        ("DATA after the end", CLOSED, of(frame(DATA, 0, 1, b"x"))),
        ("empty DATA after the end", CLOSED, of(frame(DATA, END_STREAM, 1, b""))),
        ("HEADERS after the end", CLOSED, of(get(1, "/"))),
        ("HEADERS on a stream that was reset", CLOSED, of([reset(1, 8), get(1, "/")].concat())),
        ("DATA on a stream that was reset", CLOSED, of([reset(1, 8), frame(DATA, 0, 1, b"x")].concat())),
        ("DATA over the largest frame", SIZE, [post(1, "/"), frame(DATA, 0, 1, &[0; FRAME_BYTES + 1])].concat()),
        ("WINDOW_UPDATE of 0", PROTOCOL, of(window_update(1, 0))),
        ("a window over 2^31-1", FLOW, of(window_update(1, most))),
        ("a window over 2^31-1 in steps", FLOW, {
            of([window_update(1, most / 2), window_update(1, most / 2), window_update(1, 2)].concat())
        }),
        ("PRIORITY of 4 bytes", SIZE, of(frame(PRIORITY, 0, 1, &[0; 4]))),
        ("PRIORITY of 6 bytes", SIZE, of(frame(PRIORITY, 0, 1, &[0; 6]))),
    ] {
        let end = end_of(&mut Http2::open(to).await, bytes).await;
        if !matches!(end, End::Reset(code) | End::Closed(Some(code)) if codes.contains(&code)) {
            wrong.push(format!("{name}: expected one of {codes:?}, but: {end:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn a_stream_that_has_ended_stays_so() {
    let (proxy, _backend) = mirrored("").await;
    for (name, bytes) in [("HEADERS", get(1, "/")), ("DATA", frame(DATA, 0, 1, b"x"))] {
        let mut http2 = Http2::open(proxy.address("http")).await;
        http2.get(1, "/").await;
        assert_eq!(http2.outcome(1).await.status(), 200, "{name}");
        let end = end_of(&mut http2, bytes).await;
        let told = matches!(end, End::Reset(code) | End::Closed(Some(code)) if CLOSED.contains(&code));
        assert!(told, "{name}: {end:?}");
    }
    // These two may have been under way (RFC 9113 §5.1), and PRIORITY is for every stream.
    let mut http2 = Http2::open(proxy.address("http")).await;
    http2.get(1, "/").await;
    assert_eq!(http2.outcome(1).await.status(), 200);
    let late = [window_update(1, 1), reset(1, 8), frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 9]), get(3, "/")].concat();
    http2.write(late).await;
    assert_eq!(http2.outcome(3).await.status(), 200);
}

/// What does nothing, or is allowed; each is followed by a request on stream 101.
fn harmless() -> Vec<(&'static str, Vec<u8>)> {
    let block = fields();
    let priority = [&[0x80, 0, 0, 0, 200][..], &block].concat();
    let padded = [&[255][..], &block, &[0; 255]].concat();
    // Cut within a name and within a value; more pieces than that may be called an attack.
    let cut = [
        frame(HEADERS, END_STREAM, 1, &block[..1]),
        frame(CONTINUATION, 0, 1, &block[1..5]),
        frame(CONTINUATION, 0, 1, &block[5..11]),
        frame(CONTINUATION, END_HEADERS, 1, &block[11..]),
    ];
    let mut reserved = get(1, "/");
    reserved[5] |= 0x80;
    vec![
        ("an unknown frame on the connection", frame(0x77, 0xff, 0, b"?")),
        ("an unknown frame on an idle stream", frame(0x77, 0xff, 7, b"?")),
        ("an unknown frame on an open stream", [post(1, "/"), frame(0xf0, 0xff, 1, &[0; 999])].concat()),
        ("unknown settings", settings(&[(0x99, 1), (0xffff, u32::MAX), (0, 0)])),
        ("settings twice in one frame", settings(&[(INITIAL_WINDOW_SIZE, 1), (INITIAL_WINDOW_SIZE, 100_000)])),
        ("settings at their bounds", {
            settings(&[(INITIAL_WINDOW_SIZE, u32::MAX >> 1), (MAX_FRAME_SIZE, (1 << 24) - 1), (ENABLE_PUSH, 1)])
        }),
        ("no streams for the server", settings(&[(MAX_CONCURRENT_STREAMS, 0), (ENABLE_PUSH, 0)])),
        ("a large table", settings(&[(HEADER_TABLE_SIZE, u32::MAX)])),
        ("unknown flags of SETTINGS", frame(SETTINGS, 0xfe, 0, &[])),
        ("unknown flags of PING", frame(PING, 0xfe, 0, &[1; 8])),
        ("an ACK of no PING", frame(PING, ACK, 0, &[1; 8])),
        ("unknown flags of WINDOW_UPDATE", frame(WINDOW_UPDATE, 0xff, 0, &[0, 0, 0, 1])),
        ("the reserved bit of WINDOW_UPDATE", frame(WINDOW_UPDATE, 0, 0, &[0x80, 0, 0, 1])),
        ("the reserved bit of a stream", reserved),
        ("unknown flags of HEADERS", frame(HEADERS, BOTH | 0xd2, 1, &block)),
        ("unknown flags of DATA", [post(1, "/"), frame(DATA, END_STREAM | 0xf6, 1, b"x")].concat()),
        ("unknown flags of RST_STREAM", [post(1, "/"), frame(RST_STREAM, 0xff, 1, &[0, 0, 0, 8])].concat()),
        ("an unknown code of RST_STREAM", [post(1, "/"), reset(1, 0xdead_beef)].concat()),
        ("PRIORITY of an idle stream", frame(PRIORITY, 0, 99, &[0, 0, 0, 7, 1])),
        ("HEADERS with a priority", frame(HEADERS, BOTH | WITH_PRIORITY, 1, &priority)),
        ("HEADERS with padding", frame(HEADERS, BOTH | PADDED, 1, &padded)),
        ("DATA that is only padding", {
            let data = frame(DATA, PADDED | END_STREAM, 1, &[&[255][..], &[0; 255]].concat());
            [post(1, "/"), frame(DATA, PADDED, 1, &[0]), data].concat()
        }),
        ("fields in pieces", cut.concat()),
        ("an empty CONTINUATION", {
            [frame(HEADERS, END_STREAM, 1, &block), frame(CONTINUATION, END_HEADERS, 1, &[])].concat()
        }),
        ("streams left out", [get(1, "/"), get(9, "/"), get(55, "/")].concat()),
    ]
}

#[tokio::test]
async fn what_is_unknown_or_harmless_is_taken() {
    let (proxy, _backend) = mirrored("").await;
    for (name, bytes) in harmless() {
        let mut http2 = Http2::open(proxy.address("http")).await;
        let asks = bytes[3] == HEADERS && bytes[4] & END_STREAM != 0;
        http2.write(bytes).await;
        // What is a whole request is answered, too.
        if asks {
            let outcome = http2.outcome(1).await;
            assert!(matches!(outcome, Outcome::Answered { status: 200, .. }), "{name}: {outcome:?}");
        }
        http2.get(101, "/").await;
        let outcome = http2.outcome(101).await;
        assert!(matches!(outcome, Outcome::Answered { status: 200, .. }), "{name}: {outcome:?}");
    }
}

/// RFC 7540 made it an error, RFC 9113 ignores it.
#[tokio::test]
async fn a_stream_that_depends_on_itself_disturbs_no_other() {
    let (proxy, _backend) = mirrored("").await;
    let mut http2 = Http2::open(proxy.address("http")).await;
    let bytes = [get(1, "/events/x"), frame(PRIORITY, 0, 1, &[0, 0, 0, 1, 9])].concat();
    match end_of(&mut http2, bytes).await {
        End::Nothing | End::Answered(200) | End::Reset(PROTOCOL_ERROR) => {
            http2.get(3, "/").await;
            assert_eq!(http2.outcome(3).await.status(), 200);
        }
        End::Closed(Some(PROTOCOL_ERROR)) => {}
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_ping_comes_back_as_it_was() {
    let (proxy, _backend) = mirrored("").await;
    let mut http2 = Http2::open(proxy.address("http")).await;
    // One answer to each, in order, and none to an answer.
    let payloads = [*b"\0\0\0\0\0\0\0\0", *b"\xff\xfe\xfd\xfc\xfb\xfa\xf9\xf8", *b"12345678"];
    for payload in payloads {
        let events = http2.round_trip(&payload).await;
        let pongs = events.iter().filter(|event| matches!(event, Event::Pong(_))).count();
        assert_eq!(pongs, 1, "{events:?}");
        http2.write(frame(PING, ACK, 0, b"unasked!")).await;
    }
}

#[tokio::test]
async fn a_client_that_says_goodbye_gets_what_it_asked_for() {
    let (proxy, _backend) = mirrored("").await;
    for code in [NO_ERROR, 0xdead_beef] {
        let mut http2 = Http2::open(proxy.address("http")).await;
        http2.get(1, "/events/x").await;
        assert_eq!(http2.status(1).await, 200);
        http2.write(post(3, "/")).await;
        let goodbye = [&0_u32.to_be_bytes()[..], &code.to_be_bytes(), b"why"].concat();
        http2.write(frame(GOAWAY, 0, 0, &goodbye)).await;
        http2.write(frame(DATA, END_STREAM, 3, b"the rest")).await;
        if code == NO_ERROR {
            let body = String::from_utf8(http2.outcome(3).await.body()).expect("text");
            assert!(body.contains("the rest"), "{body}");
            let event = r#"{"channel":"x","data":"still"}"#;
            crate::support::client::publish(proxy.address("publish"), event).await;
            let mut text = Vec::new();
            http2
                .until(|event| {
                    let Event::Data { stream: 1, content, .. } = event else { return None };
                    text.extend_from_slice(content);
                    String::from_utf8_lossy(&text).contains("data: still\n").then_some(())
                })
                .await;
        }
        let mut other = Http2::open(proxy.address("http")).await;
        other.get(1, "/").await;
        assert_eq!(other.outcome(1).await.status(), 200);
    }
}
