//! A backend's response as the proxy reads it, cut anywhere.

#![no_main]

use bytes::BytesMut;
use http::{HeaderMap, Method};
use libfuzzer_sys::fuzz_target;
use pushbridge::proto::http1::{BodyReader, HeadReader, Piece};

/// What is read: the head, the body, and how that ends. `None` if there is no head.
fn read<'a>(mut pieces: impl Iterator<Item = &'a [u8]>) -> Option<(String, Vec<u8>, String)> {
    let (mut reader, mut buffer) = (HeadReader::default(), BytesMut::new());
    let head = loop {
        buffer.extend_from_slice(pieces.next()?);
        if let Some(head) = reader.take(&mut buffer, &Method::GET, &mut HeaderMap::new()).ok()? {
            break head;
        }
    };
    let shown = format!("{:?} {:?} {:?} {}", head.parts, head.reason, head.framing, head.keeps_alive);
    let (mut body, mut bytes) = (BodyReader::new(head.framing), Vec::new());
    let end = loop {
        match body.next(&mut buffer) {
            Ok(Piece::Data(data)) => bytes.extend_from_slice(&data),
            Ok(Piece::Trailers(trailers)) => break format!("{trailers:?}"),
            Ok(Piece::End) => break "end".to_owned(),
            Ok(Piece::More) => match pieces.next() {
                Some(piece) => buffer.extend_from_slice(piece),
                None => match body.close() {
                    Ok(()) => {}
                    Err(fault) => break fault.to_string(),
                },
            },
            Err(fault) => break fault.to_string(),
        }
    };
    Some((shown, bytes, end))
}

fuzz_target!(|input: &[u8]| {
    let (lengths, bytes) = fuzz::halves(input);
    assert_eq!(read(fuzz::pieces(lengths, bytes)), read([bytes].into_iter()));
});
