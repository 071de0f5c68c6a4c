//! The fields of a request that is made again later, kept in little memory: there is one for each held session.

use crate::proto::packed_fields::PackedFields;
use http::header::{
    ACCEPT_ENCODING, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, IF_MATCH, IF_MODIFIED_SINCE,
    IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, RANGE, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderName};

/// Fields of a body or of the hop: they mean nothing to a request that is made later.
const OF_THE_FIRST: [HeaderName; 10] = [
    ACCEPT_ENCODING,
    CONNECTION,
    CONTENT_ENCODING,
    CONTENT_LENGTH,
    CONTENT_TYPE,
    EXPECT,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// Fields that are about the client's own target: a link is another one, and says itself where it begins.
const OF_THE_TARGET: [HeaderName; 7] = [
    IF_MATCH,
    IF_MODIFIED_SINCE,
    IF_NONE_MATCH,
    IF_RANGE,
    IF_UNMODIFIED_SINCE,
    RANGE,
    HeaderName::from_static("last-event-id"),
];

/// The fields of a request, for one that is made later.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Kept(PackedFields);

impl Kept {
    /// Keeps the fields for the same request again.
    pub fn new(fields: &HeaderMap) -> Self {
        let is_kept = |name: &HeaderName| !OF_THE_FIRST.contains(name) && !name.as_str().starts_with("grip-");
        Self(PackedFields::pack(fields.iter().filter(|(name, _)| is_kept(name))))
    }

    /// The fields again.
    pub fn fields(&self) -> HeaderMap {
        self.0.unpack()
    }

    /// The fields for a request to another target.
    pub fn fields_for_link(&self) -> HeaderMap {
        let mut fields = self.fields();
        for name in &OF_THE_TARGET {
            fields.remove(name);
        }
        fields
    }

    /// The bytes of the fields that say what the client may see, for comparing requests: those that only say where it
    /// comes from are left out.
    pub fn identity(&self) -> Vec<u8> {
        const OF_THE_WAY: [&[u8]; 6] =
            [b"x-forwarded-", b"forwarded", b"via", b"x-request-id", b"user-agent", b"sec-ch-ua"];
        let is_of_target = |line: &[u8]| {
            OF_THE_TARGET
                .iter()
                .any(|name| line.strip_prefix(name.as_str().as_bytes()).is_some_and(|rest| rest.starts_with(b":")))
        };
        let lines =
            self.0.lines().filter(|line| !is_of_target(line) && !OF_THE_WAY.iter().any(|name| line.starts_with(name)));
        lines.collect::<Vec<_>>().join(&b'\n')
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn fields(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut fields = HeaderMap::new();
        for (name, value) in pairs {
            fields.append(*name, HeaderValue::from_static(value));
        }
        fields
    }

    #[test]
    fn fields_come_back_without_those_of_the_first_request() {
        let first = fields(&[
            ("host", "a:80"),
            ("cookie", "a=1"),
            ("x", ""),
            ("x", "2:3"),
            ("range", "bytes=0-"),
            ("last-event-id", "7"),
            ("content-length", "3"),
            ("grip-sig", "t"),
        ]);
        let kept = Kept::new(&first);
        let plain = [("host", "a:80"), ("cookie", "a=1"), ("x", ""), ("x", "2:3")];
        assert_eq!(kept.fields_for_link(), fields(&plain));
        let again = [&plain[..], &[("range", "bytes=0-"), ("last-event-id", "7")]].concat();
        assert_eq!(kept.fields(), fields(&again));
    }

    #[test]
    fn requests_are_alike_wherever_they_come_from() {
        let of = |client: &'static str, cookie: &'static str| {
            Kept::new(&fields(&[("x-forwarded-for", client), ("cookie", cookie), ("host", "a")])).identity()
        };
        assert_eq!(of("192.0.2.1", "a"), of("192.0.2.2", "a"));
        assert_ne!(of("192.0.2.1", "a"), of("192.0.2.1", "b"));
    }
}
