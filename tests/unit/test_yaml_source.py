from __future__ import annotations

import math
import re
import textwrap

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import JobFileError
from orchestrator.job.yaml_edit import apply_setting
from orchestrator.job.yaml_source import parse_yaml


def source(text: str):
    return parse_yaml(textwrap.dedent(text), "job.yaml")


def problems(text: str) -> list[str]:
    with pytest.raises(JobFileError) as caught:
        source(text)
    return [str(problem) for problem in caught.value.problems]


def test_places_are_lines_of_keys_and_items():
    read = source("""\
        a: 1
        b:
          - x
          -
            c: 2
    """)
    assert read.where(("a",)) == "job.yaml:1: a"
    assert read.where(("b", 0)) == "job.yaml:3: b.0"
    assert read.where(("b", 1, "c")) == "job.yaml:5: b.1.c"


def test_a_missing_key_has_the_place_of_its_section():
    assert source("a:\n\n  b: 1\n").where(("a", "nope")) == "job.yaml:1: a.nope"


def test_texts_are_what_was_typed():
    read = source("[1e-4, on, 010, 1_000, 1:30:00, 2020-01-01, 0x1F, 'q\"', ~]")
    assert [read.texts.get((i,)) for i in range(9)] == [
        "1e-4",
        "on",
        "010",
        "1_000",
        "1:30:00",
        "2020-01-01",
        "0x1F",
        'q"',
        None,
    ]


def test_numbers_are_those_of_yaml_1_2_where_people_write_them():
    assert source("[5e8, 1e-4, -2E+3, 1.5, 08, 1:30, 2020-01-01, 12, 0x1F]").data == [
        5e8,
        1e-4,
        -2e3,
        1.5,
        "08",
        "1:30",
        "2020-01-01",
        12,
        31,
    ]
    assert math.isinf(source("x: -.inf").data["x"])


def test_keys_are_text():
    assert source("on: 1\n2: 3\n~: 4\n").data == {"on": 1, "2": 3, "~": 4}


def test_every_duplicate_key_is_reported_with_both_places():
    text = """\
        a: 1
        b: &b
          c: 1
          c: 2
        a: 3
        d: {<<: *b}
    """
    assert sorted(problems(text)) == [
        "job.yaml:4: b.c: a key twice, first at job.yaml:3\n  fix: keep one",
        "job.yaml:4: d.c: a key twice, first at job.yaml:3\n  fix: keep one",
        "job.yaml:5: a: a key twice, first at job.yaml:1\n  fix: keep one",
    ]


def test_merge_keys_and_anchors_work_and_keep_their_places():
    read = source("""\
        base: &base {x: 1, y: 2}
        more: &more
          y: 3
          z: 4
        job:
          <<: [*base, *more]
          x: 9
        same: *base
    """)
    assert read.data["job"] == {"x": 9, "y": 2, "z": 4}
    assert read.data["same"] == {"x": 1, "y": 2}
    assert read.place(("job", "x")) == "job.yaml:7"
    assert read.place(("job", "z")) == "job.yaml:4"


@pytest.mark.parametrize(
    ("text", "start"),
    [
        ("a: b: c", "job.yaml:1:5: not YAML: mapping values are not allowed"),
        ("a: 1\nb: [1, 2", "job.yaml:3:1: not YAML: while parsing a flow sequence that starts on line 2, "),
        ("a:\n\t- x", "job.yaml:2:1: not YAML:"),
        ("a: *nope", "job.yaml:1:4: not YAML: "),
        ("a: 1\n---\nb: 2", "job.yaml:2:1: not YAML:"),
        ("x: 1\na: \x07", "job.yaml:2: a character that YAML does not allow (got '\\x07')"),
        ("", "job.yaml: is empty"),
        ("# only a comment\n", "job.yaml: is empty"),
        (
            "a: !!python/object:os.system x",
            "job.yaml:1: a: a tag that job files do not have: !!python/object",
        ),
        ("a: !!int x", "job.yaml:1: a: not a value of its tag (got x)"),
        ("? [1, 2]\n: 3", "job.yaml:1: a key that is no plain text"),
        ("a: &a [*a]", "job.yaml:1: an alias that holds itself"),
        ("<<: 3", "job.yaml:1: << merges keys"),
    ],
)
def test_what_is_not_a_plain_document_is_refused_with_its_place(text, start):
    (problem,) = problems(text)
    assert problem.startswith(start)
    assert "fix: " in problem


def test_aliases_that_multiply_are_refused():
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]
    assert "more than 100000 values" in problems("\n".join(lines))[0]


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    # PyYAML leaves texts such as 0E0 unquoted, as its floats need a dot; ours, as YAML 1.2's, do not.
    | st.text(st.characters(min_codepoint=32, exclude_categories=["Cs", "Cc"])).filter(
        lambda text: not re.fullmatch(r"[-+.\d_eE]+", text)
    ),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text("abcxyz", min_size=1, max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.text("abc", min_size=1, max_size=2), plain, min_size=1, max_size=3))
def test_reads_what_pyyaml_writes(data):
    assert parse_yaml(yaml.safe_dump(data, allow_unicode=True), "x").data == data


@given(st.dictionaries(st.text("abc", min_size=1, max_size=2), plain, min_size=1, max_size=3))
def test_dump_keeps_data_and_texts(data):
    first = parse_yaml(yaml.safe_dump(data), "x")
    again = parse_yaml(first.dump(), "x")
    assert (again.data, again.texts) == (first.data, first.texts)


def test_a_setting_replaces_adds_and_makes_sections():
    read = source("a: {b: 1, l: [x, y]}\nn:\n")
    for setting in ("a.b=2", "a.l.1=z", "a.l.2=1e-4", "n.deep.er=[1, {k: v}]", "new=p=q"):
        read = apply_setting(read, setting)
    assert read.data == {
        "a": {"b": 2, "l": ["x", "z", 1e-4]},
        "n": {"deep": {"er": [1, {"k": "v"}]}},
        "new": "p=q",
    }
    assert read.place(("a", "b")) == "--set a.b=2"
    assert read.place(("a",)) == "job.yaml:1"
    assert read.place(("n", "deep")) == "--set n.deep.er=[1, {k: v}]"
    assert read.texts["a", "l", 2] == "1e-4"
    assert parse_yaml(read.dump(), "x").data == read.data


def test_the_last_setting_wins_and_an_empty_one_is_null():
    read = source("a: 1")
    for setting in ("a=2", "a=3", "b="):
        read = apply_setting(read, setting)
    assert read.data == {"a": 3, "b": None}


def test_a_setting_does_not_reach_through_an_alias():
    read = apply_setting(source("a: &a {x: 1, y: 2}\nb: *a\nc:\n  <<: *a\n"), "b.x=5")
    read = apply_setting(read, "c.x=6")
    assert read.data == {"a": {"x": 1, "y": 2}, "b": {"x": 5, "y": 2}, "c": {"x": 6, "y": 2}}


def test_a_setting_keeps_what_a_merged_section_holds():
    read = apply_setting(source("base: &b {s: {x: 1, y: 2}}\njob:\n  <<: *b\n"), "job.s.x=9")
    assert read.data == {"base": {"s": {"x": 1, "y": 2}}, "job": {"s": {"x": 9, "y": 2}}}


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("a", "--set a: not of the form a.b=value"),
        ("=1", "--set =1: not of the form a.b=value"),
        ("a..b=1", "--set a..b=1: not of the form a.b=value"),
        ("a.x=1", "--set a.x=1: a: holds one value, no keys"),
        ("l.7=1", "--set l.7=1: l: the list has the indexes 0 to 1"),
        ("l.x=1", "--set l.x=1: l: the list has the indexes 0 to 1"),
        ("e.1=1", "--set e.1=1: e: the list is empty"),
        ("a=[1", "--set a=[1: not YAML: while parsing"),
    ],
)
def test_a_wrong_setting_is_refused(setting, message):
    with pytest.raises(JobFileError) as caught:
        apply_setting(source("a: 1\nl: [1, 2]\ne: []\n"), setting)
    assert str(caught.value).startswith(message)
