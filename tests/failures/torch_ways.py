"""Ways to fail with torch and DeepSpeed, alone and together; each takes the script's arguments."""

from __future__ import annotations

import os
import signal
import time
from datetime import timedelta

RANK = int(os.environ.get("RANK", "0"))
PATIENCE = 120  # seconds that the others would wait


def group(seconds=600):
    import torch.distributed

    torch.distributed.init_process_group("gloo", timeout=timedelta(seconds=seconds))
    return torch.distributed


def reduce(seconds=600):
    import torch

    group(seconds).all_reduce(torch.ones(4))


def engine(**config):
    import deepspeed
    import torch

    base = {
        "train_micro_batch_size_per_gpu": 1,
        "optimizer": {"type": "Adam", "params": {"torch_adam": True}},
    }
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Linear(8, 1))
    made, *_ = deepspeed.initialize(model=model, model_parameters=model.parameters(), config=base | config)
    return made


def way_torch_memory(_):
    import torch

    torch.empty(1 << 46)


def way_torch_save(args):
    import torch

    torch.save({"w": torch.zeros(4 << 20)}, args.folder / "small/weights.pt")


def way_shape(_):
    import torch

    torch.nn.Linear(8, 8)(torch.ones(2, 9))


def way_index(_):
    import torch

    torch.nn.Embedding(10, 4)(torch.tensor([11]))


def way_state_dict(_):
    import torch

    torch.nn.Linear(8, 8).load_state_dict(torch.nn.Linear(8, 9).state_dict())


def way_corrupt(args):
    import torch

    path = args.folder / f"corrupt-{RANK}.pt"
    torch.save({"w": torch.zeros(1000)}, path)
    path.write_bytes(path.read_bytes()[:1500])
    torch.load(path)


def way_worker(_):
    import torch

    class Data(torch.utils.data.Dataset):
        def __len__(self):
            return 8

        def __getitem__(self, index):
            os.kill(os.getpid(), signal.SIGKILL)

    list(torch.utils.data.DataLoader(Data(), num_workers=1))


def way_no_cuda(_):
    import torch

    torch.ones(2, device="cuda:0")


def way_hub(_):
    os.environ |= {"HF_HUB_OFFLINE": "1", "HF_HOME": "/nonexistent-hub"}
    import transformers

    transformers.AutoConfig.from_pretrained("some-company/some-model-7b")


def way_hf_arguments(_):
    import transformers

    parser = transformers.HfArgumentParser(transformers.TrainingArguments)
    parser.parse_args_into_dataclasses(["--output_dir", "x", "--learning_rat", "1e-4"])


def way_peer_exit(_):
    os._exit(5)


def way_peer_error(_):
    raise ValueError("rank 2 has an empty shard")


def way_leaves(_):
    os._exit(0)


def way_sleeps(_):
    time.sleep(PATIENCE)


def way_batch(_):
    engine(train_batch_size=7, gradient_accumulation_steps=2)


def way_optimizer(_):
    engine(zero_optimization={"stage": 3}, optimizer={"type": "NoSuchOptimizer", "params": {}})


def way_typo(_):
    engine(zero_optimization={"stage": 2, "reduce_bucket_size": "many"})


def way_ds_checkpoint(args):
    engine().load_checkpoint(str(args.folder / "nowhere"), tag="step9")


def way_cpu_adam(args):
    fake = args.folder / f"c++-{RANK}"
    fake.write_text(
        '#!/bin/sh\ncase "$1" in -*version) exec c++ "$@";; esac\necho "no Python.h" >&2\nexit 1\n'
    )
    fake.chmod(0o755)
    os.environ |= {"CXX": str(fake), "TORCH_EXTENSIONS_DIR": str(args.folder / f"operators-{RANK}")}
    offload = {"stage": 2, "offload_optimizer": {"device": "cpu"}}
    engine(optimizer={"type": "AdamW", "params": {}}, zero_optimization=offload)


def way_anomaly(_):
    import torch

    with torch.autograd.detect_anomaly():
        value = torch.zeros(1, requires_grad=True)
        (torch.sqrt(value) * 0).sum().backward()


def way_fp16(_):
    engine(fp16={"enabled": True})


def way_alone(_):
    time.sleep(RANK)
    group(60)


def way_peer_wait(_):
    time.sleep(PATIENCE)


way_kill_late = way_sleeps_long = way_peer_wait
