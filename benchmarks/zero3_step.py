"""A real but tiny ZeRO-3 training with hpZ, so that a launcher's share shows: `zero3_step.py CONFIG`."""

from __future__ import annotations

import os
import sys
import warnings

import torch
import torch.distributed as dist

# DeepSpeed 0.19.8 compiles three functions of an optimizer (Muon) that is not used here, and so imports
# all of torch's compiler: more than a second on every rank, whichever launcher started it.
torch.compile = lambda function=None, **_: function or (lambda decorated: decorated)

import deepspeed  # noqa: E402

_STEPS = 2
_WIDTH = 64


def main() -> None:
    """Train two steps; rank 0 prints a line a step."""
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch.distributed")
    if not torch.cuda.is_available():
        # DeepSpeed would compile an all-reduce for a single host; gloo does the same work everywhere.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed()
    torch.manual_seed(1)
    with deepspeed.zero.Init(config_dict_or_path=sys.argv[1]):
        layers = [torch.nn.Linear(_WIDTH, _WIDTH) for _ in range(3)]
        model = torch.nn.Sequential(*layers)
    engine, *_ = deepspeed.initialize(model=model, model_parameters=model.parameters(), config=sys.argv[1])
    for step in range(_STEPS):
        loss = engine(torch.ones(1, _WIDTH, device=engine.device)).square().mean()
        engine.backward(loss)
        engine.step()
        if dist.get_rank() == 0:
            print(f"step {step + 1}/{_STEPS} loss {loss.item():.4f}", flush=True)
    dist.destroy_process_group()
    sys.stdout.flush()
    os._exit(0)  # a thread of gloo may still be at work, which aborts Python's own shutdown now and then


if __name__ == "__main__":
    main()
