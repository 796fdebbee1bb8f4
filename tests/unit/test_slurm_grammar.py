from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from orchestrator.job.slurm_grammar import (
    ArrayIndexes,
    Resource,
    array_indexes,
    check_begin,
    check_dependency,
    check_licenses,
    check_switches,
    gpu_items,
    gres_items,
    mail_words,
    node_names,
    slurm_seconds,
)
from tests.slurm_values import NO_BEGINS, TIMES


@pytest.mark.parametrize(("text", "seconds"), TIMES.items())
def test_times_are_what_slurm_makes_of_them(text, seconds):
    assert slurm_seconds(text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        "",
        "soon",
        "1h",
        "2h30m",
        "1-",
        "-5",
        "1:2:3:4",
        "1-2-3",
        "1-2:3:4:5",
        "1.5",
        " 60",
        "60 ",
        ":30",
        "1:",
    ],
)
def test_texts_that_are_no_time(text):
    with pytest.raises(ValueError, match="expected a time as sbatch has it"):
        slurm_seconds(text)


@given(st.from_regex(r"([0-9]{1,3}-)?[0-9]{1,3}(:[0-9]{1,2}){0,3}", fullmatch=True))
@example("1-00:00:00")
def test_a_time_that_we_take_is_never_less_than_a_minute(text):
    try:
        assert slurm_seconds(text) >= 60
    except ValueError:
        assert text.count(":") == 3


@pytest.mark.parametrize(
    ("text", "indexes", "at_most"),
    [
        ("0-3", (0, 1, 2, 3), None),
        ("7", (7,), None),
        ("3,0,3", (0, 3), None),
        ("0,3,5-9:2%4", (0, 3, 5, 7, 9), 4),
        ("0-9:4", (0, 4, 8), None),
    ],
)
def test_arrays_expand(text, indexes, at_most):
    assert array_indexes(text) == ArrayIndexes(indexes, at_most)


@pytest.mark.parametrize(
    "text", ["", "a", "3-1", "0-9:0", "0-9%0", "0-9%", "%4", "0,,1", "0-5000000", "-1", "1-"]
)
def test_texts_that_are_no_array(text):
    with pytest.raises(ValueError, match=r"array indexes|runs backwards|step of|more than the 4000000"):
        array_indexes(text)


def test_resources_are_read_with_their_types():
    assert gres_items("gpu:h100:8,shard") == (Resource("gpu", "h100", 8), Resource("shard", None, 1))
    assert gres_items("gpu:2K") == (Resource("gpu", None, 2048),)
    assert gres_items("gpu:1g.10gb:2") == (Resource("gpu", "1g.10gb", 2),)
    assert gpu_items("h100:4,8") == (Resource("gpu", "h100", 4), Resource("gpu", None, 8))


@pytest.mark.parametrize("text", ["", "gpu:", "gpu:8:h100", "gpu 8", "8", "gpu:h100:8:1", "gpu:8,", "gpu=8"])
def test_texts_that_are_no_resources(text):
    with pytest.raises(ValueError, match="expected name:count"):
        gres_items(text)


@pytest.mark.parametrize("text", ["", "eight", "8:h100", "h100:", "8 ", "8,"])
def test_texts_that_are_no_gpus(text):
    with pytest.raises(ValueError, match="expected a number of GPUs"):
        gpu_items(text)


@pytest.mark.parametrize(
    "text",
    [
        "afterok:1",
        "afterok:1:2:3",
        "afterok:1:2,afterany:3",
        "afterok:20:21?afterany:23",
        "after:15+30:16",
        "AfterNotOk:1_2",
        "aftercorr:1_*",
        "singleton",
        "singleton,afterok:1",
        "123",
    ],
)
def test_dependencies(text):
    assert check_dependency(text) == text


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("afterok:", "names no job"),
        ("", "names no job"),
        ("afterok:1,", "names no job"),
        ("afterok", "expected dependencies"),
        ("afterwards:1", "expected dependencies"),
        ("afterok:0", "expected dependencies"),
        ("afterok:a", "expected dependencies"),
        ("afterok:1 ,afterany:2", "expected dependencies"),
        ("afterok:1?afterany:2,singleton", "Slurm takes one kind"),
        ("afterok:1+10", "only after:JOB"),
        ("after:1+0", "expected dependencies"),
    ],
)
def test_texts_that_are_no_dependency(text, says):
    with pytest.raises(ValueError, match=says):
        check_dependency(text)


@pytest.mark.parametrize("text", NO_BEGINS)
def test_starts_that_we_refuse(text):
    with pytest.raises(ValueError, match="expected a start"):
        check_begin(text)


def test_what_sbatch_overlooks_is_an_error_here():
    with pytest.raises(ValueError, match="no mail is sent for SOMETIMES; known are NONE, BEGIN"):
        mail_words("END,sometimes")
    with pytest.raises(ValueError, match="expected a time"):
        check_switches("2@soon")


@pytest.mark.parametrize("text", ["matlab", "matlab:2,ansys", "nastran@slurmdb:12", "a:1|b:2"])
def test_licenses(text):
    assert check_licenses(text) == text


@pytest.mark.parametrize("text", ["matlab:", "matlab:0", "a,,b", "a b", ""])
def test_texts_that_are_no_licenses(text):
    with pytest.raises(ValueError, match="expected licences"):
        check_licenses(text)


def test_node_lists():
    assert node_names("n[01-03,7],login,n01") == ("n01", "n02", "n03", "n7", "login")


@pytest.mark.parametrize("text", ["", "n[1-", "/shared/nodes", "a b", "a,", "n[3-1]", "a@b", "-a"])
def test_texts_that_are_no_node_list(text):
    with pytest.raises(ValueError, match=r"expected host names|bad list of nodes"):
        node_names(text)
