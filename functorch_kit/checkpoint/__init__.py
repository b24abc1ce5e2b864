"""Checkpoints that survive: published whole or not at all, verified before they are believed."""

from functorch_kit.checkpoint.content import read as read
from functorch_kit.checkpoint.errors import CheckpointError as CheckpointError
from functorch_kit.checkpoint.store import Store as Store

__all__ = ["CheckpointError", "Store", "read"]
