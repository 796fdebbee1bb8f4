"""Tokens of a text: its bytes, or the pieces that a byte-pair encoding learned (BPE)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import tokenizers

END_OF_TEXT = "<|endoftext|>"
LEARN = 256 << 20  # bytes of text that a BPE is learned from: more would hardly change it


class Tokenizer(Protocol):
    """What makes numbers of text.

    Attributes:
        vocabulary: how many tokens there are.
        end_of_text: the one between two files.
    """

    vocabulary: int
    end_of_text: int

    def encode(self, text: bytes) -> np.ndarray:
        """Return the tokens of a text, (count,)."""

    def save(self, folder: Path) -> None:
        """Write what is needed to turn tokens back into text."""


class Bytes:
    """A token is a byte: nothing to learn, nothing to download."""

    vocabulary = 256
    end_of_text = 0  # no text has this byte

    def encode(self, text: bytes) -> np.ndarray:
        """Return the bytes themselves, uint8."""
        return np.frombuffer(text, dtype=np.uint8)

    def save(self, folder: Path) -> None:
        """Write nothing: bytes are text already."""


class Pieces:
    """A tokenizer of Hugging Face's `tokenizers`, as its `tokenizer.json` describes it."""

    def __init__(self, tokenizer: tokenizers.Tokenizer) -> None:
        self._tokenizer = tokenizer
        self.vocabulary = tokenizer.get_vocab_size()
        self.end_of_text = end_of_text(tokenizer)

    def encode(self, text: bytes) -> np.ndarray:
        """Return the tokens of a text; bytes that are no UTF-8 become U+FFFD."""
        ids = self._tokenizer.encode(text.decode(errors="replace"), add_special_tokens=False).ids
        return np.array(ids, dtype=np.uint32)

    def save(self, folder: Path) -> None:
        """Write `tokenizer.json`, which transformers and tokenizers read."""
        self._tokenizer.save(str(folder / "tokenizer.json"))


def end_of_text(tokenizer: tokenizers.Tokenizer) -> int:
    """Return the token between two texts, under whichever name the tokenizer has it."""
    for name in (END_OF_TEXT, "<|end_of_text|>", "</s>", "<eos>", "[SEP]"):
        if (number := tokenizer.token_to_id(name)) is not None:
            return int(number)
    raise SystemExit(f"--tokens: this tokenizer has no token between texts, such as {END_OF_TEXT}")


def make_tokenizer(kind: str, vocabulary: int, texts: Iterable[bytes]) -> Tokenizer:
    """Return the tokenizer that `--tokens` names; `texts` are what BPE learns from, `vocabulary` how much."""
    if kind == "bytes":
        return Bytes()
    from tokenizers import Tokenizer as Fast  # noqa: PLC0415 - bytes do without

    if kind == "bpe":
        return Pieces(learn(vocabulary, texts))
    return Pieces(Fast.from_file(kind) if Path(kind).is_file() else Fast.from_pretrained(kind))


def learn(vocabulary: int, texts: Iterable[bytes]) -> tokenizers.Tokenizer:
    """Learn a byte-level BPE: its first 256 tokens are the bytes, so that it can spell any text."""
    from tokenizers import Tokenizer as Fast  # noqa: PLC0415 - bytes do without
    from tokenizers import decoders, models, pre_tokenizers, trainers  # noqa: PLC0415

    tokenizer = Fast(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(beginning(texts), trainer)
    return tokenizer


def beginning(texts: Iterable[bytes]) -> Iterator[str]:
    """Yield texts until they are enough to learn from."""
    size = 0
    for text in texts:
        yield text.decode(errors="replace")
        size += len(text)
        if size >= LEARN:
            return
