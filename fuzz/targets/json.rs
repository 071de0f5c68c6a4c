//! The JSON scanner, beside another one, and JSON pointers.

#![no_main]

use libfuzzer_sys::fuzz_target;
use pushbridge::proto::json::Json;
use pushbridge::proto::json_pointer::Pointer;

fuzz_target!(|input: &[u8]| {
    let (pointer, text) = fuzz::halves(input);
    let Ok(json) = Json::parse(text) else { return };
    let compact = json.compact();
    let again = Json::parse(compact.as_bytes()).expect("compact text is JSON");
    assert_eq!(again.compact(), compact);
    if let Ok(other) = serde_json::from_slice::<serde_json::Value>(text) {
        assert_eq!(serde_json::from_str::<serde_json::Value>(&compact).ok(), Some(other));
    }
    for (name, value) in json.members() {
        let _ = (name, value.kind(), value.string());
    }
    let _ = json.elements().count();
    if let Some(pointer) = std::str::from_utf8(pointer).ok().and_then(|text| Pointer::parse(text).ok()) {
        let _ = pointer.find(json).map(Json::compact);
    }
});
