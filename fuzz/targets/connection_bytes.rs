//! What watches the bytes of a connection: request heads on HTTP/1.1, resets on HTTP/2; cut anywhere.

#![no_main]

use libfuzzer_sys::fuzz_target;
use pushbridge::proto::head_watch::HeadWatch;
use pushbridge::proto::reset_watch::ResetWatch;

fn heads<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (bool, bool, Vec<bool>) {
    let mut watch = HeadWatch::default();
    pieces.for_each(|piece| watch.see(piece));
    (watch.is_between_requests(), watch.is_in_head(), (0..8).map(|_| watch.next_is_ambiguous()).collect())
}

fn resets<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> bool {
    let mut watch = ResetWatch::default();
    pieces.fold(false, |seen, piece| watch.see(piece) || seen)
}

fuzz_target!(|input: &[u8]| {
    let (lengths, bytes) = fuzz::halves(input);
    assert_eq!(heads(fuzz::pieces(lengths, bytes)), heads([bytes].into_iter()));
    assert_eq!(resets(fuzz::pieces(lengths, bytes)), resets([bytes].into_iter()));
});
