//! The page for people: what this instance is, how it does, and where to look further. No script, no other host.

use super::pages;
use crate::server::Response;
use crate::telemetry::metrics::Figures;
use crate::telemetry::readiness::Status;
use http::StatusCode;
use http::header::{CONTENT_SECURITY_POLICY, HeaderValue};
use parking_lot::Mutex;
use std::fmt::Write;
use std::time::Duration;
use tokio::time::Instant;

/// Messages a second between two looks at the page.
#[derive(Debug, Default)]
pub(super) struct Rate(Mutex<Option<Look>>);

#[derive(Debug, Clone, Copy)]
struct Look {
    at: Instant,
    published: u64,
    delivered: u64,
    per_second: PerSecond,
}

/// What [`Rate`] measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct PerSecond {
    published: u64,
    delivered: u64,
}

/// Looks that come sooner are shown the rate of the one before.
const LOOK_INTERVAL_MIN: Duration = Duration::from_secs(1);

impl Rate {
    /// The rate since the last look; zero at the first.
    fn look(&self, figures: Figures, now: Instant) -> PerSecond {
        let mut last = self.0.lock();
        let per_second = match *last {
            None => PerSecond::default(),
            Some(look) => {
                let since = now.saturating_duration_since(look.at);
                if since < LOOK_INTERVAL_MIN {
                    return look.per_second;
                }
                let rate = |count: u64, before: u64| (count.saturating_sub(before) as f64 / since.as_secs_f64()) as u64;
                PerSecond {
                    published: rate(figures.published, look.published),
                    delivered: rate(figures.delivered, look.delivered),
                }
            }
        };
        *last = Some(Look { at: now, published: figures.published, delivered: figures.delivered, per_second });
        per_second
    }
}

const HEAD: &str = r#"<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta http-equiv="refresh" content="5">
<title>pushbridge</title>
<style>
:root { color-scheme: light dark }
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 44rem; margin: 3rem auto; padding: 0 1rem }
dl { display: grid; grid-template-columns: repeat(auto-fill, minmax(9rem, 1fr)); gap: 1rem; margin: 2rem 0 }
dt { opacity: .7 }
dd { margin: 0; font-size: 1.5rem; font-variant-numeric: tabular-nums }
td { padding: .2rem 1.5rem .2rem 0 }
</style>
</head>
<body>
"#;

const PAGES: &str = r#"<table>
<tr><td><a href="/metrics">/metrics</a></td><td>everything counted, for Prometheus</td></tr>
<tr><td><a href="/config">/config</a></td><td>the running configuration, secrets masked</td></tr>
<tr><td><a href="/readyz">/readyz</a></td><td>whether new clients may come</td></tr>
<tr><td><a href="/livez">/livez</a></td><td>whether the process turns over</td></tr>
</table>
</body>
</html>
"#;

/// The page with these figures.
pub(super) fn page(figures: Figures, status: &Status, rate: &Rate) -> Response {
    let per_second = rate.look(figures, Instant::now());
    let mut html = String::from(HEAD);
    let commit = option_env!("PUSHBRIDGE_COMMIT").unwrap_or("unknown");
    // Writing to a String can't fail.
    let _ = writeln!(html, "<h1>pushbridge</h1>\n<p>{} ({commit}) is {}</p>", env!("CARGO_PKG_VERSION"), say(status));
    html.push_str("<dl>\n");
    for (name, value) in [
        ("sessions", figures.sessions),
        ("connections", figures.connections),
        ("channels", figures.channels),
        ("published a second", per_second.published),
        ("delivered a second", per_second.delivered),
        ("published", figures.published),
        ("delivered", figures.delivered),
    ] {
        let _ = writeln!(html, "<div><dt>{name}</dt><dd>{}</dd></div>", grouped(value));
    }
    html.push_str("</dl>\n");
    html.push_str(PAGES);
    let mut response = pages::page(StatusCode::OK, "text/html; charset=utf-8", html);
    let policy =
        "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";
    response.headers_mut().insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
    response
}

/// The status in words, as HTML.
fn say(status: &Status) -> String {
    match status {
        Status::Starting { waiting_for } => format!("starting: waiting for {}", escaped(&waiting_for.join(", "))),
        Status::Degraded { reason } => format!("degraded: {}", escaped(reason)),
        Status::Ready | Status::Draining => status.as_str().to_owned(),
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// A number in groups of three digits, parted by spaces.
fn grouped(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_that_between_two_looks() {
        let (rate, start) = (Rate::default(), Instant::now());
        let figures = |published, delivered| Figures { published, delivered, ..Figures::default() };
        let at = |ms| start + Duration::from_millis(ms);
        assert_eq!(rate.look(figures(50, 500), at(0)), PerSecond::default());
        assert_eq!(rate.look(figures(60, 600), at(999)), PerSecond::default(), "too soon");
        assert_eq!(rate.look(figures(70, 900), at(2000)), PerSecond { published: 10, delivered: 200 });
        assert_eq!(rate.look(figures(80, 999), at(2500)), PerSecond { published: 10, delivered: 200 }, "too soon");
        assert_eq!(rate.look(figures(70, 900), at(4000)), PerSecond::default());
    }

    #[test]
    fn numbers_are_grouped_by_thousands() {
        for (value, text) in [(0, "0"), (999, "999"), (1000, "1 000"), (1_234_567, "1 234 567")] {
            assert_eq!(grouped(value), text);
        }
    }
}
