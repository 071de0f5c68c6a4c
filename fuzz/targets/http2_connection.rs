//! What a client may send over HTTP/2, cut anywhere: the same requests, bodies and answers.

#![no_main]

use libfuzzer_sys::fuzz_target;
use pushbridge::proto::http2::PREFACE;
use pushbridge::proto::http2::connection::{Bounds, Connection, Follows};
use std::task::{Context, Poll, Waker};

const BOUNDS: Bounds = Bounds {
    streams_max: 8,
    header_list_bytes_max: 1024,
    stream_window_bytes: 1024,
    connection_window_bytes: 100_000,
};

/// What is sent, and what the requests were, when all has come.
fn answers<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<u8>, Vec<String>) {
    let mut connection = Connection::new(BOUNDS);
    connection.receive(PREFACE, 0).expect("the preface");
    for piece in pieces {
        if let Err(error) = connection.receive(piece, 0) {
            connection.give_up(error);
            break;
        }
    }
    let mut requests = Vec::new();
    let cx = Context::from_waker(Waker::noop());
    while let Some(incoming) = connection.next_request() {
        let mut body = Vec::new();
        while let Poll::Ready(Some(Ok(part))) = connection.poll_data(incoming.key, &cx) {
            body.extend_from_slice(&part);
        }
        requests.push(format!("{:?} {body:?} {:?}", incoming.head, connection.take_trailers(incoming.key)));
        let _ = connection.send_head(incoming.key, &http::Response::new(()), Follows::More);
        if let Poll::Ready(Ok(capacity)) = connection.poll_capacity(incoming.key, &cx) {
            connection.send_data(incoming.key, &vec![0; capacity], Follows::Nothing).expect("as much as it said");
        }
        connection.release_sender(incoming.key);
        if incoming.has_body {
            connection.release_reader(incoming.key);
        }
    }
    assert!(connection.is_idle());
    (connection.unsent().to_vec(), requests)
}

fuzz_target!(|input: &[u8]| {
    let (lengths, bytes) = fuzz::halves(input);
    assert_eq!(answers(fuzz::pieces(lengths, bytes)), answers([bytes].into_iter()));
});
