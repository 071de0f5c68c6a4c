//! A push route's events as a client reads them: an event stream frame by frame, or long polls one after the other.

use crate::support::client::{Http, Stream, get, open, send};
use std::net::SocketAddr;

/// One event of an event stream.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Frame {
    /// Its cursor.
    pub id: String,
    /// Its name; empty if it has none.
    pub event: String,
    /// Its data lines, joined.
    pub data: String,
}

/// An open event stream.
pub struct Events {
    stream: Stream,
    /// The cursor that the stream gave last.
    pub cursor: String,
}

impl Events {
    /// Opens one, and reads its opening: from then on nothing is missed.
    pub async fn open(version: Http, to: SocketAddr, path: &str, fields: &[(&str, &str)]) -> Self {
        let fields = [&[("accept", "text/event-stream")], fields].concat();
        let response = open(version, to, get(to, path, &fields)).await;
        assert_eq!(response.status(), 200);
        let mut events = Self { stream: Stream::of(response), cursor: String::new() };
        let opening = events.frame().await;
        assert_eq!((opening.event.as_str(), opening.data.as_str()), ("", ""));
        events
    }

    /// The next event; comments are skipped.
    pub async fn next(&mut self) -> Frame {
        loop {
            let frame = self.frame().await;
            if frame != Frame::default() {
                return frame;
            }
        }
    }

    /// The data of the next `count` events, none of which is a gap.
    pub async fn data(&mut self, count: usize) -> Vec<String> {
        let mut all = Vec::with_capacity(count);
        for _ in 0..count {
            let frame = self.next().await;
            assert_ne!(frame.event, "gap", "after {:?}: {frame:?}", all.last());
            all.push(frame.data);
        }
        all
    }

    async fn frame(&mut self) -> Frame {
        let text = self.stream.until("\n\n").await;
        let mut frame = Frame::default();
        let mut data = Vec::new();
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with(':')) {
            let (name, value) = line.split_once(": ").or_else(|| line.split_once(':')).unwrap_or((line, ""));
            match name {
                "id" => frame.id = value.to_owned(),
                "event" => frame.event = value.to_owned(),
                "data" => data.push(value),
                "retry" => {}
                other => panic!("a field {other:?} in {text:?}"),
            }
        }
        frame.data = data.join("\n");
        if !frame.id.is_empty() {
            self.cursor.clone_from(&frame.id);
        }
        frame
    }
}

/// A client that polls: its cursor and the texts of its answers.
pub struct Polls {
    version: Http,
    to: SocketAddr,
    path: String,
    cursor: String,
}

impl Polls {
    /// Fixes the place where it begins.
    pub async fn begin(version: Http, to: SocketAddr, path: &str) -> Self {
        let fields = [("accept", "application/json"), ("prefer", "wait=0")];
        let answer = send(version, to, get(to, path, &fields)).await;
        assert_eq!(answer.status, 204);
        Self { version, to, path: path.to_owned(), cursor: answer.field("etag").to_owned() }
    }

    /// The next answer with something in it, as it was written and as JSON.
    pub async fn next(&mut self) -> (String, serde_json::Value) {
        loop {
            let fields = [("accept", "application/json"), ("if-none-match", self.cursor.as_str())];
            let answer = send(self.version, self.to, get(self.to, &self.path, &fields)).await;
            answer.field("etag").clone_into(&mut self.cursor);
            if answer.status == 200 {
                return (answer.text().to_owned(), answer.json());
            }
            assert_eq!(answer.status, 204);
        }
    }
}
