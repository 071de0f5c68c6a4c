//! Connections to Redis: one server, the master that Sentinels name, or a cluster.

use crate::bus::settings::{BusTls, HostPort, RedisServers, RedisSettings};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ErrorKind, IntoConnectionInfo, Pipeline, ProtocolVersion,
    PushInfo, RedisConnectionInfo, RedisError, RedisFuture, RedisResult, TlsCertificates, Value,
};
use std::sync::Arc;
use std::time::Duration;

/// How long a connection may take to stand.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long an answer may take.
pub const RESPONSE_TIMEOUT: Duration = Duration::from_secs(3);

/// Where pushes go. It must not block.
pub type OnPush = Arc<dyn Fn(PushInfo) + Send + Sync>;

/// A connection that many use at once.
#[derive(Clone)]
pub enum Connection {
    /// To one server.
    One(MultiplexedConnection),
    /// To a cluster.
    Cluster(ClusterConnection),
}

/// What a bus works with while it is connected.
#[derive(Clone)]
pub struct Link {
    /// For commands.
    pub commands: Connection,
    /// For subscriptions: a flood of messages does not hold commands up.
    pub subscriptions: Connection,
    /// Which life of the data this is, as the scripts know it: another one after each start of a server, since what was
    /// acknowledged last may be lost. In a cluster the scripts ask the node they run on.
    pub life: Arc<str>,
}

impl Link {
    /// Connects.
    ///
    /// # Errors
    /// When nothing answers, or refuses us.
    pub async fn open(settings: &RedisSettings, on_push: OnPush) -> RedisResult<Self> {
        match &settings.servers {
            RedisServers::One(server) => one(settings, server, on_push).await,
            RedisServers::Sentinel { master, sentinels } => {
                let server = ask_sentinels(settings, master, sentinels).await?;
                let link = one(settings, &server, on_push).await?;
                let mut commands = link.commands.clone();
                let role: Vec<Value> = redis::cmd("ROLE").query_async(&mut commands).await?;
                let is_master = matches!(role.first(), Some(Value::BulkString(role)) if role == b"master");
                if !is_master {
                    return Err(failed("the Sentinels name a server that is no master (yet)"));
                }
                Ok(link)
            }
            RedisServers::Cluster(nodes) => cluster(settings, nodes, on_push).await,
        }
    }

    /// The command that sends a live message.
    pub fn publish_command(&self) -> &'static str {
        match self.commands {
            Connection::One(_) => "PUBLISH",
            Connection::Cluster(_) => "SPUBLISH",
        }
    }

    /// Whether the library may send a command again by itself.
    pub fn may_repeat(&self) -> bool {
        matches!(self.commands, Connection::Cluster(_))
    }

    /// Subscribes to live messages.
    ///
    /// # Errors
    /// When the server can't be asked.
    pub async fn subscribe(&self, live: &[String]) -> RedisResult<()> {
        match self.subscriptions.clone() {
            Connection::One(mut connection) => connection.subscribe(live).await,
            Connection::Cluster(mut connection) => {
                for live in live {
                    connection.ssubscribe(live).await?;
                }
                Ok(())
            }
        }
    }

    /// Unsubscribes from live messages.
    ///
    /// # Errors
    /// When the server can't be asked.
    pub async fn unsubscribe(&self, live: &[String]) -> RedisResult<()> {
        match self.subscriptions.clone() {
            Connection::One(mut connection) => connection.unsubscribe(live).await,
            Connection::Cluster(mut connection) => {
                for live in live {
                    connection.sunsubscribe(live).await?;
                }
                Ok(())
            }
        }
    }

    /// Looks whether both connections live.
    ///
    /// # Errors
    /// When one does not.
    pub async fn ping(&self) -> RedisResult<()> {
        let (mut commands, mut subscriptions) = (self.commands.clone(), self.subscriptions.clone());
        redis::cmd("PING").exec_async(&mut commands).await?;
        redis::cmd("PING").exec_async(&mut subscriptions).await
    }
}

async fn one(settings: &RedisSettings, server: &HostPort, on_push: OnPush) -> RedisResult<Link> {
    let client = client(settings, server)?;
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECT_TIMEOUT))
        .set_response_timeout(Some(RESPONSE_TIMEOUT));
    let mut commands = client.get_multiplexed_async_connection_with_config(&config).await?;
    // On this connection, so that it is the server's that gets the commands.
    let info: String = redis::cmd("INFO").arg("server").query_async(&mut commands).await?;
    let life = info.lines().find_map(|line| line.strip_prefix("run_id:")).map(str::trim);
    let life = life.ok_or_else(|| failed("its INFO tells no run_id, so that lost data could not be noticed"))?.into();
    let config = config.set_push_sender(move |push| {
        on_push(push);
        Ok::<(), ()>(())
    });
    let subscriptions = client.get_multiplexed_async_connection_with_config(&config).await?;
    Ok(Link { commands: Connection::One(commands), subscriptions: Connection::One(subscriptions), life })
}

async fn cluster(settings: &RedisSettings, nodes: &[HostPort], on_push: OnPush) -> RedisResult<Link> {
    let addresses = nodes.iter().map(|node| address(settings, node)).collect::<RedisResult<Vec<_>>>()?;
    let mut builder = ClusterClient::builder(addresses)
        .use_protocol(ProtocolVersion::RESP3)
        .connection_timeout(CONNECT_TIMEOUT)
        .response_timeout(RESPONSE_TIMEOUT)
        // Redirections count as well. A publish that is sent again is known by its attempt.
        .retries(3)
        .push_sender(move |push| {
            on_push(push);
            Ok::<(), ()>(())
        });
    if let Some(username) = &settings.username {
        builder = builder.username(username);
    }
    if let Some(password) = &settings.password {
        builder = builder.password(String::from_utf8_lossy(password.expose()));
    }
    if let Some(tls) = &settings.tls {
        builder = builder.tls(redis::TlsMode::Secure).certs(certificates(tls));
    }
    let connection = builder.build()?.get_async_connection().await?;
    Ok(Link {
        commands: Connection::Cluster(connection.clone()),
        subscriptions: Connection::Cluster(connection),
        life: "node".into(),
    })
}

/// The address of the master, from the first Sentinel that knows it.
async fn ask_sentinels(settings: &RedisSettings, master: &str, sentinels: &[HostPort]) -> RedisResult<HostPort> {
    let mut error = failed("no Sentinel is configured");
    for sentinel in sentinels {
        let asked = async {
            let info = address(settings, sentinel)?.into_connection_info()?;
            let config = AsyncConnectionConfig::new()
                .set_connection_timeout(Some(CONNECT_TIMEOUT))
                .set_response_timeout(Some(RESPONSE_TIMEOUT));
            let mut connection = open(settings, info)?.get_multiplexed_async_connection_with_config(&config).await?;
            let mut ask = redis::cmd("SENTINEL");
            ask.arg("get-master-addr-by-name").arg(master);
            let named: Option<(String, u16)> = ask.query_async(&mut connection).await?;
            named.ok_or_else(|| failed("a Sentinel does not know the master's name (bus.redis.sentinel.master)"))
        };
        match asked.await {
            Ok((host, port)) => return Ok(HostPort { host, port }),
            Err(other) => error = other,
        }
    }
    Err(error)
}

fn client(settings: &RedisSettings, server: &HostPort) -> RedisResult<Client> {
    let mut login = RedisConnectionInfo::default().set_db(settings.db).set_protocol(ProtocolVersion::RESP3);
    if let Some(username) = &settings.username {
        login = login.set_username(username);
    }
    if let Some(password) = &settings.password {
        login = login.set_password(String::from_utf8_lossy(password.expose()));
    }
    open(settings, address(settings, server)?.into_connection_info()?.set_redis_settings(login))
}

fn open(settings: &RedisSettings, info: redis::ConnectionInfo) -> RedisResult<Client> {
    match &settings.tls {
        Some(tls) => Client::build_with_tls(info, certificates(tls)),
        None => Client::open(info),
    }
}

fn address(settings: &RedisSettings, server: &HostPort) -> RedisResult<ConnectionAddr> {
    let (host, port) = (server.host.clone(), server.port);
    Ok(match settings.tls {
        Some(_) => ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None },
        None => ConnectionAddr::Tcp(host, port),
    })
}

fn certificates(tls: &BusTls) -> TlsCertificates {
    let pem = |der: &[u8]| {
        let body = STANDARD.encode(der);
        format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n")
    };
    let pems: String = tls.anchors.iter().map(|anchor| pem(anchor)).collect();
    TlsCertificates { client_tls: None, root_cert: (!pems.is_empty()).then(|| pems.into_bytes()) }
}

fn failed(text: &'static str) -> RedisError {
    RedisError::from((ErrorKind::Client, text))
}

impl ConnectionLike for Connection {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        match self {
            Self::One(connection) => connection.req_packed_command(command),
            Self::Cluster(connection) => connection.req_packed_command(command),
        }
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        match self {
            Self::One(connection) => connection.req_packed_commands(pipeline, offset, count),
            Self::Cluster(connection) => connection.req_packed_commands(pipeline, offset, count),
        }
    }

    fn get_db(&self) -> i64 {
        match self {
            Self::One(connection) => connection.get_db(),
            Self::Cluster(connection) => connection.get_db(),
        }
    }
}
