"""Count the bytes that DeepSpeed's collectives move in one optimizer step, on real gloo ranks.

argv[1] is a JSON list of cases: a `zero_optimization` section, and "g" (accumulation steps), "odd" (a last
layer that needs padding) and "frozen" (every second layer). Rank 0 prints a line for each case with the bytes
of the second optimizer step, {"phase/ranks": bytes}: the first step only records the order of the modules.
"""

import collections
import functools
import inspect
import json
import sys

import torch
import torch.distributed as dist

COUNTED: collections.Counter = collections.Counter()
phase = ""


def count(name, whole, times=1):
    """Wrap a collective of torch.distributed: its argument `whole` has the bytes of all ranks."""
    original = getattr(dist, name)

    @functools.wraps(original)
    def counted(*args, **options):
        given = inspect.signature(original).bind(*args, **options).arguments
        tensor, ranks = given[whole], dist.get_world_size(given.get("group"))
        if tensor.dtype in (torch.bfloat16, torch.int8):  # norms, overflow flags and scales are in fp32
            COUNTED[f"{phase}/{ranks}"] += times * tensor.numel() * tensor.element_size()
        return original(*args, **options)

    setattr(dist, name, counted)


# Before DeepSpeed is imported: it takes the functions over by name.
count("all_gather_into_tensor", "output_tensor")
count("reduce_scatter_tensor", "input")
count("all_reduce", "tensor", times=2)
import deepspeed  # noqa: E402 - as said
from deepspeed.runtime.zero.partition_parameters import CUDAQuantizer  # noqa: E402 - as said

deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # else compiled, for a minute


class Quantizer:
    """In place of DeepSpeed's CUDA kernels: 8 bits, one scale a group."""

    Symmetric = 0

    def quantize(self, tensor, groups, *_):
        rows = tensor.float().view(groups, -1)
        scales = rows.abs().amax(1, keepdim=True).clamp(min=1e-8) / 127
        return (rows / scales).round().to(torch.int8).view(tensor.shape), scales.view(-1)

    def dequantize(self, tensor, scales, *_):
        return (tensor.view(scales.numel(), -1).float() * scales.view(-1, 1)).half().view(tensor.shape)


CUDAQuantizer.quantizer_cuda_module = Quantizer()


def measure(case):
    """Train two optimizer steps and return the bytes of the second."""
    global phase  # noqa: PLW0603 - what the wrapped functions count under
    case = dict(case)
    steps, odd, frozen = (case.pop(name) for name in ("g", "odd", "frozen"))
    config = {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": steps,
        "optimizer": {"type": "AdamW", "params": {"torch_adam": True, "lr": 1e-3}},
        "bf16": {"enabled": True},
        "zero_optimization": case,
    }
    layers = [torch.nn.Linear(256, 256, bias=False) for _ in range(7)]
    last = torch.nn.Linear(256, 255 if odd else 256, bias=odd)  # a bias of 255 does not divide by the ranks
    model = torch.nn.Sequential(*layers, last)
    for layer in model[1::2] if frozen else ():
        layer.requires_grad_(False)
    engine, *_ = deepspeed.initialize(model=model, config=config)
    for _ in range(2):
        COUNTED.clear()
        for _ in range(steps):
            phase = "forward"
            loss = engine(torch.randn(1, 256).bfloat16()).pow(2).mean()
            phase = "backward"
            engine.backward(loss)
            phase = "step"
            engine.step()
    engine.destroy()
    return dict(COUNTED)


deepspeed.init_distributed("gloo")
for case in json.loads(sys.argv[1]):
    found = measure(case)
    if dist.get_rank() == 0:
        print("BYTES", json.dumps(found), flush=True)
dist.destroy_process_group()
