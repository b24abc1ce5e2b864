"""From a Model to a serialised program: StableHLO that needs no model code to run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.export
import jax.numpy as jnp

from functorch_kit.errors import UserError
from functorch_kit.export.errors import ArtifactError
from functorch_kit.export.manifest import Leaf
from functorch_kit.types import Model, ModelState, Params, PyTree, Spec, path_name

PLATFORMS = ("cpu", "cuda", "tpu")


class Exported(NamedTuple):
    """A program as bytes, and what goes in and comes out.

    Attributes:
        content: what ``jax.export`` serialised.
        inputs: of the program, beside the parameters.
        outputs: likewise.
        calling_convention: of ``jax.export``.
    """

    content: bytes
    inputs: tuple[Leaf, ...]
    outputs: tuple[Leaf, ...]
    calling_convention: int


def make_program(
    model: Model,
    params: Params,
    model_state: ModelState,
    x_spec: Spec,
    *,
    gradients: int = 0,
    batch: int | None = None,
    platforms: Sequence[str] = PLATFORMS,
) -> Exported:
    """Lower what a model computes in evaluation, once for several platforms, and serialise it.

    The parameters stay arguments, by their addresses: ``program(params, state, x) -> y``, where
    ``params`` and ``state`` are flat dicts. So they lie in a file of their own, can be trained
    further and cost the program nothing.

    Args:
        model: any Model; what it makes of its state is not kept.
        params: its parameters, arrays or specs.
        model_state: its state, likewise.
        x_spec: shape and dtype of a batch: an array's, or a dict's of such.
        gradients: orders of derivatives to serialise beside it.
        batch: records in every batch; None: any number.
        platforms: that it is lowered for; none of them need be there.

    Raises:
        ArtifactError: a model that wants to know the size of a batch, or an input that is no array
            or dict of arrays.

    Example:
        >>> from functorch_kit import nn
        >>> model, x = nn.dense(2), jax.ShapeDtypeStruct((1, 3), jnp.float32)
        >>> params, state = model.init(jax.random.key(0), x)
        >>> made = make_program(model, params, state, x)
        >>> str(made.inputs[0]), str(made.outputs[0])
        ('float32(batch, 3)', 'float32(batch, 2)')
    """
    batch_size = jax.export.symbolic_shape("batch")[0] if batch is None else batch
    x = jax.tree.map(lambda leaf: _of_batch(leaf, batch_size), x_spec)
    for path, _ in jax.tree_util.tree_leaves_with_path(x):
        if not all(isinstance(getattr(entry, "key", None), str) for entry in path):
            raise ArtifactError("an artifact takes one array, or a dict of arrays, as its input")

    def program(flat_params: dict[str, Any], flat_state: dict[str, Any], x: PyTree) -> Any:
        whole = filled(params, flat_params), filled(model_state, flat_state)
        return model.apply(*whole, x, train=False)[0]

    specs = jax.eval_shape(lambda: (flat(params), flat(model_state)))
    try:
        made = jax.export.export(jax.jit(program), platforms=tuple(platforms))(*specs, x)
        content = made.serialize(vjp_order=gradients)
    except UserError:
        raise
    except ImportError as error:
        raise ArtifactError(
            "programs are serialised with flatbuffers: pip install 'functorch_kit[export]'"
        ) from error
    except Exception as error:  # whatever a model does that has no form for any batch
        remedy = "give batch=<records in every batch>" if batch is None else "see the cause"
        reason = next(iter(str(error).splitlines()), type(error).__name__)[:200]
        raise ArtifactError(f"the model cannot be exported ({reason}): {remedy}") from error
    outputs = jax.tree.unflatten(made.out_tree, made.out_avals)
    return Exported(
        bytes(content), leaves("x", x), leaves("y", outputs), made.calling_convention_version
    )


def flat(tree: PyTree) -> dict[str, Any]:
    """Address -> array; typed PRNG keys as the numbers that they are made of.

    Raises:
        ArtifactError: two arrays have one address.

    Example:
        >>> flat({"head": {"kernel": 1, "bias": (2, 3)}})
        {'head/bias/0': 2, 'head/bias/1': 3, 'head/kernel': 1}
    """
    found: dict[str, Any] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        name = path_name(path)
        if name in found:
            raise ArtifactError(f"two arrays are called {name!r}: rename one")
        found[name] = jax.random.key_data(leaf) if _is_key(leaf) else leaf
    return found


def filled(like: PyTree, arrays: Mapping[str, Any]) -> PyTree:
    """A tree of the structure of ``like`` with these arrays in it: the way back from ``flat``.

    Raises:
        ArtifactError: an array is missing, or of another shape.

    Example:
        >>> import numpy as np
        >>> filled({"a": {"b": np.zeros(1)}}, {"a/b": np.ones(1)})
        {'a': {'b': array([1.])}}
    """
    made: list[Any] = []
    for path, leaf in jax.tree_util.tree_leaves_with_path(like):
        name = path_name(path)
        if name not in arrays:
            raise ArtifactError(f"array {name!r} is missing")
        value = arrays[name]
        if _is_key(leaf):
            value = jax.random.wrap_key_data(value, impl=jax.random.key_impl(leaf))
        if tuple(value.shape) != tuple(leaf.shape):
            raise ArtifactError(f"array {name!r} is {value.shape}, and {leaf.shape} is expected")
        made.append(value)
    return jax.tree.unflatten(jax.tree.structure(like), made)


def leaves(name: str, tree: PyTree) -> tuple[Leaf, ...]:
    """What a manifest says of arrays or their specs.

    Example:
        >>> [str(leaf) for leaf in leaves("x", {"a": jax.ShapeDtypeStruct((2,), jnp.int32)})]
        ['int32(2)']
    """
    return tuple(
        Leaf(
            "/".join(filter(None, (name, path_name(path)))),
            tuple(side if isinstance(side, int) else str(side) for side in leaf.shape),
            str(leaf.dtype),
        )
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    )


def _of_batch(leaf: Any, size: Any) -> jax.ShapeDtypeStruct:
    if not leaf.shape:
        raise ArtifactError("an input without axes has no batch: give arrays (batch, …)")
    return jax.ShapeDtypeStruct((size, *leaf.shape[1:]), leaf.dtype)


def _is_key(leaf: Any) -> bool:
    return hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
