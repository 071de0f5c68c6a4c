//! `Grip-Keep-Alive`: what a stream is sent in silence, and how long that is.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// The silence when none is named, in seconds.
pub const TIMEOUT_DEFAULT_SECS: u64 = 55;
/// The longest silence, in seconds.
pub const TIMEOUT_SECS_MAX: u64 = 24 * 60 * 60;
/// The most bytes.
pub const CONTENT_BYTES_MAX: usize = 4096;

/// What is sent, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeepAlive {
    /// The bytes.
    pub content: Box<[u8]>,
    /// How long is waited, in milliseconds.
    pub every_ms: u64,
    /// From when.
    pub mode: Mode,
}

/// From when a keep-alive waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// From the last bytes of any kind.
    Idle,
    /// From the last keep-alive.
    Interval,
}

/// Why a keep-alive can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeepAliveError {
    /// Another format.
    #[error("format {0:?} is unknown; write raw, cstring or base64")]
    Format(String),
    /// No base64.
    #[error("its content is no base64")]
    Base64,
    /// A `\` before something that has no meaning.
    #[error("its cstring has an escape that is none of \\\\ \\r \\n \\xHH")]
    Escape,
    /// No number of seconds.
    #[error("its timeout is none of 1 to {TIMEOUT_SECS_MAX} seconds")]
    Timeout,
    /// Another mode.
    #[error("mode {0:?} is unknown; write idle or interval")]
    Mode(String),
    /// Over [`CONTENT_BYTES_MAX`].
    #[error("its content has {0} bytes; {CONTENT_BYTES_MAX} at most")]
    TooLong(usize),
}

impl KeepAlive {
    /// Checks the parts.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn new(content: Vec<u8>, timeout_secs: Option<u64>, mode: Option<&str>) -> Result<Self, KeepAliveError> {
        if content.len() > CONTENT_BYTES_MAX {
            return Err(KeepAliveError::TooLong(content.len()));
        }
        let secs = timeout_secs.unwrap_or(TIMEOUT_DEFAULT_SECS);
        if !(1..=TIMEOUT_SECS_MAX).contains(&secs) {
            return Err(KeepAliveError::Timeout);
        }
        let mode = match mode {
            None | Some("idle") => Mode::Idle,
            Some("interval") => Mode::Interval,
            Some(other) => return Err(KeepAliveError::Mode(other.chars().take(32).collect())),
        };
        Ok(Self { content: content.into(), every_ms: secs * 1000, mode })
    }

    /// Reads a field's value. Only known parameters at its end are parameters: the content may hold `;`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(value: &str) -> Result<Self, KeepAliveError> {
        let (mut format, mut timeout, mut mode) = (None, None, None);
        let mut content = value;
        while let Some((before, last)) = content.rsplit_once(';') {
            let Some((name, value)) = last.split_once('=') else { break };
            let value = value.trim().trim_matches('"');
            match name.trim().to_ascii_lowercase().as_str() {
                "format" => format = Some(value),
                "timeout" => timeout = Some(value.parse().map_err(|_| KeepAliveError::Timeout)?),
                "mode" => mode = Some(value),
                _ => break,
            }
            content = before;
        }
        let content = content.trim_matches([' ', '\t']);
        let content = match format {
            None | Some("raw") => content.as_bytes().to_vec(),
            Some("cstring") => unescape(content).ok_or(KeepAliveError::Escape)?,
            Some("base64") => STANDARD.decode(content).map_err(|_| KeepAliveError::Base64)?,
            Some(other) => return Err(KeepAliveError::Format(other.chars().take(32).collect())),
        };
        Self::new(content, timeout, mode)
    }
}

fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'\\' {
            out.push(byte);
            continue;
        }
        out.push(match bytes.next()? {
            b'\\' => b'\\',
            b'r' => b'\r',
            b'n' => b'\n',
            b'x' => {
                let digit = |byte: u8| char::from(byte).to_digit(16);
                (digit(bytes.next()?)? * 16 + digit(bytes.next()?)?) as u8
            }
            _ => return None,
        });
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(value: &str, expected: Result<(&[u8], u64, Mode), KeepAliveError>) {
        let found = KeepAlive::parse(value);
        let found = found.as_ref().map(|k| (&*k.content, k.every_ms / 1000, k.mode)).map_err(Clone::clone);
        assert_eq!(found, expected, "{value}");
    }

    #[test]
    fn keep_alives_are_read() {
        check("hello", Ok((b"hello", 55, Mode::Idle)));
        check(r":\n\n; format=cstring; timeout=20", Ok((b":\n\n", 20, Mode::Idle)));
        check(r"a;b\x00\\\r; mode=interval; format=cstring", Ok((b"a;b\0\\\r", 55, Mode::Interval)));
        check("a=b;c", Ok((b"a=b;c", 55, Mode::Idle)));
        check("AP8=; format=base64", Ok((b"\0\xff", 55, Mode::Idle)));
        check(r"\n", Ok((br"\n", 55, Mode::Idle)));
        check("a; timeout=0", Err(KeepAliveError::Timeout));
        check("a; timeout=x", Err(KeepAliveError::Timeout));
        check(r"\q; format=cstring", Err(KeepAliveError::Escape));
        check(r"\x0; format=cstring", Err(KeepAliveError::Escape));
        check("*; format=base64", Err(KeepAliveError::Base64));
        check("a; format=json", Err(KeepAliveError::Format("json".into())));
        check("a; mode=x", Err(KeepAliveError::Mode("x".into())));
        check(&"x".repeat(4097), Err(KeepAliveError::TooLong(4097)));
    }

    proptest! {
        #[test]
        fn any_value_is_read_or_refused(value in r"[a-f0-9\\x;=rn ]{0,30}(; format=cstring)?") {
            let _ = KeepAlive::parse(&value);
        }
    }
}
