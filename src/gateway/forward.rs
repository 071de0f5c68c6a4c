//! A `proxy` route: the client's exchange passes through to an upstream and back, as it is, both ways streaming.
//!
//! A client's WebSocket over HTTP/2 (RFC 8441) becomes an HTTP/1.1 upgrade; the frames are the same in both.

use crate::gateway::ending::{self, Ending};
use crate::gateway::grip::{self, Original};
use crate::gateway::respond::{self, ClientError};
use crate::gateway::settings::ProxyRoute;
use crate::gateway::tunnel::Tunnel;
use crate::gateway::{Exchange, Inner};
use crate::model::channel::ChannelName;
use crate::proto::forwarded::{self, Before, Hop, HopScheme};
use crate::server::body::Body;
use crate::server::request_id::RequestId;
use crate::server::{Answer, Hold, Peer, Request, Response, Trust};
use crate::upstream::{Upgraded, UpstreamError, UpstreamIo, Upstreams};
use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use futures_util::future::LocalBoxFuture;
use http::header::{
    CONNECTION, CONTENT_LENGTH, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, TE, UPGRADE,
};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, Version, request};
use std::rc::Rc;
use std::sync::Arc;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

pub(in crate::gateway) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const WEBSOCKET: &str = "websocket";

/// A request's path and query for requests that are made later: a copy, since what the head has is a part of the block
/// that it was read into.
pub(in crate::gateway) fn path_and_query(uri: &Uri) -> PathAndQuery {
    let found = uri.path_and_query().and_then(|found| found.as_str().parse().ok());
    found.unwrap_or_else(|| PathAndQuery::from_static("/"))
}

/// What a request on a proxy route leads to.
pub(in crate::gateway) enum Forwarded {
    Answer(Answer),
    /// The backend holds its response.
    Waiting(LocalBoxFuture<'static, Result<Answer, ClientError>>),
}

impl From<Answer> for Forwarded {
    fn from(answer: Answer) -> Self {
        Self::Answer(answer)
    }
}

impl Inner {
    /// Answers a request on a proxy route. What would go on without an end does not begin while sessions end.
    pub(in crate::gateway) async fn forward(
        self: &Rc<Self>,
        route: &Arc<ProxyRoute>,
        implicit: Vec<ChannelName>,
        request: Box<Request>,
        exchange: Exchange<'_>,
    ) -> Result<Forwarded, ClientError> {
        let asks_for_tunnel = request.method() == Method::CONNECT || request.headers().contains_key(UPGRADE);
        if asks_for_tunnel {
            self.takes_sessions()?;
        }
        let ending = || Ending::new(&self.parts.shard, exchange.route);
        let Exchange { peer, request_id, .. } = exchange;
        let forwarded = forward(&self.parts.upstreams, route, request, peer, request_id, ending).await;
        let (answer, original) = forwarded.map_err(ClientError::Upstream)?;
        match (answer, original) {
            (Answer::Response(response), Some(original)) if grip::speaks(&response) => {
                let (inner, route, name) = (Rc::clone(self), Arc::clone(route), Arc::clone(exchange.route));
                Box::pin(grip::Holder { inner, route, name, implicit, original }.answer(response)).await
            }
            (Answer::Response(response), _) => {
                let (head, body) = response.into_parts();
                let endless = ending::is_endless(&head);
                let response = Response::from_parts(head, body);
                if !endless {
                    return Ok(Forwarded::Answer(response.into()));
                }
                self.takes_sessions()?;
                Ok(Forwarded::Answer(ending::until(response, ending()).into()))
            }
            (other, _) => Ok(other.into()),
        }
    }
}

/// Passes a request on to the route's upstream, and the response back. A tunnel gets what `ending` makes.
///
/// The request was checked by [`crate::proto::request_check`]. Cancel-safe: dropping the future cancels the upstream's
/// request too.
///
/// # Errors
/// When the upstream gave no response; [`respond`] makes one.
pub(in crate::gateway) async fn forward(
    upstreams: &Upstreams,
    route: &ProxyRoute,
    request: Box<Request>,
    peer: &Peer,
    request_id: RequestId,
    ending: impl FnOnce() -> Ending,
) -> Result<(Answer, Option<Original>), UpstreamError> {
    let (mut parts, body) = request.into_parts();
    let wish = match Wish::of(&parts, &body) {
        Ok(wish) => wish,
        Err(UnknownProtocol) => return Ok((respond::protocol_unknown(request_id).into(), None)),
    };
    forwarded::request_head(&mut parts, &hop(peer));
    parts.extensions.clear();
    parts.headers.insert(X_REQUEST_ID, request_id.into());
    if route.upstream.grip.is_some() || route.grip.is_some() {
        grip::strip(&mut parts.headers);
    }
    let Some(wish) = wish else {
        let original = route.grip.as_ref().map(|_| Original::of(&mut parts, &body));
        if original.is_some() {
            grip::sign(&mut parts.headers, &route.upstream);
        }
        let response = upstreams.send(&route.upstream, Request::from_parts(parts, body)).await?;
        return Ok((pass_back(response).into(), original));
    };
    let accept = wish.write(&mut parts);
    match Box::pin(upstreams.upgrade(&route.upstream, Request::from_parts(parts, Body::empty()))).await? {
        Upgraded::Answered(response) if wish.is_h2() && response.status().is_success() => {
            // For an extended CONNECT a success would mean that the tunnel stands.
            Err(bad_upgrade(route, "a success without 101 Switching Protocols"))
        }
        Upgraded::Answered(response) => Ok((pass_back(response).into(), None)),
        Upgraded::Switched { head, io } => match wish.head(head, accept) {
            Ok(head) => Ok((hold(head, io, ending()), None)),
            Err(what) => Err(bad_upgrade(route, what)),
        },
    }
}

/// Where a peer's requests come from.
pub(in crate::gateway) fn hop(peer: &Peer) -> Hop {
    Hop {
        client: peer.address.ip(),
        scheme: if peer.is_tls { HopScheme::Https } else { HopScheme::Http },
        before: match peer.trusted {
            Trust::Client => Before::Dropped,
            Trust::Proxy => Before::Kept,
        },
    }
}

pub(in crate::gateway) fn pass_back(response: Response) -> Response {
    let (mut parts, body) = response.into_parts();
    forwarded::response_head(&mut parts);
    Response::from_parts(parts, body)
}

fn hold(head: http::Response<()>, io: UpstreamIo, ending: Ending) -> Answer {
    Answer::Hold(Hold { head, session: Box::new(Tunnel { server: io, ending }) })
}

fn bad_upgrade(route: &ProxyRoute, what: &'static str) -> UpstreamError {
    UpstreamError::BadUpgrade { upstream: Arc::clone(&route.upstream.name), what }
}

/// Another protocol that a client asks for.
#[derive(Debug, PartialEq, Eq)]
enum Wish {
    /// HTTP/1.1 `Upgrade`, with its value.
    Http1(HeaderValue),
    /// An extended CONNECT with `:protocol: websocket`.
    H2,
}

/// An extended CONNECT for something else.
#[derive(Debug, PartialEq, Eq)]
struct UnknownProtocol;

impl Wish {
    /// What a request asks for, if anything. An `Upgrade` that can't be passed on is ignored, as RFC 9110 §7.8 allows:
    /// beside a body, and `h2c`, by which a client would talk to the backend unseen.
    fn of(parts: &request::Parts, body: &Body) -> Result<Option<Self>, UnknownProtocol> {
        if parts.method == Method::CONNECT {
            let protocol = parts.extensions.get::<h2::ext::Protocol>();
            let websocket = protocol.is_some_and(|protocol| protocol.as_str().eq_ignore_ascii_case(WEBSOCKET));
            return if websocket { Ok(Some(Self::H2)) } else { Err(UnknownProtocol) };
        }
        let mut values = parts.headers.get_all(UPGRADE).iter();
        let (Some(value), None) = (values.next(), values.next()) else { return Ok(None) };
        let h2c =
            value.as_bytes().split(|byte| *byte == b',').any(|name| name.trim_ascii().eq_ignore_ascii_case(b"h2c"));
        let fits = parts.version == Version::HTTP_11
            && forwarded::connection_has(&parts.headers, "upgrade")
            && http_body::Body::is_end_stream(body)
            && !h2c;
        Ok(fits.then(|| Self::Http1(value.clone())))
    }

    fn is_h2(&self) -> bool {
        *self == Self::H2
    }

    /// Asks the upstream for it; the `Sec-WebSocket-Accept` that must come back is returned where the key is ours.
    fn write(&self, parts: &mut request::Parts) -> Option<String> {
        let headers = &mut parts.headers;
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.remove(TE);
        headers.remove(CONTENT_LENGTH);
        match self {
            Self::Http1(value) => {
                headers.insert(UPGRADE, value.clone());
                None
            }
            Self::H2 => {
                parts.method = Method::GET;
                headers.insert(UPGRADE, HeaderValue::from_static(WEBSOCKET));
                headers.entry(SEC_WEBSOCKET_VERSION).or_insert(HeaderValue::from_static("13"));
                let key = websocket_key();
                let accept = derive_accept_key(key.as_bytes());
                if let Ok(key) = HeaderValue::try_from(key) {
                    headers.insert(SEC_WEBSOCKET_KEY, key);
                }
                Some(accept)
            }
        }
    }

    /// The client's head for the upstream's 101.
    fn head(&self, head: http::Response<()>, accept: Option<String>) -> Result<http::Response<()>, &'static str> {
        let (mut parts, ()) = head.into_parts();
        let upgrade = parts.headers.get(UPGRADE).cloned();
        forwarded::response_head(&mut parts);
        match self {
            Self::Http1(_) => {
                let upgrade = upgrade.ok_or("101 Switching Protocols without Upgrade")?;
                parts.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
                parts.headers.insert(UPGRADE, upgrade);
            }
            Self::H2 => {
                if !upgrade.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(WEBSOCKET.as_bytes())) {
                    return Err("it switched to something that is no WebSocket");
                }
                if !is_accepted(&mut parts.headers, accept.as_deref()) {
                    return Err("its Sec-WebSocket-Accept does not fit the key");
                }
                parts.status = StatusCode::OK;
            }
        }
        Ok(http::Response::from_parts(parts, ()))
    }
}

/// Takes `Sec-WebSocket-Accept` out, which HTTP/2 does not have (RFC 8441 §5), and checks it.
fn is_accepted(headers: &mut HeaderMap, accept: Option<&str>) -> bool {
    let given = headers.remove(SEC_WEBSOCKET_ACCEPT);
    accept.zip(given).is_some_and(|(accept, given)| given.as_bytes() == accept.as_bytes())
}

/// 16 random bytes (RFC 6455 §4.1). The key guards against caches, not against attackers: zeros do without a source.
fn websocket_key() -> String {
    let mut bytes = [0; 16];
    let _ = SystemRandom::new().fill(&mut bytes);
    BASE64_STANDARD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::body::read_whole;
    use crate::telemetry::metrics::Metrics;
    use crate::upstream::settings::{Balance, ServerAddress, UpstreamProtocol, UpstreamSettings};
    use std::time::Duration;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    const SOON: Duration = Duration::from_secs(10);

    /// Forwards `request` to a backend that answers with what `answer` makes of its head; gives back the head it saw.
    fn exchange(
        request: Request,
        answer: impl Fn(&str) -> String + 'static,
    ) -> (Result<Answer, UpstreamError>, String) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        tokio::task::LocalSet::new().block_on(&runtime, async {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
            let port = listener.local_addr().expect("bound").port();
            let backend = tokio::task::spawn_local(async move {
                let (mut stream, _) = listener.accept().await.expect("a connection");
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await.expect("a head"));
                }
                let head = String::from_utf8(head).expect("text");
                stream.write_all(answer(&head).as_bytes()).await.expect("written");
                head
            });
            let upstream = UpstreamSettings {
                name: "shop".into(),
                servers: vec![ServerAddress { host: "127.0.0.1".into(), port }],
                balance: Balance::RoundRobin,
                protocol: UpstreamProtocol::Http1,
                connect_timeout: SOON,
                response_timeout: SOON,
                retry_attempts_max: 0,
                grip: None,
            };
            let route = ProxyRoute { upstream: Arc::new(upstream), grip: None };
            let peer = Peer {
                address: ([192, 0, 2, 7], 5000).into(),
                local: ([127, 0, 0, 1], 8080).into(),
                listener: "http".into(),
                is_tls: false,
                trusted: Trust::Client,
            };
            let upstreams = Upstreams::new(Metrics::new().worker());
            let answer =
                forward(&upstreams, &route, Box::new(request), &peer, RequestId::next(), Ending::default).await;
            let answer = match answer.map(|(answer, _)| answer) {
                Ok(Answer::Response(response)) => {
                    let (parts, body) = response.into_parts();
                    let body = read_whole(body, 4096).await.expect("a whole body");
                    Ok(Answer::Response(Response::from_parts(parts, Body::full(body))))
                }
                other => other,
            };
            (answer, backend.await.expect("no panic"))
        })
    }

    fn request(method: &str, uri: &str, version: Version, fields: &[(&str, &str)]) -> Request {
        let mut request = http::Request::builder().method(method).uri(uri).version(version);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.body(Body::empty()).expect("a request")
    }

    fn websocket_over_h2() -> Request {
        let mut request =
            request("CONNECT", "https://a.example/ws", Version::HTTP_2, &[("sec-websocket-version", "13")]);
        request.extensions_mut().insert(h2::ext::Protocol::from_static("websocket"));
        request
    }

    fn switched(head: &str, upgrade: &str) -> String {
        let key = head.lines().find_map(|line| line.strip_prefix("sec-websocket-key: ")).unwrap_or_default();
        let accept = derive_accept_key(key.as_bytes());
        format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: {upgrade}\r\nSec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: chat\r\n\r\n"
        )
    }

    #[test]
    fn a_plain_exchange_passes_both_ways() {
        let fields = [
            ("host", "a.example"),
            ("connection", "x-hop"),
            ("x-hop", "1"),
            ("x-request-id", "mine"),
            ("upgrade", "h2c"),
        ];
        let (answer, head) = exchange(request("GET", "/a?b", Version::HTTP_11, &fields), |_| {
            "HTTP/1.1 404 Gone Fishing\r\nConnection: close, x-inner\r\nX-Inner: 1\r\nServer: origin\r\nContent-Length: 2\r\n\r\nno".into()
        });
        assert!(head.starts_with("GET /a?b HTTP/1.1\r\nhost: a.example\r\n"), "{head}");
        for line in
            ["x-forwarded-for: 192.0.2.7", "via: 1.1 pushbridge", "forwarded: for=192.0.2.7;host=a.example;proto=http"]
        {
            assert!(head.contains(&format!("\r\n{line}\r\n")), "{head}");
        }
        assert!(
            head.contains("x-request-id: ")
                && !head.contains("mine")
                && !head.contains("x-hop")
                && !head.contains("h2c")
        );
        let Answer::Response(response) = answer.expect("a response") else { panic!("held") };
        let mut names: Vec<_> = response.headers().keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!((response.status().as_u16(), names), (404, vec!["content-length", "server", "via"]));
    }

    #[test]
    fn an_h1_upgrade_passes_through() {
        let fields = [
            ("host", "a.example"),
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-key", "x"),
        ];
        let (answer, head) =
            exchange(request("GET", "/ws", Version::HTTP_11, &fields), |head| switched(head, "websocket"));
        assert!(head.contains("connection: upgrade\r\n") && head.contains("upgrade: websocket\r\n"), "{head}");
        let Answer::Hold(hold) = answer.expect("an answer") else { panic!("not held") };
        assert_eq!(hold.head.status(), StatusCode::SWITCHING_PROTOCOLS);
        assert_eq!(hold.head.headers()["sec-websocket-accept"], derive_accept_key(b"x"));
        assert_eq!(
            (&hold.head.headers()["upgrade"], &hold.head.headers()["connection"]),
            (&HeaderValue::from_static("websocket"), &HeaderValue::from_static("upgrade"))
        );
    }

    #[test]
    fn an_h2_websocket_becomes_an_h1_upgrade() {
        let (answer, head) = exchange(websocket_over_h2(), |head| switched(head, "WebSocket"));
        assert!(head.starts_with("GET /ws HTTP/1.1\r\n") && head.contains("host: a.example\r\n"), "{head}");
        let Answer::Hold(hold) = answer.expect("an answer") else { panic!("not held") };
        let mut names: Vec<_> = hold.head.headers().keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!((hold.head.status(), names), (StatusCode::OK, vec!["sec-websocket-protocol", "via"]));
    }

    #[test]
    fn wrong_answers_to_an_h2_websocket_are_no_success() {
        #[track_caller]
        fn check(answer: fn(&str) -> String) {
            let error = exchange(websocket_over_h2(), answer).0.err().expect("no tunnel");
            assert!(matches!(error, UpstreamError::BadUpgrade { .. }), "{error}");
        }
        check(|head| switched(head, "echo"));
        check(|_| switched("", "websocket"));
        check(|_| "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".into());
        let (answer, _) =
            exchange(websocket_over_h2(), |_| "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n".into());
        let Answer::Response(response) = answer.expect("a response") else { panic!("held") };
        assert_eq!(response.status(), StatusCode::FORBIDDEN);
    }

    #[test]
    fn only_upgrades_that_can_be_passed_on_are_wishes() {
        #[track_caller]
        fn check(request: Request, expected: Result<bool, UnknownProtocol>) {
            let (parts, body) = request.into_parts();
            assert_eq!(Wish::of(&parts, &body).map(|wish| wish.is_some()), expected);
        }
        let upgrade = ("upgrade", "websocket");
        let connection = ("connection", "upgrade");
        check(request("GET", "/", Version::HTTP_11, &[upgrade, connection]), Ok(true));
        check(request("GET", "/", Version::HTTP_11, &[upgrade]), Ok(false));
        check(request("GET", "/", Version::HTTP_10, &[upgrade, connection]), Ok(false));
        check(request("GET", "/", Version::HTTP_11, &[("upgrade", "a, H2C"), connection]), Ok(false));
        check(request("GET", "/", Version::HTTP_11, &[upgrade, upgrade, connection]), Ok(false));
        let mut with_body = request("POST", "/", Version::HTTP_11, &[upgrade, connection]);
        *with_body.body_mut() = Body::full("x");
        check(with_body, Ok(false));
        check(websocket_over_h2(), Ok(true));
        check(request("CONNECT", "https://a.example/", Version::HTTP_2, &[]), Err(UnknownProtocol));
    }
}
