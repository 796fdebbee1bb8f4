"""Write the weights of a checkpoint as one model, with the Python of the training and without a GPU."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from orchestrator.checkpoints import deepspeed
from orchestrator.checkpoints.find import sightings
from orchestrator.checkpoints.gathering import program
from orchestrator.checkpoints.making import publish, writing
from orchestrator.checkpoints.show import gathered, size_words
from orchestrator.checkpoints.tag import Kind, listing
from orchestrator.checkpoints.universal_needs import free_memory
from orchestrator.checkpoints.whole import broken_files
from orchestrator.errors import CheckpointError, OrchestratorError, Problem

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from orchestrator.checkpoints.place import Place
    from orchestrator.checkpoints.tag import Listing, Tag

_MARGIN = 64 << 20  # bytes of disk for headers, the index and the files of the configuration
_MODEL_FILES = re.compile(
    r"(config|generation_config|tokenizer|tokenizer_config|special_tokens_map|added_tokens|vocab"
    r"|preprocessor_config|processor_config)\.json|merges\.txt|vocab\.txt|(tokenizer|spiece|sentencepiece.*)\.model"
    r"|chat_template\.(jinja|json)"
)
"""What `from_pretrained` reads beside the weights, but for the code of a model that brings its own."""
_PIECES = re.compile(r"layer_\d+_expert_\d+_.*|layer_\d+-model_\d+.*|.*mp_rank_(?!00)\d+_.*")


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a checkpoint's weights are had.

    Attributes:
        kind: `shards`, which DeepSpeed joins to fp32; `module`, the model as stage 0 saves it; or `files`.
        folder: the folder of `tag`, for the first two.
        tag: name of the folder with DeepSpeed's files.
        files: whole weights, for the third.
    """

    kind: str
    folder: str = ""
    tag: str = ""
    files: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be written.

    Attributes:
        out: the folder, which is not there yet, or empty.
        dtype: fp32, bf16 or fp16; None for fp32 from shards, and what they are from whole files.
        shard_bytes: size of a file at most, but for a tensor that is larger.
        config: a config.json, or a folder with one, to put beside the weights; None looks for one.
    """

    out: Path
    dtype: str | None
    shard_bytes: int
    config: Path | None


@dataclass(frozen=True, slots=True)
class Needs:
    """What the work takes: parameters; bytes of disk, of memory (about), and of memory that is free."""

    parameters: int
    disk: int
    memory: int
    free_memory: int | None

    def words(self) -> str:
        """Return a sentence that says it."""
        free = "" if self.free_memory is None else f" ({size_words(self.free_memory)} is free)"
        return (
            f"{self.parameters:,} parameters; needs {size_words(self.disk)} of disk and about "
            f"{size_words(self.memory)} of memory{free}"
        )


@dataclass(frozen=True, slots=True)
class Consolidated:
    """What was written.

    Attributes:
        out: where.
        tag: of which checkpoint.
        parameters: how many numbers.
        files: names of the files of weights.
        dtypes: types of the tensors, as torch names them.
        tied: parameters that are left out because another one is the same tensor, with that one's name.
        config: whose configuration lies beside the weights; None for no configuration.
        peak: bytes of memory that the work took.
    """

    out: str
    tag: str
    parameters: int
    files: tuple[str, ...]
    dtypes: tuple[str, ...]
    tied: dict[str, str]
    config: str | None
    peak: int


def recipe_for(tag: Tag, dtype: str | None) -> Recipe:
    """Return how the weights of a complete checkpoint are had.

    Args:
        tag: the checkpoint.
        dtype: what is asked for: 16 bit are taken from whole files where there are some, which are half as
            much to read (stage3_gather_16bit_weights_on_model_save).

    Raises:
        CheckpointError: they cannot be put together, and what to do.
    """
    (seen,) = [one for one in sightings(tag.path) if one.path == tag.path]
    if tag.kind in (Kind.UNIVERSAL, Kind.DISTRIBUTED):
        raise CheckpointError(
            _cannot(tag, f"it is a {tag.kind} checkpoint", "name the tag that it came from")
        )
    whole = tuple(str(tag.path / name) for name in gathered(seen))
    shards = [part for part in (seen.listing, *seen.parts) if deepspeed.is_tag(part)]
    if whole and (not shards or dtype in ("bf16", "fp16")):
        return Recipe("files", files=whole)
    if not shards:
        raise CheckpointError(_cannot(tag, f"it is a {tag.kind} checkpoint without weights known here", ""))
    pieces = sorted(name for name in shards[0].files if _PIECES.fullmatch(name))
    if pieces:
        what = f"it is in pieces that DeepSpeed does not join, such as {pieces[0]}"
        fix = "experts, pipeline and model-parallel ranks: save whole weights from the script"
        raise CheckpointError(_cannot(tag, what, fix))
    kind = "module" if tag.stage == 0 else "shards"
    return Recipe(kind, str(shards[0].path.parent), shards[0].path.name)


def _cannot(tag: Tag, what: str, fix: str) -> Problem:
    return Problem(f"its weights cannot be put together: {what}", "--tag", tag.name, fix)


def consolidate(
    place: Place, tag: Tag, wanted: Wanted, python: str, say: Callable[[str], None]
) -> Consolidated:
    """Write the weights of a checkpoint; the folder appears when all of it is there.

    Args:
        place: where the checkpoint lies.
        tag: a complete checkpoint.
        wanted: what to write.
        python: a Python with torch and DeepSpeed.
        say: takes a line for the user: what is needed, and how far it is.

    Raises:
        CheckpointError: it cannot be done with this checkpoint, or `out` is taken.
        OrchestratorError: the disk lacks room, or the program failed.
    """
    recipe = recipe_for(tag, wanted.dtype)
    config = _config(place, tag, wanted.config)
    with writing(wanted.out) as making, program(python) as talk:
        dtype = wanted.dtype or ("fp32" if recipe.kind == "shards" else None)
        talk.ask(
            {**asdict(recipe), "out": str(making), "shard_bytes": wanted.shard_bytes, "dtype": dtype},
        )
        needs = _needs(talk.answer("needs"))
        say(f"{tag.name}: {needs.words()}")
        _require(needs, making)
        talk.go_on()
        done = talk.until_done(lambda told: say(_progress(told)))
        copied = _copy_config(config, making)
        files = _checked(making)
        publish(making, wanted.out)
    return Consolidated(
        out=str(wanted.out),
        tag=tag.name,
        parameters=needs.parameters,
        files=files,
        dtypes=tuple(done["dtypes"]),
        tied=done["tied"],
        config=copied,
        peak=done["peak"],
    )


def _needs(told: dict[str, Any]) -> Needs:
    return Needs(told["parameters"], told["bytes"] + _MARGIN, told["memory"], free_memory())


def _require(needs: Needs, folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if free < needs.disk:
        what = f"the disk lacks room: {size_words(needs.disk)} are needed, {size_words(free)} are free"
        raise OrchestratorError(
            Problem(what, "OUT", str(folder.parent), "choose another disk, or --dtype bf16")
        )


def _progress(told: dict[str, Any]) -> str:
    return f"{told['wrote']}  {told['number']} of {told['of']}  {size_words(told['bytes'])}"


def _checked(folder: Path) -> tuple[str, ...]:
    """Return the names of the files of weights.

    Raises:
        OrchestratorError: one of them is not whole.
    """
    found: Listing = listing(folder)
    broken = broken_files(found)
    if broken:
        raise OrchestratorError(
            Problem("; ".join(broken), "OUT", str(folder), "see whether the disk is well")
        )
    return tuple(sorted(name for name in found.files if name.endswith(".safetensors")))


def _config(place: Place, tag: Tag, asked: Path | None) -> Path | None:
    """Return the folder with the model's configuration.

    Raises:
        CheckpointError: `asked` is none.
    """
    if asked is not None:
        folder = asked if asked.is_dir() else asked.parent
        if (asked if asked.is_file() else asked / "config.json").is_file():
            return folder
        raise CheckpointError(Problem("there is no config.json", "--config", str(asked)))
    for folder in (tag.path, tag.path.parent, place.folder, place.folder.parent):
        if (folder / "config.json").is_file():
            return folder
    return None


def _copy_config(folder: Path | None, out: Path) -> str | None:
    if folder is None:
        return None
    code = _code_of(folder / "config.json")
    for name in listing(folder).files:
        if _MODEL_FILES.fullmatch(name) or name in code:
            shutil.copyfile(folder / name, out / name)
    return str(folder)


def _code_of(config: Path) -> set[str]:
    """Return the names of the files with a model's own code: `auto_map` says `modeling_x.ModelClass`."""
    try:
        classes = json.loads(config.read_text(encoding="utf-8")).get("auto_map", {}).values()
    except (OSError, ValueError, AttributeError):
        return set()
    return {f"{name.rpartition('--')[2].partition('.')[0]}.py" for name in classes if isinstance(name, str)}
