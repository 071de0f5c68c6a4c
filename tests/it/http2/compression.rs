//! HPACK (RFC 7541): what a client may write is read, what it may not ends the connection, and what it forbids is not
//! written.

use super::{Case, each_ends_its_connection, mirrored};
use crate::support::frames::{CONTINUATION, END_HEADERS, END_STREAM, HEADERS, frame};
use crate::support::hpack::{literal, remembered, request, table_size};
use crate::support::http2::{
    COMPRESSION_ERROR, ENHANCE_YOUR_CALM, HEADER_TABLE_SIZE, Http2, Outcome, get, post, reset,
};
use serde_json::Value;

const BOTH: u8 = END_STREAM | END_HEADERS;
const COMPRESSION: &[u32] = &[COMPRESSION_ERROR];

/// What the backend was asked on a stream.
async fn seen(http2: &mut Http2, stream: u32) -> Value {
    serde_json::from_slice(&http2.outcome(stream).await.body()).expect("JSON")
}

#[tokio::test]
async fn blocks_that_nobody_can_read_end_the_connection() {
    let (proxy, _backend) = mirrored("").await;
    let to = proxy.address("http");
    let table = Http2::open(to).await.setting(HEADER_TABLE_SIZE).await.unwrap_or(4096) as usize;
    let good = request("GET", "/", &[]);
    let with = |more: &[u8]| [&good[..], more].concat();
    let broken: Vec<(&'static str, Vec<u8>)> = vec![
        ("index 0", with(&[0x80])),
        ("an index after the static table", with(&[0xbe])),
        ("an index far after the tables", with(&[0xff, 0xff, 0x07])),
        ("the name of an entry that is not there", with(&[0x7f, 0x20, 1, b'x'])),
        ("an index without an end", with(&[0xff])),
        (
            "an index of too many octets",
            with(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]),
        ),
        ("a length of too many octets", with(&[0, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f])),
        ("a name that breaks off", with(&[0, 5, b'x'])),
        ("a value that breaks off", with(&[0, 1, b'x', 9, b'y'])),
        ("a literal without a value", with(&[0, 1, b'x'])),
        ("a table over the setting", [table_size(table + 1), good.clone()].concat()),
        ("a table far over the setting", [table_size(1 << 30), good.clone()].concat()),
        ("a table size at the end", with(&table_size(0))),
        ("Huffman padding of zeros", with(&[0, 1, b'x', 0x81, 0x00])),
        ("Huffman padding of 8 bits", with(&[0, 1, b'x', 0x82, 0x1f, 0xff])),
        ("Huffman padding alone", with(&[0, 1, b'x', 0x81, 0xff])),
        ("the end of a Huffman string", with(&[0, 1, b'x', 0x84, 0xff, 0xff, 0xff, 0xff])),
    ];
    let mut cases: Vec<Case> = Vec::new();
    for (name, block) in broken {
        cases.push((name, COMPRESSION, frame(HEADERS, BOTH, 1, &block)));
    }
    let (start, rest) = good.split_at(9);
    let rest = [rest, &[0x80]].concat();
    let continued = [frame(HEADERS, END_STREAM, 1, start), frame(CONTINUATION, END_HEADERS, 1, &rest)].concat();
    cases.push(("index 0 in a CONTINUATION", COMPRESSION, continued));
    cases.push(("index 0 in trailers", COMPRESSION, [post(1, "/"), frame(HEADERS, BOTH, 1, &[0x80])].concat()));
    // A request that is refused is read all the same: the table is the connection's.
    let large = request("GET", "/", &[("x-a", &"y".repeat(12_000))]);
    let part = frame(CONTINUATION, 0, 1, &literal("x-a", "y".repeat(12_000)));
    let refused = [frame(HEADERS, END_STREAM, 1, &large), part.repeat(3)].concat();
    let refused = [refused, frame(CONTINUATION, END_HEADERS, 1, &[0x80])].concat();
    cases.push(("index 0 after a list that is too long", &[COMPRESSION_ERROR, ENHANCE_YOUR_CALM], refused));
    each_ends_its_connection(to, cases).await;
}

#[tokio::test]
async fn every_way_to_write_a_field_is_read() {
    let (proxy, _backend) = mirrored("").await;
    let mut http2 = Http2::open(proxy.address("http")).await;
    // RFC 7541 Appendix C.4: three requests, Huffman codes, a table that grows.
    let examples: [(u32, &[u8]); 3] = [
        (1, b"\x82\x86\x84\x41\x8c\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff"),
        (3, b"\x82\x86\x84\xbe\x58\x86\xa8\xeb\x10\x64\x9c\xbf"),
        (5, b"\x82\x86\x84\xbf\x40\x88\x25\xa8\x49\xe9\x5b\xa9\x7d\x7f\x89\x25\xa8\x49\xe9\x5b\xb8\xe8\xb4\xbf"),
    ];
    let expected = [(None, None), (Some("no-cache"), None), (None, Some("custom-value"))];
    for ((stream, block), (cache_control, custom)) in examples.into_iter().zip(expected) {
        http2.write(frame(HEADERS, BOTH, stream, block)).await;
        let told = seen(&mut http2, stream).await;
        assert_eq!(told["target"], "/", "{told}");
        assert!(told["fields"]["x-forwarded-host"] == "www.example.com", "{told}");
        assert_eq!(told["fields"]["cache-control"].as_str(), cache_control, "{told}");
        assert_eq!(told["fields"]["custom-key"].as_str(), custom, "{told}");
    }
    // Never indexed, with an indexed name; a name from the table; a value of one octet more than 7 bits say.
    let mut block = request("GET", "/never", &[("x-long", &"z".repeat(300))]);
    block.extend(b"\x1f\x0b\x01a\x7e\x01b");
    http2.write(frame(HEADERS, BOTH, 7, &block)).await;
    let told = seen(&mut http2, 7).await;
    assert_eq!(told["fields"]["x-long"], "z".repeat(300));
}

#[tokio::test]
async fn the_table_shrinks_and_grows_as_the_client_says() {
    let (proxy, _backend) = mirrored("").await;
    let mut http2 = Http2::open(proxy.address("http")).await;
    let first = [request("GET", "/", &[]), remembered("x-kept", "1"), remembered("x-kept", "2")].concat();
    http2.write(frame(HEADERS, BOTH, 1, &first)).await;
    assert_eq!(seen(&mut http2, 1).await["fields"]["x-kept"], "1 | 2");
    // The newest is first; sizes of it and the other are 39 each.
    http2.write(frame(HEADERS, BOTH, 3, &[request("GET", "/", &[]), vec![0xbf, 0xbe]].concat())).await;
    assert_eq!(seen(&mut http2, 3).await["fields"]["x-kept"], "1 | 2");
    http2.write(frame(HEADERS, BOTH, 5, &[table_size(39), request("GET", "/", &[]), vec![0xbe]].concat())).await;
    assert_eq!(seen(&mut http2, 5).await["fields"]["x-kept"], "2");
    // A field that is larger than the table empties it, and is a field all the same.
    let large = remembered("x-kept", "y".repeat(100));
    http2.write(frame(HEADERS, BOTH, 7, &[request("GET", "/", &[]), large].concat())).await;
    assert_eq!(seen(&mut http2, 7).await["fields"]["x-kept"], "y".repeat(100));
    let grown = [table_size(0), table_size(4096), request("GET", "/", &[]), remembered("x-kept", "3")].concat();
    http2.write(frame(HEADERS, BOTH, 9, &grown)).await;
    assert_eq!(seen(&mut http2, 9).await["fields"]["x-kept"], "3");
    http2.write(frame(HEADERS, BOTH, 11, &[request("GET", "/", &[]), vec![0xbe]].concat())).await;
    assert_eq!(seen(&mut http2, 11).await["fields"]["x-kept"], "3");
    // What the table has lost is not there any more.
    let lost = frame(HEADERS, BOTH, 13, &[request("GET", "/", &[]), vec![0xbf]].concat());
    http2.write(lost).await;
    let outcome = http2.outcome(13).await;
    assert!(matches!(outcome, Outcome::Closed(Some(code)) if COMPRESSION.contains(&code)), "{outcome:?}");
}

/// The reader of these tests panics where the server writes what the client does not allow.
#[tokio::test]
async fn the_server_keeps_to_the_table_of_the_client() {
    let (proxy, _backend) = mirrored("").await;
    let mut http2 = Http2::open(proxy.address("http")).await;
    let mut stream = 1;
    for bytes in [4096, 0, 4096, 64, 100, 0, 65_536, 50] {
        http2.set(&[(HEADER_TABLE_SIZE, bytes)]).await;
        for path in ["/", "/a", "/events/none?last=x", "/a"] {
            http2.write(get(stream, path)).await;
            let status = http2.status(stream).await;
            assert!(status == 200 || status == 400, "{bytes} {path}: {status}");
            http2.write(reset(stream, 8)).await;
            stream += 2;
        }
    }
    // Lowered and raised between two blocks: the next begins with the lowest (RFC 7541 §4.2).
    for bytes in [0, 4096] {
        http2.set(&[(HEADER_TABLE_SIZE, bytes)]).await;
    }
    http2.write(get(stream, "/")).await;
    assert_eq!(http2.outcome(stream).await.status(), 200);
}
