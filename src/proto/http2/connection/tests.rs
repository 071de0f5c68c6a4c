//! What a connection makes of its client's frames.

use super::*;
use crate::proto::http2::frame::{ACK, END_HEADERS, END_STREAM, HEAD_BYTES, Head, Kind, PADDED};
use crate::proto::http2::{PREFACE, hpack};
use http::{HeaderName, HeaderValue, Response};
use proptest::prelude::*;
use std::task::Waker;

const BOUNDS: Bounds = Bounds {
    streams_max: 4,
    header_list_bytes_max: 1024,
    stream_window_bytes: 100_000,
    connection_window_bytes: 200_000,
};
/// Frames that a client writes.
mod client {
    use super::*;

    pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let [_, a, b, c] = (payload.len() as u32).to_be_bytes();
        [&[a, b, c, kind, flags], &stream.to_be_bytes()[..], payload].concat()
    }

    pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
        let mut block = Vec::new();
        for (name, value) in fields {
            block.extend_from_slice(&[0, name.len() as u8]);
            block.extend_from_slice(name.as_bytes());
            block.push(value.len() as u8);
            block.extend_from_slice(value.as_bytes());
        }
        block
    }

    pub fn head(method: &str, more: &[(&str, &str)]) -> Vec<u8> {
        block(&[&[(":method", method), (":scheme", "http"), (":authority", "a"), (":path", "/")], more].concat())
    }

    pub fn get(stream: u32) -> Vec<u8> {
        frame(1, END_HEADERS | END_STREAM, stream, &head("GET", &[]))
    }

    pub fn post(stream: u32) -> Vec<u8> {
        frame(1, END_HEADERS, stream, &head("POST", &[]))
    }

    pub fn data(stream: u32, data: &[u8], flags: u8) -> Vec<u8> {
        frame(0, flags, stream, data)
    }

    pub fn window(stream: u32, by: u32) -> Vec<u8> {
        frame(8, 0, stream, &by.to_be_bytes())
    }

    pub fn settings(settings: &[(u16, u32)]) -> Vec<u8> {
        let mut out = Vec::new();
        super::frame::settings(&mut out, settings);
        out
    }

    pub fn reset(stream: u32) -> Vec<u8> {
        frame(3, 0, stream, &8u32.to_be_bytes())
    }
}

fn cx() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

/// A connection whose client has begun, and nothing waits to be sent.
fn begun_with(settings: &[(u16, u32)]) -> Connection {
    let mut connection = Connection::new(BOUNDS);
    connection.receive(&[PREFACE, &client::settings(settings)].concat(), 0).expect("a beginning");
    assert!(connection.has_begun());
    sent(&mut connection);
    connection
}

fn begun() -> Connection {
    begun_with(&[])
}

/// What was sent: frames.
fn sent(connection: &mut Connection) -> Vec<(Kind, u8, u32, Vec<u8>)> {
    let bytes = connection.unsent().to_vec();
    connection.wrote(bytes.len());
    let mut rest = &bytes[..];
    let mut frames = Vec::new();
    while let Some(head) = Head::read(rest) {
        let payload = rest[HEAD_BYTES..HEAD_BYTES + head.len].to_vec();
        frames.push((head.kind, head.flags, head.stream, payload));
        rest = &rest[HEAD_BYTES + head.len..];
    }
    assert!(rest.is_empty(), "whole frames");
    frames
}

fn receive(connection: &mut Connection, bytes: &[u8]) {
    connection.receive(bytes, 0).expect("no error of the connection");
}

fn ask(connection: &mut Connection, bytes: &[u8]) -> Key {
    receive(connection, bytes);
    connection.next_request().expect("a request").key
}

fn respond(connection: &mut Connection, key: Key) {
    connection.send_head(key, &Response::new(()), Follows::More).expect("sent");
}

fn capacity(connection: &mut Connection, key: Key) -> Option<usize> {
    match connection.poll_capacity(key, &cx()) {
        Poll::Ready(capacity) => Some(capacity.expect("no error")),
        Poll::Pending => None,
    }
}

fn resets(connection: &mut Connection) -> Vec<(u32, Reason)> {
    let number = |payload: Vec<u8>| Reason(u32::from_be_bytes(payload.try_into().expect("4 bytes")));
    let frames = sent(connection).into_iter();
    frames.filter(|frame| frame.0 == Kind::RstStream).map(|(_, _, stream, payload)| (stream, number(payload))).collect()
}

#[track_caller]
fn fails(connection: &mut Connection, bytes: &[u8], reason: Reason) {
    assert_eq!(connection.receive(bytes, 0).map_err(|error| error.reason), Err(reason));
}

#[test]
fn a_connection_begins_with_settings() {
    let mut connection = Connection::new(BOUNDS);
    assert_eq!(sent(&mut connection).iter().map(|frame| frame.0).collect::<Vec<_>>(), [Kind::Settings]);
    for byte in PREFACE {
        receive(&mut connection, &[*byte]);
    }
    assert!(!connection.has_begun());
    fails(&mut connection, &client::get(1), Reason::PROTOCOL_ERROR);
    fails(&mut Connection::new(BOUNDS), b"GET / HTTP/1.1\r\n", Reason::PROTOCOL_ERROR);
}

#[test]
fn a_request_is_answered() {
    let mut connection = begun();
    receive(&mut connection, &client::get(1));
    let incoming = connection.next_request().expect("a request");
    assert!(!incoming.has_body && connection.next_request().is_none());
    assert_eq!(incoming.head.expect("a head").uri(), "http://a/");
    let mut head = Response::new(());
    head.headers_mut().insert("content-type", HeaderValue::from_static("text/plain"));
    connection.send_head(incoming.key, &head, Follows::More).expect("sent");
    connection.send_data(incoming.key, b"hello", Follows::Nothing).expect("sent");
    assert_eq!(connection.send_data(incoming.key, b"more", Follows::More), Err(StreamError::Ended));
    let frames = sent(&mut connection);
    let mut fields = Vec::new();
    let decoded = hpack::Decoder::new(4096).decode(&frames[0].3, |name, value| {
        fields.push((String::from_utf8_lossy(name).into_owned(), String::from_utf8_lossy(value).into_owned()));
    });
    decoded.expect("a block");
    assert_eq!(fields, [(":status", "200"), ("content-type", "text/plain")].map(|(a, b)| (a.into(), b.into())));
    assert_eq!(frames[1], (Kind::Data, END_STREAM, 1, b"hello".to_vec()));
    assert!(!connection.is_idle());
    connection.release_sender(incoming.key);
    assert!(connection.is_idle() && connection.unsent().is_empty());
}

#[test]
fn however_the_bytes_come_the_requests_are_the_same() {
    let body = vec![b'x'; 16_384];
    let bytes = [
        PREFACE,
        &client::settings(&[(4, 1000)]),
        &client::post(1),
        &client::data(1, &body, 0),
        &client::get(3),
        &client::data(1, b"end", END_STREAM),
    ]
    .concat();
    for piece in [1, 2, 7, 9, 10, 100, 16_393, bytes.len()] {
        let mut connection = Connection::new(BOUNDS);
        bytes.chunks(piece).for_each(|part| receive(&mut connection, part));
        let post = connection.next_request().expect("a request").key;
        let mut read = Vec::new();
        while let Poll::Ready(Some(part)) = connection.poll_data(post, &cx()) {
            read.extend_from_slice(&part.expect("no error"));
        }
        assert_eq!(read.len(), 16_387, "in pieces of {piece}");
        assert!(connection.is_read(post) && connection.next_request().is_some_and(|get| !get.has_body));
    }
}

#[test]
fn data_keeps_to_the_stream_s_window() {
    let mut connection = begun_with(&[(4, 10)]);
    let key = ask(&mut connection, &client::get(1));
    respond(&mut connection, key);
    assert_eq!(capacity(&mut connection, key), Some(10));
    connection.send_data(key, b"0123456789", Follows::More).expect("sent");
    assert_eq!(capacity(&mut connection, key), None);
    receive(&mut connection, &client::window(1, 5));
    assert_eq!(capacity(&mut connection, key), Some(5));
    // Settings change it, also to below nothing.
    receive(&mut connection, &client::settings(&[(4, 2)]));
    assert_eq!(capacity(&mut connection, key), None);
    receive(&mut connection, &client::window(1, 4));
    assert_eq!(capacity(&mut connection, key), Some(1));
    receive(&mut connection, &client::settings(&[(4, 100)]));
    assert_eq!(capacity(&mut connection, key), Some(99));
}

#[test]
fn data_keeps_to_the_connection_s_window_and_to_the_buffer() {
    let mut connection = begun_with(&[(4, 1_000_000)]);
    let first = ask(&mut connection, &client::get(1));
    let second = ask(&mut connection, &client::get(3));
    respond(&mut connection, first);
    respond(&mut connection, second);
    sent(&mut connection);
    assert_eq!(capacity(&mut connection, first), Some(window::DEFAULT_BYTES as usize));
    connection.send_data(first, &[0; 65_000], Follows::More).expect("sent");
    assert_eq!(capacity(&mut connection, second), Some(UNSENT_BYTES_MAX - 65_000 - 4 * HEAD_BYTES));
    sent(&mut connection);
    assert_eq!(capacity(&mut connection, second), Some(535));
    connection.send_data(second, &[0; 535], Follows::More).expect("sent");
    assert_eq!((capacity(&mut connection, first), capacity(&mut connection, second)), (None, None));
    assert!(!connection.let_go_on(), "there is no room");
    receive(&mut connection, &client::window(0, 1_000_000));
    sent(&mut connection);
    assert!(connection.let_go_on(), "who waits goes on");
    assert_eq!(capacity(&mut connection, first), Some(frame::PAYLOAD_BYTES_MAX), "others wait, too");
    assert!(connection.let_go_on() && !connection.let_go_on());
    assert_eq!(capacity(&mut connection, second), Some(UNSENT_BYTES_MAX));
}

/// Streams with windows that are never used up, and heads that are written.
fn streams<const N: usize>() -> (Connection, [Key; N]) {
    let mut connection = begun_with(&[(4, 0x7fff_ffff)]);
    receive(&mut connection, &client::window(0, 0x7fff_0000));
    let mut stream = 1;
    let keys = [(); N].map(|()| {
        let key = ask(&mut connection, &client::get(stream));
        respond(&mut connection, key);
        stream += 2;
        key
    });
    sent(&mut connection);
    (connection, keys)
}

/// Sends as much as there is room for; how much.
fn fill(connection: &mut Connection, key: Key) -> usize {
    let mut sent = 0;
    while let Some(all) = capacity(connection, key) {
        connection.send_data(key, &vec![0; all], Follows::More).expect("sent");
        sent += all;
    }
    sent
}

#[test]
fn those_who_wait_for_room_go_on_in_their_order() {
    let (mut connection, [download, gone, session]) = streams();
    assert!(fill(&mut connection, download) > 0 && connection.is_full());
    assert_eq!([gone, session].map(|key| capacity(&mut connection, key)), [None; 2]);
    connection.release_sender(gone);
    let mut messages = 0;
    for round in 1..=10 {
        sent(&mut connection);
        // Who was not called does not overtake.
        assert_eq!([download, session].map(|key| capacity(&mut connection, key)), [None; 2]);
        while connection.let_go_on() {
            assert!(fill(&mut connection, download) <= frame::PAYLOAD_BYTES_MAX, "a frame's worth");
            if capacity(&mut connection, session).is_some() {
                connection.send_data(session, &[0; 100], Follows::More).expect("sent");
                messages += 1;
                assert_eq!(capacity(&mut connection, session), None, "it was its turn");
            }
        }
        assert!(connection.is_full() && messages >= round, "{messages} messages after {round} rounds");
    }
}

#[test]
fn a_buffer_that_is_never_empty_does_not_grow() {
    let (mut connection, [key]) = streams();
    for _ in 0..1000 {
        fill(&mut connection, key);
        connection.wrote(connection.unsent().len() / 3);
        while connection.let_go_on() {
            fill(&mut connection, key);
        }
        assert!(connection.unsent.capacity() <= 4 * UNSENT_BYTES_MAX, "{}", connection.unsent.capacity());
    }
}

#[test]
fn only_who_waits_stands_in_the_row() {
    let (mut connection, [first]) = streams();
    fill(&mut connection, first);
    for stream in (3..2003).step_by(2) {
        let key = ask(&mut connection, &client::get(stream));
        respond(&mut connection, key);
        assert_eq!(capacity(&mut connection, key), None);
        if stream % 3 == 0 {
            connection.finish(key).expect("sent");
        } else {
            receive(&mut connection, &client::reset(stream));
        }
        connection.release_sender(key);
    }
    sent(&mut connection);
    assert!(connection.let_go_on());
    assert_eq!(connection.streams[first].waits, WaitsFor::ItsTurn);
    assert!(!connection.let_go_on(), "the first is the only one");
}

#[test]
fn what_is_under_way_on_streams_that_were_answered_early_is_dropped() {
    let mut connection = Connection::new(Bounds { streams_max: 1000, ..BOUNDS });
    receive(&mut connection, &[PREFACE, &client::settings(&[])].concat());
    let ids = || (0..400u32).map(|number| 2 * number + 1);
    for stream in ids() {
        let key = ask(&mut connection, &client::post(stream));
        connection.send_head(key, &Response::new(()), Follows::Nothing).expect("sent");
        connection.release_sender(key);
        connection.release_reader(key);
    }
    assert_eq!(resets(&mut connection).len(), 400);
    for _ in 0..16 {
        for stream in ids() {
            receive(&mut connection, &client::data(stream, &[0; 1000], 0));
        }
    }
    let trailers = client::block(&[("a", "b")]);
    for stream in ids() {
        receive(&mut connection, &client::frame(1, END_HEADERS | END_STREAM, stream, &trailers));
    }
    assert_eq!(resets(&mut connection), []);
}

#[test]
fn a_body_s_window_opens_as_it_is_read() {
    let mut connection = begun();
    let key = ask(&mut connection, &client::post(1));
    let piece = vec![0; 10_000];
    for _ in 0..10 {
        receive(&mut connection, &client::data(1, &piece, 0));
    }
    assert_eq!(sent(&mut connection), [], "nobody has read");
    let mut read = 0;
    while let Poll::Ready(Some(part)) = connection.poll_data(key, &cx()) {
        read += part.expect("no error").len();
    }
    assert_eq!(read, 100_000);
    let opened = sent(&mut connection);
    let by = |stream| {
        let frames = opened.iter().filter(|frame| frame.0 == Kind::WindowUpdate && frame.2 == stream);
        frames.map(|frame| u32::from_be_bytes(frame.3[..].try_into().expect("4 bytes"))).sum::<u32>()
    };
    assert_eq!((by(0), by(1)), (100_000, 100_000));
}

#[test]
fn more_than_a_window_is_an_error() {
    let mut connection = begun();
    let first = ask(&mut connection, &client::post(1));
    let piece = [0; 10_000];
    for _ in 0..10 {
        receive(&mut connection, &client::data(1, &piece, 0));
    }
    receive(&mut connection, &client::data(1, b"x", 0));
    assert_eq!(resets(&mut connection), [(1, Reason::FLOW_CONTROL_ERROR)]);
    assert!(matches!(connection.poll_data(first, &cx()), Poll::Ready(Some(Err(StreamError::Reset(_))))));
    // What was not read of it does not count against the connection any more.
    ask(&mut connection, &client::post(3));
    ask(&mut connection, &client::post(5));
    for stream in [3, 5] {
        for _ in 0..9 {
            receive(&mut connection, &client::data(stream, &piece, 0));
        }
    }
    assert_eq!(resets(&mut connection), []);
    receive(&mut connection, &client::data(3, &piece, 0));
    receive(&mut connection, &client::data(5, &piece, 0));
    fails(&mut connection, &client::data(5, &piece, 0), Reason::FLOW_CONTROL_ERROR);
}

#[test]
fn padding_counts_and_is_not_read() {
    let mut connection = begun();
    let key = ask(&mut connection, &client::post(1));
    let padded = [&[200][..], b"abc", &[0; 200]].concat();
    for _ in 0..1000 {
        receive(&mut connection, &client::data(1, &padded, PADDED));
        assert!(matches!(connection.poll_data(key, &cx()), Poll::Ready(Some(Ok(part))) if part.as_ref() == b"abc"));
    }
    fails(&mut connection, &client::data(1, &[4, 0, 0, 0], PADDED), Reason::PROTOCOL_ERROR);
}

#[test]
fn a_body_is_as_long_as_it_says() {
    for (length, data, flags, fits) in
        [("3", "abc", END_STREAM, true), ("3", "ab", END_STREAM, false), ("3", "abcd", 0, false), ("4", "abc", 0, true)]
    {
        let mut connection = begun();
        let head = client::frame(1, END_HEADERS, 1, &client::head("POST", &[("content-length", length)]));
        ask(&mut connection, &head);
        receive(&mut connection, &client::data(1, data.as_bytes(), flags));
        let expected = if fits { vec![] } else { vec![(1, Reason::PROTOCOL_ERROR)] };
        assert_eq!(resets(&mut connection), expected, "{length}: {data}");
    }
    let mut connection = begun();
    let head = client::head("GET", &[("content-length", "3")]);
    receive(&mut connection, &client::frame(1, END_HEADERS | END_STREAM, 1, &head));
    assert_eq!(resets(&mut connection), [(1, Reason::PROTOCOL_ERROR)]);
    assert!(connection.next_request().is_none());
}

#[test]
fn trailers_end_a_body() {
    let mut connection = begun();
    let key = ask(&mut connection, &client::post(1));
    receive(&mut connection, &client::data(1, b"abc", 0));
    receive(&mut connection, &client::frame(1, END_HEADERS | END_STREAM, 1, &client::block(&[("a", "b")])));
    assert!(matches!(connection.poll_data(key, &cx()), Poll::Ready(Some(Ok(_)))));
    assert!(!connection.is_read(key) && connection.poll_data(key, &cx()).is_ready());
    assert_eq!(connection.take_trailers(key).expect("trailers")["a"], "b");
    assert!(connection.is_read(key));
    for (fields, flags) in [(("a", "b"), END_HEADERS), ((":path", "/"), END_HEADERS | END_STREAM)] {
        let mut connection = begun();
        ask(&mut connection, &client::post(1));
        receive(&mut connection, &client::frame(1, flags, 1, &client::block(&[fields])));
        assert_eq!(resets(&mut connection), [(1, Reason::PROTOCOL_ERROR)], "{fields:?}");
    }
}

#[test]
fn streams_over_the_limit_are_refused_and_places_come_back() {
    let mut connection = begun();
    let keys = [1, 3, 5, 7].map(|stream| ask(&mut connection, &client::get(stream)));
    receive(&mut connection, &client::get(9));
    assert_eq!(resets(&mut connection), [(9, Reason::REFUSED_STREAM)]);
    assert_eq!(connection.take_refusals(), Refusals { malformed: 0, streams: 1 });
    receive(&mut connection, &client::reset(3));
    ask(&mut connection, &client::get(11));
    connection.send_head(keys[2], &Response::new(()), Follows::Nothing).expect("sent");
    ask(&mut connection, &client::get(13));
    // Those that have ended are there for as long as somebody speaks of them, but not without bound.
    for stream in [15, 17] {
        receive(&mut connection, &client::reset(stream - 4));
        ask(&mut connection, &client::get(stream));
    }
    receive(&mut connection, &[client::reset(15), client::get(19)].concat());
    assert_eq!(resets(&mut connection), [(19, Reason::REFUSED_STREAM)]);
}

#[test]
fn a_reset_is_heard_by_all_who_speak_of_the_stream() {
    let mut connection = begun();
    let key = ask(&mut connection, &client::post(1));
    respond(&mut connection, key);
    sent(&mut connection);
    assert!(connection.poll_reset(key, &cx()).is_pending());
    receive(&mut connection, &client::reset(1));
    assert_eq!(connection.poll_reset(key, &cx()), Poll::Ready(StreamError::Reset(Reason::CANCEL)));
    assert!(matches!(connection.poll_capacity(key, &cx()), Poll::Ready(Err(_))));
    assert!(matches!(connection.poll_data(key, &cx()), Poll::Ready(Some(Err(_)))));
    connection.release_sender(key);
    connection.release_reader(key);
    assert!(connection.is_idle() && connection.unsent().is_empty(), "a reset is not answered");
}

#[test]
fn what_is_dropped_is_reset() {
    let mut connection = begun();
    let key = ask(&mut connection, &client::get(1));
    respond(&mut connection, key);
    connection.release_sender(key);
    assert_eq!(resets(&mut connection), [(1, Reason::CANCEL)]);
    let key = ask(&mut connection, &client::post(3));
    connection.send_head(key, &Response::new(()), Follows::Nothing).expect("sent");
    connection.release_sender(key);
    assert_eq!(resets(&mut connection), []);
    connection.release_reader(key);
    assert_eq!(resets(&mut connection), [(3, Reason::NO_ERROR)]);
    // What is under way then is dropped, and the window given back.
    for _ in 0..100 {
        receive(&mut connection, &client::data(3, &[0; 10_000], 0));
    }
    assert!(resets(&mut connection).is_empty() && connection.is_idle());
}

#[test]
fn requests_given_up_early_are_paid_for() {
    let mut connection = begun();
    let mut given_up = 0;
    let result = (0..10_000).try_for_each(|number| {
        given_up = number;
        connection.receive(&[client::get(2 * number + 1), client::reset(2 * number + 1)].concat(), 0)
    });
    assert_eq!(result.map_err(|error| error.reason), Err(Reason::ENHANCE_YOUR_CALM));
    assert!((100..1000).contains(&given_up), "{given_up}");
    assert!(connection.next_request().is_none() && connection.is_idle(), "nobody had looked at them");
}

#[test]
fn sessions_that_are_given_up_are_not_paid_for() {
    let mut connection = begun();
    for number in 0..10_000 {
        let key = ask(&mut connection, &client::get(2 * number + 1));
        respond(&mut connection, key);
        receive(&mut connection, &client::reset(2 * number + 1));
        connection.release_sender(key);
        sent(&mut connection);
    }
}

#[test]
fn frames_that_say_nothing_are_paid_for() {
    for frame in [client::data(1, b"", 0), client::settings(&[]), client::window(1, 0)] {
        let mut connection = begun();
        ask(&mut connection, &client::post(1));
        let result = (0..1000).try_for_each(|number| {
            if connection.open.is_empty() {
                connection.receive(&client::post(2 * number + 1), 0)?;
            }
            let stream = connection.last;
            let mut frame = frame.clone();
            if frame[8] == 1 {
                frame[5..9].copy_from_slice(&stream.to_be_bytes());
            }
            connection.receive(&frame, 0)
        });
        assert_eq!(result.map_err(|error| error.reason), Err(Reason::ENHANCE_YOUR_CALM));
    }
}

#[test]
fn header_blocks_are_bounded() {
    let begin = client::frame(1, END_STREAM, 1, b"");
    let with = |continuation: Vec<u8>, times| {
        let mut connection = begun();
        receive(&mut connection, &begin);
        assert!(connection.awaits_head());
        (0..times).try_for_each(|_| connection.receive(&continuation, 0)).map_err(|error| error.reason)
    };
    assert_eq!(with(client::frame(9, 0, 1, b""), 10), Ok(()));
    assert_eq!(with(client::frame(9, 0, 1, b""), 100), Err(Reason::ENHANCE_YOUR_CALM));
    assert_eq!(with(client::frame(9, 0, 1, &[0; 5000]), 1), Err(Reason::ENHANCE_YOUR_CALM));
    assert_eq!(with(client::frame(9, 0, 3, b""), 1), Err(Reason::PROTOCOL_ERROR));
    assert_eq!(with(client::frame(6, 0, 0, b"12345678"), 1), Err(Reason::PROTOCOL_ERROR));
    // A head that is too large is answered, and the connection goes on.
    let mut connection = begun();
    let large = client::head("GET", &[("a", "x".repeat(100).as_str()); 10]);
    receive(&mut connection, &client::frame(1, END_HEADERS | END_STREAM, 1, &large));
    assert!(connection.next_request().is_some_and(|incoming| incoming.head.is_none()));
    ask(&mut connection, &client::get(3));
}

#[test]
fn large_heads_go_on_in_continuations() {
    let mut connection = begun();
    let key = ask(&mut connection, &client::get(1));
    let mut head = Response::new(());
    for number in 0..500 {
        let name = HeaderName::try_from(format!("name-{number}")).expect("a name");
        head.headers_mut().insert(name, HeaderValue::from_static("a value of some length, as there are in cookies"));
    }
    connection.send_head(key, &head, Follows::Nothing).expect("sent");
    let frames = sent(&mut connection);
    assert_eq!((frames[0].0, frames[0].1), (Kind::Headers, END_STREAM));
    assert!(frames[1..].iter().all(|frame| frame.0 == Kind::Continuation) && frames.len() > 1);
    let block: Vec<u8> = frames.iter().flat_map(|frame| frame.3.clone()).collect();
    let mut count = 0;
    hpack::Decoder::new(4096).decode(&block, |_, _| count += 1).expect("a block");
    assert_eq!(count, 501);
}

#[test]
fn a_connection_is_left_when_the_client_has_heard() {
    let mut connection = begun();
    let key = ask(&mut connection, &client::get(1));
    connection.leave();
    connection.leave();
    let frames = sent(&mut connection);
    assert_eq!(frames.iter().map(|frame| frame.0).collect::<Vec<_>>(), [Kind::GoAway, Kind::Ping]);
    assert_eq!(frames[0].3[..4], 0x7fff_ffffu32.to_be_bytes());
    // What it began before it heard is served.
    let late = ask(&mut connection, &client::post(3));
    let pong = client::frame(6, ACK, 0, &frames[1].3);
    receive(&mut connection, &pong);
    assert_eq!(sent(&mut connection)[0].3[..4], 3u32.to_be_bytes());
    // What it begins then is not looked at, and costs it nothing.
    receive(&mut connection, &[client::post(5), client::data(5, b"abc", 0), client::reset(5)].concat());
    assert!(connection.next_request().is_none() && connection.unsent().is_empty() && !connection.is_over());
    connection.send_head(key, &Response::new(()), Follows::Nothing).expect("sent");
    connection.release_sender(key);
    connection.release_sender(late);
    connection.release_reader(late);
    assert!(connection.is_over());
}

#[test]
fn the_table_s_size_is_answered_with_the_next_head() {
    let mut connection = begun();
    let first_byte = |connection: &mut Connection, stream| {
        let key = ask(connection, &client::get(stream));
        connection.send_head(key, &Response::new(()), Follows::Nothing).expect("sent");
        connection.release_sender(key);
        sent(connection).pop().expect("a frame").3[0]
    };
    assert_eq!([1, 3].map(|stream| first_byte(&mut connection, stream)), [0x20, 0x88]);
    receive(&mut connection, &client::settings(&[(1, 0)]));
    sent(&mut connection);
    assert_eq!([5, 7].map(|stream| first_byte(&mut connection, stream)), [0x20, 0x88]);
}

#[test]
fn an_ended_connection_is_heard_of() {
    let mut connection = begun();
    let key = ask(&mut connection, &client::post(1));
    connection.end();
    assert_eq!(connection.poll_data(key, &cx()), Poll::Ready(Some(Err(StreamError::ConnectionEnded))));
    assert_eq!(connection.poll_reset(key, &cx()), Poll::Ready(StreamError::ConnectionEnded));
    connection.release_sender(key);
    connection.release_reader(key);
    assert!(connection.is_idle() && connection.unsent().is_empty());
}

proptest! {
    /// Whatever comes: no panic, and no more waits to be sent than a few answers for each byte.
    #[test]
    fn anything_may_come(
        frames in proptest::collection::vec(
            (0u8..11, any::<u8>(), 0u32..12, proptest::collection::vec(any::<u8>(), 0..40)),
            0..60,
        ),
        piece in 1usize..200,
    ) {
        let mut connection = begun();
        let bytes: Vec<u8> = frames
            .iter()
            .flat_map(|(kind, flags, stream, payload)| match (kind, flags % 2) {
                // Blocks of chance alone would end most connections at once.
                (1, 0) => client::frame(1, *flags & 0x25 | 4, *stream, &client::head("POST", &[])),
                _ => client::frame(*kind, *flags, *stream, payload),
            })
            .collect();
        let mut keys = Vec::new();
        for part in bytes.chunks(piece) {
            if let Err(error) = connection.receive(part, 0) {
                connection.give_up(error);
                break;
            }
            while let Some(incoming) = connection.next_request() {
                let _ = connection.send_head(incoming.key, &Response::new(()), Follows::More);
                keys.push(incoming);
            }
            for incoming in &keys {
                let _ = connection.poll_data(incoming.key, &cx());
                if let Poll::Ready(Ok(capacity)) = connection.poll_capacity(incoming.key, &cx()) {
                    let data = vec![0; capacity.min(100)];
                    connection.send_data(incoming.key, &data, Follows::More).expect("as much as it said");
                }
            }
            connection.let_go_on();
            let unsent = connection.unsent().len();
            prop_assert!(unsent <= UNSENT_BYTES_MAX + 40 * bytes.len());
        }
        connection.end();
        for incoming in keys {
            connection.release_sender(incoming.key);
            if incoming.has_body {
                connection.release_reader(incoming.key);
            }
        }
        while let Some(incoming) = connection.next_request() {
            connection.release_sender(incoming.key);
            if incoming.has_body {
                connection.release_reader(incoming.key);
            }
        }
        prop_assert!(connection.is_idle());
    }
}
