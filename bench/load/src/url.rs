//! `scheme://127.0.0.1:PORT/path`, of this machine only.

use std::net::SocketAddr;

/// A URL on a loopback address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    pub is_tls: bool,
    pub address: SocketAddr,
    /// The path and query.
    pub path: String,
}

impl Url {
    /// Reads a URL.
    ///
    /// # Errors
    /// When it isn't one, or not of this machine: this program must never press another.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = |what: &str| format!("{text}: {what}");
        let (scheme, rest) = text.split_once("://").ok_or_else(|| wrong("not a URL"))?;
        let is_tls = match scheme {
            "http" => false,
            "https" => true,
            _ => return Err(wrong("neither http nor https")),
        };
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let address: SocketAddr = authority.parse().map_err(|_| wrong("needs an IP address and a port"))?;
        if !address.ip().is_loopback() {
            return Err(wrong("not a loopback address"));
        }
        Ok(Self { is_tls, address, path: if path.is_empty() { "/".into() } else { path.into() } })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_taken() {
        let url = Url::parse("https://127.0.0.1:1/a/{ch}?b").expect("a URL");
        assert_eq!((url.is_tls, url.address.port(), url.path.as_str()), (true, 1, "/a/{ch}?b"));
        for wrong in ["http://10.0.0.1:80/", "http://localhost:1/", "ftp://127.0.0.1:1/", "127.0.0.1:1"] {
            assert!(Url::parse(wrong).is_err(), "{wrong}");
        }
    }
}
