from __future__ import annotations

import pytest

from orchestrator.agent.last_words import last_line

CHAINED = """Traceback (most recent call last):
  a
KeyError: 1

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  b
RuntimeError: 2
"""
PREFIXED = """[rank1]: Traceback (most recent call last):
[rank1]:   File "train.py", line 3, in <module>
[rank1]: ValueError: bad
[rank1]:[W1121 17:00:00.1 ProcessGroupNCCL.cpp:1250] Warning: destroy_process_group() was not called
"""
TAKEN_DOWN = """Traceback (most recent call last):
  File "builder.py", line 60, in assert_no_cuda_mismatch
Exception: Installed CUDA version 11.0 does not match
Exception ignored in: <function DeepSpeedCPUAdam.__del__ at 0x7f30>
Traceback (most recent call last):
  File "cpu_adam.py", line 91, in __del__
AttributeError: 'DeepSpeedCPUAdam' object has no attribute 'ds_opt_adam'
"""
WATCHDOG = """terminate called after throwing an instance of 'c10::DistBackendError'
  what():  [Rank 3] Watchdog caught collective operation timeout
Exception raised from checkTimeout at ProcessGroupNCCL.cpp:607 (most recent call first):
frame #0: c10::Error::Error(c10::SourceLocation) + 0x57 (0x7f12 in libc10.so)
"""
ABORT = """terminate called without an active exception
Fatal Python error: Aborted

Thread 0x00007f31581f3b80 (most recent call first):
  <no Python frame>

Extension modules: numpy._core._multiarray_umath, torch._C (total: 2)
"""
ELSEWHERE = ABORT.replace("<no Python frame>", 'File "train.py", line 3 in step')


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", ""),
        ("\n \n", ""),
        ("one\ntwo\n\n", "two"),
        (
            "Traceback (most recent call last):\n  File\n    x()\nValueError: bad\nW0 noise after\n",
            "ValueError: bad",
        ),
        (
            CHAINED,
            "RuntimeError: 2",
        ),
        ("Traceback (most recent call last):\n  File cut off", "  File cut off"),
        ("x" * 600, "x" * 500),
        (PREFIXED, "ValueError: bad"),
        ("[W1121 18:06:23.5 socket.cpp:207] [c10d] The hostname of the client cannot be retrieved\n", ""),
        ("[E1 x] Watchdog\nhost:1:2 [3] NCCL INFO No plugin found\n", "[E1 x] Watchdog"),
        (TAKEN_DOWN, "Exception: Installed CUDA version 11.0 does not match"),
        (WATCHDOG, "[Rank 3] Watchdog caught collective operation timeout"),
        (
            'Fatal Python error: Segmentation fault\n\nCurrent thread 0x00 (most recent):\n  File "x"\n',
            "Fatal Python error: Segmentation fault",
        ),
        ("error: no such model\n" + ABORT, "error: no such model"),
        ("[W1121 17:00:00.1 x.cpp:1] Warning\n" + ABORT, "Fatal Python error: Aborted"),
        (ABORT, "Fatal Python error: Aborted"),
        ("loading\n" + ELSEWHERE, "Fatal Python error: Aborted"),
        ("loading\n" + ABORT + ELSEWHERE, "Fatal Python error: Aborted"),
        (PREFIXED + ABORT, "ValueError: bad"),
        ("bad\n[W1121 17:00:00.1 x.cpp:1] Warning: destroy_process_group() was not called\n", "bad"),
    ],
)
def test_the_line_that_says_why(text, line):
    assert last_line(text) == line
