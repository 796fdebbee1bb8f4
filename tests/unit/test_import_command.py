"""`orchestrate import` and `orchestrate export` as a user meets them."""

from __future__ import annotations

import json

import pytest
import yaml

from orchestrator.job import load_job
from tests.samples import ROOT, orchestrate
from tests.unit.test_imports import HEAVY, LATER, loaded

SEEDS = ROOT / "tests" / "data" / "seeds"
FIELDS = (SEEDS / "zero3_offload_plugin.yaml").read_text().replace("fp16", "bf16")


@pytest.fixture
def here(tmp_path):
    """Return a folder with a configuration and a script."""
    (tmp_path / "accelerate.yaml").write_text(FIELDS)
    (tmp_path / "train.py").touch()
    return tmp_path


def run(here, *words, **environ):
    return orchestrate(*words, cwd=here, HOME=str(here), HF_HOME=str(here / "hf"), **environ)


def test_a_job_file_is_written_and_the_report_goes_to_stderr(here):
    done = run(here, "import", "accelerate.yaml", "--script", "train.py --lr 1e-4")
    assert done.returncode == 0, done.stderr
    assert "wrote job.yaml" in done.stdout
    assert "carried:\n" in done.stderr
    spec = load_job(here / "job.yaml").spec
    assert spec.deepspeed.zero_stage == 3
    assert spec.train.args == ["--lr", "1e-4"]


def test_a_file_that_is_there_is_kept_without_force(here):
    (here / "job.yaml").write_text("mine")
    done = run(here, "import", "accelerate.yaml")
    assert (done.returncode, (here / "job.yaml").read_text()) == (2, "mine")
    assert "--output: is there already (got job.yaml)" in done.stderr
    assert run(here, "import", "accelerate.yaml", "--force").returncode == 0
    assert (here / "job.yaml").read_text() != "mine"


def test_it_can_be_printed(here):
    done = run(here, "import", "accelerate.yaml", "-o", "-")
    assert yaml.safe_load(done.stdout)["deepspeed"]["zero_stage"] == 3
    assert not (here / "job.yaml").exists()


def test_json_tells_all(here):
    done = run(here, "import", "--json", "accelerate.yaml", "-o", "a b.yaml")
    said = json.loads(done.stdout)
    assert said["file"] == "a b.yaml"
    assert (here / "a b.yaml").read_text() == said["text"]
    assert {note["kind"] for note in said["notes"]} == {"carried", "changed"}


def test_a_command_line_behind_two_dashes(here):
    words = ("--", "deepspeed", "--num_gpus", "2", "my train.py", "--text", 'it\'s $5 "now"', "-o", "x")
    done = run(here, "import", *words)
    assert done.returncode == 0, done.stderr
    spec = load_job(here / "job.yaml").spec
    assert (str(spec.train.script), spec.train.args) == (
        "my train.py",
        ["--text", 'it\'s $5 "now"', "-o", "x"],
    )


def test_accelerates_default(here):
    assert "no default configuration of Accelerate" in run(here, "import", "--accelerate-default").stderr
    (here / "hf" / "accelerate").mkdir(parents=True)
    (here / "hf" / "accelerate" / "default_config.json").write_text(json.dumps(yaml.safe_load(FIELDS)))
    done = run(here, "import", "--accelerate-default")
    assert done.returncode == 0, done.stderr
    assert load_job(here / "job.yaml").spec.cluster.slots == 2


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("none.yaml", None, "none.yaml: no such file"),
        ("empty.yaml", "\n", "empty.yaml: the file is empty"),
        ("list.yaml", "- a\n", "list.yaml: is no Accelerate configuration"),
        ("bad.yaml", "a: [\n", "bad.yaml:2"),
        ("twice.yaml", "num_machines: 1\nnum_machines: 2\n", "twice.yaml:2"),
        ("other.yaml", "a: 1\n", "it has no distributed_type"),
        ("ds.json", '{"zero_optimization": {}}', "is a configuration of DeepSpeed, not of Accelerate"),
        ("bad.json", "{,}", "bad.json:1:2: not JSON"),
        ("bytes.yaml", b"\xff\xfe", "not UTF-8 at byte 0"),
        ("a b 'c'.yaml", "distributed_type: FSDP\n", "a b 'c'.yaml:1: distributed_type"),
        ("run.sh", "#!/bin/sh\nls\n", "run.sh: starts no ranks"),
    ],
)
def test_a_wrong_file_is_told_and_nothing_is_written(here, name, text, message):
    if text is not None:
        (here / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    done = run(here, "import", f"./{name}")
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (here / "job.yaml").exists()


def test_nothing_to_import(here):
    done = run(here, "import")
    assert (done.returncode, "SOURCE: nothing to import" in done.stderr) == (2, True)
    done = run(here, "import", "accelerate.yaml", "--script", "it's.py")
    assert (done.returncode, "--script: cannot be read: No closing quotation" in done.stderr) == (2, True)
    done = run(here, "import", "accelerate.yaml", "-o", "no/job.yaml")
    assert (done.returncode, "there is no such folder" in done.stderr) == (2, True)


LOCAL = """\
cluster: {backend: local, slots: 2}
train: {script: train.py, launcher: accelerate}
"""
JOB = """\
cluster: {backend: pdsh, hostfile: hosts, exclude: "b:1"}
train: {script: train.py, launcher: accelerate, master_port: 29501, env: {A: b}}
deepspeed: {zero_stage: 3, hpz: 2, precision: bf16, micro_batch_per_gpu: 1, moe_layer_cls_names: [A, B]}
"""


def test_export_for_accelerate_writes_what_its_launcher_needs(here):
    (here / "hosts").write_text("a slots=2\nb slots=4\n")
    (here / "job.yaml").write_text(JOB.replace('"b:1"', '"b:1,2"'))
    (here / "out").mkdir()
    done = run(here, "export", "accelerate", "job.yaml", "-o", "out/accelerate.yaml")
    assert done.returncode == 0, done.stderr
    config = yaml.safe_load((here / "out" / "accelerate.yaml").read_text())
    section = config["deepspeed_config"]
    assert (config["num_machines"], config["num_processes"], config["main_process_port"]) == (2, 4, 29501)
    assert section["deepspeed_multinode_launcher"] == "pdsh"
    assert section["deepspeed_hostfile"] == str(here / "out" / "hostfile")
    assert section["deepspeed_inclusion_filter"] == "a@b:0,3"
    assert section["deepspeed_moe_layer_cls_names"] == "A,B"
    assert (here / "out" / "hostfile").read_text() == "a slots=2\nb slots=4\n"
    ds_config = json.loads((here / "out" / "ds_config.json").read_text())
    assert ds_config["zero_optimization"]["zero_hpz_partition_size"] == 2
    assert "not exported: train.env" in done.stderr
    assert run(here, "export", "accelerate", "job.yaml", "-o", "out/accelerate.yaml").returncode == 2


def test_what_is_exported_for_several_hosts_can_be_imported_again(here):
    (here / "hosts").write_text("a slots=2\nb slots=2\n")
    (here / "job.yaml").write_text(JOB.replace(', exclude: "b:1"', ""))
    assert run(here, "export", "accelerate", "job.yaml", "-o", "out.yaml").returncode == 0
    assert run(here, "import", "out.yaml", "-o", "again.yaml", "--script", "train.py").returncode == 0
    again = load_job(here / "again.yaml").spec
    assert (again.cluster.backend, again.cluster.nodes, again.cluster.slots) == ("pdsh", 2, 2)
    assert (again.cluster.hostfile, again.train.master_port) == (here / "hostfile", 29501)
    assert again.deepspeed.moe_layer_cls_names == ["A", "B"]
    ours = run(here, "export", "deepspeed", "again.yaml")
    assert json.loads(ours.stdout) == json.loads((here / "ds_config.json").read_text())


def test_export_in_accelerates_own_fields(here):
    text = "{zero_stage: 3, offload_param: cpu, gradient_accumulation_steps: 2, precision: bf16}"
    (here / "job.yaml").write_text(f"{LOCAL}deepspeed: {text}\n")
    done = run(here, "export", "accelerate", "job.yaml", "--fields", "-o", "out.yaml")
    assert done.returncode == 0, done.stderr
    config = yaml.safe_load((here / "out.yaml").read_text())
    assert config["mixed_precision"] == "bf16"
    assert config["deepspeed_config"] == {
        "zero_stage": 3,
        "offload_param_device": "cpu",
        "gradient_accumulation_steps": 2,
        "zero3_init_flag": True,
    }
    assert not (here / "ds_config.json").exists()
    assert run(here, "import", "out.yaml", "-o", "again.yaml", "--script", "train.py").returncode == 0
    assert load_job(here / "again.yaml").spec.deepspeed == load_job(
        here / "job.yaml"
    ).spec.deepspeed.model_copy(update={"zero3_init": True, "overrides": {"gradient_clipping": "auto"}})


def test_what_has_no_field_of_accelerates_is_said(here):
    (here / "job.yaml").write_text(f"{LOCAL}deepspeed: {{zero_stage: 3, hpz: 2}}\n")
    done = run(here, "export", "accelerate", "job.yaml", "--fields")
    assert done.returncode == 2
    assert "Accelerate has no field for zero_optimization.zero_hpz_partition_size" in done.stderr
    done = run(here, "export", "deepspeed", "job.yaml", "--fields")
    assert (done.returncode, "--fields is for accelerate" in done.stderr) == (2, True)


def test_no_training_package_is_imported(here):
    assert loaded(here, "import", "accelerate.yaml") & HEAVY == set()
    assert loaded(here, "export", "deepspeed", "job.yaml") & HEAVY == set()
    assert loaded(here, "import", "--help") & LATER == set()


def test_export_to_stdout_and_with_settings(here):
    (here / "hosts").write_text("a slots=2\nb slots=2\n")
    (here / "job.yaml").write_text(JOB)
    done = run(here, "export", "deepspeed", "job.yaml", "--set", "deepspeed.hpz=1")
    assert json.loads(done.stdout)["zero_optimization"]["zero_hpz_partition_size"] == 1
    done = run(here, "export", "hostfile", "job.yaml")
    assert done.stdout == "a slots=2\nb slots=1\n"


def test_what_an_export_to_stdout_names_without_writing_it_is_told(here):
    (here / "hosts").write_text("a slots=2\nb slots=2\n")
    (here / "job.yaml").write_text(JOB)
    done = run(here, "export", "accelerate", "job.yaml")
    named = yaml.safe_load(done.stdout)["deepspeed_config"]["deepspeed_config_file"]
    assert not (here / "ds_config.json").exists()
    assert f"it names {named}, " in done.stderr
    assert "which only -o FILE writes" in done.stderr


@pytest.mark.parametrize(
    ("kind", "text", "message"),
    [
        (
            "deepspeed",
            "cluster: {backend: local}\ntrain: {script: t.py}\n",
            "the job has no deepspeed section",
        ),
        ("accelerate", "cluster: {backend: local}\ntrain: {script: t.py}\n", "no deepspeed section"),
        ("hostfile", "cluster: {backend: local}\ntrain: {script: t.py}\n", "has no hosts of a hostfile"),
        ("hostfile", "a: 1\n", "job.yaml"),
    ],
)
def test_what_cannot_be_exported_is_said(here, kind, text, message):
    (here / "job.yaml").write_text(text)
    done = run(here, "export", kind, "job.yaml")
    assert (done.returncode, message in done.stderr) == (2, True), done.stderr
