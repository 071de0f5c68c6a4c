//! What may be written under `bus` and `sessions`.

use crate::config::quantity::Span;
use crate::config::read::{Given, shape, words};

shape! {
    /// How instances share events: exactly one of its keys.
    #[schemars(extend("minProperties" = 1, "maxProperties" = 1))]
    Bus {
        /// They do not: each instance has its own channels. The default.
        memory: MemoryBus,
        /// Through Redis 6.2 or newer, or what speaks like it; a cluster has to be 7.0 or newer.
        redis: RedisBus,
        /// Through NATS with JetStream.
        nats: NatsBus,
        /// Through Kafka.
        kafka: KafkaBus,
    }
}

shape! {
    /// The embedded bus; it has no keys.
    MemoryBus {}
}

shape! {
    /// Redis: exactly one of url, sentinel and cluster.
    RedisBus {
        /// One server: redis://host:port, or rediss://host:port with TLS.
        url: String,
        /// The master that Sentinels name.
        sentinel: RedisSentinel,
        /// Some nodes of a Redis Cluster: redis://host:port, or rediss://host:port with TLS.
        cluster: Vec<Given<String>>,
        /// The ACL user. Default: Redis's `default`.
        username: String,
        /// A file with its password.
        password_file: String,
        /// An environment variable with its password.
        password_env: String,
        /// The number of the database; a cluster has only 0. Default: 0.
        db: u64,
        /// TLS, for rediss:// URLs.
        tls: BusTls,
        /// What every key begins with. Default: pushbridge.
        prefix: String,
    }
}

shape! {
    /// The master that Sentinels name.
    #[schemars(extend("required" = ["master", "urls"]))]
    RedisSentinel {
        /// The master's name.
        master: String,
        /// The Sentinels: redis://host:port. With rediss:// they and the master are spoken to with TLS.
        urls: Vec<Given<String>>,
    }
}

shape! {
    /// TLS towards a bus.
    BusTls {
        /// PEM certificates, one of which has signed the server's. Default: those that the system trusts.
        ca_file: String,
    }
}

shape! {
    /// NATS with JetStream: exactly one of url and urls.
    NatsBus {
        /// One server: nats://host:port, or tls://host:port.
        url: String,
        /// Some servers of a NATS cluster.
        urls: Vec<Given<String>>,
        /// A user's .creds file. Default: no login.
        credentials_file: String,
        /// TLS, for tls:// URLs.
        tls: BusTls,
        /// The stream's name; it is made if it is not there. Default: pushbridge.
        stream: String,
        /// What every subject begins with. Default: pushbridge.
        prefix: String,
    }
}

shape! {
    /// Kafka.
    #[schemars(extend("required" = ["brokers"]))]
    KafkaBus {
        /// Some of the brokers: host:port.
        brokers: Vec<Given<String>>,
        /// The topic; it has to be there. Default: pushbridge.
        topic: String,
        /// TLS; without it the connection is cleartext.
        tls: BusTls,
        /// A login.
        sasl: KafkaSasl,
    }
}

shape! {
    /// A login at Kafka.
    #[schemars(extend("required" = ["username"]))]
    KafkaSasl {
        /// How the password is proven. Default: scram-sha-512.
        mechanism: SaslMechanism,
        /// The user.
        username: String,
        /// A file with its password.
        password_file: String,
        /// An environment variable with its password.
        password_env: String,
    }
}

words! {
    /// How a password is proven.
    SaslMechanism {
        /// PLAIN: only with TLS.
        Plain = "plain",
        /// SCRAM-SHA-256.
        ScramSha256 = "scram-sha-256",
        /// SCRAM-SHA-512.
        ScramSha512 = "scram-sha-512",
    }
}

shape! {
    /// What sessions that are lost may expect.
    Sessions {
        /// How long a WebSocket session waits for its client, who comes back with its token. Default: 2m.
        ttl: Span,
    }
}
