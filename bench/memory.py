"""Where each byte of a waiting session is: `make bench-memory` writes the account into docs/performance.md.

For each transport a pushbridge whose heap is watched (benches/memory.rs) holds some sessions, then more; what lives on the heap, by
the place in the code that asked for it, is subtracted, and divided by the sessions that came in between. So what a process allocates
once is not in it. Threads, kernel buffers and the allocator's own pages are not either.
"""

import json
import re
import select
import shutil
import socket
import ssl
import subprocess
import time

import instructions
import report
import servers

ROOT = servers.ROOT
FOLDER = servers.WORK / "memory"
FEW, MANY = 100, 500
STREAMS = 100  # a connection, of HTTP/2
SETTLE_S = 2.0
LEAST_BYTES = 8  # what is less is put together

SSE_HEAD = "Accept: text/event-stream\r\n"
WS_HEAD = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"

# Who asked, by the innermost frame that fits: the owner, what it is for.
OWNERS = [
    (r"rustls::.*(deframer|DeframerVecBuffer)", "TLS: receive buffer"),
    (r"rustls::|tokio_rustls::|aws_lc_rs::", "TLS: connection, keys, send buffer"),
    (r"tokio::(runtime::io|net|io::poll_evented)", "the socket's place in the runtime (tokio)"),
    (r"pushbridge::hub::", "the session's place in the hub"),
    (r"pushbridge::telemetry::", "counting it"),
    (r"pushbridge::server::(limits|date)", "connection limits"),
    (r"pushbridge::proto::http2", "HTTP/2 machine"),
    (r"hyper::|hyper_util::|httparse::", "HTTP/1.1 machine (hyper)"),
    (r"\bhttp::|bytes::.*head", "head"),
    (r"pushbridge::session::", "the session"),
    (r"pushbridge::server::h2", "the HTTP/2 connection's task"),
    (r"pushbridge::server::link|pushbridge::server::h1", "the session's task, with its link"),
    (r"pushbridge::server::", "the connection's task"),
    (r"pushbridge::gateway::", "the answer of the gateway"),
    (r"tokio::", "runtime (tokio)"),
]


class Heap:
    """A watched pushbridge."""

    def __init__(self, program, name, grip):
        self.server = servers.PushbridgeGrip() if grip else servers.Pushbridge()
        self.server.folder = FOLDER / name
        shutil.rmtree(self.server.folder, ignore_errors=True)
        self.server.folder.mkdir(parents=True)
        self.server.certificate("key.pem", "cert.pem")
        self.server.file("pushbridge.yaml", servers.PUSHBRIDGE_YAML_HEAD + self.server.routes)
        if grip:
            self.server.backend()
        self.out = self.server.folder / "heap.json"
        log = open(self.server.folder / "pushbridge.log", "wb")
        self.process = subprocess.Popen(
            [program, "pushbridge.yaml", self.out], cwd=self.server.folder, stdin=subprocess.PIPE, stdout=log, stderr=log
        )
        self.server.processes.append(self.process)
        self.server.wait_for("http", "tls")

    def end(self):
        """What lives: bytes and blocks by backtrace, innermost frame first."""
        self.process.communicate(b"\n", timeout=300)
        heap = json.loads(self.out.read_text())
        frames = [clean(frame) for frame in heap["ftbl"]]
        live = {}
        for point in heap["pps"]:
            if point["eb"]:
                at = tuple(frames[number] for number in point["fs"])
                size, blocks = live.get(at, (0, 0))
                live[at] = (size + point["eb"], blocks + point["ebk"])
        return live


def clean(frame):
    """A frame's function, without its address and hash."""
    return re.sub(r"::h[0-9a-f]{16}", "", re.sub(r"^0x[0-9a-f]+: ", "", frame)).split(" (")[0]


def tls(alpn):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols([alpn])
    return context


def connect(port, context=None):
    plain = socket.create_connection(("127.0.0.1", port), 20)
    return context.wrap_socket(plain) if context else plain


def held_by_head(port, fields, end, context=None, path="/any/channel"):
    """A session on an HTTP/1.1 connection of its own; `end` is what is read before the next one begins."""
    held = connect(port, context)
    held.sendall(f"GET {path} HTTP/1.1\r\nHost: a\r\n{fields}\r\n".encode())
    read = b""
    while end not in read:
        part = held.recv(4096)
        if not part:
            raise SystemExit(f"refused: {read!r}")
        read += part
    return [held]


def frame(kind, flags, stream, payload=b""):
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def literal(name, value):
    return b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value


def held_streams(port, count=STREAMS):
    """An HTTP/2 connection with streams that are event streams (RFC 9113; literal fields of RFC 7541 §6.2.2)."""
    held = connect(port, tls("h2"))
    fields = b"\x82\x87" + literal(b":path", b"/any/channel") + literal(b":authority", b"a") + literal(b"accept", b"text/event-stream")
    out = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0)
    held.sendall(out + b"".join(frame(1, 5, 1 + 2 * number, fields) for number in range(count)))
    begun, read = set(), b""
    while len(begun) < count:
        part = held.recv(65536)
        if not part:
            raise SystemExit("the connection was closed")
        read += part
        while len(read) >= 9 and len(read) >= 9 + int.from_bytes(read[:3], "big"):
            length, kind, flags, stream = int.from_bytes(read[:3], "big"), read[3], read[4], int.from_bytes(read[5:9], "big")
            read = read[9 + length :]
            if kind == 4 and not flags & 1:
                held.sendall(frame(4, 1, 0))
            elif kind == 0:
                begun.add(stream)
    return [held]


# What, how many a connection, how one is held, whether a GRIP backend holds it.
KINDS = [
    ("SSE, HTTP/1.1", 1, lambda ports: held_by_head(ports["http"], SSE_HEAD, b"id: "), False),
    ("WebSocket, HTTP/1.1", 1, lambda ports: held_by_head(ports["http"], WS_HEAD, b"\r\n\r\n"), False),
    ("SSE over TLS", 1, lambda ports: held_by_head(ports["tls"], SSE_HEAD, b"id: ", tls("http/1.1")), False),
    ("HTTP/2 stream, 100 a connection", STREAMS, lambda ports: held_streams(ports["tls"]), False),
    ("HTTP/2 stream, the only one of its connection", 1, lambda ports: held_streams(ports["tls"], 1), False),
    ("GRIP stream", 1, lambda ports: held_by_head(ports["http"], SSE_HEAD, b"\r\n\r\n", path="/sse/channel"), True),
    ("GRIP response", 1, lambda ports: held_by_head(ports["http"], "", b"", path="/lp/channel"), True),
    ("WebSocket over HTTP", 1, lambda ports: held_by_head(ports["http"], WS_HEAD, b"\r\n\r\n", path="/ws/channel"), True),
]


def live(program, name, each, hold, count, grip):
    heap = Heap(program, re.sub(r"\W+", "-", name.lower()), grip)
    try:
        held = [connection for _ in range(count // each) for connection in hold(heap.server.ports)]
        time.sleep(SETTLE_S)
        # The servers' pings and the like are read, so that no socket fills.
        select.select(held, [], [], 0)
        return heap.end()
    finally:
        heap.server.__exit__()


def owner(frames):
    for at in frames:
        for pattern, name in OWNERS:
            if re.search(pattern, at):
                return name
    return "others"


def size_class(size):
    """What jemalloc gives for a request: multiples of 16 up to 128, then four classes for each doubling."""
    if size <= 8:
        return 8
    if size <= 128:
        return -(-size // 16) * 16
    step = 1 << ((int(size) - 1).bit_length() - 3)
    return -(-int(size) // step) * step


def account(program):
    """For each kind, bytes a session by owner."""
    kinds = {}
    for name, each, hold, grip in KINDS:
        few, many = (live(program, name, each, hold, count, grip) for count in [FEW, MANY])
        owners, details = {}, []
        for at in few.keys() | many.keys():
            size, blocks = (many.get(at, (0, 0))[part] - few.get(at, (0, 0))[part] for part in [0, 1])
            size, blocks = size / (MANY - FEW), blocks / (MANY - FEW)
            if abs(size) < 0.5:
                continue
            rounding = blocks * size_class(size / blocks) - size if size > 0 and blocks > 0 else 0
            for whose, share in [(owner(at), size), ("rounding up to the allocator's sizes", rounding)]:
                owners[whose] = owners.get(whose, 0) + share
            details.append((size, blocks, owner(at), at))
        kinds[name] = owners
        text = [f"{size:9.1f} B {blocks:6.2f} × {whose}\n    " + "\n    ".join(at[:16]) for size, blocks, whose, at in sorted(details, reverse=True)]
        (FOLDER / (re.sub(r"\W+", "-", name.lower()) + ".txt")).write_text("\n".join(text) + "\n")
    return kinds


def table(kinds):
    names = {name for owners in kinds.values() for name, size in owners.items() if size >= LEAST_BYTES}
    order = sorted(names, key=lambda name: -sum(owners.get(name, 0) for owners in kinds.values()))
    lines = [[name, *(f"{owners.get(name, 0):,.0f}" if owners.get(name, 0) >= 0.5 else "–" for owners in kinds.values())] for name in order]
    small = [sum(size for name, size in owners.items() if name not in names) for owners in kinds.values()]
    lines.append(["all the rest", *(f"{size:,.0f}" for size in small)])
    lines.append(["**together**", *(f"**{sum(owners.values()):,.0f}**" for owners in kinds.values())])
    return report.table(["bytes of a waiting session", *(f"{name}:" for name in kinds)], lines)


def build():
    command = instructions.bench("memory") + ["--features", "heap-profile", "--no-run", "--message-format", "json"]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    made = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return next(one["executable"] for one in made if one.get("executable") and one["target"]["name"] == "memory")


def main():
    FOLDER.mkdir(parents=True, exist_ok=True)
    lines = table(account(build()))
    report.DOCUMENT.write_text(report.between(report.DOCUMENT.read_text(), "memory", lines))
    print("\n".join(lines))
    print(f"each place in the code: {FOLDER}/*.txt")


if __name__ == "__main__":
    main()
