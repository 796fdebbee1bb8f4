"""Model and tokenizer by name, by folder, or from a configuration alone; and rows as tensors for them.

An encoder-decoder reads the prompt and writes the label. A decoder alone goes on from the prompt with the
label. Which of the two a model is stands in its configuration.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import transformers
from torch import Tensor
from transformers import AutoConfig, AutoTokenizer, PretrainedConfig, PreTrainedTokenizerBase

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rows import Row

WEIGHTS = ("*.safetensors", "*.bin")
SPECIAL = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}  # ids 0 to 3
VOCABULARY = 4096  # most tokens of a tokenizer made here
IGNORED = -100  # PyTorch's cross entropy leaves out targets of this value


def has_weights(model: str) -> bool:
    """Return whether there are weights to load: in a folder they must lie, a name on the hub has them."""
    folder = Path(model)
    return not folder.is_dir() or any(found for pattern in WEIGHTS for found in folder.glob(pattern))


def load_config(model: str) -> PretrainedConfig:
    """Return a model's configuration.

    Raises:
        SystemExit: there is none, neither here nor on the hub.
    """
    try:
        return AutoConfig.from_pretrained(model)
    except (OSError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        raise SystemExit(
            f"--model {model}: {first}; give a folder with a config.json, or a name on the hub"
        ) from None


def load_model(model: str, config: PretrainedConfig, precision: torch.dtype) -> Any:
    """Return the model, with random weights where its folder holds a configuration and no weights.

    At ZeRO stage 3 transformers finds DeepSpeed's configuration, which must be alive by now (Accelerate holds
    it), and makes or loads the model piece by piece under `deepspeed.zero.Init`: no rank ever has the whole.
    """
    name = "AutoModelForSeq2SeqLM" if config.is_encoder_decoder else "AutoModelForCausalLM"
    kind = getattr(transformers, name)
    if has_weights(model):
        return kind.from_pretrained(model, dtype=precision)
    return kind.from_config(config, dtype=precision)


def load_tokenizer(
    model: str, config: PretrainedConfig, rows: Iterable[Row], folder: Path
) -> PreTrainedTokenizerBase:
    """Return the model's tokenizer; a folder without one gets one trained on the rows, kept in `folder`."""
    here = Path(model)
    if not here.is_dir() or (here / "tokenizer_config.json").exists():
        tokenizer = AutoTokenizer.from_pretrained(model)
        tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token  # GPT-2 and Llama have none
        return tokenizer
    if not folder.exists():
        made = make_tokenizer(rows, min(config.vocab_size, VOCABULARY), encoder=config.is_encoder_decoder)
        unfinished = folder.with_name(f"{folder.name}.tmp")
        made.save_pretrained(unfinished)
        shutil.rmtree(folder, ignore_errors=True)
        unfinished.rename(folder)  # in one step: another host's ranks may look at this moment
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for name in ("bos_token_id", "pad_token_id", "eos_token_id"):
        setattr(config, name, getattr(tokenizer, name))
    config.decoder_start_token_id = tokenizer.eos_token_id  # as in BART
    return tokenizer


def make_tokenizer(rows: Iterable[Row], size: int, *, encoder: bool) -> PreTrainedTokenizerBase:
    """Return a byte-level BPE tokenizer of at most `size` tokens; with `encoder` texts end with `</s>`."""
    import tokenizers  # noqa: PLC0415 - comes with transformers, and only bare models need it

    bpe = tokenizers.ByteLevelBPETokenizer()
    texts = (f"{row.text} {row.label}" for row in rows)
    bpe.train_from_iterator(
        texts, size, min_frequency=2, special_tokens=list(SPECIAL.values()), show_progress=False
    )
    if encoder:
        end = SPECIAL["eos_token"]
        bpe.post_processor = tokenizers.processors.TemplateProcessing(
            single=f"$A {end}", special_tokens=[(end, bpe.token_to_id(end))]
        )
    return transformers.PreTrainedTokenizerFast(tokenizer_object=bpe._tokenizer, **SPECIAL)  # noqa: SLF001 - has no other door


@dataclass(frozen=True)
class Collator:
    """Turns rows into tensors, int64 (rows, length); every batch has the same lengths, so memory is steady.

    Attributes:
        tokenizer: of the model.
        encoder: an encoder reads the prompt; else label follows prompt in one sequence.
        source_length: tokens of a prompt; longer ones are cut off at the end.
        target_length: tokens of a label, its end token included.
    """

    tokenizer: PreTrainedTokenizerBase
    encoder: bool
    source_length: int
    target_length: int

    def training(self, rows: list[Row]) -> dict[str, Tensor]:
        """Return `input_ids`, `attention_mask` and `labels`, where `labels` are IGNORED is no loss."""
        prompts = [self._prompt(row) for row in rows]
        targets = [self._target(row) for row in rows]
        if self.encoder:
            labels = [_padded(ids, self.target_length, IGNORED) for ids in targets]
            return self._batch(prompts, self.source_length) | {"labels": torch.tensor(labels)}
        length = self.source_length + self.target_length
        both = [prompt + target for prompt, target in zip(prompts, targets, strict=True)]
        labels = [
            _padded([IGNORED] * len(prompt) + target, length, IGNORED)
            for prompt, target in zip(prompts, targets, strict=True)
        ]
        return self._batch(both, length) | {"labels": torch.tensor(labels)}

    def asking(self, rows: list[Row]) -> dict[str, Tensor]:
        """Return `input_ids` and `attention_mask` for `generate`; a decoder is padded on the left."""
        return self._batch([self._prompt(row) for row in rows], self.source_length, left=not self.encoder)

    def answers(self, generated: Tensor) -> list[str]:
        """Return what `generate` wrote, without the prompt that a decoder alone repeats."""
        tokens = generated if self.encoder else generated[:, self.source_length :]
        return [text.strip() for text in self.tokenizer.batch_decode(tokens, skip_special_tokens=True)]

    def _prompt(self, row: Row) -> list[int]:
        """Return the tokens of a prompt; only the text is cut, so that the question stays."""
        text = self.tokenizer(f"Text : {row.text}", add_special_tokens=False)["input_ids"]
        question = self.tokenizer(" Label :", add_special_tokens=self.encoder)["input_ids"]
        return text[: self.source_length - len(question)] + question

    def _target(self, row: Row) -> list[int]:
        ids = self.tokenizer(f" {row.label}", add_special_tokens=False)["input_ids"]
        return [*ids[: self.target_length - 1], self.tokenizer.eos_token_id]

    def _batch(self, sequences: list[list[int]], length: int, *, left: bool = False) -> dict[str, Tensor]:
        pad = self.tokenizer.pad_token_id
        ids = [_padded(each, length, pad, left=left) for each in sequences]
        mask = [_padded([1] * len(each), length, 0, left=left) for each in sequences]
        return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}


def _padded(ids: list[int], length: int, value: int, *, left: bool = False) -> list[int]:
    rest = [value] * (length - len(ids))
    return rest + ids if left else ids + rest
