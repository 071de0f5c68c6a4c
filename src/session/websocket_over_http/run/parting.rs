//! What a bridged session leaves behind.

use super::Run;
use super::keeping::Kept;
use crate::model::session::CloseReason;
use crate::session::websocket_over_http::seams::{Feed, Wire};
use std::time::Duration;

/// How long a session waits for its backend to hear of the end; a task of its own waits on.
const FAREWELL: Duration = Duration::from_secs(1);

/// What is left to do for a session that has ended.
pub(super) async fn part<W: Wire, F: Feed>(run: Run<W, F>, kept: Kept, reason: CloseReason) {
    let Run { wire, subscriptions, mut exchange, .. } = run;
    tracing::debug!(session.id = exchange.connection_id(), reason = reason.as_str(), "session ended");
    drop(wire);
    // A drain ends when there are no more sessions: without channels this one stays until its backend was told.
    let _place = subscriptions.leave();
    // Dropped before they are done, both go on in tasks of their own.
    let kept = async {
        if let Some(kept) = kept {
            let _ = kept.await;
        }
    };
    let _ = tokio::join!(tokio::time::timeout(FAREWELL, exchange.finish()), kept);
}
