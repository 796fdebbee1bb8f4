"""What the real sbatch says about values that we take or refuse; it stops before it asks any slurmctld."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from orchestrator.job.slurm_grammar import (
    MAIL_WORDS,
    check_begin,
    check_memory,
    check_switches,
    mail_words,
    slurm_seconds,
)
from tests.slurm_values import BEGINS, NO_BEGINS, TIMES

pytestmark = pytest.mark.skipif(shutil.which("sbatch") is None, reason="sbatch is not installed")


@pytest.fixture(scope="module")
def sbatch(tmp_path_factory):
    """Return a function that has the real sbatch check one option: its error, or the value that it shows.

    No Slurm has to run: sbatch stops by itself at a generic resource that it has never heard of.
    """
    conf = tmp_path_factory.mktemp("sbatch") / "slurm.conf"
    conf.write_text(
        "ClusterName=c\nSlurmctldHost=localhost\nSlurmctldPort=1\nNodeName=n\nPartitionName=p Nodes=ALL\n"
    )

    def check(option: str, value: str) -> tuple[str | None, str | None]:
        done = subprocess.run(
            ["sbatch", "-vv", f"--{option}={value}", "--gres=unheard:1", "--wrap=true"],
            env={"SLURM_CONF": str(conf), "PATH": "/usr/bin:/bin", "TZ": "UTC"},
            capture_output=True,
            text=True,
            check=False,
            timeout=240,
        )
        error = re.search(
            r"^(?!.*gres)(?:sbatch: (?:error|fatal): .*|Invalid .*)$", done.stderr, re.MULTILINE
        )
        shown = re.search(rf"^sbatch: {option} +: (.*)$", done.stderr, re.MULTILINE)
        return error and error[0], shown and shown[1]

    return check


@pytest.mark.parametrize("text", TIMES)
def test_sbatch_agrees_about_times(sbatch, text):
    error, shown = sbatch("time", text)
    assert error is None
    assert slurm_seconds(str(shown)) == slurm_seconds(text)


@pytest.mark.parametrize("text", BEGINS)
def test_starts_that_sbatch_takes(sbatch, text):
    assert check_begin(text) == text
    assert sbatch("begin", text)[0] is None


@pytest.mark.parametrize("text", [text for text in NO_BEGINS if text != "2030-01-31T"])
def test_starts_that_sbatch_refuses(sbatch, text):
    with pytest.raises(ValueError, match="expected a start"):
        check_begin(text)
    assert sbatch("begin", text)[0] is not None


@pytest.mark.parametrize(
    ("check", "option", "text", "right"),
    [
        (check_memory, "mem", "500G", True),
        (check_memory, "mem", "0", True),
        (check_memory, "mem", "4096", True),
        (check_memory, "mem", "2tb", True),
        (check_memory, "mem", "1.5G", False),
        (check_memory, "mem", "500 G", False),
        (check_memory, "mem", "500Gi", False),
        (check_memory, "mem", "all", False),
        (check_switches, "switches", "2", True),
        (check_switches, "switches", "2@1:00:00", True),
        (check_switches, "switches", "0", False),
        (check_switches, "switches", "two", False),
        (mail_words, "mail-type", "END", True),
        (mail_words, "mail-type", "sometimes", False),
        (mail_words, "mail-type", "", False),
        *((mail_words, "mail-type", word, True) for word in MAIL_WORDS),
    ],
)
def test_sbatch_agrees_about_values(sbatch, check, option, text, right):
    try:
        check(text)
    except ValueError:
        assert not right
    else:
        assert right
    assert (sbatch(option, text)[0] is None) == right
