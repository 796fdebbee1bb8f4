"""What a shell is told of names that only we know."""

from __future__ import annotations

import pytest
from click.shell_completion import ShellComplete

from orchestrator.cli.main import cli


@pytest.mark.parametrize(
    ("words", "incomplete", "names"),
    [
        (["init", "--from"], "zero3_", ["zero3_nvme", "zero3_offload"]),
        (["check", "--only"], "dis", ["disk"]),
        (["check", "--skip"], "login,li", ["login,limits", "login,links"]),
        (["export"], "a", ["accelerate"]),
        ([], "pl", ["plan"]),
    ],
)
def test_names_are_completed(words, incomplete, names):
    told = ShellComplete(cli, {}, "orchestrate", "_ORCHESTRATE_COMPLETE").get_completions(words, incomplete)
    assert [each.value for each in told] == names
