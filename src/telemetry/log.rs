//! Structured logs on stderr.
//!
//! A bare level holds for pushbridge itself; other crates keep to warnings, since at `trace` they would write out what
//! must never be in a log: fields, tokens, payloads.

use std::fmt;
use std::io::IsTerminal as _;
use std::sync::Arc;
use tracing::Subscriber;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::reload;

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

/// The level of a log that has started; clones change the same one.
#[derive(Clone)]
pub struct LogLevel(Arc<dyn Fn(EnvFilter) + Send + Sync>);

impl LogLevel {
    /// Adopts the level and the access log of other settings; the format stays.
    pub fn adopt(&self, settings: &LogSettings) {
        (self.0)(filter(settings));
    }

    fn of<S: 'static>(handle: reload::Handle<EnvFilter, S>) -> Self {
        // It fails only when the log is gone, and then there is nothing to change.
        Self(Arc::new(move |filter| drop(handle.reload(filter))))
    }
}

impl fmt::Debug for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogLevel").finish_non_exhaustive()
    }
}

/// Starts logging for the whole process; a second call starts nothing, and its level changes nothing.
pub fn start(settings: &LogSettings) -> LogLevel {
    use tracing_subscriber::util::SubscriberInitExt;
    crate::telemetry::access::set_format(settings.format);
    let (subscriber, level) = subscriber(settings, std::io::stderr);
    let _ = subscriber.try_init();
    level
}

fn subscriber<W>(settings: &LogSettings, writer: W) -> (Box<dyn Subscriber + Send + Sync>, LogLevel)
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let builder = tracing_subscriber::fmt().with_env_filter(filter(settings)).with_writer(writer);
    match settings.format {
        LogFormat::Json => {
            let builder = builder.json().flatten_event(true).with_current_span(false).with_span_list(false);
            let builder = builder.with_filter_reloading();
            let level = LogLevel::of(builder.reload_handle());
            (Box::new(builder.finish()), level)
        }
        LogFormat::Text => {
            let builder = builder.with_target(false).with_ansi(std::io::stderr().is_terminal()).with_filter_reloading();
            let level = LogLevel::of(builder.reload_handle());
            (Box::new(builder.finish()), level)
        }
    }
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
        tracing::subscriber::with_default(subscriber(&settings, writer).0, act);
        let bytes = lines.0.lock().clone();
        String::from_utf8(bytes).expect("UTF-8")
    }

    #[test]
    fn payloads_and_secrets_never_show() {
        let act = || {
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
            assert_eq!(lines.lines().count(), 1, "{lines}");
            assert!(lines.contains("published") && !lines.contains("hunter2"), "{lines}");
        }
    }

    #[test]
    fn the_access_log_can_be_off_while_the_rest_is_on() {
        let lines = logged(LogFormat::Text, "trace", AccessLog::Off, || {
            assert!(!Line::enabled());
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
    fn the_level_of_a_started_log_can_be_changed() {
        for format in [LogFormat::Json, LogFormat::Text] {
            let lines = Lines::default();
            let made = lines.clone();
            let mut settings = LogSettings { format, level: "warn".to_owned(), access_log: AccessLog::On };
            let (subscriber, level) = subscriber(&settings, move || made.clone());
            tracing::subscriber::with_default(subscriber, || {
                tracing::info!("before");
                settings.level = "info".to_owned();
                level.adopt(&settings);
                tracing::info!("after");
                settings.access_log = AccessLog::Off;
                level.adopt(&settings);
                assert!(!Line::enabled());
            });
            let text = String::from_utf8(lines.0.lock().clone()).expect("UTF-8");
            assert!(text.contains("after") && !text.contains("before"), "{text}");
        }
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
