"""A plan as lines of text, section by section, in at most 100 columns where names allow."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.forecast.draw_estimates import (
    checkpoint_lines,
    memory_lines,
    model_lines,
    traffic_lines,
)
from orchestrator.forecast.draw_hosts import batch_line, groups_line, hosts_lines
from orchestrator.forecast.draw_suggestions import suggestion_lines
from orchestrator.forecast.estimates import stage_name
from orchestrator.forecast.style import plain
from orchestrator.forecast.words import wrapped
from orchestrator.words import counted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orchestrator.forecast.document import PlanDocument
    from orchestrator.forecast.style import Style

_LABEL = 12  # columns of the names of sections
_SEVERITY = {"error": "bad", "warning": "mark", "note": "dim"}


def draw(plan: PlanDocument, width: int = 100, style: Style = plain) -> Iterator[str]:
    """Yield the lines of a plan.

    Args:
        plan: what to draw.
        width: columns that running text may take.
        style: what makes text bold or coloured: called with the text and `title`, `good`, `bad`, `mark` or
            `dim`.
    """
    yield from _head(plan, style)
    for name, lines in _sections(plan, width - _LABEL, style):
        body = list(lines)
        if body:
            yield ""
            yield style(f"{name:<{_LABEL}}", "title") + body[0]
            yield from (f"{'':<{_LABEL}}{line}".rstrip() for line in body[1:])
    if plan.findings:
        yield ""
    for finding in plan.findings:
        yield from _finding(finding.severity, str(finding.problem), width, style)
    if plan.has_errors:
        yield style(f"{_who_refuses(plan)} would refuse this job", "bad")


def _who_refuses(plan: PlanDocument) -> str:
    """Return who stops the job: submit does not ask the installed classes, which take seconds to import."""
    rules = {finding.rule for finding in plan.findings if finding.severity == "error"}
    return "every rank" if rules == {"installed"} else "submit"


def _head(plan: PlanDocument, style: Style) -> Iterator[str]:
    cluster, train = plan.spec.cluster, plan.spec.train
    where = f" through {cluster.login.host}" if cluster.login is not None else ""
    parts = [f"{cluster.backend}{where}", train.launcher]
    if plan.pool is not None:
        parts.append(f"{counted(plan.pool.world_size, 'rank')} on {counted(len(plan.pool.hosts), 'host')}")
    if plan.settings is not None:
        parts += [stage_name(plan.settings), plan.settings.precision]
    yield f"{style(plan.spec.name, 'title')}  {', '.join(parts)}"
    yield plan.job_file
    if plan.points:
        yield f"a sweep of {counted(plan.points, 'point')}; this is the first, --set shows another"


def _sections(plan: PlanDocument, width: int, style: Style) -> Iterator[tuple[str, Iterator[str]]]:
    yield "Hosts", _hosts(plan)
    if plan.config:
        sequence = None if plan.estimates is None else plan.estimates.shape.sequence_length
        yield "Batch", iter([batch_line(plan.config, plan.data_parallel, sequence)])
    if plan.estimates is not None:
        yield "Model", model_lines(plan.estimates, (plan.seconds or {}).get("model.config"))
        yield "Memory", memory_lines(plan.estimates, style)
        yield "Traffic", traffic_lines(plan.estimates, style)
        if not plan.estimates.shape.is_inference:
            yield "Checkpoint", checkpoint_lines(plan.estimates)
    if plan.suggestions is not None and plan.estimates is not None:
        yield "Suggested", suggestion_lines(plan.suggestions, plan.estimates, style)
    yield "Checked", _checked(plan, width)
    yield "Assumed", (line for text in plan.assumed for line in wrapped(text, width, "  "))
    yield "To see more", _wishes(plan, width)


def _hosts(plan: PlanDocument) -> Iterator[str]:
    if plan.pool is None:
        return
    yield from hosts_lines(plan.pool, plan.hpz, asked=plan.asked)
    groups = groups_line(plan.pool, plan.hpz, plan.data_parallel)
    if groups:
        yield groups


def _checked(plan: PlanDocument, width: int) -> Iterator[str]:
    if plan.checked is None:
        return
    names = {"deepspeed": "DeepSpeed", "accelerate": "Accelerate"}
    found = [f"{names.get(key, key)} {value}" for key, value in plan.checked.versions.items() if value]
    wanted = {"deepspeed", "accelerate"} if plan.spec.train.launcher == "accelerate" else {"deepspeed"}
    absent = [name for key, name in names.items() if key in wanted and not plan.checked.versions.get(key)]
    parts = []
    if found:
        parts.append(f"loaded by the installed {' and '.join(found)} in {plan.checked.seconds:.1f} s")
    if absent:
        parts.append(f"{' and '.join(absent)} could not be asked: not installed here, or not working")
    yield from wrapped("; ".join(parts), width, "  ")


def _wishes(plan: PlanDocument, width: int) -> Iterator[str]:
    """Yield what to write for what, a line for everything that gives the same."""
    gives: dict[str, list[str]] = {}
    for wish in plan.wishes:
        gives.setdefault(wish.gives, []).append(f"{wish.key}: {wish.example}")
    for what, keys in gives.items():
        yield from wrapped(f"{'  '.join(keys)}  for {what}", width, "  ")


def _finding(severity: str, text: str, width: int, style: Style) -> Iterator[str]:
    first, *rest = text.splitlines()
    lines = wrapped(f"{severity}: {first}", width, "  ")
    yield style(f"{severity}:", _SEVERITY[severity]) + lines[0].removeprefix(f"{severity}:")
    yield from lines[1:]
    for line in rest:
        yield from wrapped(f"  {line.strip()}", width, " " * 7)
