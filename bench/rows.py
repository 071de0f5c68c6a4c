"""What is measured: one row each. A row names its peers and the arguments of the load generator."""


def fan_out(name, title, mode, peers, subscribers, **options):
    return {"name": name, "title": title, "command": "fan-out", "mode": mode, "peers": peers.split(), "subscribers": subscribers, **options}


def requests(name, title, peers, kind, **options):
    return {"name": name, "title": title, "command": "requests", "kind": kind, "peers": peers.split(), **options}


ALL_PEERS = "echo pushbridge nchan pushpin"
NO_PUSHPIN = "echo pushbridge nchan"
H2_PEERS = "pushbridge nchan"

ROWS = [
    fan_out("sse-1k", "SSE, 1,000 sessions", "sse", ALL_PEERS, 1000),
    fan_out("sse-10k", "SSE, 10,000 sessions", "sse", ALL_PEERS, 10_000),
    fan_out("sse-19k", "SSE, 19,000 sessions", "sse", NO_PUSHPIN, 19_000),
    fan_out("sse-1000x10", "SSE, 1,000 channels with 10 each", "sse", ALL_PEERS, 10_000, channels=1000, messages=5000, warm_up=1000),
    fan_out("sse-tls-1k", "SSE over TLS, 1,000 sessions", "sse", "pushbridge nchan pushpin", 1000, tls=True),
    fan_out("sse-burst", "SSE, 1,000 sessions, 10 events back to back", "sse", NO_PUSHPIN, 1000, burst=10, messages=500, warm_up=30),
    fan_out("sse-burst-lines", "the same, as 10 lines of one request", "sse", "pushbridge", 1000, burst=10, batch="lines", messages=500, warm_up=30),
    fan_out("sse-h2-1k", "SSE over HTTP/2, 1,000 streams, 100 a connection", "sse-h2", H2_PEERS, 1000, tls=True, per_connection=100, messages=300),
    fan_out("sse-h2-10k", "SSE over HTTP/2, 10,000 streams, 100 a connection", "sse-h2", H2_PEERS, 10_000, tls=True, per_connection=100),
    fan_out("sse-h2-100k", "SSE over HTTP/2, 100,000 streams, 250 a connection", "sse-h2", "pushbridge", 100_000, tls=True, per_connection=250, messages=50),
    fan_out("ws-1k", "WebSocket, 1,000 sessions", "websocket", ALL_PEERS, 1000),
    fan_out("ws-10k", "WebSocket, 10,000 sessions", "websocket", ALL_PEERS, 10_000),
    fan_out("lp-1k", "long poll, 1,000 sessions", "long-poll", ALL_PEERS, 1000),
    # The same fan-out while other channels merely exist, each with a session.
    fan_out("channels-1", "1,000 streams on one channel, no other", "sse-h2", "pushbridge", 1000, tls=True, per_connection=250, messages=300),
    fan_out("channels-1000", "… and 1,000 more channels", "sse-h2", "pushbridge", 1000, tls=True, per_connection=250, messages=300, bystanders=1000),
    fan_out("channels-100k", "… and 100,000 more channels", "sse-h2", "pushbridge", 1000, tls=True, per_connection=250, messages=300, bystanders=100_000),
    # 5 MB/s published to 1,000 sessions on 50 channels: 100 MB/s delivered.
    fan_out("slow-none", "5 MB/s to 1,000 sessions on 50 channels", "sse", "pushbridge nchan", 1000, channels=50, rate=1250, payload=4096, messages=10_000, warm_up=500),
    fan_out("slow-one", "… one of which has stopped reading", "sse", "pushbridge nchan", 1000, channels=50, rate=1250, payload=4096, messages=10_000, warm_up=500, stalled=1),
    # Two cores: the clients are on the same two, so rates say little; see docs/performance.md.
    fan_out("sse-h2-10k-1cpu", "HTTP/2, 10,000 streams, one runtime on one core", "sse-h2", "pushbridge", 10_000, tls=True, per_connection=100, messages=300),
    fan_out("sse-h2-10k-2cpus", "HTTP/2, 10,000 streams, two runtimes on two cores", "sse-h2", "pushbridge", 10_000, tls=True, per_connection=100, messages=300, cpus="0,1", workers=2),
    requests("publish", "publish calls, keep-alive", ALL_PEERS, "publish", connections=1, requests=20_000),
    requests("publish-lines", "events published in 1,000 lines a call", "pushbridge", "publish", connections=1, requests=300, lines=1000),
    requests("proxy", "proxied requests, 1 KB, 50 connections", "pushbridge nginx", "proxy", connections=50, requests=50_000),
    requests("proxy-pushpin", "the same through Pushpin", "pushpin", "proxy", connections=10, requests=2000),
]
