//! What the text says after things were counted, and whether `docs/metrics.md` says the same.

use super::*;
use crate::model::session::{CloseReason, GapReason, Transport};
use std::collections::{BTreeMap, BTreeSet};

/// Checks that the page has a sample with this name, these labels and this value.
#[track_caller]
fn check(metrics: &Metrics, line: &str) {
    let text = metrics.render();
    assert!(text.lines().any(|found| found == line), "no {line:?} in\n{text}");
}

#[test]
fn counts_reach_the_page_by_a_flush() {
    let metrics = Metrics::new();
    let worker = metrics.worker();
    worker.refused(Refusal::TlsHandshake);
    worker.delivered(Transport::Sse, 63, 180);
    worker.delivered(Transport::Sse, 37, 40_000_000);
    worker.fanned_out(99);
    worker.gap(GapReason::Evicted);
    worker.conflated(5);
    worker.published(PublishResult::Accepted, 70);
    worker.published(PublishResult::Duplicate, 70);
    worker.publish_request(200);
    check(&metrics, "pushbridge_hub_messages_delivered_total{transport=\"sse\"} 0");
    worker.flush();
    worker.flush();
    check(&metrics, "pushbridge_server_refusals_total{reason=\"tls_handshake\"} 1");
    check(&metrics, "pushbridge_hub_messages_delivered_total{transport=\"sse\"} 2");
    check(&metrics, "pushbridge_hub_delivered_bytes_total{transport=\"sse\"} 100");
    check(&metrics, "pushbridge_hub_delivery_latency_seconds_bucket{transport=\"sse\",le=\"0.0001\"} 0");
    check(&metrics, "pushbridge_hub_delivery_latency_seconds_bucket{transport=\"sse\",le=\"0.00025\"} 1");
    check(&metrics, "pushbridge_hub_delivery_latency_seconds_bucket{transport=\"sse\",le=\"30\"} 1");
    check(&metrics, "pushbridge_hub_delivery_latency_seconds_bucket{transport=\"sse\",le=\"+Inf\"} 2");
    check(&metrics, "pushbridge_hub_delivery_latency_seconds_sum{transport=\"sse\"} 40.00018");
    check(&metrics, "pushbridge_hub_fanout_lag_seconds_count 1");
    check(&metrics, "pushbridge_hub_gaps_total{reason=\"evicted\"} 1");
    check(&metrics, "pushbridge_hub_messages_conflated_total 5");
    check(&metrics, "pushbridge_publish_messages_total{result=\"accepted\"} 1");
    check(&metrics, "pushbridge_publish_messages_total{result=\"duplicate\"} 1");
    check(&metrics, "pushbridge_publish_bytes_total 70");
    check(&metrics, "pushbridge_publish_requests_total{status_class=\"2xx\"} 1");
}

#[test]
fn sessions_are_counted_over_all_workers() {
    let metrics = Metrics::new();
    let (one, other) = (metrics.worker(), metrics.worker());
    one.session_opened(Transport::WebSocket);
    one.session_opened(Transport::WebSocket);
    other.session_opened(Transport::WebSocket);
    one.flush();
    other.flush();
    check(&metrics, "pushbridge_hub_sessions_open{transport=\"websocket\"} 3");
    one.session_closed(Transport::WebSocket, CloseReason::Slow);
    drop(one);
    check(&metrics, "pushbridge_hub_sessions_open{transport=\"websocket\"} 2");
    check(&metrics, "pushbridge_hub_sessions_opened_total{transport=\"websocket\"} 3");
    check(&metrics, "pushbridge_hub_sessions_closed_total{transport=\"websocket\",reason=\"slow\"} 1");
    check(&metrics, "pushbridge_hub_sessions_closed_total{transport=\"sse\",reason=\"slow\"} 0");
    assert_eq!(metrics.figures().sessions, 2);
}

#[test]
fn a_connection_is_open_until_its_guard_drops() {
    let metrics = Metrics::new();
    let worker = metrics.worker();
    let first = worker.connection_opened("https", "h2");
    let second = worker.connection_opened("https", "http/1.1");
    drop(first);
    check(&metrics, "pushbridge_server_connections_open{listener=\"https\",protocol=\"h2\"} 0");
    check(&metrics, "pushbridge_server_connections_open{listener=\"https\",protocol=\"http/1.1\"} 1");
    check(&metrics, "pushbridge_server_connections_accepted_total{listener=\"https\",protocol=\"h2\"} 1");
    assert_eq!(metrics.figures().connections, 1);
    drop(second);
    assert_eq!(metrics.figures().connections, 0);
}

#[test]
fn requests_are_counted_by_route_and_upstream() {
    let metrics = Metrics::new();
    let worker = metrics.worker();
    worker.http_request("prices", 200);
    worker.http_request("prices", 404);
    worker.upstream_request("shop", UpstreamResult::Timeout, 2.0);
    worker.upstream_request("shop", UpstreamResult::Ok, f64::NAN);
    check(&metrics, "pushbridge_gateway_requests_total{route=\"prices\",status_class=\"4xx\"} 1");
    check(&metrics, "pushbridge_upstream_requests_total{upstream=\"shop\",result=\"timeout\"} 1");
    check(&metrics, "pushbridge_upstream_request_duration_seconds_bucket{upstream=\"shop\",le=\"1\"} 1");
    check(&metrics, "pushbridge_upstream_request_duration_seconds_sum{upstream=\"shop\"} 2");
}

#[test]
fn hostile_names_stay_within_their_quotes() {
    let metrics = Metrics::new();
    metrics.worker().http_request("a\"} 1\n", 200);
    check(&metrics, r#"pushbridge_gateway_requests_total{route="a\"} 1\n",status_class="2xx"} 1"#);
}

#[test]
fn the_hub_says_how_large_it_is() {
    let metrics = Metrics::new();
    metrics.set_hub(3, 4096, 17);
    metrics.set_connections_max(100_000);
    metrics.set_connections_by_worker([5, 6].into_iter());
    check(&metrics, "pushbridge_server_worker_connections{worker=\"1\"} 6");
    check(&metrics, "pushbridge_server_connections_max 100000");
    check(&metrics, "pushbridge_hub_channels 3");
    check(&metrics, "pushbridge_hub_log_bytes 4096");
    check(&metrics, "pushbridge_hub_log_messages 17");
}

#[test]
fn a_refused_reload_shows_until_the_files_are_what_runs_again() {
    let metrics = Metrics::new();
    let certificates = vec![("tls.crt".to_owned(), 1_800_000_000)];
    metrics.run_config(RunningConfig { hash: "00ff".to_owned(), since_unix_secs: 1.5, certificates });
    check(&metrics, "pushbridge_config_info{hash=\"00ff\"} 1");
    check(&metrics, "pushbridge_config_last_reload_success_timestamp_seconds 1.5");
    check(&metrics, "pushbridge_tls_certificate_not_after_timestamp_seconds{name=\"tls.crt\"} 1800000000");
    check(&metrics, "pushbridge_config_last_reload_successful 1");
    metrics.reloaded(ReloadResult::Refused);
    check(&metrics, "pushbridge_config_last_reload_successful 0");
    metrics.reloaded(ReloadResult::Unchanged);
    check(&metrics, "pushbridge_config_last_reload_successful 1");
    check(&metrics, "pushbridge_config_reloads_total{result=\"refused\"} 1");
    check(&metrics, "pushbridge_config_reloads_total{result=\"applied\"} 0");
}

/// A metric by the page or by the registry: its type, and the values of each label in order. A name from the
/// configuration stands as `…`.
type Listing = BTreeMap<String, (String, BTreeMap<String, BTreeSet<String>>)>;

#[test]
fn the_page_of_metrics_lists_exactly_what_there_is() {
    let listed = listed(include_str!("../../../docs/metrics.md"));
    let exported = exported();
    assert_eq!(
        listed.keys().collect::<Vec<_>>(),
        exported.keys().collect::<Vec<_>>(),
        "docs/metrics.md (left) and the registry (right) name different metrics"
    );
    for (name, found) in &exported {
        assert_eq!(listed.get(name), Some(found), "docs/metrics.md (left) and the registry (right) on {name}");
    }
}

/// Reads the rows `| name | type | label: value value; label: … | meaning |`.
fn listed(page: &str) -> Listing {
    let rows = page.lines().filter(|line| line.starts_with("| `"));
    let mut listing = Listing::new();
    for row in rows {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [name, kind, labels, meaning] = cells[..] else { panic!("not four cells: {row}") };
        assert!(meaning.ends_with('.'), "{name} has no meaning in a sentence");
        let labels = labels.split(';').map(str::trim).filter(|label| !label.is_empty()).map(|label| {
            let (label, values) = label.split_once(':').expect("label: values");
            let values = values.split_whitespace().map(|value| value.trim_matches('`').to_owned()).collect();
            (label.trim_matches('`').to_owned(), values)
        });
        let before = listing.insert(name.trim_matches('`').to_owned(), (kind.to_owned(), labels.collect()));
        assert!(before.is_none(), "{name} is listed twice");
    }
    listing
}

/// Reads what fresh metrics say, before anything happened.
fn exported() -> Listing {
    let metrics = Metrics::new();
    metrics.declare_listener("…");
    metrics.declare_route("…");
    metrics.declare_upstream("…");
    metrics.set_connections_by_worker(std::iter::once(0));
    metrics.run_config(RunningConfig {
        hash: "…".to_owned(),
        since_unix_secs: 0.0,
        certificates: vec![("…".to_owned(), 0)],
    });
    let mut page = Page::default();
    metrics.totals.write(&mut page);
    metrics.bus.write(&mut page);
    metrics.presence.write(&mut page);
    let mut listing = Listing::new();
    for family in page.into_families().into_iter().chain(metrics.registry.gather()) {
        assert!(!family.help().is_empty(), "{} has no help", family.name());
        let mut labels: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for pair in family.get_metric().iter().flat_map(|metric| metric.get_label()) {
            let value = if matches!(pair.name(), "version" | "commit" | "worker") { "…" } else { pair.value() };
            labels.entry(pair.name().to_owned()).or_default().insert(value.to_owned());
        }
        let kind = format!("{:?}", family.get_field_type()).to_lowercase();
        listing.insert(family.name().to_owned(), (kind, labels));
    }
    listing
}

#[test]
fn names_follow_the_convention() {
    for (name, (kind, labels)) in exported() {
        assert!(name.starts_with("pushbridge_") || name.starts_with("process_"), "{name}");
        assert_eq!(name.ends_with("_total"), kind == "counter", "{name}: counters, and only they, end in _total");
        assert!(kind != "histogram" || name.ends_with("_seconds"), "{name}: a histogram without its unit");
        assert!(labels.keys().all(|label| !matches!(label.as_str(), "channel" | "client" | "path")), "{name}");
    }
}
