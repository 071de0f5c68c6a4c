//! Two small servers: the floor, and a backend.
//!
//! `echo` does the least that a fan-out on HTTP/1.1 can do: one thread, and one write(2) of ready-made bytes for each
//! subscriber. `backend` answers what a proxy in front of it asks for: 1 KB, or GRIP holds on a channel.

use crate::http1::Head;
use crate::websocket;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use socket2::{Domain, Protocol, Socket, Type};
use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;

const LISTENER: Token = Token(usize::MAX);
const BACKLOG: i32 = 4096;

/// What becomes of a request's connection.
enum Answer {
    Respond(Vec<u8>),
    /// Held: these bytes first, then what is published.
    Hold(Form, String, Vec<u8>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Sse,
    WebSocket,
    LongPoll,
}

struct Connection {
    socket: TcpStream,
    buffer: Vec<u8>,
    /// Where it stands among its channel's holds.
    held: Option<(Form, usize, usize)>,
}

#[derive(Default)]
struct Channel {
    held: [Vec<usize>; 3],
    count: u64,
    last: Vec<u8>,
}

#[derive(Default)]
struct Server {
    connections: Vec<Option<Connection>>,
    free: Vec<usize>,
    names: HashMap<String, usize>,
    channels: Vec<Channel>,
}

/// Serves the floor for ever.
pub fn echo(address: SocketAddr) -> Result<(), String> {
    serve(address, |server, head, content| server.echo(head, content))
}

/// Serves the backend for ever.
pub fn backend(address: SocketAddr) -> Result<(), String> {
    let kilobyte: Vec<u8> = (0..1024).map(|at| b'a' + (at % 26) as u8).collect();
    serve(address, move |_, head, content| grip(head, content, &kilobyte))
}

fn serve(
    address: SocketAddr,
    answer: impl Fn(&mut Server, &Head, &[u8]) -> Result<Answer, String>,
) -> Result<(), String> {
    let told = |error: std::io::Error| format!("{address}: {error}");
    if !address.ip().is_loopback() {
        return Err(format!("{address}: not a loopback address"));
    }
    let listener = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP)).map_err(told)?;
    listener.set_reuse_address(true).map_err(told)?;
    listener.bind(&address.into()).map_err(told)?;
    listener.listen(BACKLOG).map_err(told)?;
    listener.set_nonblocking(true).map_err(told)?;
    let mut listener = TcpListener::from_std(listener.into());
    let mut poll = Poll::new().map_err(told)?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE).map_err(told)?;
    let mut server = Server::default();
    let mut events = Events::with_capacity(1024);
    let mut scratch = vec![0; 64 * 1024];
    loop {
        match poll.poll(&mut events, None) {
            Err(error) if error.kind() != ErrorKind::Interrupted => return Err(told(error)),
            _ => {}
        }
        for event in &events {
            if event.token() == LISTENER {
                while let Ok((socket, _)) = listener.accept() {
                    server.accept(socket, &poll).map_err(told)?;
                }
            } else {
                server.readable(event.token().0, &mut scratch, &answer);
            }
        }
    }
}

impl Server {
    fn accept(&mut self, mut socket: TcpStream, poll: &Poll) -> std::io::Result<()> {
        socket.set_nodelay(true)?;
        let at = self.free.pop().unwrap_or_else(|| {
            self.connections.push(None);
            self.connections.len() - 1
        });
        poll.registry().register(&mut socket, Token(at), Interest::READABLE)?;
        self.connections[at] = Some(Connection { socket, buffer: Vec::new(), held: None });
        Ok(())
    }

    fn readable(
        &mut self,
        at: usize,
        scratch: &mut [u8],
        answer: &impl Fn(&mut Server, &Head, &[u8]) -> Result<Answer, String>,
    ) {
        loop {
            let Some(connection) = self.connections.get_mut(at).and_then(Option::as_mut) else { return };
            let count = match connection.socket.read(scratch) {
                Ok(count) if count > 0 => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                _ => return self.forget(at),
            };
            connection.buffer.extend_from_slice(&scratch[..count]);
            if self.requests(at, answer).is_err() {
                return self.forget(at);
            }
            // A short read emptied the socket; what comes after it is a new edge (epoll(7)).
            if count < scratch.len() {
                return;
            }
        }
    }

    fn requests(
        &mut self,
        at: usize,
        answer: &impl Fn(&mut Server, &Head, &[u8]) -> Result<Answer, String>,
    ) -> Result<(), String> {
        while let Some(connection) = self.connections[at].as_mut()
            && connection.held.is_none()
        {
            let Some((head, used)) = Head::read(&connection.buffer) else { break };
            let (mut body, mut content) = (head.body(), Vec::new());
            let taken = body.feed(&connection.buffer[used..], &mut |part| content.extend_from_slice(part))?;
            if !body.is_done() {
                break;
            }
            connection.buffer.drain(..used + taken);
            if connection.buffer.is_empty() {
                connection.buffer = Vec::new();
            }
            match answer(self, &head, &content)? {
                Answer::Respond(bytes) => self.write(at, &bytes)?,
                Answer::Hold(form, channel, bytes) => {
                    if !bytes.is_empty() {
                        self.write(at, &bytes)?;
                    }
                    self.hold(at, form, &channel);
                }
            }
        }
        Ok(())
    }

    /// One write(2); a socket that can't take it all is too slow for this server.
    fn write(&mut self, at: usize, bytes: &[u8]) -> Result<(), String> {
        let Some(connection) = &mut self.connections[at] else { return Ok(()) };
        match connection.socket.write(bytes) {
            Ok(count) if count == bytes.len() => Ok(()),
            Ok(_) => Err("a short write".into()),
            Err(error) => Err(error.to_string()),
        }
    }

    fn channel(&mut self, name: &str) -> usize {
        if let Some(at) = self.names.get(name) {
            return *at;
        }
        self.channels.push(Channel::default());
        self.names.insert(name.to_owned(), self.channels.len() - 1);
        self.channels.len() - 1
    }

    fn hold(&mut self, at: usize, form: Form, channel: &str) {
        let channel = self.channel(channel);
        let held = &mut self.channels[channel].held[form as usize];
        if let Some(connection) = &mut self.connections[at] {
            connection.held = Some((form, channel, held.len()));
            held.push(at);
        }
    }

    fn forget(&mut self, at: usize) {
        let Some(connection) = self.connections[at].take() else { return };
        self.free.push(at);
        let Some((form, channel, place)) = connection.held else { return };
        let held = &mut self.channels[channel].held[form as usize];
        held.swap_remove(place);
        if let Some(moved) = held.get(place).copied()
            && let Some(connection) = &mut self.connections[moved]
        {
            connection.held = Some((form, channel, place));
        }
    }

    fn echo(&mut self, head: &Head, content: &[u8]) -> Result<Answer, String> {
        let (kind, name) = target(head)?;
        Ok(match kind {
            "pub" => {
                self.publish(name, content);
                Answer::Respond(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_vec())
            }
            "sse" => {
                let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
                Answer::Hold(Form::Sse, name.into(), head.into())
            }
            "ws" => Answer::Hold(Form::WebSocket, name.into(), switching().into()),
            "lp" => {
                let at = self.channel(name);
                let channel = &self.channels[at];
                match head.field("if-none-match").and_then(|tag| tag.trim_matches('"').parse::<u64>().ok()) {
                    Some(seen) if seen < channel.count => Answer::Respond(poll_answer(channel.count, &channel.last)),
                    _ => Answer::Hold(Form::LongPoll, name.into(), Vec::new()),
                }
            }
            _ => return Err("no such path".into()),
        })
    }

    fn publish(&mut self, name: &str, content: &[u8]) {
        let at = self.channel(name);
        let channel = &mut self.channels[at];
        channel.count += 1;
        channel.last = content.to_vec();
        let polled = poll_answer(channel.count, content);
        let event = [b"data: ", content, b"\n\n"].concat();
        let chunk = [format!("{:x}\r\n", event.len()).as_bytes(), &event, b"\r\n"].concat();
        let frames = [chunk, websocket::text(content), polled];
        let polls = std::mem::take(&mut channel.held[Form::LongPoll as usize]);
        for connection in &polls {
            if let Some(connection) = &mut self.connections[*connection] {
                connection.held = None;
            }
        }
        let held = &self.channels[at].held;
        let all = [held[Form::Sse as usize].clone(), held[Form::WebSocket as usize].clone(), polls];
        for (connections, bytes) in all.iter().zip(&frames) {
            for connection in connections {
                if self.write(*connection, bytes).is_err() {
                    self.forget(*connection);
                }
            }
        }
    }
}

fn target(head: &Head) -> Result<(&str, &str), String> {
    let path = head.start.split(' ').nth(1).and_then(|path| path.strip_prefix('/')).ok_or("no path")?;
    Ok(path.split_once('/').unwrap_or((path, "")))
}

fn switching() -> String {
    let accept = websocket::ACCEPT;
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
    )
}

fn poll_answer(count: u64, content: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\nETag: \"{count}\"\r\nContent-Length: {}\r\n\r\n", content.len());
    [head.as_bytes(), content].concat()
}

/// What a backend behind a GRIP proxy answers.
fn grip(head: &Head, content: &[u8], kilobyte: &[u8]) -> Result<Answer, String> {
    let (kind, channel) = target(head)?;
    let respond = |fields: &str, body: &[u8]| {
        let head = format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: {}\r\n\r\n", body.len());
        Ok(Answer::Respond([head.as_bytes(), body].concat()))
    };
    let held = |mode: &str, kind: &str| {
        respond(&format!("Grip-Hold: {mode}\r\nGrip-Channel: {channel}\r\nContent-Type: {kind}\r\n"), b"")
    };
    match kind {
        "kilobyte" => respond("Content-Type: text/plain\r\n", kilobyte),
        "sse" => held("stream", "text/event-stream"),
        "lp" => held("response", "text/plain"),
        "ws" if content.starts_with(b"OPEN") => {
            let control = format!("c:{{\"type\":\"subscribe\",\"channel\":\"{channel}\"}}");
            let body = format!("OPEN\r\nTEXT {:x}\r\n{control}\r\n", control.len());
            respond("Content-Type: application/websocket-events\r\nSec-WebSocket-Extensions: grip\r\n", body.as_bytes())
        }
        "ws" => respond("Content-Type: application/websocket-events\r\n", b""),
        _ => Err("no such path".into()),
    }
}
