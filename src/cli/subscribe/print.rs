//! What a subscription remembers between connections, and how events are printed.

use crate::cli::subscribe::Ended;
use serde_json::value::RawValue;
use std::fmt;
use std::io::{self, Write};
use std::time::Duration;

const RETRY_DEFAULT: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(3600);

/// How an event is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Its data.
    Data,
    /// A line of JSON.
    Json,
}

/// An event, whichever transport brought it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Received {
    /// The cursor after it; empty if it came without one.
    pub id: String,
    /// Its name.
    pub event: Option<String>,
    /// Its data as text.
    pub data: String,
}

/// Takes events in, keeps the cursor, prints, and counts.
pub struct Reader<'a> {
    cursor: String,
    retry: Duration,
    connections: u64,
    format: Format,
    wanted: Option<u64>,
    out: &'a mut dyn Write,
    notes: &'a mut dyn Write,
}

impl<'a> Reader<'a> {
    /// Goes on from `cursor` (empty: none); ends after `wanted` events, if so many are wanted.
    pub fn new(
        cursor: String,
        format: Format,
        wanted: Option<u64>,
        out: &'a mut dyn Write,
        notes: &'a mut dyn Write,
    ) -> Self {
        Self { cursor, retry: RETRY_DEFAULT, connections: 0, format, wanted, out, notes }
    }

    /// What the server last said to give back; empty for nothing.
    pub fn cursor(&self) -> &str {
        &self.cursor
    }

    /// Remembers what to give back.
    pub fn set_cursor(&mut self, cursor: &str) {
        cursor.clone_into(&mut self.cursor);
    }

    /// The shortest pause before a reconnect.
    pub fn retry(&self) -> Duration {
        self.retry
    }

    /// Honours the server's `retry:`, up to an hour.
    pub fn set_retry_ms(&mut self, retry_ms: u64) {
        self.retry = Duration::from_millis(retry_ms).min(RETRY_MAX);
    }

    /// How many connections were accepted so far.
    pub fn connections(&self) -> u64 {
        self.connections
    }

    /// A connection was accepted; each but the first is told on the error output, where its loss was.
    pub fn connected(&mut self) {
        self.connections += 1;
        if self.connections > 1 {
            self.note(format_args!("connected again"));
        }
    }

    /// Prints an event and remembers its id.
    pub fn event(&mut self, event: &Received) -> Result<(), Ended> {
        if !event.id.is_empty() {
            self.set_cursor(&event.id);
        }
        let printed = match self.format {
            Format::Data => writeln!(self.out, "{}", event.data),
            Format::Json => json_line(event).and_then(|line| writeln!(self.out, "{line}")),
        };
        match printed.and_then(|()| self.out.flush()) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Err(Ended::Done),
            Err(error) => return Err(Ended::ForGood(anyhow::Error::new(error).context("events can't be printed"))),
        }
        if let Some(wanted) = &mut self.wanted {
            *wanted = wanted.saturating_sub(1);
            if *wanted == 0 {
                return Err(Ended::Done);
            }
        }
        Ok(())
    }

    /// Announces a gap on the error output.
    pub fn gap(&mut self, gap: &Gap) {
        let reason = gap.reason.as_deref().unwrap_or("unknown reason");
        self.note(format_args!("gap: events of {} are lost ({reason})", gap.channels.join(", ")));
    }

    /// Says something on the error output; control characters of the other side are not passed to the terminal.
    pub fn note(&mut self, text: fmt::Arguments<'_>) {
        let text: String = text.to_string().chars().filter(|c| !c.is_control()).collect();
        // Nothing can be said when the error output is gone, and events go on.
        let _ = writeln!(self.notes, "pushbridge: {text}");
    }
}

/// What is known about a gap.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Deserialize)]
pub struct Gap {
    /// Whose events are lost.
    #[serde(default)]
    pub channels: Vec<String>,
    /// Why.
    #[serde(default)]
    pub reason: Option<String>,
}

fn json_line(event: &Received) -> io::Result<String> {
    #[derive(serde::Serialize)]
    struct Line<'a> {
        id: &'a str,
        event: Option<&'a str>,
        data: DataOut<'a>,
    }
    #[derive(serde::Serialize)]
    #[serde(untagged)]
    enum DataOut<'a> {
        Json(&'a RawValue),
        Text(&'a str),
    }
    let structured = event.data.starts_with(['{', '[']) && !event.data.contains(['\n', '\r']);
    let json = if structured { serde_json::from_str::<&RawValue>(&event.data).ok() } else { None };
    let data = json.map_or(DataOut::Text(&event.data), DataOut::Json);
    Ok(serde_json::to_string(&Line { id: &event.id, event: event.event.as_deref(), data })?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(format: Format, data: &str, printed: &str) {
        let (mut out, mut notes) = (Vec::new(), Vec::new());
        let mut reader = Reader::new(String::new(), format, None, &mut out, &mut notes);
        let event = Received { id: "c1".into(), event: Some("price".into()), data: data.into() };
        assert!(reader.event(&event).is_ok());
        assert_eq!(reader.cursor(), "c1");
        assert_eq!(String::from_utf8(out).expect("text"), printed);
    }

    #[test]
    fn events_are_printed_as_data_or_json() {
        check(Format::Data, "a\nb", "a\nb\n");
        check(Format::Json, "a\nb", "{\"id\":\"c1\",\"event\":\"price\",\"data\":\"a\\nb\"}\n");
        check(
            Format::Json,
            "{\"z\":1.10,\"a\":2}",
            "{\"id\":\"c1\",\"event\":\"price\",\"data\":{\"z\":1.10,\"a\":2}}\n",
        );
        check(Format::Json, "[1,\n2]", "{\"id\":\"c1\",\"event\":\"price\",\"data\":\"[1,\\n2]\"}\n");
        check(Format::Json, "{broken", "{\"id\":\"c1\",\"event\":\"price\",\"data\":\"{broken\"}\n");
        check(Format::Json, "12", "{\"id\":\"c1\",\"event\":\"price\",\"data\":\"12\"}\n");
    }

    #[test]
    fn the_wanted_count_ends_it() {
        let (mut out, mut notes) = (Vec::new(), Vec::new());
        let mut reader = Reader::new(String::new(), Format::Data, Some(2), &mut out, &mut notes);
        assert!(reader.event(&Received::default()).is_ok());
        assert!(matches!(reader.event(&Received::default()), Err(Ended::Done)));
    }

    #[test]
    fn gaps_are_told_on_the_error_output_without_control_characters() {
        let (mut out, mut notes) = (Vec::new(), Vec::new());
        let mut reader = Reader::new(String::new(), Format::Data, None, &mut out, &mut notes);
        reader.gap(&Gap { channels: vec!["a".into(), "b\u{1b}[2J".into()], reason: Some("evicted".into()) });
        assert_eq!(String::from_utf8(notes).expect("text"), "pushbridge: gap: events of a, b[2J are lost (evicted)\n");
        assert!(out.is_empty());
    }
}
