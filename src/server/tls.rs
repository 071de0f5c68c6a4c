//! TLS of a listener: certificates by SNI, client certificates, ALPN.

use std::path::PathBuf;

/// The checked `tls` section, its files not yet read.
#[derive(Debug, Clone)]
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
