from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.agent.wire import MAX_LINE, Decoder, WireError, encode, is_proof, proof

VALUES = st.none() | st.booleans() | st.integers() | st.text() | st.lists(st.text())
MESSAGES = st.dictionaries(st.text().filter(lambda key: key != "size"), VALUES, max_size=4)
SENT = st.lists(st.tuples(MESSAGES, st.binary(max_size=64)), max_size=6)


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = sorted({min(cut, len(data)) for cut in cuts} | {0, len(data)})
    return [data[low:high] for low, high in itertools.pairwise(edges)]


@given(SENT, st.lists(st.integers(0, 600)))
def test_messages_arrive_whole_however_the_bytes_are_cut(sent, cuts):
    decoder = Decoder()
    data = b"".join(encode(message, payload) for message, payload in sent)
    received = [message for piece in pieces(data, cuts) for message in decoder.feed(piece)]
    expected = [(dict(m, size=len(p)) if p else m, p) for m, p in sent]
    assert received == expected


def test_bytes_arrive_one_by_one_and_payloads_may_hold_newlines():
    decoder = Decoder()
    data = encode({"t": "log", "file": "ä\n"}, b"\n{}\n\0\xff") + encode({"t": "drained"})
    received = [message for index in range(len(data)) for message in decoder.feed(data[index : index + 1])]
    assert [(m["t"], p) for m, p in received] == [("log", b"\n{}\n\0\xff"), ("drained", b"")]


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n",
        b"\n",
        b"[1, 2]\n",
        b'"hello"\n',
        b"17\n",
        b"\xff\xfe\n",
        b'{"t": "log", "size": -1}\n',
        b'{"t": "log", "size": "many"}\n',
        b'{"t": "log", "size": null}\n',
        b'{"t": "log", "size": [1]}\n',
        json.dumps({"size": MAX_LINE + 1}).encode() + b"\n",
        b"x" * (MAX_LINE + 1),
    ],
    ids=lambda data: repr(data[:30]),
)
def test_what_is_no_message_is_refused(data):
    with pytest.raises(WireError):
        Decoder().feed(data)


def test_a_message_before_the_broken_one_is_not_lost_with_it():
    decoder = Decoder()
    assert decoder.feed(encode({"t": "ping"}) + b"SSH-2") == [({"t": "ping"}, b"")]
    with pytest.raises(WireError):
        decoder.feed(b".0\n")


def test_a_proof_holds_for_one_token_side_nonce_and_host_only():
    given_proof = proof("token", "agent", "nonce", "node1")
    assert is_proof(given_proof, "token", "agent", "nonce", "node1")
    for wrong in (
        ("other", "agent", "nonce", "node1"),
        ("token", "supervisor", "nonce", "node1"),  # a supervisor's proof thrown back at it
        ("token", "agent", "older", "node1"),
        ("token", "agent", "nonce", "node2"),
    ):
        assert not is_proof(given_proof, *wrong)


@pytest.mark.parametrize("given_proof", [None, 1, b"x", "", ["x"], {}, "0" * 64])
def test_anything_but_the_right_text_is_no_proof(given_proof):
    assert not is_proof(given_proof, "token", "agent", "nonce", "node1")


def test_a_proof_tells_nothing_of_the_token():
    assert "secret-token" not in proof("secret-token", "agent", "nonce", "node1")
