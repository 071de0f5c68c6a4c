//! The private listener: metrics, probes, the running configuration, a page for people, and what operators ask for.
//!
//! Everything is answered from memory and takes no body. It asks for no credentials: who may connect is the operator's
//! choice of address (127.0.0.1 by default). What changes something is a POST, and not for web pages (`guard`). This
//! room does not know what makes the instance ready, or where the figures come from.

mod close;
mod console;
mod drain;
mod guard;
mod pages;
pub mod reload;

use crate::drain::Drain;
use crate::hub::Hub;
use crate::proto::problem::Problem;
use crate::server::body::Body;
use crate::server::request_id::RequestId;
use crate::server::{Answer, Handler, Peer, Request, Response, problem};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::readiness::Readiness;
use arc_swap::ArcSwap;
use console::Rate;
use futures_util::future::LocalBoxFuture;
use http::header::{ALLOW, CONTENT_LENGTH, HeaderValue};
use http::{Method, StatusCode};
use reload::Reloads;
use std::rc::Rc;
use std::sync::Arc;

/// Answers the admin listener's requests. Clones share their state: each worker has one.
#[derive(Debug, Clone)]
pub struct AdminHandler(Arc<State>);

/// What the process keeps up to date, and what operators may do.
#[derive(Debug)]
pub struct Parts {
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// What probes ask for.
    pub readiness: Readiness,
    /// The running configuration as text, its secrets masked by whoever stores it.
    pub config: Arc<ArcSwap<String>>,
    /// How the instance ends.
    pub drain: Drain,
    /// Where sessions are.
    pub hub: Arc<Hub>,
    /// How the configuration is read again.
    pub reloads: Reloads,
}

#[derive(Debug)]
struct State {
    parts: Parts,
    rate: Rate,
}

impl AdminHandler {
    /// A handler over what the process keeps up to date.
    pub fn new(parts: Parts) -> Self {
        Self(Arc::new(State { parts, rate: Rate::default() }))
    }

    /// Does what a POST asks for.
    async fn act(self, head: http::request::Parts) -> Response {
        if let Err(problem) = guard::check(&head.uri, &head.headers) {
            return problem::response(&problem, RequestId::next());
        }
        let (parts, query) = (&self.0.parts, head.uri.query().unwrap_or_default());
        match head.uri.path() {
            "/drain" => drain::post(&parts.drain, &parts.hub, query).await,
            "/sessions/close" => close::post(&parts.hub, query).await,
            path => not_found(path),
        }
    }

    fn answer(&self, method: &Method, path: &str) -> Response {
        let page: fn(&State) -> Response = match path {
            "/" => |state| {
                let Parts { metrics, readiness, .. } = &state.parts;
                console::page(metrics.figures(), &readiness.status(), &state.rate)
            },
            "/metrics" => |state| pages::metrics(&state.parts.metrics),
            "/livez" => |_| pages::live(),
            "/readyz" => |state| pages::ready(&state.parts.readiness.status()),
            "/config" => |state| pages::config(&state.parts.config.load()),
            "/drain" => |state| drain::get(&state.parts.drain, &state.parts.hub),
            "/sessions/close" => |_| not_allowed(&Method::GET, "POST"),
            _ => return not_found(path),
        };
        match *method {
            Method::GET => page(&self.0),
            Method::HEAD => without_body(page(&self.0)),
            _ => not_allowed(method, if path == "/drain" { "GET, HEAD, POST" } else { "GET, HEAD" }),
        }
    }
}

impl Handler for AdminHandler {
    fn handle(&self, request: Request, _peer: Rc<Peer>) -> LocalBoxFuture<'static, Answer> {
        if request.uri().path() == "/reload" {
            let reloads = self.0.parts.reloads.clone();
            return Box::pin(async move { Answer::Response(reloads.respond(request).await) });
        }
        if request.method() == Method::POST && matches!(request.uri().path(), "/drain" | "/sessions/close") {
            let (head, _body) = request.into_parts();
            let this = self.clone();
            return Box::pin(async move { Answer::Response(this.act(head).await) });
        }
        let response = self.answer(request.method(), request.uri().path());
        Box::pin(std::future::ready(Answer::Response(response)))
    }
}

/// The most of a wrong path or method that is told back, in characters.
const ECHO_CHARS_MAX: usize = 100;

fn not_found(path: &str) -> Response {
    let path: String = path.chars().take(ECHO_CHARS_MAX).collect();
    let detail =
        format!("there is no {path:?} here; the pages are /, /metrics, /livez, /readyz, /config, /drain and /reload");
    problem::response(&Problem::new(StatusCode::NOT_FOUND, detail), RequestId::next())
}

fn not_allowed(method: &Method, allowed: &'static str) -> Response {
    let method: String = method.as_str().chars().take(ECHO_CHARS_MAX).collect();
    let detail = format!("{method} is not possible here; use one of {allowed}");
    let mut response = problem::response(&Problem::new(StatusCode::METHOD_NOT_ALLOWED, detail), RequestId::next());
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    response
}

/// The answer to HEAD: GET's fields, with the length that its body would have (RFC 9110 §9.3.2).
fn without_body(response: Response) -> Response {
    use http_body::Body as _;
    let (mut head, body) = response.into_parts();
    if let Some(length) = body.size_hint().exact() {
        head.headers.insert(CONTENT_LENGTH, length.into());
    }
    Response::from_parts(head, Body::empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drain::{DrainSettings, Phase};
    use crate::hub::HubLimits;
    use crate::hub::clock::Clock;
    use crate::server::Trust;
    use crate::server::body::read_whole;
    use http::header::CONTENT_TYPE;

    struct Admin {
        handler: AdminHandler,
        metrics: Arc<Metrics>,
        readiness: Readiness,
        config: Arc<ArcSwap<String>>,
    }

    impl Admin {
        fn new() -> Self {
            let (metrics, readiness) = (Metrics::new(), Readiness::new());
            let config = Arc::new(ArcSwap::from_pointee("listeners: []\n".to_owned()));
            let handler = AdminHandler::new(Parts {
                metrics: Arc::clone(&metrics),
                readiness: readiness.clone(),
                config: Arc::clone(&config),
                drain: Drain::new(DrainSettings::default()),
                hub: Hub::new(1, Clock::start(), HubLimits::default(), Arc::default()),
                reloads: Reloads::new().0,
            });
            Self { handler, metrics, readiness, config }
        }

        async fn ask(&self, method: Method, target: &str) -> (http::response::Parts, String) {
            let request = http::Request::builder().method(method).uri(target).body(Body::empty()).expect("a request");
            let address = ([127, 0, 0, 1], 1).into();
            let peer =
                Peer { address, local: address, listener: "admin".into(), is_tls: false, trusted: Trust::Client };
            let Answer::Response(response) = self.handler.handle(request, Rc::new(peer)).await else {
                panic!("a hold");
            };
            let (head, body) = response.into_parts();
            let body = read_whole(body, 1 << 20).await.expect("a body");
            (head, String::from_utf8(body.to_vec()).expect("UTF-8"))
        }

        #[track_caller]
        fn check(&self, target: &str, status: u16, media_type: &str, body: &str) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
            let (head, text) = runtime.block_on(self.ask(Method::GET, target));
            assert_eq!(head.status, status);
            assert_eq!(head.headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes), Some(media_type.as_bytes()));
            assert!(text.contains(body), "no {body:?} in {text}");
            let (headless, empty) = runtime.block_on(self.ask(Method::HEAD, target));
            assert_eq!((headless.status, empty.as_str()), (head.status, ""));
            assert_eq!(headless.headers.get(CONTENT_TYPE), head.headers.get(CONTENT_TYPE));
            assert!(headless.headers.contains_key(CONTENT_LENGTH));
        }
    }

    #[test]
    fn probes_say_what_the_readiness_is() {
        let admin = Admin::new();
        let json = "application/json";
        let latch = admin.readiness.latch("bus");
        admin.check("/livez", 200, json, r#"{"status":"alive"}"#);
        admin.check("/readyz", 503, json, r#"{"status":"starting","waiting_for":["bus"]}"#);
        drop(latch);
        admin.check("/readyz?verbose", 200, json, r#"{"status":"ready"}"#);
        let lost = admin.readiness.degrade("the bus is \"down\"");
        admin.check("/readyz", 200, json, r#"{"status":"degraded","reason":"the bus is \"down\""}"#);
        drop(lost);
        let draining = admin.readiness.drain();
        admin.check("/readyz", 503, json, r#"{"status":"draining"}"#);
        admin.check("/livez", 200, json, r#"{"status":"alive"}"#);
        drop(draining);
    }

    #[test]
    fn metrics_and_the_running_configuration_are_shown() {
        let admin = Admin::new();
        admin.check("/metrics", 200, crate::telemetry::metrics::MEDIA_TYPE, "pushbridge_build_info{");
        admin.check("/config", 200, "application/yaml", "listeners: []\n");
        admin.config.store(Arc::new("routes: []\n".to_owned()));
        admin.check("/config", 200, "application/yaml", "routes: []\n");
    }

    #[test]
    fn the_console_shows_figures_and_escapes_what_it_is_told() {
        let admin = Admin::new();
        admin.metrics.set_hub(1_234_567, 0, 0);
        let _lost = admin.readiness.degrade("<script>");
        admin.check("/", 200, "text/html; charset=utf-8", "1 234 567");
        admin.check("/", 200, "text/html; charset=utf-8", "&lt;script&gt;");
    }

    #[tokio::test]
    async fn a_reload_is_asked_for_by_post() {
        let admin = Admin::new();
        let (head, _) = admin.ask(Method::GET, "/reload").await;
        assert_eq!((head.status.as_u16(), head.headers[ALLOW].as_bytes()), (405, &b"POST"[..]));
        let (head, _) = admin.ask(Method::POST, "/reload").await;
        assert_eq!(head.status, 403, "it has no host");
        let (head, body) = admin.ask(Method::POST, "http://127.0.0.1/reload").await;
        assert_eq!(head.status, 503, "nobody listens");
        assert!(body.contains("no configuration file"), "{body}");
    }

    #[tokio::test]
    async fn other_pages_and_methods_are_refused_with_a_remedy() {
        let admin = Admin::new();
        let (head, body) = admin.ask(Method::GET, "/metric?x=secret").await;
        assert_eq!(head.status, 404);
        assert!(body.contains("/metrics") && !body.contains("secret"), "{body}");
        for method in [Method::POST, Method::DELETE, Method::OPTIONS] {
            let (head, body) = admin.ask(method, "/readyz").await;
            assert_eq!(head.status, 405);
            assert_eq!(head.headers.get(ALLOW).map(HeaderValue::as_bytes), Some(&b"GET, HEAD"[..]));
            let problem: serde_json::Value = serde_json::from_str(&body).expect("JSON");
            assert_eq!(problem["status"], 405);
        }
    }

    #[tokio::test]
    async fn a_drain_is_asked_for_shown_and_taken_back() {
        let admin = Admin::new();
        let drain = admin.handler.0.parts.drain.clone();
        let (head, body) = admin.ask(Method::GET, "http://localhost/drain").await;
        let serving = r#"{"phase":"serving","sessions":0,"settle_ms":10000,"spread_ms":60000,"margin_ms":15000}"#;
        assert_eq!((head.status.as_u16(), body.trim()), (200, serving));
        for _ in 0..2 {
            let (head, body) = admin.ask(Method::POST, "http://127.0.0.1:9901/drain").await;
            assert_eq!((head.status.as_u16(), body.trim()), (202, &*serving.replace("serving", "settle")));
        }
        let (head, body) = admin.ask(Method::POST, "http://[::1]/drain?cancel").await;
        assert_eq!((head.status.as_u16(), body.trim()), (200, serving));
        drain.request();
        drain.signal();
        let (head, body) = admin.ask(Method::POST, "http://localhost/drain?cancel").await;
        assert!(head.status == 409 && body.contains("a signal has asked"), "{body}");
        drain.signal();
        assert_eq!(drain.phase(), Phase::Drained);
        let (head, body) = admin.ask(Method::POST, "http://localhost/drain?wait=1&cancel").await;
        assert!(head.status == 400 && body.contains("not both"), "{body}");
        let (head, _) = admin.ask(Method::POST, "http://localhost/drain?now").await;
        assert_eq!(head.status, 400);
    }

    #[tokio::test]
    async fn sessions_are_closed_by_one_selector_only() {
        let admin = Admin::new();
        for (query, status, said) in [
            ("", 400, "?route="),
            ("?route=a&channel=b", 400, "one of"),
            ("?route=a&window=1d", 400, "30s"),
            ("?channel=%00", 400, "channel"),
            ("?what=ever", 400, "what"),
        ] {
            let (head, body) = admin.ask(Method::POST, &format!("http://localhost/sessions/close{query}")).await;
            assert!(head.status == status && body.contains(said), "{query}: {body}");
        }
        let (head, _) = admin.ask(Method::GET, "http://localhost/sessions/close").await;
        assert_eq!((head.status.as_u16(), head.headers[ALLOW].as_bytes()), (405, &b"POST"[..]));
    }
}
