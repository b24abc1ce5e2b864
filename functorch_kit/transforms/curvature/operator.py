"""A symmetric matrix over the parameters that is known by its products with vectors."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from functorch_kit.transforms.errors import TransformError
from functorch_kit.types import PyTree, Spec, path_name, spec_of


@dataclasses.dataclass(frozen=True, eq=False)
class Operator:
    """A symmetric matrix over the parameters; ``operator(v)`` is its product with ``v``.

    ``hessian``, ``gauss_newton`` and ``fisher`` make them; any other symmetric product will do for
    ``trace``, ``diagonal``, ``eigenpairs`` and ``solve``, too.

    Attributes:
        product: from a pytree like the parameters to another one; linear and symmetric.
        spec: shapes and dtypes of the parameters.

    Example:
        >>> import jax.numpy as jnp
        >>> twice = Operator(lambda v: {"w": 2 * v["w"]}, spec_of({"w": jnp.zeros(3)}))
        >>> twice({"w": jnp.ones(3)})["w"].tolist(), twice.size
        ([2.0, 2.0, 2.0], 3)
        >>> twice.dense().tolist()[0]
        [2.0, 0.0, 0.0]
    """

    product: Callable[[PyTree], PyTree]
    spec: Spec

    def __post_init__(self):
        for path, leaf in jax.tree_util.tree_leaves_with_path(self.spec):
            if not jnp.issubdtype(leaf.dtype, jnp.floating):
                raise TransformError(
                    f"params/{path_name(path)} is {leaf.dtype}: give floating-point parameters only"
                )

    def __call__(self, v: PyTree) -> PyTree:
        """The product with a vector.

        Args:
            v: a pytree like the parameters.

        Returns:
            Another one.

        Raises:
            TransformError: ``v`` is not like the parameters; the first such leaf is named.
        """
        self._check(v)
        return self.product(v)

    @property
    def size(self) -> int:
        """Number of parameters: rows of the matrix."""
        return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(self.spec))

    @property
    def dtype(self) -> np.dtype:
        """Of flat vectors: the parameters' widest, at least float32, which sums need."""
        widest = max((leaf.dtype.itemsize for leaf in jax.tree.leaves(self.spec)), default=4)
        return np.dtype(np.float64 if widest > 4 else np.float32)

    def flat(self, v: Float[Array, " size"]) -> Float[Array, " size"]:
        """The product with a flat vector, in the order of ``jax.tree.leaves``."""
        return self.flatten(self.product(self.unflatten(v)))

    def flatten(self, v: PyTree) -> Float[Array, " size"]:
        """A pytree like the parameters as one vector."""
        return jnp.concatenate([jnp.ravel(leaf).astype(self.dtype) for leaf in jax.tree.leaves(v)])

    def unflatten(self, v: Float[Array, "*rows size"]) -> PyTree:
        """One vector, or several with leading axes, as a pytree like the parameters."""
        leaves, treedef = jax.tree.flatten(self.spec)
        ends = np.cumsum([math.prod(leaf.shape) for leaf in leaves])
        pieces = jnp.split(v, ends[:-1], axis=-1)
        return treedef.unflatten(
            [
                piece.reshape(*v.shape[:-1], *leaf.shape).astype(leaf.dtype)
                for piece, leaf in zip(pieces, leaves, strict=True)
            ]
        )

    def dense(self) -> Float[Array, "size size"]:
        """The whole matrix, a product for each column: for small nets, and for tests."""
        columns = jnp.eye(self.size, dtype=self.dtype)
        return jnp.stack([self.flat(column) for column in columns], axis=1)

    def _check(self, v: PyTree) -> None:
        if jax.tree.structure(v) != jax.tree.structure(self.spec):
            raise TransformError(
                f"v is {jax.tree.structure(v)}, not like the parameters:"
                f" give {jax.tree.structure(self.spec)}"
            )
        wanted = jax.tree_util.tree_leaves_with_path(self.spec)
        for (path, leaf), given in zip(wanted, jax.tree.leaves(spec_of(v)), strict=True):
            if (given.shape, given.dtype) != (leaf.shape, leaf.dtype):
                raise TransformError(
                    f"v/{path_name(path)} is {given.dtype}{list(given.shape)}:"
                    f" give {leaf.dtype}{list(leaf.shape)}, like the parameter"
                )
