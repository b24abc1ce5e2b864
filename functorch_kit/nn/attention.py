"""Attention: every position reads from the others; and the embedding that tells positions apart.

Axes in the names of arrays: B batch, L positions that read, M positions that are read, D width,
H heads, K width of a head.
"""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Integer

from functorch_kit.nn.combinators import apply_part
from functorch_kit.nn.dropout import dropout as dropout_layer
from functorch_kit.nn.linear import Initializer, dense, embedding, lecun_normal
from functorch_kit.nn.scope import part_key, scope
from functorch_kit.types import Model


def attention(
    heads: int,
    *,
    causal: bool = False,
    use_bias: bool = True,
    dropout: float | jax.Array = 0.0,
    kernel_init: Initializer = lecun_normal,
    out_init: Initializer | None = None,
) -> Model:
    """Multi-head self-attention: ``softmax(q k' / sqrt(K)) v`` for each head, then one matrix.

    Vaswani et al., 2017.

    Args:
        heads: number of heads H; must divide the width D.
        causal: whether a position reads from itself and those before it only.
        use_bias: whether the four dense layers have biases.
        dropout: rate for the weights of the softmax, in training; may be traced.
        kernel_init: initialiser of the kernels of ``query``, ``key`` and ``value``.
        out_init: initialiser of the kernel of ``out``; as ``kernel_init`` if None.

    Returns:
        A Model from (batch, length, width) to the same shape, with parameters ``query/kernel``,
        ``key/kernel``, ``value/kernel`` and ``out/kernel``, each (width, width), heads one after
        another. The softmax is taken in float32 where the input has fewer bits. Where sequences
        stand side by side in one row, the input is a dict of ``x`` and of ``segments``, integers
        (batch, length): a position reads from those with its own number only.

    Raises:
        ValueError: the heads do not divide the width.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from functorch_kit import nn
        >>> layer = nn.attention(2, causal=True)
        >>> params, _ = layer.init(jax.random.key(0), jax.ShapeDtypeStruct((1, 3, 4), jnp.float32))
        >>> sorted(params), params["query"]["kernel"].shape
        (['key', 'out', 'query', 'value'], (4, 4))
        >>> layer.apply(params, (), jnp.ones((1, 3, 4)))[0].shape
        (1, 3, 4)
    """
    drop = dropout_layer(dropout)

    def parts(width: int) -> dict[str, Model]:
        if width % heads:
            raise ValueError(f"attention: {heads} heads do not divide a width of {width}")
        inits = dict.fromkeys(("query", "key", "value", "out"), kernel_init)
        inits["out"] = out_init or kernel_init
        return {
            name: dense(width, use_bias=use_bias, kernel_init=init) for name, init in inits.items()
        }

    def init(key, x_spec):
        x_spec, _ = _with(x_spec, "segments")
        params = {}
        for name, part in parts(x_spec.shape[-1]).items():
            with scope(name):
                params[name], _ = part.init(part_key(key, name), x_spec)
        return params, ()

    def apply(
        params,
        model_state,
        x: Float[Array, "batch length width"] | Mapping[str, Array],
        *,
        key=None,
        train=False,
    ) -> tuple[Float[Array, "batch length width"], tuple]:
        x_BxLxD, segments_BxL = _with(x, "segments")
        layers = parts(x_BxLxD.shape[-1])

        def part(name: str, x, layer: Model):
            return apply_part(name, layer, params, (), x, key, train)[0]

        query_BxHxLxK, key_BxHxMxK, value_BxHxMxK = (
            _heads_first(part(name, x_BxLxD, layers[name]), heads)
            for name in ("query", "key", "value")
        )
        with scope("weights"):
            weights_BxHxLxM = _weights(query_BxHxLxK, key_BxHxMxK, causal, segments_BxL)
        weights_BxHxLxM = part("dropout", weights_BxHxLxM, drop)
        with scope("read"):
            y_BxHxLxK = jnp.einsum("bhlm,bhmk->bhlk", weights_BxHxLxM, value_BxHxMxK)
            y_BxLxD = y_BxHxLxK.swapaxes(1, 2).reshape(x_BxLxD.shape)
        return part("out", y_BxLxD, layers["out"]), ()

    return Model(init, apply)


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
        ValueError: an input longer than the context.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from functorch_kit import nn
        >>> layer = nn.position_embedding(8)
        >>> params, _ = layer.init(jax.random.key(0), jax.ShapeDtypeStruct((1, 3, 4), jnp.float32))
        >>> params["embedding"].shape, layer.apply(params, (), jnp.ones((1, 3, 4)))[0].shape
        ((8, 4), (1, 3, 4))
    """

    def init(key, x_spec):
        x_spec, _ = _with(x_spec, "positions")
        return {"embedding": embedding_init(key, (context, x_spec.shape[-1]), x_spec.dtype)}, ()

    def apply(
        params,
        model_state,
        x: Float[Array, "batch length width"] | Mapping[str, Array],
        *,
        key=None,
        train=False,
    ) -> tuple[Float[Array, "batch length width"], tuple]:
        x, positions = _with(x, "positions")
        if positions is not None:
            rows, _ = embedding(context, x.shape[-1]).apply(params, (), positions)
            return x + rows.astype(x.dtype), ()
        length = x.shape[1]
        if length > context:
            raise ValueError(
                f"position_embedding: the input has {length} positions, the table {context} rows"
            )
        return x + params["embedding"][None, :length].astype(x.dtype), ()

    return Model(init, apply)


def _with(x, name: str):
    """An input, and what came with it under a name, or None; of arrays and of specs."""
    return (x["x"], x[name]) if isinstance(x, Mapping) else (x, None)


def _heads_first(x_BxLxD: Array, heads: int) -> Array:
    """(B, L, H * K) to (B, H, L, K): one copy, after which every product is a plain batch of them.

    Of seven ways to arrange the products (heads apart, merged with the batch, left behind the
    positions, one fused kernel …) it was the fastest or within 1 % of it in a step of the small GPT
    on two cores: 30.8 ms on jax 0.12, 32.7 on 0.10.2; heads behind the positions 33.4 and 35.6.
    """
    batch, length, width = x_BxLxD.shape
    return x_BxLxD.reshape(batch, length, heads, width // heads).swapaxes(1, 2)


def _weights(
    query_BxHxLxK: Array,
    key_BxHxMxK: Array,
    causal: bool,
    segments_BxL: Integer[Array, "batch length"] | None,
) -> Array:
    dtype = query_BxHxLxK.dtype
    wide = jnp.dtype(jnp.float32) if dtype.itemsize < 4 else dtype
    query_BxHxLxK = query_BxHxLxK * query_BxHxLxK.shape[-1] ** -0.5
    scores_BxHxLxM = jnp.einsum(
        "bhlk,bhmk->bhlm", query_BxHxLxK, key_BxHxMxK, preferred_element_type=wide
    )
    if causal:
        length, read = scores_BxHxLxM.shape[-2:]
        sees_1x1xLxM = np.tri(length, read, read - length, dtype=bool)[None, None]
        scores_BxHxLxM = jnp.where(sees_1x1xLxM, scores_BxHxLxM, jnp.finfo(wide).min)
    if segments_BxL is not None:
        sees_Bx1xLxM = segments_BxL[:, None, :, None] == segments_BxL[:, None, None, :]
        scores_BxHxLxM = jnp.where(sees_Bx1xLxM, scores_BxHxLxM, jnp.finfo(wide).min)
    return jax.nn.softmax(scores_BxHxLxM, axis=-1).astype(dtype)
