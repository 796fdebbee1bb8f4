"""Prompts and answers: read, dealt out to the ranks, and written in the order they were asked in.

Nothing here needs torch, so it can be tried in an instant.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

HERE = Path(__file__).resolve().parent
NOTHING = -1  # the number of a prompt that is none, asked so that no rank is missing
SHOWN = 4  # answers that are printed
STAGE = 3  # cuts up weights; the stages below cut up only what inference has not got


class Answer(NamedTuple):
    """What the model made of one prompt, and the rank that asked it."""

    number: int
    prompt: str
    answer: str
    rank: int


def here(path: str) -> str:
    """Return a path of this folder, where there is such a one; else the word as it is."""
    return str(HERE / path) if (HERE / path).exists() else path


def read_prompts(path: Path) -> list[str]:
    """Return the prompts of a file: one a line, or JSON lines with a field `prompt`.

    Raises:
        SystemExit: no such file, no prompts, or a line that is not as it has to be.
    """
    try:
        with path.open(encoding="utf-8") as file:
            lines = [line.strip() for line in file if line.strip()]
    except OSError as error:
        raise SystemExit(f"--prompts {path}: {error.strerror}; give a file with one prompt a line") from None
    if not lines:
        raise SystemExit(f"--prompts {path}: there is no prompt in it; write one a line")
    if path.suffix not in {".jsonl", ".json"}:
        return lines
    try:
        return [str(json.loads(line)["prompt"]) for line in lines]
    except (ValueError, KeyError, TypeError):
        raise SystemExit(f'--prompts {path}: every line has to be {{"prompt": "..."}}') from None


def check_stage(ds_config: dict[str, Any]) -> None:
    """Refuse a stage that inference gains nothing from, before a model is loaded.

    Raises:
        SystemExit: it is not stage 3.
    """
    stage = ds_config.get("zero_optimization", {}).get("stage", 0)
    if stage != STAGE:
        what = "cuts up no weights, and there is nothing else to cut up in inference"
        raise SystemExit(f"deepspeed.zero_stage {stage} {what}; set zero_stage: {STAGE}")


def shares(number: int, size: int, rank: int, world: int) -> Iterator[list[int]]:
    """Yield the numbers of the prompts that a rank asks together, at most `size`.

    Every rank gets equally many shares, as every call of the model needs all ranks; one that has nothing
    left asks NOTHING.
    """
    for first in range(rank * size, -(-number // (size * world)) * size * world, size * world):
        yield list(range(first, min(first + size, number))) or [NOTHING]


def write(path: Path, answers: Sequence[Answer]) -> None:
    """Write answers as JSON lines, all at once: whoever looks sees all of them or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.tmp")
    lines = (json.dumps(answer._asdict(), ensure_ascii=False) + "\n" for answer in answers)
    unfinished.write_text("".join(lines), encoding="utf-8")
    unfinished.replace(path)


def show(answers: Sequence[Answer], path: Path) -> None:
    """Write all answers and print the first ones."""
    write(path, answers)
    for answer in answers[:SHOWN]:
        print(f"{answer.prompt!r} -> {answer.answer!r}")
    print(f"wrote {len(answers)} answers to {path}", flush=True)
