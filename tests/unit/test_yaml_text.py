"""Values set in the text of a job file: everything else stays letter for letter."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import JobFileError
from orchestrator.job.yaml_edit import apply_setting
from orchestrator.job.yaml_source import parse_yaml
from orchestrator.job.yaml_text import set_values

JOB = """\
# a job
cluster: {backend: local}   # one line
train:
  script: train.py
deepspeed:
  # how it is cut up
  zero_stage: 2 # later 3
  overrides:
    optimizer: {type: AdamW}

    # behind the section

name: "big one"
"""


def test_a_value_is_replaced_and_its_comment_stays():
    assert set_values(JOB, "job", {"deepspeed.zero_stage": "3"}) == JOB.replace("2 # later", "3 # later")


def test_a_new_key_comes_at_the_end_of_its_section():
    text = set_values(JOB, "job", {"deepspeed.hpz": "node", "deepspeed.quantized_weights": "true"})
    added = "    optimizer: {type: AdamW}\n  hpz: node\n  quantized_weights: true\n"
    assert text == JOB.replace("    optimizer: {type: AdamW}\n", added)


def test_a_new_section_comes_at_the_end_of_the_file():
    text = set_values(JOB, "job", {"hardware.link": "100Gbit/s", "hardware.gpu": "H100-80GB"})
    assert text == JOB + "hardware:\n  link: 100Gbit/s\n  gpu: H100-80GB\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cluster: {backend: local}", "cluster: {backend: local, nodes: 2}"),
        ("cluster: {}\n", "cluster: {nodes: 2}\n"),
        ("cluster:\n  nodes:   # none\nname: a\n", "cluster:\n  nodes: 2   # none\nname: a\n"),
        ("cluster:\nname: a\n", "cluster:\n  nodes: 2\nname: a\n"),
        (
            "a: 1\ncluster:\n    b: |\n      text\n\nname: x",
            "a: 1\ncluster:\n    b: |\n      text\n\n    nodes: 2\nname: x",
        ),
        ("cluster:\n  b: c", "cluster:\n  b: c\n  nodes: 2\n"),
        ("\ufeffcluster:\n  nodes: 1\n", "\ufeffcluster:\n  nodes: 2\n"),
        ("cluster:\r\n  nodes: 1 # é\r\n", "cluster:\r\n  nodes: 2 # é\r\n"),
        ("{cluster: {nodes: 1}}", "{cluster: {nodes: 2}}"),
        ("{name: a}", "{name: a, cluster: {nodes: 2}}"),
    ],
)
def test_every_way_to_write_a_section(text, expected):
    assert set_values(text, "job", {"cluster.nodes": "2"}) == expected


@pytest.mark.parametrize(
    "text",
    [
        "a: &x 1\ncluster:\n  nodes: *x\n",  # would change a too
        "cluster: 3\n",
        "cluster: [1, 2]\n",
    ],
)
def test_what_cannot_be_set_in_place_is_refused(text):
    with pytest.raises(JobFileError):
        set_values(text, "job", {"cluster.nodes": "2"})


@given(
    st.dictionaries(
        st.sampled_from(
            ["name", "cluster.nodes", "deepspeed.zero_stage", "deepspeed.hpz", "hardware.link", "new"]
        ),
        st.sampled_from(["1", "node", "true", "100Gbit/s", "'a: b'"]),
        min_size=1,
    )
)
def test_the_text_means_what_the_settings_say(values):
    wanted = parse_yaml(JOB, "job")
    for key, value in values.items():
        wanted = apply_setting(wanted, f"{key}={value}")
    text = set_values(JOB, "job", values)
    assert parse_yaml(text, "job").data == wanted.data
    assert [
        line for line in JOB.splitlines() if "#" in line and "zero" not in line and "cluster" not in line
    ] == [line for line in text.splitlines() if "#" in line and "zero" not in line and "cluster" not in line]
