//! Bodies of `POST /v1/events`: an event, an array, a line.

#![no_main]

use libfuzzer_sys::fuzz_target;
use pushbridge::proto::events::{decode, decode_line};

fuzz_target!(|body: &[u8]| {
    if let Ok(events) = decode(body) {
        assert!(events.iter().all(|event| event.channels.count() > 0));
        let messages: usize = events.into_iter().map(|event| event.into_messages().count()).sum();
        assert!(messages <= 100 * 10_000);
    }
    if let Ok(event) = decode_line(body) {
        // What stands alone on a line is also an event alone.
        assert_eq!(decode(body).as_deref(), Ok(&[event][..]));
    }
});
