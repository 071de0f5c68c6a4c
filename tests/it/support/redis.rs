//! A Redis server of a test's own, which can be stopped, paused and killed.

use super::service::Service;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long a server may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// A running redis-server with a folder of its own; gone with the value.
pub struct Redis {
    port: u16,
    options: Vec<String>,
    folder: tempfile::TempDir,
    service: Service,
}

impl Redis {
    /// A server without any option.
    pub fn start() -> Self {
        Self::with(&[])
    }

    /// A server with options, such as `["--appendonly", "yes"]`.
    pub fn with(options: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let options = options.iter().map(|option| (*option).to_owned()).collect();
        let mut redis = Self { port: free_port(), options, folder, service: Service::default() };
        while !redis.launch() {
            // Another process took the port meanwhile.
            redis.port = free_port();
        }
        redis
    }

    /// A Sentinel with this configuration.
    pub fn sentinel(config: &Path) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let options = vec![config.display().to_string(), "--sentinel".to_owned()];
        let mut sentinel = Self { port: free_port(), options, folder, service: Service::default() };
        assert!(sentinel.launch(), "redis-sentinel did not start");
        sentinel
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its folder.
    pub fn folder(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    /// Kills it, as a crash does.
    pub fn kill(&mut self) {
        self.service.kill();
    }

    /// Starts it again on the same port, with what is in its folder.
    pub fn restart(&mut self) {
        self.kill();
        assert!(self.launch(), "redis-server did not come back");
    }

    /// Starts it again without its data.
    pub fn restart_empty(&mut self) {
        self.kill();
        for entry in std::fs::read_dir(self.folder.path()).expect("a folder").flatten() {
            let path = entry.path();
            let _ = if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
        }
        self.restart();
    }

    /// Stops it without ending it: connections stay, nothing is answered.
    pub fn pause(&self) {
        self.service.pause();
    }

    /// Lets it go on.
    pub fn resume(&self) {
        self.service.resume();
    }

    /// Runs a command by redis-cli; its answer.
    pub fn cli(&self, arguments: &[&str]) -> String {
        let mut cli = Command::new("redis-cli");
        let output = cli.args(["-p", &self.port.to_string()]).args(arguments).output().expect("redis-cli runs");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    fn launch(&mut self) -> bool {
        let mut command = Command::new("redis-server");
        // A configuration file comes first.
        let files = self.options.iter().take_while(|option| !option.starts_with("--")).count();
        command.args(&self.options[..files]);
        command.args(["--port", &self.port.to_string(), "--bind", "127.0.0.1", "--dir"]).arg(self.folder.path());
        if files == 0 {
            command.args(["--save", ""]);
        }
        command.args(&self.options[files..]).stdout(Stdio::null()).stderr(Stdio::null());
        let mut service = Service::from(command.spawn().expect("redis-server runs (scripts/install-test-tools)"));
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if service.has_ended() {
                return false;
            }
            if TcpStream::connect(("127.0.0.1", self.port)).is_ok() {
                self.service = service;
                return true;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        false
    }
}

/// A port that nobody listens on now.
pub fn free_port() -> u16 {
    // A cluster's own port is 10000 above.
    loop {
        let port = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a port").port();
        if port < 55_000 {
            return port;
        }
    }
}
