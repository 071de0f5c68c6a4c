//! An event stream as a client reads it, cut anywhere.

#![no_main]

use libfuzzer_sys::fuzz_target;
use pushbridge::proto::event_stream::{EventStream, Item};

fn read<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<Item>, Option<String>) {
    let mut stream = EventStream::new("", 4096);
    let mut items = Vec::new();
    for piece in pieces {
        if stream.feed(piece, |item| items.push(item)).is_err() {
            return (items, None);
        }
    }
    (items, Some(stream.last_event_id().to_owned()))
}

fuzz_target!(|input: &[u8]| {
    let (lengths, bytes) = fuzz::halves(input);
    let (cut, whole) = (read(fuzz::pieces(lengths, bytes)), read([bytes].into_iter()));
    assert_eq!(cut, whole);
});
