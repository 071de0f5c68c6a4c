//! A request head that comes again and again with one part changed, as long polls do: each has the last answer's cursor.
//!
//! Comparing bytes costs less than parsing them, and proves more: what a head was found to be, another one is too that
//! is the same byte for byte but for that part. It does not know what the part means.

use memchr::memmem;

/// The head of a request with a hole in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepeatedHead {
    before: Box<[u8]>,
    after: Box<[u8]>,
}

impl RepeatedHead {
    /// The head with `part` as its hole; `None` if the part is not what a hole may hold, or does not stand there exactly
    /// once, so that it would not be known which one changes.
    pub fn new(head: &[u8], part: &[u8]) -> Option<Self> {
        if !fits(part) {
            return None;
        }
        let at = memmem::find(head, part)?;
        if memmem::rfind(head, part) != Some(at) {
            return None;
        }
        Some(Self { before: head[..at].into(), after: head[at + part.len()..].into() })
    }

    /// What stands in the hole, if `head` is otherwise the same.
    pub fn part<'a>(&self, head: &'a [u8]) -> Option<&'a [u8]> {
        let part = head.strip_prefix(&*self.before)?.strip_suffix(&*self.after)?;
        fits(part).then_some(part)
    }

    /// The head with this part.
    pub fn with(&self, part: &[u8]) -> Vec<u8> {
        [&*self.before, part, &*self.after].concat()
    }
}

/// Letters, digits, `-` and `_`: the URL-safe base64 alphabet, which ends no field value, target or line.
fn fits(part: &[u8]) -> bool {
    !part.is_empty() && part.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HEAD: &[u8] = b"GET /a HTTP/1.1\r\nhost: h\r\nif-none-match: \"AQx-_\"\r\n\r\n";

    #[test]
    fn the_same_head_with_another_part_is_known() {
        let known = RepeatedHead::new(HEAD, b"AQx-_").expect("a hole");
        assert_eq!(known.part(HEAD), Some(&b"AQx-_"[..]));
        assert_eq!(known.part(b"GET /a HTTP/1.1\r\nhost: h\r\nif-none-match: \"B\"\r\n\r\n"), Some(&b"B"[..]));
    }

    #[test]
    fn any_other_head_is_not() {
        let known = RepeatedHead::new(HEAD, b"AQx-_").expect("a hole");
        for head in [
            &b"GET /b HTTP/1.1\r\nhost: h\r\nif-none-match: \"B\"\r\n\r\n"[..],
            b"GET /a HTTP/1.1\r\nhost: h\r\nif-none-match: \"\"\r\n\r\n",
            b"GET /a HTTP/1.1\r\nhost: h\r\nif-none-match: \"B\r\nx: \"\r\n\r\n",
            b"GET /a HTTP/1.1\r\nhost: h\r\nif-none-match: \"B, C\"\r\n\r\n",
            b"GET /a HTTP/1.1\r\nhost: h\r\nif-none-match: \"B\"\r\n\r\nG",
            b"GET /a HTTP/1.1\r\nhost: h\r\nif-none-match: \"B\"\r\n",
            b"",
        ] {
            assert_eq!(known.part(head), None, "{}", String::from_utf8_lossy(head));
        }
    }

    #[test]
    fn a_part_that_is_not_one_place_is_no_hole() {
        assert_eq!(RepeatedHead::new(HEAD, b"h"), None);
        assert_eq!(RepeatedHead::new(HEAD, b"zz"), None);
        assert_eq!(RepeatedHead::new(HEAD, b"\"AQx-_\""), None);
        assert_eq!(RepeatedHead::new(HEAD, b""), None);
    }

    proptest! {
        #[test]
        fn what_is_put_in_is_found_again(part in "[A-Za-z0-9_-]{1,40}") {
            let known = RepeatedHead::new(HEAD, b"AQx-_").expect("a hole");
            let head = known.with(part.as_bytes());
            prop_assert_eq!(known.part(&head), Some(part.as_bytes()));
        }

        #[test]
        fn no_part_brings_a_line_of_its_own(head in "[A-Za-z\r\n:\" -]{0,60}") {
            let known = RepeatedHead::new(HEAD, b"AQx-_").expect("a hole");
            if let Some(part) = known.part(&[b"GET /a HTTP/1.1\r\nhost: h\r\nif-none-match: \"", head.as_bytes(), b"\"\r\n\r\n"].concat()) {
                prop_assert!(!part.contains(&b'\r') && !part.contains(&b'"'));
            }
        }
    }
}
