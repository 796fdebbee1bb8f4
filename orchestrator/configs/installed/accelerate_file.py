"""Take `accelerate.yaml` the way of `accelerate launch`, up to the plugin that each rank makes."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

from .answer import Answer, one_line


def load_accelerate(answer: Answer) -> None:
    """Take accelerate.yaml the way of `accelerate launch`, up to the plugin that each rank makes."""
    from accelerate.commands.config.config_args import (  # noqa: PLC0415 - the program also runs without it
        load_config_from_file,
    )

    try:
        config = load_config_from_file("accelerate.yaml")
        if str(getattr(config, "distributed_type", "")).endswith("DEEPSPEED"):
            _load_plugin(config, answer)
    except ValueError as error:
        _ambiguous(str(error), answer)
    except (AttributeError, ImportError, TypeError) as error:  # another Accelerate's insides, not the files
        print(f"accelerate: {error!r}", file=sys.stderr)


def _load_plugin(config: Any, answer: Answer) -> None:
    """Make the DeepSpeedPlugin of a rank from the environment that `accelerate launch` gives it."""
    from accelerate.commands import launch  # noqa: PLC0415
    from accelerate.utils import DeepSpeedPlugin  # noqa: PLC0415
    from accelerate.utils import launch as environment  # noqa: PLC0415

    parser = launch.launch_command_parser()
    known = set(vars(parser.parse_args(["train.py"])))
    for key in config.deepspeed_config:
        if key not in known:
            answer.drop(f"accelerate.yaml: deepspeed_config.{key}", known)
    flags = ["--machine_rank", "0", "--main_process_ip", "127.0.0.1", "--config_file", "accelerate.yaml"]
    args, defaults, precision_said = launch._validate_launch_command(parser.parse_args([*flags, "train.py"]))  # noqa: SLF001
    fields = [*defaults.deepspeed_config, *(["mixed_precision"] if precision_said else [])]
    args.deepspeed_fields_from_accelerate_config = ",".join(fields)
    environment.is_port_in_use = lambda *_: False  # nothing is started here
    os.environ.update(environment.prepare_deepspeed_cmd_env(args)[1])
    plugin = DeepSpeedPlugin()
    plugin.set_mixed_precision(os.environ.get("ACCELERATE_MIXED_PRECISION", "no"))
    for key in ("offload_optimizer_nvme_path", "offload_param_nvme_path"):
        said = config.deepspeed_config.get(key, "none")
        if said not in (None, "none", getattr(plugin, key)):  # parsed, and not passed on to the ranks
            answer.drop(f"accelerate.yaml: deepspeed_config.{key}", ())


def _ambiguous(words: str, answer: Answer) -> None:
    """Note what Accelerate refuses; where it lists all it could mean, only the keys that are in the file."""
    if "will be ignored" not in words:
        answer.problem(f"Accelerate {answer.accelerate} refuses it: {one_line(words)}", "accelerate.yaml")
        return
    import yaml  # noqa: PLC0415 - Accelerate has it

    said = yaml.safe_load(Path("accelerate.yaml").read_text(encoding="utf-8"))
    keys = {**said, **(said.get("deepspeed_config") or {})}
    both = ", ".join(name for name in re.findall(r"'(\w+)'", words) if name in keys)
    what = f"{both} beside a deepspeed_config_file: Accelerate {answer.accelerate} refuses this in every rank"
    answer.problem(what, "accelerate.yaml", fix="say it in the DeepSpeed file alone")
