//! A WebSocket client's handshake and the frames that it must not ignore (RFC 6455).

/// The key of RFC 6455 §1.3, and the answer that it must get.
pub const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
/// The only right `Sec-WebSocket-Accept` for [`KEY`].
pub const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// Fields of the handshake's request.
pub fn upgrade_fields() -> String {
    format!("Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n")
}

/// A server's text frame.
pub fn text(payload: &[u8]) -> Vec<u8> {
    let mut out = vec![0x81];
    match payload.len() {
        length @ ..126 => out.push(length as u8),
        length => {
            out.push(126);
            out.extend_from_slice(&(length.min(65_535) as u16).to_be_bytes());
        }
    }
    out.extend_from_slice(payload);
    out
}

/// Reads a server's frames: hands out the payloads of messages, answers pings.
#[derive(Debug, Default)]
pub struct Reader {
    /// A head, or a control frame, that is not whole.
    cut: Vec<u8>,
    /// Bytes of a message's payload that are still to come.
    left: usize,
}

impl Reader {
    /// Takes the next bytes; what has to be answered goes to `reply`.
    pub fn feed(&mut self, bytes: &[u8], reply: &mut Vec<u8>, sink: &mut dyn FnMut(&[u8])) -> Result<(), String> {
        if self.cut.is_empty() {
            let used = self.frames(bytes, reply, sink)?;
            self.cut.extend_from_slice(&bytes[used..]);
        } else {
            let mut joined = std::mem::take(&mut self.cut);
            joined.extend_from_slice(bytes);
            let used = self.frames(&joined, reply, sink)?;
            joined.drain(..used);
            self.cut = joined;
        }
        Ok(())
    }

    fn frames(&mut self, bytes: &[u8], reply: &mut Vec<u8>, sink: &mut dyn FnMut(&[u8])) -> Result<usize, String> {
        let mut at = 0;
        loop {
            let take = self.left.min(bytes.len() - at);
            if take > 0 {
                sink(&bytes[at..at + take]);
                at += take;
                self.left -= take;
            }
            let Some((opcode, length, head)) = read_head(&bytes[at..]) else { return Ok(at) };
            if opcode < 8 {
                at += head;
                self.left = length;
                continue;
            }
            let Some(payload) = bytes[at + head..].get(..length) else { return Ok(at) };
            match opcode {
                8 => return Err("closed by the server".into()),
                9 => {
                    // Masked with zeros, which change nothing.
                    reply.extend_from_slice(&[0x8a, 0x80 | length as u8, 0, 0, 0, 0]);
                    reply.extend_from_slice(payload);
                }
                _ => {}
            }
            at += head + length;
        }
    }
}

/// Opcode, payload length and head length.
fn read_head(bytes: &[u8]) -> Option<(u8, usize, usize)> {
    let opcode = bytes.first()? & 0x0f;
    match bytes.get(1)? & 0x7f {
        126 => Some((opcode, usize::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?)), 4)),
        127 => Some((opcode, u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?) as usize, 10)),
        length => Some((opcode, usize::from(length), 2)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_read_however_they_are_cut() {
        let bytes = [text(b"one"), vec![0x89, 2, b'h', b'i'], text(&[b'x'; 200])].concat();
        for size in 1..=bytes.len() {
            let (mut reader, mut reply, mut seen) = (Reader::default(), Vec::new(), Vec::new());
            for part in bytes.chunks(size) {
                reader.feed(part, &mut reply, &mut |bytes| seen.extend_from_slice(bytes)).expect("frames");
            }
            assert_eq!((seen.len(), &seen[..3]), (203, &b"one"[..]));
            assert_eq!(reply, [0x8a, 0x82, 0, 0, 0, 0, b'h', b'i']);
        }
    }
}
