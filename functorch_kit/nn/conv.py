"""Convolution over 1, 2 or 3 spatial axes, channels last."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from functorch_kit.nn.errors import LayerError
from functorch_kit.nn.linear import Initializer, add_bias, lecun_normal
from functorch_kit.types import Model

Padding = str | int | Sequence[Sequence[int]]

LAYOUTS = {1: ("NWC", "WIO", "NWC"), 2: ("NHWC", "HWIO", "NHWC"), 3: ("NDHWC", "DHWIO", "NDHWC")}

# Gathering patches and multiplying by a matrix, against XLA's own convolution, on two CPU cores,
# digits CNN with batch 64 (largest patch matrix 4.7 MB), ms a step: jax 0.10.2 4.5 against 6.1,
# jax 0.12 4.2 against 4.3; and in a loop, where XLA:CPU has no fast convolution, 4.0 against 199
# and 3.7 against 228. Patches of 42 MB lose on 0.12 and win on 0.10.2 (functorch's CNN: 70
# against 138 ms), so the bound is what fits the caches of one core complex.
_PATCH_BYTES_ON_CPU = 16 << 20
# Every element of the kernel is a slice for the compiler: 1024 of them took 14 s to compile.
_PATCH_SLICES = 128


def kernel_and_bias(
    name: str,
    kernel_size: Sequence[int],
    groups: int,
    features: int,
    kernel_init: Initializer,
    bias_init: Initializer | None,
) -> Callable[..., Any]:
    """The init of a convolution, transposed or not.

    Args:
        name: of the layer, for messages.
        kernel_size: along each axis of space.
        groups: that channels are split into.
        features: channels of the output.
        kernel_init: of the kernel (*kernel_size, channels / groups, features).
        bias_init: of the bias (features,); None for no bias.

    Raises:
        LayerError: groups that do not divide the channels.

    Example:
        >>> ones = jax.nn.initializers.ones
        >>> init = kernel_and_bias("conv", (3, 3), 2, 4, ones, None)
        >>> params, _ = init(jax.random.key(0), jax.ShapeDtypeStruct((1, 8, 8, 6), jnp.float32))
        >>> params["kernel"].shape
        (3, 3, 3, 4)
    """

    def init(key, x_spec):
        channels = x_spec.shape[-1]
        if channels % groups:
            raise LayerError(f"{name}: {groups} groups do not divide {channels} channels")
        kernel_key, bias_key = jax.random.split(key)
        shape = (*kernel_size, channels // groups, features)
        params = {"kernel": kernel_init(kernel_key, shape, x_spec.dtype)}
        if bias_init is not None:
            params["bias"] = bias_init(bias_key, (features,), x_spec.dtype)
        return params, ()

    return init


def conv(
    features: int,
    kernel_size: Sequence[int],
    *,
    strides: int | Sequence[int] = 1,
    padding: Padding = "SAME",
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    use_bias: bool = True,
    kernel_init: Initializer = lecun_normal,
    bias_init: Initializer = jax.nn.initializers.zeros,
    method: str = "auto",
) -> Model:
    """Convolution (cross-correlation, as everywhere in the field), channels last.

    Args:
        features: number of output channels.
        kernel_size: one size per spatial axis; its length, 1 to 3, gives their number.
        strides: step per spatial axis, or one for all.
        padding: ``"SAME"``, ``"VALID"``, one number for both sides of every axis, or
            (before, after) per axis.
        dilation: spacing of the kernel's elements per spatial axis, or one for all.
        groups: channels are cut in this many groups that do not see each other.
        use_bias: whether there is a ``bias`` (features,).
        kernel_init: initialiser of ``kernel`` (*kernel_size, channels / groups, features).
        bias_init: initialiser of ``bias``.
        method: ``"library"`` for XLA's convolution, ``"patches"`` for patches times a matrix (the
            same sums, which XLA:CPU also runs fast inside a loop), ``"auto"`` for what was
            measured to be faster for the shapes at hand on the default backend.

    Returns:
        A Model from (batch, *space, channels) to (batch, *space', features).

    Raises:
        LayerError: an unknown method, a kernel of no or more than three axes, channels or features
            that the groups do not divide; an input that the kernel does not fit in.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from functorch_kit import nn
        >>> layer = nn.conv(1, (2, 2), padding="VALID", kernel_init=jax.nn.initializers.ones)
        >>> x = jnp.arange(9.0).reshape(1, 3, 3, 1)
        >>> params, _ = layer.init(jax.random.key(0), x)
        >>> layer.apply(params, (), x)[0][0, :, :, 0].tolist()
        [[8.0, 12.0], [20.0, 24.0]]
    """
    space = len(kernel_size)
    if space not in LAYOUTS:
        raise LayerError(f"conv: kernel_size {tuple(kernel_size)} has {space} axes, not 1, 2 or 3")
    if method not in ("auto", "library", "patches"):
        raise LayerError(f"conv: method {method!r} is not 'auto', 'library' or 'patches'")
    if features % groups:
        raise LayerError(f"conv: {groups} groups do not divide {features} features")
    strides, dilation = per_axis(strides, space, "conv"), per_axis(dilation, space, "conv")

    init = kernel_and_bias(
        "conv", kernel_size, groups, features, kernel_init, bias_init if use_bias else None
    )

    def apply(
        params, model_state, x: Float[Array, "batch *space channels"], *, key=None, train=False
    ) -> tuple[Float[Array, "batch *out_space features"], tuple]:
        pads = explicit_padding(padding, x.shape[1:-1], kernel_size, strides, dilation)
        kernel = params["kernel"]
        x = x.astype(kernel.dtype)
        out_space(x.shape[1:-1], kernel_size, strides, pads, dilation)  # refuses an empty output
        if _use_patches(method, groups, x, kernel, strides, pads, dilation):
            y = _conv_by_patches(x, kernel, strides, pads, dilation)
        else:
            y = lax.conv_general_dilated(
                x,
                kernel,
                strides,
                pads,
                rhs_dilation=dilation,
                dimension_numbers=LAYOUTS[space],
                feature_group_count=groups,
            )
        return (add_bias(y, params["bias"]) if use_bias else y), ()

    return Model(init, apply)


def explicit_padding(
    padding: Padding,
    space: Sequence[int],
    window: Sequence[int],
    strides: Sequence[int],
    dilation: Sequence[int],
) -> list[tuple[int, int]]:
    """Padding as (before, after) per spatial axis.

    Example:
        >>> explicit_padding("SAME", (8, 7), (3, 3), (1, 2), (1, 1))
        [(1, 1), (1, 1)]
        >>> explicit_padding(2, (8,), (3,), (1,), (1,))
        [(2, 2)]
    """
    if isinstance(padding, str):
        extent = [(size - 1) * step + 1 for size, step in zip(window, dilation, strict=True)]
        return [(int(a), int(b)) for a, b in lax.padtype_to_pads(space, extent, strides, padding)]
    pairs = [(padding, padding)] * len(window) if isinstance(padding, int) else list(padding)
    if len(pairs) != len(window) or any(len(pair) != 2 or min(pair) < 0 for pair in pairs):
        raise LayerError(
            f"padding {padding!r} is not (before, after), from 0 up, for each of {len(window)} axes"
        )
    return [(before, after) for before, after in pairs]


_AT_ONCE: ContextVar[int] = ContextVar("functorch_kit_examples_at_once", default=1)


@contextmanager
def examples_at_once(count: int) -> Iterator[None]:
    """Tell convolutions, which see one example, how many of them a ``jax.vmap`` puts side by side.

    The method ``auto`` then chooses for all of them together.

    Args:
        count: by how much the batch is larger than what is seen.

    Example:
        >>> spec = jax.ShapeDtypeStruct((1, 32, 32, 32), jnp.float32)
        >>> layer = conv(4, (3, 3))
        >>> params, _ = jax.eval_shape(layer.init, jax.random.key(0), spec)
        >>> with examples_at_once(512):
        ...     text = str(jax.make_jaxpr(layer.apply)(params, (), spec))
        >>> "conv_general_dilated" in text
        True
    """
    token = _AT_ONCE.set(_AT_ONCE.get() * count)
    try:
        yield
    finally:
        _AT_ONCE.reset(token)


def _use_patches(method, groups, x, kernel, strides, pads, dilation) -> bool:
    if method != "auto" or groups != 1:
        if method == "patches" and groups != 1:
            raise LayerError("conv: method 'patches' has no groups; use 'library' or 'auto'")
        return method == "patches"
    # A batch of any size is that of an exported program, which is for other platforms as well.
    if jax.default_backend() != "cpu" or not isinstance(x.shape[0], int):
        return False
    out = out_space(x.shape[1:-1], kernel.shape[:-2], strides, pads, dilation)
    patch_elements = _AT_ONCE.get() * x.shape[0] * math.prod(out) * math.prod(kernel.shape[:-1])
    few = math.prod(kernel.shape[:-2]) <= _PATCH_SLICES
    return few and patch_elements * x.dtype.itemsize <= _PATCH_BYTES_ON_CPU


def _conv_by_patches(x, kernel, strides, pads, dilation):
    """Every window as one row, times the kernel as one matrix."""
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    window, features = kernel.shape[:-2], kernel.shape[-1]
    out = out_space(x.shape[1:-1], window, strides, [(0, 0)] * len(window), dilation)

    def shifted(offset: tuple[int, ...]):
        start = [o * d for o, d in zip(offset, dilation, strict=True)]
        stop = [s + (n - 1) * step + 1 for s, n, step in zip(start, out, strides, strict=True)]
        return lax.slice(x, (0, *start, 0), (x.shape[0], *stop, x.shape[-1]), (1, *strides, 1))

    offsets = itertools.product(*map(range, window))
    patches = jnp.concatenate([shifted(offset) for offset in offsets], axis=-1)
    rows = patches.reshape(-1, patches.shape[-1])
    return (rows @ kernel.reshape(-1, features)).reshape(x.shape[0], *out, features)


def out_space(
    space: Sequence[int],
    window: Sequence[int],
    strides: Sequence[int],
    pads: Sequence[tuple[int, int]],
    dilation: Sequence[int],
) -> list[int]:
    """Sizes of the output of a sliding window, each at least 1.

    Raises:
        LayerError: the window does not fit: XLA would go on with an array of no elements.

    Example:
        >>> out_space((8, 7), (3, 3), (1, 2), [(1, 1), (0, 0)], (1, 1))
        [8, 3]
    """
    out = [
        (size + before + after - ((w - 1) * d + 1)) // step + 1
        for size, (before, after), w, d, step in zip(
            space, pads, window, dilation, strides, strict=True
        )
    ]
    if min(out) < 1:
        raise LayerError(f"window {tuple(window)} does not fit an input of size {tuple(space)}")
    return out


def per_axis(
    value: int | Sequence[int], space: int, layer: str, *, least: int = 1
) -> tuple[int, ...]:
    """One number for each spatial axis.

    Raises:
        LayerError: another number of numbers, or one below the least.

    Example:
        >>> per_axis(2, 3, "conv")
        (2, 2, 2)
    """
    each = (value,) * space if isinstance(value, int) else tuple(value)
    if len(each) != space or min(each) < least:
        kind = "positive number" if least else "number from 0 up"
        raise LayerError(f"{layer}: {value} is not one {kind} for each of {space} axes")
    return each
