"""A composed job file says what it was composed from, whatever the texts in it look like."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from orchestrator.job import JobSpec, load_job
from orchestrator.job.compose import compose
from orchestrator.job.yaml_source import parse_yaml

ODD = [
    *("yes", "no", "on", "Off", "y", "N", "true", "null", "~", "", " ", "1e-4", "1E5", "010", "0o10", "0x1f"),
    *(
        "1_000",
        "1:30:00",
        "12:00",
        "2024-01-31",
        ".5",
        ".inf",
        "-.inf",
        ".nan",
        "+1",
        "-",
        "--",
        "---",
        "...",
    ),
    *("a: b", "a:", "a #b", "#a", "- a", "-a", "--lr", "[a]", "{ds_config}", "a, b", "a]", "*a", "&a", "!a"),
    *("%a", "@a", "`a`", "'a'", '"a"', "a'b", 'a"b', "a\\b", "\\n", "<<", "=", "? a", "?a", "|", ">", "a\tb"),
    *(
        "a\nb",
        "a\nb\n",
        "a\n\nb",
        "\na",
        "a\n",
        " a\nb",
        "a \nb",
        "a\n  b",
        "a\r\nb",
        "a\x00b",
        "\x85",
        "\u2028",
    ),
    *(
        "\ufeff",
        "é",
        "日本語",
        "😀",
        "a b",
        " a",
        "a ",
        "a  b",
        "\x7f",
        "\xa0",
        "~/x",
        "$HOME/x",
        "(a)",
        "x*",
        "_",
    ),
]
texts = st.one_of(st.sampled_from(ODD), st.text(st.characters(codec="utf-8"), max_size=12))
scalars = st.one_of(texts, st.booleans(), st.integers(), st.floats(allow_nan=False), st.none())
values = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(texts, inner, max_size=4)),
    max_leaves=8,
)


@given(st.dictionaries(texts, values, min_size=1, max_size=5), texts, st.booleans())
def test_any_document_is_read_back(data, comment, explain):
    comments = {"": comment, "train": comment, **dict.fromkeys(data, comment)}
    text = compose(data, comments, explain=explain)
    assert parse_yaml(text, "job.yaml").data == data


@pytest.mark.parametrize("text", ODD)
def test_pyyaml_reads_the_same_text(text):
    data = {"args": [text, "x"], "env": {text or "K": text}, "long": [text, "word " * 40 + "x"], "one": text}
    assert yaml.safe_load(compose(data)) == data


def jobs(words):
    train = st.fixed_dictionaries(
        {"script": st.just("train.py"), "args": st.lists(words, max_size=6)},
        optional={"setup": st.lists(words, max_size=3), "env": st.dictionaries(st.just("KEY"), words)},
    )
    deepspeed = st.fixed_dictionaries(
        {"zero_stage": st.sampled_from([0, 1, 2, 3])},
        optional={
            "gradient_clipping": st.floats(0, 1e9),
            "prefetch_bucket_size": st.one_of(st.integers(0, 10**12), st.floats(0, 1e12), st.just("auto")),
            "overrides": st.dictionaries(words, scalars, max_size=3),
        },
    )
    return st.fixed_dictionaries(
        {"cluster": st.just({"backend": "local", "nodes": 2}), "train": train},
        optional={"deepspeed": deepspeed},
    )


@given(jobs(texts.filter(lambda text: "\0" not in text)))
@example({"cluster": {"backend": "local"}, "train": {"script": "train.py", "args": ["yes", "1e-4", "010"]}})
def test_a_job_file_is_loaded_with_the_same_data(tmp_path_factory, data):
    folder = tmp_path_factory.getbasetemp()
    path = folder / "composed.yaml"
    path.write_text(compose(data, explain=True), encoding="utf-8", newline="")
    job = load_job(path)
    assert job.source.data == data
    assert job.spec.train.args == data["train"]["args"]
    assert job.spec.train.setup == data["train"].get("setup", [])
    if "deepspeed" in data:
        assert job.spec.deepspeed.overrides == data["deepspeed"].get("overrides", {})


def test_keys_come_in_the_order_of_the_models():
    data = {
        "time_limit": "2h",
        "deepspeed": {"precision": "bf16", "zero_stage": 3},
        "train": {"args": ["--lr", "1e-4"], "script": Path("train.py")},
        "cluster": {"nodes": 2, "backend": "local"},
        "name": "demo",
    }
    assert compose(data) == (
        "name: demo\n\ncluster:\n  backend: local\n  nodes: 2\n\n"
        'train:\n  script: train.py\n  args: [--lr, "1e-4"]\n\n'
        "deepspeed:\n  zero_stage: 3\n  precision: bf16\n\ntime_limit: 2h\n"
    )


def test_a_comment_stands_behind_its_value_where_it_fits():
    data = {"train": {"args": ["--a", "b"]}, "deepspeed": {"hpz": "node", "zero_stage": 3}}
    comments = {
        "": "The first line.\n\n    orchestrate plan job.yaml",
        "deepspeed": "what DeepSpeed does",
        "deepspeed.hpz": "why " * 40,
        "train.args.0": "what it is for",
    }
    lines = compose(data, comments).splitlines()
    assert lines[:3] == ["# The first line.", "#", "#     orchestrate plan job.yaml"]
    assert "    - --a # what it is for" in lines
    assert "deepspeed: # what DeepSpeed does" in lines
    assert lines[-1] == "  hpz: node"
    assert lines[-2].startswith("  # why")
    assert all(len(line) <= 110 for line in lines)


def test_explain_says_what_every_key_is_for():
    text = compose({"cluster": {"backend": "local"}, "deepspeed": {"zero_stage": 2}}, explain=True)
    assert JobSpec.model_fields["cluster"].description in text
    assert "zero_stage: 2 # ZeRO stage." in text


def test_own_comments_go_before_explanations():
    text = compose({"deepspeed": {"zero_stage": 2}}, {"deepspeed.zero_stage": "mine"}, explain=True)
    assert "zero_stage: 2 # mine" in text


def test_several_lines_are_written_line_by_line():
    text = compose({"train": {"setup": ["one line", "a\n\nb"], "x": "module load cuda\nsource env\n"}})
    assert "x: |\n    module load cuda\n    source env\n" in text
    assert "    - one line\n    - |-\n      a\n\n      b\n" in text


def test_what_yaml_cannot_hold_is_an_error():
    with pytest.raises(TypeError, match="object"):
        compose({"train": {"x": object()}})
