//! Which transport a request's `Accept` asks for (RFC 9110 §12.5.1).

use crate::model::session::Transport;

/// The first of `offered` that `accept` wants most; `None` if it wants none of them. WebSockets are never chosen:
/// they are asked for by an upgrade.
///
/// Each transport's weight is that of the most specific range that covers its media type: `text/event-stream` or
/// `application/json`, then `text/*` or `application/*`, then `*/*`. Of equal weights the more specific range wins,
/// then the order of `offered`.
pub fn choose(accept: Option<&str>, offered: &[Transport]) -> Option<Transport> {
    let mut held = offered.iter().copied().filter(|transport| *transport != Transport::WebSocket);
    let Some(accept) = accept.filter(|accept| !accept.trim().is_empty()) else { return held.next() };
    if accept == "text/event-stream" {
        // As every EventSource asks (WHATWG HTML §9.2.3).
        return held.find(|transport| *transport == Transport::Sse);
    }
    let mut best: Option<((u16, u8), Transport)> = None;
    for transport in held {
        let (kind, subtype) = match transport {
            Transport::LongPoll => ("application", "json"),
            Transport::Sse | Transport::WebSocket => ("text", "event-stream"),
        };
        let Some((specificity, weight)) = weight(accept, kind, subtype) else { continue };
        let rank = (weight, specificity);
        if weight > 0 && best.is_none_or(|(known, _)| rank > known) {
            best = Some((rank, transport));
        }
    }
    best.map(|(_, transport)| transport)
}

/// The most specific range that covers the type: how specific it is (1 to 3), and its weight in thousandths.
fn weight(accept: &str, kind: &str, subtype: &str) -> Option<(u8, u16)> {
    let mut found: Option<(u8, u16)> = None;
    for item in accept.split(',') {
        let mut parts = item.split(';').map(str::trim);
        let Some((range_kind, range_subtype)) = parts.next().and_then(|range| range.split_once('/')) else { continue };
        let specificity = match (range_kind, range_subtype) {
            ("*", "*") => 1,
            (range, "*") if range.eq_ignore_ascii_case(kind) => 2,
            (range, sub) if range.eq_ignore_ascii_case(kind) && sub.eq_ignore_ascii_case(subtype) => 3,
            _ => continue,
        };
        let weight = parts
            .filter_map(|parameter| parameter.split_once('='))
            .find(|(name, _)| name.trim().eq_ignore_ascii_case("q"))
            .map_or(1000, |(_, value)| thousandths(value.trim()));
        if found.is_none_or(|(known, _)| specificity > known) {
            found = Some((specificity, weight));
        }
    }
    found
}

/// A weight such as `0.8`; nonsense counts as 0.
fn thousandths(text: &str) -> u16 {
    match text.parse::<f32>() {
        Ok(weight) if (0.0..=1.0).contains(&weight) => (weight * 1000.0).round() as u16,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Transport::{LongPoll, Sse, WebSocket};
    use proptest::prelude::*;

    #[track_caller]
    fn check(accept: Option<&str>, offered: &[Transport], expected: Option<Transport>) {
        assert_eq!(choose(accept, offered), expected, "{accept:?}");
    }

    #[test]
    fn the_accept_field_chooses() {
        let all = [WebSocket, Sse, LongPoll];
        check(None, &all, Some(Sse));
        check(Some("*/*"), &all, Some(Sse));
        check(Some("*/*"), &[LongPoll, Sse], Some(LongPoll));
        check(Some("text/event-stream"), &all, Some(Sse));
        check(Some("application/json"), &all, Some(LongPoll));
        check(Some("Application/JSON; charset=utf-8"), &all, Some(LongPoll));
        check(Some("text/*"), &all, Some(Sse));
        check(Some("application/json, text/plain, */*"), &all, Some(LongPoll));
        check(Some("text/event-stream;q=0.5, application/json;q=0.9"), &all, Some(LongPoll));
        check(Some("application/json;q=0, */*"), &[LongPoll, Sse], Some(Sse));
        check(Some("text/html,application/xhtml+xml,*/*;q=0.8"), &all, Some(Sse));
        check(Some("image/png"), &all, None);
        check(Some("text/event-stream"), &[LongPoll], None);
        check(Some("*/*;q=0"), &all, None);
        check(Some("*/*"), &[WebSocket], None);
    }

    proptest! {
        #[test]
        fn any_text_is_answered(accept in ".{0,60}") {
            let _ = choose(Some(&accept), &[Sse, LongPoll]);
        }
    }
}
