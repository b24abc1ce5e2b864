"""Attention: every position reads from the others, or from those of another sequence.

Axes in the names of arrays: B batch, L positions that read, M positions that are read, D width,
H heads that read, G heads that are read, K width of a head.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from functorch_kit.nn.attention_masks import Sees, as_given, by_position, in_order
from functorch_kit.nn.beside import apart
from functorch_kit.nn.combinators import apply_part
from functorch_kit.nn.dropout import dropout as dropout_layer
from functorch_kit.nn.errors import LayerError
from functorch_kit.nn.linear import Initializer, dense, lecun_normal
from functorch_kit.nn.norm import rms_norm
from functorch_kit.nn.position import rotary as rotate
from functorch_kit.nn.scope import part_key, scope
from functorch_kit.types import Model, ModelState, wide_float

_BESIDE = ("context", "mask", "positions", "segments")


def attention(
    heads: int,
    *,
    kv_heads: int | None = None,
    head_width: int | None = None,
    causal: bool = False,
    window: int | None = None,
    rotary: float | None = None,
    cache: int | None = None,
    qk_norm: bool = False,
    use_bias: bool = True,
    dropout: float | jax.Array = 0.0,
    kernel_init: Initializer = lecun_normal,
    out_init: Initializer | None = None,
) -> Model:
    """Multi-head attention: ``softmax(q k' / sqrt(K)) v`` for each head, then one matrix.

    Vaswani et al., 2017; grouped queries: Ainslie et al., 2023.

    The input is x (batch, length, width), or a dict of ``x`` and any of:

    - ``context`` (batch, read, other width): positions read from these and not from each other;
    - ``mask``, booleans (batch, read) or (batch, length, read): false for what is not to be read,
      such as padding. A position that may read nothing reads zeros;
    - ``segments``, integers (batch, length), where sequences stand side by side in one row: a
      position reads from those with its own number only;
    - ``positions``, integers (batch, length), for ``rotary`` and ``cache``: 0, 1, 2 … if left out.

    Args:
        heads: number of heads H that read.
        kv_heads: number of heads that are read, each by ``heads / kv_heads``; as many if None.
        head_width: width K of a head; ``width / heads`` if None.
        causal: whether a position reads from itself and those before it only.
        window: how many positions back it reads, itself among them; if not causal, forward too.
        rotary: base of the angles by which queries and keys are turned, 10,000 as a rule; None for
            no turning. See ``nn.rotary``.
        cache: number of positions for which keys and values are kept in model_state, from call to
            call, so that the next call gives new positions only. It needs ``causal`` and, beside x,
            ``positions``: where in the cache each new one stands. One outside the cache gives NaN.
        qk_norm: whether the queries and the keys of each head are RMS-normed before they are
            turned, with a scale for each of its K entries: Henry et al., 2020.
        use_bias: whether the four dense layers have biases.
        dropout: rate for the weights of the softmax, in training; may be traced.
        kernel_init: initialiser of the kernels of ``query``, ``key`` and ``value``.
        out_init: initialiser of the kernel of ``out``; as ``kernel_init`` if None.

    Returns:
        A Model from the input to (batch, length, width), with parameters ``query/kernel`` (width,
        H K), ``key/kernel`` and ``value/kernel`` (width of what is read, kv_heads K) and
        ``out/kernel`` (H K, width), heads one after another; ``query_norm/scale`` and
        ``key_norm/scale`` (K,) with ``qk_norm``. The softmax is taken in float32 where
        the input has fewer bits. With a cache, model_state is a dict of ``key`` and ``value``
        (batch, kv_heads, cache, K), zeros at first; the parameters are the same.

    Raises:
        LayerError: heads that do not divide the width or the heads that read them, a cache
            that is not causal, a name beside x that means nothing here.

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
    groups = kv_heads or heads
    if heads % groups:
        raise LayerError(f"attention: {groups} kv_heads do not divide {heads} heads")
    if window is not None and window < 1:
        raise LayerError(f"attention: a window of {window} reads nothing: give 1 or more")
    if cache is not None and not causal:
        raise LayerError("attention: a cache holds what came before: give causal=True with it")
    drop, norm = dropout_layer(dropout), rms_norm()

    def parts(width: int) -> dict[str, Model]:
        if head_width is None and width % heads:
            raise LayerError(f"attention: {heads} heads do not divide a width of {width}")
        each = head_width or width // heads
        sizes = {"query": heads * each, "key": groups * each, "value": groups * each, "out": width}
        return {
            name: dense(
                size,
                use_bias=use_bias,
                kernel_init=out_init if name == "out" and out_init else kernel_init,
            )
            for name, size in sizes.items()
        }

    def init(key, x_spec):
        x_spec, given = apart(x_spec, "attention", _BESIDE)
        layers, params = parts(x_spec.shape[-1]), {}
        each = head_width or x_spec.shape[-1] // heads
        between = jax.ShapeDtypeStruct((1, heads * each), x_spec.dtype)
        read = given.get("context", x_spec)
        sources = {"query": x_spec, "key": read, "value": read, "out": between}
        for name, source in sources.items():
            with scope(name):
                params[name], _ = layers[name].init(part_key(key, name), source)
        for name in ("query_norm", "key_norm") if qk_norm else ():
            by_head = jax.ShapeDtypeStruct((1, each), x_spec.dtype)
            with scope(name):
                params[name], _ = norm.init(part_key(key, name), by_head)
        if cache is None:
            return params, ()
        empty = jnp.zeros((x_spec.shape[0], groups, cache, each), x_spec.dtype)
        return params, {"key": empty, "value": empty}

    def apply(
        params,
        model_state,
        x: Float[Array, "batch length width"] | Mapping[str, Array],
        *,
        key=None,
        train=False,
    ) -> tuple[Float[Array, "batch length width"], ModelState]:
        x_BxLxD, given = apart(x, "attention", _BESIDE)
        _refuse(given, causal or window is not None or rotary is not None, cache)
        layers = parts(x_BxLxD.shape[-1])
        read_BxMxC: Array = given.get("context", x_BxLxD)
        positions_BxL: Any = given.get("positions")

        def part(name: str, x, layer: Model):
            return apply_part(name, layer, params, (), x, key, train)[0]

        query_BxHxLxK = _heads_first(part("query", x_BxLxD, layers["query"]), heads)
        key_BxGxMxK, value_BxGxMxK = (
            _heads_first(part(name, read_BxMxC, layers[name]), groups) for name in ("key", "value")
        )
        if qk_norm:
            query_BxHxLxK = part("query_norm", query_BxHxLxK, norm)
            key_BxGxMxK = part("key_norm", key_BxGxMxK, norm)
        if rotary is not None:
            with scope("rotary"):
                query_BxHxLxK = rotate(query_BxHxLxK, positions_BxL, base=rotary)
                key_BxGxMxK = rotate(key_BxGxMxK, positions_BxL, base=rotary)
        sees: list[Sees]
        if cache is None:
            length, read = x_BxLxD.shape[1], read_BxMxC.shape[1]
            ordered = in_order(length, read, causal, window)
            sees = as_given(given)
            if ordered is not None:
                sees.append(ordered)
        else:
            with scope("cache"):
                model_state = _extended(model_state, key_BxGxMxK, value_BxGxMxK, positions_BxL)
            key_BxGxMxK, value_BxGxMxK = (
                model_state[name].astype(query_BxHxLxK.dtype) for name in ("key", "value")
            )
            sees = [by_position(positions_BxL, cache, window)]
        with scope("weights"):
            weights_BxHxLxM = _weights(query_BxHxLxK, key_BxGxMxK, sees, "mask" in given)
        weights_BxHxLxM = part("dropout", weights_BxHxLxM, drop)
        with scope("read"):
            y_BxHxLxK = _by_group("bgrm,bgmk->bgrk", weights_BxHxLxM, value_BxGxMxK)
            y_BxLxHK = y_BxHxLxK.swapaxes(1, 2).reshape(*x_BxLxD.shape[:2], -1)
        y_BxLxD = part("out", y_BxLxHK, layers["out"])
        if cache is not None:
            inside_BxLx1 = ((positions_BxL >= 0) & (positions_BxL < cache))[..., None]
            y_BxLxD = jnp.where(inside_BxLx1, y_BxLxD, jnp.nan)
        return y_BxLxD, model_state

    return Model(init, apply)


def _refuse(given: Mapping[str, Array], is_ordered: bool, cache: int | None) -> None:
    """What goes together with nothing else would be ignored."""
    if "context" in given and (is_ordered or given.keys() & {"segments", "positions"}):
        raise LayerError(
            "attention: positions of a context have no order to those that read it: leave out "
            "causal, window, rotary, segments and positions, or give a mask"
        )
    if cache is not None and given.keys() != {"positions"}:
        raise LayerError(
            "attention: with a cache the input is a dict of x and positions, "
            f"not of {', '.join(['x', *given])}"
        )


def _heads_first(x_BxLxD: Array, heads: int) -> Array:
    """(B, L, H * K) to (B, H, L, K): one copy, after which every product is a plain batch of them.

    Of seven ways to arrange the products (heads apart, merged with the batch, left behind the
    positions, one fused kernel …) it was the fastest or within 1 % of it in a step of the small GPT
    on two cores: 30.8 ms on jax 0.12, 32.7 on 0.10.2; heads behind the positions 33.4 and 35.6.
    """
    batch, length, width = x_BxLxD.shape
    return x_BxLxD.reshape(batch, length, heads, width // heads).swapaxes(1, 2)


def _extended(state: ModelState, key_BxGxLxK: Array, value_BxGxLxK: Array, positions_BxL) -> dict:
    """The cache with new positions in their places; those outside are dropped."""
    slots = state["key"].shape[2]
    # jnp indexing wraps negative integers, so they have to be sent outside by hand.
    inside_BxL = (positions_BxL >= 0) & (positions_BxL < slots)
    place_BxL = jnp.where(inside_BxL, positions_BxL, slots)
    row_Bx1 = jnp.arange(place_BxL.shape[0], dtype=place_BxL.dtype)[:, None]
    new = {"key": key_BxGxLxK, "value": value_BxGxLxK}
    return {
        name: state[name]
        .at[row_Bx1, :, place_BxL]
        .set(new[name].swapaxes(1, 2).astype(state[name].dtype), mode="drop")
        for name in new
    }


def _by_group(products: str, left_BxHxLxA: Array, right_BxGxMxK: Array, dtype=None) -> Array:
    """Products by head; heads that read the same group stand in rows of one matrix."""
    batch, heads, length, _ = left_BxHxLxA.shape
    groups = right_BxGxMxK.shape[1]
    rows = left_BxHxLxA.reshape(batch, groups, heads // groups * length, -1)
    y = jnp.einsum(products, rows, right_BxGxMxK, preferred_element_type=dtype)
    return y.reshape(batch, heads, length, -1)


def _weights(query_BxHxLxK: Array, key_BxGxMxK: Array, sees: list[Sees], may_see_none: bool):
    dtype = query_BxHxLxK.dtype
    wide = wide_float(query_BxHxLxK).dtype
    query_BxHxLxK = query_BxHxLxK * query_BxHxLxK.shape[-1] ** -0.5
    scores_BxHxLxM = _by_group("bgrk,bgmk->bgrm", query_BxHxLxK, key_BxGxMxK, wide)
    if not sees:
        return jax.nn.softmax(scores_BxHxLxM, axis=-1).astype(dtype)
    sees_BxHxLxM = jnp.broadcast_to(functools.reduce(operator.and_, sees), scores_BxHxLxM.shape)
    scores_BxHxLxM = jnp.where(sees_BxHxLxM, scores_BxHxLxM, jnp.finfo(wide).min)
    weights_BxHxLxM = jax.nn.softmax(scores_BxHxLxM, axis=-1).astype(dtype)
    if may_see_none:
        weights_BxHxLxM = jnp.where(sees_BxHxLxM, weights_BxHxLxM, 0)
    return weights_BxHxLxM
