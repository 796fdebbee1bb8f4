from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from orchestrator.job import load_job

SMALL = "cluster: {backend: local}\ntrain: {script: train.py}\n"


@pytest.fixture
def job(tmp_path, monkeypatch):
    """Return a function that loads a job file from its text."""
    monkeypatch.chdir(tmp_path)

    def load(text: str, *overrides: str):
        Path("job.yaml").write_text(textwrap.dedent(text), encoding="utf-8")
        return load_job(Path("job.yaml"), overrides)

    return load


def test_the_smallest_job_has_its_defaults(job, tmp_path):
    loaded = job(SMALL)
    spec = loaded.spec
    assert (spec.name, spec.cluster.backend, spec.train.launcher, spec.train.python) == (
        "job",
        "local",
        "torchrun",
        None,
    )
    assert (spec.grace, spec.lease, spec.start_timeout, spec.time_limit) == (10, 30, 120, None)
    assert spec.deepspeed is None
    assert spec.run_root == tmp_path / "runs"
    assert (loaded.base_dir, loaded.path, loaded.text) == (tmp_path, Path("job.yaml"), SMALL)


def test_every_key_can_be_given(job):
    spec = job("""\
        name: zero3 "quoted" ü
        cluster:
          backend: slurm
          nodes: 2
          slots: 4
          include: a@b
          shared_disk: true
          control_address: 10.0.0.1
          control_port: 7000
          ssh:
            user: me
            port: 2222
            identity: keys/id
            jump: me@gate:22
            config: ~/ssh.conf
            known_hosts: known
            accept_new_host_keys: true
            connect_timeout: 3
            options: {BatchMode: yes, ServerAliveInterval: 015}
            fanout: 8
          slurm: {partition: gpu, time: 30:30:00, gpus_per_node: 8, mem: 0, exclusive: user, nice: -5,
                  begin: 2030-01-01, extra: {hold: "", wait-all-nodes: 1}}
        train:
          module: pkg.train
          args: []
          launcher: accelerate
          python: /opt/py/bin/python
          workdir: code
          setup: [module load cuda]
          env: {A: "two\\nlines"}
          env_file: my.env
          secrets: [HF_TOKEN]
          snapshot: yes
          master_addr: 10.0.0.2
          master_port: 29500
          interface: ib0
        deepspeed:
          config_file: ds.json
          zero_stage: 3
          hpz: node
          quantized_weights: true
          quantized_gradients: false
          micro_batch_per_gpu: 1
          global_batch: 8
          gradient_accumulation_steps: 1
          gradient_clipping: 1
          precision: bf16
          offload_optimizer: nvme
          offload_param: none
          offload_optimizer_nvme_path: /nvme
          overrides: {zero_optimization: {reduce_bucket_size: 5e8}}
        run_root: ~/runs
        time_limit: 1-02:00:00
        grace: 1.5
        lease: 5s
        start_timeout: 1m
        templates: mine
    """).spec
    assert spec.time_limit == 26 * 3600
    assert (spec.grace, spec.lease, spec.start_timeout) == (1.5, 5, 60)
    assert spec.cluster.ssh.options == {"BatchMode": "yes", "ServerAliveInterval": "015"}
    slurm = spec.cluster.slurm
    assert slurm is not None
    assert (slurm.time, slurm.gpus_per_node, slurm.mem, slurm.begin) == ("30:30:00", "8", "0", "2030-01-01")
    assert slurm.extra == {"hold": "", "wait-all-nodes": "1"}
    assert spec.train.env == {"A": "two\nlines"}
    assert spec.deepspeed is not None
    assert spec.deepspeed.overrides == {"zero_optimization": {"reduce_bucket_size": 5e8}}
    assert spec.run_root == Path.home() / "runs"


def test_arguments_and_variables_arrive_as_typed(job):
    train = job("""\
        cluster: {backend: local}
        train:
          script: 010
          args: [--lr, 1e-4, on, 010, 1_000, 2020-01-01, 1:30, 0x1F, .5, "a b", 'it''s', "{ds_config} {x}"]
          env: {ON: yes, N: 007, on: "no"}
    """).spec.train
    assert train.args == [
        "--lr",
        "1e-4",
        "on",
        "010",
        "1_000",
        "2020-01-01",
        "1:30",
        "0x1F",
        ".5",
        "a b",
        "it's",
        "{ds_config} {x}",
    ]
    assert train.env == {"ON": "yes", "N": "007", "on": "no"}
    assert train.script == Path("010")


def test_paths_start_at_the_folder_of_the_job_file(job, tmp_path):
    spec = job("""\
        cluster: {backend: pdsh, hostfile: hosts, ssh: {identity: ~/id, known_hosts: /etc/known}}
        train: {script: sub/train.py, workdir: ../code, env_file: my.env, python: venv/bin/python}
        templates: t
        deepspeed: {config_file: ds.json, offload_param_nvme_path: local}
    """).spec
    assert spec.cluster.hostfile == tmp_path / "hosts"
    assert spec.cluster.ssh.identity == Path.home() / "id"
    assert spec.cluster.ssh.known_hosts == Path("/etc/known")
    assert (spec.train.workdir, spec.train.env_file) == (tmp_path / "../code", tmp_path / "my.env")
    assert spec.train.python == str(tmp_path / "venv/bin/python")
    assert spec.templates == tmp_path / "t"
    assert spec.deepspeed is not None
    assert spec.deepspeed.config_file == tmp_path / "ds.json"
    assert spec.deepspeed.offload_param_nvme_path == Path(
        "local"
    )  # a folder of the hosts, not of this machine


def test_the_script_stays_as_written_and_starts_at_the_workdir(job, tmp_path):
    train = job("cluster: {backend: local}\ntrain: {script: t.py, workdir: code}\n").spec.train
    assert train.script == Path("t.py")
    assert train.script_path(tmp_path) == tmp_path / "code/t.py"
    train = job(SMALL).spec.train
    assert (train.workdir_path(tmp_path), train.script_path(tmp_path)) == (tmp_path, tmp_path / "train.py")
    assert job("cluster: {backend: local}\ntrain: {module: m}\n").spec.train.script_path(tmp_path) is None


def test_a_section_left_empty_is_a_section_not_given(job):
    assert job("cluster: {backend: local, ssh: , slurm: }\ntrain: {script: t.py, args: }\ndeepspeed:\n")


def test_specs_are_frozen(job):
    with pytest.raises(ValueError, match="frozen"):
        job(SMALL).spec.cluster.nodes = 3


@pytest.mark.parametrize(
    "settings",
    [
        ("cluster.hostfile=h",),
        ("cluster.ssh.port=22",),
        ("cluster.backend=slurm", "cluster.nodes=2", "cluster.slots=8"),
        ("cluster.backend=slurm", "cluster.include=a@b", "cluster.slurm.gpus_per_node=8"),
        ("cluster.backend=slurm", "cluster.nodes=1", "cluster.slots=2", "cluster.slurm.extra.wckey=x"),
        ("cluster.backend=pdsh", "cluster.hostfile=h"),
        ("train.script=", "train.module=m"),
        ("deepspeed.quantized_weights=true", "deepspeed.zero_stage=2"),
        ("name=a 'b' \"c\" $d; ü",),
    ],
)
def test_what_is_harmless_is_allowed(job, settings):
    assert job(SMALL, *settings)


def test_overrides_are_part_of_the_effective_text(job):
    loaded = job(SMALL + "# comment\n", "train.args=[--lr, 1e-4]", "train.env.FLAG=on", "name=x=y")
    assert loaded.spec.train.args == ["--lr", "1e-4"]
    assert loaded.spec.train.env == {"FLAG": "on"}
    assert loaded.spec.name == "x=y"
    again = job(loaded.text)
    assert again.spec == loaded.spec
    assert again.text == loaded.text
