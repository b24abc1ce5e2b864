"""Function transforms beyond one gradient: each adds a choice, a memory bound, or a proof."""

from functorch_kit.transforms import curvature
from functorch_kit.transforms.adapt import Adapted, adapt, hypergradient
from functorch_kit.transforms.clipped import ClippedSum, clipped_grad_sum
from functorch_kit.transforms.ensemble import Ensemble, Members, Prediction, ensemble
from functorch_kit.transforms.errors import TransformError
from functorch_kit.transforms.jacobian import jacobian
from functorch_kit.transforms.lanes import LaneFinding, LaneReport, check_lanes
from functorch_kit.transforms.ntk import Kernel, ntk, ntk_product
from functorch_kit.transforms.per_example import NoiseScale, per_example

__all__ = [
    "Adapted",
    "ClippedSum",
    "Ensemble",
    "Kernel",
    "LaneFinding",
    "LaneReport",
    "Members",
    "NoiseScale",
    "Prediction",
    "TransformError",
    "adapt",
    "check_lanes",
    "clipped_grad_sum",
    "curvature",
    "ensemble",
    "hypergradient",
    "jacobian",
    "ntk",
    "ntk_product",
    "per_example",
]
