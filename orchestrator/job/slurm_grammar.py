"""How Slurm reads the values of its options: times, arrays, GPUs, dependencies, lists of nodes.

Written after the parsers of Slurm 22.05 and 26.05 (`src/common/parse_time.c`, `proc_args.c`, `slurm_opt.c`,
`src/slurmctld/job_scheduler.c`). A value that sbatch would refuse, or would take for something else than it
seems, is a ValueError whose text says what was expected.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from orchestrator.hosts.ranges import RangeSyntaxError, expand_nodelist

_TIME = re.compile(
    r"(?:(?P<m>[0-9]+)(?::(?P<s>[0-9]+))?"
    r"|(?P<h2>[0-9]+):(?P<m2>[0-9]+):(?P<s2>[0-9]+)"
    r"|(?P<d>[0-9]+)-(?P<h3>[0-9]+)(?::(?P<m3>[0-9]+)(?::(?P<s3>[0-9]+))?)?)\Z"
)
_TIME_EXPECTED = (
    "expected a time as sbatch has it: minutes, MM:SS, HH:MM:SS, D-HH, D-HH:MM, D-HH:MM:SS or UNLIMITED"
)
_UNIT_SECONDS = {"d": 86400, "h": 3600, "m": 60, "s": 1}

_MAX_INDEX = 4_000_000  # the largest that Slurm's MaxArraySize can be set to
_ARRAY_EXPECTED = "expected array indexes such as 0-9, 0,3 or 0-20:5%4 (at most 4 at a time)"
_ARRAY_PIECE = re.compile(r"([0-9]{1,7})(?:-([0-9]{1,7})(?::([0-9]{1,7}))?)?\Z")

_COUNT = "[0-9]+[kKmMgGtTpP]?"
_GRES = re.compile(
    r"(?:gres[:/])?(?P<name>[A-Za-z_]\w*)"
    rf"(?::(?P<type>(?!{_COUNT}\Z)[\w.+-]+))?(?::(?P<count>{_COUNT}))?\Z"
)
_GPUS = re.compile(r"(?:(?P<type>[A-Za-z0-9_][\w.+-]*):)?(?P<count>[0-9]+)\Z")
_POWERS = {letter: 1024**power for power, letter in enumerate("kmgtp", 1)}

_NODE = r"[A-Za-z0-9_][A-Za-z0-9_.-]*(?:\[[0-9,-]+\][A-Za-z0-9_.-]*)*"
_NODE_LIST = re.compile(rf"{_NODE}(?:,{_NODE})*\Z")

_DEPENDENCY_EXPECTED = (
    "expected dependencies such as afterok:1234, afterany:12:13,afternotok:14, after:15+30 or singleton"
)
_JOB = r"[1-9][0-9]*(?:_(?:[0-9]+|\*))?(?:\+[1-9][0-9]*)?"
_DEPENDENCY = re.compile(
    rf"(?:singleton|{_JOB}|(?:after|afterany|afterok|afternotok|aftercorr|afterburstbuffer|expand)(?::{_JOB})+)\Z",
    re.IGNORECASE,
)

_MINUTES = "[0-5][0-9](?::[0-5][0-9])?"
_HOUR = (
    rf"(?:(?:0?[0-9]|1[0-2]):{_MINUTES}\s*[ap]m|(?:[01]?[0-9]|2[0-3]):{_MINUTES}"
    r"|midnight|noon|fika|teatime)"
)
_MONTH_DAY = r"(?:0?[1-9]|1[0-2])[/.](?:0[1-9]|[12][0-9]|3[01])(?:[/.][0-9]{2})?"
_DAY = (
    r"(?:today|tomorrow|[0-9]{4}-(?:0?[1-9]|1[0-2])-(?:0?[1-9]|[12][0-9]|3[01])"
    rf"|{_MONTH_DAY}|(?:0[1-9]|1[0-2])(?:0[1-9]|[12][0-9]|3[01])(?:[0-9]{{2}})?)"
)
_BEGIN = re.compile(
    r"(?:now(?:\s*[+-]\s*[0-9]+\s*(?:(?:second|minute|hour|day|week)s?)?)?"
    rf"|uts[0-9]{{7,}}|{_HOUR}(?:[\s-]+{_DAY})?|{_DAY}(?:[T\s-]+{_HOUR})?)\Z",
    re.IGNORECASE,
)

MAIL_WORDS = (
    "NONE",
    "BEGIN",
    "END",
    "FAIL",
    "REQUEUE",
    "ALL",
    "INVALID_DEPEND",
    "STAGE_OUT",
    "TIME_LIMIT",
    "TIME_LIMIT_90",
    "TIME_LIMIT_80",
    "TIME_LIMIT_50",
    "ARRAY_TASKS",
)


def slurm_seconds(text: str) -> float:
    """Return a time limit in seconds, as Slurm reads it; it keeps whole minutes and rounds up to them.

    Returns:
        Seconds; infinity for UNLIMITED, INFINITE and 0, which all mean no limit.

    Raises:
        ValueError: sbatch would refuse the text.
    """
    if text.upper() in ("UNLIMITED", "INFINITE", "-1"):
        return math.inf
    match = _TIME.match(text)
    if match is None:
        raise ValueError(_TIME_EXPECTED)
    seconds = sum(
        int(number) * _UNIT_SECONDS[name[0]] for name, number in match.groupdict().items() if number
    )
    return 60.0 * math.ceil(seconds / 60) or math.inf


@dataclass(frozen=True, slots=True)
class ArrayIndexes:
    """The indexes of a job array, ascending, and how many of its tasks may run at a time."""

    indexes: tuple[int, ...]
    at_most: int | None = None


def array_indexes(text: str) -> ArrayIndexes:
    """Expand `0,3,5-9:2%4`.

    Raises:
        ValueError: sbatch would refuse the text.
    """
    body, percent, limit = text.partition("%")
    if percent and not re.fullmatch("[1-9][0-9]{0,6}", limit):
        raise ValueError(f"{_ARRAY_EXPECTED}; after % stands how many tasks may run at a time")
    found: set[int] = set()
    for piece in body.split(","):
        found.update(_array_piece(piece))
    return ArrayIndexes(tuple(sorted(found)), int(limit) if percent else None)


def _array_piece(piece: str) -> range:
    match = _ARRAY_PIECE.match(piece)
    if match is None:
        raise ValueError(_ARRAY_EXPECTED)
    first, last, step = int(match[1]), int(match[2] or match[1]), int(match[3] or 1)
    if last < first:
        raise ValueError(f"the range {piece} runs backwards")
    if last > _MAX_INDEX:
        raise ValueError(f"{last} is more than the {_MAX_INDEX} that Slurm counts to")
    if step < 1:
        raise ValueError(f"the step of {piece} has to be 1 or more")
    return range(first, last + 1, step)


@dataclass(frozen=True, slots=True)
class Resource:
    """One generic resource of each node: `gpu:h100:8` is 8 of name gpu and type h100."""

    name: str
    type: str | None
    count: int


def gres_items(text: str) -> tuple[Resource, ...]:
    """Read `--gres`: `name[:type][:count]` parted by commas, or `none`, which asks for nothing.

    Raises:
        ValueError: sbatch would refuse the text.
    """
    if text.lower() == "none":
        return ()
    return tuple(_resource(item) for item in text.split(","))


def _resource(item: str) -> Resource:
    match = _GRES.match(item)
    if match is None:
        raise ValueError("expected name:count or name:type:count, for example gpu:8 or gpu:h100:8")
    digits = (match["count"] or "1").lower()
    power = _POWERS.get(digits[-1], 1)
    return Resource(match["name"], match["type"], int(digits.rstrip("kmgtp")) * power)


def gpu_items(text: str) -> tuple[Resource, ...]:
    """Read `--gpus-per-node`: `8`, `h100:8`, or several types parted by commas.

    Raises:
        ValueError: sbatch would refuse the text.
    """
    matches = [_GPUS.match(item) for item in text.split(",")]
    items = tuple(Resource("gpu", match["type"], int(match["count"])) for match in matches if match)
    if len(items) < len(matches):
        raise ValueError("expected a number of GPUs or type:number, for example 8 or h100:8")
    return items


def node_names(text: str) -> tuple[str, ...]:
    """Expand a nodelist in Slurm's own notation, `node[001-128],login`, in the order written.

    Raises:
        ValueError: it is none; the name of a file (with a `/`), which sbatch takes too, is refused.
    """
    if not _NODE_LIST.match(text):
        raise ValueError("expected host names as Slurm has them: node[01-04,7],login")
    try:
        return tuple(dict.fromkeys(expand_nodelist(text)))
    except RangeSyntaxError as error:
        raise ValueError(f"bad list of nodes: {error}") from None


def check_names(text: str) -> str:
    """Return `text` if it is a name or several parted by commas.

    Raises:
        ValueError: a name is empty or holds white space.
    """
    if not re.match(r"[^\s,]+(?:,[^\s,]+)*\Z", text):
        raise ValueError("expected a name, or several with commas and no spaces")
    return text


def check_dependency(text: str) -> str:
    """Return `text` if slurmctld reads it as dependencies: `afterok:12:13,afterany:14` or `singleton`.

    Raises:
        ValueError: it would be refused, or mean something else than it seems.
    """
    if "," in text and "?" in text:
        raise ValueError("joins with both , (all of these) and ? (one of these); Slurm takes one kind")
    for item in re.split("[,?]", text):
        kind, _, jobs = item.partition(":")
        if not item or (":" in item and not jobs):
            raise ValueError(f"names no job to wait for; {_DEPENDENCY_EXPECTED}")
        if not _DEPENDENCY.match(item):
            raise ValueError(_DEPENDENCY_EXPECTED)
        if "+" in jobs and kind.lower() != "after":
            raise ValueError(f"only after:JOB+MINUTES waits some minutes, {kind} does not")
    return text


def check_begin(text: str) -> str:
    """Return `text` if sbatch reads it as a time to begin at.

    Raises:
        ValueError: it would be refused.
    """
    if not _BEGIN.match(text):
        raise ValueError(
            "expected a start as sbatch has it: now+2hours, 16:00, tomorrow, 2030-01-31T12:00 or 01/31"
        )
    return text


def check_memory(text: str) -> str:
    """Return `text` if sbatch reads it as an amount of memory; without a unit it means MiB.

    Raises:
        ValueError: it would be refused; so are fractions, which Slurm does not know.
    """
    if not re.match(r"[0-9]+(?:[KMGT]B?)?\Z", text, re.IGNORECASE):
        raise ValueError("expected whole MiB or a number with K, M, G or T, for example 500G; 0 is all of it")
    return text


def check_switches(text: str) -> str:
    """Return `text` if it is a number of switches, with the longest time to wait for them: `2@1:00:00`.

    Raises:
        ValueError: sbatch would refuse it, or overlook a wrong time.
    """
    count, at, time = text.partition("@")
    if not re.fullmatch("[1-9][0-9]*", count):
        raise ValueError("expected a number of switches, or with the longest wait 2@1:00:00")
    if at:
        slurm_seconds(time)
    return text


def check_licenses(text: str) -> str:
    """Return `text` if it is a list of licences: `name[@server][:count],…`.

    Raises:
        ValueError: it is none.
    """
    if not re.match(r"[^\s,:|]+(?::[1-9][0-9]*)?(?:[,|][^\s,:|]+(?::[1-9][0-9]*)?)*\Z", text):
        raise ValueError("expected licences with their numbers, for example matlab:2,ansys")
    return text


def mail_words(text: str) -> str:
    """Return the events mail is sent for in the words of sbatch, which overlooks what it does not know.

    Raises:
        ValueError: one of the words is unknown.
    """
    words = [word.strip().upper() for word in text.split(",")]
    unknown = [word for word in words if word not in MAIL_WORDS]
    if unknown:
        known = ", ".join(MAIL_WORDS)
        raise ValueError(f"no mail is sent for {unknown[0] or 'an empty word'}; known are {known}")
    return ",".join(words)
