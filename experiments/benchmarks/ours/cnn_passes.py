"""Milliseconds of forward and backward passes of a convolutional net, by cnn-benchmarks' protocol.

Training mode, random input and output gradient, no loss and no optimizer; one pass that does not
count and then ten, each waited for. Forward and backward are two calls, as in Torch: the forward
pass leaves in memory what the backward pass needs, and that one gives the gradient of the
parameters and of the images. Prints one line of JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import importlib
import itertools
import json
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
from jax import lax

import functorch_kit as fk

NETS: dict[str, Callable[[], fk.nn.Model]] = {
    "alexnet": lambda: fk.models.alexnet(fk.models.AlexNetConfig()),
    "inception_v1": lambda: fk.models.inception(fk.models.InceptionConfig()),
    **{
        f"vgg{depth}": functools.partial(
            lambda depth: fk.models.vgg(fk.models.VGGConfig(depth=depth)), depth
        )
        for depth in (16, 19)
    },
    **{
        f"resnet{depth}": functools.partial(
            lambda depth: fk.models.resnet(fk.models.ResNetConfig(depth=depth)), depth
        )
        for depth in (18, 34, 50, 101, 152, 200)
    },
}


def naive_convolution(
    x: jax.Array,
    kernel: jax.Array,
    strides: Sequence[int],
    pads: Sequence[tuple[int, int]],
    *,
    rhs_dilation: Sequence[int],
    dimension_numbers: Any = None,
    feature_group_count: int = 1,
) -> jax.Array:
    """A convolution as whoever has no library for it writes it.

    For each element of the kernel one product of a shifted image (batch, height, width, channels)
    and a matrix (channels, features), all of them added up.
    """
    assert feature_group_count == 1, "the nets measured here have no groups"
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    window = kernel.shape[:-2]
    out = [
        (size - (w - 1) * d - 1) // s + 1
        for size, w, d, s in zip(x.shape[1:-1], window, rhs_dilation, strides, strict=True)
    ]
    total = None
    for offset in itertools.product(*map(range, window)):
        start = [o * d for o, d in zip(offset, rhs_dilation, strict=True)]
        stop = [at + (n - 1) * s + 1 for at, n, s in zip(start, out, strides, strict=True)]
        shifted = lax.slice(x, (0, *start, 0), (len(x), *stop, x.shape[-1]), (1, *strides, 1))
        part = shifted @ kernel[offset]
        total = part if total is None else total + part
    assert total is not None
    return total


@contextlib.contextmanager
def convolving(how: str) -> Iterator[None]:
    """Inside, ``nn.conv`` is traced as it is (``library``) or with the naive convolution."""
    if how == "library":
        yield
        return
    # The name is the function's in the room's front door, so the module is asked for by its own.
    layer = importlib.import_module("functorch_kit.nn.conv")
    with (
        mock.patch.object(layer, "_use_patches", return_value=False),
        mock.patch.object(layer.lax, "conv_general_dilated", naive_convolution),
    ):
        yield


def passes_of(
    model: fk.nn.Model, images: jax.Array, outputs: int, *, dtype: str, how: str
) -> Callable[[], tuple[float, float, Any]]:
    """One pass: milliseconds forward, milliseconds backward, and the gradients."""
    policy, key = fk.precision.policy(dtype), jax.random.key(2)
    params, model_state = jax.jit(model.init)(jax.random.key(0), images)

    def forward(params: Any, images: Any, model_state: Any) -> Any:
        def out(params: Any, images: Any) -> Any:
            return model.apply(policy.cast(params), model_state, images, key=key, train=True)

        return jax.vjp(out, params, images, has_aux=True)

    def backward(back: Any, slope: Any) -> Any:
        return back(slope)

    if how == "jit":
        forward, backward = jax.jit(forward), jax.jit(backward)
    slope = jax.random.normal(jax.random.key(1), (len(images), outputs), policy.compute)

    def one_pass() -> tuple[float, float, Any]:
        began = time.perf_counter()
        y, back, _ = jax.block_until_ready(forward(params, images, model_state))
        between = time.perf_counter()
        slopes = jax.block_until_ready(backward(back, slope.astype(y.dtype)))
        return (between - began) * 1e3, (time.perf_counter() - between) * 1e3, slopes

    return one_pass


def main() -> None:
    assert __doc__
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("net", choices=NETS)
    parser.add_argument("--dtype", choices=["float32", "bf16"], default="float32")
    parser.add_argument("--convolution", choices=["library", "naive"], default="library")
    parser.add_argument("--how", choices=["jit", "eager"], default="jit")
    parser.add_argument("--passes", type=int, default=10, help="that count")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--side", type=int, default=224, help="of an image, in pixels")
    options = parser.parse_args()
    fk.program.use_cache()
    shape = (options.batch, options.side, options.side, 3)
    images = jax.random.normal(jax.random.key(3), shape)
    with convolving(options.convolution):
        one_pass = passes_of(
            NETS[options.net](), images, 1000, dtype=options.dtype, how=options.how
        )
        one_pass()
        found = [one_pass()[:2] for _ in range(options.passes)]
    facts = {
        "samples": [forward + backward for forward, backward in found],
        "unit": "ms/pass",
        "forward_ms": statistics.mean(forward for forward, _ in found),
        "backward_ms": statistics.mean(backward for _, backward in found),
        "device": f"{jax.devices()[0].platform} {jax.devices()[0].device_kind}",
    }
    print(json.dumps(facts))


if __name__ == "__main__":
    main()
