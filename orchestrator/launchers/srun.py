"""One srun with one task on every host of the allocation, its lines taken apart again by host."""

from __future__ import annotations

import asyncio
import re
from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

from orchestrator.hosts.ranges import RangeSyntaxError, expand_nodelist
from orchestrator.launchers.base import (
    HOST_LINE,
    NODE_SCRIPT_FAILED,
    LastWords,
    OnExit,
    end_process,
    read_lines,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.plan import LaunchPlan, PlannedHost
    from orchestrator.rundir import AttemptDir

# srun 22.05, standard error:
#   srun: error: node2: task 1: Exited with exit code 98
#   srun: error: node[1-2]: tasks 0-1: Killed
#   srun: error: node2: task 1: Terminated
#   srun: error: Unable to create step for job 7: Requested node configuration is not available
# and standard output with --label:
#   1: @host node2
_EXITED = re.compile(r"srun: error: (?P<hosts>\S+): tasks? [\d,-]+: (?P<how>.*)\Z")
_CODE = re.compile(r"Exited with exit code (\d+)")
_LABELLED = re.compile(r"\s*(?P<task>\d+): (?P<text>.*)\Z", re.DOTALL)
# srun may tell of a task's end before it hands on what the task said last, long before on a busy host.
# node.sh always says why it failed: that is waited for.
_WORDS_SECONDS = 0.3
_NODE_WORDS_SECONDS = 10
_SIGNALS = {"Killed": 9, "Terminated": 15, "Aborted": 6, "Segmentation fault": 11, "Out Of Memory": 9}


class Line(NamedTuple):
    """One line of srun: whose it is (a task's, or hosts'), what it says, and an exit code if it tells one."""

    text: str
    task: int | None = None
    hosts: tuple[str, ...] = ()
    code: int | None = None


def parse_line(line: str) -> Line:
    """Take one line of srun's output apart."""
    if match := _EXITED.match(line):
        return Line(line, hosts=_names(match["hosts"]), code=_exit_code(match["how"]))
    if match := _LABELLED.match(line):
        return Line(match["text"], task=int(match["task"]))
    return Line(line)


def _names(text: str) -> tuple[str, ...]:
    try:
        return tuple(expand_nodelist(text))
    except RangeSyntaxError:
        return ()


def _exit_code(how: str) -> int | None:
    code = _CODE.search(how)
    if code:
        return int(code[1])
    return next((-number for word, number in _SIGNALS.items() if how.startswith(word)), None)


class SrunLauncher:
    """Starts every host's agent with one srun, which stays until the last agent has ended."""

    def __init__(self, plan: LaunchPlan, attempt: AttemptDir, on_exit: OnExit) -> None:
        self._attempt = attempt
        self._on_exit = on_exit
        self._waiting = {host.name: host.alias for host in plan.hosts}
        self._hosts: dict[int, str] = {}
        self._early: dict[int, list[str]] = defaultdict(list)
        self._words = LastWords(attempt)
        self._ended: dict[str, tuple[str, int, str]] = {}
        self._process: asyncio.subprocess.Process | None = None
        self._watcher: asyncio.Task[None] | None = None

    async def open(self, port: int) -> None:
        """Nothing to get ready: hosts of one allocation reach each other."""

    async def start(self, hosts: Sequence[PlannedHost]) -> None:
        """Start the one srun; all hosts of the plan are in it."""
        try:
            self._process = await asyncio.create_subprocess_exec(
                *("bash", str(self._attempt.rendered / "srun.sh")),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            for host in hosts:
                self._on_exit(host.alias, 127, f"cannot start srun.sh: {error.strerror}")
            return
        self._watcher = asyncio.create_task(self._watch(self._process))

    async def _watch(self, process: asyncio.subprocess.Process) -> None:
        await asyncio.gather(read_lines(process.stdout, self._take), read_lines(process.stderr, self._take))
        code = await process.wait()
        for task in list(self._early):
            self._hear_early(task, "")
        self._tell(*self._ended)
        # srun says nothing of a task that ended with 0, and names no host when it fails itself.
        for name, alias in sorted(self._waiting.items()):
            failed = code != 0 and self._words.of("")
            self._on_exit(alias, code if failed else 0, self._words.of(name) or self._words.of(""))

    def _take(self, text: str) -> None:
        line = parse_line(text)
        if line.task is None:
            self._hear("", line.text)
        elif line.text.startswith(HOST_LINE):
            self._hosts[line.task] = line.text.removeprefix(HOST_LINE)
            self._hear_early(line.task, self._hosts[line.task])
        elif line.task in self._hosts:
            self._hear(self._hosts[line.task], line.text)
        else:  # srun has an output and an error output: which of the two we read first, nobody says
            self._early[line.task].append(line.text)
        if line.code is not None:
            for ended in line.hosts:
                self._take_end(ended, line.code, line.text)

    def _hear_early(self, task: int, name: str) -> None:
        """Take what a task said before it was known which host it is on."""
        for text in self._early.pop(task, []):
            self._hear(name, text)

    def _hear(self, name: str, text: str) -> None:
        self._words.add(name, text)
        if self._words.told(name):
            self._tell(name)

    def _take_end(self, name: str, code: int, line: str) -> None:
        """Note that a task has ended; it is told of when its last words can be expected to be here."""
        alias = self._waiting.pop(name, None)
        if alias is None:
            return
        self._ended[name] = (alias, code, line)
        patience = _WORDS_SECONDS
        if code == NODE_SCRIPT_FAILED and not self._words.told(name):
            patience = _NODE_WORDS_SECONDS
        asyncio.get_running_loop().call_later(patience, self._tell, name)

    def _tell(self, *names: str) -> None:
        """Report those of these tasks that have ended, with what they said last."""
        for name in names:
            if ended := self._ended.pop(name, None):
                alias, code, line = ended
                self._on_exit(alias, code, self._words.of(name) or line)

    async def push(self, host: PlannedHost, archive: bytes) -> str:
        """Never done: the batch host needs the run directory too, so it lies on a disk that all nodes see."""
        del host, archive
        return "it does not see the run directory; put run_root on a disk that every node sees"

    async def close(self) -> None:
        """End srun if it has not ended by itself; its step goes with it."""
        if self._process is not None:
            await end_process(self._process)
        if self._watcher is not None:
            await self._watcher
        self._words.close()
