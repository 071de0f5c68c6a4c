//! TLS of a listener: certificates by SNI, client certificates, ALPN.

use crate::server::listener::{Protocol, Protocols};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio_rustls::TlsAcceptor;

/// The checked `tls` section, its files not yet read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsSettings {
    /// Certificate chains and keys (PEM); the first is the default.
    pub certificates: Vec<CertificateFiles>,
    /// The oldest version.
    pub min_version: TlsVersion,
    /// Whose client certificates are required.
    pub client_ca_file: Option<PathBuf>,
}

/// A certificate chain and its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles {
    /// PEM, leaf first.
    pub cert_file: PathBuf,
    /// PEM: PKCS#8, SEC1 or PKCS#1.
    pub key_file: PathBuf,
}

/// A TLS version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsVersion {
    /// RFC 5246.
    Tls12,
    /// RFC 8446.
    Tls13,
}

/// Why TLS can't be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file can't be read as PEM.
    #[error("{}: {reason}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A key is not the certificate's.
    #[error("{} is not the key of {}: {reason}", key.display(), cert.display())]
    Mismatch {
        /// The certificate.
        cert: PathBuf,
        /// The key.
        key: PathBuf,
        /// What the library says.
        reason: rustls::Error,
    },
    /// The library refuses the settings.
    #[error("TLS can't be set up: {0}")]
    Library(#[from] rustls::Error),
}

/// The crypto provider of the whole process, always passed explicitly.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// Reads the files and makes the acceptor of a listener.
///
/// # Errors
/// When a file is missing or malformed, or a key does not fit.
pub fn acceptor(settings: &TlsSettings, protocols: &Protocols) -> Result<TlsAcceptor, TlsError> {
    let provider = provider();
    let versions: &[&rustls::SupportedProtocolVersion] = match settings.min_version {
        TlsVersion::Tls12 => &[&rustls::version::TLS13, &rustls::version::TLS12],
        TlsVersion::Tls13 => &[&rustls::version::TLS13],
    };
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider)).with_protocol_versions(versions)?;
    let builder = match &settings.client_ca_file {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for cert in read_chain(path)? {
                roots.add(cert).map_err(|reason| file_error(path, reason))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build();
            builder.with_client_cert_verifier(verifier.map_err(|reason| file_error(path, reason))?)
        }
    };
    let mut config = builder.with_cert_resolver(Arc::new(Certificates::read(&settings.certificates, &provider)?));
    config.alpn_protocols = protocols
        .0
        .iter()
        .map(|protocol| match protocol {
            Protocol::H2 => b"h2".to_vec(),
            Protocol::Http1 => b"http/1.1".to_vec(),
        })
        .collect();
    // Session buffers are what an idle TLS connection costs most; tickets save a client's second handshake.
    config.send_tls13_tickets = 1;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Certificates by the name that a client asks for.
#[derive(Debug)]
struct Certificates {
    by_name: HashMap<String, Arc<CertifiedKey>>,
    default: Option<Arc<CertifiedKey>>,
}

impl Certificates {
    fn read(files: &[CertificateFiles], provider: &CryptoProvider) -> Result<Self, TlsError> {
        let mut certificates = Self { by_name: HashMap::new(), default: None };
        for files in files {
            let chain = read_chain(&files.cert_file)?;
            let leaf = chain.first().ok_or_else(|| file_error(&files.cert_file, "has no certificate"))?;
            let names: Vec<String> = webpki::EndEntityCert::try_from(leaf)
                .map_err(|reason| file_error(&files.cert_file, reason))?
                .valid_dns_names()
                .map(str::to_ascii_lowercase)
                .collect();
            let key = PrivateKeyDer::from_pem_file(&files.key_file)
                .map_err(|reason| file_error(&files.key_file, pem_reason(&reason, "private key")))?;
            let key = CertifiedKey::from_der(chain, key, provider).map_err(|reason| TlsError::Mismatch {
                cert: files.cert_file.clone(),
                key: files.key_file.clone(),
                reason,
            })?;
            let key = Arc::new(key);
            for name in names {
                certificates.by_name.entry(name).or_insert_with(|| Arc::clone(&key));
            }
            certificates.default.get_or_insert(key);
        }
        Ok(certificates)
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

fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|reason| file_error(path, pem_reason(&reason, "certificate")))
}

fn pem_reason(error: &rustls_pki_types::pem::Error, what: &str) -> String {
    match error {
        rustls_pki_types::pem::Error::NoItemsFound => format!("has no {what} in PEM form"),
        rustls_pki_types::pem::Error::Io(error) => error.to_string(),
        other => format!("is no valid PEM: {other}"),
    }
}

fn file_error(path: &Path, reason: impl ToString) -> TlsError {
    TlsError::File { path: path.to_owned(), reason: reason.to_string() }
}
