"""Function transforms beyond one gradient: each adds a choice, a memory bound, or a proof."""

from functorch_kit.transforms.errors import TransformError

__all__ = [
    "TransformError",
]
