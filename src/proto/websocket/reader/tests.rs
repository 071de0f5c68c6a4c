//! Frames as they come, whole and in pieces, good and bad; and tungstenite as the peer.

use super::*;
use crate::proto::websocket::frame;
use proptest::prelude::*;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Control, Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::frame::{CloseFrame, Frame as PeerFrame};
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{self, WebSocket};

const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// A client's frame: the first byte as given, the payload masked.
fn client(first: u8, payload: &[u8]) -> Vec<u8> {
    let (head, head_len) = frame::head(Opcode::Text, payload.len());
    let mut out = vec![first, head[1] | 0x80];
    out.extend_from_slice(&head[2..head_len]);
    out.extend_from_slice(&KEY);
    let start = out.len();
    out.extend_from_slice(payload);
    unmask(&mut out[start..], KEY, 0);
    out
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Owned {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<(u16, String)>),
    Violation(Violation),
}

fn owned(event: Event<'_>) -> Owned {
    match event {
        Event::Text(text) => Owned::Text(text.to_owned()),
        Event::Binary(bytes) => Owned::Binary(bytes.to_vec()),
        Event::Ping(bytes) => Owned::Ping(bytes.to_vec()),
        Event::Pong(bytes) => Owned::Pong(bytes.to_vec()),
        Event::Close(close) => Owned::Close(close.map(|close| (close.code, close.reason.to_owned()))),
    }
}

/// Feeds `bytes` in pieces, whose lengths `pieces` gives over and over.
fn read_in_pieces(reader: &mut Reader, bytes: &[u8], pieces: &[usize]) -> Vec<Owned> {
    let mut events = Vec::new();
    let mut pieces = pieces.iter().copied().cycle();
    let mut rest = bytes;
    while !rest.is_empty() {
        let (now, later) = rest.split_at(pieces.next().unwrap_or(rest.len()).clamp(1, rest.len()));
        rest = later;
        let mut now = now.to_vec();
        let mut input = Input::new(&mut now);
        loop {
            match reader.next(&mut input) {
                Ok(Some(event)) => events.push(owned(event)),
                Ok(None) => break,
                Err(violation) => events.push(Owned::Violation(violation)),
            }
        }
        assert!(input.rest().is_empty(), "all is read when there is nothing more");
    }
    events
}

/// What `bytes` mean must not depend on how they are cut.
#[track_caller]
fn check(bytes: &[u8], expected: &[Owned]) {
    for piece in [usize::MAX, 1, 2, 3, 7] {
        assert_eq!(read_in_pieces(&mut Reader::new(1000), bytes, &[piece]), expected, "in pieces of {piece}");
    }
}

#[track_caller]
fn violates(bytes: &[u8], violation: Violation, reason: CloseReason) {
    check(bytes, &[Owned::Violation(violation)]);
    assert_eq!(violation.reason(), reason);
    let swallowed = [bytes, &client(0x81, b"more")].concat();
    check(&swallowed, &[Owned::Violation(violation)]);
}

#[test]
fn messages_of_one_frame_are_read() {
    check(&[0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58], &[Owned::Text("Hello".into())]);
    check(&client(0x81, b""), &[Owned::Text(String::new())]);
    check(&client(0x82, &[255; 300]), &[Owned::Binary(vec![255; 300])]);
}

#[test]
fn fragments_are_joined_and_controls_come_between() {
    let bytes = [
        client(0x01, "gr\u{fc}".as_bytes().split_last().expect("bytes").1),
        client(0x89, b"a"),
        client(0x00, b""),
        client(0x8a, b"b"),
        client(0x80, &[0xbc, b'n']),
        client(0x82, b"x"),
    ]
    .concat();
    let ping = Owned::Ping(b"a".to_vec());
    let pong = Owned::Pong(b"b".to_vec());
    check(&bytes, &[ping, pong, Owned::Text("gr\u{fc}n".into()), Owned::Binary(b"x".to_vec())]);
}

#[test]
fn a_long_length_for_a_short_payload_is_read() {
    check(&[0x82, 0xfe, 0, 1, 0, 0, 0, 0, 9], &[Owned::Binary(vec![9])]);
    check(&[0x82, 0xff, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 9], &[Owned::Binary(vec![9])]);
}

#[test]
fn nothing_is_read_after_a_close() {
    let close = |payload: &[u8]| [client(0x88, payload), client(0x81, b"late")].concat();
    check(&close(b""), &[Owned::Close(None)]);
    check(&close(b"\x03\xe8bye"), &[Owned::Close(Some((1000, "bye".into())))]);
    check(&close(b"\x0b\xb8"), &[Owned::Close(Some((3000, String::new())))]);
}

#[test]
fn broken_frames_are_violations() {
    violates(&frame::text("x"), Violation::Unmasked, CloseReason::Protocol);
    for bit in [0x40, 0x20, 0x10] {
        violates(&client(0x81 | bit, b"x"), Violation::ReservedBits, CloseReason::Protocol);
    }
    for opcode in [3, 7, 11, 15] {
        violates(&client(0x80 | opcode, b"x"), Violation::Opcode(opcode), CloseReason::Protocol);
    }
    violates(&client(0x09, b""), Violation::ControlFragment, CloseReason::Protocol);
    violates(&client(0x89, &[0; 126]), Violation::ControlLength, CloseReason::Protocol);
    violates(&client(0x80, b"x"), Violation::NothingToContinue, CloseReason::Protocol);
    violates(&client(0x00, b"x"), Violation::NothingToContinue, CloseReason::Protocol);
    violates(&[client(0x01, b"x"), client(0x81, b"y")].concat(), Violation::Interleaved, CloseReason::Protocol);
    violates(&[client(0x02, b""), client(0x02, b"")].concat(), Violation::Interleaved, CloseReason::Protocol);
    let high_bit = [0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 9];
    violates(&high_bit, Violation::Length, CloseReason::Protocol);
    violates(&client(0x88, b"\x03"), Violation::CloseLength, CloseReason::Protocol);
    violates(&client(0x88, b"\x03\xed"), Violation::CloseCode(1005), CloseReason::Protocol);
    violates(&client(0x88, b"\x03\xe8\xff"), Violation::Utf8, CloseReason::BadUtf8);
}

#[test]
fn bad_utf8_fails_at_the_first_bad_byte() {
    violates(&client(0x81, b"a\xff"), Violation::Utf8, CloseReason::BadUtf8);
    violates(&client(0x81, b"a\xc3"), Violation::Utf8, CloseReason::BadUtf8);
    violates(&[client(0x01, b"\xc3"), client(0x80, b"")].concat(), Violation::Utf8, CloseReason::BadUtf8);
    // The rest of the frame never comes.
    let cut = &client(0x01, b"\xf4\x90\x80\x80 and so on")[..8];
    assert_eq!(read_in_pieces(&mut Reader::new(99), cut, &[1]), [Owned::Violation(Violation::Utf8)]);
}

#[test]
fn a_message_over_the_limit_fails_at_its_head() {
    let reader = &mut Reader::new(10);
    let bytes = [client(0x82, &[0; 10]), client(0x02, &[0; 6]), client(0x00, &[0; 4]), client(0x00, &[0; 1])].concat();
    let events = read_in_pieces(reader, &bytes[..bytes.len() - 1], &[usize::MAX]);
    assert_eq!(events, [Owned::Binary(vec![0; 10]), Owned::Violation(Violation::TooBig(10))]);
    violates(&client(0x81, &[b'x'; 1001]), Violation::TooBig(1000), CloseReason::TooBig);
    let huge = [0x82, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0];
    violates(&huge, Violation::TooBig(1000), CloseReason::TooBig);
}

#[test]
fn endless_empty_fragments_are_a_violation() {
    let reader = &mut Reader::new(10);
    let mut bytes = client(0x01, b"");
    for _ in 1..FRAGMENTS_MAX {
        bytes.extend_from_slice(&client(0x00, b""));
    }
    assert_eq!(read_in_pieces(reader, &bytes, &[usize::MAX]), []);
    let events = read_in_pieces(reader, &client(0x80, b""), &[usize::MAX]);
    assert_eq!(events, [Owned::Violation(Violation::Fragments)]);
    assert_eq!(Violation::Fragments.reason(), CloseReason::Policy);
}

#[test]
fn fragments_are_counted_for_each_message() {
    let bytes = [client(0x81, b"x"), client(0x01, b""), client(0x80, b"")].concat();
    let reader = &mut Reader::new(10);
    for _ in 0..FRAGMENTS_MAX {
        assert_eq!(read_in_pieces(reader, &bytes, &[usize::MAX]).len(), 2);
    }
}

#[test]
fn a_reader_owns_nothing_between_messages() {
    let reader = &mut Reader::new(1000);
    let bytes = [client(0x01, &[b'x'; 500]), client(0x89, b"ping"), client(0x80, &[b'y'; 500])].concat();
    assert_eq!(read_in_pieces(reader, &bytes[..40], &[1]), []);
    assert!(reader.buffered_bytes() > 0);
    assert_eq!(read_in_pieces(reader, &bytes[40..], &[1]).len(), 2);
    assert_eq!(reader.buffered_bytes(), 0);
    assert!(size_of::<Reader>() <= 152, "{}", size_of::<Reader>());
}

#[test]
fn whole_frames_are_lent_from_the_input() {
    let reader = &mut Reader::new(1000);
    let mut bytes = [client(0x81, b"one"), client(0x89, b"two")].concat();
    let mut input = Input::new(&mut bytes);
    assert_eq!(reader.next(&mut input), Ok(Some(Event::Text("one"))));
    assert_eq!(reader.buffered_bytes(), 0);
    assert_eq!(input.rest(), client(0x89, b"two"), "the rest is as it came");
    assert_eq!(reader.next(&mut input), Ok(Some(Event::Ping(b"two"))));
    assert_eq!(reader.buffered_bytes(), 0);
    assert_eq!(reader.next(&mut input), Ok(None));
}

/// A stream in memory for the peer.
#[derive(Debug, Default)]
struct Pipe {
    incoming: std::io::Cursor<Vec<u8>>,
    outgoing: Vec<u8>,
}

impl std::io::Read for Pipe {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        match self.incoming.read(out)? {
            0 => Err(std::io::ErrorKind::WouldBlock.into()),
            len => Ok(len),
        }
    }
}

impl std::io::Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.outgoing.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn peer(incoming: Vec<u8>) -> WebSocket<Pipe> {
    let pipe = Pipe { incoming: std::io::Cursor::new(incoming), outgoing: Vec::new() };
    WebSocket::from_raw_socket(pipe, Role::Client, None::<WebSocketConfig>)
}

fn said() -> impl Strategy<Value = Owned> {
    prop_oneof![
        4 => ".{0,200}".prop_map(Owned::Text),
        1 => "x{65500,65600}".prop_map(Owned::Text),
        4 => proptest::collection::vec(any::<u8>(), 0..300).prop_map(Owned::Binary),
        1 => proptest::collection::vec(any::<u8>(), 0..126).prop_map(Owned::Ping),
        1 => proptest::collection::vec(any::<u8>(), 0..126).prop_map(Owned::Pong),
    ]
}

/// A data message as the peer's frames, cut at `cuts`; controls as one.
fn peer_frames(said: &Owned, cuts: &[prop::sample::Index]) -> Vec<PeerFrame> {
    let (data, bytes) = match said {
        Owned::Text(text) => (Data::Text, text.as_bytes()),
        Owned::Binary(bytes) => (Data::Binary, bytes.as_slice()),
        Owned::Ping(bytes) => return vec![PeerFrame::ping(bytes.clone())],
        Owned::Pong(bytes) => return vec![PeerFrame::pong(bytes.clone())],
        _ => return Vec::new(),
    };
    let mut ends: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
    ends.push(bytes.len());
    ends.sort_unstable();
    let mut start = 0;
    let mut frames = Vec::new();
    for (at, end) in ends.iter().copied().enumerate() {
        let opcode = OpCode::Data(if at == 0 { data } else { Data::Continue });
        frames.push(PeerFrame::message(bytes[start..end].to_vec(), opcode, at + 1 == ends.len()));
        start = end;
    }
    frames
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn what_a_peer_says_is_heard(
        conversation in proptest::collection::vec((said(), proptest::collection::vec(any::<prop::sample::Index>(), 0..4)), 0..12),
        close in proptest::option::of((3000u16..5000, ".{0,20}")),
        pieces in proptest::collection::vec(1usize..2000, 1..6),
    ) {
        let mut peer = peer(Vec::new());
        let mut expected = Vec::new();
        for (said, cuts) in &conversation {
            for frame in peer_frames(said, cuts) {
                peer.send(tungstenite::Message::Frame(frame)).expect("sent");
            }
            expected.push(said.clone());
        }
        if let Some((code, reason)) = close {
            let frame = CloseFrame { code: code.into(), reason: reason.as_str().into() };
            peer.close(Some(frame)).expect("closed");
            expected.push(Owned::Close(Some((code, reason))));
        }
        let mut reader = Reader::new(1 << 20);
        let heard = read_in_pieces(&mut reader, &peer.get_ref().outgoing, &pieces);
        prop_assert_eq!(heard, expected);
        prop_assert_eq!(reader.buffered_bytes(), 0);
    }

    #[test]
    fn a_peer_hears_what_is_said(conversation in proptest::collection::vec(said(), 0..12)) {
        let mut bytes = Vec::new();
        for said in &conversation {
            bytes.extend_from_slice(&match said {
                Owned::Text(text) => frame::text(text),
                Owned::Binary(bytes) => frame::binary(bytes),
                Owned::Ping(bytes) => frame::frame(Opcode::Ping, bytes),
                _ => frame::pong(b"p"),
            });
        }
        bytes.extend_from_slice(&close::encode(4001, "gap"));
        let mut peer = peer(bytes);
        for said in &conversation {
            let expected = match said {
                Owned::Text(text) => tungstenite::Message::text(text.clone()),
                Owned::Binary(bytes) => tungstenite::Message::binary(bytes.clone()),
                Owned::Ping(bytes) => tungstenite::Message::Ping(bytes.clone().into()),
                _ => tungstenite::Message::Pong(b"p"[..].into()),
            };
            prop_assert_eq!(peer.read().expect("a message"), expected);
        }
        let tungstenite::Message::Close(Some(close)) = peer.read().expect("a close") else {
            return Err(TestCaseError::fail("no close"));
        };
        prop_assert_eq!((u16::from(close.code), close.reason.as_str()), (4001, "gap"));
    }

    #[test]
    fn any_bytes_end_in_events_or_a_violation(
        bytes in proptest::collection::vec(prop_oneof![any::<u8>(), prop::sample::select(vec![0x01u8, 0x80, 0x81, 0x82, 0x83, 0x89])], 0..2000),
        pieces in proptest::collection::vec(1usize..100, 1..4),
    ) {
        let mut reader = Reader::new(64);
        let events = read_in_pieces(&mut reader, &bytes, &pieces);
        let ends = |event: &Owned| matches!(event, Owned::Close(_) | Owned::Violation(_));
        prop_assert!(events.iter().rev().skip(1).all(|event| !ends(event)), "an end is the last");
        prop_assert!(reader.buffered_bytes() <= 64 + 256);
    }

    #[test]
    fn the_peer_and_the_reader_agree_on_any_frames(
        frames in proptest::collection::vec((any::<u8>(), proptest::collection::vec(any::<u8>(), 0..130)), 1..6),
    ) {
        // As a server the peer has the same rules to keep: it must refuse what the reader refuses.
        let bytes: Vec<u8> = frames.iter().flat_map(|(first, payload)| client(*first, payload)).collect();
        let mut server = WebSocket::from_raw_socket(
            Pipe { incoming: std::io::Cursor::new(bytes.clone()), outgoing: Vec::new() },
            Role::Server,
            None,
        );
        let mut theirs = 0;
        let refused = loop {
            match server.read() {
                Ok(tungstenite::Message::Close(_)) => break false,
                Ok(_) => theirs += 1,
                Err(tungstenite::Error::Io(_)) => break false,
                Err(_) => break true,
            }
        };
        let ours = read_in_pieces(&mut Reader::new(1 << 20), &bytes, &[usize::MAX]);
        let heard = ours.iter().filter(|e| !matches!(e, Owned::Close(_) | Owned::Violation(_))).count();
        prop_assert_eq!(heard, theirs);
        // A bad close code alone is answered by the peer with a close, which `read` does not tell as an error.
        let violation = ours.iter().find_map(|event| match event {
            Owned::Violation(violation) => Some(violation),
            _ => None,
        });
        if !matches!(violation, Some(Violation::CloseCode(_))) {
            prop_assert_eq!(violation.is_some(), refused, "{:?}", ours);
        }
    }
}

#[test]
fn the_peers_opcodes_are_ours() {
    for (ours, theirs) in [
        (Opcode::Text, OpCode::Data(Data::Text)),
        (Opcode::Close, OpCode::Control(Control::Close)),
        (Opcode::Pong, OpCode::Control(Control::Pong)),
    ] {
        assert_eq!(ours as u8, u8::from(theirs));
    }
}
