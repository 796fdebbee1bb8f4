"""DeepSpeed's own conversion, told how many processes the memory allows, and heard while it works."""

from __future__ import annotations

import argparse
import traceback
import types
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Callable, Dict, Iterator, List

from .look import Seen, UnfitError

_PHASES = ("extract", "merge")
_PROCESS = 256 << 20  # bytes that a process takes besides tensors: what it does not share with its parent
_TOLD = 200  # lines of progress in a phase


def convert(
    seen: Seen, output: str, workers: int, memory: int, tell: Callable[[Dict[str, Any]], None]
) -> None:
    """Convert the tag in the current folder into the folder `output`.

    Args:
        seen: what it holds.
        output: the folder to make.
        workers: the most processes at a time.
        memory: bytes that they may take together.
        tell: is called with each line of progress.

    Raises:
        UnfitError: DeepSpeed refuses it, or fails.
    """
    from deepspeed.checkpoint import ds_to_universal  # noqa: PLC0415 - after DeepSpeed is known to be there

    # A process that extracts holds a shard; one that merges, the pieces of a parameter and the whole of it.
    extracting, merging = seen.shard_bytes, 8 * seen.largest
    arguments = argparse.Namespace(
        input_folder=".",
        output_folder=output,
        num_extract_workers=_fitting(min(workers, seen.shards), memory, extracting),
        num_merge_workers=_fitting(workers, memory, merging),
        keep_temp_folder=False,
        strict=True,
        inject_missing_state=True,  # stages 1 and 2: nothing but Megatron-DeepSpeed writes what is missed
    )
    # Its only module-wide use of tqdm is a bar around each phase (0.19.8).
    ds_to_universal.tqdm = types.SimpleNamespace(tqdm=_Bars(tell))
    try:
        ds_to_universal.main(arguments)
    except BrokenProcessPool:
        what = "a process of the conversion was killed, most likely for the memory it took"
        raise UnfitError(what, "try again with --workers 1, or on a machine with more memory") from None
    except OSError as error:
        raise UnfitError(
            f"the conversion failed: {error}", "see that the disk has room and is writable"
        ) from error
    except Exception as error:
        traceback.print_exc()
        what = f"DeepSpeed cannot convert it: {type(error).__name__}: {error}"
        raise UnfitError(what, "go on with as many ranks as saved it") from error


def _fitting(most: int, memory: int, each: int) -> int:
    return max(1, min(most, memory // (each + _PROCESS)))


class _Bars:
    """Stands in for tqdm: a call for each phase, around the list of its work."""

    def __init__(self, tell: Callable[[Dict[str, Any]], None]) -> None:
        self._tell = tell
        self._phases = iter(_PHASES)

    def __call__(self, work: Any) -> Iterator[Any]:
        phase = next(self._phases, _PHASES[-1])
        items: List[Any] = list(work)
        often = max(1, len(items) // _TOLD)
        for number, item in enumerate(items):
            if number % often == 0:
                self._tell({"phase": phase, "done": number, "of": len(items)})
            yield item
        self._tell({"phase": phase, "done": len(items), "of": len(items)})
