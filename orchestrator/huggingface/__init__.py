"""A model's size from its Hugging Face configuration, counted by a process that may import torch."""

from orchestrator.huggingface.read import Counting, read_shape, start_count

__all__ = ["Counting", "read_shape", "start_count"]
