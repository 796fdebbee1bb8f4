"""A diagnosis: what failed first, what kind of failure that is, the lines that say so, and what to try."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Evidence:
    """A line that the diagnosis rests on.

    Attributes:
        file: path below the run directory.
        line: its number, from 1; None where that is not known.
        time: when it came, epoch seconds of the supervisor's clock; None where that is not known.
    """

    file: str
    line: int | None
    text: str
    time: float | None = None

    @property
    def place(self) -> str:
        """Return `file:line`, as editors take it."""
        return self.file if self.line is None else f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True)
class Suspect:
    """What failed first, or may have: a rank, or a host where `rank` is None.

    Attributes:
        gpu: index of the rank's GPU on its host.
        time: epoch seconds of the supervisor's clock.
        log: file name of the log to read, below the attempt's `logs`.
    """

    host: str
    rank: int | None = None
    local_rank: int | None = None
    gpu: int | None = None
    exit_code: int | None = None
    signal: int | None = None
    message: str = ""
    time: float | None = None
    log: str = ""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What became of an attempt and what can be done about it.

    Attributes:
        undetermined: something failed first, and the evidence cannot tell which of `candidates`.
        category: the kind of failure, an id of patterns.yaml; "" for a run that goes on or went well.
        title: the category in words.
        step: the last step that was told of before the failure.
        message: what the first failure said, in one line.
        summary: all of it in one sentence.
        stopped: how many ranks were stopped because of it.
        patterns: ids of the patterns that decided.
    """

    run_id: str
    attempt: int | None
    state: str
    undetermined: bool
    category: str
    title: str
    summary: str
    first: Suspect | None = None
    step: int | None = None
    message: str = ""
    evidence: tuple[Evidence, ...] = ()
    advice: tuple[str, ...] = ()
    stopped: int = 0
    candidates: tuple[Suspect, ...] = ()
    patterns: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return it as `diagnosis.json` holds it: the first failure's fields stand at the top."""
        document = asdict(self)
        first = self.first or Suspect("")
        del document["first"]
        at_top = {name: getattr(first, name) for name in ("rank", "local_rank", "gpu", "time")}
        return document | {"host": first.host or None} | at_top

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Diagnosis:
        """Read back what to_json returned.

        Raises:
            KeyError, TypeError: it is none of this version.
        """
        top = dict(document)
        host, rank = top.pop("host"), top.pop("rank")
        for name in ("local_rank", "gpu", "time"):
            del top[name]
        candidates = tuple(Suspect(**one) for one in top.pop("candidates"))
        first = next((one for one in candidates if (one.host, one.rank) == (host, rank)), None)
        evidence = tuple(Evidence(**one) for one in top.pop("evidence"))
        advice, patterns = tuple(top.pop("advice")), tuple(top.pop("patterns"))
        more: dict[str, Any] = {"first": first, "candidates": candidates, "evidence": evidence}
        return cls(**top, **more, advice=advice, patterns=patterns)
