//! Lent sockets, with clients on loopback.

use super::*;
use crate::clock::Clock;
use crate::hub::policy::ChannelPolicies;
use crate::hub::{Hub, HubLimits};
use crate::model::channel::ChannelName;
use crate::model::message::{Data, Message};
use crate::model::position::Position;
use crate::proto::chunk::Chunk;
use crate::server::Link;
use crate::server::io::Io;
use crate::server::link::Framing;
use crate::telemetry::metrics::Metrics;
use arc_swap::ArcSwap;
use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

static FORM: Form = Form {
    transport: Transport::Sse,
    frame: |entry| Some((entry.sse.get_or_init(|| Chunk::framed_from(entry.message.data.as_bytes())).framed(), 1)),
};
static PLAIN: Form = Form {
    transport: Transport::WebSocket,
    frame: |entry| {
        let plain = || Bytes::copy_from_slice(entry.message.data.as_bytes());
        Some((entry.websocket.get_or_init(plain), 1))
    },
};
static NOTHING: Form = Form { transport: Transport::Sse, frame: |_| None };

fn entry(offset: u64, text: &str) -> Arc<Entry> {
    let channel = ChannelName::new("c").expect("a name");
    let message =
        Message { channel, id: None, event: None, data: Data::Text(text.into()), cloudevent: None, grip: None };
    Arc::new(Entry::new(message, Position { epoch: 1, offset }, 0))
}

fn fan_out() -> FanOut {
    let policies = Arc::new(ArcSwap::from_pointee(ChannelPolicies::default()));
    let hub = Hub::new(1, Clock::start(), HubLimits::default(), policies);
    FanOut::new(Shard::new(&hub, 0), Metrics::new().worker())
}

async fn connected() -> (Link, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let client = TcpStream::connect(listener.local_addr().expect("an address")).await.expect("a connection");
    let (server, _) = listener.accept().await.expect("a connection");
    (Link::h1(Io::Tcp(server), Bytes::new(), Bytes::new(), Framing::Chunked), client)
}

async fn read(client: &mut TcpStream, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    client.read_exact(&mut bytes).await.expect("so many bytes");
    bytes
}

#[tokio::test]
async fn what_comes_goes_to_the_client_that_lent() {
    let mut fan_out = fan_out();
    let (mut link, mut client) = connected().await;
    let outlet = link.lend(7, &FORM).expect("a socket to lend");
    assert_eq!(link.lend(7, &FORM), None, "it is lent already");
    assert_eq!(fan_out.carry(outlet, 7, &[entry(1, "a")]), Carried::All);
    assert_eq!(fan_out.carry(outlet, 8, &[entry(2, "b")]), Carried::Refused, "it is another session's");
    let several = [entry(2, "b"), entry(3, "c")];
    assert_eq!(fan_out.carry(outlet, 7, &several), Carried::All);
    let others = [entry(4, "d"), entry(5, "e")];
    assert_eq!(fan_out.carry(outlet, 7, &others), Carried::All, "what was joined is of others");
    assert_eq!(read(&mut client, 30).await, b"1\r\na\r\n1\r\nb\r\n1\r\nc\r\n1\r\nd\r\n1\r\ne\r\n");
    link.take_back();
    assert_eq!(fan_out.carry(outlet, 7, &[entry(6, "f")]), Carried::Refused, "its session has it");
    link.push(&Chunk::framed_from(b"g"));
    poll_fn(|cx| link.poll_flush(cx)).await.expect("a client");
    assert_eq!(read(&mut client, 6).await, b"1\r\ng\r\n");
}

#[tokio::test]
async fn several_messages_are_joined_once_for_each_form() {
    let mut fan_out = fan_out();
    let mut links = [connected().await, connected().await, connected().await];
    let forms = [&FORM, &PLAIN, &FORM];
    let outlets: Vec<_> =
        links.iter_mut().zip(forms).map(|((link, _), form)| link.lend(1, form).expect("a socket")).collect();
    let entries = [entry(1, "a"), entry(2, "b")];
    for outlet in &outlets {
        assert_eq!(fan_out.carry(*outlet, 1, &entries), Carried::All);
    }
    assert_eq!(fan_out.batch.as_ref().map(|batch| batch.joined.len()), Some(2));
    for ((_, client), expected) in links.iter_mut().zip(["1\r\na\r\n1\r\nb\r\n", "ab", "1\r\na\r\n1\r\nb\r\n"]) {
        assert_eq!(read(client, expected.len()).await, expected.as_bytes());
    }
    fan_out.forget();
    assert!(fan_out.batch.is_none());
}

#[test]
fn little_that_is_left_does_not_keep_what_was_joined() {
    let joined = Bytes::from(vec![1; 1000]);
    assert!(rest_of(&joined, 100, false).as_ptr() == joined[100..].as_ptr());
    assert!(rest_of(&joined, 900, false).as_ptr() != joined[900..].as_ptr());
    assert!(rest_of(&joined, 900, true).as_ptr() == joined[900..].as_ptr());
}

#[tokio::test]
async fn two_links_never_get_each_others() {
    let mut fan_out = fan_out();
    let (mut first, _client) = connected().await;
    let stale = first.lend(1, &FORM).expect("a socket");
    first.take_back();
    let (mut second, mut client) = connected().await;
    // The number is given anew.
    assert_eq!(second.lend(2, &FORM), Some(stale));
    assert_eq!(fan_out.carry(stale, 1, &[entry(1, "a")]), Carried::Refused);
    assert_eq!(fan_out.carry(stale, 2, &[entry(1, "b")]), Carried::All);
    assert_eq!(read(&mut client, 6).await, b"1\r\nb\r\n");
}

#[tokio::test]
async fn what_a_client_does_not_take_comes_before_all_else() {
    let mut fan_out = fan_out();
    let (mut link, mut client) = connected().await;
    let outlet = link.lend(1, &FORM).expect("a socket to lend");
    let mut sent = Vec::new();
    let stuck = loop {
        let entry = entry(1, &format!("{}:{}", sent.len(), "x".repeat(100_000)));
        match fan_out.carry(outlet, 1, std::slice::from_ref(&entry)) {
            Carried::Refused => break Carried::Refused,
            carried => {
                sent.extend_from_slice((FORM.frame)(&entry).expect("a frame").0);
                if carried == Carried::Stuck {
                    break carried;
                }
            }
        }
    };
    assert_eq!(stuck, Carried::Stuck);
    link.push(&Chunk::framed_from(b"last"));
    sent.extend_from_slice(b"4\r\nlast\r\n");
    link.take_back();
    assert!(!link.is_flushed());
    let (flushed, got) = tokio::join!(poll_fn(|cx| link.poll_flush(cx)), read(&mut client, sent.len()));
    flushed.expect("a client");
    assert!(got == sent, "the bytes are all there, in their order");
}

#[tokio::test]
async fn a_client_that_is_gone_is_found_by_its_session() {
    let mut fan_out = fan_out();
    let (mut link, client) = connected().await;
    assert!(poll_fn(|cx| Poll::Ready(link.poll_gone(cx))).await.is_pending());
    let outlet = link.lend(1, &FORM).expect("a socket to lend");
    client.set_zero_linger().expect("a socket");
    drop(client);
    // The reset is there before the client's end of the connection is closed, or soon after.
    let found = async {
        while fan_out.carry(outlet, 1, &[entry(1, "a")]) != Carried::Refused {
            tokio::task::yield_now().await;
        }
        poll_fn(|cx| link.poll_gone(cx)).await;
    };
    tokio::time::timeout(Duration::from_secs(30), found).await.expect("it is found");
}

#[tokio::test]
async fn a_link_that_is_dropped_closes_what_it_lent() {
    let mut fan_out = fan_out();
    let (mut link, mut client) = connected().await;
    let outlet = link.lend(1, &FORM).expect("a socket to lend");
    drop(link);
    assert_eq!(client.read(&mut [0; 1]).await.expect("an end"), 0);
    assert_eq!(fan_out.carry(outlet, 1, &[entry(1, "a")]), Carried::Refused);
}

#[tokio::test]
async fn what_has_no_form_and_what_waits_is_not_lent_out() {
    let mut fan_out = fan_out();
    let (mut link, mut client) = connected().await;
    link.push(&Chunk::framed_from(b"a"));
    assert_eq!(link.lend(1, &FORM), None, "something waits to be written");
    poll_fn(|cx| link.poll_flush(cx)).await.expect("a client");
    let outlet = link.lend(1, &NOTHING).expect("a socket to lend");
    assert_eq!(fan_out.carry(outlet, 1, &[entry(1, "b")]), Carried::Refused);
    client.write_all(b"x").await.expect("a connection");
    poll_fn(|cx| {
        let mut byte = [0];
        link.poll_read(cx, &mut byte).map(|read| assert_eq!((read.expect("a byte"), byte), (1, *b"x")))
    })
    .await;
}
