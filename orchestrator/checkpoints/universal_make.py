"""Make the universal form of a tag: DeepSpeed's conversion in a process of its Python, all or nothing.

    checkpoints/.global_step120_universal.making.x3f0_41c/universal/    while it is made
    checkpoints/global_step120_universal/                    renamed to when it is whole

DeepSpeed's own program (0.19.8) writes to the name itself, and `latest_universal` beside it: one that was
killed leaves a folder behind that looks like a checkpoint.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator import __version__
from orchestrator.checkpoints.find import one_tag
from orchestrator.checkpoints.hearing import end_group_after, last_answer
from orchestrator.checkpoints.tag import MARK, Kind
from orchestrator.checkpoints.universal import converted, universal_name
from orchestrator.checkpoints.universal_needs import free_memory, most_workers, needs
from orchestrator.errors import ConversionError, Problem
from orchestrator.rundir import write_json, write_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from orchestrator.checkpoints.tag import Tag
    from orchestrator.plan import LaunchPlan

_PROGRAM = Path(__file__).with_name("converter")
_MADE, _LOCK = "universal", "lock"
_MEMORY_SHARE = 0.8  # of what is free
_OF_A_RANK = (  # of a shell on a compute node: DeepSpeed would take the program for a rank
    *("LOCAL_RANK", "MASTER_", "OMPI_", "PMI_", "PMIX_", "RANK", "SLURM_", "TORCHELASTIC_", "WORLD_SIZE"),
)


class Conversion:
    """One conversion. `run` does it, in any thread; `end` ends it from another.

    Args:
        tag: a complete tag that `why_not_convertible` has nothing against.
        python: the Python of the training: a command or a path.
        setup: shell lines before it, as on the hosts.
        workers: the most processes at a time; as many as the CPUs and the free memory allow when not given.
        run_id: of the run that goes on from it, which may delete it; empty for one that somebody asked for.
    """

    def __init__(
        self,
        tag: Tag,
        python: str,
        setup: Sequence[str] = (),
        *,
        workers: int | None = None,
        run_id: str = "",
    ) -> None:
        self._tag = tag
        self._run_id = run_id
        self._python = python
        self._setup = setup
        self._workers = workers
        self._process: subprocess.Popen[str] | None = None
        self._ended = threading.Event()
        self.name = universal_name(tag)
        self.needs = needs(tag)

    def check(self) -> None:
        """See that disk and memory are enough.

        Raises:
            ConversionError: they are not, or the folder cannot be written to.
        """
        folder = self._tag.path.parent
        free, memory = shutil.disk_usage(folder).free, free_memory()
        if free < self.needs.disk:
            what = f"the conversion needs {gigabytes(self.needs.disk)} on this disk while it runs"
            fix = "make room, for example with `orchestrate checkpoint prune`"
            raise ConversionError(Problem(what, str(folder), f"{gigabytes(free)} free", fix))
        if memory is not None and memory < self.needs.memory:
            what = f"the conversion needs {gigabytes(self.needs.memory)} of memory for the largest shard"
            fix = f"run `orchestrate checkpoint reshape {folder}` on a machine that has more"
            raise ConversionError(Problem(what, str(self._tag.path), f"{gigabytes(memory)} free", fix))

    def run(self, on_progress: Callable[[str, float], None] = lambda _phase, _share: None) -> list[str]:
        """Make it; return what ranks that load it will not find as it was, in sentences.

        Args:
            on_progress: is called with the phase and how much of it is done, 0 to 1.

        Raises:
            ConversionError: it cannot be made, or `end` was called.
        """
        _remove_abandoned(self._tag.path.parent, self.name)
        self.check()
        work = self._work_folder()
        try:
            with _locked(work):
                answer = self._convert(work, on_progress)
                return self._settle(work, answer)
        except OSError as error:
            what = f"the conversion cannot write here: {error.strerror}"
            raise ConversionError(Problem(what, error.filename or str(self._tag.path.parent))) from error
        finally:
            shutil.rmtree(work, ignore_errors=True)

    def end(self) -> None:
        """End it, now or as soon as it begins; nothing of it is left."""
        self._ended.set()
        process = self._process
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)

    def _work_folder(self) -> Path:
        folder = self._tag.path.parent
        try:
            return Path(tempfile.mkdtemp(prefix=f".{self.name}.making.", dir=folder))
        except OSError as error:
            what = f"the universal checkpoint lies beside the tag, and cannot be written: {error.strerror}"
            fix = "give yourself the right to write there, or copy the tag to another folder"
            raise ConversionError(Problem(what, str(folder), fix=fix)) from error

    def _convert(self, work: Path, on_progress: Callable[[str, float], None]) -> dict[str, Any]:
        with tempfile.TemporaryDirectory(prefix="orchestrate-convert-") as folder:
            # A copy: that Python need not have us, and must not find the rest of what our Python has.
            shutil.copytree(
                _PROGRAM, Path(folder, _PROGRAM.name), ignore=shutil.ignore_patterns("__pycache__")
            )
            with (work / "said.txt").open("w+", encoding="utf-8", errors="replace") as said:
                answer, code = self._heard(self._start(folder, work, said.fileno()), on_progress)
                said.seek(0)
                words = said.read()
        if self._ended.is_set():
            raise ConversionError(Problem("the conversion was ended", str(self._tag.path)))
        if code or "problem" in answer:
            raise ConversionError(self._problem(answer, code, words))
        return answer

    def _heard(
        self, process: subprocess.Popen[str], on_progress: Callable[[str, float], None]
    ) -> tuple[dict[str, Any], int]:
        """Return the last answer and the exit code; the process ends with this call, whatever happens."""
        self._process = process
        over = threading.Thread(target=end_group_after, args=(process.pid,), daemon=True)
        over.start()
        try:
            if self._ended.is_set():
                self.end()
            answer = last_answer(process, on_progress)
            over.join()
        finally:
            self._process = None
            os.killpg(process.pid, signal.SIGKILL)  # its workers too; it was not waited for, so the id is its
            over.join()
            process.communicate()  # waits, and closes the pipe
        return answer, process.returncode

    def _start(self, folder: str, work: Path, said: int) -> subprocess.Popen[str]:
        memory = free_memory()
        most = int(_MEMORY_SHARE * memory) if memory is not None else self.needs.memory
        output = f"../{work.name}/{_MADE}"
        words = [str(self._tag.path), output, str(self._workers or most_workers()), str(most)]
        shell = ["bash", "-c", "\n".join([*self._setup, 'exec "$@"']), "bash"] if self._setup else []
        try:
            return subprocess.Popen(
                [*shell, self._python, "-m", _PROGRAM.name, *words],
                cwd=folder,  # where -m looks first
                env={name: value for name, value in os.environ.items() if not name.startswith(_OF_A_RANK)},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=said,
                text=True,
                encoding="utf-8",
                errors="replace",
                start_new_session=True,
            )
        except OSError as error:
            what = f"this Python cannot be started here: {error.strerror}"
            raise ConversionError(Problem(what, "--python", self._python, _ELSEWHERE)) from error

    def _problem(self, answer: dict[str, Any], code: int, said: str) -> Problem:
        where = str(self._tag.path)
        if "problem" in answer:
            return Problem(answer["problem"]["what"], where, fix=answer["problem"]["fix"])
        last = next((line for line in reversed(said.splitlines()) if line.strip()), "it said nothing")
        how = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
        what = f"the conversion failed ({how}): {last.strip()}"
        return Problem(what, where, fix=f"see that {self._python} has DeepSpeed; {_ELSEWHERE}")

    def _settle(self, work: Path, answer: dict[str, Any]) -> list[str]:
        """Give the universal checkpoint its name, and have `latest_universal` say it."""
        folder, made = self._tag.path.parent, work / _MADE
        self._see_that_it_may_have_its_name()
        mark = {
            "of": self._tag.name,
            "ranks": self._tag.world_size,
            "for": self._run_id,
            "orchestrate": __version__,
            **answer,
        }
        write_json(made / MARK, mark)
        place = folder / self.name
        if converted(self._tag) is None:  # else another process was faster
            if place.exists():  # of an earlier save of the tag, or what a killed conversion left
                place.rename(work / "old")
            made.rename(place)
        write_text(folder / "latest_universal", self.name)
        return list(answer.get("notes", ()))

    def _see_that_it_may_have_its_name(self) -> None:
        now, other = one_tag(self._tag.path), one_tag(self._tag.path.parent / self.name)
        if now is None or now.modified != self._tag.modified:  # its metrics, and their size, may come later
            what, fix = "it was saved again, or deleted, while it was converted", "choose another tag: --tag"
            raise ConversionError(Problem(what, str(self._tag.path), fix=fix))
        if other is not None and other.size and other.kind is not Kind.UNIVERSAL:
            what, fix = "its universal form would have the name of another checkpoint", "rename that one"
            raise ConversionError(Problem(what, str(other.path), fix=fix))


_ELSEWHERE = "name another with --python, or run `orchestrate checkpoint reshape` where there is one"


def conversion_for(
    tag: Tag,
    plan: LaunchPlan | None,
    python: str | None = None,
    *,
    workers: int | None = None,
    run_id: str = "",
) -> Conversion:
    """Return the conversion of a tag with the Python of its run, where that one can be started here.

    Args:
        tag: the tag.
        plan: of the run that saved it, or goes on from it; None for a tag of nobody's.
        python: goes before that of the plan.
        workers: see `Conversion`.
        run_id: likewise.
    """
    if python is not None or plan is None:
        return Conversion(tag, python or sys.executable, workers=workers, run_id=run_id)
    if plan.container is not None:  # its Python is in there
        return Conversion(tag, plan.supervisor_python, workers=workers, run_id=run_id)
    return Conversion(tag, plan.python, plan.setup, workers=workers, run_id=run_id)


@contextlib.contextmanager
def _locked(work: Path) -> Iterator[None]:
    """Hold the lock of a working folder: one that nobody holds was left by a process that is gone."""
    with (work / _LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


def _remove_abandoned(folder: Path, name: str) -> None:
    for work in folder.glob(f".{glob.escape(name)}.making.*"):
        with contextlib.suppress(OSError), (work / _LOCK).open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(work, ignore_errors=True)


def notes_of(folder: Path) -> list[str]:
    """Return what was noted when a universal checkpoint was made here; nothing of one that others made."""
    try:
        return list(json.loads((folder / MARK).read_text(encoding="utf-8"))["notes"])
    except (OSError, ValueError, KeyError, TypeError):
        return []


def gigabytes(size: int) -> str:
    """Return bytes as people read them on disks: 1.2 GB, 37 MB."""
    return f"{size / 1e9:,.1f} GB" if size >= 1e9 else f"{max(1, round(size / 1e6))} MB"
