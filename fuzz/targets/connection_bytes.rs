//! Requests of HTTP/1.1 as a client's connection brings them; cut anywhere.

#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use pushbridge::proto::http1::{BodyReader, Piece, RequestReader};

const HEAD_BYTES_MAX: usize = 8192;

/// What is found of requests and bodies, and where it ends.
fn requests<'a>(mut pieces: impl Iterator<Item = &'a [u8]>) -> String {
    let (mut input, mut heads, mut found) = (BytesMut::new(), RequestReader::default(), String::new());
    loop {
        let head = loop {
            match heads.read(&input, HEAD_BYTES_MAX) {
                Ok(Some((head, len))) => {
                    drop(input.split_to(len));
                    break head;
                }
                Ok(None) => match pieces.next() {
                    Some(piece) => input.extend_from_slice(piece),
                    None => return found + &unfinished(&input),
                },
                // Which fault it is depends on how much of a broken head is there.
                Err(fault) => return format!("{found}{}", fault.status()),
            }
        };
        found += &format!("{:?} {:?} {:?} {}\n", head.parts, head.framing, head.asked, head.expects_continue);
        let (mut reader, mut body) = (BodyReader::new(head.framing), Vec::new());
        loop {
            match reader.next(&mut input) {
                Ok(Piece::Data(data)) => body.extend_from_slice(&data),
                Ok(Piece::Trailers(trailers)) => found += &format!("{trailers:?}"),
                Ok(Piece::End) => break,
                Ok(Piece::More) => match pieces.next() {
                    Some(piece) => input.extend_from_slice(piece),
                    None => return format!("{found}{body:?}"),
                },
                Err(fault) => return format!("{found}{body:?}{fault}"),
            }
        }
        found += &format!("{body:?}");
    }
}

/// What is wrong with the beginning of a head: a reader that got it in pieces looks again only at its end.
fn unfinished(input: &[u8]) -> String {
    RequestReader::default().read(input, HEAD_BYTES_MAX).err().map_or_else(String::new, |fault| fault.status().to_string())
}

fuzz_target!(|input: &[u8]| {
    let (lengths, bytes) = fuzz::halves(input);
    // A head that is too large is told from one that is malformed as soon as either is known.
    if bytes.len() < HEAD_BYTES_MAX {
        assert_eq!(requests(fuzz::pieces(lengths, bytes)), requests([bytes].into_iter()));
    }
});
