//! Request heads: what is refused, what is forwarded, which transport and cursor a client asks for.

#![no_main]

use http::{Method, Request, Version};
use libfuzzer_sys::fuzz_target;
use pushbridge::model::session::Transport;
use pushbridge::proto::forwarded::{Before, Hop, HopScheme, request_head};
use pushbridge::proto::{accept, request_check, subscribe};

fuzz_target!(|input: &[u8]| {
    let (target, rest) = fuzz::halves(input);
    let (fields, _) = fuzz::fields(rest);
    let request = Request::builder().method(Method::GET).version(Version::HTTP_11).uri(target);
    let Ok(request) = request.body(()) else { return };
    let (mut parts, ()) = request.into_parts();
    parts.headers = fields;
    let wanted = parts.headers.get("accept").and_then(|value| value.to_str().ok());
    let chosen = accept::choose(wanted, &Transport::ALL);
    assert_ne!(chosen, Some(Transport::WebSocket));
    for transport in Transport::ALL {
        let _ = subscribe::last_event_id(&parts.headers, parts.uri.query(), transport);
    }
    let _ = subscribe::wait_ms(&parts.headers);
    if request_check::check(&parts).is_ok() {
        for before in [Before::Dropped, Before::Kept] {
            let mut head = parts.clone();
            let hop = Hop { client: [127, 0, 0, 1].into(), scheme: HopScheme::Https, before };
            request_head(&mut head, &hop);
            assert!(!head.headers.contains_key("connection") && !head.headers.contains_key("upgrade"));
        }
    }
});
