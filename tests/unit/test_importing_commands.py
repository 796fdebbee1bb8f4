"""Command lines of deepspeed, torchrun, accelerate launch and srun as job files."""

from __future__ import annotations

import shlex

import pytest
import yaml

from orchestrator.errors import JobFileError
from orchestrator.importing.make import Wish, make


@pytest.fixture
def imported(tmp_path, monkeypatch):
    """Return a function that imports a command line and gives the job file's data and the notes' texts."""
    monkeypatch.chdir(tmp_path)

    def run(text, **wish):
        words = tuple(shlex.split(text))
        made = make(Wish(words, tmp_path / "job.yaml", tmp_path, **wish), {"HOME": str(tmp_path)})
        return yaml.safe_load(made.text), [f"{n.kind}: {n.source}: {n.text}" for n in made.notes]

    return run


def refused(run, text) -> str:
    with pytest.raises(JobFileError) as caught:
        run(text)
    return str(caught.value)


@pytest.mark.parametrize(
    ("command", "cluster"),
    [
        ("deepspeed --num_gpus 2 t0.py", {"backend": "local", "slots": 2}),
        ("deepspeed t0.py", {"backend": "local", "slots": 1}),
        ("deepspeed --include localhost:1,3 t0.py", {"backend": "local", "slots": 2}),
        ("CUDA_VISIBLE_DEVICES=0,1,2 deepspeed t0.py", {"backend": "local", "slots": 3}),
        ("deepspeed -H hosts t0.py", {"backend": "pdsh", "hostfile": "hosts"}),
        (
            "deepspeed --hostfile=/etc/hosts.ds --num_nodes 2 --num_gpus 4 t0.py",
            {"backend": "pdsh", "hostfile": "/etc/hosts.ds", "nodes": 2, "slots": 4},
        ),
        (
            "deepspeed -H hosts -e b@c:0,1 --ssh_port 2222 t0.py",
            {"backend": "pdsh", "hostfile": "hosts", "exclude": "b@c:0,1", "ssh": {"port": 2222}},
        ),
        ("deepspeed -H hosts --launcher OpenMPI t0.py", {"backend": "pdsh", "hostfile": "hosts"}),
        ("deepspeed -H hosts --no_ssh --node_rank 0 t0.py", {"backend": "ssh", "hostfile": "hosts"}),
        (
            "deepspeed --launcher slurm --num_nodes 2 --num_gpus 8 t0.py",
            {"backend": "slurm", "nodes": 2, "slots": 8},
        ),
        ("python -m torch.distributed.run --nproc_per_node=2 t0.py", {"backend": "local", "slots": 2}),
        ("torchrun --standalone --nnodes=1 --nproc-per-node=4 t0.py", {"backend": "local", "slots": 4}),
        (
            "torchrun --nnodes 2:4 --nproc_per_node 8 --node_rank 1 t0.py",
            {"backend": "ssh", "hostfile": "hostfile", "nodes": 4, "slots": 8},
        ),
        (
            "srun -N 2 --gpus-per-node=8 -p gpu --label torchrun --nproc_per_node 8 --nnodes 2 t0.py",
            {"backend": "slurm", "nodes": 2, "slots": 8, "slurm": {"partition": "gpu", "gpus_per_node": "8"}},
        ),
        (
            "srun -N2 --ntasks-per-node=4 --cpus-per-task=6 --gres=gpu:4 python t0.py",
            {
                "backend": "slurm",
                "nodes": 2,
                "slots": 4,
                "slurm": {"gres": "gpu:4", "cpus_per_task": 24},
            },
        ),
        (
            (
                "accelerate launch --use_deepspeed --num_processes 8 --num_machines 2 "
                "--deepspeed_hostfile hosts t0.py"
            ),
            {"backend": "pdsh", "hostfile": "hosts", "nodes": 2, "slots": 4},
        ),
    ],
)
def test_where_it_runs(imported, command, cluster):
    data, _ = imported(command)
    for part in (data["cluster"], cluster):
        part.get("slurm", {}).pop("partition", None)
    assert data["cluster"] == cluster
    assert data["train"]["script"] == "t0.py"


@pytest.mark.parametrize(
    ("command", "train"),
    [
        (
            (
                "deepspeed --num_gpus 1 --master_port 29600 --master_addr h1 --no_local_rank train.py "
                "--lr 1e-4 'a b' \"q'q\""
            ),
            {
                "script": "train.py",
                "args": ["--lr", "1e-4", "a b", "q'q"],
                "launcher": "deepspeed",
                "master_addr": "h1",
                "master_port": 29600,
            },
        ),
        (
            "deepspeed --module --venv_script /v/bin/activate pkg.train",
            {"module": "pkg.train", "launcher": "deepspeed", "setup": ["source /v/bin/activate"]},
        ),
        (
            "torchrun -m pkg.train --nproc_per_node 3",
            {"module": "pkg.train", "args": ["--nproc_per_node", "3"], "launcher": "torchrun"},
        ),
        (
            "torchrun --no-python python -u train.py x",
            {"script": "train.py", "args": ["x"], "launcher": "torchrun"},
        ),
        (
            "/opt/venv/bin/torchrun train.py",
            {"script": "train.py", "launcher": "torchrun", "python": "/opt/venv/bin/python"},
        ),
        (
            "/opt/venv/bin/python3 -u -m torch.distributed.run train.py",
            {"script": "train.py", "launcher": "torchrun", "python": "/opt/venv/bin/python3"},
        ),
        (
            "env A=1 B='x y' nohup torchrun train.py",
            {"script": "train.py", "launcher": "torchrun", "env": {"A": "1", "B": "x y"}},
        ),
        (
            "torchrun --rdzv-endpoint=node1:29400 train.py",
            {"script": "train.py", "launcher": "torchrun", "master_addr": "node1", "master_port": 29400},
        ),
        ("torchrun --rdzv_endpoint=localhost:0 train.py", {"script": "train.py", "launcher": "torchrun"}),
        ("uv run torchrun train.py", {"script": "train.py", "launcher": "torchrun"}),
        ("accelerate launch -m pkg.train", {"module": "pkg.train", "launcher": "torchrun"}),
        ("python -m accelerate.commands.launch t.py", {"script": "t.py", "launcher": "torchrun"}),
    ],
)
def test_what_runs(imported, command, train):
    assert imported(command)[0]["train"] == train


def test_one_text_is_split_as_a_shell_does(imported):
    data, _ = imported(shlex.quote("torchrun --nproc_per_node 2 train.py 'a b'"))
    assert data["train"]["args"] == ["a b"]


def test_secrets_are_not_written(imported, tmp_path):
    words = ("HF_TOKEN=hf_abc", "torchrun", "train.py", "--hub_token", "hf_def", "--eos_token", "</s>")
    made = make(Wish(words, tmp_path / "job.yaml", tmp_path), {})
    assert "hf_abc" not in made.text
    assert yaml.safe_load(made.text)["train"]["secrets"] == ["HF_TOKEN"]
    assert [n.source for n in made.notes if "stands in the job file" in n.text] == ["argument --hub_token"]


def test_what_the_launcher_sets_is_left_to_it(imported):
    data, notes = imported("MASTER_ADDR=a MASTER_PORT=1 NODE_RANK=0 torchrun train.py")
    assert "env" not in data["train"]
    assert sum("is set for each rank by the launcher" in note for note in notes) == 3


def test_every_option_that_is_not_carried_is_named(imported):
    _, notes = imported("torchrun --max_restarts 3 --tee 3 --rdzv_id x --role r train.py")
    dropped = {note.split("--")[1].split(":")[0] for note in notes if note.startswith("not carried")}
    assert dropped == {"max_restarts", "tee", "rdzv_id", "role"}


@pytest.mark.parametrize("tool", ["torchrun", "deepspeed", "accelerate launch --cpu"])
def test_dashes_go_to_the_script_where_the_tool_passes_them_on(imported, tool):
    data, notes = imported(f"{tool} train.py -- --a -- b")
    assert data["train"]["args"] == ["--a", "--", "b"]  # as the tool's own parser has it, up to Python 3.13
    assert any(note.startswith("not carried: command line: --: ") for note in notes)
    data, notes = imported(f"{tool} -- train.py --a -- b")
    assert data["train"]["args"] == ["--a", "--", "b"]
    assert not any(": --: " in note for note in notes)
    assert imported("python train.py -- --a")[0]["train"]["args"] == ["--", "--a"]


def test_deepspeed_passes_local_rank_and_the_job_does_not(imported):
    assert any("--local_rank" in note for note in imported("deepspeed train.py")[1])
    assert not any("--local_rank" in note for note in imported("deepspeed --no_local_rank train.py")[1])


@pytest.mark.parametrize(
    "option", ["--deepspeed ds.json", "--deepspeed=ds.json", "--deepspeed_config ds.json"]
)
def test_the_scripts_own_deepspeed_file_becomes_the_jobs(imported, tmp_path, option):
    (tmp_path / "ds.json").write_text('{"zero_optimization": {"stage": 2}, "train_batch_size": 2}')
    data, _ = imported(f"torchrun --nproc_per_node 2 train.py {option} --x 1")
    trainer = {"auto": "script"} if "--deepspeed" in option.replace("=", " ").split() else {}
    assert data["deepspeed"] == {"config_file": "ds.json", **trainer}
    assert shlex.join(data["train"]["args"]) == shlex.join(
        shlex.split(option.replace("ds.json", "{ds_config}") + " --x 1")
    )


def test_the_flag_deepspeed_without_a_file_stays_as_it_is(imported):
    data, _ = imported("deepspeed train.py --deepspeed --lr 1")
    assert data["train"]["args"] == ["--deepspeed", "--lr", "1"]
    assert "deepspeed" not in data


def test_paths_start_at_the_job_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "jobs").mkdir()
    words = ("deepspeed", "-H", "hosts", "train.py", "--deepspeed", "ds.json")
    data = yaml.safe_load(make(Wish(words, tmp_path / "jobs" / "job.yaml", tmp_path), {}).text)
    assert data["cluster"]["hostfile"] == "../hosts"
    assert data["deepspeed"]["config_file"] == "../ds.json"
    assert (data["train"]["workdir"], data["train"]["script"]) == ("..", "train.py")


def test_accelerates_options_go_before_its_configuration(imported, tmp_path):
    (tmp_path / "a.yaml").write_text(
        "distributed_type: DEEPSPEED\nnum_processes: 8\nmixed_precision: fp16\n"
        "deepspeed_config: {zero_stage: 2, gradient_clipping: 1.0}\n"
    )
    data, _ = imported("accelerate launch --config_file a.yaml --zero_stage 3 --mixed_precision bf16 t.py")
    assert (data["deepspeed"]["zero_stage"], data["deepspeed"]["precision"]) == (3, "bf16")
    assert data["deepspeed"]["gradient_clipping"] == 1.0


def test_accelerates_default_configuration_counts_too(imported, tmp_path):
    folder = tmp_path / ".cache" / "huggingface" / "accelerate"
    folder.mkdir(parents=True)
    (folder / "default_config.yaml").write_text(
        "distributed_type: DEEPSPEED\nnum_processes: 4\ndeepspeed_config: {zero_stage: 3}\n"
    )
    data, notes = imported("accelerate launch t.py")
    assert (data["cluster"]["slots"], data["deepspeed"]["zero_stage"]) == (4, 3)
    assert any("default configuration on this machine" in note for note in notes)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("deepspeed --num_gpus 2", "the following arguments are required: script"),
        ("deepspeed --bogus 2 t.py", "command line: deepspeed: "),
        ("deepspeed --num_gpus x t.py", "expected a number of 1 or more (got x)"),
        ("deepspeed -H h --num_nodes 2 -i a t.py", "DeepSpeed refuses --num_nodes and --num_gpus beside"),
        ("deepspeed -H h --launcher rsh t.py", "is no launcher of DeepSpeed (got rsh)"),
        ("torchrun --nproc_per_node lots t.py", "expected a number, gpu, cpu or auto (got lots)"),
        ("torchrun --no_python ./a.out", "starts a program that is no Python script"),
        ("mpirun -np 8 python t.py", "ranks are not started by MPI"),
        ("bash run.sh", "import the script itself: run.sh"),
        ("make train", "starts no ranks"),
        ("accelerate launch --config_file none.yaml t.py", "no such file"),
        ("accelerate launch --use_fsdp t.py", "FSDP shards the model"),
        ("accelerate launch --tpu t.py", "TPUs are started by torch_xla"),
    ],
)
def test_what_is_wrong_is_said(imported, command, message):
    assert message in refused(imported, command)


def test_a_hostfile_can_be_named_for_a_command_that_names_none(imported):
    data, _ = imported("torchrun --nnodes 2 --nproc_per_node 4 t.py", hostfile="my hosts")
    assert data["cluster"] == {"backend": "ssh", "hostfile": "my hosts", "nodes": 2, "slots": 4}
    _, notes = imported("torchrun t.py", hostfile="hosts")
    assert "not carried: --hostfile: backend local reads no hostfile" in notes


def test_a_container_in_front(imported):
    data, _ = imported(
        "srun -N2 -G 16 apptainer exec --nv -B /data,/home --writable-tmpfs img.sif torchrun t.py"
    )
    assert data["container"]["mounts"] == ["/data", "/home"]
    assert data["container"]["extra"] == ["--writable-tmpfs"]
    assert (data["container"]["image"], data["container"]["runtime"]) == ("img.sif", "apptainer")
    assert data["train"]["script"] == "t.py"


def test_two_deepspeed_files_are_not_taken_for_one(imported):
    data, notes = imported(
        "deepspeed --num_gpus 1 t.py --deepspeed ./a.json --deepspeed_config a.json --ds_config b.json"
    )
    assert data["train"]["args"] == [
        *("--deepspeed", "{ds_config}", "--deepspeed_config", "{ds_config}"),
        *("--ds_config", "b.json"),
    ]
    assert data["deepspeed"]["config_file"] == "a.json"
    assert any(note.startswith("not carried: argument --ds_config b.json") for note in notes)
