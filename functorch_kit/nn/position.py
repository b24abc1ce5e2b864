"""What tells positions apart: a learned row for each, or a rotation of queries and keys."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Integer

from functorch_kit.nn.beside import apart
from functorch_kit.nn.errors import LayerError
from functorch_kit.nn.linear import Initializer, embedding
from functorch_kit.types import Model, wide_float

_BESIDE = ("positions",)


def position_embedding(
    context: int, *, embedding_init: Initializer = jax.nn.initializers.normal(0.02)
) -> Model:
    """Add a learned row of a table to each position.

    Args:
        context: number of rows: the longest input.
        embedding_init: initialiser of ``embedding`` (context, width).

    Returns:
        A Model from (batch, length, width) to the same shape; the table takes the input's dtype.
        Where positions do not count from 0 through the row, the input is a dict of ``x`` and of
        ``positions``, integers (batch, length); one outside the table gives NaN.

    Raises:
        LayerError: an input longer than the context.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from functorch_kit import nn
        >>> layer = nn.position_embedding(8)
        >>> params, _ = layer.init(jax.random.key(0), jax.ShapeDtypeStruct((1, 3, 4), jnp.float32))
        >>> params["embedding"].shape, layer.apply(params, (), jnp.ones((1, 3, 4)))[0].shape
        ((8, 4), (1, 3, 4))
    """

    def init(key, x_spec):
        x_spec, _ = apart(x_spec, "position_embedding", _BESIDE)
        return {"embedding": embedding_init(key, (context, x_spec.shape[-1]), x_spec.dtype)}, ()

    def apply(
        params,
        model_state,
        x: Float[Array, "batch length width"] | Mapping[str, Array],
        *,
        key=None,
        train=False,
    ) -> tuple[Float[Array, "batch length width"], tuple]:
        x_BxLxD, given = apart(x, "position_embedding", _BESIDE)
        if "positions" in given:
            rows, _ = embedding(context, x_BxLxD.shape[-1]).apply(params, (), given["positions"])
            return x_BxLxD + rows.astype(x_BxLxD.dtype), ()
        length = x_BxLxD.shape[1]
        if length > context:
            raise LayerError(
                f"position_embedding: the input has {length} positions, the table {context} rows"
            )
        return x_BxLxD + params["embedding"][None, :length].astype(x_BxLxD.dtype), ()

    return Model(init, apply)


def rotary(
    x: Float[Array, "batch heads length width"],
    positions: Integer[Array, "batch length"] | None = None,
    *,
    base: float = 10_000.0,
) -> Float[Array, "batch heads length width"]:
    """Turn queries or keys by angles that grow with the position: products see distances only.

    Su et al., 2021. Element i and element ``width / 2 + i`` are one pair, as in GPT-NeoX and in
    the weights of Llama on Hugging Face; it turns by ``position / base ** (2 i / width)``. Angles
    are taken in at least 32 bits.

    Args:
        x: queries or keys by head.
        positions: 0, 1, 2 … if None.
        base: of the geometric row of wavelengths.

    Raises:
        LayerError: an odd width.

    Example:
        >>> import jax.numpy as jnp, numpy as np
        >>> from functorch_kit import nn
        >>> x = jnp.ones((1, 1, 2, 2))
        >>> print(np.asarray(nn.rotary(x)[0, 0]).round(3))
        [[ 1.     1.   ]
         [-0.301  1.382]]
    """
    length, width = x.shape[-2:]
    if width % 2:
        raise LayerError(f"rotary: a head of width {width} has no pairs: give an even width")
    wide = wide_float(x)
    slowing = jnp.asarray(base ** (-np.arange(0, width, 2) / width), wide.dtype)
    if positions is None:
        angle = (jnp.arange(length, dtype=wide.dtype)[:, None] * slowing[None])[None, None]
    else:
        angle = positions.astype(wide.dtype)[:, None, :, None] * slowing[None, None, None]
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    first, second = jnp.split(wide, 2, -1)
    turned = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], -1)
    return turned.astype(x.dtype)
