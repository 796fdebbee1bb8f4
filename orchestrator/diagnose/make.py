"""Make the diagnosis of a run from its directory."""

from __future__ import annotations

import bisect
import json
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from orchestrator.diagnose.choose import TIMED_OUT, Found, choose
from orchestrator.diagnose.facts import facts_of
from orchestrator.diagnose.gather import Case, gather, gpu_of
from orchestrator.diagnose.model import Diagnosis, Evidence, Suspect
from orchestrator.diagnose.patterns import Book, load
from orchestrator.diagnose.sentence import sentence, short
from orchestrator.diagnose.text import Line, Text, crash_frame, own_frame
from orchestrator.monitor.flight import examine, named, read_all
from orchestrator.plan import file_name
from orchestrator.rundir import read_json
from orchestrator.states import State

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from orchestrator.rundir import RunDir

_MOST_EVIDENCE = 8
_TOLD_BY_WORDS = frozenset(
    {"script_error", "assertion", "unknown", "exit_code", "host_failed", "straggler", "refused"}
)
_FEW = 8  # ranks that one can look through
_SHOWN_RANKS = 3  # of those that hang together
_OF_NCCL = ("nccl_error", "ranks_differ")
_MOST_RECORDS = 32 << 20  # bytes of flight recorders' files, of which a MB takes some 45 ms
_FIELD = re.compile(r"{(\w+)}")


def diagnose(run: RunDir, attempt: int | None = None, *, patterns: Sequence[str] = ()) -> Diagnosis:
    """Return what became of a run, why, and what to try.

    Args:
        run: the run.
        attempt: which attempt; None for the run's end, which is its last attempt's.
        patterns: more files of patterns; those of the job file count as well.

    Raises:
        JobFileError: a file of patterns cannot be used.
    """
    case = gather(run, attempt)
    own = case.plan.monitor.patterns if case.plan is not None else ()
    book = load((*patterns, *own))
    return _made(case, _with_records(case, choose(case, book)), book)


def _with_records(case: Case, found: Found) -> Found:
    """Return it with what the flight recorders tell of ranks that waited until they timed out, or hang.

    Of an error of NCCL they are a reason if ranks were in unlike collectives; who is behind may be a victim.
    """
    if found.category not in {*TIMED_OUT, *_OF_NCCL} or case.attempt is None or case.plan is None:
        return found
    finding = examine(read_all(case.attempt.dumps, most=_MOST_RECORDS), case.plan.world_size)
    if found.category in _OF_NCCL and (finding is None or finding.kind != "differs"):
        return found
    return replace(found, flight=finding)


def _made(case: Case, found: Found, book: Book) -> Diagnosis:
    first, candidates, undetermined = _who(case, found)
    category = book.categories.get(found.category)
    title = category.title if category else ""
    said = "\n".join(
        text.joined for texts in case.texts[:1] for text in texts if text.kind in {"raised", "message"}
    )
    facts = facts_of(case, said)
    words = _words(case, found, first)
    message = _message(case, found, title, words)
    advice = [one.text for one in category.advice if one.fits(facts)] if category else []
    return Diagnosis(
        run_id=case.run.run_id,
        attempt=case.attempt.number if case.attempt else None,
        state=case.state,
        undetermined=undetermined,
        category=found.category,
        title=title,
        summary=sentence(case, found, first, candidates, message),
        first=first,
        step=case.step if found.category else None,
        message=message,
        evidence=tuple(_evidence(case, found)),
        advice=tuple(filter(None, (_filled(text, words) for text in advice))),
        stopped=case.stopped,
        candidates=candidates,
        patterns=(found.pattern.name,) if found.pattern else (),
    )


def _who(case: Case, found: Found) -> tuple[Suspect | None, tuple[Suspect, ...], bool]:
    """Return the first failure, all candidates, and whether it is undetermined; of a hang, who is stuck."""
    if found.hang is None and found.flight is not None and found.category in TIMED_OUT:
        late = tuple(_stuck(case, rank, found) for rank in found.flight.culprits)
        return (late[0] if len(late) == 1 else None), late, len(late) != 1
    if found.hang is None:
        first = case.suspects[0] if len(case.suspects) == 1 and not case.undetermined else None
        return first, case.suspects, case.state == State.FAILED and first is None and bool(case.suspects)
    stuck = tuple(_stuck(case, rank, found) for rank in found.hang.data.get("ranks") or ())
    return (stuck[0] if len(stuck) == 1 else None), stuck, len(stuck) != 1


def _stuck(case: Case, rank: int, found: Found) -> Suspect:
    hosts = case.plan.hosts if case.plan is not None else ()
    host = next((host for host in hosts if rank in host.ranks), None)
    data = found.hang.data if found.hang is not None else {}
    flight = found.flight
    where = (data.get("where") or {}).get(str(rank), "") or (flight.instead if flight is not None else "")
    since = data.get("since") or data.get("time") or (flight.since if flight is not None else None)
    if host is None:
        return Suspect("", rank, message=where, time=since)
    local = rank - host.first_rank
    log = f"{host.file_name}.rank{rank}.err"
    about = (read_json(case.attempt.hosts_file) if case.attempt is not None else None) or {}
    return Suspect(host.name, rank, local, gpu_of(host, local, about), message=where, time=since, log=log)


def _words(case: Case, found: Found, first: Suspect | None) -> dict[str, str]:
    """Return what `{name}` in advice and in a pattern's `say` stands for."""
    known: dict[str, Any] = {"run": case.run.run_id, "step": case.step}
    who = first or (case.suspects[0] if case.suspects else None)
    if who is not None:
        known |= {"host": who.host, "rank": who.rank, "gpu": who.gpu, "local_rank": who.local_rank}
    if found.flight is not None and found.hang is None:
        silent: Sequence[int] = found.flight.culprits
    else:
        silent = case.silent
    if 0 < len(silent) <= _FEW:
        known |= {"silent": ",".join(map(str, silent)), "silent_ranks": named(silent)}
    record = case.run.record()
    known["job"] = str(record.get("job_file") or "JOB.yaml")
    if case.plan is not None:
        known |= {"python": case.plan.python, "hosts": len(case.plan.hosts), "ranks": case.plan.world_size}
        known["checkpoint_dir"] = case.plan.checkpoint_dir
        known |= _settings(case.plan.deepspeed or {})
    known |= (found.words or {}) | _refusal(found)
    return {name: str(value) for name, value in known.items() if value is not None}


def _refusal(found: Found) -> dict[str, str]:
    """Return what sbatch's refusal means and the way out, where its words are known."""
    if found.category != "refused":
        return {}
    from orchestrator.slurm.refusals import meaning_of  # noqa: PLC0415 - for jobs on Slurm alone

    meaning, fix = meaning_of((found.words or {}).get("said", ""))
    return {"meaning": meaning, "fix": f"{fix[0].upper()}{fix[1:]}."} if meaning else {}


def _settings(config: dict[str, Any]) -> dict[str, Any]:
    micro = config.get("train_micro_batch_size_per_gpu")
    accumulation = config.get("gradient_accumulation_steps")
    found = {"micro_batch": micro, "accumulation": accumulation}
    if isinstance(micro, int) and micro > 1 and micro % 2 == 0 and isinstance(accumulation, int):
        found |= {"half": micro // 2, "double": accumulation * 2}
    return found


def _filled(text: str, words: dict[str, str]) -> str:
    """Return a sentence with its words put in; "" where one is not known."""
    if any(name not in words for name in _FIELD.findall(text)):
        return ""
    return _FIELD.sub(lambda match: words[match[1]], text)


def _message(case: Case, found: Found, title: str, words: dict[str, str]) -> str:
    if found.pattern is not None and found.pattern.say:
        filled = _filled(found.pattern.say, words)
        if filled:
            return filled
    if found.category in _TOLD_BY_WORDS or not title:
        said = (
            found.line.text if found.line is not None else case.suspects[0].message if case.suspects else ""
        )
        return short(said) or title
    return title


def _evidence(case: Case, found: Found) -> Iterator[Evidence]:
    """Yield the lines that decided, then what else there is on the first failure; none twice."""
    seen: set[tuple[str, int | None, str]] = set()
    for text, line in _pieces(case, found):
        key = (text.file, line.number, "" if line.number else line.text)
        if line.text.strip() and text.file and key not in seen and len(seen) < _MOST_EVIDENCE:
            seen.add(key)
            yield Evidence(text.file, line.number, line.text.strip()[:500], _time_of(case, text, line))
    if not seen and found.category and case.summary:
        yield Evidence("verdict.json", None, case.summary)  # nobody has said a word


def _pieces(case: Case, found: Found) -> Iterator[tuple[Text, Line]]:
    if found.hang is not None:
        yield from _hang_pieces(case, found)
    if found.flight is not None and case.attempt is not None:
        yield Text("event", f"{case.attempt.path.name}/dumps", ()), Line(found.flight.words)
    if found.text is not None and found.line is not None:
        yield found.text, found.line
    for texts in case.texts:
        by_kind = {text.kind: text for text in texts}
        chain = by_kind.get("raised")
        frame = (own_frame(chain) or crash_frame(by_kind["error"])) if chain is not None else None
        if chain is not None and frame is not None:
            yield chain, frame
        yield from ((by_kind["message"], line) for line in by_kind["message"].lines[:1])
        if "event" in by_kind:
            yield from ((by_kind["event"], line) for line in by_kind["event"].lines[:2])
        yield from _last_words(by_kind)


def _last_words(by_kind: dict[str, Text]) -> Iterator[tuple[Text, Line]]:
    """Yield what a rank without an exception said last, for whom a log line says more than its end does."""
    if by_kind["message"].lines and "raised" in by_kind and by_kind["raised"].lines:
        return
    for kind in ("error", "output"):
        if kind in by_kind:
            yield from ((by_kind[kind], line) for line in by_kind[kind].lines[-2:])


def _hang_pieces(case: Case, found: Found) -> Iterator[tuple[Text, Line]]:
    data = found.hang.data if found.hang is not None else {}
    number = found.hang.line if found.hang is not None else None
    stuck = [str(rank) for rank in data.get("ranks") or ()]
    places = data.get("where") or {}
    for rank in stuck[:_SHOWN_RANKS]:
        if rank in places:
            yield Text("event", "events.jsonl", ()), Line(f"rank {rank} stands at {places[rank]}", number)
    dumps = [name for name in data.get("dumps") or () if name.split(".rank")[-1].split(".")[0] in stuck]
    attempt = "" if case.attempt is None else f"{case.attempt.path.name}/"
    for name in dumps[:_SHOWN_RANKS]:
        yield Text("event", f"{attempt}dumps/{name}", ()), Line("its stack", 1)


def _time_of(case: Case, text: Text, line: Line) -> float | None:
    """Return when a line of a log came, by the index of its host; supervisor's clock."""
    if text.file == "events.jsonl":
        told = next((event.data.get("time") for event in case.events if event.line == line.number), None)
        return None if told is None else float(told)
    match = re.fullmatch(r"attempt-\d+/logs/(.+?)(?:\.rank(\d+)\.(out|err)|\.log)", text.file)
    if match is None or case.attempt is None or not line.end:
        return None
    name = f"{match[2]}.{match[3]}" if match[2] else "log"
    host = next((s.host for s in case.suspects if file_name(s.host) == match[1]), match[1])
    came = _look_up(case.attempt.logs / f"{match[1]}.times", name, line.end)
    clock = (read_json(case.attempt.clocks_file) or {}).get(host) or {}
    return None if came is None else came - float(clock.get("offset", 0.0))


def _look_up(path: Path, name: str, end: int) -> float | None:
    """Return the host's time at which a log had grown to hold a line (`EPOCH NAME SIZE` lines)."""
    try:
        rows = [row.split() for row in path.read_text(encoding="utf-8", errors="replace").splitlines()]
    except OSError:
        return None
    try:
        sizes = sorted((int(row[2]), float(row[0])) for row in rows if len(row) == 3 and row[1] == name)
    except ValueError:
        return None
    at = bisect.bisect_left(sizes, (end - 1, 0.0))
    return sizes[at][1] if at < len(sizes) else None


def read_diagnosis(run: RunDir) -> Diagnosis | None:
    """Return the diagnosis of a run that has ended: the one on disk, else one made now; None while it runs.

    Never fails: a screen that shows the end of a run shows it without a diagnosis then.
    """
    if run.verdict() is None:
        return None
    try:
        return Diagnosis.from_json(json.loads(run.diagnosis_file.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError):
        pass
    try:
        return diagnose(run)
    except Exception:  # noqa: BLE001 - see above
        return None
