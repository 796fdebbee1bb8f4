from __future__ import annotations

import resource
import signal

from orchestrator.agent.times import LineFile, Times, shared_sizes, short_names


def test_every_growth_is_noted_once_with_its_time(tmp_path):
    sizes: dict[str, int] = {}
    times = Times(str(tmp_path / "a.times"), lambda: sizes)
    times.look(10.0)
    sizes.update({"log": 5, "0.out": 0})
    times.look(11.0)
    times.look(12.0)
    sizes["0.out"] = 7
    times.look(13.25)
    sizes["0.out"] = 3  # cut short where the disk is shared
    times.look(14.0)
    text = (tmp_path / "a.times").read_text()
    assert text == "11.000 log 5\n13.250 0.out 7\n14.000 0.out 3\n"


def test_a_file_that_grows_for_weeks_gets_fewer_lines_but_its_last_one(tmp_path):
    sizes = {"0.err": 0}
    times = Times(str(tmp_path / "a.times"), lambda: sizes)
    now = 0.0
    for _ in range(8000):
        now += 0.25
        sizes["0.err"] += 10
        times.look(now)
    times.look(now, last=True)
    lines = (tmp_path / "a.times").read_text().splitlines()
    assert 2000 + 1499 <= len(lines) <= 2000 + 1502  # four a second, then one
    assert lines[-1] == "2000.000 0.err 80000"


def test_a_full_disk_costs_lines_and_the_next_ones_are_whole(tmp_path):
    """RLIMIT_FSIZE stands for the disk: a write stops in the middle of a line, then fails."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    path = tmp_path / "lines"
    file = LineFile(str(path))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, before[1]))
    try:
        assert [file.add(b"123456\n"), file.add(b"abcdef\n"), file.add(b"ghijkl\n")] == [True, False, False]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    assert file.add(b"mnopqr\n")
    assert path.read_bytes() == b"123456\nabc\nmnopqr\n"
    file.close()


def test_a_folder_that_is_gone_costs_lines_only(tmp_path):
    assert not LineFile(str(tmp_path / "none" / "x")).add(b"1\n")


def test_files_are_known_by_short_names(tmp_path):
    for name in ("a.log", "a.rank3.out", "a.rank3.err", "a.rank4.out", "b.log", "a.times"):
        (tmp_path / name).write_bytes(b"x" * len(name))
    assert shared_sizes(str(tmp_path), "a", [3, 9]) == {"log": 5, "3.out": 11, "3.err": 11}
    told = {"a.log": 1, "a.rank3.out": 2, "a.times": 3, "a.samples": 4, "a.rank3.fr.3": 5}
    assert short_names(told.items(), "a") == {"log": 1, "3.out": 2}
