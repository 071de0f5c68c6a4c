//! Orders: WebSocket messages that reach the origin as plain POSTs (WebSocket-over-HTTP with GRIP).
//!
//! The origin keeps nothing between two requests. It accepts the socket, subscribes it to the channel of all trades,
//! and answers each order in the answer to its POST.
//!
//! ```text
//!   OPEN                      ─▶  OPEN, TEXT c:{"type":"subscribe","channel":"trades"}
//!   TEXT {"side":"buy", …}    ─▶  TEXT m:{"type":"confirmation", …}
//! ```

use crate::demo::market::{Market, Side, Trade};
use serde_json::{Value, json};

/// The media type of both directions.
pub const MEDIA_TYPE: &str = "application/websocket-events";
/// The channel on which all trades are shown to everybody.
pub const TRADES_CHANNEL: &str = "trades";

const QUANTITY_MAX: u32 = 10_000;

/// What the origin answers to one POST.
#[derive(Debug, PartialEq)]
pub struct Answer {
    /// Events for the client.
    pub body: Vec<u8>,
    /// What was traded, to be published.
    pub trades: Vec<Trade>,
}

/// The body is no sequence of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the body is not application/websocket-events; send NAME[ hex-length]\\r\\n[content\\r\\n]")]
pub struct Malformed;

/// Answers the events of one POST, in order.
///
/// # Errors
/// When the body is malformed; nothing was traded then.
pub fn answer(body: &[u8], trader: &str, market: &mut Market, time_ms: u64) -> Result<Answer, Malformed> {
    let mut answer = Answer { body: Vec::new(), trades: Vec::new() };
    for (name, content) in events(body)? {
        match name {
            b"OPEN" => {
                put(&mut answer.body, "OPEN", b"");
                let subscribe = json!({ "type": "subscribe", "channel": TRADES_CHANNEL });
                put(&mut answer.body, "TEXT", format!("c:{subscribe}").as_bytes());
            }
            b"TEXT" => {
                let reply = match place(content, trader, market, time_ms) {
                    Ok(trade) => {
                        let reply = message("confirmation", &trade);
                        answer.trades.push(trade);
                        reply
                    }
                    Err(reason) => json!({ "type": "rejected", "reason": reason }),
                };
                put(&mut answer.body, "TEXT", format!("m:{reply}").as_bytes());
            }
            b"PING" => put(&mut answer.body, "PONG", content),
            b"CLOSE" => put(&mut answer.body, "CLOSE", content),
            // BINARY, PONG and DISCONNECT ask for no answer.
            _ => {}
        }
    }
    Ok(answer)
}

/// A trade as clients see it: its fields and a `type`.
pub fn message(kind: &str, trade: &Trade) -> Value {
    let mut value = json!(trade);
    value["type"] = kind.into();
    value
}

#[derive(serde::Deserialize)]
struct Order {
    side: Side,
    symbol: String,
    quantity: u32,
}

fn place(text: &[u8], trader: &str, market: &mut Market, time_ms: u64) -> Result<Trade, String> {
    let order: Order = serde_json::from_slice(text)
        .map_err(|error| format!("an order is {{\"side\": \"buy\" or \"sell\", \"symbol\", \"quantity\"}}: {error}"))?;
    if order.quantity == 0 || order.quantity > QUANTITY_MAX {
        return Err(format!("a quantity is 1 to {QUANTITY_MAX}, not {}", order.quantity));
    }
    market
        .fill(order.side, &order.symbol, order.quantity, trader, time_ms)
        .ok_or_else(|| format!("no stock {:?} is listed here", order.symbol.chars().take(16).collect::<String>()))
}

fn put(body: &mut Vec<u8>, name: &str, content: &[u8]) {
    body.extend_from_slice(name.as_bytes());
    if !content.is_empty() {
        body.extend_from_slice(format!(" {:x}\r\n", content.len()).as_bytes());
        body.extend_from_slice(content);
    }
    body.extend_from_slice(b"\r\n");
}

/// An event's name and its content.
type Event<'a> = (&'a [u8], &'a [u8]);

fn events(mut body: &[u8]) -> Result<Vec<Event<'_>>, Malformed> {
    let mut events = Vec::new();
    while !body.is_empty() {
        let end = memchr::memmem::find(body, b"\r\n").ok_or(Malformed)?;
        let (head, rest) = (&body[..end], &body[end + 2..]);
        let Some(space) = memchr::memchr(b' ', head) else {
            events.push((head, &b""[..]));
            body = rest;
            continue;
        };
        let digits = std::str::from_utf8(&head[space + 1..]).map_err(|_| Malformed)?;
        let length = usize::from_str_radix(digits, 16).map_err(|_| Malformed)?;
        let (content, rest) = rest.split_at_checked(length).ok_or(Malformed)?;
        events.push((&head[..space], content));
        body = rest.strip_prefix(b"\r\n").ok_or(Malformed)?;
    }
    Ok(events)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn answer_text(body: &str) -> (String, usize) {
        let answer = answer(body.as_bytes(), "tester", &mut Market::new(7), 5).expect("well formed");
        (String::from_utf8(answer.body).expect("text"), answer.trades.len())
    }

    #[track_caller]
    fn check(body: &str, expected: &str) {
        assert_eq!(answer_text(body), (expected.to_owned(), 0), "{body:?}");
    }

    #[test]
    fn control_events_are_answered() {
        check("OPEN\r\n", "OPEN\r\nTEXT 29\r\nc:{\"channel\":\"trades\",\"type\":\"subscribe\"}\r\n");
        check("PING\r\n", "PONG\r\n");
        check("PING 2\r\nhi\r\nPONG\r\n", "PONG 2\r\nhi\r\n");
        check("CLOSE 2\r\n\u{3}Q\r\n", "CLOSE 2\r\n\u{3}Q\r\n");
        check("DISCONNECT\r\n", "");
        check("", "");
    }

    #[test]
    fn an_order_is_confirmed_and_becomes_a_trade() {
        let order = r#"{"side":"buy","symbol":"ACME","quantity":10}"#;
        let body = format!("TEXT {:x}\r\n{order}\r\nTEXT {:x}\r\n{order}\r\n", order.len(), order.len());
        let (text, trades) = answer_text(&body);
        assert_eq!(trades, 2);
        assert_eq!(text.matches("m:{").count(), 2, "{text}");
        for part in [r#""type":"confirmation""#, r#""symbol":"ACME""#, r#""trader":"tester""#, r#""filled_price":"#] {
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn a_bad_order_is_rejected_with_its_reason() {
        for (order, reason) in [
            ("nonsense", "an order is"),
            (r#"{"side":"hold","symbol":"ACME","quantity":1}"#, "unknown variant"),
            (r#"{"side":"buy","symbol":"ACME","quantity":0}"#, "a quantity is 1 to 10000, not 0"),
            (r#"{"side":"buy","symbol":"ACME","quantity":10001}"#, "not 10001"),
            (r#"{"side":"buy","symbol":"ACME","quantity":-1}"#, "an order is"),
            (r#"{"side":"buy","symbol":"NOPE","quantity":1}"#, "is listed here"),
        ] {
            let (text, trades) = answer_text(&format!("TEXT {:x}\r\n{order}\r\n", order.len()));
            assert_eq!(trades, 0, "{order}");
            assert!(text.contains(r#""type":"rejected""#) && text.contains(reason), "{order}: {text}");
        }
    }

    #[test]
    fn malformed_bodies_are_refused() {
        for body in
            ["OPEN", "TEXT 5\r\nabc\r\n", "TEXT x\r\nabc\r\n", "TEXT 3\r\nabcOPEN\r\n", "TEXT ffffffffffffffff\r\n"]
        {
            assert_eq!(answer(body.as_bytes(), "t", &mut Market::new(7), 0), Err(Malformed), "{body:?}");
        }
    }

    proptest! {
        #[test]
        fn written_events_are_read_back(written in proptest::collection::vec(("[A-Z]{1,10}", proptest::collection::vec(any::<u8>(), 0..40)), 0..6)) {
            let mut body = Vec::new();
            for (name, content) in &written {
                put(&mut body, name, content);
            }
            let read = events(&body).expect("well formed");
            prop_assert_eq!(read.len(), written.len());
            for ((name, content), (name_read, content_read)) in written.iter().zip(read) {
                prop_assert_eq!(name.as_bytes(), name_read);
                prop_assert_eq!(&content[..], content_read);
            }
        }

        #[test]
        fn any_bytes_are_answered_or_refused(body: Vec<u8>) {
            let _ = answer(&body, "t", &mut Market::new(7), 0);
        }
    }
}
