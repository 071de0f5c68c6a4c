//! The last touch of a request head for the protocol that carries it, and the first look at a response head.

use crate::upstream::settings::{ServerAddress, UpstreamProtocol};
use crate::upstream::upload::Upload;
use http::header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, Version, response};
use http_body::Body;

/// The request's `Host` is no authority.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BadHost;

/// Makes the target and the framing fields fit `protocol`.
///
/// The target keeps only its path and query; without a `Host` its authority is sent, or else the server's own address. The
/// framing follows the body, not what the fields say (RFC 9112 §6). Doing it twice changes nothing.
pub(super) fn prepare(
    request: &mut http::Request<Upload>,
    protocol: UpstreamProtocol,
    address: &ServerAddress,
) -> Result<(), BadHost> {
    let named = Named::of(request.headers());
    frame(request, protocol, &named);
    if protocol == UpstreamProtocol::Http1 && named.host && is_bare(request.uri()) {
        *request.version_mut() = Version::HTTP_11;
        return Ok(());
    }
    let host = match (request.headers().get(HOST), request.uri().authority()) {
        (Some(host), _) => host.clone(),
        (None, Some(authority)) => HeaderValue::from_str(authority.as_str()).map_err(|_| BadHost)?,
        (None, None) => HeaderValue::try_from(address.to_string()).map_err(|_| BadHost)?,
    };
    let path = request.uri().path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    match protocol {
        UpstreamProtocol::Http1 => {
            *request.uri_mut() = Uri::from(path);
            *request.version_mut() = Version::HTTP_11;
            request.headers_mut().insert(HOST, host);
        }
        UpstreamProtocol::H2 => {
            let mut parts = http::uri::Parts::default();
            parts.scheme = Some(Scheme::HTTP);
            parts.authority = Some(Authority::try_from(host.as_bytes()).map_err(|_| BadHost)?);
            parts.path_and_query = Some(path);
            *request.uri_mut() = Uri::from_parts(parts).map_err(|_| BadHost)?;
            *request.version_mut() = Version::HTTP_2;
            request.headers_mut().remove(HOST);
        }
    }
    Ok(())
}

/// Whether a target is what a server gets of it: a path, and no authority.
fn is_bare(target: &Uri) -> bool {
    target.authority().is_none() && target.path_and_query().is_some()
}

/// Which of the fields that are touched here a head has: one look at each name costs less than a hash for each of them.
#[derive(Default)]
struct Named {
    host: bool,
    length: bool,
    coding: bool,
}

impl Named {
    fn of(headers: &HeaderMap) -> Self {
        headers.keys().fold(Self::default(), |named, name| Self {
            host: named.host || *name == HOST,
            length: named.length || *name == CONTENT_LENGTH,
            coding: named.coding || *name == TRANSFER_ENCODING,
        })
    }
}

fn frame(request: &mut http::Request<Upload>, protocol: UpstreamProtocol, named: &Named) {
    let (ended, exact) = (request.body().is_end_stream(), request.body().size_hint().exact());
    let may_be_empty = !matches!(*request.method(), Method::POST | Method::PUT | Method::PATCH);
    let headers = request.headers_mut();
    if named.coding {
        headers.remove(TRANSFER_ENCODING);
    }
    match exact {
        // A body that is expected and empty says so (RFC 9110 §8.6).
        _ if ended && may_be_empty => {
            if named.length {
                headers.remove(CONTENT_LENGTH);
            }
            return;
        }
        _ if ended => {
            headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        Some(len) => {
            headers.insert(CONTENT_LENGTH, HeaderValue::from(len));
        }
        // The HTTP/1.1 machine would leave out the body of a GET whose length it does not know.
        None if protocol == UpstreamProtocol::Http1 && !headers.contains_key(CONTENT_LENGTH) => {
            headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
        None => {}
    }
    let told = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()).and_then(|text| text.parse().ok());
    if let Some(len) = told {
        request.body_mut().expect_len(len);
    }
}

/// Leaves only framing fields that are true once the body was read (RFC 9112 §6.3).
///
/// # Errors
/// What is wrong with them.
pub(super) fn tidy_response(head: &mut response::Parts) -> Result<(), &'static str> {
    let headers = &mut head.headers;
    // It has no body, and may not say that it has (RFC 9110 §8.6).
    if head.status == StatusCode::NO_CONTENT {
        headers.remove(CONTENT_LENGTH);
    }
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    if let Some(coding) = codings.next() {
        if codings.next().is_some() || !coding.as_bytes().eq_ignore_ascii_case(b"chunked") {
            return Err("its Transfer-Encoding is not `chunked`");
        }
        headers.remove(TRANSFER_ENCODING);
        headers.remove(CONTENT_LENGTH);
        return Ok(());
    }
    // Several equal lengths, or `5, 5`, were read as one: say it once.
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    if let Some(first) = lengths.next() {
        let text = first.as_bytes().split(|byte| *byte == b',').next().unwrap_or_default().trim_ascii();
        if lengths.next().is_some() || text.len() != first.len() {
            let length = HeaderValue::from_bytes(text).map_err(|_| "its Content-Length is malformed")?;
            headers.insert(CONTENT_LENGTH, length);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::body::Body as AnyBody;
    use UpstreamProtocol::{H2, Http1};

    /// Prepares twice, as a request that came back is, and shows the target and the fields.
    #[track_caller]
    fn check(line: &str, fields: &[(&str, &str)], body: AnyBody, protocol: UpstreamProtocol, expected: &str) {
        let (method, uri) = line.split_once(' ').expect("two words");
        let mut request = http::Request::builder().method(method).uri(uri);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let mut request = request.body(Upload::new(body, tokio::time::Instant::now()).0).expect("a request");
        let address = ServerAddress { host: "::1".into(), port: 3000 };
        for _ in 0..2 {
            prepare(&mut request, protocol, &address).expect("a good host");
            let mut shown = vec![request.uri().to_string()];
            let fields = request.headers().iter();
            shown.extend(fields.map(|(name, value)| format!("{name}: {}", value.to_str().expect("text"))));
            shown[1..].sort();
            assert_eq!(shown.join("\n"), expected);
        }
    }

    /// A body of unknown length.
    fn stream() -> AnyBody {
        AnyBody::boxed(http_body_util::StreamBody::new(futures_util::stream::pending()))
    }

    #[test]
    fn target_and_framing_fit_the_protocol_and_the_body() {
        let host = ("host", "a.example");
        check("GET /a?b", &[host], AnyBody::empty(), Http1, "/a?b\nhost: a.example");
        check("GET http://b.example", &[], AnyBody::empty(), Http1, "/\nhost: b.example");
        check("GET /", &[], AnyBody::empty(), Http1, "/\nhost: [::1]:3000");
        check("OPTIONS *", &[host], AnyBody::empty(), Http1, "*\nhost: a.example");
        check("GET /a?b", &[host], AnyBody::empty(), H2, "http://a.example/a?b");
        check("POST /", &[host], AnyBody::empty(), Http1, "/\ncontent-length: 0\nhost: a.example");
        check("GET /", &[host, ("content-length", "9")], AnyBody::empty(), Http1, "/\nhost: a.example");
        check(
            "POST /",
            &[host, ("content-length", "9")],
            AnyBody::full("abc"),
            H2,
            "http://a.example/\ncontent-length: 3",
        );
        check("GET /", &[host], stream(), Http1, "/\nhost: a.example\ntransfer-encoding: chunked");
        check("PUT /", &[host, ("content-length", "9")], stream(), Http1, "/\ncontent-length: 9\nhost: a.example");
        check("PUT /", &[host], stream(), H2, "http://a.example/");
    }

    #[test]
    fn response_framing_is_said_once_and_truly() {
        #[track_caller]
        fn check_status(status: StatusCode, fields: &[(&str, &str)], expected: Result<&[&str], ()>) {
            let mut head = http::Response::builder().status(status).body(()).expect("a response").into_parts().0;
            for (name, value) in fields {
                let name = http::HeaderName::try_from(*name).expect("a name");
                head.headers.append(name, HeaderValue::from_str(value).expect("a value"));
            }
            let tidied = tidy_response(&mut head).map_err(|_| ());
            let left: Vec<_> =
                head.headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().expect("text"))).collect();
            assert_eq!(
                tidied.map(|()| left.iter().map(String::as_str).collect::<Vec<_>>()),
                expected.map(<[_]>::to_vec)
            );
        }
        #[track_caller]
        fn check(fields: &[(&str, &str)], expected: Result<&[&str], ()>) {
            check_status(StatusCode::OK, fields, expected);
        }
        check_status(StatusCode::NO_CONTENT, &[("content-length", "5")], Ok(&[]));
        check_status(StatusCode::NOT_MODIFIED, &[("content-length", "5")], Ok(&["content-length: 5"]));
        check(&[("content-length", "5")], Ok(&["content-length: 5"]));
        check(&[("content-length", "5"), ("content-length", "5")], Ok(&["content-length: 5"]));
        check(&[("content-length", "5, 5")], Ok(&["content-length: 5"]));
        check(&[("content-length", "5"), ("transfer-encoding", "Chunked")], Ok(&[]));
        check(&[("transfer-encoding", "gzip, chunked")], Err(()));
        check(&[("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")], Err(()));
    }
}
