"""What scripts and frameworks call the figures of a step, and what `metrics.jsonl` calls them."""

from __future__ import annotations

import re

_SAME = {
    "loss": "loss train_loss training_loss lm_loss train_lm_loss loss_train global_avg_loss "
    "loss_metrics_global_avg_loss",
    "eval_loss": "eval_loss val_loss valid_loss validation_loss test_loss loss_eval held_out_loss",
    "learning_rate": "lr learning_rate last_lr train_lr train_learning_rate",
    "grad_norm": "grad_norm gradient_norm gnorm global_grad_norm train_grad_norm",
    "tokens_per_second": "tokens_s tok_s tokens_sec tok_sec tokens_per_second tokens_per_sec tps wps "
    "train_tokens_per_second",
    "samples_per_second": "samples_s samples_sec samples_per_second samples_per_sec examples_s "
    "examples_sec examples_per_second currsamplespersec seq_s",
    "step_time": "step_time time_per_step iter_time iteration_time elapsed_time_per_iteration step_seconds "
    "s_step seconds_per_step sec_step time_step train_step_time",
    "tflops": "tflops tflop_s tflops_gpu throughput_per_gpu tflops_per_gpu model_tflops",
    "mfu": "mfu model_flops_utilization",
    "loss_scale": "loss_scale grad_scale scale",
    "epoch": "epoch",
}
KNOWN = {word: name for name, words in _SAME.items() for word in words.split()}
STEPS = frozenset({"step", "steps", "global_step", "iteration", "iter", "num_updates", "trainer_global_step"})
"""Names under which a JSON line gives its step."""
_OTHER = re.compile(r"[^a-z0-9]+")


def plain(name: str) -> str:
    """Return a name in lower case, with `_` for whatever is neither a letter nor a digit."""
    return _OTHER.sub("_", name.lower()).strip("_")


def figure(name: str, value: float, unit: str) -> tuple[str, float]:
    """Return a value under its own name in `metrics.jsonl`, in its unit there.

    Args:
        name: as the line has it: `elapsed time per iteration (ms)`, `tokens/s`, `train/loss`.
        value: the number.
        unit: what follows the number: `ms`, `s`, `%` or nothing.
    """
    short = plain(re.sub(r"\(.*?\)", "", name))
    known = KNOWN.get(short, short)
    if short == "time" and unit in {"s", "ms"}:  # nanoGPT: "iter 100: loss 2.3, time 123.4ms"
        known = "step_time"
    if known == "step_time" and (unit == "ms" or "(ms)" in name or name.endswith("_ms")):
        value /= 1000
    if known == "mfu" and unit == "%":
        value /= 100
    return known, float(f"{value:.13g}")  # 0.1234, not 0.12340000000000001
