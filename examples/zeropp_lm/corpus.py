"""A corpus as shards of tokens on disk, mapped into memory, in an order that any number of ranks can resume.

Text becomes tokens once per host, in files of one number a token. Training then reads windows out of these
files: the ranks of a host share the pages that the kernel keeps of them, and nothing but the windows of a
step is ever copied, however large the corpus. By hand, for a corpus that takes long:

    python corpus.py --data FOLDER --tokens bpe --shards FOLDER
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import os
import shutil
import sysconfig
import tempfile
import zlib
from bisect import bisect_right
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tokens import make_tokenizer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tokens import Tokenizer

TEXT = {".txt", ".md", ".py", ".rst", ".tex", ".html"}  # files of --data that are read
ELSEWHERE = {"site-packages", "dist-packages", "test", "tests", "__pycache__"}  # not the same everywhere
SHARD = 64 << 20  # tokens in a file
BLOCK = 8 << 20  # bytes of text in memory at a time
INDEX = "index.json"  # written last: a folder with an index is whole
DEFAULT_SHARDS = Path(tempfile.gettempdir()) / f"zeropp_lm-{os.getuid()}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what decides on the corpus."""
    parser.add_argument(
        "--data", type=Path, help="folder of text, or of shards made before; default: Python's own library"
    )
    parser.add_argument("--tokens", default="bytes", help="bytes, bpe, a tokenizer.json or a hub name")
    parser.add_argument("--vocabulary", type=int, default=8192, help="tokens that bpe learns")
    parser.add_argument("--shards", type=Path, default=DEFAULT_SHARDS, help="folder for the corpus as tokens")


class Corpus:
    """A folder of shards, cut into windows of `length` tokens that do not overlap.

    Attributes:
        windows: how many there are; what is left over at the end of a shard is not used.
        vocabulary: tokens there can be.
        bytes_per_token: of the text, so that losses compare across tokenizers.
        digest: equal on two hosts if their tokens are.
    """

    def __init__(self, folder: Path, length: int) -> None:
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        self.vocabulary: int = index["vocabulary"]
        self.tokens = sum(shard["tokens"] for shard in index["shards"])
        self.bytes_per_token: float = index["bytes"] / self.tokens
        self.digest: str = index["digest"]
        self._length = length
        self._shards = [
            np.memmap(folder / shard["file"], dtype=index["dtype"], mode="r") for shard in index["shards"]
        ]
        self._ends = list(accumulate(len(shard) // length for shard in self._shards))
        self.windows = self._ends[-1]
        if self.windows < 2:  # one to train on, one held out
            raise SystemExit(f"{folder}: {self.tokens} tokens are too few for --seq_len {length}")

    def window(self, number: int) -> np.ndarray:
        """Return the tokens of one window, (length,), as they are on disk."""
        shard = bisect_right(self._ends, number)
        start = (number - (self._ends[shard - 1] if shard else 0)) * self._length
        return self._shards[shard][start : start + self._length]


def shuffled(number: int, count: int, key: str) -> int:
    """Return where `number` of 0 … count-1 goes in the shuffle named `key`: each place is taken once.

    A Feistel network over the next power of four, walked until it comes out below `count` (Black and Rogaway,
    Ciphers with Arbitrary Finite Domains, 2002). It needs no table, which for a trillion tokens would be
    gigabytes on every rank, and any place can be asked for alone: so the order of the data can be resumed.
    """
    half = ((count - 1).bit_length() + 1) // 2
    while True:
        left, right = number >> half, number & ((1 << half) - 1)
        for turn in range(4):
            mixed = zlib.crc32(f"{key}/{turn}/{right}".encode())
            left, right = right, left ^ (mixed & ((1 << half) - 1))
        number = left << half | right
        if number < count:
            return number


def order(first: int, count: int, windows: int, seed: int) -> list[int]:
    """Return which of `windows` the samples from `first` on are: each epoch is a shuffle of its own.

    Samples are counted over all ranks and steps, so nothing here depends on how many ranks there are.
    """
    places = [divmod(sample, windows) for sample in range(first, first + count)]
    return [shuffled(place, windows, f"{seed}/{epoch}") for epoch, place in places]


def find(args: argparse.Namespace, length: int) -> Corpus:
    """Return the corpus that the arguments name, made first if nobody on this host has made it.

    Every rank calls this, before there are collectives: the first one to come takes a lock and makes the
    shards, the others wait. Where --shards is a disk in common they are made once, else once on every host.
    """
    if args.data and (args.data / INDEX).exists():
        return Corpus(args.data, length)
    files = list(sources(args.data))
    if not files:
        raise SystemExit(f"--data {args.data}: no text there (files that end in {', '.join(sorted(TEXT))})")
    folder = args.shards / fingerprint(files, args)
    args.shards.mkdir(mode=0o700, parents=True, exist_ok=True)
    with locked(folder.with_suffix(".lock")):
        if not (folder / INDEX).exists():
            make(folder, files, args)
    return Corpus(folder, length)


def sources(data: Path | None) -> Iterator[Path]:
    """Yield the files of the corpus, in one order on every host."""
    top = data or Path(sysconfig.get_path("stdlib"))
    for folder, below, names in os.walk(top):
        # What is installed beside the library is not part of it; a folder of text is taken whole.
        below[:] = sorted(below if data else set(below) - ELSEWHERE)
        suffixes = TEXT if data else {".py"}
        yield from (Path(folder, name) for name in sorted(names) if Path(name).suffix in suffixes)


def fingerprint(files: list[Path], args: argparse.Namespace) -> str:
    """Return a name for the shards of these files: another one after any change to what they are made of."""
    read = [*files, Path(args.tokens)] if Path(args.tokens).is_file() else files
    stats = [(str(file), (stat := file.stat()).st_size, stat.st_mtime_ns) for file in read]
    return hashlib.sha256(json.dumps([stats, args.tokens, args.vocabulary]).encode()).hexdigest()[:16]


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock on a file; the kernel lets go of it even if its holder is killed."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def make(folder: Path, files: list[Path], args: argparse.Namespace) -> None:
    """Write the shards and their index under a name of their own, then give them theirs."""
    draft = folder.with_suffix(".draft")
    shutil.rmtree(draft, ignore_errors=True)  # left by one that was killed
    draft.mkdir(parents=True)
    texts = (text for file in files for text in blocks(file))
    tokenizer = make_tokenizer(args.tokens, args.vocabulary, texts)
    tokenizer.save(draft)
    index = write_shards(draft, tokenizer, files)
    (draft / INDEX).write_text(json.dumps(index, indent=1), encoding="utf-8")
    draft.rename(folder)


def write_shards(folder: Path, tokenizer: Tokenizer, files: list[Path]) -> dict[str, object]:
    """Write the tokens of all files, an end-of-text after each; return the index."""
    dtype = np.dtype(np.min_scalar_type(tokenizer.vocabulary - 1))
    digest, shards = hashlib.sha256(), []
    for number, shard in enumerate(cut(stream(tokenizer, files), dtype)):
        name = f"{number:05}.bin"
        shard.tofile(folder / name)
        digest.update(shard.data)
        shards.append({"file": name, "tokens": len(shard)})
    return {
        "dtype": dtype.name,
        "vocabulary": tokenizer.vocabulary,
        "bytes": sum(file.stat().st_size for file in files),
        "digest": digest.hexdigest(),
        "shards": shards,
    }


def stream(tokenizer: Tokenizer, files: list[Path]) -> Iterator[np.ndarray]:
    """Yield the tokens of the corpus, block by block."""
    for file in files:
        for text in blocks(file):
            yield tokenizer.encode(text)
        yield np.array([tokenizer.end_of_text])


def cut(pieces: Iterator[np.ndarray], dtype: np.dtype) -> Iterator[np.ndarray]:
    """Yield arrays of SHARD tokens, the last one of what is left."""
    held: list[np.ndarray] = []
    count = 0
    for piece in pieces:
        held.append(piece.astype(dtype))
        count += len(piece)
        while count >= SHARD:
            together = np.concatenate(held)
            yield together[:SHARD]
            held, count = [together[SHARD:]], count - SHARD
    if count:
        yield np.concatenate(held)


def blocks(file: Path) -> Iterator[bytes]:
    """Yield the text of a file in blocks that end with a line."""
    with file.open("rb") as text:
        while block := text.read(BLOCK):
            yield block + text.readline()


def main() -> None:
    """Make the shards of a corpus and say where they are."""
    parser = argparse.ArgumentParser(formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    add_arguments(parser)
    corpus = find(parser.parse_args(), length=1)
    print(f"{corpus.tokens} tokens of {corpus.vocabulary}, {corpus.bytes_per_token:.2f} bytes each")


if __name__ == "__main__":
    main()
