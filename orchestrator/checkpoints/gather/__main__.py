"""Say what the weights of a checkpoint take; write them when told to.

stdin: the request, a line of JSON (see `main`); then an empty line to go on, or its end to stop.
stdout: a line of JSON for each thing that is known: `needs`, `wrote`, `done` or `problem`.
"""

from __future__ import annotations

import errno
import json
import os
import resource
import sys
from pathlib import Path
from typing import Any

from .source import Source, UnfitError, open_source
from .write import planned, write


def main() -> int:
    """Serve one request; return the exit code.

    Its keys: `kind` (shards, module or files), `folder` and `tag`, or `files`; `out`, the folder to write
    to; `dtype` (fp32, bf16, fp16 or null for that of the source); `shard_bytes`.
    """
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # DeepSpeed reports on stdout what it does

    def tell(**what: Any) -> None:
        print(json.dumps(what), file=answers, flush=True)

    request = json.loads(sys.stdin.readline())
    try:
        source = open_source(request)
        tell(needs={"parameters": source.parameters, "bytes": source.size, "memory": source.memory})
        if sys.stdin.readline():
            tell(done=_gather(source, request, tell))
    except UnfitError as error:
        tell(problem=str(error))
    except ImportError as error:
        tell(problem=f"{sys.executable} lacks a package: {error}", fix="name another Python with --python")
    except MemoryError:
        tell(problem="the memory of this machine is full", fix="use a machine with more")
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        fix = "make room, or choose another disk; nothing of it is left" if full else ""
        tell(problem="the disk became full while OUT was written" if full else str(error), fix=fix)
    else:
        return 0
    return 1


def _gather(source: Source, request: dict[str, Any], tell: Any) -> dict[str, Any]:
    tensors = source.tensors()
    files = planned(tensors, request["dtype"], request["shard_bytes"])
    for number, file in enumerate(files, 1):
        write(file, Path(request["out"]), tensors)
        tell(wrote=file.name, number=number, of=len(files), bytes=file.size)
    names = [name for file in files for name in file.entries]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    tied = {name: of for name, of in source.tied.items() if of in names}
    dtypes = sorted({dtype for file in files for dtype in file.dtypes})
    return {"tensors": len(names), "tied": tied, "peak": peak, "dtypes": dtypes}


if __name__ == "__main__":
    raise SystemExit(main())
