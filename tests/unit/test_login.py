from __future__ import annotations

import json
import os
import socket
import subprocess
import tempfile
from pathlib import Path

import pytest

from orchestrator.errors import JobFileError, LoginError
from orchestrator.job import load_job
from orchestrator.login import frames, records
from orchestrator.login.client import Connection
from orchestrator.login.install import Program, shell_command
from orchestrator.login.jobfile import as_setting, parcel
from orchestrator.login.place import Place, runtime_dir
from orchestrator.login.ssh_config import write_ssh_config
from orchestrator.login.words import Words
from tests.samples import ODD, ROOT, click, orchestrate

JOB = """\
cluster:
  backend: local
  login: me@login:2222
  hostfile: hosts
train: {script: train.py, python: python3, env_file: ~/there.env, checkpoint_dir: ckpt}
run_root: /scratch/runs
"""


@pytest.fixture
def runtime(monkeypatch):
    """A folder for sockets, whose path is short as theirs must be: pytest's own may be too long."""
    with tempfile.TemporaryDirectory(prefix="rt-", dir="/tmp") as folder:
        monkeypatch.setenv("XDG_RUNTIME_DIR", folder)
        yield Path(folder)


@pytest.fixture
def job(here, runtime, monkeypatch):
    monkeypatch.setenv("HOME", str(here / "home"))
    (here / "home").mkdir(mode=0o700)
    (here / "hosts").write_text("node1 slots=1\n")
    (here / "job.yaml").write_text(JOB)
    return here / "job.yaml"


# -- the job file


def test_a_text_and_a_section_say_the_same(job):
    text = load_job(job).spec.cluster.login
    section = load_job(job, ["cluster.login={host: 'me@login:2222'}"]).spec.cluster.login
    assert text == section
    assert text.host == "me@login:2222"


def test_the_python_there_has_to_be_said(job):
    with pytest.raises(JobFileError, match=r"cluster\.login needs train\.python"):
        load_job(job, ["train={script: a.py}"])


@pytest.mark.parametrize("rule", ["data/", "-", "* x", "-data"])
def test_a_push_rule_has_a_sign(job, rule):
    with pytest.raises(JobFileError, match="expected a rule as rsync's filters have them"):
        load_job(job, [f"cluster.login={json.dumps({'host': 'h', 'push': [rule]})}"])


def test_paths_are_sent_or_left_to_the_cluster(job):
    made = parcel(load_job(job))
    settings = made.settings("/home/me/orchestrate", "/home/me/orchestrate/jobs/x")
    assert settings == {
        ("cluster", "hostfile"): "/home/me/orchestrate/jobs/x/files/hostfile/hosts",
        ("train", "workdir"): "/home/me/orchestrate/jobs/x/workdir",
        ("train", "checkpoint_dir"): "/home/me/orchestrate/ckpt",
    }
    assert not made.complete  # env_file is the cluster's
    assert {"job.yaml", "files/hostfile/hosts", "workdir/train.py"} <= {item.name for item in made.items}


def test_a_path_that_is_here_is_sent_however_it_is_written(job):
    (job.parent / "home/there.env").write_text("A=1")
    made = parcel(load_job(job))
    assert made.names["train", "env_file"] == "files/env_file/there.env"
    assert [item.kind for item in made.items if item.name == "files/env_file/there.env"] == ["s"]
    assert made.complete


def test_patterns_for_diagnose_are_sent_and_named_in_their_order(job):
    (job.parent / "ours.yaml").write_text("patterns: []\n")
    text = job.read_text()
    job.write_text(f"{text}\nmonitor: {{patterns: [/theirs/first.yaml, ours.yaml]}}\n")
    made = parcel(load_job(job))
    assert made.pattern_files("/j/x") == ["/theirs/first.yaml", "/j/x/files/patterns/1/ours.yaml"]
    assert "files/patterns/1/ours.yaml" in {item.name for item in made.items}
    job.write_text(f"{text}\nmonitor: {{patterns: [absent.yaml]}}\n")
    with pytest.raises(JobFileError, match="no such file on this machine"):
        parcel(load_job(job))


def test_a_script_outside_the_workdir_is_sent_alone(job, tmp_path_factory):
    script = tmp_path_factory.mktemp("elsewhere") / "other.py"
    script.touch()
    assert (
        parcel(load_job(job, [f"train.script={script}"])).names["train", "script"] == "files/script/other.py"
    )
    inside = job.parent / "train.py"
    assert parcel(load_job(job, [f"train.script={inside}"])).names["train", "script"] == "workdir/train.py"
    assert ("train", "script") not in parcel(load_job(job, ["train.script=/only/there.py"])).names


def test_far_names_are_replaced_by_the_users(job):
    loaded = load_job(job)
    folder = "/home/me/orchestrate/jobs/x"
    settings = parcel(loaded).settings("/home/me/orchestrate", folder)
    words = Words(loaded, folder, settings)
    setting = as_setting(("cluster", "hostfile"), settings["cluster", "hostfile"])
    assert words.translated(f"error: {folder}/job.yaml:3: bad") == f"error: {job}:3: bad"
    assert words.translated(f"error: --set {setting}: cluster.hostfile: bad") == (
        f"error: {job}:4: cluster.hostfile: bad"
    )
    assert words.translated(f"{folder}/files/hostfile/hosts:1: bad") == "hosts:1: bad"


@pytest.mark.parametrize("value", [ODD, "a: b # c", "'\"", "", None])
def test_a_setting_carries_any_text(job, value):
    source = load_job(job, [as_setting(("name",), "x"), f"train.env={json.dumps({'A': 'b'})}"])
    assert source.spec.name == "x"
    made = load_job(job, [as_setting(("train", "env", "A"), value)] if value is not None else [])
    assert made.spec.train.env == ({} if value is None else {"A": value})


# -- the way there


def test_the_ssh_configuration_puts_the_job_file_first(job):
    (job.parent / "home/.ssh").mkdir()
    (job.parent / "home/.ssh/config").write_text(
        "Host login\n  HostName real.example\n  User nobody\n  Port 1\n"
    )
    spec = load_job(job).spec.cluster.login.model_dump(mode="json") | {
        "jump": "j@gate:7",
        "identity": "/k ey",
    }
    place = Place(spec)
    place.make()
    assert write_ssh_config(place) == "login"
    done = subprocess.run(
        ["ssh", "-F", "ssh_config", "-G", "login"],
        cwd=place.folder,
        capture_output=True,
        text=True,
        check=True,
    )
    told = dict(line.split(" ", 1) for line in done.stdout.splitlines() if " " in line)
    assert (told["user"], told["port"], told["proxyjump"]) == ("me", "2222", "j@gate:7")
    assert told["identityfile"] == "/k ey"
    if (job.parent / "home/.ssh/config").stat().st_uid == os.getuid():
        assert told["hostname"] == "real.example"


@pytest.mark.parametrize("host", ["a b", "me@", 'x"y', "*"])
def test_a_host_that_is_no_word_is_refused(job, host):
    place = Place({"host": host})
    place.make()
    with pytest.raises(LoginError):
        write_ssh_config(place)


def test_a_folder_that_others_may_enter_is_not_used(job):
    assert runtime_dir().stat().st_mode & 0o777 == 0o700
    runtime_dir().chmod(0o755)
    with pytest.raises(LoginError, match="open to others"):
        runtime_dir()


def test_a_kept_connection_that_ends_as_it_is_asked_is_made_again(runtime, monkeypatch):
    connection = Connection({"host": "node1"})
    (dead, gone), (ours, theirs) = socket.socketpair(), socket.socketpair()
    gone.close()
    frames.send(theirs, frames.STARTED)
    dialled = iter([dead, None, None])
    monkeypatch.setattr(connection, "_dial", lambda: next(dialled))
    monkeypatch.setattr(connection, "_open", lambda: ours)
    with ours, theirs:
        assert connection.start("true") is ours
        assert frames.receive(theirs)[0] == frames.REQUEST


def test_a_command_line_survives_a_shell():
    command = shell_command('printf "%s|" "$@" "$made"', [f"made='set up' # {ODD}"], ODD, "two words")
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout == f"{ODD}|two words|set up|"


def test_a_program_is_named_by_its_contents_and_complete():
    one, slurm = Program("local"), Program("slurm")
    assert one.name == Program("pdsh").name
    assert {pin.partition("==")[0].lower() for pin in one.pins} >= {"click", "jinja2", "markupsafe"}
    assert one.pins != slurm.pins
    templates = {f"orchestrator/job_templates/{path.name}" for path in (ROOT / "job_templates").iterdir()}
    names = set(one._own)
    assert templates <= names
    assert {"orchestrator/py.typed", "orchestrator/agent/rank.py"} <= names


# -- what is remembered


def record(run_id: str, created: float = 1.0, **changes) -> records.RemoteRun:
    made = records.RemoteRun(
        run_id=run_id,
        login={"host": "login"},
        program="p",
        job_file="/j",
        digest="d",
        created=created,
        **changes,
    )
    made.save()
    return made


def test_runs_elsewhere_are_found_as_runs_here_are(zero_run, here):
    record("far-aaaa", run_dir="/r")
    record("far-bbbb", 9e9)
    assert records.find("far-a", here / "runs").run_dir == "/r"
    assert records.find("far-", here / "runs") is None
    assert records.find("zero-aaaa", here / "runs") is None
    assert records.find("last", here / "runs").run_id == "far-bbbb"
    assert records.unfinished("d").run_id == "far-bbbb"
    records.find("far-b", here / "runs").forget()
    assert records.find("last", here / "runs") is None


def test_a_list_without_a_connection_shows_what_was_last_seen(zero_run, here, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(here))
    here.chmod(0o700)
    record("far-aaaa", 5.0, run_dir="/r", last={"state": "RUNNING", "reason": "", "since": 1.0, "seen": 2.0})
    record(
        "far-bbbb", 6.0, run_dir="/r", last={"state": "FAILED", "reason": "rank 1", "since": 1.0, "seen": 2.0}
    )
    record("far-cccc", 7.0)
    rows = {
        run["run_id"]: (run["state"], run["reason"]) for run in json.loads(click("list", "--json").output)
    }
    assert rows["far-aaaa"] == ("UNKNOWN", "not connected to login; RUNNING when last seen")
    assert rows["far-bbbb"] == ("FAILED", "rank 1")
    assert "orchestrate status far-cccc" in rows["far-cccc"][1]
    assert list(rows)[-1] == "zero-aaaa"


def test_completion_knows_runs_elsewhere(here):
    record("far-aaaa")
    from orchestrator.cli.runs import complete_run

    assert complete_run(None, None, "fa") == ["far-aaaa"]


def test_fetch_of_a_run_of_this_machine_says_so(zero_run, here):
    done = orchestrate("fetch", "zero-aaaa", cwd=here)
    assert done.returncode == 2
    assert "no run with that id was submitted from here through a login host" in done.stderr


def test_a_dry_run_sends_nothing(job, runtime):
    done = orchestrate("submit", "--dry-run", "job.yaml", cwd=job.parent)
    assert done.returncode == 0, done.stderr
    assert "would send" in done.stdout
    assert not list(runtime.iterdir())
