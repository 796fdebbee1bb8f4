from __future__ import annotations

import pytest

from orchestrator.agent.rank import last_line

CHAINED = """Traceback (most recent call last):
  a
KeyError: 1

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  b
RuntimeError: 2
"""


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
    ],
)
def test_the_line_that_says_why(text, line):
    assert last_line(text) == line
