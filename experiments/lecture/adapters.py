"""Layer libraries that do not interoperate, as one kind of model: Linen, NNX, Equinox, Haiku.

The two-layer net is written in each of them, and each becomes a ``Model`` by one call: what trains,
sweeps, resumes and exports here knows no difference. From the same weights all give the same.

Command: ``python experiments/lecture/adapters.py``; ``pip install 'functorch_kit[interop]'`` brings
the libraries.
"""

import argparse
import sys
from collections.abc import Callable
from typing import Any

import classroom
import jax
import jax.numpy as jnp
import numpy as np

import functorch_kit as fk

RECORDS, INPUTS, HIDDEN, OUTPUTS = 8, 7, 5, 3


def ours() -> fk.nn.Model:
    return fk.nn.serial(first=fk.nn.dense(HIDDEN), relu=fk.nn.relu, second=fk.nn.dense(OUTPUTS))


def of_linen() -> fk.nn.Model:
    import flax.linen as linen

    return fk.interop.from_linen(
        linen.Sequential([linen.Dense(HIDDEN), linen.relu, linen.Dense(OUTPUTS)])
    )


def of_nnx() -> fk.nn.Model:
    from flax import nnx

    def make(rngs: Any) -> Any:
        first, second = (
            nnx.Linear(INPUTS, HIDDEN, rngs=rngs),
            nnx.Linear(HIDDEN, OUTPUTS, rngs=rngs),
        )
        return nnx.Sequential(first, jax.nn.relu, second)

    return fk.interop.from_nnx(make)


def of_equinox() -> fk.nn.Model:
    import equinox as eqx

    return fk.interop.from_equinox(lambda key: eqx.nn.MLP(INPUTS, OUTPUTS, HIDDEN, 1, key=key))


def of_haiku() -> fk.nn.Model:
    import haiku as hk

    def net(x: Any) -> Any:
        return hk.Sequential([hk.Linear(HIDDEN), jax.nn.relu, hk.Linear(OUTPUTS)])(x)

    return fk.interop.from_haiku(net)


LIBRARIES: dict[str, Callable[[], fk.nn.Model]] = {
    "Linen": of_linen,
    "NNX": of_nnx,
    "Equinox": of_equinox,
    "Haiku": of_haiku,
}


def with_weights(params: Any, weights: dict[tuple[int, ...], np.ndarray]) -> Any:
    """A tree with these weights, by their shapes; Equinox keeps its matrices the other way."""

    def found(leaf: Any) -> Any:
        if leaf.shape in weights:
            return jnp.asarray(weights[leaf.shape])
        return jnp.asarray(weights[leaf.shape[::-1]].T)

    return jax.tree.map(found, params)


def example(options: argparse.Namespace) -> classroom.Shown:
    random = np.random.default_rng(0)
    shapes = [(INPUTS, HIDDEN), (HIDDEN,), (HIDDEN, OUTPUTS), (OUTPUTS,)]
    weights = {shape: random.standard_normal(shape, np.float32) for shape in shapes}
    x = jnp.asarray(random.standard_normal((RECORDS, INPUTS), np.float32))

    def answer(model: fk.nn.Model) -> tuple[Any, Any]:
        params, state = model.init(jax.random.key(0), x)
        params = with_weights(params, weights)

        def loss(params: Any) -> Any:
            y, _ = model.apply(params, state, x)
            return jnp.sum(jnp.square(y)), y

        (_, y), slopes = jax.value_and_grad(loss, has_aux=True)(params)
        # In the order of their sizes, which is the same in every library.
        return y, sorted((np.sort(np.ravel(leaf)) for leaf in jax.tree.leaves(slopes)), key=len)

    try:
        models = {library: make() for library, make in LIBRARIES.items()}
    except ImportError as error:
        raise fk.interop.InteropError(
            f"{error.name} is not installed: pip install 'functorch_kit[interop]' brings it"
        ) from None
    expected = answer(ours())
    figures, claims = {}, {}
    for library, model in models.items():
        y, slopes = answer(model)
        figures[f"{library}, largest difference"] = classroom.difference(y, expected[0])
        claims[f"{library}: the same outputs, the same gradients"] = classroom.agree(
            y, expected[0]
        ) and classroom.agree(slopes, expected[1])
    return classroom.Shown(figures, claims)


if __name__ == "__main__":
    sys.exit(classroom.run(example))
