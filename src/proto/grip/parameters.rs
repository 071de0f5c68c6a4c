//! The syntax of most `Grip-*` fields: values with parameters, separated by commas.
//!
//! `a; prev-id=3; filter=x, "b;c"`: a value or parameter is a run without `;` and `,`, or a quoted string in which `\`
//! escapes. It is lenient where backends are sloppy: channel names and ids are not tokens, and are not quoted.

/// One value with its parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Element {
    /// What stands first.
    pub value: String,
    /// Names in lower case, in their order; a name may come again.
    pub parameters: Vec<(String, String)>,
}

/// A field that can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SyntaxError {
    /// A quoted string or `<…>` without its end.
    #[error("{0:?} is not closed")]
    Open(char),
    /// Text behind a quoted string.
    #[error("text stands behind a quoted string")]
    Behind,
}

impl Element {
    /// A parameter; the first of that name.
    pub fn get<'a>(&'a self, name: &'a str) -> Option<&'a str> {
        self.all(name).next()
    }

    /// All parameters of a name.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.parameters.iter().filter(move |(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// Reads a list; empty elements are passed over.
///
/// # Errors
/// When something is not closed.
pub fn list(text: &str) -> Result<Vec<Element>, SyntaxError> {
    let mut rest = Rest(text);
    let mut elements = Vec::new();
    loop {
        let value = rest.word(&[';', ','])?;
        let mut parameters = Vec::new();
        while rest.take(';') {
            let name = rest.word(&['=', ';', ','])?.to_ascii_lowercase();
            let value = if rest.take('=') { rest.word(&[';', ','])? } else { String::new() };
            if !name.is_empty() {
                parameters.push((name, value));
            }
        }
        if !value.is_empty() {
            elements.push(Element { value, parameters });
        }
        if !rest.take(',') {
            return Ok(elements);
        }
    }
}

/// Reads `name=value, name="value"`.
///
/// # Errors
/// When something is not closed.
pub fn pairs(text: &str) -> Result<Vec<(String, String)>, SyntaxError> {
    let mut rest = Rest(text);
    let mut pairs = Vec::new();
    loop {
        let name = rest.word(&['=', ',', ';'])?;
        let value = if rest.take('=') { rest.word(&[',', ';'])? } else { String::new() };
        if !name.is_empty() {
            pairs.push((name, value));
        }
        if !rest.take(',') && !rest.take(';') {
            return Ok(pairs);
        }
    }
}

/// What is still to be read.
struct Rest<'a>(&'a str);

impl Rest<'_> {
    fn take(&mut self, separator: char) -> bool {
        self.0 = self.0.trim_start_matches([' ', '\t']);
        match self.0.strip_prefix(separator) {
            Some(rest) => {
                self.0 = rest;
                true
            }
            None => false,
        }
    }

    /// A run up to one of `ends`, a quoted string, or what stands in `<…>`, without what encloses it.
    fn word(&mut self, ends: &[char]) -> Result<String, SyntaxError> {
        self.0 = self.0.trim_start_matches([' ', '\t']);
        if let Some(rest) = self.0.strip_prefix('<') {
            let (inside, behind) = rest.split_once('>').ok_or(SyntaxError::Open('<'))?;
            self.0 = behind;
            return self.closed(inside.to_owned(), ends);
        }
        if let Some(rest) = self.0.strip_prefix('"') {
            let mut text = String::new();
            let mut characters = rest.char_indices();
            while let Some((at, character)) = characters.next() {
                match character {
                    '"' => {
                        self.0 = &rest[at + 1..];
                        return self.closed(text, ends);
                    }
                    '\\' => text.extend(characters.next().map(|(_, escaped)| escaped)),
                    other => text.push(other),
                }
            }
            return Err(SyntaxError::Open('"'));
        }
        let end = self.0.find(ends).unwrap_or(self.0.len());
        let (word, behind) = self.0.split_at(end);
        self.0 = behind;
        Ok(word.trim_end_matches([' ', '\t']).to_owned())
    }

    fn closed(&mut self, text: String, ends: &[char]) -> Result<String, SyntaxError> {
        self.0 = self.0.trim_start_matches([' ', '\t']);
        if self.0.is_empty() || self.0.starts_with(ends) { Ok(text) } else { Err(SyntaxError::Behind) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(text: &str, expected: &[(&str, &[(&str, &str)])]) {
        let found = list(text).expect("a list");
        let shown: Vec<_> = found
            .iter()
            .map(|e| {
                let parameters: Vec<_> = e.parameters.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
                (e.value.as_str(), parameters)
            })
            .collect();
        let expected: Vec<_> = expected.iter().map(|(value, parameters)| (*value, parameters.to_vec())).collect();
        assert_eq!(shown, expected, "{text}");
    }

    #[test]
    fn lists_are_read_as_backends_write_them() {
        check("a", &[("a", &[])]);
        check("", &[]);
        check(" , a ,, b ", &[("a", &[]), ("b", &[])]);
        check(
            "a; prev-id=3; filter=x; Filter=y, b",
            &[("a", &[("prev-id", "3"), ("filter", "x"), ("filter", "y")]), ("b", &[])],
        );
        check(r#""a;,b"; x="q\"\\" ; y"#, &[("a;,b", &[("x", "q\"\\"), ("y", "")])]);
        check("</p?a=1,2;x>; rel=next; timeout=120", &[("/p?a=1,2;x", &[("rel", "next"), ("timeout", "120")])]);
        check("events-%2Fa b=c; prev-id=a=b", &[("events-%2Fa b=c", &[("prev-id", "a=b")])]);
    }

    #[test]
    fn what_is_not_closed_is_refused() {
        assert_eq!(list("a; b=\"c"), Err(SyntaxError::Open('"')));
        assert_eq!(list("</a; rel=next"), Err(SyntaxError::Open('<')));
        assert_eq!(list("\"a\"b"), Err(SyntaxError::Behind));
    }

    #[test]
    fn pairs_have_a_name_and_a_value() {
        let found = pairs(r#"user="a, b", id_format=x:%(c)s,, empty"#).expect("pairs");
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(found, [pair("user", "a, b"), pair("id_format", "x:%(c)s"), pair("empty", "")]);
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in r#"[a-c;,="\\<> ]{0,40}"#) {
            let _ = list(&text);
            let _ = pairs(&text);
        }

        #[test]
        fn quoted_values_survive(value in "[^\\p{Cc}]{1,40}", parameter in "[^\\p{Cc}]{0,40}") {
            let quote = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
            let found = list(&format!("{}; x={}, b", quote(&value), quote(&parameter))).expect("a list");
            prop_assert_eq!(&found[0].value, &value);
            prop_assert_eq!(found[0].get("x"), Some(parameter.as_str()));
            prop_assert_eq!(found.len(), 2);
        }
    }
}
