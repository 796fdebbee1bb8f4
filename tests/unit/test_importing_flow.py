"""What `if`, `case`, `&&` and `||` of a script make of its commands."""

from __future__ import annotations

import subprocess

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.importing.make import Wish, make
from orchestrator.importing.script_reader import Reader
from orchestrator.importing.shell import read_commands
from orchestrator.importing.shell_flow import Flow, plain
from orchestrator.importing.shell_scope import Scope


def ran(script, **known):
    """Return the commands that run, after expansion."""
    scope = Scope(known)
    found = []
    for step in Flow(scope).steps(read_commands(script, "x")):
        words = scope.words(step.command)
        if step.skipped or step.asked is not None:
            continue
        name, sign, value = plain(step.command.words[0]).partition("=")
        if sign:
            scope.set(name, value)
        else:
            found.append(" ".join(scope.shown(word) for word in words))
    return found


@pytest.mark.parametrize(
    ("script", "commands"),
    [
        ("if [ $N -gt 1 ]; then a; else b; fi; c", ["a", "c"]),
        ("if [ $N -le 1 ]; then a; else b; fi; c", ["b", "c"]),
        ("if [[ $NAME == lla* ]]\nthen\n a\nelif true; then b\nfi", ["a"]),
        ("if [ $NAME = gpt ]; then a; elif [ $N = 2 ]; then b; else c; fi", ["b"]),
        ("if [ $NAME = gpt ]; then a; elif [ -z $NAME ]; then b; else c; fi", ["c"]),
        ("if [ -n $NAME ] && [ $N -eq 3 ]; then a; else b; fi", ["b"]),
        ("if [ -z $NAME ] || [ $N -eq 2 ]; then a; else b; fi", ["a"]),
        ("if ! [ $N = 2 ]; then a; else b; fi", ["b"]),
        ("if [ ! $N = 3 ]; then a; else b; fi", ["a"]),
        ("if [ $N = 2 ]; then if [ $N = 3 ]; then a; else b; fi; else c; fi", ["b"]),
        ("if [ $N = 3 ]; then if [ $N = 2 ]; then a; else b; fi; fi; d", ["d"]),
        ("X=5; if [ $X -ge $N ]; then a $X; fi", ["a 5"]),
        ("if [ $UNKNOWN = 1 ]; then a; else b; fi", ["a"]),
        ("if [ -d data ]; then a; else b; fi", ["a"]),
        ("if [ $# -lt 1 ]; then usage; exit 1; fi; a", ["a"]),
        ("if [ -z $UNKNOWN ]; then echo no; exit 1; else a; fi", ["a"]),
        ("if which x; then a; else b; fi", ["a"]),
        ("[ $N = 2 ] && a || b", ["a"]),
        ("[ $N = 3 ] && a || b", ["b"]),
        ("[ $N = 3 ] && a; c", ["c"]),
        ("a || b", ["a"]),
        ("a && b", ["a", "b"]),
        ("[ -n $UNKNOWN ] || a", ["a"]),
        ("case $NAME in gpt|opt) a;; lla*) b; c;; *) d;; esac; e", ["b", "c", "e"]),
        ("case $NAME in\n  (gpt) a\n  ;;\n  *)\n  d\n  ;;\nesac\ne", ["d", "e"]),
        ("case $UNKNOWN in gpt) a;; *) d;; esac", ["d"]),
        ("case $1 in if) a;; then) b;; esac; c", ["c"]),
    ],
)
def test_what_runs(script, commands):
    assert ran(script, N="2", NAME="llama") == commands


CONDITION = st.sampled_from(
    ["true", "false", "[ 1 = 1 ]", "[ a = b ]", "! true", "! [ 2 -lt 1 ]", "[[ ab == a* ]]"]
)
NAME = st.sampled_from(["p", "q", "r"])


def _block(inner):
    joined = st.tuples(CONDITION, st.sampled_from(["&&", "||"]), CONDITION).map(" ".join)
    if_else = st.tuples(CONDITION | joined, inner, CONDITION, inner, inner)
    return (
        if_else.map(lambda p: f"if {p[0]}; then {p[1]}; elif {p[2]}; then {p[3]}; else {p[4]}; fi")
        | st.tuples(CONDITION, inner).map(lambda p: f"if {p[0]}\nthen\n{p[1]}\nfi")
        | st.tuples(NAME, inner, inner).map(lambda p: f"case {p[0]} in p|q) {p[1]};; *) {p[2]}\n;;\nesac")
        | st.tuples(inner, inner).map("\n".join)
    )


SCRIPT = st.recursive(NAME.map(lambda name: f"say {name}"), _block, max_leaves=6)


@given(st.lists(SCRIPT, min_size=12, max_size=12))
def test_bash_runs_the_same(scripts):
    text = "\n".join(f"say {number}\n{script}" for number, script in enumerate(scripts))
    said = subprocess.run(
        ["bash", "-c", f"say() {{ echo say $*; }}\n{text}"], capture_output=True, text=True, check=True
    )
    assert ran(text) == said.stdout.splitlines()


def test_only_the_branch_that_runs_is_imported_and_the_other_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = """#!/bin/bash
#SBATCH -N 2 --gpus-per-node=8
MODE=${MODE:-full}
if [ "$MODE" = debug ]; then
    export NCCL_DEBUG=INFO
    torchrun --nproc_per_node 1 train.py --debug
else
    export OMP_NUM_THREADS=8
    srun torchrun --nproc_per_node 8 train.py
fi
"""
    (tmp_path / "run.sh").write_text(text)
    made = make(Wish(("run.sh",), tmp_path / "job.yaml", tmp_path), {})
    data = yaml.safe_load(made.text)
    assert data["train"]["env"] == {"OMP_NUM_THREADS": "8"}
    assert data["cluster"]["slots"] == 8
    dropped = [f"{note.source}: {note.text}" for note in made.notes if note.kind == "not carried"]
    assert any(each.startswith("run.sh:6: torchrun") and "line 4 does not hold" in each for each in dropped)
    assert Reader.__doc__


def test_a_start_that_is_a_condition_is_the_start(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = "#!/bin/sh\nif [ -f x ]; then echo x; fi\nif which q; then export A=1; fi\n"
    text += "if ! torchrun --nproc_per_node 2 train.py; then\n  echo failed\n  exit 1\nfi\n"
    (tmp_path / "run.sh").write_text(text)
    made = make(Wish(("run.sh",), tmp_path / "job.yaml", tmp_path), {})
    data = yaml.safe_load(made.text)
    assert (data["train"]["script"], data["train"]["env"]) == ("train.py", {"A": "1"})
    dropped = [note.source for note in made.notes if note.kind == "not carried"]
    assert dropped == ["run.sh:2: if [ -f x ]", "run.sh:2: echo x", "run.sh:3: if which q"]
