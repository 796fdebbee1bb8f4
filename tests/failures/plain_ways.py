"""Ways to fail that need no torch; each takes the script's arguments."""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
import sys
from pathlib import Path

RANK = int(os.environ.get("RANK", "0"))


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


def way_cgroup(_):
    """Be killed by the kernel, out of the memory of a cgroup (version 1; root's)."""
    folder = Path("/sys/fs/cgroup/memory/orchestrate-failure")
    folder.mkdir(exist_ok=True)
    (folder / "memory.limit_in_bytes").write_text(str(200 << 20))
    (folder / "cgroup.procs").write_text(str(os.getpid()))
    print(len([b"x" * (10 << 20) for _ in range(100)]))


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
