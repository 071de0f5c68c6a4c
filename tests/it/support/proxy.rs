//! A running pushbridge with a configuration of the test's own, on free ports.

use serde_json::Value;
use std::collections::HashMap;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;

const CONFIG: &str = "pushbridge.yaml";
const DEADLINE: Duration = Duration::from_secs(60);

/// A `pushbridge run` process; killed when dropped.
pub struct Proxy {
    child: Child,
    addresses: HashMap<String, SocketAddr>,
    log: Arc<Mutex<Vec<Value>>>,
    folder: TempDir,
}

impl Proxy {
    /// Starts it with a configuration whose addresses have port 0, and waits until it is ready. `{dir}` in the text
    /// becomes the folder of the configuration. What is not given: a cleartext listener `http`, publish and admin, and
    /// a drain that waits for nobody to come.
    pub fn start(yaml: &str) -> Self {
        Self::start_in(TempDir::new().expect("a folder"), yaml)
    }

    /// As [`Proxy::start`], in a folder that has files already.
    pub fn start_in(folder: TempDir, yaml: &str) -> Self {
        std::fs::write(folder.path().join(CONFIG), completed(yaml)).expect("the configuration is written");
        Self::start_as_it_is(folder)
    }

    /// Starts it in a folder that has a whole `pushbridge.yaml`.
    pub fn start_as_it_is(folder: TempDir) -> Self {
        let mut child = spawn(&folder.path().join(CONFIG));
        let (lines, log) = follow(&mut child);
        let addresses = wait_until_ready(&lines, &log);
        Self { child, addresses, log, folder }
    }

    /// Runs it with a configuration that it can't start with: its exit code and what it said.
    pub fn refuse(folder: &Path, yaml: &str) -> (Option<i32>, String) {
        let config = folder.join(CONFIG);
        std::fs::write(&config, completed(yaml)).expect("the configuration is written");
        let output = spawn(&config).wait_with_output().expect("it ends");
        (output.status.code(), String::from_utf8(output.stderr).expect("text"))
    }

    /// Replaces the configuration at once, completed as at the start.
    pub fn rewrite(&self, yaml: &str) {
        let new = self.folder.path().join("new.yaml");
        std::fs::write(&new, completed(yaml)).expect("the new configuration is written");
        std::fs::rename(&new, self.folder.path().join(CONFIG)).expect("it is put in place");
    }

    /// The configuration's file.
    pub fn config(&self) -> PathBuf {
        self.folder.path().join(CONFIG)
    }

    /// The log lines so far with this message.
    pub fn logged(&self, message: &str) -> Vec<Value> {
        self.log.lock().expect("the log").iter().filter(|line| line["message"] == message).cloned().collect()
    }

    /// Sends a signal, such as `HUP`.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status();
        assert!(sent.expect("kill runs").success(), "the signal was not sent");
    }

    /// Memory in RAM, in KiB.
    pub fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("its status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its memory");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    /// Where a listener (or `publish`, `admin`) is.
    pub fn address(&self, listener: &str) -> SocketAddr {
        *self.addresses.get(listener).unwrap_or_else(|| panic!("no listener {listener}: {:?}", self.addresses))
    }

    /// A URL on a listener.
    pub fn url(&self, listener: &str, path: &str) -> String {
        let scheme = if listener.starts_with("https") { "https" } else { "http" };
        format!("{scheme}://{}{path}", self.address(listener))
    }

    /// The folder of the configuration.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether a log line so far has this message.
    pub fn has_logged(&self, message: &str) -> bool {
        self.log.lock().expect("the log").iter().any(|line| line["message"] == message)
    }

    /// The log so far, which can be looked at after the end.
    pub fn log(&self) -> Arc<Mutex<Vec<Value>>> {
        Arc::clone(&self.log)
    }

    /// Asks it to end.
    pub fn stop(&self) {
        let sent = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().expect("kill runs");
        assert!(sent.success(), "the signal was not sent");
    }

    /// Whether it has not ended.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("its status can be read").is_none()
    }

    /// Sends SIGTERM and waits for the end.
    pub fn terminate(self) -> ExitStatus {
        self.stop();
        self.wait()
    }

    /// Waits for the end.
    pub fn wait(mut self) -> ExitStatus {
        super::wait_for("pushbridge ends", || self.child.try_wait().expect("its status can be read"))
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A configuration with what every one needs.
pub fn completed(yaml: &str) -> String {
    let mut text = yaml.to_owned();
    if !yaml.contains("listeners:") {
        text.push_str("\nlisteners: [{ name: http, address: \"127.0.0.1:0\" }]\n");
    }
    if !yaml.contains("\npublish:") {
        text.push_str("\npublish: { address: \"127.0.0.1:0\" }\n");
    }
    if !yaml.contains("\nadmin:") {
        text.push_str("\nadmin: { address: \"127.0.0.1:0\" }\n");
    }
    if !yaml.contains("\ndrain:") {
        text.push_str("\ndrain: { settle: 0s, spread: 0s, margin: 5s }\n");
    }
    text
}

fn spawn(config: &Path) -> Child {
    Command::new(env!("CARGO_BIN_EXE_pushbridge"))
        .args(["run", "--config"])
        .arg(config)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the built binary can be started")
}

/// Reads the log to its end, so that the process never waits for a reader.
fn follow(child: &mut Child) -> (Receiver<Value>, Arc<Mutex<Vec<Value>>>) {
    let stderr = child.stderr.take().expect("its log is piped");
    let log = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&log);
    let (send, lines) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            let value = serde_json::from_str(&line).unwrap_or(Value::String(line));
            kept.lock().expect("the log").push(value.clone());
            let _ = send.send(value);
        }
    });
    (lines, log)
}

fn wait_until_ready(lines: &Receiver<Value>, log: &Mutex<Vec<Value>>) -> HashMap<String, SocketAddr> {
    let mut addresses = HashMap::new();
    loop {
        let line = match lines.recv_timeout(DEADLINE) {
            Ok(line) => line,
            Err(RecvTimeoutError::Timeout) => panic!("pushbridge is not ready; log: {:#?}", log.lock()),
            Err(RecvTimeoutError::Disconnected) => panic!("pushbridge ended; log: {:#?}", log.lock()),
        };
        match line["message"].as_str() {
            Some("listening") => {
                let listener = line["listener"].as_str().expect("a name").to_owned();
                let address = line["address"].as_str().expect("an address").parse().expect("an address");
                addresses.insert(listener, address);
            }
            Some("ready") => return addresses,
            _ => {}
        }
    }
}
