"""Look at the tag, convert it, trim what every rank would read; say how it went."""

from __future__ import annotations

import json
import os
import sys
from typing import Any, Dict

from .convert import convert
from .look import UnfitError, look
from .trim import trim


def main(argv: list[str]) -> int:
    """Convert the tag `argv[1]` into `argv[2]` by `argv[3]` processes with `argv[4]` bytes; return 0 or 1."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what the libraries print is no answer: it goes to stderr

    def tell(answer: Dict[str, Any]) -> None:
        print(json.dumps(answer), file=answers, flush=True)

    os.environ["DS_ACCELERATOR"] = "cpu"  # a GPU has nothing to do here, and may belong to somebody
    try:
        import deepspeed  # noqa: PLC0415 - what is missing is said in a line of JSON, too
    except Exception as error:  # noqa: BLE001 - ImportError, MissingCUDAException, OSError of a library
        what = f"DeepSpeed cannot be imported: {error}"
        tell({"problem": {"what": what, "fix": "name a Python that has DeepSpeed: --python PYTHON"}})
        return 1
    # DeepSpeed puts these paths, unescaped, into patterns: so they are short and none of the user's.
    os.chdir(argv[1])
    try:
        seen = look()
        convert(seen, argv[2], int(argv[3]), int(argv[4]), tell)
        trim(seen, argv[2])
    except UnfitError as error:
        tell({"problem": {"what": error.what, "fix": error.fix}})
        return 1
    tell({"deepspeed": str(deepspeed.__version__).strip(), "notes": seen.notes})
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv))
