"""Questions about DeepSpeed: stage, offload, ZeRO++, precision and batch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.init import guess
from orchestrator.init.guess import accelerate_value
from orchestrator.init.question import YES_NO, YES_OR_NOTHING, Choice, Question, always, answered

if TYPE_CHECKING:
    from orchestrator.init.machine import Machine
    from orchestrator.init.question import Answers, Find

_ZERO, _PLUS, _BATCH = "DeepSpeed", "ZeRO++", "Precision and batch"
_HOW = (
    Choice("fields", "answers to the next questions", "They become the section deepspeed of the job file."),
    Choice(
        "file",
        "a DeepSpeed JSON file",
        "One that you have; fields of the job file can fill what it calls auto.",
    ),
    Choice("none", "no DeepSpeed", "The script brings its own, or does without: torchrun alone."),
)
_STAGES = (
    Choice(0, "0", "ZeRO is off: every rank holds everything."),
    Choice(1, "1", "Optimizer states are cut up over the ranks."),
    Choice(2, "2", "Optimizer states and gradients are cut up; as fast as stage 1, with less memory."),
    Choice(
        3,
        "3",
        "The weights too: for models that do not fit into one GPU. Ranks gather each layer as they use it.",
    ),
)
_DEVICES = (
    Choice("none", "none", "Everything stays on the GPU: the fastest."),
    Choice("cpu", "cpu", "In the host's memory: less of the GPU's, more traffic over PCIe."),
    Choice("nvme", "nvme", "On a fast local disk of each host (stage 3): the least memory, the slowest."),
)
_HPZ = (
    Choice(
        "node",
        "node",
        "Each host keeps a whole second copy, cut up over its own ranks: 2 bytes a weight and host.",
    ),
    Choice(None, "off", "Backward gathers weights from all hosts again."),
)
_PRECISIONS = (
    Choice(
        "bf16", "bf16", "16 bits with the range of fp32: GPUs from Ampere on (A100, H100, RTX 30), and CPUs."
    ),
    Choice(
        "fp16",
        "fp16",
        "16 bits with loss scaling: any GPU, no CPU. Models pretrained in bf16 (T5, T0) overflow.",
    ),
    Choice("fp32", "fp32", "32 bits: twice the memory, several times slower on GPUs."),
)
_BATCHES = (
    Choice(
        "steps", "forward passes in one optimizer step", "Gradient accumulation; the global batch follows."
    ),
    Choice("global", "the global batch", "Samples of all ranks in one step; accumulation follows."),
)


def _zeropp(answers: Answers, machine: Machine) -> bool:
    """ZeRO++ is for stage 3 on several hosts; elsewhere DeepSpeed ignores it or gains nothing."""
    return answers.get("deepspeed.zero_stage") == 3 and guess.several_hosts(answers, machine)


def _quantizes(answers: Answers, machine: Machine) -> bool:
    return _zeropp(answers, machine) and not guess.without_gpus(answers, machine)


def _hpz(answers: Answers, machine: Machine) -> str | None:
    """Return hpZ unless a host has one rank, or parameters are offloaded: with those it saves nothing."""
    offloaded = answers.get("deepspeed.offload_param", "none") != "none"
    return None if offloaded or guess.shape(answers, machine)[1] == 1 else "node"


def _global_batch(answers: Answers, machine: Machine) -> int | None:
    nodes, slots = guess.shape(answers, machine)
    return guess.whole(answers["deepspeed.micro_batch_per_gpu"]) * nodes * slots or None


def _offload_devices(answers: Answers, _machine: Machine) -> tuple[Choice, ...]:
    return _DEVICES if answers["deepspeed.zero_stage"] == 3 else _DEVICES[:2]


def _device(name: str) -> Find:
    known = accelerate_value(name, "none")
    return lambda answers, machine: (
        found
        if (found := known(answers, machine)) != "nvme" or answers["deepspeed.zero_stage"] == 3
        else "cpu"
    )


QUESTIONS = (
    Question(
        "ask.deepspeed",
        _ZERO,
        "What configures DeepSpeed?",
        "Its configuration can be made from the next answers, or taken from a file.",
        "choice",
        choices=lambda answers, _machine: _HOW[:2] if answers["train.launcher"] == "accelerate" else _HOW,
        default=lambda _answers, machine: "file" if machine.ds_configs else "fields",
        needed=True,
    ),
    Question(
        "deepspeed.config_file",
        _ZERO,
        "Which file?",
        "DeepSpeed's JSON; a relative path starts at the job file's folder.",
        default=lambda _answers, machine: machine.ds_configs[0] if machine.ds_configs else "ds_config.json",
        when=answered("ask.deepspeed", "file"),
        needed=True,
    ),
    Question(
        "deepspeed.zero_stage",
        _ZERO,
        "Which ZeRO stage?",
        "What is cut up over the ranks in place of being held by each.",
        "choice",
        choices=always(_STAGES),
        default=lambda answers, machine: accelerate_value(
            "zero_stage", 3 if guess.several_hosts(answers, machine) else 2
        )(answers, machine),
        when=answered("ask.deepspeed", "fields"),
        needed=True,
    ),
    Question(
        "deepspeed.offload_optimizer",
        _ZERO,
        "Where do optimizer states live?",
        "Off the GPU they leave room for weights and activations, and the step is computed by the CPU.",
        "choice",
        choices=_offload_devices,
        default=_device("offload_optimizer_device"),
        when=answered("deepspeed.zero_stage", 1, 2, 3),
        needed=True,
    ),
    Question(
        "deepspeed.offload_optimizer_nvme_path",
        _ZERO,
        "In which folder?",
        "A local disk of each host, the same path on all of them; an NVMe one, or it will be slow.",
        default=accelerate_value("offload_optimizer_nvme_path", "/local_nvme"),
        when=answered("deepspeed.offload_optimizer", "nvme"),
        needed=True,
    ),
    Question(
        "deepspeed.offload_param",
        _ZERO,
        "Where do parameters live?",
        "Off the GPU each layer is fetched as it is used: for models that fit in no other way.",
        "choice",
        choices=_offload_devices,
        default=_device("offload_param_device"),
        when=answered("deepspeed.zero_stage", 3),
        needed=True,
    ),
    Question(
        "deepspeed.offload_param_nvme_path",
        _ZERO,
        "In which folder?",
        "A local disk of each host, the same path on all of them.",
        default=accelerate_value("offload_param_nvme_path", "/local_nvme"),
        when=answered("deepspeed.offload_param", "nvme"),
        needed=True,
    ),
    Question(
        "deepspeed.hpz",
        _PLUS,
        "Gather weights inside each host in backward (hpZ)?",
        "Backward then crosses the network no more for weights, which a slow network gains most from.",
        "choice",
        choices=always(_HPZ),
        default=_hpz,
        when=_zeropp,
    ),
    Question(
        "deepspeed.quantized_weights",
        _PLUS,
        "Gather weights in 8 bits (qwZ)?",
        "Half the traffic of weights. It is lossy, and needs CUDA and its compiler on the hosts.",
        "choice",
        choices=YES_OR_NOTHING,
        when=_quantizes,
    ),
    Question(
        "deepspeed.quantized_gradients",
        _PLUS,
        "Reduce gradients in 4 bits (qgZ)?",
        "A quarter of the traffic of gradients. It is lossy, and needs CUDA and its compiler on the hosts.",
        "choice",
        choices=YES_OR_NOTHING,
        when=_quantizes,
    ),
    Question(
        "deepspeed.precision",
        _BATCH,
        "Which arithmetic?",
        "Of forward and backward; the optimizer keeps fp32 copies of 16-bit weights.",
        "choice",
        choices=always(_PRECISIONS),
        default=guess.precision,
        when=answered("ask.deepspeed", "fields"),
        needed=True,
    ),
    Question(
        "deepspeed.micro_batch_per_gpu",
        _BATCH,
        "How many samples has a rank's forward pass?",
        "What the script's DataLoader gives; `orchestrate plan` says what memory it takes.",
        "value",
        default=always(1),
        when=answered("ask.deepspeed", "fields"),
        needed=True,
    ),
    Question(
        "ask.batch",
        _BATCH,
        "What else is given?",
        "Micro-batch, accumulation and ranks make the global batch; two of them fix the third.",
        "choice",
        choices=always(_BATCHES),
        default=always("steps"),
        when=answered("ask.deepspeed", "fields"),
        needed=True,
    ),
    Question(
        "deepspeed.gradient_accumulation_steps",
        _BATCH,
        "How many forward passes has an optimizer step?",
        "With the launcher accelerate it goes before what the script passes to Accelerator().",
        "value",
        default=accelerate_value("gradient_accumulation_steps", 1),
        when=answered("ask.batch", "steps"),
        needed=True,
    ),
    Question(
        "deepspeed.global_batch",
        _BATCH,
        "How many samples has an optimizer step, all ranks together?",
        "A multiple of the micro-batch times the number of ranks.",
        "value",
        default=_global_batch,
        when=answered("ask.batch", "global"),
        needed=True,
    ),
    Question(
        "deepspeed.gradient_clipping",
        _BATCH,
        "What is the largest norm of the gradient?",
        "A larger gradient is scaled down to it; 0 is no limit.",
        "value",
        default=accelerate_value("gradient_clipping", 1.0),
        when=answered("ask.deepspeed", "fields"),
    ),
    Question(
        "ask.more",
        _BATCH,
        "Set what is seldom changed?",
        "DeepSpeed's own optimizer and scheduler, mixture of experts, how stage 3 starts and saves.",
        "choice",
        choices=YES_NO,
        default=always(False),
        when=answered("ask.deepspeed", "fields"),
        needed=True,
    ),
)
