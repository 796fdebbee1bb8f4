from __future__ import annotations

import re
import shutil
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.job import JobSpec, SlurmSpec
from orchestrator.slurm.options import (
    gpu_count,
    sbatch_line,
    sbatch_options,
)
from tests.samples import ODD

CONF = """\
ClusterName=none
SlurmctldHost=localhost
SlurmctldPort=1
AuthType=auth/munge
NodeName=n1
PartitionName=p Nodes=ALL
"""
needs_sbatch = pytest.mark.skipif(shutil.which("sbatch") is None, reason="sbatch is not installed")


@pytest.fixture(scope="module")
def sbatch(tmp_path_factory):
    """Return a function that has the real sbatch read a script, and returns all that it says.

    No Slurm has to run: sbatch stops by itself at a generic resource that it has never heard of.
    """
    folder = tmp_path_factory.mktemp("sbatch")
    conf, script = folder / "slurm.conf", folder / "job.sh"
    conf.write_text(CONF)

    def read(*lines: str) -> list[str]:
        head = "#!/bin/bash\n" + "".join(f"{line}\n" for line in lines)
        script.write_text(head + "#SBATCH --gres=unheard:1\ntrue\n", encoding="utf-8")
        done = subprocess.run(
            ["sbatch", "-vvv", script],
            env={"SLURM_CONF": str(conf), "PATH": "/usr/bin:/bin"},
            capture_output=True,
            check=False,
            timeout=240,
        )
        return done.stderr.decode().split("\n")

    return read


def arguments(said: list[str]) -> list[str]:
    """Return the words that sbatch found in a script."""
    found = (re.match(r'sbatch: debug2: Found in script, argument "(.*)"\Z', line) for line in said)
    return [match[1] for match in found if match][:-1]


def options(slurm=None, **keys):
    section = {"backend": "slurm", "nodes": 2, "slots": 8, "slurm": slurm or {}, **keys}
    return sbatch_options(JobSpec.model_validate({"cluster": section, "train": {"script": "t.py"}}))


def test_the_least_that_sbatch_is_asked_for():
    assert options() == {"nodes": "2", "ntasks-per-node": "1"}


def test_every_key_becomes_its_option_in_the_order_of_a_reader():
    slurm = {
        "extra": {"hold": "", "wait-all-nodes": "1"},
        "partition": "a,b",
        "account": "acct",
        "qos": "high",
        "reservation": "res",
        "time": "1-00",
        "gres": "shard:2",
        "gpus_per_node": "h100:8",
        "cpus_per_task": 4,
        "mem": "0",
        "constraint": "ib&h100",
        "exclusive": True,
        "segment": 2,
        "switches": "1@10",
        "dependency": "afterok:12",
        "begin": "now+1hour",
        "nice": -5,
        "licenses": "ansys:2",
        "comment": "two words",
        "mail_user": "me@x",
        "mail_type": ["end", "FAIL"],
        "array": "0-3",
        "signal_before": "5m",
        "srun_args": ["--mpi=pmix"],
    }
    assert list(options(slurm, exclude="bad").items()) == [
        ("partition", "a,b"),
        ("account", "acct"),
        ("qos", "high"),
        ("reservation", "res"),
        ("nodes", "2"),
        ("ntasks-per-node", "1"),
        ("cpus-per-task", "4"),
        ("gres", "shard:2"),
        ("gpus-per-node", "h100:8"),
        ("mem", "0"),
        ("constraint", "ib&h100"),
        ("exclusive", None),
        ("segment", "2"),
        ("switches", "1@10"),
        ("exclude", "bad"),
        ("time", "1-00"),
        ("begin", "now+1hour"),
        ("dependency", "afterok:12"),
        ("nice", "-5"),
        ("licenses", "ansys:2"),
        ("comment", "two words"),
        ("mail-user", "me@x"),
        ("mail-type", "END,FAIL"),
        ("hold", None),
        ("wait-all-nodes", "1"),
    ]


def test_gpus_are_asked_for_once():
    assert "gpus-per-node" not in options({"gres": "gpu:8", "gpus_per_node": "8"})
    assert options({"exclusive": "user"})["exclusive"] == "user"
    assert "exclusive" not in options({"exclusive": False})


@pytest.mark.parametrize(
    ("slurm", "count"),
    [
        ({}, None),
        ({"gpus_per_node": "8"}, 8),
        ({"gpus_per_node": "h100:8"}, 8),
        ({"gpus_per_node": "volta:3,kepler:5"}, 8),
        ({"gres": "gpu:8"}, 8),
        ({"gres": "gpu"}, 1),
        ({"gres": "gpu:h100"}, 1),
        ({"gres": "gpu:h100:8"}, 8),
        ({"gres": "gres:gpu:2"}, 2),
        ({"gres": "shard:4,gpu:a100:2,gpu:1g.10gb:1"}, 3),
        ({"gres": "shard:4"}, None),
        ({"gres": "none"}, None),
        ({"gres": "gpu:4", "gpus_per_node": "4"}, 4),
        ({"gpus_per_node": "0"}, None),
    ],
)
def test_the_gpus_of_a_host_are_counted(slurm, count):
    assert gpu_count(SlurmSpec.model_validate(slurm)) == count


def test_without_a_section_no_gpu_is_asked_for():
    assert gpu_count(None) is None


@pytest.mark.parametrize(
    ("value", "line"),
    [
        (None, "#SBATCH --x"),
        ("gpu:h100:8", "#SBATCH --x=gpu:h100:8"),
        ("n[1-3,7]", "#SBATCH --x=n[1-3,7]"),
        ("", '#SBATCH --x=""'),
        ("two words", '#SBATCH --x="two words"'),
        ("nvcr.io#nvidia/x", '#SBATCH --x="nvcr.io#nvidia/x"'),
        ('a"b\\c', '#SBATCH --x="a\\"b\\\\c"'),
    ],
)
def test_a_line_is_quoted_only_where_it_has_to_be(value, line):
    assert sbatch_line("x", value) == line


@pytest.mark.parametrize("value", ["a\nb", "a\r", "\0", "a\x85b", "\u2028"])
def test_a_line_holds_no_line_breaks(value):
    with pytest.raises(ValueError, match="control character"):
        sbatch_line("comment", value)


@needs_sbatch
@given(
    st.lists(st.text(st.characters(exclude_categories=["C", "Zl", "Zp"])).filter(str.isprintable), max_size=5)
)
def test_sbatch_reads_what_was_meant(sbatch, values):
    lines = [sbatch_line("comment", value) for value in [*values, ODD]]
    assert arguments(sbatch(*lines)) == [f"--comment={value}" for value in [*values, ODD]]


@needs_sbatch
def test_sbatch_knows_every_option_that_is_rendered(sbatch):
    slurm = {
        "partition": "a,b",
        "account": "acct",
        "qos": "high",
        "reservation": "res",
        "time": "1-00",
        "cpus_per_task": 4,
        "mem": "500G",
        "constraint": "ib&h100|[rack1|rack2]",
        "exclusive": "user",
        "switches": "1@10",
        "begin": "2030-01-31T12:00",
        "nice": -5,
        "comment": ODD,
        "mail_user": "me@x",
        "mail_type": "END,TIME_LIMIT_80",
        "nodelist": "n[01-03,7],m",
        "exclude": "bad",
    }
    rendered = options(slurm, nodes=5)
    said = sbatch(*(sbatch_line(*item) for item in rendered.items()))
    errors = [line for line in said if "error" in line and "gres" not in line]
    assert errors == []
    shown = dict(re.findall(r"^sbatch: ([a-z-]+) +: (.*)$", "\n".join(said), re.MULTILINE))
    assert {key: shown[key] for key in ("comment", "mem", "time", "begin", "nodelist")} == {
        "comment": ODD,
        "mem": "500G",
        "time": "1-00:00:00",
        "begin": "2030-01-31T12:00:00",
        "nodelist": "n[01-03,7],m",
    }
