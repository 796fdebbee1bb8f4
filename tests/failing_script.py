"""Fail in a given way on one rank, or on all, for the corpus of captured failures.

Before it fails a rank writes the time into `order-RANK`, which tells afterwards who was first.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

RANK, WORLD = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
PATIENCE = 120


def parsed():
    parser = argparse.ArgumentParser(prog="train.py")
    parser.add_argument("way")
    parser.add_argument("--rank", type=int, default=2)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=3)
    if "arguments" in sys.argv:
        sys.argv.append("--learning-rat=3e-4")
    return parser.parse_args()


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


# -- ways without torch


def way_import(_):
    import flash_attn_interface  # noqa: F401


def way_import_name(_):
    from json import JSONDecoderError  # noqa: F401


def way_assertion(_):
    shape = (4, 2048)
    assert shape[1] <= 1024, f"sequence of {shape[1]} tokens, the model takes 1024"


def way_value(_):
    raise ValueError("a document without tokens: shard-00017.bin, entry 3")


def way_key(_):
    {"input_ids": 1}["labels"]


def way_nan(_):
    raise RuntimeError("loss is nan at step 3, stopping")


def way_silent(_):
    os._exit(3)


def way_disk(args):
    with (args.folder / "small/samples.txt").open("w") as file:
        for _ in range(1000):
            file.write("x" * 100_000)


def way_file_size(args):
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    with (args.folder / "big.txt").open("w") as file:
        for _ in range(100):
            file.write("x" * 100_000)


def way_permission(_):
    Path("/sys/kernel/notes").write_text("x")


def way_read_only(args):
    (args.folder / "readonly/x").write_text("x")


def way_missing(_):
    Path("data/train-00000-of-00004.parquet").read_bytes()


def way_port(_):
    first = socket.create_server(("127.0.0.1", 0))
    socket.create_server(first.getsockname())


def way_refused(_):
    taken = socket.create_server(("127.0.0.1", 0))
    address = taken.getsockname()
    taken.close()
    socket.create_connection(address)


def way_files(_):
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    print([Path("/dev/null").open() for _ in range(100)])  # noqa: SIM115 - to have too many of them


def way_memory(_):
    resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
    bytearray(8 << 30)


def way_kill(_):
    os.kill(os.getpid(), signal.SIGKILL)


def way_term(_):
    os.kill(os.getpid(), signal.SIGTERM)


def way_segv(_):
    import ctypes
    import faulthandler

    faulthandler.enable()
    ctypes.string_at(0)


def way_segv_silent(_):
    import ctypes

    ctypes.string_at(0)


def way_abort(_):
    import ctypes

    libc = ctypes.CDLL(None)
    pointer = ctypes.c_void_p(libc.malloc(64))
    libc.free(ctypes.c_void_p(pointer.value + 8))


def way_thread(_):
    import threading

    def work():
        raise OSError(28, "No space left on device", "/scratch/cache/arrow-3.tmp")

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    raise RuntimeError("the writer thread has died")


def way_chain(_):
    try:
        Path("/data/tokens.bin").read_bytes()
    except FileNotFoundError as error:
        raise RuntimeError("the data set cannot be opened") from error


def way_caught(_):
    import traceback

    try:
        bytearray(1 << 60)
    except MemoryError:
        traceback.print_exc()
    print("batch halved, going on", flush=True)
    raise TypeError("unsupported operand type(s) for +: 'NoneType' and 'int'")


def way_symbol(args):
    source, library = args.folder / f"op{RANK}.c", args.folder / f"fused_op{RANK}.so"
    source.write_text("extern int at_of_another_torch(void); int run(void) { return at_of_another_torch(); }")
    subprocess.run(["cc", "-shared", "-fPIC", "-Wl,-z,now", "-o", library, source], check=True)
    import ctypes

    ctypes.CDLL(str(library))


def way_exception_at_exit(_):
    class Adam:
        def __del__(self):
            self.gone.destroy()

    adam = Adam()
    sys.held = adam
    raise OSError(5, "Input/output error", "/data/shard-3.bin")


def way_bar(_):
    for done in range(0, 100, 5):
        print(
            f"\r{done}%|{'#' * (done // 10)}| {done}/100 [00:{done}<01:00, 1.0it/s]", end="", file=sys.stderr
        )
    raise ZeroDivisionError("integer division or modulo by zero")


# -- ways with torch


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


# -- ways together


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


COLLECTIVE = {"peer_exit", "peer_error", "leaves"}
WAITED_FOR = {"sleeps", "sleeps_long"}
ALL = {
    "alone",
    "arguments",
    "batch",
    "optimizer",
    "typo",
    "ds_checkpoint",
    "fp16",
    "cpu_adam",
    "store",
}


def others(args):
    if args.way in COLLECTIVE or args.way in WAITED_FOR:
        reduce(4 if args.way == "sleeps" else 600)
    time.sleep(PATIENCE)


def note_time(args):
    path = args.folder / f"order-{RANK}"
    path.write_text(json.dumps(time.time()))


def main():
    args = parsed()
    for step in range(1, args.steps + 1):
        print(f"step {step}/{args.steps} loss {3.2 - step / 10:.3f} tokens/s 8192", flush=True)
    if args.way == "store":
        os.environ["MASTER_PORT"] = "1"
        group(5)
    if args.way == "barrier":
        together = group(60)
        if args.rank != RANK:
            together.monitored_barrier(timeout=timedelta(seconds=4))
        time.sleep(PATIENCE)
    if args.rank != RANK and args.way not in ALL:
        if args.way in WAITED_FOR | COLLECTIVE:
            others(args)
        time.sleep(PATIENCE)
    if args.way in COLLECTIVE | WAITED_FOR:
        group(60)
        time.sleep(2)
    note_time(args)
    try:
        globals()[f"way_{args.way}"](args)
    except BaseException:
        note_time(args)
        raise


if __name__ == "__main__":
    main()
