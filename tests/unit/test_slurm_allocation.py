from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import SubmitError
from orchestrator.slurm.allocation import Allocation, fewest_cpus, read_allocation

# of a job of two nodes under Slurm 22.05.8, and of an element of an array
JOB = {
    "SLURM_JOB_ID": "17",
    "SLURM_JOB_NODELIST": "gpu[001-003,010],login",
    "SLURM_JOB_CPUS_PER_NODE": "96(x4),8",
}
ELEMENT = {"SLURM_ARRAY_JOB_ID": "12", "SLURM_ARRAY_TASK_ID": "3", "SLURM_RESTART_COUNT": "2"}


def test_the_variables_of_a_job_tell_its_hosts_without_scontrol():
    found = read_allocation(JOB)
    hosts = ("gpu001", "gpu002", "gpu003", "gpu010", "login")
    assert found == Allocation("17", "17", 0, hosts, 8, None)


def test_an_element_of_an_array_is_known_by_the_arrays_number():
    found = read_allocation(JOB | ELEMENT)
    assert (found.job_id, found.shown_id, found.restarts) == ("17", "12_3", 2)


def test_a_job_that_is_queued_again_has_other_hosts_in_name():
    assert read_allocation(JOB).key != read_allocation(JOB | {"SLURM_RESTART_COUNT": "1"}).key


def test_the_end_is_read_where_slurm_tells_it():
    assert read_allocation(JOB | {"SLURM_JOB_END_TIME": "1795000000"}).end_time == 1795000000


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"SLURM_JOB_ID": ""}, "this is no Slurm job"),
        ({"SLURM_JOB_NODELIST": ""}, "this is no Slurm job"),
        ({"SLURM_JOB_NODELIST": "n[1-"}, "cannot read the list of nodes"),
        ({"SLURM_HET_SIZE": "2"}, "heterogeneous jobs are not supported"),
    ],
)
def test_what_is_no_usable_allocation_is_told(change, told):
    with pytest.raises(SubmitError, match=told):
        read_allocation(JOB | change)


@pytest.mark.parametrize(
    ("text", "fewest"), [("2(x3),1", 1), ("16", 16), ("8(x2)", 8), ("", None), ("x", None), ("2,x", None)]
)
def test_the_fewest_cpus_of_any_host(text, fewest):
    assert fewest_cpus(text) == fewest


@given(st.text())
def test_no_text_breaks_the_count_of_cpus(text):
    assert fewest_cpus(text) is None or fewest_cpus(text) >= 0
