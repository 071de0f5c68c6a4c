//! What a backend answers: WebSocket events over HTTP, control messages, extensions, meta fields.

#![no_main]

use bytes::{Bytes, BytesMut};
use libfuzzer_sys::fuzz_target;
use pushbridge::proto::websocket_over_http::close::Close;
use pushbridge::proto::websocket_over_http::control::Control;
use pushbridge::proto::websocket_over_http::event;
use pushbridge::proto::websocket_over_http::extension::Extension;
use pushbridge::proto::websocket_over_http::meta::Meta;

fuzz_target!(|input: &[u8]| {
    if let Ok(events) = event::decode(&Bytes::copy_from_slice(input)) {
        let mut encoded = BytesMut::new();
        events.iter().for_each(|event| event.encode(&mut encoded));
        assert_eq!(event::decode(&encoded.freeze()).as_deref(), Ok(&events[..]));
    }
    let _ = Control::decode(input);
    if let Ok(close) = Close::decode(input) {
        assert_eq!(Close::decode(&close.encode()), Ok(close));
    }
    let (fields, rest) = fuzz::fields(input);
    let _ = Meta::default().learn(&fields);
    if let (Ok(extension), Ok(events)) = (Extension::negotiated(&fields), event::decode(&Bytes::copy_from_slice(rest)))
    {
        for event in &events {
            let _ = extension.meaning(event);
        }
    }
});
