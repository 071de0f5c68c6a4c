//! `/drain`: begins a drain, tells how far it is, takes it back.

use super::pages;
use crate::drain::{Drain, Phase};
use crate::hub::Hub;
use crate::proto::problem::Problem;
use crate::server::request_id::RequestId;
use crate::server::{Response, problem};
use http::StatusCode;
use serde_json::json;

/// What a POST asks for.
enum Wish {
    /// Begin, and say so at once.
    Begin,
    /// Begin, and answer when nobody is left.
    Wait,
    /// Take it back.
    Cancel,
}

/// How far the drain is.
pub(super) fn get(drain: &Drain, hub: &Hub) -> Response {
    status(StatusCode::OK, drain, hub)
}

/// Does what `query` says: nothing, `wait` or `cancel`.
pub(super) async fn post(drain: &Drain, hub: &Hub, query: &str) -> Response {
    match wish(query) {
        Ok(Wish::Begin) => {
            drain.request();
            status(StatusCode::ACCEPTED, drain, hub)
        }
        Ok(Wish::Wait) => {
            drain.request();
            let mut state = drain.watch();
            let _ = state.wait_for(|state| state.closed || state.phase == Phase::Serving).await;
            match drain.phase() {
                Phase::Serving => refused(StatusCode::CONFLICT, "the drain was taken back"),
                _ => status(StatusCode::OK, drain, hub),
            }
        }
        Ok(Wish::Cancel) => match drain.cancel() {
            Ok(()) => status(StatusCode::OK, drain, hub),
            Err(error) => refused(StatusCode::CONFLICT, &error.to_string()),
        },
        Err(detail) => refused(StatusCode::BAD_REQUEST, detail),
    }
}

fn wish(query: &str) -> Result<Wish, &'static str> {
    let (mut wait, mut cancel) = (false, false);
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        match pair.split('=').next() {
            Some("wait") => wait = true,
            Some("cancel") => cancel = true,
            _ => return Err("the query may be ?wait or ?cancel"),
        }
    }
    match (wait, cancel) {
        (false, false) => Ok(Wish::Begin),
        (true, false) => Ok(Wish::Wait),
        (false, true) => Ok(Wish::Cancel),
        (true, true) => Err("the query may be ?wait or ?cancel, not both"),
    }
}

fn status(code: StatusCode, drain: &Drain, hub: &Hub) -> Response {
    let settings = drain.settings();
    // Written out, so that the fields keep this order.
    let text = format!(
        "{{\"phase\":{},\"sessions\":{},\"settle_ms\":{},\"spread_ms\":{},\"margin_ms\":{}}}\n",
        json!(drain.phase().as_str()),
        hub.sessions(),
        settings.settle.as_millis(),
        settings.spread.as_millis(),
        settings.margin.as_millis(),
    );
    pages::page(code, "application/json", text)
}

fn refused(code: StatusCode, detail: &str) -> Response {
    problem::response(&Problem::new(code, detail), RequestId::next())
}
