//! JSON text as it was written (RFC 8259): checked once, then walked, found in and copied without changing it.
//!
//! Key order, number text and string escapes stay the publisher's; only white space between tokens may go. This file
//! builds no tree of values and knows no field names.

mod scan;

use scan::Scanner;
use std::borrow::Cow;
use std::fmt::Write;

/// The deepest nesting of arrays and objects that is read.
pub const DEPTH_MAX: usize = 128;

/// One valid JSON value as text, without white space around it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Json<'a>(&'a str);

/// What a JSON value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool,
    /// A number.
    Number,
    /// A string.
    String,
    /// An array.
    Array,
    /// An object.
    Object,
}

/// Why bytes are no JSON text. Places are bytes from the start, from 0.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// RFC 8259 §8.1 asks for UTF-8.
    #[error("invalid UTF-8 at byte {0}; JSON text is UTF-8")]
    Utf8(usize),
    /// The text stops inside a value.
    #[error("no valid JSON: the text ends where {0} should follow")]
    End(&'static str),
    /// A character that may not stand there.
    #[error("no valid JSON: {found:?} at byte {at} where {wanted} should stand")]
    Unexpected {
        /// Where.
        at: usize,
        /// What stands there.
        found: char,
        /// What may stand there.
        wanted: &'static str,
    },
    /// A control character inside a string.
    #[error("no valid JSON: a raw control character in a string at byte {0}; write it as an escape such as \\n")]
    Control(usize),
    /// More than [`DEPTH_MAX`] levels.
    #[error("JSON nested deeper than {DEPTH_MAX} levels at byte {0}; flatten it")]
    Depth(usize),
}

/// A `\uD800`–`\uDFFF` escape without its other half: no Unicode character, so it can't be sent as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("has a lone surrogate escape (\\ud800 to \\udfff); write both halves of the pair, or the character itself")]
pub struct LoneSurrogate;

impl Kind {
    /// The kind with its article, for error texts.
    pub fn noun(self) -> &'static str {
        match self {
            Kind::Null => "null",
            Kind::Bool => "a boolean",
            Kind::Number => "a number",
            Kind::String => "a string",
            Kind::Array => "an array",
            Kind::Object => "an object",
        }
    }
}

impl<'a> Json<'a> {
    /// Checks that `bytes` are one JSON value, with white space around it at most.
    ///
    /// # Errors
    /// When they are not UTF-8, no JSON or nested deeper than [`DEPTH_MAX`].
    pub fn parse(bytes: &'a [u8]) -> Result<Self, JsonError> {
        let text = std::str::from_utf8(bytes).map_err(|error| JsonError::Utf8(error.valid_up_to()))?;
        let mut scanner = Scanner::new(text, 0);
        let value = scanner.value()?;
        scanner.finish()?;
        Ok(Self(value))
    }

    /// The text.
    pub fn as_str(self) -> &'a str {
        self.0
    }

    /// What it is.
    pub fn kind(self) -> Kind {
        match self.0.as_bytes().first() {
            Some(b'"') => Kind::String,
            Some(b'{') => Kind::Object,
            Some(b'[') => Kind::Array,
            Some(b't' | b'f') => Kind::Bool,
            Some(b'n') => Kind::Null,
            _ => Kind::Number,
        }
    }

    /// The characters of a string; `None` if it is no string.
    ///
    /// # Errors
    /// When an escape is half a surrogate pair.
    pub fn string(self) -> Option<Result<Cow<'a, str>, LoneSurrogate>> {
        let inner = self.0.strip_prefix('"')?.strip_suffix('"')?;
        Some(unescape(inner))
    }

    /// The members of an object in their order, with unescaped names; nothing if it is no object.
    pub fn members(self) -> Members<'a> {
        Members { scanner: (self.kind() == Kind::Object).then(|| Scanner::new(self.0, 1)) }
    }

    /// The elements of an array in their order; nothing if it is no array.
    pub fn elements(self) -> Elements<'a> {
        Elements { scanner: (self.kind() == Kind::Array).then(|| Scanner::new(self.0, 1)) }
    }

    /// Appends the text without white space between tokens.
    pub fn compact_into(self, out: &mut String) {
        let bytes = self.0.as_bytes();
        let (mut from, mut at) = (0, 0);
        while let Some(&byte) = bytes.get(at) {
            match byte {
                b'"' => at = scan::string_end(bytes, at + 1),
                b' ' | b'\t' | b'\n' | b'\r' => {
                    out.push_str(&self.0[from..at]);
                    while matches!(bytes.get(at), Some(b' ' | b'\t' | b'\n' | b'\r')) {
                        at += 1;
                    }
                    from = at;
                }
                _ => at += 1,
            }
        }
        out.push_str(&self.0[from..]);
    }

    /// The text without white space between tokens.
    pub fn compact(self) -> Box<str> {
        let mut out = String::with_capacity(self.0.len());
        self.compact_into(&mut out);
        out.into_boxed_str()
    }
}

/// The members of an object.
#[derive(Debug, Clone)]
pub struct Members<'a> {
    scanner: Option<Scanner<'a>>,
}

impl<'a> Iterator for Members<'a> {
    type Item = (Cow<'a, str>, Json<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let scanner = self.scanner.as_mut()?;
        if !scanner.next_item(b'}') {
            self.scanner = None;
            return None;
        }
        let name = scanner.name().ok()?;
        let value = scanner.value().ok()?;
        // A name that is no text equals no name that anybody asks for; its raw form stands for it in errors.
        Some((unescape(name).unwrap_or(Cow::Borrowed(name)), Json(value)))
    }
}

/// The elements of an array.
#[derive(Debug, Clone)]
pub struct Elements<'a> {
    scanner: Option<Scanner<'a>>,
}

impl<'a> Iterator for Elements<'a> {
    type Item = Json<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        let scanner = self.scanner.as_mut()?;
        if !scanner.next_item(b']') {
            self.scanner = None;
            return None;
        }
        scanner.value().ok().map(Json)
    }
}

/// Appends `text` as a JSON string with its quotes.
pub fn push_string(out: &mut String, text: &str) {
    out.push('"');
    let mut from = 0;
    for (at, byte) in text.bytes().enumerate() {
        if byte >= 0x20 && byte != b'"' && byte != b'\\' {
            continue;
        }
        out.push_str(&text[from..at]);
        from = at + 1;
        match byte {
            b'"' => out.push_str("\\\""),
            b'\\' => out.push_str("\\\\"),
            b'\n' => out.push_str("\\n"),
            b'\r' => out.push_str("\\r"),
            b'\t' => out.push_str("\\t"),
            _ => {
                // Writing to a String can't fail.
                let _ = write!(out, "\\u{byte:04x}");
            }
        }
    }
    out.push_str(&text[from..]);
    out.push('"');
}

/// The characters of a string's inside.
fn unescape(inner: &str) -> Result<Cow<'_, str>, LoneSurrogate> {
    let Some(mut at) = memchr::memchr(b'\\', inner.as_bytes()) else { return Ok(Cow::Borrowed(inner)) };
    let mut out = String::with_capacity(inner.len());
    let mut rest = inner;
    loop {
        out.push_str(&rest[..at]);
        let (char, len) = escaped(&rest[at..]).ok_or(LoneSurrogate)?;
        out.push(char);
        rest = &rest[at + len..];
        match memchr::memchr(b'\\', rest.as_bytes()) {
            Some(next) => at = next,
            None => break,
        }
    }
    out.push_str(rest);
    Ok(Cow::Owned(out))
}

/// The character of the escape at the start of `text` and the escape's length.
fn escaped(text: &str) -> Option<(char, usize)> {
    let char = match text.as_bytes().get(1)? {
        b'u' => {
            let high = hex4(text, 2)?;
            return match high {
                0xd800..=0xdbff if text.as_bytes().get(6..8) == Some(b"\\u") => {
                    let low = hex4(text, 8).filter(|low| (0xdc00..=0xdfff).contains(low))?;
                    let code = 0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00);
                    Some((char::from_u32(code)?, 12))
                }
                _ => Some((char::from_u32(high)?, 6)),
            };
        }
        b'b' => '\u{8}',
        b'f' => '\u{c}',
        b'n' => '\n',
        b'r' => '\r',
        b't' => '\t',
        other => char::from(*other),
    };
    Some((char, 2))
}

fn hex4(text: &str, at: usize) -> Option<u32> {
    u32::from_str_radix(text.get(at..at + 4)?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;
    use serde_json::value::RawValue;

    #[track_caller]
    fn check_compact(text: &str, expected: &str) {
        assert_eq!(&*Json::parse(text.as_bytes()).expect("JSON").compact(), expected);
    }

    #[track_caller]
    fn check_error(text: &[u8], expected: &str) {
        let error = Json::parse(text).expect_err("no JSON").to_string();
        assert!(error.contains(expected), "{error} has no {expected:?}");
    }

    #[test]
    fn compacting_keeps_order_numbers_and_escapes() {
        check_compact("{ \"b\" : 1.0e+02 ,\n \"a\" : [ ] }", r#"{"b":1.0e+02,"a":[]}"#);
        check_compact(r#" [ 1 , -0 , 0.10 , 1E5 ] "#, "[1,-0,0.10,1E5]");
        check_compact(r#"{"a b" : " \u00e9 \" } "}"#, r#"{"a b":" \u00e9 \" } "}"#);
        check_compact("\tnull\r\n", "null");
        check_compact(r#""é \\""#, r#""é \\""#);
        check_compact(r#"["\ud800"]"#, r#"["\ud800"]"#);
        check_compact(r#"{"a":1,"a":2}"#, r#"{"a":1,"a":2}"#);
    }

    #[test]
    fn errors_say_where_and_what() {
        check_error(b"", "ends where a value should follow");
        check_error(b"{\"a\":1", "ends where");
        check_error(b"{\"a\" 1}", "'1' at byte 5 where `:` should stand");
        check_error(b"[1,]", "']' at byte 3 where a value should stand");
        check_error(b"{\"a\":1,}", "'}' at byte 7 where a name in quotes");
        check_error(b"[1 2]", "'2' at byte 3 where `,` or `]`");
        check_error(b"01", "'1' at byte 1");
        check_error(b"1 2", "'2' at byte 2 where the end");
        check_error(b"1.", "ends where a digit");
        check_error(b"-", "ends where a digit");
        check_error(b"1e+x", "'x' at byte 3 where a digit");
        check_error(b"tru", "ends where");
        check_error(b"nul1", "'1' at byte 3");
        check_error(b"'a'", "'\\'' at byte 0");
        check_error(b"\"a\nb\"", "control character in a string at byte 2");
        check_error(b"\"\\x\"", "'x' at byte 2 where an escape");
        check_error(b"\"\\u12g4\"", "'g' at byte 5 where a hexadecimal digit");
        check_error(b"\"abc", "ends where `\"`");
        check_error(b"\xff", "UTF-8 at byte 0");
        check_error("\u{feff}1".as_bytes(), "'\\u{feff}' at byte 0");
        check_error(&[b'['; 129], "deeper than 128");
        let deep = [[b'['; 128], [b']'; 128]].concat();
        assert!(Json::parse(&deep).is_ok());
    }

    #[test]
    fn strings_unescape() {
        let string = |text: &'static str| Json::parse(text.as_bytes()).expect("JSON").string().expect("a string");
        assert_eq!(string(r#""a\"\\\/\b\f\n\r\t\u00e9é""#).as_deref(), Ok("a\"\\/\u{8}\u{c}\n\r\té\u{e9}"));
        assert_eq!(string(r#""\ud83d\ude00!""#).as_deref(), Ok("😀!"));
        for lone in [r#""\ud83d""#, r#""\ude00""#, r#""\ud83dx""#, r#""\ud83d\u0041""#, r#""\ud83d\ud83d""#] {
            assert_eq!(string(lone), Err(LoneSurrogate), "{lone}");
        }
        assert_eq!(Json::parse(b"1").expect("JSON").string(), None);
    }

    #[test]
    fn members_and_elements_come_in_order() {
        let json = Json::parse(br#" { "a" : [ 1 , {"x":2} ] , "\u0062":"]" , "c":null } "#).expect("JSON");
        let members: Vec<_> = json.members().map(|(name, value)| (name.into_owned(), value.as_str())).collect();
        let pair = |name: &str, value| (name.to_owned(), value);
        assert_eq!(members, [pair("a", r#"[ 1 , {"x":2} ]"#), pair("b", r#""]""#), pair("c", "null")]);
        let array = json.members().next().expect("a").1;
        assert_eq!(array.elements().map(Json::as_str).collect::<Vec<_>>(), ["1", r#"{"x":2}"#]);
        assert_eq!(array.members().count(), 0);
        assert_eq!(json.elements().count(), 0);
        assert_eq!(Json::parse(b"{ }").expect("JSON").members().count(), 0);
        assert_eq!(Json::parse(b"[ ]").expect("JSON").elements().count(), 0);
    }

    fn text_of(json: Json<'_>) -> String {
        json.string().expect("a string").expect("whole pairs").into_owned()
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 40, 6, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                proptest::collection::vec((any::<String>(), inner), 0..6)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_bytes_parse_or_are_refused(bytes: Vec<u8>) {
            let _ = Json::parse(&bytes);
        }

        #[test]
        fn the_same_texts_are_json_as_serde_json_says(text in "[\\[\\]{}:,\"\\\\/untrefals0-9.eE+ \n\u{e9}-]{0,24}") {
            let ours = Json::parse(text.as_bytes());
            let theirs = serde_json::from_str::<&RawValue>(&text);
            prop_assert_eq!(ours.is_ok(), theirs.is_ok(), "{:?} {:?}", ours, theirs);
            if let (Ok(ours), Ok(theirs)) = (ours, theirs) {
                prop_assert_eq!(ours.as_str(), theirs.get());
            }
        }

        #[test]
        fn compacting_pretty_text_gives_the_compact_text(value in value()) {
            let pretty = serde_json::to_string_pretty(&value).expect("JSON");
            let compact = Json::parse(pretty.as_bytes()).expect("JSON").compact();
            prop_assert_eq!(compact.to_string(), serde_json::to_string(&value).expect("JSON"));
            prop_assert_eq!(&*Json::parse(compact.as_bytes()).expect("JSON").compact(), &*compact);
        }

        #[test]
        fn walking_finds_what_serde_json_finds(value in value()) {
            let text = serde_json::to_string_pretty(&value).expect("JSON");
            let json = Json::parse(text.as_bytes()).expect("JSON");
            let read = |part: Json<'_>| serde_json::from_str::<Value>(part.as_str()).expect("JSON");
            match read(json) {
                Value::Object(expected) => {
                    let found: Vec<_> = json.members().map(|(name, part)| (name.into_owned(), read(part))).collect();
                    prop_assert_eq!(found, expected.into_iter().collect::<Vec<_>>());
                }
                Value::Array(expected) => prop_assert_eq!(json.elements().map(read).collect::<Vec<_>>(), expected),
                Value::String(expected) => prop_assert_eq!(text_of(json), expected),
                _ => prop_assert!(json.string().is_none()),
            }
        }

        #[test]
        fn a_written_string_reads_back(text: String) {
            let mut out = String::new();
            push_string(&mut out, &text);
            prop_assert_eq!(serde_json::from_str::<String>(&out).expect("JSON"), text.as_str());
            let json = Json::parse(out.as_bytes()).expect("JSON");
            prop_assert_eq!(text_of(json), text);
        }
    }
}
