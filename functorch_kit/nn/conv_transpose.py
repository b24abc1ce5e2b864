"""Transposed convolution: the way back of a convolution, as a layer of its own."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from functorch_kit.nn.conv import LAYOUTS, Padding, explicit_padding, kernel_and_bias, per_axis
from functorch_kit.nn.errors import LayerError
from functorch_kit.nn.linear import Initializer, add_bias, lecun_normal
from functorch_kit.types import Model


def conv_transpose(
    features: int,
    kernel_size: Sequence[int],
    *,
    strides: int | Sequence[int] = 1,
    padding: Padding = "SAME",
    output_padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    use_bias: bool = True,
    kernel_init: Initializer = lecun_normal,
    bias_init: Initializer = jax.nn.initializers.zeros,
) -> Model:
    """Transposed convolution: the linear map that is the gradient of ``conv`` in its input.

    Zeiler et al., 2010. The kernel stands as in PyTorch (``flax.linen.ConvTranspose`` turns it
    around unless ``transpose_kernel=True``).

    Args:
        features: number of output channels.
        kernel_size: one size per spatial axis; its length, 1 to 3, gives their number.
        strides: how many times larger the output is, per spatial axis or one for all.
        padding: what ``conv`` would have padded its input with, and this cuts off: ``"SAME"`` for
            an output of exactly ``strides`` times the input, ``"VALID"`` for all of it, one number
            for both sides of every axis, or (before, after) per axis.
        output_padding: elements added at the end of each axis; below the stride or the dilation.
        dilation: spacing of the kernel's elements per spatial axis, or one for all.
        groups: channels are cut in this many groups that do not see each other.
        use_bias: whether there is a ``bias`` (features,).
        kernel_init: initialiser of ``kernel`` (*kernel_size, channels / groups, features).
        bias_init: initialiser of ``bias``.

    Returns:
        A Model from (batch, *space, channels) to (batch, *space', features).

    Raises:
        LayerError: a kernel of no or more than three axes, channels or features that the groups do
            not divide, an ``output_padding`` too large or beside ``"SAME"``, an output of no size.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from functorch_kit import nn
        >>> layer = nn.conv_transpose(1, (2,), strides=2, kernel_init=jax.nn.initializers.ones)
        >>> x = jnp.array([[[1.0], [5.0]]])
        >>> params, _ = layer.init(jax.random.key(0), x)
        >>> layer.apply(params, (), x)[0][0, :, 0].tolist()
        [1.0, 1.0, 5.0, 5.0]
    """
    space = len(kernel_size)
    if space not in LAYOUTS:
        raise LayerError(
            f"conv_transpose: kernel_size {tuple(kernel_size)} has {space} axes, not 1, 2 or 3"
        )
    if features % groups:
        raise LayerError(f"conv_transpose: {groups} groups do not divide {features} features")
    strides = per_axis(strides, space, "conv_transpose")
    dilation = per_axis(dilation, space, "conv_transpose")
    extra = per_axis(output_padding, space, "conv_transpose", least=0)
    extent = [(size - 1) * step + 1 for size, step in zip(kernel_size, dilation, strict=True)]
    if any(e >= max(s, d) for e, s, d in zip(extra, strides, dilation, strict=True) if e):
        raise LayerError(
            f"conv_transpose: output_padding {output_padding} is not below strides {strides} "
            f"or dilation {dilation}"
        )
    if padding == "SAME" and any(extra):
        raise LayerError("conv_transpose: padding 'SAME' settles the output_padding: leave it out")

    init = kernel_and_bias(
        "conv_transpose",
        kernel_size,
        groups,
        features,
        kernel_init,
        bias_init if use_bias else None,
    )

    def apply(
        params, model_state, x: Float[Array, "batch *space channels"], *, key=None, train=False
    ) -> tuple[Float[Array, "batch *out_space features"], tuple]:
        sizes = x.shape[1:-1]
        kernel = params["kernel"]
        same = [size * step for size, step in zip(sizes, strides, strict=True)]
        cut = explicit_padding(padding, same, kernel_size, strides, dilation)
        full = [(n - 1) * s + e for n, s, e in zip(sizes, strides, extent, strict=True)]
        out = [n - a - b + e for n, (a, b), e in zip(full, cut, extra, strict=True)]
        out = same if padding == "SAME" else out
        if min(out) < 1:
            raise LayerError(f"conv_transpose: padding {cut} leaves nothing of an output of {full}")
        pads = [
            (e - 1 - before, e - 1 - after + wanted - (n - before - after))
            for e, (before, after), wanted, n in zip(extent, cut, out, full, strict=True)
        ]
        y = lax.conv_general_dilated(
            x.astype(kernel.dtype),
            jnp.flip(kernel, range(space)),
            (1,) * space,
            pads,
            lhs_dilation=strides,
            rhs_dilation=dilation,
            dimension_numbers=LAYOUTS[space],
            feature_group_count=groups,
        )
        return (add_bias(y, params["bias"]) if use_bias else y), ()

    return Model(init, apply)
