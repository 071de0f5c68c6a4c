//! GRIP: how a plain backend asks for its client to be held, and what it publishes to it later.
//!
//! [`instruct`] reads a response that asks for a hold, [`items`] what is published, [`filters`] and [`template`] say
//! who gets it and how, and [`sequence`] puts a channel's messages in order. Of a session
//! [`holding`] is what it is held for, [`recovery`] what it has seen, [`pages`] when it asks its backend for more,
//! [`link`] where, and [`release`] how a held response ends. None of them knows sockets, clocks or who the backend is.

pub mod filters;
pub mod holding;
pub mod instruct;
pub mod items;
pub mod keep_alive;
pub mod kept;
pub mod link;
pub mod pages;
pub mod parameters;
pub mod patch;
pub mod recovery;
pub mod release;
pub mod sequence;
pub mod template;

use http::{HeaderMap, HeaderName, HeaderValue};

/// The media type of a JSON instruct.
pub const INSTRUCT_MEDIA_TYPE: &str = "application/grip-instruct";
/// The field that names what this end can do.
pub const FEATURE: HeaderName = HeaderName::from_static("grip-feature");
/// What this end can do.
pub const FEATURES: HeaderValue = HeaderValue::from_static(
    "status, session, link:next, link:gone, filter:skip-self, filter:skip-users, filter:require-sub, filter:build-id, filter:var-subst",
);
/// The field with this end's signature.
pub const SIGNATURE: HeaderName = HeaderName::from_static("grip-sig");
/// The field with the last ids that a session has seen, when it recovers.
pub const LAST: HeaderName = HeaderName::from_static("grip-last");

/// Takes out every `Grip-*` field: clients may not send them, and may not see them.
pub fn strip(fields: &mut HeaderMap) {
    let ours: Vec<HeaderName> = fields.keys().filter(|name| name.as_str().starts_with("grip-")).cloned().collect();
    for name in ours {
        fields.remove(name);
    }
}

/// A `Grip-Last` value; `None` where the id can't stand in a field.
pub fn last(channel: &str, id: &str) -> Option<HeaderValue> {
    let is_plain = |text: &str| {
        !text.is_empty() && text.bytes().all(|b| (0x20..0x7f).contains(&b) && !matches!(b, b';' | b',' | b'"' | b'\\'))
    };
    let shown = |text: &str| match is_plain(text) {
        true => text.to_owned(),
        false => format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")),
    };
    HeaderValue::from_bytes(format!("{}; last-id={}", shown(channel), shown(id)).as_bytes()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_grip_fields_are_stripped() {
        let mut fields = HeaderMap::new();
        for (name, value) in [("grip-sig", "a"), ("grip-x", "b"), ("x-grip", "c"), ("grip", "d")] {
            fields.append(name, HeaderValue::from_static(value));
        }
        strip(&mut fields);
        let mut left: Vec<_> = fields.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["grip", "x-grip"]);
    }

    #[test]
    fn last_ids_are_quoted_where_they_must_be() {
        assert_eq!(last("events-%2Fa", "7").expect("a value"), "events-%2Fa; last-id=7");
        assert_eq!(last("a;b", "1,\"2").expect("a value"), "\"a;b\"; last-id=\"1,\\\"2\"");
        assert_eq!(last("a", "x\ny"), None);
    }
}
