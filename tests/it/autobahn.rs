//! The Autobahn test suite's cases as a client of a `websocket` route whose backend echoes: how frames, fragments,
//! UTF-8 and closes are treated when they are malformed in each way that its authors thought of.
//!
//! kosoku runs the cases; it is installed from PyPI into the target folder.

use crate::support::bridge_backend::BridgeBackend;
use crate::support::proxy::Proxy;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Output;
use tokio::process::Command;

const VERSION: &str = "0.1.0";
/// The cases of permessage-deflate, which is never offered.
const NOT_OFFERED: [&str; 2] = ["12.*", "13.*"];
/// All the other cases.
const CASES: usize = 301;

#[tokio::test]
async fn a_bridged_websocket_passes_the_autobahn_cases() {
    let kosoku = installed().await;
    let backend = BridgeBackend::start().await;
    let address = backend.address;
    let echoing = backend.echo();
    let proxy = Proxy::start(&format!(
        "
upstreams: {{ echo: {{ servers: [\"http://{address}\"] }} }}
routes:
  - name: echo
    match: {{ path: /echo }}
    websocket: {{ upstream: echo, max_message: 16MiB }}
"
    ));
    let reports = tempfile::tempdir().expect("a folder for reports");
    let mut command = Command::new(kosoku);
    command.arg(format!("ws://{}/echo", proxy.address("http"))).args(["-p", "4", "-o"]).arg(reports.path());
    for cases in NOT_OFFERED {
        command.args(["-x", cases]);
    }
    let output = run(&mut command).await;
    let said = said(&output);
    assert!(output.status.success(), "{said}");
    let results = results(&reports.path().join("index.json"));
    assert_eq!(results.len(), CASES, "{said}");
    let failed: Vec<_> = results.iter().filter(|(_, result)| !has_passed(result)).collect();
    assert!(failed.is_empty(), "{failed:#?}");
    echoing.abort();
}

/// kosoku in a virtual environment, made where there is none yet.
async fn installed() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("kosoku-{VERSION}"));
    let kosoku = folder.join("bin/kosoku");
    let works = Command::new(&kosoku).arg("--help").output().await.is_ok_and(|output| output.status.success());
    if !works {
        let made = run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder)).await;
        let hint = "scripts/install-test-tools installs Python's venv (Debian: python3-venv)";
        assert!(made.status.success(), "no virtual environment; {hint}: {}", said(&made));
        let wanted = format!("kosoku=={VERSION}");
        let pip = ["install", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:", &wanted];
        let got = run(Command::new(folder.join("bin/pip")).args(pip)).await;
        assert!(got.status.success(), "{wanted} can't be installed from PyPI: {}", said(&got));
    }
    kosoku
}

async fn run(command: &mut Command) -> Output {
    command.kill_on_drop(true).output().await.unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Each case and its result.
fn results(index: &Path) -> Vec<(String, Value)> {
    let text = std::fs::read_to_string(index).expect("a report");
    let report: Value = serde_json::from_str(&text).expect("a report of JSON");
    let agents = report.as_object().expect("agents");
    agents.values().flat_map(|cases| cases.as_object().expect("cases").clone()).collect()
}

fn has_passed(result: &Value) -> bool {
    let is_one_of = |key: &str, good: &[&str]| result[key].as_str().is_some_and(|value| good.contains(&value));
    // NON-STRICT is allowed by RFC 6455 as well: how early malformed UTF-8 is noticed.
    is_one_of("behavior", &["OK", "NON-STRICT", "INFORMATIONAL"])
        && is_one_of("behaviorClose", &["OK", "INFORMATIONAL"])
}
