//! Several sessions on one HTTP/2 connection.

use super::{ROUTE, say, start};
use crate::support::client::within;
use crate::support::figures::{figure, wait_for_close, wait_for_figure};
use crate::support::websocket::{H2Connection, Io, WebSocket};
use serde_json::json;
use tokio::io::AsyncReadExt as _;

const V1: [(&str, &str); 1] = [("sec-websocket-protocol", "pushbridge.v1.json")];

/// Reads an event stream until it has said `text`.
async fn until(stream: &mut Box<dyn Io>, text: &str) {
    let mut read = String::new();
    while !read.contains(text) {
        let mut part = [0; 1024];
        let len = within("more of a stream", stream.read(&mut part)).await.expect("no error");
        assert!(len > 0, "ended before {text:?}: {read:?}");
        read.push_str(std::str::from_utf8(&part[..len]).expect("text"));
    }
}

#[tokio::test]
async fn sessions_of_one_connection_do_not_touch_each_other() {
    let proxy = start(ROUTE);
    let connection = H2Connection::open(proxy.address("http")).await;
    let mut stream = connection.stream("/events/c").await;
    until(&mut stream, "\n\n").await;
    let mut sockets = Vec::new();
    for n in 0..20 {
        let fields = if n % 2 == 0 { &V1[..] } else { &[] };
        sockets.push(WebSocket::of(connection.ask("/events/c", fields).await).await);
    }
    let of_clients = [("listener", "http"), ("protocol", "h2")];
    wait_for_figure(&proxy, "pushbridge_server_connections_accepted_total", &of_clients, 1.0).await;
    assert_eq!(figure(&proxy, "pushbridge_server_connections_accepted_total", &of_clients).await, 1.0);
    // One resets its stream, one closes, one breaks the rules: the others go on.
    drop(sockets.pop());
    wait_for_close(&proxy, "websocket", "client_gone").await;
    sockets.pop().expect("a socket").close().await;
    wait_for_close(&proxy, "websocket", "done").await;
    let published = say(&proxy, json!({"channel": "c", "data": "all"})).await;
    assert_eq!(published["results"][0]["local_sessions"], 19);
    for (n, socket) in sockets.iter_mut().enumerate() {
        if n % 2 == 0 {
            while socket.json().await["data"] != "all" {}
        } else {
            assert_eq!(socket.text().await, "all");
        }
    }
    until(&mut stream, "data: all\n\n").await;
    let refused = connection.ask("/nowhere", &[]).await;
    assert_eq!(refused.status, 404);
    drop(sockets);
    say(&proxy, json!({"channel": "c", "data": "still"})).await;
    until(&mut stream, "data: still\n\n").await;
}

#[tokio::test]
async fn an_end_of_the_process_reaches_every_session_of_a_connection() {
    let proxy = start(ROUTE);
    let connection = H2Connection::open(proxy.address("http")).await;
    let mut sockets = Vec::new();
    for _ in 0..20 {
        sockets.push(WebSocket::of(connection.ask("/events/c", &[]).await).await);
    }
    let ended = tokio::task::spawn_blocking(move || proxy.terminate());
    for socket in sockets {
        assert_eq!(socket.closed().await, (1012, "drain".to_owned()));
    }
    assert_eq!(ended.await.expect("waited").code(), Some(0));
}
