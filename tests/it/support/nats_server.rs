//! A `nats-server` with JetStream of the test's own.

use super::service::Service;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const DEADLINE: Duration = Duration::from_secs(20);

/// A running server; killed when dropped.
pub struct NatsServer {
    service: Service,
    address: SocketAddr,
    folder: TempDir,
    settings: String,
}

impl NatsServer {
    /// Starts one on a free port, with data in a folder of its own.
    pub fn start() -> Self {
        Self::start_with(TempDir::new().expect("a folder"), "")
    }

    /// As [`NatsServer::start`], with more settings; `{dir}` in them becomes the folder, which may have files already.
    pub fn start_with(folder: TempDir, settings: &str) -> Self {
        let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = free.local_addr().expect("an address");
        drop(free);
        let settings = settings.replace("{dir}", &folder.path().display().to_string());
        let mut server = Self { service: Service::default(), address, folder, settings };
        server.restart();
        server
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its folder.
    pub fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    /// Starts it (again), on the same port, with the data that is there.
    pub fn restart(&mut self) {
        let config = self.folder.path().join("nats.conf");
        let text = format!(
            "listen: \"{}\"\njetstream {{ store_dir: \"{}\" }}\n{}\n",
            self.address,
            self.data().display(),
            self.settings
        );
        std::fs::write(&config, text).expect("the configuration is written");
        let log = std::fs::File::create(self.folder.path().join("nats.log")).expect("a log");
        let child = Command::new("nats-server")
            .arg("-c")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("nats-server is installed (scripts/install-test-tools)");
        self.service = child.into();
        let began = Instant::now();
        while TcpStream::connect(self.address).is_err() {
            assert!(began.elapsed() < DEADLINE, "nats-server does not listen: {}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Ends it at once, as a power cut does.
    pub fn kill(&mut self) {
        self.service.kill();
    }

    /// Removes its data; it must not run.
    pub fn forget(&self) {
        assert!(!self.service.is_started(), "it runs");
        std::fs::remove_dir_all(self.data()).expect("the data is removed");
    }

    /// Stops it without ending it: connections stay, nothing is answered.
    pub fn pause(&self) {
        self.service.pause();
    }

    /// Lets it go on.
    pub fn resume(&self) {
        self.service.resume();
    }

    /// What it said.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("nats.log")).unwrap_or_default()
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }
}
