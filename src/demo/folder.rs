//! The demo's temporary folder: a certificate made at start and the configuration that names it.

use anyhow::Context as _;
use std::fs;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

const CONFIG: &str = include_str!("../../config/demo.yaml");
const CERTIFICATE_LIFETIME: Duration = Duration::from_secs(30 * 24 * 3600);
const NAMES_TRIED_MAX: u32 = 100;

/// The addresses that replace those of `config/demo.yaml`.
#[derive(Debug, Clone, Copy)]
pub struct Addresses {
    /// Where the page is served.
    pub listen: SocketAddr,
    /// Where events are published.
    pub publish: SocketAddr,
    /// Where metrics are.
    pub admin: SocketAddr,
    /// Where the origin listens.
    pub origin: SocketAddr,
}

/// A private folder, removed with all in it when dropped.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
}

impl Folder {
    /// Makes the folder with `pushbridge.yaml`, `demo.crt` and `demo.key` in it.
    ///
    /// # Errors
    /// When no folder can be made below the system's temporary folder, or the certificate can't be made.
    pub fn make(addresses: Addresses) -> anyhow::Result<Self> {
        let folder = Self { path: make_private(&std::env::temp_dir())? };
        let (certificate, key) = certificate().context("the demo's certificate can't be made")?;
        folder.write("demo.crt", &certificate)?;
        folder.write("demo.key", &key)?;
        folder.write("pushbridge.yaml", &config(addresses)?)?;
        Ok(folder)
    }

    /// The path of the configuration file.
    pub fn config(&self) -> PathBuf {
        self.path.join("pushbridge.yaml")
    }

    fn write(&self, name: &str, text: &str) -> anyhow::Result<()> {
        let path = self.path.join(name);
        let mut options = fs::OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let written = options.open(&path).and_then(|mut file| file.write_all(text.as_bytes()));
        written.with_context(|| format!("{} can't be written", path.display()))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            tracing::warn!(%error, path = %self.path.display(), "demo folder not removed");
        }
    }
}

/// A new folder that only this user can read; never one that is already there.
fn make_private(parent: &Path) -> anyhow::Result<PathBuf> {
    let mut builder = fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    let process = std::process::id();
    for number in 0..NAMES_TRIED_MAX {
        let path = parent.join(format!("pushbridge-demo-{process}-{number}"));
        match builder.create(&path) {
            Ok(()) => return Ok(path),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => {
                return Err(error).with_context(|| format!("{} can't be made; is TMPDIR right?", path.display()));
            }
        }
    }
    anyhow::bail!("{} holds too many folders of earlier demos; remove pushbridge-demo-*", parent.display())
}

/// A self-signed certificate for this machine's own names, and its key, both PEM.
fn certificate() -> anyhow::Result<(String, String)> {
    let names = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
    let mut params = rcgen::CertificateParams::new(names)?;
    params.distinguished_name.push(rcgen::DnType::CommonName, "pushbridge demo");
    let now = time::OffsetDateTime::now_utc();
    params.not_before = now - Duration::from_secs(3600);
    params.not_after = now + CERTIFICATE_LIFETIME;
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    let key = rcgen::KeyPair::generate()?;
    Ok((params.self_signed(&key)?.pem(), key.serialize_pem()))
}

/// `config/demo.yaml` with this run's addresses.
fn config(addresses: Addresses) -> anyhow::Result<String> {
    let mut rest = CONFIG;
    let mut text = String::new();
    // In the order of the file, so that no address put in is taken for one to be replaced.
    for (written, address) in [
        ("127.0.0.1:8443", yaml(addresses.listen)),
        ("127.0.0.1:5561", yaml(addresses.publish)),
        ("127.0.0.1:9901", yaml(addresses.admin)),
        ("127.0.0.1:3000\"", format!("{}\"", addresses.origin)),
    ] {
        let (before, after) = rest.split_once(written).with_context(|| format!("config/demo.yaml lacks {written}"))?;
        text.push_str(before);
        text.push_str(&address);
        rest = after;
    }
    text.push_str(rest);
    Ok(text)
}

/// An IPv6 address starts with a bracket, which YAML would read as a list.
fn yaml(address: SocketAddr) -> String {
    if address.is_ipv6() { format!("\"{address}\"") } else { address.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses() -> Addresses {
        let address = |text: &str| text.parse().expect("an address");
        Addresses {
            listen: address("[::1]:1"),
            publish: address("127.0.0.1:2"),
            admin: address("127.0.0.1:3"),
            origin: address("127.0.0.1:4"),
        }
    }

    #[test]
    fn the_configuration_gets_the_addresses() {
        let text = config(addresses()).expect("all are in it");
        for part in ["address: \"[::1]:1\"", "address: 127.0.0.1:2 ", "address: 127.0.0.1:3\n", "http://127.0.0.1:4\""]
        {
            assert!(text.contains(part), "{part} is missing in {text}");
        }
        assert!(!text.contains("8443") && !text.contains("5561") && !text.contains("9901"));
    }

    #[test]
    fn the_folder_is_private_and_goes_away() {
        let folder = Folder::make(addresses()).expect("a folder");
        let path = folder.path.clone();
        assert!(folder.config().exists() && path.join("demo.crt").exists());
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            assert_eq!(fs::metadata(&path).expect("it is there").permissions().mode() & 0o777, 0o700);
            assert_eq!(fs::metadata(path.join("demo.key")).expect("it is there").permissions().mode() & 0o777, 0o600);
        }
        let second = Folder::make(addresses()).expect("another folder");
        assert_ne!(second.path, path);
        drop(folder);
        assert!(!path.exists());
    }
}
