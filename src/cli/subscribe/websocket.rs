//! Events over a WebSocket with the subprotocol `pushbridge.v1.json` (RFC 6455, over HTTP/1.1).

use crate::cli::subscribe::dial::{Dialer, Socket, Version};
use crate::cli::subscribe::print::{Gap, Reader, Received};
use crate::cli::subscribe::request::{add_fields, judge};
use crate::cli::subscribe::wire::{EventIn, Message};
use crate::cli::subscribe::{Attempt, Ended};
use futures_util::StreamExt as _;
use http::{Request, header};
use std::time::Duration;
use tokio::time;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_tungstenite::tungstenite::{self, Error};

const SUBPROTOCOL: &str = "pushbridge.v1.json";
const MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(30);
/// A server pings each 25 s or so; after this much silence the connection is taken for dead.
const SILENCE_MAX: Duration = Duration::from_secs(90);
/// Close codes after which the same request would end the same way.
const CLOSED_FOR_GOOD: [u16; 4] = [1008, 4400, 4401, 4404];

/// Reads one socket to its end.
pub async fn attempt(dialer: &Dialer, reader: &mut Reader<'_>) -> Attempt {
    let mut socket = open(dialer, reader.cursor()).await?;
    reader.connected();
    let mut after = None;
    loop {
        let next =
            time::timeout(SILENCE_MAX, socket.next()).await.map_err(|_| Ended::lost("the socket fell silent"))?;
        let message = match next {
            None | Some(Err(Error::ConnectionClosed)) => {
                return Err(Ended::Lost { reason: "the socket was closed".into(), after });
            }
            Some(message) => message.map_err(Ended::lost)?,
        };
        match message {
            tungstenite::Message::Text(text) => after = take(text.as_str(), reader)?.or(after),
            tungstenite::Message::Close(frame) => return Err(closed(frame, after)),
            // Pings are answered by the library; v1 sends no other binary frames.
            _ => {}
        }
    }
}

async fn open(dialer: &Dialer, cursor: &str) -> Result<WebSocketStream<Socket>, Ended> {
    let dialled = dialer.connect(&[Version::Http1]).await;
    let (socket, _) = dialled.map_err(|error| Ended::lost(format_args!("{error:#}")))?;
    let request = handshake(dialer, cursor).map_err(Ended::ForGood)?;
    let config = WebSocketConfig::default()
        .read_buffer_size(16 * 1024)
        .write_buffer_size(0)
        .max_write_buffer_size(64 * 1024)
        .max_message_size(Some(MESSAGE_BYTES_MAX))
        .max_frame_size(Some(MESSAGE_BYTES_MAX));
    let opening = tokio_tungstenite::client_async_with_config(request, socket, Some(config));
    match time::timeout(HANDSHAKE_TIMEOUT, opening).await {
        Err(_) => Err(Ended::lost("no answer to the WebSocket handshake")),
        Ok(Ok((socket, _))) => Ok(socket),
        Ok(Err(Error::Http(response))) => {
            let body = response.body().as_deref().unwrap_or_default();
            Err(judge(response.status(), response.headers(), body))
        }
        Ok(Err(error @ Error::Protocol(_))) => {
            let text = format!("no WebSocket with {SUBPROTOCOL} ({error}); is this the URL of a push route?");
            Err(Ended::ForGood(anyhow::anyhow!(text)))
        }
        Ok(Err(error)) => Err(Ended::lost(error)),
    }
}

fn handshake(dialer: &Dialer, cursor: &str) -> anyhow::Result<Request<()>> {
    let scheme = if dialer.scheme == http::uri::Scheme::HTTPS { "wss" } else { "ws" };
    let mut request = Request::get(format!("{scheme}://{}{}", dialer.authority, dialer.path))
        .header(header::HOST, dialer.authority.as_str())
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "websocket")
        .header(header::SEC_WEBSOCKET_VERSION, "13")
        .header(header::SEC_WEBSOCKET_KEY, generate_key())
        .header(header::SEC_WEBSOCKET_PROTOCOL, SUBPROTOCOL)
        .body(())?;
    add_fields(request.headers_mut(), dialer, cursor)?;
    Ok(request)
}

/// Acts on a message; gives the pause that the server asks for before the next connection.
fn take(text: &str, reader: &mut Reader<'_>) -> Result<Option<Duration>, Ended> {
    let malformed = |error| Ended::lost(format_args!("a message is not {SUBPROTOCOL}'s: {error}"));
    let message: Message = serde_json::from_str(text).map_err(malformed)?;
    match message.kind.as_str() {
        "event" => reader.event(&Received::from(serde_json::from_str::<EventIn>(text).map_err(malformed)?))?,
        "gap" => {
            reader.gap(&serde_json::from_str::<Gap>(text).map_err(malformed)?);
            message.id.iter().for_each(|id| reader.set_cursor(id));
        }
        "welcome" => message.cursor.iter().for_each(|cursor| reader.set_cursor(cursor)),
        "reconnect" => {
            message.cursor.iter().for_each(|cursor| reader.set_cursor(cursor));
            return Ok(message.after_ms.map(Duration::from_millis));
        }
        "error" => reader.note(format_args!("the server says: {}", message.message.as_deref().unwrap_or(text))),
        // subscribed, unsubscribed, published, pong, and whatever a later server adds.
        _ => {}
    }
    Ok(None)
}

fn closed(frame: Option<CloseFrame>, after: Option<Duration>) -> Ended {
    let Some(CloseFrame { code, reason }) = frame else {
        return Ended::Lost { reason: "the socket was closed".into(), after };
    };
    let code = u16::from(code);
    let reason = format!("the socket was closed: {code} {reason}");
    if CLOSED_FOR_GOOD.contains(&code) {
        Ended::ForGood(anyhow::anyhow!(reason))
    } else {
        Ended::Lost { reason, after }
    }
}
