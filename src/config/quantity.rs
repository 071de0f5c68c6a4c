//! Durations (`500ms`, `30s`, `5m`, `1h`) and sizes (`64KiB`, `1MiB`).

use crate::config::document::{Node, Value};
use crate::config::problem::{Problems, Spot};
use crate::config::read::{Read, show};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

/// A length of time as it is written: a whole number and `ms`, `s`, `m` or `h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

/// A number of bytes as it is written: a whole number, alone or with `KiB`, `MiB` or `GiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

/// The units of time, in milliseconds.
const TIME_UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];
/// The units of size, in bytes.
const SIZE_UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

impl Read for Span {
    fn read(node: &Node, spot: &Spot, problems: &mut Problems) -> Option<Self> {
        let text = match &node.value {
            Value::Text(text) | Value::Number(text) => text.as_str(),
            _ => "",
        };
        let parsed = split(text).and_then(|(number, unit)| {
            let (_, factor) = TIME_UNITS.iter().find(|(known, _)| *known == unit)?;
            number.checked_mul(*factor)
        });
        if parsed.is_none() {
            let advice = match split(text) {
                Some((number, "")) => format!("{text} has no unit; write {number}s or {number}ms"),
                _ => format!("{} is no duration; write a whole number with ms, s, m or h, such as 30s", show(node)),
            };
            problems.add(spot, advice);
        }
        parsed.map(|ms| Span(Duration::from_millis(ms)))
    }
}

impl Read for Size {
    fn read(node: &Node, spot: &Spot, problems: &mut Problems) -> Option<Self> {
        let text = match &node.value {
            Value::Text(text) | Value::Number(text) => text.as_str(),
            _ => "",
        };
        let parsed = split(text).and_then(|(number, unit)| match unit {
            "" => Some(number),
            _ => {
                SIZE_UNITS.iter().find(|(known, _)| *known == unit).and_then(|(_, factor)| number.checked_mul(*factor))
            }
        });
        if parsed.is_none() {
            let meant = split(text).and_then(|(number, unit)| {
                let first = unit.chars().next()?.to_ascii_uppercase();
                let short = unit.len() <= 3 && matches!(first, 'K' | 'M' | 'G');
                short.then(|| format!("write {number}{first}iB"))
            });
            let advice = meant.unwrap_or_else(|| "write bytes, or a whole number with KiB, MiB or GiB".to_owned());
            problems.add(spot, format!("{} is no size; {advice}", show(node)));
        }
        parsed.map(Size)
    }
}

/// Digits and what follows them.
fn split(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number = text[..end].parse().ok()?;
    Some((number, text[end..].trim_start_matches(' ')))
}

impl fmt::Display for Span {
    /// In the largest unit that divides it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        let (unit, factor) =
            TIME_UNITS.iter().find(|(_, factor)| ms != 0 && ms.is_multiple_of(*factor)).unwrap_or(&("s", 1000));
        write!(f, "{}{unit}", ms / factor)
    }
}

impl fmt::Display for Size {
    /// In the largest unit that divides it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match SIZE_UNITS.iter().find(|(_, factor)| self.0 != 0 && self.0.is_multiple_of(*factor)) {
            Some((unit, factor)) => write!(f, "{}{unit}", self.0 / factor),
            None => write!(f, "{}", self.0),
        }
    }
}

impl JsonSchema for Span {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        schemars::json_schema!({
            "description": "A whole number with ms, s, m or h.",
            "type": "string",
            "pattern": "^[0-9]+ *(ms|s|m|h)$",
            "examples": ["500ms", "30s", "5m", "1h"],
        })
    }
}

impl JsonSchema for Size {
    fn schema_name() -> Cow<'static, str> {
        "Size".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        schemars::json_schema!({
            "description": "Bytes, or a whole number with KiB, MiB or GiB.",
            "anyOf": [
                { "type": "integer", "minimum": 0 },
                { "type": "string", "pattern": "^[0-9]+ *([KMG]iB)?$" },
            ],
            "examples": ["64KiB", "1MiB", 65536],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::document::parse;
    use proptest::prelude::*;

    fn read<T: Read>(text: &str) -> Result<T, String> {
        let node = parse(text).expect("a document");
        let mut problems = Problems::new("c");
        let spot = Spot { path: "x".to_owned(), place: node.place };
        T::read(&node, &spot, &mut problems).ok_or_else(|| problems.to_string())
    }

    #[track_caller]
    fn duration(text: &str, expected: Result<u64, &str>) {
        let found = read::<Span>(text).map(|span| span.0.as_millis() as u64);
        assert_eq!(found, expected.map_err(|text| format!("x: {text} (c:1:1)")), "{text}");
    }

    #[test]
    fn durations_have_a_unit() {
        duration("500ms", Ok(500));
        duration("30s", Ok(30_000));
        duration("\"30 s\"", Ok(30_000));
        duration("5m", Ok(300_000));
        duration("1h", Ok(3_600_000));
        duration("0s", Ok(0));
        duration("30", Err("30 has no unit; write 30s or 30ms"));
        let advice = "write a whole number with ms, s, m or h, such as 30s";
        duration("1d", Err(&format!("\"1d\" is no duration; {advice}")));
        duration("1.5s", Err(&format!("\"1.5s\" is no duration; {advice}")));
        duration("-1s", Err(&format!("\"-1s\" is no duration; {advice}")));
        duration("true", Err(&format!("true is no duration; {advice}")));
        duration("99999999999999999h", Err(&format!("\"99999999999999999h\" is no duration; {advice}")));
    }

    #[track_caller]
    fn size(text: &str, expected: Result<u64, &str>) {
        let found = read::<Size>(text).map(|size| size.0);
        assert_eq!(found, expected.map_err(|text| format!("x: {text} (c:1:1)")), "{text}");
    }

    #[test]
    fn sizes_are_binary() {
        size("64KiB", Ok(65_536));
        size("1MiB", Ok(1 << 20));
        size("2 GiB", Ok(2 << 30));
        size("1024", Ok(1024));
        size("\"1024\"", Ok(1024));
        size("1MB", Err("\"1MB\" is no size; write 1MiB"));
        size("1m", Err("\"1m\" is no size; write 1MiB"));
        size("big", Err("\"big\" is no size; write bytes, or a whole number with KiB, MiB or GiB"));
        size("[1]", Err("a list is no size; write bytes, or a whole number with KiB, MiB or GiB"));
    }

    proptest! {
        #[test]
        fn a_duration_survives_its_text(ms in 0u64..1 << 50) {
            let span = Span(Duration::from_millis(ms));
            prop_assert_eq!(read::<Span>(&span.to_string()), Ok(span));
        }

        #[test]
        fn a_size_survives_its_text(bytes: u64) {
            prop_assert_eq!(read::<Size>(&Size(bytes).to_string()), Ok(Size(bytes)));
        }
    }
}
