//! A certificate for listeners with TLS.

use tempfile::TempDir;

/// A folder with `tls.crt` and `tls.key` for localhost.
pub fn certified_folder() -> TempDir {
    let folder = TempDir::new().expect("a folder");
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    std::fs::write(folder.path().join("tls.crt"), made.cert.pem()).expect("written");
    std::fs::write(folder.path().join("tls.key"), made.signing_key.serialize_pem()).expect("written");
    folder
}
