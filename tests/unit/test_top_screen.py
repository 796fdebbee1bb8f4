"""The screen of `top`, driven by keys through Textual's pilot."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any

import pytest

from orchestrator.rundir import write_json
from orchestrator.states import State
from tests import samples
from tests.made_run import OOM, made_run

pytest.importorskip("textual")

from orchestrator.monitor.top.actions import Actions
from orchestrator.monitor.top.app import TopApp
from orchestrator.monitor.top.handing import Handing
from orchestrator.monitor.top.reading import Reader

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from orchestrator.rundir import RunDir

_PATIENCE = 180  # seconds
SMALL, LARGE = (80, 24), (160, 50)


class Patient(TopApp):
    """The screen, with notes that do not go away."""

    def notify(self, message: str, **options: Any) -> None:
        super().notify(message, **{**options, "timeout": 3600})


class Driven:
    """A running screen: keys in, lines of text out."""

    def __init__(self, app, pilot) -> None:
        self.app, self.pilot = app, pilot

    async def press(self, *keys: str) -> None:
        await self.pilot.press(*keys)
        await self.pilot.pause()

    def text(self) -> str:
        """Return the whole screen as text."""
        strips = self.app.screen._compositor.render_strips()
        return "\n".join(strip.text.rstrip() for strip in strips)

    async def until(self, words: str) -> str:
        """Wait until words are on the screen."""
        end = time.monotonic() + _PATIENCE
        while words not in (text := self.text()):
            assert time.monotonic() < end, f"no {words!r} on\n{text}"
            await self.pilot.pause(0.02)
        return text


def drive(run: RunDir, act: Callable[[Driven], Awaitable[None]], size=SMALL) -> None:
    """Run the screen of a run and do something with it; its notes stay, however slow this machine is."""

    async def main() -> None:
        app = Patient(Reader(run), Actions(run))
        async with app.run_test(size=size, notifications=True) as pilot:
            driven = Driven(app, pilot)
            await driven.until(run.run_id)
            await act(driven)

    asyncio.run(main())


def test_a_small_terminal_shows_what_matters(tmp_path):
    async def act(it: Driven) -> None:
        for words in (
            "RUNNING",
            "4 hosts, 8 ranks",
            "step 60",
            "loss 2.",
            "4 running",
            "node-3",
            "events",
            "quit",
        ):
            await it.until(words)
        lines = it.text().split("\n")
        assert len(lines) == 24
        assert max(map(len, lines)) <= 80
        assert "slowest ranks" in lines[-2]
        assert "log of" not in it.text()

    drive(made_run(tmp_path, over=False), act)


def test_a_large_terminal_shows_all_parts_at_once(tmp_path):
    async def act(it: Driven) -> None:
        await it.until("step 60/60")
        for words in ("slowest ranks", "events", "log of node-0", "tokens/s", "1200 of 1980 MHz"):
            await it.until(words)

    drive(made_run(tmp_path, over=False, slow=1), act, LARGE)


def test_a_terminal_that_is_resized(tmp_path):
    async def act(it: Driven) -> None:
        for size in (LARGE, (40, 12), (300, 80), (20, 6), SMALL):
            await it.pilot.resize_terminal(*size)
            await it.pilot.pause()
            assert len(it.text().split("\n")) == size[1]
        assert "log of" not in await it.until("events")

    drive(made_run(tmp_path, over=False), act)


def test_the_first_failure_is_told_and_found(tmp_path):
    async def act(it: Driven) -> None:
        await it.until("1 failed")
        await it.until("FAILED")
        await it.until("rank 5 (local rank 1) on node-2 failed first")
        await it.press("n")
        await it.until("node-2: failed")
        await it.press("enter")
        await it.until("log of node-2")
        await it.until(OOM[:40])

    drive(made_run(tmp_path, failing=5), act)


def test_arrows_select_and_the_log_follows(tmp_path):
    async def act(it: Driven) -> None:
        await it.press("right", "down", "l")
        await it.until("6.out")
        await it.until("log of node-3")
        await it.press("home")
        await it.until("log of node-0")
        await it.press("right_square_bracket", "right_square_bracket", "right_square_bracket")
        text = await it.until("log of node-0 · 1")
        assert "0.out" not in text

    drive(made_run(tmp_path, over=False), act)


def test_a_filter_narrows_everything_and_goes_away(tmp_path):
    async def act(it: Driven) -> None:
        await it.press("slash", *"node-2")
        text = await it.until("node-2: running")
        assert "node-1" not in text.replace("filter", "")
        await it.press("enter", "escape")
        assert "node-1" in await it.until("node-3")
        await it.press("slash", *"rank:7", "enter")
        await it.until("node-3: running")

    drive(made_run(tmp_path, over=False), act)


def test_keys_of_the_filter_do_nothing_else(tmp_path):
    async def act(it: Driven) -> None:
        await it.press("slash", *"qcdn")
        assert "qcdn" in await it.until("no hosts to show")
        assert it.app.is_running
        assert len(it.app.screen_stack) == 1

    drive(made_run(tmp_path, over=False), act)


def test_curves_take_turns(tmp_path):
    async def act(it: Driven) -> None:
        await it.until("step 1")
        before = it.text()
        await it.press("m")
        text = await it.until("tokens/s 8")
        assert text != before
        await it.press("z")
        await it.until("z all")

    drive(made_run(tmp_path, over=False, steps=300), act)


def test_help_names_every_key(tmp_path):
    async def act(it: Driven) -> None:
        await it.press("question_mark")
        text = await it.until("keys and signs")
        shown = {"slash": "/", "left_square_bracket": "[", "right_square_bracket": "]", "escape": "Esc"}
        keys = {binding.key for binding in it.app.BINDINGS} - {"question_mark", "ctrl+c"}
        words = set(text.replace(";", " ").split())
        assert {shown.get(key, key) for key in keys} <= words
        await it.press("escape")
        await it.until("events")

    drive(made_run(tmp_path, over=False), act, LARGE)


def test_ctrl_c_leaves(tmp_path):
    async def act(it: Driven) -> None:
        await it.press("c", "ctrl+c")
        assert it.app._exit

    drive(made_run(tmp_path, over=False), act)


def test_cancel_asks_first(tmp_path):
    run = made_run(tmp_path, over=False)

    async def act(it: Driven) -> None:
        await it.press("c")
        text = await it.until("End job-made on 4 hosts (8 ranks)?")
        assert "SIGKILL after 10 s" in text
        await it.press("n")
        await it.until("events")
        assert not run.cancel_file.exists()
        await it.press("c", "y")
        await it.until("ending the run on every host")
        while not run.cancel_file.exists():
            await it.pilot.pause(0.02)
        run.write_verdict(
            {"state": "CANCELLED", "summary": "cancelled by the user", "ended": 5.0, "hosts": []}
        )
        await it.until("CANCELLED: cancelled by the user")

    drive(run, act)


def test_of_a_job_that_waits_in_the_queue_no_rank_is_ended(tmp_path):
    run = samples.run_dir(tmp_path, "job-wait")
    write_json(run.slurm_file, {"job_id": "7"})
    assert "Its Slurm job has not begun, and is taken from the queue." in Actions(run).question()


def test_a_run_that_has_ended_is_not_cancelled(tmp_path):
    run = made_run(tmp_path)

    async def act(it: Driven) -> None:
        await it.until("SUCCEEDED")
        await it.press("c")
        await it.until("has ended already")
        assert not run.cancel_file.exists()

    drive(run, act)


def test_diagnose_shows_a_text(tmp_path):
    async def act(it: Driven) -> None:
        await it.until("FAILED")
        await it.press("d")
        await it.until("diagnosis")
        for words in ("what to try", "rank 3 on node-1", "CUDA out of memory"):
            await it.until(words)
        await it.press("escape")
        await it.until("events")

    drive(made_run(tmp_path, failing=3), act)


def test_a_run_that_waits_has_no_metrics(tmp_path):
    run = samples.run_dir(tmp_path, state=State.PENDING)
    run.write_status(State.PENDING, "Slurm job 41: waits for other jobs")

    async def act(it: Driven) -> None:
        await it.until("Slurm job 41: waits for other jobs")
        for words in (
            "PENDING",
            "no step has been told yet",
            "no metrics yet",
            "2 waiting",
            "nothing has happened yet",
        ):
            await it.until(words)
        for key in ("s", "l", "m", "z", "n", "right", "end", "enter"):
            await it.press(key)
        await it.until("node2: waiting")

    drive(run, act)


def test_a_run_grows_on_the_screen(tmp_path):
    run = samples.run_dir(tmp_path, state=State.RUNNING)

    async def act(it: Driven) -> None:
        await it.until("2 waiting")
        run.add_event("attempt", attempt=1)
        run.add_event("host_ready", host="node1")
        await it.until("1 ready")
        (run.attempt(1).logs / "node1.log").write_text("hello from it\n")
        await it.press("l")
        await it.until("hello from it")
        run.add_event(
            "hang", ranks=[2], waiting=[0], hosts=["node2"], silent=200, where={"2": "io.py:5 read"}
        )
        await it.until("1 hanging")

    drive(run, act)


def test_unreadable_files_are_told_on_the_screen(tmp_path):
    run = made_run(tmp_path, over=False)
    run.metrics_file.unlink()
    run.metrics_file.mkdir()

    async def act(it: Driven) -> None:
        await it.until("cannot read metrics.jsonl: Is a directory")

    drive(run, act)


def test_a_disk_that_hangs_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr("orchestrator.monitor.top.app._STALE_SECONDS", 0.0)
    run = made_run(tmp_path, over=False)

    async def act(it: Driven) -> None:
        monkeypatch.setattr("orchestrator.monitor.top.app._LOOK_SECONDS", 60.0)
        await it.until("has not answered for")
        with contextlib.suppress(AssertionError):
            await it.press("q")

    drive(run, act)


def test_what_is_found_after_the_end_is_dropped_without_a_word():
    async def screen() -> Handing:
        return Handing()

    assert not asyncio.run(screen())(pytest.fail)


def test_a_thousand_hosts(tmp_path):
    run = made_run(tmp_path, hosts=1000, slots=1, steps=3, over=False, logs=False)
    run.add_event("straggler", host="node-777", what="clock", words="its clock is low")

    async def act(it: Driven) -> None:
        await it.until("1 slow")
        await it.until("999 running")
        await it.press("n")
        await it.until("node-777: slow, its clock is low, rank 777")
        await it.until("■S■")
        await it.press("slash", *"slow", "enter")
        await it.until("S node-777")

    drive(run, act)
