//! The shape of the `routes` section.

use super::Nothing;
use crate::config::quantity::{Size, Span};
use crate::config::read::{Given, Named, WordOr, shape, words};

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
        /// Exact origins such as `https://shop.example`, or "*".
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
        /// How the backend is spoken to by CloudEvents; with `protocol: cloudevents` only.
        cloudevents: CloudEvents,
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
        /// CloudEvents, as Azure Web PubSub sends them to its event handlers.
        CloudEvents = "cloudevents",
    }
}

shape! {
    /// How a backend is spoken to by CloudEvents.
    CloudEvents {
        /// The hub that events name (ce-hub). Default: the route's name.
        hub: String,
        /// Where events are posted; {hub} and {event} are filled in. Default: /api/webpubsub/hubs/{hub}/.
        path: String,
        /// Who events are from (WebHook-Request-Origin): the backend has to allow it. Default: pushbridge.
        origin: String,
        /// A file with the key that signs (ce-signature); a final line break is left out. Default: no signature.
        key_file: String,
        /// An environment variable with that key.
        key_env: String,
        /// A file with a second key, while keys are changed. Default: none.
        secondary_key_file: String,
        /// An environment variable with that second key.
        secondary_key_env: String,
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
        /// Whether its answers may hold clients (GRIP). Default: false.
        grip: WordOr<bool, GripRoute>,
    }
}

shape! {
    /// How answers of a route may hold clients.
    GripRoute {
        /// What stands before the names of the backend's channels. Default: nothing.
        channel_prefix: String,
        /// Channels of every hold beside the backend's own, with the path's parameters. Default: none.
        channels: Vec<Given<String>>,
    }
}
