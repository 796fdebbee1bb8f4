"""Run a training script and note two moments: `stamp.py FOLDER SCRIPT ARGS...`.

Every rank writes the time at which it began to run into `FOLDER/rank-K.began`, and when it prints the line
of its first step (`step 1/...`; the scripts print from rank 0 only), that time into `FOLDER/first-step`. So
the moment is the same for every launcher, whatever it does with a rank's output.
"""

from __future__ import annotations

import os
import runpy
import sys
import time
from pathlib import Path
from typing import TextIO


class Stamped:
    """Standard output that notes when the first step's line passes."""

    def __init__(self, stream: TextIO, file: Path) -> None:
        self._stream = stream
        self._file = file

    def write(self, text: str) -> int:
        """Write, and look at what is written."""
        if text.startswith("step 1/"):
            note(self._file)
        return self._stream.write(text)

    def __getattr__(self, name: str):
        return getattr(self._stream, name)


def note(file: Path) -> None:
    """Write the time (seconds since the epoch) into a file, whole or not at all."""
    draft = file.with_suffix(f".{os.getpid()}")
    draft.write_text(repr(time.time()))
    draft.rename(file)


def main() -> None:
    """Run the script in this process, as if it had been started itself."""
    folder, script = Path(sys.argv[1]), sys.argv[2]
    note(folder / f"rank-{os.environ['RANK']}.began")
    sys.stdout = Stamped(sys.stdout, folder / "first-step")  # type: ignore[assignment]
    sys.argv = sys.argv[2:]
    sys.path[0] = str(Path(script).parent)
    runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    main()
