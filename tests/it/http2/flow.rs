//! Flow control (RFC 9113 §5.2, §6.9), octet by octet, in both directions.

use crate::support::backend::{Backend, answer};
use crate::support::frames::{DATA, frame};
use crate::support::http2::{
    Event, FLOW_CONTROL_ERROR, FRAME_BYTES, Http2, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE, Outcome, WINDOW, post, reset,
};
use crate::support::proxy::Proxy;
use bytes::Bytes;

/// Content that shows where an octet belongs.
fn content(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at / 251 + at) as u8).collect()
}

/// A proxy before a backend: `/bytes/N` is answered with N octets, everything else with how many came.
async fn counting() -> (Proxy, Backend) {
    let backend = Backend::http(|request| async move {
        if let Some(len) = request.uri().path().strip_prefix("/bytes/") {
            return answer(200, &[], content(len.parse().expect("a number")));
        }
        match http_body_util::BodyExt::collect(request.into_body()).await {
            Ok(body) => answer(200, &[], summary(&body.to_bytes())),
            Err(_) => answer(400, &[], "broken off"),
        }
    })
    .await;
    (Proxy::start(&backend.config("")), backend)
}

fn summary(bytes: &Bytes) -> String {
    let sum = bytes.iter().fold(0_u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(*byte)));
    format!("{} {sum:x}", bytes.len())
}

/// The content of `stream` until there are `len` octets of it, and then that no more comes.
async fn exactly(http2: &mut Http2, stream: u32, len: usize) -> Vec<u8> {
    let mut read = Vec::new();
    while read.len() < len {
        let more = http2.until(|event| match event {
            Event::Data { stream: of, content, .. } if *of == stream => Some(content.clone()),
            Event::Reset { stream: of, code } if *of == stream => panic!("reset: {code}"),
            _ => None,
        });
        read.extend(more.await);
    }
    for payload in [b"and now?", b"and now!"] {
        for event in http2.round_trip(payload).await {
            if let Event::Data { stream: of, content, .. } = event
                && of == stream
            {
                read.extend(content);
            }
        }
    }
    assert_eq!(read.len(), len, "more than the window");
    read
}

#[tokio::test]
async fn a_window_of_one_octet_lets_one_octet_through() {
    let (proxy, _backend) = counting().await;
    let mut http2 = Http2::with(proxy.address("http"), &[(INITIAL_WINDOW_SIZE, 1)]).await;
    http2.get(1, "/bytes/20").await;
    assert_eq!(http2.status(1).await, 200);
    let mut read = exactly(&mut http2, 1, 1).await;
    for _ in 0..9 {
        http2.open_window(1, 1).await;
        read.extend(exactly(&mut http2, 1, 1).await);
    }
    http2.open_window(1, 7).await;
    read.extend(exactly(&mut http2, 1, 7).await);
    // The last comes with the end, or the end after it: neither needs more room than there is.
    http2.open_window(1, 3).await;
    let is_over = http2.until(|event| match event {
        Event::Data { stream: 1, content, is_last } => {
            read.extend_from_slice(content);
            is_last.then_some(())
        }
        Event::Head { is_last: true, .. } => Some(()),
        _ => None,
    });
    is_over.await;
    assert_eq!(read, content(20));
}

#[tokio::test]
async fn a_closed_window_holds_the_content_and_nothing_else() {
    let (proxy, _backend) = counting().await;
    let mut http2 = Http2::with(proxy.address("http"), &[(INITIAL_WINDOW_SIZE, 0)]).await;
    http2.get(1, "/bytes/5000").await;
    http2.get(3, "/bytes/0").await;
    // A head, and a whole answer without content, need no window.
    let (mut head, mut empty) = (false, false);
    while !head || !empty {
        match http2.event().await.expect("both are answered") {
            Event::Head { stream: 1, .. } => head = true,
            Event::Head { stream: 3, is_last: true, .. } => empty = true,
            Event::Data { stream: 3, content, is_last } => {
                assert!(content.is_empty());
                empty |= is_last;
            }
            _ => {}
        }
    }
    exactly(&mut http2, 1, 0).await;
    // Opened for this stream, and then for all by the setting.
    http2.open_window(1, 1000).await;
    let mut read = exactly(&mut http2, 1, 1000).await;
    http2.set(&[(INITIAL_WINDOW_SIZE, 3000)]).await;
    read.extend(exactly(&mut http2, 1, 3000).await);
    http2.open_window(1, 1000).await;
    read.extend(exactly(&mut http2, 1, 1000).await);
    assert_eq!(read, content(5000));
}

#[tokio::test]
async fn all_streams_together_keep_to_the_window_of_the_connection() {
    let (proxy, _backend) = counting().await;
    let mut http2 = Http2::with(proxy.address("http"), &[(INITIAL_WINDOW_SIZE, 1 << 20)]).await;
    let whole = WINDOW as usize;
    http2.get(1, "/bytes/200000").await;
    let mut read = exactly(&mut http2, 1, whole).await;
    // Another stream waits for the same window.
    http2.get(3, "/bytes/1000").await;
    assert_eq!(http2.status(3).await, 200);
    exactly(&mut http2, 3, 0).await;
    // A stream's window does not help, the connection's does.
    http2.open_window(1, 500).await;
    exactly(&mut http2, 1, 0).await;
    http2.write(reset(3, 8)).await;
    http2.round_trip(b"settled?").await;
    http2.open_window(0, 1).await;
    read.extend(exactly(&mut http2, 1, 1).await);
    http2.open_window(0, 200_000).await;
    let rest = 200_000 - read.len();
    read.extend(exactly(&mut http2, 1, rest).await);
    assert!(read == content(200_000), "in order and whole");
}

/// RFC 9113 §6.9.2.
#[tokio::test]
async fn a_setting_may_make_a_window_negative() {
    let (proxy, _backend) = counting().await;
    let mut http2 = Http2::open(proxy.address("http")).await;
    http2.open_window(0, 1 << 20).await;
    http2.get(1, "/bytes/100000").await;
    let sent = WINDOW as usize;
    let mut read = exactly(&mut http2, 1, sent).await;
    // 100 - 65535; up to 0 nothing comes.
    http2.set(&[(INITIAL_WINDOW_SIZE, 100)]).await;
    http2.open_window(1, (sent - 101) as u32).await;
    exactly(&mut http2, 1, 0).await;
    http2.open_window(1, 1).await;
    exactly(&mut http2, 1, 0).await;
    http2.open_window(1, 10).await;
    read.extend(exactly(&mut http2, 1, 10).await);
    http2.set(&[(INITIAL_WINDOW_SIZE, 0)]).await;
    http2.set(&[(INITIAL_WINDOW_SIZE, 107)]).await;
    read.extend(exactly(&mut http2, 1, 7).await);
    let rest = 100_000 - read.len();
    http2.open_window(1, rest as u32).await;
    read.extend(exactly(&mut http2, 1, rest).await);
    assert!(read == content(100_000), "in order and whole");
}

/// The client of these tests panics at a frame over its MAX_FRAME_SIZE.
#[tokio::test]
async fn frames_are_as_large_as_the_client_takes_them() {
    let (proxy, _backend) = counting().await;
    let open = [(INITIAL_WINDOW_SIZE, 1 << 24)];
    let mut http2 = Http2::with(proxy.address("http"), &open).await;
    http2.open_window(0, 1 << 24).await;
    http2.get(1, "/bytes/500000").await;
    assert!(http2.outcome(1).await.body() == content(500_000), "in order and whole");
    http2.set(&[(MAX_FRAME_SIZE, 50_000)]).await;
    http2.get(3, "/bytes/500000").await;
    assert!(http2.outcome(3).await.body() == content(500_000), "in order and whole");
}

#[tokio::test]
async fn uploads_larger_than_the_windows_come_through() {
    let (proxy, _backend) = counting().await;
    let mut http2 = Http2::open(proxy.address("http")).await;
    // Larger than both windows; then with padding, which takes room as content does.
    for (stream, len, padding) in [(1, 3_000_000, 0), (3, 500_000, 255), (5, 3, 255)] {
        http2.write(post(stream, "/count")).await;
        let content = content(len);
        http2.upload(stream, &content, padding).await;
        http2.end(stream).await;
        assert_eq!(http2.outcome(stream).await.body(), summary(&content.into()).as_bytes(), "{len} {padding}");
    }
    // More padding than all windows together hold.
    http2.write(post(7, "/count")).await;
    let part = vec![b'x'; 2000];
    for _ in 0..5000 {
        http2.upload(7, &part, 255).await;
    }
    http2.end(7).await;
    assert_eq!(http2.outcome(7).await.body(), summary(&part.repeat(5000).into()).as_bytes());
}

/// The connection's window is given back, whatever became of the stream.
#[tokio::test]
async fn content_that_nobody_reads_gives_its_room_back() {
    let (proxy, _backend) = counting().await;
    let mut http2 = Http2::open(proxy.address("http")).await;
    let part = content(60_000);
    let mut stream = 1;
    for turn in 0..60 {
        match turn % 3 {
            // Reset in its middle; to a route that takes no content; of a malformed request.
            0 => http2.write(post(stream, "/count")).await,
            1 => http2.write(post(stream, "/events/none")).await,
            _ => {
                let fields = crate::support::hpack::request("POST", "/count", &[("connection", "close")]);
                let head = frame(crate::support::frames::HEADERS, crate::support::frames::END_HEADERS, stream, &fields);
                http2.write(head).await;
            }
        }
        http2.upload(stream, &part, 0).await;
        http2.write(reset(stream, 8)).await;
        stream += 2;
    }
    http2.write(post(stream, "/count")).await;
    http2.upload(stream, &part, 0).await;
    http2.end(stream).await;
    assert_eq!(http2.outcome(stream).await.body(), summary(&part.into()).as_bytes());
}

#[tokio::test]
async fn who_sends_more_than_the_window_is_told() {
    // A backend that reads nothing: nothing is given back.
    let backend = Backend::raw(|tcp| async move {
        let _tcp = tcp;
        std::future::pending::<()>().await;
    })
    .await;
    let proxy = Proxy::start(&backend.config(""));
    let mut http2 = Http2::open(proxy.address("http")).await;
    http2.setting(INITIAL_WINDOW_SIZE).await;
    http2.write(post(1, "/x")).await;
    let part = frame(DATA, 0, 1, &[b'x'; FRAME_BYTES]);
    // 64 MiB are more than all sockets and buffers on the way.
    let (mut reader, mut writer) = http2.into_tcp().into_split();
    let writing = tokio::spawn(async move {
        for _ in 0..4096 {
            if tokio::io::AsyncWriteExt::write_all(&mut writer, &part).await.is_err() {
                break;
            }
        }
        writer
    });
    let mut code = None;
    while let Some(next) = crate::support::frames::next(&mut reader).await {
        code = match next.kind {
            crate::support::frames::RST_STREAM if next.stream == 1 => Some(next.payload[..4].to_vec()),
            crate::support::frames::GOAWAY => Some(next.payload[4..8].to_vec()),
            _ => continue,
        };
        break;
    }
    assert_eq!(code, Some(FLOW_CONTROL_ERROR.to_be_bytes().to_vec()));
    writing.abort();
}

#[tokio::test]
async fn an_answer_may_come_before_the_content_has_ended() {
    let (proxy, _backend) = counting().await;
    let mut http2 = Http2::open(proxy.address("http")).await;
    http2.write(post(1, "/bytes/10")).await;
    http2.upload(1, b"the start", 0).await;
    let outcome = http2.outcome(1).await;
    assert!(matches!(&outcome, Outcome::Answered { status: 200, body, .. } if *body == content(10)), "{outcome:?}");
    // What comes after it is taken.
    http2.write(frame(DATA, 0, 1, b"and more")).await;
    http2.end(1).await;
    http2.get(3, "/bytes/3").await;
    assert_eq!(http2.outcome(3).await.body(), content(3));
}
