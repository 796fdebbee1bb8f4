"""Log files that are cut short and replaced on the host: the copy only grows, and holds every byte once."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.agent import streams
from orchestrator.agent.streams import Stream


class Copy:
    """The submit side: takes pieces by offset, as LogStore does."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.data = b""

    def take(self, *, arrive: bool = True, confirm: bool = True) -> None:
        self.stream.look()
        while (piece := self.stream.next_piece()) is not None:
            offset, data = piece
            if arrive and offset <= len(self.data):
                self.data = self.data[:offset] + data + self.data[offset + len(data) :]
                if confirm:
                    self.stream.acknowledge(offset + len(data))


def append(path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


def test_a_disk_that_fails_for_a_while_costs_nothing(tmp_path, monkeypatch):
    path = tmp_path / "a"
    append(path, b"first\n")
    copy = Copy(Stream(str(path)))
    copy.take()
    append(path, b"second\n")

    def fails(*_: object) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    for name in ("pread", "fstat"):
        with monkeypatch.context() as patch:
            patch.setattr(streams.os, name, fails)
            copy.take()
    copy.take()
    assert copy.data == path.read_bytes()


def test_a_file_that_is_cut_short_goes_on_in_the_copy(tmp_path):
    path = tmp_path / "a"
    copy = Copy(Stream(str(path)))
    for text in (b"first\n", b"second, longer\n", b"third\n"):
        path.write_bytes(text)  # O_TRUNC, as `> file` and logrotate's copytruncate
        copy.take()
    assert copy.data == b"first\nsecond, longer\nthird\n"


def test_bytes_cut_off_on_their_way_are_sent_again(tmp_path):
    path = tmp_path / "a"
    copy = Copy(stream := Stream(str(path)))
    path.write_bytes(b"x" * 1000)
    copy.take(arrive=False)  # the cable is pulled
    os.truncate(path, 0)
    append(path, b"after")
    stream.look()
    stream.resume(len(copy.data))
    copy.take()
    assert (copy.data, stream.kept, stream.lost) == (b"x" * 1000 + b"after", 1005, 0)


def test_what_is_cut_off_before_it_was_read_is_counted(tmp_path):
    path = tmp_path / "a"
    copy = Copy(stream := Stream(str(path)))
    append(path, b"x" * 10)
    copy.take()
    append(path, b"y" * 7)
    stream.look()
    os.truncate(path, 0)
    append(path, b"z")
    copy.take()
    assert (copy.data, stream.lost) == (b"x" * 10 + b"z", 7)


def test_a_file_that_is_renamed_is_read_on(tmp_path):
    path = tmp_path / "a"
    copy = Copy(stream := Stream(str(path)))
    with path.open("ab", buffering=0) as writer:
        writer.write(b"one ")
        copy.take()
        path.rename(tmp_path / "a.1")
        writer.write(b"two ")
        append(path, b"three ")
        copy.take()
        writer.write(b"four")
        (tmp_path / "a.1").unlink()
        copy.take()
    assert copy.data == b"one two three four"
    assert stream.size == len(copy.data)
    stream.close()


def test_a_name_that_stands_for_ever_new_files_holds_few_open(tmp_path):
    path = tmp_path / "a"
    copy = Copy(stream := Stream(str(path)))
    handles = Path("/proc/self/fd")
    before = len(list(handles.iterdir()))
    for number in range(40):
        path.with_suffix(".new").write_bytes(b"%03d" % number)
        path.with_suffix(".new").rename(path)
        copy.take()
    assert len(list(handles.iterdir())) - before < 10
    assert copy.data == b"".join(b"%03d" % number for number in range(40))
    stream.close()


def test_a_submit_side_that_lost_its_copy_gets_a_whole_file_anew(tmp_path):
    path = tmp_path / "a"
    append(path, b"0123456789")
    copy = Copy(stream := Stream(str(path)))
    copy.take()
    copy.data = copy.data[:4]
    stream.resume(4)
    copy.take()
    assert copy.data == b"0123456789"
    os.truncate(path, 0)
    append(path, b"ab")
    copy.take()
    copy.data = b""
    stream.resume(0)  # what was cut off is nowhere any more
    append(path, b"c")
    copy.take()
    assert copy.data == b"c"


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.integers(1, 60)),
        st.sampled_from(
            [("cut", 0), ("replace", 0), ("send", 0), ("lose", 0), ("unheard", 0), ("reconnect", 0)]
        ),
    ),
    max_size=40,
)


@settings(max_examples=150, deadline=None)
@given(STEPS)
def test_every_byte_arrives_once_whatever_happens_to_the_file(tmp_path_factory, steps):
    """Each generation of the file is written in a letter of its own; a cut takes only what had been read."""
    path = tmp_path_factory.mktemp("s") / "a"
    copy = Copy(stream := Stream(str(path)))
    written, letter = [b""], 0
    for what, count in steps:
        if what == "write":
            data = bytes([letter % 250]) * count
            append(path, data)
            written[-1] += data
        elif what in ("cut", "replace"):
            copy.take(arrive=False)
            letter += 1
            written.append(b"")
            if path.exists():
                os.truncate(path, 0) if what == "cut" else path.rename(path.with_suffix(f".{letter}"))
            stream.look()
        elif what == "reconnect":
            stream.resume(len(copy.data))
        else:
            copy.take(arrive=what != "lose", confirm=what == "send")
    stream.resume(len(copy.data))
    copy.take()
    assert copy.data == b"".join(written)
    assert (stream.size, stream.kept, stream.lost) == (len(copy.data), len(copy.data), 0)
    stream.close()


def test_a_large_file_comes_in_pieces(tmp_path):
    path = tmp_path / "a"
    append(path, os.urandom(3 * streams.PIECE + 17))
    copy = Copy(stream := Stream(str(path)))
    stream.look()
    assert len(stream.next_piece()[1]) == stream.flying == streams.PIECE
    stream.resume(0)
    copy.take()
    assert copy.data == path.read_bytes()
