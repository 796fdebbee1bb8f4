"""Every option of the installed tools is known to the importers: mapped, or named with the reason."""

from __future__ import annotations

import argparse
import dataclasses

import pytest

from orchestrator.importing import accelerate_command, deepspeed_command, torchrun_command
from orchestrator.importing.accelerate import known_keys
from orchestrator.importing.options import parse


def deepspeed_parser() -> argparse.ArgumentParser:
    """Return the parser that parse_args makes; it gives out only what it has parsed."""
    from deepspeed.launcher import runner

    made = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", lambda self, args: made.append(self))
        runner.parse_args(["script.py"])
    return made[0]


def torchrun_parser() -> argparse.ArgumentParser:
    from torch.distributed.run import get_args_parser

    return get_args_parser()


def accelerate_parser() -> argparse.ArgumentParser:
    from accelerate.commands.launch import launch_command_parser

    return launch_command_parser()


TOOLS = {
    "deepspeed": (deepspeed_command, deepspeed_parser),
    "torchrun": (torchrun_command, torchrun_parser),
    "accelerate": (accelerate_command, accelerate_parser),
}


@pytest.mark.parametrize("name", TOOLS)
def test_every_option_of_the_installed_tool_is_known(name):
    ours, theirs = TOOLS[name]
    actions = [action for action in theirs()._actions if action.option_strings]
    spelled = {word for action in actions for word in action.option_strings}
    assert spelled - ours.TOOL.options() == set()
    dests = {action.dest for action in actions} - {"help", "tpu_use_cluster"}
    assert {d for d in dests if d not in ours._MAPPED and not ours.TOOL.reason(d)} == set()


@pytest.mark.parametrize("name", TOOLS)
def test_flags_and_values_are_told_apart_as_the_tool_does(name):
    ours, theirs = TOOLS[name]
    flags = {
        word
        for action in theirs()._actions
        if action.nargs == 0
        for word in action.option_strings
        if word not in ("-h", "--help")
    }
    known = {word for spellings in ours.TOOL.flags for word in spellings.split("|")}
    assert known - flags <= {"--use-env", "--use_env", "--elastic_training"}  # of other versions
    assert flags <= known


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("deepspeed", "-H hosts --num_gpus=4 --num_nodes 2 train.py --num_gpus 9"),
        ("deepspeed", "--include=a:0,1@b --master_port 29600 --no_local_rank train.py -i x"),
        ("deepspeed", "--num_acc 3 --module pkg.train -- --a"),
        ("torchrun", "--nnodes=2 --nproc-per-node 8 --rdzv-endpoint=h:1 train.py --nnodes 3"),
        ("torchrun", "--nproc_per_node=gpu --standalone -m pkg.train a b"),
        ("torchrun", "--nproc_per 2 -t 3 train.py"),
        ("accelerate", "--num_processes 8 --num-machines 2 --zero_stage 3 -m pkg.train --zero_stage 1"),
        ("accelerate", "--config_file a.yaml --use_deepspeed train.py --lr 1e-4"),
    ],
)
def test_a_command_line_is_read_as_the_tool_reads_it(name, words):
    ours, theirs = TOOLS[name]
    parser = theirs()
    found, real = parse(ours.TOOL, words.split(), "x"), vars(parser.parse_args(words.split()))
    for key, value in found.options.items():
        assert str(real[key]) == str(value), key
    script = real.get("user_script") or real.get("training_script")
    rest = real.get("user_args") if name == "deepspeed" else real["training_script_args"]
    assert found.words == [script, *rest]


def test_every_key_of_an_accelerate_configuration_is_known():
    from accelerate.commands.config.config_args import ClusterConfig

    fields = {field.name for field in dataclasses.fields(ClusterConfig)} - {"deepspeed_config"}
    assert fields - known_keys() == set()


def test_every_deepspeed_key_that_accelerate_asks_for_is_known():
    """`accelerate config` writes what its launch parser takes in the group of DeepSpeed."""
    groups = [g for g in accelerate_parser()._action_groups if g.title and "deepspeed" in g.title.lower()]
    (group,) = groups
    assert {action.dest for action in group._group_actions} - known_keys() == set()


def test_every_launcher_of_accelerate_is_mapped():
    from accelerate.utils.constants import DEEPSPEED_MULTINODE_LAUNCHERS

    from orchestrator.importing.accelerate_hosts import LAUNCHERS

    assert set(DEEPSPEED_MULTINODE_LAUNCHERS) <= set(LAUNCHERS)
