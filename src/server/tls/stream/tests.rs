//! Both ends of a connection in one process: a client of the library, and the stream under test.

use super::*;
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::net::TcpListener;
use tokio_rustls::client::TlsStream as Client;

const VERSIONS: [&SupportedProtocolVersion; 2] = [&rustls::version::TLS12, &rustls::version::TLS13];

/// Configurations that fit each other.
struct Pair {
    server: Arc<ServerConfig>,
    client: ClientConfig,
}

fn pair(version: &'static SupportedProtocolVersion) -> Pair {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let server = ServerConfig::builder_with_provider(Arc::clone(&provider));
    let server = server.with_protocol_versions(&[version]).expect("a version").with_no_client_auth();
    let mut server = server.with_single_cert(vec![made.cert.der().clone()], key).expect("a pair");
    server.alpn_protocols = vec![b"http/1.1".to_vec()];
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).expect("an anchor");
    let client = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[version]).expect("a version");
    let mut client = client.with_root_certificates(roots).with_no_client_auth();
    client.alpn_protocols = vec![b"http/1.1".to_vec()];
    Pair { server: server.into(), client }
}

async fn sockets() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let to = listener.local_addr().expect("an address");
    let (client, server) = tokio::join!(TcpStream::connect(to), listener.accept());
    (client.expect("connected"), server.expect("accepted").0)
}

async fn within<T>(what: &str, doing: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), doing).await.unwrap_or_else(|_| panic!("no end of {what}"))
}

async fn connect<T>(config: ClientConfig, wire: T) -> io::Result<Client<T>>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let name = ServerName::try_from("localhost").expect("a name");
    tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, wire).await
}

/// Both ends of a connection.
async fn connected(version: &'static SupportedProtocolVersion) -> (Client<TcpStream>, TlsStream) {
    let Pair { server, client } = pair(version);
    let (to, from) = sockets().await;
    let hands = async { tokio::join!(connect(client, to), TlsStream::accept(server, from)) };
    let (client, server) = within("the handshake", hands).await;
    (client.expect("a client"), server.expect("a server"))
}

/// Bytes that tell their place.
fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at / 251 + at % 251) as u8).collect()
}

#[track_caller]
fn check_idle(stream: &TlsStream) {
    let kept = (stream.begun.capacity(), stream.unread.capacity(), stream.unsent.capacity());
    assert_eq!(kept, (0, 0, 0), "begun, unread, unsent");
}

#[tokio::test]
async fn what_one_end_writes_the_other_reads_and_nothing_is_kept() {
    for version in VERSIONS {
        let (mut client, mut server) = connected(version).await;
        assert_eq!(server.alpn_protocol(), Some(&b"http/1.1"[..]));
        check_idle(&server);
        for len in [1, 100, 16_384, 16_385, 300_000] {
            let (sent, mut read) = (bytes(len), vec![0; len]);
            let upwards = async {
                client.write_all(&sent).await.expect("written");
                client.flush().await.expect("flushed");
            };
            within("reading", async { tokio::join!(upwards, server.read_exact(&mut read)).1.expect("read") }).await;
            assert!(read == sent, "{version:?}, {len} bytes upwards");
            read.fill(0);
            let downwards = async {
                server.write_all(&sent).await.expect("written");
                server.flush().await.expect("flushed");
            };
            within("reading", async { tokio::join!(downwards, client.read_exact(&mut read)).1.expect("read") }).await;
            assert!(read == sent, "{version:?}, {len} bytes downwards");
            check_idle(&server);
        }
    }
}

#[tokio::test]
async fn small_pieces_go_in_one_record_and_a_reader_may_take_single_bytes() {
    let (mut client, mut server) = connected(&rustls::version::TLS13).await;
    let pieces = [IoSlice::new(b"ab"), IoSlice::new(b""), IoSlice::new(b"cde")];
    assert_eq!(within("writing", server.write_vectored(&pieces)).await.expect("written"), 5);
    let mut read = [0; 64];
    let len = within("reading", client.read(&mut read)).await.expect("read");
    assert_eq!(&read[..len], b"abcde");
    client.write_all(b"fgh").await.expect("written");
    for expected in b"fgh" {
        assert_eq!(within("reading", server.read_u8()).await.expect("read"), *expected);
    }
    check_idle(&server);
}

/// Carries both directions on, `piece` bytes at a time.
async fn relay(mut from: DuplexStream, mut to: TcpStream, piece: usize) {
    let (mut up, mut down) = (vec![0; piece], vec![0; 4096]);
    loop {
        tokio::select! {
            read = from.read(&mut up) => match read {
                Ok(len @ 1..) => if to.write_all(&up[..len]).await.is_err() { return },
                _ => return,
            },
            read = to.read(&mut down) => match read {
                Ok(len @ 1..) => if from.write_all(&down[..len]).await.is_err() { return },
                _ => return,
            },
        }
    }
}

#[tokio::test]
async fn records_and_handshake_messages_may_come_in_any_pieces() {
    for (version, piece, fragment) in
        VERSIONS.into_iter().flat_map(|version| [(version, 1, None), (version, 7, Some(64)), (version, 4000, Some(33))])
    {
        let Pair { server, mut client } = pair(version);
        client.max_fragment_size = fragment;
        let (to, from) = sockets().await;
        to.set_nodelay(true).expect("set");
        let (near, far) = tokio::io::duplex(1 << 20);
        let talk = async {
            let hands = async { tokio::join!(connect(client, near), TlsStream::accept(server, from)) };
            let (client, server) = within("the handshake", hands).await;
            let (mut client, mut server) = (client.expect("a client"), server.expect("a server"));
            let (sent, mut read) = (bytes(5000), vec![0; 5000]);
            let upwards = async {
                client.write_all(&sent).await.expect("written");
                client.flush().await.expect("flushed");
            };
            within("reading", async { tokio::join!(upwards, server.read_exact(&mut read)).1.expect("read") }).await;
            assert!(read == sent, "{version:?}, pieces of {piece}");
            check_idle(&server);
        };
        tokio::select! {
            () = talk => {}
            () = relay(far, to, piece) => panic!("the relay ended"),
        }
    }
}

#[tokio::test]
async fn a_goodbye_ends_one_direction_and_a_cut_is_an_error() {
    for version in VERSIONS {
        let (mut client, mut server) = connected(version).await;
        client.write_all(b"last").await.expect("written");
        client.shutdown().await.expect("shut down");
        let mut read = Vec::new();
        within("the end", server.read_to_end(&mut read)).await.expect("a clean end");
        assert_eq!(read, b"last");
        server.write_all(b"answer").await.expect("written");
        server.shutdown().await.expect("shut down");
        server.write_all(b"more").await.expect_err("it has said goodbye");
        read.clear();
        within("the end", client.read_to_end(&mut read)).await.expect("a clean end");
        assert_eq!(read, b"answer");

        let (mut client, mut server) = connected(version).await;
        client.get_mut().0.shutdown().await.expect("half closed");
        let cut = within("the cut", server.read(&mut [0; 10])).await.expect_err("no goodbye");
        assert_eq!(cut.kind(), io::ErrorKind::UnexpectedEof);
    }
}

#[tokio::test]
async fn a_client_that_does_not_read_costs_one_turn_of_writing() {
    let (mut client, mut server) = connected(&rustls::version::TLS13).await;
    let piece = bytes(PLAIN_BYTES_MAX);
    let mut written = 0;
    let full = poll_fn(|cx| {
        // Until the kernel takes no more: some megabytes.
        while let Poll::Ready(result) = Pin::new(&mut server).poll_write(cx, &piece) {
            written += result.expect("written");
        }
        Poll::Ready(server.unsent.len())
    });
    let unsent = within("writing", full).await;
    assert!((1..=SEALED_BYTES).contains(&unsent), "{unsent}");
    let mut read = vec![0; written];
    let downwards = async { tokio::join!(server.flush(), client.read_exact(&mut read)) };
    let (flushed, received) = within("reading", downwards).await;
    flushed.expect("flushed");
    received.expect("read");
    assert!(read.chunks(piece.len()).all(|part| part == &piece[..part.len()]));
    check_idle(&server);
}

#[tokio::test]
async fn new_keys_change_nothing() {
    let (mut client, mut server) = connected(&rustls::version::TLS13).await;
    for round in 0..3_u8 {
        client.get_mut().1.refresh_traffic_keys().expect("new keys");
        client.write_all(&[round; 10]).await.expect("written");
        let mut read = [0xff; 10];
        within("reading", server.read_exact(&mut read)).await.expect("read");
        assert_eq!(read, [round; 10]);
        server.write_all(&[round + 100; 10]).await.expect("written");
        within("reading", client.read_exact(&mut read)).await.expect("read");
        assert_eq!(read, [round + 100; 10]);
    }
}

#[tokio::test]
async fn who_breaks_the_protocol_hears_of_it_and_nothing_more() {
    for version in VERSIONS {
        let (mut client, mut server) = connected(version).await;
        // A record of application data that no key has sealed.
        let forged = [&[0x17, 3, 3, 0, 40][..], &[7; 40]].concat();
        client.get_mut().0.write_all(&forged).await.expect("written");
        let error = within("the error", server.read(&mut [0; 10])).await.expect_err("forged");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        server.read(&mut [0; 10]).await.expect_err("it stays broken");
        server.write(b"more").await.expect_err("it stays broken");
        let told = within("the alert", client.read(&mut [0; 10])).await.expect_err("an alert");
        assert!(format!("{told:?}").contains("BadRecordMac"), "{told:?}");
    }
    let (mut client, server) = sockets().await;
    client.write_all(b"GET / HTTP/1.1\r\n\r\n").await.expect("written");
    let server = TlsStream::accept(pair(&rustls::version::TLS13).server, server);
    within("the handshake", server).await.expect_err("no TLS");
    let mut alert = Vec::new();
    within("the alert", client.read_to_end(&mut alert)).await.expect("read");
    assert_eq!(alert.first(), Some(&0x15), "{alert:?}");
}
