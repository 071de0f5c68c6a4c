//! A look at `/metrics`.

use crate::support::client::{Http, get, send};
use crate::support::proxy::Proxy;
use std::time::{Duration, Instant};

/// The value of the metric with these labels, e.g. `name{reason="x"}`; 0 if it is not there.
pub async fn value(proxy: &Proxy, metric: &str) -> f64 {
    let to = proxy.address("admin");
    let page = send(Http::H1, to, get(to, "/metrics", &[])).await;
    let line = page.text().lines().find_map(|line| line.strip_prefix(metric)?.strip_prefix(' '));
    line.map_or(0.0, |value| value.parse().expect("a number"))
}

/// Waits until the metric has the value: workers bring theirs a few times a second.
#[track_caller]
pub fn reaches(proxy: &Proxy, metric: &str, expected: f64) -> impl Future<Output = ()> {
    let caller = std::panic::Location::caller();
    let until = Instant::now() + Duration::from_secs(20);
    async move {
        loop {
            let now = value(proxy, metric).await;
            if now == expected {
                return;
            }
            assert!(Instant::now() < until, "{caller}: {metric} is {now}, not {expected}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// The counter of what was refused for `reason`.
pub fn refusals(reason: &str) -> String {
    format!("pushbridge_server_refusals_total{{reason=\"{reason}\"}}")
}
