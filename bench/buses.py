"""Measures what each bus costs: `make bench-buses` writes the tables into docs/performance.md.

Two instances share a bus: one is published to, on the other one client waits. How much CPU time a message takes on either, and in the
bus's own server, is measured in a run each, as is how long it takes from the publish call to the client. Then the stocks: 5,000 events a
second through Redis to 5,000 clients of two instances. The instances have CPU 0, the load generator has CPU 1; the bus's server is with
the former for the costs, and with the latter for the stocks, where CPU 0 would be full. Kafka needs `scripts/install-kafka`.
"""

import argparse
import json
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time

import report
import servers

KAFKA = servers.ROOT / "target" / "test-tools" / "kafka"
EVENT = '{"channel":"{ch}","data":"{payload}"}'

YAML = """
listeners: [{{ name: http, address: "127.0.0.1:{http}" }}]
publish: {{ address: "127.0.0.1:{publish}" }}
admin: {{ address: "127.0.0.1:{admin}" }}
routes: [{{ name: pushed, match: {{ path: "/sse/{{channel}}" }}, push: {{ channels: ["{{channel}}"] }} }}]
bus: {{ {bus} }}
limits: {{ connections: {connections}, connections_per_ip: {connections} }}
runtime: {{ workers: 1 }}
telemetry: {{ access_log: false }}
"""

KAFKA_PROPERTIES = """
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{sub}
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:{push},CONTROLLER://127.0.0.1:{sub}
advertised.listeners=PLAINTEXT://127.0.0.1:{push}
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
log.dirs={folder}/data
"""

# One event a call shows what a message costs that nothing is shared with; 100 lines a call, what a stream of them does.
LOADS = [
    ("one event a call, 200 a second", ["--rate", 200, "--messages", 2000, "--warm-up", 200]),
    ("100 lines a call, as fast as they are taken", ["--burst", 100, "--batch", "lines", "--messages", 20_000, "--warm-up", 1000]),
]
# Of each of two publishers.
STOCKS = ["--rate", 2500, "--burst", 50, "--batch", "lines", "--messages", 25_000, "--warm-up", 2500, "--channels", 500,
          "--subscribers", 2500, "--connect-rate", 1000]  # fmt: skip


class Bus(servers.Server):
    """No bus but the embedded one."""

    name = title = "memory"
    setting = "memory: {{}}"

    def start(self):
        return None

    def config(self):
        return self.setting.format(**self.ports)


class Redis(Bus):
    name, title, program = "redis", "Redis", "redis-server"
    setting = 'redis: {{ url: "redis://127.0.0.1:{push}" }}'

    @classmethod
    def is_there(cls):
        return bool(shutil.which(cls.program))

    def command(self):
        return ["redis-server", "--port", self.ports["push"], "--bind", "127.0.0.1", "--save", ""]

    def start(self):
        pid = self.spawn(self.command(), self.name, self.cpus)
        self.wait_for("push")
        return pid


class Nats(Redis):
    name, title, program = "nats", "NATS", "nats-server"
    setting = 'nats: {{ url: "nats://127.0.0.1:{push}" }}'

    def command(self):
        return ["nats-server", "-a", "127.0.0.1", "-p", self.ports["push"], "-js", "-sd", self.folder / "data"]


class Kafka(Redis):
    name, title, program = "kafka", "Kafka", "java"
    setting = 'kafka: {{ brokers: ["127.0.0.1:{push}"] }}'

    @classmethod
    def is_there(cls):
        return super().is_there() and (KAFKA / "pom.xml.installed").exists()

    def java(self, *arguments):
        return ["java", "-Xmx1g", "-XX:+UseSerialGC", "-cp", f"{KAFKA}/*", *arguments]

    def command(self):
        self.file("server.properties", KAFKA_PROPERTIES)
        storage = ["kafka.tools.StorageTool", "format", "--cluster-id", "cHVzaGJyaWRnZS1iZW5jaA", "--config", "server.properties"]
        subprocess.run(self.java(*storage), cwd=self.folder, check=True, capture_output=True)
        return self.java("kafka.Kafka", "server.properties")

    def start(self):
        pid = super().start()
        make_topic(self.ports["push"], "pushbridge", 3)
        return pid


def make_topic(port, name, partitions):
    """CreateTopics, version 2, until the broker has made it."""
    text = lambda value: struct.pack(">h", len(value)) + value.encode()
    body = struct.pack(">i", 1) + text(name) + struct.pack(">ihiiib", partitions, 1, 0, 0, 5000, 0)
    request = struct.pack(">hhi", 19, 2, 1) + text("bench") + body
    end = time.monotonic() + servers.START_S
    while True:
        with socket.create_connection(("127.0.0.1", port), 10) as connection:
            connection.sendall(struct.pack(">i", len(request)) + request)
            answer = connection.makefile("rb")
            answer = answer.read(struct.unpack(">i", answer.read(4))[0])
        # Correlation, throttle, count, name, error: 36 says that it is there.
        (error,) = struct.unpack(">h", answer[14 + len(name) :][:2])
        if error in [0, 36]:
            return
        if time.monotonic() > end:
            raise RuntimeError(f"Kafka makes no topic: error {error}")
        time.sleep(0.2)


class Instance(servers.Server):
    needs_backend = False

    def __init__(self, number, bus):
        super().__init__()
        self.name, self.bus = f"instance-{number}", bus
        self.folder = servers.WORK / "run" / self.name

    def start(self):
        self.file("pushbridge.yaml", YAML, bus=self.bus)
        pid = self.spawn([servers.PUSHBRIDGE, "run", "--config", "pushbridge.yaml"], "pushbridge", self.cpus)
        self.wait_for("http", "publish")
        return pid


BUSES = [Bus, Redis, Nats, Kafka]


def load(publish_to, read_from, pid, options):
    """Starts a run of the load generator, which looks at one process."""
    command = ["taskset", "-c", "1", servers.LOAD, "fan-out", "--mode", "sse", "--server-pid", pid]
    command += ["--publish-url", f"http://127.0.0.1:{publish_to.ports['publish']}/v1/events", "--publish-body", EVENT]
    command += ["--publish-header", servers.NDJSON if "lines" in options else servers.JSON]
    for instance in read_from:
        command += ["--url", f"http://127.0.0.1:{instance.ports['http']}/sse/{{ch}}"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([str(part) for part in command + options], text=True, **pipes)


def reports(loads):
    """What runs of the load generator say, that go on together."""
    results = []
    for process in loads:
        out, errors = process.communicate(timeout=300)
        if process.returncode:
            raise RuntimeError(errors.strip())
        results.append(json.loads(out))
        if any([*results[-1]["causes"], results[-1]["errors"], results[-1]["lost"], results[-1]["duplicates"]]):
            raise RuntimeError(f"not all came, once: {out}")
    return results


def until_ready(instance):
    """The instance is connected to its bus."""
    end = time.monotonic() + servers.START_S
    while time.monotonic() < end:
        with socket.create_connection(("127.0.0.1", instance.ports["admin"]), 5) as connection:
            connection.sendall(b"GET /readyz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            if b" 200 " in connection.makefile("rb").readline():
                return
        time.sleep(0.1)
    raise RuntimeError(f"{instance.name} is not ready; see {instance.folder}")


def costs(kind):
    """The lines of one bus."""
    lines, title = [], kind.title
    with kind() as bus, Instance(1, bus.config()) as one, Instance(2, bus.config()) as two:
        # The embedded bus is of one instance.
        reader = one if bus.pid is None else two
        for instance in [one, two]:
            until_ready(instance)
        for name, options in LOADS:
            options = options + ["--subscribers", 1]
            runs = [reports([load(one, [reader], process.pid, options)])[0] for process in [one, reader, bus] if process.pid]
            cpu = [f"{run['delivery_cpu_us']:.0f}" for run in runs]
            cpu = cpu if bus.pid else [f"{cpu[0]} (both)", "", ""]
            # Of several runs the one that was disturbed least.
            best = min(runs, key=lambda run: run["latency_ms"]["p99"])
            latency = [f"{best['latency_ms'][part]:.2f}" for part in ["p50", "p99"]]
            lines.append([title, name, *cpu, *latency, f"{max(run['deliveries_per_s'] for run in runs):,.0f}"])
            print(lines[-1], flush=True)
            title = ""
    return lines


def bus_table():
    heads = ["bus", "how it is published", "CPU µs a message: the instance published to:", "the other, with the client:", "the bus's server:",
             "p50 ms:", "p99 ms:", "messages/s:"]  # fmt: skip
    return report.table(heads, [line for bus in BUSES for line in costs(bus)])


def stock_table():
    """Each process's share of a core, and what clients see."""
    with Redis("1") as bus, Instance(1, bus.config()) as one, Instance(2, bus.config()) as two:
        for instance in [one, two]:
            until_ready(instance)
        publish = lambda pids: reports([load(to, [one, two], pid, STOCKS) for to, pid in zip([one, two], pids)])
        runs, again = publish([one.pid, two.pid]), publish([bus.pid, bus.pid])
    sum_of = lambda what: sum(run[what] for run in runs)
    most = lambda part: f"{max(run['latency_ms'][part] for run in runs):.1f}"
    busy = [f"{run['server_busy'] * 100:.0f} %" for run in [*runs, again[0]]]
    lost = sum(run["lost"] + run["duplicates"] for run in runs + again)
    line = [f"{sum_of('deliveries_per_s') / 5:,.0f}", f"{sum_of('deliveries_per_s'):,.0f}", *busy, most("p50"), most("p99"), most("max"), lost]
    print(line, flush=True)
    heads = ["events/s:", "deliveries/s:", "CPU of the one instance:", "the other:", "Redis:", "p50 ms:", "p99 ms:", "most ms:",
             "lost or doubled:"]  # fmt: skip
    return report.table(heads, [line])


# What is measured: its place in the document, how, and what has to be there.
TABLES = [("buses", bus_table, BUSES), ("stocks", stock_table, [Redis])]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tables", default=".", help="a regular expression of what is measured: " + ", ".join(name for name, _, _ in TABLES))
    args = parser.parse_args()
    # A run that is ended ends its servers.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))
    tables = [table for table in TABLES if re.search(args.tables, table[0])]
    absent = {bus.title for _, _, needed in tables for bus in needed if not bus.is_there()}
    if absent:
        return f"not installed: {', '.join(sorted(absent))} (scripts/install-test-tools, scripts/install-kafka)"
    text = report.DOCUMENT.read_text()
    for marker, table, _ in tables:
        text = report.between(text, marker, table())
    report.DOCUMENT.write_text(text)
    print(f"{report.DOCUMENT} has them")


if __name__ == "__main__":
    sys.exit(main())
