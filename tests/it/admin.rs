//! The admin listener of a running instance: figures that move as they should, probes, the masked configuration.

use crate::support::client::{Http, Stream, get, open, post, publish, request, send};
use crate::support::events::{Events, Polls};
use crate::support::metrics;
use crate::support::proxy::Proxy;
use crate::support::tls::certified_folder;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};

const YAML: &str = "
upstreams: { shop: { servers: [\"http://127.0.0.1:1\"] } }
routes:
  - name: events
    match: { path: \"/events/{topic}\" }
    push: { channels: [\"{topic}\"], transports: [sse, websocket, long_poll] }
  - name: shop
    match: { path: /shop }
    proxy: { upstream: shop }
";

/// The families of a page: type, and the names of its samples' labels. Checks the text format on the way.
fn families(text: &str) -> BTreeMap<String, (String, BTreeSet<String>)> {
    let mut families: BTreeMap<String, (String, BTreeSet<String>)> = BTreeMap::new();
    let (mut help, mut family, mut seen) = (String::new(), String::new(), BTreeSet::new());
    assert!(text.ends_with('\n'));
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, text) = rest.split_once(' ').expect("a help text");
            assert!(!text.is_empty() && !families.contains_key(name), "{line}");
            name.clone_into(&mut help);
            continue;
        }
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("a type");
            assert_eq!(name, help, "each family has its help first");
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert_eq!(name.ends_with("_total"), kind == "counter", "{line}");
            name.clone_into(&mut family);
            families.insert(family.clone(), (kind.to_owned(), BTreeSet::new()));
            continue;
        }
        let (sample, value) = line.rsplit_once(' ').expect("a value");
        assert!(value.parse::<f64>().is_ok_and(|value| value.is_finite() && value >= 0.0), "{line}");
        assert!(seen.insert(sample.to_owned()), "twice: {line}");
        let (name, labels) = sample.split_once('{').unwrap_or((sample, ""));
        let (kind, names) = families.get_mut(&family).expect("a type comes first");
        let suffixes: &[&str] = if kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
        assert!(suffixes.iter().any(|suffix| name.strip_suffix(suffix) == Some(family.as_str())), "{line}");
        names.extend(labels.split("\",").filter_map(|label| label.split_once('=')).map(|(name, _)| name.to_owned()));
    }
    for (kind, names) in families.values_mut() {
        assert_eq!(kind == "histogram", names.remove("le"));
    }
    families
}

async fn page(proxy: &Proxy) -> String {
    let admin = proxy.address("admin");
    send(Http::H1, admin, get(admin, "/metrics", &[])).await.text().to_owned()
}

/// What docs/metrics.md lists: name, type, labels.
fn documented() -> BTreeMap<String, (String, BTreeSet<String>)> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md");
    let text = std::fs::read_to_string(path).expect("a file");
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `")).map(|row| {
        let cells: Vec<&str> = row.split(" | ").flat_map(|cell| cell.split("| |")).collect();
        let labels =
            row.split(';').filter_map(|part| part.rsplit_once("`:")).filter_map(|(before, _)| before.rsplit_once('`'));
        let name = cells[0].trim_end_matches('`').to_owned();
        (name, (cells[1].trim().to_owned(), labels.map(|(_, label)| label.to_owned()).collect()))
    });
    rows.collect()
}

#[tokio::test]
async fn the_page_has_exactly_the_documented_families() {
    // A certificate, so that the family of its end has a sample.
    let tls = "tls: { certificates: [{ cert_file: tls.crt, key_file: tls.key }] }";
    let listeners = format!("listeners: [{{ name: https, address: \"127.0.0.1:0\", {tls} }}]");
    let proxy = Proxy::start_in(certified_folder(), &format!("{YAML}\n{listeners}\n"));
    let answer = send(Http::H1, proxy.address("admin"), get(proxy.address("admin"), "/metrics", &[])).await;
    assert_eq!(answer.field("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    let (found, documented) = (families(answer.text()), documented());
    assert!(documented.len() > 20, "{documented:#?}");
    assert_eq!(found, documented);
}

#[tokio::test]
async fn sessions_and_messages_are_counted() {
    let proxy = Proxy::start(YAML);
    let (http, at) = (proxy.address("http"), proxy.address("publish"));
    let open_sse = "pushbridge_hub_sessions_open{transport=\"sse\"}";
    let streams =
        [Events::open(Http::H1, http, "/events/c", &[]).await, Events::open(Http::H2c, http, "/events/c", &[]).await];
    let mut polls = Polls::begin(Http::H1, http, "/events/c").await;
    metrics::reaches(&proxy, open_sse, 2.0).await;
    for protocol in ["http/1.1", "h2"] {
        let open = format!("pushbridge_server_connections_open{{listener=\"http\",protocol=\"{protocol}\"}}");
        metrics::reaches(&proxy, &open, 1.0).await;
    }
    for event in [
        r#"{"channel":"c","id":"1","data":"123456"}"#,
        r#"{"channel":"c","id":"1","data":"123456"}"#,
        r#"[{"channel":"c","data":"1234"},{"channel":"d","data":""}]"#,
    ] {
        assert_eq!(publish(at, event).await.status, 200);
    }
    let (_, polled) = polls.next().await;
    assert_eq!(polled["events"].as_array().map(Vec::len), Some(2));
    let mut delivered_bytes = 0;
    for mut stream in streams {
        for wanted in ["123456", "1234"] {
            let frame = stream.next().await;
            assert_eq!(frame.data, wanted);
            delivered_bytes += format!("id: {}\ndata: {wanted}\n\n", frame.id).len();
        }
    }
    for (sample, value) in [
        (open_sse, 0.0),
        ("pushbridge_hub_sessions_opened_total{transport=\"sse\"}", 2.0),
        ("pushbridge_hub_sessions_closed_total{transport=\"sse\",reason=\"client_gone\"}", 2.0),
        ("pushbridge_hub_sessions_open{transport=\"long_poll\"}", 0.0),
        ("pushbridge_hub_sessions_opened_total{transport=\"long_poll\"}", 2.0),
        ("pushbridge_hub_sessions_closed_total{transport=\"long_poll\",reason=\"done\"}", 2.0),
        ("pushbridge_hub_messages_delivered_total{transport=\"sse\"}", 4.0),
        ("pushbridge_hub_messages_delivered_total{transport=\"long_poll\"}", 2.0),
        ("pushbridge_hub_delivered_bytes_total{transport=\"sse\"}", f64::from(delivered_bytes as u32)),
        ("pushbridge_hub_delivery_latency_seconds_count{transport=\"sse\"}", 4.0),
        ("pushbridge_publish_messages_total{result=\"accepted\"}", 3.0),
        ("pushbridge_publish_messages_total{result=\"duplicate\"}", 1.0),
        ("pushbridge_publish_bytes_total", 10.0),
        ("pushbridge_publish_requests_total{status_class=\"2xx\"}", 3.0),
        ("pushbridge_hub_log_messages", 3.0),
        ("pushbridge_hub_log_bytes", 11.0),
        ("pushbridge_hub_channels", 2.0),
        ("pushbridge_server_connections_open{listener=\"http\",protocol=\"http/1.1\"}", 0.0),
        ("pushbridge_server_connections_open{listener=\"http\",protocol=\"h2\"}", 0.0),
        ("pushbridge_server_connections_accepted_total{listener=\"http\",protocol=\"http/1.1\"}", 3.0),
        ("pushbridge_server_connections_accepted_total{listener=\"http\",protocol=\"h2\"}", 1.0),
        ("pushbridge_gateway_requests_total{route=\"events\",status_class=\"2xx\"}", 4.0),
        ("pushbridge_gateway_requests_total{route=\"events\",status_class=\"4xx\"}", 0.0),
    ] {
        assert!(page(&proxy).await.contains(&format!("\n{sample} ")), "no {sample}");
        metrics::reaches(&proxy, sample, value).await;
    }
    let lag = metrics::value(&proxy, "pushbridge_hub_fanout_lag_seconds_count").await;
    assert!(lag >= 2.0, "each worker with sessions counts a message once: {lag}");
}

#[tokio::test]
async fn what_is_refused_is_counted_by_reason() {
    let proxy = Proxy::start(YAML);
    let (http, at) = (proxy.address("http"), proxy.address("publish"));
    let json = [("content-type", "application/json")];
    let large = format!(r#"{{"channel":"c","data":"{}"}}"#, "x".repeat(70_000));
    for (to, request, status) in [
        (http, get(http, "/nowhere", &[]), 404),
        (http, get(http, "/events/c", &[("accept", "image/png")]), 406),
        (http, get(http, "/events/c", &[("last-event-id", "!")]), 400),
        (http, request("DELETE", http, "/events/c", &[], ""), 405),
        (http, get(http, "/shop", &[]), 503),
        (at, post(at, "/v1/events", &json, "{}"), 400),
        (at, post(at, "/v1/events", &json, large), 413),
        (at, post(at, "/nowhere", &json, "{}"), 404),
        (at, post(at, "/v1/events", &[json[0], ("if-match", "z-9")], r#"{"channel":"c","data":1}"#), 412),
    ] {
        let answer = send(Http::H1, to, request).await;
        assert_eq!(answer.status, status, "{}", answer.text());
    }
    let smuggled = "GET / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n";
    assert!(crate::support::client::raw(http, smuggled.as_bytes(), "\r\n\r\n").await.starts_with("HTTP/1.1 400 "));
    for (reason, count) in [
        ("no_route", 2.0),
        ("bad_subscribe", 3.0),
        ("bad_publish", 1.0),
        ("too_large", 1.0),
        ("bad_request", 1.0),
        ("auth", 0.0),
    ] {
        metrics::reaches(&proxy, &metrics::refusals(reason), count).await;
    }
    for (sample, count) in [
        ("pushbridge_publish_messages_total{result=\"moved\"}", 1.0),
        ("pushbridge_publish_requests_total{status_class=\"4xx\"}", 4.0),
        ("pushbridge_upstream_requests_total{upstream=\"shop\",result=\"connect_failed\"}", 1.0),
        ("pushbridge_upstream_request_duration_seconds_count{upstream=\"shop\"}", 1.0),
        ("pushbridge_gateway_requests_total{route=\"shop\",status_class=\"5xx\"}", 1.0),
        ("pushbridge_gateway_requests_total{route=\"events\",status_class=\"4xx\"}", 3.0),
    ] {
        metrics::reaches(&proxy, sample, count).await;
    }
}

#[tokio::test]
async fn gaps_are_counted_by_reason() {
    let proxy = Proxy::start(&format!("{YAML}channels: [{{ match: c, history: {{ messages: 1 }} }}]\n"));
    let (http, at) = (proxy.address("http"), proxy.address("publish"));
    let cursor = Events::open(Http::H1, http, "/events/c", &[]).await.cursor;
    let events = vec![r#"{"channel":"c","data":1}"#; 65].join(",");
    assert_eq!(publish(at, &format!("[{events}]")).await.status, 200);
    let fields = [("accept", "application/json"), ("last-event-id", cursor.as_str())];
    assert_eq!(send(Http::H1, http, get(http, "/events/c", &fields)).await.json()["gap"]["reason"], "evicted");
    assert_eq!(send(Http::H2c, http, get(http, "/events/other", &fields)).await.json()["gap"]["reason"], "epoch");
    metrics::reaches(&proxy, "pushbridge_hub_gaps_total{reason=\"evicted\"}", 1.0).await;
    metrics::reaches(&proxy, "pushbridge_hub_gaps_total{reason=\"epoch\"}", 1.0).await;
}

#[tokio::test]
async fn probes_and_pages_answer_get_and_head_over_both_versions() {
    let proxy = Proxy::start(YAML);
    let admin = proxy.address("admin");
    for version in [Http::H1, Http::H2c] {
        for (path, media_type, text) in [
            ("/livez", "application/json", r#"{"status":"alive"}"#),
            ("/readyz?verbose", "application/json", r#"{"status":"ready"}"#),
            ("/metrics", "text/plain; version=0.0.4; charset=utf-8", "pushbridge_build_info{"),
            ("/config", "application/yaml", "routes"),
            ("/", "text/html; charset=utf-8", "<h1>pushbridge</h1>"),
        ] {
            let answer = send(version, admin, get(admin, path, &[])).await;
            assert_eq!((answer.status.as_u16(), answer.field("content-type")), (200, media_type), "{path}");
            assert!(answer.text().contains(text), "{path}: {}", answer.text());
            assert_eq!(answer.field("x-content-type-options"), "nosniff");
            let head = send(version, admin, request("HEAD", admin, path, &[], "")).await;
            assert_eq!((head.status, head.body.len()), (answer.status, 0));
            assert_eq!(head.field("content-type"), media_type);
            assert!(head.field("content-length").parse::<usize>().is_ok_and(|len| len > 10), "{path}");
        }
        let missing = send(version, admin, get(admin, "/metric", &[])).await;
        assert_eq!((missing.status.as_u16(), missing.field("content-type")), (404, "application/problem+json"));
        let answer = send(version, admin, post(admin, "/readyz", &[], "x")).await;
        assert_eq!((answer.status.as_u16(), answer.field("allow")), (405, "GET, HEAD"));
    }
}

#[tokio::test]
async fn the_running_configuration_shows_no_secret() {
    const SECRETS: [&str; 4] = ["t0ken-from-a-file", "aG9vay1zZWNyZXQtd29yZHM=", "github-s3cret", "p4yments-key"];
    let folder = tempfile::TempDir::new().expect("a folder");
    for (name, secret) in ["token", "hook", "github", "payments"].into_iter().zip(SECRETS) {
        let secret = if name == "hook" { format!("whsec_{secret}") } else { secret.to_owned() };
        std::fs::write(folder.path().join(name), secret).expect("written");
    }
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    std::fs::write(folder.path().join("c.pem"), made.cert.pem()).expect("written");
    std::fs::write(folder.path().join("k.pem"), made.signing_key.serialize_pem()).expect("written");
    let yaml = "
listeners:
  - { name: https, address: \"127.0.0.1:0\", tls: { certificates: [{ cert_file: c.pem, key_file: k.pem }] } }
publish:
  address: \"127.0.0.1:0\"
  auth: [{ bearer: { token_file: token } }]
  webhooks:
    - { path: /a, channel: a, verify: { standard_webhooks: { secret_file: hook } } }
    - { path: /b, channel: b, verify: { github: { secret_file: github } } }
    - { path: /c, channel: c, verify: { hmac: { secret_file: payments, header: x-s } } }
";
    let proxy = Proxy::start_in(folder, &format!("{YAML}{yaml}"));
    let admin = proxy.address("admin");
    for path in ["/config", "/", "/metrics"] {
        let answer = send(Http::H1, admin, get(admin, path, &[])).await;
        for secret in SECRETS.into_iter().chain(["hook-secret-words", "PRIVATE KEY"]) {
            assert!(!answer.text().contains(secret), "{path} shows {secret}");
        }
    }
    let config = send(Http::H1, admin, get(admin, "/config", &[])).await;
    // JSON is YAML.
    let config = config.json();
    assert_eq!(config["routes"][0]["name"], "events", "{config:#}");
    assert_eq!(config["publish"]["webhooks"].as_array().map(Vec::len), Some(3));
    assert_ne!(config["publish"]["auth"], json!([]), "{config:#}");
}

#[tokio::test]
async fn a_restarting_instance_ends_its_sessions_for_that_reason() {
    let proxy = Proxy::start(YAML);
    let http = proxy.address("http");
    let fields = [("accept", "text/event-stream")];
    let response = open(Http::H1, http, get(http, "/events/c", &fields)).await;
    metrics::reaches(&proxy, "pushbridge_hub_sessions_open{transport=\"sse\"}", 1.0).await;
    let stream = Stream::of(response);
    assert_eq!(tokio::task::spawn_blocking(move || proxy.terminate()).await.expect("waited").code(), Some(0));
    assert!(stream.rest().await.contains("id: "), "the stream ended cleanly");
}
