//! What may be written in a configuration file: its keys, their types and their meaning.
//!
//! The doc comments are the descriptions of the JSON Schema (`pushbridge schema`). Nothing here is checked beyond its
//! type: `resolve` does that, and fills in [`defaults`](super::defaults).

mod bus;
mod publish;
mod routes;

use crate::config::quantity::{Size, Span};
use crate::config::read::{Given, Named, WordOr, shape, words};

pub use bus::*;
pub use publish::*;
pub use routes::*;

shape! {
    /// The configuration of pushbridge. Durations: 500ms, 30s, 5m, 1h. Sizes: 64KiB, 1MiB. File paths start at this
    /// file's folder. Secrets come from files or environment variables only.
    #[schemars(title = "pushbridge configuration", extend("required" = ["listeners", "routes"]))]
    File {
        /// Where clients connect.
        listeners: Vec<Given<Listener>>,
        /// Where backends POST events; private by default.
        publish: Publish,
        /// Metrics, probes and the running configuration; private by default.
        admin: Admin,
        /// Plain request/response backends, by name.
        upstreams: Named<Upstream>,
        /// What happens to a client's request: the first route that matches has it.
        routes: Vec<Given<Route>>,
        /// What channels keep and how they treat slow clients: the first match wins.
        channels: Vec<Given<Channel>>,
        /// How instances share events: exactly one of its keys.
        bus: Bus,
        /// What sessions that are lost may expect.
        sessions: Sessions,
        /// Bounds on what clients may use.
        limits: Limits,
        /// How the process ends without dropping anybody.
        drain: Drain,
        /// Logs.
        telemetry: Telemetry,
        /// The process itself.
        runtime: Runtime,
    }
}

shape! {
    /// A socket that clients connect to.
    #[schemars(extend("required" = ["name", "address"]))]
    Listener {
        /// Its name in logs and metrics.
        name: String,
        /// IP address and port, such as `0.0.0.0:8443` or `[::]:8443`; port 0 takes a free one.
        address: String,
        /// HTTP versions in the order they are offered by ALPN. Default: [h2, http/1.1].
        protocols: Vec<Given<Protocol>>,
        /// Networks whose X-Forwarded-* and Forwarded fields are believed. Default: none.
        trusted_proxies: Vec<Given<String>>,
        /// TLS; without it the listener speaks cleartext.
        tls: Tls,
    }
}

words! {
    /// An HTTP version.
    Protocol {
        /// HTTP/2; in cleartext with prior knowledge.
        H2 = "h2",
        /// HTTP/1.1.
        Http1 = "http/1.1",
    }
}

shape! {
    /// TLS of a listener.
    #[schemars(extend("required" = ["certificates"]))]
    Tls {
        /// The oldest TLS version. Default: "1.2".
        min_version: TlsVersion,
        /// Certificates, chosen by the name that the client asks for (SNI); the first is the default.
        certificates: Vec<Given<Certificate>>,
        /// PEM certificates; a client must have one that is signed by one of them (mutual TLS). Default: none is asked for.
        client_ca_file: String,
    }
}

words! {
    /// A TLS version.
    TlsVersion {
        /// TLS 1.2.
        Tls12 = "1.2",
        /// TLS 1.3.
        Tls13 = "1.3",
    }
}

shape! {
    /// A certificate chain and its key.
    #[schemars(extend("required" = ["cert_file", "key_file"]))]
    Certificate {
        /// PEM, the leaf first.
        cert_file: String,
        /// PEM: PKCS#8, SEC1 or PKCS#1.
        key_file: String,
    }
}

shape! {
    /// The admin listener.
    Admin {
        /// IP address and port. Default: 127.0.0.1:9901.
        address: String,
    }
}

shape! {
    /// A backend: one or more servers that answer alike.
    #[schemars(extend("required" = ["servers"]))]
    Upstream {
        /// Where it listens: http://host:port.
        servers: Vec<Given<String>>,
        /// Which server gets the next request. Default: least_requests.
        balance: Balance,
        /// What it speaks. Default: http/1.1.
        protocol: UpstreamProtocol,
        /// How long it may take.
        timeouts: Timeouts,
        /// What is tried again.
        retries: Retries,
        /// How a backend that speaks GRIP knows who asks. Default: requests are not signed.
        grip: GripUpstream,
    }
}

words! {
    /// How the next server is picked.
    Balance {
        /// One after the other.
        RoundRobin = "round_robin",
        /// The one with the fewest requests under way.
        LeastRequests = "least_requests",
    }
}

words! {
    /// What an upstream speaks.
    UpstreamProtocol {
        /// HTTP/1.1.
        Http1 = "http/1.1",
        /// HTTP/2 with prior knowledge.
        H2 = "h2",
    }
}

shape! {
    /// How long an upstream may take.
    Timeouts {
        /// Until a connection stands. Default: 2s.
        connect: Span,
        /// From the end of the request to the head of the response. Default: 30s.
        response: Span,
    }
}

shape! {
    /// What a backend that speaks GRIP is told.
    GripUpstream {
        /// The `iss` of the signature (Grip-Sig). Default: pushbridge.
        issuer: String,
        /// A file with the key: a secret, base64: and a secret, or a PEM private key (P-256 or RSA).
        key_file: String,
        /// An environment variable with the key.
        key_env: String,
        /// How long ids of published items are remembered; the longest of all upstreams counts. Default: 60s.
        id_cache: Span,
    }
}

shape! {
    /// Requests that surely were not processed are tried again.
    Retries {
        /// How often a request is tried again. Default: 2.
        attempts: u64,
    }
}

shape! {
    /// What some channels keep and how they treat slow clients.
    #[schemars(extend("required" = ["match"]))]
    Channel {
        /// A pattern: * is any run without a dot, ** any run.
        r#match: String,
        /// What is kept for clients that come back: the first bound that is reached counts.
        history: History,
        /// What happens to a client that falls off the history's end. Default: gap.
        slow_consumer: WordOr<SlowConsumer, Conflate>,
        /// The largest message that may be published, in bytes of its data. Default: 64KiB.
        max_message: Size,
        /// What is known of who is there, over all instances. Default: counts.
        presence: WordOr<Presence, Announced>,
    }
}

words! {
    /// What is known of who is on a channel.
    Presence {
        /// How many sessions there are.
        Counts = "counts",
        /// Which users have sessions, too; each change is written to the bus.
        Members = "members",
    }
}

shape! {
    /// As members; and a user's first session is published on the channel (event presence.join), as is that the user has
    /// none any more (presence.leave).
    #[schemars(extend("required" = ["leave_after"]))]
    Announced {
        /// How long a user may have no session before that is a leave: longer than a reconnect.
        leave_after: Span,
    }
}

shape! {
    /// What a channel keeps.
    History {
        /// The most messages. Default: 1000.
        messages: u64,
        /// The longest. Default: 5m.
        max_age: Span,
        /// The most bytes. Default: 1MiB.
        max_bytes: Size,
    }
}

words! {
    /// What happens to a slow client.
    SlowConsumer {
        /// It is told of a gap and goes on.
        Gap = "gap",
        /// It is closed.
        Close = "close",
    }
}

shape! {
    /// A slow client gets the newest message of each key.
    #[schemars(extend("required" = ["conflate_by"]))]
    Conflate {
        /// The key: `event` is the event's name, /a/b a JSON pointer into the data.
        conflate_by: String,
    }
}

shape! {
    /// Bounds on what clients may use.
    Limits {
        /// Open connections of all listeners together. Default: 100000.
        connections: u64,
        /// Open connections of one client address. Default: 1000.
        connections_per_ip: u64,
        /// Concurrent streams of one HTTP/2 connection. Default: 1000.
        streams_per_connection: u64,
        /// From the accept, or from the first byte of a later request, to a whole request head. Default: 10s.
        request_header_timeout: Span,
        /// How long a connection is kept that has nothing to do. Default: 75s.
        idle_timeout: Span,
        /// The size of a request head. Default: 32KiB.
        request_header_bytes: Size,
        /// From the accept to the end of the TLS handshake. Default: 10s.
        tls_handshake_timeout: Span,
        /// Channels of one session. Default: 100.
        subscriptions_per_session: u64,
        /// Messages of one WebSocket client of a push route, in a second on average. Default: 100.
        client_messages_per_second: u64,
        /// Channels of this instance. Default: 100000.
        channels: u64,
        /// History of all channels together. Default: 256MiB.
        history_bytes: Size,
    }
}

shape! {
    /// How the process ends without dropping anybody. A pod's terminationGracePeriodSeconds is the sum of the three.
    Drain {
        /// How long new clients are still served, while load balancers learn of the end. Default: 10s.
        settle: Span,
        /// Over how long sessions end, each at its own moment. Default: 60s.
        spread: Span,
        /// How long what did not end is waited for. Default: 15s.
        margin: Span,
        /// When /readyz says no. Default: at_start.
        fail_readiness: FailReadiness,
    }
}

words! {
    /// When /readyz says no.
    FailReadiness {
        /// When the drain begins: for load balancers that ask.
        AtStart = "at_start",
        /// When sessions begin to end: where endpoints are withdrawn by others, as Kubernetes does.
        AfterSettle = "after_settle",
    }
}

shape! {
    /// What operators see.
    Telemetry {
        /// Log lines on stderr.
        log: Log,
        /// Whether each request leaves a line. Default: true.
        access_log: bool,
    }
}

shape! {
    /// Log lines.
    Log {
        /// How they are written. Default: json.
        format: LogFormat,
        /// The least level, such as info, or a filter such as info,pushbridge::session=debug. Default: info.
        level: String,
    }
}

words! {
    /// How log lines are written.
    LogFormat {
        /// One JSON object a line.
        Json = "json",
        /// For people.
        Text = "text",
    }
}

shape! {
    /// The process itself.
    Runtime {
        /// Worker threads. Default: one for each core that the process may use.
        workers: u64,
    }
}

words! {
    /// Nothing.
    Nothing {
        /// Nothing.
        Nothing = "none",
    }
}
