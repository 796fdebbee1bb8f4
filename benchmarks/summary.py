"""Write the table of results/README.md from the raw figures in results/*.json; nothing else goes into it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.bench import Summary, table

_RESULTS = Path(__file__).parent / "results"
_HEAD = """# Results

Written by `python -m benchmarks.summary` from the JSON files beside it, which hold every single figure.
The first number is the median, the range after it is minimum to maximum over the runs (for a ratio: over
the rounds).
"""


def section(document: dict[str, Any]) -> str:
    """Return one comparison as Markdown."""
    goals = [_goal(goal) for goal in document["goals"]]
    goals = ["| goal | limit | measured | |", "|---|---|---|---|", *goals, ""] if goals else []
    head, rows = table(document.get("layout", "figures"), document["samples"])
    figures = [_line(head), "|---" * len(head) + "|", *map(_line, rows)]
    versions = ", ".join(f"{name} {version}" for name, version in document["versions"].items())
    machine = document["machine"]
    return "\n".join(
        [
            f"\n## {document['name']}\n\n{document['setting']}\n",
            *goals,
            *(*figures, ""),
            f"{document['date']}; {machine['line']}; load before the first run {machine['load_before']:.2f};",
            f"{versions}\n",
            *map(_added, document.get("added", ())),
        ]
    )


def _added(came: dict[str, Any]) -> str:
    """Return when and where some of a comparison's figures were measured on another day than the rest."""
    return f"{'; '.join(came['names'])}: {came['date']}; {came['machine']['line']}\n"


def _goal(goal: dict[str, Any]) -> str:
    sign = "≥" if goal["at_least"] else "≤"
    figure = Summary(**goal["figure"]).text()
    return (
        f"| {goal['what']} | {sign} {goal['limit']:g} | {figure} | {'met' if goal['met'] else '**missed**'} |"
    )


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Write the file."""
    documents = [json.loads(file.read_text()) for file in sorted(_RESULTS.glob("*.json"))]
    (_RESULTS / "README.md").write_text(_HEAD + "".join(map(section, documents)))


if __name__ == "__main__":
    main()
