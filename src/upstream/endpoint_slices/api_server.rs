//! Requests to the API server, as the pod's service account. Knows nothing of what is asked for.

use crate::upstream::connect::Driver;
use bytes::{Bytes, BytesMut};
use http::header::{ACCEPT, AUTHORIZATION, HOST};
use http::{HeaderValue, Request, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

/// Where the kubelet puts the token and the certificates of a pod's service account.
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// From nothing to the head of an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// From its head to its end, if it has one.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// A list of all slices that are heeded is smaller.
const BODY_BYTES_MAX: usize = 16 * 1024 * 1024;
/// No object of Kubernetes is larger than what etcd takes, 1.5 MiB.
const LINE_BYTES_MAX: usize = 2 * 1024 * 1024;
/// A response head, and what is read ahead.
const READ_BYTES_MAX: usize = 64 * 1024;

/// Where the API server is, and who asks.
pub(super) struct ApiServer {
    host: String,
    port: u16,
    account: PathBuf,
}

/// A body that comes; dropping it closes the connection.
pub(super) struct Answer {
    body: Incoming,
    rest: BytesMut,
    _driver: Driver,
}

/// Why there is no answer.
#[derive(Debug, Error)]
pub(super) enum ApiError {
    #[error("{path}: {source}; the pod needs automountServiceAccountToken: true")]
    Account { path: PathBuf, source: io::Error },
    #[error("the service account's {0} can't be used")]
    Unusable(&'static str),
    #[error("can't connect: {0}")]
    Connect(#[from] io::Error),
    #[error("{0}")]
    Http(#[from] hyper::Error),
    #[error("answers {0}{hint}", hint = hint(*.0))]
    Status(StatusCode),
    #[error("does not answer in time")]
    Timeout,
    #[error("answers with more than is taken")]
    TooLarge,
    #[error("answers no EndpointSlices: {0}")]
    Malformed(#[from] serde_json::Error),
}

fn hint(status: StatusCode) -> &'static str {
    match status {
        StatusCode::FORBIDDEN => "; the service account needs list and watch of endpointslices in that namespace",
        _ => "",
    }
}

impl ApiServer {
    /// As the environment of a pod says.
    pub(super) fn of_the_pod() -> Option<Self> {
        let host = std::env::var("KUBERNETES_SERVICE_HOST").ok()?;
        let port = std::env::var("KUBERNETES_SERVICE_PORT").ok()?.parse().ok()?;
        Some(Self::new(host, port, ACCOUNT.into()))
    }

    pub(super) fn new(host: String, port: u16, account: PathBuf) -> Self {
        Self { host, port, account }
    }

    /// Asks for a path, on a connection of its own. The files of the account are read each time, since tokens are renewed.
    ///
    /// # Errors
    /// When there is no answer in ten seconds, or one that is not 200.
    pub(super) async fn get(&self, path: &str) -> Result<Answer, ApiError> {
        timeout(ANSWER_TIMEOUT, self.ask(path)).await.map_err(|_| ApiError::Timeout)?
    }

    async fn ask(&self, path: &str) -> Result<Answer, ApiError> {
        let token = self.file("token")?;
        let mut token = HeaderValue::from_bytes(&[b"Bearer ", token.trim_ascii()].concat())
            .map_err(|_| ApiError::Unusable("token"))?;
        token.set_sensitive(true);
        let tls = TlsConnector::from(Arc::new(self.tls()?));
        let name = ServerName::try_from(self.host.clone()).map_err(|_| ApiError::Unusable("address"))?;
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
        let stream = TokioIo::new(tls.connect(name, stream).await?);
        let (mut sender, connection) = http1::Builder::new().max_buf_size(READ_BYTES_MAX).handshake(stream).await?;
        let driver = Driver::spawn(async { drop(connection.await) });
        let mut request = Request::new(Empty::<Bytes>::new());
        *request.uri_mut() = path.parse().map_err(|_| ApiError::Unusable("path"))?;
        let host = HeaderValue::from_str(&self.host).map_err(|_| ApiError::Unusable("address"))?;
        request.headers_mut().insert(HOST, host);
        request.headers_mut().insert(ACCEPT, HeaderValue::from_static("application/json"));
        request.headers_mut().insert(AUTHORIZATION, token);
        let response = sender.send_request(request).await?;
        match response.status() {
            StatusCode::OK => Ok(Answer { body: response.into_body(), rest: BytesMut::new(), _driver: driver }),
            status => Err(ApiError::Status(status)),
        }
    }

    fn tls(&self) -> Result<ClientConfig, ApiError> {
        let text = self.file("ca.crt")?;
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&text) {
            let certificate = certificate.map_err(|_| ApiError::Unusable("ca.crt"))?;
            roots.add(certificate).map_err(|_| ApiError::Unusable("ca.crt"))?;
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = builder.map_err(|_| ApiError::Unusable("ca.crt"))?;
        Ok(builder.with_root_certificates(roots).with_no_client_auth())
    }

    fn file(&self, name: &str) -> Result<Vec<u8>, ApiError> {
        let path = self.account.join(Path::new(name));
        std::fs::read(&path).map_err(|source| ApiError::Account { path, source })
    }
}

impl Answer {
    /// All of it.
    pub(super) async fn whole(mut self) -> Result<BytesMut, ApiError> {
        let all = async {
            while self.more(BODY_BYTES_MAX).await? {}
            Ok(std::mem::take(&mut self.rest))
        };
        timeout(BODY_TIMEOUT, all).await.map_err(|_| ApiError::Timeout)?
    }

    /// The next line, within `patience`; none at the end.
    pub(super) async fn line(&mut self, patience: Duration) -> Result<Option<BytesMut>, ApiError> {
        let mut looked_at = 0;
        loop {
            if let Some(at) = memchr::memchr(b'\n', &self.rest[looked_at..]) {
                return Ok(Some(self.rest.split_to(looked_at + at + 1)));
            }
            looked_at = self.rest.len();
            if !timeout(patience, self.more(LINE_BYTES_MAX)).await.map_err(|_| ApiError::Timeout)?? {
                return Ok(None);
            }
        }
    }

    /// Reads on; whether there was more.
    async fn more(&mut self, bytes_max: usize) -> Result<bool, ApiError> {
        let Some(frame) = self.body.frame().await else { return Ok(false) };
        if let Some(data) = frame?.data_ref() {
            self.rest.extend_from_slice(data);
        }
        if self.rest.len() > bytes_max { Err(ApiError::TooLarge) } else { Ok(true) }
    }
}
