//! The end of a pod in which pushbridge stands beside an application: what the kubelet does to both, in its order.
//!
//! A native sidecar gets its preStop together with the application's, but SIGTERM only once the application is gone; a
//! plain one gets SIGTERM right after its own preStop. The charts' preStop is `pushbridge drain --no-wait` here, and a
//! sleep of settle + spread for the application. No client may hear of a backend that is gone.

use crate::support::client::within;
use crate::support::held::{Body, EventStream};
use crate::support::proxy::Proxy;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::task::spawn_blocking;

const SETTLE_AND_SPREAD: Duration = Duration::from_millis(1000);
const SESSIONS: usize = 20;

/// A plain backend that knows nothing of signals: SIGTERM ends it at once.
const APPLICATION: &str = r#"
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
class Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        self.send_response(200)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"ok")
    def log_message(self, *of):
        pass
server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
print(server.server_port, flush=True)
server.serve_forever()
"#;

/// Who gets SIGTERM when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sidecar {
    Native,
    Plain,
}

struct Application(Child, u16);

impl Application {
    fn start() -> Self {
        let mut command = Command::new("python3");
        let mut child =
            command.args(["-c", APPLICATION]).stdout(Stdio::piped()).spawn().expect("python3 can be started");
        let mut line = String::new();
        let output = child.stdout.take().expect("its output is piped");
        BufReader::new(output).read_line(&mut line).expect("its port");
        let port = line.trim().parse().expect("a port");
        Self(child, port)
    }

    /// SIGTERM, and the end.
    fn terminate(mut self) {
        let sent = Command::new("kill").arg(self.0.id().to_string()).status().expect("kill runs");
        assert!(sent.success());
        self.0.wait().expect("it ends");
    }
}

impl Drop for Application {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn a_native_sidecar_outlives_its_application_and_its_clients() {
    end_of_a_pod(Sidecar::Native).await;
}

#[tokio::test]
async fn a_plain_sidecar_leaves_before_its_application() {
    end_of_a_pod(Sidecar::Plain).await;
}

async fn end_of_a_pod(sidecar: Sidecar) {
    let application = spawn_blocking(Application::start).await.expect("started");
    let yaml = format!(
        "upstreams: {{ app: {{ servers: ['http://127.0.0.1:{}'] }} }}
routes:
  - {{ name: events, match: {{ path: /events }}, push: {{ channels: [c] }} }}
  - {{ name: app, match: {{ path: /** }}, proxy: {{ upstream: app }} }}
drain: {{ settle: 300ms, spread: 700ms, margin: 3s, fail_readiness: after_settle }}
",
        application.1
    );
    let proxy = spawn_blocking(move || Proxy::start(&yaml)).await.expect("started");
    let (http, admin) = (proxy.address("http"), proxy.address("admin"));
    let mut held = Vec::new();
    for _ in 0..SESSIONS {
        let (status, _, body) = Body::get(http, "/events", &[("accept", "text/event-stream")]).await;
        assert_eq!(status, 200);
        held.push(tokio::spawn(to_the_end(EventStream::new(body))));
    }
    let asked = Arc::new(AtomicUsize::new(0));
    let is_over = Arc::new(AtomicBool::new(false));
    let asking = tokio::spawn(keep_asking(sidecar, http, Arc::clone(&asked), Arc::clone(&is_over)));
    within("requests before the end", async {
        while asked.load(Ordering::Relaxed) < 5 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;

    // Both preStop hooks begin together.
    let hook = spawn_blocking(move || {
        let drain = ["drain", "--no-wait", "--admin", &format!("http://{admin}")];
        Command::new(env!("CARGO_BIN_EXE_pushbridge")).args(drain).output().expect("it runs")
    });
    let hook_of_application = tokio::time::sleep(SETTLE_AND_SPREAD);
    let hook = hook.await.expect("waited");
    assert!(hook.status.success(), "{hook:?}");
    if sidecar == Sidecar::Plain {
        proxy.stop();
    }
    hook_of_application.await;
    // Nobody is left whom the application serves; the pod has long left the endpoints.
    for client in held {
        client.await.expect("a client");
    }
    is_over.store(true, Ordering::Relaxed);
    asking.await.expect("every request was answered by the application");
    spawn_blocking(move || application.terminate()).await.expect("ended");
    if sidecar == Sidecar::Native {
        proxy.stop();
    }
    let ended = spawn_blocking(move || proxy.wait()).await.expect("waited");
    assert_eq!(ended.code(), Some(0));
}

/// A session has to end as one that was told: no broken stream.
async fn to_the_end(mut events: EventStream) {
    let mut retries = 0;
    while let Some(event) = events.next().await {
        retries += usize::from(event.expect("a clean end").retry_ms.is_some());
    }
    assert_eq!(retries, 2, "one at the start, one with the drain");
}

/// Plain requests, each on a connection of its own. What is answered has to come from the application.
async fn keep_asking(sidecar: Sidecar, to: SocketAddr, asked: Arc<AtomicUsize>, is_over: Arc<AtomicBool>) {
    while !is_over.load(Ordering::Relaxed) {
        match Body::try_get(to, "/anything", &[]).await {
            Ok((status, _, mut body)) => {
                assert_eq!(status, 200, "after {asked:?} requests");
                let text = body.next().await.expect("a body").expect("a whole body");
                assert_eq!(&*text, b"ok");
                asked.fetch_add(1, Ordering::Relaxed);
            }
            // It has gone, as the pod's endpoints long have.
            Err(error) => assert_eq!(sidecar, Sidecar::Plain, "after {asked:?} requests: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
