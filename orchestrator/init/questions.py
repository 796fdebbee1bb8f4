"""All questions, in the order they are asked."""

from __future__ import annotations

from orchestrator.init import about_cluster, about_deepspeed, about_model, about_more, about_training

QUESTIONS = (
    *about_cluster.QUESTIONS,
    *about_training.PROGRAM,
    *about_deepspeed.QUESTIONS,
    *about_more.QUESTIONS,
    *about_training.REST,
    *about_model.QUESTIONS,
)
