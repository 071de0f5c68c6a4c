//! Tests against a listener that reads one request and gives one answer.

use super::*;
use clap::Parser;
use std::net::SocketAddr;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

#[derive(Debug, Parser)]
struct Cli {
    #[command(flatten)]
    args: PublishArgs,
}

fn args(line: &[&str]) -> PublishArgs {
    Cli::try_parse_from([&["publish"], line].concat()).expect("arguments").args
}

async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let address = listener.local_addr().expect("an address");
    (listener, address)
}

/// Runs the command against a listener that gives `answer`; gives the request, the output and the result.
async fn exchange(line: &[&str], input: &'static [u8], answer: &str) -> (String, String, Result<(), Failure>) {
    let (listener, address) = listener().await;
    let url = format!("http://{address}");
    let args = args(&[line, &["--url", &url]].concat());
    let serve = async {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        let mut request = Vec::new();
        let mut piece = [0; 4096];
        while !is_whole(&request) {
            let read = stream.read(&mut piece).await.expect("a request");
            assert_ne!(read, 0, "{}", String::from_utf8_lossy(&request));
            request.extend_from_slice(&piece[..read]);
        }
        stream.write_all(answer.as_bytes()).await.expect("a client");
        String::from_utf8(request).expect("text")
    };
    let mut out = Vec::new();
    let (request, result) = tokio::join!(serve, publish(&args, input, &mut out));
    (request, String::from_utf8(out).expect("text"), result)
}

fn is_whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    match head.lines().find_map(|line| line.strip_prefix("content-length: ")) {
        Some(length) => body.len() >= length.parse().expect("a length"),
        None => body.ends_with("0\r\n\r\n"),
    }
}

fn response(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
}

const PUBLISHED: &str = concat!(
    r#"{"results":[{"channel":"a","position":"z-1","duplicate":false,"local_sessions":3},"#,
    r#"{"channel":"b","position":"z-2","duplicate":true,"local_sessions":0},"#,
    r#"{"channel":"c","position":"z-3","duplicate":false,"local_sessions":1}]}"#
);

async fn body_of(line: &[&str], input: &'static [u8]) -> String {
    let (request, _, result) = exchange(line, input, &response("200 OK", PUBLISHED)).await;
    result.expect("published");
    request.split_once("\r\n\r\n").expect("a body").1.to_owned()
}

#[tokio::test]
async fn data_comes_from_arguments_or_standard_input() {
    assert_eq!(body_of(&["news", "it's \"x\""], b"").await, r#"{"channel":"news","data":"it's \"x\""}"#);
    let line = ["news", "{ \"b\": 1.0 }", "--json", "--event", "e", "--id", "7"];
    assert_eq!(body_of(&line, b"").await, r#"{"channel":"news","id":"7","event":"e","data":{"b":1.0}}"#);
    assert_eq!(body_of(&["news"], b"a\nb\n").await, r#"{"channel":"news","data":"a\nb"}"#);
    assert_eq!(body_of(&["news", "-"], b"a\r\n").await, r#"{"channel":"news","data":"a"}"#);
    assert_eq!(body_of(&["news", "--json"], b"[1, 2]\n").await, r#"{"channel":"news","data":[1,2]}"#);
    assert_eq!(body_of(&["news", "--binary"], b"\xff\n").await, r#"{"channel":"news","data_base64":"/wo="}"#);
}

#[tokio::test]
async fn results_are_printed_and_fields_are_sent() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), "secret\n").expect("a file");
    let path = file.path().to_str().expect("text");
    let line = ["a", "x", "--if-match", "z-0", "--token-file", path];
    let (request, out, result) = exchange(&line, b"", &response("200 OK", PUBLISHED)).await;
    result.expect("published");
    assert_eq!(out, "a z-1 3 sessions\nb z-2 duplicate\nc z-3 1 session\n");
    assert!(request.starts_with("POST /v1/events HTTP/1.1\r\n"), "{request}");
    for field in ["authorization: Bearer secret\r\n", "if-match: z-0\r\n", "content-type: application/json\r\n"] {
        assert!(request.contains(field), "{request} has no {field}");
    }
}

#[tokio::test]
async fn refusals_have_their_exit_codes() {
    for (status, code) in [
        ("400 Bad Request", 65),
        ("401 Unauthorized", 77),
        ("412 Precondition Failed", 1),
        ("413 Payload Too Large", 65),
        ("503 Service Unavailable", 75),
        ("404 Not Found", 65),
    ] {
        let answer = response(status, r#"{"detail":"so it is","position":"z-9"}"#);
        let failure = exchange(&["a", "x"], b"", &answer).await.2.expect_err("refused");
        assert_eq!((failure.code(), failure.to_string()), (code, format!("{status}: so it is (position z-9)")));
    }
    let failure = exchange(&["a", "x"], b"", &response("502 Bad Gateway", "<html>")).await.2.expect_err("refused");
    assert_eq!(failure.to_string(), "502 Bad Gateway: no problem document came with it");
}

#[tokio::test]
async fn what_can_not_be_sent_says_why() {
    let fail = async |line: &[&str], input: &'static [u8]| {
        let failure = publish(&args(line), input, &mut Vec::new()).await.expect_err("a failure");
        (failure.code(), failure.to_string())
    };
    let check = async |line: &[&str], input, code, text: &str| {
        let (found, message) = fail(line, input).await;
        assert_eq!(found, code, "{message}");
        assert!(message.contains(text), "{message} has no {text:?}");
    };
    check(&["a", "{", "--json"], b"", 65, "for text leave out --json").await;
    check(&["a", "1,\"event\":\"x\"", "--json"], b"", 65, "no valid JSON").await;
    check(&["a"], b"\xff", 65, "use --binary").await;
    check(&["a", "x", "--token-file", "/nonexistent/token"], b"", 66, "/nonexistent/token").await;
    check(&["a", "x", "--url", "https://example.com"], b"", 65, "is not http").await;
    check(&["a", "x", "--url", "/v1"], b"", 65, "has no host").await;
    let (listener, address) = listener().await;
    drop(listener);
    check(&["a", "x", "--url", &format!("http://{address}")], b"", 69, "is pushbridge running").await;
}

#[tokio::test]
async fn streams_pass_lines_both_ways_and_count_errors() {
    let answer = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n\
        6\r\n{\"resu\r\n12\r\nlts\":[]}\n{\"error\":\r\nf\r\n\"x\",\"line\":2}\n\n\r\n0\r\n\r\n";
    let (request, out, result) = exchange(&["--ndjson"], b"{\"a\":1}\n{\n", answer).await;
    assert_eq!(out, "{\"results\":[]}\n{\"error\":\"x\",\"line\":2}\n\n");
    assert!(request.contains("content-type: application/x-ndjson\r\n"), "{request}");
    assert!(request.contains("{\"a\":1}\n{\n"), "{request}");
    assert_eq!(result.expect_err("a line").to_string(), "lines that were not published: 1");
    let refused = exchange(&["--ndjson"], b"{}\n", &response("401 Unauthorized", r#"{"detail":"no"}"#)).await.2;
    assert_eq!(refused.expect_err("refused").code(), 77);
}

#[test]
fn arguments_that_contradict_each_other_are_refused() {
    for line in [
        [].as_slice(),
        &["a", "x", "--binary"],
        &["a", "--ndjson"],
        &["--ndjson", "--id", "7"],
        &["a", "--json", "--binary"],
    ] {
        assert!(Cli::try_parse_from([&["publish"], line].concat()).is_err(), "{line:?}");
    }
    let help = Cli::try_parse_from(["publish", "--help"]).expect_err("help").to_string();
    assert!(help.contains("EXAMPLES:") && help.contains("EXIT CODES:") && !help.contains("--token "), "{help}");
}
