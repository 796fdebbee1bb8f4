"""What `orchestrate init` finds on a machine, and which defaults follow from it."""

from __future__ import annotations

from orchestrator.init import machine as machines
from orchestrator.init.machine import Gpu, Partition, parse_nvidia_smi, parse_sinfo

# sinfo --noheader --format='%P|%D|%G|%l|%c', Slurm 24.05
SINFO = """\
debug|2|(null)|1:00:00|8
gpu*|12|gpu:h100:8(S:0-1)|2-00:00:00|96
gpu*|4|gpu:a100:4,shard:16|2-00:00:00|64+
"""


def test_sinfo_is_read():
    debug, gpu = parse_sinfo(SINFO + "slurm_load_partitions: error\n")
    assert debug == Partition("debug", 2, "", "1:00:00", 8)
    assert gpu == Partition("gpu", 16, "h100:8", "2-00:00:00", 64, default=True)


def test_nvidia_smi_is_read():
    assert parse_nvidia_smi("NVIDIA H100 80GB HBM3, 81559, 9.0\nTesla T4, [N/A], 7.5\n") == (
        Gpu("NVIDIA H100 80GB HBM3", 81559, 9.0),
        Gpu("Tesla T4", None, 7.5),
    )


def test_what_is_here_is_found(tmp_path):
    tools = tmp_path / "bin"
    tools.mkdir()
    for name, says in (
        ("nvidia-smi", "NVIDIA L4, 23034, 8.9"),
        ("sinfo", "p*|3|gpu:l4:1|infinite|16"),
        ("pdsh", ""),
    ):
        (tools / name).write_text(f"#!/bin/sh\necho '{says}'\n")
        (tools / name).chmod(0o755)
    folder = tmp_path / "work"
    folder.mkdir()
    for name in ("hostfile", "train_lora.py", "run_clm.py", "util.py"):
        (folder / name).touch()
    cache = tmp_path / "hf" / "accelerate"
    cache.mkdir(parents=True)
    (cache / "default_config.yaml").write_text("mixed_precision: bf16\n")
    found = machines.look(folder, {"PATH": str(tools), "HF_HOME": str(tmp_path / "hf")})
    assert found.gpus == (Gpu("NVIDIA L4", 23034, 8.9),)
    assert found.partitions == (Partition("p", 3, "l4:1", "infinite", 16, default=True),)
    assert found.pdsh
    assert found.hostfiles[0] == "hostfile"
    assert found.scripts == ("train_lora.py", "run_clm.py")
    assert found.accelerate == {"mixed_precision": "bf16"}


def test_tools_that_fail_are_as_if_they_were_not_there(tmp_path):
    for name in ("nvidia-smi", "sinfo"):
        (tmp_path / name).write_text("#!/bin/sh\necho 'NVIDIA L4, 1, 8.9'; exit 9\n")
        (tmp_path / name).chmod(0o755)
    found = machines.look(tmp_path, {"PATH": str(tmp_path), "HF_HOME": str(tmp_path)})
    assert not found.partitions
    assert not [gpu for gpu in found.gpus if gpu.name == "NVIDIA L4"]
