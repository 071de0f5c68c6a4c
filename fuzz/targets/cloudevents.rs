//! CloudEvents: structured, in batches, and in binary mode.

#![no_main]

use libfuzzer_sys::fuzz_target;
use pushbridge::proto::cloudevents::{decode_batch, decode_binary, decode_structured, is_binary};

fuzz_target!(|input: &[u8]| {
    if let Ok(event) = decode_structured(input) {
        let batch = [b"[", input, b"]"].concat();
        assert_eq!(decode_batch(&batch).as_deref(), Ok(&[event][..]));
    }
    let _ = decode_batch(input);
    let (fields, body) = fuzz::fields(input);
    if decode_binary(&fields, body).is_ok() {
        assert!(is_binary(&fields));
    }
});
