"""Data: ``batch = pipeline(step)``, a pure function of (seed, step)."""

from functorch_kit.data.arrays import arrays, npz
from functorch_kit.data.digits import digits
from functorch_kit.data.order import Order, Sequential, Shuffled, permuted
from functorch_kit.data.packing import Packed, PackingIndex, documents, pack
from functorch_kit.data.pipeline import Data, DataError, Pipeline, evaluation, training
from functorch_kit.data.spirals import spirals
from functorch_kit.data.split import stratified_split
from functorch_kit.data.synthetic import gaussian, synthetic_images
from functorch_kit.data.text import Characters, text
from functorch_kit.data.windows import Windows

__all__ = [
    "Characters",
    "Data",
    "DataError",
    "Order",
    "Packed",
    "PackingIndex",
    "Pipeline",
    "Sequential",
    "Shuffled",
    "Windows",
    "arrays",
    "digits",
    "documents",
    "evaluation",
    "gaussian",
    "npz",
    "pack",
    "permuted",
    "spirals",
    "stratified_split",
    "synthetic_images",
    "text",
    "training",
]
