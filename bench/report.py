"""Makes the tables and plots of docs/performance.md of the runs in target/bench/results."""

import json
import pathlib
import platform
import re
import shutil
import statistics
import subprocess

import plot
import rows
import servers

DOCUMENT = servers.ROOT / "docs" / "performance.md"
PLOTS = servers.ROOT / "docs" / "performance"
ORDER = ["echo", "pushbridge", "nchan", "nginx", "pushpin"]


def load(folder):
    """The runs of each row and server."""
    runs = {}
    for path in sorted(pathlib.Path(folder).glob("*.json")):
        row, peer, _ = path.name.rsplit(".", 3)[:3]
        runs.setdefault((row, peer), []).append(json.loads(path.read_text()))
    return runs


def at(run, path):
    for part in path.split("."):
        run = run[part]
    return run


def least(runs, path):
    return min(at(run, path) for run in runs)


def median(runs, path):
    return statistics.median(at(run, path) for run in runs)


def spread(runs, path):
    """The least, and the most where it differs."""
    values = sorted(at(run, path) for run in runs)
    low, high = f"{values[0]:.2f}", f"{values[-1]:.2f}"
    return low if low == high else f"{low} – {high}"


def peers_of(runs, row):
    return [peer for peer in ORDER if (row["name"], peer) in runs]


def delivery_table(runs):
    lines = [
        "| row | server | runs | CPU µs a delivery | × floor | deliveries/s | p50 ms | p99 ms | B a session, idle | after | CPU µs to connect | lost | doubled, reordered | client CPU µs |",
        "| --- | --- | --: | --: | --: | --: | --: | --: | --: | --: | --: | --: | --: | --: |",
    ]
    for row in rows.ROWS:
        if row["command"] != "fan-out":
            continue
        floor = runs.get((row["name"], "echo"))
        title = f"{row['title']} (`{row['name']}`)"
        for peer in peers_of(runs, row):
            got = runs[row["name"], peer]
            ratio = f"{least(got, 'delivery_cpu_us') / least(floor, 'delivery_cpu_us'):.2f}" if floor and peer != "echo" else ""
            cells = [
                title, peer, len(got), spread(got, "delivery_cpu_us"), ratio, f"{median(got, 'deliveries_per_s'):,.0f}",
                f"{median(got, 'latency_ms.p50'):.1f}", f"{median(got, 'latency_ms.p99'):.1f}",
                f"{median(got, 'idle_bytes'):,.0f}", f"{median(got, 'after_bytes'):,.0f}", f"{least(got, 'connect_cpu_us'):.0f}",
                f"{sum(run['lost'] for run in got):,}/{sum(run['expected'] for run in got):,}",
                f"{sum(run['duplicates'] for run in got)}, {sum(run['reordered'] for run in got)}",
                f"{median(got, 'client_cpu_us'):.2f}",
            ]  # fmt: skip
            lines.append("| " + " | ".join(map(str, cells)) + " |")
            title = ""
    return lines


def request_table(runs):
    lines = [
        "| row | server | runs | CPU µs each | each/s | p50 ms | p99 ms | failed |",
        "| --- | --- | --: | --: | --: | --: | --: | --: |",
    ]
    for row in rows.ROWS:
        if row["command"] != "requests":
            continue
        title = f"{row['title']} (`{row['name']}`)"
        for peer in peers_of(runs, row):
            got = runs[row["name"], peer]
            cells = [
                title, peer, len(got), spread(got, "unit_cpu_us"), f"{median(got, 'units_per_s'):,.0f}",
                f"{median(got, 'latency_ms.p50'):.2f}", f"{median(got, 'latency_ms.p99'):.2f}",
                sum(run["failed"] for run in got),
            ]  # fmt: skip
            lines.append("| " + " | ".join(map(str, cells)) + " |")
            title = ""
    return lines


def version(command, pattern):
    if not shutil.which(command[0]):
        return "none"
    done = subprocess.run(command, capture_output=True, text=True)
    found = re.search(pattern, done.stdout + done.stderr)
    return found.group(1) if found else "unknown"


def machine(runs):
    info = pathlib.Path("/proc/cpuinfo").read_text()
    model = re.search(r"model name\s*: (.*)", info)
    cores = info.count("processor\t")
    memory = int(re.search(r"MemTotal:\s+(\d+)", pathlib.Path("/proc/meminfo").read_text()).group(1)) / 1024 / 1024
    days = sorted({run["taken"] for several in runs.values() for run in several})
    nchan = version(["dpkg-query", "-W", "libnginx-mod-nchan"], r"(?:\d+:)?([\d.]+\d)\+")
    commit = version(["git", "-C", str(servers.ROOT), "rev-parse", "--short", "HEAD"], r"(\w+)")
    return [
        f"{model.group(1) if model else platform.machine()}, {cores} cores (shared with other guests), {memory:.0f} GiB, "
        f"Linux {platform.release().split('-')[0]}; pushbridge at {commit}, nginx {version(['nginx', '-v'], r'nginx/([0-9.]+)')} with nchan {nchan}, "
        f"Pushpin {version(['pushpin', '--version'], r'([0-9.]+)')}; {' to '.join(dict.fromkeys([days[0], days[-1]]))}."
    ]


def growth(runs, peer, names):
    """How the cost grows with sessions: (how many, the least CPU µs a delivery of each run)."""
    return [(count, [run["delivery_cpu_us"] for run in runs[name, peer]]) for count, name in names if (name, peer) in runs]


def plots(runs):
    PLOTS.mkdir(exist_ok=True)
    h1 = [(1000, "sse-1k"), (10_000, "sse-10k"), (19_000, "sse-19k")]
    h2 = [(1000, "sse-h2-1k"), (10_000, "sse-h2-10k"), (100_000, "sse-h2-100k")]
    channels = [(1, "channels-1"), (1001, "channels-1000"), (100_001, "channels-100k")]
    series = lambda names, peers: {peer: points for peer in peers if (points := growth(runs, peer, names))}
    y = "CPU µs a delivery"
    made = {
        "sessions-h1": ("SSE on HTTP/1.1", "sessions", series(h1, ["echo", "pushbridge", "nchan", "pushpin"])),
        "streams-h2": ("SSE on HTTP/2 over TLS", "streams", series(h2, ["pushbridge", "nchan"])),
        "channels": ("1,000 streams on one channel while others exist", "channels", series(channels, ["pushbridge"])),
    }
    for name, (title, x, lines) in made.items():
        if lines:
            (PLOTS / f"{name}.svg").write_text(plot.lines(title, x, y, lines))
    bars = [
        (row["title"], [(peer, least(runs[row["name"], peer], "delivery_cpu_us")) for peer in peers_of(runs, row)])
        for row in rows.ROWS
        if row["name"] in ["sse-10k", "sse-1000x10", "ws-10k", "lp-1k", "sse-tls-1k", "sse-h2-10k"]
    ]
    bars = [(title, values) for title, values in bars if values]
    if bars:
        (PLOTS / "deliveries.svg").write_text(plot.bars("CPU time of the server a delivery, µs (log scale)", bars))


def between(text, marker, lines):
    begin, end = f"<!-- {marker} -->", f"<!-- /{marker} -->"
    if begin not in text or end not in text:
        raise SystemExit(f"{DOCUMENT} has no {begin} … {end}")
    head, rest = text.split(begin, 1)
    return head + begin + "\n" + "\n".join(lines) + "\n" + end + rest.split(end, 1)[1]


def write(folder):
    runs = load(folder)
    if not runs:
        raise SystemExit(f"no runs in {folder}; make bench takes them")
    text = DOCUMENT.read_text()
    text = between(text, "machine", machine(runs))
    text = between(text, "deliveries", delivery_table(runs))
    text = between(text, "requests", request_table(runs))
    DOCUMENT.write_text(text)
    plots(runs)
    print(f"{DOCUMENT} and {PLOTS} are made of {sum(map(len, runs.values()))} runs")


if __name__ == "__main__":
    write(servers.WORK / "results")
