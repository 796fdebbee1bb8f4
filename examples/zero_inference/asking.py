"""What both forms of ZeRO inference share: prompts, model, tokenizer, and answers in the order of the prompts."""

from __future__ import annotations

import json
import os
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import deepspeed
import torch
import torch.distributed as dist
import transformers
from torch import Tensor
from transformers import AutoConfig, AutoTokenizer, ByT5Tokenizer, PreTrainedTokenizerBase

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence

HERE = Path(__file__).resolve().parent
WEIGHTS = ("*.safetensors", "*.bin")
SHOWN = 4  # answers that are printed
STAGE = 3  # cuts up weights; the stages below cut up only what inference has not got


class Answer(NamedTuple):
    """What the model made of one prompt, and the rank that asked it."""

    number: int
    prompt: str
    answer: str
    rank: int


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what both forms are asked for."""
    add = parser.add_argument
    model = "name on the hub, or a folder; with a config.json alone it gets random weights"
    add("--model", default="models/tiny", help=model)
    add("--prompts", default="prompts.txt", help="one a line, or JSON lines with `prompt`")
    add("--output", type=Path, required=True, help="JSON lines, in the order of the prompts")
    add("--prompt_length", type=int, default=128, help="tokens; longer prompts are cut")
    add("--answer_length", type=int, default=32, help="tokens, at most")
    add("--seed", type=int, default=1, help="of random weights")


def here(path: str) -> str:
    """Return a path of this folder, where there is such a one; else the word as it is."""
    return str(HERE / path) if (HERE / path).exists() else path


def read_prompts(path: Path) -> list[str]:
    """Return the prompts of a file: one a line, or JSON lines with a field `prompt`.

    Raises:
        SystemExit: no such file, no prompts, or a line that is not as it has to be.
    """
    try:
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except OSError as error:
        raise SystemExit(f"--prompts {path}: {error.strerror}; give a file with one prompt a line") from None
    if not lines:
        raise SystemExit(f"--prompts {path}: there is no prompt in it; write one a line")
    if path.suffix not in {".jsonl", ".json"}:
        return lines
    try:
        return [str(json.loads(line)["prompt"]) for line in lines]
    except (ValueError, KeyError, TypeError):
        raise SystemExit(f'--prompts {path}: every line has to be {{"prompt": "..."}}') from None


def check_stage(ds_config: dict[str, Any]) -> None:
    """Refuse a stage that inference gains nothing from, before a model is loaded.

    Raises:
        SystemExit: it is not stage 3.
    """
    stage = ds_config.get("zero_optimization", {}).get("stage", 0)
    if stage != STAGE:
        what = "cuts up no weights, and there is nothing else to cut up in inference"
        raise SystemExit(f"deepspeed.zero_stage {stage} {what}; set zero_stage: {STAGE}")


def load_model(name: str, precision: torch.dtype) -> Any:
    """Return the model of a name on the hub or a folder; a folder with a config.json alone gives random weights.

    With DeepSpeed's configuration alive (`HfDeepSpeedConfig`, or Accelerate's own), transformers makes each
    layer under `deepspeed.zero.Init` and loads each weight into its shards: no rank ever has the whole model.

    Raises:
        SystemExit: there is no such model.
    """
    try:
        config = AutoConfig.from_pretrained(name)
    except (OSError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        raise SystemExit(f"--model {name}: {first}; give a folder or a name on the hub") from None
    kind = (
        transformers.AutoModelForSeq2SeqLM if config.is_encoder_decoder else transformers.AutoModelForCausalLM
    )
    if is_bare(name):
        return kind.from_config(config, dtype=precision)
    return kind.from_pretrained(name, dtype=precision)


def is_bare(name: str) -> bool:
    """Return whether a folder holds a model's configuration and no weights."""
    folder = Path(name)
    return folder.is_dir() and not any(found for pattern in WEIGHTS for found in folder.glob(pattern))


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """Return the model's tokenizer; a folder without one gets bytes as tokens (ByT5's), which need no file."""
    if Path(name).is_dir() and not (Path(name) / "tokenizer_config.json").exists():
        return ByT5Tokenizer()
    tokenizer = AutoTokenizer.from_pretrained(name)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token  # GPT-2 and Llama have none
    tokenizer.padding_side = "left"  # a decoder goes on at the right end; an encoder does not mind
    return tokenizer


def generate(
    model: Any, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], args: Any, *, synced: bool
) -> Tensor:
    """Return tokens, int64 (texts, length), that the model writes in answer; greedy, so always the same.

    `synced` keeps ranks together: a rank whose answers are done goes on calling the model until all are,
    because every call gathers weights from every rank.
    """
    inputs = tokenizer(
        list(texts), return_tensors="pt", padding=True, truncation=True, max_length=args.prompt_length
    ).to("cuda" if torch.cuda.is_available() else "cpu")  # offloaded weights lie elsewhere than they are used
    tokens = model.generate(
        **inputs, max_new_tokens=args.answer_length, do_sample=False, num_beams=1, synced_gpus=synced
    )
    return tokens if model.config.is_encoder_decoder else tokens[:, inputs["input_ids"].shape[1] :]


def decode(tokenizer: PreTrainedTokenizerBase, tokens: Tensor) -> list[str]:
    """Return the texts of answers; tokens that the tokenizer has not got are left out (random weights)."""
    known = tokens.masked_fill(tokens >= len(tokenizer), tokenizer.pad_token_id)
    return [text.strip() for text in tokenizer.batch_decode(known, skip_special_tokens=True)]


def write(path: Path, answers: Sequence[Answer]) -> None:
    """Write answers as JSON lines, all at once: whoever looks sees all of them or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.tmp")
    lines = (json.dumps(answer._asdict(), ensure_ascii=False) + "\n" for answer in answers)
    unfinished.write_text("".join(lines), encoding="utf-8")
    unfinished.replace(path)


def report(say: Callable[[str], None], phase: str, started: float) -> None:
    """Print how long a phase took, and the peak of each rank's GPU memory in bytes. Every rank has to call it.

    The peak is that of PyTorch's allocator, and counts anew after each report.
    """
    say(f"{phase} took {time.perf_counter() - started:.1f}s")
    if torch.cuda.is_available():
        mine = torch.tensor([torch.cuda.max_memory_allocated()], device="cuda")
        peaks = [torch.zeros_like(mine) for _ in range(dist.get_world_size())]
        dist.all_gather(peaks, mine)
        say(f"GPU peak per rank in bytes, {phase}: {' '.join(str(peak.item()) for peak in peaks)}")
        torch.cuda.reset_peak_memory_stats()


def show(answers: Sequence[Answer], path: Path) -> None:
    """Write all answers and print the first ones."""
    write(path, answers)
    for answer in answers[:SHOWN]:
        print(f"{answer.prompt!r} -> {answer.answer!r}")
    print(f"wrote {len(answers)} answers to {path}", flush=True)


def quiet() -> None:
    """Have DeepSpeed start on CPUs without a compiler, and warn of nothing that is its own affair."""
    # It calls collectives by names that torch 2.13 has replaced: three warnings a step, for nothing.
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch.distributed")
    if not torch.cuda.is_available():
        # It would compile an all-reduce that helps on a single host only, and fail where g++ is missing.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False


def leave() -> None:
    """End a rank whose work is done, with exit code 0."""
    dist.destroy_process_group()
    # DeepSpeed holds on to its groups, so a thread of gloo may still be dropping the last tensor while Python
    # shuts down, and that aborts about one rank in twenty. So the rank ends without Python's shutdown.
    print(end="", flush=True)
    os._exit(0)
