//! Services of Kubernetes against a small API server over TLS.

#![expect(clippy::disallowed_methods, reason = "what a test server tells is bounded by the test")]

use super::*;
use crate::upstream::names::Names;
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use std::future::Future;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

const SOON: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(2);
const PATH: &str =
    "/apis/discovery.k8s.io/v1/namespaces/web/endpointslices?labelSelector=kubernetes.io%2Fservice-name%3Dshop";

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    tokio::task::LocalSet::new().block_on(&runtime, async { timeout(SOON * 2, test).await.expect("the test ends") });
}

/// An API server whose answers the test gives.
struct TestApi {
    requests: UnboundedReceiver<Asked>,
    account: TempDir,
    port: u16,
}

/// A request, and where its answer goes.
struct Asked {
    head: String,
    stream: TlsStream<TcpStream>,
}

impl TestApi {
    async fn start() -> Self {
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("a certificate");
        let account = TempDir::new().expect("a folder");
        std::fs::write(account.path().join("ca.crt"), made.cert.pem()).expect("written");
        std::fs::write(account.path().join("token"), "t0ken\n").expect("written");
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.expect("versions").with_no_client_auth();
        let config = config.with_single_cert(vec![made.cert.der().clone()], key).expect("a certificate");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let (tell, requests) = unbounded_channel();
        tokio::task::spawn_local(async move {
            let acceptor = TlsAcceptor::from(Arc::new(config));
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(mut stream) = acceptor.accept(stream).await else { continue };
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await.expect("a head"));
                }
                let head = String::from_utf8(head).expect("a text");
                if tell.send(Asked { head, stream }).is_err() {
                    return;
                }
            }
        });
        Self { requests, account, port }
    }

    fn names(&self) -> Names {
        let server = ApiServer::new("127.0.0.1".into(), self.port, self.account.path().into());
        Names::new("/none".into(), "/none".into(), 9).with_cluster(Cluster::new(Some(server), PAUSE))
    }

    #[track_caller]
    fn asked(&mut self, path: &str) -> impl Future<Output = Asked> {
        let expected = format!("GET {path}");
        async move {
            let asked = timeout(SOON, self.requests.recv()).await.expect("a request in time").expect("a request");
            assert!(asked.head.starts_with(&expected), "{}", asked.head);
            let lower = asked.head.to_lowercase();
            assert!(lower.contains("authorization: bearer t0ken\r\n"), "{}", asked.head);
            asked
        }
    }
}

impl Asked {
    async fn answer(mut self, status: &str, body: &str) {
        let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n", body.len());
        self.stream.write_all((head + body).as_bytes()).await.expect("written");
        let _ = self.stream.shutdown().await;
    }

    async fn begin(&mut self) {
        let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        self.stream.write_all(head.as_bytes()).await.expect("written");
    }

    /// An event, in two pieces that end elsewhere than the line.
    async fn tell(&mut self, kind: &str, slice: &str) {
        let line = format!("{{\"type\":\"{kind}\",\"object\":{slice}}}\n");
        for part in [&line[..9], &line[9..]] {
            let chunk = format!("{:x}\r\n{part}\r\n", part.len());
            self.stream.write_all(chunk.as_bytes()).await.expect("written");
            self.stream.flush().await.expect("written");
        }
    }
}

fn slice(addresses: &[&str]) -> String {
    let endpoints: Vec<_> = addresses.iter().map(|ip| format!(r#"{{"addresses":["{ip}"]}}"#)).collect();
    let endpoints = endpoints.join(",");
    format!(r#"{{"metadata":{{"name":"a"}},"endpoints":[{endpoints}],"ports":[{{"name":"http","port":3000}}]}}"#)
}

fn list(version: u32, addresses: &[&str]) -> String {
    format!(r#"{{"metadata":{{"resourceVersion":"{version}"}},"items":[{}]}}"#, slice(addresses))
}

fn shop() -> ServerAddress {
    ServerAddress { host: "shop.web:http".into(), port: 0 }
}

async fn look(names: &Names) -> Vec<String> {
    let found = timeout(SOON, names.look(&shop())).await.expect("in time").expect("found");
    assert_eq!(found.ttl, LOOK_AGAIN_AFTER);
    found.sockets.iter().map(SocketAddr::to_string).collect()
}

/// Looks until it sees them.
async fn until(names: &Names, expected: &[&str]) {
    while look(names).await != expected {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[test]
fn a_service_is_listed_then_watched_and_listed_anew_when_the_watch_ends() {
    run(async {
        let mut api = TestApi::start().await;
        let names = api.names();
        let first = tokio::join!(look(&names), async {
            api.asked(&format!("{PATH} HTTP/1.1")).await.answer("200 OK", &list(7, &["10.0.0.2", "10.0.0.1"])).await;
        });
        assert_eq!(first.0, ["10.0.0.1:3000", "10.0.0.2:3000"]);
        let watch = format!("{PATH}&watch=true&allowWatchBookmarks=true&timeoutSeconds=240&resourceVersion=7 ");
        let mut watched = api.asked(&watch).await;
        watched.begin().await;
        watched.tell("MODIFIED", &slice(&["10.0.0.3"])).await;
        until(&names, &["10.0.0.3:3000"]).await;
        watched.tell("BOOKMARK", r#"{"metadata":{"resourceVersion":"8"}}"#).await;
        watched.tell("DELETED", &slice(&[])).await;
        until(&names, &[]).await;
        watched.tell("ERROR", r#"{"code":410}"#).await;
        api.asked(&format!("{PATH} HTTP/1.1")).await.answer("200 OK", &list(9, &["10.0.0.4"])).await;
        until(&names, &["10.0.0.4:3000"]).await;
    });
}

#[test]
fn what_was_seen_holds_while_the_api_server_fails() {
    run(async {
        let mut api = TestApi::start().await;
        let names = api.names();
        let first = tokio::join!(look(&names), async {
            // The first look waits for an answer that can be used.
            api.asked(PATH).await.answer("403 Forbidden", "{}").await;
            api.asked(PATH).await.answer("200 OK", "no JSON").await;
            api.asked(PATH).await.answer("200 OK", &list(7, &["10.0.0.1"])).await;
        });
        assert_eq!(first.0, ["10.0.0.1:3000"]);
        api.asked(PATH).await.answer("500 Internal Server Error", "").await;
        let failed = api.asked(PATH).await;
        assert_eq!(look(&names).await, ["10.0.0.1:3000"]);
        drop(failed);
        api.asked(PATH).await.answer("200 OK", &list(9, &["10.0.0.2"])).await;
        until(&names, &["10.0.0.2:3000"]).await;
    });
}

#[test]
fn outside_of_a_pod_a_look_fails_and_says_why() {
    run(async {
        let names = Names::new("/none".into(), "/none".into(), 9).with_cluster(Cluster::new(None, PAUSE));
        let error = names.look(&shop()).await.expect_err("there is no cluster");
        assert!(error.to_string().contains("KUBERNETES_SERVICE_HOST"), "{error}");
    });
}

#[test]
fn an_unknown_certificate_or_a_missing_account_is_no_api_server() {
    run(async {
        let api = TestApi::start().await;
        let other = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("a certificate");
        std::fs::write(api.account.path().join("ca.crt"), other.cert.pem()).expect("written");
        let server = ApiServer::new("127.0.0.1".into(), api.port, api.account.path().into());
        let error = server.get(PATH).await.err().expect("its certificate is not trusted");
        assert!(error.to_string().contains("can't connect"), "{error}");
        std::fs::remove_file(api.account.path().join("token")).expect("removed");
        let error = server.get(PATH).await.err().expect("there is no token");
        assert!(error.to_string().contains("automountServiceAccountToken"), "{error}");
    });
}
