"""Load the files of a folder into the classes that are installed here, and print what they say."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from .accelerate_file import load_accelerate
from .answer import Answer
from .deepspeed_file import load_deepspeed


def main(argv: list[str]) -> int:
    """Load the files of the folder `argv[1]` for `argv[2]` ranks; print the answer; return the exit code."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what the libraries print is no answer: it goes to stderr
    os.chdir(argv[1])  # accelerate.yaml names the other file without a folder
    answer = Answer(_import("deepspeed"), _import("accelerate"))
    if answer.deepspeed and Path("ds_config.json").is_file():
        config = json.loads(Path("ds_config.json").read_text(encoding="utf-8"))
        load_deepspeed(config, int(argv[2]), answer)
    if answer.accelerate and Path("accelerate.yaml").is_file():
        load_accelerate(answer)
    print(json.dumps(vars(answer)), file=answers, flush=True)
    return 0


def _import(name: str) -> str | None:
    """Return the version of a package; None where it is not installed, or its import fails here.

    DeepSpeed built for CUDA does not import on a login host without; the hosts that train may do better.
    """
    try:
        return str(__import__(name).__version__).strip()  # DeepSpeed 0.16.4 has a space there
    except Exception as error:  # noqa: BLE001 - MissingCUDAException, OSError of a library, whatever it is
        print(f"{name}: {error!r}", file=sys.stderr)
        return None


if __name__ == "__main__":
    raise SystemExit(main(sys.argv))
