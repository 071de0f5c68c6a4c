//! Which URLs said that they take events: each is asked before its first event, and again after a failure.
//!
//! One worker's; whoever comes while a URL is being asked waits for the same answer. A denial is not kept: the next
//! event asks again.

use crate::proto::websocket_cloudevents::validation::{self, Denied};
use crate::session::websocket_cloudevents::handler::Handler;
use crate::session::websocket_over_http::BackendError;
use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::{LocalBoxFuture, Shared};
use http::Method;
use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// The most URLs that are remembered; one that is forgotten is asked again.
pub const URLS_MAX: usize = 1000;
/// How long a URL's word holds.
pub const HOLDS_FOR: Duration = Duration::from_secs(60 * 60);
/// How long a URL may take to say it.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// What stands for `{event}` in the URL that is asked.
const EVENT: &str = "validate";

/// The URLs that a worker knows of.
#[derive(Default)]
pub struct Validations {
    known: RefCell<HashMap<Url, Known>>,
}

/// Where events go, and who they say they are from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Url {
    /// The upstream's name.
    pub upstream: Arc<str>,
    /// The path, perhaps with `{event}`.
    pub path: Box<str>,
    /// `WebHook-Request-Origin`.
    pub origin: Box<str>,
}

/// Why a URL gets no event at this moment. The event itself was not sent.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Refusal {
    /// It takes none.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// It did not say.
    #[error("whether the backend takes events is not known: {0}")]
    NoAnswer(Rc<BackendError>),
}

enum Known {
    Asking(Shared<LocalBoxFuture<'static, Result<(), Refusal>>>),
    TakesUntil(Instant),
}

impl Validations {
    /// Makes sure that a URL takes events, as of `now`. Cancel-safe: whoever else waits for the answer still gets it.
    ///
    /// # Errors
    /// When it does not, or gives no answer.
    pub async fn ensure(&self, url: &Url, handler: &Rc<dyn Handler>, now: Instant) -> Result<(), Refusal> {
        let asking = match self.known.borrow().get(url) {
            Some(Known::TakesUntil(until)) if *until > now => return Ok(()),
            Some(Known::Asking(asking)) => Some(asking.clone()),
            Some(Known::TakesUntil(_)) | None => None,
        };
        let asking = asking.unwrap_or_else(|| {
            let asking = ask(url.clone(), Rc::clone(handler)).boxed_local().shared();
            self.learn(url, Known::Asking(asking.clone()), now);
            asking
        });
        let answer = asking.await;
        match &answer {
            Ok(()) => self.learn(url, Known::TakesUntil(now + HOLDS_FOR), now),
            Err(_) => self.forget(url),
        }
        answer
    }

    /// Has a URL asked again before its next event.
    pub fn forget(&self, url: &Url) {
        self.known.borrow_mut().remove(url);
    }

    fn learn(&self, url: &Url, what: Known, now: Instant) {
        let mut known = self.known.borrow_mut();
        if known.len() >= URLS_MAX && !known.contains_key(url) {
            known.retain(|_, known| !matches!(known, Known::TakesUntil(until) if *until <= now));
            // Any will do: it costs one question.
            let victim = if known.len() >= URLS_MAX { known.keys().next().cloned() } else { None };
            if let Some(victim) = victim {
                known.remove(&victim);
            }
        }
        known.insert(url.clone(), what);
    }
}

impl fmt::Debug for Validations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Validations").field("urls", &self.known.borrow().len()).finish()
    }
}

/// The path of a URL for one event.
pub fn path_of(path: &str, event: &str) -> String {
    path.replace("{event}", event)
}

async fn ask(url: Url, handler: Rc<dyn Handler>) -> Result<(), Refusal> {
    let path = path_of(&url.path, EVENT);
    let sent = handler.send(Method::OPTIONS, &path, validation::question(&url.origin), Bytes::new());
    let answer = match tokio::time::timeout(ANSWER_TIMEOUT, sent).await {
        Ok(answer) => answer,
        Err(error) => Err(BackendError::TimedOut(Box::new(error))),
    };
    let result = match answer {
        Ok(response) => validation::check(response.status(), response.headers(), &url.origin).map_err(Refusal::Denied),
        Err(error) => Err(Refusal::NoAnswer(Rc::new(error))),
    };
    if let Err(error) = &result {
        tracing::warn!(upstream = &*url.upstream, path, error = %error, "backend takes no events");
    }
    result
}
