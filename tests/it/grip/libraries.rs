//! The Python libraries of GRIP behind pushbridge: django-eventstream and django-grip on a real Django server, gripcontrol
//! and pubcontrol on a server without a framework; all as they come from PyPI, told of pushbridge by their URL alone.

use crate::support::client::{Http, Stream, get, open, post, send, within};
use crate::support::held::{EventStream, SseEvent};
use crate::support::metrics;
use crate::support::proxy::Proxy;
use crate::support::socket::{CLOSE, Socket, TEXT};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};

const PROJECT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/grip/django");

/// A pushbridge with a backend in Python behind it.
struct Site {
    proxy: Proxy,
    backend: SocketAddr,
    _server: Child,
}

impl Site {
    /// With a Django project.
    async fn django() -> Self {
        Self::of(PROJECT).await
    }

    /// With a backend that uses no framework.
    async fn plain() -> Self {
        Self::of(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/grip/plain")).await
    }

    async fn of(project: &str) -> Self {
        let python = installed().await;
        // The backend has to know where to publish, and pushbridge where the backend is: one of both must know its port first.
        let folder = tempfile::TempDir::new().expect("a folder");
        std::fs::write(folder.path().join("grip.key"), "changeme").expect("written");
        let database = folder.path().join("db.sqlite3");
        let relay = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let to_publish = relay.local_addr().expect("an address");
        let mut server = Command::new(python)
            .arg(format!("{project}/serve.py"))
            .current_dir(project)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("DATABASE", &database)
            .env("GRIP_URL", format!("http://{to_publish}/?iss=edge&key=changeme"))
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("Python runs");
        let mut lines = BufReader::new(server.stdout.take().expect("its output")).lines();
        let line = within("the backend's start", lines.next_line()).await.expect("a line").expect("it serves");
        let backend: SocketAddr = line.rsplit(' ').next().expect("an address").parse().expect("an address");
        let proxy = Proxy::start_in(
            folder,
            &format!(
                "
publish: {{ address: \"127.0.0.1:0\", auth: [{{ grip_sig: {{ key_file: grip.key }} }}] }}
upstreams: {{ python: {{ servers: [\"http://{backend}\"], grip: {{ issuer: edge, key_file: grip.key }} }} }}
routes:
  - {{ name: chat, match: {{ path: /chat/ }}, websocket: {{ upstream: python }} }}
  - {{ name: rest, match: {{ path: \"/**\" }}, proxy: {{ upstream: python, grip: true }} }}
"
            ),
        );
        tokio::spawn(pass_on(relay, proxy.address("publish")));
        Self { proxy, backend, _server: server }
    }

    fn http(&self) -> SocketAddr {
        self.proxy.address("http")
    }

    /// POSTs to the backend itself.
    async fn tell(&self, path: &str, body: &str) {
        let answer = send(Http::H1, self.backend, post(self.backend, path, &[], body.to_owned())).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }

    async fn events(&self, http: Http, fields: &[(&str, &str)]) -> Events {
        let at = self.http();
        let fields = [&[("accept", "text/event-stream")], fields].concat();
        let response = open(http, at, get(at, "/events/", &fields)).await;
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Events(EventStream::new(crate::support::held::Body::H1(response.into_body())))
    }
}

/// Passes connections on: a backend is told of a port before pushbridge has one.
async fn pass_on(relay: TcpListener, to: SocketAddr) {
    while let Ok((mut near, _)) = relay.accept().await {
        tokio::spawn(async move {
            if let Ok(mut far) = tokio::net::TcpStream::connect(to).await {
                let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
            }
        });
    }
}

struct Events(EventStream);

impl Events {
    /// The next event that is no keep-alive and no padding.
    async fn next(&mut self) -> SseEvent {
        loop {
            let event = within("an event", self.0.next()).await.expect("it goes on").expect("it goes on");
            if !event.event.is_empty() && event.event != "keep-alive" {
                return event;
            }
        }
    }

    #[track_caller]
    fn expect<'a>(&'a mut self, kind: &'a str, id: &'a str, data: &'a str) -> impl Future<Output = ()> + 'a {
        let caller = std::panic::Location::caller();
        async move {
            let event = self.next().await;
            assert_eq!(
                (event.event.as_str(), event.id.as_deref(), event.data.as_str()),
                (kind, Some(id), data),
                "at {caller}"
            );
        }
    }
}

#[tokio::test]
async fn django_eventstream_sends_events_and_resumes() {
    let site = Site::django().await;
    for (number, http) in [Http::H1, Http::H2c].into_iter().enumerate() {
        let at = |n: usize| format!("test:{}", number * 6 + n);
        let mut events = site.events(http, &[]).await;
        assert_eq!(events.next().await.event, "stream-open");
        site.tell("/send/?type=message", "50% of %I and two%").await;
        events.expect("message", &at(1), "\"50% of %I and two%\"").await;
        site.tell("/send/?type=price", "2").await;
        events.expect("price", &at(2), "\"2\"").await;
        // An event that the proxy does not hear of is had from Django, with the next one.
        site.tell("/store/", "lost").await;
        site.tell("/send/?type=message", "4%%").await;
        events.expect("message", &at(3), "\"lost\"").await;
        events.expect("message", &at(4), "\"4%%\"").await;
        drop(events);
        // Cut off here: what comes meanwhile is there when the client comes back.
        site.tell("/send/?type=message", "5").await;
        let mut events = site.events(http, &[("last-event-id", &at(4))]).await;
        assert_eq!(events.next().await.event, "stream-open");
        events.expect("message", &at(5), "\"5\"").await;
        site.tell("/send/?type=message", "6").await;
        events.expect("message", &at(6), "\"6\"").await;
    }
    metrics::reaches(&site.proxy, "pushbridge_grip_pages_total{result=\"arrived\"}", 2.0).await;
}

#[tokio::test]
async fn django_eventstream_pages_come_until_the_client_is_up_to_date() {
    let site = Site::django().await;
    for n in 1..=250 {
        site.tell("/store/", &format!("{n}%")).await;
    }
    let mut events = site.events(Http::H1, &[("last-event-id", "test:1")]).await;
    assert_eq!(events.next().await.event, "stream-open");
    for n in 2..=250 {
        events.expect("message", &format!("test:{n}"), &format!("\"{n}%\"")).await;
    }
    site.tell("/send/?type=message", "live").await;
    events.expect("message", "test:251", "\"live\"").await;
}

#[tokio::test]
async fn django_grip_holds_responses_and_streams() {
    let site = Site::django().await;
    let at = site.http();
    for http in [Http::H1, Http::H2c] {
        let before = metrics::value(&site.proxy, "pushbridge_hub_sessions_opened_total{transport=\"long_poll\"}").await;
        let polling = tokio::spawn(send(http, at, get(at, "/poll/", &[])));
        metrics::reaches(&site.proxy, "pushbridge_hub_sessions_opened_total{transport=\"long_poll\"}", before + 1.0)
            .await;
        site.tell("/say/?channel=polls", "to polls").await;
        let answer = polling.await.expect("an answer");
        assert_eq!(
            (answer.status.as_u16(), answer.text(), answer.field("content-type")),
            (200, "to polls", "text/plain")
        );
        let mut stream = Stream::of(open(http, at, get(at, "/lines/", &[])).await);
        assert_eq!(stream.until("\n").await, "begin\n");
        for n in 1..=3 {
            site.tell("/say/?channel=lines", &n.to_string()).await;
        }
        assert_eq!(stream.until("3\n").await, "1\n2\n3\n");
    }
}

#[tokio::test]
async fn a_django_chat_subscribes_and_keeps_its_meta() {
    let site = Site::django().await;
    let mut bob = Socket::open(Http::H1, site.http(), "/chat/?name=bob", &[]).await;
    let mut eve = Socket::open(Http::H2c, site.http(), "/chat/?name=eve", &[]).await;
    for (said, heard) in [("hi", "bob: hi"), ("50%", "bob: 50%")] {
        bob.send(TEXT, said).await;
        bob.expect(TEXT, heard).await;
        eve.expect(TEXT, heard).await;
    }
    eve.send(TEXT, "bye").await;
    bob.expect(TEXT, "eve: bye").await;
    eve.expect(TEXT, "eve: bye").await;
    // The library closes with code 0, which may not stand on the wire: the frame is an empty one.
    eve.close(1000, "").await;
    assert_eq!(eve.next().await, Some((CLOSE, bytes::Bytes::new())));
}

#[tokio::test]
async fn gripcontrol_and_pubcontrol_need_no_framework() {
    let site = Site::plain().await;
    let at = site.http();
    for (number, http) in [Http::H1, Http::H2c].into_iter().enumerate() {
        let opened = "pushbridge_hub_sessions_opened_total{transport=\"long_poll\"}";
        let polling = tokio::spawn(send(http, at, get(at, "/poll", &[])));
        if number == 0 {
            metrics::reaches(&site.proxy, opened, 1.0).await;
            site.tell("/say/response", "to polls").await;
        }
        // The second knows 7, after which 8 was published already.
        let answer = polling.await.expect("an answer");
        assert_eq!((answer.status.as_u16(), answer.text()), (201, "to polls"));
        let fields = ["content-type", "x-own", "x-more"].map(|name| answer.field(name));
        assert_eq!(fields, ["text/plain", "1", "2"]);
        let mut by_json = Stream::of(open(http, at, get(at, "/stream", &[])).await);
        assert_eq!(by_json.until("\n").await, "begin\n");
        let mut by_fields = Stream::of(open(http, at, get(at, "/fields", &[])).await);
        assert_eq!(by_fields.until("\n").await, "by fields\n");
        site.tell("/say/stream", "two%").await;
        for mut stream in [by_json, by_fields] {
            assert_eq!(stream.until("!\n").await, "two%\ntwo%!\n");
            site.tell("/close", "").await;
            assert_eq!(stream.rest().await, "");
        }
        let mut socket = Socket::open(http, at, "/chat/", &[]).await;
        socket.send(TEXT, "grüße").await;
        socket.expect(TEXT, "grüße").await;
        site.tell("/say/room", "to the room").await;
        socket.expect(TEXT, "to the room").await;
        socket.close(3001, "bye").await;
        assert_eq!(socket.expect_close_after_own(3001).await, "bye");
    }
}

/// Python of a virtual environment with the libraries, made where there is none yet.
async fn installed() -> PathBuf {
    static MAKING: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
    let _one_at_a_time = MAKING.lock().await;
    let wanted = Path::new(PROJECT).join("requirements.txt");
    let pins = std::fs::read(&wanted).expect("the requirements");
    let digest: u64 =
        pins.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3));
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("grip-{digest:016x}"));
    let python = folder.join("bin/python");
    let works = Command::new(&python).args(["-c", "import django_eventstream_installed"]).output().await;
    if !works.is_ok_and(|output| output.status.success()) {
        let made = run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder)).await;
        let hint = "scripts/install-test-tools installs Python's venv (Debian: python3-venv)";
        assert!(made.status.success(), "no virtual environment; {hint}: {}", said(&made));
        let pip = ["install", "--disable-pip-version-check", "--quiet", "-r"];
        let got = run(Command::new(folder.join("bin/pip")).args(pip).arg(&wanted)).await;
        assert!(got.status.success(), "the GRIP libraries can't be installed from PyPI: {}", said(&got));
        // Written last: one that was broken off is made again.
        let site = run(Command::new(&python).args(["-c", "import site; print(site.getsitepackages()[0])"])).await;
        let site = PathBuf::from(String::from_utf8_lossy(&site.stdout).trim());
        std::fs::write(site.join("django_eventstream_installed.py"), "").expect("written");
    }
    python
}

async fn run(command: &mut Command) -> Output {
    command.kill_on_drop(true).output().await.unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}
