"""Jacobians that are left in two factors where a layer has them: the input and the slope behind it.

Of ``y = x @ kernel`` an output's derivative in the kernel is the outer product of x and the
output's gradient in y. The product of two such Jacobians follows from products of the factors
(structured derivatives: Novak, Sohl-Dickstein and Schoenholz, 2022), and neither is ever made.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from functorch_kit.nn.conv import examples_at_once
from functorch_kit.transforms.backward import find_sites
from functorch_kit.transforms.flat import Flat, evaluate, execute, trace
from functorch_kit.transforms.kernel_products import Factors
from functorch_kit.transforms.kernel_tiles import Function, rows_of
from functorch_kit.transforms.sites import Meeting, Site
from functorch_kit.types import Params, PyTree


@functools.partial(jax.jit, static_argnums=(0, 1))
def factored(
    function: Function, count: int, params: Params, x: PyTree, start: Any
) -> list[Array | Factors]:
    """As ``kernel_tiles.jacobian``, with ``Factors`` for the leaves where they cost less.

    Example:
        >>> linear = Function(lambda w, x: x @ w, True)
        >>> x = jnp.ones((4, 3))
        >>> (found,) = factored(linear, 4, jnp.ones((3, 2)), x, 0)
        >>> found.x.shape, found.g.shape
        ((4, 1, 3), (4, 2, 1, 2))
    """
    leaves, structure = jax.tree.flatten(params)
    examples, kind = jax.tree.flatten(rows_of(x, start, count))
    specs = [jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype) for leaf in examples]

    def of_leaves(leaves: list[Array], example: list[Array]) -> Array:
        return function.alone(structure.unflatten(leaves), kind.unflatten(example))

    with examples_at_once(count * function.outputs(params, x)):
        flat, y = trace(of_leaves, leaves, specs)
    sites = _worthwhile(flat, len(leaves), y.shape[0])
    factored_leaves = {site.leaf for site in sites}
    free = [leaf for leaf in range(len(leaves)) if leaf not in factored_leaves]

    def of_one(example: list[Array]) -> tuple[Any, Any]:
        def outputs(zeros: list[Array], chosen: list[Array]) -> tuple[Array, list[Array]]:
            given, met = list(leaves), []
            for leaf, value in zip(free, chosen, strict=True):
                given[leaf] = value
            at = {site.place: number for number, site in enumerate(sites)}

            def instead(index: int, operands: list[Any]) -> list[Any] | None:
                if index not in at:
                    return None
                number = at[index]
                met.append(operands[1 - sites[number].position])
                return [execute(sites[number].step, operands)[0] + zeros[number]]

            return evaluate(flat, [*given, *example], instead)[0], met

        zeros = [jnp.zeros(_output(site).shape, _output(site).dtype) for site in sites]
        z, pull, met = jax.vjp(outputs, zeros, [leaves[leaf] for leaf in free], has_aux=True)
        return met, jax.vmap(pull)(jnp.eye(z.shape[0], dtype=z.dtype))

    met, (slopes, each) = jax.vmap(of_one)(examples)
    found: dict[int, Array | Factors] = {
        leaf: rows.reshape(*rows.shape[:2], -1) for leaf, rows in zip(free, each, strict=True)
    }
    for site, operand, slope in zip(sites, met, slopes, strict=True):
        together = slope.reshape(-1, *slope.shape[2:])
        (x_rows,), g_rows = Meeting(site, operand, together).rows()
        g_rows = g_rows[:, 0].reshape(*slope.shape[:2], *g_rows.shape[2:])
        found[site.leaf] = Factors(x_rows[:, 0], g_rows)
    return [found[leaf] for leaf in range(len(leaves))]


def _worthwhile(flat: Flat, leaves: int, outputs: int) -> list[Site]:
    """Matrix products where the factors cost less than the Jacobian: leaves used once, few rows."""
    sites, _ = find_sites(flat, leaves)
    used = [site.leaf for site in sites]
    return [
        site
        for site in sites
        if used.count(site.leaf) == 1 and site.step.name == "dot_general" and _pays(site, outputs)
    ]


def _pays(site: Site, outputs: int) -> bool:
    size, slope = math.prod(site.weight_aval.shape), math.prod(_output(site).shape)
    contracted = site.step.eqn.params["dimension_numbers"][0][site.position]
    inputs = math.prod(site.weight_aval.shape[axis] for axis in contracted)
    rows = slope * inputs // size
    return rows**2 * (inputs + outputs**2 * size // inputs) < outputs**2 * size


def _output(site: Site) -> jax.ShapeDtypeStruct:
    aval = site.step.result()
    return jax.ShapeDtypeStruct(aval.shape, aval.dtype)
