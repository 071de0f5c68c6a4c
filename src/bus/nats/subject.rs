//! The NATS subjects of channels.
//!
//! A channel's name may hold what a subject may not (blanks, wildcards, empty tokens): such bytes are written as `=XX`.
//! Dots between two other characters stay, so that `prices.ACME` can be watched, and permitted, as `….prices.*`.

use crate::model::channel::ChannelName;
use std::fmt::Write as _;

/// The subject under `prefix` (without a dot at its end) that stands for the channel; no two channels share one.
pub fn of_channel(prefix: &str, channel: &ChannelName) -> String {
    let name = channel.as_str().as_bytes();
    let mut subject = String::with_capacity(prefix.len() + 1 + name.len());
    subject.push_str(prefix);
    subject.push('.');
    for (index, byte) in name.iter().enumerate() {
        let inner = index > 0 && name[index - 1] != b'.' && name.get(index + 1).is_some_and(|next| *next != b'.');
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => subject.push(char::from(*byte)),
            b'.' if inner => subject.push('.'),
            // Writing to a String does not fail.
            _ => drop(write!(subject, "={byte:02X}")),
        }
    }
    subject
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(channel: &str, expected: &str) {
        assert_eq!(of_channel("p", &ChannelName::new(channel).expect("a name")), expected);
    }

    /// The name that a subject was made of.
    fn back(subject: &str) -> String {
        let mut bytes = Vec::new();
        let mut rest = subject.strip_prefix("p.").expect("the prefix").as_bytes();
        while let Some((byte, after)) = rest.split_first() {
            rest = after;
            if *byte == b'=' {
                let hex = std::str::from_utf8(&rest[..2]).expect("ASCII");
                bytes.push(u8::from_str_radix(hex, 16).expect("hex"));
                rest = &rest[2..];
            } else {
                bytes.push(*byte);
            }
        }
        String::from_utf8(bytes).expect("a name is UTF-8")
    }

    #[test]
    fn what_a_subject_may_not_hold_is_escaped() {
        check("prices.ACME", "p.prices.ACME");
        check("a b*>", "p.a=20b=2A=3E");
        check(".a..b.", "p.=2Ea=2E=2Eb=2E");
        check(".", "p.=2E");
        check("é=$", "p.=C3=A9=3D=24");
    }

    proptest! {
        #[test]
        fn every_channel_has_a_subject_of_its_own(name in "[a-z.=*> $é]{1,20}") {
            let channel = ChannelName::new(&name).expect("a name");
            let subject = of_channel("p", &channel);
            prop_assert_eq!(back(&subject), name);
            prop_assert!(subject.split('.').all(|token| !token.is_empty()));
            prop_assert!(subject.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'*' | b'>' | b'$')));
        }
    }
}
