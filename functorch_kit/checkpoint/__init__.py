"""Checkpoints that survive: published whole or not at all, verified before they are believed."""

from functorch_kit.checkpoint.content import Contents as Contents
from functorch_kit.checkpoint.content import read as read
from functorch_kit.checkpoint.errors import CheckpointError as CheckpointError
from functorch_kit.checkpoint.errors import Damaged as Damaged
from functorch_kit.checkpoint.errors import Locked as Locked
from functorch_kit.checkpoint.inspection import Difference as Difference
from functorch_kit.checkpoint.inspection import Leaf as Leaf
from functorch_kit.checkpoint.inspection import compare as compare
from functorch_kit.checkpoint.inspection import leaves_of as leaves_of
from functorch_kit.checkpoint.inspection import status as status
from functorch_kit.checkpoint.lock import Lock as Lock
from functorch_kit.checkpoint.retention import Keep as Keep
from functorch_kit.checkpoint.store import Partial as Partial
from functorch_kit.checkpoint.store import Store as Store

__all__ = [
    "CheckpointError",
    "Contents",
    "Damaged",
    "Difference",
    "Keep",
    "Leaf",
    "Lock",
    "Locked",
    "Partial",
    "Store",
    "compare",
    "leaves_of",
    "read",
    "status",
]
