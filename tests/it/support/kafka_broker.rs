//! A real Kafka of the test's own: one broker in KRaft mode, from the jars that `make test-kafka` installs.
//!
//! Its listeners, all on free ports of this machine: `OPEN`; `RELAYED`, which tells its clients to come by another port;
//! and `SECURED`, with TLS and a login.

use super::service::Service;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The topics that are there.
pub const TOPICS: [&str; 2] = ["pushbridge", "other"];
/// Who may log in, by each mechanism.
pub const USER: &str = "bridge";
/// With this password.
pub const PASSWORD: &str = "correct horse";

const PARTITIONS: i32 = 3;
const JARS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/test-tools/kafka");
const CLUSTER: &str = "cHVzaGJyaWRnZS10ZXN0cw";
/// Little memory, and no optimizing: it lives for seconds.
const JAVA: [&str; 4] =
    ["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"];
/// How long it may take to start.
const PATIENCE: Duration = Duration::from_secs(90);

/// A running broker with a folder of its own; gone with the value.
pub struct KafkaBroker {
    service: Service,
    folder: TempDir,
    ports: Ports,
    certificate: String,
}

/// Where it listens.
#[derive(Debug, Clone, Copy)]
struct Ports {
    open: u16,
    relayed: u16,
    secured: u16,
    controller: u16,
    /// Where clients of `RELAYED` are told to come.
    relay: u16,
}

impl KafkaBroker {
    /// Starts one with the topics.
    pub fn start() -> Self {
        let mut broker = Self::prepare();
        broker.restart_empty();
        broker
    }

    /// Chooses its ports only; [`KafkaBroker::start_behind`] starts it.
    pub fn prepare() -> Self {
        let relayed = free_port();
        let ports = Ports { open: free_port(), relayed, secured: free_port(), controller: free_port(), relay: relayed };
        let folder = TempDir::new().expect("a folder");
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("a certificate");
        let both = format!("{}{}", made.signing_key.serialize_pem(), made.cert.pem());
        std::fs::write(folder.path().join("broker.pem"), both).expect("written");
        Self { service: Service::default(), folder, ports, certificate: made.cert.pem() }
    }

    /// Starts it; a relay listens on this port, and leads to [`KafkaBroker::relayed_port`].
    pub fn start_behind(&mut self, relay: u16) {
        self.ports.relay = relay;
        self.restart_empty();
    }

    /// Where it listens: `host:port`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.ports.open)
    }

    /// Where a relay leads to.
    pub fn relayed_port(&self) -> u16 {
        self.ports.relayed
    }

    /// Where it listens with TLS and lets in who logs in.
    pub fn secured_address(&self) -> String {
        format!("127.0.0.1:{}", self.ports.secured)
    }

    /// The PEM text of the certificate that it shows there.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// Ends it at once, as a crash does.
    pub fn kill(&mut self) {
        self.service.kill();
    }

    /// Starts it again on the same ports, with its data.
    pub fn restart(&mut self) {
        self.kill();
        let log = std::fs::File::create(self.log_path()).expect("a log");
        let child = java("kafka.Kafka").arg(self.settings_path()).stderr(log).spawn().expect("java runs");
        self.service = child.into();
        let began = Instant::now();
        while let Err(error) = make_topics(&self.address()) {
            assert!(!self.service.has_ended(), "Kafka ended at its start: {}", self.log());
            assert!(began.elapsed() < PATIENCE, "Kafka is not there: {error}; {}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Starts it on the same ports, with nothing but empty topics.
    pub fn restart_empty(&mut self) {
        self.kill();
        let data = self.folder.path().join("data");
        if data.exists() {
            std::fs::remove_dir_all(&data).expect("its data is removed");
        }
        std::fs::write(self.settings_path(), self.settings(&data)).expect("the settings are written");
        let mut format = java("kafka.tools.StorageTool");
        format.args(["format", "--cluster-id", CLUSTER, "--config"]).arg(self.settings_path());
        for mechanism in ["SCRAM-SHA-256", "SCRAM-SHA-512"] {
            format.args(["--add-scram", &format!("{mechanism}=[name={USER},password={PASSWORD}]")]);
        }
        let formatted = format.output().expect("java runs");
        assert!(formatted.status.success(), "no storage: {}", String::from_utf8_lossy(&formatted.stderr));
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

    /// What it said.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    fn settings_path(&self) -> PathBuf {
        self.folder.path().join("server.properties")
    }

    fn log_path(&self) -> PathBuf {
        self.folder.path().join("kafka.log")
    }

    fn settings(&self, data: &Path) -> String {
        let Ports { open, relayed, secured, controller, relay } = self.ports;
        let modules = "org.apache.kafka.common.security";
        format!(
            "
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
controller.listener.names=CONTROLLER
inter.broker.listener.name=OPEN
listeners=OPEN://127.0.0.1:{open},RELAYED://127.0.0.1:{relayed},SECURED://127.0.0.1:{secured},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=OPEN://127.0.0.1:{open},RELAYED://127.0.0.1:{relay},SECURED://127.0.0.1:{secured}
listener.security.protocol.map=OPEN:PLAINTEXT,RELAYED:PLAINTEXT,SECURED:SASL_SSL,CONTROLLER:PLAINTEXT
listener.name.secured.ssl.keystore.type=PEM
listener.name.secured.ssl.keystore.location={folder}/broker.pem
listener.name.secured.sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512
listener.name.secured.plain.sasl.jaas.config={modules}.plain.PlainLoginModule required user_{USER}=\"{PASSWORD}\";
listener.name.secured.scram-sha-256.sasl.jaas.config={modules}.scram.ScramLoginModule required;
listener.name.secured.scram-sha-512.sasl.jaas.config={modules}.scram.ScramLoginModule required;
log.dirs={data}
auto.create.topics.enable=false
",
            folder = self.folder.path().display(),
            data = data.display(),
        )
    }
}

/// A program of Kafka's.
fn java(class: &str) -> Command {
    assert!(Path::new(JARS).join("pom.xml.installed").exists(), "{JARS} is missing; `make test-kafka` installs it");
    let mut java = Command::new("java");
    java.args(JAVA).args(["-cp", &format!("{JARS}/*"), class]).stdin(Stdio::null()).stdout(Stdio::null());
    java
}

/// Makes the topics, unless they are there; so it shows whether the broker is.
fn make_topics(address: &str) -> Result<(), String> {
    let address = address.to_owned();
    // A test may be inside a runtime already.
    let made = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let made = runtime.block_on(async { tokio::time::timeout(PATIENCE / 3, make_each(address)).await });
        made.unwrap_or_else(|_| Err("no answer".to_owned()))
    });
    made.join().expect("made or not")
}

async fn make_each(address: String) -> Result<(), String> {
    use rskafka::BackoffConfig;
    use rskafka::client::ClientBuilder;
    use rskafka::client::error::{Error, ProtocolError};
    let backoff = BackoffConfig { deadline: Some(Duration::from_millis(50)), ..BackoffConfig::default() };
    let client = ClientBuilder::new(vec![address]).backoff_config(backoff).build().await;
    let client = client.map_err(|error| error.to_string())?;
    let controller = client.controller_client().map_err(|error| error.to_string())?;
    for topic in TOPICS {
        match controller.create_topic(topic, PARTITIONS, 1, 5_000).await {
            Ok(_) | Err(Error::ServerError { protocol_error: ProtocolError::TopicAlreadyExists, .. }) => {}
            Err(error) => return Err(error.to_string()),
        }
    }
    Ok(())
}

/// A port that nobody listens on, and that no connection is given as its own.
fn free_port() -> u16 {
    loop {
        let port = 15_000 + (RandomState::new().hash_one(0) % 15_000) as u16;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
