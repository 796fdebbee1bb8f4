"""What `gpu_memory` trains: a Llama of 1.3 billion parameters on random tokens, which notes its memory.

Every phase of a step (forward, backward, optimizer) has a peak of its own; rank 0 writes those of the last
step into a file. The first step is left out: DeepSpeed only records the order of modules in it, and the
optimizer's states are made at its end.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

import deepspeed
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.memory_cases import LLAMA, TOKENS


def peak() -> int:
    """Return the most bytes that were allocated since the last call."""
    torch.cuda.synchronize()
    most = torch.cuda.max_memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    return most


def one_step(engine: deepspeed.DeepSpeedEngine) -> dict[str, float]:
    """Take one optimizer step; return seconds, the peak of each phase and what is held after it, in bytes."""
    peaks = {"forward": 0, "backward": 0, "update": 0}
    peak()
    started = time.perf_counter()
    for _ in range(engine.gradient_accumulation_steps()):
        shape = (engine.train_micro_batch_size_per_gpu(), TOKENS)
        ids = torch.randint(0, LLAMA["vocab_size"], shape, device=engine.device)
        loss = engine(input_ids=ids, labels=ids).loss
        peaks["forward"] = max(peaks["forward"], peak())
        engine.backward(loss)
        peaks["backward"] = max(peaks["backward"], peak())
        del loss
        engine.step()
        peaks["update"] = max(peaks["update"], peak())
    return {"s": time.perf_counter() - started, **peaks, "steady": torch.cuda.memory_allocated()}


def main() -> None:
    """Train a few steps."""
    parser = argparse.ArgumentParser()
    parser.add_argument("config", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--recompute", action="store_true")
    args = parser.parse_args()
    torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    deepspeed.init_distributed()
    config = json.loads(args.config.read_text())
    with deepspeed.zero.Init(config_dict_or_path=config, enabled=config["zero_optimization"]["stage"] == 3):
        model = LlamaForCausalLM(LlamaConfig(**LLAMA, max_position_embeddings=TOKENS, use_cache=False))
    if args.recompute:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    engine, *_ = deepspeed.initialize(model=model, model_parameters=model.parameters(), config=config)
    last = [one_step(engine) for _ in range(4)][-1]
    if os.environ["RANK"] == "0":
        args.output.write_text(json.dumps(last))
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
