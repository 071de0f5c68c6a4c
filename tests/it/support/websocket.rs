//! WebSocket clients: the opening over HTTP/1.1 (RFC 6455) and HTTP/2 (RFC 8441), tungstenite on top of either, and
//! bare frames for what no library would send.

use super::client::{Http, dial, tls, within};
use bytes::{Buf as _, Bytes};
use futures_util::{SinkExt as _, StreamExt as _};
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode};
use serde_json::Value;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::tungstenite::{Error, Message};

/// Where WebSockets are tested.
pub const ALL: [Http; 4] = [Http::H1, Http::H2c, Http::H1Tls, Http::H2Tls];

/// The key of RFC 6455 §1.3 and the accept that goes with it.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// A connection of any kind.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// The answer to an opening request.
pub struct Opened {
    /// 101 or 200 if it was accepted.
    pub status: StatusCode,
    /// The answer's fields.
    pub fields: HeaderMap,
    /// What follows the head.
    pub io: Box<dyn Io>,
    socket: OwnedFd,
}

/// Asks for a WebSocket; `fields` replace the usual ones of the same name, or take them away where they are empty.
pub async fn ask(http: Http, to: SocketAddr, path: &str, fields: &[(&str, &str)]) -> Opened {
    ask_over(http, dial(to).await, path, fields).await
}

/// As [`ask`], on a connection that is there already.
pub async fn ask_over(http: Http, tcp: TcpStream, path: &str, fields: &[(&str, &str)]) -> Opened {
    ask_ahead(http, tcp, path, fields, b"").await
}

/// As [`ask_over`]; the client goes on to say `ahead` before it has the answer.
async fn ask_ahead(http: Http, tcp: TcpStream, path: &str, fields: &[(&str, &str)], ahead: &[u8]) -> Opened {
    let to = tcp.peer_addr().expect("an address");
    let socket = tcp.as_fd().try_clone_to_owned().expect("a second handle");
    let asking = async {
        let (status, fields, io) = match http {
            Http::H1 => ask_h1(tcp, to, path, fields, ahead).await,
            Http::H1Tls => ask_h1(tls(tcp, b"http/1.1", "localhost").await, to, path, fields, ahead).await,
            Http::H2c => ask_h2(tcp, to, path, fields, ahead).await,
            Http::H2Tls => ask_h2(tls(tcp, b"h2", "localhost").await, to, path, fields, ahead).await,
        };
        Opened { status, fields, io, socket }
    };
    within("an answer to a WebSocket's opening", Box::pin(asking)).await
}

impl Opened {
    /// The body of a refusal, as JSON.
    pub async fn problem(mut self) -> Value {
        assert_eq!(self.fields["content-type"], "application/problem+json");
        let length: usize = self.fields["content-length"].to_str().expect("text").parse().expect("a length");
        let mut body = vec![0; length];
        within("a problem document", self.io.read_exact(&mut body)).await.expect("the whole body");
        serde_json::from_slice(&body).expect("JSON")
    }
}

fn with(usual: &[(&str, &str)], given: &[(&str, &str)]) -> HeaderMap {
    let mut fields = HeaderMap::new();
    for (name, value) in usual.iter().chain(given) {
        let name: HeaderName = name.parse().expect("a name");
        match *value {
            "" => drop(fields.remove(name)),
            _ => drop(fields.insert(name, HeaderValue::from_str(value).expect("a value"))),
        }
    }
    fields
}

async fn ask_h1(
    mut io: impl Io + 'static,
    to: SocketAddr,
    path: &str,
    fields: &[(&str, &str)],
    ahead: &[u8],
) -> (StatusCode, HeaderMap, Box<dyn Io>) {
    let host = to.to_string();
    let usual = [
        ("host", host.as_str()),
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", KEY),
    ];
    let mut head = format!("GET {path} HTTP/1.1\r\n");
    for (name, value) in &with(&usual, fields) {
        head += &format!("{name}: {}\r\n", value.to_str().expect("text"));
    }
    io.write_all(&[head.as_bytes(), b"\r\n", ahead].concat()).await.expect("sent");
    let mut read = Vec::new();
    let (len, status, fields) = loop {
        let mut part = [0; 4096];
        let len = io.read(&mut part).await.expect("an answer");
        assert!(len > 0, "the connection ended before an answer");
        read.extend_from_slice(&part[..len]);
        if let Some(head) = parse_head(&read) {
            break head;
        }
    };
    (status, fields, Box::new(Rewound { unread: Bytes::from(read).slice(len..), io }))
}

fn parse_head(read: &[u8]) -> Option<(usize, StatusCode, HeaderMap)> {
    let mut slots = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut slots);
    let httparse::Status::Complete(len) = response.parse(read).expect("a head") else { return None };
    let fields = response.headers.iter().map(|field| {
        let name: HeaderName = field.name.parse().expect("a name");
        (name, HeaderValue::from_bytes(field.value).expect("a value"))
    });
    let status = StatusCode::from_u16(response.code.expect("a status")).expect("a status");
    Some((len, status, fields.collect()))
}

async fn ask_h2(
    io: impl Io + 'static,
    to: SocketAddr,
    path: &str,
    fields: &[(&str, &str)],
    ahead: &[u8],
) -> (StatusCode, HeaderMap, Box<dyn Io>) {
    let connection = H2Connection::over(io, to).await;
    connection.ask_for(path, fields, ahead).await
}

/// An HTTP/2 connection that can carry several WebSockets.
pub struct H2Connection {
    sender: h2::client::SendRequest<Bytes>,
    to: SocketAddr,
    socket: Option<OwnedFd>,
    /// What is asked for (`:protocol`).
    pub protocol: &'static str,
}

impl H2Connection {
    /// One in cleartext.
    pub async fn open(to: SocketAddr) -> Self {
        let tcp = dial(to).await;
        let socket = tcp.as_fd().try_clone_to_owned().expect("a second handle");
        Self { socket: Some(socket), ..Self::over(tcp, to).await }
    }

    async fn over(io: impl Io + 'static, to: SocketAddr) -> Self {
        let (mut sender, connection) = h2::client::handshake(io).await.expect("a handshake");
        tokio::spawn(connection);
        while !sender.is_extended_connect_protocol_enabled() {
            sender = sender.ready().await.expect("a connection");
            tokio::task::yield_now().await;
        }
        Self { sender, to, socket: None, protocol: "websocket" }
    }

    /// Asks for one more WebSocket.
    pub async fn ask(&self, path: &str, fields: &[(&str, &str)]) -> Opened {
        let socket = self.socket.as_ref().and_then(|socket| socket.try_clone().ok()).expect("a handle");
        let (status, fields, io) = within("an answer to a WebSocket's opening", self.ask_for(path, fields, b"")).await;
        Opened { status, fields, io, socket }
    }

    /// Asks for an event stream; what comes of it.
    pub async fn stream(&self, path: &str) -> Box<dyn Io> {
        let request = Request::get(format!("http://{}{path}", self.to)).header("accept", "text/event-stream");
        let (response, send) =
            self.sender.clone().send_request(request.body(()).expect("a request"), true).expect("sent");
        let response = within("an answer", response).await.expect("an answer");
        assert_eq!(response.status(), 200);
        let receive = response.into_body();
        Box::new(H2Stream { send, receive, unread: Bytes::new(), _sender: self.sender.clone() })
    }

    async fn ask_for(&self, path: &str, fields: &[(&str, &str)], ahead: &[u8]) -> (StatusCode, HeaderMap, Box<dyn Io>) {
        let mut request = Request::connect(format!("http://{}{path}", self.to));
        request = request.extension(h2::ext::Protocol::from_static(self.protocol));
        let mut request = request.body(()).expect("a request");
        *request.headers_mut() = with(&[("sec-websocket-version", "13")], fields);
        let (response, mut send) = self.sender.clone().send_request(request, false).expect("sent");
        if !ahead.is_empty() {
            send.send_data(Bytes::copy_from_slice(ahead), false).expect("sent");
        }
        let (head, receive) = response.await.expect("an answer").into_parts();
        let io = H2Stream { send, receive, unread: Bytes::new(), _sender: self.sender.clone() };
        (head.status, head.headers, Box::new(io))
    }
}

/// Bytes that were read with the head come first.
struct Rewound<T> {
    unread: Bytes,
    io: T,
}

impl<T: Io> AsyncRead for Rewound<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.unread.is_empty() {
            return Pin::new(&mut this.io).poll_read(cx, buf);
        }
        let part = this.unread.split_to(this.unread.len().min(buf.remaining()));
        buf.put_slice(&part);
        Poll::Ready(Ok(()))
    }
}

impl<T: Io> AsyncWrite for Rewound<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}

/// A stream of an HTTP/2 connection, which ends with its last stream.
struct H2Stream {
    send: h2::SendStream<Bytes>,
    receive: h2::RecvStream,
    unread: Bytes,
    _sender: h2::client::SendRequest<Bytes>,
}

impl AsyncRead for H2Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.unread.is_empty() {
            match ready!(this.receive.poll_data(cx)) {
                None => return Poll::Ready(Ok(())),
                Some(data) => {
                    this.unread = data.map_err(io::Error::other)?;
                    let released = this.receive.flow_control().release_capacity(this.unread.len());
                    released.map_err(io::Error::other)?;
                }
            }
        }
        let part = this.unread.split_to(this.unread.len().min(buf.remaining()));
        buf.put_slice(&part);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for H2Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.send.reserve_capacity(bytes.len());
        while this.send.capacity() == 0 && !bytes.is_empty() {
            match ready!(this.send.poll_capacity(cx)) {
                None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
                Some(capacity) => drop(capacity.map_err(io::Error::other)?),
            }
        }
        let len = this.send.capacity().min(bytes.len());
        this.send.send_data(Bytes::copy_from_slice(&bytes[..len]), false).map_err(io::Error::other)?;
        Poll::Ready(Ok(len))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.get_mut().send.send_data(Bytes::new(), true).map_err(io::Error::other))
    }
}

/// A WebSocket that keeps to the rules.
pub struct WebSocket {
    /// The fields that came with its acceptance.
    pub fields: HeaderMap,
    stream: WebSocketStream<Box<dyn Io>>,
    socket: OwnedFd,
}

impl WebSocket {
    /// Opens one that must be accepted.
    pub async fn open(http: Http, to: SocketAddr, path: &str, fields: &[(&str, &str)]) -> Self {
        Self::of(ask(http, to, path, fields).await).await
    }

    /// One that speaks `pushbridge.v1.json`, after its `welcome` and its route's `subscribed`.
    pub async fn v1(http: Http, to: SocketAddr, path: &str) -> Self {
        let mut socket = Self::open(http, to, path, &[("sec-websocket-protocol", "pushbridge.v1.json")]).await;
        assert_eq!(socket.json().await["type"], "welcome");
        assert_eq!(socket.json().await["type"], "subscribed");
        socket
    }

    /// One of an opening that must have been accepted.
    pub async fn of(opened: Opened) -> Self {
        let Opened { status, fields, io, socket } = opened;
        match status.as_u16() {
            101 => assert_eq!(fields["sec-websocket-accept"], ACCEPT),
            200 => assert!(!fields.contains_key("sec-websocket-accept"), "{fields:?}"),
            _ => panic!("refused: {status} {fields:?}"),
        }
        let stream = WebSocketStream::from_raw_socket(io, Role::Client, None).await;
        Self { fields, stream, socket }
    }

    /// Sends a message.
    pub async fn send(&mut self, message: impl Into<Message>) {
        within("a message is sent", self.stream.send(message.into())).await.expect("sent");
    }

    /// Sends a text to somebody who may be gone.
    ///
    /// # Errors
    /// When it is.
    pub async fn try_send(&mut self, text: &str) -> Result<(), Error> {
        within("a message is sent", self.stream.send(text.into())).await
    }

    /// The next message but pings and pongs; `None` once the close frame and the end have come.
    pub async fn next(&mut self) -> Option<Result<Message, Error>> {
        loop {
            match within("a message", self.stream.next()).await {
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                other => return other,
            }
        }
    }

    /// The next message, pings and pongs too.
    pub async fn any(&mut self) -> Message {
        within("a message", self.stream.next()).await.expect("a message").expect("a message")
    }

    /// The next text.
    #[track_caller]
    pub fn text(&mut self) -> impl Future<Output = String> {
        let caller = std::panic::Location::caller();
        async move {
            match self.next().await {
                Some(Ok(Message::Text(text))) => text.as_str().to_owned(),
                other => panic!("{caller}: no text but {other:?}"),
            }
        }
    }

    /// The next text as JSON.
    #[track_caller]
    pub fn json(&mut self) -> impl Future<Output = Value> {
        let text = self.text();
        async move { serde_json::from_str(&text.await).expect("JSON") }
    }

    /// Says a command and gives the answer.
    pub async fn command(&mut self, command: Value) -> Value {
        self.send(command.to_string().as_str()).await;
        self.json().await
    }

    /// The close frame, which must be next, and the clean end after it.
    #[track_caller]
    pub fn closed(mut self) -> impl Future<Output = (u16, String)> {
        let caller = std::panic::Location::caller();
        async move {
            let frame = match self.next().await {
                Some(Ok(Message::Close(Some(frame)))) => frame,
                other => panic!("{caller}: no close frame but {other:?}"),
            };
            match self.next().await {
                None | Some(Err(Error::ConnectionClosed)) => {}
                other => panic!("{caller}: {other:?} after a close frame"),
            }
            (frame.code.into(), frame.reason.as_str().to_owned())
        }
    }

    /// Breaks the connection with a reset.
    pub fn vanish(self) {
        socket2::SockRef::from(&self.socket).set_linger(Some(std::time::Duration::ZERO)).expect("a socket option");
    }

    /// Closes and waits for the answer.
    pub async fn close(mut self) {
        within("a close is sent", self.stream.close(None)).await.expect("sent");
        while let Some(Ok(_)) = self.next().await {}
    }
}

/// A WebSocket whose frames are made by hand.
pub struct Frames {
    io: Box<dyn Io>,
    read: Vec<u8>,
}

/// A frame as it came: its first byte, and its payload.
pub type Frame = (u8, Vec<u8>);

impl Frames {
    /// Opens one that must be accepted.
    pub async fn open(http: Http, to: SocketAddr, path: &str, fields: &[(&str, &str)]) -> Self {
        Self::open_ahead(http, to, path, fields, b"").await
    }

    /// As [`Frames::open`]; the client goes on to say `ahead` before it has the answer.
    pub async fn open_ahead(http: Http, to: SocketAddr, path: &str, fields: &[(&str, &str)], ahead: &[u8]) -> Self {
        let opened = ask_ahead(http, dial(to).await, path, fields, ahead).await;
        assert!(matches!(opened.status.as_u16(), 101 | 200), "refused: {}", opened.status);
        Self { io: opened.io, read: Vec::new() }
    }

    /// Writes bytes.
    pub async fn write(&mut self, bytes: &[u8]) {
        within("bytes are sent", self.io.write_all(bytes)).await.expect("sent");
        within("bytes are sent", self.io.flush()).await.expect("sent");
    }

    /// The next frame; `None` at a clean end.
    pub async fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some((frame, len)) = parse(&self.read) {
                self.read.drain(..len);
                return Some(frame);
            }
            let mut part = [0; 4096];
            let len = within("a frame", self.io.read(&mut part)).await.expect("no reset");
            if len == 0 {
                assert!(self.read.is_empty(), "ended within a frame: {:?}", self.read);
                return None;
            }
            self.read.extend_from_slice(&part[..len]);
        }
    }

    /// Ends this direction cleanly.
    pub async fn shutdown(&mut self) {
        within("an end is sent", poll_fn(|cx| Pin::new(&mut self.io).poll_shutdown(cx))).await.expect("sent");
    }
}

/// A client's frame with this first byte, masked.
pub fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0x12, 0x34, 0x56, 0x78];
    let mut frame = head(first, payload.len(), 0x80);
    frame.extend_from_slice(&mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// A frame as only servers may send it.
pub fn unmasked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = head(first, payload.len(), 0);
    frame.extend_from_slice(payload);
    frame
}

fn head(first: u8, len: usize, mask: u8) -> Vec<u8> {
    match len {
        0..126 => vec![first, mask | len as u8],
        126..65536 => [&[first, mask | 126], &(len as u16).to_be_bytes()[..]].concat(),
        _ => [&[first, mask | 127], &(len as u64).to_be_bytes()[..]].concat(),
    }
}

/// A server's frame and its length; `None` while it is incomplete.
fn parse(mut bytes: &[u8]) -> Option<(Frame, usize)> {
    let whole = bytes.len();
    let (first, second) = (bytes.try_get_u8().ok()?, bytes.try_get_u8().ok()?);
    assert_eq!(second & 0x80, 0, "a server does not mask");
    let len = match second {
        126 => usize::from(bytes.try_get_u16().ok()?),
        127 => bytes.try_get_u64().ok()? as usize,
        short => usize::from(short),
    };
    let payload = bytes.get(..len)?;
    Some(((first, payload.to_vec()), whole - bytes.len() + len))
}
