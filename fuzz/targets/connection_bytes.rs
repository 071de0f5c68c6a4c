//! What watches the bytes of a connection of HTTP/1.1 for request heads; cut anywhere.

#![no_main]

use libfuzzer_sys::fuzz_target;
use pushbridge::proto::head_watch::HeadWatch;

fn heads<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (bool, bool, Vec<bool>) {
    let mut watch = HeadWatch::default();
    pieces.for_each(|piece| watch.see(piece));
    (watch.is_between_requests(), watch.is_in_head(), (0..8).map(|_| watch.next_is_ambiguous()).collect())
}

fuzz_target!(|input: &[u8]| {
    let (lengths, bytes) = fuzz::halves(input);
    assert_eq!(heads(fuzz::pieces(lengths, bytes)), heads([bytes].into_iter()));
});
