from __future__ import annotations

import io
import subprocess
import sys
import tarfile

from orchestrator.bundle import pack, secrets_text, write_bundle
from orchestrator.render import render
from orchestrator.rundir import RunDir
from tests import samples


def written(root, attempt: int = 1) -> RunDir:
    run = RunDir(root / "job-abcd")
    plan = samples.plan(run_dir=str(run.path))
    run.path.mkdir(exist_ok=True)
    write_bundle(run, render(plan, attempt), attempt)
    return run


def test_a_bundle_has_its_files_its_folders_and_the_agent(tmp_path):
    attempt = written(tmp_path).attempt(1)
    names = sorted(path.name for path in attempt.rendered.iterdir())
    assert names == ["agent.pyz", "ds_filter.txt", "hostfile", "hosts.txt", "node.sh"]
    assert (attempt.rendered / "node.sh").stat().st_mode & 0o777 == 0o755
    assert (attempt.rendered / "hostfile").stat().st_mode & 0o777 == 0o644
    assert attempt.logs.is_dir()
    assert attempt.errors.is_dir()


def test_a_second_attempt_leaves_the_first_alone(tmp_path):
    first = {path: path.read_bytes() for path in written(tmp_path).attempt(1).rendered.iterdir()}
    second = written(tmp_path, 2).attempt(2)
    assert {path: path.read_bytes() for path in first} == first
    assert "attempt-2" in (second.rendered / "node.sh").read_text()


def test_the_agent_runs_by_itself(tmp_path):
    agent = written(tmp_path).attempt(1).agent_file
    done = subprocess.run([sys.executable, "-I", agent, "x"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, "agent.pyz: no such command 'x'\n")


def test_secrets_arrive_whole_in_a_shell(tmp_path):
    values = {"ODD": samples.ODD + "\nline two\t ", "EMPTY": ""}
    (tmp_path / "secrets.env").write_text(secrets_text(values), encoding="utf-8")
    script = f'. {tmp_path}/secrets.env; printf "%s|%s|" "$ODD" "$EMPTY"; env'
    said = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True).stdout
    assert said.startswith(f"{values['ODD']}||")
    assert "\nEMPTY=\n" in said


def opened(archive: bytes) -> tarfile.TarFile:
    return tarfile.TarFile(fileobj=io.BytesIO(archive))


def test_what_is_pushed_is_all_a_host_needs_and_none_of_its_logs(tmp_path):
    run = written(tmp_path)
    run.plan_file.write_text("{}")
    run.secrets_file.write_text("secret")
    run.secrets_file.chmod(0o600)
    run.workdir.mkdir()
    (run.workdir / "train.py").write_text("x")
    attempt = run.attempt(1)
    attempt.control_file.write_text("{}")
    (attempt.logs / "node1.log").write_text("of another host")
    (run.path / "supervisor.log").write_text("ours")
    archive = opened(pack(run, attempt))
    names = {member.name for member in archive if member.isfile()}
    rendered = {f"attempt-1/rendered/{path.name}" for path in attempt.rendered.iterdir()}
    expected = {"plan.json", "secrets.env", "workdir/train.py", "attempt-1/control.json", "pushed"}
    assert names == rendered | expected
    assert {member.name for member in archive if member.isdir()} >= {"attempt-1/logs", "attempt-1/errors"}
    assert archive.getmember("secrets.env").mode & 0o777 == 0o600
    assert archive.getmember("attempt-1/rendered/node.sh").mode & 0o111


def test_a_run_without_secrets_and_snapshot_is_pushed_without_them(tmp_path):
    run = written(tmp_path)
    names = opened(pack(run, run.attempt(1))).getnames()
    assert not {"secrets.env", "workdir"} & set(names)
