//! From a URL to a connected stream: TCP, and TLS where the URL says so.

use crate::cli::subscribe::SubscribeArgs;
use anyhow::{Context as _, bail, ensure};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Where systems keep their trusted certificates.
const SYSTEM_ROOTS: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
    "/usr/local/etc/ssl/cert.pem",
];

/// A connected byte stream, encrypted or not.
pub type Socket = Box<dyn Io>;

/// What a connection can do.
pub trait Io: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> Io for T {}

/// What the peers agreed to speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    H2,
}

/// Connects to the server of one URL.
pub struct Dialer {
    /// The URL's host and port as written: the `Host` field.
    pub authority: http::uri::Authority,
    /// The URL's path and query.
    pub path: http::uri::PathAndQuery,
    /// Fields that the user wants sent.
    pub headers: Vec<(http::HeaderName, http::HeaderValue)>,
    /// `http` or `https`.
    pub scheme: http::uri::Scheme,
    host: String,
    port: u16,
    tls: Option<Arc<ClientConfig>>,
}

impl Dialer {
    /// Checks the URL and reads the trusted certificates, if it needs any.
    ///
    /// # Errors
    /// When the URL is not http or https, or no certificates can be read.
    pub fn new(args: &SubscribeArgs) -> anyhow::Result<Self> {
        let url = args.url.clone().into_parts();
        let scheme = url.scheme.as_ref().map_or("", |scheme| scheme.as_str());
        let encrypted = match scheme {
            "https" | "wss" => true,
            "http" | "ws" => false,
            _ => bail!("{:?} is no http:// or https:// URL", args.url.to_string()),
        };
        let authority = url.authority.with_context(|| format!("{:?} has no host", args.url.to_string()))?;
        ensure!(
            !authority.as_str().contains('@'),
            "a URL with a password is not used; give --header 'Authorization: …'"
        );
        Ok(Self {
            host: authority.host().trim_matches(['[', ']']).to_owned(),
            port: authority.port_u16().unwrap_or(if encrypted { 443 } else { 80 }),
            authority,
            path: url.path_and_query.unwrap_or_else(|| http::uri::PathAndQuery::from_static("/")),
            headers: args.headers.clone(),
            scheme: if encrypted { http::uri::Scheme::HTTPS } else { http::uri::Scheme::HTTP },
            tls: if encrypted { Some(Arc::new(tls(args)?)) } else { None },
        })
    }

    /// Connects; over TLS it offers `versions` in their order (ALPN, RFC 7301), in cleartext it is HTTP/1.1.
    ///
    /// # Errors
    /// Says which step failed.
    pub async fn connect(&self, versions: &[Version]) -> anyhow::Result<(Socket, Version)> {
        let connecting = self.connect_in_time(versions);
        let timeout = tokio::time::timeout(CONNECT_TIMEOUT, connecting).await;
        timeout.with_context(|| format!("{} did not answer within {} s", self.authority, CONNECT_TIMEOUT.as_secs()))?
    }

    async fn connect_in_time(&self, versions: &[Version]) -> anyhow::Result<(Socket, Version)> {
        let tcp = TcpStream::connect((self.host.as_str(), self.port)).await.context("can't connect")?;
        tcp.set_nodelay(true)?;
        let Some(tls) = &self.tls else { return Ok((Box::new(tcp), Version::Http1)) };
        let mut tls = ClientConfig::clone(tls);
        let name = |version: &Version| if *version == Version::H2 { b"h2".to_vec() } else { b"http/1.1".to_vec() };
        tls.alpn_protocols = versions.iter().map(name).collect();
        let server = ServerName::try_from(self.host.clone()).context("the URL's host can't be a certificate's name")?;
        let stream = tokio_rustls::TlsConnector::from(Arc::new(tls)).connect(server, tcp).await;
        let stream = stream.context("no TLS connection (--insecure accepts any certificate)")?;
        let version = if stream.get_ref().1.alpn_protocol() == Some(b"h2") { Version::H2 } else { Version::Http1 };
        Ok((Box::new(stream), version))
    }
}

fn tls(args: &SubscribeArgs) -> anyhow::Result<ClientConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
    let config = if args.insecure {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
    } else {
        builder.with_root_certificates(roots(args.ca_file.as_deref())?)
    };
    Ok(config.with_no_client_auth())
}

fn roots(ca_file: Option<&Path>) -> anyhow::Result<RootCertStore> {
    let file = match ca_file {
        Some(file) => file.to_owned(),
        None => system_roots().context("the system's trusted certificates are not found; name them with --ca-file")?,
    };
    let mut store = RootCertStore::empty();
    let certificates =
        CertificateDer::pem_file_iter(&file).with_context(|| format!("{} can't be read", file.display()))?;
    let certificates: Result<Vec<_>, _> = certificates.collect();
    let (added, _) =
        store.add_parsable_certificates(certificates.with_context(|| format!("{} is no PEM file", file.display()))?);
    ensure!(added > 0, "{} holds no certificate", file.display());
    Ok(store)
}

fn system_roots() -> Option<PathBuf> {
    let named = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    named.or_else(|| SYSTEM_ROOTS.iter().map(PathBuf::from).find(|path| path.exists()))
}

/// `--insecure`: whoever answers is believed; signatures are still checked.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
