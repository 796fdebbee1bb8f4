"""A stand-in for a training script: no torch, a start in hundredths of a second, many ways to misbehave.

Each rank writes what it was given to `--report DIR` as `rank-K.json`, and prints it as a line `REPORT {…}`.
In the same folder: `rank-K.sigterm` and `rank-K.exit` hold the time (seconds since the epoch) at which the
first SIGTERM came and at which the rank ended itself. Arguments it does not know (`--local_rank=0`, of
DeepSpeed's launcher) are reported and otherwise ignored.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

RANK = int(os.environ.get("RANK", "0"))
REPORTED = (
    *("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK"),
    *("WORLD_SIZE", "LOCAL_SIZE", "LOCAL_WORLD_SIZE", "CROSS_RANK", "CROSS_SIZE"),
    *("MASTER_ADDR", "MASTER_PORT", "CUDA_VISIBLE_DEVICES", "GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"),
    *("TORCHELASTIC_ERROR_FILE", "TORCHELASTIC_RESTART_COUNT"),
)

# How children hide from whoever wants to end them; `--children N` takes these in turn. The sleeper itself
# prints its pid, so that its session is its own by then.
SLEEPER = "sh -c 'echo $$; exec sleep 3600 >&2'"
CHILDREN = (
    f"{SLEEPER} &",
    f"setsid {SLEEPER} &",
    f"(setsid {SLEEPER} &)",  # orphaned: its parent ends at once
    f"(env -i setsid {SLEEPER} &)",  # orphaned, and its environment no longer tells whose it is
)


def arguments() -> tuple[argparse.Namespace, list[str]]:
    """Parse what this script knows, and keep the rest."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    add = parser.add_argument
    add("--report", type=Path, metavar="DIR", help="folder for the reports; made when missing")
    add("--env", action="append", default=[], metavar="NAME", help="report this variable too")
    add(
        "--fail-rank",
        default=None,
        metavar="R[,R…]|all",
        help="who fails; default 0 once a way to fail is given",
    )
    add("--exit-code", type=int, help="fail by this exit code (default 1)")
    add("--signal", metavar="S", help="fail by a signal to itself: a name such as SIGSEGV, or a number")
    add("--raise", dest="message", metavar="MESSAGE", help="fail by an exception")
    add("--after", type=float, default=0, metavar="SECONDS", help="wait before failing")
    add("--sleep", type=float, default=0, metavar="SECONDS", help="live this long (ranks that do not fail)")
    add("--until", type=Path, metavar="FILE", help="live until this file is there")
    add("--ignore-sigterm", action="store_true", help="go on after SIGTERM; children ignore it too")
    add("--children", type=int, default=0, metavar="N", help="start N grandchildren that sleep for an hour")
    add("--lines", type=int, default=0, metavar="N", help="print N numbered lines on stdout and on stderr")
    add("--line-delay", type=float, default=0, metavar="SECONDS", help="wait after each of them")
    add("--tail", default="", metavar="TEXT", help="end stdout with this text and no newline")
    add("--bind-master-port-once", type=Path, metavar="MARKER", help="rank 0 collides on MASTER_PORT, once")
    return parser.parse_known_args()


def note(options: argparse.Namespace, kind: str, text: str) -> None:
    """Write a file of the report folder at once and whole."""
    if options.report is None:
        return
    with contextlib.suppress(FileExistsError):
        options.report.mkdir(parents=True)
    draft = options.report / f".rank-{RANK}.{kind}.{os.getpid()}"
    draft.write_text(text, encoding="utf-8")
    draft.rename(options.report / f"rank-{RANK}.{kind}")


def on_sigterm(options: argparse.Namespace) -> None:
    """Note the time of the first SIGTERM, and die of it unless told to ignore it."""

    def handler(number: int, _frame: object) -> None:
        signal.signal(number, signal.SIG_IGN)  # torchrun and the agent may both send one
        note(options, "sigterm", repr(time.time()))
        if not options.ignore_sigterm:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    signal.signal(signal.SIGTERM, handler)


def start_children(options: argparse.Namespace) -> list[int]:
    """Start the grandchildren and return their pids; they keep this rank's stderr open, as real ones do."""
    trap = "trap '' TERM; " if options.ignore_sigterm else ""
    pids = []
    for number in range(options.children):
        script = trap + CHILDREN[number % len(CHILDREN)]
        said = subprocess.run(["sh", "-c", script], stdout=subprocess.PIPE, check=True).stdout
        pids.append(int(said))
    return pids


def report(options: argparse.Namespace, unknown: list[str], children: list[int]) -> None:
    """Say what this rank was given."""
    facts = {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "parent": os.getppid(),
        "uid": os.getuid(),
        "cwd": str(Path.cwd()),
        "argv": sys.argv,
        "unknown": unknown,
        "python": sys.executable,
        "children": children,
        "time": time.time(),
        "env": {name: os.environ.get(name) for name in (*REPORTED, *options.env)},
    }
    print("REPORT", json.dumps(facts), flush=True)
    note(options, "json", json.dumps(facts, indent=1) + "\n")


def print_lines(options: argparse.Namespace) -> None:
    """Print numbered lines, so that a lost or doubled one shows."""
    for number in range(options.lines):
        print(f"out rank {RANK} line {number}", flush=True)
        print(f"err rank {RANK} line {number}", file=sys.stderr, flush=True)
        time.sleep(options.line_delay)
    print(options.tail, end="", flush=True)


def collide_once(marker: Path) -> None:
    """Bind MASTER_PORT twice, which ends in the real OSError; not again once the marker exists."""
    try:
        marker.touch(exist_ok=False)
    except FileExistsError:
        return
    place = ("", int(os.environ["MASTER_PORT"]))
    with socket.socket() as first, socket.socket() as second:
        first.bind(place)
        first.listen()
        second.bind(place)


def rest(seconds: float) -> None:
    """Sleep in short pieces: Python hears a signal that comes just before a long one when that is over."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        time.sleep(min(left, 0.2))


def fails(options: argparse.Namespace) -> bool:
    """Say whether this rank is one that fails."""
    ways = (options.exit_code, options.signal, options.message, options.fail_rank)
    if all(way is None for way in ways):
        return False
    who = options.fail_rank or "0"
    return who == "all" or str(RANK) in who.split(",")


def fail(options: argparse.Namespace) -> None:
    """End as told. Does not return."""
    rest(options.after)
    note(options, "exit", repr(time.time()))
    if options.message is not None:
        raise RuntimeError(options.message)
    if options.signal is not None:
        number = int(options.signal) if options.signal.isdigit() else signal.Signals[options.signal]
        signal.signal(number, signal.SIG_DFL) if number not in (signal.SIGKILL, signal.SIGSTOP) else None
        os.kill(os.getpid(), number)
        time.sleep(60)  # a signal that ends nobody is a mistake of the caller, and shows
    sys.exit(1 if options.exit_code is None else options.exit_code)


def main() -> None:
    """Report, then fail, or live for as long as told and end well."""
    options, unknown = arguments()
    on_sigterm(options)
    report(options, unknown, start_children(options))
    print_lines(options)
    if options.bind_master_port_once and RANK == 0:
        collide_once(options.bind_master_port_once)
    if fails(options):
        fail(options)
    rest(options.sleep)
    while options.until and not options.until.exists():
        time.sleep(0.05)
    note(options, "exit", repr(time.time()))


if __name__ == "__main__":
    main()
