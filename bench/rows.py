"""What is measured: one row each. A row names its peers and the arguments of the load generator."""


def fan_out(name, title, mode, peers, subscribers, **options):
    return {"name": name, "title": title, "command": "fan-out", "mode": mode, "peers": peers.split(), "subscribers": subscribers, **options}


def requests(name, title, peers, kind, **options):
    return {"name": name, "title": title, "command": "requests", "kind": kind, "peers": peers.split(), **options}


ALL_PEERS = "echo pushbridge nchan pushpin"
NO_PUSHPIN = "echo pushbridge nchan"
H2_PEERS = "pushbridge nchan"
GRIP_PEERS = "pushbridge-grip pushpin"

FLOOD = {"channels": 20, "rate": 1250, "payload": 4096, "messages": 20_000, "warm_up": 1000}

ROWS = [
    fan_out("sse-1k", "SSE, 1,000 sessions", "sse", ALL_PEERS, 1000),
    fan_out("sse-10k", "SSE, 10,000 sessions", "sse", ALL_PEERS, 10_000),
    fan_out("sse-19k", "SSE, 19,000 sessions", "sse", NO_PUSHPIN, 19_000),
    fan_out("sse-1000x10", "SSE, 1,000 channels with 10 each", "sse", ALL_PEERS, 10_000, channels=1000, messages=5000, warm_up=1000),
    fan_out("sse-tls-1k", "SSE over TLS, 1,000 sessions", "sse", "pushbridge nchan pushpin", 1000, tls=True),
    fan_out("sse-tls-10k", "SSE over TLS, 10,000 sessions", "sse", "pushbridge nchan", 10_000, tls=True, messages=30),
    fan_out("sse-burst", "SSE, 1,000 sessions, 10 events back to back", "sse", NO_PUSHPIN, 1000, burst=10, messages=500, warm_up=30),
    fan_out("sse-burst-lines", "the same, as 10 lines of one request", "sse", "pushbridge", 1000, burst=10, batch="lines", messages=500, warm_up=30),
    fan_out("sse-h2-1k", "SSE over HTTP/2, 1,000 streams, 100 a connection", "sse-h2", H2_PEERS, 1000, tls=True, per_connection=100, messages=300),
    fan_out("sse-h2-10k", "SSE over HTTP/2, 10,000 streams, 100 a connection", "sse-h2", H2_PEERS, 10_000, tls=True, per_connection=100),
    fan_out("sse-h2-100k", "SSE over HTTP/2, 100,000 streams, 250 a connection", "sse-h2", "pushbridge", 100_000, tls=True, per_connection=250, messages=50),
    fan_out("sse-h2-100k-100", "SSE over HTTP/2, 100,000 streams, 100 a connection", "sse-h2", "pushbridge", 100_000, tls=True, per_connection=100, messages=50),
    fan_out("sse-h2-single", "SSE over HTTP/2, 1,000 connections with one stream each", "sse-h2", H2_PEERS, 1000, tls=True, per_connection=1),
    fan_out("ws-1k", "WebSocket, 1,000 sessions", "websocket", ALL_PEERS, 1000),
    fan_out("ws-10k", "WebSocket, 10,000 sessions", "websocket", ALL_PEERS, 10_000),
    fan_out("lp-1k", "long poll, 1,000 sessions", "long-poll", ALL_PEERS, 1000),
    fan_out("lp-10k", "long poll, 10,000 sessions", "long-poll", NO_PUSHPIN, 10_000, messages=20),
    # A backend that speaks GRIP holds the clients: a stream, a WebSocket over HTTP, a response.
    fan_out("grip-sse-1k", "GRIP: held streams, 1,000", "sse", GRIP_PEERS, 1000),
    fan_out("grip-ws-1k", "GRIP: bridged WebSockets, 1,000", "websocket", GRIP_PEERS, 1000),
    fan_out("grip-lp-1k", "GRIP: held responses, 1,000", "long-poll", GRIP_PEERS, 1000),
    # The same fan-out while other channels merely exist, each with a session.
    fan_out("channels-1", "1,000 streams on one channel, no other", "sse-h2", "pushbridge", 1000, tls=True, per_connection=250, messages=300),
    fan_out("channels-1000", "… and 1,000 more channels", "sse-h2", "pushbridge", 1000, tls=True, per_connection=250, messages=300, bystanders=1000),
    fan_out("channels-100k", "… and 100,000 more channels", "sse-h2", "pushbridge", 1000, tls=True, per_connection=250, messages=300, bystanders=100_000),
    # 5 MB/s published to 1,000 sessions on 20 channels: 250 MB/s delivered, and 4 MB to the one that does not read.
    fan_out("slow-none", "5 MB/s to 1,000 sessions on 20 channels", "sse", "pushbridge nchan", 1000, **FLOOD),
    fan_out("slow-one", "… one of which has stopped reading", "sse", "pushbridge nchan", 1000, **FLOOD, stalled=1),
    # Two cores: the clients are on the same two, so rates say little; see report.two_cores.
    fan_out("sse-10k-1cpu", "HTTP/1.1, 10,000 sessions, one runtime on one core", "sse", "pushbridge", 10_000),
    fan_out("sse-10k-2cpus", "HTTP/1.1, 10,000 sessions, two runtimes on two cores", "sse", "pushbridge", 10_000, cpus="0,1", workers=2),
    fan_out("sse-h2-10k-1cpu", "HTTP/2, 10,000 streams, one runtime on one core", "sse-h2", "pushbridge", 10_000, tls=True, per_connection=100, messages=300),
    fan_out("sse-h2-10k-2cpus", "HTTP/2, 10,000 streams, two runtimes on two cores", "sse-h2", "pushbridge", 10_000, tls=True, per_connection=100, messages=300, cpus="0,1", workers=2),
    requests("publish", "publish calls, keep-alive", ALL_PEERS, "publish", connections=1, requests=20_000),
    requests("publish-50", "publish calls on 50 connections", "pushbridge", "publish", connections=50, requests=50_000),
    requests("publish-lines", "events published in 1,000 lines a call", "pushbridge", "publish", connections=1, requests=300, lines=1000),
    requests("proxy", "proxied requests, 1 KB, 50 connections", "pushbridge nginx", "proxy", connections=50, requests=50_000),
    # nginx writes no access log in any row.
    requests("proxy-no-log", "the same, both without an access log", "pushbridge-no-log nginx", "proxy", connections=50, requests=50_000),
    requests("proxy-pushpin", "the same through Pushpin", "pushpin", "proxy", connections=10, requests=2000),
]

# What each row is to reach. CPU times are the least of a row's runs: what disturbs a run only adds to
# them. Memory and latencies are medians. What is a multiple of another server's figure, or of another row's, is
# compared within each round, where both ran minutes apart at most; the median of the rounds counts.
GOALS = [
    {"row": "sse-10k", "figure": "delivery_cpu_us", "most": 1.10, "times": "echo"},
    {"row": "sse-1000x10", "figure": "delivery_cpu_us", "most": 1.15, "times": "echo"},
    {"row": "ws-10k", "figure": "delivery_cpu_us", "most": 1.10, "times": "echo"},
    {"row": "lp-1k", "figure": "delivery_cpu_us", "most": 1.0, "times": "nchan"},
    {"row": "sse-h2-10k", "figure": "delivery_cpu_us", "most": 0.40},
    {"row": "sse-h2-100k", "figure": "delivery_cpu_us", "most": 0.40},
    {"row": "sse-burst", "figure": "delivery_cpu_us", "most": 1.2},
    {"row": "sse-10k", "figure": "idle_bytes", "most": 1200},
    {"row": "ws-10k", "figure": "idle_bytes", "most": 2700},
    {"row": "sse-tls-1k", "figure": "idle_bytes", "most": 9500},
    {"row": "sse-h2-10k", "figure": "idle_bytes", "most": 1800},
    {"row": "publish", "figure": "unit_cpu_us", "most": 15},
    {"row": "publish-50", "figure": "unit_cpu_us", "most": 15},
    {"row": "publish-lines", "figure": "unit_cpu_us", "most": 2},
    {"row": "proxy", "figure": "unit_cpu_us", "most": 1.2, "times": "nginx"},
    {"row": "sse-10k", "figure": "connect_cpu_us", "most": 35},
    {"row": "sse-tls-1k", "figure": "connect_cpu_us", "most": 150},
    {"row": "grip-sse-1k", "figure": "delivery_cpu_us", "most": 0.25, "times": "pushpin", "server": "pushbridge-grip"},
    {"row": "grip-sse-1k", "figure": "idle_bytes", "most": 0.1, "times": "pushpin", "server": "pushbridge-grip"},
    {"row": "grip-ws-1k", "figure": "delivery_cpu_us", "most": 0.25, "times": "pushpin", "server": "pushbridge-grip"},
    {"row": "grip-ws-1k", "figure": "idle_bytes", "most": 0.1, "times": "pushpin", "server": "pushbridge-grip"},
    {"row": "grip-lp-1k", "figure": "delivery_cpu_us", "most": 0.25, "times": "pushpin", "server": "pushbridge-grip"},
    {"row": "grip-lp-1k", "figure": "idle_bytes", "most": 0.1, "times": "pushpin", "server": "pushbridge-grip"},
    {"row": "slow-one", "figure": "latency_ms.p99", "most": 1.5, "times_row": "slow-none"},
]

# Rows that differ in nothing but how many there are: their costs are to be within 1.3 × of each other.
GROWTHS = [
    {"name": "sessions-h1", "title": "SSE on HTTP/1.1", "unit": "sessions", "peers": ALL_PEERS, "rows": [(1000, "sse-1k"), (10_000, "sse-10k"), (19_000, "sse-19k")]},
    {"name": "streams-h2", "title": "SSE on HTTP/2 over TLS", "unit": "streams", "peers": H2_PEERS, "rows": [(1000, "sse-h2-1k"), (10_000, "sse-h2-10k"), (100_000, "sse-h2-100k-100")]},
    {"name": "channels", "title": "1,000 streams on one channel while others exist", "unit": "channels", "peers": "pushbridge", "rows": [(1, "channels-1"), (1001, "channels-1000"), (100_001, "channels-100k")]},
]
GROWTH_MAX = 1.3

# Pairs of the same work on one runtime and on two: the rate of two is to be at least 1.7 × that of one.
SCALINGS = [("sse-10k-1cpu", "sse-10k-2cpus"), ("sse-h2-10k-1cpu", "sse-h2-10k-2cpus")]
SCALING_MIN = 1.7
