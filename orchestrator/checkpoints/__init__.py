"""Checkpoints on disk: which there are, which of them a run can go on from, and which may go.

Nothing here imports torch and no pickle is ever loaded: the supervisor asks between two attempts, about
folders of thousands of shards, and a checkpoint is somebody else's data. Only the programs in `gather/` and
`converter/` load one, each in a process of its own: for the weights, and for other ranks than saved it.
"""

from orchestrator.checkpoints.find import Latest, Sighting, last_complete, latest, sightings, tags
from orchestrator.checkpoints.tag import Kind, Tag

__all__ = ["Kind", "Latest", "Sighting", "Tag", "last_complete", "latest", "sightings", "tags"]
