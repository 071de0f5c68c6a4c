//! Files and environment variables that the configuration names: secrets, certificates, keys.

use super::Resolver;
use crate::config::problem::Spot;
use crate::config::read::{Field, Given, quote};
use crate::model::secret::Secret;
use crate::proto::grip::signature::Key;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use std::io::Read;
use std::path::PathBuf;

/// The largest secret, certificate or key file, in bytes.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

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
    fn contents(&mut self, given: &Given<String>) -> Option<Vec<u8>> {
        let path = self.path(&given.value);
        let mut bytes = Vec::new();
        let read = std::fs::File::open(&path)
            .and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes))
            .map_err(|error| super::super::reason(&error));
        let wrong = match read {
            Ok(length) if length as u64 > FILE_BYTES_MAX => "more than 1MiB; name another file".to_owned(),
            Ok(_) => return Some(bytes),
            Err(reason) => format!("{reason}; looked for it at {}", path.display()),
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

    /// Looks whether a chain and a key can be used together.
    pub(super) fn check_certificate(&mut self, cert: &Given<String>, key: &Given<String>) {
        let chain = self.certificates(cert);
        let Some(bytes) = self.contents(key) else { return };
        let Ok(private) = PrivateKeyDer::from_pem_slice(&bytes) else {
            let text = "has no private key; it must hold PEM with BEGIN PRIVATE KEY (not encrypted)";
            self.problems.add(&key.spot, format!("{} {text}", quote(&key.value)));
            return;
        };
        let Some(chain) = chain else { return };
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        match CertifiedKey::from_der(chain, private, &provider) {
            Ok(_) => {}
            Err(rustls::Error::InconsistentKeys(_)) => {
                let text = format!("{} is not the key of {}", quote(&key.value), quote(&cert.value));
                self.problems.add(&key.spot, format!("{text}; name the one that it was made with"));
            }
            Err(rustls::Error::InvalidCertificate(error)) => {
                self.problems.add(&cert.spot, format!("{} can't be used: {error}", quote(&cert.value)));
            }
            Err(error) => self.problems.add(&key.spot, format!("{} can't be used: {error}", quote(&key.value))),
        }
    }

    /// Looks whether a file's certificates can be trust anchors.
    pub(super) fn check_client_ca(&mut self, given: &Given<String>) {
        let Some(certificates) = self.certificates(given) else { return };
        let mut store = RootCertStore::empty();
        for certificate in certificates {
            if let Err(error) = store.add(certificate) {
                self.problems.add(&given.spot, format!("{} can't be used: {error}", quote(&given.value)));
                return;
            }
        }
    }
}
