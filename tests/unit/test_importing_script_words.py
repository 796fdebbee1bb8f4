"""Shell scripts that put their command together, and that ask where they are."""

from __future__ import annotations

import pytest

from tests.unit.test_importing_scripts import import_script


@pytest.fixture
def imported(tmp_path, monkeypatch):
    """Return a function that imports a script and gives the job file's data and the notes' texts."""
    monkeypatch.chdir(tmp_path)
    return lambda text, name="train.sbatch": import_script(tmp_path, text, name)


PYXIS = r"""#!/bin/bash
#SBATCH --nodes=2
#SBATCH --gpus-per-node=8
: "${IMAGE:=nvcr.io/nvidia/pytorch:25.06-py3}"
: "${DATA:=/fsx/data}"
readonly STEPS=100
declare -a TORCHRUN_ARGS=(
    --nproc_per_node=8
    --nnodes=$SLURM_JOB_NUM_NODES
    --rdzv_id=$SLURM_JOB_ID
    --rdzv_endpoint=$(hostname)
)
declare -a TRAINING_ARGS=(--max_steps=$STEPS --dataset "$DATA")
AUTO_RESUME=""
srun ${AUTO_RESUME} -l --wait=60 --container-image $IMAGE --container-mounts $DATA:/data \
    torchrun "${TORCHRUN_ARGS[@]}" ./train.py "${TRAINING_ARGS[@]}" "${MORE[@]}"
"""


def test_arrays_and_defaults_are_read(imported):
    data, notes = imported(PYXIS)
    assert (data["cluster"]["nodes"], data["cluster"]["slots"]) == (2, 8)
    assert data["train"]["script"] == "./train.py"
    assert data["train"]["args"][:3] == ["--max_steps=100", "--dataset", "/fsx/data"]
    assert data["container"] == {
        "image": "nvcr.io/nvidia/pytorch:25.06-py3",
        "mounts": ["/fsx/data:/data"],
    }
    assert "env" not in data["train"]
    assert any("--wait: hosts end together" in note for note in notes)


BLOOM = r"""#!/bin/bash
#SBATCH --nodes=48 --gres=gpu:8
cd /code/Megatron-DeepSpeed
CONFIG="./ds_config.$SLURM_JOBID.json"
cat <<EOT > $CONFIG
{"zero_optimization": {"stage": 0}}
EOT
export LAUNCHER="python -u -m torch.distributed.run --nproc_per_node 8 --nnodes $SLURM_NNODES \
    --rdzv_endpoint $MASTER_ADDR:6001"
export CMD=" `pwd`/pretrain_gpt.py --partition 'type:transformer|embedding' --deepspeed_config ${CONFIG} "
clear; srun --jobid $SLURM_JOBID bash -c "$LAUNCHER --node_rank \$SLURM_PROCID $CMD" 2>&1 | tee log.txt
"""


def test_a_script_that_writes_its_deepspeed_file_and_puts_its_command_together(imported):
    data, notes = imported(BLOOM)
    assert data["cluster"] == {"backend": "slurm", "nodes": 48, "slots": 8, "slurm": {"gres": "gpu:8"}}
    assert data["train"]["script"] == "pretrain_gpt.py"
    assert data["train"]["workdir"] == "/code/Megatron-DeepSpeed"
    assert data["train"]["args"][:2] == ["--partition", "type:transformer|embedding"]
    assert "deepspeed" not in data
    assert "setup" not in data["train"]
    dropped = [note for note in notes if note.startswith("not carried")]
    assert any("train.sbatch:5: cat <<EOT > $CONFIG" in note and "write it once" in note for note in dropped)
    assert any("name a file as deepspeed.config_file" in note for note in dropped)


@pytest.mark.parametrize(
    ("lines", "train"),
    [
        ("torchrun $PWD/src/t.py", {"script": "src/t.py"}),
        ("cd sub; torchrun $(pwd)/t.py", {"script": "t.py", "workdir": "sub"}),
        ('cd "$(dirname "$0")"; torchrun t.py', {"script": "t.py", "workdir": "."}),
        (
            'D="$( cd "$( dirname "${BASH_SOURCE[0]}" )" >/dev/null 2>&1 && pwd )"\ntorchrun $D/t.py',
            {"script": "t.py"},
        ),
        ('torchrun t.py "$@" --x ${1:-y}', {"script": "t.py", "args": ["--x", "y"]}),
        ("export A=1 B=2\nunset A\ntorchrun t.py", {"script": "t.py", "env": {"B": "2"}}),
        (
            "declare -x A=1\ndeclare B=2\ntorchrun t.py $B",
            {"script": "t.py", "args": ["2"], "env": {"A": "1"}},
        ),
    ],
)
def test_folders_and_words_of_a_shell_script(imported, lines, train):
    data, _ = imported(f"#!/bin/bash\n{lines}\n", "run.sh")
    assert data["train"] == {"launcher": "torchrun", **train}


def test_words_that_the_script_is_given_are_named(imported):
    _, notes = imported('#!/bin/bash\ntorchrun t.py "$@"\n', "run.sh")
    assert any('run.sh:2: "$@": stands for words that the script itself is given' in note for note in notes)


def test_the_place_of_a_batch_script_is_not_known_while_it_runs(imported):
    """Slurm runs a copy of it, so `dirname $0` is a folder of slurmd."""
    _, notes = imported("#!/bin/bash\n#SBATCH -N1 --gpus-per-node=1\ncd $(dirname $0)\ntorchrun t.py\n")
    assert any("is known only when it runs: set train.workdir" in note for note in notes)


def test_a_deepspeed_file_below_an_absolute_workdir_keeps_its_path(imported):
    data, _ = imported(
        "#!/bin/bash\ncd /far/proj\ndeepspeed t.py --deepspeed_config c/../ds.json\n", "run.sh"
    )
    assert data["deepspeed"]["config_file"] == "/far/proj/ds.json"
