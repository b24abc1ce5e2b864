"""Where one parameter meets one example: gradients and their norms from input and output gradient.

Of ``y = x @ kernel`` the kernel's gradient is ``x.T @ g`` with ``g`` the gradient of y. For one
example at a time that is a batched product; and its norm needs no product at all where an example
has one row (``|x| |g|``), or only those among its rows (Goodfellow, 2015; Li et al., 2021).
A convolution is the same with patches for rows; an embedding has a row for each index.
"""

from __future__ import annotations

import itertools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Integer

from functorch_kit.transforms.flat import Step, execute
from functorch_kit.types import wide_float

# A product with fewer features would read the output's gradient once more for little. Of a whole
# patch, which takes several times the memory of the image, products take half as long again.
_FEATURES_OF_A_PIECE = 32


class Site(NamedTuple):
    """A step that is linear in a parameter, of which an example gives the other operand.

    Attributes:
        place: the step's, in the row.
        step: a matrix product, a convolution, or a look-up of rows.
        position: which operand the parameter is.
        leaf: which leaf of the parameters it is.
        chain: the steps that lead from the leaf to it: reshapes and the like, each of one operand.
    """

    place: int
    step: Step
    position: int
    leaf: int
    chain: tuple[Step, ...]

    @property
    def weight_aval(self) -> Any:
        """Shape and dtype of the operand."""
        aval = self.step.operand(self.position)
        return jax.ShapeDtypeStruct(aval.shape, aval.dtype)


def has_rule(step: Step, position: int) -> bool:
    """Whether a step is one that ``gradients`` and ``squared_norms`` know, in that operand.

    Example:
        >>> from functorch_kit.transforms.flat import trace
        >>> flat, _ = trace(lambda x, kernel: x @ kernel, jnp.ones((2, 3)), jnp.ones((3, 4)))
        >>> has_rule(flat.steps[0], 1)
        True
    """
    params = step.eqn.params
    match step.name:
        case "dot_general":
            return not params["dimension_numbers"][1][0]
        case "conv_general_dilated":
            kernel = step.operand(1).shape
            window = [kernel[axis] for axis in params["dimension_numbers"].rhs_spec[2:]]
            # Each of its elements is a slice for the compiler.
            return position == 1 and params["batch_group_count"] == 1 and math.prod(window) <= 128
        case "gather":
            numbers, rows = params["dimension_numbers"], step.operand(0).shape
            rank = len(step.result().shape)
            return (
                position == 0
                and numbers.collapsed_slice_dims == (0,)
                and numbers.start_index_map == (0,)
                and not numbers.operand_batching_dims
                and tuple(params["slice_sizes"]) == (1, *rows[1:])
                and len(rows) > 1
                and tuple(numbers.offset_dims) == tuple(range(rank))[1 - len(rows) :]
                and params["mode"] == lax.GatherScatterMode.FILL_OR_DROP
            )
        case _:
            return False


class Meeting:
    """What passed a site for a batch of examples: its input x and its output's gradient g.

    Both have the examples as a first axis.

    Example:
        >>> from functorch_kit.transforms.flat import trace
        >>> flat, _ = trace(lambda x, kernel: x @ kernel, jnp.ones(2), jnp.ones((2, 1)))
        >>> site = Site(0, flat.steps[0], 1, 0, ())
        >>> meeting = Meeting(site, jnp.array([[3.0, 4.0]]), jnp.array([[2.0]]))
        >>> meeting.gradients().tolist(), meeting.squared_norms().tolist()
        ([[[6.0], [8.0]]], [100.0])
    """

    def __init__(self, site: Site, x: Array, g: Array) -> None:
        self.site, self.x, self.g = site, x, g

    def gradients(self) -> Array:
        """Of the operand, for each example: (examples, *shape)."""
        if self.site.step.name == "gather":
            index, g = _looked_up(self.site, self.x, self.g)
            zeros = jnp.zeros((len(g), *self.site.weight_aval.shape), g.dtype)
            return jax.vmap(lambda zero, i, rows: zero.at[i].add(rows, mode="drop"))(
                zeros, index, g
            )
        pieces, g = self.rows()
        found = [_product(x, g, self.site) for x in pieces]
        together = found[0] if len(found) == 1 else jnp.concatenate(found, 2)
        return jax.vmap(lambda one: _kernel_layout(self.site, one))(together)

    def squared_norms(self) -> Float[Array, " examples"]:
        """Of these gradients (examples,), from products among the rows: nothing is materialised."""
        if self.site.step.name == "gather":
            index, g = _looked_up(self.site, self.x, self.g)
            g = wide_float(g.reshape(*index.shape, -1))
            same = index[:, :, None] == index[:, None, :]
            inside = (index < self.site.weight_aval.shape[0]) & (index >= 0)
            products = jnp.einsum("btf,bsf->bts", g, g)
            return jnp.sum(jnp.where(same & inside[:, :, None], products, 0), (1, 2))
        pieces, g = self.rows()
        of_x = _gram(pieces[0])
        for piece in pieces[1:]:
            of_x = of_x + _gram(piece)
        return jnp.sum(of_x * _gram(g).astype(of_x.dtype), (1, 2, 3))

    def weighted_sum(self, weight: Float[Array, " examples"]) -> Array:
        """The sum over the examples of weight (examples,) times gradient."""
        scale = weight.astype(self.g.dtype).reshape(-1, *(1,) * (self.g.ndim - 1))
        if self.site.step.name == "dot_general":
            (x,), g = self.rows(self.g * scale)
            # As rows of one matrix: a contraction over two axes is slow on a CPU.
            x, g = (each.reshape(-1, each.shape[-1]) for each in (x, g))
            return _kernel_layout(self.site, _product(x[None, None], g[None, None], self.site)[0])

        def linear(kernel: Array) -> Array:
            return jax.vmap(lambda x: self._output(x, kernel))(self.x)

        return jax.linear_transpose(linear, self.site.weight_aval)(self.g * scale)[0]

    def needs_no_gradients(self) -> bool:
        """Whether the norms cost less from products among the rows than from the gradients."""
        if self.site.step.name == "gather":
            rows, table = self.x.size // len(self.x), self.site.weight_aval
            return rows**2 < table.shape[0]
        pieces, g = jax.eval_shape(self.rows)
        rows, inputs, outputs = g.shape[2], sum(x.shape[3] for x in pieces), g.shape[3]
        return rows * (inputs + outputs) <= inputs * outputs or rows == 1

    def _output(self, x: Array, kernel: Array) -> Array:
        operands = [x, kernel] if self.site.position == 1 else [kernel, x]
        return execute(self.site.step, operands)[0]

    def rows(self, g: Array | None = None) -> tuple[list[Array], Array]:
        """Input and output gradient as (examples, groups, rows, features).

        The input in pieces that follow each other: of a patch, which would have to be put together,
        products are taken piece by piece.
        """
        rows = _window_rows if self.site.step.name == "conv_general_dilated" else _dense_rows
        return rows(self.site, self.x, self.g if g is None else g)


def _product(x: Array, g: Array, site: Site) -> Array:
    """(examples, groups, rows, features) of both -> (examples, groups, features, features)."""
    found = lax.dot_general(
        x.astype(g.dtype),
        g,
        (((2,), (2,)), ((0, 1), (0, 1))),
        precision=site.step.eqn.params["precision"],
    )
    return found.astype(site.weight_aval.dtype)


def _gram(rows: Array) -> Array:
    """The products of all rows with each other (examples, groups, rows, rows)."""
    rows = wide_float(rows)
    if rows.shape[2] == 1:
        return jnp.sum(jnp.square(rows), 3, keepdims=True)
    return jnp.einsum("bktf,bksf->bkts", rows, rows)


def _dense_rows(site: Site, x: Array, g: Array) -> tuple[list[Array], Array]:
    contracted, free = _dense_axes(site, 1 - site.position)
    rows = [x.shape[1 + axis] for axis in free]
    x = x.transpose(0, *(1 + axis for axis in free), *(1 + axis for axis in contracted))
    x = x.reshape(len(x), 1, math.prod(rows), -1)
    if site.position == 0:  # the parameter's axes come first in the output
        outputs = g.ndim - 1 - len(rows)
        g = g.transpose(0, *range(1 + outputs, g.ndim), *range(1, 1 + outputs))
    return [x], g.reshape(len(g), 1, math.prod(rows), -1)


def _dense_axes(site: Site, position: int) -> tuple[tuple[int, ...], list[int]]:
    """Axes of an operand that are contracted, and the others."""
    contracted = tuple(site.step.eqn.params["dimension_numbers"][0][position])
    rank = len(site.step.operand(position).shape)
    return contracted, [axis for axis in range(rank) if axis not in contracted]


def _window_rows(site: Site, x: Array, g: Array) -> tuple[list[Array], Array]:
    """The input under each element of the window: a patch, piece by piece."""
    params = site.step.eqn.params
    numbers, groups = params["dimension_numbers"], params["feature_group_count"]

    def channels_last(array: Array, spec: tuple[int, ...]) -> Array:
        batch, channel, *space = spec
        return array.transpose(0, *(1 + axis for axis in (batch, *space, channel)))

    def rows(array: Array) -> Array:
        array = array.reshape(len(array), -1, groups, array.shape[-1] // groups)
        return array.transpose(0, 2, 1, 3)

    x, g = channels_last(x, numbers.lhs_spec), channels_last(g, numbers.out_spec)
    window = [site.weight_aval.shape[axis] for axis in numbers.rhs_spec[2:]]
    none = (0, 0, 0)
    pads = [
        (before, after, step - 1)
        for (before, after), step in zip(params["padding"], params["lhs_dilation"], strict=True)
    ]
    x = lax.pad(x, jnp.zeros((), x.dtype), (none, none, *pads, none))

    def shifted(offset: tuple[int, ...]) -> Array:
        steps, spaced, out = params["window_strides"], params["rhs_dilation"], g.shape[2:-1]
        start = [at * space for at, space in zip(offset, spaced, strict=True)]
        stop = [s + (n - 1) * step + 1 for s, n, step in zip(start, out, steps, strict=True)]
        limits = (*x.shape[:2], *stop, x.shape[-1])
        return lax.slice(x, (0, 0, *start, 0), limits, (1, 1, *steps, 1))

    offsets = list(itertools.product(*map(range, window)))
    at_once = -(-_FEATURES_OF_A_PIECE // (x.shape[-1] // groups))
    pieces = [
        jnp.concatenate([rows(shifted(offset)) for offset in offsets[start : start + at_once]], -1)
        for start in range(0, len(offsets), at_once)
    ]
    return pieces, rows(g)


def _kernel_layout(site: Site, gradient: Array) -> Array:
    """(groups, features in, features out) as the operand's own shape."""
    shape = site.weight_aval.shape
    if site.step.name == "dot_general":
        contracted, free = _dense_axes(site, site.position)
        # The k-th contracted axis of x met the k-th contracted axis of the parameter.
        axes = [*contracted, *free]
        gradient = gradient[0].reshape([shape[axis] for axis in axes])
        return gradient.transpose([axes.index(axis) for axis in range(len(axes))])
    features, channels, *space = site.step.eqn.params["dimension_numbers"].rhs_spec
    window = [shape[axis] for axis in space]
    groups = len(gradient)
    gradient = gradient.reshape(groups, *window, shape[channels], shape[features] // groups)
    gradient = jnp.moveaxis(gradient, 0, -2).reshape(*window, shape[channels], shape[features])
    axes = [*space, channels, features]
    return gradient.transpose([axes.index(axis) for axis in range(len(axes))])


def _looked_up(site: Site, index: Integer[Array, "examples *rest"], g: Array) -> tuple[Array, Any]:
    """Indices (examples, rows), and the gradients of what they led to (examples, rows, *row).

    An index outside goes to a row that is dropped.
    """
    size, *row = site.weight_aval.shape
    index = index.reshape(len(index), -1)
    index = jnp.where((index >= 0) & (index < size), index, size)
    return index, g.reshape(*index.shape, *row)
