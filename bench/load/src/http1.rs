//! HTTP/1.1 as far as measuring needs it: heads, and where bodies end.

/// A request's or a response's head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Its first line.
    pub start: String,
    fields: Vec<(String, String)>,
}

impl Head {
    /// The head in front of `bytes`, and how many bytes it takes; `None` while it isn't whole.
    pub fn read(bytes: &[u8]) -> Option<(Self, usize)> {
        let end = memchr::memmem::find(bytes, b"\r\n\r\n")?;
        let text = String::from_utf8_lossy(&bytes[..end]);
        let mut lines = text.split("\r\n");
        let start = lines.next().unwrap_or_default().to_owned();
        let fields = lines.filter_map(|line| line.split_once(':'));
        let fields = fields.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned())).collect();
        Some((Self { start, fields }, end + 4))
    }

    /// The first value of a field; `name` in lower case.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Whether the connection ends with this message.
    pub fn closes(&self) -> bool {
        self.field("connection").is_some_and(|option| option.eq_ignore_ascii_case("close"))
    }

    /// A response's status.
    pub fn status(&self) -> u16 {
        self.start.split(' ').nth(1).and_then(|text| text.parse().ok()).unwrap_or(0)
    }

    /// How the content's end is found.
    pub fn body(&self) -> Body {
        let chunked = self.field("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked"));
        if chunked {
            return Body { state: State::Size, line: Vec::new() };
        }
        let length = self.field("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
        Body { state: if length == 0 { State::Done } else { State::Counted(length) }, line: Vec::new() }
    }
}

/// Follows a message's content to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Body {
    state: State,
    line: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Counted(usize),
    /// In the line before a chunk.
    Size,
    Chunk(usize),
    /// In the line end after a chunk.
    Between,
    /// After the last chunk, before the empty line.
    Trailer,
    Done,
}

impl Body {
    /// Whether the content is whole.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Takes the next bytes, hands the content in them to `sink`; how many of them belong to the message.
    pub fn feed(&mut self, bytes: &[u8], sink: &mut dyn FnMut(&[u8])) -> Result<usize, String> {
        let mut at = 0;
        while at < bytes.len() && self.state != State::Done {
            match self.state {
                State::Counted(left) | State::Chunk(left) => {
                    let take = left.min(bytes.len() - at);
                    sink(&bytes[at..at + take]);
                    at += take;
                    let left = left - take;
                    self.state = match self.state {
                        State::Counted(_) if left == 0 => State::Done,
                        State::Counted(_) => State::Counted(left),
                        _ if left == 0 => State::Between,
                        _ => State::Chunk(left),
                    };
                }
                State::Size | State::Between | State::Trailer => {
                    let byte = bytes[at];
                    at += 1;
                    if byte == b'\n' {
                        self.line_ends()?;
                    } else if byte != b'\r' {
                        self.line.push(byte);
                    }
                }
                State::Done => {}
            }
        }
        Ok(at)
    }

    fn line_ends(&mut self) -> Result<(), String> {
        let line = std::mem::take(&mut self.line);
        self.state = match self.state {
            State::Size => {
                let text = String::from_utf8_lossy(&line);
                let digits = text.split(';').next().unwrap_or_default().trim();
                match usize::from_str_radix(digits, 16).map_err(|_| format!("{digits:?} is no chunk size"))? {
                    0 => State::Trailer,
                    size => State::Chunk(size),
                }
            }
            State::Between => State::Size,
            _ if line.is_empty() => State::Done,
            _ => State::Trailer,
        };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, content: &str, rest: &str) {
        for size in 1..=text.len() {
            let (head, used) = Head::read(text.as_bytes()).expect("a head");
            let (mut body, mut seen, mut left) = (head.body(), Vec::new(), Vec::new());
            for part in text.as_bytes()[used..].chunks(size) {
                let taken = body.feed(part, &mut |bytes| seen.extend_from_slice(bytes)).expect("a body");
                left.extend_from_slice(&part[taken..]);
            }
            assert!(body.is_done());
            assert_eq!(
                (String::from_utf8_lossy(&seen).as_ref(), String::from_utf8_lossy(&left).as_ref()),
                (content, rest)
            );
        }
    }

    #[test]
    fn contents_end_where_their_framing_says() {
        check("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcHTTP", "abc", "HTTP");
        check("HTTP/1.1 204 No\r\n\r\nHTTP", "", "HTTP");
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x\r\nabc\r\nA\r\n0123456789\r\n0\r\nT: 1\r\n\r\nHTTP";
        check(chunked, "abc0123456789", "HTTP");
    }
}
