"""`orchestrate plan` as a user runs it. Processes are started only where a test says so."""

from __future__ import annotations

import json
import subprocess
import sys
from types import SimpleNamespace

import pytest

from orchestrator.configs.verify import Verified
from orchestrator.errors import Problem
from tests.planned import HARDWARE, JOB, MODEL
from tests.samples import ROOT, click, orchestrate


def test_without_a_model_it_shows_hosts_and_batch_and_what_to_add(job):
    job(model=False)
    result = click("plan", "job.yaml", "--quick")
    assert result.return_value == 0
    assert "8 ranks on 2 hosts, ZeRO-3, bf16" in result.output
    assert "micro-batch 2 x 4 accumulation steps x 8 ranks = 64 samples" in result.output
    assert "model.parameters: 7B" in result.output
    assert "Memory" not in result.output


def test_a_job_without_deepspeed_is_plain_data_parallelism(job):
    job(
        "hardware: {link: 100Gbit/s, gpu: H100-80GB}\n",
        base="cluster: {backend: local}\ntrain: {script: train.py}\n",
    )
    output = click("plan", "job.yaml", "--quick").output
    assert "data parallel" in output
    assert "there is no deepspeed section" in output
    assert "does not fit" in output  # 7B in fp32 with Adam: 16 bytes a parameter


def test_hardware_gives_times_and_fits(job):
    job("hardware: {gpu: H100-80GB, link: 100Gbit/s, host_mtbf: 42d, storage: 5GB/s}\n")
    output = click("plan", "job.yaml", "--quick").output
    assert "link 100 Gbit/s a host" in output
    assert "fits" in output
    assert "Young" in output
    assert "hardware." not in output


def test_set_changes_a_value_for_this_plan_alone(job):
    path = job()
    before = path.read_text()
    plan = json.loads(click("plan", "job.yaml", "--quick", "--json", "--set", "cluster.nodes=3").output)
    assert (plan["world_size"], len(plan["hosts"])) == (12, 3)
    assert path.read_text() == before


def test_errors_are_all_told_with_their_lines_and_what_can_be_shown_is(job):
    path = job(base=JOB.replace("precision: bf16", "hpz: 3").replace("train.py", "gone.py"))
    done = orchestrate("plan", "job.yaml", "--quick", cwd=path.parent)
    assert done.returncode == 2
    assert "error: job.yaml:3: train.script" in done.stdout
    assert "error: job.yaml:8: deepspeed.hpz" in done.stdout
    assert "hpZ secondary copy" in done.stdout
    assert done.stdout.endswith("submit would refuse this job\n")


def test_a_job_file_that_is_none_is_told_as_everywhere(job):
    path = job("nodse: 3\n")
    done = orchestrate("plan", "job.yaml", cwd=path.parent)
    assert (done.returncode, done.stdout) == (2, "")
    assert "error: job.yaml" in done.stderr


def test_hosts_that_cannot_be_told_leave_an_error_and_no_traceback(job):
    job(base=JOB.replace("backend: local, nodes: 2, slots: 4", "backend: pdsh, hostfile: gone"))
    result = click("plan", "job.yaml", "--quick", "--json")
    plan = json.loads(result.output)
    assert (result.return_value, plan["hosts"], plan["estimates"]) == (2, None, None)
    found = plan["findings"][0]
    assert found["where"] == "job.yaml:2: cluster.hostfile"
    assert found["value"].endswith("/gone")


def test_slurms_hosts_are_those_asked_for(job):
    job(base=JOB.replace("backend: local", "backend: slurm"))
    output = click("plan", "job.yaml", "--quick").output
    assert "2 hosts x 4 slots (0-3), named when Slurm gives them" in output
    assert "Slurm gives the hosts" in output


def test_a_sweep_is_planned_by_its_first_point(job):
    job("matrix: {deepspeed.zero_stage: [2, 3]}\n")
    assert "a sweep of 2 points" in click("plan", "job.yaml", "--quick").output
    plan = json.loads(click("plan", "job.yaml", "--quick", "--json").output)
    assert (plan["points"], plan["settings"]["stage"]) == (2, 2)


# -- the model's configuration ------------------------------------------------------------------------


def counting_python(folder, answer):
    """Write a Python for the job that answers so when it is asked to count; return its path."""
    path = folder / "python"
    path.write_text(f"#!{sys.executable}\nprint({json.dumps(json.dumps(answer))})\n")
    path.chmod(0o755)
    return path


def with_config(folder, model="config: org/model"):
    text = "cluster: {backend: local, nodes: 2}\ntrain: {script: train.py, python: ./python}\n"
    (folder / "job.yaml").write_text(f"{text}model: {{{model}}}\n")


def test_the_model_is_counted_by_the_trainings_python(here):
    with_config(here, "config: org/model, parameters: 7B")
    shape = {"parameters": 10**9, "trainable": 10**9, "largest_layer": 10**8, "hidden_size": 8}
    shape |= {"layers": 2, "heads": 2, "vocabulary": 10, "tensors": [10**9], "pretrained_in": None}
    shape |= {"active_parameters": None, "model_type": "llama", "transformers": "5.23.0"}
    counting_python(here, {"shape": shape})
    result = click("plan", "job.yaml")
    assert "1.00B parameters, largest layer 100M" in result.output
    assert "from org/model (llama, transformers 5.23.0)" in result.output
    assert "read in" in result.output
    said = "model.parameters: is not used: model.config is counted, and has 1.00B (got 7.00B)"
    assert f"warning: job.yaml:3: {said}" in " ".join(result.output.split())


def test_a_model_that_cannot_be_counted_is_an_error_among_the_others(here):
    with_config(here)
    told = {"what": "no such model", "where": "model.config", "value": "org/model", "fix": "look again"}
    counting_python(here, {"problem": told})
    result = click("plan", "job.yaml")
    assert result.return_value == 2
    assert "error: job.yaml:3: model.config: no such model (got org/model)" in result.output
    assert "2 ranks on 2 hosts" in result.output


def test_quick_starts_no_process(here):
    with_config(here)
    counting_python(here, {"problem": {"what": "should not be asked"}})
    result = click("plan", "job.yaml", "--quick")
    assert result.return_value == 0
    assert "model.config: org/model  for memory, traffic and step times, without --quick" in result.output


def test_planning_imports_nothing_of_the_training(here):
    (here / "job.yaml").write_text(JOB + f"model: {json.dumps(MODEL)}\n" + HARDWARE)
    program = (
        "import sys; from orchestrator.cli.main import main\n"
        "try: main(['plan', 'job.yaml', '--quick', '--suggest'])\n"
        "finally: print('LOADED', *sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=here,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    names = set(done.stdout.partition("LOADED")[2].split())
    assert names & {"torch", "deepspeed", "accelerate", "transformers", "numpy", "rich"} == set()


def test_a_job_for_a_login_host_is_planned_here(job):
    base = JOB.replace("backend: local", "backend: slurm, login: me@far.example.org")
    job(base=base.replace("train.py}", "train.py, python: /opt/there/python}"))
    result = click("plan", "job.yaml", "--quick")
    assert result.return_value == 0
    assert "slurm through me@far.example.org, torchrun, 8 ranks on 2 hosts" in result.output


# -- the installed classes ----------------------------------------------------------------------------


@pytest.fixture
def installed(monkeypatch):
    """Return a function that says what the installed DeepSpeed and Accelerate make of a configuration."""

    def say(versions, *problems, dropped=()):
        asked = []

        def start(files, python, world_size):
            asked.append((files, python, world_size))
            told = Verified(**versions, problems=problems, dropped=dropped, seconds=2.94)
            return SimpleNamespace(result=lambda timeout: told, close=lambda: None)

        monkeypatch.setattr("orchestrator.configs.verify", SimpleNamespace(start=start))
        return asked

    return say


def test_the_installed_classes_are_named_with_their_versions_and_seconds(job, installed):
    asked = installed({"deepspeed": "0.19.8", "accelerate": "1.15.0"})
    job()
    output = click("plan", "job.yaml").output
    assert "loaded by the installed DeepSpeed 0.19.8 and Accelerate 1.15.0 in 2.9 s" in output
    ((files, python, world_size),) = asked
    assert json.loads(files["ds_config.json"])["zero_optimization"]["stage"] == 3
    assert (python, world_size) == (sys.executable, 8)
    assert click("plan", "job.yaml", "--quick").return_value == 0
    assert len(asked) == 1


def test_accelerate_gets_its_own_file_too(job, installed):
    asked = installed({"deepspeed": "0.19.8", "accelerate": "1.15.0"})
    job(base=JOB.replace("train.py", "train.py, launcher: accelerate"))
    assert click("plan", "job.yaml").return_value == 0
    files = asked[0][0]
    assert "num_processes: 8" in files["accelerate.yaml"]
    assert set(files) == {"ds_config.json", "accelerate.yaml"}


def test_what_nobody_reads_is_a_warning(job, installed):
    installed({"deepspeed": "0.19.8"}, dropped=("zero_optimisation",))
    job()
    result = click("plan", "job.yaml")
    assert result.return_value == 0
    assert "zero_optimisation is not read by DeepSpeed 0.19.8" in result.output.partition("warning:")[2]


def test_what_is_not_installed_is_said(job, installed):
    installed({"deepspeed": None, "accelerate": None})
    job()
    assert "DeepSpeed could not be asked: not installed here" in click("plan", "job.yaml").output


def test_what_the_installed_classes_refuse_is_an_error(job, installed):
    installed(
        {"deepspeed": "0.19.8", "accelerate": None}, Problem("refused", "deepspeed.zero_stage", "3", "do not")
    )
    job()
    result = click("plan", "job.yaml", "--json")
    plan = json.loads(result.output)
    assert result.return_value == 2
    assert plan["checked"] == {
        "versions": {"deepspeed": "0.19.8", "accelerate": None},
        "seconds": 2.94,
    }
    assert plan["findings"][0] == {
        "severity": "error",
        "rule": "installed",
        "what": "refused",
        "where": "job.yaml:5: deepspeed.zero_stage",
        "value": "3",
        "fix": "do not",
    }
