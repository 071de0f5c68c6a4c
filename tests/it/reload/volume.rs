//! A configuration in a volume of Kubernetes: links into `..data`, swapped as a whole.

use super::{ROUTE, metric};
use crate::support::proxy::{Proxy, completed};
use crate::support::wait_for;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Makes a generation with a configuration of one route, and swaps to it as the kubelet does.
fn swap(volume: &Path, generation: usize) {
    let name = format!("..generation_{generation}");
    std::fs::create_dir(volume.join(&name)).expect("a folder");
    let text = completed(&ROUTE.replace("/events", &format!("/events/{generation}")));
    std::fs::write(volume.join(&name).join("pushbridge.yaml"), text).expect("written");
    symlink(&name, volume.join("..data_tmp")).expect("a link");
    std::fs::rename(volume.join("..data_tmp"), volume.join("..data")).expect("swapped");
    if generation > 0 {
        std::fs::remove_dir_all(volume.join(format!("..generation_{}", generation - 1))).expect("removed");
    }
}

#[tokio::test]
async fn a_volume_that_is_swapped_fifty_times_is_followed_each_time() {
    let folder = TempDir::new().expect("a folder");
    swap(folder.path(), 0);
    symlink("..data/pushbridge.yaml", folder.path().join("pushbridge.yaml")).expect("a link");
    let proxy = Proxy::start_as_it_is(folder);
    for generation in 1..=50 {
        let started = Instant::now();
        swap(proxy.folder(), generation);
        let reloaded = || (proxy.logged("configuration reloaded").len() >= generation).then_some(());
        wait_for("a reload", reloaded);
        let took = started.elapsed();
        assert!(took < Duration::from_secs(2), "swap {generation} was seen after {took:?}");
        let changes = &proxy.logged("configuration reloaded")[generation - 1]["changes"];
        let to = format!("→ /events/{generation}");
        assert!(changes.as_str().is_some_and(|text| text.ends_with(&to)), "{changes}");
    }
    assert_eq!(metric(&proxy, "pushbridge_config_reloads_total{result=\"applied\"}").await, 50.0);
    assert_eq!(metric(&proxy, "pushbridge_config_reloads_total{result=\"refused\"}").await, 0.0);
}
