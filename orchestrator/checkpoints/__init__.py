"""Checkpoints on disk: which tags there are, and which of them a run can go on from.

Nothing here imports torch and no pickle is ever loaded: the supervisor asks between two attempts, about
folders of thousands of shards, and a checkpoint is somebody else's data.
"""

from orchestrator.checkpoints.find import Latest, last_complete, latest, tags
from orchestrator.checkpoints.tag import Kind, Tag

__all__ = ["Kind", "Latest", "Tag", "last_complete", "latest", "tags"]
