//! Bytes both ways between a client and a backend that speaks the client's protocol itself; it knows nothing of it.
//!
//! An idle tunnel holds no buffer: reads go through one per worker, and only what the other end does not take at once
//! is kept. Each end's close is passed on when all before it was delivered (half-close).

use crate::gateway::ending::Ending;
use crate::proto::chunk::Chunk;
use crate::server::{Held, Link};
use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

/// One read; also what may wait for a slow backend.
const READ_BYTES: usize = 16 * 1024;
/// When one end has closed, the other may stay silent for this long. Idle for both open ends is no matter.
const HALF_CLOSED_IDLE: Duration = Duration::from_secs(60);

thread_local! {
    /// Used within one poll at a time, never across one.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BYTES].into_boxed_slice());
}

/// A session that only passes bytes on.
pub(super) struct Tunnel<S> {
    /// The backend's end.
    pub(super) server: S,
    /// When it is cut, whatever it carries: it can't be told to go elsewhere.
    pub(super) ending: Ending,
}

impl<S: AsyncRead + AsyncWrite + Unpin + 'static> Held for Tunnel<S> {
    fn run(self: Box<Self>, link: Link) -> LocalBoxFuture<'static, ()> {
        let Self { server, mut ending } = *self;
        Box::pin(async move {
            let mut relay = pin!(relay(link, server, HALF_CLOSED_IDLE));
            let relayed = poll_fn(|cx| match ending.poll_end(cx) {
                Poll::Ready(()) => Poll::Ready(Ok(())),
                Poll::Pending => relay.as_mut().poll(cx),
            });
            if let Err(error) = relayed.await {
                tracing::debug!(%error, "tunnel broke");
            }
        })
    }
}

/// What a tunnel needs of a client's link.
trait ClientEnd {
    fn has_room(&self) -> bool;
    fn push(&mut self, chunk: &Chunk);
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>>;
    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
}

impl ClientEnd for Link {
    fn has_room(&self) -> bool {
        Link::has_room(self)
    }
    fn push(&mut self, chunk: &Chunk) {
        Link::push(self, chunk);
    }
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Link::poll_flush(self, cx)
    }
    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        Link::poll_read(self, cx, buffer)
    }
    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Link::poll_finish(self, cx)
    }
}

/// Passes bytes both ways until both ends have closed, one breaks, or a half-closed tunnel stays silent.
async fn relay<C: ClientEnd, S: AsyncRead + AsyncWrite + Unpin>(
    client: C,
    server: S,
    half_closed_idle: Duration,
) -> io::Result<()> {
    let mut relay = Relay { client, server, down: End::Open, up: End::Open, waiting: Vec::new(), moved: 0 };
    let mut silence = pin!(tokio::time::sleep(half_closed_idle));
    let mut moved = 0;
    poll_fn(|cx| {
        let down = relay.poll_down(cx)?;
        let up = relay.poll_up(cx)?;
        if down.is_ready() && up.is_ready() {
            return Poll::Ready(Ok(()));
        }
        if down.is_pending() && up.is_pending() {
            return Poll::Pending;
        }
        if moved != relay.moved {
            moved = relay.moved;
            silence.as_mut().reset(Instant::now() + half_closed_idle);
        }
        silence.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    })
    .await
}

struct Relay<C, S> {
    client: C,
    server: S,
    down: End,
    up: End,
    /// What the server did not take yet.
    waiting: Vec<u8>,
    /// Counts whatever moved, and each close.
    moved: u64,
}

/// How far one direction is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Open,
    /// The source has closed; the close is being passed on.
    Closing,
    Closed,
}

impl<C: ClientEnd, S: AsyncRead + AsyncWrite + Unpin> Relay<C, S> {
    /// From the server to the client; ready when closed.
    fn poll_down(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            match self.down {
                End::Closed => return Poll::Ready(Ok(())),
                End::Closing => {
                    ready!(self.client.poll_finish(cx))?;
                    self.advance_down(End::Closed);
                }
                End::Open => {
                    if !self.client.has_room() {
                        ready!(self.client.poll_flush(cx))?;
                    }
                    match self.read_server(cx) {
                        Poll::Ready(read) => match read? {
                            Some(bytes) => {
                                self.client.push(&Chunk::raw(bytes));
                                self.moved += 1;
                            }
                            None => self.advance_down(End::Closing),
                        },
                        Poll::Pending => {
                            if let Poll::Ready(flushed) = self.client.poll_flush(cx) {
                                flushed?;
                            }
                            return Poll::Pending;
                        }
                    }
                }
            }
        }
    }

    /// From the client to the server; ready when closed.
    fn poll_up(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            if !self.waiting.is_empty() {
                let taken = ready!(Pin::new(&mut self.server).poll_write(cx, &self.waiting))?;
                if taken == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                self.moved += 1;
                self.waiting.drain(..taken);
                if self.waiting.is_empty() {
                    self.waiting = Vec::new();
                }
                continue;
            }
            match self.up {
                End::Closed => return Poll::Ready(Ok(())),
                End::Closing => {
                    ready!(Pin::new(&mut self.server).poll_shutdown(cx))?;
                    self.moved += 1;
                    self.up = End::Closed;
                }
                End::Open => {
                    if ready!(self.pass_up(cx))? == 0 {
                        self.moved += 1;
                        self.up = End::Closing;
                    }
                }
            }
        }
    }

    fn advance_down(&mut self, to: End) {
        self.down = to;
        self.moved += 1;
    }

    /// Reads from the server; `None` is its end.
    fn read_server(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        SCRATCH.with_borrow_mut(|scratch| {
            let mut buffer = ReadBuf::new(scratch);
            ready!(Pin::new(&mut self.server).poll_read(cx, &mut buffer))?;
            let filled = buffer.filled();
            Poll::Ready(Ok((!filled.is_empty()).then(|| Bytes::copy_from_slice(filled))))
        })
    }

    /// Reads from the client and hands over what the server takes at once; the rest waits.
    fn pass_up(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        SCRATCH.with_borrow_mut(|scratch| {
            let read = ready!(self.client.poll_read(cx, scratch))?;
            let bytes = &scratch[..read];
            let taken = match Pin::new(&mut self.server).poll_write(cx, bytes) {
                _ if read == 0 => 0,
                Poll::Ready(taken) => taken?,
                Poll::Pending => 0,
            };
            self.moved += u64::from(read > 0);
            self.waiting.extend_from_slice(&bytes[taken..]);
            Poll::Ready(Ok(read))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    const LIMIT: Duration = Duration::from_millis(100);

    /// A link over an in-memory pipe with a queue of at most one read.
    struct Piped {
        pipe: DuplexStream,
        queue: VecDeque<Bytes>,
    }

    impl ClientEnd for Piped {
        fn has_room(&self) -> bool {
            self.queue.is_empty()
        }
        fn push(&mut self, chunk: &Chunk) {
            assert!(self.queue.is_empty(), "pushed without room");
            self.queue.push_back(chunk.content());
        }
        fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            while let Some(first) = self.queue.front_mut() {
                let taken = ready!(Pin::new(&mut self.pipe).poll_write(cx, first))?;
                if taken == first.len() {
                    self.queue.pop_front();
                } else {
                    *first = first.slice(taken..);
                }
            }
            Poll::Ready(Ok(()))
        }
        fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
            let mut buffer = ReadBuf::new(buffer);
            ready!(Pin::new(&mut self.pipe).poll_read(cx, &mut buffer))?;
            Poll::Ready(Ok(buffer.filled().len()))
        }
        fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            ready!(self.poll_flush(cx))?;
            Pin::new(&mut self.pipe).poll_shutdown(cx)
        }
    }

    /// Runs `test` with the far ends of the client and the server beside a tunnel, whose end it gives back.
    fn run<F: Future<Output = ()>>(test: impl FnOnce(DuplexStream, DuplexStream) -> F) -> io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        runtime.block_on(async {
            let (client, pipe) = duplex(100);
            let (server, far) = duplex(100);
            let link = Piped { pipe, queue: VecDeque::new() };
            tokio::join!(relay(link, server, LIMIT), test(client, far)).0
        })
    }

    #[test]
    fn bytes_flow_both_ways_and_a_close_reaches_the_other_end() {
        let ended = run(|mut client, mut server| async move {
            client.write_all(b"hello").await.expect("written");
            let mut heard = [0; 5];
            server.read_exact(&mut heard).await.expect("read");
            assert_eq!(&heard, b"hello");
            // Idle for long is no matter while both are open.
            tokio::time::sleep(LIMIT * 3).await;
            client.shutdown().await.expect("half closed");
            assert_eq!(server.read(&mut heard).await.expect("an end"), 0);
            server.write_all(b"bye").await.expect("written");
            server.shutdown().await.expect("closed");
            let mut last = String::new();
            client.read_to_string(&mut last).await.expect("text");
            assert_eq!(last, "bye");
        });
        assert!(ended.is_ok());
    }

    #[test]
    fn much_more_than_the_buffers_passes_whole() {
        let sent: Vec<u8> = (0..1_000_000_u32).map(|at| (at % 251) as u8).collect();
        let ended = run(|client, server| async move {
            let (mut client_in, mut client_out) = tokio::io::split(client);
            let (mut server_in, mut server_out) = tokio::io::split(server);
            let (mut up, mut down) = (Vec::new(), Vec::new());
            let write = async {
                client_out.write_all(&sent).await.expect("written");
                client_out.shutdown().await.expect("closed");
            };
            let back = async {
                server_out.write_all(&sent).await.expect("written");
                server_out.shutdown().await.expect("closed");
            };
            let (.., read_up, read_down) =
                tokio::join!(write, back, server_in.read_to_end(&mut up), client_in.read_to_end(&mut down));
            read_up.and(read_down).expect("read");
            assert!(up == sent && down == sent);
        });
        assert!(ended.is_ok());
    }

    #[test]
    fn a_half_closed_tunnel_that_stays_silent_ends() {
        let ended = run(|mut client, mut server| async move {
            server.shutdown().await.expect("closed");
            assert_eq!(client.read(&mut [0; 1]).await.expect("an end"), 0);
            assert_eq!(server.read(&mut [0; 1]).await.expect("an end"), 0);
            drop(client);
        });
        assert_eq!(ended.err().map(|error| error.kind()), Some(io::ErrorKind::TimedOut));
    }

    #[test]
    fn a_client_that_breaks_ends_the_tunnel() {
        let ended = run(|client, mut server| async move {
            drop(client);
            let _ = server.write_all(&[0; 1000]).await;
            let mut rest = Vec::new();
            server.read_to_end(&mut rest).await.expect("an end");
        });
        assert!(ended.is_err());
    }
}
