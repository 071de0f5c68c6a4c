//! `POST /reload`: asks whoever reloads, and tells what came of it. It does not know how a reload is made.

use super::{guard, pages};
use crate::proto::problem::Problem;
use crate::server::request_id::RequestId;
use crate::server::{Request, Response, problem};
use http::Method;
use http::StatusCode;
use http::header::{ALLOW, HeaderValue};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// How many requests may wait at once.
const REQUESTS_MAX: usize = 16;
/// How long an answer may take: it reads a few files.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Somebody asks for a reload.
#[derive(Debug)]
pub struct ReloadRequest {
    /// Where the answer goes.
    pub answer: oneshot::Sender<ReloadAnswer>,
}

/// What came of a reload.
#[derive(Debug, Clone, PartialEq)]
pub enum ReloadAnswer {
    /// The files run now.
    Runs {
        /// `applied` or `unchanged`.
        result: &'static str,
        /// The hash of the running file.
        hash: String,
        /// What changed.
        changes: Value,
    },
    /// They can't be run, and nothing has changed.
    Refused {
        /// All that is wrong, one line each.
        problems: Vec<String>,
    },
}

/// Where reloads are asked for; clones ask the same.
#[derive(Debug, Clone)]
pub struct Reloads(mpsc::Sender<ReloadRequest>);

impl Reloads {
    /// A place to ask, and where it is heard. Where nobody listens, there is nothing to reload.
    pub fn new() -> (Self, mpsc::Receiver<ReloadRequest>) {
        let (ask, asked) = mpsc::channel(REQUESTS_MAX);
        (Self(ask), asked)
    }

    /// Answers a request to `/reload`.
    pub(super) async fn respond(&self, request: Request) -> Response {
        if request.method() != Method::POST {
            let detail = "a reload changes things; use POST";
            let mut response = refusal(StatusCode::METHOD_NOT_ALLOWED, detail);
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
            return response;
        }
        if let Err(refused) = guard::check(request.uri(), request.headers()) {
            return problem::response(&refused, RequestId::next());
        }
        match tokio::time::timeout(ANSWER_TIMEOUT, self.ask()).await {
            Ok(Ok(ReloadAnswer::Runs { result, hash, changes })) => {
                let body = json!({ "result": result, "hash": hash, "changes": changes });
                pages::page(StatusCode::OK, "application/json", format!("{body:#}\n"))
            }
            Ok(Ok(ReloadAnswer::Refused { problems })) => {
                let detail = "the configuration is refused, and the running one goes on; mend what `problems` lists";
                let refused = Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail);
                problem::response(&refused.with("problems", problems), RequestId::next())
            }
            Ok(Err(detail)) => refusal(StatusCode::SERVICE_UNAVAILABLE, detail),
            Err(_) => refusal(StatusCode::GATEWAY_TIMEOUT, "the reload takes long; look at the log for its end"),
        }
    }

    async fn ask(&self) -> Result<ReloadAnswer, &'static str> {
        let (answer, answered) = oneshot::channel();
        self.0.try_send(ReloadRequest { answer }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => "too many reloads are asked for at once; try again",
            mpsc::error::TrySendError::Closed(_) => "this instance has no configuration file to reload",
        })?;
        answered.await.map_err(|_| "the instance is about to stop")
    }
}

fn refusal(status: StatusCode, detail: &str) -> Response {
    problem::response(&Problem::new(status, detail), RequestId::next())
}
