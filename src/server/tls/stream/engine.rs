//! rustls without buffers (`rustls::unbuffered`): records in, plaintext and records out.

use bytes::BytesMut;
use rustls::ServerConfig;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncodeTlsData, EncryptError, UnbufferedStatus, WriteTraffic};
use std::sync::Arc;
use std::{fmt, io};

/// The state of one connection's TLS.
pub(super) struct Engine {
    rustls: UnbufferedServerConnection,
    /// What went wrong; nothing goes on after that.
    broken: Option<rustls::Error>,
    /// The client has said goodbye.
    client_has_ended: bool,
    has_said_goodbye: bool,
}

/// What is to be sealed.
#[derive(Debug, Clone, Copy)]
pub(super) enum Sealed<'a> {
    Plain(&'a [u8]),
    Goodbye,
}

impl fmt::Debug for Engine {
    /// Tells no secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("broken", &self.broken).finish_non_exhaustive()
    }
}

impl Engine {
    pub(super) fn new(config: Arc<ServerConfig>) -> Result<Self, rustls::Error> {
        let rustls = UnbufferedServerConnection::new(config)?;
        Ok(Self { rustls, broken: None, client_has_ended: false, has_said_goodbye: false })
    }

    pub(super) fn alpn_protocol(&self) -> Option<&[u8]> {
        self.rustls.alpn_protocol()
    }

    pub(super) fn is_handshaking(&self) -> bool {
        self.rustls.is_handshaking()
    }

    pub(super) fn client_has_ended(&self) -> bool {
        self.client_has_ended
    }

    pub(super) fn may_say_goodbye(&self) -> bool {
        !self.has_said_goodbye && self.broken.is_none() && !self.rustls.is_handshaking()
    }

    /// # Errors
    /// When something went wrong before.
    pub(super) fn check(&self) -> io::Result<()> {
        match &self.broken {
            Some(error) => Err(io::Error::new(io::ErrorKind::InvalidData, error.clone())),
            None => Ok(()),
        }
    }

    /// Opens all whole records at the front of `records`, and says how many bytes they take. Their plaintext goes to
    /// `reader`, in pieces; what is to be answered (handshake, alerts) is added to `answer`. The bytes after them must
    /// come first the next time.
    ///
    /// # Errors
    /// When the client breaks the protocol. The alert that tells it is in `answer` then.
    pub(super) fn open(
        &mut self,
        records: &mut [u8],
        answer: &mut BytesMut,
        mut reader: impl FnMut(&[u8]),
    ) -> Result<usize, rustls::Error> {
        let mut used = 0;
        loop {
            let UnbufferedStatus { mut discard, state } = self.rustls.process_tls_records(&mut records[used..]);
            let mut over = false;
            let failure = match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => loop {
                    match traffic.next_record() {
                        None => break None,
                        Some(Err(error)) => break Some(error),
                        Some(Ok(record)) => {
                            reader(record.payload);
                            discard += record.discard;
                        }
                    }
                },
                Ok(ConnectionState::EncodeTlsData(data)) => encode(data, answer),
                Ok(ConnectionState::TransmitTlsData(data)) => {
                    // It goes out in this order: all that is sealed is added behind it.
                    data.done();
                    None
                }
                Ok(ConnectionState::PeerClosed) => {
                    self.client_has_ended = true;
                    None
                }
                Ok(ConnectionState::BlockedHandshake | ConnectionState::WriteTraffic(_) | ConnectionState::Closed) => {
                    over = true;
                    None
                }
                // Early data is not offered.
                Ok(other) => Some(rustls::Error::General(format!("unexpected state {other:?}"))),
                Err(error) => Some(error),
            };
            used += discard;
            if let Some(error) = failure {
                self.broken = Some(error.clone());
                self.alert(&mut records[used..], answer);
                return Err(error);
            }
            if over {
                // What follows a goodbye is not looked at.
                return Ok(if self.client_has_ended { records.len() } else { used });
            }
        }
    }

    /// Adds the alert that rustls has for the client after an error. The records that broke it are not opened again.
    fn alert(&mut self, records: &mut [u8], answer: &mut BytesMut) {
        while self.rustls.wants_write() {
            let Ok(ConnectionState::EncodeTlsData(data)) = self.rustls.process_tls_records(records).state else {
                return;
            };
            if encode(data, answer).is_some() {
                return;
            }
        }
    }

    /// Seals into `sealed`, which grows if it must, and says how many bytes of it are to be sent. `begun` is what
    /// [`Engine::open`] left over.
    ///
    /// # Errors
    /// When nothing may be sent any more.
    pub(super) fn seal(&mut self, plain: Sealed<'_>, begun: &mut [u8], sealed: &mut Vec<u8>) -> io::Result<usize> {
        self.check()?;
        if self.has_said_goodbye {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let ConnectionState::WriteTraffic(mut traffic) =
            self.rustls.process_tls_records(begun).state.map_err(io::Error::other)?
        else {
            return Err(io::ErrorKind::BrokenPipe.into());
        };
        self.has_said_goodbye = matches!(plain, Sealed::Goodbye);
        loop {
            match seal_once(&mut traffic, plain, sealed) {
                Ok(len) => return Ok(len),
                Err(EncryptError::InsufficientSize(needed)) => sealed.resize(needed.required_size, 0),
                Err(error @ EncryptError::EncryptExhausted) => return Err(io::Error::other(error)),
            }
        }
    }
}

fn seal_once<T>(
    traffic: &mut WriteTraffic<'_, T>,
    plain: Sealed<'_>,
    sealed: &mut [u8],
) -> Result<usize, EncryptError> {
    match plain {
        Sealed::Plain(plain) => traffic.encrypt(plain, sealed),
        Sealed::Goodbye => traffic.queue_close_notify(sealed),
    }
}

/// Adds records that rustls has ready; an error is none that can come up.
fn encode<T>(mut data: EncodeTlsData<'_, T>, answer: &mut BytesMut) -> Option<rustls::Error> {
    let at = answer.len();
    let needed = match data.encode(&mut []) {
        Err(EncodeError::InsufficientSize(needed)) => needed.required_size,
        Ok(_) => 0,
        Err(error) => return Some(rustls::Error::General(error.to_string())),
    };
    answer.resize(at + needed, 0);
    data.encode(&mut answer[at..]).err().map(|error| rustls::Error::General(error.to_string()))
}
