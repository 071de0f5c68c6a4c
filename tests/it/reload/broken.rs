//! Files that can't be run: the old configuration serves on, and metric, log and answer say why.

use super::{Pair, ROUTE, SSE, TLS, metric, readiness, reload, shown};
use crate::support::client::{Http, get, open};
use crate::support::proxy::Proxy;
use crate::support::wait_for;
use std::net::TcpListener;
use tempfile::TempDir;

const SUCCESSFUL: &str = "pushbridge_config_last_reload_successful";
const REFUSED: &str = "configuration refused; the running one goes on";

/// What `pushbridge check` says of the file.
fn checked(proxy: &Proxy) -> String {
    let mut check = std::process::Command::new(env!("CARGO_BIN_EXE_pushbridge"));
    let output = check.args(["check", "--config"]).arg(proxy.config()).output().expect("check runs");
    assert_eq!(output.status.code(), Some(78));
    String::from_utf8(output.stderr).expect("UTF-8").trim_end().to_owned()
}

#[tokio::test]
async fn what_can_not_be_run_changes_nothing_and_is_told() {
    let (good, other) = (Pair::new(), Pair::new());
    let folder = TempDir::new().expect("a folder");
    good.write(folder.path());
    let yaml = format!("{TLS}{ROUTE}");
    let proxy = Proxy::start_in(folder, &yaml);
    let cut = yaml.replace("push: { channels: [events], transports: [sse] } }\n", "push: { chan");
    let lost = "  - { name: lost, match: { path: /lost }, proxy: { upstream: nowhere } }\n";
    let cases: [(&str, String, (&str, &str)); 5] = [
        ("no valid YAML", cut, (&good.cert, &good.key)),
        ("did you mean \"routes\"?", yaml.replace("\nroutes:", "\nroute:"), (&good.cert, &good.key)),
        ("\"nowhere\" is not defined", format!("{yaml}{lost}"), (&good.cert, &good.key)),
        ("is no valid PEM", yaml.clone(), (&good.cert[..good.cert.len() / 2], &good.key)),
        ("is not the key of", yaml.clone(), (&good.cert, &other.key)),
    ];
    for (text, yaml, (cert, key)) in cases {
        proxy.rewrite(&yaml);
        std::fs::write(proxy.folder().join("tls.crt"), cert).expect("written");
        std::fs::write(proxy.folder().join("tls.key"), key).expect("written");
        let (status, json) = reload(&proxy).await;
        assert_eq!(status, 422, "{text}: {json}");
        let problems: Vec<_> =
            json["problems"].as_array().expect("a list").iter().filter_map(|one| one.as_str()).collect();
        assert!(problems.iter().any(|problem| problem.contains(text)), "{text}: {problems:?}");
        assert_eq!(problems.join("\n"), checked(&proxy), "check says the same");
        let is_logged = || proxy.logged(REFUSED).iter().any(|line| line["problems"] == problems.join("\n"));
        wait_for("a line with all problems", || is_logged().then_some(()));
        assert_eq!((metric(&proxy, SUCCESSFUL).await, readiness(&proxy).await), (0.0, 200));
        let http = proxy.address("http");
        assert_eq!(open(Http::H1, http, get(http, "/events", &SSE)).await.status(), 200);
        assert_eq!(shown(&proxy).await, good.der);
    }
    good.write(proxy.folder());
    proxy.rewrite(&yaml);
    assert_eq!(reload(&proxy).await.1["result"], "unchanged", "it is what runs again");
    assert_eq!(metric(&proxy, SUCCESSFUL).await, 1.0);
}

#[tokio::test]
async fn an_address_in_use_changes_nothing_at_all() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("an address");
    let proxy = Proxy::start(ROUTE);
    let new = format!(
        "listeners: [{{ name: http, address: '127.0.0.1:0' }}, {{ name: free, address: '127.0.0.1:0' }}, {{ name: b, address: '{address}' }}]\n{}",
        ROUTE.replace("path: /events", "path: /other")
    );
    proxy.rewrite(&new);
    let (status, json) = reload(&proxy).await;
    assert_eq!(status, 422, "{json}");
    let problem = json["problems"][0].as_str().expect("a text");
    assert!(problem.starts_with(&format!("listener b: can't listen on {address}")), "{problem}");
    let http = proxy.address("http");
    assert_eq!(open(Http::H1, http, get(http, "/events", &SSE)).await.status(), 200);
    assert_eq!(open(Http::H1, http, get(http, "/other", &SSE)).await.status(), 404);
    assert_eq!((metric(&proxy, SUCCESSFUL).await, readiness(&proxy).await), (0.0, 200));
    assert!(!proxy.logged("listening").iter().any(|line| line["listener"] == "free"), "it never began");
    drop(taken);
    proxy.signal("HUP");
    wait_for("a reload once the port is free", || (!proxy.logged("configuration reloaded").is_empty()).then_some(()));
    assert_eq!(open(Http::H1, address, get(address, "/other", &SSE)).await.status(), 200);
    assert_eq!(metric(&proxy, SUCCESSFUL).await, 1.0);
}

#[tokio::test]
async fn what_needs_a_restart_is_refused_by_name() {
    let proxy = Proxy::start(&format!("{ROUTE}\nruntime: {{ workers: 1 }}\n"));
    proxy.rewrite(&format!("{ROUTE}\nruntime: {{ workers: 2 }}\nadmin: {{ address: '127.0.0.2:0' }}\n"));
    let (status, json) = reload(&proxy).await;
    assert_eq!(status, 422, "{json}");
    let problems = json["problems"].as_array().expect("a list");
    assert_eq!(problems.len(), 2, "{json}");
    for (problem, key) in problems.iter().zip(["admin.address", "runtime.workers"]) {
        let text = problem.as_str().expect("a text");
        assert!(text.starts_with(&format!("{key}: ")) && text.contains("restart needed"), "{text}");
    }
}

#[tokio::test]
async fn a_file_that_stays_broken_is_told_of_once_and_mended_by_itself() {
    let proxy = Proxy::start(ROUTE);
    proxy.rewrite("routes: [");
    wait_for("a refusal", || (!proxy.logged(REFUSED).is_empty()).then_some(()));
    // The same contents once more are an event, but no news; what is after them is.
    proxy.rewrite("routes: [");
    proxy.rewrite(ROUTE);
    let back = "configuration is what runs already";
    wait_for("the way back", || (!proxy.logged(back).is_empty()).then_some(()));
    assert_eq!(proxy.logged(REFUSED).len(), 1);
    assert_eq!(metric(&proxy, SUCCESSFUL).await, 1.0);
}
