"""Measures pushbridge beside other push servers: `make bench`, or `python3 bench/run.py --rounds 3 --rows REGEX`.

Rounds take turns: in each, every row runs with every server that is there, freshly started. Server on CPU 0, clients and
backend on CPU 1. Reports go to target/bench/results, one file a run; bench/report.py makes docs/performance.md of them.
"""

import argparse
import json
import re
import signal
import subprocess
import sys
import time

import report
import rows
import servers

RESULTS = servers.WORK / "results"
RUN_S = 300
KINDS = {"sse": "sse", "sse-h2": "sse", "websocket": "ws", "long-poll": "lp"}
# Pushpin is slow enough to measure with less.
LESS = {"pushpin": {"messages": 30}}
# Where each message comes seconds after the one before.
FEW_GAPS = {"messages": 6, "warm_up": 1}


def fan_out(row, server):
    kind = KINDS[row["mode"]]
    scheme, port = ("https", server.ports["tls"]) if row.get("tls") else ("http", server.ports["http"])
    options = {"messages": 100, "warm_up": 3} | row
    if "messages" not in row:
        options |= LESS.get(server.name, {})
    if server.gap_ms and kind == "lp":
        options |= FEW_GAPS
    command = ["--mode", row["mode"], "--url", f"{scheme}://127.0.0.1:{port}/{kind}/{{ch}}"]
    command += ["--publish-url", server.publish_url(), "--connect-rate", server.connect_rate]
    headers, body = server.publish_headers, server.publish_bodies.get(kind, "{payload}")
    if row.get("batch") == "lines":
        headers = [servers.NDJSON]
    for header in headers:
        command += ["--publish-header", header]
    command += ["--publish-body", body]
    if kind == "lp":
        command += ["--accept", server.accept] if server.accept else []
        command += ["--gap-ms", server.gap_ms]
    names = ["subscribers", "channels", "messages", "warm_up", "per_connection", "burst", "batch", "rate", "payload", "stalled", "bystanders"]
    for name in names:
        if name in options:
            command += ["--" + name.replace("_", "-"), options[name]]
    return command


def requests(row, server):
    if row["kind"] == "proxy":
        command = ["--url", f"http://127.0.0.1:{server.ports['http']}/kilobyte"]
    else:
        payload = "x" * 100
        body = server.publish_bodies.get("sse", "{payload}").replace("{ch}", "publish").replace("{payload}", payload)
        command = ["--url", server.publish_url().replace("{ch}", "publish"), "--body", body]
        for header in [servers.NDJSON] if "lines" in row else server.publish_headers:
            command += ["--header", header]
        if "lines" in row:
            command += ["--repeat-body", row["lines"]]
    count = min(row["requests"], 3000) if server.name == "pushpin" else row["requests"]
    return command + ["--connections", row["connections"], "--requests", count]


def measure(row, server_name):
    cpus = row.get("cpus", "0")
    with servers.ALL[server_name](cpus, row.get("workers", 1)) as server:
        arguments = (fan_out if row["command"] == "fan-out" else requests)(row, server)
        command = ["taskset", "-c", "1" if cpus == "0" else cpus, servers.LOAD, row["command"], *arguments, "--server-pid", server.pid]
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=RUN_S)
        if done.returncode:
            raise RuntimeError(done.stderr.strip())
        return json.loads(done.stdout)


def line(row, peer, result):
    if row["command"] == "requests":
        return f"{result['unit_cpu_us']:.2f} µs each, {result['units_per_s']:,.0f}/s, {result['failed']} failed"
    return (
        f"{result['delivery_cpu_us']:.2f} µs a delivery, {result['idle_bytes']:,.0f} B idle, "
        f"p99 {result['latency_ms']['p99']:.1f} ms, {result['lost']} lost of {result['expected']}, "
        f"client {result['client_cpu_us']:.2f} µs" + (f"; {result['errors']} {result['causes']}" if result["errors"] or any(result["causes"]) else "")
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", default=".", help="a regular expression of rows' names")
    parser.add_argument("--peers", default=".", help="a regular expression of servers' names")
    parser.add_argument("--no-report", action="store_true", help="leave docs/performance.md as it is")
    args = parser.parse_args()
    # A run that is ended ends its servers.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))
    chosen = [row for row in rows.ROWS if re.search(args.rows, row["name"])]
    peers = {peer for row in chosen for peer in row["peers"] if re.search(args.peers, peer)}
    absent = {peer for peer in peers if not servers.ALL[peer].is_there()}
    if absent:
        print(f"not installed, so left out: {', '.join(sorted(absent))}", file=sys.stderr)
    RESULTS.mkdir(parents=True, exist_ok=True)
    failed = 0
    for row in chosen:  # a row that is measured again is measured whole
        for peer in peers - absent:
            for old in RESULTS.glob(f"{row['name']}.{peer}.*.json"):
                old.unlink()
    for number in range(args.rounds):
        for row in chosen:
            for peer in [peer for peer in row["peers"] if peer in peers - absent]:
                try:
                    result = measure(row, peer)
                except (RuntimeError, subprocess.SubprocessError, json.JSONDecodeError) as error:
                    print(f"{row['name']} {peer}: failed: {error}", file=sys.stderr, flush=True)
                    failed += 1
                    continue
                result["taken"] = time.strftime("%Y-%m-%d")
                (RESULTS / f"{row['name']}.{peer}.{number}.json").write_text(json.dumps(result, indent=1) + "\n")
                print(f"{number + 1}/{args.rounds} {row['name']} {peer}: {line(row, peer, result)}", flush=True)
    if not args.no_report:
        report.write(RESULTS)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
