//! Certificates that a test makes for itself.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use std::path::Path;
use tempfile::TempDir;

/// An authority that signs certificates.
pub type Authority = CertifiedIssuer<'static, KeyPair>;

/// A folder with a self-signed `NAME.crt` and `NAME.key` for each name; a `*` of the name becomes `wild`.
pub fn folder(names: &[&str]) -> TempDir {
    let folder = TempDir::new().expect("a folder");
    for name in names {
        let made = rcgen::generate_simple_self_signed([(*name).to_owned()]).expect("a certificate");
        write(folder.path(), &name.replace('*', "wild"), &made.cert.pem(), &made.signing_key.serialize_pem());
    }
    folder
}

/// A new authority.
pub fn authority() -> Authority {
    let mut params = CertificateParams::new(Vec::new()).expect("parameters");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an authority")
}

/// A client's certificate and key (DER), signed by `authority`.
pub fn client(authority: &Authority) -> (Vec<u8>, Vec<u8>) {
    let mut params = CertificateParams::new(vec!["client".to_owned()]).expect("parameters");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let key = KeyPair::generate().expect("a key");
    let made = params.signed_by(&key, authority).expect("a certificate");
    (made.der().to_vec(), key.serialize_der())
}

fn write(folder: &Path, name: &str, cert: &str, key: &str) {
    std::fs::write(folder.join(format!("{name}.crt")), cert).expect("written");
    std::fs::write(folder.join(format!("{name}.key")), key).expect("written");
}
