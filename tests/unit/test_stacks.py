"""Where a rank stands: dumps that were really made (py-spy 0.4.3, faulthandler of Python 3.11 to 3.14)."""

from __future__ import annotations

import pytest

from orchestrator.monitor.stacks import where

LIB = "/usr/lib/python3.11"
SITE = f"{LIB}/site-packages"
HEAD = "# pid 7, state S\n# thread 7 python: in futex_wait of the kernel\nProcess 7: python -u train.py\n"
DATA = f"""{HEAD}Python v3.11.7 (/usr/bin/python3.11)

Thread 9 (idle): "Thread-1 (_monitor)"
    wait ({LIB}/threading.py:331)
    _bootstrap ({LIB}/threading.py:1002)
Thread 7 (idle): "MainThread"
    readinto ({LIB}/socket.py:706)
    read_batch (/home/me/data.py:57)
    <genexpr> (/home/me/train.py:12)
    <module> (/home/me/train.py:31)
"""
REDUCE = f"""{HEAD}
Thread 7 (idle): "MainThread"
    all_reduce ({SITE}/torch/distributed/distributed_c10d.py:3013)
    wrapper ({SITE}/torch/distributed/c10d_logger.py:83)
    main (/home/me/train.py:20)
    <module> (/home/me/train.py:31)
"""
BACKWARD = f"""
Thread 0x7F (active): "MainThread"
    _engine_run_backward ({SITE}/torch/autograd/graph.py:841)
    backward ({SITE}/torch/autograd/__init__.py:347)
    backward ({SITE}/torch/_tensor.py:648)
    step (/home/me/train.py:22)
    <module> (/home/me/train.py:31)
"""
LOADER = f"""
Thread 7 (idle): "MainThread"
    wait ({LIB}/threading.py:331)
    get ({LIB}/queue.py:180)
    _try_get_data ({SITE}/torch/utils/data/dataloader.py:1275)
    __next__ ({SITE}/torch/utils/data/dataloader.py:734)
    <module> (/home/me/train.py:31)
"""
MODULE = f"""
Thread 7 (idle): "MainThread"
    barrier ({SITE}/deepspeed/comm/torch.py:413)
    save_checkpoint ({SITE}/deepspeed/runtime/engine.py:3600)
    <module> ({SITE}/trainer/__main__.py:9)
"""
QUALIFIED = f"""
Thread 7 (idle): "MainThread"
    Work.wait ({SITE}/deepspeed/runtime/comm/handles.py:40)
    Trainer.fit.<locals>.<lambda> (/home/me/my code (old)/train.py:9)
    <module> (/home/me/my code (old)/train.py:31)
"""
IMPORTS = f"""{HEAD}
Thread 7 (active): "MainThread"
    <module> ({SITE}/torch/distributed/c10d_logger.py:9)
    _call_with_frames_removed (<frozen importlib._bootstrap>:241)
    <module> ({SITE}/torch/distributed/__init__.py:150)
    _call_with_frames_removed (<frozen importlib._bootstrap>:241)
    <module> (/home/me/train.py:3)
"""
FAULT = f"""step 3
Fatal Python error: Aborted

Thread 0x00007f1 (most recent call first):
  File "{LIB}/threading.py", line 331 in wait
  File "{LIB}/threading.py", line 1002 in _bootstrap

Current thread 0x00007f2 [python] (most recent call first):
  File "/home/me/my data (old)/data.py", line 57 in read_batch
  File "/home/me/train.py", line 31 in <module>

Extension modules: numpy.core, torch._C (total: 42)
"""


@pytest.mark.parametrize(
    ("text", "place", "waiting", "inner"),
    [
        (DATA, "data.py:57 read_batch", False, "socket.py:706 readinto"),
        (REDUCE, "train.py:20 main", True, "distributed_c10d.py:3013 all_reduce"),
        (BACKWARD, "train.py:22 step", True, "graph.py:841 _engine_run_backward"),
        (LOADER, "train.py:31 <module>", False, "threading.py:331 wait"),
        (MODULE, "torch.py:413 barrier", True, ""),
        (QUALIFIED, "train.py:9 Trainer.fit.<locals>.<lambda>", True, "handles.py:40 Work.wait"),
        (FAULT, "data.py:57 read_batch", False, ""),
        (IMPORTS, "train.py:3 <module>", False, "c10d_logger.py:9 <module>"),
    ],
)
def test_the_place_is_the_innermost_line_of_the_users_own(text, place, waiting, inner):
    found = where(text)
    assert (str(found), found.waiting, found.inner) == (place, waiting, inner)


@pytest.mark.parametrize(
    ("line", "waiting"),
    [
        ("work.wait()", True),
        ("total += loss.item()", True),
        ("dist.all_reduce(x)", True),
        ("torch.cuda.synchronize()", True),
        ("time.sleep(600)", False),
        ("await_item(x)", False),
        ("return os.read(reader, 1)", False),
    ],
)
def test_a_line_that_waits_in_cpp_is_known_by_its_text(line, waiting):
    stack = 'Thread 7 (idle): "MainThread"\n    main (/t.py:8)\n    <module> (/t.py:9)\n'
    found = where(f"# pid 7, state S\n# line 8: {line}\n{stack}")
    assert (str(found), found.waiting) == ("t.py:8 main", waiting)


def test_the_whole_path_is_kept():
    assert where(DATA).file == "/home/me/data.py"
    assert where(FAULT).file == "/home/me/my data (old)/data.py"


@pytest.mark.parametrize("text", ["", "step 3 (loss:12)\n", HEAD, "Fatal Python error: Aborted\n", "\0\xff("])
def test_without_a_stack_there_is_no_place(text):
    assert where(text) is None
