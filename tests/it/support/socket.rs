//! A WebSocket client that is frames: what a library would hide (fragments, no close, wrong masks) can be sent.
//! Over HTTP/1.1 by an upgrade (RFC 6455), over HTTP/2 by an extended CONNECT (RFC 8441).

use crate::support::client::{Answer, Http, dial, dial_tls, within};
use bytes::{Buf as _, Bytes, BytesMut};
use h2::client::SendRequest;
use h2::ext::Protocol;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::TokioIo;
use std::future::poll_fn;
use std::net::SocketAddr;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream, ReadHalf};

/// The opcode of a text.
pub const TEXT: u8 = 1;
/// The opcode of a binary message.
pub const BINARY: u8 = 2;
/// The opcode of a close frame.
pub const CLOSE: u8 = 8;
/// The opcode of a ping.
pub const PING: u8 = 9;
/// The opcode of a pong.
pub const PONG: u8 = 10;

const MASK: [u8; 4] = [0x12, 0x34, 0x56, 0x78];

/// Bytes both ways.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// An open WebSocket. Dropped, its client vanishes: the connection ends, or the stream is reset.
pub struct Socket {
    /// The fields of the handshake's answer.
    pub fields: HeaderMap,
    io: Box<dyn Io>,
    unread: BytesMut,
}

impl Socket {
    /// Opens one, which must succeed.
    pub async fn open(http: Http, to: SocketAddr, path: &str, fields: &[(&str, &str)]) -> Self {
        match Self::try_open(http, to, path, fields).await {
            Ok(socket) => socket,
            Err(answer) => panic!("{http:?}: refused: {} {}", answer.status, answer.text()),
        }
    }

    /// Opens one, or gives the answer that refuses it.
    ///
    /// # Errors
    /// The answer.
    pub async fn try_open(http: Http, to: SocketAddr, path: &str, fields: &[(&str, &str)]) -> Result<Self, Answer> {
        let opening = async {
            match http {
                Http::H1 => upgrade(dial(to).await, to, path, fields).await,
                Http::H1Tls => upgrade(dial_tls(to, b"http/1.1", "localhost").await, to, path, fields).await,
                Http::H2c => connect(dial(to).await, "http", to, path, fields).await,
                Http::H2Tls => connect(dial_tls(to, b"h2", "localhost").await, "https", to, path, fields).await,
            }
        };
        within("a handshake", Box::pin(opening)).await
    }

    /// Sends a whole frame.
    pub async fn send(&mut self, opcode: u8, payload: impl AsRef<[u8]>) {
        self.send_raw(&frame(0x80 | opcode, payload.as_ref())).await;
    }

    /// Sends a whole frame for as long as it takes, or says that the peer takes no more.
    ///
    /// # Errors
    /// What the connection says.
    pub async fn try_send(&mut self, opcode: u8, payload: impl AsRef<[u8]>) -> std::io::Result<()> {
        self.io.write_all(&frame(0x80 | opcode, payload.as_ref())).await?;
        self.io.flush().await
    }

    /// Sends a frame that is no message's last.
    pub async fn send_part(&mut self, opcode: u8, payload: impl AsRef<[u8]>) {
        self.send_raw(&frame(opcode, payload.as_ref())).await;
    }

    /// Sends bytes as they are.
    pub async fn send_raw(&mut self, bytes: &[u8]) {
        let sending = async {
            self.io.write_all(bytes).await?;
            self.io.flush().await
        };
        within("bytes are taken", sending).await.expect("written");
    }

    /// Sends a close frame.
    pub async fn close(&mut self, code: u16, reason: &str) {
        self.send(CLOSE, [&code.to_be_bytes(), reason.as_bytes()].concat()).await;
    }

    /// The next frame, or `None` at the end.
    pub async fn next(&mut self) -> Option<(u8, Bytes)> {
        within("a frame", async {
            loop {
                if let Some(frame) = take_frame(&mut self.unread) {
                    return Some(frame);
                }
                // A client that is cut off may see a reset or an end.
                if self.io.read_buf(&mut self.unread).await.unwrap_or(0) == 0 {
                    assert!(self.unread.is_empty(), "it ends within a frame");
                    return None;
                }
            }
        })
        .await
    }

    /// The next frame, which must be this one.
    #[track_caller]
    pub fn expect(&mut self, opcode: u8, payload: impl AsRef<[u8]>) -> impl Future<Output = ()> {
        let caller = std::panic::Location::caller();
        async move {
            let (payload, frame) = (payload.as_ref(), self.next().await);
            let Some((came, content)) = frame else { panic!("{caller}: ended before {:?}", shown(payload)) };
            let is_it = came == opcode && content == payload;
            assert!(is_it, "at {caller}: not {opcode} {:?} but {came} {:?}", shown(payload), shown(&content));
        }
    }

    /// As [`Socket::expect_close`], for a client that has sent its own close frame already.
    #[track_caller]
    pub fn expect_close_after_own(&mut self, code: u16) -> impl Future<Output = String> {
        let caller = std::panic::Location::caller();
        async move {
            let content = self.close_frame(caller).await;
            assert_eq!(content.get(..2), Some(&code.to_be_bytes()[..]), "at {caller}: {:?}", shown(&content));
            assert!(self.next().await.is_none(), "{caller}: something follows the close");
            shown(&content[2..])
        }
    }

    async fn close_frame(&mut self, caller: &std::panic::Location<'_>) -> Bytes {
        match self.next().await {
            Some((CLOSE, content)) => content,
            Some((opcode, content)) => panic!("{caller}: no close frame but {opcode} {:?}", shown(&content)),
            None => panic!("{caller}: ended without a close frame"),
        }
    }

    /// The next frame has to be a close with this code; answers it, and waits for the end. Gives the reason.
    #[track_caller]
    pub fn expect_close(&mut self, code: u16) -> impl Future<Output = String> {
        let caller = std::panic::Location::caller();
        async move {
            let content = self.close_frame(caller).await;
            assert_eq!(content.get(..2), Some(&code.to_be_bytes()[..]), "at {caller}: {:?}", shown(&content));
            self.send(CLOSE, &content[..2]).await;
            assert!(self.next().await.is_none(), "{caller}: something follows the close");
            shown(&content[2..])
        }
    }
}

fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(200)]).into_owned()
}

fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match payload.len() {
        len @ 0..=125 => bytes.push(0x80 | len as u8),
        len @ 126..=0xffff => {
            bytes.push(0x80 | 126);
            bytes.extend_from_slice(&(len as u16).to_be_bytes());
        }
        len => {
            bytes.push(0x80 | 127);
            bytes.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    bytes.extend_from_slice(&MASK);
    bytes.extend(payload.iter().enumerate().map(|(at, byte)| byte ^ MASK[at % 4]));
    bytes
}

/// A server's frame: whole, not masked.
fn take_frame(unread: &mut BytesMut) -> Option<(u8, Bytes)> {
    let (&first, &second) = (unread.first()?, unread.get(1)?);
    assert_eq!((first & 0xf0, second & 0x80), (0x80, 0), "a whole frame without a mask");
    let (head, len) = match second {
        126 => (4, usize::from(u16::from_be_bytes(unread.get(2..4)?.try_into().expect("two bytes")))),
        127 => (10, u64::from_be_bytes(unread.get(2..10)?.try_into().expect("eight bytes")) as usize),
        len => (2, usize::from(len)),
    };
    if unread.len() < head + len {
        return None;
    }
    unread.advance(head);
    Some((first & 0xf, unread.split_to(len).freeze()))
}

async fn upgrade(
    io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    to: SocketAddr,
    path: &str,
    fields: &[(&str, &str)],
) -> Result<Socket, Answer> {
    let mut request = Request::get(path)
        .header("host", to.to_string())
        .header("connection", "Upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(io)).await.expect("a handshake");
    tokio::spawn(connection.with_upgrades());
    let request = request.body(Empty::<Bytes>::new()).expect("a request");
    let response = sender.send_request(request).await.expect("an answer");
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        let (head, body) = response.into_parts();
        let collected = body.collect().await.expect("a whole body");
        let trailers = collected.trailers().cloned();
        return Err(Answer { status: head.status, fields: head.headers, body: collected.to_bytes(), trailers });
    }
    // The example of RFC 6455 §1.3.
    assert_eq!(response.headers()["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    let fields = response.headers().clone();
    let upgraded = hyper::upgrade::on(response).await.expect("an upgraded connection");
    Ok(Socket { fields, io: Box::new(TokioIo::new(upgraded)), unread: BytesMut::new() })
}

async fn connect(
    io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    scheme: &str,
    to: SocketAddr,
    path: &str,
    fields: &[(&str, &str)],
) -> Result<Socket, Answer> {
    let (sender, mut connection) = h2::client::handshake(io).await.expect("a handshake");
    let mut ping = connection.ping_pong().expect("pings");
    tokio::spawn(connection);
    // The pong comes after the server's SETTINGS, which say whether extended CONNECT is spoken.
    ping.ping(h2::Ping::opaque()).await.expect("a pong");
    assert!(sender.is_extended_connect_protocol_enabled(), "SETTINGS_ENABLE_CONNECT_PROTOCOL is not 1");
    let mut request = Request::connect(format!("{scheme}://{to}{path}")).header("sec-websocket-version", "13");
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    let mut request = request.body(()).expect("a request");
    request.extensions_mut().insert(Protocol::from_static("websocket"));
    let mut sender: SendRequest<Bytes> = sender.ready().await.expect("room for a stream");
    let (response, send) = sender.send_request(request, false).expect("sent");
    let (head, receive) = response.await.expect("an answer").into_parts();
    if head.status != StatusCode::OK {
        return Err(refused(Response::from_parts(head, receive)).await);
    }
    assert!(!head.headers.contains_key("sec-websocket-accept"), "RFC 8441 §5 has no key");
    let (near, far) = tokio::io::duplex(64 * 1024);
    tokio::spawn(async move {
        carry(far, send, receive).await;
        drop(sender);
    });
    Ok(Socket { fields: head.headers, io: Box::new(near), unread: BytesMut::new() })
}

async fn refused(response: Response<RecvStream>) -> Answer {
    let (head, mut receive) = response.into_parts();
    let mut body = BytesMut::new();
    while let Some(data) = receive.data().await {
        let data = data.expect("a whole body");
        let _ = receive.flow_control().release_capacity(data.len());
        body.extend_from_slice(&data);
    }
    Answer { status: head.status, fields: head.headers, body: body.freeze(), trailers: None }
}

/// Bytes between a duplex and a stream, to the stream's end; the test's end resets it.
async fn carry(io: DuplexStream, send: SendStream<Bytes>, mut receive: RecvStream) {
    let (read, mut write) = tokio::io::split(io);
    let sending = tokio::spawn(carry_out(read, send));
    while let Some(Ok(data)) = receive.data().await {
        let _ = receive.flow_control().release_capacity(data.len());
        if write.write_all(&data).await.is_err() {
            break;
        }
    }
    // The server's end is not the client's: it may still send its close frame.
    let _ = write.shutdown().await;
    let _ = sending.await;
}

async fn carry_out(mut read: ReadHalf<DuplexStream>, mut send: SendStream<Bytes>) {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let len = read.read(&mut buffer).await.unwrap_or(0);
        if len == 0 {
            return send.send_reset(h2::Reason::CANCEL);
        }
        let mut data = Bytes::copy_from_slice(&buffer[..len]);
        while !data.is_empty() {
            send.reserve_capacity(data.len());
            let capacity = match send.capacity() {
                0 => match poll_fn(|cx| send.poll_capacity(cx)).await {
                    Some(Ok(capacity)) => capacity,
                    _ => return,
                },
                capacity => capacity,
            };
            let part = data.split_to(capacity.min(data.len()));
            if send.send_data(part, false).is_err() {
                return;
            }
        }
    }
}
