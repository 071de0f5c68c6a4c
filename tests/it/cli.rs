//! The command line as people and scripts use it: arguments in, text and exit codes out.

mod files;

use crate::support::proxy::Proxy;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;
use tempfile::TempDir;

const YAML: &str = "
routes:
  - name: events
    match: { path: \"/events/{topic}\" }
    push: { channels: [\"{topic}\"], transports: [sse, websocket, long_poll], start: { last: 10 } }
";

/// What a command that ended said.
struct Said {
    code: Option<i32>,
    out: String,
    err: String,
}

/// Runs the binary with `arguments` and `input` to its end.
fn run_with(arguments: &[&str], input: &[u8], environment: &[(&str, &str)]) -> Said {
    let mut child = Command::new(env!("CARGO_BIN_EXE_pushbridge"))
        .args(arguments)
        .env_remove("PUSHBRIDGE_CONFIG")
        .env_remove("PUSHBRIDGE_PUBLISH_URL")
        .env_remove("PUSHBRIDGE_PUBLISH_TOKEN")
        .envs(environment.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the built binary can be started");
    // A command that ends early takes less.
    let _ = child.stdin.take().expect("its input is piped").write_all(input);
    let ended = child.wait_with_output().expect("it ends");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    Said { code: ended.status.code(), out: text(ended.stdout), err: text(ended.stderr) }
}

fn run(arguments: &[&str]) -> Said {
    run_with(arguments, b"", &[])
}

/// Publishes by the command, to a listener without a token.
fn publish(at: SocketAddr, arguments: &[&str]) -> Said {
    run(&[&["publish", "--url", &format!("http://{at}")], arguments].concat())
}

#[test]
fn help_teaches_and_the_version_has_its_commit() {
    let help = run(&["--help"]);
    assert_eq!(help.code, Some(0));
    for word in ["run", "check", "schema", "publish", "subscribe", "demo", "pushbridge check --config"] {
        assert!(help.out.contains(word), "no {word} in {}", help.out);
    }
    for command in ["run", "check", "schema", "publish", "subscribe", "demo"] {
        let help = run(&[command, "--help"]);
        assert_eq!((help.code, help.err.as_str()), (Some(0), ""));
        assert!(help.out.contains(&format!("Usage: pushbridge {command}")), "{}", help.out);
    }
    let version = run(&["--version"]);
    let (name, rest) = version.out.trim().split_once(' ').expect("two words");
    assert_eq!(name, "pushbridge");
    let commit = rest.split_once(" (").and_then(|(_, commit)| commit.strip_suffix(')')).expect("a commit");
    assert!(commit == "unknown" || commit.len() >= 7 && commit.bytes().all(|b| b.is_ascii_hexdigit()), "{commit}");
    let wrong = run(&["publsh"]);
    assert_eq!(wrong.code, Some(2));
    assert!(wrong.err.contains("publish"), "{}", wrong.err);
}

#[test]
fn events_are_published_from_arguments_and_input() {
    let proxy = Proxy::start(YAML);
    let (http, at) = (proxy.address("http"), proxy.address("publish"));
    let url = format!("http://{at}");
    let said = publish(at, &["news", "hello"]);
    assert_eq!((said.code, said.err.as_str()), (Some(0), ""));
    let position = said.out.strip_prefix("news ").and_then(|rest| rest.strip_suffix(" 0 sessions\n"));
    let position = position.unwrap_or_else(|| panic!("{}", said.out));
    let json = ["news", r#"{"b": 1.0, "a": 2}"#, "--json", "--event", "price", "--id", "7"];
    assert_eq!(publish(at, &json).code, Some(0));
    assert!(publish(at, &json).out.ends_with(" duplicate\n"));
    let moved = publish(at, &["news", "x", "--if-match", position]);
    assert_eq!((moved.code, moved.out.as_str()), (Some(1), ""));
    assert!(moved.err.contains("412") && moved.err.contains("(position "), "{}", moved.err);
    let piped = run_with(&["publish", "--url", &url, "news"], b"two\nlines\n", &[]);
    assert_eq!(piped.code, Some(0));
    let bytes = run_with(&["publish", "news", "--binary"], b"\xff\x00", &[("PUSHBRIDGE_PUBLISH_URL", &url)]);
    assert_eq!(bytes.code, Some(0), "{}", bytes.err);
    let lines = b"{\"channel\":\"news\",\"data\":1}\n\n{\"channel\":\"news\"}\n{\"channel\":\"news\",\"data\":[2]}\n";
    let stream = run_with(&["publish", "--url", &url, "--ndjson"], lines, &[]);
    assert_eq!(stream.code, Some(65));
    let answers: Vec<serde_json::Value> =
        stream.out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(answers.len(), 3);
    assert_eq!(answers[1]["line"], 3);
    let seen = run(&["subscribe", "--count", "6", "--json", &format!("http://{http}/events/news")]);
    assert_eq!(seen.code, Some(0), "{}", seen.err);
    let ids: Vec<_> = seen.out.lines().collect();
    let data: Vec<_> =
        ids.iter().map(|line| line.split_once(",\"event\":").map(|(_, rest)| rest).expect("a line")).collect();
    assert_eq!(
        data,
        [
            r#"null,"data":"hello"}"#,
            r#""price","data":{"b":1.0,"a":2}}"#,
            r#"null,"data":"two\nlines"}"#,
            r#"null,"data":"/wA="}"#,
            r#"null,"data":"1"}"#,
            r#"null,"data":[2]}"#
        ]
    );
}

#[test]
fn what_can_not_be_published_says_why_by_an_exit_code() {
    let folder = TempDir::new().expect("a folder");
    let token = folder.path().join("token");
    std::fs::write(&token, "s3cret\n").expect("written");
    let token = token.to_str().expect("text").to_owned();
    let yaml = "publish: { address: \"127.0.0.1:0\", auth: [{ bearer: { token_file: token } }] }\n";
    let proxy = Proxy::start_in(folder, &format!("{YAML}\n{yaml}"));
    let at = proxy.address("publish");
    let url = format!("http://{at}");
    for (arguments, code, text) in [
        (&["news", "x"][..], 77, "401 Unauthorized: "),
        (&["news", "x", "--token-file", "/nonexistent"], 66, "/nonexistent"),
        (&["news", "{", "--json", "--token-file", &token], 65, "leave out --json"),
        (&["a\nb", "x", "--token-file", &token], 65, "control character"),
        (&["news", "x", "--if-match", "!", "--token-file", &token], 65, "If-Match"),
        (&["news", "x", "--url", "ftp://x"], 65, "is not http"),
        (&["--ndjson", "news"], 2, "cannot be used"),
        (&[], 2, "<CHANNEL>"),
    ] {
        let url = if arguments.contains(&"--url") { &[][..] } else { &["--url", url.as_str()] };
        let said = run(&[&["publish"], url, arguments].concat());
        assert_eq!((said.code, said.out.as_str()), (Some(code), ""), "{arguments:?}: {}", said.err);
        assert!(said.err.contains(text) && !said.err.contains("s3cret"), "no {text:?} in {}", said.err);
    }
    let said = run_with(&["publish", "--url", &url, "news", "x"], b"", &[("PUSHBRIDGE_PUBLISH_TOKEN", "s3cret")]);
    assert_eq!(said.code, Some(0), "{}", said.err);
    drop(proxy);
    let gone = publish(at, &["news", "x"]);
    assert_eq!(gone.code, Some(69));
    assert!(gone.err.contains("is pushbridge running"), "{}", gone.err);
}

#[test]
fn all_transports_print_the_same() {
    let proxy = Proxy::start(YAML);
    let at = proxy.address("publish");
    for data in ["one", "two", "three"] {
        assert_eq!(publish(at, &["c", data]).code, Some(0));
    }
    let url = proxy.url("http", "/events/c");
    let outs = ["sse", "websocket", "long-poll"].map(|transport| {
        let said = run(&["subscribe", "--count", "3", "--json", "--transport", transport, &url]);
        assert_eq!((said.code, said.err.as_str()), (Some(0), ""), "{transport}");
        said.out
    });
    assert!(outs[0].contains(r#""data":"three""#), "{}", outs[0]);
    assert_eq!(outs[0], outs[1]);
    assert_eq!(outs[0], outs[2]);
    // Each goes on from another's cursor.
    let second: serde_json::Value = serde_json::from_str(outs[1].lines().nth(1).expect("a line")).expect("JSON");
    let cursor = second["id"].as_str().expect("an id");
    for transport in ["sse", "websocket", "long-poll"] {
        let said = run(&["subscribe", "--count", "1", "--transport", transport, "--last-event-id", cursor, &url]);
        assert_eq!((said.code, said.out.as_str()), (Some(0), "three\n"), "{transport}: {}", said.err);
    }
}

#[test]
fn what_can_not_be_subscribed_says_why() {
    let proxy = Proxy::start(YAML);
    let good = proxy.url("http", "/events/c");
    let nowhere = proxy.url("http", "/nowhere");
    let bare = format!("{}/events/c", proxy.address("http"));
    for transport in ["sse", "websocket", "long-poll"] {
        for (arguments, code, text) in [
            (&[nowhere.as_str()][..], 1, "404 Not Found"),
            (&["--last-event-id", "!", &good], 1, "malformed cursor"),
            (&[&bare], 2, "starts with http:// or https://"),
            (&["http://"], 2, "such as http://localhost:8080/events/news"),
            (&["https://127.0.0.1:1/"], 1, "Connection refused"),
        ] {
            let said = run(&[&["subscribe", "--transport", transport], arguments].concat());
            assert_eq!((said.code, said.out.as_str()), (Some(code), ""), "{transport} {arguments:?}: {}", said.err);
            assert!(said.err.contains(text), "{transport}: no {text:?} in {}", said.err);
        }
    }
}

#[test]
fn tls_is_checked_unless_told_otherwise() {
    let folder = TempDir::new().expect("a folder");
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    std::fs::write(folder.path().join("c.pem"), made.cert.pem()).expect("written");
    std::fs::write(folder.path().join("k.pem"), made.signing_key.serialize_pem()).expect("written");
    let listener = "listeners: [{ name: https, address: \"127.0.0.1:0\", \
        tls: { certificates: [{ cert_file: c.pem, key_file: k.pem }] } }]\n";
    let proxy = Proxy::start_in(folder, &format!("{YAML}\n{listener}"));
    assert_eq!(publish(proxy.address("publish"), &["c", "safe"]).code, Some(0));
    let url = format!("https://localhost:{}/events/c", proxy.address("https").port());
    let file = proxy.folder().join("c.pem");
    let file = file.to_str().expect("text");
    for transport in ["sse", "websocket", "long-poll"] {
        let common = ["subscribe", "--count", "1", "--transport", transport, &url];
        for trust in [&["--insecure"][..], &["--ca-file", file]] {
            let said = run(&[&common[..], trust].concat());
            assert_eq!((said.code, said.out.as_str()), (Some(0), "safe\n"), "{transport} {trust:?}: {}", said.err);
        }
        let said = run(&common);
        assert_eq!(said.code, Some(1));
        assert!(said.err.contains("--insecure"), "{}", said.err);
    }
}

/// A running `subscribe`: its lines, as they come.
struct Subscriber {
    child: Child,
    out: Receiver<String>,
    err: Receiver<String>,
}

impl Subscriber {
    fn start(arguments: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_pushbridge"))
            .arg("subscribe")
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the built binary can be started");
        let out = lines(child.stdout.take().expect("its output is piped"));
        let err = lines(child.stderr.take().expect("its errors are piped"));
        Self { child, out, err }
    }

    fn next(&self) -> String {
        self.out.recv_timeout(Duration::from_secs(60)).expect("a line")
    }

    /// Reads its notes until one has `text`.
    fn note(&self, text: &str) {
        while !self.err.recv_timeout(Duration::from_secs(60)).expect("a note").contains(text) {}
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lines(from: impl std::io::Read + Send + 'static) -> Receiver<String> {
    let (send, lines) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            let _ = send.send(line);
        }
    });
    lines
}

#[test]
fn subscribers_outlive_a_restart_of_the_server() {
    let proxy = Proxy::start(YAML);
    let (http, at) = (proxy.address("http"), proxy.address("publish"));
    let url = proxy.url("http", "/events/c");
    let subscribers = ["sse", "websocket", "long-poll"]
        .map(|transport| Subscriber::start(&["--transport", transport, "--count", "2", &url]));
    assert_eq!(publish(at, &["c", "before"]).code, Some(0));
    for subscriber in &subscribers {
        assert_eq!(subscriber.next(), "before");
    }
    let log = proxy.log();
    assert_eq!(proxy.terminate().code(), Some(0));
    let cut = log.lock().expect("the log").iter().any(|line| line["message"] == "sessions were cut off");
    assert!(!cut, "each session ended by itself, also the poll that came again");
    subscribers.iter().for_each(|subscriber| subscriber.note("trying again in"));
    let again = Proxy::start(&format!(
        "{YAML}\nlisteners: [{{ name: http, address: \"{http}\" }}]\npublish: {{ address: \"{at}\" }}\n"
    ));
    assert_eq!(publish(again.address("publish"), &["c", "after"]).code, Some(0));
    for mut subscriber in subscribers {
        subscriber.note("connected again");
        // The embedded bus keeps nothing over a restart, and that is said.
        subscriber.note("gap: events of c are lost (epoch)");
        assert_eq!(subscriber.next(), "after");
        let ended = subscriber.child.wait().expect("it ends");
        assert_eq!(ended.code(), Some(0), "the count is reached");
    }
}

#[test]
fn a_reader_that_goes_ends_the_subscriber() {
    let proxy = Proxy::start(YAML);
    let mut child = Command::new(env!("CARGO_BIN_EXE_pushbridge"))
        .args(["subscribe", &proxy.url("http", "/events/c")])
        .stdout(Stdio::piped())
        .spawn()
        .expect("the built binary can be started");
    publish(proxy.address("publish"), &["c", "one"]);
    let mut stdout = child.stdout.take().expect("its output is piped");
    stdout.read_exact(&mut [0; 4]).expect("a line");
    drop(stdout);
    let ended = crate::support::wait_for("the subscriber ends", || {
        publish(proxy.address("publish"), &["c", "more"]);
        child.try_wait().expect("its status can be read")
    });
    assert_eq!(ended.code(), Some(0));
}
