from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import JobFileError
from orchestrator.job.envfile import parse_env, read_env_file


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("A=1", "1"),
        ("A=", ""),
        ("  export   A=x y ", "x y"),
        ("A= spaced ", "spaced"),
        ("A=b # comment", "b"),
        ("A=b#no comment", "b#no comment"),
        ("A=# comment", ""),
        ("A=b=c", "b=c"),
        ("A='single $HOME \\n'", "single $HOME \\n"),
        ("A='' # empty", ""),
        (r'A="a\nb\t\"\\\$ \q $HOME"', 'a\nb\t"\\$ \\q $HOME'),
        ('A="two\nlines"', "two\nlines"),
        ("A='two\nlines'", "two\nlines"),
        ('A="joined\\\n up"', "joined up"),
        ("A=$HOME/${X}", "$HOME/${X}"),
        ("A=don't", "don't"),
        ("A=ü €", "ü €"),
        ("A=1\r\n", "1"),
        ("A=1\nA=2", "2"),
    ],
)
def test_values(line, value):
    assert parse_env(line, "e") == {"A": value}


def test_comments_blank_lines_and_order():
    assert list(parse_env("# c\n\n  # d\nB=1\n\nA='x\n# inside'\nC=3", "e").items()) == [
        ("B", "1"),
        ("A", "x\n# inside"),
        ("C", "3"),
    ]


def test_every_wrong_line_is_reported_with_its_number_and_without_its_value():
    text = "OK=1\nno equals\nA B=secret\n1X=secret\nQ='secret\n"
    with pytest.raises(JobFileError) as caught:
        parse_env(text, "my.env")
    wheres = [problem.where for problem in caught.value.problems]
    assert wheres == ["my.env:2", "my.env:3", "my.env:4", "my.env:5"]
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("line", ["A ='x'", "A='x'y", 'A="x', "export", "A=x\0", "=x", "A='\0'"])
def test_wrong_lines(line):
    with pytest.raises(JobFileError, match=r"e:1: .*\n  fix: "):
        parse_env(line, "e")


def test_a_problem_after_a_value_of_two_lines_has_the_right_number():
    with pytest.raises(JobFileError, match="e:3: "):
        parse_env("A='x\ny'\nbad\n", "e")


@given(st.dictionaries(st.from_regex(r"[A-Z_][A-Z0-9_]{0,5}", fullmatch=True), st.text(), max_size=4))
def test_any_value_survives_double_quotes(variables):
    variables = {name: value.replace("\0", "").replace("\r", "") for name, value in variables.items()}
    escaped = {
        name: value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        for name, value in variables.items()
    }
    assert parse_env("".join(f'{name}="{value}"\n' for name, value in escaped.items()), "e") == variables


def test_reads_a_file(tmp_path):
    path = tmp_path / "x.env"
    path.write_text("\ufeffA=1\n", encoding="utf-8")
    assert read_env_file(path) == {"A": "1"}


def test_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(JobFileError, match=r"train.env_file: cannot be read: No such file"):
        read_env_file(tmp_path / "none")
    (tmp_path / "latin").write_bytes(b"A=\xff")
    with pytest.raises(JobFileError, match="not UTF-8 at byte 2"):
        read_env_file(tmp_path / "latin")
