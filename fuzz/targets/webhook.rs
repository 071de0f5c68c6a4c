//! Webhooks of others: templates, bodies and signatures.

#![no_main]

use libfuzzer_sys::fuzz_target;
use pushbridge::proto::json::Json;
use pushbridge::proto::webhook::signature::{StandardWebhook, check_time, decode_base64, decode_hex};
use pushbridge::proto::webhook::{Template, body_data};
use std::time::Duration;

const TOLERANCE: Duration = Duration::from_secs(300);

fuzz_target!(|input: &[u8]| {
    let (template, body) = fuzz::halves(input);
    let template = std::str::from_utf8(template).ok().and_then(|text| Template::parse(text).ok());
    if let Ok(json) = Json::parse(body) {
        let _ = body_data(json);
        if let Some(template) = &template {
            let _ = (template.text(json), template.data(json));
        }
    }
    let _ = (decode_hex(input), decode_base64(input), check_time(input, 1_700_000_000, TOLERANCE));
    let (timestamp, signatures) = fuzz::halves(body);
    let delivery = StandardWebhook { id: b"1", timestamp, signatures };
    assert!(delivery.verify(b"a key that nobody guesses", body, 1_700_000_000, TOLERANCE).is_err());
});
