//! A client's side of HTTP/2 (RFC 9113) that asks for streams and reads their data.
//!
//! Windows are as large as they can be, so that a run never has to widen them. Field sections of responses are not
//! decoded: the status 200 is one byte (RFC 7541 Appendix A, index 8).

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const PRIORITY: u8 = 32;

/// What a server said of the stream of a request, by the request's number.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// It was accepted.
    Opened(usize),
    /// The next bytes of its content.
    Data(usize, &'a [u8]),
    /// It ended, or was refused.
    Ended(usize, &'static str),
}

/// What a client sends first.
pub fn preface() -> Vec<u8> {
    let mut out = PREFACE.to_vec();
    // SETTINGS_ENABLE_PUSH 0, SETTINGS_INITIAL_WINDOW_SIZE 2^31 - 1.
    put_frame(&mut out, SETTINGS, 0, 0, &[0, 2, 0, 0, 0, 0, 0, 4, 0x7f, 0xff, 0xff, 0xff]);
    put_frame(&mut out, WINDOW_UPDATE, 0, 0, &(0x7fff_ffff_u32 - 65_535).to_be_bytes());
    out
}

/// A GET of an event stream, as the connection's request `number`.
pub fn get(out: &mut Vec<u8>, number: usize, is_tls: bool, authority: &str, path: &str) {
    let mut block = vec![0x82, if is_tls { 0x87 } else { 0x86 }];
    for (name, value) in [(&[0x04][..], path), (&[0x01], authority), (&[0x0f, 0x04], "text/event-stream")] {
        block.extend_from_slice(name);
        // A length under 127 is one byte (RFC 7541 §5.1); the channels' names are short.
        block.push(value.len().min(126) as u8);
        block.extend_from_slice(&value.as_bytes()[..value.len().min(126)]);
    }
    put_frame(out, HEADERS, END_STREAM | END_HEADERS, number as u32 * 2 + 1, &block);
}

fn put_frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    out.extend_from_slice(&(payload.len() as u32).to_be_bytes()[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

/// Reads a server's frames.
#[derive(Debug, Default)]
pub struct Reader {
    /// The beginning of a frame.
    cut: Vec<u8>,
}

impl Reader {
    /// Takes the next bytes; what has to be answered goes to `reply`.
    pub fn feed(
        &mut self,
        bytes: &[u8],
        reply: &mut Vec<u8>,
        on_event: &mut dyn FnMut(Event<'_>),
    ) -> Result<(), String> {
        if self.cut.is_empty() {
            let used = frames(bytes, reply, on_event)?;
            self.cut.extend_from_slice(&bytes[used..]);
        } else {
            let mut joined = std::mem::take(&mut self.cut);
            joined.extend_from_slice(bytes);
            let used = frames(&joined, reply, on_event)?;
            joined.drain(..used);
            self.cut = joined;
        }
        Ok(())
    }
}

fn frames(bytes: &[u8], reply: &mut Vec<u8>, on_event: &mut dyn FnMut(Event<'_>)) -> Result<usize, String> {
    let mut at = 0;
    while let Some((head, rest)) = bytes[at..].split_first_chunk::<9>() {
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let Some(payload) = rest.get(..length) else { break };
        let (kind, flags) = (head[3], head[4]);
        let number = (u32::from_be_bytes([head[5] & 0x7f, head[6], head[7], head[8]]) as usize).saturating_sub(1) / 2;
        match kind {
            DATA => on_event(Event::Data(number, content(payload, flags))),
            HEADERS => {
                let block = content(payload, flags);
                let block = if flags & PRIORITY != 0 { block.get(5..).unwrap_or_default() } else { block };
                // A change of the table's size may come first (RFC 7541 §6.3).
                let first = block.iter().find(|byte| **byte & 0xe0 != 0x20);
                on_event(if first == Some(&0x88) {
                    Event::Opened(number)
                } else {
                    Event::Ended(number, "status other than 200")
                });
            }
            RST_STREAM => on_event(Event::Ended(number, "stream reset")),
            SETTINGS if flags & ACK == 0 => put_frame(reply, SETTINGS, ACK, 0, &[]),
            PING if flags & ACK == 0 => put_frame(reply, PING, ACK, 0, payload),
            GOAWAY => return Err("GOAWAY".into()),
            _ => {}
        }
        if matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0 {
            on_event(Event::Ended(number, "stream ended"));
        }
        at += 9 + length;
    }
    Ok(at)
}

fn content(payload: &[u8], flags: u8) -> &[u8] {
    if flags & PADDED == 0 {
        return payload;
    }
    let Some((padding, rest)) = payload.split_first() else { return payload };
    &rest[..rest.len().saturating_sub(usize::from(*padding))]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_read_however_they_are_cut() {
        let mut bytes = Vec::new();
        put_frame(&mut bytes, SETTINGS, 0, 0, &[]);
        put_frame(&mut bytes, HEADERS, END_HEADERS, 3, &[0x20, 0x88, 0x40]);
        put_frame(&mut bytes, DATA, PADDED, 3, b"\x02dataxx");
        put_frame(&mut bytes, PING, 0, 0, b"12345678");
        put_frame(&mut bytes, DATA, END_STREAM, 3, b"end");
        for size in 1..=bytes.len() {
            let (mut reader, mut reply, mut seen) = (Reader::default(), Vec::new(), Vec::new());
            for part in bytes.chunks(size) {
                let mut note = |event: Event<'_>| seen.push(format!("{event:?}"));
                reader.feed(part, &mut reply, &mut note).expect("frames");
            }
            let wanted =
                [Event::Opened(1), Event::Data(1, b"data"), Event::Data(1, b"end"), Event::Ended(1, "stream ended")];
            assert_eq!(seen, wanted.map(|event| format!("{event:?}")));
            let mut answers = Vec::new();
            put_frame(&mut answers, SETTINGS, ACK, 0, &[]);
            put_frame(&mut answers, PING, ACK, 0, b"12345678");
            assert_eq!(reply, answers);
        }
    }
}
