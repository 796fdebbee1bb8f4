"""Print a run's logs as they are, and go on while they grow."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from orchestrator.hosts.ranges import fold_names
from orchestrator.monitor.logs.growing import Growing, has_files, sizes_in
from orchestrator.monitor.logs.merge import begin, merged, sources_of
from orchestrator.monitor.logs.reader import file_size
from orchestrator.monitor.logs.search import Search
from orchestrator.monitor.logs.select import chosen_attempts, refuse_unknown, streams_of
from orchestrator.monitor.logs.show import View, printer
from orchestrator.monitor.logs.text import Texts
from orchestrator.monitor.status import current_status

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.monitor.logs.select import Selection
    from orchestrator.monitor.logs.source import Source
    from orchestrator.rundir import AttemptDir, RunDir

_POLL = 0.1  # seconds between looks
_SHARE = 5  # a look at thousands of logs is followed by a pause of as many times its own length


def print_logs(
    run: RunDir,
    selection: Selection,
    *,
    attempt: int | str | None,
    follow: bool,
    view: View | None = None,
) -> int:
    """Print a run's logs; with `follow` go on until it ends. Returns the exit code.

    Args:
        run: the run.
        selection: which lines.
        attempt: a number, `all`, or None for the last.
        follow: go on until the run ends.
        view: how they are shown.

    Raises:
        OrchestratorError: no such attempt, host or rank.
        click.UsageError: `raw` of several logs.
    """
    follow = follow and not current_status(run)["state"].is_final
    viewer = Viewer(run, selection, view or View(), follow=follow)
    later = follow and not isinstance(attempt, int)
    attempts = _begun(run, attempt) if later else chosen_attempts(run, attempt)
    try:
        viewer.show_there(attempts)
        if not follow and not any(has_files(attempt.logs) for attempt in attempts):
            _say_that_there_are_none(run)
        if follow:
            viewer.follow(later=later)
    except KeyboardInterrupt:
        click.echo(f"\n{run.run_id} goes on; `orchestrate cancel {run.run_id}` ends it", err=True)
        return 130
    return 0


class Viewer:
    """Prints the logs of one run.

    Args:
        run: the run.
        selection: which lines.
        view: how they are shown.
        follow: they will grow.
    """

    def __init__(self, run: RunDir, selection: Selection, view: View, *, follow: bool) -> None:
        self._run = run
        self._selection = selection
        self._view = view
        self._follow = follow
        self._texts = Texts(selection.pattern, bars=view.bars, colours=view.colour and not view.as_json)
        self._search = Search(self._texts)
        self._printer = printer(view, self._texts)
        self._growing: list[Growing] = []

    def show_there(self, attempts: list[AttemptDir]) -> None:
        """Print what is there, attempt by attempt."""
        self._refuse_unknown(attempts)
        groups = [self._sources(attempt) for attempt in attempts]
        every = [source for sources in groups for source in sources]
        if self._view.raw:
            _refuse_several(every)
        begin(every, self._search, self._selection, whole=self._follow)
        self._say_what_is_untimed(every)
        for sources in groups:
            for piece in merged(sources, self._search, self._selection, last=not self._follow):
                self._printer.show(piece)
        self._printer.flush()
        self._printer.live = True
        self._growing = [Growing(*both) for both in zip(attempts, groups, strict=True)]

    def follow(self, *, later: bool) -> None:
        """Print what is written until the run ends.

        Args:
            later: attempts that begin meanwhile too.
        """
        over = False
        while not over:
            over = current_status(self._run)["state"].is_final
            began = time.monotonic()
            self.look(last=over, later=later)
            time.sleep(0 if over else max(_POLL, _SHARE * (time.monotonic() - began)))

    def look(self, *, last: bool, later: bool = True) -> None:
        """Print what has been written since the last look.

        Args:
            last: nobody will look again: also what has no end yet.
            later: take in attempts that have begun; what is left of those before is shown as well.
        """
        if later:
            self._adopt()
        for growing in self._growing:
            for piece in growing.pieces(self._search, self._selection, last=last):
                self._printer.show(piece)
            if not (self._view.raw or self._view.bars):
                for piece in growing.bars(time.time()):
                    self._printer.show(piece)
        self._printer.flush(None if last else time.time())

    def _adopt(self) -> None:
        known = max((growing.attempt.number for growing in self._growing), default=0)
        new = [attempt for attempt in _begun(self._run, "all") if attempt.number > known]
        if not self._growing:
            self._refuse_unknown(new)
        self._growing += [Growing(attempt, self._sources(attempt)) for attempt in new]

    def _refuse_unknown(self, attempts: list[AttemptDir]) -> None:
        """Refuse what none of the attempts has; later ones may be on other hosts."""
        if attempts and (self._selection.hosts or self._selection.ranks):
            every = {attempt.number: self._run.plan(attempt) for attempt in self._run.attempts()}
            plans = [every[attempt.number] for attempt in attempts]
            refuse_unknown(plans, self._selection.hosts, self._selection.ranks, every)

    def _sources(self, attempt: AttemptDir) -> list[Source]:
        streams = streams_of(self._run.plan(attempt), attempt, self._selection)
        if not self._follow and not self._view.raw:
            sizes = sizes_in(attempt.logs)
            streams = [stream for stream in streams if sizes.get(stream.path.name)]
        return sources_of(streams)

    def _say_what_is_untimed(self, sources: Sequence[Source]) -> None:
        """Tell whose lines have no times, where times were asked for."""
        selection = self._selection
        if not (selection.since or selection.until or selection.tail or self._view.times):
            return
        hosts = dict.fromkeys(
            source.stream.host
            for source in sources
            if not file_size(source.stream.index) and file_size(source.stream.path)
        )
        if not hosts:
            return
        parts = [f"the logs of {fold_names(hosts)} have no list of times"]
        if selection.since is not None:
            parts.append("one that was written to since then is shown whole")
        if selection.tail is not None:
            parts.append(f"the last {selection.tail} lines of each are shown")
        click.echo(f"note: {'; '.join(parts)}", err=True)


def _begun(run: RunDir, wanted: int | str | None) -> list[AttemptDir]:
    """Return the attempts of which there are logs; before that, an attempt may lack its plan."""
    attempts = [attempt for attempt in run.attempts() if has_files(attempt.logs)]
    return attempts if wanted == "all" else attempts[-1:]


def _say_that_there_are_none(run: RunDir) -> None:
    """Tell why nothing was printed: no host or rank has begun to write."""
    status = current_status(run)
    words = "has no logs" if status["state"].is_final else "has no logs yet"
    click.echo(f"{run.run_id} {words}: {status['state']} {status['reason']}".rstrip(), err=True)


def _refuse_several(sources: Sequence[Source]) -> None:
    if len(sources) != 1:
        names = f"{len(sources)} logs" if sources else "none"
        raise click.UsageError(
            f"--raw prints one log, and {names} are selected\n"
            "  fix: add --rank K with --out or --err, or --host NAME with --log"
        )
