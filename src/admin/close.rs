//! `/sessions/close`: sends the sessions of one route or channel away, spread over a window; they come back by
//! themselves, here or elsewhere.

use super::pages;
use crate::drain::{self, Selector};
use crate::hub::Hub;
use crate::hub::shard::EndOrder;
use crate::model::channel::ChannelName;
use crate::model::session::CloseReason;
use crate::proto::problem::Problem;
use crate::server::request_id::RequestId;
use crate::server::{Response, problem};
use http::StatusCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::timeout;

/// Over how long they end, unless the query says.
const WINDOW_MS: u64 = 30_000;
const WINDOW_MS_MAX: u64 = 3_600_000;
/// How long workers have to tell how many sessions they have.
const COUNT_WAIT: Duration = Duration::from_secs(5);

/// Plans the ends, and says how many there are.
pub(super) async fn post(hub: &Hub, query: &str) -> Response {
    let (selector, window_ms) = match read(query) {
        Ok(read) => read,
        Err(detail) => return problem::response(&Problem::new(StatusCode::BAD_REQUEST, detail), RequestId::next()),
    };
    tracing::info!(?selector, window_ms, "an operator closes sessions");
    let order = EndOrder { selector, reason: CloseReason::Operator, window_us: window_ms * 1000, seed: drain::seed() };
    let (tell, mut told) = mpsc::channel(hub.workers());
    // There is a place for each worker.
    let counted = move |sessions: usize| {
        let _ = tell.try_send(sessions);
    };
    hub.end_sessions(&order, &(Arc::new(counted) as _));
    let mut sessions = 0;
    for _ in 0..hub.workers() {
        match timeout(COUNT_WAIT, told.recv()).await {
            Ok(Some(of_worker)) => sessions += of_worker,
            Ok(None) | Err(_) => break,
        }
    }
    let text = format!("{{\"sessions\":{sessions},\"window_ms\":{window_ms}}}\n");
    pages::page(StatusCode::ACCEPTED, "application/json", text)
}

/// Which sessions, and over how long in milliseconds.
fn read(query: &str) -> Result<(Selector, u64), String> {
    let (mut selector, mut window_ms) = (None, WINDOW_MS);
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = percent_encoding::percent_decode_str(value).decode_utf8();
        let value = value.map_err(|_| format!("{key} is no UTF-8"))?;
        let selected = match key {
            "route" => Selector::Route(value.as_ref().into()),
            "channel" => Selector::Channel(ChannelName::new(&value).map_err(|error| format!("no channel: {error}"))?),
            "window" => {
                window_ms = window(&value).ok_or("window is a number with ms, s or m, up to 60m, such as 30s")?;
                continue;
            }
            _ => return Err("the query may have route or channel, and window; not what it has".to_owned()),
        };
        if selector.replace(selected).is_some() {
            return Err("give one of route and channel, once".to_owned());
        }
    }
    let selector = selector.ok_or("which sessions? ?route=NAME or ?channel=NAME, and &window=30s")?;
    Ok((selector, window_ms))
}

fn window(text: &str) -> Option<u64> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
    let factor = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor).filter(|ms| *ms <= WINDOW_MS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selector_and_a_window_are_read() {
        let route = Selector::Route("a b".into());
        assert_eq!(read("route=a%20b"), Ok((route.clone(), 30_000)));
        assert_eq!(read("window=250ms&route=a%20b&"), Ok((route, 250)));
        let channel = Selector::Channel(ChannelName::new("prices.ACME").expect("a name"));
        assert_eq!(read("channel=prices.ACME&window=60m"), Ok((channel, 3_600_000)));
    }

    #[test]
    fn windows_are_bounded() {
        for text in ["", "s", "5", "5d", "61m", "99999999999999999999s", "-1s"] {
            assert_eq!(window(text), None, "{text}");
        }
    }
}
