//! Channel patterns of the configuration: `prices.*`, `chat.**`.

use std::fmt;

/// A pattern over channel names: `*` is any run without `.`, `**` any run; all else stands for itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelPattern {
    text: Box<str>,
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Literal(Box<str>),
    Run,
    AnyRun,
}

/// Why a text is no channel pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChannelPatternError {
    /// No character at all.
    #[error("a channel pattern is empty; use \"**\" for every channel")]
    Empty,
    /// Three or more stars in a row.
    #[error("channel pattern {0:?} has more than two stars in a row; `*` is a run without `.`, `**` any run")]
    Stars(String),
    /// More than eight wildcards, which could make matching slow.
    #[error("channel pattern {0:?} has more than {WILDCARDS_MAX} wildcards")]
    TooMany(String),
    /// A control character, which no channel name has.
    #[error("channel pattern {0:?} has a control character")]
    Control(String),
}

/// The most wildcards in one pattern: bounds the work of a match.
const WILDCARDS_MAX: usize = 8;

impl ChannelPattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// When it is empty, or has three stars in a row, too many wildcards or a control character.
    pub fn new(text: &str) -> Result<Self, ChannelPatternError> {
        if text.is_empty() {
            return Err(ChannelPatternError::Empty);
        }
        if text.chars().any(char::is_control) {
            return Err(ChannelPatternError::Control(text.to_owned()));
        }
        if text.contains("***") {
            return Err(ChannelPatternError::Stars(text.to_owned()));
        }
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.find('*') {
            if at > 0 {
                parts.push(Part::Literal(rest[..at].into()));
            }
            rest = &rest[at..];
            let (part, len) = if rest.starts_with("**") { (Part::AnyRun, 2) } else { (Part::Run, 1) };
            parts.push(part);
            rest = &rest[len..];
        }
        if !rest.is_empty() {
            parts.push(Part::Literal(rest.into()));
        }
        if parts.iter().filter(|part| !matches!(part, Part::Literal(_))).count() > WILDCARDS_MAX {
            return Err(ChannelPatternError::TooMany(text.to_owned()));
        }
        Ok(Self { text: text.into(), parts })
    }

    /// Whether the pattern covers a name.
    pub fn matches(&self, name: &str) -> bool {
        matches(&self.parts, name)
    }

    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

/// Follows every place that the parts so far can end at, at once: work is bounded by parts × bytes.
fn matches(parts: &[Part], name: &str) -> bool {
    let mut ends = vec![false; name.len() + 1];
    ends[0] = true;
    for part in parts {
        let mut next = vec![false; name.len() + 1];
        match part {
            Part::Literal(text) => {
                for (at, _) in ends.iter().enumerate().filter(|(_, end)| **end) {
                    if name.as_bytes()[at..].starts_with(text.as_bytes()) {
                        next[at + text.len()] = true;
                    }
                }
            }
            Part::Run | Part::AnyRun => {
                let mut open = false;
                for at in 0..=name.len() {
                    open |= ends[at];
                    next[at] = open;
                    if *part == Part::Run && name.as_bytes().get(at) == Some(&b'.') {
                        open = false;
                    }
                }
            }
        }
        ends = next;
    }
    ends[name.len()]
}

impl fmt::Display for ChannelPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(pattern: &str, name: &str, expected: bool) {
        let pattern = ChannelPattern::new(pattern).expect("a pattern");
        assert_eq!(pattern.matches(name), expected, "{pattern} on {name}");
    }

    #[test]
    fn one_star_stays_in_its_segment() {
        check("prices.*", "prices.ACME", true);
        check("prices.*", "prices.", true);
        check("prices.*", "prices.eu.ACME", false);
        check("*.ACME", "prices.ACME", true);
        check("a*c", "abbc", true);
        check("a*c", "ab.c", false);
        check("*", "é", true);
    }

    #[test]
    fn two_stars_cross_segments() {
        check("prices.**", "prices.eu.ACME", true);
        check("**", "anything.at/all", true);
        check("**.x", "a.b.x", true);
        check("**.x", "a.b.y", false);
    }

    #[test]
    fn bad_patterns_are_refused() {
        assert_eq!(ChannelPattern::new(""), Err(ChannelPatternError::Empty));
        assert!(matches!(ChannelPattern::new("a***"), Err(ChannelPatternError::Stars(_))));
        assert!(matches!(ChannelPattern::new("*a*a*a*a*a*a*a*a*"), Err(ChannelPatternError::TooMany(_))));
        assert!(matches!(ChannelPattern::new("a\n"), Err(ChannelPatternError::Control(_))));
    }
}
