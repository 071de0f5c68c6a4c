//! Cursors that clients give back.

#![no_main]

use libfuzzer_sys::fuzz_target;
use pushbridge::model::cursor::Cursor;

fuzz_target!(|text: &[u8]| {
    if let Ok(cursor) = Cursor::decode(text) {
        assert_eq!(Cursor::decode(cursor.encode().as_bytes()), Ok(cursor));
    }
});
