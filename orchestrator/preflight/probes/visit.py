"""One visit to a host: every probe in a thread of its own, programs beside them, and nothing left behind."""

from __future__ import annotations

import os
import selectors
import shutil
import signal
import threading
import time
from typing import Any, Callable

from orchestrator.agent import processes

from . import answers, catalogue
from .meeting import Meeting
from .programs import Program

_TICK = 0.05  # seconds
_TERM_SECONDS = 3.0  # for programs, to clear up after themselves


class Visit:
    """What is done on this host, until all is told, nobody listens any more, or time is up.

    Args:
        config: `control.json` with `run_dir`, `rendered` and `shared` filled in. Its `check` holds
            probes (names), programs (argument lists by alias), meet (whether to connect back), and
            probe_seconds and seconds: the limits of one probe and of the visit.
        alias: this host's.
    """

    def __init__(self, config: dict[str, Any], alias: str) -> None:
        self._config = config
        self._asked: dict[str, Any] = config["check"]
        self._host = config["hosts"][alias]
        self._mark = "{}/check/{}".format(config["run_id"], self._host["index"])
        self._began = time.monotonic()
        self._open: dict[str, threading.Thread] = {}
        self._told_to_end = False
        selector = selectors.DefaultSelector()
        self._meeting = Meeting(selector, config, self._host) if self._asked["meet"] else None
        self._programs = [
            Program(words, config["rendered"], self._mark) for words in self._asked["programs"].get(alias, [])
        ]

    def run(self) -> int:
        """Visit the host; the process ends here, without waiting for threads that hang."""
        processes.become_subreaper()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._on_told)
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        try:
            self._start()
            while not self._is_over():
                self._turn()
        finally:
            self._leave()
        code = next((program.code for program in self._programs if program.code), 0)
        os._exit(code & 0xFF)

    def _on_told(self, *_: Any) -> None:
        self._told_to_end = True

    def _start(self) -> None:
        for program in self._programs:
            program.start()
        for name in self._asked["probes"]:
            probe = catalogue.PROBES[name]
            thread = threading.Thread(target=self._ask, args=(name, probe), daemon=True)
            self._open[name] = thread
            thread.start()

    def _ask(self, name: str, probe: Callable[[dict[str, Any], dict[str, Any]], dict[str, Any]]) -> None:
        """Run one probe; whatever it raises is its answer."""
        began = time.monotonic()
        try:
            answer: dict[str, Any] = {"probe": name, "data": probe(self._config, self._host)}
        except Exception as error:  # noqa: BLE001 - one probe's failure must not hide what the others find
            answer = {"probe": name, "error": f"{type(error).__name__}: {error}"}
        answers.tell(dict(answer, seconds=round(time.monotonic() - began, 3)))

    def _is_over(self) -> bool:
        leaving = self._meeting is not None and self._meeting.told_to_leave
        if leaving or self._told_to_end or answers.hung_up() or self._age() > self._asked["seconds"]:
            return True
        if self._age() < self._asked["probe_seconds"] and any(t.is_alive() for t in self._open.values()):
            return False
        talking = self._meeting is not None and not self._meeting.over
        return not talking and all(program.over for program in self._programs)

    def _age(self) -> float:
        return time.monotonic() - self._began

    def _turn(self) -> None:
        if self._meeting is None:
            time.sleep(_TICK)
        else:
            self._meeting.turn(_TICK)  # goes on after it is over: "leave" may still come

    def _leave(self) -> None:
        """Tell what has not answered; end programs; take back what was sent to this host."""
        for name, thread in self._open.items():
            if thread.is_alive():
                answers.tell({"probe": name, "error": f"no answer in {self._age():.0f} s"})
        self._end_programs()
        if self._programs:
            processes.kill_all(self._mark, (os.getpid(),), (), seconds=5)
        if not self._config["shared"] and os.path.basename(self._config["run_dir"]).startswith(".check-"):
            shutil.rmtree(self._config["run_dir"], ignore_errors=True)

    def _end_programs(self) -> None:
        for program in self._programs:
            program.ask_to_end()
        deadline = time.monotonic() + _TERM_SECONDS
        while any(program.runs for program in self._programs) and time.monotonic() < deadline:
            time.sleep(_TICK)
        for program in self._programs:
            program.end()
