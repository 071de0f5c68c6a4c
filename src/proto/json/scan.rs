//! A scanner over JSON text: finds where each value ends, and what is wrong where none can stand.
//!
//! It keeps one bit a level instead of recursing, so that no input can exhaust the stack.

use super::{DEPTH_MAX, JsonError};

/// A place in a text.
#[derive(Debug, Clone)]
pub(super) struct Scanner<'a> {
    text: &'a str,
    at: usize,
}

/// Which brackets are open, the innermost as the lowest bit: 1 is an object.
#[derive(Default)]
struct Open {
    bits: u128,
    depth: usize,
}

impl Open {
    fn push(&mut self, object: u128, at: usize) -> Result<(), JsonError> {
        if self.depth == DEPTH_MAX {
            return Err(JsonError::Depth(at));
        }
        self.bits = self.bits << 1 | object;
        self.depth += 1;
        Ok(())
    }

    fn pop(&mut self) {
        self.bits >>= 1;
        self.depth = self.depth.saturating_sub(1);
    }

    fn in_object(&self) -> bool {
        self.bits & 1 == 1
    }
}

impl<'a> Scanner<'a> {
    pub(super) fn new(text: &'a str, at: usize) -> Self {
        Self { text, at }
    }

    /// Scans one value with the white space before it, and gives its text.
    pub(super) fn value(&mut self) -> Result<&'a str, JsonError> {
        self.space();
        let from = self.at;
        let mut open = Open::default();
        loop {
            self.space();
            match self.peek() {
                Some(b'{') => {
                    open.push(1, self.at)?;
                    self.at += 1;
                    self.space();
                    if self.peek() != Some(b'}') {
                        self.name()?;
                        continue;
                    }
                    self.at += 1;
                    open.pop();
                }
                Some(b'[') => {
                    open.push(0, self.at)?;
                    self.at += 1;
                    self.space();
                    if self.peek() != Some(b']') {
                        continue;
                    }
                    self.at += 1;
                    open.pop();
                }
                _ => self.scalar()?,
            }
            if self.close(&mut open)? {
                return Ok(&self.text[from..self.at]);
            }
        }
    }

    /// After a value: closes what ends here. True when all is closed, false when another value follows.
    fn close(&mut self, open: &mut Open) -> Result<bool, JsonError> {
        while open.depth > 0 {
            self.space();
            match (self.peek(), open.in_object()) {
                (Some(b','), true) => {
                    self.at += 1;
                    self.name()?;
                    return Ok(false);
                }
                (Some(b','), false) => {
                    self.at += 1;
                    return Ok(false);
                }
                (Some(b'}'), true) | (Some(b']'), false) => {
                    self.at += 1;
                    open.pop();
                }
                (_, true) => return Err(self.wrong("`,` or `}`")),
                (_, false) => return Err(self.wrong("`,` or `]`")),
            }
        }
        Ok(true)
    }

    /// Scans a member's name and its colon, and gives the name without quotes, still escaped.
    pub(super) fn name(&mut self) -> Result<&'a str, JsonError> {
        self.space();
        if self.peek() != Some(b'"') {
            return Err(self.wrong("a name in quotes"));
        }
        let from = self.at + 1;
        self.string()?;
        let name = &self.text[from..self.at - 1];
        self.space();
        self.take(b':', "`:`")?;
        Ok(name)
    }

    /// In a valid array or object: steps over a comma; false at its end.
    pub(super) fn next_item(&mut self, end: u8) -> bool {
        self.space();
        if self.peek() == Some(b',') {
            self.at += 1;
            self.space();
        }
        self.peek().is_some_and(|byte| byte != end)
    }

    /// Checks that nothing but white space is left.
    pub(super) fn finish(&mut self) -> Result<(), JsonError> {
        self.space();
        if self.at == self.text.len() { Ok(()) } else { Err(self.wrong("the end of the text")) }
    }

    fn scalar(&mut self) -> Result<(), JsonError> {
        match self.peek() {
            Some(b'"') => self.string(),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.word(b"true", "`true`"),
            Some(b'f') => self.word(b"false", "`false`"),
            Some(b'n') => self.word(b"null", "`null`"),
            _ => Err(self.wrong("a value")),
        }
    }

    fn word(&mut self, word: &'static [u8], wanted: &'static str) -> Result<(), JsonError> {
        word.iter().try_for_each(|byte| self.take(*byte, wanted))
    }

    fn number(&mut self) -> Result<(), JsonError> {
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        if self.peek() == Some(b'0') {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(())
    }

    fn digits(&mut self) -> Result<(), JsonError> {
        if !matches!(self.peek(), Some(b'0'..=b'9')) {
            return Err(self.wrong("a digit"));
        }
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        Ok(())
    }

    fn string(&mut self) -> Result<(), JsonError> {
        self.at += 1;
        loop {
            // All characters up to the next that means something are looked at together, not one by one.
            let rest = &self.text.as_bytes()[self.at..];
            let plain = memchr::memchr2(b'"', b'\\', rest).unwrap_or(rest.len());
            if has_control(&rest[..plain]) {
                let at = rest.iter().take_while(|byte| **byte >= 0x20).count();
                return Err(JsonError::Control(self.at + at));
            }
            self.at += plain;
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(());
                }
                Some(b'\\') => {
                    self.at += 1;
                    match self.peek() {
                        Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 1,
                        Some(b'u') => {
                            self.at += 1;
                            for _ in 0..4 {
                                if !self.peek().is_some_and(|byte| byte.is_ascii_hexdigit()) {
                                    return Err(self.wrong("a hexadecimal digit"));
                                }
                                self.at += 1;
                            }
                        }
                        _ => return Err(self.wrong("an escape (one of \"\\/bfnrtu)")),
                    }
                }
                Some(_) | None => return Err(self.wrong("`\"`")),
            }
        }
    }

    fn take(&mut self, byte: u8, wanted: &'static str) -> Result<(), JsonError> {
        if self.peek() != Some(byte) {
            return Err(self.wrong(wanted));
        }
        self.at += 1;
        Ok(())
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn wrong(&self, wanted: &'static str) -> JsonError {
        match self.text.get(self.at..).and_then(|rest| rest.chars().next()) {
            Some(found) => JsonError::Unexpected { at: self.at, found, wanted },
            None => JsonError::End(wanted),
        }
    }
}

/// Whether a control character is among the bytes. Without an early end, so that it is done for many bytes at a time.
fn has_control(bytes: &[u8]) -> bool {
    bytes.iter().fold(u8::MAX, |least, byte| least.min(*byte)) < 0x20
}

/// Where the string ends whose inside starts at `at`: behind its closing quote. The text is known to be valid.
pub(super) fn string_end(bytes: &[u8], mut at: usize) -> usize {
    while let Some(found) = bytes.get(at..).and_then(|rest| memchr::memchr2(b'"', b'\\', rest)) {
        at += found;
        if bytes[at] == b'"' {
            return at + 1;
        }
        at += 2;
    }
    bytes.len()
}
