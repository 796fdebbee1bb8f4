"""The threads that measure a host, and what they do on a disk that keeps things back."""

from __future__ import annotations

import json
import threading
import time
from types import SimpleNamespace

import pytest

from orchestrator.agent.flushing import Flusher, kind_of_disk
from orchestrator.agent.measuring import Measuring
from orchestrator.agent.watch import Watch

MOUNTS = r"""22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 22 0:44 / /home rw,relatime shared:2 master:3 - nfs4 server:/home rw,vers=4.2
31 30 0:45 / /home/my\040data rw - lustre 10.0.0.1@tcp:/data rw
32 22 0:46 / /home rw - autofs systemd-1 rw,fd=3
33 22 0:47 / /homes rw - xfs /dev/vdb rw
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/home/me/runs", "autofs"),  # the later mount hides the earlier
        ("/home", "autofs"),
        ("/homes/me", "xfs"),
        ("/home/my data/x", "lustre"),
        ("/var", "ext4"),
        ("relative", ""),
    ],
)
def test_the_nearest_mount_counts(path, kind):
    assert kind_of_disk(path, MOUNTS) == kind


def test_only_what_has_grown_is_flushed_and_only_where_that_is_needed(tmp_path):
    (tmp_path / "a").write_text("x")
    nfs = Flusher(str(tmp_path), f"1 1 0:1 / {tmp_path} rw - nfs4 server:/ rw\n")
    assert nfs.flush({"a": 1, "gone": 5, "empty": 0}) == ["a", "gone"]
    assert nfs.flush({"a": 1}) == []
    assert nfs.flush({"a": 2}) == ["a"]
    local = Flusher(str(tmp_path))
    assert (local.needed, local.flush({"a": 1})) == (False, [])


def watch(folder, records, **config) -> Watch:
    host = {"index": 0, "file_name": "n1", "devices": []}
    return Watch({"logs": str(folder), "sample_interval": 0.2, **config}, host, lambda: records, shared=True)


def finish(watched: Watch) -> None:
    deadline = time.monotonic() + 120
    while not watched.finish():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_watched_host_has_samples_and_an_index_to_the_last_byte(tmp_path, spawn):
    rank = spawn("sleep", "60")
    record = {"event": "start", "pid": rank.pid, "local_rank": 0}
    (tmp_path / "n1.log").write_text("12345")
    watched = watch(tmp_path, [(4, record)])
    watched.start()
    deadline = time.monotonic() + 120
    while not (tmp_path / "n1.samples").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    (tmp_path / "n1.rank4.out").write_text("123")
    finish(watched)
    assert {line.split(" ", 1)[1] for line in (tmp_path / "n1.times").read_text().splitlines()} == {
        "log 5",
        "4.out 3",
    }
    (first, *_) = map(json.loads, (tmp_path / "n1.samples").read_text().splitlines())
    assert set(first["ranks"]) == {"4"}


def test_a_fault_is_told_at_once_with_the_rank_it_is_about(tmp_path):
    records = [(4, {"event": "exit", "pid": 12, "local_rank": 0})]
    watched = Measuring(str(tmp_path / "x"), [], 3600.0, lambda: records, dict)
    told = [
        {"what": "oom_kill", "pid": 12, "text": "x", "other": True},  # a rank may have left our cgroup
        {"what": "oom_kill", "pid": 14, "text": "somebody else's", "other": True},
        {"what": "oom_kill", "pid": 13, "text": "y"},
        {"what": "xid", "bus": "0000:3b:00", "code": 79, "text": "z"},
    ]

    class Kernel:
        def new(self, *, last):
            return [told.pop(0)] if told else []

    watched._kernel = Kernel()
    watched._gpus._faults.append({"what": "xid", "gpu": None, "code": 79, "text": "Xid 79"})
    assert watched._faults()[0] == {"what": "oom_kill", "pid": 12, "text": "x", "rank": 4}
    assert watched._faults() == []
    assert watched._faults() == [{"what": "oom_kill", "pid": 13, "text": "y"}]
    assert watched._faults() == []  # the driver has told of it a moment ago


def test_gpus_of_others_are_no_fault_of_ours_and_names_lead_to_indexes(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-bbbb,GPU-aaaa")
    record = {"event": "exit", "pid": 12, "local_rank": 0}
    watched = Measuring(str(tmp_path / "x"), [0], 3600.0, lambda: [(4, record)], dict)
    watched._gpus._gpus = SimpleNamespace(
        by_bus={"0000:3b:00": 1}.get,
        is_others={"0000:3c:00"}.__contains__,
        named={"GPU-bbbb": 1}.get,
    )
    told = [{"what": "xid", "bus": f"0000:{bus}:00", "code": 79, "text": "z"} for bus in ("3c", "3b", "3d")]
    watched._kernel = SimpleNamespace(new=lambda *, last: told)
    mine = {"what": "xid", "code": 79, "text": "z"}
    assert watched._faults() == [{**mine, "gpu": 1}, mine]  # one at an address that nobody has may be ours
    taken = []
    watched._sampler.take = lambda _gpus, devices, _faults: taken.append(devices)
    watched.sample()
    assert taken == [{4: "1"}]


def test_a_folder_that_hangs_or_is_gone_does_not_hold_up_the_end(tmp_path):
    watched = watch(tmp_path / "gone", [])
    assert watched.finish()  # nothing was begun
    hung = watch(tmp_path / "gone", [])
    hung._thread = threading.current_thread()  # one that never comes to its end
    assert not hung.finish()
    hung._end_by = time.monotonic() - 1
    assert hung.finish()
