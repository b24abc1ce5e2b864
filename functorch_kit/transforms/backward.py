"""One backward pass for a batch of examples that leaves each example's gradients apart.

The function of one example is traced, and the steps that are linear in a parameter are found. An
array of zeros added to the output of each gets that output's gradient, so one backward pass over
the batch, which makes no parameter's gradient, gives everything from which each of them, or its
norm, or a weighted sum over the examples follows by a rule (Goodfellow, 2015; Bu et al., 2023).
Parameters that are used otherwise are differentiated example by example with ``jax.vmap``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from functorch_kit.nn.conv import examples_at_once
from functorch_kit.transforms.errors import TransformError
from functorch_kit.transforms.flat import Flat, Step, evaluate, execute, trace
from functorch_kit.transforms.sites import Meeting, Site, has_rule
from functorch_kit.types import Params, PyTree, path_name, wide_float

ExampleLoss = Callable[[Params, PyTree], Array]
"""``f(params, example) -> loss``: one example, without a batch axis; the loss has shape ()."""

# Steps that move elements or widen them: the norm of a gradient is the same on both sides.
_MOVES = {
    *("reshape", "transpose", "squeeze", "broadcast_in_dim"),
    *("convert_element_type", "copy", "name"),
}


class Plan(NamedTuple):
    """Which leaves of the parameters follow from rules, and which are differentiated one by one.

    Attributes:
        flat: the function of one example.
        sites: where leaves with rules are used, in order of execution.
        free: numbers of the leaves without.
        leaves: how many leaves the parameters have.
    """

    flat: Flat
    sites: tuple[Site, ...]
    free: tuple[int, ...]
    leaves: int

    def sites_of(self, leaf: int) -> list[int]:
        """The places of a leaf's sites among all."""
        return [at for at, site in enumerate(self.sites) if site.leaf == leaf]


def plan(f: ExampleLoss, params: Params, batch: PyTree, at_once: int = 1) -> Plan:
    """Trace the function for one example of a batch, and find its sites.

    Args:
        f: the loss of one example.
        params: or their specs.
        batch: arrays with the examples as a first axis, or their specs.
        at_once: how many examples will be side by side, for layers that choose by the size.

    Raises:
        TransformError: the loss is no single float, a leaf of the parameters is no float, or the
            batch has no axis of examples.

    Example:
        >>> loss = lambda kernel, x: jnp.sum(jnp.tanh(x @ kernel)) + jnp.sum(kernel**2)
        >>> found = plan(loss, jnp.ones((3, 2)), jnp.ones((4, 3)))
        >>> len(found.sites), found.free  # squared as well: no rule for the whole
        (0, (0,))
    """
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            raise TransformError(
                f"params: {path_name(path) or 'it'} is {leaf.dtype}, which has no gradient: keep"
                " it out of the parameters"
            )
    batch_size(batch)
    example = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), batch)
    with examples_at_once(at_once):
        flat, loss = trace(f, params, example)
    is_one = isinstance(loss, jax.ShapeDtypeStruct) and loss.shape == ()
    if not is_one or not jnp.issubdtype(loss.dtype, jnp.floating):
        told = jax.tree.map(lambda leaf: f"{leaf.dtype}{list(leaf.shape)}", loss)
        raise TransformError(f"the function gives {told} for one example, not one float: a loss")
    count = len(jax.tree.leaves(params))
    sites, free = find_sites(flat, count)
    return Plan(flat, tuple(sites), tuple(free), count)


def batch_size(batch: PyTree, mask: Array | None = None) -> int:
    """How many examples a batch has.

    Raises:
        TransformError: leaves of no or different sizes, naming the first that is; a mask of
            another shape.

    Example:
        >>> batch_size({"x": jnp.ones((4, 3)), "y": jnp.ones(4)})
        4
    """
    leaves = jax.tree_util.tree_leaves_with_path(batch)
    if not leaves:
        raise TransformError("the batch has no arrays: give at least one, examples first")
    for path, leaf in leaves:
        if not leaf.shape or leaf.shape[0] != leaves[0][1].shape[0]:
            raise TransformError(
                f"batch: {path_name(path) or 'it'} has shape {leaf.shape}: every leaf has the"
                f" examples as its first axis, {leaves[0][1].shape[:1] or 'as many as all others'}"
            )
    size = leaves[0][1].shape[0]
    if mask is not None and mask.shape != (size,):
        raise TransformError(f"mask has shape {mask.shape}: give one number for each of {size}")
    return size


class Backward:
    """The gradients of each example of a batch, made only as far as they are asked for.

    Attributes:
        losses: (examples,); 0 where the mask is.

    Args:
        plan: of the function.
        params: the parameters.
        batch: arrays with the examples as a first axis, as many as fit in memory at once.
        mask: False for examples that count for nothing, whatever they hold (examples,); None if
            all count.

    Example:
        >>> loss = lambda kernel, x: jnp.sum(x @ kernel)
        >>> kernel, batch = jnp.ones((2, 1)), jnp.array([[3.0, 4.0], [0.0, 1.0]])
        >>> backward = Backward(plan(loss, kernel, batch), kernel, batch)
        >>> backward.squared_norms().tolist(), backward.gradients().shape
        ([25.0, 1.0], (2, 2, 1))
    """

    def __init__(
        self, plan: Plan, params: Params, batch: PyTree, mask: Array | None = None
    ) -> None:
        self._plan = plan
        self._leaves, self._structure = jax.tree.flatten(params)
        self._made: dict[int, Array] = {}
        zeros = [_zeros(site.step) for site in plan.sites]
        free = [self._leaves[leaf] for leaf in plan.free]
        run = jax.vmap(jax.value_and_grad(self._one, argnums=(0, 1), has_aux=True), (None, None, 0))
        (losses, met), (slopes, each) = run(zeros, free, jax.tree.leaves(batch))

        def kept(value: Array) -> Array:
            if mask is None or not jnp.issubdtype(value.dtype, jnp.floating):
                return value
            return jnp.where(mask.reshape(-1, *(1,) * (value.ndim - 1)), value, 0)

        self.losses = kept(losses)
        self._free = {leaf: kept(value) for leaf, value in zip(plan.free, each, strict=True)}
        self._meetings = [
            Meeting(site, kept(x), kept(slope))
            for site, x, slope in zip(plan.sites, met, slopes, strict=True)
        ]

    def gradients(self) -> Params:
        """Of every example: the parameters' structure, each leaf (examples, *shape)."""
        return self._tree([self._gradient(leaf) for leaf in range(self._plan.leaves)])

    def squared_norms(self) -> Float[Array, " examples"]:
        """Of each example's whole gradient (examples,)."""
        total = jnp.zeros_like(wide_float(self.losses))
        for leaf in range(self._plan.leaves):
            total = total + self._squared_norm(leaf).astype(total.dtype)
        return total

    def weighted_sum(self, weight: Float[Array, " examples"]) -> Params:
        """The sum over the examples of weight (examples,) times gradient."""
        return self._tree([self._weighted(leaf, weight) for leaf in range(self._plan.leaves)])

    def _one(self, zeros: list[Array], free: list[Array], example: list[Any]) -> Any:
        """The loss of one example, and what met the parameters at the sites."""
        leaves = list(self._leaves)
        for leaf, value in zip(self._plan.free, free, strict=True):
            leaves[leaf] = value
        at = {site.place: number for number, site in enumerate(self._plan.sites)}
        met: list[Array] = []

        def instead(index: int, operands: list[Any]) -> list[Any] | None:
            number = at.get(index)
            if number is None:
                return None
            site = self._plan.sites[number]
            operands[site.position] = lax.stop_gradient(operands[site.position])
            met.append(operands[1 - site.position])
            return [execute(site.step, operands)[0] + zeros[number]]

        (loss,) = evaluate(self._plan.flat, [*leaves, *example], instead)
        return loss, met

    def _gradient(self, leaf: int) -> Array:
        if leaf in self._free:
            return self._free[leaf]
        if leaf not in self._made:
            parts = []
            for at in self._plan.sites_of(leaf):
                found = self._meetings[at].gradients()
                parts.append(jax.vmap(lambda one, at=at: self._at_leaf(at, one))(found))
            self._made[leaf] = sum(parts[1:], parts[0])
        return self._made[leaf]

    def _squared_norm(self, leaf: int) -> Array:
        if self._is_ghost(leaf):
            (at,) = self._plan.sites_of(leaf)
            return self._meetings[at].squared_norms()
        gradient = wide_float(self._gradient(leaf))
        return jnp.sum(jnp.square(gradient).reshape(len(gradient), -1), 1)

    def _weighted(self, leaf: int, weight: Array) -> Array:
        if leaf in self._made or leaf in self._free:
            return jnp.tensordot(weight.astype(self._leaves[leaf].dtype), self._gradient(leaf), 1)
        parts = [
            self._at_leaf(at, self._meetings[at].weighted_sum(weight))
            for at in self._plan.sites_of(leaf)
        ]
        return sum(parts[1:], parts[0])

    def _is_ghost(self, leaf: int) -> bool:
        """Whether the norm follows without the gradient.

        Of a leaf with several sites the gradients add before the norm is taken.
        """
        at = self._plan.sites_of(leaf)
        return (
            leaf not in self._made and len(at) == 1 and self._meetings[at[0]].needs_no_gradients()
        )

    def _at_leaf(self, at: int, gradient: Array) -> Array:
        """From the operand of a site back to the leaf."""
        site = self._plan.sites[at]
        if not site.chain:
            return gradient

        def moved(value: Array) -> Array:
            for step in site.chain:
                (value,) = execute(step, [value])
            return value

        return jax.linear_transpose(moved, self._leaves[site.leaf])(gradient)[0]

    def _tree(self, leaves: Sequence[Array]) -> Params:
        return jax.tree.unflatten(self._structure, leaves)


def _zeros(step: Step) -> Array:
    aval = step.result()
    return jnp.zeros(aval.shape, aval.dtype)


def find_sites(flat: Flat, leaves: int) -> tuple[list[Site], list[int]]:
    """Sites, and the leaves that are used in any other way or not at all."""
    # Where a value is a leaf with its elements moved: which leaf, and by which steps.
    moved: dict[int, tuple[int, tuple[Step, ...]]] = {
        number: (leaf, ()) for leaf, number in enumerate(flat.inputs[:leaves])
    }
    # Values that depend on parameters and not on the example: on which leaves.
    owned: dict[int, set[int]] = {number: {leaf} for number, (leaf, _) in moved.items()}
    of_example = set(flat.inputs[leaves:])
    sites: list[Site] = []
    free: set[int] = set()
    for index, step in enumerate(flat.steps):
        owners = [number for number in step.inputs if number in owned]
        if not of_example.isdisjoint(step.inputs):
            of_example.update(step.outputs)
            at = [place for place, number in enumerate(step.inputs) if number in owned]
            is_site = len(at) == 1 and owners[0] in moved and has_rule(step, at[0])
            if is_site and step.inputs[1 - at[0]] in of_example:
                sites.append(Site(index, step, at[0], *moved[owners[0]]))
            else:
                free.update(*(owned[number] for number in owners))
        elif owners:
            owned.update(dict.fromkeys(step.outputs, set().union(*map(owned.__getitem__, owners))))
            if _moves(step) and step.inputs[0] in moved:
                leaf, chain = moved[step.inputs[0]]
                moved[step.outputs[0]] = leaf, (*chain, step)
    free.update(*(owned[number] for number in flat.outputs if number in owned))
    used = {site.leaf for site in sites}
    free.update(leaf for leaf in range(leaves) if leaf not in used)
    return [site for site in sites if site.leaf not in free], sorted(free)


def _moves(step: Step) -> bool:
    if len(step.inputs) != 1 or len(step.outputs) != 1 or step.name not in _MOVES:
        return False
    before, after = step.operand(0), step.result()
    return before.size == after.size and jnp.issubdtype(after.dtype, jnp.floating)
