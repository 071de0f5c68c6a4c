//! The last touch of a request head for the protocol that carries it, and the first look at a response head.

use crate::upstream::settings::{ServerAddress, UpstreamProtocol};
use crate::upstream::upload::Upload;
use http::header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderValue, Method, Uri, Version};
use http_body::Body;

/// The request's `Host` is no authority.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BadHost;

/// Makes the target and the framing fields fit `protocol`.
///
/// The target keeps only its path and query; without a `Host` the server's own address is sent. The framing follows the
/// body, not what the fields say (RFC 9112 §6).
pub(super) fn prepare(
    request: &mut http::Request<Upload>,
    protocol: UpstreamProtocol,
    address: &ServerAddress,
) -> Result<(), BadHost> {
    frame(request, protocol);
    let host = match request.headers().get(HOST) {
        Some(host) => host.clone(),
        None => HeaderValue::try_from(address.to_string()).map_err(|_| BadHost)?,
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

fn frame(request: &mut http::Request<Upload>, protocol: UpstreamProtocol) {
    let (ended, exact) = (request.body().is_end_stream(), request.body().size_hint().exact());
    let may_be_empty = !matches!(*request.method(), Method::POST | Method::PUT | Method::PATCH);
    let headers = request.headers_mut();
    headers.remove(TRANSFER_ENCODING);
    match exact {
        // A body that is expected and empty says so (RFC 9110 §8.6).
        _ if ended && may_be_empty => {
            headers.remove(CONTENT_LENGTH);
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
pub(super) fn tidy_response(headers: &mut HeaderMap) -> Result<(), &'static str> {
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
