//! What is remembered of URLs, against a handler that the tests play.

use super::handler::Handler;
use super::validations::{HOLDS_FOR, Refusal, URLS_MAX, Url, Validations};
use super::*;
use crate::server::body::Body;
use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use http::Method;
use std::cell::Cell;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Answers what it is told to, once it may, and counts.
struct TestHandler {
    asked: Cell<usize>,
    origin: &'static str,
    may_answer: Notify,
}

impl TestHandler {
    fn new(origin: &'static str) -> Rc<Self> {
        Rc::new(Self { asked: Cell::new(0), origin, may_answer: Notify::new() })
    }
}

/// The seam's half of it.
struct Seam(Rc<TestHandler>);

impl Handler for Seam {
    fn upstream(&self) -> Arc<str> {
        "shop".into()
    }

    fn send(
        &self,
        method: Method,
        path: &str,
        _: HeaderMap,
        _: Bytes,
    ) -> LocalBoxFuture<'static, Result<Response, BackendError>> {
        assert_eq!((method, path), (Method::OPTIONS, "/validate"));
        let handler = Rc::clone(&self.0);
        handler.asked.set(handler.asked.get() + 1);
        Box::pin(async move {
            handler.may_answer.notified().await;
            let mut response = http::Response::new(Body::empty());
            let allowed = HeaderValue::from_static(handler.origin);
            response.headers_mut().insert("webhook-allowed-origin", allowed);
            Ok(response)
        })
    }
}

fn url(path: &str) -> Url {
    Url { upstream: "shop".into(), path: path.into(), origin: "push.example".into() }
}

/// Asks about a URL, which is allowed to answer at once.
async fn ask(validations: &Validations, handler: &Rc<TestHandler>, url: &Url, now: Instant) -> Result<(), Refusal> {
    // It is kept until it is needed, and there is never more than one.
    handler.may_answer.notify_one();
    let seam: Rc<dyn Handler> = Rc::new(Seam(Rc::clone(handler)));
    validations.ensure(url, &seam, now).await
}

#[tokio::test(flavor = "local")]
async fn a_yes_holds_for_a_while_and_until_it_is_forgotten() {
    let (validations, handler) = (Validations::default(), TestHandler::new("*"));
    let (url, began) = (url("/{event}"), Instant::now());
    let just_before = began + HOLDS_FOR - Duration::from_millis(1);
    for (now, asked) in [(began, 1), (began, 1), (just_before, 1), (began + HOLDS_FOR, 2)] {
        assert!(ask(&validations, &handler, &url, now).await.is_ok());
        assert_eq!(handler.asked.get(), asked);
    }
    validations.forget(&url);
    assert!(ask(&validations, &handler, &url, began + HOLDS_FOR).await.is_ok());
    assert_eq!(handler.asked.get(), 3);
}

#[tokio::test(flavor = "local")]
async fn a_no_is_not_kept() {
    let (validations, handler) = (Validations::default(), TestHandler::new("other.example"));
    for asked in 1..4 {
        let answer = ask(&validations, &handler, &url("/{event}"), Instant::now()).await;
        assert!(matches!(answer, Err(Refusal::Denied(_))), "{answer:?}");
        assert_eq!(handler.asked.get(), asked);
    }
}

#[tokio::test(flavor = "local")]
async fn all_who_come_wait_for_one_answer() {
    let (validations, handler) = (Rc::new(Validations::default()), TestHandler::new("*"));
    let asking = |validations: &Rc<Validations>| {
        let (validations, seam) = (Rc::clone(validations), Rc::new(Seam(Rc::clone(&handler))) as Rc<dyn Handler>);
        tokio::task::spawn_local(async move { validations.ensure(&url("/{event}"), &seam, Instant::now()).await })
    };
    let (first, second, third) = (asking(&validations), asking(&validations), asking(&validations));
    tokio::task::yield_now().await;
    // Whoever asked first may go; the answer comes for the others.
    first.abort();
    tokio::task::yield_now().await;
    handler.may_answer.notify_one();
    assert!(second.await.expect("no panic").is_ok() && third.await.expect("no panic").is_ok());
    assert_eq!(handler.asked.get(), 1);
}

#[tokio::test(flavor = "local")]
async fn no_more_than_the_bound_are_remembered() {
    let (validations, handler) = (Validations::default(), TestHandler::new("*"));
    let now = Instant::now();
    for at in 0..URLS_MAX + 10 {
        let url = Url { origin: format!("origin-{at}").into(), ..url("/{event}") };
        assert!(ask(&validations, &handler, &url, now).await.is_ok());
    }
    assert_eq!(handler.asked.get(), URLS_MAX + 10);
    assert_eq!(format!("{validations:?}"), format!("Validations {{ urls: {URLS_MAX} }}"));
}
