//! The figures of a running pushbridge, as a scraper reads them.

use crate::support::client::{DEADLINE, Http, get, send};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// The page of metrics.
pub async fn page(admin: SocketAddr) -> String {
    let answer = send(Http::H1, admin, get(admin, "/metrics", &[])).await;
    assert_eq!(answer.status, 200);
    answer.text().to_owned()
}

/// One sample of the page, by its name and labels.
pub async fn value(admin: SocketAddr, sample: &str) -> f64 {
    let page = page(admin).await;
    let found = page.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
    found.unwrap_or_else(|| panic!("no {sample} in\n{page}")).parse().expect("a number")
}

/// Asks until a sample has this value: workers bring their counts together four times a second.
pub async fn until(admin: SocketAddr, sample: &str, wanted: f64) {
    let end = Instant::now() + DEADLINE;
    loop {
        let found = value(admin, sample).await;
        if found == wanted {
            return;
        }
        assert!(Instant::now() < end, "{sample} is {found}, not {wanted}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
