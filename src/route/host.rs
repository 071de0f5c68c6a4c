//! Host patterns: `example.com`, `*.example.com`.

use std::fmt;

/// A host name or IP address, or `*.` and a domain: one label more than the domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPattern {
    text: Box<str>,
    labels: Labels,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Labels {
    Exact,
    OneMore,
}

/// Why a text is no host pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HostPatternError {
    /// No character at all.
    #[error("a host is empty; leave `host` out to match any")]
    Empty,
    /// A port, which is never compared.
    #[error("{0:?} has a port, which is never compared; leave it out")]
    Port(String),
    /// A star elsewhere than as the whole first label.
    #[error("{0:?} has a star that is not the first label; write \"*.example.com\" for one label more")]
    Star(String),
    /// A character that no host has.
    #[error("{0:?} has the character {1:?}, which no host name has; write international names in punycode")]
    Character(String, char),
}

impl HostPattern {
    /// Reads a pattern; upper and lower case are the same.
    ///
    /// # Errors
    /// When it is empty, has a port, a star in a wrong place or a character that no host has.
    pub fn parse(text: &str) -> Result<Self, HostPatternError> {
        let (rest, labels) = match text.strip_prefix("*.") {
            Some(rest) => (rest, Labels::OneMore),
            None => (text, Labels::Exact),
        };
        let rest = rest.strip_suffix('.').unwrap_or(rest);
        if rest.is_empty() {
            return Err(HostPatternError::Empty);
        }
        if rest.contains('*') {
            return Err(HostPatternError::Star(text.to_owned()));
        }
        let address = rest.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        if address.is_none_or(|address| address.parse::<std::net::Ipv6Addr>().is_err()) {
            if rest.contains(':') {
                return Err(HostPatternError::Port(text.to_owned()));
            }
            let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
            if let Some(character) = rest.chars().find(|c| !known(*c)) {
                return Err(HostPatternError::Character(text.to_owned(), character));
            }
        }
        Ok(Self { text: rest.to_ascii_lowercase().into(), labels })
    }

    /// Whether a host without a port matches, in whatever case.
    pub fn matches(&self, host: &str) -> bool {
        match self.labels {
            Labels::Exact => host.eq_ignore_ascii_case(&self.text),
            Labels::OneMore => host
                .split_once('.')
                .is_some_and(|(label, domain)| !label.is_empty() && domain.eq_ignore_ascii_case(&self.text)),
        }
    }

    /// Whether this matches all that `other` matches.
    pub fn covers(&self, other: &HostPattern) -> bool {
        match other.labels {
            Labels::Exact => self.matches(&other.text),
            Labels::OneMore => self == other,
        }
    }
}

/// The host of an authority: without its port, and without the root's final dot.
pub(super) fn without_port(authority: &str) -> &str {
    let bracket = if authority.starts_with('[') { authority.find(']') } else { None };
    let host = match bracket {
        Some(end) => &authority[..=end],
        None => memchr::memchr(b':', authority.as_bytes()).map_or(authority, |at| &authority[..at]),
    };
    host.strip_suffix('.').unwrap_or(host)
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.labels {
            Labels::Exact => f.write_str(&self.text),
            Labels::OneMore => write!(f, "*.{}", self.text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(pattern: &str, authority: &str, expected: bool) {
        let pattern = HostPattern::parse(pattern).expect("a pattern");
        assert_eq!(pattern.matches(without_port(authority)), expected, "{pattern} on {authority}");
    }

    #[test]
    fn exact_hosts_match_in_any_case_and_on_any_port() {
        check("example.com", "example.com", true);
        check("Example.COM", "eXample.com:8443", true);
        check("example.com", "example.com.", true);
        check("example.com", "a.example.com", false);
        check("example.com", "", false);
        check("127.0.0.1", "127.0.0.1:80", true);
        check("[::1]", "[::1]:80", true);
        check("[::1]", "[::1]", true);
        check("[::1]", "[::2]", false);
    }

    #[test]
    fn a_star_is_one_label() {
        check("*.example.com", "a.example.com", true);
        check("*.example.com", "A.EXAMPLE.com:1", true);
        check("*.example.com", "a.b.example.com", false);
        check("*.example.com", "example.com", false);
        check("*.example.com", ".example.com", false);
        check("*.example.com", "aexample.com", false);
    }

    #[track_caller]
    fn refused(text: &str, expected: &str) {
        assert_eq!(HostPattern::parse(text).expect_err("an error").to_string(), expected);
    }

    #[test]
    fn bad_patterns_say_what_to_write() {
        refused("", "a host is empty; leave `host` out to match any");
        refused("example.com:80", "\"example.com:80\" has a port, which is never compared; leave it out");
        let star = "has a star that is not the first label; write \"*.example.com\" for one label more";
        refused("a.*.com", &format!("\"a.*.com\" {star}"));
        refused("*", &format!("\"*\" {star}"));
        refused("*a.com", &format!("\"*a.com\" {star}"));
        refused("a b", "\"a b\" has the character ' ', which no host name has; write international names in punycode");
    }

    proptest! {
        #[test]
        fn a_pattern_survives_its_text(text in r"(\*\.)?[a-z0-9_-]{1,8}(\.[a-z]{1,5}){0,3}") {
            let pattern = HostPattern::parse(&text).expect("a pattern");
            prop_assert_eq!(HostPattern::parse(&pattern.to_string()), Ok(pattern));
        }

        #[test]
        fn any_text_parses_or_is_refused(text in ".{0,40}", host in ".{0,20}") {
            if let Ok(pattern) = HostPattern::parse(&text) {
                let _ = pattern.matches(without_port(&host));
            }
        }
    }
}
