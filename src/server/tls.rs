//! TLS of a listener: certificates by SNI, client certificates, ALPN.

pub mod stream;
mod validity;

use crate::server::listener::{Protocol, Protocols};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

pub use validity::Validity;

/// The checked `tls` section, its files read.
#[derive(Debug, Clone)]
pub struct TlsSettings {
    /// Certificate chains and keys; the first is the default.
    pub certificates: Vec<Certificate>,
    /// The oldest version.
    pub min_version: TlsVersion,
    /// Whose client certificates are required.
    pub client_ca: Option<ClientCa>,
}

/// A certificate chain, and the key that fits it.
#[derive(Debug, Clone)]
pub struct Certificate {
    /// Where the chain was read from.
    pub cert_file: PathBuf,
    /// Where the key was read from.
    pub key_file: PathBuf,
    /// The names that it is for, in lower case; with `*.` before those that stand for one label more.
    pub names: Vec<String>,
    /// When it may be used.
    pub validity: Validity,
    /// Stands for chain and key, to tell whether they changed.
    pub digest: Digest,
    /// What the library uses.
    pub certified: Arc<CertifiedKey>,
}

/// Whose client certificates are taken.
#[derive(Debug, Clone)]
pub struct ClientCa {
    /// Where it was read from.
    pub file: PathBuf,
    /// Stands for the contents, to tell whether they changed.
    pub digest: Digest,
    /// The trust anchors.
    pub roots: Arc<RootCertStore>,
}

/// A hash of what was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Digest(pub [u8; 32]);

/// A TLS version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsVersion {
    /// RFC 5246.
    Tls12,
    /// RFC 8446.
    Tls13,
}

/// Why a certificate can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// There is none.
    #[error("the chain is empty")]
    Empty,
    /// It is malformed.
    #[error("{0}")]
    Malformed(String),
}

/// Why TLS can't be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The client certificates' authority can't be used.
    #[error("{} can't be used: {reason}", path.display())]
    ClientCa {
        /// Which file.
        path: PathBuf,
        /// What the library says.
        reason: rustls::server::VerifierBuilderError,
    },
    /// The library refuses the settings.
    #[error("TLS can't be set up: {0}")]
    Library(#[from] rustls::Error),
}

impl TlsSettings {
    /// Whether a listener with these settings and one with the `other` do the same.
    pub fn is_like(&self, other: &Self) -> bool {
        let certificates = |settings: &Self| settings.certificates.iter().map(|one| one.digest).collect::<Vec<_>>();
        let ca = |settings: &Self| settings.client_ca.as_ref().map(|ca| ca.digest);
        certificates(self) == certificates(other) && self.min_version == other.min_version && ca(self) == ca(other)
    }
}

impl Certificate {
    /// A certificate of a chain and its key, which are known to fit.
    ///
    /// # Errors
    /// When the leaf can't be read.
    pub fn new(cert_file: PathBuf, key_file: PathBuf, certified: CertifiedKey) -> Result<Self, CertificateError> {
        let leaf = certified.cert.first().ok_or(CertificateError::Empty)?;
        let parsed = webpki::EndEntityCert::try_from(leaf);
        let parsed = parsed.map_err(|error| CertificateError::Malformed(error.to_string()))?;
        let names = parsed.valid_dns_names().map(str::to_ascii_lowercase).collect();
        let validity = Validity::of(leaf);
        let validity = validity.ok_or_else(|| CertificateError::Malformed("its dates can't be read".to_owned()))?;
        let digest = Digest::of(certified.cert.iter().map(|der| der.as_ref()));
        Ok(Self { cert_file, key_file, names, validity, digest, certified: Arc::new(certified) })
    }
}

impl Digest {
    /// Of several parts, in their order. A key's is that of its certificate: they fit each other.
    pub fn of<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut context = ::aws_lc_rs::digest::Context::new(&::aws_lc_rs::digest::SHA256);
        for part in parts {
            context.update(&(part.len() as u64).to_le_bytes());
            context.update(part);
        }
        let mut bytes = [0; 32];
        bytes.copy_from_slice(context.finish().as_ref());
        Self(bytes)
    }
}

/// The crypto provider of the whole process, always passed explicitly.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// What the library needs to know of a listener.
///
/// # Errors
/// When the library refuses the settings.
pub fn server_config(settings: &TlsSettings, protocols: &Protocols) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = provider();
    let versions: &[&rustls::SupportedProtocolVersion] = match settings.min_version {
        TlsVersion::Tls12 => &[&rustls::version::TLS13, &rustls::version::TLS12],
        TlsVersion::Tls13 => &[&rustls::version::TLS13],
    };
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider)).with_protocol_versions(versions)?;
    let builder = match &settings.client_ca {
        None => builder.with_no_client_auth(),
        Some(ca) => {
            let roots = Arc::clone(&ca.roots);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider).build();
            let failed = |reason| TlsError::ClientCa { path: ca.file.clone(), reason };
            builder.with_client_cert_verifier(verifier.map_err(failed)?)
        }
    };
    let mut config = builder.with_cert_resolver(Arc::new(Certificates::new(&settings.certificates)));
    config.alpn_protocols = protocols
        .0
        .iter()
        .map(|protocol| match protocol {
            Protocol::H2 => b"h2".to_vec(),
            Protocol::Http1 => b"http/1.1".to_vec(),
        })
        .collect();
    // Tickets save a client's second handshake; one is enough for that.
    config.send_tls13_tickets = 1;
    Ok(Arc::new(config))
}

/// Certificates by the name that a client asks for.
#[derive(Debug)]
struct Certificates {
    by_name: HashMap<String, Arc<CertifiedKey>>,
    default: Option<Arc<CertifiedKey>>,
}

impl Certificates {
    fn new(settings: &[Certificate]) -> Self {
        let mut certificates = Self { by_name: HashMap::new(), default: None };
        for one in settings {
            for name in &one.names {
                certificates.by_name.entry(name.clone()).or_insert_with(|| Arc::clone(&one.certified));
            }
            certificates.default.get_or_insert_with(|| Arc::clone(&one.certified));
        }
        certificates
    }

    fn find(&self, name: &str) -> Option<&Arc<CertifiedKey>> {
        let name = name.to_ascii_lowercase();
        self.by_name.get(&name).or_else(|| {
            let (_, parent) = name.split_once('.')?;
            self.by_name.get(&format!("*.{parent}"))
        })
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        hello.server_name().and_then(|name| self.find(name)).or(self.default.as_ref()).cloned()
    }
}
