from __future__ import annotations

import json
import os
import select
import signal
import socket
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from orchestrator.agent.rank import rank_environment, stack_environment
from orchestrator.monitor.stacks import where

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

KILL, SEGV, TERM = signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM
ROTATED = {"RANK": "5", "LOCAL_RANK": "2", "WORLD_SIZE": "1", "MASTER_PORT": "1"}


def config(folder: Path, **changes) -> dict:
    return {
        "first_rank": 4,
        "local_world_size": 3,
        "world_size": 7,
        "node_rank": 1,
        "nnodes": 2,
        "master_addr": "10.0.0.1",
        "master_port": 29500,
        "devices": "4,5,6",
        "file_name": "fd00%3A%3A1",
        "logs": str(folder),
        "errors": str(folder),
        "dumps": str(folder),
        "agent": os.getpid(),
        "socket": str(folder / "ranks"),
        **changes,
    }


@dataclass
class Shim:
    """A running shim of rank 5, the agent's socket, and the folder it writes to."""

    process: subprocess.Popen[str]
    heard: socket.socket
    folder: Path

    def hear(self) -> dict:
        return json.loads(self.heard.recv(1 << 16))

    def end(self) -> dict:
        """Wait for the shim's end; return the record it left."""
        self.process.wait(timeout=120)
        return json.loads((self.folder / "fd00%3A%3A1.rank5.json").read_text())

    def log(self, end: str) -> str:
        return (self.folder / f"fd00%3A%3A1.rank5.{end}").read_text()


@pytest.fixture
def shim(folder, agent_file, spawn):
    """Return a function that starts the real shim around a command."""
    heard = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    heard.bind(str(folder / "ranks"))
    heard.settimeout(120)

    def start(*command: str, **options) -> Shim:
        (folder / "rank.json").write_text(json.dumps(config(folder)))
        argv = [sys.executable, agent_file, "rank", folder / "rank.json", "--", *command]
        environ = {**ROTATED, **options.pop("env", {})}
        return Shim(spawn(*argv, env=environ, **options), heard, folder)

    yield start
    heard.close()


def test_an_exit_code_is_passed_on_and_recorded(shim):
    rank = shim("sh", "-c", "echo said; echo why >&2; exit 3")
    started, ended = rank.hear(), rank.hear()
    record = rank.end()
    assert rank.process.returncode == 3
    assert (started["event"], started["pid"], started["shim"]) == ("start", record["pid"], rank.process.pid)
    assert (ended["event"], {key: ended[key] for key in record}) == ("exit", record)
    known = {
        key: record[key] for key in ("rank", "local_rank", "exit_code", "signal", "term_time", "message")
    }
    assert known == {
        "rank": 5,
        "local_rank": 1,
        "exit_code": 3,
        "signal": None,
        "term_time": None,
        "message": "why",
    }
    assert started["time"] <= record["time"] <= time.time()
    assert (rank.log("out"), rank.log("err")) == ("said\n", "why\n")


def test_a_good_end_has_no_message_whatever_was_said(shim):
    rank = shim("sh", "-c", "echo some warning >&2")
    assert (rank.end()["exit_code"], rank.process.returncode) == (0, 0)
    assert rank.end()["message"] == ""


@pytest.mark.parametrize("number", [KILL, SEGV, TERM, signal.SIGABRT, signal.SIGPIPE])
def test_a_death_by_signal_is_passed_on_as_the_same_death(shim, number):
    rank = shim("sh", "-c", f"kill -{int(number)} $$")
    record = rank.end()
    assert (record["signal"], record["exit_code"]) == (number, None)
    assert rank.process.returncode == -number
    assert not list(rank.folder.glob("core*"))


def test_a_command_that_cannot_be_started_is_told_with_its_name(shim):
    rank = shim("/gone/python", "train.py")
    assert (rank.end()["exit_code"], rank.process.returncode) == (127, 127)
    assert rank.end()["message"] == "cannot start '/gone/python': No such file or directory"


def test_a_rank_without_an_agent_still_leaves_its_record(shim):
    rank = shim("sh", "-c", "sleep 0.2; exit 4")
    (rank.folder / "ranks").unlink()
    assert rank.end()["exit_code"] == 4


COUNTING = """
import signal, sys, time
got = []
signal.signal(signal.SIGTERM, lambda *_: got.append(1))
print("ready", flush=True)
end = time.monotonic() + 120
while time.monotonic() < end:
    time.sleep(0.02)
    if got:
        time.sleep(0.5)
        print(len(got), flush=True)
        sys.exit(7)
"""


def wait_for(path: Path, text: str) -> None:
    deadline = time.monotonic() + 120
    while not (path.exists() and text in path.read_text()):
        assert time.monotonic() < deadline, f"{path} never held {text!r}"
        time.sleep(0.02)


def test_of_two_sigterms_the_rank_gets_one(shim):
    rank = shim(sys.executable, "-c", COUNTING)
    wait_for(rank.folder / "fd00%3A%3A1.rank5.out", "ready")
    before = time.time()
    rank.process.send_signal(TERM)
    time.sleep(0.1)
    rank.process.send_signal(TERM)
    record = rank.end()
    assert rank.log("out") == "ready\n1\n"
    assert record["exit_code"] == 7
    assert before <= record["term_time"] <= record["time"]


STUCK = """
import time
def read_batch():
    print("ready", flush=True); time.sleep(600)
read_batch()
"""


def test_a_rank_that_hangs_leaves_its_stacks_and_no_core_when_it_is_told_to_end(shim):
    rank = shim(sys.executable, "-c", STUCK)
    wait_for(rank.folder / "fd00%3A%3A1.rank5.out", "ready")
    (rank.folder / "abort.5").touch()
    rank.process.send_signal(TERM)
    record = rank.end()
    assert (record["signal"], record["message"]) == (signal.SIGABRT, "Fatal Python error: Aborted")
    assert record["term_time"] is not None
    assert str(where(rank.log("err"))) == "<string>:4 read_batch"


STACKS = {"file_name": "a", "dumps": "/d", "socket": "/x/ranks"}
FILE = {"PYTHONFAULTHANDLER": "1", "TORCH_FR_DUMP_TEMP_FILE": "/d/a.rank5.fr."}
PIPE = {"TORCH_NCCL_DUMP_ON_TIMEOUT": "1", "TORCH_NCCL_DEBUG_INFO_PIPE_FILE": "/x/fr5."}
OLD_FILE = {"TORCH_NCCL_DEBUG_INFO_TEMP_FILE": "/d/a.rank5.fr."}
RECORDS = {"TORCH_NCCL_TRACE_BUFFER_SIZE": "2000"}


@pytest.mark.parametrize(
    ("torch", "wanted"),
    [
        ("", FILE),
        ("2.13.0+cpu", FILE | PIPE),
        ("2.11.0+cu130", FILE | PIPE | RECORDS),
        ("2.4.1", FILE | PIPE | RECORDS | OLD_FILE),
    ],
)
def test_what_makes_a_rank_tell_where_it_stands_depends_on_its_torch(torch, wanted):
    assert stack_environment({}, STACKS | {"torch": torch}, 5) == wanted


def test_what_the_user_has_set_for_stacks_stays():
    config = STACKS | {"torch": "2.11.0"}
    own = {"PYTHONFAULTHANDLER": "", "TORCH_NCCL_DEBUG_INFO_TEMP_FILE": "/mine"}
    assert stack_environment(own, config, 5) == PIPE | RECORDS
    off = stack_environment({"TORCH_FR_BUFFER_SIZE": "0"}, config, 5)
    assert off["TORCH_NCCL_TRACE_BUFFER_SIZE"] == "0"  # which turns the pipe off as well


def test_a_rank_that_ignores_sigterm_is_reported_when_it_is_killed(shim):
    rank = shim("sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.1; done")
    started = rank.hear()
    wait_for(rank.folder / "fd00%3A%3A1.rank5.out", "ready")
    rank.process.send_signal(TERM)
    os.kill(started["pid"], KILL)
    record = rank.end()
    assert (record["signal"], rank.process.returncode) == (KILL, -KILL)
    assert record["term_time"] is not None


@pytest.mark.parametrize(
    "number", [signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGQUIT]
)
def test_other_signals_are_passed_on(shim, number):
    rank = shim("sleep", "600")
    rank.hear()
    rank.process.send_signal(number)
    assert rank.end()["signal"] == number
    assert rank.end()["term_time"] is None


def test_a_rank_dies_with_a_shim_that_is_killed(shim):
    rank = shim("sleep", "600")
    handle = os.pidfd_open(rank.hear()["pid"])
    rank.process.kill()
    assert select.select([handle], [], [], 120)[0] == [handle]
    os.close(handle)


EARLY = """
import json, os, signal, sys
sys.path.insert(0, sys.argv[1])
from agent.rank import Shim
os.register_at_fork(**{sys.argv[2]: lambda: os.kill(os.getpid(), signal.SIGTERM)})
config = json.load(open(sys.argv[3]))
sys.exit(Shim(config, ["sleep", "600"]).run())
"""


@pytest.mark.parametrize("moment", ["before", "after_in_parent", "after_in_child"])
def test_a_sigterm_while_the_rank_is_being_started_is_not_lost(folder, agent_file, python, moment):
    path = folder / "rank.json"
    path.write_text(json.dumps(config(folder)))
    process = python(EARLY, agent_file, moment, path, env=ROTATED)
    assert process.wait(timeout=120) == -TERM
    assert json.loads((folder / "fd00%3A%3A1.rank5.json").read_text())["signal"] == TERM


DISPOSITIONS = "import signal; print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)"


def test_signals_are_for_the_rank_what_they_are_for_any_program(shim):
    """The keeper ignores some and every Python ignores SIGPIPE and SIGXFSZ: over exec, that would stay."""

    def ignore() -> None:
        for number in (signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)

    rank = shim("sh", "-c", "grep -E '^Sig(Ign|Blk)' /proc/self/status", preexec_fn=ignore)
    rank.end()
    assert [line.split()[1].strip("0") for line in rank.log("out").splitlines()] == ["", ""]
    again = shim(sys.executable, "-c", DISPOSITIONS, preexec_fn=ignore)
    again.end()
    assert again.log("out").splitlines()[-1] == "True"  # Ctrl-C raises KeyboardInterrupt in the script


def test_launchers_agree_on_the_environment(shim):
    rank = shim("env")
    rank.end()
    environ = dict(line.split("=", 1) for line in rank.log("out").splitlines() if "=" in line)
    expected = {
        "RANK": "5",
        "LOCAL_RANK": "1",  # DeepSpeed's launcher had rotated it to 2
        "WORLD_SIZE": "7",
        "LOCAL_WORLD_SIZE": "3",
        "LOCAL_SIZE": "3",
        "NODE_RANK": "1",
        "GROUP_RANK": "1",
        "CROSS_RANK": "1",
        "CROSS_SIZE": "2",
        "MASTER_ADDR": "10.0.0.1",
        "MASTER_PORT": "29500",
        "CUDA_VISIBLE_DEVICES": "4,5,6",
    }
    assert {key: environ[key] for key in expected} == expected
    assert environ["TORCHELASTIC_ERROR_FILE"] == str(rank.folder / "fd00%3A%3A1.rank5.elastic.json")


@pytest.mark.parametrize("local_rank", ["0", "1", "2", "absent"])
def test_the_local_rank_is_the_place_on_the_host_whatever_the_launcher_said(folder, local_rank):
    environ = {"RANK": "6"} if local_rank == "absent" else {"RANK": "6", "LOCAL_RANK": local_rank}
    assert rank_environment(config(folder), environ)["LOCAL_RANK"] == "2"


@pytest.mark.parametrize(
    ("content", "message", "raised"),
    [
        (
            {"message": {"message": "ValueError: x", "extraInfo": {"timestamp": "1700000000"}}},
            "ValueError: x",
            17e8,
        ),
        ({"message": {"message": "ValueError: x"}}, "ValueError: x", None),
        ({"message": {"message": "x", "extraInfo": {"timestamp": "soon"}}}, "x", None),
        ({"message": "only text"}, "only text", None),
        ({"message": "\U0001f525" * 6_000}, "\U0001f525" * 4096, None),  # 12 bytes each for the agent
        ({"other": 1}, "last words", None),
        ([], "last words", None),
    ],
)
def test_torchs_own_error_file_goes_before_the_last_line(shim, folder, content, message, raised):
    path = folder / "torch.json"
    script = f"echo '{json.dumps(content)}' > {path}; echo last words >&2; exit 1"
    record = shim("sh", "-c", script, env={"TORCHELASTIC_ERROR_FILE": str(path)}).end()
    assert (record["message"], record["raised_time"]) == (message, raised)


def test_last_words_that_are_no_text_are_shown_as_far_as_they_are(shim):
    record = shim("sh", "-c", r"printf 'step 1\rcaf\351 50%%\n\n' >&2; exit 1").end()
    assert record["message"] == "caf\ufffd 50%"
