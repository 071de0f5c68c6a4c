//! Clients that stay: event streams and WebSockets over both HTTP versions, many of them on one HTTP/2 connection.

use super::client::{DEADLINE, dial, get, open, within};
use super::client::{Http, Stream};
use bytes::Bytes;
use futures_util::StreamExt as _;
use http::{HeaderMap, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use std::net::SocketAddr;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{Message, client::IntoClientRequest as _, protocol::Role};

/// Why something did not come about; the peer may be on its way out.
pub type Failed = Box<dyn std::error::Error + Send + Sync>;

/// An HTTP/2 connection that carries many streams.
#[derive(Clone)]
pub struct Shared {
    send: h2::client::SendRequest<Bytes>,
    to: SocketAddr,
}

impl Shared {
    /// Connects with prior knowledge, and waits until extended CONNECT is allowed.
    pub async fn connect(to: SocketAddr) -> Result<Self, Failed> {
        let tcp = tokio::net::TcpStream::connect(to).await?;
        let (mut send, connection) = h2::client::Builder::new().handshake(tcp).await?;
        tokio::spawn(async move {
            let _ = connection.await;
        });
        let waiting = async {
            while !send.is_extended_connect_protocol_enabled() {
                send = send.clone().ready().await?;
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            }
            Ok::<_, Failed>(())
        };
        tokio::time::timeout(DEADLINE, waiting).await.map_err(|_| "no settings came")??;
        Ok(Self { send, to })
    }

    /// A GET; head and body.
    pub async fn get(&self, path: &str, fields: &[(&str, &str)]) -> Result<(StatusCode, HeaderMap, Body), Failed> {
        let mut request = http::Request::get(format!("http://{}{path}", self.to));
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let (response, _) = self.send.clone().ready().await?.send_request(request.body(())?, true)?;
        let (head, body) = response.await?.into_parts();
        Ok((head.status, head.headers, Body::H2(body)))
    }

    /// A WebSocket by extended CONNECT (RFC 8441).
    pub async fn websocket(&self, path: &str, subprotocol: &str) -> Result<Socket, Failed> {
        let mut request = http::Request::connect(format!("http://{}{path}", self.to))
            .header("sec-websocket-version", "13")
            .extension(h2::ext::Protocol::from_static("websocket"));
        if !subprotocol.is_empty() {
            request = request.header("sec-websocket-protocol", subprotocol);
        }
        let (response, mut send) = self.send.clone().ready().await?.send_request(request.body(())?, false)?;
        let response = response.await?;
        if response.status() != StatusCode::OK {
            return Err(format!("a WebSocket was answered {}", response.status()).into());
        }
        let mut receive = response.into_body();
        let (near, far) = tokio::io::duplex(64 * 1024);
        let (mut up, mut down) = tokio::io::split(far);
        tokio::spawn(async move {
            while let Some(Ok(data)) = receive.data().await {
                let _ = receive.flow_control().release_capacity(data.len());
                if down.write_all(&data).await.is_err() {
                    return;
                }
            }
            let _ = down.shutdown().await;
        });
        tokio::spawn(async move {
            let mut part = vec![0; 4096];
            while let Ok(len) = up.read(&mut part).await {
                if send.send_data(Bytes::copy_from_slice(&part[..len]), len == 0).is_err() || len == 0 {
                    return;
                }
            }
        });
        let near: Box<dyn Io> = Box::new(near);
        Ok(Socket(WebSocketStream::from_raw_socket(near, Role::Client, None).await))
    }
}

/// A response's body as it comes.
pub enum Body {
    /// Over HTTP/1.1.
    H1(Incoming),
    /// A stream of a [`Shared`].
    H2(h2::RecvStream),
}

impl Body {
    /// A GET over HTTP/1.1 on a connection of its own.
    pub async fn get(to: SocketAddr, path: &str, fields: &[(&str, &str)]) -> (StatusCode, HeaderMap, Self) {
        let (head, body) = open(Http::H1, to, get(to, path, fields)).await.into_parts();
        (head.status, head.headers, Self::H1(body))
    }

    /// The same, where the peer may be on its way out.
    pub async fn try_get(
        to: SocketAddr,
        path: &str,
        fields: &[(&str, &str)],
    ) -> Result<(StatusCode, HeaderMap, Self), Failed> {
        let mut request = get(to, path, fields);
        request.headers_mut().insert("host", to.to_string().parse()?);
        *request.uri_mut() = path.parse()?;
        let io = hyper_util::rt::TokioIo::new(tokio::net::TcpStream::connect(to).await?);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await?;
        tokio::spawn(connection);
        let (head, body) = sender.send_request(request).await?.into_parts();
        Ok((head.status, head.headers, Self::H1(body)))
    }

    /// The next piece; `None` is a clean end.
    pub async fn next(&mut self) -> Option<Result<Bytes, Failed>> {
        match self {
            Self::H1(body) => loop {
                match body.frame().await?.map(hyper::body::Frame::into_data) {
                    Ok(Ok(data)) => return Some(Ok(data)),
                    Ok(Err(_)) => {}
                    Err(error) => return Some(Err(error.into())),
                }
            },
            Self::H2(body) => {
                let data = body.data().await?;
                if let Ok(data) = &data {
                    let _ = body.flow_control().release_capacity(data.len());
                }
                Some(data.map_err(Into::into))
            }
        }
    }
}

/// One event of an event stream.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct SseEvent {
    /// `event`.
    pub event: String,
    /// `data`, its lines joined.
    pub data: String,
    /// `id`, if it came with it.
    pub id: Option<String>,
    /// `retry`, if it came with it.
    pub retry_ms: Option<u64>,
}

/// An event stream, event by event.
pub struct EventStream {
    body: Body,
    text: String,
}

impl EventStream {
    /// The events of a body.
    pub fn new(body: Body) -> Self {
        Self { body, text: String::new() }
    }

    /// The next block of lines; `None` is a clean end.
    pub async fn next(&mut self) -> Option<Result<SseEvent, Failed>> {
        loop {
            if let Some(at) = self.text.find("\n\n") {
                let block: String = self.text.drain(..at + 2).collect();
                let mut event = SseEvent::default();
                for line in block.lines() {
                    match line.split_once(": ").unwrap_or((line, "")) {
                        ("event", value) => value.clone_into(&mut event.event),
                        ("data", value) => event.data.push_str(value),
                        ("id", value) => event.id = Some(value.to_owned()),
                        ("retry", value) => event.retry_ms = value.parse().ok(),
                        _ => {}
                    }
                }
                return Some(Ok(event));
            }
            match self.body.next().await? {
                Ok(data) => self.text.push_str(std::str::from_utf8(&data).expect("text")),
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

/// Both directions of anything.
pub trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// A client's WebSocket.
pub struct Socket(WebSocketStream<Box<dyn Io>>);

/// What a WebSocket said.
#[derive(Debug, PartialEq, Eq)]
pub enum Said {
    /// A text.
    Text(String),
    /// A close frame, and whether the connection ended cleanly after it.
    Close(u16, String),
    /// The connection ended without one.
    Lost(String),
}

impl Socket {
    /// Opens one over HTTP/1.1 on a connection of its own.
    pub async fn connect(to: SocketAddr, path: &str, subprotocol: &str) -> Result<Self, Failed> {
        let mut request = format!("ws://{to}{path}").into_client_request()?;
        if !subprotocol.is_empty() {
            request.headers_mut().insert("sec-websocket-protocol", subprotocol.parse()?);
        }
        let tcp: Box<dyn Io> = Box::new(tokio::net::TcpStream::connect(to).await?);
        let (socket, _) = within("a handshake", tokio_tungstenite::client_async(request, tcp)).await?;
        Ok(Self(socket))
    }

    /// The next text, or the end. The server's close is answered.
    pub async fn next(&mut self) -> Said {
        let mut closed = None;
        loop {
            match self.0.next().await {
                Some(Ok(Message::Text(text))) => return Said::Text(text.to_string()),
                Some(Ok(Message::Close(frame))) => {
                    closed = Some(
                        frame.map_or((1005, String::new()), |frame| (frame.code.into(), frame.reason.to_string())),
                    );
                }
                Some(Ok(_)) => {}
                Some(Err(error)) if closed.is_none() => return Said::Lost(error.to_string()),
                Some(Err(_)) | None => {
                    return closed
                        .map_or_else(|| Said::Lost("no close".to_owned()), |(code, text)| Said::Close(code, text));
                }
            }
        }
    }
}

/// Opens an event stream over HTTP/1.1 and reads its opening.
pub async fn event_stream(to: SocketAddr, path: &str) -> Stream {
    let mut stream = Stream::of(open(Http::H1, to, get(to, path, &[("accept", "text/event-stream")])).await);
    stream.until("\n\n").await;
    stream
}

/// A WebSocket client that never answers: its handshake is done, and it reads nothing more.
pub async fn silent_websocket(to: SocketAddr, path: &str) -> tokio::net::TcpStream {
    let mut tcp = dial(to).await;
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: {to}\r\nupgrade: websocket\r\nconnection: upgrade\r\n\
         sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n\r\n"
    );
    tcp.write_all(request.as_bytes()).await.expect("written");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(within("a head", tcp.read_u8()).await.expect("a head"));
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
    tcp
}
