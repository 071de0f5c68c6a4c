//! A non-blocking connection, plain or with TLS.

use crate::url::Url;
use mio::net::TcpStream;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme};
use socket2::{Domain, Protocol, Socket, Type};
use std::io::{ErrorKind, Read, Write};
use std::sync::Arc;

/// Bytes read at once.
pub const SCRATCH: usize = 128 * 1024;

/// The buffers all connections of a thread read through.
pub struct Scratch {
    socket: Vec<u8>,
    plain: Vec<u8>,
}

impl Default for Scratch {
    fn default() -> Self {
        Self { socket: vec![0; SCRATCH], plain: vec![0; SCRATCH] }
    }
}

/// One connection.
pub struct Wire {
    pub socket: TcpStream,
    tls: Option<Box<ClientConnection>>,
}

impl Wire {
    /// Connects; on loopback this takes no wait worth a state of its own. `receive_bytes` bounds the kernel's buffer.
    pub fn connect(url: &Url, tls: Option<&Arc<ClientConfig>>, receive_bytes: Option<usize>) -> Result<Self, String> {
        let told = |error: std::io::Error| format!("connect: {error}");
        let socket = Socket::new(Domain::for_address(url.address), Type::STREAM, Some(Protocol::TCP)).map_err(told)?;
        if let Some(bytes) = receive_bytes {
            socket.set_recv_buffer_size(bytes).map_err(told)?;
        }
        socket.connect(&url.address.into()).map_err(told)?;
        socket.set_tcp_nodelay(true).map_err(told)?;
        socket.set_nonblocking(true).map_err(told)?;
        let socket = TcpStream::from_std(socket.into());
        let tls = match tls.filter(|_| url.is_tls) {
            None => None,
            Some(config) => {
                let name = ServerName::from(url.address.ip());
                Some(Box::new(
                    ClientConnection::new(Arc::clone(config), name).map_err(|error| format!("tls: {error}"))?,
                ))
            }
        };
        Ok(Self { socket, tls })
    }

    /// Sends all of `bytes`; before the end of a TLS handshake they wait for it.
    pub fn send(&mut self, bytes: &[u8]) -> Result<(), String> {
        match &mut self.tls {
            None => self.socket.write_all(bytes).map_err(|error| format!("write: {error}")),
            Some(tls) => {
                tls.writer().write_all(bytes).map_err(|error| format!("write: {error}"))?;
                self.flush()
            }
        }
    }

    fn flush(&mut self) -> Result<(), String> {
        let Some(tls) = &mut self.tls else { return Ok(()) };
        while tls.wants_write() {
            tls.write_tls(&mut self.socket).map_err(|error| format!("write: {error}"))?;
        }
        Ok(())
    }

    /// Hands what has come to `sink`; an edge-triggered poll tells when there is more.
    pub fn receive(
        &mut self,
        scratch: &mut Scratch,
        sink: &mut dyn FnMut(&[u8]) -> Result<(), String>,
    ) -> Result<(), String> {
        loop {
            let count = match self.socket.read(&mut scratch.socket) {
                Ok(0) => return Err("closed by the server".into()),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(format!("read: {error}")),
            };
            self.open(&scratch.socket[..count], &mut scratch.plain, sink)?;
            // A short read means that the socket was empty; what comes after it is a new edge (epoll(7)).
            if count < scratch.socket.len() {
                return Ok(());
            }
        }
    }

    fn open(
        &mut self,
        mut bytes: &[u8],
        plain: &mut [u8],
        sink: &mut dyn FnMut(&[u8]) -> Result<(), String>,
    ) -> Result<(), String> {
        let Some(tls) = &mut self.tls else { return sink(bytes) };
        while !bytes.is_empty() {
            tls.read_tls(&mut bytes).map_err(|error| format!("tls: {error}"))?;
            tls.process_new_packets().map_err(|error| format!("tls: {error}"))?;
            loop {
                match tls.reader().read(plain) {
                    Ok(0) => return Err("closed by the server".into()),
                    Ok(count) => sink(&plain[..count])?,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => return Err(format!("tls: {error}")),
                }
            }
        }
        self.flush()
    }
}

/// A TLS client for this machine's own servers: takes any certificate, resumes nothing.
pub fn tls_config(alpn: &str) -> Arc<ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = Arc::new(AnyCertificate(Arc::clone(&provider)));
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder =
        builder.expect("ring has the default versions").dangerous().with_custom_certificate_verifier(verifier);
    let mut config = builder.with_no_client_auth();
    config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    Arc::new(config)
}

#[derive(Debug)]
struct AnyCertificate(Arc<rustls::crypto::CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
