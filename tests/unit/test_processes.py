from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.agent import processes
from tests.asleep import await_sleep

# How a process leaves its parent: by itself, in a session of its own, orphaned, without its environment.
FAMILY = """
    sh -c 'echo plain $$; exec sleep 600 >&2' &
    setsid sh -c 'echo session $$; exec sleep 600 >&2' &
    (setsid sh -c 'echo orphan $$; exec sleep 600 >&2' &)
    (env -i setsid sh -c 'echo bare $$; exec sleep 600 >&2' &)
    env -u ORCHESTRATE_RUN_HOST sh -c 'echo child $$; exec sleep 600 >&2' &
    wait
"""


def family(spawn) -> tuple[subprocess.Popen[str], dict[str, int]]:
    """Start a shell and its five descendants; return it and their pids by what they did."""
    parent = spawn("sh", "-c", FAMILY)
    said = [parent.stdout.readline().split() for _ in range(5)]
    pids = {word: int(pid) for word, pid in said}
    await_sleep(*pids.values())
    return parent, pids


def gone(pid: int, seconds: float = 120) -> bool:
    """Wait for a process that need not be a child of ours to end."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return select.select([handle], [], [], seconds)[0] == [handle]
    finally:
        os.close(handle)


def test_descendants_and_marked_processes_are_found_and_nobody_else(spawn, mark):
    other = subprocess.Popen(["sleep", "600"], env={**os.environ, processes.MARK: mark + "0"})
    parent, pids = family(spawn)
    try:
        by_mark = {process.pid for process in processes.find(mark, (), ())}
        assert by_mark >= {parent.pid, pids["plain"], pids["session"], pids["orphan"]}
        assert not by_mark & {other.pid, os.getpid(), pids["bare"], pids["child"]}
        by_descent = {process.pid for process in processes.find("nobody", (parent.pid,), ())}
        assert by_descent >= {pids["plain"], pids["session"], pids["child"]}
        assert not by_descent & {parent.pid, other.pid, pids["orphan"]}
        spared = {process.pid for process in processes.find(mark, (parent.pid,), (parent.pid, pids["plain"]))}
        assert not spared & {parent.pid, pids["plain"]}
    finally:
        for name in ("bare", "child"):
            os.kill(pids[name], signal.SIGKILL)
        other.kill()
        other.wait()


SUBREAPER = """
import os, subprocess, sys
from orchestrator.agent import processes
processes.become_subreaper()
shell = subprocess.Popen(["sh", "-c", sys.argv[1]], stdout=subprocess.PIPE, text=True)
pids = [int(shell.stdout.readline().split()[1]) for _ in range(5)]
left = processes.kill_all("no such mark", (os.getpid(),), (), seconds=120)
print(left, [pid for pid in pids if processes.read_process(pid)], flush=True)
print(processes.reap()[shell.pid], flush=True)
"""


def test_a_subreaper_ends_all_its_descendants_by_descent_alone(python):
    done = python(SUBREAPER, FAMILY)
    assert done.communicate(timeout=120)[0].splitlines() == ["[] []", str(int(signal.SIGKILL))]


def test_everything_marked_is_killed_although_it_ignores_sigterm(spawn, mark):
    script = "trap '' TERM; (setsid sh -c 'trap \"\" TERM; echo $$; exec sleep 1h >&2' &); exec sleep 1h >&2"
    parent = spawn("sh", "-c", script)
    await_sleep(int(parent.stdout.readline()), parent.pid)
    assert len(processes.find(mark, (), ())) == 2
    assert processes.kill_all(mark, (), (), seconds=120) == []
    assert processes.find(mark, (), ()) == []


def test_what_cannot_be_ended_in_time_is_returned(spawn, mark):
    child = spawn("sleep", "600")
    await_sleep(child.pid)
    assert [process.pid for process in processes.find(mark, (), ())] == [child.pid]
    spared = processes.kill_all(mark, (), (child.pid,), seconds=0)
    assert (spared, child.poll()) == ([], None)


@pytest.mark.parametrize("handles", [True, False], ids=["pidfd", "without pidfd"])
def test_a_pid_that_now_belongs_to_another_process_gets_no_signal(spawn, monkeypatch, handles):
    if not handles:  # Python 3.8, kernels before 5.3
        monkeypatch.delattr(os, "pidfd_open")
    child = spawn("sleep", "600")
    now = processes.read_process(child.pid)
    before = now._replace(started=now.started - 1)
    processes.send(before, signal.SIGKILL)
    assert processes.read_process(child.pid) == now
    processes.send(now, signal.SIGTERM)
    assert child.wait(timeout=120) == -signal.SIGTERM
    processes.send(now, signal.SIGTERM)  # long gone: nothing happens


def test_a_process_is_read_from_its_last_parenthesis_on(folder: Path, spawn):
    odd = folder / "a) R 1 (b"
    odd.symlink_to("/bin/sleep")
    child = spawn(odd, "600")
    found = processes.read_process(child.pid)
    assert (found.pid, found.parent) == (child.pid, os.getpid())
    assert found.started > 0


def test_a_zombie_counts_as_gone():
    child = subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE)
    child.stdout.read()  # end of file: it has ended, and nobody has asked how
    child.stdout.close()
    handle = os.pidfd_open(child.pid)
    select.select([handle], [], [], 120)
    os.close(handle)
    assert processes.read_process(child.pid) is None
    assert child.pid not in processes.all_processes()
    assert child.wait() == 0
    assert processes.read_process(child.pid) is None


@pytest.mark.parametrize(("status", "code"), [(0, 0), (3 << 8, 3), (9, -9), (11 | 128, -11)])
def test_wait_statuses_become_exit_codes(status, code):
    assert processes.exit_code_of(status) == code


# -- the keeper ---------------------------------------------------------------------------------------

KEEP = """
import os, signal, subprocess, sys
from orchestrator.agent import keeper

def agent(alive, folder):
    print("agent", os.getpid(), folder, flush=True)
    ranks = ["sh", "-c", "trap '' TERM; (setsid sh -c 'echo rank $$; exec sleep 600 >&2' &); sleep 600"]
    subprocess.Popen(ranks)
    print("alive", os.read(alive, 1), flush=True)
    return 5

code = keeper.keep(sys.argv[1], agent)
print("keeper", code, flush=True)
sys.exit(code)
"""


def keep(python, mark):
    """Start a keeper; return it, its agent's pid, the agent's folder and the pid of an orphaned rank."""
    kept = python(KEEP, mark, stderr=subprocess.PIPE)
    lines = sorted(kept.stdout.readline().split() for _ in range(2))
    (_, agent, folder), (_, rank) = lines
    return kept, int(agent), Path(folder), int(rank)


def test_a_killed_agents_ranks_are_ended_and_its_folder_is_removed(python, mark):
    kept, agent, folder, rank = keep(python, mark)
    assert folder.stat().st_mode & 0o777 == 0o700
    os.kill(agent, signal.SIGKILL)
    said, complained = kept.communicate(timeout=120)
    assert (kept.returncode, said) == (70, "keeper 70\n")
    assert re.search(r"the agent was killed by signal 9; its ranks were ended \(0 left\)", complained)
    assert processes.read_process(rank) is None
    assert processes.find(mark, (), ()) == []
    assert not folder.exists()


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT])
def test_a_closed_terminal_does_not_end_the_keeper_and_sigterm_goes_to_the_agent(python, mark, number):
    kept, agent, _, _ = keep(python, mark)
    kept.send_signal(number)
    kept.send_signal(signal.SIGTERM)  # the agent here has no handler, so it dies of it
    said, _ = kept.communicate(timeout=120)
    assert (kept.returncode, said) == (70, "keeper 70\n")
    assert gone(agent)


def test_a_killed_keeper_is_seen_by_its_agent(python, mark):
    kept, agent, folder, _ = keep(python, mark)
    kept.kill()
    assert kept.stdout.readline() == "alive b''\n"
    assert gone(agent)
    folder.rmdir()


ENDING = """
import sys
from orchestrator.agent import keeper
sys.exit(keeper.keep(sys.argv[1], lambda *_: int(sys.argv[2])))
"""


def test_the_agents_exit_code_is_the_keepers(python, mark):
    assert python(ENDING, mark, "75").wait(timeout=120) == 75


def test_an_agent_that_breaks_says_why(python, mark):
    kept = python(ENDING, mark, "oops", stderr=subprocess.PIPE)
    said = kept.communicate(timeout=120)[1]
    assert kept.returncode == 1
    assert "ValueError: invalid literal for int() with base 10: 'oops'" in said


def test_an_agent_whose_output_nobody_reads_any_more_still_ends_once(python, mark):
    program = ENDING.replace("int(sys.argv[2])", "[print('said'), 6][1]")
    read, write = os.pipe()
    os.close(read)
    kept = python(program, mark, stdout=write, stderr=subprocess.DEVNULL, env={"PYTHONUNBUFFERED": ""})
    os.close(write)
    assert kept.wait(timeout=120) == 6
