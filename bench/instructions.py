"""Counts instructions of the hot paths and compares them with bench/instructions.json: `make bench-instructions`.

A count may be 10 % over the one that was accepted. Counts are of one kind of machine (CPU, compiler, C library): on another, this says
so in one line and passes. `python3 bench/instructions.py --accept` accepts what is counted now, on this kind.

The benchmarks (benches/instructions.rs) run under callgrind, by gungraun. They are built with the development profile, so that the
dependencies are those that the tests use, with pushbridge itself optimised as a release is: a release build of all of it would take
several times as long as the whole of this.
"""

import argparse
import json
import os
import pathlib
import platform
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
ACCEPTED = ROOT / "bench" / "instructions.json"
TOOLS = ROOT / "target" / "tools"
OVER_MAX = 0.10
# Of pushbridge alone: a setting of the profile itself would have all dependencies built anew.
OPTIMISED = {"opt-level": "3", "codegen-units": "16", "debug-assertions": "false", "overflow-checks": "false"}


def kind():
    """This kind of machine."""
    model = re.search(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text())
    rustc = subprocess.run(["rustc", "--version"], capture_output=True, text=True, check=True, cwd=ROOT).stdout.split()[1]
    libc = "-".join(platform.libc_ver()) or "unknown libc"
    return " / ".join([model.group(1).strip() if model else platform.machine(), f"rustc {rustc}", libc])


def runner():
    """The program that runs the benchmarks, of the library's very version; built once."""
    lock = (ROOT / "Cargo.lock").read_text()
    version = re.search(r'name = "gungraun"\nversion = "([^"]+)"', lock).group(1)
    program = TOOLS / f"gungraun-{version}" / "bin" / "gungraun-runner"
    if not program.exists():
        command = ["cargo", "install", "gungraun-runner", "--version", version, "--locked", "--debug", "--quiet"]
        subprocess.run([*command, "--root", program.parent.parent, "--target-dir", TOOLS / "build"], check=True, cwd=ROOT)
    return program


def bench(name):
    """The command that builds and runs a benchmark."""
    command = ["cargo", "bench", "--quiet", "--profile", "dev", "--bench", name]
    for setting, value in OPTIMISED.items():
        command += ["--config", f"profile.dev.package.pushbridge.{setting}={value}"]
    return command


def count():
    """Instructions by benchmark."""
    environment = os.environ | {"CARGO_INCREMENTAL": "0", "GUNGRAUN_RUNNER": str(runner()), "GUNGRAUN_OUTPUT_FORMAT": "json"}
    done = subprocess.run(bench("instructions"), stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment)
    if done.returncode:
        raise SystemExit(f"the benchmarks failed with {done.returncode}; see above")
    return dict(sorted(map(instructions, map(json.loads, done.stdout.splitlines()))))


def instructions(summary):
    """The name and the count of one benchmark's summary."""
    name = ".".join(part for part in [summary["function_name"], summary.get("id")] if part)
    callgrind = next(profile for profile in summary["profiles"] if profile["tool"] == "Callgrind")
    return name, callgrind["data"]["total"]["metrics"]["Ir"]["values"]["new"]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--accept", action="store_true", help="accept what is counted now")
    args = parser.parse_args()
    accepted = json.loads(ACCEPTED.read_text()) if ACCEPTED.exists() else {}
    here = kind()
    if here not in accepted and not args.accept:
        print(f"instructions are not compared: bench/instructions.json has none of this kind of machine ({here})")
        return 0
    counted, before = count(), accepted.get(here, {})
    failed = 0
    for name in sorted(counted.keys() | before.keys()):
        now, then = counted.get(name), before.get(name)
        change = f"{(now / then - 1) * 100:+.1f} %" if now and then else "new" if now else "gone"
        over = not args.accept and (not now or not then or now > then * (1 + OVER_MAX))
        failed += over
        print(f"{name:45} {now or 0:>10,} {change:>9}{'  over the bound' if over else ''}")
    if args.accept:
        accepted[here] = counted
        ACCEPTED.write_text(json.dumps(accepted, indent=1, sort_keys=True) + "\n")
    elif failed:
        print(f"{failed} of {len(counted)} are more than {OVER_MAX:.0%} over bench/instructions.json, or not in it.")
        print("Make them cheaper, or accept them with a reason: python3 bench/instructions.py --accept")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
