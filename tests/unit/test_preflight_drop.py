"""Leaving bad hosts out: the filter, and the job file's text with it."""

from __future__ import annotations

import json

import pytest
import yaml

from orchestrator.errors import FilterError, JobFileError
from orchestrator.job import ClusterSpec
from orchestrator.job.yaml_text import set_values
from orchestrator.preflight.drop import filter_without


def cluster(**keys: str) -> ClusterSpec:
    return ClusterSpec.model_validate({"backend": "ssh", **keys})


def test_bad_hosts_join_those_left_out_already():
    assert filter_without(cluster(), ["b", "c"]) == ("exclude", "b@c")
    assert filter_without(cluster(exclude="a@b:0,1"), ["b"]) == ("exclude", "a@b")
    assert filter_without(cluster(exclude="a:0"), ["b"]) == ("exclude", "a:0@b")


def test_bad_hosts_are_taken_out_of_those_included():
    assert filter_without(cluster(include="a:0,1@b@c"), ["b"]) == ("include", "a:0,1@c")
    with pytest.raises(FilterError, match="no host would be left"):
        filter_without(cluster(include="b"), ["b"])


def test_names_that_filters_cannot_say():
    with pytest.raises(FilterError, match="take it out of the hostfile"):
        filter_without(cluster(), ["fd00::1"])


TEXTS = {
    "block": "# mine\ncluster:\n  backend: ssh  # why\n  hostfile: hosts\ntrain:\n  script: t.py\n",
    "with an old one": "cluster:\n  backend: ssh\n  exclude: a   # broken\n  hostfile: hosts\n",
    "an empty old one": "cluster:\n  exclude:\n  backend: ssh\n",
    "flow": "cluster: {backend: ssh, hostfile: hosts}  # all of it\ntrain: {script: t.py}\n",
    "nested": "cluster:\n  backend: ssh\n  ssh:\n    port: 22\ntrain: {}\n",
    "without a last newline": "cluster:\n    backend: ssh",
    "a block text": "cluster:\n  exclude: |-\n    a\n  backend: ssh\ntrain: {}\n",
    "quoted": 'cluster:\n  "backend": "ssh"\n  "exclude": "x"\n',
}


@pytest.mark.parametrize("name", TEXTS)
def test_the_text_keeps_all_but_the_filter(name):
    before = TEXTS[name]
    try:
        after = set_values(before, "job.yaml", {"cluster.exclude": json.dumps('b@c:0,1"')})
    except JobFileError:
        assert name == "a block text"  # refused in words, and never written wrong
        return
    data = yaml.safe_load(before)
    data["cluster"]["exclude"] = 'b@c:0,1"'
    assert yaml.safe_load(after) == data
    for line in before.splitlines():
        comment = line.partition("#")[2]
        assert comment in after
