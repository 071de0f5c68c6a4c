//! Reading server-sent events: the parser of a client (WHATWG HTML §9.2.6), fed with bytes as they come.
//!
//! It knows neither sockets nor reconnecting: it says what arrived, and remembers what a client has to give back.
//!
//! ```text
//!   bytes ─▶ lines (CR, LF or CRLF) ─▶ fields ─▶ an empty line ─▶ Item
//! ```

use std::mem;

/// What a client acts on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// An event was dispatched.
    Event(Event),
    /// The server names the time to wait before reconnecting, in milliseconds.
    Retry(u64),
}

/// One dispatched event.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Event {
    /// The event's name; empty where the stream named none (a browser says `message`).
    pub name: String,
    /// The data lines, joined by line feeds.
    pub data: String,
    /// The last id seen on the stream when the event was dispatched; empty before the first.
    pub id: String,
}

/// A line or an event of a stream that is larger than the reader allows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an event of the stream is over {bytes_max} bytes; the server sends more than this client reads")]
pub struct EventTooBig {
    /// The bound.
    pub bytes_max: usize,
}

/// An incremental reader of one `text/event-stream` body.
///
/// It holds at most one line and one event, each bounded by `bytes_max`.
#[derive(Debug)]
pub struct EventStream {
    bytes_max: usize,
    line: Vec<u8>,
    after_cr: bool,
    at_start: bool,
    name: String,
    data: String,
    has_data: bool,
    id_of_block: String,
    id: String,
}

impl EventStream {
    /// A reader of a new body. `last_event_id` is what the client already has (empty for none); a line and an
    /// event's data may each have `bytes_max` bytes.
    pub fn new(last_event_id: &str, bytes_max: usize) -> Self {
        Self {
            bytes_max,
            line: Vec::new(),
            after_cr: false,
            at_start: true,
            name: String::new(),
            data: String::new(),
            has_data: false,
            id_of_block: last_event_id.to_owned(),
            id: last_event_id.to_owned(),
        }
    }

    /// The last id of the stream: what `Last-Event-ID` has to say on the next try. An `id` counts from the empty
    /// line that ends its block, also where the block holds no data.
    pub fn last_event_id(&self) -> &str {
        &self.id
    }

    /// Reads the next bytes, cut anywhere, and calls `on_item` for all that they complete.
    ///
    /// # Errors
    /// When a line or an event is over the bound; the reader is of no more use then.
    pub fn feed(&mut self, bytes: &[u8], mut on_item: impl FnMut(Item)) -> Result<(), EventTooBig> {
        let mut rest = bytes;
        if self.after_cr
            && let Some((&first, after)) = rest.split_first()
        {
            self.after_cr = false;
            if first == b'\n' {
                rest = after;
            }
        }
        while let Some(end) = memchr::memchr2(b'\r', b'\n', rest) {
            let (part, after) = rest.split_at(end);
            self.hold(part)?;
            self.finish_line(&mut on_item)?;
            rest = match after {
                [b'\r', b'\n', after @ ..] => after,
                [b'\r'] => {
                    self.after_cr = true;
                    &[]
                }
                [_, after @ ..] => after,
                [] => &[],
            };
        }
        self.hold(rest)
    }

    fn hold(&mut self, part: &[u8]) -> Result<(), EventTooBig> {
        if self.line.len() + part.len() > self.bytes_max {
            return Err(EventTooBig { bytes_max: self.bytes_max });
        }
        self.line.extend_from_slice(part);
        Ok(())
    }

    fn finish_line(&mut self, on_item: &mut impl FnMut(Item)) -> Result<(), EventTooBig> {
        let bytes = mem::take(&mut self.line);
        let bytes_read =
            if mem::take(&mut self.at_start) { bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes) } else { &bytes };
        let line = String::from_utf8_lossy(bytes_read);
        if line.is_empty() {
            self.dispatch(on_item);
        } else {
            self.field(&line, on_item)?;
        }
        self.line = bytes;
        self.line.clear();
        Ok(())
    }

    fn field(&mut self, line: &str, on_item: &mut impl FnMut(Item)) -> Result<(), EventTooBig> {
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match name {
            "event" => value.clone_into(&mut self.name),
            "data" => {
                if self.data.len() + value.len() + 1 > self.bytes_max {
                    return Err(EventTooBig { bytes_max: self.bytes_max });
                }
                self.data.push_str(value);
                self.data.push('\n');
                self.has_data = true;
            }
            "id" if !value.contains('\0') => value.clone_into(&mut self.id_of_block),
            "retry" if !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit()) => {
                // More digits than a u64 holds is longer than anybody waits.
                on_item(Item::Retry(value.parse().unwrap_or(u64::MAX)));
            }
            // A comment (no name), or a field that the standard ignores.
            _ => {}
        }
        Ok(())
    }

    fn dispatch(&mut self, on_item: &mut impl FnMut(Item)) {
        self.id.clone_from(&self.id_of_block);
        let name = mem::take(&mut self.name);
        let mut data = mem::take(&mut self.data);
        // The standard asks whether the buffer is empty; an empty data line leaves a line feed in it.
        if mem::take(&mut self.has_data) {
            data.pop();
            on_item(Item::Event(Event { name, data, id: self.id.clone() }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(pieces: &[&[u8]]) -> (Vec<Item>, String) {
        let mut stream = EventStream::new("", 1000);
        let mut items = Vec::new();
        for piece in pieces {
            stream.feed(piece, |item| items.push(item)).expect("small enough");
        }
        let id = stream.last_event_id().to_owned();
        (items, id)
    }

    fn event(name: &str, data: &str, id: &str) -> Item {
        Item::Event(Event { name: name.to_owned(), data: data.to_owned(), id: id.to_owned() })
    }

    #[track_caller]
    fn check(body: &str, items: &[Item], last_event_id: &str) {
        let (read_items, id) = read(&[body.as_bytes()]);
        assert_eq!(read_items, items, "{body:?}");
        assert_eq!(id, last_event_id, "{body:?}");
    }

    #[test]
    fn fields_are_read_as_the_standard_says() {
        check("data: YHOO\ndata: +2\ndata: 10\n\n", &[event("", "YHOO\n+2\n10", "")], "");
        check(
            ": comment\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n",
            &[event("", "first event", "1"), event("", "second event", ""), event("", " third event", "")],
            "",
        );
        check("data\n\ndata\ndata\n\ndata:", &[event("", "", ""), event("", "\n", "")], "");
        check("event: price\ndata: 1\n\ndata: 2\n\n", &[event("price", "1", ""), event("", "2", "")], "");
        check("event: nothing\n\n", &[], "");
        check("data: never ended\n", &[], "");
        check("retry: 250\nretry: soon\nretry:\nretry: +1\n", &[Item::Retry(250)], "");
        check("retry: 99999999999999999999999\n", &[Item::Retry(u64::MAX)], "");
        check("data: a: b\nDATA: c\n data: d\n\n", &[event("", "a: b", "")], "");
    }

    #[test]
    fn ids_stay_until_the_next_and_count_without_data() {
        check("id: 7\n\n", &[], "7");
        check("id: 7\ndata: a\n\ndata: b\n\n", &[event("", "a", "7"), event("", "b", "7")], "7");
        check("id: 7\n\nid: nul\0\ndata: b\n\n", &[event("", "b", "7")], "7");
        // Cut off before its end, the event did not arrive; its id may not be given back.
        check("id: 7\ndata: a\n\nid: 8\ndata: b\n", &[event("", "a", "7")], "7");
        let stream = EventStream::new("before", 10);
        assert_eq!(stream.last_event_id(), "before");
    }

    #[test]
    fn every_line_end_is_known() {
        check(
            "data: a\r\rdata: b\r\n\r\ndata: c\n\n",
            &[event("", "a", ""), event("", "b", ""), event("", "c", "")],
            "",
        );
        let (items, _) = read(&[b"data: a\r", b"\n", b"\r", b"\ndata: b\r", b"\r"]);
        assert_eq!(items, [event("", "a", ""), event("", "b", "")]);
    }

    #[test]
    fn a_byte_order_mark_is_dropped_once() {
        check("\u{feff}data: a\n\n\u{feff}data: b\n\n", &[event("", "a", "")], "");
        let (items, _) = read(&[b"\xef", b"\xbb\xbfdata: a\n\n"]);
        assert_eq!(items, [event("", "a", "")]);
    }

    #[test]
    fn broken_utf8_becomes_replacement_characters() {
        let (items, _) = read(&[b"data: a\xffb\xe2\x82\n\n"]);
        assert_eq!(items, [event("", "a\u{fffd}b\u{fffd}", "")]);
    }

    #[test]
    fn lines_and_events_are_bounded() {
        let too_big = Err(EventTooBig { bytes_max: 10 });
        assert_eq!(EventStream::new("", 10).feed(b"0123456789a", |_| {}), too_big);
        let mut stream = EventStream::new("", 10);
        assert_eq!(stream.feed(b"data:0123\ndata:4567", |_| {}), Ok(()));
        assert_eq!(stream.feed(b"\n", |_| {}), Ok(()));
        assert_eq!(stream.feed(b"data:8\n", |_| {}), too_big);
    }

    proptest! {
        #[test]
        fn any_chunking_gives_the_same_events(
            lines in proptest::collection::vec("(data|id|event|retry|:|x)(:| |: )[a-z0-9é\u{0}:]{0,6}|", 0..30),
            ends in proptest::collection::vec(0usize..3, 30),
            cuts in proptest::collection::vec(0usize..400, 0..20),
        ) {
            let mut body = String::new();
            for (line, end) in lines.iter().zip(ends) {
                body.push_str(line);
                body.push_str(["\n", "\r", "\r\n"][end]);
            }
            let whole = read(&[body.as_bytes()]);
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(body.len())).collect();
            cuts.extend([0, body.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|cut| &body.as_bytes()[cut[0]..cut[1]]).collect();
            prop_assert_eq!(read(&pieces), whole);
            let bytes: Vec<&[u8]> = body.as_bytes().chunks(1).collect();
            prop_assert_eq!(read(&bytes), read(&[body.as_bytes()]));
        }

        #[test]
        fn written_events_are_read_back(events in proptest::collection::vec(("[^\r\n\0]{1,8}", "[^\r]{0,40}", "[^\r\n\0]{0,8}"), 0..10)) {
            let mut body = String::new();
            let mut expected = Vec::new();
            for (name, data, id) in &events {
                body.push_str(&format!("event: {name}\nid: {id}\n"));
                for line in data.split('\n') {
                    body.push_str(&format!("data: {line}\n"));
                }
                body.push('\n');
                expected.push(event(name, data, id));
            }
            prop_assert_eq!(read(&[body.as_bytes()]).0, expected);
        }

        #[test]
        fn any_bytes_are_read_or_refused(pieces: Vec<Vec<u8>>) {
            let mut stream = EventStream::new("", 50);
            for piece in &pieces {
                if stream.feed(piece, |_| {}).is_err() {
                    break;
                }
            }
        }
    }
}
