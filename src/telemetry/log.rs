//! Structured logs on stderr.
//!
//! A bare level holds for pushbridge itself; other crates keep to warnings, since at `trace` they would write out what
//! must never be in a log: fields, tokens, payloads.

use tracing::Subscriber;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

/// The checked `telemetry` section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSettings {
    /// How lines are written.
    pub format: LogFormat,
    /// The least level, such as `info`, or a filter such as `info,pushbridge::session=debug`.
    pub level: String,
    /// Whether each request leaves a line.
    pub access_log: AccessLog,
}

/// Whether each request leaves a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccessLog {
    /// One line for each request or session, at its end.
    On,
    /// None.
    Off,
}

/// Why a text is no level or filter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// A part without `=` that is no level.
    #[error(
        "{0:?} is no log level; use error, warn, info, debug, trace or off, or a filter such as \"info,pushbridge::session=debug\""
    )]
    Level(String),
    /// A part that can't be read.
    #[error("{0:?} is no log filter: {1}")]
    Directive(String, String),
}

/// Checks `level` as [`LogSettings`] takes it.
///
/// # Errors
/// When a part is neither a level nor `target=level`.
pub fn check_level(level: &str) -> Result<(), FilterError> {
    for part in level.split(',') {
        let part = part.trim();
        // An empty text parses as a level, too.
        if part.is_empty() || !part.contains('=') && part.parse::<LevelFilter>().is_err() {
            return Err(FilterError::Level(part.chars().take(64).collect()));
        }
    }
    EnvFilter::try_new(level).map(drop).map_err(|error| FilterError::Directive(level.to_owned(), error.to_string()))
}

/// Starts logging for the whole process; a second call changes nothing.
pub fn start(settings: &LogSettings) {
    use tracing_subscriber::util::SubscriberInitExt;
    let _ = match settings.format {
        LogFormat::Json => json(settings, std::io::stderr).try_init(),
        LogFormat::Text => text(settings, std::io::stderr).try_init(),
    };
}

fn json<W>(settings: &LogSettings, writer: W) -> impl Subscriber + Send + Sync + use<W>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    tracing_subscriber::fmt()
        .with_env_filter(filter(settings))
        .with_writer(writer)
        .json()
        .flatten_event(true)
        .with_current_span(false)
        .with_span_list(false)
        .finish()
}

fn text<W>(settings: &LogSettings, writer: W) -> impl Subscriber + Send + Sync + use<W>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    tracing_subscriber::fmt()
        .with_env_filter(filter(settings))
        .with_writer(writer)
        .with_target(false)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .finish()
}

/// The filter by the settings. What can't be read is `info`: [`check_level`] has told of it before.
fn filter(settings: &LogSettings) -> EnvFilter {
    let level = if check_level(&settings.level).is_ok() { settings.level.trim() } else { "info" };
    let mut directives = match level.parse::<LevelFilter>() {
        Ok(LevelFilter::OFF) => "off".to_owned(),
        Ok(LevelFilter::ERROR) => "error".to_owned(),
        Ok(_) => format!("warn,pushbridge={level}"),
        Err(_) => level.to_owned(),
    };
    directives.push_str(match settings.access_log {
        AccessLog::On => "",
        AccessLog::Off => ",pushbridge::access=off",
    });
    EnvFilter::try_new(&directives).unwrap_or_else(|_| EnvFilter::new("info"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::channel::ChannelName;
    use crate::model::message::{Data, Message};
    use crate::model::secret::Secret;
    use crate::telemetry::access::Line;
    use parking_lot::Mutex;
    use std::io::{self, Write};
    use std::sync::Arc;
    use std::time::Duration;

    /// Keeps what is logged.
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What `act` logs under these settings.
    fn logged(format: LogFormat, level: &str, access_log: AccessLog, act: impl FnOnce()) -> String {
        let lines = Lines::default();
        let settings = LogSettings { format, level: level.to_owned(), access_log };
        let made = lines.clone();
        let writer = move || made.clone();
        match format {
            LogFormat::Json => tracing::subscriber::with_default(json(&settings, writer), act),
            LogFormat::Text => tracing::subscriber::with_default(text(&settings, writer), act),
        }
        let bytes = lines.0.lock().clone();
        String::from_utf8(bytes).expect("UTF-8")
    }

    fn access_line() {
        Line {
            client: ([192, 0, 2, 1], 4711).into(),
            method: &http::Method::GET,
            path: "/prices/ACME?access_token=hunter2",
            route: Some("prices"),
            status: Some(200),
            bytes: None,
            duration: Duration::from_micros(1500),
            request_id: &"00c0ffee",
            protocol: "h2",
        }
        .emit();
    }

    #[test]
    fn an_access_line_is_one_flat_json_object() {
        let line = logged(LogFormat::Json, "info", AccessLog::On, access_line);
        let mut value: serde_json::Value = serde_json::from_str(&line).expect("one JSON object");
        value.as_object_mut().expect("an object").remove("timestamp").expect("a timestamp");
        assert_eq!(
            value,
            serde_json::json!({
                "level": "INFO", "target": "pushbridge::access", "message": "request", "client.addr": "192.0.2.1:4711",
                "method": "GET", "path": "/prices/ACME", "route": "prices", "status": 200, "duration_ms": 1.5,
                "request_id": "00c0ffee", "protocol": "h2"
            })
        );
    }

    #[test]
    fn queries_payloads_and_secrets_never_show() {
        let act = || {
            access_line();
            let message = Message {
                channel: ChannelName::new("prices").expect("a name"),
                id: None,
                event: None,
                data: Data::Text("hunter2".into()),
                cloudevent: None,
                grip: None,
            };
            tracing::trace!(?message, secret = ?Secret::new(b"hunter2".to_vec()), "published");
        };
        for format in [LogFormat::Json, LogFormat::Text] {
            let lines = logged(format, "trace", AccessLog::On, act);
            assert_eq!(lines.lines().count(), 2, "{lines}");
            assert!(lines.contains("/prices/ACME") && !lines.contains("hunter2"), "{lines}");
        }
    }

    #[test]
    fn the_access_log_can_be_off_while_the_rest_is_on() {
        let lines = logged(LogFormat::Text, "trace", AccessLog::Off, || {
            assert!(!Line::enabled());
            access_line();
            tracing::info!("listening");
        });
        assert!(lines.contains("listening") && !lines.contains("request"), "{lines}");
    }

    #[test]
    fn a_bare_level_keeps_other_crates_to_warnings() {
        let lines = logged(LogFormat::Text, "trace", AccessLog::On, || {
            tracing::trace!(target: "h2::frame", "fields of a request");
            tracing::warn!(target: "h2", "worth knowing");
        });
        assert!(lines.contains("worth knowing") && !lines.contains("fields"), "{lines}");
        let lines = logged(LogFormat::Text, "info,h2=trace", AccessLog::On, || {
            tracing::trace!(target: "h2::frame", "asked for");
        });
        assert!(lines.contains("asked for"), "{lines}");
    }

    #[test]
    fn a_mistyped_level_is_an_error() {
        for level in ["info", "off", "WARN", "info,pushbridge::session=debug"] {
            assert_eq!(check_level(level), Ok(()), "{level}");
        }
        for level in ["inof", "", "info,", "info,pushbridge::session=dbug", "a=b=c"] {
            assert!(check_level(level).is_err(), "{level}");
        }
    }
}
