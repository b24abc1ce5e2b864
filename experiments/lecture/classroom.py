"""What the lecture's examples share: Data Sets A and B, arguments, and how an example is shown.

An example is a function of the parsed options that returns ``Shown``: figures, which are printed in
their order, and claims, sentences that were found true or not. A claim that does not hold ends the
script with exit code 1.
"""

from __future__ import annotations

import argparse
import inspect
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import functorch_kit as fk
from functorch_kit.errors import UserError

Weights = tuple[jax.Array, jax.Array]

SIZES = {"A": (64, 1000, 100, 1000), "B": (64, 1000, 100, 10)}
"""Records, inputs, hidden units, outputs."""

# Relative to the largest number: a sum of a thousand products, and whatever hundreds of steps of
# gradient descent make of it.
_ROUNDING = {4: 1e-4, 8: 1e-12}


class Shown(NamedTuple):
    """What an example found.

    Attributes:
        figures: name -> number or text, printed in this order.
        claims: sentence -> whether it was found true.
        values: what else a test may look at; not printed.
    """

    figures: Mapping[str, Any]
    claims: Mapping[str, bool]
    values: Mapping[str, Any] = MappingProxyType({})


class DataSet(NamedTuple):
    """Standard normal numbers.

    Attributes:
        x: inputs (records, inputs).
        y: targets (records, outputs).
        weights: of a two-layer net: (inputs, hidden) and (hidden, outputs).
    """

    x: jax.Array
    y: jax.Array
    weights: Weights


def data_set(name: str) -> DataSet:
    """Data Set A or B; in float64 where JAX's 64-bit mode is on, and then the same numbers."""
    records, inputs, hidden, outputs = SIZES[name]
    arrays = gaussian(name, records).train.arrays
    random = np.random.default_rng(0)
    w1 = random.standard_normal((inputs, hidden), np.float32)
    w2 = random.standard_normal((hidden, outputs), np.float32)
    x, y, w1, w2 = (as_floats(each) for each in (arrays["x"], arrays["y"], w1, w2))
    return DataSet(x, y, (w1, w2))


def gaussian(name: str, batch_size: int) -> fk.data.Data:
    """Inputs and targets of Data Set A or B as the toolkit's pipeline."""
    records, inputs, _, outputs = SIZES[name]
    return fk.data.gaussian(count=records, inputs=inputs, outputs=outputs, batch_size=batch_size)


def as_floats(array: Any) -> jax.Array:
    """In JAX's default float: 32 bits, or 64 where they are on."""
    return jnp.asarray(array, jax.dtypes.canonicalize_dtype(float))


def two_layers(weights: Weights, x: jax.Array) -> jax.Array:
    """``max(x w1, 0) w2``."""
    w1, w2 = weights
    return jnp.maximum(x @ w1, 0) @ w2


def loss_a(weights: Weights, x: jax.Array, y: jax.Array) -> jax.Array:
    """The mean over records of the squared differences, summed over outputs."""
    return jnp.mean(jnp.sum(jnp.square(two_layers(weights, x) - y), axis=1))


def loss_b(weights: Weights, x: jax.Array, y: jax.Array) -> jax.Array:
    """The sum of all squared differences."""
    return jnp.sum(jnp.square(two_layers(weights, x) - y))


def moved(weights: Any, slopes: Any, rate: float) -> Any:
    """A step downhill."""
    return jax.tree.map(lambda weight, slope: weight - rate * slope, weights, slopes)


def descend(
    loss: Callable[..., jax.Array],
    params: Any,
    optimizer: optax.GradientTransformation,
    steps: int,
    *data: Any,
) -> tuple[jax.Array, Any]:
    """Gradient descent on all data at once, as one program.

    Returns:
        The losses before each step (steps,), and the parameters after the last.
    """

    def step(carry: tuple[Any, Any], _: None) -> tuple[tuple[Any, Any], jax.Array]:
        params, memory = carry
        value, slopes = jax.value_and_grad(loss)(params, *data)
        updates, memory = optimizer.update(slopes, memory, params)
        return (optax.apply_updates(params, updates), memory), value

    def run(params: Any) -> tuple[jax.Array, Any]:
        start = (params, optimizer.init(params))
        (params, _), losses = jax.lax.scan(step, start, length=steps)
        return losses, params

    return jax.jit(run)(params)


def difference(found: Any, expected: Any) -> float:
    """The largest difference between two trees of arrays, relative to the largest number."""
    pairs = [
        (np.asarray(one, np.float64), np.asarray(other, np.float64))
        for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True)
    ]
    largest = max(float(np.abs(other).max(initial=0)) for _, other in pairs)
    return max(float(np.abs(one - other).max(initial=0)) for one, other in pairs) / (largest or 1.0)


def agree(found: Any, expected: Any) -> bool:
    """Whether two trees of arrays are equal to rounding."""
    leaves = [*jax.tree.leaves(found), *jax.tree.leaves(expected)]
    fewest = min(np.asarray(leaf).dtype.itemsize for leaf in leaves)
    return difference(found, expected) < _ROUNDING[fewest]


def same_bits(found: Any, expected: Any) -> bool:
    """Whether two trees of arrays are equal to the bit."""
    pairs = zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True)
    return all(np.asarray(one).tobytes() == np.asarray(other).tobytes() for one, other in pairs)


def milliseconds(call: Callable[[], Any], times: int) -> float:
    """Of one of so many calls in a row, the last of which is waited for; the first is extra."""
    jax.block_until_ready(call())
    began = time.perf_counter()
    found = None
    for _ in range(times):
        found = call()
    jax.block_until_ready(found)
    return (time.perf_counter() - began) / times * 1e3


def device() -> str:
    """What the examples run on, in words."""
    first = jax.devices()[0]
    return f"{first.platform} ({first.device_kind})"


def run(
    example: Callable[[argparse.Namespace], Shown],
    *,
    options: Callable[[argparse.ArgumentParser], object] = lambda parser: None,
    arguments: Sequence[str] | None = None,
) -> int:
    """The command line of an example.

    Args:
        example: what the script shows; its module's docstring says it in words.
        options: adds options of its own to the parser.
        arguments: the command line; that of the process if None.

    Returns:
        The exit code: 1 if a claim does not hold, 2 if the options cannot be used.
    """
    title = (inspect.getdoc(inspect.getmodule(example)) or "").splitlines()[0]
    parser = argparse.ArgumentParser(description=title)
    parser.add_argument("--quick", action="store_true", help="the short form")
    options(parser)
    chosen = parser.parse_args(arguments)
    try:
        shown = example(chosen)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(title)
    width = max(map(len, shown.figures), default=0)
    for name, figure in shown.figures.items():
        print(f"  {name:<{width}}  {_text(figure)}")
    for claim, holds in shown.claims.items():
        print(f"  {'yes' if holds else 'NO'}: {claim}")
    return 0 if all(shown.claims.values()) else 1


def _text(figure: Any) -> str:
    if isinstance(figure, float | np.floating | np.ndarray | jax.Array):
        return f"{float(figure):.6g}"
    return str(figure)
