//! From a header block's fields to a request's head, or to trailers (RFC 9113 §8.1 to §8.3).
//!
//! What is wrong is only noted: a block is decoded to its end, because the next one builds on it.

use bytes::Bytes;
use h2::ext::Protocol;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version};

/// What a field counts beside its name and value (RFC 9113 §10.5.1).
const FIELD_BYTES: usize = 32;

/// Why a block makes no request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unfit {
    /// It breaks the rules of its form (RFC 9113 §8.1.1).
    Malformed(&'static str),
    /// It is larger than this server takes (RFC 6585 §5).
    TooLarge,
}

/// The fields of one block.
#[derive(Debug)]
pub struct Fields {
    pseudo: Pseudo,
    fields: HeaderMap,
    room: usize,
    unfit: Option<Unfit>,
}

#[derive(Debug, Default)]
struct Pseudo {
    method: Option<Method>,
    scheme: Option<Scheme>,
    authority: Option<Authority>,
    path: Option<PathAndQuery>,
    protocol: Option<Protocol>,
    any: bool,
}

impl Fields {
    /// For a block whose fields take `bytes_max` at most.
    pub fn new(bytes_max: usize) -> Self {
        Self { pseudo: Pseudo::default(), fields: HeaderMap::new(), room: bytes_max, unfit: None }
    }

    /// Takes the next field.
    pub fn take(&mut self, name: &[u8], value: &[u8]) {
        if self.unfit.is_some() {
            return;
        }
        let Some(room) = self.room.checked_sub(name.len() + value.len() + FIELD_BYTES) else {
            self.unfit = Some(Unfit::TooLarge);
            return;
        };
        self.room = room;
        let taken = if name.starts_with(b":") { self.pseudo_field(name, value) } else { self.field(name, value) };
        self.unfit = taken.err().map(Unfit::Malformed);
    }

    fn pseudo_field(&mut self, name: &[u8], value: &[u8]) -> Result<(), &'static str> {
        if !self.fields.is_empty() {
            return Err("a pseudo-field stands after a field");
        }
        self.pseudo.any = true;
        let pseudo = &mut self.pseudo;
        match name {
            b":method" => once(&mut pseudo.method, Method::from_bytes(value)),
            b":scheme" => once(&mut pseudo.scheme, Scheme::try_from(value)),
            b":authority" => once(&mut pseudo.authority, Authority::from_maybe_shared(Bytes::copy_from_slice(value))),
            b":path" if value.is_empty() => Err(":path is empty"),
            b":path" => once(&mut pseudo.path, PathAndQuery::from_maybe_shared(Bytes::copy_from_slice(value))),
            b":protocol" => once(&mut pseudo.protocol, std::str::from_utf8(value).map(Protocol::from)),
            _ => Err("an unknown pseudo-field"),
        }
    }

    fn field(&mut self, name: &[u8], value: &[u8]) -> Result<(), &'static str> {
        if name.iter().any(u8::is_ascii_uppercase) {
            return Err("a name has an uppercase letter");
        }
        let name = HeaderName::from_bytes(name).map_err(|_| "a name has a character that no name has")?;
        if is_of_connection(&name, value) {
            return Err("a field of a connection (RFC 9113 §8.2.2)");
        }
        let is_padded = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
        if is_padded(value.first()) || is_padded(value.last()) {
            return Err("a value begins or ends with white space");
        }
        let value = HeaderValue::from_bytes(value).map_err(|_| "a value has a character that no value has")?;
        // It holds as many fields as bytes_max allows, which is fewer than a map can.
        self.fields.try_append(name, value).map_err(|_| "too many fields")?;
        Ok(())
    }

    /// The request's head.
    ///
    /// # Errors
    /// Why it is none.
    pub fn into_request(self) -> Result<Request<()>, Unfit> {
        if let Some(unfit) = self.unfit {
            return Err(unfit);
        }
        self.pseudo.into_request(self.fields).map_err(Unfit::Malformed)
    }

    /// The trailers.
    ///
    /// # Errors
    /// Why they are none.
    pub fn into_trailers(self) -> Result<HeaderMap, Unfit> {
        match self.unfit {
            Some(unfit) => Err(unfit),
            None if self.pseudo.any => Err(Unfit::Malformed("trailers have a pseudo-field")),
            None => Ok(self.fields),
        }
    }
}

impl Pseudo {
    fn into_request(self, fields: HeaderMap) -> Result<Request<()>, &'static str> {
        let method = self.method.ok_or(":method is missing")?;
        let mut uri = http::uri::Parts::default();
        if method == Method::CONNECT && self.protocol.is_none() {
            // RFC 9113 §8.5.
            if self.scheme.is_some() || self.path.is_some() {
                return Err("CONNECT has a :scheme or a :path");
            }
            uri.authority = Some(self.authority.ok_or("CONNECT has no :authority")?);
        } else {
            if self.protocol.is_some() && method != Method::CONNECT {
                return Err(":protocol stands in a request that is no CONNECT (RFC 8441 §4)");
            }
            uri.path_and_query = Some(self.path.ok_or(":path is missing")?);
            let scheme = self.scheme.ok_or(":scheme is missing")?;
            if let Some(authority) = self.authority {
                uri.authority = Some(authority);
                uri.scheme = Some(scheme);
            }
        }
        let mut request = Request::new(());
        *request.uri_mut() = Uri::from_parts(uri).map_err(|_| ":scheme, :authority and :path make no URI")?;
        *request.method_mut() = method;
        *request.version_mut() = Version::HTTP_2;
        *request.headers_mut() = fields;
        if let Some(protocol) = self.protocol {
            request.extensions_mut().insert(protocol);
        }
        Ok(request)
    }
}

/// Fills a place that must be empty.
fn once<T, E>(place: &mut Option<T>, value: Result<T, E>) -> Result<(), &'static str> {
    match (place.is_some(), value) {
        (true, _) => Err("a pseudo-field stands twice"),
        (false, Err(_)) => Err("a pseudo-field has a value that it can't have"),
        (false, Ok(value)) => {
            *place = Some(value);
            Ok(())
        }
    }
}

/// Fields that HTTP/2 does not have.
fn is_of_connection(name: &HeaderName, value: &[u8]) -> bool {
    match name.as_str() {
        "connection" | "transfer-encoding" | "upgrade" | "keep-alive" | "proxy-connection" => true,
        "te" => !value.eq_ignore_ascii_case(b"trailers"),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GET: [(&str, &str); 4] =
        [(":method", "GET"), (":scheme", "https"), (":authority", "a.example"), (":path", "/a?b=c")];

    fn fields(pairs: &[(&str, &str)]) -> Fields {
        let mut fields = Fields::new(16 * 1024);
        for (name, value) in pairs {
            fields.take(name.as_bytes(), value.as_bytes());
        }
        fields
    }

    #[test]
    fn a_request_has_its_target_and_fields() {
        let request = fields(&[&GET[..], &[("accept", "*/*"), ("cookie", "a=1"), ("cookie", "b=2")]].concat());
        let request = request.into_request().expect("a request");
        assert_eq!((request.method(), request.version()), (&Method::GET, Version::HTTP_2));
        assert_eq!(request.uri(), "https://a.example/a?b=c");
        assert_eq!(request.headers()["accept"], "*/*");
        assert_eq!(request.headers().get_all("cookie").iter().count(), 2);
    }

    #[test]
    fn without_an_authority_the_target_is_a_path() {
        let request = fields(&[(":method", "GET"), (":path", "/x"), (":scheme", "http"), ("host", "a")]);
        assert_eq!(request.into_request().expect("a request").uri(), "/x");
        let request = fields(&[(":method", "OPTIONS"), (":path", "*"), (":scheme", "http")]);
        assert_eq!(request.into_request().expect("a request").uri(), "*");
    }

    #[test]
    fn connect_is_plain_or_extended() {
        let plain = fields(&[(":method", "CONNECT"), (":authority", "a:1")]).into_request().expect("a request");
        assert_eq!(plain.uri(), "a:1");
        let extended = [&[(":method", "CONNECT"), (":protocol", "websocket")], &GET[1..]].concat();
        let extended = fields(&extended).into_request().expect("a request");
        assert_eq!(extended.extensions().get::<Protocol>().map(Protocol::as_str), Some("websocket"));
        assert_eq!(extended.uri(), "https://a.example/a?b=c");
    }

    #[test]
    fn malformed_requests_are_none() {
        let with = |more: &[(&'static str, &'static str)]| [&GET[..], more].concat();
        let without = |name| GET.iter().copied().filter(|(named, _)| *named != name).collect::<Vec<_>>();
        for (what, pairs) in [
            ("uppercase", with(&[("Accept", "a")])),
            ("space in a name", with(&[("a b", "a")])),
            ("no name", with(&[("", "a")])),
            ("line end in a value", with(&[("a", "b\r\nc: d")])),
            ("zero in a value", with(&[("a", "b\0")])),
            ("white space before", with(&[("a", " b")])),
            ("white space behind", with(&[("a", "b\t")])),
            ("connection", with(&[("connection", "close")])),
            ("transfer-encoding", with(&[("transfer-encoding", "chunked")])),
            ("te", with(&[("te", "trailers, deflate")])),
            ("unknown pseudo-field", with(&[(":path2", "/")])),
            ("pseudo-field of a response", with(&[(":status", "200")])),
            ("twice", with(&[(":path", "/b")])),
            ("protocol without CONNECT", with(&[(":protocol", "websocket")])),
            ("pseudo-field after a field", [&[("accept", "a")], &GET[..]].concat()),
            ("no method", without(":method")),
            ("no scheme", without(":scheme")),
            ("no path", without(":path")),
            ("empty path", [&without(":path")[..], &[(":path", "")]].concat()),
            ("bad authority", [&without(":authority")[..], &[(":authority", "a b")]].concat()),
            ("bad method", [&without(":method")[..], &[(":method", "G T")]].concat()),
            ("CONNECT with a path", [&without(":method")[..], &[(":method", "CONNECT")]].concat()),
            ("CONNECT to nowhere", vec![(":method", "CONNECT")]),
        ] {
            let result = fields(&pairs).into_request();
            assert!(matches!(result, Err(Unfit::Malformed(_))), "{what}: {result:?}");
        }
        assert!(fields(&with(&[("te", "trailers")])).into_request().is_ok());
    }

    #[test]
    fn a_head_has_its_bound() {
        let size: usize = GET.iter().map(|(name, value)| name.len() + value.len() + FIELD_BYTES).sum();
        for (bytes_max, fits) in [(size, true), (size - 1, false)] {
            let mut fields = Fields::new(bytes_max);
            for (name, value) in GET {
                fields.take(name.as_bytes(), value.as_bytes());
            }
            assert_eq!(fields.into_request().err(), (!fits).then_some(Unfit::TooLarge));
        }
    }

    #[test]
    fn trailers_have_no_pseudo_fields() {
        assert_eq!(fields(&[("a", "b")]).into_trailers().expect("trailers")["a"], "b");
        assert!(matches!(fields(&[(":path", "/")]).into_trailers(), Err(Unfit::Malformed(_))));
    }
}
