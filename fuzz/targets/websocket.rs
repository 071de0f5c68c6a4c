//! A client's WebSocket frames, cut anywhere.

#![no_main]

use libfuzzer_sys::fuzz_target;
use pushbridge::proto::websocket::reader::{Input, Reader};

const MESSAGE_BYTES_MAX: usize = 4096;

/// What was read, as text; whether it ended with a violation.
fn read<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<String>, bool) {
    let mut reader = Reader::new(MESSAGE_BYTES_MAX);
    let mut events = Vec::new();
    for piece in pieces {
        let mut bytes = piece.to_vec();
        let mut input = Input::new(&mut bytes);
        loop {
            match reader.next(&mut input) {
                Ok(Some(event)) => events.push(format!("{event:?}")),
                Ok(None) => break,
                Err(_) => return (events, true),
            }
        }
        assert!(reader.buffered_bytes() <= 2 * MESSAGE_BYTES_MAX + 256, "{}", reader.buffered_bytes());
    }
    (events, false)
}

fuzz_target!(|input: &[u8]| {
    let (lengths, bytes) = fuzz::halves(input);
    assert_eq!(read(fuzz::pieces(lengths, bytes)), read([bytes].into_iter()));
});
