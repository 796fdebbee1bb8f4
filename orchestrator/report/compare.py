"""Several runs side by side: what differed between their jobs, and between what became of them.

Works on the documents of `orchestrator.report.document` alone, wherever they were made: a pure function.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from orchestrator.report.document import VERSION
from orchestrator.words import counted

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_KEPT = (
    "run_id",
    "name",
    "state",
    "created",
    "ended",
    "over",
    "figures",
    "goodput",
    "series",
    "verdict",
    "reason",
)
_RAN = (
    *("backend", "launcher", "hosts", "ranks", "zero", "precision", "batch", "micro_batch", "accumulation"),
    *("python", "resumes", "point"),
)


def compare(documents: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return `runs` (as much of each document as a comparison shows) and `differences`.

    A difference is `key`, `where` (job, ran or software) and `values`, one of each run: a text, or None where
    a run has no such key.
    """
    return {
        "compare": VERSION,
        "made": max(document["made"] for document in documents),
        "orchestrate": documents[0]["orchestrate"],
        "runs": [{name: document[name] for name in _KEPT} | _shape(document) for document in documents],
        "differences": list(differences(documents)),
    }


def _shape(document: dict[str, Any]) -> dict[str, Any]:
    return {"ran": {name: document["ran"][name] for name in ("ranks", "hosts") if name in document["ran"]}}


def differences(documents: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield what is not the same in all runs: of the job files, of what they came to, of the software."""
    seen: set[str] = set()
    for where, tables in (
        ("job", [_flat(_job(document["job"])) for document in documents]),
        ("ran", [_ran(document) for document in documents]),
        ("DeepSpeed", [_flat(document["ran"].get("deepspeed") or {}) for document in documents]),
        ("software", [_software(document) for document in documents]),
    ):
        for key in dict.fromkeys(key for table in tables for key in table if key):
            values = [table.get(key) for table in tables]
            if len(set(values)) > 1 and f"{where}.{key}" not in seen:
                seen.add(f"{where}.{key}")
                yield {"where": where, "key": key, "values": values}


def _job(text: str) -> Any:
    """Return a job file's content; {} where it cannot be read."""
    import yaml  # noqa: PLC0415 - only a comparison reads one again

    try:
        return yaml.safe_load(text) or {}
    except yaml.YAMLError:
        return {}


def _flat(value: Any, path: str = "") -> dict[str, str]:
    """Return the leaves of nested sections by their dotted key; so are the options in a list of words."""
    if isinstance(value, list) and any(str(word).startswith("--") for word in value):
        return {f"{path} {name}".rstrip(): words for name, words in _options([str(word) for word in value])}
    if isinstance(value, dict) and value:
        return {
            name: words
            for key, child in value.items()
            for name, words in _flat(child, f"{path}.{key}" if path else str(key)).items()
        }
    return {path: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)}


def _options(words: list[str]) -> Iterator[tuple[str, str]]:
    """Yield each option of a command line with its values; what stands before the first has no name."""
    name, values = "", []
    for word in words:
        if not word.startswith("--"):
            values.append(word)
            continue
        if name or values:
            yield name, " ".join(values)
        name, _, value = word.partition("=")
        values = [value] if value else []
    yield name, " ".join(values)


def _ran(document: dict[str, Any]) -> dict[str, str]:
    ran, git = document["ran"], document["ran"].get("git") or {}
    found = {name.replace("_", " "): str(ran[name]) for name in _RAN if name in ran}
    changed = f", {counted(git['changed'], 'file')} changed" if git.get("changed") else ""
    return found | ({"git commit": f"{git['commit'][:12]}{changed}"} if git.get("commit") else {})


def _software(document: dict[str, Any]) -> dict[str, str]:
    return {name: ", ".join(sorted(versions)) for name, versions in document["software"].items()}
