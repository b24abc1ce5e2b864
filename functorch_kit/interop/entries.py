"""Rows of a table for whole layers: what PyTorch calls their tensors, and where ours stand."""

from __future__ import annotations

import numpy as np

from functorch_kit.interop.layouts import CONVOLUTION, SAME, TRANSPOSED, Layout
from functorch_kit.interop.table import Entry

Entries = tuple[Entry, ...]
COUNTER = "*num_batches_tracked"
"""What PyTorch keeps beside running statistics."""
RESNET_BLOCKS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
    200: (3, 24, 36, 3),
}
"""Depth -> blocks of each stage."""


def dense(theirs: str, ours: str, *, use_bias: bool = True, layout: Layout = TRANSPOSED) -> Entries:
    """A ``Linear``.

    Args:
        theirs: name of the layer there.
        ours: its path here.
        use_bias: whether it has one.
        layout: of its matrix.

    Example:
        >>> [(entry.theirs, entry.ours) for entry in dense("fc", "head")]
        [('fc.weight', ('params/head/kernel',)), ('fc.bias', ('params/head/bias',))]
    """
    rows = (Entry(f"{theirs}.weight", (f"params/{ours}/kernel",), layout),)
    return rows + (Entry(f"{theirs}.bias", (f"params/{ours}/bias",)),) * use_bias


def convolution(theirs: str, ours: str, *, use_bias: bool = False) -> Entries:
    """A ``Conv2d``; most have no bias, because a norm follows.

    Example:
        >>> convolution("conv1", "stem/conv")[0].ours
        ('params/stem/conv/kernel',)
    """
    return dense(theirs, ours, use_bias=use_bias, layout=CONVOLUTION)


def norm(theirs: str, ours: str, *, use_bias: bool = True) -> Entries:
    """A ``LayerNorm``, or an ``RMSNorm`` without a bias.

    Example:
        >>> [entry.theirs for entry in norm("ln_f", "norm")]
        ['ln_f.weight', 'ln_f.bias']
    """
    rows = (Entry(f"{theirs}.weight", (f"params/{ours}/scale",)),)
    return rows + (Entry(f"{theirs}.bias", (f"params/{ours}/bias",)),) * use_bias


def batch_norm(theirs: str, ours: str) -> Entries:
    """A ``BatchNorm2d``: its running statistics are model_state.

    Example:
        >>> batch_norm("bn1", "stem/norm")[2]
        Entry(theirs='bn1.running_mean', ours=('model_state/stem/norm/mean',), layout=...)
    """
    return (
        *norm(theirs, ours),
        Entry(f"{theirs}.running_mean", (f"model_state/{ours}/mean",)),
        Entry(f"{theirs}.running_var", (f"model_state/{ours}/var",)),
    )


def embedding(theirs: str, ours: str, layout: Layout = SAME) -> Entries:
    """A table of vectors.

    Example:
        >>> embedding("wte", "token")[0].ours
        ('params/token/embedding',)
    """
    return (Entry(f"{theirs}.weight", (f"params/{ours}/embedding",), layout),)


def counters(entries: Entries) -> dict[str, np.ndarray]:
    """What PyTorch keeps beside running statistics, and needs only where momentum is None.

    Example:
        >>> counters(batch_norm("bn1", "norm"))
        {'bn1.num_batches_tracked': array(0)}
    """
    means = [each.theirs for each in entries if each.theirs.endswith(".running_mean")]
    names = [name.removesuffix("running_mean") + "num_batches_tracked" for name in means]
    return {name: np.array(0, np.int64) for name in names}
