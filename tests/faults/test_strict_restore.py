"""N5: a state that differs in any leaf is refused, and the leaf is named."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from functorch_kit import models, train
from functorch_kit.checkpoint import CheckpointError, Store

SPEC = jax.ShapeDtypeStruct((4, 8, 8, 1), jnp.float32)
DTYPES = ("float32", "bfloat16", "float16", "int32", "uint32", "bool", "float8_e5m2")


def state(hidden: tuple[int, ...]) -> Any:
    model = models.mlp(models.MLPConfig(hidden=hidden))
    with jax.numpy_dtype_promotion("standard"):
        init = train.make_init(model, optax.adamw(1e-3), SPEC)
        specs = jax.eval_shape(init, {}, key := jax.random.key(0))
    # Nothing is computed: the numbers do not matter here.
    is_key = lambda spec: jnp.issubdtype(spec.dtype, jax.dtypes.prng_key)  # noqa: E731
    return jax.tree.map(
        lambda spec: key if is_key(spec) else np.zeros(spec.shape, spec.dtype), specs
    )


def differing(state: Any) -> Iterator[tuple[str, Any]]:
    """The state with one leaf missing, added, of another shape, or of each other dtype."""
    leaves, structure = jax.tree.flatten(state)
    for index, leaf in enumerate(leaves):
        is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        shapes = [(*leaf.shape, 1), (*leaf.shape, 2), (1, *leaf.shape)]
        specs: list[Any] = [jax.ShapeDtypeStruct(shape, leaf.dtype) for shape in shapes]
        specs += [
            jax.ShapeDtypeStruct(leaf.shape, dtype)
            for dtype in DTYPES
            if is_key or dtype != str(leaf.dtype)
        ]
        specs += [None, {"a": leaf, "b": leaf}]
        for spec in specs:
            yield (
                "leaf",
                jax.tree.unflatten(structure, [*leaves[:index], spec, *leaves[index + 1 :]]),
            )


def refusals(folder: Path, hidden: tuple[int, ...]) -> int:
    with Store(folder) as store:
        store.save(1, saved := state(hidden))
    store.restore(1, saved)
    count = 0
    layers = [("layer", state(other)) for other in [hidden[:-1], (*hidden, hidden[-1])]]
    for _, like in [*differing(saved), *layers]:
        with pytest.raises(CheckpointError, match=r"leaf '\S+' expected .+, found .+: restore it"):
            store.restore(1, like)
        count += 1
    return count


def test_every_difference_in_any_leaf_is_refused(tmp_path: Path):
    assert refusals(tmp_path, (4, 3)) > 100


@pytest.mark.soak
def test_every_difference_in_any_leaf_of_a_deeper_model_is_refused(tmp_path: Path, table):
    with table.row(
        "N5", "each leaf missing, added, of other shapes and dtypes; layer count"
    ) as row:
        row.count = refusals(tmp_path, (96, 64, 48, 32))
        row.result = "each refused in one line that names the leaf, what was expected and found"
