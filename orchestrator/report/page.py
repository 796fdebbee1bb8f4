"""A run's document as one HTML page that needs nothing but itself."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.report.hosts import host_table
from orchestrator.report.plots import plots
from orchestrator.report.spent import key, lanes, shares
from orchestrator.report.units import clock, elapsed, lasted, time_ticks, value_words
from orchestrator.words import counted

if TYPE_CHECKING:
    import jinja2
    from markupsafe import Markup

_MARKS = {"SUCCEEDED": "✓", "FAILED": "✕", "LOST": "?", "CANCELLED": "■", "TIMEOUT": "◷", "PREEMPTED": "⇥"}
_TONES = {"SUCCEEDED": "good", "FAILED": "bad", "LOST": "bad", "RUNNING": "live", "STARTING": "live"}


def page(document: dict[str, Any]) -> str:
    """Return the page of one run.

    Args:
        document: of `orchestrator.report.document`; every text in it is shown as text, whatever it holds.
    """
    text: str = environment().get_template("report.html.j2").render(view(document))
    return text


@cache
def environment() -> jinja2.Environment:
    """Return what fills the templates: every value is escaped, and a missing one is an error."""
    import jinja2  # noqa: PLC0415 - most commands make no page

    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"clock": clock, "lasted": lasted, "elapsed": elapsed, "marked": _marked}
    return made


def _marked(text: str) -> Markup:
    """Return a text with `words` in back quotes as code; everything in it is escaped."""
    from markupsafe import Markup, escape  # noqa: PLC0415 - comes with jinja2

    parts = [escape(part) for part in text.split("`")]
    if len(parts) % 2 == 0:
        return escape(text)
    shown = [f"<code>{part}</code>" if i % 2 else part for i, part in enumerate(parts)]
    return Markup("".join(shown))  # noqa: S704 - every part of it has been escaped


def view(document: dict[str, Any]) -> dict[str, Any]:
    """Return the values of the page's template."""
    wall, shown = document["goodput"]["wall"], lanes(document)
    return {
        "d": document,
        "state": state_view(document["state"]),
        "head": _head(document),
        "verdict": _verdict(document),
        "tiles": tiles(document),
        "shares": shares(document["goodput"]),
        "lanes": shown,
        "key": key(shown),
        "ticks": [(round(100 * t / wall, 2), elapsed(t)) for t in time_ticks(wall)] if wall else [],
        "plots": plots(document),
        "table": host_table(document["hosts"]),
        "facts": _facts(document),
        "software": _software(document["software"]),
    }


def state_view(state: str) -> dict[str, str]:
    """Return how a state is shown: word, sign and tone, none of them by colour alone."""
    return {"word": state, "mark": _MARKS.get(state, "●"), "tone": _TONES.get(state, "mark")}


def _head(document: dict[str, Any]) -> list[str]:
    """Return the line that says what ran: shape, how long, who, when."""
    ran = document["ran"]
    parts = [f"{counted(ran['ranks'], 'rank')} on {counted(ran['hosts'], 'host')}"]
    parts += [words for words in (ran.get("zero"), ran.get("precision")) if words]
    parts.append(f"{ran['launcher']}, {_where(ran)}")
    wall = lasted(document["ended"] - document["created"])
    parts.append(f"took {wall}" if document["over"] else f"for {wall} so far")
    parts.append(f"since {clock(document['created'])}")
    return parts + ([f"by {ran['user']}"] if "user" in ran else [])


def _where(ran: dict[str, Any]) -> str:
    names = {"slurm": "Slurm", "local": "this machine", "pdsh": "pdsh", "ssh": "ssh"}
    return names.get(ran["backend"], str(ran["backend"]))


def _verdict(document: dict[str, Any]) -> dict[str, Any]:
    """Return what to say of how the run ended; evidence is as in the diagnosis."""
    found = document["verdict"]
    ended = found.get("summary") or document["reason"]
    return {
        "words": ended or ("it left no reason" if document["over"] else _going_on(document["figures"])),
        "category": found.get("title") or str(found.get("category") or "").replace("_", " "),
        "advice": found.get("advice") or [],
        "evidence": found.get("evidence") or [],
    }


def _going_on(figures: dict[str, Any]) -> str:
    if "last_step" not in figures:
        return "it goes on; no step has been reported yet"
    loss = f", loss {value_words(figures['last_loss'])}" if "last_loss" in figures else ""
    return f"it goes on: step {figures['last_step']:,.0f}{loss}"


def tiles(document: dict[str, Any]) -> list[dict[str, str]]:
    """Return the few figures that matter most: name, value, and a word on it; those that are known."""
    figures, goodput = document["figures"], document["goodput"]
    found = [
        _tile(
            "Goodput", goodput["share"], "share", f"of {lasted(goodput['wall'])} made steps that were kept"
        ),
        _tile("Last loss", figures.get("last_loss"), "", _loss_words(figures)),
        _tile("Last step", figures.get("last_step"), "", _checkpoints(figures)),
        *_rates(figures),
        _tile("Step time", figures.get("step_seconds"), "seconds", _p99(figures)),
        {
            "name": "GPU time" if figures["gpus"] else "Rank time",
            "value": _hours(goodput["rank_seconds"]),
            "words": f"{counted(document['ran']['ranks'], 'rank')} for as long as they had their hosts",
        },
    ]
    return [tile for tile in found if tile["value"]]


def _tile(name: str, value: float | str | None, unit: str, words: str) -> dict[str, str]:
    return {"name": name, "value": value_words(value, unit), "words": words}


def _rates(figures: dict[str, Any]) -> list[dict[str, str]]:
    for name, title in (("tokens_per_second", "Tokens/s"), ("samples_per_second", "Samples/s")):
        if name in figures:
            speed = f", {figures['tflops']:.3g} TFLOPS per GPU" if "tflops" in figures else ""
            return [_tile(title, figures[name], "", f"mean{speed}")]
    return []


def _loss_words(figures: dict[str, Any]) -> str:
    if "first_loss" not in figures:
        return ""
    return f"from {value_words(figures['first_loss'])}, lowest {value_words(figures['lowest_loss'])}"


def _checkpoints(figures: dict[str, Any]) -> str:
    count = figures["checkpoints"]
    return counted(count, "checkpoint") if count else "no checkpoint seen"


def _p99(figures: dict[str, Any]) -> str:
    return f"median; 99 % below {value_words(figures.get('step_seconds_p99'), 'seconds')}"


def _hours(seconds: float) -> str:
    if seconds < 2 * 3600:
        return lasted(seconds)
    return f"{seconds / 3600:,.3g} h" if seconds < 3.6e6 else f"{seconds / 3600:,.0f} h"


def _facts(document: dict[str, Any]) -> list[tuple[str, str]]:
    """Return what ran, as names and words."""
    ran = document["ran"]
    slurm = {"Slurm job": ran.get("slurm_job")}
    found = {
        "command": ran["command"],
        "python": ran["python"],
        "code": _code(ran.get("git")),
        "workdir": ran["workdir"] + (", as a copy made at submit" if ran.get("snapshot") else ""),
        "batch": _batch(ran),
        "checkpoints": ran.get("checkpoint_dir"),
        "resumes": ran.get("resumes"),
        "sweep": f"{ran['sweep']}: {ran.get('point', '')}" if "sweep" in ran else None,
        **slurm,
        "submitted": f"{clock(document['created'])} on {ran.get('submit_host', 'a host that is not known')}",
        "job file": ran.get("job_file"),
        "run": document["run_dir"],
    }
    return [(name, str(words)) for name, words in found.items() if words]


def _code(git: dict[str, Any] | None) -> str:
    if not git:
        return ""
    changed = git.get("changed")
    words = (
        "" if changed is None else ("as committed" if not changed else f"{counted(changed, 'file')} changed")
    )
    on = "" if git.get("branch") in (None, "", "HEAD") else f" on {git['branch']}"
    return f"git {git['commit'][:12]}{on}{f', {words}' if words else ''}"


def _batch(ran: dict[str, Any]) -> str:
    if not isinstance(ran.get("batch"), int):
        return ""
    micro, steps = ran.get("micro_batch"), ran.get("accumulation")
    return (
        f"{ran['batch']:,} = {micro} a rank x {steps} steps x {ran['ranks']} ranks" if micro and steps else ""
    )


def _software(found: dict[str, dict[str, list[str]]]) -> list[dict[str, Any]]:
    """Return each package with its version; with all of them, by hosts, where they differ."""
    from orchestrator.hosts.ranges import fold_names  # noqa: PLC0415 - only for this

    return [
        {
            "package": name,
            "versions": [(v, fold_names(hosts) if len(by) > 1 else "") for v, hosts in by.items()],
        }
        for name, by in found.items()
    ]
