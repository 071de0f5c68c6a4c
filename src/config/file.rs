//! What may be written in a configuration file: its keys, their types and their meaning.
//!
//! The doc comments are the descriptions of the JSON Schema (`pushbridge schema`). Nothing here is checked beyond its
//! type: [`super::resolve`] does that, and fills in [`super::defaults`].

use crate::config::quantity::{Size, Span};
use crate::config::read::{Given, Named, WordOr, shape, words};

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
        /// Bounds on what clients may use.
        limits: Limits,
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
        /// IP address and port, such as 0.0.0.0:8443 or [::]:8443; port 0 takes a free one.
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
    /// The publish listener.
    Publish {
        /// IP address and port. Default: 127.0.0.1:5561.
        address: String,
        /// The largest request body, and the largest NDJSON line. Default: 1MiB.
        max_body: Size,
        /// How long an event's id is remembered, so that the same one is not published again. Default: 5m.
        idempotency_window: Span,
        /// Who may publish: any one entry that accepts is enough. Default: everybody, which is allowed on loopback only.
        auth: Vec<Given<PublishAuth>>,
        /// Webhooks of others that become events.
        webhooks: Vec<Given<Webhook>>,
    }
}

shape! {
    /// One way to prove that one may publish: exactly one of its keys.
    #[schemars(extend("minProperties" = 1, "maxProperties" = 1))]
    PublishAuth {
        /// `Authorization: Bearer <token>`.
        bearer: Bearer,
    }
}

shape! {
    /// A bearer token: from a file, or from the environment.
    #[schemars(extend("minProperties" = 1, "maxProperties" = 1))]
    Bearer {
        /// A file with the token; a final line break is left out.
        token_file: String,
        /// An environment variable with the token.
        token_env: String,
    }
}

shape! {
    /// A JSON webhook that becomes an event.
    #[schemars(extend("required" = ["path", "verify", "channel"]))]
    Webhook {
        /// Its exact path on the publish listener.
        path: String,
        /// How a delivery proves where it is from; `none` on loopback only.
        verify: WordOr<Nothing, Verify>,
        /// The channel, with JSON pointers into the body in braces: "customers.{/data/customer_id}".
        channel: String,
        /// The event's name, with JSON pointers in braces. Default: none.
        event: String,
        /// The event's data, with JSON pointers in braces. Default: the whole body.
        data: String,
    }
}

words! {
    /// Nothing.
    Nothing {
        /// Nothing.
        Nothing = "none",
    }
}

shape! {
    /// How a webhook is verified: exactly one of its keys.
    #[schemars(extend("minProperties" = 1, "maxProperties" = 1))]
    Verify {
        /// The Standard Webhooks signature.
        standard_webhooks: StandardWebhooks,
        /// A keyed hash of the body in a field.
        hmac: Hmac,
        /// GitHub's X-Hub-Signature-256.
        github: Github,
    }
}

shape! {
    /// Standard Webhooks: webhook-id, webhook-timestamp and webhook-signature.
    StandardWebhooks {
        /// A file with the secret (whsec_…); a final line break is left out.
        secret_file: String,
        /// An environment variable with the secret (whsec_…).
        secret_env: String,
        /// How far the time stamp may be off. Default: 5m.
        tolerance: Span,
    }
}

shape! {
    /// A generic keyed hash.
    #[schemars(extend("required" = ["header"]))]
    Hmac {
        /// A file with the key; a final line break is left out.
        secret_file: String,
        /// An environment variable with the key.
        secret_env: String,
        /// The field with the signature.
        header: String,
        /// What stands before the signature in the field, such as "sha256=". Default: nothing.
        prefix: String,
        /// The hash. Default: sha256.
        algorithm: Algorithm,
        /// How the signature is written. Default: hex.
        encoding: Encoding,
        /// A field with the Unix time in seconds; then `<time>.<body>` is what is signed. Default: none.
        timestamp_header: String,
        /// How far the time stamp may be off. Default: 5m.
        tolerance: Span,
    }
}

words! {
    /// A hash.
    Algorithm {
        /// SHA-256.
        Sha256 = "sha256",
        /// SHA-512.
        Sha512 = "sha512",
    }
}

words! {
    /// How a signature is written.
    Encoding {
        /// Hexadecimal.
        Hex = "hex",
        /// Base64.
        Base64 = "base64",
    }
}

shape! {
    /// GitHub's webhook signature.
    Github {
        /// A file with the secret; a final line break is left out.
        secret_file: String,
        /// An environment variable with the secret.
        secret_env: String,
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
    /// Requests that surely were not processed are tried again.
    Retries {
        /// How often a request is tried again. Default: 2.
        attempts: u64,
    }
}

shape! {
    /// A route: what it matches, and exactly one of push, websocket and proxy.
    #[schemars(extend(
        "required" = ["name", "match"],
        "oneOf" = [{ "required": ["push"] }, { "required": ["websocket"] }, { "required": ["proxy"] }],
    ))]
    Route {
        /// Its name in logs and metrics.
        name: String,
        /// Which requests it answers: those that fulfil every part.
        r#match: Match,
        /// Holds the client on channels, by SSE, WebSocket or long poll.
        push: Push,
        /// Makes each WebSocket message a POST to a backend.
        websocket: WebSocket,
        /// Passes the request on to a backend.
        proxy: Proxy,
    }
}

shape! {
    /// Which requests a route answers.
    Match {
        /// An exact host, or *.example.com for one label more; the port does not count. Default: any.
        host: String,
        /// A path: {x} is one segment that is not empty, a last /** the rest, also empty. Default: /**.
        path: String,
        /// Methods. Default: any.
        methods: Vec<Given<String>>,
        /// Fields that must be there, each with its exact value. Default: none.
        headers: Named<String>,
    }
}

shape! {
    /// A route that holds clients on channels.
    #[schemars(extend("required" = ["channels"]))]
    Push {
        /// Channel names with the path's parameters: "prices.{symbol}".
        channels: Vec<Given<String>>,
        /// What clients may use, in the order of preference. Default: [sse, websocket, long_poll].
        transports: Vec<Given<Transport>>,
        /// Who may subscribe. Default: none, which is everybody.
        auth: Nothing,
        /// A comment (SSE) or ping (WebSocket) is sent after this much silence. Default: 25s.
        keep_alive: Span,
        /// The longest that a long poll waits. Default: 30s.
        long_poll_timeout: Span,
        /// What a client without a cursor gets first. Default: now.
        start: WordOr<Now, StartLast>,
        /// Which pages of other origins may read it by fetch and EventSource. Default: none.
        cors: Cors,
        /// Which pages may open WebSockets: origins, or "*". Default: those of the request's own origin.
        allowed_origins: Vec<Given<String>>,
        /// Patterns of channels that a pushbridge.v1.json client may subscribe to beside the route's own. Default: none.
        client_subscribe: Vec<Given<String>>,
        /// Patterns of channels that a pushbridge.v1.json client may publish to. Default: none.
        client_publish: Vec<Given<String>>,
    }
}

words! {
    /// How a client is served.
    Transport {
        /// Server-Sent Events.
        Sse = "sse",
        /// WebSocket.
        WebSocket = "websocket",
        /// Long poll.
        LongPoll = "long_poll",
    }
}

words! {
    /// From now on.
    Now {
        /// What is published from now on.
        Now = "now",
    }
}

shape! {
    /// The newest messages of each channel first.
    #[schemars(extend("required" = ["last"]))]
    StartLast {
        /// How many, at most.
        last: u64,
    }
}

shape! {
    /// Cross-origin reads.
    #[schemars(extend("required" = ["origins"]))]
    Cors {
        /// Exact origins such as https://shop.example, or "*".
        origins: Vec<Given<String>>,
        /// Whether cookies may come along. Default: false.
        credentials: bool,
    }
}

shape! {
    /// A route that makes each WebSocket message a POST to a backend.
    #[schemars(extend("required" = ["upstream"]))]
    WebSocket {
        /// Who gets the POSTs: a name in `upstreams`.
        upstream: String,
        /// How they look. Default: grip, which is WebSocket over HTTP.
        protocol: WebSocketProtocol,
        /// Which pages may open it: origins, or "*". Default: those of the request's own origin.
        allowed_origins: Vec<Given<String>>,
        /// A ping is sent after this much silence. Default: 25s.
        keep_alive: Span,
        /// The largest message of a client. Default: 64KiB.
        max_message: Size,
        /// Who answers a client's pings. Default: answer.
        pings: Pings,
    }
}

words! {
    /// How WebSocket messages reach a backend.
    WebSocketProtocol {
        /// WebSocket over HTTP (application/websocket-events).
        Grip = "grip",
    }
}

words! {
    /// Who answers a client's pings.
    Pings {
        /// pushbridge does.
        Answer = "answer",
        /// The backend does; each costs it a request.
        Pass = "pass",
    }
}

shape! {
    /// A route that passes requests on.
    #[schemars(extend("required" = ["upstream"]))]
    Proxy {
        /// Who answers: a name in `upstreams`.
        upstream: String,
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
    /// How instances share events: exactly one of its keys.
    #[schemars(extend("minProperties" = 1, "maxProperties" = 1))]
    Bus {
        /// They do not: each instance has its own channels. The default.
        memory: MemoryBus,
    }
}

shape! {
    /// The embedded bus; it has no keys.
    MemoryBus {}
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
        /// From the accept, or the end of the request before, to a whole request head. Default: 10s.
        request_header_timeout: Span,
        /// The size of a request head. Default: 32KiB.
        request_header_bytes: Size,
        /// From the accept to the end of the TLS handshake. Default: 10s.
        tls_handshake_timeout: Span,
        /// Channels of one session. Default: 100.
        subscriptions_per_session: u64,
        /// Channels of this instance. Default: 100000.
        channels: u64,
        /// History of all channels together. Default: 256MiB.
        history_bytes: Size,
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
