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
ORDER = ["echo", "pushbridge", "pushbridge-grip", "pushbridge-no-log", "nchan", "nginx", "pushpin"]
NAMES = {"echo": "floor", "pushbridge": "pushbridge", "pushbridge-grip": "pushbridge", "pushbridge-no-log": "pushbridge", "nchan": "nchan", "nginx": "nginx", "pushpin": "Pushpin"}


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


def spread(runs, path, form=".2f"):
    """Least, median and most; one figure where there is one run, or all are alike."""
    values = [at(run, path) for run in runs]
    three = [format(value, form) for value in [min(values), statistics.median(values), max(values)]]
    return three[0] if len(set(three)) == 1 else " / ".join(three)


def ratio(ours, theirs, path):
    """How many times another's figure is ours: the median of the rounds."""
    return statistics.median(at(one, path) / at(other, path) for one, other in zip(ours, theirs))


def peers_of(runs, row):
    return [peer for peer in ORDER if (row["name"], peer) in runs]


def title_of(name):
    return next(row["title"] for row in rows.ROWS if row["name"] == name)


def table(heads, lines):
    """Markdown; a head that ends with a colon is of a column of figures."""
    out = ["| " + " | ".join(head.rstrip(":") for head in heads) + " |"]
    out.append("| " + " | ".join("--:" if head.endswith(":") else "---" for head in heads) + " |")
    return out + ["| " + " | ".join(map(str, line)) + " |" for line in lines]


FIGURES = {
    "delivery_cpu_us": ("CPU µs a delivery", least, ".2f"),
    "unit_cpu_us": ("CPU µs each", least, ".2f"),
    "connect_cpu_us": ("CPU µs to connect and subscribe", least, ".0f"),
    "idle_bytes": ("B a waiting session", median, ",.0f"),
    "latency_ms.p99": ("p99 ms of the others", median, ".1f"),
}


def goal_table(runs):
    lines = []
    for goal in rows.GOALS:
        name, pick, form = FIGURES[goal["figure"]]
        of = lambda row, peer: pick(runs[row, peer], goal["figure"]) if (row, peer) in runs else None
        ours = of(goal["row"], goal.get("server", "pushbridge"))
        others = {peer: of(goal["row"], peer) for peer in ["echo", "nchan", "nginx", "pushpin"]}
        bound, basis = goal["most"], None
        text = f"≤ {bound:,g}"
        if "times" in goal:
            basis, text = (goal["row"], goal["times"]), f"≤ {bound:g} × {NAMES[goal['times']]}"
        elif "times_row" in goal:
            basis, text = (goal["times_row"], "pushbridge"), f"≤ {bound:g} × without it"
        if ours is None or basis not in [None, *runs]:
            continue
        times = ratio(runs[goal["row"], goal.get("server", "pushbridge")], runs[basis], goal["figure"]) if basis else None
        shown = f" ({times:.2f} ×)" if basis else ""
        met = "yes" if (times if basis else ours) <= bound else "**no**"
        show = lambda value: "–" if value is None else format(value, form)
        peer = others["nchan"] if others["nchan"] is not None else others["nginx"]
        lines.append([f"{title_of(goal['row'])}: {name}", show(others["echo"]), show(peer), show(others["pushpin"]),
                      f"**{format(ours, form)}**{shown}", text, met])  # fmt: skip
    for growth in rows.GROWTHS:
        costs = [[run["delivery_cpu_us"] for run in runs[name, "pushbridge"]] for _, name in growth["rows"] if (name, "pushbridge") in runs]
        if len(costs) == len(growth["rows"]):
            times = statistics.median(max(of_round) / min(of_round) for of_round in zip(*costs))
            counts = ", ".join(f"{count:,}" for count, _ in growth["rows"])
            lines.append([f"{growth['title']}: dearest over cheapest of {counts} {growth['unit']}", "–", "–", "–", f"**{times:.2f} ×**",
                          f"≤ {rows.GROWTH_MAX} ×", "yes" if times <= rows.GROWTH_MAX else "**no**"])  # fmt: skip
    for one, two in rows.SCALINGS:
        rate = scaling(runs, one, two)
        if rate:
            lines.append([f"{title_of(two)}: rate over that of one", "–", "–", "–", f"**{rate:.2f} ×**", f"≥ {rows.SCALING_MIN} ×",
                          "yes" if rate >= rows.SCALING_MIN else "**no**"])  # fmt: skip
    return table(["row", "floor:", "nginx, nchan:", "Pushpin:", "pushbridge:", "goal:", "met"], lines)


def scaling(runs, one, two):
    """How much more two runtimes deliver than one, each with a core of its own.

    Clients take half of the machine, so the rate itself can't be had here. The busiest of two threads is done with its part of the
    deliveries after its CPU time; one runtime with all of them after its own. The quotient of both is the gain.
    """
    got = [runs.get((name, "pushbridge")) for name in [one, two]]
    return ratio(got[0], got[1], "busiest_cpu_us") if all(got) else None


def delivery_table(runs):
    lines = []
    for row in rows.ROWS:
        if row["command"] != "fan-out":
            continue
        floor = runs.get((row["name"], "echo"))
        title = f"{row['title']} (`{row['name']}`)"
        for peer in peers_of(runs, row):
            got = runs[row["name"], peer]
            times = f"{ratio(got, floor, 'delivery_cpu_us'):.2f}" if floor and peer != "echo" else ""
            cells = [
                title, NAMES[peer], len(got), spread(got, "delivery_cpu_us"), times, f"{median(got, 'deliveries_per_s'):,.0f}",
                f"{median(got, 'latency_ms.p50'):.1f}", spread(got, "latency_ms.p99", ".1f"),
                f"{sum(run['lost'] for run in got):,}/{sum(run['expected'] for run in got):,}",
                f"{sum(run['duplicates'] for run in got)}, {sum(run['reordered'] for run in got)}",
                f"{median(got, 'client_cpu_us'):.2f}",
            ]  # fmt: skip
            lines.append(cells)
            title = ""
    return table(["row", "server", "runs:", "CPU µs a delivery:", "× floor:", "deliveries/s:", "p50 ms:", "p99 ms:", "lost:",
                  "doubled, reordered:", "client CPU µs:"], lines)  # fmt: skip


def session_table(runs):
    """Memory and the cost of a beginning: the rows with one channel."""
    lines = []
    for row in rows.ROWS:
        if row["command"] != "fan-out" or not re.fullmatch(r"(sse|ws|lp|sse-tls|sse-h2|grip-sse|grip-ws|grip-lp)-\d+k", row["name"]):
            continue
        title = row["title"]
        for peer in peers_of(runs, row):
            if peer == "echo":
                continue
            got = runs[row["name"], peer]
            lines.append([title, NAMES[peer], spread(got, "idle_bytes", ",.0f"), spread(got, "after_bytes", ",.0f"),
                          spread(got, "connect_cpu_us", ".0f"), f"{max(run['rss_bytes'] for run in got) / 1024 / 1024:,.0f}"])  # fmt: skip
            title = ""
    return table(["row", "server", "B a session, waiting:", "B a session, after messages:", "CPU µs to connect and subscribe:",
                  "RSS MiB at most:"], lines)  # fmt: skip


def request_table(runs):
    lines = []
    for row in rows.ROWS:
        if row["command"] != "requests":
            continue
        title = f"{row['title']} (`{row['name']}`)"
        for peer in peers_of(runs, row):
            got = runs[row["name"], peer]
            lines.append([title, NAMES[peer], len(got), spread(got, "unit_cpu_us"), f"{median(got, 'units_per_s'):,.0f}",
                          f"{median(got, 'latency_ms.p50'):.2f}", f"{median(got, 'latency_ms.p99'):.2f}",
                          sum(run["failed"] for run in got)])  # fmt: skip
            title = ""
    return table(["row", "server", "runs:", "CPU µs each:", "each/s:", "p50 ms:", "p99 ms:", "failed:"], lines)


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
    rustc = version(["rustc", "--version"], r"rustc ([0-9.]+)")
    return [
        f"{model.group(1) if model else platform.machine()}, {cores} cores (shared with other guests), {memory:.0f} GiB, "
        f"Linux {platform.release().split('-')[0]}, {' '.join(platform.libc_ver())}, {servers.FILES:,} files a process; pushbridge at {commit} built by rustc {rustc}, nginx {version(['nginx', '-v'], r'nginx/([0-9.]+)')} with nchan {nchan}, "
        f"Pushpin {version(['pushpin', '--version'], r'([0-9.]+)')}; {' to '.join(dict.fromkeys([days[0], days[-1]]))}."
    ]


def growth(runs, peer, names):
    """How the cost grows with sessions: (how many, the least CPU µs a delivery of each run)."""
    return [(count, [run["delivery_cpu_us"] for run in runs[name, peer]]) for count, name in names if (name, peer) in runs]


def plots(runs):
    """Draws them; the lines of the page that show them."""
    PLOTS.mkdir(exist_ok=True)
    shown = []
    for what in rows.GROWTHS:
        series = {peer: points for peer in what["peers"].split() if (points := growth(runs, peer, what["rows"]))}
        if series:
            drawing = plot.lines(what["title"], what["unit"], "CPU µs a delivery", series)
            shown.append(draw(what["name"], f"CPU time a delivery over {what['unit']}: {what['title']}", drawing))
    bars = [
        (row["title"], [(peer, least(runs[row["name"], peer], "delivery_cpu_us")) for peer in peers_of(runs, row)])
        for row in rows.ROWS
        if row["name"] in ["sse-10k", "sse-1000x10", "ws-10k", "lp-1k", "sse-tls-1k", "sse-h2-10k"]
    ]
    bars = [(title, values) for title, values in bars if values]
    if bars:
        shown.append(draw("deliveries", "CPU time a delivery, by server", plot.bars("CPU time of the server a delivery, µs (log scale)", bars)))
    return [line for lines in shown for line in [*lines, ""]][:-1]


def draw(name, what, drawing):
    (PLOTS / f"{name}.svg").write_text(drawing)
    return [f"![{what}]({PLOTS.name}/{name}.svg)"]


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
    parts = {
        "machine": machine(runs), "goals": goal_table(runs), "plots": plots(runs), "deliveries": delivery_table(runs),
        "sessions": session_table(runs), "requests": request_table(runs),
    }  # fmt: skip
    for marker, lines in parts.items():
        text = between(text, marker, lines)
    DOCUMENT.write_text(text)
    print(f"{DOCUMENT} and {PLOTS} are made of {sum(map(len, runs.values()))} runs")


if __name__ == "__main__":
    write(servers.WORK / "results")
