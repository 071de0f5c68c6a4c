//! Small HTTP clients over real sockets: one-shot requests, held streams, raw bytes. HTTP/1.1 cleartext unless said.

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

/// How long a test waits for anything.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// Which HTTP a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Http {
    /// HTTP/1.1, cleartext.
    H1,
    /// HTTP/2 with prior knowledge, cleartext.
    H2c,
    /// HTTP/1.1 over TLS.
    H1Tls,
    /// HTTP/2 over TLS, by ALPN.
    H2Tls,
}

/// A whole answer.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its fields.
    pub fields: HeaderMap,
    /// Its body.
    pub body: Bytes,
    /// Its trailers.
    pub trailers: Option<HeaderMap>,
}

impl Answer {
    /// The body as text.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("the body is text")
    }

    /// The body as JSON.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {:?}", self.body))
    }

    /// A field's text; empty if it is not there.
    pub fn field(&self, name: &str) -> &str {
        self.fields.get(name).map_or("", |value| value.to_str().expect("a field of text"))
    }
}

/// Waits for `future`; panics after a minute.
#[track_caller]
pub fn within<T>(what: &'static str, future: impl Future<Output = T>) -> impl Future<Output = T> {
    let waiting = tokio::time::timeout(DEADLINE, future);
    async move { waiting.await.unwrap_or_else(|_| panic!("waited in vain: {what}")) }
}

/// Sends one request on a connection of its own; the answer's head, its body still to come.
pub async fn open<B: Sendable>(http: Http, to: SocketAddr, request: Request<B>) -> Response<Incoming>
where
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    open_over(http, dial(to).await, request).await
}

/// As [`open`], on a connection that is there already.
pub async fn open_over<B: Sendable>(http: Http, tcp: TcpStream, request: Request<B>) -> Response<Incoming>
where
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let exchange = async {
        match http {
            Http::H1 => send_h1(tcp, request).await,
            Http::H2c => send_h2(tcp, request).await,
            Http::H1Tls => send_h1(tls(tcp, b"http/1.1", "localhost").await, request).await,
            Http::H2Tls => send_h2(tls(tcp, b"h2", "localhost").await, request).await,
        }
    };
    within("an answer", Box::pin(exchange)).await
}

/// Sends one request and reads the whole answer.
pub async fn send<B: Sendable>(http: Http, to: SocketAddr, request: Request<B>) -> Answer
where
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let response = open(http, to, request).await;
    let (parts, body) = response.into_parts();
    let collected = within("a whole body", body.collect()).await.expect("a whole body");
    let trailers = collected.trailers().cloned();
    Answer { status: parts.status, fields: parts.headers, body: collected.to_bytes(), trailers }
}

/// A GET with fields, for a server at `to`.
pub fn get(to: SocketAddr, path: &str, fields: &[(&str, &str)]) -> Request<Full<Bytes>> {
    request("GET", to, path, fields, "")
}

/// A POST with fields and a body.
pub fn post(to: SocketAddr, path: &str, fields: &[(&str, &str)], body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    request("POST", to, path, fields, body)
}

/// Any request.
pub fn request(
    method: &str,
    to: SocketAddr,
    path: &str,
    fields: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> Request<Full<Bytes>> {
    let mut request = Request::builder().method(method).uri(format!("http://{to}{path}"));
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    request.body(Full::new(body.into())).expect("a request")
}

/// Publishes one JSON event and gives the answer.
pub async fn publish(to: SocketAddr, event: &str) -> Answer {
    let json = [("content-type", "application/json")];
    send(Http::H1, to, post(to, "/v1/events", &json, event.to_owned())).await
}

/// Writes raw bytes and reads until the server closes, or until `until` stands in what was read.
pub async fn raw(to: SocketAddr, bytes: &[u8], until: &str) -> String {
    let mut tcp = dial(to).await;
    tcp.write_all(bytes).await.expect("written");
    let mut read = Vec::new();
    let reading = async {
        let mut part = [0; 4096];
        while until.is_empty() || !String::from_utf8_lossy(&read).contains(until) {
            match tcp.read(&mut part).await {
                Ok(len) if len > 0 => read.extend_from_slice(&part[..len]),
                _ => break,
            }
        }
    };
    within("raw bytes", reading).await;
    String::from_utf8_lossy(&read).into_owned()
}

/// A TCP connection.
pub async fn dial(to: SocketAddr) -> TcpStream {
    let tcp = within("a connection", TcpStream::connect(to)).await.expect("a connection");
    tcp.set_nodelay(true).expect("a socket option");
    tcp
}

/// A TLS connection that takes any certificate.
pub async fn dial_tls(to: SocketAddr, alpn: &[u8], name: &str) -> TlsStream<TcpStream> {
    tls(dial(to).await, alpn, name).await
}

/// TLS that takes any certificate, over a connection.
pub async fn tls(tcp: TcpStream, alpn: &[u8], name: &str) -> TlsStream<TcpStream> {
    let mut config = any_certificate(rustls::DEFAULT_VERSIONS).with_no_client_auth();
    config.alpn_protocols = vec![alpn.to_vec()];
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    within("a handshake", connector.connect(name, tcp)).await.expect("a handshake")
}

/// The start of a client's TLS configuration that takes any certificate.
pub fn any_certificate(
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> rustls::ConfigBuilder<rustls::ClientConfig, rustls::client::WantsClientCert> {
    rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_protocol_versions(versions)
        .expect("versions")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate))
}

/// A request body that a client can send.
pub trait Sendable: hyper::body::Body<Data = Bytes> + Send + Unpin + 'static {}

impl<B: hyper::body::Body<Data = Bytes> + Send + Unpin + 'static> Sendable for B {}

async fn send_h1<B: Sendable>(
    io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    mut request: Request<B>,
) -> Response<Incoming>
where
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let authority = request.uri().authority().expect("an absolute URI").to_string();
    request.headers_mut().entry("host").or_insert(authority.parse().expect("a host"));
    *request.uri_mut() = request.uri().path_and_query().expect("a path").as_str().parse().expect("a path");
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(io)).await.expect("a handshake");
    tokio::spawn(connection);
    sender.send_request(request).await.expect("an answer")
}

async fn send_h2<B: Sendable>(
    io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    request: Request<B>,
) -> Response<Incoming>
where
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(io)).await.expect("a handshake");
    tokio::spawn(connection);
    sender.send_request(request).await.expect("an answer")
}

/// A held stream's text as it comes.
pub struct Stream {
    body: Incoming,
    text: String,
    read: usize,
}

impl Stream {
    /// The stream of a response.
    pub fn of(response: Response<Incoming>) -> Self {
        Self { body: response.into_body(), text: String::new(), read: 0 }
    }

    /// Reads until the unread text has `end`, and gives it up to there.
    #[track_caller]
    pub fn until<'a>(&'a mut self, end: &'a str) -> impl Future<Output = String> + 'a {
        let caller = std::panic::Location::caller();
        async move {
            let reading = async {
                loop {
                    if let Some(at) = self.text[self.read..].find(end) {
                        let start = self.read;
                        self.read += at + end.len();
                        return self.text[start..self.read].to_owned();
                    }
                    let Some(frame) = self.body.frame().await else {
                        panic!("{caller}: ended before {end:?}: {:?}", &self.text[self.read..])
                    };
                    let frame = frame.unwrap_or_else(|error| panic!("{caller}: {error} before {end:?}"));
                    if let Some(data) = frame.data_ref() {
                        self.text.push_str(std::str::from_utf8(data).expect("text"));
                    }
                }
            };
            tokio::time::timeout(DEADLINE, reading)
                .await
                .unwrap_or_else(|_| panic!("{caller}: waited in vain for {end:?}"))
        }
    }

    /// Reads to the clean end, and gives what was unread.
    pub async fn rest(mut self) -> String {
        let reading = async {
            while let Some(frame) = self.body.frame().await {
                if let Some(data) = frame.expect("a clean end").data_ref() {
                    self.text.push_str(std::str::from_utf8(data).expect("text"));
                }
            }
        };
        within("the end of a stream", reading).await;
        self.text[self.read..].to_owned()
    }
}

#[derive(Debug)]
struct AnyCertificate;

impl rustls::client::danger::ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
