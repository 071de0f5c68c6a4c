//! Opening requests of WebSockets, over HTTP/1.1 and HTTP/2.

#![no_main]

use http::{Method, Request, Version};
use libfuzzer_sys::fuzz_target;
use pushbridge::proto::websocket::handshake::{Handshake, is_asked_for};

fuzz_target!(|input: &[u8]| {
    let (protocol, rest) = fuzz::halves(input);
    let (fields, _) = fuzz::fields(rest);
    let protocol = std::str::from_utf8(protocol).ok().filter(|text| !text.is_empty());
    let (method, version) = match protocol {
        Some(_) => (Method::CONNECT, Version::HTTP_2),
        None => (Method::GET, Version::HTTP_11),
    };
    let request = Request::builder().method(method).version(version).uri("http://a/").body(()).expect("a request");
    let (mut parts, ()) = request.into_parts();
    parts.headers = fields;
    if let Ok(handshake) = Handshake::check(&parts, protocol, &["pushbridge.v1.json", "cloudevents.json"]) {
        assert!(is_asked_for(&parts, protocol), "{handshake:?}");
    }
});
