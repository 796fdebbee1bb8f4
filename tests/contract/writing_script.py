"""Ranks that write what breaks programs which read logs, and whose log files are cut short and replaced.

Each rank notes in `FOLDER/rank-K.out` and `.err` what it writes to its own stdout and stderr, and goes from
one step to the next once FOLDER holds a file that is called like it.
"""

import os
import random
import sys
import time
from pathlib import Path

FOLDER = Path(sys.argv[-1])
RANK = int(os.environ["RANK"])
STEPS = ("cut", "dark", "end")


def write(number: int, data: bytes) -> None:
    """Write to a stream, piece by piece as pipes and terminals make them, and note it."""
    with (FOLDER / f"rank-{RANK}.{'out' if number == 1 else 'err'}").open("ab") as noted:
        noted.write(data)
    while data:
        data = data[os.write(number, data[:70_001]) :]


def wait_for(step: str) -> None:
    """Say that all before a step is written, and wait for it."""
    (FOLDER / f"before-{step}-{RANK}").touch()
    while not (FOLDER / step).exists():
        time.sleep(0.02)


def junk(size: int) -> bytes:
    """Return bytes that are no text, in lines."""
    return random.Random(RANK * 1000 + size).randbytes(size)


def main() -> None:
    """Write, have the own log file cut short, replaced while the cable is out, and end without a newline."""
    path = str(Path("/proc/self/fd/1").readlink())
    bar = b"".join(b"\r%3d%%|\xe2\x96\x88| %d/100 [00:01<00:02]" % (n, n) for n in range(100))
    write(1, b"\x1b[31mred\x1b[0m caf\xe9 \xff\xfe\0\n" + bar + b"\r\n" + junk(50_000))
    write(2, bar)
    if RANK == 0:
        write(1, b"x" * 10_000_000 + b"\n")
    wait_for("cut")
    os.truncate(path, 0)
    write(1, b"after the cut\n" + junk(1000))
    wait_for("dark")
    write(1, junk(3_000_000))
    write(2, junk(200_000))
    Path(path).rename(path + ".1")
    write(1, b"to the file that was moved away\n")
    with Path(path).open("ab") as new:
        data = b"to the new one\n" + junk(500)
        new.write(data)
    with (FOLDER / f"rank-{RANK}.out").open("ab") as noted:
        noted.write(data)
    wait_for("end")
    write(1, b"the end, without a newline")


main()
