//! Files and environment variables that the configuration names: secrets, certificates, keys.

use super::Resolver;
use crate::config::problem::Spot;
use crate::config::read::{Field, Given, quote};
use crate::config::sources::Unreadable;
use crate::model::secret::Secret;
use crate::server::tls::{self, Certificate, ClientCa, Digest, Validity};
use crate::upstream::signature::Key;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use std::path::PathBuf;
use std::sync::Arc;

/// The largest secret, certificate or key file, in bytes.
const FILE_BYTES_MAX: u64 = 1024 * 1024;
/// How long before its end a certificate is warned of: whatever renews it should have done so long ago.
const EXPIRY_WARNING_SECS: i64 = 7 * 24 * 3600;

impl Resolver<'_> {
    /// A path as it is used: relative ones start at the configuration's folder.
    pub(super) fn path(&self, given: &str) -> PathBuf {
        self.folder.join(given)
    }

    /// The key of `Grip-Sig`.
    pub(super) fn grip_key(&mut self, spot: &Spot, file: &Field<String>, env: &Field<String>) -> Option<Key> {
        let secret = self.secret(spot, ("key_file", file), ("key_env", env))?;
        let key = Key::parse(secret.value.expose());
        key.map_err(|error| self.problems.add(&secret.spot, format!("the key can't be used: {error}"))).ok()
    }

    /// A secret from a file or the environment; exactly one of the two must be there.
    pub(super) fn secret(
        &mut self,
        spot: &Spot,
        file: (&str, &Field<String>),
        env: (&str, &Field<String>),
    ) -> Option<Given<Secret>> {
        let keys = [(file.0, !file.1.is_absent()), (env.0, !env.1.is_absent())];
        if !self.exactly_one(spot, &keys) {
            return None;
        }
        let (bytes, spot) = match (file.1.given(), env.1.given()) {
            (Some(given), _) => (self.contents(given)?, &given.spot),
            (_, Some(given)) => match (self.env)(&given.value) {
                Some(value) => (value.into_bytes(), &given.spot),
                None => {
                    let text = format!("the environment variable {} is not set; set it", quote(&given.value));
                    self.problems.add(&given.spot, text);
                    return None;
                }
            },
            (None, None) => return None,
        };
        let line = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            self.problems.add(spot, "the secret is empty; write it there");
            return None;
        }
        Some(Given { value: Secret::new(line), spot: spot.clone() })
    }

    /// A whole file.
    pub(super) fn contents(&mut self, given: &Given<String>) -> Option<Vec<u8>> {
        let path = self.path(&given.value);
        let wrong = match self.sources.read(&path, FILE_BYTES_MAX) {
            Ok(bytes) => return Some(bytes),
            Err(Unreadable::TooLarge) => "more than 1MiB; name another file".to_owned(),
            Err(Unreadable::Failed(reason)) => format!("{reason}; looked for it at {}", path.display()),
        };
        self.problems.add(&given.spot, format!("{} can't be read: {wrong}", quote(&given.value)));
        None
    }

    /// Certificates of a PEM file, one at least.
    fn certificates(&mut self, given: &Given<String>) -> Option<Vec<CertificateDer<'static>>> {
        let bytes = self.contents(given)?;
        match CertificateDer::pem_slice_iter(&bytes).collect::<Result<Vec<_>, _>>() {
            Ok(chain) if !chain.is_empty() => Some(chain),
            Ok(_) => {
                let text = "has no certificate; it must hold PEM with BEGIN CERTIFICATE";
                self.problems.add(&given.spot, format!("{} {text}", quote(&given.value)));
                None
            }
            Err(error) => {
                self.problems.add(&given.spot, format!("{} is no valid PEM: {error}", quote(&given.value)));
                None
            }
        }
    }

    /// A chain and a key that can be used together. One that is expired can be used: clients that go on in spite of
    /// it are better served than by a gateway that does not start.
    pub(super) fn certificate(&mut self, cert: &Given<String>, key: &Given<String>) -> Option<Certificate> {
        let chain = self.certificates(cert);
        let bytes = self.contents(key)?;
        let Ok(private) = PrivateKeyDer::from_pem_slice(&bytes) else {
            let text = "has no private key; it must hold PEM with BEGIN PRIVATE KEY (not encrypted)";
            self.problems.add(&key.spot, format!("{} {text}", quote(&key.value)));
            return None;
        };
        let certified = match CertifiedKey::from_der(chain?, private, &tls::provider()) {
            Ok(certified) => certified,
            Err(error) => {
                self.unfit(cert, key, &error);
                return None;
            }
        };
        match Certificate::new(self.path(&cert.value), self.path(&key.value), certified) {
            Ok(certificate) => {
                self.warn_of_dates(cert, certificate.validity);
                Some(certificate)
            }
            Err(error) => {
                self.problems.add(&cert.spot, format!("{} can't be used: {error}", quote(&cert.value)));
                None
            }
        }
    }

    fn unfit(&mut self, cert: &Given<String>, key: &Given<String>, error: &rustls::Error) {
        match error {
            rustls::Error::InconsistentKeys(_) => {
                let text = format!("{} is not the key of {}", quote(&key.value), quote(&cert.value));
                self.problems.add(&key.spot, format!("{text}; name the one that it was made with"));
            }
            rustls::Error::InvalidCertificate(error) => {
                self.problems.add(&cert.spot, format!("{} can't be used: {error}", quote(&cert.value)));
            }
            error => self.problems.add(&key.spot, format!("{} can't be used: {error}", quote(&key.value))),
        }
    }

    fn warn_of_dates(&mut self, cert: &Given<String>, validity: Validity) {
        let text = if validity.not_after_secs < self.now_secs {
            format!("expired on {}; it is served all the same; renew it", date(validity.not_after_secs))
        } else if validity.not_before_secs > self.now_secs {
            format!("is not valid before {}; look at its dates and the clock", date(validity.not_before_secs))
        } else if validity.not_after_secs - self.now_secs < EXPIRY_WARNING_SECS {
            format!("expires on {}; renew it", date(validity.not_after_secs))
        } else {
            return;
        };
        self.warnings.add(&cert.spot, format!("{} {text}", quote(&cert.value)));
    }

    /// A file's certificates, which can be trust anchors.
    pub(super) fn trust_anchors(&mut self, given: &Given<String>) -> Option<Vec<CertificateDer<'static>>> {
        let certificates = self.certificates(given)?;
        let mut roots = RootCertStore::empty();
        for certificate in &certificates {
            if let Err(error) = roots.add(certificate.clone()) {
                self.problems.add(&given.spot, format!("{} can't be used: {error}", quote(&given.value)));
                return None;
            }
        }
        Some(certificates)
    }

    /// The roots that sign the certificates of clients.
    pub(super) fn client_ca(&mut self, given: &Given<String>) -> Option<ClientCa> {
        let certificates = self.trust_anchors(given)?;
        let digest = Digest::of(certificates.iter().map(|certificate| certificate.as_ref()));
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(certificates);
        Some(ClientCa { file: self.path(&given.value), digest, roots: Arc::new(roots) })
    }
}

/// A moment for people.
fn date(unix_secs: i64) -> String {
    let moment = time::OffsetDateTime::from_unix_timestamp(unix_secs).ok();
    moment.map_or_else(|| unix_secs.to_string(), |moment| moment.date().to_string())
}
