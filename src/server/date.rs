//! The `Date` field (RFC 9110 §6.6.1).

use crate::clock::unix_ms;
use std::cell::RefCell;
use time::OffsetDateTime;

thread_local! {
    static CACHED: RefCell<(u64, String)> = const { RefCell::new((0, String::new())) };
}

/// The present time as an IMF-fixdate, written once a second for each worker.
pub fn http_date() -> String {
    with_date(str::to_owned)
}

/// Appends the same to a response's head.
pub fn push_http_date(out: &mut Vec<u8>) {
    with_date(|text| out.extend_from_slice(text.as_bytes()));
}

fn with_date<T>(then: impl FnOnce(&str) -> T) -> T {
    let now_secs = unix_ms() / 1000;
    CACHED.with_borrow_mut(|(at_secs, text)| {
        if *at_secs != now_secs || text.is_empty() {
            *at_secs = now_secs;
            *text = format(now_secs);
        }
        then(text)
    })
}

fn format(unix_secs: u64) -> String {
    let now = OffsetDateTime::from_unix_timestamp(unix_secs as i64).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let day = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"][usize::from(now.weekday().number_days_from_monday())];
    let months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let month = months[usize::from(u8::from(now.month())) - 1];
    let (hour, minute, second) = now.to_hms();
    format!("{day}, {:02} {month} {} {hour:02}:{minute:02}:{second:02} GMT", now.day(), now.year())
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_example_of_the_rfc() {
        assert_eq!(super::format(784_111_777), "Sun, 06 Nov 1994 08:49:37 GMT");
    }
}
