from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.agent import logship
from orchestrator.agent.logship import LogShip
from orchestrator.supervisor.log_store import LogStore
from tests import samples

NAME = "node1.rank0.out"


def host():
    return samples.plan().hosts[0]


def store(root) -> LogStore:
    return LogStore(samples.run_dir(root).attempt(1))


def send_all(ship: LogShip, to: LogStore) -> None:
    ship.look()
    while (piece := ship.next_piece()) is not None:
        end = to.write(host(), *piece)
        if end is not None:
            ship.acknowledge({piece[0]["file"]: end})


def test_every_byte_arrives_once_however_the_file_grows(tmp_path):
    source, here = tmp_path / "there", store(tmp_path)
    source.mkdir()
    ship = LogShip(str(source), "node1")
    assert (ship.look(), ship.next_piece(), ship.is_drained()) == ({}, None, True)
    written = b""
    for chunk in (b"\xff\x00\n", b"x" * 300_000, b"", b"the end"):
        written += chunk
        (source / NAME).write_bytes(written)
        (source / "node1.log").write_bytes(written[:5])
        (source / "node10.log").write_bytes(b"another host's")
        assert not chunk or not ship.is_drained()
        send_all(ship, here)
        assert ship.is_drained()
    logs = samples.RunDir(tmp_path / "job-abcd").attempt(1).logs
    assert {path.name: path.read_bytes() for path in logs.iterdir()} == {
        NAME: written,
        "node1.log": written[:5],
    }
    assert here.sizes(host()) == {NAME: len(written), "node1.log": 5}


def test_pieces_in_flight_are_sent_again_after_a_reconnection(tmp_path):
    source, here = tmp_path / "there", store(tmp_path)
    source.mkdir()
    (source / NAME).write_bytes(b"a" * 300_000 + b"b" * 300_000)
    ship = LogShip(str(source), "node1")
    ship.look()
    here.write(host(), *ship.next_piece())
    ship.next_piece()  # lost with its connection
    assert not ship.is_drained()
    ship.resume(here.sizes(host()))
    send_all(ship, here)
    assert ship.is_drained()
    logs = samples.RunDir(tmp_path / "job-abcd").attempt(1).logs
    assert (logs / NAME).read_bytes() == (source / NAME).read_bytes()


@settings(max_examples=30)
@given(st.binary(min_size=1, max_size=400), st.lists(st.integers(0, 400), max_size=5), st.randoms())
def test_repeated_and_reordered_pieces_never_change_what_is_there(tmp_path_factory, data, cuts, random):
    here = store(tmp_path_factory.mktemp("runs"))
    edges = sorted({min(cut, len(data)) for cut in cuts} | {0, len(data)})
    pieces = [(low, data[low:high]) for low, high in pairwise(edges)]
    shuffled = pieces * 2
    random.shuffle(shuffled)
    for low, piece in (*shuffled, *pieces):
        here.write(host(), {"file": NAME, "offset": low}, piece)
        size = here.sizes(host()).get(NAME, 0)
        assert here._attempt.logs.joinpath(NAME).read_bytes() == data[:size]
    assert here.sizes(host()) == {NAME: len(data)}


def test_what_found_no_room_at_the_submit_side_is_sent_again(tmp_path, monkeypatch):
    source, here = tmp_path / "there", store(tmp_path)
    source.mkdir()
    (source / NAME).write_bytes(b"x" * 400_000)
    monkeypatch.setattr(logship, "_PATIENCE", 3600.0)
    ship = LogShip(str(source), "node1")
    logs = here._attempt.logs
    logs.rename(tmp_path / "full")
    send_all(ship, here)
    assert (ship.next_piece(), ship.is_drained()) == (None, False)
    (tmp_path / "full").rename(logs)
    send_all(ship, here)
    assert here.sizes(host()) == {}  # not at once: what is only late would go twice
    monkeypatch.setattr(logship, "_PATIENCE", 0.0)
    assert ship.next_piece() is None
    monkeypatch.undo()
    send_all(ship, here)
    assert ship.is_drained()
    assert (logs / NAME).read_bytes() == b"x" * 400_000


def test_little_is_on_its_way_unconfirmed_and_files_take_turns(tmp_path):
    (tmp_path / NAME).write_bytes(b"x" * 20_000_000)
    (tmp_path / "node1.log").write_bytes(b"y")
    ship = LogShip(str(tmp_path), "node1")
    ship.look()
    pieces = list(iter(ship.next_piece, None))
    assert {piece["file"] for piece, _ in pieces[:2]} == {NAME, "node1.log"}
    assert sum(len(data) for _, data in pieces) < 5_000_000
    ship.acknowledge({NAME: 1_000_000, "another": 5})
    assert ship.next_piece() is not None


def test_what_a_flight_recorder_wrote_is_kept_with_the_dumps(tmp_path):
    source, here = tmp_path / "there", store(tmp_path)
    source.mkdir()
    (source / "node1.rank1.fr.1").write_bytes(b"\x80\x02}")
    (source / "node1.rank1.fr.0").write_bytes(b"no rank writes that")
    send_all(LogShip(str(source), "node1"), here)
    assert (here._attempt.dumps / "node1.rank1.fr.1").read_bytes() == b"\x80\x02}"
    assert here.sizes(host()) == {"node1.rank1.fr.1": 3}
