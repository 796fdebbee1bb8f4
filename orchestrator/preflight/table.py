"""A report for a person: a table of hosts and checks, what hosts have, and what is wrong with which."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from orchestrator.hosts.ranges import fold_names
from orchestrator.words import counted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orchestrator.preflight.findings import Finding, Level, Report

_SHOWN: dict[Level, str] = {"ok": "ok", "warn": "warn", "bad": "BAD", "-": "-"}
_COLOURS: dict[str, str] = {"warn": "yellow", "BAD": "red"}
_LONGEST = 36  # letters of a row's name


def table_lines(report: Report) -> list[str]:
    """Return the whole report, line by line, coloured."""
    lines = _table(report)
    lines += ["", *_facts(report)] if report.facts else []
    problems = list(_problems(report))
    return [*lines, *(["", *problems] if problems else []), "", summary(report)]


def summary(report: Report) -> str:
    """Return the outcome in one line."""
    count, bad = len(report.hosts), len(report.bad)
    hosts = counted(count, "host")
    seconds = f"checked in {report.seconds:.1f} s"
    if bad:
        return click.style(f"{bad} of {hosts} would fail a run", fg="red", bold=True) + f" ({seconds})"
    warned = len({finding.host for finding in report.findings if finding.level == "warn"})
    more = f", {warned} with warnings" if warned else ""
    return (
        click.style(f"all {hosts} ready" if count > 1 else "the host is ready", fg="green")
        + f"{more} ({seconds})"
    )


def _table(report: Report) -> list[str]:
    """Return the table: hosts of which all checks say the same share a row."""
    levels = report.levels()
    rows: dict[tuple[Level, ...], list[str]] = {}
    for host in report.hosts:
        rows.setdefault(tuple(levels.get((host, check), "-") for check in report.checks), []).append(host)
    used = [i for i in range(len(report.checks)) if any(row[i] != "-" for row in rows)]
    table = [["hosts", *(report.checks[i] for i in used)]]
    table += [[_row_name(names), *(_SHOWN[row[i]] for i in used)] for row, names in rows.items()]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return [_line(row, widths) for row in table]


def _row_name(names: list[str]) -> str:
    text = fold_names(names)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 12]}… ({len(names)} hosts)"


def _line(row: list[str], widths: list[int]) -> str:
    cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
    shown = [click.style(cell, fg=_COLOURS.get(cell.strip())) for cell in cells[:-1]]
    return "  ".join([*shown, click.style(row[-1], fg=_COLOURS.get(row[-1]))])


def _facts(report: Report) -> list[str]:
    width = max(map(len, report.facts))
    return [f"{title.ljust(width)}  {text}" for title, text in report.facts.items()]


def _problems(report: Report) -> Iterator[str]:
    """Yield what is wrong, the worst first; hosts with the same fault are told of once."""
    for level in ("bad", "warn"):
        groups: dict[tuple[str, str, str], list[str]] = {}
        for each in report.findings:
            if each.level == level:
                hosts = groups.setdefault(_key(each), [])
                hosts += [each.host] if each.host not in hosts else []
        for (check, what, fix), hosts in groups.items():
            label = click.style(f"{_SHOWN[level]:<4}", fg=_COLOURS[_SHOWN[level]])
            yield f"{label}  {fold_names(hosts)}: {check}: {what}"
            if fix:
                yield f"      fix: {fix}"


def _key(finding: Finding) -> tuple[str, str, str]:
    return finding.check, finding.what, finding.fix
