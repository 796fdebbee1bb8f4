"""Rules about the arithmetic of forward and backward, and whether device and model go with it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from orchestrator.errors import Problem
from orchestrator.rules.facts import rule

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orchestrator.rules.facts import Facts

_AMPERE, _VOLTA = 8.0, 7.0  # compute capabilities
# T5 and its kin were pretrained in bf16: their activations leave fp16's range.
_PRETRAINED_IN_BF16 = re.compile(
    r"(?:^|[/_-])(?:m?t0(?:pp?)?|(?:m|um|by|long)?t5|ul2)(?=$|[/_.-])", re.IGNORECASE
)


@rule("two-precisions", "error")
def two_precisions(facts: Facts) -> Iterator[Problem]:
    """Fp16 and bf16 cannot both be on.

    Source: `runtime/config.py` asserts it.
    """
    other = [name for name in ("bf16", "bfloat16") if facts.get(name, "enabled") is True]
    if facts.get("fp16", "enabled") is True and other:
        where = facts.where("precision", "fp16", "enabled")
        yield Problem("fp16 and bf16 are both enabled", where, None, "enable one of them")


@rule("fp16-on-cpu", "error", guess=lambda facts: facts.fp16_on_cpu is None)
def fp16_on_cpu(facts: Facts) -> Iterator[Problem]:
    """CPUs compute in fp16 only if they have AVX512-FP16.

    Source: `accelerator/cpu_accelerator.py`, `is_fp16_supported` (oneDNN's answer); else `runtime/engine.py`
    raises "Type fp16 is not supported on your device".
    """
    if facts.device == "cpu" and facts.precision == "fp16" and not facts.fp16_on_cpu:
        fix = facts.arithmetic("bf16", "fp32")
        yield Problem("CPUs without AVX512-FP16 do not train in fp16", _where(facts, "fp16"), "fp16", fix)


@rule("fp16-old-gpu", "error")
def fp16_old_gpu(facts: Facts) -> Iterator[Problem]:
    """Fp16 needs a GPU of compute capability 7.0.

    Source: `accelerator/cuda_accelerator.py`, `is_fp16_supported`; 6.x with DS_ALLOW_DEPRECATED_FP16=1.
    """
    capability = facts.compute_capability
    allowed = facts.spec.train.env.get("DS_ALLOW_DEPRECATED_FP16") == "1"
    if facts.precision != "fp16" or capability is None or capability >= _VOLTA:
        return
    if capability < 6 or not allowed:
        what = f"DeepSpeed does not train in fp16 on GPUs of compute capability {capability}"
        fix = facts.arithmetic("fp32")
        if capability >= 6:
            fix += ", or DS_ALLOW_DEPRECATED_FP16: 1 in train.env"
        yield Problem(what, _where(facts, "fp16"), "fp16", fix)


@rule("bf16-before-ampere", "warning")
def bf16_before_ampere(facts: Facts) -> Iterator[Problem]:
    """GPUs before Ampere (compute capability 8.0) have no bf16 arithmetic.

    Source: DeepSpeed asks `torch.cuda.is_bf16_supported()`, which says yes where bf16 can only be emulated.
    """
    capability = facts.compute_capability
    if facts.precision == "bf16" and capability is not None and capability < _AMPERE:
        what = f"GPUs of compute capability {capability} have no bf16 arithmetic and emulate it, slowly"
        fix = facts.arithmetic("fp16")
        fix += " unless the model was pretrained in bf16, or use GPUs from A100 on"
        yield Problem(what, _where(facts, "bf16"), "bf16", fix)


@rule("fp16-pretrained-in-bf16", "warning")
def fp16_pretrained_in_bf16(facts: Facts) -> Iterator[Problem]:
    """Models that were pretrained in bf16 overflow in fp16.

    Source: the ZeRO-Inference script of Transformers' documentation: fp16 works "for non-bf16 pretrained
    models - e.g. all official t5 models are bf16-pretrained".
    """
    if facts.precision != "fp16":
        return
    model = facts.spec.model
    name = str(model.config) if model and model.config else ""
    said = facts.pretrained_in or (model.pretrained_in if model else None)
    if said == "bf16" or (said is None and _PRETRAINED_IN_BF16.search(name)):
        what = "the model was pretrained in bf16, and its activations can leave the range of fp16"
        fix = f"{facts.arithmetic('bf16', 'fp32')}; bf16 from A100 on"
        yield Problem(what, _where(facts, "fp16"), name or "fp16", fix)


@rule("fp16-settings-unused", "warning")
def fp16_settings_unused(facts: Facts) -> Iterator[Problem]:
    """Loss scaling is for fp16 alone.

    Source: `runtime/config.py`: the section fp16 is read only where it is enabled.
    """
    section = facts.spec.deepspeed
    given = section is not None and section.fp16 is not None
    if given and facts.precision in ("bf16", "fp32"):
        what = f"does nothing with precision {facts.precision}"
        yield Problem(what, "deepspeed.fp16", None, "remove it, or set precision: fp16")


def _where(facts: Facts, section: str) -> str:
    return facts.where("precision", section, "enabled")
