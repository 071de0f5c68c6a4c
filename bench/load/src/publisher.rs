//! One publishing connection, closed or open loop; blocking.

use crate::http1::Head;
use crate::machine::now_ns;
use crate::mark::Mark;
use crate::url::Url;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// How several messages are published at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Batch {
    /// As requests back to back in one write.
    Pipelined,
    /// As lines of one request.
    Lines,
}

/// A connection that publishes.
pub struct Publisher {
    url: Url,
    headers: String,
    template: String,
    prefix: String,
    payload_bytes: usize,
    batch: Batch,
    patience: Duration,
    /// Opened for the first message, since servers close what is idle for long, and after an answer that closed it.
    socket: Option<TcpStream>,
    answers: Vec<u8>,
}

/// What to publish: a channel's number and the message's in it.
pub type Item = (u32, u32);

impl Publisher {
    /// A publisher that is to connect. `template` is the body of a request, with `{ch}` and `{payload}`.
    pub fn new(
        url: Url,
        headers: &[String],
        template: &str,
        prefix: &str,
        payload_bytes: usize,
        batch: Batch,
        patience: Duration,
    ) -> Self {
        Self {
            socket: None,
            patience,
            url,
            headers: headers.iter().map(|line| format!("{line}\r\n")).collect(),
            template: template.into(),
            prefix: prefix.into(),
            payload_bytes,
            batch,
            answers: Vec::new(),
        }
    }

    /// Publishes all of `items` at once; when it began.
    ///
    /// # Errors
    /// When the server can't be reached or refuses one.
    pub fn publish(&mut self, items: &[Item]) -> Result<u64, String> {
        let sent_ns = now_ns();
        let bodies = items.iter().map(|(channel, seq)| {
            let payload = Mark { seq: *seq, sent_ns }.payload(self.payload_bytes);
            (*channel, self.template.replace("{ch}", &self.name(*channel)).replace("{payload}", &payload))
        });
        let (mut out, mut answers) = (Vec::new(), items.len());
        match self.batch {
            Batch::Pipelined => {
                for (channel, body) in bodies.collect::<Vec<_>>() {
                    self.write_request(&mut out, channel, &body);
                }
            }
            Batch::Lines => {
                let lines: Vec<_> = bodies.map(|(_, body)| body).collect();
                self.write_request(&mut out, items[0].0, &lines.join("\n"));
                answers = 1;
            }
        }
        let mut socket = match self.socket.take() {
            Some(socket) => socket,
            None => dial(&self.url, self.patience)?,
        };
        socket.write_all(&out).map_err(|error| format!("publish: {error}"))?;
        let mut closes = false;
        for _ in 0..answers {
            closes |= self.answer(&mut socket)?;
        }
        self.socket = (!closes).then_some(socket);
        Ok(sent_ns)
    }

    fn name(&self, channel: u32) -> String {
        format!("{}{channel}", self.prefix)
    }

    fn write_request(&self, out: &mut Vec<u8>, channel: u32, body: &str) {
        let path = self.url.path.replace("{ch}", &self.name(channel));
        let (host, headers) = (self.url.address, &self.headers);
        let head = format!("POST {path} HTTP/1.1\r\nHost: {host}\r\n{headers}Content-Length: {}\r\n\r\n", body.len());
        out.extend_from_slice(head.as_bytes());
        out.extend_from_slice(body.as_bytes());
    }

    /// Reads one answer; whether it closes the connection.
    fn answer(&mut self, socket: &mut TcpStream) -> Result<bool, String> {
        let mut part = [0; 16 * 1024];
        loop {
            if let Some((head, used)) = Head::read(&self.answers) {
                let (mut body, mut content) = (head.body(), Vec::new());
                let taken = body.feed(&self.answers[used..], &mut |bytes| content.extend_from_slice(bytes))?;
                if body.is_done() {
                    self.answers.drain(..used + taken);
                    return match head.status() {
                        200..300 => Ok(head.closes()),
                        _ => Err(format!("publish: {}: {}", head.start, String::from_utf8_lossy(&content).trim())),
                    };
                }
            }
            match socket.read(&mut part) {
                Ok(0) => return Err("publish: closed by the server".into()),
                Ok(count) => self.answers.extend_from_slice(&part[..count]),
                Err(error) => return Err(format!("publish: {error}")),
            }
        }
    }
}

fn dial(url: &Url, patience: Duration) -> Result<TcpStream, String> {
    let told = |error: std::io::Error| format!("publish: {error}");
    let socket = TcpStream::connect(url.address).map_err(told)?;
    socket.set_nodelay(true).map_err(told)?;
    socket.set_read_timeout(Some(patience)).map_err(told)?;
    Ok(socket)
}
