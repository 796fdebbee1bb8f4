"""Tokens on disk and their order, without any training."""

from __future__ import annotations

import argparse
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "zeropp_lm"

pytestmark = pytest.mark.train


@pytest.fixture
def corpus(monkeypatch):
    """The module, as the script beside it imports it; no other example sees it."""
    pytest.importorskip("numpy")
    monkeypatch.syspath_prepend(EXAMPLE)
    names = ("corpus", "tokens")
    before = {name: sys.modules.pop(name, None) for name in names}
    yield importlib.import_module("corpus")
    for name in names:
        sys.modules.pop(name, None)
        if before[name] is not None:
            sys.modules[name] = before[name]


@pytest.fixture
def text(tmp_path) -> Path:
    folder = tmp_path / "text"
    folder.mkdir()
    (folder / "a.txt").write_bytes(b"abc\ndef\n")
    (folder / "b.md").write_bytes(b"ghi\n")
    (folder / "picture.png").write_bytes(b"\x89PNG")
    return folder


def arguments(tmp_path: Path, data: Path | None, tokens: str = "bytes") -> argparse.Namespace:
    return argparse.Namespace(data=data, tokens=tokens, vocabulary=300, shards=tmp_path / "shards")


@pytest.mark.parametrize("count", [1, 2, 3, 7, 64, 65, 1000])
def test_a_shuffle_takes_every_place_once(corpus, count):
    places = [corpus.shuffled(number, count, "1/0") for number in range(count)]
    assert sorted(places) == list(range(count))
    assert count < 64 or places != sorted(places)


def test_every_epoch_and_seed_has_an_order_of_its_own(corpus):
    first, second = corpus.order(0, 100, 100, seed=1), corpus.order(100, 100, 100, seed=1)
    assert sorted(first) == sorted(second)
    assert first != second
    assert corpus.order(0, 100, 100, seed=2) != first


def test_the_order_does_not_depend_on_how_many_ranks_share_it(corpus):
    four = [window for rank in range(4) for window in corpus.order(8 + 2 * rank, 2, 1000, seed=3)]
    assert four == corpus.order(8, 8, 1000, seed=3)


def test_windows_are_the_text_with_its_ends_and_never_lie_in_two_shards(corpus, text, tmp_path, monkeypatch):
    monkeypatch.setattr(corpus, "SHARD", 6)
    made = corpus.find(arguments(tmp_path, text), length=3)
    assert made.tokens == 8 + 1 + 4 + 1  # the two texts, and after each the byte that ends it
    assert [made.window(number).tobytes() for number in range(made.windows)] == [
        b"abc",
        b"\nde",
        b"f\n\0",
        b"ghi",
    ]
    assert made.vocabulary == 256
    assert made.bytes_per_token == 12 / 14


def test_shards_are_made_once_and_again_when_the_text_changes(corpus, text, tmp_path, monkeypatch):
    first = corpus.find(arguments(tmp_path, text), length=2)
    with monkeypatch.context() as patched:
        patched.setattr(corpus, "make", lambda *_: pytest.fail("made twice"))
        assert corpus.find(arguments(tmp_path, text), length=2).digest == first.digest
    (text / "a.txt").write_bytes(b"another text\n")
    assert corpus.find(arguments(tmp_path, text), length=2).digest != first.digest


def test_what_a_killed_rank_left_is_made_anew(corpus, text, tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(corpus, "write_shards", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            corpus.find(arguments(tmp_path, text), length=2)
    assert corpus.find(arguments(tmp_path, text), length=2).windows == 7


def test_ranks_that_come_at_once_agree(text, tmp_path):
    words = [sys.executable, EXAMPLE / "corpus.py", "--data", text, "--shards", tmp_path / "shards"]
    ranks = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    told = {rank.communicate(timeout=300)[0] for rank in ranks}
    assert told == {"14 tokens of 256, 0.86 bytes each\n"}
    assert len(list((tmp_path / "shards").glob("*/index.json"))) == 1


def test_a_folder_of_shards_is_taken_as_it_is(corpus, text, tmp_path):
    first = corpus.find(arguments(tmp_path, text), length=2)
    (made,) = (tmp_path / "shards").glob("*/index.json")
    (text / "a.txt").unlink()
    assert corpus.find(arguments(tmp_path, made.parent), length=2).digest == first.digest


def test_the_default_is_pythons_own_library_without_what_is_installed_beside_it(corpus):
    files = list(corpus.sources(None))
    assert any(file.name == "argparse.py" for file in files)
    assert not [file for file in files if {"site-packages", "test"} & set(file.parts)]
    assert {file.suffix for file in files} == {".py"}


def test_a_folder_without_text_or_with_too_little_is_an_error(corpus, tmp_path, text):
    (tmp_path / "empty").mkdir()
    with pytest.raises(SystemExit, match=r"--data .*empty: no text there \(files that end in \.html, "):
        corpus.find(arguments(tmp_path, tmp_path / "empty"), length=2)
    with pytest.raises(SystemExit, match="14 tokens are too few for --seq_len 8"):
        corpus.find(arguments(tmp_path, text), length=8)


def test_pieces_of_words_spell_the_text_they_were_learned_from(corpus, text, tmp_path):
    tokenizers = pytest.importorskip("tokenizers")
    (text / "a.txt").write_text("the cat sat on the mat, \u00e9l\u00e8ve\n" * 20)
    made = corpus.find(arguments(tmp_path, text, "bpe"), length=1)
    (learned,) = (tmp_path / "shards").glob("*/tokenizer.json")
    tokenizer = tokenizers.Tokenizer.from_file(str(learned))
    ids = [int(made.window(number)[0]) for number in range(made.windows)]
    spelled = "the cat sat on the mat, \u00e9l\u00e8ve\n" * 20 + "ghi\n"
    assert tokenizer.decode(ids, skip_special_tokens=True) == spelled
    assert made.bytes_per_token > 2
    again = corpus.find(arguments(tmp_path, text, str(learned)), length=1)
    assert again.digest == made.digest
