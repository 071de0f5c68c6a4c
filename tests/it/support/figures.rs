//! What a running pushbridge tells of itself: its metrics, and what the system says of its memory.

use super::client::{DEADLINE, Http, get, send};
use super::proxy::Proxy;
use std::time::{Duration, Instant};

/// The sum of a metric's values over all series that have these labels; 0 if there is none.
pub async fn figure(proxy: &Proxy, name: &str, labels: &[(&str, &str)]) -> f64 {
    let admin = proxy.address("admin");
    let page = send(Http::H1, admin, get(admin, "/metrics", &[])).await;
    let series = page.text().lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.rsplit_once(' '));
    let of_name = series.filter(|(series, _)| series.split('{').next() == Some(name));
    let wanted = labels.iter().map(|(label, value)| format!("{label}=\"{value}\"")).collect::<Vec<_>>();
    let fitting = of_name.filter(|(series, _)| wanted.iter().all(|label| series.contains(label.as_str())));
    fitting.map(|(_, value)| value.parse::<f64>().expect("a number")).fold(0.0, |sum, value| sum + value)
}

/// Waits until a metric is at least `value`.
#[track_caller]
pub fn wait_for_figure<'a>(
    proxy: &'a Proxy,
    name: &'a str,
    labels: &'a [(&'a str, &'a str)],
    value: f64,
) -> impl Future<Output = ()> + 'a {
    let caller = std::panic::Location::caller();
    async move {
        let until = Instant::now() + DEADLINE;
        loop {
            let is = figure(proxy, name, labels).await;
            if is >= value {
                return;
            }
            assert!(Instant::now() < until, "{caller}: {name} {labels:?} is {is}, never {value}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Waits until a session of this transport has ended for this reason.
pub async fn wait_for_close(proxy: &Proxy, transport: &str, reason: &str) {
    let labels = [("transport", transport), ("reason", reason)];
    wait_for_figure(proxy, "pushbridge_hub_sessions_closed_total", &labels, 1.0).await;
}

/// The resident memory of the process, in KiB.
pub fn resident_kib(proxy: &Proxy) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", proxy.id())).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a resident size");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}
