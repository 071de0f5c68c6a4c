//! Where the RFCs are strict and implementations often are not.

use super::mirrored;
use crate::support::client::dial;
use crate::support::frames::{CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, frame};
use crate::support::hpack::{literal, request};
use crate::support::http2::{Event, HEADER_TABLE_SIZE, Http2, Outcome, PREFACE, PROTOCOL_ERROR, get, post};

const BOTH: u8 = END_STREAM | END_HEADERS;

/// RFC 9113 §8.1: trailers MUST NOT include pseudo-header fields; malformed (§8.3).
#[tokio::test]
async fn a_pseudo_field_in_trailers_is_malformed() {
    let (proxy, _backend) = mirrored("").await;
    for name in [":path", ":method", ":authority"] {
        let mut http2 = Http2::open(proxy.address("http")).await;
        let trailers = frame(HEADERS, BOTH, 1, &literal(name, "/y"));
        http2.write([post(1, "/x"), frame(DATA, 0, 1, b"abc"), trailers].concat()).await;
        let outcome = http2.outcome(1).await;
        let refused = matches!(outcome, Outcome::Reset(PROTOCOL_ERROR) | Outcome::Answered { status: 400, .. });
        assert!(refused, "{name}: {outcome:?}");
        http2.get(3, "/ok").await;
        assert_eq!(http2.outcome(3).await.status(), 200);
    }
}

/// RFC 9113 §8.2.1: a field value MUST NOT start or end with an ASCII whitespace character.
#[tokio::test]
async fn a_value_with_space_around_it_is_malformed() {
    let (proxy, _backend) = mirrored("").await;
    for value in [" b", "b ", "\tb", "b\t"] {
        let mut http2 = Http2::open(proxy.address("http")).await;
        http2.write(frame(HEADERS, BOTH, 1, &request("GET", "/x", &[("x-a", value)]))).await;
        let outcome = http2.outcome(1).await;
        let refused = matches!(outcome, Outcome::Reset(PROTOCOL_ERROR) | Outcome::Answered { status: 400, .. });
        assert!(refused, "{value:?}: {outcome:?}");
    }
}

/// RFC 9113 §3.4: the preface of the client is followed by a SETTINGS frame; anything else is a connection error.
#[tokio::test]
async fn a_connection_that_does_not_begin_with_settings_is_closed() {
    let (proxy, _backend) = mirrored("").await;
    let mut http2 = Http2::bare(dial(proxy.address("http")).await);
    http2.write([PREFACE, &get(1, "/")].concat()).await;
    assert_eq!(http2.outcome(1).await, Outcome::Closed(Some(PROTOCOL_ERROR)));
}

/// A list of fields that does not come to its end blocks all other streams of its connection: it has as long as
/// a head may take (limits.request_header_timeout), however many sessions the connection has.
#[tokio::test]
async fn half_a_list_of_fields_is_waited_for_no_longer_than_a_head_may_take() {
    let (proxy, _backend) = mirrored("limits: { request_header_timeout: 200ms }").await;
    for more in [Vec::new(), frame(CONTINUATION, 0, 3, &literal("x-a", "b"))] {
        let mut http2 = Http2::open(proxy.address("http")).await;
        http2.get(1, "/events/x").await;
        assert_eq!(http2.status(1).await, 200);
        http2.write([frame(HEADERS, END_STREAM, 3, &request("GET", "/", &[])), more].concat()).await;
        // Closed, or (after a GOAWAY) about to be: not kept for as long as the session lasts.
        let ending = async {
            while let Some(event) = http2.event().await {
                if matches!(event, Event::Goaway { .. } | Event::Reset { stream: 3, .. }) {
                    return;
                }
            }
        };
        let ended = tokio::time::timeout(std::time::Duration::from_secs(20), ending).await;
        assert!(ended.is_ok(), "half a list of fields is waited for for ever");
    }
}

/// RFC 7541 §4.2: the lowest size since the last block is told first, also if the same SETTINGS frame raises it again
/// (RFC 9113 §6.5.3: values are processed in their order). The reader panics if it is not.
#[tokio::test]
async fn the_table_is_emptied_where_one_frame_lowers_and_raises_it() {
    let (proxy, _backend) = mirrored("").await;
    let mut http2 = Http2::open(proxy.address("http")).await;
    http2.get(1, "/").await;
    assert_eq!(http2.outcome(1).await.status(), 200);
    http2.set(&[(HEADER_TABLE_SIZE, 0), (HEADER_TABLE_SIZE, 4096)]).await;
    http2.get(3, "/").await;
    assert_eq!(http2.outcome(3).await.status(), 200);
}
