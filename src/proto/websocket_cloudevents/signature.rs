//! `ce-signature`: what proves that an event is from here.

use aws_lc_rs::hmac;
use std::fmt::Write;

/// The value of `ce-signature`: for each key `sha256=` and the keyed hash (HMAC-SHA-256, RFC 2104) of the connection's
/// id in hexadecimal, the primary key first, with commas between them. `None` without keys.
pub fn sign<'a>(keys: impl IntoIterator<Item = &'a [u8]>, connection_id: &str) -> Option<String> {
    let mut value = String::new();
    for key in keys {
        let hash = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), connection_id.as_bytes());
        value.push_str(if value.is_empty() { "sha256=" } else { ",sha256=" });
        for byte in hash.as_ref() {
            let _ = write!(value, "{byte:02x}");
        }
    }
    (!value.is_empty()).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_signs_the_connections_id() {
        // RFC 4231 §4.3, test case 2.
        let jefe = "sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        let id = "what do ya want for nothing?";
        assert_eq!(sign([&b"Jefe"[..]], id).as_deref(), Some(jefe));
        let both = sign([&b"Jefe"[..], b"other"], id).expect("a signature");
        let (first, second) = both.split_once(',').expect("two");
        assert_eq!(first, jefe);
        assert!(second.starts_with("sha256=") && second.len() == jefe.len() && second != jefe, "{second}");
        assert_eq!(sign([], id), None);
    }
}
