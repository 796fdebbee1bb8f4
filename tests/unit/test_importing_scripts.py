"""Shell scripts and scripts for sbatch as job files."""

from __future__ import annotations

import pytest
import yaml

from orchestrator.errors import JobFileError
from orchestrator.importing.make import Wish, make
from orchestrator.job import load_job

SBATCH = r"""#!/bin/bash
#SBATCH --job-name="llama 70b"
#SBATCH -N 4 --ntasks-per-node=1
#SBATCH --gpus-per-node=h100:8
#SBATCH --cpus-per-task=96   # all of them
#SBATCH --time=24:00:00
#SBATCH -p gpu -A my_account
#SBATCH --output=logs/%x-%j.out
#SBATCH --signal=B:USR1@300
#SBATCH --exclusive
#SBATCH --network=sn_all
##SBATCH --mem=1

set -euo pipefail
module purge; module load cuda/12.4
source ~/venv/bin/activate
export NCCL_DEBUG=INFO WANDB_API_KEY=abc123
export OMP_NUM_THREADS=$((SLURM_CPUS_PER_TASK / 8))
export MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export MASTER_PORT=29500
GPUS_PER_NODE=${GPUS:-8}
cd "$SLURM_SUBMIT_DIR/proj"
echo "starting on $MASTER_ADDR"
LAUNCHER="torchrun --nproc_per_node $GPUS_PER_NODE \
    --nnodes $SLURM_NNODES --node_rank \$SLURM_NODEID \
    --rdzv_id $SLURM_JOB_ID --rdzv_endpoint $MASTER_ADDR:$MASTER_PORT"
ARGS=(
    --model "meta/llama"   # a comment
    --out "out/$SLURM_JOB_ID"
)
srun --label --cpu-bind=none bash -c "$LAUNCHER train.py ${ARGS[*]} --deepspeed ds.json" 2>&1 | tee log.txt
"""


def import_script(folder, text, name):
    """Import a script in a folder; return the job file's data and the notes' texts."""
    (folder / name).write_text(text)
    made = make(Wish((name,), folder / "job.yaml", folder), {"HOME": "/home/me", "USER": "me"})
    (folder / "job.yaml").write_text(made.text)
    load_job(folder / "job.yaml")
    return yaml.safe_load(made.text), [f"{n.kind}: {n.source}: {n.text}" for n in made.notes]


@pytest.fixture
def imported(tmp_path, monkeypatch):
    """Return a function that imports a script and gives the job file's data and the notes' texts."""
    monkeypatch.chdir(tmp_path)
    return lambda text, name="train.sbatch": import_script(tmp_path, text, name)


def test_a_script_as_people_write_them(imported):
    data, notes = imported(SBATCH)
    assert data == {
        "name": "llama 70b",
        "cluster": {
            "backend": "slurm",
            "nodes": 4,
            "slots": 8,
            "slurm": {
                "partition": "gpu",
                "account": "my_account",
                "time": "24:00:00",
                "gpus_per_node": "h100:8",
                "cpus_per_task": 96,
                "exclusive": True,
                "signal_before": 300,
                "srun_args": ["--cpu-bind=none"],
                "extra": {"network": "sn_all"},
            },
        },
        "train": {
            "script": "train.py",
            "args": ["--model", "meta/llama", "--out", "out/{run_id}", "--deepspeed", "{ds_config}"],
            "launcher": "torchrun",
            "workdir": "proj",
            "setup": ["module purge", "module load cuda/12.4", "source ~/venv/bin/activate"],
            "env": {"NCCL_DEBUG": "INFO", "OMP_NUM_THREADS": "12"},
            "secrets": ["WANDB_API_KEY"],
        },
        "deepspeed": {"config_file": "proj/ds.json", "auto": "script"},
    }
    dropped = [note for note in notes if note.startswith("not carried")]
    for place in ("train.sbatch:19: MASTER_ADDR", "train.sbatch:20: MASTER_PORT", "train.sbatch:8: --output"):
        assert any(place in note for note in dropped), place
    assert any("tee log.txt" in note for note in dropped)
    assert not any("abc123" in note for note in notes)


@pytest.mark.parametrize(
    ("head", "command", "cluster"),
    [
        (
            "#SBATCH --nodes=2\n#SBATCH --ntasks-per-node=4\n#SBATCH --gres=gpu:4\n#SBATCH -c 6",
            "srun python train.py",
            {"nodes": 2, "slots": 4, "slurm": {"gres": "gpu:4", "cpus_per_task": 24}},
        ),
        (
            "#SBATCH --ntasks=16\n#SBATCH --ntasks-per-node=8\n#SBATCH --gpus-per-task=1",
            "srun python -u train.py",
            {"nodes": 2, "slots": 8, "slurm": {"gpus_per_node": "8"}},
        ),
        (
            "#SBATCH --nodes=2-4\n#SBATCH --gpus=a100:16",
            "srun torchrun --nnodes=$SLURM_JOB_NUM_NODES --nproc_per_node=gpu train.py",
            {"nodes": 2, "slurm": {"gpus_per_node": "a100:8"}},
        ),
        (
            "#SBATCH -N2\n#SBATCH --no-requeue\n#SBATCH --mail-type=END,FAIL\n#SBATCH --gres gpu:8",
            (
                "srun --ntasks=$SLURM_NNODES --ntasks-per-node=1 accelerate launch --use_deepspeed \\\n"
                "--num_machines $SLURM_NNODES --num_processes $((SLURM_NNODES * 8)) "
                "--machine_rank $SLURM_PROCID --main_process_ip $MASTER_ADDR --main_process_port 1 train.py"
            ),
            {
                "nodes": 2,
                "slots": 8,
                "slurm": {"requeue": False, "mail_type": "END,FAIL", "gres": "gpu:8"},
            },
        ),
        (
            "#SBATCH -N 2\n#SBATCH --gpus-per-node=8",
            "deepspeed --hostfile hosts --launcher slurm --num_gpus 8 --master_addr $X train.py",
            {"nodes": 2, "slots": 8, "slurm": {"gpus_per_node": "8"}},
        ),
    ],
)
def test_where_it_runs(imported, head, command, cluster):
    data, _ = imported(f"#!/bin/bash\n{head}\n{command}\n")
    assert data["cluster"] == {"backend": "slurm", **cluster}
    assert data["train"]["script"] == "train.py"


DOCUMENTED = r"""#!/bin/bash
#SBATCH --job-name=multinode
#SBATCH -D .
#SBATCH --output=O-%x.%j
#SBATCH --nodes=4                   # number of nodes
#SBATCH --ntasks-per-node=1         # number of MP tasks
#SBATCH --gres=gpu:4                # number of GPUs per node
#SBATCH --cpus-per-task=160         # number of cores per tasks
#SBATCH --time=01:59:00             # maximum execution time (HH:MM:SS)
source activateEnvironment.sh
export GPUS_PER_NODE=4
head_node_ip=$(scontrol show hostnames $SLURM_JOB_NODELIST | head -n 1)
export LAUNCHER="accelerate launch \
    --num_processes $((SLURM_NNODES * GPUS_PER_NODE)) \
    --num_machines $SLURM_NNODES \
    --main_process_ip $head_node_ip --main_process_port 29500 \
    "
export DIR="${DIR:-/accelerate}"
export SCRIPT="${DIR}/examples/complete_nlp_example.py"
export CMD="$LAUNCHER $SCRIPT --mixed_precision fp16 --output_dir ${DIR}/output"
srun $CMD
"""


def test_the_script_of_accelerates_documentation(imported):
    data, _ = imported(DOCUMENTED)
    assert (data["cluster"]["nodes"], data["cluster"]["slots"]) == (4, 4)
    assert data["train"]["script"] == "/accelerate/examples/complete_nlp_example.py"
    assert data["train"]["args"] == ["--mixed_precision", "fp16", "--output_dir", "/accelerate/output"]
    assert data["train"]["setup"] == ["source activateEnvironment.sh"]
    assert data["train"]["env"].keys() == {"GPUS_PER_NODE", "DIR", "SCRIPT"}


def test_a_container_of_pyxis(imported):
    text = "#!/bin/bash\n#SBATCH -N2 --gpus-per-node=8\n"
    text += (
        "srun --container-image=nvcr.io/nvidia/pytorch:25.06-py3 --container-mounts=/data:/data:ro,/home \\\n"
    )
    text += "  --container-env=A,B --no-container-mount-home torchrun t.py\n"
    data, _ = imported(text)
    assert data["container"] == {
        "image": "nvcr.io/nvidia/pytorch:25.06-py3",
        "mounts": ["/data:/data:ro", "/home"],
        "env": ["A", "B"],
        "mount_home": False,
    }


def test_a_plain_script(imported):
    text = (
        "#!/bin/sh\nexport A='x y'\ncd sub\ntorchrun \\\n  --nproc_per_node=2 \\\n  train.py --a \"b c\" &\n"
    )
    data, _ = imported(text, "run.sh")
    assert data["cluster"] == {"backend": "local", "slots": 2}
    assert data["train"]["env"] == {"A": "x y"}
    assert (data["train"]["workdir"], data["train"]["args"]) == ("sub", ["--a", "b c"])


def test_conditions_and_unknown_commands_are_named_with_their_lines(imported):
    text = "#!/bin/bash\nif [ -d data ]; then\n  rsync -a x y\nfi\ncat <<EOF\ntorchrun no.py\nEOF\n"
    text += "torchrun train.py $EXTRA\n"
    data, notes = imported(text, "run.sh")
    assert any("run.sh:2: if [ -d data ]" in note for note in notes)
    assert any("run.sh:3: rsync -a x y" in note for note in notes)
    assert any("run.sh:8: $EXTRA" in note for note in notes)
    assert data["train"]["script"] == "train.py"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("#!/bin/sh\necho hello\n", "starts no ranks"),
        ("#!/bin/sh\ntorchrun a.py\ntorchrun b.py\n", "starts ranks 2 times, on lines 2, 3"),
        ("#!/bin/sh\ntorchrun 'a.py\n", "run.sh:2: a ' is never closed"),
        ('#!/bin/sh\n\ntorchrun "a.py\n', 'run.sh:3: a " is never closed'),
        ("#!/bin/sh\ntorchrun $(a.py\n", "run.sh:2: a ( is never closed"),
        ("#!/bin/sh\n#SBATCH --nodes='2\n", "run.sh:2: cannot be read: No closing quotation"),
        ("#!/bin/sh\n#SBATCH --nodes\ntorchrun a.py", "run.sh:2: lacks its value (got --nodes)"),
        ("#!/bin/sh\n#SBATCH -N1\n#SBATCH hetjob\ntorchrun a.py", "run.sh:3: is no option"),
        (
            "#!/bin/sh\n#SBATCH -N1\n#SBATCH --time=soon\n#SBATCH -G8\ntorchrun a.py",
            "run.sh:3: --time: ",
        ),
        ("#!/bin/sh\n#SBATCH --nodes=many\ntorchrun a.py", "run.sh:2: --nodes: expected a number"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(imported, text, message):
    with pytest.raises(JobFileError) as caught:
        imported(text, "run.sh")
    assert message in str(caught.value)
