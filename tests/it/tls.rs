//! TLS listeners: certificates by name, versions, client certificates, ALPN, and handshakes that fail.

use crate::support::backend::Backend;
use crate::support::certificates::{self, authority, client};
use crate::support::client::{Http, any_certificate, dial, dial_tls, get, raw, send, within};
use crate::support::metrics;
use crate::support::proxy::Proxy;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::client::TlsStream;

const ROUTES: &str = "
routes:
  - { name: events, match: { path: \"/events/{topic}\" }, push: { channels: [\"{topic}\"] } }
";

/// A configuration with one TLS listener `https`; `tls` is its section.
fn config(tls: &str) -> String {
    format!("listeners: [{{ name: https, address: \"127.0.0.1:0\", tls: {{ {tls} }} }}]\n{ROUTES}")
}

const LOCALHOST: &str = "certificates: [{ cert_file: localhost.crt, key_file: localhost.key }]";

async fn connect(to: SocketAddr, config: rustls::ClientConfig, name: &str) -> io::Result<TlsStream<TcpStream>> {
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    within("a handshake", connector.connect(name, dial(to).await)).await
}

/// Whether a request over this connection is answered; TLS 1.3 tells a client only then that it is refused.
async fn is_served(tls: io::Result<TlsStream<TcpStream>>) -> bool {
    let Ok(mut tls) = tls else { return false };
    let request = b"GET /nothing HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    if tls.write_all(request).await.is_err() {
        return false;
    }
    let mut text = Vec::new();
    let _ = within("an answer", tls.read_to_end(&mut text)).await;
    text.starts_with(b"HTTP/1.1 404 ")
}

#[tokio::test]
async fn the_name_that_a_client_asks_for_chooses_the_certificate() {
    let names = ["first.example", "b.example", "*.b.example"];
    let folder = certificates::folder(&names);
    let proxy = Proxy::start_in(
        folder,
        &config(
            "certificates: [
      { cert_file: first.example.crt, key_file: first.example.key },
      { cert_file: b.example.crt, key_file: b.example.key },
      { cert_file: wild.b.example.crt, key_file: wild.b.example.key }]",
        ),
    );
    for (asked, expected) in [
        ("first.example", "first.example"),
        ("b.example", "b.example"),
        ("B.Example", "b.example"),
        ("sub.b.example", "wild.b.example"),
        ("deep.sub.b.example", "first.example"),
        ("unknown.example", "first.example"),
        // An address is no name, so none is asked for.
        ("127.0.0.1", "first.example"),
    ] {
        let tls = dial_tls(proxy.address("https"), b"http/1.1", asked).await;
        let shown = tls.get_ref().1.peer_certificates().expect("certificates")[0].clone();
        let file = proxy.folder().join(format!("{expected}.crt"));
        assert_eq!(shown, CertificateDer::from_pem_file(file).expect("a certificate"), "{asked}");
    }
}

#[tokio::test]
async fn alpn_chooses_the_version_of_http() {
    let folder = certificates::folder(&["localhost"]);
    let listener = |name, protocols| {
        format!("  - {{ name: {name}, address: \"127.0.0.1:0\", protocols: [{protocols}], tls: {{ {LOCALHOST} }} }}\n")
    };
    let yaml = format!(
        "listeners:\n{}{}{}{ROUTES}",
        listener("both", "h2, http/1.1"),
        listener("one", "http/1.1"),
        listener("two", "h2")
    );
    let proxy = Proxy::start_in(folder, &yaml);
    for (listener, offered, chosen) in [
        ("both", &["h2", "http/1.1"][..], Some("h2")),
        ("both", &["http/1.1", "h2"], Some("h2")),
        ("both", &["http/1.1"], Some("http/1.1")),
        ("one", &["h2", "http/1.1"], Some("http/1.1")),
        ("two", &["h2", "http/1.1"], Some("h2")),
    ] {
        let mut tls = any_certificate(rustls::DEFAULT_VERSIONS).with_no_client_auth();
        tls.alpn_protocols = offered.iter().map(|name| name.as_bytes().to_vec()).collect();
        let tls = connect(proxy.address(listener), tls, "localhost").await.expect("a handshake");
        assert_eq!(tls.get_ref().1.alpn_protocol(), chosen.map(str::as_bytes), "{listener} {offered:?}");
    }
    for (listener, offered) in [("one", "h2"), ("two", "http/1.1"), ("both", "http/0.9")] {
        let mut tls = any_certificate(rustls::DEFAULT_VERSIONS).with_no_client_auth();
        tls.alpn_protocols = vec![offered.as_bytes().to_vec()];
        assert!(connect(proxy.address(listener), tls, "localhost").await.is_err(), "{listener} {offered}");
    }
    let silent = || any_certificate(rustls::DEFAULT_VERSIONS).with_no_client_auth();
    assert!(is_served(connect(proxy.address("both"), silent(), "localhost").await).await);
    // Without ALPN a listener for HTTP/2 alone expects HTTP/2.
    let tls = connect(proxy.address("two"), silent(), "localhost").await.expect("a handshake");
    let (mut send, connection) = h2::client::handshake(tls).await.expect("a handshake");
    tokio::spawn(connection);
    let request = http::Request::get("https://localhost/nothing").body(()).expect("a request");
    let (response, _) = send.send_request(request, true).expect("sent");
    assert_eq!(within("an answer", response).await.expect("an answer").status(), 404);
    for (version, listener) in [(Http::H1Tls, "both"), (Http::H2Tls, "both")] {
        let to = proxy.address(listener);
        assert_eq!(send_status(version, to).await, 404);
    }
}

async fn send_status(version: Http, to: SocketAddr) -> u16 {
    send(version, to, get(to, "/nothing", &[])).await.status.as_u16()
}

#[tokio::test]
async fn the_oldest_version_is_a_setting() {
    let (old, new) = ([&rustls::version::TLS12], [&rustls::version::TLS13]);
    for (setting, speaks_old) in [("", true), ("min_version: \"1.2\", ", true), ("min_version: \"1.3\", ", false)] {
        let folder = certificates::folder(&["localhost"]);
        let proxy = Proxy::start_in(folder, &config(&format!("{setting}{LOCALHOST}")));
        let to = proxy.address("https");
        let by = |versions| connect(to, any_certificate(versions).with_no_client_auth(), "localhost");
        assert_eq!(is_served(by(&old).await).await, speaks_old, "{setting}");
        assert!(is_served(by(&new).await).await, "{setting}");
        let refused = if speaks_old { 0.0 } else { 1.0 };
        metrics::reaches(&proxy, &metrics::refusals("tls_handshake"), refused).await;
    }
}

#[tokio::test]
async fn clients_show_a_certificate_of_the_authority_where_one_is_required() {
    let folder = certificates::folder(&["localhost"]);
    let (ours, theirs) = (authority(), authority());
    std::fs::write(folder.path().join("ca.crt"), ours.pem()).expect("written");
    let proxy = Proxy::start_in(folder, &config(&format!("{LOCALHOST}, client_ca_file: ca.crt")));
    let to = proxy.address("https");
    for versions in [&[&rustls::version::TLS12][..], &[&rustls::version::TLS13]] {
        let with = |authority| {
            let (certificate, key) = client(authority);
            let key = PrivateKeyDer::try_from(key).expect("a key");
            any_certificate(versions).with_client_auth_cert(vec![certificate.into()], key).expect("a configuration")
        };
        assert!(is_served(connect(to, with(&ours), "localhost").await).await);
        assert!(!is_served(connect(to, with(&theirs), "localhost").await).await);
        let without = any_certificate(versions).with_no_client_auth();
        assert!(!is_served(connect(to, without, "localhost").await).await);
    }
    metrics::reaches(&proxy, &metrics::refusals("tls_handshake"), 4.0).await;
}

#[tokio::test]
async fn handshakes_that_fail_or_never_end_disturb_nobody() {
    let folder = certificates::folder(&["localhost"]);
    let yaml = format!("{}\nlimits: {{ tls_handshake_timeout: 200ms }}\n", config(LOCALHOST));
    let proxy = Proxy::start_in(folder, &yaml);
    let to = proxy.address("https");
    // Garbage, cleartext HTTP, and a hello that breaks off; the last waits for more, as does silence.
    raw(to, &[0xff; 3000], "").await;
    raw(to, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", "").await;
    raw(to, b"\x16\x03\x01\x02\0\x01", "").await;
    raw(to, b"", "").await;
    metrics::reaches(&proxy, &metrics::refusals("tls_handshake"), 4.0).await;
    assert_eq!(send_status(Http::H2Tls, to).await, 404);
}

#[tokio::test]
async fn certificate_files_that_do_not_fit_are_named() {
    let folder = certificates::folder(&["localhost", "other"]);
    let path = folder.path();
    std::fs::write(path.join("empty.crt"), "").expect("written");
    std::fs::write(path.join("junk.key"), "-----BEGIN PRIVATE KEY-----\n!!\n-----END PRIVATE KEY-----\n")
        .expect("written");
    for (tls, named) in [
        ("certificates: [{ cert_file: missing.crt, key_file: localhost.key }]", &["missing.crt"][..]),
        ("certificates: [{ cert_file: localhost.crt, key_file: missing.key }]", &["missing.key"]),
        ("certificates: [{ cert_file: empty.crt, key_file: localhost.key }]", &["empty.crt"]),
        ("certificates: [{ cert_file: localhost.crt, key_file: junk.key }]", &["junk.key"]),
        ("certificates: [{ cert_file: localhost.key, key_file: localhost.crt }]", &["localhost.key"]),
        ("certificates: [{ cert_file: localhost.crt, key_file: other.key }]", &["localhost.crt", "other.key"]),
        ("certificates: [{ cert_file: localhost.crt, key_file: localhost.key }], client_ca_file: no.crt", &["no.crt"]),
        (
            "certificates: [{ cert_file: localhost.crt, key_file: localhost.key }], client_ca_file: empty.crt",
            &["empty.crt"],
        ),
    ] {
        let (code, said) = Proxy::refuse(path, &config(tls));
        assert_eq!(code, Some(78), "{tls}: {said}");
        assert!(named.iter().all(|file| said.contains(file)), "{tls}: {said}");
    }
}

#[tokio::test]
async fn a_port_that_is_taken_and_a_broken_configuration_are_told_apart() {
    let folder = tempfile::TempDir::new().expect("a folder");
    let taken = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let another = Proxy::start(ROUTES);
    let of_another = another.address("http").to_string();
    for address in [address, of_another] {
        let listener = format!("listeners: [{{ name: busy, address: \"{address}\" }}]\n{ROUTES}");
        let (code, said) = Proxy::refuse(folder.path(), &listener);
        assert_eq!(code, Some(1), "{said}");
        assert!(
            said.contains("listener busy") && said.contains(&address) && said.contains("another process"),
            "{said}"
        );
        let publish = format!("{ROUTES}\npublish: {{ address: \"{address}\" }}\n");
        let (code, said) = Proxy::refuse(folder.path(), &publish);
        assert!(code == Some(1) && said.contains("publish") && said.contains(&address), "{said}");
    }
    for broken in ["routes: 5\n", "routes: [{ name: x, match: {}, proxy: { upstream: nobody } }]\n", ": [\n"] {
        let (code, said) = Proxy::refuse(folder.path(), broken);
        assert_eq!(code, Some(78), "{said}");
        assert!(said.contains("pushbridge.yaml"), "{said}");
    }
}

#[tokio::test]
async fn a_tls_connection_closes_with_a_goodbye() {
    let backend = Backend::mirror().await;
    let folder = certificates::folder(&["localhost"]);
    let listener = format!("\nlisteners: [{{ name: https, address: \"127.0.0.1:0\", tls: {{ {LOCALHOST} }} }}]\n");
    let proxy = Proxy::start_in(folder, &format!("{}{listener}", backend.config("")));
    let mut tls = dial_tls(proxy.address("https"), b"http/1.1", "localhost").await;
    tls.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.expect("written");
    let mut text = String::new();
    within("the end", tls.read_to_string(&mut text)).await.expect("no truncation");
    assert!(text.contains("\"x-forwarded-proto\":\"https\""), "{text}");
    assert!(text.contains("\"x-forwarded-port\":\"443\""), "{text}");
}
