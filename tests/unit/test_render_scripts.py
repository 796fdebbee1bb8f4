"""The rendered shell scripts: bash and shellcheck read them, node.sh runs with any path and value."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.bundle import secrets_text
from orchestrator.render import node_command, render
from tests import samples

SHELL_PLANS = {
    "plain": {},
    "odd": {
        "name": samples.ODD,
        "run_dir": f"/runs/{samples.ODD}",
        "workdir": f"/srv/{samples.ODD}",
        "python": f"/opt/{samples.ODD}/python",
        "supervisor_python": f"/opt/{samples.ODD}/python",
        "setup": ("module load a 'b c'", "if true; then\nexport X=1\nfi", 'export A="b;c" # it\'s'),
        "env": {"ODD": samples.ODD + "\nnext\tline\r"},
        "secrets": ("TOKEN", "FILED"),
    },
    "setup alone": {"setup": ("true # with a comment",)},
}


def scripts(folder: Path, **changes) -> list[Path]:
    """Write the shell scripts of a plan and return their paths."""
    paths = []
    for file in render(samples.plan(**changes)):
        if file.executable:
            paths.append(folder / Path(file.path).name)
            paths[-1].write_text(file.text, encoding="utf-8")
    return paths


def require(program: str) -> None:
    """Skip without a program; fail instead where CI asks for everything."""
    if shutil.which(program) is None:
        if "ssh" in os.environ.get("ORCH_REQUIRE", "").replace(",", " ").split():
            pytest.fail(f"ORCH_REQUIRE asks for everything, but {program} is not installed", pytrace=False)
        pytest.skip(f"{program} is not installed")


@pytest.mark.parametrize("backend", ["local", "pdsh", "ssh"])
@pytest.mark.parametrize("changes", SHELL_PLANS.values(), ids=SHELL_PLANS)
def test_bash_can_read_every_script(tmp_path, backend, changes):
    paths = scripts(tmp_path, backend=backend, **changes)
    assert len(paths) == (3 if backend == "pdsh" else 2)
    for path in paths:
        subprocess.run(["bash", "-n", str(path)], check=True)


@pytest.mark.parametrize("changes", SHELL_PLANS.values(), ids=SHELL_PLANS)
def test_shellcheck_finds_nothing(tmp_path, changes):
    require("shellcheck")
    # What looks like a mistake in the odd values (SC2016, SC2088) is only data.
    options = ["--exclude=SC2016,SC2088"] if changes is SHELL_PLANS["odd"] else []
    command = ["shellcheck", *options, *scripts(tmp_path, backend="pdsh", **changes)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout + done.stderr == ""


# -- node.sh as a host runs it ------------------------------------------------------------------------

AGENT = """
import json, os, sys
print(json.dumps({"argv": sys.argv[1:], "cwd": os.getcwd(), "env": dict(os.environ)}))
"""


def node(folder: Path, **changes) -> subprocess.CompletedProcess[str]:
    """Run node.sh as every launcher does, with an agent that tells what it was given."""
    changes = {"run_dir": str(folder / "run"), "workdir": str(folder), "python": sys.executable, **changes}
    plan = samples.plan(**changes)
    rendered = Path(plan.attempt_dir(1)) / "rendered"
    rendered.mkdir(parents=True)
    (script,) = (file.text for file in render(plan) if file.path.endswith("node.sh"))
    (rendered / "node.sh").write_text(script, encoding="utf-8")
    (rendered / "agent.pyz").write_text(AGENT)
    environ = {"PATH": "/usr/bin:/bin", "HOME": str(folder), "LANG": "C.UTF-8"}
    command = node_command(plan.attempt_dir(1), plan.hosts[0].alias)
    return subprocess.run(command, env=environ, capture_output=True, text=True, check=False, cwd="/")


def told(done: subprocess.CompletedProcess[str]) -> dict:
    import json

    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


def test_paths_and_values_arrive_however_odd_they_are(tmp_path):
    name = samples.ODD.replace("/", "")
    workdir, programs = tmp_path / f"work {name}", tmp_path / f"bin {name}"
    for path in (workdir, programs):
        path.mkdir()
    (programs / "python").symlink_to(sys.executable)
    env = {
        "ODD": samples.ODD + "\nnext\tline\r ",
        "EMPTY": "",
        "host": "h",
        "python": "p",
        "workdir": "w",
        "fail": "f",
    }
    run_dir, python = str(tmp_path / f"run {name}"), str(programs / "python")
    facts = told(node(tmp_path, workdir=str(workdir), python=python, run_dir=run_dir, env=env))
    assert facts["argv"] == ["agent", run_dir, f"{run_dir}/attempt-1", "node1"]
    assert facts["cwd"] == str(workdir)
    assert {key: facts["env"][key] for key in env} == env
    assert facts["env"]["PATH"].split(":")[0] == str(programs)
    assert not [path for path in tmp_path.rglob("*") if path.name in ("x", "h")]


def test_secrets_and_setup_reach_the_agent_and_their_failure_is_told(tmp_path):
    secrets = tmp_path / "run" / "secrets.env"
    secrets.parent.mkdir()
    secrets.write_text(secrets_text({"TOKEN": samples.ODD}), encoding="utf-8")
    setup = ('export FROM_SETUP="$TOKEN"', "cd /", "python() { :; }; fail() { :; }; host=x")
    facts = told(node(tmp_path, secrets=("TOKEN",), setup=setup))
    assert facts["env"]["FROM_SETUP"] == samples.ODD
    assert facts["argv"][-1] == "node1"


def test_a_module_command_is_looked_for_where_clusters_keep_it(tmp_path):
    init = tmp_path / "modules" / "init" / "bash"
    init.parent.mkdir(parents=True)
    init.write_text('module() { export LOADED="$2"; }\n')
    env = {"MODULESHOME": str(tmp_path / "modules")}
    assert told(node(tmp_path, setup=("module load cuda/12",), env=env))["env"]["LOADED"] == "cuda/12"


NO_PYTHON = (
    "train.python python9 is not a program here; give a path that exists on every host, or train.setup"
)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"workdir": "/gone/it's $HOME"},
            "the workdir /gone/it's $HOME cannot be entered here; set train.snapshot: true to send it along",
        ),
        (
            {"python": "python9"},
            NO_PYTHON,
        ),
        (
            {"setup": ("true", "sh -c 'exit 5'")},
            "line 2 of train.setup ended with 5: sh -c 'exit 5'",
        ),
        (
            {"setup": ("gone-command 2>/dev/null",)},
            "line 1 of train.setup ended with 127: gone-command 2>/dev/null",
        ),
        ({"secrets": ("TOKEN",)}, "the file of the run's secrets cannot be read"),
    ],
    ids=["workdir", "python", "setup", "setup unknown", "secrets"],
)
def test_what_is_missing_on_the_host_is_told_in_a_line_of_its_own(tmp_path, changes, said):
    done = node(tmp_path, **changes)
    assert done.returncode == 98
    assert done.stderr.splitlines()[-1] == f"@orchestrate {said}"
    assert done.stdout == ""


def test_a_host_without_the_bundle_ends_with_97(tmp_path):
    command = node_command(str(tmp_path / "gone"), "node1")
    assert subprocess.run(command, check=False).returncode == 97
