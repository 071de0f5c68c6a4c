//! Header fields that wait long, in one small block.
//!
//! A client's fields are slices of the block that its head was read into, 8 KiB or more, and a map of them is a table
//! beside it. A held session needs them for requests that are made seconds or hours later: in between they are kept as
//! lines, `name:value\n`. Neither a name nor a value can have a line's end in it (RFC 9110 §5.5).

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};

/// Fields, in their order.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PackedFields(Bytes);

impl PackedFields {
    /// Copies fields.
    pub fn pack<'a>(fields: impl IntoIterator<Item = (&'a HeaderName, &'a HeaderValue)>) -> Self {
        let mut bytes = Vec::with_capacity(512);
        for (name, value) in fields {
            bytes.extend_from_slice(name.as_str().as_bytes());
            bytes.push(b':');
            bytes.extend_from_slice(value.as_bytes());
            bytes.push(b'\n');
        }
        Self(bytes.into_boxed_slice().into())
    }

    /// The fields as a map. Their values share the block, so that nothing is copied again.
    pub fn unpack(&self) -> HeaderMap {
        let mut fields = HeaderMap::with_capacity(self.lines().count());
        for line in self.lines() {
            let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
            let value = HeaderValue::from_maybe_shared(self.0.slice_ref(&line[colon + 1..]));
            if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(&line[..colon]), value) {
                fields.append(name, value);
            }
        }
        fields
    }

    /// Each field as `name:value`.
    pub fn lines(&self) -> impl Iterator<Item = &[u8]> {
        self.0.split(|byte| *byte == b'\n').filter(|line| !line.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// What was packed comes out: all fields, repeated ones in their order.
        #[test]
        fn unpack_is_the_inverse_of_pack(
            fields in prop::collection::vec(("[a-z][a-z0-9-]{0,40}", "[ -~\u{80}-\u{ff}]{0,300}"), 0..20),
        ) {
            let mut map = HeaderMap::new();
            for (name, value) in &fields {
                let value = HeaderValue::from_bytes(value.as_bytes()).expect("no control characters");
                map.append(HeaderName::from_bytes(name.as_bytes()).expect("a token"), value);
            }
            prop_assert_eq!(PackedFields::pack(&map).unpack(), map);
        }
    }

    #[test]
    fn the_block_of_the_head_is_let_go() {
        let head = Bytes::from(vec![b'v'; 8192]);
        let mut fields = HeaderMap::new();
        fields.insert(http::header::COOKIE, HeaderValue::from_maybe_shared(head.slice(..10)).expect("visible"));
        let packed = PackedFields::pack(&fields);
        drop(fields);
        assert!(head.try_into_mut().is_ok(), "the packed fields hold the head");
        assert_eq!(packed.lines().collect::<Vec<_>>(), [b"cookie:vvvvvvvvvv"]);
    }
}
