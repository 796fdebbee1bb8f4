"""A job whose plan has something to say of everything: its model, and its text."""

from __future__ import annotations

from typing import Any

MODEL: dict[str, Any] = {
    "parameters": "7B",
    "hidden_size": 4096,
    "layers": 32,
    "vocabulary": 32000,
    "sequence_length": 2048,
}
JOB = """\
# our first job
cluster: {backend: local, nodes: 2, slots: 4}
train: {script: train.py}
deepspeed:
  zero_stage: 3   # weights too
  micro_batch_per_gpu: 2
  gradient_accumulation_steps: 4
  precision: bf16
"""
HARDWARE = "hardware: {gpu: H100-80GB, link: 10Gbit/s, host_memory: 1TB}\n"
