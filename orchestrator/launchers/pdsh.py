"""The real pdsh over ssh: one pdsh for all hosts, its lines taken apart again by host."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from orchestrator.launchers.base import LastWords, OnExit, end_process, read_lines
from orchestrator.launchers.openssh import OpenSsh

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from orchestrator.plan import LaunchPlan, PlannedHost
    from orchestrator.rundir import AttemptDir

# pdsh 2.34, standard error:
#   pdsh@submit: node2: ssh exited with exit code 97
#   pdsh@submit: node2: ssh killed by signal 9
#   pdsh@submit: node2: command timeout
#   node2: Permission denied (publickey).
# and standard output:
#   node1: @orchestrate train.python python9 is not a program here
_EXITED = re.compile(r"pdsh@[^:]*: (?P<host>\S+): ssh exited with exit code (?P<code>\d+)\Z")
_KILLED = re.compile(r"pdsh@[^:]*: (?P<host>\S+): \S+ killed by signal (?P<signal>\d+)\Z")
_SAID = re.compile(r"(?P<host>[A-Za-z0-9_][A-Za-z0-9._-]*): (?P<text>.*)\Z", re.DOTALL)


_EXITS = "(pdsh)"  # whose words its lines on exit codes are: no host's last, and not its own trouble
_WORDS_SECONDS = 0.1  # for what a host said last, which pdsh has written by then, but to its other output


class Line(NamedTuple):
    """One line of pdsh: whose it is ("" for pdsh's own), what it says, and the exit code if it tells one."""

    alias: str
    text: str
    code: int | None = None


def parse_line(line: str) -> Line:
    """Take one line of pdsh's output apart."""
    if match := _EXITED.match(line):
        return Line(match["host"], line, int(match["code"]))
    if match := _KILLED.match(line):
        return Line(match["host"], line, -int(match["signal"]))
    if match := _SAID.match(line):
        return Line(match["host"], match["text"])
    return Line("", line)


def labels(aliases: Iterable[str]) -> dict[str, str]:
    """Return what pdsh calls hosts in its output -> their aliases.

    Where no two names have different domains pdsh leaves the domain out: node1.cluster becomes node1.
    """
    aliases = list(aliases)
    short = {alias: alias.partition(".")[0] for alias in aliases}
    once = {label for label, count in Counter(short.values()).items() if count == 1}
    return {label: alias for alias, label in short.items() if label in once} | {a: a for a in aliases}


class PdshLauncher:
    """Starts every host's agent with one pdsh, which stays until the last agent has ended."""

    def __init__(self, plan: LaunchPlan, attempt: AttemptDir, on_exit: OnExit) -> None:
        self._attempt = attempt
        self._on_exit = on_exit
        self._known = labels(host.alias for host in plan.hosts)
        self._words = LastWords(attempt)
        self._processes: list[asyncio.subprocess.Process] = []
        self._watchers: list[asyncio.Task[None]] = []
        self._count = len(plan.hosts)
        self._rounds = 0
        self._ssh = OpenSsh(plan, attempt)

    async def open(self, port: int) -> None:
        """Write the control port's forward into the ssh configuration; open masters to jump hosts."""
        await self._ssh.prepare(port)

    async def start(self, hosts: Sequence[PlannedHost]) -> None:
        """Start one pdsh for these hosts."""
        self._rounds += 1
        name = "hosts.txt" if len(hosts) == self._count else f"hosts.{self._rounds}.txt"
        if name != "hosts.txt":
            (self._attempt.rendered / name).write_text("".join(f"{host.alias}\n" for host in hosts))
        try:
            process = await self._spawn(name)
        except OSError as error:
            for host in hosts:
                self._on_exit(host.alias, 127, f"cannot start pdsh.sh: {error.strerror}")
            return
        self._processes.append(process)
        self._watchers.append(asyncio.create_task(self._watch(process, {host.alias for host in hosts})))

    async def _spawn(self, hosts_file: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *("bash", str(self._attempt.rendered / "pdsh.sh"), hosts_file),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )

    async def _watch(self, process: asyncio.subprocess.Process, waiting: set[str]) -> None:
        ended: list[asyncio.Task[None]] = []

        def take(text: str) -> None:
            line = parse_line(text)
            alias = self._known.get(line.alias, "")
            whose = alias if line.code is None else _EXITS
            self._words.add(whose, line.text if alias else text)
            if alias in waiting and line.code is not None:
                waiting.discard(alias)
                ended.append(asyncio.create_task(self._tell(alias, line.code)))

        await asyncio.gather(read_lines(process.stdout, take), read_lines(process.stderr, take))
        code = await process.wait()
        await asyncio.gather(*ended)
        # pdsh says nothing of a host whose command ended with 0, and names no host when it fails itself.
        failed = code != 0 and self._words.of("")
        for alias in sorted(waiting):
            self._on_exit(alias, code if failed else 0, self._words.of(alias) or self._words.of(""))

    async def _tell(self, alias: str, code: int) -> None:
        await asyncio.sleep(_WORDS_SECONDS)
        self._on_exit(alias, code, self._words.of(alias))

    async def push(self, host: PlannedHost, archive: bytes) -> str:
        """Send the bundle with ssh: pdsh carries no input, and pdcp needs a pdsh on every host."""
        return await self._ssh.push(host, archive)

    async def close(self) -> None:
        """End pdsh if it has not ended by itself."""
        await asyncio.gather(*(end_process(process) for process in self._processes))
        await asyncio.gather(*self._watchers)
        await self._ssh.close()
        self._words.close()
