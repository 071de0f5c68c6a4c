//! The access log: one line for each request or session, at its end.
//!
//! A line never has the query, a payload or a header field: tokens travel in them.

use crate::clock::unix_ms;
use crate::proto::decimal::{push_decimal, push_padded, push_socket};
use crate::proto::json::push_string;
use crate::telemetry::log::LogFormat;
use std::cell::RefCell;
use std::fmt::{Display, Write as _};
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::sync::OnceLock;
use std::time::Duration;
use time::OffsetDateTime;

/// The target of access lines, for filters.
pub const TARGET: &str = "pushbridge::access";

/// The most of a path that is logged, in bytes.
const PATH_BYTES_MAX: usize = 1024;

/// What a line says.
#[derive(Clone, Copy)]
pub struct Line<'a> {
    /// Whom the request came from: the client, as far as trusted proxies tell.
    pub client: SocketAddr,
    /// The request's method.
    pub method: &'a http::Method,
    /// The request's target; all from the first `?` on is left out.
    pub path: &'a str,
    /// The route's name, if one was found.
    pub route: Option<&'a str>,
    /// The response's status; `None` if the client went before there was one.
    pub status: Option<u16>,
    /// Bytes of the response's body, if they were counted.
    pub bytes: Option<u64>,
    /// From the request's head to the end of the response.
    pub duration: Duration,
    /// The request's id.
    pub request_id: &'a dyn Display,
    /// `http/1.1` or `h2`.
    pub protocol: &'a str,
}

/// Lines gather in each worker until there are so many bytes, or until [`flush`]: a write for each line would cost more
/// than all else that a small request does.
const GATHERED_BYTES_MAX: usize = 16 * 1024;

/// How lines are written: as the log was started, for the whole process.
static FORMAT: OnceLock<LogFormat> = OnceLock::new();

thread_local! {
    static GATHERED: RefCell<String> = const { RefCell::new(String::new()) };
    static SECOND: RefCell<(u64, String)> = const { RefCell::new((0, String::new())) };
}

impl Line<'_> {
    /// Writes the line, if the access log is on; else it costs one look at a flag. It is seen after the next [`flush`].
    pub fn emit(&self) {
        if !Self::enabled() {
            return;
        }
        let full = GATHERED.with_borrow_mut(|lines| {
            match FORMAT.get().unwrap_or(&LogFormat::Json) {
                LogFormat::Json => self.push_json(lines, unix_ms()),
                LogFormat::Text => self.push_text(lines, unix_ms()),
            }
            lines.len() >= GATHERED_BYTES_MAX
        });
        if full {
            flush();
        }
    }

    /// Whether lines are written at all, for callers that would have to prepare one.
    pub fn enabled() -> bool {
        tracing::enabled!(target: TARGET, tracing::Level::INFO)
    }

    /// The same fields, in the same form, as all other log lines have.
    fn push_json(&self, out: &mut String, now_ms: u64) {
        out.push_str("{\"timestamp\":\"");
        push_timestamp(out, now_ms);
        out.push_str("\",\"level\":\"INFO\",\"message\":\"request\",\"client.addr\":\"");
        push_socket(out, self.client);
        out.push_str("\",\"method\":");
        push_string(out, self.method.as_str());
        out.push_str(",\"path\":");
        push_string(out, loggable(self.path));
        if let Some(route) = self.route {
            out.push_str(",\"route\":");
            push_string(out, route);
        }
        if let Some(status) = self.status {
            out.push_str(",\"status\":");
            push_decimal(out, status.into());
        }
        if let Some(bytes) = self.bytes {
            out.push_str(",\"bytes\":");
            push_decimal(out, bytes);
        }
        out.push_str(",\"duration_ms\":");
        push_milliseconds(out, self.duration);
        // Writing into memory does not fail.
        let _ = write!(out, ",\"request_id\":\"{}", self.request_id);
        out.push_str("\",\"protocol\":\"");
        out.push_str(self.protocol);
        out.push_str("\",\"target\":\"");
        out.push_str(TARGET);
        out.push_str("\"}\n");
    }

    fn push_text(&self, out: &mut String, now_ms: u64) {
        push_timestamp(out, now_ms);
        out.push_str("  INFO request client.addr=");
        push_socket(out, self.client);
        let _ = write!(out, " method={} path={:?}", self.method, loggable(self.path));
        if let Some(route) = self.route {
            let _ = write!(out, " route={route:?}");
        }
        if let Some(status) = self.status {
            let _ = write!(out, " status={status}");
        }
        if let Some(bytes) = self.bytes {
            let _ = write!(out, " bytes={bytes}");
        }
        out.push_str(" duration_ms=");
        push_milliseconds(out, self.duration);
        let _ = writeln!(out, " request_id={} protocol={:?}", self.request_id, self.protocol);
    }
}

/// Lines are written in this form from now on; the first call counts.
pub(super) fn set_format(format: LogFormat) {
    let _ = FORMAT.set(format);
}

/// Writes this worker's lines to stderr; called a few times a second, and at the worker's end.
pub fn flush() {
    GATHERED.with_borrow_mut(|lines| {
        if !lines.is_empty() {
            // Nobody can be told that the log can't be written.
            let _ = io::stderr().write_all(lines.as_bytes());
            lines.clear();
            lines.shrink_to(GATHERED_BYTES_MAX);
        }
    });
}

/// RFC 3339, in milliseconds; the part up to the second is made once a second.
fn push_timestamp(out: &mut String, now_ms: u64) {
    SECOND.with_borrow_mut(|(second, text)| {
        if *second != now_ms / 1000 || text.is_empty() {
            *second = now_ms / 1000;
            let now = OffsetDateTime::from_unix_timestamp(*second as i64).unwrap_or(OffsetDateTime::UNIX_EPOCH);
            let (year, month, day) = now.to_calendar_date();
            let (hour, minute, second) = now.to_hms();
            *text = format!("{year:04}-{:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.", u8::from(month));
        }
        out.push_str(text);
    });
    push_padded(out, now_ms % 1000, 3);
    out.push('Z');
}

fn push_milliseconds(out: &mut String, duration: Duration) {
    push_decimal(out, duration.as_millis() as u64);
    out.push('.');
    push_padded(out, u64::from(duration.subsec_micros() % 1000), 3);
}

/// The path without its query, cut to [`PATH_BYTES_MAX`] at a character's border.
fn loggable(path: &str) -> &str {
    let path = path.split(['?', '#']).next().unwrap_or_default();
    path.get(..path.floor_char_boundary(PATH_BYTES_MAX)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line<'a>(method: &'a http::Method, path: &'a str) -> Line<'a> {
        Line {
            client: ([127, 0, 0, 1], 5).into(),
            method,
            path,
            route: Some("r\"1"),
            status: Some(200),
            bytes: None,
            duration: Duration::from_micros(1_234_567),
            request_id: &"0f",
            protocol: "h2",
        }
    }

    #[test]
    fn a_line_is_json_with_the_fields_of_all_lines() {
        let mut out = String::new();
        line(&http::Method::GET, "/a\"b?token=secret").push_json(&mut out, 784_111_777_089);
        let json: serde_json::Value = serde_json::from_str(&out).expect("JSON");
        assert_eq!(
            json,
            serde_json::json!({
                "timestamp": "1994-11-06T08:49:37.089Z", "level": "INFO", "message": "request",
                "client.addr": "127.0.0.1:5", "method": "GET", "path": "/a\"b", "route": "r\"1", "status": 200,
                "duration_ms": 1234.567, "request_id": "0f", "protocol": "h2", "target": "pushbridge::access"
            })
        );
    }

    #[test]
    fn a_line_for_people_has_them_too() {
        let mut out = String::new();
        line(&http::Method::GET, "/a").push_text(&mut out, 784_111_777_089);
        assert_eq!(
            out,
            "1994-11-06T08:49:37.089Z  INFO request client.addr=127.0.0.1:5 method=GET path=\"/a\" route=\"r\\\"1\" \
             status=200 duration_ms=1234.567 request_id=0f protocol=\"h2\"\n"
        );
    }

    #[test]
    fn a_path_loses_its_query_and_its_length() {
        assert_eq!(loggable("/prices/a?token=secret"), "/prices/a");
        assert_eq!(loggable("?token=secret"), "");
        let long = format!("/{}é", "x".repeat(PATH_BYTES_MAX - 2));
        assert_eq!(loggable(&long).len(), PATH_BYTES_MAX - 1);
    }
}
