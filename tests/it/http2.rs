//! HTTP/2 of the clients (RFC 9113, RFC 7541, RFC 8441), frame by frame: what the standard asks of a server, and what
//! a hostile client gets.

mod abuse;
mod answers;
mod compression;
mod conformance;
mod flow;
mod goodbye;
mod requests;
mod streams;
mod strict;

use crate::support::backend::Backend;
use crate::support::frames::{PING, frame};
use crate::support::http2::{Event, Http2};
use crate::support::proxy::Proxy;
use std::net::SocketAddr;

const OPEN: &str = "pushbridge_server_connections_open{listener=\"http\",protocol=\"h2\"}";
const SSE: &str = "pushbridge_hub_sessions_open{transport=\"sse\"}";

/// A proxy before a backend that answers with what it was asked.
async fn mirrored(more: &str) -> (Proxy, Backend) {
    let backend = Backend::mirror().await;
    (Proxy::start(&format!("{}\n{more}\n", backend.config(""))), backend)
}

/// Something to send, and the codes of which one is expected.
type Case = (&'static str, &'static [u32], Vec<u8>);

/// Sends each on a connection of its own: it must be closed, after a GOAWAY with one of the codes.
#[track_caller]
fn each_ends_its_connection(to: SocketAddr, cases: Vec<Case>) -> impl Future<Output = ()> {
    let caller = std::panic::Location::caller();
    async move {
        let mut wrong = Vec::new();
        for (name, codes, bytes) in cases {
            let end = end_of(&mut Http2::open(to).await, bytes).await;
            if !matches!(end, End::Closed(Some(code)) if codes.contains(&code)) {
                wrong.push(format!("{name}: expected one of {codes:?}, but: {end:?}"));
            }
        }
        assert!(wrong.is_empty(), "{caller}:\n{}", wrong.join("\n"));
    }
}

/// What came of bytes.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// The connection was closed, with this code of the last GOAWAY.
    Closed(Option<u32>),
    /// A stream was reset, and the connection goes on.
    Reset(u32),
    /// A request was answered, and the connection goes on.
    Answered(u16),
    /// Nothing.
    Nothing,
}

/// Sends bytes and a PING, and tells what came first.
async fn end_of(http2: &mut Http2, bytes: Vec<u8>) -> End {
    http2.write([bytes, frame(PING, 0, 0, b"go on ?!")].concat()).await;
    let (mut end, mut goodbye, mut pongs) = (End::Nothing, None, 0);
    loop {
        match http2.event().await {
            None => return End::Closed(goodbye),
            Some(Event::Goaway { code, .. }) => goodbye = Some(code),
            Some(Event::Reset { code, .. }) => end = End::Reset(code),
            Some(Event::Head { fields, .. }) => end = End::Answered(fields[0].1.parse().expect("a status")),
            // An answer to a PING may go before what was to be said earlier; and who has said goodbye is about to close.
            Some(Event::Pong(payload)) if payload == b"go on ?!" && goodbye.is_none() => {
                pongs += 1;
                if pongs == 3 {
                    return end;
                }
                http2.write(frame(PING, 0, 0, b"go on ?!")).await;
            }
            Some(_) => {}
        }
    }
}
