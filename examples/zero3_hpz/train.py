"""Train a byte-level language model with DeepSpeed ZeRO-3 and hpZ: the lesson behind `job.yaml`.

Every rank of every host runs this file, and nothing in it knows about hosts, launchers or schedulers: the
five variables RANK, LOCAL_RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT say all that a rank needs. torchrun,
DeepSpeed's launcher and `accelerate launch` set them alike. What ZeRO does is up to the DeepSpeed config. By
hand on one machine, with the `ds_config.json` that `orchestrate render job.yaml` shows:

    torchrun --nproc-per-node 2 train.py --deepspeed_config ds_config.json --save checkpoints
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import sysconfig
import time
import warnings
from pathlib import Path

import deepspeed
import torch
import torch.distributed as dist
from deepspeed import DeepSpeedEngine
from torch.distributed.elastic.multiprocessing.errors import record

# layers, hidden size, heads, MLP size; `tiny` is for CPUs, the others want GPUs
PRESETS = {
    "tiny": (3, 128, 4, 384),  # 0.7 M parameters
    "100m": (12, 768, 12, 2048),  # 85 M
    "1b": (20, 2048, 16, 5632),  # 1.0 G
    "7b": (32, 4096, 32, 11008),  # 6.5 G
}
NEWEST = "newest"
NOT_CORPUS = {"site-packages", "dist-packages", "test", "tests"}  # differ from one installation to the next
HELD_OUT = 0.05  # share of the corpus, at its end, that training never sees
EVAL_BATCHES = 4  # per rank


def parse_args() -> argparse.Namespace:
    """Read the command line; `--help` shows the defaults."""
    parser = argparse.ArgumentParser(formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--deepspeed_config", required=True, help="path of DeepSpeed's JSON")
    parser.add_argument("--size", choices=PRESETS, default="tiny", help="of the model")
    parser.add_argument("--steps", type=int, default=60, help="optimizer steps, resumed ones included")
    parser.add_argument("--seq_len", type=int, default=128, help="bytes in a window")
    parser.add_argument("--seed", type=int, default=1, help="of the weights and the order of the data")
    parser.add_argument("--save", type=Path, help="folder for the checkpoint, seen by all hosts")
    parser.add_argument("--save_every", type=int, default=0, metavar="STEPS", help="0: only at the end")
    parser.add_argument(
        "--resume",
        nargs="?",
        const=NEWEST,
        metavar="TAG",
        help="go on from this tag in --save, or the newest",
    )
    return parser.parse_args()


def say(message: str) -> None:
    """Print one line, from rank 0 only, at once: a log that people watch must not wait in a buffer."""
    if dist.get_rank() == 0:
        print(message, flush=True)


def read_corpus() -> tuple[torch.Tensor, torch.Tensor]:
    """Return (training, held-out) bytes, uint8: the sources of Python's own standard library."""
    stdlib = Path(sysconfig.get_path("stdlib"))
    names = sorted(path.relative_to(stdlib) for path in stdlib.rglob("*.py"))  # one order on every host
    text = b"".join((stdlib / name).read_bytes() for name in names if NOT_CORPUS.isdisjoint(name.parts))
    corpus = torch.frombuffer(bytearray(text), dtype=torch.uint8)
    split = int(len(corpus) * (1 - HELD_OUT))
    return corpus[:split], corpus[split:]


def draw(corpus: torch.Tensor, count: int, length: int, key: str) -> torch.Tensor:
    """Return `count` windows of `length` bytes, int64 (count, length), that depend on `key` alone.

    With the seed, the step and the rank in the key, every rank sees data of its own, and a resumed run goes
    on with exactly the windows that the interrupted one would have drawn.
    """
    rng = random.Random(key)  # noqa: S311 - sampling, not secrets
    starts = [rng.randrange(len(corpus) - length) for _ in range(count)]
    return torch.stack([corpus[start : start + length] for start in starts]).long()


def build_model(args: argparse.Namespace) -> torch.nn.Module:
    """Return a Llama with random weights; with ZeRO stage 3 each rank holds only its shard of them."""
    from transformers import LlamaConfig, LlamaForCausalLM  # noqa: PLC0415 - slow, and --help can do without

    layers, hidden, heads, mlp = PRESETS[args.size]
    config = LlamaConfig(
        vocab_size=256,  # a token is a byte: no tokenizer, nothing to download
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=mlp,
        max_position_embeddings=args.seq_len,
        use_cache=False,
    )
    torch.manual_seed(args.seed)
    # Inside `Init` every layer is cut up as soon as it is made: no rank ever holds the whole model. Stages 0
    # to 2 must do without, as nothing would gather the pieces again.
    stage = deepspeed.DeepSpeedConfig(args.deepspeed_config).zero_optimization_stage
    with deepspeed.zero.Init(config_dict_or_path=args.deepspeed_config, enabled=stage == 3):
        return LlamaForCausalLM(config)


def mean_over_ranks(losses: list[torch.Tensor]) -> float:
    """Average this rank's losses, then over all ranks. Every rank has to call it."""
    total = torch.stack(losses).float().mean()
    dist.all_reduce(total)
    return total.item() / dist.get_world_size()


def train_step(engine: DeepSpeedEngine, corpus: torch.Tensor, step: int, args: argparse.Namespace) -> float:
    """Take one optimizer step over all its micro-batches; return their mean loss in nats per byte."""
    losses = []
    for micro in range(engine.gradient_accumulation_steps()):
        key = f"{args.seed}/{step}/{micro}/{dist.get_rank()}"
        ids = draw(corpus, engine.train_micro_batch_size_per_gpu(), args.seq_len, key).to(engine.device)
        loss = engine(input_ids=ids, labels=ids).loss  # weights are gathered layer by layer and let go again
        engine.backward(loss)  # gradients are summed over the ranks, each rank keeping its shard
        engine.step()  # counts micro-batches: only the last one of a step moves the weights
        losses.append(loss.detach())
    return mean_over_ranks(losses)


@torch.no_grad()
def evaluate(engine: DeepSpeedEngine, held_out: torch.Tensor, args: argparse.Namespace) -> float:
    """Return the loss on held-out text. All ranks make the same number of calls: forward gathers weights."""
    engine.eval()
    losses = []
    for batch in range(EVAL_BATCHES):
        key = f"held-out/{batch}/{dist.get_rank()}"
        ids = draw(held_out, engine.train_micro_batch_size_per_gpu(), args.seq_len, key).to(engine.device)
        losses.append(engine(input_ids=ids, labels=ids).loss)
    return mean_over_ranks(losses)


def resume(engine: DeepSpeedEngine, args: argparse.Namespace) -> int:
    """Load a checkpoint, every rank its own shard; return the number of steps already taken."""
    if not (args.resume and args.save):
        return 0
    if args.resume == NEWEST and not (args.save / "latest").exists():  # a first start by the same command
        say(f"no checkpoint in {args.save}: starting from step 0")
        return 0
    path, state = engine.load_checkpoint(str(args.save), tag=None if args.resume == NEWEST else args.resume)
    say(f"resumed {path} at step {state['step']}")
    return int(state["step"])


def train(engine: DeepSpeedEngine, args: argparse.Namespace) -> None:
    """Train up to step `args.steps`, one progress line a step, then evaluate and save."""
    corpus, held_out = read_corpus()
    # numel() of a parameter that is cut up counts this rank's shard alone
    size = sum(getattr(p, "ds_numel", p.numel()) for p in engine.module.parameters())
    say(
        f"{dist.get_world_size()} ranks on {engine.device.type}, "
        f"ZeRO stage {engine.zero_optimization_stage()}, hpZ groups of {engine.zero_hpz_partition_size()}, "
        f"{size / 1e6:.1f} M parameters, {len(corpus) / 1e6:.1f} MB of text"
    )
    for step in range(first := resume(engine, args), args.steps):
        started = time.perf_counter()
        loss = train_step(engine, corpus, step, args)
        seconds = time.perf_counter() - started
        speed = engine.train_batch_size() * args.seq_len / seconds  # of all ranks together
        say(f"step {step + 1}/{args.steps} loss {loss:.3f} tokens/s {speed:.0f} step_time {seconds:.2f}s")
        if args.save_every and (step + 1) % args.save_every == 0 and step + 1 < args.steps:
            save(engine, args, step + 1)
    say(f"held-out loss {evaluate(engine, held_out, args):.3f}")
    if args.steps > first:
        save(engine, args, args.steps)


def save(engine: DeepSpeedEngine, args: argparse.Namespace, step: int) -> None:
    """Have every rank write its shard of weights and optimizer state; then rank 0 points `latest` at them."""
    if args.save:
        engine.save_checkpoint(str(args.save), client_state={"step": step})
        say(f"saved {args.save} at step {step}")


def leave() -> None:
    """End a rank whose work is done, with exit code 0."""
    dist.destroy_process_group()
    # DeepSpeed holds on to its groups, so a thread of gloo may still be dropping the last tensor while Python
    # shuts down, and that aborts about one rank in twenty. So the rank ends without Python's shutdown.
    sys.stdout.flush()
    os._exit(0)


@record  # also writes an exception to TORCHELASTIC_ERROR_FILE, where the verdict of a run quotes it from
def main() -> None:
    """Join the other ranks, build, train, leave."""
    args = parse_args()
    # DeepSpeed calls collectives by names that torch 2.13 has replaced: three warnings a step, for nothing.
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch.distributed")
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))  # before NCCL starts, or all ranks sit on GPU 0
    else:
        # DeepSpeed would compile an all-reduce that helps on a single host only, and fail where g++ or ninja
        # is missing. Gloo does the same work everywhere.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed()  # NCCL on GPUs, gloo on CPUs
    model = build_model(args)
    engine, *_ = deepspeed.initialize(
        model=model, model_parameters=model.parameters(), config=args.deepspeed_config
    )
    train(engine, args)
    leave()


if __name__ == "__main__":
    main()
