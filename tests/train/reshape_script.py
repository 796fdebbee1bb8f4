"""A small training whose data do not depend on the number of ranks; it prints its loss with all its digits.

Its optimizer has two parameter groups and its model a buffer: both are what a universal checkpoint may lose.
"""

from __future__ import annotations

import json
import sys

import deepspeed
import torch
import torch.distributed as dist

BATCH, WIDTH = 8, 33  # a width that no number of ranks divides

stage, ranks_of_hpz, steps, folder, tag = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:6]
deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
deepspeed.init_distributed()
world, rank = dist.get_world_size(), dist.get_rank()
config = {
    "train_batch_size": BATCH,
    "gradient_accumulation_steps": 1,
    "gradient_clipping": 1.0,
    "bf16": {"enabled": True},
    "zero_optimization": {"stage": stage},
    "scheduler": {"type": "WarmupLR", "params": {"warmup_max_lr": 1e-2, "warmup_num_steps": 20}},
    "checkpoint": {"load_universal": tag.endswith("_universal")},
}
if stage == 3:
    more = {"stage3_param_persistence_threshold": 50, "zero_hpz_partition_size": ranks_of_hpz}
    config["zero_optimization"] |= more


class Model(torch.nn.Module):
    """Two layers, and a count of its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Linear(WIDTH, 47)
        self.last = torch.nn.Linear(47, 7)
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Return what it makes of some rows."""
        self.calls += 1
        return self.last(torch.relu(self.first(rows)))


torch.manual_seed(int(tag != "none"))  # a resumed run begins with other weights: it must load all of them
with deepspeed.zero.Init(config_dict_or_path=config, enabled=stage == 3):
    model = Model()
named = dict(model.named_parameters())
groups = [
    {"params": [named["first.weight"], named["last.weight"]], "weight_decay": 0.5},
    {"params": [named["first.bias"], named["last.bias"]], "weight_decay": 0.0},
]
engine, *_ = deepspeed.initialize(model=model, optimizer=torch.optim.AdamW(groups, lr=1e-2), config=config)
first = 0
if tag != "none":
    first = engine.load_checkpoint(folder, tag=tag)[1]["step"]
truth = torch.randn(WIDTH, 7, generator=torch.Generator().manual_seed(5))
losses = {}
for step in range(first, steps):
    rows = torch.stack(
        [
            torch.randn(WIDTH, generator=torch.Generator().manual_seed(step * BATCH + index))
            for index in range(rank * BATCH // world, (rank + 1) * BATCH // world)
        ]
    )
    loss = (engine(rows.bfloat16()).float() - rows @ truth).pow(2).mean()
    engine.backward(loss)
    engine.step()
    total = loss.detach().clone()
    dist.all_reduce(total)
    losses[step + 1] = total.item() / world
    if step + 1 == steps // 2 and tag == "none":
        engine.save_checkpoint(folder, client_state={"step": step + 1})
if rank == 0:
    told = {
        "losses": losses,
        "decay": [group["weight_decay"] for group in engine.optimizer.param_groups],
        "calls": dict(model.named_buffers())["calls"].item(),
        "steps": engine.global_steps,
        "rate": engine.get_lr()[0],
    }
    print("TOLD", json.dumps(told), flush=True)
dist.barrier()
