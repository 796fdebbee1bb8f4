"""Ways to fail on GPUs, alone and while the others wait in NCCL; each takes the script's arguments."""

from __future__ import annotations

import os
import signal
import time
from datetime import timedelta

RANK = int(os.environ.get("RANK", "0"))
LOCAL_RANK = int(os.environ.get("LOCAL_RANK", "0"))
SHORT = 15  # seconds, of a process group that is to run out of time
PATIENCE = 120  # seconds that the others would wait
TOGETHER = {
    *("cuda_oom", "device_assert", "two_devices", "illegal_access", "nccl_error", "nccl_exit", "nccl_kill"),
    *("nccl_timeout", "nccl_differ", "nccl_detail", "gpu_hang", "gpu_spin", "nccl_leaves"),
}
"""Ways of one rank, for which the others wait in a collective."""
_TIMED = {"nccl_timeout", "nccl_differ"}


def group(seconds):
    """Return torch.distributed with NCCL, after a collective that all ranks take part in."""
    import torch
    import torch.distributed as dist

    torch.cuda.set_device(LOCAL_RANK)
    dist.init_process_group("nccl", timeout=timedelta(seconds=seconds))
    reduce_()
    return dist


def reduce_(count=1 << 20):
    import torch
    import torch.distributed as dist

    dist.all_reduce(torch.ones(count, device="cuda"))
    torch.cuda.synchronize()


def begin(args):
    """Bring all ranks together, and have those that do not fail wait for the one that does."""
    if args.way == "nccl_detail":
        os.environ["TORCH_DISTRIBUTED_DEBUG"] = "DETAIL"
    group(SHORT if args.way in _TIMED else 600)
    if args.rank != RANK:
        reduce_(1 << 22)
        time.sleep(PATIENCE)
    time.sleep(1)


def way_cuda_oom(_):
    import torch

    layer = torch.nn.Linear(4096, 1 << 20, device="cuda", dtype=torch.bfloat16)
    layer(torch.ones(1 << 18, 4096, device="cuda", dtype=torch.bfloat16)).sum().backward()


def way_cuda_oom_states(_):
    import deepspeed
    import torch

    config = {
        "train_micro_batch_size_per_gpu": 1,
        "zero_optimization": {"stage": 0},
        "bf16": {"enabled": True},
    }
    config |= {"optimizer": {"type": "Adam", "params": {"torch_adam": True}}}
    torch.cuda.set_device(LOCAL_RANK)
    torch.cuda.set_per_process_memory_fraction(0.02)
    model = torch.nn.Sequential(*(torch.nn.Linear(6144, 6144) for _ in range(6)))
    engine, *_ = deepspeed.initialize(model=model, model_parameters=model.parameters(), config=config)
    for _ in range(3):
        engine.backward(engine(torch.ones(1, 6144, device="cuda", dtype=torch.bfloat16)).sum())
        engine.step()


def way_device_assert(_):
    import torch

    table = torch.nn.Embedding(32000, 64, device="cuda")
    table(torch.tensor([17, 32000], device="cuda")).sum().item()


def way_two_devices(_):
    import torch

    torch.nn.Linear(8, 8, device="cuda")(torch.ones(2, 8))


def way_ordinal(_):
    import torch

    torch.cuda.set_device(RANK + 2)  # as if all ranks were on one host


def way_illegal_access(_):
    import torch

    own = torch.zeros(1024, device="cuda")

    class Wild:  # what a library does that hands over a pointer with a wrong shape
        __cuda_array_interface__ = {  # noqa: RUF012 - read once
            "shape": (1 << 36,),
            "typestr": "<f4",
            "version": 3,
            "data": (own.data_ptr(), False),
        }

    torch.as_tensor(Wild(), device="cuda")[1 << 35 : (1 << 35) + 1024].add_(1)
    torch.cuda.synchronize()


def way_nccl_error(_):
    raise ValueError("rank 2 has an empty shard")


def way_nccl_exit(_):
    os._exit(5)


def way_nccl_kill(_):
    os.kill(os.getpid(), signal.SIGKILL)


def way_nccl_leaves(_):
    os._exit(0)


def way_nccl_timeout(_):
    time.sleep(PATIENCE)


def way_gpu_hang(_):
    time.sleep(PATIENCE)


def way_nccl_differ(_):
    import torch
    import torch.distributed as dist

    dist.broadcast(torch.ones(1 << 22, device="cuda"), 0)
    torch.cuda.synchronize()
    time.sleep(PATIENCE)


way_gpu_spin = way_nccl_detail = way_nccl_differ


def way_nccl_interface(_):
    group(60)


def way_same_gpu(_):
    global LOCAL_RANK  # noqa: PLW0603 - what a script does that forgets set_device
    LOCAL_RANK = 0
    group(60)


def way_nccl_of_cpu(_):
    import torch

    group(60).all_reduce(torch.ones(4))


def way_overflow(_):
    import deepspeed
    import torch

    config = {
        "train_micro_batch_size_per_gpu": 1,
        "optimizer": {"type": "Adam", "params": {"torch_adam": True}},
    }
    config |= {"zero_optimization": {"stage": 1}}
    config |= {"fp16": {"enabled": True, "initial_scale_power": 4, "hysteresis": 1, "loss_scale_window": 2}}
    torch.cuda.set_device(LOCAL_RANK)
    model = torch.nn.Linear(64, 64)
    engine, *_ = deepspeed.initialize(model=model, model_parameters=model.parameters(), config=config)
    for step in range(4, 40):
        loss = (engine(torch.full((4, 64), 3e4, device="cuda", dtype=torch.float16)) * 1e4).sum()
        engine.backward(loss)
        engine.step()
        print(f"step {step}/40 loss {loss.item():.3f}", flush=True)
