"""What `accelerate launch` does before a rank starts, by the steps of its own `launch_command` (1.15)."""

from __future__ import annotations

from typing import Any


def launched(flags: list[str]) -> tuple[dict[str, str], Any]:
    """Return the environment that it would give each rank, and its arguments."""
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser
    from accelerate.utils.launch import prepare_deepspeed_cmd_env

    args = launch_command_parser().parse_args([*flags, "train.py", "--lr", "1e-4"])
    args, defaults, from_file = _validate_launch_command(args)
    assert args.use_deepspeed
    assert not args.cpu
    given = (defaults.deepspeed_config or {}) if defaults is not None else {}
    fields = [*given, *(["mixed_precision"] if from_file else [])]
    args.deepspeed_fields_from_accelerate_config = ",".join(fields)
    return prepare_deepspeed_cmd_env(args)[1], args
