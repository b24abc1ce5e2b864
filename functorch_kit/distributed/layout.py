"""Where everything lies: parameters, optimizer state, batches and what passes between layers."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from functorch_kit import nn
from functorch_kit.data import DataError, shard, sharded
from functorch_kit.distributed.mesh import BATCH_AXES, MeshError, axis_sizes
from functorch_kit.distributed.rules import SMALLEST, Rules, as_rules, fully_split, partition
from functorch_kit.types import Objective, Outcome, Params, PyTree, Spec, path_name

_OPEN = PartitionSpec.UNCONSTRAINED


class Layout:
    """A mesh, and rules for what lies where on it.

    Nothing here computes: a step is the same pure function with or without a layout, and XLA's
    partitioner finds the collectives. Losses are sums and weights, and randomness is a function of
    the step, so that sharing out a batch changes no more than the order of additions.

    Args:
        mesh: with axes of ``AXES``; ``data`` or ``fsdp`` among them.
        rules: for parameters; see ``Rules``.
        smallest: arrays of fewer numbers are copied to every device.

    Raises:
        MeshError: a mesh without an axis for the batch, or random numbers that depend on the mesh.

    Example:
        >>> from functorch_kit.distributed import make_mesh
        >>> layout = Layout(make_mesh(data=1, devices=jax.devices()[:1]))
        >>> layout.is_plain, layout.batch_parts
        (True, 1)
    """

    def __init__(
        self,
        mesh: Any,
        rules: Rules | Mapping[str, PartitionSpec] | None = None,
        *,
        smallest: int = SMALLEST,
    ):
        self.mesh, self.rules, self.smallest = mesh, as_rules(rules), smallest
        self._batch_axes = tuple(axis for axis in BATCH_AXES if axis in mesh.shape)
        if not self._batch_axes:
            known = ", ".join(mesh.shape)
            raise MeshError(f"the mesh has axes {known}: call the one for batches 'data'")
        self.batch_parts = math.prod(mesh.shape[axis] for axis in self._batch_axes)
        config: Any = jax.config
        random = config.jax_default_prng_impl
        if mesh.size > 1 and (random != "threefry2x32" or not config.jax_threefry_partitionable):
            raise MeshError(
                "random numbers would depend on the mesh: leave jax_default_prng_impl at"
                " threefry2x32, and jax_threefry_partitionable on"
            )

    @property
    def is_plain(self) -> bool:
        """Whether it is the one device that is used without a layout: then nothing need be said."""
        return self.mesh.size == 1 and self.mesh.devices.flat[0] == jax.devices()[0]

    @property
    def spans_processes(self) -> bool:
        """Whether other processes have a part of it."""
        return len({device.process_index for device in self.mesh.devices.flat}) > 1

    @property
    def everywhere(self) -> NamedSharding:
        """A copy on each device."""
        return NamedSharding(self.mesh, PartitionSpec())

    def check_batch(self, pipeline: Any, accumulate: int = 1) -> None:
        """Refuse batches that do not split evenly.

        Args:
            pipeline: of training.
            accumulate: micro-batches in each.

        Raises:
            MeshError: with sizes that do.
        """
        size = _examples(pipeline)
        parts = self.batch_parts * accumulate
        if size % parts:
            found = axis_sizes(self.mesh)
            over = [f"{name} {found[name]}" for name in self._batch_axes if name in found]
            over = " × ".join(over + [f"{accumulate} micro-batches"] * (accumulate > 1))
            raise MeshError(
                f"a batch of {size} does not split over {over}: give a multiple of {parts}"
            )

    def of_params(self, params: Params) -> PyTree:
        """A NamedSharding for each parameter.

        Raises:
            MeshError: rules that do not fit.
        """
        specs = partition(params, self.mesh, self.rules, smallest=self.smallest)
        return jax.tree.map(lambda spec: NamedSharding(self.mesh, spec), specs, is_leaf=_is_spec)

    def of_state(self, state: Any) -> Any:
        """A NamedSharding for each leaf of a TrainState.

        A leaf of the optimizer's state or of an average lies where the parameter does whose path
        its own ends in, and whose shape it has; any other large one is split over ``fsdp``.

        Args:
            state: arrays or specs.
        """
        placed = self.of_params(state.params)
        shardings = dict(_named(placed))
        shapes = {name: leaf.shape for name, leaf in _named(state.params)}

        def place(path: Any, leaf: Any) -> NamedSharding:
            name = path_name(path)
            field, _, inside = name.partition("/")
            if field == "params":
                return shardings[inside]
            if field not in ("opt_state", "ema") or not leaf.shape:
                return self.everywhere
            parts = inside.split("/")
            for start in range(len(parts)):
                owner = "/".join(parts[start:])
                if shapes.get(owner) == leaf.shape:
                    return shardings[owner]
            spec = fully_split(leaf, self.mesh, smallest=self.smallest)
            return NamedSharding(self.mesh, spec)

        return jax.tree_util.tree_map_with_path(place, state)

    def on_mesh(self, state: Any) -> Any:
        """A TrainState's specs with the sharding of each leaf, to compile for."""
        return self.lying(state, self.of_state(state))

    def of_batch(self, spec: Spec, pipeline: Any, lead: int = 0) -> PyTree:
        """A NamedSharding for each leaf of a batch, or of rows of them: examples are shared out.

        Args:
            spec: arrays or specs.
            pipeline: that they are of. A leaf whose axis ``lead`` is not of its examples, or that
                does not split evenly, is copied to each device.
            lead: the axis of the examples.
        """
        size = _examples(pipeline)
        axes = (None,) * lead + (self._batch_axes,)

        def place(leaf: Any) -> NamedSharding:
            is_split = len(leaf.shape) > lead and leaf.shape[lead] == size
            is_split &= size % self.batch_parts == 0
            return NamedSharding(self.mesh, PartitionSpec(*axes)) if is_split else self.everywhere

        return jax.tree.map(place, spec)

    def on_each(self, spec: Spec) -> Spec:
        """Specs of what each device has a copy of."""
        return self.lying(spec, jax.tree.map(lambda leaf: self.everywhere, spec))

    def lying(self, specs: Spec, shardings: PyTree) -> Spec:
        """Specs with a sharding for each leaf."""

        def spec(leaf: Any, sharding: Any) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

        return jax.tree.map(spec, specs, shardings)

    def outputs(self, state: Spec) -> tuple[Any, NamedSharding]:
        """Where a step's outputs lie: the state as it went in, metrics on each device.

        Args:
            state: specs with shardings.
        """
        return jax.tree.map(lambda leaf: leaf.sharding, state), self.everywhere

    def objective(self, objective: Objective) -> Objective:
        """The same objective, with what it computes pinned to the mesh.

        Examples stay with their devices from layer to layer, so that it is the parameters which are
        gathered, one layer at a time; with ``sequence`` so do positions, and attention gathers keys
        and values (as in Llama 3; Grattafiori et al., 2024). Gradients lie where parameters do.
        """

        def pinned(params, model_state, batch, *, key, train) -> Outcome:
            first = jax.tree.leaves(batch.get("x", batch))[0]
            size, length = first.shape[0], first.shape[1] if _is_text(first) else None
            parts = self.mesh.shape.get("sequence", 1)
            if parts > 1 and (length is None or length % parts):
                what = f"a context of {length}" if length else "an input that is no text"
                raise MeshError(
                    f"{what} does not split over sequence {parts}: give mesh.sequence=1"
                )

            def place(path: str, leaf: Any) -> Any:
                if not leaf.ndim or leaf.shape[0] != size or size % self.batch_parts:
                    return leaf
                entries: list[Any] = [self._batch_axes, *[_OPEN] * (leaf.ndim - 1)]
                # Behind the heads, positions are on another axis: there they are left to XLA.
                if parts > 1 and leaf.ndim in (2, 3) and leaf.shape[1] == length:
                    entries[1] = "sequence"
                return self._pinned(leaf, PartitionSpec(*entries))

            params = self.pin(params, self.of_params(params))
            batch = jax.tree.map(lambda leaf: place("", leaf), batch)
            with nn.placed(place):
                return objective(params, model_state, batch, key=key, train=train)

        return pinned

    def step(self, train_step: Callable[..., Any], shardings: Any) -> Callable[..., Any]:
        """The same train step; its state comes out where it went in, also inside a loop."""

        def step(hparams, state, batch):
            after, metrics = train_step(hparams, state, batch)
            return self.pin(after, shardings), metrics

        return step

    def pin(self, tree: PyTree, shardings: PyTree) -> PyTree:
        """Say inside a traced function where arrays lie; typed keys and scalars are let alone."""

        def pin(leaf: Any, sharding: Any) -> Any:
            if not jnp.shape(leaf) or jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
                return leaf
            return jax.lax.with_sharding_constraint(leaf, sharding)

        return jax.tree.map(pin, tree, shardings)

    def _pinned(self, leaf: Any, spec: PartitionSpec) -> Any:
        return jax.lax.with_sharding_constraint(leaf, NamedSharding(self.mesh, spec))

    def put(self, tree: PyTree, shardings: PyTree | None = None) -> PyTree:
        """Host arrays, the same in every process, onto the mesh: each process sends its own part.

        Args:
            tree: arrays.
            shardings: of each; copied to each device if None.

        Example:
            >>> from functorch_kit.distributed import make_mesh
            >>> layout = Layout(make_mesh(data=-1))
            >>> layout.put({"x": np.ones(3)})["x"].is_fully_replicated
            True
        """
        if shardings is None:
            shardings = jax.tree.map(lambda leaf: self.everywhere, tree)
        if not self.spans_processes:
            return jax.device_put(tree, shardings)

        def put(leaf: Any, sharding: NamedSharding) -> jax.Array:
            host = np.asarray(leaf)
            return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])

        return jax.tree.map(put, tree, shardings)

    def put_key(self, key: Any) -> Any:
        """A typed PRNG key onto every device."""
        words = self.put(jax.random.key_data(key))
        return jax.random.wrap_key_data(words, impl=str(jax.random.key_impl(key)))

    def reading(self, pipeline: Any, shardings: PyTree) -> tuple[Any, Callable[[Any], Any]]:
        """What a process reads of a pipeline, and how its rows get onto the mesh.

        Args:
            pipeline: of all records.
            shardings: of its rows (steps, batch, ...).

        Returns:
            A pipeline and ``put(rows)``. Where there are several processes and the data are read
            from files, each reads its own records of every batch; the order is that of one process.
        """
        if self.spans_processes and not jax.tree.leaves(pipeline.constant()):
            own = self._own_share(_examples(pipeline))
            with contextlib.suppress(DataError):  # some pipelines cannot be shared out
                if own is not None:
                    return shard(pipeline, *own), sharded(self.mesh, self._batch_axes)
        return pipeline, lambda rows: self.put(rows, shardings)

    def _own_share(self, size: int) -> tuple[int, int] | None:
        """Which part of how many equal ones this process's devices need of each batch."""
        place = NamedSharding(self.mesh, PartitionSpec(self._batch_axes))
        needed = place.addressable_devices_indices_map((size,)).values()
        starts = [index[0].indices(size)[:2] for index in needed if index is not None]
        first, last = min(start for start, _ in starts), max(stop for _, stop in starts)
        share = last - first
        return None if size % share or first % share else (first // share, size // share)


def _named(tree: PyTree) -> list[tuple[str, Any]]:
    return [(path_name(path), leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)]


def _examples(pipeline: Any) -> int:
    return jax.tree.leaves(pipeline.spec["x"])[0].shape[0]


def _is_spec(leaf: Any) -> bool:
    return isinstance(leaf, PartitionSpec)


def _is_text(leaf: Any) -> bool:
    return leaf.ndim == 2 and jnp.issubdtype(leaf.dtype, jnp.integer)
