"""Packets of Textual's web driver, put together and taken apart."""

from __future__ import annotations

import pytest

from orchestrator.login.screen import Unpacked, packet

STREAM = b"noise\n__GANGLION__\n" + packet(b"D", b"one") + packet(b"M", b"{}") + packet(b"D", b"")


@pytest.mark.parametrize("size", [1, 2, 5, 1000])
def test_packets_survive_however_they_are_cut(size):
    unpacked = Unpacked()
    pieces = [STREAM[at : at + size] for at in range(0, len(STREAM), size)]
    found = [one for piece in pieces for one in unpacked.feed(piece)]
    assert found == [(b"D", b"one"), (b"M", b"{}"), (b"D", b"")]


def test_before_the_driver_speaks_nothing_is_drawn():
    unpacked = Unpacked()
    assert list(unpacked.feed(b"D\0\0\0\1x")) == []
    assert not unpacked.begun
